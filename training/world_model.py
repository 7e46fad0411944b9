"""Training of the world model on the policy's own rollouts."""

import torch
from torch import Tensor
from torch.nn import functional as F

from config import WorldModelCfg
from entity import WorldModel
from training.rollout import Rollout


def world_model_loss(model: WorldModel, obs: Tensor, action: Tensor, reward: Tensor, terminated: Tensor, next_obs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of reconstruction, prediction, latent consistency, reward and end losses.

    obs, next_obs: (B, O), next_obs the same episode's, its final one where it ended; action:
    (B, A); reward, terminated: (B).
    """
    out = model(obs, action)
    parts = {
        "reconstruction": F.mse_loss(out["reconstruction"], obs),
        "next_obs": F.mse_loss(out["next_obs"], next_obs),
        "latent": F.mse_loss(out["next_latent"], model.encode(next_obs).detach()),
        "reward": F.mse_loss(out["reward"], reward),
        "done": F.binary_cross_entropy_with_logits(out["done"], terminated),
    }
    return torch.stack(list(parts.values())).sum(), {f"world_{key}": x.detach() for key, x in parts.items()}


class WorldModelTrainer:
    """Fits a WorldModel to each rollout once, in minibatches over time steps."""

    def __init__(self, model: WorldModel, cfg: WorldModelCfg) -> None:
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate, eps=1e-5)

    def train_on_trajectory(self, r: Rollout, device: torch.device) -> dict[str, float]:
        """Take one step per two control steps of a rollout; return the losses' means."""
        done = r.done().bool()[..., None]
        following = torch.where(done, r.final_obs, r.obs[1:])
        sums: dict[str, Tensor] = {}
        pairs = range(0, r.steps, 2)
        for t in pairs:
            batch = [x[t : t + 2].flatten(0, 1).to(device) for x in (r.obs[:-1], r.action, r.reward, r.terminated.float(), following)]
            loss, metrics = world_model_loss(self.model, *batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
            self.optimizer.step()
            for key, x in metrics.items():
                sums[key] = sums.get(key, 0.0) + x
        return {key: float(x) / len(pairs) for key, x in sums.items()}
