"""Terrain under robots: what the kernel reads of it, standing and sliding on it, the same turned, and as in MuJoCo."""

import dataclasses

import numba
import numpy as np
import pytest
from oracle import centre_of_mass, foot_positions, invariants, random_state, rotation, twin, velocity, velocity_after

from config import PhysicsCfg
from physics import PhysicsEngine, contact, load_robot, terrain
from physics import layout as L
from physics.jit import LANES, real

find_patch = contact.find_patch
look_up = contact.look_up
surface = contact.surface


@numba.njit
def read(ground, cells, work, point):
    """Set BIAS's rows to how far the point of every lane is above the ground along the normal, and this, base frame."""
    heights, (whole, _), _ = ground
    for lane in range(LANES):
        find_patch(whole, cells, work, L.PATCH, lane, point)
    look_up(heights, np.uint32(whole[0]), work, L.PATCH)
    for lane in range(LANES):
        gap, n = surface(ground, cells, work, L.PATCH, lane, point)
        work[L.BIAS * LANES + lane] = gap
        work[(L.BIAS + 1) * LANES + lane] = n[0]
        work[(L.BIAS + 2) * LANES + lane] = n[1]
        work[(L.BIAS + 3) * LANES + lane] = n[2]


def seen(field, position, quaternion, point):
    """Return the gap (LANES) and normal (LANES, 3), world frame, that the kernel sees at a point of robots' bases."""
    work = np.zeros((L.WORK_ROWS, LANES), real)
    origin = L.CELL * np.floor(position[:, :2] / L.CELL + 0.5)
    work[L.POSITION : L.POSITION + 2] = (position[:, :2] - origin).T
    work[L.POSITION + 2] = position[:, 2]
    work[L.ORIGIN : L.ORIGIN + 2] = origin.T
    turn = rotation(quaternion)
    work[L.ROTATION : L.ROTATION + 9] = turn.reshape(LANES, 9).T
    packed = field.pack()
    read(packed, real(packed[1][1][terrain.PER_METRE]), work.reshape(-1), tuple(real(p) for p in point))
    return work[L.BIAS].astype(float), np.einsum("nij,nj->ni", turn, work[L.BIAS + 1 : L.BIAS + 4].T)


def stiff(engine, kp=60.0, kd=1.0):
    """Hold the home pose by the kernel's own PD law."""
    engine.set_gains(kp, kd)
    engine.put("target", np.tile(engine.robot.home_joints.ravel(), (engine.num_envs, 1)))


def on(field, robot, x, y, quaternion=None):
    """Return an engine with robots in the home pose whose lowest foot is on the ground at places x, y (N)."""
    n = len(x)
    engine = PhysicsEngine(robot, n, 0.002, 1, terrain=field)
    quaternion = np.tile([1.0, 0, 0, 0], (n, 1)) if quaternion is None else quaternion
    position = np.stack([x, y, np.full(n, 5.0)], 1)
    engine.set_state(base_position=position, base_quaternion=quaternion)
    engine.set_state(base_position=position - [[0, 0, 1]] * clearance(field, robot, engine.get_state()).min(1)[:, None])
    stiff(engine)
    return engine


def clearance(field, robot, state):
    """Return (N, 4) by how much the feet would have to be lower to touch the ground [m]."""
    feet = foot_positions(robot, state)
    x = feet[..., 0]
    y = feet[..., 1]
    return feet[..., 2] - field.height(x, y) - robot.foot_radius / field.normal(x, y)[..., 2]


def about_y(angle):
    return np.array([[np.cos(angle / 2), 0.0, np.sin(angle / 2), 0.0]])


