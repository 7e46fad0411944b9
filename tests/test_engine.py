"""The engine: threads, blocks, the agent-centred world, its arguments, and the code it compiles to."""

import json
import platform
import re
import subprocess
import sys
import tracemalloc
import warnings

import mujoco
import numpy as np
import pytest
from oracle import ROBOTS, ROOT, fresh_environment, random_state, twin

from config import MotorCfg, PhysicsCfg, VaryCfg
from environments import registry
from physics import PhysicsEngine, load_robot, terrain
from physics import layout as L
from physics.contact import largest_timestep
from physics.jit import LANES

NAMES = (
    "base_position", "base_quaternion", "joint_position",
    "base_linear_velocity", "base_angular_velocity", "joint_velocity",
)  # fmt: skip
# Of the step, and of a loop in whose way nothing stands: how wide the compiler makes vectors for this processor
ASSEMBLY = """
import json, sys
import numba, numpy
from config import MotorCfg, PhysicsCfg
from physics import PhysicsEngine, load_robot, terrain
from physics.jit import real
from physics.simulation_step import advance, simulation_step
cfg = PhysicsCfg(body_contact=True, motor=MotorCfg(enabled=True))
everything = {"cfg": cfg, "terrain": terrain.flat(), "differ": True}
PhysicsEngine(load_robot("go1"), 16, threads=1, **(everything if sys.argv[1] == "everything" else {})).step()
assert advance.stats.cache_misses, "compiled code from the cache cannot be inspected"
@numba.njit
def plain_loop(a, b, out):
    for i in range(len(out)):
        out[i] += a[i] * b[i]
plain_loop(*numpy.ones((3, 64), real))
json.dump({f.__name__: "".join(f.inspect_asm().values()) for f in (advance, simulation_step, plain_loop)}, sys.stdout)
"""
ARITHMETIC = re.compile(r"^\s+v?(?:fn?m(?:add|sub)\w*|mul|add|sub|div|sqrt)(ps|ss)\s+.*?%?([xyz])mm", re.MULTILINE)


@pytest.fixture
def engine():
    engine = PhysicsEngine(load_robot("go1"), 20, 0.002, 2)
    yield engine
    engine.close()


def near_the_ground(robot, n, seed=0):
    return random_state(robot, n, seed, height=1.4)


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in (*NAMES, "foot_contact_force"))


@pytest.mark.parametrize("name", ROBOTS)
def test_any_number_of_threads_gives_the_same_bits(name):
    robot = load_robot(name)
    n = 5 * LANES - 3
    torques = np.random.default_rng(1).uniform(-10, 10, (n, 12))
    results = []
    for threads in (1, 2, 3):
        engine = PhysicsEngine(robot, n, 0.0025, threads)
        assert engine.threads == threads
        engine.set_state(**near_the_ground(robot, n))
        engine.apply_motor_torques(torques)
        for _ in range(40):
            engine.step(5)
        results.append(engine.blocks.tobytes())
        assert engine.get_state().foot_contact_force.any()
        engine.close()
    assert results[0] == results[1] == results[2]


