"""Every command that the documents show, run whole at a tiny size by its main()."""

import contextlib
import csv
import importlib
import itertools
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import commands
import numpy as np
import pytest
from commands import ROOT, called
from robot_files import to_urdf
from small import BENCHMARKS, EXAMPLES, NEEDS, installed, run_benchmark, run_example, write_run
from torch.distributed.run import get_args_parser

import simulate
from environments import registry
from motion import clip, fit, gait, plot
from physics import load_robot
from renderer import RenderError, offscreen_display
from training import seeds
from training.options import read_command_line
from training.presets import preset

TEXTS = {path.name: path.read_text() for path in commands.DOCUMENTS}
SHOWN = {name: commands.documented(text) for name, text in TEXTS.items()}
SHOWN["Makefile"] = commands.of_makefile((ROOT / "Makefile").read_text())
PLAIN = {f"python -m benchmarks.{name}" for name in BENCHMARKS} | {f"python -m examples.{name}" for name in EXAMPLES}
# Those that are not run already, one of PLAIN each
# Those that test_configuration.py and test_fuzz.py run
ELSEWHERE = {"python tests/configuration_reference.py", "python -m tests.fuzz --cases 200 --seed 1"}
COMMANDS = [command for command in dict.fromkeys(itertools.chain(*SHOWN.values())) if command not in PLAIN | ELSEWHERE]
# What stands for the words that a reader is to replace
STANDS_FOR = {
    "PATH": "checkpoints/quadruped-walk-flat.pt", "TASK": "quadruped-balance", "ROBOT": "go2", "SEED": "1",
    "my_file:my-task": "swing_up:swing-up", "RUN": "repeated/cartpole-20260101-000000", "HOST": "localhost",
    "SECTION": "push",
}  # fmt: skip
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z_.-]*[a-z](?![A-Za-z_.*]*[A-Z*])")  # not --env.NAME, --vary.*
CHECKPOINTS = sorted(path.stem for path in (ROOT / "checkpoints").glob("*.pt"))


def spelt_out(command):
    """Return a shown command's arguments, what a reader is to replace replaced."""
    words = [STANDS_FOR.get(word, word) for word in shlex.split(command)[1:]]
    unknown = [word for word in words if re.fullmatch(r"[A-Z][A-Z_]+", word)]
    assert not unknown, f"say in STANDS_FOR what stands for {', '.join(unknown)}"
    return words


def write_what_is_named(words, folder):
    """Write files that a reader has and the repository has not: modules that documents show, and a robot."""
    shown = [body for text in TEXTS.values() for body in commands.blocks(text, "python")]
    for word in words:
        if word == STANDS_FOR["RUN"]:
            write_run(folder / word)
            (folder / word / "metrics.csv").unlink()
        if word.endswith(".npz"):
            clip.save(folder / word, gait.clip(load_robot("go1"), "trot", np.tile([0.5, 0.0, 0.0], (60, 1))))
        if word.endswith(".urdf"):
            (folder / word).parent.mkdir(exist_ok=True)
            (folder / word).write_text(to_urdf(load_robot("go1")))
        if task := re.fullmatch(r"(\w+):([\w-]+)", word):
            marks = f'registry.envcfg("{task[2]}"', f'\ntask("{task[2]}"', f"\nclass {task[2]}(Policy)"
            (code,) = (body for body in shown if any(mark in body for mark in marks))
            (folder / f"{task[1]}.py").write_text(code)


