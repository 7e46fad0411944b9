"""What is drawn: surfaces with their paint in groups that move as one, a marker at a goal, and their places."""

import abc
import dataclasses
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from physics.terrain import Terrain
from renderer.display import RenderError
from renderer.light import SHADOW_TEXELS
from renderer.mesh import MOST_VERTICES
from renderer.shapes import SEGMENTS, Shape, ball, drum, ring
from renderer.snapshot import Frame

# the last groups of every figure: the marker at the goal's height; the line from it to the ground
GOAL = -2
STEM = -1
UNSTRETCHED = 1.0


@dataclasses.dataclass(frozen=True)
class Paint:
    """A surface: linear colour (3), and how much it shines."""

    colour: np.ndarray
    gloss: float


def paint(code: str, gloss: float) -> Paint:
    """Return a paint from a colour as #RRGGBB."""
    encoded = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return Paint(encoded**2.2, gloss)


BLUE = paint("#3D7DFF", 0.2)


@dataclasses.dataclass
class Pose:
    """Where the groups of N copies of a figure are, and what of each casts a shadow.

    shape: (N, G, 3, 3) matrices and rotation: (N, G, 3, 3) into the world; origin: (N, G, 3) [m]; glow: (N, G, 3)
    limbs: starts and ends (N, L, 3) [m, world] and radii (L) [m] of what is round
    blocks: centres (N, 3) and half axes (N, M, 3) [m, world] of what is not: all points that a centre and a share,
    from -1 to 1, of each of its axes add up to
    """

    shape: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    glow: np.ndarray
    limbs: tuple[np.ndarray, np.ndarray, np.ndarray]
    blocks: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    @classmethod
    def hidden(cls, count: int, groups: int) -> "Pose":
        """Return a pose in which no group is shown: shape matrices of zeros."""
        turns = np.broadcast_to(np.eye(3), (count, groups, 3, 3))
        points = np.zeros((count, groups, 3))
        none = np.empty((count, 0, 3))
        return cls(0 * turns, turns.copy(), points, points.copy(), (none, none, np.empty(0)))

    def put(
        self,
        group: int | slice,
        origin: np.ndarray,
        turn: np.ndarray,
        stretch: np.ndarray | float = UNSTRETCHED,
        shown: np.ndarray | bool = True,
    ) -> None:
        """Show a group, or several: each copy's at an origin (N, ..., 3) [m, world], turned (N, ..., 3, 3).

        stretch: (N, ...) of the z axis; shown: (N, ...) whether it is
        """
        if shown is True and stretch is UNSTRETCHED:  # as nearly everything is
            self.origin[:, group] = origin
            self.rotation[:, group] = self.shape[:, group] = turn
            return
        shown = np.asarray(shown)[..., None]
        self.origin[:, group] = np.where(shown, origin, self.origin[:, group])
        self.rotation[:, group] = turn
        scale = np.stack(np.broadcast_arrays(1.0, 1.0, stretch), -1)
        self.shape[:, group] = turn * scale[..., None, :] * shown[..., None]

    def of(self, copies: np.ndarray) -> "Pose":
        """Return the pose of some of the copies."""
        starts, ends, radii = self.limbs
        return Pose(
            self.shape[copies],
            self.rotation[copies],
            self.origin[copies],
            self.glow[copies],
            (starts[copies], ends[copies], radii),
            tuple((centre[copies], axes[copies]) for centre, axes in self.blocks),
        )


class Stance(NamedTuple):
    """How the one that is watched stands.

    position: (3) of its base [m, world]; rotation: (3, 3) into the world; feet: (F, 3) [m, world]; touches: (F) bool,
    which of them bear it; eyes: (3) from where it would see [m, world]
    """

    position: np.ndarray
    rotation: np.ndarray
    feet: np.ndarray
    touches: np.ndarray
    eyes: np.ndarray

    @property
    def heading(self) -> tuple[np.ndarray, np.ndarray]:
        """Where it faces, and what is to its left, unit vectors (3) along the ground [world]."""
        x, y = self.rotation[:2, 0] / max(float(np.hypot(*self.rotation[:2, 0])), 1e-9)
        return np.array([x, y, 0.0]), np.array([-y, x, 0.0])


