"""WorldModel: what an entity expects of the world."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import WorldModelCfg
from observation import Normaliser, Reflection, joined

EPSILON = 1e-4  # of root mean square normalisation
LEAST_SPREAD = 1e-3  # by which what is observed is divided
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
        return -((1.0 - share) * log.gather(-1, low[..., None])[..., 0] + share * log.gather(-1, high[..., None])[..., 0])


def layers(inputs: int, hidden: int, outputs: int, depth: int = 1) -> nn.Sequential:
    """Return a perceptron whose hidden layers are normalised by their root mean square (Zhang and Sennrich, 2019)."""
    sizes = [inputs, *[hidden] * depth]
    inner = [module for a, b in itertools.pairwise(sizes) for module in (nn.Linear(a, b, bias=False), nn.RMSNorm(b, eps=EPSILON), nn.SiLU())]
    return nn.Sequential(*inner, *([nn.Linear(hidden, outputs)] if outputs else []))


class WorldModel(nn.Module):
    """A recurrent state-space model: what has been seen, what it means, what follows from an action (Hafner et al., 2019, 2023).

        h_t = GRU(h_t-1, z_t-1, a_t-1)       deterministic state: what is remembered
        z_t ~ q(z | h_t, o_t)                posterior: with the observation
        z_t ~ p(z | h_t)                     prior: without
        o_t, r_t, c_t from h_t and z_t       observation, reward, whether the episode goes on

    A latent (B, deter + groups * classes) holds h and z, which is ``groups`` categorical variables
    of ``classes`` values, one-hot. A latent of zeros is the one before an episode's first step.

    What is predicted is what the environment returns: the observation, and behind it what only the
    simulator knows. ``cfg.privileged``: whether the posterior sees that, too. body: how all of it looks
    in a mirror (environments.contracts.Body), for those who learn from mirror images, too.
    """

    def __init__(self, num_obs: int, num_actions: int, cfg: WorldModelCfg, num_privileged: int = 0, body: Any = None) -> None:
        super().__init__()
        mirrored = body is not None and body.obs is not None
        self.cfg, self.num_obs, self.num_actions = cfg, num_obs, num_actions
        size = num_obs + num_privileged
        self.seen = size if cfg.privileged else num_obs
        stoch = cfg.groups * cfg.classes
        self.size = cfg.deter + stoch
        self.of_all = Reflection(size, joined(body.obs, body.privileged) if mirrored else None)
        self.of_actions = Reflection(num_actions, body.actions if mirrored else None)
        self.normaliser = Normaliser(self.of_all, LEAST_SPREAD)

        def weight(inputs: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(cfg.hidden, inputs).uniform_(-1, 1) / math.sqrt(inputs))

        self.encoder_layers, self.seen_weight = layers(self.seen, cfg.hidden, 0), weight(cfg.hidden)
        self.stoch_weight, self.action_weight = weight(stoch), weight(num_actions)
        self.inputs = nn.Sequential(nn.RMSNorm(cfg.hidden, eps=EPSILON), nn.SiLU())
        self.gates = nn.Linear(cfg.hidden + cfg.deter, 3 * cfg.deter, bias=False)
        self.gates_norm = nn.RMSNorm(3 * cfg.deter, eps=EPSILON)
        self.prior = layers(cfg.deter, cfg.hidden, stoch)
        self.deter_weight = weight(cfg.deter)
        self.posterior = nn.Sequential(nn.RMSNorm(cfg.hidden, eps=EPSILON), nn.SiLU(), nn.Linear(cfg.hidden, stoch))
        self.decoder = layers(self.size, cfg.hidden, size, 2)
        self.reward = layers(self.size + 1, cfg.hidden, cfg.bins)
        self.goes_on = layers(self.size, cfg.hidden, 1)
        self.two_hot = TwoHot(cfg.bins, LARGEST)
        with torch.no_grad():
            self.reward[-1].weight.zero_()
            self.reward[-1].bias.zero_()

    # What things mean

    def standardise(self, x: Tensor) -> Tensor:
        """Return symlog of observations (B, O or O + P), each normalised."""
        n = x.shape[-1]
        return symlog((x - self.normaliser.mean[:n]) * self.normaliser.scale[:n])

    def raw(self, y: Tensor) -> Tensor:
        """Return observations (B, O + P) in their own units: the inverse of standardise."""
        return symexp(y) / self.normaliser.scale + self.normaliser.mean

    def initial_latent(self, *batch: int) -> Tensor:
        """Return the latent before an episode's first step, (*batch, deter + stoch)."""
        return torch.zeros(*batch, self.size, device=self.gates.weight.device)

    def probs(self, logits: Tensor) -> Tensor:
        """Return probabilities (B, groups, classes) of logits (B, stoch), 1 % of them uniform, so that none is 0."""
        probs = logits.unflatten(-1, (self.cfg.groups, self.cfg.classes)).softmax(-1)
        return 0.99 * probs + 0.01 / self.cfg.classes

    def sample(self, probs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return one-hot samples (B, stoch); gradients go straight through to the probabilities (Bengio et al., 2013).

        noise: (B, groups), uniform in [0, 1); None to draw it here.
        """
        with torch.no_grad():
            noise = torch.rand(probs.shape[:-1], device=probs.device) if noise is None else noise
            index = (probs.cumsum(-1) < noise[..., None]).sum(-1).clamp(max=self.cfg.classes - 1)
            one_hot = F.one_hot(index, self.cfg.classes).to(probs.dtype)
        return (one_hot + (probs - probs.detach())).flatten(-2)

    # One step

    def advance(self, latent: Tensor, action: Tensor) -> Tensor:
        """Return the deterministic state (B, deter) after an action (B, A)."""
        deter, stoch = latent[..., : self.cfg.deter], latent[..., self.cfg.deter :]
        return self.recur(deter, stoch, F.linear(action, self.action_weight))

    def recur(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """Return the next deterministic state (B, deter); action: (B, hidden), encoded."""
        x = self.inputs(F.linear(stoch, self.stoch_weight) + action)
        reset, candidate, update = self.gates_norm(self.gates(torch.cat((x, deter), dim=-1))).chunk(3, dim=-1)
        update = (update - 1.0).sigmoid()  # remember at first
        return torch.lerp(deter, (reset.sigmoid() * candidate).tanh(), update)

    def predict(self, latent: Tensor, action: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the next latent (B, size), unseen, and the prior's probabilities."""
        deter = self.advance(latent, action)
        prior = self.probs(self.prior(deter))
        return torch.cat((deter, self.sample(prior, noise)), dim=-1), prior

    def encoder(self, seen: Tensor) -> Tensor:
        """Return observations (B, seen), standardised, as the posterior takes them, (B, hidden)."""
        return F.linear(self.encoder_layers(seen), self.seen_weight)

    def correct(self, deter: Tensor, seen: Tensor) -> Tensor:
        """Return the posterior's logits (B, stoch) of a deterministic state and encoded observations (B, hidden)."""
        return self.posterior(F.linear(deter, self.deter_weight) + seen)

    # A sequence

    def observe(self, latent: Tensor, action: Tensor, seen: Tensor, keep: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return latents (T, B, size) after each action and observation, and the posterior's logits (T, B, stoch).

        latent: (B, size) before; action: (T, B, A); seen: (T, B, hidden), the observations after the
        actions, encoded; keep: (T, B), 0 where the latent before a step is forgotten; noise: (T, B, groups),
        uniform in [0, 1), None to draw it here.
        """
        deter, stoch = latent[..., : self.cfg.deter], latent[..., self.cfg.deter :]
        action, keep = F.linear(action, self.action_weight), keep[..., None]
        noise = torch.rand(*action.shape[:-1], self.cfg.groups, device=action.device) if noise is None else noise
        deters, stochs, logits = [], [], []
        for a, o, k, u in zip(action, seen, keep, noise, strict=True):
            deter = self.recur(deter * k, stoch * k, a)
            logits.append(self.correct(deter, o))
            stoch = self.sample(self.probs(logits[-1]), u)
            deters.append(deter)
            stochs.append(stoch)
        return torch.cat((torch.stack(deters), torch.stack(stochs)), dim=-1), torch.stack(logits)

    # Single questions

    def encode(self, obs: Tensor, latent: Tensor | None = None, action: Tensor | None = None) -> Tensor:
        """Return the latent (B, size) of observations (B, O), without a latent and action before them an episode's first."""
        deter = self.initial_latent(*obs.shape[:-1])[..., : self.cfg.deter] if latent is None else self.advance(latent, action)
        return torch.cat((deter, self.sample(self.probs(self.correct(deter, self.encoder(self.standardise(obs)))))), dim=-1)

    def decode(self, latent: Tensor) -> Tensor:
        """Return observations (B, O) of latents."""
        return self.decode_all(latent)[..., : self.num_obs]

    def decode_all(self, latent: Tensor) -> Tensor:
        """Return observations and what only the simulator knows, one behind the other, (B, O + P), of latents."""
        return self.raw(self.decoder(latent))

    def predict_next(self, latent: Tensor, action: Tensor) -> Tensor:
        """Return a latent (B, size) one control step later, drawn from the prior."""
        return self.predict(latent, action)[0]

    def predict_reward(self, latent: Tensor, action: Tensor | None = None) -> Tensor:
        """Return the reward (B) of coming to a latent, or of an action there."""
        latent = latent if action is None else self.predict_next(latent, action)
        goes_on = self.goes_on(latent).sigmoid()
        on, over = (self.two_hot.expectation(self.reward(torch.cat((latent, torch.full_like(goes_on, ended)), dim=-1))) for ended in (0.0, 1.0))
        return torch.lerp(over, on, goes_on[..., 0]) / self.cfg.reward_scale

    def predict_done(self, latent: Tensor, action: Tensor | None = None) -> Tensor:
        """Return the logit (B) of the episode having ended in a fall at a latent, or ending with an action there."""
        latent = latent if action is None else self.predict_next(latent, action)
        return -self.goes_on(latent).squeeze(-1)

    def forward(self, obs: Tensor, action: Tensor) -> dict[str, Tensor]:
        """Return latent, reconstruction, next_latent, next_obs, reward and done of observations and actions."""
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
