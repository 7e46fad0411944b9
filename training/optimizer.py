"""Adam over flat vectors of parameters."""

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adam import adam

import fused

# Methods of PyTorch's optimizers import its compiler when they are first called, which nothing here uses: 1.2 s of
# every start. These are made to do without; step() below stands in for the one that cannot be.
for _method in (Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict):
    if _plain := getattr(_method, "__wrapped__", None):
        setattr(_plain, "__dynamo_disable", _plain)


def flatten(parameters: Sequence[Tensor]) -> Tensor:
    """Return one vector that holds all parameters, which become views of it.

    An optimiser then takes one step and one norm instead of dozens.
    """
    flat = torch.cat([p.detach().flatten() for p in parameters])
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.data = part.view_as(p)
    return flat.requires_grad_()


class Adam(torch.optim.Adam):
    """Adam in a single pass over each of several flat vectors, each a group of parameters."""

    def __init__(self, *vectors: Tensor, learning_rate: float = 1e-3, epsilon: float = 1e-5) -> None:
        super().__init__([{"params": [vector]} for vector in vectors], lr=learning_rate, eps=epsilon, fused=True)
        for vector in vectors:
            self.state[vector] = {
                "step": torch.zeros((), device=vector.device),
                "exp_avg": torch.zeros_like(vector, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(vector, requires_grad=False),
            }

    def moments(self) -> list[dict[str, Tensor]]:
        """Return what it keeps of each vector's gradients, not copied."""
        return [self.state[vector] for group in self.param_groups for vector in group["params"]]

    def load_moments(self, moments: list[dict[str, Tensor]]) -> None:
        """Take up what moments() returned of vectors of the same lengths."""
        for kept, new in zip(self.moments(), moments, strict=True):
            for name, x in kept.items():
                x.copy_(new[name])

    @torch.no_grad()
    def step(self, *gradients: Tensor | None, limit: float = math.inf) -> bool:
        """Change the vectors along their gradients; return whether all of these are finite: else nothing changes.

        gradients: of each vector, None for one that stays what it is; limit: norm that each is cut to.
        """
        groups = [(x, g) for x, g in zip(self.param_groups, gradients, strict=True) if g is not None]
        vectors = [group["params"][0] for group, _ in groups]
        states = [[self.state[vector][name] for name in ("exp_avg", "exp_avg_sq", "step")] for vector in vectors]
        if vectors[0].device.type == "cpu":
            return fused.adam(
                [(vector, g, *state) for vector, (_, g), state in zip(vectors, groups, states, strict=True)],
                [(group["lr"], *group["betas"], group["eps"]) for group, _ in groups],
                limit,
            )
        norms = [g.norm() for _, g in groups]
        if not math.isfinite(sum(norms)):  # waits for the GPU
            return False
        for vector, (group, g), norm, (first, second, taken) in zip(vectors, groups, norms, states, strict=True):
            beta1, beta2 = group["betas"]
            cut = 1.0 if limit == math.inf else limit / norm.clamp(min=limit)
            adam(
                [vector], [g * cut], [first], [second], [], [taken],
                amsgrad=False, fused=True, beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=0.0, eps=group["eps"],
                maximize=False,
            )  # fmt: skip
        return True


def weighted_sum(vectors: Sequence[Tensor], weights: Sequence[float], out: Tensor | None = None) -> Tensor:
    """Return the sum of vectors (L), each times its weight, in out (L) on the CPU, where there is one."""
    if vectors[0].device.type == "cpu":
        return fused.weighted_sum(vectors, weights, torch.empty_like(vectors[0]) if out is None else out)
    return sum(weight * vector for weight, vector in zip(weights, vectors, strict=True))


class Average:
    """The exponential average of a flat vector of parameters, by Polyak and Ruppert's idea.

    vector: what is learnt; over: how many of its values are averaged, 1 for the last alone.
    """

    def __init__(self, vector: Tensor, over: int) -> None:
        self.vector = vector
        self.value = vector.detach().clone()
        self._rate = 1.0 / over

    @torch.no_grad()
    def follow(self, steps: float = math.inf) -> None:
        """Take in the vector as it is now; steps: that it has taken, few of which are averaged over fewer values."""
        self.value.lerp_(self.vector, max(self._rate, 9.0 / (10.0 + steps)))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the vector be its average for as long as this lasts; nothing is to be learnt meanwhile."""
        learnt = self.vector.detach().clone()
        self.vector.detach().copy_(self.value)
        try:
            yield
        finally:
            self.vector.detach().copy_(learnt)
