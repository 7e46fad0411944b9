"""The world model's losses in compiled code, with their gradients.

Of two beliefs about categorical variables, p = 0.99 softmax(l) + 0.01 / classes of the posterior's logits, q of the
prior's: KL = sum p ln(p / q);  dKL/dp = ln(p / q) + 1,  dKL/dq = -p / q;  dl = 0.99 s (d - sum s d), s the softmax
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fused.categorical import UNIFORM, softmax
from fused.memory import scratch, view
from fused.program import launch
from fused.registers import WIDTH
from fused.vectors import (
    bounded,
    choose_positive,
    exponential,
    fma,
    load,
    logarithm,
    magnitude,
    store,
    where_positive,
    zeros,
)
from physics.jit import inline, kernel, real


@kernel
def _divergence(variables, classes, samples, posterior, prior, free, kl, kept, kept2, dposterior, dprior, work):
    posterior, prior, kl = view(posterior, np.float32), view(prior, np.float32), view(kl, np.float32)
    free, kept, kept2 = view(free, np.float32)[0], view(kept, np.float32), view(kept2, np.float32)
    dposterior, dprior, work = view(dposterior, np.float32), view(dprior, np.float32), view(work, np.float32)
    mixed, even = real(1.0 - UNIFORM), zeros(1) + real(UNIFORM) / real(classes)
    size = classes * WIDTH
    for s in range(0, samples, WIDTH):
        total = zeros(1)
        for g in range(variables):
            softmax(classes, samples, s, posterior, g * classes, work, -s, WIDTH, work, -s, WIDTH)
            softmax(classes, samples, s, prior, g * classes, work, size - s, WIDTH, work, size - s, WIDTH)
            along_p, along_q = zeros(1), zeros(1)
            for c in range(classes):
                a, b = load(work, c * WIDTH, 1), load(work, size + c * WIDTH, 1)
                p, q = fma(mixed, a, even), fma(mixed, b, even)
                ratio = p / q
                surprise = logarithm(ratio)
                total = fma(p, surprise, total)
                along_p, along_q = fma(a, surprise, along_p), fma(b, ratio, along_q)
                store(work, 2 * size + c * WIDTH, surprise)
                store(work, 3 * size + c * WIDTH, ratio)
            for c in range(classes):
                a, b = load(work, c * WIDTH, 1), load(work, size + c * WIDTH, 1)
                store(
                    dposterior,
                    (g * classes + c) * samples + s,
                    mixed * a * (load(work, 2 * size + c * WIDTH, 1) - along_p),
                )
                store(
                    dprior, (g * classes + c) * samples + s, mixed * b * (along_q - load(work, 3 * size + c * WIDTH, 1))
                )
        store(kl, s, total)
        more = total - (zeros(1) + free)
        total = choose_positive(more, total, zeros(1) + free)
        store(kept, s, total)
        store(kept2, s, total)


@kernel
def _divergence_backward(rows, samples, free, kl, gradients, along, out):
    kl, free, gradients = view(kl, np.float32), view(free, np.float32)[0], view(gradients, np.float32)
    along, out = view(along, np.float32), view(out, np.float32)
    for r in range(rows):
        for s in range(0, samples, WIDTH):
            place = r * samples + s
            teaches = load(kl, s, 1) - (zeros(1) + free)
            store(out, place, choose_positive(teaches, load(along, s, 1) * load(gradients, place, 1), zeros(1)))


class LatentLosses(torch.autograd.Function):
    """training.world_model.latent_losses: dynamics and representation loss (S) [nat] and the divergence (S).

    prior, posterior: logits (sides, Z, S), S a whole number of WIDTH; groups: categorical variables of a side. The
    divergence itself has no gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, prior: Tensor, posterior: Tensor, groups: int, free_nats: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the losses."""
        (sides, size, samples) = prior.shape
        classes = prior.shape[1] // groups
        prior = prior.contiguous()
        posterior = posterior.contiguous()
        kl, dynamics, representation = (torch.empty(samples) for _ in range(3))
        dposterior, dprior = (torch.empty(sides, size, samples) for _ in range(2))
        free = torch.full((1,), free_nats)
        tensors = posterior, prior, free, kl, dynamics, representation, dposterior, dprior
        launch(_divergence, sides * groups, classes, samples, *tensors, scratch("divergence", 4 * classes * WIDTH))
        ctx.save_for_backward(free, kl, dposterior, dprior)
        ctx.mark_non_differentiable(kl)
        return dynamics, representation, kl

    @staticmethod
    def backward(ctx: Any, ddynamics: Tensor, drepresentation: Tensor, _: Tensor | None) -> tuple:
        """Return the gradients of prior and posterior."""
        free, kl, dposterior, dprior = ctx.saved_tensors
        found = torch.empty_like(dprior), torch.empty_like(dposterior)
        rows, samples = dprior.numel() // len(kl), len(kl)
        for gradients, along, out in zip((dprior, dposterior), (ddynamics, drepresentation), found, strict=True):
            launch(_divergence_backward, rows, samples, free, kl, gradients, along.contiguous(), out)
        return *found, None, None


@kernel
def _squares(rows, samples, share, y, target, loss):
    share, y, target, loss = (
        view(share, np.float32)[0],
        view(y, np.float32),
        view(target, np.float32),
        view(loss, np.float32),
    )
    for s in range(0, samples, WIDTH):
        total = zeros(1)
        for r in range(rows):
            error = load(y, r * samples + s, 1) - load(target, r * samples + s, 1)
            total = fma(error, error, total)
        store(loss, s, share * total)


@kernel
def _squares_backward(rows, samples, share, y, target, dloss, dy):
    share, y, target = view(share, np.float32)[0], view(y, np.float32), view(target, np.float32)
    dloss, dy = view(dloss, np.float32), view(dy, np.float32)
    for s in range(0, samples, WIDTH):
        d = real(2.0) * share * load(dloss, s, 1)
        for r in range(rows):
            place = r * samples + s
            store(dy, place, d * (load(y, place, 1) - load(target, place, 1)))


class Squares(torch.autograd.Function):
    """The sum of squared errors (S) of y (..., S), times a share; target: as y, data; S: a whole number of WIDTH."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, target: Tensor, share: float) -> Tensor:
        """Return the sums."""
        y, target = y.contiguous(), target.contiguous()
        if y.shape != target.shape:
            raise ValueError(f"target: expected {tuple(y.shape)}, got {tuple(target.shape)}")
        samples = y.shape[-1]
        loss = torch.empty(samples)
        share = torch.full((1,), share)
        launch(_squares, y.numel() // samples, samples, share, y, target, loss)
        ctx.save_for_backward(share, y, target)
        return loss

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple:
        """Return the gradient of y."""
        share, y, target = ctx.saved_tensors
        samples = y.shape[-1]
        dy = torch.empty_like(y)
        launch(_squares_backward, y.numel() // samples, samples, share, y, target, dloss.contiguous(), dy)
        return dy, None, None


@inline
def smallest(a, b):
    """Return the smaller of two."""
    return choose_positive(a - b, b, a)


@kernel
def _outcomes(bins, samples, logits, reward, over, scale, values, of_reward, of_end, dlogits):
    """Find the losses, and the gradients of their sum by logits.

    The loss of a reward x is -sum_i w_i log p_i, w_i falling from 1 at bin i to 0 at the bins beside it, with gradient
    p - w; the end's is log(1 + e^-l) where the episode goes on, log(1 + e^l) where it does not.
    """
    logits, reward, over = view(logits, np.float32), view(reward, np.float32), view(over, np.float32)
    scale, values, dlogits = view(scale, np.float32)[0], view(values, np.float32), view(dlogits, np.float32)
    of_reward, of_end = view(of_reward, np.float32), view(of_end, np.float32)
    one = zeros(1) + real(1.0)
    for s in range(0, samples, WIDTH):
        ended = load(over, s, 1)
        x = bounded(scale * load(reward, s, 1), values[0], values[bins - 1])
        broken = real(0.0) * x  # what is not a number shows in the gradient
        most = zeros(1) - real(1e30)
        for i in range(bins):
            logit = choose_positive(ended, load(logits, (bins + i) * samples + s, 1), load(logits, i * samples + s, 1))
            most = choose_positive(logit - most, logit, most)
        total, along = zeros(1), zeros(1)
        for i in range(bins):
            logit = choose_positive(ended, load(logits, (bins + i) * samples + s, 1), load(logits, i * samples + s, 1))
            power = exponential(logit - most)
            store(dlogits, i * samples + s, power)
            total = total + power
        for i in range(bins):
            logit = choose_positive(ended, load(logits, (bins + i) * samples + s, 1), load(logits, i * samples + s, 1))
            w = one
            if i > 0:
                w = smallest(w, (x - values[i - 1]) * (real(1.0) / (values[i] - values[i - 1])))
            if i + 1 < bins:
                w = smallest(w, (zeros(1) + values[i + 1] - x) * (real(1.0) / (values[i + 1] - values[i])))
            w = where_positive(w, w) + broken
            along = fma(w, logit, along)
            d = load(dlogits, i * samples + s, 1) / total - w
            store(dlogits, i * samples + s, choose_positive(ended, zeros(1), d))
            store(dlogits, (bins + i) * samples + s, where_positive(ended, d))
        store(of_reward, s, most + logarithm(total) - along)
        logit = load(logits, 2 * bins * samples + s, 1)
        e = exponential(zeros(1) - magnitude(logit))
        share = one / (one + e)
        goes_on = choose_positive(logit, share, e * share)
        store(dlogits, 2 * bins * samples + s, choose_positive(ended, goes_on, goes_on - one))
        store(of_end, s, where_positive(logit, logit) - choose_positive(ended, zeros(1), logit) + logarithm(one + e))


@kernel
def _outcomes_backward(bins, rows, samples, dreward, dend, dlogits, found):
    dreward, dend = view(dreward, np.float32), view(dend, np.float32)
    dlogits, found = view(dlogits, np.float32), view(found, np.float32)
    for r in range(rows):
        for s in range(0, samples, WIDTH):
            place = r * samples + s
            if r < 2 * bins:
                store(found, place, load(dreward, s, 1) * load(dlogits, place, 1))
            elif r == 2 * bins:
                store(found, place, load(dend, s, 1) * load(dlogits, place, 1))
            else:
                store(found, place, zeros(1))


class OutcomeLosses(torch.autograd.Function):
    """training.world_model.outcome_losses: of the reward and of the end (S) [nat], see world_model.TwoHot.

    logits: (rows, S), of the reward's bins if the episode goes on, if it ended in a fall, and of its going on; what
    follows in it means nothing; reward, terminated: (S); values: (bins), rising; scale: by which rewards are
    multiplied. S: a whole number of WIDTH.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, reward: Tensor, terminated: Tensor, values: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return the losses."""
        logits, reward, terminated = (x.contiguous() for x in (logits, reward, terminated))
        bins, samples = len(values), logits.shape[-1]
        of_reward, of_end = torch.empty(samples), torch.empty(samples)
        dlogits = torch.empty_like(logits)
        tensors = logits, reward, terminated, torch.full((1,), scale), values, of_reward, of_end, dlogits
        launch(_outcomes, bins, samples, *tensors)
        ctx.save_for_backward(dlogits)
        ctx.bins = bins
        return of_reward, of_end

    @staticmethod
    def backward(ctx: Any, dreward: Tensor, dend: Tensor) -> tuple:
        """Return the gradient of the logits."""
        (dlogits,) = ctx.saved_tensors
        found = torch.empty_like(dlogits)
        samples = dlogits.shape[-1]
        along = dreward.contiguous(), dend.contiguous()
        launch(_outcomes_backward, ctx.bins, dlogits.numel() // samples, samples, *along, dlogits, found)
        return found, None, None, None, None


@kernel
def _mean(count, share, x, y):
    share, x, y = view(share, np.float32)[0], view(x, np.float32), view(y, np.float32)
    total = 0.0
    for i in range(count):
        total += x[i]
    y[0] = share * real(total / count)


@kernel
def _mean_backward(count, share, dy, dx):
    share, dy, dx = view(share, np.float32)[0], view(dy, np.float32)[0], view(dx, np.float32)
    for i in range(count):
        dx[i] = share * dy / real(count)


class Mean(torch.autograd.Function):
    """The mean of numbers (S), times a share: a scalar."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float) -> Tensor:
        """Return it."""
        x = x.contiguous()
        y = torch.empty(())
        share = torch.full((1,), share)
        launch(_mean, x.numel(), share, x, y)
        ctx.save_for_backward(share)
        ctx.count = x.numel()
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        """Return the gradient of the numbers."""
        (share,) = ctx.saved_tensors
        dx = torch.empty(ctx.count)
        launch(_mean_backward, ctx.count, share, dy.contiguous(), dx)
        return dx, None
