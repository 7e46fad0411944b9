"""Overlays that lie in space: what is known of the robot that is watched, as strokes of colour."""

import collections
import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from renderer.figure import Stance
from renderer.snapshot import Detail, Frame

HEADS = 3.0  # width of an arrow's head over its shaft's
SHAFT = 0.045  # width of an arrow, in the figure's reach
FINE = 0.02  # width of a line, the same
DOT = 0.12  # size of a dot, the same
ABOVE = 0.5  # where velocities are, above the base, in the figure's reach
SPEED_LENGTH = 1.0  # of an arrow, in the figure's reach per m/s
TURN_SECONDS = 1.0  # what an arc shows of a yaw rate
ARC = 16  # strokes of an arc of half a turn
TRAIL = 100  # frames that a trail goes back
JUMP = 1.0  # what no foot covers between two frames, in the figure's reach
SCAN = np.stack(np.meshgrid(np.linspace(-2.4, 2.4, 17), np.linspace(-1.6, 1.6, 11), indexing="ij"), -1)  # in the reach
SCAN_SPAN = 0.3  # heights that the colours of a scan tell apart, above and below the ground at the robot, in the reach

WANTED = 61, 125, 255, 255
ACTUAL = 22, 166, 154, 255
AMBER = 255, 159, 28, 255
CORAL = 242, 84, 91, 255
# of the feet FL FR RL RR
FEET = (WANTED, CORAL, ACTUAL, AMBER)


class Strokes(NamedTuple):
    """Straight strokes that face whoever looks.

    start, end: (S, 3) [m, world]; width: (S, 2) at start and end [m]; colour: (S, 4) uint8
    """

    start: np.ndarray
    end: np.ndarray
    width: np.ndarray
    colour: np.ndarray

    @classmethod
    def of(cls, start: np.ndarray, end: np.ndarray, width: object, colour: object) -> "Strokes":
        """Return strokes; starts and ends, widths and colours may be of one for all."""
        start, end = np.broadcast_arrays(np.atleast_2d(np.asarray(start, float)), np.atleast_2d(np.asarray(end, float)))
        count = len(start)
        return cls(
            start, end, np.broadcast_to(width, (count, 2)), np.broadcast_to(np.asarray(colour, np.uint8), (count, 4))
        )

    @classmethod
    def joined(cls, parts: "list[Strokes]") -> "Strokes":
        """Return the strokes of all parts."""
        if not parts:
            none = np.zeros((0, 3))
            return cls(none, none, np.zeros((0, 2)), np.zeros((0, 4), np.uint8))
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def quads(self, eye: np.ndarray) -> np.ndarray:
        """Return corners (S, 4, 3) [m, world] of quads that face an eye (3), counterclockwise as it sees them."""
        along = self.end - self.start
        side = np.cross(along, eye - 0.5 * (self.start + self.end))
        side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12)
        first, last = (0.5 * self.width[:, i : i + 1] * side for i in range(2))
        return np.stack([self.start - first, self.start + first, self.end + last, self.end - last], 1)


def arrow(start: np.ndarray, way: np.ndarray, shaft: float, colour: tuple) -> list[Strokes]:
    """Return an arrow from a point along a way, (3) [m, world]; none where the way is shorter than the arrow is wide.

    shaft: its width [m]
    """
    length = float(np.linalg.norm(way))
    if length < shaft:
        return []
    head = min(0.6 * length, 1.5 * HEADS * shaft)
    neck = start + way * (1.0 - head / length)
    return [
        Strokes.of(start, neck, shaft, colour),
        Strokes.of(neck, start + way, (HEADS * shaft, 0.0), colour),
    ]


def dots(points: np.ndarray, size: float, colour: object) -> list[Strokes]:
    """Return a rhombus at each of points (K, 3) [m, world], so large [m]; colour: (4), or (K, 4)."""
    points = np.atleast_2d(points)
    up = np.array([0.0, 0.0, 0.5 * size])
    return [
        Strokes.of(points - up, points, (0.0, size), colour),
        Strokes.of(points, points + up, (size, 0.0), colour),
    ]


def hull(points: np.ndarray) -> np.ndarray:
    """Return which of points (K, 2) are the corners of their convex hull, counterclockwise (Andrew, 1979)."""
    order = np.lexsort((points[:, 1], points[:, 0])).tolist()

    def chain(indices: list[int]) -> list[int]:
        kept: list[int] = []
        for i in indices:
            while len(kept) > 1:
                (ax, ay), (bx, by) = points[kept[-1]] - points[kept[-2]], points[i] - points[kept[-2]]
                if ax * by - ay * bx > 0:
                    break
                kept.pop()
            kept.append(i)
        return kept[:-1]

    return np.array(chain(order) + chain(order[::-1]) or order[:1])


