"""Train, evaluate and watch a creature: the command line, and System, which orchestrates."""

import contextlib
import gc
import io
import json
import os
import pathlib
import site
import sys
import sysconfig
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import physics  # sets what PyTorch reads when imported  # isort: skip
import torch
from rich.console import Console

from config import Config
from entity import Creature
from environments import registry
from environments.quadruped import chosen_robot
from physics.jit import LANES, ROOT, compiling, is_compiled
from settings import ConfigError, override, require_memory
from training import checkpoint as checkpoints
from training import distributed, inspection, record, runs
from training.checkpoint import Checkpoint
from training.display import Lasting, say
from training.engine import TrainingEngine
from training.evaluation import EVALUATION_SEED, evaluate
from training.export import export
from training.files import reason, require_new, require_writable
from training.logger import require_tracker
from training.options import (
    PROGRAM,
    configure,
    help_text,
    read_command_line,
    read_options,
    seeds_of,
    web_address,
    whole_number,
)
from training.presets import preset
from training.resources import BYTES_PER_EPISODE, Resources, bytes_per_robot, detect
from training.run import Run
from training.seeds import Seeds
from training.watching import SIMULATORS, Screen, Watching


class System(Watching):
    """Owns the parts and runs them: resources, environments, creature, training, checkpoints.

    cfg: everything; console: for people, standard error; loaded: the checkpoint to evaluate, show or go on from; after
    training it is the best of the run; chosen: by field, what a machine chose for a run and this one is not to choose;
    simulator: what moves the robots, one of SIMULATORS.
    """

    def __init__(
        self,
        cfg: Config,
        console: Console,
        loaded: Checkpoint | None = None,
        chosen: dict[str, Any] | None = None,
        simulator: str = "foal",
    ) -> None:
        cfg.validate()
        self.simulator = simulator
        self.model = ""  # file of the robot that MuJoCo moves, if another than the task's
        self.told = False  # of what an import of the robot did
        self.cfg = cfg
        self.chosen = chosen or {}
        self.console = console
        self.loaded = loaded
        torch.set_num_threads(1)  # threads have robots of their own: training/parallel.py
        torch.manual_seed(cfg.seed)

    @cached_property
    def resources(self) -> Resources:
        """What this machine has, and what is made of it."""
        found = detect(override(self.cfg, self.chosen))
        if self.cfg.train.device == "cuda" and found.device.type != "cuda":
            raise ConfigError("train.device: expected auto or cpu, PyTorch finds no GPU")
        return found

    def say(self, text: str) -> None:
        """Print a line for people."""
        say(self.console, text)

    def make_env(self, num_envs: int, what: str = "--episodes", size: float = BYTES_PER_EPISODE) -> registry.ABEnv:
        """Return this process's share of copies of the task.

        size: of a copy, and of what becomes of it [bytes].

        Raises ConfigError, naming what asks for them, where memory does not hold them or processes go without.
        """
        processes = distributed.size()
        require_memory(size * num_envs * distributed.local_size() / processes, what)
        threads = self.resources.threads
        env = registry.make(self.cfg.task, SIMULATORS[self.simulator], {}, num_envs, threads, self.cfg.env)
        if self.model:
            env.use_model(self.model)
        if not self.told:
            self.told = True
            for note in getattr(getattr(env, "robot", None), "notes", ()):
                self.say(f"robot: {note}")
        if processes == 1:
            return env
        parts = env.split(processes, threads)
        if len(parts) < processes:
            raise ConfigError(f"{what}: expected robots for each of {processes} processes, got {num_envs}")
        return parts[distributed.rank()]

    def creature(self, env: registry.ABEnv) -> Creature:
        """Return the checkpoint's creature or a new one, on the device and in the precision chosen."""
        creature = self.loaded.creature(env) if self.loaded else Creature(env, self.cfg.network, self.cfg.world_model)
        creature.use_precision(self.resources.precision)
        return creature.to(self.resources.device)

    @contextlib.contextmanager
    def compiling(self, env: registry.ABEnv) -> Iterator[None]:
        """Say that compiled code is being made, where it is not in the cache."""
        cold = not is_compiled(env.kernel)
        start = time.perf_counter()
        if cold:
            self.say("compiling simulation and networks, once per version: up to 20 s ...")
        with compiling():
            yield
        if cold:
            self.say(f"compiled in {time.perf_counter() - start:.1f} s")

    def train(
        self,
        copy: pathlib.Path | None = None,
        more: int | None = None,
        profile: bool = False,
        screen: Screen | None = None,
    ) -> int:
        """Train, on from the checkpoint if there is one; return an exit code: 0, 2 if not all of it could be saved.

        3 if it did not recover from numbers that are not finite; 128 + the number of a signal that ended it.

        copy: where else to put the best policy; more: iterations of training on, None for those that are left; profile:
        say where the time went; screen: where to show robots of it.

        Raises RenderError where that cannot be.
        """
        begin = time.perf_counter()
        screen = screen and screen.ready()
        loaded = self.loaded
        cfg = self.cfg
        goes_on = loaded is not None and self.goes_on(loaded)
        whole = goes_on and not loaded.run.get("waiting")  # of the last iteration an evaluation may be missing
        if whole and not more and loaded.progress.get("iteration", 0) >= loaded.last:
            raise ConfigError(f"--resume: {loaded.folder} is finished; --iterations N takes N iterations more")
        require_tracker(cfg)
        alone = distributed.size() == 1
        beside = registry.compile_beside(cfg.task, cfg.env) if alone and not is_compiled("") else None
        self.say(f"task {cfg.task}: {self.resources.describe()}")
        env = self.make_env(self.resources.num_envs, "train.num_envs and ppo.rollout", bytes_per_robot(cfg))
        creature = self.creature(env)
        folder = distributed.from_rank_0(lambda: self.writable_folder(loaded if goes_on else None))
        engine = TrainingEngine(env, creature, cfg, self.resources.device, self.resources.threads)
        # a block of robots for each process
        episodes = cfg.train.eval_episodes if alone else max(cfg.train.eval_episodes, LANES * distributed.size())
        eval_env = self.make_env(episodes, "train.eval_episodes")
        with self.spectator(engine, screen) if screen else contextlib.nullcontext() as spectator:
            with distributed.first_here(), self.compiling(env):
                engine.warm_up()
                eval_env.init_state(0)
            if spectator:
                spectator.wait()
            if beside:  # what it is still at is done
                beside.kill()
            folder = folder or distributed.from_rank_0(lambda: runs.new_folder(cfg.train.run_dir, cfg.task))
            run = Run(cfg, engine, eval_env, folder, self.console, self.resources.chosen())
            run.spectator = spectator
            if goes_on:
                anew = not self.goes_on_exactly(loaded)
                run.resume(loaded, anew, more)
                self.say(
                    f"going on from {loaded.path}, iteration {run.iteration} of {run.last}"
                    + (", with episodes begun anew" if anew else "")
                )
            elif loaded:
                run.begin_from(loaded)
                self.say(f"a run of its own, which begins with the networks of {loaded.path}")
            self.say(f"ready after {time.perf_counter() - begin:.1f} s; logs in {folder}")
            code = run.go()
        written = run.finish(copy)
        if profile:
            run.say_profile()
        with contextlib.suppress(ConfigError):
            self.loaded = checkpoints.load(runs.find(str(folder), "", cfg.task), modules=(cfg.task, cfg.network.policy))
        return code or (0 if written else 2)

    def writable_folder(self, loaded: Checkpoint | None) -> pathlib.Path | None:
        """Return the folder of the run that goes on; raise ConfigError where it, or a new one, cannot be written."""
        folder = loaded.folder if loaded else None
        require_writable(folder or pathlib.Path(self.cfg.train.run_dir), "checkpoint" if folder else "train.run_dir")
        return folder

    def goes_on(self, loaded: Checkpoint) -> bool:
        """Return whether a run goes on, in its folder: what its evaluations mean was not changed."""
        names = "env", "network", "world_model", *(("sac",) if self.cfg.train.learner == "sac" else ())
        same = [getattr(self.cfg, name) == getattr(loaded.config, name) for name in names]
        same.append(self.cfg.train.learner == loaded.config.train.learner)
        return loaded.folder is not None and bool(loaded.run) and all(same)

    def goes_on_exactly(self, loaded: Checkpoint) -> bool:
        """Return whether a run goes on from its very instant: nothing that its state depends on was changed."""
        same = self.cfg.ppo.rollout == loaded.config.ppo.rollout and loaded.processes == distributed.size()
        same &= self.cfg.teacher.policy == loaded.config.teacher.policy
        return same and loaded.chosen == self.resources.chosen()

    def evaluate(self, episodes: int) -> dict[str, Any]:
        """Return the checkpoint's performance on fresh episodes."""
        env = self.make_env(episodes)
        creature = self.creature(env)
        with self.compiling(env):
            env.init_state(0)
        result = evaluate(creature, env, EVALUATION_SEED + self.cfg.seed, self.resources.device, self.resources.threads)
        return {"task": self.cfg.task, "checkpoint": self.loaded.path, "simulator": self.simulator} | result

    def export(self, path: str) -> None:
        """Write the checkpoint's policy as ONNX."""
        export(self.make_env(1), self.loaded, path, self.cfg.export.opset)
        self.say(f"policy of {self.loaded.path} written to {path}")


