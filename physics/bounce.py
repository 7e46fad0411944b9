"""A ball that bounces on the paddle of an arm, and the time steps of both.

Arm and ball first move as if they did not meet. Where they do, an impulse at that time corrects what
is left of the step: a bounce loses no height to the length of the step.
"""

import numpy as np

from physics import arm as A
from physics import arm_model as C
from physics.arm import along, find_paddle, find_speeds, jacobian, load_matrix, sum_columns
from physics.jit import LANES, inline, kernel, real
from physics.layout import choose3, load3, load6, store3, store6
from physics.spatial import add, cross, dot, quaternion_matrix, quaternion_step, scale, solve_symmetric6, unrotate


@inline
def arm_substep(block, work, constants):
    """Advance the arms and balls of a block by one time step; the arguments are those of arm.find_speeds()."""
    find_speeds(block, work, constants)
    met = meet(block, work, constants)
    move(block, work, constants)
    if met > real(0.0):
        strike(block, work, constants)


@inline
def meet(block, work, constants):
    """Find whether ball and paddle meet within the step, when and where; return 0 if none of the block do.

    They do if the gap closes at the speeds of the step and inside the disc's rim; a ball that comes in
    across the rim, deeper than half its radius, passes.
    """
    dt, gravity, rest_speed = constants[C.TIMESTEP], constants[C.GRAVITY], constants[C.REST_SPEED]
    radius, rim = constants[C.BALL_RADIUS], constants[C.PADDLE_RADIUS]
    reach = constants[C.BALL_RADIUS] + constants[C.HALF_THICKNESS]
    zero = real(0.0)
    one = real(1.0)
    half = real(0.5)
    met = zero
    for lane in range(LANES):
        ball, v = load3(block, A.BALL, lane), load3(block, A.BALL_VELOCITY, lane)
        up, from_paddle = load3(work, A.FRAME + 6, lane), add(ball, scale(-one, load3(work, A.PLACE, lane)))
        height = dot(from_paddle, up)
        side = one if height >= zero else -one
        normal = scale(side, up)
        gap = side * height - reach
        columns = jacobian(work, lane, ball)
        # the mean velocity of a fall, and the speed of approach at the start, of which a bounce asks
        falling = v[0], v[1], v[2] - half * dt * gravity
        passing = add(falling, scale(-one, sum_columns(columns, load6(work, A.SPEED, lane))))
        speed = dot(passing, normal)
        start_speed = dot(add(v, scale(-one, sum_columns(columns, load6(block, A.JOINT_SPEED, lane)))), normal)
        wait = max(gap, zero) / max(-speed, real(1e-9))
        place = add(from_paddle, scale(wait, passing))
        off = dot(place, normal)
        inside = dot(place, place) - off * off < rim * rim
        meets = (gap + dt * speed < zero) & (gap > -half * radius) & inside
        work[A.MEETING * LANES + lane] = (real(2.0) if start_speed < -rest_speed else one) if meets else zero
        work[A.LEFT * LANES + lane] = dt - min(wait, dt)
        # a tenth of an overlap per step, far below what bounces
        work[A.RECOVERY * LANES + lane] = real(0.1) * max(-gap, zero) / dt
        store3(work, A.NORMAL, lane, normal)
        store3(work, A.CONTACT, lane, add(ball, add(scale(wait, passing), scale(-radius, normal))))
    for lane in range(LANES):
        met += work[A.MEETING * LANES + lane]
    return met


