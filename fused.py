"""The networks' pointwise work in compiled code: body encoder and LSTM as autograd functions for the CPU.

What PyTorch does in dozens of passes over memory is one pass here; the large products stay with
PyTorch. entity.py holds the same equations in plain PyTorch: the reference, and what a GPU runs.
On two cores with bfloat16 products, a whole update of 1024 robots x 16 steps took 0.48 s in plain
PyTorch and 0.21 s with this.
"""

import concurrent.futures
import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from physics.jit import inline, kernel, reducing_kernel
from physics.spatial import exp

_pool: concurrent.futures.ThreadPoolExecutor | None = None
_threads = 1


def set_threads(threads: int) -> None:
    """Use this many threads, PyTorch and this module alike; they take turns."""
    global _pool, _threads
    torch.set_num_threads(threads)
    if threads != _threads:
        if _pool:
            _pool.shutdown()
        _pool = concurrent.futures.ThreadPoolExecutor(threads - 1, "fused") if threads > 1 else None
        _threads = threads


def _parallel(function: Any, count: int, *arguments: Any) -> None:
    """Call function(start, stop, part, *arguments) for shares of range(count)."""
    parts = _threads if count >= 64 * _threads else 1
    bounds = [count * i // parts for i in range(parts + 1)]
    futures = [_pool.submit(function, bounds[i], bounds[i + 1], i, *arguments) for i in range(1, parts)]
    function(bounds[0], bounds[1], 0, *arguments)
    for future in futures:
        future.result()


def bits(x: Tensor) -> np.ndarray:
    """Return a tensor's memory as an array: float32 as it is, bfloat16 as its 16 bits."""
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()


@inline
def sigmoid(x):
    """Return 1 / (1 + e^-x)."""
    return np.float32(1.0) / (np.float32(1.0) + exp(-x))


@inline
def tanh(x):
    """Return the hyperbolic tangent."""
    return np.float32(2.0) / (np.float32(1.0) + exp(np.float32(-2.0) * x)) - np.float32(1.0)


@inline
def to_bf16(x):
    """Return the 16 bits of the nearest bfloat16."""
    u = np.float32(x).view(np.uint32)
    return np.uint16((u + np.uint32(0x7FFF) + ((u >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@inline
def from_bf16(u):
    """Return the float32 of bfloat16 bits."""
    return np.uint32(np.uint32(u) << np.uint32(16)).view(np.float32)


@inline
def embed(nodes, features, both, x, kinds, weight, bias, lr):
    """Set the features (l, r) of every part of a body: (l, r)_n = b_n + sum_k x_nk W_k."""
    for n in range(nodes):
        row, w, b, xn = lr[n * both : (n + 1) * both], weight[kinds[n]], bias[n], x[n]
        for f in range(both):
            y = b[f]
            for k in range(features):
                y += xn[k] * w[k * both + f]
            row[f] = y


@functools.cache
def make_attention(nodes: int, features: int, heads: int, size: int) -> tuple:
    """Return compiled forward and backward passes of entity.BodyEncoder for a body.

    features: most columns that a part reads; size: features of a head.

    One sample at a time, all of it in the first-level cache; loops over the features of a head are
    vector instructions. With LeakyReLU(t) = 0.6 t + 0.4 |t|, and softmax over j blind to what does
    not depend on j, the score is 0.6 a . r_j + 0.4 a . |l_i + r_j|.
    """
    width = heads * size
    both = 2 * width  # l and r of a part

    @reducing_kernel
    def forward(start, stop, part, half, x, kinds, weight, bias, attention, alpha, out, scratch):
        lr = scratch[part]
        s, y = np.empty(nodes, np.float32), np.empty(size, np.float32)
        for b in range(start, stop):
            embed(nodes, features, both, x[b], kinds, weight, bias, lr)
            for h in range(heads):
                a, rights = attention[h], lr[width + h * size :]
                for i in range(nodes):
                    left = lr[i * both + h * size : i * both + (h + 1) * size]
                    top = np.float32(-1e30)
                    for j in range(nodes):
                        right = rights[j * both : j * both + size]
                        e = np.float32(0.0)
                        for d in range(size):
                            e += a[d] * (np.float32(0.6) * right[d] + np.float32(0.4) * abs(left[d] + right[d]))
                        s[j] = e
                        top = max(top, e)
                    total = np.float32(0.0)
                    for j in range(nodes):
                        s[j] = exp(s[j] - top)
                    for j in range(nodes):
                        total += s[j]
                    for j in range(nodes):
                        s[j] /= total
                        alpha[b, h, i, j] = s[j]
                    for d in range(size):
                        z = np.float32(0.0)
                        for j in range(nodes):
                            z += s[j] * rights[j * both + d]
                        y[d] = z
                    row = out[b, i * width + h * size : i * width + (h + 1) * size]
                    if half:
                        for d in range(size):
                            row[d] = to_bf16(y[d])
                    else:
                        for d in range(size):
                            row[d] = y[d]

    @reducing_kernel
    def backward(start, stop, part, half, x, kinds, weight, bias, attention, alpha, dout, scratch, dscratch, dweight, dbias, dattention):
        lr, dlr = scratch[part], dscratch[part]
        dw, db, da = dweight[part], dbias[part], dattention[part]
        ds, dy = np.empty(nodes, np.float32), np.empty(size, np.float32)
        for b in range(start, stop):
            embed(nodes, features, both, x[b], kinds, weight, bias, lr)
            for f in range(nodes * both):
                dlr[f] = np.float32(0.0)
            for h in range(heads):
                a, dah = attention[h], da[h]
                for i in range(nodes):
                    row = dout[b, i * width + h * size : i * width + (h + 1) * size]
                    if half:
                        for d in range(size):
                            dy[d] = from_bf16(row[d])
                    else:
                        for d in range(size):
                            dy[d] = row[d]
                    left, dleft = lr[i * both + h * size : i * both + (h + 1) * size], dlr[i * both + h * size : i * both + (h + 1) * size]
                    mean = np.float32(0.0)
                    for j in range(nodes):
                        first = j * both + width + h * size
                        right, dright = lr[first : first + size], dlr[first : first + size]
                        share = alpha[b, h, i, j]
                        e = np.float32(0.0)
                        for d in range(size):
                            e += dy[d] * right[d]
                            dright[d] += share * dy[d]
                        ds[j] = e
                        mean += share * e
                    for j in range(nodes):
                        first = j * both + width + h * size
                        right, dright = lr[first : first + size], dlr[first : first + size]
                        e = alpha[b, h, i, j] * (ds[j] - mean)
                        for d in range(size):
                            t = left[d] + right[d]
                            slope = np.float32(1.0) if t > np.float32(0.0) else np.float32(0.2)
                            g = e * a[d] * slope
                            dleft[d] += g
                            dright[d] += g
                            dah[d] += e * slope * t
            for n in range(nodes):
                row, dbn, dwn, xn = dlr[n * both : (n + 1) * both], db[n], dw[kinds[n]], x[b, n]
                for f in range(both):
                    dbn[f] += row[f]
                for k in range(features):
                    dwk, xk = dwn[k * both : (k + 1) * both], xn[k]
                    for f in range(both):
                        dwk[f] += xk * row[f]

    return forward, backward


class BodyAttention(torch.autograd.Function):
    """The whole body encoder: x (S, nodes, features) float32 to (S, nodes * heads * size) in dtype; x gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, attention: Tensor, kinds: np.ndarray, kernels: tuple, dtype: torch.dtype) -> Tensor:
        """See entity.BodyEncoder."""
        samples, nodes, _ = x.shape
        heads, size = attention.shape
        out = torch.empty(samples, nodes * heads * size, dtype=dtype)
        alpha = torch.empty(samples, heads, nodes, nodes)
        scratch = np.empty((_threads, 2 * nodes * heads * size), np.float32)
        half = dtype == torch.bfloat16
        arrays = [t.detach().numpy() for t in (x, weight.flatten(1), bias, attention, alpha)]
        _parallel(kernels[0], samples, half, arrays[0], kinds, *arrays[1:], bits(out), scratch)
        ctx.save_for_backward(x, weight, bias, attention, alpha)
        ctx.kinds, ctx.kernels, ctx.half, ctx.scratch = kinds, kernels, half, scratch
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple:
        """Return the gradients of weight, bias and attention."""
        x, weight, bias, attention, alpha = ctx.saved_tensors
        flat = weight.flatten(1)
        sums = [np.zeros((_threads, *t.shape), np.float32) for t in (flat, bias, attention)]
        arrays = [t.detach().numpy() for t in (x, flat, bias, attention, alpha)]
        scratch = ctx.scratch, np.empty_like(ctx.scratch)
        _parallel(ctx.kernels[1], len(x), ctx.half, arrays[0], ctx.kinds, *arrays[1:], bits(dout.contiguous()), *scratch, *sums)
        dweight, dbias, dattention = (torch.from_numpy(s.sum(0)) for s in sums)
        return None, dweight.view_as(weight), dbias, dattention, None, None, None


@kernel
def _lstm_forward(start, stop, part, half, gates_x, gates_h, cell, keep, next_keep, acts, next_cell, hidden, next_input):
    """One step for robots start:stop; gates in the order input, forget, output, candidate.

    Loops touch at most four arrays each: with more, the compiler gives up on telling them apart.
    """
    size = cell.shape[1]
    for n in range(start, stop):
        gx, gh, c, act, c1, h, hk = gates_x[n], gates_h[n], cell[n], acts[n], next_cell[n], hidden[n], next_input[n]
        kn, k1 = keep[n], next_keep[n]
        candidate = act[3 * size :]
        if half:
            for j in range(4 * size):
                act[j] = from_bf16(gx[j]) + from_bf16(gh[j])
        else:
            for j in range(4 * size):
                act[j] = gx[j] + gh[j]
        for j in range(3 * size):
            act[j] = sigmoid(act[j])
        for j in range(size):
            candidate[j] = tanh(candidate[j])
        for j in range(size):
            c1[j] = act[size + j] * kn * c[j] + act[j] * act[3 * size + j]
        for j in range(size):
            h[j] = act[2 * size + j] * tanh(c1[j])
        if half:
            for j in range(size):
                hk[j] = to_bf16(k1 * h[j])
        else:
            for j in range(size):
                hk[j] = k1 * h[j]


@kernel
def _lstm_backward(start, stop, part, half, acts, cell, next_cell, keep, next_keep, dhidden, dinput, dcell, dgates):
    """One step backwards; dcell (N, H) is of the cell after the step on entry, before it on return."""
    size = cell.shape[1]
    one = np.float32(1.0)
    d, t, g = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(4 * size, np.float32)
    for n in range(start, stop):
        act, c, c1, dh, dx, dc, dg = acts[n], cell[n], next_cell[n], dhidden[n], dinput[n], dcell[n], dgates[n]
        kn, k1 = keep[n], next_keep[n]
        if half:
            for j in range(size):
                d[j] = dh[j] + k1 * from_bf16(dx[j])
        else:
            for j in range(size):
                d[j] = dh[j] + k1 * dx[j]
        for j in range(size):
            t[j] = tanh(c1[j])
        for j in range(size):
            o = act[2 * size + j]
            g[2 * size + j] = d[j] * t[j] * o * (one - o)
            d[j] = d[j] * o * (one - t[j] * t[j])
        for j in range(size):
            d[j] += dc[j]
        for j in range(size):
            dc[j] = d[j] * act[size + j] * kn
        for j in range(size):
            i, f, a = act[j], act[size + j], act[3 * size + j]
            g[j] = d[j] * a * i * (one - i)
            g[size + j] = d[j] * kn * c[j] * f * (one - f)
            g[3 * size + j] = d[j] * i * (one - a * a)
        if half:
            for j in range(4 * size):
                dg[j] = to_bf16(g[j])
        else:
            for j in range(4 * size):
                dg[j] = g[j]


class LSTMSequence(torch.autograd.Function):
    """The recurrence of entity.EntityBelief over a sequence: hidden states (T, N, H) and the last cell (N, H), float32.

    gates: (T, N, 4 H) in dtype, what the inputs contribute; weight: (4 H, H); hidden, cell: (N, H)
    before the first step; keep: (T, N), 0 where the state is forgotten before a step. Gradients
    reach gates and weight; the state before the rollout is data.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Run T steps."""
        steps, n, width = gates.shape
        size = width // 4
        half = gates.dtype == torch.bfloat16
        weight = weight.detach().to(gates.dtype)
        keep = torch.cat((keep, torch.ones(1, n)))
        inputs = torch.empty(steps + 1, n, size, dtype=gates.dtype)
        inputs[0] = hidden * keep[0, :, None]
        cells = torch.empty(steps + 1, n, size)
        cells[0] = cell
        acts, outputs = torch.empty(steps, n, width), torch.empty(steps, n, size)
        gates_x, inputs_, cells_, acts_, outputs_, keep_ = bits(gates.detach()), bits(inputs), cells.numpy(), acts.numpy(), outputs.numpy(), keep.numpy()
        for t in range(steps):
            gates_h = bits(torch.mm(inputs[t], weight.t()))
            _parallel(_lstm_forward, n, half, gates_x[t], gates_h, cells_[t], keep_[t], keep_[t + 1], acts_[t], cells_[t + 1], outputs_[t], inputs_[t + 1])
        ctx.save_for_backward(weight, inputs, cells, acts, keep)
        last = cells[-1].clone()
        ctx.mark_non_differentiable(last)
        return outputs, last

    @staticmethod
    def backward(ctx: Any, doutputs: Tensor, _: Tensor) -> tuple:
        """Return the gradients of gates and weight."""
        weight, inputs, cells, acts, keep = ctx.saved_tensors
        steps, n, width = acts.shape
        size = width // 4
        half = weight.dtype == torch.bfloat16
        dgates = torch.empty(steps, n, width, dtype=weight.dtype)
        dinput, dcell = torch.zeros(n, size, dtype=weight.dtype), torch.zeros(n, size)
        doutputs = doutputs.contiguous()
        acts_, cells_, keep_, dout_, dgates_, dcell_ = acts.numpy(), cells.numpy(), keep.numpy(), doutputs.numpy(), bits(dgates), dcell.numpy()
        for t in reversed(range(steps)):
            _parallel(_lstm_backward, n, half, acts_[t], cells_[t], cells_[t + 1], keep_[t], keep_[t + 1], dout_[t], bits(dinput), dcell_, dgates_[t])
            torch.mm(dgates[t], weight, out=dinput)
        dweight = torch.mm(dgates.view(-1, width).t(), inputs[:-1].reshape(-1, size)).float()
        return dgates, dweight, None, None, None
