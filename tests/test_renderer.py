"""The renderer: its kinematics by hand and in MuJoCo, solids and shadows by rays, and pictures without a display."""

import dataclasses
import itertools
import math
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from physics import load_robot
from renderer import RenderError, Scenery, Snapshot, Window, display, offscreen_display
from renderer.camera import FIELD_OF_VIEW, Camera
from renderer.figure import GOAL, MOST_VERTICES, STEM
from renderer.kinematics import CALF, FOOT, HIP, THIGH, leg_frames, rotation
from renderer.light import SUN, shadow
from renderer.model import GROUPS, Model, place
from renderer.smoothing import Smoother, compact
from renderer.solids import Solids

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROBOTS = ("go1", "go2", "anymal_c", "spot")
WIDTH = 320
HEIGHT = 180
FRAMES = 6

RECORD = f"""
import dataclasses, sys
import numpy as np
from physics import load_robot
from renderer import Recorder, Snapshot, Window, offscreen_display, RenderError

robot = load_robot("go1")
place = np.array([0, 0, robot.home_height])
home = Snapshot(place, np.array([1.0, 0, 0, 0]), robot.home_joints.ravel(), hud=(("Speed", "0.5 m/s"),))
try:
    with (offscreen_display((sys.argv[1],)), Window(robot, {WIDTH}, {HEIGHT}, visible=False) as window,
          Recorder(sys.argv[2], {WIDTH}, {HEIGHT}, 25) as video):
        for i in range({FRAMES}):
            joints = home.joint_position + (0.1 * i if i > 1 else 0)
            ghost = dataclasses.replace(home, base_position=place + [0, 0.35, 0]) if i == 1 else None
            window.draw(dataclasses.replace(home, joint_position=joints, ghost=ghost, time=0.04 * i))
            video.add(window.capture())
except RenderError as error:
    sys.exit(str(error))
"""


def legs_of(robot, snapshot):
    """Return points (4, 4, 3) and rotations (4, 3, 3, 3) of the legs of a snapshot's only robot."""
    places = snapshot.base_position[None], rotation(snapshot.base_quaternion[None]), snapshot.joint_position[None]
    points, links = leg_frames(robot, *places)
    return points[0], links[0]


def standing(robot, **changes):
    state = {
        "base_position": np.array([0, 0, robot.home_height]),
        "base_quaternion": np.array([1.0, 0, 0, 0]),
        "joint_position": robot.home_joints.ravel(),
    }
    return Snapshot(**{**state, **changes})


def turned(snapshot):
    """Return the snapshot at an arbitrary place and attitude, every joint displaced."""
    quaternion = np.array([0.8, 0.3, -0.4, 0.2])
    return Snapshot(
        np.array([0.3, -0.7, 0.9]),
        quaternion / np.linalg.norm(quaternion),
        snapshot.joint_position + np.linspace(-0.5, 0.6, 12),
    )


def test_kinematics_by_hand():
    robot = load_robot("go1")
    joints = np.zeros(12)
    joints[:3] = np.pi / 2, 0, -np.pi / 2
    points, links = legs_of(robot, standing(robot, base_position=np.array([1.0, 2.0, 3.0]), joint_position=joints))
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
    points, _ = legs_of(robot, standing(robot))
    np.testing.assert_allclose(points[:, FOOT, 2], robot.foot_radius, atol=0.02)
    assert (np.sign(points[:, FOOT, 0]) == [1, 1, -1, -1]).all()
    assert (np.sign(points[:, FOOT, 1]) == [1, -1, 1, -1]).all()


@pytest.mark.parametrize("name", ROBOTS)
def test_kinematics_agree_with_mujoco(name):
    mujoco = pytest.importorskip("mujoco")
    robot = load_robot(name)
    snapshot = turned(standing(robot))
    inertial = '<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'
    legs = ""
    for leg in range(4):
        for joint, axis in enumerate(("1 0 0", "0 1 0", "0 1 0")):
            offset = " ".join(map(str, robot.offset[leg, joint]))
            legs += f'<body name="l{leg}{joint}" pos="{offset}">{inertial}<joint axis="{axis}"/>'
        legs += f'<site name="f{leg}" pos="{" ".join(map(str, robot.foot_offset[leg]))}"/>' + "</body>" * 3
    trunk = f"<body><freejoint/>{inertial}{legs}</body>"
    xml = f'<mujoco><compiler angle="radian"/><worldbody>{trunk}</worldbody></mujoco>'
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    data.qpos[:] = np.concatenate([snapshot.base_position, snapshot.base_quaternion, snapshot.joint_position])
    mujoco.mj_kinematics(model, data)
    points, links = legs_of(robot, snapshot)
    for leg in range(4):
        np.testing.assert_allclose(points[leg, FOOT], data.site(f"f{leg}").xpos, atol=1e-9)
        for joint in range(3):
            np.testing.assert_allclose(points[leg, joint], data.body(f"l{leg}{joint}").xpos, atol=1e-9)
            np.testing.assert_allclose(links[leg, joint].ravel(), data.body(f"l{leg}{joint}").xmat, atol=1e-9)


