"""The layers of the networks in compiled code, forwards and backwards: a dense layer with ELU, and the LSTM.

Where a body has two sides, products are taken of their sum and difference (entity.py), (a + b) / sqrt 2
and (a - b) / sqrt 2, and gates and activations of the sides themselves; changing over costs nothing here.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fused.memory import scratch, view
from fused.product import pack, pack_transposed, panel_size, product, weight_gradient
from fused.program import launch
from fused.registers import WIDTH
from fused.vectors import bounded, choose_positive, elu, fma, load, over_samples, store, zeros
from physics.jit import inline, kernel, real

PART = 64  # columns whose gates are computed at once, and stay in the cache until they are used


@inline
def tanh(x):
    """Return the hyperbolic tangent to 2e-7, in 14 instructions and a division.

    It is the ratio of odd and even polynomials of the library Eigen.
    """
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
def make_kernels(sides: int, half: bool) -> tuple:
    """Return the compiled passes: a dense layer with ELU and its backward, the LSTM over a sequence and its backward.

    half: whether products are of bfloat16 numbers; size, inner: features of a side, out of a layer
    and into it; samples: columns; apart: numbers from one side's input to the other's, 0 if they are the same;
    everything else is the address of an array. The LSTM's columns are
    steps * n, a step's next to each other; its inputs hold what enters a step above the hidden state
    before it, and a step more; gates are in the order input, forget, output, candidate.
    """
    kind = np.uint16 if half else np.float32
    packed_kind = np.int32 if half else np.float32
    per_element = 2 if half else 1  # numbers to an element of packed weights

    @kernel
    def dense_forward(size, inner, samples, apart, weight, bias, x, y, packed, panel):
        weight, bias, x, y, panel = (
            view(weight, np.float32),
            view(bias, np.float32),
            view(x, kind),
            view(y, kind),
            view(panel, np.float32),
        )
        pack(weight, sides * size * inner, view(packed, kind))
        weights = view(packed, packed_kind)
        for side in range(sides):
            w = weights[side * (size * inner // per_element) :]
            product(
                size,
                inner,
                w,
                x[side * apart :],
                samples,
                y[side * size * samples :],
                samples,
                samples,
                panel,
            )
        other = size * samples
        for j in range(size):
            for place in range(j * samples, (j + 1) * samples, WIDTH):
                a = side_of(sides, 0, y, place, other) + bias[j]
                b = a
                if sides == 2:
                    b = side_of(sides, 1, y, place, other) + bias[j]
                    b = elu(b)
                a = elu(a)
                keep_sides(sides, y, place, other, a, b)

    @kernel
    def dense_backward(size, inner, samples, apart, weight, x, y, dy, wants_dx, dz, dx, dweight, dbias, packed, panel):
        weight, dweight, dbias, panel = (
            view(weight, np.float32),
            view(dweight, np.float32),
            view(dbias, np.float32),
            view(panel, np.float32),
        )
        x, y, dy, dz, dx = view(x, kind), view(y, kind), view(dy, kind), view(dz, kind), view(dx, kind)
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
            d = dz[side * other :]
            weight_gradient(
                size, inner, d, samples, x[side * apart :], samples, samples, dweight[side * size * inner :]
            )
            if wants_dx:
                pack_transposed(weight[side * size * inner :], size, inner, view(packed, kind))
                product(
                    inner,
                    size,
                    view(packed, packed_kind),
                    d,
                    samples,
                    dx[side * inner * samples :],
                    samples,
                    samples,
                    panel,
                )

    @kernel
    def lstm_forward(
        size, inner, steps, n, weight, bias, x, hidden, cell, starts, inputs, cells, acts, outputs, packed, gates, panel
    ):
        weight, bias, starts, cells = (
            view(weight, np.float32),
            view(bias, np.float32),
            view(starts, np.float32),
            view(cells, np.float32),
        )
        x, inputs, acts, outputs = view(x, kind), view(inputs, kind), view(acts, kind), view(outputs, np.float32)
        hidden, cell, gates, panel = (
            view(hidden, np.float32),
            view(cell, np.float32),
            view(gates, np.float32),
            view(panel, np.float32),
        )
        samples, both = steps * n, inner + size
        ahead, step = samples + n, size * steps * n
        pack(weight, sides * 4 * size * both, view(packed, kind))
        weights = view(packed, packed_kind)
        for side in range(sides):
            for k in range(inner):
                for s in range(0, samples, WIDTH):
                    store(inputs, (side * both + k) * ahead + s, load(x, (side * inner + k) * samples + s, 1))
            for j in range(size):
                for s in range(0, n, WIDTH):
                    store(
                        inputs,
                        (side * both + inner + j) * ahead + s,
                        (real(1.0) - load(starts, s, 1)) * load(hidden, (side * size + j) * n + s, 1),
                    )
        for i in range(0, sides * size * n, WIDTH):
            store(cells, i, load(cell, i, 1))
        for start in range(0, samples, n):
            before, after = cells[sides * size * start :], cells[sides * size * (start + n) :]
            last = start + n == samples
            for begin in range(0, n, PART):
                columns, first = min(PART, n - begin), start + begin
                for side in range(sides):
                    w = weights[side * (4 * size * both // per_element) :]
                    product(
                        4 * size,
                        both,
                        w,
                        inputs[side * both * ahead + first :],
                        ahead,
                        gates[side * 4 * size * columns :],
                        columns,
                        columns,
                        panel,
                    )
                row = 4 * size * columns
                for j in range(size):
                    for s in range(0, columns, WIDTH):
                        h0, h1, at = zeros(1), zeros(1), j * columns + s
                        keep = real(1.0) - load(starts, first + s, 1)
                        for side in range(sides):
                            own = bias[4 * side * size :]
                            i = sigmoid(side_of(sides, side, gates, at, row) + own[j])
                            f = sigmoid(side_of(sides, side, gates, at + size * columns, row) + own[size + j])
                            o = sigmoid(side_of(sides, side, gates, at + 2 * size * columns, row) + own[2 * size + j])
                            a = tanh(side_of(sides, side, gates, at + 3 * size * columns, row) + own[3 * size + j])
                            place = (side * size + j) * n + begin + s
                            c = f * keep * load(before, place, 1) + i * a
                            store(after, place, c)
                            place = (4 * side * size + j) * samples + first + s
                            store(acts, place, i)
                            store(acts, place + step, f)
                            store(acts, place + 2 * step, o)
                            store(acts, place + 3 * step, a)
                            if side == 0:
                                h0 = o * tanh(c)
                            else:
                                h1 = o * tanh(c)
                        k = zeros(1) if last else real(1.0) - load(starts, first + n + s, 1)
                        keep_sides(sides, outputs, j * samples + first + s, step, h0, h1)
                        keep_sides(sides, inputs, (inner + j) * ahead + first + n + s, both * ahead, k * h0, k * h1)

    @kernel
    def lstm_backward(
        size,
        inner,
        steps,
        n,
        weight,
        starts,
        inputs,
        cells,
        acts,
        doutputs,
        dx,
        dgates,
        dweight,
        dbias,
        dinput,
        dcell,
        packed,
        panel,
    ):
        weight, starts, cells, doutputs = (
            view(weight, np.float32),
            view(starts, np.float32),
            view(cells, np.float32),
            view(doutputs, np.float32),
        )
        inputs, acts, dx, dgates = view(inputs, kind), view(acts, kind), view(dx, kind), view(dgates, kind)
        dweight, dbias, dinput = view(dweight, np.float32), view(dbias, np.float32), view(dinput, np.float32)
        dcell, panel, weights = view(dcell, np.float32), view(panel, np.float32), view(packed, packed_kind)
        samples, both = steps * n, inner + size
        step, other = size * samples, 4 * size * samples
        for side in range(sides):
            pack_transposed(
                weight[side * 4 * size * both :], 4 * size, both, view(packed, kind)[side * 4 * size * both :]
            )
        for i in range(sides * size * n):
            dinput[i] = real(0.0)
            dcell[i] = real(0.0)
        for j in range(sides * 4 * size):
            dbias[j] = real(0.0)
        for t in range(steps - 1, -1, -1):
            first = t * n
            before, after = cells[t * sides * size * n :], cells[(t + 1) * sides * size * n :]
            for j in range(size):
                sum_i0, sum_f0, sum_o0, sum_a0 = zeros(1), zeros(1), zeros(1), zeros(1)
                sum_i1, sum_f1, sum_o1, sum_a1 = zeros(1), zeros(1), zeros(1), zeros(1)
                for s in range(0, n, WIDTH):
                    i0, f0, o0, a0 = zeros(1), zeros(1), zeros(1), zeros(1)
                    i1, f1, o1, a1 = zeros(1), zeros(1), zeros(1), zeros(1)
                    for side in range(sides):
                        place = (4 * side * size + j) * samples + first + s
                        i, f = load(acts, place, 1), load(acts, place + step, 1)
                        o, a = load(acts, place + 2 * step, 1), load(acts, place + 3 * step, 1)
                        place = (side * size + j) * n + s
                        c, th = load(before, place, 1), tanh(load(after, place, 1))
                        k = real(1.0) - load(starts, first + s, 1)
                        dh = side_of(sides, side, doutputs, j * samples + first + s, step)
                        if t + 1 < steps:
                            keep = real(1.0) - load(starts, first + n + s, 1)
                            dh = dh + keep * side_of(sides, side, dinput, j * n + s, size * n)
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
                    sum_i0, sum_f0, sum_o0, sum_a0 = sum_i0 + i0, sum_f0 + f0, sum_o0 + o0, sum_a0 + a0
                    sum_i1, sum_f1, sum_o1, sum_a1 = sum_i1 + i1, sum_f1 + f1, sum_o1 + o1, sum_a1 + a1
                dbias[j] += over_samples(sum_i0)
                dbias[size + j] += over_samples(sum_f0)
                dbias[2 * size + j] += over_samples(sum_o0)
                dbias[3 * size + j] += over_samples(sum_a0)
                if sides == 2:
                    dbias[4 * size + j] += over_samples(sum_i1)
                    dbias[5 * size + j] += over_samples(sum_f1)
                    dbias[6 * size + j] += over_samples(sum_o1)
                    dbias[7 * size + j] += over_samples(sum_a1)
            for side in range(sides):
                w, d = weights[side * (4 * size * both // per_element) :], dgates[side * other + first :]
                product(inner, 4 * size, w, d, samples, dx[side * inner * samples + first :], samples, n, panel)
                if t > 0:
                    product(
                        size,
                        4 * size,
                        w[inner * (4 * size // per_element) :],
                        d,
                        samples,
                        dinput[side * size * n :],
                        n,
                        n,
                        panel,
                    )
        for side in range(sides):
            x = inputs[side * both * (samples + n) :]
            weight_gradient(
                4 * size,
                both,
                dgates[side * other :],
                samples,
                x,
                samples + n,
                samples,
                dweight[side * 4 * size * both :],
            )

    return dense_forward, dense_backward, lstm_forward, lstm_backward


class Dense(torch.autograd.Function):
    """entity.dense: ELU(weight x + bias), sums and differences (sides, F, S) in dtype.

    x: (sides, K, S), or what both sides share, expanded; weight: (sides, F, K); bias: (F); F and K whole numbers of
    product.ROWS, S of 2 WIDTH.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the layer's output in x's dtype."""
        (sides, size, inner) = weight.shape
        samples = x.shape[-1]
        if x.shape[:2] != (sides, inner):  # compiled code would read on behind it
            raise ValueError(f"x: expected ({sides}, {inner}, S), got {tuple(x.shape)}")
        x = x[:1].contiguous().expand_as(x) if x.stride(0) == 0 else x.contiguous()
        weight = weight.contiguous()
        y = torch.empty(sides, size, samples, dtype=x.dtype)
        work = scratch("weights", weight.numel()), scratch("panel", panel_size(inner))
        forward_pass = make_kernels(sides, x.dtype == torch.bfloat16)[0]
        launch(forward_pass, size, inner, samples, x.stride(0), weight, bias, x, y, *work)
        ctx.save_for_backward(x, y, weight)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        """Return the gradients of x, if it needs one, weight and bias."""
        x, y, weight = ctx.saved_tensors
        (sides, size, inner) = weight.shape
        samples = x.shape[-1]
        wants_dx = ctx.needs_input_grad[0]
        dy = dy.contiguous()
        dz = torch.empty_like(y)
        dx = x.new_empty(x.shape) if wants_dx else x
        dweight = torch.empty_like(weight)
        dbias = torch.empty(size)
        work = scratch("weights", weight.numel()), scratch("panel", panel_size(size))
        backward_pass = make_kernels(sides, x.dtype == torch.bfloat16)[1]
        numbers = size, inner, samples, x.stride(0)
        launch(backward_pass, *numbers, weight, x, y, dy, wants_dx, dz, dx, dweight, dbias, *work)
        return dx if wants_dx else None, dweight, dbias


class LSTMSequence(torch.autograd.Function):
    """entity.lstm_sequence: hidden states (sides, H, S) and the last cell (sides, H, N).

    Hidden states are sums and differences; the last cell is of the sides, in float32.

    x: (sides, E, S) in dtype, S = T N columns, time before robot, N a whole number of WIDTH, S of 2
    WIDTH; weight: (sides, 4 H, E + H), E and H whole numbers of product.ROWS; bias: (sides, 4 H); hidden,
    cell: (sides, H, N) before the first step; starts: (T, N), 1 where the state is forgotten before a
    step. Gradients reach x, weight and bias; the state before the sequence is data.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run T steps."""
        (sides, inner, samples) = x.shape
        (size, n) = cell.shape[1:]
        steps = len(starts)
        x, weight, bias, hidden, cell, starts = (z.contiguous() for z in (x, weight, bias, hidden, cell, starts))
        inputs = torch.empty(sides, inner + size, samples + n, dtype=x.dtype)
        cells = torch.empty(steps + 1, sides, size, n)
        outputs = torch.empty(sides, size, samples)
        acts = torch.empty(sides, 4 * size, samples, dtype=x.dtype)
        work = (
            scratch("weights", weight.numel()),
            scratch("gates", sides * 4 * size * min(n, PART)),
            scratch("panel", panel_size(inner + size)),
        )
        forward_pass = make_kernels(sides, x.dtype == torch.bfloat16)[2]
        tensors = weight, bias, x, hidden, cell, starts, inputs, cells, acts, outputs
        launch(forward_pass, size, inner, steps, n, *tensors, *work)
        ctx.save_for_backward(weight, starts, inputs, cells, acts)
        last = cells[-1]
        ctx.mark_non_differentiable(last)
        return outputs, last

    @staticmethod
    def backward(ctx: Any, doutputs: Tensor, _: Tensor) -> tuple:
        """Return the gradients of x, weight and bias."""
        weight, starts, inputs, cells, acts = ctx.saved_tensors
        steps = len(starts)
        sides, size, n = cells.shape[1:]
        samples = acts.shape[-1]
        inner = weight.shape[-1] - size
        doutputs = doutputs.contiguous()
        dx = acts.new_empty(sides, inner, samples)
        dgates = torch.empty_like(acts)
        dweight = torch.empty_like(weight)
        dbias = torch.empty(sides, 4 * size)
        work = (
            scratch("dinput", sides * size * n), scratch("dcell", sides * size * n), scratch("weights", weight.numel()),
            scratch("panel", panel_size(4 * size)),
        )  # fmt: skip
        backward_pass = make_kernels(sides, acts.dtype == torch.bfloat16)[3]
        tensors = weight, starts, inputs, cells, acts, doutputs, dx, dgates, dweight, dbias
        launch(backward_pass, size, inner, steps, n, *tensors, *work)
        return dx, dweight, dbias, None, None, None
