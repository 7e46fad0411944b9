"""A page for browsers: what it sends, what it is asked for, what is seen in Chromium, and how it ends."""

import contextlib
import io
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from commands import ROOT, called

import simulate
from environments import registry
from physics import load_robot, terrain
from renderer import Picture, RenderError, Snapshot, Web, land
from renderer.controls import CONTROLS, OVERLAYS, Requests
from renderer.glb import glb
from renderer.instances import Places
from renderer.kinematics import rotation
from renderer.scene import TILES
from settings import ConfigError
from training.options import web_address

pytest.importorskip("viser", reason="viser is not installed")
NAMES = "walk", "run/best", "run/last"


def standing(robots=1, at=0.35, **more):
    """Return a snapshot of robots that stand beside each other."""
    robot = load_robot("go1")
    base = np.zeros((robots, 3))
    base[:, 1] = np.arange(robots)
    base[:, 2] = at
    quaternion = np.tile([1.0, 0.0, 0.0, 0.0], (robots, 1))
    joints = np.tile(robot.home_joints.ravel(), (robots, 1))
    return Snapshot(base_position=base, base_quaternion=quaternion, joint_position=joints, **more)


@pytest.fixture
def web():
    """A page of a robot, with three checkpoints."""
    with Web(load_robot("go1"), port=0, checkpoints=NAMES, checkpoint=NAMES[1]) as page:
        yield page


class Looked:
    """What a page sends while somebody looks: the names of nodes, and of what of them changed."""

    def __init__(self, web, monkeypatch):
        self.web = web
        self.buffer = web._server._websock_server._broadcast_buffer
        monkeypatch.setattr(web._server, "get_clients", lambda: {1: None})

    def draw(self, frame):
        before = self.buffer.message_counter
        self.web._panel._written = np.inf  # text is for another test
        self.web.draw(frame)
        sent = [message for number, message in self.buffer.message_from_id.items() if number >= before]
        return {(m.name, *getattr(m, "updates", ())) for m in sent}


# What is sent


def test_what_has_not_moved_is_not_sent_again(web, monkeypatch):
    looked = Looked(web, monkeypatch)
    looked.draw(standing())
    looked.draw(standing())
    assert looked.draw(standing()) == set()
    bent = standing()
    bent.joint_position[0, 2] -= 0.3  # a calf, and its foot
    assert sorted(part for _, part in looked.draw(bent)) == ["batched_positions", "batched_wxyzs", "batched_wxyzs"]
    pushed = standing(push=np.array([[1.0, 0.0, 0.0]]))
    looked.draw(standing())
    assert {part for _, part in looked.draw(pushed)} == {"batched_positions", "batched_wxyzs", "batched_scales"}


def test_meshes_are_sent_once(web, monkeypatch):
    looked = Looked(web, monkeypatch)
    looked.draw(standing())
    for step in range(5):
        sent = looked.draw(standing(at=0.3 + 0.01 * step))
        assert all(part[1:] or part == ("/ground",) for part in sent)  # of which only the place is sent


def test_nothing_is_computed_while_nobody_looks(web, monkeypatch):
    web.draw(standing())
    monkeypatch.setattr(web, "_send", None)  # is not called
    web.draw(standing(at=0.5))
    start = time.perf_counter()
    for _ in range(6):
        web.draw(standing())
    assert 0.1 < time.perf_counter() - start < 2.0  # 30 a second


def test_hidden_groups_have_no_size(web, monkeypatch):
    looked = Looked(web, monkeypatch)
    looked.draw(standing())
    scales = [instances._node.batched_scales for instances in web._copies._instances]
    assert {tuple(np.unique(scale)) for scale in scales} == {(0.0,), (1.0,)}  # arrows and goal; robot
    web._panel._boxes["forces"].value = False
    force = np.zeros((1, 4, 3))
    force[..., 2] = 40.0
    looked.draw(standing(foot_contact_force=force))
    arrows = [i._node.batched_scales for i in web._copies._instances if len(i._node.batched_scales) == 4]
    assert any((scale == 0.0).all() for scale in arrows)
    web._panel._boxes["forces"].value = True
    looked.draw(standing(foot_contact_force=force))
    arrows = [i._node.batched_scales for i in web._copies._instances if len(i._node.batched_scales) == 4]
    assert any((scale[:, 2] > 0.05).all() and (scale[:, 0] == 1.0).all() for scale in arrows)


