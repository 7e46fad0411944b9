"""Copies of meshes in browsers: what they look like is sent once, then where they are, as far as that changed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from physics.jit import kernel
from renderer.figure import Figure, Pose
from renderer.glb import glb
from renderer.shapes import Shape

PROPERTIES = "batched_positions", "batched_wxyzs", "batched_scales", ""  # viser's, of Places
FINEST_SCALE = 1e-4  # what is less is rounding, and nothing to send


class Places(NamedTuple):
    """Where things are, as viser takes it, float32.

    position: (M, 3) [m]; wxyz: (M, 4); scale: (M, 3); glow: (M, 3) what is added to their colour, linear
    """

    position: np.ndarray
    wxyz: np.ndarray
    scale: np.ndarray
    glow: np.ndarray

    @classmethod
    def packed(
        cls, shape: np.ndarray, rotation: np.ndarray, origin: np.ndarray, glow: np.ndarray | None = None
    ) -> "Places":
        """Return the places of N times G groups, those of the first group first; arguments: as of a Pose."""
        count, groups, _ = origin.shape
        places = cls(*(np.empty((groups * count, size), np.float32) for size in (3, 4, 3, 3)))
        _pack(shape, rotation, origin, np.zeros_like(origin) if glow is None else glow, *places)
        return places

    def of(self, which: np.ndarray | slice) -> "Places":
        """Return some of them."""
        return Places(*(array[which] for array in self))


class Instances:
    """Copies of one mesh, through viser; their number may change.

    scene: viser's; name: of the node; shape: of one; colours: (V, 3) linear
    gloss: from 0 matt to 1 polished; opacity: of all; casts: whether they cast shadows

    Where all of it has one colour, copies can glow each in their own.
    """

    def __init__(
        self,
        scene: Any,
        name: str,
        shape: Shape,
        colours: np.ndarray,
        gloss: float = 0.0,
        opacity: float = 1.0,
        casts: bool = True,
    ) -> None:
        first = np.asarray(colours[0], float)
        self.colour = first if opacity == 1.0 and np.ptp(colours, axis=0).max() < 1e-6 else None
        at = {"batched_positions": np.zeros((1, 3)), "batched_wxyzs": np.tile([1.0, 0, 0, 0], (1, 1))}
        at |= {"batched_scales": np.zeros((1, 3)), "lod": "off", "cast_shadow": casts and opacity == 1.0}
        at["receive_shadow"] = False  # of their own: in a window they have none either
        if self.colour is None:
            data = glb(shape.vertices, shape.triangles, colours, shape.normals, gloss, opacity)
            self._node = scene.add_batched_glb(name, data, **at)
        else:
            self._node = scene.add_batched_meshes_simple(
                name, shape.vertices, shape.triangles, batched_colors=_shown(first[None]), **at
            )

    def move(self, places: Places, changed: Sequence[bool] = (True,) * 4) -> None:
        """Put copies at places of their own; changed: which of its arrays others are than at the last call."""
        for name, array, news in zip(PROPERTIES, places, changed, strict=True):
            if news and name:
                setattr(self._node, name, array)
        if changed[-1] and self.colour is not None:
            self._node.batched_colors = _shown(self.colour + places.glow)

    @property
    def visible(self) -> bool:
        """Whether they are shown."""
        return self._node.visible

    @visible.setter
    def visible(self, visible: bool) -> None:
        self._node.visible = visible


class Copies:
    """N copies of a figure; groups of it that look alike are sent as one.

    scene: viser's; name: of the node; figure: what they look like; opacity: of all
    """

    def __init__(self, scene: Any, name: str, figure: Figure, opacity: float = 1.0) -> None:
        alike: dict[bytes, list[int]] = {}
        for group, span in enumerate(figure.spans):
            look = np.hstack([array[span] for array in (figure.vertices, figure.normals, figure.colour)])
            alike.setdefault(look.tobytes(), []).append(group)
        self._order = np.concatenate(list(alike.values()))
        self._bounds = np.cumsum([0, *map(len, alike.values())])
        self._before: Places | None = None
        self._instances = []
        owner = np.searchsorted([span.stop for span in figure.spans], figure.triangles[:, 0], "right")
        for number, groups in enumerate(alike.values()):
            span = figure.spans[groups[0]]
            triangles = figure.triangles[owner == groups[0]].astype(int) - span.start
            shape = Shape(figure.vertices[span], figure.normals[span], triangles)
            gloss = float(figure.gloss[span].mean())
            self._instances.append(Instances(scene, f"{name}/{number}", shape, figure.colour[span], gloss, opacity))

    def move(self, pose: Pose, origin: np.ndarray) -> None:
        """Put them where a pose has them, as seen from an origin (3) [m, world]; only what has changed is sent."""
        copies = len(pose.origin)
        shape, turn, place, glow = (
            array[:, self._order] for array in (pose.shape, pose.rotation, pose.origin, pose.glow)
        )
        places = Places.packed(shape, turn, place - origin, glow)
        bounds = copies * self._bounds
        before = self._before
        if before is None or len(before.position) != len(places.position):
            changed = np.ones((4, len(self._instances)), bool)
        else:  # viser looks, too, but that takes a hundred times as long
            changed = np.stack([_differ(*pair, bounds) for pair in zip(places, before, strict=True)])
        self._before = places
        for number in np.flatnonzero(changed.any(0)):
            some = slice(bounds[number], bounds[number + 1])
            self._instances[number].move(places.of(some), changed[:, number].tolist())

    def show(self, visible: bool) -> None:
        """Show or hide all of them."""
        for instances in self._instances:
            instances.visible = visible


def _shown(colours: np.ndarray) -> np.ndarray:
    """Return linear colours (N, 3) as bytes, which viser takes for linear here."""
    return np.rint(255.0 * np.clip(colours, 0.0, 1.0)).astype(np.uint8)


@kernel
def _differ(now: np.ndarray, before: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return of every span of rows (K) whether two arrays (M, C) differ in it; bounds: (K + 1)."""
    found = np.zeros(len(bounds) - 1, np.bool_)
    for k in range(len(found)):
        for row in range(bounds[k], bounds[k + 1]):
            for column in range(now.shape[1]):
                if now[row, column] != before[row, column]:
                    found[k] = True
    return found


