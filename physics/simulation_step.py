"""The equations of motion of a block of robots, one substep at a time.

A floating base with four legs of three joints: the mass matrix is a base block, a 3 x 3 block H per
leg and the coupling F (6 x 3) between them (Featherstone, 2008, ch. 6), so that each leg's joints are
eliminated on their own, H = L D L^T, and 6 x 6 equations remain for the base. Accelerations are
classical, of link origins; those that velocities alone cause are found first, and what is left to
solve for is linear. Gravity enters as an upward acceleration of the base.
"""

import numpy as np

from physics import constants as C
from physics import layout as L
from physics.actuator import drive_constants, joint_torque, rest_motors
from physics.base import (
    add_bias,
    add_contact,
    add_moments,
    add_outer,
    base_acceleration,
    base_kinematics,
    integrate_base,
    load_rotation,
    recentre,
    trunk_contact,
)
from physics.contact import (
    contact_force,
    contact_law,
    find_patch,
    implicit_force,
    look_up,
    look_up_grip,
    own_law,
    per_metre,
    surface,
)
from physics.jit import LANES, call, inline, kernel, real, stage
from physics.layout import load3, load6, store3, vary
from physics.leg import (
    calf_bias,
    constant3,
    foot_in_hip,
    geometry,
    hip_bias,
    inertia,
    link,
    lowered,
    moments,
    motion,
    point_motion,
    pose,
    push_column,
    scaled,
    thigh_bias,
)
from physics.mend import mend
from physics.robot import EDGED
from physics.spatial import add, choose, cross, dot, rotate, scale, x_rotate, x_rotate_moment, x_unrotate


@inline
def substep(work, model, contact_force_too):
    """Advance the block in a work buffer by one time step."""
    legs = model.legs
    base_kinematics(work, model.base, model.varied_blocks)
    for leg in range(len(legs)):
        rows = L.leg_rows(work, leg)
        leg_ground(work, rows, legs[leg], model.terrain, model.body)
        leg_inward(work, rows, legs[leg], model)
    trunk_contact(work, model.world, model.base, model.terrain, model.body, model.varied_blocks)
    base_acceleration(work)
    for leg in range(len(legs)):
        leg_outward(work, L.leg_rows(work, leg), model.world, legs[leg], model.terrain, contact_force_too)
    integrate_base(work, model.world, model.varied_blocks)
    rest_motors(model.motors, work, model.world[C.TIMESTEP])


@inline
def leg_ground(work, rows, leg, terrain, body):
    """Look up the terrain under the foot and, if they can touch, the knee and the calf of a leg."""
    if terrain is not None:
        heights, (whole, _), grip = terrain
        cells = per_metre(terrain)
        hip_B, shape = geometry(leg)
        knee_side = leg[C.KNEE_SIDE]
        for lane in range(LANES):
            ((s1, c1), _, _), knee, foot = pose(load3(rows, L.JOINT, lane), shape)
            find_patch(whole, cells, work, L.PATCH, lane, add(hip_B, x_rotate(s1, c1, foot_in_hip(shape, knee, foot))))
            if body is not None:
                find_patch(
                    whole,
                    cells,
                    work,
                    L.KNEE_PATCH,
                    lane,
                    add(hip_B, x_rotate(s1, c1, (knee[0], knee_side, shape[0] + knee[1]))),
                )
                for k in range(2):
                    from_knee = along_calf(shape, knee_side, foot, real(EDGED[k]))
                    at = knee[0] + from_knee[0], from_knee[1], shape[0] + knee[1] + from_knee[2]
                    find_patch(whole, cells, work, L.CALF_PATCHES + 6 * k, lane, add(hip_B, x_rotate(s1, c1, at)))
        look_up_grip(grip, np.uint32(whole[0]), work, L.PATCH)  # the whole leg's is the foot's
        look_up(heights, np.uint32(whole[0]), work, L.PATCH)
        if body is not None:
            for patch in (L.KNEE_PATCH, L.CALF_PATCHES, L.CALF_PATCHES + 6):
                look_up(heights, np.uint32(whole[0]), work, patch)


@inline
def along_calf(shape, knee_side, foot, share):
    """Return a point that is a share of the way from the knee to the foot, from the knee's origin [m]."""
    return share * foot[0], knee_side + share * (shape[3] - knee_side), share * foot[1]


