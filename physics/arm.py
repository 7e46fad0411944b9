"""The equations of motion of a block of arms with a paddle, and the rows that arms and their balls have in it.

All vectors are in the world frame, about its origin. A joint at p is then a field of velocities,
sweep + axis x r with sweep = p x axis, and nothing has to be transformed from link to link: fields,
moments of mass and forces just add up along the chain. Accelerations that velocities alone cause are
found on the way out, Newton-Euler forces and the mass matrix of composite rigid bodies on the way in
(Featherstone, 2008, ch. 5 and 6). Accelerations are classical, of the point of a link that is at the
origin. Gravity enters as an upward acceleration of the base.
"""

import numpy as np

from physics import arm_model as C
from physics.actuator import limit_torque
from physics.jit import LANES, aligned, inline, real
from physics.layout import load3, load6, store3, store6
from physics.leg import constant3
from physics.spatial import add, cross, dot, moment_of_rate, rate_matrix, rotate, scale, sincos, solve_symmetric6

# State, in the blocks
JOINT = 0  # (6) angles [rad]
JOINT_SPEED = 6  # (6) [rad/s]
TARGET = 12  # (6) of the PD law, cut at the joint range [rad]
BALL = 18  # (3) centre, world frame [m]
BALL_QUATERNION = 21  # (4) R_WB as w x y z
BALL_VELOCITY = 25  # (3) world frame [m/s]
BALL_SPIN = 28  # (3) angular velocity, world frame [rad/s]
HITS = 31  # how often the ball bounced off the paddle's upper face
HIT_SPEED = 32  # upward speed of the ball just after the latest of them [m/s]
PADDLE = 33  # (3) centre, world frame, when find_paddle() was last called [m]
PADDLE_NORMAL = 36  # (3) the same, of its upper face
STATE_ROWS = 39

# In the work buffer only, of the chain so far
FRAME = 0  # (3 x 3) axes x, y, z of the link
PLACE = 9  # (3) its origin, in the end the paddle's centre [m]
SPIN = 12  # (3) angular velocity [rad/s]
# (3) angular and linear acceleration that velocities and gravity cause [rad/s^2], [m/s^2]
SPIN_RATE = 15
LIFT = 18
# (3) and (6) moments of mass of the links beyond a joint [kg m], [kg m^2]
FIRST = 21
SECOND = 24
BIAS = 30  # (6) moment and force that keep them at zero joint acceleration [N m], [N]
MOMENTUM = 36  # (6) their momentum per speed of the joint, angular and linear
MATRIX = 42  # (6 x 6) upper triangle of the mass matrix, armature included [kg m^2]
IMPLICIT = 78  # (6) what the motors' implicit law adds to its diagonal [kg m^2]
TORQUE = 84  # (6) torque of motors, damping and end stops, less bias [N m]
SPEED = 90  # (6) of the joints at the end of the step, if the ball is not met [rad/s]
MEETING = 96  # 0 if ball and paddle do not meet in this step, 1 if the ball comes to rest on it, 2 if it bounces
LEFT = 97  # what is left of the step when they do [s]
RECOVERY = 98  # speed that takes them apart where they overlap [m/s]
NORMAL = 99  # (3) from the paddle to the ball
CONTACT = 102  # (3) point where they meet [m]
LINK = 105

# In the work buffer only, of every link
# (3) velocity field of the joint
JOINT_AXIS = 0
SWEEP = 3
# (3), (6), (6) as FIRST, SECOND, BIAS, of the link alone
LINK_FIRST = 6
LINK_SECOND = 9
LINK_BIAS = 15
LINK_ROWS = 21

WORK_ROWS = LINK + 6 * LINK_ROWS


@inline
def find_speeds(block, work, constants):
    """Find the speeds of the joints at the end of the step, if the ball is not met, and how arms and paddles lie now.

    block: (STATE_ROWS * LANES or more); work: (WORK_ROWS * LANES) scratch; constants: arm_model.arm_constants().
    """
    start_chain(work, constants[C.GRAVITY])
    for link in range(6):
        extend_chain(block, work, constants, link)
        link_outward(block, work, link_rows(work, link), link_constants(constants, link), link)
    carry(work, constant3(constants, C.PADDLE_OFFSET))
    mass = real(0.0)
    for beyond in range(6):
        link = 5 - beyond
        own = link_constants(constants, link)
        mass += own[C.MASS]
        link_inward(block, work, link_rows(work, link), constants, own, link, mass)
        for other in range(link + 1):
            couple(work, link_rows(work, other), own[C.ARMATURE], link, other)
    accelerate(block, work, constants)


@inline
def part(rows, start, count):
    """Return consecutive rows."""
    return rows[start * LANES : (start + count) * LANES]