def test_places_are_those_of_matrices():
    rng = np.random.default_rng(0)
    quaternion = rng.normal(size=(50, 2, 4))
    quaternion[:3, 0] = np.eye(4)[1:]  # half turns
    turn = rotation(quaternion)
    origin = rng.normal(size=(50, 2, 3))
    places = Places.packed(turn * [1.0, 2.0, 0.5], turn, origin)
    by_copy = [array.reshape(2, 50, -1).swapaxes(0, 1) for array in places]
    np.testing.assert_allclose(by_copy[0], origin, atol=1e-6)
    np.testing.assert_allclose(rotation(by_copy[1]), turn, atol=1e-6)
    np.testing.assert_allclose(by_copy[2], np.broadcast_to([1.0, 2.0, 0.5], origin.shape))


def test_overlays_in_space_are_rods_and_cones(web, monkeypatch):
    looked = Looked(web, monkeypatch)
    looked.draw(standing())
    assert not web._lines
    web._panel._boxes["ground"].value = True
    looked.draw(standing())
    rods, cones = web._lines
    assert not rods.visible and len(cones._node.batched_positions) > 100
    web._panel._boxes["ground"].value = False
    looked.draw(standing())
    assert not cones.visible


def test_ghosts_come_and_go(web, monkeypatch):
    looked = Looked(web, monkeypatch)
    looked.draw(standing())
    assert web._ghosts is None
    looked.draw(standing(ghost=standing(at=0.5)))
    assert all(instances.visible for instances in web._ghosts._instances)
    looked.draw(standing())
    assert not any(instances.visible for instances in web._ghosts._instances)


def test_another_stage_and_another_number_of_robots(web):
    web.draw(standing())
    web.draw(standing())
    web._complete = False
    web.draw(standing(3))
    web.stage(load_robot("go2"), "Foal: other", terrain.curriculum(levels=1))
    web.draw(standing(2))
    assert len(web._middles) == 2
    env = registry.make("cartpole", num_envs=4)
    env.init_state(0)
    picture = Picture(env, "cartpole")
    web.stage(**picture.stage())
    web.draw(picture.frame())
    assert len(web._middles) == 4


# Meshes


def contents(data):
    """Return the description and the arrays of a .glb."""
    size, kind = struct.unpack("<I4s", data[12:20])
    assert (data[:4], kind, len(data)) == (b"glTF", b"JSON", struct.unpack("<I", data[8:12])[0])
    text = json.loads(data[20 : 20 + size])
    binary = data[28 + size :]
    types = {5126: np.float32, 5121: np.uint8, 5125: np.uint32}
    arrays = []
    for view, accessor in zip(text["bufferViews"], text["accessors"], strict=True):
        part = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        array = np.frombuffer(part, types[accessor["componentType"]])
        arrays.append(array.reshape(accessor["count"], -1))
    return text, arrays


def test_a_mesh_is_written_as_gltf():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    colours = np.array([[0.2, 0.4, 2.0], [0, 0, 0], [1, 1, 1]])
    text, (at, shares, normals, triangles) = contents(glb(vertices, [[0, 1, 2]], colours, np.tile([0, 0, 1.0], (3, 1))))
    factor = text["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"]
    np.testing.assert_allclose(at, vertices)
    np.testing.assert_allclose(shares[:, :3] / 255 * factor[:3], colours, atol=2.0 / 255)
    assert triangles.ravel().tolist() == [0, 1, 2] and normals.shape == (3, 3) and "extensionsUsed" not in text
    assert text["accessors"][0]["max"] == [1.0, 1.0, 0.0]
    text, arrays = contents(glb(vertices, [[0, 1, 2]], colours, opacity=0.5))
    assert text["extensionsUsed"] == ["KHR_materials_unlit"] and len(arrays) == 3
    assert text["materials"][0]["alphaMode"] == "BLEND"


def test_ground_is_seen_in_its_own_colours():
    seen = np.random.default_rng(0).uniform(0.02, 0.9, (100, 3)) * 0.3 + 0.5
    x = land.before_film(seen) @ (land.FILM_EXPOSURE * land.FILM_IN).T
    x = (x * (x + 0.0245786) - 0.000090537) / (x * (0.983729 * x + 0.4329510) + 0.238081)  # as three.js has it
    np.testing.assert_allclose(x @ land.FILM_OUT.T, seen, atol=1e-9)


def test_a_terrain_is_as_high_as_it_is():
    ground = terrain.curriculum(levels=1)
    _, (at, *_) = contents(land.relief(ground, TILES))
    np.testing.assert_allclose(at[:, 2], ground.height(*at[:, :2].T), atol=1e-3)
    assert (at[:, :2].min(0) <= ground.origin).all() and len(at) > 10_000


# What users ask for


