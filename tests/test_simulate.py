"""The command line from training to evaluation, checkpoints, and what it says when used wrongly."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import called
from matplotlib.figure import Figure
from rich.console import Console

from entity import Creature
from environments import registry
from environments.contracts import Body, Node
from physics import load_robot, save_robot
from settings import ConfigError, knobs, override, sections
from simulate import main, run
from training import checkpoint, runs, tree
from training.display import count_text, seconds_text
from training.engine import TrainingEngine
from training.evaluation import evaluate
from training.export import Exported, facts
from training.logger import plot_curve
from training.options import help_text, read_command_line
from training.presets import preset

ROOT = pathlib.Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


def simulate(*arguments, cwd=ROOT):
    """Return exit code, output and errors of the command line, run in this process; it leaves no trace there."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.chdir(cwd)
        done = called(main, [str(x) for x in arguments], patch)
    torch.set_num_threads(threads)
    return done.code, done.out, done.err


def best(folder):
    """Return the best policy of the only run in a folder."""
    (path,) = folder.glob("runs/*/best.pt")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    code, out, err = simulate(
        "--iterations", 4, "--train.num_envs", 64, "--train.eval_every", 2, "--train.eval_episodes", 16,
        "--train.run_dir", folder / "runs", "--profile",
        "--env.max_episode_seconds", 2, "--world_model.role", "imagination", "--world_model.patience", 2,
        "--world_model.updates", 2, "--world_model.imagined", 64,
    )  # fmt: skip
    assert code == 0, err
    return folder, out, err


def test_training_leaves_metrics_events_curve_and_checkpoint(trained):
    folder, out, err = trained
    (run,) = (folder / "runs").iterdir()
    rows = (run / "metrics.csv").read_text().splitlines()
    names = {"iteration", "env_steps", "return", "eval_survival", "world_reward", "imagined_kl", "kl"}
    assert len(rows) == 5 and names <= set(rows[0].split(","))
    assert (run / "curve.png").stat().st_size > 5000
    assert list(run.glob("events*")) and json.loads((run / "config.json").read_text())["train"]["iterations"] == 4
    assert {path.name for path in run.glob("*.pt")} == {"best.pt", "latest.pt", "iteration-2.pt", "iteration-4.pt"}
    assert out == "" and re.search(r"64 robots, \d+ threads", err) and "peak memory" in err


def test_a_profile_says_where_all_the_time_went(trained):
    shares = dict(re.findall(r"^ +(\w+) +([\d.]+) % +[\d.]+ us per env step$", trained[2], re.MULTILINE))
    assert list(shares) == ["move", "infer", "value", "gradient", "world", "filter", "imagine", "other"]
    assert all(float(share) > 0 for share in shares.values())
    assert sum(map(float, shares.values())) == pytest.approx(100, abs=0.3)


def test_evaluation_prints_one_json_object(trained):
    folder, _, _ = trained
    path = best(folder)
    code, out, _ = simulate("--eval", "--json", "--episodes", 20, "--checkpoint", path)
    result = json.loads(out)
    assert code == 0 and result["task"] == "quadruped-balance" and result["episodes"] == 20
    assert (
        0 <= result["survival"] <= 1
        and 0 < result["episode_seconds"] <= 2.0
        and {"mean_return", "goal_distance"} <= set(result)
    )
    assert json.loads(simulate("--eval", "--json", "--episodes", 20, "--checkpoint", path)[1]) == result


def test_what_the_world_model_foresees_is_plotted(trained, tmp_path):
    folder, _, _ = trained
    code, out, err = simulate("--eval", "--dream", "--checkpoint", best(folder), "--train.run_dir", tmp_path)
    assert code == 0 and out == "", err
    assert (tmp_path / "dream.png").stat().st_size > 20000
    assert f"45 control steps at a time: {tmp_path / 'dream.png'}" in err


def test_a_dream_without_a_world_model_is_refused(tmp_path):
    code, _, err = simulate("--eval", "--dream", "--train.run_dir", tmp_path)
    assert (
        code == 2
        and "simulate.py: --dream: expected a checkpoint with a world model" in err
        and len(err.splitlines()) == 2
    )
    assert not list(tmp_path.iterdir())


