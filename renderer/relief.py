"""The ground of a terrain as patches of a mesh: fine near the robot, coarser with distance, lit once.

A patch is CHUNK by CHUNK tiles of the chequer. Where it is, it can be had at several finenesses, of
1, 2, 4, ... quads along a tile; each is made when it is first seen, and kept. A skirt hangs from its
edge, so that no gap opens to a neighbour of another fineness.
"""

import dataclasses
import itertools
import math
import types
from collections.abc import Iterator

import numpy as np

from physics.jit import kernel
from physics.terrain import Terrain
from renderer.camera import View
from renderer.figure import paint
from renderer.light import SUN, encode, relief_light
from renderer.mesh import Quads

TILE = 0.5  # side of a tile, roughly: it is made of whole cells [m]
CHUNK = 4  # tiles along a patch
# sides of the quads nearest the robot: cells smaller or larger than these are joined or split [m]
FINEST = 0.03
COARSEST = 0.25
DETAIL = 0.03  # side of a quad over its distance from the camera's target: where it matters, two thirds have faded
CREASE = math.cos(math.radians(28.0))  # quads that meet at a sharper angle show an edge
CLIFF = paint("#8FA0B6", 0).colour  # of upright ground
ICE = paint("#7FC4E8", 0).colour  # of ground without friction
RIDGE = 0.3  # how much an edge that stands out is brightened
CONTRAST = 1.6  # exponent of the light
SKIRT = 0.05  # of a patch, beyond its own range of heights [m]
# in which the sky is looked for, and how far [m]
DIRECTIONS = 8
DISTANCES = (0.08, 0.2, 0.5)
SHADE_REACH = np.arange(0.06, 1.3, 0.1)  # where ground is looked for that hides the sun, along the ground [m]


@dataclasses.dataclass(frozen=True)
class Grid:
    """How a terrain is divided: side of a tile [m], and quads along a tile at its finest."""

    tile: float
    quads: int

    @property
    def chunk(self) -> float:
        """Side of a patch [m]."""
        return CHUNK * self.tile

    def fineness(self, distance: float) -> int:
        """Return how many quads along a tile are drawn at a distance [m] from the camera's target."""
        quads = self.quads
        while quads > 1 and 2 * self.tile / quads <= DETAIL * distance:
            quads //= 2
        return quads


def divide(cell: float) -> Grid:
    """Return the grid of a terrain of some cell [m].

    A tile is 2^n cells or parts of a cell, so that edges of cells are edges of quads.
    """
    part = cell / max(1, math.ceil(cell / COARSEST - 1e-9))
    power = max(0, round(math.log2(TILE / part)))
    tile = part * 2**power
    quads = 2**power
    while tile / quads < FINEST:
        quads //= 2
    return Grid(tile, quads)


@dataclasses.dataclass(frozen=True)
class Patch:
    """A piece of ground: the corners of quads (Q, 4, 3) and their linear colours (Q, 4, 3).

    Corners are in the world [m], counter-clockwise from above. The ground's (4 n)^2 quads come first, its skirt's
    16 n last, for n quads along a tile.
    """

    corners: np.ndarray
    colours: np.ndarray


