"""Where the links of robots are: forward kinematics many robots at a time."""

import numpy as np

from physics.jit import kernel
from physics.robot import Robot

HIP, THIGH, CALF, FOOT = range(4)  # points of a leg: three joint origins and the foot's centre


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """Return the (..., 3, 3) rotations of quaternions.

    quaternion: (..., 4) w, x, y, z, of any length but zero
    """
    quaternion = np.asarray(quaternion, float)
    w, x, y, z = np.moveaxis(quaternion / np.sqrt((quaternion * quaternion).sum(-1, keepdims=True)), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    R = np.empty((*quaternion.shape[:-1], 3, 3))
    for i, row in enumerate(rows):
        for j, entry in enumerate(row):
            R[..., i, j] = entry
    return R


def leg_frames(
    robot: Robot, base_position: np.ndarray, R_WB: np.ndarray, joint_position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the legs of N robots are.

    base_position: (N, 3) [m, world]; R_WB: (N, 3, 3) of rotation(); joint_position: (N, 12) [rad]

    Returns ``points`` (N, 4, 4, 3), per leg the origins of hip, thigh and calf and the centre of the
    foot [m, world], and ``rotations`` (N, 4, 3, 3, 3), per leg the link orientations R_WL.
    """
    count = len(base_position)
    points = np.empty((count, 4, 4, 3))
    rotations = np.empty((count, 4, 3, 3, 3))
    _chain(
        robot.offset, robot.foot_offset, np.ascontiguousarray(base_position, float), R_WB,
        np.ascontiguousarray(joint_position, float), points, rotations,
    )  # fmt: skip
    return points, rotations


@kernel
def _chain(
    offset: np.ndarray,
    foot_offset: np.ndarray,
    position: np.ndarray,
    R_WB: np.ndarray,
    angles: np.ndarray,
    points: np.ndarray,
    rotations: np.ndarray,
) -> None:
    """Write points and rotations of leg_frames(), from the base outwards."""
    for n in range(len(position)):
        for leg in range(4):
            p = position[n]
            R = R_WB[n]
            for joint in range(3):
                # p_WL = p_WP + R_WP p_PL;  R_WL = R_WP R_PL(q), about x at the hip, about y at thigh and calf
                c = np.cos(angles[n, 3 * leg + joint])
                s = np.sin(angles[n, 3 * leg + joint])
                at = points[n, leg, joint]
                turned = rotations[n, leg, joint]
                for i in range(3):
                    x = R[i, 0]
                    y = R[i, 1]
                    z = R[i, 2]
                    at[i] = p[i] + x * offset[leg, joint, 0] + y * offset[leg, joint, 1] + z * offset[leg, joint, 2]
                    if joint == HIP:
                        turned[i, 0] = x
                        turned[i, 1] = c * y + s * z
                        turned[i, 2] = c * z - s * y
                    else:
                        turned[i, 0] = c * x - s * z
                        turned[i, 1] = y
                        turned[i, 2] = s * x + c * z
                p = at
                R = turned
            foot = foot_offset[leg]
            for i in range(3):
                points[n, leg, FOOT, i] = p[i] + R[i, 0] * foot[0] + R[i, 1] * foot[1] + R[i, 2] * foot[2]
