"""A policy that attends to what it saw last: python simulate.py --network.policy examples.transformer:Transformer."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import NetworkCfg
from examples.mlp import layers
from policy import Policy, State

WINDOW = 8  # latest control steps that it sees


class Transformer(Policy):
    """One block of attention over the latest observations of an episode: network.heads heads, network.encoder features.

    State: the observations before this one (WINDOW - 1, O, N), and 1 for those of this episode (WINDOW - 1, N).
    """

    state_names = ("window", "known")

    def __init__(self, env: Any, cfg: NetworkCfg) -> None:
        super().__init__(env, cfg)
        size = cfg.encoder
        self.heads = cfg.heads
        self.embed = nn.Linear(env.num_obs, size)
        self.place = nn.Parameter(0.02 * torch.randn(WINDOW, size))  # of an observation in the window
        self.query = nn.Linear(size, size)
        self.keys_values = nn.Linear(size, 2 * size)
        self.mixed = nn.Linear(size, size)
        self.inner = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, 2 * size), nn.ELU(), nn.Linear(2 * size, size))
        self.action = nn.Linear(size, env.num_actions)
        self.critic = layers(env.num_obs + env.num_privileged, cfg.critic, 1)
        self.log_std = nn.Parameter(torch.full((env.num_actions,), math.log(cfg.initial_std)))
        with torch.no_grad():
            self.action.weight.mul_(0.01)

    def initial_state(self, num_envs: int) -> State:
        """Return an empty window."""
        zeros = self.log_std.new_zeros
        return zeros(WINDOW - 1, self.num_obs, num_envs), zeros(WINDOW - 1, num_envs)

    def evaluate(
        self, obs: Tensor, state: State, starts: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Return mean actions (T, N, A) and the window then."""
        window, known = state
        starts = torch.zeros_like(obs[..., 0]) if starts is None else starts
        seen = torch.cat((window.transpose(1, 2), obs))  # (WINDOW - 1 + T, N, O)
        # every start begins another episode, whose number counts on from 1, that of the state: 0 where nothing is known
        number = torch.cat((known, 1.0 + starts.cumsum(0)))  # (WINDOW - 1 + T, N)
        same = (number.unfold(0, WINDOW, 1) == number[WINDOW - 1 :, :, None]).flatten(0, 1)  # (S, WINDOW)
        x = self.embed(self.standardise(seen)).unfold(0, WINDOW, 1).flatten(0, 1).transpose(1, 2)
        x = x + self.place  # (S, WINDOW, E)
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (S, heads, 1 or WINDOW, size)
            for y in (self.query(x[:, -1:]), *self.keys_values(x).chunk(2, dim=-1))
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=same[:, None, None])
        y = x[:, -1] + self.mixed(y.flatten(1))
        known = (number[len(obs) :] == number[-1]).to(obs.dtype)
        window = (seen[len(obs) :] * known[..., None]).transpose(1, 2)
        mean = self.action(y + self.inner(y)).unflatten(0, obs.shape[:2])
        return mean, (window.detach(), known)

    def value_of(self, features: Tensor) -> Tensor:
        """Return the values (S) of standardised observations (O + P, S)."""
        return self.critic(features.T)[:, 0]
