"""How long recordings take, from Enter to the prompt, and how many robots are drawn.

    python -m benchmarks.render [--json] [--quick]

flat_seconds, stairs_seconds: a recording of 10 s at 1280 x 720 of the walkers that come with Foal, the median of three;
flat_ratio, stairs_ratio: how much longer commit 0b323cc takes, in pairs, either first. many_frames: frames per second
of 64 robots side by side at 960 x 540, simulated and encoded, beyond what the program takes to begin and end.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    machine.table("Recordings, from Enter to the prompt", rows, about)
    if args.json:
        machine.print_json(result | about)


if __name__ == "__main__":
    main()
