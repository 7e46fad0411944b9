"""What the world model learns from: the latest rollouts, whole."""

from typing import NamedTuple

import torch
from torch import Tensor

from environments import ABEnv
from training.rollout import Rollout
from world_model import WorldModel


class Sequences(NamedTuple):
    """T steps of B robots, and the latents before them: what was done, and what came of it."""

    latent: Tensor  # (B, size)
    action: Tensor  # (T, B, A)
    obs: Tensor  # (T, B, O + P) after the action; of the same episode, also where that ended
    reward: Tensor  # (T, B)
    terminated: Tensor  # (T, B) float, 1 where the episode ended by a fall
    keep: Tensor  # (T, B), 0 where the step is the first of an episode


class Replay:
    """A ring of rollouts on the device, allocated once.

    A sequence is one robot in some rollouts, one after the other; behind the robots come their mirror
    images, where the model has any: what happened to the left might have happened to the right. The
    latent before each rollout is stored, and stored anew when training passes it.

    capacity: rollouts in the ring, of ``steps`` each; length: rollouts in a sequence.
    """

    def __init__(self, env: ABEnv, model: WorldModel, capacity: int, steps: int, length: int, device: torch.device, seed: int = 0) -> None:
        self.capacity, self.steps, self.length, self.device = capacity, steps, length, device
        self.images = model.of_all, model.of_actions
        self.robots = model.of_all.sides * env.num_envs
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.count = 0  # rollouts so far
        shape = capacity, steps, self.robots
        self.latent = torch.zeros(capacity, self.robots, model.size, device=device)
        self.action = torch.zeros(*shape, env.num_actions, device=device)
        self.obs = torch.zeros(*shape, env.num_obs + env.num_privileged, device=device)
        self.reward, self.terminated, self.keep = (torch.zeros(shape, device=device) for _ in range(3))

    @torch.no_grad()
    def add(self, r: Rollout, latent: Tensor) -> Sequences:
        """Take in a rollout and the latents (robots, size) before it; return it as sequences, which the ring will overwrite."""
        i = self.count % self.capacity
        self.count += 1
        self.latent[i] = latent
        done = r.done().bool()[..., None]
        after = [torch.where(done, final, now[1:]) for final, now in ((r.final_obs, r.obs), (r.final_privileged, r.privileged))]
        n, kept = r.obs.shape[1], (self.obs, self.action, self.reward, self.terminated, self.keep)
        for x, new in zip(kept, (torch.cat(after, dim=-1), r.action, r.reward, r.terminated, 1.0 - r.starts[:-1]), strict=True):
            x[i, :, :n].copy_(new, non_blocking=True)
        if n < self.robots:
            for x, image in zip(kept, (*self.images, *[torch.nn.Identity()] * 3), strict=True):
                x[i, :, n:] = image(x[i, :, :n])
        return Sequences(self.latent[i], self.action[i], self.obs[i], self.reward[i], self.terminated[i], self.keep[i])

    def draw(self, batch: int) -> Tensor:
        """Return the places of sequences, (B, 2): number of the first rollout, and robot."""
        stored = min(self.count, self.capacity)
        starts = torch.randint(self.count - stored, self.count - self.drawn() + 1, (batch,), generator=self.generator, device=self.device)
        return torch.stack((starts, torch.randint(self.robots, (batch,), generator=self.generator, device=self.device)), dim=1)

    def drawn(self) -> int:
        """Return the rollouts of a sequence: fewer at first, when there are no more."""
        return min(self.length, self.count, self.capacity)

    def read(self, places: Tensor) -> Sequences:
        """Return the sequences at places."""
        rollouts = (places[:, :1] + torch.arange(self.drawn(), device=self.device)) % self.capacity  # (B, length)
        robots = places[:, 1:]

        def of(x: Tensor) -> Tensor:
            return x[rollouts, :, robots].flatten(1, 2).transpose(0, 1)  # (B, length, steps, ...) to (T, B, ...)

        return Sequences(self.latent[rollouts[:, 0], robots[:, 0]], *(of(x) for x in (self.action, self.obs, self.reward, self.terminated, self.keep)))

    def refresh(self, places: Tensor, latents: Tensor) -> None:
        """Store the latents (T, B, size) of sequences as those before the rollouts that follow."""
        for j, latent in enumerate(latents[self.steps - 1 :: self.steps], start=1):
            rollouts = places[:, 0] + j
            there = rollouts < self.count
            self.latent[rollouts[there] % self.capacity, places[there, 1]] = latent[there]
