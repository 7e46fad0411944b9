"""How what moves robots is shown: in a window, on a page for browsers, in a file; a training, beside it."""

import dataclasses
import pathlib
from typing import Any

from rich.console import Console

from config import Config
from entity import Creature
from environments import ABEnv
from settings import ConfigError
from training import checkpoint as checkpoints
from training import runs
from training.checkpoint import Checkpoint
from training.display import counted
from training.engine import TrainingEngine
from training.foresight import AHEAD, Foresight
from training.resources import Resources
from training.spectator import Spectator
from training.viewer import Viewer

SIMULATORS = {"foal": None, "mujoco": "mujoco"}  # backends of the registry, None for a task's own


@dataclasses.dataclass(frozen=True)
class Screen:
    """Where it is shown: in a window, or if web is given, (host, port), on a page for browsers."""

    web: tuple[str, int] | None = None

    def ready(self) -> "Screen":
        """Return the same with a port that is free, where any was asked for.

        Raises RenderError where nothing can be shown.
        """
        from renderer import RenderError, display_available
        from renderer.web import free_port

        if self.web:
            host, port = self.web
            return Screen((host, free_port(host, port)))
        if not display_available():
            command = runs.command()
            raise RenderError(
                f"no display to open a window on; record a video instead: {command} --eval --record out.mp4, "
                "or watch in a browser: --web"
            )
        return self


class Watching:
    """The part of System that shows robots."""

    cfg: Config
    console: Console
    loaded: Checkpoint | None
    chosen: dict[str, Any]
    simulator: str
    model: str
    resources: Resources

    def viewer(self, dreams: bool = False) -> Viewer:
        """Return robots as the checkpoint moves them; dreams: with what its world model foresees."""
        env = self.make_env(1 if dreams else self.cfg.render.envs, "render.envs")
        creature = self.creature(env)
        if dreams and not hasattr(env, "motion"):
            raise ConfigError(f"--dream: expected a task of a legged robot, got {self.cfg.task}")
        foresight = Foresight(creature, env, self.resources.device) if dreams else None
        known = runs.policies(self.cfg.train.run_dir)
        path = pathlib.Path(self.loaded.path)
        path = next((other for other in known if other.resolve() == path.resolve()), path)
        with self.compiling(env):
            return Viewer(
                creature, env, self.cfg, self.resources.device, foresight, self.open_beside, self.simulator,
                tuple(SIMULATORS), path, known,
            )  # fmt: skip

    def open_beside(self, cfg: Config, simulator: str, path: pathlib.Path | None) -> tuple[Creature, ABEnv, Config]:
        """Return a policy, robots for it and their configuration, for somebody who watches.

        cfg: of the world; path: of another checkpoint, whose own world it is to be then, None for the same policy.
        """
        loaded = self.loaded
        if path is not None:
            loaded = checkpoints.load(path, modules=(self.cfg.task, self.cfg.network.policy))
            cfg = dataclasses.replace(loaded.config, render=cfg.render, train=cfg.train, seed=cfg.seed)
        system = type(self)(cfg, self.console, loaded, self.chosen, simulator)
        if path is None and simulator == self.simulator:
            system.model = self.model
        env = system.make_env(cfg.render.envs, "render.envs")
        with self.compiling(env):
            env.init_state()
        creature = system.creature(env)
        self.loaded = loaded
        return creature, env, cfg

    def watch(self, screen: Screen, dreams: bool = False) -> None:
        """Show the checkpoint until the window is closed; dreams: with what its world model foresees."""
        screen = screen.ready()
        viewer = self.viewer(dreams)
        try:
            with viewer.web(*screen.web) if screen.web else viewer.window() as window:
                if screen.web:
                    self.say(f"watch at {window.address}; Ctrl-C ends")
                viewer.show(window)
        finally:  # who watches a page ends by Ctrl-C
            if dreams and viewer.foresight.history:
                self.plot_dream(viewer, pathlib.Path(self.cfg.train.run_dir) / "dream.png")

    def record(self, path: str, episodes: int, dreams: bool = False) -> None:
        """Record some episodes of the checkpoint; dreams: with what its world model foresees."""
        from renderer import Film, Recorder, offscreen_display

        render = self.cfg.render
        with offscreen_display():
            viewer = self.viewer(dreams)
            most = -(-episodes * self.cfg.env.max_episode_steps // viewer.every)
            with (
                viewer.window(visible=False) as window,
                Recorder(path, render.width, render.height, viewer.fps) as video,
                Film(window, video) as film,
                counted(self.console, viewer.frames(window, episodes), most) as frames,
            ):
                for _ in frames:
                    film.take()
        self.say(f"recorded {episodes} episode{'s' if episodes > 1 else ''} to {path}")
        if dreams:
            self.plot_dream(viewer, pathlib.Path(path).with_suffix(".dream.png"))

    def dream(self) -> None:
        """Run an episode, foreseen by the world model as it goes, and plot it."""
        viewer = self.viewer(dreams=True)
        while not viewer.step():
            pass
        self.plot_dream(viewer, pathlib.Path(self.cfg.train.run_dir) / "dream.png")

    def plot_dream(self, viewer: Viewer, path: pathlib.Path) -> None:
        """Plot what the world model foresaw of the latest episode."""
        viewer.foresight.plot(path)
        self.say(f"what the world model foresaw, {AHEAD} control steps at a time: {path}")

    def spectator(self, engine: TrainingEngine, screen: Screen) -> Spectator:
        """Return what shows some of a worker's robots while they learn."""
        from renderer.web import page_address

        worker = engine.workers[0]
        spectator = Spectator(worker.env, self.cfg.task, self.cfg.render, self.say, screen.web)
        worker.after_step = spectator.after_step
        if screen.web:
            self.say(f"watch at {page_address(*screen.web)}")
        return spectator
