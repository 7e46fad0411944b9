"""Draws many copies of a figure: placed and lit by one compiled loop, few draw calls, fewer triangles further away."""

import types

import numpy as np

from renderer.figure import BLUE, Figure, Pose
from renderer.light import surfaces
from renderer.mesh import MOST_VERTICES, Mesh

# what a copy must measure in the picture, from its middle to its end, for one level of detail or the next
# [pixel]
LARGE = 90.0, 40.0, 20.0
# of a ghost's colour that is blue, and of 255
GHOST_SHARE = 0.6
GHOST_OPACITY = 120


class Bodies:
    """Copies of a figure.

    raylib: the module, with its window open
    figure: what is drawn
    shader: of plain_shader()
    ghost: whether they are transparent
    """

    def __init__(self, raylib: types.ModuleType, figure: Figure, shader: object | None, ghost: bool = False) -> None:
        self._rl = raylib
        self._shader = shader
        self._ghost = ghost
        self._levels: list[_Level] = []
        self._next: Figure | None = figure

    def _level(self, index: int) -> "_Level":
        """Return a level of detail, or the coarsest there is; made when it is first needed."""
        while self._next is not None and len(self._levels) <= index:
            self._levels.append(_Level(self._rl, self._next, self._shader, self._ghost))
            self._next = self._next.coarser()
        return self._levels[min(index, len(self._levels) - 1)]

    def close(self) -> None:
        """Give back what the graphics library keeps of them."""
        for level in self._levels:
            level.close()

    def draw(self, pose: Pose, ground: np.ndarray, eye: np.ndarray, size: np.ndarray) -> None:
        """Draw all of a pose's copies.

        ground: (N, G) height of the ground under every group [m]; eye: (3) the camera [m, world]; size: (N) of the
        copies in the picture, from their middle to their end [pixel]
        """
        detail = np.searchsorted(-np.array(LARGE), -size)
        for index in np.unique(detail):
            of = np.flatnonzero(detail == index)
            self._level(int(index)).draw(pose.of(of) if len(of) < len(detail) else pose, ground[of], eye)


class _Level:
    """Copies in one level of detail, as many to a mesh as its 16 bits of indices allow."""

    def __init__(self, raylib: types.ModuleType, figure: Figure, shader: object | None, ghost: bool) -> None:
        self._rl = raylib
        self._shader = shader
        self._figure = figure
        self._most = MOST_VERTICES // len(figure.vertices)
        self._spans = np.array([(span.start, span.stop) for span in figure.spans])
        self._opacity = GHOST_OPACITY if ghost else 255
        colour = figure.colour
        self._colour = colour + np.float32(GHOST_SHARE) * (BLUE.colour.astype(np.float32) - colour) if ghost else colour
        self._meshes: list[Mesh] = []

    def _mesh(self, index: int) -> Mesh:
        """Return a mesh with room for as many copies as can be, made when it is first needed."""
        if index == len(self._meshes):
            count = len(self._figure.vertices)
            triangles = self._figure.triangles[None] + count * np.arange(self._most)[:, None, None]
            self._meshes.append(Mesh(self._rl, self._most * count, triangles.reshape(-1, 3), self._shader))
        return self._meshes[index]

    def close(self) -> None:
        for mesh in self._meshes:
            mesh.close()

    def draw(self, pose: Pose, ground: np.ndarray, eye: np.ndarray) -> None:
        figure = self._figure
        count = len(figure.vertices)
        for index, first in enumerate(range(0, len(pose.shape), self._most)):
            some = slice(first, min(first + self._most, len(pose.shape)))
            copies = some.stop - first
            mesh = self._mesh(index)
            surfaces(
                figure.vertices, figure.normals, self._colour, figure.gloss, self._spans, pose.shape[some],
                pose.rotation[some], pose.origin[some], pose.glow[some], ground[some], eye, figure.scale,
                self._opacity, mesh.vertices, mesh.colours,
            )  # fmt: skip
            mesh.update(count=copies * count)
            mesh.draw(copies * len(figure.triangles))
