"""Complete environment steps per second of Foal's balance task and of EnvPool's Ant, on the same cores.

    python -m benchmarks.environment [--json] [--quick]

A step is all that an agent waits for: action in; physics, observation, reward, end and restart of
episodes out, and in Foal pushes and goals. Both robots are quadrupeds on flat ground that act at
random and fall, and both start again when they have.

    Foal      quadruped-balance   12 motors   0.02 s   5 steps of 4 ms, semi-implicit Euler
    EnvPool   Ant-v4               8 motors   0.05 s   5 steps of 10 ms, Runge-Kutta: 4 evaluations each

EnvPool 1.2.5 computes with a MuJoCo of its own, 3.6.0. Of its Ants v4 is taken, which leaves out
contact forces; v3 and v5, which observe them, came within 2 % of it, on either side. The settings are 128
environments per thread and asynchronous batches of half of them. Of what was tried on two cores, shared
with other work, nothing was faster by more than 2 %; medians, thousand steps per second:

    environments, batch    32, 16   64, 64   64, 32   128, 128   128, 64   256, 256   256, 128   256, 64   512, 512   512, 256
    1 thread               5.02     4.86              4.95       4.97                 4.99
    2 threads              9.06     9.08     9.39     9.42       9.63      9.73       9.63       9.24      9.50       9.71

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
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks import machine
from environments import ABEnv, registry

try:
    import envpool
except ImportError as error:
    envpool, missing = None, error

TASK, ANT = "quadruped-balance", "Ant-v4"
ROBOTS = 4096
STEPS = 128  # of every robot, in a measurement
SIZES = (256, 1024, 4096, 16384)  # robots of the table
ANTS = 128  # per thread
ANT_STEPS = 32  # of every ant on average, in a measurement
BUFFERS = 16  # different actions, in turn
ENVPOOL = "envpool==1.2.5"


@dataclass
class Tally:
    """What was computed: steps returned to the caller, and how many of them ended an episode or only began one."""

    steps: int = 0
    ended: int = 0
    began: int = 0

    def add(self, other: "Tally") -> None:
        """Add another one to this."""
        self.steps, self.ended, self.began = self.steps + other.steps, self.ended + other.ended, self.began + other.began


def foal_steps(env: ABEnv, actions: list[np.ndarray], steps: int) -> Tally:
    """Take every robot through a number of steps; actions: (N, num_actions) each, in turn."""
    tally = Tally()
    for i in range(steps):
        state = env.step(actions[i % len(actions)])
        tally.add(Tally(len(state.reward), np.count_nonzero(state.done)))
    return tally


def foal(threads: int, robots: int = ROBOTS, steps: int = STEPS) -> Callable[[], Tally]:
    """Return a function that takes robots of the balance task through a number of steps each; their episodes go on from call to call."""
    env = registry.make(TASK, num_envs=robots, threads=threads)
    random = np.random.default_rng(0)
    actions = [random.standard_normal((robots, env.num_actions), dtype=np.float32) for _ in range(BUFFERS)]
    env.init_state(staggered=True)
    return lambda: foal_steps(env, actions, steps)


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
        """Send and receive a number of steps per environment, at least 1; fast ones take more of them than slow ones."""
        tally = Tally()
        batches = 2 * steps
        for sent in range(2):
            self.pool.send(self.actions[sent], self.idle[sent])
        self.idle = []
        for received in range(batches):
            _, reward, terminated, truncated, info = self.pool.recv()
            tally.add(Tally(len(reward), np.count_nonzero(terminated | truncated), np.count_nonzero(info["elapsed_step"] == 0)))
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


def main() -> None:
    """Measure, print the tables and, with --json, the result."""
    args = machine.parser(__doc__.splitlines()[0]).parse_args()
    if envpool is None:
        print(f"benchmarks.environment needs EnvPool ({missing}): pip install {ENVPOOL}", file=sys.stderr)
        sys.exit(2)
    about = machine.describe("envpool", "numba", "numpy")
    threads = about["cores"]
    totals = {"foal": Tally(), "envpool": Tally()}
    contestants = {}
    for n, count in (("1", 1), ("all", threads)):
        contestants[f"envpool_env_steps_per_second_{n}"] = rate(ants(count), totals["envpool"])
        contestants[f"foal_env_steps_per_second_{n}"] = rate(foal(count), totals["foal"])
    result = machine.interleaved(contestants, 3 if args.quick else 7)
    ratios = {n: result[f"foal_env_steps_per_second_{n}"] / result[f"envpool_env_steps_per_second_{n}"] for n in ("1", "all")}
    result |= {"envpool_ratio": ratios["all"], "envpool_ratio_1": ratios["1"]}
    for name, total in totals.items():
        result |= {f"{name}_microseconds_per_env_step_{n}": 1e6 / result[f"{name}_env_steps_per_second_{n}"] for n in ("1", "all")}
        result[f"{name}_ended_per_1000_steps"] = 1000 * total.ended / total.steps
    result["envpool_began_per_1000_steps"] = 1000 * totals["envpool"].began / totals["envpool"].steps
    result["foal_physics_steps_per_env_step"] = registry.default_cfg(TASK).substeps
    result["envpool_physics_steps_per_env_step"] = envpool.make_spec(ANT).config.frame_skip
    sizes = []
    for robots in SIZES:
        # as many steps for every size
        runs = {str(n): rate(foal(n, robots, ROBOTS * STEPS // robots), Tally()) for n in dict.fromkeys((1, threads))}
        rates = machine.interleaved(runs, 1 if args.quick else 3)
        sizes.append({"robots": robots, "env_steps_per_second_1": rates["1"], "env_steps_per_second_all": rates[str(threads)]})

    rows = [("", "1 thread", "ratio", "us", f"{threads} threads", "ratio", "us", "physics steps", "episodes ended per 1000 steps")]
    for label, name in ((f"EnvPool, {ANT}", "envpool"), (f"Foal, {TASK}", "foal")):
        cells = []
        for n in ("1", "all"):
            ratio = f"{ratios[n]:.1f}" if name == "envpool" else ""
            cells += [f"{result[f'{name}_env_steps_per_second_{n}']:,.0f}", ratio, f"{result[f'{name}_microseconds_per_env_step_{n}']:.3f}"]
        rows.append((label, *cells, result[f"{name}_physics_steps_per_env_step"], f"{result[f'{name}_ended_per_1000_steps']:.1f}"))
    machine.table(f"Environment steps per second, and microseconds per step: {ROBOTS} robots, {ANTS} ants per thread; ratio: Foal's over it", rows, about)
    print(f"EnvPool: {result['envpool_began_per_1000_steps']:.1f} of 1000 steps only begin an episode\n")
    rows = [(s["robots"], f"{s['env_steps_per_second_1']:,.0f}", f"{s['env_steps_per_second_all']:,.0f}") for s in sizes]
    machine.table("Foal by number of robots", [("robots", "1 thread", f"{threads} threads"), *rows], about)
    if args.json:
        about |= {"task": TASK, "envpool_task": ANT, "robots": ROBOTS, "envpool_environments_per_thread": ANTS}
        machine.print_json(result | {"sizes": sizes} | about)


if __name__ == "__main__":
    main()
