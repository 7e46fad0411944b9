"""The renderer: its kinematics against hand arithmetic and MuJoCo, and a recording without a display."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from physics import load_robot
from renderer import Recorder, RenderError, Snapshot, display, offscreen_display
from renderer.kinematics import CALF, FOOT, HIP, THIGH, leg_frames, rotation
from renderer.model import GROUPS, Model, place

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROBOTS = ("go1", "go2", "anymal_c", "spot")
WIDTH, HEIGHT, FRAMES = 320, 180, 6

RECORD = f"""
import dataclasses, sys
import numpy as np
from physics import load_robot
from renderer import Recorder, Snapshot, Window, offscreen_display, RenderError

robot = load_robot("go1")
snapshot = Snapshot(np.array([0, 0, robot.home_height]), np.array([1.0, 0, 0, 0]), robot.home_joints.ravel(), hud=(("Speed", "0.5 m/s"),))
try:
    with offscreen_display((sys.argv[1],)), Window(robot, {WIDTH}, {HEIGHT}, visible=False) as window, Recorder(sys.argv[2], {WIDTH}, {HEIGHT}, 25) as video:
        for i in range({FRAMES}):
            joints = snapshot.joint_position + 0.1 * i
            ghost = dataclasses.replace(snapshot, base_position=snapshot.base_position + [0, 0.35, 0]) if i == 1 else None
            window.draw(dataclasses.replace(snapshot, joint_position=joints if i > 1 else snapshot.joint_position, ghost=ghost, time=0.04 * i))
            video.add(window.capture())
except RenderError as error:
    sys.exit(str(error))