@inline
def calf_contact(centre, from_knee, radius, gap, normal, rise, moves, contact, dt, g_up):
    """Return what a sphere of the calf does that may touch the ground.

    Its point and the same from the knee's origin; contact_force(), the force less what the joints' and the base's
    present motion takes off it; how the point answers unit accelerations of the joints, and what force answers those.

    centre, from_knee: (3) from the hip's and the knee's origin [m]; gap: of its surface [m]; moves: v, w, a, g of the
    calf, see motion().
    """
    point, arm = lowered(centre, radius, normal), lowered(from_knee, radius, normal)
    velocity, coriolis = point_motion(*moves, arm)
    force, alpha, beta = contact_force(gap, normal, velocity, contact, dt)
    force = add(force, scale(real(-1.0), implicit_force(alpha, beta, normal, add(coriolis, g_up))))
    j1, j2, j3 = (
        (real(0.0), -point[2], point[1]),
        (point[2] - rise, real(0.0), -point[0]),
        (arm[2], real(0.0), -arm[0]),
    )
    k1, k2, k3 = (
        implicit_force(alpha, beta, normal, j1),
        implicit_force(alpha, beta, normal, j2),
        implicit_force(alpha, beta, normal, j3),
    )
    return point, arm, (force, alpha, beta), (j1, j2, j3), (k1, k2, k3)


@inline
def add_to_leg(inertia, columns, point, j, k):
    """Return the inertia of a leg's joints and their coupling to the base with a contact's."""
    (h11, h12, h13, h22, h23, h33), (column1, column2, column3) = inertia, columns
    (j1, j2, j3), (k1, k2, k3) = j, k
    return (
        (h11 + dot(j1, k1), h12 + dot(j1, k2), h13 + dot(j1, k3))
        + (h22 + dot(j2, k2), h23 + dot(j2, k3), h33 + dot(j3, k3)),
        (push_column(column1, point, k1), push_column(column2, point, k2), push_column(column3, point, k3)),
    )


