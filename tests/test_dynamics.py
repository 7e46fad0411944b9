"""The equations of motion against MuJoCo, hand arithmetic and conservation laws."""

import dataclasses
import subprocess
import sys

import mujoco
import numba
import numpy as np
import pytest
from oracle import ROBOTS, ROOT, fresh_environment, invariants, put, random_state, twin, velocity, without_losses

from config import PhysicsCfg
from physics import PhysicsEngine, load_robot, spatial
from physics.jit import real

TOLERANCE = (
    5e-7 if real == np.float64 else 1e-5
)  # MuJoCo 3.4, the last for Python 3.10, turns inertias to their axes less precisely
ROTOR = 200.0  # [kg m^2] so heavy that a joint turns by its own torque alone


def floating(robot, n, timestep=0.001, seed=0, **changes):
    """Return an engine of robots far above the ground in random motion."""
    engine = PhysicsEngine(robot, n, timestep, 1, PhysicsCfg(**changes))
    engine.set_state(**random_state(robot, n, seed, height=6.0))
    return engine


def heavy(robot, **changes):
    return dataclasses.replace(without_losses(robot), armature=np.full((4, 3), ROTOR), **changes)


def joint_acceleration(engine, steps=40):
    before = engine.get_state().joint_velocity.astype(np.float64)
    engine.step(steps)
    return (engine.get_state().joint_velocity - before) / (steps * engine.timestep)


def odd_robot():
    """Return a robot like no other: every joint, foot and centre of mass out of line, every leg another."""
    robot = load_robot("go1")
    rng = np.random.default_rng(7)
    out = {
        field: getattr(robot, field) + rng.uniform(-0.05, 0.05, getattr(robot, field).shape)
        for field in ("offset", "foot_offset")
    }
    links = tuple(
        tuple(
            dataclasses.replace(
                link,
                com=link.com + rng.uniform(-0.03, 0.03, 3),
                inertia=link.inertia + np.diag(rng.uniform(1e-3, 2e-3, 3)),
            )
            for link in leg
        )
        for leg in robot.links
    )
    return dataclasses.replace(robot, links=links, **out)


@pytest.mark.parametrize("name", [*ROBOTS, "odd"])
def test_accelerations_agree_with_mujoco(name):
    n = 48
    dt = 0.001
    robot = without_losses(odd_robot() if name == "odd" else load_robot(name), damping=True)
    engine = floating(robot, n, dt)
    torques = np.random.default_rng(1).uniform(-1, 1, (n, 12)) * robot.torque_limit.ravel()
    engine.apply_motor_torques(torques)
    before = engine.get_state()
    engine.step()
    ours = (velocity(engine.get_state()) - velocity(before)) / dt
    model, data = twin(robot, dt, joint_friction=False)
    for i in range(n):
        put(data, before, i)
        data.ctrl[:] = torques[i]
        mujoco.mj_step(model, data)
        theirs = (data.qvel - velocity(before)[i]) / dt
        assert np.linalg.norm(ours[i] - theirs) < TOLERANCE * np.linalg.norm(theirs)


def test_accelerations_agree_closer_in_double_precision():
    if real == np.float64:
        pytest.skip("this is double precision")
    test = f"{__file__}::test_accelerations_agree_with_mujoco"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test], cwd=ROOT,
        env=fresh_environment(FOAL_REAL="float64"), check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert f"{len(ROBOTS) + 1} passed" in run.stdout


def test_sines_are_accurate():
    sincos = spatial.sincos

    @numba.njit
    def many(x, out):
        for i in range(len(x)):
            out[i] = sincos(x[i])

    x = np.concatenate([np.linspace(-1e4, 1e4, 100001), np.linspace(-4, 4, 100001)]).astype(real)
    out = np.empty((len(x), 2), real)
    many(x, out)
    np.testing.assert_allclose(
        out, np.stack([np.sin(x.astype(np.float64)), np.cos(x.astype(np.float64))], axis=1), atol=1.2e-7
    )


def test_a_robot_at_rest_falls_freely():
    n = 16
    dt = 0.002
    steps = 250
    robot = without_losses(load_robot("go1"))
    engine = PhysicsEngine(robot, n, dt, 1)
    start = random_state(robot, n, 3, height=20.0, speed=0.0)
    engine.set_state(**start)
    engine.step(steps)
    state = engine.get_state()
    np.testing.assert_allclose(state.base_linear_velocity, np.tile([0, 0, -9.81 * steps * dt], (n, 1)), atol=2e-5)
    fallen = start["base_position"] - [0, 0, 9.81 * dt * dt * steps * (steps + 1) / 2]
    np.testing.assert_allclose(state.base_position, fallen, atol=5e-5)
    np.testing.assert_allclose(state.joint_position, start["joint_position"], atol=2e-5)
    np.testing.assert_allclose(state.base_quaternion, start["base_quaternion"], atol=2e-5)


@pytest.mark.parametrize("name", ROBOTS)
def test_free_flight_conserves_momentum_and_energy(name):
    n = 16
    seconds = 0.5
    robot = without_losses(load_robot(name))
    errors = []
    for dt in (0.0005, 0.00025):
        engine = floating(robot, n, dt, gravity=0.0)
        centre, speed, spin, energy = invariants(robot, engine.get_state(), 0.0)
        engine.step(round(seconds / dt))
        centre1, speed1, spin1, energy1 = invariants(robot, engine.get_state(), 0.0)
        norm = np.linalg.norm
        errors.append([
            norm(speed1 - speed) / norm(speed), norm(spin1 - spin) / norm(spin), norm(energy1 - energy) / norm(energy),
            norm(centre1 - centre - seconds * speed) / norm(seconds * speed),
        ])  # fmt: skip
    assert (errors[0] < np.array([3e-3, 1e-2, 5e-3, 2e-3])).all(), errors
    # what is left is the integrator's, of first order
    ratio = np.array(errors[1]) / errors[0]
    assert ((ratio > 0.4) & (ratio < 0.6)).all(), errors


