"""Trains PPO of stable-baselines3 on one of Foal's tasks, and says how it does before and after.

    python -m examples.stable_baselines3 [--task cartpole] [--seconds 30] [--robots 64] [--seed 0]

FoalVecEnv is all that it takes: any other algorithm of the library works on it the same way.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import physics  # noqa: F401  sets what PyTorch reads when imported  # isort: skip
import numpy as np

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize, sync_envs_normalization
except ImportError as error:
    if __name__ != "__main__":
        raise
    print(
        f"examples.stable_baselines3 needs stable-baselines3 ({error}): pip install stable-baselines3", file=sys.stderr
    )
    sys.exit(2)

from environments.gymnasium import GymVectorEnv, make_vec
from settings import ConfigError

ACTION_LIMIT = 100.0  # stable-baselines3 wants a bound where a task has none; none that a policy meets
EPISODES = 64  # of an evaluation


class FoalVecEnv(VecEnv):
    """Foal's environment as stable-baselines3 sees it.

    env: the robots, their actions bounded; staggered: whether reset() starts episodes at random ages,
    as in Foal's own training, so that they do not end all at once; not for evaluations.
    """

    def __init__(self, env: GymVectorEnv, staggered: bool = True) -> None:
        self.env = env
        self.staggered = staggered
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        # thousands of dicts made anew in every step would cost as much as the physics
        self._nothing: list[dict[str, Any]] = [{} for _ in range(env.num_envs)]

    def reset(self) -> np.ndarray:
        """Start every episode; return the first observations (N, O)."""
        obs, _ = self.env.reset(seed=self._seeds[0], options={"staggered": self.staggered})
        self._reset_seeds()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions (N, A) of the next step."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Return observations (N, O), rewards (N), dones (N) and infos, empty but of robots whose episode ended."""
        obs, rewards, terminations, truncations, infos = self.env.step(self._actions)
        dones = terminations | truncations
        told = self._nothing.copy()
        for i in np.flatnonzero(dones):
            told[i] = {"terminal_observation": infos["final_obs"][i], "TimeLimit.truncated": bool(truncations[i])}
        return obs, rewards, dones, told

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute, the same for every robot."""
        return [getattr(self.env, attr_name)] * len(self._indices(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of all robots."""
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method, once for all robots."""
        return [getattr(self.env, method_name)(*method_args, **method_kwargs)] * len(self._indices(indices))

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Return that no robot is wrapped."""
        return [False] * len(self._indices(indices))

    def _indices(self, indices: Any) -> Sequence[int]:
        return range(self.num_envs) if indices is None else np.atleast_1d(indices)


def robots(task: str, count: int, staggered: bool = True) -> FoalVecEnv:
    """Return count robots of a task."""
    return FoalVecEnv(make_vec(task, num_envs=count, action_limit=ACTION_LIMIT), staggered)


def learner(task: str, count: int = 64, seed: int = 0) -> PPO:
    """Return an untrained PPO for a task, with settings that learn cart-pole within 70,000 steps; count: robots."""
    # angles of 0.01 rad and returns of 100 are not what networks learn best
    env = VecNormalize(robots(task, count))
    return PPO("MlpPolicy", env, n_steps=64, batch_size=8 * count, learning_rate=1e-3, seed=seed, device="cpu")


def evaluate(model: PPO, task: str) -> tuple[float, float]:
    """Return mean length [control steps] and return of fresh episodes, played without noise."""
    env = VecNormalize(robots(task, EPISODES, staggered=False), training=False, norm_reward=False)
    sync_envs_normalization(model.get_env(), env)
    returns, lengths = evaluate_policy(model, env, EPISODES, return_episode_rewards=True, warn=False)
    return float(np.mean(lengths)), float(np.mean(returns))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print what fresh episodes are like before and after.

    Leaves with exit code 2 and one line if asked wrongly.
    """
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--task", default="cartpole", metavar="NAME", help="(default cartpole)")
    options.add_argument("--seconds", type=float, default=30.0, metavar="S", help="of training (default 30)")
    options.add_argument("--robots", type=int, default=64, metavar="N", help="that learn at a time (default 64)")
    options.add_argument("--seed", type=int, default=0, metavar="N", help="(default 0)")
    args = options.parse_args(arguments)
    if not args.seconds > 0:
        options.error(f"--seconds: expected more than 0, got {args.seconds:g}")
    try:
        model = learner(args.task, args.robots, args.seed)
    except ConfigError as error:
        options.error(str(error))
    print(f"{args.task}, {EPISODES} fresh episodes", flush=True)
    print("before:           {:6.1f} steps, return {:.2f}".format(*evaluate(model, args.task)), flush=True)
    end = time.monotonic() + args.seconds
    model.learn(10**12, callback=lambda *_: time.monotonic() < end, log_interval=None)
    print(
        "after {:5.1f} s:    {:6.1f} steps, return {:.2f}; learnt from {:,} steps".format(
            args.seconds, *evaluate(model, args.task), model.num_timesteps
        )
    )


if __name__ == "__main__":
    main()
