"""Text over the picture: a card of label and value rows, and a line of help."""

import types

import numpy as np

from renderer.snapshot import Frame

# [px] of a window of ordinary size
TITLE = 19
BODY = 15
MARGIN = 16
PADDING = 14
LINE = 23
INK = (34, 41, 51, 255)
MUTED = (104, 115, 128, 255)
ALARM = (214, 58, 66, 255)
CARD = (255, 255, 255, 205)
GLYPHS = [*range(32, 127), *map(ord, "°²·×–")]


def _typeface() -> bytes | None:
    """Return a TrueType font: the one that Pillow carries (Aileron, public domain), or None without Pillow."""
    try:
        from PIL import ImageFont

        return bytes(ImageFont.load_default(16).font_bytes)
    except (ImportError, AttributeError, OSError):
        return None


class Hud:
    """The text of a window.

    raylib: the module, with its window open
    title: on the first line
    scale: pixels drawn per pixel shown
    """

    def __init__(self, raylib: types.ModuleType, title: str, scale: int) -> None:
        self._rl = raylib
        self._title = title
        self._scale = scale
        data = _typeface()
        self._fonts = {}
        points = raylib.ffi.new("int[]", GLYPHS)
        for size in (TITLE, BODY):
            if data is None:
                self._fonts[size] = raylib.get_font_default()
                continue
            glyphs = raylib.ffi.cast("int *", points)
            self._fonts[size] = raylib.load_font_from_memory(".ttf", data, len(data), size * scale, glyphs, len(GLYPHS))
            raylib.set_texture_filter(self._fonts[size].texture, raylib.TEXTURE_FILTER_BILINEAR)

    def _write(self, text: str, x: float, y: float, size: int, colour: tuple) -> None:
        self._rl.draw_text_ex(
            self._fonts[size], text, (x * self._scale, y * self._scale), size * self._scale, 0.5 * self._scale, colour
        )

    def _width(self, text: str, size: int) -> float:
        return self._rl.measure_text_ex(self._fonts[size], text, size * self._scale, 0.5 * self._scale).x / self._scale

    def draw(self, frame: Frame, paused: bool, height: int, help_line: str) -> np.ndarray:
        """Draw over the picture, and return the boxes that text is in, (K, 4): left, top, right, bottom [px].

        height: of the window [px]
        """
        rl = self._rl
        s = self._scale
        fallen = np.ravel(frame.fallen)[frame.watched if np.ndim(frame.fallen) else 0]
        state = ("fallen", ALARM) if fallen else ("paused", MUTED) if paused else (f"{frame.time:.1f} s", MUTED)
        rows = frame.hud
        label = max((self._width(row[0], BODY) for row in rows), default=0)
        value = max((self._width(row[1], BODY) for row in rows), default=0)
        inner = max(label + 22 + value, self._width(self._title, TITLE) + 26 + self._width(state[0], BODY))
        inner = 12 * -(-inner // 12)  # in steps, so that the card does not tremble with the digits
        tall = 2 * PADDING + TITLE + (LINE * len(rows) + 8 if rows else 0)
        box = (MARGIN * s, MARGIN * s, (inner + 2 * PADDING) * s, tall * s)
        rl.draw_rectangle_rounded(box, min(1.0, 20 * s / min(box[2:])), 8, CARD)
        left = MARGIN + PADDING
        right = MARGIN + PADDING + inner
        y = MARGIN + PADDING
        self._write(self._title, left, y, TITLE, INK)
        self._write(state[0], right - self._width(state[0], BODY), y + 3, BODY, state[1])
        y += TITLE + 8
        for name, text in rows:
            self._write(name, left, y + 4, BODY, MUTED)
            self._write(text, right - self._width(text, BODY), y + 4, BODY, INK)
            y += LINE
        if help_line:
            self._write(help_line, MARGIN + 2, height - MARGIN - BODY, BODY, MUTED)
        boxes = [np.array([MARGIN, MARGIN, MARGIN + inner + 2 * PADDING, MARGIN + tall])]
        return np.array(boxes).round().astype(int)