def refuse_what_has_no_effect(options: dict[str, Any], wants_eval: bool, loads: bool) -> None:
    """Raise ConfigError, naming the option, for one that would do nothing beside the others."""
    if wants_eval and "resume" in options:
        raise ConfigError("--resume: expected without --eval, --record and --dream, which do not train")
    needs = {
        "json": wants_eval,
        "episodes": wants_eval,
        "simulator": wants_eval,
        "render": wants_eval or "export" not in options,
        "web": wants_eval or "export" not in options,
        "profile": not loads or "resume" in options,
    }
    for name, needed in needs.items():
        if name in options and not needed and not {"help", "list"} & set(options):
            raise ConfigError(f"--{name}: expected {'without' if name == 'profile' else 'with'} --eval")
    for name, others in {
        "web": ("render", "record"),
        "export": ("resume",),
        "from": ("eval", "record", "dream", "export", "resume"),
        "inspect": ("eval", "render", "web", "dream", "export", "resume", "seeds", "checkpoint", "from"),
        "seeds": ("eval", "render", "web", "record", "dream", "export", "resume", "seed", "checkpoint"),
    }.items():
        if name in options and (beside := next((other for other in others if other in options), "")):
            raise ConfigError(f"--{name}: expected without --{beside}")


def read_checkpoint(find: Callable[[], pathlib.Path], modules: tuple[str | None, ...]) -> Checkpoint:
    """Return the checkpoint in a file; of several processes the first finds and reads it for all of them."""
    if distributed.size() == 1:
        return checkpoints.load(find(), modules=modules)
    path = distributed.from_rank_0(find)
    try:
        contents = distributed.from_rank_0(path.read_bytes)
    except OSError as error:
        raise ConfigError(f"checkpoint: {path!s:.80}: {reason(error)}") from None
    return checkpoints.load(path, modules=modules, contents=io.BytesIO(contents))


