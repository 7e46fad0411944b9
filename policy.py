"""Policy: what acts, as the trainer, the evaluation and the export need it; EntityBelief (entity.py) is one.

Shapes: T time steps, N robots, S = T N samples, O observations, P privileged observations, A actions, B = any leading
dimensions.

What robots remember from one step to the next is a tuple of tensors with robots last, (..., N) each, zeros where
nothing was seen yet; empty for a policy without memory.
"""

import abc
import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from config import NetworkCfg
from observation import Moments, Normaliser, Reflection
from settings import ConfigError, imported, suggest

State = tuple[Tensor, ...]


class Policy(nn.Module, abc.ABC):
    """A Gaussian policy and its critic.

    The critic serves only training and sees what the simulator knows beside the observation.

    A subclass gives evaluate() and value_of(), initial_state() if it remembers, and log_std (A), a parameter, or std().
    Parameters whose names begin with "value" or "critic" are the critic's, all others the actor's.

    env: anything with num_obs, num_actions, num_privileged and body (environments.contracts); cfg: sizes, which a
    policy may read or leave; mirrors: of observation and privileged observation together, if the policy knows them.
    """

    state_names: ClassVar[tuple[str, ...]] = ()  # of the tensors of its state, as exported files call them
    reads_context: ClassVar[bool] = False  # whether it can read a world model's state

    def __init__(self, env: Any, cfg: NetworkCfg, mirrors: Reflection | None = None) -> None:
        super().__init__()
        self.cfg = cfg
        self.num_obs = env.num_obs
        self.num_actions = env.num_actions
        self.dtype = torch.float32  # of the products, where it heeds that
        self.use_fused = True  # compiled code on the CPU, where it has any
        self.register_buffer("log_limits", torch.tensor([math.log(cfg.min_std), math.log(10.0)]), persistent=False)
        self.normaliser = Normaliser(
            mirrors or Reflection(env.num_obs + env.num_privileged, None), cfg.min_observation_std
        )

    def initial_state(self, num_envs: int) -> State:
        """Return the state of N robots that have seen nothing: zeros, robots last."""
        return ()

    @abc.abstractmethod
    def evaluate(
        self, obs: Tensor, state: State, starts: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Return mean actions (T, N, A) and the state after them, which no gradient flows through.

        As many single steps would: the state goes from each to the next, and is zeros again where an episode starts.

        obs: (T, N, O), as it comes, see standardise(); starts: (T, N), 1 where a step is the first of its episode,
        None where none is; context: (sides, context, T, N), for those who read a world model.
        """

    @abc.abstractmethod
    def value_of(self, features: Tensor) -> Tensor:
        """Return values (S) of critic_features()."""

    def critic_features(self, everything: Tensor) -> Tensor:
        """Return what the critic reads, (..., S), of observations and privileged ones, (S, O + P).

        It is computed once a rollout.
        """
        return self.standardise(everything).T

    def standardise(self, x: Tensor) -> Tensor:
        """Return observations of mean 0 and deviation about 1.

        x: (B, O), or with the privileged ones behind them (B, O + P).
        """
        size = x.shape[-1]
        return (x - self.normaliser.mean[:size]) * self.normaliser.scale[:size]

    def observe(self, obs: Tensor, privileged: Tensor) -> None:
        """Learn the scale of observations (B, O) and privileged observations (B, P)."""
        self.learn_scale(self.normaliser.moments(torch.cat((obs, privileged), dim=-1)))

    def learn_scale(self, moments: Moments) -> None:
        """Learn the scale of observations from their moments, privileged ones behind the others."""
        self.normaliser.take(moments)

    def bounded(self, x: Tensor) -> Tensor:
        """Return actions (..., A), or mean ones, within the configured bound: what is done of what evaluate() says."""
        bound = self.cfg.bound
        return bound * torch.tanh(x / bound) if bound else x

    def std(self) -> Tensor:
        """Return the standard deviation of the actions, (A), within bounds and so always finite."""
        return self.log_std.clamp(*self.log_limits).exp()

    def drawn(self, mean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions and their means, (N, A), within the configured bound; noise: (N, A) standard normal."""
        return self.bounded(mean + self.std() * noise), self.bounded(mean)

    def value(self, obs: Tensor, privileged: Tensor) -> Tensor:
        """Return the value (B) of observations (B, O) and privileged observations (B, P)."""
        x = torch.cat((obs, privileged), dim=-1)
        return self.value_of(self.critic_features(x.flatten(0, -2))).unflatten(0, obs.shape[:-1])

    @torch.no_grad()
    def act(
        self,
        obs: Tensor,
        state: State,
        starts: Tensor | None = None,
        noise: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, State]:
        """Return actions (N, A), their means (N, A) and the next state, for one step of N robots.

        obs: (N, O); starts: (N); noise: (N, A) standard normal, None for the mean itself; context: (sides, context, N).
        """
        starts = None if starts is None else starts[None]
        context = None if context is None else context[:, :, None]
        mean, state = self.evaluate(obs[None], state, starts, context)
        mean = mean[0]
        action, mean = (self.bounded(mean),) * 2 if noise is None else self.drawn(mean, noise)
        return action, mean, state

    def is_recordable(self, n: int) -> bool:
        """Return whether all that is computed of n robots on the CPU, forwards and backwards, is compiled calls."""
        return False

    def roles(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of the actor and of the critic.

        Their steps are clipped apart and of their own length.
        """
        named = list(self.named_parameters())
        critic = [name.startswith(("value", "critic")) for name, _ in named]
        return {
            "actor": [p for (_, p), of_critic in zip(named, critic, strict=True) if not of_critic],
            "critic": [p for (_, p), of_critic in zip(named, critic, strict=True) if of_critic],
        }


def make(name: str, env: Any, cfg: NetworkCfg, context: int = 0) -> Policy:
    """Return a policy of a class named as "module:Class".

    context: features of a side that it reads of a world model, beside the observation.

    Raises ConfigError, in a line, if there is no such class, or it does not keep to the protocol.
    """
    what = "network.policy"
    if ":" not in name:
        raise ConfigError(f"{what}: expected module:Class, such as examples.mlp:MLP, got {name!r}")
    module, short = imported(name, "Class", what)
    kind = getattr(module, short, None)
    if not (isinstance(kind, type) and issubclass(kind, Policy)):
        known = [key for key, x in vars(module).items() if isinstance(x, type) and issubclass(x, Policy)]
        raise ConfigError(
            f"{what}: expected a class of policy.Policy in {module.__name__}, {suggest(short, known, '')}"
        )
    if missing := sorted(kind.__abstractmethods__):
        raise ConfigError(f"{what}: {name}: expected a method {missing[0]}()")
    if context and not kind.reads_context:
        raise ConfigError(f"{what}: {name} does not read a world model; expected another world_model.role than belief")
    return kind(env, cfg, context) if kind.reads_context else kind(env, cfg)


def check(policy: Policy, env: Any, context: tuple[int, int] | None = None) -> None:
    """Raise ConfigError, in a line, if a policy does not do what the protocol says, or leaves parameters unused.

    A sequence must give what its steps give, one after another: PPO compares the probabilities of both.

    context: sides, and features of a side, of what the policy reads of a world model; None if it reads nothing.
    """
    what = f"network.policy: {type(policy).__name__}"
    steps = 3
    n = 2
    random = torch.Generator().manual_seed(0)
    obs = torch.randn(steps, n, env.num_obs, generator=random)
    privileged = torch.randn(steps, n, env.num_privileged, generator=random)
    starts = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    read = None if context is None else torch.randn(*context, steps, n, generator=random)
    start = policy.initial_state(n)
    if not isinstance(start, tuple) or any(x.shape[-1] != n for x in start):
        raise ConfigError(f"{what}.initial_state(N): expected a tuple of tensors (..., N), robots last")
    if any(x.any() for x in start):
        raise ConfigError(f"{what}.initial_state(N): expected zeros, as of robots that have seen nothing")
    if len(policy.state_names) not in (0, len(start)):
        raise ConfigError(f"{what}.state_names: expected {len(start)} names, got {len(policy.state_names)}")
    if not hasattr(policy, "log_std") and type(policy).std is Policy.std:
        raise ConfigError(f"{what}: expected log_std, a parameter ({env.num_actions}), or a method std()")
    mean, last = policy.evaluate(obs, start, starts, read)
    value = policy.value(obs, privileged)
    for method, got, expected in (
        ("evaluate(obs, state, starts)", mean, (steps, n, env.num_actions)),
        ("std()", policy.std(), (env.num_actions,)),
        ("value_of(features)", value, (steps, n)),
    ):
        if tuple(got.shape) != expected:
            raise ConfigError(f"{what}.{method}: expected shape {expected}, got {tuple(got.shape)}")
    if [x.shape for x in last] != [x.shape for x in start]:
        raise ConfigError(f"{what}.evaluate(): expected a state of the shapes of initial_state()")
    used = torch.autograd.grad(
        mean.sum() + value.sum() + policy.std().sum(), list(policy.parameters()), allow_unused=True
    )
    idle = [name for (name, _), g in zip(policy.named_parameters(), used, strict=True) if g is None]
    if idle:
        raise ConfigError(f"{what}: {idle[0]}: expected a parameter that actions or values depend on")
    if not all(policy.roles().values()):
        raise ConfigError(f"{what}: expected parameters of a critic, whose names begin with value or critic")
    one = []
    state = start
    for t in range(steps):
        _, found, state = policy.act(obs[t], state, starts[t], None, None if read is None else read[:, :, t])
        one.append(found)
    if not torch.allclose(torch.stack(one), policy.bounded(mean), rtol=1e-3, atol=1e-3):
        raise ConfigError(f"{what}.evaluate(): expected of {steps} steps at once the actions of one after another")
