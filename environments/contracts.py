"""What an environment is: ABEnv, its configuration EnvCfg and what a step returns, EnvState."""

import abc
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from config import EnvCfg

__all__ = ["ABEnv", "Body", "EnvCfg", "EnvState", "Mirror", "Node"]


@dataclass(frozen=True)
class Mirror:
    """How a vector looks in a mirror that swaps left and right: x becomes signs * x[columns]."""

    columns: tuple[int, ...]
    signs: tuple[float, ...]


@dataclass(frozen=True)
class Node:
    """A part of a body: parts of one kind share weights; columns: of the observation."""

    kind: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Body:
    """The graph of a body, every part a neighbour of every other.

    A body with mirrors looks alike from left and right: nodes are the parts of its left half, and
    the same nodes read from the mirror image of the observation are those of its right half, a part
    in the middle being seen from both sides. Without mirrors nodes are all parts.

    obs, privileged, actions: mirrors of observation, privileged observation and actions, or None.
    """

    nodes: tuple[Node, ...]
    obs: Mirror | None = None
    privileged: Mirror | None = None
    actions: Mirror | None = None


@dataclass
class EnvState:
    """What N robots see and get after a step; every array is written anew by the next step."""

    obs: np.ndarray  # (N, observations) float32; of a new episode where done
    reward: np.ndarray  # (N) float32
    terminated: np.ndarray  # (N) bool, the episode ended by a fall
    truncated: np.ndarray  # (N) bool, the episode ended by time
    info: dict[str, np.ndarray] = field(default_factory=dict)  # see the environment's docs

    @property
    def done(self) -> np.ndarray:
        """(N) bool, the episode ended; obs is already the next one's first."""
        return self.terminated | self.truncated


class ABEnv(abc.ABC):
    """Many copies of a task stepped together; an episode that ended starts anew by itself."""

    cfg: EnvCfg
    num_envs: int
    num_obs: int
    num_actions: int
    num_privileged: int
    body: Body

    @abc.abstractmethod
    def init_state(self, seed: int = 0, staggered: bool = False) -> EnvState:
        """Start every episode and return the first observations.

        staggered: start at random ages, so that episodes do not end all at once.
        """

    @abc.abstractmethod
    def step(self, actions: np.ndarray, out: EnvState | None = None) -> EnvState:
        """Advance one control step; actions (N, num_actions).

        out: where to write, for callers that keep several steps; else the environment's own arrays.
        """

    @abc.abstractmethod
    def new_state(self) -> EnvState:
        """Return an EnvState of arrays that step() can write."""

    @abc.abstractmethod
    def errors(self) -> dict[str, Any]:
        """Return the task's own errors of this instant, (N) each, by name."""

    @abc.abstractmethod
    def split(self, parts: int, threads: int = 1) -> "list[ABEnv]":
        """Return this environment's robots as several environments, which different threads may step at the same time.

        Stepped alike, they do what the whole would, to the last bit. They share its robots, and so
        are used instead of it: a step of a part is not one of the whole, whose clock stands still.

        parts: at most how many; threads: of each.
        """

    @abc.abstractmethod
    def set_level(self, push: float = 1.0, command: float = 1.0) -> None:
        """Set how hard the task is, from now on, as a curriculum does, for every part of a split environment at once.

        push: times the configured strength of pushes; command: times the configured commands.
        """
