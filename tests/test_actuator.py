"""Motors: lag, delay, torque-speed curve and energy, by hand and against the same motors in NumPy."""

import dataclasses
import warnings

import numpy as np
import pytest
from oracle import ROBOTS, random_state, velocity, without_losses

from config import MotorCfg, PhysicsCfg
from environments.quadruped import torque_ratio
from physics import PhysicsEngine, load_robot
from physics import layout as L
from physics.jit import callable_from_python
from physics.simulation_step import steady

ROTOR = 20.0  # [kg m^2] so heavy that a joint turns by its own torque alone
IDEAL = MotorCfg(enabled=True, lag=0.0, delay=0.0, rated_speed=5e3, no_load_speed=1e4, efficiency=1.0)


def engine_of(motor, n=1, dt=0.002, robot=None, **changes):
    """Return an engine whose kernel other tests have too: knees and trunk touch, robots may differ and do not."""
    cfg = PhysicsCfg(body_contact=True, motor=motor, **changes)
    engine = PhysicsEngine(robot or load_robot("go1"), n, dt, 1, cfg, differ=True)
    engine.set_state(base_position=np.tile([0, 0, 50.0], (n, 1)))
    return engine


def motor_torques(engine):
    """Return (N, 12) what the motors exert [N m]."""
    return np.concatenate(
        [
            engine._lanes(engine.model.motor_blocks, L.MOTOR_BASE_ROWS + leg * L.MOTOR_LEG_ROWS + L.MOTOR, 3)
            for leg in range(4)
        ],
        axis=1,
    )


def rotors():
    robot = without_losses(load_robot("go1"))
    return dataclasses.replace(robot, armature=np.full((4, 3), ROTOR))


def accelerations(engine, steps):
    """Return (steps, N, 12) joint accelerations times ROTOR, step by step: the torques that the joints feel."""
    felt = []
    for _ in range(steps):
        before = engine.get_state().joint_velocity.astype(float)
        engine.step()
        felt.append((engine.get_state().joint_velocity - before) / engine.timestep * ROTOR)
    return np.array(felt)


def test_torque_follows_a_step_with_its_time_constant():
    dt = 0.001
    tau = 0.02
    torque = np.linspace(-8, 8, 12)
    engine = engine_of(dataclasses.replace(IDEAL, lag=tau), 1, dt, rotors(), gravity=0.0)
    engine.apply_motor_torques(torque[None])
    felt = accelerations(engine, 60)[:, 0]
    # the step's end: the torque acts throughout the time step it is found for
    expected = torque * (1 - np.exp(-dt * np.arange(1, 61) / tau))[:, None]
    np.testing.assert_allclose(felt, expected, rtol=0.02, atol=0.02)
    assert felt[19, 11] == pytest.approx(8 * (1 - np.exp(-1)), rel=0.01)
    np.testing.assert_allclose(motor_torques(engine)[0], expected[-1], rtol=1e-5)
    # and down again
    engine.apply_motor_torques(np.zeros((1, 12)))
    engine.step(20)
    np.testing.assert_allclose(motor_torques(engine)[0], expected[-1] * np.exp(-1), rtol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 3, 7])
def test_commands_arrive_after_the_delay(steps):
    dt = 0.0025
    engine = engine_of(dataclasses.replace(IDEAL, delay=steps * dt), 2, dt, gravity=0.0)
    first = np.full((2, 12), 3.0)
    second = np.array([[-2.0], [5.0]]) * np.ones(12)
    exerted = []
    for command in (first, second):
        engine.apply_motor_torques(command)
        for _ in range(10):
            engine.step()
            exerted.append(motor_torques(engine))
    exerted = np.array(exerted)
    np.testing.assert_array_equal(exerted[:steps], 0)
    np.testing.assert_array_equal(exerted[steps : 10 + steps], np.tile(first, (10, 1, 1)))
    np.testing.assert_array_equal(exerted[10 + steps :], np.tile(second, (10 - steps, 1, 1)))
    # step by step or in one call
    again = engine_of(dataclasses.replace(IDEAL, delay=steps * dt), 2, dt, gravity=0.0)
    for command in (first, second):
        again.apply_motor_torques(command)
        again.step(10)
    np.testing.assert_array_equal(again.blocks, engine.blocks)


def test_a_command_within_the_delay_takes_the_last_one_s_place():
    dt = 0.001
    engine = engine_of(dataclasses.replace(IDEAL, delay=0.005), 1, dt, gravity=0.0)
    seen = []
    for command, steps in ((1.0, 8), (2.0, 3), (3.0, 10)):
        engine.apply_motor_torques(np.full((1, 12), command))
        for _ in range(steps):
            engine.step()
            seen.append(motor_torques(engine)[0, 0])
    assert seen == [0.0] * 5 + [1.0] * 11 + [3.0] * 5


