"""ArrayEnv: a task written in NumPy, a few methods over all robots at once.

    data      a dict of arrays, a row for each robot: all that the task keeps
    create    return data for N robots
    reset     set the rows of robots whose episodes begin
    act       take the actions over into data
    physics   advance data by sim_dt; or advance(), by all substeps of a control step at once
    observe   return observations (N, num_obs)
    reward    return rewards (N)
    fallen    return whether episodes end (N)

What is random comes from Draws, so that a robot does the same again whatever thread it is in and
however many others there are.
"""

import abc
import copy
import itertools
from typing import Any

import numpy as np

from environments.contracts import ABEnv, EnvCfg, EnvState
from settings import ConfigError

Data = dict[str, np.ndarray]


def _mix(x: np.ndarray) -> np.ndarray:
    """Return 32-bit hashes, as physics.random has them."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


class Draws:
    """Random numbers of some robots at a time: the same for the same seed, clock and robot, in the order drawn.

    robots: (K) their numbers.
    """

    def __init__(self, seed: int, clock: int, robots: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            key = _mix(np.uint32(seed) + np.uint32(0x9E3779B9))
            key = _mix(key + np.uint32(clock))
            self._key = _mix(key + np.asarray(robots, np.uint32) * np.uint32(0x9E3779B9))
        self._drawn = 0

    def uniform(self, low: Any, high: Any, size: int | None = None) -> np.ndarray:
        """Return numbers between low and high, (K), or (K, size)."""
        count = 1 if size is None else size
        number = np.arange(self._drawn, self._drawn + count, dtype=np.uint32) * np.uint32(0x85EBCA6B)
        self._drawn += count
        share = (_mix(self._key[:, None] + number) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
        return low + (high - low) * (share[:, 0] if size is None else share)

    def normal(self, size: int | None = None) -> np.ndarray:
        """Return standard normal numbers, (K), or (K, size), by the transform of Box and Muller, 1958."""
        radius = np.sqrt(-2.0 * np.log(1.0 - self.uniform(0.0, 1.0, size)))
        return radius * np.cos(self.uniform(0.0, np.float32(2.0 * np.pi), size))


class ArrayEnv(ABEnv):
    """N copies of a task in NumPy; see the module.

    cfg: of the task; num_envs: copies N; threads: taken for the sake of other environments, which have their own.
    """

    granule = 1  # robots that cannot be told apart, where several of them share a row of data

    def __init__(self, cfg: EnvCfg, num_envs: int = 1, threads: int = 0) -> None:
        if type(self).physics is ArrayEnv.physics and type(self).advance is ArrayEnv.advance:
            raise ConfigError(f"{type(self).__name__}: expected a method physics() or advance()")
        self.require_sizes()
        self.cfg = cfg
        self.num_envs = num_envs
        self.first_robot = 0
        self.seed = 0
        self.clock = 0
        self.started = False
        # control steps and rewards of this episode
        self.age = np.zeros(num_envs, np.float32)
        self.total = np.zeros(num_envs, np.float32)
        self.ends = np.zeros(3)  # episodes that ended since the last statistics()
        self.data = self.create(num_envs)
        if not isinstance(self.data, dict) or not all(isinstance(x, np.ndarray) for x in self.data.values()):
            found = type(self.data).__name__
            raise ConfigError(f"create: expected a dict of arrays from {type(self).__name__}.create(), got {found}")
        for name, x in self.data.items():
            if x.dtype.kind not in "biuf":
                raise ConfigError(f"create: expected numbers in data[{name!r}] of {type(self).__name__}, got {x.dtype}")
        self._state = self.new_state()

    @abc.abstractmethod
    def create(self, n: int) -> Data:
        """Return data of n robots; reset() will set it."""

    @abc.abstractmethod
    def reset(self, who: np.ndarray, random: Draws) -> None:
        """Set the data of robots whose episodes begin; who: (K) their rows."""

    @abc.abstractmethod
    def act(self, actions: np.ndarray) -> None:
        """Take actions (N, num_actions) over into data."""

    @abc.abstractmethod
    def observe(self) -> np.ndarray:
        """Return observations (N, num_obs)."""

    @abc.abstractmethod
    def reward(self) -> np.ndarray:
        """Return the rewards of this step, (N)."""

    def physics(self) -> None:
        """Advance data by cfg.sim_dt."""

    def advance(self) -> None:
        """Advance data by a control step."""
        for _ in range(self.cfg.sim_substeps):
            self.physics()

    def fallen(self) -> np.ndarray:
        """Return whether episodes end by what happened, (N)."""
        return np.zeros(self.num_envs, bool)

    def privileged(self) -> np.ndarray:
        """Return what else the simulator knows, for the critic, (N, num_privileged)."""
        return np.zeros((self.num_envs, 0), np.float32)

    def tally(self) -> dict[str, np.ndarray]:
        """Return what evaluations tell of whole episodes, as it is now, (N) each, by the names in tallies."""
        return {}

    def draws(self, who: np.ndarray, purpose: int = 0) -> Draws:
        """Return random numbers of robots (K), their rows, at this instant; purpose: others for every one."""
        return Draws(self.seed + 7919 * purpose, self.clock, who + self.first_robot)

    def init_state(self, seed: int = 0, staggered: bool = False) -> EnvState:
        """Start every episode; see ABEnv."""
        self.seed = seed
        self.clock = 0
        self.started = True
        if missing := set(self.tallies) - set(self.tally()):
            raise ConfigError(
                f"tally: expected {', '.join(sorted(missing))}, which tallies names, "
                f"got {', '.join(self.tally()) or 'nothing'}"
            )
        if missing := set(self.targets) - set(self.tallies) - set(self.errors()):
            raise ConfigError(f"targets: expected names of tallies or errors(), got {', '.join(sorted(missing))}")
        everyone = np.arange(self.num_envs)
        s = self._state
        self._begin(everyone)
        self.age[:] = (
            np.floor(self.draws(everyone, 1).uniform(0.0, float(self.cfg.max_episode_steps))) if staggered else 0.0
        )
        self._see(s)
        for seen in (s.obs, s.info["privileged"]):
            np.nan_to_num(seen, copy=False, posinf=0.0, neginf=0.0)
        s.reward[:] = 0.0
        s.terminated[:] = False
        s.truncated[:] = False
        s.data = self.data
        return s

    def _begin(self, who: np.ndarray) -> None:
        self.reset(who, self.draws(who))
        self.age[who] = 0.0
        self.total[who] = 0.0

    def step(self, actions: np.ndarray, out: EnvState | None = None) -> EnvState:
        """Advance one control step; see ABEnv."""
        if not self.started:
            raise ValueError("step: expected init_state() before the first step")
        actions = self.checked(actions)
        s = out or self._state
        self.clock += 1
        self.act(actions)
        self.advance()
        self.age += 1.0
        s.reward[:] = self._checked("reward", self.reward(), (self.num_envs,))
        s.terminated[:] = self._checked("fallen", self.fallen(), (self.num_envs,))
        s.truncated[:] = ~s.terminated & (self.age >= self.cfg.max_episode_steps)
        s.data = self.data
        self._see(s)
        # what is no number ends its episode
        broken = self._broken(s)
        s.terminated |= broken
        s.truncated &= ~broken
        s.reward[~np.isfinite(s.reward)] = 0.0
        s.obs[broken] = 0.0
        s.info["privileged"][broken] = 0.0
        self.total += s.reward
        self.ends += np.array([s.truncated.sum(), (s.terminated & ~broken).sum(), broken.sum()])
        ended = np.flatnonzero(s.done)
        if len(ended):
            now = {
                "final_obs": s.obs,
                "final_privileged": s.info["privileged"],
                "episode_return": self.total,
                "episode_steps": self.age,
            }
            now |= {f"episode_{name}": values for name, values in self.tally().items()}
            for name, values in now.items():
                if name in s.info:
                    s.info[name][ended] = np.nan_to_num(values[ended], posinf=0.0, neginf=0.0)
            self._begin(ended)
            s.obs[ended] = np.nan_to_num(self.observe()[ended], posinf=0.0, neginf=0.0)
            s.info["privileged"][ended] = np.nan_to_num(self.privileged()[ended], posinf=0.0, neginf=0.0)
        return s

    def statistics(self) -> dict[str, float]:
        """Return how many episodes ended by time, by what happened, and by numbers that are not finite; see ABEnv."""
        counts = dict(zip(("end_time", "end_fall", "end_broken"), self.ends.tolist(), strict=True))
        self.ends[:] = 0.0
        return counts

    def snapshot(self) -> dict[str, Any]:
        """Return what stepping on from this instant needs; see ABEnv."""
        arrays = {"age": self.age, "total": self.total, "data": self.data}
        return {"seed": self.seed, "clock": self.clock} | arrays

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to the instant of a snapshot; see ABEnv."""
        self.seed = snapshot["seed"]
        self.clock = snapshot["clock"]
        self.started = True
        self.age[:] = snapshot["age"]
        self.total[:] = snapshot["total"]
        for name, array in self.data.items():
            array[:] = snapshot["data"][name]

    def _see(self, s: EnvState) -> None:
        """Set observations and privileged ones."""
        s.obs[:] = self._checked("observe", self.observe(), (self.num_envs, self.num_obs))
        s.info["privileged"][:] = self._checked("privileged", self.privileged(), (self.num_envs, self.num_privileged))

    def _broken(self, s: EnvState) -> np.ndarray:
        """Return whether anything is not finite, (N); keep what is, the first time."""
        broken = np.zeros(self.num_envs, bool)
        for name, values in (("observe", s.obs), ("privileged", s.info["privileged"]), ("reward", s.reward)):
            found = ~np.isfinite(values.reshape(self.num_envs, -1)).all(1)
            if found.any() and not self.complaint:
                robot = int(np.argmax(found))
                self.complaint = f"{name}: got {values[robot].tolist()} of robot {robot + self.first_robot}"
            broken |= found
        return broken

    def _checked(self, name: str, values: Any, shape: tuple[int, ...]) -> Any:
        """Return what a method of the task returned; raise ConfigError if it has another shape."""
        if np.shape(values) != shape:
            raise ConfigError(
                f"{name}: expected shape {shape} from {type(self).__name__}.{name}(), got {np.shape(values)}"
            )
        return values

    def split(self, parts: int, threads: int = 1) -> "list[ArrayEnv]":
        """Return the robots as at most so many environments, in order; see ABEnv.

        Raises ValueError if parts is below 1.
        """
        if parts < 1:
            raise ValueError(f"parts: expected a whole number of at least 1, got {parts!r}")
        granules = -(-self.num_envs // self.granule)
        bounds = np.linspace(0, granules, min(parts, granules) + 1).astype(int).tolist()
        return [self._part(first, last) for first, last in itertools.pairwise(bounds)]

    def _part(self, first: int, last: int) -> "ArrayEnv":
        part = copy.copy(self)
        start = first * self.granule
        stop = min(last * self.granule, self.num_envs)
        part.num_envs = stop - start
        part.first_robot = self.first_robot + start
        part.data = {name: array[first:last] for name, array in self.data.items()}
        part.age = self.age[start:stop]
        part.total = self.total[start:stop]
        part.ends = np.zeros_like(self.ends)
        part._state = part.new_state()
        return part
