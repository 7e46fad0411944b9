"""Ensemble: a world model of networks that know one step, each by itself."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fused
from config import WorldModelCfg
from observation import Moments, Normaliser, Reflection, change_over
from world_model import Course, Linear, Normed, WorldModel

MIN_REWARD_STD = 1e-4


class Member(nn.Module):
    """What follows from an action where all is seen, by two perceptrons that know the mirror.

    x, y: observations before and after it, sums and differences of both sides (sides, rows, S), standardised; a:
    actions (sides, rows of actions, S); hidden: features of a side.
    """

    def __init__(self, sides: int, rows: int, action_rows: int, hidden: int) -> None:
        super().__init__()
        self.dynamics = nn.Sequential(Normed(sides, hidden, rows + action_rows), Normed(sides, hidden, hidden))
        self.change = Linear(sides, rows, hidden)
        # one number each, filled up to what compiled code takes
        self.goes_on = Linear(sides, fused.ROWS, hidden)
        few = max(hidden // 4, 1)  # of steps not learnt from 0.59 of rewards' variance was explained, by as many 0.56
        self.outcome = nn.Sequential(
            Normed(sides, few, 2 * rows + action_rows), Normed(sides, few, few), Linear(sides, fused.ROWS, few)
        )
        with torch.no_grad():  # at first hardly anything changes
            self.change.weight.mul_(0.1)

    def forward(self, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return the change of the sides (sides, rows, S), and the logit (S) of the episode going on."""
        hidden = self.dynamics(torch.cat((x, a), 1))
        return self.change(hidden), self.goes_on(hidden)[:, 0].mean(0)

    def reward(self, x: Tensor, a: Tensor, y: Tensor) -> Tensor:
        """Return the reward (S), standardised, of a step that the episode goes on with."""
        return self.outcome(torch.cat((x, a, y), 1))[:, 0].mean(0)


class Seen(NamedTuple):
    """What a rollout of S steps tells of the world's scale."""

    obs: Moments  # (O + P)
    reward: Moments  # (1), of steps that the episode went on with
    fall: Moments  # (1), of rewards of falls
    low: Tensor  # (O + P + 1), of observations and reward, the least
    high: Tensor  # (O + P + 1)

    def to(self, device: torch.device | str) -> "Seen":
        """Return it on a device."""
        return Seen(*(x.to(device) for x in self))