def test_buttons_become_requests(web):
    for control in CONTROLS:
        if not (control.view or control.name.startswith("checkpoint")):
            web._panel._press(control.name)
    web._panel._press("faster")
    web.draw(standing())
    asked = [c.name for c in CONTROLS if not (c.view or c.name.startswith("checkpoint"))]
    assert web.requests == Requests(controls=(*asked, "faster"))
    web.draw(standing())
    assert web.requests == Requests()


def test_a_page_of_robots_that_do_not_obey_has_no_buttons_for_it():
    with Web(load_robot("go1"), port=0, driven=False) as page:
        handles = page._server.gui._gui_input_handle_from_uuid.values()
        offered = [name for handle in handles for name in getattr(handle, "options", ())]
        assert offered == ["pause", "next", "previous"]
        assert not page._panel._sliders and not hasattr(page._panel, "shove")
        page.draw(standing())
        page._click(Click(page, [5.0, 2.0, 1.0], [1.0, -2.0, 0.0]), "choose")  # the ground
        page.draw(standing())
        assert page.requests.goal is None and page.requests == Requests()


def test_checkpoints_are_chosen_by_name(web):
    web._panel._list.value = NAMES[2]
    web.draw(standing())
    assert web.requests.checkpoint == NAMES[2]
    web._panel._press("checkpoint")  # after the last comes the first
    web.draw(standing())
    assert web.requests.checkpoint == NAMES[0] == web._panel._list.value
    web._panel._press("checkpoint before")
    web.draw(standing())
    assert web.requests.checkpoint == NAMES[2]


def test_without_a_list_the_next_checkpoint_is_asked_for():
    with Web(load_robot("go1"), port=0) as page:
        page._panel._press("checkpoint before")
        page.draw(standing())
        assert page.requests.controls == ("checkpoint before",)


def test_sliders_drive_until_they_are_released(web):
    web._panel._sliders[0].value = 0.5
    web._panel._sliders[2].value = -1.0
    for _ in range(2):
        web.draw(standing())
        assert web.requests.drive == (0.5, 0.0, -1.0)
    web._panel._release(None)
    web.draw(standing())
    assert web.requests.drive is None


def test_boxes_show_overlays(web):
    assert web.shown == {"forces", "ghosts", "numbers"}
    for name in OVERLAYS:
        web._panel._boxes[name].value = name == "balance"
    assert web.shown == {"balance"}


class Click:
    """A click from an eye at a point, as viser tells it: relative to what the camera follows."""

    def __init__(self, web, eye, point):
        target = web._camera.target
        self.ray_origin = tuple(np.subtract(eye, target))
        self.ray_direction = tuple(np.subtract(point, eye))


def test_a_click_chooses_shoves_or_sets_a_goal(web):
    web.draw(standing(3))
    click = Click(web, [5.0, 2.0, 1.0], [0.0, 2.0, 0.35])
    web._click(click, "choose")
    web._click(click, "shove")
    web.draw(standing(3))
    assert web.requests.chosen == 2
    robot, speed = web.requests.shove
    assert robot == 2
    np.testing.assert_allclose(speed, [-1.5, 0.0, 0.0], atol=1e-9)
    web._click(Click(web, [5.0, 2.0, 1.0], [1.0, -2.0, 0.0]), "choose")
    web.draw(standing(3))
    np.testing.assert_allclose(web.requests.goal, [1.0, -2.0, 0.0], atol=1e-9)


def test_the_world_moves_against_what_is_followed(web, monkeypatch):
    looked = Looked(web, monkeypatch)
    looked.draw(standing(4))

    def seen(robot):
        return web._copies._instances[0]._node.batched_positions[robot, :2]

    assert web._ground.position[1] == seen(0)[1] == 0.0
    looked.draw(standing(4, watched=3))  # so far that the camera cuts to it
    np.testing.assert_allclose(web._ground.position[:2], [0.0, np.fmod(-3.0, web._step)], atol=1e-6)
    np.testing.assert_allclose(seen(0)[1], -3.0, atol=1e-6)
    np.testing.assert_allclose(seen(3)[1], 0.0, atol=1e-6)
    web._panel._follow.value = False
    looked.draw(standing(4))
    np.testing.assert_allclose(seen(0)[1], -3.0, atol=1e-6)


def test_text_says_what_a_frame_says(web):
    text = web._panel._describe(standing(hud=(("a <b>", "1 m"),), note="so & so", fallen=True), {"numbers"})
    assert all(part in text for part in ("a &lt;b&gt;", "1 m", "so &amp; so", "fallen"))
    assert "1 m" not in web._panel._describe(standing(hud=(("a", "1 m"),)), set())


