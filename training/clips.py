"""Clips of what evaluations see: some seconds of the first robot, drawn beside the training.

    an evaluation          film() after every control step: what there is to see
    a thread of its own    passes it on, and waits for the picture
    another process        draws (training/clip.py)

One is drawn at a time, with what time the training leaves: an evaluation whose predecessor's is still being drawn goes
without.
"""

import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Callable
from typing import Any

from environments import ABEnv, EnvState
from training import beside
from training.clip import HEIGHT, WIDTH
from training.spectator import fewest, first

FOLDER = "clips"
SECONDS = 4.0  # of what is shown: an episode that ends before is followed by the next
MOST_FPS = 30
PATIENCE = 30.0  # at the end of a training, for the last one [s]


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip that was drawn: of which evaluation, and the picture that moves, a GIF, with its size [px]."""

    env_steps: int
    gif: bytes
    size: tuple[int, int] = (WIDTH, HEIGHT)


class Clips:
    """Has clips drawn of evaluations.

    name: of the task; folder: of the run; ctrl_dt: time between two control steps [s]; say: prints a line for people
    """

    def __init__(self, name: str, folder: pathlib.Path, ctrl_dt: float, say: Callable[[str], None]) -> None:
        self.folder = folder / FOLDER
        self._name = name
        self._dt = ctrl_dt
        self._every = max(1, round(1 / (MOST_FPS * ctrl_dt)))  # control steps to a picture
        self._fps = max(1, round(1 / (self._every * ctrl_dt)))
        self._say = say
        self._thread: threading.Thread | None = None
        self._process: Any = None
        self._done: Clip | None = None
        self._trouble = ""
        self._told = False  # of it
        self.begin()

    @property
    def busy(self) -> bool:
        """Whether one is being drawn."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def ready(self) -> bool:
        """Whether another may be drawn: none is at the moment, and nothing stood in the way of the last one."""
        return not self.busy and not self._trouble

    def begin(self) -> None:
        """Forget what was filmed."""
        self._likeness: Any = None
        self._shots: list[tuple[dict, dict]] = []
        self._steps = 0

    def film(self, env: ABEnv, state: EnvState) -> None:
        """Take what there is to see of the first robot; call it after every control step, as long as there are any."""
        number = self._steps
        self._steps += 1
        if self._trouble or number % self._every or number * self._dt >= SECONDS:
            return
        if self._likeness is None:
            from renderer import RenderError  # which compiles; a training without clips does without
            from training.live import Likeness

            try:
                self._likeness = Likeness.of(env, self._name, 1)
            except RenderError as error:
                self._trouble = str(error)
                return
            self._env = fewest(env, 1)
        known = {"time": number * self._dt, "fallen": state.terminated[:1].copy()}
        self._shots.append((first(self._env.views(), 1), known))

    def draw(self, iteration: int, env_steps: int, rows: tuple[tuple[str, str], ...]) -> None:
        """Have what was filmed drawn, into iteration_00040.mp4; rows: label and value, that the picture tells.

        Raises OSError where there can be no such file.
        """
        if not self._shots:
            return
        self.folder.mkdir(exist_ok=True)
        shots = [(views, {"hud": rows, **known}) for views, known in self._shots]
        subject = self.folder / f"iteration_{iteration:05d}.mp4", self._likeness, shots, self._fps
        self.begin()
        self._process = beside.start("training.clip")
        self._thread = threading.Thread(target=self._serve, args=(self._process, subject, env_steps), daemon=True)
        self._thread.start()

    def _serve(self, process: Any, subject: tuple, env_steps: int) -> None:
        """Pass on what is to be drawn, and take what is made of it."""
        try:
            beside.send(process.stdin, subject)
            made = beside.receive(process.stdout)
            if isinstance(made, bytes):
                self._done = Clip(env_steps, made)
            else:
                self._trouble = made
        except beside.GONE:
            pass
        finally:
            beside.end(process)
            with contextlib.suppress(OSError):
                for part in self.folder.glob(".*.part.*"):  # of one that was killed
                    part.unlink()

    def take(self) -> Clip | None:
        """Return the clip that was drawn since the last call, if one was; say, once, if none can be."""
        if self._trouble and not self._told:
            self._say(f"no clips: {self._trouble}")
            self._told = True
        done = self._done
        self._done = None
        return done

    def close(self, wait: bool = False) -> None:
        """End; again is harmless. wait: for what is being drawn, a while."""
        if self.busy:
            if wait:
                self._say(f"waiting for a clip to be drawn, at most {PATIENCE:g} s; Ctrl-C goes without")
                with contextlib.suppress(KeyboardInterrupt, *beside.GONE):  # it may end this moment
                    self._process.stdin.write(b".")  # no rests any more
                    self._process.stdin.flush()
                    self._thread.join(PATIENCE)
            beside.end(self._process)
            self._thread.join()
