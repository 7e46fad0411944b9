"""Terrain levels: while training, robots go to harder ground as they succeed there, and back as they fail.

After Rudin et al., 2022, "Learning to walk in minutes using massively parallel deep reinforcement learning", which asks
for half of a tile to go up, and for half of the way that was commanded not to go down. Here an episode is over once its
tile is left, so that going up takes a few seconds, not twenty, and who fails before the ground gets hard stays: robots
that cannot walk yet would all end on the first level. On seen stairs the mean level was 4.3 after 4.2 M env steps, and
2.0 without both.
"""

import math

import numpy as np

from environments.quadruped.fields import Field
from environments.quadruped.terms import randomisation, renewal
from physics.random import uniform

# How far from the middle of its tile a robot has left it, in sides of a tile: beyond the edge, which is at a half: one
# that runs down a slope falls at its foot
LEFT = 0.65
TRIED = 0.5  # how far from where it began a robot must have been for its failure to count [m]

LEVEL = Field("level", 1, "1", "tile along x that episodes start on, 0 the easiest")
ASKED = Field("asked", 1, "m", "how far the commands of this episode would have led, along their ways")
GONE = Field("gone", 1, "m", "how far it went as they asked")
AWAY = Field("away", 1, "m", "horizontal distance from where it began")


@renewal(sets=("asked", "gone", "away", "over"), keeps=(ASKED, GONE, AWAY))
def count_way(asked, gone, position, cell, spawn, desired_velocity, base_velocity, over, climbs, terrain_tile, ctrl_dt):
    """How far the commands would have led, how far the robot went as they asked, no faster, and how far it is.

    While climbs is 1 the episode is over once the tile is left.
    """
    x, y = desired_velocity
    speed = math.sqrt(x * x + y * y)
    along = (x * base_velocity[0] + y * base_velocity[1]) / max(speed, 1e-6)
    i, j = position[0] + (cell[0] - spawn[0]), position[1] + (cell[1] - spawn[1])
    away = math.sqrt(i * i + j * j)
    left = (climbs > 0.0) & (away > LEFT * terrain_tile)
    return asked + ctrl_dt * speed, gone + ctrl_dt * min(along, speed), away, 1.0 if left else over


@randomisation(sets=("level", "spawn", "asked", "gone"), keeps=(LEVEL, ASKED, GONE, AWAY))
def change_level(key, level, spawn, ended, asked, gone, away, climbs, terrain_first, terrain_tile, terrain_levels):
    """Where the next episode starts: a level up from one that left its tile, beyond the last anywhere.

    One down after a fall, or less than half of the way asked for, that was not where it began. Only while climbs is 1.
    """
    fell = ended > 1.5
    down = (fell | (gone < 0.5 * asked)) & (away > TRIED)
    up = (not fell) & (away > LEFT * terrain_tile)
    changes = (climbs > 0.0) & (ended > 0.75)
    now = level + 1.0 if up else max(level - 1.0, 0.0) if down else level
    now = np.floor(uniform(key, 0, 0.0, terrain_levels)) if now > terrain_levels - 0.5 else now
    here = terrain_first[0] + now * terrain_tile if terrain_levels > 1.5 else spawn[0]
    return now if changes else level, (here if changes else spawn[0], spawn[1]), 0.0, 0.0
