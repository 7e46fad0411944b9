"""Triangles in raylib's memory, written from numpy."""

import types

import numpy as np

from renderer.display import is_software


class Mesh:
    """Triangles whose corners may change from frame to frame.

    raylib: the module, with its window open
    count: of the vertices, at most 65,535, for indices have 16 bits
    triangles: (T, 3) indices of vertices

    vertices: (V, 3) float32, colours: (V, 4) uint8 and coordinates: (V, 2) float32 on a texture
    belong to this object: raylib reads them in place (the software build at every draw), so they
    outlive its mesh, which is never unloaded. ``update`` passes changes on.
    """

    def __init__(self, raylib: types.ModuleType, count: int, triangles: np.ndarray) -> None:
        self._rl = raylib
        self._software = is_software(raylib)
        self.vertices = np.zeros((count, 3), np.float32)
        self.colours = np.full((count, 4), 255, np.uint8)
        self.coordinates = np.zeros((count, 2), np.float32)
        self._triangles = np.ascontiguousarray(triangles, np.uint16)
        mesh = self._mesh = raylib.Mesh()
        mesh.vertexCount = count
        mesh.triangleCount = len(triangles)
        cast = raylib.ffi.cast
        mesh.vertices = cast("float *", self.vertices.ctypes.data)
        mesh.colors = cast("unsigned char *", self.colours.ctypes.data)
        mesh.texcoords = cast("float *", self.coordinates.ctypes.data)
        mesh.indices = cast("unsigned short *", self._triangles.ctypes.data)
        raylib.upload_mesh(raylib.ffi.addressof(mesh), True)
        self._material = raylib.load_material_default()
        self._identity = raylib.matrix_identity()

    def cover(self, texture: object) -> None:
        """Show a texture, a raylib Texture, where its coordinates are; colours tint it."""
        self._material.maps[self._rl.MATERIAL_MAP_DIFFUSE].texture = texture

    def update(self, vertices: bool = True, colours: bool = True, coordinates: bool = False) -> None:
        """Pass on what has changed, of the arrays named."""
        if self._software:
            return
        # slots of raylib's default shader
        for slot, data, changed in (
            (0, self.vertices, vertices),
            (1, self.coordinates, coordinates),
            (3, self.colours, colours),
        ):
            if changed:
                self._rl.update_mesh_buffer(
                    self._mesh, slot, self._rl.ffi.cast("void *", data.ctypes.data), data.nbytes, 0
                )

    def draw(self) -> None:
        """Draw the triangles."""
        self._rl.draw_mesh(self._mesh, self._material, self._identity)
