"""Ring: the frames of many robots that are kept, and the commands that they follow."""

import numpy as np
import torch
from torch import Tensor

from motion.command import FRAMES, between
from motion.network import MotionNetwork


class Ring:
    """Frames of N robots: frame f of a robot lies in row f modulo the capacity.

    at: (N) the frame that is shown; end: (N) the first one that is not computed yet. A robot's command goes from start
    to target (N, 3) from frame since (N) on. got: (N) frames that it last got; root: (N, 4) x, y [m], cosine and sine
    of the heading.
    """

    def __init__(self, net: MotionNetwork, robots: int, capacity: int, device: torch.device) -> None:
        self.net = net
        self.robots = robots
        self.capacity = capacity
        self.device = device
        self.motion = torch.zeros(capacity, robots, 2 * net.joints, device=device)
        self.at = np.zeros(robots, np.int64)
        self.end = np.ones(robots, np.int64)
        self.start = np.zeros((robots, 3), np.float32)
        self.target = np.zeros((robots, 3), np.float32)
        self.since = np.zeros(robots, np.int64)
        self.got = np.ones(robots, np.int64)
        self.root = np.tile([0.0, 0.0, 1.0, 0.0], (robots, 1))
        self.mean = net.mean.to(device, torch.float32)
        self.std = net.std.to(device, torch.float32)
        self.low = net.low.cpu().numpy().astype(np.float32)
        self.scale = (2.0 / (net.high - net.low)).cpu().numpy().astype(np.float32)

    def about(self) -> tuple[int, ...]:
        """Return the addresses of what says what is asked for."""
        return tuple(x.ctypes.data for x in (self.start, self.target, self.since, self.low, self.scale))

    def bytes(self) -> int:
        """Return how much memory the frames take."""
        return self.motion.numel() * self.motion.element_size()

    def command(self, ids: np.ndarray | slice, frame: np.ndarray) -> np.ndarray:
        """Return the commands (n, 3) of some robots' frames."""
        return between(self.start[ids], self.target[ids], frame - self.since[ids], FRAMES)

    def left(self) -> np.ndarray:
        """Return how many frames after the one that is shown there are, (N)."""
        return self.end - self.at - 1

    def put(self, ids: np.ndarray, frames: Tensor, commands: np.ndarray) -> None:
        """Begin anew with frames (n, 2J), under commands (n, 3) at once."""
        self.at[ids] = 0
        self.end[ids] = 1
        self.motion[0, torch.from_numpy(ids)] = frames
        self.start[ids] = self.target[ids] = commands
        self.since[ids] = -FRAMES

    def ask(self, ids: np.ndarray, commands: np.ndarray) -> None:
        """Let commands change from the frame that is shown on, and forget the frames after it."""
        self.start[ids] = self.command(ids, self.at[ids])
        self.target[ids] = commands
        self.since[ids] = self.at[ids]
        self.end[ids] = self.at[ids] + 1

    def frames(self, ahead: int = 0) -> Tensor:
        """Return the frames (N, 2J) that are so many after those shown."""
        rows = torch.from_numpy((self.at + ahead) % self.capacity).to(self.device)
        return self.motion[rows, torch.arange(self.robots, device=self.device)]
