"""Clips: how a robot moved, frame by frame, with what it was asked to do.

    fps                      frames a second
    joint_position           (T, 12) [rad], legs FL, FR, RL, RR, each hip, thigh, calf; joint_velocity (T, 12) [rad/s]
    root_position            (T, 3) [m], world; root_quaternion (T, 4) w x y z, R_WB
    root_linear_velocity     (T, 3) [m/s], world; root_angular_velocity (T, 3) [rad/s], base frame
    command                  (T, 3) forward and sideways velocity [m/s], yaw rate [rad/s], heading frame

A file is an .npz with these names, or one of mjlab: fps, joint_pos, joint_vel, body_pos_w, body_quat_w, body_lin_vel_w,
body_ang_vel_w, the root being its first body and every velocity in the world.
"""

import dataclasses
import math
import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from motion import kinematics
from physics.robot import Robot
from settings import ConfigError

SIZES = {
    "joint_position": 12, "joint_velocity": 12, "root_position": 3, "root_quaternion": 4, "root_linear_velocity": 3,
    "root_angular_velocity": 3, "command": 3,
}  # fmt: skip
MJLAB = {"joint_position": "joint_pos", "joint_velocity": "joint_vel"}
BODIES = {
    "root_position": "body_pos_w", "root_quaternion": "body_quat_w", "root_linear_velocity": "body_lin_vel_w",
    "root_angular_velocity": "body_ang_vel_w",
}  # fmt: skip
LARGEST = 1e3  # of any number in a clip
STILL = 0.1  # root-mean-square joint velocity below which a clip shows nothing of its frame rate [rad/s]
PLAUSIBLE = 1.4  # times that the change of positions may be what velocities say
# A mirror that swaps left and right: FL with FR, RL with RR, hips turn the other way
SWAPPED = np.array([3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8])
JOINT_SIGNS = np.array([-1.0, 1.0, 1.0] * 4)


@dataclasses.dataclass(frozen=True)
class Clip:
    """Frames of one robot; see the module. name: for people."""

    name: str
    fps: float
    joint_position: np.ndarray
    joint_velocity: np.ndarray
    root_position: np.ndarray
    root_quaternion: np.ndarray
    root_linear_velocity: np.ndarray
    root_angular_velocity: np.ndarray
    command: np.ndarray

    def __len__(self) -> int:
        return len(self.joint_position)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in SIZES}

    def require_sound(self) -> None:
        """Raise ConfigError, naming clip and field, unless shapes, numbers and units are a quadruped's."""
        if not 1.0 <= self.fps <= 1000.0:
            raise ConfigError(f"{self.name}: fps: expected frames a second between 1 and 1000, got {self.fps:g}")
        frames = len(self.joint_position)
        if frames < 2:
            raise ConfigError(f"{self.name}: joint_position: expected at least 2 frames, got {frames}")
        for name, array in self.arrays().items():
            if array.shape != (frames, SIZES[name]):
                raise ConfigError(f"{self.name}: {name}: expected shape {(frames, SIZES[name])}, got {array.shape}")
            if not np.isfinite(array).all():
                frame = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise ConfigError(f"{self.name}: {name}: expected finite numbers, got {array[frame]} in frame {frame}")
            if np.abs(array).max() > LARGEST:
                raise ConfigError(
                    f"{self.name}: {name}: expected numbers up to {LARGEST:g}, got {np.abs(array).max():g}"
                )
        length = np.linalg.norm(self.root_quaternion, axis=1)
        if np.abs(length - 1.0).max() > 1e-2:
            raise ConfigError(f"{self.name}: root_quaternion: expected length 1, w x y z, got {length.min():g}")
        # positions and velocities of another frame rate, or of joints in another order, do not belong together
        speed = (np.diff(self.joint_position, axis=0) * self.fps).ravel()
        told = ((self.joint_velocity[1:] + self.joint_velocity[:-1]) / 2).ravel()
        moves = np.sqrt(np.mean(told**2)) > STILL
        slope = speed @ told / max(told @ told, 1e-12)
        agreement = speed @ told / max(np.linalg.norm(speed) * np.linalg.norm(told), 1e-12)
        if moves and not (1.0 / PLAUSIBLE <= slope <= PLAUSIBLE and agreement >= 1.0 / PLAUSIBLE):
            raise ConfigError(
                f"{self.name}: joint_velocity: expected the change of joint_position at {self.fps:g} frames a second"
            )

    def require_robot(self, robot: Robot) -> None:
        """Raise ConfigError unless the joints are within a robot's ranges, half a radian let go."""
        q = self.joint_position.reshape(-1, 4, 3)
        low, high = np.moveaxis(robot.joint_range, -1, 0)
        beyond = np.maximum(low - q, q - high).max(axis=0)
        if beyond.max() > 0.5:
            leg, joint = np.unravel_index(np.argmax(beyond), beyond.shape)
            raise ConfigError(
                f"{self.name}: joint_position: expected joints of {robot.name} in the order FL, FR, RL, RR, each hip, "
                f"thigh, calf; joint {3 * leg + joint} is {beyond.max():.2g} rad beyond its range"
            )

    def mirrored(self) -> "Clip":
        """Return it as seen in a mirror that swaps left and right."""
        flip = np.array([1.0, -1.0, 1.0])
        turn = np.array([-1.0, 1.0, -1.0])  # of what turns: about x and z the other way
        return dataclasses.replace(
            self,
            name=f"{self.name}, mirrored",
            joint_position=self.joint_position[:, SWAPPED] * JOINT_SIGNS,
            joint_velocity=self.joint_velocity[:, SWAPPED] * JOINT_SIGNS,
            root_position=self.root_position * flip,
            root_quaternion=self.root_quaternion * np.array([1.0, -1.0, 1.0, -1.0]),
            root_linear_velocity=self.root_linear_velocity * flip,
            root_angular_velocity=self.root_angular_velocity * turn,
            command=self.command * np.array([1.0, -1.0, -1.0]),
        )

    def resampled(self, fps: float) -> "Clip":
        """Return it at another number of frames a second, interpolated in straight lines."""
        if math.isclose(fps, self.fps, rel_tol=1e-3):
            return self
        before = np.arange(len(self)) / self.fps
        after = np.arange(int(before[-1] * fps) + 1) / fps
        arrays = self.arrays()
        turns = arrays["root_quaternion"].copy()
        signs = np.sign((turns[1:] * turns[:-1]).sum(axis=1))
        turns[1:] *= np.cumprod(np.where(signs == 0, 1.0, signs))[:, None]  # q and -q are one: the way to the nearer
        arrays["root_quaternion"] = turns
        new = {
            name: np.stack([np.interp(after, before, column) for column in x.T], axis=1) for name, x in arrays.items()
        }
        new["root_quaternion"] /= np.linalg.norm(new["root_quaternion"], axis=1, keepdims=True)
        return dataclasses.replace(self, fps=fps, **new)

    def retargeted(self, source: Robot, target: Robot) -> "Clip":
        """Return the motion of one robot as another's: feet where they are, in proportion to the length of its legs.

        What a foot is away from its place at home, what the root is above the ground, and how fast it goes, are scaled
        by the height at home; a foot beyond reach is put where the leg reaches.
        """
        scale = target.home_height / source.home_height
        home = kinematics.feet(source, source.home_joints.ravel()), kinematics.feet(target, target.home_joints.ravel())
        moved = kinematics.feet(source, self.joint_position) - home[0]
        position = kinematics.joints(target, home[1] + scale * moved)
        return dataclasses.replace(
            self,
            name=f"{self.name}, {target.name}",
            joint_position=position,
            joint_velocity=np.gradient(position, 1.0 / self.fps, axis=0),
            root_position=self.root_position * scale,
            root_linear_velocity=self.root_linear_velocity * scale,
            command=self.command * np.array([scale, scale, 1.0]),
        )


