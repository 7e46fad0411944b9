"""Draws a snapshot: the ground, the shadow on it, the robot and its markers.

Three draw calls. Everything that looks like light is computed in ``renderer.light``; raylib only
fills triangles, which is what its software build does too.
"""

import types

import numpy as np

from physics.robot import Robot
from renderer.camera import FIELD_OF_VIEW, OrbitCamera
from renderer.kinematics import CALF, FOOT, THIGH
from renderer.light import SHADOW_COLOUR, SHADOW_STRENGTH, SHADOW_TEXELS, encode, shade, shadow
from renderer.model import GROUPS, Model, Pose, paint, place
from renderer.snapshot import Snapshot

BACKGROUND = paint("#E3E8ED", 0).colour
TILES = paint("#D3DAE1", 0).colour, paint("#C6CED6", 0).colour
TILE = 0.5  # [m]
TILES_ACROSS = 56  # the ground ends beyond where it has faded
FADE = 3.0, 12.0  # distances from the camera's target where the ground starts to fade and has faded [m]
NEAR, FAR = 0.05, 60.0  # clip planes [m]


class _Mesh:
    """Triangles whose positions and colours change from frame to frame.

    vertices: (V, 3) float32 and colours: (V, 4) uint8 belong to this object: raylib reads them in
    place (the software build at every draw), so they outlive its mesh, which is never unloaded.
    """

    def __init__(self, raylib: types.ModuleType, count: int, triangles: np.ndarray) -> None:
        self._rl = raylib
        self.vertices, self.colours = np.zeros((count, 3), np.float32), np.full((count, 4), 255, np.uint8)
        self._fixed = np.zeros((count, 2), np.float32), np.ascontiguousarray(triangles, np.uint16)
        mesh = self._mesh = raylib.Mesh()
        mesh.vertexCount, mesh.triangleCount = count, len(triangles)
        cast = raylib.ffi.cast
        mesh.vertices, mesh.colors = cast("float *", self.vertices.ctypes.data), cast("unsigned char *", self.colours.ctypes.data)
        mesh.texcoords, mesh.indices = cast("float *", self._fixed[0].ctypes.data), cast("unsigned short *", self._fixed[1].ctypes.data)
        raylib.upload_mesh(raylib.ffi.addressof(mesh), True)
        self._material, self._identity = raylib.load_material_default(), raylib.matrix_identity()

    def draw(self, software: bool) -> None:
        if not software:
            for slot, data in ((0, self.vertices), (3, self.colours)):  # slots of raylib's default shader
                self._rl.update_mesh_buffer(self._mesh, slot, self._rl.ffi.cast("void *", data.ctypes.data), data.nbytes, 0)
        self._rl.draw_mesh(self._mesh, self._material, self._identity)


