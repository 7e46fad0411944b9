"""Adam over flat vectors of parameters."""

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

import fused

BETAS = 0.9, 0.999  # by which moments are kept from one step to the next


def flatten(parameters: Sequence[Tensor]) -> Tensor:
    """Return one vector that holds all parameters, which become views of it.

    An optimiser then takes one step and one norm instead of dozens.
    """
    flat = torch.cat([p.detach().flatten() for p in parameters])
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.data = part.view_as(p)
    return flat.requires_grad_()


class Adam:
    """Adam (Kingma and Ba, 2015) in a single pass over each of several flat vectors.

    PyTorch's own class imports its compiler when it first steps, 1.2 s of every start, and asks for hooks at each step.

    rates: learning rates of the vectors, which may change from step to step.
    """

    def __init__(self, *vectors: Tensor, learning_rate: float = 1e-3, epsilon: float = 1e-5) -> None:
        self.vectors = vectors
        self.rates = [learning_rate] * len(vectors)
        self.epsilon = epsilon
        self._moments = [
            {
                "step": torch.zeros((), device=vector.device),
                "exp_avg": torch.zeros_like(vector, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(vector, requires_grad=False),
            }
            for vector in vectors
        ]
        self.steps: fused.AdamSteps | None = None  # on the CPU
        if vectors[0].device.type == "cpu":
            kept = ((x["exp_avg"], x["exp_avg_sq"], x["step"]) for x in self._moments)
            groups = [(vector, *of_it) for vector, of_it in zip(vectors, kept, strict=True)]
            self.steps = fused.AdamSteps(groups, *BETAS, epsilon)

    def moments(self) -> list[dict[str, Tensor]]:
        """Return what it keeps of each vector's gradients, not copied: both moments, and the steps taken."""
        return self._moments

    def load_moments(self, moments: list[dict[str, Tensor]]) -> None:
        """Take up what moments() returned of vectors of the same lengths."""
        for kept, new in zip(self._moments, moments, strict=True):
            for name, x in kept.items():
                x.copy_(new[name])

    @torch.no_grad()
    def step(self, *gradients: Tensor | None, limit: float = math.inf) -> bool:
        """Change the vectors along their gradients; return whether all of these are finite: else nothing changes.

        gradients: of each vector, None for one that stays what it is; limit: norm that each is cut to.
        """
        if self.steps:
            return self.steps(gradients, self.rates, limit)
        groups = [
            (vector, gradient, kept["exp_avg"], kept["exp_avg_sq"], kept["step"], rate)
            for vector, gradient, kept, rate in zip(self.vectors, gradients, self._moments, self.rates, strict=True)
            if gradient is not None
        ]
        norms = [gradient.norm() for _, gradient, *_ in groups]
        if not math.isfinite(sum(norms)):  # waits for the GPU
            return False
        for (vector, gradient, first, second, taken, rate), norm in zip(groups, norms, strict=True):
            cut = 1.0 if limit == math.inf else limit / norm.clamp(min=limit)
            adam(
                [vector], [gradient * cut], [first], [second], [], [taken],
                amsgrad=False, fused=True, beta1=BETAS[0], beta2=BETAS[1], lr=rate, weight_decay=0.0, eps=self.epsilon,
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
