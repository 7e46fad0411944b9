"""Tasks by name."""

from collections.abc import Callable
from typing import Any

from config import ConfigError, EnvCfg, override, suggest
from environments.contracts import ABEnv
from environments.quadruped import QuadrupedEnv

# name: environment, its configuration, one line for --list
_TASKS: dict[str, tuple[Callable[..., ABEnv], EnvCfg, str]] = {
    "quadruped-balance": (QuadrupedEnv, EnvCfg(), "hold the centre of mass at a goal while being pushed"),
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
