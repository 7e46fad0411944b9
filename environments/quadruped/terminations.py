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
def touched(trunk_gap):
    """A corner of the trunk touches the ground."""
    return trunk_gap <= 0.0


FALLS = broken, tilted, sunk, touched
