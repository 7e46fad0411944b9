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
from entity import BeliefState, Creature, EntityBelief
from environments import ABEnv
from training import ppo
from training.inference import Inference
from training.parallel import side_by_side
from training.rollout import Rollout
from training.world_model import WorldModelTrainer


class Share:
    """Robots that a thread moves, thinks for and learns from, with a rollout of their own."""

    def __init__(self, env: ABEnv, belief: EntityBelief, cfg: Config, device: torch.device, number: int) -> None:
        self.env, self.belief, self.cfg, self.device = env, belief, cfg, device
        self.rollout = Rollout(env, cfg.ppo.rollout, device.type == "cuda")
        self.infer = Inference(belief, env.num_envs, env.num_obs, device)
        self.begun = False
        self.generator = torch.Generator(device=device).manual_seed(cfg.seed + 7919 * number)
        self.seconds = dict.fromkeys(("move", "infer", "value", "gradient"), 0.0)  # spent on each so far

    @torch.no_grad()
    def collect(self) -> None:
        """Act for a rollout, every robot with its own noise."""
        r, device = self.rollout, self.device
        r.begin(None if self.begun else self.env.init_state(self.cfg.seed + 1, staggered=True))
        self.begun, r.state = True, self.infer.remembered()
        r.std.copy_(self.belief.std())
        noise = torch.randn(r.action.shape, generator=self.generator, device=device)
        start = time.perf_counter()
        for t in range(r.steps):
            r.action[t], r.mean[t] = self.infer(r.obs[t], r.starts[t], noise[t])  # from a GPU: waits for it
            middle = time.perf_counter()
            state = self.env.step(r.action[t].numpy(), out=r.states[t])
            r.starts[t + 1] = torch.from_numpy(state.done)
            end = time.perf_counter()
            self.seconds["infer"] += middle - start
            self.seconds["move"] += end - middle
            start = end

    @torch.no_grad()
    def estimate(self) -> None:
        """Find values, advantages and the old log-probabilities of the rollout.

        An episode ended by time goes on in truth: its last reward is followed by the value of its
        final observation. One that ended in a fall is followed by nothing.
        """
        r, cfg, device, start = self.rollout, self.cfg.ppo, self.device, time.perf_counter()
        self.obs, self.starts, self.action, self.mean, self.std = (x.to(device, non_blocking=True) for x in (r.obs, r.starts, r.action, r.mean, r.std))
        everything = torch.cat((self.obs, r.privileged.to(device, non_blocking=True)), dim=-1)
        features = self.belief.value_features(everything.flatten(0, 1), self.belief.normaliser, self.belief.dtype)  # (sides, rows, S)
        values = self.belief.value_of(features).unflatten(0, everything.shape[:2])
        self.features = features.unflatten(-1, everything.shape[:2])[:, :, :-1]  # (sides, rows, T, N)
        self.value, next_value = values[:-1], values[1:].clone()
        cut = r.truncated
        if cut.any():
            next_value[cut.to(device)] = self.belief.value(r.final_obs[cut].to(device), r.final_privileged[cut].to(device))
        next_value[r.terminated.to(device)] = 0.0
        self.advantage = ppo.generalised_advantages(r.reward.to(device), self.value, next_value, r.done().to(device), cfg.gamma, cfg.gae_lambda)
        self.returns = self.advantage + self.value
        self.seconds["value"] += time.perf_counter() - start

    def gradient(self, robots: slice, parameters: list[Tensor], average: Tensor, spread: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss's gradient of some of the robots, one vector, and metrics; advantages are normalised by average and spread."""
        cfg, memory, start = self.cfg.ppo, self.rollout.state, time.perf_counter()
        obs, starts = self.obs[:-1, robots], self.starts[:-1, robots]
        action, mean, returns = (x[:, robots] for x in (self.action, self.mean, self.returns))
        advantage = (self.advantage[:, robots] - average) / (spread + 1e-8)
        new_mean, _ = self.belief(obs, BeliefState(memory.hidden[..., robots], memory.cell[..., robots]), starts)
        new_value = self.belief.value_of(self.features[..., robots].flatten(2)).view_as(returns)
        std = self.belief.std()
        actor, clipped, kl = ppo.policy_loss(new_mean, std, action, mean, self.std, advantage, cfg.clip)
        critic, bonus = 0.5 * (new_value - returns).square().mean(), ppo.entropy(std)
        loss = actor + critic - cfg.entropy_coefficient * bonus
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        metrics = {"policy_loss": actor, "value_loss": critic, "entropy": bonus, "clip_fraction": clipped, "kl": kl}
        self.seconds["gradient"] += time.perf_counter() - start
        return gradient, {key: x.detach() for key, x in metrics.items()}


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
        self.world_model = WorldModelTrainer(creature.world_model, cfg.world_model) if creature.world_model else None
        parts = env.split(2, threads) if device.type == "cuda" else env.split(threads, 1)
        self.shares = [Share(part, self.belief, cfg, device, i) for i, part in enumerate(parts)]
        self.env_steps, self.seconds = 0, 0.0  # taken so far, spent on them
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
        cfg = self.cfg.ppo
        side_by_side(Share.estimate, self.shares)
        spread, average = torch.std_mean(torch.cat([share.advantage.flatten() for share in self.shares]), correction=0)
        counts = [share.env.num_envs for share in self.shares]
        minibatches = min(cfg.minibatches, *counts)
        weights = [count / sum(counts) for count in counts]
        sums: dict[str, float] = {}
        for _ in range(cfg.epochs):
            for m in torch.randperm(minibatches, generator=self.generator).tolist():

                def gradient(i: int, m: int = m) -> tuple[Tensor, dict[str, Tensor]]:
                    robots = slice(counts[i] * m // minibatches, counts[i] * (m + 1) // minibatches)
                    return self.shares[i].gradient(robots, self.parameters, average, spread)

                results = side_by_side(gradient, range(len(counts)))
                self.step(sum(w * g for w, (g, _) in zip(weights, results, strict=True)))
                metrics = {key: sum(w * float(more[key]) for w, (_, more) in zip(weights, results, strict=True)) for key in results[0][1]}
                self.learning_rate = ppo.adapt_learning_rate(self.learning_rate, metrics["kl"], cfg)
                for key, x in metrics.items():
                    sums[key] = sums.get(key, 0.0) + x / (minibatches * cfg.epochs)
        result = sums | {"learning_rate": self.learning_rate, "std": float(self.belief.std().detach().mean())}
        for share in self.shares:
            self.belief.observe(share.obs[0], share.rollout.privileged[0].to(self.device))
            if self.world_model:
                result |= self.world_model.train_on_trajectory(share.rollout, self.device)
        return result

    def profile(self) -> dict[str, float]:
        """Return the seconds that went into each part so far: mean of the shares, and the rest, which is the optimiser, waiting and book-keeping."""
        parts = {name: sum(share.seconds[name] for share in self.shares) / len(self.shares) for name in self.shares[0].seconds}
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
