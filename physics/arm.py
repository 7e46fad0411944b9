"""The equations of motion of a block of arms with a paddle, and of the ball that bounces on it, one substep at a time.

All vectors are in the world frame, about its origin. A joint at p is then a field of velocities,
sweep + axis x r with sweep = p x axis, and nothing has to be transformed from link to link: fields,
moments of mass and forces just add up along the chain. Accelerations that velocities alone cause are
found on the way out, Newton-Euler forces and the mass matrix of composite rigid bodies on the way in
(Featherstone, 2008, ch. 5 and 6). Accelerations are classical, of the point of a link that is at the
origin. Gravity enters as an upward acceleration of the base.

Arm and ball first move as if they did not meet. Where they do, an impulse at that time corrects what
is left of the step: a bounce loses no height to the length of the step.
"""

import numpy as np

from physics import arm_model as C
from physics.actuator import limit_torque
from physics.jit import LANES, aligned, inline, kernel, real
from physics.layout import choose3, load3, load6, store3, store6
from physics.leg import constant3
from physics.spatial import (
    add,
    cross,
    dot,
    moment_of_rate,
    quaternion_matrix,
    quaternion_step,
    rate_matrix,
    rotate,
    scale,
    sincos,
    solve_symmetric6,
    unrotate,
)

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
def arm_substep(block, work, constants):
    """Advance the arms and balls of a block by one time step.

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
    met = meet(block, work, constants)
    move(block, work, constants)
    if met > real(0.0):
        strike(block, work, constants)


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
    """Begin the chain with the world, which gravity accelerates upwards, and the sums over what lies beyond a joint with nothing."""
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
    axis, u, v = (
        part(work, FRAME + 3 * k, 3),
        part(work, FRAME + 3 * ((k + 1) % 3), 3),
        part(work, FRAME + 3 * ((k + 2) % 3), 3),
    )
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
        a[0] * x[0] + b[0] * y[0] + c[0] * z[0], a[0] * x[1] + b[0] * y[1] + c[0] * z[1], a[0] * x[2] + b[0] * y[2] + c[0] * z[2],
        a[1] * x[1] + b[1] * y[1] + c[1] * z[1], a[1] * x[2] + b[1] * y[2] + c[1] * z[2], a[2] * x[2] + b[2] * y[2] + c[2] * z[2],
    )  # fmt: skip


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
    """Add a link to what lies beyond its joint, and find what its motor does and what of it moves the joint; mass: of all that [kg]."""
    dt, hold = constants[C.TIMESTEP], constants[C.COMPENSATION] * constants[C.GRAVITY]
    stiffness, stop_damping = constants[C.LIMIT_STIFFNESS], constants[C.LIMIT_DAMPING]
    kp, kd, damping, limit, low, high = (
        own[C.KP],
        own[C.KD],
        own[C.DAMPING],
        own[C.TORQUE_LIMIT],
        own[C.LOW],
        own[C.HIGH],
    )
    angles, speeds, targets = (
        part(block, JOINT + link, 1),
        part(block, JOINT_SPEED + link, 1),
        part(block, TARGET + link, 1),
    )
    implicit, torques = part(work, IMPLICIT + link, 1), part(work, TORQUE + link, 1)
    for lane in range(LANES):
        axis, sweep = load6(rows, JOINT_AXIS, lane)
        first = add(load3(work, FIRST, lane), load3(rows, LINK_FIRST, lane))
        (xx, xy, xz), (yy, yz, zz) = load6(work, SECOND, lane)
        (dxx, dxy, dxz), (dyy, dyz, dzz) = load6(rows, LINK_SECOND, lane)
        xx, xy, xz, yy, yz, zz = xx + dxx, xy + dxy, xz + dxz, yy + dyy, yz + dyz, zz + dzz
        n, f = (
            add(load3(work, BIAS, lane), load3(rows, LINK_BIAS, lane)),
            add(load3(work, BIAS + 3, lane), load3(rows, LINK_BIAS + 3, lane)),
        )
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
    """Set an element of the mass matrix: what moves a joint further in per acceleration of this one; rows: of the former."""
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
    return (dot(a, direction), dot(b, direction), dot(c, direction)), (
        dot(d, direction),
        dot(e, direction),
        dot(f, direction),
    )


@inline
def meet(block, work, constants):
    """Find whether ball and paddle meet within the step, when and where; return 0 if none of the block do.

    They do if the gap closes at the speeds of the step and inside the disc's rim; a ball that comes in
    across the rim, deeper than half its radius, passes.
    """
    dt, gravity, rest_speed = constants[C.TIMESTEP], constants[C.GRAVITY], constants[C.REST_SPEED]
    radius, rim, reach = (
        constants[C.BALL_RADIUS],
        constants[C.PADDLE_RADIUS],
        constants[C.BALL_RADIUS] + constants[C.HALF_THICKNESS],
    )
    zero = real(0.0)
    one = real(1.0)
    half = real(0.5)
    met = zero
    for lane in range(LANES):
        ball, v = load3(block, BALL, lane), load3(block, BALL_VELOCITY, lane)
        up, from_paddle = load3(work, FRAME + 6, lane), add(ball, scale(-one, load3(work, PLACE, lane)))
        height = dot(from_paddle, up)
        side = one if height >= zero else -one
        normal = scale(side, up)
        gap = side * height - reach
        columns = jacobian(work, lane, ball)
        # the mean velocity of a fall, and the speed of approach at the start, of which a bounce asks
        falling = v[0], v[1], v[2] - half * dt * gravity
        passing = add(falling, scale(-one, sum_columns(columns, load6(work, SPEED, lane))))
        speed = dot(passing, normal)
        start_speed = dot(add(v, scale(-one, sum_columns(columns, load6(block, JOINT_SPEED, lane)))), normal)
        wait = max(gap, zero) / max(-speed, real(1e-9))
        place = add(from_paddle, scale(wait, passing))
        off = dot(place, normal)
        inside = dot(place, place) - off * off < rim * rim
        meets = (gap + dt * speed < zero) & (gap > -half * radius) & inside
        work[MEETING * LANES + lane] = (real(2.0) if start_speed < -rest_speed else one) if meets else zero
        work[LEFT * LANES + lane] = dt - min(wait, dt)
        # a tenth of an overlap per step, far below what bounces
        work[RECOVERY * LANES + lane] = real(0.1) * max(-gap, zero) / dt
        store3(work, NORMAL, lane, normal)
        store3(work, CONTACT, lane, add(ball, add(scale(wait, passing), scale(-radius, normal))))
    for lane in range(LANES):
        met += work[MEETING * LANES + lane]
    return met


@inline
def move(block, work, constants):
    """Let the arm move at its new speed, and the ball fall: p' = p + dt v - dt^2 g / 2, exactly."""
    dt, gravity = constants[C.TIMESTEP], constants[C.GRAVITY]
    for lane in range(LANES):
        near, far = load6(work, SPEED, lane)
        q, r = load6(block, JOINT, lane)
        store3(block, JOINT, lane, add(q, scale(dt, near)))
        store3(block, JOINT + 3, lane, add(r, scale(dt, far)))
        store6(block, JOINT_SPEED, lane, near + far)
        v = load3(block, BALL_VELOCITY, lane)
        store3(
            block, BALL, lane, add(load3(block, BALL, lane), scale(dt, (v[0], v[1], v[2] - real(0.5) * dt * gravity)))
        )
        store3(block, BALL_VELOCITY, lane, (v[0], v[1], v[2] - dt * gravity))
        i = BALL_QUATERNION * LANES + lane
        w, x, y, z = block[i], block[i + LANES], block[i + 2 * LANES], block[i + 3 * LANES]
        w, x, y, z = quaternion_step(
            (w, x, y, z), unrotate(quaternion_matrix(w, x, y, z), load3(block, BALL_SPIN, lane)), dt
        )
        block[i] = w
        store3(block, BALL_QUATERNION + 1, lane, (x, y, z))


