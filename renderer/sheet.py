"""Stills of a recording side by side in one picture, however long it turns out to be."""

import pathlib
from collections.abc import Generator, Sequence

import numpy as np
from PIL import Image

STILLS = 12  # of a contact sheet, at most
COLUMNS = 4
SMALLER = 2  # a still is this many times less wide and high than a frame
GAP = 4  # between stills [px]
# Once there are so many, every other one goes, and of those to come only as many are taken: STILLS of what is left are
# even to within an eighth of what lies between two.
CANDIDATES = 8 * STILLS


def contact_sheet(path: pathlib.Path) -> Generator[None, np.ndarray, None]:
    """Take frames by send(), and at close() write a picture of stills spaced evenly over them, first and last included.

    Frames are (H, W, 3) uint8; no more than CANDIDATES are held. Nothing is written of no frames. Raises OSError where
    the picture cannot be written.
    """
    candidates: list[Image.Image] = []
    every = 1
    count = 0
    try:
        while True:
            frame = yield
            latest = Image.fromarray(np.ascontiguousarray(frame)).reduce(SMALLER)
            if count % every == 0:
                candidates.append(latest)
            count += 1
            if len(candidates) == CANDIDATES:
                candidates = candidates[::2]
                every *= 2
    finally:
        if count:
            places = np.linspace(0, count - 1, min(count, STILLS))
            # the last frame shows how it ended
            shown = [candidates[round(place / every)] for place in places[:-1]] + [latest]
            tiled(shown, COLUMNS, GAP).save(path)


def tiled(stills: Sequence[Image.Image], columns: int, gap: int = 0) -> Image.Image:
    """Return pictures of one size in rows of so many columns, on white; gap: between them [px]."""
    width, height = stills[0].size
    columns = min(columns, len(stills))
    rows = -(-len(stills) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for number, still in enumerate(stills):
        row, column = divmod(number, columns)
        sheet.paste(still, (column * (width + gap), row * (height + gap)))
    return sheet
