"""How well a world model foresees, and what it knows of what it does not see.

These are parts of python -m benchmarks.world_model.
"""

import itertools
import time
from pathlib import Path
from typing import Any

import physics  # noqa: F401  sets what PyTorch reads when imported  # isort: skip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import machine
from config import Config
from entity import Creature
from environments import ABEnv, registry
from host import available_cores
from settings import override
from training import checkpoint as checkpoints
from training.parallel import side_by_side
from training.replay import Replay, Sequences
from training.resources import fastest_precision
from training.worker import Worker
from training.world_model import WorldModelTrainer
from world_model import Course, StateSpaceModel

CPU = torch.device("cpu")
AHEAD = 45  # control steps without a look
PAST = 48  # control steps before them
SAMPLES = 8  # futures drawn, of which the mean is the prediction
UPDATES = 1000  # of either model
SETTLED = 25  # control steps after which an estimate counts
GROUPS = {
    "joint angles": (0, 12),
    "joint velocities": (12, 24),
    "foot contacts": (24, 28),
    "direction of gravity": (28, 31),
    "angular velocity": (31, 34),
    "command": (34, 37),
}
NOISE = "joint_position", "joint_velocity", "spin", "gravity"  # of the sensors, anew at every step
HIDDEN = {
    "base velocity [m/s]": (0, 3, 1.0),
    "height [m]": (3, 4, 0.1),
    "friction, times": (16, 17, 1.0),
    "trunk mass, times": (17, 18, 1.0),
}  # columns, scale
OPEN_LOOP = {
    "world_model.role": "belief",
    "world_model.batch": 64,
    "world_model.sequence": 4,
    "world_model.overshoot": 8,
    "world_model.capacity": 32,
}


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a perceptron of two hidden layers, normalised by their root mean square."""
    sizes = itertools.pairwise((inputs, hidden, hidden))
    inner = [module for a, b in sizes for module in (nn.Linear(a, b, bias=False), nn.RMSNorm(b, eps=1e-4), nn.SiLU())]
    return nn.Sequential(*inner, nn.Linear(hidden, outputs))


class OneStep(nn.Module):
    """A latent of an observation, and the next one from it and an action, by perceptrons without memory.

    The world model replaced it.
    """

    def __init__(self, num_obs: int, num_actions: int, latent: int = 128, hidden: int = 256) -> None:
        super().__init__()
        self.encoder, self.decoder, self.dynamics = (
            perceptron(inputs, hidden, outputs)
            for inputs, outputs in ((num_obs, latent), (latent, num_obs), (latent + num_actions, latent))
        )

    def predict(self, latent: Tensor, action: Tensor) -> Tensor:
        """Return the next latent (B, latent)."""
        return (latent + self.dynamics(torch.cat((latent, action), dim=-1))).tanh()

    def loss(self, obs: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Return the loss of reconstructing and predicting observations (B, O) and latents."""
        latent = self.encoder(obs).tanh()
        after = self.predict(latent, action)
        consistency = F.mse_loss(after, self.encoder(following).tanh().detach())
        return F.mse_loss(self.decoder(latent), obs) + F.mse_loss(self.decoder(after), following) + consistency


