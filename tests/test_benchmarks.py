"""The benchmarks count what they time."""

import sys
import time

import numpy as np
import pytest

from benchmarks import agreement, environment, stiffness, trot
from environments import registry
from physics import load_robot


def test_foal_is_counted_step_by_step():
    env = registry.make(environment.TASK, 16, threads=1)
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
    env = registry.make(environment.TASK, 16, {"episode_seconds": 0.2}, threads=1)
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
    ours, theirs = trot.foal(0.002), trot.mujoco(0.002, trot.Settings(cone="elliptic"))
    assert ours.shape == theirs.shape == (100, trot.ROBOTS, 3)
    assert np.linalg.norm(theirs[-1] - theirs[0], axis=1).min() > 0.2
    assert trot.error(ours, theirs) < 0.15


def test_accelerations_agree_at_every_time_step():
    for timestep in (0.001, 0.005):
        assert agreement.accelerations(load_robot("go1"), timestep, 8)["relative error, largest"] < 1e-5


def test_angles_between_attitudes():
    half = 0.3 / 2
    level, turned = np.array([1.0, 0, 0, 0]), np.array([np.cos(half), 0, np.sin(half), 0])
    angles = [agreement.angle(a, b) for a, b in ((level, turned), (level, -2 * turned), (turned, turned))]
    np.testing.assert_allclose(angles, [0.3, 0.3, 0], atol=1e-12)


def test_limit_is_that_of_the_contact():
    assert stiffness.limit(lambda dt: dt < 0.0035) == 0.003
    assert stiffness.limit(lambda dt: dt != 0.001) == 7e-4
    assert stiffness.limit(lambda dt: False) == 0.0
    assert stiffness.lands("go1", 0.0025, False, contact_stiffness=2e4, contact_damping=100.0)
    assert not stiffness.lands("go1", 0.02, False, contact_stiffness=1e6, contact_damping=100.0)
    assert stiffness.jitter("go1", 0.0025, contact_stiffness=2e4) < 1e-3 < stiffness.jitter("go1", 0.01, contact_stiffness=1e6)
