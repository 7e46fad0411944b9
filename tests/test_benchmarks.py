"""The benchmarks count what they time."""

import csv
import dataclasses
import json
import sys
import time
import types

import numpy as np
import pytest
import torch

from benchmarks import (
    agreement,
    environment,
    environment_parts,
    environment_stages,
    foresight,
    gpu,
    judge,
    machine,
    stiffness,
    tasks,
    terms,
    training,
    transfer,
    trot,
    world_model,
    world_model_details,
)
from entity import Creature
from environments import registry
from environments.gymnasium import GymVectorEnv
from physics import layout as L
from physics import load_robot
from physics.jit import LANES
from settings import override
from training import checkpoint
from training.presets import preset


def test_foal_is_counted_step_by_step():
    env = registry.make(environment.TASK, num_envs=16, threads=1)
    env.init_state(staggered=True)
    actions = [np.zeros((16, 12), np.float32), np.ones((16, 12), np.float32)]
    total = environment.Tally()
    measure = environment.rate(lambda: environment.foal_steps(env, actions, 50), total)
    start = time.perf_counter()
    rate = measure()
    seconds = time.perf_counter() - start
    assert env.clock == 50
    assert total.steps == 50 * 16
    # the measurement's own time is within that taken here
    assert total.steps / rate <= seconds


def test_every_end_of_an_episode_is_counted():
    env = registry.make(environment.TASK, num_envs=16, env_cfg_override={"max_episode_seconds": 0.2}, threads=1)
    env.init_state()
    total = environment.foal_steps(env, [np.zeros((16, 12), np.float32)], 30)
    assert total.ended == 3 * 16


def test_envpool_is_counted_by_what_it_returns():
    pytest.importorskip("envpool")
    pool = environment.Ants(threads=2, count=8)
    tally = pool.step(3)
    tally.add(pool.step(2))
    # EnvPool's own count: one more step of every ant, none of which falls that early
    taken = []
    for ids in pool.idle:
        pool.pool.send(pool.actions[0], ids)
    for _ in range(2):
        taken.append(pool.pool.recv()[4]["elapsed_step"].copy())
    assert tally.ended == tally.began == 0
    assert tally.steps == 5 * 8
    assert np.concatenate(taken).sum() == tally.steps + 8


def test_without_envpool_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(environment, "envpool", None)
    monkeypatch.setattr(environment, "missing", "No module named 'envpool'", raising=False)
    monkeypatch.setattr(sys, "argv", ["environment"])
    with pytest.raises(SystemExit) as stop:
        environment.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert f"pip install {environment.ENVPOOL}" in error
    assert "--part sizes tasks breakdown overhead" in error


def test_the_comparison_has_the_keys_that_others_read(monkeypatch):
    foal = environment.foal
    spec = types.SimpleNamespace(config=types.SimpleNamespace(frame_skip=5))
    monkeypatch.setattr(environment, "envpool", types.SimpleNamespace(make_spec=lambda _: spec))
    monkeypatch.setattr(environment, "ants", lambda threads: foal(threads, 64, 4))
    monkeypatch.setattr(environment, "foal", lambda threads: foal(threads, 64, 4))
    result = environment.report_envpool(True, machine.describe("numba"))
    for n, ratio in (("1", "envpool_ratio_1"), ("all", "envpool_ratio")):
        assert result[ratio] == result[f"foal_env_steps_per_second_{n}"] / result[f"envpool_env_steps_per_second_{n}"]
        assert result[f"foal_microseconds_per_env_step_{n}"] == 1e6 / result[f"foal_env_steps_per_second_{n}"]
    assert result["foal_physics_steps_per_env_step"] == result["envpool_physics_steps_per_env_step"] == 5


