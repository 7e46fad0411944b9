"""Benchmarks of learning count what they time, and evaluate all contestants alike."""

import csv
import dataclasses
import json
import sys
import types

import numpy as np
import pytest
import torch

from benchmarks import evaluate, foresight, machine, tasks, training, world_model, world_model_details
from entity import Creature
from environments import registry
from environments.gymnasium import GymVectorEnv
from settings import override
from training import checkpoint
from training.presets import preset


def rows_of(survivals, pace=1000, **errors):
    """Return evaluations at 1, 2, 3 ... seconds."""
    return [
        {
            "seconds": float(t),
            "env_steps": pace * t,
            "episodes": 8,
            "survival": x,
            "mean_return": 1.0,
            "episode_seconds": 20 * x,
        }
        | {name: values[t - 1] for name, values in errors.items()}
        for t, x in enumerate(survivals, 1)
    ]


def test_a_training_arrives_with_the_first_evaluation_past_the_threshold():
    assert evaluate.arrival(rows_of([0.1, 0.95, 0.9, 1.0])) == (2.0, 2000)
    assert evaluate.arrival(rows_of([0.1, 0.94])) is None
    # walking is also to go where it is told to
    assert evaluate.arrival(
        rows_of([1.0, 1.0, 0.9, 1.0], velocity_error=[0.2, 0.15, 0.1, 0.1], yaw_rate_error=[0.1, 0.2, 0.1, 0.1])
    ) == (4.0, 4000)


def test_the_median_of_seeds_counts_those_that_never_arrive():
    assert evaluate.median([3.0, None, 1.0]) == 3.0
    assert evaluate.median([None, None, 1.0]) is None
    assert evaluate.median([1.0, None]) is None
    assert evaluate.median([2.0, 3.0]) == 2.5


def test_evaluations_get_rarer_and_the_last_is_at_the_end():
    times = evaluate.evaluation_times(60.0)
    assert times[0] == 0.5
    assert times[-1] == 60.0
    gaps = np.diff(times)[:-1]
    assert gaps.min() >= 0.5 - 1e-9
    assert (np.diff(gaps) >= -1e-9).all()