@inline
def leg_inward(work, rows, leg, model):
    """Eliminate the joints of a leg, and add to the base's inertia and bias what it feels of the leg.

    Vectors are in the frame of the hip link (H) unless they end in _B.
    """
    world, varied, body, terrain = model.world, model.varied_blocks, model.body, model.terrain
    dt, gravity, law, cells = world[C.TIMESTEP], world[C.GRAVITY], contact_law(world), per_metre(model.terrain)
    drive = drive_constants(world, model.motors)
    hip_B, shape = geometry(leg)
    rise, radius, knee_side, knee_radius = leg[C.RISE], leg[C.FOOT_RADIUS], leg[C.KNEE_SIDE], leg[C.KNEE_RADIUS]
    hip_link, thigh_link, calf_link = link(leg, C.HIP_LINK), link(leg, C.THIGH_LINK), link(leg, C.CALF_LINK)
    damping, armature, friction = constant3(leg, C.DAMPING), constant3(leg, C.ARMATURE), constant3(leg, C.FRICTION)
    limit, low, high = constant3(leg, C.TORQUE_LIMIT), constant3(leg, C.LOW), constant3(leg, C.HIGH)
    kp, kd = constant3(leg, C.KP), constant3(leg, C.KD)
    one = real(1.0)
    two = real(2.0)
    for lane in range(LANES):
        # Where the links are, how they move
        q, qd = load3(rows, L.JOINT, lane), load3(rows, L.JOINT_SPEED, lane)
        scs, knee, foot = pose(q, shape)
        s1, c1 = scs[0]
        w, v, g, a = motion(load3(work, L.SPIN, lane), load3(work, L.VELOCITY_B, lane), hip_B, qd, scs[0], rise, knee)

        # The foot on the ground: force, and (alpha 1 + beta n n^T) j that answers unit accelerations j of the joints
        contact = own_law(varied, terrain, work, lane, law)
        up = x_unrotate(s1, c1, load3(work, L.ROTATION + 6, lane))
        g_up = scale(-vary(varied, work, L.VARIED_BASE + L.V_GRAVITY, lane, gravity), up)
        centre = foot_in_hip(shape, knee, foot)
        centre_B = add(hip_B, x_rotate(s1, c1, centre))
        gap, normal_B = surface(terrain, cells, work, L.PATCH, lane, centre_B)
        normal = x_unrotate(s1, c1, normal_B)
        moves = v[1], w[2], a[2], g[2]
        from_knee = foot[0], shape[3], foot[1]
        point, arm, (force, alpha, beta), j, k = calf_contact(
            centre, from_knee, radius, gap - radius, normal, rise, moves, contact, dt, g_up
        )
        add_contact(work, lane, lowered(centre_B, radius, normal_B), normal_B, alpha, beta)
        rows[L.SINCOS * LANES + lane] = s1
        rows[(L.SINCOS + 1) * LANES + lane] = c1
        store3(rows, L.CONTACT, lane, point)
        rows[L.CONTACT_ARM * LANES + lane] = arm[0]
        rows[(L.CONTACT_ARM + 1) * LANES + lane] = arm[2]
        store3(rows, L.CONTACT_FORCE, lane, force)
        rows[L.CONTACT_MATRIX * LANES + lane] = alpha
        rows[(L.CONTACT_MATRIX + 1) * LANES + lane] = beta
        store_normal(terrain, rows, lane, normal)

        # Bias: moments and forces that velocities and contact ask for; the joints' inertia and coupling to the base
        links = own_links(varied, work, lane, hip_link, thigh_link, calf_link)
        (hip, thigh, calf), both, whole = moments(links, scs, rise, knee)
        of_joints, columns = inertia(calf, both, whole, knee, rise)
        of_joints, columns = add_to_leg(of_joints, columns, point, j, k)
        n, f = calf_bias(calf, g[2], a[2])
        n, f = add(n, scale(-one, cross(arm, force))), add(f, scale(-one, force))
        # An edge, unlike a plane, meets a leg between knee and foot: the lower of two points
        if body is not None:  # noqa: SIM102  Numba leaves code out by one condition, not by two
            if terrain is not None:
                upper = along_calf(shape, knee_side, foot, real(EDGED[0]))
                lower = along_calf(shape, knee_side, foot, real(EDGED[1]))
                knee_B = add(hip_B, x_rotate(s1, c1, (knee[0], real(0.0), rise + knee[1])))
                upper_gap, upper_normal = surface(
                    terrain, cells, work, L.CALF_PATCHES, lane, add(knee_B, x_rotate(s1, c1, upper))
                )
                gap, normal_B = surface(
                    terrain, cells, work, L.CALF_PATCHES + 6, lane, add(knee_B, x_rotate(s1, c1, lower))
                )
                above = upper_gap < gap
                gap, normal_B = min(upper_gap, gap), choose(above, upper_normal, normal_B)
                from_knee = choose(above, upper, lower)
                normal = x_unrotate(s1, c1, normal_B)
                centre = knee[0] + from_knee[0], from_knee[1], rise + knee[1] + from_knee[2]
                point, arm, (force, alpha, beta), j, k = calf_contact(
                    centre, from_knee, knee_radius, gap - knee_radius, normal, rise, moves, contact, dt, g_up
                )
                n, f = add(n, scale(-one, cross(arm, force))), add(f, scale(-one, force))
                of_joints, columns = add_to_leg(of_joints, columns, point, j, k)
                add_contact(work, lane, add(hip_B, x_rotate(s1, c1, point)), normal_B, alpha, beta)
        (h11, h12, h13, h22, h23, h33), (column1, column2, column3) = of_joints, columns
        n3 = n[1]
        n, f = thigh_bias(thigh, g[1], a[1], knee, n, f)
        if body is not None:
            knee_centre = knee[0], knee_side, rise + knee[1]
            knee_B = add(hip_B, x_rotate(s1, c1, knee_centre))
            gap, normal_B = surface(terrain, cells, work, L.KNEE_PATCH, lane, knee_B)
            normal = x_unrotate(s1, c1, normal_B)
            point, arm = (
                lowered(knee_centre, knee_radius, normal),
                lowered((knee[0], knee_side, knee[1]), knee_radius, normal),
            )
            velocity, coriolis = point_motion(v[0], w[1], a[1], g[1], arm)
            force, alpha, beta = contact_force(gap - knee_radius, normal, velocity, contact, dt)
            force = add(force, scale(-one, implicit_force(alpha, beta, normal, add(coriolis, g_up))))
            n, f = add(n, scale(-one, cross(arm, force))), add(f, scale(-one, force))
            j1, j2 = (real(0.0), -point[2], point[1]), (arm[2], real(0.0), -arm[0])
            k1, k2 = implicit_force(alpha, beta, normal, j1), implicit_force(alpha, beta, normal, j2)
            h11, h12, h22 = h11 + dot(j1, k1), h12 + dot(j1, k2), h22 + dot(j2, k2)
            column1, column2 = push_column(column1, point, k1), push_column(column2, point, k2)
            add_contact(work, lane, lowered(knee_B, knee_radius, normal_B), normal_B, alpha, beta)
        n2 = n[1]
        n, f = hip_bias(hip, g[0], a[0], rise, n, f)

        # Joint torques
        blocks, own = model.motor_blocks, model.joints_differ
        t1, d1, m1 = joint_torque(
            blocks,
            varied,
            own,
            work,
            rows,
            lane,
            0,
            q[0],
            qd[0],
            drive,
            (kp[0], kd[0]),
            (limit[0], low[0], high[0]),
            damping[0],
            friction[0],
        )
        t2, d2, m2 = joint_torque(
            blocks,
            varied,
            own,
            work,
            rows,
            lane,
            1,
            q[1],
            qd[1],
            drive,
            (kp[1], kd[1]),
            (limit[1], low[1], high[1]),
            damping[1],
            friction[1],
        )
        t3, d3, m3 = joint_torque(
            blocks,
            varied,
            own,
            work,
            rows,
            lane,
            2,
            q[2],
            qd[2],
            drive,
            (kp[2], kd[2]),
            (limit[2], low[2], high[2]),
            damping[2],
            friction[2],
        )

        # Elimination of the joints, calf first: H = L D L^T, L G^T = F^T; d: one over D
        h11, h22, h33 = (
            steady(h11 + armature[0] + dt * d1, m1),
            steady(h22 + armature[1] + dt * d2, m2),
            steady(h33 + armature[2] + dt * d3, m3),
        )
        u1, u2, u3 = t1 - n[0], t2 - n2, t3 - n3
        d3 = one / h33
        l23, l13 = h23 * d3, h13 * d3
        d2 = one / (h22 - l23 * h23)
        h12 = h12 - l13 * h23
        l12 = h12 * d2
        d1 = one / (h11 - l13 * h13 - l12 * h12)
        column2 = less(column2, l23, column3)
        column1 = less(less(column1, l13, column3), l12, column2)
        u2 = u2 - l23 * u3
        u1 = u1 - l13 * u3 - l12 * u2
        store3(rows, L.JOINT_BIAS, lane, (d1 * u1, d2 * u2, d3 * u3))
        store3(rows, L.FACTOR, lane, (l12, l13, l23))

        # What the base feels, in its own frame: bias + F H^-1 u, and inertia - F H^-1 F^T
        n, f = less(less(less((n, f), -d1 * u1, column1), -d2 * u2, column2), -d3 * u3, column3)
        f = x_rotate(s1, c1, f)
        add_bias(work, lane, add(x_rotate(s1, c1, n), cross(hip_B, f)), f)
        eliminate(work, rows, lane, L.COLUMN, scs[0], hip_B, column1, d1)
        eliminate(work, rows, lane, L.COLUMN + 6, scs[0], hip_B, column2, d2)
        eliminate(work, rows, lane, L.COLUMN + 12, scs[0], hip_B, column3, d3)
        first, second = x_rotate(s1, c1, whole[0]), x_rotate_moment(s1, c1, whole[1])
        second = (
            second[0] + two * hip_B[0] * first[0], second[1] + hip_B[0] * first[1] + hip_B[1] * first[0],
            second[2] + hip_B[0] * first[2] + hip_B[2] * first[0], second[3] + two * hip_B[1] * first[1],
            second[4] + hip_B[1] * first[2] + hip_B[2] * first[1], second[5] + two * hip_B[2] * first[2],
        )  # fmt: skip
        add_moments(work, lane, real(0.0), first, second)