@pytest.mark.parametrize("cell", [0.05, 0.1, 0.16])
@pytest.mark.parametrize("far", [(0.0, 0.0), (16.0, -32.0), (-9984.0, 4000.0), (10000.0, 9600.0)])
def test_the_kernel_sees_the_terrain_from_anywhere(cell, far):
    field = terrain.from_array(terrain.rough(0.3, 0.5, seed=2, size=16.0, cell=cell).heights, cell, np.array(far) - 8.0)
    rng = np.random.default_rng(3)
    near_border = 0
    gaps = []
    for _ in range(8):
        quaternion = rng.normal(size=(LANES, 4))
        point = rng.uniform(-0.5, 0.5, 3).astype(real).astype(float)
        quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
        position = np.concatenate([rng.uniform(-10, 10, (LANES, 2)) + far, rng.uniform(-1, 1, (LANES, 1))], 1)
        position[:4, :2] = far + rng.uniform(-300, 300, (4, 2))
        gap, normal = seen(field, position, quaternion, point)
        x, y, z = (position + np.einsum("nij,j->ni", rotation(quaternion), point)).T
        expected = field.normal(x, y)
        # on a line between cells the normal is one of two
        u, v = (np.abs((a / cell + 0.5) % 1 - 0.5) for a in (x, y))
        inner = np.minimum(u, v) > 1e-4
        np.testing.assert_allclose(normal[inner], expected[inner], atol=2e-5)
        np.testing.assert_allclose((gap / normal[:, 2])[inner], (z - field.height(x, y))[inner], atol=1e-5)
        assert inner.mean() > 0.9
        near_border += (np.abs(np.stack([x, y], 1) - far) > 8).any(1).sum()
        gaps.append(gap)
    assert near_border > 20
    assert np.std(gaps) > 0.1


@pytest.mark.parametrize("row", [L.POSITION, L.POSITION + 1, L.ORIGIN, L.ORIGIN + 1, L.ROTATION])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_no_state_reads_beyond_the_field(row, value):
    field = terrain.rough(0.1, 0.5)
    work = np.zeros((L.WORK_ROWS, LANES), real)
    work[L.ROTATION] = 1
    work[L.ROTATION + 4] = 1
    work[L.ROTATION + 8] = 1
    work[row, 5] = value
    packed = field.pack()
    read(packed, real(10.0), work.reshape(-1), (real(0.1), real(0.0), real(0.0)))
    others = np.arange(LANES) != 5
    np.testing.assert_allclose(work[L.BIAS, others], -field.height(0.1, 0.0) * field.normal(0.1, 0.0)[2], atol=1e-6)


def test_flat_terrain_is_the_flat_floor():
    robot = load_robot("go1")
    n = 64
    state = random_state(robot, n, 0)
    state["base_position"][:, 2] = 0.3
    results = []
    for field in (None, terrain.flat()):
        engine = PhysicsEngine(robot, n, 0.0025, 1, terrain=field)
        engine.set_state(**state)
        touched = np.zeros(n, bool)
        for _ in range(15):
            engine.step(2)
            touched |= (engine.get_state().foot_contact_force[..., 2] > 10).any(1)
        results.append(engine.get_state())
    flat, field = results
    assert touched.mean() > 0.3
    np.testing.assert_allclose(field.base_position, flat.base_position, atol=1e-5)
    np.testing.assert_allclose(field.foot_contact_force, flat.foot_contact_force, rtol=1e-3, atol=0.2)
    np.testing.assert_allclose(velocity(field), velocity(flat), rtol=1e-4, atol=3e-3)


def test_height_is_only_height():
    robot = load_robot("go1")
    n = 32
    state = random_state(robot, n, 1, height=0.35)
    results = []
    for height in (0.0, -3.25):
        engine = PhysicsEngine(robot, n, 0.0025, 1, terrain=terrain.flat(height))
        engine.set_state(**state | {"base_position": state["base_position"] + [0, 0, height]})
        engine.step(30)
        results.append(engine.get_state())
    np.testing.assert_allclose(results[1].base_position - [0, 0, -3.25], results[0].base_position, atol=1e-4)


