"""The command to hold the centre of mass at a goal near the feet, which moves now and then."""

from environments.quadruped.commands.places import goal_distance, place, speed
from environments.quadruped.observations import GOAL_SCALE, clipped
from environments.quadruped.terms import command, observation, renewal
from physics.random import uniform


@renewal(sets=("goal", "goal_in"), due="goal_in")
def goal_nearby(
    com,
    position,
    cell,
    feet,
    com_rise,
    home_height,
    key,
    goal_radius,
    goal_height,
    goal_interval,
    terrain_low,
    terrain_high,
):
    """A new goal about the middle of the feet when its time has come."""
    start = position[0] + feet[0], position[1] + feet[1]
    low, high = (
        (terrain_low[0] - cell[0], terrain_low[1] - cell[1]),
        (terrain_high[0] - cell[0], terrain_high[1] - cell[1]),
    )
    new = place(key, start, com_rise, home_height, 0.0, goal_radius, goal_height, low, high)
    return new, uniform(key, 3, goal_interval[0], goal_interval[1])


@observation(columns=3, scale=GOAL_SCALE, mirror="vector")
def near_goal(goal_offset, ahead, goal_reach):
    """Goal less centre of mass, heading frame, horizontally at most goal.reach [m]."""
    return clipped(goal_offset, ahead, goal_reach)


stay = command("stay", [goal_nearby], near_goal, [goal_distance, speed])