def read_configuration(
    arguments: list[str], options: dict[str, Any], console: Console, loads: bool
) -> tuple[Config, Checkpoint | None, dict[str, Any]]:
    """Return the configuration that a command line asks for, the checkpoint that is meant, and the options.

    Prints what --help and --list ask for.
    """
    task = options.get("task", Config().task)
    given = options.get("checkpoint")
    resume = "resume" in options
    modules = options.get("task"), options.get("network.policy")
    loaded = None
    if loads and given is not None:
        loaded = read_checkpoint(lambda: runs.find(given, "", "", resume), modules)
    repeated, chosen, origin = record.read(options["from"], modules) if "from" in options else (None, {}, {})
    base = loaded.config if loaded else repeated or preset(task)
    options, fields = read_command_line(arguments, base)
    if "inspect" in options:
        fields["env.model"] = options["inspect"]
    if "help" in options:
        print(help_text(base, options["help"]), end="")
        return base, None, options
    if "list" in options:
        print_list()
        return base, None, options
    if not loaded and not repeated:
        of_world_model = (
            fields.get(f"world_model.{name}", getattr(base.world_model, name)) for name in ("role", "size", "kind")
        )
        base = preset(task, *of_world_model, fields.get("train.learner", base.train.learner))
    if loads and not loaded:
        root = configure({}, fields, base).train.run_dir
        loaded = read_checkpoint(lambda: runs.find(None, root, task, resume), modules)
        base = loaded.config
    if (loaded or repeated) and "task" in options and task not in (base.task, runs.short(base.task)):
        which = loaded.path if loaded else options["from"]
        raise ConfigError(f"--task: expected {base.task}, which {which} was trained for, got {task}")
    if differs := record.differences(origin, record.provenance()) if origin else "":
        say(console, f"other than in {options['from']}: {differs}")
    if loaded and resume:
        chosen = loaded.chosen
        if loaded.processes != distributed.size():  # with other cores
            chosen.pop("train.threads", None)
    cfg = configure(options, fields, base, fitted=not loaded and not repeated)
    options["chosen"] = {name: value for name, value in chosen.items() if name not in fields}
    if loaded:
        loaded.require_fitting(cfg)
        if not resume:
            say(console, f"checkpoint {loaded.path}")
    elif given is not None and distributed.rank() == 0:
        require_new(pathlib.Path(given), "--checkpoint")
    return cfg, loaded, options


def look_at_robot(cfg: Config, console: Console, record: str | None) -> int:
    """Print what was read of a robot's file, and record it from all sides; return the exit code."""
    from renderer import RenderError

    if not hasattr(cfg.env, "model"):
        raise ConfigError(f"--inspect: expected a task of a legged robot, got {cfg.task}")
    robot = chosen_robot(cfg.env)
    print(inspection.describe(robot, cfg.env))
    path = pathlib.Path(record or pathlib.Path(cfg.train.run_dir) / f"{robot.name}.mp4")
    require_writable(path.parent, "--record" if record else "train.run_dir")
    try:
        inspection.turntable(robot, path, cfg.render.width, cfg.render.height)
        say(console, f"from all sides: {path}")
    except RenderError as error:
        if record:
            raise
        say(console, f"no picture: {error}")
    return 0


