"""Where the time of an environment's step goes: its parts, and what Python adds to the kernel.

A quadruped's step is one kernel that calls its stages. They are run one more each time
(benchmarks/environment_stages.py), on one thread, from the robots' real state at one instant of their episodes after
another, which is put back in between: a stage's time is the difference that it makes. In physics, actuator and
contact are what leaving them out saves, on the average of leaving out the one alone and the other before it. So the
parts of physics add up to it, while nothing makes the sum of all parts that of the step itself, beside which it is
printed. Each kernel has paces of its own (LEVELS): from process to process parts differ by up to 10 ns, rarely by
more, their sum from the whole by 2 to 8 %.

    actuator      PD law, torque limit, damping, friction and end stops of the joints
    dynamics      everything else of physics, the integration too, which is fused with it
    contact       terrain, force and what it adds to the equations
    measurement   what reward and observation need: centre of mass, feet, sums over joints
    reward        its terms and their sum
    reset         ends of episodes and new starts, of the blocks with an episode that ended
    scan          looking at the ground, with the errors of what is seen, and about the feet, in tasks that do
    observation   of every step, and of episodes that ended
    commands      actions to joint targets, pushes, goals, velocities
    copying       a block to the work buffer and back, and observations into rows

A task in NumPy is divided by its methods; observe() runs again for all robots when any episode ended.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks import environment_stages as E
from benchmarks import machine
from environments import ABEnv, registry

TASK = "quadruped-balance"
ROBOTS = 4096
BUFFERS = 16  # different actions, in turn
# of the stack, by turns: where it begins decides a kernel's pace, by up to a tenth, and each one's in another way
LEVELS = 16
TRIES = 3  # of every run from the same state, of which the fastest counts: a part is a small difference of long times
SETTLING = 50  # steps before a measurement, after which robots move and fall as they will
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "balance": (TASK, {}),
    "balance, motors on": (TASK, {"motor.enabled": True}),
    "rough ground": ("quadruped-walk-rough", {}),
    "stairs, seen": ("quadruped-walk-stairs-seen", {}),
}
IN_NUMPY = ("cartpole", "navigation", "bounce-ball")
METHODS = {
    "act": ("act",),
    "advance": ("advance",),
    "reward, fallen": ("reward", "fallen"),
    "observe": ("observe", "privileged"),
    "reset": ("reset",),
}
Times = dict[str, float]


def started(
    task: str, robots: int, threads: int = 0, changes: dict[str, Any] | None = None
) -> tuple[ABEnv, list[np.ndarray]]:
    """Return robots at random ages of their episodes, and actions (N, num_actions) for them, N(0, 1)."""
    env = registry.make(task, num_envs=robots, threads=threads, env_cfg_override=changes)
    random = np.random.default_rng(0)
    actions = [random.standard_normal((robots, env.num_actions), dtype=np.float32) for _ in range(BUFFERS)]
    env.init_state(staggered=True)
    return env, actions


def settled(
    task: str, robots: int, threads: int = 0, changes: dict[str, Any] | None = None
) -> tuple[ABEnv, list[np.ndarray]]:
    """Return the same after some steps."""
    env, actions = started(task, robots, threads, changes)
    for i in range(SETTLING):
        env.step(actions[i % BUFFERS])
    return env, actions


def seconds(function: Callable[..., object], *arguments: object) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def medians(rows: list[Times], scale: float) -> Times:
    """Return the median of every column, times scale."""
    return {name: scale * statistics.median(row[name] for row in rows) for name in rows[0]}


@contextmanager
def without_kernel(env: ABEnv) -> Iterator[list[tuple]]:
    """Let a quadruped's steps compute nothing; yield the calls left out, arguments of PhysicsEngine.run()."""
    calls: list[tuple] = []
    env.engine.run = lambda *call: calls.append(call)
    try:
        yield calls
    finally:
        del env.engine.run


def call_of(env: ABEnv, actions: np.ndarray) -> tuple:
    """Return what a quadruped's step calls its engine with, and count the step; the caller is to take it."""
    with without_kernel(env) as calls:
        env.step(actions)
    return calls[0]


