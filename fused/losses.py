"""PPO's losses in compiled code, what they read of the policy, and what the policy draws from the distribution."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fused.memory import view
from fused.program import launch
from physics.jit import kernel, real
from physics.spatial import exp

_ENTROPY = real(0.5 * math.log(2.0 * math.pi * math.e))  # of a normal distribution of deviation 1 [nat]


@kernel
def _deviation(actions, log_std, pairs, limits, std):
    log_std, pairs, limits, std = (
        view(log_std, np.float32),
        view(pairs, np.int64),
        view(limits, np.float32),
        view(std, np.float32),
    )
    for a in range(actions):
        std[a] = np.exp(min(max(log_std[pairs[a]], limits[0]), limits[1]))


@kernel
def _deviation_backward(actions, rows, log_std, pairs, limits, std, dstd, dlog_std):
    log_std, pairs, limits = view(log_std, np.float32), view(pairs, np.int64), view(limits, np.float32)
    std, dstd, dlog_std = view(std, np.float32), view(dstd, np.float32), view(dlog_std, np.float32)
    for r in range(rows):
        dlog_std[r] = real(0.0)
    for a in range(actions):
        r = pairs[a]
        if limits[0] <= log_std[r] <= limits[1]:
            dlog_std[r] += std[a] * dstd[a]


class Deviation(torch.autograd.Function):
    """EntityBelief.std: the standard deviation of the actions (A), of log_std (A / sides) within limits (2).

    pairs: (A), int64, whose log_std an action has.
    """

    @staticmethod
    def forward(ctx: Any, log_std: Tensor, pairs: Tensor, limits: Tensor) -> Tensor:
        """Return the deviations."""
        std = torch.empty(len(pairs))
        launch(_deviation, len(pairs), log_std, pairs, limits, std)
        ctx.save_for_backward(log_std, pairs, limits, std)
        return std

    @staticmethod
    def backward(ctx: Any, dstd: Tensor) -> tuple:
        """Return the gradient of log_std."""
        log_std, pairs, limits, std = ctx.saved_tensors
        dlog_std = torch.empty_like(log_std)
        tensors = log_std, pairs, limits, std, dstd.contiguous(), dlog_std
        launch(_deviation_backward, len(pairs), len(log_std), *tensors)
        return dlog_std, None, None


@kernel
def _draw(samples, actions, mean, std, noise, bound, action, within):
    mean, std, noise, bound = (
        view(mean, np.float32),
        view(std, np.float32),
        view(noise, np.float32),
        view(bound, np.float32)[0],
    )
    action, within = view(action, np.float32), view(within, np.float32)
    for s in range(samples):
        for a in range(actions):
            i = s * actions + a
            y = mean[i]
            z = y + std[a] * noise[i]
            if bound > real(0.0):
                y, z = bound * np.tanh(y / bound), bound * np.tanh(z / bound)
            within[i], action[i] = y, z


def drawn(mean: Tensor, std: Tensor, noise: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Return actions and mean ones (S, A) within a bound (1), 0 for none, of means and standard normal noise (S, A)."""
    action = torch.empty(mean.shape)
    within = torch.empty(mean.shape)
    launch(_draw, *mean.shape, mean, std, noise, bound, action, within)
    return action, within


