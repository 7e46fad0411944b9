"""The world model: how well it foresees, what the policy gets of it and of experience, what its details are worth.

    python -m benchmarks.world_model [--part open-loop belief imagination walking details] [--seeds 3] [--first 0]
                                     [--checkpoint PATH] [--json] [--quick] [--csv FILE] [--plot FILE]

open-loop: a trained policy walks; the world model and a one-step model learn from the same of its
rollouts, as many samples each. On robots of another seed both are shown the past, then only the
actions of the next 45 control steps, and asked what is observed after them. The error is the root
mean square over what sensors without noise would show, each divided by its standard deviation: 1 is
as good as the mean. A second table is by what the noisy sensors show.

belief: quadruped-walk-flat is trained without a world model and with one that the policy reads; then,
on robots of another seed, what the world model knows of what no sensor measures.

imagination: env steps until 95 % of 256 fresh episodes of quadruped-balance are survived in two
evaluations in a row, by PPO alone and with imagined rollouts. The ratio is that of the medians over seeds,
over PPO with as few robots as help it without a seed that never arrives. PPO ends soon after that; who imagines goes on
to the end, and the least that survive later is told beside the mean of all evaluations.

walking: env steps until 16 robots of quadruped-walk-flat are within 0.2 m/s and 0.2 rad/s of what is asked and 95 %
of 256 fresh episodes are survived, the first of two evaluations in a row, by what a world model imagines and by
soft actor-critic.

details: time and memory of each detail of the world model's training, without and with it.
"""

import argparse
import csv
import itertools
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import physics  # noqa: F401  sets what PyTorch reads when imported  # isort: skip
import torch

from benchmarks import foresight, machine, world_model_details
from benchmarks.evaluate import SURVIVAL, Evaluator, median, reached
from benchmarks.training import Rows, train_foal
from environments import registry
from host import available_cores
from settings import ConfigError
from training.evaluation import EVALUATION_SEED

PARTS = "open-loop", "belief", "imagination", "walking", "details"
WALK = Path(__file__).resolve().parent.parent / "checkpoints" / "quadruped-walk-flat.pt"
NAMES = {
    "ppo": "PPO alone, 1024 robots",
    "ppo-128": "PPO alone, 128 robots",
    "ppo-32": "PPO alone, 32 robots",
    "ppo-16": "PPO alone, 16 robots",
    "ppo-8": "PPO alone, 8 robots",
    "imagination": "with imagination, 16 robots",
}
# overrides of the configuration, env steps between evaluations, and env steps at most
CONTESTANTS: dict[str, tuple[dict[str, Any], int, int]] = {
    "ppo": ({"train.num_envs": 1024}, 16384, 1_600_000),
    "ppo-128": ({"train.num_envs": 128}, 2048, 300_000),
    "ppo-32": ({"train.num_envs": 32}, 1024, 100_000),
    "ppo-16": ({"train.num_envs": 16}, 1024, 60_000),
    "ppo-8": ({"train.num_envs": 8}, 1024, 60_000),
    "imagination": ({"world_model.role": "imagination"}, 1024, 30_000),
}
WALKERS: dict[str, dict[str, Any]] = {
    # commands that change often, and no pushes, which a walk's evaluations do not have either
    "imagination, by an ensemble": {
        "world_model.role": "imagination",
        "world_model.kind": "ensemble",
        "curriculum.push": (1.0, 1.0),
        "command.interval": (0.2, 3.0),
    },
    "soft actor-critic": {"train.learner": "sac"},
}
MARK = {"velocity_error": 0.2, "yaw_rate_error": 0.2}  # m/s, rad/s
MOST = 49_152  # env steps: 16 minutes of one robot's life
ITERATION = 1024 * 16  # env steps of a rollout by default


class KeepingEvaluator(Evaluator):
    """Keeps the creature."""

    def done(self, env_steps: int, policy: Any) -> bool:
        """Hear that an iteration has ended; return whether to stop."""
        self.creature = policy
        return super().done(env_steps, policy)


def belief(seeds: range) -> dict[str, list[dict[str, Any]]]:
    """Train walking without and with a world model that the policy reads; return rows, and estimates, for every seed.

    Estimates are those of the world model.
    """
    results: dict[str, list[dict[str, Any]]] = {"off": [], "belief": []}
    for seed, role in itertools.product(seeds, results):
        print(f"seed {seed}: role {role}", file=sys.stderr)
        evaluator = KeepingEvaluator("quadruped-walk-flat", seed, 3600.0, 600 * ITERATION, (), every=20 * ITERATION)
        found: dict[str, Any] = {"rows": train_foal("quadruped-walk-flat", seed, evaluator, {"world_model.role": role})}
        if role == "belief":
            env = registry.make("quadruped-walk-flat", num_envs=256, threads=available_cores())
            found["estimates"] = foresight.estimates(evaluator.creature, env, EVALUATION_SEED + 1000 * seed + 777)
        results[role].append(found)
    return results