@pytest.mark.parametrize("direction", [0.0, 2.0])
def test_a_slope_is_a_floor_turned(direction):
    n = 64
    angle = 0.5
    robot = load_robot("go1")
    # weightless, and thrown at it: a slope and a floor are the same problem, seen from frames turned against each other
    cfg = PhysicsCfg(gravity=0.0)
    state = random_state(robot, n, 2, speed=1.5)
    state["base_position"][:, 2] = 0.35
    state["base_linear_velocity"][:, 2] = -2.0
    axis = np.array([np.sin(direction), -np.cos(direction), 0.0])  # uphill turns up
    q = np.array([np.cos(angle / 2), *(np.sin(angle / 2) * axis)])
    turn = rotation(q[None])[0]
    np.testing.assert_allclose(turn @ [0, 0, 1], terrain.slope(angle, direction).normal(0.3, 0.2), atol=1e-6)
    w, x, y, z = q
    product = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    turned = state | {
        "base_position": state["base_position"] @ turn.T,
        "base_quaternion": state["base_quaternion"] @ product.T,
        "base_linear_velocity": state["base_linear_velocity"] @ turn.T,
    }
    level = PhysicsEngine(robot, n, 0.002, 1, cfg)
    inclined = PhysicsEngine(robot, n, 0.002, 1, cfg, terrain.slope(angle, direction))
    level.set_state(**state)
    inclined.set_state(**turned)
    for engine in (level, inclined):
        engine.step(40)
    a = level.get_state()
    b = inclined.get_state()
    assert (np.linalg.norm(a.foot_contact_force, axis=2) > 10).any(1).mean() > 0.2
    np.testing.assert_allclose(b.base_position, a.base_position @ turn.T, atol=1e-4)
    np.testing.assert_allclose(b.base_linear_velocity, a.base_linear_velocity @ turn.T, atol=5e-3)
    np.testing.assert_allclose(b.base_angular_velocity, a.base_angular_velocity, atol=5e-2)
    np.testing.assert_allclose(b.joint_position, a.joint_position, atol=2e-3)


@pytest.mark.parametrize("direction", [0.0, np.pi / 2, 4.0])
def test_it_stands_on_a_slope_and_creeps_as_its_slip_speed_asks(direction):
    angle = 0.3
    cfg = PhysicsCfg()
    robot = load_robot("go1")
    engine = on(terrain.slope(angle, direction), robot, np.zeros(1), np.zeros(1))
    engine.step(3500)  # legs that the landing has set against each other slide apart for seconds
    first = invariants(robot, engine.get_state())[0][0]
    engine.step(500)
    state = engine.get_state()
    creep = invariants(robot, state)[0][0] - first
    downhill = -np.array([np.cos(direction) * np.cos(angle), np.sin(direction) * np.cos(angle), np.sin(angle)])
    # friction reaches what it must bear, tan(angle) / mu of its limit, at this speed: 8 mm/s
    share = np.tan(angle) / cfg.foot_friction
    slow = cfg.slip_speed * share / np.sqrt(1 - share**2)
    assert creep @ downhill == pytest.approx(slow, rel=0.01)
    np.testing.assert_allclose(creep, slow * downhill, atol=2e-4)
    weight = robot.total_mass * cfg.gravity
    np.testing.assert_allclose(state.foot_contact_force[0].sum(0), [0, 0, weight], atol=0.01 * weight)
    assert (state.foot_contact_force[0, :, 2] > 0.03 * weight).all()


def test_it_slides_on_a_steeper_slope_as_a_block_would():
    angle = 0.4
    friction = 0.2
    robot = load_robot("go1")
    field = terrain.slope(angle, 1.0)
    engine = on(field, robot, np.zeros(1), np.zeros(1))
    engine.model.world[5] = friction
    engine.step(150)
    _, start, _, _ = invariants(robot, engine.get_state())
    engine.step(150)
    _, end, _, _ = invariants(robot, engine.get_state())
    gained = np.linalg.norm(end[0]) - np.linalg.norm(start[0])
    assert gained / 0.3 == pytest.approx(9.81 * (np.sin(angle) - friction * np.cos(angle)), rel=0.05)
    assert abs(end[0] @ field.normal(0.0, 0.0)) < 0.05