@inline
def strike(block, work, constants):
    """Exchange an impulse between ball and paddle where they meet, and correct the rest of the step by it.

    First the normal impulse, by Newton's law of restitution, v_n' = -e v_n; then friction on the slip
    that is left, at most mu times the normal impulse and no more than stops it. The inverse mass of a
    contact along a direction n is n . J M^-1 J^T n, plus the ball's. Each of the two impulses takes
    energy away, whatever the pose of the arm. A bounce happens at an instant; what comes to rest has
    its final speed for the rest of the step, as the arm has, against all of gravity's fall in the step.
    """
    gravity, restitution, friction = constants[C.GRAVITY], constants[C.RESTITUTION], constants[C.FRICTION]
    radius = constants[C.BALL_RADIUS]
    per_mass, per_inertia = real(1.0) / constants[C.BALL_MASS], real(1.0) / constants[C.BALL_INERTIA]
    zero = real(0.0)
    one = real(1.0)
    half = real(0.5)
    none = (zero, zero, zero)
    for lane in range(LANES):
        left, normal = work[LEFT * LANES + lane], load3(work, NORMAL, lane)
        columns = jacobian(work, lane, load3(work, CONTACT, lane))
        matrix = load_matrix(work, lane, (none, none))
        near, far = load6(block, JOINT_SPEED, lane)
        fallen, spin = load3(block, BALL_VELOCITY, lane), load3(block, BALL_SPIN, lane)
        bounces = work[MEETING * LANES + lane] > one
        v = fallen[0], fallen[1], fallen[2] + (left * gravity if bounces else zero)
        arm = scale(-radius, normal)
        passing = add(add(v, cross(spin, arm)), scale(-one, sum_columns(columns, (near, far))))

        # Along the normal
        pull = along(columns, normal)
        give = solve_symmetric6(matrix, pull[0], pull[1])
        speed = dot(passing, normal)
        wanted = restitution * -speed if bounces else work[RECOVERY * LANES + lane]
        push = max(zero, (wanted - speed) / (per_mass + dot(pull[0], give[0]) + dot(pull[1], give[1])))
        impulse = scale(push, normal)
        near, far = add(near, scale(-push, give[0])), add(far, scale(-push, give[1]))

        # Across it
        passing = add(passing, add(scale(per_mass, impulse), scale(push, sum_columns(columns, give))))
        slip = add(passing, scale(-dot(passing, normal), normal))
        slip_speed = np.sqrt(dot(slip, slip))
        across = scale(one / max(slip_speed, real(1e-9)), slip)
        pull = along(columns, across)
        give = solve_symmetric6(matrix, pull[0], pull[1])
        stops = slip_speed / (per_mass + radius * radius * per_inertia + dot(pull[0], give[0]) + dot(pull[1], give[1]))
        rub = min(friction * push, stops)
        impulse = add(impulse, scale(-rub, across))
        near, far = add(near, scale(rub, give[0])), add(far, scale(rub, give[1]))

        # What is left of the step goes on at the new speeds
        meets = work[MEETING * LANES + lane] > zero
        kick = scale(per_mass, impulse)
        shift(block, JOINT, JOINT_SPEED, lane, meets, left, near)
        shift(block, JOINT + 3, JOINT_SPEED + 3, lane, meets, left, far)
        shift(block, BALL, BALL_VELOCITY, lane, meets, left, add(fallen, kick))
        choose3(block, BALL_SPIN, lane, meets, add(spin, scale(per_inertia, cross(arm, impulse))))
        block[(BALL + 2) * LANES + lane] -= (
            half * gravity * left * left if (push > zero) & (not bounces) & meets else zero
        )
        counts = bounces & (dot(normal, load3(work, FRAME + 6, lane)) > zero)
        block[HITS * LANES + lane] += one if counts else zero
        block[HIT_SPEED * LANES + lane] = v[2] + kick[2] if counts else block[HIT_SPEED * LANES + lane]


