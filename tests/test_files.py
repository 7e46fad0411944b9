"""What a run has saved is whole and there, whatever happens: a full disk, a folder that cannot be written, a kill."""

import builtins
import errno
import os
import random
import signal
import subprocess
import sys
import time
from itertools import count

import pytest
from commands import ROOT, called

import simulate
from training import checkpoint
from training import run as run_module
from training.engine import TrainingEngine

SMALL = (
    "--train.num_envs", "64", "--train.eval_episodes", "8", "--env.max_episode_seconds", "0.3", "--train.eval_every",
    "2", "--train.save_every", "0",
)  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch, threads_as_before):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def all_whole(folder):
    """Return the iterations of all checkpoints there are; raise ConfigError if one is not whole."""
    assert not list(folder.rglob(".*.partial"))
    return {path.name: checkpoint.load(path).progress["iteration"] for path in folder.rglob("*.pt")}


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("at", ["open", "fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(here, monkeypatch, at, kind):
    """Let every write but the first few fail, at each of its steps."""
    done = called(simulate.main, [*SMALL, "--iterations", "2"], monkeypatch)
    assert done.code == 0, done.err
    before = all_whole(here)
    assert before == {"latest.pt": 2, "best.pt": 2, "iteration-2.pt": 2}
    place = vars(builtins) if at == "open" else vars(os)
    plain = place[at]
    calls = count()
    first = 4 if at == "fsync" else 2  # config.json and metrics.csv, their folder synchronised as well

    def fails(*arguments, **more):
        if at != "open" or (str(arguments[0]).endswith(".partial") and next(calls) > 1):
            raise OSError(kind, os.strerror(kind))
        return plain(*arguments, **more)

    def first_fails(*arguments, **more):
        return plain(*arguments, **more) if next(calls) < first else fails(*arguments, **more)

    monkeypatch.setitem(place, at, fails if at == "open" else first_fails)
    done = called(simulate.main, ["--resume", "--iterations", "4"], monkeypatch)
    monkeypatch.undo()
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    assert done.err.count(f"latest.pt: {os.strerror(kind)}; going on") == 1
    assert all_whole(here) == before


def test_a_folder_that_cannot_be_written_is_told_of_before_training(here, monkeypatch):
    (here / "file").touch()
    for name, more in (("train.run_dir", ["--train.run_dir", "file"]), ("--checkpoint", ["--checkpoint", "file/c.pt"])):
        done = called(simulate.main, [*SMALL, *more], monkeypatch)
        assert done.code == 2
        assert done.err.splitlines()[-1].startswith(f"simulate.py: {name}: expected a f")


def test_a_kill_at_any_moment_leaves_a_run_to_go_on_with(tmp_path):
    pick = random.Random(0)
    reached = 0
    for attempt in range(3):
        command = [sys.executable, str(ROOT / "simulate.py"), *SMALL, "--iterations", "100000"]
        more = ["--resume"] if attempt else []
        process = subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        for line in process.stderr:
            if line.startswith("iteration"):
                break
        time.sleep(pick.uniform(0.1, 0.5))
        process.kill()
        process.communicate()
        partial = [path.unlink() for path in tmp_path.rglob(".*.partial")]
        assert len(partial) <= 1
        found = all_whole(tmp_path)
        assert found["latest.pt"] > reached
        reached = found["latest.pt"]
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.fixture
def as_by_default():
    """Let signals do what they do by default, whatever those who started the tests made of them: nohup, a shell's &."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = [signal.signal(n, signal.default_int_handler if n == signal.SIGINT else signal.SIG_DFL) for n in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_saved(here, monkeypatch, as_by_default, number):
    plain = TrainingEngine.iterate

    def iterate(self):
        if self.env_steps > 3 * 16 * 64:
            os.kill(os.getpid(), number)
        return plain(self)

    monkeypatch.setattr(TrainingEngine, "iterate", iterate)
    start = time.monotonic()
    done = called(simulate.main, [*SMALL, "--iterations", "100000", "--train.save_every", "1000"], monkeypatch)
    assert time.monotonic() - start < 20
    assert done.code == 128 + number, done.err
    assert all_whole(here)["latest.pt"] == 5
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def test_a_hangup_that_nohup_keeps_away_ends_nothing(as_by_default):
    assert set(run_module.heeded()) == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    assert set(run_module.heeded()) == {signal.SIGINT, signal.SIGTERM}


def test_no_iteration_begins_after_a_signal_in_an_evaluation(here, monkeypatch):
    plain = run_module.evaluate
    calls = count(1)

    def signalled(*arguments):
        if next(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*arguments)

    monkeypatch.setattr(run_module, "evaluate", signalled)
    done = called(simulate.main, [*SMALL, "--iterations", "100000"], monkeypatch)
    assert done.code == 143, done.err
    found = all_whole(here)
    # evaluations are two at a time, every other iteration
    assert found["latest.pt"] == found["iteration-4.pt"] == 4


@pytest.mark.parametrize("where", ["iterate", "evaluate"])
def test_a_signal_does_not_wait_for_what_takes_long(here, monkeypatch, where):
    monkeypatch.setattr(run_module, "GRACE", 0.2)
    place, name = (TrainingEngine, "collect_trajectory") if where == "iterate" else (run_module, "evaluate")
    plain = getattr(place, name)
    calls = count(1)

    def slow(*arguments):
        if next(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(3000):
                time.sleep(0.01)
        return plain(*arguments)

    monkeypatch.setattr(place, name, slow)
    start = time.monotonic()
    done = called(simulate.main, [*SMALL, "--iterations", "100000"], monkeypatch)
    assert time.monotonic() - start < 15
    assert done.code == 143, done.err
    found = all_whole(here)
    (folder,) = (here / "runs").iterdir()
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    if where == "iterate":  # as it was before the one that took long
        assert found["latest.pt"] == 2
        assert len(rows) == 2
    else:  # whose row follows once it is evaluated
        assert found["latest.pt"] == len(rows) + 1
    monkeypatch.undo()
    monkeypatch.chdir(here)
    done = called(simulate.main, ["--resume", "--iterations", "1"], monkeypatch)
    assert done.code == 0, done.err
    assert [int(row.split(",")[0]) for row in (folder / "metrics.csv").read_text().splitlines()[1:]] == list(
        range(1, found["latest.pt"] + 2)
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_who_read_what_it_says_may_leave_first(tmp_path, number):
    """As of `2>&1 | tee log`, which Ctrl-C ends too, or of a terminal that was closed."""
    more = "--iterations", "100000", "--train.save_every", "1000"
    command = [sys.executable, str(ROOT / "simulate.py"), *SMALL, *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        for line in process.stderr:
            if line.startswith("iteration"):
                break
        process.stderr.close()
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    (saved,) = tmp_path.glob("runs/*/latest.pt")
    loaded = checkpoint.load(saved)
    with open(saved.with_name("metrics.csv")) as file:  # the last row waits for an evaluation, if there is to be one
        assert loaded.progress["iteration"] - bool(loaded.run["waiting"]) == len(file.readlines()) - 1
