"""Tiles of terrain: squares of n by n cells, as heights (n + 1, n + 1) of their nodes [m], float64.

The shapes that ``physics.terrain`` builds from, and the checks of their measures. Rows run along y,
columns along x. All but ``rough`` are at height 0 along their edges, and so are all of KINDS.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from physics.layout import CELL

STEEPEST = math.radians(70.0)  # incline that is accepted


def check(name: str, value: float, low: float = -math.inf, high: float = math.inf, unit: str = "m") -> float:
    """Return a number; raise ValueError, naming it, unless it is finite and within low and high."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        span = (
            ""
            if low == -math.inf
            else f" of at least {low:g}"
            if high == math.inf
            else f" between {low:g} and {high:g}"
        )
        raise ValueError(f"{name}: expected a finite number{span} [{unit}], got {value!r}")
    return float(value)


def share(cell: float) -> int:
    """Return how many cells [m] make up layout.CELL; raise ValueError unless that is a whole number."""
    cells = round(CELL / check("cell", cell, 1e-3, CELL))
    if abs(cells * cell - CELL) > 1e-6 * CELL:
        raise ValueError(f"cell: expected a whole share of {CELL:g} m, such as 0.05, 0.1 or 0.2, got {cell!r}")
    return cells


def whole(name: str, length: float, cell: float, least: int = 1) -> int:
    """Return a length [m] in cells; raise ValueError, naming it, unless that is a whole number of at least this."""
    cells = round(check(name, length) * share(cell) / CELL)
    if cells < least or abs(cells * cell - length) > 1e-6 * max(cell, abs(length)):
        raise ValueError(f"{name}: expected a whole number of cells of {cell:g} m, at least {least}, got {length!r}")
    return cells


def side(name: str, length: float, cell: float) -> int:
    """Return the side of a square field [m] in cells.

    Raises ValueError, naming it, unless that is even: there is a node in the middle.
    """
    cells = whole(name, length, cell, least=2)
    if cells % 2:
        raise ValueError(f"{name}: expected an even number of cells of {cell:g} m, got {length!r}, which is {cells}")
    return cells


def _rings(n: int) -> np.ndarray:
    """Return how many cells each node is from the edge."""
    one = np.minimum(np.arange(n + 1), n - np.arange(n + 1))
    return np.minimum(one, one[:, None])


def _run(n: int, cell: float, platform: float) -> int:
    """Return how many cells lie between the edge and a platform in the middle, of at least this side [m]."""
    check("platform", platform, 0.0, n * cell)
    return n // 2 - math.ceil(platform / cell / 2 - 1e-6)


