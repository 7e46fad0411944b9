"""Terrain in the picture: the mesh against the ground itself, its light, the camera, and pictures without a display."""

import itertools
import math
import pathlib

import numpy as np
import pytest

from physics import load_robot, terrain
from renderer import Snapshot
from renderer.camera import CLEARANCE, Camera, View
from renderer.light import SHADOW_TEXELS, SUN, encode, shadow, surfaces
from renderer.model import STEM, Model, place
from renderer.relief import CHUNK, DETAIL, FINEST, around, divide, make_patch
from renderer.scene import TILES

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLOURS = np.array(TILES)
ROUGH = terrain.rough(0.15, 0.4, seed=5, size=8.0)
STAIRS = terrain.stairs(0.15, 0.3, up=False)
STONES = terrain.stepping_stones(0.3, 0.2, 0.5, 0.05, platform=0.3)


def patch(ground, i=0, j=0, quads=None):
    grid = divide(ground.cell)
    return make_patch(ground, grid, i, j, quads or grid.quads, COLOURS)


def surface(made, quads):
    """Return the ground's quads of a patch, (y, x, 4, 3) corners and colours, and its skirt's, (4 n, 4, 3)."""
    n = CHUNK * quads
    return (a.reshape(n, n, 4, 3) for a in (made.corners[: n * n], made.colours[: n * n]))


@pytest.mark.parametrize("cell", [0.01, 0.02, 0.04, 0.05, 0.1, 0.16, 0.2, 0.25, 0.32, 1.0, 16.0])
def test_the_ground_is_divided_along_its_cells(cell):
    grid = divide(cell)
    assert 0.5 / math.sqrt(2) - 1e-9 <= grid.tile <= 0.5 * math.sqrt(2) + 1e-9
    side = grid.tile / grid.quads
    assert FINEST <= side <= 0.25 + 1e-9 or side == pytest.approx(cell)
    ratio = max(side / cell, cell / side)
    assert ratio == pytest.approx(round(ratio))  # whole cells, or a whole share of one
    n = CHUNK * grid.quads
    assert 4 * (n * n + 4 * n) <= 65535  # indices of 16 bits
    assert grid.fineness(0.0) == grid.quads
    seen = [grid.fineness(d) for d in np.linspace(0, 14, 200)]
    assert seen == sorted(seen, reverse=True)
    assert all(grid.tile / q <= max(side, DETAIL * d) for q, d in zip(seen, np.linspace(0, 14, 200), strict=True))


@pytest.mark.parametrize("quads", [1, 2, 4])
@pytest.mark.parametrize("place_of", [(0, 0), (-2, 1), (9, -7)])
def test_patches_lie_on_the_ground(quads, place_of):
    grid = divide(ROUGH.cell)
    corners, _ = surface(patch(ROUGH, *place_of, quads), quads)
    np.testing.assert_allclose(corners[..., 2], ROUGH.height(corners[..., 0], corners[..., 1]), atol=2e-6)
    # They fill their square: each quad its own part of it, counter-clockwise from above.
    side = grid.tile / quads
    index = np.stack(np.meshgrid(*[np.arange(CHUNK * quads)] * 2), -1)[:, :, None] + [[0, 0], [1, 0], [1, 1], [0, 1]]
    np.testing.assert_allclose(corners[..., :2], np.array(place_of) * grid.chunk + side * index, atol=1e-5)


def test_skirts_close_the_gaps_between_finenesses():
    grid = divide(STONES.cell)
    below = []
    for quads, other in itertools.permutations((1, 4), 2):
        n = CHUNK * quads
        skirts = patch(STONES, 0, 0, quads).corners[n * n :].reshape(4, n, 4, 3).astype(float)
        step = grid.tile / other
        for side, direction in zip(skirts, ([0, -1, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0]), strict=True):
            normal = np.cross(side[:, 1] - side[:, 0], side[:, 2] - side[:, 1])
            np.testing.assert_allclose(
                normal / np.linalg.norm(normal, axis=1, keepdims=True), np.tile(direction, (n, 1)), atol=1e-4
            )
            # Along the edge a neighbour of the other fineness is straight between its own nodes.
            along = 1 if direction[0] else 0
            at = side[:, 1, along]
            low = np.floor(at / step + 1e-6) * step
            ends = []
            for node in (low, low + step):
                point = side[:, 1].copy()
                point[:, along] = node
                ends.append(STONES.height(point[:, 0], point[:, 1]))
            neighbour = ends[0] + (at - low) / step * (ends[1] - ends[0])
            assert (side[:, 2, 2] < neighbour).all()  # the skirt reaches below it
            below.append((side[:, 1, 2] - neighbour).max())
    assert max(below) > 0.3


