"""A camera that follows what is drawn, sees with its eyes, or goes where it is sent."""

import dataclasses
import math

import numpy as np

from physics.terrain import Terrain
from renderer.figure import Stance

FIELD_OF_VIEW = 32.0  # vertical [deg]: long enough a lens for a calm perspective
FOLLOW_SECONDS = 0.25  # time constant of the target
CUT = 1.5  # a target that jumps further is a reset, not a movement: cut to it [m]
CLEARANCE = 0.05  # least height above the ground [m]
SIGHT = np.linspace(
    0.15, 1.0, 18
)  # where the line of sight is kept above a terrain, in shares of the way to the camera
STEEPEST = math.radians(88.0)  # of a view, up or down
CHASE_ELEVATION = math.radians(14.0)
EYES_DOWN = math.radians(8.0)  # of what a robot sees, below where it faces: the ground that it comes to
CROWD_ELEVATION = math.radians(28.0)  # of a view of many, at least: they would hide each other
VIEW = -52.0, 17.0  # azimuth and elevation of the first view [deg]: from the right front, slightly above


# orbit: about what it follows; chase: behind it, turning as it does; eyes: from its own; free: where it is sent
MODES = "orbit", "chase", "eyes", "free"
LED = "chase", "eyes"  # those that ask for a Stance


class Camera:
    """A camera on a sphere about a smoothed target; over a terrain it rises where ground would hide the target.

    reach: half the size of what it looks at [m]
    terrain: the ground; None for level ground at height 0
    scale: how large what it looks at is, in robots
    view: azimuth and elevation of the first view [deg]
    across: how large the ground is that the first view shows [m], 0 for as near as one robot asks for

    mode: one of MODES. "eyes" and "free" see from where they are, and their target is what lies in front of them.
    """

    def __init__(
        self,
        reach: float,
        terrain: Terrain | None = None,
        scale: float = 1.0,
        view: tuple[float, float] = VIEW,
        across: float = 0.0,
    ) -> None:
        self._reach = reach
        self._across = across
        self._terrain = terrain
        self._view = view
        self._cut = scale * CUT
        self._clearance = scale * CLEARANCE
        self._rise = 0.0  # above the sphere [m]
        self.target: np.ndarray | None = None  # (3) [m, world]
        self.home()

    def home(self) -> None:
        """Return to the first view."""
        self.mode = "orbit"
        self.azimuth, self.elevation = map(math.radians, self._view)
        self.distance = max(4.0 * self._reach, self._across)
        if self._across > 4.0 * self._reach:
            self.elevation = max(self.elevation, CROWD_ELEVATION)

    def see_like(self, other: "Camera") -> None:
        """See as another one does, which was of something else perhaps larger."""
        self.mode = other.mode
        self.azimuth = other.azimuth
        self.elevation = other.elevation
        self.distance *= other.distance / max(4.0 * other._reach, other._across)

    def next_mode(self, stands: bool) -> str:
        """Take the next of MODES, and return it; stands: whether what is followed has a front and eyes."""
        before = self.mode
        modes = MODES if stands else ("orbit", "free")
        self.mode = modes[(modes.index(before) + 1) % len(modes)] if before in modes else "orbit"
        if self.mode == "free" and self.target is not None:  # from where it is
            self._rise = 0.0
        elif before == "free":
            self.home()
        if self.mode == "chase":
            self.distance = 4.0 * self._reach
            self.elevation = CHASE_ELEVATION
        return self.mode

    def follow(self, point: np.ndarray, seconds: float, stance: Stance | None = None) -> None:
        """Move the target towards a point (3) [m, world], as far as the time since the last call [s] allows.

        stance: of what is followed, where it has a front
        """
        point = np.asarray(point, float)
        share = 1.0 - math.exp(-seconds / FOLLOW_SECONDS)
        if self.mode == "free" and self.target is not None:
            return
        if self.mode == "eyes" and stance is not None:
            self._see_with(stance)
            return
        if self.target is None or np.linalg.norm(point - self.target) > self._cut:
            self.target = point.copy()
            share = 1.0
        self.target = self.target + (point - self.target) * share
        if self.mode == "chase" and stance is not None:
            ahead, _ = stance.heading
            behind = math.atan2(-ahead[1], -ahead[0])
            off = (behind - self.azimuth + math.pi) % (2.0 * math.pi) - math.pi
            self.azimuth += off * share
        self._rise += (self._needed_rise() - self._rise) * share

    def _see_with(self, stance: Stance) -> None:
        """Look ahead from the eyes of what is followed, the horizon level."""
        ahead = stance.rotation[:, 0]
        self._rise = 0.0
        self.distance = 4.0 * self._reach
        self.azimuth = math.atan2(-ahead[1], -ahead[0])
        self.elevation = min(max(math.asin(min(max(-ahead[2], -1.0), 1.0)) + EYES_DOWN, -STEEPEST), STEEPEST)
        self.target = stance.eyes - self._away()

    def move(self, right: float, up: float, ahead: float) -> None:
        """Go by a way [m] as seen in the picture, where it is free to."""
        into = self.forward
        self.target = self.target + ahead * into + right * np.array([into[1], -into[0], 0.0]) + [0.0, 0.0, up]

    def _needed_rise(self) -> float:
        """Return how far above its sphere the camera sees the target over the ground between [m]."""
        if self._terrain is None:
            return 0.0
        x, y, z = self.target[:, None] + self._away()[:, None] * SIGHT
        return float(max(0.0, ((self._terrain.height(x, y) + self._clearance - z) / SIGHT).max()))

    def orbit(self, right: float, down: float) -> None:
        """Turn by a drag of the mouse [px]: about the target and never below the ground, or about itself if free."""
        eye = self.target + self._away()
        lowest = -STEEPEST if self.mode == "free" else math.radians(2.0)
        self.azimuth -= 0.006 * right
        self.elevation = min(max(self.elevation + 0.006 * down, lowest), STEEPEST)
        if self.mode == "free":
            self.target = eye - self._away()

    def zoom(self, steps: float) -> None:
        """Come closer by notches of the wheel."""
        self.distance = min(
            max(self.distance * 0.9**steps, 1.5 * self._reach), max(20.0 * self._reach, 2.0 * self._across)
        )

    @property
    def position(self) -> np.ndarray:
        """Where the camera is, (3) [m, world]; held above the ground."""
        position = self.target + self._away()
        ground = 0.0 if self._terrain is None else float(self._terrain.height(position[0], position[1]))
        position[2] = max(position[2] + self._rise, ground + self._clearance)
        return position

    def _away(self) -> np.ndarray:
        """Return the way from the target to the sphere, (3) [m, world]."""
        level = math.cos(self.elevation)
        return self.distance * np.array(
            [level * math.cos(self.azimuth), level * math.sin(self.azimuth), math.sin(self.elevation)]
        )

    @property
    def forward(self) -> np.ndarray:
        """Unit direction into the picture along the ground, (3) [world]."""
        return np.array([-math.cos(self.azimuth), -math.sin(self.azimuth), 0.0])

    def view(self, aspect: float) -> "View":
        """Return what the camera sees in a picture of some width over height."""
        eye = self.position
        forward = self.target - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        tangent = math.tan(math.radians(FIELD_OF_VIEW / 2))
        return View(eye, np.stack([right, np.cross(right, forward), forward]), np.array([aspect * tangent, tangent]))


