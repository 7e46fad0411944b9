"""Knees and trunk on the ground: falls end no deeper than springs allow, as in MuJoCo, and gain no energy."""

import itertools

import mujoco
import numpy as np
import pytest
from oracle import invariants, put, random_state, rotation, twin, velocity

from config import MotorCfg, PhysicsCfg
from physics import PhysicsEngine, load_robot, terrain
from physics.robot import LEGS

# one kernel for all: motors as good as none, robots that may differ and do not
CFG = PhysicsCfg(body_contact=True, motor=MotorCfg(enabled=True, lag=0.0, rated_speed=1e3, no_load_speed=1e4))
POSES = {
    "back": [0.0, 1.0, 0.0, 0.0], "left side": [0.7071, -0.7071, 0, 0], "right side": [0.7071, 0.7071, 0, 0],
    "belly": [1.0, 0, 0, 0], "nose": [0.7, 0.1, 0.7, 0],
}  # fmt: skip


def fallen(robot, n=1, timestep=0.002, cfg=CFG, **arguments):
    return PhysicsEngine(robot, n, timestep, 1, cfg, differ=True, **arguments)


def corners(robot, state):
    """Return (N, 8, 3) the trunk's corners, world frame [m]."""
    signs = np.array(list(itertools.product((-1, 1), repeat=3)))
    return state.base_position[:, None] + np.einsum(
        "nij,kj->nki", rotation(state.base_quaternion), signs * robot.trunk_half_extents
    )


def knees_and_feet(robot, state):
    """Return (N, 8, 3) centres of knees and feet, world frame [m]."""
    model, data = twin(robot, 0.001, body_contact=True)
    rows = []
    for i in range(len(state.base_position)):
        put(data, state, i)
        mujoco.mj_kinematics(model, data)
        rows.append([data.geom(name).xpos.copy() for leg in LEGS for name in (f"{leg}_knee", leg)])
    return np.array(rows)


def depths(robot, state):
    """Return (N, 16) how deep corners, knees and feet are in level ground [m]."""
    radii = np.repeat(robot.foot_radius, 2)
    return np.concatenate([-corners(robot, state)[..., 2], radii - knees_and_feet(robot, state)[..., 2]], 1)


def fold(engine, seconds, joints, kp=30.0, kd=1.0):
    """Hold joints (12) by a PD law."""
    for _ in range(round(seconds / engine.timestep)):
        state = engine.get_state()
        engine.apply_motor_torques(kp * (joints - state.joint_position) - kd * state.joint_velocity)
        engine.step()


@pytest.mark.parametrize("ground", ["flat", "terrain"])
def test_a_fallen_robot_comes_to_rest_under_its_weight(ground):
    robot = load_robot("go1")
    n = len(POSES)
    engine = fallen(robot, n, terrain=terrain.flat(-1.0) if ground == "terrain" else None)
    floor = -1.0 if ground == "terrain" else 0.0
    engine.set_state(
        base_position=np.tile([0, 0, 0.45 + floor], (n, 1)), base_quaternion=np.array(list(POSES.values()))
    )
    folded = np.tile([0.0, 1.6, -2.6], 4)
    fold(engine, 3.0, folded)
    before = invariants(robot, engine.get_state())
    fold(engine, 1.0, folded)
    state = engine.get_state()
    after = invariants(robot, state)
    # nothing moves for a second: the forces on it add up to its weight, and their moments to nothing
    np.testing.assert_allclose(after[0], before[0], atol=2e-3)
    np.testing.assert_allclose(after[1], 0, atol=5e-3)
    np.testing.assert_allclose(after[2], 0, atol=5e-3)
    state.base_position[:, 2] -= floor
    deep = depths(robot, state)
    borne = CFG.contact_stiffness * np.maximum(deep, 0).sum(1)
    np.testing.assert_allclose(borne, robot.total_mass * CFG.gravity, rtol=0.03)
    # those that lie on the trunk, and those that do so without a foot on the ground
    on_trunk = (deep[:, :8] > 0).sum(1)
    assert on_trunk[0] == 4
    assert (on_trunk >= 2).sum() >= 2
    assert (deep.max(1) < robot.total_mass * CFG.gravity / CFG.contact_stiffness).all()
    np.testing.assert_allclose(
        np.maximum(deep[:, 9::2], 0) * CFG.contact_stiffness, np.linalg.norm(state.foot_contact_force, axis=2), atol=3.0
    )


def test_knees_bear_a_robot_that_kneels():
    robot = load_robot("go1")
    engine = fallen(robot)
    # thighs straight down, calves folded up: knees are the lowest points
    kneeling = np.tile([0.0, 0.0, -2.7], 4)
    engine.set_state(base_position=[[0, 0, 0.24]], joint_position=kneeling[None])
    fold(engine, 0.5, kneeling, 100.0, 2.0)
    state = engine.get_state()
    deep = depths(robot, state)[0]
    assert (deep[8::2] > 0).all()  # knees
    assert (deep[9::2] < 0).all()  # feet
    assert (deep[:8] < 0).all()  # corners
    assert CFG.contact_stiffness * deep[8::2].sum() == pytest.approx(robot.total_mass * CFG.gravity, rel=0.03)
    sunk = PhysicsEngine(robot, 1, 0.002, 1)
    sunk.set_state(base_position=[[0, 0, 0.24]], joint_position=kneeling[None])
    fold(sunk, 0.5, kneeling, 100.0, 2.0)
    assert sunk.get_state().base_position[0, 2] < state.base_position[0, 2] - 0.02


