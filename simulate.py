"""Train, evaluate and watch a creature: the command line, and System, which orchestrates."""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import shutil
import signal
import sys
import time
import types
from collections.abc import Iterator
from typing import Any, NoReturn

import physics  # sets what PyTorch reads when imported  # isort: skip
import numpy as np
import torch
from rich.console import Console

import fused
from config import Config, ConfigError, check, expected, knobs, override, parse, sections, suggest
from entity import Creature
from environments import registry
from physics.jit import is_compiled
from training import checkpoint as checkpoints
from training.display import Display, seconds_text
from training.engine import TrainingEngine
from training.evaluation import evaluate
from training.logger import Logger
from training.resources import detect, peak_memory

EVALUATION_SEED = 1_000_003  # evaluations start from seeds that training never uses


class System:
    """Owns the parts and runs them: resources, environments, creature, training, checkpoints.

    cfg: everything; checkpoint: file to write and read; console: for people, standard error.
    """

    def __init__(self, cfg: Config, checkpoint: pathlib.Path, console: Console) -> None:
        check(cfg)
        self.cfg, self.path, self.console = cfg, checkpoint, console
        self.resources = detect(cfg)
        if cfg.train.device == "cuda" and self.resources.device.type != "cuda":
            raise ConfigError("train.device: expected auto or cpu, PyTorch finds no GPU")
        fused.set_threads(self.resources.threads)
        torch.manual_seed(cfg.seed)

    def say(self, text: str) -> None:
        """Print a line for people."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def make_env(self, num_envs: int) -> registry.ABEnv:
        """Return copies of the task."""
        return registry.make(self.cfg.task, num_envs, cfg=self.cfg.env, threads=self.resources.threads)

    def creature(self, env: registry.ABEnv, loaded: checkpoints.Checkpoint | None = None) -> Creature:
        """Return a new creature or a checkpoint's, on the device and in the precision chosen."""
        creature = loaded.creature(env) if loaded else Creature(env, self.cfg.network, self.cfg.world_model)
        creature.use_precision(self.resources.precision)
        return creature.to(self.resources.device)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Say that compiled code is being made, where it is not in the cache."""
        cold, start = not is_compiled(), time.perf_counter()
        if cold:
            self.say("compiling the simulation, once per version: about 15 s ...")
        yield
        if cold:
            self.say(f"compiled in {time.perf_counter() - start:.1f} s")

    def train(self, resume: bool = False) -> int:
        """Train for the configured iterations; return an exit code: 0, or 130 if interrupted."""
        cfg, begin = self.cfg, time.perf_counter()
        folder = pathlib.Path(cfg.train.run_dir) / f"{cfg.task}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
        loaded = checkpoints.load(self.path, self.resources.device) if resume else None
        self.say(f"task {cfg.task}: {self.resources.describe()}")
        env = self.make_env(self.resources.num_envs)
        creature = self.creature(env, loaded)
        require_writable(folder, "train.run_dir")
        require_writable(self.path.parent, "train.checkpoint_dir")
        engine = TrainingEngine(env, creature, cfg, self.resources.device)
        judge = self.make_env(cfg.train.eval_episodes)
        with self.compiling():
            engine.warm_up()
            judge.init_state(0)
        run = Run(self, engine, judge, folder, loaded)
        self.say(f"ready after {time.perf_counter() - begin:.1f} s; logs in {folder}")
        interrupted = run.go()
        run.finish()
        return 130 if interrupted else 0

    def evaluate(self, episodes: int) -> dict[str, Any]:
        """Return a checkpoint's performance on fresh episodes."""
        loaded = checkpoints.load(self.path, self.resources.device)
        env = self.make_env(episodes)
        creature = self.creature(env, loaded)
        with self.compiling():
            env.init_state(0)
        result = evaluate(creature, env, EVALUATION_SEED + self.cfg.seed, self.resources.device)
        return {"task": self.cfg.task, "checkpoint": str(self.path)} | result

    def watch(self, record: str | None, episodes: int) -> None:
        """Show a checkpoint in a window until it is closed, or record some episodes."""
        from renderer import Recorder, RenderError, Window, display_available, offscreen_display

        if not record and not display_available():
            raise RenderError("no display to open a window on; record a video instead: python simulate.py --eval --record out.mp4")
        loaded = checkpoints.load(self.path, self.resources.device)
        env = self.make_env(1)
        creature = self.creature(env, loaded)
        with self.compiling():
            env.init_state(0)
        width, height, fps = self.cfg.render.width, self.cfg.render.height, round(1 / self.cfg.env.control_dt)
        viewer = Viewer(creature, env, self.cfg, self.resources.device)
        if not record:
            with Window(env.robot, width, height, f"Foal: {self.cfg.task}", fps=fps) as window:
                viewer.show(window)
            return
        with offscreen_display(), Window(env.robot, width, height, f"Foal: {self.cfg.task}", visible=False, fps=fps) as window, Recorder(record, width, height, fps) as video:
            for _ in viewer.frames(window, episodes):
                video.add(window.capture())
        self.say(f"recorded {episodes} episode{'s' if episodes > 1 else ''} to {record}")