@kernel
def _pack(
    shape: np.ndarray,
    rotation: np.ndarray,
    origin: np.ndarray,
    added: np.ndarray,
    position: np.ndarray,
    wxyz: np.ndarray,
    scale: np.ndarray,
    glow: np.ndarray,
) -> None:
    """Write the arrays of Places.packed(): 30 ns a group, in place of 0.7 us in NumPy."""
    count = len(origin)
    for n in range(count):
        for group in range(origin.shape[1]):
            at = group * count + n
            R = rotation[n, group]
            for k in range(3):
                position[at, k] = origin[n, group, k]
                glow[at, k] = added[n, group, k]
                column = shape[n, group, :, k]
                length = np.sqrt(column[0] ** 2 + column[1] ** 2 + column[2] ** 2)
                scale[at, k] = np.rint(length / FINEST_SCALE) * FINEST_SCALE
            # from the largest of the four numbers (Shepperd, 1978)
            trace = R[0, 0] + R[1, 1] + R[2, 2]
            largest = max(trace, R[0, 0], R[1, 1], R[2, 2])
            half = 0.5 * np.sqrt(max(1.0 + 2.0 * largest - trace, 1e-12))
            if largest == trace:
                wxyz[at, 0] = half
                for i in range(3):
                    j = (i + 1) % 3
                    k = (i + 2) % 3
                    wxyz[at, 1 + i] = (R[k, j] - R[j, k]) / (4.0 * half)
            else:
                i = 0 if largest == R[0, 0] else 1 if largest == R[1, 1] else 2
                j = (i + 1) % 3
                k = (i + 2) % 3
                wxyz[at, 0] = (R[k, j] - R[j, k]) / (4.0 * half)
                wxyz[at, 1 + i] = half
                wxyz[at, 1 + j] = (R[i, j] + R[j, i]) / (4.0 * half)
                wxyz[at, 1 + k] = (R[i, k] + R[k, i]) / (4.0 * half)
