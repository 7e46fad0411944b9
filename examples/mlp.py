"""A policy without memory, of plain layers: python simulate.py --network.policy examples.mlp:MLP."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from config import NetworkCfg
from policy import Policy, State


def layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return two hidden layers and a linear one."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ELU(), nn.Linear(hidden, hidden), nn.ELU(), nn.Linear(hidden, outputs)
    )


class MLP(Policy):
    """Actor and critic, two hidden layers each, of network.encoder and network.critic features."""

    def __init__(self, env: Any, cfg: NetworkCfg) -> None:
        super().__init__(env, cfg)
        self.actor = layers(env.num_obs, cfg.encoder, env.num_actions)
        self.critic = layers(env.num_obs + env.num_privileged, cfg.critic, 1)
        self.log_std = nn.Parameter(torch.full((env.num_actions,), math.log(cfg.initial_std)))
        with torch.no_grad():
            self.actor[-1].weight.mul_(0.01)  # it begins by holding still

    def evaluate(
        self, obs: Tensor, state: State, starts: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Return mean actions (T, N, A); there is no state."""
        return self.actor(self.standardise(obs)), state

    def value_of(self, features: Tensor) -> Tensor:
        """Return the values (S) of standardised observations (O + P, S)."""
        return self.critic(features.T)[:, 0]
