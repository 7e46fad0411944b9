"""The layers of the networks in compiled code, forwards and backwards: a dense layer with ELU, and the LSTM.

Where a body has two sides, products are taken of their sum and difference (entity.py), (a + b) / sqrt 2
and (a - b) / sqrt 2, and gates and activations of the sides themselves; changing over costs nothing here.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from fused.memory import bits, scratch, weights
from fused.product import REGISTERS, product, weight_gradient
from fused.vectors import WIDTH, bounded, choose_positive, exponential, fma, load, over_samples, store, zeros
from physics.jit import inline, kernel, real


@inline
def tanh(x):
    """Return the hyperbolic tangent: the ratio of odd and even polynomials of the library Eigen, to 2e-7; 14 instructions and a division."""
    x = bounded(x, real(-7.9), real(7.9))
    z = x * x
    p = fma(z, real(-2.76076847742355e-16), real(2.00018790482477e-13))
    p = fma(z, p, real(-8.60467152213735e-11))
    p = fma(z, p, real(5.12229709037114e-08))
    p = fma(z, p, real(1.48572235717979e-05))
    p = fma(z, p, real(6.37261928875436e-04))
    p = fma(z, p, real(4.89352455891786e-03))
    q = fma(z, real(1.19825839466702e-06), real(1.18534705686654e-04))
    q = fma(z, q, real(2.26843463243900e-03))
    q = fma(z, q, real(4.89352518554385e-03))
    return x * p / q


@inline
def sigmoid(x):
    """Return 1 / (1 + e^-x) = (1 + tanh(x / 2)) / 2."""
    return fma(real(0.5), tanh(real(0.5) * x), real(0.5))


@inline
def side_of(sides, side, array, place, other):
    """Return a side's numbers, of the sums at place and the differences other further on."""
    if sides == 1:
        return load(array, place, 1)
    if side == 0:
        return real(0.5**0.5) * (load(array, place, 1) + load(array, place + other, 1))
    return real(0.5**0.5) * (load(array, place, 1) - load(array, place + other, 1))


@inline
def keep_sides(sides, array, place, other, a, b):
    """Store sum and difference of two sides."""
    if sides == 1:
        store(array, place, a)
    else:
        store(array, place, real(0.5**0.5) * (a + b))
        store(array, place + other, real(0.5**0.5) * (a - b))


