"""Watching: keys, sticks and mouse, cameras, overlays, and worlds that change while robots walk."""

import ctypes
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
import types

import mujoco
import numpy as np
import pytest
from rich.console import Console

import simulate
from environments.quadruped.values import torque_ratio
from physics import constants as C
from physics import layout as L
from physics import load_robot, terrain
from physics.jit import LANES, ROOT
from physics.mjcf import to_mjcf
from renderer.camera import MODES, Camera
from renderer.controls import CONTROLS, OVERLAYS, PASSIVE, SHOWN, Requests, keys, offered, overlays
from renderer.figure import Stance
from renderer.overlays import ACTUAL, CORAL, Overlays, Strokes, hull
from renderer.snapshot import Detail, Snapshot
from settings import override
from training import checkpoint as checkpoints
from training import runs
from training import viewer as viewers

# What raylib's own player of recorded input takes, which stands in for hands on keyboard, mouse and gamepad
INPUT = """
import json, sys
import numpy as np
import pyray as rl
from physics import load_robot
from renderer import RenderError, Snapshot, Window, offscreen_display

TYPES = {name: i for i, name in enumerate(
    ("key up", "key down", "key pressed", "key released", "button up", "button down", "mouse", "wheel", "pad", "no pad",
     "pad up", "pad down", "axis"), 1)}
robot = load_robot("go1")

def frame(places):
    n = len(places)
    position = np.array(places, float) + [0, 0, robot.home_height]
    return Snapshot(position, np.tile([1.0, 0, 0, 0], (n, 1)), np.tile(robot.home_joints.ravel(), (n, 1)))

def play(window, shown, *events):
    original = type(window)._read_input
    def read():
        for kind, *numbers in events:
            event = rl.AutomationEvent()
            event.type = TYPES[kind]
            for i, number in enumerate(numbers):
                event.params[i] = number
            rl.play_automation_event(event)
        original(window)
    window._read_input = read
    window.draw(shown)
    return window.requests

try:
    with offscreen_display(("display", "xvfb")), Window(robot, 640, 360) as window:
        said = {}
        one = frame([(0, 0, 0)])
        play(window, one)
"""
END = """
        print(json.dumps(said))
except RenderError as error:
    sys.exit(str(error))
"""


def played(text):
    """Return what a script said that plays input to a window."""
    script = INPUT + "\n".join(f"        {line}" for line in text.strip().splitlines()) + END
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True)
    if run.returncode and "no display to record on" in run.stderr:
        pytest.skip("no X server here")
    assert run.returncode == 0, run.stderr
    import json

    return json.loads(run.stdout.splitlines()[-1])


def test_every_key_asks_for_what_the_table_says():
    said = played(
        """
from renderer.controls import CONTROLS, OVERLAYS
for control in CONTROLS:
    key = getattr(rl, f"KEY_{control.key}")
    said[control.name] = []
    for held in ((), (("key down", rl.KEY_LEFT_SHIFT),)):
        before = window.camera.mode, window._keys
        got = list(play(window, one, *held, ("key down", key)).controls)
        again = list(play(window, one).controls)
        said[control.name].append([got, again, before != (window.camera.mode, window._keys)])
        play(window, one, ("key up", key), ("key up", rl.KEY_LEFT_SHIFT))
window.camera.azimuth += 1.0
play(window, one, ("key down", rl.KEY_V))
said["azimuth"] = window.camera.azimuth
for name, (key, _) in OVERLAYS.items():
    before = set(window.shown)
    play(window, one, ("key down", getattr(rl, f"KEY_{key}")))
    said[name] = [sorted(before ^ window.shown), len(window.requests.controls)]
    play(window, one, ("key up", getattr(rl, f"KEY_{key}")))
        """
    )
    for control in CONTROLS:
        plain, shifted = said[control.name]
        if control.view:
            assert plain[:2] == shifted[:2] == [[], []]
            assert plain[2] or control.name == "home"
        else:
            assert plain == [[control.name], [], False]
            assert shifted == [[control.opposite or control.name], [], False]
    assert said["azimuth"] == pytest.approx(math.radians(-52.0))
    for name in OVERLAYS:
        assert said[name] == [[name], 0]