def test_any_number_of_threads_gives_the_same_bits_with_everything_on():
    robot = load_robot("go1")
    n = 5 * LANES - 3
    cfg = PhysicsCfg(
        body_contact=True, motor=MotorCfg(enabled=True, delay=0.005), friction_model="coulomb+viscous", restitution=0.6
    )
    ground = terrain.rough(0.1, 0.5, size=8.0)
    state = random_state(robot, n, 1, height=0.9)
    state["base_position"][:, :2] *= 6  # in one cell, for a robot that leaves it is re-centred at the end of a call
    rng = np.random.default_rng(1)
    torques = rng.uniform(-10, 10, (n, 12))
    targets = robot.home_joints.ravel() + rng.normal(0, 0.3, (n, 12))
    results = []
    for threads, count, steps in ((1, n, 20), (2, n, 20), (3, n, 20), (1, n, 5), (1, 40, 20)):
        engine = PhysicsEngine(robot, count, 0.0025, threads, cfg, ground, differ=True)
        assert engine.threads == threads
        engine.vary(VaryCfg(friction=(0.5, 1.2), trunk_mass=(0.9, 1.2), joint_offset=0.05, delay=(0.0, 0.01)), seed=2)
        engine.set_state(**{name: value[:count] for name, value in state.items()})
        engine.apply_motor_torques(torques[:count])
        engine.set_joint_targets(targets[:count], 40.0, 1.0)
        for _ in range(240 // steps):
            engine.step(steps)
        everything = (engine.rows(0, L.STATE_ROWS), engine._lanes(engine.model.motor_blocks, 0, L.MOTOR_ROWS))
        results.append(
            b"".join(rows[:40].tobytes() for rows in everything) + (engine.blocks.tobytes() if count == n else b"")
        )
        assert (engine.get_state().foot_contact_force.any((1, 2))).mean() > 0.1
        assert not engine.broken.any()
        engine.close()
    assert results[0] == results[1] == results[2] == results[3]
    assert results[0].startswith(results[4])


def test_any_number_of_threads_gives_the_same_episodes():
    n = 5 * LANES + 1
    steps = 150
    actions = np.random.default_rng(2).normal(0, 1.5, (steps, n, 12)).astype(np.float32)
    records = []
    for threads in (1, 2, 3):
        env = registry.make("quadruped-balance", num_envs=n, threads=threads)
        state = env.init_state(seed=3, staggered=True)
        record = [state.obs.tobytes()]
        ends = np.zeros(2, int)
        for a in actions:
            state = env.step(a)
            ends += state.terminated.sum(), state.truncated.sum()
            arrays = state.obs, state.reward, state.terminated, state.truncated, state.info["privileged"]
            ended = [value[state.done] for value in state.info.values()]
            record.append(b"".join(x.tobytes() for x in (*arrays, *ended)))
        records.append((record, env.engine.blocks.tobytes()))
        assert ends[0] > 100
        assert ends[1] > 0
        env.engine.close()
    assert records[0] == records[1] == records[2]


def test_a_robot_does_not_depend_on_its_neighbours():
    robot = load_robot("go1")
    state = near_the_ground(robot, 40)
    results = []
    for n in (1, 5, 17, 40):
        engine = PhysicsEngine(robot, n, 0.0025, 1)
        engine.set_state(**{name: value[:n] for name, value in state.items()})
        engine.step(200)
        results.append(engine.get_state())
    for result in results[:-1]:
        n = len(result.base_position)
        for name in NAMES:
            np.testing.assert_array_equal(getattr(result, name), getattr(results[-1], name)[:n])


def test_steps_in_one_call_or_in_many_are_the_same(engine):
    engine.set_state(**near_the_ground(engine.robot, 20))
    other = PhysicsEngine(engine.robot, 20, 0.002, 1)
    other.set_state(**near_the_ground(engine.robot, 20))
    engine.step(300)
    for _ in range(300):
        other.step()
    assert same(engine.get_state(), other.get_state())


def test_state_comes_back_as_set(engine):
    state = random_state(engine.robot, 20, 4)
    state["base_position"][:, :2] += np.linspace(-1e4, 1e4, 20)[:, None]
    engine.set_state(**state)
    for name in NAMES:
        np.testing.assert_allclose(getattr(engine.get_state(), name), state[name], rtol=1e-6, atol=1e-6)
    # what is not named stays, bit for bit
    before = engine.get_state()
    engine.set_state(joint_velocity=np.zeros((20, 12)))
    after = engine.get_state()
    assert not after.joint_velocity.any()
    for name in NAMES[:-1]:
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


@pytest.mark.parametrize("n", [1, LANES, LANES + 1])
def test_states_are_copies(n):
    engine = PhysicsEngine(load_robot("go1"), n, threads=1)
    state = engine.get_state()
    for name in NAMES:
        getattr(state, name)[:] = 7
    for name in NAMES:
        assert not (getattr(engine.get_state(), name) == 7).any()


def test_quaternions_are_normalised(engine):
    engine.set_state(base_quaternion=np.tile([3.0, 0, 0, 4.0], (20, 1)))
    state = engine.get_state()
    np.testing.assert_allclose(state.base_quaternion, np.tile([0.6, 0, 0, 0.8], (20, 1)), rtol=1e-6)


@pytest.mark.parametrize("far", [(1e4, 0.0), (-1e4, 2e4), (16.0, -160.0)])
def test_far_away_is_like_here(far):
    robot = load_robot("go1")
    n = 16
    near = near_the_ground(robot, n)
    near["base_position"][:, :2] = 0.3
    away = near | {"base_position": near["base_position"] + [*far, 0.0]}
    engines = [PhysicsEngine(robot, n, 0.0025, 1) for _ in range(2)]
    for engine, state in zip(engines, (near, away), strict=True):
        engine.set_state(**state)
        engine.step(200)
    a, b = (engine.get_state() for engine in engines)
    assert a.foot_contact_force.any()
    for name in NAMES[1:]:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-5)
    np.testing.assert_allclose(b.base_position - [*far, 0.0], a.base_position, atol=1e-5)


