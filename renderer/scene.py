"""Draws a frame: the ground, the shadows on it, robots or solids and their markers.

A draw call for the ground, one for all shadows, one for all robots of a level of detail, as far as 16 bits of indices
go. Everything that looks like light is computed in ``renderer.light``; raylib only fills triangles, which is what its
software build does too.
"""

import math
import types
from collections.abc import Collection, Sequence

import numpy as np

from physics.jit import kernel
from physics.terrain import Terrain
from renderer.bodies import Bodies
from renderer.camera import FIELD_OF_VIEW, Camera, View
from renderer.controls import IN_SPACE, SHOWN
from renderer.figure import Figure, Pose, paint, place
from renderer.light import SHADOW_COLOUR, SHADOW_STRENGTH, SUN_SLOPE, encode, shadow
from renderer.mesh import Quads, plain_shader
from renderer.overlays import Overlays, Strokes
from renderer.relief import Relief
from renderer.snapshot import Frame

BACKGROUND = paint("#E3E8ED", 0).colour
TILES = np.array([paint("#D3DAE1", 0).colour, paint("#C6CED6", 0).colour])
TILE = 0.5  # [m]
FADE = 3.0, 12.0  # distances from the camera's target where the ground starts to fade and has faded [m]
FURTHEST = 4.0  # times these distances, that a camera further away sees them at
SHADOW_FADED = 5.0  # distance from the camera's target at which the shadow has faded [m]
FAR = 200.0  # clip plane [m]
NEAR_RELIEF = 0.12  # the other one, at least, over a terrain, where one part of the ground hides another [m]
LIFT = 0.004  # of a shadow above the ground [m]
DRAPE = 72  # quads along either side of the cloth that carries a shadow over a terrain, at most
COARSEST = 24  # texels along a side of one of many shadows, that share as many as a single one has
CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])


