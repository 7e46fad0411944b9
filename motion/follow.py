"""What tracking tasks follow: what a generator makes of each robot's command, or one clip."""

import copy
import math
import pathlib
import weakref

import numpy as np

from config import QuadrupedCfg
from environments.quadruped.reference import COLUMNS, LATER, Reference, columns
from motion import gait, kinematics
from motion.clip import Clip, load
from motion.generator import MotionGenerator, shipped
from physics.robot import Robot
from settings import ConfigError

BIN = 0.1  # length of the parts of a clip for which failures are counted [s]
MOST_BINS = 64
BLAME = 0.5  # how long before a failure its cause may lie: it counts exp(-t / BLAME) for a part t before [s]
CLOSED = 2.0  # times the usual step from frame to frame, up to which a clip's last frame leads to its first


class Steered(Reference):
    """Motion of a generator, steered by each robot's command."""

    def __init__(self, cfg: QuadrupedCfg, robot: Robot, num_envs: int, threads: int) -> None:
        super().__init__(cfg, robot, num_envs, threads)
        self.later = max(1, round(LATER / cfg.ctrl_dt))
        if not cfg.motion.network and not shipped(robot.name).is_file():
            raise ConfigError(
                f"motion.network: expected a file, no generator of {robot.name} comes with Foal; "
                f"python -m motion.fit --robot {cfg.model} --out FILE fits one"
            )
        self.generator = MotionGenerator(
            num_envs, "realtime", network=cfg.motion.network, robot=robot.name, ahead=self.later, threads=threads
        )
        fps = self.generator.net.fps
        if abs(fps * cfg.ctrl_dt - 1.0) > 1e-3:
            raise ConfigError(
                f"env.ctrl_dt: expected {1.0 / fps:g} s, as frames of the generator take, got {cfg.ctrl_dt:g}"
            )
        self._begin()

    def _begin(self) -> None:
        """Make what is each robot's."""
        n = self.num_envs
        self.asked = np.zeros((n, 3), np.float32)
        self.sheet = columns(reference_up=np.tile([0.0, 0.0, 1.0], (n, 1)))
        self.rows = self.starts = np.arange(n)

    def begin(self, seed: int, first_robot: int) -> None:
        """See Reference."""
        examples = self.generator.net.examples
        chosen = _uniform(seed, 0, first_robot, self.num_envs) * len(examples)
        self.asked[:] = 0.0
        self.generator.reset(init_motion=examples[chosen.astype(np.int64)], commands=self.asked)
        self.advance()

    def advance(self) -> None:
        """See Reference."""
        made = self.generator
        command = made.ring.command(slice(None), made.ring.at)
        shown = made.get_motion()
        following = made.peek(0)
        for name, x in (
            ("reference_joint", shown.joint_position),
            ("reference_joint_speed", shown.joint_velocity),
            ("next_joint", following.joint_position),
            ("next_joint_speed", following.joint_velocity),
            ("later_joint", made.peek(self.later - 1).joint_position),
        ):
            self.sheet[:, COLUMNS[name]] = x.numpy()
        self.sheet[:, COLUMNS["reference_velocity"].start : COLUMNS["reference_velocity"].start + 2] = command[:, :2]
        self.sheet[:, COLUMNS["reference_spin"].stop - 1] = command[:, 2]

    def settle(self, command: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, clock: int) -> None:
        """See Reference."""
        changed = np.flatnonzero((command != self.asked).any(axis=1))
        if len(changed):
            self.asked[changed] = command[changed]
            self.generator.update_commands(command[changed], changed)

    def part(self, first: int, last: int) -> "Steered":
        """See Reference."""
        part = copy.copy(self)
        part.num_envs = last - first
        whole = self.generator
        part.generator = MotionGenerator(part.num_envs, whole.mode, network=whole.net, ahead=whole.ahead, threads=1)
        part._begin()
        for name, x in part.arrays().items():
            mine = self.arrays()[name]
            x[...] = mine[:, first:last] if name == "motion" else mine[first:last]
        return part

    def arrays(self) -> dict[str, np.ndarray]:
        """See Reference."""
        ring = self.generator.ring
        found = {name: getattr(ring, name) for name in ("at", "end", "got", "start", "target", "since", "root")}
        return found | {"motion": ring.motion.numpy(), "asked": self.asked, "sheet": self.sheet}


