"""Triangle meshes of simple solids, smooth-shaded: vertices, outward normals, triangles."""

import dataclasses

import numpy as np

SEGMENTS = 20  # around a surface of revolution: the outline looks round at the sizes of a robot's parts


@dataclasses.dataclass(frozen=True)
class Shape:
    """A closed surface: vertices (V, 3) [m], unit normals (V, 3), triangles (T, 3), counter-clockwise from outside."""

    vertices: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray

    def __add__(self, other: "Shape") -> "Shape":
        return Shape(
            np.concatenate([self.vertices, other.vertices]),
            np.concatenate([self.normals, other.normals]),
            np.concatenate([self.triangles, other.triangles + len(self.vertices)]),
        )

    def scaled(self, x: float, y: float, z: float) -> "Shape":
        """Return the shape stretched along the axes; normals stretch by the inverse."""
        n = self.normals / [x, y, z]
        return Shape(self.vertices * [x, y, z], n / np.linalg.norm(n, axis=1, keepdims=True), self.triangles)

    def without(self, triangles: np.ndarray) -> "Shape":
        """Return the shape without triangles (T), and without the vertices that no other one has."""
        used, left = np.unique(self.triangles[~triangles], return_inverse=True)
        return Shape(self.vertices[used], self.normals[used], left.reshape(-1, 3))

    def moved(self, by: np.ndarray) -> "Shape":
        """Return the shape moved by (3) [m]."""
        return Shape(self.vertices + np.asarray(by), self.normals, self.triangles)


def outside(shapes: list[Shape]) -> list[Shape]:
    """Return convex shapes without the triangles that are wholly inside another of them, which nobody can see."""
    return [shape.without(_inside(shape, shapes[:i] + shapes[i + 1 :])) for i, shape in enumerate(shapes)]


def _inside(shape: Shape, others: list[Shape]) -> np.ndarray:
    """Return which triangles of a shape (T) are inside a convex one of others."""
    hidden = np.zeros(len(shape.triangles), bool)
    for other in others:
        corner = other.vertices[other.triangles]
        faces = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        beneath = (shape.vertices @ faces.T < (faces * corner[:, 0]).sum(1)).all(1)
        hidden |= beneath[shape.triangles].all(1)
    return hidden


def _sheet(vertices: np.ndarray, normals: np.ndarray) -> Shape:
    """Join a grid of points (A, B, 3) into triangles, wound so that they face along the normals."""
    a, b, _ = vertices.shape
    index = np.arange(a * b).reshape(a, b)
    p = index[:-1, :-1].ravel()
    q = index[1:, :-1].ravel()
    r = index[1:, 1:].ravel()
    s = index[:-1, 1:].ravel()
    triangles = np.concatenate([np.stack([p, q, r], 1), np.stack([p, r, s], 1)])
    v = vertices.reshape(-1, 3)
    n = normals.reshape(-1, 3)
    corner = v[triangles]
    area = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    inward = np.einsum("ij,ij->i", area, n[triangles].sum(1)) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return Shape(v, n, triangles[np.linalg.norm(area, axis=1) > 1e-12])


def revolve(start: np.ndarray, end: np.ndarray, profile: np.ndarray, segments: int = SEGMENTS) -> Shape:
    """Turn a profile about the line from start to end.

    start, end: (3) [m]
    profile: (N, 4) distance along the line from start, radius [m], normal along, normal outward
    segments: around the line
    """
    start, axis = np.asarray(start, float), np.asarray(end, float) - start
    axis /= np.linalg.norm(axis)
    u = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])
    u /= np.linalg.norm(u)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    spoke = np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * np.cross(axis, u)
    along, radius, n_along, n_out = np.asarray(profile, float).T[:, :, None, None]
    return _sheet(start + along * axis + radius * spoke, n_along * axis + n_out * spoke)


def _arc(centre: float, inner: float, radius: float, first: float, last: float, segments: int) -> np.ndarray:
    """Return profile rows of an arc about (centre, inner), from angle first to last; 0 points outward.

    segments: around the surface that is turned; the arc gets its share of them, and a little more
    """
    angle = np.linspace(first, last, 2 + round(segments * (last - first) / (2 * np.pi) * 0.9))
    return np.stack([centre + radius * np.sin(angle), inner + radius * np.cos(angle), np.sin(angle), np.cos(angle)], 1)


