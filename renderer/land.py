"""The ground as one mesh for browsers, in the colours that a window has it in."""

import numpy as np

from physics.terrain import Terrain
from renderer.glb import glb
from renderer.relief import divide, make_patch

MOST_QUADS = 250_000  # of a terrain; it is sent once to each browser, 80 bytes a quad
MOST_TILES = 80  # along either side of a level floor
CHUNK = 32  # tiles along a patch
FILM_IN = np.array([[0.59719, 0.35458, 0.04823], [0.07600, 0.90834, 0.01566], [0.02840, 0.13383, 0.83777]])
FILM_OUT = np.array([[1.60475, -0.53108, -0.07367], [-0.10208, 1.10813, -0.00605], [-0.00327, -0.07276, 1.07602]])
FILM_EXPOSURE = 1 / 0.6
FILM_BACK_IN, FILM_BACK_OUT = np.linalg.inv([FILM_EXPOSURE * FILM_IN, FILM_OUT])


def before_film(seen: np.ndarray) -> np.ndarray:
    """Return the light that three.js shows as linear colours (..., 3): its ACES tone mapping (S. Hill) undone."""
    y = np.clip(seen, 0.0, 0.98) @ FILM_BACK_OUT.T
    # y = (x (x + 0.0245786) - 0.000090537) / (x (0.983729 x + 0.4329510) + 0.238081)
    a = 1.0 - 0.983729 * y
    b = 0.0245786 - 0.4329510 * y
    c = -0.000090537 - 0.238081 * y
    x = (-b + np.sqrt(b * b - 4.0 * a * c)) / (2.0 * a)
    return np.maximum(x @ FILM_BACK_IN.T, 0.0)


def floor(tiles: np.ndarray, side: float, reach: float) -> tuple[bytes, float]:
    """Return a level floor about the origin as a .glb, and how far it can be moved without a sign of it [m].

    tiles: (2, 3) linear colours; side: of a tile, doubled until they are few enough; reach: how far the floor goes [m]
    """
    while 2 * reach / side > MOST_TILES:
        side *= 2
    half = int(np.ceil(reach / side / 2)) * 2
    i, j = (a.ravel() for a in np.meshgrid(np.arange(-half, half), np.arange(-half, half)))
    around = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    corners = np.zeros((len(i), 4, 3))
    corners[..., :2] = side * (np.stack([i, j], 1)[:, None] + around)
    return _quads(corners, np.repeat(tiles[(i + j) % 2][:, None], 4, 1)), 2 * side


def relief(terrain: Terrain, tiles: np.ndarray) -> bytes:
    """Return the whole of a terrain as a .glb; tiles: (2, 3) linear colours of its chequer."""
    grid = divide(terrain.cell)
    size = terrain.cell * (np.array(terrain.heights.shape[::-1]) - 1)
    quads = grid.quads
    while quads > 1 and np.prod(size / grid.tile * quads) > MOST_QUADS:
        quads //= 2
    low = np.floor(terrain.origin / (CHUNK * grid.tile)).astype(int)
    high = np.ceil((terrain.origin + size) / (CHUNK * grid.tile)).astype(int)
    patches = [
        make_patch(terrain, grid, i, j, quads, tiles, CHUNK)
        for j in range(low[1], high[1])
        for i in range(low[0], high[0])
    ]
    ground = slice((CHUNK * quads) ** 2)  # without the skirts, for all are as fine
    return _quads(*(np.concatenate([getattr(p, name)[ground] for p in patches]) for name in ("corners", "colours")))


def _quads(corners: np.ndarray, colours: np.ndarray) -> bytes:
    """Return quads (Q, 4, 3) as a .glb that shows their linear colours (Q, 4, 3) as they are."""
    triangles = (4 * np.arange(len(corners))[:, None, None] + [[0, 1, 2], [0, 2, 3]]).reshape(-1, 3)
    return glb(corners.reshape(-1, 3), triangles, before_film(colours.reshape(-1, 3)))
