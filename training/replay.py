"""What the world model learns from: the latest rollouts, whole."""

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fused
from environments import ABEnv
from settings import ConfigError
from training.parallel import side_by_side
from training.rollout import Rollout

SOON = 12  # control steps: what comes before a fall


class Sequences(NamedTuple):
    """T steps of B robots, and the latents before them: what was done, and what came of it."""

    latent: Tensor  # (sides, D + Z, B)
    action: Tensor  # (T, B, A)
    obs: Tensor  # (T, B, O + P) after the action; where an episode ended, the next one's first
    reward: Tensor  # (T, B)
    terminated: Tensor  # (T, B) float, 1 where the action led to a fall
    keep: Tensor  # (T, B), 0 where the episode ended with the action


class Transitions(NamedTuple):
    """B steps, each by itself."""

    before: Tensor  # (B, O + P)
    action: Tensor  # (B, A)
    after: Tensor  # (B, O + P), of the same episode where keep is 1
    reward: Tensor  # (B)
    terminated: Tensor  # (B) float, 1 where the action led to a fall
    keep: Tensor  # (B), 0 where the episode ended with the action


def before_falls(terminated: Tensor, keep: Tensor) -> Tensor:
    """Return (T, N) bool: whether an episode ended in a fall with this step, or goes on to one soon.

    terminated, keep: (T, N), as of Sequences.
    """
    fell = terminated > 0.0
    soon = fell
    for _ in range(SOON - 1):
        soon = fell | torch.cat((soon[1:] & (keep[:-1] > 0.0), fell[-1:]))
    return soon