def test_edges_are_sharp_and_hills_smooth():
    quads = divide(STAIRS.cell).quads
    corners, colours = surface(patch(STAIRS, 1, 0), quads)
    tread = np.ptp(corners[..., 2], axis=2) == 0
    steep = np.ptp(corners[..., 2], axis=2) > 0.1
    assert tread.sum() > 40
    assert steep.sum() > 20
    assert colours[steep].max() < 0.6 * colours[tread].max()
    # on rough ground the quads that share a node have one colour there, but for the chequer
    corners, colours = surface(patch(ROUGH), quads)
    one = slice(0, quads), slice(0, quads)  # a tile
    left = colours[one][:, :-1, 1]
    right = colours[one][:, 1:, 0]
    np.testing.assert_allclose(left, right, rtol=0.02)
    assert np.ptp(left) > 0.05


def test_level_open_ground_has_the_colours_of_the_floor():
    quads = divide(0.1).quads
    _, colours = surface(patch(terrain.flat(1.5)), quads)
    for y, x in itertools.product(range(CHUNK), range(CHUNK)):
        tile = colours[y * quads : (y + 1) * quads, x * quads : (x + 1) * quads]
        np.testing.assert_allclose(tile, np.broadcast_to(COLOURS[(x + y) % 2], tile.shape), rtol=1e-5)


def test_light_shows_the_relief():
    quads = divide(0.1).quads
    # the walls of a pyramid: towards the sun brighter than away from it
    towards, away = (
        patch(terrain.slope(0.5, math.atan2(*(sign * SUN[1::-1])))).colours[: 16 * quads * quads].mean()
        for sign in (-1, 1)
    )
    assert towards > 1.2 * away
    # along x, from a wall of 1 m on the side away from the sun to one on the sun's side
    heights = np.zeros((81, 81))
    heights[:, :20] = 1.0  # for x up to -2.1
    heights[:, 60:] = 1.0  # and from 2.0 on
    walls = terrain.from_array(heights, 0.1)
    brightness = {}
    for i in (-2, -1, 0, 1):
        corners, colours = surface(patch(walls, i, 0), quads)
        for x, c in zip(corners[8, :, 0, 0], colours[8, :, 0].mean(-1), strict=True):
            brightness[round(float(x), 1)] = float(c)
    # tiles of open ground
    light = brightness[0.0]
    dark = brightness[0.5]
    assert brightness[1.8] < 0.6 * light  # in the shadow of the wall
    assert brightness[1.8] < brightness[1.7] < 0.9 * light
    assert 0.5 * dark < brightness[-1.9] < 0.8 * dark  # in the sun, but half of the sky is hidden
    assert brightness[2.0] > 1.1 * dark  # the edge of the wall, which stands out


def test_the_ground_around_the_camera_is_drawn_whole():
    grid = divide(0.05)
    target = np.array([103.7, -48.2])
    patches = around(grid, target, 12.0)
    where = {(i, j): quads for i, j, quads in patches}
    assert len(where) == len(patches)
    draw = np.random.default_rng(0)
    angle = draw.uniform(0, 2 * np.pi, 2000)
    distance = draw.uniform(0, 11.99, 2000)
    for x, y, d in zip(
        target[0] + distance * np.cos(angle), target[1] + distance * np.sin(angle), distance, strict=True
    ):
        quads = where[math.floor(x / grid.chunk), math.floor(y / grid.chunk)]
        assert grid.tile / quads <= max(grid.tile / grid.quads, DETAIL * d) + 1e-9
    assert sum(4 * (CHUNK * quads) ** 2 for quads in where.values()) < 400_000  # vertices
    assert min(where.values()) < max(where.values()) == grid.quads


