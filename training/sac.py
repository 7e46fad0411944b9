"""Soft actor-critic: policy and action values learn from all that happened, and from what else might have been asked.

Experience is used many times over, so that few robots are enough: rollouts are drawn from the replay buffer, each of
one robot and with what the policy would have remembered before it (Kapturowski et al., 2019, section 3), and gone
through by the policy as it is now. Most of them are told of another command, with the rewards that the environment says
it would have given for that (Andrychowicz et al., 2017): a robot that cannot walk yet moves all the same, as somebody
might ask.
"""

import copy
import itertools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import Config, SACCfg
from entity import Creature, Memory
from environments import ABEnv
from observation import Normaliser, Reflection, joined
from policy import Policy, State
from training import distributed, ppo
from training.optimizer import Adam, flatten
from training.parallel import side_by_side
from training.replay import Replay
from training.rollout import Rollout
from training.worker import Worker

MIN_STD = 0.1  # that critics divide observations by at least
LEAST_SLOPE = 1e-4  # of tanh, in the density of actions at the bound
FIRST_VALUES = 4.0  # mean size of the values that critics begin with, exponential either way, so that none is ruled out
SETTLED = 10_000  # env steps after which scales keep their meaning: what is in the replay buffer is read with them


class ActionValues(nn.Module):
    """What actions are worth, by several perceptrons side by side, each as a histogram.

    They serve only training and see what the simulator knows beside the observation. Half of what they are asked is
    asked in the mirror, by chance. (Perceptrons that are their own mirror image cost half and learn less: seed 204 of
    quadruped-walk-flat survived 29 instead of 54 % after 8 k env steps.) Shares of a histogram's bins teach more
    than one number does (Farebrother et al., 2024): seed 202 was 0.25 instead of 0.43 rad/s off after 12 k env steps.

    env: anything with body, num_obs, num_actions, num_privileged.
    """

    def __init__(self, env: Any, cfg: SACCfg) -> None:
        super().__init__()
        body = env.body if env.body.obs else None
        size = env.num_obs + env.num_privileged
        of_all = Reflection(size, body and joined(body.obs, body.privileged))
        self.mirrors = nn.ModuleList((of_all, Reflection(env.num_actions, body and body.actions)))
        self.normaliser = Normaliser(of_all, MIN_STD)
        self.dtype = torch.float32  # of the products
        low, high = cfg.values
        edges = torch.linspace(low, high, cfg.bins + 1)
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("centres", 0.5 * (edges[1:] + edges[:-1]), persistent=False)
        self.width = (high - low) / cfg.bins
        sizes = size + env.num_actions, cfg.hidden, cfg.hidden, cfg.bins
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in itertools.pairwise(sizes):
            self.weights.append(torch.empty(cfg.critics, inputs, outputs).uniform_(-1, 1) / math.sqrt(inputs))
            self.biases.append(torch.zeros(cfg.critics, 1, outputs))
        self.biases[-1].data -= self.centres.abs() / FIRST_VALUES

    def forward(self, everything: Tensor, action: Tensor, mirrored: Tensor) -> Tensor:
        """Return what actions (S, A) are worth, as logits of the shares of bins, (critics, S, bins).

        everything: (S, O + P), observations and privileged ones, standardised; mirrored: (S) bool, what is to be looked
        at in the mirror.
        """
        seen = (
            torch.where(mirrored[:, None], of(x), x) for of, x in zip(self.mirrors, (everything, action), strict=True)
        )
        x = torch.cat(tuple(seen), dim=-1).to(self.dtype).expand(len(self.weights[0]), -1, -1)
        *layers, last = zip(self.weights, self.biases, strict=True)
        for weight, bias in layers:
            x = torch.baddbmm(bias.to(self.dtype), x, weight.to(self.dtype))
            x = F.relu(F.layer_norm(x, x.shape[-1:]))
        weight, bias = last
        return torch.baddbmm(bias.to(self.dtype), x, weight.to(self.dtype)).float()

    def mean(self, everything: Tensor, action: Tensor, mirrored: Tensor) -> Tensor:
        """Return the values (critics, S) of actions; arguments as of forward()."""
        return self(everything, action, mirrored).softmax(-1) @ self.centres

    def shares(self, value: Tensor) -> Tensor:
        """Return the histogram (..., bins) of a normal distribution about a value, cut off at the range's ends.

        Its deviation is three quarters of a bin (Imani and White, 2018; Farebrother et al., 2024, section 3.1).
        """
        value = value.clamp(self.edges[0], self.edges[-1])[..., None]
        below = torch.erf((self.edges - value) / (0.75 * self.width * math.sqrt(2.0)))
        shares = below.diff(dim=-1)
        return shares / shares.sum(-1, keepdim=True)

    def standardise(self, everything: Tensor) -> Tensor:
        """Return observations and privileged ones, (..., O + P), of mean 0 and deviation about 1."""
        return (everything - self.normaliser.mean) * self.normaliser.scale


