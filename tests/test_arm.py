"""The arm with a paddle against MuJoCo."""

import dataclasses
import subprocess
import sys

import mujoco
import numpy as np
import pytest
from arms import ARM, LIMP, Arms, mass_matrix, of_links, scattered, twin, with_links
from oracle import ROOT, fresh_environment

from physics import arm as A
from physics import arm_model as M
from physics.bounce import arm_step
from physics.jit import LANES, real

# MuJoCo 3.4, the last for Python 3.10, turns inertias to their axes less precisely
TOLERANCE = {"arm": 1e-8, "odd": 5e-7} if real == np.float64 else {"arm": 2e-5, "odd": 2e-5}


def odd_arm():
    """Return an arm like no other: joints, centres of mass and inertias out of line."""
    rng = np.random.default_rng(7)
    links = []
    for link, axis in zip(ARM.links, "xzyxzy", strict=True):
        offset, com = (tuple(np.add(v, rng.uniform(-0.05, 0.05, 3))) for v in (link.offset, link.com))
        skew = rng.uniform(-0.03, 0.03, (3, 3))
        inertia = tuple(np.add(link.inertia, (np.eye(3) * 2e-3 + skew @ skew.T)[np.triu_indices(3)]))
        links.append(dataclasses.replace(link, axis=axis, offset=offset, com=com, inertia=inertia))
    return dataclasses.replace(ARM, links=tuple(links), paddle=M.Paddle(offset=(0.05, -0.1, 0.08)), compensation=0.7)


ARMS = {"arm": ARM, "odd": odd_arm()}


@pytest.mark.parametrize("name", ARMS)
def test_accelerations_agree_with_mujoco(name):
    n = 48
    dt = 0.002
    arm = ARMS[name]
    arms = scattered(arm, n, dt)
    q, qd, target = (arms.get(row, 6) for row in (A.JOINT, A.JOINT_SPEED, A.TARGET))
    arms.step()
    ours = (arms.get(A.JOINT_SPEED, 6) - qd) / dt
    model, data = twin(arm)
    still = mujoco.MjData(model)
    kp, kd, damping, limit = (of_links(arm, field) for field in ("kp", "kd", "damping", "torque_limit"))
    low, high = of_links(arm, "joint_range").T
    at_limit = 0
    for i in range(n):
        data.qpos[:6] = q[i]
        data.qvel[:6] = qd[i]
        still.qpos[:6] = q[i]
        mujoco.mj_forward(model, data)
        mujoco.mj_forward(model, still)
        c = kd + kp * dt
        torque = kp * (np.clip(target[i], low, high) - q[i]) - c * qd[i] + arm.compensation * still.qfrc_bias[:6]
        free = np.abs(torque) < limit
        at_limit += (~free).sum()
        inertia = mass_matrix(model, data) + dt * np.diag(c * free + damping)
        theirs = np.linalg.solve(inertia, np.clip(torque, -limit, limit) - damping * qd[i] - data.qfrc_bias[:6])
        assert np.linalg.norm(ours[i] - theirs) < TOLERANCE[name] * np.linalg.norm(theirs)
    assert n < at_limit < 5 * n


def test_accelerations_agree_closer_in_double_precision():
    if real == np.float64:
        pytest.skip("this is double precision")
    test = f"{__file__}::test_accelerations_agree_with_mujoco"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test], cwd=ROOT,
        env=fresh_environment(FOAL_REAL="float64"), check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert f"{len(ARMS)} passed" in run.stdout


@pytest.mark.parametrize("name", ARMS)
def test_motion_converges_to_mujocos(name):
    n = 8
    seconds = 0.1
    arm = ARMS[name]
    model, data = twin(arm, 1e-4, option='integrator="RK4"')
    errors = []
    for dt in (5e-4, 2.5e-4):
        arms = scattered(arm, n, dt, seed=3, spread=0.3)
        target = arms.get(A.TARGET, 6) + 0.2
        arms.put(A.TARGET, target)
        start = arms.get(A.JOINT, 12)
        arms.step(round(seconds / dt))
        theirs = []
        for i in range(n):
            mujoco.mj_resetData(model, data)
            data.qpos[:6] = start[i, :6]
            data.qvel[:6] = start[i, 6:]
            data.ctrl[:] = target[i]
            data.qpos[8] = 50.0
            mujoco.mj_step(model, data, round(seconds / model.opt.timestep))
            theirs.append(data.qpos[:6].copy())
        assert np.linalg.norm(theirs - start[:, :6]) > 0.3 * np.sqrt(n)
        errors.append(np.abs(arms.get(A.JOINT, 6) - theirs).max())
    # of first order
    assert errors[0] < 3e-3, errors
    assert 0.4 < errors[1] / errors[0] < 0.6, errors


