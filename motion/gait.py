"""Gaits by formula: feet that stand still on the ground while a root follows commands, and fly forward between.

A foot stands for a share of its cycle, in which it moves backwards under the robot as fast as the robot goes, and comes
back in an arc; the foot meets the ground without slipping. Legs begin their cycles one after the other, by gait.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from motion import kinematics
from motion.clip import Clip
from physics.robot import Robot
from settings import ConfigError, suggest

GRAVITY = 9.81  # [m/s^2]
SLACK = 0.01  # by which a foot may miss its place before a leg counts as too short [m]
SHORT = 1e-3  # step of a derivative, as a share of a frame


@dataclasses.dataclass(frozen=True)
class Gait:
    """How legs take turns.

    phases: when FL, FR, RL, RR begin to stand, in cycles; duty: share of a cycle on the ground; slow, fast: cycles a
    second at rest and at 2 m/s; lift: height of the arc, times the robot's at home; flies: whether the root rises and
    falls while no foot stands.
    """

    phases: tuple[float, float, float, float]
    duty: float = 0.55
    slow: float = 1.8
    fast: float = 2.6
    lift: float = 0.22
    flies: bool = False


GAITS = {
    "trot": Gait((0.0, 0.5, 0.5, 0.0)),
    "pace": Gait((0.0, 0.5, 0.0, 0.5), duty=0.6),
    "bound": Gait((0.0, 0.0, 0.5, 0.5), duty=0.55, slow=2.2, fast=3.0),
    "pronk": Gait((0.0, 0.0, 0.0, 0.0), duty=0.7, slow=2.0, fast=2.4, lift=0.12, flies=True),
}


def of(name: str) -> Gait:
    """Return a gait by its name; raise ConfigError for another."""
    if name not in GAITS:
        raise ConfigError(f"gait: unknown gait {name!r}; {suggest(name, GAITS, 'known: ' + ', '.join(GAITS))}")
    return GAITS[name]


def frequency(gait: Gait, command: np.ndarray) -> np.ndarray:
    """Return cycles a second (T) that commands (T, 3) ask for."""
    speed = np.linalg.norm(command[:, :2], axis=1) + 0.2 * np.abs(command[:, 2])
    return gait.slow + (gait.fast - gait.slow) * np.minimum(speed / 2.0, 1.5)


def ground(point: np.ndarray, command: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where a point of the ground (T, 4) is after some seconds (T, 4), seen from the root, and its velocity.

    Points are complex numbers x + i y [m]. From a root that goes with v and turns with w, p' = -v - i w p, so that
    p(t) = exp(-i w t) p(0) - t exp(-i w t / 2) sinc(w t / 2) v.
    """
    v = command[:, :1] + 1j * command[:, 1:2]
    w = command[:, 2:]
    half = w * seconds / 2.0
    place = np.exp(-2j * half) * point - seconds * np.exp(-1j * half) * np.sinc(half / np.pi) * v
    return place, -v - 1j * w * place