def test_long_travel_loses_no_precision():
    robot = load_robot("go1")
    engine = PhysicsEngine(robot, 1, 0.0025, 1)
    engine.set_state(base_position=[[1e4, -1e4, 1e3]], base_linear_velocity=[[40.0, -25.0, 0.0]])
    speed = engine.get_state().base_linear_velocity[0, :2]
    for _ in range(40):
        engine.step(100)
    np.testing.assert_allclose(engine.get_state().base_position[0, :2], [1e4 + 400, -1e4 - 250], atol=5e-3)
    np.testing.assert_allclose(engine.get_state().base_linear_velocity[0, :2], speed, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_position": np.zeros((19, 3))}, r"base_position: expected shape \(20, 3\), got \(19, 3\)"),
        ({"joint_velocity": np.zeros(12)}, r"joint_velocity: expected shape \(20, 12\)"),
        ({"joint_position": np.full((20, 12), np.nan)}, r"joint_position: expected finite.*robot 0"),
        (
            {"base_linear_velocity": np.where(np.arange(60).reshape(20, 3) == 16, np.inf, 0)},
            r"base_linear_velocity: expected finite.*inf for robot 5",
        ),
        ({"base_quaternion": np.zeros((20, 4))}, "base_quaternion: .*length above 0"),
    ],
)
def test_wrong_states_are_named_and_change_nothing(engine, arguments, message):
    engine.set_state(**near_the_ground(engine.robot, 20))
    before = engine.blocks.copy()
    with pytest.raises(ValueError, match=message):
        engine.set_state(base_angular_velocity=np.ones((20, 3)), **arguments)
    np.testing.assert_array_equal(engine.blocks, before)


def test_unknown_state_is_named(engine):
    before = engine.blocks.copy()
    with pytest.raises(TypeError, match=r"'joint_speed'.*joint_velocity"):
        engine.set_state(joint_position=np.ones((20, 12)), joint_speed=np.zeros((20, 12)))
    np.testing.assert_array_equal(engine.blocks, before)


@pytest.mark.parametrize(
    ("torques", "message"),
    [
        (np.zeros((20, 11)), r"torques: expected shape \(20, 12\)"),
        (np.full((20, 12), np.nan), "torques: expected finite"),
    ],
)
def test_wrong_torques_are_named_and_change_nothing(engine, torques, message):
    before = engine.blocks.copy()
    with pytest.raises(ValueError, match=message):
        engine.apply_motor_torques(torques)
    np.testing.assert_array_equal(engine.blocks, before)


@pytest.mark.parametrize("substeps", [0, -1, 1.5, "2", None])
def test_wrong_numbers_of_steps_are_refused(engine, substeps):
    before = engine.blocks.copy()
    with pytest.raises(ValueError, match="substeps"):
        engine.step(substeps)
    np.testing.assert_array_equal(engine.blocks, before)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"num_envs": 0}, "num_envs"),
        ({"timestep": 0.0}, "timestep"),
        ({"timestep": float("nan")}, "timestep"),
        ({"timestep": 1.0}, "timestep"),
        ({"threads": -1}, "threads"),
    ],
)
def test_wrong_engines_are_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        PhysicsEngine(load_robot("go1"), **arguments)


def test_torques_are_held_until_changed(engine):
    other = PhysicsEngine(engine.robot, 20, 0.002, 1)
    torques = np.random.default_rng(5).uniform(-5, 5, (20, 12))
    engine.apply_motor_torques(torques)
    for _ in range(20):
        engine.step()
        other.apply_motor_torques(torques)
        other.step()
    assert same(engine.get_state(), other.get_state())
    for e in (engine, other):
        e.apply_motor_torques(0 * torques)
    engine.step(20)
    other.apply_motor_torques(torques)
    other.step(20)
    assert not same(engine.get_state(), other.get_state())


