"""Smooth edges in a picture that was drawn without: what its colours show of them, blended along.

Mesa's software renderer draws 1280 x 720 pixels in 10 ms; four times as many, averaged, take 30. This takes 2.3. After
Timothy Lottes, "FXAA", NVIDIA white paper, 2009 (version 3.11's quality: edges are followed to both ends).
"""

import numpy as np

from physics.jit import inline, kernel

LEAST = 10  # difference in brightness, of 255, from which on neighbours make an edge; and a share of the brighter one
SHARE = 0.125
STRIDES = np.array([1, 1, 1, 1, 1, 2, 2, 4, 8])  # in which an edge is followed to either side [pixel]
FURTHEST = int(STRIDES.sum()) + 1  # that an edge is followed [pixel]
SPECKS = 0.75  # how much of what is smaller than a pixel is blended away


class Smoother:
    """Smooths pictures of one size, into memory of its own: to ask for new at every picture takes longer than the rest.

    width, height: [pixel]; red: which channel of what OpenGL gives red is, 0 or 2
    """

    def __init__(self, width: int, height: int, red: int = 0) -> None:
        self._swapped = red == 2
        self.words = np.empty((height, width), np.uint32)  # of the picture, four bytes a pixel, red first
        self._brightness = np.empty((height, width), np.float32)
        self._edges = np.empty(width, np.bool_)

    def smooth(self, pixels: np.ndarray, sharp: np.ndarray | None = None) -> np.ndarray:
        """Return a picture with smooth edges, (H, W, 3) uint8 red green blue, from the top, until the next one.

        pixels: (H, W, 4) uint8 from the bottom, as OpenGL has them; sharp: (K, 4) rectangles that stay as they are:
        left, top, right, bottom [pixel]. The picture is a view of four bytes a pixel.
        """
        sharp = np.zeros((0, 4), np.int64) if sharp is None else np.asarray(sharp, np.int64)
        words = pixels.view("<u4")[..., 0]
        _smooth(words, self._swapped, self._brightness, self._edges, sharp, self.words)
        return self.words.view(np.uint8).reshape(*self.words.shape, 4)[..., :3]


@kernel
def compact(picture: np.ndarray) -> np.ndarray:
    """Return a copy of a picture (H, W, 3) without gaps between pixels: in 0.9 ms for 1280 x 720, NumPy takes 8."""
    out = np.empty(picture.shape, np.uint8)
    for i in range(picture.shape[0]):
        source = picture[i]
        target = out[i]
        for j in range(picture.shape[1]):
            target[j, 0] = source[j, 0]
            target[j, 1] = source[j, 1]
            target[j, 2] = source[j, 2]
    return out


@inline
def _end(
    brightness: np.ndarray, i: int, j: int, across: int, step: int, along: int, mean: float, least: float
) -> tuple:
    """Follow an edge to its end; return how far that is [pixel], and by how much its brightness differs from the mean.

    across: 1 for an edge between columns, 0 between rows; step: 1 or -1, to its other side; along: 1 or -1
    """
    height, width = brightness.shape
    length = 0
    differs = 0.0
    for stride in STRIDES:
        length += stride
        row = i + along * length if across else i
        column = j if across else j + along * length
        if row < 0 or row >= height or column < 0 or column >= width:
            break
        beside = brightness[row, column + step] if across else brightness[row + step, column]
        differs = 0.5 * (float(brightness[row, column]) + float(beside)) - mean
        if abs(differs) >= least:
            break
    return length, differs


