"""Standing where nothing is asked, getting up from any pose, gaits on command: what begins, is rewarded and ends."""

import numpy as np
import pytest
import torch
from oracle import foot_positions, rotation
from walking import make, wander

from environments import registry
from settings import override
from training import checkpoint, runs

GETUP = "quadruped-getup"
GAITS = "quadruped-gaits"
STANDING = "robust", "robust-deploy", "rough", "rough-seen", "rough-deploy", "stairs", "stairs-seen", "stairs-deploy"
# FL FR RL RR
KINDS = {"trot": (0, 0.5, 0.5, 0), "pace": (0, 0.5, 0, 0.5), "bound": (0, 0, 0.5, 0.5), "pronk": (0, 0, 0, 0)}


def corners(env, state):
    """Return the heights of the trunk's corners, (N, 8) [m]."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    points = env.robot.trunk_centre + signs * env.robot.trunk_half_extents
    return state.base_position[:, 2:] + rotation(state.base_quaternion)[:, 2] @ points.T


def test_getting_up_begins_in_any_attitude_just_above_the_ground():
    env = make(GETUP, 512)
    env.init_state(0)
    state = env.engine.get_state()
    up = rotation(state.base_quaternion)[:, 2, 2]
    # of attitudes that are uniform the vertical is so on the sphere: its z is uniform between -1 and 1
    assert abs(up.mean()) < 0.1
    np.testing.assert_allclose(np.quantile(up, [0.25, 0.5, 0.75]), [-0.5, 0.0, 0.5], atol=0.15)
    low, high = env.robot.joint_range.reshape(12, 2).T
    assert (state.joint_position >= low - 1e-5).all()
    assert (state.joint_position <= high + 1e-5).all()
    assert np.std((state.joint_position - low) / (high - low), axis=0).min() > 0.25
    assert not state.base_linear_velocity.any()
    feet = foot_positions(env.robot, state)[..., 2].min(1) - env.robot.foot_radius.min()
    lowest = np.minimum(feet, corners(env, state).min(1))
    np.testing.assert_allclose(lowest, 0.02, atol=2e-3)


def test_who_lies_has_four_seconds():
    env = make(GETUP, 64)
    env.init_state(0)
    ended = np.zeros(64)
    for step in range(1, 203):
        state = env.step(np.zeros((64, 12), np.float32))
        ended[state.terminated & (ended == 0)] = step
        assert not state.truncated.any()
    first = ended[ended > 0]
    assert len(first) > 20  # on its back nobody gets up by itself
    assert set(first) == {201}  # the first step after 4 s
    assert (ended == 0).any()  # some fell on their feet


def test_who_stands_stays():
    env = make(GETUP, 8, {"max_episode_seconds": 5.0})
    env.init_state(0)
    one = {"base_position": [0.0, 0.0, env.robot.home_height], "base_quaternion": [1.0, 0.0, 0.0, 0.0]}
    one |= {"base_linear_velocity": [0.0] * 3, "base_angular_velocity": [0.0] * 3, "joint_velocity": [0.0] * 12}
    one["joint_position"] = env.robot.home_joints.ravel()
    env.engine.set_state(**{name: np.tile(x, (8, 1)) for name, x in one.items()})
    for _ in range(249):
        state = env.step(np.zeros((8, 12), np.float32))
        assert not state.done.any()
    np.testing.assert_array_equal(env.errors()["standing"], 1.0)
    terms = env.reward_terms()
    assert terms["level"].min() > 0.99 * 2.0 * 0.02
    assert terms["risen"].min() > 0.85 * 2.0 * 0.02
    assert terms["at_rest"].min() > 0.9 * 2.0 * 0.02
    assert env.step(np.zeros((8, 12), np.float32)).truncated.all()


def test_legs_keep_the_time_of_their_gait():
    env = make(GAITS, 256, {"command.interval": (100.0, 200.0)})
    env.init_state(0)
    shares = env.field("phase_offsets")
    found = [[np.allclose(row, kind) for kind in KINDS.values()].index(True) for row in shares]
    assert np.bincount(found, minlength=4).min() > 40
    steps = env.field("gait_parameters")
    cfg = env.cfg.command
    for k, (low, high) in enumerate((cfg.frequency, cfg.lift, cfg.rise, cfg.pitch)):
        assert low <= steps[:, k].min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < steps[:, k].max() <= high
    before = env.field("gait_phase")[:, 0].copy()
    state = env.step(np.zeros((256, 12), np.float32))
    going = ~state.done
    turned = (env.field("gait_phase")[:, 0] - before) % 1.0
    np.testing.assert_allclose(turned[going], 0.02 * steps[going, 0], atol=1e-5)
    clocks = env.field("leg_phases")
    off = (clocks - env.field("gait_phase") - env.field("phase_offsets")) % 1.0
    np.testing.assert_allclose(np.minimum(off, 1.0 - off), 0.0, atol=1e-5)
    angle = 2 * np.pi * clocks
    for name, wave in (("phase_sines", np.sin), ("phase_cosines", np.cos)):
        np.testing.assert_allclose(state.obs[:, env.columns(name)], wave(angle), atol=1e-4)
    np.testing.assert_allclose(
        state.obs[:, env.columns("gait_asked")], env.field("gait_parameters") * [0.25, 10.0, 10.0, 1.0], atol=1e-4
    )


def test_gaits_are_rewarded_for_feet_that_keep_time():
    env = make(GAITS, 128)
    env.init_state(1)
    state = wander(env, 25)
    going = ~state.done
    feet = np.linalg.norm(env.engine.get_state().foot_contact_force, axis=2) > 1.0
    moves = np.abs(env.field("command")).max(1) > 0
    should = (env.field("leg_phases") < 0.5) | ~moves[:, None]
    share = (feet == should).mean(1)
    np.testing.assert_allclose(env.errors()["gait_agreement"], share, atol=1e-5)
    assert share[going].std() > 0.1
    # the reward is of the same instant: of phases that move on after it
    weight = env.cfg.reward.schedule * 0.02
    np.testing.assert_allclose(env.reward_terms()["schedule"][going] / weight, share[going], atol=1e-4)


def test_a_box_to_get_onto_is_one_step_and_then_level():
    env = make("quadruped-jump", 4)
    assert env.terrain.spawns.shape[:2] == (env.cfg.terrain.levels, 2)
    for kind, sign in enumerate((1, -1)):  # up from the middle of a tile, and down
        for level, height in ((0, 0.05), (-1, 0.45)):
            x, y, _ = env.terrain.spawns[level, kind]
            rises = np.diff(env.terrain.height(x + np.arange(0.0, 3.5, 0.1), y))
            (edge,) = np.flatnonzero(np.abs(rises) > 1e-6)
            np.testing.assert_allclose(rises[edge], sign * height, atol=1e-5)
            assert 0.8 < 0.1 * edge < 1.6


@pytest.mark.parametrize("name", STANDING)
def test_a_shipped_walker_has_its_feet_on_the_ground_while_nothing_is_asked(name):
    loaded = checkpoint.load(runs.SHIPPED / f"quadruped-walk-{name}.pt")
    cfg = override(loaded.config.env, {"command.standing": 1.0, "command.turning": 0.0}, "env")
    env = registry.make(loaded.config.task, cfg=cfg, num_envs=64)
    creature = loaded.creature(env)
    memory = creature.initial_state(64)
    state = env.init_state(5)
    shares = []
    for _ in range(200):
        with torch.no_grad():
            starts = torch.from_numpy(state.done.astype(np.float32))
            _, mean, memory = creature.act(torch.from_numpy(state.obs), memory, starts)
        state = env.step(mean.numpy())
        shares.append((np.abs(env.engine.get_state().foot_contact_force).max(-1) > 1.0).mean())
    assert np.mean(shares[100:]) > 0.9  # who trots on the spot has half