def test_joint_targets_are_held_by_a_pd_law_until_changed(engine):
    home = np.tile(engine.robot.home_joints.ravel(), (20, 1))
    for target in (home + 0.2, home - 0.2):
        engine.set_state(
            base_position=np.tile([0, 0, 50.0], (20, 1)), joint_position=home, joint_velocity=np.zeros((20, 12))
        )
        engine.set_joint_targets(target, 40.0, 1.0)
        engine.step(500)
        np.testing.assert_allclose(engine.get_state().joint_position, target, atol=0.02)
    # by hand: the torque of the first step is kp (target - q) - kd qd
    other = PhysicsEngine(engine.robot, 20, 0.002, 1)
    speed = np.random.default_rng(8).uniform(-1, 1, (20, 12))
    for e in (engine, other):
        e.set_state(base_position=np.tile([0, 0, 50.0], (20, 1)), joint_position=home, joint_velocity=speed)
    for name in NAMES:
        other.set_state(**{name: getattr(engine.get_state(), name)})
    engine.set_joint_targets(home + 0.1, 30.0, 0.5)
    other.apply_motor_torques(30.0 * 0.1 - 0.5 * speed)
    for e in (engine, other):
        e.step()
    np.testing.assert_allclose(engine.get_state().joint_velocity, other.get_state().joint_velocity, atol=1e-4)


def test_gains_are_varied_where_robots_differ():
    robot = load_robot("go1")
    n = 20
    plain, differing, halved = (PhysicsEngine(robot, n, 0.002, 1, differ=differ) for differ in (False, True, True))
    halved.vary(VaryCfg(kp=(0.5, 0.5)), seed=3)
    target = np.tile(robot.home_joints.ravel() + 0.1, (n, 1))
    for e, kp in ((plain, 40.0), (differing, 40.0), (halved, 80.0)):
        e.set_state(base_position=np.tile([0, 0, 5.0], (n, 1)))
        e.set_joint_targets(target, kp, 1.0)
        e.step(20)
    assert np.abs(plain.get_state().joint_position - robot.home_joints.ravel()).max() > 0.05
    for e in (differing, halved):
        np.testing.assert_allclose(e.get_state().joint_position, plain.get_state().joint_position, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((20, 11)), 1.0, 1.0), r"targets: expected shape \(20, 12\)"),
        ((np.full((20, 12), np.nan), 1.0, 1.0), "targets: expected finite"),
        ((np.zeros((20, 12)), -1.0, 1.0), "kp: expected a finite number of at least 0, got -1.0"),
        ((np.zeros((20, 12)), 1.0, float("nan")), "kd: expected a finite number"),
        ((np.zeros((20, 12)), np.ones(3), 1.0), r"kp: expected a number, or 12, got shape \(3,\)"),
        ((np.zeros((20, 12)), 1.0, -np.arange(12.0)), "kd: expected a finite number of at least 0, got -1.0"),
    ],
)
def test_wrong_joint_targets_are_named_and_change_nothing(engine, arguments, message):
    blocks = engine.blocks.copy()
    legs = engine.model.legs.copy()
    with pytest.raises(ValueError, match=message):
        engine.set_joint_targets(*arguments)
    np.testing.assert_array_equal(engine.blocks, blocks)
    np.testing.assert_array_equal(engine.model.legs, legs)


@pytest.mark.parametrize("shape", [(12,), (4, 3)])
def test_each_joint_has_gains_of_its_own(shape):
    robot = load_robot("go1")
    engine = PhysicsEngine(robot, 1, 0.001, cfg=PhysicsCfg(gravity=0.0))
    engine.set_state(base_position=np.array([[0.0, 0.0, 5.0]]))
    kp = np.linspace(0.0, 11.0, 12)
    target = robot.home_joints.ravel() + 0.1
    engine.set_joint_targets(target[None], kp.reshape(shape), np.zeros(shape))
    torques = PhysicsEngine(robot, 1, 0.001, cfg=PhysicsCfg(gravity=0.0))
    torques.set_state(base_position=np.array([[0.0, 0.0, 5.0]]))
    torques.apply_motor_torques(0.1 * kp[None])
    for e in (engine, torques):
        e.step(1)
    found = engine.get_state().joint_velocity
    assert (np.abs(found) > 1e-4).sum() >= 11
    np.testing.assert_allclose(found, torques.get_state().joint_velocity, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ROBOTS)
