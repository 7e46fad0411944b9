"""Rows of a block: what is stored of each robot, in which unit and frame.

A block is a flat array, ``block[row * LANES + lane]``. It starts with the rows of the base and
then, four times, the rows of a leg. While a worker steps a block it keeps it, with scratch rows in
between, in a work buffer of its own that stays in the first-level cache.
"""

from physics.jit import LANES, inline

# Base, in the state and in the work buffer
POSITION = 0  # (3) base origin, world frame, from ORIGIN [m]
QUATERNION = 3  # (4) R_WB as w x y z
VELOCITY = 7  # (3) of the base origin, world frame [m/s]
SPIN = 10  # (3) angular velocity, base frame [rad/s]
ORIGIN = 13  # (2) x, y from which POSITION counts, a multiple of CELL [m]
BASE_ROWS = 15

# Leg, in the state and in the work buffer
JOINT = 0  # (3) angles [rad]
JOINT_SPEED = 3  # (3) [rad/s]
TORQUE = 6  # (3) commanded motor torque, added to the PD law's [N m]
TARGET = 9  # (3) target of the PD law [rad]
FORCE = 12  # (3) contact force on the foot, world frame [N]
LEG_ROWS = 15

STATE_ROWS = BASE_ROWS + 4 * LEG_ROWS

# Base, in the work buffer only
ROTATION = 15  # (9) R_WB
VELOCITY_B = 24  # (3) of the base origin, base frame [m/s]
MASS = 27  # of the robot with its joints locked, and of what contacts add [kg]
FIRST = 28  # (3) its first moment about the base origin, base frame [kg m]
SECOND = 31  # (6) its second moment [kg m^2]
INERTIA = 37  # (21) what joints take off that robot's inertia and contacts add to it: A (6), B (9), M (6)
BIAS = 58  # (6) moment and force that would hold the base at zero acceleration
ACCELERATION = 64  # (6) angular and linear, base frame, less gravity [rad/s^2], [m/s^2]
BASE_WORK_ROWS = 70

# Leg, in the work buffer only
COLUMN = 15  # (3 x 6) G D^-1 of hip, thigh, calf: L D L^T = H is the leg's inertia and L G^T = F^T its coupling to the base
JOINT_BIAS = 33  # (3) D^-1 L^-1 of the joint torques less bias
FACTOR = 36  # (3) of L: thigh and calf on hip, calf on thigh
SINCOS = 39  # (2) of the hip angle
CONTACT = 41  # (3) point from hip origin, hip frame [m]
CONTACT_ARM = 44  # (2) x and z of the point from the knee [m]
CONTACT_FORCE = 46  # (3) at zero acceleration of base and joints, hip frame [N]
CONTACT_MATRIX = 49  # (2) alpha and beta [kg]
LEG_WORK_ROWS = 51

WORK_ROWS = BASE_WORK_ROWS + 4 * LEG_WORK_ROWS

CELL = 16.0  # [m]


@inline
def load3(rows, row, lane):
    """Return three consecutive rows of a lane."""
    i = row * LANES + lane
    return rows[i], rows[i + LANES], rows[i + 2 * LANES]


@inline
def store3(rows, row, lane, v):
    """Set three consecutive rows of a lane."""
    i = row * LANES + lane
    rows[i] = v[0]
    rows[i + LANES] = v[1]
    rows[i + 2 * LANES] = v[2]


@inline
def leg_rows(work, leg):
    """Return the rows of a leg in a work buffer."""
    start = (BASE_WORK_ROWS + leg * LEG_WORK_ROWS) * LANES
    return work[start : start + LEG_WORK_ROWS * LANES]


@inline
def enter(block, work):
    """Copy a block into a work buffer."""
    for i in range(BASE_ROWS * LANES):
        work[i] = block[i]
    for leg in range(4):
        rows = leg_rows(work, leg)
        start = (BASE_ROWS + leg * LEG_ROWS) * LANES
        for i in range(LEG_ROWS * LANES):
            rows[i] = block[start + i]


@inline
def leave(work, block):
    """Copy a work buffer back into its block."""
    for i in range(BASE_ROWS * LANES):
        block[i] = work[i]
    for leg in range(4):
        rows = leg_rows(work, leg)
        start = (BASE_ROWS + leg * LEG_ROWS) * LANES
        for i in range(LEG_ROWS * LANES):
            block[start + i] = rows[i]