class Lived(NamedTuple):
    """T steps of B robots."""

    everything: Tensor  # (T + 1, B, O + P), observed before and after each
    starts: Tensor  # (T + 1, B), 1 where an observation is the first of its episode
    memory: State  # the policy's before the first, (..., B) each
    action: Tensor  # (T, B, A)
    reward: Tensor  # (T, B)
    terminated: Tensor  # (T, B) float, 1 where the action led to a fall
    known: Tensor  # (T, B), 0 where the episode ended by time, so that nobody saw what followed


class Experienced(Replay):
    """A replay buffer that also holds what robots remembered before a rollout, and what else they were not asked for.

    The latent of a robot is the first observation, whether an episode begins with it, and the policy's memory.
    """

    def __init__(self, env: ABEnv, belief: Policy, capacity: int, rollout: Rollout, device: torch.device) -> None:
        n = env.num_envs
        self.kinds = [x.shape[:-1] for x in belief.initial_state(1)]  # of the memory
        self.sizes = [env.num_obs + env.num_privileged, 1, *(math.prod(kind) for kind in self.kinds)]
        super().__init__(env, (1, sum(self.sizes)), capacity, rollout.steps, 1, device)
        self.shown = rollout.shown
        others = len(rollout.others)
        self.hold("command", n, rollout.command.shape[-1])
        self.hold("others_shown", others, n, self.shown.stop - self.shown.start)
        self.hold("others_reward", rollout.steps, n, others)

    @torch.no_grad()
    def add_all(self, rollouts: list[Rollout]) -> None:
        """Take in a rollout of groups of robots."""
        memory = Memory.join([r.state for r in rollouts]).belief
        first = torch.cat([torch.cat((r.obs[0], r.privileged[0], r.starts[0, :, None]), dim=-1) for r in rollouts])
        i = self.count % self.capacity
        self.add(rollouts, torch.cat((first.to(self.device).T, *(x.flatten(0, -2) for x in memory)))[None])
        start = 0
        for r in rollouts:
            n = slice(start, start + r.reward.shape[1])
            start = n.stop
            self.command[i, n] = r.command[0]
            self.others_shown[i, :, n] = r.others_shown
            # a fall is one under any command
            self.others_reward[i, :, n] = torch.where(r.done()[..., None] > 0.0, r.reward[..., None], r.others_reward)

    @torch.no_grad()
    def remember(self, belief: Policy) -> None:
        """Store what the policy, as it is now, would remember before each rollout.

        Else it learns from what an earlier one remembered, which says something else: seed 204 of quadruped-walk-flat
        got 3.2 instead of 3.7 of rewards a second from 8 k to 12 k env steps.
        """
        memory: State = ()
        oldest = max(0, self.count - self.capacity)
        for number in range(oldest, self.count):
            i = number % self.capacity
            first, start, *stored = self.latent[i, 0].split(self.sizes)
            if number > oldest:
                for kept, new in zip(stored, memory, strict=True):
                    kept.copy_(new.flatten(0, -2))
            memory = tuple(x.unflatten(0, kind) for x, kind in zip(stored, self.kinds, strict=True))
            obs = torch.cat((first.T[None], self.obs[i, :-1]))[..., : belief.num_obs]
            _, memory = belief.evaluate(obs, memory, torch.cat((start, 1.0 - self.keep[i, :-1])))

    def ask(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor] | None:
        """Return other commands for every robot (K, N, C), that robots had, and as they saw them (K, N, columns)."""
        if not self.count:
            return None
        i, n = self.draw(count * self.robots, generator).T
        i = i % self.capacity
        shown = self.latent[i, 0, self.shown, n]
        return self.command[i, n].unflatten(0, (count, -1)), shown.unflatten(0, (count, -1))

    def live(self, batch: int, share: float, generator: torch.Generator) -> Lived:
        """Return rollouts drawn by chance, a share of them as if other commands had been given."""
        places = self.draw(batch, generator)
        s = self.read(places)
        first, start, *memory = s.latent[0].split(self.sizes)
        everything = torch.cat((first.T[None], s.obs))
        reward = s.reward
        some = round(share * batch) if self.others_reward.shape[-1] else 0
        if some:
            i, n = places[:some].T
            i = i % self.capacity
            other = self.randint(0, self.others_reward.shape[-1], some, generator)
            everything[:, :some, self.shown] = self.others_shown[i, other, n]
            reward[:, :some] = self.others_reward[i, :, n, other].T
        return Lived(
            everything,
            torch.cat((start, 1.0 - s.keep)),
            tuple(x.unflatten(0, kind) for x, kind in zip(memory, self.kinds, strict=True)),
            s.action,
            reward,
            s.terminated,
            torch.maximum(s.keep, s.terminated),
        )