class Overlays:
    """What lies in space beside robots; it remembers where the feet were.

    reach: half the size of the figure [m]: lengths and widths go with it
    ground: heights of the ground at x, y [m], of arrays
    """

    def __init__(self, reach: float, ground: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self._reach = reach
        self._ground = ground
        self._feet: collections.deque[np.ndarray] = collections.deque(maxlen=TRAIL)
        self._watched = -1

    def strokes(self, frame: Frame, stance: Stance | None, shown: Collection[str]) -> tuple[Strokes, Strokes]:
        """Return what is seen through everything, and what the robots hide.

        stance: of the one that is watched, None for what has none; shown: names of controls.OVERLAYS
        """
        if stance is None:
            return Strokes.joined([]), Strokes.joined([])
        self._remember(frame, stance)
        above = []
        hidden = []
        detail = frame.detail
        if "balance" in shown and detail.com is not None:
            above += self._balance(stance, detail)
        if "speed" in shown:
            for motion, colour, height in ((detail.command, WANTED, 0.0), (detail.velocity, ACTUAL, 0.12)):
                if motion is not None:
                    above += self._motion(stance, motion, colour, height)
        if "ground" in shown:
            hidden += self._scan(stance, detail)
        if "trails" in shown:
            hidden += self._trails()
        return Strokes.joined(above), Strokes.joined(hidden)

    def _remember(self, frame: Frame, stance: Stance) -> None:
        jumped = self._feet and abs(self._feet[-1] - stance.feet).max() > JUMP * self._reach
        if jumped or frame.watched != self._watched:
            self._feet.clear()
        self._watched = frame.watched
        self._feet.append(stance.feet)

    def _balance(self, stance: Stance, detail: Detail) -> list[Strokes]:
        """The centre of mass, its plumb line, and the polygon of the feet that bear the robot."""
        fine = FINE * self._reach
        com = np.asarray(detail.com, float)
        below = np.array([com[0], com[1], self._ground(com[0], com[1])])
        marks = [*dots(com, DOT * self._reach, AMBER), Strokes.of(below, com, fine, AMBER)]
        bearing = stance.feet[stance.touches]
        inside = False
        if len(bearing):
            corners = bearing[hull(bearing[:, :2])]
            after = np.roll(corners, -1, 0)
            (ax, ay), (bx, by) = (after - corners)[:, :2].T, (com - corners)[:, :2].T
            inside = len(corners) > 2 and bool((ax * by - ay * bx >= 0).all())
            marks.append(Strokes.of(corners, after, fine, ACTUAL))
        return [*marks, *dots(below, DOT * self._reach, ACTUAL if inside else CORAL)]

    def _motion(self, stance: Stance, motion: np.ndarray, colour: tuple, height: float) -> list[Strokes]:
        """A velocity and a yaw rate, above the robot; height: above the other one, in the reach."""
        reach = self._reach
        forward, left, turn = map(float, motion)
        ahead, aside = stance.heading
        start = stance.position + [0.0, 0.0, (ABOVE + height) * reach]
        marks = arrow(start, SPEED_LENGTH * reach * (forward * ahead + left * aside), SHAFT * reach, colour)
        angle = float(np.clip(TURN_SECONDS * turn, -math.pi, math.pi))
        if abs(angle) > 0.05:
            at = np.linspace(0.0, angle, max(2, math.ceil(ARC * abs(angle) / math.pi)))[:, None]
            points = start + 0.5 * reach * (np.cos(at) * ahead + np.sin(at) * aside)
            marks.append(Strokes.of(points[:-1], points[1:], SHAFT * reach, colour))
            tangent = math.copysign(1.0, angle) * (math.cos(angle) * aside - math.sin(angle) * ahead)
            marks += arrow(points[-1], 0.2 * reach * tangent, SHAFT * reach, colour)
        return marks

    def _scan(self, stance: Stance, detail: Detail) -> list[Strokes]:
        """Heights of the ground as the robot sees it, or about one that does not, along its heading, in colours."""
        if detail.scan is None:
            ahead, aside = stance.heading
            steps = self._reach * SCAN.reshape(-1, 2)
            x, y = (stance.position[:2] + steps[:, :1] * ahead[:2] + steps[:, 1:] * aside[:2]).T
            z = self._ground(x, y)
        else:
            x, y, z = np.asarray(detail.scan, float).T
        level = float(self._ground(*stance.position[:2]))
        share = np.clip((z - level) / (SCAN_SPAN * self._reach), -1.0, 1.0)[:, None]
        low, middle, high = (np.array(c, float) for c in (WANTED, ACTUAL, AMBER))
        colour = middle + np.maximum(share, 0) * (high - middle) + np.maximum(-share, 0) * (low - middle)
        size = 0.06 * self._reach
        return dots(np.stack([x, y, z + 0.5 * size], 1), size, colour)

    def _trails(self) -> list[Strokes]:
        """Where the feet were, fainter the longer ago."""
        if len(self._feet) < 2:
            return []
        points = np.stack(self._feet)
        opacity = np.linspace(20, 255, len(points) - 1)
        marks = []
        for foot in range(points.shape[1]):
            colour = np.tile(np.array(FEET[foot % len(FEET)], float), (len(opacity), 1))
            colour[:, 3] = opacity
            marks.append(Strokes.of(points[:-1, foot], points[1:, foot], FINE * self._reach, colour))
        return marks