def report_belief(results: dict[str, list[dict[str, Any]]], about: dict[str, object]) -> dict[str, Any]:
    """Print the tables; return what --json prints of them."""
    names = {"off": "no world model", "belief": "the policy reads a world model"}
    rows = [("", "env steps/s", "env steps to 0.15 m/s, 0.15 rad/s, 95 %", "s", "in the end: m/s", "rad/s", "survived")]
    rates = {}
    for role, found in results.items():
        trainings = [x["rows"] for x in found]
        first = [next((r for r in training if reached(r)), None) for training in trainings]
        rates[role] = [training[-1]["env_steps"] / training[-1]["seconds"] for training in trainings]
        last = [
            [statistics.median(r[name] for r in training[-3:]) for training in trainings]
            for name in ("velocity_error", "yaw_rate_error", "survival")
        ]
        cells = (
            [f"{x / 1e3:.0f} k" for x in rates[role]],
            ["never" if r is None else f"{r['env_steps'] / 1e6:.2f} M" for r in first],
            ["never" if r is None else f"{r['seconds']:.1f}" for r in first],
            *([f"{x:.3f}" for x in xs] for xs in last),
        )
        rows.append((names[role], *(", ".join(x) for x in cells)))
    machine.table("quadruped-walk-flat, by seed", rows, about)
    estimates = [x["estimates"] for x in results["belief"]]
    rows = [("root mean square", "error of the estimate, by seed", "of the mean")]
    for name in estimates[0]:
        rows.append(
            (
                name,
                ", ".join(f"{x[name][0]:.3f}" for x in estimates),
                f"{statistics.median(x[name][1] for x in estimates):.3f}",
            )
        )
    machine.table("What no sensor measures, on robots of another seed", rows, about)
    slower = statistics.median(a / b for a, b in zip(rates["off"], rates["belief"], strict=True))
    print(f"training a world model and reading it: {slower:.2f} times slower\n")
    return {
        "velocity_rms": statistics.median(x["base velocity [m/s]"][0] for x in estimates),
        "belief_slowdown": slower,
        "estimates": estimates,
    }


def walks(row: dict[str, float]) -> bool:
    """Return whether an evaluation is past the mark of few robots that walk."""
    return row["survival"] >= SURVIVAL and all(row[name] <= most for name, most in MARK.items())


def arrival(rows: Rows, mark: Callable[[dict[str, float]], bool] = reached) -> dict[str, float] | None:
    """Return the first of two evaluations in a row that are past a mark, None if there are none."""
    return next((a for a, b in itertools.pairwise(rows) if mark(a) and mark(b)), None)


class ArrivalEvaluator(Evaluator):
    """Ends a training some evaluations after it has arrived."""

    later = 8  # evaluations from that of the arrival on
    past = staticmethod(reached)  # what arrival() is told

    def done(self, env_steps: int, policy: Any) -> bool:
        """Hear that an iteration has ended; return whether to stop."""
        found = arrival(self.rows, self.past)
        enough = found is not None and len(self.rows) >= self.rows.index(found) + self.later
        return super().done(env_steps, policy) or enough


class WalkEvaluator(ArrivalEvaluator):
    """Ends a training some evaluations after its robots walk."""

    later = 5
    past = staticmethod(walks)


def imagination(seeds: range) -> dict[str, list[Rows]]:
    """Train balance with and without imagined rollouts; return the evaluations of every contestant and seed."""
    results: dict[str, list[Rows]] = {name: [] for name in CONTESTANTS}
    for seed, (name, (changes, every, most)) in itertools.product(seeds, CONTESTANTS.items()):
        print(f"seed {seed}: {NAMES[name]}", file=sys.stderr)
        kind = Evaluator if name == "imagination" else ArrivalEvaluator
        evaluator = kind("quadruped-balance", seed, 3600.0, most, (), every=every)
        results[name].append(train_foal("quadruped-balance", seed, evaluator, changes))
    return results


