"""Complete environment steps per second of Foal's balance task and of EnvPool's Ant, on the same cores.

    python -m benchmarks.environment [--part envpool sizes tasks breakdown overhead] [--json] [--quick]

    envpool     Foal's balance task and EnvPool's Ant, on one thread and on every core
    sizes       the balance task by number of robots
    tasks       every task by number of robots, on every core
    breakdown   where the time of a step goes: benchmarks/environment_parts.py
    overhead    what Python adds to the balance task's kernel

Only the first part needs EnvPool. Where it is missing and that part is asked for, as it is by
default, nothing is measured, the line that says so names the others, and the exit code is 2: a result that lacks
what others read should not look like a whole one.

A step is all that an agent waits for: action in; physics, observation, reward, end and restart of
episodes out, and in Foal pushes and goals. Both robots are quadrupeds on flat ground that act at
random and fall, and both start again when they have.

    Foal      quadruped-balance   12 motors   0.02 s   5 steps of 4 ms, semi-implicit Euler
    EnvPool   Ant-v4               8 motors   0.05 s   5 steps of 10 ms, Runge-Kutta: 4 evaluations each

EnvPool 1.2.5 computes with a MuJoCo of its own, 3.6.0. Of its Ants v4 is taken, which leaves out
contact forces; v3 and v5, which observe them, came within 2 % of it, on either side. The settings are 128
environments per thread and asynchronous batches of half of them. Of what was tried on two cores, shared
with other work, nothing was faster by more than 2 %; medians, thousand steps per second:

    environments, batch    1 thread   2 threads
    32, 16                 5.02       9.06
    64, 64                 4.86       9.08
    64, 32                            9.39
    128, 128               4.95       9.42
    128, 64                4.97       9.63
    256, 256                          9.73
    256, 128               4.99       9.63
    256, 64                           9.24
    512, 512                          9.50
    512, 256                          9.71

Threads pinned to cores (thread_affinity_offset=0): 9.57 on 2 and 5.00 on 1; a third thread: 9.53. A batch
as large as the number of environments is EnvPool's synchronous mode.

One thread is one that steps environments; EnvPool's Python side runs beside it, Foal's in it.

Whatever EnvPool returns counts as a step, so also the first observation of a new episode, which it
returns instead of a step; Foal's steps restart episodes on their own. Nothing is under way when the
clock starts or stops: every step sent within the time taken is also received within it. Actions are
made before: in Foal N(0, 1), twice as wide as an untrained policy's, so that robots fall no
less often than ants do; in EnvPool uniform over its range.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks import environment_parts, machine
from benchmarks.environment_parts import BUFFERS, ROBOTS, TASK, started
from environments import ABEnv, ArrayEnv, registry
from training.parallel import side_by_side

try:
    import envpool
except ImportError as error:
    envpool = None
    missing = error

PARTS = ("envpool", "sizes", "tasks", "breakdown", "overhead")
ANT = "Ant-v4"
STEPS = 128  # of every robot, in a measurement
SIZES = (256, 1024, 4096, 16384)  # robots of the table
TASK_SIZES = (256, 1024, 4096)  # the same of every task
TASK_STEPS = 131_072  # of all robots, in a measurement
ANTS = 128  # per thread
ANT_STEPS = 32  # of every ant on average, in a measurement
ENVPOOL = "envpool==1.2.5"


@dataclass
class Tally:
    """What was computed: steps returned to the caller, and how many of them ended an episode or only began one."""

    steps: int = 0
    ended: int = 0
    began: int = 0

    def add(self, other: "Tally") -> None:
        """Add another one to this."""
        self.steps = self.steps + other.steps
        self.ended = self.ended + other.ended
        self.began = self.began + other.began


def foal_steps(env: ABEnv, actions: Sequence[np.ndarray], steps: int) -> Tally:
    """Take every robot through a number of steps; actions: (N, num_actions) each, in turn."""
    tally = Tally()
    for i in range(steps):
        state = env.step(actions[i % len(actions)])
        tally.add(Tally(len(state.reward), np.count_nonzero(state.done)))
    return tally


def foal(threads: int, robots: int = ROBOTS, steps: int = STEPS) -> Callable[[], Tally]:
    """Return a function that takes robots of the balance task through a number of steps each.

    Their episodes go on from call to call.
    """
    env, actions = started(TASK, robots, threads)
    return lambda: foal_steps(env, actions, steps)


def any_task(task: str, cores: int, robots: int, steps: int) -> Callable[[], Tally]:
    """Return a function that takes robots of a task through a number of steps each, on so many cores.

    Tasks in NumPy, which have no threads of their own, are split as training splits them.
    """
    env, actions = started(task, robots, cores)
    parts = env.split(cores) if isinstance(env, ArrayEnv) else [env]
    bounds = np.cumsum([part.num_envs for part in parts])[:-1]
    work = list(zip(parts, zip(*(np.split(a, bounds) for a in actions), strict=True), strict=True))

    def advance() -> Tally:
        total = Tally()
        for tally in side_by_side(lambda part: foal_steps(*part, steps), work):
            total.add(tally)
        return total

    return advance


def task_rates(
    tasks: list[str], sizes: tuple[int, ...], cores: int, steps: int, repetitions: int
) -> list[dict[str, object]]:
    """Return env steps per second of every task and number of robots; steps: of all robots, in a measurement."""
    rows = []
    for robots in sizes:
        rates = machine.interleaved(
            {task: rate(any_task(task, cores, robots, -(-steps // robots)), Tally()) for task in tasks}, repetitions
        )
        rows += [{"task": task, "robots": robots, "env_steps_per_second": rates[task]} for task in tasks]
    return rows


class Ants:
    """EnvPool's Ant, stepped asynchronously; no environment is being computed between calls.

    threads: of EnvPool's; count: environments, an even number, half of them a batch.
    """

    def __init__(self, threads: int, count: int) -> None:
        self.pool = envpool.make_gymnasium(ANT, num_envs=count, batch_size=count // 2, num_threads=threads, seed=0)
        random = np.random.default_rng(0)
        self.actions = [random.uniform(-1.0, 1.0, (count // 2, *self.pool.action_space.shape)) for _ in range(BUFFERS)]
        self.pool.async_reset()
        self.idle = [self.pool.recv()[4]["env_id"].copy() for _ in range(2)]

    def step(self, steps: int) -> Tally:
        """Send and receive a number of steps per environment, at least 1, of fast ones more than of slow ones."""
        tally = Tally()
        batches = 2 * steps
        for sent in range(2):
            self.pool.send(self.actions[sent], self.idle[sent])
        self.idle = []
        for received in range(batches):
            _, reward, terminated, truncated, info = self.pool.recv()
            tally.add(
                Tally(
                    len(reward), np.count_nonzero(terminated | truncated), np.count_nonzero(info["elapsed_step"] == 0)
                )
            )
            if received < batches - 2:
                self.pool.send(self.actions[received % BUFFERS], info["env_id"])
            else:
                self.idle.append(info["env_id"].copy())
        return tally


def ants(threads: int) -> Callable[[], Tally]:
    """Return a function that takes EnvPool's Ant through a number of steps; episodes go on from call to call."""
    pool = Ants(threads, ANTS * threads)
    return lambda: pool.step(ANT_STEPS)