class Walkers:
    """Robots that walk as a checkpoint's policy makes them, their latents found by a world model.

    num: of robots; seed: of their episodes; model: None to record only.

    What sensors would show without noise comes from twins that take the same actions: what is drawn
    depends on seed, clock and robot alone, and noise moves nothing.
    """

    def __init__(
        self, loaded: checkpoints.Checkpoint, cfg: Config, num: int, seed: int, model: StateSpaceModel | None
    ) -> None:
        env = registry.make(cfg.task, num_envs=num, cfg=cfg.env, threads=available_cores())
        creature = Creature(env, cfg.network, Config().world_model)
        creature.load_state_dict(loaded.weights)
        creature.world_model = model
        cfg = override(cfg, {"seed": seed})
        self.workers = [Worker(part, creature, cfg, CPU, i) for i, part in enumerate(env.split(available_cores()))]
        self.model = model
        world = cfg.world_model
        if model is None:
            silent = {f"noise.{name}": 0.0 for name in NOISE}
            self.twins = registry.make(
                cfg.task, num_envs=num, env_cfg_override=silent, threads=available_cores(), cfg=cfg.env
            )
            self.twins.init_state(cfg.seed + 1, staggered=True)  # as a worker does
        else:
            self.replay = Replay(env, model.latent_shape, world.capacity, cfg.ppo.rollout, world.sequence, CPU)
            self.latent = model.initial_latent(num)

    @torch.no_grad()
    def walk(self) -> None:
        """Take a rollout."""
        side_by_side(Worker.collect, self.workers)
        if self.model:
            rollout = self.replay.add([worker.rollout for worker in self.workers], self.latent)
            if self.replay.count <= self.replay.capacity:
                self.model.normaliser.update(rollout.obs.flatten(0, 1))
            self.latent = filtered(self.model, self.latent, rollout).last

    def record(self, steps: int) -> tuple[Sequences, Tensor]:
        """Return what happens in some steps to robots whose episodes do not end meanwhile, and what is seen of it.

        The latter is what sensors without noise show, (T, B, O).
        """
        parts = []
        while sum(len(part[0]) for part in parts) < steps:
            self.walk()
            rollouts = [worker.rollout for worker in self.workers]
            obs = torch.cat([torch.cat((r.obs[1:], r.privileged[1:]), dim=-1) for r in rollouts], dim=1)
            parts.append(
                [torch.cat(x, dim=1) for x in zip(*((r.action, r.reward, r.done()) for r in rollouts), strict=True)]
                + [obs]
            )
            parts[-1].append(
                torch.stack([torch.from_numpy(self.twins.step(action.numpy()).obs.copy()) for action in parts[-1][0]])
            )
        action, reward, done, obs, clean = (torch.cat(x)[:steps] for x in zip(*parts, strict=True))
        whole = done.sum(0) == 0
        action = action[:, whole]
        reward = reward[:, whole]
        obs = obs[:, whole]
        return Sequences(torch.zeros(0), action, obs, reward, torch.zeros_like(reward), torch.ones_like(reward)), clean[
            :, whole
        ]


def filtered(model: StateSpaceModel, latent: Tensor, s: Sequences) -> Course:
    """Return what the model takes sequences for, from latents (sides, D + Z, B) before them on."""
    return model.sequence(
        latent,
        s.action.flatten(0, 1),
        s.keep,
        model.noise(s.reward.numel()),
        model.see(s.obs.flatten(0, 1)),
    )


def normalised_error(predicted: Tensor, truth: Tensor, std: Tensor) -> float:
    """Return the root mean square of the error over the standard deviation; predicted, truth: (B, K); std: (K)."""
    return float(((predicted - truth) / std).square().mean().sqrt())


def foresee(model: StateSpaceModel, s: Sequences) -> Tensor:
    """Return what the model expects after the last steps of sequences, unseen, (B, O + P)."""
    robots = s.obs.shape[1]
    past = Sequences(*(x if name == "latent" else x[:PAST] for name, x in zip(Sequences._fields, s, strict=True)))
    seen = filtered(model, model.initial_latent(robots), past).last
    actions = s.action[PAST:].repeat(1, SAMPLES, 1)
    keep = torch.ones(actions.shape[:2])
    unseen = model.sequence(seen.repeat(1, 1, SAMPLES), actions.flatten(0, 1), keep, model.noise(keep.numel())).last
    return model.decode_all(unseen).unflatten(0, (SAMPLES, robots)).mean(0)


def prediction_errors(
    model: StateSpaceModel, one_step: OneStep, s: Sequences, truth: Tensor
) -> dict[str, dict[str, float]]:
    """Return errors after unseen steps by predictor and group of observations; truth: (B, O) after the last step."""
    num_obs = truth.shape[1]
    expected = foresee(model, s)
    latent = one_step.encoder(model.standardise(s.obs[PAST - 1, :, :num_obs])).tanh()
    for action in s.action[PAST:]:
        latent = one_step.predict(latent, action)
    raw = torch.cat((one_step.decoder(latent), torch.zeros_like(s.obs[0, :, num_obs:])), dim=-1)
    std = s.obs.flatten(0, 1).std(0).clamp(min=1e-6)
    predicted = {"world model": expected, "one-step model": model.raw(raw), "the last observation": s.obs[PAST - 1]}
    return {
        name: {
            group: normalised_error(x[:, a:b], truth[:, a:b], std[a:b])
            for group, (a, b) in (GROUPS | {"all": (0, num_obs)}).items()
        }
        for name, x in predicted.items()
    }


