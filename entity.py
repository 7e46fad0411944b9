"""The learning creature: EntityBelief (what it makes of its observations and does), WorldModel (what it expects), Creature (both).

Shapes: T time steps, N robots, B = any leading dimensions, O observations, A actions.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fused
from config import NetworkCfg, WorldModelCfg


class BeliefState(NamedTuple):
    """Recurrent state of N robots: (N, lstm) each, float32."""

    hidden: Tensor
    cell: Tensor


def product(x: Tensor, layer: nn.Linear, dtype: torch.dtype) -> Tensor:
    """Return layer(x) with the product taken in dtype; the weights stay float32."""
    if dtype == torch.float32:
        return layer(x)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    return F.linear(x.to(dtype), layer.weight.to(dtype), bias)


def _all_parts(body: Any) -> list[tuple[str, list[int], list[float]]]:
    """Return kind, columns and signs of every part of a body, those that its mirror shows included."""
    parts = []
    for node in body.nodes:
        parts.append((node.kind, list(node.columns), [1.0] * len(node.columns)))
        if body.obs is not None and set(columns := [body.obs.columns[c] for c in node.columns]) != set(node.columns):
            parts.append((node.kind, columns, [body.obs.signs[c] for c in node.columns]))
    return parts


class BodyEncoder(nn.Module):
    """Encode a body whose parts are nodes of a graph: shared weights per kind of part, then graph attention.

    GATv2 (Brody et al., 2022, eq. 7) over the complete graph with self loops, H heads:

        e_ij = a . LeakyReLU(W_l x_i + W_r x_j),  alpha_i = softmax_j(e_ij),  y_i = sum_j alpha_ij W_r x_j

    body: nodes, each with its kind and the observation's columns it reads (a right leg is a left leg
    in the body's mirror). A body of one node needs no attention: y = W_r x.
    """

    def __init__(self, body: Any, cfg: NetworkCfg) -> None:
        super().__init__()
        nodes = _all_parts(body)
        self.num_nodes = len(nodes)
        self.width = cfg.heads * cfg.head_size
        self.out_features = self.num_nodes * self.width
        names = sorted({kind for kind, _, _ in nodes})
        features = max(len(columns) for _, columns, _ in nodes)
        # a part that reads fewer columns is padded: its first column, times 0
        columns = torch.tensor([own + [0] * (features - len(own)) for _, own, _ in nodes])
        signs = torch.tensor([own + [0.0] * (features - len(own)) for _, _, own in nodes])
        kinds = torch.tensor([names.index(kind) for kind, _, _ in nodes])
        for name, value in (("columns", columns), ("signs", signs), ("kinds", kinds)):
            self.register_buffer(name, value, persistent=False)
        outputs = self.width * (2 if self.num_nodes > 1 else 1)  # left and right
        self.weight = nn.Parameter(torch.empty(len(names), features, outputs).uniform_(-1, 1) / math.sqrt(features))
        self.bias = nn.Parameter(torch.zeros(self.num_nodes, outputs))
        if self.num_nodes > 1:
            self.attention = nn.Parameter(torch.randn(cfg.heads, cfg.head_size) / math.sqrt(cfg.head_size))
            self.kernels = fused.make_attention(self.num_nodes, features, cfg.heads, cfg.head_size)

    def forward(self, obs: Tensor, dtype: torch.dtype, use_fused: bool) -> Tensor:
        """Encode obs (B, O) as (B, nodes * heads * head_size)."""
        shape = obs.shape[:-1]
        x = (obs[..., self.columns] * self.signs).flatten(0, -3)  # (B, nodes, features)
        if self.num_nodes == 1:
            return (x[:, 0] @ self.weight[0] + self.bias[0]).to(dtype).reshape(*shape, self.out_features)
        if use_fused:
            y = fused.BodyAttention.apply(x, self.weight, self.bias, self.attention, self.kinds.numpy(), self.kernels, dtype)
        else:
            both = torch.einsum("bnk,nkf->bnf", x, self.weight[self.kinds]) + self.bias  # (B, nodes, 2 * width)
            left, right = both.to(dtype).unflatten(-1, (2, *self.attention.shape)).unbind(2)
            y = graph_attention(left, right, self.attention)
        return y.reshape(*shape, self.out_features)


def graph_attention(left: Tensor, right: Tensor, attention: Tensor) -> Tensor:
    """Return sum_j alpha_ij right_j, the equations of BodyEncoder.

    left, right: (B, nodes, heads, size); attention: (heads, size). Returns (B, nodes, heads, size).
    """
    pairs = F.leaky_relu(left[:, :, None] + right[:, None], 0.2)  # (B, i, j, heads, size)
    scores = (pairs * attention.to(pairs.dtype)).sum(-1, dtype=torch.float32)  # (B, i, j, heads)
    alpha = scores.softmax(dim=2).to(right.dtype)
    return torch.einsum("bijh,bjhd->bihd", alpha, right)


def lstm_sequence(gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Return hidden states (T, N, H) and the last cell (N, H), float32.

    gates: (T, N, 4 H) what the inputs contribute to input, forget and output gate and candidate;
    weight: (4 H, H); hidden, cell: (N, H); keep: (T, N), 0 where the state is forgotten before a step.
    """
    size = hidden.shape[-1]
    weight = weight.to(gates.dtype)
    outputs = []
    for t in range(len(gates)):
        hidden, cell = hidden * keep[t, :, None], cell * keep[t, :, None]
        g = (gates[t] + F.linear(hidden.to(gates.dtype), weight)).float()
        i, f, o = g[:, : 3 * size].sigmoid().chunk(3, dim=-1)
        cell = f * cell + i * g[:, 3 * size :].tanh()
        hidden = o * cell.tanh()
        outputs.append(hidden)
    return torch.stack(outputs), cell


