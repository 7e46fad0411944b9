"""Robots whose state is not finite, or absurd: back at home, counted, and unnoticed by their neighbours."""

import numpy as np
import pytest
from oracle import foot_positions, random_state, rotation, velocity

from config import MotorCfg, PhysicsCfg
from physics import PhysicsEngine, load_robot, terrain
from physics import layout as L
from physics.jit import LANES

ROBOT = load_robot("go1")
SLOPE = terrain.slope(0.4, 0.7, size=64.0)
CFG = PhysicsCfg(body_contact=True, motor=MotorCfg(enabled=True, delay=0.004))
N = 45
SICK = 37
STATE = {
    "position x": L.POSITION, "position z": L.POSITION + 2, "quaternion w": L.QUATERNION,
    "quaternion z": L.QUATERNION + 3, "velocity": L.VELOCITY + 1, "spin": L.SPIN + 2, "origin": L.ORIGIN,
    "joint": L.BASE_ROWS + 2 * L.LEG_ROWS + L.JOINT + 1,
    "joint speed": L.BASE_ROWS + 3 * L.LEG_ROWS + L.JOINT_SPEED,
}  # fmt: skip
VALUES = (np.nan, np.inf, -np.inf, 1e9, -1e9)  # of an origin, the last two are just far away
GROUNDS = ("flat", "terrain")


def engine_on(ground, threads=1):
    """Return an engine of robots in motion above the ground, of the plain kernel or of the one that does everything."""
    if ground == "flat":
        engine = PhysicsEngine(ROBOT, N, 0.002, threads)
        heights = 0.0
    else:
        engine = PhysicsEngine(ROBOT, N, 0.002, threads, CFG, SLOPE, differ=True)
        heights = None
    state = random_state(ROBOT, N, 1, height=0.0)
    state["base_position"][:, :2] *= 12
    heights = SLOPE.height(*state["base_position"][:, :2].T) if heights is None else heights
    state["base_position"][:, 2] = heights + 0.4
    engine.set_state(**state)
    engine.apply_motor_torques(np.random.default_rng(2).uniform(-5, 5, (N, 12)))
    return engine


def make_sick(engine, row, value):
    engine.blocks.reshape(engine.num_blocks, -1, LANES)[SICK // LANES, row, SICK % LANES] = value


def stands(ground, state, i):
    """Check that a robot is at home, at rest, on the ground."""
    np.testing.assert_array_equal(velocity(state)[i], 0)
    np.testing.assert_array_equal(state.base_quaternion[i], [1, 0, 0, 0])
    np.testing.assert_allclose(state.joint_position[i], ROBOT.home_joints.ravel(), rtol=1e-6)
    feet = foot_positions(ROBOT, state)[i]
    if ground == "flat":
        assert state.base_position[i, 2] == np.float32(ROBOT.home_height)
        return
    above = feet[:, 2] - SLOPE.height(*feet[:, :2].T) - ROBOT.foot_radius / SLOPE.normal(*feet[:, :2].T)[:, 2]
    # at home on the flat floor feet are this far above it
    at_home = foot_positions(ROBOT, PhysicsEngine(ROBOT).get_state())[0, :, 2] - ROBOT.foot_radius
    assert above.min() == pytest.approx(at_home.min(), abs=5e-3)


@pytest.mark.parametrize(
    ("row", "value"), [(row, value) for row in STATE for value in VALUES if row != "origin" or not np.isfinite(value)]
)
@pytest.mark.parametrize("ground", GROUNDS)
def test_a_broken_robot_stands_at_home_and_its_neighbours_do_not_notice(ground, row, value):
    engine = engine_on(ground)
    whole = engine_on(ground)
    for e in (engine, whole):
        e.step(3)
    make_sick(engine, STATE[row], value)
    torques = engine.get("torque").copy()
    for e in (engine, whole):
        e.step(2)
    state = engine.get_state()
    healthy = whole.get_state()
    np.testing.assert_array_equal(engine.broken, np.arange(N) == SICK)
    stands(ground, state, SICK)
    np.testing.assert_array_equal(state.foot_contact_force[SICK], 0)
    np.testing.assert_array_equal(engine.get("torque"), torques)
    if row in ("velocity", "joint"):
        assert np.abs(state.base_position[SICK, :2] - healthy.base_position[SICK, :2]).max() <= 8.1  # in its cell
    others = np.arange(N) != SICK
    for name in (
        "base_position", "base_quaternion", "joint_position",
        "base_linear_velocity", "base_angular_velocity", "joint_velocity", "foot_contact_force",
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(state, name)[others], getattr(healthy, name)[others])
    assert np.isfinite(engine.blocks).all()
    # and so it goes on
    for e in (engine, whole):
        e.step(20)
    np.testing.assert_array_equal(engine.broken, np.arange(N) == SICK)
    np.testing.assert_array_equal(velocity(engine.get_state())[others], velocity(whole.get_state())[others])
    later = engine.get_state()
    assert np.abs(later.base_position[SICK] - state.base_position[SICK]).max() < 0.05
    assert np.abs(velocity(later)[SICK]).max() < 12


def test_far_robots_stay_where_they_are_when_a_neighbour_breaks():
    engine = PhysicsEngine(ROBOT, 4, 0.002, 1)
    place = np.array([[0, 0, 1.0], [3.2e6, 0, 1.0], [0, -1.6e6, 1.0], [5, 5, 1.0]])
    engine.set_state(base_position=place)
    engine.blocks[0, L.VELOCITY * LANES] = np.nan
    engine.step()
    np.testing.assert_array_equal(engine.broken, [1, 0, 0, 0])
    np.testing.assert_allclose(engine.get_state().base_position[1:, :2], place[1:, :2], atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_broken_motors_are_made_whole(value):
    engine = engine_on("terrain")
    engine.step(3)
    blocks = engine.model.motor_blocks.reshape(engine.num_blocks, -1, LANES)
    blocks[SICK // LANES, L.MOTOR_BASE_ROWS + L.MOTOR_LEG_ROWS + L.MOTOR, SICK % LANES] = value
    engine.step(1)
    assert engine.broken[SICK] == (1 if not np.isfinite(value) or engine.broken[SICK] else 0)
    engine.step(40)
    assert np.isfinite(engine.model.motor_blocks).all()
    assert np.isfinite(engine.blocks).all()
    assert engine.broken.sum() <= 1


def test_every_break_is_counted_and_energy_starts_anew():
    engine = engine_on("terrain")
    engine.step(20)
    assert engine.energy[SICK] > 0
    for count in (1, 2, 3):
        make_sick(engine, L.SPIN, np.nan)
        engine.step()
        assert engine.broken[SICK] == count
        assert engine.energy[SICK] == 0
    assert engine.broken.sum() == 3
    assert (np.delete(engine.energy, SICK) > 0).all()


@pytest.mark.parametrize("ground", GROUNDS)
def test_all_broken_at_once(ground):
    engine = engine_on(ground, threads=2)
    view = engine.blocks.reshape(engine.num_blocks, -1, LANES)
    view[:, : L.BROKEN] = np.nan
    for leg in range(4):
        first = L.BASE_ROWS + leg * L.LEG_ROWS
        view[:, first : first + L.TORQUE] = np.nan
    engine.step(5)
    state = engine.get_state()
    np.testing.assert_array_equal(engine.broken, 1)
    for i in range(N):
        stands(ground, state, i)
    np.testing.assert_allclose(rotation(state.base_quaternion), np.tile(np.eye(3), (N, 1, 1)))
    np.testing.assert_array_equal(state.base_position[:, :2], 0)
    engine.close()
