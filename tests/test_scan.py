"""What robots see of the ground: the same as plain NumPy sees, its errors, and who reads it."""

import numpy as np
import pytest
import torch
from oracle import foot_positions
from walking import ALIKE, NEVER_FALL, mirror_image, to_heading, wander

from config import NetworkCfg, ScanCfg, WorldModelCfg
from entity import Creature
from environments import registry
from environments.quadruped.scan import FARTHEST, ROUND_FEET, SCAN_SCALE, places
from settings import ConfigError

SEEN = "quadruped-walk-stairs-seen"
EXACT = {f"scan.{name}": 0.0 for name in ("noise", "drift", "delay", "dropped")}
SMALL = {"terrain.levels": 3, "terrain.difficulty": (0.3, 1.0)}


def seeing(n=64, threads=1, task=SEEN, **changes):
    """Return robots on stairs that see exactly, but for changes."""
    given = ALIKE | EXACT | SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    env = registry.make(task, num_envs=n, env_cfg_override=given, threads=threads)
    if env.terrain:  # from the first steps, not from the level platform before them
        env.set_spawns(env.field("spawn") + [1.3, 0.2])
    return env


def seen(env, state):
    """Return heights that are observed, (N, points) [m]."""
    return state.obs[:, env.columns("height_scan")] / SCAN_SCALE


def nearest(terrain, x, y):
    """Return the heights of the nodes nearest to places."""
    i, j = (
        np.clip(np.floor((at - first) / terrain.cell + 0.5), 0, size - 1).astype(int)
        for at, first, size in zip((x, y), terrain.origin, terrain.heights.shape[::-1], strict=True)
    )
    return terrain.heights[j, i]


def expected(env, shift=(0.0, 0.0)):
    """Return what robots should see, and where each point is among the nodes."""
    state = env.engine.get_state()
    points = np.broadcast_to(places(env.cfg.scan, env.robot.home_height / 0.2878) + shift, (env.num_envs, 77, 2))
    # from the heading frame to the world's: the inverse of to_heading()
    ahead = to_heading(state.base_quaternion, np.tile([1.0, 0.0], (env.num_envs, 1)))
    c, s = ahead[:, :1], -ahead[:, 1:]
    x = state.base_position[:, :1] + c * points[..., 0] - s * points[..., 1]
    y = state.base_position[:, 1:2] + s * points[..., 0] + c * points[..., 1]
    ground = nearest(env.terrain, x, y) if env.terrain else 0.0 * x
    height = ground - state.base_position[:, 2:] + env.robot.home_height
    cell = env.terrain.cell if env.terrain else 1.0
    between = np.minimum(*(np.abs((a / cell) % 1 - 0.5) for a in (x, y)))  # from where another node is nearer
    return np.clip(height, -FARTHEST, FARTHEST), between > 1e-3


def test_robots_see_the_heights_of_the_nearest_nodes():
    env = seeing(**NEVER_FALL)
    env.init_state(3)
    state = wander(env, 60)
    want, clear = expected(env)
    assert want.std() > 0.02
    assert clear.mean() > 0.95
    np.testing.assert_allclose(seen(env, state)[clear], want[clear], atol=1e-5)
    np.testing.assert_array_equal(state.info["privileged"][:, env.columns("foot_scans", True)].shape, (64, 16))


def test_the_ground_is_level_beyond_the_terrain_and_without_one():
    env = seeing(8, terrain__kinds="flat")
    state = env.init_state(0)
    want, _ = expected(env)
    np.testing.assert_allclose(seen(env, state), want, atol=1e-5)
    assert np.ptp(seen(env, state), axis=1).max() < 1e-6
    env = seeing(8)
    env.set_spawns(np.full((8, 2), 1e4))
    state = env.init_state(0)
    assert np.ptp(seen(env, state), axis=1).max() < 1e-6


