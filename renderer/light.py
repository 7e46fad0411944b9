"""Light and shadow, computed per vertex in numpy: the same picture with a GPU, with Mesa and with no OpenGL at all."""

import numpy as np

SUN = np.array([0.25, -0.45, 0.85]) / np.linalg.norm([0.25, -0.45, 0.85])  # towards the light
SUN_SLOPE = SUN[:2] / SUN[2]  # how far the light goes along the ground while it falls by 1
SUN_COLOUR = np.array([1.0, 0.965, 0.91], np.float32) * 0.66
SKY = np.array([0.36, 0.40, 0.47], np.float32)  # ambient light from above, and from the ground
EARTH = np.array([0.20, 0.19, 0.18], np.float32)

SHADOW_TEXELS = 96
SHADOW_COLOUR = (38, 46, 62)
SHADOW_STRENGTH = 0.62
SHARP, BLUR = 0.35, 0.16  # half width of its edge: per radius, and per height of the limb above the ground


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
    points: np.ndarray, normals: np.ndarray, colour: np.ndarray, gloss: np.ndarray, glow: np.ndarray, eye: np.ndarray, ground: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return the colours of vertices, (V, 3) uint8.

    points, normals: (V, 3) [m, world]; ground: (V) height of the ground below them [m]
    colour, glow: (V, 3) linear; gloss: (V) from 0 matt to 1 polished
    eye: (3) the camera [m, world]
    """
    view = (eye - points).astype(np.float32)
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    half = view + SUN.astype(np.float32)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    sun = np.clip(normals @ SUN.astype(np.float32), 0, 1)[:, None]
    up = (0.5 + 0.5 * normals[:, 2])[:, None]
    # Little sky reaches what is close to the ground or faces it.
    open_sky = np.clip(0.6 + 1.2 * (points[:, 2] - ground), 0, 1)[:, None]
    shine = (np.clip(np.einsum("ij,ij->i", normals, half), 0, 1) ** 40 * gloss)[:, None]
    edge = ((1 - np.clip(np.einsum("ij,ij->i", normals, view), 0, 1)) ** 4 * (0.08 + 0.3 * gloss))[:, None]
    diffuse = sun * SUN_COLOUR + (up * SKY + (1 - up) * EARTH) * open_sky
    return encode(colour * diffuse + 0.5 * shine * SUN_COLOUR + edge * SKY * up + glow)


def shadow(
    starts: np.ndarray, ends: np.ndarray, radii: np.ndarray, heights: np.ndarray, clear: np.ndarray, margin: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the soft shadow of limbs on a level plane.

    starts, ends: (N, 3) axes of the limbs [m, world]; radii: (N) [m]; heights: (N, 2) of their ends
    above the plane [m]; clear: (N, 2) above the ground beneath, not below 0 [m]; margin: of light
    around the shadow [m]

    Returns the low and the high corner of the rectangle it covers, (2) each [m, world], and its
    opacity from 0 to 1, (SHADOW_TEXELS, SHADOW_TEXELS), rows along y. The light is wide: a limb's
    shadow is sharp where it meets the ground and fades with its height.
    """
    feet = np.stack([starts[:, :2], ends[:, :2]], 1) - SUN_SLOPE * heights[..., None]  # (N, 2, 2)
    spread = (radii + SHARP * radii + BLUR * clear.max(1) + margin)[:, None, None]
    low, high = (feet - spread).min((0, 1)), (feet + spread).max((0, 1))
    grid = (np.arange(SHADOW_TEXELS, dtype=np.float32) + 0.5) / SHADOW_TEXELS
    x, y = (low + (high - low) * grid[:, None]).astype(np.float32).T
    x, y = x[None, :], y[:, None]
    lit = np.ones((SHADOW_TEXELS, SHADOW_TEXELS), np.float32)
    for (a, b), (height, end_height), radius in zip(feet.tolist(), clear.tolist(), radii.tolist(), strict=True):
        dx, dy = b[0] - a[0], b[1] - a[1]
        t = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        distance = np.sqrt((x - a[0] - t * dx) ** 2 + (y - a[1] - t * dy) ** 2)
        blur = SHARP * radius + BLUR * (height + t * (end_height - height))
        cover = np.clip((radius + blur - distance) / (2 * blur), 0, 1)
        # A limb thinner than the blur dims the light, it does not take it away.
        lit *= 1 - cover * cover * (3 - 2 * cover) * np.clip(1.3 * radius / (radius + 0.6 * blur), 0, 1)
    return low, high, 1 - lit
