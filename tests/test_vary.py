"""Robots that differ: drawn numbers move one as the same change of constants does; they are uniform and its own."""

import dataclasses

import numpy as np
import pytest
from oracle import random_state, velocity

from config import MotorCfg, PhysicsCfg, VaryCfg
from physics import PhysicsEngine, load_robot
from physics import constants as C
from physics import layout as L
from physics.robot import Link

MOTOR = MotorCfg(enabled=True, lag=0.004, delay=0.005, rated_speed=10.0, no_load_speed=40.0)
CFG = PhysicsCfg(body_contact=True, motor=MOTOR, friction_model="coulomb", restitution=0.8, grip_time=0.002)
N = 32
DT = 0.0025
KP = 50.0
KD = 1.0
EVERYTHING = VaryCfg(
    friction=(0.5, 1.2), restitution=(0.3, 1.0), stiffness=(0.5, 2.0), grip_time=(0.0, 0.02), trunk_mass=(0.8, 1.3),
    trunk_shift=0.03, link_mass=(0.7, 1.4), strength=(0.6, 1.1), kp=(0.8, 1.2), kd=(0.5, 1.5), joint_offset=0.05,
    delay=(0.0, 0.01), gravity=(0.9, 1.1),
)  # fmt: skip


def base(engine, row, count=1):
    """Return (N, count) rows of what robots differ in."""
    return engine._lanes(engine.model.varied_blocks, row, count).astype(float)


def leg(engine, row, count=3):
    """Return (N, 4, count) rows of what their legs differ in."""
    return np.stack([base(engine, L.VARIED_BASE_ROWS + i * L.VARIED_LEG_ROWS + row, count) for i in range(4)], 1)


def made(robot=None, cfg=CFG, n=N, threads=1, kp=KP, kd=KD):
    engine = PhysicsEngine(robot or load_robot("go1"), n, DT, threads, cfg, differ=True)
    engine.set_gains(kp, kd)
    engine.vary(VaryCfg())
    return engine


def moved(engine, offset=0.0):
    """Return velocities (N, 18) and joint angles (N, 12) of driven robots that land on feet, knees and trunks."""
    state = random_state(engine.robot, engine.num_envs, 1, height=0.0, speed=0.5)
    state["base_position"][:, 2] = 0.26
    upright = np.arange(engine.num_envs) % 2 == 0
    state["base_quaternion"][upright] = [1.0, 0, 0, 0]
    engine.set_state(**state)
    rng = np.random.default_rng(2)
    engine.put("target", np.tile(engine.robot.home_joints.ravel(), (engine.num_envs, 1)) - offset)
    for _ in range(3):
        engine.apply_motor_torques(rng.uniform(-20, 20, (engine.num_envs, 12)))
        engine.put("target", engine.robot.home_joints.ravel() + 0.3 * rng.normal(size=(engine.num_envs, 12)) - offset)
        engine.step(8)
    assert not engine.broken.any()
    return velocity(engine.get_state()), engine.get_state().joint_position


def assert_same_motion(ours, theirs, neutral):
    """Check that two motions are one but for rounding, which contacts multiply, and another than the neutral one."""
    apart = np.abs(ours[0] - theirs[0]).max(1)
    changed = np.abs(ours[0] - neutral[0]).max(1)
    assert np.median(apart) < 2e-3
    assert np.quantile(apart, 0.9) < 0.05 * np.median(changed) + 5e-3
    assert np.median(changed) > 0.01
    assert np.median(np.abs(ours[1] - theirs[1]).max(1)) < 1e-4


@pytest.fixture(scope="module")
def neutral():
    return moved(made())


def scaled(link, mass=1.0, shift=(0.0, 0.0, 0.0)):
    return Link(link.mass * mass, link.com + shift, link.inertia * mass)


def with_links(robot, mass):
    return dataclasses.replace(robot, links=tuple(tuple(scaled(link, mass) for link in links) for links in robot.links))


