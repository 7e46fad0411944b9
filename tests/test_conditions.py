"""The balance task with terrain, knees and trunk that touch, motors, robots that differ, sensors that err, at once."""

import dataclasses

import numpy as np
import pytest
from oracle import centre_of_mass, rotation
from test_ground import clearance

from config import NoiseCfg
from environments import registry
from physics import PhysicsEngine
from physics import layout as L
from physics.jit import LANES

# All tests have all of it on, lest each compile a kernel of its own; what a test is not about is next to nothing.
SILENT = {f"noise.{field.name}": 0.0 for field in dataclasses.fields(NoiseCfg)} | {"noise.gravity_bias": 1e-12}
ALIKE = {
    "vary.friction": (1.0, 1.0), "vary.stiffness": (1.0, 1.0), "vary.trunk_mass": (1.0, 1.0), "vary.trunk_shift": 0.0,
    "vary.link_mass": (1.0, 1.0), "vary.strength": (1.0, 1.0), "vary.kp": (1.0, 1.0), "vary.kd": (1.0, 1.0),
    "vary.joint_offset": 0.0, "vary.gravity": (1.0, 1.001),
}  # fmt: skip
FULL = {
    "physics.body_contact": True, "motor.enabled": True, "motor.lag": 0.005, "motor.delay": 0.008, "terrain.levels": 4,
    "terrain.kinds": "rough slope_up slope_down stairs_up stairs_down stones",
}  # fmt: skip
CALM = {
    "push.speed": (0.0, 0.0), "push.spin": 0.0, "reset.joint_position": 0.0, "reset.joint_velocity": 0.0,
    "reset.tilt": 0.0, "reset.velocity": 0.0, "reset.spin": 0.0,
}  # fmt: skip
NEVER_FALL = {"fall_tilt": 3.0, "fall_height": 0.0}
STATE = L.STATE_ROWS * LANES


def make(n, *changes, threads=1):
    """Return an environment with everything on, robots alike and sensors silent but for the changes."""
    merged = {key: value for change in (FULL, SILENT, ALIKE, *changes) for key, value in change.items()}
    return registry.make("quadruped-balance", num_envs=n, env_cfg_override=merged, threads=threads)


def varied(env):
    """Return (N, VARIED_ROWS) what robots differ in."""
    return env.engine._lanes(env.engine.model.varied_blocks, 0, L.VARIED_ROWS)


def above(env, state):
    """Return (N) height of the base above the ground [m]."""
    return state.base_position[:, 2] - env.terrain.height(*state.base_position[:, :2].T)


def lower_corners(env, state):
    """Return the trunk's corners on the side that looks down, (N, 4, 3) in the world [m]."""
    rotations = rotation(state.base_quaternion)
    signs = np.array([[-1, -1, -1], [1, -1, -1], [-1, 1, -1], [1, 1, -1]])
    down = np.where(rotations[:, 2, 2, None, None] < 0, [1.0, 1.0, -1.0], 1.0)
    points = env.robot.trunk_centre + down * signs * env.robot.trunk_half_extents
    return state.base_position[:, None] + points @ rotations.transpose(0, 2, 1)


def test_robots_stand_on_every_tile():
    env = make(24, CALM)
    env.init_state()
    spawns = env.terrain.spawns.reshape(-1, 3)
    assert np.ptp(spawns[:, 2]) > 1.0
    start = env.engine.get_state()
    np.testing.assert_allclose(start.base_position[:, :2], spawns[:, :2], atol=1e-5)
    np.testing.assert_allclose(clearance(env.terrain, env.robot, start).min(1), 0, atol=1e-5)
    for _ in range(100):
        assert not env.step(np.zeros((24, 12))).done.any()
    state = env.engine.get_state()
    weight = env.robot.total_mass * 9.81
    np.testing.assert_allclose(state.foot_contact_force[..., 2].sum(1), weight, rtol=0.02)
    np.testing.assert_allclose(above(env, state), env.robot.home_height, atol=0.05)
    assert (rotation(state.base_quaternion)[:, 2, 2] > 0.98).all()
    assert not env.engine.broken.any()


