"""Shows, in a process of its own, robots that another process moves."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, BinaryIO, Protocol

from physics import Robot, Terrain
from renderer import Picture, RenderError
from renderer.snapshot import Frame
from training import beside

FPS = 30
SHARE = 0.1  # of a core that drawing may take: without a graphics card a picture takes 0.1 s
LONGEST = 1.0  # rest between two pictures, in which nobody who is watching is heeded [s]


class Screen(Protocol):
    """What frames are drawn on: a Window, or whatever else has these."""

    def draw(self, frame: Frame) -> None:
        """Draw a frame, and heed who is watching."""

    @property
    def should_close(self) -> bool:
        """Whether who is watching has seen enough."""

    @property
    def paused(self) -> bool:
        """Whether the picture should stand still."""


@dataclass
class Likeness:
    """What a Picture asks of an environment of N robots, which itself is in another process.

    name: of the task; spacing: EnvCfg.render_spacing [m]; latest: views(), as they are now
    """

    name: str
    num_envs: int
    spacing: float
    camera: tuple[float, float]
    terrain: Terrain | None
    robot: Robot | None
    parts: tuple[Any, ...]
    latest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, env: Any, name: str, count: int) -> "Likeness":
        """Return the likeness of the first robots of an environment; raise RenderError if there is nothing to draw."""
        _ = Picture(env, name).subject
        terrain, robot = (getattr(env, attribute, None) for attribute in ("terrain", "robot"))
        return cls(name, count, env.cfg.render_spacing, env.camera, terrain, robot, env.solids())

    @property
    def cfg(self) -> SimpleNamespace:
        """As much of a configuration as a Picture reads."""
        return SimpleNamespace(render_spacing=self.spacing)

    def solids(self) -> tuple[Any, ...]:
        """Return what there is to draw of a robot, where it is not a legged one."""
        return self.parts

    def views(self) -> dict[str, Any]:
        """Return how it lies."""
        return self.latest


def main(told: BinaryIO, answers: BinaryIO) -> None:
    """Show in a window what is told: a Likeness, the window's size, then views and what is known of them in turn.

    Whenever it is ready for more it answers None. Returns when the window is closed; see training/beside.py.
    """
    likeness, width, height = beside.receive(told)
    picture = Picture(likeness, likeness.name)
    with picture.window(width, height, True, FPS) as window:
        beside.step_back()
        arrived: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=_take_in, args=(told, arrived), daemon=True).start()
        show(window, picture, arrived, lambda: beside.send(answers, None))


def _take_in(told: BinaryIO, arrived: queue.SimpleQueue) -> None:
    """Put everything that comes in a queue, and None when nothing more does."""
    try:
        while True:
            arrived.put(beside.receive(told))
    except beside.GONE:
        arrived.put(None)


def show(screen: Screen, picture: Picture, arrived: queue.SimpleQueue, ask: Callable[[], None]) -> None:
    """Draw what arrives, over and over until something else does, until the screen is closed or None arrives.

    arrived: of pairs, views of all robots and what else of a frame is known; ask: says that another may come
    """
    frame = None
    asked = False
    while not screen.should_close:
        if not (asked or screen.paused):
            ask()
            asked = True
        if frame is None or not arrived.empty():
            if (seen := arrived.get()) is None:
                return
            asked = False
            frame = frame_of(picture, *seen, frame)
        begun = time.process_time()
        screen.draw(frame)
        time.sleep(min(LONGEST, (1 / SHARE - 1) * (time.process_time() - begun)))


def frame_of(picture: Picture, views: dict[str, Any], known: dict[str, Any], last: Frame | None) -> Frame:
    """Return what there is to see, the last frame again where numbers are not finite.

    Raises RenderError where there is none before.
    """
    picture.env.latest = views
    try:
        return picture.frame(**known)
    except RenderError:
        if last is None:
            raise
        return last
