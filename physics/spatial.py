"""Vectors, rotations and moments of mass of one robot, on scalars and small tuples.

A vector is ``(x, y, z)``; a symmetric matrix ``(xx, xy, xz, yy, yz, zz)``; a general matrix nine
numbers row by row. Mass is described by its first moment m c and its second moment, the integral
of p p^T dm, about an origin; the inertia tensor is tr(S) 1 - S. Second moments turn and shift with
less arithmetic than inertia tensors.
"""

import numpy as np

from physics.jit import inline, real

DOUBLE = real is np.float64


@inline
def add(a, b):
    """Return a + b for 3-vectors."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@inline
def scale(s, a):
    """Return s a for a 3-vector."""
    return s * a[0], s * a[1], s * a[2]


@inline
def dot(a, b):
    """Return a . b for 3-vectors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inline
def choose(condition, a, b):
    """Return one vector where a condition holds, else another."""
    return a[0] if condition else b[0], a[1] if condition else b[1], a[2] if condition else b[2]


@inline
def cross(a, b):
    """Return a x b for 3-vectors."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inline
def sincos(angle):
    """Return sine and cosine of an angle [rad] with an error below 1e-7 for |angle| < 1e4.

    Range reduction to [-pi/4, pi/4] with pi/2 in three parts that float32 multiplies exactly, then
    the minimax polynomials of the Cephes library (sinf.c).
    """
    quadrant = np.floor(angle * real(0.6366197723675814) + real(0.5))
    x = angle - quadrant * real(1.5703125)
    x = x - quadrant * real(4.837512969970703125e-4)
    x = x - quadrant * real(7.549789954891882e-8)
    z = x * x
    s = x + x * z * (real(-1.6666654611e-1) + z * (real(8.3321608736e-3) + z * real(-1.9515295891e-4)))
    c = (
        real(1.0)
        - real(0.5) * z
        + z * z * (real(4.166664568298827e-2) + z * (real(-1.388731625493765e-3) + z * real(2.443315711809948e-5)))
    )
    # quadrant modulo 4 as 0, 1, 2, 3, kept in floating point
    turn = quadrant - real(4.0) * np.floor(quadrant * real(0.25))
    odd = (turn == real(1.0)) | (turn == real(3.0))
    sine = c if odd else s
    cosine = s if odd else c
    sine = -sine if turn >= real(2.0) else sine
    cosine = -cosine if (turn == real(1.0)) | (turn == real(2.0)) else cosine
    return sine, cosine


@inline
def exp(x):
    """Return e^x, in float32 with a relative error below 2e-7 for x clamped to +-80 (Cephes library, expf.c).

    As the library's function it would be called lane by lane.
    """
    if DOUBLE:
        return np.exp(x)
    x = min(max(x, real(-80.0)), real(80.0))
    n = np.floor(x * real(1.44269504088896341) + real(0.5))
    x = x - n * real(0.693359375)
    x = x + n * real(2.12194440e-4)
    p = real(1.9875691500e-4)
    p = p * x + real(1.3981999507e-3)
    p = p * x + real(8.3334519073e-3)
    p = p * x + real(4.1665795894e-2)
    p = p * x + real(1.6666665459e-1)
    p = p * x + real(5.0000001201e-1)
    p = p * x * x + x + real(1.0)
    # 2^n by its bits
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@inline
def atan2(y, x):
    """Return the angle of (x, y) from the x axis, in [-pi, pi] [rad], with an error below 1e-6; 0 for (0, 0).

    Abramowitz and Stegun 4.4.49 on the smaller of the two over the larger. As the library's function
    it would be called lane by lane.
    """
    ax, ay = abs(x), abs(y)
    t = min(ax, ay) / max(max(ax, ay), real(1e-30))
    z = t * t
    p = real(-0.0161657367) + z * real(0.0028662257)
    p = real(-0.0752896400) + z * (real(0.0429096138) + z * p)
    p = real(-0.1420889944) + z * (real(0.1065626393) + z * p)
    p = real(-0.3333314528) + z * (real(0.1999355085) + z * p)
    angle = t + t * z * p
    angle = real(1.5707963267948966) - angle if ay > ax else angle
    angle = real(3.141592653589793) - angle if x < real(0.0) else angle
    return -angle if y < real(0.0) else angle


@inline
def quaternion_matrix(w, x, y, z):
    """Return the rotation matrix R_WB of a unit quaternion."""
    two = real(2.0)
    one = real(1.0)
    return (
        one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y),
        two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x),
        two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y),
    )  # fmt: skip


@inline
def rotate(r, v):
    """Return R v: base to world."""
    return (
        r[0] * v[0] + r[1] * v[1] + r[2] * v[2],
        r[3] * v[0] + r[4] * v[1] + r[5] * v[2],
        r[6] * v[0] + r[7] * v[1] + r[8] * v[2],
    )


@inline
def unrotate(r, v):
    """Return R^T v: world to base."""
    return (
        r[0] * v[0] + r[3] * v[1] + r[6] * v[2],
        r[1] * v[0] + r[4] * v[1] + r[7] * v[2],
        r[2] * v[0] + r[5] * v[1] + r[8] * v[2],
    )


@inline
def quaternion_step(q, w, dt):
    """Return the unit quaternion after turning for dt [s] at the rate w [rad/s, base frame].

    Exponential map to fourth order in the half angle, then one Newton step back to unit length.
    """
    half = real(0.5) * dt
    x = half * w[0]
    y = half * w[1]
    z = half * w[2]
    t = x * x + y * y + z * z
    s = real(1.0) - t * (real(1.0 / 6.0) - t * real(1.0 / 120.0))
    c = real(1.0) - t * (real(0.5) - t * real(1.0 / 24.0))
    x = x * s
    y = y * s
    z = z * s
    w1 = q[0] * c - q[1] * x - q[2] * y - q[3] * z
    x1 = q[0] * x + q[1] * c + q[2] * z - q[3] * y
    y1 = q[0] * y - q[1] * z + q[2] * c + q[3] * x
    z1 = q[0] * z + q[1] * y - q[2] * x + q[3] * c
    n = real(1.5) - real(0.5) * (w1 * w1 + x1 * x1 + y1 * y1 + z1 * z1)
    return w1 * n, x1 * n, y1 * n, z1 * n


@inline
def x_rotate(s, c, v):
    """Return R_x v, given sine and cosine of the angle."""
    return v[0], c * v[1] - s * v[2], s * v[1] + c * v[2]


@inline
def x_unrotate(s, c, v):
    """Return R_x^T v."""
    return v[0], c * v[1] + s * v[2], c * v[2] - s * v[1]


@inline
def x_rotate_moment(s, c, m):
    """Return R_x S R_x^T for a second moment (or any symmetric matrix)."""
    yy = c * c * m[3] - (s * c + s * c) * m[4] + s * s * m[5]
    return (
        m[0], c * m[1] - s * m[2], s * m[1] + c * m[2],
        yy, s * c * (m[3] - m[5]) + (c * c - s * s) * m[4], m[3] + m[5] - yy,
    )  # fmt: skip


@inline
def y_rotate_moment(s, c, m):
    """Return R_y S R_y^T for a second moment (xx, xy, xz, yz, zz) whose yy is 0."""
    xx = c * c * m[0] + (s * c + s * c) * m[2] + s * s * m[4]
    return (
        xx, c * m[1] + s * m[3], s * c * (m[4] - m[0]) + (c * c - s * s) * m[2],
        c * m[3] - s * m[1], m[0] + m[4] - xx,
    )  # fmt: skip


@inline
def rate_matrix(w, wd):
    """Return G = [w']x + [w]x [w]x: a point of a body accelerates by G p more than its origin.

    w: angular velocity [rad/s]; wd: angular acceleration [rad/s^2]. With G, forces are linear in the
    moments of mass: f = G m c, and the moment is the integral of p x (G p).
    """
    xx, yy, zz = w[0] * w[0], w[1] * w[1], w[2] * w[2]
    xy, xz, yz = w[0] * w[1], w[0] * w[2], w[1] * w[2]
    return (
        -yy - zz, xy - wd[2], xz + wd[1],
        xy + wd[2], -xx - zz, yz - wd[0],
        xz - wd[1], yz + wd[0], -xx - yy,
    )  # fmt: skip


@inline
def in_xz(g, x, z):
    """Return G (x, 0, z)."""
    return g[0] * x + g[2] * z, g[3] * x + g[5] * z, g[6] * x + g[8] * z


@inline
def moment_of_rate(g, s):
    """Return the integral of p x (G p) dm for the second moment S: the antisymmetric part of G S."""
    return (
        g[6] * s[1] + g[7] * s[3] + g[8] * s[4] - g[3] * s[2] - g[4] * s[4] - g[5] * s[5],
        g[0] * s[2] + g[1] * s[4] + g[2] * s[5] - g[6] * s[0] - g[7] * s[1] - g[8] * s[2],
        g[3] * s[0] + g[4] * s[1] + g[5] * s[2] - g[0] * s[1] - g[1] * s[3] - g[2] * s[4],
    )


@inline
def moment_of_rate_x(g, s):
    """Return moment_of_rate() for a second moment (xy, xz, yy, yz, zz) whose xx is 0."""
    return (
        g[6] * s[0] + g[7] * s[2] + g[8] * s[3] - g[3] * s[1] - g[4] * s[3] - g[5] * s[4],
        g[0] * s[1] + g[1] * s[3] + g[2] * s[4] - g[7] * s[0] - g[8] * s[1],
        g[4] * s[0] + g[5] * s[1] - g[0] * s[0] - g[1] * s[2] - g[2] * s[3],
    )


@inline
def moment_of_rate_y(g, s):
    """Return moment_of_rate() for a second moment (xx, xy, xz, yz, zz) whose yy is 0."""
    return (
        g[6] * s[1] + g[8] * s[3] - g[3] * s[2] - g[4] * s[3] - g[5] * s[4],
        g[0] * s[2] + g[1] * s[3] + g[2] * s[4] - g[6] * s[0] - g[7] * s[1] - g[8] * s[2],
        g[3] * s[0] + g[4] * s[1] + g[5] * s[2] - g[0] * s[1] - g[2] * s[3],
    )


@inline
def solve_symmetric6(inertia, n, f):
    """Return (w', a) with [A B; B^T M] (w', a) = (n, f), by L D L^T; inertia: (A, B, M), A and M symmetric."""
    a, b, m = inertia
    a00, a01, a02, a11, a12, a22 = a
    one = real(1.0)
    d0 = one / a00
    l10 = a01 * d0
    l20 = a02 * d0
    l30 = b[0] * d0
    l40 = b[1] * d0
    l50 = b[2] * d0
    d1 = one / (a11 - l10 * a01)
    t21 = a12 - l20 * a01
    t31 = b[3] - l30 * a01
    t41 = b[4] - l40 * a01
    t51 = b[5] - l50 * a01
    l21 = t21 * d1
    l31 = t31 * d1
    l41 = t41 * d1
    l51 = t51 * d1
    d2 = one / (a22 - l20 * a02 - l21 * t21)
    t32 = b[6] - l30 * a02 - l31 * t21
    t42 = b[7] - l40 * a02 - l41 * t21
    t52 = b[8] - l50 * a02 - l51 * t21
    l32 = t32 * d2
    l42 = t42 * d2
    l52 = t52 * d2
    d3 = one / (m[0] - l30 * b[0] - l31 * t31 - l32 * t32)
    t43 = m[1] - l40 * b[0] - l41 * t31 - l42 * t32
    t53 = m[2] - l50 * b[0] - l51 * t31 - l52 * t32
    l43 = t43 * d3
    l53 = t53 * d3
    d4 = one / (m[3] - l40 * b[1] - l41 * t41 - l42 * t42 - l43 * t43)
    t54 = m[4] - l50 * b[1] - l51 * t41 - l52 * t42 - l53 * t43
    l54 = t54 * d4
    d5 = one / (m[5] - l50 * b[2] - l51 * t51 - l52 * t52 - l53 * t53 - l54 * t54)
    y0 = n[0]
    y1 = n[1] - l10 * y0
    y2 = n[2] - l20 * y0 - l21 * y1
    y3 = f[0] - l30 * y0 - l31 * y1 - l32 * y2
    y4 = f[1] - l40 * y0 - l41 * y1 - l42 * y2 - l43 * y3
    y5 = f[2] - l50 * y0 - l51 * y1 - l52 * y2 - l53 * y3 - l54 * y4
    x5 = y5 * d5
    x4 = y4 * d4 - l54 * x5
    x3 = y3 * d3 - l43 * x4 - l53 * x5
    x2 = y2 * d2 - l32 * x3 - l42 * x4 - l52 * x5
    x1 = y1 * d1 - l21 * x2 - l31 * x3 - l41 * x4 - l51 * x5
    x0 = y0 * d0 - l10 * x1 - l20 * x2 - l30 * x3 - l40 * x4 - l50 * x5
    return (x0, x1, x2), (x3, x4, x5)
