"""Training of Foal, of stable-baselines3's PPO and of sb3-contrib's RecurrentPPO, on the same task and cores.

    python -m benchmarks.training [--task quadruped-balance] [--seconds 60] [--seeds 3] [--json] [--quick]
                                  [--csv FILE] [--plot FILE]

All train on Foal's environment and are evaluated by the same code (benchmarks/evaluate.py): deterministic
actions on the same 256 fresh episodes, with the clock stopped. The clock runs from the first step of
the first rollout on; imports and compiling come before. Each contestant trains in a process of its
own, so that the threads of one do not wait for those of another; seeds go round A B C A B C.

The networks have the same sizes: an LSTM of 128 (RecurrentPPO: then a layer of 128) or two layers of
128, and a critic of two layers of 128 without memory. Foal's critic also
reads what the simulator knows; the contestants have no place for that. They start their episodes at
random ages, as Foal does. Their settings are benchmarks/stable_baselines.py's presets().
"""

import argparse
import csv
import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import physics  # noqa: F401  sets what PyTorch reads when imported  # isort: skip
import numpy as np
from rich.console import Console

from benchmarks import machine
from benchmarks.evaluate import SURVIVAL, Evaluator, arrival, median, rate
from environments import registry
from environments.quadruped import WALKING
from settings import ConfigError, override
from simulate import System
from training.engine import TrainingEngine
from training.presets import preset

ROOT = Path(__file__).resolve().parent.parent
BALANCE = "quadruped-balance"
NAMES = {
    "foal": "Foal, LSTM + attention",
    "foal-lstm": "Foal, LSTM",
    "foal-mlp": "Foal, MLP",
    "ppo": "SB3 PPO, 10 epochs",
    "ppo-foal": "SB3 PPO, Foal's settings",
    "recurrent-ppo": "RecurrentPPO, 10 epochs",
    "recurrent-ppo-foal": "RecurrentPPO, Foal's settings",
    "recurrent-ppo-default": "RecurrentPPO, 16 robots, its own settings",
}

Rows = list[dict[str, float]]  # of one training: Evaluator.rows
Result = dict[str, list[Rows]]  # by contestant, one training per seed


NETWORKS: dict[str, dict[str, Any]] = {
    "foal": {},
    "foal-lstm": {"network.attention": False},
    "foal-mlp": {"network.attention": False, "network.recurrent": False, "network.encoder": 128},
}


def train_foal(task: str, seed: int, evaluator: Evaluator, overrides: dict[str, Any] | None = None) -> Rows:
    """Train as simulate.py does until the evaluator ends it; return its rows.

    overrides: of configuration fields, by name.
    """
    overrides = overrides or {}
    base = preset(
        task,
        overrides.get("world_model.role", "off"),
        kind=overrides.get("world_model.kind", "recurrent"),
        learner=overrides.get("train.learner", "ppo"),
    )
    cfg = override(dataclasses.replace(base, seed=seed), {"train.device": "cpu"} | overrides)
    system = System(cfg, Console(stderr=True))
    env = system.make_env(system.resources.num_envs)
    engine = TrainingEngine(env, system.creature(env), cfg, system.resources.device, system.resources.threads)
    engine.warm_up()
    evaluator.start()
    over = False
    while not over:
        engine.iterate()
        with engine.acting():
            over = evaluator.done(engine.env_steps, engine.creature)
    return evaluator.rows


def train(contestant: str, task: str, seed: int, seconds: float) -> Rows:
    """Train a contestant in this process; return the evaluator's rows."""
    evaluator = Evaluator(task, seed, seconds)
    if contestant in NETWORKS:
        return train_foal(task, seed, evaluator, NETWORKS[contestant])
    from benchmarks import stable_baselines

    return stable_baselines.train_sb3(task, seed, *stable_baselines.presets(task)[contestant], evaluator)


