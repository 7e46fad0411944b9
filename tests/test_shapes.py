"""Shapes of terrain have the measures that they state; curricula are laid out as documented."""

import math
import pickle

import numpy as np
import pytest
from grounds import bumpy, inside
from PIL import Image

from physics import terrain, tiles


def test_slopes():
    ground = terrain.slope(0.3, size=2.0)
    x, y = inside(ground, 50)
    np.testing.assert_allclose(ground.height(x, y), math.tan(0.3) * x, atol=1e-7)
    np.testing.assert_allclose(ground.normal(x, y), np.tile([-math.sin(0.3), 0, math.cos(0.3)], (50, 1)), atol=1e-5)
    ground = terrain.slope(-0.2, direction=math.pi / 2, size=2.0)
    np.testing.assert_allclose(ground.height(x, y), -math.tan(0.2) * y, atol=1e-7)
    np.testing.assert_array_equal(ground.spawns, [[[0, 0, 0]]])


def test_rough_ground_keeps_its_amplitude_and_its_platform():
    ground = bumpy(platform=1.0)
    assert 0.15 < np.abs(ground.heights).max() <= 0.2
    x, y = np.meshgrid(*[np.linspace(-0.5, 0.5, 21)] * 2)
    assert not ground.height(x, y).any()
    assert np.abs(bumpy().height(x, y)).max() > 0.05
    # every node on its own when the spacing is the cell: neighbours are not alike
    fine = bumpy(spacing=0.1).heights
    assert abs(np.corrcoef(fine[:, :-1].ravel(), fine[:, 1:].ravel())[0, 1]) < 0.1
    assert np.corrcoef(bumpy().heights[:, :-1].ravel(), bumpy().heights[:, 1:].ravel())[0, 1] > 0.5


@pytest.mark.parametrize(("up", "cell"), [(True, 0.1), (False, 0.1), (True, 0.05)])
def test_stairs_have_the_stated_steps(up, cell):
    ground = terrain.stairs(0.12, 0.3, up, platform=2.0, size=8.0, cell=cell)
    # Outwards from the platform's edge, 1 m from the middle, along each axis: (4 - 1) / 0.3 = 10 steps of 0.3 m.
    tread = 1.0 + 0.3 * np.arange(10) + cell + 1e-6  # just beyond each riser
    for x, y in ((tread, 0.2), (-tread, 0.2), (0.2, tread), (0.2, -tread), (tread, tread)):
        heights = ground.height(x, y)
        np.testing.assert_allclose(
            heights - ground.spawns[0, 0, 2], (1 if up else -1) * 0.12 * np.arange(1, 11), atol=1e-6
        )
        reach = (0.3 - cell - 2e-6) * np.sign([np.mean(x), np.mean(y)]) * [np.ndim(x) > 0, np.ndim(y) > 0]
        # level to the foot of the next
        np.testing.assert_allclose(ground.height(x + reach[0], y + reach[1]), heights, atol=1e-6)
    edge = np.abs(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2))
    np.testing.assert_allclose(ground.height(*edge), (-1.2 if up else 1.2), atol=1e-6)
    for border in (ground.heights[0], ground.heights[-1], ground.heights[:, 0], ground.heights[:, -1]):
        assert not border.any()


@pytest.mark.parametrize("up", [True, False])
def test_pyramid_slopes_have_the_stated_angle(up):
    ground = terrain.pyramid_slope(0.4, up, platform=1.0, size=6.0)
    sign = -1 if up else 1
    np.testing.assert_allclose(ground.spawns[0, 0], [0, 0, sign * 2.5 * math.tan(0.4)], atol=1e-6)
    np.testing.assert_allclose(ground.normal(2.02, 0.3), [sign * math.sin(0.4), 0, math.cos(0.4)], atol=1e-5)
    np.testing.assert_allclose(ground.normal(0.3, -2.02), [0, -sign * math.sin(0.4), math.cos(0.4)], atol=1e-5)
    np.testing.assert_array_equal(ground.normal(0.45, -0.45), [0, 0, 1])
    assert ground.height(3.0, 1.0) == 0.0


def spans(line, cell):
    """Return the lengths of the level parts of a line of heights above the pit, and of what lies between them [m]."""
    top = np.flatnonzero(line > -0.3)
    breaks = np.flatnonzero(np.diff(top) > 1)
    starts = top[np.r_[0, breaks + 1]]
    ends = top[np.r_[breaks, len(top) - 1]]
    return (
        (ends - starts) * cell,
        (starts[1:] - ends[:-1]) * cell,
        [line[a : b + 1] for a, b in zip(starts, ends, strict=True)],
    )