def test_standing_feet_carry_the_weight_on_rough_ground():
    n = 32
    robot = load_robot("go1")
    field = terrain.rough(0.06, 0.4, seed=5, size=32.0)
    places = np.random.default_rng(6).uniform(-14, 14, (2, n))
    yaw = np.random.default_rng(7).uniform(-np.pi, np.pi, n)
    engine = on(field, robot, *places, np.stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)], 1))
    assert engine.get_state().base_position[:, 2].std() > 0.01
    engine.step(1500)
    state = engine.get_state()
    weight = robot.total_mass * 9.81
    upright = rotation(state.base_quaternion)[:, 2, 2] > 0.9
    assert upright.mean() > 0.9
    quiet = upright & (np.abs(velocity(state)).max(1) < 0.1)
    assert quiet.mean() > 0.8
    np.testing.assert_allclose(
        state.foot_contact_force[quiet].sum(1), np.tile([0, 0, weight], (quiet.sum(), 1)), atol=0.04 * weight
    )
    # feet that bear something are in the ground, as deep as their load asks; the others are not
    force = np.linalg.norm(state.foot_contact_force, axis=2)[quiet]
    deep = -clearance(field, robot, state)[quiet]
    borne = force > 5
    assert borne.mean() > 0.7
    np.testing.assert_allclose(deep[borne], force[borne] / 2e4, atol=1e-3)
    assert (deep[force == 0] < 1e-3).all()


def test_landing_on_a_slope_agrees_with_mujoco():
    n = 32
    dt = 0.0025
    seconds = 0.02
    angle = 0.3
    robot = load_robot("go1")
    field = terrain.slope(0.3, 0.0)
    rng = np.random.default_rng(0)
    turn = rotation(about_y(-angle))[0]
    state = {
        "base_position": np.tile([0.5, 0, 0.5 * np.tan(angle) + robot.home_height], (n, 1)),
        "base_quaternion": np.tile(about_y(-angle), (n, 1)),
        "joint_position": robot.home_joints.ravel() + 0.02 * rng.uniform(-1, 1, (n, 12)),
        "base_linear_velocity": (0.3 * rng.uniform(-1, 1, (n, 3)) + [0, 0, -0.5]) @ turn.T,
        "base_angular_velocity": 0.3 * rng.uniform(-1, 1, (n, 3)),
        "joint_velocity": 0.5 * rng.uniform(-1, 1, (n, 12)),
    }
    engine = PhysicsEngine(robot, n, dt, 1, terrain=field)
    groundless = PhysicsEngine(robot, n, dt, 1)
    engine.set_state(**state)
    state["base_position"][:, 2] -= clearance(field, robot, engine.get_state()).min(1)
    engine.set_state(**state)
    groundless.set_state(**state | {"base_position": state["base_position"] + [0, 0, 1]})
    before = engine.get_state()
    torques = np.tile([0.0, -1.0, 12.0], (n, 4)) * rng.uniform(0.8, 1.2, (n, 12))
    for e in (engine, groundless):
        e.apply_motor_torques(torques)
        e.step(round(seconds / dt))
    model, data = twin(robot, dt, terrain=field)
    theirs = velocity_after(model, data, before, torques, seconds)

    def apart(e):
        return np.sqrt(np.mean((e.get_state().base_linear_velocity - theirs) ** 2))

    assert apart(engine) < 0.04
    assert apart(groundless) > 0.15


