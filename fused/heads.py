"""What ends the networks, in compiled code, forwards and backwards: policy head, value head, and PPO's losses."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fused.blocks import multiply_up, store_block
from fused.layers import keep_sides, side_of
from fused.memory import scratch, view
from fused.product import REGISTERS, pack, pack_transposed, panel_size, product, weight_gradient
from fused.registers import WIDTH
from fused.vectors import dot, fma, load, over_samples, store, zeros
from physics.jit import kernel, real
from physics.spatial import exp


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
    def backward(size, samples, weight, hidden, columns, signs, dmean, dhidden, dweight, dbias, work):
        weight, hidden, work, dmean = (
            view(weight, np.float32),
            view(hidden, np.float32),
            view(work, np.float32),
            view(dmean, np.float32),
        )
        columns, signs = view(columns, np.int32), view(signs, np.float32)
        dhidden, dweight, dbias = view(dhidden, np.float32), view(dweight, np.float32), view(dbias, np.float32)
        root, actions = real(0.5**0.5), sides * rows
        block = rows * WIDTH  # of WIDTH samples, what a side's rows get
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
                    store(dhidden, row + s, dot(weight, (side * size + j) * rows, d, zeros(1)))
                store(dweight, (side * size + j) * block, total)

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
        addresses = [x.data_ptr() for x in (weight, bias, hidden, columns, signs, mean)]
        forward_pass(size, samples, *addresses, scratch("head", 2 * rows * WIDTH))
        ctx.save_for_backward(hidden, weight, columns, signs)
        return mean

    @staticmethod
    def backward(ctx: Any, dmean: Tensor) -> tuple:
        """Return the gradients of hidden, weight and bias."""
        hidden, weight, columns, signs = ctx.saved_tensors
        (_, rows, size) = weight.shape
        samples = hidden.shape[-1]
        dhidden = torch.empty_like(hidden)
        weight = weight.transpose(1, 2).contiguous()  # a feature's lie together
        dweight = torch.empty(*weight.shape, WIDTH)
        dbias = torch.zeros(rows)
        dmean = dmean.contiguous()
        addresses = [x.data_ptr() for x in (weight, hidden, columns, signs, dmean, dhidden, dweight, dbias)]
        ctx.backward_pass(size, samples, *addresses, scratch("head", dmean.numel()))
        return dhidden, dweight.sum(-1).transpose(1, 2), dbias, None, None


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
        make_value_kernels(x.dtype == torch.bfloat16)[0](
            size, samples, weight.data_ptr(), bias.data_ptr(), x.data_ptr(), value.data_ptr()
        )
        ctx.save_for_backward(x, weight)
        return value

    @staticmethod
    def backward(ctx: Any, dvalue: Tensor) -> tuple:
        """Return the gradients of x, weight and bias."""
        x, weight = ctx.saved_tensors
        _, size, samples = x.shape
        dvalue = dvalue.contiguous()
        dx = torch.zeros_like(x)
        dweight = torch.empty_like(weight)
        dbias = torch.empty(1)
        addresses = [y.data_ptr() for y in (weight, x, dvalue, dx, dweight, dbias)]
        make_value_kernels(x.dtype == torch.bfloat16)[1](size, samples, *addresses)
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
        addresses = [z.data_ptr() for z in (weight, bias, x, y)]
        make_linear_kernels(sides, x.dtype == torch.bfloat16)[0](size, inner, samples, *addresses, *work)
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
        addresses = [z.data_ptr() for z in (weight, x, dy, dsums, dx, dweight, dbias)]
        work = scratch("weights", weight.numel()), scratch("panel", panel_size(size))
        make_linear_kernels(sides, x.dtype == torch.bfloat16)[1](size, inner, samples, *addresses, *work)
        return dx, dweight, dbias


@kernel
def _policy_loss(action, old_mean, old_std, advantage, mean, std, clip, dmean, dstd, sums):
    """Add up, over samples: the surrogate, whether it was clipped, the divergence.

    dmean, dstd: of the surrogate's mean, negated.
    """
    actions, samples = action.shape[2], action.shape[0] * action.shape[1]
    one = real(1.0)
    share = one / real(samples)
    log_std_ratio = real(0.0)  # sum_a ln(std_old / std)
    wider = real(0.0)  # sum_a of its share of the divergence
    per_old, per_std = np.empty(actions, real), np.empty(actions, real)
    for a in range(actions):
        per_old[a], per_std[a] = one / old_std[a], one / std[a]
        ratio = old_std[a] * per_std[a]
        log_std_ratio += np.log(ratio)
        wider += real(0.5) * (ratio * ratio - one)
    for t in range(action.shape[0]):
        for n in range(action.shape[1]):
            change, kl = log_std_ratio, wider - log_std_ratio
            for a in range(actions):
                old, z = (
                    (action[t, n, a] - old_mean[t, n, a]) * per_old[a],
                    (action[t, n, a] - mean[t, n, a]) * per_std[a],
                )
                change += real(0.5) * (old * old - z * z)
                moved = (old_mean[t, n, a] - mean[t, n, a]) * per_std[a]
                kl += real(0.5) * moved * moved
            ratio, gain = exp(change), advantage[t, n]
            clipped = min(max(ratio, one - clip), one + clip)
            free = not ratio * gain > clipped * gain  # what is not a number shows in the gradient
            sums[0] += min(ratio * gain, clipped * gain)
            sums[1] += one if abs(ratio - one) > clip else real(0.0)
            sums[2] += kl
            slope = -share * ratio * gain if free else real(0.0)  # of the loss by the log-probability
            for a in range(actions):
                z = (action[t, n, a] - mean[t, n, a]) * per_std[a]
                dmean[t, n, a] = slope * z * per_std[a]
                dstd[a] += slope * (z * z - one) * per_std[a]


class PolicyLoss(torch.autograd.Function):
    """ppo.policy_loss on the CPU: loss, share of clipped ratios and divergence.

    action, old_mean, mean: (T, N, A); old_std, std: (A); advantage: (T, N). The loss alone has gradients, of mean
    and std.
    """

    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        std: Tensor,
        action: Tensor,
        old_mean: Tensor,
        old_std: Tensor,
        advantage: Tensor,
        clip: float,
    ) -> tuple:
        """Return three scalars."""
        dmean = torch.empty(mean.shape)
        dstd = torch.zeros_like(std)
        sums = np.zeros(3, np.float32)
        arrays = [x.detach().numpy() for x in (action, old_mean, old_std, advantage, mean, std)]
        _policy_loss(*arrays, np.float32(clip), dmean.numpy(), dstd.numpy(), sums)
        ctx.save_for_backward(dmean, dstd)
        loss, clipped, kl = torch.from_numpy(sums / advantage.numel()).unbind()
        ctx.mark_non_differentiable(clipped, kl)
        return -loss, clipped, kl

    @staticmethod
    def backward(ctx: Any, dloss: Tensor, *_: Tensor) -> tuple:
        """Return the gradients of mean and std."""
        dmean, dstd = ctx.saved_tensors
        return dloss * dmean, dloss * dstd, None, None, None, None, None
