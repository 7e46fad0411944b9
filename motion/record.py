"""Clips of how a policy walks: Foal's own, recorded in the simulation under the commands that it was trained for."""

import dataclasses
import pathlib

import numpy as np
import torch

from config import NoiseCfg, QuadrupedCfg, VaryCfg
from environments import registry
from motion.clip import Clip
from settings import ConfigError
from training import checkpoint

BEGINNING = 1.0  # of an episode, which is not recorded [s]


def record(path: pathlib.Path, clips: int, frames: int, seed: int = 0) -> tuple[list[Clip], int]:
    """Return clips of the policy of a checkpoint, one of each robot, and how many robots fell, which give none.

    Robots do not differ and are neither shoved nor misled by noise; commands are drawn as the task does. Raises
    ConfigError, naming the file, for a task that asks for no velocity.
    """
    loaded = checkpoint.load(path)
    cfg = loaded.config.env
    if not isinstance(cfg, QuadrupedCfg) or cfg.command.kind not in ("velocity", "heading"):
        raise ConfigError(f"{path}: expected a policy of a task that asks for velocities, got {loaded.config.task}")
    cfg = dataclasses.replace(
        cfg,
        noise=NoiseCfg(),
        vary=VaryCfg(),
        push=dataclasses.replace(cfg.push, speed=(0.0, 0.0), spin=0.0),
        max_episode_seconds=BEGINNING + (frames + 2) * cfg.ctrl_dt,
    )
    env = registry.make(loaded.config.task, num_envs=clips, cfg=cfg)
    creature = loaded.creature(env).eval()
    state = env.init_state(seed)
    memory = creature.initial_state(clips)
    fell = np.zeros(clips, bool)
    shown: dict[str, list[np.ndarray]] = {field.name: [] for field in dataclasses.fields(Clip)[2:]}
    for step in range(round(BEGINNING / cfg.ctrl_dt) + frames):
        with torch.no_grad():
            action, _, memory = creature.act(torch.from_numpy(state.obs), memory)
        state = env.step(action.numpy())
        fell |= state.done
        if step * cfg.ctrl_dt < BEGINNING - 1e-9:
            continue
        now = env.engine.get_state()
        for name, x in (
            ("joint_position", now.joint_position),
            ("joint_velocity", now.joint_velocity),
            ("root_position", now.base_position),
            ("root_quaternion", now.base_quaternion),
            ("root_linear_velocity", now.base_linear_velocity),
            ("root_angular_velocity", now.base_angular_velocity),
            ("command", env.field("command")),
        ):
            shown[name].append(x.reshape(clips, -1).astype(float))
    arrays = {name: np.stack(x, axis=1) for name, x in shown.items()}
    name = f"{loaded.config.task} walking"
    fps = 1.0 / cfg.ctrl_dt
    return [Clip(name, fps, **{k: x[i] for k, x in arrays.items()}) for i in np.flatnonzero(~fell)], int(fell.sum())