@dataclasses.dataclass(frozen=True)
class View:
    """What is in a picture.

    eye: (3) where it is seen from [m, world]
    axes: (3, 3) unit directions to the right, up and into the picture, a row each [world]
    half: (2) how far it is from the middle to the right and to the upper edge, per distance
    """

    eye: np.ndarray
    axes: np.ndarray
    half: np.ndarray

    def sees(self, points: np.ndarray, radius: np.ndarray | float) -> np.ndarray:
        """Return whether any of balls may be in the picture; points: (..., 3) [m, world], radius: (...) [m]."""
        at = (points - self.eye) @ self.axes.T
        beyond = np.abs(at[..., :2]) - self.half * at[..., 2:]
        return (beyond <= np.asarray(radius)[..., None] * np.hypot(1.0, self.half)).all(-1)

    def ray(self, x: float, y: float) -> np.ndarray:
        """Return the unit direction (3) [world] to a point of the picture, in shares of its width and height."""
        across = np.array([(2 * x - 1) * self.half[0], (1 - 2 * y) * self.half[1], 1.0]) @ self.axes
        return across / np.linalg.norm(across)

    def size(self, points: np.ndarray, radius: float, height: int) -> np.ndarray:
        """Return how large balls are in a picture of some height, their radius [pixel]; all else as for sees()."""
        distance = np.linalg.norm(points - self.eye, axis=-1)
        return height / (2 * self.half[1]) * radius / np.maximum(distance, 1e-6)
