"""What somebody points at: the robot, or the point of the ground, that a ray from an eye meets."""

from collections.abc import Callable

import numpy as np

GRASP = 0.6  # how far from a robot's middle it can be grasped, in its reach
RAY_STEPS = 8  # to the ground
FURTHEST = 50.0  # [m]


def robot_on(ray: np.ndarray, eye: np.ndarray, middles: np.ndarray, reach: float) -> int | None:
    """Return the number of the robot nearest to an eye (3) on a ray, a unit vector (3) [world]; None for none.

    middles: (N, 3) [m, world]; reach: half the size of each [m]
    """
    apart = middles - eye
    depth = apart @ ray
    off = np.linalg.norm(apart - depth[:, None] * ray, axis=1)
    hit = np.flatnonzero((off < GRASP * reach) & (depth > 0.0))
    return int(hit[np.argmin(depth[hit])]) if len(hit) else None


def ground_on(
    ray: np.ndarray, eye: np.ndarray, level: float, ground: Callable[[float, float], float] | None = None
) -> np.ndarray:
    """Return the point (3) of the ground, or of a level plane, on a ray from an eye, (3) each [m, world].

    level: height of the plane, or where the ground is looked for first [m]; ground: its height at x, y [m]
    """
    point = eye
    for _ in range(RAY_STEPS if ground else 1):
        far = (level - eye[2]) / ray[2] if abs(ray[2]) > 1e-6 else -1.0
        point = eye + min(far if far > 0.0 else FURTHEST, FURTHEST) * ray
        if ground:
            level = float(ground(*point[:2]))
    return np.array([*point[:2], level])