def test_stepping_stones_have_the_stated_size_and_gaps():
    ground = terrain.stepping_stones(0.4, 0.2, 0.5, 0.03, seed=2, platform=1.5)
    middle = len(ground.heights) // 2
    for line in (
        ground.heights[middle],
        ground.heights[:, middle],
        ground.heights[middle + 13],
        ground.heights[:, middle - 13],
    ):
        tops, gaps, levels = spans(line, ground.cell)
        np.testing.assert_allclose(gaps, 0.2, atol=1e-9)
        inner = [i for i in range(1, len(tops) - 1) if tops[i] < 1]
        assert len(inner) >= 8
        np.testing.assert_allclose([tops[i] for i in inner], 0.4, atol=1e-9)
        stones = [levels[i] for i in inner]
        assert all(np.ptp(stone) == 0 for stone in stones)
        assert len({float(stone[0]) for stone in stones}) == len(stones)
        assert max(abs(stone).max() for stone in stones) <= 0.03
        assert line.min() == -0.5
    x, y = np.meshgrid(*[np.linspace(-0.75, 0.75, 31)] * 2)
    assert not ground.height(x, y).any()
    assert not ground.heights[[0, -1]].any()
    assert not ground.heights[:, [0, -1]].any()
    assert set(np.unique(terrain.stepping_stones(0.4, 0.2, 0.5).heights)) == {-0.5, 0.0}


@pytest.mark.parametrize("stone", [0.2, 0.3, 0.5])
@pytest.mark.parametrize("gap", [0.2, 0.3])
def test_stepping_stones_fit_any_tile(stone, gap):
    ground = terrain.stepping_stones(stone, gap, 0.5, platform=1.0, size=6.0)
    for grid in (ground.heights, ground.heights.T):
        # across the platform and on stones, not along a gap
        line = max(grid[26:35], key=lambda line: (line > -0.3).sum())
        tops, gaps, _ = spans(line, 0.1)
        np.testing.assert_allclose(gaps, gap, atol=1e-9)
        middle = tops[1:-1]
        assert (np.isclose(middle, stone) | (middle >= 1.0 - 1e-9)).all()
        assert min(tops[0], tops[-1]) < stone + gap + 1e-9  # no stone is left out beside the rim
    assert not ground.height(*np.meshgrid([-0.45, 0, 0.45], [-0.45, 0, 0.45])).any()


def across(ground):
    """Return heights along +x from the middle."""
    middle = len(ground.heights) // 2
    return ground.heights[middle, middle:].astype(float)


