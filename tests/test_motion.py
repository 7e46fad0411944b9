"""Reference motion: inverse kinematics, clips, gaits."""

import dataclasses

import mujoco
import numpy as np
import pytest
from oracle import twin

from motion import gait, kinematics
from motion.clip import command_of, load, save
from physics import load_robot
from settings import ConfigError

ROBOTS = "go1", "go2", "anymal_c", "spot"


@pytest.mark.parametrize("name", ROBOTS)
def test_feet_are_where_the_joints_put_them_and_the_other_way_around(name):
    robot = load_robot(name)
    random = np.random.default_rng(0)
    angles = robot.home_joints.ravel() + random.uniform(-0.4, 0.4, (500, 12))
    feet = kinematics.feet(robot, angles)
    np.testing.assert_allclose(kinematics.joints(robot, feet), angles, atol=1e-9)
    assert kinematics.reach_error(robot, feet).max() < 1e-12
    far = feet + [0, 0, -5.0]
    assert np.isfinite(kinematics.joints(robot, far)).all()
    assert kinematics.reach_error(robot, far).min() > 3


@pytest.mark.parametrize("name", ROBOTS)
def test_bodies_are_where_mujoco_has_them(name):
    robot = load_robot(name)
    model, data = twin(robot, 1e-3)
    angles = robot.home_joints.ravel() + np.random.default_rng(0).uniform(-0.6, 0.6, (20, 12))
    places, turns, feet = kinematics.bodies(robot, angles)
    np.testing.assert_allclose(feet, kinematics.feet(robot, angles), atol=1e-12)
    for i, q in enumerate(angles):
        data.qpos[:] = [0, 0, 0, 1, 0, 0, 0, *q]
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(places[i], data.xpos[1:14], atol=1e-6)
        same = np.abs((turns[i] * data.xquat[1:14]).sum(axis=1))
        np.testing.assert_allclose(same, 1.0, atol=1e-9)


def test_feet_stand_on_the_ground_at_home():
    for name in ROBOTS:
        robot = load_robot(name)
        below = kinematics.feet(robot, robot.home_joints.ravel())[:, 2]
        np.testing.assert_allclose(below, robot.foot_radius - robot.home_height, atol=0.03)


