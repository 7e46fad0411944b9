"""The balance task: how it is made, what is observed, rewarded and acted, against plain NumPy."""

import dataclasses
import warnings

import numpy as np
import pytest
from balance import CALM, CFG, EXACT_START, NEVER_FALL, ONE_GOAL, TASK, bits, make, make_with, wander
from oracle import ROBOTS, centre_of_mass, foot_positions, random_state, rotation
from walking import goal, reward_terms

from config import NoiseCfg, VaryCfg
from environments import registry
from environments.quadruped import env as quadruped_env
from environments.quadruped import gains, rewards, step, torque_ratio
from physics import PhysicsEngine, load_robot, save_robot
from physics import constants as C
from physics import layout as L
from physics.jit import LANES
from settings import ConfigError

# Making one


def test_every_listed_task_can_be_made():
    for name, description in registry.tasks().items():
        env = registry.make(name, num_envs=3, threads=1)
        state = env.init_state(seed=0)
        assert description
        assert state.obs.shape == (3, env.num_obs)
        assert state.info["privileged"].shape == (3, env.num_privileged)
        assert env.step(np.zeros((3, env.num_actions))).reward.shape == (3,)


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_robot_stands_in_it(robot):
    env = make_with(4, {"env.model": robot}, CALM, EXACT_START)
    env.init_state()
    state = env.step(np.zeros((4, 12)))
    assert not state.done.any()
    assert (state.reward > 0).all()


def test_overrides_arrive_nested_or_dotted():
    nested = registry.make(TASK, num_envs=1, env_cfg_override={"push": {"spin": 2.0}, "kp": 33.0})
    dotted = registry.make(TASK, num_envs=1, env_cfg_override={"push.spin": 2.0, "env.kp": 33.0})
    assert nested.cfg == dotted.cfg == dataclasses.replace(CFG, kp=33.0, push=dataclasses.replace(CFG.push, spin=2.0))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kpp": 1.0}, "kpp: unknown field.*kp"),
        ({"push": {"sped": (1.0, 2.0)}}, "push.sped: unknown field.*push.speed"),
        ({"pushes.speed": (1.0, 2.0)}, "pushes.speed: unknown field"),
        ({"kp": -1.0}, "kp: expected a number between 0 and 1000, got -1.0"),
        ({"kp": 10**400}, "kp: expected a number between 0 and 1000, got inf"),
        ({"push.speed": (0, -(10**400))}, "push.speed: expected two numbers, low and high, between 0 and 10, got"),
        ({"kp": "high"}, "kp"),
        ({"kp": float("nan")}, "kp"),
        ({"push.speed": (2.0, 1.0)}, "push.speed"),
        ({"push.speed": 1.0}, "push.speed"),
        ({"control": "velocity"}, "control: expected one of pd, torque"),
        ({"env.sim_dt": 0.003}, "env.sim_dt"),
        ({"reset.tilt": 2}, "reset.tilt"),
        ({"motor.rated_speed": 30.0}, r"motor.rated_speed: expected less than motor.no_load_speed = 30 rad/s, got 30"),
        ({"motor.no_load_speed": 10.0}, "motor.rated_speed: expected less than motor.no_load_speed = 10 rad/s, got 20"),
        ({"motor.efficiency": 0.0}, "motor.efficiency: expected a number between 0.01 and 1"),
        (
            {"physics.friction_model": "coulomb", "physics.static_friction": 0.7},
            "physics.static_friction: expected at least physics.foot_friction = 0.8",
        ),
        ({"physics.friction_model": "stick"}, "physics.friction_model: expected one of simple, coulomb"),
        (
            {"motor.enabled": True, "motor.delay": 0.02},
            r"motor.delay: expected, with vary.delay, less than env.ctrl_dt = 0.02 s, got 0.02",
        ),
        (
            {"motor.enabled": True, "motor.delay": 0.01, "vary.delay": (0.0, 0.015)},
            r"motor.delay: expected, with vary.delay, .* got 0.025",
        ),
        ({"vary.delay": (0.0, 0.005)}, "vary.delay: expected motor.enabled true"),
        ({"vary.friction": (1.2, 0.8)}, "vary.friction"),
        (
            {"command.kind": "walk"},
            "command.kind: expected one of stay, velocity, heading, goal, pose, motion, gait, got 'walk'",
        ),
        ({"command.distance": (0.2, 1.0)}, r"command.distance: expected more than command.reached = 0.3 m, got 0.2"),
        ({"command.standing": 0.95}, r"command.turning: expected, with command.standing, at most 1, got 1.05"),
        ({"noise.spin": -0.1}, "noise.spin"),
        ({"terrain.kinds": "rough hills"}, "terrain.kinds: expected names among .*stairs_up.*hills"),
        ({"terrain.kinds": ""}, "terrain.kinds: expected names among"),
        ({"terrain.kinds": "rough", "terrain.cell": 0.3}, "terrain.cell: expected"),
        ({"terrain.kinds": "rough", "terrain.tile": 8.1}, "terrain.tile: expected"),
        ({"terrain.kinds": "no such map.png"}, r"terrain.kinds: no such map.png: No such file or directory"),
        ({"terrain.kinds": "no such map.npy"}, r"terrain.kinds: no such map.npy: No such file or directory"),
        ({"terrain.kinds": f"{__file__}"}, r"terrain.kinds: .*\.py: expected a picture"),
    ],
)
def test_wrong_overrides_are_named(changes, named):
    with pytest.raises(ConfigError, match=named):
        registry.make(TASK, num_envs=1, env_cfg_override=changes)


