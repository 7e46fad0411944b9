"""The arm's ball and how it meets the paddle, against hand arithmetic, conservation laws and MuJoCo."""

import dataclasses

import mujoco
import numpy as np
import pytest
from arms import ARM, GRAVITY, LIMP, Arms, mass_matrix, scattered, twin, with_links

from physics import arm as A
from physics import arm_model as M

REACH = ARM.paddle.half_thickness + ARM.ball.radius  # of the ball's centre above the paddle's when they touch [m]
HELD = with_links(LIMP, armature=1e6)  # so heavy that nothing moves it
FELT = dataclasses.replace(ARM, ball=M.Ball(mass=0.3))  # it feels its ball


def test_a_ball_falls_and_turns_exactly():
    arms = Arms(HELD, drop=8.0)
    seconds = 1.0
    start = arms.get(A.BALL, 3)[0]
    velocity = np.array([0.3, -0.2, 1.0])
    spin = np.array([1.0, -2.0, 0.5])
    arms.put(A.BALL_VELOCITY, velocity)
    arms.put(A.BALL_SPIN, spin)
    arms.put(A.BALL_QUATERNION, [0.5, -0.5, 0.5, 0.5])
    arms.step(400)
    fall = np.array([0, 0, -GRAVITY])
    np.testing.assert_allclose(arms.get(A.BALL, 3)[0], start + seconds * velocity + seconds**2 / 2 * fall, atol=5e-5)
    np.testing.assert_allclose(arms.get(A.BALL_VELOCITY, 3)[0], velocity + seconds * fall, atol=5e-5)
    angle = np.linalg.norm(spin)
    expected = np.zeros(4)
    mujoco.mju_mulQuat(expected, [np.cos(angle / 2), *(np.sin(angle / 2) * spin / angle)], [0.5, -0.5, 0.5, 0.5])
    np.testing.assert_allclose(arms.get(A.BALL_QUATERNION, 4)[0], expected, atol=2e-5)


@pytest.mark.parametrize("restitution", [1.0, 0.9, 0.7, 0.5])
def test_a_bounce_returns_the_height_times_restitution_squared(restitution):
    n = 40  # heights, each with its own phase of the step
    arms = Arms(dataclasses.replace(HELD, restitution=restitution), n)
    height = np.linspace(0.1, 0.7, n)
    ground = arms.get(A.PADDLE, 3)[0, 2] + REACH
    arms.put(A.BALL + 2, (ground + height)[:, None])
    top = np.zeros(n)
    for _ in range(200):
        arms.step()
        z = arms.get(A.BALL + 2)[:, 0] - ground
        v = arms.get(A.BALL_VELOCITY + 2)[:, 0]
        top = np.where(arms.get(A.HITS)[:, 0] == 1, z + v * v / (2 * GRAVITY), top)
    np.testing.assert_allclose(top, restitution**2 * height, rtol=1e-4, atol=1e-5)


def test_a_perfect_bounce_goes_on_for_ever():
    arms = Arms(dataclasses.replace(HELD, restitution=1.0))
    arms.step(4000)
    z = arms.get(A.BALL + 2)[0, 0]
    v = arms.get(A.BALL_VELOCITY + 2)[0, 0]
    assert arms.get(A.HITS)[0, 0] == 20
    np.testing.assert_allclose(z + v * v / (2 * GRAVITY) - arms.get(A.PADDLE + 2)[0, 0] - REACH, 0.3, rtol=5e-3)
    np.testing.assert_allclose(arms.get(A.HIT_SPEED)[0, 0], np.sqrt(2 * GRAVITY * 0.3), rtol=3e-3)


def test_mujocos_ball_bounces_alike():
    arms = Arms(ARM, timestep=0.001)
    (model, data) = twin(ARM, 0.0002)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    heights = []
    for _ in range(600):
        arms.step()
        mujoco.mj_step(model, data, 5)
        heights.append([arms.get(A.BALL + 2)[0, 0], data.body("ball").xpos[2]])
    ours, theirs = (
        np.max(heights[300:], axis=0) - ARM.frames(ARM.home)[0][6, 2] - REACH
    )  # the first bounce is at 0.25 s
    np.testing.assert_allclose(ours, 0.81 * 0.3, rtol=0.02)
    np.testing.assert_allclose(theirs, ours, rtol=0.03)


def test_the_lower_face_bounces_too_but_counts_no_hit():
    arms = Arms(HELD, gravity=0.0)
    arms.put(A.BALL, arms.get(A.PADDLE, 3) - [0, 0, 0.05])
    arms.put(A.BALL_VELOCITY, [0.0, 0.0, 2.0])
    arms.step(40)
    np.testing.assert_allclose(arms.get(A.BALL_VELOCITY, 3)[0], [0, 0, -1.8], atol=1e-4)
    assert arms.get(A.HITS)[0, 0] == 0