@pytest.mark.parametrize(("name", "clearance"), [("go1", 0.004), ("spot", 0.012)])
def test_on_its_back_it_lies_as_high_as_in_mujoco(name, clearance):
    robot = load_robot(name)
    dt = 0.002
    engine = fallen(robot)
    height = robot.trunk_half_extents[2]
    engine.set_state(base_position=[[0, 0, height + 0.02]], base_quaternion=[[0.0, 1.0, 0.0, 0.0]])
    model, data = twin(robot, dt, body_contact=True)
    put(data, engine.get_state(), 0)
    home = robot.home_joints.ravel()
    gain = 60.0 if name == "go1" else 300.0
    fold(engine, 1.5, home, gain, gain / 40)
    for _ in range(round(1.5 / dt)):
        data.ctrl[:] = gain * (home - data.qpos[7:]) - gain / 40 * data.qvel[6:]
        mujoco.mj_step(model, data)
    state = engine.get_state()
    ours = state.base_position[0, 2]
    theirs = data.qpos[2]
    assert ours == pytest.approx(theirs, abs=clearance)
    assert ours == pytest.approx(height, abs=clearance)
    np.testing.assert_allclose(rotation(state.base_quaternion)[0, :, 2], [0, 0, -1], atol=0.05)
    np.testing.assert_allclose(state.joint_position[0], data.qpos[7:], atol=0.03)
    assert np.abs(velocity(state)).max() < 0.05


@pytest.mark.parametrize("tilt", [0.0, 0.1, -0.1])
def test_calves_that_lie_on_edges_bear_the_robot_as_in_mujoco(tilt):
    robot = load_robot("go1")
    dt = 0.002
    cell = 16 / 425
    heights = np.zeros((60, 60))
    ahead = robot.offset[0, 0, 0] + 0.5 * np.linalg.norm(robot.foot_offset[0])  # middle of a front calf
    for crest in (30, 20):  # as far apart as front and rear legs
        heights[:, crest - 1 : crest + 2] = 0.3
    ground = terrain.from_array(heights, cell, (ahead - 30 * cell, -30 * cell))
    engine = fallen(robot, timestep=dt, terrain=ground)
    # thighs straight down, calves level and forward, between their ends a bar
    joints = np.tile([0.0, tilt, -np.pi / 2 - tilt], 4)
    high = 0.3 + np.linalg.norm(robot.offset[0, 2]) + robot.foot_radius[0] + 0.01
    engine.set_state(base_position=[[0, 0, high]], joint_position=joints[None])
    model, data = twin(robot, dt, terrain=ground, body_contact=True)
    put(data, engine.get_state(), 0)
    fold(engine, 1.5, joints, 100.0, 2.0)
    for _ in range(round(1.5 / dt)):
        data.ctrl[:] = 100.0 * (joints - data.qpos[7:]) - 2.0 * data.qvel[6:]
        mujoco.mj_step(model, data)
    state = engine.get_state()
    assert state.base_position[0, 2] == pytest.approx(data.qpos[2], abs=0.005)
    assert state.base_position[0, 2] > high - 0.06  # not on its trunk, 0.19 m lower
    assert np.abs(velocity(state)).max() < 0.05


@pytest.mark.parametrize("timestep", [0.001, 0.0025])
def test_tumbling_gains_no_energy(timestep):
    robot = load_robot("go1")
    n = 32
    cfg = CFG
    engine = fallen(robot, n, timestep)
    state = random_state(robot, n, 2, 0.0, 0.0)
    engine.set_state(**state)
    state["base_position"][:, 2] += depths(robot, engine.get_state()).max(1) + 0.2
    engine.set_state(**state)
    first = invariants(robot, engine.get_state())[3]
    last = first
    touched = np.zeros(16, bool)
    for _ in range(60):
        engine.step(round(0.02 / timestep))
        now = engine.get_state()
        deep = np.maximum(depths(robot, now), 0)
        energy = invariants(robot, now)[3] + 0.5 * cfg.contact_stiffness * (deep**2).sum(1)
        assert (energy < last + 0.01 * robot.total_mass * cfg.gravity * 0.3).all()
        touched |= (deep > 0).any(0)
        last = energy
    assert touched.all()
    assert (last < first - 10).all()
    assert not engine.broken.any()


def test_without_it_the_trunk_falls_through():
    robot = load_robot("go1")
    engine = PhysicsEngine(robot, 1, 0.002, 1)
    engine.set_state(base_position=[[0, 0, 0.3]], base_quaternion=[[0.0, 1.0, 0.0, 0.0]])
    engine.step(300)
    assert engine.get_state().base_position[0, 2] < 0