class Scene:
    """Everything in the picture but the text.

    raylib: the module, with its window open
    figure: what is drawn
    terrain: the ground; None for level ground at height 0

    The lengths that are constants here are those around a robot, and times the figure's scale.
    """

    def __init__(self, raylib: types.ModuleType, figure: Figure, terrain: Terrain | None = None) -> None:
        self._rl = raylib
        self.figure = figure
        self._terrain = terrain
        self._shader = plain_shader(raylib)
        self._bodies, self._ghosts = (Bodies(raylib, figure, self._shader, ghost) for ghost in (False, True))
        self._shadows = Quads(raylib)
        self._texture = None
        self._pixels = np.zeros((0, 0, 4), np.uint8)
        self._floor = Quads(raylib, self._shader)
        self._relief = Relief(raylib, terrain, TILES, BACKGROUND, self._shader) if terrain else None
        self._overlays = Overlays(figure.reach, self.height)
        self._strokes = Quads(raylib, self._shader)
        self.view: View | None = None  # of the latest picture
        self.middles = np.zeros((0, 3))  # (N, 3) where its copies were [m, world]
        raylib.rl_set_clip_planes(figure.scale * max(figure.near, NEAR_RELIEF if terrain else 0.0), figure.scale * FAR)

    def close(self) -> None:
        """Give back what the graphics library keeps of it."""
        self._bodies.close()
        self._ghosts.close()
        for quads in (self._shadows, self._floor, self._strokes):
            quads.mesh.close()
        if self._relief:
            self._relief.close()
        if self._texture is not None:
            self._rl.unload_texture(self._texture)

    def focus(self, frame: Frame) -> np.ndarray:
        """Return what the camera follows, (3) [m, world]."""
        return self.figure.focus(frame, self._ground)

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the height of the ground at x, y [m], of arrays."""
        return self._terrain.height(x, y) if self._terrain else np.zeros(np.shape(x))

    def _ground(self, x: float, y: float) -> float:
        """Return the height of the ground under a robot at x, y, in the mean over its size [m]."""
        if self._terrain is None:
            return 0.0
        around = self.figure.reach * np.array([-0.5, 0.0, 0.5])
        return float(self._terrain.height(x + around, y + around[:, None]).mean())

    def draw(
        self,
        frame: Frame,
        camera: Camera,
        aspect: float,
        height: int,
        shown: Collection[str] = SHOWN,
        marks: Sequence[Strokes] = (),
    ) -> None:
        """Draw over the whole of the current target.

        aspect: its width over its height [pixel]; shown: names of controls.OVERLAYS; marks: what else is seen through
        everything
        """
        rl = self._rl
        figure = self.figure
        view = self.view = camera.view(aspect)
        scale = figure.scale * min(max(camera.distance / (4.0 * figure.reach), 1.0), FURTHEST)
        fade = scale * FADE[0], scale * FADE[1]
        pose = place(figure, frame, self._terrain, "forces" in shown)
        self.middles = pose.origin[:, 0]
        pose = self._seen(pose, view)
        self._cast(pose, camera.target, scale * SHADOW_FADED)
        rl.clear_background((*(int(c) for c in encode(BACKGROUND)), 255))
        towards = tuple(camera.target)
        rl.begin_mode_3d(rl.Camera3D(tuple(view.eye), towards, (0, 0, 1), FIELD_OF_VIEW, rl.CAMERA_PERSPECTIVE))
        rl.rl_disable_color_blend()
        if self._relief is None:
            # Ground and shadow lie in one plane: no depth of the latter, so that they cannot flicker.
            if not figure.ground_hides:
                rl.rl_disable_depth_test()
            self._draw_floor(camera.target, view, fade)
            rl.rl_disable_depth_test()
        else:
            self._relief.draw(camera.target, view, fade)
            rl.rl_disable_depth_mask()  # the cloth hides nothing, not even itself: it is drawn in no particular order
        rl.rl_enable_color_blend()
        self._shadows.draw()
        rl.rl_enable_depth_mask()
        rl.rl_enable_depth_test()
        rl.rl_disable_color_blend()
        self._draw_bodies(self._bodies, pose, view, height)
        rl.rl_enable_color_blend()
        if frame.ghost is not None and "ghosts" in shown:
            ghosts = self._seen(place(figure, frame.ghost, self._terrain), view)
            self._draw_bodies(self._ghosts, ghosts, view, height)
        stance = None if IN_SPACE.isdisjoint(shown) else figure.stance(frame)
        above, hidden = self._overlays.strokes(frame, stance, shown)
        rl.rl_disable_depth_mask()
        self._draw_strokes(hidden, view)
        rl.rl_disable_depth_test()
        self._draw_strokes(Strokes.joined([above, *marks]), view)
        rl.rl_enable_depth_test()
        rl.rl_enable_depth_mask()
        rl.end_mode_3d()

    def _draw_strokes(self, strokes: Strokes, view: View) -> None:
        count = self._strokes.count = min(len(strokes.start), self._strokes.most)
        if count == 0:
            return
        mesh = self._strokes.mesh
        mesh.vertices[: 4 * count] = strokes.quads(view.eye)[:count].reshape(-1, 3)
        mesh.colours[: 4 * count] = np.repeat(strokes.colour[:count], 4, 0)
        self._strokes.update(colours=True)
        self._strokes.draw()

    def _seen(self, pose: Pose, view: View) -> Pose:
        """Return the pose of those copies that may be in the picture."""
        middles = pose.origin[:, 0]
        apart = np.linalg.norm(pose.origin - middles[:, None], axis=2)
        extent = np.where(pose.shape.any((2, 3)), apart, 0.0).max(1) + self.figure.reach
        seen = view.sees(middles, extent)
        return pose if seen.all() else pose.of(seen)

    def _draw_bodies(self, bodies: Bodies, pose: Pose, view: View, height: int) -> None:
        x, y, _ = np.moveaxis(pose.origin, 2, 0)
        bodies.draw(pose, self.height(x, y), view.eye, view.size(pose.origin[:, 0], self.figure.reach, height))

    def _draw_floor(self, target: np.ndarray, view: View, fade: tuple[float, float]) -> None:
        """Draw the tiles about the target that are in view; they move by whole pairs of tiles: the pattern rests."""
        side = TILE * self.figure.scale
        # fewer, larger tiles where the ground is seen from far away
        side *= 2 ** max(0, math.ceil(math.log2(fade[1] / side / 60)))
        mesh = self._floor.mesh
        self._floor.count = _lay_tiles(
            side, *target[:2], *fade, view.eye, view.axes, view.half, TILES, BACKGROUND, mesh.vertices, mesh.colours
        )
        self._floor.update(colours=True)
        self._floor.draw()

    def _cast(self, pose: Pose, target: np.ndarray, reach: float) -> None:
        """Bring the shadows of those copies that are near enough onto their texture and quads.

        target: (3) of the camera; reach: where shadows have faded [m]
        """
        near = np.hypot(*(pose.origin[:, 0, :2] - target[:2]).T) < reach + 2 * self.figure.reach
        pose = pose if near.all() else pose.of(near)
        count = len(pose.shape)
        if count == 0:
            self._shadows.count = 0
            return
        points = np.stack(pose.limbs[:2], 2)  # (N, L, 2, 3)
        middles = np.array([centre for centre, _ in pose.blocks]).reshape(-1, count, 3)
        if self._terrain is None:
            level = np.zeros(count)
            below = np.zeros(points.shape[:3])
        else:
            # Each shadow is that on the level plane at the middle of the ground beneath; a point of the ground at
            # another height has that of the point of the plane in line with it and the sun.
            below = self._terrain.height(points[..., 0], points[..., 1])
            others = self._terrain.height(middles[..., 0], middles[..., 1])
            level = np.concatenate([below.reshape(count, -1), others.T], 1).mean(1)
        side = self._relief.grid.tile / self._relief.grid.quads if self._relief else 0.0
        heights = points[..., 2] - level[:, None, None]
        clear = np.maximum(points[..., 2] - below, 0.0)
        down = np.stack([0 * level, 0 * level, level], -1)
        low, high, opacity = shadow(
            *pose.limbs, clear if self._terrain is None else heights, clear, side,
            [(centre - down, axes) for centre, axes in pose.blocks], (target[:2], reach),
            max(self.figure.shadow_texels >> round(math.log2(count) / 2), COARSEST),
        )  # fmt: skip
        columns = self._show(opacity)
        if self._terrain is None:
            # Only the parts that are dark: the software build takes long to fill what is clear.
            parts = math.gcd(self.figure.shadow_parts, opacity.shape[1])
            dark = (opacity > 1 / 512).reshape(count, parts, opacity.shape[1] // parts, parts, -1).any((2, 4))
            copy, row, column = np.nonzero(dark)
            share = (np.stack([column, row], 1)[:, None] + CORNERS) / parts
            corners = low[copy, None] + (high - low)[copy, None] * share
            corners = np.dstack([corners, np.zeros(corners.shape[:2])])
        else:
            copy, corners, share = self._drape(low, high, level, side)
        at = np.stack([copy % columns, copy // columns], 1)[:, None]
        quads = min(len(corners), self._shadows.most)
        mesh = self._shadows.mesh
        mesh.vertices[: 4 * quads] = corners[:quads].reshape(-1, 3)
        mesh.coordinates[: 4 * quads] = ((at + share) / columns)[:quads].reshape(-1, 2)
        self._shadows.count = quads
        self._shadows.update(coordinates=True)
        mesh.cover(self._texture)

    def _show(self, opacity: np.ndarray) -> int:
        """Bring shadows (N, texels, texels) onto one texture, in rows; return how many are in a row."""
        count, texels, _ = opacity.shape
        columns = math.ceil(math.sqrt(count))
        size = columns * texels
        rl = self._rl
        if self._pixels.shape[0] != size:
            if self._texture is not None:
                rl.unload_texture(self._texture)
            self._pixels = np.zeros((size, size, 4), np.uint8)
            self._pixels[..., :3] = SHADOW_COLOUR
            pixels = rl.ffi.cast("void *", self._pixels.ctypes.data)
            image = rl.Image(pixels, size, size, 1, rl.PIXELFORMAT_UNCOMPRESSED_R8G8B8A8)
            self._texture = rl.load_texture_from_image(image)
            rl.set_texture_filter(self._texture, rl.TEXTURE_FILTER_BILINEAR)
            rl.set_texture_wrap(self._texture, rl.TEXTURE_WRAP_CLAMP)
        alpha = np.zeros((columns * columns, texels, texels), np.uint8)
        alpha[:count] = 255 * SHADOW_STRENGTH * opacity
        rows = alpha.reshape(columns, columns, texels, texels).swapaxes(1, 2)
        self._pixels[..., 3] = rows.reshape(size, size)
        rl.update_texture(self._texture, rl.ffi.cast("void *", self._pixels.ctypes.data))
        return columns

    def _drape(
        self, low: np.ndarray, high: np.ndarray, level: np.ndarray, side: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lay shadows over the terrain: cloths just above the ground, of the quads that the ground has.

        low, high: (N, 2) corners of the shadows, level: (N) height of their planes [m, world]; side: of a quad [m]

        Returns per quad which copy's it is, its corners (4, 3) [m, world], and where they are on the shadow, (4, 2).
        """
        count = len(low)
        most = min(DRAPE, math.isqrt(self._shadows.most // count))
        quads = min(most, math.ceil(float((high - low).max()) / side) + 1)
        first = (np.floor((low + high) / 2 / side - quads / 2) * side)[:, None, None]
        steps = np.stack(np.meshgrid(*[side * np.arange(quads + 1)] * 2), -1)
        ground = first + steps
        z = self._terrain.height(ground[..., 0], ground[..., 1])
        # The texture's margin is clear: beyond it the cloth is, too.
        plane = ground - SUN_SLOPE * (z - level[:, None, None])[..., None]
        share = np.clip((plane - low[:, None, None]) / (high - low)[:, None, None], 0, 1)
        nodes = np.concatenate([ground, (z + LIFT)[..., None], share], -1)
        around = [nodes[:, b : b + quads, a : a + quads] for a, b in CORNERS]
        corners = np.stack(around, 3).reshape(-1, 4, 5)
        used = ((corners[..., 3:] > 0) & (corners[..., 3:] < 1)).all(2).any(1)  # else wholly in the margin
        copy = np.repeat(np.arange(count), quads * quads)
        return copy[used], corners[used][..., :3], corners[used][..., 3:]


@kernel
def _lay_tiles(
    side: float,
    x: float,
    y: float,
    start: float,
    end: float,
    eye: np.ndarray,
    axes: np.ndarray,
    half: np.ndarray,
    tiles: np.ndarray,
    background: np.ndarray,
    vertices: np.ndarray,
    colours: np.ndarray,
) -> int:
    """Write the tiles that are in view, and return how many they are: 0.2 ms, in place of 1.4 in NumPy.

    side: of a tile [m]; x, y: about which they lie [m]; start, end: distances from there at which they start to fade
    and have faded [m]; eye, axes, half: of a View; tiles: (2, 3) and background: (3) linear colours;
    vertices: (V, 3) and colours: (V, 4), of quads
    """
    radius = side * 0.71
    margin_x = radius * np.sqrt(1.0 + half[0] * half[0])
    margin_y = radius * np.sqrt(1.0 + half[1] * half[1])
    first_i = int(np.floor((x - end) / side))
    first_j = int(np.floor((y - end) / side))
    across = int(2 * end / side) + 2
    count = 0
    for j in range(first_j, first_j + across):
        for i in range(first_i, first_i + across):
            ax = side * (i + 0.5) - eye[0]
            ay = side * (j + 0.5) - eye[1]
            az = -eye[2]
            right = ax * axes[0, 0] + ay * axes[0, 1] + az * axes[0, 2]
            up = ax * axes[1, 0] + ay * axes[1, 1] + az * axes[1, 2]
            depth = ax * axes[2, 0] + ay * axes[2, 1] + az * axes[2, 2]
            if abs(right) - half[0] * depth > margin_x or abs(up) - half[1] * depth > margin_y:
                continue
            if 4 * count + 4 > len(vertices):
                continue
            if np.hypot(side * (i + 0.5) - x, side * (j + 0.5) - y) > end + radius:
                continue
            colour = tiles[(i + j) & 1]
            for corner in range(4):
                v = 4 * count + corner
                px = side * (i + (corner == 1 or corner == 2))
                py = side * (j + (corner >= 2))
                share = min(max((np.hypot(px - x, py - y) - start) / (end - start), 0.0), 1.0)
                share *= 2.0 - share
                vertices[v] = (np.float32(px), np.float32(py), np.float32(0.0))
                for k in range(3):
                    light = colour[k] + (background[k] - colour[k]) * share
                    colours[v, k] = int(255.0 * light ** (1.0 / 2.2) + 0.5)
            count += 1
    return count
