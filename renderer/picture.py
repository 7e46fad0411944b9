"""What there is to see of an environment: its robots side by side, or on a terrain where they are.

An environment is asked for what it shows, ``solids()`` or ``robot``, and ``views()``; nothing of it is changed.
"""

import contextlib
import math
from collections.abc import Collection
from typing import Any

import numpy as np

from renderer.camera import VIEW
from renderer.controls import DETAILED, SHOWN
from renderer.display import RenderError, offscreen_display
from renderer.snapshot import Detail, Frame, Scenery, Snapshot
from renderer.web import Web
from renderer.window import Window


class Picture:
    """Frames of an environment.

    env: of N robots
    name: of the task, for what is said where there is nothing to draw

    watched: the one that the camera follows, at first the one in the middle
    """

    def __init__(self, env: Any, name: str) -> None:
        self.env = env
        self.name = name
        self.terrain = getattr(env, "terrain", None)
        side = math.ceil(math.sqrt(env.num_envs))
        self.watched = min(side * (side // 2) + side // 2, env.num_envs - 1)
        row, column = np.divmod(np.arange(env.num_envs), side)
        apart = np.stack([row - row[self.watched], column - column[self.watched], 0 * row], 1)
        spacing = 0.0 if self.terrain else 2 * env.cfg.render_spacing
        self.places = spacing * apart  # (N, 3) [m]
        self.across = spacing * side if env.num_envs > 1 else 0.0  # of the ground that they stand on [m]

    @property
    def subject(self) -> Any:
        """What there is to see, solids or a robot; raises RenderError if there is nothing."""
        subject = self.env.solids() or getattr(self.env, "robot", ())
        if not subject:
            raise RenderError(f"task {self.name} has nothing to draw: its environment defines no solids()")
        return subject

    def stage(self) -> dict[str, Any]:
        """Return what Window.stage() takes to show the environment; raise RenderError if there is nothing to see."""
        env = self.env
        return {
            "subject": self.subject,
            "title": f"Foal: {self.name}",
            "terrain": self.terrain,
            "reach": env.cfg.render_spacing,
            "view": getattr(env, "camera", VIEW),
            "across": self.across,
        }

    def window(self, **more: Any) -> Window:
        """Return a window for what there is to see; RenderError where it is nothing; more: arguments of Window."""
        return Window(**more, **self.stage())

    def web(self, **more: Any) -> Web:
        """Return a page for browsers with what there is to see, as window(); more: arguments of Web."""
        return Web(**more, **self.stage())

    def frame(self, shown: Collection[str] = SHOWN, **seen: Any) -> Frame:
        """Return what there is to see of this instant.

        shown: names of controls.OVERLAYS; seen: what else of a Frame's fields is known
        """
        view = self.env.views()
        seen = {"watched": self.watched} | seen
        if not set(shown).isdisjoint(DETAILED):
            seen |= {"detail": self.detail()}
        if self.env.solids():
            if missing := {"position", "quaternion"} - set(view):
                raise RenderError(
                    f"task {self.name}: expected view() to return {' and '.join(sorted(missing))} of its solids"
                )
            placed = {name: self._placed(view.get(name)) for name in ("goal", "target")}
            return Scenery(view["position"] + self.places[:, None], view["quaternion"], **placed, **seen)
        followed = view.get("ghost")
        ghost = Snapshot(**followed | {"base_position": self._placed(followed["base_position"])}) if followed else None
        return Snapshot(
            self._placed(view["base_position"]),
            *(view[name] for name in ("base_quaternion", "joint_position", "foot_contact_force")),
            **{"goal": self._placed(view["goal"]), "push": view["push"], "ghost": ghost} | seen,
        )

    def detail(self) -> Detail:
        """Return what the environment knows of the one that is watched."""
        known = self.env.detail(self.watched)
        if (com := known.get("com")) is not None:
            known = known | {"com": com + self.places[self.watched]}
        return Detail(**known)

    def unplaced(self, robot: int, point: np.ndarray) -> np.ndarray:
        """Return where in its own world what a robot meets at a point (3) of the picture is [m]."""
        return point - self.places[robot]

    def _placed(self, points: np.ndarray | None) -> np.ndarray | None:
        """Return points (N, 3) of robots where these stand in the picture [m]."""
        return None if points is None else points + self.places


class Stills:
    """Pictures of an environment, one at a time and without a display, as arrays; close() it."""

    def __init__(self, env: Any, name: str, width: int, height: int, fps: int) -> None:
        self._picture = Picture(env, name)
        with contextlib.ExitStack() as stack:
            stack.enter_context(offscreen_display())
            self._window = stack.enter_context(self._picture.window(width=width, height=height, visible=False, fps=fps))
            self._stack = stack.pop_all()

    def take(self, **seen: Any) -> np.ndarray:
        """Return (height, width, 3) uint8 of this instant; seen: as for Picture.frame()."""
        self._window.draw(self._picture.frame(**seen))
        return self._window.capture()

    def close(self) -> None:
        """Close the window, and the display if it was started for it; closing twice is harmless."""
        self._stack.close()
