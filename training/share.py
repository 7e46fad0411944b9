"""Share: what one thread does for robots of its own."""

import time
from typing import NamedTuple

import torch
from torch import Tensor

from config import Config
from entity import BeliefState, Creature
from environments import ABEnv
from training import ppo
from training.imagination import Dreamer
from training.inference import Inference
from training.rollout import Rollout


class Experience(NamedTuple):
    """What an update learns from: T steps of N robots, lived or imagined."""

    obs: Tensor  # (T, N, O)
    starts: Tensor  # (T, N), 1 where a step is the first of its episode
    memory: BeliefState  # before the first step
    action: Tensor  # (T, N, A)
    mean: Tensor  # (T, N, A)
    std: Tensor  # (A)
    features: Tensor  # (sides, rows, T, N), for the critic
    value: Tensor  # (T, N)
    advantage: Tensor  # (T, N)
    reached: Tensor | None = None  # (T, N), probability of having come to a step that was imagined


class Share:
    """Robots that a thread moves, thinks for and learns from, with a rollout of their own."""

    def __init__(self, env: ABEnv, creature: Creature, cfg: Config, device: torch.device, number: int) -> None:
        self.env, self.belief, self.cfg, self.device = env, creature.belief, cfg, device
        self.rollout = Rollout(env, cfg.ppo.rollout, device.type == "cuda")
        self.infer = Inference(self.belief, env.num_envs, env.num_obs, device)
        self.begun = False
        seed = cfg.seed + 7919 * number
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.dreamer = Dreamer(env, creature.world_model, cfg, device, seed) if creature.world_model else None
        self.seconds = dict.fromkeys(("move", "infer", "value", "gradient", *(("follow", "imagine") if self.dreamer else ())), 0.0)  # spent on each so far

    @torch.no_grad()
    def collect(self) -> None:
        """Act for a rollout, every robot with its own noise."""
        r, device = self.rollout, self.device
        r.begin(None if self.begun else self.env.init_state(self.cfg.seed + 1, staggered=True))
        self.begun, r.state = True, self.infer.remembered()
        r.std.copy_(self.belief.std())
        noise = torch.randn(r.action.shape, generator=self.generator, device=device)
        memories, start = [], time.perf_counter()
        for t in range(r.steps):
            r.action[t], r.mean[t] = self.infer(r.obs[t], r.starts[t], noise[t])  # from a GPU: waits for it
            if self.dreamer:
                memories.append(self.infer.remembered())
            middle = time.perf_counter()
            state = self.env.step(r.action[t].numpy(), out=r.states[t])
            r.starts[t + 1] = torch.from_numpy(state.done)
            end = time.perf_counter()
            self.seconds["infer"] += middle - start
            self.seconds["move"] += end - middle
            start = end
        if self.dreamer:
            self.dreamer.memories = memories

    @torch.no_grad()
    def estimate(self) -> None:
        """Find values, advantages and the old log-probabilities of the rollout.

        An episode ended by time goes on in truth: its last reward is followed by the value of its
        final observation. One that ended in a fall is followed by nothing.
        """
        r, cfg, device, start = self.rollout, self.cfg.ppo, self.device, time.perf_counter()
        obs, starts, action, mean, std = (x.to(device, non_blocking=True) for x in (r.obs, r.starts, r.action, r.mean, r.std))
        features, value = self.judge(torch.cat((obs, r.privileged.to(device, non_blocking=True)), dim=-1))
        next_value = value[1:].clone()
        cut = r.truncated
        if cut.any():
            next_value[cut.to(device)] = self.belief.value(r.final_obs[cut].to(device), r.final_privileged[cut].to(device))
        next_value[r.terminated.to(device)] = 0.0
        advantage = ppo.generalised_advantages(r.reward.to(device), value[:-1], next_value, r.done().to(device), cfg.gamma, cfg.gae_lambda)
        self.lived = Experience(obs[:-1], starts[:-1], r.state, action, mean, std, features, value[:-1], advantage)
        self.seconds["value"] += time.perf_counter() - start

    def judge(self, everything: Tensor) -> tuple[Tensor, Tensor]:
        """Return the critic's features (sides, rows, T, N) and values (T + 1, N) of observations and privileged ones, (T + 1, N, O + P)."""
        features = self.belief.value_features(everything.flatten(0, 1), self.belief.normaliser, self.belief.dtype)  # (sides, rows, S)
        values = self.belief.value_of(features).unflatten(0, everything.shape[:2])
        return features.unflatten(-1, everything.shape[:2])[:, :, :-1], values

    def follow(self) -> None:
        """Follow the rollout with the world model."""
        start = time.perf_counter()
        self.dreamer.follow()
        self.seconds["follow"] += time.perf_counter() - start

    @torch.no_grad()
    def imagine(self, count: int) -> None:
        """Imagine rollouts that go on from the real one.

        What follows a step counts as far as the episode probably goes on with it, and a step as far
        as the episode probably came to it.
        """
        start, cfg = time.perf_counter(), self.cfg.ppo
        self.imagined, d = None, self.dreamer.imagine(self.belief, count)
        if d:
            features, value = self.judge(d.obs)
            advantage = ppo.generalised_advantages(d.reward, value[:-1], d.goes_on * value[1:], 1.0 - d.goes_on, cfg.gamma, cfg.gae_lambda)
            reached = torch.cat((torch.ones_like(d.goes_on[:1]), d.goes_on[:-1])).cumprod(0)
            obs, starts = d.obs[:-1, :, : self.env.num_obs].contiguous(), torch.zeros_like(d.reward)
            self.imagined = Experience(obs, starts, d.memory, d.action, d.mean, self.lived.std, features, value[:-1], advantage, reached)
        self.seconds["imagine"] += time.perf_counter() - start

    def gradient(self, x: Experience, robots: slice, parameters: list[Tensor], average: Tensor, spread: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss's gradient of some of the robots, one vector, and metrics; advantages are normalised by average and spread."""
        cfg, start = self.cfg.ppo, time.perf_counter()
        action, mean, value, advantage = (y[:, robots] for y in (x.action, x.mean, x.value, x.advantage))
        returns, advantage = value + advantage, (advantage - average) / (spread + 1e-8)
        if x.reached is not None:
            advantage = advantage * x.reached[:, robots]
        new_mean, _ = self.belief(x.obs[:, robots], BeliefState(*(y[..., robots] for y in x.memory)), x.starts[:, robots])
        new_value = self.belief.value_of(x.features[..., robots].flatten(2)).view_as(returns)
        std = self.belief.std()
        actor, clipped, kl = ppo.policy_loss(new_mean, std, action, mean, x.std, advantage, cfg.clip)
        critic, bonus = 0.5 * (new_value - returns).square().mean(), ppo.entropy(std)
        loss = actor + critic - cfg.entropy_coefficient * bonus
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        metrics = {"policy_loss": actor, "value_loss": critic, "entropy": bonus, "clip_fraction": clipped, "kl": kl}
        self.seconds["gradient"] += time.perf_counter() - start
        return gradient, {key: y.detach() for key, y in metrics.items()}
