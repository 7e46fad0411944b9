"""A page that shows frames to browsers, through viser: meshes are sent once, and then poses alone."""

import contextlib
import importlib.util
import io
import math
import socket
import time
import types
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from physics.robot import Robot
from physics.terrain import Terrain
from renderer import land
from renderer.camera import FIELD_OF_VIEW, VIEW, Camera
from renderer.controls import IN_SPACE, SHOWN, Requests
from renderer.display import RenderError
from renderer.figure import Figure, place
from renderer.instances import Copies, Instances, Places
from renderer.light import EARTH, SKY, SUN, SUN_COLOUR, encode
from renderer.model import upright
from renderer.overlays import Overlays, Strokes
from renderer.panel import Panel
from renderer.picking import ground_on, robot_on
from renderer.scene import BACKGROUND, FADE, TILE, TILES
from renderer.shapes import drum, revolve
from renderer.snapshot import Frame
from renderer.solids import Solid
from renderer.window import figure_of

HOST = "127.0.0.1"  # reached from this machine alone
PORT = 8080
FPS = 30  # of poses; those of 64 robots to one browser take 16 to 24 % of a core, 0.4 % where nobody looks
SHOVE = 1.5  # of a robot's velocity, at a click [m/s]
MOST_TRIANGLES = 400_000  # of all robots
GHOST_OPACITY = 0.4
SHADOW = 0.4  # how dark it is on the ground
AWAY = 1.4  # of a window's distance, for the panel takes a part of the page
LIGHT = 1.5 * math.pi  # of a window's; three.js shares light out over the half of all directions, and its film darkens
SIDES = 8  # of strokes
SINK = 0.003  # of the floor, in robots: feet are pressed into it [m]