def rate(advance: Callable[[], Tally], total: Tally) -> Callable[[], float]:
    """Return a measurement: environment steps per second of one call, added to a total."""

    def run() -> float:
        start = time.perf_counter()
        tally = advance()
        seconds = time.perf_counter() - start
        total.add(tally)
        return tally.steps / seconds

    return run


def report_envpool(quick: bool, about: dict[str, object]) -> dict[str, object]:
    """Measure and print Foal beside EnvPool; return the rates and their ratios."""
    threads = about["cores"]
    totals = {"foal": Tally(), "envpool": Tally()}
    contestants = {}
    for n, count in (("1", 1), ("all", threads)):
        contestants[f"envpool_env_steps_per_second_{n}"] = rate(ants(count), totals["envpool"])
        contestants[f"foal_env_steps_per_second_{n}"] = rate(foal(count), totals["foal"])
    result = machine.interleaved(contestants, 3 if quick else 7)
    ratios = {
        n: result[f"foal_env_steps_per_second_{n}"] / result[f"envpool_env_steps_per_second_{n}"] for n in ("1", "all")
    }
    result |= {"envpool_ratio": ratios["all"], "envpool_ratio_1": ratios["1"]}
    for name, total in totals.items():
        result |= {
            f"{name}_microseconds_per_env_step_{n}": 1e6 / result[f"{name}_env_steps_per_second_{n}"]
            for n in ("1", "all")
        }
        result[f"{name}_ended_per_1000_steps"] = 1000 * total.ended / total.steps
    result["envpool_began_per_1000_steps"] = 1000 * totals["envpool"].began / totals["envpool"].steps
    result["foal_physics_steps_per_env_step"] = registry.default_cfg(TASK).sim_substeps
    result["envpool_physics_steps_per_env_step"] = envpool.make_spec(ANT).config.frame_skip

    rows = [
        (
            "",
            "1 thread",
            "ratio",
            "us",
            f"{threads} threads",
            "ratio",
            "us",
            "physics steps",
            "episodes ended per 1000 steps",
        )
    ]
    for label, name in ((f"EnvPool, {ANT}", "envpool"), (f"Foal, {TASK}", "foal")):
        cells = []
        for n in ("1", "all"):
            ratio = f"{ratios[n]:.1f}" if name == "envpool" else ""
            cells += [
                f"{result[f'{name}_env_steps_per_second_{n}']:,.0f}",
                ratio,
                f"{result[f'{name}_microseconds_per_env_step_{n}']:.3f}",
            ]
        rows.append(
            (
                label,
                *cells,
                result[f"{name}_physics_steps_per_env_step"],
                f"{result[f'{name}_ended_per_1000_steps']:.1f}",
            )
        )
    machine.table(
        f"Environment steps per second, and microseconds per step: {ROBOTS} robots, {ANTS} ants per thread; "
        "ratio: Foal's over it",
        rows,
        about,
    )
    print(f"EnvPool: {result['envpool_began_per_1000_steps']:.1f} of 1000 steps only begin an episode\n")
    return result | {"envpool_task": ANT, "envpool_environments_per_thread": ANTS}


