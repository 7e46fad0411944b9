"""Fit a generator to motion.

    python -m motion.fit --robot NAME --out FILE [--gaits NAME ...] [--clips FILE ...] [--policies PATH ...]
                         [--epochs N] [--seed N] [--resume]

The network sees windows of 30 frames. In each it goes on from the true frame with a chance that falls from 1 to 0.3, by
0.995 an epoch, else from its own, as it will have to (scheduled sampling; Bengio et al., 2015). The data are gaits by
formula, clips of one's own and clips of walking policies, all mirrored.
"""

import argparse
import dataclasses
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from host import available_cores
from motion import clip, dataset, gait, record
from motion.command import RANGE
from motion.dataset import Dataset
from motion.network import MotionNetwork, NetworkCfg
from physics.robot import RobotError, load_robot
from settings import ConfigError, Section, knob
from training import runs, tree
from training.files import reason, require_file, written_whole
from training.optimizer import Adam, flatten
from training.parallel import side_by_side

FORMAT = "foal-motion-1"


@dataclasses.dataclass(frozen=True)
class FitCfg(Section):
    """How a generator is fitted."""

    window: int = knob(30, "frames of a window", low=1, high=1000)
    batch: int = knob(512, "windows of a step", low=1, high=1 << 20)
    steps: int = knob(10, "steps of an epoch", low=1, high=10**6)
    epochs: int = knob(400, "epochs", low=1, high=10**6)
    learning_rate: float = knob(2e-3, "learning rate at first, falling to nothing as a cosine", low=1e-8, high=1.0)
    teacher: float = knob(0.995, "times the chance of going on from the true frame, an epoch", low=0.0, high=1.0)
    floor: float = knob(0.3, "least chance of it", low=0.0, high=1.0)
    noise: float = knob(0.05, "of the frames that it goes on from, in deviations", low=0.0, high=10.0)


def rollout(
    net: MotionNetwork, frame: Tensor, command: Tensor, teacher: float, noise: float, generator: torch.Generator
) -> Tensor:
    """Return the predictions (T, N, 2J) of windows (T + 1, N, 2J), normalised.

    command: (T, N, 3), scaled; teacher: chance, for each robot and frame, of going on from the true frame; noise: of
    what it goes on from, whose error the next frame is to correct.
    """
    now = frame[0]
    found = []
    for t in range(len(command)):
        found.append(net(now + noise * torch.randn(now.shape, generator=generator), command[t]))
        true = torch.rand(frame.shape[1], 1, generator=generator) < teacher
        now = torch.where(true, frame[t + 1], found[-1])
    return torch.stack(found)