class EntityBelief(nn.Module):
    """Encoder, graph attention, LSTM, a Gaussian policy head and a value head.

    The policy sees observations alone and remembers through its LSTM. The value head serves only
    training: it reads the observation and what the simulator knows beside it, and needs no memory.
    """

    def __init__(self, body: Any, num_obs: int, num_actions: int, num_privileged: int, cfg: NetworkCfg) -> None:
        super().__init__()
        self.cfg = cfg
        self.dtype = torch.float32  # of the products
        self.use_fused = True  # compiled pointwise work, on the CPU
        self.body_encoder = BodyEncoder(body, cfg)
        self.encoder = nn.Linear(self.body_encoder.out_features, cfg.encoder)
        self.lstm_input = nn.Linear(cfg.encoder, 4 * cfg.lstm)
        self.lstm_hidden = nn.Linear(cfg.lstm, 4 * cfg.lstm, bias=False)
        self.policy_head = nn.Linear(cfg.lstm, num_actions)
        self.log_std = nn.Parameter(torch.full((num_actions,), math.log(cfg.initial_std)))
        self.value_head = nn.Sequential(
            nn.Linear(num_obs + num_privileged, cfg.critic), nn.ELU(), nn.Linear(cfg.critic, cfg.critic), nn.ELU(), nn.Linear(cfg.critic, 1)
        )
        nn.init.orthogonal_(self.lstm_hidden.weight)
        with torch.no_grad():
            self.policy_head.weight.mul_(0.01)
            self.policy_head.bias.zero_()
            self.lstm_input.bias[cfg.lstm : 2 * cfg.lstm].fill_(1.0)  # remember at first

    def initial_state(self, num_envs: int) -> BeliefState:
        """Return the state of a robot that has seen nothing, for N robots."""
        zeros = torch.zeros(num_envs, self.cfg.lstm, device=self.log_std.device)
        return BeliefState(zeros, zeros.clone())

    def std(self) -> Tensor:
        """Return the standard deviation of the actions, (A), within bounds and so always finite."""
        return self.log_std.clamp(math.log(self.cfg.min_std), math.log(10.0)).exp()

    def forward(self, obs: Tensor, state: BeliefState, starts: Tensor | None = None) -> tuple[Tensor, BeliefState]:
        """Return mean actions (T, N, A) and the state after them.

        obs: (T, N, O); starts: (T, N), 1 where a step is the first of its episode and the state
        before it is forgotten.
        """
        use_fused = self.use_fused and obs.device.type == "cpu"
        x = F.elu(product(self.body_encoder(obs, self.dtype, use_fused), self.encoder, self.dtype))
        gates = product(x, self.lstm_input, self.dtype)  # (T, N, 4 * lstm): input, forget, output, candidate
        keep = torch.ones(obs.shape[:2], device=obs.device) if starts is None else 1.0 - starts
        sequence = fused.LSTMSequence.apply if use_fused else lstm_sequence
        hidden, cell = sequence(gates, self.lstm_hidden.weight, *state, keep)
        return self.policy_head(hidden), BeliefState(hidden[-1].detach(), cell.detach())

    @torch.no_grad()
    def act(self, obs: Tensor, state: BeliefState, starts: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor, BeliefState]:
        """Return actions (N, A), their means (N, A) and the next state, for one step of N robots.

        obs: (N, O); starts: (N); noise: (N, A) standard normal, None for the mean itself.
        """
        mean, state = self(obs[None], state, None if starts is None else starts[None])
        mean = mean[0]
        return (mean if noise is None else mean + self.std() * noise), mean, state

    def value(self, obs: Tensor, privileged: Tensor) -> Tensor:
        """Return the value (B) of observations (B, O) and privileged observations (B, P)."""
        x = torch.cat((obs, privileged), dim=-1)
        for layer in self.value_head[:-1]:
            x = product(x, layer, self.dtype) if isinstance(layer, nn.Linear) else layer(x)
        return self.value_head[-1](x.float()).squeeze(-1)


