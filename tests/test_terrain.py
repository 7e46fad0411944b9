"""Terrain: heights and normals by hand, the packed field, the same ground in MuJoCo, and every refusal."""

import dataclasses
import math

import numpy as np
import pytest
from grounds import HAND, bumpy, hand, inside

from physics import Terrain, load_robot, terrain
from physics.layout import CELL
from physics.mjcf import BEYOND, to_mjcf
from physics.robot import LEGS


def nodes(ground):
    """Return the coordinates of all nodes, (ny, nx) each."""
    ny, nx = ground.heights.shape
    return np.meshgrid(ground.origin[0] + ground.cell * np.arange(nx), ground.origin[1] + ground.cell * np.arange(ny))


def twist(ground, x, y):
    """Return h00 - h10 - h01 + h11 of the cells that points lie in."""
    i, j = (np.floor((a - o) / ground.cell + 1e-9).astype(int) for a, o in zip((x, y), ground.origin, strict=True))
    h = ground.heights.astype(float)
    return h[j, i] - h[j, i + 1] - h[j + 1, i] + h[j + 1, i + 1]


def test_heights_by_hand():
    ground = hand()
    np.testing.assert_array_equal(ground.height([1.0, 1.5, 2.0], -2.0), HAND[0])
    np.testing.assert_array_equal(ground.height([1.0, 1.5, 2.0], -1.5), HAND[1])
    assert ground.height(1.25, -2.0) == 0.5
    assert ground.height(2.0, -1.75) == 3.5
    assert ground.height(1.25, -1.75) == 2.0  # the mean of 0, 1, 2, 5
    # a quarter along x, three quarters along y of the second cell: 0.25 (0.75 1 + 0.25 3) + 0.75 (0.75 5 + 0.25 4)
    assert ground.height(1.625, -1.625) == 3.9375
    assert ground.height(np.zeros((4, 1)), np.zeros(5)).shape == (4, 5)
    np.testing.assert_array_equal(ground.spawns, [[[1.5, -1.75, 3.0]]])


def test_normals_by_hand():
    # across the first cell: dh/dx = (1 + 3) / 2 / 0.5 = 4, dh/dy = (2 + 4) / 2 / 0.5 = 6
    np.testing.assert_allclose(hand().normal(1.25, -1.75), np.array([-4, -6, 1]) / math.sqrt(53), rtol=1e-14)
    # on the line between the cells, of the one towards +x: dh/dx = 2 / 0.5, dh/dy = 4 / 0.5
    np.testing.assert_allclose(hand().normal(1.5, -2.0), np.array([-4, -8, 1]) / 9, rtol=1e-14)


def test_normals_agree_with_finite_differences():
    ground = bumpy()
    x, y = inside(ground, 500)
    e = 1e-6
    # of the lines between cells
    away = np.minimum(*(np.abs((a / ground.cell + 0.5) % 1 - 0.5) for a in (x, y))) > 2 * e / ground.cell
    dx = (ground.height(x + e, y) - ground.height(x - e, y)) / (2 * e)
    dy = (ground.height(x, y + e) - ground.height(x, y - e)) / (2 * e)
    normal = ground.normal(x, y)
    assert away.sum() > 450
    np.testing.assert_allclose(normal[away, 0] / normal[away, 2], -dx[away], atol=1e-8)
    np.testing.assert_allclose(normal[away, 1] / normal[away, 2], -dy[away], atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1.0, rtol=1e-14)
    assert np.abs(dx).max() > 0.3


def test_the_surface_has_no_gaps():
    ground = bumpy()
    x, y = inside(ground, 300)
    lines = ground.cell * np.rint(x / ground.cell)
    e = 1e-9
    np.testing.assert_allclose(ground.height(lines - e, y), ground.height(lines + e, y), atol=1e-7)
    np.testing.assert_allclose(ground.height(y, lines - e), ground.height(y, lines + e), atol=1e-7)


def test_the_border_goes_on():
    ground = hand()
    np.testing.assert_array_equal(ground.height([0.0, -1e4], -1.75), ground.height(1.0, -1.75))
    np.testing.assert_array_equal(ground.height([2.0 + 1e-12, 77.0], -1.75), ground.height(2.0, -1.75))
    assert ground.height(1.25, 3.0) == ground.height(1.25, -1.5)
    assert ground.height(-5.0, 9.0) == HAND[1, 0]
    assert ground.normal(50.0, -1.75)[0] == 0.0
    np.testing.assert_allclose(ground.normal(50.0, -1.75), np.array([0, -2, 1]) / math.sqrt(5), rtol=1e-14)
    np.testing.assert_array_equal(ground.normal(50.0, 50.0), [0, 0, 1])