def test_episodes_start_with_a_foot_on_the_ground_wherever_that_is():
    n = 300
    env = make(n)
    places = np.random.default_rng(1).uniform(-18, 18, (n, 2))
    env.set_spawns(places)
    env.init_state(seed=1)
    state = env.engine.get_state()
    np.testing.assert_allclose(state.base_position[:, :2], places, atol=1e-5)
    ground = env.terrain.height(*places.T)
    assert np.ptp(ground) > 0.8
    assert env.terrain.normal(*places.T)[:, 2].min() < 0.95
    np.testing.assert_allclose(clearance(env.terrain, env.robot, state).min(1), 0, atol=2e-5)


@pytest.mark.parametrize(
    ("height", "axis", "tilt", "falls"),
    [
        (1.0, (1, 0, 0), 0.95, False), (1.0, (0, -1, 0), 1.05, True), (0.165, (0, 0, 1), 0.0, False),
        (0.135, (0, 0, 1), 0.0, True), (0.24, (0, 1, 0), 0.9, False), (0.16, (0, 1, 0), 0.9, True),
    ],
)  # fmt: skip
def test_falls_count_from_the_ground(height, axis, tilt, falls):
    env = make(24, CALM, {"kp": 0.0, "kd": 0.0, "motor.delay": 0.0})
    env.init_state()
    spawns = env.terrain.spawns.reshape(-1, 3)
    assert spawns[:, 2].min() < -0.3
    assert spawns[:, 2].max() > 0.3
    legs_up = np.tile([0.0, np.pi, -1.0], (24, 4))
    quaternion = np.tile([np.cos(tilt / 2), *(np.sin(tilt / 2) * np.array(axis))], (24, 1))
    env.engine.set_state(
        base_position=spawns + [0, 0, height],
        base_quaternion=quaternion,
        joint_position=legs_up,
        base_linear_velocity=np.tile([0, 0, 0.1], (24, 1)),
    )
    state = env.step(np.zeros((24, 12)))
    assert (state.terminated == falls).all()


def test_heights_and_goals_count_from_the_ground():
    n = 200
    env = make(n, NEVER_FALL, {"goal.interval": (0.02, 0.02)})
    env.set_spawns(np.random.default_rng(2).uniform(-18, 18, (n, 2)))
    env.init_state(seed=2)
    for _ in range(3):
        s = env.step(np.zeros((n, 12)))
    running = ~s.done
    state = env.engine.get_state()
    assert running.sum() > 150
    com = centre_of_mass(env.robot, state)
    ground = env.terrain.height(*state.base_position[:, :2].T)
    assert ground.std() > 0.1
    np.testing.assert_allclose(env.field("com")[running, 2], (com[:, 2] - ground)[running], atol=2e-5)
    corners = lower_corners(env, state)
    height = state.base_position[:, 2] - env.terrain.height(corners[..., 0], corners[..., 1]).mean(1)
    np.testing.assert_allclose(
        s.info["privileged"][running, 3], (10 * (height - env.robot.home_height))[running], atol=3e-4
    )
    # a goal is as high above the ground as the centre of mass of a robot that stands, within goal.height
    goal = env.field("goal")
    off = goal[:, 2] - (env.robot.home_height + com[:, 2] - state.base_position[:, 2])
    assert (np.abs(off[running]) < env.cfg.goal.height + 1e-4).all()
    assert off[running].std() > 0.3 * env.cfg.goal.height
    np.testing.assert_allclose(s.obs[running, 36], 5 * (goal[:, 2] - com[:, 2] + ground)[running], atol=3e-4)
    for i in np.flatnonzero(running)[:20]:
        seen = env.view(i)
        assert np.linalg.norm(seen["goal"] - com[i]) == pytest.approx(env.errors()["goal_distance"][i], abs=2e-4)