def test_half_a_second_ends_where_mujoco_does():
    n = 8
    dt = 1e-3
    arms = scattered(ARM, n, dt, seed=5, spread=0.3)
    target = arms.get(A.TARGET, 6) + 0.3
    arms.put(A.TARGET, target)
    start = arms.get(A.JOINT, 12)
    arms.step(500)
    model, data = twin(ARM, dt, option='integrator="RK4"')
    for i in range(n):
        mujoco.mj_resetData(model, data)
        data.qpos[:6] = start[i, :6]
        data.qvel[:6] = start[i, 6:]
        data.ctrl[:] = target[i]
        data.qpos[8] = 50.0
        mujoco.mj_step(model, data, 500)
        np.testing.assert_allclose(arms.get(A.JOINT, 6)[i], data.qpos[:6], atol=2e-4)
        np.testing.assert_allclose(arms.get(A.PADDLE, 3)[i], data.body("paddle").xpos, atol=1e-4)
        np.testing.assert_allclose(arms.get(A.PADDLE_NORMAL, 3)[i], data.body("paddle").xmat[2::3], atol=2e-4)


def test_an_arm_left_alone_keeps_its_energy():
    n = 16
    model, data = twin(LIMP)
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
    model.body_mass[model.body("ball").id] = 0.0

    def energy(arms):
        rows = []
        for q, qd in zip(arms.get(A.JOINT, 6), arms.get(A.JOINT_SPEED, 6), strict=True):
            data.qpos[:6] = q
            data.qvel[:6] = qd
            mujoco.mj_forward(model, data)
            rows.append(data.energy.sum())
        return np.array(rows)

    drift = []
    for dt in (5e-4, 2.5e-4):
        arms = scattered(LIMP, n, dt)
        before = energy(arms)
        arms.step(round(0.3 / dt))
        drift.append(np.linalg.norm(energy(arms) - before) / np.linalg.norm(before))
    assert drift[0] < 5e-3, drift
    assert 0.4 < drift[1] / drift[0] < 0.6, drift


def test_at_home_the_paddle_is_level_and_stays_there():
    arms = Arms(ARM, drop=50.0)
    arms.step(400)
    np.testing.assert_allclose(arms.get(A.JOINT, 6)[0], ARM.home, atol=1e-4)
    np.testing.assert_allclose(arms.get(A.PADDLE_NORMAL, 3)[0], [0, 0, 1], atol=2e-4)
    np.testing.assert_allclose(arms.get(A.PADDLE, 3)[0], ARM.frames(ARM.home)[0][6], atol=1e-4)
    x, y, z = arms.get(A.PADDLE, 3)[0]
    assert 0.4 < x < 0.6
    assert abs(y) < 1e-3
    assert 0.4 < z < 0.5


def test_targets_are_cut_at_the_joint_range():
    arms = Arms(ARM, 2, drop=50.0)
    arms.put(A.TARGET, [[9.0] * 6, [-9.0] * 6])
    arms.step(1200)
    np.testing.assert_allclose(arms.get(A.JOINT, 6), of_links(ARM, "joint_range").T[::-1], atol=2e-3)


def test_end_stops_push_back_only_beyond_the_range():
    arm = dataclasses.replace(with_links(LIMP, armature=200.0), limit_stiffness=300.0)
    low, high = of_links(arm, "joint_range").T
    arms = Arms(arm, 3, 0.001, gravity=0.0)
    arms.put(A.JOINT, [low - 0.1, (low + high) / 2, high + 0.1])
    arms.step(5)
    expected = 300.0 * 0.1 / 200.0 * np.array([[1], [0], [-1]])
    np.testing.assert_allclose(arms.get(A.JOINT_SPEED, 6) / 0.005, np.tile(expected, 6), rtol=0.03, atol=1e-4)


def test_the_same_bits_whatever_the_number_of_robots_and_their_shares():
    def state(n, parts, broken=None):
        arms = Arms(ARM, n)
        rng = np.random.default_rng(11)
        arms.put(A.TARGET, ARM.home + rng.uniform(-0.05, 0.05, (200, 6))[:n])
        arms.put(A.BALL_VELOCITY, rng.uniform(-0.1, 0.1, (200, 3))[:n])
        if broken is not None:
            arms.blocks.reshape(len(arms.blocks), -1, LANES)[broken // LANES, :, broken % LANES] = np.nan
        for start, stop in parts:
            arm_step(arms.blocks, start, stop, arms.work, arms.constants, 300)
        assert np.nanmin(arms.get(A.HITS)) > 0
        return arms.get(0, A.STATE_ROWS)

    many = state(200, [(3, 7), (0, 3)])
    assert many[:40].tobytes() == state(40, [(0, 2)]).tobytes()
    assert many[:1].tobytes() == state(1, [(0, 1)]).tobytes()
    others = state(200, [(0, 7)], broken=5)
    assert np.isnan(others[5, A.BALL])
    assert np.delete(many, 5, axis=0).tobytes() == np.delete(others, 5, axis=0).tobytes()
