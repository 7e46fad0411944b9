"""Copies of meshes in browsers: what they look like is sent once, then where they are, as far as that changed."""

import numpy as np

from renderer.figure import Figure, Pose
from renderer.glb import glb
from renderer.kinematics import quaternion
from renderer.shapes import Shape

SCALE_DIGITS = 4  # what is less is rounding, and nothing to send


class Instances:
    """Copies of one mesh, through viser; their number may change.

    scene: viser's; name: of the node; shape: of one; colours: (V, 3) linear
    gloss: from 0 matt to 1 polished; opacity: of all; casts: whether they cast shadows

    Where all of it has one colour, copies can have one each.
    """

    def __init__(
        self,
        scene: object,
        name: str,
        shape: Shape,
        colours: np.ndarray,
        gloss: float = 0.0,
        opacity: float = 1.0,
        casts: bool = True,
    ) -> None:
        first = np.asarray(colours[0], float)
        self._colour = first if opacity == 1.0 and np.ptp(colours, axis=0).max() < 1e-6 else None
        at = {"batched_positions": np.zeros((1, 3)), "batched_wxyzs": np.tile([1.0, 0, 0, 0], (1, 1))}
        at |= {"batched_scales": np.zeros((1, 3)), "lod": "off", "cast_shadow": casts and opacity == 1.0}
        if self._colour is None:
            data = glb(shape.vertices, shape.triangles, colours, shape.normals, gloss, opacity)
            self._node = scene.add_batched_glb(name, data, **at)
        else:
            self._node = scene.add_batched_meshes_simple(
                name, shape.vertices, shape.triangles, batched_colors=_shown(first[None]), **at
            )

    def move(self, origin: np.ndarray, turn: np.ndarray, scale: np.ndarray, glow: np.ndarray | float = 0.0) -> None:
        """Put N copies at origins (N, 3) [m], turned (N, 3, 3) and scaled (N, 3) along their own axes.

        glow: (N, 3) what is added to their colour, linear
        """
        node = self._node
        node.batched_positions = origin.astype(np.float32)
        node.batched_wxyzs = quaternion(turn).astype(np.float32)
        node.batched_scales = np.round(scale, SCALE_DIGITS).astype(np.float32)
        if self._colour is not None:
            node.batched_colors = _shown(np.broadcast_to(self._colour + glow, origin.shape))

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

    def __init__(self, scene: object, name: str, figure: Figure, opacity: float = 1.0) -> None:
        alike: dict[bytes, list[int]] = {}
        for group, span in enumerate(figure.spans):
            look = np.hstack([array[span] for array in (figure.vertices, figure.normals, figure.colour)])
            alike.setdefault(look.tobytes(), []).append(group)
        self._groups = [np.array(groups) for groups in alike.values()]
        self._instances = []
        owner = np.searchsorted([span.stop for span in figure.spans], figure.triangles[:, 0], "right")
        for number, groups in enumerate(self._groups):
            span = figure.spans[groups[0]]
            triangles = figure.triangles[owner == groups[0]].astype(int) - span.start
            shape = Shape(figure.vertices[span], figure.normals[span], triangles)
            gloss = float(figure.gloss[span].mean())
            self._instances.append(Instances(scene, f"{name}/{number}", shape, figure.colour[span], gloss, opacity))

    def move(self, pose: Pose) -> None:
        """Put them where a pose has them."""
        scale = np.linalg.norm(pose.shape, axis=-2)
        for groups, instances in zip(self._groups, self._instances, strict=True):
            parts = (array[:, groups] for array in (pose.origin, pose.rotation, scale, pose.glow))
            instances.move(*(part.reshape(-1, *part.shape[2:]) for part in parts))

    def show(self, visible: bool) -> None:
        """Show or hide all of them."""
        for instances in self._instances:
            instances.visible = visible


def _shown(colours: np.ndarray) -> np.ndarray:
    """Return linear colours (N, 3) as bytes, which viser takes for linear here."""
    return np.rint(255.0 * np.clip(colours, 0.0, 1.0)).astype(np.uint8)