class Recorded(Reference):
    """One clip, from its frames on, over and over or to its end, which is then held.

    Episodes begin anywhere in it, and more often where robots have failed: failures are counted by parts of the clip,
    for the part in which an episode ended as a fall and for those before, from which it may have come (as mjlab's and
    GMT's adaptive sampling do).
    """

    def __init__(self, cfg: QuadrupedCfg, robot: Robot, num_envs: int, threads: int) -> None:
        super().__init__(cfg, robot, num_envs, threads)
        self.clip = found(cfg.motion.clip, robot, 1.0 / cfg.ctrl_dt)
        self.cfg = cfg.motion
        self.closed = closes(self.clip)
        self.sheet, self.following = frames(self.clip, robot, self.closed, cfg.ctrl_dt)
        count = len(self.clip)
        bins = min(MOST_BINS, max(1, round(count * cfg.ctrl_dt / BIN)))
        self.bin = np.minimum(np.arange(len(self.sheet)) * bins // count, bins - 1)
        seconds = count * cfg.ctrl_dt / bins * np.arange(bins)
        self.blame = np.exp(-seconds / BLAME)
        self.failures = np.zeros(bins)  # what is known of them, of all parts
        self.shares = np.full(bins, 1.0 / bins)  # of episodes that begin in each part of the clip
        self.parts: weakref.WeakSet[Recorded] = weakref.WeakSet()  # that there are, itself among them
        self._begin()

    def _begin(self) -> None:
        """Make what is each robot's."""
        self.rows = np.zeros(self.num_envs, np.int64)
        self.starts = np.zeros(self.num_envs, np.int64)
        self.count = np.zeros_like(self.failures)  # of failures since then, of its own robots
        self.parts.add(self)
        self.seed = np.zeros(2, np.int64)  # and number of the first robot

    def begin(self, seed: int, first_robot: int) -> None:
        """See Reference."""
        self.seed[:] = seed, first_robot
        self.failures[:] = 0.0
        self.count[:] = 0.0
        self.shares[:] = 1.0 / len(self.shares)
        self.starts[:] = self._drawn(-1)

    def _drawn(self, clock: int) -> np.ndarray:
        """Return frames (N) to begin with."""
        seed, first = self.seed.tolist()
        part, within = (_uniform(seed, 2 * clock + 2 + i, first, self.num_envs) for i in range(2))
        part = np.minimum(np.searchsorted(np.cumsum(self.shares), part), len(self.shares) - 1)
        count = len(self.clip)
        return np.minimum((count * (part + within) / len(self.shares)).astype(np.int64), count - 1)

    def advance(self) -> None:
        """See Reference."""
        self.rows[:] = self.following[self.rows]

    def settle(self, command: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, clock: int) -> None:
        """See Reference."""
        self.count += np.bincount(self.bin[self.rows[terminated]], minlength=len(self.count))
        ended = terminated | truncated | (clock == 0)
        if ended.any():
            self.rows[ended] = self.starts[ended]
            self.starts[ended] = self._drawn(clock)[ended]

    def adapt(self) -> None:
        """See Reference."""
        failed = np.zeros_like(self.failures)
        for part in self.parts:
            failed += part.count
            part.count[:] = 0.0
        self.failures[:] = self.cfg.memory * self.failures + failed
        total = self.failures.sum()
        bins = len(self.failures)
        if total == 0.0:
            self.shares[:] = 1.0 / bins
            return
        # what happened in a part counts for those before it, round the end of a closed clip
        padded = np.concatenate([self.failures, self.failures if self.closed else np.zeros(bins)])
        blamed = np.array([padded[i : i + bins] @ self.blame for i in range(bins)])
        self.shares[:] = self.cfg.uniform / bins + (1.0 - self.cfg.uniform) * blamed / blamed.sum()

    def part(self, first: int, last: int) -> "Recorded":
        """See Reference."""
        part = copy.copy(self)
        part.num_envs = last - first
        part._begin()
        part.rows[:] = self.rows[first:last]
        part.starts[:] = self.starts[first:last]
        part.seed[:] = self.seed[0], self.seed[1] + first
        return part

    def arrays(self) -> dict[str, np.ndarray]:
        """See Reference."""
        names = "rows", "starts", "seed", "failures", "shares", "count"
        return {name: getattr(self, name) for name in names}


def pronk(robot: Robot, fps: float) -> Clip:
    """Return a pronk: all four feet at once, forward at half a metre a second."""
    return _cycles(robot, "pronk", np.array([0.5, 0.0, 0.0]), fps)


def spin(robot: Robot, fps: float) -> Clip:
    """Return a turn on the spot, at two radians a second."""
    return _cycles(robot, "trot", np.array([0.0, 0.0, 2.0]), fps)


CLIPS = {"pronk": pronk, "spin": spin}


def _cycles(robot: Robot, name: str, command: np.ndarray, fps: float) -> Clip:
    """Return cycles of a gait, as many as come out nearest to whole frames, up to ten."""
    frequency = float(gait.frequency(gait.of(name), command[None])[0])
    each = fps / frequency
    count = min(range(1, 11), key=lambda n: abs(n * each - round(n * each)) / n)
    return gait.clip(robot, name, np.tile(command, (round(count * each), 1)), fps)


def found(name: str, robot: Robot, fps: float) -> Clip:
    """Return a clip by its file or name, at frames a second.

    Raises ConfigError, naming the field, for none, or one of another robot.
    """
    if name in CLIPS:
        return CLIPS[name](robot, fps)
    if not name.endswith(".npz"):
        known = f"a file ending in .npz, or {' or '.join(CLIPS)}"
        raise ConfigError(f"motion.clip: expected {known}, got {name!r}")
    if not pathlib.Path(name).is_file():
        raise ConfigError(f"motion.clip: no such file: {name}")
    clip = load(name)
    clip.require_robot(robot)
    return clip.resampled(fps)


def closes(clip: Clip) -> bool:
    """Return whether the first frame may follow the last."""
    pose = np.column_stack([clip.joint_position, clip.root_position[:, 2]])
    usual = np.linalg.norm(np.diff(pose, axis=0), axis=1).mean()
    return bool(np.linalg.norm(pose[0] - pose[-1]) <= CLOSED * usual)


def frames(clip: Clip, robot: Robot, closed: bool, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a clip's frames as a sheet, and which follows which; of a clip that is not closed, the last is held."""
    count = len(clip)
    arrays = clip.arrays()
    if not closed:
        for name, x in arrays.items():
            still = "velocity" in name or name == "command"
            arrays[name] = np.concatenate([x, np.zeros_like(x[-1:]) if still else x[-1:]])
        count += 1
    following = np.append(np.arange(1, count), 0 if closed else count - 1)
    w, x, y, z = arrays["root_quaternion"].T
    up = np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=1)  # last row of R_WB
    heading = np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))
    c = np.cos(heading)
    s = np.sin(heading)
    vx, vy, vz = arrays["root_linear_velocity"].T
    joints = arrays["joint_position"]
    feet = kinematics.feet(robot, joints)
    touching = (robot.foot_radius - (feet * up[:, None]).sum(axis=-1)).max(axis=1)  # height of the root, then
    later = np.arange(count)
    for _ in range(max(1, round(LATER / dt))):
        later = following[later]
    turn = 2 * math.pi * np.arange(count) / count
    return columns(
        reference_joint=joints,
        reference_joint_speed=arrays["joint_velocity"],
        next_joint=joints[following],
        next_joint_speed=arrays["joint_velocity"][following],
        later_joint=joints[later],
        reference_rise=arrays["root_position"][:, 2] - touching,
        reference_up=up,
        reference_velocity=np.stack([c * vx + s * vy, c * vy - s * vx, vz], axis=1),
        reference_spin=arrays["root_angular_velocity"],
        reference_phase=np.stack([np.cos(turn), np.sin(turn)], axis=1),
    ), following


def _uniform(seed: int, draw: int, first: int, count: int) -> np.ndarray:
    """Return numbers (count) in [0, 1) of robots from a number on, the same however robots are split."""
    return np.random.Generator(np.random.Philox(key=[seed % 2**32, draw])).random(first + count)[first:]
