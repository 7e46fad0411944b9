"""What robots can be asked for, a module each."""

from environments.quadruped.commands import stay, velocity, goal, pose, motion  # in this order  # isort: skip

__all__ = ["goal", "motion", "pose", "stay", "velocity"]