def walking(seeds: range) -> dict[str, list[Rows]]:
    """Train walking by few robots; return the evaluations of every contestant and seed."""
    results: dict[str, list[Rows]] = {name: [] for name in WALKERS}
    for seed, (name, changes) in itertools.product(seeds, WALKERS.items()):
        print(f"seed {seed}: {name}", file=sys.stderr)
        evaluator = WalkEvaluator("quadruped-walk-flat", seed, 3600.0, MOST, (), every=2048)
        results[name].append(train_foal("quadruped-walk-flat", seed, evaluator, changes))
    return results


def report_walking(results: dict[str, list[Rows]], about: dict[str, object]) -> dict[str, Any]:
    """Print the table; return what --json prints of it: when each seed of each contestant walked, None for never."""
    rows = [("", "env steps, by seed", "median", "in the end: m/s", "rad/s", "survived, %", "seconds")]
    found = {}
    for name, trainings in results.items():
        arrivals = [arrival(rows, walks) for rows in trainings]
        first = [found and found["env_steps"] for found in arrivals]
        found[name] = {"env_steps": first, "median": median(first)}
        last = [[training[-1][of] for training in trainings] for of in (*MARK, "survival", "seconds")]
        *steps, middle = ("never" if x is None else f"{x / 1e3:.0f} k" for x in (*first, found[name]["median"]))
        cells = [", ".join(steps), middle]
        for values, form in zip(last, ("{:.2f}", "{:.2f}", "{:.0%}", "{:.0f}"), strict=True):
            cells.append(", ".join(form.format(x).rstrip("%") for x in values))
        rows.append((name, *cells))
    machine.table("quadruped-walk-flat: env steps to 0.2 m/s, 0.2 rad/s, 95 %", rows, about)
    return {"walking": found}


def summary(trainings: Sequence[Rows]) -> dict[str, Any]:
    """Return env_steps and seconds until each seed arrived and the median of steps, None standing for never.

    least: the lowest survival of each seed from its arrival on; mean: of all evaluations of each seed.
    """
    arrivals = [arrival(rows) for rows in trainings]
    steps = [found["env_steps"] if found else None for found in arrivals]
    seconds = [found["seconds"] if found else None for found in arrivals]
    least = [
        min(row["survival"] for row in rows[rows.index(found) :]) if found else None
        for rows, found in zip(trainings, arrivals, strict=True)
    ]
    mean = [statistics.fmean(row["survival"] for row in rows) for rows in trainings]
    return {"env_steps": steps, "seconds": seconds, "median": median(steps), "least": least, "mean": mean}


def plot(path: str, results: dict[str, list[Rows]]) -> None:
    """Draw survival over env steps, a line per seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 4.5), layout="constrained")
    looks = zip(
        results.items(),
        ("0.75", "0.6", "0.45", "tab:blue", "tab:cyan", "tab:red"),
        (":", ":", ":", "--", "--", "-"),
        strict=True,
    )
    for (name, trainings), colour, dashes in looks:
        order = sorted(range(len(trainings)), key=summary(trainings)["mean"].__getitem__)
        for place, i in enumerate(order):  # the worst first
            rows = trainings[i]
            which = {0: ", worst seed", len(order) - 1: ", best seed"}.get(place, "") if name == "imagination" else ""
            axes.plot(
                [r["env_steps"] for r in rows],
                [r["survival"] for r in rows],
                "--" if which == ", worst seed" else dashes,
                color=colour,
                label=NAMES[name] + which if which or not place else None,
                linewidth=2.2 if which else 0.8,
            )
    axes.axhline(0.95, color="0.6", linewidth=0.8, zorder=0)
    axes.set(
        xscale="log",
        xlabel="real env steps (50 are a second of a robot's life)",
        ylabel="survival",
        title="quadruped-balance",
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_walking(path: str, results: dict[str, list[Rows]]) -> None:
    """Draw errors and survival over env steps, a line per seed, the first and the last to walk thicker."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = {
        "velocity_error": "velocity error [m/s]",
        "yaw_rate_error": "yaw rate error [rad/s]",
        "survival": "survival",
    }
    marks = MARK | {"survival": SURVIVAL}
    figure, axes = plt.subplots(1, len(shown), figsize=(11, 3.6), layout="constrained")
    for (name, trainings), colour in zip(results.items(), ("tab:red", "0.6", "tab:blue"), strict=False):
        arrivals = [arrival(rows, walks) for rows in trainings]
        order = sorted(range(len(trainings)), key=lambda i: arrivals[i]["env_steps"] if arrivals[i] else math.inf)
        for place, i in enumerate(order):
            which = {0: ", first seed to walk", len(order) - 1: ", last seed"}.get(place, "")
            for of, column in zip(axes, shown, strict=True):
                of.plot(
                    [1e-3 * row["env_steps"] for row in trainings[i]],
                    [row[column] for row in trainings[i]],
                    "--" if place and which else "-",
                    color=colour,
                    label=name + which if which and column == "survival" else None,
                    linewidth=2.2 if which else 0.8,
                )
    for of, (column, label) in zip(axes, shown.items(), strict=True):
        of.axhline(marks[column], color="0.6", linewidth=0.8, zorder=0)
        of.set(xlabel="thousand env steps", ylabel=label, ylim=(0, None))
        of.grid(alpha=0.3)
    figure.suptitle("quadruped-walk-flat, 16 robots")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_csv(path: str, results: dict[str, list[Rows]], first: int = 0) -> None:
    """Write every evaluation as a line; first: the first seed."""
    lines = [
        {"contestant": name, "seed": seed} | row
        for name, trainings in results.items()
        for seed, rows in enumerate(trainings, first)
        for row in rows
    ]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def report_imagination(results: dict[str, list[Rows]], about: dict[str, object]) -> dict[str, Any]:
    """Print the table of arrivals; return what --json prints of it."""
    found = {name: summary(trainings) for name, trainings in results.items()}
    rows = [("", "env steps, by seed", "median", "seconds of training", "least later, %", "mean, %")]
    for name, x in found.items():
        shares = ([None if y is None else 100 * y for y in x[key]] for key in ("least", "mean"))
        columns = x["env_steps"], [x["median"]], x["seconds"], *shares
        cells = (", ".join("never" if y is None else f"{y:,.0f}" for y in column) for column in columns)
        rows.append((NAMES[name], *cells))
    machine.table("quadruped-balance: env steps to 95 % survival", rows, about)
    # over whichever of PPO's numbers of robots needs the fewest, of those with which every seed arrives
    alone = [x["median"] for name, x in found.items() if name != "imagination" and None not in x["env_steps"]]
    imagined = found["imagination"]["median"]
    return {"imagination_step_ratio": imagined / min(alone) if imagined and alone else None, "imagination": found}