def test_where_robots_do_not_obey_only_the_view_does():
    said = played(
        """
from renderer.controls import CONTROLS
window.close()
with Window(robot, 640, 360, driven=False) as window:
    said["asked"] = []
    for control in CONTROLS:
        key = getattr(rl, f"KEY_{control.key}")
        said["asked"] += play(window, one, ("key down", key)).controls
        play(window, one, ("key up", key))
    said["drive"] = play(window, one, ("key down", rl.KEY_UP)).drive
    play(window, one, ("key up", rl.KEY_UP))
    middle = 320, 180
    before = window.camera.azimuth
    play(window, one, ("mouse", *middle), ("button down", 0))
    said["robot"] = window._held
    play(window, one, ("mouse", 400, 180))
    said["turned"] = window.camera.azimuth - before
    said["shove"] = play(window, one, ("button up", 0)).shove
    play(window, one, ("mouse", *middle), ("button down", 0))
    said["chosen"] = play(window, one, ("button up", 0)).chosen
    play(window, one, ("mouse", 500, 330), ("button down", 0))
    said["sets a goal"] = play(window, one, ("button up", 0)).goal is not None
"""
    )
    assert said.pop("turned") != 0.0
    assert said == {"asked": list(PASSIVE), "drive": None, "robot": 0, "shove": None, "chosen": 0, "sets a goal": False}


def test_what_is_offered_says_nothing_of_what_is_not():
    assert {c.name for c in offered(driven=False)} == {*PASSIVE, *(c.name for c in CONTROLS if c.view)}
    assert offered(driven=True) == CONTROLS
    told = " ".join(f"{key} {what}" for key, what in keys(driven=False))
    assert not any(word in told for word in ("arrows", "sticks", "shove:", "goal", "drive"))
    assert len(keys(driven=True)) > len(keys(driven=False))


def test_keys_are_not_given_out_twice():
    keys = [c.key for c in CONTROLS] + [key for key, _ in OVERLAYS.values()] + [*"WASDQE", "UP", "DOWN", "ESCAPE"]
    assert len(keys) == len(set(keys))
    buttons = [c.button for c in CONTROLS if c.button]
    assert len(buttons) == len(set(buttons))
    names = [c.name for c in CONTROLS] + [c.opposite for c in CONTROLS if c.opposite] + list(OVERLAYS)
    assert len(names) == len(set(names))


def test_the_page_on_watching_tells_every_key():
    rows = re.findall(r"^\| (.*?) \| (.*?) ?\| (.*?) \|$", (ROOT / "docs/watching.md").read_text(), re.MULTILINE)[1:]
    assert [(key, what) for key, _, what in rows if key != "---"] == list(keys(driven=True))
    assert [pad for key, pad, _ in rows if key != "---" and pad] == ["A", "start", "right bumper", "back", "Y"]


def test_arrows_and_sticks_drive():
    said = played(
        """
for name, keys in {"ahead": ("UP",), "back": ("DOWN",), "left": ("LEFT",), "aside": ("LEFT_SHIFT", "RIGHT"),
                   "both": ("UP", "DOWN"), "curve": ("UP", "RIGHT")}.items():
    said[name] = play(window, one, *(("key down", getattr(rl, f"KEY_{key}")) for key in keys)).drive
    play(window, one, *(("key up", getattr(rl, f"KEY_{key}")) for key in keys))
pad = ("pad", 0)
for name in ("LEFT_X", "LEFT_Y", "RIGHT_X"):
    axis = getattr(rl, f"GAMEPAD_AXIS_{name}")
    said[name] = [play(window, one, pad, ("axis", 0, axis, n)).drive for n in (32767, -16384, 3000)]
    play(window, one, pad, ("axis", 0, axis, 0))
from renderer.controls import CONTROLS
for control in CONTROLS:
    if control.button:
        button = getattr(rl, f"GAMEPAD_BUTTON_{control.button}")
        before = window.camera.mode
        said[control.name] = list(play(window, one, pad, ("pad down", 0, button)).controls)
        said[control.name] += [] if before == window.camera.mode else ["camera"]
        play(window, one, pad, ("pad up", 0, button))
        """
    )
    assert said["ahead"] == [1, 0, 0]
    assert said["back"] == [-1, 0, 0]
    assert said["left"] == [0, 0, 1]
    assert said["aside"] == [0, -1, 0]
    assert said["both"] is None
    assert said["curve"] == [1, 0, -1]
    for axis, column in (("LEFT_Y", 0), ("LEFT_X", 1), ("RIGHT_X", 2)):
        full, half, rest = said[axis]
        assert full == pytest.approx([-float(i == column) for i in range(3)], abs=1e-3)
        assert half == pytest.approx([(0.5 - 0.15) / 0.85 * (i == column) for i in range(3)], abs=1e-3)
        assert rest is None
    for control in CONTROLS:
        if control.button:
            assert said[control.name] == [control.name]


