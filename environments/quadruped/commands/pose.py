"""The command to go to a place and stand there, facing as asked, until the next follows after a while."""

import math

from environments.quadruped.commands.places import (
    angle_to,
    goal_distance,
    goals_per_minute,
    heading_offset,
    place,
    speed,
)
from environments.quadruped.observations import GOAL_SPAN, clipped
from environments.quadruped.terms import command, metric, observation, renewal
from physics.random import uniform
from physics.spatial import sincos

ARRIVING = {"at_goal": (0.5, math.inf)}  # what counts as learnt: share of time


@renewal(sets=("goal", "heading", "met", "goal_in"), due="goal_in")
def next_pose(
    com, position, cell, feet, com_rise, home_height, key, command_distance, goal_interval, terrain_low, terrain_high
):
    """A new place and heading when the time for the last is over."""
    start = position[0] + feet[0], position[1] + feet[1]
    low, high = (
        (terrain_low[0] - cell[0], terrain_low[1] - cell[1]),
        (terrain_high[0] - cell[0], terrain_high[1] - cell[1]),
    )
    new = place(key, start, com_rise, home_height, command_distance[0], command_distance[1], 0.0, low, high)
    s, c = sincos(uniform(key, 4, -3.1415927, 3.1415927))
    return new, (c, s), 0.0, uniform(key, 3, goal_interval[0], goal_interval[1])


@renewal(sets=("heading_error", "at_goal", "arrived", "met", "goals"))
def arrive(goal_offset, heading, met, goals, ahead, command_reached, command_facing):
    """Whether the robot is near its goal, facing as asked, at this instant, and whether for the first time."""
    x, y = goal_offset[0], goal_offset[1]
    error = angle_to(ahead, heading[0], heading[1])
    there = 1.0 if (x * x + y * y < command_reached * command_reached) & (abs(error) < command_facing) else 0.0
    arrived = there * (1.0 - met)
    return error, there, arrived, max(met, there), goals + arrived


@renewal(sets=("command",))
def lead_to_pose(
    goal_offset,
    ahead,
    heading_error,
    command_level,
    command_cruise,
    command_gain,
    command_turn,
    command_reached,
    command_still,
):
    """A velocity straight to the goal, none near it, turning on the way to the heading asked for; not observed."""
    x, y = heading_offset(goal_offset, ahead)
    distance = math.sqrt(x * x + y * y + 1e-12)
    pace = min(command_level * command_cruise, command_gain * distance) / distance
    pace = pace if distance > 0.5 * command_reached else 0.0
    error = heading_error if abs(heading_error) > command_still else 0.0
    turn = min(max(command_gain * error, command_level * command_turn[0]), command_level * command_turn[1])
    return pace * x, pace * y, turn


@observation(columns=3, mirror="command")
def pose_asked(goal_offset, ahead, heading_error, goal_reach):
    """Goal less centre of mass, horizontally, as for goals; angle to the heading asked for [rad]."""
    x, y, _ = clipped(goal_offset, ahead, goal_reach)
    across = GOAL_SPAN / goal_reach
    return across * x, across * y, heading_error


@metric
def heading_error(heading_error):
    """Angle to the heading asked for [rad]."""
    return abs(heading_error)


@metric
def at_goal(at_goal):
    """1 where it is near and faces as asked."""
    return at_goal


pose = command(
    "pose",
    [next_pose, arrive, lead_to_pose],
    pose_asked,
    [goal_distance, heading_error, at_goal, goals_per_minute, speed],
    ARRIVING,
)