def test_a_curve_shows_returns_below_nothing(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, _: shown.extend(a.get_ylim() for a in figure.axes))
    rows = [
        {"eval_survival": 0.5, "eval_mean_return": x, "eval_loss": 0.1, "train_seconds": 1.0 - x, "env_steps": 9}
        for x in (-3.0, -2.0)
    ]
    assert plot_curve(rows, tmp_path / "curve.png")
    (_, _), (least, _), (low, high) = shown[:3]
    assert least == 0.0 and low <= -3.0 and high == 0.0


def test_resuming_goes_on_in_the_runs_own_folder(trained, tmp_path):
    (run,) = (trained[0] / "runs").iterdir()
    folder = tmp_path / run.name
    shutil.copytree(run, folder)
    before = checkpoint.load(folder / runs.LATEST)
    code, _, err = simulate("--resume", "--iterations", 2, "--train.run_dir", tmp_path)
    assert code == 0, err
    assert f"going on from {folder / runs.LATEST}, iteration 4 of 6\n" in err
    after = checkpoint.load(folder / runs.LATEST)
    assert after.progress["iteration"] == before.progress["iteration"] + 2
    assert after.progress["env_steps"] == before.progress["env_steps"] + 2 * 16 * 64
    assert [path.name for path in tmp_path.iterdir()] == [run.name]
    assert len((folder / "metrics.csv").read_text().splitlines()) == 7


def test_training_on_from_a_policy_alone_is_a_run_of_its_own(trained, tmp_path):
    before = best(trained[0]).read_bytes()
    options = "--iterations", 1, "--train.eval_every", 0, "--train.run_dir", tmp_path
    code, _, err = simulate("--resume", "--checkpoint", best(trained[0]), *options)
    assert code == 0, err
    assert f"a run of its own, which begins with the networks of {best(trained[0])}" in err
    (run,) = tmp_path.iterdir()
    assert checkpoint.load(run / runs.LATEST).progress["iteration"] == 1
    assert best(trained[0]).read_bytes() == before


def test_options_given_on_resuming_win(trained, tmp_path):
    (run,) = (trained[0] / "runs").iterdir()
    shutil.copytree(run, tmp_path / run.name)
    options = "--ppo.learning_rate", 2e-6, "--ppo.target_kl", 0, "--iterations", 1
    code, _, err = simulate("--resume", "--checkpoint", tmp_path / run.name, *options)
    assert code == 0, err
    with open(tmp_path / run.name / "metrics.csv", newline="") as file:
        *_, row = csv.DictReader(file)
    assert float(row["learning_rate"]) == 2e-6


def test_what_comes_with_foal_is_never_written(tmp_path):
    shipped = [path for path in runs.SHIPPED.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in shipped}
    tiny = "--iterations", 1, "--train.num_envs", 16, "--train.eval_episodes", 4, "--env.max_episode_seconds", 0.5
    for more in ((), ("--resume", "--task", "cartpole")):
        code, _, err = simulate(*more, *tiny, cwd=tmp_path)
        assert code == 0, err
    for folder in tmp_path.glob("runs/*"):
        assert (folder / runs.BEST).exists()
    assert {path: path.read_bytes() for path in runs.SHIPPED.rglob("*") if path.is_file()} == before


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path):
    made = [runs.new_folder(str(tmp_path / "runs"), "my_file:my-task") for _ in range(5)]
    assert len(set(made)) == 5
    assert all(runs.NAME.fullmatch(path.name)[1] == "my-task" for path in made)


