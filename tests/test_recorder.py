"""Recordings: whole or not there, sheets of stills, progress, and the same frames of the same seed."""

import io
import os
import pathlib
import types

import numpy as np
import pytest
from commands import called
from PIL import Image
from rich.console import Console

import simulate
from physics.jit import ROOT
from renderer import Film, Recorder, RenderError
from renderer.recorder import brightness_and_colour
from renderer.sheet import CANDIDATES, COLUMNS, GAP, SMALLER, STILLS, tiled
from training.display import counted

WIDTH = 64
HEIGHT = 32


def test_wrong_endings_are_refused(tmp_path):
    with pytest.raises(RenderError, match=r"'\.avi'.*\.mp4, \.gif, \.webp, \.png"):
        Recorder(tmp_path / "walk.avi", 64, 64)
    with pytest.raises(RenderError, match="even"):
        Recorder(tmp_path / "walk.mp4", 63, 64)
    with pytest.raises(RenderError, match="does not exist"):
        Recorder(tmp_path / "missing" / "walk.mp4", 64, 64)


@pytest.mark.parametrize("name", ["walk.mp4", "walk.gif", "walk.webp", "walk.png", "WALK.PNG", "12:30:00 a b.mp4"])
def test_interrupted_recording_leaves_the_older_file(tmp_path, name, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.chdir(tmp_path)
    target = pathlib.Path(name)
    target.write_bytes(b"older")
    frame = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)

    class Interrupted(Exception):
        pass

    with pytest.raises(Interrupted), Recorder(target, 64, 64) as video:
        video.add(frame)
        raise Interrupted
    assert target.read_bytes() == b"older"
    assert os.listdir() == [name]
    with pytest.raises(RenderError, match="nothing was recorded"), Recorder(target, 64, 64):
        pass
    assert target.read_bytes() == b"older"
    with Recorder(target, 64, 64) as video:
        video.add(frame)
    assert len(target.read_bytes()) > 500
    assert os.listdir() == [name]


