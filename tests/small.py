"""How every benchmark and every example runs whole at a tiny size, and what it leaves."""

import dataclasses
import importlib
import importlib.util
import json
import math
import pathlib
import shlex
import types
from collections.abc import Callable

import commands
import pytest
from commands import called

from environments import registry
from settings import override
from training.logger import Logger


def installed(*packages):
    """Return whether packages can be imported."""
    return all(importlib.util.find_spec(name) for name in packages)


@dataclasses.dataclass(frozen=True)
class Small:
    """How a benchmark runs at a tiny size.

    options: further arguments. constants: expressions by module and name, modules in the order of their imports.
    prepare: called with monkeypatch and these modules by name. keys: what --json has at least. look: called with the
    result.
    """

    options: str = ""
    constants: dict = dataclasses.field(default_factory=dict)
    prepare: Callable = lambda monkeypatch, modules: None
    keys: tuple = ()
    look: Callable = lambda result: None


def brief_episodes(monkeypatch, *modules):
    """Let episodes of the environments that modules make last a second."""

    def make(task, **arguments):
        return registry.make(task, env_cfg_override={"max_episode_seconds": 1.0}, **arguments)

    for module in modules:
        monkeypatch.setattr(module, "registry", types.SimpleNamespace(**(vars(registry) | {"make": make})))


def prepare_tasks(monkeypatch, modules):
    commands.in_this_process(modules["tasks"], monkeypatch)


def prepare_training(monkeypatch, modules):
    brief_episodes(monkeypatch, modules["evaluate"])
    commands.in_this_process(modules["training"], monkeypatch)


def prepare_world_model(monkeypatch, modules):
    brief_episodes(monkeypatch, modules["evaluate"], modules["world_model"])


def prepare_terms(monkeypatch, modules):
    """Compare this tree with itself, with what is compiled of it: to compile all anew takes a minute."""
    module = modules["terms"]
    run = module.run
    monkeypatch.setattr(module.machine, "checkout", lambda commit, folder: module.ROOT)
    monkeypatch.setattr(module, "run", lambda *command, cwd=module.ROOT, **environment: run(*command, cwd=cwd))


def prepare_render(monkeypatch, modules):
    """Compare this tree with another place of itself."""
    monkeypatch.setattr(modules["render"].machine, "checkout", lambda commit, folder: commands.ROOT / "tests" / "..")


def prepare_pace(monkeypatch, modules):
    """Compare this tree with itself."""
    module = modules["pace"]
    monkeypatch.setattr(module.machine, "checkout", lambda commit, folder: module.ROOT)


def look_at_pace(result):
    assert 0.1 < result["pace_ratio"] < 10
    assert result["walk_seconds"] == {"here": [None], "before": [None]}  # after two iterations nobody does


def look_at_render(result):
    assert 0.2 < result["flat_ratio"] < 5
    assert 0.2 < result["stairs_ratio"] < 5
    assert 0 < result["web_share"] < 2
    assert 5 < result["web_sends"] < 62
    assert math.isfinite(result["many_frames"])  # of so short ones, the difference is noise


def look_at_terms(result):
    assert result["step_ratio"] == 1.0
    assert 0 < result["compile_seconds"] < 2 * result["cold_seconds"]  # others use the machine beside


def look_at_environment(result):
    assert {row["task"] for row in result["tasks"]} == set(SWEPT)
    assert [row["robots"] for row in result["sizes"]] == [32, 33]
    assert 0 < result["overhead_share"] < 1


def look_at_gpu(result):
    assert result["failed"] == []
    assert result["agreement"]["float32"] == {"gradient": 0.0, "action": 0.0, "policy_loss": 0.0, "value_loss": 0.0}
    assert 0 < result["agreement"]["bfloat16"]["gradient"] < 0.1
    assert result["pace"]["64"]["env_steps_per_second"] > 0
    assert set(result["learning"]) == {"quadruped-balance", "quadruped-walk-flat"}
    assert result["world_model"]["small"]["updates_per_second"] > 0


def look_at_physics(result):
    assert [row["robots"] for row in result["sizes"]] == [16, 64]
    assert min(result[key] for key in PHYSICS_KEYS) > 0


def look_at_motion(result):
    assert min(result["deque_ratio"], result["matmul_ratio"], *result["frame_seconds"].values()) > 0
    assert [row["robots"] for row in result["sizes"]] == [32, 64]
    assert result["free_run"]["exploding"] == 0.0


