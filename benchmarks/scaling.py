"""Training on several processes: against threads, between two machines, and what a network of machines would allow.

    python -m benchmarks.scaling [--iterations N] [--part PART ...] [--json] [--quick]

training: two processes of one thread against one of two threads, with the same robots, in turn; the two are on one
machine, and as two machines: each in a network namespace of its own, which only root on Linux can make, with a cable
between them. messages: how long the sum of both processes' gradients takes there. model: what several GPUs and machines
would make, from the figures of docs/benchmarks.md.
"""

import contextlib
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import physics  # noqa: F401  sets what PyTorch reads when imported  # isort: skip
import torch

from benchmarks import machine
from config import Config
from entity import Creature
from environments import registry
from training import distributed

ROOT = Path(__file__).resolve().parent.parent
TASK = "quadruped-walk-flat"
ROBOTS = 1024
REPETITIONS = 3
SUMS = 200  # of a message, of which the median counts
PARTS = "training", "messages", "model"
# Where two processes are: None for one machine, else the limits of the cable between two, in tc's words, for each end
PLACES = {
    "one machine": None,
    "two machines": "",
    "two machines, 1 Gbit/s": "tbf rate 1gbit burst 64kb latency 5ms",
}
# One H100 with 16 cores (docs/benchmarks.md): robots, and trained env steps per second
GPU_PACE = {1024: 171e3, 4096: 562e3, 16384: 1.18e6, 65536: 1.54e6}
# From one GPU to another: bytes per second, and the time of a step of a sum [s]
LINKS = {"NVLink": (300e9, 10e-6), "200 Gbit/s": (20e9, 20e-6), "10 Gbit/s": (1e9, 60e-6)}
Command = list[str]


def torchrun(place: Command, *options: object) -> Command:
    """Return the command that starts torchrun in a place, which is what other commands begin with there."""
    return [*place, sys.executable, "-m", "torch.distributed.run", *map(str, options)]


def both(places: list[Command], program: Command, folder: str) -> str:
    """Run a program as two processes, in one place or in two; return what the first prints.

    Raises SystemExit, with what they said, if they fail.
    """
    if len(places) == 1:
        commands = [torchrun(places[0], "--standalone", "--nproc_per_node=2", *program)]
    else:
        nodes = "--nnodes=2", "--nproc_per_node=1", "--master_addr=10.77.0.1", "--master_port=29577"
        commands = [torchrun(place, *nodes, f"--node_rank={i}", *program) for i, place in enumerate(places)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if len(places) > 1:
        environment |= {"GLOO_SOCKET_IFNAME": "foal"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, cwd=folder, env=environment, **pipes) for command in commands]
    told = [process.communicate() for process in running]
    if any(process.returncode for process in running):
        print("\n".join(error for _, error in told), file=sys.stderr)
        sys.exit(1)
    return told[0][0]


def training(threads: int, iterations: int) -> Command:
    """Return the program that trains."""
    options = {
        "--task": TASK, "--iterations": iterations, "--train.num_envs": ROBOTS, "--train.threads": threads,
        "--train.eval_every": 0, "--train.precision": "float32", "--train.save_every": 1e6, "--train.run_dir": "runs",
        "--train.device": "cpu",
    }  # fmt: skip
    return [str(ROOT / "simulate.py"), *(str(word) for pair in options.items() for word in pair)]


def pace(places: list[Command] | None, iterations: int) -> tuple[float, list[dict[str, float]]]:
    """Train as one process of two threads, or two processes in places; return env steps per second, and metrics.csv."""
    with tempfile.TemporaryDirectory() as folder:
        program = training(1 if places else 2, iterations)
        if places:
            both(places, program, folder)
        else:
            subprocess.run([sys.executable, *program], cwd=folder, check=True, capture_output=True)
        rows = machine.metrics(Path(folder))
    return machine.pace(rows), rows


