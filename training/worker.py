"""Worker: what one thread does for robots of its own."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import fused
from config import Config
from entity import Creature, Memory
from environments import ABEnv
from training import ppo, tree
from training.experience import Experience, Values
from training.inference import Inference
from training.rollout import Rollout
from training.teacher import Teacher


class Worker:
    """Robots that a thread moves, thinks for and finds the values of, with a rollout of their own.

    number: of the worker, which draws noise of its own; teacher: who is asked what to do, if anybody.
    """

    def __init__(
        self,
        env: ABEnv,
        creature: Creature,
        cfg: Config,
        device: torch.device,
        number: int,
        teacher: Teacher | None = None,
    ) -> None:
        self.env = env
        self.creature = creature
        self.belief = creature.belief
        self.cfg = cfg
        self.device = device
        relabels = cfg.train.learner == "sac" and env.command_columns.stop > 0
        self.rollout = Rollout(env, cfg.ppo.rollout, device.type == "cuda", cfg.sac.others if relabels else 0)
        self.others: tuple[Tensor, Tensor] | None = None  # commands that rewards are asked about; see Rollout.ask
        self.infer = Inference(creature, env.num_envs, env.num_obs, device)
        self.noise = torch.empty(self.rollout.action.shape, device=device)
        seen = env.num_obs + env.num_privileged
        self.values = Values(self.belief, torch.zeros(cfg.ppo.rollout + 1, env.num_envs, seen, device=device))
        self.final = torch.zeros(cfg.ppo.rollout, env.num_envs, device=device)  # values, where time has ended episodes
        self.final_values = Values(self.belief, torch.zeros(1, 2 * fused.WIDTH, seen, device=device))
        self.teacher = teacher
        self.teacher_state = teacher.belief.initial_state(env.num_envs) if teacher else ()
        self.share = torch.zeros((), device=device)  # that imitating the teacher has of the loss
        self.begun = False
        self.generator = torch.Generator(device=device).manual_seed(cfg.seed + 7919 * number)
        self.memories: list[Memory] = []  # after each step of the rollout, where imagination goes on from there
        self.context: Tensor | None = None  # (T, sides, D, N), what the policy read of the world model
        if creature.reads:
            self.context = torch.empty(cfg.ppo.rollout, *creature.context(self.infer.memory).shape, device=device)
        self.after_step: Callable[[], None] | None = None  # called between two control steps, in the worker's thread
        self.seconds = dict.fromkeys(("move", "infer", "value"), 0.0)  # spent on each so far

    def state(self) -> dict[str, Any] | None:
        """Return what collecting on needs, None if the environment cannot tell its part of it; tensors not copied."""
        snapshot = self.env.snapshot()
        if snapshot is None:
            return None
        r = self.rollout
        return {
            "env": tree.tensors(snapshot),
            "memory": [x.contiguous() for x in self.infer.memory.tensors()],
            "last": [r.obs[-1], r.privileged[-1], r.starts[-1]],
            "noise": self.generator.get_state(),
        } | ({"teacher": [x.contiguous() for x in self.teacher_state]} if self.teacher else {})

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from where state() was."""
        r = self.rollout
        self.env.restore(tree.arrays(state["env"]))
        self.infer.remember(self.infer.memory.like(state["memory"]))
        for kept, new in zip((r.obs[-1], r.privileged[-1], r.starts[-1]), state["last"], strict=True):
            kept.copy_(new)
        self.generator.set_state(state["noise"].cpu())
        self.teacher_state = tuple(x.to(self.device) for x in state.get("teacher", ()))
        self.begun = True

    @torch.no_grad()
    def collect(self) -> None:
        """Act for a rollout, every robot with its own noise."""
        r = self.rollout
        r.begin(None if self.begun else self.env.init_state(self.cfg.seed + 1, staggered=True))
        self.begun = True
        asks = len(r.others) > 0
        if asks:
            r.ask(torch.from_numpy(self.env.command()), self.others)
        r.state = self.infer.remembered()
        r.std.copy_(self.belief.std())
        torch.randn(r.action.shape, generator=self.generator, out=self.noise)
        self.infer.begin(r.obs, r.starts, self.noise, r.action, r.mean, self.context)
        memories = []
        start = time.perf_counter()
        for t in range(r.steps):
            self.infer(t)
            if self.cfg.world_model.role == "imagination":
                memories.append(self.infer.remembered())
            middle = time.perf_counter()
            state = self.env.step(r.action[t].numpy(), out=r.states[t])
            r.starts[t + 1] = torch.from_numpy(state.done)
            if asks:
                r.others_reward[t] = torch.from_numpy(self.env.rewards_under(r.others.numpy())).T
            if self.after_step:
                self.after_step()
            end = time.perf_counter()
            self.seconds["infer"] += middle - start
            self.seconds["move"] += end - middle
            start = end
        self.memories = memories
        broken = ~torch.isfinite(r.reward)
        self.broken_rewards = int(broken.sum())
        r.reward[broken] = 0.0

    @torch.no_grad()
    def estimate(self) -> None:
        """Find values, advantages and the old log-probabilities of the rollout."""
        r = self.rollout
        start = time.perf_counter()
        obs, starts, action, mean, std, reward, terminated, truncated = (
            x.to(self.device, non_blocking=True)
            for x in (r.obs, r.starts, r.action, r.mean, r.std, r.reward, r.terminated, r.truncated)
        )
        everything = self.values.everything
        torch.cat((obs, r.privileged.to(self.device, non_blocking=True)), dim=-1, out=everything)
        features, value = self.values()
        if r.truncated.any():
            some = self.final_values.everything[0]
            for at in r.truncated.nonzero().split(len(some)):
                t, i = at.unbind(-1)
                some[: len(at)] = torch.cat((r.final_obs[t, i], r.final_privileged[t, i]), dim=-1)
                self.final[t, i] = self.final_values()[1][0, : len(at)]
        if self.cfg.world_model.role == "exploration":
            far = self.creature.world_model.disagreement(everything[:-1].flatten(0, 1), action.flatten(0, 1))
            bonus = self.cfg.world_model.curiosity * ((far - far.mean()) / far.mean().clamp(min=1e-6))
            reward = reward + bonus.view_as(reward) / self.cfg.ppo.reward_scale
        advantage, returns = ppo.estimates(reward, value, self.final, terminated, truncated, self.cfg.ppo)
        self.experience = Experience(
            obs[:-1],
            starts[:-1],
            r.state.belief,
            action,
            mean,
            std,
            features,
            returns,
            advantage,
            None if self.context is None else self.context.movedim(0, 2),
        )
        if self.teacher:
            taught, self.teacher_state = self.teacher.means(everything[:-1], self.teacher_state, starts[:-1])
            self.experience = self.experience._replace(taught=taught, teacher=(self.teacher.std, self.share))
        self.seconds["value"] += time.perf_counter() - start