def test_a_ball_beside_the_paddle_falls_past_it():
    arms = Arms(HELD, 2)
    arms.put(A.BALL, arms.get(A.BALL, 3) + [[0, 0.97 * ARM.paddle.radius, 0], [0, 1.03 * ARM.paddle.radius, 0]])
    arms.step(200)
    inside, outside = arms.get(A.BALL + 2)[:, 0]
    assert arms.get(A.HITS)[:, 0].tolist() == [1, 0]
    assert inside > ARM.frames(ARM.home)[0][6, 2]
    np.testing.assert_allclose(outside, arms.get(A.PADDLE + 2)[0, 0] + REACH + 0.3 - GRAVITY * 0.5**2 / 2, atol=1e-4)


def test_the_rim_is_where_the_ball_meets_it():
    # almost a step before it touches, so that it crosses the rim on its way
    arms = Arms(HELD, 2, gravity=0.0)
    out = ARM.paddle.radius + 0.005 * np.array([1, -1])
    arms.put(A.BALL, arms.get(A.PADDLE, 3) + np.stack([0 * out, out, np.full(2, REACH + 0.0045)], axis=1))
    arms.put(A.BALL_VELOCITY, [[0, -4.0, -2.0], [0, 4.0, -2.0]])
    arms.step()
    assert arms.get(A.HITS)[:, 0].tolist() == [1, 0]


def test_a_ball_that_comes_in_across_the_rim_passes():
    arms = Arms(HELD, gravity=0.0)
    arms.put(A.BALL, arms.get(A.PADDLE, 3) + [-0.16, 0, 0.005])
    arms.put(A.BALL_VELOCITY, [1.0, 0, -0.001])
    arms.step(100)
    np.testing.assert_allclose(arms.get(A.BALL_VELOCITY, 3)[0], [1.0, 0, -0.001])


def test_an_overlap_is_taken_apart_gently():
    arms = Arms(HELD)
    arms.put(A.BALL, arms.get(A.PADDLE, 3) + [0, 0, REACH - 0.001])
    for _ in range(200):
        arms.step()
        assert abs(arms.get(A.BALL_VELOCITY + 2)[0, 0]) < 0.05
    np.testing.assert_allclose(arms.get(A.BALL + 2)[0, 0] - arms.get(A.PADDLE + 2)[0, 0], REACH, atol=1e-6)


def test_a_fast_ball_does_not_tunnel():
    n = 50
    arms = Arms(HELD, n, gravity=0.0)
    arms.put(A.BALL + 2, arms.get(A.BALL + 2) + np.linspace(0, 0.1, n)[:, None])
    arms.put(A.BALL_VELOCITY + 2, [-40.0])
    arms.step(20)
    np.testing.assert_allclose(arms.get(A.BALL_VELOCITY + 2), 36.0, rtol=1e-5)


@pytest.mark.parametrize(("across", "expected"), [(0.5, 0.3), (10.0, 10.0 - 0.3 * 1.9 * 2.0)])
def test_friction_grips_or_slides_and_spins_the_ball(across, expected):
    # a hollow ball that grips keeps 3/5 of its speed and rolls; one that slides loses mu times the normal impulse
    arms = Arms(HELD, 2, gravity=0.0)
    r = ARM.ball.radius
    arms.put(A.BALL, arms.get(A.PADDLE, 3) + [0, 0, REACH + 0.001])
    arms.put(A.BALL_VELOCITY, [[across, 0, -2.0], [0, -across, -2.0]])
    arms.step()
    lost = across - expected
    np.testing.assert_allclose(arms.get(A.BALL_VELOCITY, 3), [[expected, 0, 1.8], [0, -expected, 1.8]], atol=1e-3)
    np.testing.assert_allclose(r * arms.get(A.BALL_SPIN, 3), [[0, 1.5 * lost, 0], [1.5 * lost, 0, 0]], atol=1e-3)


def test_topspin_throws_the_ball_forwards():
    arms = Arms(HELD, gravity=0.0)
    arms.put(A.BALL, arms.get(A.PADDLE, 3) + [0, 0, REACH + 0.001])
    arms.put(A.BALL_VELOCITY, [0, 0, -3.0])
    arms.put(A.BALL_SPIN, [0, 20.0, 7.0])
    arms.step()
    np.testing.assert_allclose(arms.get(A.BALL_VELOCITY, 3)[0], [0.4 * 20 * ARM.ball.radius, 0, 2.7], atol=1e-4)
    np.testing.assert_allclose(arms.get(A.BALL_SPIN, 3)[0], [0, 0.4 * 20, 7.0], atol=5e-3)


