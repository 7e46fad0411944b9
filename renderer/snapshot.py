"""What one frame shows: plain numbers, copied out of whatever produced them."""

import dataclasses

import numpy as np

from renderer.display import RenderError

SHAPES = {"base_position": (3,), "base_quaternion": (4,), "joint_position": (12,), "foot_contact_force": (4, 3), "goal": (3,), "push": (3,)}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The state of one robot at one moment.

    base_position: (3) of the base origin [m, world]
    base_quaternion: (4) w, x, y, z, turns base into world coordinates
    joint_position: (12) legs FL, FR, RL, RR, each hip, thigh, calf [rad]
    foot_contact_force: (4, 3) of the ground on the feet [N, world]
    goal: (3) where the centre of mass should be [m, world], or None
    push: (3) kick of the base velocity [m/s, world], drawn for as long as it is given, or None
    ghost: another pose of the robot, drawn transparent: base_position, base_quaternion, joint_position, or None
    hud: (label, value) rows, from top to bottom
    fallen: whether the episode counts the robot as fallen
    time: since the start of the episode [s]

    Raises RenderError, naming the field, if an array has another shape or is not finite.
    """

    base_position: np.ndarray
    base_quaternion: np.ndarray
    joint_position: np.ndarray
    foot_contact_force: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((4, 3)))
    goal: np.ndarray | None = None
    push: np.ndarray | None = None
    ghost: "Snapshot | None" = None
    hud: tuple[tuple[str, str], ...] = ()
    fallen: bool = False
    time: float = 0.0

    def __post_init__(self) -> None:
        for name, shape in SHAPES.items():
            value = getattr(self, name)
            if value is None and name in ("goal", "push"):
                continue
            if np.shape(value) != shape:
                raise RenderError(f"snapshot: {name}: expected shape {shape}, got {np.shape(value)}")
            if not np.isfinite(value).all():
                raise RenderError(f"snapshot: {name}: not finite, the simulation has diverged: {np.asarray(value).tolist()}")