EXPLICIT = 0.22  # of a joint's inertia, up to which its motor's law is explicit


@inline
def steady(inertia, needed):
    """Return the inertia of a joint with what makes its motor's PD law stable, where that is short of it [kg m^2].

    Explicit, the law needs H - diag(needed) to be positive definite, or links of little inertia shake for ever. Added
    is what is needed beyond 0.22 of the diagonal of H, and where that is much all of it, for the coupling of joints
    among themselves and with the base leaves little of H: the law is then partly implicit. Where needed is below that
    nothing is added, for it makes a trot less exact (Go1, 2.5 ms: 0.9 % explicit, 1.1 % half implicit).
    """
    beyond = max(needed - real(EXPLICIT) * inertia, real(0.0))
    return inertia + beyond + real(EXPLICIT) * min(beyond, inertia)


@inline
def own_links(varied, work, lane, hip, thigh, calf):
    """Return the links' moments, a robot's own where robots differ."""
    if varied is None:
        return hip, thigh, calf
    factor = work[(L.VARIED_BASE + L.V_LINK_MASS) * LANES + lane]
    return scaled(factor, hip), scaled(factor, thigh), scaled(factor, calf)


@inline
def store_normal(terrain, rows, lane, normal):
    """Keep the normal under a foot, where it is not simply up."""
    if terrain is not None:
        store3(rows, L.NORMAL, lane, normal)