def test_the_mouse_chooses_shoves_turns_and_points():
    said = played(
        """
window.camera.distance = 4.0
three = frame([(0, 0, 0), (0, 1.2, 0), (0, -1.2, 0)])
play(window, three)
def pixel(point):
    view = window._scene.view
    right, up, ahead = view.axes @ (np.array(point, float) - view.eye)
    return [round(320 * (1 + right / ahead / view.half[0])), round(180 * (1 - up / ahead / view.half[1]))]
height = robot.home_height
for i, y in enumerate((0.0, 1.2, -1.2)):
    at = pixel((0, y, height))
    play(window, three, ("mouse", *at), ("button down", 0))
    said[f"click {i}"] = play(window, three, ("mouse", *at), ("button up", 0)).chosen
azimuth = window.camera.azimuth
start, end = pixel((0, 0, height)), pixel((0.4, -0.3, height))
play(window, three, ("mouse", *start), ("button down", 0))
play(window, three, ("mouse", *end), ("button down", 0))
robot_number, velocity = play(window, three, ("mouse", *end), ("button up", 0)).shove
said["shove"] = [robot_number, velocity.tolist()]
said["unmoved"] = window.camera.azimuth == azimuth
spot = pixel((-0.9, 0.1, 0.0))
play(window, three, ("mouse", *spot), ("button down", 0))
said["goal"] = play(window, three, ("mouse", *spot), ("button up", 0)).goal.tolist()
play(window, three, ("mouse", *spot), ("button down", 0))
play(window, three, ("mouse", spot[0] + 50, spot[1]), ("button down", 0))
after = play(window, three, ("mouse", spot[0] + 50, spot[1]), ("button up", 0))
said["turned"] = azimuth - window.camera.azimuth
said["nothing"] = [after.goal, after.shove, after.chosen]
said["reach"] = window._scene.figure.reach
        """
    )
    assert [said[f"click {i}"] for i in range(3)] == [0, 1, 2]
    robot, velocity = said["shove"]
    assert robot == 0
    # 1.5 m/s for a drag as long as the robot, towards where it ended
    expected = 1.5 / (2 * said["reach"]) * np.array([0.4, -0.3, 0.0])
    np.testing.assert_allclose(velocity, expected, atol=0.03)
    assert said["unmoved"]
    np.testing.assert_allclose(said["goal"], [-0.9, 0.1, 0.0], atol=0.02)
    assert said["turned"] == pytest.approx(0.3, abs=0.05)
    assert said["nothing"] == [None, None, None]


def standing_at(x=0.0, y=0.0, yaw=0.0, touches=(True,) * 4):
    c, s = math.cos(yaw), math.sin(yaw)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    feet = np.array([[0.2, 0.1, 0], [0.2, -0.1, 0], [-0.2, 0.1, 0], [-0.2, -0.1, 0]])
    position = np.array([x, y, 0.3])
    return Stance(position, turn, position * [1, 1, 0] + feet @ turn.T, np.array(touches), position + 0.3 * turn[:, 0])


def test_cameras_go_round_and_see_what_they_should():
    camera = Camera(0.4)
    stance = standing_at(1.0, 2.0, yaw=0.7)
    for _ in range(200):
        camera.follow(stance.position, 0.02, stance)
    seen = []
    for _ in MODES:
        seen.append(camera.mode)
        camera.next_mode(True)
    assert tuple(seen) == MODES
    assert camera.mode == "orbit"
    camera.next_mode(True)
    for _ in range(200):
        camera.follow(stance.position, 0.02, stance)
    behind = camera.position - stance.position
    assert behind[:2] @ stance.rotation[:2, 0] < -0.95 * np.linalg.norm(behind[:2])
    camera.next_mode(True)
    camera.follow(stance.position, 0.02, stance)
    np.testing.assert_allclose(camera.position, stance.eyes, atol=1e-9)
    assert camera.view(1.0).axes[2] @ stance.rotation[:, 0] > 0.97
    camera.next_mode(True)
    at = camera.position
    camera.orbit(100.0, 20.0)
    np.testing.assert_allclose(camera.position, at, atol=1e-9)  # turns about itself
    into = camera.forward
    camera.move(0.5, 0.25, 1.0)
    right = np.array([into[1], -into[0], 0.0])
    np.testing.assert_allclose(camera.position - at, into + 0.5 * right + [0, 0, 0.25], atol=1e-9)
    camera.follow(stance.position + 5.0, 0.02, stance)
    np.testing.assert_allclose(camera.position - at, into + 0.5 * right + [0, 0, 0.25], atol=1e-9)
    assert [camera.next_mode(False) for _ in range(3)] == ["orbit", "free", "orbit"]  # what has no eyes
    ground = Camera(0.4, terrain.flat(1.0))
    ground.follow(stance.position + [0, 0, 1.0], 0.02, stance)
    ground.next_mode(True)
    ground.next_mode(True)
    ground.next_mode(True)
    ground.move(0.0, -50.0, 0.0)
    assert ground.position[2] > 1.0  # never below


