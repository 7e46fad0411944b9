"""Categorical variables of the stochastic state in compiled code: their probabilities, and values drawn by them."""

from fused.vectors import choose_positive, exponential, fma, load, store, zeros
from physics.jit import inline, real

UNIFORM = 0.01  # share of a categorical variable's probability that is the same for every value


@inline
def softmax(size, columns, s, logits, first, powers, powers_place, powers_stride, out, place, stride):
    """Set out to the softmax of logits, of the samples from s on.

    out: size rows from place on; logits: size rows of columns from row first on; powers: float32, may be logits, or
    out where that is float32, is overwritten as out is.
    """
    most = load(logits, first * columns + s, 1)
    for c in range(1, size):
        x = load(logits, (first + c) * columns + s, 1)
        most = choose_positive(x - most, x, most)
    total = zeros(1)
    for c in range(size):
        power = exponential(load(logits, (first + c) * columns + s, 1) - most)
        store(powers, powers_place + c * powers_stride + s, power)
        total = total + power
    total = real(1.0) / total
    for c in range(size):
        store(out, place + c * stride + s, total * load(powers, powers_place + c * powers_stride + s, 1))


@inline
def draw(size, samples_draw, probs, place, stride, s, u, out, first, columns):
    """Set out to 1 at the value drawn by u, or if not to draw at the likeliest, and to 0 elsewhere.

    out: size rows of columns from row first on.
    """
    one = zeros(1) + real(1.0)
    if samples_draw:
        below, left = zeros(1), one  # left: 1 while the value is not found
        for c in range(size):
            below = below + fma(
                real(1.0 - UNIFORM), load(probs, place + c * stride + s, 1), zeros(1) + real(UNIFORM) / real(size)
            )
            still = choose_positive(u - below, left, zeros(1)) if c + 1 < size else zeros(1)
            store(out, (first + c) * columns + s, left - still)
            left = still
    else:
        most = load(probs, place + s, 1)
        for c in range(1, size):
            x = load(probs, place + c * stride + s, 1)
            most = choose_positive(x - most, x, most)
        left = one
        for c in range(size):
            still = choose_positive(most - load(probs, place + c * stride + s, 1), left, zeros(1))
            store(out, (first + c) * columns + s, left - still)
            left = still
