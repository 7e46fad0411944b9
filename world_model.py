"""WorldModel: what an entity expects of the world.

Shapes: T time steps, N robots, S = T N columns (time before robot), B rows of single questions; O observations,
P privileged observations, A actions.

Like the policy (entity.py), a world model is its own mirror image: what it expects in the mirror image
of a situation is the mirror image of what it expects in the situation, so whatever happens to one side
is learnt for both. Features (sides, F, S) are sums and differences of both sides between layers.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fused
from config import WorldModelCfg
from observation import Features, Normaliser, Reflection, change_over, joined, pair_weight
from settings import ConfigError

MIN_OBSERVATION_STD = 1e-3  # what is observed is divided by its standard deviation, at least by this
LARGEST = 8.0  # symlog of the largest reward, times its scale, that there is a bin for


def symlog(x: Tensor) -> Tensor:
    """Return sign(x) log(1 + |x|) (Hafner et al., 2023, eq. 9): small numbers stay, large ones shrink."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """Return sign(x) (exp |x| - 1), the inverse of symlog."""
    return x.sign() * x.abs().expm1()


class TwoHot(nn.Module):
    """A number as a distribution over bins, evenly spaced in symlog (Hafner et al., 2023, eq. 8 to 10).

    Its meaning is the mean of the bins themselves, not of their symlogs: the mean of a rare loss
    and a frequent gain would else be hardly a loss.
    """

    def __init__(self, bins: int, most: float) -> None:
        super().__init__()
        self.register_buffer("values", symexp(torch.linspace(-most, most, bins)), persistent=False)

    def expectation(self, logits: Tensor) -> Tensor:
        """Return the number (B) that logits (B, bins) mean."""
        return (logits.softmax(-1) * self.values).sum(-1)

    def loss(self, logits: Tensor, x: Tensor) -> Tensor:
        """Return the cross entropy (B) [nat] of logits (B, bins) with the two bins beside x (B)."""
        x = x.clamp(self.values[0], self.values[-1])
        high = torch.searchsorted(self.values, x.contiguous()).clamp(min=1, max=len(self.values) - 1)
        low = high - 1
        share = (x - self.values[low]) / (self.values[high] - self.values[low])
        log = logits.log_softmax(-1)
        return -(
            (1.0 - share) * log.gather(-1, low[..., None])[..., 0] + share * log.gather(-1, high[..., None])[..., 0]
        )


def root_mean_square_norm(x: Tensor) -> Tensor:
    """Return x (sides, F, S) over the root mean square of its features (Zhang and Sennrich, 2019), float32."""
    x = x.float()
    return x * (x.square().mean(dim=(0, 1), keepdim=True) + fused.EPSILON).rsqrt()


def normed(x: Tensor, weight: Tensor, gain: Tensor) -> Tensor:
    """Return SiLU(gain norm(W x)), sums and differences (sides, F, S), the product in x's dtype.

    x: (sides, K, S); weight: (sides, F, K); gain: (F), of every side.
    """
    y = root_mean_square_norm(torch.bmm(weight.to(x.dtype), x))
    return change_over(F.silu(change_over(y) * gain[:, None])).to(x.dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return W x + b, numbers of the sides (sides, F, S), float32, the product in x's dtype.

    x, weight: as of normed(); bias: (F).
    """
    return change_over(torch.bmm(weight.to(x.dtype), x).float()) + bias[:, None]


def probabilities(logits: Tensor, groups: int) -> Tensor:
    """Return probabilities (sides, groups, classes, S) of logits (sides, Z, S).

    1 % of every distribution is uniform, so that no probability is 0.
    """
    softmax = logits.unflatten(1, (groups, -1)).softmax(2)
    return (1.0 - fused.UNIFORM) * softmax + fused.UNIFORM / softmax.shape[2]


def sample(probs: Tensor, noise: Tensor | None) -> Tensor:
    """Return one-hot samples (sides, Z, S) of probabilities (sides, groups, classes, S).

    Gradients go straight through to the probabilities (Bengio et al., 2013).

    noise: (sides, groups, S), uniform in [0, 1); None for the likeliest values.
    """
    with torch.no_grad():
        index = (
            probs.argmax(2)
            if noise is None
            else (probs.cumsum(2) < noise[:, :, None]).sum(2).clamp(max=probs.shape[2] - 1)
        )
        one_hot = torch.zeros_like(probs).scatter_(2, index[:, :, None], 1.0)
    return (one_hot + (probs - probs.detach())).flatten(1, 2)


