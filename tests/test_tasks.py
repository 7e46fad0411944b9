"""Cart-pole, navigation and bounce-ball: what moves, is seen, rewarded and ended; random numbers of tasks in NumPy."""

import mujoco
import numpy as np
import pytest

from environments import Draws, registry
from environments import bounce_ball as B
from physics import arm as A


def make(task, n=64, **changes):
    env = registry.make(task, num_envs=n, env_cfg_override=changes, threads=1)
    env.init_state(1)
    return env


# Random numbers


def test_draws_are_a_robot_s_own_and_uniform():
    robots = np.arange(4096)
    draws = Draws(3, 7, robots)
    a = draws.uniform(-2.0, 3.0)
    b = draws.uniform(0.0, 1.0, 5)
    c = draws.normal(4)
    again = Draws(3, 7, robots[100:103])
    np.testing.assert_array_equal(a[100:103], again.uniform(-2.0, 3.0))
    np.testing.assert_array_equal(b[100:103], again.uniform(0.0, 1.0, 5))
    assert (a.shape, b.shape, c.shape) == ((4096,), (4096, 5), (4096, 4))
    assert -2 <= a.min() < -1.99 and 2.99 < a.max() <= 3 and b.min() >= 0 and b.max() < 1
    assert np.abs(np.corrcoef(np.column_stack([a, b, c]).T) - np.eye(10)).max() < 0.06
    counts, _ = np.histogram(b, 16, (0, 1))
    assert ((counts - 1280) ** 2 / 1280).sum() < 40  # chi squared of 15 degrees of freedom
    assert abs(c.mean()) < 0.03 and abs(c.std() - 1) < 0.03 and abs((c**4).mean() - 3) < 0.3
    for other in (Draws(4, 7, robots), Draws(3, 8, robots)):
        assert abs(np.corrcoef(a, other.uniform(-2.0, 3.0))[0, 1]) < 0.06


# Cart-pole

CARTPOLE = """
<mujoco><compiler angle="radian" inertiafromgeom="false"/><option timestep="0.001" integrator="RK4"/><worldbody>
<body name="cart"><inertial pos="0 0 0" mass="10" diaginertia="1 1 1"/>
<joint name="rail" type="slide" axis="1 0 0" damping="1"/>
<body name="pole"><inertial pos="0 0 0.3" mass="5" diaginertia="0.15 0.15 0.001"/>
<joint type="hinge" axis="0 1 0" damping="1.5"/></body></body></worldbody>
<actuator><motor joint="rail"/></actuator></mujoco>"""


@pytest.mark.parametrize(("dt", "tolerance"), [(0.005, 0.03), (0.0005, 0.003)])
def test_the_cart_pole_moves_as_mujoco_s(dt, tolerance):
    n = 8
    env = make("cartpole", n, sim_dt=dt, max_angle=3.0, max_position=50.0, hinge_damping=1.5)
    model = mujoco.MjModel.from_xml_string(CARTPOLE)
    rng = np.random.default_rng(0)
    start = rng.uniform(-0.5, 0.5, (n, 4)).astype(np.float32)
    env.data["state"][:] = start
    datas = [mujoco.MjData(model) for _ in range(n)]
    for data, s in zip(datas, start, strict=True):
        data.qpos[:] = s[:2]
        data.qvel[:] = s[2:]
    scale = np.ones(4)
    for _ in range(50):
        actions = rng.uniform(-4, 4, (n, 1))
        state = env.step(actions)
        for data, action in zip(datas, actions[:, 0], strict=True):
            data.ctrl[:] = 100 * np.clip(action, -3, 3)
            for _ in range(10):
                mujoco.mj_step(model, data)
        scale = np.maximum(scale, np.abs(state.obs).max(0))
    expected = np.array([[*d.qpos, *d.qvel] for d in datas])
    assert not state.done.any() and scale[2] > 2
    np.testing.assert_array_less(np.abs(state.obs - expected) / scale, tolerance)


def test_the_cart_pole_ends_by_angle_position_or_what_is_no_number():
    env = make("cartpole", 6)
    env.data["state"][:] = [
        [0, 0.19, 0, 0],
        [0, 0.21, 0, 0],
        [0, -0.21, 0, 0],
        [0.79, 0, 0, 0],
        [-0.81, 0, 0, 0],
        [np.nan, 0, 0, 0],
    ]
    s = env.step(np.zeros((6, 1)))
    np.testing.assert_array_equal(s.terminated, [False, True, True, False, True, True])
    np.testing.assert_array_equal(s.reward, np.ones(6))
    assert np.isfinite(s.obs).all() and np.abs(s.obs[1]).max() <= 0.01 and s.info["final_obs"][1, 1] > 0.2


# Navigation


