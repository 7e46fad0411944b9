"""Feet on the ground: weight, friction, stiffness, energy, and MuJoCo's opinion of a landing."""

import mujoco
import numpy as np
import pytest
from oracle import ROBOTS, foot_positions, invariants, put, random_state, twin, velocity, without_losses

from config import PhysicsCfg
from physics import PhysicsEngine, load_robot
from physics.robot import LEGS

GAINS = {"go1": (60.0, 1.0), "go2": (60.0, 1.0), "anymal_c": (400.0, 6.0), "spot": (400.0, 6.0)}
STANDING_TORQUES = (0.0, -1.0, 12.0)  # of go1's hip, thigh and calf: a knee that carries more than the weight [N m]


def hold(engine, seconds):
    """Hold the home pose by a PD law computed at every step."""
    home = engine.robot.home_joints.ravel()
    kp, kd = GAINS[engine.robot.name]
    for _ in range(round(seconds / engine.timestep)):
        state = engine.get_state()
        engine.apply_motor_torques(kp * (home - state.joint_position) - kd * state.joint_velocity)
        engine.step()


def depth(robot, state):
    """Return (N, 4) how deep the feet are in the ground [m]."""
    return robot.foot_radius - foot_positions(robot, state)[..., 2]


def on_the_ground(robot, n, seed, speed=1.0, height=0.0):
    """Return a random state of any attitude whose lowest foot is at a height above the ground."""
    state = random_state(robot, n, seed, 0.0, speed)
    engine = PhysicsEngine(robot, n, 0.001, 1)
    engine.set_state(**state)
    state["base_position"][:, 2] += depth(robot, engine.get_state()).max(axis=1) + height
    return state


@pytest.mark.parametrize("name", ROBOTS)
def test_standing_feet_carry_the_weight(name):
    robot = load_robot(name)
    cfg = PhysicsCfg()
    engine = PhysicsEngine(robot, 1, 0.002, 1, cfg)
    hold(engine, 2.5)
    state = engine.get_state()
    force = state.foot_contact_force[0]
    np.testing.assert_allclose(force.sum(0), [0, 0, robot.total_mass * cfg.gravity], atol=0.01 * robot.total_mass * cfg.gravity)
    assert (force[:, 2] > 0.1 * robot.total_mass * cfg.gravity).all()
    assert (np.linalg.norm(force[:, :2], axis=1) < cfg.foot_friction * force[:, 2]).all()
    # a spring's length: by hand 1.6 mm for go1's 125 N on four feet, 5.5 mm for anymal_c's 441 N
    np.testing.assert_allclose(depth(robot, state)[0], force[:, 2] / cfg.contact_stiffness, atol=2e-4)
    assert np.abs(velocity(state)[0]).max() < 0.02
    assert state.base_position[0, 2] > 0.9 * robot.home_height


def test_stance_is_no_deeper_than_the_weight_asks():
    engine = PhysicsEngine(load_robot("go1"), 1, 0.002, 1)
    deepest = 0.0
    for _ in range(20):
        hold(engine, 0.1)
        deepest = max(deepest, depth(engine.robot, engine.get_state()).max())
    assert 0.0005 < deepest < 0.005


@pytest.mark.parametrize("friction", [0.2, 0.3, 0.4])
def test_sliding_decelerates_by_friction(friction):
    seconds = 0.04
    robot = load_robot("go1")
    engine = PhysicsEngine(robot, 4, 0.001, 1, PhysicsCfg(foot_friction=friction))
    hold(engine, 1.5)
    directions = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    engine.set_state(base_linear_velocity=1.2 * directions)
    before = invariants(robot, engine.get_state())[1]
    hold(engine, seconds)
    state = engine.get_state()
    after = invariants(robot, state)[1]
    slowed = -((after - before) * directions).sum(1) / seconds
    np.testing.assert_allclose(slowed, friction * 9.81, rtol=0.25)
    assert slowed.mean() == pytest.approx(friction * 9.81, rel=0.08)
    force = state.foot_contact_force.sum(1)
    np.testing.assert_allclose(np.linalg.norm(force[:, :2], axis=1), friction * force[:, 2], rtol=0.05)