def capsule(
    start: np.ndarray, end: np.ndarray, radius_start: float, radius_end: float, segments: int = SEGMENTS
) -> Shape:
    """Return a limb with round ends: a sphere at start, one at end, and the cone that touches both."""
    length = np.linalg.norm(np.asarray(end, float) - start)
    lean = np.arcsin(np.clip((radius_start - radius_end) / length, -0.99, 0.99))
    return revolve(start, end, np.concatenate([
        _arc(0.0, 0.0, radius_start, -np.pi / 2, lean, segments),
        _arc(length, 0.0, radius_end, lean, np.pi / 2, segments),
    ]), segments)  # fmt: skip


def drum(start: np.ndarray, end: np.ndarray, radius: float, bevel: float = 0.25, segments: int = SEGMENTS) -> Shape:
    """Return a cylinder with flat ends and rounded rims; bevel: of the rim, in radii."""
    length = np.linalg.norm(np.asarray(end, float) - start)
    b = min(bevel * radius, length / 2)
    return revolve(start, end, np.concatenate([
        [[0.0, 0.0, -1.0, 0.0]], _arc(b, radius - b, b, -np.pi / 2, 0.0, segments // 2),
        _arc(length - b, radius - b, b, 0.0, np.pi / 2, segments // 2), [[length, 0.0, 1.0, 0.0]],
    ]), segments)  # fmt: skip


def ball(centre: np.ndarray, radius: float, segments: int = SEGMENTS) -> Shape:
    """Return a sphere."""
    return revolve(centre, np.add(centre, [0, 0, 1]), _arc(0.0, 0.0, radius, -np.pi / 2, np.pi / 2, segments), segments)


def arrow(segments: int = SEGMENTS) -> Shape:
    """Return an arrow from the origin to (0, 0, 1), its shaft of radius 0.5, its head of 1.3; scale it to size."""
    return revolve([0, 0, 0], [0, 0, 1], [
        [0.0, 0.0, -1, 0], [0.0, 0.5, -1, 0], [0.0, 0.5, 0, 1], [0.72, 0.5, 0, 1],
        [0.72, 0.5, -1, 0], [0.72, 1.3, -1, 0], [0.72, 1.3, 0.2, 0.98], [1.0, 0.0, 0.2, 0.98],
    ], segments)  # fmt: skip


def ring(radius: float, thickness: float, segments: int = SEGMENTS) -> Shape:
    """Return a torus about the z axis; thickness: radius of its tube [m]."""
    around, across = (np.linspace(0, 2 * np.pi, round(share * segments) + 1) for share in (2.4, 0.4))
    u, w = np.meshgrid(around, across, indexing="ij")
    normals = np.stack([np.cos(u) * np.cos(w), np.sin(u) * np.cos(w), np.sin(w)], -1)
    return _sheet(np.stack([radius * np.cos(u), radius * np.sin(u), 0 * u], -1) + thickness * normals, normals)


def rounded_box(centre: np.ndarray, half: np.ndarray, radius: float, steps: int = 4) -> Shape:
    """Return a box with rounded edges.

    centre, half: (3) middle and half extents [m]
    radius: of the edges [m]; steps: in half of an edge's bend, 0 for sharp edges
    """
    half = np.asarray(half, float)
    inner = half - min(radius if steps else 0.0, *(half * 0.999))
    corner = np.tan(np.linspace(0, np.pi / 4, steps + 1))[1:]
    # A cube's grid, dense where the edge bends: its points move out from the inner box by the radius.
    grid = np.concatenate([-1 - corner[::-1], [-1], [1], 1 + corner])
    a, b = np.meshgrid(grid, grid, indexing="ij")
    faces = []
    for axis in range(3):
        for side in (-2.0, 2.0):
            cube = np.empty((*a.shape, 3))
            cube[..., axis] = side
            cube[..., (axis + 1) % 3] = a
            cube[..., (axis + 2) % 3] = b
            core = np.clip(cube, -1, 1)
            normals = cube - core
            normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
            faces.append(_sheet(core * inner + normals * (half - inner).min() + centre, normals))
    shape = faces[0]
    for face in faces[1:]:
        shape = shape + face
    return shape
