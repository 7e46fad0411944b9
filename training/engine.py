r"""TrainingEngine: collect a trajectory, learn from it.

robots      0 ............ n-1 | n ........... 2n-1
           +-------------------+-------------------+
collect    | think move think .| think move think .|   a thread for each worker, who has robots of its own: on the
           +-------------------+-------------------+   CPU it does both; with a GPU one worker moves while the GPU
update     | gradient          | gradient          |   thinks for the other
           +---------+---------+---------+---------+
                      \                 /
                       sum, clip, step                 the only meeting point
"""

import contextlib
import functools
import itertools
import time
from typing import Any

import torch
from torch import Tensor

import fused
from config import Config
from entity import Creature
from environments import ABEnv
from observation import Moments
from training import distributed, ppo, tree
from training.ensemble import EnsembleTrainer
from training.experience import Experience
from training.gradient import Gradients, Part, by_autograd
from training.imagination import Imagination
from training.optimizer import Adam, Average, flatten, weighted_sum
from training.parallel import in_vain, side_by_side
from training.replay import Replay, Sequences
from training.rollout import Rollout
from training.sac import SoftActorCritic
from training.teacher import Teacher
from training.worker import Worker
from training.world_model import WorldModelTrainer


class TrainingEngine:
    """Recurrent PPO on N robots.

    A rollout stores the policy's state before its first step; an update replays the whole sequence from
    there, forgetting the state where an episode starts, so that replayed and collected
    log-probabilities agree and nothing is padded. Minibatches are groups of robots.

    env: this process's robots; what is learnt is of those of every process (training/distributed.py).
    threads: workers that the robots are divided among; on the CPU each computes in one thread.
    """

    def __init__(self, env: ABEnv, creature: Creature, cfg: Config, device: torch.device, threads: int = 1) -> None:
        self.env = env
        self.creature = creature.to(device)
        self.cfg = cfg
        self.device = device
        self.belief = creature.belief
        roles = self.belief.roles()
        self.parameters = [*roles["actor"], *roles["critic"]]
        parts = env.split(2, threads) if device.type == "cuda" else env.split(threads, 1)
        first = distributed.rank() * max(distributed.all_gather(len(parts)))
        self.teacher = Teacher(cfg, env, creature, device) if cfg.teacher.policy else None
        self.workers = [Worker(part, creature, cfg, device, i, self.teacher) for i, part in enumerate(parts, first)]
        self.robots = sum(distributed.all_gather(env.num_envs))  # of all processes
        self.sac = None
        if cfg.train.learner == "sac":
            self.sac = SoftActorCritic(env, creature, self.workers[0].rollout, cfg, device, threads)
            self.optimizer = self.sac.optimizer
            actor = self.sac.policy
        else:
            actor = flatten(roles["actor"])
            self.optimizer = Adam(actor, flatten(roles["critic"]))
        self.learning_rate = getattr(cfg, cfg.train.learner).learning_rate
        self.average = Average(actor, cfg.ppo.average)
        self.total = torch.empty(sum(p.numel() for p in self.parameters))  # gradient; a new one's pages take 0.1 ms
        self.descent = None  # where others have parts of a gradient, Python is needed
        if device.type == "cpu" and distributed.size() == 1:
            self.descent = fused.Descent(self.optimizer.steps, self.total, in_vain)
        self.gradients = [Gradients(self.belief, cfg.ppo, self.parameters) for _ in range(threads)]
        model = creature.world_model
        world = cfg.world_model
        self.world_model = None
        self.imagination = None
        if model:
            self.replay = Replay(env, model.latent_shape, world.capacity, cfg.ppo.rollout, world.sequence, device)
            trainer = EnsembleTrainer if world.kind == "ensemble" else WorldModelTrainer
            self.world_model = trainer(model, self.replay, cfg.seed, threads)
        if world.role == "imagination":
            self.imagination = Imagination(creature, env.num_envs, cfg, device, threads)
        # taken so far, spent on them
        self.env_steps = 0
        self.seconds = 0.0
        self.spent = dict.fromkeys(
            ("gradient", *(("world",) if model else ()), *(("filter", "imagine") if self.imagination else ())), 0.0
        )  # of these
        self.updates = 0  # gradients
        self.skipped = 0  # of these, that were not finite
        self.lessons = 0  # rollouts that a teacher was asked about
        self.levels = cfg.curriculum.push[0], cfg.curriculum.command[0]
        self.set_level()
        if cfg.curriculum.climb:
            env.climb()
        self.generator = torch.Generator(device="cpu").manual_seed(cfg.seed)
        self.variance = torch.zeros((), device=device)  # of real advantages, of rollouts so far

    def warm_up(self) -> None:
        """Have everything compiled, leaving no trace: an update of a rollout of nothing, with no step taken."""
        n = 2 * fused.WIDTH
        env = self.env
        obs, privileged, motion, scalar = (
            torch.zeros(1, n, *size, device=self.device)
            for size in ((env.num_obs,), (env.num_privileged,), (env.num_actions,), ())
        )
        features = self.belief.critic_features(torch.cat((obs, privileged), dim=-1).flatten(0, 1))
        context = self.creature.context(self.creature.initial_state(n))
        x = Experience(
            obs,
            scalar,
            self.belief.initial_state(n),
            motion,
            motion,
            self.belief.std().detach(),
            features.unflatten(-1, scalar.shape).detach(),
            scalar,
            scalar,
            None if context is None else context[:, :, None],
        )
        if self.device.type == "cpu":
            weighted_sum([Gradients(self.belief, self.cfg.ppo, self.parameters)(x)[0]], [1.0])
        else:
            by_autograd(self.belief, self.cfg.ppo, x, self.parameters)
        nothing = torch.zeros(1, device=self.device)
        Adam(nothing).step(nothing)
        never = torch.zeros_like(scalar, dtype=torch.bool)
        ppo.estimates(scalar, torch.cat((scalar, scalar)), scalar, never, never, self.cfg.ppo)
        if self.descent:
            self.descent.compile()
        for learner in (self.world_model, self.sac):
            if learner:
                learner.warm_up()
        for worker in self.workers:
            worker.infer.record()
        if len(self.workers[0].rollout.others):
            self.env.rewards_under(self.env.command()[None])
        self.env.compile(backwards=True)  # a process beside this one may have begun at the other end
        self.env.init_state(self.cfg.seed)

    def agree(self) -> None:
        """Give every process the first one's weights: processors of different kinds round differently."""
        more = [self.world_model.flat, self.world_model.learnt] if self.world_model else []
        more += self.sac.networks() if self.sac else []
        distributed.broadcast([x.detach() for x in (*self.optimizer.vectors, *more)])

    def trainer_state(self) -> dict[str, Any]:
        """Return what training on needs beside the weights that acting() leaves; tensors not copied but the policy."""
        state = {
            "optimizer": self.optimizer.moments(),
            "learning_rate": self.learning_rate,
            "levels": list(self.levels),
        }
        if self.cfg.ppo.average > 1:
            state["policy"] = self.average.vector.detach().clone()
        if self.sac:
            state["sac"] = self.sac.networks()
        if self.world_model:
            state["world_model"] = self.world_model.optimizer.moments()
            if self.cfg.world_model.average > 1:
                state["world_model_learnt"] = self.world_model.learnt
        return state

    def load_trainer_state(self, state: dict[str, Any], name: str) -> None:
        """Take up what trainer_state() returned; raise ConfigError, naming where it is from, if it does not fit."""
        learnt = {"policy": self.average.vector.detach()}
        if self.world_model:
            learnt["world_model_learnt"] = self.world_model.learnt
            self.world_model.learnt.copy_(self.world_model.flat.detach())
        state = learnt | state  # where what was kept is no average, it is what was learnt
        tree.require_like(learnt | self.trainer_state(), state, name)
        for key, x in learnt.items():
            x.copy_(state[key])
        self.optimizer.load_moments(state["optimizer"])
        self.learning_rate = state["learning_rate"]
        self.levels = tuple(state["levels"])
        self.set_level()
        if self.sac:
            for kept, new in zip(self.sac.networks(), state["sac"], strict=True):
                kept.copy_(new)
        if self.world_model:
            self.world_model.optimizer.load_moments(state["world_model"])

    def run_state(self) -> dict[str, Any]:
        """Return what else the next iteration depends on, so that it may be the same to the last bit.

        Tensors are not copied. Empty where the environment cannot tell its part of it.
        """
        workers = [worker.state() for worker in self.workers]
        if None in workers:
            return {}
        state = {
            "workers": workers, "order": self.generator.get_state(), "skipped": self.skipped, "variance": self.variance,
        }  # fmt: skip
        if self.world_model:
            state |= {"world_model": self.world_model.state(), "replay": self.replay.state()}
        if self.sac:
            state["sac"] = self.sac.state()
        return state | ({"imagination": self.imagination.state()} if self.imagination else {})

    def load_run_state(self, state: dict[str, Any], name: str) -> None:
        """Take up what run_state() returned; raise ConfigError, naming where it is from, if it does not fit."""
        tree.require_like(self.run_state(), state, name, finite=False)  # an environment may hold what is not
        for worker, part in zip(self.workers, state["workers"], strict=True):
            worker.load_state(part)
        self.generator.set_state(state["order"])
        self.skipped = state["skipped"]
        self.variance.copy_(state["variance"])
        if self.world_model:
            self.world_model.load_state(state["world_model"])
            self.replay.load_state(state["replay"])
        if self.sac:
            self.sac.load_state(state["sac"])
        if self.imagination:
            self.imagination.load_state(state["imagination"])

    def collect_trajectory(self) -> list[Rollout]:
        """Act for a rollout; return the rollout of every worker, which the next call overwrites."""
        if self.sac:
            self.sac.ask(self.workers)
        side_by_side(Worker.collect, self.workers)
        self.env_steps += self.cfg.ppo.rollout * self.robots
        return [worker.rollout for worker in self.workers]

    def train_on_trajectory(self) -> dict[str, float]:
        """Update the creature from the latest rollout; return the metrics' means over minibatches.

        They are the last update's if there are several.
        """
        if self.sac:
            return self.learn_off_policy()
        if self.teacher:
            self.teach()
        side_by_side(Worker.estimate, self.workers)
        sources = {"": [worker.experience for worker in self.workers]}
        self.scale(self.moments(sources[""]).variance)
        more = {}
        if self.world_model:
            rollout, more = self.learn_world()
            if self.imagination:
                self.filter_rollout(rollout)
        for _ in range(self.cfg.world_model.passes if self.imagines() else 1):
            metrics = self.learn_behaviour(sources | self.imagine())
        metrics |= more
        if not self.cfg.ppo.scale_until or self.env_steps <= self.cfg.ppo.scale_until:
            self.learn_scale()
        return metrics | {"learning_rate": self.learning_rate, "std": float(self.belief.std().detach().mean())}

    def learn_scale(self) -> None:
        """Let the policy learn the scale of observations from the latest rollout.

        Few robots that stand hardly see how an episode begins. Where means went on following what they see, a policy
        stood on and had forgotten that: 66 % of 512 robots fell, nine of ten of these within 12 steps of a reset.
        """
        seen = [self.belief.normaliser.moments(worker.values.everything[0]) for worker in self.workers]
        for moments in distributed.all_gather_moments(seen):
            self.belief.learn_scale(moments)

    def learn_off_policy(self) -> dict[str, float]:
        """Let soft actor-critic learn from all rollouts; return the metrics' means."""
        start = time.perf_counter()
        before = self.sac.updates
        metrics = self.sac.train([worker.rollout for worker in self.workers], self.learning_rate)
        self.updates += self.sac.updates - before
        self.skipped = self.sac.skipped
        self.spent["gradient"] += time.perf_counter() - start
        return metrics | {"learning_rate": self.learning_rate, "std": float(self.belief.std().detach().mean())}

    @staticmethod
    def moments(source: list[Experience]) -> Moments:
        """Return the moments of a source's advantages, in every process."""
        found = distributed.all_gather_moments([Moments.of(x.advantage.flatten()) for x in source])
        return functools.reduce(Moments.join, found)

    def scale(self, variance: Tensor) -> None:
        """Let the scale of advantages follow what happened, at ppo.advantage_rate.

        Few robots see no fall for many rollouts, and hardly any in imagination. Divided by a deviation of its own, a
        tenth of that of one with falls, such a rollout would pull the policy along what hardly matters, away from what
        holds it up: with imagination, four seeds of four of quadruped-balance fell back from 95 % to 9 to 56 %.
        """
        if torch.isfinite(variance):
            rate = self.cfg.ppo.advantage_rate if self.variance > 0.0 else 1.0
            self.variance.lerp_(variance, rate)

    def teach(self) -> None:
        """Let imitating the teacher give way to the reward, evenly."""
        cfg = self.cfg.teacher
        share = max(cfg.least, 1.0 - self.lessons / cfg.fade)
        for worker in self.workers:
            worker.share.fill_(share)
        self.lessons += 1

    def learn_world(self) -> tuple[Sequences, dict[str, float]]:
        """Train the world model on this rollout and earlier ones; return this one and the metrics."""
        start = time.perf_counter()
        rollouts = [worker.rollout for worker in self.workers]
        model = self.creature.world_model
        if self.creature.reads:
            latent = torch.cat([r.state.latent for r in rollouts], dim=-1)
        elif self.imagination and self.replay.count:
            latent = self.imagination.latent
        else:
            first = torch.cat([torch.cat((r.obs[0], r.privileged[0]), dim=-1) for r in rollouts])
            latent = model.first(first.to(self.device))
        if self.imagination:
            self.imagination.latent = latent
        rollout = self.replay.add(rollouts, latent)
        if self.replay.count <= self.replay.capacity:  # from then on what the networks were taught keeps its meaning
            scales = model.scales(*(x.flatten(0, 1) for x in (rollout.obs, rollout.reward, rollout.terminated)))
            for found in distributed.all_gather(scales.to("cpu")):
                model.learn_scale(found.to(self.device))
        metrics = self.world_model.train()
        self.spent["world"] += time.perf_counter() - start
        return rollout, metrics

    def filter_rollout(self, rollout: Sequences) -> None:
        """Find the rollout's latents with the world model."""
        start = time.perf_counter()
        self.imagination.filter_rollout(rollout, self.workers)
        self.spent["filter"] += time.perf_counter() - start

    def imagines(self) -> bool:
        """Return whether to imagine: the world model is for that and has learnt a little."""
        return self.imagination is not None and self.replay.count > self.cfg.world_model.patience

    def imagine(self) -> dict[str, list[Experience]]:
        """Imagine how the rollout might go on, a part of it in every thread."""
        if not self.imagines():
            return {}
        start = time.perf_counter()
        imagination = self.imagination
        count = max(1, self.cfg.world_model.imagined // (len(imagination.generators) * distributed.size()))
        imagined = side_by_side(lambda generator: imagination.imagine(count, generator), imagination.generators)
        self.spent["imagine"] += time.perf_counter() - start
        return {"imagined_": imagined}

    def learn_behaviour(self, sources: dict[str, list[Experience]]) -> dict[str, float]:
        """Update policy and critic from experience of each source; return the metrics' means.

        sources: in parts for the threads, by what the names of their metrics begin with.

        The learning rate heeds the divergence from the policy of this instant, which imagined what was imagined.
        """
        cfg = self.cfg.ppo
        start = time.perf_counter()
        if self.device.type == "cuda":  # one stream of work: parts of it would wait for one another
            sources = {name: [Experience.join(source)] for name, source in sources.items()}
        imagined = self.cfg.world_model.weight if len(sources) > 1 else 0.0
        robots = {name: [x.returns.shape[1] for x in source] for name, source in sources.items()}
        minibatches = min(cfg.minibatches, *distributed.all_gather(min(n for each in robots.values() for n in each)))
        advantages = {name: self.moments(source) for name, source in sources.items()}
        std = self.variance.sqrt()
        parts: list[list[Part]] = [[] for _ in self.gradients]  # of threads
        for name, source in sources.items():
            count, mean, _ = advantages[name]
            for mine, gradients, x in zip(parts, self.gradients, source, strict=False):
                share = x.returns.numel() / count
                weight = share * (imagined if name else 1.0 - imagined)
                mine.append(Part(name, gradients, x.scaled(mean, std), minibatches, share, weight))
        order = [m for _ in range(cfg.epochs) for m in torch.randperm(minibatches, generator=self.generator).tolist()]
        parts = [thread for thread in parts if thread]
        sums = self.descend(parts, order, list(sources)) or self.descend_with_python(parts, order, name)
        self.spent["gradient"] += time.perf_counter() - start
        return {key: x / len(order) for key, x in sums.items()}

    def descend(self, parts: list[list[Part]], order: list[int], names: list[str]) -> dict[str, float] | None:
        """Learn from minibatches in some order; return the sums of their metrics, None where that needs Python.

        parts: of every thread; names: of sources, the last of which the learning rate heeds.
        """
        if self.descent is None:
            return None
        jobs = [[[part.job(m) for part in thread] for thread in parts] for m in order]
        if not all(job for of_round in jobs for thread in of_round for job in thread):
            return None
        cfg = self.cfg.ppo
        keys = list(jobs[0][0][0].metrics)
        self.descent.begin(
            jobs,
            [[(names.index(part.source), part.share, part.weight) for part in thread] for thread in parts],
            self.learning_rate,
            (1.0, cfg.critic_rate),
            cfg.max_gradient_norm,
            keys.index("kl"),
            (cfg.target_kl, cfg.min_learning_rate, cfg.max_learning_rate),
        )
        side_by_side(self.descent.play, range(len(parts)))
        sums, self.learning_rate, taken = self.descent.end()
        self.updates += len(order)
        self.skipped += len(order) - taken
        return {name + key: x for name, row in zip(names, sums, strict=True) for key, x in zip(keys, row, strict=True)}

    def descend_with_python(self, parts: list[list[Part]], order: list[int], last: str) -> dict[str, float]:
        """Do what descend() does, with any policy, and with other processes; last: what the learning rate heeds."""
        sums: dict[str, float] = {}
        flat = [part for thread in parts for part in thread]
        for m in order:
            found = side_by_side(lambda thread: [part.find(m) for part in thread], parts)  # noqa: B023
            results = list(itertools.chain(*found))
            metrics: dict[str, float] = {}
            for part, (_, more) in zip(flat, results, strict=True):
                for key, x in more.items():
                    metrics[part.source + key] = metrics.get(part.source + key, 0.0) + part.share * float(x)
            vectors = [vector for vector, _ in results]
            total = weighted_sum(vectors, [part.weight for part in flat], self.total)
            total, metrics = distributed.all_reduce(total, metrics)
            for key, x in metrics.items():
                sums[key] = sums.get(key, 0.0) + x
            self.step(total)
            self.learning_rate = ppo.adapt_learning_rate(self.learning_rate, metrics[last + "kl"], cfg=self.cfg.ppo)
        return sums

    def profile(self) -> dict[str, float]:
        """Return the seconds that went into each part so far.

        gradient: with the optimiser; other: waiting and book-keeping; of collecting, the workers' mean.
        """
        parts = {
            name: sum(worker.seconds[name] for worker in self.workers) / len(self.workers)
            for name in self.workers[0].seconds
        } | self.spent
        return parts | {"other": self.seconds - sum(parts.values())}

    def step(self, gradient: Tensor) -> None:
        """Step along a gradient, policy and critic clipped apart.

        A fall surprises the critic most, and should not still the policy. The critic takes longer steps: where it lags
        behind the policy, what it does not know yet of falls looks like gain (balance after 20 s: 93 and 97 instead of
        67 and 76 % of episodes survived).
        """
        self.updates += 1
        cfg = self.cfg.ppo
        self.optimizer.rates = [self.learning_rate, self.learning_rate * cfg.critic_rate]
        parts = gradient.split([len(vector) for vector in self.optimizer.vectors])
        if not self.optimizer.step(*parts, limit=cfg.max_gradient_norm):  # a broken gradient would end the run
            self.skipped += 1

    def grow(self, falls: float) -> None:
        """Take the curriculum a step on unless robots fall too often; falls: per 1000 control steps."""
        cfg = self.cfg.curriculum
        if falls <= cfg.falls:
            self.levels = tuple(
                min(level + cfg.growth, last)
                for level, (_, last) in zip(self.levels, (cfg.push, cfg.command), strict=True)
            )
        self.set_level()

    def set_level(self) -> None:
        """Tell the environment where the curriculum is."""
        cfg = self.cfg.curriculum
        self.env.set_level(*self.levels, cfg.push_rate, cfg.command_rate, cfg.episode_rate)

    def acting(self) -> contextlib.AbstractContextManager[None]:
        """Let the creature be, for a while, the one that is evaluated and kept: its policy is its average.

        A policy that learns from imagination may be led astray by a rollout, and back by the next: of quadruped-balance
        the latest policy survived 87 % of the episodes where the average over four iterations survived 100 %.
        """
        return self.average.in_place()

    def statistics(self) -> dict[str, float]:
        """Return what the environment counted since the last call.

        Reward terms are per second and robot; how episodes ended is in shares of them; levels of the terrain are in
        shares of the robots, and in the mean.
        """
        sums: dict[str, float] = {}
        for worker in self.workers:
            for name, value in worker.env.statistics().items():
                sums[name] = sums.get(name, 0.0) + value
        sums = distributed.sum_by_name(sums)
        seconds = self.cfg.ppo.rollout * self.robots * self.cfg.env.ctrl_dt
        ends = sum(value for name, value in sums.items() if name.startswith("end_"))
        levels = {name: value / self.robots for name, value in sums.items() if name.startswith("level_")}
        mean = sum(k * share for k, share in enumerate(levels.values()))
        return {
            name: value / seconds if name.startswith("reward_") else value / max(ends, 1.0)
            for name, value in sums.items()
            if name not in levels
        } | ({"level": mean} | levels if levels else {})

    def iterate(self) -> dict[str, float]:
        """Collect and learn once; return metrics, with the seconds of both."""
        start = time.perf_counter()
        rollouts = self.collect_trajectory()
        middle = time.perf_counter()
        metrics = self.train_on_trajectory()
        end = time.perf_counter()
        reward, terminated, ended, returns, steps = (
            torch.cat([x(r).flatten() for r in rollouts])
            for x in (
                lambda r: r.reward,
                lambda r: r.terminated,
                lambda r: r.done().bool(),
                lambda r: r.episode_return,
                lambda r: r.episode_steps,
            )
        )
        of_all = distributed.sum_by_name(
            {
                "steps": reward.numel(),
                "broken": sum(worker.broken_rewards for worker in self.workers),
                "reward": float(reward.double().sum()),
                "falls": float(terminated.sum()),
                "episodes": float(ended.sum()),
                "return": float(returns[ended].double().sum()),
                "episode_steps": float(steps[ended].double().sum()),
            }
        )
        self.grow(1000.0 * of_all["falls"] / of_all["steps"])
        metrics |= self.statistics()
        metrics |= {"skipped_gradients": self.skipped, "push_level": self.levels[0], "command_level": self.levels[1]}
        metrics |= {name: of_all[name] for name in ("falls", "episodes")}
        metrics |= {"broken_rewards": of_all["broken"] / of_all["steps"], "reward": of_all["reward"] / of_all["steps"]}
        if of_all["episodes"]:
            metrics |= {name: of_all[name] / of_all["episodes"] for name in ("return", "episode_steps")}
        self.agree()
        self.average.follow()
        self.seconds += end - start
        return metrics | {"collect_seconds": middle - start, "update_seconds": end - middle}
