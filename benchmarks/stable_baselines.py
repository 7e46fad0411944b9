"""The contestants of benchmarks/training.py: PPO of stable-baselines3, RecurrentPPO of sb3-contrib.

Both train on Foal's environment, stepped by Foal's kernel, on the same cores. For 1024 robots the
way through Gymnasium's and stable-baselines3's interfaces adds 0.05 ms to a step of 0.43 ms.
"""

import dataclasses
import math
from typing import Any

import physics  # noqa: F401  sets what PyTorch reads when imported  # isort: skip
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.evaluate import Evaluator, Policy
from config import NetworkCfg
from environments import registry
from environments.gymnasium import GymVectorEnv
from examples.stable_baselines3 import ACTION_LIMIT, FoalVecEnv
from host import available_cores
from training.presets import preset

NO_CRITIC_MEMORY = {"enable_critic_lstm": False}  # as in Foal; with one of its own, RecurrentPPO is a third slower


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a contestant trains.

    robots; steps of a rollout; batch: samples of a minibatch; epochs; threads of PyTorch;
    algorithm, policy: further arguments of the algorithm and of its policy.
    """

    robots: int
    steps: int
    batch: int
    epochs: int
    threads: int
    algorithm: dict[str, Any] = dataclasses.field(default_factory=dict)
    policy: dict[str, Any] = dataclasses.field(default_factory=dict)


def _foals(task: str, robots: int = 1024) -> Settings:
    """Return Foal's own hyperparameters for a task, as far as the contestants have them.

    The learning rate is the highest that Foal's adapts to.
    """
    cfg = preset(task)
    p = cfg.ppo
    algorithm = {
        "learning_rate": p.max_learning_rate, "gamma": p.gamma, "gae_lambda": p.gae_lambda, "clip_range": p.clip,
        "ent_coef": p.entropy_coefficient, "max_grad_norm": p.max_gradient_norm,
    }  # fmt: skip
    policy = {"log_std_init": math.log(cfg.network.initial_std)}
    return Settings(
        robots, p.rollout, robots * p.rollout // p.minibatches, p.epochs, available_cores(), algorithm, policy
    )


# What was tried of robots x steps, minibatch, epochs; trained thousand env steps per second on two cores, untrained
# robots, evaluations left out:
#
#     PPO            16 x 128, 64, 10   256 x 16, 256, 10   1024 x 16, 64, 10   2048, 10   4096, 10   2048, 4   2048, 1
#     2 threads      2.6                9.1                 3.2                 20.6       22.3       51.4      150
#     1 thread       3.1                8.5                                     13.5                            99
#
#     RecurrentPPO   16 x 128, 128, 10  256 x 16, 2048, 10  1024 x 16, 128, 4   2048, 10   4096, 10   2048, 4   2048, 1
#     2 threads      0.2                3.5                 1.2                 3.4                   8.4       31
#     without the critic's LSTM                                                 5.2        5.9        13        46
#     the same, 1 thread                                                                                        36
#
# Large minibatches are what makes RecurrentPPO fast: it cuts and pads every sequence of a minibatch in Python.
# The first ones' hyperparameters are the libraries' but for a minibatch of 4096, which is seven times as fast as 64;
# with batches that large, 10 epochs still are 40 updates to a rollout. The last one is as its library leaves it.
def presets(task: str) -> dict[str, tuple[bool, Settings]]:
    """Return the contestants for a task by name: whether recurrent, and settings."""
    foals = _foals(task)
    return {
        "ppo": (False, Settings(1024, 16, 4096, 10, available_cores())),
        "ppo-foal": (False, foals),
        "recurrent-ppo": (True, Settings(1024, 16, 4096, 10, available_cores(), policy=NO_CRITIC_MEMORY)),
        "recurrent-ppo-foal": (True, dataclasses.replace(foals, policy=foals.policy | NO_CRITIC_MEMORY)),
        "recurrent-ppo-default": (True, Settings(16, 128, 128, 10, available_cores())),
    }


def train_sb3(
    task: str, seed: int, recurrent: bool, settings: Settings, evaluator: Evaluator
) -> list[dict[str, float]]:
    """Train PPO or RecurrentPPO until the evaluator ends it; return its rows.

    PPO has two layers of Foal's sizes, its critic apart; RecurrentPPO has an LSTM of Foal's size and a layer.
    """
    torch.set_num_threads(settings.threads)
    env = FoalVecEnv(
        GymVectorEnv(registry.make(task, num_envs=settings.robots, threads=available_cores()), seed, ACTION_LIMIT)
    )
    sizes = NetworkCfg()
    if recurrent:
        layers = {"pi": [sizes.encoder], "vf": [sizes.critic]}
        network = {"net_arch": layers, "lstm_hidden_size": sizes.lstm, "n_lstm_layers": 1}
    else:
        network = {"net_arch": {"pi": [sizes.encoder, sizes.lstm], "vf": [sizes.critic, sizes.critic]}}
    make = RecurrentPPO if recurrent else PPO
    name = "MlpLstmPolicy" if recurrent else "MlpPolicy"
    model = make(
        name, env, n_steps=settings.steps, batch_size=settings.batch, n_epochs=settings.epochs, seed=seed, device="cpu",
        policy_kwargs=network | settings.policy, **settings.algorithm,
    )  # fmt: skip
    model.learn(10**12, callback=Clock(evaluator), log_interval=None)
    return evaluator.rows


def policy(model: BaseAlgorithm) -> Policy:
    """Return a model's deterministic policy as the evaluator takes it."""
    return Policy(lambda obs, state, starts: model.predict(obs, state, starts, deterministic=True))


class Clock(BaseCallback):
    """Tells the evaluator of every iteration; the next rollout's start is the first moment after learning."""

    def __init__(self, evaluator: Evaluator) -> None:
        super().__init__()
        self.evaluator = evaluator
        self.over = False

    def _on_training_start(self) -> None:
        self.evaluator.start()

    def _on_rollout_start(self) -> None:
        if self.num_timesteps > 0:
            self.model.policy.set_training_mode(False)
            self.over = self.evaluator.done(self.num_timesteps, policy(self.model))

    def _on_step(self) -> bool:
        return not self.over
