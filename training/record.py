"""config.json: what a run was made with, so that it can be told, compared and repeated."""

import csv
import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import subprocess
from collections.abc import Collection
from typing import Any

import torch

from config import Config
from host import processor
from physics.jit import ROOT
from settings import ConfigError, flat, override
from training import distributed
from training.checkpoint import CHOSEN, config_of
from training.files import reason, written_whole
from training.runs import CONFIG, is_run

PACKAGES = "torch", "numba", "numpy"
MORE = "chosen", "provenance"  # beside the configuration


def commit() -> str:
    """Return the commit of this clone, and whether files differ from it; "" where there is none."""
    if not (ROOT / ".git").exists():
        return ""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + (" with other files" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def provenance() -> dict[str, str]:
    """Return what a run's numbers depend on beside its settings: versions, commit, processor and GPU."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return versions | {"python": platform.python_version(), "commit": commit(), "processor": processor(), "gpu": gpu}


def write(folder: pathlib.Path, cfg: Config, chosen: dict[str, Any]) -> None:
    """Write config.json; raise OSError where it cannot be.

    chosen: what the machine chose, by field.
    """
    more = dict(zip(MORE, (chosen, provenance()), strict=True))
    with written_whole(folder / CONFIG) as file:
        file.write((json.dumps(dataclasses.asdict(cfg) | more, indent=1) + "\n").encode())


def read(run: str, modules: Collection[str | None] = ()) -> tuple[Config, dict[str, Any], dict[str, str]]:
    """Return a run's configuration, what its machine chose, by field, and its provenance.

    run: its folder, or a config.json; modules: tasks and policies of one's own that may be imported for it.

    Raises ConfigError, naming the file, if there is none or it is damaged.
    """
    path = pathlib.Path(run)
    try:
        path = path / CONFIG if path.is_dir() else path
        saved = distributed.from_rank_0(lambda: json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError) as error:
        why = reason(error) if isinstance(error, OSError) else "that is no JSON"
        if path.suffix == ".pt" and is_run(path.parent):
            raise ConfigError(f"--from: expected the run's folder, {path.parent}") from None
        raise ConfigError(f"--from: expected the folder of a run, or its {CONFIG}, got {path!s:.80} ({why})") from None
    try:
        if not isinstance(saved, dict) or not all(isinstance(saved.get(name, {}), dict) for name in MORE):
            raise ConfigError("expected the settings of a run")
        chosen, origin = (saved.pop(name, {}) for name in MORE)
        if wrong := set(chosen) - CHOSEN:
            raise ConfigError(f"chosen: expected {', '.join(sorted(CHOSEN))}, got {sorted(wrong)[0]:.40}")
        cfg = config_of(saved, modules)
        override(cfg, chosen)
        return cfg, chosen, origin
    except (ConfigError, RecursionError) as error:
        raise ConfigError(f"--from: {path}: {error}") from None


def differences(then: dict[str, str], now: dict[str, str]) -> str:
    """Return in words what of a run's provenance is another now, "" for nothing."""
    found = [
        f"{name} {then[name] or 'none'!s:.60}, now {now[name] or 'none'}"
        for name in now
        if name in then and then[name] != now[name]
    ]
    return "; ".join(found)


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a run's folder tells of it.

    settings: "section.field": value, as written; evaluations: rows of metrics.csv that have one.
    """

    folder: pathlib.Path
    settings: dict[str, Any]
    evaluations: list[dict[str, float]]

    @classmethod
    def read(cls, folder: pathlib.Path) -> "Recorded":
        """Read a run's folder; raise ConfigError, naming it, if it is none."""
        try:
            saved = json.loads((folder / CONFIG).read_text())
            settings = flat({name: value for name, value in saved.items() if name not in MORE})
            if not isinstance(settings.get("task"), str):
                raise ValueError("task")
            with open(folder / "metrics.csv", newline="") as file:
                rows = [row for row in csv.DictReader(file) if row.get("eval_survival")]
            numbers = [{name: float(x) for name, x in row.items() if name and x} for row in rows]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            why = reason(error) if isinstance(error, OSError) else "damaged"
            raise ConfigError(
                f"{folder}: expected the folder of a run, with {CONFIG} and metrics.csv in it ({why})"
            ) from None
        return cls(folder, settings, numbers)

    @property
    def best(self) -> dict[str, float]:
        """The evaluation that came nearest to what the task asks for, with the largest return; {} without any."""
        return max(
            self.evaluations,
            key=lambda row: (row.get("eval_nearness", 0.0), row.get("eval_mean_return", 0.0)),
            default={},
        )

    @property
    def arrival(self) -> float | None:
        """Training time [s] until the first evaluation that passed what the task asks for, None if none did."""
        return next((row["train_seconds"] for row in self.evaluations if row.get("eval_nearness", 0.0) >= 1.0), None)
