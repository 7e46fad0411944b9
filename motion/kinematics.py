"""Where feet are and which joint angles put them there, in closed form, for any number of poses at once.

A leg turns about x at the hip and about y at thigh and calf. In the plane of thigh and calf points are complex numbers
x + i z, which an angle q about y turns by exp(-i q).
"""

import numpy as np

from physics.robot import Robot

FLAT = 1e-12  # below which a length is none [m]


def feet(robot: Robot, joints: np.ndarray) -> np.ndarray:
    """Return the feet's centres (..., 4, 3) in the base frame [m], of joint angles (..., 12) [rad]."""
    q = np.asarray(joints, float).reshape(*np.shape(joints)[:-1], 4, 3)
    thigh, calf, foot = robot.offset[:, 1], robot.offset[:, 2], robot.foot_offset
    plane = _complex(thigh) + np.exp(-1j * q[..., 1]) * (_complex(calf) + np.exp(-1j * q[..., 2]) * _complex(foot))
    side = thigh[:, 1] + calf[:, 1] + foot[:, 1]
    c = np.cos(q[..., 0])
    s = np.sin(q[..., 0])
    # p_B = p_hip + R_x(q_hip) (x, side, z)
    return robot.offset[:, 0] + np.stack([plane.real, c * side - s * plane.imag, s * side + c * plane.imag], axis=-1)


def bodies(robot: Robot, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return places (..., 13, 3) [m] and quaternions (..., 13, 4) of root and legs' links, and feet (..., 4, 3).

    In the base frame. Links are in the order hip, thigh, calf, legs FL, FR, RL, RR; a link is where its joint is.
    """
    q = np.asarray(joints, float).reshape(*np.shape(joints)[:-1], 4, 3)
    half = 0.5 * q
    zero = np.zeros(q.shape[:-1])
    places = [np.broadcast_to(robot.offset[:, 0], (*zero.shape, 3))]
    turns = [np.stack([np.cos(half[..., 0]), np.sin(half[..., 0]), zero, zero], axis=-1)]
    for joint in (1, 2):
        turn = np.stack([np.cos(half[..., joint]), zero, np.sin(half[..., joint]), zero], axis=-1)
        places.append(places[-1] + turned(turns[-1], robot.offset[:, joint]))
        turns.append(multiplied(turns[-1], turn))
    feet = places[-1] + turned(turns[-1], robot.foot_offset)
    shape = (*q.shape[:-2], 12)
    of_legs = np.stack(places, axis=-2).reshape(*shape, 3), np.stack(turns, axis=-2).reshape(*shape, 4)
    root = np.zeros((*q.shape[:-2], 1, 3)), np.broadcast_to([1.0, 0.0, 0.0, 0.0], (*q.shape[:-2], 1, 4))
    return *(np.concatenate(pair, axis=-2) for pair in zip(root, of_legs, strict=True)), feet


def turned(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return vectors (..., 3) turned by quaternions (..., 4), w x y z."""
    u = quaternion[..., 1:]
    return vector + 2.0 * np.cross(u, np.cross(u, vector) + quaternion[..., :1] * vector)


def multiplied(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the quaternion (..., 4) of turning by b, then by a."""
    u = a[..., 1:]
    v = b[..., 1:]
    w = a[..., :1] * b[..., :1] - (u * v).sum(axis=-1, keepdims=True)
    return np.concatenate([w, a[..., :1] * v + b[..., :1] * u + np.cross(u, v)], axis=-1)


def joints(robot: Robot, feet: np.ndarray) -> np.ndarray:
    """Return the joint angles (..., 12) [rad] that put the feet's centres (..., 4, 3) [m, base frame] where they are.

    Feet are below the hips, and knees bend the way they do at home. A foot too far away, or too near, is put where the
    leg reaches on the same line from the thigh.
    """
    thigh, calf, foot = robot.offset[:, 1], robot.offset[:, 2], robot.foot_offset
    p = np.asarray(feet, float) - robot.offset[:, 0]
    side = thigh[:, 1] + calf[:, 1] + foot[:, 1]
    below = -np.sqrt(np.maximum(p[..., 1] ** 2 + p[..., 2] ** 2 - side**2, FLAT))
    hip = np.arctan2(p[..., 2], p[..., 1]) - np.arctan2(below, side)
    # to the foot, in the plane: w = exp(-i q1) (a + exp(-i q2) b)
    w = p[..., 0] + 1j * below - _complex(thigh)
    a = _complex(calf)
    b = _complex(foot)
    cosine = (np.abs(w) ** 2 - np.abs(a) ** 2 - np.abs(b) ** 2) / (2 * np.abs(a) * np.abs(b))
    straight = np.angle(b) - np.angle(a)  # calf angle of a straight leg
    bend = np.sign(_wrapped(robot.home_joints[:, 2] - straight))
    knee = straight + bend * np.arccos(np.clip(cosine, -1.0, 1.0))
    lift = np.angle(a + np.exp(-1j * knee) * b) - np.angle(w)
    found = np.stack([hip, lift, knee], axis=-1)
    found = robot.home_joints + _wrapped(found - robot.home_joints)
    return found.reshape(*found.shape[:-2], 12)


def reach_error(robot: Robot, feet_: np.ndarray) -> np.ndarray:
    """Return how far each foot (..., 4) is from where its leg can put it [m]."""
    return np.linalg.norm(feet(robot, joints(robot, feet_)) - feet_, axis=-1)


def _complex(vector: np.ndarray) -> np.ndarray:
    return vector[..., 0] + 1j * vector[..., 2]


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """Return angles within half a turn of 0."""
    return np.remainder(angle + np.pi, 2 * np.pi) - np.pi
