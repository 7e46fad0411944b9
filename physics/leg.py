"""A leg of one robot: where it is, how it moves, what mass it has, in the frame of its hip link (H).

Frames and masses are those of physics/constants.py: the thigh's origin is straight above the hip's
(rise), the knee straight below the thigh's in the thigh's frame, the foot straight below the knee in
the calf's but for foot_side; links have no mass but first and second moments, some of them zero.
Angular velocities w and accelerations, velocities v and accelerations a of link origins are numbered
1 hip, 2 thigh, 3 calf. Accelerations are those that velocities alone cause.
"""

from physics import constants as C
from physics.jit import inline, real
from physics.spatial import (
    add,
    cross,
    in_xz,
    moment_of_rate_x,
    moment_of_rate_y,
    rate_matrix,
    rotate,
    scale,
    sincos,
    x_unrotate,
    y_rotate_moment,
)


@inline
def constant3(constants, i):
    """Return three consecutive constants."""
    return constants[i], constants[i + 1], constants[i + 2]


@inline
def geometry(leg):
    """Return hip in the base frame (3), and rise, thigh length, calf length, foot side, thigh turn, calf turn."""
    shape = leg[C.RISE], leg[C.THIGH_LENGTH], leg[C.CALF_LENGTH], leg[C.FOOT_SIDE], leg[C.THIGH_TURN], leg[C.CALF_TURN]
    return constant3(leg, C.HIP), shape


@inline
def link(leg, i):
    """Return the moments of a link: first (2), second (5), whose components physics/constants.py names."""
    return (leg[i], leg[i + 1]), (leg[i + 2], leg[i + 3], leg[i + 4], leg[i + 5], leg[i + 6])


@inline
def scaled(factor, moments):
    """Return the moments of a link of another mass."""
    (a, b), (xx, xy, xz, yz, zz) = moments
    return (factor * a, factor * b), (factor * xx, factor * xy, factor * xz, factor * yz, factor * zz)


@inline
def pose(q, shape):
    """Return sines and cosines of hip, thigh and calf, and where knee and foot are.

    The knee is given from the thigh's origin and the foot from the knee, x and z of both [m].
    """
    _, thigh_length, calf_length, _, thigh_turn, calf_turn = shape
    sc1, sc2, sc3 = sincos(q[0]), sincos(q[1] + thigh_turn), sincos(q[1] + q[2] + calf_turn)
    return (
        (sc1, sc2, sc3),
        (-thigh_length * sc2[0], -thigh_length * sc2[1]),
        (-calf_length * sc3[0], -calf_length * sc3[1]),
    )


@inline
def foot_in_hip(shape, knee, foot):
    """Return the foot's centre from the hip's origin [m]."""
    return knee[0] + foot[0], shape[3], shape[0] + knee[1] + foot[1]


@inline
def motion(spin_B, velocity_B, hip_B, qd, sc1, rise, knee):
    """Return (w1, w2, w3), (v2, v3), rate matrices (g1, g2, g3) and (a1, a2, a3) of hip, thigh and calf."""
    s1, c1 = sc1
    rx, rz = knee
    zero = real(0.0)
    w0 = x_unrotate(s1, c1, spin_B)
    w1 = w0[0] + qd[0], w0[1], w0[2]
    w2 = w1[0], w1[1] + qd[1], w1[2]
    w3 = w1[0], w2[1] + qd[2], w1[2]
    swept_B = cross(spin_B, hip_B)
    v1 = x_unrotate(s1, c1, add(velocity_B, swept_B))
    v2 = v1[0] + w1[1] * rise, v1[1] - w1[0] * rise, v1[2]
    v3 = v2[0] + w2[1] * rz, v2[1] + w1[2] * rx - w1[0] * rz, v2[2] - w2[1] * rx
    # w' = w0 x (qd1, 0, 0) + w1 x (0, qd2, 0) + w2 x (0, qd3, 0)
    wd = zero, w0[2] * qd[0], -w0[1] * qd[0]
    both = qd[1] + qd[2]
    g1 = rate_matrix(w1, wd)
    g2 = rate_matrix(w2, (-w1[2] * qd[1], wd[1], wd[2] + w1[0] * qd[1]))
    g3 = rate_matrix(w3, (-w1[2] * both, wd[1], wd[2] + w1[0] * both))
    a1 = x_unrotate(s1, c1, cross(spin_B, swept_B))
    a2 = add(a1, in_xz(g1, zero, rise))
    a3 = add(a2, in_xz(g2, rx, rz))
    return (w1, w2, w3), (v2, v3), (g1, g2, g3), (a1, a2, a3)