@kernel
def _policy_loss(samples, actions, action, old_mean, old_std, advantage, mean, std, clip, dmean, dstd, sums):
    """Find the means, over samples, of: the surrogate, negated; whether it was clipped; the divergence.

    dmean, dstd: the gradients of the first.
    """
    action, old_mean, old_std, advantage = (
        view(action, np.float32),
        view(old_mean, np.float32),
        view(old_std, np.float32),
        view(advantage, np.float32),
    )
    mean, std, clip, dmean, dstd, sums = (
        view(mean, np.float32),
        view(std, np.float32),
        view(clip, np.float32)[0],
        view(dmean, np.float32),
        view(dstd, np.float32),
        view(sums, np.float32),
    )
    one = real(1.0)
    share = one / real(samples)
    log_std_ratio = real(0.0)  # sum_a ln(std_old / std)
    wider = real(0.0)  # sum_a of its share of the divergence
    per_old, per_std = np.empty(actions, real), np.empty(actions, real)
    for a in range(actions):
        per_old[a], per_std[a] = one / old_std[a], one / std[a]
        ratio = old_std[a] * per_std[a]
        log_std_ratio += np.log(ratio)
        wider += real(0.5) * (ratio * ratio - one)
        dstd[a] = real(0.0)
    surrogate, outside, divergence = real(0.0), real(0.0), real(0.0)
    for n in range(samples):
        change, kl, first = log_std_ratio, wider - log_std_ratio, n * actions
        for a in range(actions):
            i = first + a
            old, z = (action[i] - old_mean[i]) * per_old[a], (action[i] - mean[i]) * per_std[a]
            change += real(0.5) * (old * old - z * z)
            moved = (old_mean[i] - mean[i]) * per_std[a]
            kl += real(0.5) * moved * moved
        ratio, gain = exp(change), advantage[n]
        clipped = min(max(ratio, one - clip), one + clip)
        free = not ratio * gain > clipped * gain  # what is not a number shows in the gradient
        surrogate += min(ratio * gain, clipped * gain)
        outside += one if abs(ratio - one) > clip else real(0.0)
        divergence += kl
        slope = -share * ratio * gain if free else real(0.0)  # of the loss by the log-probability
        for a in range(actions):
            i = first + a
            z = (action[i] - mean[i]) * per_std[a]
            dmean[i] = slope * z * per_std[a]
            dstd[a] += slope * (z * z - one) * per_std[a]
    sums[0], sums[1], sums[2] = -share * surrogate, share * outside, share * divergence


@kernel
def _scaled(count, factor, x, y):
    """Set y to x times a factor."""
    factor, x, y = view(factor, np.float32)[0], view(x, np.float32), view(y, np.float32)
    for i in range(count):
        y[i] = factor * x[i]


class PolicyLoss(torch.autograd.Function):
    """ppo.policy_loss on the CPU: loss, share of clipped ratios and divergence.

    action, old_mean, mean: (T, N, A); old_std, std: (A); advantage: (T, N). The loss alone has gradients, of mean
    and std.
    """

    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        std: Tensor,
        action: Tensor,
        old_mean: Tensor,
        old_std: Tensor,
        advantage: Tensor,
        clip: float,
    ) -> tuple:
        """Return three scalars."""
        mean, action, old_mean, advantage = (x.contiguous() for x in (mean, action, old_mean, advantage))
        dmean = torch.empty_like(mean)
        dstd = torch.empty_like(std)
        sums = torch.empty(3)
        tensors = action, old_mean, old_std, advantage, mean, std, torch.full((1,), clip), dmean, dstd, sums
        launch(_policy_loss, advantage.numel(), len(std), *tensors)
        ctx.save_for_backward(dmean, dstd)
        loss, clipped, kl = sums.unbind()
        ctx.mark_non_differentiable(clipped, kl)
        return loss, clipped, kl

    @staticmethod
    def backward(ctx: Any, dloss: Tensor, *_: Tensor) -> tuple:
        """Return the gradients of mean and std."""
        found = []
        for x in ctx.saved_tensors:
            found.append(torch.empty_like(x))
            launch(_scaled, x.numel(), dloss, x, found[-1])
        return *found, None, None, None, None, None


@kernel
def _value_loss(samples, value, returns, loss):
    value, returns, loss = view(value, np.float32), view(returns, np.float32), view(loss, np.float32)
    total = 0.0
    for s in range(samples):
        error = value[s] - returns[s]
        total += error * error
    loss[0] = 0.5 * total / samples


@kernel
def _value_loss_backward(samples, dloss, value, returns, dvalue):
    value, returns, dvalue = view(value, np.float32), view(returns, np.float32), view(dvalue, np.float32)
    share = view(dloss, np.float32)[0] / real(samples)
    for s in range(samples):
        dvalue[s] = share * (value[s] - returns[s])


