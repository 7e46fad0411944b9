"""What one frame shows: plain numbers, copied out of whatever produced them."""

import dataclasses
from typing import Any

import numpy as np

from renderer.display import RenderError

OPTIONAL = "goal", "push", "target"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """What there is to see of one moment, whatever is drawn.

    goal: (3) where something should be [m, world], or None
    ghost: another frame of the same, drawn transparent, or None
    hud: (label, value) rows, from top to bottom
    fallen: whether the episode counts as failed
    time: since the start of the episode [s]

    Raises RenderError, naming the field, if an array has another shape or is not finite.
    """

    goal: np.ndarray | None = None
    ghost: Any = None
    hud: tuple[tuple[str, str], ...] = ()
    fallen: bool = False
    time: float = 0.0

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays, by name."""
        return {"goal": (3,)}

    def __post_init__(self) -> None:
        kind = type(self).__name__.lower()
        for name, shape in self.shapes().items():
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
            if np.shape(value) != shape:
                raise RenderError(f"{kind}: {name}: expected shape {shape}, got {np.shape(value)}")
            if not np.isfinite(value).all():
                raise RenderError(
                    f"{kind}: {name}: not finite, the simulation has diverged: {np.asarray(value).tolist()}"
                )


@dataclasses.dataclass(frozen=True)
class Snapshot(Frame):
    """The state of one robot at one moment; its goal is where the centre of mass should be.

    base_position: (3) of the base origin [m, world]
    base_quaternion: (4) w, x, y, z, turns base into world coordinates
    joint_position: (12) legs FL, FR, RL, RR, each hip, thigh, calf [rad]
    foot_contact_force: (4, 3) of the ground on the feet [N, world]
    push: (3) kick of the base velocity [m/s, world], drawn for as long as it is given, or None
    """

    base_position: np.ndarray
    base_quaternion: np.ndarray
    joint_position: np.ndarray
    foot_contact_force: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((4, 3)))
    push: np.ndarray | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays, by name."""
        own = {
            "base_position": (3,),
            "base_quaternion": (4,),
            "joint_position": (12,),
            "foot_contact_force": (4, 3),
            "push": (3,),
        }
        return own | super().shapes()


@dataclasses.dataclass(frozen=True)
class Scenery(Frame):
    """Where K solids are at one moment.

    position: (K, 3) of their middles [m, world]
    quaternion: (K, 4) w, x, y, z, turns their own into world coordinates
    target: (3) what the camera follows [m, world]; None for the middle of them all
    """

    position: np.ndarray
    quaternion: np.ndarray
    target: np.ndarray | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays, by name."""
        count = np.shape(self.position)[:1]
        return {"position": (*count, 3), "quaternion": (*count, 4), "target": (3,)} | super().shapes()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not np.any(self.quaternion, axis=1).all():
            raise RenderError(f"scenery: quaternion: of length 0: {np.asarray(self.quaternion).tolist()}")