def test_feet_are_as_heavy_as_mujoco_says(name):
    robot = load_robot(name)
    model, data = twin(robot, 0.001)
    data.qpos[:] = 0, 0, 1, 1, 0, 0, 0, *robot.home_joints.ravel()
    mujoco.mj_forward(model, data)
    mass = np.zeros((18, 18))
    jacobian = np.zeros((3, 18))
    least = np.inf
    mujoco.mj_fullM(model, data, mass)
    for leg in ("FL", "FR", "RL", "RR"):
        mujoco.mj_jac(model, data, jacobian, None, data.geom(leg).xpos, model.geom(leg).bodyid[0])
        j = jacobian[:, 6:]
        least = min(least, 1 / np.linalg.eigvalsh(j @ np.linalg.solve(mass[6:, 6:], j.T))[-1])
    np.testing.assert_allclose(robot.foot_mass(), least, rtol=1e-6)


def test_a_time_step_too_large_for_the_stiffness_is_warned_of():
    robot = load_robot("go1")
    assert largest_timestep(1.0, 4.0) == 0.01
    np.testing.assert_allclose(largest_timestep(4e4, 0.25), 0.004)
    for stiffness in (2e4, 1e5, 1e6):
        limit = largest_timestep(stiffness, robot.foot_mass())
        cfg = PhysicsCfg(contact_stiffness=stiffness)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            PhysicsEngine(robot, 1, 0.99 * limit, 1, cfg)
        contacts = re.escape(f"contacts of {stiffness:g} N/m ")
        words = rf"^timestep [\d.]+ ms: {contacts}.* beyond {1e3 * limit:.2g} ms$"
        with pytest.warns(UserWarning, match=words) as warned:
            PhysicsEngine(robot, 1, 1.01 * limit, 1, cfg)
        assert len(warned) == 1
        assert warned[0].filename == __file__
    # robots that differ may be stiffer
    engine = PhysicsEngine(robot, 1, 0.0025, 1, differ=True)
    with pytest.warns(UserWarning, match="contacts of 200000 N/m"):
        engine.vary(VaryCfg(stiffness=(0.5, 10.0)))


@pytest.fixture(scope="module", params=["plain", "everything"])
def assembly(tmp_path_factory, request):
    environment = fresh_environment(NUMBA_CACHE_DIR=str(tmp_path_factory.mktemp("cache")), PYTHONPATH=str(ROOT))
    run = subprocess.run(
        [sys.executable, "-c", ASSEMBLY, request.param],
        cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_robots_are_computed_in_lanes(assembly):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"knows the instructions of x86, not of {platform.machine()}")
    arithmetic = ARITHMETIC.findall(assembly["advance"])
    packed = [register for kind, register in arithmetic if kind == "ps"]
    # The same loops are there once more, one robot at a time, for arrays that overlap: at most half is scalar.
    assert len(packed) > 900
    assert len(packed) > 0.9 * (len(arithmetic) - len(packed))
    # As wide as the compiler finds best here: on Intel's Xeons that is half of the 512 bits that they have.
    widest = max(register for kind, register in ARITHMETIC.findall(assembly["plain_loop"]) if kind == "ps")
    assert packed.count(widest) > 0.95 * len(packed)


def test_kernel_allocates_nothing(assembly):
    assert "simulation_step" in assembly["simulation_step"]
    assert "NRT_MemInfo_alloc" not in assembly["simulation_step"]
    assert "NRT_Allocate" not in assembly["simulation_step"]


def test_stepping_keeps_no_memory(engine):
    engine.step(2)
    tracemalloc.start()
    for _ in range(1000):  # Python keeps some small objects for reuse
        engine.step()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        engine.step()
    grown = tracemalloc.get_traced_memory()[0] - before
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert grown < 4096
    assert peak < 64 * 1024


def test_environment_keeps_no_memory():
    env = registry.make("quadruped-balance", num_envs=256, threads=1)
    env.init_state()
    actions = np.zeros((256, 12), np.float32)
    env.step(actions)
    tracemalloc.start()
    for _ in range(2100):  # Python keeps up to 2000 tuples of a size for reuse
        env.step(actions)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(300):
        env.step(actions)
    current, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert current - before < 4096
    assert peak - before < 64 * 1024