def _ease(t: np.ndarray) -> np.ndarray:
    """Return a smooth step from 0 at 0 to 1 at 1."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def rough(
    n: int, cell: float, amplitude: float, spacing: float, rng: np.random.Generator, platform: float
) -> np.ndarray:
    """Return hills and hollows; the arguments are those of terrain.rough()."""
    check("amplitude", amplitude, 0.0)
    check("spacing", spacing, cell * (1 - 1e-9))
    u = np.arange(n + 1) * (cell / spacing)
    i = np.floor(u + 1e-9).astype(int)
    s = _ease(u - i)
    knots = rng.uniform(-amplitude, amplitude, (i[-1] + 2, i[-1] + 2))
    rows = knots[i] + s[:, None] * (knots[i + 1] - knots[i])
    heights = rows[:, i] + s * (rows[:, i + 1] - rows[:, i])
    # Level on the platform, itself again one spacing further out.
    return heights * _ease((_run(n, cell, platform) - _rings(n)) * cell / spacing) if platform else heights


def stairs(n: int, cell: float, step_height: float, step_depth: float, up: bool, platform: float) -> np.ndarray:
    """Return square stairs; the arguments are those of terrain.stairs()."""
    check("step_height", step_height, 0.0)
    depth = whole("step_depth", step_depth, cell)
    steps = _run(n, cell, platform) // depth
    if steps < 1:
        raise ValueError(
            f"step_depth: expected room for a step between the platform of {platform:g} m "
            f"and the edge of {n * cell:g} m, got {step_depth!r}"
        )
    return (-step_height if up else step_height) * np.minimum(_rings(n) // depth, steps).astype(float)


def pyramid(n: int, cell: float, angle: float, up: bool, platform: float) -> np.ndarray:
    """Return four inclines; the arguments are those of terrain.pyramid_slope()."""
    rise = math.tan(check("angle", angle, 0.0, STEEPEST, "rad")) * cell
    return (-rise if up else rise) * np.minimum(_rings(n), _run(n, cell, platform)).astype(float)


def stones(
    n: int,
    cell: float,
    stone_size: float,
    gap: float,
    depth: float,
    height_noise: float,
    rng: np.random.Generator,
    platform: float,
) -> np.ndarray:
    """Return square stones in a pit; the arguments are those of terrain.stepping_stones()."""
    stone = whole("stone_size", stone_size, cell)
    space = whole("gap", gap, cell, least=2)
    check("depth", depth, 0.0)
    check("height_noise", height_noise, 0.0)
    pitch = stone + space
    # The platform takes the place of whole stones and the gaps between them, at least one stone.
    across = max(1, math.ceil((check("platform", platform, 0.0) / cell + space) / pitch - 1e-6)) * pitch - space
    start = (n - across) // 2
    if start < space:
        raise ValueError(
            f"platform: expected room for a gap between it and the edge of {n * cell:g} m, got {platform!r}"
        )
    # Along a line: which stone a node is on, counted from the platform's; whole ones end where the rim begins.
    at = np.arange(n + 1) - start
    number = at // pitch
    on = at % pitch <= stone
    before = (start - space) // pitch * pitch
    behind = (n - start - across - space) // pitch * pitch
    rim = (at <= -space - before) | (at >= across + space + behind)
    middle = (at >= 0) & (at <= across)
    tops = rng.uniform(-height_noise, height_noise, (np.ptp(number) + 1,) * 2)
    number -= number[0]
    heights = np.where(on & on[:, None], tops[number[:, None], number], -float(depth))
    heights[(rim | rim[:, None]) | (middle & middle[:, None])] = 0.0
    return heights


def gaps(n: int, cell: float, width: float, depth: float, spacing: float, platform: float) -> np.ndarray:
    """Return square trenches around a platform; the arguments are those of terrain.gaps()."""
    wide = whole("width", width, cell, least=2)
    between = whole("spacing", spacing, cell)
    check("depth", depth, 0.0)
    out = _run(n, cell, platform) - _rings(n)  # cells from the platform
    at = (out - between) % (wide + between)
    # the last trench ends within the tile, whose edge is level
    room = (_run(n, cell, platform) - 1) // (wide + between) * (wide + between)
    return np.where((out > between) & (at > 0) & (at < wide) & (out < room), -float(depth), 0.0)


def rails(n: int, cell: float, height: float, spacing: float, platform: float) -> np.ndarray:
    """Return square bars around a platform; the arguments are those of terrain.rails()."""
    between = whole("spacing", spacing, cell, least=3)
    check("height", height, 0.0)
    out = _run(n, cell, platform) - _rings(n)
    return np.where((out > 0) & (out % between <= 1) & (out >= between) & (_rings(n) > 0), float(height), 0.0)


def waves(n: int, cell: float, amplitude: float, length: float, platform: float) -> np.ndarray:
    """Return waves along x and y; the arguments are those of terrain.waves()."""
    check("amplitude", amplitude, 0.0)
    check("length", length, 2 * cell * (1 - 1e-9))
    one = np.sin(2 * math.pi / length * cell * (np.arange(n + 1) - n // 2))
    within = np.minimum(_rings(n), _run(n, cell, platform) - _rings(n))
    return amplitude * 0.5 * (one + one[:, None]) * _ease(within * cell / (0.5 * length))


def boxes(n: int, cell: float, box_size: float, height: float, rng: np.random.Generator, platform: float) -> np.ndarray:
    """Return boxes side by side; the arguments are those of terrain.boxes()."""
    side_of_one = whole("box_size", box_size, cell)
    check("height", height, 0.0)
    number = np.arange(n + 1) // side_of_one
    tops = rng.uniform(-height, height, (number[-1] + 1,) * 2)
    heights = tops[number[:, None], number]
    heights[(_rings(n) == 0) | (_rings(n) >= _run(n, cell, platform))] = 0.0
    return heights


@dataclass(frozen=True)
class Measures:
    """What the kinds of a curriculum measure, at difficulty 0 and 1.

    step_height: of stairs [m]; tread: from one riser of stairs to the next [m]; slope: angle of inclines [rad].
    """

    step_height: tuple[float, float] = (0.01, 0.18)
    tread: tuple[float, float] = (0.3, 0.3)
    slope: tuple[float, float] = (0.02, 0.45)


# The kinds of a curriculum: n, cell [m], difficulty 0 to 1, random generator, platform [m], Measures -> heights.


def _between(first: float, last: float, hard: float) -> float:
    return first + (last - first) * hard


def _nearest(length: float, cell: float, least: int = 1) -> float:
    """Return a length [m] rounded to whole cells."""
    return max(least, round(length / cell)) * cell


def _rough(
    n: int, cell: float, hard: float, rng: np.random.Generator, platform: float, measures: Measures
) -> np.ndarray:
    spacing = max(0.4, cell)
    heights = rough(n, cell, _between(0.005, 0.08, hard), spacing, rng, platform)
    return heights * _ease(_rings(n) * cell / spacing)


def _slope(up: bool) -> Callable[..., np.ndarray]:
    return lambda n, cell, hard, rng, platform, measures: pyramid(
        n, cell, _between(*measures.slope, hard), up, platform
    )


def _stairs(up: bool) -> Callable[..., np.ndarray]:
    return lambda n, cell, hard, rng, platform, measures: stairs(
        n, cell, _between(*measures.step_height, hard), _nearest(_between(*measures.tread, hard), cell), up, platform
    )


def _stones(
    n: int, cell: float, hard: float, rng: np.random.Generator, platform: float, measures: Measures
) -> np.ndarray:
    stone_size = _nearest(_between(0.8, 0.3, hard), cell)
    gap = _nearest(_between(0.1, 0.3, hard), cell, least=2)
    return stones(n, cell, stone_size, gap, _between(0.02, 0.5, hard), _between(0.0, 0.04, hard), rng, platform)


KINDS: dict[str, Callable[..., np.ndarray]] = {
    "flat": lambda n, cell, hard, rng, platform, measures: np.zeros((n + 1, n + 1)),
    "rough": _rough,
    "slope_up": _slope(True),
    "slope_down": _slope(False),
    "stairs_up": _stairs(True),
    "stairs_down": _stairs(False),
    "stones": _stones,
    "gaps": lambda n, cell, hard, rng, platform, measures: gaps(
        n,
        cell,
        _nearest(_between(0.1, 0.4, hard), cell, least=2),
        _between(0.04, 1.0, hard),
        _nearest(0.8, cell),
        platform,
    ),
    "rails": lambda n, cell, hard, rng, platform, measures: rails(
        n, cell, _between(0.02, 0.2, hard), _nearest(0.8, cell, least=3), platform
    ),
    "waves": lambda n, cell, hard, rng, platform, measures: waves(
        n, cell, _between(0.02, 0.25, hard), max(_between(2.0, 1.2, hard), 2 * cell), platform
    ),
    "boxes": lambda n, cell, hard, rng, platform, measures: boxes(
        n, cell, _nearest(0.5, cell), _between(0.01, 0.12, hard), rng, platform
    ),
}