GO1 = load_robot("go1")
CHANGES = {
    "friction": ({"friction": (0.4, 0.4)}, {"cfg": dataclasses.replace(CFG, foot_friction=0.32, static_friction=0.36)}),
    "restitution": ({"restitution": (0.5, 0.5)}, {"cfg": dataclasses.replace(CFG, restitution=0.4)}),
    "stiffness": ({"stiffness": (3.0, 3.0)}, {"cfg": dataclasses.replace(CFG, contact_stiffness=6e4)}),
    "grip_time": ({"grip_time": (0.01, 0.01)}, {"cfg": dataclasses.replace(CFG, grip_time=0.012)}),
    "trunk_mass": ({"trunk_mass": (1.5, 1.5)}, {"robot": dataclasses.replace(GO1, base=scaled(GO1.base, 1.5))}),
    "link_mass": ({"link_mass": (0.5, 0.5)}, {"robot": with_links(GO1, 0.5)}),
    "strength": ({"strength": (0.3, 0.3)}, {"robot": dataclasses.replace(GO1, torque_limit=0.3 * GO1.torque_limit)}),
    "kp": ({"kp": (1.5, 1.5)}, {"kp": 1.5 * KP}),
    "kd": ({"kd": (3.0, 3.0)}, {"kd": 3.0 * KD}),
    "delay": (
        {"delay": (0.005, 0.005)}, {"cfg": dataclasses.replace(CFG, motor=dataclasses.replace(MOTOR, delay=0.01))},
    ),
    "gravity": ({"gravity": (0.2, 0.2)}, {"cfg": dataclasses.replace(CFG, gravity=0.2 * 9.81)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_drawn_number_acts_as_the_same_change_of_the_constants(name, neutral):
    ranges, changed = CHANGES[name]
    engine = made()
    engine.vary(VaryCfg(**ranges))
    assert_same_motion(moved(engine), moved(made(**changed)), neutral)


def test_a_shifted_centre_of_mass_acts_as_in_a_robot_made_so(neutral):
    engine = made()
    engine.vary(VaryCfg(trunk_shift=0.08, trunk_mass=(1.3, 1.3)), seed=3)
    ours = moved(engine)
    plain = C.base_constants(GO1).astype(float)
    mass = plain[C.TRUNK]
    shifts = (
        base(engine, L.V_FIRST, 3) - plain[C.BASE_FIRST : C.BASE_FIRST + 3] - 0.3 * plain[C.TRUNK + 1 : C.TRUNK + 4]
    ) / (1.3 * mass)
    assert (np.abs(shifts) <= 0.08 + 1e-6).all()
    assert (shifts.std(0) > 0.02).all()
    others = [], []
    for i, shift in enumerate(shifts):
        made_so = dataclasses.replace(GO1, base=scaled(GO1.base, 1.3, shift))
        theirs = C.base_constants(made_so)
        np.testing.assert_allclose(
            base(engine, L.V_MASS, 10)[i], theirs[C.BASE_MASS : C.BASE_SECOND + 6], rtol=1e-4, atol=1e-6
        )
        if i < 6:
            for values, part in zip(others, moved(made(made_so)), strict=True):
                values.append(part[i])
    six = [slice(0, 6)]
    assert_same_motion([v[:6] for v in ours], [np.array(v) for v in others], [v[tuple(six)] for v in neutral])


def test_a_joint_that_is_measured_wrong_is_driven_wrong(neutral):
    engine = made()
    engine.vary(VaryCfg(joint_offset=0.2), seed=4)
    offset = leg(engine, L.V_OFFSET).reshape(N, 12)
    assert 0.1 < offset.std() < 0.13
    assert_same_motion(moved(engine), moved(made(), offset), neutral)


def test_each_motor_has_its_own_strength():
    engine = made(kp=0.0, kd=0.0)
    engine.vary(VaryCfg(strength=(0.2, 1.0)), seed=5)
    limit = leg(engine, L.V_TORQUE_LIMIT).reshape(N, 12)
    engine.set_state(base_position=np.tile([0, 0, 50.0], (N, 1)))
    engine.apply_motor_torques(np.full((N, 12), 1e3))
    engine.step(3)  # the command arrives with the third
    blocks = engine.model.motor_blocks
    exerted = np.concatenate(
        [engine._lanes(blocks, L.MOTOR_BASE_ROWS + i * L.MOTOR_LEG_ROWS + L.MOTOR, 3) for i in range(4)], 1
    )
    np.testing.assert_allclose(exerted, limit * (1 - np.exp(-DT / MOTOR.lag)), rtol=1e-5)
    assert np.abs(np.corrcoef((limit / GO1.torque_limit.ravel()).T) - np.eye(12)).max() < 0.8


def test_motors_of_different_delay_obey_at_different_times():
    engine = made(kp=0.0, kd=0.0)
    engine.vary(VaryCfg(delay=(0.0, 0.03)), seed=6)
    delay = base(engine, L.V_DELAY)[:, 0]
    engine.set_state(base_position=np.tile([0, 0, 50.0], (N, 1)))
    engine.apply_motor_torques(np.ones((N, 12)))
    arrived = np.full(N, np.inf)
    for step in range(20):
        engine.step()
        moving = engine._lanes(engine.model.motor_blocks, L.MOTOR_BASE_ROWS + L.MOTOR, 1)[:, 0] > 0
        arrived = np.minimum(arrived, np.where(moving, step, np.inf))
    np.testing.assert_array_equal(arrived, np.ceil(delay / DT - 1e-3))


def test_robots_that_differ_in_nothing_are_alike():
    plain = C.base_constants(GO1)
    engine = made()
    np.testing.assert_allclose(
        base(engine, L.V_MASS, 10), np.tile(plain[C.BASE_MASS : C.BASE_SECOND + 6], (N, 1)), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_array_equal(leg(engine, L.V_OFFSET), 0)
    np.testing.assert_array_equal(
        leg(engine, L.V_TORQUE_LIMIT), np.tile(GO1.torque_limit.astype(np.float32), (N, 1, 1))
    )
    for row, value in (
        (L.V_GRAVITY, 9.81), (L.V_STIFFNESS, 2e4), (L.V_RESTITUTION, 0.8), (L.V_KINETIC, 0.8), (L.V_STATIC, 0.1),
        (L.V_KP, 1.0), (L.V_KD, 1.0), (L.V_DELAY, 0.005), (L.V_LINK_MASS, 1.0),
    ):  # fmt: skip
        np.testing.assert_allclose(base(engine, row), value, rtol=1e-6)


def drawn(engine):
    """Return (N, 37) all that was drawn but the trunk's second moments, as shares of the ranges, 0 to 1."""
    plain = C.base_constants(GO1).astype(float)
    mass = plain[C.TRUNK]
    links = base(engine, L.V_LINK_MASS)
    trunk = (base(engine, L.V_MASS) - links * (plain[C.BASE_MASS] - mass)) / mass
    legs = plain[C.BASE_FIRST : C.BASE_FIRST + 3] - plain[C.TRUNK + 1 : C.TRUNK + 4]
    shift = (base(engine, L.V_FIRST, 3) - links * legs) / (trunk * mass) - plain[C.TRUNK + 1 : C.TRUNK + 4] / mass
    e = EVERYTHING
    columns = [
        (base(engine, L.V_KINETIC) / CFG.foot_friction, e.friction),
        (base(engine, L.V_RESTITUTION) / CFG.restitution, e.restitution),
        (base(engine, L.V_STIFFNESS) / CFG.contact_stiffness, e.stiffness),
        (base(engine, L.V_KP), e.kp), (base(engine, L.V_KD), e.kd),
        (base(engine, L.V_DELAY) - MOTOR.delay, e.delay), (base(engine, L.V_GRAVITY) / CFG.gravity, e.gravity),
        (base(engine, L.V_GRIP_TIME) - CFG.grip_time, e.grip_time),
        (links, e.link_mass), (trunk, e.trunk_mass), (shift, (-e.trunk_shift, e.trunk_shift)),
        (leg(engine, L.V_TORQUE_LIMIT).reshape(-1, 12) / GO1.torque_limit.ravel(), e.strength),
        (leg(engine, L.V_OFFSET).reshape(-1, 12), (-e.joint_offset, e.joint_offset)),
    ]  # fmt: skip
    return np.concatenate([(values - low) / (high - low) for values, (low, high) in columns], axis=1)


def test_draws_are_uniform_within_their_ranges_and_independent():
    n = 4000
    engine = made(n=n)
    engine.vary(EVERYTHING, seed=7)
    shares = drawn(engine)
    assert shares.shape == (n, 37)
    assert (shares > -2e-3).all()
    assert (shares < 1 + 2e-3).all()
    np.testing.assert_allclose(shares.mean(0), 0.5, atol=0.025)
    np.testing.assert_allclose(shares.std(0), 1 / np.sqrt(12), rtol=0.04)
    np.testing.assert_allclose(shares.min(0), 0, atol=5e-3)
    np.testing.assert_allclose(shares.max(0), 1, atol=5e-3)
    for share in shares.T:
        np.testing.assert_allclose(np.histogram(share, 5, (0, 1))[0], n / 5, atol=0.12 * n / 5)
    assert np.abs(np.corrcoef(shares.T) - np.eye(37)).max() < 0.08
    # static friction is drawn with kinetic friction
    np.testing.assert_allclose(base(engine, L.V_STATIC) / base(engine, L.V_KINETIC), 0.1 / 0.8, rtol=1e-5)


def test_draws_are_a_robot_s_own():
    many = made(n=100)
    few = made(n=37)
    threaded = made(n=100, threads=2)
    for engine in (many, few, threaded):
        engine.vary(EVERYTHING, seed=8)
    np.testing.assert_array_equal(threaded.model.varied_blocks, many.model.varied_blocks)
    threaded.close()
    for row in range(L.VARIED_ROWS):
        np.testing.assert_array_equal(base(few, row), base(many, row)[:37])
    rows = base(many, 0, L.VARIED_ROWS)
    assert len(np.unique(rows[:, L.V_KINETIC])) == 100
    many.vary(EVERYTHING, seed=9)
    assert not (base(many, 0, L.VARIED_ROWS)[:, L.V_KINETIC] == rows[:, L.V_KINETIC]).any()
    many.vary(EVERYTHING, seed=8)
    np.testing.assert_array_equal(base(many, 0, L.VARIED_ROWS), rows)


def test_cost_of_transport_counts_a_robot_s_own_weight():
    engine = made()
    engine.vary(EVERYTHING, seed=10)
    moved(engine)
    weight = base(engine, L.V_MASS)[:, 0] * base(engine, L.V_GRAVITY)[:, 0]
    assert weight.std() / weight.mean() > 0.05
    np.testing.assert_allclose(engine.cost_of_transport(np.full(N, 2.0)), engine.energy / weight / 2.0, rtol=1e-5)


def test_robots_that_may_not_differ_are_not_varied():
    with pytest.raises(ValueError, match="differ=True"):
        PhysicsEngine(GO1).vary(EVERYTHING)
