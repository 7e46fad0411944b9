"""What a generator is fitted to: clips of one robot, under commands all over their range, and their statistics.

Every clip is there mirrored too. A file is an .npz with the
frames of all clips behind one another, where each begins, and the statistics.
"""

import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from motion import gait
from motion.clip import Clip
from motion.command import CommandSampler, sequences
from physics.robot import Robot
from settings import ConfigError

LEAST_STD = 1e-3  # of a joint's position [rad] or velocity [rad/s] that hardly moves
HELD_OUT = 10  # the last clip of so many, or of fewer, is not fitted to, nor is its mirror image


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Clips of one robot at one frame rate.

    frame: (T, 2J) joint positions [rad] before velocities [rad/s]; command: (T, 3); starts: (C) first frames of clips;
    mean, std: (2J) of the frames; low, high: (3) of the commands.
    """

    robot: str
    fps: float
    frame: np.ndarray
    command: np.ndarray
    starts: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, robot: Robot, clips: Sequence[Clip]) -> "Dataset":
        """Return clips and their mirror images as a dataset; raise ConfigError, naming it, for an unsound one."""
        if not clips:
            raise ConfigError("dataset: expected at least one clip")
        for clip in clips:
            clip.require_sound()
            clip.require_robot(robot)
            if clip.fps != clips[0].fps:
                raise ConfigError(
                    f"{clip.name}: fps: expected {clips[0].fps:g}, as the other clips have, got {clip.fps:g}"
                )
        both = [made for clip in clips for made in (clip, clip.mirrored())]
        frame = np.concatenate([np.hstack([c.joint_position, c.joint_velocity]) for c in both]).astype(np.float32)
        command = np.concatenate([c.command for c in both]).astype(np.float32)
        starts = np.cumsum([0, *(len(c) for c in both[:-1])])
        low, high = command.min(0), command.max(0)
        still = high - low < 1e-6
        return cls(
            robot.name,
            clips[0].fps,
            frame,
            command,
            starts,
            frame.mean(0),
            np.maximum(frame.std(0), LEAST_STD),
            np.where(still, low - 1.0, low),
            np.where(still, high + 1.0, high),
        )

    def lengths(self) -> np.ndarray:
        """Return how many frames each clip has, (C)."""
        return np.diff([*self.starts, len(self.frame)])

    def slowest(self, count: int) -> np.ndarray:
        """Return frames (count, 2J) under the commands nearest to standing still, of every part of a gait."""
        speed = np.linalg.norm(self.command / np.maximum(np.abs([self.low, self.high]).max(axis=0), 1e-6), axis=1)
        nearest = np.argsort(speed, kind="stable")[: 8 * count]
        return self.frame[nearest[np.arange(count) * len(nearest) // count]]

    def windows(self, frames: int, held_out: bool = False) -> np.ndarray:
        """Return the first frames of all windows of so many frames and one more, (W), within one clip each.

        held_out: of the clips that are not fitted to instead; a single clip is both. Raises ConfigError where every
        clip is too short.
        """
        pairs = np.arange(len(self.starts)) // 2
        count = len(self.starts) // 2
        chosen = ((pairs % HELD_OUT == min(HELD_OUT, count) - 1) == held_out) | (count == 1)
        found = [
            np.arange(start, start + length - frames)
            for start, length, take in zip(self.starts, self.lengths(), chosen, strict=True)
            if take and length > frames
        ]
        if not found:
            raise ConfigError(f"dataset: expected clips of more than {frames} frames{' held out' if held_out else ''}")
        return np.concatenate(found)


def save(path: str | os.PathLike, data: Dataset) -> None:
    """Write a dataset."""
    np.savez_compressed(path, **dataclasses.asdict(data))


def load(path: str | os.PathLike) -> Dataset:
    """Read a dataset; raise ConfigError, naming file and field, if it is none."""
    path = pathlib.Path(path)
    names = [field.name for field in dataclasses.fields(Dataset)]
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: expected a dataset of motion ({type(error).__name__})") from None
    made = Dataset(**found | {"robot": str(found["robot"]), "fps": float(found["fps"])})
    frames, size = made.frame.shape if made.frame.ndim == 2 else (0, 0)
    shapes = {"command": (frames, 3), "mean": (size,), "std": (size,), "low": (3,), "high": (3,)}
    for name, shape in shapes.items():
        array = getattr(made, name)
        if array.shape != shape or not frames or not np.isfinite(array).all():
            raise ConfigError(f"{path}: {name}: expected finite numbers of shape {shape}, got {array.shape}")
    if not np.isfinite(made.frame).all() or not (made.std > 0).all() or not (made.high > made.low).all():
        raise ConfigError(f"{path}: expected finite frames, deviations above 0 and a range of commands")
    return made


def by_formula(
    robot: Robot, names: Sequence[str], clips: int, frames: int, bounds: np.ndarray, fps: float = 50.0, seed: int = 0
) -> list[Clip]:
    """Return clips of each gait under commands that change every two seconds; bounds: of commands (3, 2).

    Every third clip stays within a quarter of the bounds about standing: there are few such commands in a wide range,
    and a gait that was seldom seen there comes to rest.
    """
    random = np.random.default_rng(seed)
    made = []
    for name in names:
        for third, level in enumerate((1.0, 1.0, 0.25)):
            sampler = CommandSampler("curriculum", bounds, seed=int(random.integers(2**31)))
            sampler.set_level(level)
            courses = sequences(sampler, len(range(third, clips, 3)), frames)
            made += [gait.clip(robot, name, course, fps, random.uniform()) for course in courses.transpose(1, 0, 2)]
    return made