def read_options() -> argparse.Namespace:
    """Return the command line, checked; leave with exit code 2 and one line where it is wrong."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument(
        "--part", nargs="+", choices=PARTS, default=PARTS, metavar="NAME", help=f"of {', '.join(PARTS)}"
    )
    options.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        default=3,
        help="trainings of every contestant (default 3); of belief 1 with --quick",
    )
    options.add_argument("--first", type=int, metavar="SEED", default=0, help="the first of them (default 0)")
    options.add_argument(
        "--checkpoint", type=Path, default=WALK, metavar="PATH", help=f"whose policy walks (default {WALK.name})"
    )
    options.add_argument(
        "--csv", metavar="FILE", help="write every evaluation of imagination, or else of walking, to a file"
    )
    options.add_argument("--plot", metavar="FILE", help="draw the same over env steps, as .png, .pdf or .svg")
    args = options.parse_args()
    if args.seeds < 1:
        options.error(f"--seeds: expected at least 1, got {args.seeds}")
    if args.first < 0:
        options.error(f"--first: expected at least 0, got {args.first}")
    return args


def main() -> None:
    """Measure, print the tables and, with --json, the result."""
    args = read_options()
    seeds = range(args.first, args.first + args.seeds)
    about = machine.describe("torch", "numba", "numpy")
    result = {}
    torch.set_num_threads(1)  # threads have robots of their own
    try:
        if "open-loop" in args.part:
            result |= foresight.report_open_loop(foresight.open_loop(args.checkpoint), about)
    except ConfigError as error:
        print(f"benchmarks.world_model: {error}", file=sys.stderr)
        sys.exit(2)
    if "belief" in args.part:
        result |= report_belief(belief(seeds[:1] if args.quick else seeds), about)
    if "imagination" in args.part:
        results = imagination(seeds)
        result |= report_imagination(results, about)
        if args.csv:
            write_csv(args.csv, results, args.first)
        if args.plot:
            plot(args.plot, results)
    if "walking" in args.part:
        results = walking(seeds)
        result |= report_walking(results, about)
        if "imagination" not in args.part:
            if args.csv:
                write_csv(args.csv, results, args.first)
            if args.plot:
                plot_walking(args.plot, results)
    if "details" in args.part:
        result |= world_model_details.report(world_model_details.details(5 if args.quick else 15), about)
    if args.json:
        machine.print_json(result | about)


if __name__ == "__main__":
    main()
