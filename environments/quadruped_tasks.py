"""The tasks of legged robots: their configurations, and what they are trained with."""

import dataclasses
from typing import Any

from config import CommandCfg, GoalCfg, PushCfg, QuadrupedCfg, RewardCfg, TerrainCfg
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
    "quadruped-walk-robust": (dataclasses.replace(_WALK, push=PushCfg(speed=(0.5, 1.0))), "move at commanded velocities while being pushed"),
    "quadruped-walk-rough": (
        dataclasses.replace(_WALK, terrain=TerrainCfg(kinds="rough slope_up slope_down", difficulty=(0.0, 0.8))),
        "move at commanded velocities on rough ground and slopes, unseen",
    ),
    "quadruped-walk-stairs": (
        dataclasses.replace(_WALK, terrain=TerrainCfg(kinds="stairs_up stairs_down", difficulty=(0.0, 0.6))),
        "move at commanded velocities up and down stairs, unseen",
    ),
    "anymal-navigation": (
        dataclasses.replace(
            _WALK, model="anymal_c", sim_dt=0.02 / 6, max_episode_seconds=15.0,
            command=CommandCfg(kind="pose", distance=(0.5, 5.0), cruise=1.0), goal=GoalCfg(reach=5.0, interval=(15.0, 20.0)),
            reward=dataclasses.replace(_WALK.reward, arrival=1.0, stopping=2.0),
        ), "go to a place up to 5 m away, any way round, and stand there facing as asked",
    ),
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
    "quadruped-walk-rough": _TRAIN_WALK | {"train.iterations": 1000},
    "quadruped-walk-stairs": _TRAIN_WALK | {"train.iterations": 1000},
    "quadruped-goal": _TRAIN_WALK,
    "anymal-navigation": _TRAIN_WALK,
}

for _name, (_cfg, _description) in _TASKS.items():
    envcfg(_name, _description)(lambda cfg=_cfg: cfg)
    env(_name, "numba")(QuadrupedEnv)
    rlcfg(_name)(lambda changes=_TRAINING[_name]: changes)