def in_stages(env: ABEnv, actions: np.ndarray) -> Times:
    """Take a quadruped of one thread through a control step, whole and by stages; return the seconds of every part."""
    control_step, addresses, *arguments = call_of(env, actions)
    model = env.engine.model
    made = E.variants(env)
    arrays = [array for array in (env.engine.blocks, model.motor_blocks, model.varied_blocks) if array is not None]
    before = [array.copy() for array in arrays]

    def run(*names: str, physics: str = "") -> float:
        stages = E.only(env, made, *names, physics=physics) if names else addresses
        taken = []
        for _ in range(TRIES):
            for array, value in zip(arrays, before, strict=True):
                array[:] = value
            taken.append(seconds(env.engine.run, control_step, stages, *arguments))
        return min(taken)

    steps = (
        ("act", "events"),
        ("advance",),
        ("measure",),
        ("reward",),
        ("terminate", "restart", "begin"),
        ("renew",),
        ("scan", "scan_feet"),
        ("observe",),
    )
    until = [run("nothing")]
    names = []
    for more in steps:
        names += more
        until.append(run(*names))
    idle, airborne, dynamics = (run("act", "events", physics=physics) for physics in ("idle", "airborne", "dynamics"))
    whole = run()
    copying = until[0]
    acting, _, measurement, reward, reset, renewal, looking, observation = np.diff(until).tolist()
    everything = until[2]
    parts = {
        "actuator": 0.5 * (everything - idle + airborne - dynamics),
        "dynamics": dynamics - until[1],
        "contact": 0.5 * (everything - airborne + idle - dynamics),
        "measurement": measurement,
        "reward": reward,
        "reset": reset,
        "scan": looking,
        "observation": observation,
        "commands": acting + renewal,
        "copying": copying,
    }
    return parts | {"sum": sum(parts.values()), "whole": whole}


def deeper(levels: int, function: Callable[..., Any], *arguments: object) -> Any:
    """Return function(*arguments), called from some hundred bytes further down the stack a level."""
    if levels == 0:
        return function(*arguments)
    return next(
        deeper(levels - 1, function, *arguments) for _ in (0,)
    )  # a generator runs on the stack of what calls it


def by_stage(task: str, robots: int, repetitions: int, changes: dict[str, Any] | None = None) -> Times:
    """Return nanoseconds per env step of a quadruped's parts, their sum and the whole, on one thread."""
    env, actions = settled(task, robots, 1, changes)
    rows = [deeper(i % LEVELS, in_stages, env, actions[i % BUFFERS]) for i in range(1 + repetitions)]
    return medians(rows[1:], 1e9 / robots)  # the first one may have compiled


def by_method(task: str, robots: int, repetitions: int) -> Times:
    """Return nanoseconds per env step, on one thread, of an ArrayEnv's methods, what is between, and the whole."""
    env, actions = settled(task, robots)
    spent = dict.fromkeys(METHODS, 0.0)
    inside = False

    def clocked(part: str, method: Callable) -> Callable:
        def call(*arguments: object) -> object:
            nonlocal inside
            if inside:  # of the method that called it
                return method(*arguments)
            inside = True
            start = time.perf_counter()
            result = method(*arguments)
            spent[part] += time.perf_counter() - start
            inside = False
            return result

        return call

    rows = []
    for i in range(repetitions):
        whole = seconds(env.step, actions[2 * i % BUFFERS])
        spent.update(dict.fromkeys(METHODS, 0.0))
        for part, names in METHODS.items():
            for name in names:
                setattr(env, name, clocked(part, getattr(env, name)))
        total = seconds(env.step, actions[(2 * i + 1) % BUFFERS])
        for name in sum(METHODS.values(), ()):
            delattr(env, name)
        rows.append(spent | {"other": total - sum(spent.values()), "sum": total, "whole": whole})
    return medians(rows, 1e9 / robots)


