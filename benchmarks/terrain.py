"""Walking on hard ground, seen and unseen: what survives where stairs and slopes are as steep everywhere.

    python -m benchmarks.terrain [--case NAME ...] [--seeds 3] [--shipped] [--simulator mujoco] [--json] [--quick]

For each task and seed `python simulate.py --task TASK --seed SEED` runs as it stands in a process of its own; then its
best policy walks 256 fresh episodes of 20 s for each case: everybody on ground as hard as the case says. Printed are
the seconds of training, survival, the worst seed's, and velocity error, medians over seeds; and how many control steps
find a calf's axis, a knee or a corner of the trunk more than 1 cm in the ground, and the deepest, of 64 robots in Foal.
--shipped: instead of training, the checkpoints that come with Foal; --quick: one seed.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

# before torch, which reads how its threads should wait when it is imported
from environments import ABEnv, registry  # isort: skip
import numpy as np
import torch

from benchmarks import machine
from benchmarks.tasks import ROOT, simulate
from renderer.kinematics import leg_frames, rotation
from settings import override
from training import checkpoint

EPISODES = 256
FILMED = 64  # robots that are looked at while they walk
SECONDS = 10.0  # how long
DEEP = 0.01  # in the ground [m]
ONE_LEVEL = {"terrain.levels": 1, "terrain.difficulty": (1.0, 1.0)}
SLOPES = ONE_LEVEL | {"terrain.slope": (0.45, 0.45)}


def stairs(height: float) -> dict[str, Any]:
    """Return the configuration of stairs of one height [m]."""
    return {"terrain.step_height": (height, height)} | ONE_LEVEL


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "stairs18_seen": ("quadruped-walk-stairs-seen", stairs(0.18)),
    "stairs20_seen": ("quadruped-walk-stairs-seen", stairs(0.20)),
    "stairs15_blind": ("quadruped-walk-stairs", stairs(0.15)),
    "rough_seen": ("quadruped-walk-rough-seen", SLOPES),
    "rough_blind": ("quadruped-walk-rough", SLOPES),
    "boxes30_seen": ("quadruped-jump", stairs(0.30)),
}


def policies(task: str, seeds: int, shipped: bool, folder: Path) -> list[Path]:
    """Return the policies that walk: one that comes with Foal, or one trained from each seed."""
    if shipped:
        return [ROOT / "checkpoints" / f"{task}.pt"]
    for seed in range(seeds):
        simulate(folder, "--task", task, "--seed", seed, "--train.run_dir", folder / f"{task}-{seed}")
    return [next((folder / f"{task}-{seed}").glob("*/best.pt")) for seed in range(seeds)]


def walk(policy: Path, task: str, ground: dict[str, Any], simulator: str, folder: Path) -> dict[str, Any]:
    """Return what becomes of fresh episodes of a policy."""
    chosen = "--task", task, "--checkpoint", policy, "--simulator", simulator, "--episodes", EPISODES
    options = (x for name, value in ground.items() for x in (f"--{name}", *np.ravel(value)))
    return json.loads(simulate(folder, "--eval", "--json", *chosen, *options))


def depths(env: ABEnv) -> np.ndarray:
    """Return how deep in the ground the worst of each robot's calves, knees and trunk's lower corners is, (N) [m]."""
    state, robot = env.engine.get_state(), env.robot
    R = rotation(state.base_quaternion.astype(float))
    legs, _ = leg_frames(robot, state.base_position, R, state.joint_position)
    knees, feet = legs[:, :, None, 2], legs[:, :, None, 3]
    along = np.linspace(0.0, 0.85, 9)[:, None]  # where the foot begins
    lower = np.array([[x, y, -1.0] for x in (-1.0, 1.0) for y in (-1.0, 1.0)])
    corners = np.einsum("nij,kj->nki", R, robot.trunk_half_extents * lower + robot.trunk_centre)
    points = np.concatenate(
        [(knees + along * (feet - knees)).reshape(len(R), -1, 3), state.base_position[:, None] + corners], axis=1
    )
    ground = env.terrain.height(points[..., 0].ravel(), points[..., 1].ravel()).reshape(points.shape[:-1])
    return (ground - points[..., 2]).max(axis=1)


@torch.no_grad()
def sinking(policy: Path, ground: dict[str, Any]) -> tuple[float, float]:
    """Return the share of control steps that find a robot deep in the ground, and the greatest depth [m]."""
    loaded = checkpoint.load(policy)
    cfg = override(loaded.config.env, ground, "env")
    env = registry.make(loaded.config.task, cfg=cfg, num_envs=FILMED)
    creature = loaded.creature(env)
    memory = creature.initial_state(FILMED)
    state = env.init_state(1)
    found = []
    for _ in range(round(SECONDS / cfg.ctrl_dt)):
        starts = torch.from_numpy(state.done.astype(np.float32))
        _, mean, memory = creature.act(torch.from_numpy(state.obs), memory, starts)
        state = env.step(mean.numpy())
        found.append(depths(env)[~state.done])
    deep = np.concatenate(found)
    return float((deep > DEEP).mean()), float(deep.max())


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
    table = [("case", "s of training", "survival", "worst seed", "m/s, rad/s off", "deep", "deepest")]
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
            share, deepest = np.max([sinking(policy, ground) for policy in trained[task]], axis=0).tolist()
            result[f"{case}_deep"], result[f"{case}_deepest"] = share, deepest
            table.append(
                (
                    case, ", ".join(f"{x:.0f}" for x in seconds), f"{100 * result[case]:.1f} %",
                    f"{100 * min(survival):.1f} %", f"{errors[0]:.3f}, {errors[1]:.3f}",
                    f"{100 * share:.2f} %", f"{100 * deepest:.1f} cm",
                )
            )  # fmt: skip
    about = machine.describe("torch", "numba", "numpy", *(["mujoco"] if args.simulator == "mujoco" else []))
    machine.table(f"Hard ground in {args.simulator}, {EPISODES} fresh episodes of 20 s", table, about)
    if args.json:
        machine.print_json(result | about)


if __name__ == "__main__":
    main()
