"""A long run at the limits: random torques, as large as motors give, on rough ground, with everything on.

    python -m benchmarks.soak [--steps N] [--json] [--quick]

Every robot's torques are drawn anew every 0.02 s, each motor's lowest or highest. Prints how many
robot steps were taken, how many robots had to be put back at home because their state stopped being
finite, and whether every state is finite now. Exit code 1 if one is not.
"""

import dataclasses
import sys
import time

import numpy as np

from benchmarks import machine
from config import MotorCfg, PhysicsCfg, VaryCfg
from physics import PhysicsEngine, load_robot, terrain

ROBOTS = 4096
TIMESTEP = 0.004  # [s]
HELD = 5  # steps between torques
VARIED = VaryCfg(
    friction=(0.5, 1.5), restitution=(0.5, 1.0), stiffness=(0.5, 1.5), trunk_mass=(0.8, 1.2), trunk_shift=0.03,
    link_mass=(0.9, 1.1), strength=(0.8, 1.2), joint_offset=0.02, delay=(0.0, 0.01), gravity=(0.9, 1.1),
)  # fmt: skip


def soak(steps: int, report: bool = True) -> dict[str, float | bool]:
    """Run about so many robot steps; return robot_steps, seconds, broken, finite, and the largest speeds in the end.

    Speeds are in m/s and rad/s.
    """
    cfg = PhysicsCfg(
        body_contact=True,
        friction_model="coulomb+viscous",
        limit_stiffness=300.0,
        limit_damping=3.0,
        motor=MotorCfg(enabled=True),
    )
    robot = load_robot("go1")
    engine = PhysicsEngine(robot, ROBOTS, TIMESTEP, cfg=cfg, terrain=terrain.curriculum(), differ=True)
    engine.vary(VARIED)
    spawns = engine.terrain.spawns.reshape(-1, 3)
    engine.set_state(base_position=spawns[np.arange(ROBOTS) % len(spawns)] + [0, 0, robot.home_height])
    random = np.random.default_rng(0)
    limit = robot.torque_limit.ravel()
    rounds = -(-steps // (ROBOTS * HELD))
    start = time.perf_counter()
    for k in range(rounds):
        engine.apply_motor_torques(limit * random.choice((-1.0, 1.0), (ROBOTS, 12)))
        engine.step(HELD)
        if report and k % max(1, rounds // 10) == 0:
            print(f"  {k * ROBOTS * HELD:,} robot steps, {engine.broken.sum()} broken", file=sys.stderr, flush=True)
    state = engine.get_state()
    finite = all(np.isfinite(getattr(state, field.name)).all() for field in dataclasses.fields(state))
    return {
        "robot_steps": rounds * ROBOTS * HELD,
        "seconds": time.perf_counter() - start,
        "broken": int(engine.broken.sum()),
        "finite": finite,
        "largest_speed": float(np.abs(state.base_linear_velocity).max()),
        "largest_joint_speed": float(np.abs(state.joint_velocity).max()),
    }


def main() -> None:
    """Run, print and, with --json, print the result as one line."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--steps", type=float, default=1e9, help="robot steps to take")
    args = options.parse_args()
    about = machine.describe("numba", "numpy")
    result = soak(int(args.steps / (100 if args.quick else 1)))
    machine.table(
        "Random torques on rough ground", [("", ""), *((key, f"{value:,}") for key, value in result.items())], about
    )
    if args.json:
        machine.print_json(result | about)
    if not result["finite"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