def test_a_trunk_touches_where_a_corner_does():
    n = 256
    soft = {"physics.contact_stiffness": 100.0, "vary.stiffness": (1.0, 1.0)}  # so that nobody is thrown out again
    env = make(n, CALM, soft, {"push.interval": (100.0, 200.0), "fall_height": 0.0, "fall_tilt": 3.0})
    env.set_spawns(np.random.default_rng(3).uniform(-18, 18, (n, 2)))
    env.init_state(seed=3)
    rng = np.random.default_rng(4)
    state = env.engine.get_state()
    angle = rng.uniform(-0.6, 0.6, (n, 2))
    quaternion = np.stack([np.ones(n), *(angle.T / 2), np.zeros(n)], 1)
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    place = state.base_position.copy()
    place[:, 2] = env.terrain.height(*place[:, :2].T) + rng.uniform(0.0, 0.3, n)
    raised = np.tile([0.0, 3.1, -0.9], (n, 4))  # feet above the trunk
    rest = {"base_linear_velocity": np.zeros((n, 3)), "base_angular_velocity": np.zeros((n, 3))}
    env.engine.set_state(
        base_position=place, base_quaternion=quaternion, joint_position=raised, joint_velocity=0.0 * raised, **rest
    )
    before = lower_corners(env, env.engine.get_state())
    gap = (before[..., 2] - env.terrain.height(before[..., 0], before[..., 1])).min(1)
    ended = env.step(np.zeros((n, 12))).terminated
    sure = np.abs(gap) > 0.03  # what a step may change
    assert 0.2 < (gap < 0)[sure].mean() < 0.8
    np.testing.assert_array_equal(ended[sure], (gap < 0)[sure])


# Sensors


AMOUNTS = {
    "joint_position": (0, 12, 1.0),
    "joint_velocity": (12, 12, 0.05),
    "spin": (31, 3, 0.25),
    "gravity": (28, 3, 1.0),
}  # first column, columns, scale
NOISE = {"noise.joint_position": 0.03, "noise.joint_velocity": 0.8, "noise.spin": 0.2, "noise.gravity": 0.05}