class Fit:
    """A fit that goes on: network, optimiser, and how far it has come.

    threads: parts of a batch, each in a thread of its own.
    """

    def __init__(self, data: Dataset, network: NetworkCfg, cfg: FitCfg, seed: int = 0, threads: int = 1) -> None:
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        self.data = data
        self.cfg = cfg
        self.net = MotionNetwork(data.frame.shape[1] // 2, network, data.robot, data.fps)
        for name in ("mean", "std", "low", "high"):
            getattr(self.net, name).copy_(torch.from_numpy(getattr(data, name)))
        self.net.examples.copy_(torch.from_numpy(data.slowest(len(self.net.examples))))
        self.frame = self.net.normalise(torch.from_numpy(data.frame))
        self.command = self.net.scale_command(torch.from_numpy(data.command))
        self.windows = {held: torch.from_numpy(data.windows(cfg.window, held)) for held in (False, True)}
        self.parameters = list(self.net.parameters())
        self.flat = flatten(self.parameters)
        self.optimizer = Adam(self.flat)
        self.randoms = [torch.Generator().manual_seed(seed + 7919 * i) for i in range(threads)]
        self.epoch = 0

    def batch(self, random: torch.Generator, held_out: bool = False) -> tuple[Tensor, Tensor]:
        """Return a thread's windows: frames (T + 1, N, 2J) and commands (T, N, 3), normalised."""
        windows = self.windows[held_out]
        count = max(1, self.cfg.batch // len(self.randoms))
        first = windows[torch.randint(len(windows), (count,), generator=random)]
        at = first + torch.arange(self.cfg.window + 1)[:, None]
        return self.frame[at], self.command[at[1:]]  # what is asked for is what is done next

    def gradient(self, random: torch.Generator, teacher: float) -> tuple[Tensor, float]:
        """Return the loss's gradient, one vector, and the loss, of a thread's windows."""
        frame, command = self.batch(random)
        loss = (rollout(self.net, frame, command, teacher, self.cfg.noise, random) - frame[1:]).square().mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, self.parameters)]), float(loss.detach())

    def take_epoch(self) -> dict[str, float]:
        """Take an epoch; return its loss, and what is wrong on clips held out that run freely over a window.

        error: in deviations, root-mean-square; joint_error: of joints, mean [rad].
        """
        cfg = self.cfg
        teacher = max(cfg.floor, cfg.teacher**self.epoch)
        total = 0.0
        for i in range(cfg.steps):
            found = side_by_side(lambda random: self.gradient(random, teacher), self.randoms)
            gradient = sum(g for g, _ in found) / len(found)
            done = (self.epoch + i / cfg.steps) / cfg.epochs
            self.optimizer.rates[0] = cfg.learning_rate * 0.5 * (1.0 + np.cos(np.pi * done))
            self.optimizer.step(gradient, limit=1.0)
            total += sum(loss for _, loss in found) / len(found) / cfg.steps
        self.epoch += 1
        with torch.no_grad():
            frame, command = self.batch(self.randoms[0], held_out=True)
            apart = self.net.run(frame[0], command) - frame[1:]
        joints = apart[..., : self.net.joints] * self.net.std[: self.net.joints]
        return {
            "loss": total,
            "error": float(apart.square().mean().sqrt()),
            "joint_error": float(joints.abs().mean()),
            "teacher": teacher,
        }

    def epochs(self) -> Iterator[dict[str, float]]:
        """Take the epochs that are left; give what take_epoch() returns of each."""
        while self.epoch < self.cfg.epochs:
            yield self.take_epoch()

    def state(self) -> dict[str, Any]:
        """Return all that the network and going on need."""
        return {
            "format": FORMAT,
            "robot": self.net.robot,
            "fps": self.net.fps,
            "joints": self.net.joints,
            "network": dataclasses.asdict(self.net.cfg),
            "fit": dataclasses.asdict(self.cfg),
            "weights": dict(self.net.state_dict()),
            "epoch": self.epoch,
            "optimizer": self.optimizer.moments(),
            "randoms": [random.get_state() for random in self.randoms],
        }

    def load_state(self, state: dict[str, Any], name: str) -> None:
        """Go on from state(); raise ConfigError, naming the file, where it is of another fit."""
        mine = self.state()
        for part in ("robot", "fps", "joints", "network", "fit"):
            if state.get(part) != mine[part]:
                raise ConfigError(f"{name}: {part}: expected {mine[part]}, which is asked for, got {state.get(part)}")
        tree.require_like(mine, state, name)
        self.net.load_state_dict(state["weights"])
        self.optimizer.load_moments(state["optimizer"])
        self.epoch = state["epoch"]
        for random, kept in zip(self.randoms, state["randoms"], strict=True):
            random.set_state(kept)


def save(path: pathlib.Path, fit: Fit) -> None:
    """Write a fit, whole or not at all."""
    with written_whole(path) as file:
        torch.save(fit.state(), file)


def read(path: pathlib.Path) -> dict[str, Any]:
    """Return what save() wrote; nothing in it is run. Raises ConfigError, naming the file, if it is none."""
    try:
        state = torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except Exception as error:  # whatever unpickling a foreign file may raise
        raise ConfigError(f"{path}: expected a generator of motion, whole ({type(error).__name__})") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ConfigError(f"{path}: expected a generator of motion, format {FORMAT}")
    return state


