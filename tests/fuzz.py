"""Nonsense for every door: command line, configuration, checkpoints, robots, models, terrains, files of one's own.

    python -m tests.fuzz [--cases 2000] [--seed 0] [--first 0]

Each case, the same for the same seed and number, runs simulate.py in a folder of its own; it must end with exit code 0
or 3, or 2 and one clear line. Nothing that was there may be changed, no file given may be run, no traceback be shown.
Fifty cases run in a process of their own, so that one that takes Python down is told of as well.
"""

import argparse
import collections
import copy
import faulthandler
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import pytest  # noqa: E402
import torch  # noqa: E402
from commands import called, inside  # noqa: E402
from robot_files import to_urdf  # noqa: E402

import physics  # noqa: F401, E402  sets what PyTorch reads when imported
import simulate  # noqa: E402
from environments import registry  # noqa: E402
from physics import load_robot  # noqa: E402
from physics.mjcf import to_mjcf  # noqa: E402
from settings import knobs, sections  # noqa: E402
from training import checkpoint, record, runs, tree  # noqa: E402
from training.presets import preset  # noqa: E402

BATCH = 200  # cases of a process
PATIENCE = 480  # how long a process may take [s]
TEXTS = (
    "", " ", "0", "-1", "1", "2", "1e-9", "1e9", "1e38", "1e400", "-1e-4", "nan", "inf", "-inf", "9" * 400, "x",
    "x" * 300, "true", "false", "auto", ".", "..", "/", "folder", "file", "none", "None", "[1]", "0x10", "٣", "\n",
    "--eval", "1 2", "a:b", ":", "os:system", "cartpole", "go1", "quadruped-balance", "flat", "rough stairs_up",
    "read-only", "99999999999", "1048576", "0.5", "evil:evil",
)  # fmt: skip
NUMBERS = 0, -1, 1, 1e-30, 1e30, -1e30, 1e300, 10**400, float("nan"), float("inf"), None, "x", [], {}, True, 0.5, 1e5
INVALID = "", "nan", "x", "-1e300", "9" * 400, "1e400", "\n", "1 2 3"
COSTLY = "terrain", "vary", "motor", "physics", "train"
FLAGS = "--eval", "--resume", "--render", "--dream", "--profile", "--list", "--json", "--help"
VALUES = (
    "--task",
    "--seed",
    "--iterations",
    "--episodes",
    "--checkpoint",
    "--export",
    "--record",
    "--help",
    "--from",
    "--seeds",
)
TINY = (
    "--train.num_envs", "16", "--iterations", "1", "--train.eval_episodes", "4", "--env.max_episode_seconds", "0.2",
    "--train.threads", "1",
)  # fmt: skip
EVIL = "import pathlib\npathlib.Path('ran').touch()\n"
BODY = """
import numpy as np
from dataclasses import dataclass
from environments import ArrayEnv, EnvCfg, registry


@registry.envcfg("mine", "a point")
@dataclass(frozen=True)
class Cfg(EnvCfg):
    pass


@registry.env("mine")
class Mine(ArrayEnv):
    num_obs = 1
    num_actions = 1

    def create(self, n):
        return {"x": np.zeros(n, np.float32)}

    def reset(self, who, random):
        self.data["x"][who] = 0.0

    def act(self, actions):
        self.data["x"] += actions[:, 0]

    def physics(self):
        pass

    def observe(self):
        return self.data["x"][:, None]

    def reward(self):
        return -np.abs(self.data["x"])
"""
WRONG = (
    "raise ValueError('no')", "return None", "import sys; sys.exit(3)", "return 'text'", "return np.zeros(3)", "1 / 0",
    "return np.full(self.num_envs, np.nan)", "return []", "raise SystemExit", "return self", "raise MemoryError",
    "undefined", "return np.full((self.num_envs, 1), 1e38, np.float32)",
)  # fmt: skip


