"""The gradient that experience gives: by autograd, by compiled passes alone, or by one CUDA graph."""

import torch
from torch import Tensor

import fused
from config import PPOCfg
from entity import EntityBelief
from policy import Policy
from training import ppo
from training.experience import Experience
from training.graph import record


def gradient(
    belief: Policy, cfg: PPOCfg, x: Experience, parameters: list[Tensor], mean: Tensor, std: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss's gradient, one vector, and metrics; advantages are normalised by mean and std."""
    returns = x.value + x.advantage
    advantage = (x.advantage - mean) / (std + 1e-8)
    if x.reached is not None:
        advantage = advantage * x.reached
    if passes_suffice(belief, x):
        return by_passes(belief, cfg, x, parameters, returns, advantage)
    return by_autograd(belief, cfg, x, parameters, returns, advantage)


def by_autograd(
    belief: Policy, cfg: PPOCfg, x: Experience, parameters: list[Tensor], returns: Tensor, advantage: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what gradient() does, of any policy; returns, advantage: (T, N), the latter normalised."""
    new_mean, _ = belief.evaluate(x.obs, x.memory, x.starts, x.context)
    new_value = belief.value_of(x.features.flatten(-2)).view_as(returns)
    new_std = belief.std()
    actor, clipped, kl = ppo.policy_loss(new_mean, new_std, x.action, x.mean, x.std, advantage, cfg.clip)
    critic = 0.5 * (new_value - returns).square().mean()
    bonus = ppo.entropy(new_std)
    metrics = {"policy_loss": actor, "value_loss": critic, "entropy": bonus, "clip_fraction": clipped, "kl": kl}
    if x.taught is not None:
        std_of_teacher, share = x.teacher
        imitation = ppo.gaussian_kl(x.taught, std_of_teacher, new_mean, new_std).mean()
        actor = (1.0 - share) * actor + share * imitation
        metrics["imitation_loss"] = imitation
    loss = actor + critic - cfg.entropy_coefficient * bonus
    vector = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    return vector, {key: y.detach() for key, y in metrics.items()}


def passes_suffice(belief: Policy, x: Experience) -> bool:
    """Return whether by_passes() can take a minibatch: Foal's own policy, whole vectors of robots, no teacher."""
    return (
        type(belief) is EntityBelief
        and belief.cfg.attention
        and belief.cfg.recurrent
        and belief.compiled(x.obs)
        and x.obs.shape[1] % (2 * fused.WIDTH) == 0
        and x.taught is None
    )


@torch.no_grad()
def by_passes(
    belief: EntityBelief, cfg: PPOCfg, x: Experience, parameters: list[Tensor], returns: Tensor, advantage: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what by_autograd() does, by the compiled passes of EntityBelief's layers, one after another.

    Autograd's book-keeping takes an eighth of a gradient, 0.8 ms of a minibatch of 64 robots and 16 steps (Emerald
    Rapids), most of it holding Python's lock, which other threads wait for.
    """
    b = belief
    body = b.body_encoder
    seen = x.obs.flatten(0, 1)
    attention, encoder, lstm, head, loss, hidden, value = (
        fused.Passes(layer)
        for layer in (
            fused.BodyAttention, fused.Dense, fused.LSTMSequence, fused.PolicyHead, fused.PolicyLoss, fused.Dense,
            fused.ValueHead,
        )
    )  # fmt: skip
    ground, critic = (fused.Passes(fused.Dense, of_data=True) for _ in range(2))

    # forwards, as EntityBelief.evaluate() and value_of() do
    y = attention(
        seen, body.columns, body.scale, body.shift, body.kinds, body.weight, body.bias, body.attention, b.sides, b.dtype
    )
    parts = [y]
    if b.sees_ground:
        parts.append(ground(*b.read(b.ground_features, seen, b.ground_encoder, True), b.ground_encoder_bias))
    if x.context is not None:
        parts.append(x.context.to(b.dtype).flatten(2))
    y = encoder(y if len(parts) == 1 else torch.cat(parts, dim=1), b.encoder, b.encoder_bias)
    y, _ = lstm(y, b.lstm, b.lstm_bias, *x.memory, 1.0 - x.starts)
    mean = head(y, b.policy, b.policy_bias, b.action_columns, b.action_signs).view(x.mean.shape)
    std = b.std()
    actor, clipped, kl = loss(mean, std, x.action, x.mean, x.std, advantage, cfg.clip)
    y = x.features.flatten(-2).expand(b.sides, -1, -1)
    y = critic(y, b.value_features.weights(b.value_encoder), b.value_encoder_bias)
    y = hidden(y, b.value_hidden, b.value_hidden_bias)
    error = value(y, b.value_weight, b.value_bias) - returns.flatten()

    # and back
    found: dict[Tensor, Tensor] = {}  # by parameter
    dmean, dstd = loss.saved_tensors
    found[b.log_std] = b.log_std_gradient(std, dstd - cfg.entropy_coefficient / std)
    dy, found[b.policy], found[b.policy_bias], *_ = head.back(dmean.flatten(0, 1))
    dy, found[b.lstm], found[b.lstm_bias], *_ = lstm.back(dy, None)
    dy, found[b.encoder], found[b.encoder_bias] = encoder.back(dy)
    dy, *others = dy.split([part.shape[1] for part in parts], dim=1)
    if b.sees_ground:
        _, dweight, found[b.ground_encoder_bias] = ground.back(others[0])
        found[b.ground_encoder] = b.ground_features.weights_gradient(dweight)
    found[body.weight], found[body.bias], found[body.attention] = attention.back(dy)[5:8]
    dy, found[b.value_weight], found[b.value_bias] = value.back(error / len(error))
    dy, found[b.value_hidden], found[b.value_hidden_bias] = hidden.back(dy)
    _, dweight, found[b.value_encoder_bias] = critic.back(dy)
    found[b.value_encoder] = b.value_features.weights_gradient(dweight)

    metrics = {
        "policy_loss": actor,
        "value_loss": 0.5 * error.square().mean(),
        "entropy": ppo.entropy(std),
        "clip_fraction": clipped,
        "kl": kl,
    }
    return torch.cat([found[p].flatten() for p in parameters]), metrics


class GradientGraph:
    """gradient() of minibatches of one shape on a GPU, as one CUDA graph.

    Replaying a sequence launches a thousand kernels of microseconds.
    """

    def __init__(
        self, belief: Policy, cfg: PPOCfg, x: Experience, parameters: list[Tensor], mean: Tensor, std: Tensor
    ) -> None:
        self.x = x.map(torch.clone)
        self.scale = (mean.clone(), std.clone())

        def compute() -> None:
            self.result = gradient(belief, cfg, self.x, parameters, *self.scale)

        self.graph = record(compute)

    def __call__(self, x: Experience, *scale: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what gradient() does; the next call overwrites it."""
        for kept, new in zip((*self.x.tensors(), *self.scale), (*x.tensors(), *scale), strict=True):
            kept.copy_(new)
        self.graph.replay()
        return self.result


class Gradients:
    """gradient() of one policy: as it is on the CPU, by a graph for each shape of minibatch on a GPU."""

    def __init__(self, belief: Policy, cfg: PPOCfg, parameters: list[Tensor]) -> None:
        self.belief = belief
        self.cfg = cfg
        self.parameters = parameters
        self._graphs: dict[tuple, GradientGraph] = {}

    def __call__(self, x: Experience, mean: Tensor, std: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient and metrics of a minibatch.

        On a GPU the next call with one of that shape overwrites them.
        """
        if x.value.device.type != "cuda":
            return gradient(self.belief, self.cfg, x, self.parameters, mean, std)
        shapes = tuple(y.shape for y in x.tensors())
        if shapes not in self._graphs:
            self._graphs[shapes] = GradientGraph(self.belief, self.cfg, x, self.parameters, mean, std)
        return self._graphs[shapes](x, mean, std)
