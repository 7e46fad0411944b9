"""The balance task: what is observed, rewarded, disturbed and ended, against plain NumPy and MuJoCo."""

import dataclasses

import numpy as np
import pytest
from oracle import ROBOTS, centre_of_mass, foot_positions, random_state, rotation
from walking import goal, reward_terms

from config import NoiseCfg, VaryCfg
from environments import EnvState, registry
from environments.quadruped import rewards
from physics import PhysicsEngine
from physics import constants as C
from physics import layout as L
from physics.jit import LANES
from settings import ConfigError

TASK = "quadruped-balance"
CALM = {"push.speed": (0.0, 0.0), "push.spin": 0.0}
EXACT_START = {
    "reset.joint_position": 0.0,
    "reset.joint_velocity": 0.0,
    "reset.tilt": 0.0,
    "reset.velocity": 0.0,
    "reset.spin": 0.0,
}
ONE_GOAL = {"goal.interval": (1e5, 1e6)}
NEVER_FALL = {"fall_tilt": 3.0, "fall_height": 0.0}

CFG = registry.default_cfg(TASK)
ALIKE = dataclasses.replace(CFG, vary=VaryCfg(), noise=NoiseCfg())  # robots that do not differ, observed without error


def make(n=32, threads=1, **changes):
    """Return an environment; a change of push.speed is spelt push__speed."""
    return registry.make(
        TASK,
        num_envs=n,
        env_cfg_override={key.replace("__", "."): value for key, value in changes.items()},
        threads=threads,
        cfg=ALIKE,
    )


def make_with(n, *changes):
    merged = {key: value for change in changes for key, value in change.items()}
    return registry.make(TASK, num_envs=n, env_cfg_override=merged, threads=1, cfg=ALIKE)


def copy(state):
    return EnvState(
        state.obs.copy(),
        state.reward.copy(),
        state.terminated.copy(),
        state.truncated.copy(),
        {key: value.copy() for key, value in state.info.items()},
    )


def bits(state):
    return [x.tobytes() for x in (state.obs, state.reward, state.terminated, state.truncated, state.info["privileged"])]


