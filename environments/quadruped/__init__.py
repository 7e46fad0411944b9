"""Legged robots: fields, terms, tasks and the environment that they make up.

A task of one's own, in a file anywhere:

    from environments.quadruped import reward, task

    @reward
    def foot_clearance(foot_height, on_ground, clearance=0.05): ...

    task("high-steps", "quadruped-walk-flat", rewards={foot_clearance: -20.0})

trains with ``python simulate.py --task my_file:high-steps``.
"""

from environments.quadruped import commands  # before any of them alone, so that they are known in order
from environments.quadruped.commands.velocity import WALKING
from environments.quadruped.env import QuadrupedEnv
from environments.quadruped.fields import Field, derived
from environments.quadruped.tasks import TASKS, task
from environments.quadruped.terms import (
    Terms,
    command,
    event,
    metric,
    observation,
    randomisation,
    renewal,
    reward,
    termination,
)
from environments.quadruped.values import chosen_robot, gains, torque_ratio

__all__ = [
    "TASKS", "WALKING", "Field", "QuadrupedEnv", "Terms", "chosen_robot", "command", "commands", "derived", "event",
    "gains", "metric", "observation", "randomisation", "renewal", "reward", "task", "termination", "torque_ratio",
]  # fmt: skip
