"""What each detail of the world model's training is worth: time and memory without and with it, in one process.

Part of python -m benchmarks.world_model: --part details. Memory is what is kept: for the backward pass
where there is one, else by the data structures themselves.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from benchmarks import machine
from entity import Creature
from environments import registry
from settings import override
from training.presets import preset
from training.replay import Replay, Sequences
from training.worker import Worker
from training.world_model import Chance, overshooting_weights, world_model_loss
from world_model import StateSpaceModel

CPU = torch.device("cpu")
ROBOTS = 256
BATCH = 128
HISTORY = 64  # control steps that a context would have to be re-encoded from


class Row(NamedTuple):
    """One detail."""

    name: str
    unit: str  # of the times
    before: float
    after: float
    memory_before: float | None = None  # [bytes]
    memory_after: float | None = None


def seconds(function: Callable[[], Any]) -> Callable[[], float]:
    """Return a function that runs another for a fiftieth of a second or once, and returns the seconds of a run."""

    def timed() -> float:
        runs = 0
        start = time.perf_counter()
        while not runs or time.perf_counter() - start < 0.02:
            function()
            runs += 1
        return (time.perf_counter() - start) / runs

    return timed


def kept(function: Callable[[], Any]) -> int:
    """Return the bytes that a computation keeps for its backward pass, each storage once."""
    found: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        function()
    return sum(found.values())


def size(*tensors: Tensor) -> int:
    """Return the bytes of tensors."""
    return sum(x.numel() * x.element_size() for x in tensors)


class Bench:
    """A replay buffer of a new policy's balance, and world models to learn from it."""

    def __init__(self) -> None:
        self.cfg = override(
            preset("quadruped-balance"),
            {"world_model.role": "belief", "world_model.capacity": 8, "train.num_envs": ROBOTS},
        )
        env = registry.make(self.cfg.task, num_envs=ROBOTS, cfg=self.cfg.env, threads=1)
        torch.manual_seed(0)
        self.env = env
        self.creature = Creature(env, self.cfg.network, self.cfg.world_model)
        worker = Worker(env, self.creature, self.cfg, CPU, 0)
        self.rollout = worker.rollout
        self.generator = torch.Generator().manual_seed(0)
        self.replay = Replay(env, self.creature.world_model.latent_shape, 8, self.cfg.ppo.rollout, 1, CPU)
        for _ in range(8):
            worker.collect()
            self.replay.add([worker.rollout], worker.rollout.state.latent)
            self.creature.world_model.normaliser.update(self.replay.obs[self.replay.count - 1].flatten(0, 1))
        self.memory = worker.infer.memory

    def model(self, dtype: torch.dtype = torch.bfloat16, mirrored: bool = True) -> StateSpaceModel:
        """Return a world model like the creature's."""
        env = self.env
        made = StateSpaceModel(
            env.num_obs, env.num_actions, self.cfg.world_model, env.num_privileged, env.body if mirrored else None
        )
        made.normaliser.load_state_dict(self.creature.world_model.normaliser.state_dict())
        made.dtype = dtype
        return made

    def batch(self, count: int = BATCH) -> Sequences:
        """Return sequences of a rollout each."""
        return self.replay.read(self.replay.draw(count, self.generator))


def step(model: StateSpaceModel, s: Sequences, plain: bool = False) -> Callable[[], None]:
    """Return a function that computes a loss and its gradient; plain: in PyTorch alone."""
    parameters = list(model.parameters())
    chance = Chance(CPU, 0)

    def run() -> None:
        torch.autograd.grad(world_model_loss(model, s, chance)[0], parameters)

    def slow() -> None:
        model.use_fused = False
        with mock.patch("world_model.compilable", lambda *_: False):
            run()

    return slow if plain else run


def with_images(model: StateSpaceModel, s: Sequences, latent: Tensor) -> Sequences:
    """Return sequences and their mirror images; latent: (1, D + Z, 2 B) before them."""
    both = {
        "action": torch.cat((s.action, model.of_actions(s.action)), dim=1),
        "obs": torch.cat((s.obs, model.of_all(s.obs)), dim=1),
    }
    twice = {name: torch.cat((getattr(s, name),) * 2, dim=1) for name in ("reward", "terminated", "keep")}
    return Sequences(latent=latent, **both, **twice)