def open_loop(path: Path) -> dict[str, Any]:
    """Train both models on a checkpoint's rollouts; return errors by predictor and group, samples and seconds."""
    loaded = checkpoints.load(path)
    cfg = override(loaded.config, OPEN_LOOP)
    torch.manual_seed(0)
    env = registry.make(cfg.task, num_envs=1, cfg=cfg.env)
    model = StateSpaceModel(env.num_obs, env.num_actions, cfg.world_model, env.num_privileged, env.body)
    model.dtype = getattr(torch, fastest_precision(CPU))
    one_step = OneStep(env.num_obs, env.num_actions)
    optimizer = torch.optim.Adam(one_step.parameters(), lr=cfg.world_model.learning_rate, eps=1e-5)
    walkers = Walkers(loaded, cfg, 512, 0, model)
    trainer = WorldModelTrainer(model, walkers.replay, cfg.seed, available_cores())
    generator = torch.Generator().manual_seed(1)
    samples = 0
    start = time.perf_counter()
    for update in range(UPDATES):
        while walkers.replay.count < 8 + update // 8:
            walkers.walk()
        rate = cfg.world_model.learning_rate * min(
            1.0, 2.0 * (1.0 - update / UPDATES)
        )  # slower and slower in the second half
        trainer.optimizer.rates = [rate]
        optimizer.param_groups[0]["lr"] = rate
        trainer.step()
        s = walkers.replay.read(walkers.replay.draw(cfg.world_model.batch, generator))
        x = model.standardise(s.obs[..., : env.num_obs])
        together = s.keep[1:] > 0
        samples = samples + s.keep.numel()
        optimizer.zero_grad()
        one_step.loss(x[:-1][together], s.action[1:][together], x[1:][together]).backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    others = Walkers(loaded, cfg, 512, 1_000_003, None)
    others.record(40 * cfg.ppo.rollout)  # until commands have changed and episodes have ended
    s, clean = others.record(PAST + AHEAD)
    found = {"errors": clean[-1], "measured": s.obs[-1, :, : env.num_obs]}
    with torch.no_grad():
        return {name: prediction_errors(model, one_step, s, truth) for name, truth in found.items()} | {
            "samples": samples,
            "seconds": seconds,
        }


@torch.no_grad()
def estimates(creature: Creature, env: ABEnv, seed: int) -> dict[str, tuple[float, float]]:
    """Let a creature of role belief act for an episode's steps; return how wrong its estimates of HIDDEN are.

    Returns root mean squares, of vectors' lengths, of the error and of the difference from the mean; steps soon after
    a reset do not count.
    """
    model = creature.world_model
    state = env.init_state(seed)
    memory = creature.initial_state(env.num_envs)
    starts = torch.ones(env.num_envs)
    age = torch.zeros(env.num_envs)
    found = []
    for _ in range(env.cfg.max_episode_steps):
        action, _, memory = creature.act(torch.from_numpy(state.obs), memory, starts)
        settled = age >= SETTLED
        truth = torch.from_numpy(state.info["privileged"])[settled]  # indexed: a copy
        found.append((truth, model.decode_all(memory.latent)[settled, model.num_obs :]))
        state = env.step(action.numpy())
        starts = torch.from_numpy(state.done).float()
        age = (age + 1.0) * (1.0 - starts)
    truth, estimate = (torch.cat(x) for x in zip(*found, strict=True))

    def size(x: Tensor, columns: tuple[int, int, float]) -> float:
        first, last, scale = columns
        return scale * float(x[:, first:last].square().sum(-1).mean().sqrt())

    return {
        name: (size(estimate - truth, columns), size(truth - truth.mean(0), columns))
        for name, columns in HIDDEN.items()
    }


def report_open_loop(found: dict[str, Any], about: dict[str, object]) -> dict[str, Any]:
    """Print tables of errors, by the truth and by what noisy sensors show; return what --json prints of the former."""
    for name, of in (("errors", "the truth"), ("measured", "what noisy sensors show")):
        errors = found[name]
        rows = [("", *errors["world model"])] + [
            (name, *(f"{x:.3f}" for x in groups.values())) for name, groups in errors.items()
        ]
        ratios = (
            f"{x / y:.3f}"
            for x, y in zip(errors["world model"].values(), errors["one-step model"].values(), strict=True)
        )
        rows.append(("world model over one-step model", *ratios))
        trained = f"{found['samples'] / 1e6:.1f} M samples, {found['seconds']:.0f} s"
        machine.table(f"Difference from {of} after {AHEAD} control steps unseen; {trained}", rows, about)
    errors = found["errors"]
    return {"open_loop_error_ratio": errors["world model"]["all"] / errors["one-step model"]["all"], "errors": errors}
