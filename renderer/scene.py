"""Draws a frame: the ground, the shadow on it, a robot or solids and their markers.

Three draw calls, one for a ghost, and one for every patch of a terrain. Everything that looks like light is computed
in ``renderer.light``; raylib only fills triangles, which is what its software build does too.
"""

import math
import types

import numpy as np

from physics.terrain import Terrain
from renderer.camera import FIELD_OF_VIEW, OrbitCamera
from renderer.figure import BLUE, Figure, Pose, paint, place
from renderer.light import SHADOW_COLOUR, SHADOW_STRENGTH, SUN_SLOPE, encode, shade, shadow
from renderer.mesh import Mesh
from renderer.relief import Relief
from renderer.snapshot import Frame

BACKGROUND = paint("#E3E8ED", 0).colour
TILES = paint("#D3DAE1", 0).colour, paint("#C6CED6", 0).colour
TILE = 0.5  # [m]
TILES_ACROSS = 56  # the ground ends beyond where it has faded
FADE = 3.0, 12.0  # distances from the camera's target where the ground starts to fade and has faded [m]
SHADOW_FADED = 5.0  # distance from the camera's target at which the shadow has faded [m]
FAR = 60.0  # clip plane [m]
NEAR_RELIEF = 0.12  # the other one, at least, over a terrain, where one part of the ground hides another [m]
DRAPE = 72  # quads along either side of the cloth that carries the shadow over a terrain
# of its colour that is blue, and of 255
GHOST_SHARE = 0.6
GHOST_OPACITY = 120
LIFT = 0.004  # of the cloth above the ground [m]


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
        self._surface, self._ghost = (Mesh(raylib, len(figure.vertices), figure.triangles) for _ in range(2))
        self._make_shadow()
        if terrain is None:
            self._make_floor()
        else:
            self._relief = Relief(raylib, terrain, np.array(TILES), BACKGROUND, FADE)
            self._make_cloth()
        raylib.rl_set_clip_planes(figure.scale * max(figure.near, NEAR_RELIEF if terrain else 0.0), figure.scale * FAR)

    def _make_floor(self) -> None:
        index = np.arange(TILES_ACROSS) - TILES_ACROSS // 2
        x, y = np.meshgrid(index, index, indexing="ij")
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        self._tiles = self.figure.scale * TILE * (np.stack([x, y], -1)[:, :, None] + corners).reshape(-1, 2)  # (V, 2)
        self._tile_colour = np.repeat(np.array(TILES)[((x + y) % 2).ravel()], 4, axis=0)  # (V, 3)
        quads = 4 * np.arange(x.size)[:, None]
        self._floor = Mesh(
            self._rl, 4 * x.size, np.concatenate([quads + np.array(corners) for corners in ((0, 1, 2), (0, 2, 3))])
        )

    def _make_cloth(self) -> None:
        index = np.arange((DRAPE + 1) ** 2).reshape(DRAPE + 1, DRAPE + 1)
        a = index[:-1, :-1].ravel()
        b = index[:-1, 1:].ravel()
        c = index[1:, 1:].ravel()
        d = index[1:, :-1].ravel()
        self._cloth = Mesh(self._rl, index.size, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))
        self._cloth.cover(self._texture)

    def _make_shadow(self) -> None:
        raylib = self._rl
        texels = self.figure.shadow_texels
        self._shadow = np.zeros((texels, texels, 4), np.uint8)
        self._shadow[..., :3] = SHADOW_COLOUR
        pixels = raylib.ffi.cast("void *", self._shadow.ctypes.data)
        image = raylib.Image(pixels, texels, texels, 1, raylib.PIXELFORMAT_UNCOMPRESSED_R8G8B8A8)
        self._texture = raylib.load_texture_from_image(image)
        raylib.set_texture_filter(self._texture, raylib.TEXTURE_FILTER_BILINEAR)
        raylib.set_texture_wrap(self._texture, raylib.TEXTURE_WRAP_CLAMP)

    def focus(self, frame: Frame) -> np.ndarray:
        """Return what the camera follows, (3) [m, world]."""
        return self.figure.focus(frame, self._ground)

    def _ground(self, x: float, y: float) -> float:
        """Return the height of the ground under a robot at x, y, in the mean over its size [m]."""
        if self._terrain is None:
            return 0.0
        around = self.figure.reach * np.array([-0.5, 0.0, 0.5])
        return float(self._terrain.height(x + around, y + around[:, None]).mean())

    def draw(self, frame: Frame, camera: OrbitCamera) -> None:
        """Draw over the whole of the current target."""
        rl = self._rl
        pose = place(self.figure, frame, self._terrain)
        rl.clear_background((*(int(c) for c in encode(BACKGROUND)), 255))
        eye = camera.position
        rl.begin_mode_3d(rl.Camera3D(tuple(eye), tuple(camera.target), (0, 0, 1), FIELD_OF_VIEW, rl.CAMERA_PERSPECTIVE))
        if self._terrain is None:
            # Ground and shadow lie in one plane: no depth of the latter, so that they cannot flicker.
            if not self.figure.ground_hides:
                rl.rl_disable_depth_test()
            self._draw_floor(camera.target)
            rl.rl_disable_depth_test()
            self._draw_shadow(pose, camera.target)
            rl.rl_enable_depth_test()
        else:
            aspect = rl.get_screen_width() / rl.get_screen_height()
            self._relief.draw(camera.target, eye, math.tan(math.radians(FIELD_OF_VIEW / 2)) * math.hypot(1, aspect))
            self._drape_shadow(pose, camera.target)
        self._draw_figure(self._surface, pose, eye)
        if frame.ghost is not None:
            self._draw_figure(self._ghost, place(self.figure, frame.ghost, self._terrain), eye, ghost=True)
        rl.end_mode_3d()

    def _draw_floor(self, target: np.ndarray) -> None:
        """Draw tiles around the target; they move by whole pairs of tiles, so the pattern stands still."""
        pair = 2 * TILE * self.figure.scale
        (start, end) = self.figure.scale * np.array(FADE)
        mesh = self._floor
        origin = np.floor(target[:2] / pair) * pair
        mesh.vertices[:, :2] = self._tiles + origin
        distance = np.linalg.norm(mesh.vertices[:, :2] - target[:2], axis=1, keepdims=True)
        fade = np.clip((distance - start) / (end - start), 0, 1)
        mesh.colours[:, :3] = encode(self._tile_colour + (BACKGROUND - self._tile_colour) * fade * (2 - fade))
        mesh.update()
        mesh.draw()

    def _cast(
        self, pose: Pose, target: np.ndarray, level: float, heights: np.ndarray, clear: np.ndarray, margin: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bring the shadow onto its texture, and return the corners of the rectangle that this covers.

        target: (3) of the camera; level: height of the plane that the shadow is on [m, world]; all else as for shadow()
        """
        blocks = [(centre - [0, 0, level], axes) for centre, axes in pose.blocks]
        near = target[:2], self.figure.scale * SHADOW_FADED
        low, high, opacity = shadow(*pose.limbs, heights, clear, margin, blocks, near, self.figure.shadow_texels)
        self._shadow[..., 3] = 255 * SHADOW_STRENGTH * opacity
        self._rl.update_texture(self._texture, self._rl.ffi.cast("void *", self._shadow.ctypes.data))
        return low, high

    def _draw_shadow(self, pose: Pose, target: np.ndarray) -> None:
        rl = self._rl
        (starts, ends, _) = pose.limbs
        heights = np.maximum(np.stack([starts[:, 2], ends[:, 2]], 1), 0.0)
        low, high = self._cast(pose, target, 0.0, heights, heights)
        # Only the parts that are dark: the software build takes long to fill what is clear.
        parts = self.figure.shadow_parts
        dark = self._shadow[..., 3].reshape(parts, len(self._shadow) // parts, parts, -1).any((1, 3))
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        rl.rl_set_texture(self._texture.id)
        rl.rl_begin(rl.RL_QUADS)
        rl.rl_color4ub(255, 255, 255, 255)
        for u, v in ((np.argwhere(dark)[:, None, ::-1] + corners) / parts).reshape(-1, 2):
            rl.rl_tex_coord2f(u, v)
            rl.rl_vertex3f(*(low + (high - low) * [u, v]), 0.0)
        rl.rl_end()
        rl.rl_set_texture(0)
        rl.rl_draw_render_batch_active()

    def _drape_shadow(self, pose: Pose, target: np.ndarray) -> None:
        """Lay the shadow over the terrain: a cloth just above the ground, of the quads that the ground has."""
        points = np.stack(pose.limbs[:2], 1)  # (N, 2, 3)
        below = self._terrain.height(points[..., 0], points[..., 1])
        # The shadow on the level plane at the middle of the ground beneath; a point of the ground at another
        # height has that of the point of the plane in line with it and the sun.
        middles = np.array([centre for centre, _ in pose.blocks]).reshape(-1, 3)
        level = float(np.append(below, self._terrain.height(middles[:, 0], middles[:, 1])).mean())
        side = self._relief.grid.tile / self._relief.grid.quads
        low, high = self._cast(
            pose, target, level, points[..., 2] - level, np.maximum(points[..., 2] - below, 0.0), margin=side
        )
        first = np.floor(((low + high) / 2 / side) - DRAPE / 2) * side
        x, y = np.meshgrid(first[0] + side * np.arange(DRAPE + 1), first[1] + side * np.arange(DRAPE + 1))
        z = self._terrain.height(x, y)
        ground = np.stack([x, y], -1)
        self._cloth.vertices[:] = np.dstack([ground, z + LIFT]).reshape(-1, 3)
        # The texture's margin is clear: beyond it the cloth is, too.
        self._cloth.coordinates[:] = np.clip(
            (ground - SUN_SLOPE * (z - level)[..., None] - low) / (high - low), 0, 1
        ).reshape(-1, 2)
        self._cloth.update(colours=False, coordinates=True)
        # The cloth hides nothing, not even itself: it is drawn in no particular order.
        self._rl.rl_disable_depth_mask()
        self._cloth.draw()
        self._rl.rl_enable_depth_mask()

    def _draw_figure(self, mesh: Mesh, pose: Pose, eye: np.ndarray, ghost: bool = False) -> None:
        figure = self.figure
        normals = np.empty_like(figure.normals)
        glow = np.empty_like(figure.normals)
        ground = np.zeros(len(figure.normals), np.float32)
        below = (
            np.zeros(len(figure.spans))
            if self._terrain is None
            else self._terrain.height(pose.origin[:, 0], pose.origin[:, 1])
        )
        for group, span in enumerate(figure.spans):
            mesh.vertices[span] = figure.vertices[span] @ pose.shape[group].T.astype(np.float32) + pose.origin[group]
            normals[span] = figure.normals[span] @ pose.rotation[group].T.astype(np.float32)
            glow[span] = pose.glow[group]
            ground[span] = below[group]
        colour = (
            figure.colour + GHOST_SHARE * (BLUE.colour - figure.colour).astype(np.float32) if ghost else figure.colour
        )
        mesh.colours[:, :3] = shade(mesh.vertices, normals, colour, figure.gloss, glow, eye, ground, figure.scale)
        mesh.colours[:, 3] = GHOST_OPACITY if ghost else 255
        mesh.update()
        mesh.draw()
