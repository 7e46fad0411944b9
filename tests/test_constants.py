"""The kernel's constants: another robot in frames and masses, the same in shape and motion."""

import numpy as np
import pytest
from oracle import ROBOTS
from test_dynamics import odd_robot

from config import MotorCfg, PhysicsCfg
from physics import constants as C
from physics import load_robot
from physics.jit import real


def turn(axis, angle):
    s = np.sin(angle)
    c = np.cos(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) if axis == 0 else np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def given(robot, i, q):
    """Return a leg's foot centre and (mass, first, second moment) about the base origin, by the robot's own numbers."""
    origin = np.zeros(3)
    frame = np.eye(3)
    mass = 0.0
    first = np.zeros(3)
    second = np.zeros((3, 3))
    for j, link in enumerate(robot.links[i]):
        origin = origin + frame @ robot.offset[i, j]
        frame = frame @ turn(min(j, 1), q[j])
        com = origin + frame @ link.com
        spread = frame @ (0.5 * np.trace(link.inertia) * np.eye(3) - link.inertia) @ frame.T
        mass = mass + link.mass
        first = first + link.mass * com
        second = second + spread + link.mass * np.outer(com, com)
    return origin + frame @ robot.foot_offset[i], mass, first, second


def packed(leg, q):
    """Return foot centre and moments (first, second) of a leg that the trunk does not carry, from its constants."""

    def symmetric(xx, xy, xz, yy, yz, zz):
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])

    hip, thigh, calf = (leg[start : start + 7] for start in (C.HIP_LINK, C.THIGH_LINK, C.CALF_LINK))
    moments = [
        (np.array([0, hip[0], hip[1]]), symmetric(0, *hip[2:])),
        *((np.array([x, 0, z]), symmetric(xx, xy, xz, 0, yz, zz)) for x, z, xx, xy, xz, yz, zz in (thigh, calf)),
    ]
    h = turn(0, q[0])
    t = h @ turn(1, q[1] + leg[C.THIGH_TURN])
    k = h @ turn(1, q[1] + q[2] + leg[C.CALF_TURN])
    thigh_at = leg[C.HIP : C.HIP + 3] + h @ [0, 0, leg[C.RISE]]
    knee = thigh_at + t @ [0, 0, -leg[C.THIGH_LENGTH]]
    first = np.zeros(3)
    second = np.zeros((3, 3))
    for origin, frame, (f, s) in zip((leg[C.HIP : C.HIP + 3], thigh_at, knee), (h, t, k), moments, strict=True):
        f = frame @ f
        s = frame @ s @ frame.T
        first = first + f
        second = second + s + np.outer(origin, f) + np.outer(f, origin)
    return knee + k @ [0, leg[C.FOOT_SIDE], -leg[C.CALF_LENGTH]], first, second


@pytest.mark.parametrize("name", [*ROBOTS, "odd"])
def test_feet_and_mass_are_where_they_were_at_any_joint_angles(name):
    robot = odd_robot() if name == "odd" else load_robot(name)
    legs = C.leg_constants(robot).astype(np.float64)
    base = C.base_constants(robot).astype(np.float64)
    rng = np.random.default_rng(0)
    for _ in range(20):
        mass = robot.base.mass
        first = robot.base.mass * robot.base.com
        inertia = robot.base.inertia
        second = (
            0.5 * np.trace(inertia) * np.eye(3) - inertia + robot.base.mass * np.outer(robot.base.com, robot.base.com)
        )
        ours_first = base[C.BASE_FIRST : C.BASE_FIRST + 3].copy()
        xx, xy, xz, yy, yz, zz = base[C.BASE_SECOND : C.BASE_SECOND + 6]
        ours_second = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        for i in range(4):
            q = rng.uniform(-3, 3, 3)
            foot, m, f, s = given(robot, i, q)
            mass = mass + m
            first = first + f
            second = second + s
            ours_foot, f, s = packed(legs[i], q)
            ours_first = ours_first + f
            ours_second = ours_second + s
            np.testing.assert_allclose(ours_foot, foot, atol=2e-6)
        assert base[C.BASE_MASS] == pytest.approx(mass, rel=1e-6)
        np.testing.assert_allclose(ours_first, first, atol=2e-6 * mass)
        np.testing.assert_allclose(ours_second, second, atol=2e-6 * mass)


def test_constants_lie_where_their_names_say():
    robot = load_robot("go1")
    leg = C.leg_constants(robot)[3].astype(np.float64)
    for start, value in (
        (C.HIP, robot.offset[3, 0]), (C.THIGH_LENGTH, [0.213]), (C.CALF_LENGTH, [0.213]), (C.FOOT_SIDE, [-0.08]),
        (C.FOOT_RADIUS, robot.foot_radius[3:]), (C.DAMPING, robot.damping[3]),
        (C.ARMATURE, robot.armature[3]), (C.FRICTION, robot.friction[3]), (C.TORQUE_LIMIT, robot.torque_limit[3]),
        (C.LOW, robot.joint_range[3, :, 0]), (C.HIGH, robot.joint_range[3, :, 1]), (C.HOME, robot.home_joints[3]),
        (C.HOLD, robot.hold_torques()[3]),
    ):  # fmt: skip
        np.testing.assert_allclose(leg[start : start + len(value)], value, rtol=1e-6)
    base = C.base_constants(robot)
    assert base[C.HOME_HEIGHT] == real(robot.home_height)
    np.testing.assert_allclose(base[C.TRUNK_SIZE : C.TRUNK_SIZE + 3], robot.trunk_half_extents, rtol=1e-6)


def test_constants_of_world_and_motors_by_hand():
    motors = C.motor_constants(
        MotorCfg(
            enabled=True, lag=0.01, delay=0.003, rated_speed=20.0, no_load_speed=30.0, efficiency=0.8, stamina=50.0
        ),
        0.004,
    )
    np.testing.assert_allclose(motors, [1 - np.exp(-0.4), 0.003, 30.0, 0.1, 1.25, 50.0, 20.0, 0.3], rtol=1e-6)
    assert C.motor_constants(MotorCfg(lag=0.0), 0.004)[C.LAG] == 1.0
    for model, static, viscous in (("simple", 0.0, 0.0), ("coulomb", 0.1, 0.0), ("coulomb+viscous", 0.1, 0.05)):
        world = C.world_constants(PhysicsCfg(friction_model=model), 0.004)
        np.testing.assert_allclose(world[[C.KINETIC, C.STATIC, C.VISCOUS]], [0.8, static, viscous], atol=1e-6)