@inline
def moments(links, scs, rise, knee):
    """Return the links' moments in H, and those of thigh with calf about the thigh's origin and of all about the hip's.

    Per link and for thigh with calf: first (x, z), second (xx, xy, xz, yz, zz); of all: first (3), second (6).
    """
    (y1, z1), hip = links[0]
    (f2, second2), (f3, second3) = links[1], links[2]
    (s2, c2), (s3, c3) = scs[1], scs[2]
    rx, rz = knee
    two = real(2.0)
    x2, z2 = c2 * f2[0] + s2 * f2[1], c2 * f2[1] - s2 * f2[0]
    x3, z3 = c3 * f3[0] + s3 * f3[1], c3 * f3[1] - s3 * f3[0]
    second2, second3 = y_rotate_moment(s2, c2, second2), y_rotate_moment(s3, c3, second3)
    x23, z23 = x2 + x3, z2 + z3
    # S about another origin, at r: S + r f^T + f r^T, for what has no mass but a first moment f
    second23 = (
        second2[0] + second3[0] + two * rx * x3, second2[1] + second3[1], second2[2] + second3[2] + rx * z3 + rz * x3,
        second2[3] + second3[3], second2[4] + second3[4] + two * rz * z3,
    )  # fmt: skip
    second = (
        second23[0], hip[0] + second23[1], hip[1] + second23[2] + rise * x23,
        hip[2], hip[3] + second23[3], hip[4] + second23[4] + two * rise * z23,
    )  # fmt: skip
    thigh, calf, both = ((x2, z2), second2), ((x3, z3), second3), ((x23, z23), second23)
    return (links[0], thigh, calf), both, ((x23, y1, z1 + z23), second)


@inline
def calf_bias(link_, g, a):
    """Return moment about the knee and force that the calf's velocities ask for: n = int p x (G p) + f x a, f = G f."""
    (x, z), second = link_
    n = moment_of_rate_y(g, second)
    return (n[0] - z * a[1], n[1] + z * a[0] - x * a[2], n[2] + x * a[1]), in_xz(g, x, z)


@inline
def thigh_bias(link_, g, a, knee, n, f):
    """Return moment about the thigh's origin and force of thigh and calf, given the calf's about the knee."""
    m, push = calf_bias(link_, g, a)
    rx, rz = knee
    return (n[0] + m[0] - rz * f[1], n[1] + m[1] + rz * f[0] - rx * f[2], n[2] + m[2] + rx * f[1]), add(f, push)


@inline
def hip_bias(link_, g, a, rise, n, f):
    """Return moment about the hip's origin and force of the leg, given those of thigh and calf about the thigh's."""
    (y, z), second = link_
    m = moment_of_rate_x(g, second)
    n = n[0] + m[0] - rise * f[1] + y * a[2] - z * a[1], n[1] + m[1] + rise * f[0] + z * a[0], n[2] + m[2] - y * a[0]
    return n, (f[0] + g[1] * y + g[2] * z, f[1] + g[4] * y + g[5] * z, f[2] + g[7] * y + g[8] * z)


@inline
def inertia(calf, both, whole, knee, rise):
    """Return H as h11, h12, h13, h22, h23, h33, and the columns of F.

    F: moment about the hip and force per acceleration of a joint.
    """
    (x3, z3), second3 = calf
    (x23, z23), second23 = both
    first, second = whole
    rx, rz = knee
    along1, along2, along3 = second[3] + second[5], second23[0] + second23[4], second3[0] + second3[4]
    across = along3 + rz * z3 + rx * x3
    column1 = (along1, -second[1], -second[2]), (real(0.0), -first[2], first[1])
    column2 = (-second23[1], along2 + rise * z23, -second23[3]), (z23, real(0.0), -x23)
    column3 = (-second3[1], across + rise * z3, -second3[3]), (z3, real(0.0), -x3)
    return (along1, -second23[1], -second3[1], along2, across, along3), (column1, column2, column3)


@inline
def push_column(column, point, k):
    """Return a column of F plus the force k at a point from the hip."""
    n, f = column
    return add(n, cross(point, k)), add(f, k)


@inline
def point_motion(v, w, a, g, arm):
    """Return velocity and velocity-caused acceleration of a point of a link, given those of its origin."""
    return add(v, cross(w, arm)), add(a, rotate(g, arm))


@inline
def lowered(p, radius, normal):
    """Return the point of a sphere about p that is nearest to the ground."""
    return add(p, scale(-radius, normal))