def print_list() -> None:
    """Print tasks with their backends, and robots."""
    backends = registry.list_registered_envs()
    for name, description in registry.tasks().items():
        print(f"{name}: {description} ({', '.join(backends[name])})")
    print("robots: " + ", ".join(sorted(path.stem for path in (ROOT / "robots").glob("*.json"))))


def of_ones_own(error: BaseException) -> str:
    """Return file, line and function where the code of a user raised an error, "" where it is Foal's own."""
    others = ROOT, *(pathlib.Path(path).resolve() for path in {sysconfig.get_path("stdlib"), *site.getsitepackages()})
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = pathlib.Path(frame.filename).resolve()
        if path.is_file() and not any(path.is_relative_to(folder) for folder in others):
            return f"{frame.filename}:{frame.lineno}: {frame.name}()"
    return ""


def run(arguments: list[str], console: Console) -> int:
    """Do what the command line asks for; return the exit code."""
    options = read_options(arguments)
    inspects = "inspect" in options
    wants_eval = not inspects and any(options.get(name) for name in ("eval", "record", "dream"))
    web = web_address(options["web"]) if "web" in options else None
    screen = Screen(web) if web or "render" in options else None
    loads = wants_eval or options.get("resume") or "export" in options
    refuse_what_has_no_effect(options, wants_eval, loads)
    alone = {"eval", "render", "web", "record", "dream", "export", "help", "list", "seeds"} & set(options)
    if distributed.size() > 1 and alone:
        raise ConfigError(f"--{sorted(alone)[0]}: expected without torchrun, which shares one training")
    cfg, loaded, options = read_configuration(arguments, options, console, loads)
    if "help" in options or "list" in options:
        return 0
    if "seeds" in options:
        return Seeds(arguments, seeds_of(options), cfg, console).go()
    simulator = options.get("simulator", "foal")
    if simulator not in SIMULATORS:
        raise ConfigError(f"--simulator: expected {' or '.join(SIMULATORS)}, got {simulator!r}")
    if inspects:
        return look_at_robot(cfg, console, options.get("record"))
    system = System(cfg, console, loaded, options["chosen"], simulator)
    system.model = options.get("model", "")
    if system.model and simulator != "mujoco":
        raise ConfigError("--model: expected with --simulator mujoco, which moves the robot of that file")
    if "export" in options:
        system.export(options["export"])
        if not wants_eval:
            return 0
    if not wants_eval:
        more = cfg.train.iterations if "iterations" in options else None
        copy = pathlib.Path(options["checkpoint"]) if "checkpoint" in options and not loaded else None
        return system.train(copy, more, "profile" in options, screen)
    episodes = whole_number(options, "episodes")
    record = options.get("record")
    dreams = "dream" in options
    if options.get("json") or not (screen or record or dreams):
        result = system.evaluate(episodes or cfg.train.eval_episodes)
        lines = (
            f"{key:>16}  {value:.4g}" if isinstance(value, float) else f"{key:>16}  {value}"
            for key, value in result.items()
        )
        print(json.dumps(result) if options.get("json") else "\n".join(lines))
    if record:
        system.record(record, episodes or 1, dreams)
    elif screen:
        system.watch(screen, dreams)
    elif dreams:
        system.dream()
    return 0


def main() -> int:
    """Run the command line; what the user got wrong is one line on standard error and exit code 2."""
    warnings.formatwarning = lambda message, *_, **__: f"{PROGRAM}: {message}\n"
    from renderer import RenderError

    if not gc.get_freeze_count():
        gc.freeze()  # what was imported is no garbage: looking for it as the program ends takes 0.9 s
    try:
        distributed.start()
        console = Console(file=Lasting(sys.stderr), quiet=distributed.rank() > 0)
        return distributed.leave(run(sys.argv[1:], console))
    except (ConfigError, RenderError, physics.RobotError) as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        complain("expected more free memory; smaller networks or fewer robots need less")
        return 2
    except BrokenPipeError:  # whoever read what was printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except distributed.LostProcessError as error:
        complain(f"another process has ended without a word ({error})")
        return 1
    except (Exception, SystemExit) as error:
        if where := of_ones_own(error):
            complain(f"{where}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
            return 2
        if distributed.is_first_to_fail():
            raise
        return 1


def complain(text: str) -> None:
    """Print why the program ends; of several processes the first that fails says so, for all of them."""
    if distributed.is_first_to_fail():
        who = f"rank {distributed.rank()}: " if distributed.size() > 1 else ""
        print(f"{PROGRAM}: {who}{text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