class WorldModel(nn.Module):
    """A latent dynamics model: what an observation means, what follows from an action.

    latent z (B, latent) = encode(obs); the next latent, the reward and the end of the episode are
    predicted from latent and action.
    """

    def __init__(self, num_obs: int, num_actions: int, cfg: WorldModelCfg) -> None:
        super().__init__()

        def mlp(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, cfg.hidden), nn.SiLU(), nn.Linear(cfg.hidden, cfg.hidden), nn.SiLU(), nn.Linear(cfg.hidden, outputs))

        self.encoder = mlp(num_obs, cfg.latent)
        self.decoder = mlp(cfg.latent, num_obs)
        self.dynamics = mlp(cfg.latent + num_actions, cfg.latent)
        self.reward = mlp(cfg.latent + num_actions, 1)
        self.done = mlp(cfg.latent + num_actions, 1)

    def encode(self, obs: Tensor) -> Tensor:
        """Return the latent (B, latent) of observations (B, O)."""
        return self.encoder(obs).tanh()

    def decode(self, latent: Tensor) -> Tensor:
        """Return observations (B, O) of latents (B, latent)."""
        return self.decoder(latent)

    def predict_next(self, latent: Tensor, action: Tensor) -> Tensor:
        """Return the latent one control step later."""
        return (latent + self.dynamics(torch.cat((latent, action), dim=-1))).tanh()

    def predict_reward(self, latent: Tensor, action: Tensor) -> Tensor:
        """Return the reward (B) of an action."""
        return self.reward(torch.cat((latent, action), dim=-1)).squeeze(-1)

    def predict_done(self, latent: Tensor, action: Tensor) -> Tensor:
        """Return the logit (B) of the episode ending in a fall."""
        return self.done(torch.cat((latent, action), dim=-1)).squeeze(-1)

    def forward(self, obs: Tensor, action: Tensor) -> dict[str, Tensor]:
        """Return latent, reconstruction, next_latent, next_obs, reward and done of observations and actions."""
        latent = self.encode(obs)
        next_latent = self.predict_next(latent, action)
        return {
            "latent": latent,
            "reconstruction": self.decode(latent),
            "next_latent": next_latent,
            "next_obs": self.decode(next_latent),
            "reward": self.predict_reward(latent, action),
            "done": self.predict_done(latent, action),
        }


class Creature(nn.Module):
    """What learns: a belief that acts and, when enabled, a world model that expects.

    env: anything with body, num_obs, num_actions, num_privileged.
    """

    def __init__(self, env: Any, network: NetworkCfg, world_model: WorldModelCfg) -> None:
        super().__init__()
        self.belief = EntityBelief(env.body, env.num_obs, env.num_actions, env.num_privileged, network)
        self.world_model = WorldModel(env.num_obs, env.num_actions, world_model) if world_model.enabled else None

    def use_precision(self, precision: str) -> None:
        """Take the belief's products in "float32" or "bfloat16"; parameters stay float32."""
        self.belief.dtype = getattr(torch, precision)
