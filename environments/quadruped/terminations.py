"""Rules by which an episode ends as a fall; the first that holds is counted."""

import math

from environments.quadruped.terms import termination


@termination
def broken(finite):
    """The state is not finite any more, or absurd."""
    return finite < 0.5


@termination
def tilted(up, fall_tilt):
    """The trunk tilts more than env.fall_tilt."""
    return up[2] <= math.cos(fall_tilt)


@termination
def sunk(base_height, home_height, fall_height):
    """The base is below env.fall_height times its home height."""
    return base_height <= fall_height * home_height


@termination
def touched(base_height, up, trunk_size, trunk_centre):
    """A corner of the trunk touches the ground."""
    middle = base_height + up[0] * trunk_centre[0] + up[1] * trunk_centre[1] + up[2] * trunk_centre[2]
    return middle <= abs(up[0]) * trunk_size[0] + abs(up[1]) * trunk_size[1] + abs(up[2]) * trunk_size[2]


FALLS = broken, tilted, sunk, touched