# Where it is served


def test_an_address_is_read():
    assert web_address("") == ("127.0.0.1", 8080)
    assert web_address("0") == ("127.0.0.1", 0)
    assert web_address("0.0.0.0:99") == ("0.0.0.0", 99)
    assert web_address("[::1]:99") == ("::1", 99)
    for text in ("x", "70000", "-1", "a:b", ":80", "1.5", "::1:80", "[::1]"):
        with pytest.raises(ConfigError, match=r"^--web: expected a port from 0"):
            web_address(text)


def test_a_port_in_use_and_a_host_of_another_are_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RenderError, match=rf"^--web: expected an address that is free, got 127\.0\.0\.1:{port}: "):
            Web(load_robot("go1"), port=port)
    with pytest.raises(RenderError, match=r"^--web: expected an address that is free, got 192\.0\.2\.1:80"):
        Web(load_robot("go1"), host="192.0.2.1", port=80)


def test_an_address_of_the_sixth_version_is_served():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with Web(load_robot("go1"), host="::1", port=0) as page:
        assert page.address.startswith("http://[::1]:")
        with urllib.request.urlopen(page.address, timeout=30) as answer:
            assert answer.status == 200


def test_who_ends_a_page_by_ctrl_c_finds_the_plot_of_the_dream(tmp_path, monkeypatch):
    closes = iter([False] * 3)

    def close(page):
        for answer in closes:
            return answer
        raise KeyboardInterrupt

    monkeypatch.setattr(Web, "should_close", property(close))
    checkpoint = ROOT / "checkpoints/quadruped-walk-flat-belief.pt"
    options = ["--eval", "--dream", "--web", "0", "--checkpoint", str(checkpoint), "--train.run_dir", str(tmp_path)]
    done = called(simulate.main, options, monkeypatch)
    assert done.code == 130, done.out + done.err
    assert (tmp_path / "dream.png").stat().st_size > 20_000


def test_without_viser_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(RenderError, match="pip install viser"):
        Web(load_robot("go1"), port=0)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--web", "--export", "x.onnx"], "--web: expected with --eval"),
        (["--eval", "--web", "--render"], "--web: expected without --render"),
        (["--eval", "--web", "abc"], "--web: expected a port"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, complaint, monkeypatch):
    done = called(simulate.main, arguments, monkeypatch)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert complaint in done.err


def test_what_cannot_be_drawn_leaves_no_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(RenderError, match="nothing to draw"):
        Web((), port=port, reach=1.0)
    Web(load_robot("go1"), port=port).close()


def test_closing_twice_is_harmless(capfd):
    page = Web(load_robot("go1"), port=0)
    page.draw(standing())
    page.close()
    page.close()
    assert capfd.readouterr() == ("", "")  # nothing of viser's


# In a browser, the program itself

SMALL = {"width": 1000, "height": 600}
MIDDLE = {"x": 300, "y": 150, "width": 360, "height": 400}  # between the panels
FLAGS = "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"
PATIENCE = 300.0  # s; compiled anew and beside two busy cores, a training and its page took 170 in all


class Program:
    """simulate.py --eval --web, and a page in Chromium that shows it."""

    def __init__(self, process, page):
        self.process = process
        self.page = page

    def pixels(self):
        """Return what is between the panels, (height, width, 3)."""
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(self.page.screenshot(clip=MIDDLE))).convert("RGB")).astype(int)

    def until(self, holds, what, seconds=PATIENCE):
        """Wait until something holds of the pixels, and return them."""
        end = time.time() + seconds
        while time.time() < end:
            pixels = self.pixels()
            if holds(pixels):
                return pixels
            self.page.wait_for_timeout(200)
        raise AssertionError(what)

    def moves(self, seconds=PATIENCE):
        """Return whether a picture differs from the one before it, within some time."""
        before = self.pixels()
        end = time.time() + seconds
        while time.time() < end:
            self.page.wait_for_timeout(700)
            now = self.pixels()
            if abs(now - before).max() >= 20:
                return True
            before = now
        return False

    def comes_to_rest(self, seconds=PATIENCE):
        """Return whether, within some time, four pictures in a row are the same: a slow machine draws what is late."""
        end = time.time() + seconds
        while time.time() < end:
            if not self.moves(2.0):
                return True
        return False


def dark(pixels):
    """Return how many pixels are as dark as only a robot's hips and feet are."""
    return int((pixels.max(2) < 90).sum())


def teal(pixels):
    return int(((pixels[..., 1] - pixels[..., 0] > 60) & (pixels[..., 1] > 90)).sum())