@inline
def load_normal(terrain, work, rows, lane, s1, c1):
    """Return the normal under a foot, hip frame."""
    if terrain is None:
        return x_unrotate(s1, c1, load3(work, L.ROTATION + 6, lane))
    return load3(rows, L.NORMAL, lane)


@inline
def less(column, factor, other):
    """Return column - factor * other."""
    return add(column[0], scale(-factor, other[0])), add(column[1], scale(-factor, other[1]))


@inline
def eliminate(work, rows, lane, row, sc1, hip_B, column, d):
    """Take a joint's column of G, turned to the base, off the inertia that the base feels, and keep it times 1 / D."""
    s1, c1 = sc1
    f = x_rotate(s1, c1, column[1])
    w = add(x_rotate(s1, c1, column[0]), cross(hip_B, f))
    kw, kf = scale(d, w), scale(d, f)
    store3(rows, row, lane, kw)
    store3(rows, row + 3, lane, kf)
    add_outer(work, lane, kw, kf, scale(real(-1.0), w), scale(real(-1.0), f))


@inline
def leg_outward(work, rows, world, leg, terrain, contact_force_too):
    """Find the joint accelerations of a leg and step its joints: L^T qdd = D^-1 (L^-1 u - G^T a)."""
    dt, hip_B, rise = world[C.TIMESTEP], constant3(leg, C.HIP), leg[C.RISE]
    for lane in range(LANES):
        wd, a = load6(work, L.ACCELERATION, lane)
        e = load3(rows, L.JOINT_BIAS, lane)
        l12, l13, l23 = load3(rows, L.FACTOR, lane)
        qdd1 = e[0] - dot(load3(rows, L.COLUMN, lane), wd) - dot(load3(rows, L.COLUMN + 3, lane), a)
        qdd2 = e[1] - dot(load3(rows, L.COLUMN + 6, lane), wd) - dot(load3(rows, L.COLUMN + 9, lane), a) - l12 * qdd1
        qdd3 = (
            e[2]
            - dot(load3(rows, L.COLUMN + 12, lane), wd)
            - dot(load3(rows, L.COLUMN + 15, lane), a)
            - l13 * qdd1
            - l23 * qdd2
        )
        qd = add(load3(rows, L.JOINT_SPEED, lane), (dt * qdd1, dt * qdd2, dt * qdd3))
        store3(rows, L.JOINT_SPEED, lane, qd)
        store3(rows, L.JOINT, lane, add(load3(rows, L.JOINT, lane), scale(dt, qd)))
        if contact_force_too:
            s1, c1 = rows[L.SINCOS * LANES + lane], rows[(L.SINCOS + 1) * LANES + lane]
            normal = load_normal(terrain, work, rows, lane, s1, c1)
            point = load3(rows, L.CONTACT, lane)
            arm_x, arm_z = rows[L.CONTACT_ARM * LANES + lane], rows[(L.CONTACT_ARM + 1) * LANES + lane]
            alpha, beta = rows[L.CONTACT_MATRIX * LANES + lane], rows[(L.CONTACT_MATRIX + 1) * LANES + lane]
            a = add(x_unrotate(s1, c1, add(a, cross(wd, hip_B))), cross(x_unrotate(s1, c1, wd), point))
            turned = (
                qdd2 * (point[2] - rise) + qdd3 * arm_z,
                -qdd1 * point[2],
                qdd1 * point[1] - qdd2 * point[0] - qdd3 * arm_x,
            )
            force = add(
                load3(rows, L.CONTACT_FORCE, lane),
                scale(real(-1.0), implicit_force(alpha, beta, normal, add(a, turned))),
            )
            store3(rows, L.FORCE, lane, rotate(load_rotation(work, lane), x_rotate(s1, c1, force)))


@stage
def advance(work, model, substeps):
    """Take the block in a work buffer through a number of time steps; contact forces are those of the last."""
    for s in range(substeps):
        substep(work, model, s == substeps - 1)


@kernel
def simulation_step(blocks, start, stop, work, model, advance_address, substeps):
    """Advance the robots of blocks[start:stop] by a number of time steps, with nothing but physics.

    blocks: (blocks, rows * LANES) state; work: (WORK_ROWS * LANES) scratch of this thread; model: Model.
    """
    for b in range(start, stop):
        L.enter(blocks, model, b, work)
        call(advance_address, work, model, substeps)
        mend(work, model)
        for lane in range(LANES):
            recentre(work, lane, 0)
            recentre(work, lane, 1)
        L.leave(work, blocks, model, b)
