"""What ends the networks, in compiled code, forwards and backwards: policy head, value head, a linear layer."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fused.blocks import multiply_up, store_block
from fused.layers import keep_sides, side_of
from fused.memory import scratch, view
from fused.product import REGISTERS, pack, pack_transposed, panel_size, product, weight_gradient
from fused.program import launch
from fused.registers import WIDTH
from fused.vectors import dot, fma, load, over_samples, store, zeros
from physics.jit import kernel, real


@functools.cache
def make_kernels(sides: int, rows: int) -> tuple:
    """Return the compiled policy head and its backward pass; rows: actions of a side."""

    @kernel
    def forward(size, samples, weight, bias, hidden, columns, signs, mean, work):
        weight, bias, hidden, work = (
            view(weight, np.float32),
            view(bias, np.float32),
            view(hidden, np.float32),
            view(work, np.float32),
        )
        columns, signs, mean = view(columns, np.int32), view(signs, np.float32), view(mean, np.float32)
        root, actions = real(0.5**0.5), sides * rows
        for s in range(0, samples, WIDTH):
            for side in range(sides):
                y = zeros(rows)
                for j in range(size):
                    y = multiply_up(
                        y, weight, side * rows * size + j, size, load(hidden, (side * size + j) * samples + s, 1)
                    )
                store_block(work, side * rows * WIDTH, WIDTH, y, 1)
            for r in range(rows):
                a = work[r * WIDTH : (r + 1) * WIDTH]
                b = work[(sides - 1) * rows * WIDTH + r * WIDTH :]
                for lane in range(WIDTH):
                    if sides == 2:
                        total, difference = root * (a[lane] + b[lane]), root * (a[lane] - b[lane])
                        mean[(s + lane) * actions + columns[r]] = total + bias[r]
                        mean[(s + lane) * actions + columns[rows + r]] = signs[r] * (difference + bias[r])
                    else:
                        mean[(s + lane) * actions + columns[r]] = a[lane] + bias[r]

    @kernel
    def backward(size, samples, weight, hidden, columns, signs, dmean, dhidden, dweight, dbias, own, work):
        weight, hidden, work, dmean = (
            view(weight, np.float32),
            view(hidden, np.float32),
            view(work, np.float32),
            view(dmean, np.float32),
        )
        columns, signs, own = view(columns, np.int32), view(signs, np.float32), view(own, np.float32)
        dhidden, dweight, dbias = view(dhidden, np.float32), view(dweight, np.float32), view(dbias, np.float32)
        root, actions = real(0.5**0.5), sides * rows
        block = rows * WIDTH  # of WIDTH samples, what a side's rows get
        turned = own[block:]
        for r in range(rows):
            dbias[r] = real(0.0)
            for side in range(sides):
                for j in range(size):  # a feature's lie together
                    turned[(side * size + j) * rows + r] = weight[(side * rows + r) * size + j]
        for s in range(0, samples, WIDTH):
            first = sides * rows * s
            for r in range(rows):
                a, b = work[first + r * WIDTH :], work[first + (sides - 1) * block + r * WIDTH :]
                for lane in range(WIDTH):
                    left = dmean[(s + lane) * actions + columns[r]]
                    if sides == 2:
                        right = signs[r] * dmean[(s + lane) * actions + columns[rows + r]]
                        a[lane], b[lane] = root * (left + right), root * (left - right)
                    else:
                        a[lane] = left
                dbias[r] += over_samples(load(a, 0, 1)) * (real(1.0) if sides == 1 else real(2.0**0.5))
        # the weights' gradients of a feature stay in registers while samples pass: 164 us for 1024 became 62
        for side in range(sides):
            for j in range(size):
                total, row = zeros(rows), (side * size + j) * samples
                for s in range(0, samples, WIDTH):
                    d = load(work, sides * rows * s + side * block, rows)
                    total = fma(d, load(hidden, row + s, 1), total)
                    store(dhidden, row + s, dot(turned, (side * size + j) * rows, d, zeros(1)))
                store(own, 0, total)
                for r in range(rows):
                    dweight[(side * rows + r) * size + j] = over_samples(load(own, r * WIDTH, 1))

    return forward, backward


class PolicyHead(torch.autograd.Function):
    """entity.policy_head: mean actions (S, A) of hidden states (sides, H, S), sums and differences.

    weight: (sides, A / sides, H); bias: (A / sides); columns: (A), int32, of the left side's actions,
    then the right side's; signs: (A / sides) of the right side's.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, columns: Tensor, signs: Tensor) -> Tensor:
        """Return the means, float32."""
        (sides, rows, size) = weight.shape
        samples = hidden.shape[-1]
        forward_pass, ctx.backward_pass = make_kernels(sides, rows)
        mean = torch.empty(samples, sides * rows)
        hidden = hidden.contiguous()
        weight = weight.contiguous()
        work = scratch("head", 2 * rows * WIDTH)
        launch(forward_pass, size, samples, weight, bias, hidden, columns, signs, mean, work)
        ctx.save_for_backward(hidden, weight, columns, signs)
        return mean

    @staticmethod
    def backward(ctx: Any, dmean: Tensor) -> tuple:
        """Return the gradients of hidden, weight and bias."""
        hidden, weight, columns, signs = ctx.saved_tensors
        (_, rows, size) = weight.shape
        samples = hidden.shape[-1]
        dhidden = torch.empty_like(hidden)
        dweight = torch.empty_like(weight)
        dbias = torch.empty(rows)
        tensors = weight, hidden, columns, signs, dmean.contiguous(), dhidden, dweight, dbias
        work = scratch("turned", weight.numel() + rows * WIDTH), scratch("head", dmean.numel())
        launch(ctx.backward_pass, size, samples, *tensors, *work)
        return dhidden, dweight, dbias, None, None


