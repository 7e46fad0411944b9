"""Fills a ring with frames in compiled code, in threads."""

import numpy as np
import torch

from fused import experts
from fused.experts import BLOCK, GATE, ROUND, make_kernel
from fused.tiles import HAS_TILES
from motion.command import FRAMES
from motion.network import MotionNetwork
from motion.ring import Ring
from physics.jit import aligned
from training.parallel import side_by_side


class Workspace:
    """A network laid out for compiled code, and what a thread needs beside it, allocated once."""

    def __init__(self, net: MotionNetwork, dtype: torch.dtype) -> None:
        self.size = 2 * net.joints
        self.layers = net.cfg.layers
        experts = net.cfg.experts
        half = dtype == torch.bfloat16
        width, hidden = (-(-size // ROUND) * ROUND for size in (self.size + 3, net.cfg.hidden))
        sizes = [width, *[hidden] * (net.cfg.layers - 1), width]
        weights = []
        biases = []
        for weight, inner, size in zip(net.weights, sizes[:-1], sizes[1:], strict=True):
            whole = torch.zeros(experts, size, inner)
            whole[:, : weight.shape[2], : weight.shape[1] - 1] = weight.detach()[:, :-1].transpose(1, 2)
            weights.append(whole.flatten())
            bias = torch.zeros(experts, size)
            bias[:, : weight.shape[2]] = weight.detach()[:, -1]
            biases.append(bias.flatten())
        first, _, last = net.gate
        gate = torch.zeros(GATE, width)
        gate[:, : self.size + 3] = first.weight.detach()
        most = max(sizes)
        self.net = [
            gate.to(dtype), first.bias.detach().clone(), last.weight.detach().clone(), last.bias.detach().clone(),
            torch.tensor(sizes), torch.cat(weights).to(dtype), torch.cat(biases),
        ]  # fmt: skip
        panel = most * BLOCK
        space = width * BLOCK, GATE * BLOCK, experts * BLOCK, 2 * panel, experts * ROUND * BLOCK, width * BLOCK
        self.work = [aligned(size) for size in space]
        self.places = np.zeros(BLOCK, np.int64)
        self.nowhere = aligned(self.size)
        work = *(x.ctypes.data for x in (*self.work, self.places)), panel, self.nowhere.ctypes.data
        self.addresses = tuple(x.data_ptr() for x in self.net), work
        self.kernel = make_kernel(experts, half)

    def bytes(self) -> int:
        """Return how much memory it takes."""
        return sum(x.nbytes for x in (*self.net, *self.work))

    def run(self, ids: np.ndarray, counts: np.ndarray, ring: Ring) -> None:
        """Compute frames of some robots; counts: how many of each, falling."""
        arrays = ids, counts, ring.end, ring.motion.numpy(), ring.mean.numpy(), ring.std.numpy()
        addresses = (x.ctypes.data for x in arrays)
        self.kernel(
            len(ids),
            self.size,
            ring.robots,
            ring.capacity,
            *addresses,
            ring.about(),
            FRAMES,
            self.layers,
            *self.addresses,
        )


class Compiled:
    """Fills a ring in threads, each with a workspace of its own.

    dtype: of products, None for bfloat16 where the processor has a matrix unit, else float32.
    """

    def __init__(self, net: MotionNetwork, threads: int, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or (torch.bfloat16 if HAS_TILES else torch.float32)
        self.workspaces = [Workspace(net, self.dtype) for _ in range(threads)]
        self.shown: torch.Tensor | None = None

    def bytes(self) -> int:
        """Return how much memory it takes."""
        return sum(space.bytes() for space in self.workspaces)

    def fill(self, ids: np.ndarray, counts: np.ndarray, ring: Ring) -> None:
        """Compute so many frames of robots from ring.end on; counts: falling."""
        threads = len(self.workspaces)
        # blocks are dealt out in turn: the first ones may have more to do
        turn = np.arange(len(ids)) // BLOCK % threads
        parts = [(ids[turn == i], counts[turn == i]) for i in range(min(threads, -(-len(ids) // BLOCK)))]
        side_by_side(lambda both: both[0].run(*both[1], ring), list(zip(self.workspaces, parts, strict=False)))

    def show(self, ring: Ring, ahead: int, halves: bool) -> tuple[torch.Tensor, np.ndarray, bool]:
        """Go on by a frame; see Plain.show. The next call overwrites the frames."""
        if self.shown is None or len(self.shown) != ring.robots:
            self.shown = torch.zeros(ring.robots, ring.motion.shape[2])
            self.due = np.zeros(ring.robots, np.int64)
        arrays = ring.motion.numpy(), self.shown.numpy(), ring.at, ring.end, ring.got, ring.root, self.due
        shape = ring.robots, ring.motion.shape[2], ring.capacity, ahead, halves, 1.0 / ring.net.fps, FRAMES
        count, broken = experts.show(*shape, *(x.ctypes.data for x in arrays), ring.about())
        return self.shown, self.due[:count].copy(), broken > 0
