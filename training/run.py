"""A training run from its first iteration to its checkpoint, whatever comes between."""

import contextlib
import dataclasses
import math
import pathlib
import re
import shutil
import signal
import statistics
import time
import types
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from config import Config
from environments import ABEnv
from settings import ConfigError
from training import checkpoint as checkpoints
from training import distributed, runs, tree
from training.clips import Clips
from training.display import Display, count_text, say, seconds_text
from training.engine import TrainingEngine
from training.evaluation import EVALUATION_SEED, Onlooker, evaluate, nearness, reaches, target
from training.files import reason, written_whole
from training.guard import Guard
from training.logger import Logger
from training.monitor import Monitor, reader
from training.resources import peak_memory
from training.spectator import Spectator

# End a run: a terminal's Ctrl-C, a request, a closed terminal; Windows has not all of them
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
RANKED = 3  # evaluations that a policy is ranked by: its own and those just before, since one alone is luck
GRACE = 3.0  # how long a signal waits for an iteration or an evaluation to end [s]


def heeded() -> list[int]:
    """Return the signals that end a run; not a closed terminal's, where nohup has it ignored."""
    hangup = getattr(signal, "SIGHUP", None)
    return [number for number in SIGNALS if number != hangup or signal.getsignal(number) != signal.SIG_IGN]