def test_fields_are_copied_and_cannot_be_written():
    mine = np.zeros((3, 3), np.float32)
    ground = terrain.from_array(mine, 0.1)
    mine[:] = 1.0
    assert not ground.heights.any()
    with pytest.raises(ValueError, match="read-only"):
        ground.heights[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        ground.cell = 0.2
    packed, _, _ = ground.pack()
    packed[:] = 1.0
    assert not ground.heights.any()


def test_origins_are_rounded_to_whole_cells():
    ground = terrain.from_array(np.zeros((4, 3)), 0.1, (0.33, -7.78))
    np.testing.assert_allclose(ground.origin, [0.3, -7.8], atol=1e-12)
    np.testing.assert_allclose(terrain.from_array(np.zeros((5, 3)), 0.1).origin, [-0.1, -0.2], atol=1e-12)


@pytest.mark.parametrize("cell", [0.05, 0.1, 0.2, 0.16, 1.0])
def test_the_packed_field_is_read_as_documented(cell):
    """In float32, far from the world's origin, and with nothing but the packed arrays."""
    far = np.array([160000.0, -32016.0])
    ground = terrain.from_array(bumpy(cell=0.1).heights[:-5], cell, far - 16 * cell)
    heights, (whole, real), grip = ground.pack()
    assert grip is None
    assert (heights.dtype, whole.dtype, real.dtype) == (np.float32, np.int32, np.float32)
    assert heights.flags.c_contiguous
    assert heights.shape == (whole[terrain.NX] * whole[terrain.NY],)
    assert (len(whole), len(real)) == (terrain.WHOLE_COLUMNS, terrain.REAL_COLUMNS)
    assert real[terrain.SPACING] == np.float32(cell)
    assert float(real[terrain.PER_METRE]) == round(CELL / cell) / CELL
    p = np.random.default_rng(0).uniform(-5, 5, (200, 2)).astype(np.float32)
    u = p * real[terrain.PER_METRE]
    i = np.floor(u)
    s, t = (u - i).T
    ix, iy = (i + far / CELL * whole[terrain.CELLS] - whole[terrain.FIRST_X : terrain.FIRST_Y + 1]).astype(int).T
    corner = {}
    for a in (0, 1):
        for b in (0, 1):
            corner[a, b] = heights[
                np.clip(iy + b, 0, whole[terrain.NY] - 1) * whole[terrain.NX]
                + np.clip(ix + a, 0, whole[terrain.NX] - 1)
            ]
    low = corner[0, 0] + s * (corner[1, 0] - corner[0, 0])
    high = corner[0, 1] + s * (corner[1, 1] - corner[0, 1])
    expected = ground.height(*(far + p.astype(float)).T)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(low + t * (high - low), expected, atol=5e-6)


def test_planes_are_known():
    point, normal = terrain.flat(0.7).plane()
    assert point[2] == np.float32(0.7)
    np.testing.assert_array_equal(normal, [0, 0, 1])
    ground = terrain.slope(0.4, direction=0.8)
    point, normal = ground.plane()
    np.testing.assert_allclose(
        normal, [-math.sin(0.4) * math.cos(0.8), -math.sin(0.4) * math.sin(0.8), math.cos(0.4)], atol=1e-6
    )
    assert ground.height(*point[:2]) == point[2]
    heights = ground.heights.copy()
    heights[40, 50] += 1e-4
    assert terrain.from_array(heights, 0.1).plane() is None
    assert bumpy().plane() is None


FIELDS = {
    "hand": hand,
    "rough": bumpy,
    "stairs": lambda: terrain.stairs(0.15, 0.3, size=6.0),
    "stones": lambda: terrain.stepping_stones(0.3, 0.2, 0.5, 0.03, size=6.0),
    "high": lambda: terrain.from_array(100.0 + bumpy(size=3.0, cell=0.05).heights[:-7], 0.05, (33.0, -18.0)),
}


def mujoco_model(ground):
    mujoco = pytest.importorskip("mujoco")
    robot = load_robot("go1")
    model = mujoco.MjModel.from_xml_string(to_mjcf(robot, terrain=ground))
    data = mujoco.MjData(model)
    data.qpos[7:] = robot.home_joints.ravel()
    mujoco.mj_forward(model, data)
    return mujoco, robot, model, data


def cast(mujoco, model, data, x, y):
    """Return the heights at which rays from above meet the floor."""
    hit = np.zeros(1, np.int32)
    top = 120.0
    world = np.array([1, 0, 0, 0, 0, 0], np.uint8)  # the floor's group, not the robot
    points = np.stack(np.broadcast_arrays(x, y), -1).reshape(-1, 2)
    heights = []
    for point in points:
        distance = mujoco.mj_ray(
            model, data, np.array([*point, top]), np.array([0.0, 0.0, -1.0]), world, 1, model.body("base").id, hit
        )
        assert hit[0] == model.geom("floor").id, point
        heights.append(top - distance)
    return np.array(heights)


def away_from_feet(data, x, y):
    """Return which points a ray from above reaches without meeting a foot."""
    return np.array(
        [min(np.hypot(*(geom - p)) for geom in data.geom_xpos[1:, :2]) > 0.05 for p in np.stack([x, y], -1)]
    )


@pytest.mark.parametrize("name", FIELDS)
def test_mujoco_has_the_same_ground(name):
    ground = FIELDS[name]()
    mujoco, _, model, data = mujoco_model(ground)
    ny, nx = ground.heights.shape
    beyond = round(BEYOND / ground.cell)
    compiled = model.hfield_data.reshape(ny + 2 * beyond, nx + 2 * beyond) * model.hfield_size[0, 2]
    compiled += model.geom("floor").pos[2]
    np.testing.assert_allclose(compiled[beyond:-beyond, beyond:-beyond], ground.heights, atol=1e-5)
    # Rays at nodes, but a hair into the field and off the diagonal: where triangles meet, one falls through.
    x, y = (a[: ny - 1, : nx - 1].ravel() + e for a, e in zip(nodes(ground), (2e-7, 1e-7), strict=True))
    keep = np.random.default_rng(1).permutation(np.flatnonzero(away_from_feet(data, x, y)))[:300]
    np.testing.assert_allclose(cast(mujoco, model, data, x[keep], y[keep]), ground.height(x[keep], y[keep]), atol=1e-5)
    # Between nodes MuJoCo's cell is two triangles: a bilinear patch is off their diagonal by a quarter of its twist.
    x, y = inside(ground, 300, margin=1e-3)
    away = away_from_feet(data, x, y)
    x = x[away]
    y = y[away]
    difference = cast(mujoco, model, data, x, y) - ground.height(x, y)
    bound = np.abs(twist(ground, x, y)) / 4
    assert (np.abs(difference) <= bound + 1e-5).all()
    s, t = (((a - o) / ground.cell) % 1 for a, o in zip((x, y), ground.origin, strict=True))
    np.testing.assert_allclose(difference, twist(ground, x, y) * np.minimum(s, t) * (1 - np.maximum(s, t)), atol=1e-5)
    # a robot that walks off the field stands on what its border is
    (first_x, *_, last_x), (first_y, *_, last_y) = (np.unique(a) for a in nodes(ground))
    x = np.array([first_x - 25.0, last_x + 25.0, (first_x + last_x) / 2, last_x + 25.0])
    y = np.array([(first_y + last_y) / 2, last_y - 0.3, first_y - 25.0, last_y + 25.0])
    np.testing.assert_allclose(cast(mujoco, model, data, x, y), ground.height(x, y), atol=2e-3)


@pytest.mark.parametrize(
    "ground", [terrain.flat(0.4), terrain.slope(0.3, 0.7), terrain.from_array(np.zeros((2, 5)), 0.1, (3.0, 4.0))]
)
def test_planes_are_planes_in_mujoco(ground):
    mujoco, _, model, data = mujoco_model(ground)
    assert model.nhfield == 0
    x, y = inside(ground, 100)
    away = away_from_feet(data, x, y)
    np.testing.assert_allclose(cast(mujoco, model, data, x[away], y[away]), ground.height(x, y)[away], atol=1e-5)


def depths(data):
    """Return the least distance of every foot's contacts from the floor."""
    found = {}
    for contact in data.contact:
        found[max(contact.geom)] = min(contact.dist, found.get(max(contact.geom), math.inf))
    return found


def test_the_robot_starts_above_the_first_spawn():
    ground = terrain.curriculum(2, ("stairs_down", "flat"), difficulty=(0.5, 1.0))
    _, robot, model, data = mujoco_model(ground)
    np.testing.assert_allclose(data.qpos[:3], ground.spawns[0, 0] + [0, 0, robot.home_height], atol=1e-9)
    assert ground.spawns[0, 0, 2] > 0.5
    assert depths(data).keys() == {model.geom(leg).id for leg in LEGS}
    assert depths(data) == pytest.approx(depths(mujoco_model(None)[3]), abs=1e-5)  # as on the flat floor


ERRORS = {
    r"heights: expected a shape \(ny, nx\) of at least \(2, 2\), got \(3,\)": lambda: Terrain(
        np.zeros(3), 0.1, (0, 0), np.zeros((1, 1, 3))
    ),
    r"heights: expected a shape .* got \(1, 5\)": lambda: terrain.from_array(np.zeros((1, 5)), 0.1, (0, 0)),
    r"heights: expected finite numbers, got nan at row 1, column 2": lambda: terrain.from_array(
        [[0, 0, 0], [0, 0, math.nan]], 0.1
    ),
    r"heights: expected finite numbers, got inf at row 0, column 1": lambda: terrain.from_array(
        [[0, 1e300], [0, 0]], 0.1
    ),
    r"cell: expected a whole share of 16 m, such as 0.05, 0.1 or 0.2, got 0.3": lambda: terrain.from_array(
        np.zeros((2, 2)), 0.3
    ),
    r"cell: expected a finite number between 0.001 and 16 \[m\], got -0.1": lambda: terrain.stairs(0.1, 0.3, cell=-0.1),
    r"cell: expected a finite number between 0.001 and 16 \[m\], got nan": lambda: terrain.flat(cell=math.nan),
    r"cell: expected a finite number between .* got '0.1'": lambda: terrain.flat(cell="0.1"),
    r"origin: expected x and y, whole multiples of the cell of 0.1 m, got \[0.05, 0.0\]": lambda: Terrain(
        HAND, 0.1, (0.05, 0), np.zeros((1, 1, 3))
    ),
    r"origin: expected x and y, .* got \[0.0, inf\]": lambda: Terrain(HAND, 0.1, (0, math.inf), np.zeros((1, 1, 3))),
    r"origin: expected x and y, .* got \[0.0, 0.0, 0.0\]": lambda: Terrain(HAND, 0.1, (0, 0, 0), np.zeros((1, 1, 3))),
    r"spawns: expected points of shape \(levels, types, 3\), got \(1, 3\)": lambda: Terrain(
        HAND, 0.1, (0, 0), np.zeros((1, 3))
    ),
    r"spawns: expected finite numbers, got nan": lambda: Terrain(HAND, 0.1, (0, 0), np.full((1, 1, 3), math.nan)),
    r"height: expected a finite number \[m\], got inf": lambda: terrain.flat(math.inf),
    r"angle: expected a finite number between -1.22173 and 1.22173 \[rad\], got 1.5": lambda: terrain.slope(1.5),
    r"direction: expected a finite number \[rad\], got nan": lambda: terrain.slope(0.1, math.nan),
    r"size: expected a whole number of cells of 0.1 m, at least 2, got -4": lambda: terrain.slope(0.1, size=-4),
    r"size: expected a whole number of cells of 0.1 m, at least 2, got 1.25": lambda: terrain.slope(0.1, size=1.25),
    r"size: expected an even number of cells of 0.1 m, got 0.7, which is 7": lambda: terrain.rough(0.1, 0.2, size=0.7),
    r"amplitude: expected a finite number of at least 0 \[m\], got -0.1": lambda: terrain.rough(-0.1, 0.2),
    r"spacing: expected a finite number of at least 0.1 \[m\], got 0.05": lambda: terrain.rough(0.1, 0.05),
    r"platform: expected a finite number between 0 and 16 \[m\], got 20": lambda: terrain.rough(0.1, 0.5, platform=20),
    r"step_height: expected a finite number of at least 0 \[m\], got -0.1": lambda: terrain.stairs(-0.1, 0.3),
    r"step_depth: expected a whole number of cells of 0.1 m, at least 1, got 0.25": lambda: terrain.stairs(0.1, 0.25),
    r"step_depth: expected a whole number of cells of 0.1 m, at least 1, got -0.3": lambda: terrain.stairs(0.1, -0.3),
    r"step_depth: expected room for a step between the platform of 2 m and the edge of 2.4 m, got 0.3": lambda: (
        terrain.stairs(0.1, 0.3, size=2.4)
    ),
    r"platform: expected a finite number between 0 and 8 \[m\], got -1": lambda: terrain.stairs(0.1, 0.3, platform=-1),
    r"angle: expected a finite number between 0 and 1.22173 \[rad\], got -0.1": lambda: terrain.pyramid_slope(-0.1),
    r"stone_size: expected a whole number of cells of 0.1 m, at least 1, got 0": lambda: terrain.stepping_stones(
        0, 0.2, 0.5
    ),
    r"gap: expected a whole number of cells of 0.1 m, at least 2, got 0.1": lambda: terrain.stepping_stones(
        0.3, 0.1, 0.5
    ),
    r"depth: expected a finite number of at least 0 \[m\], got -0.5": lambda: terrain.stepping_stones(0.3, 0.2, -0.5),
    r"height_noise: expected a finite number of at least 0 \[m\], got -0.1": lambda: terrain.stepping_stones(
        0.3, 0.2, 0.5, -0.1
    ),
    r"platform: expected room for a gap between it and the edge of 2 m, got 1.9": lambda: terrain.stepping_stones(
        0.3, 0.2, 0.5, platform=1.9, size=2.0
    ),
    r"levels: expected a whole number of at least 1, got 0": lambda: terrain.curriculum(0),
    r"kinds: expected names among flat, rough, .* got \('lava',\)": lambda: terrain.curriculum(2, ("lava",)),
    r"kinds: expected names among .* got 'rough'": lambda: terrain.curriculum(2, "rough"),
    r"difficulty: expected that of the first and the last level, rising within 0 and 1, got \(0, 2\)": lambda: (
        terrain.curriculum(2, difficulty=(0, 2))
    ),
    r"tile: expected an even number of cells of 0.1 m, got 4.1, which is 41": lambda: terrain.curriculum(2, tile=4.1),
    r"border: expected a whole number of cells of 0.1 m, at least 0, got -4": lambda: terrain.curriculum(2, border=-4),
}


@pytest.mark.parametrize("message", ERRORS)
def test_what_cannot_be_used_is_refused_in_one_line(message):
    with pytest.raises(ValueError, match=f"^{message}$") as error:
        ERRORS[message]()
    assert "\n" not in str(error.value)


def test_patches_have_one_friction_each_as_drawn():
    ground = terrain.from_array(np.zeros((41, 61)), 0.1, (0.0, 0.0)).with_patches((0.2, 0.8), 1.0, seed=3)
    x, y = np.meshgrid(np.arange(6) + 0.45, np.arange(4) + 0.45)
    middle = ground.grip_at(x, y)
    assert len(np.unique(middle)) == 24
    assert 0.2 <= middle.min() < 0.35 < 0.65 < middle.max() <= 0.8
    for shift in (-0.4, 0.4):  # nodes lie at 0 to 0.9 m of a patch
        np.testing.assert_array_equal(ground.grip_at(x + shift, y + shift), middle)
    np.testing.assert_array_equal(ground.grip_at(0.05 + 1e-6, 0.34), ground.grip[3, 1])  # the nearest node's
    np.testing.assert_array_equal(ground.grip_at(-9.0, 99.0), ground.grip[-1, 0])  # beyond the border its own
    again = terrain.from_array(np.zeros((41, 61)), 0.1).with_patches((0.2, 0.8), 1.0, seed=3)
    np.testing.assert_array_equal(again.grip, ground.grip)
    assert terrain.from_array(np.zeros((3, 3)), 0.1).grip_at(1.0, 2.0) == 1.0


@pytest.mark.parametrize("grip", [np.ones((3, 4)), -np.ones((3, 3)), np.full((3, 3), np.nan)])
def test_friction_that_is_none_is_refused(grip):
    with pytest.raises(ValueError, match="grip: expected"):
        dataclasses.replace(terrain.from_array(np.zeros((3, 3)), 0.1), grip=grip)
