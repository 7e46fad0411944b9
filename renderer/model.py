"""What a robot looks like: its solids, built once from its dimensions, and where they are in a frame."""

from collections.abc import Callable
from functools import partial

import numpy as np

from physics.robot import Robot
from renderer.figure import STEM, Figure, Paint, Pose, Stance, paint, place
from renderer.kinematics import CALF, FOOT, HIP, THIGH, leg_frames, rotation
from renderer.shapes import Shape, arrow, ball, capsule, drum, outside, rounded_box
from renderer.snapshot import Snapshot

__all__ = ["GROUPS", "STEM", "Model", "place"]

# Groups of solids that move as one.
TRUNK = 0
ACCENT = 1
LINK = 2  # 12: legs FL, FR, RL, RR, each hip, thigh, calf
FOOT_PAD = 14  # 4
FORCE = 18  # 4 arrows, from the feet
PUSH = 22
GROUPS = 25  # with those of every figure

FORCE_LENGTH = 1.6  # of an arrow that carries the whole weight, in leg segments
PUSH_LENGTH = 0.35  # of an arrow [m per m/s]
TOUCH = 0.02  # share of the weight from which a foot counts as in contact


SHELL = paint("#E9EBEE", 0.35)
GRAPHITE = paint("#3A414B", 0.3)
STEEL = paint("#8E99A6", 0.45)
GLASS = paint("#12161C", 0.9)
TEAL = paint("#16A69A", 0.3)
RUBBER = paint("#23272D", 0.1)
AMBER = paint("#FF9F1C", 0.0).colour
CORAL = paint("#F2545B", 0.2)
LAMP = paint("#0B0D10", 0.4)  # shows the colour of its glow


# around what is round, and in half of an edge's bend, from near to far
DETAILS = (14, 2), (9, 1), (6, 1), (5, 0)


