"""Rows of a block: what is stored of each robot, in which unit and frame.

A block is a flat array, ``block[row * LANES + lane]``. It starts with the rows of the base and
then, four times, the rows of a leg. While a worker steps a block it keeps it, with scratch rows in
between, in a work buffer of its own that stays in the first-level cache.
"""

from physics.jit import LANES, inline, real

# Base, in the state and in the work buffer
POSITION = 0  # (3) base origin, world frame, from ORIGIN [m]
QUATERNION = 3  # (4) R_WB as w x y z
VELOCITY = 7  # (3) of the base origin, world frame [m/s]
SPIN = 10  # (3) angular velocity, base frame [rad/s]
ORIGIN = 13  # (2) x, y from which POSITION counts, a multiple of CELL [m]
BROKEN = 15  # how often the state was not finite and the robot was put back at home
BASE_ROWS = 16

# Leg, in the state and in the work buffer
JOINT = 0  # (3) angles [rad]
JOINT_SPEED = 3  # (3) [rad/s]
TORQUE = 6  # (3) commanded motor torque, added to the PD law's [N m]
TARGET = 9  # (3) target of the PD law [rad]
FORCE = 12  # (3) contact force on the foot, world frame [N]
LEG_ROWS = 15

STATE_ROWS = BASE_ROWS + 4 * LEG_ROWS

# Of motors, where they are modelled: rows of Model.motor_blocks, in the work buffer at MOTORS_BASE and MOTORS_LEG
ENERGY = 0  # electrical, since the robot was put at home [J]
COMMAND_AGE = 1  # time since the latest command [s]
FATIGUE = 2  # what is gone of the stamina [J]
MOTOR_BASE_ROWS = 3
MOTOR = 0  # (3) torque of the motor [N m]
# (3) the command before the latest
LAST_TORQUE = 3
LAST_TARGET = 6
MOTOR_LEG_ROWS = 9
MOTOR_ROWS = MOTOR_BASE_ROWS + 4 * MOTOR_LEG_ROWS

# What robots differ in, where they do: rows of Model.varied_blocks, in the work buffer at VARIED_BASE and VARIED_LEG
V_GRAVITY = 0  # as the constants of the world of these names
V_STIFFNESS = 1
V_RESTITUTION = 2
V_KINETIC = 3
V_STATIC = 4
V_DELAY = 5
# times the gains, times the legs' moments of mass
V_KP = 6
V_KD = 7
V_LINK_MASS = 8
# (1), (3), (6) as BASE_MASS, BASE_FIRST, BASE_SECOND
V_MASS = 9
V_FIRST = 10
V_SECOND = 13
V_GRIP_TIME = 19
VARIED_BASE_ROWS = 20
V_TORQUE_LIMIT = 0  # (3) [N m]
V_OFFSET = 3  # (3) measured less true angle [rad]
# (3) each of the joints, where they differ too [N m], [N m s/rad]
V_FRICTION = 6
V_DAMPING = 9
# and those that are of account where they do not
VARIED_LEG_ROWS = 12
VARIED_JOINT_ROWS = 6
VARIED_ROWS = VARIED_BASE_ROWS + 4 * VARIED_LEG_ROWS

# Base, in the work buffer only
ROTATION = 16  # (9) R_WB
VELOCITY_B = 25  # (3) of the base origin, base frame [m/s]
MASS = 28  # of the robot with its joints locked, and of what contacts add [kg]
FIRST = 29  # (3) its first moment about the base origin, base frame [kg m]
SECOND = 32  # (6) its second moment [kg m^2]
INERTIA = 38  # (21) what joints take off that robot's inertia and contacts add to it: A (6), B (9), M (6)
BIAS = 59  # (6) moment and force that would hold the base at zero acceleration
ACCELERATION = 65  # (6) angular and linear, base frame, less gravity [rad/s^2], [m/s^2]
# (6) of the terrain under a foot: first node's column, row, next ones' steps, then 4 heights; place in the cell (2)
PATCH = 71
KNEE_PATCH = 77  # (6) the same under a knee
CALF_PATCHES = 83  # (2 x 6) and under two points of a calf
DRAWN = 95  # energy that the motors drew in this time step [J]
GRIP = 96  # friction of the ground under a point, times
MOTORS_BASE = 97
VARIED_BASE = MOTORS_BASE + MOTOR_BASE_ROWS
BASE_WORK_ROWS = VARIED_BASE + VARIED_BASE_ROWS

# Leg, in the work buffer only
# (3 x 6) G D^-1 of hip, thigh, calf: L D L^T = H is the leg's inertia and L G^T = F^T its coupling to the base
COLUMN = 15
JOINT_BIAS = 33  # (3) D^-1 L^-1 of the joint torques less bias
FACTOR = 36  # (3) of L: thigh and calf on hip, calf on thigh
SINCOS = 39  # (2) of the hip angle
CONTACT = 41  # (3) point from hip origin, hip frame [m]
CONTACT_ARM = 44  # (2) x and z of the point from the knee [m]
CONTACT_FORCE = 46  # (3) at zero acceleration of base and joints, hip frame [N]
CONTACT_MATRIX = 49  # (2) alpha and beta [kg]
NORMAL = 51  # (3) of the ground, hip frame
MOTORS_LEG = 54
VARIED_LEG = MOTORS_LEG + MOTOR_LEG_ROWS
LEG_WORK_ROWS = VARIED_LEG + VARIED_LEG_ROWS

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
def store6(work, row, lane, v):
    """Set six consecutive rows of a lane."""
    store3(work, row, lane, (v[0], v[1], v[2]))
    store3(work, row + 3, lane, (v[3], v[4], v[5]))


