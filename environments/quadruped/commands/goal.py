"""The command to go from goal to goal, metres apart; the next follows when one is reached."""

import math

from environments.quadruped.commands.places import (
    angle_to,
    goal_distance,
    goals_per_minute,
    heading_offset,
    place,
    speed,
)
from environments.quadruped.observations import GOAL_SCALE, GOAL_SPAN, clipped
from environments.quadruped.terms import command, observation, renewal

ANYTIME = 1e9  # a time that does not come [s]


@renewal(sets=("arrived", "goals", "goal_in"))
def arrive(goal_offset, goal_in, goals, command_reached):
    """Whether the centre of mass is near the goal at this instant, upon which the next follows."""
    x, y = goal_offset[0], goal_offset[1]
    # the goal of an episode that has just begun is the last one's, and its time is up
    near = (x * x + y * y < command_reached * command_reached) & (goal_in > 0.0)
    arrived = 1.0 if near else 0.0
    return arrived, goals + arrived, 0.0 if near else goal_in


@renewal(sets=("goal", "goal_in"), due="goal_in")
def next_goal(com, position, cell, feet, com_rise, home_height, key, command_distance, terrain_low, terrain_high):
    """A new goal about the middle of the feet."""
    start = position[0] + feet[0], position[1] + feet[1]
    low, high = (
        (terrain_low[0] - cell[0], terrain_low[1] - cell[1]),
        (terrain_high[0] - cell[0], terrain_high[1] - cell[1]),
    )
    return place(key, start, com_rise, home_height, command_distance[0], command_distance[1], 0.0, low, high), ANYTIME


@renewal(sets=("command",))
def lead_to_goal(goal_offset, ahead, command_level, command_cruise, command_gain, command_turn):
    """A velocity straight to the goal and a yaw rate towards it; not observed.

    The speed is min(cruise, gain * distance), the yaw rate gain * bearing within command.turn.
    """
    x, y = heading_offset(goal_offset, ahead)
    distance = math.sqrt(x * x + y * y + 1e-12)
    pace = min(command_level * command_cruise, command_gain * distance) / distance
    bearing = angle_to(ahead, goal_offset[0], goal_offset[1])
    turn = min(max(command_gain * bearing, command_level * command_turn[0]), command_level * command_turn[1])
    return pace * x, pace * y, turn


@observation(columns=3, mirror="vector")
def far_goal(goal_offset, ahead, goal_reach):
    """Goal less centre of mass, heading frame: horizontally at most goal.reach, x 1.5 / goal.reach, up x 5 [m]."""
    x, y, z = clipped(goal_offset, ahead, goal_reach)
    across = GOAL_SPAN / goal_reach
    return across * x, across * y, GOAL_SCALE * z


goal = command("goal", [arrive, next_goal, lead_to_goal], far_goal, [goal_distance, goals_per_minute, speed])
