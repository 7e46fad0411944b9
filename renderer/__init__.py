"""Shows and records a robot or simple solids; reads their state and writes none.

Nothing of raylib is loaded before a window is opened, so this package imports on machines where
nothing can be drawn.
"""

from renderer.display import RenderError, display_available, offscreen_display
from renderer.picture import Picture, Stills
from renderer.recorder import Film, Recorder
from renderer.snapshot import Scenery, Snapshot
from renderer.web import Web
from renderer.window import Window

__all__ = [
    "Film",
    "Picture",
    "Recorder",
    "RenderError",
    "Scenery",
    "Snapshot",
    "Stills",
    "Web",
    "Window",
    "display_available",
    "offscreen_display",
]