def set_alarm(seconds: float) -> None:
    """Have SIGALRM sent after some time, never for 0, where the system has it."""
    if hasattr(signal, "SIGALRM"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


class InterruptedRunError(Exception):
    """A signal has waited long enough."""


class Run:
    """One training run: iterations, evaluations, the best creature so far, and what it saves of them.

    chosen: fields of the configuration that the machine chose, by name; folder: of the run, its own.

    Of several processes (training/distributed.py) each has a Run, and all of them iterate, evaluate and end together;
    the first writes what there is to be written.
    """

    def __init__(
        self,
        cfg: Config,
        engine: TrainingEngine,
        eval_env: ABEnv,
        folder: pathlib.Path,
        console: Console,
        chosen: dict[str, Any] | None = None,
    ) -> None:
        self.cfg = cfg
        self.engine = engine
        self.eval_env = eval_env
        self.folder = folder
        self.console = console
        self.writes = distributed.rank() == 0
        self.chosen = chosen or {}
        self.monitor = Monitor(None)
        self.spectator: Spectator | None = None  # who is told how far the run is
        self.clips = Clips(cfg.task, folder, cfg.env.ctrl_dt, self.say)
        self.iteration = 0
        self.last = cfg.train.iterations  # iteration
        self.train_seconds = 0.0
        self.first_step = 0  # env steps that others took before this run
        self.begun_from = ""  # checkpoint whose networks it began with
        self.best: dict[str, Any] = {}
        self.rank = [0.0, 0.0]  # the best one's
        self.ranks: list[list[float]] = []  # the latest evaluations'
        self.arrival: list[float] = []  # training seconds and env steps at the target survival
        self.undone = 0  # iterations before this run
        self.waiting: dict[str, Any] = {}  # metrics of an iteration whose evaluation was interrupted
        self.ever_saved = False
        self.busy = False  # with an iteration, part of which may be done
        self.signal = 0  # that this process was sent
        self.stop = 0  # signal that ends it, the same for all
        self.saved = time.monotonic()
        self.evaluating = math.inf  # the latest evaluation's time, or that of one to come [s]
        self.failed: set[str] = set()  # files that could not be written when it was last tried

    def begin_from(self, loaded: checkpoints.Checkpoint) -> None:
        """Begin with a checkpoint's networks and optimisers; raise ConfigError, naming the file, if they do not fit.

        With the networks alone, where another learner left them.
        """
        self.begun_from = loaded.path
        if loaded.trainer and self.cfg.train.learner == loaded.config.train.learner:
            self.engine.load_trainer_state(loaded.trainer, f"checkpoint: {loaded.path}: trainer")
        rate, before = (getattr(cfg, self.cfg.train.learner).learning_rate for cfg in (self.cfg, loaded.config))
        if rate != before:
            self.engine.learning_rate = rate

    def resume(self, loaded: checkpoints.Checkpoint, anew: bool, more: int | None) -> None:
        """Go on where a run was saved.

        anew: begin episodes anew; more: iterations from here, None for those that are left.

        Raises ConfigError, naming the file, if it does not fit.
        """
        self.begin_from(loaded)
        name = f"checkpoint: {loaded.path}"
        progress = loaded.progress
        try:
            if not anew:
                self.engine.load_run_state(loaded.run["engine"][distributed.rank()], f"{name}: run")
            self.waiting = dict(loaded.run["waiting"])
            self.engine.lessons = int(loaded.run["lessons"])
            self.best, rank, arrival, self.undone = (loaded.run[key] for key in ("best", "rank", "arrival", "undone"))
            self.rank = [float(x) for x in rank]
            self.ranks = [[float(x) for x in rank] for rank in loaded.run["ranks"]]
            self.arrival = [float(x) for x in arrival]
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{name}: run: expected what a run needs ({error})") from None
        self.iteration, self.first_step = (progress.get(name, 0) for name in ("iteration", "env_steps"))
        self.train_seconds = progress.get("train_seconds", 0.0)
        self.engine.env_steps = self.first_step
        self.last = self.iteration + more if more else loaded.last

    def go(self) -> int:
        """Iterate to the end, until a signal or until there is no hope; return an exit code: 0, 128 + signal, or 3."""
        engine = self.engine
        self.cfg = dataclasses.replace(self.cfg, train=dataclasses.replace(self.cfg.train, iterations=self.last))
        engine.agree()
        self.guard = Guard(engine, self.undone)
        if self.writes:
            try:
                logged = self.iteration - bool(self.waiting)  # the row of what waits may have been written, too
                self.logger = Logger(self.folder, self.cfg, logged, engine.env_steps, self.chosen)
            except OSError as error:
                raise ConfigError(f"train.run_dir: cannot write to {self.folder}: {reason(error)}") from None
        display = Display(self.last, self.console, tuple(self.eval_env.targets))
        recent: list[float] = []
        self.saved = time.monotonic()
        try:
            with self.heed_signals():
                self.monitor = Monitor(reader(engine.device))
                self.monitor.start()
                if self.begun_from and not self.best and self.cfg.train.eval_every:
                    self.evaluate_now()  # what there is already is not lost to what is worse
                if self.waiting:
                    self.complete(self.waiting, display)
                while self.iteration < self.last and not self.stopped() and not self.guard.given_up:
                    start = time.perf_counter()
                    self.busy = True
                    metrics = engine.iterate()
                    recent = [*recent[-19:], time.perf_counter() - start]
                    self.train_seconds += recent[-1]
                    self.iteration += 1
                    if seen := self.guard.look(metrics):
                        rate = engine.learning_rate
                        self.say(f"iteration {self.iteration}: {seen}; undone, learning rate now {rate:.2g}")
                    rate = self.cfg.ppo.rollout * engine.robots * len(recent) / sum(recent)
                    self.waiting = {
                        "iteration": self.iteration,
                        "env_steps": engine.env_steps,
                        "train_seconds": self.train_seconds,
                        "rate": rate,
                        **metrics,
                        **self.monitor.latest(),
                    }
                    self.busy = False
                    # one that takes longer than a signal would wait is saved before the next begins, and before an
                    # evaluation that may: in the middle of it processes cannot save together
                    late = time.monotonic() - self.saved > self.cfg.train.save_every or recent[-1] > GRACE
                    long = self.due() and self.evaluating > GRACE and distributed.size() > 1
                    told = distributed.all_gather((self.signal, late, long))
                    self.stop, late, long = map(max, zip(*told, strict=True))
                    if self.stop:
                        set_alarm(0.0)
                    if long and not self.stop:
                        self.save_latest()
                    if not self.stop or not self.due():
                        left = (self.last - self.iteration) * sum(recent) / len(recent)
                        self.complete(self.waiting, display, left)
                    if late and not long:
                        self.save_latest()
        except InterruptedRunError:
            self.stop = self.signal
            distributed.part()
            if not self.sound:
                what = "what is saved is the run before it" if self.ever_saved else "nothing of it is saved"
                self.say(f"what it was at takes longer than {GRACE:g} s: {what}")
        except BaseException:
            self.clips.close()
            raise
        finally:
            self.monitor.close()
            display.close()
        return 128 + self.stop if self.stop else 3 if self.guard.in_a_row else 0

    def stopped(self) -> bool:
        """Return whether any process was sent a signal; all of them hear of it here, and end together."""
        self.stop = self.stop or max(distributed.all_gather(self.signal))
        return bool(self.stop)

    @property
    def sound(self) -> bool:
        """Whether the run is between two iterations, so that it can be saved."""
        return not self.busy and not distributed.is_parted()

    def due(self) -> bool:
        """Return whether this iteration ends with an evaluation."""
        every = self.cfg.train.eval_every
        return bool(every) and (self.iteration % every == 0 or self.iteration == self.last)

    def films(self) -> bool:
        """Return whether this iteration's evaluation is filmed."""
        train = self.cfg.train
        due = train.clip_every and math.ceil(self.iteration / train.eval_every) % train.clip_every == 0
        return bool(due) and self.writes and self.clips.ready

    def complete(self, metrics: dict[str, Any], display: Display, left: float = 0.0) -> None:
        """Evaluate if it is time, log, and show an iteration's metrics."""
        if self.due():
            start = time.perf_counter()
            metrics = metrics | self.evaluate_now()
            self.evaluating = time.perf_counter() - start
        if self.writes:
            with self.told("metrics"):
                self.logger.log(metrics)
        self.log_clip()
        self.waiting = {}
        display.update(metrics | {"left": left})
        if self.spectator:
            self.spectator.rows = tuple(display.rows())
            self.spectator.seconds = self.train_seconds

    def log_clip(self) -> None:
        """Log the clip that was drawn meanwhile, if one was."""
        if clip := self.clips.take():
            with self.told("clips"):
                self.logger.log_clip(clip.env_steps, clip.gif, clip.size)

    def evaluate_now(self) -> dict[str, Any]:
        """Evaluate the creature, keep it if it is the best so far, and save it."""
        films = self.films()
        self.clips.begin()
        result = self.evaluate(1.0, 1.0, self.clips.film if films else None)
        # as hard as training becomes: of policies that pass the task as it is, this tells the robust ones
        hardest = self.cfg.curriculum.push[1], self.cfg.curriculum.command[1]
        hard = result if hardest == (1.0, 1.0) else self.evaluate(*hardest)
        least = self.cfg.train.target_survival
        if not self.arrival and reaches(result, least, self.eval_env.targets):
            self.arrival = [self.train_seconds, float(self.engine.env_steps)]
        # Among those that do what is asked the return tells: who stands still survives, too. On stairs the best of 45
        # evaluations chose a policy of which 92.8 % survived steps of 18 cm, the best mean of three one of 96.1 %.
        self.ranks = [*self.ranks, [nearness(hard, least, self.eval_env.targets), hard["mean_return"]]][-RANKED:]
        rank = [statistics.fmean(values) for values in zip(*self.ranks, strict=True)]
        progress = self.progress() | result
        self.save(f"iteration-{self.iteration}.pt", progress)
        self.forget_old()
        better = all(map(math.isfinite, rank)) and (not self.best or rank >= self.rank)
        if better and self.save(runs.BEST, progress):
            self.best = progress
            self.rank = rank
        if films:
            rows = ("iteration", f"{self.iteration}"), ("survival", f"{100 * result['survival']:.1f} %")
            with self.told("clips"):
                self.clips.draw(self.iteration, self.engine.env_steps, rows)
        near = {"nearness": nearness(result, least, self.eval_env.targets)}
        return {f"eval_{key}": value for key, value in (result | near).items()}

    def evaluate(self, push: float, command: float, onlooker: Onlooker | None = None) -> dict[str, float]:
        """Return an evaluation with pushes and commands at some level; see ABEnv.set_level.

        onlooker: as for training.evaluation.evaluate().
        """
        self.eval_env.set_level(push, command)
        with self.engine.acting():
            return evaluate(
                self.engine.creature,
                self.eval_env,
                EVALUATION_SEED + self.iteration,
                self.engine.device,
                len(self.engine.workers),
                onlooker,
            )

    def progress(self) -> dict[str, Any]:
        """Return how far the run has come, and what the machine chose for it."""
        return {
            "iteration": self.iteration,
            "env_steps": self.engine.env_steps,
            "train_seconds": self.train_seconds,
            "last": self.last,
            "chosen": self.chosen,
        }

    def save(self, name: str, progress: dict[str, Any], run: dict[str, Any] | None = None) -> bool:
        """Write a checkpoint of this instant to the run's folder; return whether there was room for it."""
        engine = self.engine
        if not self.writes:
            return True
        trainer = engine.trainer_state()
        with self.told(name), engine.acting():
            checkpoints.save(self.folder / name, engine.creature, self.cfg, progress, trainer, run)
            return True
        return False

    def save_latest(self) -> bool:
        """Write all that going on from here needs."""
        names = "best", "rank", "ranks", "arrival", "waiting"
        state = distributed.gather(self.engine.run_state()) or []
        run = {"engine": state if all(state) else [], "undone": self.guard.undone, "lessons": self.engine.lessons}
        run |= tree.tensors({name: getattr(self, name) for name in names})
        written = self.save(runs.LATEST, self.progress(), run)
        self.ever_saved |= written
        self.saved = time.monotonic()
        return written

    def forget_old(self) -> None:
        """Delete what evaluations before the last few have saved."""
        if not self.writes:
            return
        named = ((re.fullmatch(r"iteration-(\d+)\.pt", path.name), path) for path in self.folder.glob("iteration-*.pt"))
        found = {int(match[1]): path for match, path in named if match}
        for number in sorted(found)[: -self.cfg.train.keep or None]:
            with contextlib.suppress(OSError):
                found[number].unlink()

    @contextlib.contextmanager
    def told(self, name: str) -> Iterator[None]:
        """Say, once, that a file of the run could not be written, and go on: training is worth more than its log."""
        kind = name.partition("-")[0]
        try:
            yield
            self.failed.discard(kind)
        except OSError as error:
            if kind not in self.failed:
                self.say(f"cannot write {self.folder / name}: {reason(error)}; going on")
            self.failed.add(kind)

    def say(self, text: str) -> None:
        """Print a line for people."""
        say(self.console, text)

    def finish(self, copy: pathlib.Path | None = None) -> bool:
        """Save, draw the curve, and say how it went; return whether all of it was written.

        copy: where else the best policy is to be.
        """
        written = self.save_latest() if self.sound else True
        if not self.writes:
            return True
        self.clips.close(wait=not self.stop)
        self.log_clip()
        with self.told("curve.png"):
            self.logger.close()
        trained = self.folder / (runs.BEST if self.best else runs.LATEST)
        if copy and trained.exists():
            try:
                with open(trained, "rb") as source, written_whole(copy) as file:
                    shutil.copyfileobj(source, file)
                trained = copy
            except OSError as error:
                self.say(f"cannot write {copy}: {reason(error)}")
                written = False
        rate = (self.engine.env_steps - self.first_step) / max(self.engine.seconds, 1e-9)
        self.say(
            f"trained {count_text(self.engine.env_steps)} env steps in {seconds_text(self.train_seconds)},"
            f" {count_text(rate)} per second"
        )
        if self.guard.in_a_row:
            self.say(f"did not recover: the last {self.guard.in_a_row} iterations were undone")
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
        curve = self.folder / "curve.png"
        self.say(
            f"peak memory {peak_memory() / 2**30:.2f} GB; logs in {self.folder}"
            + (f", learning curve {curve}" if curve.exists() else "")
        )
        if trained.exists():
            where = f" --checkpoint {trained if copy else self.folder}"
            self.say(f"checkpoint {trained}; watch it: {runs.command()} --eval --render{where}")
        return written

    def say_profile(self) -> None:
        """Say where the time of training went."""
        steps = self.engine.env_steps - self.first_step
        profile = self.engine.profile()
        total = sum(profile.values())
        if not (steps and total):
            return
        for name, seconds in profile.items():
            self.say(f"{name:>10}  {100 * seconds / total:5.1f} %  {1e6 * seconds / steps:7.3f} us per env step")

    @contextlib.contextmanager
    def heed_signals(self) -> Iterator[None]:
        """Let signals end the run in good order."""
        before = {number: signal.signal(number, self._interrupt) for number in heeded()}
        if hasattr(signal, "SIGALRM"):
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._waited_enough)
        try:
            yield
        finally:
            set_alarm(0.0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: types.FrameType | None) -> None:
        """Stop after this iteration, or in some seconds; a second Ctrl-C stops at once.

        A second signal of another kind is the same request, sent to a group and passed on by who started it.
        """
        if self.signal:
            if number == signal.SIGINT and time.monotonic() - self.signalled > 0.5:
                raise KeyboardInterrupt
            return
        self.signal = number
        self.signalled = time.monotonic()
        set_alarm(GRACE)
        self.say("stopping after this iteration and saving; Ctrl-C again to leave at once")

    def _waited_enough(self, number: int, frame: types.FrameType | None) -> None:
        raise InterruptedRunError
