"""The divergence of two beliefs about categorical variables in compiled code, and its gradients with it.

p = 0.99 softmax(l) + 0.01 / classes of the posterior's logits, q of the prior's
KL = sum p ln(p / q);  dKL/dp = ln(p / q) + 1,  dKL/dq = -p / q;  dl = 0.99 s (d - sum s d), s the softmax
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fused.categorical import UNIFORM, softmax
from fused.memory import scratch, view
from fused.registers import WIDTH
from fused.vectors import fma, load, logarithm, store, zeros
from physics.jit import kernel, real


@kernel
def _divergence(variables, classes, samples, posterior, prior, kl, dposterior, dprior, work):
    posterior, prior, kl = view(posterior, np.float32), view(prior, np.float32), view(kl, np.float32)
    dposterior, dprior, work = view(dposterior, np.float32), view(dprior, np.float32), view(work, np.float32)
    mixed, even = real(1.0 - UNIFORM), zeros(1) + real(UNIFORM) / real(classes)
    size = classes * WIDTH
    for s in range(0, samples, WIDTH):
        total = zeros(1)
        for g in range(variables):
            softmax(classes, samples, s, posterior, g * classes, work, -s, WIDTH)
            softmax(classes, samples, s, prior, g * classes, work, size - s, WIDTH)
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
        kl = torch.empty(samples)
        dposterior, dprior = (torch.empty(sides, size, samples) for _ in range(2))
        addresses = [x.data_ptr() for x in (posterior, prior, kl, dposterior, dprior)]
        _divergence(sides * groups, classes, samples, *addresses, scratch("divergence", 4 * classes * WIDTH))
        ctx.save_for_backward(kl, dposterior, dprior)
        ctx.free_nats = free_nats
        ctx.mark_non_differentiable(kl)
        return kl.clamp(min=free_nats), kl.clamp(min=free_nats), kl

    @staticmethod
    def backward(ctx: Any, ddynamics: Tensor, drepresentation: Tensor, _: Tensor) -> tuple:
        """Return the gradients of prior and posterior."""
        kl, dposterior, dprior = ctx.saved_tensors
        teaches = kl >= ctx.free_nats
        return dprior * (ddynamics * teaches), dposterior * (drepresentation * teaches), None, None