def test_the_creature_runs_tires_and_rests():
    env = make("navigation", 4, goal_height=0.0)
    c = env.cfg
    d = env.data
    d["position"][:] = [32, 32, 0.5]
    d["goal"][:] = [60, 60, 0.5]
    push = np.array([[1, 0, 0], [0, -1, 0], [0, 0, 0], [5, 0, 0]])
    for _ in range(60):
        s = env.step(push)
    # where thrust and what slows down are in balance: a = f v + k v^2
    top = (-c.ground_friction + np.sqrt(c.ground_friction**2 + 4 * c.drag * c.thrust)) / (2 * c.drag)
    np.testing.assert_allclose(d["velocity"][[0, 3], 0], top, rtol=0.01)
    np.testing.assert_allclose(d["velocity"][1, 1], -top, rtol=0.01)
    np.testing.assert_allclose(d["stamina"], c.stamina - 3 * c.effort * np.array([1, 1, 0, 1]), atol=1e-3)
    np.testing.assert_allclose(s.obs[:, 6], 2 * d["stamina"] / c.stamina - 1, atol=1e-6)
    env.step(np.zeros((4, 3)))
    assert d["stamina"][0] == pytest.approx(c.stamina - 3 * c.effort + c.recovery * 0.05, abs=1e-3)
    d["stamina"][:] = 0.0
    d["position"][:] = [32, 32, 0.5]
    d["velocity"][:] = 0
    env.step(push)
    tired = d["velocity"][0, 0]
    d["stamina"][:] = 50.0
    d["position"][:] = [32, 32, 0.5]
    d["velocity"][:] = 0
    env.step(push)
    assert d["velocity"][0, 0] == pytest.approx(4 * tired, rel=0.01)


def test_the_creature_jumps_from_the_ground_alone_and_falls():
    env = make("navigation", 2, sim_dt=0.005)
    c = env.cfg
    d = env.data
    d["position"][:] = [32, 32, 0.5]
    d["velocity"][:] = 0
    d["goal"][:] = [60, 60, 0.5]
    heights = []
    for step in range(40):
        env.step(np.array([[0, 0, 1.0], [0, 0, 0]]) * (step in (0, 4)))
        heights.append(d["position"][:, 2].copy())
    heights = np.array(heights)
    assert heights[:, 1].max() == 0.5
    free = c.jump**2 / (2 * c.gravity)
    assert 0.75 * free < heights[:, 0].max() - 0.5 < free  # air slows it, and a jump in the air is none
    assert heights[-1, 0] == 0.5
    d["position"][0, 2] = 15.0
    d["velocity"][0] = [0, 0, -50.0]
    env.step(np.zeros((2, 3)))
    assert -c.terminal <= d["velocity"][0, 2] < -0.98 * c.terminal


def test_walls_stop_and_cost_and_goals_follow_one_another():
    env = make("navigation", 3)
    c = env.cfg
    d = env.data
    d["position"][:] = [[63.4, 32, 0.5], [32, 32, 0.5], [10, 10, 0.5]]
    d["velocity"][:] = [[9, 3, 0], [0, 0, 0], [0, 0, 0]]
    d["goal"][:] = [[32, 32, 0.5], [32, 32.5, 0.5], [10, 14, 0.5]]
    before = d["goal"].copy()
    s = env.step(np.zeros((3, 3)))
    np.testing.assert_allclose(d["position"][0, 0], 63.5)
    assert d["velocity"][0, 0] == 0 and d["velocity"][0, 1] > 2 and d["wall"].tolist() == [1, 0, 0]
    progress = np.linalg.norm(before[0] - [63.4, 32, 0.5]) - np.linalg.norm(before[0] - d["position"][0])
    assert s.reward[0] == pytest.approx(c.progress_reward * progress - c.wall_penalty, abs=1e-4)
    assert s.reward[1] == pytest.approx(c.goal_reward + c.near_reward * (1 - 0.5 / c.near), abs=0.01)
    assert s.reward[2] == pytest.approx(c.near_reward * (1 - 4 / c.near), abs=1e-4)
    assert (
        (d["goal"][1] != before[1]).all()
        and (d["goal"][[0, 2]] == before[[0, 2]]).all()
        and env.tally()["goals"].tolist() == [0, 1, 0]
    )
    np.testing.assert_allclose(s.obs[:, :3], (d["goal"] - d["position"]) / [64, 64, 16], atol=1e-6)
    np.testing.assert_allclose(s.obs[:, 3:6], d["position"] / [32, 32, 8] - 1, atol=1e-6)
    assert np.abs(s.obs).max() <= 1


# Bounce ball


