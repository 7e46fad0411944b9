"""Draws a snapshot: the ground, the shadow on it, the robot and its markers.

Three draw calls, one for a ghost, and one for every patch of a terrain. Everything that looks like light is computed
in ``renderer.light``; raylib only fills triangles, which is what its software build does too.
"""

import math
import types

import numpy as np

from physics.robot import Robot
from physics.terrain import Terrain
from renderer.camera import FIELD_OF_VIEW, OrbitCamera
from renderer.kinematics import CALF, FOOT, THIGH
from renderer.light import SHADOW_COLOUR, SHADOW_STRENGTH, SHADOW_TEXELS, SUN_SLOPE, encode, shade, shadow
from renderer.mesh import Mesh
from renderer.model import BLUE, GROUPS, Model, Pose, paint, place
from renderer.relief import Relief
from renderer.snapshot import Snapshot

BACKGROUND = paint("#E3E8ED", 0).colour
TILES = paint("#D3DAE1", 0).colour, paint("#C6CED6", 0).colour
TILE = 0.5  # [m]
TILES_ACROSS = 56  # the ground ends beyond where it has faded
FADE = 3.0, 12.0  # distances from the camera's target where the ground starts to fade and has faded [m]
NEAR, FAR = 0.05, 60.0  # clip planes [m]
NEAR_RELIEF = 0.12  # over a terrain, where one part of the ground hides another: the software build measures depth in 16 bits
DRAPE = 72  # quads along either side of the cloth that carries the shadow over a terrain
GHOST_SHARE, GHOST_OPACITY = 0.6, 120  # of its colour that is blue, and of 255
LIFT = 0.004  # of the cloth above the ground [m]


