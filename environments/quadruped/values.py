"""The numbers that a task is set by, of its configuration, its robot and its ground, by the names that terms read."""

import math
import pathlib
from typing import Any

import numpy as np

from config import QuadrupedCfg, TerrainCfg
from environments.quadruped.terms import Command
from physics import ImportOptions, Robot, load_robot
from physics.contact import largest_timestep
from physics.terrain import Terrain, curriculum, from_file
from physics.tiles import Measures
from settings import ConfigError, knobs, override, require_memory, sections

PLATFORM = 2.0  # least side of the level middle of a tile, but at most a quarter of the tile [m]
BORDER = 4.0  # least width of the level ground around the tiles [m]
GO1_MASS = 12.743448  # of the robot that the configuration's numbers are for [kg]
GO1_HEIGHT = 0.2878  # of its base, standing [m]
GO1_KP = 40.0  # its gains, which other robots' own are scaled from [N m/rad]
GO1_KD = 1.0  # [N m s/rad]
ANYWHERE = 1e9  # a bound beyond every place [m]
SCALED = "physics", "reset", "push", "goal", "command", "vary"  # sections whose numbers fitted() scales
COMPOSED_SECTIONS = "reward", "observation", "termination", "event", "randomisation"  # whose knobs are of terms alone


def _tidy(value: float) -> float:
    """Return a number to 3 digits."""
    return float(f"{value:.3g}")


def torque_ratio(robot: Robot) -> float:
    """Return how much greater the torques are that bear a robot than the Go1's, by weight and height, to 3 digits."""
    return _tidy(robot.total_mass * robot.home_height / (GO1_MASS * GO1_HEIGHT))


def scales(robot: Robot) -> dict[str, float]:
    """Return how much greater than the Go1's a robot's quantities are, by their unit, where gravity is the same.

    By Froude's law of similarity: times go with the root of the length, here the base's height, and forces with the
    weight. It holds for what is smaller than a Go1; larger robots are asked for no more, and on contacts as stiff as
    their weight would have them they learn worse: HyQ was 0.16 m/s off, and 0.09 m/s on a Go1's.
    """
    length = float(min(1.0, robot.home_height / GO1_HEIGHT))
    mass = min(1.0, robot.total_mass / GO1_MASS)
    return {
        "m": length,
        "m/s": length**0.5,
        "rad/s": length**-0.5,
        "N/m": min(1.0, mass / length),
        "N s/m": min(1.0, mass / length**0.5),
        "N m/rad": mass * length,
        "N m s/rad": mass * length**1.5,
    }


def fitted(cfg: QuadrupedCfg, chosen: QuadrupedCfg) -> QuadrupedCfg:
    """Return a configuration with another's model and control step, and with numbers that fit that model's size.

    Where the contacts of light feet need it, the physics step becomes a smaller share of the control step.

    Raises ConfigError or RobotError, naming field or file, if a robot cannot be read.
    """
    if chosen.model == cfg.model:
        return cfg
    robot = chosen_robot(chosen)
    old = scales(chosen_robot(cfg))
    new = scales(robot)
    changes: dict[str, Any] = {"model": chosen.model}
    for name, section in sections(cfg, "env").items():
        for knob in knobs(section) if name in SCALED else ():
            about = knob.metadata
            if about["unit"] in new:
                larger = new[about["unit"]] / old[about["unit"]]
                value = np.clip(np.multiply(getattr(section, knob.name), larger), about["low"], about["high"])
                changes[f"{name}.{knob.name}"] = tuple(map(_tidy, value)) if value.ndim else _tidy(value)
    stiffest = changes["physics.contact_stiffness"] * chosen.vary.stiffness[1]
    longest = min(cfg.sim_dt, largest_timestep(stiffest, robot.foot_mass()))
    substeps = math.ceil(chosen.ctrl_dt / longest - 1e-6)
    return override(cfg, changes | {"ctrl_dt": chosen.ctrl_dt, "sim_dt": chosen.ctrl_dt / substeps}, "env")


def targets(command: Command, robot: Robot) -> dict[str, tuple[float, float]]:
    """Return the least and the most of a command's metrics that count as learnt: of smaller robots, their scale."""
    units = {metric.name: metric.function.unit for metric in command.metrics}
    found = {}
    for name, bounds in command.targets.items():
        scale = min(1.0, scales(robot).get(units[name], 1.0))
        found[name] = bounds[0] * scale, bounds[1] * scale
    return found


def gains(cfg: QuadrupedCfg, robot: Robot) -> tuple[np.ndarray, np.ndarray]:
    """Return the PD law's gains, kp [N m/rad] and kd [N m s/rad], (4, 3) each.

    A robot's own, as its file has them, else the Go1's times torque_ratio(); both times what the configuration has
    over the Go1's. With control "torque" motors are only damped.
    """
    ratio = torque_ratio(robot)
    if cfg.control == "torque":
        return np.zeros((4, 3)), np.full((4, 3), ratio * cfg.torque_kd)
    kp = np.full((4, 3), ratio * GO1_KP) if robot.kp is None else robot.kp
    kd = np.full((4, 3), ratio * GO1_KD) if robot.kd is None else robot.kd
    return kp * (cfg.kp / GO1_KP), kd * (cfg.kd / GO1_KD)


