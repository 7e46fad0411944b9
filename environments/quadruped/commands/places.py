"""Goals: where they may lie, and how a robot is led there."""

import math

from environments.quadruped.terms import metric
from physics.random import uniform
from physics.spatial import atan2, sincos


def within(start, move, low, high):
    """Return start + move if that lies between low and high, else the farther of it and start - move.

    The two are first kept between low and high.
    """
    there = start + move
    kept, other = min(max(there, low), high), min(max(start - move, low), high)
    return kept if (kept == there) | (abs(kept - start) >= abs(other - start)) else other


def place(key, start, com_rise, home_height, near, far, span, low, high):
    """Return a goal (3) between near and far of a place (2), uniform by radius squared, at the home height, +- span."""
    s, c = sincos(uniform(key, 0, 0.0, 6.2831853))
    distance = near + (far - near) * math.sqrt(uniform(key, 1, 0.0, 1.0))
    x, y = within(start[0], distance * c, low[0], high[0]), within(start[1], distance * s, low[1], high[1])
    # the centre of mass of the home pose lies as much below the base origin as it does now, nearly
    return x, y, home_height + com_rise + uniform(key, 2, -span, span)


def heading_offset(goal_offset, ahead):
    """Return the horizontal offset of the goal in the heading frame (2)."""
    x, y = goal_offset[0], goal_offset[1]
    return ahead[0] * x + ahead[1] * y, ahead[0] * y - ahead[1] * x


def angle_to(ahead, x, y):
    """Return the angle from the heading to a horizontal vector [rad]."""
    return atan2(ahead[0] * y - ahead[1] * x, ahead[0] * x + ahead[1] * y)


@metric
def goal_distance(goal_offset):
    """Of the centre of mass from its goal [m]."""
    x, y, z = goal_offset
    return math.sqrt(x * x + y * y + z * z)


@metric
def goals_per_minute(arrived, ctrl_dt):
    """What one reached at this instant makes of it, so that its mean over time is the rate [1/min]."""
    return arrived * 60.0 / ctrl_dt


@metric
def speed(base_velocity):
    """Horizontal speed [m/s]."""
    return math.sqrt(base_velocity[0] * base_velocity[0] + base_velocity[1] * base_velocity[1])
