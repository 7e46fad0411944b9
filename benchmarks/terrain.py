"""Walking on hard ground, seen and unseen: what survives where stairs and slopes are as steep everywhere.

    python -m benchmarks.terrain [--case NAME ...] [--seeds 3] [--shipped] [--simulator mujoco] [--json] [--quick]

For each task and seed `python simulate.py --task TASK --seed SEED` runs as it stands in a process of its own; then its
best policy walks 256 fresh episodes of 20 s for each case: everybody on ground as hard as the case says. Printed are
the seconds of training, survival, the worst seed's, and velocity error, medians over seeds. --shipped: instead of
training, the checkpoints that come with Foal; --quick: one seed.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.tasks import ROOT, simulate
from training import checkpoint

EPISODES = 256
ONE_LEVEL = ("--terrain.levels", 1, "--terrain.difficulty", 1, 1)


def stairs(height: float) -> tuple:
    """Return the options of stairs of one height [m]."""
    return "--terrain.step_height", height, height, *ONE_LEVEL


CASES: dict[str, tuple[str, tuple]] = {
    "stairs18_seen": ("quadruped-walk-stairs-seen", stairs(0.18)),
    "stairs20_seen": ("quadruped-walk-stairs-seen", stairs(0.20)),
    "stairs15_blind": ("quadruped-walk-stairs", stairs(0.15)),
    "rough_seen": ("quadruped-walk-rough-seen", ONE_LEVEL),
    "rough_blind": ("quadruped-walk-rough", ONE_LEVEL),
}


def policies(task: str, seeds: int, shipped: bool, folder: Path) -> list[Path]:
    """Return the policies that walk: one that comes with Foal, or one trained from each seed."""
    if shipped:
        return [ROOT / "checkpoints" / f"{task}.pt"]
    for seed in range(seeds):
        simulate(folder, "--task", task, "--seed", seed, "--train.run_dir", folder / f"{task}-{seed}")
    return [next((folder / f"{task}-{seed}").glob("*/best.pt")) for seed in range(seeds)]


def walk(policy: Path, task: str, options: tuple, simulator: str, folder: Path) -> dict[str, Any]:
    """Return what becomes of fresh episodes of a policy."""
    chosen = "--task", task, "--checkpoint", policy, "--simulator", simulator, "--episodes", EPISODES
    return json.loads(simulate(folder, "--eval", "--json", *chosen, *options))


def main() -> None:
    """Train or load, evaluate, print the table."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--case", nargs="+", choices=CASES, default=list(CASES), help="which ground (all)")
    options.add_argument("--seeds", type=int, default=3, help="trainings of each task (3)")
    options.add_argument("--shipped", action="store_true", help="the checkpoints that come with Foal, untrained")
    options.add_argument("--simulator", choices=("foal", "mujoco"), default="foal", help="which moves the robots")
    args = options.parse_args()
    seeds = 1 if args.quick else args.seeds
    if seeds < 1:
        options.error(f"--seeds: expected at least 1, got {seeds}")
    table = [("case", "s of training", "survival", "worst seed", "m/s, rad/s off")]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained: dict[str, list[Path]] = {}
        for case in args.case:
            task, ground = CASES[case]
            if task not in trained:
                trained[task] = policies(task, seeds, args.shipped, folder)
            runs = [walk(policy, task, ground, args.simulator, folder) for policy in trained[task]]
            seconds = [checkpoint.load(policy).progress["train_seconds"] for policy in trained[task]]
            survival = [run["survival"] for run in runs]
            errors = [statistics.median(run[key] for run in runs) for key in ("velocity_error", "yaw_rate_error")]
            result[case] = statistics.median(survival)
            result[f"{case}_runs"] = runs
            result[f"{case}_seconds"] = seconds
            table.append(
                (
                    case, ", ".join(f"{x:.0f}" for x in seconds), f"{100 * result[case]:.1f} %",
                    f"{100 * min(survival):.1f} %", f"{errors[0]:.3f}, {errors[1]:.3f}",
                )
            )  # fmt: skip
    about = machine.describe("torch", "numba", "numpy", *(["mujoco"] if args.simulator == "mujoco" else []))
    machine.table(f"Hard ground in {args.simulator}, {EPISODES} fresh episodes of 20 s", table, about)
    if args.json:
        machine.print_json(result | about)


if __name__ == "__main__":
    main()