def load(path: str | pathlib.Path, robot: str = "") -> MotionNetwork:
    """Return a fitted network; raise ConfigError, naming the file, if it is none, or of another robot than is named."""
    state = read(pathlib.Path(path))
    try:
        cfg = NetworkCfg(**state["network"])
        cfg.validate("network")
        net = MotionNetwork(state["joints"], cfg, state["robot"], state["fps"])
        tree.require_like(dict(net.state_dict()), state["weights"], "weights")
        net.load_state_dict(state["weights"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{path}: expected what a generator of motion has ({error!s:.120})") from None
    if robot and net.robot != robot:
        raise ConfigError(f"{path}: expected a generator of {robot}, got one of {net.robot}")
    return net.eval()


def gather(args: argparse.Namespace) -> Dataset:
    """Return the data that a command line asks for."""
    robot = load_robot(args.robot)
    bounds = np.array(args.range, float).reshape(3, 2) if args.range else gait.reachable(robot, args.gaits, RANGE)
    clips = dataset.by_formula(robot, args.gaits, args.each, args.frames, bounds, seed=args.seed) if args.gaits else []
    for path in args.clips:
        clips.append(clip.load(path))
    for given in args.policies:
        recorded, fell = record.record(runs.policy(given), args.each, args.frames, args.seed)
        print(f"{len(recorded)} clips of {given}" + (f"; {fell} robots fell" if fell else ""), flush=True)
        clips += recorded
    return Dataset.of(robot, clips)


def main(arguments: list[str] | None = None) -> int:
    """Fit, print and write; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="motion.fit", allow_abbrev=False)
    parser.add_argument("--robot", default="go1", metavar="NAME", help="robot whose motion it is")
    parser.add_argument("--out", default="motion.pt", metavar="FILE", help="what to write, after every epoch")
    parser.add_argument("--gaits", nargs="*", default=["trot"], metavar="NAME", help=", ".join(gait.GAITS))
    parser.add_argument("--clips", nargs="*", default=[], metavar="FILE", help="clips of one's own, .npz")
    parser.add_argument(
        "--policies",
        nargs="*",
        default=[],
        metavar="PATH",
        help="walking policies to record: checkpoints, runs, or tasks whose policy comes with Foal",
    )
    parser.add_argument("--each", type=int, default=120, help="clips of each gait and policy")
    parser.add_argument("--frames", type=int, default=500, help="frames of a clip that is made")
    parser.add_argument("--range", nargs=6, type=float, metavar="X",
                        help="commands: lowest and highest forward, sideways [m/s] and turning [rad/s]; by default "
                        f"{' '.join(f'{x:g}' for x in RANGE.ravel())}, slower for legs too short for it")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=FitCfg().epochs, help="times that many steps")
    parser.add_argument("--hidden", type=int, default=NetworkCfg().hidden, help="features of a layer")
    parser.add_argument("--batch", type=int, default=FitCfg().batch, help="windows of a step")
    parser.add_argument("--steps", type=int, default=FitCfg().steps, help="steps of an epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on with FILE")
    args = parser.parse_args(arguments)
    path = pathlib.Path(args.out)
    try:
        if path.exists() and not args.resume:
            raise ConfigError(f"--out: expected a new file, {path} is there already; --resume goes on with it")
        require_file(path, "--out")
        network = NetworkCfg(hidden=args.hidden)
        cfg = FitCfg(epochs=args.epochs, batch=args.batch, steps=args.steps)
        network.validate("network")
        cfg.validate("fit")
        fit = Fit(gather(args), network, cfg, args.seed, available_cores())
        if args.resume:
            fit.load_state(read(path), str(path))
        start = time.perf_counter()
        for told in fit.epochs():
            save(path, fit)
            numbers = ", ".join(f"{name.replace('_', ' ')} {x:.4g}" for name, x in told.items())
            print(f"epoch {fit.epoch} of {cfg.epochs}: {numbers}; {time.perf_counter() - start:.0f} s", flush=True)
    except (ConfigError, RobotError) as error:
        print(f"motion.fit: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"motion.fit: {path}: {reason(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"motion.fit: stopped; --resume goes on with {path}", file=sys.stderr)
        return 130
    print(f"generator of {fit.net.robot} in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