def test_what_is_out_of_the_picture_is_not_drawn():
    forward = np.array([0.6, 0.0, -0.8])
    right = np.array([0.0, -1.0, 0.0])
    up = np.cross(right, forward)
    view = View(np.zeros(3), np.stack([right, up, forward]), np.array([0.5, 0.25]))
    for aside, half in ((right, 0.5), (-right, 0.5), (up, 0.25), (-up, 0.25)):
        beyond = half + 0.2 * math.hypot(1, half) / 5  # a ball of 0.2 m, 5 m away, touches the edge
        assert view.sees(5 * forward + 5 * 0.99 * beyond * aside, 0.2)
        assert not view.sees(5 * forward + 5 * 1.01 * beyond * aside, 0.2)
    assert view.sees(np.array([5 * forward, -2 * forward, -0.3 * forward]), 0.5).tolist() == [True, False, True]


def walled():
    """Return level ground with a square wall, 0.7 m high, 0.9 to 1.2 m from the middle."""
    at = np.abs(np.arange(-40, 41) * 0.1)
    ring = np.maximum(at, at[:, None])
    return terrain.from_array(np.where((ring > 0.85) & (ring < 1.25), 0.7, 0.0), 0.1)


def test_the_camera_sees_the_target_over_the_ground():
    ground = walled()
    for azimuth in (-0.9, 0.4, 2.5):
        hidden = []
        for relief in (ground, None):
            camera = Camera(0.5, relief)
            camera.azimuth = azimuth
            camera.follow([0.1, 0.0, 0.2], 0.02)
            way = camera.target + (camera.position - camera.target) * np.linspace(0.15, 1, 200)[:, None]
            hidden.append((way[:, 2] < ground.height(way[:, 0], way[:, 1])).any())
        assert hidden == [False, True]


def test_the_camera_is_where_it_was_over_level_ground():
    camera = Camera(0.5)
    raised = Camera(0.5, terrain.flat(3.0))
    camera.follow([1.0, 2.0, 0.2], 0.02)
    raised.follow([1.0, 2.0, 3.2], 0.02)
    np.testing.assert_allclose(raised.position - camera.position, [0, 0, 3], atol=1e-6)
    for view in (camera, raised):
        view.elevation = -0.5
    assert camera.position[2] == pytest.approx(CLEARANCE)
    assert raised.position[2] == pytest.approx(3 + CLEARANCE)


def test_the_camera_rises_steadily():
    heights = np.zeros((81, 81))
    heights[29:32, 48:53] = 0.9  # a post, 1 m to the right of the way along y = 0
    for ground in (STAIRS, terrain.from_array(heights, 0.1)):
        camera = Camera(0.5, ground)
        heights = []
        for x in np.arange(-3.5, 3.5, 0.02):
            camera.follow([x, 0.0, float(ground.height(x, 0.0)) + 0.2], 0.02)
            heights.append(camera.position[2])
        assert np.ptp(heights) > 0.3
        assert np.abs(np.diff(heights)).max() < 0.05  # a step is 0.15, the post 0.9


def test_the_goal_stands_on_the_ground():
    robot = load_robot("go1")
    goal = np.array([1.0, 0.3, 1.9])
    snapshot = Snapshot(np.zeros(3), np.array([1.0, 0, 0, 0]), robot.home_joints.ravel(), goal=goal)
    pose = place(Model(robot), snapshot, STAIRS)
    ground = STAIRS.height(1.0, 0.3)
    assert ground > 0.5
    np.testing.assert_allclose(pose.origin[0, STEM], [1.0, 0.3, ground])
    assert pose.shape[0, STEM, 2, 2] == pytest.approx(1.9 - ground)