@inline
def link_rows(work, link):
    """Return the rows of a link in a work buffer."""
    return part(work, LINK + link * LINK_ROWS, LINK_ROWS)


@inline
def link_constants(constants, link):
    """Return the constants of a link."""
    start = C.LINKS + link * C.LINK_CONSTANTS
    return constants[start : start + C.LINK_CONSTANTS]


@inline
def start_chain(work, gravity):
    """Begin the chain with the world, accelerated upwards by gravity, and the sums beyond a joint with nothing."""
    zero = real(0.0)
    one = real(1.0)
    sums = part(work, FIRST, MOMENTUM - FIRST)
    for i in range((MOMENTUM - FIRST) * LANES):
        sums[i] = zero
    for lane in range(LANES):
        store3(work, FRAME, lane, (one, zero, zero))
        store3(work, FRAME + 3, lane, (zero, one, zero))
        store3(work, FRAME + 6, lane, (zero, zero, one))
        store3(work, PLACE, lane, (zero, zero, zero))
        store3(work, SPIN, lane, (zero, zero, zero))
        store3(work, SPIN_RATE, lane, (zero, zero, zero))
        store3(work, LIFT, lane, (zero, zero, gravity))


@inline
def carry(work, offset):
    """Move the chain's end by an offset (3) [m] in the frame of its last link."""
    for lane in range(LANES):
        place = load3(work, PLACE, lane)
        store3(work, PLACE, lane, add(place, in_world(load_frame(work, lane), offset)))


@inline
def extend_chain(block, work, constants, link):
    """Go on to the frame of a link, and keep the velocity field of its joint."""
    rows, own = link_rows(work, link), link_constants(constants, link)
    carry(work, constant3(own, C.OFFSET))
    # the joint turns the two axes of the frame that are not its own
    k = int(own[C.AXIS])
    axis = part(work, FRAME + 3 * k, 3)
    u, v = part(work, FRAME + 3 * ((k + 1) % 3), 3), part(work, FRAME + 3 * ((k + 2) % 3), 3)
    angles = part(block, JOINT + link, 1)
    for lane in range(LANES):
        s, c = sincos(angles[lane])
        a, b = load3(u, 0, lane), load3(v, 0, lane)
        store3(u, 0, lane, add(scale(c, a), scale(s, b)))
        store3(v, 0, lane, add(scale(c, b), scale(-s, a)))
        store3(rows, JOINT_AXIS, lane, load3(axis, 0, lane))
    for lane in range(LANES):
        store3(rows, SWEEP, lane, cross(load3(work, PLACE, lane), load3(rows, JOINT_AXIS, lane)))


@inline
def load_frame(work, lane):
    """Return the axes x, y, z of the chain's last link."""
    return load3(work, FRAME, lane), load3(work, FRAME + 3, lane), load3(work, FRAME + 6, lane)


@inline
def in_world(frame, v):
    """Return a vector given by its components along the axes of a frame."""
    x, y, z = frame
    return add(add(scale(v[0], x), scale(v[1], y)), scale(v[2], z))


@inline
def second_in_world(frame, s):
    """Return R S R^T for a second moment and the frame whose axes are R's columns."""
    xx, xy, xz, yy, yz, zz = s
    x, y, z = frame
    # R S, column by column
    a, b, c = in_world(frame, (xx, xy, xz)), in_world(frame, (xy, yy, yz)), in_world(frame, (xz, yz, zz))
    return (
        a[0] * x[0] + b[0] * y[0] + c[0] * z[0],
        a[0] * x[1] + b[0] * y[1] + c[0] * z[1],
        a[0] * x[2] + b[0] * y[2] + c[0] * z[2],
        a[1] * x[1] + b[1] * y[1] + c[1] * z[1],
        a[1] * x[2] + b[1] * y[2] + c[1] * z[2],
        a[2] * x[2] + b[2] * y[2] + c[2] * z[2],
    )


