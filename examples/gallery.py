"""Make the pictures of README.md and docs/ anew, from policies and measurements that are kept with Foal.

    python -m examples.gallery [NAME ...] [--out FOLDER]

Nothing is trained or measured, and it takes a minute on two cores. PICTURES says how each is made, MEASURED
by which command those are whose numbers are not kept.
"""

import argparse
import csv
import itertools
import operator
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import physics  # noqa: F401  sets what PyTorch reads when imported  # isort: skip
from PIL import Image
from rich.console import Console

from benchmarks import tasks, training, world_model
from motion import plot
from physics.jit import ROOT
from renderer import RenderError, offscreen_display
from renderer.controls import SHOWN
from renderer.sheet import SMALLER, tiled
from settings import ConfigError, override, suggest
from simulate import System
from training import checkpoint
from training.files import reason, require_file
from training.viewer import Viewer

DOCS = ROOT / "docs"
SIZE = 960, 540  # of what is drawn; half of it is shown [px]
CURVE = {
    "command.forward": (0.6, 0.6), "command.sideways": (0.0, 0.0), "command.turn": (0.3, 0.3),
    "command.standing": 0.0, "command.turning": 0.0,
}  # fmt: skip


def walk(path: Path) -> None:
    """Write a Go1 that walks in a curve, six periods of its gait, every other control step."""
    times = [1.6 + 0.04 * i for i in range(48)]
    frames = stills("quadruped-walk-flat", times, (960, 626), bare=True, turned=0.4, nearer=0.8, **CURVE)
    first, *others = indexed(frames)
    first.save(path, save_all=True, append_images=others, duration=40, loop=0)


def push(path: Path) -> None:
    """Write how a Go1 is shoved, bears it on two feet and stands again."""
    in_a_row(path, stills("quadruped-balance", (2.14, 2.3, 2.8), turned=-0.9, seed=3))


def ghost(path: Path) -> None:
    """Write how what a world model foresees parts from the robot, between its looks at 2.7 and 3.6 s."""
    in_a_row(path, stills("quadruped-walk-flat-belief", (2.8, 3.1, 3.4), dreams=True))


def bounce(path: Path) -> None:
    """Write how a ball falls to the paddle of an arm."""
    in_a_row(path, stills("bounce-ball", (1.0, 1.18, 1.24), (660, 570), bare=True, nearer=0.78))


def overlaid(path: Path) -> None:
    """Write what can be shown of a robot that walks: where it is borne, how fast it is to go and goes, and numbers."""
    where = stills("quadruped-walk-flat", (3.0,), bare=True, overlays=("forces", "balance", "speed", "trails"), **CURVE)
    numbers = stills("quadruped-walk-flat", (3.0,), bare=True, overlays=("forces", "rewards", "torques"), **CURVE)
    in_a_row(path, where + numbers)


def dream(path: Path) -> None:
    """Write what a world model foresaw of an episode, and what came."""
    viewer = actor("quadruped-walk-flat-belief", dreams=True, seed=1)
    while not viewer.step():
        pass
    viewer.foresight.plot(path)


def joints(path: Path) -> None:
    """Write the joint angles of a motion and of the robot that follows it."""
    plot.draw(path, *plot.follow(ROOT / "checkpoints" / "quadruped-track.pt", 3.0, 0, "numba"))
    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def learning(path: Path) -> None:
    """Write survival and velocity error over time, of Foal and of others' PPO."""
    found: dict[str, Any] = {}
    for (task, name), trainings in evaluations("training.csv", "task", "contestant").items():
        found.setdefault(task, {})[name] = trainings
    training.plot(str(path), found)


def of_tasks(path: Path) -> None:
    """Write the learning curves of every task and robot."""
    found = {
        key: [{"rows": [row | {f"eval_{name}": row[name] for name in row} for row in rows]} for rows in trainings]
        for key, trainings in evaluations("tasks.csv", "task", "robot").items()
    }
    tasks.plot(str(path), found)


def imagined(path: Path) -> None:
    """Write survival over env steps, with and without imagined rollouts."""
    found = {name: trainings for (name,), trainings in evaluations("world_model.csv", "contestant").items()}
    world_model.plot(str(path), found)