def test_every_task_is_swept_without_envpool(monkeypatch, capsys):
    monkeypatch.setattr(environment, "envpool", None)
    monkeypatch.setattr(environment, "TASK_SIZES", (32, 33))
    monkeypatch.setattr(environment, "TASK_STEPS", 64)
    monkeypatch.setattr(sys, "argv", ["environment", "--part", "tasks", "--quick", "--json"])
    environment.main()
    *table, line = capsys.readouterr().out.splitlines()
    rows = json.loads(line)["tasks"]
    names = {name for name, backends in registry.list_registered_envs().items() if backends}
    assert {"quadruped-balance", "anymal-navigation", "bounce-ball"} <= names == {row["task"] for row in rows}
    assert [row["robots"] for row in rows] == [32] * len(names) + [33] * len(names)
    assert min(row["env_steps_per_second"] for row in rows) > 0
    assert all(any(name in row for row in table) for name in names)


def test_a_task_in_numpy_is_swept_in_parts(monkeypatch):
    parts = []
    monkeypatch.setattr(
        environment,
        "side_by_side",
        lambda function, shares: parts.extend(shares) or [function(share) for share in shares],
    )
    assert environment.any_task("cartpole", cores=2, robots=33, steps=3)().steps == 33 * 3
    assert [(env.num_envs, env.clock, {len(a) for a in actions}) for env, actions in parts] == [
        (16, 3, {16}),
        (17, 3, {17}),
    ]


def twins(threads=1):
    """Return two equal lots of robots whose episodes end all the time, and actions for them."""
    changes = {"max_episode_seconds": 0.2}
    envs = [environment_parts.started(environment.TASK, 40, threads, changes) for _ in range(2)]
    return envs[0][0], envs[1][0], envs[0][1]


def test_what_is_left_out_of_a_step_is_gone():
    env, actions = environment_parts.started(environment.TASK, 64, 1)
    made = environment_stages.variants(env)

    def step(action, *names, physics=""):
        call, _, *arguments = environment_parts.call_of(env, action)
        env.engine.run(call, environment_stages.only(env, made, *names, physics=physics), *arguments)
        return env.engine.get_state()

    for _ in range(15):  # to stand still
        env.step(0 * actions[0])
    standing = env.engine.blocks.copy()
    before = env.engine.get_state()
    step(actions[0], "nothing")
    physics = slice(0, L.STATE_ROWS * LANES)  # beside it, returns are summed up
    assert np.array_equal(env.engine.blocks[:, physics], standing[:, physics])
    drops = []
    pushes = []
    for physics in ("", *environment_stages.PHYSICS):
        env.engine.blocks[:] = standing
        after = step(0 * actions[0], *(() if physics else ("advance",)), physics=physics)
        drops.append(
            np.median(before.base_position[:, 2] + 0.02 * before.base_linear_velocity[:, 2] - after.base_position[:, 2])
        )
        pushes.append(np.median(np.abs(after.joint_velocity - before.joint_velocity)))
    fall = 9.81 * 0.004**2 * 15  # in 5 steps of 4 ms, velocity first
    np.testing.assert_allclose(drops[0], 0.0, atol=0.2 * fall)
    assert 0.8 * fall < min(drops[1:3])
    np.testing.assert_allclose(drops[3], fall, rtol=0.01)
    # legs without motors bend on the ground, those without ground are stretched, those with neither just fall
    assert pushes[3] < 0.01 < 0.2 < min(pushes[1:3])


def test_all_stages_make_up_a_step():
    env, plain, actions = twins()
    made = environment_stages.variants(env)
    ended = 0
    for a in actions:
        call, _, *arguments = environment_parts.call_of(env, a)
        env.engine.run(call, environment_stages.only(env, made, *environment_stages.STAGES), *arguments)
        ended += np.count_nonzero(plain.step(a).done)
        assert np.array_equal(env.engine.blocks, plain.engine.blocks)
        assert np.array_equal(env.engine.model.varied_blocks, plain.engine.model.varied_blocks)
    assert ended > 40


