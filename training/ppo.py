"""Proximal policy optimisation (Schulman et al., 2017) as free functions of tensors."""

import math

import torch
from torch import Tensor

from config import PPOCfg


def generalised_advantages(reward: Tensor, value: Tensor, next_value: Tensor, done: Tensor, gamma: float, lam: float) -> Tensor:
    """Return advantages (T, N) by generalised advantage estimation (Schulman et al., 2016, eq. 16).

    reward, value, done: (T, N); next_value: (T, N), the value of the observation that followed, 0
    where the episode ended in a fall and the final observation's where it ended by time.
    """
    advantage = torch.empty_like(reward)
    last = torch.zeros_like(reward[0])
    # TD error: delta_t = r_t + gamma V(s_t+1) - V(s_t)
    delta = reward + gamma * next_value - value
    # A_t = delta_t + gamma lambda (1 - done_t) A_t+1
    decay = gamma * lam * (1.0 - done)
    for t in reversed(range(len(reward))):
        last = delta[t] + decay[t] * last
        advantage[t] = last
    return advantage


def gaussian_log_prob(action: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the log-probability (B) of actions (B, A) under independent normal distributions."""
    z = (action - mean) / std
    return -0.5 * (z * z).sum(-1) - std.log().sum(-1) - 0.5 * math.log(2 * math.pi) * action.shape[-1]


def gaussian_kl(mean: Tensor, std: Tensor, new_mean: Tensor, new_std: Tensor) -> Tensor:
    """Return the divergence KL(old || new) of independent normal distributions, (B) [nat]."""
    ratio = std / new_std
    z = (mean - new_mean) / new_std
    return 0.5 * (ratio * ratio + z * z - 1.0 - 2.0 * ratio.log()).sum(-1)


def policy_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the clipped surrogate loss (Schulman et al., 2017, eq. 7), negated."""
    ratio = (log_prob - old_log_prob).exp()
    loss = -torch.min(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage).mean()
    return loss, {"clip_fraction": ((ratio - 1.0).abs() > clip).float().mean().detach()}


def value_loss(value: Tensor, old_value: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the squared error of the value; with clip > 0 the larger one of the clipped and unclipped value's."""
    error = (value - returns).square()
    if clip > 0.0:
        clipped = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.max(error, (clipped - returns).square())
    loss = 0.5 * error.mean()
    return loss, {"value_loss": loss.detach()}


def entropy(std: Tensor) -> Tensor:
    """Return the entropy of independent normal distributions [nat]."""
    return (std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def adapt_learning_rate(rate: float, kl: float, cfg: PPOCfg) -> float:
    """Return the learning rate that keeps the divergence of an update near its target."""
    if cfg.target_kl <= 0.0:
        return rate
    if kl > 2.0 * cfg.target_kl:
        rate /= 1.5
    elif kl < 0.5 * cfg.target_kl:
        rate *= 1.5
    return min(max(rate, cfg.min_learning_rate), cfg.max_learning_rate)