def test_critics_see_the_ground_about_the_feet():
    env = seeing(32, **NEVER_FALL)
    env.init_state(1)
    state = wander(env, 40)
    at = env.engine.get_state()
    feet = foot_positions(env.robot, at)
    ahead = to_heading(at.base_quaternion, np.tile([1.0, 0.0], (32, 1)))
    c, s = ahead[:, 0], -ahead[:, 1]
    want = []
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        x = feet[..., 0] + ROUND_FEET * (c * dx - s * dy)[:, None]
        y = feet[..., 1] + ROUND_FEET * (s * dx + c * dy)[:, None]
        want.append(nearest(env.terrain, x, y) - feet[..., 2])
    got = state.info["privileged"][:, env.columns("foot_scans", True)].reshape(32, 4, 4) / SCAN_SCALE
    off = np.abs(got - np.clip(np.stack(want, -1), -FARTHEST, FARTHEST)) > 1e-4
    assert off.mean() < 0.02  # a foot between two nodes, by rounding


def test_what_is_seen_has_errors_within_their_bounds():
    env = seeing(64, scan__noise=0.03)
    state = env.init_state(0)
    want, clear = expected(env)
    error = (seen(env, state) - want)[clear]
    assert 0.029 < np.abs(error).max() <= 0.03 + 1e-5
    assert abs(error.mean()) < 0.002
    assert np.std(error) == pytest.approx(0.03 / 3**0.5, rel=0.05)
    off = np.corrcoef((seen(env, state) - want).T)[~np.eye(77, dtype=bool)]
    assert np.abs(off).mean() < 0.15  # points err apart: 0.1 of 64 robots by chance


def test_drift_moves_the_whole_scan_for_an_episode():
    env = seeing(16, scan__drift=0.2)
    state = env.init_state(0)
    shift = env.field("scan_shift")
    assert 0.15 < np.abs(shift).max() <= 0.2
    want, clear = expected(env, shift[:, None, :2])
    np.testing.assert_allclose(seen(env, state)[clear], (want + shift[:, None, 2])[clear], atol=1e-5)
    going_on = ~wander(env, 1).done
    for seed in range(4):
        going_on &= ~wander(env, 1, seed=seed).done
    assert going_on.sum() > 8
    np.testing.assert_array_equal(env.field("scan_shift")[going_on], shift[going_on])


def test_what_is_seen_is_held_until_it_is_too_old():
    env = seeing(32, scan__delay=0.1, **NEVER_FALL)
    first = seen(env, env.init_state(0)).copy()
    hold = env.field("scan_hold")[:, 0]
    assert 0.0 <= hold.min() < 0.02 < 0.08 < hold.max() <= 0.1
    for step in range(1, 6):
        now = seen(env, wander(env, 1, seed=step)).copy()
        kept = (now == first).all(1)
        # a robot looks again at the first step at which what it saw is older than it may be
        np.testing.assert_array_equal(kept, step * 0.02 <= hold + 1e-6)


def test_dropped_points_stay_what_they_were_and_new_episodes_see_all():
    env = seeing(16, scan__dropped=1.0)
    first = seen(env, env.init_state(0)).copy()
    assert np.abs(first - expected(env)[0]).max() < 0.5
    assert first.any()
    later = seen(env, wander(env, 10))
    going = env.field("age")[:, 0] >= 10
    np.testing.assert_array_equal(later[going], first[going])
    half = seeing(64, scan__dropped=0.5)
    before = seen(half, half.init_state(0)).copy()
    after = seen(half, wander(half, 1))
    assert 0.4 < (after == before).mean() < 0.6


def test_parts_see_what_the_whole_sees():
    changes = {"scan__noise": 0.02, "scan__drift": 0.05, "scan__delay": 0.06, "scan__dropped": 0.1}
    whole, split = seeing(96, **changes), seeing(96, **changes)
    parts = split.split(3)
    whole.init_state(5)
    for part in parts:
        part.init_state(5)
    rng = np.random.default_rng(0)
    for _ in range(20):
        actions = rng.normal(0, 0.5, (96, 12)).astype(np.float32)
        state = whole.step(actions)
        pieces = [part.step(a) for part, a in zip(parts, np.split(actions, 3), strict=True)]
        np.testing.assert_array_equal(state.obs, np.concatenate([piece.obs for piece in pieces]))


