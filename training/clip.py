"""Draws, in a process of its own, a clip: a video, and a picture that moves for TensorBoard."""

import io
import pathlib
import signal
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO

from training import beside

WIDTH = 480  # [px]
HEIGHT = 270
SHARE = 0.05  # of all cores that drawing may take
COLOURS = 64  # of a moving picture: 0.4 MB of them, and 0.7 with 256


def main(told: BinaryIO, answers: BinaryIO) -> None:
    """Draw what is told, as clip() takes it, and answer with the moving picture; see training/beside.py.

    Where told ends before, what was begun is taken away.
    """
    beside.step_back()
    subject = beside.receive(told)
    pace = beside.Pace(SHARE)
    threading.Thread(target=_listen, args=(told, pace), daemon=True).start()
    beside.send(answers, clip(*subject, pace))


def _listen(told: BinaryIO, pace: beside.Pace) -> None:
    """Hurry when anything comes, and interrupt the main thread, as Ctrl-C does, when nothing more can."""
    while told.read(1):
        pace.hurried.set()
    if hasattr(signal, "pthread_kill"):  # which reaches it where it waits, too
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def clip(path: pathlib.Path, likeness: Any, shots: Sequence[tuple[dict, dict]], fps: int, pace: beside.Pace) -> bytes:
    """Write a video, and return every other of its pictures as a GIF.

    likeness: of the robots, a live.Likeness; shots: their views(), and what else of a frame is known; fps: how many to
    a second; pace: at which it is drawn

    Raises RenderError, in a line, where nothing can be drawn.
    """
    from PIL import Image

    from renderer import Picture, Recorder, offscreen_display
    from training.live import frame_of

    picture = Picture(likeness, likeness.name)
    images = []
    frame = None
    with (
        offscreen_display(),
        picture.window(width=WIDTH, height=HEIGHT, visible=False, fps=fps) as window,
        Recorder(path, WIDTH, HEIGHT, fps) as video,
    ):
        for number, shot in enumerate(shots):
            frame = frame_of(picture, *shot, frame)
            window.draw(frame)
            pixels = window.capture()
            video.add(pixels)
            if number % 2 == 0:
                images.append(Image.fromarray(pixels).quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=0))
            pace.rest()
    written = io.BytesIO()
    images[0].save(written, "GIF", save_all=True, append_images=images[1:], duration=round(2000 / fps), loop=0)
    return written.getvalue()
