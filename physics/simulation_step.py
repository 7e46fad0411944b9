"""The equations of motion of a block of robots, one substep at a time.

A floating base with four legs of three joints: the mass matrix is a base block, a 3 x 3 block H per
leg and the coupling F (6 x 3) between them (Featherstone, 2008, ch. 6), so that each leg's joints are
eliminated on their own, H = L D L^T, and 6 x 6 equations remain for the base. All of a leg is
expressed in the frame of its hip link, with the frames and masses of physics/constants.py, in which
most of its numbers are zero. Accelerations are classical, of the link origins; those that velocities
alone cause are found on the way; what is left to solve for is then linear. Gravity enters as an
upward acceleration of the base.
"""

import numpy as np

from physics import constants as C
from physics import layout as L
from physics.actuator import joint_resistance, limit_torque, motor_torque
from physics.contact import foot_contact, implicit_force
from physics.jit import LANES, inline, kernel, real
from physics.layout import load3, store3
from physics.spatial import (
    add,
    cross,
    dot,
    in_xz,
    moment_of_rate,
    moment_of_rate_x,
    moment_of_rate_y,
    quaternion_matrix,
    quaternion_step,
    rate_matrix,
    rotate,
    scale,
    sincos,
    solve_symmetric6,
    unrotate,
    x_rotate,
    x_rotate_moment,
    x_unrotate,
    y_rotate_moment,
)


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
def constant7(constants, i):
    """Return seven consecutive constants of a link: first moment (2), second moment (5)."""
    return (constants[i], constants[i + 1]), (constants[i + 2], constants[i + 3], constants[i + 4], constants[i + 5], constants[i + 6])


@inline
def base_kinematics(work, base):
    """Start the sums over the robot with the base's share of mass and velocity terms."""
    mass, first = base[C.BASE_MASS], constant3(base, C.BASE_FIRST)
    second = constant3(base, C.BASE_SECOND) + constant3(base, C.BASE_SECOND + 3)
    zero = real(0.0)
    none = (zero, zero, zero)
    for lane in range(LANES):
        i = L.QUATERNION * LANES + lane
        r = quaternion_matrix(work[i], work[i + LANES], work[i + 2 * LANES], work[i + 3 * LANES])
        store3(work, L.ROTATION, lane, (r[0], r[1], r[2]))
        store3(work, L.ROTATION + 3, lane, (r[3], r[4], r[5]))
        store3(work, L.ROTATION + 6, lane, (r[6], r[7], r[8]))
        store3(work, L.VELOCITY_B, lane, unrotate(r, load3(work, L.VELOCITY, lane)))
        g = rate_matrix(load3(work, L.SPIN, lane), none)
        store3(work, L.BIAS, lane, moment_of_rate(g, second))
        store3(work, L.BIAS + 3, lane, rotate(g, first))
        work[L.MASS * LANES + lane] = mass
        store3(work, L.FIRST, lane, first)
        store3(work, L.SECOND, lane, (second[0], second[1], second[2]))
        store3(work, L.SECOND + 3, lane, (second[3], second[4], second[5]))
        for k in range(7):
            store3(work, L.INERTIA + 3 * k, lane, none)


@inline
def load_rotation(work, lane):
    """Return R_WB."""
    return load3(work, L.ROTATION, lane) + load3(work, L.ROTATION + 3, lane) + load3(work, L.ROTATION + 6, lane)


@inline
def load6(work, row, lane):
    """Return six consecutive rows of a lane as two vectors."""
    return load3(work, row, lane), load3(work, row + 3, lane)


@inline
def add_outer(work, lane, n, f, m, g):
    """Add (n, f) (m, g)^T, which is symmetric, to the inertia that the base feels."""
    i = L.INERTIA * LANES + lane
    work[i] += n[0] * m[0]
    work[i + LANES] += n[0] * m[1]
    work[i + 2 * LANES] += n[0] * m[2]
    work[i + 3 * LANES] += n[1] * m[1]
    work[i + 4 * LANES] += n[1] * m[2]
    work[i + 5 * LANES] += n[2] * m[2]
    for k in range(3):
        j = i + (6 + 3 * k) * LANES
        work[j] += n[k] * g[0]
        work[j + LANES] += n[k] * g[1]
        work[j + 2 * LANES] += n[k] * g[2]
    i += 15 * LANES
    work[i] += f[0] * g[0]
    work[i + LANES] += f[0] * g[1]
    work[i + 2 * LANES] += f[0] * g[2]
    work[i + 3 * LANES] += f[1] * g[1]
    work[i + 4 * LANES] += f[1] * g[2]
    work[i + 5 * LANES] += f[2] * g[2]


