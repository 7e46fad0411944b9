"""Writes frames to a video file that appears, whole, when the recording ends."""

import contextlib
import os
import pathlib
import types
from collections.abc import Iterator

import numpy as np

from renderer.display import RenderError

ENCODERS = {
    # yuv420p and the index at the front: what browsers, phones and slides play
    ".mp4": {
        "codec": "libx264",
        "pix_fmt_out": "yuv420p",
        "output_params": ["-crf", "18", "-preset", "veryfast", "-movflags", "+faststart"],
    },
    # a palette per frame, so that nothing has to be held in memory
    ".gif": {
        "codec": "gif",
        "pix_fmt_out": "pal8",
        "output_params": ["-lavfi", "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"],
    },
}


class Recorder:
    """A video being written.

    path: of the video, ending in .mp4 or .gif
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
        if ending not in ENCODERS:
            raise RenderError(
                f"{self.path}: cannot record a file that ends in {ending or 'nothing'!r}; "
                f"accepted: {', '.join(ENCODERS)}"
            )
        if width % 2 or height % 2 or width <= 0 or height <= 0:
            raise RenderError(f"{self.path}: width and height must be even and positive, got {width} x {height}")
        if self.path.is_dir():
            raise RenderError(f"{self.path}: expected a file, this is a folder")
        if not self.path.parent.is_dir():
            raise RenderError(f"{self.path}: the folder {self.path.parent} does not exist")
        try:
            import imageio_ffmpeg
        except ImportError:
            raise RenderError("recording needs imageio-ffmpeg: pip install imageio-ffmpeg") from None
        self._part = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{ending}")
        self._frames = 0
        self._writer = imageio_ffmpeg.write_frames(
            str(self._part),
            (width, height),
            fps=fps,
            quality=None,
            macro_block_size=1,
            ffmpeg_log_level="error",
            **ENCODERS[ending],
        )
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
            self._writer.send(np.ascontiguousarray(frame))
        self._frames += 1

    def close(self) -> None:
        """Finish the video and put it in place; closing twice is harmless."""
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
        """Stop without a video; what was at the path stays."""
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
            raise RenderError(f"{self.path}: the video encoder failed: {detail[-1].strip()}") from None

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
