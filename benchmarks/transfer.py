"""A policy trained in Foal, untouched, on the same robot in MuJoCo.

    python -m benchmarks.transfer --checkpoint PATH [--episodes N] [--cone elliptic] [--conditions] [--json] [--quick]

Runs whole episodes of the checkpoint's task with mean actions in both engines and prints survival and the task's errors
side by side; robots do not differ and are observed without error. environments/mujoco.py tells what MuJoCo does, which
motors that are not ideal are refused for.

Under the task's own pushes MuJoCo's cone of friction, a pyramid by default, moves the goal's distance by some
millimetres; under pushes that half of the robots do not survive it decides over many of them.

--conditions asks whether a policy is ready for a robot: the same in both engines on a slippery floor, with a load, with
actions that arrive 20 ms late, shoved, and on rough ground, each alone.
"""

import collections
import dataclasses
import pathlib
import tempfile
from typing import Any

# before torch, which reads how its threads should wait when it is imported
from environments import registry  # isort: skip
import numpy as np
import torch

from benchmarks import machine
from config import NoiseCfg, QuadrupedCfg, RobotCfg, VaryCfg
from entity import Creature
from environments import ABEnv, EnvState
from environments.mujoco import CONES
from environments.quadruped import chosen_robot, gains, torque_ratio
from physics import save_robot
from settings import ConfigError, override
from training import checkpoint, runs
from training.evaluation import evaluate

machine.required("mujoco")
LOAD = 0.2  # of the trunk's mass
LATE = 0.02  # [s]


class Late:
    """An environment whose actions take effect some control steps later; at an episode's start the robot stands."""

    def __init__(self, env: ABEnv, steps: int) -> None:
        self.env = env
        self.steps = steps
        self.coming: collections.deque[np.ndarray] = collections.deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def init_state(self, seed: int = 0) -> EnvState:
        """Start every episode."""
        self.coming = collections.deque(np.zeros((self.env.num_envs, self.env.num_actions)) for _ in range(self.steps))
        return self.env.init_state(seed)

    def step(self, actions: np.ndarray) -> EnvState:
        """Take the control step with the actions of some steps ago."""
        self.coming.append(np.array(actions))
        state = self.env.step(self.coming.popleft())
        for actions in self.coming:
            actions[state.done] = 0.0
        return state


def conditions(cfg: QuadrupedCfg, folder: pathlib.Path) -> dict[str, tuple[QuadrupedCfg, float]]:
    """Return what a robot may meet, by name: the task's configuration, and how late actions are [s].

    folder: where the file of the robot with its load is put, at gains that stay what they were.
    """
    robot = chosen_robot(cfg)
    base = dataclasses.replace(robot.base, mass=(1 + LOAD) * robot.base.mass, inertia=(1 + LOAD) * robot.base.inertia)
    kp, kd = gains(QuadrupedCfg(), robot)
    loaded = dataclasses.replace(robot, base=base, kp=kp, kd=kd)
    path = folder / "loaded.json"
    save_robot(loaded, path)
    same = torque_ratio(robot) / torque_ratio(loaded)
    torques = {name: same * getattr(cfg, name) for name in ("torque_scale", "torque_kd")}
    heavier = override(cfg, torques | {"model": str(path), "robot": dataclasses.asdict(RobotCfg())}, "env")
    slippery = {"physics.foot_friction": 0.4, "physics.friction_model": "simple"}
    return {
        "as the task has it": (cfg, 0.0),
        "friction 0.4": (override(cfg, slippery, "env"), 0.0),
        f"load of {LOAD:.0%} of the trunk": (heavier, 0.0),
        f"actions {1e3 * LATE:.0f} ms late": (cfg, LATE),
        "shoved by 1 m/s": (override(cfg, {"push.speed": (1.0, 1.0), "push.interval": (2.0, 4.0)}, "env"), 0.0),
        "rough ground": (override(cfg, {"terrain.kinds": "rough", "terrain.difficulty": (0.4, 0.4)}, "env"), 0.0),
    }


