"""Steps along gradients in compiled code: their weighted sum, and Adam's step, cut and checked on the way."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fused.memory import view
from fused.registers import WIDTH
from fused.vectors import fma, load, over_samples, total, zeros
from physics.jit import kernel, real

CHUNK = 64 * WIDTH  # numbers whose squares are summed in float32, and the sums in double precision


@kernel
def _weighted_sum(count, vectors, addresses, weights, sums):
    addresses, weights, sums = view(addresses, np.int64), view(weights, np.float32), view(sums, np.float32)
    for i in range(vectors):
        w, x = weights[i], view(addresses[i], np.float32)
        if i == 0:
            for j in range(count):
                sums[j] = w * x[j]
        else:
            for j in range(count):
                sums[j] += w * x[j]


def weighted_sum(vectors: Sequence[Tensor], weights: Sequence[float], sums: Tensor) -> Tensor:
    """Return the sum of vectors (L), float32, each times its weight, in sums (L)."""
    for x in (*vectors, sums):
        _require_like(sums, x)
    addresses = np.array([x.data_ptr() for x in vectors])
    factors = np.array(weights, np.float32)
    _weighted_sum(len(sums), len(vectors), addresses.ctypes.data, factors.ctypes.data, sums.data_ptr())
    return sums


def _require_like(vector: Tensor, x: Tensor) -> None:
    if x.shape != vector.shape or x.dtype != torch.float32 or not x.is_contiguous():
        raise ValueError(f"expected a contiguous float32 vector of {len(vector)}, got {tuple(x.shape)} of {x.dtype}")


@kernel
def _adam(groups, table, numbers, wrong):
    """Take the step of groups, of a table with the length, 0 to take none, and addresses; say in wrong if none was."""
    table, numbers, wrong = view(table, np.int64), view(numbers, np.float64), view(wrong, np.int64)
    limit = numbers[0]
    for g in range(groups):
        count, gradient = table[6 * g], view(table[6 * g + 2], np.float32)
        square = 0.0
        whole = count - count % (4 * WIDTH)
        for begin in range(0, whole, CHUNK):
            lanes = zeros(4)
            for i in range(begin, min(begin + CHUNK, whole), 4 * WIDTH):
                x = load(gradient, i, 4)
                lanes = fma(x, x, lanes)
            square += over_samples(total(lanes))
        for i in range(whole, count):
            square += gradient[i] * gradient[i]
        numbers[1 + 4 * groups + g] = np.sqrt(square)
        wrong[0] |= not np.isfinite(numbers[1 + 4 * groups + g])
    if wrong[0]:
        return
    for g in range(groups):
        if table[6 * g] == 0:
            continue
        count, vector, gradient = table[6 * g], view(table[6 * g + 1], np.float32), view(table[6 * g + 2], np.float32)
        first, second = view(table[6 * g + 3], np.float32), view(table[6 * g + 4], np.float32)
        taken = view(table[6 * g + 5], np.float32)
        rate, beta1, beta2, epsilon = (
            numbers[1 + 4 * g],
            numbers[2 + 4 * g],
            numbers[3 + 4 * g],
            numbers[4 + 4 * g],
        )
        norm = numbers[1 + 4 * groups + g]
        cut = real(limit / norm if norm > limit else 1.0)
        taken[0] += real(1.0)
        step = real(rate / (1.0 - beta1 ** taken[0]))
        per_root = real(1.0 / np.sqrt(1.0 - beta2 ** taken[0]))
        new1, new2, keep2, least = real(1.0 - beta1), real(1.0 - beta2), real(beta2), real(epsilon)
        for i in range(count):
            x = cut * gradient[i]
            m = first[i] + new1 * (x - first[i])
            v = keep2 * second[i] + new2 * x * x
            first[i], second[i] = m, v
            vector[i] -= step * m / (np.sqrt(v) * per_root + least)


class AdamSteps:
    """Steps of Adam (Kingma and Ba, 2015) of vectors that stay where they are, all in one call.

    Looking up and checking what does not change at every step took longer than a step of 25 k parameters.

    groups: each a vector (L), its first and second moments (L) and the number of steps taken (), float32; settings:
    both decays, and epsilon.
    """

    def __init__(self, groups: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], *settings: float) -> None:
        self._kept = groups
        for vector, *moments, taken in groups:
            for x in (vector, *moments):
                _require_like(vector, x)
            if taken.dtype != torch.float32:
                raise ValueError(f"expected the steps taken in float32, got {taken.dtype}")
        self._table = np.array([[0, v.data_ptr(), 0, *(x.data_ptr() for x in more)] for v, *more in groups])
        self._numbers = np.zeros(1 + 5 * len(groups))
        self._settings = self._numbers[1 : 1 + 4 * len(groups)].reshape(-1, 4)
        self._settings[:, 1:] = settings
        self._wrong = np.zeros(1, np.int64)
        self._addresses = [x.ctypes.data for x in (self._table, self._numbers, self._wrong)]

    def __call__(self, gradients: Sequence[Tensor | None], rates: Sequence[float], limit: float) -> bool:
        """Take a step and return whether all gradients are finite; none is taken otherwise.

        gradients: of each vector, None for one that stays what it is; rates: of learning; limit: norm that each
        gradient is cut to.
        """
        for (vector, *_), gradient, row in zip(self._kept, gradients, self._table, strict=True):
            if gradient is not None:
                _require_like(vector, gradient)
                row[2] = gradient.data_ptr()
            row[0] = 0 if gradient is None else len(vector)
        self._numbers[0] = limit
        self._settings[:, 0] = rates
        self._wrong[0] = 0
        _adam(len(self._table), *self._addresses)
        return not self._wrong[0]
