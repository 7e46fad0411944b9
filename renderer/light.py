"""Light and shadow, computed per vertex in numpy: the same picture with a GPU, with Mesa and with no OpenGL at all."""

import math
from collections.abc import Sequence

import numpy as np

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


def relief_light(normals: np.ndarray, sky: np.ndarray, sun: np.ndarray) -> np.ndarray:
    """Return the light on points of the ground, (..., 3), in parts of that on level open ground.

    normals: (..., 3); sky, sun: (..., 1) how much of either a point sees, 0 to 1; more sky than all
    brightens an edge that stands out
    """
    up = 0.5 + 0.5 * normals[..., 2:]
    direct = np.clip(normals @ SUN, 0, 1)[..., None] * sun * SUN_COLOUR
    # what hides the sky hides as much of the light that other ground throws back, so it takes no colour away
    return (direct + up * SKY + (1 - up) * EARTH) * (0.4 + 0.6 * sky) / (SUN[2] * SUN_COLOUR + SKY)


def shade(
    points: np.ndarray,
    normals: np.ndarray,
    colour: np.ndarray,
    gloss: np.ndarray,
    glow: np.ndarray,
    eye: np.ndarray,
    ground: np.ndarray | float = 0.0,
    scale: float = 1.0,
) -> np.ndarray:
    """Return the colours of vertices, (V, 3) uint8.

    points, normals: (V, 3) [m, world]; ground: (V) height of the ground below them [m]
    colour, glow: (V, 3) linear; gloss: (V) from 0 matt to 1 polished
    eye: (3) the camera [m, world]; scale: how large things are, in robots
    """
    view = (eye - points).astype(np.float32)
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    half = view + SUN.astype(np.float32)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    sun = np.clip(normals @ SUN.astype(np.float32), 0, 1)[:, None]
    up = (0.5 + 0.5 * normals[:, 2])[:, None]
    # Little sky reaches what is close to the ground or faces it.
    open_sky = np.clip(0.6 + 1.2 / scale * (points[:, 2] - ground), 0, 1)[:, None]
    shine = (np.clip(np.einsum("ij,ij->i", normals, half), 0, 1) ** 40 * gloss)[:, None]
    edge = ((1 - np.clip(np.einsum("ij,ij->i", normals, view), 0, 1)) ** 4 * (0.08 + 0.3 * gloss))[:, None]
    diffuse = sun * SUN_COLOUR + (up * SKY + (1 - up) * EARTH) * open_sky
    return encode(colour * diffuse + 0.5 * shine * SUN_COLOUR + edge * SKY * up + glow)


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
    """Return the soft shadow of limbs and blocks on a level plane.

    starts, ends: (N, 3) axes of the limbs [m, world]; radii: (N) [m]; heights: (N, 2) of their ends
    above the plane [m]; clear: (N, 2) above the ground beneath, not below 0 [m]; margin: of light
    around the shadow [m]
    blocks: centres (3) and half axes (M, 3), z from the plane up [m]
    near: a point (2) of the plane, and the distance from it at which the shadow has faded [m]; None for no such limit
    texels: along either side of the result

    Returns the low and the high corner of the rectangle it covers, (2) each [m, world], and its
    opacity from 0 to 1, (texels, texels), rows along y. The light is wide: a shadow is sharp where
    what casts it meets the ground, and fades with its height.
    """
    feet = np.stack([starts[:, :2], ends[:, :2]], 1) - SUN_SLOPE * heights[..., None]  # (N, 2, 2)
    spread = (radii + SHARP * radii + BLUR * clear.max(1) + margin)[:, None]
    lows = list(feet.min(1) - spread)
    highs = list(feet.max(1) + spread)
    blocks = [_above(*block) for block in blocks]
    for centre, axes in blocks:
        spread = np.abs(_feet(axes)).sum(0) + BLUR * (centre[2] + np.abs(axes[:, 2]).sum()) + margin
        lows.append(_feet(centre) - spread)
        highs.append(_feet(centre) + spread)
    low = np.min(lows, axis=0)
    high = np.max(highs, axis=0)
    if near:
        low, high = (np.clip(corner, near[0] - near[1], near[0] + near[1]) for corner in (low, high))
        high = np.maximum(high, low + 1e-6)
    grain = float((high - low).max()) / texels if blocks else 0.0  # the sharpest edge that texels can show
    low = low - 2 * grain
    high = high + 2 * grain
    grid = (np.arange(texels, dtype=np.float32) + 0.5) / texels
    x, y = (low + (high - low) * grid[:, None]).astype(np.float32).T
    x = x[None, :]
    y = y[:, None]
    lit = np.ones((texels, texels), np.float32)
    casters = [(_limb_cover, limb) for limb in zip(feet.tolist(), clear.tolist(), radii.tolist(), strict=True)]
    casters += [(_block_cover, (*block, grain)) for block in blocks]
    for (cover, caster), first, last in zip(casters, lows, highs, strict=True):
        start, stop = (
            np.clip((corner - low) / (high - low) * texels, 0, texels)
            for corner in (first - 2 * grain, last + 2 * grain)
        )
        columns, rows = (slice(int(a), math.ceil(b)) for a, b in zip(start, stop, strict=True))
        lit[rows, columns] *= 1 - cover(x[:, columns], y[rows], *caster)
    if near:
        away = np.hypot(x - np.float32(near[0][0]), y - np.float32(near[0][1])) / np.float32(near[1])
        return low, high, (1 - lit) * np.clip((1 - away) / FADING, 0, 1)
    return low, high, 1 - lit