@functools.cache
def make_value_kernels(half: bool) -> tuple:
    """Return the compiled value head and its backward pass; half: whether features are bfloat16."""
    kind = np.uint16 if half else np.float32

    @kernel
    def forward(size, samples, weight, bias, x, value):
        weight, bias, x, value = (
            view(weight, np.float32),
            view(bias, np.float32),
            view(x, kind),
            view(value, np.float32),
        )
        for s in range(0, samples, WIDTH):
            y = zeros(1)
            for j in range(size):
                y = fma(weight[j], load(x, j * samples + s, 1), y)
            store(value, s, y + bias[0])

    @kernel
    def backward(size, samples, weight, x, dvalue, dx, dweight, dbias):
        weight, x, dvalue = view(weight, np.float32), view(x, kind), view(dvalue, np.float32)
        dx, dweight, dbias = view(dx, kind), view(dweight, np.float32), view(dbias, np.float32)
        for j in range(size):
            total, everything = zeros(1), zeros(1)
            for s in range(0, samples, WIDTH):
                d = load(dvalue, s, 1)
                everything = everything + d
                total = fma(d, load(x, j * samples + s, 1), total)
                store(dx, j * samples + s, weight[j] * d)
            dweight[j] = over_samples(total)
            dbias[0] = over_samples(everything)

    return forward, backward


class ValueHead(torch.autograd.Function):
    """entity.value_head: values (S), float32, of features x (sides, H, S), of whose sums alone they are made.

    weight: (1, H), bias: (1).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the values."""
        _, size, samples = x.shape
        x = x.contiguous()
        value = torch.empty(samples)
        launch(make_value_kernels(x.dtype == torch.bfloat16)[0], size, samples, weight, bias, x, value)
        ctx.save_for_backward(x, weight)
        return value

    @staticmethod
    def backward(ctx: Any, dvalue: Tensor) -> tuple:
        """Return the gradients of x, weight and bias."""
        x, weight = ctx.saved_tensors
        _, size, samples = x.shape
        dvalue = dvalue.contiguous()
        dx = torch.zeros_like(x)  # of differences, which values do not depend on
        dweight = torch.empty_like(weight)
        dbias = torch.empty(1)
        launch(make_value_kernels(x.dtype == torch.bfloat16)[1], size, samples, weight, x, dvalue, dx, dweight, dbias)
        return dx, dweight, dbias


