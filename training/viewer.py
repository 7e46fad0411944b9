"""Robots of a checkpoint, step by step, for a window, a browser or a recording."""

import itertools
import math
import pathlib
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import torch

from config import Config
from entity import Creature
from environments import ABEnv
from settings import ConfigError, knobs, override
from training import runs
from training.evaluation import EVALUATION_SEED
from training.foresight import Foresight

HUD_SECONDS = 0.1  # between changes of the numbers in the picture: faster, nobody can read them
MOST_FPS = 60  # of windows and recordings; faster tasks show every other control step, or fewer
MOST_BEHIND = 0.25  # how much of real time is caught up with at once [s]
SLOWEST = 1 / 16  # and its inverse: how fast time goes
STICK_SECONDS = 0.12  # time constant of a stick, which keys make of 0 and 1
STICK_REST = 0.02  # share of the largest below which a stick is at rest
NOTE_SECONDS = 2.5  # that a note stays
RATE_SECONDS = 2.0  # over which real time is measured
GRIP_STEP = 1.25  # of friction, times
LOAD_STEP = 0.05  # of payload, in the robot's mass
HARDER_STEP = 0.1  # of a terrain's difficulty

# What opens a checkpoint anew: a configuration, a simulator and a file's path, or None for the same policy
Opener = Callable[[Config, str, pathlib.Path | None], tuple[Creature, ABEnv, Config]]


