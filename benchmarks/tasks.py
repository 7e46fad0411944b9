"""Every task, learnt by the command that users type, for every robot that it is for.

    python -m benchmarks.tasks [--task NAME ...] [--robot NAME ...] [--seeds 3] [--csv FILE] [--plot FILE]
                               [--keep FOLDER] [--json] [--quick]

For each task, robot and seed, `python simulate.py --task TASK --env.model ROBOT --seed SEED` runs as it
stands in a process of its own; then its checkpoint is evaluated on 256 fresh episodes. Printed are
the seconds of training, and of wall-clock with start, evaluations and all, until an evaluation while
training reached what the task counts as learnt; those of the whole command; and the evaluation in
the end. --keep FOLDER: keep the checkpoints of seed 0 there; --quick: one seed.
"""

import contextlib
import csv
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from environments import registry
from settings import ConfigError
from training.evaluation import reaches, target

ROOT = Path(__file__).resolve().parent.parent
ROBOTS = "go1", "go2", "anymal_c", "spot"
# What a task's curve shows, and what is reported of its evaluation
SHOWN = {
    "quadruped-balance": ("survival", "goal_distance"),
    "quadruped-goal": ("goals_per_minute",),
    "anymal-navigation": ("at_goal", "goals_per_minute"),
    "navigation": ("goals",),
    "cartpole": ("episode_seconds",),
    "bounce-ball": ("bounces", "episode_seconds"),
}
WALK = ("velocity_error", "yaw_rate_error")
Row = dict[str, float]


def robots(task: str) -> tuple[str, ...]:
    """Return the robots that a task is for, the default one first; one empty name where it knows no robots."""
    return ROBOTS if task.startswith("quadruped-") else (registry.default_cfg(task).model,)


def simulate(folder: Path, *arguments: object) -> str:
    """Run simulate.py from a folder; return what it printed; raise SystemExit with its error if it failed."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "simulate.py"), *map(str, arguments)], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"simulate.py {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def learn(task: str, robot: str, seed: int, keep: Path | None) -> dict[str, Any]:
    """Train and evaluate; return the seconds of wall-clock, every evaluation while training and the one after."""
    options = ["--task", task, "--seed", seed, *(["--env.model", robot] if robot else [])]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        simulate(Path(folder), *options)
        seconds = time.perf_counter() - start
        rows = [row for row in machine.metrics(Path(folder)) if "eval_survival" in row]
        final = json.loads(simulate(Path(folder), "--eval", "--task", task, "--json"))
        if keep and seed == 0 and robot == robots(task)[0]:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(folder) / final["checkpoint"], keep / f"{task}.pt")
    return {"seconds": seconds, "rows": rows, "final": final}


def targets(task: str, robot: str) -> dict[str, tuple[float, float]]:
    """Return what counts as learnt of a task beside survival; robot: "" for the task's own."""
    return registry.make(task, env_cfg_override={"model": robot} if robot else {}).targets


def arrival(task: str, robot: str, run: dict[str, Any]) -> float | None:
    """Return the seconds of training at the first evaluation that the task counts as learnt, None if there is none."""
    cfg = registry.default_rl_cfg(task)
    wanted = targets(task, robot)
    evaluations = ({key.removeprefix("eval_"): value for key, value in row.items()} for row in run["rows"])
    return next((e["train_seconds"] for e in evaluations if reaches(e, cfg.train.target_survival, wanted)), None)