class Model(Figure):
    """The solids of one robot; its reach is half its length; detail: of DETAILS."""

    arrows = slice(FORCE, PUSH + 1)

    def __init__(self, robot: Robot, detail: int = 0) -> None:
        self.robot = robot
        self.detail = detail
        segments, steps = DETAILS[detail]
        self._drum, self._capsule, self._ball = (partial(shape, segments=segments) for shape in (drum, capsule, ball))
        self._box = partial(rounded_box, steps=steps)
        self._arrow = arrow(segments)
        self._parts: list[list[tuple[Shape, Paint]]] = [[] for _ in range(GROUPS - 2)]
        self.segment = s = float(np.linalg.norm(robot.offset[:, 2], axis=1).mean())  # length of a thigh [m]
        shoulder = float(np.abs(robot.offset[:, 0, 0]).max())
        self.nose = max(float(robot.trunk_half_extents[0]), shoulder + 0.45 * s)
        self._add_trunk(shoulder)
        for leg in range(4):
            self._add_leg(leg)
        for parts in self._parts:
            seen = outside([shape for shape, _ in parts])
            parts[:] = [(shape, coat) for shape, (_, coat) in zip(seen, parts, strict=True)]
        self._add_arrows()
        super().__init__(self._parts, self.nose + 0.5 * s, (0.14 * s, 1.1 * self.nose, 0.03 * s, 0.02 * s), segments)

    def coarser(self) -> "Model | None":
        """Return the robot with fewer triangles; see Figure."""
        return Model(self.robot, self.detail + 1) if self.detail + 1 < len(DETAILS) else None

    def _add(self, group: int, coat: Paint, *shapes: Shape) -> None:
        self._parts[group] += [(shape, coat) for shape in shapes]

    def _add_trunk(self, shoulder: float) -> None:
        _, y, z = self.robot.trunk_half_extents
        s = self.segment
        nose = self.nose
        hull = shoulder + 0.3 * (nose - shoulder)
        tail = max(float(self.robot.trunk_half_extents[0]), hull + 0.1 * s)
        self._add(TRUNK, SHELL, self._box([0, 0, 0.12 * z], [hull, y, 0.88 * z], 0.4 * z))
        self._add(TRUNK, GRAPHITE, self._box([0, 0, -0.35 * z], [0.93 * hull, 0.9 * y, 0.72 * z], 0.25 * z))
        self._add(TRUNK, GRAPHITE, self._box([-0.05 * hull, 0, 1.02 * z], [0.5 * hull, 0.55 * y, 0.14 * z], 0.1 * z))
        self._add(ACCENT, LAMP, self._box([0, 0, 0.25 * z], [0.55 * hull, 1.012 * y, 0.1 * z], 0.03 * z))
        # The head: a shell around a dark face with two lamps, so that the front is never in doubt.
        length = 0.5 * (nose - hull) + 0.1 * s
        self._add(TRUNK, SHELL, self._box([nose - length, 0, 0.22 * z], [length, 0.68 * y, 0.74 * z], 0.45 * z))
        self._add(TRUNK, GLASS, self._box([nose - 0.1 * s, 0, 0.22 * z], [0.115 * s, 0.56 * y, 0.5 * z], 0.3 * z))
        for side in (-1, 1):
            self._add(
                ACCENT,
                LAMP,
                self._drum([nose, side * 0.33 * y, 0.26 * z], [nose + 0.03 * s, side * 0.33 * y, 0.26 * z], 0.17 * z),
            )
        length = 0.5 * (tail - hull) + 0.1 * s
        self._add(TRUNK, GRAPHITE, self._box([length - tail, 0, 0.05 * z], [length, 0.62 * y, 0.6 * z], 0.3 * z))

    def _add_leg(self, leg: int) -> None:
        robot = self.robot
        s = self.segment
        hip, thigh, calf = (LINK + 3 * leg + joint for joint in range(3))
        shoulder = robot.offset[leg, 1]
        knee = robot.offset[leg, 2]
        foot = robot.foot_offset[leg]
        front = np.sign(robot.offset[leg, 0, 0])
        side = np.sign(shoulder[1])
        x = np.array([1.0, 0, 0])
        y = np.array([0, side, 0])
        # Hip: a motor along the roll axis, and the one that drives the thigh across it.
        self._add(hip, GRAPHITE, self._drum(-0.16 * s * x * front, 0.27 * s * x * front, 0.21 * s))
        self._add(hip, STEEL, self._drum(0.26 * s * x * front, 0.3 * s * x * front, 0.12 * s))
        inner = shoulder - 0.1 * s * y
        if np.linalg.norm(inner) > 0.02 * s:
            self._add(hip, GRAPHITE, self._capsule([0, 0, 0], inner, 0.17 * s, 0.17 * s))
        self._add(hip, GRAPHITE, self._drum(shoulder - 0.24 * s * y, shoulder - 0.1 * s * y, 0.22 * s))
        # Thigh: in the plane of the knee, which on some robots lies further out than the hip.
        out = np.array([0, knee[1], 0])
        self._add(thigh, GRAPHITE, self._drum(-0.12 * s * y, out + 0.1 * s * y, 0.205 * s))
        self._add(thigh, TEAL, self._drum(out + 0.1 * s * y, out + 0.175 * s * y, 0.1 * s))
        along = (knee - out) / np.linalg.norm(knee - out)
        self._add(thigh, SHELL, self._capsule(out + 0.06 * s * along, knee - 0.03 * s * along, 0.16 * s, 0.1 * s))
        self._add(thigh, GRAPHITE, self._drum(knee - 0.115 * s * y, knee + 0.115 * s * y, 0.115 * s))
        # Calf and foot: the foot at its true radius, for it is seen touching the ground.
        radius = robot.foot_radius[leg]
        self._add(calf, GRAPHITE, self._capsule([0, 0, 0], 0.35 * foot, 0.095 * s, 0.075 * s))
        self._add(calf, STEEL, self._capsule(0.3 * foot, foot, 0.07 * s, min(0.8 * radius, 0.065 * s)))
        self._add(FOOT_PAD + leg, RUBBER, self._ball([0, 0, 0], radius))

    def _add_arrows(self) -> None:
        r = 0.05 * self.segment
        for leg in range(4):
            self._add(FORCE + leg, TEAL, self._arrow.scaled(r, r, 1))
        self._add(PUSH, CORAL, self._arrow.scaled(2 * r, 2 * r, 1))

    def pose(self, frame: Snapshot) -> Pose:
        """Return where the robots and their arrows are in a frame."""
        base = np.asarray(frame.base_position, float).reshape(-1, 3)
        quaternion = np.reshape(frame.base_quaternion, (-1, 4))
        R_WB = rotation(quaternion)
        points, links = leg_frames(self.robot, base, R_WB, np.reshape(frame.joint_position, (-1, 12)))
        count = len(base)
        pose = Pose.hidden(count, GROUPS)
        trunk = base + R_WB @ self.robot.trunk_centre
        pose.limbs = self._limbs(points, base, R_WB)
        pose.put(slice(TRUNK, ACCENT + 1), trunk[:, None], R_WB[:, None])
        pose.glow[:, ACCENT] = np.where(np.reshape(frame.fallen, (-1, 1)), CORAL.colour, TEAL.colour)
        pose.put(
            slice(LINK, LINK + 12), points[:, :, [HIP, THIGH, CALF]].reshape(count, 12, 3), links.reshape(-1, 12, 3, 3)
        )
        pose.put(slice(FOOT_PAD, FOOT_PAD + 4), points[:, :, FOOT], links[:, :, 2])
        if frame.foot_contact_force is not None:
            force = np.asarray(frame.foot_contact_force, float).reshape(-1, 4, 3)
            load = np.linalg.norm(force, axis=2) / (9.81 * self.robot.total_mass)
            touches = load > TOUCH
            glow = AMBER * (0.35 + 0.65 * np.minimum(2 * load, 1.0))[..., None]
            pose.glow[:, FOOT_PAD : FOOT_PAD + 4] = np.where(touches[..., None], glow, 0.0)
            length = FORCE_LENGTH * self.segment * load
            pose.put(slice(FORCE, FORCE + 4), points[:, :, FOOT], upright(force), length, touches)
        if frame.push is not None and np.any(frame.push):
            kick = np.asarray(frame.push, float).reshape(-1, 3)
            length = PUSH_LENGTH * np.linalg.norm(kick, axis=1)
            turn = upright(kick)
            # Above the back, where no view hides it.
            start = base - 0.5 * length[:, None] * turn[..., 2] + [0, 0, 0.6 * self.segment]
            pose.put(PUSH, start, turn, length, length > 0)
        return pose

    def _limbs(
        self, legs: np.ndarray, trunk: np.ndarray, R_WB: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what casts the shadow, as of Pose; legs: (N, 4, 4, 3) points of leg_frames()."""
        width = self.robot.trunk_half_extents[1]
        forward = R_WB[:, None, :, 0]
        rails = trunk[:, None] + 0.45 * width * np.array([-1, 1])[:, None] * R_WB[:, None, :, 1]
        length = self.nose - 0.55 * width
        foot = legs[:, :, FOOT]
        starts = np.concatenate([rails - forward * length, legs[:, :, THIGH], legs[:, :, CALF], foot], 1)
        ends = np.concatenate([rails + forward * length, legs[:, :, CALF], foot, foot + [0, 0, 1e-3]], 1)
        s = self.segment
        radii = np.concatenate([[0.55 * width] * 2, [0.13 * s] * 4, [0.07 * s] * 4, self.robot.foot_radius])
        return starts, ends, radii

    def focus(self, frame: Snapshot, ground: Callable[[float, float], float]) -> np.ndarray:
        """Return what the camera follows: the base, its height above the ground held back."""
        x, y, z = np.reshape(frame.base_position, (-1, 3))[frame.watched]
        level = ground(x, y)
        height = 0.75 * self.robot.home_height
        return np.array([x, y, level + height + 0.3 * (z - level - height)])

    def stance(self, frame: Snapshot) -> Stance:
        """Return how the robot that is watched stands."""
        position, quaternion, joints = (
            np.reshape(array, (-1, size))[[frame.watched]]
            for array, size in (
                (frame.base_position, 3), (frame.base_quaternion, 4), (frame.joint_position, 12),
            )
        )  # fmt: skip
        turns = rotation(quaternion)
        points, _ = leg_frames(self.robot, position, turns, joints)
        turn = turns[0]
        feet = points[0, :, FOOT] - [0.0, 0.0, 1.0] * self.robot.foot_radius[:, None]
        touches = np.zeros(4, bool)
        if frame.foot_contact_force is not None:
            force = np.reshape(frame.foot_contact_force, (-1, 4, 3))[frame.watched]
            touches = np.linalg.norm(force, axis=1) > TOUCH * 9.81 * self.robot.total_mass
        ahead = np.array([self.nose + 0.05 * self.segment, 0.0, 0.3 * self.robot.trunk_half_extents[2]])
        return Stance(position[0], turn, feet, touches, position[0] + turn @ (self.robot.trunk_centre + ahead))


def upright(direction: np.ndarray) -> np.ndarray:
    """Return rotations (..., 3, 3) that turn the z axis towards directions (..., 3); of zero, none."""
    length = np.linalg.norm(direction, axis=-1, keepdims=True)
    z = np.where(length > 0, direction / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])
    x = np.cross(np.where(abs(z[..., 1:2]) < 0.9, [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]), z)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], -1)
