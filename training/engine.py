"""TrainingEngine: collect a trajectory, learn from it."""

import time
from typing import Any

import torch
from torch import Tensor

from config import Config
from entity import BeliefState, Creature
from environments import ABEnv
from training import ppo
from training.rollout import Rollout
from training.world_model import WorldModelTrainer


class TrainingEngine:
    """Recurrent PPO on N robots.

    A rollout stores the LSTM state before its first step; an update replays the whole sequence from
    there, forgetting the state where an episode starts, so that replayed and collected
    log-probabilities agree and nothing is padded. Minibatches are groups of robots.
    """

    def __init__(self, env: ABEnv, creature: Creature, cfg: Config, device: torch.device) -> None:
        self.env, self.creature, self.cfg, self.device = env, creature.to(device), cfg, device
        self.belief = creature.belief
        self.optimizer = torch.optim.Adam(self.belief.parameters(), lr=cfg.ppo.learning_rate, eps=1e-5, fused=True)
        self.learning_rate = cfg.ppo.learning_rate
        self.world_model = WorldModelTrainer(creature.world_model, cfg.world_model) if creature.world_model else None
        self.rollout = Rollout(env, cfg.ppo.rollout)
        self.memory: BeliefState | None = None
        self.env_steps = 0
        self.generator = torch.Generator(device="cpu").manual_seed(cfg.seed)

    def warm_up(self) -> None:
        """Have everything compiled, leaving no trace: an update of a rollout of nothing, with no step taken."""
        n = min(16, self.env.num_envs)
        obs = torch.zeros(1, n, self.env.num_obs, device=self.device)
        mean, _ = self.belief(obs, self.belief.initial_state(n))
        mean.sum().backward()
        self.optimizer.zero_grad(set_to_none=True)
        self.env.init_state(self.cfg.seed)

    def state(self) -> dict[str, Any]:
        """Return what resuming needs beside the weights."""
        state = {"optimizer": self.optimizer.state_dict(), "learning_rate": self.learning_rate}
        return state | ({"world_model": self.world_model.optimizer.state_dict()} if self.world_model else {})

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up where state() was."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.learning_rate = state["learning_rate"]
        if self.world_model:
            self.world_model.optimizer.load_state_dict(state["world_model"])

    @torch.no_grad()
    def collect_trajectory(self) -> Rollout:
        """Act for a rollout, every robot with its own noise; return the rollout, which the next call overwrites."""
        r = self.rollout
        if self.memory is None:
            self.memory = self.belief.initial_state(self.env.num_envs)
            r.begin(self.env.init_state(self.cfg.seed + 1, staggered=True))
        else:
            r.begin(None)
        r.state = self.memory
        r.std.copy_(self.belief.std())
        r.noise.normal_(generator=self.generator)
        for t in range(r.steps):
            action, mean, self.memory = self.belief.act(r.obs[t].to(self.device), self.memory, r.starts[t].to(self.device), r.noise[t].to(self.device))
            r.action[t], r.mean[t] = action, mean
            state = self.env.step(r.action[t].numpy(), out=r.states[t])
            r.starts[t + 1] = torch.from_numpy(state.done)
        self.env_steps += r.steps * self.env.num_envs
        return r

    @torch.no_grad()
    def advantages(self, r: Rollout) -> tuple[Tensor, Tensor]:
        """Return advantages and values of a rollout, (T, N) each.

        An episode ended by time goes on in truth: its last reward is followed by the value of its
        final observation. One that ended in a fall is followed by nothing.
        """
        values = self.belief.value(r.obs.to(self.device), r.privileged.to(self.device))
        value, next_value = values[:-1], values[1:].clone()
        cut = r.truncated.to(self.device)
        if cut.any():
            next_value[cut] = self.belief.value(r.final_obs[r.truncated].to(self.device), r.final_privileged[r.truncated].to(self.device))
        next_value[r.terminated.to(self.device)] = 0.0
        cfg = self.cfg.ppo
        return ppo.generalised_advantages(r.reward.to(self.device), value, next_value, r.done().to(self.device), cfg.gamma, cfg.gae_lambda), value

    def train_on_trajectory(self, r: Rollout) -> dict[str, float]:
        """Update the creature from a rollout; return the metrics' means over minibatches."""
        cfg, n = self.cfg.ppo, self.env.num_envs
        advantage, value = self.advantages(r)
        returns = advantage + value
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        on_device = [x.to(self.device) for x in (r.obs[:-1], r.privileged[:-1], r.action, r.mean, r.starts[:-1])]
        old_std = r.std.to(self.device)
        sums: dict[str, Tensor] = {}
        updates = 0
        for _ in range(cfg.epochs):
            for robots in torch.randperm(n, generator=self.generator).to(self.device).chunk(min(cfg.minibatches, n)):
                obs, privileged, action, mean, starts = (x[:, robots] for x in on_device)
                new_mean, _ = self.belief(obs, BeliefState(r.state.hidden[robots], r.state.cell[robots]), starts)
                std = self.belief.std()
                old_log_prob = ppo.gaussian_log_prob(action, mean, old_std)
                actor, metrics = ppo.policy_loss(ppo.gaussian_log_prob(action, new_mean, std), old_log_prob, advantage[:, robots], cfg.clip)
                critic, more = ppo.value_loss(self.belief.value(obs, privileged), value[:, robots], returns[:, robots], cfg.value_clip)
                spread = ppo.entropy(std)
                self.optimizer.zero_grad(set_to_none=True)
                (actor + cfg.value_coefficient * critic - cfg.entropy_coefficient * spread).backward()
                norm = torch.nn.utils.clip_grad_norm_(self.belief.parameters(), cfg.max_gradient_norm)
                kl = ppo.gaussian_kl(mean, old_std, new_mean.detach(), std.detach()).mean()
                self.learning_rate = ppo.adapt_learning_rate(self.learning_rate, float(kl), cfg)
                self.optimizer.param_groups[0]["lr"] = self.learning_rate
                if torch.isfinite(norm):  # a step along a broken gradient would end the run
                    self.optimizer.step()
                for key, x in (metrics | more | {"policy_loss": actor.detach(), "kl": kl, "entropy": spread.detach()}).items():
                    sums[key] = sums.get(key, 0.0) + x
                updates += 1
        result = {key: float(x) / updates for key, x in sums.items()}
        result |= {"learning_rate": self.learning_rate, "std": float(self.belief.std().detach().mean())}
        if self.world_model:
            result |= self.world_model.train_on_trajectory(r, self.device)
        return result

    def iterate(self) -> dict[str, float]:
        """Collect and learn once; return metrics, with the seconds of both."""
        start = time.perf_counter()
        r = self.collect_trajectory()
        middle = time.perf_counter()
        metrics = self.train_on_trajectory(r)
        end = time.perf_counter()
        ended = r.done().bool()
        metrics |= {"reward": float(r.reward.mean()), "falls": float(r.terminated.sum()), "episodes": float(ended.sum())}
        if ended.any():
            metrics |= {"return": float(r.episode_return[ended].mean()), "episode_steps": float(r.episode_steps[ended].mean())}
        return metrics | {"collect_seconds": middle - start, "update_seconds": end - middle}
