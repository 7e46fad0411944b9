"""The benchmarks count what they time."""

import sys
import time

import numpy as np
import pytest

from benchmarks import environment
from environments import registry


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
