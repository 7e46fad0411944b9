"""Writes frames to a video, or stills of them to a picture: a file that appears, whole, when the recording ends."""

import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import types
from collections.abc import Generator, Iterator

import numpy as np

from physics.jit import kernel
from renderer.display import RenderError
from renderer.sheet import contact_sheet
from renderer.window import Window

ENCODERS = {
    # yuv420p and the index at the front: what browsers, phones and slides play
    ".mp4": {
        "codec": "libx264",
        "pix_fmt_in": "yuv420p",
        "pix_fmt_out": "yuv420p",
        # 10 s at 1280 x 720 take 2.8 s of one core and 2.7 MB; with small blocks 3.6 s and 2.7 MB, by "veryfast" at 18
        # 12 s and 2.5 MB. One thread, for the other cores draw.
        "output_params": [
            *("-crf", "20", "-preset", "superfast", "-threads", "1", "-movflags", "+faststart"),
            *("-x264-params", "bframes=0:mbtree=1:rc-lookahead=10:partitions=none:8x8dct=0"),
        ],
    },
    # a palette per frame, so that nothing has to be held in memory
    ".gif": {
        "codec": "gif",
        "pix_fmt_out": "pal8",
        "output_params": ["-lavfi", "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"],
    },
    ".webp": {
        "codec": "libwebp_anim",
        "pix_fmt_out": "yuv420p",
        "output_params": ["-quality", "80", "-compression_level", "2", "-loop", "0"],
    },
}
SHEET = ".png"  # of stills


class Recorder:
    """A video being written, or a sheet of stills.

    path: of the file, ending in one of ENCODERS, or in SHEET
    width, height: of the frames, even numbers [px]
    fps: frames per second of the video

    Frames go to a hidden file beside it, renamed by ``close``: a recording that is interrupted
    leaves whatever was at ``path`` as it was. As a context manager it closes, or on an exception
    discards. Raises RenderError if the ending is unknown, a size odd or the folder missing.
    """

    def __init__(self, path: str | os.PathLike, width: int, height: int, fps: int = 50) -> None:
        self.path = pathlib.Path(path)
        self.width = width
        self.height = height
        ending = self.path.suffix.lower()
        if ending not in (*ENCODERS, SHEET):
            raise RenderError(
                f"{self.path}: cannot record a file that ends in {ending or 'nothing'!r}; "
                f"accepted: {', '.join([*ENCODERS, SHEET])}"
            )
        if width % 2 or height % 2 or width <= 0 or height <= 0:
            raise RenderError(f"{self.path}: width and height must be even and positive, got {width} x {height}")
        if self.path.is_dir():
            raise RenderError(f"{self.path}: expected a file, this is a folder")
        if not self.path.parent.is_dir():
            raise RenderError(f"{self.path}: the folder {self.path.parent} does not exist")
        self._part = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{ending}")
        self._frames = 0
        self._planes = "pix_fmt_in" in ENCODERS.get(ending, {})
        self._writer = contact_sheet(self._part) if ending == SHEET else encoder(self._part, (width, height), fps)
        with self._one_line():
            self._writer.send(None)

    def add(self, frame: np.ndarray) -> None:
        """Append a frame: (height, width, 3) uint8, red green blue, from the top."""
        if self._writer is None:
            raise RenderError(f"{self.path}: the recording is closed")
        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise RenderError(
                f"{self.path}: expected a frame of shape {(self.height, self.width, 3)} uint8, "
                f"got {frame.shape} {frame.dtype}"
            )
        with self._one_line():
            self._writer.send(brightness_and_colour(frame) if self._planes else np.ascontiguousarray(frame))
        self._frames += 1

    def close(self) -> None:
        """Finish the file and put it in place; closing twice is harmless."""
        if self._writer is None:
            return
        self._stop()
        if self._frames == 0 or not self._part.exists() or self._part.stat().st_size == 0:
            self._part.unlink(missing_ok=True)
            raise RenderError(
                f"{self.path}: nothing was recorded" if self._frames == 0 else f"{self.path}: the encoder wrote nothing"
            )
        self._part.replace(self.path)

    def discard(self) -> None:
        """Stop without a file; what was at the path stays."""
        if self._writer is not None:
            self._stop()
        self._part.unlink(missing_ok=True)

    def _stop(self) -> None:
        writer = self._writer
        self._writer = None
        with self._one_line():
            writer.close()

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            self._writer = None
            self._part.unlink(missing_ok=True)
            detail = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise RenderError(f"{self.path}: the encoder failed: {detail[-1].strip()}") from None

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def encoder(path: pathlib.Path, size: tuple[int, int], fps: int) -> Generator[None, bytes | np.ndarray | None, None]:
    """Return what takes frames by send(), at first None, and at close() has written a video of them.

    size: width and height [px]; path: its ending chooses among ENCODERS. Raises RenderError without imageio-ffmpeg.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        raise RenderError("recording needs imageio-ffmpeg: pip install imageio-ffmpeg") from None
    return imageio_ffmpeg.write_frames(
        f"file:{path}",  # what is before a colon in a name is a protocol otherwise
        size,
        fps=fps,
        quality=None,
        macro_block_size=1,
        ffmpeg_log_level="error",
        **ENCODERS[path.suffix],
    )


def brightness_and_colour(frame: np.ndarray) -> np.ndarray:
    """Return a frame (H, W, 3) uint8 as yuv420p, (1.5 H W) uint8: brightness, then two planes of colour, smaller.

    By ITU-R BT.601, as players take what does not say. It takes 0.5 ms for 1280 x 720, and ffmpeg's own 3.8, beside
    twice the bytes to pass on.
    """
    height, width, _ = frame.shape
    if frame.strides != (4 * width, 4, 1):  # four bytes to a pixel: a word
        frame = np.dstack([frame, frame[..., :1]])
    words = np.lib.stride_tricks.as_strided(frame, (height, width, 4)).view("<u4")[..., 0]
    planes = np.empty(height * width * 3 // 2, np.uint8)
    y, u, v = np.split(planes, [height * width, height * width * 5 // 4])
    _brightness(words.ravel(), y)
    _colour(words, u.reshape(height // 2, -1), v.reshape(height // 2, -1))
    return planes


class Film:
    """Takes a window's pictures to a video on a thread of its own: they are smoothed and passed on beside drawing."""

    def __init__(self, window: Window, video: Recorder) -> None:
        self._window = window
        self._video = video
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._buffers = itertools.cycle(np.empty((2, window.height, window.width, 4), np.uint8))
        self._last: concurrent.futures.Future | None = None

    def take(self) -> None:
        """Take the picture that the window has drawn."""
        grabbed = self._window.grab(next(self._buffers))
        self._finish()
        self._last = self._pool.submit(lambda: self._video.add(self._window.develop(*grabbed)))

    def _finish(self) -> None:
        if self._last:
            self._last.result()

    def __enter__(self) -> "Film":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._pool.shutdown()


