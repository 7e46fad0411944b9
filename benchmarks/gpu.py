"""Training with the networks on a GPU: pace, agreement with the CPU, learning, world model, threads.

Needs PyTorch, Numba, NumPy and psutil alone, so that it runs on a bare machine: python -m benchmarks.gpu --minutes 8.
A part that fails says so and the others go on; the exit code is then 1. --device cpu runs the same without a GPU.
"""

import argparse
import contextlib
import dataclasses
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import physics  # noqa: F401  sets what PyTorch reads when imported  # isort: skip
import numpy as np
import torch

from benchmarks import machine
from config import Config
from entity import Creature
from environments import registry
from settings import override
from training.engine import TrainingEngine
from training.evaluation import EVALUATION_SEED, evaluate, reaches
from training.experience import Experience
from training.gradient import Gradients, by_autograd
from training.presets import preset
from training.resources import detect

WALK = "quadruped-walk-flat"
BALANCE = "quadruped-balance"
ROBOTS = 1024, 4096, 16384, 65536
SIZES = "small", "medium", "large"  # of the world model
Part = Callable[["Bench"], dict[str, Any]]


class Load:
    """How busy the GPU is, sampled by a thread beside the work."""

    def __init__(self, device: torch.device, period: float = 0.1) -> None:
        self.device = device
        self.period = period
        self.samples: list[float] = []
        self._end = threading.Event()

    def _watch(self) -> None:
        command = [
            "nvidia-smi",
            "--query-gpu=utilization.gpu",
            "--format=csv,noheader,nounits",
            "--loop-ms",
            str(round(1000 * self.period)),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if self._end.is_set():
                    break
                self.samples.append(float(line.split()[0]))
            process.kill()

    @contextlib.contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample while the body runs, where there is a GPU."""
        thread = threading.Thread(target=self._watch, daemon=True)
        if self.device.type == "cuda":
            thread.start()
        yield
        self._end.set()

    def mean(self) -> float | None:
        """Return the mean share of time in which the GPU was busy [%]."""
        return statistics.fmean(self.samples) if self.samples else None


class Bench:
    """What every part gets: the device, and how long it may take."""

    def __init__(self, device: torch.device, minutes: float, robots: tuple[int, ...], precision: str) -> None:
        self.device = device
        self.seconds = 60.0 * minutes
        self.robots = robots
        self.precision = precision

    def config(self, task: str, robots: int, role: str = "off", size: str = "small", **changes: Any) -> Config:
        """Return a training's configuration."""
        cfg = override(
            preset(task, role, size),
            {"train.num_envs": robots, "train.device": self.device.type, "train.precision": self.precision} | changes,
        )
        return dataclasses.replace(cfg, seed=changes.get("seed", 0))

    def engine(self, cfg: Config) -> TrainingEngine:
        """Return a training that is about to begin."""
        found = detect(cfg)
        torch.manual_seed(cfg.seed)
        env = registry.make(cfg.task, num_envs=found.num_envs, cfg=cfg.env, threads=found.threads)
        creature = Creature(env, cfg.network, cfg.world_model)
        creature.use_precision(found.precision)
        engine = TrainingEngine(env, creature.to(self.device), cfg, self.device, found.threads)
        engine.warm_up()
        return engine

    def synchronise(self) -> None:
        """Wait for the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def pace(bench: Bench) -> dict[str, Any]:
    """Trained env steps per second by number of robots, where time goes, how busy the GPU is and its memory in use."""
    rows = {}
    for robots in bench.robots:
        engine = bench.engine(bench.config(WALK, robots))
        for _ in range(3):
            engine.iterate()
        bench.synchronise()
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        before = engine.profile()
        steps = engine.env_steps
        load = Load(bench.device)
        start = time.perf_counter()
        spent = {"collect": 0.0, "update": 0.0}
        with load.sampled():
            while time.perf_counter() - start < bench.seconds * 0.3 / len(bench.robots):
                metrics = engine.iterate()
                for name in spent:
                    spent[name] += metrics[f"{name}_seconds"]
            bench.synchronise()
        seconds = time.perf_counter() - start
        steps = engine.env_steps - steps
        memory = torch.cuda.max_memory_allocated() / 2**30 if bench.device.type == "cuda" else None
        parts = {name: 1e6 * (x - before[name]) / steps for name, x in engine.profile().items()}
        whole = {name: 1e6 * x / steps for name, x in spent.items()}
        rows[robots] = (
            {"env_steps_per_second": steps / seconds, "gpu_load": load.mean(), "memory_gb": memory} | whole | parts
        )
        print(robots, rows[robots], flush=True)
        del engine
    return {"pace": rows}


def agreement(bench: Bench) -> dict[str, Any]:
    """Actions and gradient of the device against those of the compiled CPU path in float32, from the same rollout."""
    cpu = torch.device("cpu")
    cfg = bench.config(WALK, 256, **{"train.device": "cpu", "train.precision": "float32"})
    there = Bench(cpu, 1.0, (), "float32").engine(cfg)
    for _ in range(3):
        there.iterate()
    there.collect_trajectory()
    for worker in there.workers:
        worker.estimate()
    x: Experience = there.workers[0].experience.scaled(torch.zeros(()), torch.ones(()))
    result = {}
    for precision in ("float32", "bfloat16"):
        twin = Creature(there.env, cfg.network, cfg.world_model)
        twin.load_state_dict(there.creature.state_dict())
        twin.use_precision(precision)
        twin.to(bench.device)
        # the flat parameters of the engine keep an order of their own: take the twin's in the same
        roles = twin.belief.roles()
        ordered = [*roles["actor"], *roles["critic"]]
        moved = x.to(bench.device)
        expected, expected_metrics = by_autograd(there.belief, cfg.ppo, x, there.parameters)
        got, metrics = Gradients(twin.belief, cfg.ppo, ordered)(moved)
        mean, _ = there.belief.evaluate(x.obs, x.memory, x.starts)
        other, _ = twin.belief.evaluate(moved.obs, moved.memory, moved.starts)
        result[precision] = {
            "gradient": float((got.cpu() - expected).norm() / expected.norm()),
            "action": float((other.cpu() - mean).detach().abs().max()),
            "policy_loss": abs(float(metrics["policy_loss"]) - float(expected_metrics["policy_loss"])),
            "value_loss": abs(float(metrics["value_loss"]) / float(expected_metrics["value_loss"]) - 1.0),
        }
    return {"agreement": result}


def learning(bench: Bench) -> dict[str, Any]:
    """Seconds of training to the marks of balance and walking, by number of robots."""
    rows: dict[str, dict[int, Any]] = {}
    for task, longest in ((BALANCE, 0.05), (WALK, 0.1)):
        rows[task] = {}
        for robots in bench.robots[:3]:
            engine = bench.engine(bench.config(task, robots))
            eval_env = registry.make(task, num_envs=256)
            spent = 0.0
            next_look = 0.5
            arrived = None
            result = {}
            while spent < longest * bench.seconds and arrived is None:
                start = time.perf_counter()
                engine.iterate()
                bench.synchronise()
                spent += time.perf_counter() - start
                if spent >= next_look:
                    next_look = max(next_look + 0.5, 1.1 * next_look)
                    eval_env.set_level(1.0, 1.0)
                    with engine.acting():
                        result = evaluate(
                            engine.creature, eval_env, EVALUATION_SEED + engine.env_steps, bench.device, 1
                        )
                    arrived = spent if reaches(result, 0.95, eval_env.targets) else None
            rows[task][robots] = {"seconds": arrived, "env_steps": engine.env_steps, "trained": spent} | result
            print(task, robots, rows[task][robots], flush=True)
    return {"learning": rows}


def world_model(bench: Bench) -> dict[str, Any]:
    """World-model updates per second, by its size."""
    rows = {}
    for size in SIZES:
        cfg = bench.config(WALK, 1024, "belief", size)
        engine = bench.engine(cfg)
        for _ in range(2):
            engine.iterate()
        bench.synchronise()
        spent = engine.spent["world"]
        updates = 0
        start = time.perf_counter()
        while time.perf_counter() - start < 0.02 * bench.seconds or not updates:
            engine.iterate()
            updates += cfg.world_model.updates
        bench.synchronise()
        rows[size] = {
            "updates_per_second": updates / (engine.spent["world"] - spent),
            "sequences": cfg.world_model.batch,
            "steps": cfg.ppo.rollout,
        }
        print(size, rows[size], flush=True)
    return {"world_model": rows}


def threads(bench: Bench) -> dict[str, Any]:
    """Env steps per second of the simulation alone, by threads: a core each, as far as there are so many."""
    found = machine.available_cores()
    rows = {}
    counts = sorted({n for n in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128) if n <= found} | {found})
    for count in counts:
        env = registry.make(WALK, num_envs=16384, threads=count)
        env.init_state(0)
        actions = np.random.default_rng(0).normal(size=(16384, 12)).astype(np.float32) * 0.3
        rates = []
        start = time.perf_counter()
        while time.perf_counter() - start < max(0.3, 0.03 * bench.seconds / len(counts)):
            begin = time.perf_counter()
            env.step(actions)
            rates.append(16384 / (time.perf_counter() - begin))
        rows[count] = statistics.median(rates)
    print(rows, flush=True)
    return {"threads": rows}


PARTS: dict[str, Part] = {
    "agreement": agreement,
    "pace": pace,
    "world": world_model,
    "threads": threads,
    "learning": learning,
}


def read_options() -> argparse.Namespace:
    """Return the command line."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument(
        "--minutes", type=float, default=8.0, metavar="M", help="about how long it may take (default 8)"
    )
    options.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="where the networks run (default cuda)"
    )
    options.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the networks' products (default auto)",
    )
    options.add_argument("--robots", type=int, nargs="+", default=list(ROBOTS), metavar="N", help="numbers of robots")
    options.add_argument(
        "--part",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="NAME",
        help=f"of {', '.join(PARTS)} (default all)",
    )
    return options.parse_args()


def main() -> int:
    """Run the parts; return the exit code: 0, 1 if a part failed, 2 without a GPU."""
    args = read_options()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            "benchmarks.gpu: expected a GPU that PyTorch finds; --device cpu runs the same code without one",
            file=sys.stderr,
        )
        return 2
    torch.set_num_threads(1)
    bench = Bench(torch.device(args.device), args.minutes, tuple(args.robots), args.precision)
    result: dict[str, Any] = machine.describe("torch", "numba", "numpy")
    result["gpu"] = torch.cuda.get_device_name() if args.device == "cuda" else None
    failed = []
    for name in args.part:
        print(f"{name}: {PARTS[name].__doc__}", flush=True)
        start = time.perf_counter()
        try:
            result |= PARTS[name](bench)
        except Exception:  # the machine may be lent for minutes: the other parts still tell something
            traceback.print_exc()
            failed.append(name)
        print(f"{name} took {time.perf_counter() - start:.1f} s", flush=True)
    result["failed"] = failed
    if args.json:
        machine.print_json(result)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
