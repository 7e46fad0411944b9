"""One robot of a checkpoint, step by step, for a window or a recording."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from config import Config
from entity import Creature
from environments import ABEnv
from training.evaluation import EVALUATION_SEED
from training.foresight import Foresight

MOST_FPS = 60  # of windows and recordings; faster tasks show every other control step, or fewer


class Viewer:
    """Runs one robot step by step and says what there is to draw; foresight: of its world model, shown as a ghost."""

    def __init__(
        self,
        creature: Creature,
        env: ABEnv,
        cfg: Config,
        device: torch.device,
        foresight: Foresight | None = None,
    ) -> None:
        self.creature = creature
        self.env = env
        self.cfg = cfg
        self.device = device
        self.foresight = foresight
        self.seed = EVALUATION_SEED + cfg.seed
        self.every = max(1, round(1 / (MOST_FPS * cfg.env.ctrl_dt)))  # control steps to a picture
        self.fps = round(1 / (self.every * cfg.env.ctrl_dt))
        self.restart()

    def window(self, visible: bool = True) -> Any:
        """Return a window for what there is to see; raise RenderError if there is nothing."""
        from renderer import RenderError, Window

        env = self.env
        render = self.cfg.render
        subject = env.solids() or getattr(env, "robot", ())
        terrain = getattr(env, "terrain", None)
        if not subject:
            raise RenderError(f"task {self.cfg.task} has nothing to draw: its environment defines no solids()")
        reach = self.cfg.env.render_spacing
        view = env.camera
        return Window(
            subject, render.width, render.height, f"Foal: {self.cfg.task}", visible, self.fps, terrain, reach, view
        )

    def restart(self) -> None:
        """Begin a new episode."""
        self.state = self.env.init_state(self.seed)
        self.memory = self.creature.initial_state(1)
        self.seed += 1
        self.time = 0.0
        self.falls = 0
        if self.foresight:
            self.foresight.begin(self.state)

    def step(self) -> bool:
        """Advance one control step; return whether the episode ended."""
        action, _, self.memory = self.creature.act(torch.from_numpy(self.state.obs).to(self.device), self.memory)
        self.state = self.env.step(action.cpu().numpy())
        self.time += self.cfg.env.ctrl_dt
        if self.state.done[0]:
            self.falls += int(self.state.terminated[0])
            self.memory = self.creature.initial_state(1)
        elif self.foresight:
            self.foresight.step(self.state, action)
        return bool(self.state.done[0])

    def go_on(self, last: bool = False) -> bool:
        """Advance one control step; return whether the episode ended.

        Where it was not the last, the next one is foreseen from its beginning.
        """
        ended = self.step()
        if ended and self.foresight and not last:
            self.foresight.begin(self.state)
        return ended

    def show(self, window: Any) -> None:
        """Run until the window is closed, obeying its keys."""
        while not window.should_close:
            if window.reset_requested:
                self.restart()
            if window.push_requested is not None and hasattr(self.env, "push"):
                self.env.push(np.asarray(window.push_requested) * self.cfg.env.push.speed[1])
            for _ in range(0 if window.paused else self.every):
                self.go_on()
            window.draw(self.snapshot())

    def frames(self, window: Any, episodes: int) -> Iterator[None]:
        """Draw every instant of some episodes."""
        for step in itertools.count():
            if step % self.every == 0:
                window.draw(self.snapshot())
                yield
            episodes -= self.go_on(last=episodes == 1)
            if episodes == 0:
                return

    def snapshot(self) -> Any:
        """Return what there is to see of this instant."""
        from renderer import RenderError, Scenery, Snapshot

        view = self.env.view()
        reward = f"{float(self.state.reward[0]) / self.cfg.env.ctrl_dt:.2f} /s"
        rows = ("time", f"{self.time:.1f} s"), ("reward", reward), *self.env.hud(), ("falls", str(self.falls))
        seen = {"hud": rows, "fallen": bool(self.state.terminated[0]), "time": self.time}
        if self.env.solids():
            if missing := {"position", "quaternion"} - set(view):
                raise RenderError(
                    f"task {self.cfg.task}: expected view() to return {' and '.join(sorted(missing))} of its solids"
                )
            return Scenery(**view, **seen)
        posed = (view[name] for name in ("base_position", "base_quaternion", "joint_position", "foot_contact_force"))
        return Snapshot(*posed, goal=view["goal"], push=view["push"], ghost=self.ghost(view), **seen)

    def ghost(self, view: dict[str, Any]) -> Any:
        """Return the pose that the world model foresaw for this instant, or that the motion has which is followed."""
        from renderer import Snapshot

        f = self.foresight
        if f:
            return Snapshot(base_position=f.place, base_quaternion=f.quaternion, joint_position=f.joints)
        return Snapshot(**view["ghost"]) if view.get("ghost") else None