def test_strokes_face_whoever_looks():
    rng = np.random.default_rng(0)
    for _ in range(20):
        eye = rng.normal(size=3) * 3
        strokes = Strokes.of(rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), (0.05, 0.02), ACTUAL)
        a, b, c, d = np.moveaxis(strokes.quads(eye), 1, 0)
        for normal, corner in ((np.cross(b - a, c - a), a), (np.cross(c - a, d - a), a)):
            assert (np.einsum("ij,ij->i", normal, eye - corner) > 0).all()
        np.testing.assert_allclose(np.linalg.norm(b - a, axis=1), 0.05, rtol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(c - d, axis=1), 0.02, rtol=1e-9)
        np.testing.assert_allclose((a + b) / 2, strokes.start, atol=1e-12)


def test_hulls_are_convex_and_hold_every_point():
    rng = np.random.default_rng(1)
    for count in (1, 2, 3, 4, 10):
        points = rng.normal(size=(count, 2))
        corners = points[hull(points)]
        assert len(corners) >= min(count, 3) - (count > 3 and 0)
        for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
            (ex, ey), off = b - a, points - a
            assert (ex * off[:, 1] - ey * off[:, 0] >= -1e-12).all() or count < 3


def drawn_overlays(shown, detail=None, stance=None, ground=None, frames=1):
    flat = ground or (lambda x, y: np.zeros(np.shape(x)))
    made = Overlays(0.4, flat)
    robot = load_robot("go1")
    for k in range(frames):
        at = stance or standing_at(0.01 * k)
        frame = Snapshot(at.position, np.array([1.0, 0, 0, 0]), robot.home_joints.ravel(), detail=detail or Detail())
        result = made.strokes(frame, at, shown)
    return result


def test_overlays_show_what_they_say():
    above, _ = drawn_overlays({"balance"}, Detail(com=np.array([0.05, 0.02, 0.28])))
    assert (above.colour == ACTUAL).all(1).sum() == 4 + 2  # four sides, and the dot below the centre of mass
    assert not (above.colour == CORAL).all(1).any()
    above, _ = drawn_overlays(
        {"balance"}, Detail(com=np.array([0.05, 0.02, 0.28])), standing_at(touches=(False, True, False, True))
    )
    assert (above.colour == CORAL).all(1).sum() == 2  # outside of what bears it
    faster = [
        drawn_overlays({"speed"}, Detail(velocity=np.array([v, 0.0, 0.0])), standing_at(yaw=0.7))[0] for v in (0.5, 1.0)
    ]
    lengths = [np.linalg.norm(s.end[-1] - s.start[0]) for s in faster]
    assert lengths[1] == pytest.approx(2 * lengths[0])
    way = faster[0].end[-1] - faster[0].start[0]
    np.testing.assert_allclose(way / np.linalg.norm(way), [math.cos(0.7), math.sin(0.7), 0.0], atol=1e-9)
    turning, _ = drawn_overlays({"speed"}, Detail(velocity=np.array([0.0, 0.0, 1.0])))
    ends = turning.end - standing_at().position
    assert math.atan2(ends[-1, 1], ends[-1, 0]) > math.atan2(ends[0, 1], ends[0, 0])  # counterclockwise
    _, scan = drawn_overlays({"ground"}, ground=lambda x, y: 0.1 * (np.asarray(x) > 0))
    assert len(scan.start) == 2 * 17 * 11
    low, high = scan.colour[scan.start[:, 0] < -0.05], scan.colour[scan.start[:, 0] > 0.05]
    assert (low[0] != high[0]).any()
    _, trail = drawn_overlays({"trails"}, frames=30)
    assert len(trail.start) == 4 * 29
    assert trail.colour[0, 3] < trail.colour[28, 3]
    assert not any(len(s.start) for s in drawn_overlays(set(OVERLAYS) - {"ground", "trails"}))  # nothing known


