"""Experience: what an update learns from, real or imagined."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import fused
from policy import Policy, State
from training.graph import Graph, record

BY_ROBOT = "obs", "starts", "action", "mean", "returns", "advantage", "reached", "taught"  # (T, N, ...)


class Experience(NamedTuple):
    """T steps of N robots."""

    obs: Tensor  # (T, N, O)
    starts: Tensor  # (T, N), 1 where a step is the first of its episode
    memory: State  # the policy's, before the first step
    action: Tensor  # (T, N, A)
    mean: Tensor  # (T, N, A)
    std: Tensor  # (A)
    features: Tensor  # (..., T, N), for the critic
    returns: Tensor  # (T, N), what values should have been
    advantage: Tensor  # (T, N)
    context: Tensor | None = None  # (sides, D, T, N), what the policy reads of the world model
    reached: Tensor | None = None  # (T, N), probability of having come to a step that was imagined
    taught: Tensor | None = None  # (T, N, A), what a teacher would do
    teacher: State = ()  # its standard deviation (A), and the share that imitating it has of the loss

    def of(self, robots: slice) -> "Experience":
        """Return what some of the robots experienced, as views."""
        return self._by_robot(lambda x, axis: x[:, robots] if axis == 1 else x[..., robots])

    def apart(self) -> Iterator[int]:
        """Return how many bytes lie between robots in each of tensors(), 0 in what is of all robots."""
        for name, x in zip(self._fields, self, strict=True):
            for y in x if isinstance(x, tuple) else (x,):
                if y is not None:
                    axis = 1 if name in BY_ROBOT else -1
                    yield 0 if name in ("std", "teacher") else y.stride(axis) * y.element_size()

    def tensors(self) -> Iterator[Tensor]:
        """Return all there are."""
        return (y for x in self for y in (x if isinstance(x, tuple) else (x,)) if y is not None)

    def scaled(self, mean: Tensor, std: Tensor) -> "Experience":
        """Return it with advantages less a mean, by a deviation, and by how probably a step was come to."""
        advantage = (self.advantage - mean) / (std + 1e-8)
        return self._replace(advantage=advantage if self.reached is None else advantage * self.reached, reached=None)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Experience":
        """Return it with a function of every tensor in its place."""

        def of(y: Tensor | State | None) -> Tensor | State | None:
            if isinstance(y, tuple):
                return tuple(function(z) for z in y)
            return y if y is None else function(y)

        return Experience(*(of(y) for y in self))

    def to(self, device: torch.device) -> "Experience":
        """Return it on a device."""
        return self.map(lambda y: y.to(device))

    def _by_robot(self, function: Callable[[Tensor, int], Tensor]) -> "Experience":
        """Return it with a function of what is of each robot, and of its axis."""
        by_robot = {name: function(x, 1) for name in BY_ROBOT if (x := getattr(self, name)) is not None}
        memory = tuple(function(y, -1) for y in self.memory)
        last = {name: function(x, -1) for name in ("features", "context") if (x := getattr(self, name)) is not None}
        return self._replace(**by_robot, memory=memory, **last)

    def repeated(self, times: int) -> "Experience":
        """Return it with every robot so many times, as views with an axis of these before the robots'."""

        def of(x: Tensor, axis: int) -> Tensor:
            shape = list(x.shape)
            shape.insert(axis % x.ndim, times)
            return x.unsqueeze(axis % x.ndim).expand(shape)

        return self._by_robot(of)

    def flattened(self) -> "Experience":
        """Return what repeated() made as of more robots."""
        return self._by_robot(lambda x, axis: x.flatten(1, 2) if axis == 1 else x.flatten(-2))

    @staticmethod
    def join(parts: "list[Experience]") -> "Experience":
        """Return what several groups of robots experienced as what one did."""
        x, *_ = parts
        if len(parts) == 1:
            return x

        def cat(name: str, axis: int) -> Tensor | None:
            return None if getattr(x, name) is None else torch.cat([getattr(part, name) for part in parts], dim=axis)

        memory = tuple(torch.cat(states, dim=-1) for states in zip(*(part.memory for part in parts), strict=True))
        last = {name: cat(name, -1) for name in ("features", "context")}
        return x._replace(**{name: cat(name, 1) for name in BY_ROBOT}, memory=memory, **last)


def values(belief: Policy, everything: Tensor) -> tuple[Tensor, Tensor]:
    """Return the critic's features (..., T, N) and values (T + 1, N).

    everything: (T + 1, N, O + P), observations and privileged ones.
    """
    features = belief.critic_features(everything.flatten(0, 1))
    found = belief.value_of(features).unflatten(0, everything.shape[:2])
    return features.unflatten(-1, everything.shape[:2])[..., :-1, :], found


class Values:
    """values() of rollouts of one shape, in memory that each overwrites.

    On the CPU they would else allocate 15 MB, whose pages are new to the process: 0.2 us of a robot's step, of 0.5.

    everything: (T + 1, N, O + P), which somebody fills. What is found of it lies step by step, as it is found: what the
    layers make of a step's robots stays in the cache from one to the next.
    """

    def __init__(self, belief: Policy, everything: Tensor) -> None:
        self.belief = belief
        self.everything = everything
        self.graph: Graph | None = None

    def _find(self) -> None:
        for x, features, value in zip(self.everything, self._features, self._value, strict=True):
            found = self.belief.critic_features(x)
            fused.assign(features, found)
            fused.assign(value, self.belief.value_of(found))

    @torch.no_grad()
    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return values() of everything as it is now."""
        steps, n, _ = self.everything.shape
        if self.everything.device.type != "cpu" or not self.belief.is_recordable(n):
            return values(self.belief, self.everything)
        if self.graph is None:
            found = self.belief.critic_features(self.everything[0])
            self._features = torch.empty(steps, *found.shape, dtype=found.dtype)
            self._value = torch.empty(steps, n)
            self.graph = record(self._find, self.everything.device)
        self.graph.replay()
        return self._features.movedim(0, -2)[..., :-1, :], self._value
