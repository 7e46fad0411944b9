"""The gradient that experience gives: by autograd, or by a graph recorded once, on a GPU and on the CPU."""

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


class Recorded:
    """The gradient of minibatches of one shape, as one graph.

    On a GPU replaying a sequence launches a thousand kernels of microseconds; on the CPU Python and autograd between
    the layers hold a lock that other threads wait for.
    """

    def __init__(self, belief: Policy, cfg: PPOCfg, x: Experience, parameters: list[Tensor]) -> None:
        self.x = x.map(lambda y: torch.empty(y.shape, dtype=y.dtype, device=y.device))
        self.copy(x)
        device = x.obs.device

        def by_autograd_() -> None:
            self.vector, self.metrics = by_autograd(belief, cfg, self.x, parameters)

        def by_tape() -> None:
            with fused.Tape() as tape:
                found, self.metrics = losses(belief, cfg, self.x)
            found = tape.gradients((loss, share) for (loss, _), share in zip(found, shares, strict=True))
            parts = self.vector.split([p.numel() for p in parameters])
            for p, part in zip(parameters, parts, strict=True):
                fused.assign(part, found[p.data_ptr()].flatten())

        if device.type == "cpu":
            self.vector = torch.zeros(sum(p.numel() for p in parameters))
            shares = [torch.tensor(share) for share in (1.0, 1.0, -cfg.entropy_coefficient)]
        self.graph = record(by_tape if device.type == "cpu" else by_autograd_, device)

    def copy(self, x: Experience) -> None:
        """Take in a minibatch."""
        for kept, new in zip(self.x.tensors(), x.tensors(), strict=True):
            kept.copy_(new)

    def __call__(self, x: Experience) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what gradient() does; the next call overwrites it."""
        self.copy(x)
        self.graph.replay()
        return self.vector, self.metrics


class Gradients:
    """The gradients of one policy, one minibatch after another: recorded for each shape, where that can be."""

    def __init__(self, belief: Policy, cfg: PPOCfg, parameters: list[Tensor]) -> None:
        self.belief = belief
        self.cfg = cfg
        self.parameters = parameters
        self.recorded: dict[tuple, Recorded] = {}

    def __call__(self, x: Experience) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient and metrics of a minibatch whose advantages are scaled.

        The next call with one of that shape may overwrite them.
        """
        n = x.obs.shape[1]
        if x.obs.device.type == "cpu" and (x.taught is not None or not self.belief.is_recordable(n)):
            return by_autograd(self.belief, self.cfg, x, self.parameters)
        shapes = tuple(y.shape for y in x.tensors())
        if shapes not in self.recorded:
            self.recorded[shapes] = Recorded(self.belief, self.cfg, x, self.parameters)
        return self.recorded[shapes](x)
