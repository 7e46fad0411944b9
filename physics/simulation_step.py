"""The equations of motion of a block of robots, one substep at a time.

Articulated-body algorithm (Featherstone, 2008, table 7.1) for a floating base with four legs of
three joints, in classical accelerations of the link origins. All of a leg is expressed in the
frame of its hip link: thigh and calf turn about y, so passing their inertia on is a translation.
Accelerations that velocities alone cause are found first, on the way out along a leg; what is left
to solve for is then linear and without velocity terms. Gravity enters as an upward acceleration of
the base.
"""

import numpy as np

from physics import layout as L
from physics import robot as R
from physics.actuator import joint_resistance, limit_torque, motor_torque
from physics.contact import add_contact, foot_contact, implicit_force
from physics.jit import LANES, inline, kernel, real
from physics.layout import load3, store3
from physics.spatial import (
    add,
    add_inertia,
    add_rigid,
    body_force,
    cross,
    dot,
    quaternion_matrix,
    quaternion_step,
    remove_axis,
    rigid_inertia,
    rotate,
    scale,
    sincos,
    solve_symmetric6,
    translate_inertia,
    unrotate,
    x_rotate,
    x_rotate_inertia,
    x_unrotate,
    y_rotate,
    y_rotate_sym,
)

# Constants that all robots share: PhysicsParameters.pack().
TIMESTEP = 0  # [s]
GRAVITY = 1  # [m/s^2]
STIFFNESS, CONTACT_DAMPING, FOOT_FRICTION, SLIP_SPEED = 2, 3, 4, 5  # foot contact [N/m], [N s/m], [-], [m/s]
FRICTION_SPEED = 6  # dry friction of a joint [rad/s]
LIMIT_STIFFNESS, LIMIT_DAMPING = 7, 8  # end stop of a joint [N m/rad], [N m s/rad]
KP, KD = 9, 10  # PD law [N m/rad], [N m s/rad]
WORLD_CONSTANTS = 11


@inline
def substep(work, world, base, legs, contact_force_too):
    """Advance the block in a work buffer by one time step."""
    base_kinematics(work, base)
    for leg in range(len(legs)):
        leg_inward(work, L.leg_rows(work, leg), world, legs[leg])
    base_acceleration(work)
    for leg in range(len(legs)):
        leg_outward(work, L.leg_rows(work, leg), world, legs[leg], contact_force_too)
    integrate_base(work, world)


@inline
def constant3(constants, i):
    """Return three consecutive constants."""
    return constants[i], constants[i + 1], constants[i + 2]


@inline
def rigid_body(constants, i):
    """Return mass [kg], mass times com [kg m] and inertia about the link origin [kg m^2]."""
    inertia = constants[i + 4], constants[i + 5], constants[i + 6], constants[i + 7], constants[i + 8], constants[i + 9]
    return constants[i], constant3(constants, i + 1), inertia


@inline
def base_kinematics(work, base):
    """Start the sums over the robot with the trunk's own inertia and velocity terms."""
    mass, mc, inertia = rigid_body(base, R.BASE_LINK)
    zero = real(0.0)
    none = (zero, zero, zero)
    for lane in range(LANES):
        i = L.QUATERNION * LANES + lane
        r = quaternion_matrix(work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES])
        store3(work, L.ROTATION, lane, (r[0], r[1], r[2]))
        store3(work, L.ROTATION + 3, lane, (r[3], r[4], r[5]))
        store3(work, L.ROTATION + 6, lane, (r[6], r[7], r[8]))
        store3(work, L.VELOCITY_B, lane, unrotate(r, load3(work, L.VELOCITY, lane)))
        n, f = body_force(mass, mc, inertia, load3(work, L.SPIN, lane), none, none)
        store3(work, L.BIAS, lane, n)
        store3(work, L.BIAS + 3, lane, f)
        store_inertia(work, lane, rigid_inertia(mass, mc, inertia))


@inline
def load_rotation(work, lane):
    """Return R_WB."""
    return load3(work, L.ROTATION, lane) + load3(work, L.ROTATION + 3, lane) + load3(work, L.ROTATION + 6, lane)


