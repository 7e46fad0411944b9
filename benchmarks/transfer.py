"""A policy trained in Foal, untouched, on the same robot in MuJoCo.

    python -m benchmarks.transfer --checkpoint PATH [--episodes N] [--cone elliptic] [--json] [--quick]

Runs whole episodes of the checkpoint's task with mean actions in both engines and prints survival and the task's errors
side by side; robots do not differ and are observed without error. environments/mujoco.py tells what MuJoCo does, which
motors that are not ideal are refused for.

Under the task's own pushes MuJoCo's cone of friction, a pyramid by default, moves the goal's distance by some
millimetres; under pushes that half of the robots do not survive it decides over many of them.
"""

import dataclasses

# before torch, which reads how its threads should wait when it is imported
from environments import registry  # isort: skip
import torch

from benchmarks import machine
from config import NoiseCfg, QuadrupedCfg, VaryCfg
from entity import Creature
from environments.mujoco import CONES
from settings import ConfigError
from training import checkpoint, runs
from training.evaluation import evaluate

machine.required("mujoco")


def compare(
    creature: Creature, task: str, cfg: QuadrupedCfg, episodes: int, seed: int = 0, cone: str = "pyramidal"
) -> dict[str, float]:
    """Return the results of both engines, each key with _foal or _mujoco behind it, and episodes.

    creature: on the CPU; task: name; episodes: in each engine; cone: of MuJoCo's foot friction.

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
        found[engine] = evaluate(creature, env, seed, torch.device("cpu"))
    for name in found["foal"]:
        if name != "episodes":
            result |= {f"{name}_{engine}": float(found[engine][name]) for engine in ("foal", "mujoco")}
    return result


def main() -> None:
    """Compare a checkpoint in both engines and print the table."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--checkpoint", required=True, help="file, run, or task for what comes with Foal")
    options.add_argument(
        "--episodes", type=int, default=0, help="in each engine; 256, or 64 with --quick, if not given"
    )
    options.add_argument("--seed", type=int, default=0, help="of starts, pushes and goals")
    options.add_argument("--cone", choices=CONES, default="pyramidal", help="MuJoCo's friction cone")
    args = options.parse_args()
    if args.episodes < 0:
        options.error(f"--episodes: expected a whole number of at least 1, got {args.episodes}")
    torch.set_num_threads(1)
    try:
        saved = checkpoint.load(runs.policy(args.checkpoint))
        creature = saved.creature(registry.make(saved.config.task, num_envs=1, cfg=saved.config.env))
        episodes = args.episodes or (64 if args.quick else 256)
        result = compare(creature, saved.config.task, saved.config.env, episodes, args.seed, args.cone)
    except ConfigError as error:
        options.error(str(error))
    about = machine.describe("mujoco", "torch", "numba", "numpy")
    names = [name.removesuffix("_foal") for name in result if name.endswith("_foal")]
    rows = [
        ("", "Foal", "MuJoCo"),
        *((name, f"{result[f'{name}_foal']:.3f}", f"{result[f'{name}_mujoco']:.3f}") for name in names),
    ]
    machine.table(f"{saved.config.task}, {result['episodes']} episodes in each engine", rows, about)
    if args.json:
        machine.print_json(
            result | {"task": saved.config.task, "cone": args.cone, "checkpoint": str(args.checkpoint)} | about
        )


if __name__ == "__main__":
    main()
