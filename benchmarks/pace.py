"""How fast training is against an older commit, in pairs: env steps per second, and seconds until a Go1 walks.

    python -m benchmarks.pace [--against COMMIT] [--processor NAME] [--pairs N] [--json] [--quick]

`python simulate.py --task quadruped-walk-flat` runs for a while, here and in a checkout of the commit, one right after
the other, either first, another seed for each pair. Printed are medians, and the medians of the ratios of pairs: of
trained env steps per second, without evaluations and the first tenth, and of the seconds of training until an
evaluation reached the mark of the task.
--processor NAME: both are compiled for that processor, in LLVM's words, without the features that this one has beside:
haswell has the vectors of AVX2 alone, and a processor with AVX-512 is taken for one without. Commit 0b323cc asks the
machine instead whether there are products of bfloat16, and LLVM would end it; there they are off.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.tasks import arrival
from physics.jit import ROOT

BEFORE = "0b323cc"
TASK = "quadruped-walk-flat"
ITERATIONS = 200  # the mark is reached after some 100
PAIRS = 5
ASKS_THE_MACHINE = 'HAS_PAIRS = bool(llvmlite.binding.get_host_cpu_features().get("avx512bf16"))'


def train(tree: Path, seed: int, iterations: int, environment: dict[str, str]) -> list[dict[str, float]]:
    """Train by a tree's simulate.py; return the rows of metrics.csv; raise SystemExit with its error if it failed."""
    options = "--task", TASK, "--seed", seed, "--iterations", iterations
    command = [sys.executable, str(tree / "simulate.py"), *map(str, options)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr or f"{tree}: ended with {done.returncode}", file=sys.stderr)
            raise SystemExit(1)
        return machine.metrics(Path(folder))


def walks(rows: list[dict[str, float]]) -> float | None:
    """Return after how many seconds of training the mark was reached; None if never."""
    return arrival(TASK, "", {"rows": [row for row in rows if "eval_survival" in row]})


def pairs(before: Path, count: int, environment: dict[str, str]) -> dict[str, list[list[dict[str, float]]]]:
    """Return the rows of trainings here and before, as many as pairs; the first of either compiles."""
    trees = {"here": ROOT, "before": before}
    for tree in trees.values():
        train(tree, 0, 1, environment)
    rows: dict[str, list[list[dict[str, float]]]] = {name: [] for name in trees}
    for seed in range(count):
        for name in trees if seed % 2 else reversed(trees):
            rows[name].append(train(trees[name], seed, ITERATIONS, environment))
    return rows


def summary(rows: dict[str, list[list[dict[str, float]]]]) -> dict[str, Any]:
    """Return what --json prints of the pairs; walk_ratio is of those that walk both, None if there are none."""
    rates = {name: [machine.pace(run) for run in runs] for name, runs in rows.items()}
    seconds = {name: [walks(run) for run in runs] for name, runs in rows.items()}
    median = statistics.median
    both = [(a, b) for a, b in zip(seconds["here"], seconds["before"], strict=True) if a and b]
    return {
        "env_steps_per_second": {name: median(values) for name, values in rates.items()},
        "pace_ratio": median(a / b for a, b in zip(rates["here"], rates["before"], strict=True)),
        "walk_seconds": seconds,
        "walk_ratio": median(a / b for a, b in both) if both else None,
    }


def main() -> None:
    """Measure, print the table and, with --json, the result."""
    parser = machine.parser(__doc__.splitlines()[0])
    parser.add_argument("--against", default=BEFORE, help="commit (default: %(default)s)")
    parser.add_argument("--processor", default="", help="that both are compiled for (default: the one there is)")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="trainings of either (default: %(default)s)")
    args = parser.parse_args()
    about = machine.describe("torch", "numba")
    environment = {"NUMBA_CPU_NAME": args.processor, "NUMBA_CPU_FEATURES": ""} if args.processor else {}
    with tempfile.TemporaryDirectory() as folder:
        before = machine.checkout(args.against, Path(folder))
        if args.processor:
            vectors = before / "fused" / "vectors.py"
            vectors.write_text(vectors.read_text().replace(ASKS_THE_MACHINE, "HAS_PAIRS = False"))
        result = summary(pairs(before, 1 if args.quick else args.pairs, environment))
    table: list[tuple[str, ...]] = [("", "here", args.against, "here / there")]
    rates = [f"{result['env_steps_per_second'][name] / 1e3:.0f} k" for name in ("here", "before")]
    table.append(("trained env steps/s, medians", *rates, f"{result['pace_ratio']:.2f}"))
    seconds = [
        ", ".join("never" if s is None else f"{s:.1f}" for s in result["walk_seconds"][name])
        for name in ("here", "before")
    ]
    ratio = "-" if result["walk_ratio"] is None else f"{result['walk_ratio']:.2f}"
    table.append(("s of training until it walks, by seed", *seconds, ratio))
    where = f", compiled for {args.processor}" if args.processor else ""
    machine.table(f"Training of {TASK} against {args.against}{where}", table, about)
    if args.json:
        machine.print_json(result | about)


if __name__ == "__main__":
    main()