class SoftActorCritic:
    """Learns a policy, and what actions are worth, from a replay buffer, on two threads where there are two.

    Haarnoja et al., 2018: two critics, of which the lesser is believed, a slow copy of both that is learnt from, and a
    weight of the policy's entropy that finds itself.
    """

    def __init__(
        self, env: ABEnv, creature: Creature, rollout: Rollout, cfg: Config, device: torch.device, threads: int
    ) -> None:
        self.cfg = cfg.sac
        self.belief = creature.belief
        self.num_obs = env.num_obs
        self.values = ActionValues(env, cfg.sac).to(device)
        self.values.dtype = creature.belief.dtype
        self.target = copy.deepcopy(self.values)
        actor = self.belief.roles()["actor"]
        self.actor = actor
        self.parameters = list(self.values.parameters())
        self.followers = flatten(list(self.target.parameters())).requires_grad_(False)
        self.critics = flatten(self.parameters)
        self.policy = flatten(actor)
        self.weight = torch.full((1,), math.log(cfg.sac.temperature), device=device, requires_grad=True)  # logarithm
        self.judge = copy.deepcopy(self.values)  # the critics before the latest lesson, whom the policy asks
        self.judges = flatten(list(self.judge.parameters())).requires_grad_(False)
        for module in (self.target, self.judge):
            module.normaliser = self.values.normaliser
            module.requires_grad_(False)
        self.optimizer = Adam(self.critics, self.policy, self.weight, epsilon=1e-8)
        self.replay = Experienced(env, self.belief, cfg.sac.capacity, rollout, device)
        self.chances = [
            torch.Generator(device=device).manual_seed(cfg.seed + 7919 * (2 * distributed.rank() + i) + 2)
            for i in (0, 1)
        ]
        self.both = threads > 1 and device.type == "cpu"
        self.updates = 0
        self.skipped = 0  # whose gradient was not finite

    def state(self) -> dict[str, Any]:
        """Return what training on needs beside the optimiser and the networks, tensors not copied."""
        return {
            "chances": [x.get_state() for x in self.chances], "replay": self.replay.state(),
            "updates": self.updates, "skipped": self.skipped,
        }  # fmt: skip

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up where state() was."""
        for generator, kept in zip(self.chances, state["chances"], strict=True):
            generator.set_state(kept.cpu())
        self.replay.load_state(state["replay"])
        self.updates = state["updates"]
        self.skipped = state["skipped"]

    def networks(self) -> list[Tensor]:
        """Return all that it learns beside the policy, not copied."""
        scales = self.values.normaliser
        return [x.detach() for x in (self.critics, self.followers, self.weight, *scales.buffers())]

    def warm_up(self) -> None:
        """Have everything compiled, leaving no trace."""
        n = self.cfg.batch
        steps = self.replay.steps

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, device=self.replay.device)

        everything = zeros(steps + 1, n, self.replay.sizes[0])
        action = zeros(steps, n, self.belief.num_actions)
        nothing = Lived(everything, zeros(steps + 1, n), self.belief.initial_state(n), action, *zeros(3, steps, n))
        chance = torch.Generator(device=self.replay.device)
        self.critics_gradient(nothing, chance)
        self.policy_gradient(nothing, chance)

    def ask(self, workers: list[Worker]) -> None:
        """Have workers ask for rewards under other commands, of which there are some after the first rollout."""
        first = 0
        if others := self.replay.ask(self.cfg.others, self.chances[0]):
            command, shown = (x.cpu() for x in others)
            for worker in workers:
                n = slice(first, first + worker.env.num_envs)
                first = n.stop
                worker.others = command[:, n], shown[:, n]

    def train(self, rollouts: list[Rollout], learning_rate: float) -> dict[str, float]:
        """Take in a rollout, and learn from all there are; return the metrics' means over batches."""
        self.replay.add_all(rollouts)
        if (self.replay.count - 1) * self.replay.steps * self.replay.robots * distributed.size() < SETTLED:
            self.learn_scales(rollouts)
        if self.replay.count < self.cfg.patience:
            return {}
        self.optimizer.rates = [learning_rate] * len(self.optimizer.vectors)
        self.replay.remember(self.belief)
        sums: dict[str, float] = {}
        lessons = max(1, self.cfg.updates // self.cfg.delay)
        for _ in range(lessons):
            for name, x in self.lesson().items():
                sums[name] = sums.get(name, 0.0) + float(x) / lessons
        return sums | {"temperature": float(self.weight.detach().exp())}

    def learn_scales(self, rollouts: list[Rollout]) -> None:
        """Learn the scales of observations, of every process."""
        seen = torch.cat([torch.cat((r.obs[1:], r.privileged[1:]), dim=-1).flatten(0, 1) for r in rollouts])
        seen = seen.to(self.replay.device)
        for moments in distributed.all_gather_moments([self.values.normaliser.moments(seen)]):
            self.values.normaliser.take(moments)
        for moments in distributed.all_gather_moments([self.belief.normaliser.moments(seen)]):
            self.belief.learn_scale(moments)

    def lesson(self) -> dict[str, float]:
        """Teach the critics by some batches and, meanwhile, the policy by one; return the metrics.

        The policy asks the critics as they were before, and so both learn the same, whether side by side or not.
        """
        self.judges.copy_(self.critics.detach())
        parts = self.teach_critics, lambda: self.policy_gradient(self.live(1), self.chances[1])
        (metrics, (gradient, more)) = side_by_side(lambda part: part(), parts) if self.both else [x() for x in parts]
        gradient, more = self.mean(gradient, more)
        self.take(gradient, self.policy, self.weight)
        return metrics | more

    def live(self, chance: int) -> Lived:
        """Return a batch, drawn by one of the generators."""
        return self.replay.live(self.cfg.batch, self.cfg.relabelled, self.chances[chance])

    def teach_critics(self) -> dict[str, float]:
        """Teach the critics by as many batches as come between two of the policy's; return the metrics' means."""
        sums: dict[str, float] = {}
        for _ in range(self.cfg.delay):
            gradient, metrics = self.mean(*self.critics_gradient(self.live(0), self.chances[0]))
            self.take(gradient, self.critics)
            self.followers.lerp_(self.critics.detach(), self.cfg.target_rate)
            for name, x in metrics.items():
                sums[name] = sums.get(name, 0.0) + x / self.cfg.delay
        return sums

    @staticmethod
    def mean(gradient: Tensor, metrics: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Return the means over all processes."""
        total, numbers = distributed.all_reduce(gradient, {name: float(x) for name, x in metrics.items()})
        return total / distributed.size(), {name: x / distributed.size() for name, x in numbers.items()}

    def take(self, gradient: Tensor, *vectors: Tensor) -> None:
        """Take a step along the gradient of some vectors, unless it is not finite."""
        self.updates += 1
        parts = dict(zip(vectors, gradient.split([len(x) for x in vectors]), strict=True))
        self.skipped += not self.optimizer.step(*(parts.get(x) for x in self.optimizer.vectors))

    def act(self, lived: Lived, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return what the policy does at each instant, (T + 1, B, A), and the logarithm of its density, (T + 1, B).

        Haarnoja et al., 2018, eq. 21, of what tanh bounds.
        """
        mean, _ = self.belief.evaluate(lived.everything[..., : self.num_obs], lived.memory, lived.starts)
        std = self.belief.std()
        unbounded = mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)
        action = self.belief.bounded(unbounded)
        density = ppo.gaussian_log_prob(unbounded, mean, std)
        if bound := self.belief.cfg.bound:
            density = density - (1.0 - (action / bound).square() + LEAST_SLOPE).log().sum(-1)
        return action, density

    def critics_gradient(self, lived: Lived, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the critics' gradient, one vector, and metrics.

        An action is worth its reward and what the policy expects from then on (Haarnoja et al., 2018, eq. 5). The loss
        is the cross-entropy to the histogram about that.
        """
        n = lived.reward.shape[1]
        with torch.no_grad():
            action, density = self.act(lived, generator)
            everything = self.values.standardise(lived.everything).flatten(0, 1)
            mirrored = self.toss(len(everything) - n, generator)
            expected = self.target.mean(everything[n:], action[1:].flatten(0, 1), mirrored).amin(0)
            expected = expected - self.weight.exp() * density[1:].flatten()
            reward, terminated, known = (x.flatten() for x in (lived.reward, lived.terminated, lived.known))
            worth = self.cfg.reward_scale * reward + self.cfg.gamma * (1.0 - terminated) * expected
            shares = self.values.shares(worth)
            low, high = self.values.edges[[0, -1]]
            outside = ((worth < low) | (worth > high)).float().mean()
        logits = self.values(everything[:-n], lived.action.flatten(0, 1), mirrored)
        loss = -((shares * logits.log_softmax(-1)).sum(-1) * known).mean(1).sum()
        gradient = self.flat(torch.autograd.grad(loss, self.parameters))
        return gradient, {"value_loss": loss.detach(), "values_outside": outside}

    def policy_gradient(self, lived: Lived, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient of the policy and of the entropy's weight, one vector, and metrics.

        Haarnoja et al., 2018, eq. 7 and 17; of two critics the policy hears the mean.
        """
        everything = self.values.standardise(lived.everything[:-1]).flatten(0, 1)
        action, density = self.act(lived, generator)
        density = density[:-1].mean()
        worth = self.judge.mean(everything, action[:-1].flatten(0, 1), self.toss(len(everything), generator)).mean()
        loss = self.weight.detach().exp().sum() * density - worth
        entropy = -density.detach()
        aim = self.cfg.entropy * self.belief.num_actions
        gradients = torch.autograd.grad(loss, self.actor)
        return self.flat((*gradients, entropy - aim)), {
            "policy_loss": loss.detach(),
            "entropy": entropy,
        }

    @staticmethod
    def toss(count: int, generator: torch.Generator) -> Tensor:
        """Return whether to look in the mirror, (S) bool, each with a chance of a half."""
        return torch.rand(count, generator=generator, device=generator.device) < 0.5

    @staticmethod
    def flat(gradients: tuple[Tensor, ...]) -> Tensor:
        """Return gradients as one vector."""
        return torch.cat([x.flatten() for x in gradients])
