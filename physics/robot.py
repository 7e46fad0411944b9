"""A quadruped's facts: read from a file, checked, and written."""

import dataclasses
import json
import math
import os
import pathlib
import re

import numpy as np

from physics.jit import ROOT

LEGS = ("FL", "FR", "RL", "RR")
JOINTS = ("hip", "thigh", "calf")
AXES = ("x", "y", "y")
EDGED = 1 / 3, 2 / 3  # of the way from knee to foot: where a calf touches edges of the ground


class RobotError(ValueError):
    """A robot file that cannot be used; the message names the file and the field."""


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """What a robot's file leaves open, or has otherwise.

    lock: angle of joints to be locked, by name [rad]; torque_limit: of every joint, 0 for the file's [N m];
    foot_radius: of every foot, 0 for the file's [m].
    """

    lock: tuple[tuple[str, float], ...] = ()
    torque_limit: float = 0.0
    foot_radius: float = 0.0


LARGEST = 1e100  # magnitude of a number in a file, whatever it is of
# Beyond what any legged robot has, and within what single precision computes with
LIMITS = {
    "mass": (1e-4, 1e4, "kg"),
    "com": (-10.0, 10.0, "m"),
    "inertia": (1e-9, 1e5, "kg m^2"),
    "trunk_half_extents": (1e-4, 10.0, "m"),
    "trunk_centre": (-10.0, 10.0, "m"),
    "offset": (-10.0, 10.0, "m"),
    "length of thigh and calf": (1e-3, 10.0, "m"),
    "foot.offset": (-10.0, 10.0, "m"),
    "foot.radius": (1e-4, 1.0, "m"),
    "damping": (0.0, 1e4, "N m s/rad"),
    "armature": (0.0, 1e3, "kg m^2"),
    "frictionloss": (0.0, 1e4, "N m"),
    "torque_limit": (1e-4, 1e5, "N m"),
    "kp": (0.0, 1e6, "N m/rad"),
    "kd": (0.0, 1e5, "N m s/rad"),
    "joint_range": (-50.0, 50.0, "rad"),
    "home.height": (1e-3, 10.0, "m"),
    "home.joints": (-50.0, 50.0, "rad"),
}


@dataclasses.dataclass(frozen=True)
class Link:
    """A rigid body: mass [kg], com (3) from its own origin [m], inertia about com (3, 3) [kg m^2]."""

    mass: float
    com: np.ndarray
    inertia: np.ndarray


