"""Episodes of the balance task: how they start, what disturbs them, how they end, against plain NumPy."""

import numpy as np
import pytest
from balance import CALM, EXACT_START, NEVER_FALL, ONE_GOAL, bits, copy, make, make_with, wander
from oracle import centre_of_mass, foot_positions, rotation
from walking import goal

from physics import layout as L
from physics.jit import LANES

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


def test_a_curriculum_pushes_more_often():
    env = make_with(64, EXACT_START, NEVER_FALL, {"push.interval": (1.0, 2.0)})
    due = {}
    for rate in (1.0, 5.0):
        env.set_level(push_rate=rate)
        env.init_state(seed=6)
        due[rate] = env.field("push_in")
    assert 1.0 <= due[1.0].min() < due[1.0].max() <= 2.0
    np.testing.assert_allclose(due[5.0], due[1.0] / 5.0, rtol=1e-5)


@pytest.mark.parametrize(("rate", "steps"), [(1.0, 12), (4.0, 3), (0.5, 24), (100.0, 1)])
def test_a_curriculum_has_shorter_episodes(rate, steps):
    env = make_with(32, EXACT_START, NEVER_FALL, {"max_episode_seconds": 0.24})
    env.set_level(episode_rate=rate)
    env.init_state(seed=6)
    ends = np.array([env.step(np.zeros((32, 12))).truncated.copy() for _ in range(3 * steps)])
    np.testing.assert_array_equal(ends.sum(0), 3)  # staggered at first, whole from then on
    np.testing.assert_array_equal(ends[:steps], ends[steps : 2 * steps])


def test_the_critic_knows_the_next_push():
    env = make_with(64, EXACT_START, NEVER_FALL, {"physics.gravity": 0.0, "push.interval": (0.1, 0.3)})
    env.set_level(push=0.7)
    last = env.init_state(seed=8).info["privileged"].copy()
    push, kick_at, push_in = (
        env.columns(name, True) for name in ("next_push_velocity", "next_push_spin", "next_push_time")
    )
    spins = []
    kicks = []
    before = env.engine.get_state()
    for _ in range(40):
        now = env.step(np.zeros((64, 12))).info["privileged"].copy()
        after = env.engine.get_state()
        due = last[:, push_in][:, 0] - np.float32(env.cfg.ctrl_dt) <= 0
        # weightless and unmoved, a robot moves as it is pushed
        kick = after.base_linear_velocity - before.base_linear_velocity
        turned = rotation(before.base_quaternion)
        announced = np.einsum("nij,nj->ni", turned, last[:, push])
        np.testing.assert_allclose(kick[due], announced[due], atol=0.1)
        np.testing.assert_allclose(kick[~due], 0.0, atol=0.1)
        spins.append((after.base_angular_velocity - before.base_angular_velocity)[due])
        kicks.append(last[due, kick_at])
        np.testing.assert_allclose(now[~due, push_in], last[~due, push_in] - env.cfg.ctrl_dt, atol=1e-5)
        last = now
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
        (1.0, (1, 0, 0), 0.95, False), (1.0, (1, 0, 0), 1.05, True), (1.0, (0, 1, 0), 0.95, False),
        (1.0, (0, -1, 0), 1.05, True), (1.0, (0, 0, 1), 2.5, False),
        # half of the home height is 0.144
        (0.165, (0, 0, 1), 0.0, False), (0.135, (0, 0, 1), 0.0, True),
        # a corner of the trunk
        (0.24, (0, 1, 0), 0.9, False), (0.16, (0, 1, 0), 0.9, True), (0.16, (0, -1, 0), 0.9, True),
        (0.15, (1, 0, 0), 0.9, False),
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


@pytest.mark.parametrize("row", [
    L.POSITION, L.POSITION + 2, L.QUATERNION, L.VELOCITY, L.VELOCITY + 2, L.SPIN + 1,
    L.BASE_ROWS + L.JOINT, L.BASE_ROWS + 2 * L.LEG_ROWS + L.JOINT_SPEED + 1,
])  # fmt: skip
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
