"""Proximal policy optimisation (Schulman et al., 2017) as free functions of tensors."""

import math

import torch
from torch import Tensor

import fused
from config import PPOCfg


def generalised_advantages(
    reward: Tensor, value: Tensor, next_value: Tensor, done: Tensor, gamma: float, lam: float
) -> Tensor:
    """Return advantages (T, N) by generalised advantage estimation (Schulman et al., 2016, eq. 16).

    reward, value, done: (T, N); next_value: (T, N), the value of the observation that followed, 0
    where the episode ended in a fall and the final observation's where it ended by time.
    """
    advantage = torch.empty_like(reward)
    if reward.device.type == "cpu" and reward.dtype == torch.float32:
        return fused.advantages(reward, value, next_value, done, gamma, lam, advantage)
    last = torch.zeros_like(reward[0])
    # TD error: delta_t = r_t + gamma V(s_t+1) - V(s_t)
    delta = reward + gamma * next_value - value
    # A_t = delta_t + gamma lambda (1 - done_t) A_t+1
    decay = gamma * lam * (1.0 - done)
    for t in reversed(range(len(reward))):
        last = torch.addcmul(delta[t], decay[t], last, out=advantage[t])
    return advantage


def estimates(
    reward: Tensor, value: Tensor, final: Tensor, terminated: Tensor, truncated: Tensor, cfg: PPOCfg
) -> tuple[Tensor, Tensor]:
    """Return advantages and what values should have been, (T, N), of a rollout.

    An episode ended by time goes on in truth: its last reward is followed by the value of its final observation. One
    that ended in a fall is followed by nothing.

    value: (T + 1, N); final: (T, N), that value where an episode was ended by time, anything elsewhere.
    """
    scale, gamma, lam = cfg.reward_scale, cfg.gamma, cfg.gae_lambda
    if reward.device.type == "cpu" and reward.dtype == torch.float32:
        return fused.estimates(reward, value, final, terminated, truncated, scale, gamma, lam)
    following = torch.where(truncated, final, value[1:]).masked_fill(terminated, 0.0)
    done = (terminated | truncated).to(reward.dtype)
    advantage = generalised_advantages(scale * reward, value[:-1], following, done, gamma, lam)
    return advantage, value[:-1] + advantage


def gaussian_log_prob(action: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the log-probability (B) of actions (B, A) under independent normal distributions."""
    z = (action - mean) / std
    return -0.5 * (z * z).sum(-1) - std.log().sum(-1) - 0.5 * math.log(2 * math.pi) * action.shape[-1]


def gaussian_kl(mean: Tensor, std: Tensor, new_mean: Tensor, new_std: Tensor) -> Tensor:
    """Return the divergence KL(old || new) of independent normal distributions, (B) [nat]."""
    ratio = std / new_std
    z = (mean - new_mean) / new_std
    return 0.5 * (ratio * ratio + z * z - 1.0 - 2.0 * ratio.log()).sum(-1)


def policy_loss(
    mean: Tensor, std: Tensor, action: Tensor, old_mean: Tensor, old_std: Tensor, advantage: Tensor, clip: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the clipped surrogate loss, negated, the share of clipped ratios, and the divergence.

    Schulman et al., 2017, eq. 7.

    mean, action, old_mean: (T, N, A); std, old_std: (A); advantage: (T, N).
    """
    if mean.device.type == "cpu":
        return fused.run(fused.PolicyLoss)(mean, std, action, old_mean, old_std, advantage, clip)
    return plain_policy_loss(mean, std, action, old_mean, old_std, advantage, clip)


def plain_policy_loss(
    mean: Tensor, std: Tensor, action: Tensor, old_mean: Tensor, old_std: Tensor, advantage: Tensor, clip: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what policy_loss does, in plain PyTorch."""
    ratio = (gaussian_log_prob(action, mean, std) - gaussian_log_prob(action, old_mean, old_std)).exp()
    loss = -torch.min(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage).mean()
    clipped = ((ratio - 1.0).abs() > clip).float().mean()
    return loss, clipped.detach(), gaussian_kl(old_mean, old_std, mean.detach(), std.detach()).mean()


def value_loss(value: Tensor, returns: Tensor) -> Tensor:
    """Return half the mean squared error of values (B)."""
    if value.device.type == "cpu":
        return fused.run(fused.ValueLoss)(value, returns)
    return 0.5 * (value - returns).square().mean()


def entropy(std: Tensor) -> Tensor:
    """Return the entropy of independent normal distributions [nat]; std: (A)."""
    if std.device.type == "cpu":
        return fused.run(fused.Entropy)(std)
    return (std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def adapt_learning_rate(rate: float, kl: float, cfg: PPOCfg) -> float:
    """Return the learning rate that keeps the divergence of an update near its target."""
    return fused.adapted_rate.py_func(rate, kl, cfg.target_kl, cfg.min_learning_rate, cfg.max_learning_rate)
