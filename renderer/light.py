"""Light and shadow, computed per vertex and texel: the same picture with a GPU, with Mesa and with no OpenGL at all.

Its compiled functions call none of other files, so that Numba, which notices changes of this one, caches them rightly.
"""

from collections.abc import Sequence

import numpy as np

from physics.jit import inline, kernel

SUN = np.array([0.25, -0.45, 0.85]) / np.linalg.norm([0.25, -0.45, 0.85])  # towards the light
SUN_SLOPE = SUN[:2] / SUN[2]  # how far the light goes along the ground while it falls by 1
SUN_COLOUR = np.array([1.0, 0.965, 0.91], np.float32) * 0.66
SKY = np.array([0.36, 0.40, 0.47], np.float32)  # ambient light from above, and from the ground
EARTH = np.array([0.20, 0.19, 0.18], np.float32)

SHADOW_TEXELS = 96
SHADOW_COLOUR = (38, 46, 62)
SHADOW_STRENGTH = 0.62
# half width of its edge: per radius, and per height of the limb above the ground
SHARP = 0.35
BLUR = 0.16
FADING = 0.4  # share of the distance at which a shadow has faded, over which it does


def encode(linear: np.ndarray) -> np.ndarray:
    """Return linear light as uint8 for a screen."""
    return (255 * np.clip(linear, 0, 1) ** (1 / 2.2) + 0.5).astype(np.uint8)


# by the root of linear light, which spreads the dark; encode() for a compiled loop
ENCODED_STEPS = 1024
ENCODED = encode((np.arange(ENCODED_STEPS + 1) / ENCODED_STEPS) ** 2)


def relief_light(normals: np.ndarray, sky: np.ndarray, sun: np.ndarray) -> np.ndarray:
    """Return the light on points of the ground, (..., 3), in parts of that on level open ground.

    normals: (..., 3); sky, sun: (..., 1) how much of either a point sees, 0 to 1; more sky than all
    brightens an edge that stands out
    """
    up = 0.5 + 0.5 * normals[..., 2:]
    direct = np.clip(normals @ SUN, 0, 1)[..., None] * sun * SUN_COLOUR
    # what hides the sky hides as much of the light that other ground throws back, so it takes no colour away
    return (direct + up * SKY + (1 - up) * EARTH) * (0.4 + 0.6 * sky) / (SUN[2] * SUN_COLOUR + SKY)


