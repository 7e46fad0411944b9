"""What a run leaves behind: metrics.csv, TensorBoard events, config.json, curve.png."""

import csv
import dataclasses
import json
import pathlib
from typing import Any

from config import Config

GROUPS = "eval", "reward", "end"  # metrics of these beginnings are shown together
COMMON = {
    "eval_survival",
    "eval_mean_return",
    "eval_episodes",
    "eval_episode_seconds",
}  # what evaluations of every task tell


class Logger:
    """Writes a run's metrics to a folder, a row per iteration.

    The columns of metrics.csv are the union of all metrics seen, empty where a row has none; the
    file is rewritten when a new one appears: at the first evaluation, at the first sample of a GPU.
    """

    def __init__(self, folder: pathlib.Path, cfg: Config) -> None:
        from torch.utils.tensorboard import SummaryWriter  # half a second to import

        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "config.json").write_text(json.dumps(dataclasses.asdict(cfg), indent=1) + "\n")
        self.rows: list[dict[str, Any]] = []
        self._columns: list[str] = []
        self._board = SummaryWriter(str(folder))

    def log(self, metrics: dict[str, Any]) -> None:
        """Add a row; metrics has "iteration" and "env_steps"."""
        self.rows.append(metrics)
        new = [key for key in metrics if key not in self._columns]
        if new:
            self._columns += new
            with open(self.folder / "metrics.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(self.rows)
        else:
            with open(self.folder / "metrics.csv", "a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(metrics)
        for key, value in metrics.items():
            if key not in ("iteration", "env_steps"):
                group, _, name = key.partition("_")
                self._board.add_scalar(
                    f"{group}/{name}" if group in GROUPS and name else key, value, metrics["env_steps"]
                )

    def close(self) -> pathlib.Path | None:
        """Finish the files and draw the learning curve; return its path, None if nothing was evaluated."""
        self._board.close()
        path = self.folder / "curve.png"
        return path if plot_curve(self.rows, path) else None


def plot_curve(rows: list[dict[str, Any]], path: pathlib.Path) -> bool:
    """Draw what evaluations found over training time; return whether there were any.

    Survival and return are above, the task's own errors below.
    """
    points = [row for row in rows if "eval_survival" in row]
    if not points:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    errors = [key for key in points[0] if key.startswith("eval_") and key not in COMMON]
    seconds = [row["train_seconds"] for row in points]
    heights = [3, *(1 for _ in errors)]
    figure, axes = plt.subplots(
        len(heights),
        1,
        figsize=(8, 4.5 + 1.3 * len(errors)),
        dpi=120,
        sharex=True,
        squeeze=False,
        height_ratios=heights,
    )
    left = axes[0, 0]
    left.plot(
        seconds,
        [100 * row["eval_survival"] for row in points],
        color="#1f6f8b",
        marker="o",
        markersize=3,
        label="survival",
    )
    left.set(ylabel="survived evaluation episodes [%]", ylim=(0, 102), xlim=(0, None))
    left.axhline(95, color="#1f6f8b", linewidth=0.8, linestyle=":")
    right = left.twinx()
    right.plot(
        seconds, [row["eval_mean_return"] for row in points], color="#d97b29", marker="s", markersize=3, label="return"
    )
    right.set(ylabel="mean return", ylim=(0, None))
    lines = left.get_lines()[:1] + right.get_lines()
    left.legend(lines, [line.get_label() for line in lines], loc="lower right", frameon=False)
    top = left.secondary_xaxis("top", functions=_time_and_steps(points))
    top.set_xlabel("env steps [million]")
    for axis, key in zip(axes[1:, 0], errors, strict=True):
        axis.plot(seconds, [row[key] for row in points], color="#555555", marker=".", markersize=4)
        axis.set(ylabel=key.removeprefix("eval_").replace("_", "\n"), ylim=(0, None))
    axes[-1, 0].set_xlabel("training time [s]")
    for axis in (*axes[:, 0], right):
        axis.spines["top"].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return True


def _time_and_steps(points: list[dict[str, Any]]) -> tuple:
    """Return the maps between training seconds and millions of env steps, at the run's mean rate."""
    rate = points[-1]["env_steps"] / max(points[-1]["train_seconds"], 1e-9) / 1e6
    return lambda s: s * rate, lambda m: m / rate
