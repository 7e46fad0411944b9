"""What it costs that a step is composed of terms: its pace, a changed term, and a first run.

    python -m benchmarks.terms [--json] [--quick]

step_ratio: env steps per second of the default walking step over those of commit 0b323cc, whose step was written by
hand; in pairs of processes, either first, the median of the pairs' ratios. compile_seconds: what a task whose reward
has a new term takes until its first observation, everything else being in the cache. cold_seconds: the whole first
command with an empty cache, one iteration included.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from physics.jit import ROOT

BEFORE = "0b323cc"  # the last commit with a step written by hand
TASK = "quadruped-walk-flat"
ROBOTS = 4096
STEPS = 8
REPETITIONS = 12
PAIRS = 5
PACE = """
import statistics, sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np
from environments import registry
task, robots, steps, repetitions = sys.argv[2], *map(int, sys.argv[3:])
env = registry.make(task, num_envs=robots, threads=1)
env.init_state(staggered=True)
random = np.random.default_rng(0)
actions = [random.normal(size=(robots, 12)).astype(np.float32) * 0.3 for _ in range(steps)]
taken = []
for _ in range(1 + repetitions):
    start = time.perf_counter()
    for a in actions:
        env.step(a)
    taken.append(time.perf_counter() - start)
print(robots * steps / statistics.median(taken[1:]))
"""
TERM = '''
from environments.quadruped import reward, task


@reward
def lifted(foot_height, on_ground):
    """Feet in the air below 5 cm."""
    total = 0.0
    for leg in range(4):
        low = max(0.05 - foot_height[leg], 0.0)
        total += (1.0 - on_ground[leg]) * low * low
    return total


task("lifted", "{task}", rewards={{lifted: -1.0}})
'''
CHANGED = """
import sys, time
sys.path[:0] = [sys.argv[1], "."]
from environments import registry
registry.make(sys.argv[2], num_envs=64, threads=1).init_state()
start = time.perf_counter()
registry.make("changed_term:lifted", num_envs=64, threads=1).init_state()
print(time.perf_counter() - start)
"""


def run(*command: object, cwd: Path | str = ROOT, **environment: str) -> str:
    """Return what a process of this Python prints last; raise SystemExit with what it says if it fails."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=os.environ | environment, capture_output=True, text=True
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise SystemExit(1)
    return done.stdout.strip().rpartition("\n")[2]


def step_ratios(before: Path, pairs: int) -> list[float]:
    """Return the ratios of pairs of processes."""
    ratios = []
    for i in range(-1, pairs):  # the first compiles
        trees = (ROOT, before) if i % 2 else (before, ROOT)
        pace = {tree: float(run("-c", PACE, tree, TASK, ROBOTS, STEPS, REPETITIONS, cwd=tree)) for tree in trees}
        ratios.append(pace[ROOT] / pace[before])
    return ratios[1:]


def compile_seconds(folder: Path) -> float:
    """Return what a task with a new term takes until its first observation."""
    (folder / "changed_term.py").write_text(TERM.format(task=TASK))
    return float(run("-c", CHANGED, ROOT, TASK, cwd=folder, NUMBA_CACHE_DIR=str(folder / "cache")))


def cold_seconds(folder: Path) -> float:
    """Return what the first command takes with an empty cache, one iteration included."""
    start = time.perf_counter()
    command = (
        "simulate.py",
        "--iterations",
        1,
        "--train.eval_every",
        0,
        "--train.run_dir",
        folder / "runs",
        "--checkpoint",
        folder / "c.pt",
    )
    run(*command, NUMBA_CACHE_DIR=str(folder / "empty"))
    return time.perf_counter() - start


def main() -> None:
    """Measure, print the table and, with --json, the result."""
    args = machine.parser(__doc__.splitlines()[0]).parse_args()
    about = machine.describe("numba", "numpy")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ratios = step_ratios(machine.checkout(BEFORE, folder), 3 if args.quick else PAIRS)
        result = {
            "step_ratio": statistics.median(ratios),
            "compile_seconds": compile_seconds(folder),
            "cold_seconds": cold_seconds(folder),
        }
    rows = [
        ("", ""),
        (
            f"step of {TASK} over {BEFORE}, median of {len(ratios)} pairs ({min(ratios):.3f} to {max(ratios):.3f})",
            f"{result['step_ratio']:.3f}",
        ),
        ("a changed term", f"{result['compile_seconds']:.1f} s"),
        ("a first run, empty cache", f"{result['cold_seconds']:.1f} s"),
    ]
    machine.table(f"A step composed of terms: {ROBOTS} robots, 1 thread", rows, about)
    if args.json:
        print(json.dumps(result | about))


if __name__ == "__main__":
    main()