class ValueLoss(torch.autograd.Function):
    """ppo.value_loss on the CPU, of values, which alone have a gradient, and returns (B)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, returns: Tensor) -> Tensor:
        """Return a scalar."""
        value, returns = value.contiguous(), returns.contiguous()
        loss = torch.empty(())
        launch(_value_loss, value.numel(), value, returns, loss)
        ctx.save_for_backward(value, returns)
        return loss

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple:
        """Return the gradient of the values."""
        value, returns = ctx.saved_tensors
        dvalue = torch.empty_like(value)
        launch(_value_loss_backward, value.numel(), dloss, value, returns, dvalue)
        return dvalue, None


@kernel
def _entropy(actions, std, entropy):
    std, entropy = view(std, np.float32), view(entropy, np.float32)
    entropy[0] = real(0.0)
    for a in range(actions):
        entropy[0] += np.log(std[a]) + _ENTROPY


@kernel
def _entropy_backward(actions, dentropy, std, dstd):
    share, std, dstd = view(dentropy, np.float32)[0], view(std, np.float32), view(dstd, np.float32)
    for a in range(actions):
        dstd[a] = share / std[a]


class Entropy(torch.autograd.Function):
    """ppo.entropy on the CPU, of standard deviations (A)."""

    @staticmethod
    def forward(ctx: Any, std: Tensor) -> Tensor:
        """Return a scalar [nat]."""
        std = std.contiguous()
        entropy = torch.empty(())
        launch(_entropy, len(std), std, entropy)
        ctx.save_for_backward(std)
        return entropy

    @staticmethod
    def backward(ctx: Any, dentropy: Tensor) -> Tensor:
        """Return the gradient of the deviations."""
        (std,) = ctx.saved_tensors
        dstd = torch.empty_like(std)
        launch(_entropy_backward, len(std), dentropy, std, dstd)
        return dstd


@kernel
def _advantages(steps, n, gamma, lam, reward, value, next_value, done, advantage):
    reward, value, next_value, done, advantage = (
        view(reward, np.float32),
        view(value, np.float32),
        view(next_value, np.float32),
        view(done, np.float32),
        view(advantage, np.float32),
    )
    gamma, decay = real(gamma), real(gamma * lam)
    last = (steps - 1) * n
    for i in range(last, last + n):
        advantage[i] = reward[i] + gamma * next_value[i] - value[i]
    for i in range(last - 1, -1, -1):
        delta = reward[i] + gamma * next_value[i] - value[i]
        advantage[i] = delta + decay * (real(1.0) - done[i]) * advantage[i + n]


@kernel
def _estimates(steps, n, scale, gamma, lam, reward, value, final, terminated, truncated, advantage, returns):
    reward, value, final = view(reward, np.float32), view(value, np.float32), view(final, np.float32)
    terminated, truncated = view(terminated, np.uint8), view(truncated, np.uint8)
    advantage, returns = view(advantage, np.float32), view(returns, np.float32)
    for i in range(n * steps - 1, -1, -1):
        later = value[i + n]
        goes_on = real(1.0)
        if truncated[i]:
            later, goes_on = final[i], real(0.0)
        if terminated[i]:
            later, goes_on = real(0.0), real(0.0)
        delta = real(scale) * reward[i] + real(gamma) * later - value[i]
        following = advantage[i + n] if i + n < n * steps else real(0.0)
        advantage[i] = delta + real(gamma * lam) * goes_on * following
        returns[i] = value[i] + advantage[i]


def estimates(
    reward: Tensor,
    value: Tensor,
    final: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    scale: float,
    gamma: float,
    lam: float,
) -> tuple[Tensor, Tensor]:
    """Return what training.ppo.estimates does, on the CPU."""
    parts = [x.contiguous() for x in (reward, value, final, terminated, truncated)]
    if len(value) != len(reward) + 1 or any(x.shape[1:] != reward.shape[1:] for x in parts):
        raise ValueError(f"estimates: expected values of one step more than {tuple(reward.shape)}")
    advantage, returns = torch.empty(2, *reward.shape).unbind()
    _estimates(*reward.shape, scale, gamma, lam, *(x.data_ptr() for x in (*parts, advantage, returns)))
    return advantage, returns


def advantages(
    reward: Tensor, value: Tensor, next_value: Tensor, done: Tensor, gamma: float, lam: float, advantage: Tensor
) -> Tensor:
    """Return training.ppo.generalised_advantages in advantage; all (T, N), float32.

    Some dozens of calls of PyTorch take 0.1 us of a robot's step, most of it waiting for the lock of Python.
    """
    parts = [x.contiguous() for x in (reward, value, next_value, done)]
    if any(x.shape != reward.shape or x.dtype != torch.float32 for x in (*parts, advantage)):
        raise ValueError(f"advantages: expected float32 tensors of shape {tuple(reward.shape)}")
    _advantages(*reward.shape, gamma, lam, *(x.data_ptr() for x in (*parts, advantage)))
    return advantage