def report(results: dict[tuple[str, str], list[dict[str, Any]]], about: dict[str, object]) -> list[dict[str, Any]]:
    """Print the table; return what --json prints of it."""
    table = [("task", "robot", "learnt: what", "s of training, by seed", "whole command", "in the end", "survived")]
    rows = []
    for (task, robot), runs in results.items():
        names = SHOWN.get(task, WALK)
        arrivals = [arrival(task, robot, run) for run in runs]
        ends = ["; ".join(f"{run['final'][name]:.3g}" for name in names) for run in runs]
        wanted = target(registry.default_rl_cfg(task).train.target_survival, targets(task, robot))
        cells = (
            ", ".join("never" if a is None else f"{a:.1f}" for a in arrivals),
            f"{statistics.median(run['seconds'] for run in runs):.0f} s",
        )
        survived = ", ".join(f"{100 * run['final']['survival']:.1f}" for run in runs)
        table.append((task, robot or "-", wanted, *cells, f"{', '.join(ends)} {' '.join(names)}", survived))
        rows.append(
            {
                "task": task,
                "robot": robot,
                "seconds": arrivals,
                "wall": [run["seconds"] for run in runs],
                "final": [run["final"] for run in runs],
            }
        )
    machine.table("Tasks, each by its default command; evaluated on 256 fresh episodes", table, about)
    return rows


def write_csv(path: str, results: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Write every evaluation while training."""
    shown = (name for names in (*SHOWN.values(), WALK) for name in names)
    columns = "task", "robot", "seed", "train_seconds", "env_steps", "survival", "mean_return", *shown
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(columns)), extrasaction="ignore")
        writer.writeheader()
        for (task, robot), runs in results.items():
            for seed, run in enumerate(runs):
                for row in run["rows"]:
                    values = {key.removeprefix("eval_"): f"{value:.4g}" for key, value in row.items()} | {
                        "env_steps": int(row["env_steps"])
                    }
                    writer.writerow(values | {"task": task, "robot": robot, "seed": seed})


def plot(path: str, results: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Draw what each task shows over seconds of training, a line for each robot and seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tasks = list(dict.fromkeys(task for task, _ in results))
    rows = -(-len(tasks) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(12, 3.1 * rows), layout="constrained", squeeze=False)
    colours = dict(zip((*ROBOTS, ""), ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:blue"), strict=True))
    for axis, task in zip(axes.flat, tasks, strict=False):
        name = SHOWN.get(task, WALK)[0]
        for robot in robots(task):
            for seed, run in enumerate(results.get((task, robot), ())):
                curve = [(row["train_seconds"], row[f"eval_{name}"]) for row in run["rows"]]
                axis.plot(
                    *zip(*curve, strict=True), color=colours[robot], label=robot if seed == 0 else None, linewidth=1.4
                )
        axis.set(title=task, xlabel="s of training", ylabel=name.replace("_", " "), ylim=(0, None))
        axis.grid(alpha=0.3)
        if robots(task) != ("",):
            axis.legend(frameon=False, fontsize=8)
    for axis in axes.flat[len(tasks) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train, print the table and, with --json, the result."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--task", nargs="+", metavar="NAME", help="tasks (all)")
    options.add_argument("--robot", nargs="+", metavar="NAME", help="robots of tasks that are for several (all)")
    options.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each (3)")
    options.add_argument("--csv", metavar="FILE", help="write every evaluation to a file")
    options.add_argument("--plot", metavar="FILE", help="draw the learning curves, as .png, .pdf or .svg")
    options.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the checkpoints of seed 0 and the default robot"
    )
    args = options.parse_args()
    tasks = args.task or list(registry.list_registered_envs())
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    try:
        chosen = [
            (task, robot)
            for task in tasks
            for robot in robots(task)
            if len(robots(task)) == 1 or not args.robot or robot in args.robot
        ]
    except ConfigError as error:
        print(f"benchmarks.tasks: {error}", file=sys.stderr)
        sys.exit(2)
    with contextlib.suppress(KeyboardInterrupt):  # what there is by then is reported
        for task, robot in chosen:
            for seed in range(1 if args.quick else args.seeds):
                print(f"{task} {robot} seed {seed}", file=sys.stderr)
                results.setdefault((task, robot), []).append(learn(task, robot, seed, args.keep))
    rows = report(results, about := machine.describe("torch", "numba", "numpy"))
    if args.csv:
        write_csv(args.csv, results)
    if args.plot:
        plot(args.plot, results)
    if args.json:
        machine.print_json({"tasks": rows} | about)


if __name__ == "__main__":
    main()
