"""The gradient that experience gives: by autograd, or by a graph recorded once, on a GPU and on the CPU."""

from typing import NamedTuple

import torch
from torch import Tensor

import fused
from config import PPOCfg
from policy import Policy
from training import ppo
from training.experience import Experience
from training.graph import record

Losses = list[tuple[Tensor, float | Tensor]]  # with the share that each has of what is made small


def losses(belief: Policy, cfg: PPOCfg, x: Experience) -> tuple[Losses, dict[str, Tensor]]:
    """Return PPO's losses of experience whose advantages are scaled, and metrics."""
    mean, _ = belief.evaluate(x.obs, x.memory, x.starts, x.context)
    value = belief.value_of(x.features.flatten(-2)).view_as(x.returns)
    std = belief.std()
    actor, clipped, kl = ppo.policy_loss(mean, std, x.action, x.mean, x.std, x.advantage, cfg.clip)
    critic = ppo.value_loss(value, x.returns)
    bonus = ppo.entropy(std)
    metrics = {"policy_loss": actor, "value_loss": critic, "entropy": bonus, "clip_fraction": clipped, "kl": kl}
    found: Losses = [(actor, 1.0), (critic, 1.0), (bonus, -cfg.entropy_coefficient)]
    if x.taught is not None:
        std_of_teacher, share = x.teacher
        imitation = ppo.gaussian_kl(x.taught, std_of_teacher, mean, std).mean()
        found += [(actor, -share), (imitation, share)]
        metrics["imitation_loss"] = imitation
    return found, metrics


def by_autograd(
    belief: Policy, cfg: PPOCfg, x: Experience, parameters: list[Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the gradient, one vector, and metrics, of any policy."""
    found, metrics = losses(belief, cfg, x)
    loss = sum(share * part for part, share in found)
    vector = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    return vector, {key: y.detach() for key, y in metrics.items()}


def write_gradient(tape: fused.Tape, losses: Losses, parameters: list[Tensor], vector: Tensor) -> None:
    """Set a vector to the gradient of losses that were noted, by parameters one after another."""
    gradients = tape.gradients((loss, torch.full((), share)) for loss, share in losses)
    parts = vector.split([p.numel() for p in parameters])
    for p, part in zip(parameters, parts, strict=True):
        fused.assign(part, gradients[p.data_ptr()].flatten())


def times(robots: int) -> int:
    """Return how often each of some robots is to count, for whole vectors of them on the CPU.

    All that is learnt from are means over robots, the same of each robot twice.
    """
    whole = 2 * fused.WIDTH
    return whole // robots if robots < whole and whole % robots == 0 else 1


class Recorded:
    """The gradient of minibatches of one shape, as one graph.

    On a GPU replaying a sequence launches a thousand kernels of microseconds. On the CPU autograd and Python between
    the layers take a third of a gradient, most of it holding Python's lock, which other threads wait for: two threads
    on an Emerald Rapids spend 6.0 us on a gradient's env step without a graph, 4.0 with one.
    """

    def __init__(self, belief: Policy, cfg: PPOCfg, x: Experience, parameters: list[Tensor]) -> None:
        self.belief = belief
        self.cfg = cfg
        self.parameters = parameters
        self.times = times(x.obs.shape[1]) if x.obs.device.type == "cpu" else 1
        self.kept = x.repeated(self.times).map(lambda y: torch.empty(y.shape, dtype=y.dtype, device=y.device).copy_(y))
        self.x = self.kept.flattened()
        self.vector = torch.zeros(sum(p.numel() for p in parameters))
        self._source: Experience | None = None  # that minibatches were last copied of
        device = x.obs.device
        self._gather = fused.Gather(len(list(self.kept.tensors())))
        self.graph = record(self._by_tape if device.type == "cpu" else self._by_autograd, device)

    def _by_autograd(self) -> None:
        self.vector, self.metrics = by_autograd(self.belief, self.cfg, self.x, self.parameters)

    def _by_tape(self) -> None:
        self._gather()
        with fused.Tape() as tape:
            found, self.metrics = losses(self.belief, self.cfg, self.x)
        write_gradient(tape, found, self.parameters, self.vector)

    def read(self, x: Experience, robots: slice) -> int:
        """Let the gradient be of some robots' experience, on the CPU; return where these are, as the graph counts."""
        if x is not self._source:
            self._source = x
            self._first = robots.start
            sources = x.of(robots).repeated(self.times)
            self._gather.between(sources.tensors(), self.kept.tensors(), x.apart())
        return robots.start - self._first

    def job(self, x: Experience, robots: slice) -> fused.Job:
        """Return what will find the gradient and metrics of some robots' experience, on the CPU."""
        step = self.read(x, robots)
        return fused.Job(self.graph, self._gather.taken, step, self.vector, self.metrics)

    def __call__(self, x: Experience, robots: slice) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient and metrics of some robots' experience; the next call overwrites them."""
        if x.obs.device.type == "cpu":
            self._gather.step(self.read(x, robots))
        else:
            for kept, new in zip(self.x.tensors(), x.of(robots).tensors(), strict=True):
                kept.copy_(new)
        self.graph.replay()
        return self.vector, self.metrics


class Gradients:
    """The gradients of one policy, one minibatch after another: recorded for each shape, where that can be."""

    def __init__(self, belief: Policy, cfg: PPOCfg, parameters: list[Tensor]) -> None:
        self.belief = belief
        self.cfg = cfg
        self.parameters = parameters
        self.recorded: dict[tuple, Recorded] = {}

    def recorded_of(self, x: Experience, n: int) -> Recorded | None:
        """Return what finds the gradient of so many robots of an experience, None where autograd has to."""
        if x.obs.device.type == "cpu" and (x.taught is not None or not self.belief.is_recordable(n * times(n))):
            return None
        shapes = n, *(y.shape for y in x.tensors())
        if shapes not in self.recorded:
            self.recorded[shapes] = Recorded(self.belief, self.cfg, x.of(slice(0, n)), self.parameters)
        return self.recorded[shapes]

    def __call__(self, x: Experience, robots: slice | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient and metrics of some robots' experience, or all, whose advantages are scaled.

        The next call with as many may overwrite them.
        """
        robots = slice(0, x.obs.shape[1]) if robots is None else robots
        recorded = self.recorded_of(x, robots.stop - robots.start)
        if recorded is None:
            return by_autograd(self.belief, self.cfg, x.of(robots), self.parameters)
        return recorded(x, robots)


class Part(NamedTuple):
    """What a thread learns from: its part of a source of experience."""

    source: str  # what the names of its metrics begin with
    gradients: Gradients
    x: Experience  # whose advantages are scaled
    minibatches: int
    share: float  # of all that the source is
    weight: float  # of its gradient in that of all sources

    def robots(self, m: int) -> slice:
        """Return those of a minibatch."""
        n = self.x.returns.shape[1]
        return slice(n * m // self.minibatches, n * (m + 1) // self.minibatches)

    def find(self, m: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return gradient and metrics of a minibatch; the next call may overwrite them."""
        return self.gradients(self.x, self.robots(m))

    def job(self, m: int) -> fused.Job | None:
        """Return what finds gradient and metrics of a minibatch without Python, None where that cannot be."""
        robots = self.robots(m)
        recorded = self.gradients.recorded_of(self.x, robots.stop - robots.start)
        return recorded and recorded.job(self.x, robots)
