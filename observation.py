"""How observations are scaled, and how they look in a mirror that swaps left and right."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fused

ROOT = math.sqrt(0.5)
# by which observations are divided: divided by less, what a calm robot never sees would be huge
MIN_OBSERVATION_STD = 0.5


def change_over(x: Tensor) -> Tensor:
    """Return sums and differences of what is of the sides, or the other way around: (sides, ...)."""
    if len(x) == 1:
        return x
    a, b = x.unbind()  # unlike x[0] and x[1], whose gradients are filled up with zeros
    return torch.stack((a + b, a - b)) * ROOT


def pair_weight(sides: int, outputs: int, inputs: int) -> nn.Parameter:
    """Return the weights of a layer on sums and differences, (sides, outputs, inputs), features of a side."""
    return nn.Parameter(torch.empty(sides, outputs, inputs).uniform_(-1, 1) / math.sqrt(inputs))


def joined(first: Any, second: Any) -> Any:
    """Return the mirror image of two vectors behind one another, as there is one of each."""
    size = len(first.columns)
    return type(first)((*first.columns, *(size + column for column in second.columns)), (*first.signs, *second.signs))


class Reflection(nn.Module):
    """The mirror image of vectors of a kind: signs * x[columns], or none."""

    def __init__(self, size: int, mirror: Any) -> None:
        super().__init__()
        self.sides = 2 if mirror else 1
        columns = mirror.columns if mirror else range(size)
        signs = mirror.signs if mirror else [1.0] * size
        self.register_buffer("columns", torch.tensor(list(columns)), persistent=False)
        self.register_buffer("signs", torch.tensor(list(signs)), persistent=False)

    @classmethod
    def part(cls, whole: Any, which: Sequence[int]) -> "Reflection":
        """Return that of some columns of a vector, which its mirror image exchanges among themselves, or none."""
        if whole is None:
            return cls(len(which), None)
        place = {column: i for i, column in enumerate(which)}
        columns = tuple(place[whole.columns[column]] for column in which)
        return cls(len(which), type(whole)(columns, tuple(whole.signs[column] for column in which)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the mirror image of x (..., size)."""
        return x[..., self.columns] * self.signs

    def sums_and_differences(self) -> Tensor:
        """Return (sides, size, size): the matrices from x to the sum and the difference of x and its mirror image."""
        identity = torch.eye(len(self.columns), device=self.signs.device)
        return identity[None] if self.sides == 1 else change_over(torch.stack((identity, self(identity).T)))


class Moments(NamedTuple):
    """How many vectors there were, their mean and variance."""

    count: int
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Moments":
        """Return those of vectors (B, ...), 0 if there are none."""
        if not len(x):
            return cls(0, *x.new_zeros(2, *x.shape[1:]))
        mean = x.mean(dim=0)  # twice through it is ten times as fast as torch.var_mean
        return cls(len(x), mean, (x - mean).square().mean(dim=0))

    def to(self, device: torch.device | str) -> "Moments":
        """Return them on a device."""
        return Moments(self.count, self.mean.to(device), self.variance.to(device))

    def join(self, other: "Moments") -> "Moments":
        """Return those of both lots of vectors together; Chan et al., 1979."""
        count = self.count + other.count
        share = other.count / count
        shift = other.mean - self.mean
        variance = self.variance + share * (other.variance - self.variance) + share * (1.0 - share) * shift.square()
        return Moments(count, self.mean + share * shift, variance)


class Normaliser(nn.Module):
    """Mean and standard deviation of all observations so far, the same for their mirror images."""

    def __init__(self, reflection: Reflection, min_std: float = MIN_OBSERVATION_STD) -> None:
        super().__init__()
        self.reflection = reflection
        self.min_std = min_std
        size = len(reflection.signs)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("scale", torch.ones(size))  # what to multiply by; what hardly varies is not blown up
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def moments(self, x: Tensor) -> Moments:
        """Return the moments of observations x (B, size) and their mirror images."""
        own = Moments.of(x)
        return own.join(Moments(own.count, self.reflection(own.mean), own.variance[self.reflection.columns]))

    @torch.no_grad()
    def take(self, moments: Moments) -> None:
        """Take in the moments of more observations."""
        joined = Moments(self.count, self.mean, self.variance).join(moments)
        for kept, new in zip((self.count, self.mean, self.variance), joined, strict=True):
            kept.copy_(new)
        self.scale.copy_(self.variance.sqrt().clamp(min=self.min_std).reciprocal())

    def update(self, x: Tensor) -> None:
        """Take in observations x (B, size)."""
        self.take(self.moments(x))


class Features(nn.Module):
    """Observations as a dense layer takes them: normalised, sums and differences of them and their mirror images.

    A layer's weights times the matrix that makes sums and differences are weights of what is observed itself, which
    both sides share: forward() gives that, weights() those.

    which: columns of the observation that are read, and that the mirror image is of; None for the first.
    """

    def __init__(self, reflection: Reflection, which: Sequence[int] | None = None) -> None:
        super().__init__()
        more = -len(reflection.signs) % fused.ROWS
        self.size = len(reflection.signs)
        self.sides = reflection.sides
        self.rows = self.size + more  # of sums, filled up with zeros
        self.more = fused.filled(self.size) - self.size  # rows of zeros behind what is observed
        for name, value in (
            ("which", torch.tensor(list(range(self.size) if which is None else which))),
            ("mirror", reflection.columns),
            ("signs", reflection.signs.float()),
            ("basis", F.pad(reflection.sums_and_differences(), (0, 0, 0, more))),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, normaliser: Normaliser, dtype: torch.dtype, compiled: bool) -> Tensor:
        """Return (inputs, S) of x (S, columns), which are the normaliser's first, filled up with rows of zeros."""
        which = self.which
        if compiled and not len(x) % fused.WIDTH:
            return fused.standardised(x, which, normaliser.mean, normaliser.scale, self.more, dtype)
        x = (x[:, which] - normaliser.mean[which]) * normaliser.scale[which]
        return F.pad(x.T.to(dtype), (0, 0, 0, self.more))

    def weights(self, weight: Tensor, compiled: bool) -> Tensor:
        """Return the weights (sides, F, inputs + more) of forward() that do what others do of columns().

        weight: (sides, F, rows + more), of these and of what comes behind them, which stay what they are.
        """
        if compiled:
            filled = self.size + self.more
            return fused.run(fused.Mirrored)(weight, self.mirror, self.signs, self.rows, filled)
        first = F.pad(weight[..., : self.rows] @ self.basis, (0, self.more))
        return torch.cat((first, weight[..., self.rows :]), dim=-1)

    def columns(self, x: Tensor, dtype: torch.dtype, compiled: bool = False) -> Tensor:
        """Return sums and differences (sides, rows, S) of x (S, size), as it is, normalised or not."""
        if compiled and not len(x) % fused.WIDTH:
            return fused.of_sides(x, self.mirror, self.signs, self.sides, self.rows, dtype, summed=True)
        return (self.basis @ x.T).to(dtype)
