"""What to do about numbers that are not finite, or a policy that a step destroyed: go back, and step more carefully.

A robot whose numbers are not finite has its episode ended and counted by its environment; a reward or a gradient that
is not finite is left out and counted by the engine. What is left is here: an iteration that taught nothing, or ruined
the networks, is undone, and the learning rate falls.
"""

import math

import torch
from torch import Tensor

from training.engine import TrainingEngine

LARGEST_KL = 3.0  # divergence [nat] of an update beyond which nothing is left of the policy; usual are 0.005 to 0.05
LARGEST_REWARD = 1e3  # of a term, a second, above which it is named
CAUTION = 0.2  # times the learning rate, where an iteration was undone
PATIENCE = 10  # iterations undone in a row before training ends
BROKEN = 0.5  # share of rewards or episodes that are too many to learn from the others


class Guard:
    """Keeps the last networks that were sound, and goes back to them.

    undone: iterations that were, in all; in_a_row: of them, up to the last one.
    """

    def __init__(self, engine: TrainingEngine, undone: int = 0) -> None:
        self.engine = engine
        self.undone = undone
        self.in_a_row = 0
        self._kept = [x.clone() for x in self._tensors()]
        self._before = engine.skipped, engine.updates

    @property
    def given_up(self) -> bool:
        """Whether going back has not helped for too long."""
        return self.in_a_row >= PATIENCE

    def look(self, metrics: dict[str, float]) -> str:
        """Look at an iteration; return what was seen, in words, where it was undone, "" where all is well."""
        seen = self._seen(metrics)
        engine = self.engine
        if seen:
            for x, kept in zip(self._tensors(), self._kept, strict=True):
                x.copy_(kept)
            rate = engine.learning_rate
            engine.learning_rate = min(rate, max(CAUTION * rate, engine.cfg.ppo.min_learning_rate))
            self.undone += 1
            self.in_a_row += 1
        else:
            for x, kept in zip(self._tensors(), self._kept, strict=True):
                kept.copy_(x)
            self.in_a_row = 0
        self._before = engine.skipped, engine.updates
        metrics["undone"] = self.undone
        return seen

    def _tensors(self) -> list[Tensor]:
        """Return all that training changes of networks, optimisers and the scale of advantages."""
        engine = self.engine
        world = engine.world_model
        optimizers = [engine.optimizer, *([world.optimizer] if world else [])]
        moments = (x for optimizer in optimizers for group in optimizer.moments() for x in group.values())
        networks = *engine.creature.state_dict().values(), engine.average.value
        learnt = [*([world.learnt] if world else []), *(engine.sac.networks() if engine.sac else [])]
        return [x.detach() for x in (*networks, *learnt, *moments, engine.variance)]

    def _seen(self, metrics: dict[str, float]) -> str:
        """Return what is wrong, in words, "" for nothing."""
        engine = self.engine
        skipped, updates = (now - then for now, then in zip(self._now(), self._before, strict=True))
        terms = {name: x for name, x in metrics.items() if name.startswith("reward_") and abs(x) > LARGEST_REWARD}
        largest = max(terms, key=lambda name: abs(terms[name]), default="")
        about = f", most of it {largest.removeprefix('reward_')}" if largest else ""
        reward = f"mean reward {metrics['reward']:.3g}{about}"
        if metrics["broken_rewards"] > BROKEN:
            return f"{metrics['broken_rewards']:.0%} of the rewards were not finite ({reward})"
        if metrics.get("end_broken", 0.0) > BROKEN:
            complaint = next((f" ({w.env.complaint})" for w in engine.workers if w.env.complaint), "")
            return f"{metrics['end_broken']:.0%} of the episodes ended by numbers that were not finite{complaint}"
        losses = {name: metrics[name] for name in ("policy_loss", "value_loss") if name in metrics}
        if updates and skipped == updates:
            named = ", ".join(f"{name.replace('_', ' ')} {x:.3g}" for name, x in losses.items())
            return f"no gradient was finite ({named}, {reward})"
        if not all(torch.isfinite(x).all() for x in self._tensors() if x.is_floating_point()):
            return "weights were not finite"
        kl = metrics.get("kl", 0.0)
        if not kl <= LARGEST_KL:
            rate = metrics["learning_rate"]
            return f"nothing was left of the policy (divergence {kl:.3g} nat, learning rate {rate:.3g})"
        broken = [name for name in (*losses, "reward") if not math.isfinite(metrics[name])]
        return f"{broken[0].replace('_', ' ')} was not finite ({reward})" if broken else ""

    def _now(self) -> tuple[int, int]:
        return self.engine.skipped, self.engine.updates
