"""Commanded velocities, far goals, their rewards, the mirror, levels and parts of an environment, against plain NumPy and MuJoCo."""

import dataclasses
import threading

import mujoco
import numba
import numpy as np
import pytest
from oracle import rotation
from walking import goal, mirror_image, reward_terms, to_heading

from benchmarks.transfer import MujocoQuadrupeds
from config import CommandCfg, NoiseCfg, VaryCfg
from environments import ABEnv, registry
from environments.quadruped import rewards
from physics import PhysicsEngine, load_robot, save_robot, spatial
from physics import layout as L
from physics.jit import LANES, real
from physics.robot import Link
from settings import ConfigError

STAY = "quadruped-balance"
FLAT = "quadruped-walk-flat"
ROBUST = "quadruped-walk-robust"
GOAL = "quadruped-goal"
ALIKE = {f"vary.{field.name}": field.default for field in dataclasses.fields(VaryCfg)} | {
    f"noise.{field.name}": 0.0 for field in dataclasses.fields(NoiseCfg)
}
NEVER_FALL = {"fall_tilt": 3.0, "fall_height": 0.0}
ONE_COMMAND = {"command.interval": (1e5, 1e6)}
FIELDS = (
    "base_position",
    "base_quaternion",
    "joint_position",
    "base_linear_velocity",
    "base_angular_velocity",
    "joint_velocity",
)


def make(task, n, *changes, threads=1):
    """Return an environment of robots that do not differ and are observed without error."""
    return registry.make(
        task,
        num_envs=n,
        env_cfg_override={key: value for change in (ALIKE, *changes) for key, value in change.items()},
        threads=threads,
    )


def snapshot(state):
    """Return what a step writes, but for what is stale."""
    return [x.copy() for x in (state.obs, state.reward, state.terminated, state.truncated, state.info["privileged"])]


