"""The ground of a terrain as patches of a mesh: fine near the robot, coarser with distance, lit once.

A patch is CHUNK by CHUNK tiles of the chequer. Where it is, it can be had at several finenesses, of
1, 2, 4, ... quads along a tile; each is made when it is first seen, and kept. A skirt hangs from its
edge, so that no gap opens to a neighbour of another fineness.
"""

import dataclasses
import itertools
import math
import types

import numpy as np

from physics.terrain import Terrain
from renderer.figure import paint
from renderer.light import SUN, encode, relief_light
from renderer.mesh import Mesh

TILE = 0.5  # side of a tile, roughly: it is made of whole cells [m]
CHUNK = 4  # tiles along a patch
# sides of the quads nearest the robot: cells smaller or larger than these are joined or split [m]
FINEST = 0.03
COARSEST = 0.25
DETAIL = 0.02  # side of a quad over its distance from the camera's target
CREASE = math.cos(math.radians(28.0))  # quads that meet at a sharper angle show an edge
CLIFF = paint("#8FA0B6", 0).colour  # of upright ground
RIDGE = 0.3  # how much an edge that stands out is brightened
CONTRAST = 1.6  # exponent of the light
SKIRT = 0.05  # of a patch, beyond its own range of heights [m]
# in which the sky is looked for, and how far [m]
DIRECTIONS = 8
DISTANCES = (0.08, 0.2, 0.5)
SHADE_REACH = np.arange(0.06, 1.3, 0.1)  # where ground is looked for that hides the sun, along the ground [m]
MOVED = 0.03  # of the camera's target, from where on a patch fades anew [m]


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

    @property
    def triangles(self) -> np.ndarray:
        """Indices (2 Q, 3) of corners."""
        first = 4 * np.arange(len(self.corners))[:, None]
        return np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])


def make_patch(terrain: Terrain, grid: Grid, i: int, j: int, quads: int, tiles: np.ndarray) -> Patch:
    """Return the patch whose corner is at i, j times the side of a patch.

    quads: along a tile; tiles: (2, 3) linear colours of the chequer
    """
    n = CHUNK * quads
    side = grid.tile / quads
    # With a ring of nodes around, for the quads beyond the edge bend the normals at it.
    x, y = (start * grid.chunk + side * np.arange(-1, n + 2) for start in (i, j))
    x, y = np.meshgrid(x, y)
    nodes = np.stack([x, y, terrain.height(x, y)], -1)
    normals = _creased_normals(nodes)
    inner = nodes[1:-1, 1:-1]
    sky, sun = _openness(terrain, inner)
    corner = ((0, 0), (1, 0), (1, 1), (0, 1))  # x, y: counter-clockwise from above
    corners, open_sky, in_sun = (np.stack([a[b : b + n, c : c + n] for c, b in corner], 2) for a in (inner, sky, sun))
    tile = np.arange(n) // quads
    colour = tiles[(tile + tile[:, None]) % 2][:, :, None]  # a patch has an even number of tiles
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
    fade: distances from the camera's target where the ground starts to fade and has faded [m]
    """

    def __init__(
        self,
        raylib: types.ModuleType,
        terrain: Terrain,
        tiles: np.ndarray,
        background: np.ndarray,
        fade: tuple[float, float],
    ) -> None:
        self._rl = raylib
        self._terrain = terrain
        self._tiles = np.asarray(tiles)
        self._fade = fade
        self._background = encode(background).astype(np.float32)
        self.grid = divide(terrain.cell)
        self._drawn: dict[tuple[int, int, int], _Drawn] = {}

    def draw(self, target: np.ndarray, eye: np.ndarray, spread: float) -> None:
        """Draw what a camera sees around its target.

        target, eye: (3) what it looks at and where it is [m, world]; spread: from the middle of the
        picture to a corner, per distance
        """
        forward = (target - eye) / np.linalg.norm(target - eye)
        for key in around(self.grid, target[:2], self._fade[1]):
            if key not in self._drawn:
                self._drawn[key] = _Drawn(self._rl, make_patch(self._terrain, self.grid, *key, self._tiles))
            patch = self._drawn[key]
            if in_view(patch.centre - eye, patch.radius, forward, spread):
                patch.fade(target[:2], self._background, self._fade)
                patch.mesh.draw()


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


def in_view(away: np.ndarray, radius: float, forward: np.ndarray, spread: float) -> bool:
    """Return whether any of a ball may lie in the cone of a view.

    away: (3) from the eye to its middle [m]; radius: [m]; forward: (3) unit, the axis of the cone;
    spread: of the cone, per distance along the axis
    """
    depth = float(away @ forward)
    across = math.sqrt(max(float(away @ away) - depth * depth, 0.0))
    return across - spread * depth <= radius * math.hypot(1, spread)


class _Drawn:
    """A patch in raylib's memory; its colours fade with the distance from the camera's target."""

    def __init__(self, raylib: types.ModuleType, patch: Patch) -> None:
        self.mesh = Mesh(raylib, patch.corners.size // 3, patch.triangles)
        self.mesh.vertices[:] = patch.corners.reshape(-1, 3)
        self.mesh.update(colours=False)
        self._colours = encode(patch.colours).astype(np.float32)
        self._middles = patch.corners[:, :, :2].mean(1)
        low = patch.corners.min((0, 1)).astype(float)
        high = patch.corners.max((0, 1)).astype(float)
        self.centre = (low + high) / 2
        self.radius = float(np.linalg.norm(high - low) / 2)
        self._faded_for = np.full(2, np.inf)  # the target that the colours are right for

    def fade(self, target: np.ndarray, background: np.ndarray, fade: tuple[float, float]) -> None:
        """Colour it for a target (2) [m, world]."""
        if np.linalg.norm(self._faded_for - target) <= MOVED:
            return
        self._faded_for = target.copy()
        share = np.clip(
            (np.linalg.norm(self._middles - target.astype(np.float32), axis=1) - fade[0]) / (fade[1] - fade[0]), 0, 1
        )
        share = (share * (2 - share))[:, None, None]
        self.mesh.colours[:, :3] = (self._colours + (background - self._colours) * share + 0.5).reshape(-1, 3)
        self.mesh.update(vertices=False)
