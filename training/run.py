"""A training run from its first iteration to its checkpoint."""

import os
import pathlib
import shutil
import signal
import time
import types
from typing import Any

from rich.console import Console

from config import Config
from environments import ABEnv
from training import checkpoint as checkpoints
from training.display import Display, count_text, seconds_text
from training.engine import TrainingEngine
from training.evaluation import EVALUATION_SEED, evaluate, nearness, reaches, target
from training.logger import Logger
from training.monitor import Monitor, reader
from training.resources import peak_memory


def script() -> str:
    """Return simulate.py as one names it from the current folder."""
    path = pathlib.Path(__file__).resolve().parent.parent / "simulate.py"
    return path.name if path.parent == pathlib.Path.cwd() else str(path)


class Run:
    """One training run: iterations, evaluations, the best creature so far."""

    def __init__(
        self, cfg: Config, engine: TrainingEngine, eval_env: ABEnv, folder: pathlib.Path, console: Console
    ) -> None:
        self.cfg = cfg
        self.engine = engine
        self.eval_env = eval_env
        self.folder = folder
        self.console = console
        self.logger = Logger(folder, self.cfg)
        self.monitor = Monitor(None)
        self.iteration = 0
        self.train_seconds = 0.0
        self.first_step = 0  # env steps that others took before this run
        self.best: dict[str, Any] = {}
        self.rank = 0.0, 0.0  # the best one's
        self.arrival: tuple[float, int] | None = None  # training seconds and env steps at the target survival
        self.stop = False

    def resume(self, loaded: checkpoints.Checkpoint) -> None:
        """Go on where a checkpoint was saved."""
        self.engine.load_state(loaded.trainer)
        self.iteration = loaded.progress["iteration"]
        self.train_seconds = loaded.progress["train_seconds"]
        self.first_step = loaded.progress["env_steps"]
        self.engine.env_steps = self.first_step

    def go(self) -> bool:
        """Iterate to the end or until Ctrl-C; return whether it was interrupted."""
        cfg = self.cfg.train
        engine = self.engine
        last = self.iteration + cfg.iterations
        display = Display(last, self.console, tuple(self.eval_env.targets))
        previous = signal.signal(signal.SIGINT, self._interrupt)
        recent: list[float] = []
        try:
            self.monitor = Monitor(reader(engine.device))
            self.monitor.start()
            while self.iteration < last and not self.stop:
                start = time.perf_counter()
                metrics = engine.iterate()
                recent = [*recent[-19:], time.perf_counter() - start]
                self.train_seconds += recent[-1]
                self.iteration += 1
                rate = self.cfg.ppo.rollout * engine.env.num_envs * len(recent) / sum(recent)
                metrics |= {
                    "iteration": self.iteration,
                    "env_steps": engine.env_steps,
                    "train_seconds": self.train_seconds,
                    "rate": rate,
                }
                metrics |= self.monitor.latest()
                if cfg.eval_every and (self.iteration % cfg.eval_every == 0 or self.iteration == last):
                    metrics |= self.evaluate_now()
                self.logger.log(metrics)
                display.update(metrics | {"left": (last - self.iteration) * sum(recent) / len(recent)})
        finally:
            signal.signal(signal.SIGINT, previous)
            self.monitor.close()
            display.close()
        return self.stop

    def evaluate_now(self) -> dict[str, Any]:
        """Evaluate the creature, keep it if it is the best so far, and save it."""
        result = self.evaluate(1.0, 1.0)
        # as hard as training becomes: of policies that pass the task as it is, this tells the robust ones
        hardest = self.cfg.curriculum.push[1], self.cfg.curriculum.command[1]
        hard = result if hardest == (1.0, 1.0) else self.evaluate(*hardest)
        progress = {
            "iteration": self.iteration,
            "env_steps": self.engine.env_steps,
            "train_seconds": self.train_seconds,
        } | result
        least = self.cfg.train.target_survival
        if self.arrival is None and reaches(result, least, self.eval_env.targets):
            self.arrival = self.train_seconds, self.engine.env_steps
        # among those that do what is asked the return tells: who stands still survives, too
        rank = nearness(hard, least, self.eval_env.targets), hard["mean_return"]
        if not self.best or rank >= self.rank:
            self.best = progress
            self.rank = rank
            self.save("best.pt", progress)
        return {f"eval_{key}": value for key, value in result.items()}

    def evaluate(self, push: float, command: float) -> dict[str, float]:
        """Return an evaluation with pushes and commands at some level; see ABEnv.set_level."""
        self.eval_env.set_level(push, command)
        return evaluate(
            self.engine.creature,
            self.eval_env,
            EVALUATION_SEED + self.iteration,
            self.engine.device,
            len(self.engine.workers),
        )

    def save(self, name: str, progress: dict[str, Any]) -> None:
        """Write a checkpoint of this instant to the run's folder."""
        checkpoints.save(self.folder / name, self.engine.creature, self.cfg, progress, self.engine.state())

    def say(self, text: str) -> None:
        """Print a line for people."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def finish(self, path: pathlib.Path) -> None:
        """Save, draw the curve, put the best creature where --eval finds it, and say how it went.

        path: of the checkpoint; what it held before is kept as NAME.previous.pt.
        """
        progress = {
            "iteration": self.iteration,
            "env_steps": self.engine.env_steps,
            "train_seconds": self.train_seconds,
        }
        self.save("latest.pt", progress)
        curve = self.logger.close()
        trained = self.folder / ("best.pt" if self.best else "latest.pt")
        if path.exists():
            os.replace(path, path.with_suffix(".previous.pt"))
        shutil.copyfile(trained, path)
        rate = self.engine.env_steps / max(self.train_seconds, 1e-9)
        self.say(
            f"trained {count_text(self.engine.env_steps)} env steps in {seconds_text(self.train_seconds)},"
            f" {count_text(rate)} per second"
        )
        wanted = target(self.cfg.train.target_survival, self.eval_env.targets)
        if self.arrival:
            self.say(f"{wanted} after {self.arrival[0]:.1f} s of training, {count_text(self.arrival[1])} env steps")
        elif self.best:
            self.say(f"{wanted} was not reached")
        if self.best:
            found = "".join(f", {name.replace('_', ' ')} {self.best[name]:.3g}" for name in self.eval_env.targets)
            self.say(
                f"best: {100 * self.best['survival']:.1f} % of {self.best['episodes']} episodes survived{found},"
                f" return {self.best['mean_return']:.4g}, at iteration {self.best['iteration']}"
            )
        if busy := self.monitor.describe():
            self.say(busy)
        self.say(
            f"peak memory {peak_memory() / 2**30:.2f} GB; logs in {self.folder}"
            + (f", learning curve {curve}" if curve else "")
        )
        self.say(f"checkpoint {path}; watch it: python {script()} --eval --render --checkpoint {path}")

    def say_profile(self) -> None:
        """Say where the time of training went."""
        steps = self.engine.env_steps - self.first_step
        profile = self.engine.profile()
        total = sum(profile.values())
        for name, seconds in profile.items():
            self.say(f"{name:>10}  {100 * seconds / total:5.1f} %  {1e6 * seconds / steps:7.3f} us per env step")

    def _interrupt(self, number: int, frame: types.FrameType | None) -> None:
        """Stop after this iteration; a second Ctrl-C stops at once."""
        if self.stop:
            raise KeyboardInterrupt
        self.stop = True
        self.say("stopping after this iteration and saving; Ctrl-C again to leave at once")