@inline
def store_inertia(work, lane, inertia):
    """Set the articulated inertia of the base."""
    a, b, m = inertia
    store3(work, L.INERTIA, lane, (a[0], a[1], a[2]))
    store3(work, L.INERTIA + 3, lane, (a[3], a[4], a[5]))
    store3(work, L.INERTIA + 6, lane, (b[0], b[1], b[2]))
    store3(work, L.INERTIA + 9, lane, (b[3], b[4], b[5]))
    store3(work, L.INERTIA + 12, lane, (b[6], b[7], b[8]))
    store3(work, L.INERTIA + 15, lane, (m[0], m[1], m[2]))
    store3(work, L.INERTIA + 18, lane, (m[3], m[4], m[5]))


@inline
def load_inertia(work, lane):
    """Return the articulated inertia of the base."""
    return (
        load3(work, L.INERTIA, lane) + load3(work, L.INERTIA + 3, lane),
        load3(work, L.INERTIA + 6, lane) + load3(work, L.INERTIA + 9, lane) + load3(work, L.INERTIA + 12, lane),
        load3(work, L.INERTIA + 15, lane) + load3(work, L.INERTIA + 18, lane),
    )


@inline
def leg_inward(work, rows, world, leg):
    """Find what the base feels of a leg and add it to the base's inertia and bias.

    All vectors are in the frame of the hip link (H) unless they end in _B.
    """
    dt, gravity = world[TIMESTEP], world[GRAVITY]
    stiffness, contact_damping, foot_friction, slip_speed = world[STIFFNESS], world[CONTACT_DAMPING], world[FOOT_FRICTION], world[SLIP_SPEED]
    gains = world[KP], world[KD], world[FRICTION_SPEED], world[LIMIT_STIFFNESS], world[LIMIT_DAMPING]
    hip_B, thigh_arm = constant3(leg, R.HIP_OFFSET), constant3(leg, R.THIGH_OFFSET)
    calf_arm, foot_arm = constant3(leg, R.CALF_OFFSET), constant3(leg, R.FOOT_OFFSET)
    radius = leg[R.FOOT_RADIUS]
    hip_mass, hip_mc, hip_inertia = rigid_body(leg, R.HIP_LINK)
    thigh_mass, thigh_com, thigh_i = rigid_body(leg, R.THIGH_LINK)
    calf_mass, calf_com, calf_i = rigid_body(leg, R.CALF_LINK)
    damping, armature, friction = constant3(leg, R.DAMPING), constant3(leg, R.ARMATURE), constant3(leg, R.FRICTION)
    limit, low, high = constant3(leg, R.TORQUE_LIMIT), constant3(leg, R.LOW), constant3(leg, R.HIGH)
    zero = real(0.0)
    one = real(1.0)
    for lane in range(LANES):
        # Where the links are
        q, qd = load3(rows, L.JOINT, lane), load3(rows, L.JOINT_SPEED, lane)
        s1, c1 = sincos(q[0])
        s2, c2 = sincos(q[1])
        s3, c3 = sincos(q[1] + q[2])
        calf = y_rotate(s2, c2, calf_arm)  # thigh origin to calf origin
        foot = y_rotate(s3, c3, foot_arm)  # calf origin to foot centre
        thigh_mc, thigh_inertia = y_rotate(s2, c2, thigh_com), y_rotate_sym(s2, c2, thigh_i)
        calf_mc, calf_inertia = y_rotate(s3, c3, calf_com), y_rotate_sym(s3, c3, calf_i)

        # How they move: angular velocity w and velocity v of the link origins
        spin_B = load3(work, L.SPIN, lane)
        w0 = x_unrotate(s1, c1, spin_B)
        w1 = w0[0] + qd[0], w0[1], w0[2]
        w2 = w1[0], w1[1] + qd[1], w1[2]
        w3 = w1[0], w2[1] + qd[2], w1[2]
        spin_hip_B = cross(spin_B, hip_B)
        v1 = x_unrotate(s1, c1, add(load3(work, L.VELOCITY_B, lane), spin_hip_B))
        w1_thigh = cross(w1, thigh_arm)
        w2_calf = cross(w2, calf)
        v3 = add(add(v1, w1_thigh), w2_calf)

        # How they would accelerate by that alone: w' and a
        a1 = x_unrotate(s1, c1, cross(spin_B, spin_hip_B))
        wd1 = zero, w0[2] * qd[0], -w0[1] * qd[0]
        a2 = add(a1, add(cross(wd1, thigh_arm), cross(w1, w1_thigh)))
        wd2 = wd1[0] - w1[2] * qd[1], wd1[1], wd1[2] + w1[0] * qd[1]
        a3 = add(a2, add(cross(wd2, calf), cross(w2, w2_calf)))
        wd3 = wd2[0] - w1[2] * qd[2], wd2[1], wd2[2] + w1[0] * qd[2]

        # The foot on the ground
        up_B = load3(work, L.ROTATION + 6, lane)
        up = x_unrotate(s1, c1, up_B)
        height = work[(L.POSITION + 2) * LANES + lane] + dot(up_B, hip_B) + dot(up, add(thigh_arm, add(calf, foot))) - radius
        arm = add(foot, scale(-radius, up))
        w3_arm = cross(w3, arm)
        force, alpha, beta = foot_contact(height, up, add(v3, w3_arm), stiffness, contact_damping, foot_friction, slip_speed, dt)
        at_foot = add(a3, add(cross(wd3, arm), cross(w3, w3_arm)))
        force = add(force, scale(-one, implicit_force(alpha, beta, up, add(at_foot, scale(-gravity, up)))))
        store3(rows, L.CONTACT_ARM, lane, arm)
        store3(rows, L.CONTACT_FORCE, lane, force)
        rows[L.CONTACT_MATRIX * LANES + lane] = alpha
        rows[(L.CONTACT_MATRIX + 1) * LANES + lane] = beta

        # Calf: inertia I, bias (n, f)
        n, f = body_force(calf_mass, calf_mc, calf_inertia, w3, wd3, a3)
        n, f = add(n, scale(-one, cross(arm, force))), add(f, scale(-one, force))
        inertia = add_contact(rigid_inertia(calf_mass, calf_mc, calf_inertia), arm, up, alpha, beta)
        torque, c = joint_torque(rows, lane, 2, q[2], qd[2], gains, (limit[2], low[2], high[2]), damping[2], friction[2], dt)
        a, b, m = inertia
        uw, uf = (a[1], a[3], a[4]), (b[3], b[4], b[5])
        d = one / (a[3] + armature[2] + dt * c)
        u = torque - n[1]
        store_joint(rows, lane, L.U_CALF, 2, uw, uf, d, u)
        inertia = remove_axis(inertia, uw, uf, d)
        n, f = add(n, scale(u * d, uw)), add(f, scale(u * d, uf))

        # Thigh
        n2, f2 = body_force(thigh_mass, thigh_mc, thigh_inertia, w2, wd2, a2)
        n, f = add(add(n, cross(calf, f)), n2), add(f, f2)
        inertia = add_rigid(translate_inertia(inertia, calf), thigh_mass, thigh_mc, thigh_inertia)
        torque, c = joint_torque(rows, lane, 1, q[1], qd[1], gains, (limit[1], low[1], high[1]), damping[1], friction[1], dt)
        a, b, m = inertia
        uw, uf = (a[1], a[3], a[4]), (b[3], b[4], b[5])
        d = one / (a[3] + armature[1] + dt * c)
        u = torque - n[1]
        store_joint(rows, lane, L.U_THIGH, 1, uw, uf, d, u)
        inertia = remove_axis(inertia, uw, uf, d)
        n, f = add(n, scale(u * d, uw)), add(f, scale(u * d, uf))

        # Hip
        n1, f1 = body_force(hip_mass, hip_mc, hip_inertia, w1, wd1, a1)
        n, f = add(add(n, cross(thigh_arm, f)), n1), add(f, f1)
        inertia = add_rigid(translate_inertia(inertia, thigh_arm), hip_mass, hip_mc, hip_inertia)
        torque, c = joint_torque(rows, lane, 0, q[0], qd[0], gains, (limit[0], low[0], high[0]), damping[0], friction[0], dt)
        a, b, m = inertia
        uw, uf = (a[0], a[1], a[2]), (b[0], b[1], b[2])
        d = one / (a[0] + armature[0] + dt * c)
        u = torque - n[0]
        store_joint(rows, lane, L.U_HIP, 0, uw, uf, d, u)
        inertia = remove_axis(inertia, uw, uf, d)
        n, f = add(n, scale(u * d, uw)), add(f, scale(u * d, uf))

        # Base
        f = x_rotate(s1, c1, f)
        n = add(x_rotate(s1, c1, n), cross(hip_B, f))
        store3(work, L.BIAS, lane, add(load3(work, L.BIAS, lane), n))
        store3(work, L.BIAS + 3, lane, add(load3(work, L.BIAS + 3, lane), f))
        a, b, m = translate_inertia(x_rotate_inertia(s1, c1, inertia), hip_B)
        store_inertia(work, lane, add_inertia(load_inertia(work, lane), (a, b, m)))
        rows[L.SINCOS * LANES + lane] = s1
        rows[(L.SINCOS + 1) * LANES + lane] = c1
        store3(rows, L.CALF_ARM, lane, calf)


