"""The law of contact by itself; feet on the ground: weight, friction, stiffness, energy, and landings in MuJoCo."""

import itertools

import mujoco
import numba
import numpy as np
import pytest
from oracle import ROBOTS, foot_positions, invariants, put, random_state, twin, velocity, velocity_after, without_losses

from config import MotorCfg, PhysicsCfg
from physics import PhysicsEngine, contact, load_robot, terrain
from physics.robot import LEGS

GAINS = {"go1": (60.0, 1.0), "go2": (60.0, 1.0), "anymal_c": (400.0, 6.0), "spot": (400.0, 6.0)}
LAW = {
    "stiffness": 2e4, "damping": 100.0, "restitution": 1.0, "kinetic": 0.6, "static": 0.3, "stribeck": 0.1,
    "viscous": 20.0, "slip": 0.02, "grip": 0.0,
}  # fmt: skip
contact_force = contact.contact_force
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


@numba.njit
def forces(gap, normal, v, law, dt, out):
    """Set out (N, 5) to force, alpha and beta of contacts."""
    for i in range(len(gap)):
        f, alpha, beta = contact_force(
            gap[i], (normal[i, 0], normal[i, 1], normal[i, 2]), (v[i, 0], v[i, 1], v[i, 2]), law, dt
        )
        out[i] = f[0], f[1], f[2], alpha, beta


@numba.njit
def bounce(mass, speed, law, dt):
    """Return the speed at which a point mass without weight comes back from level ground."""
    z = 0.5 * speed * dt
    v = -speed
    while z <= 0.0 or v <= 0.0:
        f, alpha, beta = contact_force(z, (0.0, 0.0, 1.0), (0.0, 0.0, v), law, dt)
        v += dt * f[2] / (mass + alpha + beta)
        z += dt * v
    return v


def law(**changes):
    return tuple((LAW | changes).values())


def contacts(gap, normal, v, dt=1e-3, **changes):
    """Return force (N, 3), alpha and beta (N) of contacts whose arguments broadcast."""
    n = max(np.size(gap), len(normal), len(v))
    out = np.zeros((n, 5))
    forces(
        np.full(n, gap) if np.ndim(gap) == 0 else gap,
        np.broadcast_to(normal, (n, 3)).copy(),
        np.broadcast_to(v, (n, 3)).copy(),
        law(**changes),
        dt,
        out,
    )
    return out[:, :3], out[:, 3], out[:, 4]


