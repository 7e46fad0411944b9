"""What every benchmark shares: the machine it ran on, repetition, the table, the JSON line."""

import argparse
import csv
import importlib
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from host import available_cores, processor
from physics.jit import ROOT


def required(name: str) -> ModuleType:
    """Return another's package; end with a line that says how to install it where it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        print(f"{_program()}: expected the package {name}: pip install {name}", file=sys.stderr)
        sys.exit(2)


def checkout(commit: str, folder: Path) -> Path:
    """Return a folder, made in another, with the sources of a commit.

    Ends with exit code 2 and one line where there is no such commit.
    """
    archive = folder / f"{commit}.tar"
    command = ["git", "-C", str(ROOT), "archive", "-o", str(archive), commit]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{_program()}: expected a clone with commit {commit} ({done.stderr.strip()})", file=sys.stderr)
        raise SystemExit(2)
    with tarfile.open(archive) as tar:
        tar.extractall(folder / commit, filter="data")
    return folder / commit


def _program() -> str:
    return "benchmarks." + sys.argv[0].rpartition("/")[2].removesuffix(".py")


def describe(*packages: str) -> dict[str, object]:
    """Return cpu, cores and versions, those of the named packages and of Python."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "cpu": processor(),
        "cores": available_cores(),
        "versions": versions | {"python": platform.python_version()},
    }


def interleaved(contestants: dict[str, Callable[[], float]], repetitions: int) -> dict[str, float]:
    """Run contestants in turn, A B A B, and return each one's median result.

    A shared machine changes its pace over seconds; in turn, all contestants see the same changes.
    Each runs once before, unrecorded, to be warm.
    """
    for run in contestants.values():
        run()
    results: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repetitions):
        for name, run in contestants.items():
            results[name].append(run())
    return {name: statistics.median(values) for name, values in results.items()}


def paired_ratio(over: Callable[[], float], under: Callable[[], float], repetitions: int) -> float:
    """Return the median of the ratios of results that followed upon each other: a shared machine's pace drops out."""
    return statistics.median(over() / under() for _ in range(repetitions))


def metrics(folder: Path) -> list[dict[str, float]]:
    """Return the rows of metrics.csv of the only training that was run in a folder, without what a row leaves out."""
    (path,) = folder.glob("runs/*/metrics.csv")
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def pace(rows: list[dict[str, float]]) -> float:
    """Return trained env steps per second of the rows of metrics(), after the first tenth of the iterations."""
    first = rows[len(rows) // 10]
    steps, seconds = (rows[-1][name] - first[name] for name in ("env_steps", "train_seconds"))
    return steps / seconds


def parser(description: str) -> argparse.ArgumentParser:
    """Return a command line with the options of every benchmark, --json and --quick."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options.add_argument("--quick", action="store_true", help="fewer repetitions of the same work")
    return options


def table(title: str, rows: Sequence[Sequence[object]], machine: dict[str, object]) -> None:
    """Print rows under a title, columns aligned, the first row as heading, and the machine below."""
    text = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))]
    print(title)
    for row in text:
        print(
            "  "
            + "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    print(f"  {machine['cpu']}, {machine['cores']} cores; {versions}\n")


def print_json(result: dict[str, object]) -> None:
    """Print a result as one line."""
    print(json.dumps(result))
    sys.stdout.flush()