@inline
def joint_torque(rows, lane, joint, q, qd, gains, limits, damping, friction, dt):
    """Return the torque on a joint [N m] and its implicit coefficient [N m s/rad].

    gains: kp, kd, friction_speed, limit_stiffness, limit_damping; limits: torque, low, high.
    """
    kp, kd, friction_speed, limit_stiffness, limit_damping = gains
    limit, low, high = limits
    target = rows[(L.TARGET + joint) * LANES + lane]
    command = rows[(L.TORQUE + joint) * LANES + lane]
    stop, stop_c = limit_torque(q, qd, low, high, limit_stiffness, limit_damping, dt)
    c = joint_resistance(qd, damping, friction, friction_speed)
    return motor_torque(target, command, q, qd, kp, kd, limit) - c * qd + stop, c + stop_c


@inline
def store_joint(rows, lane, u_row, joint, uw, uf, d, u):
    """Keep what the way out needs of a joint."""
    store3(rows, u_row, lane, uw)
    store3(rows, u_row + 3, lane, uf)
    rows[(L.D_INVERSE + joint) * LANES + lane] = d
    rows[(L.U_TORQUE + joint) * LANES + lane] = u


@inline
def base_acceleration(work):
    """Solve for the acceleration of the base, less gravity: I a = -bias."""
    for lane in range(LANES):
        n, f = load3(work, L.BIAS, lane), load3(work, L.BIAS + 3, lane)
        wd, a = solve_symmetric6(load_inertia(work, lane), scale(real(-1.0), n), scale(real(-1.0), f))
        store3(work, L.ACCELERATION, lane, wd)
        store3(work, L.ACCELERATION + 3, lane, a)


