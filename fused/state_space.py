"""The recurrent state-space model over a sequence in compiled code, forwards and backwards.

One step, as world_model.state_space_sequence has it in plain PyTorch; k is 0 where an episode begins:

    x = SiLU(g1 norm(W1 [z, a]))                                          what was, and what was done
    r, c, u = g2 norm(W2 [x, h]);  u = sigmoid(u - 1)
    f = u tanh(sigmoid(r) c) + (1 - u) h                                  what follows
    h' = k f                                                              deterministic state
    y = SiLU(g3 norm(W3 [h', e]))                                         evidence e: nothing for the prior
    l = W4 y + b;  p = 0.99 softmax l + 0.01 / classes;  z' ~ p           stochastic state

As elsewhere products act on sums and differences of the sides, the rest on the sides themselves. Gradients
go straight through samples: that of z' is taken for that of p.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fused.categorical import UNIFORM, draw, softmax
from fused.layers import keep_sides, side_of, sigmoid, tanh
from fused.memory import scratch, view
from fused.normed import activate, activate_backward, normalise, normalise_backward
from fused.product import pack, pack_transposed, panel_size, product, weight_gradient
from fused.program import launch
from fused.registers import WIDTH
from fused.vectors import fma, load, over_samples, store, zeros
from physics.jit import kernel, real


@functools.cache
def make_kernels(sides: int, half: bool) -> tuple:
    """Return the compiled sequence and its backward pass; half: whether products are of bfloat16 numbers.

    Sizes are of a side: deter, hidden, actions, evidence, and groups * classes of the stochastic state;
    columns are steps * n, a step's next to each other.
    """
    kind = np.uint16 if half else np.float32
    packed_kind = np.int32 if half else np.float32
    per_element = 2 if half else 1  # numbers to an element of packed weights

    @kernel
    def forward(
        deter, hidden, groups, classes, actions, evidence, steps, n, drawn, learnt,
        w1, g1, w2, g2, w3, g3, w4, bias, latent, action, seen, keep, noise,
        in1, in2, in3, in4, v1, v2, v3, inverse, probs, latents, follows, logits, last, packed, pre, panel,
    ):  # fmt: skip
        w1, w2, w3, w4 = view(w1, np.float32), view(w2, np.float32), view(w3, np.float32), view(w4, np.float32)
        g1, g2, g3, bias = view(g1, np.float32), view(g2, np.float32), view(g3, np.float32), view(bias, np.float32)
        keep, noise, inverse = view(keep, np.float32), view(noise, np.float32), view(inverse, np.float32)
        latent, logits, last = view(latent, np.float32), view(logits, np.float32), view(last, np.float32)
        pre, panel = view(pre, np.float32), view(panel, np.float32)
        action, seen, probs = view(action, kind), view(seen, kind), view(probs, kind)
        latents, follows = view(latents, kind), view(follows, kind)
        in1, in2, in3, in4 = view(in1, kind), view(in2, kind), view(in3, kind), view(in4, kind)
        v1, v2, v3 = view(v1, kind), view(v2, kind), view(v3, kind)
        stoch, gates, samples = groups * classes, 3 * deter, steps * n
        wide1, wide2, wide3, size = stoch + actions, hidden + deter, deter + evidence, deter + stoch
        begin2 = sides * hidden * wide1
        begin3 = begin2 + sides * gates * wide2
        begin4 = begin3 + sides * hidden * wide3
        space, weights = view(packed, kind), view(packed, packed_kind)
        pack(w1, begin2, space)
        pack(w2, begin3 - begin2, space[begin2:])
        pack(w3, begin4 - begin3, space[begin3:])
        pack(w4, sides * stoch * hidden, space[begin4:])
        for side in range(sides):
            for j in range(actions):
                for s in range(0, samples, WIDTH):
                    value = load(action, (side * actions + j) * samples + s, 1)
                    store(in1, (side * wide1 + stoch + j) * samples + s, value)
            for j in range(evidence):
                for s in range(0, samples, WIDTH):
                    value = load(seen, (side * evidence + j) * samples + s, 1)
                    store(in3, (side * wide3 + deter + j) * samples + s, value)
            for i in range(side * size * n, (side + 1) * size * n, WIDTH):
                store(last, i, load(latent, i, 1))
        for t in range(steps):
            first = t * n
            for side in range(sides):
                for j in range(stoch):
                    for s in range(0, n, WIDTH):
                        value = load(last, (side * size + deter + j) * n + s, 1)
                        store(in1, (side * wide1 + j) * samples + first + s, value)
                for j in range(deter):
                    for s in range(0, n, WIDTH):
                        value = load(last, (side * size + j) * n + s, 1)
                        store(in2, (side * wide2 + hidden + j) * samples + first + s, value)
            # x = SiLU(g1 norm(W1 [z, a]))
            for side in range(sides):
                w = weights[side * (hidden * wide1 // per_element) :]
                x = in1[side * wide1 * samples + first :]
                product(hidden, wide1, w, x, samples, pre[side * hidden * n :], n, n, panel)
            normalise(sides, hidden, n, pre, v1, first, samples, hidden * samples, inverse[first:])
            activate(sides, hidden, n, v1, first, samples, hidden * samples, g1, in2, first, samples, wide2 * samples)
            # r, c, u = g2 norm(W2 [x, h])
            for side in range(sides):
                w = weights[begin2 // per_element + side * (gates * wide2 // per_element) :]
                x = in2[side * wide2 * samples + first :]
                product(gates, wide2, w, x, samples, pre[side * gates * n :], n, n, panel)
            normalise(sides, gates, n, pre, v2, first, samples, gates * samples, inverse[samples + first :])
            # f = u tanh(sigmoid(r) c) + (1 - u) h;  h' = k f
            for j in range(deter):
                for s in range(0, n, WIDTH):
                    h0, h1 = zeros(1), zeros(1)
                    for side in range(sides):
                        at = (side * gates + j) * samples + first + s
                        r = sigmoid(g2[j] * load(v2, at, 1))
                        c = tanh(r * (g2[deter + j] * load(v2, at + deter * samples, 1)))
                        u = sigmoid(fma(g2[2 * deter + j], load(v2, at + 2 * deter * samples, 1), zeros(1) - real(1.0)))
                        before = side_of(sides, side, last, j * n + s, size * n)
                        h = fma(u, c - before, before)
                        if side == 0:
                            h0 = h
                        else:
                            h1 = h
                    keep_sides(sides, follows, j * samples + first + s, deter * samples, h0, h1)
                    k = load(keep, first + s, 1)
                    h0, h1 = k * h0, k * h1
                    keep_sides(sides, last, j * n + s, size * n, h0, h1)
                    keep_sides(sides, in3, j * samples + first + s, wide3 * samples, h0, h1)
                    keep_sides(sides, latents, j * samples + first + s, size * samples, h0, h1)
            # y = SiLU(g3 norm(W3 [h', e]))
            for side in range(sides):
                w = weights[begin3 // per_element + side * (hidden * wide3 // per_element) :]
                x = in3[side * wide3 * samples + first :]
                product(hidden, wide3, w, x, samples, pre[side * hidden * n :], n, n, panel)
            normalise(sides, hidden, n, pre, v3, first, samples, hidden * samples, inverse[2 * samples + first :])
            activate(sides, hidden, n, v3, first, samples, hidden * samples, g3, in4, first, samples, hidden * samples)
            # l = W4 y + b
            for side in range(sides):
                w = weights[begin4 // per_element + side * (stoch * hidden // per_element) :]
                x = in4[side * hidden * samples + first :]
                product(stoch, hidden, w, x, samples, pre[side * stoch * n :], n, n, panel)
            for j in range(stoch):
                for s in range(0, n, WIDTH):
                    a, b = side_of(sides, 0, pre, j * n + s, stoch * n) + bias[j], zeros(1)
                    if sides == 2:
                        b = side_of(sides, 1, pre, j * n + s, stoch * n) + bias[j]
                        store(pre, (stoch + j) * n + s, b)
                        store(logits, (stoch + j) * samples + first + s, b)
                    store(pre, j * n + s, a)
                    store(logits, j * samples + first + s, a)
            # z' ~ p
            for g in range(sides * groups):
                for s in range(0, n, WIDTH):
                    at = g * classes * samples + first
                    if not drawn and not learnt:
                        draw(classes, False, pre, g * classes * n, n, s, zeros(1), pre, g * classes, n)
                        continue
                    softmax(classes, n, s, pre, g * classes, pre, g * classes * n, n, probs, at, samples)
                    u = load(noise, g * samples + first + s, 1) if drawn else zeros(1)
                    draw(classes, drawn, probs, at, samples, s, u, pre, g * classes, n)
            for j in range(stoch):
                for s in range(0, n, WIDTH):
                    a = load(pre, j * n + s, 1)
                    b = load(pre, ((sides - 1) * stoch + j) * n + s, 1)
                    keep_sides(sides, last, (deter + j) * n + s, size * n, a, b)
                    keep_sides(sides, latents, (deter + j) * samples + first + s, size * samples, a, b)

    @kernel
    def backward(
        deter, hidden, groups, classes, actions, evidence, steps, n,
        w1, g1, w2, g2, w3, g3, w4, keep, in1, in2, in3, in4, v1, v2, v3, inverse, probs, dlatents, dfollows, dlogits,
        d1, d2, d3, d4, dw1, dg1, dw2, dg2, dw3, dg3, dw4, dbias, dlatent, dseen, packed, pre, dvalues, direct, panel,
    ):  # fmt: skip
        w1, w2, w3, w4 = view(w1, np.float32), view(w2, np.float32), view(w3, np.float32), view(w4, np.float32)
        g1, g2, g3, keep = view(g1, np.float32), view(g2, np.float32), view(g3, np.float32), view(keep, np.float32)
        inverse, dlogits = view(inverse, np.float32), view(dlogits, np.float32)
        dlatent, pre = view(dlatent, np.float32), view(pre, np.float32)
        dvalues, direct, panel = view(dvalues, np.float32), view(direct, np.float32), view(panel, np.float32)
        dw1, dw2, dw3, dw4 = view(dw1, np.float32), view(dw2, np.float32), view(dw3, np.float32), view(dw4, np.float32)
        dg1, dg2, dg3 = view(dg1, np.float32), view(dg2, np.float32), view(dg3, np.float32)
        dbias = view(dbias, np.float32)
        in1, in2, in3, in4 = view(in1, kind), view(in2, kind), view(in3, kind), view(in4, kind)
        v1, v2, v3 = view(v1, kind), view(v2, kind), view(v3, kind)
        d1, d2, d3, d4, dseen = view(d1, kind), view(d2, kind), view(d3, kind), view(d4, kind), view(dseen, kind)
        probs, dlatents, dfollows = view(probs, kind), view(dlatents, kind), view(dfollows, kind)
        stoch, gates, samples = groups * classes, 3 * deter, steps * n
        wide1, wide2, wide3, size = stoch + actions, hidden + deter, deter + evidence, deter + stoch
        begin2 = sides * hidden * wide1
        begin3 = begin2 + sides * gates * wide2
        begin4 = begin3 + sides * hidden * wide3
        space, weights = view(packed, kind), view(packed, packed_kind)
        for side in range(sides):  # one after another, as each puts zeros behind itself
            pack_transposed(w1[side * hidden * wide1 :], hidden, wide1, space[side * hidden * wide1 :])
        for side in range(sides):
            pack_transposed(w2[side * gates * wide2 :], gates, wide2, space[begin2 + side * gates * wide2 :])
        for side in range(sides):
            pack_transposed(w3[side * hidden * wide3 :], hidden, wide3, space[begin3 + side * hidden * wide3 :])
        for side in range(sides):
            pack_transposed(w4[side * stoch * hidden :], stoch, hidden, space[begin4 + side * stoch * hidden :])
        for j in range(hidden):
            dg1[j] = real(0.0)
            dg3[j] = real(0.0)
        for j in range(gates):
            dg2[j] = real(0.0)
        for j in range(stoch):
            dbias[j] = real(0.0)
        for i in range(0, sides * size * n, WIDTH):
            store(dlatent, i, zeros(1))
        for t in range(steps - 1, -1, -1):
            first = t * n
            # what a latent is for, and what follows from it
            for i in range(sides * size):
                for s in range(0, n, WIDTH):
                    store(dlatent, i * n + s, load(dlatent, i * n + s, 1) + load(dlatents, i * samples + first + s, 1))
            # z', straight through: dl = 0.99 q (dz - sum q dz), of the softmax q
            for g in range(groups):
                for s in range(0, n, WIDTH):
                    for side in range(sides):
                        along = zeros(1)
                        for c in range(classes):
                            j = g * classes + c
                            dz = side_of(sides, side, dlatent, (deter + j) * n + s, size * n)
                            along = fma(load(probs, (side * stoch + j) * samples + first + s, 1), dz, along)
                            store(dvalues, (side * stoch + j) * n + s, dz)
                        for c in range(classes):
                            j = side * stoch + g * classes + c
                            q = load(probs, j * samples + first + s, 1)
                            d = fma(
                                real(1.0 - UNIFORM) * q,
                                load(dvalues, j * n + s, 1) - along,
                                load(dlogits, j * samples + first + s, 1),
                            )
                            store(dvalues, j * n + s, d)
            for j in range(stoch):
                of_bias = zeros(1)
                for s in range(0, n, WIDTH):
                    a = load(dvalues, j * n + s, 1)
                    b = load(dvalues, ((sides - 1) * stoch + j) * n + s, 1)
                    of_bias = of_bias + (a if sides == 1 else a + b)
                    keep_sides(sides, d4, j * samples + first + s, stoch * samples, a, b)
                dbias[j] += over_samples(of_bias)
            # y
            for side in range(sides):
                w = weights[begin4 // per_element + side * (stoch * hidden // per_element) :]
                dy = d4[side * stoch * samples + first :]
                product(hidden, stoch, w, dy, samples, pre[side * hidden * n :], n, n, panel)
            activate_backward(
                sides, hidden, n, v3, first, samples, hidden * samples, g3, pre, 0, n, hidden * n, dvalues, dg3
            )
            normalise_backward(
                sides, hidden, n, v3, first, samples, hidden * samples, inverse[2 * samples + first :], dvalues, d3
            )
            for side in range(sides):
                w = weights[begin3 // per_element + side * (hidden * wide3 // per_element) :]
                dy = d3[side * hidden * samples + first :]
                product(deter, hidden, w, dy, samples, pre[side * deter * n :], n, n, panel)
                if evidence > 0:
                    of_evidence = w[deter * (hidden // per_element) :]
                    de = dseen[side * evidence * samples + first :]
                    product(evidence, hidden, of_evidence, dy, samples, de, samples, n, panel)
            # f
            for j in range(deter):
                of_r, of_c, of_u = zeros(1), zeros(1), zeros(1)
                for s in range(0, n, WIDTH):
                    h0, h1 = zeros(1), zeros(1)
                    for side in range(sides):
                        of_latent = side_of(sides, side, dlatent, j * n + s, size * n)
                        dh = of_latent + side_of(sides, side, pre, j * n + s, deter * n)
                        of_follows = side_of(sides, side, dfollows, j * samples + first + s, deter * samples)
                        dh = fma(load(keep, first + s, 1), dh, of_follows)
                        at = (side * gates + j) * samples + first + s
                        r_v, c_v = load(v2, at, 1), load(v2, at + deter * samples, 1)
                        u_v = load(v2, at + 2 * deter * samples, 1)
                        r, c_in = sigmoid(g2[j] * r_v), g2[deter + j] * c_v
                        c = tanh(r * c_in)
                        u = sigmoid(fma(g2[2 * deter + j], u_v, zeros(1) - real(1.0)))
                        before = side_of(sides, side, in2, (hidden + j) * samples + first + s, wide2 * samples)
                        dc = dh * u * (real(1.0) - c * c)
                        du = dh * (c - before) * u * (real(1.0) - u)
                        dr = dc * c_in * r * (real(1.0) - r)
                        dc = dc * r
                        of_r, of_c, of_u = fma(dr, r_v, of_r), fma(dc, c_v, of_c), fma(du, u_v, of_u)
                        at = (side * gates + j) * n + s
                        store(dvalues, at, g2[j] * dr)
                        store(dvalues, at + deter * n, g2[deter + j] * dc)
                        store(dvalues, at + 2 * deter * n, g2[2 * deter + j] * du)
                        if side == 0:
                            h0 = dh - dh * u
                        else:
                            h1 = dh - dh * u
                    keep_sides(sides, direct, j * n + s, deter * n, h0, h1)
                dg2[j] += over_samples(of_r)
                dg2[deter + j] += over_samples(of_c)
                dg2[2 * deter + j] += over_samples(of_u)
            normalise_backward(
                sides, gates, n, v2, first, samples, gates * samples, inverse[samples + first :], dvalues, d2
            )
            for side in range(sides):
                w = weights[begin2 // per_element + side * (gates * wide2 // per_element) :]
                dy = d2[side * gates * samples + first :]
                product(wide2, gates, w, dy, samples, pre[side * wide2 * n :], n, n, panel)
            for side in range(sides):
                for j in range(deter):
                    for s in range(0, n, WIDTH):
                        through_gates = load(pre, (side * wide2 + hidden + j) * n + s, 1)
                        dh = load(direct, (side * deter + j) * n + s, 1) + through_gates
                        store(dlatent, (side * size + j) * n + s, dh)
            # x
            activate_backward(
                sides, hidden, n, v1, first, samples, hidden * samples, g1, pre, 0, n, wide2 * n, dvalues, dg1
            )
            normalise_backward(sides, hidden, n, v1, first, samples, hidden * samples, inverse[first:], dvalues, d1)
            for side in range(sides):
                w = weights[side * (hidden * wide1 // per_element) :]
                dy = d1[side * hidden * samples + first :]
                product(stoch, hidden, w, dy, samples, pre[side * stoch * n :], n, n, panel)
                for j in range(stoch):
                    for s in range(0, n, WIDTH):
                        store(dlatent, (side * size + deter + j) * n + s, load(pre, (side * stoch + j) * n + s, 1))
        for side in range(sides):
            of_hidden, of_gates = side * hidden * samples, side * gates * samples
            x, dw = in1[side * wide1 * samples :], dw1[side * hidden * wide1 :]
            weight_gradient(hidden, wide1, d1[of_hidden:], samples, x, samples, samples, dw)
            x, dw = in2[side * wide2 * samples :], dw2[side * gates * wide2 :]
            weight_gradient(gates, wide2, d2[of_gates:], samples, x, samples, samples, dw)
            x, dw = in3[side * wide3 * samples :], dw3[side * hidden * wide3 :]
            weight_gradient(hidden, wide3, d3[of_hidden:], samples, x, samples, samples, dw)
            x, dw = in4[of_hidden:], dw4[side * stoch * hidden :]
            weight_gradient(stoch, hidden, d4[side * stoch * samples :], samples, x, samples, samples, dw)

    return forward, backward


class StateSpaceSequence(torch.autograd.Function):
    """world_model.state_space_sequence: latents, what follows and logits of every step, and the last latent.

    latent: (sides, D + Z, N), float32; action: (sides, A, S), evidence: (sides, E, S) or None, in dtype;
    keep: (T, N); noise: (sides, groups, S), None for the likeliest values;
    weights: W1 (sides, H, Z + A), g1 (H), W2 (sides, 3 D, H + D), g2 (3 D), W3 (sides, H, D + E), g3 (H),
    W4 (sides, Z, H), b (Z). Sizes are whole numbers of product.ROWS, N of 2 WIDTH.

    Returns latents (sides, D + Z, S) and what follows (sides, D, S) in dtype, logits (sides, Z, S), and the last
    latent, as latent. Gradients reach latent, evidence and weights; the last latent is data.
    """

    @staticmethod
    def forward(
        ctx: Any,
        latent: Tensor,
        action: Tensor,
        evidence: Tensor | None,
        keep: Tensor,
        noise: Tensor | None,
        groups: int,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run T steps."""
        (steps, n) = keep.shape
        dtype = action.dtype
        weights = [w.contiguous() for w in weights]
        (sides, hidden, _) = weights[0].shape
        deter = len(weights[3]) // 3
        stoch = len(weights[7])
        actions = action.shape[1]
        seen = 0 if evidence is None else evidence.shape[1]
        samples = steps * n
        size = deter + stoch
        latent = latent.contiguous()
        action = action.contiguous()
        keep = keep.contiguous()
        noise = None if noise is None else noise.contiguous()
        evidence = None if evidence is None else evidence.contiguous()

        def empty(rows: int, kind: torch.dtype = dtype) -> Tensor:
            return torch.empty(sides, rows, samples, dtype=kind)

        kept = [
            empty(rows) for rows in (stoch + actions, hidden + deter, deter + seen, hidden, hidden, 3 * deter, hidden)
        ]
        inverse = torch.empty(3, samples)
        probs = empty(stoch)
        latents = empty(size)
        follows = empty(deter)
        logits = empty(stoch, torch.float32)
        last = torch.empty(sides, size, n)
        sizes = deter, hidden, groups, stoch // groups, actions, seen, steps, n
        inputs = [0 if x is None else x for x in (*weights, latent, action, evidence, keep, noise)]
        outputs = *kept, inverse, probs, latents, follows, logits, last
        widest = max(*(rows for w in weights[::2] for rows in w.shape[1:]))
        work = (
            scratch("weights", sum(w.numel() for w in weights)),
            scratch("pre", sides * widest * n),
            scratch("panel", panel_size(widest)),
        )
        learnt = any(getattr(ctx, "needs_input_grad", ()))  # else nobody asks for probabilities but to draw by them
        flags = int(noise is not None), int(learnt)
        launch(make_kernels(sides, dtype == torch.bfloat16)[0], *sizes, *flags, *inputs, *outputs, *work)
        ctx.sizes = (*sizes, sides)
        ctx.dtype = dtype
        ctx.save_for_backward(keep, *weights, *kept, inverse, probs)
        ctx.mark_non_differentiable(last)
        return latents, follows, logits, last

    @staticmethod
    def backward(ctx: Any, dlatents: Tensor, dfollows: Tensor, dlogits: Tensor, _: Tensor) -> tuple:
        """Return the gradients of latent, evidence and weights."""
        keep, *saved = ctx.saved_tensors
        weights = saved[:8]
        kept = saved[8:]
        *sizes, sides = ctx.sizes
        deter, hidden, groups, classes, _, seen, steps, n = sizes
        stoch = groups * classes
        samples = steps * n
        dlatents = dlatents.contiguous()
        dfollows = dfollows.contiguous()
        dlogits = dlogits.contiguous()
        before = [torch.empty(sides, rows, samples, dtype=ctx.dtype) for rows in (hidden, 3 * deter, hidden, stoch)]
        dweights = [torch.empty_like(w) for w in weights]
        dlatent = torch.empty(sides, deter + stoch, n)
        dseen = torch.empty(sides, seen, samples, dtype=ctx.dtype) if seen else None
        widest = max(*(rows for w in weights[::2] for rows in w.shape[1:]))
        work = (
            scratch("weights", sum(w.numel() for w in weights)),
            scratch("pre", sides * widest * n),
            scratch("dvalues", sides * widest * n),
            scratch("direct", sides * deter * n),
            scratch("panel", panel_size(widest)),
        )
        inputs = *weights[:7], keep, *kept, dlatents, dfollows, dlogits
        outputs = *before, *dweights, dlatent, dlatent if dseen is None else dseen
        launch(make_kernels(sides, ctx.dtype == torch.bfloat16)[1], *sizes, *inputs, *outputs, *work)
        return dlatent, None, dseen, None, None, None, *dweights