def test_a_ball_comes_to_rest_and_stays():
    arms = Arms(HELD, drop=0.02)
    arms.put(A.BALL_VELOCITY, [0.0, 0.0, 0.3])
    arms.step(1600)
    hits = arms.get(A.HITS)[0, 0]
    assert 5 < hits < 40
    for _ in range(100):
        arms.step()
        assert abs(arms.get(A.BALL + 2)[0, 0] - arms.get(A.PADDLE + 2)[0, 0] - REACH) < 3e-6
        assert abs(arms.get(A.BALL_VELOCITY + 2)[0, 0]) < 1e-4
    assert arms.get(A.HITS)[0, 0] == hits


def test_a_paddle_that_rises_under_a_ball_lifts_it_without_a_bounce():
    arms = Arms(ARM, drop=0.0)
    arms.step(100)
    hits = arms.get(A.HITS)[0, 0]
    start = arms.get(A.BALL + 2)[0, 0]
    arms.put(A.TARGET, ARM.home - [0, 0.1, 0, 0, 0, 0])
    for _ in range(4):
        speed = arms.get(A.BALL_VELOCITY + 2)[0, 0]
        arms.step()
        ball = arms.get(A.BALL, 3)[0] - arms.get(A.PADDLE, 3)[0]
        up = arms.get(A.PADDLE_NORMAL, 3)[0]
        assert abs(ball @ up - REACH) < 1e-4
    assert arms.get(A.HITS)[0, 0] == hits
    assert arms.get(A.BALL + 2)[0, 0] > start + 0.0005
    assert speed > 0.1


def test_a_moving_paddle_meets_a_waiting_ball_in_time():
    n = 12
    steps = 12
    dt = 0.0025
    turn = -1.0
    arms = Arms(dataclasses.replace(HELD, restitution=1.0, friction=0.0), n, dt, gravity=0.0)
    gaps = np.linspace(0.001, 0.008, n)
    arms.put(A.BALL + 2, arms.get(A.PADDLE + 2) + REACH + gaps[:, None])
    arms.put(A.JOINT_SPEED + 1, [turn])
    rise = -turn * arms.get(A.PADDLE)[0, 0]
    arms.step(steps)
    expected = arms.get(A.PADDLE + 2)[0, 0] + REACH + rise * (steps * dt) - gaps
    assert (arms.get(A.HITS) == 1).all()
    np.testing.assert_allclose(arms.get(A.BALL_VELOCITY + 2)[:, 0], 2 * rise, rtol=1e-2)
    np.testing.assert_allclose(arms.get(A.BALL + 2)[:, 0], expected, atol=3e-4)


def test_a_ball_rolls_down_a_tilted_paddle():
    arms = Arms(HELD, gravity=GRAVITY)
    tilt = 0.1
    seconds = 0.5
    joints = ARM.home + [0, 0, 0, tilt, 0, 0]
    origins, turns = ARM.frames(joints)
    arms.put(A.JOINT, joints)
    arms.put(A.BALL, origins[6] + REACH * turns[6, :, 2])
    arms.step(round(seconds / 0.0025))
    # a hollow sphere: a = 3/5 g sin(tilt)
    speed = 0.6 * GRAVITY * np.sin(tilt) * seconds
    np.testing.assert_allclose(arms.get(A.BALL_VELOCITY, 3)[0], speed * turns[6, :, 0], atol=5e-3 * speed)
    np.testing.assert_allclose(arms.get(A.BALL_SPIN, 3)[0], [0, speed / ARM.ball.radius, 0], rtol=5e-3, atol=1e-3)
    np.testing.assert_allclose(
        arms.get(A.BALL, 3)[0] - origins[6] - REACH * turns[6, :, 2], seconds / 2 * speed * turns[6, :, 0], atol=5e-4
    )


def meeting(arm, n=64, seed=2, gravity=0.0):
    """Return arms whose balls touch their paddles and come at them, the same arms without, and the normals (n, 3)."""
    pair = [scattered(arm, n, 0.0025, seed, 0.5, gravity=gravity) for _ in range(2)]
    rng = np.random.default_rng(seed)
    origins, turns = (np.array(part) for part in zip(*(arm.frames(q) for q in pair[0].get(A.JOINT, 6)), strict=True))
    normals = turns[:, 6, :, 2] * rng.choice([-1, 1], (n, 1))
    within = np.einsum("nij,nj->ni", turns[:, 6, :, :2], rng.uniform(-0.06, 0.06, (n, 2)))
    velocity = 1.5 * rng.normal(size=(n, 3)) - 6.0 * normals
    spin = 30 * rng.normal(size=(n, 3))
    for arms in pair:
        arms.put(A.BALL_VELOCITY, velocity)
        arms.put(A.BALL_SPIN, spin)
    pair[0].put(A.BALL, origins[:, 6] + within + (REACH + 1e-6) * normals)
    return *pair, normals


