"""Processes beside a training: with what its own processors leave idle, and gone when it is.

One runs main(told, answers) of a module: objects come pickled through told, whose end says that the training is over or
wants no more of it, and go through answers. A text is the last answer: why it has ended.
"""

import contextlib
import importlib
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import time
from typing import Any, BinaryIO

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATIENCE = 2.0  # with one that is to end, before it is killed [s]
GONE = OSError, EOFError, ValueError, pickle.UnpicklingError  # what receive() and send() raise of one that has ended


def start(module: str) -> subprocess.Popen:
    """Start a process that runs a module's main(); its stdin and stdout are for send() and receive()."""
    # A new interpreter: multiprocessing would import in it what this one was started with, 2.5 s of PyTorch.
    code = f"import sys; sys.path[0] = {str(ROOT)!r}; from training import beside; beside.run({module!r})"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def send(stream: BinaryIO, thing: Any) -> None:
    """Send an object through a pipe; raise one of GONE where nobody reads it."""
    pickle.dump(thing, stream)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Return the next object that comes through a pipe; raise one of GONE where nobody writes to it any more."""
    return pickle.load(stream)


def end(process: subprocess.Popen, patience: float = PATIENCE) -> None:
    """Let a process end, and kill it if it has not after some time [s]; again is harmless."""
    with contextlib.suppress(OSError):  # what was still to be written to one that is gone
        process.stdin.close()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run(module: str) -> None:
    """Be the process that start() starts."""
    if hasattr(os, "setpgid"):  # a terminal's Ctrl-C is the training's alone
        os.setpgid(0, 0)
    told, answers = (os.fdopen(os.dup(number), mode) for number, mode in ((0, "rb"), (1, "wb")))
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):  # others' code may write to the one, and processes of its own may keep the other
        os.dup2(nothing, number)
    try:
        importlib.import_module(module).main(told, answers)
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        pass
    except Exception as error:
        with contextlib.suppress(OSError):
            send(answers, str(error).partition("\n")[0] or type(error).__name__)
    os._exit(0)  # a thread may be waiting for more, which Python would wait for


def step_back() -> None:
    """Take from now on what time others leave."""
    if sys.platform == "win32":
        import psutil

        psutil.Process().nice(psutil.IDLE_PRIORITY_CLASS)
    else:
        os.nice(19)
        # With nice alone, who wakes up waits for the slice of who is drawing to end: a rollout's threads wake up often,
        # and an iteration with a window took 1.5 times as long.
        with contextlib.suppress(OSError, AttributeError):  # where a process may not choose, or there is no such choice
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


class Pace:
    """Rests between pieces of work, so that this process takes no more than a share of all cores.

    Priority is not enough: cores share caches, and two of them a core's units. On two cores of an AMD EPYC an iteration
    took 1.05 times as long with a window that drew 10 % of the time, 1.09 with a clip being drawn without a rest.

    share: of all cores; longest: rest [s]
    """

    def __init__(self, share: float, longest: float = 1.0) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.hurried = threading.Event()  # no rest from now on
        self._rest = max(0.0, 1.0 / (share * cores) - 1.0)  # per time worked
        self._longest = longest
        self._begun = time.process_time()

    def rest(self) -> None:
        """Rest for what was done since the last call."""
        worked = time.process_time() - self._begun
        self.hurried.wait(min(self._longest, self._rest * worked))
        self._begun = time.process_time()