@kernel
def surfaces(
    vertices: np.ndarray,
    normals: np.ndarray,
    colours: np.ndarray,
    gloss: np.ndarray,
    spans: np.ndarray,
    shape: np.ndarray,
    rotation: np.ndarray,
    origin: np.ndarray,
    glow: np.ndarray,
    ground: np.ndarray,
    eye: np.ndarray,
    scale: float,
    opacity: int,
    out: np.ndarray,
    out_colours: np.ndarray,
) -> None:
    """Put the surfaces of N copies of a figure in place, and light them: 55 ns a vertex.

    vertices, normals: (V, 3) in the frames of their groups; colours: (V, 3) linear; gloss: (V) from 0 matt to 1
    polished; spans: (G, 2) first vertex of a group, and that after its last
    shape, rotation: (N, G, 3, 3), origin, glow: (N, G, 3) as of a Pose; ground: (N, G) height of the ground there [m]
    eye: (3) the camera [m, world]; scale: how large things are, in robots; opacity: of 255
    out: (N V, 3) float32 [m, world] and out_colours: (N V, 4) uint8 are written
    """
    count = len(vertices)
    for robot in range(len(shape)):
        for group in range(len(spans)):
            s = shape[robot, group]
            r = rotation[robot, group]
            ox, oy, oz = origin[robot, group]
            shown = s[0, 0] != 0.0 or s[1, 1] != 0.0 or s[2, 2] != 0.0 or s[0, 1] != 0.0 or s[0, 2] != 0.0
            for v in range(spans[group, 0], spans[group, 1]):
                at = robot * count + v
                if not shown:
                    out[at] = (np.float32(ox), np.float32(oy), np.float32(oz))
                    continue
                x, y, z = vertices[v]
                px = s[0, 0] * x + s[0, 1] * y + s[0, 2] * z + ox
                py = s[1, 0] * x + s[1, 1] * y + s[1, 2] * z + oy
                pz = s[2, 0] * x + s[2, 1] * y + s[2, 2] * z + oz
                x, y, z = normals[v]
                nx = r[0, 0] * x + r[0, 1] * y + r[0, 2] * z
                ny = r[1, 0] * x + r[1, 1] * y + r[1, 2] * z
                nz = r[2, 0] * x + r[2, 1] * y + r[2, 2] * z
                vx = eye[0] - px
                vy = eye[1] - py
                vz = eye[2] - pz
                away = 1.0 / np.sqrt(vx * vx + vy * vy + vz * vz)
                vx *= away
                vy *= away
                vz *= away
                hx = vx + SUN[0]
                hy = vy + SUN[1]
                hz = vz + SUN[2]
                half = (nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz)
                sun = max(nx * SUN[0] + ny * SUN[1] + nz * SUN[2], 0.0)
                up = 0.5 + 0.5 * nz
                # Little sky reaches what is close to the ground or faces it.
                sky = min(max(0.6 + 1.2 / scale * (pz - ground[robot, group]), 0.0), 1.0)
                grazing = 1.0 - min(max(nx * vx + ny * vy + nz * vz, 0.0), 1.0)
                edge = grazing**4 * (0.08 + 0.3 * gloss[v]) * up
                shine = 0.5 * min(max(half, 0.0), 1.0) ** 40 * gloss[v]
                out[at] = (np.float32(px), np.float32(py), np.float32(pz))
                for k in range(3):
                    diffuse = sun * SUN_COLOUR[k] + (up * SKY[k] + (1.0 - up) * EARTH[k]) * sky
                    light = colours[v, k] * diffuse + shine * SUN_COLOUR[k] + edge * SKY[k] + glow[robot, group, k]
                    out_colours[at, k] = ENCODED[int(ENCODED_STEPS * np.sqrt(min(max(light, 0.0), 1.0)) + 0.5)]
                out_colours[at, 3] = opacity