def wander(env, steps, scale=0.5, seed=0):
    """Take random actions; return the last state."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        state = env.step(rng.normal(0, scale, (env.num_envs, 12)).astype(np.float32))
    return state


# The mirror


def symmetric(robot):
    """Return a robot whose right half is the mirror image of its left."""
    flip = np.array([1.0, -1.0, 1.0])
    turn = np.outer(flip, flip)

    def image(link):
        return Link(link.mass, link.com * flip, link.inertia * turn)

    base = Link(robot.base.mass, robot.base.com * [1, 0, 1], robot.base.inertia * (1 + turn) / 2)
    links = tuple(
        tuple(robot.links[leg]) if leg % 2 == 0 else tuple(image(link) for link in robot.links[leg - 1])
        for leg in range(4)
    )
    offset = robot.offset.copy()
    foot_offset = robot.foot_offset.copy()
    home = robot.home_joints.copy()
    offset[1::2], foot_offset[1::2], home[1::2] = offset[::2] * flip, foot_offset[::2] * flip, home[::2] * [-1, 1, 1]
    ranges = robot.joint_range.copy()
    ranges[1::2] = ranges[::2]
    ranges[1::2, 0] = -ranges[::2, 0, ::-1]
    return dataclasses.replace(
        robot, base=base, links=links, offset=offset, foot_offset=foot_offset, home_joints=home, joint_range=ranges
    )


@pytest.mark.parametrize("task", [STAY, FLAT, GOAL])
def test_a_mirrored_robot_does_and_sees_the_mirror_image(task, tmp_path):
    path = tmp_path / "even.json"
    save_robot(symmetric(load_robot("go1")), path)
    n = 32  # and their mirror images
    still = {"push.speed": (0.0, 0.0), "push.spin": 0.0, "goal.interval": (1e5, 1e6), "env.model": str(path)}
    weights = {
        "reward.slip": -0.1,
        "reward.smoothness": -0.01,
        "reward.feet": 0.1,
        "reward.alive": 30.0,
        "reward.air_time": 1.0,
        "reward.trot": 0.5,
    }
    env = make(task, 2 * n, NEVER_FALL, ONE_COMMAND, still, weights)
    body = env.body
    env.init_state(seed=1)
    wander(env, 12, 0.4)
    state = env.engine.get_state()
    flip = np.array([1, -1, 1])
    joints = body.actions
    images = {
        "base_position": lambda x: x * flip, "base_quaternion": lambda x: x * [1, -1, 1, -1], "base_linear_velocity": lambda x: x * flip,
        "base_angular_velocity": lambda x: -x * flip, "joint_position": lambda x: mirror_image(joints, x), "joint_velocity": lambda x: mirror_image(joints, x),
    }  # fmt: skip
    ours = {name: getattr(state, name)[:n].astype(float) for name in FIELDS}
    ours["base_position"][:, :2] = np.random.default_rng(3).uniform(-1, 1, (n, 2))
    env.engine.set_state(**{name: np.concatenate([ours[name], images[name](ours[name])]) for name in FIELDS})
    goals = np.random.default_rng(4).uniform(-1, 1, (n, 3)) + [0, 0, 0.25]
    goals[:, :2] += 2 * np.sign(goals[:, :2])  # not to be reached
    commands = np.random.default_rng(5).uniform(-1, 1, (n, 3)) * (task != STAY)
    push, kick = np.random.default_rng(7).uniform(-1, 1, (2, n, 3))
    env.set_field("push_in", np.full((2 * n, 1), 2.0))
    for name, values, sign in (
        ("goal", goals, flip),
        ("command", commands, [1, -1, -1]),
        ("next_push", push, flip),
        ("next_kick", kick, -flip),
    ):
        env.set_field(name, np.concatenate([values, values * sign]))
    for name in ("action", "last_action", "older_action"):
        old = env.field(name)[:n]
        env.set_field(name, np.concatenate([old, mirror_image(joints, old)]))
    for name in ("air_time", "landed"):
        old = env.field(name)[:n]
        env.set_field(name, np.concatenate([old, old[:, [1, 0, 3, 2]]]))
    rng = np.random.default_rng(6)
    for _ in range(6):
        action = rng.normal(0, 0.4, (n, 12)).astype(np.float32)
        s = env.step(np.concatenate([action, mirror_image(joints, action).astype(np.float32)]))
        assert not s.done.any()
        # what rounding makes of a foot that is all but on the ground may differ
        same = (s.obs[:n, 24:28] == s.obs[n:, 24:28][:, [1, 0, 3, 2]]).all(axis=1)
        assert same.mean() > 0.9
        for x, mirror, atol in ((s.obs, body.obs, 3e-3), (s.info["privileged"], body.privileged, 0.01)):
            image = mirror_image(mirror, x[:n])
            np.testing.assert_allclose(x[n:][same], image[same], atol=atol)
            # every sign and every exchange counts
            for column in range(x.shape[1]):
                if mirror.signs[column] < 0 or mirror.columns[column] != column:
                    assert np.abs(image - x[:n])[:, column].max() > 3 * atol, column
        np.testing.assert_allclose(s.reward[n:][same], s.reward[:n][same], rtol=2e-3, atol=1e-3)
        assert s.reward.min() > 0
        assert np.ptp(s.reward[:n]) > 0.02


@pytest.mark.parametrize("task", [STAY, FLAT, GOAL])
def test_mirrors_are_their_own_inverse_and_nodes_read_every_column(task):
    env = registry.make(task, num_envs=1, threads=1)
    for mirror, size in (
        (env.body.obs, env.num_obs),
        (env.body.privileged, env.num_privileged),
        (env.body.actions, env.num_actions),
    ):
        x = np.arange(1.0, size + 1)
        assert len(mirror.columns) == len(mirror.signs) == size
        assert (mirror_image(mirror, x) != x).any()
        np.testing.assert_array_equal(mirror_image(mirror, mirror_image(mirror, x)), x)
    left = [c for node in env.body.nodes for c in node.columns]
    right = {env.body.obs.columns[c] for c in left}
    assert len(set(left)) == len(left)
    assert set(left) | right == set(range(env.num_obs))
    assert set(left) & right == set(env.body.nodes[0].columns)  # the trunk is seen from both sides
    assert [node.kind for node in env.body.nodes] == ["trunk", "leg", "leg"]
    assert env.body.obs.signs[34:] == ((1, -1, -1) if task == FLAT else (1, -1, 1))


# Commands


def test_commands_are_drawn_as_configured():
    n = 4000
    env = make(FLAT, n)
    state = env.init_state(seed=1)
    cfg = env.cfg.command
    command = env.field("command")
    np.testing.assert_allclose(state.obs[:, 34:], command * [2, 2, 1], rtol=1e-6)
    moves = command[:, :2].any(axis=1)
    turns = command[:, 2] != 0
    assert np.linalg.norm(command[moves, :2], axis=1).min() >= cfg.least
    assert np.abs(command[turns, 2]).min() >= cfg.least
    slow = np.pi * cfg.least**2 / (2.0 * 1.2)  # the share of even draws that are below the least speed
    rest = 1 - cfg.standing - cfg.turning
    assert moves.mean() == pytest.approx(rest * (1 - slow), abs=0.02)
    assert (~moves & turns).mean() == pytest.approx((1 - cfg.least) * (cfg.turning + rest * slow), abs=0.02)
    assert (~moves & ~turns).mean() == pytest.approx(cfg.standing + cfg.least * (cfg.turning + rest * slow), abs=0.02)
    even = (0.25, 0.25, 0.25, 0.25)
    gap = (0.5 / 1.8, 0.4 / 1.8, 0.4 / 1.8, 0.5 / 1.8)
    for column, (low, high), some, shares in (
        (0, cfg.forward, moves, even),
        (1, cfg.sideways, moves, even),
        (2, cfg.turn, turns, gap),
    ):
        values = command[some, column]
        assert low <= values.min() < 0.98 * low
        assert 0.98 * high < values.max() <= high
        np.testing.assert_allclose(np.histogram(values, 4, (low, high))[0] / len(values), shares, atol=0.03)
    assert abs(np.corrcoef(command[moves & turns].T) - np.eye(3)).max() < 0.06


def test_commands_are_new_now_and_then():
    env = make(FLAT, 64, NEVER_FALL, {"command.interval": (0.2, 0.4), "max_episode_seconds": 1e3})
    env.init_state(seed=2)
    current = env.field("command")
    changed = [[0] for _ in range(64)]
    for step in range(1, 120):
        state = env.step(np.zeros((64, 12)))
        command = env.field("command")
        np.testing.assert_allclose(state.obs[:, 34:], command * [2, 2, 1], rtol=1e-6)
        for i in np.flatnonzero((command != current).any(axis=1)):
            changed[i].append(step)
        current = command
    between = np.concatenate([np.diff(c) for c in changed]) * 0.02
    assert between.min() == pytest.approx(0.2, abs=0.021)
    assert np.median(between) == pytest.approx(0.31, abs=0.03)


def test_staying_is_a_command_of_zero():
    env = make(STAY, 64)
    env.init_state()
    for _ in range(5):
        env.step(np.zeros((64, 12)))
        assert not env.field("command").any()
    assert env.view()["command"] is None


def test_levels_scale_pushes_and_commands():
    still = {
        "physics.gravity": 0.0, "reset.joint_position": 0.0, "reset.joint_velocity": 0.0, "reset.tilt": 0.0, "reset.velocity": 0.0, "reset.spin": 0.0,
        "push.interval": (0.02, 0.02), "command.least": 0.0,
    }  # fmt: skip
    kicks = []
    commands = []
    env = make(ROBUST, 96, still)
    for part, levels in ((None, {}), (None, {"push": 0.5}), (1, {"push": 0.25, "command": 0.5}), (None, {})):
        (env if part is None else env.split(3)[part]).set_level(**levels)
        env.init_state(seed=3)
        commands.append(env.field("command"))
        env.step(np.zeros((96, 12)))
        state = env.engine.get_state()
        kicks.append(np.concatenate([state.base_linear_velocity, state.base_angular_velocity], axis=1))
    assert np.abs(commands[0]).max() > 0.9
    assert np.linalg.norm(kicks[0][:, :3], axis=1).max() > 0.9
    assert np.abs(kicks[0][:, 3:]).max() > 0.8
    for i, (push, command) in enumerate(((1.0, 1.0), (0.5, 1.0), (0.25, 0.5), (1.0, 1.0))):
        np.testing.assert_allclose(commands[i], command * commands[0], rtol=1e-6)
        np.testing.assert_allclose(kicks[i], push * kicks[0], atol=0.06)
    far = make(GOAL, 32)
    far.set_level(command=0.5)
    far.init_state(seed=3)
    np.testing.assert_allclose(np.linalg.norm(far.field("command")[:, :2], axis=1), 0.4, rtol=1e-5)
    assert np.abs(far.field("command")[:, 2:]).max() == pytest.approx(0.5)
    for wrong in ({"push": -0.1}, {"command": float("nan")}, {"command": float("inf")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            env.set_level(**wrong)


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


# Rewards


ALL_WEIGHTS = {
    "goal": 1.0, "velocity": 2.0, "yaw_rate": 1.0, "vertical_velocity": -1.0, "tumble": -0.05, "orientation": -0.5, "height": -20.0, "torque": -1e-4,
    "action_rate": -0.01, "smoothness": -0.02, "pose": -0.1, "stand_pose": -0.3, "knee": -2.0, "joint_speed": -5e-4, "feet": 0.1, "slip": -0.2,
    "trot": 0.5, "alive": 20.0, "air_time": 0.5, "arrival": 3.0, "stopping": 2.0, "fall": -5.0,
}  # fmt: skip


@pytest.mark.parametrize("robot", ["go1", "spot"])
def test_every_reward_term_is_what_it_says(robot):
    weights = {f"reward.{name}": weight for name, weight in ALL_WEIGHTS.items()}
    soft = (
        {"kp": 40.0, "kd": 1.0} if robot == "go1" else {"kp": 6.0, "kd": 0.15}
    )  # so that legs reach the ends of their ranges
    shape = {"reward.sharp": 9.0, "reward.wide": 0.5, "command.standing": 0.3}
    env = make(FLAT, 48, NEVER_FALL, ONE_COMMAND, weights, shape, soft, {"env.model": robot})
    assert {name: getattr(env.cfg.reward, name) for name in rewards.LIBRARY} == ALL_WEIGHTS
    env.init_state(seed=6)
    env.set_field("goal_in", np.full((48, 1), 1e6))
    seen = dict.fromkeys(ALL_WEIGHTS, 0)
    rng = np.random.default_rng(1)
    actions = [np.zeros((48, 12))] * 3
    instants = 0
    for step in range(30):
        env.set_field("goal", env.field("com") + [0.05, 0.0, 0.02])
        actions = [rng.normal(0, 1.0 if step % 10 else 2.0, (48, 12)).astype(np.float32), *actions[:2]]
        s = env.step(actions[0])
        running = ~s.done
        if step >= 3:
            expected = reward_terms(env, actions)
            ours = env.reward_terms()
            total = 0
            for name, values in expected.items():
                share = ALL_WEIGHTS[name] * (1.0 if name == "air_time" else 0.02)
                np.testing.assert_allclose(
                    ours[name][running], share * values[running], rtol=5e-4, atol=2e-5, err_msg=name
                )
                seen[name] += np.count_nonzero(np.abs(values[running]) > 1e-3)
                total = total + share * values
            np.testing.assert_allclose(s.reward[running], np.maximum(total, 0)[running], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(env.compute_reward_parallel()[running], s.reward[running], rtol=1e-5, atol=1e-6)
            instants += running.sum()
        if not running.all():  # whose history starts anew
            actions = [np.where(running[:, None], a, 0) for a in actions]
    assert instants > 500
    assert all(count > 20 for name, count in seen.items() if name not in ("fall", "knee", "arrival", "stopping")), seen
    assert seen["knee"] > 0


def test_terms_of_weight_zero_are_as_if_they_were_not():
    zero = {f"reward.{name}": 0.0 for name in ALL_WEIGHTS if name not in ("velocity", "alive")}
    env = make(FLAT, 64, NEVER_FALL, ONE_COMMAND, zero)
    env.init_state(seed=7)
    s = wander(env, 20, 1.0)
    running = ~s.done
    terms = env.reward_terms()
    assert running.sum() > 30
    assert set(terms) == {"velocity", "alive"}
    np.testing.assert_allclose(s.reward[running], (terms["velocity"] + terms["alive"])[running], rtol=1e-6)


def test_flights_are_timed_and_paid_at_touchdown_once():
    env = make(
        FLAT, 64, NEVER_FALL, ONE_COMMAND, {"command.standing": 0.3, "reward.air_time": 2.0, "max_episode_seconds": 2.0}
    )
    env.init_state(seed=8)
    air = np.zeros((64, 4))
    landings = 0
    rng = np.random.default_rng(2)
    for _ in range(99):
        moving = env.field("command").any(axis=1)
        assert 0.2 < moving.mean() < 0.9
        s = env.step(rng.normal(0, 1.0, (64, 12)))
        contact = np.linalg.norm(env.engine.get_state().foot_contact_force, axis=2) > 1.0
        landed = np.where(contact, air, 0)
        air = np.where(contact, 0, air + 0.02)
        air[s.done] = 0
        running = ~s.done
        np.testing.assert_allclose(env.field("landed")[running], landed[running], atol=1e-5)
        np.testing.assert_allclose(env.field("air_time"), air, atol=1e-5)
        np.testing.assert_allclose(s.info["privileged"][:, 22:26], air, atol=1e-5)
        paid = 2.0 * moving * np.where(landed > 0, np.minimum(landed, 0.4) - 0.2, 0).sum(1)
        np.testing.assert_allclose(env.reward_terms()["air_time"][running], paid[running], atol=1e-5)
        landings += (landed[running] > 0.1).sum()
    assert landings > 50
    assert env.step(np.zeros((64, 12))).truncated.any()
    assert not env.field("air_time")[env._state.truncated].any()


# Parts


@pytest.mark.parametrize(
    ("task", "changes"),
    [(ROBUST, {}), (GOAL, {"motor.enabled": True, "terrain.kinds": "rough stairs_up", "terrain.levels": 2})],
)
def test_parts_stepped_at_the_same_time_do_what_the_whole_does(task, changes):
    n = 150  # the last block is not full
    env, whole = (
        registry.make(task, num_envs=n, env_cfg_override={"max_episode_seconds": 0.6, **changes}, threads=threads)
        for threads in (1, 2)
    )
    parts = env.split(2)
    sizes = [part.num_envs for part in parts]
    assert sum(sizes) == n
    assert sizes[0] % LANES == 0
    starts = np.concatenate([[0], np.cumsum(sizes)])
    actions = np.random.default_rng(3).normal(0, 1.0, (50, n, 12)).astype(np.float32)
    records = [[] for _ in parts]

    def run(i):
        part = parts[i]
        records[i].append(snapshot(part.init_state(seed=9, staggered=True)))
        for a in actions:
            s = part.step(a[starts[i] : starts[i + 1]])
            records[i].append(
                [*snapshot(s), s.info["final_obs"][s.done].copy(), s.info["episode_return"][s.done].copy()]
            )

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = [snapshot(whole.init_state(seed=9, staggered=True))]
    ended = 0
    for a in actions:
        s = whole.step(a)
        record.append([*snapshot(s), s.info["final_obs"][s.done].copy(), s.info["episode_return"][s.done].copy()])
        ended += s.done.sum()
    assert ended > n
    assert [len(r) for r in records] == [51, 51]
    for step, expected in enumerate(record):
        for x, *ours in zip(expected, *(r[step] for r in records), strict=True):
            np.testing.assert_array_equal(np.concatenate(ours), x)
    np.testing.assert_array_equal(env.engine.blocks, whole.engine.blocks)
    assert [part.clock for part in parts] == [50, 50]
    for name in whole.errors():
        np.testing.assert_array_equal(np.concatenate([part.errors()[name] for part in parts]), whole.errors()[name])


def test_there_are_no_more_parts_than_blocks():
    env = make(FLAT, 70)
    assert [part.num_envs for part in env.split(8)] == [32, 32, 6]
    assert [part.num_envs for part in env.split(1)] == [70]
    assert [part.engine.threads for part in env.split(2, threads=3)] == [1, 2]
    with pytest.raises(ValueError, match="parts"):
        env.split(0)
    for first, last in ((0, 0), (-1, 2), (1, 4)):
        with pytest.raises(ValueError, match="blocks within 0 and 3"):
            env.engine.part(first, last)


def test_parts_of_an_engine_share_its_robots():
    engine, again = (PhysicsEngine(load_robot("go1"), 80, threads=1, differ=True) for _ in range(2))
    ranges = VaryCfg(trunk_mass=(0.8, 1.2), strength=(0.5, 1.0))
    torques = np.random.default_rng(1).uniform(-5, 5, (80, 12))
    for part, mine in ((engine.part(0, 1), slice(32)), (engine.part(1, 3), slice(32, 80))):
        part.vary(ranges, seed=3)
        part.apply_motor_torques(torques[mine])
        part.step(5)
    again.vary(ranges, seed=3)
    again.apply_motor_torques(torques)
    again.step(5)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(engine.get_state(), name), getattr(again.get_state(), name))
    np.testing.assert_array_equal(engine.model.varied_blocks, again.model.varied_blocks)


# Errors


def test_velocity_errors_are_against_the_command():
    env = make(FLAT, 64, ONE_COMMAND)
    env.init_state(seed=10)
    wander(env, 10, 0.3)
    state = env.engine.get_state()
    command = env.field("command")
    errors = env.errors()
    missed = to_heading(state.base_quaternion, state.base_linear_velocity) - command[:, :2]
    np.testing.assert_allclose(errors["velocity_error"], np.linalg.norm(missed, axis=1), atol=1e-5)
    np.testing.assert_allclose(
        errors["yaw_rate_error"], np.abs(state.base_angular_velocity[:, 2] - command[:, 2]), atol=1e-5
    )
    np.testing.assert_allclose(errors["speed"], np.hypot(*state.base_linear_velocity[:, :2].T), atol=1e-6)
    view = env.view(3)
    np.testing.assert_array_equal(view["command"], command[3])
    assert np.linalg.norm((view["velocity"] - view["command"])[:2]) == pytest.approx(
        errors["velocity_error"][3], abs=1e-5
    )
    assert view["goal"] is None


def test_headings_are_those_of_the_base():
    env = make(FLAT, 64, NEVER_FALL)
    env.init_state(seed=14)
    wander(env, 10, 1.0)
    state = env.engine.get_state()
    ahead = rotation(state.base_quaternion)[:, :, 0] * [1, 1, 0]
    along = (state.base_linear_velocity * ahead).sum(1) / np.linalg.norm(ahead, axis=1)
    np.testing.assert_allclose(env.heading_velocity()[:, 0], along, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(env.heading_velocity()[:, :2], axis=1), env.errors()["speed"], rtol=1e-5)


def test_tasks_have_their_errors():
    names = {
        STAY: ["goal_distance", "speed"],
        FLAT: ["velocity_error", "yaw_rate_error", "speed"],
        GOAL: ["goal_distance", "goals_per_minute", "speed"],
    }
    for task, errors in names.items():
        env = make(task, 3)
        env.init_state()
        assert list(env.errors()) == errors
        assert all(error.shape == (3,) for error in env.errors().values())


def test_walking_tasks_differ_by_their_configuration_alone():
    flat, robust, far = (registry.default_cfg(task) for task in (FLAT, ROBUST, GOAL))
    assert flat.command == CommandCfg(kind="velocity")
    assert (flat.push.speed, flat.push.spin) == ((0.0, 0.0), 0.0)
    assert (robust.push.speed, robust.push.spin, robust.push.interval) == ((0.5, 1.0), 1.0, (2.0, 4.0))
    assert robust == dataclasses.replace(flat, push=robust.push)
    assert far == dataclasses.replace(flat, command=CommandCfg(kind="goal"), goal=far.goal)


# MuJoCo


@pytest.mark.parametrize("task", [FLAT, GOAL])
def test_mujoco_s_robots_see_and_err_as_ours(task):
    n = 8
    env = make(task, n, ONE_COMMAND, NEVER_FALL)
    twin = MujocoQuadrupeds(n, env.cfg, threads=1)
    env.init_state(seed=11)
    twin.init_state(seed=11)
    s = wander(env, 5, 0.3)
    state = env.engine.get_state()
    for i, data in enumerate(twin.datas):
        data.qpos[:] = np.concatenate([state.base_position[i], state.base_quaternion[i], state.joint_position[i]])
        data.qvel[:] = np.concatenate(
            [state.base_linear_velocity[i], state.base_angular_velocity[i], state.joint_velocity[i]]
        )
        mujoco.mj_kinematics(twin.model, data)
        mujoco.mj_comPos(twin.model, data)
    twin.goal[:] = goal(env)
    twin.contact[:] = s.obs[:, 24:28]
    if task == GOAL:
        twin._new_commands()
        np.testing.assert_allclose(twin.command, env.field("command"), atol=2e-3)
    else:
        twin.command[:] = env.field("command")
    np.testing.assert_allclose(twin._observe(), s.obs, atol=2e-4)
    for name, error in env.errors().items():
        np.testing.assert_allclose(twin.errors()[name], error, atol=1e-4, err_msg=name)


def test_mujoco_s_robots_are_asked_the_same():
    n = 300
    env = make(FLAT, n)
    twin = MujocoQuadrupeds(n, env.cfg, threads=1)
    env.init_state(seed=12)
    obs = twin.init_state(seed=12).obs
    np.testing.assert_allclose(obs[:, 34:], twin.command * [2, 2, 1], rtol=1e-6)
    ours = env.field("command")
    theirs = twin.command
    for command in (ours, theirs):
        assert (~command.any(axis=1)).mean() == pytest.approx(0.16, abs=0.07)
    np.testing.assert_allclose(
        np.quantile(ours, (0.05, 0.5, 0.95), axis=0), np.quantile(theirs, (0.05, 0.5, 0.95), axis=0), atol=0.15
    )


def test_mujoco_s_robots_go_on_to_the_next_goal():
    far = MujocoQuadrupeds(64, make(GOAL, 1).cfg, threads=1)
    far.init_state(seed=13)
    distance = np.linalg.norm((far.goal - far._com())[:, :2], axis=1)
    assert 0.8 < distance.min() < 2
    assert 4 < distance.max() < 5.3
    far.goal[::2] = far._com()[::2]
    assert not far.step(np.zeros((64, 12))).done.any()
    np.testing.assert_array_equal(far.errors()["goals_per_minute"], 3000.0 * (np.arange(64) % 2 == 0))
    far.step(np.zeros((64, 12)))
    assert not far.errors()["goals_per_minute"].any()


def test_mujoco_s_robots_are_an_environment():
    cfg = make(FLAT, 1).cfg
    twin = MujocoQuadrupeds(3, dataclasses.replace(cfg, max_episode_seconds=2 * cfg.ctrl_dt), threads=1)
    assert isinstance(twin, ABEnv) and twin.split(2) == [twin]
    with pytest.raises(ValueError, match="staggered"):
        twin.init_state(seed=1, staggered=True)
    twin.init_state(seed=1)
    kept = twin.new_state()
    last = twin.new_state()
    for out, ended in ((kept, False), (last, True)):
        assert twin.step(np.zeros((3, 12)), out) is out
        out.validate()
        assert (out.truncated == ended).all()
    assert not kept.done.any() and not np.array_equal(kept.obs, last.obs)
    np.testing.assert_array_equal(last.info["episode_steps"], 2)
    with pytest.raises(ConfigError, match=r"motor\.enabled: expected False"):
        MujocoQuadrupeds(1, make(FLAT, 1, {"motor.enabled": True}).cfg)


# Angles


def test_angles_of_vectors_are_accurate():
    atan2 = spatial.atan2

    @numba.njit
    def many(y, x, out):
        for i in range(len(x)):
            out[i] = atan2(y[i], x[i])

    angle = np.linspace(-np.pi, np.pi, 100001)[1:-1]
    for length in (1e-3, 1.0, 300.0):
        x = (length * np.cos(angle)).astype(real)
        y = (length * np.sin(angle)).astype(real)
        out = np.empty(len(x), real)
        many(y, x, out)
        np.testing.assert_allclose(out, np.arctan2(y.astype(float), x.astype(float)), atol=1e-6)
    many(np.zeros(2, real), np.array([0.0, -1.0], real), out)
    np.testing.assert_allclose(out[:2], [0.0, np.pi], atol=1e-6)