"""


def standing(robot, **changes):
    state = {"base_position": np.array([0, 0, robot.home_height]), "base_quaternion": np.array([1.0, 0, 0, 0]), "joint_position": robot.home_joints.ravel()}
    return Snapshot(**{**state, **changes})


def turned(snapshot):
    """Return the snapshot at an arbitrary place and attitude, every joint displaced."""
    quaternion = np.array([0.8, 0.3, -0.4, 0.2])
    return Snapshot(np.array([0.3, -0.7, 0.9]), quaternion / np.linalg.norm(quaternion), snapshot.joint_position + np.linspace(-0.5, 0.6, 12))


def test_kinematics_by_hand():
    robot = load_robot("go1")
    joints = np.zeros(12)
    joints[:3] = np.pi / 2, 0, -np.pi / 2
    points, links = leg_frames(robot, standing(robot, base_position=np.array([1.0, 2.0, 3.0]), joint_position=joints))
    # The hip turned a quarter about x lays left (y) upwards and down (-z) to the left.
    np.testing.assert_allclose(points[0, HIP], [1.1881, 2.04675, 3.0], atol=1e-9)
    np.testing.assert_allclose(points[0, THIGH], [1.1881, 2.04675, 3.08], atol=1e-9)
    np.testing.assert_allclose(points[0, CALF], [1.1881, 2.04675 + 0.213, 3.08], atol=1e-9)
    # The knee turned back a quarter about y points the calf, which hung along -z, forward.
    np.testing.assert_allclose(points[0, FOOT], [1.1881 + 0.213, 2.04675 + 0.213, 3.08], atol=1e-9)
    # A leg at zero hangs straight down.
    np.testing.assert_allclose(points[3, FOOT], [1 - 0.1881, 2 - 0.12675, 3 - 0.426], atol=1e-9)
    np.testing.assert_allclose(links[3], np.tile(np.eye(3), (3, 1, 1)), atol=1e-12)


@pytest.mark.parametrize("name", ROBOTS)
def test_feet_touch_the_ground_at_home(name):
    robot = load_robot(name)
    points, _ = leg_frames(robot, standing(robot))
    np.testing.assert_allclose(points[:, FOOT, 2], robot.foot_radius, atol=0.02)
    assert (np.sign(points[:, FOOT, 0]) == [1, 1, -1, -1]).all()
    assert (np.sign(points[:, FOOT, 1]) == [1, -1, 1, -1]).all()


@pytest.mark.parametrize("name", ROBOTS)
def test_kinematics_agree_with_mujoco(name):
    mujoco = pytest.importorskip("mujoco")
    robot = load_robot(name)
    snapshot = turned(standing(robot))
    legs = ""
    for leg in range(4):
        for joint, axis in enumerate(("1 0 0", "0 1 0", "0 1 0")):
            offset = " ".join(map(str, robot.offset[leg, joint]))
            legs += f'<body name="l{leg}{joint}" pos="{offset}"><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/><joint axis="{axis}"/>'
        legs += f'<site name="f{leg}" pos="{" ".join(map(str, robot.foot_offset[leg]))}"/>' + "</body>" * 3
    trunk = f'<body><freejoint/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>{legs}</body>'
    xml = f'<mujoco><compiler angle="radian"/><worldbody>{trunk}</worldbody></mujoco>'
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    data.qpos[:] = np.concatenate([snapshot.base_position, snapshot.base_quaternion, snapshot.joint_position])
    mujoco.mj_kinematics(model, data)
    points, links = leg_frames(robot, snapshot)
    for leg in range(4):
        np.testing.assert_allclose(points[leg, FOOT], data.site(f"f{leg}").xpos, atol=1e-9)
        for joint in range(3):
            np.testing.assert_allclose(points[leg, joint], data.body(f"l{leg}{joint}").xpos, atol=1e-9)
            np.testing.assert_allclose(links[leg, joint].ravel(), data.body(f"l{leg}{joint}").xmat, atol=1e-9)


@pytest.mark.parametrize("name", ROBOTS)
def test_solids_face_outwards_and_rest_on_the_ground(name):
    robot = load_robot(name)
    model = Model(robot)
    corners, normals = model.vertices[model.triangles], model.normals[model.triangles].sum(1)
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("ij,ij->i", area, normals) >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(model.normals, axis=1), 1, atol=1e-3)
    pose = place(model, standing(robot))
    lowest = min((model.vertices[span] @ pose.shape[g].T + pose.origin[g])[:, 2].min() for g, span in zip(range(GROUPS), model.spans, strict=True))
    assert abs(lowest) < 0.02


def test_markers_appear_only_when_given():
    robot = load_robot("go1")
    model = Model(robot)
    assert not place(model, standing(robot)).shape[18:].any()
    force = np.zeros((4, 3))
    force[2] = 0, 0, 50.0
    shown = place(model, standing(robot, foot_contact_force=force, push=np.array([0, 1.0, 0]), goal=np.array([1.0, 0, 0.3])))
    assert [bool(shown.shape[g].any()) for g in range(18, GROUPS)] == [False, False, True, False, True, True, True]
    np.testing.assert_allclose(shown.rotation[22] @ [0, 0, 1], [0, 1, 0], atol=1e-12)


def test_snapshots_that_cannot_be_drawn_are_refused():
    robot = load_robot("go1")
    with pytest.raises(RenderError, match="base_position: not finite"):
        standing(robot, base_position=np.array([0, np.nan, 0]))
    with pytest.raises(RenderError, match=r"joint_position: expected shape \(12,\), got \(4, 3\)"):
        standing(robot, joint_position=robot.home_joints)


def test_rotation_is_proper():
    R = rotation(np.array([0.2, -0.5, 0.7, 0.1]))
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) > 0


@pytest.mark.parametrize("way", ["xvfb", "software"])
def test_recording_without_a_display(way, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    target = tmp_path / "walk.mp4"
    run = subprocess.run([sys.executable, "-c", RECORD, way, str(target)], cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    if run.returncode and "no display to record on" in run.stderr:
        pytest.skip(f"{way}: not installed here")
    assert run.returncode == 0, run.stderr
    assert run.stdout == run.stderr == ""  # standard output belongs to the program
    reader = imageio_ffmpeg.read_frames(str(target))
    header = next(reader)
    assert header["size"] == (WIDTH, HEIGHT)
    assert header["codec"] == "h264"
    assert header["pix_fmt"].startswith("yuv420p")
    frames = [np.frombuffer(frame, np.uint8).reshape(HEIGHT, WIDTH, 3).astype(int) for frame in reader]
    assert len(frames) == FRAMES
    for frame in frames:
        assert frame.std() > 10
    ground = frames[0][-10:].mean((0, 1))
    assert ground[2] > ground[0]  # channels in order: the ground is bluish
    assert frames[0][:20, 200:].mean() > frames[0][-20:, 200:].mean()  # the right way up: the sky is brighter
    assert np.abs(frames[-1] - frames[0])[60:150, 80:240].max() > 60
    # a ghost beside the robot is bluer than the ground it stands before, and lets it shine through
    changed = np.abs(frames[1] - frames[0]).sum(-1) > 40
    assert 200 < changed.sum() < 0.2 * WIDTH * HEIGHT
    bluer = (frames[1] - frames[0])[changed].mean(0)
    assert bluer[0] < bluer[2] - 10
    assert [path.name for path in tmp_path.iterdir()] == ["walk.mp4"]


def test_no_way_to_record_says_what_to_install(monkeypatch):
    monkeypatch.setattr(display.shutil, "which", lambda _: None)
    monkeypatch.setattr(display, "SOFTWARE_FOLDER", pathlib.Path("/nowhere"))
    with pytest.raises(RenderError, match=r"apt-get install xvfb.*raylib_software") as error, offscreen_display(("xvfb", "software")):
        pass
    assert "\n" not in str(error.value)


def test_unreachable_display_is_not_available(monkeypatch):
    if sys.platform in ("darwin", "win32"):
        pytest.skip("always has a display")
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.setenv("WAYLAND_DISPLAY", "nothing-here")
    assert not display.display_available()


def test_importing_the_package_does_not_load_raylib():
    code = "import sys, renderer; sys.exit('pyray' in sys.modules or 'raylib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0


def test_wrong_endings_are_refused(tmp_path):
    with pytest.raises(RenderError, match=r"'\.avi'.*\.mp4, \.gif"):
        Recorder(tmp_path / "walk.avi", 64, 64)
    with pytest.raises(RenderError, match="even"):
        Recorder(tmp_path / "walk.mp4", 63, 64)
    with pytest.raises(RenderError, match="does not exist"):
        Recorder(tmp_path / "missing" / "walk.mp4", 64, 64)


@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_interrupted_recording_leaves_the_older_file(tmp_path, ending):
    pytest.importorskip("imageio_ffmpeg")
    target = tmp_path / f"walk.{ending}"
    target.write_bytes(b"older")
    frame = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)

    class Interrupted(Exception):
        pass

    with pytest.raises(Interrupted), Recorder(target, 64, 64) as video:
        video.add(frame)
        raise Interrupted
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(RenderError, match="nothing was recorded"), Recorder(target, 64, 64):
        pass
    assert target.read_bytes() == b"older"
    with Recorder(target, 64, 64) as video:
        video.add(frame)
    assert len(target.read_bytes()) > 500
    assert list(tmp_path.iterdir()) == [target]


def test_frames_of_the_wrong_shape_are_refused(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(RenderError, match=r"expected a frame of shape \(64, 64, 3\)"), Recorder(tmp_path / "walk.mp4", 64, 64) as video:
        video.add(np.zeros((64, 32, 3), np.uint8))