def test_targets_arrive_after_the_delay_too():
    dt = 0.001
    home = load_robot("go1").home_joints.ravel()
    engine = engine_of(dataclasses.replace(IDEAL, delay=0.005), 1, dt, rotors(), gravity=0.0)
    exerted = []
    for targets in (home + 0.1, home - 0.05):
        engine.set_joint_targets(targets[None], kp=40.0, kd=0.0)
        for _ in range(8):
            engine.step()
            exerted.append(motor_torques(engine)[0])
    # kp times what is left to go; joints of that inertia hardly move
    np.testing.assert_allclose(exerted[:5], 0, atol=1e-3)
    np.testing.assert_allclose(exerted[5:13], 4.0, atol=0.02)
    np.testing.assert_allclose(exerted[13:], -2.0, atol=0.02)


def test_torque_falls_with_speed_in_the_direction_of_motion():
    robot = rotors()
    limit = robot.torque_limit.ravel()
    speeds = np.array([0.0, 10, 20, 25, 30, 40, -10, -20, -25, -29, -40, 22.5])
    motor = dataclasses.replace(IDEAL, rated_speed=20.0, no_load_speed=30.0)
    ahead = np.array([1, 1, 1, 0.5, 0, 0, 1, 1, 1, 1, 1, 0.75])
    back = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0.5, 0.1, 0, 1])
    felt = []
    for command in (1e3, -1e3, 0.0):
        engine = engine_of(motor, 1, 0.001, robot, gravity=0.0)
        engine.set_state(joint_velocity=speeds[None])
        engine.apply_motor_torques(np.full((1, 12), command))
        felt.append(accelerations(engine, 1)[0, 0])
        if command:
            np.testing.assert_allclose(
                motor_torques(engine)[0], limit * (ahead if command > 0 else -back), rtol=1e-5, atol=1e-5
            )
    np.testing.assert_allclose(felt[0] - felt[2], limit * ahead, rtol=0.02, atol=0.2)
    np.testing.assert_allclose(felt[1] - felt[2], -limit * back, rtol=0.02, atol=0.2)


class Motors:
    """The same motors in NumPy, for one robot."""

    def __init__(self, cfg, limit, dt):
        self.cfg = cfg
        self.limit = limit
        self.dt = dt
        self.torque = np.zeros(12)
        self.energy = 0.0
        self.fatigue = 0.0
        self.commands = [(-1e9, np.zeros(12))]

    def set(self, time, command):
        self.commands.append((time, command))

    def step(self, time, qd):
        cfg = self.cfg
        command = [c for t, c in self.commands if time >= t + cfg.delay - 1e-9][-1]
        span = cfg.no_load_speed - cfg.rated_speed
        limit = self.limit * (cfg.tired_strength if cfg.stamina and self.fatigue >= cfg.stamina else 1.0)
        high = limit * np.clip((cfg.no_load_speed - qd) / span, 0, 1)
        low = -limit * np.clip((cfg.no_load_speed + qd) / span, 0, 1)
        self.torque = self.torque + (1 - np.exp(-self.dt / cfg.lag)) * (np.clip(command, low, high) - self.torque)
        drawn = np.abs(self.torque * qd).sum() * self.dt / cfg.efficiency
        self.energy += drawn
        self.fatigue = np.clip(self.fatigue + drawn - cfg.recovery * self.dt, 0, cfg.stamina)


@pytest.mark.parametrize("stamina", [0.0, 12.0])
def test_motors_and_their_energy_are_those_of_numpy(stamina):
    dt = 0.0025
    cfg = MotorCfg(
        enabled=True, lag=0.008, delay=0.0075, rated_speed=3.0, no_load_speed=15.0, efficiency=0.7, stamina=stamina
    )
    n = 3
    robot = load_robot("go1")
    engine = engine_of(cfg, n, dt, robot)
    engine.set_state(**random_state(robot, n, 1, height=50.0))
    twins = [Motors(cfg, robot.torque_limit.ravel(), dt) for _ in range(n)]
    rng = np.random.default_rng(2)
    step = 0
    for _ in range(12):
        command = rng.uniform(-25, 25, (n, 12)).astype(np.float32)
        engine.apply_motor_torques(command)
        for motors, mine in zip(twins, command, strict=True):
            motors.set(step * dt, mine)
        for _ in range(8):
            qd = engine.get_state().joint_velocity.astype(float)
            engine.step()
            for motors, speed in zip(twins, qd, strict=True):
                motors.step(step * dt, speed)
            step += 1
        np.testing.assert_allclose(motor_torques(engine), [motors.torque for motors in twins], atol=2e-4)
    assert np.abs(qd).max() > 3.0
    energy = np.array([motors.energy for motors in twins])
    assert (energy > 10).all()
    np.testing.assert_allclose(engine.energy, energy, rtol=1e-4)
    if stamina:
        np.testing.assert_allclose(engine.stamina, [1 - motors.fatigue / stamina for motors in twins], atol=1e-4)
        assert engine.stamina.min() < 0.05
    distance = np.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(
        engine.cost_of_transport(distance), energy / (robot.total_mass * 9.81 * distance), rtol=1e-4
    )