def make_patch(
    terrain: Terrain, grid: Grid, i: int, j: int, quads: int, tiles: np.ndarray, chunk: int = CHUNK
) -> Patch:
    """Return the patch whose corner is at i, j times the side of a patch.

    quads: along a tile; tiles: (2, 3) linear colours of the chequer; chunk: tiles along the patch, an even number
    """
    n = chunk * quads
    side = grid.tile / quads
    # With a ring of nodes around, for the quads beyond the edge bend the normals at it.
    x, y = (start * chunk * grid.tile + side * np.arange(-1, n + 2) for start in (i, j))
    x, y = np.meshgrid(x, y)
    nodes = np.stack([x, y, terrain.height(x, y)], -1)
    normals = _creased_normals(nodes)
    inner = nodes[1:-1, 1:-1]
    sky, sun = _openness(terrain, inner)
    corner = ((0, 0), (1, 0), (1, 1), (0, 1))  # x, y: counter-clockwise from above
    corners, open_sky, in_sun = (np.stack([a[b : b + n, c : c + n] for c, b in corner], 2) for a in (inner, sky, sun))
    tile = np.arange(n) // quads
    colour = tiles[(tile + tile[:, None]) % 2][:, :, None]  # a patch has an even number of tiles
    slippery = np.clip(1.0 - terrain.grip_at(*corners[..., :2].mean(2).transpose(2, 0, 1)), 0.0, 1.0)
    colour = colour + slippery[..., None, None] * (ICE - colour)
    colour = CLIFF + (colour - CLIFF) * normals[..., 2:] ** 1.5
    colour = colour * relief_light(normals, open_sky, in_sun) ** CONTRAST
    # The skirt: from every edge down, its face outwards.
    drop = np.ptp(inner[..., 2]) + SKIRT
    edges = (
        (corners[0], colour[0], 0),
        (corners[:, -1], colour[:, -1], 1),
        (corners[-1], colour[-1], 2),
        (corners[:, 0], colour[:, 0], 3),
    )
    skirts = []
    shades = []
    for points, shade, k in edges:
        a = k
        b = (k + 1) % 4
        foot = points - [0, 0, drop]
        skirts.append(np.stack([points[:, b], points[:, a], foot[:, a], foot[:, b]], 1))
        shades.append(np.stack([shade[:, b], shade[:, a], shade[:, a], shade[:, b]], 1))
    corners = corners.reshape(-1, 4, 3)
    colour = colour.reshape(-1, 4, 3)
    return Patch(
        np.concatenate([corners, *skirts]).astype(np.float32), np.concatenate([colour, *shades]).astype(np.float32)
    )


def _creased_normals(nodes: np.ndarray) -> np.ndarray:
    """Return unit normals at the corners of quads, (n, n, 4, 3), from nodes (n + 3, n + 3, 3), a ring further.

    At each corner, those of the quads around it are averaged that are not across a crease.
    """
    across = nodes[1:, 1:] - nodes[:-1, :-1]
    along = nodes[1:, :-1] - nodes[:-1, 1:]
    face = np.cross(across, along)
    face /= np.linalg.norm(face, axis=-1, keepdims=True)
    n = len(face) - 2
    own = face[1:-1, 1:-1]
    normals = np.empty((n, n, 4, 3))
    for corner, (right, up) in enumerate(((0, 0), (1, 0), (1, 1), (0, 1))):
        total = np.zeros_like(own)
        for a, b in itertools.product((0, 1), (0, 1)):
            other = face[up + b : up + b + n, right + a : right + a + n]
            total += other * (np.einsum("ijk,ijk->ij", own, other) > CREASE)[..., None]
        normals[:, :, corner] = total / np.linalg.norm(total, axis=-1, keepdims=True)
    return normals