def shadow(
    starts: np.ndarray,
    ends: np.ndarray,
    radii: np.ndarray,
    heights: np.ndarray,
    clear: np.ndarray,
    margin: float = 0.0,
    blocks: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    near: tuple[np.ndarray, float] | None = None,
    texels: int = SHADOW_TEXELS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the soft shadows of N copies of limbs and blocks on level planes, a shadow for each copy.

    starts, ends: (N, L, 3) axes of the limbs [m, world]; radii: (L) [m]; heights: (N, L, 2) of their ends
    above the plane [m]; clear: (N, L, 2) above the ground beneath, not below 0 [m]; margin: of light
    around the shadow [m]
    blocks: centres (N, 3) and half axes (N, M, 3), z from the plane up [m]
    near: a point (2) of the plane, and the distance from it at which shadows have faded [m]; None for no such limit
    texels: along either side of a shadow

    Returns the low and the high corners of the rectangles that they cover, (N, 2) each [m, world], and their
    opacity from 0 to 1, (N, texels, texels), rows along y. The light is wide: a shadow is sharp where
    what casts it meets the ground, and fades with its height.
    """
    feet = np.stack([starts[..., :2], ends[..., :2]], 2) - SUN_SLOPE * heights[..., None]  # (N, L, 2, 2)
    spread = (radii + SHARP * radii + BLUR * clear.max(2) + margin)[..., None]
    lows = [feet.min(2) - spread]
    highs = [feet.max(2) + spread]
    blocks = [_above(*block) for block in blocks]
    for centre, axes in blocks:
        tall = centre[:, 2] + np.abs(axes[..., 2]).sum(1)
        spread = np.abs(_feet(axes)).sum(1) + (BLUR * tall + margin)[:, None]
        lows.append((_feet(centre) - spread)[:, None])
        highs.append((_feet(centre) + spread)[:, None])
    lows = np.concatenate(lows, 1)
    highs = np.concatenate(highs, 1)
    low = lows.min(1)
    high = highs.max(1)
    if near:
        low, high = (np.clip(corner, near[0] - near[1], near[0] + near[1]) for corner in (low, high))
        high = np.maximum(high, low + 1e-6)
    # the sharpest edge that texels can show
    grain = (high - low).max(1) / texels if blocks else np.zeros(len(low))
    low = low - 2 * grain[:, None]
    high = high + 2 * grain[:, None]
    lit = np.ones((len(low), texels, texels), np.float32)
    limbs = feet.shape[1]
    _cast_limbs(feet, clear, radii, lows[:, :limbs], highs[:, :limbs], low, high, lit)
    for block, (centre, axes) in enumerate(blocks):
        reach = lows[:, limbs + block], highs[:, limbs + block]
        _cast_blocks(*_edges(centre, axes), grain, *reach, low, high, lit)
    if near:
        _fade(np.asarray(near[0], float), float(near[1]), low, high, lit)
    return low, high, 1 - lit


def _feet(points: np.ndarray) -> np.ndarray:
    """Return where the light through points (..., 3), z above a plane, meets the plane, (..., 2)."""
    return points[..., :2] - SUN_SLOPE * points[..., 2:]


def _above(centre: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return blocks, as in shadow(), pressed together so that none of them is below the plane."""
    half = np.abs(axes[..., 2]).sum(1)
    low = np.maximum(centre[:, 2] - half, 0.0)
    high = np.maximum(centre[:, 2] + half, 0.0)
    factor = np.stack(np.broadcast_arrays(1.0, 1.0, (high - low) / (2 * half)), -1)
    return np.column_stack([centre[:, :2], (low + high) / 2]), axes * factor[:, None]


def _edges(centre: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the edges of blocks' shadows, and how thick these are at their thinnest (N) [m].

    centre: (N, 3) and axes: (N, M, 3), z from the plane up [m]

    Edges: per block and edge its normal (N, E, 2) outwards, its middle (N, E, 2), length, height of what casts it
    there, how much that rises to its end [m], how much the outline turns at its ends, of a right angle, (N, E) each.

    The shadow of a block is one, too, in the plane: every half axis is the direction of two of its edges.
    """
    foot = _feet(centre)
    sides = _feet(axes)  # (N, M, 2)
    lengths = np.hypot(sides[..., 0], sides[..., 1])
    lengths = np.maximum(lengths, 1e-6 * lengths.max(1, keepdims=True))  # an axis towards the sun has tiny edges
    count = axes.shape[1]
    i = np.tile(np.arange(count), 2)
    side = np.repeat([1, -1], count)
    normals = np.stack([-sides[:, i, 1], sides[:, i, 0]], 2) * (side / lengths[:, i])[..., None]
    out = np.sign(normals @ sides.swapaxes(1, 2))  # (N, E, M) the shares of the middle of an edge
    out[:, np.arange(len(i)), i] = 0.0
    middles = foot[:, None] + out @ sides
    heights = centre[:, 2:] + (out @ axes[..., 2:])[..., 0]
    rises = side * axes[:, i, 2]
    thickness = ((middles - foot[:, None]) * normals).sum(2).min(1)
    angles = np.arctan2(normals[..., 1], normals[..., 0])
    order = np.argsort(angles, 1)
    ordered = np.take_along_axis(angles, order, 1)
    turns = np.diff(ordered, axis=1, append=ordered[:, :1] + 2 * np.pi)
    weights = np.empty(angles.shape)
    np.put_along_axis(weights, order, (turns + np.roll(turns, 1, 1)) / np.pi, 1)
    return normals, middles, lengths[:, i], heights, rises, weights, thickness


@inline
def _clamp(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


@inline
def _soft(beyond: float, blur: float) -> float:
    """Return the cover at a distance beyond an edge, from 1 to 0; blur: half width of the edge [m]."""
    cover = _clamp((blur - beyond) / (2 * blur), 0.0, 1.0)
    return cover * cover * (3 - 2 * cover)


@inline
def _strength(radius: float, blur: float) -> float:
    """Return the most that something of a radius [m] covers.

    Thinner than the blur, it dims the light and does not take it away.
    """
    return _clamp(1.3 * radius / (radius + 0.6 * blur), 0.0, 1.0)


@inline
def _texels(first: np.ndarray, last: np.ndarray, low: np.ndarray, high: np.ndarray, k: int, texels: int) -> tuple:
    """Return which texels along x (k 0) or y (1) are from first to last, and where texel 0 and the next ones are."""
    side = (high[k] - low[k]) / texels
    start = int(_clamp(np.floor((first[k] - low[k]) / side), 0.0, texels))
    stop = int(_clamp(np.ceil((last[k] - low[k]) / side), 0.0, texels))
    return start, stop, low[k] + 0.5 * side, side


@kernel
def _cast_limbs(
    feet: np.ndarray,
    clear: np.ndarray,
    radii: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    lit: np.ndarray,
) -> None:
    """Take the light that limbs hide; all as in shadow(), lows and highs (N, L, 2): what each may reach."""
    texels = lit.shape[1]
    for n in range(len(lit)):
        for limb in range(len(radii)):
            radius = radii[limb]
            ax, ay = feet[n, limb, 0]
            dx = feet[n, limb, 1, 0] - ax
            dy = feet[n, limb, 1, 1] - ay
            squared = max(dx * dx + dy * dy, 1e-9)
            height = clear[n, limb, 0]
            rise = clear[n, limb, 1] - height
            left, right, x0, across = _texels(lows[n, limb], highs[n, limb], low[n], high[n], 0, texels)
            top, bottom, y0, down = _texels(lows[n, limb], highs[n, limb], low[n], high[n], 1, texels)
            for row in range(top, bottom):
                for column in range(left, right):
                    x = x0 + column * across - ax
                    y = y0 + row * down - ay
                    t = _clamp((x * dx + y * dy) / squared, 0.0, 1.0)
                    distance = np.sqrt((x - t * dx) ** 2 + (y - t * dy) ** 2)
                    blur = SHARP * radius + BLUR * (height + t * rise)
                    lit[n, row, column] *= 1.0 - _soft(distance - radius, blur) * _strength(radius, blur)


@kernel
def _cast_blocks(
    normals: np.ndarray,
    middles: np.ndarray,
    lengths: np.ndarray,
    heights: np.ndarray,
    rises: np.ndarray,
    weights: np.ndarray,
    thickness: np.ndarray,
    grain: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    lit: np.ndarray,
) -> None:
    """Take the light that a block of each copy hides.

    Its edges and thickness: of _edges(); grain: (N) half width of its sharpest edge [m]; first, last: (N, 2) what it
    may reach; low, high: (N, 2) of the shadows' rectangles; lit: (N, texels, texels)

    What is within all edges is hidden, a soft edge beside another as a product of both.
    """
    texels = lit.shape[1]
    edges = lengths.shape[1]
    for n in range(len(lit)):
        margin = 2 * grain[n]
        left, right, x0, across = _texels(first[n] - margin, last[n] + margin, low[n], high[n], 0, texels)
        top, bottom, y0, down = _texels(first[n] - margin, last[n] + margin, low[n], high[n], 1, texels)
        for row in range(top, bottom):
            for column in range(left, right):
                cover = 1.0
                blurs = 0.0
                for e in range(edges):
                    x = x0 + column * across - middles[n, e, 0]
                    y = y0 + row * down - middles[n, e, 1]
                    beyond = x * normals[n, e, 0] + y * normals[n, e, 1]
                    along = x * normals[n, e, 1] - y * normals[n, e, 0]
                    share = _clamp(along / lengths[n, e], -1.0, 1.0)
                    blur = grain[n] + BLUR * (heights[n, e] + share * rises[n, e])
                    blurs += blur
                    cover *= _soft(beyond, blur) ** weights[n, e]
                    if cover == 0.0:
                        break
                if cover > 0.0:
                    lit[n, row, column] *= 1.0 - cover * _strength(thickness[n], blurs / edges)


@kernel
def _fade(point: np.ndarray, reach: float, low: np.ndarray, high: np.ndarray, lit: np.ndarray) -> None:
    """Let shadows fade with the distance from a point, up to a reach [m]; all as in shadow()."""
    texels = lit.shape[1]
    for n in range(len(lit)):
        across = (high[n, 0] - low[n, 0]) / texels
        down = (high[n, 1] - low[n, 1]) / texels
        for row in range(texels):
            for column in range(texels):
                x = low[n, 0] + (column + 0.5) * across - point[0]
                y = low[n, 1] + (row + 0.5) * down - point[1]
                share = _clamp((1.0 - np.sqrt(x * x + y * y) / reach) / FADING, 0.0, 1.0)
                lit[n, row, column] = 1.0 - (1.0 - lit[n, row, column]) * share