def test_trails_end_where_a_robot_is_put_elsewhere():
    made = Overlays(0.4, lambda x, y: np.zeros(np.shape(x)))
    robot = load_robot("go1")
    counts = []
    for k, x in enumerate((0.0, 0.01, 0.02, 5.0, 5.01)):
        at = standing_at(x)
        frame = Snapshot(at.position, np.array([1.0, 0, 0, 0]), robot.home_joints.ravel(), time=0.02 * k)
        counts.append(len(made.strokes(frame, at, {"trails"})[1].start))
    assert counts == [0, 4, 8, 0, 4]


def test_overlays_are_named_in_the_configuration():
    assert overlays("forces, trails") == ("forces", "trails")
    with pytest.raises(ValueError, match="expected names of forces, balance"):
        overlays("forces arrows")
    assert set(SHOWN) <= set(OVERLAYS)


def opened(task, **changes):
    """Return a viewer of a checkpoint that comes with Foal."""
    loaded = checkpoints.load(runs.SHIPPED / f"{task}.pt")
    cfg = override(loaded.config, {"train.threads": 1} | changes)
    return simulate.System(cfg, Console(quiet=True), loaded).viewer()


class Screen:
    """A window that nobody sees."""

    def __init__(self, closes_after=None, seconds=0.0):
        self.requests = Requests()
        self.shown = set(OVERLAYS)
        self.frames = []
        self.stages = []
        self.closes_after = closes_after
        self.seconds = seconds

    @property
    def should_close(self):
        return self.closes_after is not None and len(self.frames) >= self.closes_after

    def draw(self, frame):
        self.frames.append(frame)
        if self.seconds:
            time.sleep(self.seconds)

    def stage(self, **kwargs):
        self.stages.append(kwargs)


@pytest.fixture(scope="module")
def watched():
    return opened("quadruped-walk-flat")


def ask(viewer, *controls, **more):
    screen = Screen()
    screen.requests = Requests(controls, **more)
    viewer.obey(screen)
    return screen


def state_of(viewer):
    return viewer.env.engine.get_state()


def test_time_passes_as_it_does_whatever_the_frame_rate(watched, monkeypatch):
    for every in (1 / 240, 1 / 60, 1 / 25, 0.2):
        now = [100.0]
        monkeypatch.setattr(viewers.time, "perf_counter", lambda: now[0])  # noqa: B023

        class Clocked(Screen):
            def draw(self, frame):
                super().draw(frame)
                now[0] += every  # noqa: B023

        screen = Clocked(closes_after=round(6.0 / every))
        watched.show(screen)
        assert watched.time == pytest.approx(6.0, abs=0.02 + every)  # the last picture's time is not gone by yet
        assert watched.rate == pytest.approx(1.0, abs=0.02 / viewers.RATE_SECONDS + every)
        assert ("real time", "1.00 x") in screen.frames[-1].hud or every > 0.1


def test_time_stands_still_goes_step_by_step_and_at_other_speeds(watched):
    watched.restart()
    ask(watched, "pause")
    watched.pass_time(1.0)
    assert watched.time == 0.0
    assert watched.snapshot().state == "paused"
    ask(watched, "step")
    assert watched.time == pytest.approx(watched.cfg.env.ctrl_dt)
    ask(watched, "pause")
    ask(watched, "slower", "slower")
    for _ in range(10):
        watched.pass_time(0.2)
    assert watched.time == pytest.approx(0.5, abs=0.05)
    assert watched.snapshot().state == "0.25 x"
    ask(watched, "faster", "faster")
    watched.pass_time(10.0)  # a computer that slept: what was missed is not run after
    assert watched.time < 1.0


def test_a_robot_that_is_driven_goes_where_it_is_told(watched):
    watched.restart()
    start = state_of(watched).base_position[0].copy()
    for _ in range(150):
        ask(watched, drive=(1.0, 0.0, 0.0))
        watched.go_on()
    assert watched.driving
    command = watched.env.field("command")[0]
    assert command[0] == pytest.approx(watched.cfg.env.command.forward[1], rel=0.01)
    moved = state_of(watched).base_position[0] - start
    assert np.linalg.norm(moved[:2]) > 1.5
    for _ in range(100):
        ask(watched)
        watched.go_on()
    assert (watched.env.field("command")[0] == 0.0).all()
    assert abs(watched.env.heading_velocity()[0, :2]).max() < 0.25
    for _ in range(1200):  # an episode is 20 s: nobody who drives is put back to the start
        ask(watched, drive=(0.0, 0.0, 1.0))
        assert not watched.step()
    ask(watched, "drive")
    assert not watched.driving
    watched.go_on()
    assert watched.env.field("command_in")[0, 0] < 100.0


