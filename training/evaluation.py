"""Evaluation on fresh episodes."""

import numpy as np
import torch

from entity import Creature
from environments import ABEnv

EVALUATION_SEED = 1_000_003  # evaluations start from seeds that training never uses


@torch.no_grad()
def evaluate(creature: Creature, env: ABEnv, seed: int, device: torch.device) -> dict[str, float]:
    """Run one whole episode per robot with the policy's mean actions.

    Returns episodes; survival, the share that ended by time; mean_return; episode_seconds, the
    mean length; and the mean of the task's own errors over every instant of these episodes.
    """
    belief = creature.belief
    state = env.init_state(seed)
    memory = belief.initial_state(env.num_envs)
    running = np.ones(env.num_envs, bool)
    survived = np.zeros(env.num_envs, bool)
    returns, steps = np.zeros(env.num_envs), np.zeros(env.num_envs)
    sums: dict[str, float] = {}
    while running.any():
        action, _, memory = belief.act(torch.from_numpy(state.obs).to(device), memory)
        state = env.step(action.cpu().numpy())
        ended = running & state.done
        survived |= ended & state.truncated
        returns[ended] = state.info["episode_return"][ended]
        steps[ended] = state.info["episode_steps"][ended]
        # an ended episode's errors are already the next one's
        running &= ~ended
        for name, error in env.errors().items():
            sums[name] = sums.get(name, 0.0) + float(error[running].sum())
    instants = max(float(steps.sum()) - env.num_envs, 1.0)
    result = {"episodes": env.num_envs, "survival": float(survived.mean()), "mean_return": float(returns.mean())}
    result["episode_seconds"] = float(steps.mean() * env.cfg.control_dt)
    return result | {name: total / instants for name, total in sums.items()}