@inline
def leg_inward(work, rows, world, leg):
    """Find what the base feels of a leg and add it to the base's inertia and bias.

    All vectors are in the frame of the hip link (H) unless they end in _B.
    """
    dt, gravity = world[C.TIMESTEP], world[C.GRAVITY]
    stiffness, contact_damping, foot_friction, slip_speed = world[C.STIFFNESS], world[C.CONTACT_DAMPING], world[C.FOOT_FRICTION], world[C.SLIP_SPEED]
    gains = world[C.KP], world[C.KD], world[C.FRICTION_SPEED], world[C.LIMIT_STIFFNESS], world[C.LIMIT_DAMPING]
    hip_B, rise, thigh_length, calf_length = constant3(leg, C.HIP), leg[C.RISE], leg[C.THIGH_LENGTH], leg[C.CALF_LENGTH]
    foot_side, radius, thigh_turn, calf_turn = leg[C.FOOT_SIDE], leg[C.FOOT_RADIUS], leg[C.THIGH_TURN], leg[C.CALF_TURN]
    hip_first, hip_second = constant7(leg, C.HIP_LINK)
    thigh_first, thigh_second = constant7(leg, C.THIGH_LINK)
    calf_first, calf_second = constant7(leg, C.CALF_LINK)
    damping, armature, friction = constant3(leg, C.DAMPING), constant3(leg, C.ARMATURE), constant3(leg, C.FRICTION)
    limit, low, high = constant3(leg, C.TORQUE_LIMIT), constant3(leg, C.LOW), constant3(leg, C.HIGH)
    zero = real(0.0)
    one = real(1.0)
    two = real(2.0)
    for lane in range(LANES):
        # Where the links are
        q, qd = load3(rows, L.JOINT, lane), load3(rows, L.JOINT_SPEED, lane)
        s1, c1 = sincos(q[0])
        s2, c2 = sincos(q[1] + thigh_turn)
        s3, c3 = sincos(q[1] + q[2] + calf_turn)
        rx, rz = -thigh_length * s2, -thigh_length * c2  # knee, from the thigh's origin
        fx, fz = -calf_length * s3, -calf_length * c3  # foot, from the knee

        # How they move: angular velocity w, velocity v of the link origins
        spin_B = load3(work, L.SPIN, lane)
        w0 = x_unrotate(s1, c1, spin_B)
        w1 = w0[0] + qd[0], w0[1], w0[2]
        w2 = w1[0], w1[1] + qd[1], w1[2]
        w3 = w1[0], w2[1] + qd[2], w1[2]
        spin_hip_B = cross(spin_B, hip_B)
        v1 = x_unrotate(s1, c1, add(load3(work, L.VELOCITY_B, lane), spin_hip_B))
        v3 = v1[0] + w1[1] * rise + w2[1] * rz, v1[1] - w1[0] * rise + w1[2] * rx - w1[0] * rz, v1[2] - w2[1] * rx

        # How they would accelerate by that alone: G = [w']x + [w]x [w]x, and a of the link origins
        g1 = rate_matrix(w1, (zero, w0[2] * qd[0], -w0[1] * qd[0]))
        g2 = rate_matrix(w2, (-w1[2] * qd[1], w0[2] * qd[0], w1[0] * qd[1] - w0[1] * qd[0]))
        both = qd[1] + qd[2]
        g3 = rate_matrix(w3, (-w1[2] * both, w0[2] * qd[0], w1[0] * both - w0[1] * qd[0]))
        a1 = x_unrotate(s1, c1, cross(spin_B, spin_hip_B))
        a2 = add(a1, in_xz(g1, zero, rise))
        a3 = add(a2, in_xz(g2, rx, rz))

        # The foot on the ground
        up_B = load3(work, L.ROTATION + 6, lane)
        up = x_unrotate(s1, c1, up_B)
        foot_B = add(hip_B, x_rotate(s1, c1, (rx + fx, foot_side, rise + rz + fz)))
        height = work[(L.POSITION + 2) * LANES + lane] + dot(up_B, foot_B) - radius
        point_B = add(foot_B, scale(-radius, up_B))
        arm = add((fx, foot_side, fz), scale(-radius, up))  # of the contact point, from the knee
        point = rx + arm[0], arm[1], rise + rz + arm[2]  # from the hip
        force, alpha, beta = foot_contact(height, up, add(v3, cross(w3, arm)), stiffness, contact_damping, foot_friction, slip_speed, dt)
        at_foot = add(a3, rotate(g3, arm))
        force = add(force, scale(-one, implicit_force(alpha, beta, up, add(at_foot, scale(-gravity, up)))))
        # unit accelerations of the joints move the contact point by j and meet the force k = (alpha 1 + beta n n^T) j
        j1 = zero, -point[2], point[1]
        j2 = point[2] - rise, zero, -point[0]
        j3 = arm[2], zero, -arm[0]
        k1, k2, k3 = implicit_force(alpha, beta, up, j1), implicit_force(alpha, beta, up, j2), implicit_force(alpha, beta, up, j3)
        rows[L.SINCOS * LANES + lane] = s1
        rows[(L.SINCOS + 1) * LANES + lane] = c1
        store3(rows, L.CONTACT, lane, point)
        rows[L.CONTACT_ARM * LANES + lane] = arm[0]
        rows[(L.CONTACT_ARM + 1) * LANES + lane] = arm[2]
        store3(rows, L.CONTACT_FORCE, lane, force)
        rows[L.CONTACT_MATRIX * LANES + lane] = alpha
        rows[(L.CONTACT_MATRIX + 1) * LANES + lane] = beta

        # Moments of mass, of the links and of them with all that hangs on them: first (x, z), second xx xy xz yz zz
        x3, z3 = c3 * calf_first[0] + s3 * calf_first[1], c3 * calf_first[1] - s3 * calf_first[0]
        x2, z2 = c2 * thigh_first[0] + s2 * thigh_first[1], c2 * thigh_first[1] - s2 * thigh_first[0]
        y1, z1 = hip_first
        second3, second2 = y_rotate_moment(s3, c3, calf_second), y_rotate_moment(s2, c2, thigh_second)
        x23, z23 = x2 + x3, z2 + z3
        second23 = (
            second2[0] + second3[0] + two * rx * x3, second2[1] + second3[1], second2[2] + second3[2] + rx * z3 + rz * x3,
            second2[3] + second3[3], second2[4] + second3[4] + two * rz * z3,
        )  # fmt: skip
        first = x23, y1, z1 + z23
        second = (
            second23[0], hip_second[0] + second23[1], hip_second[1] + second23[2] + rise * x23,
            hip_second[2], hip_second[3] + second23[3], hip_second[4] + second23[4] + two * rise * z23,
        )  # fmt: skip

        # Bias: moments n about the link origins and forces f that velocities and contact ask for
        n = moment_of_rate_y(g3, second3)
        push = cross(arm, force)
        n = n[0] - z3 * a3[1] - push[0], n[1] + z3 * a3[0] - x3 * a3[2] - push[1], n[2] + x3 * a3[1] - push[2]
        f = add(in_xz(g3, x3, z3), scale(-one, force))
        n3 = n[1]
        m = moment_of_rate_y(g2, second2)
        n = n[0] + m[0] - rz * f[1] - z2 * a2[1], n3 + m[1] + rz * f[0] - rx * f[2] + z2 * a2[0] - x2 * a2[2], n[2] + m[2] + rx * f[1] + x2 * a2[1]
        f = add(f, in_xz(g2, x2, z2))
        n2 = n[1]
        m = moment_of_rate_x(g1, hip_second)
        n = n[0] + m[0] - rise * f[1] + y1 * a1[2] - z1 * a1[1], n2 + m[1] + rise * f[0] + z1 * a1[0], n[2] + m[2] - y1 * a1[0]
        f = f[0] + g1[1] * y1 + g1[2] * z1, f[1] + g1[4] * y1 + g1[5] * z1, f[2] + g1[7] * y1 + g1[8] * z1

        # Joint torques less bias, and the joints' inertia H
        t1, c11 = joint_torque(rows, lane, 0, q[0], qd[0], gains, (limit[0], low[0], high[0]), damping[0], friction[0], dt)
        t2, c22 = joint_torque(rows, lane, 1, q[1], qd[1], gains, (limit[1], low[1], high[1]), damping[1], friction[1], dt)
        t3, c33 = joint_torque(rows, lane, 2, q[2], qd[2], gains, (limit[2], low[2], high[2]), damping[2], friction[2], dt)
        u1, u2, u3 = t1 - n[0], t2 - n2, t3 - n3
        along3 = second3[0] + second3[4]
        across = along3 + rz * z3 + rx * x3
        along2 = second23[0] + second23[4]
        along1 = second[3] + second[5]
        h11 = along1 + armature[0] + dt * c11 + dot(j1, k1)
        h22 = along2 + armature[1] + dt * c22 + dot(j2, k2)
        h33 = along3 + armature[2] + dt * c33 + dot(j3, k3)
        h12 = dot(j1, k2) - second23[1]
        h13 = dot(j1, k3) - second3[1]
        h23 = dot(j2, k3) + across

        # Coupling F: moment about the hip and force that a unit acceleration of a joint asks for
        p1, p2, p3 = cross(point, k1), cross(point, k2), cross(point, k3)
        w1, f1 = (along1 + p1[0], p1[1] - second[1], p1[2] - second[2]), (k1[0], k1[1] - first[2], k1[2] + first[1])
        w2, f2 = (p2[0] - second23[1], p2[1] + along2 + rise * z23, p2[2] - second23[3]), (k2[0] + z23, k2[1], k2[2] - x23)
        w3, f3 = (p3[0] - second3[1], p3[1] + across + rise * z3, p3[2] - second3[3]), (k3[0] + z3, k3[1], k3[2] - x3)

        # Elimination of the joints, calf first: H = L D L^T, L G^T = F^T
        d3 = one / h33
        l23, l13 = h23 * d3, h13 * d3
        d2 = one / (h22 - l23 * h23)
        h12 = h12 - l13 * h23
        l12 = h12 * d2
        d1 = one / (h11 - l13 * h13 - l12 * h12)
        w2, f2 = add(w2, scale(-l23, w3)), add(f2, scale(-l23, f3))
        w1, f1 = add(w1, add(scale(-l13, w3), scale(-l12, w2))), add(f1, add(scale(-l13, f3), scale(-l12, f2)))
        u2 = u2 - l23 * u3
        u1 = u1 - l13 * u3 - l12 * u2
        store3(rows, L.JOINT_BIAS, lane, (d1 * u1, d2 * u2, d3 * u3))
        store3(rows, L.FACTOR, lane, (l12, l13, l23))

        # What the base feels, in its own frame: bias + F H^-1 u, and inertia - F H^-1 F^T
        n = add(n, add(scale(d1 * u1, w1), add(scale(d2 * u2, w2), scale(d3 * u3, w3))))
        f = add(f, add(scale(d1 * u1, f1), add(scale(d2 * u2, f2), scale(d3 * u3, f3))))
        f = x_rotate(s1, c1, f)
        n = add(x_rotate(s1, c1, n), cross(hip_B, f))
        store3(work, L.BIAS, lane, add(load3(work, L.BIAS, lane), n))
        store3(work, L.BIAS + 3, lane, add(load3(work, L.BIAS + 3, lane), f))
        eliminate(work, rows, lane, L.COLUMN, s1, c1, hip_B, w1, f1, d1)
        eliminate(work, rows, lane, L.COLUMN + 6, s1, c1, hip_B, w2, f2, d2)
        eliminate(work, rows, lane, L.COLUMN + 12, s1, c1, hip_B, w3, f3, d3)
        lever_B = cross(point_B, up_B)
        add_outer(work, lane, scale(beta, lever_B), scale(beta, up_B), lever_B, up_B)
        # the isotropic part of the contact is a point mass
        first = x_rotate(s1, c1, first)
        second = x_rotate_moment(s1, c1, second)
        p = scale(alpha, point_B)
        work[L.MASS * LANES + lane] += alpha
        store3(work, L.FIRST, lane, add(load3(work, L.FIRST, lane), add(first, p)))
        i = L.SECOND * LANES + lane
        work[i] += second[0] + two * hip_B[0] * first[0] + p[0] * point_B[0]
        work[i + LANES] += second[1] + hip_B[0] * first[1] + hip_B[1] * first[0] + p[0] * point_B[1]
        work[i + 2 * LANES] += second[2] + hip_B[0] * first[2] + hip_B[2] * first[0] + p[0] * point_B[2]
        work[i + 3 * LANES] += second[3] + two * hip_B[1] * first[1] + p[1] * point_B[1]
        work[i + 4 * LANES] += second[4] + hip_B[1] * first[2] + hip_B[2] * first[1] + p[1] * point_B[2]
        work[i + 5 * LANES] += second[5] + two * hip_B[2] * first[2] + p[2] * point_B[2]