@inline
def shift(block, place_row, speed_row, lane, condition, left, speed):
    """Give three consecutive rows another speed for what is left of a step [s], where a condition holds."""
    change = add(speed, scale(real(-1.0), load3(block, speed_row, lane)))
    choose3(block, place_row, lane, condition, add(load3(block, place_row, lane), scale(left, change)))
    choose3(block, speed_row, lane, condition, speed)


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


@kernel
def arm_step(blocks, start, stop, work, constants, substeps):
    """Advance the robots of blocks[start:stop] by a number of time steps, with nothing but physics.

    blocks: (blocks, STATE_ROWS * LANES or more) state; work: (WORK_ROWS * LANES) scratch of this thread;
    constants: arm_model.arm_constants().
    """
    for b in range(start, stop):
        block = blocks[b]
        for _ in range(substeps):
            arm_substep(block, work, constants)
        find_paddle(block, work, constants)


def home_blocks(arm: C.Arm, num_robots: int, drop: float = 0.3, rows: int = STATE_ROWS) -> np.ndarray:
    """Return blocks (blocks, rows * LANES) of arms at rest at home, the ball so far above the paddle [m], all other rows 0."""
    blocks = aligned(-(-num_robots // LANES), rows * LANES)
    origins, turns = arm.frames(arm.home)
    state = {
        JOINT: arm.home, TARGET: arm.home, BALL: origins[6] + [0, 0, arm.paddle.half_thickness + arm.ball.radius + drop],
        BALL_QUATERNION: [1.0], PADDLE: origins[6], PADDLE_NORMAL: turns[6, :, 2],
    }  # fmt: skip
    for row, values in state.items():
        blocks.reshape(len(blocks), rows, LANES)[:, row : row + len(values)] = np.reshape(values, (-1, 1))
    return blocks