@pytest.mark.parametrize(("cell", "tile"), [(0.32, 9.6), (0.05, 2.0), (0.1, 2.0), (0.2, 20.0), (1.0, 8.0)])
def test_tiles_of_any_size_make_a_terrain(cell, tile):
    kinds = "rough slope_up slope_down stairs_up stairs_down stones flat"
    changes = {"terrain.kinds": kinds, "terrain.cell": cell, "terrain.tile": tile, "terrain.levels": 2}
    terrain = registry.make(TASK, num_envs=1, env_cfg_override=changes, threads=1).terrain
    assert terrain.spawns.shape == (2, 7, 3)
    assert terrain.cell == pytest.approx(cell)
    assert terrain.heights.shape[1] * cell >= 2 * tile + 8


def test_unknown_tasks_and_numbers_are_named():
    with pytest.raises(ConfigError, match=r"'quadruped-balanc'.*quadruped-balance"):
        registry.make("quadruped-balanc")
    with pytest.raises(ConfigError, match="num_envs"):
        registry.make(TASK, num_envs=0)


@pytest.mark.parametrize(
    "actions", [np.zeros((4, 11)), np.zeros(48), np.full((4, 12), np.nan), np.full((4, 12), np.inf)]
)
def test_wrong_actions_are_refused_and_change_nothing(actions):
    env = make(4)
    env.init_state()
    before = env.engine.blocks.copy()
    with pytest.raises(ValueError, match="actions"):
        env.step(actions)
    np.testing.assert_array_equal(env.engine.blocks, before)


# Observing