class Viewer:
    """Runs robots step by step, as a user asks, and says what there is to draw.

    foresight: of the world model of the only one, shown as a ghost
    opener: opens another world, simulator or checkpoint; None where these stay as they are
    simulator: what moves the robots, by name; simulators: what there is
    checkpoint: whose policy it is; checkpoints: what there is

    Several stand side by side, on a terrain where they are; one of them is watched.
    """

    def __init__(
        self,
        creature: Creature,
        env: ABEnv,
        cfg: Config,
        device: torch.device,
        foresight: Foresight | None = None,
        opener: Opener | None = None,
        simulator: str = "foal",
        simulators: tuple[str, ...] = ("foal",),
        checkpoint: pathlib.Path | None = None,
        checkpoints: list[pathlib.Path] | None = None,
    ) -> None:
        self.device = device
        self.foresight = foresight
        self.opener = opener
        self.simulator = simulator
        self.simulators = simulators
        self.checkpoint = checkpoint
        self.checkpoints = checkpoints or []
        self.seed = EVALUATION_SEED + cfg.seed
        self.paused = False
        self.speed = 1.0  # of time
        self.behind = 0.0  # real time that is still to be simulated [s]
        self.rate: float | None = None  # of simulated over real time, lately
        self.driving = False
        self.stick = np.zeros(3)
        self.asked = np.zeros(3)  # where the stick goes
        self.note = ""
        self.noted = -math.inf
        self._take(creature, env, cfg)
        self.restart()

    def _take(self, creature: Creature, env: ABEnv, cfg: Config) -> None:
        """Show another policy, or the same in another world."""
        from renderer import Picture  # which compiles; a training does without

        self.creature = creature
        self.env = env
        self.cfg = cfg
        self.every = max(1, round(1 / (MOST_FPS * cfg.env.ctrl_dt)))  # control steps to a picture
        self.fps = round(1 / (self.every * cfg.env.ctrl_dt))
        self.picture = Picture(env, cfg.task)

    def window(self, visible: bool = True) -> Any:
        """Return a window for what there is to see; raise RenderError if there is nothing."""
        render = self.cfg.render
        return self.picture.window(
            width=render.width, height=render.height, visible=visible, fps=self.fps, shown=self._shown()
        )

    def web(self, host: str, port: int) -> Any:
        """Return a page for browsers with what there is to see; raise RenderError where it cannot be served."""
        names = [short_name(path) for path in self.checkpoints]
        current = short_name(self.checkpoint) if self.checkpoint else ""
        return self.picture.web(host=host, port=port, shown=self._shown(), checkpoints=names, checkpoint=current)

    def _shown(self) -> tuple[str, ...]:
        """Return the names of the overlays that are shown at first."""
        from renderer.controls import overlays

        try:
            return overlays(self.cfg.render.overlays)
        except ValueError as error:
            raise ConfigError(f"render.overlays: {error}") from None

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
        self._steer()
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
        """Run in real time until the window is closed, obeying its user; the simulation does not wait for pictures."""
        self.env.start_in_front(self.picture.watched)
        self.restart()
        before = measured = time.perf_counter()
        simulated = self.time
        while not window.should_close:
            self.obey(window)
            now = time.perf_counter()
            self.pass_time(now - before)
            before = now
            if now - measured >= RATE_SECONDS:
                self.rate = None if self.paused or self.time < simulated else (self.time - simulated) / (now - measured)
                measured = now
                simulated = self.time
            window.draw(self.snapshot(window.shown))

    def pass_time(self, seconds: float) -> None:
        """Simulate what has passed of real time [s], as long as nothing is paused."""
        if self.paused:
            self.behind = 0.0
            return
        self.behind = min(self.behind + self.speed * seconds, max(1.0, self.speed) * MOST_BEHIND)
        while self.behind >= self.cfg.env.ctrl_dt:
            self.behind -= self.cfg.env.ctrl_dt
            self.go_on()

    def frames(self, window: Any, episodes: int) -> Iterator[None]:
        """Draw every instant of some episodes."""
        for step in itertools.count():
            if step % self.every == 0:
                window.draw(self.snapshot(window.shown))
                yield
            episodes -= self.go_on(last=episodes == 1)
            if episodes == 0:
                return

    # What users ask for

    def obey(self, window: Any) -> None:
        """Do what the user of a window has asked for since its last picture."""
        requests = window.requests
        for name in requests.controls:
            self._obey(name, window)
        if chosen := next((path for path in self.checkpoints if short_name(path) == requests.checkpoint), None):
            self._try(lambda: self._open_checkpoint(chosen, window))
        self._take_stick(requests.drive)
        if requests.chosen is not None and requests.chosen < self.env.num_envs:
            self._watch(requests.chosen)
        if requests.shove is not None and requests.shove[0] < self.env.num_envs:
            robot, velocity = requests.shove
            self.env.push(np.asarray(velocity, float), robot)
        if requests.goal is not None:
            watched = self.picture.watched
            self.env.set_goal(watched, self.picture.unplaced(watched, requests.goal))

    def _obey(self, name: str, window: Any) -> None:
        """Do what a control of renderer.controls asks for."""
        physics = getattr(self.cfg.env, "physics", None)
        if name == "pause":
            self.paused = not self.paused
        elif name == "step":
            self.paused = True
            self.go_on()
        elif name in ("slower", "faster"):
            self.speed = min(max(self.speed * (0.5 if name == "slower" else 2.0), SLOWEST), 1 / SLOWEST)
            self.tell(f"time goes at {self.speed:g} x")
        elif name == "reset":
            self.restart()
        elif name in ("next", "previous"):
            self._watch((self.picture.watched + (1 if name == "next" else -1)) % self.env.num_envs)
        elif name == "drive":
            self._drive(not self.driving)
        elif name in ("grip", "slip"):
            times = GRIP_STEP if name == "grip" else 1 / GRIP_STEP
            self._change(
                physics,
                window,
                "friction {0.foot_friction:g}",
                foot_friction=lambda p: p.foot_friction * times,
                static_friction=lambda p: p.static_friction * times,
            )
        elif name in ("load", "unload"):
            kilos = LOAD_STEP * self.env.robot.total_mass * (1 if name == "load" else -1) if physics else 0.0
            self._change(physics, window, "payload {0.payload:g} kg", payload=lambda p: p.payload + kilos)
        elif name in ("harder", "easier"):
            self._change_ground(HARDER_STEP if name == "harder" else -HARDER_STEP, window)
        elif name == "simulator":
            following = self.simulators[(self.simulators.index(self.simulator) + 1) % len(self.simulators)]
            self._try(lambda: self._open(self.cfg, following, window, f"physics: {following}"))
        elif name in ("checkpoint", "checkpoint before"):
            self._try(lambda: self._open_next(1 if name == "checkpoint" else -1, window))

    def tell(self, note: str) -> None:
        """Show a line for a while."""
        self.note = note
        self.noted = time.perf_counter()

    def _try(self, change: Callable[[], None]) -> None:
        """Make a change; say why where it cannot be."""
        try:
            change()
        except (ConfigError, ValueError) as error:
            self.tell(str(error))

    def _watch(self, robot: int) -> None:
        if robot != self.picture.watched:
            self._drive(False)
            self.picture.watched = robot
            self.read = -HUD_SECONDS
            self.tell(f"robot {robot + 1} of {self.env.num_envs}")

    def _drive(self, driving: bool) -> None:
        """Take the command of the one that is watched in hand, or leave it to the task."""
        if driving == self.driving:
            return
        self.driving = driving and self.env.steer(self.picture.watched, (0.0, 0.0, 0.0))
        self.stick[:] = 0.0
        self.asked[:] = 0.0
        if not driving:
            self.env.steer(self.picture.watched, None)
        self.tell(
            "driving; T leaves the commands to the task" if self.driving
            else f"task {self.cfg.task} has no velocities to command" if driving
            else "the task commands"
        )  # fmt: skip

    def _take_stick(self, drive: tuple[float, float, float] | None) -> None:
        if drive is not None and not self.driving:
            self._drive(True)
        self.asked[:] = drive or 0.0

    def _steer(self) -> None:
        """Let the stick follow what is asked for, and the command follow the stick."""
        if not self.driving:
            return
        self.stick += (self.asked - self.stick) * (1.0 - math.exp(-self.cfg.env.ctrl_dt / STICK_SECONDS))
        self.stick[(self.asked == 0.0) & (abs(self.stick) < STICK_REST)] = 0.0
        self.env.steer(self.picture.watched, self.stick.tolist())

    def _change(self, section: Any, window: Any, note: str, **changes: Callable[[Any], float]) -> None:
        """Change numbers of a section of the task's world, within their limits, and go on in that."""
        if section is None:
            self.tell(f"task {self.cfg.task} has no such thing")
            return
        limits = {knob.name: knob.metadata for knob in knobs(section)}
        new = {
            name: float(f"{min(max(value(section), limits[name]['low']), limits[name]['high']):.3g}")
            for name, value in changes.items()
        }

        def change() -> None:
            world = override(self.cfg, {f"physics.{name}": value for name, value in new.items()})
            self._open(world, self.simulator, window, note.format(world.env.physics))

        self._try(change)

    def _change_ground(self, more: float, window: Any) -> None:
        """Make the whole terrain as hard as its easiest tile, and more."""
        if getattr(self.env, "terrain", None) is None:
            self.tell(f"task {self.cfg.task} is on level ground")
            return
        hard = round(min(max(self.cfg.env.terrain.difficulty[0] + more, 0.0), 1.0), 2)
        world = override(self.cfg, {"terrain.difficulty": (hard, hard)})
        self._try(lambda: self._open(world, self.simulator, window, f"difficulty {hard:g}"))

    def _open(
        self, cfg: Config, simulator: str, window: Any, note: str, checkpoint: pathlib.Path | None = None
    ) -> None:
        """Go on in another world or simulator, or begin with another checkpoint."""
        if self.opener is None or self.foresight:
            raise ConfigError("expected without --dream, whose world stays as it is")
        before = self.env
        watched = self.picture.watched
        creature, env, cfg = self.opener(cfg, simulator, checkpoint)
        if checkpoint is None:
            env.go_on_from(before)
            creature = self.creature
        self._take(creature, env, cfg)
        self.simulator = simulator
        self.picture.watched = watched if watched < env.num_envs else self.picture.watched
        if checkpoint is not None:
            self.checkpoint = checkpoint
            self.driving = False
            env.start_in_front(self.picture.watched)
            self.restart()
        window.stage(**self.picture.stage())
        self.behind = 0.0
        self.tell(note)

    def _open_next(self, step: int, window: Any) -> None:
        """Begin with the next checkpoint of those that there are, or the one before."""
        names = self.checkpoints
        if not names:
            raise ConfigError("there are no other checkpoints")
        at = names.index(self.checkpoint) if self.checkpoint in names else -step
        self._open_checkpoint(names[(at + step) % len(names)], window)

    def _open_checkpoint(self, path: pathlib.Path, window: Any) -> None:
        self._open(self.cfg, self.simulator, window, f"checkpoint {short_name(path)}", path)

    # What there is to see

    def snapshot(self, shown: Collection[str] | None = None) -> Any:
        """Return what there is to see of this instant; shown: names of the overlays, None for those at first."""
        watched = self.picture.watched
        if self.time >= self.read + HUD_SECONDS - 1e-9 or self.time < self.read:
            self.read = self.time
            reward = f"{float(self.state.reward[watched]) / self.cfg.env.ctrl_dt:.2f} /s"
            of_task = self.env.hud(watched)
            self.rows = ("time", f"{self.time:.1f} s"), ("reward", reward), *of_task, ("falls", str(self.falls))
            if self.rate is not None:
                self.rows += (("real time", f"{self.rate:.2f} x"),)
        state = "paused" if self.paused else f"{self.speed:g} x" if self.speed != 1.0 else ""
        note = self.note if time.perf_counter() < self.noted + NOTE_SECONDS else ""
        seen = {
            "hud": self.rows, "fallen": self.state.terminated, "time": self.time, "state": state, "note": note,
        }  # fmt: skip
        if self.foresight:
            seen["ghost"] = self.foreseen()
        return self.picture.frame(**({"shown": shown} if shown is not None else {}), **seen)

    def foreseen(self) -> Any:
        """Return the pose that the world model foresaw for this instant."""
        from renderer import Snapshot

        f = self.foresight
        return Snapshot(base_position=f.place, base_quaternion=f.quaternion, joint_position=f.joints)


def short_name(path: pathlib.Path) -> str:
    """Return what people call a checkpoint: the task's that comes with Foal, or its run's folder."""
    return path.stem if path.parent == runs.SHIPPED else f"{path.parent.name}/{path.stem}"