def wander(env, steps, scale=0.5, seed=0):
    """Take random actions; return the last state and action."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        actions = rng.normal(0, scale, (env.num_envs, 12)).astype(np.float32)
        state = env.step(actions)
    return state, actions


# Making one


def test_every_listed_task_can_be_made():
    for name, description in registry.tasks().items():
        env = registry.make(name, num_envs=3, threads=1)
        state = env.init_state(seed=0)
        assert description
        assert state.obs.shape == (3, env.num_obs)
        assert state.info["privileged"].shape == (3, env.num_privileged)
        assert env.step(np.zeros((3, env.num_actions))).reward.shape == (3,)


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_robot_stands_in_it(robot):
    env = make_with(4, {"env.model": robot}, CALM, EXACT_START)
    env.init_state()
    state = env.step(np.zeros((4, 12)))
    assert not state.done.any()
    assert (state.reward > 0).all()


def test_overrides_arrive_nested_or_dotted():
    nested = registry.make(TASK, num_envs=1, env_cfg_override={"push": {"spin": 2.0}, "kp": 33.0})
    dotted = registry.make(TASK, num_envs=1, env_cfg_override={"push.spin": 2.0, "env.kp": 33.0})
    assert nested.cfg == dotted.cfg == dataclasses.replace(CFG, kp=33.0, push=dataclasses.replace(CFG.push, spin=2.0))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kpp": 1.0}, "kpp: unknown field.*kp"),
        ({"push": {"sped": (1.0, 2.0)}}, "push.sped: unknown field.*push.speed"),
        ({"pushes.speed": (1.0, 2.0)}, "pushes.speed: unknown field"),
        ({"kp": -1.0}, "kp: expected a number between 0 and 1000, got -1.0"),
        ({"kp": "high"}, "kp"),
        ({"kp": float("nan")}, "kp"),
        ({"push.speed": (2.0, 1.0)}, "push.speed"),
        ({"push.speed": 1.0}, "push.speed"),
        ({"control": "velocity"}, "control: expected one of pd, torque"),
        ({"env.sim_dt": 0.003}, "env.sim_dt"),
        ({"reset.tilt": 2}, "reset.tilt"),
        ({"motor.rated_speed": 30.0}, r"motor.rated_speed: expected less than motor.no_load_speed = 30 rad/s, got 30"),
        ({"motor.no_load_speed": 10.0}, "motor.rated_speed: expected less than motor.no_load_speed = 10 rad/s, got 20"),
        ({"motor.efficiency": 0.0}, "motor.efficiency: expected a number between 0.01 and 1"),
        (
            {"physics.friction_model": "coulomb", "physics.static_friction": 0.7},
            "physics.static_friction: expected at least physics.foot_friction = 0.8",
        ),
        ({"physics.friction_model": "stick"}, "physics.friction_model: expected one of simple, coulomb"),
        (
            {"motor.enabled": True, "motor.delay": 0.02},
            r"motor.delay: expected, with vary.delay, less than env.ctrl_dt = 0.02 s, got 0.02",
        ),
        (
            {"motor.enabled": True, "motor.delay": 0.01, "vary.delay": (0.0, 0.015)},
            r"motor.delay: expected, with vary.delay, .* got 0.025",
        ),
        ({"vary.delay": (0.0, 0.005)}, "vary.delay: expected motor.enabled true"),
        ({"vary.friction": (1.2, 0.8)}, "vary.friction"),
        ({"command.kind": "walk"}, "command.kind: expected one of stay, velocity, goal, pose, got 'walk'"),
        ({"command.distance": (0.2, 1.0)}, r"command.distance: expected more than command.reached = 0.3 m, got 0.2"),
        ({"command.standing": 0.95}, r"command.turning: expected, with command.standing, at most 1, got 1.05"),
        ({"noise.spin": -0.1}, "noise.spin"),
        ({"terrain.kinds": "rough hills"}, "terrain.kinds: expected names among .*stairs_up.*hills"),
        ({"terrain.kinds": ""}, "terrain.kinds: expected names among"),
        ({"terrain.kinds": "rough", "terrain.cell": 0.3}, "terrain.cell: expected"),
        ({"terrain.kinds": "rough", "terrain.tile": 8.1}, "terrain.tile: expected"),
    ],
)
def test_wrong_overrides_are_named(changes, named):
    with pytest.raises(ConfigError, match=named):
        registry.make(TASK, num_envs=1, env_cfg_override=changes)


@pytest.mark.parametrize(("cell", "tile"), [(0.32, 9.6), (0.05, 2.0), (0.1, 2.0), (0.2, 20.0), (1.0, 8.0)])
def test_tiles_of_any_size_make_a_terrain(cell, tile):
    kinds = "rough slope_up slope_down stairs_up stairs_down stones flat"
    changes = {"terrain.kinds": kinds, "terrain.cell": cell, "terrain.tile": tile, "terrain.levels": 2}
    terrain = registry.make(TASK, num_envs=1, env_cfg_override=changes, threads=1).terrain
    assert terrain.spawns.shape == (2, 7, 3)
    assert terrain.cell == pytest.approx(cell)
    assert terrain.heights.shape[1] * cell >= 2 * tile + 8


def test_unknown_tasks_and_numbers_are_named():
    with pytest.raises(ConfigError, match=r"'quadruped-balanc'.*quadruped-balance"):
        registry.make("quadruped-balanc")
    with pytest.raises(ConfigError, match="num_envs"):
        registry.make(TASK, num_envs=0)


@pytest.mark.parametrize(
    "actions", [np.zeros((4, 11)), np.zeros(48), np.full((4, 12), np.nan), np.full((4, 12), np.inf)]
)
def test_wrong_actions_are_refused_and_change_nothing(actions):
    env = make(4)
    env.init_state()
    before = env.engine.blocks.copy()
    with pytest.raises(ValueError, match="actions"):
        env.step(actions)
    np.testing.assert_array_equal(env.engine.blocks, before)


# Observing


@pytest.mark.parametrize("robot", ["go1", "spot"])
def test_every_observation_is_what_it_says(robot):
    env = make_with(64, {"env.model": robot, "goal.reach": 0.08}, NEVER_FALL)
    env.init_state(seed=1)
    wander(env, 15)
    lifted = env.engine.get_state().base_position
    lifted[::2, 2] += 0.2
    env.engine.set_state(base_position=lifted)
    state, actions = wander(env, 2, seed=1)
    physics = env.engine.get_state()
    running = ~state.done
    assert running.sum() > 20
    R = rotation(physics.base_quaternion)
    offset = goal(env) - centre_of_mass(env.robot, physics)
    heading = np.arctan2(R[:, 1, 0], R[:, 0, 0])
    ahead = np.cos(heading) * offset[:, 0] + np.sin(heading) * offset[:, 1]
    left = -np.sin(heading) * offset[:, 0] + np.cos(heading) * offset[:, 1]
    shrink = np.minimum(1, 0.08 / np.hypot(ahead, left))
    assert (shrink[running] < 1).any()
    assert (shrink[running] == 1).any()
    contact = np.linalg.norm(physics.foot_contact_force, axis=2) > 1.0
    assert 0.05 < contact[running].mean() < 0.95
    expected = {
        "joints": (0, physics.joint_position - env.robot.home_joints.ravel()),
        "joint speeds": (12, 0.05 * physics.joint_velocity),
        "contacts": (24, contact),
        "gravity": (28, -R[:, 2]),
        "spin": (31, 0.25 * physics.base_angular_velocity),
        "goal": (34, 5 * np.stack([shrink * ahead, shrink * left, offset[:, 2]], axis=1)),
    }
    columns = 0
    for name, (start, values) in expected.items():
        np.testing.assert_allclose(
            state.obs[running, start : start + values.shape[1]], values[running], rtol=1e-5, atol=2e-5, err_msg=name
        )
        columns += values.shape[1]
    assert columns == env.num_obs == state.obs.shape[1]
    above = foot_positions(env.robot, physics)[..., 2] - env.robot.foot_radius
    expected = {
        "base velocity": (0, np.einsum("nji,nj->ni", R, physics.base_linear_velocity)),
        "height": (3, 10 * (physics.base_position[:, 2:] - env.robot.home_height)),
        "action": (4, actions),
        "friction, trunk mass": (16, np.ones((64, 2))),
        "feet's heights": (18, 10 * above),
        "air times": (22, env.field("air_time")),  # test_walking.py has them counted
        "forces": (26, physics.foot_contact_force[..., 2] / (env.robot.total_mass * 9.81)),
        "push": (30, np.einsum("nji,nj->ni", R, env.field("next_push"))),  # that they come true, a test below asks
        "kick": (33, env.field("next_kick")),
        "time to push": (36, env.field("push_in")),
    }
    columns = 0
    for name, (start, values) in expected.items():
        got = state.info["privileged"][running, start : start + values.shape[1]]
        np.testing.assert_allclose(got, values[running], rtol=1e-5, atol=2e-5, err_msg=name)
        columns += values.shape[1]
    assert columns == env.num_privileged == state.info["privileged"].shape[1]


def test_friction_and_mass_of_a_robot_are_told_to_the_critic_alone():
    changes = {
        "vary.friction": (0.5, 1.5),
        "vary.trunk_mass": (0.8, 1.3),
        "vary.link_mass": (0.9, 1.1),
        "vary.gravity": (0.9, 1.1),
    }
    env = make_with(64, changes)
    state = env.init_state(seed=1)
    friction, mass = state.info["privileged"][:, 16:18].T
    for values, (low, high) in ((friction, (0.5, 1.5)), (mass, (0.8, 1.3))):
        assert low <= values.min() < values.max() <= high
        assert np.ptp(values) > 0.9 * (high - low)
    rows = env.engine._lanes(env.engine.model.varied_blocks, 0, L.VARIED_ROWS).astype(float)
    np.testing.assert_allclose(friction, rows[:, L.V_KINETIC] / 0.8, rtol=1e-6)
    legs = env.robot.total_mass - env.engine.model.base[C.TRUNK]
    np.testing.assert_allclose(
        mass * env.engine.model.base[C.TRUNK] + rows[:, L.V_LINK_MASS] * legs, rows[:, L.V_MASS], rtol=1e-5
    )
    for _ in range(3):
        state = env.step(np.zeros((64, 12)))
    force = env.engine.get_state().foot_contact_force[..., 2]
    np.testing.assert_allclose(
        state.info["privileged"][:, 26:30],
        force / (rows[:, L.V_MASS] * rows[:, L.V_GRAVITY])[:, None],
        rtol=1e-5,
        atol=1e-6,
    )
    assert force.max() > 10


# Rewarding


@pytest.mark.parametrize("scale", [0.2, 2.0])
def test_every_reward_term_is_what_it_says(scale):
    env = make_with(64, ONE_GOAL, NEVER_FALL)  # test_walking.py has those that this task has no use for
    env.init_state(seed=2)
    _, last_actions = wander(env, 8, scale, seed=1)
    state, actions = wander(env, 1, scale, seed=2)
    running = ~state.done
    assert running.sum() > 10
    ours = env.reward_terms()
    expected = reward_terms(env, [actions, last_actions, last_actions])
    weights = {name: getattr(env.cfg.reward, name) for name in rewards.LIBRARY}
    assert list(ours) == [name for name, weight in weights.items() if weight]
    expected = {name: values for name, values in expected.items() if weights[name]}
    total = 0
    for name, values in expected.items():
        share = weights[name] * (1.0 if rewards.LIBRARY[name].once else 0.02)
        np.testing.assert_allclose(ours[name][running], share * values[running], rtol=2e-4, atol=2e-6, err_msg=name)
        assert np.ptp(values[running]) > 0 or name in ("alive", "trot", "air_time", "knee", "arrival", "stopping")
        total = total + share * values
    np.testing.assert_allclose(state.reward[running], np.maximum(total, 0)[running], rtol=1e-3, atol=1e-5)


def test_reward_of_the_state_as_it_is_equals_the_step_s():
    env = make_with(64, ONE_GOAL)
    env.init_state(seed=3)
    state, _ = wander(env, 10)
    before = env.engine.blocks[:, : L.STATE_ROWS * LANES].copy()
    running = ~state.done
    assert running.any()
    np.testing.assert_allclose(env.compute_reward_parallel()[running], state.reward[running], rtol=1e-6)
    np.testing.assert_array_equal(env.engine.blocks[:, : L.STATE_ROWS * LANES], before)


def test_changed_weights_change_the_reward():
    env = make_with(8, {"reward.alive": 7.0}, CALM, EXACT_START)
    other = make_with(8, CALM, EXACT_START)
    for e in (env, other):
        e.init_state()
        e.step(np.zeros((8, 12)))
    np.testing.assert_allclose(
        env.compute_reward_parallel() - other.compute_reward_parallel(),
        0.02 * (7.0 - other.cfg.reward.alive),
        rtol=1e-4,
    )


def test_a_fall_costs_once_and_returns_add_up():
    env = make_with(64)
    env.init_state(seed=4)
    rng = np.random.default_rng(0)
    total = np.zeros(64)
    length = np.zeros(64)
    falls = 0
    for _ in range(200):
        state = env.step(rng.normal(0, 2, (64, 12)))
        total += state.reward
        length += 1
        ended = state.done
        np.testing.assert_allclose(state.info["episode_return"][ended], total[ended], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(state.info["episode_steps"][ended], length[ended])
        assert (state.reward[state.terminated] < env.cfg.reward.fall + 0.2).all()
        assert (state.reward[~state.terminated] >= 0).all()
        falls += state.terminated.sum()
        total[ended] = length[ended] = 0
    assert falls > 64


# Disturbing


def test_pushes_come_when_and_as_strong_as_configured():
    n = 128
    steps = 900
    still = EXACT_START | {"physics.gravity": 0.0, "push.spin": 0.0}
    env = make_with(n, still)
    env.init_state(seed=5)
    low, high = env.cfg.push.speed
    soon, late = env.cfg.push.interval
    speed = env.engine.get_state().base_linear_velocity
    times = [[] for _ in range(n)]
    sizes = []
    directions = []
    for step in range(1, steps + 1):
        assert not env.step(np.zeros((n, 12))).done.any()
        kick = env.engine.get_state().base_linear_velocity - speed
        speed = speed + kick
        # weightless and unmoved, a robot changes its velocity only when pushed
        for i in np.flatnonzero(np.abs(kick).max(axis=1) > 0.05):
            times[i].append(step * env.cfg.ctrl_dt)
            sizes.append(np.hypot(*kick[i, :2]))
            directions.append(np.arctan2(kick[i, 1], kick[i, 0]))
            assert abs(kick[i, 2]) < 1e-3
            assert env.field("push_age")[i] == 0
            np.testing.assert_allclose(env.field("push")[i], kick[i], atol=1e-3)
    sizes = np.array(sizes)
    assert low - 1e-3 < sizes.min() < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < sizes.max() < high + 1e-3
    between = np.concatenate([np.diff([0.0, *t]) for t in times])
    assert soon - 1e-3 <= between.min() < soon + 0.1
    assert late - 0.1 < between.max() <= late + env.cfg.ctrl_dt + 1e-3
    assert np.histogram(directions, 4, (-np.pi, np.pi))[0].min() > 0.15 * len(directions)


def test_pushes_turn_the_robot_too():
    env = make_with(128, EXACT_START, {"physics.gravity": 0.0, "push.speed": (0.0, 0.0), "push.interval": (0.1, 0.1)})
    env.init_state(seed=6)
    before = env.engine.get_state().base_angular_velocity
    for _ in range(5):
        np.testing.assert_array_equal(env.engine.get_state().base_angular_velocity, before)
        env.step(np.zeros((128, 12)))
    kick = env.engine.get_state().base_angular_velocity - before
    assert (np.abs(kick).max(0) > 0.3).all()
    assert (np.abs(kick) < env.cfg.push.spin + 0.1).all()
    assert (np.abs(kick.mean(0)) < 0.2).all()


def test_the_critic_knows_the_next_push():
    env = make_with(64, EXACT_START, NEVER_FALL, {"physics.gravity": 0.0, "push.interval": (0.1, 0.3)})
    env.set_level(push=0.7)
    told = env.init_state(seed=8).info["privileged"].copy()
    push, kick_at, push_in = (
        env.columns(name, True) for name in ("next_push_velocity", "next_push_spin", "next_push_time")
    )
    spins = []
    kicks = []
    before = env.engine.get_state()
    for _ in range(40):
        now = env.step(np.zeros((64, 12))).info["privileged"].copy()
        after = env.engine.get_state()
        due = told[:, push_in][:, 0] - np.float32(env.cfg.ctrl_dt) <= 0
        # weightless and unmoved, a robot moves as it is pushed
        kick = after.base_linear_velocity - before.base_linear_velocity
        turned = rotation(before.base_quaternion)
        announced = np.einsum("nij,nj->ni", turned, told[:, push])
        np.testing.assert_allclose(kick[due], announced[due], atol=0.1)
        np.testing.assert_allclose(kick[~due], 0.0, atol=0.1)
        spins.append((after.base_angular_velocity - before.base_angular_velocity)[due])
        kicks.append(told[due, kick_at])
        np.testing.assert_allclose(now[~due, push_in], told[~due, push_in] - env.cfg.ctrl_dt, atol=1e-5)
        told = now
        before = after
    spins = np.concatenate(spins)
    kicks = np.concatenate(kicks)
    assert len(kicks) > 64 * 2
    for axis in range(3):  # the legs, which swing, take back some of it until the step's end
        assert np.corrcoef(spins[:, axis], kicks[:, axis])[0, 1] > 0.8


def test_goals_are_new_now_and_then_and_within_reach():
    env = make_with(64, CALM, {"goal.radius": 0.1, "goal.height": 0.02, "goal.interval": (1.0, 2.0)})
    env.init_state(seed=7)
    current = goal(env)
    changed = [[0] for _ in range(64)]
    drawn = []
    for step in range(1, 400):
        state = env.step(np.zeros((64, 12)))
        assert not state.done.any()
        moved = (np.abs(goal(env) - current) > 1e-5).any(axis=1)
        if moved.any():
            middle = foot_positions(env.robot, env.engine.get_state()).mean(1)
            drawn.extend(np.hypot(*(goal(env) - middle)[moved, :2].T))
            for i in np.flatnonzero(moved):
                changed[i].append(step)
        current = goal(env)
    between = np.concatenate([np.diff(c) for c in changed]) * env.cfg.ctrl_dt
    assert between.min() >= 1.0 - 1e-3
    assert between.max() <= 2.0 + env.cfg.ctrl_dt + 1e-3
    assert 0.08 < max(drawn) < 0.1 + 1e-4
    assert np.median(drawn) == pytest.approx(0.1 / np.sqrt(2), abs=0.015)  # uniform over a disc


# Ending


@pytest.mark.parametrize(
    ("height", "axis", "tilt", "falls"),
    [
        (1.0, (1, 0, 0), 0.95, False), (1.0, (1, 0, 0), 1.05, True), (1.0, (0, 1, 0), 0.95, False), (1.0, (0, -1, 0), 1.05, True), (1.0, (0, 0, 1), 2.5, False),
        (0.165, (0, 0, 1), 0.0, False), (0.135, (0, 0, 1), 0.0, True),  # half of the home height is 0.144
        (0.24, (0, 1, 0), 0.9, False), (0.16, (0, 1, 0), 0.9, True), (0.16, (0, -1, 0), 0.9, True), (0.15, (1, 0, 0), 0.9, False),  # a corner of the trunk
    ],
)  # fmt: skip
def test_falls_are_tilt_height_or_a_trunk_on_the_ground(height, axis, tilt, falls):
    env = make_with(2, CALM, EXACT_START, {"kp": 0.0, "kd": 0.0})
    env.init_state()
    legs_up = np.tile([0.0, np.pi, -1.0], (2, 4))
    quaternion = np.tile([np.cos(tilt / 2), *(np.sin(tilt / 2) * np.array(axis))], (2, 1))
    env.engine.set_state(
        base_position=np.tile([0, 0, height], (2, 1)),
        base_quaternion=quaternion,
        joint_position=legs_up,
        base_linear_velocity=np.tile([0, 0, 0.1], (2, 1)),
    )
    state = env.step(np.zeros((2, 12)))
    assert (state.terminated == falls).all()
    assert not state.truncated.any()


def test_time_ends_an_episode_after_its_steps():
    env = make_with(48, CALM)
    assert env.cfg.max_episode_steps == 1000
    env.init_state(seed=8)
    for _ in range(2):
        for step in range(1, 1001):
            state = env.step(np.zeros((48, 12)))
            assert not state.terminated.any()
            assert (state.truncated == (step == 1000)).all()
        assert (state.info["episode_steps"] == 1000).all()


def test_staggered_episodes_do_not_end_at_once():
    n = 256
    env = make_with(n, CALM)
    env.init_state(seed=9, staggered=True)
    ends = np.array([env.step(np.zeros((n, 12))).truncated.copy() for _ in range(1000)])
    assert (ends.sum(0) == 1).all()
    when = ends.argmax(0)
    assert ends.sum(1).max() < 8
    np.testing.assert_allclose(np.histogram(when, 4, (0, 1000))[0], n / 4, atol=25)


def test_final_observation_is_the_ended_episode_s():
    # the same episodes in an environment whose time runs on
    short = make_with(32, ONE_GOAL, {"max_episode_seconds": 0.4})
    long = make_with(32, ONE_GOAL, {"max_episode_seconds": 4.0})
    first = copy(short.init_state(seed=10))
    assert bits(first) == bits(long.init_state(seed=10))
    rng = np.random.default_rng(1)
    for _ in range(20):
        actions = rng.normal(0, 0.2, (32, 12))
        a = short.step(actions)
        b = long.step(actions)
    assert a.truncated.all()
    assert not b.done.any()
    np.testing.assert_array_equal(a.info["final_obs"], b.obs)
    np.testing.assert_array_equal(a.info["final_privileged"], b.info["privileged"])
    np.testing.assert_array_equal(a.reward, b.reward)
    # while the observation is a new episode's: the pose that the engine now has, no action taken
    assert not np.isclose(a.obs, b.obs).all(axis=1).any()
    joints = short.engine.get_state().joint_position - short.robot.home_joints.ravel()
    np.testing.assert_allclose(a.obs[:, :12], joints, atol=1e-6)
    assert not a.info["privileged"][:, 4:16].any()
    assert not a.info["privileged"][:, 22:30].any()
    assert not a.obs[:, 24:28].any()


def test_final_observation_of_a_fall_shows_the_fall():
    env = make_with(64, CALM, ONE_GOAL, {"fall_tilt": 0.3})
    lenient = make_with(64, CALM, ONE_GOAL, {"fall_tilt": 3.0})
    env.init_state(seed=11)
    lenient.init_state(seed=11)
    rng = np.random.default_rng(2)
    seen = np.zeros(64, bool)
    falls = 0
    for _ in range(60):
        actions = rng.normal(0, 2, (64, 12))
        a = env.step(actions)
        b = lenient.step(actions)
        tilted = a.terminated & ~seen & ~b.done
        np.testing.assert_array_equal(a.info["final_obs"][tilted], b.obs[tilted])
        assert (a.info["final_obs"][tilted, 30] > -np.cos(0.3) - 1e-4).all()
        assert (a.obs[tilted, 30] < -0.95).all()
        falls += tilted.sum()
        seen |= a.done | b.done
    assert falls > 20


@pytest.mark.parametrize(
    "row",
    [
        L.POSITION,
        L.POSITION + 2,
        L.QUATERNION,
        L.VELOCITY,
        L.VELOCITY + 2,
        L.SPIN + 1,
        L.BASE_ROWS + L.JOINT,
        L.BASE_ROWS + 2 * L.LEG_ROWS + L.JOINT_SPEED + 1,
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_robot_starts_anew_and_its_neighbours_do_not_notice(row, value):
    env = make(40)
    whole = make(40)
    for e in (env, whole):
        e.init_state(seed=12)
        wander(e, 5, 0.2)
    env.engine.blocks.reshape(env.engine.num_blocks, -1, LANES)[19 // LANES, row, 19 % LANES] = value
    actions = np.random.default_rng(3).normal(0, 0.2, (40, 12))
    broken = env.step(actions)
    healthy = whole.step(actions)
    assert broken.terminated[19]
    np.testing.assert_array_equal(env.engine.broken, np.arange(40) == 19)
    assert not broken.truncated[19]
    others = np.arange(40) != 19
    for a in (broken.obs, broken.reward, *broken.info.values()):
        assert np.isfinite(a).all()
    for a, b in (
        (broken.obs, healthy.obs),
        (broken.reward, healthy.reward),
        (broken.info["privileged"], healthy.info["privileged"]),
    ):
        np.testing.assert_array_equal(a[others], b[others])
    assert np.isfinite(env.engine.blocks).all()
    for _ in range(20):
        a = env.step(actions)
        b = whole.step(actions)
        np.testing.assert_array_equal(a.obs[others], b.obs[others])
        assert np.isfinite(a.obs).all()
        assert np.isfinite(a.reward).all()


def test_everything_broken_starts_anew():
    env = make(33)
    env.init_state(seed=13)
    env.engine.blocks[:, : L.STATE_ROWS * LANES] = np.nan
    env.engine.blocks[:, L.BROKEN * LANES : (L.BROKEN + 1) * LANES] = 0
    state = env.step(np.zeros((33, 12)))
    assert state.terminated.all()
    np.testing.assert_array_equal(env.engine.broken, np.ones(33))
    assert np.isfinite(env.engine.blocks[:2]).all()
    for x in (state.obs, state.reward, *state.info.values()):
        assert np.isfinite(x).all()


# Starting


def test_starts_are_as_varied_as_configured():
    n = 2000
    env = make(n)
    env.init_state(seed=14)
    state = env.engine.get_state()
    cfg = env.cfg.reset
    home = env.robot.home_joints.ravel()
    R = rotation(state.base_quaternion)
    pitch = np.arcsin(-R[:, 2, 0])
    roll = np.arctan2(R[:, 2, 1], R[:, 2, 2])
    yaw = np.arctan2(R[:, 1, 0], R[:, 0, 0])
    for values, limit in (
        (state.joint_position - home, cfg.joint_position), (state.joint_velocity, cfg.joint_velocity),
        (pitch, cfg.tilt), (roll, cfg.tilt), (yaw, np.pi),
        (state.base_linear_velocity[:, :2], cfg.velocity), (state.base_angular_velocity, cfg.spin),
    ):  # fmt: skip
        values = values.reshape(n, -1)
        assert (np.abs(values) <= limit * (1 + 1e-5)).all()
        np.testing.assert_allclose(values.std(axis=0), limit / np.sqrt(3), rtol=0.06)
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=0.06 * limit)
        correlation = np.corrcoef(values.T) if values.shape[1] > 1 else np.eye(1)
        assert np.abs(correlation - np.eye(len(correlation))).max() < 0.1
    assert not state.base_linear_velocity[:, 2].any()
    lowest = foot_positions(env.robot, state)[..., 2].min(1) - env.robot.foot_radius[0]
    np.testing.assert_allclose(lowest, 0, atol=1e-5)


def test_episodes_start_with_the_centre_of_mass_where_it_is():
    env = make(64)
    env.init_state(seed=21)
    state = env.engine.get_state()
    com = env.field("com") + np.pad(env.engine.rows(L.ORIGIN, 2), ((0, 0), (0, 1)))
    np.testing.assert_allclose(com, centre_of_mass(env.robot, state), atol=1e-5)
    # they were put on the ground after they were measured: by centimetres
    assert np.ptp(state.base_position[:, 2]) > 0.02


def test_without_noise_episodes_start_at_home():
    env = make_with(8, EXACT_START)
    env.init_state()
    state = env.engine.get_state()
    np.testing.assert_allclose(state.joint_position, np.tile(env.robot.home_joints.ravel(), (8, 1)), atol=1e-6)
    for name in ("joint_velocity", "base_linear_velocity", "base_angular_velocity"):
        assert not getattr(state, name).any()


def test_same_seed_same_bits_and_two_seeds_differ():
    actions = np.random.default_rng(4).normal(0, 1, (60, 32, 12))

    def run(env, seed):
        record = bits(env.init_state(seed))
        for a in actions:
            record += bits(env.step(a))
        return record

    env = make(32)
    first = run(env, 0)
    assert run(env, 0) == first  # nothing of an earlier run is left
    assert run(make(32), 0) == first
    assert run(env, 1) != first
    a, b = (env.init_state(seed).obs.copy() for seed in (0, 1))
    assert not np.isclose(a, b).all(axis=1).any()


def test_robots_and_episodes_differ_from_each_other():
    env = make_with(64, {"max_episode_seconds": 0.1})
    starts = [env.init_state(seed=0).obs[:, :12].copy()]
    for step in range(20):
        state = env.step(np.zeros((64, 12)))
        if step % 5 == 4:
            assert state.truncated.all()
            starts.append(state.obs[:, :12].copy())
    rows = np.concatenate(starts)
    assert len(np.unique(rows, axis=0)) == len(rows) == 5 * 64


def test_a_robot_s_episode_does_not_depend_on_how_many_there_are():
    few = make(20)
    many = make(33)
    few.init_state(seed=15)
    many.init_state(seed=15)
    actions = np.random.default_rng(5).normal(0, 1.5, (100, 33, 12))
    falls = 0
    for a in actions:
        x = few.step(a[:20])
        y = many.step(a)
        np.testing.assert_array_equal(x.obs, y.obs[:20])
        np.testing.assert_array_equal(x.reward, y.reward[:20])
        falls += x.terminated.sum()
    assert falls > 5


# Acting


@pytest.mark.parametrize("control", ["pd", "torque"])
def test_actions_become_motor_torques(control):
    n = 16
    env = make_with(n, CALM, NEVER_FALL, {"control": control, "torque_kd": 0.4, "physics.gravity": 3.0})
    env.init_state(seed=16)
    cfg = env.cfg
    robot = env.robot
    start = random_state(robot, n, 6, height=3.0, speed=0.3)
    start["base_quaternion"] = np.tile([1.0, 0, 0, 0], (n, 1))
    start["joint_position"] = robot.home_joints.ravel() + 0.3 * np.random.default_rng(7).uniform(-1, 1, (n, 12))
    bare = PhysicsEngine(robot, n, cfg.sim_dt, 1, cfg.physics)
    for engine in (env.engine, bare):
        engine.set_state(**start)
    rng = np.random.default_rng(8)
    low, high = robot.joint_range.reshape(12, 2).T
    for _ in range(4):
        actions = rng.normal(0, 1, (n, 12)).astype(np.float32)
        assert not env.step(actions).done.any()
        for _ in range(cfg.sim_substeps):
            s = bare.get_state()
            if control == "torque":
                torque = robot.hold_torques().ravel() + cfg.torque_scale * actions - cfg.torque_kd * s.joint_velocity
            else:
                torque = (
                    cfg.kp
                    * (np.clip(robot.home_joints.ravel() + cfg.action_scale * actions, low, high) - s.joint_position)
                    - cfg.kd * s.joint_velocity
                )
            bare.apply_motor_torques(torque)
            bare.step()
    ours = env.engine.get_state()
    theirs = bare.get_state()
    moved = np.abs(theirs.joint_position - start["joint_position"]).max()
    assert moved > 0.1
    np.testing.assert_allclose(ours.joint_position, theirs.joint_position, atol=1e-4 * moved)
    np.testing.assert_allclose(ours.joint_velocity, theirs.joint_velocity, atol=5e-3)
    np.testing.assert_allclose(ours.base_position, theirs.base_position, atol=1e-4)


def test_absurd_actions_are_survived():
    env = make(16)
    env.init_state(seed=17)
    for scale in (1e3, 1e30):
        for _ in range(10):
            state = env.step(np.full((16, 12), scale, np.float32))
            assert np.isfinite(state.obs).all()
            assert np.isfinite(state.reward).all()


def test_states_can_be_written_elsewhere():
    env = make(8)
    other = make(8)
    env.init_state(seed=18)
    own = other.init_state(seed=18)
    target = env.new_state()
    returned = env.step(np.ones((8, 12)), out=target)
    assert returned is target
    assert bits(target) == bits(other.step(np.ones((8, 12))))
    kept = target.obs.copy()
    env.step(np.zeros((8, 12)))
    np.testing.assert_array_equal(target.obs, kept)
    assert own is other.step(np.zeros((8, 12)))


def test_errors_are_the_task_s_own():
    env = make(32)
    env.init_state(seed=19)
    wander(env, 20, 0.3)
    state = env.engine.get_state()
    errors = env.errors()
    np.testing.assert_allclose(
        errors["goal_distance"], np.linalg.norm(goal(env) - centre_of_mass(env.robot, state), axis=1), atol=2e-5
    )
    np.testing.assert_allclose(errors["speed"], np.hypot(*state.base_linear_velocity[:, :2].T), atol=1e-6)