def state_space_sequence(
    latent: Tensor,
    action: Tensor,
    evidence: Tensor | None,
    keep: Tensor,
    noise: Tensor | None,
    groups: int,
    *weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the latents of a sequence, what follows from its actions, the logits, and the last latent.

    The equations of fused/state_space.py. Latents (sides, D + Z, S) and what follows (sides, D, S) are in action's
    dtype; logits: (sides, Z, S); the last latent: (sides, D + Z, N).

    latent: (sides, D + Z, N); action: (sides, A, S), evidence: (sides, E, S) or None, in dtype; keep: (T, N); noise:
    (sides, groups, S), None for the likeliest values; weights: W1, g1, W2, g2, W3, g3, W4, b.
    """
    w1, g1, w2, g2, w3, g3, w4, bias = weights
    n = keep.shape[1]
    sizes = (len(g2) // 3, len(bias))
    latents = []
    follows = []
    logits = []
    for t, k in enumerate(keep):
        now = slice(t * n, (t + 1) * n)
        deter, stoch = latent.split(sizes, dim=1)
        x = normed(torch.cat((stoch.to(action.dtype), action[..., now]), dim=1), w1, g1)
        gates = root_mean_square_norm(torch.bmm(w2.to(x.dtype), torch.cat((x, deter.to(x.dtype)), dim=1)))
        reset, candidate, update = (change_over(gates) * g2[:, None]).chunk(3, dim=1)
        update = (update - 1.0).sigmoid()  # remember at first
        next_deter = change_over(torch.lerp(change_over(deter), (reset.sigmoid() * candidate).tanh(), update))
        deter = next_deter * k
        known = deter.to(x.dtype) if evidence is None else torch.cat((deter.to(x.dtype), evidence[..., now]), dim=1)
        logits.append(linear(normed(known, w3, g3), w4, bias))
        stoch = change_over(sample(probabilities(logits[-1], groups), None if noise is None else noise[..., now]))
        latent = torch.cat((deter, stoch), dim=1)
        latents.append(latent.to(x.dtype))
        follows.append(next_deter.to(x.dtype))
    return torch.cat(latents, dim=-1), torch.cat(follows, dim=-1), torch.cat(logits, dim=-1), latent.detach()


def compilable(x: Tensor, *sizes: int) -> bool:
    """Return whether compiled code can be used for x and layers of some sizes."""
    return (
        x.device.type == "cpu"
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and all(size % fused.ROWS == 0 for size in sizes)
    )


class Layer(nn.Module):
    """A layer of a perceptron on sums and differences (sides, F, S), compiled on the CPU where its sizes allow.

    more: gains or biases (F), of every side.
    """

    def __init__(self, sides: int, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = pair_weight(sides, outputs, inputs)
        self.more = nn.Parameter(self.first(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (sides, F, S) of x (sides, K, S)."""
        samples = x.shape[-1]
        if not compilable(x, *self.weight.shape[1:]):
            return self.plain(x, self.weight, self.more)
        if samples % (2 * fused.WIDTH):  # whole vectors
            x = F.pad(x, (0, -samples % (2 * fused.WIDTH)))
        y = fused.run(self.fast)(x, self.weight, self.more)
        return y if y.shape[-1] == samples else y[..., :samples]


class Normed(Layer):
    """A hidden layer: normalised, with gains, and SiLU."""

    first = staticmethod(torch.ones)
    plain = staticmethod(normed)
    fast = fused.Normed


class Linear(Layer):
    """What ends a perceptron: numbers of the sides themselves, with biases, float32."""

    first = staticmethod(torch.zeros)
    plain = staticmethod(linear)
    fast = fused.Linear


class Course(NamedTuple):
    """What a sequence of S = T N columns was taken for."""

    latents: Tensor  # (sides, D + Z, S), in the model's dtype
    follows: Tensor  # (sides, D, S), deterministic states after the actions, also where an episode ended with one
    logits: Tensor  # (sides, Z, S), of the sides, of what was drawn from
    last: Tensor  # (sides, D + Z, N), the last latents, float32, without gradients


class Outcome(NamedTuple):
    """What deterministic states say of the actions that led to them."""

    on: Tensor  # (S, bins), logits of the reward if the episode goes on
    over: Tensor  # (S, bins), if it has ended in a fall
    goes_on: Tensor  # (S), logit


class WorldModel(nn.Module):
    """What follows from actions: a latent holds what is known of a robot, and what came of its latest action.

    Latents (L, F, N) lie column by column, a robot each; single questions take and return them as rows (B, L F). What
    is predicted is what the environment returns: the observation, and behind it what only the simulator knows.

    body: how all of it looks in a mirror (environments.contracts.Body).
    """

    latent_shape: tuple[int, int]  # (L, F)

    def __init__(
        self, num_obs: int, num_actions: int, cfg: WorldModelCfg, num_privileged: int = 0, body: Any = None
    ) -> None:
        super().__init__()
        mirrored = body is not None and body.obs is not None
        self.cfg = cfg
        self.num_obs = num_obs
        self.num_actions = num_actions
        self.num_all = num_obs + num_privileged
        self.dtype = torch.float32  # of the products
        self.use_fused = True  # compiled code, on the CPU
        self.of_obs = Reflection(num_obs, body.obs if mirrored else None)
        self.of_actions = Reflection(num_actions, body.actions if mirrored else None)
        self.of_all = Reflection(self.num_all, joined(body.obs, body.privileged) if mirrored else None)
        self.sides = self.of_all.sides
        self.normaliser = Normaliser(self.of_all, MIN_OBSERVATION_STD)
        self.all_features = Features(self.of_all)
        self.action_features = Features(self.of_actions)

    def half(self, field: str) -> int:
        """Return what a side has of a size in the configuration; raise ConfigError if two sides cannot share it."""
        size = getattr(self.cfg, field)
        if size % self.sides:
            raise ConfigError(f"world_model.{field}: expected an even number, got {size}")
        return size // self.sides

    # What things mean

    def standardise(self, x: Tensor) -> Tensor:
        """Return symlog of observations (B, O or O + P), each normalised."""
        n = x.shape[-1]
        return symlog((x - self.normaliser.mean[:n]) * self.normaliser.scale[:n])

    def compiled(self, x: Tensor) -> bool:
        """Return whether compiled code is to be used for x, which no gradient is asked of."""
        return self.use_fused and compilable(x) and not x.requires_grad

    def looked(self, obs: Tensor, features: Features, dtype: torch.dtype, summed: bool = True) -> Tensor:
        """Return observations (S, at least those of features), standardised, (sides, rows, S) in dtype.

        Sums and differences of them and their mirror images, or else both as they are.
        """
        x = obs[:, : features.size]
        if self.compiled(x) and not len(x) % fused.WIDTH:
            about = features.mirror, features.signs, features.sides, features.rows
            standard = self.normaliser.mean, self.normaliser.scale
            return fused.of_sides(x, *about, dtype, summed, standard)
        y = features.columns(self.standardise(x), dtype)
        return y if summed else change_over(y)

    def raw(self, y: Tensor) -> Tensor:
        """Return observations (B, O + P) in their own units: the inverse of standardise."""
        return symexp(y) / self.normaliser.scale + self.normaliser.mean

    def both_sides(self, obs: Tensor) -> Tensor:
        """Return all that is observed and its mirror image, as the decoder should, (sides, rows, S).

        obs: (S, O + P).
        """
        return self.looked(obs, self.all_features, torch.float32, summed=False)

    def initial_latent(self, robots: int) -> Tensor:
        """Return the latent of robots of which nothing is known, (L, F, N)."""
        return torch.zeros(*self.latent_shape, robots, device=self.normaliser.mean.device)

    @property
    def size(self) -> int:
        """Numbers in a robot's latent."""
        return math.prod(self.latent_shape)

    def scales(self, obs: Tensor, reward: Tensor, terminated: Tensor) -> Any:
        """Return what S steps tell of the world's scale.

        obs: (S, O + P), after them; reward: (S); terminated: (S), 1 where a step led to a fall.
        """
        return self.normaliser.moments(obs)

    def learn_scale(self, found: Any) -> None:
        """Take in what scales() returned."""
        self.normaliser.take(found)

    def first(self, obs: Tensor) -> Tensor:
        """Return latents (L, F, N) to begin a training with, of robots that observe (N, O + P)."""
        return self.initial_latent(len(obs))

    def is_recordable(self, n: int) -> bool:
        """Return whether all that is computed of n robots on the CPU, forwards and backwards, is compiled calls."""
        return False

    # What a kind of model says

    def noise(self, columns: int, generator: torch.Generator | None = None) -> Tensor:
        """Return what samples of S columns are drawn by, (..., S), uniform in [0, 1)."""
        raise NotImplementedError

    def see(self, obs: Tensor) -> Tensor:
        """Return what observations (S, O or O + P) tell, (..., S), as sequence() takes it."""
        raise NotImplementedError

    def sequence(
        self, latent: Tensor, action: Tensor, keep: Tensor, noise: Tensor | None, evidence: Tensor | None = None
    ) -> "Course":
        """Go through T steps of N robots.

        latent: (L, F, N) before; action: (S, A); keep: (T, N), 0 where an episode ended with the action and the next
        one begins; noise: by noise(), None for what is expected; evidence: by see() of the observations after the
        actions, None to go on by what is expected.
        """
        raise NotImplementedError

    def decode_all(self, latents: Tensor) -> Tensor:
        """Return observations, with what only the simulator knows behind them, (S, O + P) of latents (L, F, S)."""
        raise NotImplementedError

    def way(self, latents: Tensor) -> Tensor:
        """Return what latents (L, F, S) hold of the way to them, (L, ..., S)."""
        raise NotImplementedError

    def outcomes(self, way: Tensor) -> tuple[Tensor, Tensor]:
        """Return what came of the way to latents, by way().

        The expected reward (S), and the logit (S) of the episode going on.
        """
        raise NotImplementedError

    def predict(self, latent: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        """Return the latent (L, F, N) after an action (N, A), unseen."""
        return self.sequence(latent, action, torch.ones(1, len(action), device=action.device), noise).last

    # Single questions

    def columns(self, rows: Tensor) -> Tensor:
        """Return latents (B, L F) as (L, F, B)."""
        return rows.unflatten(-1, self.latent_shape).permute(1, 2, 0)

    def rows(self, columns: Tensor) -> Tensor:
        """Return latents (L, F, B) as (B, L F)."""
        return columns.float().permute(2, 0, 1).flatten(1)

    def encode(self, obs: Tensor, latent: Tensor | None = None, action: Tensor | None = None) -> Tensor:
        """Return the latent (B, L F) of observations (B, O or O + P), which followed an action at a latent.

        Without action and latent it is an episode's first.
        """
        keep = torch.full((1, len(obs)), float(latent is not None), device=obs.device)
        latent = self.initial_latent(len(obs)) if latent is None else self.columns(latent)
        action = obs.new_zeros(len(obs), self.num_actions) if action is None else action
        return self.rows(self.sequence(latent, action, keep, self.noise(len(obs)), self.see(obs)).latents)

    def decode(self, latent: Tensor) -> Tensor:
        """Return observations (B, O) of latents (B, L F)."""
        return self.decode_all(self.columns(latent))[:, : self.num_obs]

    def predict_next(self, latent: Tensor, action: Tensor) -> Tensor:
        """Return a latent (B, L F) one control step later, drawn from the prior."""
        keep = torch.ones(1, len(action), device=action.device)
        return self.rows(self.sequence(self.columns(latent), action, keep, self.noise(len(action))).latents)

    def predict_reward(self, latent: Tensor, action: Tensor | None = None) -> Tensor:
        """Return the reward (B) of coming to a latent (B, L F), or of an action there."""
        latent = latent if action is None else self.predict_next(latent, action)
        return self.outcomes(self.way(self.columns(latent)))[0]

    def predict_done(self, latent: Tensor, action: Tensor | None = None) -> Tensor:
        """Return the logit (B) of the episode ending in a fall on the way to a latent (B, L F).

        action: (B, A), None or one taken at the latent, with which the episode may end.
        """
        latent = latent if action is None else self.predict_next(latent, action)
        return -self.outcomes(self.way(self.columns(latent)))[1]

    def forward(self, obs: Tensor, action: Tensor) -> dict[str, Tensor]:
        """Return what observations (B, O) mean and what follows from actions (B, A) there.

        By name: latent, reconstruction, next_latent, next_obs, reward and done.
        """
        latent = self.encode(obs)
        next_latent = self.predict_next(latent, action)
        return {
            "latent": latent,
            "reconstruction": self.decode(latent),
            "next_latent": next_latent,
            "next_obs": self.decode(next_latent),
            "reward": self.predict_reward(next_latent),
            "done": self.predict_done(next_latent),
        }


class StateSpaceModel(WorldModel):
    """A recurrent state-space model (Hafner et al., 2019, 2023).

    What has been seen, what it means, and what follows from an action:

        h_t = GRU(h_t-1, z_t-1, a_t-1)       deterministic state: what is remembered; 0 as an episode begins
        z_t ~ q(z | h_t, o_t)                posterior: with the observation
        z_t ~ p(z | h_t)                     prior: without
        o_t from h_t and z_t                 observation
        r_t-1, c_t-1 from h_t                reward of the last action, whether the episode went on with it

    A latent (sides, D + Z, N) holds h and z, which is groups of categorical variables of some classes,
    one-hot. Reward and end are asked of h alone: what probably comes of an action, before it is seen.

    ``cfg.privileged``: whether the posterior sees what only the simulator knows, too.

    Raises ConfigError, naming the field, for sizes that two sides cannot share.
    """

    def __init__(
        self, num_obs: int, num_actions: int, cfg: WorldModelCfg, num_privileged: int = 0, body: Any = None
    ) -> None:
        super().__init__(num_obs, num_actions, cfg, num_privileged, body)
        sides = self.sides
        self.groups = self.half("groups")
        self.deter = self.half("deter")
        hidden = self.half("hidden")
        self.stoch = self.groups * cfg.classes
        latent = self.deter + self.stoch
        self.latent_shape = sides, latent
        self.seen_features = self.all_features if cfg.privileged else Features(self.of_obs)

        self.encoder = Normed(sides, hidden, self.seen_features.rows)
        self.inputs = Normed(sides, hidden, self.stoch + self.action_features.rows)
        self.gates = Normed(sides, 3 * self.deter, hidden + self.deter)
        self.prior = Normed(sides, hidden, self.deter)
        self.prior_logits = Linear(sides, self.stoch, hidden)
        self.posterior = Normed(sides, hidden, self.deter + hidden)
        self.posterior_logits = Linear(sides, self.stoch, hidden)
        self.decoder = nn.Sequential(
            Normed(sides, hidden, latent), Normed(sides, hidden, hidden), Linear(sides, self.all_features.rows, hidden)
        )
        self.outcome = Normed(sides, hidden, self.deter)
        self.outcome_weight = nn.Parameter(torch.zeros(2 * cfg.bins + 1, hidden))
        self.outcome_bias = nn.Parameter(torch.zeros(2 * cfg.bins + 1))
        self.two_hot = TwoHot(cfg.bins, LARGEST)

    def noise(self, columns: int, generator: torch.Generator | None = None) -> Tensor:
        """Return what samples are drawn by, (sides, groups, S), uniform in [0, 1)."""
        return torch.rand(self.sides, self.groups, columns, generator=generator, device=self.outcome_bias.device)

    def is_recordable(self, n: int) -> bool:
        """Return whether all that is computed of n robots is compiled: of whole vectors of them; see WorldModel."""
        sizes = [rows for name, w in self.named_parameters() if name.endswith(".weight") for rows in w.shape[1:]]
        return (
            self.compiled(self.outcome_bias.detach())
            and compilable(self.outcome_bias, *sizes)
            and n % (2 * fused.WIDTH) == 0
        )

    # A sequence

    def see(self, obs: Tensor) -> Tensor:
        """Return observations (S, O or O + P) as evidence for the posterior, (sides, hidden, S)."""
        return self.encoder(self.looked(obs, self.seen_features, self.dtype))

    def sequence(
        self, latent: Tensor, action: Tensor, keep: Tensor, noise: Tensor | None, evidence: Tensor | None = None
    ) -> Course:
        """Go through T steps of N robots.

        latent: (sides, D + Z, N) before; action: (S, A); keep: (T, N), 0 where an episode ended with the action and
        the next one begins; noise: (sides, groups, S), None for the likeliest values; evidence: (sides, hidden, S) of
        the observations after the actions, None to go on by what is expected.
        """
        steps, n = keep.shape
        hidden = self.prior if evidence is None else self.posterior
        logits = self.prior_logits if evidence is None else self.posterior_logits
        weights = [w for layer in (self.inputs, self.gates, hidden, logits) for w in (layer.weight, layer.more)]
        action = self.action_features.columns(action, self.dtype, self.compiled(action))
        more = 0
        fast = self.use_fused and compilable(action, *(rows for w in weights[::2] for rows in w.shape[1:]))
        if fast and n % (2 * fused.WIDTH):  # whole vectors of robots
            more = -n % (2 * fused.WIDTH)
            keep = F.pad(keep, (0, more))
            latent = F.pad(latent, (0, more))
            action, noise, evidence = (
                None if x is None else F.pad(x.unflatten(-1, (steps, n)), (0, more)).flatten(-2)
                for x in (action, noise, evidence)
            )
        function = fused.run(fused.StateSpaceSequence) if fast else state_space_sequence
        latents, follows, logits, last = function(latent, action, evidence, keep, noise, self.groups, *weights)
        if more:
            latents, follows, logits = (
                x.unflatten(-1, (steps, n + more))[..., :n].flatten(-2) for x in (latents, follows, logits)
            )
            last = last[..., :n]
        return Course(latents, follows, logits, last)

    def decode_all(self, latents: Tensor) -> Tensor:
        """Return observations, with what only the simulator knows behind them, (S, O + P).

        latents: (sides, D + Z, S).
        """
        y = self.decoder(latents.to(self.dtype))[:, : self.num_all]
        if self.sides == 2:
            y = 0.5 * (y[0] + y[1][self.of_all.columns] * self.of_all.signs[:, None])
        return self.raw(y.reshape(self.num_all, -1).T)

    def predict_outcome(self, deter: Tensor) -> Outcome:
        """Return what deterministic states (sides, D, S) say of reward and end.

        Their sums alone say it, as a situation is worth what its mirror image is.
        """
        y = self.outcome_rows(deter)[: len(self.outcome_bias)].T
        on, over, goes_on = y.split((self.cfg.bins, self.cfg.bins, 1), dim=-1)
        return Outcome(on, over, goes_on[:, 0])

    def outcome_rows(self, deter: Tensor) -> Tensor:
        """Return the rows (at least 2 bins + 1, S) of predict_outcome(), and some that mean nothing."""
        hidden = self.outcome(deter.to(self.dtype))
        rows, size = self.outcome_weight.shape
        samples = deter.shape[-1]
        if not self.use_fused or not compilable(hidden, size) or samples % (2 * fused.WIDTH):
            return (self.outcome_weight.to(hidden.dtype) @ hidden[0]).float() + self.outcome_bias[:, None]
        resized = fused.run(fused.Resized)
        filled = rows + -rows % fused.ROWS
        weight, bias = resized(self.outcome_weight, (1, filled, size)), resized(self.outcome_bias, (filled,))
        return fused.run(fused.Linear)(resized(hidden, (1, size, samples)), weight, bias)[0]

    def reward(self, outcome: Outcome) -> Tensor:
        """Return the expected reward (S)."""
        on, over = (self.two_hot.expectation(x) for x in (outcome.on, outcome.over))
        return torch.lerp(over, on, outcome.goes_on.sigmoid()) / self.cfg.reward_scale

    def way(self, latents: Tensor) -> Tensor:
        """Return deterministic states, (sides, D, S)."""
        return latents[:, : self.deter]

    def outcomes(self, way: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected reward (S) and the logit (S) of the episode going on; see WorldModel."""
        outcome = self.predict_outcome(way)
        return self.reward(outcome), outcome.goes_on