def test_the_grid_is_as_configured_and_grows_with_the_robot():
    cfg = ScanCfg(length=3, width=2, spacing=0.2)
    np.testing.assert_allclose(
        places(cfg, 2.0), [[-0.4, -0.2], [-0.4, 0.2], [0.0, -0.2], [0.0, 0.2], [0.4, -0.2], [0.4, 0.2]], atol=1e-7
    )
    env = seeing(4, scan__length=3, scan__width=2)
    assert env.columns("height_scan") == slice(37, 43)
    assert env.body.ground == tuple(range(37, 43))
    assert env.init_state(0).obs.shape == (4, 43)
    with pytest.raises(ConfigError, match=r"scan\.width"):
        seeing(4, scan__width=0)


def test_a_mirror_exchanges_left_and_right_of_the_scan():
    env = seeing(4)
    state = env.init_state(0)
    grid = np.arange(77.0).reshape(11, 7)
    x = np.zeros_like(state.obs)
    x[:, env.columns("height_scan")] = grid.ravel()
    np.testing.assert_array_equal(
        mirror_image(env.body.obs, x)[0, env.columns("height_scan")].reshape(11, 7), grid[:, ::-1]
    )
    y = np.zeros_like(state.info["privileged"])
    y[:, env.columns("foot_scans", True)] = np.arange(16.0)
    image = mirror_image(env.body.privileged, y)[0, env.columns("foot_scans", True)].reshape(4, 4)
    # FL FR RL RR, each before, behind, left, right
    np.testing.assert_array_equal(image, [[4, 5, 7, 6], [0, 1, 3, 2], [12, 13, 15, 14], [8, 9, 11, 10]])


@pytest.mark.parametrize("symmetric", [True, False])
def test_an_encoder_of_its_own_reads_the_ground(symmetric):
    env = seeing(32)
    state = env.init_state(0)
    torch.manual_seed(0)
    belief = Creature(env, NetworkCfg(symmetric=symmetric), WorldModelCfg()).belief
    belief.policy.data.normal_()
    obs = torch.from_numpy(state.obs)[None].repeat(2, 1, 1)
    mean, _ = belief.evaluate(obs, belief.initial_state(32))
    belief.use_fused = False
    plain, _ = belief.evaluate(obs, belief.initial_state(32))
    torch.testing.assert_close(mean, plain, rtol=1e-4, atol=1e-4)
    belief.ground_encoder.data.zero_()
    blind, _ = belief.evaluate(obs, belief.initial_state(32))
    assert (blind - plain).abs().max() > 1e-3
    obs[..., env.columns("height_scan")] += 1.0
    other, _ = belief.evaluate(obs, belief.initial_state(32))
    torch.testing.assert_close(other, blind)  # nothing else reads it
    grads = torch.autograd.grad(plain.sum(), list(belief.parameters()), allow_unused=True)
    of_ground = dict(zip((name for name, _ in belief.named_parameters()), grads, strict=True))["ground_encoder"]
    assert of_ground.abs().max() > 0


def test_policies_that_do_not_see_have_no_such_encoder():
    env = registry.make("quadruped-walk-stairs", num_envs=4, env_cfg_override=SMALL)
    belief = Creature(env, NetworkCfg(), WorldModelCfg()).belief
    assert not any(name.startswith("ground") for name, _ in belief.named_parameters())
    assert env.body.ground == ()


def test_people_see_what_the_robot_sees():
    env = seeing(4)
    env.init_state(0)
    points = env.detail(2)["scan"]
    assert points.shape == (77, 3)
    ground = nearest(env.terrain, points[:, 0], points[:, 1])
    np.testing.assert_allclose(points[:, 2], ground, atol=1e-4)
    assert registry.make("quadruped-walk-flat").detail()["scan"] is None