@pytest.mark.parametrize("far", [(16.0, -160.0), (-9984.0, 4000.0)])
def test_far_away_the_ground_is_like_here(far):
    robot = load_robot("go1")
    n = 32
    heights = terrain.rough(0.1, 0.5, seed=4, size=32.0).heights
    state = random_state(robot, n, 3, height=0.45)
    state["base_position"][:, :2] *= 14
    results = []
    for place in ((0.0, 0.0), far):
        engine = PhysicsEngine(robot, n, 0.0025, 1, terrain=terrain.from_array(heights, 0.1, np.array(place) - 16.0))
        engine.set_state(**state | {"base_position": state["base_position"] + [*place, 0.0]})
        engine.step(100)
        results.append(engine.get_state())
    a, b = results
    assert a.foot_contact_force.any()
    assert len(np.unique(16 * np.floor(a.base_position[:, :2] / 16 + 0.5), axis=0)) > 4  # cells
    np.testing.assert_allclose(b.base_position - [*far, 0.0], a.base_position, atol=2e-3)
    np.testing.assert_allclose(np.median(np.abs(velocity(b) - velocity(a))), 0, atol=1e-4)


def test_walking_across_cells_of_the_world_changes_no_ground():
    robot = load_robot("go1")
    field = terrain.slope(0.2, 0.7, size=64.0)
    engine = PhysicsEngine(robot, 1, 0.002, 1, PhysicsCfg(foot_friction=0.0), terrain=field)
    engine.set_state(
        base_position=[[7.0, 7.0, field.height(7.0, 7.0) + robot.home_height + 0.05]],
        base_linear_velocity=[[4.0, 3.0, 0.0]],
    )
    stiff(engine)
    low = []
    high = []
    for _ in range(50):
        engine.step(10)
        state = engine.get_state()
        low.append(clearance(field, robot, state).min())
        high.append((centre_of_mass(robot, state)[0] - [0, 0, field.height(*state.base_position[0, :2])])[2])
    assert state.base_position[0, 0] > 9.0
    assert state.base_position[0, 1] > 8.5
    assert min(low) > -0.02
    assert max(high) < 0.6


@pytest.mark.parametrize("wrong", [np.zeros((4, 4)), [[0.0, 1.0], [1.0, 0.0]], "slope", 0.3])
def test_what_is_no_terrain_is_refused(wrong):
    with pytest.raises(TypeError, match="terrain: expected a Terrain"):
        PhysicsEngine(load_robot("go1"), terrain=wrong)


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        ([[0.0, np.nan], [0.0, 0.0]], "heights: expected finite numbers, got nan at row 0, column 1"),
        (np.zeros(5), r"heights: expected a shape \(ny, nx\)"),
    ],
)
def test_heights_that_are_none_are_refused(heights, message):
    with pytest.raises(ValueError, match=message):
        PhysicsEngine(load_robot("go1"), terrain=terrain.from_array(heights, 0.1, (0.0, 0.0)))


def test_patches_of_the_ground_have_a_friction_of_their_own():
    robot = load_robot("go1")
    level = np.zeros((81, 81))
    grip = np.where(np.arange(81) < 40, 0.25, 1.0) * np.ones((81, 1))
    patched = dataclasses.replace(terrain.from_array(level, 0.1), grip=grip)
    start = {
        "base_position": [[-2.0, 0.0, robot.home_height], [2.0, 0.0, robot.home_height]],
        "base_linear_velocity": [[0.0, 0.5, 0.0]] * 2,
    }
    here = PhysicsEngine(robot, 2, 0.002, 1, PhysicsCfg(), terrain=patched)
    here.set_state(**start)
    stiff(here)
    here.step(150)
    there = []
    for share in (0.25, 1.0):
        cfg = PhysicsCfg(
            foot_friction=share * PhysicsCfg().foot_friction, static_friction=share * PhysicsCfg().static_friction
        )
        engine = PhysicsEngine(robot, 2, 0.002, 1, cfg, terrain=terrain.from_array(level, 0.1))
        engine.set_state(**start)
        stiff(engine)
        engine.step(150)
        there.append(engine.get_state().base_position[:, 1])
    slid = here.get_state().base_position[:, 1]
    np.testing.assert_allclose(slid, [there[0][0], there[1][1]], atol=1e-5)
    assert slid[0] > 1.5 * slid[1]
