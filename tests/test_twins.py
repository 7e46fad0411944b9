"""Robots that do the same: mirror images, parts of an environment stepped at the same time, and MuJoCo's."""

import copy
import dataclasses
import threading

import mujoco
import numpy as np
import pytest
from robot_files import to_urdf
from walking import FIELDS, FLAT, GOAL, NEVER_FALL, ONE_COMMAND, ROBUST, STAY, make, mirror_image, wander

from config import VaryCfg
from environments import ABEnv, registry
from physics import PhysicsEngine, load_robot, save_robot
from physics.jit import LANES
from physics.mjcf import to_mjcf
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

ROUGH = {"terrain.kinds": "rough stairs_up", "terrain.levels": 2}


@pytest.mark.parametrize(
    ("task", "changes"),
    [(ROBUST, {}), (GOAL, {"motor.enabled": True, "physics.body_contact": True} | ROUGH)],
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

STILL = {f"reset.{name}": 0.0 for name in ("joint_position", "joint_velocity", "tilt", "velocity", "spin")}


def in_mujoco(task, n, *changes):
    """Return the same as make() does, moved by MuJoCo."""
    changes = {key: value for change in changes for key, value in change.items()}
    return registry.make(task, "mujoco", num_envs=n, env_cfg_override=changes, threads=2)


def test_mujoco_moves_robots_by_the_pd_law_of_the_task():
    n = 4
    env = in_mujoco(FLAT, n, NEVER_FALL)
    env.init_state(seed=3)
    start = env.engine.get_state()
    actions = np.random.default_rng(1).normal(0, 0.4, (n, 12)).astype(np.float32)
    env.step(actions)
    env.step(-actions)
    robot = env.robot
    model = mujoco.MjModel.from_xml_string(to_mjcf(robot, env.cfg.sim_dt, env.cfg.physics.foot_friction, ""))
    low, high = robot.joint_range.reshape(12, 2).T
    found = env.engine.get_state()
    for i in range(n):
        data = mujoco.MjData(model)
        data.qpos[:] = np.concatenate([start.base_position[i], start.base_quaternion[i], start.joint_position[i]])
        data.qvel[:] = np.concatenate(
            [start.base_linear_velocity[i], start.base_angular_velocity[i], start.joint_velocity[i]]
        )
        for action in (actions[i], -actions[i]):
            target = np.clip(robot.home_joints.ravel() + env.cfg.action_scale * action, low, high)
            for _ in range(env.cfg.sim_substeps):
                data.ctrl[:] = env.cfg.kp * (target - data.qpos[7:]) - env.cfg.kd * data.qvel[6:]
                mujoco.mj_step(model, data)
        np.testing.assert_allclose(found.base_position[i], data.qpos[:3], atol=1e-5)
        np.testing.assert_allclose(found.joint_position[i], data.qpos[7:], atol=1e-4)
        np.testing.assert_allclose(found.joint_velocity[i], data.qvel[6:], atol=1e-3)


def test_mujoco_s_robots_bear_their_weight_and_see_it():
    env = in_mujoco(STAY, 4, {"push.speed": (0.0, 0.0), "push.spin": 0.0})
    env.init_state(seed=1)
    for _ in range(100):
        s = env.step(np.zeros((4, 12)))
    s.validate()
    force = env.engine.get_state().foot_contact_force
    np.testing.assert_allclose(force[..., 2].sum(axis=1), 9.81 * env.robot.total_mass, rtol=0.02)
    assert np.abs(force[..., :2].sum(axis=1)).max() < 0.02 * 9.81 * env.robot.total_mass
    np.testing.assert_array_equal(s.obs[:, 24:28], 1.0)
    env.push(np.array([0.0, 1.0, 0.0]))
    env.step(np.zeros((4, 12)))
    assert (env.engine.get_state().base_linear_velocity[:, 1] > 0.5).all()
    # what was seen a second ago comes again
    kept = {name: copy.copy(x) for name, x in env.snapshot().items()}
    first = [env.step(np.zeros((4, 12))).obs.copy() for _ in range(3)]
    env.restore(kept)
    for obs in first:
        np.testing.assert_allclose(env.step(np.zeros((4, 12))).obs, obs, atol=2e-3)


def test_in_mujoco_too_episodes_end_and_begin():
    env = in_mujoco(FLAT, 3, {"max_episode_seconds": 0.1, "ctrl_dt": 0.05, "sim_dt": 0.005})
    assert isinstance(env, ABEnv) and env.split(2) == [env]
    env.init_state(seed=1)
    kept = env.new_state()
    last = env.new_state()
    for out, ended in ((kept, False), (last, True)):
        assert env.step(np.zeros((3, 12)), out) is out
        out.validate()
        assert (out.truncated == ended).all()
    np.testing.assert_array_equal(last.info["episode_steps"], 2)
    state = env.engine.get_state()  # of new episodes
    np.testing.assert_allclose(state.joint_position, np.tile(env.robot.home_joints.ravel(), (3, 1)), atol=0.11)
    env.step(np.zeros((3, 12)))
    np.testing.assert_allclose(env.engine.get_state().base_position, state.base_position, atol=0.03)


def test_mujoco_s_ground_is_the_task_s():
    env = in_mujoco("quadruped-walk-rough", 6, {"terrain.levels": 3, "terrain.kinds": "rough slope_up"})
    env.init_state(seed=2)
    for _ in range(60):
        s = env.step(np.zeros((6, 12)))
    assert not s.done.any()
    place = env.engine.get_state().base_position
    ground = env.terrain.height(place[:, 0], place[:, 1])
    assert np.ptp(ground) > 0.02
    np.testing.assert_allclose(place[:, 2] - ground, env.robot.home_height, atol=0.08)
    assert (env.engine.get_state().foot_contact_force[..., 2].sum(axis=1) > 0.5 * 9.81 * env.robot.total_mass).all()


def test_mujoco_s_robots_touch_the_ground_with_what_the_task_s_do():
    for touches in (False, True):
        env = in_mujoco("quadruped-walk-rough", 1, {"terrain.levels": 2, "physics.body_contact": touches})
        assert env.simulated.geom("trunk").conaffinity == (1 if touches else 2)
        names = [env.simulated.geom(i).name for i in range(env.simulated.ngeom)]
        assert ("FL_knee" in names) == touches


def test_mujoco_s_robots_slip_where_the_ground_is_as_slippery_as_the_task_s():
    slid = []
    for friction in ((0.1, 0.1), (1.0, 1.0)):
        ground = {"terrain.kinds": "flat", "terrain.levels": 2, "terrain.friction": friction}
        for env in (make(FLAT, 2, NEVER_FALL, STILL, ground), in_mujoco(FLAT, 2, NEVER_FALL, STILL, ground)):
            env.init_state(seed=1)
            for _ in range(25):
                env.step(np.zeros((2, 12)))
            before = env.engine.get_state().base_position
            env.push(np.array([0.4, 0.0, 0.0]))
            for _ in range(25):
                env.step(np.zeros((2, 12)))
            slid.append((env.engine.get_state().base_position - before)[:, 0])
    foal, its, foal_s_grip, its_grip = np.array(slid)
    np.testing.assert_allclose(foal, its, atol=0.01)
    np.testing.assert_allclose(foal_s_grip, its_grip, atol=0.01)
    assert (foal > 2.0 * foal_s_grip).all()


def test_what_mujoco_s_robots_cannot_do_is_refused():
    with pytest.raises(ConfigError, match=r"motor\.enabled: expected False"):
        in_mujoco(FLAT, 1, {"motor.enabled": True})


def test_a_robot_of_its_maker_s_file_moves_as_ours(tmp_path):
    """Joints in another order, turning the other way, and shapes that overlap, in MuJoCo from the file itself."""
    robot = load_robot("go1")
    text = to_urdf(robot).replace('<axis xyz="0 1 0"/>', '<axis xyz="0 -1 0"/>')
    for low, high in {tuple(x) for x in robot.joint_range[:, 1:].reshape(-1, 2)}:
        text = text.replace(f'lower="{low:.9g}" upper="{high:.9g}"', f'lower="{-high:.9g}" upper="{-low:.9g}"')
    path = tmp_path / "maker.urdf"
    path.write_text(text)
    states = []
    for model in ("", str(path)):
        env = in_mujoco(FLAT, 2, NEVER_FALL, {"model": str(path), "physics.foot_friction": 1.0})
        if model:
            env.use_model(model)
        env.init_state(seed=4)
        # in the air: how hard the ground is to a foot on a link of its own is the file's affair
        env.engine.set_state(base_position=env.engine.get_state().base_position + [0.0, 0.0, 2.0])
        for _ in range(10):
            env.step(np.random.default_rng(2).normal(size=(2, 12)))
        states.append(env.engine.get_state())
        for _ in range(90):
            s = env.step(np.zeros((2, 12)))
        s.validate()
        assert s.obs[:, 24:28].all()  # on its feet
    ours, theirs = states
    assert (load_robot(path).joint_signs[:, 1:] == -1).all()
    np.testing.assert_allclose(theirs.joint_position, ours.joint_position, atol=1e-3)
    np.testing.assert_allclose(theirs.base_position, ours.base_position, atol=1e-3)
    with pytest.raises(ConfigError, match="--model: expected a task on flat ground"):
        in_mujoco("quadruped-walk-rough", 1, {"terrain.levels": 2}).use_model(str(path))