@contextlib.contextmanager
def two_machines(limits: str) -> Iterator[list[Command]]:
    """Make two network namespaces joined by a cable; give what commands in each begin with, on a core of its own.

    limits: of the cable, in tc's words.
    """
    names = "foal-0", "foal-1"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    with contextlib.ExitStack() as made:
        for name in names:
            ip("netns", "add", name)
            made.callback(ip, "netns", "del", name)
        ip("link", "add", "foal", "netns", names[0], "type", "veth", "peer", "name", "foal", "netns", names[1])
        for i, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "foal")
            ip("-n", name, "link", "set", "foal", "up")
            ip("-n", name, "link", "set", "lo", "up")
            if limits:
                qdisc = ["qdisc", "add", "dev", "foal", "root", *limits.split()]
                subprocess.run(["tc", "-n", name, *qdisc], check=True, capture_output=True)
        cores = sorted(os.sched_getaffinity(0))
        yield [
            ["ip", "netns", "exec", name, "taskset", "-c", str(cores[i % len(cores)])] for i, name in enumerate(names)
        ]


@contextlib.contextmanager
def place(limits: str | None) -> Iterator[list[Command]]:
    """Give what commands in a place begin with: one, or one for each machine; see PLACES."""
    if limits is None:
        yield [[]]
    else:
        with two_machines(limits) as commands:
            yield commands


def possible() -> dict[str, str | None]:
    """Return the places that there can be here; say why others cannot."""
    found = {}
    for name, limits in PLACES.items():
        try:
            with place(limits):
                found[name] = limits
        except FileNotFoundError as error:
            print(f"without {name}: there is no {error.filename}", file=sys.stderr)
        except subprocess.CalledProcessError as error:
            print(f"without {name}: {error.stderr.decode().strip()}", file=sys.stderr)
    return found


def alike(first: list[dict[str, str]], other: list[dict[str, str]]) -> int:
    """Return for how many iterations two trainings have the same rewards, to a thousandth.

    Sums are rounded in another order, which in the long run makes another training of it.
    """
    rewards = [[row["reward"] for row in rows] for rows in (first, other)]
    pairs = itertools.takewhile(
        lambda pair: math.isclose(*pair, rel_tol=1e-3, abs_tol=1e-6), zip(*rewards, strict=True)
    )
    return sum(1 for _ in pairs)


def compare(places: list[Command], iterations: int, repetitions: int) -> dict[str, Any]:
    """Return the paces of two processes and of two threads, in turn, their ratio, and for how long they do the same."""
    pairs = [(pace(places, iterations), pace(None, iterations)) for _ in range(repetitions)]
    return {
        "env_steps_per_second": statistics.median(two for (two, _), _ in pairs),
        "two_threads": statistics.median(one for _, (one, _) in pairs),
        "ratio": statistics.median(two / one for (two, _), (one, _) in pairs),
        "iterations_alike": min(alike(one, two) for (_, two), (_, one) in pairs),
    }


def gradient_size() -> tuple[int, int]:
    """Return how many numbers a message of the policy's gradient has, and messages of an iteration."""
    cfg = Config()
    creature = Creature(registry.make(TASK, num_envs=16, threads=1), cfg.network, cfg.world_model)
    count = sum(p.numel() for p in creature.belief.parameters())
    return count, cfg.ppo.epochs * cfg.ppo.minibatches


def time_sums(sizes: list[int]) -> dict[str, float]:
    """Return the median time of a sum of vectors of some sizes over all processes [s], by size."""
    found = {}
    for size in sizes:
        vector = torch.ones(size)
        seconds = []
        for _ in range(SUMS):
            start = time.perf_counter()
            distributed.all_reduce(vector, {})
            seconds.append(time.perf_counter() - start)
        found[str(size)] = statistics.median(seconds)
    return found


def messages(places: list[Command], sizes: list[int]) -> dict[str, float]:
    """Return the time of a sum between two processes [s], by count of numbers."""
    program = ["-m", "benchmarks.scaling", "--sizes", *map(str, sizes)]
    return json.loads(both(places, program, str(ROOT)).splitlines()[-1])


def iteration_seconds(robots: float) -> float:
    """Return how long an iteration takes on one GPU [s]: what launching kernels takes, and a share for each robot.

    Both are from the smallest and the largest count of robots that were measured.
    """
    rollout = Config().ppo.rollout
    (few, slow), (many, fast) = min(GPU_PACE.items()), max(GPU_PACE.items())
    each = rollout * (many / fast - few / slow) / (many - few)
    return rollout * few / slow - each * few + each * robots


