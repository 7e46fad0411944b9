"""What an environment is: ABEnv, its configuration EnvCfg and what a step returns, EnvState."""

import abc
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from config import EnvCfg

__all__ = ["ABEnv", "Body", "EnvCfg", "EnvState", "Mirror", "Node"]


@dataclass(frozen=True)
class Mirror:
    """The mirror image, left for right, of a vector x: signs * x[columns]."""

    columns: tuple[int, ...]
    signs: tuple[float, ...]


@dataclass(frozen=True)
class Node:
    """A part of a body, and the columns of the observation that describe it; parts of one kind share weights."""

    kind: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Body:
    """The graph of a body, every part a neighbour of every other.

    nodes: all parts; or, where obs, privileged and actions have mirror images, those of the left half
    (and of the middle), whose mirror images are the rest.
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