def deviations(env, silent, steps, seed=3, scale=0.3):
    """Return by how much observations (steps, N, 37) of a motion differ from silent sensors', and done (steps, N)."""
    off = [env.init_state(seed).obs - silent.init_state(seed).obs]
    done = [np.zeros(env.num_envs, bool)]
    rng = np.random.default_rng(4)
    for _ in range(steps - 1):
        actions = rng.normal(0, scale, (env.num_envs, 12))
        a = env.step(actions)
        b = silent.step(actions)
        off.append(a.obs - b.obs)
        done.append(a.done.copy())
        # physics and the privileged observation know of no noise
        np.testing.assert_array_equal(env.engine.blocks[:, :STATE], silent.engine.blocks[:, :STATE])
        for name in ("reward", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        np.testing.assert_array_equal(a.info["privileged"], b.info["privileged"])
    return np.array(off), np.array(done)


def test_noise_is_uniform_within_its_bounds_and_new_at_every_step():
    n = 200
    steps = 20
    off, _ = deviations(make(n, NOISE), make(n), steps)
    other = np.ones(37, bool)
    for name, (first, count, scale) in AMOUNTS.items():
        columns = slice(first, first + count)
        limit = NOISE[f"noise.{name}"] * scale
        values = off[..., columns]
        assert (np.abs(values) <= limit * (1 + 1e-3) + 1e-5).all()
        np.testing.assert_allclose(values.std((0, 1)), limit / np.sqrt(3), rtol=0.05)
        np.testing.assert_allclose(values.mean((0, 1)), 0, atol=0.05 * limit)
        assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.03
        other[columns] = False
    np.testing.assert_array_equal(off[..., other], 0)  # contacts and the goal
    noisy = off[..., ~other].reshape(-1, (~other).sum())
    assert np.abs(np.corrcoef(noisy.T) - np.eye(noisy.shape[1])).max() < 0.09


def test_noise_of_one_sensor_touches_no_other():
    off, _ = deviations(make(40, {"noise.spin": 0.3}), make(40), 5)
    assert np.abs(off[..., 31:34]).max() > 0.05
    np.testing.assert_array_equal(np.delete(off, [31, 32, 33], axis=2), 0)


def test_a_bias_lasts_an_episode():
    n = 200
    steps = 24
    short = {"max_episode_seconds": 0.2}
    off, done = deviations(make(n, {"noise.spin_bias": 0.4, "noise.gravity_bias": 0.1}, short), make(n, short), steps)
    np.testing.assert_array_equal(np.delete(off, [28, 29, 30, 31, 32, 33], axis=2), 0)
    assert done[10].sum() + done[20].sum() > n
    for columns, limit in ((slice(28, 31), 0.1), (slice(31, 34), 0.25 * 0.4)):
        bias = off[..., columns]
        change = np.abs(np.diff(bias, axis=0)).max(2)
        assert change[~done[1:]].max() < 1e-6
        assert (change[done[1:]] > 1e-4).mean() > 0.99
        assert (np.abs(bias) < limit * (1 + 1e-5) + 1e-6).all()
        np.testing.assert_allclose(bias[0].std(0), limit / np.sqrt(3), rtol=0.15)


# Robots that differ


def test_what_robots_differ_in_is_drawn_when_an_episode_starts():
    n = 100
    ranges = {
        "vary.friction": (0.5, 1.0),
        "vary.trunk_mass": (0.9, 1.2),
        "vary.joint_offset": 0.05,
        "vary.kp": (0.8, 1.2),
        "vary.delay": (0.0, 0.01),
    }
    env = make(n, ranges)
    env.init_state(seed=5)
    rows = varied(env)
    assert len(np.unique(rows[:, L.V_KINETIC])) == n
    rng = np.random.default_rng(6)
    ends = 0
    for _ in range(40):
        state = env.step(rng.normal(0, 1.5, (n, 12)))
        now = varied(env)
        done = state.done
        np.testing.assert_array_equal(now[~done], rows[~done])
        assert (
            now[done][:, [L.V_KINETIC, L.V_KP, L.V_MASS, L.V_DELAY]]
            != rows[done][:, [L.V_KINETIC, L.V_KP, L.V_MASS, L.V_DELAY]]
        ).all()
        np.testing.assert_array_equal(env.engine.energy[done], 0)
        assert (env.engine.energy[~done] > 0).all()
        rows = now
        ends = ends + done.sum()
    assert 30 < ends < 20 * n
    friction = rows[:, L.V_KINETIC] / 0.8
    kp = rows[:, L.V_KP]
    assert (friction > 0.5 - 1e-6).all()
    assert (friction < 1.0 + 1e-6).all()
    assert friction.std() == pytest.approx(0.5 / np.sqrt(12), rel=0.2)
    assert (np.abs(kp - 1) < 0.2 + 1e-6).all()
    # the same for the same seed
    again = make(n, ranges)
    again.init_state(seed=5)
    env.init_state(seed=5)
    np.testing.assert_array_equal(varied(again), varied(env))
    env.init_state(seed=6)
    assert not (varied(again)[:, L.V_KINETIC] == varied(env)[:, L.V_KINETIC]).any()


def test_an_offset_is_seen_and_obeyed():
    n = 64
    env = make(n, CALM, NEVER_FALL, {"vary.joint_offset": 0.1})
    state = env.init_state(seed=7)
    offset = np.concatenate(
        [varied(env)[:, L.VARIED_BASE_ROWS + i * L.VARIED_LEG_ROWS + L.V_OFFSET :][:, :3] for i in range(4)], 1
    )
    assert offset.std() > 0.04
    np.testing.assert_allclose(state.obs[:, :12], offset, atol=1e-6)
    for _ in range(50):
        state = env.step(np.zeros((n, 12)))
    true = env.engine.get_state().joint_position - env.robot.home_joints.ravel()
    np.testing.assert_allclose(state.obs[:, :12], true + offset, atol=1e-5)
    # the motors bring what is measured to the target, but for what the weight bends
    assert np.corrcoef(true.ravel(), offset.ravel())[0, 1] < -0.5


def test_motors_get_the_targets_late_as_those_of_the_engine_do():
    n = 24
    env = make(n, CALM, NEVER_FALL, {"vary.strength": (0.3, 1.0), "vary.kp": (0.8, 1.2), "vary.delay": (0.0, 0.01)})
    env.init_state(seed=8)
    cfg = env.cfg
    bare = PhysicsEngine(env.robot, n, cfg.sim_dt, 1, cfg.physics, env.terrain, differ=True)
    bare.model.varied_blocks[:] = env.engine.model.varied_blocks
    start = env.engine.get_state()
    bare.set_state(
        **{f.name: getattr(start, f.name) for f in dataclasses.fields(start) if f.name != "foot_contact_force"}
    )
    low, high = env.robot.joint_range.reshape(12, 2).T
    rng = np.random.default_rng(9)
    for _ in range(6):
        actions = rng.normal(0, 0.5, (n, 12)).astype(np.float32)
        assert not env.step(actions).done.any()
        bare.set_joint_targets(
            np.clip(env.robot.home_joints.ravel() + cfg.action_scale * actions, low, high), cfg.kp, cfg.kd
        )
        bare.step(cfg.sim_substeps)
    ours = env.engine.get_state()
    theirs = bare.get_state()
    assert np.abs(ours.joint_position - start.joint_position).max() > 0.2
    assert np.median(np.abs(ours.joint_position - theirs.joint_position)) < 1e-5
    np.testing.assert_allclose(ours.joint_position, theirs.joint_position, atol=5e-3)
    np.testing.assert_allclose(env.engine.energy, bare.energy, rtol=0.01)


# Breaking


@pytest.mark.parametrize(
    "row",
    [L.POSITION, L.POSITION + 2, L.ORIGIN, L.ORIGIN + 1, L.QUATERNION + 1, L.SPIN, L.BASE_ROWS + L.LEG_ROWS + L.JOINT],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_robot_starts_anew_on_the_ground_and_its_neighbours_do_not_notice(row, value):
    noise = NOISE | {"noise.spin_bias": 0.1}
    env = make(40, noise)
    whole = make(40, noise)
    rng = np.random.default_rng(10)
    for e in (env, whole):
        e.init_state(seed=11)
    for _ in range(3):
        actions = rng.normal(0, 0.2, (40, 12))
        for e in (env, whole):
            e.step(actions)
    sick = 35
    env.engine.blocks.reshape(env.engine.num_blocks, -1, LANES)[sick // LANES, row, sick % LANES] = value
    broken = env.step(actions)
    healthy = whole.step(actions)
    assert broken.terminated[sick]
    np.testing.assert_array_equal(env.engine.broken, np.arange(40) == sick)
    state = env.engine.get_state()
    np.testing.assert_allclose(
        state.base_position[sick, :2], env.terrain.spawns.reshape(-1, 3)[sick % 24, :2], atol=1e-5
    )
    assert clearance(env.terrain, env.robot, state)[sick].min() == pytest.approx(0, abs=1e-4)
    others = np.arange(40) != sick
    for _ in range(5):
        for a, b in (
            (broken.obs, healthy.obs),
            (broken.reward, healthy.reward),
            (broken.info["privileged"], healthy.info["privileged"]),
        ):
            assert np.isfinite(a).all()
            np.testing.assert_array_equal(a[others], b[others])
        broken = env.step(actions)
        healthy = whole.step(actions)
    for array in (env.engine.blocks, env.engine.model.motor_blocks, env.engine.model.varied_blocks):
        assert np.isfinite(array).all()


# Bits


def test_any_number_of_threads_and_of_robots_gives_the_same_episodes():
    n = 3 * LANES + 1
    few = 40
    steps = 60
    changes = NOISE | {
        "noise.spin_bias": 0.1,
        "vary.friction": (0.5, 1.2),
        "vary.joint_offset": 0.03,
        "vary.delay": (0.0, 0.008),
        "vary.trunk_shift": 0.02,
    }
    actions = np.random.default_rng(12).normal(0, 1.2, (steps, n, 12)).astype(np.float32)
    records = []
    for count, threads in ((n, 1), (n, 2), (n, 3), (few, 1)):
        env = make(count, changes, threads=threads)
        env.set_spawns(np.random.default_rng(13).uniform(-18, 18, (n, 2))[:count])
        record = [env.init_state(seed=14, staggered=True).obs[:few].tobytes()]
        ends = 0
        for a in actions:
            s = env.step(a[:count])
            record += [x[:few].tobytes() for x in (s.obs, s.reward, s.terminated, s.truncated, s.info["privileged"])]
            ends += s.done.sum()
        records.append(record)
        assert ends > 10
        env.engine.close()
    assert all(record == records[0] for record in records)
