"""What a run leaves behind: metrics.csv, TensorBoard events, config.json, curve.png."""

import contextlib
import csv
import dataclasses
import importlib
import io
import os
import pathlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from config import Config
from settings import ConfigError, flat
from training import record
from training.files import written_whole

GROUPS = "eval", "reward", "end"  # metrics of these beginnings are shown together
COMMON = {
    "eval_survival",
    "eval_mean_return",
    "eval_episodes",
    "eval_episode_seconds",
    "eval_nearness",
}  # what evaluations of every task tell


class Logger:
    """Writes a run's metrics to a folder, a row per iteration.

    The columns of metrics.csv are the union of all metrics seen, empty where a row has none; the
    file is rewritten when a new one appears: at the first evaluation, at the first sample of a GPU.

    iteration, env_steps: that a run goes on from; what its folder has of later ones is forgotten. chosen: what the
    machine chose, by name.
    """

    def __init__(
        self, folder: pathlib.Path, cfg: Config, iteration: int = 0, env_steps: int = 0, chosen: dict | None = None
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter  # half a second to import

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.csv"
        self.points: list[dict[str, Any]] = []  # rows with an evaluation
        self._columns: list[str] = []
        record.write(folder, cfg, chosen or {})
        if self.path.exists():
            self._forget_after(iteration)
        self._board = SummaryWriter(str(folder), purge_step=env_steps + 1 if iteration else None)
        self._tracker = start_tracker(cfg, folder)

    def log(self, metrics: dict[str, Any]) -> None:
        """Add a row; metrics has "iteration" and "env_steps". Raises OSError where it cannot be written."""
        if "eval_survival" in metrics:
            self.points.append(metrics)
        new = [key for key in metrics if key not in self._columns]
        if new:
            self._rewrite(lambda row: True, [*self._columns, *new])
        self._append(metrics)
        grouped = {grouped_name(key): value for key, value in metrics.items() if key not in ("iteration", "env_steps")}
        for name, value in grouped.items():
            self._board.add_scalar(name, value, metrics["env_steps"])
        if self._tracker:
            self._tracker.log(grouped | {"env_steps": metrics["env_steps"]}, step=metrics["iteration"])

    def log_clip(self, env_steps: int, gif: bytes, size: tuple[int, int]) -> None:
        """Add a moving picture, of size (width, height) [px], for TensorBoard to show."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        # as SummaryWriter.add_video() has it, which encodes the picture itself and needs moviepy for that
        image = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=gif)
        self._board.file_writer.add_summary(Summary(value=[Summary.Value(tag="clip", image=image)]), env_steps)

    def close(self) -> None:
        """Finish the files and draw the learning curve, if anything was evaluated."""
        try:
            plot_curve(self.points, self.path.with_name("curve.png"))
        finally:
            self._board.close()
            if self._tracker:
                self._tracker.finish()

    def _rows(self) -> Iterator[dict[str, str]]:
        """Give what metrics.csv has, a row at a time."""
        if self.path.exists():
            with open(self.path, newline="") as file:
                yield from csv.DictReader(file)

    def _append(self, row: dict[str, Any]) -> None:
        """Add a row, whole or not at all; raise OSError where it cannot be."""
        size = self.path.stat().st_size
        try:
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)
            raise

    def _rewrite(self, wanted: Callable[[dict[str, str]], bool], columns: list[str]) -> None:
        """Write metrics.csv anew, with these columns and the rows that are wanted."""
        with written_whole(self.path) as file:
            text = io.TextIOWrapper(file, newline="", write_through=True)
            writer = csv.DictWriter(text, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row for row in self._rows() if wanted(row))
            text.detach()
        self._columns = columns

    def _forget_after(self, iteration: int) -> None:
        """Take up the rows that a run has written up to an iteration; a row that was cut off is none."""

        def kept(row: dict[str, str]) -> bool:
            number = row.get("iteration") or ""
            return number.isdecimal() and int(number) <= iteration and None not in row.values()

        rows = [row for row in self._rows() if kept(row)]
        columns = list(next(iter(rows), {}))
        self.points = [
            {key: float(value) for key, value in row.items() if value} for row in rows if row.get("eval_survival")
        ]
        self._rewrite(kept, columns)


def grouped_name(metric: str) -> str:
    """Return a metric's name as boards show it, those of a group together."""
    group, _, name = metric.partition("_")
    return f"{group}/{name}" if group in GROUPS and name else metric


def require_tracker(cfg: Config) -> ModuleType | None:
    """Return the package that runs are shown by beside TensorBoard, None for none; raise ConfigError without it."""
    name = cfg.train.tracker
    if not name:
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"train.tracker: expected the package {name}: pip install {name}") from None


def start_tracker(cfg: Config, folder: pathlib.Path) -> ModuleType | None:
    """Show a run, a new one or one that goes on, in Weights & Biases or Trackio, whose functions have the same names.

    Returns the package; raises ConfigError, with its words, where it refuses.
    """
    package = require_tracker(cfg)
    if package:
        same = {"id": folder.name} if cfg.train.tracker == "wandb" else {}  # Trackio tells runs by their names
        settings = flat(dataclasses.asdict(cfg))
        try:
            package.init(project="foal", name=folder.name, config=settings, resume="allow", **same)
        except Exception as error:  # whatever a service may raise that it is not logged in to
            raise ConfigError(f"train.tracker: {cfg.train.tracker}: {str(error).partition(chr(10))[0]:.200}") from None
    return package


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
    right.set(ylabel="mean return", ylim=_with_zero(right))
    lines = left.get_lines()[:1] + right.get_lines()
    left.legend(lines, [line.get_label() for line in lines], loc="lower right", frameon=False)
    top = left.secondary_xaxis("top", functions=_time_and_steps(points))
    top.set_xlabel("env steps [million]")
    for axis, key in zip(axes[1:, 0], errors, strict=True):
        axis.plot(seconds, [row[key] for row in points], color="#555555", marker=".", markersize=4)
        axis.set(ylabel=key.removeprefix("eval_").replace("_", "\n"), ylim=_with_zero(axis))
    axes[-1, 0].set_xlabel("training time [s]")
    for axis in (*axes[:, 0], right):
        axis.spines["top"].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return True


def _with_zero(axis: Any) -> tuple[float, float]:
    """Return the limits of an axis, widened to show 0."""
    low, high = axis.get_ylim()
    return (low if low < 0 and any(min(line.get_ydata()) < 0 for line in axis.get_lines()) else 0.0), max(high, 0.0)


def _time_and_steps(points: list[dict[str, Any]]) -> tuple:
    """Return the maps between training seconds and millions of env steps, at the run's mean rate."""
    rate = points[-1]["env_steps"] / max(points[-1]["train_seconds"], 1e-9) / 1e6
    return lambda s: s * rate, lambda m: m / rate