def run_simulate(words, folder, monkeypatch):
    """Run simulate.py at a tiny size and look at what it prints and writes."""
    arguments = commands.shrunk(words)
    task = words[words.index("--task") + 1] if "--task" in words else ""
    evaluates = any(option in words for option in commands.LOOKING)
    if ":" in task:
        monkeypatch.delitem(sys.modules, task.partition(":")[0], raising=False)
        if evaluates:  # of a policy that a reader has trained by now
            run_simulate(["--task", task], folder, monkeypatch)
    if "--web" in words:
        if not installed("viser"):
            pytest.skip("viser is not installed")
        commands.looked_at_briefly(monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")}
    try:
        with offscreen_display(("display", "xvfb")) if "--render" in arguments else contextlib.nullcontext():
            done = called(simulate.main, arguments, monkeypatch)
    except RenderError:
        pytest.skip("neither a display nor Xvfb is here")
    if "no display to record on" in done.err:
        pytest.skip("neither Xvfb nor raylib's software build is installed here")
    assert done.code == 0, done.out + done.err
    if "--help" in words:
        section = [*words, ""][words.index("--help") + 1]
        shown = set(re.findall(r"--[\w.]+", done.out))
        assert (
            {"--push.speed"} <= shown
            if section
            else {"--iterations", "--seed"} <= shown and len(done.out.splitlines()) < 45
        )
    elif "--list" in words:
        assert all(f"{name}: " in done.out for name in registry.list_registered_envs())
    elif "--inspect" in words:
        assert "kg, base" in done.out and next(folder.rglob("*.mp4")).stat().st_size > 1000
    elif "--export" in words:
        written = folder / words[words.index("--export") + 1]
        assert (written / "policy.pt" if written.is_dir() else written).stat().st_size > 10_000
    elif evaluates:
        look_at_evaluation(done, arguments, folder)
    else:
        look_at_training(folder)
        assert any(before.get(path) != path.stat().st_mtime_ns for path in folder.rglob("*.pt"))


def run_motion(name, words, monkeypatch):
    """Run motion.fit or motion.plot at a tiny size and look at what it writes."""
    if name == "plot":
        done = called(plot.main, [*words, "--seconds", "0.5"], monkeypatch)
        assert done.code == 0, done.out + done.err
        assert Path(words[words.index("--out") + 1]).stat().st_size > 10_000
        return
    small = "--each 10 --frames 60 --hidden 8 --batch 8 --steps 1 --epochs 2"
    done = called(fit.main, [*words, *small.split()], monkeypatch)
    assert (name, done.code) == ("fit", 0), done.out + done.err
    robot, out = (words[words.index(option) + 1] for option in ("--robot", "--out"))
    assert fit.load(out, robot).joints == 12


def read_torchrun(first, words, monkeypatch):
    """Read the options of torchrun as it does, and of simulate.py; test_distributed.py runs it."""
    options = [first, *words]
    at = options.index("simulate.py") if "simulate.py" in options else options.index("-m") + 1
    assert options[at] in ("simulate.py", "foal")
    get_args_parser().parse_args(options[: at + 1])
    read_command_line(options[at + 1 :], preset("quadruped-balance"))


def look_at_evaluation(done, arguments, folder):
    """Look at what an evaluation of a checkpoint printed, recorded and plotted."""
    if "--record" in arguments:
        assert (folder / arguments[arguments.index("--record") + 1]).stat().st_size > 500
    if "--dream" in arguments:
        assert [path.stat().st_size > 20_000 for path in folder.rglob("*dream.png")] == [True]
    if "--web" in arguments:
        assert re.search(r"watch at http://127\.0\.0\.1:\d+; Ctrl-C ends$", done.err, re.MULTILINE)
    if not {"--record", "--dream", "--web"} & set(arguments):
        results = dict(line.split(maxsplit=1) for line in done.out.splitlines())
        assert results["episodes"] == "4"
        assert 0 <= float(results["survival"]) <= 1


def look_at_training(folder):
    """Look at the log of the only training in a folder, and take it away."""
    (log,) = folder.rglob("metrics.csv")
    with open(log, newline="") as file:
        rows = list(csv.DictReader(file))
    log.unlink()
    assert len(rows) == 2
    assert all(math.isfinite(float(value)) for row in rows for value in row.values() if value)


def test_commands_are_found_in_documents():
    text = """
Text with `python -m benchmarks.physics
  [--quick]` that goes on, ``python simulate.py --eval``, and `pip install x`; python a.py is none.

```
$ python simulate.py --terrain.kinds "a b"   # it's a comment
make test
python3 simulate.py \\
    --list
```

~~~sh
python -m examples.all_tasks
~~~
"""
    assert commands.documented(text) == [
        "python simulate.py --terrain.kinds 'a b'", "python3 simulate.py --list", "python -m examples.all_tasks",
        "python -m benchmarks.physics --quick", "python simulate.py --eval",
    ]  # fmt: skip
    makefile = "x: y\n\t$(RUN) simulate.py --eval\n\t$(RUN) -m pip install z\n"
    assert commands.of_makefile(makefile) == ["python simulate.py --eval"]
    assert SHOWN["README.md"] and SHOWN["Makefile"]
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("command", COMMANDS, ids=[command.removeprefix("python ") for command in COMMANDS])
def test_a_shown_command_works(command, workplace, monkeypatch):
    program, *words = spelt_out(command)
    write_what_is_named(words, workplace)
    if command.startswith("torchrun"):
        read_torchrun(program, words, monkeypatch)
    elif program.endswith("simulate.py"):
        if "--seeds" in words:
            monkeypatch.setattr(seeds, "subprocess", commands.started_here(monkeypatch))
        run_simulate(words, workplace, monkeypatch)
    elif program == "-c":
        done = subprocess.run([sys.executable, program, *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        assert program == "-m", "say here how to run it"
        folder, name = words[0].removeprefix("foal.").split(".")  # installed, what is in the clone: test_installed.py
        {"motion": run_motion, "benchmarks": run_benchmark, "examples": run_example}[folder](
            name, words[1:], monkeypatch
        )


def test_what_make_is_shown_to_make_is_there():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    codes = [code for text in TEXTS.values() for code in commands.snippets(text)]
    assert {"train", "test"} <= {match[1] for code in codes if (match := re.match(r"make (\w+)", code))} <= targets


def test_options_that_are_shown_are_there(monkeypatch):
    known = {"simulate.py": set()}
    for task in registry.list_registered_envs():
        text = called(simulate.main, ["--task", task, "--help", "all"], monkeypatch).out
        known["simulate.py"] |= set(re.findall(r"--[\w.-]+", text))
    for folder, names in (("benchmarks", BENCHMARKS), ("examples", EXAMPLES), ("motion", ["fit"])):
        for name in (name for name in names if installed(*NEEDS.get(name, ()))):
            module = importlib.import_module(f"{folder}.{name}")
            known[name] = set(re.findall(r"--[\w.-]+", called(module.main, ["--help"], monkeypatch).out))
            # those that the module itself shows how to run it with
            usages = re.findall(rf"^ +python -m {folder}\.{name} .*(?:\n +\[.*)*", module.__doc__, re.MULTILINE)
            assert set(OPTION.findall(" ".join(usages))) <= known[name], name
    assert all({"--json", "--quick"} <= known[name] for name in BENCHMARKS)
    # options of documented terms, which are named there after their parameters
    terms = "\n".join(body for text in TEXTS.values() for body in commands.blocks(text, "python") if "\ntask(" in body)
    defaults = re.findall(r"(\w+)=", " ".join(re.findall(r"^def \w+\((.*)\):$", terms, re.MULTILINE)))
    own = {
        f"--{section}.{name}"
        for section in ("reward", "termination", "randomisation", "command", "event")
        for name in defaults
    }
    everything = set().union(own, *known.values())
    for name, text in TEXTS.items():
        # commands are run above
        codes = [code for code in commands.snippets(text) if not re.match(r"(\$ +)?(python|pip|torchrun)", code)]
        assert set(OPTION.findall("\n".join(codes))) <= everything, name


def test_options_are_told_from_their_like():
    assert OPTION.findall("--push.speed 1 2 a--b --reward.NAME --vary.* --num-envs --env.control") == [
        "--push.speed", "--num-envs", "--env.control",
    ]  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_shipped_checkpoint_is_evaluated(name, workplace, monkeypatch):
    arguments = commands.shrunk(["--eval", "--json", "--checkpoint", f"checkpoints/{name}.pt"])
    done = called(simulate.main, arguments, monkeypatch)
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    result = json.loads(line)
    assert {"task", "checkpoint", "episodes", "survival", "mean_return", "episode_seconds"} <= set(result)
    assert name.startswith(result["task"])
    assert result["episodes"] == 4
    assert result["survival"] > 0.5
    assert all(math.isfinite(value) for value in result.values() if not isinstance(value, str))