def test_worlds_change_while_robots_walk(watched):
    watched.restart()
    for _ in range(50):
        watched.go_on()
    before = state_of(watched)
    friction = watched.cfg.physics.foot_friction if hasattr(watched.cfg, "physics") else None
    friction = watched.cfg.env.physics.foot_friction
    screen = ask(watched, "slip")
    assert watched.cfg.env.physics.foot_friction == pytest.approx(friction / 1.25, rel=0.01)
    assert watched.env.engine.model.world[C.KINETIC] == pytest.approx(friction / 1.25, rel=0.01)
    assert len(screen.stages) == 1
    ask(watched, "load", "load")
    payload = watched.cfg.env.physics.payload
    assert payload == pytest.approx(0.1 * watched.env.robot.total_mass, rel=0.02)
    for name in ("base_position", "base_quaternion", "joint_position", "base_linear_velocity", "foot_contact_force"):
        np.testing.assert_array_equal(getattr(state_of(watched), name), getattr(before, name))
    ask(watched, *["unload"] * 5)
    assert watched.cfg.env.physics.payload == 0.0  # and no less
    ask(watched, "simulator")
    assert watched.simulator == "mujoco"
    assert type(watched.env).__name__ == "MujocoEnv"
    np.testing.assert_array_equal(state_of(watched).base_position, before.base_position)
    for _ in range(50):
        watched.go_on()
    assert not watched.state.terminated[0]
    assert abs(watched.env.datas[0].qpos[:2] - state_of(watched).base_position[0, :2]).max() < 1e-3
    ask(watched, "simulator")
    for _ in range(50):
        watched.go_on()
    assert watched.simulator == "foal"
    assert watched.falls == 0
    ask(watched, "harder")
    assert "level ground" in watched.note


def test_other_checkpoints_are_shown_in_their_own_world(watched):
    names = [viewers.short_name(path) for path in watched.checkpoints]
    assert {"quadruped-walk-flat", "cartpole", "quadruped-walk-stairs"} <= set(names)
    viewer = opened("quadruped-walk-flat")
    at = names.index("quadruped-walk-flat")
    ask(viewer, "checkpoint")
    assert viewers.short_name(viewer.checkpoint) == names[(at + 1) % len(names)]
    ask(viewer, "checkpoint before")
    assert viewers.short_name(viewer.checkpoint) == "quadruped-walk-flat"
    screen = ask(viewer, checkpoint="cartpole")
    assert viewer.cfg.task == "cartpole"
    assert screen.stages[-1]["title"] == "Foal: cartpole"
    for control in CONTROLS:
        for name in filter(None, (control.name, control.opposite)):
            if name not in ("checkpoint", "checkpoint before", "pause"):
                ask(viewer, name, drive=(1.0, 0.0, 0.0), goal=np.zeros(3), shove=(0, np.ones(3)), chosen=0)
                viewer.go_on()
                viewer.snapshot(set(OVERLAYS))
    ask(viewer, checkpoint="no such")
    assert viewer.cfg.task == "cartpole"


def test_terrain_grows_steeper_under_the_feet_and_the_watched_one_comes_to_it():
    viewer = opened("quadruped-walk-stairs")
    screen = Screen(closes_after=3)
    viewer.show(screen)
    x = state_of(viewer).base_position[0, 0]
    tiles = viewer.env.terrain.spawns[..., 0].min() - viewer.cfg.env.terrain.tile / 2
    assert tiles - 1.5 < x < tiles - 0.5
    viewer.env.set_spawns(viewer.env.terrain.spawns[:1, 0, :2] + [viewer.cfg.env.terrain.tile / 4, 0.0])
    viewer.restart()
    for _ in range(20):
        viewer.go_on()
    place = state_of(viewer).base_position[0]
    height = place[2] - viewer.env.terrain.height(*place[:2])
    ask(viewer, *["harder"] * 4)
    assert viewer.cfg.env.terrain.difficulty == pytest.approx((viewer.cfg.env.terrain.difficulty[0],) * 2)
    assert viewer.cfg.env.terrain.difficulty[0] >= 0.4
    after = state_of(viewer).base_position[0]
    np.testing.assert_allclose(after[:2], place[:2], atol=1e-5)
    assert after[2] - viewer.env.terrain.height(*after[:2]) == pytest.approx(height, abs=1e-4)
    assert abs(after[2] - place[2]) > 0.01
    ask(viewer, *["easier"] * 20)
    assert viewer.cfg.env.terrain.difficulty == (0.0, 0.0)


