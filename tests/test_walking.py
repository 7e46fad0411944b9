"""Commanded velocities, their levels, rewards and errors, against plain NumPy."""

import dataclasses

import numba
import numpy as np
import pytest
from oracle import rotation
from walking import FLAT, GOAL, NEVER_FALL, ONE_COMMAND, ROBUST, STAY, make, reward_terms, to_heading, wander

from config import CommandCfg
from environments import registry
from environments.quadruped import rewards
from physics import spatial
from physics.jit import real

# Commands


def test_commands_are_drawn_as_configured():
    n = 4000
    env = make(FLAT, n)
    state = env.init_state(seed=1)
    cfg = env.cfg.command
    command = env.field("command")
    np.testing.assert_allclose(state.obs[:, 34:], command * [2, 2, 1], rtol=1e-6)
    moves = command[:, :2].any(axis=1)
    turns = command[:, 2] != 0
    assert np.linalg.norm(command[moves, :2], axis=1).min() >= cfg.least
    assert np.abs(command[turns, 2]).min() >= cfg.least
    slow = np.pi * cfg.least**2 / (2.0 * 1.2)  # the share of even draws that are below the least speed
    other = 1 - cfg.standing - cfg.turning
    assert moves.mean() == pytest.approx(other * (1 - slow), abs=0.02)
    assert (~moves & turns).mean() == pytest.approx((1 - cfg.least) * (cfg.turning + other * slow), abs=0.02)
    assert (~moves & ~turns).mean() == pytest.approx(cfg.standing + cfg.least * (cfg.turning + other * slow), abs=0.02)
    even = (0.25, 0.25, 0.25, 0.25)
    gap = (0.5 / 1.8, 0.4 / 1.8, 0.4 / 1.8, 0.5 / 1.8)
    for column, (low, high), some, shares in (
        (0, cfg.forward, moves, even),
        (1, cfg.sideways, moves, even),
        (2, cfg.turn, turns, gap),
    ):
        values = command[some, column]
        assert low <= values.min() < 0.98 * low
        assert 0.98 * high < values.max() <= high
        np.testing.assert_allclose(np.histogram(values, 4, (low, high))[0] / len(values), shares, atol=0.03)
    assert abs(np.corrcoef(command[moves & turns].T) - np.eye(3)).max() < 0.06


def test_commands_are_new_now_and_then():
    env = make(FLAT, 64, NEVER_FALL, {"command.interval": (0.2, 0.4), "max_episode_seconds": 1e3})
    env.init_state(seed=2)
    current = env.field("command")
    changed = [[0] for _ in range(64)]
    for step in range(1, 120):
        state = env.step(np.zeros((64, 12)))
        command = env.field("command")
        np.testing.assert_allclose(state.obs[:, 34:], command * [2, 2, 1], rtol=1e-6)
        for i in np.flatnonzero((command != current).any(axis=1)):
            changed[i].append(step)
        current = command
    between = np.concatenate([np.diff(c) for c in changed]) * 0.02
    assert between.min() == pytest.approx(0.2, abs=0.021)
    assert np.median(between) == pytest.approx(0.31, abs=0.03)


def test_staying_is_a_command_of_zero():
    env = make(STAY, 64)
    env.init_state()
    for _ in range(5):
        env.step(np.zeros((64, 12)))
        assert not env.field("command").any()
    assert env.view()["command"] is None


