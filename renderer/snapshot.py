"""What one frame shows: plain numbers, copied out of whatever produced them."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The state of one robot at one moment.

    base_position: (3) of the base origin [m, world]
    base_quaternion: (4) w, x, y, z, turns base into world coordinates
    joint_position: (12) legs FL, FR, RL, RR, each hip, thigh, calf [rad]
    foot_contact_force: (4, 3) of the ground on the feet [N, world]
    goal: (3) where the centre of mass should be [m, world], or None
    push: (3) kick of the base velocity [m/s, world], drawn for as long as it is given, or None
    hud: (label, value) rows, from top to bottom
    fallen: whether the episode counts the robot as fallen
    time: since the start of the episode [s]
    """

    base_position: np.ndarray
    base_quaternion: np.ndarray
    joint_position: np.ndarray
    foot_contact_force: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((4, 3)))
    goal: np.ndarray | None = None
    push: np.ndarray | None = None
    hud: tuple[tuple[str, str], ...] = ()
    fallen: bool = False
    time: float = 0.0