def test_frames_of_the_wrong_shape_are_refused(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    with (
        pytest.raises(RenderError, match=r"expected a frame of shape \(64, 64, 3\)"),
        Recorder(tmp_path / "walk.mp4", 64, 64) as video,
    ):
        video.add(np.zeros((64, 32, 3), np.uint8))


def test_colours_of_videos_are_those_of_the_standard():
    frame = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    frame[:2, :2] = 255
    frame[2:, :2] = 0
    planes = brightness_and_colour(frame).astype(float)
    share = frame / 255
    y = 16 + share @ [65.481, 128.553, 24.966]
    np.testing.assert_allclose(planes[:24].reshape(4, 6), y, atol=1.1)
    quads = share.reshape(2, 2, 3, 2, 3).mean((1, 3))
    np.testing.assert_allclose(planes[24:30].reshape(2, 3), 128 + quads @ [-37.797, -74.203, 112.0], atol=1.5)
    np.testing.assert_allclose(planes[30:].reshape(2, 3), 128 + quads @ [112.0, -93.786, -18.214], atol=1.5)
    assert planes[0] == 235
    assert planes[12] == 16


def test_a_failing_recording_is_told_by_the_film(tmp_path):
    window = types.SimpleNamespace(
        width=64,
        height=64,
        grab=lambda into: (into, None),
        develop=lambda pixels, _: pixels[:, :32, :3],
    )
    with (
        pytest.raises(RenderError, match=r"expected a frame of shape \(64, 64, 3\)"),
        Recorder(tmp_path / "walk.mp4", 64, 64) as video,
        Film(window, video) as film,
    ):
        film.take()
        film.take()
    assert not list(tmp_path.iterdir())


def numbered(number):
    """Return a frame that tells its number."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[:] = number // 256, number % 256, 0
    return frame


def numbers_of(path):
    """Return the numbers of the frames on a sheet of stills."""
    sheet = np.asarray(Image.open(path)).astype(int)
    corners = sheet[:: HEIGHT // SMALLER + GAP, :: WIDTH // SMALLER + GAP].reshape(-1, 3)
    return [256 * red + green for red, green, blue in corners if not blue]  # where there is no still it is white


@pytest.mark.parametrize("count", [1, 3, 4, 7, 12, 13, CANDIDATES - 1, CANDIDATES, CANDIDATES + 1, 500, 10_007])
def test_stills_are_spread_over_a_recording_of_any_length(tmp_path, count):
    with Recorder(tmp_path / "walk.png", WIDTH, HEIGHT) as sheet:
        for number in range(count):
            sheet.add(numbered(number))
            held = sheet._writer.gi_frame.f_locals["candidates"]
            assert len(held) < CANDIDATES
    numbers = numbers_of(tmp_path / "walk.png")
    assert len(numbers) == min(count, STILLS)
    assert (numbers[0], numbers[-1]) == (0, count - 1)
    even = np.linspace(0, count - 1, len(numbers))
    np.testing.assert_allclose(numbers, even, atol=0.5 if count < CANDIDATES else count / STILLS / 8)
    assert (np.diff(numbers) > 0).all()


def test_stills_lie_in_rows(tmp_path):
    stills = [Image.fromarray(numbered(number)) for number in range(5)]
    sheet = np.asarray(tiled(stills, COLUMNS, GAP))
    assert sheet.shape == (2 * HEIGHT + GAP, 4 * WIDTH + 3 * GAP, 3)
    assert (sheet[HEIGHT + GAP :, :WIDTH] == [0, 4, 0]).all()
    assert (sheet[HEIGHT:][:, WIDTH:] == 255).all()
    assert tiled(stills[:2], COLUMNS).size == (2 * WIDTH, HEIGHT)


def test_a_sheet_that_cannot_be_written_is_told_in_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    target = tmp_path / "walk.png"
    target.write_bytes(b"older")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RenderError, match=r"walk\.png: the encoder failed: .*No space left") as error:
        with Recorder(target, WIDTH, HEIGHT) as sheet:
            sheet.add(numbered(0))
    assert "\n" not in str(error.value)
    assert target.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["walk.png"]


def shown(**console):
    """Return what a recording of three frames leaves on a console, and how many frames came."""
    file = io.StringIO()
    with counted(Console(file=file, width=80, **console), iter([None] * 3), 4) as frames:
        came = len(list(frames))
    return file.getvalue(), came


def test_progress_is_a_line_on_a_terminal_alone():
    assert shown() == ("", 3)
    text, came = shown(force_terminal=True)
    assert came == 3
    assert "3/4 frames" in text
    assert text.count("\n") == 1  # and is taken back
    assert text.endswith("\x1b[1A\x1b[2K")


@pytest.mark.parametrize("size", [(128, 72), (322, 180)])
def test_the_same_seed_gives_the_same_frames(size, tmp_path, monkeypatch):
    for name, seed in (("a.png", 0), ("b.png", 0), ("c.png", 1)):
        width, height = map(str, size)
        arguments = [
            *("--eval", "--checkpoint", str(ROOT / "checkpoints" / "quadruped-walk-flat.pt"), "--seed", str(seed)),
            *("--env.max_episode_seconds", "0.3", "--render.width", width, "--render.height", height),
            *("--render.envs", "4", "--episodes", "2", "--record", str(tmp_path / name)),
        ]
        done = called(simulate.main, arguments, monkeypatch)
        if "no display to record on" in done.err:
            pytest.skip("neither Xvfb nor raylib's software build is installed here")
        assert done.code == 0, done.err
        assert done.err.splitlines()[-1] == f"recorded 2 episodes to {tmp_path / name}"
    first, again, other = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png", "c.png"))
    assert first.shape == (3 * (size[1] // 2 + GAP) - GAP, 4 * (size[0] // 2 + GAP) - GAP, 3)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