def save(path: str | os.PathLike, clip: Clip) -> None:
    """Write a clip."""
    np.savez_compressed(path, fps=clip.fps, **clip.arrays())


def load(path: str | os.PathLike) -> Clip:
    """Read a clip of Foal's or mjlab's layout, commands found from the motion where the file has none.

    Raises ConfigError, naming file and field, if it is none.
    """
    path = pathlib.Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: expected an .npz of a clip ({type(error).__name__})") from None
    arrays: dict[str, Any] = {}
    mjlab = "body_pos_w" in found
    for name in SIZES:
        key = (MJLAB | BODIES).get(name, name) if mjlab else name
        if key in found:
            x = found[key]
            arrays[name] = x[:, 0] if mjlab and name in BODIES and x.ndim == 3 else x
        elif name != "command":
            raise ConfigError(f"{path}: {key}: expected this array, the file has {', '.join(found) or 'none'}")
    if any(x.dtype.kind not in "fiu" for x in arrays.values()) or np.size(found.get("fps", ())) != 1:
        raise ConfigError(f"{path}: expected arrays of numbers, and one number fps")
    arrays = {name: x.astype(np.float64) for name, x in arrays.items()}
    if mjlab:
        arrays["root_angular_velocity"] = _into(arrays["root_quaternion"], arrays["root_angular_velocity"])
    if "command" not in arrays:
        arrays["command"] = command_of(arrays)
    clip = Clip(path.stem, float(np.squeeze(found["fps"])), **arrays)
    clip.require_sound()
    return clip


def command_of(arrays: dict[str, np.ndarray], smooth: int = 25) -> np.ndarray:
    """Return the velocities (T, 3) that a motion has, smoothed over frames, heading frame [m/s, m/s, rad/s]."""
    w, x, y, z = arrays["root_quaternion"].T
    heading = np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))
    vx, vy = arrays["root_linear_velocity"][:, :2].T
    c = np.cos(heading)
    s = np.sin(heading)
    raw = np.stack([c * vx + s * vy, c * vy - s * vx, arrays["root_angular_velocity"][:, 2]], axis=1)
    width = min(smooth, len(raw))
    counts = np.convolve(np.ones(len(raw)), np.ones(width), "same")
    return np.stack([np.convolve(column, np.ones(width), "same") / counts for column in raw.T], axis=1)


def _into(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return vectors (T, 3) of the world in the base frame."""
    w = quaternion[:, :1]
    u = -quaternion[:, 1:]
    return vector + 2.0 * np.cross(u, np.cross(u, vector) + w * vector)