@kernel
def _brightness(words: np.ndarray, y: np.ndarray) -> None:
    # Y = 16 + 65.481 R + 128.553 G + 24.966 B, in 256ths
    low = np.uint32(255)
    for i in range(len(y)):
        word = words[i]
        r = (word & low) * np.uint32(66)
        g = ((word >> np.uint32(8)) & low) * np.uint32(129)
        b = ((word >> np.uint32(16)) & low) * np.uint32(25)
        y[i] = np.uint32(r + g + b + np.uint32(4224)) >> np.uint32(8)


@kernel
def _colour(words: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    # U = 128 - 37.797 R - 74.203 G + 112 B, V = 128 + 112 R - 93.786 G - 18.214 B, in 256ths; of the sum of four pixels
    # red and blue of a word side by side, in 16 bits each
    both = np.uint32(0x00FF00FF)
    for i in range(u.shape[0]):
        upper = words[2 * i]
        lower = words[2 * i + 1]
        for j in range(u.shape[1]):
            a = upper[2 * j]
            b = upper[2 * j + 1]
            c = lower[2 * j]
            d = lower[2 * j + 1]
            outer = np.uint32((a & both) + (b & both) + (c & both) + (d & both))
            red = np.int32(outer & np.uint32(0xFFFF))
            blue = np.int32(outer >> np.uint32(16))
            a = (a >> np.uint32(8)) & np.uint32(255)
            b = (b >> np.uint32(8)) & np.uint32(255)
            c = (c >> np.uint32(8)) & np.uint32(255)
            d = (d >> np.uint32(8)) & np.uint32(255)
            green = np.int32(a + b + c + d)
            u[i, j] = np.int32(np.int32(131584) - 38 * red - 74 * green + 112 * blue) >> np.int32(10)
            v[i, j] = np.int32(np.int32(131584) + 112 * red - 94 * green - 18 * blue) >> np.int32(10)