class Run:
    """One training run: iterations, evaluations, the best creature so far."""

    def __init__(self, system: System, engine: TrainingEngine, judge: registry.ABEnv, folder: pathlib.Path, loaded: checkpoints.Checkpoint | None) -> None:
        self.system, self.engine, self.judge, self.folder, self.cfg = system, engine, judge, folder, system.cfg
        self.logger = Logger(folder, self.cfg)
        self.iteration, self.train_seconds = 0, 0.0
        self.best: dict[str, Any] = {}
        self.arrival: tuple[float, int] | None = None  # training seconds and env steps at the target survival
        self.stop = False
        if loaded:
            engine.load_state(loaded.trainer)
            self.iteration, self.train_seconds = loaded.progress["iteration"], loaded.progress["train_seconds"]
            engine.env_steps = loaded.progress["env_steps"]

    def go(self) -> bool:
        """Iterate to the end or until Ctrl-C; return whether it was interrupted."""
        cfg, engine = self.cfg.train, self.engine
        last = self.iteration + cfg.iterations
        display = Display(last, self.system.console)
        previous = signal.signal(signal.SIGINT, self._interrupt)
        recent: list[float] = []
        try:
            while self.iteration < last and not self.stop:
                start = time.perf_counter()
                metrics = engine.iterate()
                recent = [*recent[-19:], time.perf_counter() - start]
                self.train_seconds += recent[-1]
                self.iteration += 1
                rate = engine.rollout.steps * engine.env.num_envs * len(recent) / sum(recent)
                metrics |= {"iteration": self.iteration, "env_steps": engine.env_steps, "train_seconds": self.train_seconds, "rate": rate}
                if cfg.eval_every and (self.iteration % cfg.eval_every == 0 or self.iteration == last):
                    metrics |= self.judge_now()
                self.logger.log(metrics)
                display.update(metrics | {"left": (last - self.iteration) * sum(recent) / len(recent)})
        finally:
            signal.signal(signal.SIGINT, previous)
            display.close()
        return self.stop

    def judge_now(self) -> dict[str, Any]:
        """Evaluate the creature, keep it if it is the best so far, and save it."""
        result = evaluate(self.engine.creature, self.judge, EVALUATION_SEED + self.iteration, self.engine.device)
        progress = {"iteration": self.iteration, "env_steps": self.engine.env_steps, "train_seconds": self.train_seconds} | result
        if self.arrival is None and result["survival"] >= self.cfg.train.target_survival:
            self.arrival = self.train_seconds, self.engine.env_steps
        if not self.best or (result["survival"], result["mean_return"]) >= (self.best["survival"], self.best["mean_return"]):
            self.best = progress
            self.save("best.pt", progress)
        return {f"eval_{key}": value for key, value in result.items()}

    def save(self, name: str, progress: dict[str, Any]) -> None:
        """Write a checkpoint of this instant to the run's folder."""
        checkpoints.save(self.folder / name, self.engine.creature, self.cfg, progress, self.engine.state())

    def finish(self) -> None:
        """Save, draw the curve, put the best creature where --eval finds it, and say how it went."""
        system, target = self.system, self.cfg.train.target_survival
        progress = {"iteration": self.iteration, "env_steps": self.engine.env_steps, "train_seconds": self.train_seconds}
        self.save("latest.pt", progress)
        curve = self.logger.close()
        trained = self.folder / ("best.pt" if self.best else "latest.pt")
        if system.path.exists():
            os.replace(system.path, system.path.with_suffix(".previous.pt"))
        shutil.copyfile(trained, system.path)
        rate = self.engine.env_steps / max(self.train_seconds, 1e-9)
        system.say(f"trained {self.engine.env_steps / 1e6:.2f} M env steps in {seconds_text(self.train_seconds)}, {rate / 1e3:.0f} k per second")
        if self.arrival:
            system.say(f"{100 * target:.0f} % survival after {self.arrival[0]:.1f} s of training, {self.arrival[1] / 1e6:.2f} M env steps")
        elif self.best:
            system.say(f"{100 * target:.0f} % survival was not reached")
        if self.best:
            system.say(f"best: {100 * self.best['survival']:.1f} % of {self.best['episodes']} episodes survived, at iteration {self.best['iteration']}")
        system.say(f"peak memory {peak_memory() / 2**30:.2f} GB; logs in {self.folder}" + (f", learning curve {curve}" if curve else ""))
        system.say(f"checkpoint {system.path}; watch it: python simulate.py --eval --render")

    def _interrupt(self, number: int, frame: types.FrameType | None) -> None:
        """Stop after this iteration; a second Ctrl-C stops at once."""
        if self.stop:
            raise KeyboardInterrupt
        self.stop = True
        self.system.say("stopping after this iteration and saving; Ctrl-C again to leave at once")