@pytest.mark.parametrize("name", ROBOTS)
def test_solids_face_outwards_and_rest_on_the_ground(name):
    robot = load_robot(name)
    model = Model(robot)
    corners = model.vertices[model.triangles]
    normals = model.normals[model.triangles].sum(1)
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("ij,ij->i", area, normals) >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(model.normals, axis=1), 1, atol=1e-3)
    pose = place(model, standing(robot))
    lowest = min(
        (model.vertices[span] @ pose.shape[0, g].T + pose.origin[0, g])[:, 2].min()
        for g, span in zip(range(GROUPS), model.spans, strict=True)
    )
    assert abs(lowest) < 0.02


def nearest(model, group, origin, direction):
    """Return how far a ray goes until a group's triangles stop it; inf if none does."""
    first = model.spans[group].start
    of_group = ((model.triangles >= first) & (model.triangles < model.spans[group].stop)).all(1)
    a, b, c = np.moveaxis(model.vertices[model.triangles[of_group]].astype(float), 1, 0)
    normal = np.cross(direction, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / ((b - a) * normal).sum(1)
        u = scale * ((origin - a) * normal).sum(1)
        across = np.cross(origin - a, b - a)
        v = scale * (across @ direction)
        far = scale * (across * (c - a)).sum(1)
        return min(far[(u >= 0) & (v >= 0) & (u + v <= 1) & (far > 0)], default=math.inf)


@pytest.mark.parametrize("detail", [0, 3])
def test_what_is_left_out_of_a_robot_cannot_be_seen(detail, monkeypatch):
    less = Model(load_robot("go1"), detail)
    monkeypatch.setattr("renderer.model.outside", lambda shapes: shapes)
    whole = Model(load_robot("go1"), detail)
    assert len(less.triangles) < 0.9 * len(whole.triangles)
    assert len(less.vertices) < 0.95 * len(whole.vertices)
    draw = np.random.default_rng(0)
    hits = 0
    for group, span in enumerate(whole.spans[:GROUPS]):
        points = whole.vertices[span]
        for _ in range(20):
            towards = draw.uniform(points.min(0), points.max(0))
            direction = draw.normal(size=3)
            direction /= np.linalg.norm(direction)
            origin = towards - 10 * direction
            expected = nearest(whole, group, origin, direction)
            assert nearest(less, group, origin, direction) == pytest.approx(expected, abs=1e-5)
            hits += expected < math.inf
    assert hits > 200


def test_markers_appear_only_when_given():
    robot = load_robot("go1")
    model = Model(robot)
    assert not place(model, standing(robot)).shape[0, 18:].any()
    force = np.zeros((4, 3))
    force[2] = 0, 0, 50.0
    shown = place(
        model, standing(robot, foot_contact_force=force, push=np.array([0, 1.0, 0]), goal=np.array([1.0, 0, 0.3]))
    )
    assert [bool(shown.shape[0, g].any()) for g in range(18, GROUPS)] == [False, False, True, False, True, True, True]
    np.testing.assert_allclose(shown.rotation[0, 22] @ [0, 0, 1], [0, 1, 0], atol=1e-12)


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
    run = subprocess.run(
        [sys.executable, "-c", RECORD, way, str(target)],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
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
    with (
        pytest.raises(RenderError, match=r"apt-get install xvfb.*raylib_software") as error,
        offscreen_display(("xvfb", "software")),
    ):
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


IDENTITY = np.array([1.0, 0, 0, 0])
SKEW = np.array([0.8, 0.5, 0.1, 0.3]) / np.linalg.norm([0.8, 0.5, 0.1, 0.3])
NO_LIMBS = tuple(np.zeros(shape) for shape in ((1, 0, 3), (1, 0, 3), (0,), (1, 0, 2), (1, 0, 2)))
OFFSETS = np.arange(-0.4, 0.5, 0.1)
SOLIDS = {"box": (0.3, 0.1, 0.2), "ball": (0.25,), "rod": (0.1, 0.2), "disc": (0.3, 0.04)}


def solid(kind, *size, colour="#C02020"):
    return types.SimpleNamespace(kind=kind, size=size or SOLIDS[kind], colour=colour)


def scenery(*positions, quaternion=IDENTITY, **changes):
    return Scenery(np.array(positions, float), np.tile(quaternion, (len(positions), 1)), **changes)


@pytest.mark.parametrize(
    ("kind", "extent"),
    [("box", (0.3, 0.1, 0.2)), ("ball", (0.25, 0.25, 0.25)), ("rod", (0.1, 0.1, 0.3)), ("disc", (0.3, 0.3, 0.04))],
)
def test_solids_have_their_size_and_face_outwards(kind, extent):
    figure = Solids([solid("ball", 0.1), solid(kind)], 1.0)
    points = figure.vertices[figure.spans[1]]
    np.testing.assert_allclose(points.max(0), extent, rtol=0.02)
    np.testing.assert_allclose(points.min(0), -points.max(0), atol=1e-6)
    corners = figure.vertices[figure.triangles].astype(float)
    normals = figure.normals[figure.triangles].sum(1)
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("ij,ij->i", area, normals) > -1e-9).all()
    # A quarter turn about x lays z along -y.
    pose = place(figure, scenery([0, 0, 3], [1, 2, 3], quaternion=np.array([1, 1, 0, 0])))
    np.testing.assert_allclose(pose.shape[0, 1] @ [0, 0, 1], [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(pose.origin[0, :2], [[0, 0, 3], [1, 2, 3]])
    assert not pose.shape[0, [GOAL, STEM]].any()
    shown = place(figure, scenery([0, 0, 3], [1, 2, 3], goal=np.array([4.0, 5, 6])))
    np.testing.assert_allclose(shown.origin[0, [GOAL, STEM]], [[4, 5, 6], [4, 5, 0]])
    np.testing.assert_allclose(shown.shape[0, STEM], np.diag([1, 1, 6.0]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (solid("cone", 0.1), "solid 1: kind: expected one of box, ball, rod, disc, got 'cone'"),
        (solid("box", 0.1, 0.1), r"solid 1: size: expected 3 positive numbers for a box, got \(0.1, 0.1\)"),
        (solid("ball", 0.0), "solid 1: size: expected 1 positive number for a ball"),
        (solid("rod", 0.1, np.nan), "solid 1: size: expected 2 positive numbers for a rod"),
        (solid("disc", 0.1, -0.1), "solid 1: size: expected 2 positive numbers for a disc"),
        (solid("ball", 0.1, colour="red"), "solid 1: colour: expected one as #RRGGBB, got 'red'"),
        (solid("ball", 0.1, colour="#12345"), "solid 1: colour"),
    ],
)
def test_solids_that_cannot_be_drawn_are_refused(wrong, message):
    with pytest.raises(RenderError, match=message):
        Window([solid("ball"), wrong], reach=1.0, visible=False)  # before any window opens


def test_scenes_that_cannot_be_drawn_are_refused():
    with pytest.raises(RenderError, match="at least one solid"):
        Solids([], 1.0)
    for reach in (None, 0.0, np.inf):
        with pytest.raises(RenderError, match="reach: expected"):
            Solids([solid("ball")], reach)
    with pytest.raises(RenderError, match=f"too much to draw: expected at most {MOST_VERTICES} vertices"):
        Solids([solid("ball")] * 500, 1.0)


def test_sceneries_that_cannot_be_drawn_are_refused():
    with pytest.raises(RenderError, match=r"scenery: position: expected shape \(2, 3\), got \(2, 2\)"):
        Scenery(np.zeros((2, 2)), np.tile(IDENTITY, (2, 1)))
    with pytest.raises(RenderError, match=r"scenery: quaternion: expected shape \(2, 4\), got \(1, 4\)"):
        Scenery(np.zeros((2, 3)), IDENTITY[None])
    with pytest.raises(RenderError, match="scenery: quaternion: of length 0"):
        Scenery(np.zeros((2, 3)), np.array([IDENTITY, np.zeros(4)]))
    with pytest.raises(RenderError, match="scenery: position: not finite"):
        scenery([0, 0, np.inf])
    with pytest.raises(RenderError, match=r"scenery: target: expected shape \(3,\), got \(2,\)"):
        scenery([0, 0, 1], target=np.zeros(2))
    with pytest.raises(RenderError, match="scenery: goal: not finite"):
        scenery([0, 0, 1], goal=np.full(3, np.nan))
    with pytest.raises(RenderError, match=r"scenery: position: expected shape \(1, 3\), got \(2, 3\)"):
        place(Solids([solid("ball")], 1.0), scenery([0, 0, 1], [0, 0, 2]))


def hits(kind, size, p_S, ray_S):
    """Return which rays from points p_S (N, 3) along ray_S (3), in the frame of a solid, meet it."""
    along = np.linspace(0, 3, 600)[:, None, None]
    x, y, z = np.moveaxis(p_S + along * ray_S, -1, 0)
    if kind == "box":
        inside = (abs(x) < size[0]) & (abs(y) < size[1]) & (abs(z) < size[2])
    elif kind == "disc":
        inside = (np.hypot(x, y) < size[0]) & (abs(z) < size[1])
    else:
        inside = np.sqrt(x**2 + y**2 + np.maximum(abs(z) - (size[1] if kind == "rod" else 0), 0) ** 2) < size[0]
    return inside.any(0)


@pytest.mark.parametrize("quaternion", [IDENTITY, SKEW])
@pytest.mark.parametrize("kind", SOLIDS)
def test_shadows_are_where_rays_to_the_sun_meet_solids(kind, quaternion):
    R = rotation(quaternion)
    centre = np.array([0.4, -0.2, 0.4])
    pose = place(Solids([solid(kind)], 1.0), scenery(centre, quaternion=quaternion))
    starts, ends, radii = pose.limbs
    heights = np.stack([starts[..., 2], ends[..., 2]], 2)
    low, high, opacity = (x[0] for x in shadow(starts, ends, radii, heights, heights, blocks=pose.blocks, texels=64))
    grid = low + (high - low) * (np.arange(64)[:, None] + 0.5) / 64
    points = np.stack([*np.meshgrid(grid[:, 0], grid[:, 1]), np.zeros((64, 64))], -1).reshape(-1, 3)
    hidden = hits(kind, SOLIDS[kind], (points - centre) @ R, SUN @ R).reshape(64, 64)
    dark = opacity > 0.5 * opacity.max()
    assert (dark & hidden).sum() > 0.75 * (dark | hidden).sum()  # all but the soft edge
    assert max(*opacity[[0, -1]].ravel(), *opacity[:, [0, -1]].ravel()) < 0.01  # not cut off
    # Half sunk in the ground, it throws the shadow of its upper half.
    if kind == "box":
        sunk, raised = (
            shadow(
                *NO_LIMBS,
                blocks=[(np.array([[0, 0, z]]), np.diag([0.2, 0.2, h])[None])],
            )
            for z, h in ((0, 0.2), (0.1, 0.1))
        )
        for a, b in zip(sunk, raised, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_shadows_fade_with_the_distance_from_the_camera_target():
    wall = np.array([[0, 0, 0.5]]), np.diag([100.0, 0.2, 0.5])[None]
    of_one = shadow(*NO_LIMBS, blocks=[wall], near=(np.array([1.0, 0]), 4.0), texels=128)
    low, high, opacity = (x[0] for x in of_one)
    assert -3.5 < low[0] < -2.9  # the wall is longer
    assert 4.9 < high[0] < 5.5
    x = low[0] + (high[0] - low[0]) * (np.arange(128) + 0.5) / 128 - 1.0
    most = opacity.max(0)
    assert most[abs(x) < 2].min() > 0.9
    assert most[abs(x) > 4].max(initial=0.0) < 0.01


def test_the_camera_follows_what_is_large_and_fast():
    cut = Camera(6.0)
    smooth = Camera(6.0, scale=8.0)
    for x in (0.0, 3.0):
        cut.follow([x, 0, 0], 0.02)
        smooth.follow([x, 0, 0], 0.02)
    assert cut.target[0] == 3.0
    assert 0 < smooth.target[0] < 0.5
    smooth.follow([30.0, 0, 0], 0.02)
    assert smooth.target[0] == 30.0


PICTURES = """
import sys, types
import numpy as np
from renderer import RenderError, Scenery, Window, offscreen_display

def solid(kind, *size, colour):
    return types.SimpleNamespace(kind=kind, size=size, colour=colour)

def shot(solids, positions, scale=1.0, **changes):
    solids = [solid(s.kind, *(scale * np.array(s.size)), colour=s.colour) for s in solids]
    position = scale * np.array(positions, float)
    with Window(solids, 320, 180, visible=False, reach=scale * 0.7, view=(-60.0, 30.0)) as window:
        upright = np.tile([1.0, 0, 0, 0], (len(solids), 1))
        window.draw(Scenery(position, upright, target=scale * np.array([0, 0, 0.2]), **changes))
        camera = np.array([window.camera.position, window.camera.target])
        return window.capture(), camera

red, grey = solid("ball", 0.12, colour="#C02020"), solid("box", 0.2, 0.3, 0.1, colour="#606060")
try:
    with offscreen_display((sys.argv[1],)):
        ball, camera = shot([red], [(0, 0, 0.4)])
        moved, _ = shot([red], [(0.5, 0.2, 0.4)])
        small, large = (shot([red, grey], [(0, 0, 0.15), (0.8, -0.1, 0.6)], scale)[0] for scale in (1.0, 8.0))
        sunk, _ = shot([red], [(0, 0, -0.2)])
        goal, _ = shot([red], [(0, 0, 0.4)], goal=np.array([-0.4, 0.3, 0.3]))
        np.savez(sys.argv[2], ball=ball, moved=moved, large=large, small=small, sunk=sunk, goal=goal, camera=camera)
except RenderError as error:
    sys.exit(str(error))
"""


def seen_at(camera, point, width=320, height=180):
    """Return the column and row of the pixel of a point (3); camera: (2, 3) where it is and what it looks at."""
    forward = camera[1] - camera[0]
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    away = np.asarray(point, float) - camera[0]
    focal = height / 2 / math.tan(math.radians(FIELD_OF_VIEW / 2))
    return np.array(
        [
            width / 2 + focal * (away @ right) / (away @ forward),
            height / 2 - focal * (away @ np.cross(right, forward)) / (away @ forward),
        ]
    )


def test_pictures_of_solids(drawn):
    pictures = drawn(PICTURES)
    camera = pictures.pop("camera")
    red = {name: (p[..., 0] > 1.6 * p[..., 1]) & (p[..., 0] > 1.6 * p[..., 2]) for name, p in pictures.items()}
    for name, place_of in (("ball", (0, 0, 0.4)), ("moved", (0.5, 0.2, 0.4))):
        rows, columns = np.nonzero(red[name])
        assert 200 < len(rows) < 1500
        np.testing.assert_allclose([columns.mean(), rows.mean()], seen_at(camera, place_of), atol=1.5)
        # The floor is darker where the sun does not reach it.
        column, row = seen_at(camera, np.array(place_of) - SUN * place_of[2] / SUN[2]).astype(int)
        other = pictures["moved" if name == "ball" else "ball"]
        assert pictures[name][row, column].mean() < 0.85 * other[row, column].mean()
    assert np.abs(pictures["large"] - pictures["small"]).max() < 3  # all lengths times eight, and the ground's too
    assert red["small"].sum() > 200
    for x, y in itertools.product((-0.14, 0, 0.14), (-0.2, 0, 0.2)):  # the shadow of the box, or the box before it
        column, row = seen_at(camera, np.array([0.8 + x, -0.1 + y, 0.5]) - SUN * 0.5 / SUN[2]).astype(int)
        assert pictures["small"][row, column].mean() < 0.87 * pictures["ball"][row, column].mean()
    assert not red["sunk"].any()
    blue = np.abs(pictures["goal"] - pictures["ball"]).sum(-1) > 60
    column, row = seen_at(camera, (-0.4, 0.3, 0.3)).astype(int)
    assert blue[row, column]
    assert pictures["goal"][row, column, 2] > 1.5 * pictures["goal"][row, column, 0]


def test_many_robots_lie_as_each_by_itself():
    robot = load_robot("go1")
    model = Model(robot)
    one = turned(standing(robot))
    other = standing(robot, push=np.array([0, 0.5, 0]), goal=np.array([1.0, 2.0, 0.4]), fallen=True)
    push = np.stack([np.zeros(3), other.push])
    goal = np.stack([other.goal, other.goal])
    state = (np.stack([getattr(s, name) for s in (one, other)]) for name in ("base_position", "base_quaternion"))
    both = Snapshot(
        *state,
        np.stack([one.joint_position, other.joint_position]),
        push=push,
        goal=goal,
        fallen=np.array([False, True]),
        watched=1,
    )
    pose = place(model, both)
    for index, alone in enumerate((dataclasses.replace(one, goal=other.goal, push=push[0]), other)):
        expected = place(model, alone)
        for name in ("shape", "rotation", "origin", "glow"):
            np.testing.assert_allclose(getattr(pose, name)[index], getattr(expected, name)[0], atol=1e-12)
        for mine, his in zip(pose.limbs[:2], expected.limbs[:2], strict=True):
            np.testing.assert_allclose(mine[index], his[0], atol=1e-12)
    np.testing.assert_array_equal(model.focus(both, lambda x, y: 0.0), model.focus(other, lambda x, y: 0.0))
    with pytest.raises(RenderError, match=r"joint_position: expected shape \(2, 12\), got \(12,\)"):
        dataclasses.replace(both, joint_position=one.joint_position)


@pytest.mark.parametrize("name", ROBOTS)
def test_details_lessen_with_distance(name):
    model = Model(load_robot(name))
    level = model
    while coarser := level.coarser():
        assert len(coarser.vertices) < 0.8 * len(level.vertices)
        for span, other in zip(model.spans, coarser.spans, strict=True):
            a = model.vertices[span]
            b = coarser.vertices[other]
            np.testing.assert_allclose(np.ptp(a, 0), np.ptp(b, 0), rtol=0.35, atol=0.02)
        level = coarser
    assert len(level.vertices) < 0.3 * len(model.vertices)


def test_smoothing_blends_edges_and_nothing_else():
    height, width = 60, 80
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    fine = np.stack([np.where(0.31 * (x + dx) + 4 < y + dy, 40, 200) for dx in OFFSETS for dy in OFFSETS]).mean(0)
    drawn = np.where(0.31 * x + 4 < y, 40, 200)
    pixels = np.repeat(drawn[::-1, :, None], 4, 2).astype(np.uint8)  # from the bottom
    smoothed = Smoother(width, height).smooth(pixels).astype(int)
    away = np.abs(0.31 * x + 4 - y) > 2.5
    assert (smoothed[away] == drawn[away][:, None]).all()
    inner = (x > 12) & (x < 68)  # edges are followed into the picture
    assert np.abs(smoothed[..., 0] - fine)[inner].mean() < 0.45 * np.abs(drawn - fine)[inner].mean()
    kept = Smoother(width, height).smooth(pixels, np.array([[0, 0, width, height]]))
    assert (kept == drawn[..., None]).all()
    colours = np.random.default_rng(0).integers(0, 255, (height, width, 4), np.uint8)
    everything = np.array([[0, 0, width, height]])
    swapped = Smoother(width, height, red=2).smooth(colours, everything)
    np.testing.assert_array_equal(swapped, colours[::-1, :, 2::-1])
    np.testing.assert_array_equal(compact(swapped), swapped)


MANY = f"""
import sys
import numpy as np
from physics import load_robot
from renderer import RenderError, Snapshot, Window, offscreen_display

robot = load_robot("go1")
def shot(places, watched=0):
    places = np.array(places) + [0, 0, robot.home_height]
    n = len(places)
    level, home = ([x] * n for x in ([1.0, 0, 0, 0], robot.home_joints.ravel()))
    frame = Snapshot(places, level, home, watched=watched)
    with Window(robot, {WIDTH}, {HEIGHT}, visible=False, across=6.0) as window:
        window.draw(frame)
        return window.capture(), np.array([window.camera.position, window.camera.target])

try:
    with offscreen_display((sys.argv[1],)):
        grid = [(1.5 * (i - 4), 1.5 * (j - 4), 0.0) for i in range(9) for j in range(9)]
        one, camera = shot([(0, 0, 0)])
        np.savez(sys.argv[2], one=one, camera=camera, many=shot(grid, 40)[0], again=shot(grid, 40)[0])
except RenderError as error:
    sys.exit(str(error))
"""


def test_pictures_of_many(drawn):
    pictures = drawn(MANY)
    camera = pictures.pop("camera")
    np.testing.assert_array_equal(pictures["many"], pictures["again"])
    seen = 0
    for i, j in itertools.product(range(-4, 5), repeat=2):
        column, row = seen_at(camera, (1.5 * i, 1.5 * j, 0.27)).astype(int)
        if not (8 <= column < WIDTH - 8 and 8 <= row < HEIGHT - 8) or (row < 72 and column < 150):  # under the text
            continue
        seen += 1
        around = np.s_[row - 6 : row + 7, column - 6 : column + 7]
        changed = np.abs(pictures["many"] - pictures["one"])[around].max(-1) > 40
        assert changed.sum() > 20 or (i, j) == (0, 0)
    assert seen > 12