def directions(n, seed=0):
    v = np.random.default_rng(seed).normal(size=(n, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def split(v, normal):
    """Return the part of vectors along normals (N) and across them (N, 3)."""
    along = (v * normal).sum(1)
    return along, v - along[:, None] * normal


UP = np.array([[0.0, 0.0, 1.0]])
MODELS = {"simple": {"static": 0.0, "viscous": 0.0}, "coulomb": {"viscous": 0.0}, "coulomb+viscous": {}}


@pytest.mark.parametrize("restitution", [0.3, 0.5, 0.8, 1.0])
def test_a_bounce_gives_back_the_restitution(restitution):
    k = LAW["stiffness"]
    for mass in (1.0, 3.2, 12.0):
        for speed in (1.0, 3.0):
            given_back = bounce(mass, speed, law(damping=0.0, restitution=restitution), 1e-6) / speed
            # what is more is the rounding of the turning point, at speeds of the order of the slip speed
            assert restitution - 1e-3 < given_back < restitution + 0.008 / speed
            dt = 2.5e-3
            short = 1 - bounce(mass, speed, law(damping=0.0, restitution=restitution), dt) / speed / restitution
            assert short == pytest.approx(np.pi / 8 * (1 + 1 / restitution) * np.sqrt(k / mass) * dt, rel=0.5)


def test_nothing_bounces_without_restitution_or_with_much_damping():
    assert bounce(3.2, 3.0, law(damping=0.0, restitution=0.0), 1e-6) < 0.07 * 3.0
    critical = 2 * np.sqrt(LAW["stiffness"] * 3.2)
    assert bounce(3.2, 1.0, law(damping=critical), 1e-5) < 0.15
    assert bounce(3.2, 1.0, law(damping=0.2 * critical), 1e-5) == pytest.approx(
        np.exp(-0.2 * np.pi / np.sqrt(1 - 0.04)), rel=0.2
    )


@pytest.mark.parametrize("model", MODELS)
def test_the_force_of_the_instant_is_the_documented_one(model):
    n = 2000
    dt = 1e-3
    rng = np.random.default_rng(1)
    gap = rng.uniform(-0.01, 0.005, n)
    normal = directions(n, 2)
    v = directions(n, 3) * 10 ** rng.uniform(-3, 1, (n, 1))
    p = LAW | MODELS[model] | {"restitution": 0.6}
    f, alpha, beta = contacts(gap, normal, v, dt, **p)
    vn, vt = split(v, normal)
    speed2 = (vt**2).sum(1)
    loss = (1 - p["restitution"] ** 2) / 2
    depth = np.maximum(-gap, 0)
    cn = p["damping"] + p["stiffness"] * dt / 2 + loss * p["stiffness"] * depth / np.sqrt(vn**2 + p["slip"] ** 2)
    fn = np.maximum(-p["stiffness"] * gap - loss * p["stiffness"] * depth - cn * vn, 0)
    mu = p["kinetic"] + p["static"] * p["stribeck"] ** 2 / (p["stribeck"] ** 2 + speed2)
    grip = fn / np.sqrt(speed2 + p["slip"] ** 2)
    ct = np.minimum(mu * grip + p["viscous"], (p["kinetic"] + p["static"]) * grip)
    np.testing.assert_allclose(f, fn[:, None] * normal - ct[:, None] * vt, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(alpha, dt * ct, rtol=1e-6)
    np.testing.assert_allclose(alpha + beta, dt * cn * (fn > 0), rtol=1e-6, atol=1e-12)
    assert 0.3 < (fn > 0).mean() < 0.9
    # no model and no direction leaves the cone, nor does anything pull
    along, across = split(f, normal)
    assert (along >= -1e-9).all()
    assert (np.linalg.norm(across, axis=1) <= (p["kinetic"] + p["static"]) * along + 1e-9).all()


@numba.njit
def pushed(mass, speed, push, law, dt, steps):
    """Return the speed of a loaded point mass along level ground after every step, (steps)."""
    found = np.empty(steps)
    for k in range(steps):
        f, alpha, _ = contact_force(-1e-3, (0.0, 0.0, 1.0), (speed, 0.0, 0.0), law, dt)
        speed += dt * (f[0] + push) / (mass + alpha)
        found[k] = speed
    return found


def test_grip_takes_a_slip_away_in_its_time_and_bears_what_pushes():
    dt = 1e-3
    mass = 0.2
    load = LAW["stiffness"] * 1e-3
    slow = {"grip": 0.02, "static": 0.0, "viscous": 0.0}
    slip = pushed(mass, 0.1, 0.0, law(**slow), dt, 40)
    np.testing.assert_allclose(slip[[19, 39]], 0.1 * np.exp([-1.0, -2.0]), rtol=0.1)
    # much faster than what it could hold within its time it meets all friction
    (fast,) = pushed(mass, 60.0, 0.0, law(**slow), dt, 1)
    np.testing.assert_allclose(60.0 - fast, LAW["kinetic"] * load / mass * dt, rtol=0.05)
    # and under half of what friction bears it creeps as without
    for grip in (0.0, 0.02):
        speed = pushed(mass, 0.0, 0.5 * LAW["kinetic"] * load, law(**slow | {"grip": grip}), dt, 400)
        np.testing.assert_allclose(speed[-1], LAW["slip"] * 0.5 / np.sqrt(0.75), rtol=1e-3)


def test_a_robot_stands_on_a_slope_however_slowly_feet_grip():
    robot = load_robot("go1")
    angle = np.radians(20.0)
    slope = terrain.slope(angle)
    rise = slope.height(0.0, 0.0)
    crept = []
    for grip in (0.0, 0.03):
        engine = PhysicsEngine(robot, 1, 0.002, 1, PhysicsCfg(grip_time=grip), terrain=slope)
        engine.set_state(
            base_position=[[0.0, 0.0, rise + robot.home_height / np.cos(angle)]],
            base_quaternion=[[np.cos(angle / 2), 0.0, -np.sin(angle / 2), 0.0]],
        )
        engine.set_joint_targets(robot.home_joints.reshape(1, 12), 200.0, 5.0)
        engine.step(150)
        before = engine.get_state().base_position[0, 0]
        engine.step(250)
        crept.append(engine.get_state().base_position[0, 0] - before)
    assert max(np.abs(crept)) < 0.01
    np.testing.assert_allclose(crept[1], crept[0], atol=0.002)


def test_friction_is_the_same_in_every_direction_of_any_plane():
    n = 500
    normal = directions(500, 4)
    tangent = np.cross(normal, directions(n, 5))
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    f, _, _ = contacts(-0.005, normal, 0.07 * tangent)
    along, across = split(f, normal)
    np.testing.assert_allclose(along, 100.0, rtol=1e-9)
    np.testing.assert_allclose(across, np.linalg.norm(across[0]) * -tangent, atol=1e-6)


def test_friction_is_static_at_low_speed_kinetic_at_high_and_halfway_at_the_stribeck_speed():
    speeds = np.array([[0.003], [0.1], [0.2], [30.0]])
    f, _, _ = contacts(-0.005, UP, speeds * [[0.6, -0.8, 0]], slip=1e-5, viscous=0.0)
    np.testing.assert_allclose(np.linalg.norm(f[:, :2], axis=1) / f[:, 2], [0.9, 0.75, 0.66, 0.6], rtol=1e-3)
    simple, _, _ = contacts(-0.005, UP, speeds * [[0.6, -0.8, 0]], slip=1e-5, static=0.0, viscous=0.0)
    np.testing.assert_allclose(np.linalg.norm(simple[:, :2], axis=1) / simple[:, 2], 0.6, rtol=1e-5)
    # 70 % of the limit at the slip speed
    at_slip, _, _ = contacts(-0.005, UP, [[0.02, 0, 0]], static=0.0, viscous=0.0)
    assert -at_slip[0, 0] / at_slip[0, 2] == pytest.approx(0.6 / np.sqrt(2))


def test_viscous_friction_adds_in_proportion_to_speed_up_to_the_cone():
    speeds = np.array([0.5, 1.0, 1.25, 2.0, 20.0])
    drag, _, _ = contacts(-0.005, UP, speeds[:, None] * [[1, 0, 0]])
    dry, _, _ = contacts(-0.005, UP, speeds[:, None] * [[1, 0, 0]], viscous=0.0)
    more = (dry - drag)[:, 0]
    np.testing.assert_allclose(more[:3], 20.0 * speeds[:3], rtol=1e-6)
    # 100 N of weight and the static coefficient of 0.9 are all there is
    np.testing.assert_allclose(-drag[3:, 0], 90.0, rtol=1e-3)


@pytest.mark.parametrize("name", ROBOTS)
def test_standing_feet_carry_the_weight(name):
    robot = load_robot(name)
    cfg = PhysicsCfg()
    engine = PhysicsEngine(robot, 1, 0.002, 1, cfg)
    hold(engine, 2.5)
    state = engine.get_state()
    force = state.foot_contact_force[0]
    np.testing.assert_allclose(
        force.sum(0), [0, 0, robot.total_mass * cfg.gravity], atol=0.01 * robot.total_mass * cfg.gravity
    )
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


GROUNDS = {
    "flat": ({}, {}),
    "terrain": ({"terrain": terrain.rough(0.15, 0.4, seed=1)}, {"friction_model": "coulomb", "restitution": 0.7}),
    "everything": (
        {"terrain": terrain.rough(0.15, 0.4, seed=1), "differ": True},
        {
            "friction_model": "coulomb+viscous", "viscous_friction": 30.0, "body_contact": True,
            "motor": MotorCfg(enabled=True),
        },
    ),
}  # fmt: skip


def law_at_the_end(cfg, dt, gap, normal, v0, v1):
    """Return a contact's force at the end of a step, and how much of it a m/s changes; None without contact.

    v0, v1: its speed before and after the step.
    """
    static = 0 if cfg.friction_model == "simple" else cfg.static_friction - cfg.foot_friction
    viscous = cfg.viscous_friction if cfg.friction_model == "coulomb+viscous" else 0
    vn = v0 @ normal
    depth = max(-gap, 0.0)
    speed2 = v0 @ v0 - vn**2
    lost = (1 - cfg.restitution**2) / 2 * cfg.contact_stiffness * depth
    cn = cfg.contact_damping + 0.5 * cfg.contact_stiffness * dt + lost / np.hypot(vn, cfg.slip_speed)
    now = -cfg.contact_stiffness * gap - lost - cn * vn
    if now <= 0:
        return None
    grip = now / np.sqrt(speed2 + cfg.slip_speed**2)
    mu = cfg.foot_friction + static * cfg.stribeck_speed**2 / (cfg.stribeck_speed**2 + speed2)
    ct = min(mu * grip + viscous, (cfg.foot_friction + static) * grip)
    end = v1 @ normal
    return (-cfg.contact_stiffness * gap - lost - cn * end) * normal - ct * (v1 - end * normal), ct + cn


@pytest.mark.parametrize(
    ("name", "ground"),
    [("go1", "flat"), ("anymal_c", "flat"), ("spot", "terrain"), ("go1", "everything"), ("anymal_c", "everything")],
)
def test_forces_obey_the_law_at_the_end_of_the_step_and_explain_the_motion(name, ground):
    n = 64
    dt = 1e-4
    arguments, changes = GROUNDS[ground]
    cfg = PhysicsCfg(**changes)
    field = arguments.get("terrain") or terrain.flat()
    robot = without_losses(load_robot(name))
    engine = PhysicsEngine(robot, n, dt, 1, cfg, **arguments)
    model, data = twin(robot, dt, joint_friction=False)

    def spheres():
        """Return (body, centre in the world, radius) of all that may touch the ground, feet first."""
        found = [
            (model.body(f"{leg}_calf").id, data.geom(leg).xpos.copy(), radius)
            for leg, radius in zip(LEGS, robot.foot_radius, strict=True)
        ]
        if cfg.body_contact:
            for leg, radius in zip(LEGS, robot.foot_radius, strict=True):
                knee, foot = data.body(f"{leg}_calf").xpos.copy(), data.geom(leg).xpos
                found.append((model.body(f"{leg}_thigh").id, knee, radius))
                along = knee + np.array([[1 / 3], [2 / 3]]) * (foot - knee)  # of which the lower one touches
                lower = along[np.argmin(gaps(along, radius))]
                found.append((model.body(f"{leg}_calf").id, lower, radius))
            for signs in itertools.product((-1, 1), repeat=3):
                found.append(
                    (
                        1,
                        data.body("base").xpos
                        + data.body("base").xmat.reshape(3, 3) @ (signs * robot.trunk_half_extents),
                        0.0,
                    )
                )
        return found

    def gaps(centres, radii):
        return (centres[:, 2] - field.height(*centres[:, :2].T)) * field.normal(*centres[:, :2].T)[:, 2] - radii

    start = random_state(robot, n, 3, 0.0, 2.0)
    engine.set_state(**start)
    state = engine.get_state()
    for i in range(n):
        put(data, state, i)
        mujoco.mj_kinematics(model, data)
        _, centres, radii = (np.array(column) for column in zip(*spheres(), strict=True))
        start["base_position"][i, 2] -= gaps(centres, radii).min() + (0.03 if cfg.body_contact else 0.003)
    engine.set_state(**start)
    before = engine.get_state()
    engine.step()
    after = engine.get_state()
    jacobian = np.zeros((3, 18))
    mass = np.zeros((18, 18))
    errors = []
    unexplained = []
    touched = 0
    for i in range(n):
        put(data, before, i)
        mujoco.mj_forward(model, data)
        mujoco.mj_fullM(model, data, mass)
        motion = mass @ (velocity(after) - velocity(before))[i] / dt + data.qfrc_bias
        bodies, centres, radii = (np.array(column) for column in zip(*spheres(), strict=True))
        normals = field.normal(*centres[:, :2].T)
        gap = gaps(centres, radii)
        points = centres - radii[:, None] * normals
        arms = [data.xmat[body].reshape(3, 3).T @ (p - data.xpos[body]) for body, p in zip(bodies, points, strict=True)]
        jacobians = []
        for body, point in zip(bodies, points, strict=True):
            mujoco.mj_jac(model, data, jacobian, None, point, body)
            jacobians.append(jacobian.copy())
        put(data, after, i)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        pushed = np.zeros(18)
        scale = 0.0
        for k, body in enumerate(bodies):
            mujoco.mj_jac(model, data, jacobian, None, data.xpos[body] + data.xmat[body].reshape(3, 3) @ arms[k], body)
            result = law_at_the_end(
                cfg, dt, gap[k], normals[k], jacobians[k] @ velocity(before)[i], jacobian @ velocity(after)[i]
            )
            if k < 4:
                felt = after.foot_contact_force[i, k]
                if result is None:
                    assert not felt.any()
                else:
                    errors.append(np.abs(felt - result[0]).max() / result[1])
            if result is not None:
                force, per_speed = (after.foot_contact_force[i, k], 0.0) if k < 4 else result
                pushed = pushed + jacobians[k].T @ force
                scale = scale + per_speed
                touched = touched + 1
        unexplained.append((np.abs(pushed - motion).max() - 2e-3 * np.abs(motion).max() - 0.5) / (scale + 1e-9))
    # as if the feet were this much faster or slower [m/s]
    assert len(errors) > n / 3
    assert np.median(errors) < 5e-4
    assert max(errors) < 5e-3
    # and so for all that touches: what is left of the motion
    assert touched > len(errors) + (n / 2 if cfg.body_contact else -1)
    assert max(unexplained) < 5e-3


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
    robot = load_robot("go1")
    n = 32
    cfg = PhysicsCfg()
    engine = PhysicsEngine(robot, n, timestep, 1, cfg)
    engine.set_state(**on_the_ground(robot, n, seed=2, speed=0.0, height=0.3))
    first = invariants(robot, engine.get_state())[3]
    last = first
    for _ in range(100):
        engine.step(round(0.01 / timestep))
        state = engine.get_state()
        spring = 0.5 * cfg.contact_stiffness * (np.maximum(depth(robot, state), 0) ** 2).sum(1)
        energy = invariants(robot, state)[3] + spring
        assert (energy < last + 0.01 * robot.total_mass * cfg.gravity * 0.3).all()
        last = energy
    assert (last < first - 10).all()


def test_landing_agrees_with_mujoco():
    n = 32
    dt = 0.0025
    seconds = 0.02
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
    theirs = velocity_after(model, data, before, torques, seconds)

    def apart(e):
        return np.sqrt(np.mean((e.get_state().base_linear_velocity - theirs) ** 2))

    assert apart(engine) < 0.03
    assert apart(groundless) > 0.15
