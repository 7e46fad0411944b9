"""How long recordings take, from Enter to the prompt, and how many robots are drawn.

    python -m benchmarks.render [--json] [--quick]

flat_seconds, stairs_seconds: a recording of 10 s at 1280 x 720 of the walkers that come with Foal, the median of three;
flat_ratio, stairs_ratio: how much longer commit 0b323cc takes, in pairs, either first. many_frames: frames per second
of 64 robots side by side at 960 x 540, simulated and encoded, beyond what the program takes to begin and end.
web_share, web_sends: of a core, what the program takes that simulates 64 robots in real time and serves them to one
reader of its page, and how often a second poses go out; web_share_alone: while nobody looks.

The last three need viser: pip install viser.
"""

import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from imageio_ffmpeg import count_frames_and_secs

from benchmarks import machine
from physics.jit import ROOT

BEFORE = "0b323cc"
TASKS = {"flat": "quadruped-walk-flat", "stairs": "quadruped-walk-stairs"}
SIZE = 1280, 720
SECONDS = 10.0
SHORT = 0.1  # a recording that is all beginning and end [s]
MANY = 64
MANY_SIZE = 960, 540
FPS = 50
SETTLE = 5.0  # after a reader has come, all meshes sent, and after it has gone [s]
PATIENCE = 30.0  # with a page that sends nothing [s]
PAIRS = 3


def record(tree: Path, folder: Path, task: str, seconds: float, size: tuple[int, int], *options: str) -> float:
    """Return how long a recording takes [s]; raise SystemExit with what it says if it fails."""
    width, height = map(str, size)
    command = [
        *(sys.executable, "simulate.py", "--eval", "--task", task, "--checkpoint", f"checkpoints/{task}.pt"),
        *("--env.max_episode_seconds", str(seconds), "--render.width", width, "--render.height", height),
        *("--record", str(folder / "clip.mp4"), *options),
    ]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=tree, env=os.environ, capture_output=True, text=True)
    taken = time.perf_counter() - start
    frames, _ = count_frames_and_secs(str(folder / "clip.mp4")) if done.returncode == 0 else (0, 0.0)
    if frames != round(seconds * FPS):  # a robot that falls would end it early
        print(done.stderr or f"{task}: expected {seconds * FPS:g} frames, got {frames}", file=sys.stderr)
        raise SystemExit(1)
    return taken


def pairs(before: Path, folder: Path, task: str, count: int) -> tuple[list[float], list[float]]:
    """Return how long recordings take, here and with what was before, [s]; the first of either compiles."""
    here: list[float] = []
    there: list[float] = []
    for tree in (ROOT, before):
        record(tree, folder, task, SHORT, SIZE)
    for i in range(count):
        for tree in (ROOT, before) if i % 2 else (before, ROOT):
            (here if tree == ROOT else there).append(record(tree, folder, task, SECONDS, SIZE))
    return here, there


def many_frames(folder: Path, count: int) -> float:
    """Return frames per second of many robots side by side."""
    options = MANY_SIZE, "--render.envs", str(MANY)
    record(ROOT, folder, TASKS["flat"], SHORT, *options)  # compiles
    taken = [
        [record(ROOT, folder, TASKS["flat"], seconds, *options) for seconds in (SHORT, SECONDS)] for _ in range(count)
    ]
    return FPS * (SECONDS - SHORT) / statistics.median(long - short for short, long in taken)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Serve many robots to browsers meanwhile; yield the program and its address, once it goes."""
    command = [
        *(sys.executable, "simulate.py", "--eval", "--web", "0", "--task", TASKS["flat"]),
        *("--checkpoint", f"checkpoints/{TASKS['flat']}.pt", "--render.envs", str(MANY)),
    ]
    said = folder / "said.txt"
    with open(said, "w") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as process:
        try:
            while not (found := re.search(r"watch at (http://\S+);", said.read_text())):
                if process.poll() is not None:
                    print(said.read_text(), file=sys.stderr)
                    raise SystemExit(1)
                time.sleep(0.1)
            yield psutil.Process(process.pid), found[1]
        finally:
            process.terminate()


@contextlib.contextmanager
def reader(address: str) -> Iterator[Any]:
    """Connect to a page as a browser does, and yield what it hears."""
    import msgspec
    import viser
    from viser._messages import ViewerCameraMessage
    from websockets.sync.client import connect

    look = ViewerCameraMessage(
        wxyz=(1.0, 0.0, 0.0, 0.0), position=(3.0, 3.0, 2.0), fov=1.0, near=0.1, far=100.0, image_height=540,
        image_width=960, look_at=(0.0, 0.0, 0.3), up_direction=(0.0, 0.0, 1.0),
    )  # fmt: skip
    protocol = f"viser-v{viser.__version__}"
    with connect(f"ws{address[4:]}", subprotocols=[protocol], compression=None, max_size=None) as page:
        page.send(msgspec.msgpack.encode(look.as_serializable_dict()))  # who has not said it is not counted
        yield page


def share(process: psutil.Process, seconds: float, page: Any = None) -> tuple[float, float]:
    """Return what a program takes of a core for some seconds, and how often a second its page sends, if one is read."""
    sends = 0
    begin = time.perf_counter()
    times = process.cpu_times()
    before = times.user + times.system
    if page is None:
        time.sleep(seconds)
    else:
        while time.perf_counter() < begin + seconds:
            page.recv(timeout=PATIENCE)
            sends += 1
    times = process.cpu_times()
    taken = time.perf_counter() - begin
    return (times.user + times.system - before) / taken, sends / taken


def web(folder: Path) -> dict[str, float]:
    """Return web_share, web_sends and web_share_alone; raise SystemExit if there is no page."""
    with served(folder) as (process, address):
        with reader(address) as page:
            share(process, SETTLE, page)
            taken, sends = share(process, SECONDS, page)
        time.sleep(SETTLE)
        alone, _ = share(process, SECONDS)
    return {"web_share": taken, "web_sends": sends, "web_share_alone": alone}


def main() -> None:
    """Measure, print the table and, with --json, the result."""
    args = machine.parser(__doc__.splitlines()[0]).parse_args()
    about = machine.describe("raylib", "numba", "imageio-ffmpeg")
    count = 1 if args.quick else PAIRS
    result: dict[str, float] = {}
    rows: list[tuple[str, str]] = [("", "")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = machine.checkout(BEFORE, folder)
        for name, task in TASKS.items():
            here, there = pairs(before, folder, task, count)
            result[f"{name}_seconds"] = statistics.median(here)
            result[f"{name}_ratio"] = statistics.median(b / a for a, b in zip(here, there, strict=True))
            taken = f"{result[f'{name}_seconds']:.1f} s ({min(here):.1f} to {max(here):.1f})"
            ratio = f"{result[f'{name}_ratio']:.2f}x faster than {BEFORE}"
            rows.append((f"{SECONDS:g} s of {task}, {SIZE[0]} x {SIZE[1]}", f"{taken}, {ratio}"))
        result["many_frames"] = many_frames(folder, count)
        rows.append((f"{MANY} robots, {MANY_SIZE[0]} x {MANY_SIZE[1]}", f"{result['many_frames']:.1f} frames/s"))
        result |= web(folder)
        taken = f"{result['web_share']:.0%} of a core, {result['web_sends']:.0f} sends/s"
        alone = f"{result['web_share_alone']:.0%} while nobody looks"
        rows.append((f"{MANY} robots on a page, one reader", f"{taken}; {alone}"))
    machine.table("Recordings, from Enter to the prompt, and robots on a page", rows, about)
    if args.json:
        machine.print_json(result | about)


if __name__ == "__main__":
    main()