def overhead(robots: int = ROBOTS, repetitions: int = 1500, threads: int = 0) -> Times:
    """Return what Python adds to a step of the balance task, in microseconds by name, and overhead_share.

    step: env.step(); kernel: what it calls, called directly with the same arguments, in turn with it, either first;
    alone: step() while what it calls does nothing; checked: of that, the look at the actions; new_state: arrays for a
    step to write, as out; validate: EnvState.validate(), which no step calls; make: registry.make(), once;
    overhead_share: alone over step. Nine of ten calls took longer than these times: other work on the machine only
    ever adds.

    difference: the median of step less kernel, pair by pair, which should be alone. It tells little on cores that are
    shared: there it came to -5 to 3 % of a step from run to run, while alone kept between 6 and 8 us.
    """
    env, actions = settled(TASK, robots, threads)
    state = env.step(actions[0])

    def step(a: np.ndarray) -> float:
        return seconds(env.step, a)

    def kernel(a: np.ndarray) -> float:
        return seconds(env.engine.run, *call_of(env, a))

    rows: list[Times] = []
    for i in range(repetitions):
        a = actions[i % BUFFERS]
        taken = {run.__name__: run(a) for run in ((step, kernel) if i % 2 else (kernel, step))}
        with without_kernel(env):
            taken["alone"] = step(a)
        rows.append(
            taken
            | {
                "checked": seconds(env.checked, a),
                "new_state": seconds(env.new_state),
                "validate": seconds(state.validate),
            }
        )
    makes = [seconds(lambda: registry.make(TASK, num_envs=robots, threads=threads)) for _ in range(10)]
    lasts = {
        name: [row[name] for row in rows] for name in ("step", "kernel", "alone", "checked", "new_state", "validate")
    } | {"make": makes}
    result = {name: 1e6 * float(np.quantile(values, 0.1)) for name, values in lasts.items()}
    difference = 1e6 * statistics.median(row["step"] - row["kernel"] for row in rows)
    return {"overhead_share": result["alone"] / result["step"], "difference": difference} | result


def print_parts(title: str, results: dict[str, Times], about: dict[str, object]) -> None:
    """Print the parts of several tasks, a column of nanoseconds and one of percent for each."""
    names = next(iter(results.values()))
    rows: list[tuple] = [("", *(cell for label in results for cell in (label, "%")))]
    for name in names:
        rows.append(
            (
                name,
                *(
                    cell
                    for times in results.values()
                    for cell in (f"{times[name]:.1f}", f"{100 * times[name] / times['whole']:.1f}")
                ),
            )
        )
    machine.table(title, rows, about)


def report_breakdown(quick: bool, about: dict[str, object]) -> dict[str, object]:
    """Measure and print the parts of a step; return breakdown, a list of dicts."""
    repetitions = 2 * LEVELS if quick else 6 * LEVELS
    stages = {label: by_stage(task, ROBOTS, repetitions, changes) for label, (task, changes) in CASES.items()}
    print_parts(f"A quadruped's control step by part: {ROBOTS} robots, 1 thread, ns per env step", stages, about)
    methods = {task: by_method(task, ROBOTS, repetitions) for task in IN_NUMPY}
    print_parts(f"A step of tasks in NumPy by method: {ROBOTS} robots, 1 thread, ns per env step", methods, about)
    labelled = [
        *((*CASES[label], times) for label, times in stages.items()),
        *((task, {}, times) for task, times in methods.items()),
    ]
    return {
        "breakdown": [
            {"task": task, "changes": changes, "robots": ROBOTS, "nanoseconds": times}
            for task, changes, times in labelled
        ]
    }


def report_overhead(quick: bool, about: dict[str, object]) -> dict[str, object]:
    """Measure and print what Python adds to a step; return overhead_share, and overhead, a dict of microseconds."""
    result = overhead(ROBOTS, 300 if quick else 1500)
    share = result.pop("overhead_share")
    labels = {
        "step": "step()",
        "kernel": "its kernel, called directly",
        "difference": "difference of pairs",
        "alone": "step() without its kernel",
        "checked": "of that, checked(actions)",
        "new_state": "new_state(), for out=",
        "validate": "EnvState.validate(), not part of a step",
        "make": "registry.make(), once",
    }
    rows = [
        ("", "us", "% of a step"),
        *(
            (label, f"{result[name]:,.1f}", f"{100 * result[name] / result['step']:.2f}")
            for name, label in labels.items()
        ),
    ]
    machine.table(
        f"What Python adds to a step of {TASK}: {ROBOTS} robots, every core; overhead {100 * share:.2f} %", rows, about
    )
    return {"overhead_share": share, "overhead": result}