class Replay:
    """A ring of rollouts on the device, allocated once.

    A sequence is one robot in some rollouts, one after the other. The latent before each rollout is
    stored, and stored anew when training passes it.

    latent: shape (L, F) of a robot's; capacity: rollouts in the ring, of ``steps`` each; length: rollouts in a
    sequence.
    """

    def __init__(
        self, env: ABEnv, latent: tuple[int, ...], capacity: int, steps: int, length: int, device: torch.device
    ) -> None:
        self.capacity = capacity
        self.steps = steps
        self.length = length
        self.robots = env.num_envs
        self.device = device
        self.count = 0  # rollouts so far
        shape = steps, self.robots
        self.names: list[str] = []  # of the tensors that it holds
        self.hold("latent", *latent, self.robots)
        self.hold("action", *shape, env.num_actions)
        self.hold("obs", *shape, env.num_obs + env.num_privileged)
        for name in ("reward", "terminated", "keep"):
            self.hold(name, *shape)

    def hold(self, name: str, *shape: int) -> None:
        """Have room for a tensor of each rollout."""
        self.names.append(name)
        setattr(self, name, torch.zeros(self.capacity, *shape, device=self.device))

    def state(self) -> dict[str, Any]:
        """Return all that it holds, tensors not copied."""
        return {"count": self.count} | {name: getattr(self, name) for name in self.names}

    def load_state(self, state: dict[str, Any]) -> None:
        """Hold what state() returned; raise ConfigError if it counts less than nothing."""
        if state["count"] < 0:
            raise ConfigError(f"replay.count: expected at least 0, got {state['count']}")
        self.count = state["count"]
        for name, x in self.state().items():
            if name != "count":
                x.copy_(state[name])

    @torch.no_grad()
    def add(self, rollouts: list[Rollout], latent: Tensor) -> Sequences:
        """Take in a rollout of groups of robots; return it as sequences, which the ring will overwrite.

        latent: (sides, D + Z, N), the robots' before the rollout.
        """
        i = self.count % self.capacity
        self.count += 1
        self.latent[i] = latent
        seen = rollouts[0].obs.shape[-1]
        ends = list(itertools.accumulate(r.reward.shape[1] for r in rollouts))

        def take(part: tuple[Rollout, int]) -> None:
            r, end = part
            n = slice(end - r.reward.shape[1], end)
            for x, new in (  # pinned, where this is a GPU: nobody waits
                (self.obs[..., :seen], r.obs[1:]),
                (self.obs[..., seen:], r.privileged[1:]),
                (self.action, r.action),
                (self.reward, r.reward),
                (self.terminated, r.terminated),
                (self.keep, 1.0 - r.starts[1:]),
            ):
                x[i, :, n].copy_(new, non_blocking=True)

        side_by_side(take, list(zip(rollouts, ends, strict=True)))
        return Sequences(
            self.latent[i], *(x[i] for x in (self.action, self.obs, self.reward, self.terminated, self.keep))
        )

    def randint(self, low: int, high: int, count: int, generator: torch.Generator) -> Tensor:
        """Return whole numbers (count), at least low and less than high."""
        return torch.randint(low, high, (count,), generator=generator, device=self.device)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return the places of sequences, (B, 2): number of the first rollout, and robot."""
        stored = min(self.count, self.capacity)
        starts = self.randint(self.count - stored, self.count - self.drawn() + 1, batch, generator)
        return torch.stack((starts, self.randint(0, self.robots, batch, generator)), dim=1)

    def in_order(self, x: Tensor) -> Tensor:
        """Return what is stored, (capacity, steps, ...), step by step, the oldest first, (T, ...)."""
        stored = min(self.count, self.capacity)
        return x[torch.arange(self.count - stored, self.count, device=self.device) % self.capacity].flatten(0, 1)

    def dangerous(self) -> Tensor:
        """Return the places (M, 2) of steps that led to a fall, or would soon: step, the oldest first, and robot."""
        return torch.nonzero(before_falls(self.in_order(self.terminated), self.in_order(self.keep)))

    def transitions(self, batch: int, generator: torch.Generator, share: float, dangerous: Tensor) -> Transitions:
        """Return steps drawn by chance, but for a share that is drawn from places by dangerous()."""
        stored = min(self.count, self.capacity)
        n = self.randint(0, self.robots, batch, generator)
        t = self.randint(0, stored * self.steps, batch, generator)
        some = round(share * batch) if len(dangerous) else 0
        t[:some], n[:some] = dangerous[self.randint(0, len(dangerous), some, generator)].T if some else (t[:0], n[:0])
        i = (self.count - stored + t // self.steps) % self.capacity
        t = t % self.steps
        first = self.latent[i, 0, :, n][:, : self.obs.shape[-1]]
        before = torch.where(t[:, None] > 0, self.obs[i, t - 1, n], first)
        of = self.action, self.obs, self.reward, self.terminated, self.keep
        return Transitions(before, *(x[i, t, n] for x in of))

    def drawn(self) -> int:
        """Return the rollouts of a sequence: fewer at first, when there are no more."""
        return min(self.length, self.count, self.capacity)

    def read(self, places: Tensor, length: int | None = None) -> Sequences:
        """Return the sequences at places, of so many rollouts each, None for as many as drawn() says."""
        length = length or self.drawn()
        stored = self.action, self.obs, self.reward, self.terminated, self.keep
        if self.device.type == "cpu":
            rows = self.latent.flatten(1, 2)  # (capacity, L F, robots): as so many steps
            latent = fused.read_sequences(rows, places, 1).unflatten(0, self.latent.shape[1:3])
            return Sequences(latent, *(fused.read_sequences(x, places, length) for x in stored))
        rollouts = (places[:, :1] + torch.arange(length, device=self.device)) % self.capacity  # (B, length)
        robots = places[:, 1:]
        latent = self.latent[rollouts[:, 0], :, :, robots[:, 0]].permute(1, 2, 0)

        def of(x: Tensor) -> Tensor:
            return x[rollouts, :, robots].flatten(1, 2).transpose(0, 1)  # (B, length, steps, ...) to (T, B, ...)

        return Sequences(latent, *(of(x) for x in stored))

    def refresh(self, places: Tensor, latents: Tensor) -> None:
        """Store the latents (sides, D + Z, T B) of sequences as those before the rollouts that follow."""
        if self.device.type == "cpu" and not len(places) % fused.WIDTH:
            fused.write_latents(self.latent, latents, places, self.steps, self.count)
            return
        for j, latent in enumerate(
            latents.unflatten(-1, (-1, len(places))).unbind(2)[self.steps - 1 :: self.steps], start=1
        ):
            rollouts = places[:, 0] + j
            there = rollouts < self.count
            self.latent[rollouts[there] % self.capacity, :, :, places[there, 1]] = (
                latent[..., there].permute(2, 0, 1).float()
            )
