"""Which display to draw on, and which build of raylib; nothing here is loaded before it is needed."""

import contextlib
import ctypes
import importlib
import logging
import os
import pathlib
import select
import shutil
import socket
import subprocess
import sys
import types
from collections.abc import Iterator

SOFTWARE_FOLDER = pathlib.Path(sys.prefix) / "software-renderer"  # pip install --no-deps --target THIS raylib_software
SCREEN = "1280x720x24"  # of Xvfb; drawing goes to a texture of its own size, so this bounds nothing
GL_RENDERER = 0x1F01
START_SECONDS = 10.0  # for Xvfb to answer


class RenderError(RuntimeError):
    """Something cannot be drawn or recorded; the message is one line that says what to do."""


def without_card(raylib: types.ModuleType) -> bool:
    """Return whether a processor does the work of a graphics card, in the window that is open."""
    if is_software(raylib):
        return True
    ffi = raylib.ffi
    describe = ffi.cast("const char * (*)(unsigned int)", raylib.rl_get_proc_address("glGetString"))
    renderer = ffi.string(describe(GL_RENDERER)).decode().lower()
    return any(name in renderer for name in ("llvmpipe", "softpipe", "swrast", "swiftshader", "software"))


def display_available() -> bool:
    """Return whether a window could be shown: always on macOS and Windows, elsewhere if X or Wayland answers."""
    if sys.platform in ("darwin", "win32"):
        return True
    return _wayland_answers() or _x_answers()


def _wayland_answers() -> bool:
    name = os.environ.get("WAYLAND_DISPLAY")
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    if not name:
        return False
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.connect(str(pathlib.Path(folder) / name))
        return True
    return False


def _x_answers() -> bool:
    if not os.environ.get("DISPLAY"):
        return False
    with _x_connection(os.environ["DISPLAY"]) as connected:
        return connected


@contextlib.contextmanager
def _x_connection(name: str) -> Iterator[bool]:
    """Hold a connection to an X server through libX11, which knows the user's authority; yield whether it opened."""
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        yield False
        return
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XOpenDisplay.argtypes = [ctypes.c_char_p]
    x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
    handle = x11.XOpenDisplay(name.encode())
    try:
        yield bool(handle)
    finally:
        if handle:
            x11.XCloseDisplay(handle)


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
def _gone(_: int | None) -> int:
    """End the process in one line, where X would end it in three: its library must not return from here."""
    print(f"{pathlib.Path(sys.argv[0]).name}: the display has gone", file=sys.stderr, flush=True)
    os._exit(2)


def end_with_the_display() -> None:
    """Let the process end with exit code 2 when the X server that it shows a window on ends, or is lost."""
    with contextlib.suppress(OSError):
        ctypes.CDLL("libX11.so.6").XSetIOErrorHandler(_gone)


def load_raylib() -> types.ModuleType:
    """Return the module ``pyray``, silenced: its log goes to standard output, which belongs to the program.

    Raises RenderError if it is missing or cannot load.
    """
    logging.getLogger("raylib").setLevel(logging.CRITICAL)
    try:
        raylib = importlib.import_module("pyray")
        raylib.set_trace_log_level(raylib.LOG_NONE)
    except (ImportError, OSError, AttributeError) as error:  # AttributeError: the unrelated package of that name
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RenderError(
            f"raylib cannot be loaded ({reason}): pip install raylib, and on Linux apt-get install libx11-6"
        ) from None
    return raylib


def is_software(raylib: types.ModuleType) -> bool:
    """Return whether this build of raylib draws with the CPU."""
    return raylib.rl_get_version() == raylib.RL_OPENGL_SOFTWARE


@contextlib.contextmanager
def quiet_standard_output() -> Iterator[None]:
    """Keep compiled code from writing to standard output, which the software build does in spite of its log level."""
    sys.stdout.flush()
    keep = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        if os.name == "posix":
            ctypes.CDLL(None).fflush(None)
        os.dup2(keep, 1)
        os.close(keep)
        os.close(nothing)


@contextlib.contextmanager
def offscreen_display(order: tuple[str, ...] = ("display", "xvfb", "software")) -> Iterator[str]:
    """Prepare the process for hidden windows, and yield which way was found.

    order: what to try: a real ``display``; ``xvfb``, started here and ended on leaving; the
    ``software`` build of raylib in SOFTWARE_FOLDER, which needs no display at all

    A window still open on leaving is closed. Raises RenderError if there is no way.
    """
    ways = {"display": _real, "xvfb": _xvfb, "software": _software}
    with contextlib.ExitStack() as stack:
        for way in order:
            if stack.enter_context(ways[way]()):
                stack.callback(_close_window)
                yield way
                return
        raise RenderError(
            "no display to record on: apt-get install xvfb, "
            f"or pip install --no-deps --target {SOFTWARE_FOLDER} raylib_software"
        )


def _close_window() -> None:
    """Close a forgotten window: with its X server gone, the next call to X would end the process."""
    raylib = sys.modules.get("pyray")
    if raylib is not None and raylib.is_window_ready():
        raylib.close_window()


@contextlib.contextmanager
def _real() -> Iterator[bool]:
    yield display_available() and not _loaded_software()


@contextlib.contextmanager
def _xvfb() -> Iterator[bool]:
    """Run an X server in memory on a display number that it picks itself."""
    program = shutil.which("Xvfb")
    try:
        ctypes.CDLL("libGL.so.1")
    except OSError:
        program = None
    if program is None or _loaded_software():
        yield False
        return
    read, write = os.pipe()
    # -terminate: the server ends with its last client, so it does not outlive a killed process; a
    # session of its own: Ctrl-C in the terminal must not take the server from under the window.
    command = [program, "-displayfd", str(write), "-screen", "0", SCREEN, "-nolisten", "tcp", "-terminate"]
    server = subprocess.Popen(
        command, pass_fds=[write], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], START_SECONDS)
        name = ":" + os.read(read, 16).decode().strip() if ready else ":"
        if name == ":":
            yield False
            return
        with _x_connection(name) as connected, _environment(DISPLAY=name, WAYLAND_DISPLAY=None, XDG_SESSION_TYPE="x11"):
            yield connected
    finally:
        os.close(read)
        server.terminate()
        server.wait()


@contextlib.contextmanager
def _software() -> Iterator[bool]:
    """Load raylib's software build in place of the usual one, for the rest of the process."""
    if not (SOFTWARE_FOLDER / "pyray").is_dir() or ("pyray" in sys.modules and not _loaded_software()):
        yield False
        return
    if "pyray" not in sys.modules:
        sys.path.insert(0, str(SOFTWARE_FOLDER))
        try:
            load_raylib()
        finally:
            sys.path.remove(str(SOFTWARE_FOLDER))
    with _environment(SDL_VIDEODRIVER="dummy"):
        yield True


def _loaded_software() -> bool:
    return "pyray" in sys.modules and SOFTWARE_FOLDER in pathlib.Path(sys.modules["pyray"].__file__).parents


@contextlib.contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    """Set environment variables, or remove those given None, and put them back."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _assign(values)
        yield
    finally:
        _assign(before)


def _assign(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
