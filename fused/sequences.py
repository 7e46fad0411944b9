"""Sequences out of a ring of rollouts, and latents into it, in compiled code; in PyTorch: training/replay.py."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fused.memory import scratch, view
from fused.program import launch
from fused.registers import WIDTH
from fused.vectors import load, store
from physics.jit import kernel


@kernel
def _read(batch, length, capacity, steps, robots, width, ring, places, out):
    ring, places, out = view(ring, np.float32), view(places, np.int64), view(out, np.float32)
    for j in range(length):
        for t in range(steps):
            for b in range(batch):
                at = (((places[2 * b] + j) % capacity * steps + t) * robots + places[2 * b + 1]) * width
                to = ((j * steps + t) * batch + b) * width
                for i in range(width):
                    out[to + i] = ring[at + i]


def read_sequences(ring: Tensor, places: Tensor, length: int) -> Tensor:
    """Return what a ring (capacity, steps, robots, ...) holds of B sequences, (length * steps, B, ...), float32.

    places: (B, 2), int64, number of the first rollout and robot; length: rollouts in a sequence.
    """
    capacity, steps, robots, *shape = ring.shape
    if ring.dtype != torch.float32 or places.dtype != torch.int64:
        raise ValueError(f"expected a ring of float32 and places of int64, got {ring.dtype} and {places.dtype}")
    ring, places = ring.contiguous(), places.contiguous()
    batch = len(places)
    out = torch.empty(length * steps, batch, *shape)
    width = int(np.prod(shape, dtype=int))
    launch(_read, batch, length, capacity, steps, robots, width, ring, places, out)
    return out


@functools.cache
def make_writing_kernel(half: bool) -> Any:
    """Return the compiled pass of write_latents(); half: whether latents are of bfloat16 numbers."""
    kind = np.uint16 if half else np.float32

    @kernel
    def run(batch, rollouts, capacity, steps, robots, rows, count, latents, places, ring, work):
        latents, places = view(latents, kind), view(places, np.int64)
        ring, work = view(ring, np.float32), view(work, np.float32)
        samples = rollouts * steps * batch
        for j in range(1, rollouts + 1):
            first = (j * steps - 1) * batch
            for r in range(rows):
                for b in range(0, batch, WIDTH):
                    store(work, 0, load(latents, r * samples + first + b, 1))
                    for lane in range(WIDTH):
                        rollout = places[2 * (b + lane)] + j
                        if rollout < count:
                            ring[(rollout % capacity * rows + r) * robots + places[2 * (b + lane) + 1]] = work[lane]

    return run


def write_latents(ring: Tensor, latents: Tensor, places: Tensor, steps: int, count: int) -> None:
    """Store the latents of B sequences at the ends of rollouts as those before the ones that follow.

    ring: (capacity, L, F, robots), float32; latents: (L, F, T B); places: as of read_sequences(); steps: of a rollout;
    count: rollouts so far. B: a whole number of WIDTH.
    """
    capacity, *rows, robots = ring.shape
    batch = len(places)
    rollouts = latents.shape[-1] // (batch * steps)
    if not ring.is_contiguous() or ring.shape[1:-1] != latents.shape[:-1] or batch % WIDTH:
        raise ValueError(f"expected latents {tuple(rows)} of whole vectors of sequences, got {tuple(latents.shape)}")
    run = make_writing_kernel(latents.dtype == torch.bfloat16)
    sizes = batch, rollouts, capacity, steps, robots, int(np.prod(rows)), count
    launch(run, *sizes, latents.contiguous(), places.contiguous(), ring, scratch("lanes", WIDTH))
