"""The command to do what a motion does, in which nothing is drawn."""

import math

from environments.quadruped.terms import command
from environments.quadruped.tracking import (
    fall_behind,
    foot_error,
    joint_error,
    motion_progress,
    motion_velocity_error,
    place_error,
)

ALIKE = {"joint_error": (-math.inf, 0.1)}  # what counts as learnt [rad]

motion = command(
    "motion", [fall_behind], motion_progress, [joint_error, foot_error, motion_velocity_error, place_error], ALIKE
)