class Figure(abc.ABC):
    """The solids of what is drawn as arrays over vertices, group by group.

    parts: per group, its shapes and their paints
    reach: half the size of what the camera looks at [m]
    goal: radii of the goal's ball, of the ring around it, of the ring's tube and of the stem [m]
    segments: around what is round of the goal's marker

    vertices, normals: (V, 3) in the group's frame; colour: (V, 3) linear; gloss: (V); triangles:
    (T, 3); spans: per group its slice of the vertices. Raises RenderError if these are too many.
    """

    scale = (
        1.0  # of the ground's tiles, of how far it is seen and of the camera's ways: 1 for what is as large as a robot
    )
    # along either side: of its picture, and of what is drawn of it at once
    shadow_texels = SHADOW_TEXELS
    shadow_parts = 1
    near = 0.05  # clip plane [m]; the further the better, since the software build measures depth in 16 bits
    arrows = slice(0, 0)  # the groups that are arrows of forces
    ground_hides = False  # what is below it: the feet of a robot, pressed into the ground, are seen

    def __init__(
        self,
        parts: list[list[tuple[Shape, Paint]]],
        reach: float,
        goal: tuple[float, float, float, float],
        segments: int = SEGMENTS,
    ) -> None:
        self.reach = reach
        dot, loop, tube, stem = goal
        parts = [
            *parts,
            [(ball([0, 0, 0], dot, segments), BLUE), (ring(loop, tube, segments), BLUE)],
            [(drum([0, 0, 0], [0, 0, 1], stem, segments=segments), BLUE)],
        ]
        solids = [solid for part in parts for solid in part]
        counts = np.array([len(shape.vertices) for shape, _ in solids])
        if counts.sum() > MOST_VERTICES:
            raise RenderError(
                f"too much to draw: expected at most {MOST_VERTICES} vertices, "
                f"got {counts.sum()}, of {len(solids)} solids"
            )
        arrays = [(s.vertices, s.normals, np.broadcast_to(p.colour, s.vertices.shape)) for s, p in solids]
        self.vertices, self.normals, self.colour = (
            np.concatenate(a).astype(np.float32) for a in zip(*arrays, strict=True)
        )
        self.gloss = np.repeat(np.array([p.gloss for _, p in solids], np.float32), counts)
        starts = np.cumsum(counts) - counts
        self.triangles = np.concatenate(
            [s.triangles + start for (s, _), start in zip(solids, starts, strict=True)]
        ).astype(np.uint16)
        bounds = np.cumsum([0, *(sum(len(s.vertices) for s, _ in part) for part in parts)])
        self.spans = [slice(a, b) for a, b in itertools.pairwise(bounds)]

    def coarser(self) -> "Figure | None":
        """Return the same with fewer triangles, for copies that are far away; None if that would be no gain."""
        return None

    @abc.abstractmethod
    def pose(self, frame: Frame) -> Pose:
        """Return where everything but the goals' markers is in a frame."""

    @abc.abstractmethod
    def focus(self, frame: Frame, ground: Callable[[float, float], float]) -> np.ndarray:
        """Return what the camera follows, (3) [m, world]; ground: height of the ground about x, y [m]."""

    def stance(self, frame: Frame) -> Stance | None:
        """Return how the one that is watched stands; None for what has no feet."""
        return None


def place(figure: Figure, frame: Frame, terrain: Terrain | None = None, forces: bool = True) -> Pose:
    """Return where everything is in a frame; what is not shown has a shape matrix of zeros.

    terrain: the ground that the goals' stems stand on; None for level ground at height 0; forces: whether their arrows
    are shown
    """
    pose = figure.pose(frame)
    if not forces:
        pose.shape[:, figure.arrows] = 0.0
    if frame.goal is not None:
        goal = np.asarray(frame.goal, float).reshape(-1, 3)
        ground = terrain.height(goal[:, 0], goal[:, 1]) if terrain else np.zeros(len(goal))
        pose.put(GOAL, goal, np.eye(3))
        foot = np.column_stack([goal[:, :2], ground])
        pose.put(STEM, foot, np.eye(3), np.maximum(goal[:, 2] - ground, 1e-3))
    return pose