def test_only_functions_that_are_called_can_be_replaced():
    with pytest.raises(ValueError, match="leg_upward"):
        environment_stages.replaced(environment_stages.substep, leg_upward=environment_stages.nothing)


def test_a_step_taken_in_parts_is_a_step():
    env, plain, actions = twins()
    for a in actions[:3]:
        times = environment_parts.in_stages(env, a)
        plain.step(a)
        assert np.array_equal(env.engine.blocks, plain.engine.blocks)
    parts = [taken for part, taken in times.items() if part not in ("sum", "whole")]
    assert times["sum"] == pytest.approx(sum(parts))
    result = environment_parts.by_stage(environment.TASK, 256, 8)
    assert list(result) == list(times)
    assert np.isfinite(list(result.values())).all()
    assert min(result[part] for part in ("dynamics", "contact", "observation", "copying", "whole")) > 0
    assert 0.5 < result["sum"] / result["whole"] < 2


def test_methods_are_timed_once_each(monkeypatch):
    now = [0.0]

    def taking(seconds, method):
        def call(*arguments):
            now[0] += seconds
            return method(*arguments)

        return call

    cart = type(registry.make("cartpole"))
    reward = cart.reward
    monkeypatch.setattr(environment_parts, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    for name, duration in (("act", 0.25), ("advance", 3.0), ("fallen", 1.0)):
        monkeypatch.setattr(cart, name, taking(duration, getattr(cart, name)))
    # a method that calls another one
    monkeypatch.setattr(cart, "reward", lambda env: (env.fallen(), reward(env))[1])
    result = environment_parts.by_method("cartpole", 10, 3)
    expected = {
        "act": 0.25,
        "advance": 3.0,
        "reward, fallen": 2.0,
        "observe": 0.0,
        "reset": 0.0,
        "the rest": 0.0,
        "sum": 5.25,
        "whole": 5.25,
    }
    assert result == pytest.approx({name: 1e8 * duration for name, duration in expected.items()})


def test_the_call_beneath_a_step_is_the_whole_step():
    env, plain, actions = twins(threads=2)
    for a in actions[:12]:
        call = environment_parts.call_of(env, a)
        env.engine.run(*call)
        plain.step(a)
        assert env.clock == plain.clock
        assert np.array_equal(env.engine.blocks, plain.engine.blocks)


def test_overhead_is_what_is_left_of_a_step_without_its_kernel():
    result = environment_parts.overhead(robots=64, repetitions=20, threads=1)
    assert np.isfinite(list(result.values())).all()
    assert result["overhead_share"] == result["alone"] / result["step"]
    assert 0 < result["checked"] < result["alone"] < result["kernel"]
    assert min(result[name] for name in ("validate", "new_state", "make")) > 0


def test_error_of_a_trajectory_is_its_distance_over_the_displacement():
    t = np.linspace(0, 1, 50)[:, None, None]
    line = t * np.array([[3.0, 4.0, 0.0]] * 5)  # 5 m in all, RMS 5 sqrt(mean t^2)
    assert trot.error(line, line) == 0
    by_hand = 0.1 / (5 * np.sqrt((t**2).mean()))
    np.testing.assert_allclose(trot.error(line + [0.0, 0.0, 0.1], line), by_hand)
    # one robot astray does not count: the median
    astray = line + [0.0, 0.0, 0.1]
    astray[:, 2] += 100.0
    np.testing.assert_allclose(trot.error(astray, line), by_hand)


def test_largest_time_step_is_the_last_before_the_first_that_fails():
    line = np.linspace(0, 1, 50)[:, None, None] * np.ones((1, 3, 3))
    wrong = {1e-4: 0.0, 1e-3: 0.001, 2e-3: 0.002, 3e-3: 0.05, 4e-3: 0.001}

    def run(dt):
        return line + wrong[dt] * line

    largest, errors = trot.largest_timestep(run, (4e-3, 1e-3, 3e-3, 2e-3))
    assert largest == 2e-3
    assert list(errors) == [1e-3, 2e-3, 3e-3, 4e-3]
    np.testing.assert_allclose(list(errors.values()), [0.001, 0.002, 0.05, 0.001], atol=1e-12)
    assert trot.largest_timestep(run, (1e-3, 2e-3), line * 2)[0] == 0.0
    assert trot.largest_timestep(lambda dt: line * np.nan, (1e-3,), line)[0] == 0.0


def test_both_engines_trot_alike():
    ours = trot.foal(0.002)
    theirs = trot.mujoco(0.002, trot.Settings(cone="elliptic"))
    assert ours.shape == theirs.shape == (100, trot.ROBOTS, 3)
    assert np.linalg.norm(theirs[-1] - theirs[0], axis=1).min() > 0.2
    assert trot.error(ours, theirs) < 0.15


@pytest.mark.parametrize(
    ("task", "errors"),
    [
        ("quadruped-balance", {"goal_distance": 0.2}),
        ("quadruped-walk-flat", {"velocity_error": 0.2, "yaw_rate_error": 0.2}),
        ("quadruped-walk-robust", {"velocity_error": 0.3, "yaw_rate_error": 0.2}),
        ("quadruped-goal", {"goal_distance": 4.0, "goals_per_minute": 30.0}),
    ],
)
@pytest.mark.usefixtures("threads_as_before")
def test_a_policy_is_examined_in_both_engines(task, errors, monkeypatch, capsys):
    path = world_model.WALK.with_name(f"{task}.pt")
    saved = checkpoint.load(path)
    saved = dataclasses.replace(saved, config=override(saved.config, {"env.max_episode_seconds": 6.0}))
    monkeypatch.setattr(transfer.checkpoint, "load", lambda _: saved)
    monkeypatch.setattr(sys, "argv", ["transfer", "--checkpoint", str(path), "--episodes", "4", "--json"])
    transfer.main()
    *table, line = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert (result["task"], result["episodes"], result["cone"]) == (task, 4, "pyramidal")
    names = {name.rpartition("_")[0] for name in result if name.endswith(("_foal", "_mujoco"))}
    assert names == {"survival", "episode_seconds", "speed", *errors}
    assert all(any(row.split()[0] == name for row in table if row) for name in names)
    for engine in ("foal", "mujoco"):
        assert result[f"survival_{engine}"] >= 0.75
        assert 4.5 <= result[f"episode_seconds_{engine}"] <= 6.0
        for name, most in errors.items():
            assert 0 < result[f"{name}_{engine}"] < most, (name, engine)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("cartpole", "task: expected one of a quadruped"),
        ("anymal-navigation", "command.kind: expected stay or velocity or goal"),
        ("quadruped-walk-rough", "terrain.kinds: expected flat"),
    ],
)
def test_what_mujoco_s_robots_cannot_do_is_refused(task, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["transfer", "--checkpoint", str(world_model.WALK.with_name(f"{task}.pt"))])
    with pytest.raises(SystemExit) as stop:
        transfer.main()
    assert stop.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_accelerations_agree_at_every_time_step():
    for timestep in (0.001, 0.005):
        assert agreement.accelerations(load_robot("go1"), timestep, 8)["relative error, largest"] < 1e-5


