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
from renderer.smoothing import Smoother, compact
from renderer.snapshot import Frame
from renderer.solids import Solid, Solids

HELP = "space pause  ·  R reset  ·  arrows push  ·  drag orbit  ·  wheel zoom  ·  V view  ·  Esc close"
OVERSAMPLE = 2  # what a visible window shows is drawn twice as wide and high and averaged; captures are smoothed

RGBA_BYTES = 0x1908, 0x1401  # GL_RGBA, GL_UNSIGNED_BYTE


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
    across: how large the ground is that it shows at first [m]; 0 for as near as one robot asks for

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
        across: float = 0.0,
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
        with quiet_standard_output() if self._software else contextlib.nullcontext():
            rl.init_window(width, height, title)
        if not rl.is_window_ready():
            raise RenderError(
                "no window could be opened: it takes a display with OpenGL 3.3, "
                "or renderer.offscreen_display() for a recording"
            )
        rl.set_target_fps(fps if visible else 0)
        # The software build has no textures to draw to; a hidden window's own pixels are undefined in OpenGL.
        self._canvas = self._small = None
        over = OVERSAMPLE if visible else 1
        if self._software:
            rl.begin_drawing()  # the first end of a frame handles the window's creation and wipes the picture
            rl.end_drawing()
        else:
            self._canvas = rl.load_render_texture(width * over, height * over)
        if visible:
            self._small = rl.load_render_texture(width, height)
            rl.set_texture_filter(self._canvas.texture, rl.TEXTURE_FILTER_BILINEAR)
        self._scene = Scene(rl, figure, terrain)
        self._hud = Hud(rl, title, over)
        self._text = np.zeros((0, 4), int)  # boxes of what is written
        self._smoother = Smoother(width, height, red=2 if self._software else 0)  # the software build stores blue first
        self._read = None
        if not self._software:  # raylib's own function allocates the picture anew, which takes longer than to read it
            kind = "void (*)(int, int, int, int, unsigned int, unsigned int, void *)"
            self._read = rl.ffi.cast(kind, rl.rl_get_proc_address("glReadPixels"))
        self.camera = OrbitCamera(figure.reach, terrain, figure.scale, view, across)

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
        self._scene.draw(frame, self.camera, self.width / self.height, self.height)
        self._text = self._hud.draw(frame, self._paused, self.height, HELP if self.visible else "")

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
        return compact(self.develop(*self.grab()))

    def grab(self, into: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return what the graphics library has of the last frame: bytes, and the boxes of text; for develop().

        into: (height, width, 4) uint8 to write to, or None
        """
        rl = self._rl
        pixels = np.empty((self.height, self.width, 4), np.uint8) if into is None else into
        if self._read is None:
            image = rl.load_image_from_screen()
            pixels[:] = np.frombuffer(rl.ffi.buffer(image.data, pixels.size), np.uint8).reshape(pixels.shape)
            rl.unload_image(image)
            return pixels, self._text
        if self.visible:
            rl.begin_texture_mode(self._small)
            self._shrink()
            rl.end_texture_mode()
        rl.rl_enable_framebuffer((self._small or self._canvas).id)
        self._read(0, 0, self.width, self.height, *RGBA_BYTES, rl.ffi.cast("void *", pixels.ctypes.data))
        rl.rl_disable_framebuffer()
        return pixels, self._text

    def develop(self, pixels: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Return the picture, (height, width, 3) uint8, of what grab() returned, until the next one; on any thread."""
        return pixels[::-1, :, :3] if self.visible else self._smoother.smooth(pixels, text)

    def close(self) -> None:
        """Close the window; closing twice is harmless."""
        if self._rl.is_window_ready():
            self._rl.close_window()

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()