def test_light_counts_from_the_ground():
    draw = np.random.default_rng(0)
    points, normals = draw.normal(size=(2, 50, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    grey = np.full((50, 3), 0.5, np.float32), np.zeros(50, np.float32), np.array([[0, 50]])
    turn = np.eye(3)[None, None]

    def lit(height, ground):
        out = np.zeros((50, 3), np.float32), np.zeros((50, 4), np.uint8)
        at = np.array([[[0, 0, height]]])
        glow = np.zeros((1, 1, 3))
        eye = np.array([5.0, 0, 2.0 + height])
        surfaces(points, normals, *grey, turn, turn, at, glow, np.array([[ground]]), eye, 1.0, 200, *out)
        np.testing.assert_allclose(out[0], points + [0, 0, height], atol=1e-5)
        assert (out[1][:, 3] == 200).all()
        return out[1].astype(int)

    assert np.abs(lit(0.0, 0.0) - lit(4.0, 4.0)).max() <= 1
    assert np.abs(lit(0.0, 0.0) - lit(4.0, 0.0)).max() > 5


def test_shadows_lie_where_the_sun_throws_them():
    start = np.array([[[0.0, 0.0, 1.0]]])
    end = np.array([[[0.0, 0.0, 1.001]]])
    radius = np.array([0.05])
    # a ball 0.4 m above the plane, 0.1 m above the ground beneath it
    above = np.array([[[0.4, 0.4]]])
    of_one = shadow(start, end, radius, above, np.array([[[0.1, 0.1]]]), margin=0.2)
    low, high, opacity = (x[0] for x in of_one)
    grid = low + (high - low) * (np.arange(SHADOW_TEXELS)[:, None] + 0.5) / SHADOW_TEXELS
    weight = opacity / opacity.sum()
    middle = [(weight.sum(0) * grid[:, 0]).sum(), (weight.sum(1) * grid[:, 1]).sum()]
    np.testing.assert_allclose(middle, -0.4 * SUN[:2] / SUN[2], atol=0.01)
    dark = grid[opacity.max(0) > 0.01, 0]
    assert low[0] + 0.2 < dark[0]
    assert dark[-1] < high[0] - 0.2
    *_, softer = shadow(start, end, radius, above, np.array([[[0.6, 0.6]]]), margin=0.2)
    assert softer.max() < opacity.max()


PICTURES = """
import dataclasses, sys
import numpy as np
from physics import load_robot, terrain
from renderer import RenderError, Snapshot, Window, offscreen_display

robot = load_robot("go1")
def shot(ground, *places):
    with Window(robot, 320, 180, visible=False, terrain=ground) as window:
        for place in places:
            position = np.array(place) + [0, 0, robot.home_height]
            window.draw(Snapshot(position, np.array([1.0, 0, 0, 0]), robot.home_joints.ravel()))
        return window.capture()

stones = terrain.stepping_stones(0.4, 0.2, 0.5, platform=1.0)
large = terrain.rough(0.08, 0.4, size=99.8)
try:
    with offscreen_display((sys.argv[1],)):
        np.savez(sys.argv[2], none=shot(None, (0, 0, 0)), level=shot(terrain.flat(0.0, 0.25), (0, 0, 0)),
                 raised=shot(terrain.flat(7.0, 0.25), (0, 0, 7)), stones=shot(stones, stones.spawns[0, 0]),
                 large=shot(large, (-47, 30, 0)), moved=shot(large, (-45, 36, 0), (-47, 30, 0)))
except RenderError as error:
    sys.exit(str(error))
"""


def test_pictures_of_terrain(drawn):
    pictures = drawn(PICTURES)
    # Level ground as a mesh, with the shadow laid over it, looks like the floor; raised with the robot, the same.
    assert np.abs(pictures["level"] - pictures["none"]).mean() < 0.4
    assert np.abs(pictures["raised"] - pictures["level"]).mean() < 0.05
    assert np.abs(pictures["large"] - pictures["none"]).mean() > 4.0
    np.testing.assert_array_equal(pictures["moved"], pictures["large"])  # wherever it was before
    # The walls of the pit are dark.
    dark = {
        name: (pictures[name][60:].max(-1) < 0.8 * encode(COLOURS.mean(0)).min()).mean() for name in ("none", "stones")
    }
    assert dark["stones"] > dark["none"] + 0.2
