"""A window that shows frames, or a hidden one that is recorded from."""

import contextlib
import types
from collections.abc import Sequence

import numpy as np

from physics.robot import Robot
from physics.terrain import Terrain
from renderer.camera import VIEW, OrbitCamera
from renderer.display import RenderError, is_software, load_raylib, quiet_standard_output
from renderer.hud import Hud
from renderer.model import Model
from renderer.scene import Scene
from renderer.snapshot import Frame
from renderer.solids import Solid, Solids

HELP = "space pause  ·  R reset  ·  arrows push  ·  drag orbit  ·  wheel zoom  ·  V view  ·  Esc close"
OVERSAMPLE = 2  # the picture is drawn twice as wide and high and averaged: smooth edges in every build of raylib


class Window:
    """A view of a robot, drawn by Snapshots, or of solids, drawn by Sceneries; a process can have one at a time.

    subject: what is drawn, a robot or a sequence of solids: whatever has their kind, size and colour
    width, height: [px]
    title: of the window, and the first line of the text in it
    visible: False to draw without showing, for ``capture``; without a display, inside ``offscreen_display``
    fps: frames per second; a visible window's ``draw`` waits so as not to exceed it, and the camera counts in it
    terrain: the ground; None for level ground at height 0
    reach: half the size of what the camera looks at [m]: required of solids, a robot has its own
    view: azimuth and elevation of the camera at first [deg]

    Space pauses, R asks for a reset, the arrow keys ask for a push, Esc closes; the caller reads
    the properties and obeys. The mouse orbits and zooms, V returns to the first view. Raises
    RenderError if no window can be opened.
    """

    def __init__(
        self,
        subject: Robot | Sequence[Solid],
        width: int = 960,
        height: int = 540,
        title: str = "Foal",
        visible: bool = True,
        fps: int = 50,
        terrain: Terrain | None = None,
        reach: float | None = None,
        view: tuple[float, float] = VIEW,
    ) -> None:
        figure = Model(subject) if isinstance(subject, Robot) else Solids(subject, reach)
        self.width = width
        self.height = height
        self.visible = visible
        self._fps = fps
        self._paused = self._reset = self._closing = False
        self._push: np.ndarray | None = None
        rl = self._rl = load_raylib()
        if rl.is_window_ready():
            raise RenderError("a window is already open; close it first")
        self._software = is_software(rl)
        if self._software and visible:
            raise RenderError("this process records without a display, so it cannot show a window; start another")
        rl.set_config_flags(0 if visible else rl.FLAG_WINDOW_HIDDEN)
        oversize = OVERSAMPLE if self._software else 1
        with quiet_standard_output() if self._software else contextlib.nullcontext():
            rl.init_window(width * oversize, height * oversize, title)
        if not rl.is_window_ready():
            raise RenderError(
                "no window could be opened: it takes a display with OpenGL 3.3, "
                "or renderer.offscreen_display() for a recording"
            )
        rl.set_target_fps(fps if visible else 0)
        # The software build has no textures to draw to; a hidden window's own pixels are undefined in OpenGL.
        self._canvas = self._small = None
        if self._software:
            rl.begin_drawing()  # the first end of a frame handles the window's creation and wipes the picture
            rl.end_drawing()
        else:
            self._canvas = rl.load_render_texture(width * OVERSAMPLE, height * OVERSAMPLE)
            self._small = rl.load_render_texture(width, height)
            rl.set_texture_filter(self._canvas.texture, rl.TEXTURE_FILTER_BILINEAR)
        self._scene = Scene(rl, figure, terrain)
        self._hud = Hud(rl, title, OVERSAMPLE)
        self.camera = OrbitCamera(figure.reach, terrain, figure.scale, view)

    def draw(self, frame: Frame) -> None:
        """Draw one frame, show it if visible, and read keyboard and mouse."""
        rl = self._rl
        self.camera.follow(self._scene.focus(frame), 1.0 / self._fps)
        if self._canvas is None:
            rl.begin_drawing()
            self._paint(frame)
            rl.end_drawing()
            return
        rl.begin_texture_mode(self._canvas)
        self._paint(frame)
        rl.end_texture_mode()
        if self.visible:
            rl.begin_drawing()
            self._shrink()
            rl.end_drawing()
            self._read_input()

    def _paint(self, frame: Frame) -> None:
        self._scene.draw(frame, self.camera)
        self._hud.draw(frame, self._paused, self.height, HELP if self.visible else "")

    def _shrink(self) -> None:
        """Draw the canvas at the window's size; textures are stored from the bottom up, hence the minus."""
        texture = self._canvas.texture
        rl = self._rl
        # the canvas keeps the transparency of what was drawn last on it; the picture is opaque
        rl.rl_disable_color_blend()
        rl.draw_texture_pro(
            texture, (0, 0, texture.width, -texture.height), (0, 0, self.width, self.height), (0, 0), 0.0, rl.WHITE
        )
        rl.rl_draw_render_batch_active()
        rl.rl_enable_color_blend()

    def _read_input(self) -> None:
        rl = self._rl
        self._paused ^= rl.is_key_pressed(rl.KEY_SPACE)
        self._reset = rl.is_key_pressed(rl.KEY_R)
        self._closing |= rl.window_should_close()  # raylib forgets it after a frame
        into = self.camera.forward
        right = np.array([into[1], -into[0], 0.0])
        arrows = ((rl.KEY_UP, into), (rl.KEY_DOWN, -into), (rl.KEY_RIGHT, right), (rl.KEY_LEFT, -right))
        self._push = next((direction for key, direction in arrows if rl.is_key_pressed(key)), None)
        if rl.is_key_pressed(rl.KEY_V):
            self.camera.home()
        if rl.is_mouse_button_down(rl.MOUSE_BUTTON_LEFT):
            drag = rl.get_mouse_delta()
            self.camera.orbit(drag.x, drag.y)
        self.camera.zoom(rl.get_mouse_wheel_move())

    @property
    def should_close(self) -> bool:
        """Whether the user pressed Esc or closed the window."""
        return self._closing

    @property
    def paused(self) -> bool:
        """Whether the simulation should stand still; the space bar toggles it."""
        return self._paused

    @property
    def reset_requested(self) -> bool:
        """Whether R was pressed during the last ``draw``."""
        return self._reset

    @property
    def push_requested(self) -> np.ndarray | None:
        """Direction of the arrow key pressed during the last ``draw``, as seen on screen, or None.

        (3) unit, along the ground [world].
        """
        return self._push

    def capture(self) -> np.ndarray:
        """Return the last frame, (height, width, 3) uint8, red green blue, from the top."""
        rl = self._rl
        if self._software:
            image = rl.load_image_from_screen()
        else:
            rl.begin_texture_mode(self._small)
            self._shrink()
            rl.end_texture_mode()
            image = rl.load_image_from_texture(self._small.texture)
        shape = image.height, image.width, 4
        pixels = np.frombuffer(rl.ffi.buffer(image.data, image.height * image.width * 4), np.uint8).reshape(shape)[::-1]
        frame = (
            _halve(pixels)[..., 2::-1] if self._software else pixels[..., :3]
        )  # the software build stores blue first
        frame = np.ascontiguousarray(frame)
        rl.unload_image(image)
        return frame

    def close(self) -> None:
        """Close the window; closing twice is harmless."""
        if self._rl.is_window_ready():
            self._rl.close_window()

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()


def _halve(pixels: np.ndarray) -> np.ndarray:
    """Return the mean of every two by two pixels, rounded down: (H, W, 4) uint8 to (H / 2, W / 2, 4).

    Four channels at a time in one word, half the time of sums in 16 bits: 6 ms for 1920 x 1080.
    """
    words = pixels.view(np.uint32)[..., 0]
    rows = _mean(words[::2], words[1::2])
    return _mean(rows[:, ::2], rows[:, 1::2]).view(np.uint8).reshape(*rows.shape[:1], -1, 4)


def _mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # a + b = 2 (a & b) + (a ^ b), per byte; the mask keeps a byte's last bit out of its neighbour
    return (a & b) + (((a ^ b) & np.uint32(0xFEFEFEFE)) >> 1)