class Web:
    """A page with robots or solids on it, which draws what Window draws and can stand in its place.

    subject, title, terrain, reach, view, across, shown, driven: as for Window
    host, port: where browsers find it; port 0 for one that is free
    checkpoints: names to choose from; checkpoint: the one that is shown at first

    What users asked for since the frame before is in ``requests``. Raises RenderError if viser is missing, or the port
    cannot be had.
    """

    should_close = False  # who closes the page goes on watching

    def __init__(
        self,
        subject: Robot | Sequence[Solid],
        title: str = "Foal",
        host: str = HOST,
        port: int = PORT,
        terrain: Terrain | None = None,
        reach: float | None = None,
        view: tuple[float, float] = VIEW,
        across: float = 0.0,
        shown: Collection[str] = SHOWN,
        driven: bool = True,
        checkpoints: Sequence[str] = (),
        checkpoint: str = "",
    ) -> None:
        self.requests = Requests()
        self._camera: Camera | None = None
        self._watched = 0
        self._next = time.perf_counter()  # when a frame may be drawn
        self._last = self._next
        self._server = _serve(host, port)
        self._open = True
        self._driven = driven
        self.address = page_address(host, self._server.get_port())
        gui = self._server.gui
        gui.configure_theme(show_logo=False, show_share_button=False)
        self._panel = Panel(gui, shown, driven, checkpoints, checkpoint)
        scene = self._server.scene
        scene.set_background_image(np.tile(encode(BACKGROUND), (2, 2, 1)), "png")
        scene.configure_default_lights(False)
        scene.configure_environment_map(None)
        brightest = SUN_COLOUR.max()
        scene.add_light_directional(
            "/sun",
            color=_bytes(SUN_COLOUR / brightest),
            intensity=LIGHT * brightest,
            cast_shadow=True,
            position=10 * SUN,
        )
        brightest = SKY.max()
        scene.add_light_hemisphere(
            "/sky", sky_color=_bytes(SKY / brightest), ground_color=_bytes(EARTH / brightest),
            intensity=LIGHT * brightest, position=(0.0, 0.0, 1.0),
        )  # fmt: skip
        scene.on_click()(lambda event: self._click(event, "choose"))
        if driven:
            scene.on_click(modifier="shift")(lambda event: self._click(event, "shove"))
            self._panel.shove.on_click(lambda event: self._shove(self._watched, _sight(event.client.camera)))
        try:
            self.stage(subject, title, terrain, reach, view, across)
        except BaseException:  # what cannot be drawn leaves no port in use
            self.close()
            raise

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
        server = self._server
        figure = self._figure = figure_of(subject, reach)
        self._terrain = terrain
        self._copies: Copies | None = None  # made when it is known how many they are
        self._ghosts: Copies | None = None
        self._lines: list[Instances] = []
        self._stroked: list[Places | None] = [None, None]  # where they were
        self._floor: np.ndarray | None = None  # where the ground is
        self._middles = np.zeros((0, 3))
        self._overlays = Overlays(figure.reach, self._height)
        before = self._camera
        camera = self._camera = Camera(figure.reach, None, figure.scale, view, across)
        fade = [k * camera.distance + figure.scale * more for k, more in zip((2, 3), FADE, strict=True)]
        with server.atomic():
            server.gui.set_panel_label(title)
            if before is not None:
                self._ground.remove()
                self._figures.remove()
            if terrain is None:
                data, self._step = land.floor(TILES, TILE * figure.scale, fade[1])
            else:
                data = land.relief(terrain, TILES)
            self._ground = server.scene.add_glb("/ground", data, receive_shadow=SHADOW)
            self._figures = server.scene.add_frame("/figures", show_axes=False)
            # which viser takes for linear here
            server.scene.configure_fog(*fade, color=tuple(np.rint(255 * BACKGROUND).astype(int).tolist()))
            server.initial_camera.position = self._home(camera)
            server.initial_camera.look_at = np.zeros(3)
            server.initial_camera.fov = math.radians(FIELD_OF_VIEW)
            if before is not None and camera.distance != before.distance:
                for client in server.get_clients().values():
                    client.camera.position = np.asarray(client.camera.position) * camera.distance / before.distance
                    client.camera.look_at = np.zeros(3)
        self._complete = False

    @staticmethod
    def _home(camera: Camera) -> np.ndarray:
        """Return where a camera is at first, (3) from what it looks at [m]."""
        camera.target = np.zeros(3)
        position = AWAY * camera.position
        camera.target = None
        return position

    def _height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the height of the ground at x, y [m], of arrays."""
        return self._terrain.height(x, y) if self._terrain else np.zeros(np.shape(x))

    def _level(self, x: float, y: float) -> float:
        """Return the height of the ground about x, y, in the mean over the size of a robot [m]."""
        around = self._figure.reach * np.array([-0.5, 0.0, 0.5])
        return float(self._height(x + around, y + around[:, None]).mean())

    def draw(self, frame: Frame) -> None:
        """Send what a frame changes to those that look, and note what they ask for; wait so as not to exceed FPS.

        Where nobody looks, nothing is computed, but for the first frame: a page is never empty.
        """
        now = time.perf_counter()
        if now < self._next:
            time.sleep(self._next - now)
        self._next = max(self._next + 1 / FPS, now)  # one that is late is made up for
        if not self._complete or self._server.get_clients():
            with self._server.atomic():
                self._send(frame)
            self._complete = True
        self.requests = self._panel.take()

    def _send(self, frame: Frame) -> None:
        shown = self.shown
        figure = self._figure
        pose = place(figure, frame, self._terrain, "forces" in shown)
        self._middles = pose.origin[:, 0]
        self._watched = frame.watched
        self._look_at(frame)
        if self._copies is None:
            self._copies = Copies(self._server.scene, "/figures/robots", self._drawn(len(pose.origin)))
        self._copies.move(pose, self._camera.target)
        haunted = frame.ghost is not None and "ghosts" in shown
        if haunted:
            if self._ghosts is None:
                self._ghosts = Copies(self._server.scene, "/figures/ghosts", figure, GHOST_OPACITY)
            self._ghosts.move(place(figure, frame.ghost, self._terrain), self._camera.target)
        if self._ghosts is not None:
            self._ghosts.show(haunted)
        stance = figure.stance(frame) if not shown.isdisjoint(IN_SPACE) else None
        self._stroke(Strokes.joined([*self._overlays.strokes(frame, stance, shown)]))
        self._panel.write(frame)

    def _look_at(self, frame: Frame) -> None:
        """Move the ground against what is watched; a level floor stays below it, less whole pairs of its tiles.

        All is placed as seen from what is watched, so that every user's camera stays where that user has put it. (In a
        node that moves, copies would tremble: browsers move nodes at once and copies a picture later.)
        """
        now = time.perf_counter()
        if self._camera.target is None or self._panel.follow:
            self._camera.follow(self._figure.focus(frame, self._level), now - self._last)
        self._last = now
        place = -self._camera.target
        if self._terrain is None:
            place[:2] = np.fmod(place[:2], self._step)
            place[2] -= SINK * self._figure.scale
        if not np.array_equal(place, self._floor):
            self._floor = self._ground.position = place

    def _drawn(self, count: int) -> Figure:
        """Return the figure, with fewer triangles where there are many of it."""
        figure = self._figure
        while count * len(figure.triangles) > MOST_TRIANGLES and (coarser := figure.coarser()):
            figure = coarser
        return figure

    def _stroke(self, strokes: Strokes) -> None:
        """Show strokes as rods, and those that end in a point as cones."""
        if not self._lines:
            if not len(strokes.start):
                return
            cone = [[0.0, 0.0, -1, 0], [0.0, 0.5, -1, 0], [0.0, 0.5, 0.45, 0.89], [1.0, 0.0, 0.45, 0.89]]
            for name, shape in {
                "rods": drum([0, 0, 0], [0, 0, 1], 0.5, 0.0, SIDES),
                "cones": revolve([0, 0, 0], [0, 0, 1], cone, SIDES),
            }.items():
                black = np.zeros_like(shape.vertices)  # and what is added to it
                self._lines.append(Instances(self._server.scene, f"/figures/{name}", shape, black, casts=False))
        opacity = strokes.colour[:, 3:] / 255
        colour = land.before_film((strokes.colour[:, :3] / 255) ** 2.2 * opacity + BACKGROUND * (1 - opacity))
        pointed = strokes.width.min(1) < 1e-6
        backwards = (strokes.width[:, 0] < strokes.width[:, 1])[:, None]
        start = np.where(backwards, strokes.end, strokes.start)
        way = np.where(backwards, strokes.start, strokes.end) - start
        length = np.linalg.norm(way, axis=1)
        width = strokes.width.max(1)
        turn = upright(way)
        shape = turn * np.stack([width, width, length], 1)[:, None]
        places = Places.packed(shape[:, None], turn[:, None], (start - self._camera.target)[:, None], colour[:, None])
        for number, which in enumerate((~pointed, pointed)):
            instances = self._lines[number]
            instances.visible = bool(which.any())
            if which.any():
                some = places.of(which)
                before = self._stroked[number] or (None,) * len(some)
                instances.move(some, [not np.array_equal(*pair) for pair in zip(some, before, strict=True)])
                self._stroked[number] = some

    def _click(self, event: Any, what: str) -> None:
        """Obey a click: on a robot it chooses or shoves it, on the ground it sets a goal."""
        target = self._camera.target
        if target is None:
            return
        eye = np.asarray(event.ray_origin) + target
        ray = np.asarray(event.ray_direction, float)
        ray /= np.linalg.norm(ray)
        robot = robot_on(ray, eye, self._middles, self._figure.reach)
        if robot is None:
            if what == "choose" and self._driven:
                self._panel.ask(goal=ground_on(ray, eye, target[2], self._height))
        elif what == "choose":
            self._panel.ask(chosen=robot)
        else:
            self._shove(robot, ray)

    def _shove(self, robot: int, way: np.ndarray) -> None:
        """Ask that a robot is pushed along the ground, in the direction of a way (3) [world]."""
        level = way * [1.0, 1.0, 0.0]
        self._panel.ask(shove=(robot, SHOVE * level / max(np.linalg.norm(level), 1e-9)))

    @property
    def shown(self) -> set[str]:
        """Names of controls.OVERLAYS that are shown."""
        return self._panel.shown

    def close(self) -> None:
        """Stop serving; browsers keep the last picture. Closing twice is harmless."""
        if self._open:
            self._open = False
            with contextlib.redirect_stdout(io.StringIO()):  # viser's farewell
                self._server.stop()

    def __enter__(self) -> "Web":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()


def page_address(host: str, port: int) -> str:
    """Return where browsers find a page."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def free_port(host: str, port: int) -> int:
    """Return a port that a page can have, any that is free for 0.

    Raises RenderError if it is taken, and without viser.
    """
    if importlib.util.find_spec("viser") is None:
        raise RenderError("--web needs viser, which is not installed: pip install viser")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family) as server:
            return server.getsockname()[1]
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RenderError(f"--web: expected an address that is free, got {host}:{port}: {reason}") from None


def _serve(host: str, port: int) -> Any:
    """Return viser's server, which would take another port than one that cannot be had."""
    port = free_port(host, port)
    import viser

    with contextlib.redirect_stdout(io.StringIO()):  # viser's welcome
        return viser.ViserServer(host, port, verbose=False)


def _sight(camera: Any) -> np.ndarray:
    """Return where a browser's camera looks, (3) [world]."""
    return np.asarray(camera.look_at) - np.asarray(camera.position)


def _bytes(colour: np.ndarray) -> tuple[int, int, int]:
    """Return a linear colour (3) as bytes for a screen."""
    return tuple(encode(colour).tolist())
