"""Rotations as quaternions w x y z in NumPy: (..., 4), with vectors (..., 3), any two of whose shapes broadcast.

A quaternion turns base into world coordinates. Where a unit quaternion is expected, it is not made one.
float32 stays float32.
"""

import numpy as np
from numpy.typing import ArrayLike


def multiply(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return (..., 4) the product a b: turns by b, then by a."""
    aw, ax, ay, az = np.moveaxis(np.asarray(a), -1, 0)
    bw, bx, by, bz = np.moveaxis(np.asarray(b), -1, 0)
    product = (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )
    return np.stack(product, -1)


def from_euler(roll: np.ndarray | float, pitch: np.ndarray | float, yaw: np.ndarray | float) -> np.ndarray:
    """Return (..., 4) the unit quaternion of R_z(yaw) R_y(pitch) R_x(roll); angles: (...) [rad]."""
    # a plain 0 among float32 angles leaves them float32
    half = 0.5 * np.stack(np.broadcast_arrays(roll, pitch, yaw), dtype=np.result_type(roll, pitch, yaw, 0.5))
    (cx, cy, cz) = np.cos(half)
    (sx, sy, sz) = np.sin(half)
    return np.stack(
        (
            cx * cy * cz + sx * sy * sz,
            sx * cy * cz - cx * sy * sz,
            cx * sy * cz + sx * cy * sz,
            cx * cy * sz - sx * sy * cz,
        ),
        -1,
    )


def rotate_vector(q: ArrayLike, v: ArrayLike) -> np.ndarray:
    """Return (..., 3) R v: base to world; q: unit quaternion."""
    q = np.asarray(q)
    v = np.asarray(v)
    w = q[..., :1]
    u = q[..., 1:]
    # R v = v + 2 w (u x v) + 2 u x (u x v)
    t = 2 * np.cross(u, v)
    return v + w * t + np.cross(u, t)


def rotate_inverse(q: ArrayLike, v: ArrayLike) -> np.ndarray:
    """Return (..., 3) R^T v: world to base; q: unit quaternion."""
    q = np.asarray(q)
    return rotate_vector(np.concatenate((-q[..., :1], q[..., 1:]), -1), v)


def similarity(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return (...) |a . b|, the cosine of half the angle between rotations: 1 if the same, 0 half a turn apart.

    a, b: unit quaternions; q and -q are the same rotation. Never above 1, so that its arccos is a number.
    """
    return np.minimum(np.abs((np.asarray(a) * np.asarray(b)).sum(-1)), 1)


def get_yaw(q: ArrayLike) -> np.ndarray:
    """Return (...) the heading in [-pi, pi]: from the world's x axis to the base's, projected onto the ground [rad].

    q: of any length. Where the base's x axis is vertical, the angle means nothing.
    """
    w, x, y, z = np.moveaxis(np.asarray(q), -1, 0)
    return np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)
