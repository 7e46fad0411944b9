"""A layer normalised by its root mean square, with SiLU, in compiled code, forwards and backwards.

    v = W x / sqrt(mean (W x)^2 + epsilon)        (Zhang and Sennrich, 2019)
    y = SiLU(gain v)                              (Hendrycks and Gimpel, 2016)

As in fused/layers.py products act on sums and differences of the sides, what is not linear on the sides
themselves. The mean is over the features of both sides, and the same for sums and differences.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fused.layers import keep_sides, side_of, sigmoid
from fused.memory import scratch, view
from fused.product import REGISTERS, pack, pack_transposed, panel_size, product, weight_gradient
from fused.program import launch
from fused.registers import WIDTH
from fused.vectors import fma, load, over_samples, square_root, store, zeros
from physics.jit import inline, kernel, real

EPSILON = 1e-4
CHUNK = (
    REGISTERS * WIDTH
)  # samples that pass through a layer together: what lies between its steps stays in the first-level cache


@inline
def silu_slope(y):
    """Return the derivative of SiLU(y) = y sigmoid(y)."""
    s = sigmoid(y)
    return s * fma(y, real(1.0) - s, real(1.0))


@inline
def normalise(sides, size, columns, pre, values, place, stride, other, inverse):
    """Set values, of the sides, to pre normalised, and inverse (columns) to what it was multiplied by.

    pre: (sides, size, columns), sums and differences; values: feature j of a side at place + j stride, the other
    side's other further on.
    """
    count = real(sides * size)
    for s in range(0, columns, WIDTH):
        total = zeros(1)
        for i in range(sides * size):
            x = load(pre, i * columns + s, 1)
            total = fma(x, x, total)
        scale = real(1.0) / square_root(total / count + real(EPSILON))
        store(inverse, s, scale)
        for j in range(size):
            for side in range(sides):
                store(
                    values,
                    place + side * other + j * stride + s,
                    scale * side_of(sides, side, pre, j * columns + s, size * columns),
                )


@inline
def normalise_backward(sides, size, columns, values, place, stride, other, inverse, dvalues, dpre):
    """Set dpre, sums and differences laid out as values, to the gradient of pre.

    dvalues: (sides, size, columns), of the sides.
    """
    count = real(sides * size)
    for s in range(0, columns, WIDTH):
        along = zeros(1)
        for side in range(sides):
            for j in range(size):
                along = fma(
                    load(values, place + side * other + j * stride + s, 1),
                    load(dvalues, (side * size + j) * columns + s, 1),
                    along,
                )
        along, scale = along / count, load(inverse, s, 1)
        for j in range(size):
            here = place + j * stride + s
            a = scale * (load(dvalues, j * columns + s, 1) - along * load(values, here, 1))
            b = a
            if sides == 2:
                b = scale * (load(dvalues, (size + j) * columns + s, 1) - along * load(values, here + other, 1))
            keep_sides(sides, dpre, here, other, a, b)


@inline
def activate(sides, size, columns, values, place, stride, other, gain, y, y_place, y_stride, y_other):
    """Set y, sums and differences, to SiLU(gain values)."""
    for j in range(size):
        for s in range(0, columns, WIDTH):
            a = gain[j] * load(values, place + j * stride + s, 1)
            a = a * sigmoid(a)
            b = a
            if sides == 2:
                b = gain[j] * load(values, place + other + j * stride + s, 1)
                b = b * sigmoid(b)
            keep_sides(sides, y, y_place + j * y_stride + s, y_other, a, b)


@inline
def activate_backward(
    sides, size, columns, values, place, stride, other, gain, dy, dy_place, dy_stride, dy_other, dvalues, dgain
):
    """Set dvalues (sides, size, columns), of the sides, and add to dgain; dy: sums and differences."""
    for j in range(size):
        of_gain = zeros(1)
        for s in range(0, columns, WIDTH):
            for side in range(sides):
                v = load(values, place + side * other + j * stride + s, 1)
                d = side_of(sides, side, dy, dy_place + j * dy_stride + s, dy_other) * silu_slope(gain[j] * v)
                of_gain = fma(d, v, of_gain)
                store(dvalues, (side * size + j) * columns + s, gain[j] * d)
        dgain[j] += over_samples(of_gain)


@functools.cache
def make_kernels(sides: int, half: bool) -> tuple:
    """Return the compiled layer and its backward pass; half: whether products are of bfloat16 numbers."""
    kind = np.uint16 if half else np.float32
    packed_kind = np.int32 if half else np.float32
    per_element = 2 if half else 1  # numbers to an element of packed weights

    @kernel
    def forward(size, inner, samples, weight, gain, x, y, values, inverse, packed, pre, panel):
        weight, gain, x, y, values = (
            view(weight, np.float32),
            view(gain, np.float32),
            view(x, kind),
            view(y, kind),
            view(values, kind),
        )
        inverse, pre, panel = view(inverse, np.float32), view(pre, np.float32), view(panel, np.float32)
        pack(weight, sides * size * inner, view(packed, kind))
        weights, other = view(packed, packed_kind), size * samples
        for s in range(0, samples, CHUNK):
            columns = min(CHUNK, samples - s)
            for side in range(sides):
                w = weights[side * (size * inner // per_element) :]
                product(
                    size,
                    inner,
                    w,
                    x[side * inner * samples + s :],
                    samples,
                    pre[side * size * columns :],
                    columns,
                    columns,
                    panel,
                )
            normalise(sides, size, columns, pre, values, s, samples, other, inverse[s:])
            activate(sides, size, columns, values, s, samples, other, gain, y, s, samples, other)

    @kernel
    def backward(
        size,
        inner,
        samples,
        weight,
        gain,
        x,
        values,
        inverse,
        dy,
        wants_dx,
        dpre,
        dx,
        dweight,
        dgain,
        packed,
        dvalues,
        panel,
    ):
        weight, gain, x, values = view(weight, np.float32), view(gain, np.float32), view(x, kind), view(values, kind)
        inverse, dy, dpre, dx = view(inverse, np.float32), view(dy, kind), view(dpre, kind), view(dx, kind)
        dweight, dgain, dvalues, panel = (
            view(dweight, np.float32),
            view(dgain, np.float32),
            view(dvalues, np.float32),
            view(panel, np.float32),
        )
        other = size * samples
        for j in range(size):
            dgain[j] = real(0.0)
        for s in range(0, samples, CHUNK):
            columns = min(CHUNK, samples - s)
            activate_backward(
                sides, size, columns, values, s, samples, other, gain, dy, s, samples, other, dvalues, dgain
            )
            normalise_backward(sides, size, columns, values, s, samples, other, inverse[s:], dvalues, dpre)
        for side in range(sides):
            d = dpre[side * other :]
            weight_gradient(
                size, inner, d, samples, x[side * inner * samples :], samples, samples, dweight[side * size * inner :]
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

    return forward, backward


class Normed(torch.autograd.Function):
    """observation.normed: SiLU(gain RMSNorm(weight x)), sums and differences (sides, F, S) in x's dtype.

    x: (sides, K, S); weight: (sides, F, K); gain: (F); F and K whole numbers of product.ROWS, S of 2 WIDTH.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, gain: Tensor) -> Tensor:
        """Return the layer's output in x's dtype."""
        (sides, size, inner) = weight.shape
        samples = x.shape[-1]
        if x.shape[:2] != (sides, inner):  # compiled code would read on behind it
            raise ValueError(f"x: expected ({sides}, {inner}, S), got {tuple(x.shape)}")
        x = x.contiguous()
        weight = weight.contiguous()
        gain = gain.contiguous()
        y = torch.empty(sides, size, samples, dtype=x.dtype)
        values = torch.empty(sides, size, samples, dtype=x.dtype)
        inverse = torch.empty(samples)
        work = (
            scratch("weights", weight.numel()),
            scratch("pre", sides * size * CHUNK),
            scratch("panel", panel_size(inner)),
        )
        forward_pass = make_kernels(sides, x.dtype == torch.bfloat16)[0]
        launch(forward_pass, size, inner, samples, weight, gain, x, y, values, inverse, *work)
        ctx.save_for_backward(x, weight, gain, values, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        """Return the gradients of x, if it needs one, weight and gain."""
        x, weight, gain, values, inverse = ctx.saved_tensors
        (sides, size, inner) = weight.shape
        samples = x.shape[-1]
        wants_dx = ctx.needs_input_grad[0]
        dy = dy.contiguous()
        dpre = torch.empty_like(values)
        dx = torch.empty_like(x) if wants_dx else x
        dweight = torch.empty_like(weight)
        dgain = torch.empty_like(gain)
        work = (
            scratch("weights", weight.numel()),
            scratch("pre", sides * size * CHUNK),
            scratch("panel", panel_size(size)),
        )
        backward_pass = make_kernels(sides, x.dtype == torch.bfloat16)[1]
        inputs = weight, gain, x, values, inverse, dy
        launch(backward_pass, size, inner, samples, *inputs, int(wants_dx), dpre, dx, dweight, dgain, *work)
        return dx if wants_dx else None, dweight, dgain