def compare(
    creature: Creature,
    task: str,
    cfg: QuadrupedCfg,
    episodes: int,
    seed: int = 0,
    cone: str = "pyramidal",
    late: float = 0.0,
) -> dict[str, float]:
    """Return the results of both engines, each key with _foal or _mujoco behind it, and episodes.

    creature: on the CPU; task: name; episodes: in each engine; cone: of MuJoCo's foot friction; late: how much later
    actions take effect, in whole control steps [s].

    Raises ConfigError, naming the field, for a task that MuJoCo does not do.
    """
    if not isinstance(cfg, QuadrupedCfg):
        raise ConfigError(f"task: expected one of a legged robot, which MuJoCo moves too, got {task}")
    cfg = dataclasses.replace(cfg, vary=VaryCfg(), noise=NoiseCfg())
    result: dict[str, float] = {"episodes": episodes}
    found = {}
    for engine, backend in (("mujoco", "mujoco"), ("foal", "numba")):
        env = registry.make(task, backend, num_envs=episodes, cfg=cfg)
        if backend == "mujoco":
            env.use_cone(cone)
        delayed = Late(env, round(late / cfg.ctrl_dt))
        found[engine] = evaluate(creature, delayed, seed, torch.device("cpu"))
    for name in found["foal"]:
        if name != "episodes":
            result |= {f"{name}_{engine}": float(found[engine][name]) for engine in ("foal", "mujoco")}
    return result


def readiness(
    creature: Creature, task: str, cfg: QuadrupedCfg, episodes: int, seed: int, cone: str
) -> dict[str, dict[str, float]]:
    """Return what compare() returns under each of conditions()."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            name: compare(creature, task, changed, episodes, seed, cone, late)
            for name, (changed, late) in conditions(cfg, pathlib.Path(folder)).items()
        }


def main() -> None:
    """Compare a checkpoint in both engines and print the table."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--checkpoint", required=True, help="file, run, or task for what comes with Foal")
    options.add_argument(
        "--episodes", type=int, default=0, help="in each engine; 256, or 64 with --quick, if not given"
    )
    options.add_argument("--seed", type=int, default=0, help="of starts, pushes and goals")
    options.add_argument("--cone", choices=CONES, default="pyramidal", help="MuJoCo's friction cone")
    options.add_argument("--conditions", action="store_true", help="on other floors, loaded, late and shoved too")
    args = options.parse_args()
    if args.episodes < 0:
        options.error(f"--episodes: expected a whole number of at least 1, got {args.episodes}")
    torch.set_num_threads(1)
    try:
        saved = checkpoint.load(runs.policy(args.checkpoint))
        creature = saved.creature(registry.make(saved.config.task, num_envs=1, cfg=saved.config.env))
        episodes = args.episodes or (64 if args.quick else 256)
        ask = creature, saved.config.task, saved.config.env, episodes, args.seed, args.cone
        result = compare(*ask)
        met = readiness(*ask) if args.conditions else {}
    except ConfigError as error:
        options.error(str(error))
    about = machine.describe("mujoco", "torch", "numba", "numpy")
    names = [name.removesuffix("_foal") for name in result if name.endswith("_foal")]
    rows = [
        ("", "Foal", "MuJoCo"),
        *((name, f"{result[f'{name}_foal']:.3f}", f"{result[f'{name}_mujoco']:.3f}") for name in names),
    ]
    machine.table(f"{saved.config.task}, {result['episodes']} episodes in each engine", rows, about)
    if met:
        shown = [name for name in names if name == "survival" or name.endswith(("_error", "_distance"))]
        rows = [("", *(f"{name}, {engine}" for name in shown for engine in ("Foal", "MuJoCo")))]
        for name, found in met.items():
            rows.append((name, *(f"{found[f'{key}_{engine}']:.3f}" for key in shown for engine in ("foal", "mujoco"))))
        machine.table(f"Ready for a robot? {result['episodes']} episodes in each engine", rows, about)
        result["conditions"] = met
    if args.json:
        machine.print_json(
            result | {"task": saved.config.task, "cone": args.cone, "checkpoint": str(args.checkpoint)} | about
        )


if __name__ == "__main__":
    main()