def test_a_ball_on_a_still_paddle_bounces_until_its_hits_are_no_bounces():
    env = make("bounce-ball", 40, reset_place=0.0, reset_speed=0.0, reset_joint=0.0)
    counts = [np.zeros(40)]
    speeds = []
    seen = env.row(A.HITS)
    for _ in range(400):
        s = env.step(np.zeros((40, 6)))
        hits = env.row(A.HITS)
        if (hits > seen).any():
            speeds.append(env.row(A.HIT_SPEED)[hits > seen])
        seen = hits
        counts.append(env.row(B.COUNT))
    assert not s.done.any() and np.concatenate(speeds).min() < env.cfg.least_speed
    # e^k times the first speed, as long as that is enough: sqrt(2 g 0.25) = 2.2 to 2.6 m/s
    best = env.tally()["bounces"]
    assert 3 <= best.min() <= best.max() <= 5
    np.testing.assert_array_equal(best, np.max(counts, axis=0))
    assert (env.row(B.COUNT) == 0).all()


@pytest.mark.parametrize("n", [1, 32, 40])
def test_rows_of_the_arm_s_blocks_are_copies(n):
    env = make("bounce-ball", n)
    one = env.row(A.BALL + 2)
    three = env.rows(A.BALL, 3)
    before = three.copy()
    one[:] = -1.0
    three[:] = -2.0
    np.testing.assert_array_equal(env.rows(A.BALL, 3), before)


def test_bounces_are_rewarded_by_where_how_high_and_how_many():
    env = make("bounce-ball", 32, pose_penalty=0.0, centre_reward=0.0)
    c = env.cfg
    ball = np.tile([0.588, 0, 0.45], (32, 1))
    speed = np.linspace(0.5, 4.0, 32)
    ball[16:, 0] += 0.1
    env.put(A.BALL, ball)
    env.put(A.HIT_SPEED, speed[:, None])
    for count in (0.0, 1.0, 5.0):
        env.put(B.COUNT, np.tile([count, count, 1.0], (32, 1)))
        rise = np.exp(-0.5 * ((0.45 + speed**2 / 19.62 - 0.8) / 0.1) ** 2)
        quick = c.speed_reward * np.minimum(speed, np.sqrt(19.62 * 0.35)) * np.where(np.arange(32) < 16, 1.5, 1.0)
        row = c.row_reward * np.log(1 + count) * (count >= 3)
        np.testing.assert_allclose(env.reward(), (rise + quick + row) * (count > 0), rtol=2e-3, atol=1e-5)
    env.put(B.STRUCK, np.zeros((32, 1)))
    assert not env.reward().any()


def test_the_arm_s_targets_move_with_the_actions_and_the_ball_can_be_lost():
    env = make("bounce-ball", 40)
    before = env.rows(A.TARGET, 6)
    rng = np.random.default_rng(0)
    actions = rng.normal(0, 8, (40, 6)).astype(np.float32)
    s = env.step(actions)
    np.testing.assert_allclose(env.rows(A.TARGET, 6) - before, 8e-4 * np.clip(actions, -10, 10), atol=1e-6)
    np.testing.assert_allclose(s.obs[:, :6], env.rows(A.JOINT, 6) - env.arm.home, atol=1e-6)
    np.testing.assert_allclose(s.obs[:, 6:13], env.rows(A.BALL, 7))
    np.testing.assert_allclose(
        s.info["privileged"][:, :6], 10 * (env.rows(A.TARGET, 6) - env.rows(A.JOINT, 6)), atol=1e-6
    )
    for _ in range(3000):  # all targets far off: cut at the joint ranges
        s = env.step(np.full((40, 6), 10.0))
        if s.done.any():
            break
    assert s.terminated.any() and (env.rows(A.TARGET, 6) <= env.high + 1e-6).all()
    fell = int(np.argmax(s.terminated))
    assert (
        s.info["final_obs"][fell, 8] < 0.06
        and s.obs[fell, 8] > 0.6
        and s.reward[fell] < -1.5
        and env.row(B.BEST)[fell] == 0
    )
    env.put(A.BALL, np.array([[np.nan, 0, 0]]), np.array([3]))
    assert env.step(np.zeros((40, 6))).terminated[3]


@pytest.mark.parametrize("task", ["cartpole", "navigation", "bounce-ball"])
def test_what_is_drawn_lies_where_things_are(task):
    env = make(task)
    for _ in range(5):
        env.step(np.ones((64, env.num_actions)))
    solids = env.solids()
    view = env.view(3)
    assert (
        view["position"].shape == (len(solids), 3)
        and view["quaternion"].shape == (len(solids), 4)
        and len(view["target"]) == 3
    )
    np.testing.assert_allclose(np.linalg.norm(view["quaternion"], axis=1), 1, atol=1e-5)
    rows = dict(env.hud(3))
    assert set(rows) >= {name.replace("_", " ") for name in env.errors()} and all(
        isinstance(text, str) for text in rows.values()
    )
    if task == "bounce-ball":
        np.testing.assert_allclose(view["position"][-1], env.rows(A.BALL, 3)[3], atol=1e-6)
        np.testing.assert_allclose(view["position"][-2], env.rows(A.PADDLE, 3)[3], atol=1e-5)
