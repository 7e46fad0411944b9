"""Far goals: how they are shown, followed, counted and rewarded, against plain NumPy."""

import numpy as np
import pytest
from walking import GOAL, NEVER_FALL, goal, make, to_heading, wander

from physics import layout as L

# Goals


def test_far_goals_are_shown_followed_and_counted():
    n = 256
    env = make(GOAL, n, NEVER_FALL, {"max_episode_seconds": 1e3, "goal.reach": 2.0})
    env.init_state(seed=4)
    cfg = env.cfg.command
    rng = np.random.default_rng(1)
    counted = np.zeros(n)
    drawn = []
    assert not env.field("arrived").any()
    for _ in range(40):
        before = goal(env)
        # some are carried to near their goal, to where it counts or not, and over the borders of cells of 16 m
        carried = rng.uniform(size=n) < 0.3
        place = env.engine.get_state().base_position.copy()
        place[carried, :2] = before[carried, :2] + rng.choice([0.1, 0.6], carried.sum())[:, None] * [0.8, 0.6]
        env.engine.set_state(base_position=place)
        env.set_field("goal", before - np.pad(env.engine.rows(L.ORIGIN, 2), ((0, 0), (0, 1))))
        s = env.step(rng.normal(0, 0.2, (n, 12)))
        assert not s.done.any()
        com = env.field("com") + np.pad(env.engine.rows(L.ORIGIN, 2), ((0, 0), (0, 1)))
        distance = np.linalg.norm((before - com)[:, :2], axis=1)
        arrived = distance < cfg.reached
        sure = np.abs(distance - cfg.reached) > 1e-3
        moved = (np.abs(goal(env) - before) > 1e-3).any(axis=1)
        np.testing.assert_array_equal(moved[sure], arrived[sure])
        np.testing.assert_array_equal(env.errors()["goals_per_minute"][sure], arrived[sure] * 3000.0)
        counted += moved
        drawn.extend(np.linalg.norm((goal(env) - com)[moved, :2], axis=1))
        offset = to_heading(env.engine.get_state().base_quaternion, (goal(env) - com)[:, :2])
        length = np.linalg.norm(offset, axis=1)
        np.testing.assert_allclose(
            s.obs[:, 34:36], offset * np.minimum(1, 2.0 / length)[:, None] * 1.5 / 2.0, atol=2e-4
        )
        np.testing.assert_allclose(s.obs[:, 36], 5 * (goal(env) - com)[:, 2], atol=1e-4)
        command = env.field("command")
        towards = offset / length[:, None] * np.minimum(cfg.cruise, cfg.gain * length)[:, None]
        np.testing.assert_allclose(command[:, :2], towards, atol=2e-4)
        bearing = np.arctan2(offset[:, 1], offset[:, 0])
        np.testing.assert_allclose(np.abs(command[:, 2]), np.minimum(np.abs(bearing), 1), atol=1e-3)
        behind = np.abs(bearing) > 3.1
        np.testing.assert_array_equal(np.sign(command[~behind, 2]), np.sign(bearing[~behind]))
    np.testing.assert_array_equal(env.field("goals")[:, 0], counted)
    assert len(drawn) > 500
    assert 0.8 < min(drawn) < 1.5
    assert 4.5 < max(drawn) < 5.3
    assert np.linalg.norm(env.engine.rows(L.ORIGIN, 2), axis=1).max() > 0  # someone left its cell
    view = env.view(5)
    np.testing.assert_allclose(view["goal"], goal(env)[5], atol=1e-5)
    assert view["goals"] == counted[5]


def test_far_goals_stay_where_they_are_when_a_robot_leaves_its_cell():
    env = make(GOAL, 32, NEVER_FALL)
    env.init_state(seed=6)
    place = env.engine.get_state().base_position.copy()
    place[:, 0] = 7.99  # cells of 16 m about the origin
    env.engine.set_state(base_position=place, base_linear_velocity=np.tile([1.0, 0, 0], (32, 1)))
    wanted = np.stack([np.full(32, 12.5), np.linspace(-4, 4, 32), np.full(32, 0.3)], axis=1)
    env.set_field("goal", wanted)
    assert not env.engine.rows(L.ORIGIN, 2).any()
    wander(env, 5, 0.0)
    np.testing.assert_array_equal(env.engine.rows(L.ORIGIN, 2), np.tile([16.0, 0.0], (32, 1)))
    np.testing.assert_allclose(goal(env), wanted, atol=1e-5)


def test_goals_are_counted_anew_in_every_episode():
    env = make(GOAL, 64, NEVER_FALL, {"max_episode_seconds": 0.1})
    env.init_state(seed=5)
    for step in range(1, 11):
        env.set_field("goal", env.field("com"))
        s = env.step(np.zeros((64, 12)))
        assert (env.field("goals") == step % 5).all()
        assert (env.field("arrived") == (step % 5 > 0)).all()
        assert s.done.all() == (step % 5 == 0)


@pytest.mark.parametrize("tile", [8.0, 2.0])
def test_goals_stay_on_the_tiles(tile):
    n = 256
    env = make(GOAL, n, NEVER_FALL, {"terrain.kinds": "rough slope_up", "terrain.levels": 2, "terrain.tile": tile})
    env.set_spawns(np.random.default_rng(2).uniform(-tile, tile, (n, 2)))
    for seed in range(4):
        env.init_state(seed)
        place = goal(env)[:, :2]
        assert np.abs(place).max() <= tile + 1e-4
        distance = np.linalg.norm(place - env.engine.get_state().base_position[:, :2], axis=1)
        assert distance.min() > 0.5
        assert np.median(distance) > (2.5 if tile > 2 else 1.2)
    view = env.view(7)
    assert view["goal"][2] == pytest.approx(env.field("goal")[7, 2] + env.terrain.height(*view["goal"][:2]), abs=1e-5)


