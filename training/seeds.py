"""The same training with several seeds, a process each: in turn, or side by side where threads allow."""

import pathlib
import signal
import statistics
import subprocess
import threading
import time
import types
from typing import IO

from rich.console import Console

from config import Config
from host import available_cores
from settings import ConfigError
from training.display import say
from training.record import Recorded
from training.run import heeded
from training.runs import module, program


def without(arguments: list[str], option: str) -> list[str]:
    """Return a command line without an option and its values."""
    kept = []
    dropping = False
    for word in arguments:
        dropping = word == option or word.startswith(f"{option}=") or (dropping and not word.startswith("--"))
        if not dropping:
            kept.append(word)
    return kept


class Seeds:
    """Trainings that differ by their seeds alone.

    arguments: the command line, --seeds and all; cfg: what it asks for; console: for people.

    As many run at a time as find train.threads cores each; with 0, every core, one after the other.
    """

    def __init__(self, arguments: list[str], seeds: list[int], cfg: Config, console: Console) -> None:
        self.arguments = without(arguments, "--seeds")
        self.seeds = seeds
        self.cfg = cfg
        self.console = console
        self.at_once = min(len(seeds), max(1, available_cores() // cfg.train.threads)) if cfg.train.threads else 1
        self.running: dict[int, subprocess.Popen] = {}
        self.tellers: list[threading.Thread] = []
        self.signal = 0

    def go(self) -> int:
        """Train with every seed; return the first exit code that is not 0, else 0."""
        root = pathlib.Path(self.cfg.train.run_dir)
        known = set(root.glob("*"))
        codes: dict[int, int] = {}
        waiting = list(self.seeds)
        before = {number: signal.signal(number, self._pass_on) for number in heeded()}
        try:
            while self.running or (waiting and not self.signal):
                while waiting and not self.signal and len(self.running) < self.at_once:
                    self._start(waiting.pop(0))
                for seed, process in list(self.running.items()):
                    if process.poll() is not None:
                        codes[seed] = self.running.pop(seed).returncode
                time.sleep(0.05)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        for teller in self.tellers:
            teller.join()
        self._say_results(sorted(set(root.glob("*")) - known))
        return 128 + self.signal if self.signal else next((code for code in codes.values() if code), 0)

    def _start(self, seed: int) -> None:
        """Start a training; where others run beside it, its lines begin with its seed."""
        words = [*program(), *self.arguments, "--seed", str(seed)]
        alone = {"start_new_session": True}  # signals reach it through this process alone
        if self.at_once == 1:
            self._say(f"seed {seed}")
            self.running[seed] = subprocess.Popen(words, **alone)
            return
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        process = self.running[seed] = subprocess.Popen(words, stdin=subprocess.DEVNULL, **pipe, **alone)
        self.tellers.append(threading.Thread(target=self._tell, args=(seed, process.stdout)))
        self.tellers[-1].start()

    def _tell(self, seed: int, lines: IO[str]) -> None:
        for line in lines:
            self._say(f"seed {seed}: {line.rstrip()}")

    def _say(self, text: str) -> None:
        say(self.console, text)

    def _pass_on(self, number: int, frame: types.FrameType | None) -> None:
        """End every training in good order, and begin no other."""
        self.signal = number
        for process in list(self.running.values()):
            process.send_signal(number)

    def _say_results(self, folders: list[pathlib.Path]) -> None:
        """Say what every seed came to, and how to compare them."""
        found = []
        for folder in folders:
            try:
                run = Recorded.read(folder)
            except ConfigError:  # another's
                continue
            if run.settings.get("task") == self.cfg.task and run.settings.get("seed") in self.seeds:
                found.append(run)
        for run in sorted(found, key=lambda run: run.settings["seed"]):
            arrival = "" if run.arrival is None else f"at the mark after {run.arrival:.1f} s, "
            best = run.best
            said = (
                f"{arrival}best {100 * best['eval_survival']:.1f} % survived, return {best['eval_mean_return']:.4g}"
                if best
                else "not evaluated"
            )
            self._say(f"seed {run.settings['seed']}: {said}; {run.folder}")
        arrivals = [run.arrival for run in found if run.arrival is not None]
        if found and len(arrivals) == len(found):
            middle = statistics.median(arrivals)
            self._say(f"at the mark after {middle:.1f} s, the median; {max(arrivals):.1f} s, the worst")
        elif found:
            self._say(f"{len(arrivals)} of {len(found)} came to the mark")
        if sum(bool(run.evaluations) for run in found) > 1:
            self._say(f"compare them: {module('examples.compare')} {' '.join(str(run.folder) for run in found)}")
