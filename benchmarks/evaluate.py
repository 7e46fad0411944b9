"""The clock and the evaluation that every contestant of benchmarks/training.py gets."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import physics  # noqa: F401  sets what PyTorch reads when imported  # isort: skip
import numpy as np
import torch
from torch import Tensor

from environments import registry
from environments.quadruped import WALKING
from host import available_cores
from training.evaluation import EVALUATION_SEED, evaluate, reaches

EPISODES = 256  # of an evaluation
SURVIVAL = 0.95
CPU = torch.device("cpu")


def evaluation_times(seconds: float) -> list[float]:
    """Return when to evaluate, up to a time [s]: every half second at first, then every tenth of the time gone by."""
    times = [0.5]
    while times[-1] < seconds:
        times.append(max(times[-1] + 0.5, 1.1 * times[-1]))
    return [*(t for t in times if t < seconds), seconds]


class Policy:
    """A function as training.evaluation takes a creature.

    act: of observations (N, O) float32, its own state (None at first) and starts (N) bool, true
    where an episode begins; returns deterministic actions (N, A) and the next state.
    """

    def __init__(self, act: Callable[[np.ndarray, Any, np.ndarray], tuple[np.ndarray, Any]]) -> None:
        self._act = act

    def initial_state(self, num_envs: int) -> None:
        """Return what a robot that has seen nothing remembers."""

    def act(self, obs: Tensor, state: Any) -> tuple[Tensor, None, Any]:
        """Return actions (N, A), nothing, and the next state."""
        # an evaluation looks at one episode of each robot: only its first step is a start
        actions, state = self._act(obs.numpy(), state, np.full(len(obs), state is None))
        return torch.from_numpy(np.ascontiguousarray(actions, np.float32)), None, state


class Evaluator:
    """Keeps a training's time, evaluates at given times with the clock stopped, and says when to end.

    task: its name; seed: of the training, whose evaluations' episodes are the same for every
    contestant; seconds, steps: the training's end, whichever comes first; times: of evaluations [s],
    by default evaluation_times(); one is made at the end in any case. Each adds to rows: seconds of
    training, env_steps and what training.evaluation.evaluate() returns. every: env steps between
    evaluations, beside those at times.
    """

    def __init__(
        self,
        task: str,
        seed: int,
        seconds: float,
        steps: float = math.inf,
        times: Iterable[float] | None = None,
        episodes: int = EPISODES,
        every: float = math.inf,
    ) -> None:
        self.task = task
        self.seed = seed
        self.seconds = seconds
        self.steps = steps
        self.every = every
        self.mark = every
        self.times = list(evaluation_times(seconds) if times is None else times)
        self.env = registry.make(task, num_envs=episodes)
        self.env.init_state(0)  # compiled, if it was not
        self.rows: list[dict[str, float]] = []
        self._began = 0.0

    def start(self) -> None:
        """Start the clock; what a contestant did before is not counted."""
        self._began = time.perf_counter()

    def done(self, env_steps: int, policy: Any) -> bool:
        """Hear that an iteration has ended, learning included; evaluate if it is time; return whether to stop.

        env_steps: learned from so far; policy: a Creature or a Policy.
        """
        now = time.perf_counter()
        seconds = now - self._began
        over = seconds >= self.seconds or env_steps >= self.steps
        if over or (self.times and seconds >= self.times[0]) or env_steps >= self.mark:
            self.mark = env_steps - env_steps % self.every + self.every if env_steps >= self.mark else self.mark
            self.times = [t for t in self.times if t > seconds]
            threads = 1 if isinstance(policy, Policy) else available_cores()
            result = evaluate(policy, self.env, EVALUATION_SEED + 1000 * self.seed + len(self.rows), CPU, threads)
            self.rows.append({"seconds": seconds, "env_steps": env_steps} | result)
            self._began += time.perf_counter() - now
        return over


class Arrival(NamedTuple):
    """When a training reached its threshold."""

    seconds: float
    env_steps: int


def reached(row: dict[str, float]) -> bool:
    """Return whether a row is past the thresholds: survival, and the tracking errors if the task has them."""
    return reaches(row, SURVIVAL, {name: bounds for name, bounds in WALKING.items() if name in row})


def arrival(rows: Sequence[dict[str, float]]) -> Arrival | None:
    """Return time and env steps of the first row past the thresholds, None if there is none."""
    return next((Arrival(row["seconds"], row["env_steps"]) for row in rows if reached(row)), None)


def rate(rows: Sequence[dict[str, float]]) -> float:
    """Return trained env steps per second of a whole training."""
    return rows[-1]["env_steps"] / rows[-1]["seconds"]


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of seeds, None standing for never; None if the median is never."""
    result = statistics.median(math.inf if v is None else v for v in values)
    return None if math.isinf(result) else result
