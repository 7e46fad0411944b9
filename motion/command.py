"""What robots are asked to do: commands drawn, and changed without a jerk.

A command (3) is forward and sideways velocity [m/s] and yaw rate [rad/s] in the heading frame.
"""

from collections.abc import Sequence

import numpy as np

from settings import ConfigError, suggest

FRAMES = 25  # of a change
# Forward, sideways, turning: lowest and highest that are asked for
RANGE = np.array([[-1.5, 3.0], [-0.8, 0.8], [-1.2, 1.2]])
PRESETS = {
    "stand": (0.0, 0.0, 0.0),
    "walk": (0.6, 0.0, 0.0),
    "run": (2.0, 0.0, 0.0),
    "back": (-0.6, 0.0, 0.0),
    "left": (0.0, 0.5, 0.0),
    "right": (0.0, -0.5, 0.0),
    "turn": (0.0, 0.0, 0.6),
    "curve": (0.8, 0.0, 0.4),
}
KINDS = "uniform", "normal", "presets", "sequence", "curriculum"


def between(start: np.ndarray, target: np.ndarray, since: np.ndarray, frames: int = FRAMES) -> np.ndarray:
    """Return commands (N, 3) on a straight line from start to target, and there exactly after some frames.

    since: (N), frames gone by.
    """
    share = np.clip(since / np.float32(frames), 0.0, 1.0).astype(np.float32)[:, None]
    return np.where(share < 1.0, start + share * (target - start), target)


class CommandSmoother:
    """Leads every robot's command to its target in a straight line over some frames, and there exactly.

    start, target: (N, 3); since: (N) frames gone by since the target was set.
    """

    def __init__(self, num_envs: int, frames: int = FRAMES) -> None:
        if frames < 1:
            raise ConfigError(f"frames: expected at least 1, got {frames}")
        self.frames = frames
        self.start = np.zeros((num_envs, 3), np.float32)
        self.target = np.zeros((num_envs, 3), np.float32)
        self.since = np.full(num_envs, frames, np.int64)

    @property
    def current(self) -> np.ndarray:
        """The commands of this frame, (N, 3)."""
        return between(self.start, self.target, self.since, self.frames)

    def reset(self, env_ids: np.ndarray | slice, commands: np.ndarray) -> None:
        """Set commands of some robots at once."""
        self.start[env_ids] = self.target[env_ids] = commands
        self.since[env_ids] = self.frames

    def set_target(self, env_ids: np.ndarray | slice, commands: np.ndarray) -> None:
        """Let some robots' commands begin to change to others."""
        self.start[env_ids] = self.current[env_ids]
        self.target[env_ids] = commands
        self.since[env_ids] = 0

    def step(self) -> np.ndarray:
        """Go on by a frame; return its commands (N, 3)."""
        self.since += 1
        return self.current


class CommandSampler:
    """Draws commands for many robots.

    kind: "uniform" in the range; "normal" about its middle, two deviations to its ends, and no further; "presets",
    named ones of PRESETS; "sequence", these in turn, each robot from one of its own on; "curriculum", uniform in a
    part of the range about standing that level makes larger.
    """

    def __init__(
        self, kind: str = "uniform", bounds: np.ndarray = RANGE, presets: Sequence[str] = tuple(PRESETS), seed: int = 0
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"kind: unknown {kind!r}; {suggest(kind, KINDS, 'known: ' + ', '.join(KINDS))}")
        if wrong := [name for name in presets if name not in PRESETS]:
            raise ConfigError(f"presets: unknown {wrong[0]!r}; {suggest(wrong[0], PRESETS, ', '.join(PRESETS))}")
        bounds = np.asarray(bounds, float)
        if bounds.shape != (3, 2) or not (bounds[:, 0] <= bounds[:, 1]).all() or not np.isfinite(bounds).all():
            raise ConfigError(f"bounds: expected lowest and highest of three numbers, got {bounds.tolist()}")
        if not presets:
            raise ConfigError("presets: expected at least one")
        self.kind = kind
        self.bounds = bounds
        self.presets = np.array([PRESETS[name] for name in presets])
        self.level = 0.0 if kind == "curriculum" else 1.0
        self.random = np.random.default_rng(seed)
        self._drawn = 0

    def set_level(self, level: float) -> None:
        """Set how much of the range is drawn from, 0 to 1; raise ValueError for anything else."""
        if not 0.0 <= level <= 1.0:
            raise ValueError(f"level: expected a number between 0 and 1, got {level}")
        self.level = level

    def draw(self, count: int) -> np.ndarray:
        """Return commands (count, 3) within the range."""
        low, high = self.bounds.T
        if self.kind == "presets":
            found = self.presets[self.random.integers(len(self.presets), size=count)]
        elif self.kind == "sequence":
            found = self.presets[(np.arange(count) + self._drawn) % len(self.presets)]
            self._drawn += 1
        elif self.kind == "normal":
            found = self.random.normal((low + high) / 2, (high - low) / 4, (count, 3))
        else:
            still = np.clip(0.0, low, high)
            found = still + self.level * (self.random.uniform(low, high, (count, 3)) - still)
        return np.clip(found, low, high)


def clamped(commands: np.ndarray, bounds: np.ndarray = RANGE) -> tuple[np.ndarray, int]:
    """Return commands (N, 3) within bounds, NaN as standing, and in how many rows something was changed."""
    commands = np.asarray(commands, np.float32)
    within = np.clip(np.nan_to_num(commands, nan=0.0, posinf=np.inf, neginf=-np.inf), bounds[:, 0], bounds[:, 1])
    return within.astype(np.float32), int((within != commands).any(axis=-1).sum())


def sequences(sampler: CommandSampler, count: int, frames: int, hold: int = 100) -> np.ndarray:
    """Return commands (frames, count, 3) that change every so often, smoothly, each at its own time."""
    smoother = CommandSmoother(count)
    smoother.reset(slice(None), sampler.draw(count))
    offset = sampler.random.integers(hold, size=count)
    found = np.empty((frames, count, 3), np.float32)
    for t in range(frames):
        changing = np.flatnonzero((t + offset) % hold == 0)
        if len(changing):
            smoother.set_target(changing, sampler.draw(len(changing)))
        found[t] = smoother.step()
    return found
