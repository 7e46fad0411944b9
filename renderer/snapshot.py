"""What one frame shows: plain numbers, copied out of whatever produced them.

A frame is of one robot, or of N side by side: every array then has a first axis of N.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from renderer.display import RenderError

OPTIONAL = "goal", "push", "target", "foot_contact_force"


@dataclasses.dataclass(frozen=True)
class Detail:
    """What overlays show of the one that is watched, as far as its environment knows it.

    com: (3) centre of mass [m, world]
    command, velocity: (3) forward, to the left [m/s] and yaw rate [rad/s], in the frame of its heading
    torque: (12) of the joints, in shares of their limits, legs FL, FR, RL, RR, each hip, thigh, calf
    rewards: the terms of the reward by name [1/s]
    scan: (points, 3) of the ground, where the robot believes them to be [m, world]
    """

    com: np.ndarray | None = None
    command: np.ndarray | None = None
    velocity: np.ndarray | None = None
    torque: np.ndarray | None = None
    rewards: Mapping[str, float] = dataclasses.field(default_factory=dict)
    scan: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """What there is to see of one moment, whatever is drawn.

    goal: (3) where something should be [m, world], or None
    ghost: another frame of the same, drawn transparent, or None
    hud: (label, value) rows, from top to bottom, of the one that is watched
    fallen: whether the episode counts as failed, or (N) of each
    time: since the start of the episode [s]
    watched: which of them the camera follows
    detail: what overlays show of that one
    state: in a word, such as "paused"; "" for the time
    note: a line for whoever watches, "" for none

    Raises RenderError, naming the field, if an array has another shape or is not finite.
    """

    goal: np.ndarray | None = None
    ghost: Any = None
    hud: tuple[tuple[str, str], ...] = ()
    fallen: np.ndarray | bool = False
    time: float = 0.0
    watched: int = 0
    detail: Detail = Detail()
    state: str = ""
    note: str = ""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays of one robot, by name."""
        return {"goal": (3,)}

    @property
    def many(self) -> tuple[int, ...]:
        """The axes that arrays have before those of one robot: (N), or none."""
        name, shape = next((name, shape) for name, shape in self.shapes().items() if name not in OPTIONAL)
        return np.shape(getattr(self, name))[: -len(shape)]

    def __post_init__(self) -> None:
        kind = type(self).__name__.lower()
        for name, shape in self.shapes().items():
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
            expected = self.many + shape
            if np.shape(value) != expected:
                raise RenderError(f"{kind}: {name}: expected shape {expected}, got {np.shape(value)}")
            if not np.isfinite(value).all():
                raise RenderError(
                    f"{kind}: {name}: not finite, the simulation has diverged: {np.asarray(value).tolist()}"
                )


@dataclasses.dataclass(frozen=True)
class Snapshot(Frame):
    """The state of one robot at one moment, or of many; its goal is where the centre of mass should be.

    base_position: (3) of the base origin [m, world]
    base_quaternion: (4) w, x, y, z, turns base into world coordinates
    joint_position: (12) legs FL, FR, RL, RR, each hip, thigh, calf [rad]
    foot_contact_force: (4, 3) of the ground on the feet [N, world]
    push: (3) kick of the base velocity [m/s, world], drawn for as long as it is not zero, or None
    """

    base_position: np.ndarray
    base_quaternion: np.ndarray
    joint_position: np.ndarray
    foot_contact_force: np.ndarray | None = None
    push: np.ndarray | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays of one robot, by name."""
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
    """Where K solids are at one moment, or many times K.

    position: (K, 3) of their middles [m, world]
    quaternion: (K, 4) w, x, y, z, turns their own into world coordinates
    target: (3) what the camera follows [m, world]; None for the middle of them all
    """

    position: np.ndarray
    quaternion: np.ndarray
    target: np.ndarray | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays of one robot, by name."""
        count = np.shape(self.position)[-2:-1]
        return {"position": (*count, 3), "quaternion": (*count, 4), "target": (3,)} | super().shapes()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not np.any(self.quaternion, axis=-1).all():
            raise RenderError(f"scenery: quaternion: of length 0: {np.asarray(self.quaternion).tolist()}")