def test_without_friction_nothing_slows():
    robot = load_robot("go1")
    engine = PhysicsEngine(robot, 2, 0.001, 1, PhysicsCfg(foot_friction=0.0))
    engine.set_state(base_linear_velocity=[[1.0, 0, 0], [0, -1.0, 0]])
    before = invariants(robot, engine.get_state())[1]
    hold(engine, 0.3)
    state = engine.get_state()
    np.testing.assert_allclose(invariants(robot, state)[1][:, :2], before[:, :2], atol=0.01)
    assert np.abs(state.foot_contact_force[..., :2]).max() < 1e-3
    assert (state.foot_contact_force[..., 2] >= 0).all()


@pytest.mark.parametrize("stiffness", [2e4, 1e6])
@pytest.mark.parametrize("name", ROBOTS)
def test_stiff_contact_at_long_steps_stays_finite(name, stiffness):
    n = 128
    robot = load_robot(name)
    engine = PhysicsEngine(robot, n, 0.005, 1, PhysicsCfg(contact_stiffness=stiffness))
    engine.set_state(**on_the_ground(robot, n, seed=7, height=0.01))
    rng = np.random.default_rng(8)
    for _ in range(20):
        engine.apply_motor_torques(0.5 * rng.uniform(-1, 1, (n, 12)) * robot.torque_limit.ravel())
        engine.step(10)
        state = engine.get_state()
        assert np.isfinite(velocity(state)).all()
        assert np.abs(velocity(state)).max() < 300
    # and the ground was there: some feet are on it, none deep in it
    assert (state.foot_contact_force[..., 2] > 10).any(axis=1).mean() > 0.1


@pytest.mark.parametrize("name", ["go1", "anymal_c"])
def test_forces_obey_the_law_at_the_end_of_the_step_and_explain_the_motion(name):
    n, dt = 64, 1e-4
    cfg = PhysicsCfg()
    robot = without_losses(load_robot(name))
    engine = PhysicsEngine(robot, n, dt, 1, cfg)
    engine.set_state(**on_the_ground(robot, n, seed=3, speed=2.0, height=-0.003))
    before = engine.get_state()
    engine.step()
    after = engine.get_state()
    model, data = twin(robot, dt, joint_friction=False)
    jacobian, mass, errors = np.zeros((3, 18)), np.zeros((18, 18)), []
    for i in range(n):
        put(data, before, i)
        mujoco.mj_forward(model, data)
        mujoco.mj_fullM(model, data, mass)
        motion = mass @ (velocity(after) - velocity(before))[i] / dt + data.qfrc_bias
        calves = [model.body(f"{leg}_calf").id for leg in LEGS]
        points = [data.geom(leg).xpos - [0, 0, radius] for leg, radius in zip(LEGS, robot.foot_radius, strict=True)]
        arms = [data.xmat[calf].reshape(3, 3).T @ (p - data.xpos[calf]) for calf, p in zip(calves, points, strict=True)]
        pushed, slips = np.zeros(18), []
        for leg, calf in enumerate(calves):
            mujoco.mj_jac(model, data, jacobian, None, points[leg], calf)
            pushed += jacobian.T @ after.foot_contact_force[i, leg]
            slips.append(jacobian @ velocity(before)[i])
        np.testing.assert_allclose(pushed, motion, atol=0.5 + 2e-3 * np.abs(motion).max())
        put(data, after, i)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        for leg, calf in enumerate(calves):
            mujoco.mj_jac(model, data, jacobian, None, data.xpos[calf] + data.xmat[calf].reshape(3, 3) @ arms[leg], calf)
            v0, v1 = slips[leg], jacobian @ velocity(after)[i]
            damping = cfg.contact_damping + 0.5 * cfg.contact_stiffness * dt
            now = max(0.0, -cfg.contact_stiffness * points[leg][2] - damping * v0[2])
            if now == 0.0:
                assert not after.foot_contact_force[i, leg].any()
                continue
            # fn = -k h - (d + k dt / 2) vn and ft = -mu fn0 vt / sqrt(vt0^2 + vs^2), velocities at the end of the step
            grip = cfg.foot_friction * now / np.sqrt(v0[0] ** 2 + v0[1] ** 2 + cfg.slip_speed**2)
            law = [-grip * v1[0], -grip * v1[1], -cfg.contact_stiffness * points[leg][2] - damping * v1[2]]
            errors.append(np.abs(after.foot_contact_force[i, leg] - law).max() / (grip + damping))
    # as if the feet were this much faster or slower [m/s]
    assert len(errors) > n / 3
    assert np.median(errors) < 3e-4
    assert max(errors) < 5e-3