@inline
def _blending(brightness: np.ndarray, i: int, j: int) -> tuple:
    """Return how a pixel at an edge is blended: with its neighbour a step away, across a row or not, by which share."""
    m = float(brightness[i, j])
    up = float(brightness[i - 1, j])
    down = float(brightness[i + 1, j])
    left = float(brightness[i, j - 1])
    right = float(brightness[i, j + 1])
    a = float(brightness[i - 1, j - 1])
    b = float(brightness[i - 1, j + 1])
    c = float(brightness[i + 1, j - 1])
    d = float(brightness[i + 1, j + 1])
    rows = abs(a + c - 2 * left) + 2 * abs(up + down - 2 * m) + abs(b + d - 2 * right)
    columns = abs(a + b - 2 * up) + 2 * abs(left + right - 2 * m) + abs(c + d - 2 * down)
    across = int(columns > rows)  # the edge is between columns
    first, second = (left, right) if across else (up, down)
    step = -1 if abs(first - m) >= abs(second - m) else 1
    other = first if step < 0 else second
    least = 0.25 * abs(other - m)
    mean = 0.5 * (other + m)
    # The edge ends where the mean of its two sides is another one. A pixel is on the side that is cut off at the nearer
    # end, or it is not.
    back, differs_back = _end(brightness, i, j, across, step, -1, mean, least)
    ahead, differs_ahead = _end(brightness, i, j, across, step, 1, mean, least)
    differs = differs_back if back < ahead else differs_ahead
    share = 0.5 - min(back, ahead) / (back + ahead) if (m < mean) != (differs < 0.0) else 0.0
    spread = max(max(m, up), max(down, max(left, right))) - min(min(m, up), min(down, min(left, right)))
    speck = min(abs((2 * (up + down + left + right) + a + b + c + d) / 12 - m) / spread, 1.0)
    speck = speck * speck * (3 - 2 * speck)
    return step, across, max(share, speck * speck * SPECKS)


# Functions of their own: inlined into the loop over rows, these loops become no vector instructions.
@kernel
def _turn_row(source: np.ndarray, swapped: bool, target: np.ndarray, brightness: np.ndarray) -> None:
    """Write a row of the picture, red first, and its brightness; swapped: whether blue is first."""
    low = np.uint32(255)
    for j in range(len(target)):
        word = source[j]
        if swapped:
            word = (word & np.uint32(0xFF00FF00)) | ((word & low) << np.uint32(16)) | ((word >> np.uint32(16)) & low)
        target[j] = word
        # by way of int32: AVX2 turns no uint32 into float32
        r = np.float32(np.int32(word & low))
        g = np.float32(np.int32((word >> np.uint32(8)) & low))
        b = np.float32(np.int32((word >> np.uint32(16)) & low))
        brightness[j] = np.float32(0.30) * r + np.float32(0.59) * g + np.float32(0.11) * b


@kernel
def _find_edges(above: np.ndarray, here: np.ndarray, below: np.ndarray, edges: np.ndarray) -> None:
    """Write which pixels of a row differ enough from their neighbours."""
    for j in range(1, len(here) - 1):
        m = here[j]
        high = max(max(max(m, above[j]), max(below[j], here[j - 1])), here[j + 1])
        low = min(min(min(m, above[j]), min(below[j], here[j - 1])), here[j + 1])
        edges[j] = high - low >= max(np.float32(LEAST), np.float32(SHARE) * high)


@kernel
def _smooth(
    words: np.ndarray, swapped: bool, brightness: np.ndarray, edges: np.ndarray, sharp: np.ndarray, out: np.ndarray
) -> None:
    """Write a picture with its edges blended.

    words: (H, W) uint32, four channels each, from the bottom; swapped: whether blue is first; brightness: (H, W)
    float32 and edges: (W) bool, of no matter what; out: (H, W) uint32 from the top, red first
    """
    height = len(out)
    for row in range(height + FURTHEST):
        if row < height:
            _turn_row(words[height - 1 - row], swapped, out[row], brightness[row])
        i = row - FURTHEST  # the search along an edge has read this far ahead
        if i < 1 or i >= height - 1:
            continue
        _find_edges(brightness[i - 1], brightness[i], brightness[i + 1], edges)
        for box in range(len(sharp)):
            if sharp[box, 1] <= i < sharp[box, 3]:
                edges[max(sharp[box, 0], 0) : max(sharp[box, 2], 0)] = False
        for j in range(1, brightness.shape[1] - 1):
            if edges[j]:
                step, across, share = _blending(brightness, i, j)
                if share > 0.0:
                    mine = words[height - 1 - i, j]
                    theirs = words[height - 1 - i, j + step] if across else words[height - 1 - i - step, j]
                    blended = np.uint32(0)
                    for bits in range(0, 24, 8):
                        own = float((mine >> bits) & 255)
                        mixed = np.uint32(own + (float((theirs >> bits) & 255) - own) * share + 0.5)
                        blended |= mixed << np.uint32(16 - bits if swapped else bits)
                    out[i, j] = blended
