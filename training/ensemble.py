"""Training of an ensemble on single steps."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ensemble import Ensemble
from observation import change_over
from training.replay import Transitions
from training.world_model import Chance, WorldModelTrainer

LEAST_VARIANCE = 1e-4  # of errors of a standardised number, below which it need not be known better
WEIGHT = 10.0  # of reward and end, over an observed number


def ensemble_loss(model: Ensemble, s: Transitions) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss [nat] and metrics, each member's of a part of the steps.

    Each observed number has the variance of errors at which its likelihood is greatest, that of the batch (Rybkin et
    al., 2021, eq. 8), so that none drowns the others.
    """
    before, action = model.inputs(s.before, s.action)
    after, _ = model.inputs(s.after, s.action)
    target = change_over(after - before)
    before, action, after = (x.to(model.dtype) for x in (before, action, after))
    reward = (s.reward - model.reward_scale.mean) * model.reward_scale.scale
    parts: dict[str, Tensor] = {}
    for i, member in enumerate(model.members):
        which = slice(i, None, len(model.members))
        x, a, y, keep = before[..., which], action[..., which], after[..., which], s.keep[which]
        share = keep / keep.mean().clamp(min=1e-3)
        change, goes_on = member(x, a)
        error = ((change - target[..., which]).square() * share).mean(-1).mean(0)[: model.num_all]
        missed = (member.reward(x, a, y) - reward[which]).square() * share
        end = F.binary_cross_entropy_with_logits(goes_on, 1.0 - s.terminated[which])
        for name, loss in (
            ("dynamics", 0.5 * (error + LEAST_VARIANCE).log().sum()),
            ("reward", WEIGHT * missed.mean()),
            ("done", WEIGHT * end),
        ):
            parts[name] = parts.get(name, 0.0) + loss / len(model.members)
    loss = torch.stack(list(parts.values())).sum()
    return loss, {f"world_{name}": x.detach() for name, x in parts.items()}


class EnsembleTrainer(WorldModelTrainer):
    """Fits an Ensemble to single steps from a replay buffer, a part of a batch in every thread."""

    largest_gradient = 100.0

    def warm_up(self) -> None:
        """Have everything compiled, leaving no trace."""
        m = self.model
        n = 2 * len(m.members)
        sizes = (m.num_all,), (m.num_actions,), (m.num_all,), (), (), ()
        nothing = Transitions(*(torch.zeros(n, *size, device=self.replay.device) for size in sizes))
        torch.autograd.grad(ensemble_loss(m, nothing)[0], self.parameters)

    def train(self) -> dict[str, float]:
        """Take the configured number of steps; return the metrics' means."""
        self.dangerous = self.replay.dangerous()
        return super().train()

    def gradient(self, chance: Chance) -> tuple[Tensor, dict[str, Tensor], Any]:
        """Return the loss's gradient, one vector, and metrics; nothing is to be stored anew."""
        batch = self.part() * len(self.model.members)
        steps = self.replay.transitions(batch, chance.generator, self.cfg.falls, self.dangerous)
        loss, metrics = ensemble_loss(self.model, steps)
        return self.flat_gradient(loss), metrics, None