def look_at_scaling(result):
    assert result["training"]["one machine"]["iterations_alike"] == 2
    assert min(result["messages"]["one machine"].values()) > 0
    alone, *others = result["model"]
    assert alone["summing_share"] == 0.0
    assert all(row["summing_share"] < 0.2 for row in others)


def look_at_soak(result):
    assert result["finite"]
    assert result["robot_steps"] >= 1e4


def look_at_stiffness(result):
    (row,) = result["go1"]
    assert row["stiffness"] == 1e4
    assert row["feet, 100"] == row["stand, 100"] == 5e-3


def look_at_tasks(result):
    (row,) = result["tasks"]
    (final,) = row["final"]
    assert (row["task"], final["task"], final["episodes"]) == ("cartpole", "cartpole", 4)


def look_at_robots(result):
    (row,) = result["robots"]
    assert (result["loaded"], row["file"], row["refused"], row["stands"]) == (1, "go1.json", None, True)
    assert row["mass"] == pytest.approx(12.74, abs=0.01) and 0 < row["hanging"] < 0.2 and 0 <= row["survival"] <= 1


def look_at_terrain(result):
    (run,) = result["stairs15_blind_runs"]
    assert (run["episodes"], run["task"]) == (4, "quadruped-walk-stairs")
    assert result["stairs15_blind"] == run["survival"]
    assert 0.0 <= result["stairs15_blind_deep"] <= 1.0
    assert -1.0 < result["stairs15_blind_deepest"] < 0.1


def prepare_transfer(monkeypatch, modules):
    """Let episodes last a second."""
    module = modules["transfer"]
    load = module.checkpoint.load

    def brief(path):
        loaded = load(path)
        return dataclasses.replace(loaded, config=override(loaded.config, {"env.max_episode_seconds": 1.0}))

    monkeypatch.setattr(module, "checkpoint", types.SimpleNamespace(load=brief))


def look_at_transfer(result):
    assert len(result["conditions"]) == 6
    assert all(
        0 <= met[f"survival_{engine}"] <= 1 for met in result["conditions"].values() for engine in ("foal", "mujoco")
    )


def look_at_training(result):
    assert set(result["tasks"]) == {"quadruped-balance", "quadruped-walk-flat"}
    assert min(result["env_steps_per_second"], result["balance_seconds"], *result["ratios"].values()) > 0
    assert (result["recurrent_ppo_ratio"] is not None) == bool(RIVALS)


def look_at_trot(result):
    # converged is a time step of theirs here
    for name in ("Foal", "MuJoCo, Euler, 100 iterations"):
        assert result[name] == {"largest_timestep": 5e-3, "errors": [[5e-3, 0.0]]}


def look_at_world_model(result):
    assert min(result[key] for key in ("open_loop_error_ratio", "velocity_rms", "imagination_step_ratio")) > 0
    assert result["imagination"]["imagination"]["env_steps"] == [256]
    assert set(result["walking"]) == {"imagination, by an ensemble", "soft actor-critic"}