def test_a_robot_that_is_to_stand_at_its_goal_is_told_where_and_how_and_when_it_does():
    n = 256
    env = make(
        "anymal-navigation", n, NEVER_FALL, {"goal.interval": (0.5, 0.6), "goal.reach": 2.0, "command.gain": 1.5}
    )
    env.init_state(seed=4)
    cfg = env.cfg.command
    reward = env.cfg.reward
    rng = np.random.default_rng(1)
    met = np.zeros(n, bool)
    arrivals = 0
    kept = 0
    anew = np.zeros(n)
    for _ in range(60):
        before = goal(env)
        facing = env.field("heading").astype(float)
        waits = env.field("goal_in")[:, 0]
        state = env.engine.get_state()
        place = state.base_position.copy()
        turn = state.base_quaternion.copy()
        carried = rng.uniform(size=n) < 0.3
        place[carried, :2] = before[carried, :2] + rng.choice([0.1, 0.6], carried.sum())[:, None] * [0.8, 0.6]
        half = 0.5 * (np.arctan2(facing[:, 1], facing[:, 0]) + rng.choice([0.0, 0.2, -0.4, 2.0], n))
        turn[carried] = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=1)[carried]
        still = rng.uniform(size=(n, 1)) < 0.5
        env.engine.set_state(
            base_position=place,
            base_quaternion=turn,
            base_linear_velocity=np.where(still, 0, state.base_linear_velocity),
        )
        env.set_field("goal", before - np.pad(env.engine.rows(L.ORIGIN, 2), ((0, 0), (0, 1))))
        at, was_met, came = (env.field(name)[:, 0] for name in ("at_goal", "met", "arrived"))
        s = env.step(rng.normal(0, 0.1, (n, 12)))
        assert not s.done.any()
        now = env.engine.get_state()
        terms = env.reward_terms()
        # arrival and standing of the instant before are rewarded
        speed2 = (now.base_linear_velocity[:, :2] ** 2).sum(1)
        spin = now.base_angular_velocity[:, 2]
        stands = at * (0.4 * np.exp(-speed2 / 0.2**2) + 0.6 * np.exp(-((spin / 0.1) ** 4)))
        np.testing.assert_allclose(terms["stopping"], 0.02 * reward.stopping * stands, atol=2e-5)
        np.testing.assert_allclose(terms["arrival"], reward.arrival * came, atol=1e-6)
        com = env.field("com") + np.pad(env.engine.rows(L.ORIGIN, 2), ((0, 0), (0, 1)))
        new = waits - 0.02 <= 1e-6
        np.testing.assert_array_equal((np.abs(goal(env) - before) > 1e-3).any(axis=1), new)
        wanted = env.field("heading").astype(float)
        np.testing.assert_allclose(np.linalg.norm(wanted, axis=1), 1, atol=1e-5)
        ahead = to_heading(now.base_quaternion, wanted)
        error = np.arctan2(ahead[:, 1], ahead[:, 0])
        sure = np.abs(np.abs(error) - np.pi) > 0.01
        np.testing.assert_allclose(s.obs[sure, 36], error[sure], atol=1e-3)
        offset = to_heading(now.base_quaternion, (goal(env) - com)[:, :2])
        distance = np.linalg.norm(offset, axis=1)
        np.testing.assert_allclose(
            s.obs[:, 34:36], offset * np.minimum(1, 2.0 / distance)[:, None] * 1.5 / 2.0, atol=5e-4
        )
        inside = (distance < cfg.reached) & (np.abs(error) < cfg.facing) & ~new
        sure &= (np.abs(distance - cfg.reached) > 1e-3) & (np.abs(np.abs(error) - cfg.facing) > 1e-3)
        np.testing.assert_array_equal(env.errors()["at_goal"][sure], inside[sure])
        arrived = env.field("arrived")[:, 0] > 0
        np.testing.assert_array_equal(arrived[sure & ~new], (inside & (was_met == 0))[sure & ~new])
        met = ((was_met > 0) | arrived) & ~new
        np.testing.assert_array_equal(env.field("met")[:, 0] > 0, met)
        command = env.field("command")
        pace = np.where(distance > 0.5 * cfg.reached, np.minimum(cfg.cruise * 1.0, cfg.gain * distance), 0)
        clear = np.abs(distance - 0.5 * cfg.reached) > 1e-3
        np.testing.assert_allclose(command[clear, :2], (offset / distance[:, None] * pace[:, None])[clear], atol=1e-3)
        clear = sure & (np.abs(np.abs(error) - cfg.still) > 1e-3)
        np.testing.assert_allclose(
            command[clear, 2],
            np.where(np.abs(error) > cfg.still, np.clip(cfg.gain * error, -1, 1), 0)[clear],
            atol=2e-3,
        )
        arrivals = arrivals + arrived.sum()
        kept = kept + (inside & (at > 0)).sum()
        anew = anew + new
    assert arrivals > 200 and kept > 200 and 1 <= anew.min() <= anew.max() <= 3
    assert {"goal_distance", "heading_error", "at_goal", "goals_per_minute"} <= set(env.errors())
