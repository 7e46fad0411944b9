"""MotionGenerator: reference motion for many robots at once, each under a command of its own.

    pregenerated   |= 500 frames of every robot ==========================|   then shown one by one
    realtime       |= up to 16 ======|  refilled by up to 8 when half of what a robot last got is left

Both are one ring of frames (motion/ring.py), which differ in how many it holds and when it is filled. A robot whose
command changes forgets the frames that it has, and gets few with the next one that is shown, then ever more, twice as
many as it has shown since, so that frequent changes cost little.
"""

import dataclasses
import os
import pathlib
import time
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from host import available_cores
from motion import kinematics
from motion.command import clamped
from motion.compiled import Compiled
from motion.fit import load
from motion.network import MotionNetwork
from motion.ring import Ring
from physics.robot import Robot, load_robot
from settings import ConfigError, suggest
from training.runs import SHIPPED


@dataclasses.dataclass(frozen=True)
class Mode:
    """How many frames are kept and made at once: all at the beginning, or some when few are left."""

    capacity: int
    refill: int


MODES = {"pregenerated": Mode(500, 500), "realtime": Mode(16, 8)}


def shipped(robot: str) -> pathlib.Path:
    """Return where the network of a robot is that comes with Foal."""
    return SHIPPED / "motion" / f"{robot}.pt"


class Motion(NamedTuple):
    """Joints of N robots in one frame: (N, J) [rad], and their velocities [rad/s]. Overwritten by the next frame."""

    joint_position: Tensor
    joint_velocity: Tensor


class BodyMotion(NamedTuple):
    """Motion with where bodies are, in the world; quaternions are w x y z.

    body_position: (N, B, 3) [m] and body_quaternion: (N, B, 4), the root and each leg's hip, thigh and calf;
    foot_position: (N, 4, 3); root_linear_velocity: (N, 3), world; root_angular_velocity: (N, 3), base frame.
    """

    joint_position: Tensor
    joint_velocity: Tensor
    body_position: np.ndarray
    body_quaternion: np.ndarray
    foot_position: np.ndarray
    root_linear_velocity: np.ndarray
    root_angular_velocity: np.ndarray