@pytest.mark.parametrize("robot", ["go1", "spot"])
def test_every_observation_is_what_it_says(robot):
    env = make_with(64, {"env.model": robot, "goal.reach": 0.08}, NEVER_FALL)
    env.init_state(seed=1)
    wander(env, 15)
    lifted = env.engine.get_state().base_position
    lifted[::2, 2] += 0.2
    env.engine.set_state(base_position=lifted)
    state, actions = wander(env, 2, seed=1)
    physics = env.engine.get_state()
    running = ~state.done
    assert running.sum() > 20
    R = rotation(physics.base_quaternion)
    offset = goal(env) - centre_of_mass(env.robot, physics)
    heading = np.arctan2(R[:, 1, 0], R[:, 0, 0])
    ahead = np.cos(heading) * offset[:, 0] + np.sin(heading) * offset[:, 1]
    left = -np.sin(heading) * offset[:, 0] + np.cos(heading) * offset[:, 1]
    shrink = np.minimum(1, 0.08 / np.hypot(ahead, left))
    assert (shrink[running] < 1).any()
    assert (shrink[running] == 1).any()
    contact = np.linalg.norm(physics.foot_contact_force, axis=2) > 1.0
    assert 0.05 < contact[running].mean() < 0.95
    expected = {
        "joints": (0, physics.joint_position - env.robot.home_joints.ravel()),
        "joint speeds": (12, 0.05 * physics.joint_velocity),
        "contacts": (24, contact),
        "gravity": (28, -R[:, 2]),
        "spin": (31, 0.25 * physics.base_angular_velocity),
        "goal": (34, 5 * np.stack([shrink * ahead, shrink * left, offset[:, 2]], axis=1)),
    }
    columns = 0
    for name, (start, values) in expected.items():
        np.testing.assert_allclose(
            state.obs[running, start : start + values.shape[1]], values[running], rtol=1e-5, atol=2e-5, err_msg=name
        )
        columns += values.shape[1]
    assert columns == env.num_obs == state.obs.shape[1]
    above = foot_positions(env.robot, physics)[..., 2] - env.robot.foot_radius
    expected = {
        "base velocity": (0, np.einsum("nji,nj->ni", R, physics.base_linear_velocity)),
        "height": (3, 10 * (physics.base_position[:, 2:] - env.robot.home_height)),
        "action": (4, actions),
        "friction, trunk mass": (16, np.ones((64, 2))),
        "feet's heights": (18, 10 * above),
        "air times": (22, env.field("air_time")),  # test_walking.py has them counted
        "forces": (26, physics.foot_contact_force[..., 2] / (env.robot.total_mass * 9.81)),
        "push": (30, np.einsum("nji,nj->ni", R, env.field("next_push"))),  # that they come true, test_episodes.py asks
        "kick": (33, env.field("next_kick")),
        "time to push": (36, env.field("push_in")),
    }
    columns = 0
    for name, (start, values) in expected.items():
        got = state.info["privileged"][running, start : start + values.shape[1]]
        np.testing.assert_allclose(got, values[running], rtol=1e-5, atol=2e-5, err_msg=name)
        columns += values.shape[1]
    assert columns == env.num_privileged == state.info["privileged"].shape[1]


def test_friction_and_mass_of_a_robot_are_told_to_the_critic_alone():
    changes = {
        "vary.friction": (0.5, 1.5),
        "vary.trunk_mass": (0.8, 1.3),
        "vary.link_mass": (0.9, 1.1),
        "vary.gravity": (0.9, 1.1),
    }
    env = make_with(64, changes)
    state = env.init_state(seed=1)
    friction, mass = state.info["privileged"][:, 16:18].T
    for values, (low, high) in ((friction, (0.5, 1.5)), (mass, (0.8, 1.3))):
        assert low <= values.min() < values.max() <= high
        assert np.ptp(values) > 0.9 * (high - low)
    rows = env.engine._lanes(env.engine.model.varied_blocks, 0, L.VARIED_ROWS).astype(float)
    np.testing.assert_allclose(friction, rows[:, L.V_KINETIC] / 0.8, rtol=1e-6)
    legs = env.robot.total_mass - env.engine.model.base[C.TRUNK]
    np.testing.assert_allclose(
        mass * env.engine.model.base[C.TRUNK] + rows[:, L.V_LINK_MASS] * legs, rows[:, L.V_MASS], rtol=1e-5
    )
    for _ in range(3):
        state = env.step(np.zeros((64, 12)))
    force = env.engine.get_state().foot_contact_force[..., 2]
    np.testing.assert_allclose(
        state.info["privileged"][:, 26:30],
        force / (rows[:, L.V_MASS] * rows[:, L.V_GRAVITY])[:, None],
        rtol=1e-5,
        atol=1e-6,
    )
    assert force.max() > 10


# Rewarding


@pytest.mark.parametrize("scale", [0.2, 2.0])
def test_every_reward_term_is_what_it_says(scale):
    env = make_with(64, ONE_GOAL, NEVER_FALL)  # test_walking.py has those that this task has no use for
    env.init_state(seed=2)
    _, last_actions = wander(env, 8, scale, seed=1)
    state, actions = wander(env, 1, scale, seed=2)
    running = ~state.done
    assert running.sum() > 10
    ours = env.reward_terms()
    expected = reward_terms(env, [actions, last_actions, last_actions])
    weights = {name: getattr(env.cfg.reward, name) for name in rewards.LIBRARY}
    assert list(ours) == [name for name, weight in weights.items() if weight]
    expected = {name: values for name, values in expected.items() if weights[name]}
    total = 0
    for name, values in expected.items():
        share = weights[name] * (1.0 if rewards.LIBRARY[name].once else 0.02)
        np.testing.assert_allclose(ours[name][running], share * values[running], rtol=2e-4, atol=2e-6, err_msg=name)
        assert np.ptp(values[running]) > 0 or name in ("alive", "trot", "air_time", "knee", "arrival", "stopping")
        total = total + share * values
    np.testing.assert_allclose(state.reward[running], np.maximum(total, 0)[running], rtol=1e-3, atol=1e-5)