class Scene:
    """Everything in the picture but the text.

    raylib: the module, with its window open
    robot: what is drawn
    software: whether raylib draws with the CPU
    """

    def __init__(self, raylib: types.ModuleType, robot: Robot, software: bool) -> None:
        self._rl, self._software = raylib, software
        self.model = Model(robot)
        self._solids = _Mesh(raylib, len(self.model.vertices), self.model.triangles)
        index = np.arange(TILES_ACROSS) - TILES_ACROSS // 2
        x, y = np.meshgrid(index, index, indexing="ij")
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        self._tiles = TILE * (np.stack([x, y], -1)[:, :, None] + corners).reshape(-1, 2)  # (V, 2)
        self._tile_colour = np.repeat(np.array(TILES)[((x + y) % 2).ravel()], 4, axis=0)  # (V, 3)
        quads = 4 * np.arange(x.size)[:, None]
        self._ground = _Mesh(raylib, 4 * x.size, np.concatenate([quads + np.array(corners) for corners in ((0, 1, 2), (0, 2, 3))]))
        self._shadow = np.zeros((SHADOW_TEXELS, SHADOW_TEXELS, 4), np.uint8)
        self._shadow[..., :3] = SHADOW_COLOUR
        pixels = raylib.ffi.cast("void *", self._shadow.ctypes.data)
        image = raylib.Image(pixels, SHADOW_TEXELS, SHADOW_TEXELS, 1, raylib.PIXELFORMAT_UNCOMPRESSED_R8G8B8A8)
        self._texture = raylib.load_texture_from_image(image)
        raylib.set_texture_filter(self._texture, raylib.TEXTURE_FILTER_BILINEAR)
        raylib.set_texture_wrap(self._texture, raylib.TEXTURE_WRAP_CLAMP)
        raylib.rl_set_clip_planes(NEAR, FAR)

    def draw(self, snapshot: Snapshot, camera: OrbitCamera) -> None:
        """Draw over the whole of the current target."""
        rl = self._rl
        pose = place(self.model, snapshot)
        rl.clear_background((*(int(c) for c in encode(BACKGROUND)), 255))
        eye = camera.position
        rl.begin_mode_3d(rl.Camera3D(tuple(eye), tuple(camera.target), (0, 0, 1), FIELD_OF_VIEW, rl.CAMERA_PERSPECTIVE))
        # Ground and shadow lie in one plane and under all else: no depth, so that they cannot flicker.
        rl.rl_disable_depth_test()
        self._draw_ground(camera.target)
        self._draw_shadow(pose)
        rl.rl_enable_depth_test()
        self._draw_solids(pose, eye)
        rl.end_mode_3d()

    def _draw_ground(self, target: np.ndarray) -> None:
        """Draw tiles around the target; they move by whole pairs of tiles, so the pattern stands still."""
        mesh, origin = self._ground, np.floor(target[:2] / (2 * TILE)) * 2 * TILE
        mesh.vertices[:, :2] = self._tiles + origin
        distance = np.linalg.norm(mesh.vertices[:, :2] - target[:2], axis=1, keepdims=True)
        fade = np.clip((distance - FADE[0]) / (FADE[1] - FADE[0]), 0, 1)
        mesh.colours[:, :3] = encode(self._tile_colour + (BACKGROUND - self._tile_colour) * fade * (2 - fade))
        mesh.draw(self._software)

    def _draw_shadow(self, pose: Pose) -> None:
        rl, robot, legs = self._rl, self.model.robot, pose.legs
        _, width, _ = robot.trunk_half_extents
        trunk, forward, left = pose.origin[0], pose.rotation[0, :, 0], pose.rotation[0, :, 1]
        rails = [trunk + side * 0.45 * width * left for side in (-1, 1)]
        length = self.model.nose - 0.55 * width
        starts = np.concatenate([[r - forward * length for r in rails], legs[:, THIGH], legs[:, CALF], legs[:, FOOT]])
        ends = np.concatenate([[r + forward * length for r in rails], legs[:, CALF], legs[:, FOOT], legs[:, FOOT] + [0, 0, 1e-3]])
        s = self.model.segment
        radii = np.concatenate([[0.55 * width] * 2, [0.13 * s] * 4, [0.07 * s] * 4, robot.foot_radius])
        low, high, opacity = shadow(starts, ends, radii)
        self._shadow[..., 3] = 255 * SHADOW_STRENGTH * opacity
        rl.update_texture(self._texture, rl.ffi.cast("void *", self._shadow.ctypes.data))
        rl.rl_set_texture(self._texture.id)
        rl.rl_begin(rl.RL_QUADS)
        rl.rl_color4ub(255, 255, 255, 255)
        for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)):
            rl.rl_tex_coord2f(u, v)
            rl.rl_vertex3f((low[0], high[0])[u], (low[1], high[1])[v], 0.0)
        rl.rl_end()
        rl.rl_set_texture(0)
        rl.rl_draw_render_batch_active()

    def _draw_solids(self, pose: Pose, eye: np.ndarray) -> None:
        model, mesh = self.model, self._solids
        normals, glow = np.empty_like(model.normals), np.empty_like(model.normals)
        for group in range(GROUPS):
            span = model.spans[group]
            mesh.vertices[span] = model.vertices[span] @ pose.shape[group].T.astype(np.float32) + pose.origin[group]
            normals[span] = model.normals[span] @ pose.rotation[group].T.astype(np.float32)
            glow[span] = pose.glow[group]
        mesh.colours[:, :3] = shade(mesh.vertices, normals, model.colour, model.gloss, glow, eye)
        mesh.draw(self._software)