def test_the_evaluator_stops_the_clock_while_it_evaluates(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(evaluate, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def look(*_):
        now[0] += 1000.0
        return {"survival": 0.5}

    monkeypatch.setattr(evaluate, "evaluate", look)
    evaluator = evaluate.Evaluator("quadruped-balance", 0, seconds=10.0, times=[1.0, 3.5, 4.0, 10.0], episodes=1)
    evaluator.start()
    steps = 0
    over = False
    while not over:
        now[0] += 2.0  # an iteration
        steps += 100
        over = evaluator.done(steps, None)
    # the first iterations' ends after the times, each time looked at once
    assert [(row["seconds"], row["env_steps"]) for row in evaluator.rows] == [(2.0, 100), (4.0, 200), (10.0, 500)]
    assert evaluate.rate(evaluator.rows) == 50.0


def test_the_evaluator_evaluates_again_after_some_env_steps(monkeypatch):
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: {"survival": 0.5})
    evaluator = evaluate.Evaluator("quadruped-balance", 0, 3600.0, 1000, (), 1, every=300)
    evaluator.start()
    for steps in range(120, 1081, 120):
        assert evaluator.done(steps, None) == (steps >= 1000)
    assert [row["env_steps"] for row in evaluator.rows] == [360, 600, 960, 1080]


def test_two_evaluations_in_a_row_are_an_arrival_at_the_first():
    assert world_model.arrival(rows_of([0.95, 0.9, 0.97, 0.99, 0.5]))["env_steps"] == 3000
    assert world_model.arrival(rows_of([0.95, 0.9, 0.97])) is None
    summary = world_model.summary([rows_of([1.0, 1.0]), rows_of([0.0, 0.5]), rows_of([0.0, 1.0, 1.0])])
    assert summary["env_steps"] == [1000, None, 2000] and summary["median"] == 2000
    summary = world_model.summary([rows_of([0.5, 1.0, 0.96, 0.25, 1.0]), rows_of([0.96, 0.2])])
    assert summary["least"] == [0.25, None] and summary["mean"] == pytest.approx([0.742, 0.58])


def test_walking_is_past_the_mark_where_errors_and_survival_are(capsys):
    walk = {"seconds": 9.0, "survival": 0.96, "velocity_error": 0.19, "yaw_rate_error": 0.2}
    rows = [
        {"env_steps": 4096 * i} | walk | change
        for i, change in enumerate(({"survival": 0.9}, {"velocity_error": 0.21}, {"yaw_rate_error": 0.3}, {}, {}), 1)
    ]
    found = world_model.report_walking({"recurrent": [rows[:3], rows], "ensemble": [rows, rows]}, machine.describe())
    assert found["walking"]["recurrent"] == {"env_steps": [None, 16384], "median": None}
    assert found["walking"]["ensemble"] == {"env_steps": [16384, 16384], "median": 16384}
    assert "never, 16 k" in capsys.readouterr().out
    once = [rows[3], rows[0], *rows[3:]]
    assert world_model.arrival(once, world_model.walks) is once[2]


def test_a_training_ends_some_evaluations_after_its_robots_walk(monkeypatch):
    monkeypatch.setattr(evaluate.Evaluator, "done", lambda *_: False)
    walk = {"survival": 0.96, "velocity_error": 0.19, "yaw_rate_error": 0.19}  # the target of a walk is 0.15
    for kind, ends in ((world_model.WalkEvaluator, [6, 7]), (world_model.ArrivalEvaluator, [])):
        evaluator = kind.__new__(kind)
        evaluator.rows = [walk | {"survival": 0.5}]
        found = []
        for i in range(2, 8):
            evaluator.rows.append(walk | {"env_steps": i})
            found += [i] if evaluator.done(0, None) else []
        assert found == ends


def test_imagination_is_compared_with_who_arrives_and_with_nobody_else(capsys):
    about = machine.describe()
    arriving = rows_of([1.0, 1.0])
    failing = rows_of([0.0, 0.5])
    late = rows_of([0.0, 1.0, 1.0])
    trainings = {"ppo": [late, late], "ppo-8": [arriving, failing], "imagination": [arriving, arriving]}
    found = world_model.report_imagination(trainings, about)
    assert found["imagination_step_ratio"] == 0.5
    assert found["imagination"]["ppo-8"]["median"] is None
    for ppo, imagined in (([arriving], [failing]), ([failing], [arriving])):
        found = world_model.report_imagination({"ppo": ppo, "imagination": imagined}, about)
        assert found["imagination_step_ratio"] is None
        json.dumps(found, allow_nan=False)
    assert "never" in capsys.readouterr().out


def test_open_loop_predictions_see_nothing_of_what_they_predict(monkeypatch):
    monkeypatch.setattr(foresight, "PAST", 6)
    loaded = checkpoint.load(world_model.WALK)
    cfg = override(loaded.config, foresight.OPEN_LOOP)
    s, truth = foresight.Walkers(loaded, cfg, 32, 3, None).record(10)
    assert s.obs.shape[0] == s.action.shape[0] == 10 and s.obs.shape[2] == 74 and s.obs.shape[1] > 16
    env = registry.make(cfg.task, num_envs=1, cfg=cfg.env)
    model = foresight.StateSpaceModel(37, 12, cfg.world_model, 37, env.body)
    model.normaliser.update(s.obs.flatten(0, 1))
    one_step = foresight.OneStep(37, 12)
    results = []
    for future in (s.obs[6:], torch.zeros_like(s.obs[6:])):
        torch.manual_seed(1)
        with torch.no_grad():
            results.append(foresight.foresee(model, s._replace(obs=torch.cat((s.obs[:6], future)))))
    assert torch.equal(*results)
    with torch.no_grad():
        errors = foresight.prediction_errors(model, one_step, s, truth[-1])
    assert set(errors) == {"world model", "one-step model", "the last observation"}
    held = (truth[-1] - s.obs[5, :, :37]) / s.obs.flatten(0, 1).std(0)[:37].clamp(min=1e-6)
    assert errors["the last observation"]["all"] == pytest.approx(float(held.square().mean().sqrt()), rel=1e-5)


def test_the_truth_is_what_sensors_show_but_for_their_noise():
    loaded = checkpoint.load(world_model.WALK)
    s, truth = foresight.Walkers(loaded, override(loaded.config, foresight.OPEN_LOOP), 32, 3, None).record(40)
    noise = s.obs[..., :37] - truth
    for name, columns, scale in (
        ("joint_position", slice(0, 12), 1.0),
        ("joint_velocity", slice(12, 24), 0.05),
        ("gravity", slice(28, 31), 1.0),
    ):
        most = scale * getattr(loaded.config.env.noise, name)
        assert 0.9 * most < float(noise[..., columns].abs().max()) < 1.001 * most
        assert float(noise[..., columns].mean().abs()) < 0.05 * most
    assert not noise[..., 24:28].any() and not noise[..., 34:].any()


def test_estimates_of_what_is_not_measured_are_of_settled_robots_and_in_units():
    cfg = override(preset("quadruped-walk-flat", "belief"), {"env.max_episode_seconds": 1.0, "network.lstm": 32})
    env = registry.make(cfg.task, num_envs=32, cfg=cfg.env)
    creature = Creature(env, cfg.network, cfg.world_model)
    model = creature.world_model
    model.decode_all = lambda latents: torch.zeros(latents.shape[-1], 74)
    found = foresight.estimates(creature, env, 5)
    state = env.init_state(5)
    truth = []
    memory = creature.initial_state(32)
    age = np.zeros(32)
    for _ in range(50):
        action, _, memory = creature.act(
            torch.from_numpy(state.obs), memory, torch.from_numpy((age == 0).astype(np.float32))
        )
        truth.append(state.info["privileged"][age >= foresight.SETTLED].copy())
        state = env.step(action.numpy())
        age = np.where(state.done, 0, age + 1)
    truth = np.concatenate(truth)
    assert 0 < len(truth) <= 25 * 32
    assert found["base velocity [m/s]"][0] == pytest.approx(np.sqrt((truth[:, :3] ** 2).sum(1).mean()), rel=1e-4)
    assert found["height [m]"][1] == pytest.approx(0.1 * truth[:, 3].std(), rel=1e-3)
    assert found["friction, times"][0] == pytest.approx(np.sqrt((truth[:, 16] ** 2).mean()), rel=1e-4)


def test_what_a_computation_keeps_counts_every_storage_once():
    x = torch.randn(100, requires_grad=True)
    assert world_model_details.kept(lambda: (x.exp() * 2.0).sum()) == 400
    assert world_model_details.kept(lambda: x.exp().exp()) == 800
    with torch.no_grad():
        assert world_model_details.kept(lambda: x.exp()) == 0
    assert world_model_details.size(torch.zeros(3, 4), torch.zeros(2, dtype=torch.bfloat16)) == 52


def test_mirror_images_are_other_half_of_a_batch():
    bench = world_model_details.Bench()
    s = bench.batch(8)
    m = bench.model()
    both = world_model_details.with_images(m, s, torch.zeros(1, 384, 16))
    assert (
        both.obs.shape == (16, 16, 74)
        and torch.equal(both.obs[:, :8], s.obs)
        and torch.equal(both.obs[:, 8:], m.of_all(s.obs))
    )
    assert torch.equal(both.action[:, 8:], m.of_actions(s.action)) and torch.equal(both.keep[:, 8:], s.keep)


def test_a_policy_remembers_and_knows_where_episodes_begin():
    seen = []

    def act(obs, state, starts):
        seen.append((state, starts.copy()))
        return np.zeros((len(obs), 12)), (state or 0) + 1

    evaluator = evaluate.Evaluator("quadruped-balance", 0, seconds=1e9, steps=1, times=[], episodes=4)
    evaluator.start()
    assert evaluator.done(1, evaluate.Policy(act))
    states, starts = zip(*seen, strict=True)
    assert states == (None, *range(1, len(seen)))
    assert starts[0].all()
    assert not np.any(starts[1:])


def results():
    balance = {
        "foal": [rows_of([0.5, 1.0, 1.0], 3000), rows_of([1.0, 1.0, 1.0], 5000), rows_of([0.1, 0.1, 1.0], 4000)],
        "recurrent-ppo": [rows_of([0.0, 0.1], 100), rows_of([0.0, 0.2], 100), rows_of([0.0, 1.0], 100)],
        "recurrent-ppo-foal": [rows_of([0.0, 0.1], 1000)] * 3,
    }
    walk = {"foal": [rows_of([1.0, 1.0], velocity_error=[0.3, 0.1], yaw_rate_error=[0.3, 0.1])] * 3}
    return {"quadruped-balance": balance, "walk": walk}


def test_the_report_has_the_keys_that_others_read():
    report = training.report(results())
    json.dumps(report)
    assert report["env_steps_per_second"] == 4000
    assert report["recurrent_ppo_ratio"] == 4  # over the faster of its settings
    assert report["ratios"] == {"recurrent-ppo": 40, "recurrent-ppo-foal": 4}
    assert report["balance_seconds"] == 2.0
    assert report["walk_seconds"] == 2.0
    assert report["tasks"]["quadruped-balance"]["recurrent-ppo"]["seconds"] is None
    alone = training.report({"quadruped-balance": {"ppo": [rows_of([1.0])]}})
    assert {
        alone[key] for key in ("env_steps_per_second", "recurrent_ppo_ratio", "balance_seconds", "walk_seconds")
    } == {None}


def test_table_csv_and_plot_of_trainings(tmp_path, capsys):
    for task, result in results().items():
        training.print_table(task, result, 3.0, machine.describe())
    shown = capsys.readouterr().out
    assert "never" in shown
    assert "velocity error at most 0.15" in shown
    training.write_csv(tmp_path / "a.csv", results())
    with open(tmp_path / "a.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 9 + 6 + 6 + 6
    assert (
        lines[0] | {"task": "quadruped-balance", "contestant": "foal", "seed": "0", "seconds": "1.0", "survival": "0.5"}
        == lines[0]
    )
    training.plot(tmp_path / "a.png", results())
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_band_spans_seeds_between_their_evaluations():
    a = rows_of([0.0, 0.0, 1.0, 1.0])
    b = rows_of([1.0, 1.0])
    times, (low, middle, high) = training.band([a, b], "survival")
    assert times.tolist() == [1.0, 2.0]
    assert (low.tolist(), middle.tolist(), high.tolist()) == ([0.0, 0.0], [0.5, 0.5], [1.0, 1.0])


@pytest.mark.parametrize("contestant", training.NETWORKS)
@pytest.mark.usefixtures("threads_as_before")
def test_foal_trains_as_a_contestant(contestant):
    evaluator = evaluate.Evaluator("quadruped-balance", 0, seconds=1e9, steps=64 * 16 * 2, times=[], episodes=16)
    rows = training.train_foal(
        "quadruped-balance", 0, evaluator, training.NETWORKS[contestant] | {"train.num_envs": 64}
    )
    assert len(rows) == 1
    assert rows[0]["env_steps"] == 64 * 16 * 2


def test_without_stable_baselines_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    monkeypatch.delitem(sys.modules, "benchmarks.stable_baselines", raising=False)
    monkeypatch.delattr("benchmarks.stable_baselines", raising=False)
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    monkeypatch.setattr(sys, "argv", ["training"])
    with pytest.raises(SystemExit) as stop:
        training.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert "pip install -r requirements-bench.txt" in error


@pytest.mark.parametrize("option", [["--task", "fly"], ["--seconds", "0"], ["--seeds", "-1"]])
def test_training_says_what_it_was_asked_wrongly(option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["training", *option])
    with pytest.raises(SystemExit) as stop:
        training.main()
    assert stop.value.code == 2
    assert option[1].lstrip("-") in capsys.readouterr().err.splitlines()[-1]


def test_stable_baselines_sees_what_the_environment_does():
    stable_baselines = pytest.importorskip("benchmarks.stable_baselines", exc_type=ImportError)
    changes = {"max_episode_seconds": 0.6}
    env = stable_baselines.FoalVecEnv(
        GymVectorEnv(registry.make("quadruped-balance", num_envs=48, env_cfg_override=changes, threads=1), 3, 100.0)
    )
    plain = registry.make("quadruped-balance", num_envs=48, env_cfg_override=changes, threads=1)
    assert np.array_equal(env.reset(), plain.init_state(3, staggered=True).obs)
    actions = np.random.default_rng(0).normal(size=(48, 12)).astype(np.float32)
    ended = np.zeros(2, int)
    for _ in range(40):
        obs, rewards, dones, infos = env.step(actions)
        state = plain.step(actions)
        assert np.array_equal(obs, state.obs)
        assert np.array_equal(rewards, state.reward)
        assert np.array_equal(dones, state.done)
        for i, info in enumerate(infos):
            assert bool(info) == dones[i]
            if info:
                assert info["TimeLimit.truncated"] == state.truncated[i]
                assert np.array_equal(info["terminal_observation"], state.info["final_obs"][i])
        ended += state.truncated.sum(), state.terminated.sum()
    assert ended.all()


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.usefixtures("threads_as_before")
def test_stable_baselines_trains_under_the_evaluator(recurrent):
    stable_baselines = pytest.importorskip("benchmarks.stable_baselines", exc_type=ImportError)
    preset = stable_baselines.presets("quadruped-balance")["recurrent-ppo-foal" if recurrent else "ppo-foal"][1]
    settings = dataclasses.replace(preset, robots=32, steps=8, batch=128, threads=1)
    evaluator = evaluate.Evaluator("quadruped-balance", 0, seconds=1e9, steps=2 * 32 * 8, times=[], episodes=16)
    rows = stable_baselines.train_sb3("quadruped-balance", 0, recurrent, settings, evaluator)
    assert [row["env_steps"] for row in rows] == [2 * 32 * 8]
    assert rows[0]["seconds"] > 0


def tasks_run(task, evaluations, **final):
    rows = [
        {"train_seconds": float(t), "env_steps": 1e3 * t} | {f"eval_{name}": x for name, x in e.items()}
        for t, e in enumerate(evaluations, 1)
    ]
    return {"seconds": 12.0, "rows": rows, "final": {"survival": 1.0} | final}


def test_tasks_are_learnt_at_the_first_evaluation_that_says_so(tmp_path, capsys):
    bounces = [
        {"survival": 1.0, "bounces": 9.0},
        {"survival": 0.9, "bounces": 20.0},
        {"survival": 1.0, "bounces": 10.0},
    ]
    walks = [
        {"survival": 1.0, "velocity_error": 0.2, "yaw_rate_error": 0.1},
        {"survival": 1.0, "velocity_error": 0.1, "yaw_rate_error": 0.2},
    ]
    ball = tasks_run("bounce-ball", bounces, bounces=11.0, episode_seconds=20.0)
    walk = tasks_run("quadruped-walk-flat", walks, velocity_error=0.1, yaw_rate_error=0.2)
    assert tasks.arrival("bounce-ball", "", ball) == 3.0
    assert tasks.arrival("quadruped-walk-flat", "go1", walk) is None
    assert tasks.arrival("cartpole", "", tasks_run("cartpole", [{"survival": 0.98}, {"survival": 0.99}])) == 2.0
    results = {("bounce-ball", ""): [ball], ("quadruped-walk-flat", "spot"): [walk, walk]}
    summary = tasks.report(results, {"cpu": "c", "cores": 1, "versions": {}})
    out = capsys.readouterr().out
    assert (
        "95% survival, bounces at least 10" in out
        and "never, never" in out
        and summary[0]["seconds"] == [3.0]
        and summary[1]["robot"] == "spot"
    )
    tasks.write_csv(tmp_path / "t.csv", results)
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 + 2 * 2 and rows[0]["bounces"] == "9"
    last = {"robot": "spot", "seed": "1", "env_steps": "2000", "velocity_error": "0.1", "goals": ""}
    assert rows[-1] | last == rows[-1]
    tasks.plot(tmp_path / "t.png", results)
    assert (tmp_path / "t.png").stat().st_size > 5000


def test_tasks_are_learnt_by_the_command_and_its_failure_ends_it(tmp_path):
    assert (
        tasks.robots("quadruped-goal") == tasks.ROBOTS
        and tasks.robots("anymal-navigation") == ("anymal_c",)
        and tasks.robots("cartpole") == ("",)
    )
    with pytest.raises(SystemExit, match=r"simulate\.py --task nothing: simulate\.py: task: unknown task 'nothing'"):
        tasks.simulate(tmp_path, "--task", "nothing")
