"""Training of the world model on sequences that the policy lived through."""

import torch
from torch import Tensor
from torch.nn import functional as F

from entity import WorldModel
from training.parallel import side_by_side
from training.replay import Replay, Sequences


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p || q) (B) [nat] of probabilities (B, groups, classes)."""
    return (p * (p.log() - q.log())).sum((-2, -1))


def latent_losses(prior: Tensor, posterior: Tensor, free_nats: float) -> tuple[Tensor, Tensor]:
    """Return the dynamics and the representation loss (B) [nat] (Hafner et al., 2023, eq. 5), of probabilities (B, groups, classes).

    The one teaches the prior to expect the posterior, the other the posterior to be expected.
    """
    return divergence(posterior.detach(), prior).clamp(min=free_nats), divergence(posterior, prior.detach()).clamp(min=free_nats)


def overshooting_weights(steps: int, decay: float) -> Tensor:
    """Return decay^k of k = 0, 1, ..., normalised to a sum of 1, (steps)."""
    weights = decay ** torch.arange(steps, dtype=torch.float32)
    return weights / weights.sum()


def prediction_losses(model: WorldModel, latent: Tensor, target: Tensor, reward: Tensor, terminated: Tensor) -> dict[str, Tensor]:
    """Return the losses (B) [nat] of what latents (B, size) say of observations, standardised (B, O + P), rewards (B) and falls (B)."""
    return {
        "decode": 0.5 * (model.decoder(latent) - target).square().sum(-1),
        "reward": model.two_hot.loss(model.reward(torch.cat((latent, terminated[..., None]), dim=-1)), reward * model.cfg.reward_scale),
        "done": F.binary_cross_entropy_with_logits(model.goes_on(latent)[..., 0], 1.0 - terminated, reduction="none"),
    }


def world_model_loss(
    model: WorldModel, s: Sequences, weights: Tensor | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Return the loss, metrics and the latents (T, B, size) of sequences.

    weights: (K) of predictions over 1, 2, ... K steps, by overshooting_weights.
    """
    cfg = model.cfg
    target = model.standardise(s.obs)
    noise = torch.rand(*s.reward.shape, cfg.groups, generator=generator, device=target.device)
    shown = torch.rand(s.reward.shape, generator=generator, device=target.device) >= cfg.mask
    latents, logits = model.observe(s.latent, s.action, shown[..., None] * model.encoder(target[..., : model.seen]), s.keep, noise)
    prior, posterior = model.probs(model.prior(latents[..., : cfg.deter])), model.probs(logits)
    dynamics, representation = latent_losses(prior, posterior, cfg.free_nats)
    parts = {"dynamics": cfg.dynamics * dynamics, "representation": cfg.representation * representation}
    parts |= prediction_losses(model, latents, target, s.reward, s.terminated)
    parts = {name: x.mean() for name, x in parts.items()}
    if weights is not None:
        parts["overshoot"] = overshooting_loss(model, s, latents, posterior, target, weights, generator)
    loss = torch.stack(list(parts.values())).sum()
    return loss, {f"world_{name}": x.detach() for name, x in parts.items()} | {"world_surprise": divergence(posterior, prior).mean().detach()}, latents.detach()


def overshooting_loss(
    model: WorldModel, s: Sequences, latents: Tensor, posterior: Tensor, target: Tensor, weights: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Return what predictions over K steps lose, unseen, starting from every K-th latent (Hafner et al., 2019, section 4)."""
    k, steps = len(weights), len(s.action)
    starts = range(0, steps - k, k)
    if not starts:
        return latents.new_zeros(())

    def step(x: Tensor, j: int) -> Tensor:
        return x[1:][j : j + k * len(starts) : k]  # what follows j steps after each start's next

    latent, together, total = latents[: k * len(starts) : k], 1.0, 0.0
    for j, weight in enumerate(weights):
        together = together * step(s.keep, j)  # still in the same episode
        noise = torch.rand(*latent.shape[:-1], model.cfg.groups, generator=generator, device=latent.device)
        latent, prior = model.predict(latent, step(s.action, j), noise)
        dynamics = divergence(step(posterior, j).detach(), prior).clamp(min=model.cfg.free_nats)
        losses = prediction_losses(model, latent, step(target, j), step(s.reward, j), step(s.terminated, j))
        total = total + weight * (together * (model.cfg.dynamics * dynamics + sum(losses.values()))).mean()
    return total


class WorldModelTrainer:
    """Fits a WorldModel to sequences from replay buffers, of each a part of a batch in a thread of its own."""

    def __init__(self, model: WorldModel, replays: list[Replay]) -> None:
        self.model, self.cfg, self.replays = model, model.cfg, replays
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.cfg.learning_rate, eps=1e-5)
        device = self.parameters[0].device
        self.weights = overshooting_weights(self.cfg.overshoot, self.cfg.overshoot_decay).to(device) if self.cfg.overshoot else None
        self.skipped = 0  # updates whose gradient was not finite

    def train(self) -> dict[str, float]:
        """Take the configured number of steps; return the metrics' means."""
        sums: dict[str, float] = {}
        for _ in range(self.cfg.updates):
            for name, x in self.step().items():
                sums[name] = sums.get(name, 0.0) + x / self.cfg.updates
        return sums | {"world_skipped": float(self.skipped)}

    def step(self) -> dict[str, float]:
        """Take one step on a batch; return its metrics."""
        results = side_by_side(self.gradient, self.replays)
        n = len(results)
        for p, *grads in zip(self.parameters, *(g for g, _ in results), strict=True):
            p.grad = sum(grads) / n
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 10.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            self.skipped += 1
        return {name: sum(float(metrics[name]) for _, metrics in results) / n for name in results[0][1]}

    def gradient(self, replay: Replay) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the gradient of the loss on sequences, and metrics; store the latents anew."""
        places = replay.draw(max(1, self.cfg.batch // len(self.replays)))
        s = replay.read(places)
        loss, metrics, latents = world_model_loss(self.model, s, self.weights, replay.generator)
        gradient = torch.autograd.grad(loss, self.parameters)
        replay.refresh(places, latents)
        return gradient, metrics