def report_sizes(quick: bool, about: dict[str, object]) -> dict[str, object]:
    """Measure and print the balance task by number of robots; return sizes, a list of dicts."""
    threads = about["cores"]
    sizes = []
    for robots in SIZES:
        # as many steps for every size
        runs = {str(n): rate(foal(n, robots, ROBOTS * STEPS // robots), Tally()) for n in dict.fromkeys((1, threads))}
        rates = machine.interleaved(runs, 1 if quick else 3)
        sizes.append(
            {"robots": robots, "env_steps_per_second_1": rates["1"], "env_steps_per_second_all": rates[str(threads)]}
        )
    rows = [
        (s["robots"], f"{s['env_steps_per_second_1']:,.0f}", f"{s['env_steps_per_second_all']:,.0f}") for s in sizes
    ]
    machine.table("Foal by number of robots", [("robots", "1 thread", f"{threads} threads"), *rows], about)
    return {"sizes": sizes}


def report_tasks(quick: bool, about: dict[str, object], chosen: list[str]) -> dict[str, object]:
    """Measure and print tasks, every one if none is chosen, by number of robots; return tasks, a list of dicts."""
    backends = {task: names[0] for task, names in registry.list_registered_envs().items() if names}
    backends = {task: backend for task, backend in backends.items() if task in (chosen or backends)}
    rates = task_rates(list(backends), TASK_SIZES, about["cores"], TASK_STEPS, 3 if quick else 7)
    rows = [("", "backend", *(f"{robots} robots" for robots in TASK_SIZES))]
    for task, backend in backends.items():
        rows.append((task, backend, *(f"{row['env_steps_per_second']:,.0f}" for row in rates if row["task"] == task)))
    machine.table(f"Environment steps per second of every task, {about['cores']} threads", rows, about)
    return {"tasks": rates}


def main() -> None:
    """Measure, print the tables and, with --json, the result."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument(
        "--part", nargs="+", choices=PARTS, default=PARTS, metavar="NAME", help=f"of {', '.join(PARTS)}"
    )
    known = [task for task, names in registry.list_registered_envs().items() if names]
    options.add_argument(
        "--tasks", nargs="+", choices=known, default=[], metavar="NAME", help="of the part tasks, every one by default"
    )
    args = options.parse_args()
    if "envpool" in args.part and envpool is None:
        others = " ".join(part for part in PARTS if part != "envpool")
        print(
            f"benchmarks.environment needs EnvPool ({missing}): pip install {ENVPOOL}, or do without: --part {others}",
            file=sys.stderr,
        )
        sys.exit(2)
    about = machine.describe(*(("envpool",) if "envpool" in args.part else ()), "numba", "numpy")
    reports = {
        "envpool": report_envpool, "sizes": report_sizes, "tasks": partial(report_tasks, chosen=args.tasks),
        "breakdown": environment_parts.report_breakdown, "overhead": environment_parts.report_overhead,
    }  # fmt: skip
    result = {}
    for part, report in reports.items():
        if part in args.part:
            result |= report(args.quick, about)
    if args.json:
        machine.print_json(result | about | {"task": TASK, "robots": ROBOTS})


if __name__ == "__main__":
    main()