def details(repetitions: int) -> list[Row]:
    """Measure every detail."""
    bench = Bench()
    s = bench.batch()
    rows = []
    samples = s.reward.numel()

    def compare(
        name: str,
        unit: str,
        per: float,
        before: Callable[[], Any],
        after: Callable[[], Any],
        memory: tuple = (None, None),
    ) -> None:
        found = machine.interleaved({"before": seconds(before), "after": seconds(after)}, repetitions)
        rows.append(Row(name, unit, found["before"] / per, found["after"] / per, *memory))

    whole = bench.model(torch.float32)
    half = bench.model()
    mirrored = bench.model(mirrored=False)
    images = with_images(half, s, mirrored.initial_latent(2 * BATCH))
    arguments = {
        "plain": (bench.model(torch.float32), s, True),
        "float32": (whole, s),
        "bfloat16": (half, s),
        "images": (mirrored, images),
    }
    runs = {name: step(*given) for name, given in arguments.items()}
    us = 1e-6 * samples
    memory = {name: kept(run) for name, run in runs.items()}
    compare(
        "mirror images to learn from: its own mirror image",
        "us per sample",
        us,
        runs["images"],
        runs["bfloat16"],
        (memory["images"], memory["bfloat16"]),
    )
    compare(
        "PyTorch's operations: compiled",
        "us per sample",
        us,
        runs["plain"],
        runs["float32"],
        (memory["plain"], memory["float32"]),
    )
    compare(
        "float32: bfloat16",
        "us per sample",
        us,
        runs["float32"],
        runs["bfloat16"],
        (memory["float32"], memory["bfloat16"]),
    )

    weights = overshooting_weights(5, 0.8)
    compare(
        "overshooting weights at every update: once",
        "us per update",
        1e-6,
        lambda: overshooting_weights(5, 0.8),
        lambda: weights,
    )

    fresh = torch.Generator().manual_seed(0)
    chance = Chance(CPU, 0)
    shape = (half.sides, half.groups, samples)
    chance.draw(*shape)
    compare(
        "masks and noise in new memory: in a buffer", "us per update", 1e-6,
        lambda: torch.rand(*shape, generator=fresh), lambda: chance.draw(*shape),
        (4.0 * samples * half.sides * half.groups,) * 2,
    )  # fmt: skip

    stored = [
        (
            bench.replay.action[i],
            bench.replay.obs[i],
            bench.replay.reward[i],
            bench.replay.terminated[i],
            bench.replay.keep[i],
        )
        for i in range(8)
    ]

    def draw_from_list() -> list[Tensor]:
        everything = [torch.cat(parts, dim=1) for parts in zip(*stored, strict=True)]
        at = torch.randint(8 * ROBOTS, (BATCH,), generator=bench.generator)
        return [x[:, at] for x in everything]

    ring = size(bench.replay.action, bench.replay.obs, bench.replay.reward, bench.replay.terminated, bench.replay.keep)
    compare(
        "a list of rollouts, joined to draw: a ring",
        "us per sample",
        us,
        draw_from_list,
        bench.batch,
        (2.0 * ring, ring),
    )

    parts = Sequences(
        *(torch.cat([x] * (HISTORY // len(s.reward))) if x.dim() < 4 and i else x for i, x in enumerate(s))
    )
    noise = half.noise(samples)
    long_noise = half.noise(parts.reward.numel())

    def filtered(x: Sequences, draws: Tensor) -> Tensor:
        return half.sequence(x.latent, x.action.flatten(0, 1), x.keep, draws, half.see(x.obs.flatten(0, 1))).last

    def untracked(x: Sequences, draws: Tensor) -> Tensor:
        with torch.no_grad():
            return filtered(x, draws)

    stored_latents = size(bench.replay.latent) / bench.replay.capacity / ROBOTS * BATCH
    compare(
        f"states found from {HISTORY} steps before: stored, refreshed", "us per sample", us,
        lambda: untracked(parts, long_noise),
        lambda: bench.replay.read(bench.replay.draw(BATCH, bench.generator)).latent,
        (size(parts.obs, parts.action), stored_latents),
    )  # fmt: skip
    compare(
        "latents copied with their gradients' history: without", "us per sample", us,
        lambda: filtered(s, noise).clone().detach(), lambda: untracked(s, noise),
        (kept(lambda: filtered(s, noise)), 0.0),
    )  # fmt: skip

    obs = bench.rollout.obs[-1]
    once = Sequences(
        bench.memory.latent,
        *(x[:1] for x in bench.replay.read(torch.stack((torch.zeros(ROBOTS).long(), torch.arange(ROBOTS)), 1))[1:]),
    )
    history = Sequences(once.latent, *(x.expand(HISTORY, *x.shape[1:]) for x in once[1:]))
    draws = half.noise(HISTORY * ROBOTS)
    once_draws = half.noise(ROBOTS)
    compare(
        f"the agent's latent found from {HISTORY} steps: one step on", "us per robot and step", 1e-6 * ROBOTS,
        lambda: untracked(history, draws), lambda: untracked(once, once_draws),
        (4.0 * HISTORY * ROBOTS * (obs.shape[1] + half.num_actions), size(once.latent)),
    )  # fmt: skip
    if torch.cuda.is_available():
        rows.append(transfers(bench, repetitions))
    return rows


def transfers(bench: Bench, repetitions: int) -> Row:
    """Compare copies of a rollout to a GPU from pageable memory, waited for, with copies from pinned memory."""
    pageable = bench.rollout.obs
    pinned = bench.rollout.obs.pin_memory()
    cuda = torch.empty_like(pageable, device="cuda")

    def wait() -> None:
        cuda.copy_(pageable)
        torch.cuda.synchronize()

    found = machine.interleaved(
        {"before": seconds(wait), "after": seconds(lambda: cuda.copy_(pinned, non_blocking=True))}, repetitions
    )
    return Row(
        "transfers waited for: non-blocking, pinned", "us per rollout", found["before"] / 1e-6, found["after"] / 1e-6
    )


def report(rows: list[Row], about: dict[str, object]) -> dict[str, Any]:
    """Print the table; return what --json prints of it."""

    def megabytes(x: float | None) -> str:
        return "" if x is None else f"{x / 2**20:.2f}"

    table = [("before: after", "unit", "before", "after", "times", "MB before", "MB after")]
    for r in rows:
        table.append(
            (
                r.name,
                r.unit,
                f"{r.before:.3g}",
                f"{r.after:.3g}",
                f"{r.before / r.after:.1f}",
                megabytes(r.memory_before),
                megabytes(r.memory_after),
            )
        )
    machine.table(
        f"Details of the world model's training; one thread, {BATCH} sequences of 16 steps, {ROBOTS} robots",
        table,
        about,
    )
    if not torch.cuda.is_available():
        print("transfers from pinned memory: not measured, there is no GPU\n")
    return {"details": [r._asdict() for r in rows]}
