"""The body encoder in compiled code: embedding of every part and attention among them, forwards and backwards.

WIDTH samples at a time, head by head: what a head needs of them stays in the first-level cache.
entity.BodyEncoder has the equations in plain PyTorch.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fused.inputs import turn
from fused.memory import scratch, view
from fused.program import launch
from fused.registers import WIDTH
from fused.vectors import (
    dot,
    exponential,
    fma,
    largest,
    load,
    magnitude,
    over_samples,
    store,
    total,
    where_positive,
    zeros,
)
from physics.jit import inline, kernel, real

# of WIDTH samples: the weights' gradients go through the cache once for so many, 0.2 us less a sample than for each
GROUPS = 4


@inline
def gather(obs, width, first, nodes, features, columns, scale, shift, x, work):
    """Set x[(n * features + k) * WIDTH + lane] to feature k of part n, normalised, of WIDTH rows of obs.

    width: numbers in a row of obs, of so many of which work has room.
    """
    turn(obs, width, width, first, work)
    for i in range(nodes * features):
        store(x, i * WIDTH, fma(scale[i], load(work, columns[i] * WIDTH, 1), shift[i]))


@inline
def embed(per_side, nodes, features, heads, size, h, x, kinds, weight, bias, left, right):
    """(l, r)_n = b_n + W x_n of a head: left (nodes, size, WIDTH), right (size, nodes, WIDTH)."""
    for n in range(nodes):
        w, b = (kinds[n] * heads + h) * 2 * size, ((n % per_side) * heads + h) * 2 * size
        xn = load(x, n * features * WIDTH, features)
        for d in range(size):
            store(left, (n * size + d) * WIDTH, dot(weight, (w + d) * features, xn, bias[b + d]))
        for d in range(size):
            store(right, (d * nodes + n) * WIDTH, dot(weight, (w + size + d) * features, xn, bias[b + size + d]))


@functools.cache
def make_kernels(sides: int, nodes: int, features: int, heads: int, size: int, half: bool) -> tuple:
    """Return the compiled passes for a body.

    sides: 2 for a body with a mirror image, whose output is the sum and the difference of both
    sides' parts, else 1; nodes: parts, the second half the mirror image of the first where there
    are two sides; features: numbers that describe a part; size: features of a head; half: whether the output is
    bfloat16.

    With LeakyReLU(t) = 0.6 t + 0.4 |t|, and softmax over j blind to what does not depend on j, the
    score is 0.6 a . r_j + 0.4 a . |l_i + r_j|. As the gradients ds_ij of a row's scores sum to 0,
    those of l_i, but for dy_i, and r_j are 0.8 a sum_j p_ij and a sum_i (0.2 ds_ij + 0.8 p_ij), with p_ij = ds_ij
    where l_i + r_j > 0, else 0.
    """
    per_side = nodes // sides
    both = 2 * size  # l and r
    root = real(0.5**0.5)
    kind = np.uint16 if half else np.float32

    @kernel
    def forward(samples, width, obs, columns, scale, shift, kinds, weight, bias, attention, out, shares, work):
        obs, columns, scale, shift = (
            view(obs, np.float32),
            view(columns, np.int32),
            view(scale, np.float32),
            view(shift, np.float32),
        )
        kinds, weight, bias, attention = (
            view(kinds, np.int32),
            view(weight, np.float32),
            view(bias, np.float32),
            view(attention, np.float32),
        )
        out, shares, work = view(out, kind), view(shares, np.float32), view(work, np.float32)
        x = work[: nodes * features * WIDTH]
        left = work[nodes * features * WIDTH :]
        right = left[nodes * size * WIDTH :]
        rows = right[nodes * size * WIDTH :]
        for first in range(0, samples, WIDTH):
            gather(obs, width, first, nodes, features, columns, scale, shift, x, rows)
            for h in range(heads):
                embed(per_side, nodes, features, heads, size, h, x, kinds, weight, bias, left, right)
                a = attention[h * size : (h + 1) * size]
                share = shares[(first * heads + h * WIDTH) * nodes * nodes :]
                own = zeros(nodes)
                for d in range(size):
                    own = fma(real(0.6) * a[d], load(right, d * nodes * WIDTH, nodes), own)
                for i in range(nodes):
                    score = own
                    for d in range(size):
                        t = load(left, (i * size + d) * WIDTH, 1) + load(right, d * nodes * WIDTH, nodes)
                        score = fma(real(0.4) * a[d], magnitude(t), score)
                    e = exponential(score - largest(score))
                    store(share, i * nodes * WIDTH, e / total(e))
                for i in range(per_side):
                    mine = load(share, i * nodes * WIDTH, nodes)
                    if sides == 2:
                        others = load(share, (i + per_side) * nodes * WIDTH, nodes)
                    for d in range(size):
                        r, row = load(right, d * nodes * WIDTH, nodes), (i * heads + h) * size + d
                        y = load(left, (i * size + d) * WIDTH, 1) + total(mine * r)
                        if sides == 2:
                            z = load(left, ((i + per_side) * size + d) * WIDTH, 1) + total(others * r)
                            store(out, row * samples + first, root * (y + z))
                            store(out, (row + per_side * heads * size) * samples + first, root * (y - z))
                        else:
                            store(out, row * samples + first, y)

    @kernel
    def backward(
        samples,
        width,
        kinds_of_parts,
        obs,
        columns,
        scale,
        shift,
        kinds,
        weight,
        bias,
        attention,
        dout,
        shares,
        work,
        lanes,
        dweight_of_all,
        dbias_of_all,
        dattention,
    ):
        obs, columns, scale, shift = (
            view(obs, np.float32),
            view(columns, np.int32),
            view(scale, np.float32),
            view(shift, np.float32),
        )
        kinds, weight, bias, attention = (
            view(kinds, np.int32),
            view(weight, np.float32),
            view(bias, np.float32),
            view(attention, np.float32),
        )
        dout, shares, work = view(dout, kind), view(shares, np.float32), view(work, np.float32)
        dattention = view(dattention, np.float32)
        weights, biases = kinds_of_parts * heads * both * features, per_side * heads * both
        dweight = view(lanes, np.float32)  # summed over samples at last, and those of a register until then apart
        dbias = dweight[weights * WIDTH :]
        for i in range(weights + biases):
            store(dweight, i * WIDTH, zeros(1))
        for i in range(heads * size):
            dattention[i] = real(0.0)
        of_x, of_left, of_pairs = nodes * features * WIDTH, nodes * size * WIDTH, nodes * nodes * WIDTH
        xs = work[: GROUPS * of_x]
        dlrs = work[GROUPS * of_x :]
        other = dlrs[GROUPS * 2 * of_left :]
        left, right, dy, ds, rows = (
            other[:of_left],
            other[of_left : 2 * of_left],
            other[2 * of_left : 3 * of_left],
            other[3 * of_left : 3 * of_left + of_pairs],
            other[3 * of_left + of_pairs :],
        )
        for start in range(0, samples, GROUPS * WIDTH):
            groups = min(GROUPS, (samples - start) // WIDTH)
            for g in range(groups):
                x = xs[g * of_x : (g + 1) * of_x]
                gather(obs, width, start + g * WIDTH, nodes, features, columns, scale, shift, x, rows)
            for h in range(heads):
                a = attention[h * size : (h + 1) * size]
                for g in range(groups):
                    first = start + g * WIDTH
                    x, dlr = xs[g * of_x : (g + 1) * of_x], dlrs[g * 2 * of_left : (g + 1) * 2 * of_left]
                    share = shares[(first * heads + h * WIDTH) * nodes * nodes :]
                    embed(per_side, nodes, features, heads, size, h, x, kinds, weight, bias, left, right)
                    for i in range(per_side):
                        for d in range(size):
                            row = (i * heads + h) * size + d
                            y = load(dout, row * samples + first, 1)
                            if sides == 2:
                                z = load(dout, (row + per_side * heads * size) * samples + first, 1)
                                store(dy, (i * size + d) * WIDTH, root * (y + z))
                                store(dy, ((i + per_side) * size + d) * WIDTH, root * (y - z))
                            else:
                                store(dy, (i * size + d) * WIDTH, y)
                    # ds_ij = alpha_ij (dy_i . r_j - sum_k alpha_ik dy_i . r_k)
                    dscores = zeros(nodes)
                    for i in range(nodes):
                        e = zeros(nodes)
                        for d in range(size):
                            e = fma(load(dy, (i * size + d) * WIDTH, 1), load(right, d * nodes * WIDTH, nodes), e)
                        e = e * load(share, i * nodes * WIDTH, nodes)
                        e = e - total(e) * load(share, i * nodes * WIDTH, nodes)
                        store(ds, i * nodes * WIDTH, e)
                        dscores = dscores + e
                    for d in range(size):
                        r, dr, p, da = load(right, d * nodes * WIDTH, nodes), zeros(nodes), zeros(nodes), zeros(1)
                        for i in range(nodes):
                            l = load(left, (i * size + d) * WIDTH, 1)
                            active = where_positive(l + r, load(ds, i * nodes * WIDTH, nodes))
                            p = p + active
                            dl = real(0.8) * total(active)
                            da = fma(l, dl, da)
                            dy_i = load(dy, (i * size + d) * WIDTH, 1)
                            store(dlr, (d * nodes + i) * WIDTH, fma(a[d], dl, dy_i))
                            dr = fma(dy_i, load(share, i * nodes * WIDTH, nodes), dr)
                        p = real(0.8) * p + real(0.2) * dscores
                        dattention[h * size + d] += over_samples(da + total(p * r))
                        store(dlr, (size + d) * nodes * WIDTH, fma(a[d], p, dr))
                for f in range(both):
                    for n in range(nodes):
                        w, b = (kinds[n] * heads + h) * both + f, ((n % per_side) * heads + h) * both + f
                        dw, db = load(dweight, w * features * WIDTH, features), load(dbias, b * WIDTH, 1)
                        for g in range(groups):
                            dl = load(dlrs, (g * 2 * size + f) * nodes * WIDTH + n * WIDTH, 1)
                            dw = fma(dl, load(xs, g * of_x + n * features * WIDTH, features), dw)
                            db = db + dl
                        store(dweight, w * features * WIDTH, dw)
                        store(dbias, b * WIDTH, db)
        sums = view(dweight_of_all, np.float32)
        for i in range(weights):
            sums[i] = over_samples(load(dweight, i * WIDTH, 1))
        sums = view(dbias_of_all, np.float32)
        for i in range(biases):
            sums[i] = over_samples(load(dbias, i * WIDTH, 1))

    return forward, backward


class BodyAttention(torch.autograd.Function):
    """The whole body encoder: obs (S, O) float32 to (sides, nodes / sides * heads * size, S) in dtype.

    S: a whole number of WIDTH; columns, scale, shift: (nodes, features), which numbers of obs
    describe a part, and what they are multiplied by and shifted by; kinds: (nodes) whose weights a
    part has; weight: (kinds, heads, 2 * size, features); bias: (nodes / sides, heads, 2 * size);
    attention: (heads, size). obs gets no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, obs: Tensor, columns: Tensor, scale: Tensor, shift: Tensor, kinds: Tensor,
        weight: Tensor, bias: Tensor, attention: Tensor, sides: int, dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        """See entity.BodyEncoder."""
        (nodes, features) = columns.shape
        (heads, size) = attention.shape
        samples = len(obs)
        obs, weight, bias, attention = (x.contiguous() for x in (obs, weight, bias, attention))
        out = torch.empty(sides, nodes // sides * heads * size, samples, dtype=dtype)
        shares = torch.empty(samples * heads * nodes * nodes)
        ctx.passes = make_kernels(sides, nodes, features, heads, size, dtype == torch.bfloat16)
        tensors = obs, columns, scale, shift, kinds, weight, bias, attention, out, shares
        work = scratch("attention", ((features + 2 * size) * nodes + obs.shape[1]) * WIDTH)
        launch(ctx.passes[0], samples, obs.shape[1], *tensors, work)
        ctx.save_for_backward(obs, columns, scale, shift, kinds, weight, bias, attention, shares)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple:
        """Return the gradients of weight, bias and attention."""
        *about, weight, bias, attention, shares = ctx.saved_tensors
        size = attention.shape[1]
        (nodes, features) = about[1].shape
        samples = len(about[0])
        dout = dout.contiguous()
        dweight = torch.empty_like(weight)
        dbias = torch.empty_like(bias)
        dattention = torch.empty_like(attention)
        lanes = torch.empty(weight.numel() + bias.numel(), WIDTH)
        numbers = samples, about[0].shape[1], len(weight)
        rows = ((features + 2 * size) * GROUPS + 3 * size + nodes) * nodes + about[0].shape[1]
        work = scratch("attention", rows * WIDTH)
        tensors = *about, weight, bias, attention, dout, shares
        launch(ctx.passes[1], *numbers, *tensors, work, lanes, dweight, dbias, dattention)
        return None, None, None, None, None, dweight, dbias, dattention, None, None
