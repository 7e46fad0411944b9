"""What robots can be asked for, a module each."""

from environments.quadruped.commands import stay, velocity, goal, pose, motion, gait  # in this order  # isort: skip

__all__ = ["gait", "goal", "motion", "pose", "stay", "velocity"]