class Viewer:
    """Runs one robot step by step and tells the renderer what to draw."""

    def __init__(self, creature: Creature, env: registry.ABEnv, cfg: Config, device: torch.device) -> None:
        self.belief, self.env, self.cfg, self.device = creature.belief, env, cfg, device
        self.seed = EVALUATION_SEED + cfg.seed
        self.restart()

    def restart(self) -> None:
        """Begin a new episode."""
        self.state = self.env.init_state(self.seed)
        self.memory = self.belief.initial_state(1)
        self.seed += 1
        self.time = 0.0
        self.falls = 0

    def step(self) -> bool:
        """Advance one control step; return whether the episode ended."""
        action, _, self.memory = self.belief.act(torch.from_numpy(self.state.obs).to(self.device), self.memory)
        self.state = self.env.step(action.cpu().numpy())
        self.time += self.cfg.env.control_dt
        if self.state.done[0]:
            self.falls += int(self.state.terminated[0])
            self.memory = self.belief.initial_state(1)
        return bool(self.state.done[0])

    def show(self, window: Any) -> None:
        """Run until the window is closed, obeying its keys."""
        while not window.should_close:
            if window.reset_requested:
                self.restart()
            if window.push_requested is not None:
                self.env.push(np.asarray(window.push_requested) * self.cfg.env.push.speed[1])
            if not window.paused:
                self.step()
            window.draw(self.snapshot())

    def frames(self, window: Any, episodes: int) -> Iterator[None]:
        """Draw every instant of some episodes."""
        while episodes > 0:
            window.draw(self.snapshot())
            yield
            episodes -= self.step()

    def snapshot(self) -> Any:
        """Return what there is to see of this instant."""
        from renderer import Snapshot

        view, errors = self.env.view(), self.env.errors()
        hud = (
            ("time", f"{self.time:.1f} s"),
            ("reward", f"{float(self.state.reward[0]) / self.cfg.env.control_dt:.2f} /s"),
            ("goal distance", f"{100 * float(errors['goal_distance'][0]):.1f} cm"),
            ("speed", f"{float(errors['speed'][0]):.2f} m/s"),
            ("last push", f"{float(np.linalg.norm(view['last_push'])):.2f} m/s"),
            ("falls", str(self.falls)),
        )
        return Snapshot(
            view["base_position"], view["base_quaternion"], view["joint_position"], view["foot_contact_force"],
            goal=view["goal"], push=view["push"], hud=hud, fallen=bool(self.state.terminated[0]), time=self.time,
        )  # fmt: skip