@inline
def link_outward(block, work, rows, own, link):
    """Find how a link moves, its moments of mass, and the moment and force that its motion asks for."""
    mass, com = own[C.MASS], constant3(own, C.COM)
    second_own = constant3(own, C.SECOND) + constant3(own, C.SECOND + 3)
    speeds = part(block, JOINT_SPEED + link, 1)
    minus = real(-1.0)
    for lane in range(LANES):
        # w = w0 + qd axis,  w' = w0' + w0 x qd axis
        frame, p = load_frame(work, lane), load3(work, PLACE, lane)
        w0, wd0 = load3(work, SPIN, lane), load3(work, SPIN_RATE, lane)
        turning = scale(speeds[lane], load3(rows, JOINT_AXIS, lane))
        w, wd = add(w0, turning), add(wd0, cross(w0, turning))
        # parent and link agree at the joint: a = a0 + (G0 - G) p
        g0, g = rate_matrix(w0, wd0), rate_matrix(w, wd)
        a = add(load3(work, LIFT, lane), add(rotate(g0, p), scale(minus, rotate(g, p))))
        store3(work, SPIN, lane, w)
        store3(work, SPIN_RATE, lane, wd)
        store3(work, LIFT, lane, a)
        # f = m a + G m c,  n = m c x a + integral of r x (G r) dm
        x, y, z = add(p, in_world(frame, com))
        first = mass * x, mass * y, mass * z
        xx, xy, xz, yy, yz, zz = second_in_world(frame, second_own)
        second = (
            xx + first[0] * x,
            xy + first[0] * y,
            xz + first[0] * z,
            yy + first[1] * y,
            yz + first[1] * z,
            zz + first[2] * z,
        )
        store3(rows, LINK_FIRST, lane, first)
        store6(rows, LINK_SECOND, lane, second)
        store3(rows, LINK_BIAS, lane, add(cross(first, a), moment_of_rate(g, second)))
        store3(rows, LINK_BIAS + 3, lane, add(scale(mass, a), rotate(g, first)))


@inline
def link_inward(block, work, rows, constants, own, link, mass):
    """Add a link to what lies beyond its joint, and find what its motor does and what of it moves the joint.

    mass: of all that lies beyond the joint [kg].
    """
    dt, hold = constants[C.TIMESTEP], constants[C.COMPENSATION] * constants[C.GRAVITY]
    stiffness, stop_damping = constants[C.LIMIT_STIFFNESS], constants[C.LIMIT_DAMPING]
    kp, kd, damping, limit = own[C.KP], own[C.KD], own[C.DAMPING], own[C.TORQUE_LIMIT]
    low, high = own[C.LOW], own[C.HIGH]
    angles, speeds = part(block, JOINT + link, 1), part(block, JOINT_SPEED + link, 1)
    targets = part(block, TARGET + link, 1)
    implicit, torques = part(work, IMPLICIT + link, 1), part(work, TORQUE + link, 1)
    for lane in range(LANES):
        axis, sweep = load6(rows, JOINT_AXIS, lane)
        first = add(load3(work, FIRST, lane), load3(rows, LINK_FIRST, lane))
        (xx, xy, xz), (yy, yz, zz) = load6(work, SECOND, lane)
        (dxx, dxy, dxz), (dyy, dyz, dzz) = load6(rows, LINK_SECOND, lane)
        xx, xy, xz, yy, yz, zz = xx + dxx, xy + dxy, xz + dxz, yy + dyy, yz + dyz, zz + dzz
        n = add(load3(work, BIAS, lane), load3(rows, LINK_BIAS, lane))
        f = add(load3(work, BIAS + 3, lane), load3(rows, LINK_BIAS + 3, lane))
        store3(work, FIRST, lane, first)
        store6(work, SECOND, lane, (xx, xy, xz, yy, yz, zz))
        store3(work, BIAS, lane, n)
        store3(work, BIAS + 3, lane, f)
        # momentum of the field sweep + axis x r: m sweep + axis x m c and m c x sweep + (tr(S) - S) axis
        x, y, z = axis
        turned = (yy + zz) * x - xy * y - xz * z, (xx + zz) * y - xy * x - yz * z, (xx + yy) * z - xz * x - yz * y
        store3(work, MOMENTUM, lane, add(cross(first, sweep), turned))
        store3(work, MOMENTUM + 3, lane, add(scale(mass, sweep), cross(axis, first)))
        weight = hold * (mass * sweep[2] + x * first[1] - y * first[0])
        q, qd = angles[lane], speeds[lane]
        torque, c = motor(min(max(targets[lane], low), high), weight, q, qd, kp, kd, limit, dt)
        stop, stop_c = limit_torque(q, qd, low, high, stiffness, stop_damping, dt)
        implicit[lane] = dt * (c + stop_c + damping)
        torques[lane] = torque + stop - damping * qd - dot(axis, n) - dot(sweep, f)


@inline
def motor(target, feedforward, q, qd, kp, kd, limit, dt):
    """Return the torque of a motor [N m] and its implicit coefficient [N m s/rad].

    kp (target - q') - kd qd' + feedforward, of angle and speed at the end of the step, to first order:
    c = kd + kp dt falls off it per speed that the joint gains. At its limit a motor has a torque and no c.
    """
    c = kd + kp * dt
    torque = kp * (target - q) - c * qd + feedforward
    c = c if abs(torque) < limit else real(0.0)
    return min(max(torque, -limit), limit), c