@functools.cache
def make_linear_kernels(sides: int, half: bool) -> tuple:
    """Return the compiled linear layer and its backward pass; half: whether products are of bfloat16 numbers."""
    kind = np.uint16 if half else np.float32
    packed_kind = np.int32 if half else np.float32
    per_element = 2 if half else 1  # numbers to an element of packed weights
    chunk = REGISTERS * WIDTH  # samples at a time

    @kernel
    def forward(size, inner, samples, weight, bias, x, y, packed, panel):
        weight, bias, x, y, panel = (
            view(weight, np.float32),
            view(bias, np.float32),
            view(x, kind),
            view(y, np.float32),
            view(panel, np.float32),
        )
        pack(weight, sides * size * inner, view(packed, kind))
        weights, other = view(packed, packed_kind), size * samples
        for s in range(0, samples, chunk):
            columns = min(chunk, samples - s)
            for side in range(sides):
                w = weights[side * (size * inner // per_element) :]
                product(
                    size,
                    inner,
                    w,
                    x[side * inner * samples + s :],
                    samples,
                    y[side * other + s :],
                    samples,
                    columns,
                    panel,
                )
            for j in range(size):
                for place in range(j * samples + s, j * samples + s + columns, WIDTH):
                    a = side_of(sides, 0, y, place, other) + bias[j]
                    if sides == 2:
                        store(y, place + other, side_of(sides, 1, y, place, other) + bias[j])
                    store(y, place, a)

    @kernel
    def backward(size, inner, samples, weight, x, dy, dsums, dx, dweight, dbias, packed, panel):
        weight, x, dy, dsums = view(weight, np.float32), view(x, kind), view(dy, np.float32), view(dsums, kind)
        dx, dweight, dbias, panel = (
            view(dx, kind),
            view(dweight, np.float32),
            view(dbias, np.float32),
            view(panel, np.float32),
        )
        other = size * samples
        for j in range(size):
            of_bias = zeros(1)
            for place in range(j * samples, (j + 1) * samples, WIDTH):
                a, b = load(dy, place, 1), load(dy, place + (sides - 1) * other, 1)
                of_bias = of_bias + (a if sides == 1 else a + b)
                keep_sides(sides, dsums, place, other, a, b)
            dbias[j] = over_samples(of_bias)
        for side in range(sides):
            d = dsums[side * other :]
            weight_gradient(
                size, inner, d, samples, x[side * inner * samples :], samples, samples, dweight[side * size * inner :]
            )
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


class Linear(torch.autograd.Function):
    """world_model.linear: numbers of the sides (sides, F, S), float32, of sums and differences x (sides, K, S).

    weight: (sides, F, K); bias: (F), of every side; F and K whole numbers of product.ROWS, S of 2 WIDTH.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the numbers."""
        (sides, size, inner) = weight.shape
        samples = x.shape[-1]
        if x.shape[:2] != (sides, inner):  # compiled code would read on behind it
            raise ValueError(f"x: expected ({sides}, {inner}, S), got {tuple(x.shape)}")
        x = x.contiguous()
        weight = weight.contiguous()
        y = torch.empty(sides, size, samples)
        work = scratch("weights", weight.numel()), scratch("panel", panel_size(inner))
        launch(
            make_linear_kernels(sides, x.dtype == torch.bfloat16)[0], size, inner, samples, weight, bias, x, y, *work
        )
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        """Return the gradients of x, weight and bias."""
        x, weight = ctx.saved_tensors
        (sides, size, inner) = weight.shape
        samples = x.shape[-1]
        dy = dy.contiguous()
        dsums = torch.empty(sides, size, samples, dtype=x.dtype)
        dx = torch.empty_like(x)
        dweight = torch.empty_like(weight)
        dbias = torch.empty(size)
        work = scratch("weights", weight.numel()), scratch("panel", panel_size(size))
        backward_pass = make_linear_kernels(sides, x.dtype == torch.bfloat16)[1]
        launch(backward_pass, size, inner, samples, weight, x, dy, dsums, dx, dweight, dbias, *work)
        return dx, dweight, dbias
