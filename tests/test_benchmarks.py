"""Benchmarks of the simulator count what they time, and compare it with others."""

import dataclasses
import json
import sys
import time
import types

import numpy as np
import pytest

from benchmarks import (
    agreement,
    environment,
    environment_parts,
    environment_stages,
    gpu,
    machine,
    robots,
    stiffness,
    terms,
    transfer,
    trot,
    world_model,
)
from config import QuadrupedCfg
from environments import registry
from environments.quadruped import gains, torque_ratio
from physics import layout as L
from physics import load_robot, save_robot
from physics.jit import LANES
from settings import override
from training import checkpoint


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


def test_tasks_are_swept_without_envpool(monkeypatch, capsys):
    monkeypatch.setattr(environment, "envpool", None)
    monkeypatch.setattr(environment, "TASK_SIZES", (32, 33))
    monkeypatch.setattr(environment, "TASK_STEPS", 64)
    names = "quadruped-balance", "cartpole", "bounce-ball"
    monkeypatch.setattr(sys, "argv", ["environment", "--part", "tasks", "--tasks", *names, "--quick", "--json"])
    environment.main()
    *table, line = capsys.readouterr().out.splitlines()
    rows = json.loads(line)["tasks"]
    assert [(row["task"], row["robots"]) for row in rows] == [(name, size) for size in (32, 33) for name in names]
    assert min(row["env_steps_per_second"] for row in rows) > 0
    assert all(any(name in row for row in table) for name in names)


def test_a_task_in_numpy_is_swept_in_parts(monkeypatch):
    parts = []
    monkeypatch.setattr(
        environment,
        "side_by_side",
        lambda function, work: parts.extend(work) or [function(part) for part in work],
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
    # parts are small differences of long times, which a busy machine makes anything of
    assert result["dynamics"] > 0 and result["whole"] > 0
    assert 0.3 < result["sum"] / result["whole"] < 3


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
        "act": 0.25, "advance": 3.0, "reward, fallen": 2.0, "observe": 0.0, "reset": 0.0, "other": 0.0,
        "sum": 5.25, "whole": 5.25,
    }  # fmt: skip
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
    assert result["checked"] > 0 and 0 < result["alone"] < result["kernel"]
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
        ("quadruped-walk-rough", {"velocity_error": 0.25, "yaw_rate_error": 0.25}),
        ("quadruped-goal", {"goal_distance": 4.0, "goals_per_minute": 30.0}),
    ],
)
@pytest.mark.usefixtures("threads_as_before")
def test_a_policy_is_evaluated_in_both_engines(task, errors, monkeypatch, capsys):
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
    assert names == {"survival", "episode_seconds", "mean_return", "speed", *errors}
    assert all(any(row.split()[0] == name for row in table if row) for name in names)
    for engine in ("foal", "mujoco"):
        assert result[f"survival_{engine}"] >= 0.75
        assert 4.5 <= result[f"episode_seconds_{engine}"] <= 6.0
        for name, most in errors.items():
            assert 0 < result[f"{name}_{engine}"] < most, (name, engine)


def test_actions_take_effect_late_and_none_of_an_episode_before():
    class World:
        num_envs = 2
        num_actions = 1
        tallies = ()

        def init_state(self, seed):
            self.seed = seed

        def step(self, actions):
            self.done = np.array([False, actions[1, 0] == 1.0])
            return types.SimpleNamespace(done=self.done, taken=actions.ravel().tolist())

    late = transfer.Late(World(), 2)
    late.init_state(5)
    assert (late.seed, late.tallies) == (5, ())
    given = [np.full((2, 1), float(x)) for x in range(1, 7)]
    # two steps of standing; the second robot's episode ends with its action 1, and 2 and 3 go with it
    assert [late.step(x).taken for x in given] == [[0, 0], [0, 0], [1, 1], [2, 0], [3, 0], [4, 4]]


@pytest.mark.parametrize("own", [False, True])
def test_conditions_change_one_thing_each(own, tmp_path):
    cfg = registry.default_cfg("quadruped-walk-flat")
    if own:
        save_robot(dataclasses.replace(load_robot("go1"), kp=np.full((4, 3), 30.0)), tmp_path / "own.json")
        cfg = override(cfg, {"model": str(tmp_path / "own.json"), "kp": 80.0})
    found = transfer.conditions(cfg, tmp_path)
    assert found.pop("as the task has it") == (cfg, 0.0)
    assert all((changed, late) != (cfg, 0.0) for changed, late in found.values())
    loaded, _ = found["load of 20% of the trunk"]
    robot = load_robot("go1")
    heavier = load_robot(loaded.model)
    assert heavier.base.mass == pytest.approx(1.2 * robot.base.mass)
    assert heavier.links[0][0].mass == pytest.approx(robot.links[0][0].mass)
    kp, kd = gains(loaded, heavier)
    np.testing.assert_allclose(kp, 60.0 if own else 40.0)
    np.testing.assert_allclose(kd, 1.0)
    assert torque_ratio(heavier) * loaded.torque_scale == pytest.approx(torque_ratio(robot) * cfg.torque_scale)


def test_robots_that_shake_or_fall_are_told(monkeypatch):
    cfg = QuadrupedCfg()
    robot = load_robot("go1")
    assert robots.restlessness(robot, cfg) < robots.STILL and robots.stands(robot, cfg)
    monkeypatch.setattr(robots, "HANGING", 0.004)
    assert robots.restlessness(robot, cfg) > robots.STILL
    leaning = dataclasses.replace(robot, base=dataclasses.replace(robot.base, com=np.array([0.5, 0.0, 0.0])))
    assert not robots.stands(leaning, cfg)
    limp = dataclasses.replace(robot, torque_limit=np.full((4, 3), 1.0))
    assert not robots.stands(limp, cfg)


def test_robots_files_are_found_or_missed_in_a_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "b.urdf").write_text("<robot/>")
    (tmp_path / "a.txt").write_text("")
    assert robots.files_of([str(tmp_path)]) == [tmp_path / "b.urdf"]
    assert "b.urdf" not in (refused := robots.judge(tmp_path / "b.urdf")["refused"]) and refused
    (tmp_path / "b.urdf").unlink()
    for path in (tmp_path, tmp_path / "none.xml"):
        monkeypatch.setattr(sys, "argv", ["robots", str(path)])
        with pytest.raises(SystemExit) as stop:
            robots.main()
        assert stop.value.code == 2
        assert f"{path}: expected a robot's file" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("cartpole", "task: expected one of a legged robot"),
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
    assert (machine.checkout("HEAD", tmp_path) / "simulate.py").exists()
    monkeypatch.setattr(machine.sys, "argv", ["benchmarks/terms.py"])
    with pytest.raises(SystemExit) as stop:
        machine.checkout("0123456789", tmp_path)
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