@inline
def leg_outward(work, rows, world, leg, contact_force_too):
    """Find the joint accelerations of a leg and step its joints: qdd = (u - U . a) / D."""
    dt = world[TIMESTEP]
    hip_B, thigh_arm = constant3(leg, R.HIP_OFFSET), constant3(leg, R.THIGH_OFFSET)
    for lane in range(LANES):
        s1, c1 = rows[L.SINCOS * LANES + lane], rows[(L.SINCOS + 1) * LANES + lane]
        calf = load3(rows, L.CALF_ARM, lane)
        wd_B = load3(work, L.ACCELERATION, lane)
        a = x_unrotate(s1, c1, add(load3(work, L.ACCELERATION + 3, lane), cross(wd_B, hip_B)))
        wd = x_unrotate(s1, c1, wd_B)
        d, u = load3(rows, L.D_INVERSE, lane), load3(rows, L.U_TORQUE, lane)
        qdd1 = d[0] * (u[0] - dot(load3(rows, L.U_HIP, lane), wd) - dot(load3(rows, L.U_HIP + 3, lane), a))
        wd = wd[0] + qdd1, wd[1], wd[2]
        a = add(a, cross(wd, thigh_arm))
        qdd2 = d[1] * (u[1] - dot(load3(rows, L.U_THIGH, lane), wd) - dot(load3(rows, L.U_THIGH + 3, lane), a))
        wd = wd[0], wd[1] + qdd2, wd[2]
        a = add(a, cross(wd, calf))
        qdd3 = d[2] * (u[2] - dot(load3(rows, L.U_CALF, lane), wd) - dot(load3(rows, L.U_CALF + 3, lane), a))
        qd = add(load3(rows, L.JOINT_SPEED, lane), (dt * qdd1, dt * qdd2, dt * qdd3))
        store3(rows, L.JOINT_SPEED, lane, qd)
        store3(rows, L.JOINT, lane, add(load3(rows, L.JOINT, lane), scale(dt, qd)))
        if contact_force_too:
            wd = wd[0], wd[1] + qdd3, wd[2]
            up = x_unrotate(s1, c1, load3(work, L.ROTATION + 6, lane))
            alpha, beta = rows[L.CONTACT_MATRIX * LANES + lane], rows[(L.CONTACT_MATRIX + 1) * LANES + lane]
            a = add(a, cross(wd, load3(rows, L.CONTACT_ARM, lane)))
            force = add(load3(rows, L.CONTACT_FORCE, lane), scale(real(-1.0), implicit_force(alpha, beta, up, a)))
            store3(rows, L.FORCE, lane, rotate(load_rotation(work, lane), x_rotate(s1, c1, force)))