def test_gaps_have_the_stated_width_depth_and_spacing():
    line = across(terrain.gaps(0.4, 0.6, spacing=0.8, platform=2.0))
    tops, gaps, levels = spans(line, 0.1)
    np.testing.assert_allclose(gaps, 0.4, atol=1e-9)
    assert tops[0] == pytest.approx(1.8)  # half of the platform, then the spacing
    np.testing.assert_allclose(tops[1:-1], 0.8, atol=1e-9)
    assert len(gaps) == 2
    assert not any(level.any() for level in levels)
    assert line.min() == pytest.approx(-0.6)
    for width in (0.2, 0.3, 0.5):
        ground = terrain.gaps(width, 0.6, cell=0.05)
        for grid in (ground.heights, ground.heights.T):
            np.testing.assert_allclose(spans(grid[len(grid) // 2], 0.05)[1], width, atol=1e-9)
            assert not grid[[0, -1]].any()


def test_rails_stand_at_the_stated_distances():
    line = across(terrain.rails(0.15, spacing=0.8, platform=2.0))
    (high,) = np.nonzero(line)
    np.testing.assert_array_equal(high, [18, 19, 26, 27, 34, 35])  # 1 m and a spacing from the middle, and so on
    np.testing.assert_allclose(line[high], 0.15)
    assert not terrain.rails(0.15).heights[[0, -1]].any()


def test_waves_have_the_stated_length_and_amplitude():
    ground = terrain.waves(0.2, 1.6, platform=1.0)
    assert 0.18 < np.abs(ground.heights).max() <= 0.2
    x = np.linspace(1.5, 3.0, 40)
    # where the platform and the edge no longer ease it: y = 0 adds nothing
    np.testing.assert_allclose(ground.height(x, 0.0), 0.1 * np.sin(2 * np.pi / 1.6 * x), atol=0.003)
    assert not ground.height(*np.meshgrid([-0.5, 0.0, 0.5], [-0.5, 0.0, 0.5])).any()
    assert not ground.heights[[0, -1]].any()


def test_boxes_are_level_and_as_high_as_stated():
    ground = terrain.boxes(0.5, 0.1, seed=3)
    assert 0.09 < np.abs(ground.heights).max() <= 0.1
    inner = ground.heights[1:-1, 1:-1]
    edges = np.diff(inner[:, :25], axis=1) != 0
    assert (edges.any(0).nonzero()[0] % 5 == 3).all()  # a wall every five cells
    assert np.ptp(ground.heights[31:34, 1:5]) == pytest.approx(0.0, abs=0.2)
    assert not ground.heights[[0, -1]].any()
    assert not ground.height(*np.meshgrid([-0.95, 0.0, 0.95], [-0.95, 0.0, 0.95])).any()


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F"])
def test_pictures_become_ground(mode, tmp_path):
    grey = np.zeros((161, 241))
    grey[:80] = 1.0  # the upper half of the picture is white: +y is high
    most, kind = {"I;16": (65535, np.uint16), "F": (1, np.float32)}.get(mode, (255, np.uint8))
    picture = Image.fromarray((grey * most).astype(kind))
    file = tmp_path / ("map.tiff" if mode == "F" else "map.png")
    (picture.convert(mode) if mode == "RGB" else picture).save(file)
    ground = terrain.from_file(file, 0.6, cell=0.1)
    assert ground.heights.shape == (161, 241)
    assert ground.height(0.0, 5.0) == pytest.approx(0.6)
    assert ground.height(0.0, -5.0) == 0.0
    assert ground.spawns.shape == (1, 6, 3)
    np.testing.assert_allclose(np.unique(ground.spawns[0, :, 0]), [-8, 0, 8], atol=1e-9)
    np.testing.assert_allclose(ground.spawns[0, :, 2], ground.height(*ground.spawns[0, :, :2].T))


def test_arrays_become_ground(tmp_path):
    heights = np.random.default_rng(0).uniform(0.0, 1.0, (161, 241))
    np.save(tmp_path / "map.npy", heights)
    ground = terrain.from_file(tmp_path / "map.npy", 0.5)
    np.testing.assert_allclose(ground.heights, 0.5 * heights, rtol=1e-6)
    assert ground.height(ground.origin[0] + 0.3, ground.origin[1] + 2.0) == pytest.approx(
        0.5 * heights[20, 3], abs=1e-6
    )


@pytest.mark.parametrize("contents", [b"", b"no array", pickle.dumps({"heights": 1.0})])
def test_what_is_no_array_is_refused(contents, tmp_path):
    (tmp_path / "map.npy").write_bytes(contents)
    with pytest.raises(OSError, match="expected an array of numbers"):
        terrain.from_file(tmp_path / "map.npy", 0.5)


@pytest.mark.parametrize("make", [
    lambda seed: terrain.rough(0.1, 0.4, seed), lambda seed: terrain.stepping_stones(0.4, 0.2, 0.5, 0.03, seed),
    lambda seed: terrain.curriculum(3, ("rough", "stones"), seed=seed),
])  # fmt: skip
def test_the_same_seed_gives_the_same_bits(make):
    assert make(4).heights.tobytes() == make(4).heights.tobytes()
    assert make(4).heights.tobytes() != make(5).heights.tobytes()


def test_no_two_tiles_are_alike():
    ground = terrain.curriculum(2, ("rough", "rough"), difficulty=(0.5, 0.5))
    tiles = [tile_of(ground, level, row, 80)[1:-1, 1:-1].tobytes() for level in (0, 1) for row in (0, 1)]
    assert len(set(tiles)) == 4


KINDS = (
    "flat", "rough", "slope_up", "slope_down", "stairs_up", "stairs_down", "stones", "gaps", "rails", "waves", "boxes",
)  # fmt: skip


def tile_of(ground, level, row, n):
    edge = 40
    return ground.heights[edge + row * n : edge + (row + 1) * n + 1, edge + level * n : edge + (level + 1) * n + 1]


def test_curricula_are_laid_out_as_documented():
    ground = terrain.curriculum(4, KINDS, seed=1)
    assert ground.heights.shape == (11 * 80 + 81, 4 * 80 + 81)
    assert ground.spawns.shape == (4, 11, 3)
    np.testing.assert_allclose(ground.origin, [-20, -48], atol=1e-9)
    np.testing.assert_allclose(ground.spawns[:, 2, 0], [-12, -4, 4, 12], atol=1e-9)
    np.testing.assert_allclose(ground.spawns[3, :, 1], np.linspace(-40, 40, 11), atol=1e-9)
    np.testing.assert_array_equal(ground.spawns[..., 2], ground.height(ground.spawns[..., 0], ground.spawns[..., 1]))
    outside = np.ones_like(ground.heights, bool)
    outside[41:-41, 41:-41] = False
    assert not ground.heights[outside].any()
    for level in range(4):
        for row in range(len(KINDS)):
            tile = tile_of(ground, level, row, 80)
            for border in (tile[0], tile[-1], tile[:, 0], tile[:, -1]):
                assert not border.any()


def test_a_robot_can_stand_at_every_spawn_of_a_curriculum():
    ground = terrain.curriculum(5, KINDS, seed=2)
    offset = np.linspace(-1.0, 1.0, 41)
    x, y = np.meshgrid(offset, offset)
    for spawn in ground.spawns.reshape(-1, 3):
        np.testing.assert_array_equal(ground.height(spawn[0] + x, spawn[1] + y), np.full_like(x, spawn[2]))
    up = ground.spawns[1:, KINDS.index("stairs_up"), 2]
    down = ground.spawns[1:, KINDS.index("stairs_down"), 2]
    assert (up < 0).all()
    assert (down > 0).all()


def test_difficulty_rises_along_x():
    ground = terrain.curriculum(5, KINDS, seed=3)
    for row, kind in enumerate(KINDS):
        tiles = [tile_of(ground, level, row, 80).astype(float) for level in range(5)]
        steep = [
            np.sqrt((np.diff(tile, axis=0) ** 2).mean() + (np.diff(tile, axis=1) ** 2).mean()) / ground.cell
            for tile in tiles
        ]
        if kind == "flat":
            assert steep == [0.0] * 5
            continue
        assert (np.diff(steep) > 0).all(), kind
        assert 0 < steep[0] < 0.2, kind  # from nearly flat
        assert steep[-1] > 8 * steep[0], kind
        assert np.ptp(tiles[-1]) > 8 * np.ptp(tiles[0]), kind


def test_curricula_span_the_stated_ranges():
    ground = terrain.curriculum(3, KINDS, seed=0)
    for level, (step, angle) in enumerate([(0.01, 0.02), (0.095, 0.235), (0.18, 0.45)]):
        np.testing.assert_allclose(tile_of(ground, level, 2, 80), terrain.pyramid_slope(angle).heights, atol=1e-7)
        np.testing.assert_allclose(
            tile_of(ground, level, 3, 80), terrain.pyramid_slope(angle, up=False).heights, atol=1e-7
        )
        np.testing.assert_allclose(tile_of(ground, level, 4, 80), terrain.stairs(step, 0.3).heights, atol=1e-7)
        np.testing.assert_allclose(
            tile_of(ground, level, 5, 80), terrain.stairs(step, 0.3, up=False).heights, atol=1e-7
        )
    assert 0.004 < np.abs(tile_of(ground, 0, 1, 80)).max() <= 0.005
    assert 0.07 < np.abs(tile_of(ground, 2, 1, 80)).max() <= 0.08
    np.testing.assert_allclose(tile_of(ground, 0, 6, 80), terrain.stepping_stones(0.8, 0.2, 0.02).heights, atol=1e-7)
    hardest = tile_of(ground, 2, 6, 80)
    np.testing.assert_allclose(hardest, terrain.stepping_stones(0.3, 0.3, 0.5).heights, atol=0.04)
    assert hardest.max() > 0.03
    steep = tiles.Measures(step_height=(0.05, 0.23), tread=(0.4, 0.2), slope=(0.1, 0.61))
    ground_of_own = terrain.curriculum(2, KINDS, measures=steep)
    np.testing.assert_allclose(tile_of(ground_of_own, 1, 2, 80), terrain.pyramid_slope(0.61).heights, atol=1e-7)
    np.testing.assert_allclose(tile_of(ground_of_own, 1, 4, 80), terrain.stairs(0.23, 0.2).heights, atol=1e-7)
    np.testing.assert_allclose(tile_of(ground_of_own, 0, 4, 80), terrain.stairs(0.05, 0.4).heights, atol=1e-7)
    for row, last in ((7, terrain.gaps(0.4, 1.0)), (8, terrain.rails(0.2)), (9, terrain.waves(0.25, 1.2))):
        np.testing.assert_allclose(tile_of(ground, 2, row, 80), last.heights, atol=1e-7)
    last = terrain.curriculum(1, KINDS, difficulty=(1.0, 1.0))
    np.testing.assert_array_equal(tile_of(last, 0, 5, 80), tile_of(ground, 2, 5, 80))