def test_robots_that_differ_keep_what_is_theirs_and_get_what_is_new():
    viewer = opened("quadruped-walk-robust", **{"render.envs": 3})

    def rows(row):
        blocks = viewer.env.engine.model.varied_blocks
        return blocks.reshape(viewer.env.engine.num_blocks, -1, LANES)[:, row, :3].ravel().copy()

    mass, friction = rows(L.V_MASS), rows(L.V_KINETIC)
    assert np.ptp(friction) > 0.01
    ask(viewer, "load", "slip")
    np.testing.assert_allclose(rows(L.V_MASS) - mass, viewer.cfg.env.physics.payload, rtol=1e-3)
    np.testing.assert_allclose(rows(L.V_KINETIC) / friction, 1 / 1.25, rtol=0.01)
    ask(viewer, "next")
    assert viewer.picture.watched == 0  # of 0, 1, 2 the last was in the middle
    ask(viewer, chosen=1)
    assert viewer.snapshot().watched == 1
    velocity = state_of(viewer).base_linear_velocity
    ask(viewer, shove=(2, np.array([0.5, -0.25, 0.0])))
    np.testing.assert_allclose(
        state_of(viewer).base_linear_velocity - velocity, [[0, 0, 0], [0, 0, 0], [0.5, -0.25, 0]], atol=1e-6
    )
    ask(viewer, "previous", "previous")
    assert viewer.picture.watched == 2


def test_goals_go_where_the_ground_was_clicked():
    viewer = opened("quadruped-goal", **{"render.envs": 2})
    robot = viewer.picture.watched
    x, y, _ = state_of(viewer).base_position[robot]
    point = np.array([x + 1.0, y + 0.5, 0.0]) + viewer.picture.places[robot]
    ask(viewer, goal=point)
    np.testing.assert_allclose(viewer.snapshot().goal[robot, :2], point[:2], atol=1e-5)
    viewer.go_on()
    np.testing.assert_allclose(viewer.snapshot().goal[robot, :2], point[:2], atol=1e-5)
    ask(viewer, drive=(1.0, 0.0, 0.0))
    assert not viewer.driving
    assert "no velocities" in viewer.note


@pytest.mark.parametrize("name", ["go1", "spot"])
def test_a_payload_is_what_mujoco_takes_it_for(name):
    robot = load_robot(name)
    payload = 0.3 * robot.total_mass
    spec = mujoco.MjSpec.from_string(to_mjcf(robot, 0.002, 0.8, ""))
    at = robot.trunk_centre + [0.0, 0.0, robot.trunk_half_extents[2]]
    box = spec.body("base").add_body(name="load", pos=at)
    box.ipos = [0.0, 0.0, 0.0]
    box.mass = payload
    box.inertia = [1e-9] * 3
    box.explicitinertial = True
    matrices = []
    for model in (spec.compile(), mujoco.MjModel.from_xml_string(to_mjcf(robot.carrying(payload), 0.002, 0.8, ""))):
        data = mujoco.MjData(model)
        data.qpos[:] = model.key_qpos[0]
        mujoco.mj_forward(model, data)
        full = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, full, data.qM) if hasattr(data, "qM") else mujoco.mj_fullM(model, data, full)
        matrices.append(full)
    np.testing.assert_allclose(*matrices, rtol=1e-4, atol=1e-5)
    assert robot.carrying(0.0) is robot


def test_a_loaded_robot_weighs_more_on_its_feet():
    forces = []
    for payload in (0.0, 3.0):
        viewer = opened("quadruped-balance", **{"physics.payload": payload, "push.speed": (0.0, 0.0)})
        for _ in range(100):
            viewer.go_on()
        total = []
        for _ in range(100):
            viewer.go_on()
            total.append(state_of(viewer).foot_contact_force[0, :, 2].sum())
        forces.append(np.mean(total))
    assert forces[1] - forces[0] == pytest.approx(3.0 * 9.81, rel=0.1)