def contacts(arms, normals):
    """Return MuJoCo's mass matrix (6, 6) and Jacobian (3, 6) of the point where the ball touches, of every arm."""
    model, data = twin(arms.arm)
    rows = []
    jacobian = np.zeros((3, model.nv))
    for q, ball, normal in zip(arms.get(A.JOINT, 6), arms.get(A.BALL, 3), normals, strict=True):
        data.qpos[:6] = q
        mujoco.mj_forward(model, data)
        mujoco.mj_jac(model, data, jacobian, None, ball - arms.arm.ball.radius * normal, model.body("paddle").id)
        rows.append((mass_matrix(model, data), jacobian[:, :6].copy()))
    return rows


def test_what_the_ball_gains_the_arm_loses():
    arm = dataclasses.replace(FELT, friction=0.1)
    ball = arm.ball
    (met, alone, normals) = meeting(arm)
    rows = contacts(met, normals)
    met.step()
    alone.step()
    impulse = ball.mass * (met.get(A.BALL_VELOCITY, 3) - alone.get(A.BALL_VELOCITY, 3))
    pushed = met.get(A.JOINT_SPEED, 6) - alone.get(A.JOINT_SPEED, 6)
    spun = ball.inertia * (met.get(A.BALL_SPIN, 3) - alone.get(A.BALL_SPIN, 3))
    np.testing.assert_allclose(spun, np.cross(-ball.radius * normals, impulse), atol=1e-4)
    along = (impulse * normals).sum(axis=1)
    across = np.linalg.norm(impulse - along[:, None] * normals, axis=1)
    assert (along > 0.3).all()
    assert (across < 0.1001 * along).all()
    slides = across > 0.0999 * along
    assert 10 < slides.sum() < 54
    for i, (inertia, jacobian) in enumerate(rows):
        expected = np.linalg.solve(inertia, jacobian.T @ -impulse[i])
        assert np.linalg.norm(pushed[i] - expected) < 2e-4 * np.linalg.norm(expected)
        if not slides[i]:
            # what grips has stopped slipping along its friction
            rubbed = (impulse - along[:, None] * normals)[i] / across[i]
            slip = (
                met.get(A.BALL_VELOCITY, 3)[i]
                + np.cross(met.get(A.BALL_SPIN, 3)[i], -ball.radius * normals[i])
                - jacobian @ met.get(A.JOINT_SPEED, 6)[i]
            )
            assert abs(slip @ rubbed) < 1e-3


def test_restitution_is_that_of_the_speeds_relative_to_the_moving_paddle():
    arm = dataclasses.replace(FELT, friction=0.0, restitution=0.8)
    met, alone, normals = meeting(arm)
    rows = contacts(met, normals)
    met.step()
    alone.step()
    for i, (_, jacobian) in enumerate(rows):
        after, before = (
            (arms.get(A.BALL_VELOCITY, 3)[i] - jacobian @ arms.get(A.JOINT_SPEED, 6)[i]) @ normals[i]
            for arms in (met, alone)
        )
        assert before < -1.0
        np.testing.assert_allclose(after, -0.8 * before, rtol=2e-4)


@pytest.mark.parametrize("restitution", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("friction", [0.0, 0.1, 2.0])
def test_a_bounce_gains_no_energy(restitution, friction):
    arm = dataclasses.replace(FELT, friction=friction, restitution=restitution)
    met, alone, normals = meeting(arm)
    rows = contacts(met, normals)
    met.step()
    alone.step()

    def energy(arms, i):
        v, spin, qd = (
            arms.get(row, count)[i] for row, count in ((A.BALL_VELOCITY, 3), (A.BALL_SPIN, 3), (A.JOINT_SPEED, 6))
        )
        return (arm.ball.mass * v @ v + arm.ball.inertia * spin @ spin + qd @ rows[i][0] @ qd) / 2

    gain = np.array([energy(met, i) / energy(alone, i) for i in range(met.n)]) - 1
    assert (gain < 1e-5).all()
    if restitution == 1 and friction == 0:
        np.testing.assert_allclose(gain, 0, atol=1e-5)
    else:
        assert gain.mean() < -1e-3
