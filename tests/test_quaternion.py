"""Quaternions in NumPy against MuJoCo, rotation matrices and arithmetic done by hand."""

import mujoco
import numpy as np
import pytest

from physics import spatial
from physics.jit import kernel
from physics.quaternion import from_euler, get_yaw, multiply, rotate_inverse, rotate_vector, similarity

N = 200
IDENTITY = np.array([1.0, 0, 0, 0])
S = np.sqrt(0.5)


def unit(seed, n=N):
    q = np.random.default_rng(seed).normal(size=(n, 4))
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def vectors(seed, n=N):
    return np.random.default_rng(seed).normal(size=(n, 3))


def by_mujoco(function, size, *rows):
    """Return (N, size) what one of MuJoCo's functions makes of every row of its arguments."""
    results = []
    for row in zip(*rows, strict=True):
        results.append(np.zeros(size))
        function(results[-1], *row)
    return np.array(results)


def matrices(q):
    """Return (N, 3, 3) rotation matrices."""
    return by_mujoco(mujoco.mju_quat2Mat, 9, q).reshape(-1, 3, 3)


def axis_matrix(axis, angle):
    """Return the matrix of a turn about x, y or z, written out."""
    s = np.sin(angle)
    c = np.cos(angle)
    return np.array(
        {
            "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
    )


def test_units_multiply_as_hamilton_s():
    one, i, j, k = np.eye(4)
    for a, b, product in (
        (i, j, k), (j, k, i), (k, i, j), (j, i, -k), (i, i, -one), (j, j, -one), (k, k, -one), (one, k, k), (k, one, k),
    ):  # fmt: skip
        np.testing.assert_array_equal(multiply(a, b), product)


def test_product_is_mujoco_s():
    a = unit(1)
    b = unit(2)
    np.testing.assert_allclose(multiply(a, b), by_mujoco(mujoco.mju_mulQuat, 4, a, b), atol=1e-15)
    np.testing.assert_allclose(matrices(multiply(a, b)), matrices(a) @ matrices(b), atol=1e-14)


def test_vectors_turn_as_mujoco_s_and_as_by_the_matrix():
    q = unit(3)
    v = vectors(4)
    np.testing.assert_allclose(rotate_vector(q, v), by_mujoco(mujoco.mju_rotVecQuat, 3, v, q), atol=1e-14)
    np.testing.assert_allclose(rotate_vector(q, v), np.einsum("nij,nj->ni", matrices(q), v), atol=1e-14)
    np.testing.assert_allclose(rotate_inverse(q, v), np.einsum("nji,nj->ni", matrices(q), v), atol=1e-14)
    np.testing.assert_allclose(rotate_inverse(q, rotate_vector(q, v)), v, atol=1e-14)


def test_a_quarter_turn_left_takes_forward_to_left():
    left = [S, 0, 0, S]
    np.testing.assert_allclose(rotate_vector(left, [1.0, 0, 0]), [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(rotate_inverse(left, [1.0, 0, 0]), [0, -1, 0], atol=1e-15)


@kernel
def by_kernel(q, v):
    r = spatial.quaternion_matrix(q[0], q[1], q[2], q[3])
    return spatial.rotate(r, v), spatial.unrotate(r, v)


def test_vectors_turn_as_in_the_kernels():
    q = unit(5).astype(np.float32)
    v = vectors(6).astype(np.float32)
    there, back = np.array([by_kernel(*row) for row in zip(q, v, strict=True)]).swapaxes(0, 1)
    np.testing.assert_allclose(rotate_vector(q, v), there, atol=2e-6)
    np.testing.assert_allclose(rotate_inverse(q, v), back, atol=2e-6)


def test_euler_angles_are_mujoco_s_and_turn_by_roll_first():
    angles = np.random.default_rng(7).uniform(-np.pi, np.pi, (N, 3))
    q = from_euler(*angles.T)
    # lower case: about the axes of the turned frame
    theirs = by_mujoco(lambda result, row: mujoco.mju_euler2Quat(result, row, "zyx"), 4, angles[:, ::-1].copy())
    np.testing.assert_allclose(similarity(q, theirs), 1, atol=1e-14)
    by_hand = [axis_matrix("z", yaw) @ axis_matrix("y", pitch) @ axis_matrix("x", roll) for roll, pitch, yaw in angles]
    np.testing.assert_allclose(matrices(q), by_hand, atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(q, axis=1), 1, atol=1e-15)


def test_euler_angles_alone_are_turns_about_one_axis():
    a = 0.6
    c = np.cos(0.3)
    s = np.sin(0.3)
    np.testing.assert_allclose(from_euler(a, 0, 0), [c, s, 0, 0], atol=1e-16)
    np.testing.assert_allclose(from_euler(0, a, 0), [c, 0, s, 0], atol=1e-16)
    np.testing.assert_allclose(from_euler(0, 0, a), [c, 0, 0, s], atol=1e-16)


def test_similarity_is_the_cosine_of_half_the_angle_between():
    q = unit(8)
    for angle in (0.0, 0.4, 1.0, np.pi / 2, 3.0, np.pi):
        turned = multiply(q, from_euler(0, angle, 0))
        np.testing.assert_allclose(similarity(q, turned), np.cos(angle / 2), atol=1e-14)
        np.testing.assert_allclose(similarity(-turned, q), np.cos(angle / 2), atol=1e-14)
    shares = similarity(unit(9), unit(10))
    assert 0 <= shares.min() < 0.1
    assert 0.9 < shares.max() < 1


def test_similarity_of_the_same_rotations_has_an_angle():
    q = unit(11, 10000).astype(np.float32)
    assert ((q * q).sum(1) > 1).any()
    assert np.isfinite(np.arccos(similarity(q, -q))).all()


def test_yaw_is_what_was_turned_last_whatever_roll_and_pitch():
    rng = np.random.default_rng(12)
    yaw = rng.uniform(-3.1, 3.1, N)
    pitch = rng.uniform(-1.5, 1.5, N)
    roll = rng.uniform(-3, 3, N)
    q = from_euler(roll, pitch, yaw)
    np.testing.assert_allclose(get_yaw(q), yaw, atol=1e-13)
    np.testing.assert_allclose(get_yaw(-3 * q), yaw, atol=1e-13)


def test_yaw_is_the_heading_of_the_base_s_x_axis():
    q = unit(13)
    forward = rotate_vector(q, [1.0, 0, 0])
    np.testing.assert_allclose(get_yaw(q), np.arctan2(forward[:, 1], forward[:, 0]), atol=1e-13)
    np.testing.assert_allclose(get_yaw([S, 0, 0, -S]), -np.pi / 2, atol=1e-15)


def test_shapes_broadcast():
    q = unit(14, 6).reshape(2, 3, 4)
    v = vectors(15, 3)
    assert multiply(q, IDENTITY).shape == multiply(IDENTITY, q).shape == (2, 3, 4)
    np.testing.assert_array_equal(multiply(q, IDENTITY), q)
    for rotate in (rotate_vector, rotate_inverse):
        turned = rotate(q, v)
        assert turned.shape == (2, 3, 3)
        for i, j in np.ndindex(2, 3):
            np.testing.assert_array_equal(turned[i, j], rotate(q[i, j], v[j]))
        assert rotate(q[0, 0], v).shape == (3, 3)
        assert rotate(q, v[0]).shape == (2, 3, 3)
    assert similarity(q, IDENTITY).shape == get_yaw(q).shape == (2, 3)
    assert from_euler(np.zeros((2, 1)), np.zeros(3), 0.1).shape == (2, 3, 4)
    assert similarity(q[0, 0], IDENTITY).shape == ()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_kept(dtype):
    q = unit(16).astype(dtype)
    v = vectors(17).astype(dtype)
    angle = vectors(18)[:, 0].astype(dtype)
    for result in (
        multiply(q, q), from_euler(angle, angle, angle), from_euler(0, 0, angle),
        rotate_vector(q, v), rotate_inverse(q, v), similarity(q, q), get_yaw(q),
    ):  # fmt: skip
        assert result.dtype == dtype
