"""Triangles in raylib's memory, written from numpy."""

import types

import numpy as np

from renderer.display import is_software

MOST_VERTICES = 65535  # of a mesh, whose indices have 16 bits

# raylib's own shader looks up a texture at every pixel, a white one where there is none: Mesa draws 2560 x 1440 pixels
# in 37 ms with this one, in 41 with that, and in 30 with this one and without blending
VERTEX_SHADER = """#version 330
in vec3 vertexPosition;
in vec4 vertexColor;
uniform mat4 mvp;
out vec4 colour;
void main() {
    colour = vertexColor;
    gl_Position = mvp * vec4(vertexPosition, 1.0);
}
"""
FRAGMENT_SHADER = """#version 330
in vec4 colour;
out vec4 pixel;
void main() {
    pixel = colour;
}
"""


def plain_shader(raylib: types.ModuleType) -> object | None:
    """Return a shader that shows the colours of vertices; None in the software build, which has none."""
    return None if is_software(raylib) else raylib.load_shader_from_memory(VERTEX_SHADER, FRAGMENT_SHADER)


class Mesh:
    """Triangles whose corners may change from frame to frame.

    raylib: the module, with its window open
    count: of the vertices, at most MOST_VERTICES
    triangles: (T, 3) indices of vertices
    shader: what paints them, of plain_shader(); None for raylib's own, which can show a texture

    vertices: (V, 3) float32, colours: (V, 4) uint8 and coordinates: (V, 2) float32 on a texture
    belong to this object: raylib reads them in place (the software build at every draw) and must
    not free them. ``update`` passes changes on.
    """

    def __init__(
        self, raylib: types.ModuleType, count: int, triangles: np.ndarray, shader: object | None = None
    ) -> None:
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
        if shader:
            self._material.shader = shader
        self._identity = raylib.matrix_identity()

    def close(self) -> None:
        """Give back what the graphics library keeps of it."""
        none = self._rl.ffi.NULL
        self._mesh.vertices = self._mesh.colors = self._mesh.texcoords = self._mesh.indices = none
        self._rl.unload_mesh(self._mesh)

    def cover(self, texture: object) -> None:
        """Show a texture, a raylib Texture, where its coordinates are; colours tint it."""
        self._material.maps[self._rl.MATERIAL_MAP_DIFFUSE].texture = texture

    def update(
        self, vertices: bool = True, colours: bool = True, coordinates: bool = False, count: int | None = None
    ) -> None:
        """Pass on what has changed, of the arrays named; count: of vertices, from the first on, None for all."""
        if self._software:
            return
        # slots of raylib's default shader
        for slot, data, changed in (
            (0, self.vertices, vertices),
            (1, self.coordinates, coordinates),
            (3, self.colours, colours),
        ):
            if changed:
                pointer = self._rl.ffi.cast("void *", data.ctypes.data)
                self._rl.update_mesh_buffer(self._mesh, slot, pointer, data[:count].nbytes, 0)

    def draw(self, triangles: int | None = None) -> None:
        """Draw the triangles, or the first so many."""
        self._mesh.triangleCount = len(self._triangles) if triangles is None else triangles
        if self._mesh.triangleCount:
            self._rl.draw_mesh(self._mesh, self._material, self._identity)


class Quads:
    """Quads, each of four corners of its own; of ``mesh``'s, the first ``count`` are drawn."""

    def __init__(self, raylib: types.ModuleType, shader: object | None = None) -> None:
        self.most = MOST_VERTICES // 4
        self.count = 0
        first = 4 * np.arange(self.most)[:, None]
        self.mesh = Mesh(raylib, 4 * self.most, (first + [0, 1, 2, 0, 2, 3]).reshape(-1, 3), shader)

    def update(self, colours: bool = False, coordinates: bool = False) -> None:
        """Pass on the corners of those that are drawn, and what else is named."""
        if self.count:
            self.mesh.update(colours=colours, coordinates=coordinates, count=4 * self.count)

    def draw(self) -> None:
        """Draw them."""
        self.mesh.draw(2 * self.count)
