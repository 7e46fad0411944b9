"""Where the links of a robot are: forward kinematics in plain numpy, one robot at a time."""

import numpy as np

from physics.robot import Robot
from renderer.snapshot import Snapshot

HIP, THIGH, CALF, FOOT = range(4)  # points of a leg: three joint origins and the foot's centre


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """Return the (3, 3) rotation of a quaternion.

    quaternion: (4) w, x, y, z, of any length but zero
    """
    w, x, y, z = np.asarray(quaternion, float) / np.linalg.norm(quaternion)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def _turn_x(angle: float) -> np.ndarray:
    c = np.cos(angle)
    s = np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _turn_y(angle: float) -> np.ndarray:
    c = np.cos(angle)
    s = np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def leg_frames(robot: Robot, snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray]:
    """Return where the legs are.

    Returns ``points`` (4, 4, 3), per leg the origins of hip, thigh and calf and the centre of the
    foot [m, world], and ``rotations`` (4, 3, 3, 3), per leg the link orientations R_WL.
    """
    angles = np.asarray(snapshot.joint_position, float).reshape(4, 3)
    points = np.empty((4, 4, 3))
    rotations = np.empty((4, 3, 3, 3))
    R_WB = rotation(snapshot.base_quaternion)
    for leg in range(4):
        p = np.asarray(snapshot.base_position, float)
        R = R_WB
        for joint, turn in enumerate((_turn_x, _turn_y, _turn_y)):
            # p_WL = p_WP + R_WP p_PL;  R_WL = R_WP R_PL(q)
            p = p + R @ robot.offset[leg, joint]
            R = R @ turn(angles[leg, joint])
            points[leg, joint] = p
            rotations[leg, joint] = R
        points[leg, FOOT] = p + R @ robot.foot_offset[leg]
    return points, rotations
