"""Runs are repeated from what they were made with, in several seeds, compared and shown elsewhere."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest
import torch
from rich.console import Console
from small import installed, write_run

from examples import compare
from settings import ConfigError
from simulate import main, run
from training import checkpoint, record, runs, tree
from training.logger import Logger
from training.presets import preset
from training.seeds import without

ROOT = pathlib.Path(__file__).resolve().parent.parent
TINY = ["--task", "cartpole", "--iterations", "3", "--train.num_envs", "64", "--train.eval_every", "2",
        "--train.eval_episodes", "8", "--env.max_episode_seconds", "0.5"]  # fmt: skip
TIMES = "train_seconds", "rate", "collect_seconds", "update_seconds"


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: x for name, x in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def refused(arguments, monkeypatch, capsys):
    """Return the line that a command ends with."""
    monkeypatch.setattr(sys, "argv", ["simulate.py", *arguments])
    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("simulate.py: ")


@pytest.mark.usefixtures("threads_as_before")
def test_a_run_is_repeated_to_the_last_bit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run([*TINY, "--seed", "3", "--train.threads", "1", "--ppo.clip", "0.3"], Console(quiet=True)) == 0
    (first,) = tmp_path.glob("runs/*")
    saved = json.loads((first / "config.json").read_text())
    assert saved["chosen"]["train.threads"] == 1
    origin = saved["provenance"]
    assert origin["torch"] and origin["processor"] and (origin["commit"] or not (ROOT / ".git").exists())
    assert run(["--from", str(first), "--train.run_dir", "again"], Console(stderr=True)) == 0
    (second,) = tmp_path.glob("again/*")
    assert rows(first) == rows(second)
    assert "other than in" not in capsys.readouterr().err
    numba = origin["numba"]
    saved["provenance"]["numba"] = "0.1"
    (first / "config.json").write_text(json.dumps(saved))
    assert run(["--from", str(first), "--seed", "4", "--iterations", "1"], Console(stderr=True, width=200)) == 0
    assert f"other than in {first}: numba 0.1, now {numba}" in capsys.readouterr().err


def test_what_cannot_be_repeated_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    saved = json.loads(path.read_text())
    for change, expected in (
        ("{", "--from: expected the folder of a run, or its config.json, got run/config.json (that is no JSON)"),
        ("[]", "--from: run/config.json: expected the settings of a run"),
        (json.dumps(saved | {"task": "own:task"}), "expected --task own:task"),
        (json.dumps(saved | {"ppo": {"clip": 7e9}}), "--from: run/config.json: ppo.clip: expected a number"),
        (
            json.dumps(saved | {"chosen": {"x": 1}}),
            "chosen: expected train.num_envs, train.precision, train.threads, got x",
        ),
        (json.dumps(saved | {"chosen": 3}), "expected the settings of a run"),
    ):
        path.write_text(change)
        assert expected in refused(["--from", "run"], monkeypatch, capsys)
    assert refused(["--from", "nowhere"], monkeypatch, capsys).startswith("--from: expected the folder of a run")
    path.write_text(json.dumps(saved))
    assert refused(["--from", "run", "--task", "navigation"], monkeypatch, capsys).startswith("--task: expected cart")
    for option in ("--eval", "--resume"):
        assert refused(["--from", "run", option], monkeypatch, capsys) == f"--from: expected without {option}"
    assert refused(["--seeds", "1", "--seed", "1"], monkeypatch, capsys) == "--seeds: expected without --seed"
    assert "--seeds: expected a whole number between 0" in refused(["--seeds", "1", "-1"], monkeypatch, capsys)
    (tmp_path / "there").touch()
    assert refused(["--resume", "there"], monkeypatch, capsys) == (
        "there: expected options alone; a file or a run is named by --checkpoint there"
    )
    assert "unknown option" in refused(["9" * 400], monkeypatch, capsys)
    assert not (tmp_path / "runs").exists()


def test_seeds_train_side_by_side_and_end_in_good_order(tmp_path):
    command = [sys.executable, ROOT / "simulate.py", *TINY, "--seeds", "5", "6", "--train.threads", "1"]
    command += ["--iterations", "100000", "--train.eval_every", "0"]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 120
    while len(list(tmp_path.glob("runs/*/metrics.csv"))) < min(2, os.cpu_count() or 1):
        assert running.poll() is None and time.monotonic() < give_up, running.communicate()
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    told = running.communicate(timeout=60)[1]
    assert running.returncode == 128 + signal.SIGTERM
    folders = sorted(tmp_path.glob("runs/*"))
    assert sorted(json.loads((f / "config.json").read_text())["seed"] for f in folders) == [5, 6][: len(folders)]
    assert all((folder / "latest.pt").exists() for folder in folders)
    for seed in (5, 6)[: len(folders)]:
        assert f"seed {seed}: task cartpole" in told
        assert f"seed {seed}: not evaluated" in told


def trained(tmp_path, *more):
    """Train a little; return the only run's folder."""
    assert run([*TINY, "--train.threads", "1", *more], Console(quiet=True)) == 0
    (folder,) = tmp_path.glob("runs/*")
    return folder


