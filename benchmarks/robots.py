"""Robots' files: which load, hang and stand still, and learn to walk by the command that users type.

    python -m benchmarks.robots [PATH ...] [--seconds 60] [--seed 0] [--json] [--quick]

PATH: files, or folders of them; robots/ if none is given. Each robot hangs in the air for 4 s, after a start at joint
speeds of up to 0.1 rad/s, and stands for 10 s in its home pose, both under the PD law that policies act through, with
the task's step and contacts; then `python simulate.py --task quadruped-walk-flat --env.model FILE --seed SEED` runs as
it stands. Printed are the largest joint speed in the end, whether it stood, and the seconds of training until an
evaluation reached what the task counts as learnt. --quick: of the robots that load the lightest, one between and the
heaviest.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.tasks import ROOT, arrival, learn
from config import QuadrupedCfg
from environments import registry
from environments.quadruped import gains
from physics import PhysicsEngine, Robot, RobotError, load_robot
from settings import ConfigError

TASK = "quadruped-walk-flat"
ENDINGS = ".json", ".xml", ".mjcf", ".urdf", ".xacro"
COPIES = 16  # of a robot, that start at different speeds
PUSHED = 0.1  # joint speed of what hangs at its start [rad/s]
HANGING = 4.0  # [s]
STANDING = 10.0  # [s]
STILL = 1e-2  # joint speed of what hangs still [rad/s]
SUNK = 0.75  # share of its home height below which a robot does not stand
UPRIGHT = 0.9  # least cosine of the tilt of one that does


def holding(robot: Robot, cfg: QuadrupedCfg, gravity: float) -> PhysicsEngine:
    """Return robots whose joints are held at home by the PD law that policies act through."""
    engine = PhysicsEngine(robot, COPIES, cfg.sim_dt, 1, dataclasses.replace(cfg.physics, gravity=gravity))
    engine.set_joint_targets(np.tile(robot.home_joints.ravel(), (COPIES, 1)), *gains(cfg, robot))
    return engine


def restlessness(robot: Robot, cfg: QuadrupedCfg) -> float:
    """Return the largest joint speed of robots that have hung in the air for HANGING [rad/s]."""
    engine = holding(robot, cfg, 0.0)
    speeds = np.random.default_rng(0).uniform(-PUSHED, PUSHED, (COPIES, 12))
    engine.set_state(base_position=engine.get_state().base_position + [0.0, 0.0, 5.0], joint_velocity=speeds)
    engine.step(round(HANGING / cfg.sim_dt))
    return float(np.abs(engine.get_state().joint_velocity).max())


def stands(robot: Robot, cfg: QuadrupedCfg) -> bool:
    """Return whether a robot that nobody steers is upright in its home pose after STANDING, at about its height."""
    engine = holding(robot, cfg, cfg.physics.gravity)
    engine.step(round(STANDING / cfg.sim_dt))
    state = engine.get_state()
    _, x, y, _ = state.base_quaternion.T
    upright = 1.0 - 2.0 * (x * x + y * y)
    return bool((state.base_position[:, 2] > SUNK * robot.home_height).all() and (upright > UPRIGHT).all())


def files_of(paths: list[str]) -> list[Path]:
    """Return the robots' files that paths name, those of folders in order; raise ConfigError where there is none."""
    found = []
    for path in map(Path, paths):
        files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS) if path.is_dir() else [path]
        if not files or not files[0].exists():
            raise ConfigError(f"{path}: expected a robot's file, or a folder of some")
        found += files
    return found


def judge(file: Path) -> dict[str, Any]:
    """Return what becomes of a robot's file: why it is refused, or its mass, whether it hangs and stands still."""
    try:
        robot = load_robot(file)
    except RobotError as error:
        return {"file": file.name, "refused": str(error).removeprefix(f"{file}: ")}
    cfg = registry.changed(registry.default_rl_cfg(TASK), {"env.model": str(file)}).env
    return {
        "file": file.name, "refused": None, "mass": robot.total_mass, "hanging": restlessness(robot, cfg),
        "stands": stands(robot, cfg),
    }  # fmt: skip


def walk(file: Path, seed: int) -> dict[str, float | None]:
    """Return when a robot has learnt to walk by the default command, and what it does in the end."""
    robot = str(file.resolve())
    run = learn(TASK, robot, seed, None)
    final = run["final"]
    return {"seconds": arrival(TASK, robot, run)} | {
        name: final[name] for name in ("survival", "velocity_error", "yaw_rate_error")
    }


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a robot's line of the table."""
    if row["refused"]:
        return row["file"], "refused", *[""] * 5
    trained = "survival" in row
    arrived = "never" if trained and row["seconds"] is None else f"{row['seconds']:.1f}" if trained else ""
    errors = f"{row['velocity_error']:.3f}, {row['yaw_rate_error']:.3f}" if trained else ""
    still = "still" if row["hanging"] < STILL else f"{row['hanging']:.2g} rad/s"
    stood = "yes" if row["stands"] else "no"
    survived = f"{100 * row['survival']:.1f} %" if trained else ""
    return row["file"], f"{row['mass']:.1f}", still, stood, arrived, survived, errors


def main() -> None:
    """Judge robots' files, train those that load, and print the table."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("paths", nargs="*", metavar="PATH", help="files, or folders of them (robots/)")
    options.add_argument("--seconds", type=float, default=60.0, help="of training, that a walker counts within (60)")
    options.add_argument("--seed", type=int, default=0, help="of the trainings (0)")
    args = options.parse_args()
    try:
        rows = []
        for file in files_of(args.paths or [str(ROOT / "robots")]):
            rows.append(judge(file) | {"path": file})
    except (ConfigError, OSError) as error:
        options.error(str(error))
    loaded = sorted((row for row in rows if not row["refused"]), key=lambda row: row["mass"])
    chosen = [loaded[i] for i in sorted({0, len(loaded) // 2, len(loaded) - 1})] if args.quick and loaded else loaded
    for row in chosen:
        print(f"{row['file']} walks", file=sys.stderr)
        row |= walk(row["path"], args.seed)
    for row in rows:
        del row["path"]
        if row["refused"]:
            print(f"{row['file']}: {row['refused']}", file=sys.stderr)
    walked = sum("survival" in row and row["seconds"] is not None and row["seconds"] <= args.seconds for row in rows)
    heading = "robot", "kg", "hanging", "stands", "walks after s", "survival", "m/s, rad/s off"
    about = machine.describe("torch", "numba", "numpy", "mujoco")
    title = f"{len(loaded)} of {len(rows)} files load; {walked} of {len(chosen)} walk within {args.seconds:g} s"
    machine.table(title, [heading, *map(cells, rows)], about)
    if args.json:
        machine.print_json({"loaded": len(loaded), "walked": walked, "trained": len(chosen), "robots": rows} | about)


if __name__ == "__main__":
    main()