@inline
def couple(work, rows, armature, link, other):
    """Set an element of the mass matrix: what moves a joint further in per acceleration of this one.

    rows: of the joint further in.
    """
    elements = part(work, MATRIX + 6 * other + link, 1)
    own = armature if other == link else real(0.0)
    for lane in range(LANES):
        elements[lane] = (
            own
            + dot(load3(rows, JOINT_AXIS, lane), load3(work, MOMENTUM, lane))
            + dot(load3(rows, SWEEP, lane), load3(work, MOMENTUM + 3, lane))
        )


@inline
def load_matrix(work, lane, extra):
    """Return the mass matrix, its diagonal raised by extra (3 + 3), as solve_symmetric6() takes it."""
    (d0, d1, d2), (d3, d4, d5) = extra
    i = MATRIX * LANES + lane
    a = (
        work[i] + d0,
        work[i + LANES],
        work[i + 2 * LANES],
        work[i + 7 * LANES] + d1,
        work[i + 8 * LANES],
        work[i + 14 * LANES] + d2,
    )
    b = load3(work, MATRIX + 3, lane) + load3(work, MATRIX + 9, lane) + load3(work, MATRIX + 15, lane)
    m = (
        work[i + 21 * LANES] + d3,
        work[i + 22 * LANES],
        work[i + 23 * LANES],
        work[i + 28 * LANES] + d4,
        work[i + 29 * LANES],
        work[i + 35 * LANES] + d5,
    )
    return a, b, m


@inline
def accelerate(block, work, constants):
    """Find the speeds of the joints at the end of the step: (M + dt c) qdd = torque, less bias."""
    dt = constants[C.TIMESTEP]
    for lane in range(LANES):
        matrix = load_matrix(work, lane, load6(work, IMPLICIT, lane))
        near, far = load6(work, TORQUE, lane)
        near, far = solve_symmetric6(matrix, near, far)
        v, w = load6(block, JOINT_SPEED, lane)
        store3(work, SPEED, lane, add(v, scale(dt, near)))
        store3(work, SPEED + 3, lane, add(w, scale(dt, far)))


@inline
def column(work, link, lane, point):
    """Return the velocity of a point (3) per speed of a joint."""
    axis, sweep = load6(work, LINK + link * LINK_ROWS + JOINT_AXIS, lane)
    return add(sweep, cross(axis, point))


@inline
def jacobian(work, lane, point):
    """Return the velocity of a point (3) of the paddle per speed of each joint, (6) of (3)."""
    near = column(work, 0, lane, point), column(work, 1, lane, point), column(work, 2, lane, point)
    return near, (column(work, 3, lane, point), column(work, 4, lane, point), column(work, 5, lane, point))


@inline
def sum_columns(columns, speeds):
    """Return J qd: the velocity (3) that joint speeds (3 + 3) make."""
    (a, b, c), (d, e, f) = columns
    (u, v, w), (x, y, z) = speeds
    return add(add(add(scale(u, a), scale(v, b)), add(scale(w, c), scale(x, d))), add(scale(y, e), scale(z, f)))


@inline
def along(columns, direction):
    """Return J^T n: the speed along a direction (3) per speed of each joint, (3 + 3)."""
    (a, b, c), (d, e, f) = columns
    near = dot(a, direction), dot(b, direction), dot(c, direction)
    return near, (dot(d, direction), dot(e, direction), dot(f, direction))


@inline
def find_paddle(block, work, constants):
    """Set PADDLE and PADDLE_NORMAL to where the joints put them."""
    start_chain(work, constants[C.GRAVITY])
    for link in range(6):
        extend_chain(block, work, constants, link)
    carry(work, constant3(constants, C.PADDLE_OFFSET))
    for lane in range(LANES):
        store3(block, PADDLE, lane, load3(work, PLACE, lane))
        store3(block, PADDLE_NORMAL, lane, load3(work, FRAME + 6, lane))


def home_blocks(arm: C.Arm, num_robots: int, drop: float = 0.3, rows: int = STATE_ROWS) -> np.ndarray:
    """Return blocks (blocks, rows * LANES) of arms at rest at home.

    drop: how far the ball is above the paddle [m]. All other rows are 0.
    """
    blocks = aligned(-(-num_robots // LANES), rows * LANES)
    origins, turns = arm.frames(arm.home)
    state = {
        JOINT: arm.home,
        TARGET: arm.home,
        BALL: origins[6] + [0, 0, arm.paddle.half_thickness + arm.ball.radius + drop],
        BALL_QUATERNION: [1.0],
        PADDLE: origins[6],
        PADDLE_NORMAL: turns[6, :, 2],
    }
    for row, values in state.items():
        blocks.reshape(len(blocks), rows, LANES)[:, row : row + len(values)] = np.reshape(values, (-1, 1))
    return blocks
