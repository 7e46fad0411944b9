"""The progress of a run on the terminal: a live panel, or plain lines where nobody watches; and of a recording."""

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


class Lasting:
    """A stream whose reader may go away: what cannot be written any more is lost, and nothing else is."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text as far as that goes; return its length."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what there is to be."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def say(console: Console, text: str) -> None:
    """Print a line for people, its brackets no markup and its paths whole."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep to itself what others print, log and warn of."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def seconds_text(seconds: float) -> str:
    """Return a duration as 8 s, 1:05 or 2:03:04."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, s = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"


def count_text(count: float) -> str:
    """Return a number of steps with three digits: 512, 14.3 k, 3.28 M."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if count >= 0.9995 * unit:
            x = count / unit
            return f"{x:.{2 if x < 9.995 else 1 if x < 99.95 else 0}f}{name}"
    return f"{count:.0f}"


@contextlib.contextmanager
def counted(console: Console, frames: Iterable[None], most: int) -> Iterator[Iterable[None]]:
    """Give the frames of a recording, and on a terminal a line that counts them and goes as they end.

    most: frames that there can be
    """
    if not console.is_terminal:
        yield frames
        return
    with Progress(TextColumn("recording"), BarColumn(16), _Counts(), console=console, transient=True) as progress:
        yield progress.track(frames, total=most)


class _Counts(ProgressColumn):
    def render(self, task: Task) -> Text:
        left = "" if task.time_remaining is None else f", {seconds_text(task.time_remaining)} left"
        return Text(f"{task.completed:.0f}/{task.total:.0f} frames, {task.speed or 0:.0f} frames/s{left}", no_wrap=True)


BARS = " ▁▂▃▄▅▆▇█"
SHOWN = 5  # terms of the reward that the panel shows, the largest
OUTSIDE = 0.01  # share of values beyond the range of the critics from which it is said


class Display:
    """Shows iteration, speed, return, survival, what else the task asks for, and time left while training."""

    def __init__(self, iterations: int, console: Console, targets: tuple[str, ...] = ()) -> None:
        self.iterations = iterations
        self.console = console
        self.targets = targets
        self._values: dict[str, Any] = {}
        self._last_line = -1e9
        self._live = (
            Live(self._panel(), console=console, refresh_per_second=8, transient=False) if console.is_terminal else None
        )
        if self._live:
            self._live.start()

    def update(self, values: dict[str, Any]) -> None:
        """Show new values: iteration, env_steps, train_seconds, rate, left and what the run measured."""
        self._values |= values
        if self._live:
            self._live.update(self._panel())
        elif time.monotonic() - self._last_line > 5.0 or "eval_survival" in values:
            self._last_line = time.monotonic()
            self.console.print(
                "  ".join(f"{label} {text}" for label, text in (*self.rows(), *self._warnings())),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def close(self) -> None:
        """Leave the last picture standing."""
        if self._live:
            self._live.stop()

    def rows(self) -> list[tuple[str, str]]:
        """Return how far the run is and what it has reached: label and value."""
        v = self._values
        formats = (
            ("iteration", "iteration", lambda x: f"{x}/{self.iterations}"),
            ("env steps", "env_steps", count_text),
            ("env steps/s", "rate", count_text),
            ("return", "return", lambda x: f"{x:.1f}"),
            ("level", "level", self._levels),
            ("survival", "eval_survival", lambda x: f"{100 * x:.1f} %"),
            *((name.replace("_", " "), f"eval_{name}", "{:.3g}".format) for name in self.targets),
            ("trained", "train_seconds", seconds_text),
            ("left", "left", seconds_text),
        )
        return [(label, show(v[key])) for label, key, show in formats if key in v]

    def _levels(self, mean: float) -> str:
        """Return the mean level of the terrain, and a bar for the share of robots at each."""
        shares = [x for name, x in self._values.items() if name.startswith("level_")]
        most = max(shares)
        return f"{mean:.1f} of {len(shares) - 1} " + "".join(BARS[round(x / most * (len(BARS) - 1))] for x in shares)

    def _details(self) -> list[tuple[str, str]]:
        v = self._values
        terms = sorted((key for key in v if key.startswith("reward_")), key=lambda key: -abs(v[key]))[:SHOWN]
        rows = [(key.replace("_", " "), f"{v[key]:+.3g} /s") for key in terms]
        ends = [key for key in v if key.startswith("end_") and v[key] > 0.0005]
        causes = ", ".join(f"{key.removeprefix('end_').replace('_', ' ')} {v[key]:.1%}" for key in ends)
        return rows + ([("ends by", causes)] if ends else [])

    def _warnings(self) -> list[tuple[str, str]]:
        skipped = self._values.get("skipped_gradients")
        outside = self._values.get("values_outside", 0.0)
        return [
            *([("skipped gradients", f"{skipped}")] if skipped else []),
            *([("outside sac.values", f"{outside:.0%}")] if outside > OUTSIDE else []),
        ]

    def _panel(self) -> Panel:
        grid = Table.grid(padding=(0, 2))
        rows = [*self.rows(), *self._details(), *self._warnings()]
        for label, text in rows:
            grid.add_row(Text(label, style="dim"), Text(text, style="bold"))
        bar = ProgressBar(
            total=self.iterations,
            completed=self._values.get("iteration", 0),
            complete_style="cyan",
            finished_style="green",
        )
        body = Group(bar, Text(), grid) if rows else Group(bar, Text("first iteration", style="dim"))
        return Panel(body, title="Foal", title_align="left", width=56, border_style="cyan")