class MotionGenerator:
    """Reference motion of num_envs robots.

    mode: one of MODES; device: "cpu", in compiled code, or a GPU, in PyTorch; network: a fitted one, or its file, by
    default the one that comes with Foal; robot: its name, to refuse another's network; ahead: how many frames after the
    one shown are always there; seed: of where in their cycles robots begin.

    Every robot is asked to stand at first. Raises ConfigError for what does not fit.
    """

    def __init__(
        self,
        num_envs: int,
        mode: str = "realtime",
        device: str | torch.device = "cpu",
        network: MotionNetwork | str | os.PathLike = "",
        robot: str = "",
        ahead: int = 1,
        threads: int = 0,
        seed: int = 0,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs: expected at least 1, got {num_envs}")
        if not 0 <= ahead <= 10:
            raise ConfigError(f"ahead: expected frames between 0 and 10, got {ahead}")
        self.net = network if isinstance(network, MotionNetwork) else load(network or shipped(robot or "go1"), robot)
        if robot and self.net.robot != robot:
            raise ConfigError(f"network: expected a generator of {robot}, got one of {self.net.robot}")
        self.num_envs = num_envs
        self.ahead = ahead
        self.device = torch.device(device)
        self.bounds = torch.stack((self.net.low, self.net.high), dim=1).cpu().numpy()
        self.random = np.random.default_rng(seed)
        self.clamped = 0  # commands that were out of range
        self.broken = 0  # robots begun anew, as a frame of theirs was not finite
        self.filler = (
            Compiled(self.net, threads or available_cores())
            if self.device.type == "cpu"
            else Plain(self.net, self.device)
        )
        self._robot: Robot | None = None
        self._begin(mode)
        self.reset()

    def _begin(self, mode: str) -> None:
        """Make a ring for a mode; start counting."""
        if mode not in MODES:
            raise ConfigError(f"mode: unknown {mode!r}; {suggest(mode, MODES, 'known: ' + ', '.join(MODES))}")
        self.mode = mode
        self.ring = Ring(self.net, self.num_envs, MODES[mode].capacity, self.device)
        self.frames = 0  # computed so far, of all robots
        self.seconds = 0.0  # of computing them
        self.fills = 0
        self.shown = 0
        self.show_seconds = 0.0
        self.slowest = 0.0  # of showing one [s]

    def reset(
        self,
        env_ids: np.ndarray | None = None,
        init_motion: np.ndarray | None = None,
        commands: np.ndarray | None = None,
    ) -> None:
        """Begin anew with some robots, all by default.

        init_motion: (n, 2J) joint positions before velocities, else as robots of the data were; commands: (n, 3), else
        to stand. Roots are at the origin, heading along x.
        """
        ids = self._ids(env_ids)
        if init_motion is None:
            frames = self._examples(len(ids))
        else:
            frames = torch.as_tensor(init_motion, dtype=torch.float32).to("cpu")
            if frames.shape != (len(ids), 2 * self.net.joints):
                raise ConfigError(
                    f"init_motion: expected {(len(ids), 2 * self.net.joints)}, positions and velocities of "
                    f"{self.net.joints} joints, got {tuple(frames.shape)}"
                )
            if not torch.isfinite(frames).all():
                raise ConfigError("init_motion: expected finite numbers")
        self.ring.put(ids, frames.to(self.device), self._commands(ids, commands))
        self.ring.root[ids] = 0.0, 0.0, 1.0, 0.0
        self._fill(ids, np.full(len(ids), MODES[self.mode].refill))

    def update_commands(self, commands: np.ndarray, env_ids: np.ndarray | None = None) -> None:
        """Let commands (n, 3) of some robots, all by default, change to others, in a straight line over 25 frames."""
        ids = self._ids(env_ids)
        self.ring.ask(ids, self._commands(ids, commands))

    def get_motion(self) -> Motion:
        """Return what joints do in the frame that is shown, and go on by a frame."""
        start = time.perf_counter()
        found, due, broken = self.filler.show(self.ring, self.ahead, self.mode == "realtime")
        if broken:
            due = np.setdiff1d(due, self._mend(found))
        self._fill(due, self._wanted(due))
        seconds = time.perf_counter() - start
        self.shown += 1
        self.show_seconds += seconds
        self.slowest = max(self.slowest, seconds)
        joints = self.net.joints
        return Motion(found[:, :joints], found[:, joints:])

    def get_motion_with_body_transforms(self) -> BodyMotion:
        """Return what get_motion() does with where root, legs and feet are, the lowest foot on level ground."""
        robot = self.robot()
        command = self.ring.command(slice(None), self.ring.at)
        before = self.ring.root.copy()
        motion = self.get_motion()
        angles = motion.joint_position.cpu().numpy().astype(float)
        places, turns, feet = kinematics.bodies(robot, angles)
        height = (robot.foot_radius - feet[..., 2]).max(axis=1)
        root = np.column_stack([before[:, :2], height])
        c, s = before[:, 2:].T
        half = np.arctan2(s, c) / 2
        about_z = np.zeros((self.num_envs, 4))
        about_z[:, 0], about_z[:, 3] = np.cos(half), np.sin(half)
        zero = np.zeros(self.num_envs)
        return BodyMotion(
            *motion,
            kinematics.turned(about_z[:, None], places) + root[:, None],
            kinematics.multiplied(about_z[:, None], turns),
            kinematics.turned(about_z[:, None], feet) + root[:, None],
            np.column_stack([c * command[:, 0] - s * command[:, 1], s * command[:, 0] + c * command[:, 1], zero]),
            np.column_stack([zero, zero, command[:, 2]]),
        )

    def peek(self, ahead: int) -> Motion:
        """Return the frame so many after the one that get_motion() returns next.

        Raises ConfigError beyond self.ahead.
        """
        if not 0 <= ahead <= self.ahead:
            raise ConfigError(f"ahead: expected at most {self.ahead} frames, got {ahead}")
        self._look_ahead()
        found = self.ring.frames(ahead)
        return Motion(found[:, : self.net.joints], found[:, self.net.joints :])

    def get_full_motion_data(self) -> dict[str, np.ndarray]:
        """Return the frames from the one that is shown on, as many as all robots have.

        joint_position, joint_velocity: (T, N, J); command: (T, N, 3).
        """
        self._look_ahead()
        ring = self.ring
        count = int(ring.left().min()) + 1
        frames = np.stack([ring.frames(i).cpu().numpy() for i in range(count)])
        command = np.stack([ring.command(slice(None), ring.at + i) for i in range(count)])
        joints = self.net.joints
        return {"joint_position": frames[..., :joints], "joint_velocity": frames[..., joints:], "command": command}

    def get_performance_stats(self) -> dict[str, float]:
        """Return what it took since the mode began: seconds, frames (of single robots) and memory."""
        return {
            "frames_generated": self.frames,
            "frames_per_second": self.frames / max(self.seconds, 1e-9),
            "fills": self.fills,
            "fill_seconds": self.seconds,
            "shown": self.shown,
            "mean_frame_seconds": self.show_seconds / max(self.shown, 1),
            "slowest_frame_seconds": self.slowest,
            "stored_bytes": self.ring.bytes(),
            "work_bytes": self.filler.bytes(),
            "clamped_commands": self.clamped,
            "broken_robots": self.broken,
        }

    def switch_mode(self, mode: str) -> None:
        """Go on in another mode from the frame that is shown, under the same commands."""
        old = self.ring
        frames = old.frames().clone()
        self._begin(mode)
        ring = self.ring
        ids = np.arange(self.num_envs)
        ring.put(ids, frames, old.target)
        ring.root[:] = old.root
        ring.start[:] = old.start
        ring.since[:] = old.since - old.at
        self._fill(ids, np.full(self.num_envs, MODES[mode].refill))

    def robot(self) -> Robot:
        """Return the robot whose motion it is."""
        if self._robot is None:
            self._robot = load_robot(self.net.robot)
        return self._robot

    def _ids(self, env_ids: np.ndarray | None) -> np.ndarray:
        """Return numbers of robots as they are used here; raise ConfigError for others."""
        if env_ids is None:
            return np.arange(self.num_envs)
        if isinstance(env_ids, Tensor):
            env_ids = env_ids.cpu().numpy()
        ids = np.atleast_1d(np.asarray(env_ids))
        if ids.dtype == bool and len(ids) == self.num_envs:
            ids = np.flatnonzero(ids)
        if ids.ndim != 1 or (
            len(ids) and (ids.dtype.kind not in "iu" or not 0 <= ids.min() <= ids.max() < self.num_envs)
        ):
            raise ConfigError(f"env_ids: expected robots 0 to {self.num_envs - 1}, got {env_ids!s:.60}")
        return ids.astype(np.int64)

    def _commands(self, ids: np.ndarray, commands: np.ndarray | None) -> np.ndarray:
        """Return commands within their range; raise ConfigError for another shape."""
        if commands is None:
            return np.zeros((len(ids), 3), np.float32)
        if isinstance(commands, Tensor):
            commands = commands.cpu().numpy()
        commands = np.asarray(commands, np.float32)
        if commands.shape not in ((3,), (len(ids), 3)):
            raise ConfigError(f"commands: expected {(len(ids), 3)}, got {commands.shape}")
        within, wrong = clamped(np.broadcast_to(commands, (len(ids), 3)), self.bounds)
        self.clamped += wrong
        return within

    def _look_ahead(self) -> None:
        """Compute what is to be there and is not yet, as commands have changed."""
        due = np.flatnonzero(self.ring.left() < self.ahead)
        self._fill(due, self._wanted(due))

    def _wanted(self, ids: np.ndarray) -> np.ndarray:
        """Return how many frames to compute of robots at once: twice as many as they are under their command."""
        ring = self.ring
        least = max(1, self.ahead)
        return np.clip(2 * (ring.at[ids] - ring.since[ids]), least, max(least, MODES[self.mode].refill))

    def _fill(self, ids: np.ndarray, counts: np.ndarray) -> None:
        """Compute up to so many frames more of some robots, as many as there is room for."""
        if not len(ids):
            return
        start = time.perf_counter()
        ring = self.ring
        room = ring.capacity - 1 - ring.left()[ids]
        counts = np.minimum(counts, room)
        order = np.argsort(-counts, kind="stable")
        ids, counts = ids[order], counts[order]
        self.filler.fill(ids, counts, ring)
        ring.end[ids] += counts
        ring.got[ids] = counts
        self.frames += int(counts.sum())
        self.fills += 1
        self.seconds += time.perf_counter() - start

    def _mend(self, found: Tensor) -> np.ndarray:
        """Begin anew with robots whose frame is not finite, under their commands; return who they are."""
        ids = np.flatnonzero(~torch.isfinite(found).all(dim=1).cpu().numpy())
        self.broken += len(ids)
        frames = self._examples(len(ids))
        self.ring.put(ids, frames, self.ring.target[ids])
        self._fill(ids, np.full(len(ids), MODES[self.mode].refill))
        self.ring.at[ids] += 1
        found[torch.from_numpy(ids)] = frames
        return ids

    def _examples(self, count: int) -> Tensor:
        """Return frames (count, 2J) of the data."""
        chosen = self.random.integers(len(self.net.examples), size=count)
        return self.net.examples[torch.from_numpy(chosen).to(self.net.examples.device)].to(self.device)


class Plain:
    """Fills a ring in PyTorch, on any device: the reference, and what a GPU runs."""

    def __init__(self, net: MotionNetwork, device: torch.device) -> None:
        self.net = net.to(device)
        self.device = device

    def bytes(self) -> int:
        """Return how much memory it takes, its networks alone."""
        return sum(x.numel() * x.element_size() for x in self.net.state_dict().values())

    @torch.no_grad()
    def fill(self, ids: np.ndarray, counts: np.ndarray, ring: Ring) -> None:
        """Compute so many frames of robots from ring.end on; counts: falling."""
        end = ring.end[ids]
        rows = torch.from_numpy((end - 1) % ring.capacity).to(self.device)
        robots = torch.from_numpy(ids).to(self.device)
        frame = self.net.normalise(ring.motion[rows, robots])
        half = self.device.type == "cuda"
        steps = int(counts[0])
        commands = np.stack([ring.command(ids, end + step) for step in range(steps)])
        asked = self.net.scale_command(torch.from_numpy(commands).to(self.device))
        left = np.searchsorted(-counts, -np.arange(steps))
        for step in range(steps):
            n = int(left[step])
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                frame = self.net(frame[:n], asked[step, :n]).float()
            rows = torch.from_numpy((end[:n] + step) % ring.capacity).to(self.device)
            ring.motion[rows, robots[:n]] = self.net.restore(frame)

    def show(self, ring: Ring, ahead: int, halves: bool) -> tuple[Tensor, np.ndarray, bool]:
        """Go on by a frame, the root where the command leads it.

        Returns the frames (N, 2J) that were shown, who has fewer left than ahead, or with halves than half of what it
        last got, and whether one is not finite.
        """
        found = ring.frames()
        vx, vy, turn = ring.command(slice(None), ring.at).T.astype(float) / self.net.fps
        x, y, c, s = ring.root.T
        heading = np.arctan2(s, c)
        c, s = np.cos(heading + turn / 2), np.sin(heading + turn / 2)
        ring.root[:] = np.stack(
            [x + c * vx - s * vy, y + s * vx + c * vy, np.cos(heading + turn), np.sin(heading + turn)], 1
        )
        ring.at += 1
        least = np.maximum(ahead, ring.got // 2 if halves else 0)
        return found, np.flatnonzero(ring.left() < least), not bool(torch.isfinite(found).all())
