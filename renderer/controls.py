"""What users may ask for while they watch: keys, buttons and overlays, declared once for windows and browsers."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Control:
    """Something that a key asks for.

    key, button: raylib's names of them, less KEY_ and GAMEPAD_BUTTON_; says: what it does; opposite: what the key asks
    for with shift, "" for nothing; view: whether it changes what is seen and not what happens, so that a window obeys
    it by itself
    """

    name: str
    key: str
    says: str
    opposite: str = ""
    button: str = ""
    view: bool = False


CONTROLS = (
    Control("pause", "SPACE", "pause", button="RIGHT_FACE_DOWN"),
    Control("step", "ENTER", "one control step while paused"),
    Control("slower", "Z", "half as fast; shift: twice", "faster"),
    Control("reset", "R", "new episode", button="MIDDLE_RIGHT"),
    Control("next", "N", "next robot; shift: the one before", "previous", "RIGHT_TRIGGER_1"),
    Control("drive", "T", "drive, or leave the commands to the task", button="MIDDLE_LEFT"),
    Control("grip", "F", "more friction; shift: less", "slip"),
    Control("load", "L", "more payload; shift: less", "unload"),
    Control("harder", "G", "harder ground; shift: easier", "easier"),
    Control("checkpoint", "K", "next checkpoint; shift: the one before", "checkpoint before"),
    Control("simulator", "M", "Foal's physics or MuJoCo's"),
    Control("camera", "C", "camera: orbit, chase, eyes, free", button="RIGHT_FACE_UP", view=True),
    Control("home", "V", "first view again", view=True),
    Control("help", "H", "these keys", view=True),
)

# What is drawn beside the robots, by name: its key, and what it is
OVERLAYS = {
    "forces": ("ONE", "contact forces and shoves"),
    "balance": ("TWO", "centre of mass and support polygon"),
    "speed": ("THREE", "commanded and actual velocity"),
    "torques": ("FOUR", "joint torques, in shares of their limits"),
    "rewards": ("FIVE", "reward, term by term"),
    "ground": ("SIX", "heights of the ground about the robot"),
    "ghosts": ("SEVEN", "reference motion, and what the world model foresaw"),
    "trails": ("EIGHT", "where the feet were"),
    "numbers": ("NINE", "this card"),
}
DETAILED = ("balance", "speed", "torques", "rewards", "ground")  # those that show Frame.detail
IN_SPACE = frozenset(("balance", "speed", "ground", "trails"))  # those of renderer.overlays
SHOWN = ("forces", "ghosts", "numbers")  # at first

PASSIVE = ("pause", "next")  # what may be asked for where robots do not obey, as those that are in training
BY_HAND = (
    ("arrows", "drive; shift: sideways"),
    ("sticks", "drive: left one forward and sideways, right one turn"),
    ("click", "choose a robot, or set a goal on the ground"),
    ("drag", "from a robot: shove it; else turn the camera"),
)
BY_HAND_PASSIVE = (
    ("click", "choose a robot"),
    ("drag", "turn the camera"),
)
BY_HAND_VIEW = (
    ("wheel", "closer, further"),
    ("WASD QE", "move the free camera"),
)


@dataclasses.dataclass(frozen=True)
class Requests:
    """What a user asked for since the frame before.

    controls: names of CONTROLS, and opposites
    drive: (3) forward, to the left and turn to the left, in shares of the largest, from -1 to 1; None: nothing held
    chosen: the number of a robot that was clicked, or None
    shove: the number of a robot and (3) what to add to its velocity [m/s, world], or None
    goal: (3) a place on the ground that was clicked [m, world], or None
    checkpoint: one chosen from a list by its name, "" for none
    """

    controls: tuple[str, ...] = ()
    drive: tuple[float, float, float] | None = None
    chosen: int | None = None
    shove: tuple[int, np.ndarray] | None = None
    goal: np.ndarray | None = None
    checkpoint: str = ""


def offered(driven: bool) -> tuple[Control, ...]:
    """Return those of CONTROLS that do something; driven: whether the robots obey."""
    return tuple(control for control in CONTROLS if driven or control.view or control.name in PASSIVE)


def keys(driven: bool) -> tuple[tuple[str, str], ...]:
    """Return every key or movement of the mouse and what it does; driven: whether the robots obey."""
    return (
        *((control.key.capitalize(), control.says) for control in offered(driven)),
        *((str(i), what) for i, (_, what) in enumerate(OVERLAYS.values(), 1)),
        *(BY_HAND if driven else BY_HAND_PASSIVE),
        *BY_HAND_VIEW,
    )


def overlays(names: str) -> tuple[str, ...]:
    """Return names of OVERLAYS, given with commas or spaces between; raise ValueError for another."""
    found = tuple(names.replace(",", " ").split())
    if unknown := [name for name in found if name not in OVERLAYS]:
        raise ValueError(f"expected names of {', '.join(OVERLAYS)}, got {unknown[0]!r}")
    return found
