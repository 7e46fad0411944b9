"""Shows, in a process of its own, robots that another process moves."""

import dataclasses
import queue
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, BinaryIO, Protocol

from physics import Robot, Terrain
from renderer import Picture, RenderError
from renderer.controls import DETAILED, SHOWN, Requests, overlays
from renderer.snapshot import Frame
from training import beside

FPS = 30
Wanted = tuple[int, bool]  # the robot that is watched, and whether its details are shown
SHARE = 0.02  # of all cores that drawing may take


class Screen(Protocol):
    """What frames are drawn on: a Window, a Web, or whatever else has these."""

    shown: set[str]  # names of controls.OVERLAYS
    requests: Requests  # since the last frame

    def draw(self, frame: Frame) -> None:
        """Draw a frame, and heed who is watching."""

    @property
    def should_close(self) -> bool:
        """Whether who is watching has seen enough."""


@dataclass
class Likeness:
    """What a Picture asks of an environment of N robots, which itself is in another process.

    name: of the task; spacing: EnvCfg.render_spacing [m]; latest, known: views(), and detail() of the one that is
    watched, as they are now
    """

    name: str
    num_envs: int
    spacing: float
    camera: tuple[float, float]
    terrain: Terrain | None
    robot: Robot | None
    parts: tuple[Any, ...]
    latest: dict[str, Any] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)

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

    def detail(self, _: int) -> dict[str, Any]:
        """Return what overlays show of the one that is watched."""
        return self.known


def main(told: BinaryIO, answers: BinaryIO) -> None:
    """Show what is told: a Likeness, a RenderCfg, host and port of a page or None, then views and what else is known.

    Whenever it is ready for more it answers which robot is watched, and whether its details are shown. Returns when the
    window is closed; see training/beside.py.
    """
    likeness, cfg, web = beside.receive(told)
    picture = Picture(likeness, likeness.name)
    shown = overlays(cfg.overlays)
    if web:
        host, port = web
        screen = picture.web(host=host, port=port, shown=shown, driven=False)
    else:
        screen = picture.window(width=cfg.width, height=cfg.height, fps=FPS, shown=shown, driven=False)
    with screen as window:
        beside.step_back()
        arrived: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=_take_in, args=(told, arrived), daemon=True).start()
        show(window, picture, arrived, lambda wanted: beside.send(answers, wanted))


def _take_in(told: BinaryIO, arrived: queue.SimpleQueue) -> None:
    """Put everything that comes in a queue, and None when nothing more does."""
    try:
        while True:
            arrived.put(beside.receive(told))
    except beside.GONE:
        arrived.put(None)


def show(screen: Screen, picture: Picture, arrived: queue.SimpleQueue, ask: Callable[[Wanted], None]) -> None:
    """Draw what arrives, over and over until something else does, until the screen is closed or None arrives.

    arrived: of pairs, views of all robots and what else of a frame is known; ask: says what may come next
    """
    frame = None
    asked = paused = False
    pace = beside.Pace(SHARE)
    while not screen.should_close:
        if not (asked or paused):
            ask((picture.watched, not screen.shown.isdisjoint(DETAILED)))
            asked = True
        if frame is None or not arrived.empty():
            if (seen := arrived.get()) is None:
                return
            asked = False
            frame = frame_of(picture, *seen, frame, screen.shown)
        screen.draw(dataclasses.replace(frame, state="paused") if paused else frame)
        requests = screen.requests
        paused ^= "pause" in requests.controls
        count = picture.env.num_envs
        step = ("next" in requests.controls) - ("previous" in requests.controls)
        picture.watched = (picture.watched + step) % count
        if requests.chosen is not None and requests.chosen < count:
            picture.watched = requests.chosen
        pace.rest()


def frame_of(
    picture: Picture,
    views: dict[str, Any],
    known: dict[str, Any],
    last: Frame | None,
    shown: Collection[str] = SHOWN,
) -> Frame:
    """Return what there is to see, the last frame again where numbers are not finite.

    known: what else of a frame is, and maybe as "detail" what the environment's is; shown: names of controls.OVERLAYS

    Raises RenderError where there is none before.
    """
    picture.env.latest = views
    picture.env.known = known.pop("detail", {})
    try:
        return picture.frame(shown, **known)
    except RenderError:
        if last is None:
            raise
        return last
