"""Compare runs: learning curves of what differs, with their spread over seeds, and a table.

    python -m examples.compare RUN ... [--value NAME] [--over train_seconds|env_steps] [--plot FILE] [--json]

RUN is the folder of a run, or a folder of such folders. Runs whose settings differ by their seeds alone are one
contestant, named by the settings in which the contestants differ.
"""

import argparse
import json
import pathlib
import statistics
import sys
from typing import Any

import numpy as np

from settings import ConfigError, suggest
from training.record import Recorded
from training.runs import CONFIG

# Settings that do not change what is learnt; runs of other lengths are compared as far as they go
ASIDE = {"seed", "train.iterations", "train.save_every", "train.keep", "train.run_dir", "train.tracker"}
LABELS = {"train_seconds": "training time [s]", "env_steps": "env steps"}
COLOURS = "#1f6f8b", "#d97b29", "#5b8c3e", "#8b4a8b", "#555555", "#b8433b", "#3e6fb0", "#9a7b2d"
POINTS = 200  # of a curve's middle and spread


def find(paths: list[str]) -> list[Recorded]:
    """Return the runs in folders; raise ConfigError for a folder without any."""
    found = []
    for path in map(pathlib.Path, paths):
        if not path.is_dir():
            raise ConfigError(f"{path}: there is no such folder")
        inside = [path] if (path / CONFIG).exists() else sorted(folder.parent for folder in path.glob(f"*/{CONFIG}"))
        if not inside:
            raise ConfigError(f"{path}: expected the folder of a run, or of runs, there are none in it")
        found += map(Recorded.read, inside)
    return found


def contestants(runs: list[Recorded]) -> dict[str, list[Recorded]]:
    """Return runs by the settings in which they differ, in words, seeds of the same settings together."""
    names = sorted({name for run in runs for name in run.settings} - ASIDE)
    tasks: dict[str, list[Recorded]] = {}
    for run in runs:
        tasks.setdefault(str(run.settings["task"]), []).append(run)
    found: dict[str, list[Recorded]] = {}
    for task, lot in tasks.items():
        differing = [name for name in names if len({repr(run.settings.get(name)) for run in lot}) > 1]
        for run in lot:
            values = [f"{name} {value_text(run.settings[name])}" for name in differing if name in run.settings]
            if len(tasks) > 1 or not values:
                values.insert(0, task)
            found.setdefault(", ".join(values), []).append(run)
    return found


def value_text(value: Any) -> str:
    """Return a setting as one would write it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def curve(run: Recorded, value: str, over: str) -> tuple[np.ndarray, np.ndarray]:
    """Return where a run was evaluated, and a value there; (K) each."""
    rows = [row for row in run.evaluations if value in row and over in row]
    return np.array([row[over] for row in rows]), np.array([row[value] for row in rows])


def summary(runs: list[Recorded], value: str) -> dict[str, Any]:
    """Return what a contestant came to: seeds; seconds to the mark, in the middle and the worst; the last values."""
    arrivals = [run.arrival for run in runs]
    last = [run.evaluations[-1][value] for run in runs if run.evaluations and value in run.evaluations[-1]]
    every = None not in arrivals
    return {
        "seeds": [run.settings.get("seed") for run in runs],
        "arrived": sum(arrival is not None for arrival in arrivals),
        "seconds": statistics.median(arrivals) if every else None,
        "worst_seconds": max(arrivals) if every else None,
        "last": statistics.median(last) if last else None,
        "last_low": min(last, default=None),
        "last_high": max(last, default=None),
    }


def plot(found: dict[str, list[Recorded]], value: str, over: str, path: pathlib.Path) -> None:
    """Draw each contestant's median over its seeds, and between which values its seeds lie."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.5), dpi=120)
    for i, (name, runs) in enumerate(found.items()):
        curves = [c for run in runs if len((c := curve(run, value, over))[0])]
        if not curves:
            continue
        colour = COLOURS[i % len(COLOURS)]
        # as far as every seed has come
        grid = np.linspace(max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves), POINTS)
        heights = np.stack([np.interp(grid, x, y) for x, y in curves])
        for x, y in curves:
            axis.plot(x, y, color=colour, linewidth=0.6, alpha=0.5)
        axis.fill_between(grid, heights.min(0), heights.max(0), color=colour, alpha=0.15, linewidth=0)
        count = f" ({len(runs)} runs)" if len(runs) > 1 else ""
        axis.plot(grid, np.median(heights, 0), color=colour, linewidth=2, label=f"{name}{count}")
    if not np.ptp(axis.get_ylim()) > 0.1:
        axis.set_ylim(0.0, 1.0)
    axis.set(xlabel=LABELS[over], ylabel=value.removeprefix("eval_").replace("_", " "))
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Read, print, draw; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="examples.compare")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or of runs")
    parser.add_argument("--value", default="eval_survival", metavar="NAME", help="column of metrics.csv")
    parser.add_argument("--over", default="train_seconds", choices=LABELS, help="what curves are drawn over")
    parser.add_argument("--plot", default="compare.png", metavar="FILE", help="picture to write")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    args = parser.parse_args(arguments)
    try:
        found = contestants(find(args.runs))
        known = {name for runs in found.values() for run in runs for row in run.evaluations for name in row}
        if not known:
            raise ConfigError("none of these runs was evaluated yet")
        if args.value not in known:
            raise ConfigError(f"--value: expected a column with evaluations, {suggest(args.value, known, 'got none')}")
        try:
            plot(found, args.value, args.over, pathlib.Path(args.plot))
        except (OSError, ValueError) as error:
            raise ConfigError(f"--plot: expected a picture to write, got {args.plot} ({error})") from None
    except ConfigError as error:
        print(f"examples.compare: {error}", file=sys.stderr)
        return 2
    result = {name: summary(runs, args.value) for name, runs in found.items()}
    for name, x in result.items():
        arrived = f"at the mark {x['arrived']} of {len(x['seeds'])}"
        if x["seconds"] is not None:
            arrived += f", after {x['seconds']:.1f} s, the worst {x['worst_seconds']:.1f} s"
        last = (
            "" if x["last"] is None else f"; {args.value} {x['last']:.4g} ({x['last_low']:.4g} to {x['last_high']:.4g})"
        )
        print(f"{name}: {arrived}{last}")
    print(f"curves in {args.plot}")
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