def test_cost_of_transport_by_hand():
    engine = engine_of(dataclasses.replace(IDEAL, efficiency=0.5), 1, 0.001, rotors(), gravity=0.0)
    engine.set_state(joint_velocity=np.full((1, 12), 2.0))
    engine.apply_motor_torques(np.full((1, 12), 3.0))
    engine.step(10)
    # 12 motors, 3 N m, 2 rad/s and a little more, half of it lost, for 10 ms
    assert engine.energy[0] == pytest.approx(12 * 3 * 2 / 0.5 * 0.01, rel=0.01)
    heavy = engine_of(dataclasses.replace(IDEAL, efficiency=0.5), 1, 0.001, rotors())
    heavy.set_state(joint_velocity=np.full((1, 12), 2.0))
    heavy.apply_motor_torques(np.full((1, 12), 3.0))
    heavy.step(10)
    weight = load_robot("go1").total_mass * 9.81
    assert heavy.cost_of_transport(np.array([4.0]))[0] == pytest.approx(heavy.energy[0] / (weight * 4.0), rel=1e-5)


def test_a_robot_that_works_tires_and_one_that_rests_recovers():
    # 12 motors at 3 N m and 2 rad/s draw 72 W and get 12 back
    motor = dataclasses.replace(IDEAL, stamina=6.0, recovery=12.0, tired_strength=0.05)
    robot = rotors()
    robot = dataclasses.replace(robot, armature=10 * robot.armature)
    engine = engine_of(motor, 2, 0.001, robot, gravity=0.0)
    engine.set_state(joint_velocity=np.full((2, 12), 2.0))
    engine.apply_motor_torques(np.array([[3.0], [0.0]]) * np.ones(12))
    np.testing.assert_array_equal(engine.stamina, 1)
    engine.step(50)
    np.testing.assert_allclose(engine.stamina, [0.5, 1.0], atol=5e-3)
    np.testing.assert_allclose(motor_torques(engine)[0], 3.0, rtol=1e-5)
    engine.step(60)
    limit = 0.05 * robot.torque_limit.ravel()
    assert (limit < 2.0).all()
    assert engine.stamina[0] == pytest.approx(0.0, abs=1e-3)
    # tired, it draws 30 W: more than it gets back, and no leg has more of it than another
    for _ in range(20):
        engine.step()
        np.testing.assert_allclose(motor_torques(engine)[0], limit, rtol=1e-5)
    engine.apply_motor_torques(np.zeros((2, 12)))
    engine.step(250)
    np.testing.assert_allclose(engine.stamina, [0.5, 1.0], atol=5e-3)
    engine.step(300)
    np.testing.assert_array_equal(engine.stamina, 1)


def test_every_leg_tires_at_once():
    # a tired robot's motors draw less than comes back: now it is strong, now tired, all legs alike
    engine = engine_of(
        dataclasses.replace(IDEAL, stamina=0.2, recovery=40.0, tired_strength=0.01), 1, 0.001, rotors(), gravity=0.0
    )
    engine.set_state(joint_velocity=np.full((1, 12), 2.0))
    engine.apply_motor_torques(np.full((1, 12), 3.0))
    tired = 0
    strong = 0
    for _ in range(60):
        engine.step()
        legs = motor_torques(engine)[0].reshape(4, 3)
        np.testing.assert_array_equal(legs, np.tile(legs[0], (4, 1)))
        tired = tired + (legs[0, 0] < 1)
        strong = strong + (legs[0, 0] > 2)
    assert tired > 10
    assert strong > 10


def test_stamina_needs_motors_with_stamina():
    for motor in (None, IDEAL):
        engine = engine_of(motor) if motor else PhysicsEngine(load_robot("go1"))
        with pytest.raises(ValueError, match="stamina: expected an engine"):
            _ = engine.stamina


def test_energy_needs_motors():
    with pytest.raises(ValueError, match="energy: expected an engine"):
        _ = PhysicsEngine(load_robot("go1")).energy


