"""The command to move at a velocity in a gait: which feet step together, how often, how high, on what posture.

After Margolis and Agrawal, 2022, "Walk these ways: tuning robot control for generalization with multiplicity of
behavior". A leg's phase is that of the gait and an offset of its own, in turns: its foot should be on the ground for
the first half of a turn and in the air for the second.
"""

import math

import numpy as np

from environments.quadruped.commands.velocity import METRICS, draw_velocity, velocity_asked
from environments.quadruped.fields import Field
from environments.quadruped.terms import command, metric, observation, renewal, reward
from physics.random import uniform
from physics.spatial import sincos

PHASE = Field("gait_phase", 1, "turns", "of the gait", 0.0)
LEG_PHASES = Field("leg_phases", 4, "turns", "phase of each leg, from 0 to 1")
OFFSETS = Field("phase_offsets", 4, "turns", "how far each leg is ahead of the gait")
PARAMETERS = Field(
    "gait_parameters", 4, "Hz, m, m, rad", "how often and how high to step, how much higher to hold the base, and pitch"
)
TURN = 6.2831853


@renewal(sets=("phase_offsets", "gait_parameters"), due="command_in", keeps=(OFFSETS, PARAMETERS))
def draw_gait(key, command_frequency, command_lift, command_rise, command_pitch):
    """A trot, a pace, a bound or a pronk to go on with: diagonal, lateral, fore and hind, or all feet together."""
    kind = uniform(key, 0, 0.0, 4.0)
    trot, pace, bound = kind < 1.0, (kind >= 1.0) & (kind < 2.0), (kind >= 2.0) & (kind < 3.0)
    offsets = 0.0, 0.5 if trot | pace else 0.0, 0.5 if trot | bound else 0.0, 0.5 if pace | bound else 0.0
    return offsets, (
        uniform(key, 1, command_frequency[0], command_frequency[1]),
        uniform(key, 2, command_lift[0], command_lift[1]),
        uniform(key, 3, command_rise[0], command_rise[1]),
        uniform(key, 4, command_pitch[0], command_pitch[1]),
    )


@renewal(sets=("gait_phase", "leg_phases"), keeps=(PHASE, LEG_PHASES))
def tick(gait_phase, gait_parameters, phase_offsets, ctrl_dt):
    """Where in its step each leg is at this instant."""
    phase = gait_phase + gait_parameters[0] * ctrl_dt
    phase = phase - np.floor(phase)
    a, b, c, d = phase + phase_offsets[0], phase + phase_offsets[1], phase + phase_offsets[2], phase + phase_offsets[3]
    return phase, (a - np.floor(a), b - np.floor(b), c - np.floor(c), d - np.floor(d))


def waves(leg_phases, ahead):
    """Return the sine of each leg's phase, so much of a turn ahead."""
    a, _ = sincos(TURN * (leg_phases[0] + ahead))
    b, _ = sincos(TURN * (leg_phases[1] + ahead))
    c, _ = sincos(TURN * (leg_phases[2] + ahead))
    d, _ = sincos(TURN * (leg_phases[3] + ahead))
    return a, b, c, d


@observation(columns=4, mirror="feet", node="legs")
def phase_sines(leg_phases):
    """Sine of each leg's phase."""
    return waves(leg_phases, 0.0)


@observation(columns=4, mirror="feet", node="legs")
def phase_cosines(leg_phases):
    """Cosine of each leg's phase."""
    return waves(leg_phases, 0.25)


@observation(columns=4, scale=(0.25, 10.0, 10.0, 1.0), mirror="number")
def gait_asked(gait_parameters):
    """How often to step [Hz], how high [m], how much higher to hold the base [m], and its pitch [rad]."""
    return gait_parameters[0], gait_parameters[1], gait_parameters[2], gait_parameters[3]


def agreement(on_ground, leg_phases, moving):
    """Return the share of feet that are on the ground as their phases say; all should be, of a robot that stands."""
    total = 0.0
    for leg in range(4):
        down = 1.0 if (leg_phases[leg] < 0.5) | (moving < 0.5) else 0.0
        total += 0.25 * (1.0 - abs(on_ground[leg] - down))
    return total


def now(leg_phases, gait_parameters, ctrl_dt):
    """Return the legs' phases at the instant of a reward, which comes before tick() moves them on."""
    step = gait_parameters[0] * ctrl_dt
    a, b, c, d = leg_phases[0] + step, leg_phases[1] + step, leg_phases[2] + step, leg_phases[3] + step
    return a - np.floor(a), b - np.floor(b), c - np.floor(c), d - np.floor(d)


@reward
def schedule(on_ground, leg_phases, gait_parameters, moving, ctrl_dt):
    """Share of feet on the ground, or off it, as the gait has them."""
    return agreement(on_ground, now(leg_phases, gait_parameters, ctrl_dt), moving)


@reward
def lift(foot_height, leg_phases, gait_parameters, moving, ctrl_dt):
    """Height of the feet that swing less that of a half sine of the height asked for, squared, summed [m^2]."""
    phases = now(leg_phases, gait_parameters, ctrl_dt)
    total = 0.0
    for leg in range(4):
        s, _ = sincos(TURN * (phases[leg] - 0.5))
        error = foot_height[leg] - gait_parameters[1] * s
        total += error * error if phases[leg] > 0.5 else 0.0
    return moving * total


@reward
def posture(base_height, home_height, gait_parameters):
    """Height of the base less what is asked for, squared [m^2]."""
    error = base_height - home_height - gait_parameters[2]
    return error * error


@reward
def pitch(up, gait_parameters):
    """Pitch, nose down, less what is asked for, and roll, squared [rad^2]."""
    error = up[0] + gait_parameters[3]
    return error * error + up[1] * up[1]


@metric
def gait_agreement(on_ground, leg_phases, moving):
    """Share of feet on the ground, or off it, as the gait has them."""
    return agreement(on_ground, leg_phases, moving)


gait = command(
    "gait", [draw_gait, draw_velocity, tick], velocity_asked, [*METRICS, gait_agreement],
    {"gait_agreement": (0.9, math.inf), "velocity_error": (-math.inf, 0.25)},
)  # fmt: skip
