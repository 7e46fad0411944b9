"""The learning creature: what acts and what expects.

EntityBelief: what it makes of its observations and does; WorldModel: what it expects; Creature: both.

Shapes: T time steps, N robots, S = T N samples (time before robot), O observations, P privileged
observations, A actions, B = any leading dimensions.

A body that is its own mirror image gets a network that is so, too: what it does in the mirror image
of a situation is the mirror image of what it does in the situation. Features come in pairs, one of
the left and one of the right side, which a reflection exchanges. A linear layer that respects that
acts on sums and differences of the pairs separately:

    s = (a + b) / sqrt 2,  d = (a - b) / sqrt 2,  s' = W_s s,  d' = W_d d

half of the multiplications of a layer that does not, and half of its parameters. What is not linear
acts on the sides. Features (sides, F, S) are sums and differences between layers; a body without a
mirror image has one side, and nothing is exchanged. Only the LSTM's biases are of each side: they
start out a little different, since a robot that stood exactly symmetric could never decide which
foot to lift first.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fused
import policy as policies
from config import NetworkCfg, WorldModelCfg
from ensemble import Ensemble
from observation import Features, Moments, Normaliser, Reflection, change_over, joined, pair_weight
from policy import Policy, State
from settings import ConfigError
from world_model import StateSpaceModel

__all__ = [
    "BodyEncoder",
    "Creature",
    "EntityBelief",
    "Memory",
    "Normaliser",
    "Reflection",
    "StateSpaceModel",
    "change_over",
    "graph_attention",
]

WORLD_MODELS = {"recurrent": StateSpaceModel, "ensemble": Ensemble}  # by world_model.kind


class Memory(NamedTuple):
    """What N robots remember from one step to the next, float32.

    All but the policy's state is empty where it does not read the world model.
    """

    belief: State  # the policy's, tensors (..., N)
    latent: Tensor  # (sides, D + Z, N), the world model's
    last_action: Tensor  # (N, A)
    begun: Tensor  # (N), 1 once there is a step to remember

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all of it, the policy's state first."""
        return *self.belief, self.latent, self.last_action, self.begun

    def like(self, tensors: Iterable[Tensor]) -> "Memory":
        """Return what other tensors(), as many and in the same order, remember."""
        *belief, latent, last_action, begun = tensors
        return Memory(tuple(belief), latent, last_action, begun)

    def copy(self) -> "Memory":
        """Return a copy."""
        return self.like(x.clone() for x in self.tensors())

    @staticmethod
    def join(memories: "list[Memory]") -> "Memory":
        """Return what several groups of robots remember as what one does."""
        first = memories[0]
        axes = (*(-1 for _ in first.belief), -1, 0, 0)
        parts = zip(*(memory.tensors() for memory in memories), strict=True)
        return first.like(torch.cat(part, dim=axis) for axis, part in zip(axes, parts, strict=True))


def dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ELU(W x + b), sums and differences (sides, F, S), the product in x's dtype.

    x: (sides, K, S); weight: (sides, F, K); bias: (F), of every side.
    """
    y = torch.bmm(weight.to(x.dtype), x)
    return change_over(F.elu(change_over(y) + bias[:, None].to(x.dtype)))


class BodyEncoder(nn.Module):
    """Encode a body whose parts are nodes of a graph: shared weights per kind of part, then graph attention.

    GATv2 (Brody et al., 2022, eq. 7) over the complete graph with self loops, H heads:

        e_ij = a . LeakyReLU(W_l x_i + W_r x_j),  alpha_i = softmax_j(e_ij),  y_i = W_l x_i + sum_j alpha_ij W_r x_j

    W_l x_i in y_i lets a part be known beside the mixture that attention makes of all.

    body: nodes, each with its kind and the observation's columns it reads; with a mirror image they
    are those of the left half, and as many of the right half follow: a right leg is a left leg in
    the mirror, and the trunk is seen from both sides. Where the network is not symmetric, the trunk
    is seen from one.
    """

    def __init__(self, body: Any, reflection: Reflection, cfg: NetworkCfg) -> None:
        super().__init__()
        self.sides = reflection.sides
        names = sorted({node.kind for node in body.nodes})
        features = max(len(node.columns) for node in body.nodes)
        # a part that reads fewer columns is padded: the first column, times 0
        columns = torch.tensor([list(node.columns) + [0] * (features - len(node.columns)) for node in body.nodes])
        signs = torch.tensor(
            [[1.0] * len(node.columns) + [0.0] * (features - len(node.columns)) for node in body.nodes]
        )
        kinds = torch.tensor([names.index(node.kind) for node in body.nodes])
        if body.obs is not None:
            image = Reflection(len(reflection.signs), body.obs)
            twice = torch.tensor(
                [
                    self.sides == 2 or {body.obs.columns[column] for column in node.columns} != set(node.columns)
                    for node in body.nodes
                ]
            )
            signs = torch.cat((signs, signs[twice] * image.signs[columns[twice]]))
            columns = torch.cat((columns, image.columns[columns[twice]]))
            kinds = torch.cat((kinds, kinds[twice]))
        for name, value in (("columns", columns.int()), ("signs", signs), ("kinds", kinds.int())):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("scale", signs.clone())  # of every feature, and what is added then
        self.register_buffer("shift", torch.zeros_like(signs))
        per_side = len(kinds) // self.sides
        self.out_features = per_side * cfg.heads * cfg.head_size  # of a side
        self.weight = nn.Parameter(
            torch.empty(len(names), cfg.heads, 2 * cfg.head_size, features).uniform_(-1, 1) / math.sqrt(features)
        )
        self.bias = nn.Parameter(torch.zeros(per_side, cfg.heads, 2 * cfg.head_size))
        self.attention = nn.Parameter(torch.randn(cfg.heads, cfg.head_size) / math.sqrt(cfg.head_size))

    def normalise(self, normaliser: Normaliser) -> None:
        """Take over what the normaliser has learnt."""
        columns = self.columns.long()
        self.scale.copy_(normaliser.scale[columns] * self.signs)
        self.shift.copy_(-normaliser.mean[columns] * self.scale)

    def forward(self, obs: Tensor, dtype: torch.dtype, compiled: bool) -> Tensor:
        """Encode obs (S, O) as sums and differences (sides, nodes of a side * heads * head_size, S)."""
        if compiled:
            return fused.run(fused.BodyAttention)(
                obs,
                self.columns,
                self.scale,
                self.shift,
                self.kinds,
                self.weight,
                self.bias,
                self.attention,
                self.sides,
                dtype,
            )
        x = obs[:, self.columns.long()] * self.scale + self.shift  # (S, nodes, features)
        both = torch.einsum("snk,nhfk->snhf", x, self.weight[self.kinds.long()]) + self.bias.repeat(self.sides, 1, 1)
        y = graph_attention(*both.to(dtype).chunk(2, dim=-1), self.attention)  # (S, nodes, heads, size)
        return change_over(y.unflatten(1, (self.sides, -1)).flatten(2).permute(1, 2, 0))


def graph_attention(left: Tensor, right: Tensor, attention: Tensor) -> Tensor:
    """Return left_i + sum_j alpha_ij right_j, the equations of BodyEncoder.

    left, right: (B, nodes, heads, size); attention: (heads, size). Returns (B, nodes, heads, size).
    """
    pairs = F.leaky_relu(left[:, :, None] + right[:, None], 0.2)  # (B, i, j, heads, size)
    scores = (pairs * attention.to(pairs.dtype)).sum(-1, dtype=torch.float32)  # (B, i, j, heads)
    alpha = scores.softmax(dim=2).to(right.dtype)
    return left + torch.einsum("bijh,bjhd->bihd", alpha, right)


def lstm_sequence(
    x: Tensor, weight: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return hidden states (sides, H, S), sums and differences, and the last cell (sides, H, N), of the sides, float32.

    x: (sides, E, S) sums and differences; weight: (sides, 4 H, E + H), of input, forget and output
    gate and candidate, products in x's dtype; bias: (sides, 4 H); hidden, cell: (sides, H, N); starts: (T, N),
    1 where the state is forgotten before a step.
    """
    weight = weight.to(x.dtype)
    outputs = []
    for k, x_t in zip(1.0 - starts, x.unflatten(-1, starts.shape).unbind(2), strict=True):
        g = torch.bmm(weight, torch.cat((x_t, (hidden * k).to(x.dtype)), dim=1))
        i, f, o, a = (change_over(g.float()) + bias[:, :, None]).chunk(4, dim=1)  # (sides, H, N)
        cell = f.sigmoid() * (cell * k) + i.sigmoid() * a.tanh()
        hidden = change_over(o.sigmoid() * cell.tanh())
        outputs.append(hidden)
    return torch.cat(outputs, dim=-1), cell