class Ensemble(WorldModel):
    """Networks that each learn one step from samples of their own (Chua et al., 2018).

    The latent is what is observed, what only the simulator knows included: nothing is remembered. Behind it stand
    the reward of the step to it and the logit of the episode going on with that step: (1, O + P + 2, N).

    By noise every sample takes one member's word, another's at every step; without, all members' mean. What is
    expected stays within what was ever seen: a member that runs off takes the critic with it. A fall is worth what
    falls were worth so far, any other step what the members make of all that is seen before and after it.
    """

    def __init__(
        self, num_obs: int, num_actions: int, cfg: WorldModelCfg, num_privileged: int = 0, body: Any = None
    ) -> None:
        super().__init__(num_obs, num_actions, cfg, num_privileged, body)
        self.latent_shape = 1, self.num_all + 2
        sizes = self.sides, self.all_features.rows, self.action_features.rows, self.half("hidden")
        self.members = nn.ModuleList(Member(*sizes) for _ in range(cfg.members))
        self.reward_scale, self.fall_scale = (Normaliser(Reflection(1, None), MIN_REWARD_STD) for _ in range(2))
        for name in ("low", "high"):
            self.register_buffer(name, torch.zeros(self.num_all + 1))

    # Scales

    def scales(self, obs: Tensor, reward: Tensor, terminated: Tensor) -> Seen:
        """Return what S steps tell of the world's scale; see WorldModel."""
        fell = terminated > 0.0
        on, over = (Moments.of(reward[which][:, None]) for which in (~fell, fell))
        seen = torch.cat((torch.cat((obs, self.of_all(obs))), reward.repeat(2)[:, None]), dim=-1)
        return Seen(self.normaliser.moments(obs), on, over, seen.amin(0), seen.amax(0))

    def learn_scale(self, seen: Seen) -> None:
        """Take in what scales() returned."""
        pairs = (self.normaliser, seen.obs), (self.reward_scale, seen.reward), (self.fall_scale, seen.fall)
        for normaliser, moments in pairs:
            if moments.count:
                normaliser.take(moments)
        torch.minimum(self.low, seen.low, out=self.low)
        torch.maximum(self.high, seen.high, out=self.high)

    # A step

    def inputs(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return observations (S, O + P) and actions (S, A) as columns of sums and differences, float32."""
        return (
            self.all_features.columns(self.standardise(obs), torch.float32),
            self.action_features.columns(action, torch.float32),
        )

    def after(self, member: Member, obs: Tensor, action: Tensor) -> Tensor:
        """Return what a member expects after actions (S, A): observation, reward and logit, (S, O + P + 2)."""
        x, a = self.inputs(obs, action)
        change, goes_on = member(x.to(self.dtype), a.to(self.dtype))
        y = (change_over(x) + change)[:, : self.num_all]
        if self.sides == 2:
            y = 0.5 * (y[0] + y[1][self.of_all.columns] * self.of_all.signs[:, None])
        y = self.standardise(self.raw(y.reshape(self.num_all, -1).T).clamp(self.low[:-1], self.high[:-1]))
        seen = x, a, self.all_features.columns(y, torch.float32)
        reward = member.reward(*(z.to(self.dtype) for z in seen)) / self.reward_scale.scale + self.reward_scale.mean
        reward = torch.lerp(self.fall_scale.mean, reward.clamp(self.low[-1], self.high[-1]), goes_on.sigmoid())
        return torch.cat((self.raw(y), reward[:, None], goes_on[:, None]), dim=-1)

    def step(self, obs: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        """Return what is expected after actions, (S, O + P + 2); noise: (S)."""
        if noise is None:
            return torch.stack([self.after(member, obs, action) for member in self.members]).mean(0)
        after = obs.new_empty(len(obs), self.num_all + 2)
        chosen = (noise * len(self.members)).long()
        for i, member in enumerate(self.members):
            (which,) = torch.nonzero(chosen == i, as_tuple=True)
            after[which] = self.after(member, obs[which], action[which])
        return after

    @torch.no_grad()
    def disagreement(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return how far members differ about what is observed after actions, (S) [standard deviations].

        The root of the variance over members, of the mean over what is observed (Pathak et al., 2019, eq. 1).
        """
        expected = torch.stack([self.after(member, obs, action)[:, :-2] for member in self.members])
        expected = self.standardise(expected)
        return expected.var(0, correction=0).mean(-1).sqrt()

    # As of every world model

    def noise(self, columns: int, generator: torch.Generator | None = None) -> Tensor:
        """Return what each sample's member is chosen by, (S)."""
        return torch.rand(columns, generator=generator, device=self.normaliser.mean.device)

    def first(self, obs: Tensor) -> Tensor:
        """Return latents of observations (N, O + P), after which nothing came yet, (1, O + P + 2, N)."""
        return F.pad(obs, (0, 2)).T[None]

    def see(self, obs: Tensor) -> Tensor:
        """Return observations (S, O + P) as columns (O + P, S)."""
        return obs.T

    def sequence(
        self, latent: Tensor, action: Tensor, keep: Tensor, noise: Tensor | None, evidence: Tensor | None = None
    ) -> Course:
        """Go through T steps of N robots; see WorldModel."""
        n = keep.shape[1]
        latent = latent[0].T
        follows = []
        latents = []
        for t, kept in enumerate(keep):
            now = slice(t * n, (t + 1) * n)
            after = self.step(latent[:, : self.num_all], action[now], None if noise is None else noise[now])
            latent = after * kept[:, None]
            if evidence is not None:
                latent = torch.cat((evidence[:, now].T, latent[:, self.num_all :]), dim=-1)
            follows.append(after)
            latents.append(latent)
        latents, follows = (torch.cat(x).T[None] for x in (latents, follows))
        return Course(latents, follows, None, latent.detach().T[None])

    def decode_all(self, latents: Tensor) -> Tensor:
        """Return observations, with what only the simulator knows behind them, (S, O + P)."""
        return latents[0, : self.num_all].T

    def way(self, latents: Tensor) -> Tensor:
        """Return reward and logit, (1, 2, S)."""
        return latents[:, self.num_all :]

    def outcomes(self, way: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected reward (S) and the logit (S) of the episode going on; see WorldModel."""
        return way[0].unbind()