@pytest.mark.parametrize("loss", ["damping", "friction"])
def test_joint_losses_dissipate_energy_not_momentum(loss):
    n = 16
    dt = 0.0005
    robot = without_losses(load_robot("go1"), **{loss: True})
    engine = floating(robot, n, dt, gravity=0.0)
    _, speed, spin, energy = invariants(robot, engine.get_state(), 0.0)
    for _ in range(10):
        engine.step(20)
        _, speed1, spin1, less = invariants(robot, engine.get_state(), 0.0)
        assert (less < energy).all()
        energy = less
    np.testing.assert_allclose(speed1, speed, atol=2e-3)
    np.testing.assert_allclose(spin1, spin, atol=1e-2)


def test_gravity_does_the_work_it_should():
    n = 16
    robot = without_losses(load_robot("go1"))
    engine = floating(robot, n, 0.0005)
    _, speed, spin, energy = invariants(robot, engine.get_state())
    engine.step(600)
    _, speed1, spin1, energy1 = invariants(robot, engine.get_state())
    np.testing.assert_allclose(speed1 - speed, np.tile([0, 0, -9.81 * 0.3], (n, 1)), atol=5e-3)
    np.testing.assert_allclose(spin1, spin, atol=1e-2)
    np.testing.assert_allclose(energy1, energy, rtol=2e-3)


def test_armature_resists():
    robot = heavy(load_robot("go1"))
    engine = PhysicsEngine(robot, 1, 0.001, 1, PhysicsCfg(gravity=0.0))
    engine.set_state(base_position=[[0, 0, 5.0]])
    torques = np.linspace(-20, 20, 12)[None]
    engine.apply_motor_torques(torques)
    np.testing.assert_allclose(joint_acceleration(engine), torques / ROTOR, rtol=3e-3, atol=1e-4)


def test_damping_brakes_in_proportion_and_friction_regardless_of_speed():
    base = load_robot("go1")
    speeds = np.array([4.0, -4.0, 2.0, -2.0, 1.0, -1.0, 4.0, -4.0, 2.0, -2.0, 1.0, -1.0])
    for change, expected in (
        ({"damping": np.full((4, 3), 3.0)}, -3.0 * speeds / ROTOR),
        ({"friction": np.full((4, 3), 6.0)}, -6.0 * np.sign(speeds) / ROTOR),
    ):
        engine = PhysicsEngine(heavy(base, **change), 1, 0.001, 1, PhysicsCfg(gravity=0.0))
        engine.set_state(base_position=[[0, 0, 5.0]], joint_velocity=speeds[None])
        still = PhysicsEngine(heavy(base), 1, 0.001, 1, PhysicsCfg(gravity=0.0))
        still.set_state(base_position=[[0, 0, 5.0]], joint_velocity=speeds[None])
        braked = joint_acceleration(engine) - joint_acceleration(still)
        np.testing.assert_allclose(braked[0], expected, rtol=0.02)


def test_end_stops_push_back_only_beyond_the_range():
    robot = heavy(load_robot("go1"))
    low, high = robot.joint_range.reshape(12, 2).T
    stiffness = 300.0
    beyond = 0.1
    cfg = PhysicsCfg(gravity=0.0, limit_stiffness=stiffness)
    engine = PhysicsEngine(robot, 3, 0.001, 1, cfg)
    engine.set_state(
        base_position=np.tile([0, 0, 5.0], (3, 1)),
        joint_position=np.stack([low - beyond, (low + high) / 2, high + beyond]),
    )
    expected = stiffness * beyond / ROTOR * np.array([[1], [0], [-1]])
    np.testing.assert_allclose(joint_acceleration(engine, 5), np.tile(expected, 12), rtol=0.02, atol=1e-4)


def test_torques_are_cut_at_the_limits():
    robot = load_robot("go1")
    limit = robot.torque_limit.ravel()
    results = []
    for torques in (1e3 * np.ones(12), limit, 0.99 * limit, -1e3 * np.ones(12), -limit):
        engine = PhysicsEngine(robot, 1, 0.001, 1)
        engine.set_state(base_position=[[0, 0, 5.0]])
        engine.apply_motor_torques(torques[None])
        engine.step(5)
        results.append(velocity(engine.get_state()).tobytes())
    assert results[0] == results[1] != results[2]
    assert results[3] == results[4] != results[0]


def test_quaternions_stay_unit():
    engine = PhysicsEngine(load_robot("go1"), 16, 0.0025, 1, PhysicsCfg(gravity=0.0))
    state = random_state(engine.robot, 16, 5, height=50.0, speed=0.0)
    state["base_angular_velocity"] = 4 * np.random.default_rng(6).normal(size=(16, 3))
    engine.set_state(**state)
    for _ in range(20):
        engine.step(200)
        np.testing.assert_allclose(
            np.linalg.norm(engine.get_state().base_quaternion.astype(np.float64), axis=1), 1, atol=5e-7
        )