def foot_places(robot: Robot, gait: Gait, phase: np.ndarray, command: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return feet's centres (T, 4, 3) in the base frame of a level root, and the root's height (T) above home [m].

    phase: (T) in cycles; command: (T, 3).
    """
    home = kinematics.feet(robot, robot.home_joints.ravel())
    cycle = 1.0 / frequency(gait, command)[:, None]  # [s]
    standing = gait.duty * cycle
    swinging = cycle - standing
    at = np.remainder(phase[:, None] - np.array(gait.phases), 1.0)
    stands = at < gait.duty
    on = np.minimum(at / gait.duty, 1.0)
    u = np.where(stands, 0.0, (at - gait.duty) / (1.0 - gait.duty))  # share of the swing
    # it passes its place at home in the middle of standing
    middle = np.broadcast_to(home[:, 0] + 1j * home[:, 1], at.shape)
    stance, _ = ground(middle, command, (on - 0.5) * standing)
    leaves, leaving = ground(middle, command, np.broadcast_to(0.5 * standing, at.shape))
    meets, meeting = ground(middle, command, np.broadcast_to(-0.5 * standing, at.shape))
    # from where it leaves the ground to where it meets it, as fast as the ground at both: a cubic of Hermite's
    swing = (
        (1.0 + 2.0 * u) * (1.0 - u) ** 2 * leaves
        + u * (1.0 - u) ** 2 * swinging * leaving
        + u**2 * (3.0 - 2.0 * u) * meets
        - u**2 * (1.0 - u) * swinging * meeting
    )
    place = np.where(stands, stance, swing)
    lift = gait.lift * robot.home_height * np.sin(np.pi * u) ** 2
    places = np.stack([place.real, place.imag, home[:, 2] + lift], axis=-1)
    rise = np.zeros(len(phase))
    if gait.flies:
        flight = swinging[:, 0]
        seconds = u[:, 0] * flight
        # thrown up at the end of standing and caught after: where it stands, the legs give way as far
        thrown = GRAVITY * flight / 2.0
        rise = np.where(stands[:, 0], 0.0, thrown * seconds - GRAVITY * seconds**2 / 2.0)
        rise -= np.where(stands[:, 0], thrown * standing[:, 0] / np.pi * np.sin(np.pi * on[:, 0]), 0.0)
        places[..., 2] -= np.where(stands, rise[:, None], 0.0)  # in the air they go with the root
    return places, rise


def reachable(robot: Robot, names: Sequence[str], bounds: np.ndarray) -> np.ndarray:
    """Return bounds of commands (3, 2), forward velocity kept below what a robot's legs are too short for.

    Legs that come to be straight jerk.
    """
    bounds = np.asarray(bounds, float)
    fastest = np.abs(bounds[0]).max()
    phase = np.arange(50) / 50.0
    for limit in fastest * np.linspace(1.0, 0.2, 17):
        found = np.vstack([np.clip(bounds[:1], -limit, limit), bounds[1:]])
        if all(
            kinematics.reach_error(robot, foot_places(robot, of(name), phase, np.tile(corner, (50, 1)))[0]).max()
            < SLACK
            for name, corner in itertools.product(names, itertools.product(*found))
        ):
            return found
    raise ConfigError(f"range: legs of {robot.name} are too short for a {' or '.join(names)} at {fastest / 5:.2g} m/s")


def clip(robot: Robot, name: str, command: np.ndarray, fps: float = 50.0, phase: float = 0.0) -> Clip:
    """Return a gait that follows commands (T, 3), one a frame, from a phase on [cycles].

    Joints stay within their ranges, so that feet slip where a stride is longer than legs are.
    """
    gait = of(name)
    command = np.asarray(command, float)
    cycles = np.concatenate([[0.0], np.cumsum(frequency(gait, command)[:-1])]) / fps + phase
    lowest, highest = np.moveaxis(robot.joint_range.reshape(-1, 2), -1, 0)

    def pose(share: float) -> tuple[np.ndarray, np.ndarray]:
        """Return joints and height of the root a share of a frame later."""
        places, rise = foot_places(robot, gait, cycles + share * frequency(gait, command) / fps, command)
        return np.clip(kinematics.joints(robot, places), lowest, highest), rise

    joints, rise = pose(0.0)
    (before, low), (after, high) = pose(-SHORT), pose(SHORT)
    each = fps / (2.0 * SHORT)
    heading = np.concatenate([[0.0], np.cumsum(command[:-1, 2])]) / fps
    c = np.cos(heading)
    s = np.sin(heading)
    velocity = np.stack([c * command[:, 0] - s * command[:, 1], s * command[:, 0] + c * command[:, 1]], axis=1)
    ground = np.concatenate([np.zeros((1, 2)), np.cumsum(velocity[:-1], axis=0)]) / fps
    zero = np.zeros(len(command))
    return Clip(
        name,
        fps,
        joints,
        (after - before) * each,
        np.column_stack([ground, robot.home_height + rise]),
        np.stack([np.cos(heading / 2), zero, zero, np.sin(heading / 2)], axis=1),
        np.column_stack([velocity, (high - low) * each]),
        np.stack([zero, zero, command[:, 2]], axis=1),
        command,
    )