COMMANDS = [[0.8, 0.0, 0.0], [-0.5, 0.3, 0.0], [0.4, -0.2, 0.7], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", gait.GAITS)
@pytest.mark.parametrize("command", COMMANDS)
def test_feet_that_stand_do_not_slip(name, command):
    robot = load_robot("go1")
    clip = gait.clip(robot, name, np.tile(command, (120, 1)), fps=200.0)
    clip.require_sound()
    clip.require_robot(robot)
    heading = 2 * np.arctan2(clip.root_quaternion[:, 3], clip.root_quaternion[:, 0])[:, None]
    p_BF = kinematics.feet(robot, clip.joint_position)
    x, y = p_BF[..., 0], p_BF[..., 1]
    world = np.stack([np.cos(heading) * x - np.sin(heading) * y, np.sin(heading) * x + np.cos(heading) * y], -1)
    world += clip.root_position[:, None, :2]
    height = p_BF[..., 2] + clip.root_position[:, 2:]
    low = height - height.min(axis=0) < 1e-6
    stands = low[1:] & low[:-1]
    assert 0.3 < stands.mean() < 0.8
    slip = np.linalg.norm(np.diff(world, axis=0), axis=-1)[stands] * 200.0
    assert slip.max() < 0.02 * max(1.0, np.abs(command).sum())  # [m/s]: a frame of turning is a straight line
    assert np.median(slip) < 5e-3


def test_a_clip_moves_as_it_says():
    robot = load_robot("go1")
    command = np.tile([0.6, 0.1, 0.5], (100, 1))
    clip = gait.clip(robot, "trot", command)
    np.testing.assert_allclose(
        np.gradient(clip.root_position, 0.02, axis=0)[2:-2], clip.root_linear_velocity[2:-2], atol=0.01
    )
    found = command_of(clip.arrays())
    np.testing.assert_allclose(found, command, atol=0.02)
    # the mirror image of turning left is turning right, twice a mirror is the thing itself
    other = clip.mirrored()
    np.testing.assert_allclose(other.command[0], [0.6, -0.1, -0.5])
    np.testing.assert_allclose(command_of(other.arrays()), other.command, atol=0.02)
    feet = kinematics.feet(robot, clip.joint_position)
    mirrored = kinematics.feet(robot, other.joint_position)
    np.testing.assert_allclose(mirrored, feet[:, [1, 0, 3, 2]] * [1, -1, 1], atol=1e-6)
    for name, array in other.mirrored().arrays().items():
        np.testing.assert_allclose(array, getattr(clip, name), atol=1e-12)


def test_a_clip_is_made_anothers_by_its_feet():
    source, target = load_robot("go1"), load_robot("anymal_c")
    clip = gait.clip(source, "trot", np.tile([0.5, 0.0, 0.0], (50, 1)))
    other = clip.retargeted(source, target)
    other.require_sound()
    other.require_robot(target)
    scale = target.home_height / source.home_height
    moved = kinematics.feet(target, other.joint_position) - kinematics.feet(target, target.home_joints.ravel())
    before = kinematics.feet(source, clip.joint_position) - kinematics.feet(source, source.home_joints.ravel())
    np.testing.assert_allclose(moved, scale * before, atol=1e-9)
    np.testing.assert_allclose(other.command[0], [0.5 * scale, 0, 0])


def test_clips_are_read_as_they_were_written(tmp_path):
    robot = load_robot("go1")
    clip = gait.clip(robot, "pace", np.tile([0.3, 0.1, 0.2], (60, 1)))
    save(tmp_path / "pace.npz", clip)
    again = load(tmp_path / "pace.npz")
    for name, array in clip.arrays().items():
        np.testing.assert_array_equal(getattr(again, name), array)
    # mjlab's layout: bodies, velocities in the world, no commands
    bodies = {
        "body_pos_w": clip.root_position, "body_quat_w": clip.root_quaternion,
        "body_lin_vel_w": clip.root_linear_velocity, "body_ang_vel_w": clip.root_angular_velocity,
    }  # fmt: skip
    np.savez(
        tmp_path / "mjlab.npz", fps=np.array([50]), joint_pos=clip.joint_position, joint_vel=clip.joint_velocity,
        **{name: np.stack([x, x + 1], axis=1) for name, x in bodies.items()},
    )  # fmt: skip
    other = load(tmp_path / "mjlab.npz")
    np.testing.assert_allclose(other.joint_position, clip.joint_position)
    np.testing.assert_allclose(other.root_angular_velocity, clip.root_angular_velocity, atol=1e-12)  # it turns about z
    np.testing.assert_allclose(other.command, clip.command, atol=0.02)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"joint_position": np.zeros((60, 11))}, r"joint_position: expected shape \(60, 12\), got \(60, 11\)"),
        ({"root_position": np.zeros((59, 3))}, r"root_position: expected shape \(60, 3\)"),
        ({"joint_velocity": np.full((60, 12), np.nan)}, "joint_velocity: expected finite numbers"),
        ({"root_quaternion": np.full((60, 4), 1.0)}, "root_quaternion: expected length 1"),
        ({"fps": 0.0}, "fps: expected frames a second between 1 and 1000"),
        ({"fps": 25.0}, "joint_velocity: expected the change of joint_position at 25 frames a second"),
        ({"command": np.full((60, 3), 1e9)}, "command: expected numbers up to 1000"),
        ({"joint_position": None}, "joint_position: expected this array, the file has"),
        ({"joint_position": np.full((60, 12), "x")}, "expected arrays of numbers"),
    ],
)
def test_a_damaged_clip_is_refused(change, told, tmp_path):
    clip = gait.clip(load_robot("go1"), "trot", np.tile([0.8, 0.0, 0.0], (60, 1)))
    arrays = {"fps": clip.fps, **clip.arrays(), **change}
    np.savez(tmp_path / "clip.npz", **{name: x for name, x in arrays.items() if x is not None})
    with pytest.raises(ConfigError, match=told):
        load(tmp_path / "clip.npz")


def test_files_and_joints_that_are_no_clips_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "pickled.npz", joint_position=np.array([{}], dtype=object))
    for path in ("text.npz", "pickled.npz", "nowhere.npz"):
        with pytest.raises(ConfigError, match=r"expected an \.npz of a clip"):
            load(tmp_path / path)
    robot = load_robot("go1")
    clip = gait.clip(robot, "trot", np.tile([0.8, 0.0, 0.0], (60, 1)))
    order = dataclasses.replace(clip, joint_position=np.roll(clip.joint_position, 1, axis=1))
    with pytest.raises(ConfigError, match="expected joints of go1 in the order FL, FR, RL, RR"):
        order.require_robot(robot)
    with pytest.raises(ConfigError, match="unknown gait 'trott'; did you mean trot"):
        gait.clip(robot, "trott", np.zeros((3, 3)))