def _openness(terrain: Terrain, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how much sky and sun points (..., 3) on the ground see, as relief_light() takes them, (..., 1) each."""
    x, y, z = np.moveaxis(points, -1, 0)
    hidden = np.zeros_like(z)
    stands_out = np.zeros_like(z)
    for angle in 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS:
        rises = [(terrain.height(x + r * math.cos(angle), y + r * math.sin(angle)) - z) / r for r in DISTANCES]
        rise = np.maximum(np.max(rises, axis=0), 0)
        hidden += rise / np.hypot(rise, 1) / DIRECTIONS
        stands_out -= rises[0] / DIRECTIONS
    level = np.linalg.norm(SUN[:2])
    cover = np.full_like(z, -1.0)
    for r in SHADE_REACH:
        above = terrain.height(x + r * SUN[0] / level, y + r * SUN[1] / level) - z - r * SUN[2] / level
        cover = np.maximum(cover, above / (0.03 + 0.15 * r))  # a wide sun: the edge of a shadow softens with its length
    return (1 - hidden + RIDGE * np.clip(stands_out, 0, 0.5))[..., None], np.clip(0.5 - cover, 0, 1)[..., None]


class Relief:
    """Draws a terrain around the camera's target; ``grid`` says how it is divided.

    raylib: the module, with its window open
    terrain: what is drawn
    tiles: (2, 3) linear colours of the chequer; background: (3) of what it fades into
    shader: of plain_shader()
    """

    def __init__(
        self,
        raylib: types.ModuleType,
        terrain: Terrain,
        tiles: np.ndarray,
        background: np.ndarray,
        shader: object | None,
    ) -> None:
        self._rl = raylib
        self._terrain = terrain
        self._tiles = np.asarray(tiles)
        self._shader = shader
        self._background = encode(background).astype(np.float32)
        self.grid = divide(terrain.cell)
        self._drawn: dict[tuple[int, int, int], _Drawn] = {}
        self._meshes: list[Quads] = []

    def close(self) -> None:
        """Give back what the graphics library keeps of it."""
        for quads in self._meshes:
            quads.mesh.close()

    def draw(self, target: np.ndarray, view: View, fade: tuple[float, float]) -> None:
        """Draw what is seen of the ground around a camera's target, (3) [m, world].

        fade: distances from the target where the ground starts to fade and has faded [m]
        """
        keys = around(self.grid, target[:2], fade[1])
        fineness = {(i, j): quads for i, j, quads in keys}
        patches = [self._patch(key) for key in keys]
        radii = np.array([patch.radius for patch in patches])
        meshes = self._next_mesh()
        mesh = next(meshes)
        centres = np.array([patch.centre for patch in patches])
        seen = np.flatnonzero(view.sees(centres, radii))
        for index in seen[np.argsort(np.linalg.norm(centres[seen] - view.eye, axis=1))]:  # the nearest hide others
            i, j, quads = keys[index]
            beside = [fineness.get((i + a, j + b), quads) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))]
            patch = patches[index]
            count = patch.ground if beside == [quads] * 4 else patch.quads  # a skirt hides gaps, if there are
            if mesh.count + count > mesh.most:
                mesh = next(meshes)
            start = 4 * mesh.count
            corners = mesh.mesh.vertices[start : start + 4 * count]
            corners[:] = patch.corners[: 4 * count]
            _fade(corners, patch.colours, self._background, *target[:2], *fade, mesh.mesh.colours[start:])
            mesh.count += count
        for mesh in self._meshes:
            mesh.update(colours=True)
            mesh.draw()

    def _next_mesh(self) -> Iterator[Quads]:
        """Yield empty meshes, made when they are first needed; those that are not keep nothing either."""
        for mesh in self._meshes:
            mesh.count = 0
        yield from self._meshes
        while True:
            self._meshes.append(Quads(self._rl, self._shader))
            yield self._meshes[-1]

    def _patch(self, key: tuple[int, int, int]) -> "_Drawn":
        """Return a patch, made when it is first seen."""
        if key not in self._drawn:
            self._drawn[key] = _Drawn(make_patch(self._terrain, self.grid, *key, self._tiles))
        return self._drawn[key]


def around(grid: Grid, target: np.ndarray, reach: float) -> list[tuple[int, int, int]]:
    """Return the patches within reach [m] of a target (2) [m, world]: i, j and quads along a tile."""
    low, high = (np.floor((target + step) / grid.chunk).astype(int) for step in (-reach, reach))
    i, j = (a.ravel() for a in np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1)))
    # from the target to a patch's nearest point
    away = np.maximum(np.abs((np.stack([i, j], 1) + 0.5) * grid.chunk - target) - grid.chunk / 2, 0)
    distance = np.hypot(away[:, 0], away[:, 1])
    return [
        (a, b, grid.fineness(d)) for a, b, d in zip(i.tolist(), j.tolist(), distance.tolist(), strict=True) if d < reach
    ]


class _Drawn:
    """A patch ready to be drawn: corners (4 Q, 3) float32 and colours (4 Q, 3) uint8.

    quads: how many they are; ground: how many without the skirt
    """

    def __init__(self, patch: Patch) -> None:
        self.quads = len(patch.corners)
        self.ground = (math.isqrt(self.quads + 4) - 2) ** 2  # n^2, of n^2 + 4 n
        self.corners = patch.corners.reshape(-1, 3)
        self.colours = encode(patch.colours).reshape(-1, 3)
        low = self.corners.min(0).astype(float)
        high = self.corners.max(0).astype(float)
        self.centre = (low + high) / 2
        self.radius = float(np.linalg.norm(high - low) / 2)


@kernel
def _fade(
    points: np.ndarray,
    colours: np.ndarray,
    background: np.ndarray,
    x: float,
    y: float,
    start: float,
    end: float,
    out: np.ndarray,
) -> None:
    """Write colours (V, 4) uint8 as they are at points (V, 3) [m, world], the further from x, y the more background.

    colours: (V, 3) and background: (3) encoded; start, end: distances where they start to fade and have faded [m]
    """
    for v in range(len(points)):
        share = min(max((np.hypot(points[v, 0] - x, points[v, 1] - y) - start) / (end - start), 0.0), 1.0)
        share *= 2.0 - share
        for k in range(3):
            out[v, k] = int(colours[v, k] + (background[k] - colours[v, k]) * share + 0.5)