def test_reward_of_the_state_as_it_is_equals_the_step_s():
    env = make_with(64, ONE_GOAL)
    env.init_state(seed=3)
    state, _ = wander(env, 10)
    before = env.engine.blocks[:, : L.STATE_ROWS * LANES].copy()
    running = ~state.done
    assert running.any()
    np.testing.assert_allclose(env.compute_reward_parallel()[running], state.reward[running], rtol=1e-6)
    np.testing.assert_array_equal(env.engine.blocks[:, : L.STATE_ROWS * LANES], before)


def test_changed_weights_change_the_reward():
    env = make_with(8, {"reward.alive": 7.0}, CALM, EXACT_START)
    other = make_with(8, CALM, EXACT_START)
    for e in (env, other):
        e.init_state()
        e.step(np.zeros((8, 12)))
    np.testing.assert_allclose(
        env.compute_reward_parallel() - other.compute_reward_parallel(),
        0.02 * (7.0 - other.cfg.reward.alive),
        rtol=1e-4,
    )


def test_a_fall_costs_once_and_returns_add_up():
    env = make_with(64)
    env.init_state(seed=4)
    rng = np.random.default_rng(0)
    total = np.zeros(64)
    length = np.zeros(64)
    falls = 0
    for _ in range(200):
        state = env.step(rng.normal(0, 2, (64, 12)))
        total += state.reward
        length += 1
        ended = state.done
        np.testing.assert_allclose(state.info["episode_return"][ended], total[ended], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(state.info["episode_steps"][ended], length[ended])
        assert (state.reward[state.terminated] < env.cfg.reward.fall + 0.2).all()
        assert (state.reward[~state.terminated] >= 0).all()
        falls += state.terminated.sum()
        total[ended] = 0
        length[ended] = 0
    assert falls > 64


# Acting


@pytest.mark.parametrize("control", ["pd", "torque"])
def test_actions_become_motor_torques(control):
    n = 16
    env = make_with(n, CALM, NEVER_FALL, {"control": control, "torque_kd": 0.4, "physics.gravity": 3.0})
    env.init_state(seed=16)
    cfg = env.cfg
    robot = env.robot
    start = random_state(robot, n, 6, height=3.0, speed=0.3)
    start["base_quaternion"] = np.tile([1.0, 0, 0, 0], (n, 1))
    start["joint_position"] = robot.home_joints.ravel() + 0.3 * np.random.default_rng(7).uniform(-1, 1, (n, 12))
    bare = PhysicsEngine(robot, n, cfg.sim_dt, 1, cfg.physics)
    for engine in (env.engine, bare):
        engine.set_state(**start)
    rng = np.random.default_rng(8)
    low, high = robot.joint_range.reshape(12, 2).T
    for _ in range(4):
        actions = rng.normal(0, 1, (n, 12)).astype(np.float32)
        assert not env.step(actions).done.any()
        for _ in range(cfg.sim_substeps):
            s = bare.get_state()
            if control == "torque":
                torque = robot.hold_torques().ravel() + cfg.torque_scale * actions - cfg.torque_kd * s.joint_velocity
            else:
                torque = (
                    cfg.kp
                    * (np.clip(robot.home_joints.ravel() + cfg.action_scale * actions, low, high) - s.joint_position)
                    - cfg.kd * s.joint_velocity
                )
            bare.apply_motor_torques(torque)
            bare.step()
    ours = env.engine.get_state()
    theirs = bare.get_state()
    moved = np.abs(theirs.joint_position - start["joint_position"]).max()
    assert moved > 0.1
    np.testing.assert_allclose(ours.joint_position, theirs.joint_position, atol=1e-4 * moved)
    np.testing.assert_allclose(ours.joint_velocity, theirs.joint_velocity, atol=5e-3)
    np.testing.assert_allclose(ours.base_position, theirs.base_position, atol=1e-4)


def test_absurd_actions_are_survived():
    env = make(16)
    env.init_state(seed=17)
    for scale in (1e3, 1e30):
        for _ in range(10):
            state = env.step(np.full((16, 12), scale, np.float32))
            assert np.isfinite(state.obs).all()
            assert np.isfinite(state.reward).all()


def test_states_can_be_written_elsewhere():
    env = make(8)
    other = make(8)
    env.init_state(seed=18)
    own = other.init_state(seed=18)
    target = env.new_state()
    returned = env.step(np.ones((8, 12)), out=target)
    assert returned is target
    assert bits(target) == bits(other.step(np.ones((8, 12))))
    kept = target.obs.copy()
    env.step(np.zeros((8, 12)))
    np.testing.assert_array_equal(target.obs, kept)
    assert own is other.step(np.zeros((8, 12)))


def test_errors_are_the_task_s_own():
    env = make(32)
    env.init_state(seed=19)
    wander(env, 20, 0.3)
    state = env.engine.get_state()
    errors = env.errors()
    np.testing.assert_allclose(
        errors["goal_distance"], np.linalg.norm(goal(env) - centre_of_mass(env.robot, state), axis=1), atol=2e-5
    )
    np.testing.assert_allclose(errors["speed"], np.hypot(*state.base_linear_velocity[:, :2].T), atol=1e-6)


def test_what_is_compiled_ahead_is_what_a_step_calls():
    assert set(quadruped_env.COMPILED) == {*quadruped_env.STAGES, "control_step", "draw"}
    env = registry.make("quadruped-balance", num_envs=40, threads=1)
    env.init_state()
    kinds = set(step.control_step.overloads)
    env.compile()
    assert set(step.control_step.overloads) == kinds  # else it would be compiled again when first called


def test_damping_that_is_the_motors_own_is_left_to_the_law_that_drives_them(tmp_path):
    robot = load_robot("spot")
    assert robot.motors_damp and (robot.damping == 20.0).all()  # as long as nothing drives it
    np.testing.assert_allclose(PhysicsEngine(robot, 1).model.legs[:, C.DAMPING : C.DAMPING + 3], 20.0)
    save_robot(dataclasses.replace(robot, motors_damp=False), path := tmp_path / "mine.json")
    for model, damping in (("spot", 0.0), (str(path), 20.0)):
        legs = registry.make(TASK, cfg=dataclasses.replace(CFG, model=model)).engine.model.legs
        np.testing.assert_allclose(legs[:, C.DAMPING : C.DAMPING + 3], damping)
        np.testing.assert_allclose(legs[:, C.KD : C.KD + 3], torque_ratio(robot) * CFG.kd, rtol=1e-6)
    save_robot(robot, again := tmp_path / "again.json")
    assert load_robot(again).motors_damp


def test_a_robot_s_own_gains_drive_it_scaled_as_the_configuration_asks(tmp_path):
    robot = load_robot("go2")
    kp = np.linspace(20.0, 42.0, 12).reshape(4, 3)
    save_robot(dataclasses.replace(robot, kp=kp), path := tmp_path / "mine.json")
    ratio = torque_ratio(robot)
    cfg = dataclasses.replace(CFG, model=str(path), kp=60.0, kd=2.0)
    found = gains(cfg, load_robot(path))
    np.testing.assert_allclose(found[0], 1.5 * kp)
    np.testing.assert_allclose(found[1], 2.0 * ratio)
    env = registry.make(TASK, cfg=cfg)
    legs = env.engine.model.legs
    np.testing.assert_allclose(legs[:, C.KP : C.KP + 3], found[0], rtol=1e-6)
    np.testing.assert_allclose(legs[:, C.KD : C.KD + 3], found[1], rtol=1e-6)
    torque = registry.make(TASK, cfg=dataclasses.replace(cfg, control="torque"))
    assert not torque.engine.model.legs[:, C.KP : C.KP + 3].any()
    np.testing.assert_allclose(torque.engine.model.legs[:, C.KD : C.KD + 3], ratio * cfg.torque_kd, rtol=1e-6)


def resized(robot, times):
    """Return a robot of the same build and density, so many times as long, whose time goes with the root of that."""
    mass, inertia, torque = times**3, times**5, times**4

    def link(body):
        return dataclasses.replace(body, mass=mass * body.mass, com=times * body.com, inertia=inertia * body.inertia)

    lengths = ("trunk_half_extents", "offset", "foot_offset", "foot_radius", "home_height", "trunk_centre")
    return dataclasses.replace(
        robot, base=link(robot.base), links=tuple(tuple(map(link, leg)) for leg in robot.links),
        damping=times**4.5 * robot.damping, armature=inertia * robot.armature, friction=torque * robot.friction,
        torque_limit=torque * robot.torque_limit, **{name: times * getattr(robot, name) for name in lengths},
    )  # fmt: skip


def test_what_is_set_for_a_go1_fits_a_smaller_robot(tmp_path):
    times = 0.4
    robot = load_robot("go1")
    save_robot(resized(robot, times), path := tmp_path / "mine.json")
    exact = EXACT_START | CALM | ONE_GOAL | NEVER_FALL | {"model": str(path)}
    env = registry.make(TASK, num_envs=2, env_cfg_override=exact)
    assert env.cfg.physics.contact_stiffness == pytest.approx(CFG.physics.contact_stiffness * times**2, rel=0.01)
    assert env.cfg.physics.limit_damping == pytest.approx(CFG.physics.limit_damping * times**4.5, rel=0.01)
    assert env.cfg.push == dataclasses.replace(CFG.push, speed=(0.0, 0.0), spin=0.0)  # as it was asked for
    assert env.cfg.command.forward == pytest.approx(np.multiply(CFG.command.forward, times**0.5), rel=0.01)
    assert env.cfg.command.turn == pytest.approx(np.multiply(CFG.command.turn, times**-0.5), rel=0.01)
    assert env.cfg.vary.trunk_shift == pytest.approx(CFG.vary.trunk_shift * times, rel=0.01)
    assert env.cfg.physics.motor == CFG.physics.motor and env.cfg.noise == CFG.noise

    def sinks(model, changes):  # how far a robot goes down from its home pose in a second of a Go1's, over its height
        cfg = registry.make(TASK, env_cfg_override=exact | {"model": model}).cfg
        alike = dataclasses.replace(cfg, vary=VaryCfg(), noise=NoiseCfg(), **changes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the Go1's contacts are too stiff for smaller feet
            env = registry.make(TASK, num_envs=1, cfg=alike)
        env.init_state()
        for _ in range(round(50 * (times if model == str(path) else 1.0) ** 0.5)):
            env.step(np.zeros((1, 12)))
        return 1.0 - env.engine.get_state().base_position[0, 2] / env.robot.home_height

    assert sinks(str(path), {}) == pytest.approx(sinks("go1", {}), rel=0.03)
    assert abs(sinks(str(path), {"physics": CFG.physics}) / sinks("go1", {}) - 1) > 0.05  # unless it were fitted


def test_larger_robots_are_asked_for_what_a_go1_is(tmp_path):
    save_robot(resized(load_robot("go1"), 1.8), path := tmp_path / "mine.json")
    assert registry.make(TASK, env_cfg_override={"model": str(path)}).cfg == dataclasses.replace(CFG, model=str(path))


def test_smaller_robots_walk_to_a_smaller_mark_in_steps_that_their_feet_bear(tmp_path):
    walk = "quadruped-walk-flat"
    save_robot(resized(load_robot("go1"), 0.25), path := tmp_path / "mine.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = registry.make(walk, env_cfg_override={"model": str(path)})
    assert small.cfg.sim_dt < registry.default_cfg(walk).sim_dt
    assert small.targets["velocity_error"][1] == pytest.approx(0.5 * 0.15, rel=0.01)
    assert small.targets["yaw_rate_error"][1] == 0.15
    asked = {"model": str(path), "sim_dt": 0.004, "command": {"forward": (0.0, 2.0)}}
    with pytest.warns(UserWarning, match="timestep 4 ms"):
        cfg = registry.make(walk, env_cfg_override=asked).cfg
    assert (cfg.sim_dt, cfg.command.forward) == (0.004, (0.0, 2.0))
    slower = registry.make(walk, env_cfg_override={"model": str(path), "ctrl_dt": 0.016}).cfg
    assert slower.ctrl_dt == 0.016 and slower.sim_dt <= small.cfg.sim_dt