def policy_head(hidden: Tensor, weight: Tensor, bias: Tensor, columns: Tensor, signs: Tensor) -> Tensor:
    """Return mean actions (S, A) of hidden states (sides, H, S), sums and differences.

    weight: (sides, A / sides, H); bias: (A / sides); columns: (A) of the left side's actions, then
    the right side's; signs: (A / sides) of the right side's.
    """
    y = change_over(torch.bmm(weight, hidden)) + bias[:, None]  # (sides, A / sides, S)
    y = torch.cat((y[0], y[1] * signs[:, None])) if len(y) == 2 else y[0]
    return y[columns.argsort()].T


def value_head(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return values (S) of features (sides, H, S), of their sums alone.

    A situation is worth what its mirror image is.
    """
    return (weight @ x[0].float())[0] + bias


class EntityBelief(Policy):
    """Encoder, graph attention, LSTM, a Gaussian policy head and a value head.

    Its state is hidden (sides, H, N), sums and differences, and cell (sides, H, N), of the sides, float32.

    The policy sees observations alone and remembers through its LSTM. The value head serves only
    training: it reads the observation and what the simulator knows beside it, and needs no memory.

    env: its body has nodes, and the mirror images of obs, actions and privileged, or None
    (environments.contracts.Body); context: features of a side that the policy reads beside the observation: a world
    model's deterministic state.
    """

    reads_context = True

    def __init__(self, env: Any, cfg: NetworkCfg, context: int = 0) -> None:
        body = env.body
        num_actions = env.num_actions
        mirrored = cfg.symmetric and body.obs is not None
        of_obs = Reflection(env.num_obs, body.obs if mirrored else None)
        of_actions = Reflection(num_actions, body.actions if mirrored else None)
        both = joined(body.obs, body.privileged) if mirrored else None
        of_all = Reflection(env.num_obs + env.num_privileged, both)
        super().__init__(env, cfg, of_all)
        self.state_names = ("hidden", "cell") if cfg.recurrent else ()
        self.sides = of_obs.sides
        sides = self.sides
        for name in ("ground", "encoder", "lstm", "critic"):
            if getattr(cfg, name) % sides:
                raise ConfigError(f"network.{name}: expected an even number, got {getattr(cfg, name)}")
        encoder, lstm, critic, actions = (size // sides for size in (cfg.encoder, cfg.lstm, cfg.critic, num_actions))
        self.body_encoder = BodyEncoder(body, of_obs, cfg) if cfg.attention else None
        inner = self.body_encoder.out_features if cfg.attention else 0
        ground = cfg.ground // sides if cfg.attention and body.ground else 0
        self.compilable = all(size % fused.ROWS == 0 for size in (inner, ground, context, encoder, lstm, critic))
        if not cfg.attention:
            self.features = Features(of_obs)
            inner = self.features.rows
        self.sees_ground = ground > 0
        if ground:
            of_ground = Reflection.part(body.obs if mirrored else None, body.ground)
            self.ground_features = Features(of_ground, body.ground)
            self.ground_encoder = pair_weight(sides, ground, self.ground_features.rows)
            self.ground_encoder_bias = nn.Parameter(torch.zeros(ground))
            inner += ground
        self.encoder = pair_weight(sides, encoder, inner + context)
        self.encoder_bias = nn.Parameter(torch.zeros(encoder))
        if cfg.recurrent:
            self.lstm = pair_weight(sides, 4 * lstm, encoder + lstm)
            self.lstm_bias = nn.Parameter(0.03 * torch.randn(sides, 4 * lstm))
        else:
            self.hidden = pair_weight(sides, lstm, encoder)
            self.hidden_bias = nn.Parameter(torch.zeros(lstm))
        self.policy = pair_weight(sides, actions, lstm)
        self.policy_bias = nn.Parameter(torch.zeros(actions))
        self.log_std = nn.Parameter(torch.full((actions,), math.log(cfg.initial_std)))
        self.value_features = Features(of_all)
        self.value_encoder = pair_weight(sides, critic, self.value_features.rows)
        self.value_encoder_bias = nn.Parameter(torch.zeros(critic))
        self.value_hidden = pair_weight(sides, critic, critic)
        self.value_hidden_bias = nn.Parameter(torch.zeros(critic))
        self.value_weight = nn.Parameter(torch.empty(1, critic).uniform_(-1, 1) / math.sqrt(critic))
        self.value_bias = nn.Parameter(torch.zeros(1))
        left = (
            torch.arange(num_actions)
            if sides == 1
            else torch.nonzero(of_actions.columns > torch.arange(num_actions))[:, 0]
        )
        order = torch.cat((left, of_actions.columns[left])) if sides == 2 else left
        for name, value in (
            ("action_columns", order.int()),
            ("action_signs", of_actions.signs[left]),
            ("action_pairs", order.argsort() % actions),
            ("action_bound", torch.tensor([cfg.bound])),
        ):
            self.register_buffer(name, value, persistent=False)
        with torch.no_grad():
            self.encoder[:, :, inner:] *= 0.0  # what a world model remembers means nothing at first
            self.policy.mul_(0.01)
            if cfg.recurrent:
                for weight in self.lstm:
                    nn.init.orthogonal_(weight[:, encoder:])
                self.lstm_bias[:, lstm : 2 * lstm] += 1.0  # remember at first

    def initial_state(self, num_envs: int) -> State:
        """Return hidden and cell of N robots that have seen nothing; nothing without an LSTM."""
        shape = self.sides, self.cfg.lstm // self.sides, num_envs
        return tuple(torch.zeros(*shape, device=self.log_std.device) for _ in self.state_names)

    def std(self) -> Tensor:
        """Return the standard deviation of the actions, (A), of both sides the same."""
        if self.compiled(self.log_std):
            return fused.run(fused.Deviation)(self.log_std, self.action_pairs, self.log_limits)
        return super().std()[self.action_pairs]

    def drawn(self, mean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions and their means, (N, A); see Policy."""
        if self.compiled(mean):
            return fused.drawn(mean, self.std(), noise, self.action_bound)
        return super().drawn(mean, noise)

    def learn_scale(self, moments: Moments) -> None:
        """Learn the scale of observations; what the networks make of an observation changes with it."""
        super().learn_scale(moments)
        if self.body_encoder:
            self.body_encoder.normalise(self.normaliser)

    def evaluate(
        self, obs: Tensor, state: State, starts: Tensor | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Return mean actions (T, N, A) and the state after them; see Policy."""
        steps, n, _ = obs.shape
        compiled = self.compiled(obs)
        starts = obs.new_zeros(steps, n) if starts is None else starts
        if compiled and n % (2 * fused.WIDTH):  # whole vectors of robots
            more = -n % (2 * fused.WIDTH)
            obs = F.pad(obs, (0, 0, 0, more))
            starts = F.pad(starts, (0, more))
            state = tuple(F.pad(x, (0, more)) for x in state)
            context = None if context is None else F.pad(context, (0, more))
        layer = fused.run(fused.Dense) if compiled else dense
        sequence = fused.run(fused.LSTMSequence) if compiled else lstm_sequence
        head = fused.run(fused.PolicyHead) if compiled else policy_head
        seen = obs.reshape(-1, obs.shape[-1])
        weight = self.encoder
        if self.body_encoder:
            x = self.body_encoder(seen, self.dtype, compiled)
        else:
            x, weight = self.read(self.features, seen, weight, compiled)
        parts = [x]
        if self.sees_ground:
            ground = self.read(self.ground_features, seen, self.ground_encoder, compiled)
            parts.append(layer(*ground, self.ground_encoder_bias))
        if context is not None:
            parts.append(context.flatten(2))
        if len(parts) > 1:
            x = (
                fused.run(fused.Join)(self.dtype, *parts)
                if compiled
                else torch.cat([y.to(self.dtype) for y in parts], 1)
            )
        x = layer(x, weight, self.encoder_bias)
        if self.cfg.recurrent:
            x, cell = sequence(x, self.lstm, self.lstm_bias, *state, starts)
            state = x[..., -starts.shape[1] :].detach(), cell.detach()
        else:
            x = layer(x, self.hidden, self.hidden_bias)
            x = fused.run(fused.Join)(torch.float32, x) if compiled else x.float()
        mean = head(x, self.policy, self.policy_bias, self.action_columns, self.action_signs)
        return mean.unflatten(0, (steps, -1))[:, :n], tuple(y[..., :n] for y in state)

    def compiled(self, x: Tensor) -> bool:
        """Return whether compiled code is to be used for x."""
        return self.use_fused and self.compilable and x.device.type == "cpu"

    def is_recordable(self, n: int) -> bool:
        """Return whether all that is computed of n robots is compiled: of whole vectors of them. See Policy."""
        return type(self) is EntityBelief and self.compiled(self.log_std) and n % (2 * fused.WIDTH) == 0

    def read(self, features: Features, seen: Tensor, weight: Tensor, compiled: bool) -> tuple[Tensor, Tensor]:
        """Return a layer's input (sides, K, S), both sides' the same memory, of observations (S, O), and its weights.

        weight: (sides, F, rows + more), of the features' rows and of what comes behind them.
        """
        x = features(seen, self.normaliser, self.dtype, compiled)
        return x.expand(self.sides, -1, -1), features.weights(weight, compiled)

    def critic_features(self, everything: Tensor) -> Tensor:
        """Return (K, S), normalised, of observations and privileged ones (S, O + P)."""
        return self.value_features(everything, self.normaliser, self.dtype, self.compiled(everything))

    def value_of(self, features: Tensor) -> Tensor:
        """Return the values (S) of critic_features()."""
        x = features
        samples = x.shape[-1]
        compiled = self.compiled(x)
        layer = fused.run(fused.Dense) if compiled else dense
        head = fused.run(fused.ValueHead) if compiled else value_head
        if compiled and samples % (2 * fused.WIDTH):  # whole vectors of samples
            x = F.pad(x, (0, -samples % (2 * fused.WIDTH)))
        weight = self.value_features.weights(self.value_encoder, compiled)
        x = layer(x.expand(self.sides, -1, -1), weight, self.value_encoder_bias)
        x = layer(x, self.value_hidden, self.value_hidden_bias)
        return head(x, self.value_weight, self.value_bias)[:samples]


class Creature(nn.Module):
    """What learns: a belief that acts and, when enabled, a world model that expects.

    In role belief the policy reads the world model's deterministic state, which is carried on with every
    step by the likeliest latents: the same robot does the same again.

    env: anything with body, num_obs, num_actions, num_privileged.
    """

    def __init__(self, env: Any, network: NetworkCfg, world_model: WorldModelCfg) -> None:
        super().__init__()
        self.world_model = (
            WORLD_MODELS[world_model.kind](env.num_obs, env.num_actions, world_model, env.num_privileged, env.body)
            if world_model.role != "off"
            else None
        )
        self.reads = world_model.role == "belief"  # whether the policy reads the world model
        context = self.world_model.deter if self.reads else 0
        self.belief = policies.make(network.policy, env, network, context)
        if type(self.belief) is not EntityBelief:
            policies.check(self.belief, env, (self.world_model.sides, context) if self.reads else None)
        if self.reads and self.world_model.sides != getattr(self.belief, "sides", self.world_model.sides):
            raise ConfigError(
                "network.symmetric: expected true, as the world model that the policy reads is, got false"
            )

    def use_precision(self, precision: str) -> None:
        """Take products in "float32" or "bfloat16"; parameters stay float32."""
        for part in (self.belief, self.world_model):
            if part is not None:
                part.dtype = getattr(torch, precision)

    def initial_state(self, num_envs: int) -> Memory:
        """Return what a robot that has seen nothing remembers, for N robots."""
        n = num_envs if self.reads else 0
        state = self.belief.initial_state(num_envs)
        empty = self.belief.normaliser.mean
        latent = self.world_model.initial_latent(n) if self.reads else empty.new_zeros(1, 0, num_envs)
        return Memory(state, latent, empty.new_zeros(n, self.belief.num_actions), empty.new_zeros(n))

    def is_recordable(self, n: int) -> bool:
        """Return whether what n robots do is found by compiled calls alone, on the CPU."""
        return self.belief.is_recordable(n) and (not self.reads or self.world_model.is_recordable(n))

    def context(self, memory: Memory) -> Tensor | None:
        """Return what the policy reads of what robots remember, (sides, D, N); None if it reads nothing."""
        return memory.latent[:, : self.world_model.deter] if self.reads else None

    @torch.no_grad()
    def act(
        self, obs: Tensor, memory: Memory, starts: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Memory]:
        """Return actions (N, A), their means (N, A) and what is remembered then, for one step of N robots.

        obs: (N, O); starts: (N), 1 where the step is the first of its episode; noise: (N, A) standard normal, None for
        the mean itself.
        """
        if not self.reads:
            action, mean, state = self.belief.act(obs, memory.belief, starts, noise)
            return action, mean, memory._replace(belief=state)
        model = self.world_model
        keep = memory.begun
        if starts is not None:
            keep = fused.without(keep, starts) if model.compiled(keep) else keep * (1.0 - starts)
        latent = model.sequence(memory.latent, memory.last_action, keep[None], None, model.see(obs)).last
        action, mean, state = self.belief.act(obs, memory.belief, starts, noise, latent[:, : model.deter])
        return action, mean, Memory(state, latent, action, torch.full(keep.shape, 1.0, device=keep.device))
