"""A window that shows frames, or a hidden one that is recorded from."""

import contextlib
import math
import types
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from physics.robot import Robot
from physics.terrain import Terrain
from renderer.camera import LED, VIEW, Camera
from renderer.controls import OVERLAYS, SHOWN, Requests, keys, offered
from renderer.display import (
    RenderError,
    end_with_the_display,
    is_software,
    load_raylib,
    quiet_standard_output,
    without_card,
)
from renderer.figure import Figure
from renderer.hud import Hud
from renderer.model import Model
from renderer.overlays import CORAL, SHAFT, arrow
from renderer.picking import ground_on, robot_on
from renderer.scene import Scene
from renderer.smoothing import Smoother, compact
from renderer.snapshot import Frame
from renderer.solids import Solid, Solids

HELP = "H keys  ·  arrows drive  ·  drag to shove or turn  ·  space pause  ·  Esc close"
HELP_PASSIVE = "H keys  ·  drag to turn  ·  space pause  ·  Esc close"
CLICK = 4.0  # what a mouse moves during a click, at most [px]
SHOVE = 1.5  # of a robot's velocity, for a drag as long as the robot [m/s]
SHOVE_MOST = 4.0  # the same, however long the drag [m/s]
FREE_SPEED = 2.0  # of the free camera, in shares of the distance to what it looks at per second
STICK_DEAD = 0.15  # of a gamepad's stick, where it counts as let go
OVERSAMPLE = 2  # what a graphics card shows is drawn so much wider and higher, and averaged

RGBA_BYTES = 0x1908, 0x1401  # GL_RGBA, GL_UNSIGNED_BYTE