SWEPT = "quadruped-balance", "quadruped-track", "cartpole"
PHYSICS_KEYS = "mujoco_ratio_1", "mujoco_ratio_all", "mujoco_ratio_full", "realtime_ratio", "thread_scaling_2"
TRAINING_KEYS = "env_steps_per_second", "recurrent_ppo_ratio", "balance_seconds", "walk_seconds"
TRANSFER_KEYS = "survival_foal", "survival_mujoco", "velocity_error_foal", "velocity_error_mujoco"
WORLD_MODEL_KEYS = "open_loop_error_ratio", "velocity_rms", "imagination_step_ratio", "details"
TROT = {"ROBOTS": "4", "DURATION": "0.1", "CONVERGED": "5e-3", "TIMESTEPS": "(5e-3,)"}
EVALUATE = {"EPISODES": "4", "SURVIVAL": "0.0"}  # so that every training of balance arrives
RIVALS = "ppo-foal recurrent-ppo-foal" if installed("stable_baselines3", "sb3_contrib") else ""
ENVPOOL = "envpool" if installed("envpool") else ""
BENCHMARKS = {
    "agreement": Small(
        constants={"trot": TROT, "agreement": {"TIMESTEPS": "(5e-3,)"}},
        keys=("Stand", "Free flight, at 1 s, RMS over robots"),
    ),
    "environment": Small(
        f"--part sizes tasks breakdown overhead {ENVPOOL} --tasks {' '.join(SWEPT)}",
        {
            "environment_parts": {
                "ROBOTS": "32", "LEVELS": "2", "SETTLING": "2",
                "CASES": '{"balance": (TASK, {})}',
            },
            "environment": {
                "SIZES": "(32, 33)", "STEPS": "2", "TASK_SIZES": "(32,)", "TASK_STEPS": "64",
                "ANTS": "4", "ANT_STEPS": "1",
            },
        },
        keys=("sizes", "tasks", "breakdown", "overhead", "overhead_share", *(["envpool_ratio"] if ENVPOOL else [])),
        look=look_at_environment,
    ),
    "gpu": Small("--device cpu --minutes 0.01 --robots 64", {"gpu": {"SIZES": '("small",)'}}, look=look_at_gpu),
    "motion": Small(
        "--mode full --quick --plot motion.png",
        {
            "motion": {
                "ROBOTS": "128", "SIZES": "(32, 64)", "BUFFERS": "((8, 4),)", "FRAMES": "3", "DEQUE_FRAMES": "2",
                "PRODUCT_FRAMES": "1", "COMMANDS": "4", "CHUNKS": "(64,)",
            },
        },
        keys=("deque_ratio", "matmul_ratio", "memory_share", "free_run", "blends", "sizes", "buffers"),
        look=look_at_motion,
    ),
    "pace": Small(
        "--quick", {"tasks": {}, "pace": {"ITERATIONS": "2"}}, prepare_pace, ("env_steps_per_second", "pace_ratio"),
        look_at_pace,
    ),
    "physics": Small(
        "--quick",
        {
            "trot": TROT,
            "physics": {"ROBOTS": "64", "STEPS": "5", "SIZES": "(16, 64)", "CHECKED": "4", "DIFFERENT": "4"},
        },
        keys=PHYSICS_KEYS,
        look=look_at_physics,
    ),
    "scaling": Small(
        "--quick --iterations 2",
        {"scaling": {"ROBOTS": "64", "SUMS": "3", "PLACES": '{"one machine": None}'}},
        keys=("bytes_per_update", "training", "messages", "model"),
        look=look_at_scaling,
    ),
    "soak": Small("--steps 1e4", keys=("broken", "largest_speed"), look=look_at_soak),
    "stiffness": Small(
        "--robot go1",
        {"stiffness": {"STIFFNESSES": "(1e4,)", "TIMESTEPS": "(2e-3, 5e-3)", "ROBOTS": "4"}},
        look=look_at_stiffness,
    ),
    "tasks": Small(
        "--task cartpole --seeds 1 --csv t.csv --plot t.png --keep kept", prepare=prepare_tasks, look=look_at_tasks
    ),
    "training": Small(
        f"--task quadruped-balance quadruped-walk-flat --contestants foal foal-mlp {RIVALS} --seeds 1 --seconds 0.2"
        " --csv t.csv --plot t.png",
        {"evaluate": EVALUATE, "training": {}},
        prepare_training,
        TRAINING_KEYS,
        look_at_training,
    ),
    "robots": Small(
        f"{commands.ROOT}/robots/go1.json --quick",
        {"tasks": {}, "robots": {"HANGING": "0.1", "STANDING": "0.1"}},
        prepare_tasks, ("loaded", "walked"), look_at_robots,
    ),
    "render": Small(
        "--quick",
        {"render": {"SIZE": "(64, 64)", "MANY_SIZE": "(64, 64)", "SECONDS": "1.0", "MANY": "4", "SETTLE": "0.5"}},
        prepare_render,
        ("flat_seconds", "stairs_seconds", "many_frames"),
        look_at_render,
    ),
    "terrain": Small(
        "--shipped --case stairs15_blind",
        {"tasks": {}, "terrain": {"EPISODES": "4", "FILMED": "16", "SECONDS": "1.0"}}, prepare_tasks,
        ("stairs15_blind",), look_at_terrain,
    ),
    "terms": Small(
        "--quick", {"terms": {"ROBOTS": "64", "STEPS": "1", "REPETITIONS": "1"}}, prepare_terms,
        ("step_ratio", "compile_seconds", "cold_seconds"), look_at_terms,
    ),
    "transfer": Small(
        "--checkpoint checkpoints/quadruped-walk-flat.pt --episodes 2 --conditions",
        keys=TRANSFER_KEYS, prepare=prepare_transfer, look=look_at_transfer,
    ),
    "trot": Small(constants={"trot": TROT}, look=look_at_trot),
    "world_model": Small(
        "--seeds 1 --quick --csv t.csv --plot t.png",
        {
            "evaluate": EVALUATE,
            "training": {},
            "foresight": {"UPDATES": "2", "AHEAD": "4", "PAST": "4"},
            "world_model_details": {"ROBOTS": "32", "BATCH": "8"},
            "world_model": {
                "ITERATION": "1",
                "MOST": "256",
                "WALKERS": '{name: x | {"sac.patience": 1, "sac.updates": 2} for name, x in WALKERS.items()}',
                "CONTESTANTS": '{name: (x[0] | {"train.num_envs": 16}, 1, 512) for name, x in CONTESTANTS.items()}',
            },
        },
        prepare_world_model,
        WORLD_MODEL_KEYS,
        look_at_world_model,
    ),
}  # fmt: skip
# What an example is given where nothing else is, and what makes it small
EXAMPLES = {
    "all_tasks": ("", "--tasks cartpole quadruped-walk-flat --devices cpu --iterations 1 --num-envs 16"),
    "compare": ("runs", ""),
    "stable_baselines3": ("", "--task navigation --seconds 0.1 --robots 8"),
    "gallery": ("", "training.png world_model.png few_robots.png --out ."),
    "run_policy": ("my_policy/policy.onnx", "--seconds 0.2"),
    "sweep": (
        "ppo.gamma=0.9,0.99 --task cartpole",
        "--trials 1 --iterations 1 --train.num_envs 16 --train.eval_episodes 2 --env.max_episode_seconds 0.1",
    ),
}
NEEDS = {
    "run_policy": ("onnx", "onnxscript", "onnxruntime"),
    "stable_baselines3": ("stable_baselines3",),
    "sweep": ("optuna",),
}


