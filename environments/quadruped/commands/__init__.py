"""What robots can be asked for, a module each."""

from environments.quadruped.commands import stay, velocity, goal, pose  # in this order  # isort: skip

__all__ = ["goal", "pose", "stay", "velocity"]
