"""The tasks of legged robots: their configurations, and what they are trained with."""

import dataclasses
from typing import Any

from config import CommandCfg, GoalCfg, PushCfg, QuadrupedCfg, RewardCfg
from environments.quadruped import QuadrupedEnv
from environments.registry import env, envcfg, rlcfg

_BALANCE = QuadrupedCfg()
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
_TASKS = {
    "quadruped-balance": (_BALANCE, "hold the centre of mass at a goal while being pushed"),
    "quadruped-walk-flat": (_WALK, "move at commanded velocities on flat ground"),
    "quadruped-walk-robust": (dataclasses.replace(_WALK, push=PushCfg(speed=(0.5, 1.0))), "the same while being pushed"),
    "quadruped-goal": (dataclasses.replace(_WALK, command=CommandCfg(kind="goal"), goal=GoalCfg(reach=3.0)), "go from goal to goal, 1 to 5 m apart"),
}

_TRAIN_WALK: dict[str, Any] = {
    "ppo.gamma": 0.97, "ppo.learning_rate": 1e-3, "ppo.max_learning_rate": 2e-3, "network.initial_std": 0.8, "train.iterations": 600, "train.eval_every": 20,
    "curriculum.push": (1.0, 1.0), "curriculum.command": (0.3, 1.0), "curriculum.growth": 0.01,
}  # fmt: skip
_TRAINING: dict[str, dict[str, Any]] = {
    "quadruped-balance": {},
    "quadruped-walk-flat": _TRAIN_WALK,
    "quadruped-walk-robust": _TRAIN_WALK | {"curriculum.push": (1.0, 1.2)},
    "quadruped-goal": _TRAIN_WALK,
}

for _name, (_cfg, _description) in _TASKS.items():
    envcfg(_name, _description)(lambda cfg=_cfg: cfg)
    env(_name, "numba")(QuadrupedEnv)
    rlcfg(_name)(lambda changes=_TRAINING[_name]: changes)
