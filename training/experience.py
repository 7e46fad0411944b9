"""Experience: what an update learns from, lived or imagined, and the gradient that it gives."""

from typing import NamedTuple

import torch
from torch import Tensor

from config import PPOCfg
from entity import BeliefState, EntityBelief
from training import ppo


class Experience(NamedTuple):
    """T steps of N robots."""

    obs: Tensor  # (T, N, O)
    starts: Tensor  # (T, N), 1 where a step is the first of its episode
    memory: BeliefState  # before the first step
    action: Tensor  # (T, N, A)
    mean: Tensor  # (T, N, A)
    std: Tensor  # (A)
    features: Tensor  # (sides, rows, T, N), for the critic
    value: Tensor  # (T, N)
    advantage: Tensor  # (T, N)
    context: Tensor | None = None  # (sides, D, T, N), what the policy reads of the world model
    reached: Tensor | None = None  # (T, N), probability of having come to a step that was imagined


def values(belief: EntityBelief, everything: Tensor) -> tuple[Tensor, Tensor]:
    """Return the critic's features (sides, rows, T, N) and values (T + 1, N) of observations and privileged ones, (T + 1, N, O + P)."""
    features = belief.value_features(everything.flatten(0, 1), belief.normaliser, belief.dtype)  # (sides, rows, S)
    found = belief.value_of(features).unflatten(0, everything.shape[:2])
    return features.unflatten(-1, everything.shape[:2])[:, :, :-1], found


def gradient(
    belief: EntityBelief, cfg: PPOCfg, x: Experience, robots: slice, parameters: list[Tensor], average: Tensor, spread: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss's gradient of some of the robots, one vector, and metrics; advantages are normalised by average and spread."""
    action, mean, value, advantage = (y[:, robots] for y in (x.action, x.mean, x.value, x.advantage))
    returns, advantage = value + advantage, (advantage - average) / (spread + 1e-8)
    if x.reached is not None:
        advantage = advantage * x.reached[:, robots]
    context = None if x.context is None else x.context[..., robots]
    new_mean, _ = belief(x.obs[:, robots], BeliefState(*(y[..., robots] for y in x.memory)), x.starts[:, robots], context)
    new_value = belief.value_of(x.features[..., robots].flatten(2)).view_as(returns)
    std = belief.std()
    actor, clipped, kl = ppo.policy_loss(new_mean, std, action, mean, x.std, advantage, cfg.clip)
    critic, bonus = 0.5 * (new_value - returns).square().mean(), ppo.entropy(std)
    loss = actor + critic - cfg.entropy_coefficient * bonus
    vector = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    metrics = {"policy_loss": actor, "value_loss": critic, "entropy": bonus, "clip_fraction": clipped, "kl": kl}
    return vector, {key: y.detach() for key, y in metrics.items()}