def numbers(x):
    """Return all numbers of a JSON value."""
    inner = x.values() if isinstance(x, dict) else x if isinstance(x, list) else ()
    return [x] if isinstance(x, float | int) else [number for y in inner for number in numbers(y)]


def run_benchmark(name, arguments, monkeypatch):
    """Run a benchmark at a tiny size and look at what it prints; arguments: more of them."""
    small = BENCHMARKS[name]
    changes = small.constants if name in small.constants else small.constants | {name: {}}
    modules = {module: commands.imported_anew(monkeypatch, f"benchmarks.{module}", x) for module, x in changes.items()}
    small.prepare(monkeypatch, modules)
    done = called(modules[name].main, [*shlex.split(small.options), *arguments, "--json"], monkeypatch)
    assert done.code == 0, done.out + done.err
    *table, line = done.out.splitlines()
    result = json.loads(line)
    assert len(table) > 3
    assert {"cpu", "cores", "versions"} <= set(result)
    found = numbers(result)
    assert len(found) > 3
    assert all(map(math.isfinite, found))
    if not {"--part", "--mode"} & set(arguments):
        assert set(small.keys) <= set(result)
        small.look(result)


def write_run(folder, seed=0, task="cartpole", changes=None, values=((1.0, 0.5), (2.0, 1.0))):
    """Write what a run of a task leaves; values: seconds and nearness of its evaluations."""
    folder.mkdir(parents=True)
    cfg = override(registry.default_rl_cfg(task), {"seed": seed} | (changes or {}))
    logger = Logger(folder, cfg, chosen={"train.num_envs": 64, "train.threads": 1, "train.precision": "float32"})
    for i, (seconds, nearness) in enumerate(values, 1):
        logger.log(
            {"iteration": i, "env_steps": 1000 * i, "train_seconds": seconds, "eval_survival": nearness,
             "eval_mean_return": 10.0 * nearness + seed, "eval_nearness": nearness}
        )  # fmt: skip
    logger.close()


def run_example(name, arguments, monkeypatch):
    """Run an example at a tiny size and look at what it prints; arguments: more of them."""
    if not installed(*NEEDS.get(name, ())):
        pytest.skip(f"{', '.join(NEEDS[name])}: not installed here")
    main = importlib.import_module(f"examples.{name}").main
    given, small = map(shlex.split, EXAMPLES[name])
    if name == "compare":
        for seed in range(2):
            write_run(pathlib.Path("runs", f"cartpole-20260101-00000{seed}"), seed)
    if name == "run_policy":
        simulate = importlib.import_module("simulate")
        assert called(simulate.main, ["--export", "my_policy", "--task", "quadruped-walk-flat"], monkeypatch).code == 0
    done = called(main, [*(arguments or given), *small], monkeypatch)
    assert done.code == 0, done.out + done.err
    assert len(done.out.splitlines()) >= 2
