"""The commands to move at a velocity, which is drawn anew now and then, and to keep a heading meanwhile."""

import math

from environments.quadruped.commands.places import angle_to, speed
from environments.quadruped.fields import Field
from environments.quadruped.terms import command, metric, observation, renewal
from physics.random import uniform
from physics.spatial import sincos

COMMAND_SCALE = 2.0, 2.0, 1.0  # in the observation
# What counts as learnt [m/s], [rad/s]; headings are kept on hard ground, where feet go where there is room for them
WALKING = {"velocity_error": (-math.inf, 0.15), "yaw_rate_error": (-math.inf, 0.15)}
CLIMBING = {"velocity_error": (-math.inf, 0.2), "yaw_rate_error": (-math.inf, 0.2)}


@renewal(sets=("command", "command_in"), due="command_in")
def draw_velocity(
    key,
    command_level,
    command_forward,
    command_sideways,
    command_turn,
    command_interval,
    command_rate,
    command_standing,
    command_turning,
    command_least,
):
    """A new velocity when its time has come; some are to stand, some to turn on the spot."""
    kind = uniform(key, 0, 0.0, 1.0)
    vx = command_level * uniform(key, 1, command_forward[0], command_forward[1])
    vy = command_level * uniform(key, 2, command_sideways[0], command_sideways[1])
    turn = command_level * uniform(key, 3, command_turn[0], command_turn[1])
    moves = (kind >= command_standing + command_turning) & (vx * vx + vy * vy >= command_least * command_least)
    turns = (kind >= command_standing) & (abs(turn) >= command_least)
    due = uniform(key, 4, command_interval[0], command_interval[1]) / command_rate
    return (vx if moves else 0.0, vy if moves else 0.0, turn if turns else 0.0), due


@renewal(
    sets=("heading", "faces"), due="command_in", keeps=Field("faces", 1, "1", "1 while a heading is to be kept", 0.0)
)
def draw_heading(key, command_heading):
    """A heading to keep with the next velocity, for a share of them."""
    s, c = sincos(uniform(key, 0, -3.1415927, 3.1415927))
    return (c, s), 1.0 if uniform(key, 1, 0.0, 1.0) < command_heading else 0.0


@renewal(sets=("command",))
def face(command, ahead, heading, faces, moving, command_gain, command_turn, command_level):
    """A yaw rate towards the heading that is to be kept, in proportion to the angle left, while the robot moves."""
    turn = command_gain * angle_to(ahead, heading[0], heading[1])
    turn = min(max(turn, command_level * command_turn[0]), command_level * command_turn[1])
    return command[0], command[1], turn if faces * moving > 0.0 else command[2]


@observation(columns=3, scale=COMMAND_SCALE, mirror="command")
def velocity_asked(command):
    """Commanded velocity, forward and to the left [m/s], and yaw rate [rad/s]."""
    return command[0], command[1], command[2]


@metric
def velocity_error(heading_velocity, command):
    """Horizontal velocity less the commanded one [m/s]."""
    x, y = heading_velocity[0] - command[0], heading_velocity[1] - command[1]
    return math.sqrt(x * x + y * y)


@metric
def yaw_rate_error(heading_velocity, command):
    """Yaw rate less the commanded one [rad/s]."""
    return abs(heading_velocity[2] - command[2])


METRICS = velocity_error, yaw_rate_error, speed
velocity = command("velocity", [draw_velocity], velocity_asked, METRICS, WALKING)
heading = command("heading", [draw_heading, draw_velocity, face], velocity_asked, METRICS, CLIMBING)