def test_motors_without_a_flaw_are_none():
    robot = load_robot("go1")
    n = 64
    dt = 0.002
    state = random_state(robot, n, 3, height=4.0)
    # half of them stand: knees and trunks, which touch here and not there, stay up
    standing = np.arange(n) % 2 == 0
    state["base_position"][standing, 2] = robot.home_height
    state["base_quaternion"][standing] = [1.0, 0, 0, 0]
    state["joint_position"][standing] = robot.home_joints.ravel() + 0.1 * np.random.default_rng(5).normal(
        size=(standing.sum(), 12)
    )
    for name in ("base_linear_velocity", "base_angular_velocity", "joint_velocity"):
        state[name][standing] *= 0.1
    rng = np.random.default_rng(4)
    engine = engine_of(IDEAL, n, dt)
    bare = PhysicsEngine(robot, n, dt, 1)
    for e in (engine, bare):
        e.set_state(**state)
    for _ in range(10):
        command = np.where(
            standing[:, None],
            np.tile([0.0, -1.0, 12.0], 4) * rng.uniform(0.7, 1.3, (n, 12)),
            rng.uniform(-30, 30, (n, 12)),
        )
        for e in (engine, bare):
            e.apply_motor_torques(command)
            e.step(4)
    ours = engine.get_state()
    theirs = bare.get_state()
    assert ours.foot_contact_force[standing].any((1, 2)).mean() > 0.8
    np.testing.assert_allclose(velocity(ours), velocity(theirs), rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(ours.joint_position, theirs.joint_position, atol=1e-4)
    np.testing.assert_allclose(ours.foot_contact_force, theirs.foot_contact_force, atol=0.1)


def test_wrong_torques_change_no_command():
    engine = engine_of(dataclasses.replace(IDEAL, delay=0.005), 1, 0.001)
    engine.apply_motor_torques(np.ones((1, 12)))
    engine.step(3)
    before = engine.model.motor_blocks.copy()
    with pytest.raises(ValueError, match="torques: expected finite"):
        engine.apply_motor_torques(np.full((1, 12), np.nan))
    np.testing.assert_array_equal(engine.model.motor_blocks, before)


def light(robot):
    """Return a robot whose calves have a tenth of their inertia, and no motor's beside it."""
    links = []
    for leg in robot.links:
        calf = dataclasses.replace(leg[2], mass=leg[2].mass / 10, com=leg[2].com / 2, inertia=leg[2].inertia / 10)
        links.append((leg[0], leg[1], calf))
    return dataclasses.replace(robot, links=tuple(links), armature=np.zeros((4, 3)))


@pytest.mark.parametrize(("name", "motors"), [*((name, False) for name in (*ROBOTS, "light")), ("light", True)])
def test_a_robot_that_hangs_comes_to_rest(name, motors):
    robot = light(load_robot("go1")) if name == "light" else load_robot(name)
    ratio = torque_ratio(robot)
    if motors:
        engine = engine_of(MotorCfg(enabled=True), 16, 0.004, robot, gravity=0.0)
    else:
        cfg = PhysicsCfg(gravity=0.0, limit_stiffness=300.0, limit_damping=3.0)
        engine = PhysicsEngine(robot, 16, 0.004, 1, cfg)
    random = np.random.default_rng(0)
    place = engine.get_state().base_position + [0.0, 0.0, 5.0]
    engine.set_state(base_position=place, joint_velocity=random.uniform(-0.1, 0.1, (16, 12)))
    engine.set_joint_targets(np.tile(robot.home_joints.ravel(), (16, 1)), 40.0 * ratio, 1.0 * ratio)
    engine.step(1000)
    assert np.abs(engine.get_state().joint_velocity).max() < 1e-3


def test_what_a_law_needs_is_added_only_where_it_is_missing():
    steady_ = callable_from_python(steady)
    for inertia, needed, expected in (
        (0.01, 0.002, 0.01),
        (0.01, 0.0022, 0.01),
        (0.01, 0.0122, 0.01 + 0.01 + 0.0022),
        (0.01, 0.0322, 0.01 + 0.03 + 0.0022),
    ):
        found = steady_((np.float32(inertia), np.float32(needed)))
        assert found == pytest.approx(expected, rel=1e-5)
    for name in ("go1", "go2", "spot"):  # whose numbers stay what they were
        robot = load_robot(name)
        kp, kd = torque_ratio(robot) * np.array([40.0, 1.0])
        needed = 0.004 * (kd / 2 + 0.001 * kp)
        assert min(np.diag(robot.leg_inertia(leg)).min() for leg in range(4)) > needed / 0.22


def test_gains_beyond_what_a_step_allows_are_warned_of():
    engine = PhysicsEngine(load_robot("go1"), 1, 0.004)
    home = load_robot("go1").home_joints.ravel()[None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.set_joint_targets(home, 40.0, 1.0)
    with pytest.warns(UserWarning, match=r"kd 40 N m s/rad: joints may shake at a timestep of more than .* ms"):
        engine.set_joint_targets(home, 40.0, 40.0)
