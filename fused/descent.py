"""Steps along gradients in compiled code: their weighted sum, and Adam's step, cut and checked on the way."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fused.memory import view
from fused.program import launch
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
    if any(x.shape != vectors[0].shape or x.dtype != torch.float32 or not x.is_contiguous() for x in (*vectors, sums)):
        raise ValueError("weighted_sum: expected contiguous float32 vectors of one length")
    addresses = torch.tensor([x.data_ptr() for x in vectors])
    launch(_weighted_sum, len(sums), len(vectors), addresses, torch.tensor(weights), sums)
    return sums


@kernel
def _adam(groups, table, numbers, wrong):
    """Take Adam's step of every group, of a table with the length and addresses of each; say in wrong if none was."""
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


def adam(groups: Sequence[tuple[Tensor, ...]], settings: Sequence[tuple[float, ...]], limit: float) -> bool:
    """Take a step of Adam (Kingma and Ba, 2015) and return whether all gradients are finite; none is taken otherwise.

    groups: each a vector (L), its gradient (L), their first and second moments (L) and the number of steps taken ();
    settings: of each learning rate, both decays, and epsilon; limit: norm that a gradient is cut to.
    """
    for vector, *others, taken in groups:
        if any(x.shape != vector.shape or x.dtype != torch.float32 or not x.is_contiguous() for x in others):
            raise ValueError("adam: expected contiguous float32 vectors of one length")
        if taken.dtype != torch.float32:
            raise ValueError(f"adam: expected the steps taken in float32, got {taken.dtype}")
    table = np.array([[len(group[0]), *(x.data_ptr() for x in group)] for group in groups])
    numbers = np.zeros(1 + 5 * len(groups))
    numbers[0] = limit
    numbers[1 : 1 + 4 * len(groups)] = np.array(settings).ravel()
    wrong = np.zeros(1, np.int64)
    _adam(len(groups), table.ctypes.data, numbers.ctypes.data, wrong.ctypes.data)
    return not wrong[0]
