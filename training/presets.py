"""What a task is trained with, by what its world model is for and how large it is."""

from typing import Any

from config import Config
from environments import registry
from settings import override

# Where the world model multiplies experience, little of it is real: a rollout of few robots, much learnt from it.
# Where the policy reads it, experience is as cheap as ever, and the world model learns from a part.
_ROLES: dict[str, dict[str, Any]] = {
    "belief": {
        "world_model.updates": 2, "world_model.batch": 128, "world_model.capacity": 16, "world_model.decode": 20.0,
    },
    "imagination": {
        "world_model.privileged": True, "world_model.updates": 40, "world_model.batch": 64, "world_model.capacity": 256,
        "world_model.decode": 200.0, "ppo.advantage_rate": 0.03, "ppo.average": 4, "curriculum.push": (1.0, 2.0),
        "curriculum.growth": 0.02, "curriculum.push_rate": 6.0,
        "train.num_envs": 16, "train.iterations": 60, "train.eval_every": 4,
    },
}  # fmt: skip
_SIZES: dict[str, dict[str, int]] = {
    "medium": {"world_model.deter": 512, "world_model.groups": 32, "world_model.hidden": 256},
    "large": {
        "world_model.deter": 1024,
        "world_model.groups": 32,
        "world_model.classes": 32,
        "world_model.hidden": 512,
    },
}


def preset(task: str, role: str = "off", size: str = "small") -> Config:
    """Return the configuration that a task is trained with if nothing else is asked for.

    role, size: of the world model.

    Raises ConfigError for an unknown task, role or size.
    """
    return override(
        registry.default_rl_cfg(task),
        {"world_model.role": role, "world_model.size": size} | _ROLES.get(role, {}) | _SIZES.get(size, {}),
    )