def test_feet_in_the_air_feel_nothing():
    robot = load_robot("go1")
    engine = PhysicsEngine(robot, 32, 0.0025, 1)
    engine.set_state(**on_the_ground(robot, 32, seed=1, speed=0.0, height=0.1))
    engine.step(40)  # 0.1 s: a fall of 5 cm
    assert not engine.get_state().foot_contact_force.any()
    engine.step(60)
    assert engine.get_state().foot_contact_force.any()


@pytest.mark.parametrize("timestep", [0.001, 0.0025])
def test_drop_gains_no_energy(timestep):
    robot, n = load_robot("go1"), 32
    cfg = PhysicsCfg()
    engine = PhysicsEngine(robot, n, timestep, 1, cfg)
    engine.set_state(**on_the_ground(robot, n, seed=2, speed=0.0, height=0.3))
    first = last = invariants(robot, engine.get_state())[3]
    for _ in range(100):
        engine.step(round(0.01 / timestep))
        state = engine.get_state()
        spring = 0.5 * cfg.contact_stiffness * (np.maximum(depth(robot, state), 0) ** 2).sum(1)
        energy = invariants(robot, state)[3] + spring
        assert (energy < last + 0.01 * robot.total_mass * cfg.gravity * 0.3).all()
        last = energy
    assert (last < first - 10).all()


def test_landing_agrees_with_mujoco():
    n, dt, seconds = 32, 0.0025, 0.02
    robot = load_robot("go1")
    rng = np.random.default_rng(0)
    state = {
        "base_position": np.tile([0, 0, robot.home_height], (n, 1)),
        "joint_position": robot.home_joints.ravel() + 0.02 * rng.uniform(-1, 1, (n, 12)),
        "base_linear_velocity": 0.3 * rng.uniform(-1, 1, (n, 3)) + [0, 0, -0.5],
        "base_angular_velocity": 0.3 * rng.uniform(-1, 1, (n, 3)),
        "joint_velocity": 0.5 * rng.uniform(-1, 1, (n, 12)),
    }
    engine, groundless = (PhysicsEngine(robot, n, dt, 1) for _ in range(2))
    engine.set_state(**state)
    state["base_position"][:, 2] += depth(robot, engine.get_state()).max(axis=1)
    engine.set_state(**state)
    groundless.set_state(**state | {"base_position": state["base_position"] + [0, 0, 1]})
    before = engine.get_state()
    torques = np.tile(STANDING_TORQUES, (n, 4)) * rng.uniform(0.8, 1.2, (n, 12))
    for e in (engine, groundless):
        e.apply_motor_torques(torques)
        e.step(round(seconds / dt))
    model, data = twin(robot, dt)
    theirs = []
    for i in range(n):
        mujoco.mj_resetData(model, data)
        put(data, before, i)
        data.ctrl[:] = torques[i]
        for _ in range(round(seconds / dt)):
            mujoco.mj_step(model, data)
        theirs.append(data.qvel[:3].copy())

    def apart(e):
        return np.sqrt(np.mean((e.get_state().base_linear_velocity - theirs) ** 2))

    assert apart(engine) < 0.03
    assert apart(groundless) > 0.15