def import_options(cfg: QuadrupedCfg) -> ImportOptions:
    """Return what a configuration sets that a robot's file leaves open; raise ConfigError if that is malformed."""
    words = cfg.robot.lock.replace(",", " ").split()
    try:
        lock = tuple((name, float(angle)) for name, angle in zip(words[::2], words[1::2], strict=True))
    except ValueError:
        raise ConfigError(f"robot.lock: expected NAME ANGLE NAME ANGLE ..., got {cfg.robot.lock!r}") from None
    return ImportOptions(lock, cfg.robot.torque_limit, cfg.robot.foot_radius)


def chosen_robot(cfg: QuadrupedCfg) -> Robot:
    """Return the robot of a task, without damping that is its motors', which gains() give their own.

    Raises ConfigError or RobotError, naming field or file, if it cannot be read.
    """
    return load_robot(cfg.model, import_options(cfg)).undamped()


def values(cfg: QuadrupedCfg, robot: Robot, terrain: Terrain | None) -> dict[str, Any]:
    """Return what terms may read of the configuration, the robot and the ground, by name: each a number or a tuple."""
    found: dict[str, Any] = {}
    for name, section in sections(cfg, "env").items():
        for knob in knobs(section):
            value = getattr(section, knob.name)
            if not isinstance(value, str) and name not in COMPOSED_SECTIONS:
                found[knob.name if name == "env" else f"{name}_{knob.name}"] = value
    torque = cfg.control == "torque"
    ratio = torque_ratio(robot)
    low = (-ANYWHERE, -ANYWHERE)
    high = (ANYWHERE, ANYWHERE)
    if terrain:
        middles = terrain.spawns[..., :2].reshape(-1, 2)
        low = tuple(middles.min(0) - cfg.terrain.tile / 2)
        high = tuple(middles.max(0) + cfg.terrain.tile / 2)
    return found | {
        "max_episode_steps": cfg.max_episode_steps,
        "action_scale": 0.0 if torque else cfg.action_scale,
        "torque_scale": ratio * cfg.torque_scale if torque else 0.0,
        "hold_share": float(torque),
        "torque_ratio": ratio,
        "push_level": 1.0,
        "push_rate": 1.0,
        "command_rate": 1.0,
        "command_level": 1.0,
        "scan_points": cfg.scan.length * cfg.scan.width,
        "climbs": 0.0,
        "terrain_levels": 1 if terrain is None else terrain.spawns.shape[0],
        "terrain_first": (0.0, 0.0) if terrain is None else tuple(terrain.spawns[0, 0, :2]),
        "terrain_low": low,
        "terrain_high": high,
    }


def make_terrain(cfg: TerrainCfg) -> Terrain | None:
    """Return the ground, or None if it is flat; raise ConfigError, naming the field, for what is no terrain."""
    kinds = cfg.kinds.replace(",", " ").split()
    if cfg.friction != (1.0, 1.0):
        return _ground(cfg, kinds).with_patches(cfg.friction, cfg.patch, cfg.seed)
    return None if kinds == ["flat"] else _ground(cfg, kinds)


def _ground(cfg: TerrainCfg, kinds: list[str]) -> Terrain:
    """Return the ground as a field of heights; see make_terrain()."""
    if pathlib.Path(cfg.kinds).suffix:
        try:
            return from_file(cfg.kinds, cfg.relief, cfg.cell, cfg.tile)
        except ValueError as error:
            raise ConfigError(f"terrain.{error}") from None
        except OSError as error:
            raise ConfigError(
                f"terrain.kinds: {cfg.kinds}: {error.strerror or 'expected a picture, or an array as .npy'}"
            ) from None
    cells = (cfg.levels * cfg.tile + 2 * BORDER) * (len(kinds) * cfg.tile + 2 * BORDER) / cfg.cell**2
    require_memory(40.0 * cells, "terrain.levels, terrain.tile and terrain.cell")
    try:
        border = cfg.cell * math.ceil(BORDER / cfg.cell - 1e-6)
        return curriculum(
            cfg.levels, kinds, cfg.tile, cfg.cell, cfg.seed, cfg.difficulty, min(PLATFORM, cfg.tile / 4), border,
            Measures(cfg.step_height, cfg.tread[::-1], cfg.slope),
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"terrain.{error}") from None


def number(name: str, given: dict[str, Any], options: dict[str, dict[str, Any]]) -> float:
    """Return a setting's number; of a tuple's, the name ends in its index.

    given: values(); options: of terms, by section.
    """
    name, _, index = name.partition(".")
    section, _, option = name.partition("_")
    value = given[name] if name in given else options[section][option]
    return float(value[int(index)] if index else value)