def sum_seconds(numbers: int, processes: int, link: str) -> float:
    """Return how long the sum of so many processes' vectors takes [s].

    Bytes go once around a ring, there and back (Patarasuk and Yuan, 2009), and what is said first along a tree.
    """
    bandwidth, latency = LINKS[link]
    ring = 2.0 * (processes - 1) / processes * 4.0 * numbers / bandwidth
    return ring + 2.0 * math.log2(processes) * latency


def model() -> list[dict[str, Any]]:
    """Return what several GPUs would make, by links between them, of robots each and of robots shared."""
    numbers, updates = gradient_size()
    rollout = Config().ppo.rollout
    rows = []
    for processes, link in ((1, "NVLink"), (8, "NVLink"), (64, "200 Gbit/s"), (512, "200 Gbit/s"), (512, "10 Gbit/s")):
        talk = updates * sum_seconds(numbers, processes, link)
        for each in (1024, 4096, 16384, 65536):
            think = iteration_seconds(each)
            rows.append(
                {
                    "processes": processes,
                    "link": link if processes > 1 else "",
                    "robots_each": each,
                    "iteration_seconds": think + talk,
                    "summing_share": talk / (think + talk),
                    "env_steps_per_second": processes * each * rollout / (think + talk),
                }
            )
    return rows


def main() -> None:
    """Measure, print and, with --json, print the result as one line."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--iterations", type=int, default=100, help="of each training")
    options.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    options.add_argument("--sizes", nargs="+", type=int, help="as a process of torchrun: time sums of so many numbers")
    args = options.parse_args()
    if args.sizes:
        distributed.start()
        found = time_sums(args.sizes)
        if distributed.rank() == 0:
            machine.print_json(found)
        distributed.leave(0)
        return
    about = machine.describe("torch", "numba")
    numbers, updates = gradient_size()
    result: dict[str, Any] = {"bytes_per_update": 4 * numbers, "updates_per_iteration": updates}
    print(f"{4 * numbers / 1e3:.0f} kB in each of the {updates} updates of an iteration\n")
    measured = {"training": {}, "messages": {}}
    for name, limits in possible().items() if set(measured) & set(args.part) else ():
        with place(limits) as commands:
            if "messages" in args.part:
                measured["messages"][name] = messages(commands, [1, numbers, 16 * numbers])
            if "training" in args.part:
                measured["training"][name] = compare(commands, args.iterations, 1 if args.quick else REPETITIONS)
    result |= {part: found for part, found in measured.items() if found}
    if "model" in args.part:
        result["model"] = model()
    report(result, about)
    if args.json:
        machine.print_json(result | about)


def report(result: dict[str, Any], about: dict[str, object]) -> None:
    """Print tables of what was measured and computed."""
    if rows := result.get("training"):
        heading = "two processes", "env steps/s", "over two threads", "iterations alike"
        cells = (
            (name, f"{x['env_steps_per_second']:,.0f}", f"{x['ratio']:.3f}", x["iterations_alike"])
            for name, x in rows.items()
        )
        machine.table(f"{TASK}, {ROBOTS} robots", [heading, *cells], about)
    if rows := result.get("messages"):
        sizes = list(next(iter(rows.values())))
        heading = "two processes", *(f"{4 * int(size) / 1e3:,.3g} kB" for size in sizes)
        cells = ((name, *(f"{1e6 * x[size]:.0f} us" for size in sizes)) for name, x in rows.items())
        machine.table("Sum of both processes' numbers", [heading, *cells], about)
    if rows := result.get("model"):
        heading = "GPUs", "between them", "robots each", "iteration [ms]", "of it, sums", "env steps/s"
        cells = (
            (
                row["processes"],
                row["link"],
                f"{row['robots_each']:,}",
                f"{1e3 * row['iteration_seconds']:.0f}",
                f"{row['summing_share']:.1%}",
                f"{row['env_steps_per_second'] / 1e6:.3g} M",
            )
            for row in rows
        )
        machine.table("Model", [heading, *cells], about)


if __name__ == "__main__":
    main()
