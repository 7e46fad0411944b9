"""Terrain levels: who goes up, who goes down, where they start then, and that evaluations stay where they are."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from walking import ALIKE

from entity import Creature
from environments import registry
from environments.quadruped import levels
from settings import override
from training.display import Display
from training.engine import TrainingEngine

STAIRS = "quadruped-walk-stairs"
LEVELS = 6
TILE = 8.0
FAR = levels.LEFT * TILE


def stairs(n=96, threads=1, **changes):
    """Return robots on stairs of 6 levels, up and down."""
    given = ALIKE | {"terrain.levels": LEVELS} | changes
    return registry.make(STAIRS, num_envs=n, env_cfg_override=given, threads=threads)


def over(env, level):
    """Assert that robots start over tiles of their levels."""
    spawn = env.field("spawn")
    np.testing.assert_allclose(spawn[:, 0], env.terrain.spawns[level.astype(int), 0, 0], atol=1e-4)
    assert set(np.unique(spawn[:, 1])) <= set(env.terrain.spawns[0, :, 1].astype(np.float32))


def end(env, away, asked, gone, falls):
    """End every episode with the next step, having gone so far; return the state after it."""
    env.set_field("age", env.cfg.max_episode_steps - 1)
    for name, value in (("away", away), ("asked", asked), ("gone", gone)):
        env.set_field(name, np.reshape(value, (-1, 1)))
    if np.any(falls):
        quaternion = env.engine.get_state().base_quaternion
        quaternion[falls] = [0.0, 1.0, 0.0, 0.0]
        env.engine.set_state(base_quaternion=quaternion)
    return env.step(np.zeros((env.num_envs, 12), np.float32))


def test_robots_spread_evenly_and_stay_unless_they_climb():
    env = stairs()
    env.init_state(0)
    level = env.field("level")[:, 0]
    np.testing.assert_array_equal(np.bincount(level.astype(int)), [16] * LEVELS)
    over(env, level)
    state = end(env, away=6.0, asked=6.0, gone=6.0, falls=np.arange(96) % 2 == 0)
    assert state.done.all()
    np.testing.assert_array_equal(env.field("level")[:, 0], level)
    over(env, level)
    assert not any(name.startswith("level") for name in env.statistics())


def test_success_leads_up_and_failure_down():
    env = stairs()
    env.climb()
    env.init_state(0)
    start = env.field("level")[:, 0]
    assert set(start) == set(range(LEVELS))
    case = np.arange(96) // 12 % 6
    # far enough; not; fallen on the way; less than half of the way asked for; either where it began
    away = np.choose(case, [FAR + 0.1, FAR - 0.1, 3.0, 3.0, 0.4, 0.4])
    gone = np.choose(case, [6.0, 6.0, 6.0, 2.9, 6.0, 2.9])
    falls = (case == 2) | (case == 4)
    state = end(env, away, asked=6.0, gone=gone, falls=falls)
    np.testing.assert_array_equal(state.terminated, falls)
    np.testing.assert_array_equal(state.truncated, ~falls)
    now = env.field("level")[:, 0]
    down = np.where(start > 0, -1.0, 0.0)
    np.testing.assert_array_equal((now - start)[case > 0], np.choose(case, [down, 0.0, down, down, 0.0, 0.0])[case > 0])
    below = (case == 0) & (start < LEVELS - 1)
    assert below.any()
    np.testing.assert_array_equal((now - start)[below], 1.0)
    over(env, now)
    place = env.engine.get_state().base_position[:, :2]
    np.testing.assert_allclose(place, env.field("spawn"), atol=1e-3)
    for name in ("asked", "gone", "away"):
        assert np.abs(env.field(name)).max() < 0.1
    shares = env.statistics()
    assert [shares[f"level_{k}"] for k in range(LEVELS)] == np.bincount(now.astype(int), minlength=LEVELS).tolist()


def test_who_has_left_its_tile_starts_on_the_next():
    env = stairs()
    for climbs in (False, True):
        if climbs:
            env.climb()
        env.init_state(0)
        start = env.field("level")[:, 0]
        place = env.engine.get_state().base_position
        place[:, :2] += [0.0, FAR + 0.3]
        place[:, 2] += 3.0
        env.engine.set_state(base_position=place)
        assert not env.step(np.zeros((96, 12), np.float32)).done.any()
        last = env.step(np.zeros((96, 12), np.float32))
        np.testing.assert_array_equal(last.truncated, climbs)
        now = env.field("level")[:, 0]
        np.testing.assert_array_equal((now - start)[start < LEVELS - 1], float(climbs))


def test_beyond_the_last_level_anywhere():
    env = stairs(480)
    env.climb()
    env.init_state(0)
    env.set_field("level", LEVELS - 1.0)
    end(env, away=6.0, asked=6.0, gone=6.0, falls=False)
    now = env.field("level")[:, 0]
    assert np.bincount(now.astype(int), minlength=LEVELS).min() > 40
    over(env, now)


def test_the_way_is_counted_as_asked():
    env = stairs(8, **{"command.heading": 0.0, "command.interval": (100.0, 200.0), "command.standing": 0.0})
    env.init_state(0)
    command = np.zeros((8, 3))
    command[:, 0] = 1.0
    env.set_field("command", command)
    for name in ("asked", "gone"):
        env.set_field(name, 0.0)
    gone = np.zeros(8)
    for _ in range(5):
        state = env.step(np.zeros((8, 12), np.float32))
        assert not state.done.any()
        along = env.heading_velocity()[:, 0]
        gone += 0.02 * np.minimum(along, 1.0)
    np.testing.assert_allclose(env.field("asked")[:, 0], 0.1, rtol=1e-4)
    np.testing.assert_allclose(env.field("gone")[:, 0], gone, atol=1e-4)
    place = env.engine.get_state().base_position[:, :2]
    np.testing.assert_allclose(env.field("away")[:, 0], np.linalg.norm(place - env.field("spawn"), axis=1), atol=1e-3)


def test_the_first_episodes_begin_where_robots_were_put():
    env = stairs()
    env.climb()
    env.init_state(0)
    level = env.field("level").copy()
    for name, value in (("away", 7.0), ("asked", 9.0), ("gone", 0.0)):
        env.set_field(name, value)
    env.init_state(1)
    np.testing.assert_array_equal(env.field("level"), level)


def test_parts_climb_as_the_whole():
    whole, split = stairs(), stairs()
    parts = split.split(3)
    whole.climb()
    split.climb()
    whole.init_state(2)
    for part in parts:
        part.init_state(2)
    rng = np.random.default_rng(0)
    for _ in range(3):
        falls = rng.random(96) < 0.5
        away = rng.uniform(0, 8, 96)
        end(whole, away, 6.0, 5.0, falls)
        for k, part in enumerate(parts):
            mine = slice(32 * k, 32 * k + 32)
            end(part, away[mine], 6.0, 5.0, falls[mine])
        np.testing.assert_array_equal(whole.field("level"), np.concatenate([p.field("level") for p in parts]))
    assert len(np.unique(whole.field("level"))) > 2


def test_flat_ground_has_no_levels():
    env = registry.make("quadruped-walk-flat", num_envs=4)
    env.climb()
    env.init_state(0)
    with pytest.raises(KeyError):
        env.field("level")
    flat = registry.make(STAIRS, num_envs=4, env_cfg_override={"terrain.kinds": "flat"})
    flat.climb()
    flat.init_state(0)
    assert not any(name.startswith("level") for name in flat.statistics())


def test_treads_narrow_and_risers_grow_with_difficulty():
    env = stairs(4, **{"terrain.step_height": (0.05, 0.2), "terrain.tread": (0.2, 0.5)})
    up = env.cfg.terrain.kinds.split().index("stairs_up")
    for level, (step, tread) in {0: (0.05, 0.5), LEVELS - 1: (0.2, 0.2)}.items():
        x, y, low = env.terrain.spawns[level, up]
        heights = env.terrain.height(x + np.arange(1.0, 4.01, 0.1), y) - low
        rises = np.flatnonzero(np.diff(heights) > 0.5 * step)
        np.testing.assert_allclose(np.diff(heights)[rises], step, atol=1e-5)
        np.testing.assert_allclose(np.diff(rises) * 0.1, tread, atol=1e-9)


def test_robots_walk_on_a_picture_s_ground(tmp_path):
    white = np.zeros((161, 241), np.uint8)
    white[:, 121:] = 255
    Image.fromarray(white).save(tmp_path / "my map.png")
    env = stairs(12, **{"terrain.kinds": str(tmp_path / "my map.png"), "terrain.relief": 0.5})
    env.climb()
    env.init_state(0)
    spawn = env.field("spawn")
    assert len(np.unique(spawn, axis=0)) == 6
    place = env.engine.get_state().base_position
    low = place[place[:, 0] < -1.0, 2]
    high = place[place[:, 0] > 1.0, 2]
    assert len(low) == len(high) == 4
    np.testing.assert_allclose(high - low.mean(), 0.5, atol=0.05)
    # far away there is but one level to go to
    end(env, away=6.0, asked=6.0, gone=6.0, falls=False)
    assert not env.field("level").any()
    np.testing.assert_array_equal(env.field("spawn"), spawn)  # where they were put


def test_trainings_tell_on_which_levels_robots_are():
    cfg = registry.default_rl_cfg(STAIRS)
    cfg = override(cfg, {"train.num_envs": 32, "ppo.rollout": 2, "terrain.levels": 4, "train.precision": "float32"})
    env = registry.make(STAIRS, num_envs=32, cfg=cfg.env)
    engine = TrainingEngine(env, Creature(env, cfg.network, cfg.world_model), cfg, torch.device("cpu"), 1)
    engine.warm_up()
    metrics = engine.iterate()
    shares = [metrics[f"level_{k}"] for k in range(4)]
    assert sum(shares) == pytest.approx(1.0)
    assert metrics["level"] == pytest.approx(sum(k * x for k, x in enumerate(shares)))
    display = Display(1, Console(file=io.StringIO()))
    display.update(metrics)
    (row,) = (text for label, text in display.rows() if label == "level")
    assert row.startswith("1.5 of 3 ")
    assert row[-4:] == "\u2588" * 4  # as many on each


def test_headings_are_kept_by_turning_to_them():
    env = stairs(64, **{"command.heading": 1.0, "command.standing": 0.0, "command.turning": 0.0})
    env.init_state(0)
    heading = env.field("heading")
    np.testing.assert_allclose(np.linalg.norm(heading, axis=1), 1.0, atol=1e-3)
    w, x, y, z = env.engine.get_state().base_quaternion.T
    facing = np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))
    error = (np.arctan2(heading[:, 1], heading[:, 0]) - facing + np.pi) % (2 * np.pi) - np.pi
    command = env.field("command")
    moves = np.linalg.norm(command[:, :2], axis=1) > 0
    assert moves.mean() > 0.8
    near = np.abs(np.abs(error) - np.pi) > 0.05
    np.testing.assert_allclose(command[moves & near, 2], np.clip(error, -1, 1)[moves & near], atol=5e-3)
    none = stairs(64, **{"command.heading": 0.0})
    none.init_state(0)
    assert not none.field("faces").any()
    env.steer(3, (0.5, 0.0, 0.25))
    env.step(np.zeros((64, 12), np.float32))
    np.testing.assert_allclose(env.field("command")[3], [0.5, 0.0, 0.25], atol=1e-6)