@inline
def load6(work, row, lane):
    """Return six consecutive rows of a lane as two vectors."""
    return load3(work, row, lane), load3(work, row + 3, lane)


@inline
def choose3(rows, row, lane, condition, v):
    """Set three consecutive rows of a lane where a condition holds."""
    i = row * LANES + lane
    rows[i] = v[0] if condition else rows[i]
    rows[i + LANES] = v[1] if condition else rows[i + LANES]
    rows[i + 2 * LANES] = v[2] if condition else rows[i + 2 * LANES]


@inline
def leg_row(leg, row):
    """Return where a row of a leg is in a work buffer."""
    return BASE_WORK_ROWS + leg * LEG_WORK_ROWS + row


@inline
def leg_rows(work, leg):
    """Return the rows of a leg in a work buffer."""
    start = leg_row(leg, 0) * LANES
    return work[start : start + LEG_WORK_ROWS * LANES]


@inline
def vary(varied_blocks, rows, row, lane, constant):
    """Return a robot's own value of a constant where robots differ, else the constant; row: in the work buffer."""
    if varied_blocks is None:
        return constant
    return rows[row * LANES + lane]


@inline
def copy_in(source, base_rows, leg_rows_, count, work, base_at, leg_at):
    """Copy rows of the base, then of four legs, count of each leg's, to where they are in a work buffer."""
    base = work[base_at * LANES : (base_at + base_rows) * LANES]
    for i in range(base_rows * LANES):
        base[i] = source[i]
    for leg in range(4):
        rows = leg_rows(work, leg)[leg_at * LANES : (leg_at + leg_rows_) * LANES]
        start = (base_rows + leg * leg_rows_) * LANES
        for i in range(count * LANES):
            rows[i] = source[start + i]


@inline
def copy_out(work, base_at, leg_at, target, base_rows, leg_rows_, count):
    """Copy rows back from a work buffer."""
    base = work[base_at * LANES : (base_at + base_rows) * LANES]
    for i in range(base_rows * LANES):
        target[i] = base[i]
    for leg in range(4):
        rows = leg_rows(work, leg)[leg_at * LANES : (leg_at + leg_rows_) * LANES]
        start = (base_rows + leg * leg_rows_) * LANES
        for i in range(count * LANES):
            target[start + i] = rows[i]


@inline
def motors_in(motor_blocks, b, work):
    """Copy the motors' rows of a block, where there are any, into a work buffer."""
    if motor_blocks is not None:
        copy_in(motor_blocks[b], MOTOR_BASE_ROWS, MOTOR_LEG_ROWS, MOTOR_LEG_ROWS, work, MOTORS_BASE, MOTORS_LEG)
        for lane in range(LANES):
            work[DRAWN * LANES + lane] = real(0.0)


@inline
def motors_out(work, motor_blocks, b):
    """Copy them back."""
    if motor_blocks is not None:
        copy_out(work, MOTORS_BASE, MOTORS_LEG, motor_blocks[b], MOTOR_BASE_ROWS, MOTOR_LEG_ROWS, MOTOR_LEG_ROWS)


@inline
def joint_rows(joints_differ):
    """Return how many of a leg's rows are of account of what robots differ in."""
    if joints_differ is None:
        return VARIED_JOINT_ROWS
    return VARIED_LEG_ROWS


@inline
def varied_in(varied_blocks, joints_differ, b, work):
    """Copy what the robots of a block differ in, where they do, into a work buffer."""
    if varied_blocks is not None:
        copy_in(
            varied_blocks[b],
            VARIED_BASE_ROWS,
            VARIED_LEG_ROWS,
            joint_rows(joints_differ),
            work,
            VARIED_BASE,
            VARIED_LEG,
        )


@inline
def varied_out(work, varied_blocks, joints_differ, b):
    """Copy it back."""
    if varied_blocks is not None:
        copy_out(
            work,
            VARIED_BASE,
            VARIED_LEG,
            varied_blocks[b],
            VARIED_BASE_ROWS,
            VARIED_LEG_ROWS,
            joint_rows(joints_differ),
        )


@inline
def enter(blocks, model, b, work):
    """Copy a block, and what else there is of its robots, into a work buffer."""
    copy_in(blocks[b], BASE_ROWS, LEG_ROWS, LEG_ROWS, work, 0, 0)
    motors_in(model.motor_blocks, b, work)
    varied_in(model.varied_blocks, model.joints_differ, b, work)


@inline
def leave(work, blocks, model, b):
    """Copy a work buffer back; what robots differ in does not change."""
    copy_out(work, 0, 0, blocks[b], BASE_ROWS, LEG_ROWS, LEG_ROWS)
    motors_out(work, model.motor_blocks, b)
