"""Vectors, rotations and articulated inertias of one robot, on scalars and small tuples.

A vector is ``(x, y, z)``; a symmetric matrix ``(xx, xy, xz, yy, yz, zz)``; a general matrix nine
numbers row by row. An articulated inertia is the triple ``(A, B, M)`` of

    [n]   [A   B] [w']        n moment at the reference point, f force,
    [f] = [B^T M] [a ]        w' angular, a linear acceleration of the reference point,

with A and M symmetric and B general; for a rigid body ``A = I``, ``B = [m c]x``, ``M = m 1``
(Featherstone, Rigid Body Dynamics Algorithms, 2008, eq. 2.63, in the classical instead of the
spatial acceleration).
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
def cross(a, b):
    """Return a x b for 3-vectors."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inline
def sym_times(s, v):
    """Return S v for a symmetric matrix and a vector."""
    return (
        s[0] * v[0] + s[1] * v[1] + s[2] * v[2],
        s[1] * v[0] + s[3] * v[1] + s[4] * v[2],
        s[2] * v[0] + s[4] * v[1] + s[5] * v[2],
    )


@inline
def sym_add(s, t):
    """Return S + T for symmetric matrices."""
    return s[0] + t[0], s[1] + t[1], s[2] + t[2], s[3] + t[3], s[4] + t[4], s[5] + t[5]


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
    c = real(1.0) - real(0.5) * z + z * z * (real(4.166664568298827e-2) + z * (real(-1.388731625493765e-3) + z * real(2.443315711809948e-5)))
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
def y_rotate(s, c, v):
    """Return R_y v."""
    return c * v[0] + s * v[2], v[1], c * v[2] - s * v[0]


@inline
def x_rotate_sym(s, c, m):
    """Return R_x S R_x^T for a symmetric matrix."""
    yy = c * c * m[3] - (s * c + s * c) * m[4] + s * s * m[5]
    return (
        m[0], c * m[1] - s * m[2], s * m[1] + c * m[2],
        yy, s * c * (m[3] - m[5]) + (c * c - s * s) * m[4], m[3] + m[5] - yy,
    )  # fmt: skip


@inline
def y_rotate_sym(s, c, m):
    """Return R_y S R_y^T for a symmetric matrix."""
    xx = c * c * m[0] + (s * c + s * c) * m[2] + s * s * m[5]
    return (
        xx, c * m[1] + s * m[4], s * c * (m[5] - m[0]) + (c * c - s * s) * m[2],
        m[3], c * m[4] - s * m[1], m[0] + m[5] - xx,
    )  # fmt: skip


@inline
def x_rotate_matrix(s, c, b):
    """Return R_x B R_x^T for a general matrix."""
    t11 = c * b[4] - s * b[7]
    t12 = c * b[5] - s * b[8]
    t21 = s * b[4] + c * b[7]
    t22 = s * b[5] + c * b[8]
    return (
        b[0], c * b[1] - s * b[2], s * b[1] + c * b[2],
        c * b[3] - s * b[6], c * t11 - s * t12, s * t11 + c * t12,
        s * b[3] + c * b[6], c * t21 - s * t22, s * t21 + c * t22,
    )  # fmt: skip


@inline
def x_rotate_inertia(s, c, inertia):
    """Return an articulated inertia turned by R_x."""
    a, b, m = inertia
    return x_rotate_sym(s, c, a), x_rotate_matrix(s, c, b), x_rotate_sym(s, c, m)


