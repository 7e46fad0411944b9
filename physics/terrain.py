"""Terrain: ground as a field of heights on a square grid, shapes to build one from, and curricula of them.

Between its nodes the surface is bilinear; beyond its border the border's heights go on. This is
the reference in NumPy of what the compiled contact computes from ``Terrain.pack()``. Coordinates are
in the world frame.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from physics import tiles
from physics.layout import CELL

# Columns of Terrain.pack(): whole numbers, int32
# nodes along x, along y
NX = 0
NY = 1
# world x and y of the first node, in cells
FIRST_X = 2
FIRST_Y = 3
CELLS = 4  # cells in layout.CELL
WHOLE_COLUMNS = 5
# and reals, float32
SPACING = 0  # between nodes [m]
PER_METRE = 1  # cells in a metre: CELLS / 16, which float32 holds exactly
REAL_COLUMNS = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Terrain:
    """A field of heights.

    heights: (ny, nx) float32 [m], row iy along +y, column ix along +x
    cell: distance between nodes [m], a whole share of layout.CELL = 16 m, such as 0.05, 0.1, 0.2
    origin: (2) world x, y of heights[0, 0] [m], whole multiples of ``cell``
    spawns: (levels, types, 3) points on the ground to start from [m]; (1, 1, 3) but for a curriculum
    grip: (ny, nx) float32, friction about each node, times what it is elsewhere; None for the same everywhere

    The arrays are copied and cannot be written. Raises ValueError, naming the field, if one has
    another shape, is not finite or off the grid.
    """

    heights: np.ndarray
    cell: float
    origin: np.ndarray
    spawns: np.ndarray
    grip: np.ndarray | None = None

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):  # what float32 cannot hold is found not to be finite
            heights = np.array(self.heights, np.float32, order="C")
        if heights.ndim != 2 or min(heights.shape) < 2:
            raise ValueError(f"heights: expected a shape (ny, nx) of at least (2, 2), got {heights.shape}")
        if not np.isfinite(heights).all():
            iy, ix = np.argwhere(~np.isfinite(heights))[0].tolist()
            raise ValueError(f"heights: expected finite numbers, got {heights[iy, ix]} at row {iy}, column {ix}")
        cell = CELL / tiles.share(self.cell)
        origin = np.array(self.origin, float)
        spawns = np.array(self.spawns, float)
        if (
            origin.shape != (2,)
            or not np.isfinite(origin).all()
            or np.abs(origin / cell - np.rint(origin / cell)).max() > 1e-6
        ):
            raise ValueError(
                f"origin: expected x and y, whole multiples of the cell of {cell:g} m, got {origin.tolist()}"
            )
        if spawns.ndim != 3 or spawns.shape[2] != 3 or spawns.size == 0:
            raise ValueError(f"spawns: expected points of shape (levels, types, 3), got {spawns.shape}")
        if not np.isfinite(spawns).all():
            raise ValueError(f"spawns: expected finite numbers, got {spawns[~np.isfinite(spawns)][0]}")
        arrays = {"heights": heights, "origin": np.rint(origin / cell) * cell, "spawns": spawns}
        if self.grip is not None:
            arrays["grip"] = grip = np.array(self.grip, np.float32, order="C")
            if grip.shape != heights.shape:
                raise ValueError(f"grip: expected the shape of heights, {heights.shape}, got {grip.shape}")
            if not (np.isfinite(grip).all() and (grip >= 0).all()):
                raise ValueError(f"grip: expected finite numbers of at least 0, got {grip.min()} to {grip.max()}")
        for name, array in arrays.items():
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        object.__setattr__(self, "cell", cell)

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the height of the ground at points x, y, finite, which broadcast [m], float64."""
        h00, h10, h01, h11, s, t = self._patch(x, y)
        low = h00 + s * (h10 - h00)
        high = h01 + s * (h11 - h01)
        return low + t * (high - low)

    def grip_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return friction at points x, y, finite [m], times what it is elsewhere: that of the nearest node."""
        if self.grip is None:
            return np.ones(np.broadcast_shapes(np.shape(x), np.shape(y)))
        per_metre = tiles.share(self.cell) / CELL
        i, j = (
            np.clip(np.floor(np.asarray(at, float) * per_metre - np.rint(first * per_metre) + 0.5), 0, size - 1)
            for at, first, size in zip((x, y), self.origin, self.grip.shape[::-1], strict=True)
        )
        return self.grip[j.astype(np.intp), i.astype(np.intp)].astype(float)

    def normal(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the unit normal of the bilinear patch at points x, y, finite [m]: (..., 3) float64.

        It is along (-dh/dx, -dh/dy, 1), on a line between cells that of the cell towards +x or +y.
        """
        h00, h10, h01, h11, s, t = self._patch(x, y)
        per_metre = tiles.share(self.cell) / CELL
        dx = ((1 - t) * (h10 - h00) + t * (h11 - h01)) * per_metre
        dy = ((1 - s) * (h01 - h00) + s * (h11 - h10)) * per_metre
        normal = np.stack([-dx, -dy, np.ones_like(dx)], -1)
        return normal / np.linalg.norm(normal, axis=-1, keepdims=True)

    def _patch(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the heights at the corners of the cells that points lie in, and where the points lie there.

        h00, h10, h01, h11; how far along x and y, 0 to 1.
        """
        ny, nx = self.heights.shape
        per_metre = tiles.share(self.cell) / CELL
        first = np.rint(self.origin * per_metre)
        u, v = np.broadcast_arrays(
            np.asarray(x, float) * per_metre - first[0], np.asarray(y, float) * per_metre - first[1]
        )
        i = np.floor(u)
        j = np.floor(v)
        # Each node of a cell is held within the field: beyond the border both are its own: nothing changes there.
        i0, i1 = (np.clip(k, 0, nx - 1).astype(np.intp) for k in (i, i + 1))
        j0, j1 = (np.clip(k, 0, ny - 1).astype(np.intp) for k in (j, j + 1))
        h00, h10, h01, h11 = (self.heights[b, a].astype(float) for a, b in ((i0, j0), (i1, j0), (i0, j1), (i1, j1)))
        return h00, h10, h01, h11, u - i, v - j

    def plane(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return a point (3) [m] and the unit normal (3) of the plane that all nodes lie in, or None if there is none.

        They lie in it to within float32.
        """
        h = self.heights.astype(float)
        ny, nx = h.shape
        across = (h[0, -1] - h[0, 0]) / (nx - 1)
        along = (h[-1, 0] - h[0, 0]) / (ny - 1)
        fitted = h[0, 0] + across * np.arange(nx) + along * np.arange(ny)[:, None]
        if np.abs(h - fitted).max() > 4 * np.finfo(np.float32).eps * np.abs(h).max():
            return None
        normal = np.array([-across / self.cell, -along / self.cell, 1.0])
        return np.array([*self.origin, h[0, 0]]), normal / np.linalg.norm(normal)

    def pack(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray | None]:
        """Return what the compiled contact reads: heights, grid and grip.

        heights and grip: (ny * nx) float32, that of node (ix, iy) at iy * NX + ix [m], [1]; grip may be None
        grid: (WHOLE_COLUMNS) int32 and (REAL_COLUMNS) float32, whose columns this module names

        A robot's position counts from an origin of its own, a multiple of 16 m, and so of cells: what
        grows with distance stays whole, and float32 resolves the rest. For x, at p from the origin o:

            u = p PER_METRE,   i = floor(u),   s = u - i,   ix = i + (o / 16) CELLS - FIRST_X

        The cell's nodes are ix and ix + 1, each held within 0 and NX - 1; for y likewise.
        """
        ny, nx = self.heights.shape
        cells = tiles.share(self.cell)
        whole = np.array([nx, ny, *np.rint(self.origin * cells / CELL), cells], np.int32)
        grip = None if self.grip is None else self.grip.flatten()
        return self.heights.flatten(), (whole, np.array([self.cell, cells / CELL], np.float32)), grip

    def with_patches(self, grip: tuple[float, float], side: float, seed: int = 0) -> "Terrain":
        """Return the same ground with square patches whose friction differs, uniform between two factors.

        side: of a patch, rounded to whole cells [m]
        """
        ny, nx = self.heights.shape
        cells = max(1, round(side / self.cell))
        drawn = np.random.default_rng([seed, 1]).uniform(*grip, (-(-ny // cells), -(-nx // cells)))
        return dataclasses.replace(self, grip=drawn.repeat(cells, 0).repeat(cells, 1)[:ny, :nx])


def from_array(heights: np.ndarray, cell: float, origin: Sequence[float] | None = None) -> Terrain:
    """Return a terrain of one's own heights.

    heights: (ny, nx) [m], row iy along +y, column ix along +x; cell: distance between nodes [m], a
    whole share of 16 m; origin: (2) world x, y of heights[0, 0] [m], rounded to whole cells; None
    puts the middle of the field at the world's origin, as near as cells allow.

    Its spawn is the middle of the field. Raises ValueError as Terrain does.
    """
    cell = CELL / tiles.share(cell)
    extent = (np.array(np.shape(heights)[::-1]) - 1) * cell
    wanted = np.array(-extent / 2 if origin is None else origin, float)
    terrain = Terrain(heights, cell, np.rint(wanted / cell) * cell, np.zeros((1, 1, 3)))
    x, y = terrain.origin + extent / 2
    return dataclasses.replace(terrain, spawns=np.array([[[x, y, terrain.height(x, y)]]]))


def flat(height: float = 0.0, cell: float = 0.1) -> Terrain:
    """Return level ground at a height [m]; it goes on without end, so its field is two cells [m] wide."""
    return from_array(np.full((3, 3), tiles.check("height", height)), cell)


def slope(angle: float, direction: float = 0.0, size: float = 16.0, cell: float = 0.1) -> Terrain:
    """Return a plane through the world's origin that rises by tan(angle) along a direction.

    angle: of the incline [rad], within +-70 degrees; direction: from +x towards +y [rad], so that 0
    inclines about y; size: side of the field [m], an even number of cells; cell: side of a cell [m].
    """
    tiles.check("angle", angle, -tiles.STEEPEST, tiles.STEEPEST, "rad")
    tiles.check("direction", direction, unit="rad")
    n = tiles.side("size", size, cell)
    at = cell * (np.arange(n + 1) - n // 2)
    return from_array(math.tan(angle) * (math.cos(direction) * at + math.sin(direction) * at[:, None]), cell)


def rough(
    amplitude: float, spacing: float, seed: int = 0, platform: float = 0.0, size: float = 16.0, cell: float = 0.1
) -> Terrain:
    """Return hills and hollows: independent heights, uniform in +-amplitude, on a grid, joined smoothly.

    amplitude: [m]; spacing: between independent heights [m], at least ``cell``, with which every node
    is independent; seed: the same one gives the same bits; platform: least side of a level square in
    the middle, at height 0 [m], 0 for none; size, cell: as for slope() [m].
    """
    return from_array(
        tiles.rough(tiles.side("size", size, cell), cell, amplitude, spacing, np.random.default_rng(seed), platform),
        cell,
    )


def stairs(
    step_height: float, step_depth: float, up: bool = True, platform: float = 2.0, size: float = 8.0, cell: float = 0.1
) -> Terrain:
    """Return square stairs around a level platform; the edge of the field is at height 0.

    step_height: [m]; step_depth: from one riser to the next [m], a whole number of cells; a riser is
    one cell wide; up: whether they lead up from the platform, which then is the bottom of a pit, or
    down from the top of a pyramid; platform: least side of the platform [m], which takes in what no
    whole step fills; size, cell: as for slope() [m].
    """
    return from_array(tiles.stairs(tiles.side("size", size, cell), cell, step_height, step_depth, up, platform), cell)


def pyramid_slope(
    angle: float, up: bool = True, platform: float = 2.0, size: float = 8.0, cell: float = 0.1
) -> Terrain:
    """Return four inclines around a level platform; the edge of the field is at height 0.

    angle: of the inclines [rad], 0 to 70 degrees; up: whether they lead up from the platform, or
    down; platform: least side of the platform [m]; size, cell: as for slope() [m].
    """
    return from_array(tiles.pyramid(tiles.side("size", size, cell), cell, angle, up, platform), cell)


def stepping_stones(
    stone_size: float,
    gap: float,
    depth: float,
    height_noise: float = 0.0,
    seed: int = 0,
    platform: float = 2.0,
    size: float = 8.0,
    cell: float = 0.1,
) -> Terrain:
    """Return square stones in a pit, around a platform and within a rim, both at height 0.

    stone_size: side of a stone's top [m], a whole number of cells; gap: from edge to edge of
    neighbouring tops [m], a whole number of cells, at least two, for its walls are one cell wide
    each; depth: of the pit below height 0 [m]; height_noise: tops are at uniformly random heights of
    +- this [m]; seed: the same one gives the same bits; platform: least side of the platform [m],
    which ends where a stone would; size, cell: as for slope() [m].
    """
    n = tiles.side("size", size, cell)
    rng = np.random.default_rng(seed)
    return from_array(tiles.stones(n, cell, stone_size, gap, depth, height_noise, rng, platform), cell)


def gaps(
    width: float, depth: float, spacing: float = 0.8, platform: float = 2.0, size: float = 8.0, cell: float = 0.1
) -> Terrain:
    """Return square trenches around a level platform; all else is at height 0.

    width: from edge to edge of a trench [m], a whole number of cells, at least two, for its walls are one cell wide
    each; depth: [m]; spacing: between trenches [m], a whole number of cells; platform: least side of the
    platform [m]; size, cell: as for slope() [m].
    """
    return from_array(tiles.gaps(tiles.side("size", size, cell), cell, width, depth, spacing, platform), cell)


def rails(height: float, spacing: float = 0.8, platform: float = 2.0, size: float = 8.0, cell: float = 0.1) -> Terrain:
    """Return square bars around a level platform, one cell wide at the top; all else is at height 0.

    height: [m]; spacing: from one bar to the next [m], at least three cells; platform: least side of the platform [m];
    size, cell: as for slope() [m].
    """
    return from_array(tiles.rails(tiles.side("size", size, cell), cell, height, spacing, platform), cell)


def waves(amplitude: float, length: float, platform: float = 2.0, size: float = 8.0, cell: float = 0.1) -> Terrain:
    """Return waves that run along x and y, around a level platform; the edge of the field is at height 0.

    amplitude: where both meet [m]; length: of a wave [m], at least two cells; platform: least side of the
    platform [m]; size, cell: as for slope() [m].
    """
    return from_array(tiles.waves(tiles.side("size", size, cell), cell, amplitude, length, platform), cell)


def boxes(
    box_size: float, height: float, seed: int = 0, platform: float = 2.0, size: float = 8.0, cell: float = 0.1
) -> Terrain:
    """Return boxes side by side around a level platform; the edge of the field is at height 0.

    box_size: side of a box [m], a whole number of cells, of which its wall takes one; height: tops are at uniformly
    random heights of +- this [m]; seed: the same one gives the same bits; platform: least side of the platform [m];
    size, cell: as for slope() [m].
    """
    n = tiles.side("size", size, cell)
    return from_array(tiles.boxes(n, cell, box_size, height, np.random.default_rng(seed), platform), cell)


def from_file(path: str | pathlib.Path, relief: float, cell: float = 0.1, tile: float = 8.0) -> Terrain:
    """Return the ground that a file shows, a node to a pixel: black, or 0, at height 0, white, or 1, at ``relief`` [m].

    path: of an array (ny, nx) as numpy.save() writes it, whose rows follow one another along +y; or of a PNG or
    whatever else Pillow reads, whose lower edge is along +x, as people look at maps; relief: [m]; cell: side of a cell
    [m]. Robots start in the middle of every whole square of side ``tile`` [m], or of the field.

    Raises ValueError, naming the field, and OSError if the file is neither.
    """
    tiles.check("relief", relief)
    if pathlib.Path(path).suffix == ".npy":
        try:
            heights = np.array(np.load(path), float)
        except (ValueError, EOFError, TypeError):
            raise OSError("expected an array of numbers") from None
    else:
        heights = _grey(path)[::-1]
    ground = from_array(relief * heights, cell)
    ny, nx = ground.heights.shape
    size = (np.array([nx, ny]) - 1) * ground.cell
    count = np.maximum(size // tile, 1).astype(int)
    x, y = (
        origin + (span - n * tile) / 2 + (np.arange(n) + 0.5) * tile
        for origin, span, n in zip(ground.origin, size, count, strict=True)
    )
    x, y = (a.ravel() for a in np.meshgrid(x, y))
    return dataclasses.replace(ground, spawns=np.stack([x, y, ground.height(x, y)], -1)[None])


def _grey(path: str | pathlib.Path) -> np.ndarray:
    """Return a picture's brightness, 0 to 1; that of one in floats as it is."""
    from PIL import Image

    with Image.open(path) as picture:
        deep = picture.mode.startswith("I")  # 16 bits
        if picture.mode == "F":
            return np.asarray(picture, float)
        return np.asarray(picture if deep else picture.convert("L"), float) / (65535.0 if deep else 255.0)


def curriculum(
    levels: int = 10,
    kinds: Sequence[str] = ("rough", "slope_up", "slope_down", "stairs_up", "stairs_down", "stones"),
    tile: float = 8.0,
    cell: float = 0.1,
    seed: int = 0,
    difficulty: tuple[float, float] = (0.0, 1.0),
    platform: float = 2.0,
    border: float = 4.0,
    measures: tiles.Measures = tiles.Measures(),  # noqa: B008  (frozen)
) -> Terrain:
    """Return a grid of tiles, harder along +x, a kind to a row along +y, with level ground around.

    levels: tiles along x; kinds: what the rows are, of the names below; tile: side of a tile [m], an
    even number of cells; cell: [m]; seed: the same one gives the same bits; difficulty: of the first
    and the last level, within 0 and 1; platform: least side of the level square in the middle of
    every tile [m]; border: width of the ground around [m], a whole number of cells; measures: of slopes and stairs.

    From difficulty 0 to 1, unless ``measures`` says otherwise:

        flat         level
        rough        amplitude 0.005 to 0.08 m, spacing 0.4 m
        slope_*      angle 0.02 to 0.45 rad
        stairs_*     step height 0.01 to 0.18 m, depth 0.3 m
        stones       side 0.8 to 0.3 m, gap 0.1 to 0.3 m, pit 0.02 to 0.5 m deep, height noise 0 to 0.04 m
        gaps         0.1 to 0.4 m wide, 0.04 to 1 m deep, 0.8 m apart
        rails        0.02 to 0.2 m high, 0.8 m apart
        waves        amplitude 0.02 to 0.25 m, length 2 to 1.2 m
        boxes        side 0.5 m, tops at +-0.01 to +-0.12 m

    with lengths along the ground rounded to whole cells. _up leads up from the middle of a tile, _down
    down. Tiles meet at height 0. ``spawns[level, kind]`` is the middle of a tile.
    """
    if isinstance(levels, bool) or not isinstance(levels, int | np.integer) or levels < 1:
        raise ValueError(f"levels: expected a whole number of at least 1, got {levels!r}")
    if isinstance(kinds, str) or not kinds or not set(kinds) <= set(tiles.KINDS):
        raise ValueError(f"kinds: expected names among {', '.join(tiles.KINDS)}, got {kinds!r}")
    hardness = np.array(difficulty, float)
    if hardness.shape != (2,) or not 0 <= hardness[0] <= hardness[1] <= 1:
        raise ValueError(
            f"difficulty: expected that of the first and the last level, rising within 0 and 1, got {difficulty!r}"
        )
    n = tiles.side("tile", tile, cell)
    edge = tiles.whole("border", border, cell, least=0)
    heights = np.zeros((n * len(kinds) + 2 * edge + 1, n * levels + 2 * edge + 1))
    for level, hard in enumerate(np.linspace(*hardness, levels).tolist()):
        for row, kind in enumerate(kinds):
            x = edge + n * level
            y = edge + n * row
            heights[y : y + n + 1, x : x + n + 1] = tiles.KINDS[kind](
                n, cell, hard, np.random.default_rng([seed, level, row]), platform, measures
            )
    terrain = from_array(heights, cell)
    x, y = (
        terrain.origin[axis] + terrain.cell * (edge + n * (np.arange(count) + 0.5))
        for axis, count in enumerate((levels, len(kinds)))
    )
    x, y = np.meshgrid(x, y, indexing="ij")
    return dataclasses.replace(terrain, spawns=np.stack([x, y, terrain.height(x, y)], -1))