def train_apart(contestant: str, task: str, seed: int, seconds: float) -> Rows:
    """Train a contestant in a process of its own; raise SystemExit if it fails."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.training",
        "--contestant",
        contestant,
        "--task",
        task,
        "--seed",
        str(seed),
        "--seconds",
        str(seconds),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def summary(trainings: Sequence[Rows]) -> dict[str, float | None]:
    """Return the medians of seeds of one contestant, by name.

    env_steps_per_second; seconds and env_steps to the thresholds; final_* of the last evaluation.
    """
    arrivals = [arrival(rows) for rows in trainings]
    result = {
        "env_steps_per_second": median(rate(rows) for rows in trainings),
        "seconds": median(a and a.seconds for a in arrivals),
        "env_steps": median(a and a.env_steps for a in arrivals),
    }
    known = trainings[0][-1].keys() - {"seconds", "env_steps", "episodes"}
    return result | {f"final_{name}": median(rows[-1][name] for rows in trainings) for name in sorted(known)}


def is_walking(result: Result) -> bool:
    """Return whether a task's evaluations tell how far off velocity and yaw rate were."""
    return all(name in rows[-1] for trainings in result.values() for rows in trainings for name in WALKING)


def report(results: dict[str, Result]) -> dict[str, Any]:
    """Return what --json prints, of results by task; a key is None where its task or contestant was not run."""
    medians = {
        task: {name: summary(trainings) for name, trainings in result.items()} for task, result in results.items()
    }
    first = next(iter(medians.values()))
    speed = {name: found["env_steps_per_second"] for name, found in first.items()}
    recurrent = [speed[name] for name in ("recurrent-ppo", "recurrent-ppo-foal") if name in speed]
    foals = speed.get("foal")
    walking = [task for task, result in results.items() if is_walking(result)]
    return {
        "env_steps_per_second": foals,
        "recurrent_ppo_ratio": foals / max(recurrent) if foals and recurrent else None,
        "ratios": {name: foals / other for name, other in speed.items() if foals and name != "foal"},
        "balance_seconds": medians.get(BALANCE, {}).get("foal", {}).get("seconds"),
        "walk_seconds": medians[walking[0]].get("foal", {}).get("seconds") if walking else None,
        "tasks": medians,
    }


def print_table(task: str, result: Result, seconds: float, about: dict[str, object]) -> None:
    """Print one task's contestants."""
    errors = [
        name for name in summary(next(iter(result.values()))) if name.startswith("final_") and name != "final_survival"
    ]
    heading = "", "trained env steps/s", "Foal's ratio", "s to target", "env steps to target", "survived at the end"
    rows = [(*heading, *(e.removeprefix("final_").replace("_", " ") for e in errors))]
    foals = summary(result["foal"])["env_steps_per_second"] if "foal" in result else None
    for name, trainings in result.items():
        found = summary(trainings)
        ratio = f"{foals / found['env_steps_per_second']:.2f}" if foals and name != "foal" else ""
        arrived = (
            (f"{found['seconds']:.1f}", f"{found['env_steps']:,.0f}") if found["seconds"] is not None else ("never", "")
        )
        last = (f"{found['final_survival']:.1%}", *(f"{found[e]:.3f}" for e in errors))
        rows.append((NAMES[name], f"{found['env_steps_per_second']:,.0f}", ratio, *arrived, *last))
    target = f"{SURVIVAL:.0%} of episodes survived" + "".join(
        f", {n.replace('_', ' ')} at most {x:g}" for n, (_, x) in WALKING.items() if is_walking(result)
    )
    seeds = len(next(iter(result.values())))
    machine.table(
        f"{task}, {seconds:g} s of training, median of {seeds} seed{'s' * (seeds > 1)}; target: {target}", rows, about
    )


def write_csv(path: str, results: dict[str, Result]) -> None:
    """Write every evaluation as a line: task, contestant, seed, seconds, env_steps and what was measured."""
    lines = [
        {"task": task, "contestant": name, "seed": seed} | row
        for task, result in results.items()
        for name, trainings in result.items()
        for seed, rows in enumerate(trainings)
        for row in rows
    ]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(itertools.chain.from_iterable(lines))))
        writer.writeheader()
        writer.writerows(lines)