@pytest.mark.usefixtures("threads_as_before")
def test_going_on_keeps_what_was_best_and_what_was_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = trained(tmp_path)
    (folder / "iteration-2-good.pt").write_bytes((folder / "iteration-2.pt").read_bytes())
    latest = torch.load(folder / "latest.pt", weights_only=True)
    latest["run"] |= {"best": dict(latest["progress"], survival=1.0, mean_return=1e6, episodes=8), "rank": [1.0, 1e6]}
    latest["digest"] = tree.digest({part: latest[part] for part in checkpoint.PARTS})
    torch.save(latest, folder / "latest.pt")
    best = (folder / "best.pt").read_bytes()
    # with other threads: robots begin anew, the best one stays
    again = ["--resume", "--task", "cartpole"]
    assert run([*again, "--iterations", "2", "--train.threads", "2"], Console(stderr=True)) == 0
    assert "with episodes begun anew" in capsys.readouterr().err
    assert (folder / "best.pt").read_bytes() == best
    assert (folder / "iteration-2-good.pt").exists()
    saved = json.loads((folder / "config.json").read_text())
    assert saved["train"]["iterations"] == 5
    assert (saved["train"]["precision"], saved["train"]["threads"]) == ("auto", 2)
    assert refused(again, monkeypatch, capsys).endswith("is finished; --iterations N takes N iterations more")
    # another reward, ground or length of episodes: another run
    changed = ["--resume", "--checkpoint", str(folder), "--env.max_episode_seconds", "0.4", "--train.run_dir", "other"]
    assert run([*changed, "--iterations", "1"], Console(stderr=True, width=300)) == 0
    assert "a run of its own, which begins with the networks of" in capsys.readouterr().err
    assert (folder / "best.pt").read_bytes() == best
    assert len(rows(next((tmp_path / "other").glob("*")))) == 1


@pytest.mark.usefixtures("threads_as_before")
def test_a_run_that_saved_nothing_is_told_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = trained(tmp_path)
    later = tmp_path / "runs" / "cartpole-29990101-000000"
    later.mkdir()
    (later / "config.json").write_text((folder / "config.json").read_text())
    with pytest.warns(UserWarning, match=rf"{later.name} ended before anything was saved; taking .*{folder.name}"):
        assert runs.find(None, "runs", "cartpole", resume=True) == pathlib.Path("runs", folder.name, "latest.pt")


def test_a_row_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    log = Logger(tmp_path, preset("cartpole"))
    log.log({"iteration": 1, "env_steps": 1, "a": 1.0})

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            log.log({"iteration": 2, "env_steps": 2, "a": 2.0, "eval_survival": 1.0})
    log.log({"iteration": 3, "env_steps": 3, "a": 3.0})
    log.log({"iteration": 4, "env_steps": 4, "a": 4.0, "eval_survival": 0.5, "eval_mean_return": 2.0})
    assert [(row["iteration"], row["a"], row["eval_survival"]) for row in rows(tmp_path)] == [
        ("1", "1.0", ""), ("3", "3.0", ""), ("4", "4.0", "0.5"),
    ]  # fmt: skip


def test_an_option_is_taken_out_with_its_values():
    words = ["--task", "x", "--seeds", "0", "1", "--seed", "7", "--seeds=3"]
    assert without(words, "--seeds") == ["--task", "x", "--seed", "7"]
    assert without(["--seeds", "1"], "--seeds") == []


