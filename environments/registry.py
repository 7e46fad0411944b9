"""Tasks by name."""

import dataclasses
from collections.abc import Callable
from typing import Any

from config import CommandCfg, ConfigError, EnvCfg, GoalCfg, PushCfg, RewardCfg, override, suggest
from environments.contracts import ABEnv
from environments.quadruped import QuadrupedEnv

_BALANCE = EnvCfg()
_WALK = dataclasses.replace(
    _BALANCE,
    command=CommandCfg(kind="velocity"),
    push=PushCfg(speed=(0.0, 0.0), spin=0.0),
    reward=RewardCfg(
        sharp=12.0, wide=3.0, goal=0.0, velocity=4.0, yaw_rate=2.0, vertical_velocity=-1.0, tumble=-0.02, orientation=-1.0, height=-20.0,
        torque=-1e-4, action_rate=-0.01, pose=-0.1, stand_pose=-0.3, joint_speed=-2e-4, feet=0.0, trot=2.0, alive=0.2, air_time=0.01, fall=-1.0,
    ),
    # contacts of other engines bounce less and grip more slowly: known to a policy, they cost it little velocity error there
    vary=dataclasses.replace(_BALANCE.vary, stiffness=(0.25, 1.5), restitution=(0.0, 1.0), grip_time=(0.0, 0.03)),
)  # fmt: skip
_ROBUST = dataclasses.replace(_WALK, push=PushCfg(speed=(0.5, 1.0)))
_GOAL = dataclasses.replace(_WALK, command=CommandCfg(kind="goal"), goal=GoalCfg(reach=3.0))

# name: environment, its configuration, one line for --list
_TASKS: dict[str, tuple[Callable[..., ABEnv], EnvCfg, str]] = {
    "quadruped-balance": (QuadrupedEnv, _BALANCE, "hold the centre of mass at a goal while being pushed"),
    "quadruped-walk-flat": (QuadrupedEnv, _WALK, "move at commanded velocities on flat ground"),
    "quadruped-walk-robust": (QuadrupedEnv, _ROBUST, "the same while being pushed"),
    "quadruped-goal": (QuadrupedEnv, _GOAL, "go from goal to goal, 1 to 5 m apart"),
}


def tasks() -> dict[str, str]:
    """Return every task's name and description."""
    return {name: description for name, (_, _, description) in _TASKS.items()}


def default_cfg(name: str) -> EnvCfg:
    """Return a task's configuration; raise ConfigError for an unknown task."""
    if name not in _TASKS:
        raise ConfigError(f"task: unknown task {name!r}; {suggest(name, _TASKS)} Known: {', '.join(_TASKS)}")
    return _TASKS[name][1]


def make(name: str, num_envs: int = 1, env_cfg_override: dict[str, Any] | None = None, threads: int = 0, cfg: EnvCfg | None = None) -> ABEnv:
    """Return num_envs copies of a task.

    env_cfg_override: fields of the task's configuration to change, as {"push": {"spin": 2.0}} or
    {"push.spin": 2.0}; threads: 0 for every core; cfg: instead of the task's own configuration.

    Raises ConfigError, naming the field, for an unknown task or field or a value out of range.
    """
    default = default_cfg(name)
    if not isinstance(num_envs, int) or num_envs < 1:
        raise ConfigError(f"num_envs: expected a whole number of at least 1, got {num_envs!r}")
    return _TASKS[name][0](num_envs, override(cfg or default, env_cfg_override or {}, "env"), threads)