@inline
def translate_inertia(inertia, r):
    """Return an articulated inertia about the point from which its own lies at r.

    B' = B + [r]x M,  A' = A - B [r]x - (B' [r]x)^T
    """
    a, b, m = inertia
    x, y, z = r
    c = (
        b[0] + y * m[2] - z * m[1], b[1] + y * m[4] - z * m[3], b[2] + y * m[5] - z * m[4],
        b[3] + z * m[0] - x * m[2], b[4] + z * m[1] - x * m[4], b[5] + z * m[2] - x * m[5],
        b[6] + x * m[1] - y * m[0], b[7] + x * m[3] - y * m[1], b[8] + x * m[4] - y * m[2],
    )  # fmt: skip
    # row i of B [r]x is row i of B cross r
    xx = a[0] - (b[1] * z - b[2] * y) - (c[1] * z - c[2] * y)
    xy = a[1] - (b[2] * x - b[0] * z) - (c[4] * z - c[5] * y)
    xz = a[2] - (b[0] * y - b[1] * x) - (c[7] * z - c[8] * y)
    yy = a[3] - (b[5] * x - b[3] * z) - (c[5] * x - c[3] * z)
    yz = a[4] - (b[3] * y - b[4] * x) - (c[8] * x - c[6] * z)
    zz = a[5] - (b[6] * y - b[7] * x) - (c[6] * y - c[7] * x)
    return (xx, xy, xz, yy, yz, zz), c, m


@inline
def rigid_inertia(mass, mc, i):
    """Return a rigid body as an articulated inertia: mass, mass times com, inertia about the point."""
    zero = real(0.0)
    return i, (zero, -mc[2], mc[1], mc[2], zero, -mc[0], -mc[1], mc[0], zero), (mass, zero, zero, mass, zero, mass)


@inline
def add_rigid(inertia, mass, mc, i):
    """Return an articulated inertia plus a rigid body's."""
    a, b, m = inertia
    return (
        sym_add(a, i),
        (b[0], b[1] - mc[2], b[2] + mc[1], b[3] + mc[2], b[4], b[5] - mc[0], b[6] - mc[1], b[7] + mc[0], b[8]),
        (m[0] + mass, m[1], m[2], m[3] + mass, m[4], m[5] + mass),
    )


@inline
def add_inertia(p, q):
    """Return the sum of two articulated inertias about the same point."""
    b, c = p[1], q[1]
    both = b[0] + c[0], b[1] + c[1], b[2] + c[2], b[3] + c[3], b[4] + c[4], b[5] + c[5], b[6] + c[6], b[7] + c[7], b[8] + c[8]
    return sym_add(p[0], q[0]), both, sym_add(p[2], q[2])


@inline
def remove_axis(inertia, uw, uf, d):
    """Return what of an inertia is felt through a joint: I - U U^T / D, with U = (uw, uf), d = 1 / D."""
    a, b, m = inertia
    kw = scale(d, uw)
    kf = scale(d, uf)
    return (
        (
            a[0] - kw[0] * uw[0], a[1] - kw[0] * uw[1], a[2] - kw[0] * uw[2],
            a[3] - kw[1] * uw[1], a[4] - kw[1] * uw[2], a[5] - kw[2] * uw[2],
        ),
        (
            b[0] - kw[0] * uf[0], b[1] - kw[0] * uf[1], b[2] - kw[0] * uf[2],
            b[3] - kw[1] * uf[0], b[4] - kw[1] * uf[1], b[5] - kw[1] * uf[2],
            b[6] - kw[2] * uf[0], b[7] - kw[2] * uf[1], b[8] - kw[2] * uf[2],
        ),
        (
            m[0] - kf[0] * uf[0], m[1] - kf[0] * uf[1], m[2] - kf[0] * uf[2],
            m[3] - kf[1] * uf[1], m[4] - kf[1] * uf[2], m[5] - kf[2] * uf[2],
        ),
    )  # fmt: skip


@inline
def body_force(mass, mc, i, w, wd, a):
    """Return moment and force (n, f) that move a rigid body as given, at its reference point.

    f = m a + w' x mc + w x (w x mc),  n = I w' + w x (I w) + mc x a   (Newton and Euler)

    mass: [kg]; mc: mass times centre of mass [kg m]; i: inertia about the reference point
    [kg m^2]; w, wd: angular velocity and acceleration; a: acceleration of the reference point.
    """
    f = add(scale(mass, a), add(cross(wd, mc), cross(w, cross(w, mc))))
    n = add(add(sym_times(i, wd), cross(w, sym_times(i, w))), cross(mc, a))
    return n, f


@inline
def solve_symmetric6(inertia, n, f):
    """Return (w', a) with [A B; B^T M] (w', a) = (n, f), by L D L^T."""
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