@contextlib.contextmanager
def opened(browser, folder, *options):
    """Run simulate.py with a page, and yield both."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "simulate.py"), "--web", "0", *options], cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            address = next(match[0] for line in process.stdout if (match := re.search(r"http://[\d.]+:\d+", line)))
            page = browser.new_page(viewport=SMALL)
            page.set_default_timeout(PATIENCE * 1000)  # two busy cores draw without a GPU beside a training
            for _ in range(100):  # the page of a training is served by another process, soon
                with contextlib.suppress(Exception):
                    page.goto(address)
                    break
                time.sleep(0.2)
            yield Program(process, page)
            page.close()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def browser():
    """Yield a browser; a process can have one player at a time."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("Chromium is not installed")
    with api.sync_playwright() as play, play.chromium.launch(executable_path=chromium, args=list(FLAGS)) as browser:
        yield browser


@pytest.fixture(scope="module")
def program(browser, tmp_path_factory):
    options = "--eval", "--task", "quadruped-walk-flat", "--render.envs", "9"
    with opened(browser, tmp_path_factory.mktemp("web"), *options) as program:
        yield program


def test_robots_are_there_and_move(program):
    program.until(lambda pixels: dark(pixels) > 100, "no robot on the page")
    assert program.moves()


def test_a_button_pauses(program):
    program.page.get_by_role("button", name="pause").click()
    program.page.get_by_text("paused", exact=True).wait_for()
    assert program.comes_to_rest()


def test_a_box_shows_an_overlay(program):
    program.page.get_by_role("checkbox", name="forces", exact=True).click()
    program.page.wait_for_timeout(1500)
    before = teal(program.pixels())  # on a slow machine with what is left of the forces
    program.page.get_by_role("checkbox", name="ground", exact=True).click()
    shown = teal(program.until(lambda pixels: teal(pixels) > before + 100, "no heights of the ground"))
    program.page.get_by_role("checkbox", name="ground", exact=True).click()
    program.until(lambda pixels: teal(pixels) < (before + shown) / 2, "heights of the ground stay")


def test_a_click_on_a_robot_chooses_it(program):
    program.page.get_by_role("button", name="reset").click()  # side by side again
    program.page.wait_for_timeout(1500)
    pixels = program.pixels()
    rows, columns = np.nonzero(pixels.max(2) < 90)
    middle = MIDDLE["x"] - SMALL["width"] / 2 + columns, MIDDLE["y"] - SMALL["height"] / 2 + rows
    others = np.flatnonzero(np.hypot(*middle) > 90)
    assert len(others), "only one robot on the page"
    chosen = program.page.get_by_text(re.compile("robot . of 9"))
    for index in others[:: max(1, len(others) // 12)]:
        program.page.mouse.click(MIDDLE["x"] + int(columns[index]), MIDDLE["y"] + int(rows[index]))
        program.page.wait_for_timeout(400)
        if chosen.count():
            return
    raise AssertionError("no click chose a robot")


def test_a_list_changes_the_checkpoint(program):
    program.page.get_by_role("combobox", name="checkpoint").click()
    program.page.get_by_role("option", name="cartpole", exact=True).click()
    program.page.get_by_text("Foal: cartpole").wait_for()
    program.until(lambda pixels: (pixels[..., 2] - pixels[..., 0] > 80).sum() > 100, "no blue cart")


def test_the_page_outlives_the_program(program):
    program.process.send_signal(signal.SIGINT)
    rest = program.process.stdout.read()
    assert program.process.wait(PATIENCE) == 130
    assert rest == ""  # no traceback, and nothing of viser's
    program.page.wait_for_timeout(1000)
    assert (program.pixels()[..., 2] - program.pixels()[..., 0] > 80).sum() > 100


def test_a_training_is_watched_and_its_page_outlives_it(browser, tmp_path):
    options = (
        "--task", "quadruped-balance", "--train.num_envs", "64", "--train.eval_every", "0", "--render.envs", "4",
        "--train.threads", "1",
    )  # fmt: skip
    with opened(browser, tmp_path, *options, "--iterations", "100000") as program:
        program.until(lambda pixels: dark(pixels) > 100, "no robot on the page")
        program.page.get_by_text("iteration").first.wait_for()
        assert program.moves()
        program.process.send_signal(signal.SIGINT)
        rest = program.process.stdout.read()
        assert program.process.wait(PATIENCE) == 130
        assert "Traceback" not in rest
        program.page.wait_for_timeout(1000)
        assert dark(program.pixels()) > 100
