"""Tasks that follow a motion: what robots are shown, begin with, are rewarded for, and what comes of it."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from oracle import rotation
from walking import ALIKE, NEVER_FALL, make, to_heading, wander

from environments import registry
from environments.quadruped.reference import COLUMNS, Reference
from motion import clip, follow, gait, kinematics, plot
from physics import load_robot, save_robot
from physics.jit import ROOT
from settings import ConfigError
from training import checkpoint
from training.evaluation import evaluate

TRACK = "quadruped-track"
MIMIC = "quadruped-mimic"
STILL = {
    "reset.joint_position": 0.0, "reset.joint_velocity": 0.0, "reset.tilt": 0.0, "reset.velocity": 0.0,
    "reset.spin": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def go1():
    return load_robot("go1")


@pytest.mark.parametrize("task", [TRACK, MIMIC])
def test_episodes_begin_in_the_motion(task):
    env = make(task, 64, STILL)
    env.init_state(seed=5)
    state = env.engine.get_state()
    np.testing.assert_array_equal(state.joint_position, env.field("reference_joint"))
    np.testing.assert_array_equal(state.joint_velocity, env.field("reference_joint_speed"))
    assert np.ptp(state.joint_position[:, 1]) > 0.2  # not all in the same frame
    velocity = np.column_stack(
        [to_heading(state.base_quaternion, state.base_linear_velocity[:, :2]), state.base_linear_velocity[:, 2]]
    )
    np.testing.assert_allclose(velocity, env.field("reference_velocity"), atol=1e-5)
    np.testing.assert_allclose(state.base_position[:, 2], env.field("reference_height")[:, 0], atol=1e-5)
    np.testing.assert_allclose(env.errors()["joint_error"], 0.0, atol=1e-6)
    if task == MIMIC:  # a pronk: of some, no foot is on the ground
        assert (env.reference.sheet[:, COLUMNS["reference_rise"]] > 0.01).mean() > 0.1


@pytest.mark.parametrize("task", [TRACK, MIMIC])
def test_feet_and_height_of_a_motion_are_where_its_joints_put_them(task, go1):
    env = make(task, 40)
    env.init_state(seed=1)
    wander(env, 5, 0.1)
    feet = kinematics.feet(go1, env.field("reference_joint").astype(float))
    np.testing.assert_allclose(env.field("reference_foot").reshape(-1, 4, 3), feet, atol=1e-5)
    height = (go1.foot_radius - feet[..., 2]).max(axis=1) + env.reference.sheet[env.reference.rows][
        :, COLUMNS["reference_rise"]
    ].ravel()
    np.testing.assert_allclose(env.field("reference_height")[:, 0], height, atol=1e-5)


def test_actions_count_from_where_the_motion_will_be(go1):
    env = make(TRACK, 8, NEVER_FALL)
    env.init_state(seed=2)
    upcoming = env.field("next_joint")
    actions = np.random.default_rng(0).normal(0, 0.5, (8, 12)).astype(np.float32)
    env.step(actions)
    low, high = go1.joint_range.reshape(12, 2).T
    expected = np.clip(upcoming + env.cfg.action_scale * actions, low, high)
    np.testing.assert_allclose(env.engine.get("target"), expected, atol=1e-5)
    np.testing.assert_allclose(env.field("reference_joint"), upcoming, atol=0.02)  # as commands change by then


def test_a_generator_is_steered_by_commands():
    env = make(TRACK, 32, NEVER_FALL, {"command.interval": (1e5, 1e6), "push.interval": (1e5, 1e6)})
    env.init_state(seed=4)
    command = env.field("command")
    wander(env, 30, 0.05)
    np.testing.assert_array_equal(env.field("command"), command)
    np.testing.assert_allclose(env.field("reference_velocity")[:, :2], command[:, :2], atol=1e-5)
    np.testing.assert_allclose(env.field("reference_spin")[:, 2], command[:, 2], atol=1e-5)
    moves = np.linalg.norm(command[:, :2], axis=1) > 0.3
    swing = np.ptp([wander(env, 1, 0.0) and env.field("reference_joint") for _ in range(30)], axis=0)
    assert swing[moves][:, 2].min() > 0.2


@pytest.mark.parametrize("task", [TRACK, MIMIC])
def test_parts_follow_as_the_whole_does(task):
    n = 80
    whole = make(task, n)
    parts = make(task, n).split(2)
    assert [part.num_envs for part in parts] == [32, 48]
    actions = np.random.default_rng(2).normal(0, 2.0, (40, n, 12)).astype(np.float32)
    seen = [whole.init_state(seed=7).obs.copy()]
    theirs = [np.concatenate([part.init_state(seed=7).obs for part in parts])]
    ended = 0
    for step, action in enumerate(actions):
        if step % 10 == 9:
            whole.set_level()
            parts[0].set_level()
        s = whole.step(action)
        ended += s.done.sum()
        seen.append(s.obs.copy())
        theirs.append(np.concatenate([parts[0].step(action[:32]).obs, parts[1].step(action[32:]).obs]))
    assert ended > 5
    np.testing.assert_array_equal(seen, theirs)


@pytest.mark.parametrize("task", [TRACK, MIMIC])
def test_a_run_goes_on_to_the_same_bits(task):
    env = make(task, 40)
    other = make(task, 40)
    env.init_state(seed=3)
    wander(env, 25, 1.0)
    other.init_state(seed=9)
    other.restore({name: copy.copy(x) for name, x in env.snapshot().items()})
    for step in range(10):
        np.testing.assert_array_equal(wander(env, 1, 1.0, step).obs, wander(other, 1, 1.0, step).obs)


def test_how_far_behind_is_what_velocities_come_to():
    env = make(MIMIC, 16, NEVER_FALL, {"termination.stray_height": 5.0, "termination.stray_foot": 9.0})
    env.init_state(seed=6)
    start = env.engine.get_state()
    heading = np.arctan2(*rotation(start.base_quaternion)[:, 1::-1, 0].T)
    way = np.zeros((16, 2))
    for _ in range(20):
        env.step(np.zeros((16, 12)))
        speed = env.field("reference_velocity")[:, 0]
        way += 0.02 * speed[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    moved = env.engine.get_state().base_position[:, :2] - start.base_position[:, :2]
    np.testing.assert_allclose(env.field("lag"), moved - way, atol=0.03)
    np.testing.assert_allclose(env.errors()["place_error"], np.linalg.norm(env.field("lag"), axis=1), rtol=1e-5)


def test_any_foot_elsewhere_ends_an_episode():
    loose = {"kp": 0.0, "kd": 0.0, "fall_height": 0.0, "termination.stray_height": 9.0}
    env = make(MIMIC, 16, {"termination.stray_foot": 0.3, **loose})
    env.init_state(seed=1)
    state = env.engine.get_state()
    joints = state.joint_position.copy()
    for robot in range(12):
        leg = robot % 4
        joints[robot, 3 * leg + 1] += 0.8  # a foot some 0.2 m away
    env.engine.set_state(joint_position=joints, base_position=state.base_position + [0.0, 0.0, 0.2])
    s = env.step(np.zeros((16, 12)))
    np.testing.assert_array_equal(s.terminated, np.arange(16) < 12)
    assert env.statistics()["end_strayed_foot"] == 12


def test_rewards_are_full_for_what_the_motion_does():
    env = make(MIMIC, 32, STILL)
    env.init_state(seed=8)
    env.compute_reward_parallel()
    for name in ("joint_tracking", "joint_speed_tracking", "foot_tracking", "root_tracking", "velocity_tracking"):
        weight = getattr(env.cfg.reward, name)
        np.testing.assert_allclose(env.reward_terms()[name], weight * env.cfg.ctrl_dt, rtol=1e-3, err_msg=name)
    state = env.engine.get_state()
    env.engine.set_state(joint_position=state.joint_position + 0.1)
    env.compute_reward_parallel()
    width = env.cfg.reward.joint_width
    expected = env.cfg.reward.joint_tracking * env.cfg.ctrl_dt * np.exp(-0.03 / width**2)
    np.testing.assert_allclose(env.reward_terms()["joint_tracking"], expected, rtol=1e-3)


def reference(changes, n=64):
    """Return what robots of a clip follow, by itself."""
    cfg = make(MIMIC, 1, changes).cfg
    return follow.Recorded(cfg, load_robot("go1"), n, 1)


def test_episodes_begin_where_robots_fail(go1, tmp_path):
    long = gait.clip(go1, "trot", np.tile([0.5, 0.0, 0.0], (500, 1)))
    clip.save(tmp_path / "long.npz", long)
    made = reference({"motion.clip": str(tmp_path / "long.npz")}, 4096)
    made.begin(1, 0)
    nobody = np.zeros(4096, bool)
    made.settle(np.zeros((4096, 3)), nobody, nobody, 0)
    assert np.histogram(made.rows, 10, (0, 500))[0].min() > 320  # of 410
    made.adapt()
    np.testing.assert_allclose(made.shares, 1 / len(made.shares))
    failed = (made.rows >= 300) & (made.rows < 310)
    made.settle(np.zeros((4096, 3)), failed, nobody, 1)
    made.adapt()
    made.settle(np.zeros((4096, 3)), nobody, ~nobody, 2)  # those starts were drawn before
    made.settle(np.zeros((4096, 3)), nobody, ~nobody, 3)
    there = np.histogram(made.rows, 50, (0, 500))[0] / 4096
    assert there[28:31].sum() > 0.35  # where they failed and shortly before
    assert 0.002 < there[35:].max() < 0.012  # elsewhere a quarter, spread
    assert made.shares.sum() == pytest.approx(1.0)
    made.begin(1, 0)  # as evaluations do
    np.testing.assert_allclose(made.shares, 1 / len(made.shares))


def test_failures_count_wherever_else_robots_are_looked_at(go1):
    made = reference({}, 64)
    made.begin(1, 0)
    parts = [made.part(0, 32), made.part(32, 64)]
    parts[0].part(0, 8)  # those that a window shows
    everybody = np.ones(32, bool)
    for part in parts:
        part.settle(np.zeros((32, 3)), everybody, ~everybody, 0)
    made.adapt()
    assert made.failures.sum() == 64


def test_a_closed_clip_goes_round_and_another_is_held(go1):
    for closed, frames in ((True, 119), (False, 100)):
        made = gait.clip(go1, "pronk", np.tile([0.5, 0.0, 0.0], (frames, 1)))
        assert follow.closes(made) == closed
        sheet, following = follow.frames(made, go1, closed, 0.02)
        row = 0
        for _ in range(2 * frames):
            row = following[row]
        assert row == (2 * frames % len(sheet) if closed else frames)
        still = sheet[frames - (1 if closed else 0), COLUMNS["reference_joint_speed"]]
        assert (np.abs(still).max() > 0.1) == closed
        np.testing.assert_array_equal(sheet[:-1, COLUMNS["next_joint"]], sheet[1:, COLUMNS["reference_joint"]])
        np.testing.assert_array_equal(sheet[:-5, COLUMNS["later_joint"]], sheet[5:, COLUMNS["reference_joint"]])
    for name in follow.CLIPS:
        assert follow.closes(follow.found(name, go1, 50.0))


def test_clips_of_another_frame_rate_are_interpolated(go1):
    command = np.tile([0.5, 0.1, 0.8], (200, 1))
    fast = gait.clip(go1, "trot", np.repeat(command, 2, axis=0), fps=100.0)
    slow = gait.clip(go1, "trot", command, fps=50.0)
    found = fast.resampled(50.0)
    assert found.fps == 50.0 and fast.resampled(100.0) is fast
    for name, x in found.arrays().items():
        np.testing.assert_allclose(x[:190], slow.arrays()[name][:190], atol=0.05 if "velocity" in name else 0.01)
    between = slow.resampled(75.0)
    np.testing.assert_allclose(np.linalg.norm(between.root_quaternion, axis=1), 1.0)
    between.require_sound()


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        (MIMIC, {"motion.clip": "dance"}, "motion.clip: expected a file ending in .npz, or pronk or spin, got 'dance'"),
        (MIMIC, {"motion.clip": "none.npz"}, "motion.clip: no such file: none.npz"),
        (MIMIC, {"motion.source": ""}, "motion.source: expected module:class"),
        (MIMIC, {"motion.source": "motion.follow:nothing"}, "motion.source: expected a subclass of Reference"),
        (MIMIC, {"motion.source": "no_such:thing"}, "motion.source: expected a module"),
        (TRACK, {"ctrl_dt": 0.01, "sim_dt": 0.005}, "env.ctrl_dt: expected 0.02 s"),
        (TRACK, {"motion.network": "none.pt"}, "none.pt"),
    ],
)
def test_what_cannot_be_followed_is_told_in_a_line(task, changes, words):
    with pytest.raises(ConfigError) as error:
        registry.make(task, env_cfg_override=changes)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_robot_without_a_generator_is_told_how_to_come_by_one(go1, tmp_path):
    path = tmp_path / "mine.json"
    save_robot(go1, path)
    with pytest.raises(ConfigError, match=r"motion\.network: .* of mine comes with Foal; python -m motion\.fit"):
        registry.make(TRACK, env_cfg_override={"model": str(path)})
    with pytest.raises(ConfigError, match="expected a generator of mine, got one of go1"):
        network = str(ROOT / "checkpoints" / "motion" / "go1.pt")
        registry.make(TRACK, env_cfg_override={"model": str(path), "motion.network": network})


def test_clips_of_other_robots_or_damaged_ones_are_refused(go1, tmp_path):
    good = gait.clip(go1, "pronk", np.zeros((20, 3)))
    path = tmp_path / "clip.npz"
    for name, broken in (
        ("joint_position", dataclasses.replace(good, joint_position=good.joint_position[:, :8])),
        ("joint_position", dataclasses.replace(good, joint_position=good.joint_position + 3.0)),
        ("root_position", dataclasses.replace(good, root_position=good.root_position * np.nan)),
    ):
        clip.save(path, broken)
        with pytest.raises(ConfigError, match=name):
            registry.make(MIMIC, env_cfg_override={"motion.clip": str(path)})


def test_tasks_that_follow_nothing_keep_nothing_of_it():
    env = make("quadruped-walk-flat", 1)
    assert type(env.reference) is Reference and env.view()["ghost"] is None
    with pytest.raises(KeyError):
        env.field("reference_joint")


def test_the_ghost_is_the_pose_of_the_motion():
    env = make(MIMIC, 2, STILL)
    env.init_state(seed=2)
    view = env.view(1)
    ghost = view["ghost"]
    for name in ("base_position", "base_quaternion", "joint_position"):
        np.testing.assert_allclose(ghost[name], view[name], atol=1e-4, err_msg=name)
    wander(env, 3, 0.5)
    assert np.abs(env.view(1)["ghost"]["joint_position"] - env.view(1)["joint_position"]).max() > 0.01


@pytest.mark.parametrize(
    ("task", "most"),
    [(TRACK, {"velocity_error": 0.1, "joint_error": 0.06}), (MIMIC, {"joint_error": 0.05, "place_error": 0.4})],
)
@pytest.mark.usefixtures("threads_as_before")
def test_shipped_policies_follow_in_both_engines(task, most):
    torch.set_num_threads(1)
    saved = checkpoint.load(ROOT / "checkpoints" / f"{task}.pt")
    changes = {"max_episode_seconds": 8.0, **ALIKE}
    for backend, times in (("numba", 1.0), ("mujoco", 1.15)):
        env = registry.make(task, backend, changes, num_envs=32, cfg=saved.config.env)
        found = evaluate(saved.creature(env), env, 0, torch.device("cpu"))
        assert found["survival"] >= 0.97, backend
        for name, bound in most.items():
            assert found[name] < times * bound, (backend, name, found)


@pytest.mark.usefixtures("threads_as_before")
def test_joints_are_plotted(tmp_path, capsys):
    out = tmp_path / "joints.png"
    assert plot.main(["--checkpoint", MIMIC, "--out", str(out), "--seconds", "0.6"]) == 0
    assert out.stat().st_size > 10_000
    assert float(capsys.readouterr().out.split()[0]) < 0.1
    for words, told in (
        (["--checkpoint", "quadruped-walk-flat"], "expected a policy of a task that follows a motion"),
        (["--seconds", "0"], "--seconds: expected between"),
        (["--out", str(tmp_path)], "--out: expected a file"),
    ):
        assert plot.main([*words, *([] if "--out" in words else ["--out", str(out)])]) == 2
        assert told in capsys.readouterr().err
