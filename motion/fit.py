"""Fit a generator to motion.

    python -m motion.fit --robot NAME --out FILE [--gaits NAME ...] [--policies PATH ...] [--clips FILE ...]
                         [--epochs N] [--seed N] [--resume]

The network sees windows of 30 frames. In each it goes on from the true frame with a chance that falls from 1 to 0.3, by
0.995 an epoch, else from its own, as it will have to (scheduled sampling; Bengio et al., 2015). The data are gaits by
formula, policies' walks (checkpoints of tasks that follow velocities) and clips of one's own, all mirrored.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from motion.dataset import Dataset
from motion.network import MotionNetwork, NetworkCfg
from settings import Section, knob

FORMAT = "foal-motion-1"


@dataclasses.dataclass(frozen=True)
class FitCfg(Section):
    """How a generator is fitted."""

    window: int = knob(30, "frames of a window", low=1, high=1000)
    batch: int = knob(512, "windows of a step", low=1, high=1 << 20)
    steps: int = knob(50, "steps of an epoch", low=1, high=10**6)
    epochs: int = knob(60, "epochs", low=1, high=10**6)
    learning_rate: float = knob(2e-3, "learning rate at first, falling to nothing as a cosine", low=1e-8, high=1.0)
    teacher: float = knob(0.995, "times the chance of going on from the true frame, an epoch", low=0.0, high=1.0)
    floor: float = knob(0.3, "least chance of it", low=0.0, high=1.0)


def rollout(net: MotionNetwork, frame: Tensor, command: Tensor, teacher: float, generator: torch.Generator) -> Tensor:
    """Return the predictions (T, N, 2J) of windows (T + 1, N, 2J), normalised.

    command: (T, N, 3), scaled; teacher: chance, for each robot and frame, of going on from the true frame.
    """
    now = frame[0]
    found = []
    for t in range(len(command)):
        found.append(net(now, command[t]))
        true = torch.rand(frame.shape[1], 1, generator=generator) < teacher
        now = torch.where(true, frame[t + 1], found[-1])
    return torch.stack(found)


class Fit:
    """A fit that goes on: network, optimiser, and how far it has come."""

    def __init__(self, data: Dataset, network: NetworkCfg, cfg: FitCfg, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.data = data
        self.cfg = cfg
        self.net = MotionNetwork(data.frame.shape[1] // 2, network, data.robot, data.fps)
        for name in ("mean", "std", "low", "high"):
            getattr(self.net, name).copy_(torch.from_numpy(getattr(data, name)))
        self.frame = self.net.normalise(torch.from_numpy(data.frame))
        self.command = self.net.scale_command(torch.from_numpy(data.command))
        self.windows = {held: torch.from_numpy(data.windows(cfg.window, held)) for held in (False, True)}
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=cfg.learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, cfg.epochs * cfg.steps)
        self.random = torch.Generator().manual_seed(seed)
        self.epoch = 0

    def batch(self, held_out: bool = False) -> tuple[Tensor, Tensor]:
        """Return windows: frames (T + 1, N, 2J) and commands (T, N, 3), normalised."""
        windows = self.windows[held_out]
        first = windows[torch.randint(len(windows), (self.cfg.batch,), generator=self.random)]
        at = first + torch.arange(self.cfg.window + 1)[:, None]
        # what is asked for is what is done next
        return self.frame[at], self.command[at[1:]]

    def epochs(self) -> Iterator[dict[str, float]]:
        """Take the epochs that are left; give what each came to: loss, and error on clips held out, in deviations."""
        while self.epoch < self.cfg.epochs:
            teacher = max(self.cfg.floor, self.cfg.teacher**self.epoch)
            total = 0.0
            for _ in range(self.cfg.steps):
                frame, command = self.batch()
                loss = (rollout(self.net, frame, command, teacher, self.random) - frame[1:]).square().mean()
                self.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
                self.optimizer.step()
                self.schedule.step()
                total += float(loss.detach()) / self.cfg.steps
            self.epoch += 1
            with torch.no_grad():
                frame, command = self.batch(held_out=True)
                error = (self.net.run(frame[0], command) - frame[1:]).square().mean().sqrt()
                joints = self.net.joints
                apart = (self.net.run(frame[0], command) - frame[1:])[..., :joints] * self.net.std[:joints]
            yield {
                "loss": total,
                "held_out": float(error),
                "joint_error": float(apart.abs().mean()),
                "teacher": teacher,
            }

    def state(self) -> dict[str, Any]:
        """Return all that the network and going on need."""
        return {
            "format": FORMAT,
            "robot": self.data.robot,
            "fps": self.data.fps,
            "joints": self.net.joints,
            "network": dataclasses.asdict(self.net.cfg),
            "weights": dict(self.net.state_dict()),
            "epoch": self.epoch,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": self.random.get_state(),
        }