def test_angles_between_attitudes():
    half = 0.3 / 2
    level = np.array([1.0, 0, 0, 0])
    turned = np.array([np.cos(half), 0, np.sin(half), 0])
    angles = [agreement.angle(a, b) for a, b in ((level, turned), (level, -2 * turned), (turned, turned))]
    np.testing.assert_allclose(angles, [0.3, 0.3, 0], atol=1e-12)


def test_limit_is_that_of_the_contact():
    assert stiffness.limit(lambda dt: dt < 0.0035) == 0.003
    assert stiffness.limit(lambda dt: dt != 0.001) == 7e-4
    assert stiffness.limit(lambda dt: False) == 0.0
    assert stiffness.lands("go1", 0.0025, False, contact_stiffness=2e4, contact_damping=100.0)
    assert not stiffness.lands("go1", 0.02, False, contact_stiffness=1e6, contact_damping=100.0)
    assert (
        stiffness.jitter("go1", 0.0025, contact_stiffness=2e4)
        < 1e-3
        < stiffness.jitter("go1", 0.01, contact_stiffness=1e6)
    )


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
    assert judge.arrival(rows_of([0.1, 0.95, 0.9, 1.0])) == (2.0, 2000)
    assert judge.arrival(rows_of([0.1, 0.94])) is None
    # walking is also to go where it is told to
    assert judge.arrival(
        rows_of([1.0, 1.0, 0.9, 1.0], velocity_error=[0.2, 0.15, 0.1, 0.1], yaw_rate_error=[0.1, 0.2, 0.1, 0.1])
    ) == (4.0, 4000)