@inline
def eliminate(work, rows, lane, row, s1, c1, hip_B, w, f, d):
    """Take a joint's column (w, f) of G, turned to the base, off the inertia that the base feels, and keep it times 1 / D."""
    f = x_rotate(s1, c1, f)
    w = add(x_rotate(s1, c1, w), cross(hip_B, f))
    kw, kf = scale(d, w), scale(d, f)
    store3(rows, row, lane, kw)
    store3(rows, row + 3, lane, kf)
    add_outer(work, lane, kw, kf, scale(real(-1.0), w), scale(real(-1.0), f))


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
def base_acceleration(work):
    """Solve for the acceleration of the base, less gravity: I a = -bias."""
    for lane in range(LANES):
        m, c = work[L.MASS * LANES + lane], load3(work, L.FIRST, lane)
        (xx, xy, xz), (yy, yz, zz) = load6(work, L.SECOND, lane)
        (a0, a1, a2), (a3, a4, a5) = load6(work, L.INERTIA, lane)
        (b0, b1, b2), (b3, b4, b5) = load6(work, L.INERTIA + 6, lane)
        b6, b7, b8 = load3(work, L.INERTIA + 12, lane)
        (m0, m1, m2), (m3, m4, m5) = load6(work, L.INERTIA + 15, lane)
        inertia = (
            (a0 + yy + zz, a1 - xy, a2 - xz, a3 + xx + zz, a4 - yz, a5 + xx + yy),
            (b0, b1 - c[2], b2 + c[1], b3 + c[2], b4, b5 - c[0], b6 - c[1], b7 + c[0], b8),
            (m0 + m, m1, m2, m3 + m, m4, m5 + m),
        )
        n, f = load6(work, L.BIAS, lane)
        wd, a = solve_symmetric6(inertia, scale(real(-1.0), n), scale(real(-1.0), f))
        store3(work, L.ACCELERATION, lane, wd)
        store3(work, L.ACCELERATION + 3, lane, a)