@inline
def move(block, work, constants):
    """Let the arm move at its new speed, and the ball fall: p' = p + dt v - dt^2 g / 2, exactly."""
    dt, gravity = constants[C.TIMESTEP], constants[C.GRAVITY]
    for lane in range(LANES):
        near, far = load6(work, A.SPEED, lane)
        q, r = load6(block, A.JOINT, lane)
        store3(block, A.JOINT, lane, add(q, scale(dt, near)))
        store3(block, A.JOINT + 3, lane, add(r, scale(dt, far)))
        store6(block, A.JOINT_SPEED, lane, near + far)
        v = load3(block, A.BALL_VELOCITY, lane)
        falling = v[0], v[1], v[2] - real(0.5) * dt * gravity
        store3(block, A.BALL, lane, add(load3(block, A.BALL, lane), scale(dt, falling)))
        store3(block, A.BALL_VELOCITY, lane, (v[0], v[1], v[2] - dt * gravity))
        i = A.BALL_QUATERNION * LANES + lane
        w, x, y, z = block[i], block[i + LANES], block[i + 2 * LANES], block[i + 3 * LANES]
        w, x, y, z = quaternion_step(
            (w, x, y, z), unrotate(quaternion_matrix(w, x, y, z), load3(block, A.BALL_SPIN, lane)), dt
        )
        block[i] = w
        store3(block, A.BALL_QUATERNION + 1, lane, (x, y, z))


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
        left, normal = work[A.LEFT * LANES + lane], load3(work, A.NORMAL, lane)
        columns = jacobian(work, lane, load3(work, A.CONTACT, lane))
        matrix = load_matrix(work, lane, (none, none))
        near, far = load6(block, A.JOINT_SPEED, lane)
        fallen, spin = load3(block, A.BALL_VELOCITY, lane), load3(block, A.BALL_SPIN, lane)
        bounces = work[A.MEETING * LANES + lane] > one
        v = fallen[0], fallen[1], fallen[2] + (left * gravity if bounces else zero)
        arm = scale(-radius, normal)
        passing = add(add(v, cross(spin, arm)), scale(-one, sum_columns(columns, (near, far))))

        # Along the normal
        pull = along(columns, normal)
        give = solve_symmetric6(matrix, pull[0], pull[1])
        speed = dot(passing, normal)
        wanted = restitution * -speed if bounces else work[A.RECOVERY * LANES + lane]
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
        meets = work[A.MEETING * LANES + lane] > zero
        kick = scale(per_mass, impulse)
        shift(block, A.JOINT, A.JOINT_SPEED, lane, meets, left, near)
        shift(block, A.JOINT + 3, A.JOINT_SPEED + 3, lane, meets, left, far)
        shift(block, A.BALL, A.BALL_VELOCITY, lane, meets, left, add(fallen, kick))
        choose3(block, A.BALL_SPIN, lane, meets, add(spin, scale(per_inertia, cross(arm, impulse))))
        block[(A.BALL + 2) * LANES + lane] -= (
            half * gravity * left * left if (push > zero) & (not bounces) & meets else zero
        )
        counts = bounces & (dot(normal, load3(work, A.FRAME + 6, lane)) > zero)
        block[A.HITS * LANES + lane] += one if counts else zero
        block[A.HIT_SPEED * LANES + lane] = v[2] + kick[2] if counts else block[A.HIT_SPEED * LANES + lane]


@inline
def shift(block, place_row, speed_row, lane, condition, left, speed):
    """Give three consecutive rows another speed for what is left of a step [s], where a condition holds."""
    change = add(speed, scale(real(-1.0), load3(block, speed_row, lane)))
    choose3(block, place_row, lane, condition, add(load3(block, place_row, lane), scale(left, change)))
    choose3(block, speed_row, lane, condition, speed)


@kernel
def arm_step(blocks, start, stop, work, constants, substeps):
    """Advance the robots of blocks[start:stop] by a number of time steps, with nothing but physics.

    blocks: (blocks, arm.STATE_ROWS * LANES or more) state; work: (arm.WORK_ROWS * LANES) scratch of this thread;
    constants: arm_model.arm_constants().
    """
    for b in range(start, stop):
        block = blocks[b]
        for _ in range(substeps):
            arm_substep(block, work, constants)
        find_paddle(block, work, constants)