def test_the_median_of_seeds_counts_those_that_never_arrive():
    assert judge.median([3.0, None, 1.0]) == 3.0
    assert judge.median([None, None, 1.0]) is None
    assert judge.median([1.0, None]) is None
    assert judge.median([2.0, 3.0]) == 2.5


def test_evaluations_get_rarer_and_the_last_is_at_the_end():
    times = judge.evaluation_times(60.0)
    assert times[0] == 0.5
    assert times[-1] == 60.0
    gaps = np.diff(times)[:-1]
    assert gaps.min() >= 0.5 - 1e-9
    assert (np.diff(gaps) >= -1e-9).all()


def test_the_judge_stops_the_clock_while_he_looks(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(judge, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def look(*_):
        now[0] += 1000.0
        return {"survival": 0.5}

    monkeypatch.setattr(judge, "evaluate", look)
    referee = judge.Judge("quadruped-balance", 0, seconds=10.0, times=[1.0, 3.5, 4.0, 10.0], episodes=1)
    referee.start()
    steps = 0
    over = False
    while not over:
        now[0] += 2.0  # an iteration
        steps += 100
        over = referee.done(steps, None)
    # the first iterations' ends after the times, each time looked at once
    assert [(row["seconds"], row["env_steps"]) for row in referee.rows] == [(2.0, 100), (4.0, 200), (10.0, 500)]
    assert judge.rate(referee.rows) == 50.0


def test_the_judge_looks_again_after_some_env_steps(monkeypatch):
    monkeypatch.setattr(judge, "evaluate", lambda *_: {"survival": 0.5})
    referee = judge.Judge("quadruped-balance", 0, 3600.0, 1000, (), 1, every=300)
    referee.start()
    for steps in range(120, 1081, 120):
        assert referee.done(steps, None) == (steps >= 1000)
    assert [row["env_steps"] for row in referee.rows] == [360, 600, 960, 1080]


def test_two_evaluations_in_a_row_are_an_arrival_at_the_first():
    assert world_model.arrival(rows_of([0.95, 0.9, 0.97, 0.99, 0.5]))["env_steps"] == 3000
    assert world_model.arrival(rows_of([0.95, 0.9, 0.97])) is None
    summary = world_model.summary([rows_of([1.0, 1.0]), rows_of([0.0, 0.5]), rows_of([0.0, 1.0, 1.0])])
    assert summary["env_steps"] == [1000, None, 2000] and summary["median"] == 2000


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
    model = foresight.WorldModel(37, 12, cfg.world_model, 37, env.body)
    model.normaliser.update(s.obs.flatten(0, 1))
    one_step = foresight.OneStep(37, 12)
    results = []
    for future in (s.obs[6:], torch.zeros_like(s.obs[6:])):
        torch.manual_seed(1)
        with torch.no_grad():
            results.append(foresight.foresee(model, s._replace(obs=torch.cat((s.obs[:6], future)))))
    assert torch.equal(*results)
    with torch.no_grad():
        errors = foresight.examine(model, one_step, s, truth[-1])
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

    referee = judge.Judge("quadruped-balance", 0, seconds=1e9, steps=1, times=[], episodes=4)
    referee.start()
    assert referee.done(1, judge.Policy(act))
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


@pytest.fixture
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("contestant", training.NETWORKS)
@pytest.mark.usefixtures("threads_as_before")
def test_foal_trains_as_a_contestant(contestant):
    referee = judge.Judge("quadruped-balance", 0, seconds=1e9, steps=64 * 16 * 2, times=[], episodes=16)
    rows = training.train_foal("quadruped-balance", 0, referee, training.NETWORKS[contestant] | {"train.num_envs": 64})
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
def test_stable_baselines_trains_under_the_judge(recurrent):
    stable_baselines = pytest.importorskip("benchmarks.stable_baselines", exc_type=ImportError)
    preset = stable_baselines.presets("quadruped-balance")["recurrent-ppo-foal" if recurrent else "ppo-foal"][1]
    settings = dataclasses.replace(preset, robots=32, steps=8, batch=128, threads=1)
    referee = judge.Judge("quadruped-balance", 0, seconds=1e9, steps=2 * 32 * 8, times=[], episodes=16)
    rows = stable_baselines.train_sb3("quadruped-balance", 0, recurrent, settings, referee)
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
    assert tasks.arrival("bounce-ball", ball) == 3.0 and tasks.arrival("quadruped-walk-flat", walk) is None
    assert tasks.arrival("cartpole", tasks_run("cartpole", [{"survival": 0.98}, {"survival": 0.99}])) == 2.0
    results = {("bounce-ball", ""): [ball], ("quadruped-walk-flat", "spot"): [walk, walk]}
    told = tasks.report(results, {"cpu": "c", "cores": 1, "versions": {}})
    out = capsys.readouterr().out
    assert (
        "95% survival, bounces at least 10" in out
        and "never, never" in out
        and told[0]["seconds"] == [3.0]
        and told[1]["robot"] == "spot"
    )
    tasks.write_csv(tmp_path / "t.csv", results)
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 + 2 * 2 and rows[0]["bounces"] == "9"
    assert (
        rows[-1]["robot"],
        rows[-1]["seed"],
        rows[-1]["env_steps"],
        rows[-1]["velocity_error"],
        rows[-1]["goals"],
    ) == ("spot", "1", "2000", "0.1", "")
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


def test_a_part_that_fails_keeps_no_other_from_running(monkeypatch, capsys):
    def broken(bench):
        raise RuntimeError("a kernel that there is not")

    monkeypatch.setitem(gpu.PARTS, "agreement", broken)
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--device", "cpu", "--minutes", "0.01", "--part", "agreement", "threads", "--json"]
    )
    assert gpu.main() == 1
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["failed"] == ["agreement"]
    assert result["threads"]["1"] > 0


def test_the_tree_of_a_commit_is_checked_out_and_one_that_there_is_not_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(terms, "BEFORE", "HEAD")
    assert (terms.checkout(tmp_path) / "simulate.py").exists()
    monkeypatch.setattr(terms, "BEFORE", "0123456789")
    with pytest.raises(SystemExit) as stop:
        terms.checkout(tmp_path)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("benchmarks.terms: expected a clone with commit 0123456789")


def test_paces_are_compared_pair_by_pair_after_one_that_compiles(monkeypatch, tmp_path):
    paces = iter([1.0, 1.0, 8.0, 4.0, 5.0, 10.0])
    ran = []

    def run(*command, cwd):
        ran.append(cwd)
        return str(next(paces))

    monkeypatch.setattr(terms, "run", run)
    assert terms.step_ratios(tmp_path, 2) == [0.5, 0.5]
    assert ran == [terms.ROOT, tmp_path, tmp_path, terms.ROOT, terms.ROOT, tmp_path]
