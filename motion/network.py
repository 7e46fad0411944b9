"""MotionNetwork: from a frame and a command to the next frame, by experts that a gate blends.

    z (N, 2J + 3)   joint positions and velocities in deviations from their means, command between -1 and 1
    alpha (N, K)    the gate's weights of K experts, a softmax
    h <- ELU(sum_k alpha_k (W_k h + b_k))      every layer; the last has no ELU and gives the change of the frame

Blended are the experts' weights, as by Zhang et al., 2018 (mode-adaptive networks), whose product for a robot is
(sum_k alpha_k W_k) h. A matrix for each robot would be formed for that. Here its input is put K times beside itself,
times each of the weights, (alpha_1 h, ..., alpha_K h, alpha), and one product with all experts' weights, below one
another, does the same for all robots; compiled code (fused/experts.py) multiplies h by every expert and blends what
comes of it before it leaves the core's cache. `python -m benchmarks.motion --mode full` measures all three.

J joints, N robots, K experts.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fused.experts import GATE
from settings import Section, knob

EXAMPLES = 64  # frames that a robot may begin with


@dataclasses.dataclass(frozen=True)
class NetworkCfg(Section):
    """Sizes of a generator's network."""

    experts: int = knob(4, "experts that the gate blends", low=1, high=64)
    layers: int = knob(3, "layers of an expert", low=2, high=16)
    hidden: int = knob(64, "features of a layer", low=1, high=4096)


class MotionNetwork(nn.Module):
    """A generator's network with the statistics of what it was fitted to.

    joints: J; cfg: sizes; robot: name of the robot whose motion it is; fps: frames a second.
    """

    def __init__(self, joints: int, cfg: NetworkCfg, robot: str = "", fps: float = 50.0) -> None:
        super().__init__()
        self.joints = joints
        self.cfg = cfg
        self.robot = robot
        self.fps = fps
        frame = 2 * joints
        sizes = [frame + 3, *[cfg.hidden] * (cfg.layers - 1), frame]
        self.weights = nn.ParameterList()
        for inner, size in itertools.pairwise(sizes):
            weight = torch.empty(cfg.experts, inner + 1, size).uniform_(-1, 1) / math.sqrt(inner)
            weight[:, -1] = 0.0  # the experts' biases, which the weights of experts multiply
            self.weights.append(nn.Parameter(weight))
        with torch.no_grad():
            self.weights[-1] *= 0.1  # at first the next frame is much like this one
        self.gate = nn.Sequential(nn.Linear(frame + 3, GATE), nn.ELU(), nn.Linear(GATE, cfg.experts))
        self.register_buffer("mean", torch.zeros(frame))
        self.register_buffer("std", torch.ones(frame))
        self.register_buffer("low", -torch.ones(3))
        self.register_buffer("high", torch.ones(3))
        self.register_buffer("examples", torch.zeros(EXAMPLES, frame))  # [rad], [rad/s]

    def normalise(self, frame: Tensor) -> Tensor:
        """Return frames (..., 2J), positions [rad] before velocities [rad/s], in deviations from their means."""
        return (frame - self.mean) / self.std

    def restore(self, frame: Tensor) -> Tensor:
        """Return what normalise() was given."""
        return frame * self.std + self.mean

    def scale_command(self, command: Tensor) -> Tensor:
        """Return commands (..., 3) as numbers from -1, the lowest that it knows, to 1."""
        return 2.0 * (command - self.low) / (self.high - self.low) - 1.0

    def forward(self, frame: Tensor, command: Tensor, blend: Callable | None = None) -> Tensor:
        """Return the next frames (N, 2J), normalised, of normalised frames (N, 2J) and scaled commands (N, 3).

        blend: blended(), or what does the same.
        """
        z = torch.cat((frame, command), dim=-1)
        alpha = self.gate(z).softmax(dim=-1)
        h = z
        for i, weight in enumerate(self.weights):
            h = (blend or blended)(h, alpha, weight)
            if i < len(self.weights) - 1:
                h = F.elu(h)
        return frame + h

    def run(self, frame: Tensor, command: Tensor) -> Tensor:
        """Return the frames (T, N, 2J) that follow upon frames (N, 2J) under commands (T, N, 3), normalised all."""
        found = []
        for t in range(len(command)):
            frame = self(frame, command[t])
            found.append(frame)
        return torch.stack(found)


def blended(h: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """Return sum_k alpha_k (W_k h + b_k), (N, size); weight: (K, inner + 1, size), biases in the last row."""
    experts, inner, size = weight.shape
    ones = F.pad(h, (0, 1), value=1.0)
    return (alpha[:, :, None] * ones[:, None]).view(-1, experts * inner) @ weight.view(experts * inner, size)


def blended_by_robot(h: Tensor, alpha: Tensor, weight: Tensor) -> Tensor:
    """Return what blended() does by a matrix for every robot: what it saves."""
    own = torch.einsum("nk,kis->nis", alpha, weight)
    return torch.bmm(F.pad(h, (0, 1), value=1.0)[:, None], own)[:, 0]