@dataclasses.dataclass(frozen=True)
class Robot:
    """A floating base with four legs of three joints, about x, y and y.

    Every link frame is parallel to the base frame at zero joint angles, its origin on the joint
    axis. Arrays over legs are in the order FL, FR, RL, RR; over joints hip, thigh, calf.
    """

    name: str
    base: Link
    trunk_half_extents: np.ndarray  # (3) [m]
    links: tuple  # (4, 3) of Link
    offset: np.ndarray  # (4, 3, 3) joint origin in the parent's frame [m]
    foot_offset: np.ndarray  # (4, 3) foot centre in the calf's frame [m]
    foot_radius: np.ndarray  # (4) [m]
    damping: np.ndarray  # (4, 3) [N m s/rad]
    armature: np.ndarray  # (4, 3) [kg m^2]
    friction: np.ndarray  # (4, 3) [N m]
    torque_limit: np.ndarray  # (4, 3) [N m]
    joint_range: np.ndarray  # (4, 3, 2) [rad]
    home_height: float  # of the base origin, standing [m]
    home_joints: np.ndarray  # (4, 3) [rad]
    joint_names: tuple = tuple(tuple(f"{leg}_{joint}" for joint in JOINTS) for leg in LEGS)  # (4, 3), of the file
    trunk_centre: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))  # of its box, base frame [m]
    # (4, 3) 1, or -1 where the joint turns the other way in the file: its angle is that times this one's
    joint_signs: np.ndarray = dataclasses.field(default_factory=lambda: np.ones((4, 3)))
    joint_order: tuple[int, ...] = tuple(range(12))  # which of the twelve above each of the file's is, in its order
    # gains of the PD law that it is driven by, (4, 3) [N m/rad] and [N m s/rad], None where its file has none
    kp: np.ndarray | None = None
    kd: np.ndarray | None = None
    # whether its joints' damping is that of the motors' law, within their torque limits: who drives it by a law of its
    # own leaves the joints none (undamped())
    motors_damp: bool = False
    notes: tuple[str, ...] = ()  # what an import did and assumed, for people

    @property
    def total_mass(self) -> float:
        """Mass of all links [kg]."""
        return self.base.mass + sum(link.mass for leg in self.links for link in leg)

    def undamped(self) -> "Robot":
        """Return the robot without its joints' damping, if that is its motors' (motors_damp)."""
        return dataclasses.replace(self, damping=np.zeros((4, 3))) if self.motors_damp else self

    def carrying(self, payload: float) -> "Robot":
        """Return the robot with a mass [kg], as of a point, on the middle of its trunk's upper side."""
        if not payload:
            return self
        base = self.base
        at = self.trunk_centre + [0.0, 0.0, self.trunk_half_extents[2]]
        mass = base.mass + payload
        com = (base.mass * base.com + payload * at) / mass
        inertia = base.inertia.copy()
        for part, place in ((base.mass, base.com), (payload, at)):  # Steiner's theorem
            r = place - com
            inertia += part * (r @ r * np.eye(3) - np.outer(r, r))
        return dataclasses.replace(self, base=Link(mass, com, inertia))

    def require_physical(self, file: str) -> None:
        """Raise RobotError, naming file and field, where a number lies beyond what any legged robot has."""
        bodies = [self.base, *(link for leg in self.links for link in leg)]
        found = {
            "mass": [body.mass for body in bodies],
            "com": [body.com for body in bodies],
            "inertia": [np.linalg.eigvalsh(body.inertia) for body in bodies],
            "length of thigh and calf": np.linalg.norm([*self.offset[:, 2], *self.foot_offset], axis=1),
            "foot.offset": self.foot_offset,
            "foot.radius": self.foot_radius,
            "frictionloss": self.friction,
            "home.height": self.home_height,
            "home.joints": self.home_joints,
        } | {name: getattr(self, name) for name in LIMITS if hasattr(self, name)}
        for name, (low, high, unit) in LIMITS.items():
            if found[name] is None:
                continue
            values = np.asarray(found[name], float)
            if not ((low <= values) & (values <= high)).all():
                wrong = values[~((low <= values) & (values <= high))][0]
                raise RobotError(f"{file}: {name}: expected numbers between {low:g} and {high:g} {unit}, got {wrong:g}")

    def hold_torques(self, gravity: float = 9.81) -> np.ndarray:
        """Return the motor torques (4, 3) that hold the home pose on the ground [N m].

        Statics: tau = -sum J^T F over the weights of the links beyond a joint and the ground's force
        on the foot, which is the left and right foot's equal share of what the moment balance leaves
        to the front and rear feet.
        """
        up = np.array([0.0, 0.0, 1.0])
        joints, coms, _, feet = self._home_pose()
        masses = np.array([[link.mass for link in leg] for leg in self.links])
        com_x = (self.base.mass * self.base.com[0] + (masses * coms[..., 0]).sum()) / self.total_mass
        front = feet[:2, 0].mean()
        rear = feet[2:, 0].mean()
        share = (com_x - rear) / (front - rear) / 2  # of the weight, on each front foot
        torques = np.zeros((4, 3))
        for i in range(4):
            load = gravity * self.total_mass * (share if i < 2 else 0.5 - share)
            for j in range(3):
                axis = (
                    np.array([1.0, 0.0, 0.0])
                    if j == 0
                    else np.array([0.0, np.cos(self.home_joints[i, 0]), np.sin(self.home_joints[i, 0])])
                )
                torques[i, j] = -load * np.cross(axis, feet[i] - joints[i, j]) @ up
                torques[i, j] += sum(
                    gravity * masses[i, k] * np.cross(axis, coms[i, k] - joints[i, j]) @ up for k in range(j, 3)
                )
        return torques

    def leg_inertia(self, leg: int) -> np.ndarray:
        """Return the inertia (3, 3) that a leg's joints feel in the home pose, with armature, base held [kg m^2]."""
        axes, moves = self._leg_motion(leg)
        _, _, turns, _ = self._home_pose()
        inertia = np.diag(self.armature[leg]).astype(float)
        for k in range(3):
            link = self.links[leg][k]
            turn = np.array([axes[j] if j <= k else np.zeros(3) for j in range(3)]) @ turns[leg, k]
            inertia += link.mass * moves[k] @ moves[k].T + turn @ link.inertia @ turn.T
        return inertia

    def foot_mass(self) -> float:
        """Return the least mass that a foot shows to a push, over legs and directions, home pose, base held [kg].

        1 / largest eigenvalue of J H^-1 J^T, where H is the inertia of the leg's joints, with
        armature, and J moves the foot.
        """
        joints, _, _, feet = self._home_pose()
        least = math.inf
        for i in range(4):
            axes, _ = self._leg_motion(i)
            foot = np.array([np.cross(axes[j], feet[i] - joints[i, j]) for j in range(3)])
            least = min(least, 1.0 / np.linalg.eigvalsh(foot.T @ np.linalg.solve(self.leg_inertia(i), foot))[-1])
        return float(least)

    def _leg_motion(self, leg: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the axes of a leg's joints, and how each link's com moves with them (3, 3), home pose, base frame."""
        joints, coms, turns, _ = self._home_pose()
        axes = [np.eye(3)[0], turns[leg, 0, :, 1], turns[leg, 0, :, 1]]
        moves = [
            np.array([np.cross(axes[j], coms[leg, k] - joints[leg, j]) if j <= k else np.zeros(3) for j in range(3)])
            for k in range(3)
        ]
        return axes, moves

    def _home_pose(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return joints (4, 3, 3), links' coms (4, 3, 3) and axes (4, 3, 3, 3), feet (4, 3) in the base frame [m]."""
        joints = np.zeros((4, 3, 3))
        coms = np.zeros((4, 3, 3))
        turns = np.zeros((4, 3, 3, 3))
        feet = np.zeros((4, 3))
        for i in range(4):
            origin = np.zeros(3)
            turn = np.eye(3)
            for j in range(3):
                origin = origin + turn @ self.offset[i, j]
                s = np.sin(self.home_joints[i, j])
                c = np.cos(self.home_joints[i, j])
                turn = turn @ (
                    np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
                    if j == 0
                    else np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
                )
                joints[i, j] = origin
                coms[i, j] = origin + turn @ self.links[i][j].com
                turns[i, j] = turn
            feet[i] = origin + turn @ self.foot_offset[i]
        return joints, coms, turns, feet


class _Reader:
    """Reads fields of nested JSON objects; every error names the file and the field's path."""

    def __init__(self, file: str, data: dict) -> None:
        self.file = file
        self.data = data

    def fail(self, path: str, expected: str) -> RobotError:
        return RobotError(f"{self.file}: {path}: expected {expected}")

    def get(self, path: str) -> object:
        node = self.data
        for key in path.split("."):
            if isinstance(node, list):
                if not key.isdigit() or int(key) >= len(node):
                    raise self.fail(path, "an element that is missing")
                node = node[int(key)]
            elif isinstance(node, dict) and key in node:
                node = node[key]
            else:
                raise self.fail(path, "a field that is missing")
        return node

    def number(self, path: str, low: float = -math.inf, above: float = -math.inf) -> float:
        value = self.get(path)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST:
            raise self.fail(path, f"a finite number, got {value!r:.60}")
        if value < low or value <= above:
            raise self.fail(
                path,
                f"a number {'above ' + format(above, 'g') if value <= above else 'of at least ' + format(low, 'g')}, "
                f"got {value!r}",
            )
        return float(value)

    def vector(self, path: str, size: int) -> np.ndarray:
        value = self.get(path)
        if not isinstance(value, list) or len(value) != size:
            raise self.fail(path, f"a list of {size} numbers, got {value!r:.60}")
        return np.array([self.number(f"{path}.{i}") for i in range(size)])

    def link(self, path: str) -> Link:
        xx, xy, xz, yy, yz, zz = self.vector(f"{path}.inertia", 6)
        inertia = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        moments = np.linalg.eigvalsh(inertia)
        if moments[0] <= 0 or moments[2] > (moments[0] + moments[1]) * (1 + 1e-6):
            raise self.fail(
                f"{path}.inertia",
                "a positive definite inertia whose principal moments obey the triangle inequality, "
                f"got moments {moments}",
            )
        return Link(self.number(f"{path}.mass", above=0.0), self.vector(f"{path}.com", 3), inertia)


def load_robot(name: str | os.PathLike, options: ImportOptions | None = None) -> Robot:
    """Read a robot.

    name: of a file in ``robots/`` without its ending, or a path to a JSON file, an MJCF model (``.xml``, ``.mjcf``),
    a URDF (``.urdf``) or what one is made of (``.xacro``); these need MuJoCo and are read as import_robot() says.

    Raises RobotError, naming the file and the field, if the file is missing or malformed, a
    mass is not positive or an inertia not physical.
    """
    if pathlib.Path(name).is_dir() and not (ROOT / "robots" / f"{name}.json").is_file():
        raise RobotError(f"{name}: expected a robot's file, got a folder")
    if pathlib.Path(name).suffix.lower() in (".xml", ".mjcf", ".urdf", ".xacro"):
        from physics.model_import import import_robot  # here, for it imports this module

        return import_robot(pathlib.Path(name), options)
    path = pathlib.Path(name) if str(name).endswith(".json") else ROOT / "robots" / f"{name}.json"
    try:
        data = json.loads(path.read_text())
    except OSError:
        known = ", ".join(sorted(p.stem for p in (ROOT / "robots").glob("*.json")))
        raise RobotError(f"{path}: no such robot file; known robots: {known}") from None
    except (ValueError, RecursionError) as error:
        raise RobotError(f"{path}: expected JSON: {error}") from None
    read = _Reader(str(path), data)
    joints = [f"legs.{leg}.links.{i}" for leg in LEGS for i in range(3)]
    for joint, name_, axis in zip(joints, JOINTS * 4, AXES * 4, strict=True):
        for key, wanted in (("name", name_), ("axis", axis)):
            if read.get(f"{joint}.{key}") != wanted:
                raise read.fail(f"{joint}.{key}", f"{wanted!r}, got {read.get(f'{joint}.{key}')!r}")
        low, high = read.vector(f"{joint}.joint_range", 2)
        if not low < high:
            raise read.fail(f"{joint}.joint_range", f"[low, high], got [{low}, {high}]")

    def per_joint(field: str, **limits: float) -> np.ndarray:
        return np.array([read.number(f"{joint}.{field}", **limits) for joint in joints]).reshape(4, 3)

    found = [[data["legs"][leg]["links"][i] for i in range(3)] for leg in LEGS]
    names = [[link.get("joint", f"{leg}_{joint}") for link, joint in zip(links, JOINTS, strict=True)]
             for leg, links in zip(LEGS, found, strict=True)]  # fmt: skip
    signs = np.array([[link.get("sign", 1) for link in links] for links in found])
    if not (np.isin(signs, (1, -1)).all() and all(isinstance(name, str) for leg in names for name in leg)):
        raise read.fail("legs", "joint, a name, and sign, 1 or -1, of a link that has them")
    order = tuple(data.get("joint_order", range(12)))
    if sorted(order) != list(range(12)):
        raise read.fail("joint_order", f"each of 0 to 11, got {order!r:.80}")
    motors_damp = data.get("motors_damp", False)
    if not isinstance(motors_damp, bool):
        raise read.fail("motors_damp", f"true or false, got {motors_damp!r:.80}")
    robot = Robot(
        name=path.stem,
        base=read.link("base"),
        trunk_half_extents=read.vector("trunk_half_extents", 3),
        links=tuple(tuple(read.link(f"legs.{leg}.links.{i}") for i in range(3)) for leg in LEGS),
        offset=np.array([read.vector(f"{joint}.offset", 3) for joint in joints]).reshape(4, 3, 3),
        foot_offset=np.array([read.vector(f"legs.{leg}.foot.offset", 3) for leg in LEGS]),
        foot_radius=np.array([read.number(f"legs.{leg}.foot.radius", above=0.0) for leg in LEGS]),
        damping=per_joint("damping", low=0.0),
        armature=per_joint("armature", low=0.0),
        friction=per_joint("frictionloss", low=0.0),
        torque_limit=per_joint("torque_limit", above=0.0),
        joint_range=np.array([read.vector(f"{joint}.joint_range", 2) for joint in joints]).reshape(4, 3, 2),
        home_height=read.number("home.height", above=0.0),
        home_joints=np.array([read.vector(f"home.joints.{leg}", 3) for leg in LEGS]),
        trunk_centre=read.vector("trunk_centre", 3) if "trunk_centre" in data else np.zeros(3),
        joint_names=tuple(map(tuple, names)),
        joint_signs=signs.astype(float),
        joint_order=order,
        kp=_gains(read, joints, "kp"),
        kd=_gains(read, joints, "kd"),
        motors_damp=motors_damp,
    )
    options = options or ImportOptions()
    if options.lock:
        told = f"joint {options.lock[0][0]!r}: expected a joint that is no leg's; it has none"
        raise RobotError(f"{path}: robot.lock: {told}")
    if options.torque_limit:
        robot = dataclasses.replace(robot, torque_limit=np.full((4, 3), options.torque_limit))
    if options.foot_radius:
        higher = options.foot_radius - float(robot.foot_radius.mean())  # on feet whose centres stay where they are
        robot = dataclasses.replace(
            robot, foot_radius=np.full(4, options.foot_radius), home_height=robot.home_height + higher
        )
    robot.require_physical(str(path))
    return robot


def _gains(read: _Reader, joints: list[str], name: str) -> np.ndarray | None:
    """Return a gain of every joint (4, 3), None where no joint has one; raise RobotError where only some have."""
    if not any(name in read.get(joint) for joint in joints):
        return None
    return np.array([read.number(f"{joint}.{name}", low=0.0) for joint in joints]).reshape(4, 3)


def save_robot(robot: Robot, path: str | os.PathLike) -> None:
    """Write a robot as a JSON file that load_robot() reads; numbers are cut to nine digits.

    Raises RobotError if the ending is another, lest it replace the model that the robot came from, or the file
    cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix != ".json":
        raise RobotError(f"{path}: expected a file name that ends in .json")

    def tidy(values: np.ndarray | float) -> list | float:
        return [tidy(v) for v in values] if np.ndim(values) else round(float(f"{values:.9g}"), 15)

    def link(body: Link) -> dict:
        return {"mass": tidy(body.mass), "com": tidy(body.com), "inertia": tidy(body.inertia[np.triu_indices(3)])}

    def joint(i: int, j: int) -> dict:
        """Return what the file that the robot came from calls a joint, how it turns there, and its gains."""
        named = {"joint": robot.joint_names[i][j]} if robot.joint_names[i][j] != f"{LEGS[i]}_{JOINTS[j]}" else {}
        driven = {name: tidy(gain[i, j]) for name, gain in (("kp", robot.kp), ("kd", robot.kd)) if gain is not None}
        return named | ({"sign": -1} if robot.joint_signs[i, j] < 0 else {}) | driven

    legs = {
        leg: {
            "links": [
                {
                    "name": JOINTS[j], "axis": AXES[j], "offset": tidy(robot.offset[i, j]), **link(robot.links[i][j]),
                    "joint_range": tidy(robot.joint_range[i, j]), "damping": tidy(robot.damping[i, j]),
                    "armature": tidy(robot.armature[i, j]), "frictionloss": tidy(robot.friction[i, j]),
                    "torque_limit": tidy(robot.torque_limit[i, j]), **joint(i, j),
                }
                for j in range(3)
            ],
            "foot": {"offset": tidy(robot.foot_offset[i]), "radius": tidy(robot.foot_radius[i])},
        }
        for i, leg in enumerate(LEGS)
    }  # fmt: skip
    home = {
        "height": tidy(robot.home_height),
        "joints": {leg: tidy(robot.home_joints[i]) for i, leg in enumerate(LEGS)},
    }
    data = {
        "total_mass": tidy(robot.total_mass),
        "base": link(robot.base),
        "legs": legs,
        "home": home,
        "trunk_half_extents": tidy(robot.trunk_half_extents),
    }
    if robot.joint_order != tuple(range(12)):
        data["joint_order"] = list(robot.joint_order)
    if robot.motors_damp:
        data["motors_damp"] = True
    if robot.trunk_centre.any():
        data["trunk_centre"] = tidy(robot.trunk_centre)
    # a list of numbers on one line
    text = re.sub(
        r"\[\s([^][{}]*)\s\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", json.dumps(data, indent=1)
    )
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise RobotError(f"{path}: expected a file that can be written, got: {error.strerror}") from None