def test_torques_are_those_of_the_motors(watched):
    watched.restart()
    for _ in range(20):
        watched.go_on()
    env = watched.env
    assert env.engine.model.varied_blocks is not None  # gains, limits and offsets are the robot's own
    torque, limit = env.engine.motor_torques()
    # compiled code finds the sum of their squares for the reward
    weight = env.cfg.reward.torque * env.cfg.ctrl_dt / torque_ratio(env.robot) ** 2
    assert weight * (torque**2).sum() == pytest.approx(float(env.reward_terms()["torque"][0]), rel=1e-4)
    np.testing.assert_allclose(limit[0], env.robot.torque_limit.ravel(), rtol=0.1 + 1e-6)
    detail = watched.snapshot({"torques"}).detail
    np.testing.assert_allclose(detail.torque, (torque / limit)[0])
    assert detail.rewards.keys() == {term.name for term in env.terms.rewards}
    assert watched.snapshot({"forces"}).detail.torque is None  # nothing that nobody sees is worked out
    assert watched.snapshot({"ground"}).detail.torque is not None  # what is seen of the ground comes with the rest


# Windows that are closed, killed or cannot be

RENDER = [sys.executable, str(ROOT / "simulate.py"), "--eval", "--render", "--task", "quadruped-balance"]


@pytest.fixture
def display():
    """Yield an X server's name and process."""
    read, write = os.pipe()
    try:
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x720x24"],
            pass_fds=[write],
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        pytest.skip("no Xvfb here")
    os.close(write)
    name = ":" + os.read(read, 16).decode().strip()
    yield types.SimpleNamespace(name=name, server=server)
    server.terminate()
    server.wait()


def started(display):
    environment = os.environ | {"DISPLAY": display.name, "XDG_SESSION_TYPE": "x11"}
    environment.pop("WAYLAND_DISPLAY", None)
    return subprocess.Popen(
        RENDER, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class ClientMessage(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("send_event", ctypes.c_int), ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong), ("message_type", ctypes.c_ulong), ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5), ("room", ctypes.c_long * 24),
    )  # fmt: skip


class X:
    """As much of a window manager as it takes to close a window."""

    def __init__(self, name):
        x = self.x = ctypes.CDLL("libX11.so.6")
        x.XOpenDisplay.restype = ctypes.c_void_p
        x.XDefaultRootWindow.restype = x.XInternAtom.restype = ctypes.c_ulong
        self.display = ctypes.c_void_p(x.XOpenDisplay(name.encode()))
        self.root = ctypes.c_ulong(x.XDefaultRootWindow(self.display))

    def windows(self):
        root, parent, count = ctypes.c_ulong(), ctypes.c_ulong(), ctypes.c_uint()
        children = ctypes.POINTER(ctypes.c_ulong)()
        self.x.XQueryTree(self.display, self.root, *map(ctypes.byref, (root, parent, children, count)))
        return [children[i] for i in range(count.value)]

    def close(self, window):
        protocols, delete = (
            self.x.XInternAtom(self.display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")
        )
        event = ClientMessage(33, 0, 1, self.display, window, protocols, 32)
        event.data[0] = delete
        self.x.XSendEvent(self.display, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(event))
        self.x.XFlush(self.display)


@pytest.mark.parametrize("how", ["closed", "interrupted", "display"])
def test_windows_end_cleanly_at_any_moment(display, how):
    process = started(display)
    manager = X(display.name)
    deadline = time.monotonic() + 60
    while not manager.windows() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(random.uniform(0.0, 1.5))
    if how == "closed":
        # GLFW makes a second window to learn what the server can do
        while process.poll() is None and time.monotonic() < deadline:
            for window in manager.windows():
                manager.close(window)
            time.sleep(0.2)
    elif how == "interrupted":
        process.send_signal(signal.SIGINT)
    else:
        display.server.kill()
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if not re.match(r"checkpoint |compil", line)]
    if how == "closed":
        assert (process.returncode, lines) == (0, [])
    elif how == "interrupted":
        assert (process.returncode, lines) == (130, [])
    else:
        assert process.returncode == 2
        assert lines == ["simulate.py: the display has gone"]
    assert out == ""


def test_a_display_without_opengl_is_told_in_a_line():
    read, write = os.pipe()
    try:
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-extension", "GLX"], pass_fds=[write], stderr=subprocess.DEVNULL
        )
    except FileNotFoundError:
        pytest.skip("no Xvfb here")
    os.close(write)
    name = ":" + os.read(read, 16).decode().strip()
    try:
        process = started(types.SimpleNamespace(name=name))
        _, err = process.communicate(timeout=60)
    finally:
        server.terminate()
        server.wait()
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith("simulate.py: no window could be opened: it takes a display with OpenGL")
    assert "Traceback" not in err


def test_overlays_that_there_are_not_are_refused_in_a_line():
    run = subprocess.run(
        [*RENDER[:3], "--record", "x.mp4", "--render.overlays", "arrows"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith("simulate.py: render.overlays: expected names of forces, balance")
