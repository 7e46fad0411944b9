"""What each task is trained with beside its own settings."""

import dataclasses
from typing import Any

from config import Config, override
from environments import registry

_PRESETS: dict[str, dict[str, Any]] = {
    "quadruped-walk-flat": {"ppo.gamma": 0.97},
    "quadruped-walk-robust": {"ppo.gamma": 0.97},
    "quadruped-goal": {"ppo.gamma": 0.97},
}


def preset(task: str) -> Config:
    """Return the configuration that a task is trained with if nothing else is asked for; raise ConfigError for an unknown task."""
    return override(dataclasses.replace(Config(), task=task, env=registry.default_cfg(task)), _PRESETS.get(task, {}))
