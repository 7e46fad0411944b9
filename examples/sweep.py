"""Search for settings that learn faster, by Optuna.

    python -m examples.sweep ppo.learning_rate=1e-4..2e-3 ppo.minibatches=4,8,16 --task quadruped-balance --trials 20

Fields are those of simulate.py, with two bounds, or values to choose from; bounds that are a factor of ten or more
apart are searched by their logarithms. Every trial is a run of its own in --runs, with each of --seeds; what is made as
large as possible is how near its evaluations come to what the task asks for (eval_nearness), their mean over the run:
what arrives early has most. Trials that lag behind are stopped. Other options are simulate.py's own and the same for
all trials. A folder has one search: the same command goes on with it, by --trials more.
"""

import argparse
import csv
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from environments import registry
from settings import ConfigError, expected, fits, knobs, parse, sections, suggest
from training import runs

DECADE = 10  # times the lower bound, from which on a range is searched by its logarithm


class Field:
    """A field of the configuration and where to search: "name=low..high" or "name=a,b,c".

    Raises ConfigError for another text, an unknown field, or values that it does not take.
    """

    def __init__(self, text: str, known: dict[str, Any]) -> None:
        self.name, equals, places = text.partition("=")
        if not equals:
            raise ConfigError(f"{self.name}: expected FIELD=LOW..HIGH or FIELD=A,B,C")
        if self.name not in known:
            raise ConfigError(f"{self.name}: unknown field; {suggest(self.name, known, 'see simulate.py --help all')}")
        field = known[self.name]
        self.bounded = ".." in places
        words = places.split("..") if self.bounded else places.split(",")
        self.values = [parse(field, word, self.name) for word in words]
        if wrong := [value for value in self.values if not fits(value, field)]:
            raise ConfigError(f"{self.name}: expected {expected(field)}, got {wrong[0]}")
        if self.bounded and (field.type not in (int, float) or len(words) != 2 or self.values[0] >= self.values[1]):
            raise ConfigError(f"{self.name}: expected low..high of a number, got {places}")

    def suggest(self, trial: Any) -> Any:
        """Return a value that a trial of Optuna's is to try."""
        if not self.bounded:
            return trial.suggest_categorical(self.name, self.values)
        low, high = self.values
        way = trial.suggest_int if isinstance(low, int) else trial.suggest_float
        return way(self.name, low, high, log=low > 0 and high >= DECADE * low)


def nearness(folder: pathlib.Path) -> list[float]:
    """Return how near the evaluations of the runs in a folder have come, as far as they are written."""
    found = []
    for path in folder.glob("*/metrics.csv"):
        with open(path, newline="") as file:
            found += [float(row["eval_nearness"]) for row in csv.DictReader(file) if row.get("eval_nearness")]
    return found


def train(folder: pathlib.Path, options: list[str], lags: Any) -> float:
    """Train in a folder; return the mean nearness of its evaluations; raise what lags(values so far) raises.

    Raises ConfigError, with its last line, if a training fails.
    """
    command = [*runs.program(), *options, "--train.run_dir", str(folder)]
    with tempfile.TemporaryFile("w+") as told:
        # a Ctrl-C reaches it through this process alone
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True)
        try:
            while process.poll() is None:
                time.sleep(0.2)
                lags(nearness(folder))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait()
        told.seek(0)
        if process.returncode not in (0, 3):  # 3: it did not recover, and is as bad as that
            raise ConfigError((told.read().strip().splitlines() or ["a training failed"])[-1])
    values = nearness(folder)
    return statistics.mean(values) if values and process.returncode == 0 else 0.0


def main(arguments: list[str] | None = None) -> int:
    """Search and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="examples.sweep", allow_abbrev=False)
    parser.add_argument("fields", nargs="+", metavar="FIELD=LOW..HIGH|A,B,C", help="where to search")
    parser.add_argument("--task", default="quadruped-balance", help="task to train")
    parser.add_argument("--trials", type=int, default=20, help="settings to try")
    parser.add_argument("--seeds", nargs="+", default=["0"], metavar="N", help="seeds of each")
    parser.add_argument("--runs", default="sweep", metavar="FOLDER", help="where runs go, and what was found")
    args, options = parser.parse_known_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        import optuna
    except ImportError:
        print("examples.sweep: expected the package optuna: pip install optuna", file=sys.stderr)
        return 2
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    root = pathlib.Path(args.runs)
    try:
        cfg = registry.default_rl_cfg(args.task)
        known = {f"{name}.{field.name}": field for name, section in sections(cfg).items() for field in knobs(section)}
        fields = [Field(text, known) for text in args.fields]
        if args.trials < 1:
            raise ConfigError(f"--trials: expected a whole number of at least 1, got {args.trials}")
        root.mkdir(parents=True, exist_ok=True)
        asked = {"fields": args.fields, "task": args.task, "seeds": args.seeds, "options": options}
        search = root / "search.json"
        if search.exists() and json.loads(search.read_text()) != asked:
            raise ConfigError(f"--runs: expected a folder of its own, {root} has another search: {search.read_text()}")
        search.write_text(json.dumps(asked))
        study = optuna.create_study(
            study_name=args.task,
            storage=f"sqlite:///{root / 'study.db'}",
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=len(list(root.glob("trial-*")))),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
        )

        def objective(trial: Any) -> float:
            chosen = {field.name: field.suggest(trial) for field in fields}
            words = [word for name, value in chosen.items() for word in (f"--{name}", str(value))]
            scores = []
            step = 0

            def lags(values: list[float]) -> None:
                nonlocal step
                while step < len(values):
                    trial.report(statistics.mean(values[: step + 1]), step)
                    step += 1
                    if len(args.seeds) == 1 and trial.should_prune():
                        raise optuna.TrialPruned

            for seed in args.seeds:
                folder = root / f"trial-{trial.number}" / seed
                more = ["--task", args.task, "--seed", seed, *words, *options]
                scores.append(train(folder, more, lags))
            shown = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                              for name, value in chosen.items())  # fmt: skip
            print(f"trial {trial.number}: nearness {statistics.mean(scores):.3f} with {shown}", flush=True)
            return statistics.mean(scores)

        study.optimize(objective, n_trials=args.trials)
    except (ConfigError, OSError) as error:
        print(f"examples.sweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"examples.sweep: stopped; the same command goes on with what {root} has", file=sys.stderr)
        return 130
    best = study.best_trial
    if not best.value:
        print(f"none of {len(study.trials)} trials came near what {args.task} asks for: expected more --iterations")
        return 0
    words = " ".join(f"--{name} {value}" for name, value in best.params.items())
    print(f"best of {len(study.trials)}, mean nearness {best.value:.3f}:")
    print(" ".join([runs.command(), "--task", args.task, *options, words]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