def test_the_newest_run_of_the_task_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    find = partial(runs.find, None, "runs")
    assert find("quadruped-balance") == runs.SHIPPED / "quadruped-balance.pt"
    names = [f"quadruped-balance-{time}" for time in ("20200101-000000", "20200101-000000-2", "19990101-000000")]
    for i, name in enumerate(names):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"task": "quadruped-balance"}))
        for file in (runs.LATEST, runs.BEST)[: 2 if i else 1]:
            (folder / file).touch()
            os.utime(folder / file, (100 + i, 100 + i))
    assert find("quadruped-balance") == Path("runs", names[2], "best.pt")
    assert find("quadruped-balance", resume=True) == Path("runs", names[2], "latest.pt")
    (tmp_path / "runs" / names[2] / "config.json").write_text('{"task": "x:quadruped-balance"}')
    assert find("quadruped-balance") == Path("runs", names[1], "best.pt")
    assert find("x:quadruped-balance") == Path("runs", names[2], "best.pt")
    assert find("quadruped-walk-flat") == runs.SHIPPED / "quadruped-walk-flat.pt"
    with pytest.raises(ConfigError, match="expected a run of my-task in runs, there is none"):
        find("my-task")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bogus", "1"], "--bogus: unknown option"),
        (["--ppo.clpi", "1"], "did you mean --ppo.clip"),
        (["--ppo.clip", "x"], "ppo.clip: expected a number between"),
        (["--ppo.clip", "-1"], "ppo.clip: expected a number between"),
        (["--train.iterations", "2.5"], "train.iterations: expected a whole number"),
        (["--push.speed", "2", "1"], "push.speed: expected two numbers, low and high"),
        (["--env.control", "magic"], "env.control: expected one of pd, torque"),
        (["--ppo.rollout", "1"], "ppo.rollout: expected a whole number between 2 and"),
        (["--train.num_envs", "100"], "train.num_envs: expected a multiple of ppo.minibatches = 8, got 100"),
        pytest.param(
            ["--train.device", "cuda"],
            "train.device: expected auto or cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU"),
        ),
        (["--env.sim_dt", "0.003"], "env.sim_dt: expected a whole share of env.ctrl_dt"),
        (["--task", "chess"], "task: unknown task 'chess'"),
        (["--seed", "-1"], "seed: expected a whole number"),
        (["--iterations", "0"], "--iterations: expected a whole number of at least 1"),
        (["--eval", "--checkpoint", "missing.pt"], "checkpoint: missing.pt: there is no such file"),
        (["--eval", "--checkpoint", "foreign.pt"], "checkpoint: foreign.pt: expected a checkpoint of Foal"),
        (["--eval", "--checkpoint", "text.pt"], "checkpoint: text.pt: expected a checkpoint of Foal"),
        (["--env.model", "heavy.json"], "heavy.json: base.mass: expected a number above 0"),
        (["--train.run_dir", "file/runs"], "train.run_dir: expected a folder that can be written"),
        (["--checkpoint", "text.pt"], "--checkpoint: expected a new file, text.pt is there already"),
        (["--checkpoint", "nowhere/c.pt"], "--checkpoint: expected a file in a folder that is there, got nowhere/c.pt"),
        (["--resume", "--eval"], "--resume: expected without --eval"),
        (["--json"], "--json: expected with --eval"),
        (["--resume", "--export", "x.onnx"], "--export: expected without --resume"),
        (["--render", "--export", "x.onnx"], "--render: expected with --eval"),
        (["--render", "--seeds", "1", "2"], "--seeds: expected without --render"),
        (["--eval", "--episodes", "99999999999"], "--episodes: expected what fits into"),
        (
            ["--train.num_envs", "1048576", "--ppo.rollout", "1024"],
            "train.num_envs and ppo.rollout: expected what fits",
        ),
        (
            ["--terrain.kinds", "rough", "--terrain.levels", "100", "--terrain.tile", "100", "--terrain.cell", "0.01"],
            "terrain.levels, terrain.tile and terrain.cell: expected what fits into",
        ),
        (["--ppo.rollout", "9" * 400], "ppo.rollout: expected a whole number between"),
        (["--simulator", "mujoco"], "--simulator: expected with --eval"),
        (["--eval", "--simulator", "bullet"], "--simulator: expected foal or mujoco, got 'bullet'"),
        (["--eval", "--model", "a1.xml"], "--model: expected with --simulator mujoco"),
        (["--eval", "--task", "cartpole", "--simulator", "mujoco"], "unknown backend 'mujoco' of cartpole"),
        (["--inspect", "nowhere.urdf"], "nowhere.urdf: expected a file that can be read"),
        (["--inspect", "."], "expected a robot's file, got a folder"),
        (["--inspect", "go1", "--eval"], "--inspect: expected without --eval"),
        (["--robot.lock", "arm"], "robot.lock: expected NAME ANGLE NAME ANGLE ..., got 'arm'"),
        (["--robot.lock", "arm 0"], "expected a joint that is no leg's; it has none"),
        (["--export", ""], "expected a folder, or a file name ending in .onnx"),
        (["--eval", "--checkpoint", "file"], "checkpoint: file: expected a checkpoint of Foal"),
        (["--eval", "--checkpoint", "."], "checkpoint: .: expected the folder of a run"),
        (["--eval", "--checkpoint", ""], "--checkpoint: expected a file or the folder of a run"),
        (["--eval", "--checkpoint", "x" * 300], "File name too long"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_code_2(arguments, words, tmp_path):
    torch.save({"weights": {}}, tmp_path / "foreign.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "file").write_text("in the way")
    robot = json.loads((ROOT / "robots" / "go1.json").read_text())
    robot["base"]["mass"] = -1.0
    (tmp_path / "heavy.json").write_text(json.dumps(robot))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    code, out, err = simulate(*arguments, cwd=tmp_path)
    assert code == 2 and out == "" and words in err
    assert len([line for line in err.splitlines() if line.startswith("simulate.py:")]) == 1 and "Traceback" not in err
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert after == before


def test_the_list_names_tasks_and_robots():
    code, out, _ = simulate("--list")
    assert code == 0 and "quadruped-balance:" in out and "anymal_c, go1, go2, spot" in out


def test_a_checkpoint_round_trip_keeps_weights_settings_and_behaviour(tmp_path):
    cfg = override(preset("quadruped-balance"), {"push.speed": (0.2, 0.3), "network.lstm": 32, "train.num_envs": 32})
    env = registry.make(cfg.task, num_envs=32, cfg=cfg.env)
    creature = Creature(env, cfg.network, cfg.world_model)
    engine = TrainingEngine(env, creature, cfg, CPU)
    engine.iterate()
    checkpoint.save(tmp_path / "c.pt", creature, cfg, {"iteration": 1}, engine.trainer_state())
    loaded = checkpoint.load(tmp_path / "c.pt")
    again = loaded.creature(env)
    assert loaded.config == cfg and loaded.progress == {"iteration": 1}
    assert all(
        torch.equal(a, b) for a, b in zip(creature.state_dict().values(), again.state_dict().values(), strict=True)
    )
    results = [
        evaluate(
            c, registry.make(cfg.task, num_envs=16, env_cfg_override={"max_episode_seconds": 1.0}, cfg=cfg.env), 5, CPU
        )
        for c in (creature, again)
    ]
    assert results[0] == results[1]
    engine.load_trainer_state(loaded.trainer, "c.pt")
    engine.iterate()


@pytest.mark.parametrize(
    ("env_changes", "cfg_changes", "words"),
    [
        ({"num_actions": 8, "body": Body((Node("all", (0, 1)),))}, {}, "expected 8 actions, got 12"),
        (
            {"num_privileged": 35, "body": Body((Node("all", (0, 1)),))},
            {},
            "expected 72 observations, privileged ones included, got 74",
        ),
        ({}, {"network.lstm": 64}, "expected belief.lstm of shape (2, 128, 64), got (2, 256, 96)"),
        ({}, {"network.recurrent": False}, "expected belief.hidden of shape (2, 64, 32), got none"),
        ({}, {"world_model.role": "imagination"}, "expected world_model.outcome_weight of shape (83, 64), got none"),
    ],
)
def test_a_checkpoint_of_another_robot_or_network_says_what_differs(env_changes, cfg_changes, words, tmp_path):
    cfg = preset("quadruped-balance")
    env = registry.make(cfg.task, num_envs=16)
    checkpoint.save(tmp_path / "c.pt", Creature(env, cfg.network, cfg.world_model), override(cfg, cfg_changes), {})
    for name, value in env_changes.items():
        setattr(env, name, value)
    with pytest.raises(ConfigError, match=f"^checkpoint: {re.escape(str(tmp_path / 'c.pt'))}: {re.escape(words)}$"):
        checkpoint.load(tmp_path / "c.pt").creature(env)


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    torch.save({"format": "foal-checkpoint-1"}, tmp_path / "old.pt")
    with pytest.raises(
        ConfigError,
        match=r"old\.pt: expected a checkpoint of Foal, format foal-checkpoint-\d+, got 'foal-checkpoint-1'$",
    ):
        checkpoint.load(tmp_path / "old.pt")
    data = {
        "format": checkpoint.FORMAT,
        "config": {"network": {"layers": 3}},
        "weights": {},
        "progress": {},
        "trainer": {},
        "run": {},
    }
    data |= {"digest": tree.digest({name: data[name] for name in checkpoint.PARTS})}
    torch.save(data, tmp_path / "new.pt")
    with pytest.raises(ConfigError, match=r"new\.pt: network\.layers: unknown field"):
        checkpoint.load(tmp_path / "new.pt")


def test_networks_stay_as_a_checkpoint_has_them(trained):
    path = str(best(trained[0]))
    for options, words in (
        (["--network.lstm", "64"], "network.lstm: expected 128, which"),
        (["--network.symmetric", "false"], "network.symmetric: expected True, which"),
        (["--world_model.role", "off"], "world_model.role: expected imagination, which"),
        (["--world_model.deter", "64"], "world_model.deter: expected 128, which"),
        (["--task", "quadruped-goal"], "--task: expected quadruped-balance, which"),
        (["--env.model", "spot"], "env.model: expected go1, which"),
        (["--env.control", "torque"], "env.control: expected pd, which"),
        (["--command.kind", "velocity"], "command.kind: expected stay, which"),
    ):
        for what in (["--eval"], ["--resume"], ["--export", "p.onnx"]):
            with pytest.raises(ConfigError, match=words):
                run([*what, "--checkpoint", path, *options], Console(stderr=True))
    code, out, err = simulate("--eval", "--checkpoint", path, "--network.lstm", 64)
    assert code == 2 and out == ""
    assert err == f"simulate.py: network.lstm: expected 128, which {path} was trained with, got 64\n"


def test_help_explains_a_section_and_names_the_nearest_of_one_that_there_is_not():
    cfg = preset("quadruped-balance")
    assert re.search(
        r"--push.spin VALUE +angular kick, uniform \+- on each axis \[rad/s\] \(1.0\)", help_text(cfg, "push")
    )
    assert all(
        f"--{name}.{field.name} " in help_text(cfg, "all")
        for name, section in sections(cfg).items()
        for field in knobs(section)
    )
    with pytest.raises(ConfigError, match="--help: unknown section 'pish'; did you mean push"):
        help_text(cfg, "pish")


@pytest.mark.parametrize("text", ["-1e-4", "-2.5E+3", "-.5", "-3", "-1.e2"])
def test_what_looks_like_a_number_is_one(text):
    _, fields = read_command_line(["--reward.torque", text], preset("quadruped-balance"))
    assert fields == {"reward.torque": text}


def test_the_default_configuration_is_valid_and_every_knob_is_explained():
    preset("quadruped-balance").validate()
    for section in sections(preset("quadruped-balance")).values():
        for field in knobs(section):
            assert field.metadata["meaning"] and "unit" in field.metadata


@pytest.mark.parametrize("shipped", ["", "quadruped-walk-flat-belief", "quadruped-walk-flat-deploy"])
def test_an_exported_policy_acts_as_the_checkpoint_does(shipped, trained, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = ROOT / "checkpoints" / f"{shipped}.pt" if shipped else best(trained[0])
    belief = shipped.endswith("belief")
    folder = tmp_path / "out"
    code, _, err = simulate("--export", folder, "--checkpoint", path, *(["--export.opset", "17"] if belief else []))
    assert code == 0, err
    assert "Warning" not in err and "onnx" not in err.replace("policy.onnx", "")
    loaded = checkpoint.load(path)
    env = registry.make(loaded.config.task, num_envs=1, cfg=loaded.config.env)
    creature = loaded.creature(env)
    if shipped.endswith("deploy"):
        assert loaded.chosen["train.precision"] == "bfloat16"
    creature.use_precision("float32")
    session = onnxruntime.InferenceSession(str(folder / "policy.onnx"))
    script = torch.jit.load(folder / "policy.pt")
    state = env.init_state(3)
    memory = creature.initial_state(1)
    names = ["h", "c", *(["latent", "last_action", "begun"] if belief else [])]
    assert [x.name for x in session.get_inputs()] == ["obs", *(f"{name}_in" for name in names)]
    assert [x.name for x in session.get_outputs()] == ["actions", *(f"{name}_out" for name in names)]
    start = [np.zeros(x.shape, np.float32) for x in session.get_inputs()[1:]]
    remembered = start
    # a belief's categories are those of the largest probability, and of two as large rounding decides, now and then
    for _ in range(100 if belief else 1000):
        action, _, memory = creature.act(torch.from_numpy(state.obs), memory)
        given = {"obs": state.obs} | {f"{name}_in": x for name, x in zip(names, remembered, strict=True)}
        exported, *remembered = session.run(None, given)
        np.testing.assert_allclose(exported, action.numpy(), atol=1e-5)
        np.testing.assert_allclose(script(torch.from_numpy(state.obs)).detach(), action.numpy(), atol=1e-5)
        state = env.step(action.numpy())
        if state.done[0]:
            memory = creature.initial_state(1)
            remembered = start
            script.reset()
    known = json.loads((folder / "facts.json").read_text())
    told = session.get_modelmeta().custom_metadata_map
    assert {name: json.loads(told[name]) for name, x in known.items() if not isinstance(x, str)} == {
        name: x for name, x in known.items() if not isinstance(x, str)
    }
    assert known["joint_names"][:3] == ["FL_hip", "FL_thigh", "FL_calf"] and known["ctrl_dt"] == 0.02
    assert sum(known["observation_sizes"]) == env.num_obs
    lines = dict(line.split(": ", 1) for line in (folder / "deploy.yaml").read_text().splitlines())
    observed = json.loads(lines["observations"])
    assert (
        list(observed)[:2] == ["joint_pos_rel", "joint_vel_rel"] and observed["joint_vel_rel"]["scale"] == [0.05] * 12
    )
    assert json.loads(lines["joint_ids_map"]) == [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]
    assert json.loads(lines["stiffness"]) == [40.0] * 12 and json.loads(lines["step_dt"]) == 0.02
    code, _, err = simulate("--export", folder, "--checkpoint", path)
    assert code == 2 and "expected a new file" in err
    code, _, err = simulate("--export", "p.txt", "--checkpoint", path)
    assert code == 2 and "expected a folder, or a file name ending in .onnx" in err


def test_an_exported_policy_has_the_joints_of_the_robot_s_own_file(trained, tmp_path):
    """Joints that turn the other way, in another order: targets and angles are mapped back."""
    robot = load_robot("go1")
    order = [3 * leg + joint for leg in (1, 0, 3, 2) for joint in range(3)]
    signs = np.tile([1.0, -1.0, 1.0], (4, 1))
    odd = dataclasses.replace(robot, joint_signs=signs, joint_order=tuple(order))
    save_robot(odd, tmp_path / "odd.json")
    loaded = checkpoint.load(best(trained[0]))
    policies = []
    for model in ("go1", str(tmp_path / "odd.json")):
        env = registry.make(loaded.config.task, cfg=override(loaded.config.env, {"model": model}, "env"))
        policies.append(Exported(loaded.creature(env), env).eval())
    known = facts(env, loaded)
    assert known["joint_names"][:2] == ["FR_hip", "FR_thigh"]
    np.testing.assert_allclose(known["default_joint_pos"][:3], robot.home_joints[1] * [1, -1, 1])
    assert known["joint_lower"][1] == -robot.joint_range[1, 1, 1]
    assert "torque_offset" not in known
    torques = registry.make(loaded.config.task, cfg=override(env.cfg, {"control": "torque"}, "env"))
    hold = facts(torques, loaded)["torque_offset"]
    np.testing.assert_allclose(hold[:3], robot.hold_torques()[1] * [1, -1, 1])
    obs = torch.randn(1, env.num_obs, generator=torch.Generator().manual_seed(0))
    theirs = obs.clone()
    ways = torch.from_numpy(signs.ravel()[order]).float()
    for first in (0, 12):  # joint angles, joint speeds
        theirs[:, first : first + 12] = obs[:, first : first + 12][:, order] * ways
    with torch.no_grad():
        ours, *_ = policies[0](obs, *policies[0].start)
        mapped, *_ = policies[1](theirs, *policies[1].start)
    np.testing.assert_allclose(mapped, ours[:, order] * ways, atol=1e-6)
    assert np.abs(ours.numpy()).max() > 0.001


def test_ctrl_c_saves_and_leaves(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "simulate.py"), "--iterations", "100000", "--train.num_envs", "64",
         "--train.eval_every", "0", "--train.run_dir", "runs"],
        stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("iteration"):
            process.send_signal(signal.SIGINT)
            break
    other = process.stderr.read()
    assert process.wait(60) == 130 and "Traceback" not in other and "checkpoint" in other, "".join(lines) + other
    (path,) = tmp_path.glob("runs/*/latest.pt")
    loaded = checkpoint.load(path)
    assert 0 < loaded.progress["iteration"] < 100000 and loaded.config.train.num_envs == 64


def test_counts_and_durations_are_short():
    counts = {
        0: "0", 512: "512", 999.6: "1.00 k", 14336: "14.3 k", 142_000: "142 k", 999_600: "1.00 M",
        3_280_000: "3.28 M", 99_999_999: "100 M",
    }  # fmt: skip
    assert {n: count_text(n) for n in counts} == counts
    assert [seconds_text(s) for s in (8.4, 65, 7384)] == ["8 s", "1:05", "2:03:04"]