def _feet(points: np.ndarray) -> np.ndarray:
    """Return where the light through points (..., 3), z above a plane, meets the plane, (..., 2)."""
    return points[..., :2] - SUN_SLOPE * points[..., 2:]


def _above(centre: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a block, as in shadow(), pressed together so that none of it is below the plane."""
    half = np.abs(axes[:, 2]).sum()
    low = max(centre[2] - half, 0.0)
    high = max(centre[2] + half, 0.0)
    return np.array([*centre[:2], (low + high) / 2]), axes * [1, 1, (high - low) / (2 * half)]


def _limb_cover(x: np.ndarray, y: np.ndarray, feet: list, clear: list, radius: float) -> np.ndarray:
    """Return how much a limb hides of the sun at points x, y, from 0 to 1; all as in shadow()."""
    (a, b) = feet
    (height, end_height) = clear
    dx = b[0] - a[0]
    dy = b[1] - a[1]
    t = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
    distance = np.sqrt((x - a[0] - t * dx) ** 2 + (y - a[1] - t * dy) ** 2)
    blur = SHARP * radius + BLUR * (height + t * (end_height - height))
    return _soft(distance - radius, blur) * _strength(radius, blur)


def _block_cover(x: np.ndarray, y: np.ndarray, centre: np.ndarray, axes: np.ndarray, grain: float) -> np.ndarray:
    """Return how much a block hides of the sun at points x, y, from 0 to 1.

    grain: half width of its sharpest edge [m], all else as in shadow().

    The shadow of a block is one, too, in the plane: every half axis is the direction of two of its edges.
    What is within all edges is hidden, a soft edge beside another as a product of both.
    """
    # (2), (M, 2)
    foot = _feet(centre)
    sides = _feet(axes)
    lengths = np.hypot(*sides.T)
    some = np.flatnonzero(lengths > 1e-6 * lengths.max())  # an axis towards the sun has no edges
    i = np.tile(some, 2)
    side = np.repeat([1, -1], len(some))[:, None]
    normals = side * np.stack([-sides[i, 1], sides[i, 0]], 1) / lengths[i, None]  # (E, 2) outwards
    out = np.sign(normals @ sides.T)  # (E, M) the shares of the middle of an edge
    out[np.arange(len(i)), i] = 0.0
    middles = foot + out @ sides
    heights = centre[2] + out @ axes[:, 2]
    rises = side[:, 0] * axes[i, 2]
    thickness = ((middles - foot) * normals).sum(1).min()
    # How much an edge counts is by how much the outline turns at its ends, of a right angle.
    angles = np.arctan2(normals[:, 1], normals[:, 0])
    order = np.argsort(angles)
    turns = np.diff(angles[order], append=angles[order[0]] + 2 * np.pi)
    weights = np.empty(len(i))
    weights[order] = (turns + np.roll(turns, 1)) / np.pi
    # (E, rows, columns): from an edge outwards, and along it from its middle
    edges = np.stack([*normals.T, *middles.T, lengths[i], heights, rises, weights]).astype(np.float32)
    normal_x, normal_y, middle_x, middle_y, length, height, rise, weight = edges[:, :, None, None]
    beyond = (x - middle_x) * normal_x + (y - middle_y) * normal_y
    along = (x - middle_x) * normal_y - (y - middle_y) * normal_x
    blur = grain + BLUR * (height + np.clip(along / length, -1, 1) * rise)
    return np.prod(_soft(beyond, blur) ** weight, 0) * _strength(thickness, blur.mean(0))


def _soft(beyond: np.ndarray, blur: np.ndarray) -> np.ndarray:
    """Return the cover at distances beyond an edge, from 1 to 0; blur: half width of the edge [m]."""
    cover = np.clip((blur - beyond) / (2 * blur), 0, 1)
    return cover * cover * (3 - 2 * cover)


def _strength(radius: float, blur: np.ndarray) -> np.ndarray:
    """Return the most that something of a radius [m] covers.

    Thinner than the blur, it dims the light and does not take it away.
    """
    return np.clip(1.3 * radius / (radius + 0.6 * blur), 0, 1)
