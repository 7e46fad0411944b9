"""A window, or a page for browsers, beside a training that shows some of its robots as they are.

    training, a worker      after_step(): has it asked? then what there is to see of its first robots
    a thread of its own     passes questions and answers on
    another process         asks, draws, asks again (training/live.py)

What is never asked for costs nothing, and who draws slowly asks seldom.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any

from config import RenderCfg
from environments import ABEnv
from training import beside


class Spectator:
    """Shows robots of an environment while others step it.

    env: of a worker; name: of the task; cfg: how many robots, at most those of env, and the size of the window; say:
    prints a line for people; web: host and port of a page for browsers, in place of a window

    rows, seconds: label and value, and the time, that the picture tells; whoever knows sets them

    Raises RenderError where there is nothing to draw. If its window is closed, or no more is heard of its process,
    nothing more is shown; close() ends both.
    """

    def __init__(
        self,
        env: ABEnv,
        name: str,
        cfg: RenderCfg,
        say: Callable[[str], None],
        web: tuple[str, int] | None = None,
    ) -> None:
        from training.live import Likeness  # imports the renderer; a training that nobody watches does without

        self.rows: tuple[tuple[str, str], ...] = ()
        self.seconds = 0.0
        self._env = fewest(env, cfg.envs)
        self._count = min(cfg.envs, self._env.num_envs)
        self._say = say
        self._asked: tuple[int, bool] | None = None  # which robot is watched, and whether in detail
        self._heard = threading.Event()
        self._trouble = ""
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        subject = Likeness.of(env, name, self._count), cfg, web
        self._process = beside.start("training.live")
        self._thread = threading.Thread(target=self._serve, args=(subject,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the window, and show the robots as they begin; raise RenderError if it cannot be opened."""
        from renderer import RenderError

        self._heard.wait()
        if self._trouble:
            raise RenderError(self._trouble)
        self.after_step()

    def after_step(self) -> None:
        """Show the robots as they are, if that is asked for: between two control steps, by who takes them."""
        if self._asked:
            (watched, detailed), self._asked = self._asked, None
            known: dict[str, Any] = {"hud": self.rows, "time": self.seconds}
            if detailed:
                known["detail"] = self._env.detail(watched)
            self._answers.put((first(self._env.views(), self._count), known))

    def close(self) -> None:
        """Close the window; again is harmless."""
        self._answers.put(None)
        beside.end(self._process)
        self._thread.join()

    def _serve(self, subject: tuple) -> None:
        """Pass on what is to be seen, and every answer when it is asked for, until either side has enough."""
        process = self._process
        try:
            beside.send(process.stdin, subject)
            while not isinstance(word := beside.receive(process.stdout), str):
                self._asked = word
                self._heard.set()
                if (answer := self._answers.get()) is None:
                    return
                beside.send(process.stdin, answer)
            if self._heard.is_set():
                self._say(f"the window is gone: {word}")
            self._trouble = word
        except beside.GONE:
            self._trouble = "no window could be opened: its process has ended"
        finally:
            self._asked = None
            self._heard.set()
            beside.end(process)

    def __enter__(self) -> "Spectator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fewest(env: ABEnv, count: int) -> ABEnv:
    """Return the first of an environment's robots as one of their own: at least some number, few more."""
    while env.num_envs > count:
        parts = env.split(2)
        if len(parts) < 2 or parts[0].num_envs < count:
            break
        env = parts[0]
    return env


def first(views: dict[str, Any], count: int) -> dict[str, Any]:
    """Return views() of the first robots alone, copied."""
    return {
        name: first(x, count) if isinstance(x, dict) else None if x is None else x[:count].copy()
        for name, x in views.items()
    }