@inline
def leg_outward(work, rows, world, leg, contact_force_too):
    """Find the joint accelerations of a leg and step its joints: L^T qdd = D^-1 (L^-1 u - G^T a)."""
    dt, hip_B, rise = world[C.TIMESTEP], constant3(leg, C.HIP), leg[C.RISE]
    for lane in range(LANES):
        wd, a = load6(work, L.ACCELERATION, lane)
        e = load3(rows, L.JOINT_BIAS, lane)
        l12, l13, l23 = load3(rows, L.FACTOR, lane)
        qdd1 = e[0] - dot(load3(rows, L.COLUMN, lane), wd) - dot(load3(rows, L.COLUMN + 3, lane), a)
        qdd2 = e[1] - dot(load3(rows, L.COLUMN + 6, lane), wd) - dot(load3(rows, L.COLUMN + 9, lane), a) - l12 * qdd1
        qdd3 = e[2] - dot(load3(rows, L.COLUMN + 12, lane), wd) - dot(load3(rows, L.COLUMN + 15, lane), a) - l13 * qdd1 - l23 * qdd2
        qd = add(load3(rows, L.JOINT_SPEED, lane), (dt * qdd1, dt * qdd2, dt * qdd3))
        store3(rows, L.JOINT_SPEED, lane, qd)
        store3(rows, L.JOINT, lane, add(load3(rows, L.JOINT, lane), scale(dt, qd)))
        if contact_force_too:
            s1, c1 = rows[L.SINCOS * LANES + lane], rows[(L.SINCOS + 1) * LANES + lane]
            up = x_unrotate(s1, c1, load3(work, L.ROTATION + 6, lane))
            point = load3(rows, L.CONTACT, lane)
            arm_x, arm_z = rows[L.CONTACT_ARM * LANES + lane], rows[(L.CONTACT_ARM + 1) * LANES + lane]
            alpha, beta = rows[L.CONTACT_MATRIX * LANES + lane], rows[(L.CONTACT_MATRIX + 1) * LANES + lane]
            a = add(x_unrotate(s1, c1, add(a, cross(wd, hip_B))), cross(x_unrotate(s1, c1, wd), point))
            turned = qdd2 * (point[2] - rise) + qdd3 * arm_z, -qdd1 * point[2], qdd1 * point[1] - qdd2 * point[0] - qdd3 * arm_x
            force = add(load3(rows, L.CONTACT_FORCE, lane), scale(real(-1.0), implicit_force(alpha, beta, up, add(a, turned))))
            store3(rows, L.FORCE, lane, rotate(load_rotation(work, lane), x_rotate(s1, c1, force)))


@inline
def integrate_base(work, world):
    """Step the base, velocity first: semi-implicit Euler."""
    dt, gravity = world[C.TIMESTEP], world[C.GRAVITY]
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
