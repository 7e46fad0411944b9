"""Training of the world model on sequences of real rollouts."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import fused
from training import distributed
from training.gradient import write_gradient
from training.graph import record
from training.optimizer import Adam, Average, flatten, weighted_sum
from training.parallel import side_by_side
from training.replay import Replay, Sequences
from world_model import Course, StateSpaceModel, probabilities


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p || q) (S) [nat] of probabilities (sides, groups, classes, S)."""
    return (p * (p.log() - q.log())).sum((0, 1, 2))


def latent_losses(model: StateSpaceModel, prior: Tensor, posterior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the dynamics and the representation loss (S) [nat], and the divergence itself, of logits (sides, Z, S).

    Hafner et al., 2023, eq. 5: the one teaches the prior to expect the posterior, the other the posterior to be
    expected.
    """
    free = model.cfg.free_nats
    if model.use_fused and prior.device.type == "cpu":
        n = prior.shape[-1]
        if n % fused.WIDTH:
            prior, posterior = (F.pad(x, (0, -n % fused.WIDTH)) for x in (prior, posterior))
        found = fused.run(fused.LatentLosses)(prior, posterior, model.groups, free)
        return tuple(x[:n] for x in found)
    prior, posterior = (probabilities(x, model.groups) for x in (prior, posterior))
    kl = divergence(posterior, prior)
    return (
        divergence(posterior.detach(), prior).clamp(min=free),
        divergence(posterior, prior.detach()).clamp(min=free),
        kl.detach(),
    )


def overshooting_weights(steps: int, decay: float) -> Tensor:
    """Return decay^k of k = 0, 1, ..., normalised to a sum of 1, (steps)."""
    weights = decay ** torch.arange(steps, dtype=torch.float32)
    return weights / weights.sum()


def observation_loss(model: StateSpaceModel, latents: Tensor, target: Tensor) -> Tensor:
    """Return the loss (S) [nat] of what latents (sides, D + Z, S) say of observations.

    target: (sides, rows, S), the observations, standardised, from both sides.
    """
    share = 0.5 * model.cfg.decode / model.sides
    y = model.decoder(latents)
    if model.compiled(target) and not target.shape[-1] % fused.WIDTH:
        return fused.run(fused.Squares)(y, target, share)
    return share * (y - target).square().sum((0, 1))


def outcome_losses(model: StateSpaceModel, deter: Tensor, reward: Tensor, terminated: Tensor) -> dict[str, Tensor]:
    """Return the losses (S) [nat] of what deterministic states (sides, D, S) say of the way to them.

    reward, terminated: (S), the rewards and falls on that way.
    """
    if model.compiled(reward) and not len(reward) % fused.WIDTH:
        rows = model.outcome_rows(deter)
        scale = model.cfg.reward_scale
        of_reward, of_end = fused.run(fused.OutcomeLosses)(rows, reward, terminated, model.two_hot.values, scale)
        return {"reward": of_reward, "done": of_end}
    outcome = model.predict_outcome(deter)
    logits = torch.where(terminated[:, None] > 0.0, outcome.over, outcome.on)
    return {
        "reward": model.two_hot.loss(logits, reward * model.cfg.reward_scale),
        "done": F.binary_cross_entropy_with_logits(outcome.goes_on, 1.0 - terminated, reduction="none"),
    }


class Chance:
    """Random numbers, uniform in [0, 1), in memory that is allocated once."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.memory = torch.empty(0, device=device)

    def draw(self, *shape: int) -> Tensor:
        """Return numbers (*shape), which the next call overwrites."""
        size = math.prod(shape)
        if size > len(self.memory):
            self.memory = self.memory.new_empty(size)
        return self.memory[:size].uniform_(generator=self.generator).view(shape)


def world_model_losses(
    model: StateSpaceModel, s: Sequences, chances: Tensor
) -> tuple[dict[str, tuple[Tensor, float]], Course, Tensor]:
    """Return the losses (S) of sequences with their shares, how they were understood, and the target of the decoder.

    chances: (1 + sides groups, S), uniform in [0, 1): of what is not shown, and of the latents. The surprise, without
    gradients, is no loss.
    """
    cfg = model.cfg
    compiled = model.compiled(s.reward) and not s.reward.numel() % fused.WIDTH
    masked = fused.run(fused.Masked) if compiled else torch.mul
    obs = s.obs.flatten(0, 1)
    target = model.both_sides(obs)
    shown = fused.at_least(chances[0], cfg.mask) if compiled else (chances[0] >= cfg.mask).float()
    noise = chances[1:].view(model.sides, model.groups, -1)
    course = model.sequence(s.latent, s.action.flatten(0, 1), s.keep, noise, masked(model.see(obs), shown))
    prior = model.prior_logits(model.prior(masked(course.follows, s.keep.flatten())))
    dynamics, representation, surprise = latent_losses(model, prior, course.logits)
    came = outcome_losses(model, course.follows, s.reward.flatten(), s.terminated.flatten())
    losses = {
        "dynamics": (dynamics, cfg.dynamics),
        "representation": (representation, cfg.representation),
        "decode": (observation_loss(model, course.latents, target), 1.0),
        "surprise": (surprise, 1.0),
    } | {name: (x, 1.0) for name, x in came.items()}
    return losses, course, target


def world_model_loss(
    model: StateSpaceModel, s: Sequences, chance: Chance, weights: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Return the loss, metrics and the latents (sides, D + Z, S) of sequences.

    weights: (K) of predictions over 1, 2, ... K steps, by overshooting_weights.
    """
    chances = chance.draw(1 + model.sides * model.groups, s.reward.numel())
    losses, course, target = world_model_losses(model, s, chances)
    parts = {name: share * x.mean() for name, (x, share) in losses.items()}
    surprise = parts.pop("surprise")
    if weights is not None:
        parts["overshoot"] = overshooting_loss(model, s, course, target, weights, chance)
    loss = torch.stack(list(parts.values())).sum()
    parts["surprise"] = surprise
    return loss, {f"world_{name}": x.detach() for name, x in parts.items()}, course.latents.detach()


class Recorded:
    """The gradient of sequences of one shape, as a program of compiled calls; see training/gradient.Recorded."""

    def __init__(
        self, model: StateSpaceModel, replay: Replay, places: Tensor, length: int, parameters: list[Tensor]
    ) -> None:
        self.model = model
        self.replay = replay
        self.length = length  # rollouts in a sequence
        self.parameters = parameters
        self.places = places.clone()
        samples = len(places) * length * replay.steps
        self.chances = torch.empty(1 + model.sides * model.groups, samples)
        self.vector = torch.zeros(sum(p.numel() for p in parameters))
        self.program = record(self._by_tape, self.vector.device)

    def _by_tape(self) -> None:
        s = self.replay.read(self.places, self.length)
        with fused.Tape() as tape:
            losses, course, _ = world_model_losses(self.model, s, self.chances)
            self.metrics = {f"world_{name}": fused.run(fused.Mean)(x, share) for name, (x, share) in losses.items()}
        self.latents = course.latents
        found = [(x, 1.0) for name, x in self.metrics.items() if name != "world_surprise"]
        write_gradient(tape, found, self.parameters, self.vector)

    def __call__(self, places: Tensor, chance: Chance) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the gradient, one vector, metrics and latents of sequences; the next call overwrites them."""
        self.places.copy_(places)
        self.chances.uniform_(generator=chance.generator)
        self.program.replay()
        return self.vector, self.metrics, self.latents


def overshooting_loss(
    model: StateSpaceModel, s: Sequences, course: Course, target: Tensor, weights: Tensor, chance: Chance
) -> Tensor:
    """Return the loss of unseen predictions over K steps from every K-th latent (Hafner et al., 2019, section 4)."""
    k = len(weights)
    (steps, robots) = s.reward.shape
    starts = (steps - 1) // k
    if not starts:
        return target.new_zeros(())

    def following(x: Tensor) -> Tensor:  # (..., T B) to (..., K starts B): what follows each start, step by step
        parts = x.unflatten(-1, (steps, robots))[..., 1 : 1 + k * starts, :].unflatten(-2, (starts, k))
        return parts.transpose(-3, -2).flatten(-3)

    begin = course.latents.unflatten(-1, (steps, robots))[..., : k * starts : k, :].flatten(-2).float()
    keep, reward, terminated = (following(x.flatten()) for x in (s.keep, s.reward, s.terminated))
    together = keep.view(k, -1).cumprod(0)  # still in the same episode
    reached = torch.cat((torch.ones_like(together[:1]), together[:-1]))  # up to the action
    ahead = model.sequence(
        begin,
        following(s.action.flatten(0, 1).T).T,
        torch.ones_like(together),
        chance.draw(model.sides, model.groups, keep.numel()),
    )
    dynamics, _, _ = latent_losses(model, ahead.logits, following(course.logits).detach())
    seen = model.cfg.dynamics * dynamics + observation_loss(model, ahead.latents, following(target))
    came = sum(outcome_losses(model, ahead.follows, reward, terminated).values())
    return (weights[:, None] * (together * seen.view(k, -1) + reached * came.view(k, -1))).sum(0).mean()


class WorldModelTrainer:
    """Fits a StateSpaceModel to sequences from a replay buffer, a part of a batch in every thread."""

    largest_gradient = 10.0  # norm above which it is scaled down

    def __init__(self, model: StateSpaceModel, replay: Replay, seed: int, threads: int = 1) -> None:
        self.model = model
        self.cfg = model.cfg
        self.replay = replay
        self.parameters = list(model.parameters())
        self.flat = flatten(self.parameters)
        self.total = torch.empty_like(self.flat, requires_grad=False)  # gradient of all threads
        self.optimizer = Adam(self.flat, learning_rate=self.cfg.learning_rate)
        count = min(threads, max(1, self.cfg.batch // distributed.size()))
        first = distributed.rank() * count
        self.chances = [Chance(replay.device, seed + 7919 * (first + i)) for i in range(count)]
        self.weights = (
            overshooting_weights(self.cfg.overshoot, self.cfg.overshoot_decay).to(replay.device)
            if self.cfg.overshoot
            else None
        )
        self.recorded: dict[tuple[Chance, int], Recorded] = {}  # of every thread, by the rollouts of a sequence
        self.skipped = 0  # updates whose gradient was not finite
        self.average = Average(self.flat, self.cfg.average)
        self.learnt = self.flat.detach().clone()  # what is averaged: but while it learns, the model is the average

    def warm_up(self) -> None:
        """Have everything compiled, leaving no trace."""
        m = self.model
        device = self.replay.device
        if self.is_recordable():
            places = torch.zeros(self.part(), 2, dtype=torch.int64)
            found = Recorded(m, self.replay, places, 1, self.parameters)
            self.replay.refresh(places, found.latents)  # of rollouts that are not there: nothing
            weighted_sum([found.vector], [1.0])
            return
        sizes = (m.num_actions,), (m.num_all,), (), (), ()
        nothing = Sequences(m.initial_latent(1), *(torch.zeros(2, 1, *size, device=device) for size in sizes))
        torch.autograd.grad(world_model_loss(m, nothing, Chance(device, 0), self.weights)[0], self.parameters)

    def state(self) -> dict[str, Any]:
        """Return what training on needs beside the optimiser."""
        return {"chances": [chance.generator.get_state() for chance in self.chances], "skipped": self.skipped}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up where state() was."""
        self.skipped = state["skipped"]
        for chance, kept in zip(self.chances, state["chances"], strict=True):
            chance.generator.set_state(kept.cpu())

    def train(self) -> dict[str, float]:
        """Take the configured number of steps; return the metrics' means."""
        sums: dict[str, float] = {}
        model = self.flat.detach()
        self.average.value.copy_(model)
        model.copy_(self.learnt)
        for _ in range(self.cfg.updates):
            for name, x in self.step().items():
                sums[name] = sums.get(name, 0.0) + x / self.cfg.updates
            self.average.follow(float(self.optimizer.moments()[0]["step"]))
        self.learnt.copy_(model)
        model.copy_(self.average.value)
        return sums | {"world_skipped": float(self.skipped)}

    def step(self) -> dict[str, float]:
        """Take one step on a batch, and store its latents anew; return its metrics."""
        results = side_by_side(self.gradient, self.chances)
        n = len(results) * distributed.size()
        gradient, metrics = distributed.all_reduce(
            weighted_sum([result[0] for result in results], [1.0 / n] * len(results), self.total),
            {name: sum(float(metrics[name]) for _, metrics, _ in results) / n for name in results[0][1]},
        )
        if self.optimizer.step(gradient, limit=self.largest_gradient):
            self.flat.detach().mul_(1.0 - self.cfg.learning_rate * self.cfg.weight_decay)
            for _, _, found in results:
                if found is not None:
                    self.replay.refresh(*found)
        else:
            self.skipped += 1
        return metrics

    def is_recordable(self) -> bool:
        """Return whether the gradient of a thread's part of a batch can be a program."""
        return self.weights is None and self.model.is_recordable(self.part())

    def part(self) -> int:
        """Return the samples of a batch that a thread takes."""
        return max(1, self.cfg.batch // (len(self.chances) * distributed.size()))

    def flat_gradient(self, loss: Tensor) -> Tensor:
        """Return a loss's gradient, one vector."""
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, self.parameters)])

    def gradient(self, chance: Chance) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor] | None]:
        """Return the loss's gradient, one vector, metrics, and the places and latents of the sequences it is of."""
        places = self.replay.draw(self.part(), chance.generator)
        length = self.replay.drawn()
        if not self.is_recordable():
            loss, metrics, latents = world_model_loss(
                self.model, self.replay.read(places, length), chance, self.weights
            )
            return self.flat_gradient(loss), metrics, (places, latents)
        key = chance, length
        if key not in self.recorded:
            self.recorded[key] = Recorded(self.model, self.replay, places, length, self.parameters)
        vector, metrics, latents = self.recorded[key](places, chance)
        return vector, metrics, (places, latents)