class Window:
    """A view of a robot, drawn by Snapshots, or of solids, drawn by Sceneries; a process can have one at a time.

    subject: what is drawn, a robot or a sequence of solids: whatever has their kind, size and colour
    width, height: [px]
    title: of the window, and the first line of the text in it
    visible: False to draw without showing, for ``capture``; without a display, inside ``offscreen_display``
    fps: frames per second; a visible window's ``draw`` waits so as not to exceed it
    terrain: the ground; None for level ground at height 0
    reach: half the size of what the camera looks at [m]: required of solids, a robot has its own
    view: azimuth and elevation of the camera at first [deg]
    across: how large the ground is that it shows at first [m]; 0 for as near as one robot asks for
    shown: names of controls.OVERLAYS, at first
    driven: whether robots obey what is asked of them; else only what changes the view or who watches is offered

    Keys that change the view the window obeys by itself; what else was asked for is in ``requests``. Raises
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
        shown: Collection[str] = SHOWN,
        driven: bool = True,
    ) -> None:
        self.width = width
        self.height = height
        self.visible = visible
        self.shown = set(shown)
        self.requests = Requests()
        self._driven = driven
        self._fps = fps
        self._closing = self._keys = False
        self._pressed: tuple[float, float] | None = None  # where the mouse went down [px]
        self._held: int | None = None  # the robot that is dragged
        self._pull = np.zeros(3)  # how far, along the ground [m, world]
        figure = figure_of(subject, reach)
        rl = self._rl = load_raylib()
        if rl.is_window_ready():
            raise RenderError("a window is already open; close it first")
        self._software = is_software(rl)
        if self._software and visible:
            raise RenderError("this process records without a display, so it cannot show a window; start another")
        if visible:
            end_with_the_display()
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
        # drawn once and smoothed where a processor has to fill every pixel; a graphics card has pixels to spare
        self._smooths = not visible or without_card(rl)
        over = 1 if self._smooths else OVERSAMPLE
        if self._software:
            rl.begin_drawing()  # the first end of a frame handles the window's creation and wipes the picture
            rl.end_drawing()
        else:
            self._canvas = rl.load_render_texture(width * over, height * over)
        if visible:
            self._small = rl.load_render_texture(width, height)
            self._pixels = np.empty((height, width, 4), np.uint8)
            rl.set_texture_filter(self._canvas.texture, rl.TEXTURE_FILTER_BILINEAR)
        self._hud = Hud(rl, title, over)
        self._text = np.zeros((0, 4), int)  # boxes of what is written
        self._smoother = Smoother(width, height, red=2 if self._software else 0)  # the software build stores blue first
        self._read = None
        if not self._software:  # raylib's own function allocates the picture anew, which takes longer than to read it
            kind = "void (*)(int, int, int, int, unsigned int, unsigned int, void *)"
            self._read = rl.ffi.cast(kind, rl.rl_get_proc_address("glReadPixels"))
        self._set_scene(figure, terrain, view, across)

    def stage(
        self,
        subject: Robot | Sequence[Solid],
        title: str,
        terrain: Terrain | None = None,
        reach: float | None = None,
        view: tuple[float, float] = VIEW,
        across: float = 0.0,
    ) -> None:
        """Show something else from now on, seen as before; arguments: as at first."""
        before = self.camera
        self._scene.close()
        self._hud.title = title
        self._rl.set_window_title(title)
        self._set_scene(figure_of(subject, reach), terrain, view, across)
        self.camera.see_like(before)

    def _set_scene(self, figure: Figure, terrain: Terrain | None, view: tuple[float, float], across: float) -> None:
        self._scene = Scene(self._rl, figure, terrain)
        self.camera = Camera(figure.reach, terrain, figure.scale, view, across)

    def draw(self, frame: Frame) -> None:
        """Draw one frame, show it if visible, and read keyboard and mouse."""
        rl = self._rl
        figure = self._scene.figure
        stance = figure.stance(frame) if self.camera.mode in LED else None
        self.camera.follow(self._scene.focus(frame), self._seconds, stance)
        if self._software:
            rl.begin_drawing()
            self._paint(frame)
            rl.end_drawing()
            return
        rl.begin_texture_mode(self._canvas)
        self._paint(frame)
        rl.end_texture_mode()
        if self.visible:
            self._bring_to_screen()
            self._read_input()

    def _paint(self, frame: Frame) -> None:
        marks = []
        if self._held is not None and self._held < len(self._scene.middles) and self._pull.any():
            reach = self._scene.figure.reach
            marks = arrow(self._scene.middles[self._held], self._pull, SHAFT * reach, CORAL)
        self._scene.draw(frame, self.camera, self.width / self.height, self.height, self.shown, marks)
        line = (HELP if self._driven else HELP_PASSIVE) if self.visible and not self._keys else ""
        rows = keys(self._driven) if self._keys else ()
        self._text = self._hud.draw(frame, self.width, self.height, self.shown, line, rows)

    def _bring_to_screen(self) -> None:
        """Show the frame in the window."""
        rl = self._rl
        if self._smooths:
            self.develop(*self.grab(self._pixels))
            rl.update_texture(self._small.texture, rl.ffi.cast("void *", self._smoother.words.ctypes.data))
        rl.begin_drawing()
        if self._smooths:  # stored from the top down
            self._draw_texture(self._small.texture, 1)
        else:
            self._shrink()
        rl.end_drawing()

    def _shrink(self) -> None:
        """Draw the canvas at the window's size; textures are stored from the bottom up."""
        self._draw_texture(self._canvas.texture, -1)

    def _draw_texture(self, texture: Any, way: int) -> None:
        rl = self._rl
        # the canvas keeps the transparency of what was drawn last on it; the picture is opaque
        rl.rl_disable_color_blend()
        rl.draw_texture_pro(
            texture, (0, 0, texture.width, way * texture.height), (0, 0, self.width, self.height), (0, 0), 0.0, rl.WHITE
        )
        rl.rl_draw_render_batch_active()
        rl.rl_enable_color_blend()

    def _read_input(self) -> None:
        """Obey keys and mouse as far as they change the view, and note what else they ask for."""
        rl = self._rl
        self._closing |= rl.window_should_close()  # raylib forgets it after a frame
        shift = rl.is_key_down(rl.KEY_LEFT_SHIFT) or rl.is_key_down(rl.KEY_RIGHT_SHIFT)
        asked = []
        for control in offered(self._driven):
            button = control.button and rl.is_gamepad_button_pressed(0, getattr(rl, f"GAMEPAD_BUTTON_{control.button}"))
            if not (button or rl.is_key_pressed(getattr(rl, f"KEY_{control.key}"))):
                continue
            if control.view:
                self._change_view(control.name)
            else:
                asked.append(control.opposite if shift and control.opposite and not button else control.name)
        for name, (key, _) in OVERLAYS.items():
            if rl.is_key_pressed(getattr(rl, f"KEY_{key}")):
                self.shown ^= {name}
        self.camera.zoom(rl.get_mouse_wheel_move())
        if self.camera.mode == "free":
            self._fly()
        self.requests = Requests(tuple(asked), self._drive(shift), **self._point())

    def _change_view(self, name: str) -> None:
        if name == "camera":
            self.camera.next_mode(self._stands)
        elif name == "home":
            self.camera.home()
        else:
            self._keys = not self._keys

    def _held_keys(self, *pairs: tuple[str, str]) -> list[float]:
        """Return for pairs of keys 1 where the first is held, -1 where the second is, 0 for neither or both."""
        rl = self._rl
        down = [[rl.is_key_down(getattr(rl, f"KEY_{key}")) for key in pair] for pair in pairs]
        return [float(first) - float(second) for first, second in down]

    def _fly(self) -> None:
        """Move the free camera."""
        step = FREE_SPEED * self.camera.distance * self._seconds
        right, up, ahead = self._held_keys(("D", "A"), ("E", "Q"), ("W", "S"))
        self.camera.move(step * right, step * up, step * ahead)

    def _drive(self, shift: bool) -> tuple[float, float, float] | None:
        """Return what arrows and sticks ask for; see Requests."""
        if not self._driven:
            return None
        rl = self._rl
        ahead, left = self._held_keys(("UP", "DOWN"), ("LEFT", "RIGHT"))
        asked = [ahead, left, 0.0] if shift else [ahead, 0.0, left]
        if rl.is_gamepad_available(0):
            for i, axis in enumerate(("LEFT_Y", "LEFT_X", "RIGHT_X")):  # both point to the right and down
                moved = -rl.get_gamepad_axis_movement(0, getattr(rl, f"GAMEPAD_AXIS_{axis}"))
                if abs(moved) > STICK_DEAD:
                    asked[i] = math.copysign((abs(moved) - STICK_DEAD) / (1.0 - STICK_DEAD), moved)
        forward, left, turn = (min(max(x, -1.0), 1.0) for x in asked)
        return (forward, left, turn) if forward or left or turn else None

    def _point(self) -> dict[str, Any]:
        """Obey the mouse: a drag from a robot that obeys shoves it, another turns the camera, a click chooses."""
        rl = self._rl
        left = rl.MOUSE_BUTTON_LEFT
        mouse = rl.get_mouse_position()
        at = mouse.x, mouse.y
        if rl.is_mouse_button_pressed(left):
            self._pressed = at
            self._held = self._robot_at(*at)
            return {}
        if self._pressed is None:
            return {}
        moved = math.dist(at, self._pressed) > CLICK
        if self._driven and self._held is not None and self._held < len(self._scene.middles):
            middle = self._scene.middles[self._held]
            self._pull = (self._ground_at(*at, middle[2]) - middle) * [1.0, 1.0, 0.0] if moved else np.zeros(3)
        elif rl.is_mouse_button_down(left):
            drag = rl.get_mouse_delta()
            self.camera.orbit(drag.x, drag.y)
        if not rl.is_mouse_button_released(left):
            return {}
        held = self._held
        pull = self._pull
        self._pressed = self._held = None
        self._pull = np.zeros(3)
        if not moved and held is not None:
            return {"chosen": held}
        if not self._driven:
            return {}
        if not moved:
            return {"goal": self._ground_at(*at)}
        if held is None:
            return {}
        speed = SHOVE * np.linalg.norm(pull) / (2.0 * self._scene.figure.reach)
        return {"shove": (held, pull / max(np.linalg.norm(pull), 1e-9) * min(speed, SHOVE_MOST))}

    def _robot_at(self, x: float, y: float) -> int | None:
        """Return the number of the robot nearest to the eye at a point of the window [px], None for none."""
        view = self._scene.view
        ray = view.ray(x / self.width, y / self.height)
        return robot_on(ray, view.eye, self._scene.middles, self._scene.figure.reach)

    def _ground_at(self, x: float, y: float, height: float | None = None) -> np.ndarray:
        """Return the point (3) [m, world] at a point of the window [px]: of the ground, or of a level plane.

        height: of the plane [m], None for the ground
        """
        view = self._scene.view
        ray = view.ray(x / self.width, y / self.height)
        if height is None:
            return ground_on(ray, view.eye, self.camera.target[2], self._scene.height)
        return ground_on(ray, view.eye, height)

    @property
    def _seconds(self) -> float:
        """How long a frame takes: what the last one did on a screen, that of the video in a recording [s]."""
        return (self._rl.get_frame_time() if self.visible else 0.0) or 1.0 / self._fps

    @property
    def _stands(self) -> bool:
        """Whether what is drawn has a front and eyes."""
        return isinstance(self._scene.figure, Model)

    @property
    def should_close(self) -> bool:
        """Whether the user pressed Esc or closed the window."""
        return self._closing

    def capture(self) -> np.ndarray:
        """Return the last frame, (height, width, 3) uint8, red green blue, from the top."""
        return compact(self.develop(*self.grab()))

    def grab(self, into: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return what the graphics library has of the last frame: bytes, and the boxes of text; for develop().

        into: (height, width, 4) uint8 to write to, or None
        """
        rl = self._rl
        pixels = np.empty((self.height, self.width, 4), np.uint8) if into is None else into
        if self._software:
            image = rl.load_image_from_screen()
            pixels[:] = np.frombuffer(rl.ffi.buffer(image.data, pixels.size), np.uint8).reshape(pixels.shape)
            rl.unload_image(image)
            return pixels, self._text
        source = self._canvas
        if not self._smooths:
            rl.begin_texture_mode(self._small)
            self._shrink()
            rl.end_texture_mode()
            source = self._small
        rl.rl_enable_framebuffer(source.id)
        self._read(0, 0, self.width, self.height, *RGBA_BYTES, rl.ffi.cast("void *", pixels.ctypes.data))
        rl.rl_disable_framebuffer()
        return pixels, self._text

    def develop(self, pixels: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Return the picture, (height, width, 3) uint8, of what grab() returned, until the next one; on any thread."""
        return self._smoother.smooth(pixels, text) if self._smooths else pixels[::-1, :, :3]

    def close(self) -> None:
        """Close the window; closing twice is harmless."""
        if self._rl.is_window_ready():
            self._rl.close_window()

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()


def figure_of(subject: Robot | Sequence[Solid], reach: float | None) -> Figure:
    """Return what a subject looks like; see Window."""
    return Model(subject) if isinstance(subject, Robot) else Solids(subject, reach)