def test_levels_scale_pushes_and_commands():
    still = {
        "physics.gravity": 0.0, "reset.joint_position": 0.0, "reset.joint_velocity": 0.0, "reset.tilt": 0.0,
        "reset.velocity": 0.0, "reset.spin": 0.0, "push.interval": (0.02, 0.02), "command.least": 0.0,
    }  # fmt: skip
    kicks = []
    commands = []
    env = make(ROBUST, 96, still)
    for part, levels in ((None, {}), (None, {"push": 0.5}), (1, {"push": 0.25, "command": 0.5}), (None, {})):
        (env if part is None else env.split(3)[part]).set_level(**levels)
        env.init_state(seed=3)
        commands.append(env.field("command"))
        env.step(np.zeros((96, 12)))
        state = env.engine.get_state()
        kicks.append(np.concatenate([state.base_linear_velocity, state.base_angular_velocity], axis=1))
    assert np.abs(commands[0]).max() > 0.9
    assert np.linalg.norm(kicks[0][:, :3], axis=1).max() > 0.9
    assert np.abs(kicks[0][:, 3:]).max() > 0.8
    for i, (push, command) in enumerate(((1.0, 1.0), (0.5, 1.0), (0.25, 0.5), (1.0, 1.0))):
        np.testing.assert_allclose(commands[i], command * commands[0], rtol=1e-6)
        np.testing.assert_allclose(kicks[i], push * kicks[0], atol=0.06)
    far = make(GOAL, 32)
    far.set_level(command=0.5)
    far.init_state(seed=3)
    np.testing.assert_allclose(np.linalg.norm(far.field("command")[:, :2], axis=1), 0.4, rtol=1e-5)
    assert np.abs(far.field("command")[:, 2:]).max() == pytest.approx(0.5)
    for wrong in (
        {"push": -0.1},
        {"command": float("nan")},
        {"command": float("inf")},
        {"push_rate": 0.0},
        {"command_rate": 0.0},
        {"episode_rate": float("inf")},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            env.set_level(**wrong)


@pytest.mark.parametrize("task", ["quadruped-walk-flat", "quadruped-walk-rough", "quadruped-gaits"])
def test_a_curriculum_commands_more_often(task):
    env = make(task, 64, {"command.interval": (1.0, 2.0)})
    due = {}
    for rate in (1.0, 5.0):
        env.set_level(command_rate=rate)
        env.init_state(seed=6)
        due[rate] = env.field("command_in")
    assert 1.0 <= due[1.0].min() < due[1.0].max() <= 2.0
    np.testing.assert_allclose(due[5.0], due[1.0] / 5.0, rtol=1e-5)


# Rewards


RARE = "fall", "knee", "arrival", "stopping", "trunk_clearance"
ALL_WEIGHTS = {
    "goal": 1.0, "velocity": 2.0, "yaw_rate": 1.0, "vertical_velocity": -1.0, "tumble": -0.05, "orientation": -0.5,
    "height": -20.0, "torque": -1e-4, "action_rate": -0.01, "smoothness": -0.02, "pose": -0.1, "stand_pose": -0.3,
    "knee": -2.0, "joint_speed": -5e-4, "feet": 0.1, "stance": 0.4, "slip": -0.2, "trot": 0.5, "alive": 20.0,
    "air_time": 0.5, "arrival": 3.0, "stopping": 2.0, "fall": -5.0, "trunk_clearance": -30.0,
}  # fmt: skip


@pytest.mark.parametrize("robot", ["go1", "spot"])
def test_every_reward_term_is_what_it_says(robot):
    weights = {f"reward.{name}": weight for name, weight in ALL_WEIGHTS.items()}
    soft = (
        {"kp": 40.0, "kd": 1.0} if robot == "go1" else {"kp": 6.0, "kd": 0.15}
    )  # so that legs reach the ends of their ranges
    shape = {"reward.sharp": 9.0, "reward.wide": 0.5, "command.standing": 0.3}
    env = make(FLAT, 48, NEVER_FALL, ONE_COMMAND, weights, shape, soft, {"env.model": robot})
    assert {name: getattr(env.cfg.reward, name) for name in rewards.LIBRARY} == ALL_WEIGHTS
    env.init_state(seed=6)
    env.set_field("goal_in", np.full((48, 1), 1e6))
    seen = dict.fromkeys(ALL_WEIGHTS, 0)
    rng = np.random.default_rng(1)
    actions = [np.zeros((48, 12))] * 3
    instants = 0
    for step in range(30):
        env.set_field("goal", env.field("com") + [0.05, 0.0, 0.02])
        actions = [rng.normal(0, 1.0 if step % 10 else 2.0, (48, 12)).astype(np.float32), *actions[:2]]
        s = env.step(actions[0])
        running = ~s.done
        if step >= 3:
            expected = reward_terms(env, actions)
            ours = env.reward_terms()
            total = 0
            for name, values in expected.items():
                share = ALL_WEIGHTS[name] * (1.0 if name == "air_time" else 0.02)
                np.testing.assert_allclose(
                    ours[name][running], share * values[running], rtol=5e-4, atol=2e-5, err_msg=name
                )
                seen[name] += np.count_nonzero(np.abs(values[running]) > 1e-3)
                total = total + share * values
            np.testing.assert_allclose(s.reward[running], np.maximum(total, 0)[running], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(env.compute_reward_parallel()[running], s.reward[running], rtol=1e-5, atol=1e-6)
            instants += running.sum()
        if not running.all():  # whose history starts anew
            actions = [np.where(running[:, None], a, 0) for a in actions]
    assert instants > 500
    assert all(count > 20 for name, count in seen.items() if name not in RARE), seen
    assert seen["knee"] > 0


def test_terms_of_weight_zero_are_as_if_they_were_not():
    zero = {f"reward.{name}": 0.0 for name in ALL_WEIGHTS if name not in ("velocity", "alive")}
    env = make(FLAT, 64, NEVER_FALL, ONE_COMMAND, zero)
    env.init_state(seed=7)
    s = wander(env, 20, 1.0)
    running = ~s.done
    terms = env.reward_terms()
    assert running.sum() > 30
    assert set(terms) == {"velocity", "alive"}
    np.testing.assert_allclose(s.reward[running], (terms["velocity"] + terms["alive"])[running], rtol=1e-6)


def test_flights_are_timed_and_paid_at_touchdown_once():
    env = make(
        FLAT, 64, NEVER_FALL, ONE_COMMAND, {"command.standing": 0.3, "reward.air_time": 2.0, "max_episode_seconds": 2.0}
    )
    env.init_state(seed=8)
    air = np.zeros((64, 4))
    landings = 0
    rng = np.random.default_rng(2)
    for _ in range(99):
        moving = env.field("command").any(axis=1)
        assert 0.2 < moving.mean() < 0.9
        s = env.step(rng.normal(0, 1.0, (64, 12)))
        contact = np.linalg.norm(env.engine.get_state().foot_contact_force, axis=2) > 1.0
        landed = np.where(contact, air, 0)
        air = np.where(contact, 0, air + 0.02)
        air[s.done] = 0
        running = ~s.done
        np.testing.assert_allclose(env.field("landed")[running], landed[running], atol=1e-5)
        np.testing.assert_allclose(env.field("air_time"), air, atol=1e-5)
        np.testing.assert_allclose(s.info["privileged"][:, 22:26], air, atol=1e-5)
        paid = 2.0 * moving * np.where(landed > 0, np.minimum(landed, 0.4) - 0.2, 0).sum(1)
        np.testing.assert_allclose(env.reward_terms()["air_time"][running], paid[running], atol=1e-5)
        landings += (landed[running] > 0.1).sum()
    assert landings > 50
    assert env.step(np.zeros((64, 12))).truncated.any()
    assert not env.field("air_time")[env._state.truncated].any()


# Errors


def test_velocity_errors_are_against_the_command():
    env = make(FLAT, 64, ONE_COMMAND)
    env.init_state(seed=10)
    wander(env, 10, 0.3)
    state = env.engine.get_state()
    command = env.field("command")
    errors = env.errors()
    missed = to_heading(state.base_quaternion, state.base_linear_velocity) - command[:, :2]
    np.testing.assert_allclose(errors["velocity_error"], np.linalg.norm(missed, axis=1), atol=1e-5)
    np.testing.assert_allclose(
        errors["yaw_rate_error"], np.abs(state.base_angular_velocity[:, 2] - command[:, 2]), atol=1e-5
    )
    np.testing.assert_allclose(errors["speed"], np.hypot(*state.base_linear_velocity[:, :2].T), atol=1e-6)
    view = env.view(3)
    np.testing.assert_array_equal(view["command"], command[3])
    assert np.linalg.norm((view["velocity"] - view["command"])[:2]) == pytest.approx(
        errors["velocity_error"][3], abs=1e-5
    )
    assert view["goal"] is None


def test_headings_are_those_of_the_base():
    env = make(FLAT, 64, NEVER_FALL)
    env.init_state(seed=14)
    wander(env, 10, 1.0)
    state = env.engine.get_state()
    ahead = rotation(state.base_quaternion)[:, :, 0] * [1, 1, 0]
    along = (state.base_linear_velocity * ahead).sum(1) / np.linalg.norm(ahead, axis=1)
    np.testing.assert_allclose(env.heading_velocity()[:, 0], along, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(env.heading_velocity()[:, :2], axis=1), env.errors()["speed"], rtol=1e-5)


def test_tasks_have_their_errors():
    names = {
        STAY: ["goal_distance", "speed"],
        FLAT: ["velocity_error", "yaw_rate_error", "speed"],
        GOAL: ["goal_distance", "goals_per_minute", "speed"],
    }
    for task, errors in names.items():
        env = make(task, 3)
        env.init_state()
        assert list(env.errors()) == errors
        assert all(error.shape == (3,) for error in env.errors().values())


def test_walking_tasks_differ_by_their_configuration_alone():
    flat, robust, far = (registry.default_cfg(task) for task in (FLAT, ROBUST, GOAL))
    assert flat.command == CommandCfg(kind="velocity")
    assert (flat.push.speed, flat.push.spin) == ((0.0, 0.0), 0.0)
    assert (robust.push.speed, robust.push.spin, robust.push.interval) == ((0.5, 1.0), 1.0, (2.0, 4.0))
    assert robust.reward.stance > flat.reward.stance == 0.0
    standing = dataclasses.replace(flat.reward, stance=robust.reward.stance)
    assert robust == dataclasses.replace(flat, push=robust.push, reward=standing)
    assert far == dataclasses.replace(flat, command=CommandCfg(kind="goal"), goal=far.goal)


# Angles


def test_angles_of_vectors_are_accurate():
    atan2 = spatial.atan2

    @numba.njit
    def many(y, x, out):
        for i in range(len(x)):
            out[i] = atan2(y[i], x[i])

    angle = np.linspace(-np.pi, np.pi, 100001)[1:-1]
    for length in (1e-3, 1.0, 300.0):
        x = (length * np.cos(angle)).astype(real)
        y = (length * np.sin(angle)).astype(real)
        out = np.empty(len(x), real)
        many(y, x, out)
        np.testing.assert_allclose(out, np.arctan2(y.astype(float), x.astype(float)), atol=1e-6)
    many(np.zeros(2, real), np.array([0.0, -1.0], real), out)
    np.testing.assert_allclose(out[:2], [0.0, np.pi], atol=1e-6)
