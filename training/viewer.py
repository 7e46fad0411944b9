"""Robots of a checkpoint, step by step, for a window or a recording."""

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

HUD_SECONDS = 0.1  # between changes of the numbers in the picture: faster, nobody can read them
MOST_FPS = 60  # of windows and recordings; faster tasks show every other control step, or fewer


class Viewer:
    """Runs robots step by step and says what there is to draw.

    foresight: of the world model of the only one, shown as a ghost

    Several stand side by side, on a terrain where they are; one of them is watched.
    """

    def __init__(
        self,
        creature: Creature,
        env: ABEnv,
        cfg: Config,
        device: torch.device,
        foresight: Foresight | None = None,
    ) -> None:
        from renderer import Picture  # which compiles; a training does without

        self.creature = creature
        self.env = env
        self.cfg = cfg
        self.device = device
        self.foresight = foresight
        self.seed = EVALUATION_SEED + cfg.seed
        self.every = max(1, round(1 / (MOST_FPS * cfg.env.ctrl_dt)))  # control steps to a picture
        self.fps = round(1 / (self.every * cfg.env.ctrl_dt))
        self.picture = Picture(env, cfg.task)
        self.restart()

    def window(self, visible: bool = True) -> Any:
        """Return a window for what there is to see; raise RenderError if there is nothing."""
        render = self.cfg.render
        return self.picture.window(render.width, render.height, visible, self.fps)

    def restart(self) -> None:
        """Begin a new episode."""
        self.state = self.env.init_state(self.seed)
        self.memory = self.creature.initial_state(self.env.num_envs)
        self.seed += 1
        self.time = 0.0
        self.falls = 0
        self.rows: tuple[tuple[str, str], ...] = ()
        self.read = -HUD_SECONDS  # when the numbers of the picture were taken [s]
        if self.foresight:
            self.foresight.begin(self.state)

    def step(self) -> bool:
        """Advance one control step; return whether the episode of the one that is watched ended."""
        starts = torch.from_numpy(self.state.done.astype(np.float32)).to(self.device)
        obs = torch.from_numpy(self.state.obs).to(self.device)
        action, _, self.memory = self.creature.act(obs, self.memory, starts)
        self.state = self.env.step(action.cpu().numpy())
        self.time += self.cfg.env.ctrl_dt
        ended = bool(self.state.done[self.picture.watched])
        self.falls += int(self.state.terminated[self.picture.watched])
        if self.foresight and not ended:
            self.foresight.step(self.state, action)
        return ended

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
        watched = self.picture.watched
        if self.time >= self.read + HUD_SECONDS - 1e-9:
            self.read = self.time
            reward = f"{float(self.state.reward[watched]) / self.cfg.env.ctrl_dt:.2f} /s"
            of_task = self.env.hud(watched)
            self.rows = ("time", f"{self.time:.1f} s"), ("reward", reward), *of_task, ("falls", str(self.falls))
        seen = {"hud": self.rows, "fallen": self.state.terminated, "time": self.time}
        return self.picture.frame(**seen | ({"ghost": self.foreseen()} if self.foresight else {}))

    def foreseen(self) -> Any:
        """Return the pose that the world model foresaw for this instant."""
        from renderer import Snapshot

        f = self.foresight
        return Snapshot(base_position=f.place, base_quaternion=f.quaternion, joint_position=f.joints)
