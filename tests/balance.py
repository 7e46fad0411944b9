"""The balance task of robots that do not differ and are observed without error, and what tests do with it."""

import dataclasses

import numpy as np

from config import NoiseCfg, VaryCfg
from environments import EnvState, registry

TASK = "quadruped-balance"
CALM = {"push.speed": (0.0, 0.0), "push.spin": 0.0}
EXACT_START = {
    "reset.joint_position": 0.0, "reset.joint_velocity": 0.0, "reset.tilt": 0.0, "reset.velocity": 0.0,
    "reset.spin": 0.0,
}  # fmt: skip
ONE_GOAL = {"goal.interval": (1e5, 1e6)}
NEVER_FALL = {"fall_tilt": 3.0, "fall_height": 0.0}

CFG = registry.default_cfg(TASK)
ALIKE = dataclasses.replace(CFG, vary=VaryCfg(), noise=NoiseCfg())  # robots that do not differ, observed without error


def make(n=32, threads=1, **changes):
    """Return an environment; a change of push.speed is spelt push__speed."""
    return registry.make(
        TASK,
        num_envs=n,
        env_cfg_override={key.replace("__", "."): value for key, value in changes.items()},
        threads=threads,
        cfg=ALIKE,
    )


def make_with(n, *changes):
    merged = {key: value for change in changes for key, value in change.items()}
    return registry.make(TASK, num_envs=n, env_cfg_override=merged, threads=1, cfg=ALIKE)


def copy(state):
    return EnvState(
        state.obs.copy(),
        state.reward.copy(),
        state.terminated.copy(),
        state.truncated.copy(),
        {key: value.copy() for key, value in state.info.items()},
    )


def bits(state):
    return [x.tobytes() for x in (state.obs, state.reward, state.terminated, state.truncated, state.info["privileged"])]


def wander(env, steps, scale=0.5, seed=0):
    """Take random actions; return the last state and action."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        actions = rng.normal(0, scale, (env.num_envs, 12)).astype(np.float32)
        state = env.step(actions)
    return state, actions