def test_runs_are_compared_by_what_they_do_otherwise(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for clip in (0.1, 0.2):
        for seed in (0, 1):
            arrived = ((1.0, 0.5), (2.0 + seed, 1.0)) if clip == 0.2 else ((1.0, 0.25), (2.0, 0.5))
            write_run(tmp_path / "runs" / f"{clip}-{seed}", seed, changes={"ppo.clip": clip}, values=arrived)
    found = compare.contestants(compare.find(["runs"]))
    assert {name: [run.settings["seed"] for run in lot] for name, lot in found.items()} == {
        "ppo.clip 0.1": [0, 1], "ppo.clip 0.2": [0, 1],
    }  # fmt: skip
    result = compare.summary(found["ppo.clip 0.2"], "eval_mean_return")
    assert (result["arrived"], result["seconds"], result["worst_seconds"]) == (2, 2.5, 3.0)
    assert (result["last_low"], result["last"], result["last_high"]) == (10.0, 10.5, 11.0)
    assert compare.summary(found["ppo.clip 0.1"], "eval_survival")["seconds"] is None
    assert compare.main(["runs", "--over", "env_steps", "--json"]) == 0
    told, line = capsys.readouterr().out.splitlines()[1::2]
    assert told.startswith("ppo.clip 0.2: at the mark 2 of 2") or "curves" in told
    assert set(json.loads(line)) == {"ppo.clip 0.1", "ppo.clip 0.2"}
    assert (tmp_path / "compare.png").stat().st_size > 10_000


def test_what_cannot_be_compared_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    for arguments, expected in (
        (["nowhere"], "nowhere: there is no such folder"),
        (["empty"], "empty: expected the folder of a run, or of runs, there are none in it"),
        (
            ["run", "--value", "eval_survivall"],
            "--value: expected a column with evaluations, did you mean eval_survival",
        ),
        (["run", "--plot", "no/where.png"], "--plot: expected a picture to write, got no/where.png"),
    ):
        assert compare.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line
    saved = (tmp_path / "run" / "config.json").read_text()
    for damaged in ("{", "[]", '{"ppo": {"clip": 0.2}}', '{"task": 3}'):
        (tmp_path / "run" / "config.json").write_text(damaged)
        assert compare.main(["run"]) == 2
        assert "(damaged)" in capsys.readouterr().err
    (tmp_path / "run" / "config.json").write_text(saved)
    (tmp_path / "run" / "metrics.csv").unlink()
    with pytest.raises(ConfigError, match=r"run: expected the folder of a run, with config\.json and metrics\.csv"):
        record.Recorded.read(pathlib.Path("run"))


@pytest.mark.skipif(not installed("optuna"), reason="optuna: not installed here")
def test_a_sweep_refuses_what_it_cannot_search(tmp_path, monkeypatch, capsys):
    from examples import sweep

    monkeypatch.chdir(tmp_path)
    for field, expected in (
        ("ppo.gama=0..1", "ppo.gama: unknown field; did you mean ppo.gamma"),
        ("ppo.gamma=0.5..2", "ppo.gamma: expected a number between 0 and 1, got 2.0"),
        ("ppo.gamma=0.9..0.1", "ppo.gamma: expected low..high of a number, got 0.9..0.1"),
        ("network.recurrent=true..false", "network.recurrent: expected low..high of a number"),
        ("ppo.epochs=1,x", "ppo.epochs: expected a whole number"),
    ):
        assert sweep.main([field, "--task", "cartpole"]) == 2
        assert expected in capsys.readouterr().err


def test_a_run_is_shown_by_a_tracker(tmp_path, monkeypatch):
    done = []
    fake = types.ModuleType("trackio")
    fake.init = lambda **words: done.append(words)
    fake.log = lambda metrics, step: done.append((step, metrics))
    fake.finish = lambda: done.append("finished")
    monkeypatch.setitem(sys.modules, "trackio", fake)
    write_run(tmp_path / "run", changes={"train.tracker": "trackio"}, values=((1.0, 0.5),))
    begun, (step, metrics), end = done
    assert (begun["name"], begun["config"]["task"], begun["resume"]) == ("run", "cartpole", "allow")
    assert (step, metrics["eval/survival"], metrics["env_steps"], end) == (1, 0.5, 1000, "finished")

    def init(**words):
        raise RuntimeError("not logged in\nsecond line")

    fake.init = init
    with pytest.raises(ConfigError, match=r"^train\.tracker: trackio: not logged in$"):
        write_run(tmp_path / "other", changes={"train.tracker": "trackio"})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"^train\.tracker: expected the package wandb: pip install wandb$"):
        write_run(tmp_path / "third", changes={"train.tracker": "wandb"})


def test_a_commit_is_named_only_where_foal_is_a_clone(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert record.commit() == ""
    (tmp_path / ".git").mkdir()
    assert record.commit() == ""


def test_the_log_says_what_a_run_was_made_with(tmp_path):
    Logger(tmp_path, preset("cartpole"), chosen={"train.num_envs": 64}).close()
    cfg, chosen, origin = record.read(str(tmp_path))
    assert cfg == preset("cartpole")
    assert chosen == {"train.num_envs": 64}
    assert origin == record.provenance()
    assert record.differences(origin, origin) == ""
