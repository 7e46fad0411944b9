"""Teacher: a policy that sees more than the one that learns, and says what it would do in its place.

The learner acts, the teacher is asked wherever that leads, and imitating it gives way to the reward:

    loss = (1 - share) policy loss + share KL(teacher || learner) + value loss - ...

The critic learns from rewards throughout and knows what the learner is worth once the share is gone. Asking about the
learner's own situations is DAgger (Ross et al., 2011); that one who sees the ground teaches one who is blind is after
Lee et al., 2020, "Learning quadrupedal locomotion over challenging terrain".
"""

import torch
from torch import Tensor

from config import Config
from entity import Creature
from environments import ABEnv, registry
from policy import State
from settings import ConfigError
from training import checkpoint, runs

# What an action, or what is commanded, means
MEANINGS = *checkpoint.LEARNT_FOR, "env.action_scale", "env.ctrl_dt", "env.kp", "env.kd"


class Teacher:
    """A trained policy, of what a learner's policy and critic are told.

    env, creature: the learner's.

    Raises ConfigError where the policy is another robot's, or sees what the learner's task tells nobody.
    """

    def __init__(self, cfg: Config, env: ABEnv, creature: Creature, device: torch.device) -> None:
        loaded = checkpoint.load(runs.policy(cfg.teacher.policy), modules={cfg.task, cfg.network.policy})
        loaded.require_same(cfg, MEANINGS)
        own = registry.make(loaded.config.task, cfg=loaded.config.env)
        taught = loaded.creature(own)
        if taught.reads:
            raise ConfigError(f"teacher.policy: expected one that reads no world model, {loaded.path} does")
        self.columns = torch.tensor(_columns(own, env, loaded.path), device=device)
        self.belief = taught.belief.to(device).requires_grad_(False)
        self.belief.dtype = creature.belief.dtype
        self.std = self.belief.std()

    def means(self, everything: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Return what it would do, (T, N, A), and its state after that.

        everything: (T, N, O + P), the learner's observations and privileged ones; starts: (T, N), see Policy.evaluate.
        """
        mean, state = self.belief.evaluate(everything[..., self.columns], state, starts)
        return self.belief.bounded(mean), state


def _columns(own: ABEnv, env: ABEnv, path: str) -> list[int]:
    """Return where a teacher's observations are among a learner's, the privileged ones behind them."""
    if not hasattr(own, "terms") or not hasattr(env, "terms"):
        if own.num_obs != env.num_obs:
            raise ConfigError(f"teacher.policy: expected {env.num_obs} observations, {path} sees {own.num_obs}")
        return list(range(own.num_obs))
    at = 0
    places = {}
    for term in (*env.terms.columns, *env.terms.privileged):
        places.setdefault(term, range(at, at + term.columns))  # the policy's own, where both are told
        at += term.columns
    for term in own.terms.columns:
        if term not in places:
            raise ConfigError(
                f"teacher.policy: {path} sees {term.name}; expected the task to tell it its policy, or its critic by "
                "privileged=(...)"
            )
    return [column for term in own.terms.columns for column in places[term]]