class Scene:
    """Everything in the picture but the text.

    raylib: the module, with its window open
    robot: what is drawn
    terrain: the ground; None for level ground at height 0
    """

    def __init__(self, raylib: types.ModuleType, robot: Robot, terrain: Terrain | None = None) -> None:
        self._rl, self._terrain = raylib, terrain
        self.model = Model(robot)
        self._solids, self._ghost = (Mesh(raylib, len(self.model.vertices), self.model.triangles) for _ in range(2))
        self._make_shadow()
        if terrain is None:
            self._make_floor()
        else:
            self._relief = Relief(raylib, terrain, np.array(TILES), BACKGROUND, FADE)
            self._make_cloth()
        raylib.rl_set_clip_planes(NEAR if terrain is None else NEAR_RELIEF, FAR)

    def _make_floor(self) -> None:
        index = np.arange(TILES_ACROSS) - TILES_ACROSS // 2
        x, y = np.meshgrid(index, index, indexing="ij")
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        self._tiles = TILE * (np.stack([x, y], -1)[:, :, None] + corners).reshape(-1, 2)  # (V, 2)
        self._tile_colour = np.repeat(np.array(TILES)[((x + y) % 2).ravel()], 4, axis=0)  # (V, 3)
        quads = 4 * np.arange(x.size)[:, None]
        self._floor = Mesh(self._rl, 4 * x.size, np.concatenate([quads + np.array(corners) for corners in ((0, 1, 2), (0, 2, 3))]))

    def _make_cloth(self) -> None:
        index = np.arange((DRAPE + 1) ** 2).reshape(DRAPE + 1, DRAPE + 1)
        a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, 1:].ravel(), index[1:, :-1].ravel()
        self._cloth = Mesh(self._rl, index.size, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))
        self._cloth.cover(self._texture)

    def _make_shadow(self) -> None:
        raylib = self._rl
        self._shadow = np.zeros((SHADOW_TEXELS, SHADOW_TEXELS, 4), np.uint8)
        self._shadow[..., :3] = SHADOW_COLOUR
        pixels = raylib.ffi.cast("void *", self._shadow.ctypes.data)
        image = raylib.Image(pixels, SHADOW_TEXELS, SHADOW_TEXELS, 1, raylib.PIXELFORMAT_UNCOMPRESSED_R8G8B8A8)
        self._texture = raylib.load_texture_from_image(image)
        raylib.set_texture_filter(self._texture, raylib.TEXTURE_FILTER_BILINEAR)
        raylib.set_texture_wrap(self._texture, raylib.TEXTURE_WRAP_CLAMP)

    def ground(self, x: float, y: float) -> float:
        """Return the height of the ground under a robot at x, y, in the mean over its size [m]."""
        if self._terrain is None:
            return 0.0
        around = self.model.reach * np.array([-0.5, 0.0, 0.5])
        return float(self._terrain.height(x + around, y + around[:, None]).mean())

    def draw(self, snapshot: Snapshot, camera: OrbitCamera) -> None:
        """Draw over the whole of the current target."""
        rl = self._rl
        pose = place(self.model, snapshot, self._terrain)
        rl.clear_background((*(int(c) for c in encode(BACKGROUND)), 255))
        eye = camera.position
        rl.begin_mode_3d(rl.Camera3D(tuple(eye), tuple(camera.target), (0, 0, 1), FIELD_OF_VIEW, rl.CAMERA_PERSPECTIVE))
        if self._terrain is None:
            # Ground and shadow lie in one plane and under all else: no depth, so that they cannot flicker.
            rl.rl_disable_depth_test()
            self._draw_floor(camera.target)
            self._draw_shadow(pose)
            rl.rl_enable_depth_test()
        else:
            aspect = rl.get_screen_width() / rl.get_screen_height()
            self._relief.draw(camera.target, eye, math.tan(math.radians(FIELD_OF_VIEW / 2)) * math.hypot(1, aspect))
            self._drape_shadow(pose)
        self._draw_solids(self._solids, pose, eye)
        if snapshot.ghost is not None:
            self._draw_solids(self._ghost, place(self.model, snapshot.ghost, self._terrain), eye, ghost=True)
        rl.end_mode_3d()

    def _draw_floor(self, target: np.ndarray) -> None:
        """Draw tiles around the target; they move by whole pairs of tiles, so the pattern stands still."""
        mesh, origin = self._floor, np.floor(target[:2] / (2 * TILE)) * 2 * TILE
        mesh.vertices[:, :2] = self._tiles + origin
        distance = np.linalg.norm(mesh.vertices[:, :2] - target[:2], axis=1, keepdims=True)
        fade = np.clip((distance - FADE[0]) / (FADE[1] - FADE[0]), 0, 1)
        mesh.colours[:, :3] = encode(self._tile_colour + (BACKGROUND - self._tile_colour) * fade * (2 - fade))
        mesh.update()
        mesh.draw()

    def _limbs(self, pose: Pose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what casts the shadow: starts and ends (N, 3) [m, world] and radii (N) [m] of limbs."""
        robot, legs = self.model.robot, pose.legs
        _, width, _ = robot.trunk_half_extents
        trunk, forward, left = pose.origin[0], pose.rotation[0, :, 0], pose.rotation[0, :, 1]
        rails = [trunk + side * 0.45 * width * left for side in (-1, 1)]
        length = self.model.nose - 0.55 * width
        starts = np.concatenate([[r - forward * length for r in rails], legs[:, THIGH], legs[:, CALF], legs[:, FOOT]])
        ends = np.concatenate([[r + forward * length for r in rails], legs[:, CALF], legs[:, FOOT], legs[:, FOOT] + [0, 0, 1e-3]])
        s = self.model.segment
        radii = np.concatenate([[0.55 * width] * 2, [0.13 * s] * 4, [0.07 * s] * 4, robot.foot_radius])
        return starts, ends, radii

    def _cast(
        self, starts: np.ndarray, ends: np.ndarray, radii: np.ndarray, heights: np.ndarray, clear: np.ndarray, margin: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bring the shadow onto its texture, and return the corners of the rectangle that this covers; all as for shadow()."""
        low, high, opacity = shadow(starts, ends, radii, heights, clear, margin)
        self._shadow[..., 3] = 255 * SHADOW_STRENGTH * opacity
        self._rl.update_texture(self._texture, self._rl.ffi.cast("void *", self._shadow.ctypes.data))
        return low, high

    def _draw_shadow(self, pose: Pose) -> None:
        rl, (starts, ends, radii) = self._rl, self._limbs(pose)
        heights = np.maximum(np.stack([starts[:, 2], ends[:, 2]], 1), 0.0)
        low, high = self._cast(starts, ends, radii, heights, heights)
        rl.rl_set_texture(self._texture.id)
        rl.rl_begin(rl.RL_QUADS)
        rl.rl_color4ub(255, 255, 255, 255)
        for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)):
            rl.rl_tex_coord2f(u, v)
            rl.rl_vertex3f((low[0], high[0])[u], (low[1], high[1])[v], 0.0)
        rl.rl_end()
        rl.rl_set_texture(0)
        rl.rl_draw_render_batch_active()

    def _drape_shadow(self, pose: Pose) -> None:
        """Lay the shadow over the terrain: a cloth just above the ground, of the quads that the ground is drawn with."""
        starts, ends, radii = self._limbs(pose)
        points = np.stack([starts, ends], 1)
        below = self._terrain.height(points[..., 0], points[..., 1])
        # The shadow on the level plane at the middle of the ground beneath; a point of the ground at another
        # height has that of the point of the plane in line with it and the sun.
        level = float(below.mean())
        side = self._relief.grid.tile / self._relief.grid.quads
        low, high = self._cast(starts, ends, radii, points[..., 2] - level, np.maximum(points[..., 2] - below, 0.0), margin=side)
        first = np.floor(((low + high) / 2 / side) - DRAPE / 2) * side
        x, y = np.meshgrid(first[0] + side * np.arange(DRAPE + 1), first[1] + side * np.arange(DRAPE + 1))
        z = self._terrain.height(x, y)
        ground = np.stack([x, y], -1)
        self._cloth.vertices[:] = np.dstack([ground, z + LIFT]).reshape(-1, 3)
        # The texture's margin is clear: beyond it the cloth is, too.
        self._cloth.coordinates[:] = np.clip((ground - SUN_SLOPE * (z - level)[..., None] - low) / (high - low), 0, 1).reshape(-1, 2)
        self._cloth.update(colours=False, coordinates=True)
        # The cloth hides nothing, not even itself: it is drawn in no particular order.
        self._rl.rl_disable_depth_mask()
        self._cloth.draw()
        self._rl.rl_enable_depth_mask()

    def _draw_solids(self, mesh: Mesh, pose: Pose, eye: np.ndarray, ghost: bool = False) -> None:
        model = self.model
        normals, glow, ground = np.empty_like(model.normals), np.empty_like(model.normals), np.zeros(len(model.normals), np.float32)
        below = np.zeros(GROUPS) if self._terrain is None else self._terrain.height(pose.origin[:, 0], pose.origin[:, 1])
        for group in range(GROUPS):
            span = model.spans[group]
            mesh.vertices[span] = model.vertices[span] @ pose.shape[group].T.astype(np.float32) + pose.origin[group]
            normals[span] = model.normals[span] @ pose.rotation[group].T.astype(np.float32)
            glow[span], ground[span] = pose.glow[group], below[group]
        colour = model.colour + GHOST_SHARE * (BLUE.colour - model.colour).astype(np.float32) if ghost else model.colour
        mesh.colours[:, :3] = shade(mesh.vertices, normals, colour, model.gloss, glow, eye, ground)
        mesh.colours[:, 3] = GHOST_OPACITY if ghost else 255
        mesh.update()
        mesh.draw()