@inline
def integrate_base(work, world):
    """Step the base, velocity first: semi-implicit Euler."""
    dt, gravity = world[TIMESTEP], world[GRAVITY]
    for lane in range(LANES):
        r = load_rotation(work, lane)
        a = rotate(r, load3(work, L.ACCELERATION + 3, lane))
        v = add(load3(work, L.VELOCITY, lane), (dt * a[0], dt * a[1], dt * (a[2] - gravity)))
        spin = add(load3(work, L.SPIN, lane), scale(dt, load3(work, L.ACCELERATION, lane)))
        i = L.QUATERNION * LANES + lane
        q = quaternion_step((work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES]), spin, dt)
        store3(work, L.VELOCITY, lane, v)
        store3(work, L.SPIN, lane, spin)
        store3(work, L.POSITION, lane, add(load3(work, L.POSITION, lane), scale(dt, v)))
        work[i] = q[0]
        work[i + LANES] = q[1]
        work[i + 2 * LANES] = q[2]
        work[i + 3 * LANES] = q[3]


@inline
def recentre(work, lane, axis):
    """Move the origin of a robot that left its cell, so that float32 stays precise; return by how much [m]."""
    p = work[(L.POSITION + axis) * LANES + lane]
    shift = real(L.CELL) * np.floor(p * real(1.0 / L.CELL) + real(0.5))
    work[(L.POSITION + axis) * LANES + lane] = p - shift
    work[(L.ORIGIN + axis) * LANES + lane] += shift
    return shift


@kernel
def simulation_step(blocks, start, stop, work, world, base, legs, substeps):
    """Advance the robots of blocks[start:stop] by a number of time steps, with nothing but physics.

    blocks: (blocks, rows * LANES) state; work: (WORK_ROWS * LANES) scratch of this thread; world:
    (WORLD_CONSTANTS); base: (BASE_CONSTANTS); legs: (4, LEG_CONSTANTS).
    """
    for b in range(start, stop):
        L.enter(blocks[b], work)
        for s in range(substeps):
            substep(work, world, base, legs, s == substeps - 1)
        for lane in range(LANES):
            recentre(work, lane, 0)
            recentre(work, lane, 1)
        L.leave(work, blocks[b])