@functools.cache
def make_kernels(sides: int) -> tuple:
    """Return the compiled passes: a dense layer with ELU and its backward, the LSTM over a sequence and its backward.

    size, inner: features of a side, out of a layer and into it; samples: columns. The LSTM's columns
    are steps * n, a step's next to each other; its inputs hold what enters a step above the hidden
    state before it, and a step more; gates are in the order input, forget, output, candidate.
    """

    @kernel
    def dense_forward(size, inner, samples, weight, bias, x, y, panel):
        for side in range(sides):
            w, x_, y_ = weight[side * (len(weight) // sides) :], x[side * inner * samples :], y[side * size * samples :]
            product(size, inner, w, x_, samples, y_, samples, samples, panel)
        other = size * samples
        for j in range(size):
            for place in range(j * samples, (j + 1) * samples, WIDTH):
                a = side_of(sides, 0, y, place, other) + bias[j]
                b = a
                if sides == 2:
                    b = side_of(sides, 1, y, place, other) + bias[j]
                    b = choose_positive(b, b, exponential(b) - real(1.0))
                a = choose_positive(a, a, exponential(a) - real(1.0))
                keep_sides(sides, y, place, other, a, b)

    @kernel
    def dense_backward(size, inner, samples, transposed, x, y, dy, dz, dx, dweight, dbias, panel):
        other = size * samples
        for j in range(size):
            db = zeros(1)
            for place in range(j * samples, (j + 1) * samples, WIDTH):
                a, da = side_of(sides, 0, y, place, other), side_of(sides, 0, dy, place, other)
                da = choose_positive(a, da, da * (a + real(1.0)))
                b, d = da, da
                db = db + da
                if sides == 2:
                    b, d = side_of(sides, 1, y, place, other), side_of(sides, 1, dy, place, other)
                    d = choose_positive(b, d, d * (b + real(1.0)))
                    db = db + d
                keep_sides(sides, dz, place, other, da, d)
            dbias[j] = over_samples(db)
        for side in range(sides):
            dz_, x_ = dz[side * size * samples :], x[side * inner * samples :]
            weight_gradient(size, inner, dz_, samples, x_, samples, samples, dweight[side * size * inner :])
            if len(dx) > 0:
                w = transposed[side * (len(transposed) // sides) :]
                product(inner, size, w, dz_, samples, dx[side * inner * samples :], samples, samples, panel)

    @kernel
    def lstm_forward(size, inner, steps, n, weight, bias, keep, inputs, cells, acts, hidden, gates, panel):
        samples, both = steps * n, inner + size
        ahead, step = samples + n, size * steps * n
        for t in range(steps):
            first = t * n
            for side in range(sides):
                w, x = weight[side * (len(weight) // sides) :], inputs[side * both * ahead + first :]
                product(4 * size, both, w, x, ahead, gates[side * 4 * size * n :], n, n, panel)
            cell, next_cell = cells[t * sides * size * n :], cells[(t + 1) * sides * size * n :]
            for j in range(size):
                for s in range(0, n, WIDTH):
                    h0, h1 = zeros(1), zeros(1)
                    for side in range(sides):
                        i = sigmoid(side_of(sides, side, gates, j * n + s, 4 * size * n) + bias[j])
                        f = sigmoid(side_of(sides, side, gates, (size + j) * n + s, 4 * size * n) + bias[size + j])
                        o = sigmoid(side_of(sides, side, gates, (2 * size + j) * n + s, 4 * size * n) + bias[2 * size + j])
                        a = tanh(side_of(sides, side, gates, (3 * size + j) * n + s, 4 * size * n) + bias[3 * size + j])
                        place = (side * size + j) * n + s
                        c = f * load(keep, first + s, 1) * load(cell, place, 1) + i * a
                        store(next_cell, place, c)
                        place = (4 * side * size + j) * samples + first + s
                        store(acts, place, i)
                        store(acts, place + step, f)
                        store(acts, place + 2 * step, o)
                        store(acts, place + 3 * step, a)
                        if side == 0:
                            h0 = o * tanh(c)
                        else:
                            h1 = o * tanh(c)
                    k = load(keep, first + n + s, 1)
                    keep_sides(sides, hidden, j * samples + first + s, step, h0, h1)
                    keep_sides(sides, inputs, (inner + j) * ahead + first + n + s, both * ahead, k * h0, k * h1)

    @kernel
    def lstm_backward(size, inner, steps, n, transposed, keep, inputs, cells, acts, dhidden, dx, dinput, dcell, dgates, dweight, dbias, panel):
        samples, both = steps * n, inner + size
        step, other = size * samples, 4 * size * samples
        for t in range(steps - 1, -1, -1):
            first = t * n
            cell, next_cell = cells[t * sides * size * n :], cells[(t + 1) * sides * size * n :]
            for j in range(size):
                di, df, do, da = zeros(1), zeros(1), zeros(1), zeros(1)
                for s in range(0, n, WIDTH):
                    i0, f0, o0, a0 = zeros(1), zeros(1), zeros(1), zeros(1)
                    i1, f1, o1, a1 = zeros(1), zeros(1), zeros(1), zeros(1)
                    for side in range(sides):
                        place = (4 * side * size + j) * samples + first + s
                        i, f = load(acts, place, 1), load(acts, place + step, 1)
                        o, a = load(acts, place + 2 * step, 1), load(acts, place + 3 * step, 1)
                        place = (side * size + j) * n + s
                        c, th, k = load(cell, place, 1), tanh(load(next_cell, place, 1)), load(keep, first + s, 1)
                        dh = load(keep, first + n + s, 1) * side_of(sides, side, dinput, j * n + s, size * n)
                        dh = dh + side_of(sides, side, dhidden, j * samples + first + s, step)
                        dc = load(dcell, place, 1) + dh * o * (real(1.0) - th * th)
                        store(dcell, place, dc * f * k)
                        gi, gf = dc * a * i * (real(1.0) - i), dc * k * c * f * (real(1.0) - f)
                        go, ga = dh * th * o * (real(1.0) - o), dc * i * (real(1.0) - a * a)
                        if side == 0:
                            i0, f0, o0, a0 = gi, gf, go, ga
                        else:
                            i1, f1, o1, a1 = gi, gf, go, ga
                    place = j * samples + first + s
                    keep_sides(sides, dgates, place, other, i0, i1)
                    keep_sides(sides, dgates, place + step, other, f0, f1)
                    keep_sides(sides, dgates, place + 2 * step, other, o0, o1)
                    keep_sides(sides, dgates, place + 3 * step, other, a0, a1)
                    di, df, do, da = di + i0 + i1, df + f0 + f1, do + o0 + o1, da + a0 + a1
                dbias[j] += over_samples(di)
                dbias[size + j] += over_samples(df)
                dbias[2 * size + j] += over_samples(do)
                dbias[3 * size + j] += over_samples(da)
            for side in range(sides):
                w, d = transposed[side * (len(transposed) // sides) :], dgates[side * other + first :]
                product(inner, 4 * size, w, d, samples, dx[side * inner * samples + first :], samples, n, panel)
                if t > 0:
                    w = w[inner * (len(transposed) // sides // both) :]
                    product(size, 4 * size, w, d, samples, dinput[side * size * n :], n, n, panel)
        for side in range(sides):
            x, d = inputs[side * both * (samples + n) :], dgates[side * other :]
            weight_gradient(4 * size, both, d, samples, x, samples + n, samples, dweight[side * 4 * size * both :])

    return dense_forward, dense_backward, lstm_forward, lstm_backward


class Dense(torch.autograd.Function):
    """entity.dense: ELU(weight x + bias), sums and differences (sides, F, S) in dtype.

    x: (sides, K, S); weight: (sides, F, K); bias: (F); F and K whole
    numbers of product.ROWS, S of 2 WIDTH.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the layer's output in x's dtype."""
        (sides, size, inner), samples = weight.shape, x.shape[-1]
        forward_pass, ctx.backward_pass = make_kernels(sides)[:2]
        x, y = x.contiguous(), torch.empty(sides, size, samples, dtype=x.dtype)
        panel = scratch("panel", inner * REGISTERS * WIDTH)
        forward_pass(size, inner, samples, weights(weight, x.dtype), bits(bias), bits(x), bits(y), panel)
        ctx.save_for_backward(x, y, weight)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        """Return the gradients of x, if it needs one, weight and bias."""
        x, y, weight = ctx.saved_tensors
        (_, size, inner), samples = weight.shape, x.shape[-1]
        dz, dx = torch.empty_like(y), torch.empty_like(x) if ctx.needs_input_grad[0] else x.new_empty(0)
        dweight, dbias = torch.empty_like(weight), torch.empty(size)
        arrays = [bits(z) for z in (x, y, dy.contiguous(), dz, dx, dweight, dbias)]
        panel = scratch("panel", size * REGISTERS * WIDTH)
        ctx.backward_pass(size, inner, samples, weights(weight.transpose(1, 2), x.dtype), *arrays, panel)
        return dx if ctx.needs_input_grad[0] else None, dweight, dbias


class LSTMSequence(torch.autograd.Function):
    """entity.lstm_sequence: hidden states (sides, H, S), sums and differences, and the last cell (sides, H, N), of the sides, float32.

    x: (sides, E, S) in dtype, S = T N columns, time before robot, N a whole number of WIDTH, S of 2
    WIDTH; weight: (sides, 4 H, E + H), E and H whole numbers of product.ROWS; bias: (4 H); hidden,
    cell: (sides, H, N) before the first step; keep: (T, N), 0 where the state is forgotten before a
    step. Gradients reach x, weight and bias; the state before the sequence is data.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Run T steps."""
        (sides, inner, samples), (size, n), steps = x.shape, cell.shape[1:], len(keep)
        forward_pass, ctx.backward_pass = make_kernels(sides)[2:]
        keep = torch.cat((keep, keep.new_ones(1, n)))
        inputs = torch.empty(sides, inner + size, samples + n, dtype=x.dtype)
        inputs[:, :inner, :samples] = x
        inputs[:, inner:, :n] = hidden * keep[0]
        cells = torch.empty(steps + 1, sides, size, n)
        cells[0] = cell
        acts, outputs = torch.empty(sides, 4 * size, samples, dtype=x.dtype), torch.empty(sides, size, samples)
        work = scratch("gates", sides * 4 * size * n), scratch("panel", (inner + size) * REGISTERS * WIDTH)
        arrays = [bits(z) for z in (bias, keep, inputs, cells, acts, outputs)]
        forward_pass(size, inner, steps, n, weights(weight, x.dtype), *arrays, *work)
        ctx.save_for_backward(weight, keep, inputs, cells, acts)
        last = cells[-1].clone()
        ctx.mark_non_differentiable(last)
        return outputs, last

    @staticmethod
    def backward(ctx: Any, doutputs: Tensor, _: Tensor) -> tuple:
        """Return the gradients of x, weight and bias."""
        weight, keep, inputs, cells, acts = ctx.saved_tensors
        (steps, sides, size, n), samples = cells[1:].shape, acts.shape[-1]
        inner = weight.shape[-1] - size
        dx, dgates = acts.new_empty(sides, inner, samples), torch.empty_like(acts)
        dinput, dcell = torch.zeros(sides, size, n), torch.zeros(sides, size, n)
        dweight, dbias = torch.empty_like(weight), torch.zeros(4 * size)
        arrays = [bits(z) for z in (keep, inputs, cells, acts, doutputs.contiguous(), dx, dinput, dcell, dgates, dweight, dbias)]
        ctx.backward_pass(size, inner, steps, n, weights(weight.transpose(1, 2), acts.dtype), *arrays, scratch("panel", 4 * size * REGISTERS * WIDTH))
        return dx, dweight, dbias, None, None, None