def mutated(value, pick):
    """Return a JSON-like tree with one of its places changed."""
    value = copy.deepcopy(value)
    node = value
    for _ in range(12):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = pick.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and pick.random() < 0.9:
            node = node[key]
            continue
        kind = pick.random()
        if kind < 0.15:
            del node[key]
        elif kind < 0.25 and isinstance(node, list):
            node.append(node[key])
        elif kind < 0.3 and isinstance(node, dict):
            node["more"] = node[key]
        elif isinstance(node[key], torch.Tensor):
            node[key] = mutated_tensor(node[key], pick)
        else:
            node[key] = pick.choice(NUMBERS)
        break
    return value


def mutated_tensor(x, pick):
    """Return another tensor in place of one."""
    choices = (
        lambda: torch.full_like(x, float("nan")) if x.is_floating_point() else torch.zeros_like(x),
        lambda: x.double() if x.is_floating_point() else x.float(),
        lambda: torch.zeros(0),
        lambda: torch.zeros(*x.shape, 2),
        lambda: x.flatten()[: x.numel() // 2].clone(),
        lambda: torch.zeros(3).expand(10**9, 3),
        lambda: torch.full_like(x, 1e30) if x.is_floating_point() else torch.full_like(x, 77),
        lambda: torch.eye(3).to_sparse(),
    )
    return pick.choice(choices)()


def flipped(data, pick):
    """Return bytes with some of them changed, cut off or doubled."""
    data = bytearray(data)
    kind = pick.random()
    if kind < 0.6:
        for _ in range(pick.choice((1, 1, 3, 50))):
            data[pick.randrange(len(data))] ^= 1 << pick.randrange(8)
    elif kind < 0.9:
        del data[pick.randrange(len(data)) :]
    else:
        data += data[: pick.randrange(len(data))]
    return bytes(data)


def command_line(pick, folder):
    words = [pick.choice(FLAGS) for _ in range(pick.choice((0, 0, 1, 1, 2)))]
    for _ in range(pick.choice((1, 1, 2, 3))):
        words += [pick.choice(VALUES), pick.choice(TEXTS)]
    if pick.random() < 0.3:
        words.append(pick.choice(("--bogus", "-x", "word", "--", "--eval=1", "--push", "--env.", "---")))
    pick.shuffle(words)
    return [*TINY, *words]


def configuration(pick, folder):
    task = pick.choice(("cartpole", "cartpole", "navigation", "quadruped-balance", "quadruped-walk-flat"))
    cfg = preset(task)
    words = []
    for _ in range(pick.choice((1, 1, 2))):
        name, section = pick.choice([item for item in sections(cfg).items() if knobs(item[1])])
        field = pick.choice(knobs(section))
        # what stands for itself is tried elsewhere, and valid sizes would take their time
        if name in ("terrain", "vary", "motor", "physics", "train") or field.name in (
            "model",
            "policy",
            "role",
            "size",
        ):
            words += [
                f"--{name}.{field.name}",
                pick.choice(("", "nan", "x", "-1e300", "9" * 400, "1e400", "\n", "1 2 3")),
            ]
        else:
            pair = isinstance(getattr(section, field.name), tuple)
            words += [f"--{name}.{field.name}", *(pick.choice(TEXTS) for _ in range(2 if pair else 1))]
    return ["--task", task, *TINY, *words]


def a_checkpoint(pick, folder):
    name = pick.choice(("cartpole", "quadruped-balance"))
    source = ROOT / "checkpoints" / f"{name}.pt"
    path = folder / "c.pt"
    kind = pick.random()
    if kind < 0.4:
        path.write_bytes(flipped(source.read_bytes(), pick))
    else:
        data = torch.load(source, weights_only=True)
        data["trainer"] = pick.choice((data["trainer"], {}))
        data["run"] = pick.choice(
            ({}, {"engine": {}, "best": {}, "rank": [0, 0], "ranks": [], "arrival": [], "waiting": {}, "lessons": 0})
        )
        if pick.random() < 0.2:
            data["config"]["task"] = "evil:evil"
        elif pick.random() < 0.2:
            data["config"]["network"]["policy"] = "evil:Evil"
        else:
            data = mutated(data, pick)
        if pick.random() < 0.9:
            try:
                data["digest"] = tree.digest({part: data.get(part) for part in checkpoint.PARTS})
            except Exception:  # what has none must be refused for that
                data["digest"] = "x"
        torch.save(data, path)
    what = pick.choice((["--eval", "--episodes", "2"], ["--resume"], ["--eval", "--json", "--episodes", "2"]))
    tiny = TINY if what == ["--resume"] else TINY[-4:]
    return [*what, "--checkpoint", "c.pt", *tiny]


def a_record(pick, folder):
    name = pick.choice(("cartpole", "quadruped-balance"))
    record.write(folder, preset(name), {"train.num_envs": 16, "train.threads": 1, "train.precision": "float32"})
    path = folder / runs.CONFIG
    saved = json.loads(path.read_text())
    for _ in range(pick.choice((1, 1, 2))):
        saved = mutated(saved, pick)
    if pick.random() < 0.2:
        saved["task"] = "evil:evil"
    text = json.dumps(saved)
    if pick.random() < 0.2:
        text = flipped(text.encode(), pick).decode(errors="replace")
    path.write_text(text)
    return ["--from", pick.choice((".", runs.CONFIG)), *TINY]


def a_robot(pick, folder):
    robot = json.loads((ROOT / "robots" / "go1.json").read_text())
    for _ in range(pick.choice((1, 1, 2))):
        robot = mutated(robot, pick)
    text = json.dumps(robot)
    if pick.random() < 0.15:
        text = flipped(text.encode(), pick).decode(errors="replace")
    (folder / "robot.json").write_text(text)
    return ["--env.model", "robot.json", *TINY]


def a_model(pick, folder):
    ending, text = pick.choice(((".xml", to_mjcf(load_robot("go1"))), (".urdf", to_urdf(load_robot("go1")))))
    words = text.split('"')
    for _ in range(pick.choice((1, 1, 3))):
        words[pick.randrange(1, len(words), 2)] = pick.choice(("", "nan", "1e300", "-1", "0 0 0", "x", "0", "1e9 0 0"))
    text = '"'.join(words)
    if pick.random() < 0.2:
        text = flipped(text.encode(), pick).decode(errors="replace")
    (folder / f"robot{ending}").write_text(text)
    return ["--env.model", f"robot{ending}", *TINY]


def a_terrain(pick, folder):
    values = {
        "kinds": ("", "rough", "flat rough", "nowhere", "stones,stairs_up", "rough " * 500),
        "levels": ("1", "100", "0", "x", "10"), "tile": ("2", "100", "nan", "8", "7.3"),
        "cell": ("0.01", "1", "0.1", "0.3", "1e-9"), "seed": ("0", "-1", "9" * 30),
    }  # fmt: skip
    words = [word for name in pick.sample(list(values), 3) for word in (f"--terrain.{name}", pick.choice(values[name]))]
    if "--terrain.levels" in words and "--terrain.kinds" not in words:  # level ground asks for no memory
        words += ["--terrain.kinds", "nowhere"]
    return [*TINY, *words, "--iterations", "0" if pick.random() < 0.7 else "1"]


def a_file(pick, folder):
    lines = BODY.strip().splitlines()
    places = [i for i, line in enumerate(lines) if line.strip().startswith("def ")]
    kind = pick.random()
    if kind < 0.2:
        lines.insert(
            0, pick.choice(("raise ValueError('no')", "import sys; sys.exit(3)", "import nowhere", "(", "\x00"))
        )
    elif kind < 0.9:
        lines.insert(pick.choice(places) + 1, f"        {pick.choice(WRONG)}")
    else:
        del lines[pick.randrange(len(lines))]
    name = f"mine_{pick.randrange(10**9)}"
    (folder / f"{name}.py").write_text("\n".join(lines))
    return ["--task", f"{name}:mine", *TINY]


KINDS = command_line, configuration, a_checkpoint, a_record, a_robot, a_model, a_terrain, a_file


def contents(folder):
    """Return the digests of all files in a folder but those of runs."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and "runs" not in path.parts
    }


def run(number, seed):
    """Run a case; return its kind, its exit code, and what was wrong, "" for nothing."""
    pick = random.Random(f"{seed}-{number}")
    kind = KINDS[number % len(KINDS)]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch, inside(name):
        folder = pathlib.Path(name)
        patch.setattr(registry, "_TASKS", dict(registry._TASKS))
        patch.setattr(sys, "path", list(sys.path))
        (folder / "folder").mkdir()
        (folder / "file").write_text("a file")
        (folder / "read-only").mkdir(mode=0o500)
        (folder / "evil.py").write_text(EVIL)
        words = kind(pick, folder)
        before = contents(folder)
        try:
            done = called(simulate.main, words, patch)
        except BaseException:
            return kind.__name__, 1, f"{words}\n{traceback.format_exc()}"
        after = contents(folder)
        told = [line for line in done.err.splitlines() if line.startswith("simulate.py: ") and "warn" not in line]
        asked = any("evil:" in word for word in words)  # by the command line
        wrong = [
            *(["exit code"] if done.code not in (0, 2, 3) else []),
            *(["traceback"] if "Traceback" in done.err else []),
            *([f"{len(told)} lines"] if done.code == 2 and not told else []),
            *(["a file was run"] if (folder / "ran").exists() and not asked else []),
            *(["a file was changed"] if any(after.get(path) != x for path, x in before.items()) else []),
        ]
        return kind.__name__, done.code, f"{', '.join(wrong)}: {words}\n{done.err}" if wrong else ""


def work(first, last, seed):
    """Run some cases, telling of each on standard output before and after."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    faulthandler.dump_traceback_later(PATIENCE, exit=True, file=os.fdopen(os.dup(2), "w"))
    for number in range(first, last):
        print(json.dumps({"begins": number}), file=out)
        start = time.perf_counter()
        kind, code, wrong = run(number, seed)
        took = time.perf_counter() - start
        print(json.dumps({"case": number, "kind": kind, "code": code, "wrong": wrong, "seconds": took}), file=out)


def main(arguments=None):
    """Run the cases; return how many were wrong, at most 1."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--cases", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = options.parse_args(arguments)
    if args.work:
        work(args.first, args.first + args.cases, args.seed)
        return 0
    before = contents(ROOT / "checkpoints")
    codes = collections.Counter()
    seconds = collections.Counter()
    wrong = 0
    at = args.first
    end = args.first + args.cases
    while at < end:
        command = [sys.executable, "-m", "tests.fuzz", "--work", "--seed", args.seed, "--first", at, "--cases"]
        done = subprocess.run(
            [*map(str, command), str(min(BATCH, end - at))], cwd=ROOT, capture_output=True, text=True, check=False
        )
        begun = at - 1
        for line in done.stdout.splitlines():
            found = json.loads(line)
            begun = found.get("begins", begun)
            if "case" in found:
                codes[found["kind"], found["code"]] += 1
                seconds[found["kind"]] += found["seconds"]
                if found["wrong"]:
                    wrong += 1
                    print(f"case {found['case']} ({found['kind']}): {found['wrong']}", flush=True)
        if done.returncode:
            wrong += 1
            print(f"case {begun} ended Python with {done.returncode}: {done.stderr[-2000:]}", flush=True)
        at = begun + 1
    if contents(ROOT / "checkpoints") != before:
        wrong += 1
        print("what comes with Foal was changed")
    for kind in KINDS:
        found = {code: n for (name, code), n in sorted(codes.items()) if name == kind.__name__}
        print(f"{kind.__name__:>14}  {seconds[kind.__name__]:6.1f} s  exit codes {found}")
    print(f"{args.cases} cases, seed {args.seed}: {wrong} wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
