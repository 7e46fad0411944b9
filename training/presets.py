"""What a task is trained with, by how it is learnt, what its world model is for and how large that is."""

from typing import Any

from config import Config
from environments import registry
from settings import override

# Where the world model multiplies experience, little of it is real: a rollout of few robots, much learnt from it.
# Where the policy reads it, experience is as cheap as ever, and the world model learns from a part.
_ROLES: dict[str, dict[str, Any]] = {
    "belief": {
        "world_model.groups": 4, "world_model.updates": 2, "world_model.batch": 64, "world_model.capacity": 16,
        "world_model.decode": 200.0, "world_model.mask": 0.0, "world_model.learning_rate": 6e-3,
        "world_model.average": 100,
    },
    "exploration": {
        "world_model.kind": "ensemble", "world_model.members": 5, "world_model.updates": 8, "world_model.batch": 256,
        "world_model.capacity": 16,
    },
    "imagination": {
        "world_model.privileged": True, "world_model.updates": 40, "world_model.batch": 64, "world_model.capacity": 256,
        "world_model.decode": 200.0, "world_model.patience": 3, "ppo.advantage_rate": 0.03, "ppo.average": 8,
        "ppo.scale_until": 4096, "curriculum.push": (1.0, 2.0), "curriculum.growth": 0.02,
        "curriculum.push_rate": 6.0, "curriculum.episode_rate": 4.0,
        "train.num_envs": 16, "train.iterations": 60, "train.eval_every": 4,
    },
}  # fmt: skip
# Of a role, with an ensemble
_ENSEMBLES: dict[str, dict[str, Any]] = {
    "imagination": {
        "world_model.hidden": 512, "world_model.learning_rate": 2e-3, "world_model.weight_decay": 0.5,
        "world_model.average": 100, "world_model.updates": 20, "world_model.batch": 192, "world_model.falls": 0.1,
        "world_model.members": 5, "world_model.passes": 4, "world_model.patience": 8, "ppo.scale_until": 0,
        "curriculum.episode_rate": 1.0,
    },
}  # fmt: skip
# Of a learner
_LEARNERS: dict[str, dict[str, Any]] = {
    "sac": {
        "network.bound": 1.25, "network.min_observation_std": 0.1, "network.initial_std": 0.4, "ppo.average": 2,
        "curriculum.push": (1.0, 1.0), "curriculum.command": (1.0, 1.0), "curriculum.command_rate": 5.0,
        "train.num_envs": 16, "train.iterations": 188, "train.eval_every": 8,
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


def preset(task: str, role: str = "off", size: str = "small", kind: str = "recurrent", learner: str = "ppo") -> Config:
    """Return the configuration that a task is trained with if nothing else is asked for.

    role, size, kind: of the world model.

    Raises ConfigError for an unknown task, role, size, kind or learner.
    """
    return override(
        registry.default_rl_cfg(task),
        {"world_model.role": role, "world_model.size": size, "world_model.kind": kind, "train.learner": learner}
        | _LEARNERS.get(learner, {})
        | _ROLES.get(role, {})
        | (_ENSEMBLES.get(role, {}) if kind == "ensemble" else {})
        | _SIZES.get(size, {}),
    )