def few_robots(path: Path) -> None:
    """Write errors and survival of few robots that learn to walk."""
    found = {name: trainings for (name,), trainings in evaluations("few_robots.csv", "contestant").items()}
    world_model.plot_walking(str(path), found)


PICTURES = {
    "walk.gif": walk,
    "push.png": push,
    "ghost.png": ghost,
    "bounce.png": bounce,
    "overlays.png": overlaid,
    "dream.png": dream,
    "joints.png": joints,
    "training.png": learning,
    "tasks.png": of_tasks,
    "world_model.png": imagined,
    "few_robots.png": few_robots,
}
MEASURED = {"motion.png": "python -m benchmarks.motion --mode scaling --plot docs/motion.png"}


def actor(name: str, size: tuple[int, int] = SIZE, dreams: bool = False, **changes: Any) -> Viewer:
    """Return robots as a checkpoint moves them; size: of pictures [px]; changes: of its configuration, by field."""
    loaded = checkpoint.load(ROOT / "checkpoints" / f"{name}.pt")
    width, height = size
    cfg = override(loaded.config, {"render.width": width, "render.height": height, "seed": 0} | changes)
    return System(cfg, Console(quiet=True), loaded, loaded.chosen).viewer(dreams)


def stills(
    name: str,
    times: Sequence[float],
    size: tuple[int, int] = SIZE,
    bare: bool = False,
    turned: float = 0.0,
    nearer: float = 1.0,
    overlays: Collection[str] = SHOWN,
    **more: Any,
) -> list[Image.Image]:
    """Return pictures of an episode at some times [s], half as wide and high as drawn; more: of actor().

    size: as drawn [px]; bare: without the card of text; turned: by how much is looked at it from further left [rad];
    nearer: from how much of the distance; overlays: shown
    """
    shown = " ".join(x for x in overlays if x != "numbers" or not bare)
    viewer = actor(name, size, **{"render.overlays": shown} | more)
    steps = {round(time / viewer.cfg.env.ctrl_dt) for time in times}
    found = []
    with offscreen_display(), viewer.window(visible=False) as window:
        window.camera.azimuth += turned
        window.camera.distance *= nearer
        for _ in viewer.frames(window, 1):
            if round(viewer.time / viewer.cfg.env.ctrl_dt) in steps:
                found.append(Image.fromarray(window.capture()))
            if len(found) == len(steps):
                break
    return [picture.reduce(SMALLER) for picture in found]


def in_a_row(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Write pictures side by side."""
    tiled(pictures, len(pictures)).save(path, optimize=True)


def indexed(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Return pictures of the same 256 colours, each pixel of the nearest: dithered, they would be larger."""
    palette = tiled(pictures[::10], 1).quantize()
    return [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]


def evaluations(name: str, *columns: str) -> dict[tuple[str, ...], list[list[dict[str, float]]]]:
    """Return what a benchmark wrote by --csv: for each text in some columns the evaluations of each seed."""
    found: dict[tuple[str, ...], list[list[dict[str, float]]]] = {}
    texts = *columns, "seed"
    with open(DOCS / name, newline="") as file:
        for key, lines in itertools.groupby(csv.DictReader(file), operator.itemgetter(*texts)):
            rows = [{column: float(x) for column, x in line.items() if x and column not in texts} for line in lines]
            found.setdefault(key[:-1], []).append(rows)
    return found


def main() -> int:
    """Make the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)} (all)")
    parser.add_argument("--out", type=Path, default=DOCS, metavar="FOLDER", help="where to write them (docs)")
    args = parser.parse_args()
    try:
        for name in args.names or PICTURES:
            if name in MEASURED:
                raise ConfigError(f"{name}: made by {MEASURED[name]}")
            if name not in PICTURES:
                raise ConfigError(f"{name}: expected one of PICTURES, {suggest(name, PICTURES)}")
            make(args.out / name)
    except (ConfigError, RenderError) as error:
        print(f"examples.gallery: {error}", file=sys.stderr)
        return 2
    return 0


def make(path: Path) -> None:
    """Write a picture, whole or not at all, and say how large it is and how long it took."""
    require_file(path, "--out")
    start = time.perf_counter()
    part = path.with_name(f".part.{path.name}")
    try:
        PICTURES[path.name](part)
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {reason(error)}") from None
    finally:
        part.unlink(missing_ok=True)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
