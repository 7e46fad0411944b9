"""The command to move at a velocity in a gait: which feet step together, how often, how high, on what posture.

After Margolis and Agrawal, 2022, "Walk these ways: tuning robot control for generalization with multiplicity of
behavior". A leg's clock is the phase of the gait, in turns, and the leg's share of a turn: its foot should be on the
ground for the first half of it and in the air for the second.
"""

import math

import numpy as np

from environments.quadruped.commands.velocity import METRICS, draw_velocity, velocity_asked
from environments.quadruped.fields import Field
from environments.quadruped.terms import command, metric, observation, renewal, reward
from physics.random import uniform
from physics.spatial import sincos

PHASE = Field("phase", 1, "turns", "of the gait", 0.0)
CLOCKS = Field("clocks", 4, "turns", "of each leg: the phase of the gait and the leg's share of a turn, from 0 to 1")
SHARES = Field("clock_shares", 4, "turns", "by how much of a turn each leg is ahead of the gait")
STEPS = Field(
    "steps", 4, "Hz, m, m, rad", "how often and how high to step, how much higher to hold the base, and pitch"
)
TURN = 6.2831853


@renewal(sets=("clock_shares", "steps"), due="command_in", keeps=(SHARES, STEPS))
def draw_gait(key, command_frequency, command_lift, command_rise, command_pitch):
    """A trot, a pace, a bound or a pronk to go on with: diagonal, lateral, fore and hind, or all feet together."""
    kind = uniform(key, 0, 0.0, 4.0)
    trot, pace, bound = kind < 1.0, (kind >= 1.0) & (kind < 2.0), (kind >= 2.0) & (kind < 3.0)
    shares = 0.0, 0.5 if trot | pace else 0.0, 0.5 if trot | bound else 0.0, 0.5 if pace | bound else 0.0
    return shares, (
        uniform(key, 1, command_frequency[0], command_frequency[1]),
        uniform(key, 2, command_lift[0], command_lift[1]),
        uniform(key, 3, command_rise[0], command_rise[1]),
        uniform(key, 4, command_pitch[0], command_pitch[1]),
    )


@renewal(sets=("phase", "clocks"), keeps=(PHASE, CLOCKS))
def tick(phase, steps, clock_shares, ctrl_dt):
    """Where in its step each leg is at this instant."""
    now = phase + steps[0] * ctrl_dt
    now = now - np.floor(now)
    a, b, c, d = clock_shares
    return now, (now + a - np.floor(now + a), now + b - np.floor(now + b), now + c - np.floor(now + c),
                 now + d - np.floor(now + d))  # fmt: skip


@observation(columns=4, mirror="feet", node="legs")
def clock_sines(clocks):
    """Sine of each leg's clock."""
    a, _ = sincos(TURN * clocks[0])
    b, _ = sincos(TURN * clocks[1])
    c, _ = sincos(TURN * clocks[2])
    d, _ = sincos(TURN * clocks[3])
    return a, b, c, d


@observation(columns=4, mirror="feet", node="legs")
def clock_cosines(clocks):
    """Cosine of each leg's clock."""
    _, a = sincos(TURN * clocks[0])
    _, b = sincos(TURN * clocks[1])
    _, c = sincos(TURN * clocks[2])
    _, d = sincos(TURN * clocks[3])
    return a, b, c, d


@observation(columns=4, mirror="number")
def steps_asked(steps):
    """How often to step [Hz] / 4, how high [m] x 10, how much higher to hold the base [m] x 10, and its pitch [rad]."""
    return 0.25 * steps[0], 10.0 * steps[1], 10.0 * steps[2], steps[3]


def agreement(on_ground, clocks, moving):
    """Return the share of feet that are on the ground as their clocks say; all should be, of a robot that stands."""
    total = 0.0
    for leg in range(4):
        down = 1.0 if (clocks[leg] < 0.5) | (moving < 0.5) else 0.0
        total += 0.25 * (1.0 - abs(on_ground[leg] - down))
    return total


@reward
def schedule(on_ground, clocks, moving):
    """Share of feet on the ground, or off it, as the gait has them."""
    return agreement(on_ground, clocks, moving)


@reward
def lift(foot_height, clocks, steps, moving):
    """Height of the feet that swing less that of a half sine of the height asked for, squared, summed [m^2]."""
    total = 0.0
    for leg in range(4):
        s, _ = sincos(TURN * (clocks[leg] - 0.5))
        error = foot_height[leg] - steps[1] * s
        total += error * error if clocks[leg] > 0.5 else 0.0
    return moving * total


@reward
def posture(base_height, home_height, steps):
    """Height of the base less what is asked for, squared [m^2]."""
    error = base_height - home_height - steps[2]
    return error * error


@reward
def pitch(up, steps):
    """Pitch, nose down, less what is asked for, and roll, squared [rad^2]."""
    error = up[0] + steps[3]
    return error * error + up[1] * up[1]


@metric
def gait_agreement(on_ground, clocks, moving):
    """Share of feet on the ground, or off it, as the gait has them."""
    return agreement(on_ground, clocks, moving)


gait = command(
    "gait", [draw_gait, draw_velocity, tick], velocity_asked, [*METRICS, gait_agreement],
    {"gait_agreement": (0.9, math.inf), "velocity_error": (-math.inf, 0.25)},
)  # fmt: skip
