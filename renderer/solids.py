"""What simple solids look like, boxes, balls, rods and discs, and where they are in a frame."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from renderer.display import RenderError
from renderer.figure import GOAL, Figure, Pose, paint
from renderer.kinematics import rotation
from renderer.shapes import ball, capsule, drum, rounded_box
from renderer.snapshot import Scenery

GLOSS = 0.3
EDGE = 0.12  # radius of a box's edges, in its least half extent, and of a disc's rim, in its radius or half thickness
MARKER = 0.05, 0.22, 0.012, 0.008  # radii of the goal's ball, ring, tube and stem, in reaches
ROUND = 32  # segments around
USUAL = 0.7  # the reach of a robot, roughly [m]
SPOKES = 6  # half axes in the plane of a disc, whose shadow has twice as many corners

# By kind: how many numbers are its size, and how it is made of them
KINDS = {
    "box": (3, lambda x, y, z: rounded_box([0, 0, 0], [x, y, z], EDGE * min(x, y, z), 2)),
    "ball": (1, lambda radius: ball([0, 0, 0], radius, ROUND)),
    "rod": (2, lambda radius, half: capsule([0, 0, -half], [0, 0, half], radius, radius, ROUND)),
    "disc": (2, lambda radius, half: drum([0, 0, -half], [0, 0, half], radius, EDGE * min(half / radius, 1.0), ROUND)),
}


class Solid(Protocol):
    """What is asked of a solid.

    kind: what it is, and with it what its size is [m]: "box": half extents along x, y, z; "ball": radius; "rod", round
    at its ends, along its own z: radius and half the distance of the ends' centres; "disc" about its own z: radius and
    half thickness
    colour: as #RRGGBB
    """

    kind: str
    size: tuple[float, ...]
    colour: str


class Solids(Figure):
    """A sequence of solids.

    reach: half the size of what the camera looks at [m]

    Raises RenderError, naming the solid and the field, for one that cannot be drawn.
    """

    # all have one shadow, and some are far from others
    shadow_texels = 384
    shadow_parts = 16
    near = 0.15
    ground_hides = True

    def __init__(self, solids: Sequence[Solid], reach: float | None) -> None:
        if not solids:
            raise RenderError("nothing to draw: expected at least one solid")
        if reach is None or not 0 < reach < math.inf:
            raise RenderError(f"reach: expected half the size of what the camera looks at [m], got {reach}")
        for index, solid in enumerate(solids):
            _check(index, solid)
        # A power of 2, so that the sides of the ground's tiles are round numbers.
        self.scale = 2.0 ** round(math.log2(reach / USUAL))
        self._count = len(solids)
        # Balls and rods cast shadows as limbs, boxes and discs as blocks.
        self._limbs = [i for i, s in enumerate(solids) if s.kind in ("ball", "rod")]
        self._radii, self._halves = np.array([(*solids[i].size, 0.0)[:2] for i in self._limbs]).reshape(-1, 2).T
        self._axes = {i: _half_axes(s) for i, s in enumerate(solids) if s.kind in ("box", "disc")}
        super().__init__(
            [[(KINDS[s.kind][1](*s.size), paint(s.colour, GLOSS))] for s in solids],
            reach,
            tuple(reach * r for r in MARKER),
        )

    def pose(self, frame: Scenery) -> Pose:
        """Return where the solids are in a frame."""
        position = np.asarray(frame.position, float)
        if position.shape[-2] != self._count:
            expected = (*position.shape[:-2], self._count, 3)
            raise RenderError(f"scenery: position: expected shape {expected}, got {position.shape}")
        position = position.reshape(-1, self._count, 3)
        turns = rotation(np.reshape(frame.quaternion, position.shape[:2] + (4,)))
        pose = Pose.hidden(len(position), self._count - GOAL)
        pose.put(slice(0, self._count), position, turns)
        middles = position[:, self._limbs]
        along = self._halves[:, None] * turns[:, self._limbs][..., 2]
        pose.limbs = middles - along, middles + along, self._radii
        pose.blocks = tuple((position[:, i], axes @ turns[:, i].swapaxes(1, 2)) for i, axes in self._axes.items())
        return pose

    def focus(self, frame: Scenery, ground: Callable[[float, float], float]) -> np.ndarray:
        """Return what the camera follows."""
        if frame.target is not None:
            return np.reshape(frame.target, (-1, 3))[frame.watched].astype(float)
        position = np.reshape(frame.position, (-1, self._count, 3))[frame.watched]
        return (np.min(position, axis=0) + np.max(position, axis=0)) / 2


def _check(index: int, solid: Solid) -> None:
    where = f"solid {index}"
    if solid.kind not in KINDS:
        raise RenderError(f"{where}: kind: expected one of {', '.join(KINDS)}, got {solid.kind!r}")
    count = KINDS[solid.kind][0]
    if np.shape(solid.size) != (count,) or not all(0 < length < math.inf for length in solid.size):
        raise RenderError(
            f"{where}: size: expected {count} positive number{'s' * (count > 1)} for a {solid.kind}, got {solid.size}"
        )
    if not re.fullmatch("#[0-9A-Fa-f]{6}", str(solid.colour)):
        raise RenderError(f"{where}: colour: expected one as #RRGGBB, got {solid.colour!r}")


def _half_axes(solid: Solid) -> np.ndarray:
    """Return the half axes (M, 3) [m] of a box or a disc, as of Pose's blocks."""
    if solid.kind == "box":
        return np.diag(solid.size).astype(float)
    radius, half = solid.size
    angle = np.pi * np.arange(SPOKES) / SPOKES
    # spokes of this length reach as far as the radius, in the mean over all directions
    spokes = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1) * radius * np.pi / (2 * SPOKES)
    return np.concatenate([spokes, [[0, 0, half]]])