def require_writable(folder: pathlib.Path, field: str) -> None:
    """Raise ConfigError, naming the field, unless files can be written to a folder; create it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{field}: expected a folder that can be written, got {folder} ({error.strerror})") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: a few options, and every field of config.py as --section.field."""
    parser = _Parser(prog="simulate.py", description=__doc__, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    add = parser.add_argument
    add("--task", metavar="NAME", help="task to train or evaluate")
    add("--seed", metavar="N", help="seed of everything random")
    add("--iterations", metavar="N", help="rollouts with an update each")
    add("--eval", action="store_true", help="evaluate a checkpoint instead of training")
    add("--render", action="store_true", help="with --eval: open a window and watch")
    add("--record", metavar="FILE", help="with --eval: record a video, .mp4 or .gif; needs no display")
    add("--episodes", metavar="N", help="with --eval: episodes to evaluate (256) or to record (1)")
    add("--checkpoint", metavar="PATH", help="checkpoint to write or read (checkpoints/TASK.pt)")
    add("--resume", action="store_true", help="go on from the checkpoint")
    add("--list", action="store_true", help="list tasks and robots")
    add("--json", action="store_true", help="with --eval: print one JSON object")
    for name, section in sections(Config()).items():
        group = parser.add_argument_group(name, type(section).__doc__)
        for field in knobs(section):
            value = getattr(section, field.name)
            unit = f" [{field.metadata['unit']}]" if field.metadata["unit"] not in ("", "1") else ""
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            text = f"{field.metadata['meaning']}{unit} ({shown})".replace("%", "%%")
            group.add_argument(f"--{name}.{field.name}", nargs=2 if isinstance(value, tuple) else None, metavar="VALUE" if not isinstance(value, tuple) else ("LOW", "HIGH"), help=text)
    return parser


def read_command_line(arguments: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options, and the texts of the fields given as --section.field, by name.

    Raises ConfigError for anything unknown.
    """
    parser = build_parser()
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        name = unknown[0].split("=")[0]
        options = [option for action in parser._actions for option in action.option_strings]
        raise ConfigError(f"{name}: unknown option; {suggest(name, options)}")
    values = vars(known)
    fields = {key: " ".join(value) if isinstance(value, list) else value for key, value in values.items() if "." in key}
    return {key: value for key, value in values.items() if "." not in key}, fields


def whole_number(options: dict[str, Any], name: str) -> int | None:
    """Return an option as a whole number of at least 1, None if it is not given."""
    if name not in options:
        return None
    try:
        value = int(options[name])
    except ValueError:
        value = 0
    if value < 1:
        raise ConfigError(f"--{name}: expected a whole number of at least 1, got {options[name]!r}")
    return value


def configure(options: dict[str, Any], fields: dict[str, str], base: Config) -> Config:
    """Return a configuration with the command line's settings."""
    by_name = {f"{name}.{field.name}": field for name, section in sections(Config()).items() for field in knobs(section)}
    changes: dict[str, Any] = {key: parse(by_name[key], text, key) for key, text in fields.items()}
    if "seed" in options:
        changes["seed"] = parse(next(f for f in knobs(Config()) if f.name == "seed"), options["seed"], "--seed")
    if (iterations := whole_number(options, "iterations")) is not None:
        changes["train.iterations"] = iterations
    return override(base, changes)


def run(arguments: list[str], console: Console) -> int:
    """Do what the command line asks for; return the exit code."""
    options, fields = read_command_line(arguments)
    if options.get("list"):
        for name, description in registry.tasks().items():
            print(f"{name}: {description}")
        print("robots: " + ", ".join(sorted(p.stem for p in (pathlib.Path(physics.__file__).parent.parent / "robots").glob("*.json"))))
        return 0
    wants_eval = options.get("eval") or options.get("render") or options.get("record")
    task = options.get("task", Config().task)
    base = dataclasses.replace(Config(), task=task, env=registry.default_cfg(task))
    path = pathlib.Path(options["checkpoint"]) if "checkpoint" in options else None
    if wants_eval or options.get("resume"):
        path = path or pathlib.Path(configure({}, fields, base).train.checkpoint_dir) / f"{task}.pt"
        saved = checkpoints.load(path).config
        if "task" in options and saved.task != task:
            raise ConfigError(f"--task: expected {saved.task}, which {path} was trained for, got {task}")
        base = saved
    cfg = configure(options, fields, base)
    system = System(cfg, path or pathlib.Path(cfg.train.checkpoint_dir) / f"{cfg.task}.pt", console)
    if not wants_eval:
        return system.train(bool(options.get("resume")))
    episodes = whole_number(options, "episodes")
    if options.get("json") or not (options.get("render") or options.get("record")):
        result = system.evaluate(episodes or cfg.train.eval_episodes)
        print(json.dumps(result) if options.get("json") else "\n".join(f"{key:>16}  {value:.4g}" if isinstance(value, float) else f"{key:>16}  {value}" for key, value in result.items()))
    if options.get("render") or options.get("record"):
        system.watch(options.get("record"), episodes or 1)
    return 0


def main() -> int:
    """Run the command line; whatever the user got wrong is one line on standard error and exit code 2."""
    console = Console(stderr=True)
    from renderer import RenderError

    try:
        return run(sys.argv[1:], console)
    except (ConfigError, RenderError, physics.RobotError) as error:
        print(f"simulate.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
