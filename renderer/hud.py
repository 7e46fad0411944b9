"""Text over the picture: cards of numbers, bars and keys, and a line of help."""

import types
from collections.abc import Collection, Sequence

import numpy as np

from renderer.charts import Bar, Charts
from renderer.controls import SHOWN
from renderer.snapshot import Frame

# [px] of a window of ordinary size
TITLE = 19
BODY = 15
MARGIN = 16
PADDING = 14
SMALL = 12  # of long tables
LINE = 23
TIGHT = 15
BAR = 110  # the longest bars, to either side together
NUMBER = 44  # room for one beside a bar
INK = (34, 41, 51, 255)
MUTED = (104, 115, 128, 255)
ALARM = (214, 58, 66, 255)
CARD = (255, 255, 255, 205)
GOOD = (22, 166, 154, 255)
BAD = (255, 159, 28, 255)
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
        self.title = title
        self._charts = Charts()
        self._scale = scale
        data = _typeface()
        self._fonts = {}
        points = raylib.ffi.new("int[]", GLYPHS)
        for size in (TITLE, BODY, SMALL):
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

    def draw(
        self,
        frame: Frame,
        width: int,
        height: int,
        shown: Collection[str] = SHOWN,
        line: str = "",
        keys: Sequence[tuple[str, str]] = (),
    ) -> np.ndarray:
        """Draw over the picture, and return the boxes that text is in, (K, 4): left, top, right, bottom [px].

        width, height: of the window [px]; shown: names of controls.OVERLAYS; line: of help, at the bottom; keys: and
        what they do, in place of charts
        """
        boxes = []
        if "numbers" in shown:
            boxes.append(self._numbers(frame))
        if keys:
            boxes.append(self._table(width, MARGIN, "keys", keys))
        else:
            top = MARGIN
            for title, bars in self._charts.of(frame.detail, shown):
                boxes.append(self._bars(width, top, title, bars))
                top = boxes[-1][3] + 10
        bottom = height - MARGIN - BODY
        if line:
            self._write(line, MARGIN + 2, bottom, BODY, MUTED)
            boxes.append(np.array([MARGIN, bottom, MARGIN + 4 + self._width(line, BODY), height]))
        if frame.note:
            across = self._width(frame.note, BODY)
            box = np.array([(width - across) / 2 - PADDING, bottom - LINE - 16, (width + across) / 2 + PADDING, 0])
            box[3] = box[1] + BODY + 14
            self._card(box)
            self._write(frame.note, box[0] + PADDING, box[1] + 7, BODY, INK)
            boxes.append(box)
        return np.array(boxes).reshape(-1, 4).round().astype(int)

    def _card(self, box: np.ndarray) -> None:
        """Draw what text stands on; box: left, top, right, bottom [px]."""
        left, top, right, bottom = (float(x) * self._scale for x in box)
        size = right - left, bottom - top
        self._rl.draw_rectangle_rounded((left, top, *size), min(1.0, 20 * self._scale / min(size)), 8, CARD)

    def _numbers(self, frame: Frame) -> np.ndarray:
        """Draw the rows of the frame below the title; return their box."""
        fallen = np.ravel(frame.fallen)[frame.watched if np.ndim(frame.fallen) else 0]
        words = frame.state or f"{frame.time:.1f} s"
        state = ("fallen", ALARM) if fallen else (words, MUTED)
        rows = frame.hud
        label = max((self._width(row[0], BODY) for row in rows), default=0)
        value = max((self._width(row[1], BODY) for row in rows), default=0)
        inner = max(label + 22 + value, self._width(self.title, TITLE) + 26 + self._width(state[0], BODY))
        inner = 12 * -(-inner // 12)  # in steps, so that the card does not tremble with the digits
        tall = 2 * PADDING + TITLE + (LINE * len(rows) + 8 if rows else 0)
        box = np.array([MARGIN, MARGIN, MARGIN + inner + 2 * PADDING, MARGIN + tall])
        self._card(box)
        left = MARGIN + PADDING
        right = MARGIN + PADDING + inner
        y = MARGIN + PADDING
        self._write(self.title, left, y, TITLE, INK)
        self._write(state[0], right - self._width(state[0], BODY), y + 3, BODY, state[1])
        y += TITLE + 8
        for name, text in rows:
            self._write(name, left, y + 4, BODY, MUTED)
            self._write(text, right - self._width(text, BODY), y + 4, BODY, INK)
            y += LINE
        return box

    def _table(self, width: int, top: float, title: str, rows: Sequence[tuple[str, str]]) -> np.ndarray:
        """Draw a card at the right edge, of rows of two words; return its box."""
        first = max(self._width(row[0], SMALL) for row in rows)
        inner = first + 16 + max(self._width(row[1], SMALL) for row in rows)
        left = width - MARGIN - inner - 2 * PADDING
        box = np.array([left, top, width - MARGIN, top + 2 * PADDING + BODY + 4 + TIGHT * len(rows)])
        self._card(box)
        self._write(title, left + PADDING, top + PADDING, BODY, INK)
        for i, (name, text) in enumerate(rows):
            y = top + PADDING + BODY + 6 + TIGHT * i
            self._write(name, left + PADDING, y, SMALL, INK)
            self._write(text, left + PADDING + first + 16, y, SMALL, MUTED)
        return box

    def _bars(self, width: int, top: float, title: str, bars: list[Bar]) -> np.ndarray:
        """Draw a card at the right edge, of names, bars to either side of a middle and numbers; return its box."""
        s = self._scale
        first = max(self._width(name, SMALL) for name, *_ in bars)
        inner = first + 12 + BAR + 8 + NUMBER
        left = width - MARGIN - inner - 2 * PADDING
        box = np.array([left, top, width - MARGIN, top + 2 * PADDING + BODY + 4 + TIGHT * len(bars)])
        self._card(box)
        self._write(title, left + PADDING, top + PADDING, BODY, INK)
        middle = left + PADDING + first + 12 + BAR / 2
        for i, (name, share, number, alarms) in enumerate(bars):
            y = top + PADDING + BODY + 6 + TIGHT * i
            self._write(name, left + PADDING, y, SMALL, MUTED)
            long = min(abs(share), 1.0) * BAR / 2
            colour = ALARM if alarms else GOOD if share > 0 else BAD
            start = middle - (long if share < 0 else 0.0)
            self._rl.draw_rectangle_rec((start * s, (y + 2) * s, max(long, 1.0) * s, (TIGHT - 6) * s), colour)
            right = width - MARGIN - PADDING
            self._write(number, right - self._width(number, SMALL), y, SMALL, INK)
        return box
