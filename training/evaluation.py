"""Evaluation on fresh episodes."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from entity import Creature
from environments import ABEnv, EnvState
from training import distributed
from training.parallel import in_vain, side_by_side

Onlooker = Callable[[ABEnv, EnvState], None]  # called with robots after every control step, and before the first
EVALUATION_SEED = 1_000_003  # evaluations start from seeds that training never uses


def reaches(result: dict[str, float], survival: float, targets: dict[str, tuple[float, float]]) -> bool:
    """Return whether an evaluation is good enough for the task to count as learnt.

    survival: the least there must be; targets: ABEnv.targets, bounds on what else the task asks.
    """
    return result["survival"] >= survival and all(low <= result[name] <= high for name, (low, high) in targets.items())


def nearness(result: dict[str, float], survival: float, targets: dict[str, tuple[float, float]]) -> float:
    """Return how near an evaluation is to what reaches() asks.

    1 if it does, else the share of what it is farthest from.
    """
    shares = [result["survival"] / max(survival, 1e-9)]
    for name, (low, high) in targets.items():
        value = result[name]
        shares.append(
            value / low
            if value < low and low > 0
            else high / value
            if value > high > 0
            else float(low <= value <= high)
        )
    return min(1.0, *shares)


def target(survival: float, targets: dict[str, tuple[float, float]]) -> str:
    """Return what reaches() asks, in words."""

    def bound(low: float, high: float) -> str:
        if high == math.inf:
            return f"at least {low:g}"
        return f"at most {high:g}" if low in (0.0, -math.inf) else f"between {low:g} and {high:g}"

    return f"{survival:.0%} survival" + "".join(
        f", {name.replace('_', ' ')} {bound(*bounds)}" for name, bounds in targets.items()
    )


def evaluate(
    creature: Creature, env: ABEnv, seed: int, device: torch.device, threads: int = 1, onlooker: Onlooker | None = None
) -> dict[str, float]:
    """Run one whole episode per robot with the policy's mean actions.

    env: this process's robots, where there are others; told is what became of all. threads: parts of the robots, each
    in a thread of its own. onlooker: told of the first part.

    Returns episodes; survival, the share that ended by time; mean_return; episode_seconds, the
    mean length; the means of what the task tallies of whole episodes; and the mean of the task's own
    errors over every instant of these episodes.
    """
    parts = env.split(threads) if threads > 1 else [env]
    mine = side_by_side(
        lambda part: run_episodes(creature, part, seed, device, onlooker if part is parts[0] else None), parts
    )
    episodes = [part for found in distributed.all_gather(mine) for part in found]
    survived, returns, steps = (
        np.concatenate(arrays)
        for arrays in zip(*((e["survived"], e["returns"], e["steps"]) for e in episodes), strict=True)
    )
    instants = max(float(steps.sum()) - len(steps), 1.0)
    result = {"episodes": len(steps), "survival": float(survived.mean()), "mean_return": float(returns.mean())}
    result["episode_seconds"] = float(steps.mean() * env.cfg.ctrl_dt)
    result |= {name: float(np.mean(np.concatenate([e["tallies"][name] for e in episodes]))) for name in env.tallies}
    return result | {name: sum(e["errors"][name] for e in episodes) / instants for name in episodes[0]["errors"]}


@torch.no_grad()
def run_episodes(
    creature: Creature, env: ABEnv, seed: int, device: torch.device, onlooker: Onlooker | None = None
) -> dict[str, Any]:
    """Return what became of one episode per robot.

    survived, returns, steps and tallies: (N) each; errors: each one's sum over all instants but the last.
    """
    state = env.init_state(seed)
    memory = creature.initial_state(env.num_envs)
    running = np.ones(env.num_envs, bool)
    survived = np.zeros(env.num_envs, bool)
    returns = np.zeros(env.num_envs)
    steps = np.zeros(env.num_envs)
    tallies = {name: np.zeros(env.num_envs) for name in env.tallies}
    sums: dict[str, float] = {}
    if onlooker:
        onlooker(env, state)
    while running.any() and not in_vain():
        action, _, memory = creature.act(torch.from_numpy(state.obs).to(device), memory)
        state = env.step(action.cpu().numpy())
        if onlooker:
            onlooker(env, state)
        ended = running & state.done
        survived |= ended & state.truncated
        returns[ended] = state.info["episode_return"][ended]
        steps[ended] = state.info["episode_steps"][ended]
        for name, tally in tallies.items():
            tally[ended] = state.info[f"episode_{name}"][ended]
        # an ended episode's errors are already the next one's
        running &= ~ended
        for name, error in env.errors().items():
            sums[name] = sums.get(name, 0.0) + float(error[running].sum())
    return {"survived": survived, "returns": returns, "steps": steps, "tallies": tallies, "errors": sums}