def band(trainings: Sequence[Rows], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return when (T) [s] all seeds had been evaluated; least, median, greatest of a measured number then (3, T)."""
    first = max(rows[0]["seconds"] for rows in trainings)
    last = min(rows[-1]["seconds"] for rows in trainings)
    times = np.unique([row["seconds"] for rows in trainings for row in rows if first <= row["seconds"] <= last])
    values = [
        np.interp(np.log(times), np.log([r["seconds"] for r in rows]), [r[name] for r in rows]) for rows in trainings
    ]
    return times, np.array([np.min(values, 0), np.median(values, 0), np.max(values, 0)])


def plot(path: str, results: dict[str, Result]) -> None:
    """Draw a panel per task: survival, or the velocity error of walking, over seconds of training.

    A line is the median of seeds, its band all of them.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(len(results), 1, figsize=(9, 4.5 * len(results)), squeeze=False, layout="constrained")
    # by lightness too, for eyes and printers that see no colour; a library has its own dashes
    colours = dict(zip(NAMES, matplotlib.colormaps["inferno"](np.linspace(0.0, 0.85, len(NAMES))), strict=True))
    dashes = {"foal": "-", "ppo": "--", "recurrent": ":"}
    for axes, (task, result) in zip(panels[:, 0], results.items(), strict=True):
        walking = is_walking(result)
        measured = "velocity_error" if walking else "survival"
        target = WALKING["velocity_error"][1] if walking else SURVIVAL
        for name, trainings in result.items():
            times, (low, middle, high) = band(trainings, measured)
            axes.plot(
                times,
                middle,
                dashes[name.split("-")[0]],
                color=colours[name],
                label=NAMES[name],
                linewidth=2,
                marker="." if len(times) < 8 else "",
            )
            axes.fill_between(times, low, high, color=colours[name], alpha=0.15, linewidth=0)
        axes.axhline(target, color="0.6", linewidth=0.8, zorder=0)
        axes.set(
            xscale="log", xlabel="training [s]", ylabel="velocity error [m/s]" if walking else "survival", title=task
        )
        axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def read_options() -> argparse.Namespace:
    """Return the command line, checked; leave with exit code 2 and one line where it is wrong."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--task", nargs="+", default=[BALANCE], metavar="NAME", help=f"tasks (default {BALANCE})")
    options.add_argument(
        "--seconds", type=float, metavar="S", help="of every training; 60, or 20 with --quick, if not given"
    )
    options.add_argument(
        "--seeds", type=int, metavar="N", help="trainings of every contestant; 3, or 1 with --quick, if not given"
    )
    options.add_argument(
        "--contestants",
        nargs="+",
        choices=NAMES,
        default=list(NAMES),
        metavar="NAME",
        help=f"of {', '.join(NAMES)} (default all)",
    )
    options.add_argument("--csv", metavar="FILE", help="write every evaluation to a file")
    options.add_argument(
        "--plot", metavar="FILE", help="draw survival or tracking error over time, as .png, .pdf or .svg"
    )
    options.add_argument("--contestant", choices=NAMES, help=argparse.SUPPRESS)  # train this one here, print its rows
    options.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = options.parse_args()
    args.seconds = (20.0 if args.quick else 60.0) if args.seconds is None else args.seconds
    args.seeds = (1 if args.quick else 3) if args.seeds is None else args.seeds
    for name in ("seconds", "seeds"):
        if not getattr(args, name) > 0:
            options.error(f"--{name}: expected more than 0, got {getattr(args, name):g}")
    try:
        for task in args.task:
            registry.default_cfg(task)
    except ConfigError as error:
        options.error(str(error))
    return args


def main() -> None:
    """Train, print the tables and, with --json, the result."""
    args = read_options()
    if args.contestant:
        machine.print_json(train(args.contestant, args.task[0], args.seed, args.seconds))
        return
    packages = ["torch", "numba", "numpy"]
    if any(not name.startswith("foal") for name in args.contestants):
        require_stable_baselines()
        packages = ["stable-baselines3", "sb3-contrib", "gymnasium", *packages]
    about = machine.describe(*packages)
    results: dict[str, Result] = {task: {name: [] for name in args.contestants} for task in args.task}
    for task, seed, name in itertools.product(args.task, range(args.seeds), args.contestants):
        print(f"{task}, seed {seed}: {NAMES[name]}", file=sys.stderr)
        results[task][name].append(train_apart(name, task, seed, args.seconds))
    for task, result in results.items():
        print_table(task, result, args.seconds, about)
    if args.csv:
        write_csv(args.csv, results)
    if args.plot:
        plot(args.plot, results)
    if args.json:
        machine.print_json(report(results) | {"seconds": args.seconds, "seeds": args.seeds} | about)


def require_stable_baselines() -> None:
    """Leave with exit code 2 and one line if the contestants are not installed."""
    try:
        from benchmarks import stable_baselines  # noqa: F401
    except ImportError as error:
        print(
            f"benchmarks.training needs stable-baselines3 and sb3-contrib ({error}): "
            "pip install -r requirements-bench.txt",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
