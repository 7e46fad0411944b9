"""Robots that do the same: mirror images, parts of an environment stepped at the same time, and MuJoCo's."""

import dataclasses
import threading

import mujoco
import numpy as np
import pytest
from walking import FIELDS, FLAT, GOAL, NEVER_FALL, ONE_COMMAND, ROBUST, STAY, goal, make, mirror_image, wander

from benchmarks.transfer import MujocoQuadrupeds
from config import VaryCfg
from environments import ABEnv, registry
from physics import PhysicsEngine, load_robot, save_robot
from physics.jit import LANES
from physics.robot import Link
from settings import ConfigError


def snapshot(state):
    """Return what a step writes, but for what is stale."""
    return [x.copy() for x in (state.obs, state.reward, state.terminated, state.truncated, state.info["privileged"])]


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
    offset[1::2] = offset[::2] * flip
    foot_offset[1::2] = foot_offset[::2] * flip
    home[1::2] = home[::2] * [-1, 1, 1]
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
        "reward.slip": -0.1, "reward.smoothness": -0.01, "reward.feet": 0.1, "reward.alive": 30.0,
        "reward.air_time": 1.0, "reward.trot": 0.5,
    }  # fmt: skip
    env = make(task, 2 * n, NEVER_FALL, ONE_COMMAND, still, weights)
    body = env.body
    env.init_state(seed=1)
    wander(env, 12, 0.4)
    state = env.engine.get_state()
    flip = np.array([1, -1, 1])
    joints = body.actions
    images = {
        "base_position": lambda x: x * flip, "base_quaternion": lambda x: x * [1, -1, 1, -1],
        "base_linear_velocity": lambda x: x * flip, "base_angular_velocity": lambda x: -x * flip,
        "joint_position": lambda x: mirror_image(joints, x), "joint_velocity": lambda x: mirror_image(joints, x),
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
