r"""TrainingEngine: collect a trajectory, learn from it.

robots      0 ............ n-1 | n ........... 2n-1
           +-------------------+-------------------+
collect    | think move think .| think move think .|   a thread for each share of the robots: on the CPU it
           +-------------------+-------------------+   does both; with a GPU one share moves while the GPU
update     | gradient          | gradient          |   thinks for the other
           +---------+---------+---------+---------+
                      \                 /
                       sum, clip, step                 the only meeting point
"""

import time
from typing import Any

import torch
from torch import Tensor

from config import Config
from entity import Creature
from environments import ABEnv
from training import ppo
from training.parallel import side_by_side
from training.rollout import Rollout
from training.share import Experience, Share
from training.world_model import WorldModelTrainer


def flatten(parameters: list[Tensor]) -> Tensor:
    """Return one vector that holds all parameters, which become views of it: one step and one norm in place of dozens."""
    flat = torch.cat([p.detach().flatten() for p in parameters])
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.data = part.view_as(p)
    return flat.requires_grad_()


class TrainingEngine:
    """Recurrent PPO on N robots.

    A rollout stores the LSTM state before its first step; an update replays the whole sequence from
    there, forgetting the state where an episode starts, so that replayed and collected
    log-probabilities agree and nothing is padded. Minibatches are groups of robots.

    threads: shares that the robots are divided into; on the CPU each computes in one thread.
    """

    def __init__(self, env: ABEnv, creature: Creature, cfg: Config, device: torch.device, threads: int = 1) -> None:
        self.env, self.creature, self.cfg, self.device = env, creature.to(device), cfg, device
        self.belief = creature.belief
        named = list(self.belief.named_parameters())
        policy, critic = ([p for name, p in named if name.startswith("value_") == of_critic] for of_critic in (False, True))
        self.parameters = policy + critic
        self.optimizer = torch.optim.Adam([{"params": [flatten(part)]} for part in (policy, critic)], eps=1e-5, fused=True)
        self.learning_rate = cfg.ppo.learning_rate
        parts = env.split(2, threads) if device.type == "cuda" else env.split(threads, 1)
        self.shares = [Share(part, creature, cfg, device, i) for i, part in enumerate(parts)]
        self.world_model = WorldModelTrainer(creature.world_model, [share.dreamer.replay for share in self.shares]) if creature.world_model else None
        self.env_steps, self.seconds = 0, 0.0  # taken so far, spent on them
        self.world_seconds = 0.0  # of these, spent on training the world model
        self.levels = cfg.curriculum.push[0], cfg.curriculum.command[0]
        env.set_level(*self.levels)
        self.generator = torch.Generator(device="cpu").manual_seed(cfg.seed)

    def warm_up(self) -> None:
        """Have everything compiled, leaving no trace: an update of a rollout of nothing, with no step taken."""
        n = min(16, self.env.num_envs)
        obs = torch.zeros(1, n, self.env.num_obs, device=self.device)
        mean, _ = self.belief(obs, self.belief.initial_state(n))
        value = self.belief.value(obs, torch.zeros(1, n, self.env.num_privileged, device=self.device))
        torch.autograd.grad(mean.sum() + value.sum(), self.parameters, allow_unused=True)
        if self.device.type == "cuda":
            for share in self.shares:
                share.infer.record()
        self.env.init_state(self.cfg.seed)

    def state(self) -> dict[str, Any]:
        """Return what resuming needs beside the weights."""
        state = {"optimizer": self.optimizer.state_dict(), "learning_rate": self.learning_rate, "levels": self.levels}
        return state | ({"world_model": self.world_model.optimizer.state_dict()} if self.world_model else {})

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up where state() was."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.learning_rate = state["learning_rate"]
        self.levels = tuple(state["levels"])
        self.env.set_level(*self.levels)
        if self.world_model:
            self.world_model.optimizer.load_state_dict(state["world_model"])

    def collect_trajectory(self) -> list[Rollout]:
        """Act for a rollout; return the rollout of every share, which the next call overwrites."""
        side_by_side(Share.collect, self.shares)
        self.env_steps += self.cfg.ppo.rollout * self.env.num_envs
        return [share.rollout for share in self.shares]

    def train_on_trajectory(self) -> dict[str, float]:
        """Update the creature from the latest rollout; return the metrics' means over minibatches."""
        side_by_side(Share.estimate, self.shares)
        sources, more = {"": [share.lived for share in self.shares]}, {}
        if self.world_model:
            more = self.learn_world()
            if self.dreams():
                side_by_side(lambda share: share.imagine(self.cfg.world_model.imagined // len(self.shares)), self.shares)
                if all(share.imagined is not None for share in self.shares):
                    sources["imagined_"] = [share.imagined for share in self.shares]
        metrics = self.learn_behaviour(sources) | more
        for share in self.shares:
            self.belief.observe(share.lived.obs[0], share.rollout.privileged[0].to(self.device))
        return metrics | {"learning_rate": self.learning_rate, "std": float(self.belief.std().detach().mean())}

    def learn_world(self) -> dict[str, float]:
        """Have the world model follow the rollout, and train it."""
        for share in self.shares:
            share.dreamer.remember(share.rollout)
        side_by_side(Share.follow, self.shares)
        start = time.perf_counter()
        metrics = self.world_model.train()
        self.world_seconds += time.perf_counter() - start
        return metrics

    def dreams(self) -> bool:
        """Return whether to imagine: the world model is for that and has learnt a little."""
        world = self.cfg.world_model
        return world.role == "imagination" and self.shares[0].dreamer.replay.count > world.patience

    def learn_behaviour(self, sources: dict[str, list[Experience]]) -> dict[str, float]:
        """Update policy and critic from every share's experience of each source; return the metrics' means, names beginning with the source's."""
        cfg = self.cfg.ppo
        counts = [share.env.num_envs for share in self.shares]
        minibatches = min(cfg.minibatches, *(x.value.shape[1] for source in sources.values() for x in source))
        weights = [count / sum(counts) for count in counts]
        imagined = self.cfg.world_model.weight if len(sources) > 1 else 0.0
        statistics = {name: torch.std_mean(torch.cat([x.advantage.flatten() for x in source]), correction=0) for name, source in sources.items()}
        sums: dict[str, float] = {}
        for _ in range(cfg.epochs):
            for m in torch.randperm(minibatches, generator=self.generator).tolist():
                total, kl = 0.0, 0.0
                for name, source in sources.items():
                    spread, average = statistics[name]
                    robots = [x.value.shape[1] for x in source]
                    slices = [slice(n * m // minibatches, n * (m + 1) // minibatches) for n in robots]
                    work = zip(self.shares, source, slices, strict=True)
                    results = side_by_side(lambda w: w[0].gradient(w[1], w[2], self.parameters, average, spread), list(work))  # noqa: B023
                    part = imagined if name else 1.0 - imagined
                    total = total + part * sum(w * g for w, (g, _) in zip(weights, results, strict=True))
                    for key in results[0][1]:
                        x = sum(w * float(more[key]) for w, (_, more) in zip(weights, results, strict=True))
                        sums[name + key] = sums.get(name + key, 0.0) + x / (minibatches * cfg.epochs)
                        kl += part * x if key == "kl" else 0.0
                self.step(total)
                self.learning_rate = ppo.adapt_learning_rate(self.learning_rate, kl, cfg)
        return sums

    def profile(self) -> dict[str, float]:
        """Return the seconds that went into each part so far: mean of the shares, and the rest, which is the optimiser, waiting and book-keeping."""
        parts = {name: sum(share.seconds[name] for share in self.shares) / len(self.shares) for name in self.shares[0].seconds}
        parts |= {"world": self.world_seconds} if self.world_model else {}
        return parts | {"rest": self.seconds - sum(parts.values())}

    def step(self, gradient: Tensor) -> None:
        """Step along a gradient, policy and critic clipped apart: a fall surprises the critic most, and should not still the policy.

        The critic takes longer steps: where it lags behind the policy, what it does not know yet of
        falls looks like gain (balance after 20 s: 93 and 97 instead of 67 and 76 % of episodes survived).
        """
        if not torch.isfinite(gradient).all():  # a step along a broken gradient would end the run
            return
        cfg, groups = self.cfg.ppo, self.optimizer.param_groups
        parts = gradient.split([group["params"][0].numel() for group in groups])
        for group, part, times in zip(groups, parts, (1.0, cfg.critic_rate), strict=True):
            group["params"][0].grad = part * (cfg.max_gradient_norm / part.norm().clamp(min=cfg.max_gradient_norm))
            group["lr"] = self.learning_rate * times
        self.optimizer.step()

    def grow(self, falls: float) -> None:
        """Take the curriculum a step on unless robots fall too often; falls: per 1000 control steps."""
        cfg = self.cfg.curriculum
        if falls <= cfg.falls:
            self.levels = tuple(min(level + cfg.growth, last) for level, (_, last) in zip(self.levels, (cfg.push, cfg.command), strict=True))
            self.env.set_level(*self.levels)

    def iterate(self) -> dict[str, float]:
        """Collect and learn once; return metrics, with the seconds of both."""
        start = time.perf_counter()
        rollouts = self.collect_trajectory()
        middle = time.perf_counter()
        metrics = self.train_on_trajectory()
        end = time.perf_counter()
        reward, terminated, ended, returns, steps = (
            torch.cat([x(r).flatten() for r in rollouts])
            for x in (lambda r: r.reward, lambda r: r.terminated, lambda r: r.done().bool(), lambda r: r.episode_return, lambda r: r.episode_steps)
        )
        self.grow(1000.0 * float(terminated.float().mean()))
        metrics |= {"push_level": self.levels[0], "command_level": self.levels[1]}
        metrics |= {"reward": float(reward.mean()), "falls": float(terminated.sum()), "episodes": float(ended.sum())}
        if ended.any():
            metrics |= {"return": float(returns[ended].mean()), "episode_steps": float(steps[ended].mean())}
        self.seconds += end - start
        return metrics | {"collect_seconds": middle - start, "update_seconds": end - middle}
