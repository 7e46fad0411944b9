"""Watching a training: a window beside it, and clips of its evaluations; neither leaves anything behind or in it."""

import io
import os
import pathlib
import queue
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import psutil
import pytest
import torch
from commands import called
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

import simulate
from config import RenderCfg
from environments import registry
from renderer import Picture, RenderError, offscreen_display
from renderer.controls import SHOWN, Requests
from training import beside, checkpoint, clips, live, tree, watching
from training.spectator import Spectator, fewest, first

ROOT = pathlib.Path(__file__).resolve().parent.parent
TINY = (
    "--train.num_envs", "64", "--train.threads", "2", "--train.eval_episodes", "8", "--env.max_episode_seconds", "1",
    "--render.width", "160", "--render.height", "90",
)  # fmt: skip


@pytest.fixture(scope="module")
def display():
    """A display to open windows on, for as long as there are tests of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WAYLAND_DISPLAY", raising=False)
        try:
            with offscreen_display(("display", "xvfb")):
                yield
        except RenderError:
            pytest.skip("neither a display nor Xvfb is here")


def trained(monkeypatch, folder, *options):
    """Train with a few robots in this process; return the folder of the run, and what was said."""
    with torch.random.fork_rng():
        done = called(simulate.main, [*TINY, "--train.run_dir", str(folder), *options], monkeypatch)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    (run,) = folder.iterdir()
    return run, done.err


def children():
    """Return the processes beside a training that this one has started, those that nobody waited for too."""
    return [p for p in psutil.Process().children() if p.status() == psutil.STATUS_ZOMBIE or is_beside(p)]


def is_beside(process):
    """Return whether a process is one beside a training."""
    try:
        return "beside" in str(process.cmdline())
    except psutil.Error:  # it has ended meanwhile
        return False


def lives(process):
    """Return whether a process has not ended; one that nobody has waited for, in a container without init, has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Screen:
    """Stands for a window: keeps what is drawn on it, until it has seen so many."""

    def __init__(self, most, script=None):
        self.frames = []
        self.most = most
        self.shown = set(SHOWN)
        self.script = script or {}

    @property
    def requests(self):
        """What its user asks for once so many frames are drawn."""
        return self.script.get(len(self.frames), Requests())

    def draw(self, frame):
        self.frames.append(frame)

    @property
    def should_close(self):
        return len(self.frames) >= self.most


@pytest.mark.parametrize(("task", "count"), [("quadruped-walk-flat", 3), ("quadruped-walk-rough", 2), ("cartpole", 3)])
def test_a_likeness_in_another_process_gives_the_same_frames(task, count):
    env = registry.make(task, num_envs=64, threads=1)
    env.init_state(3)
    env.step(np.full((64, env.num_actions), 0.1, np.float32))
    few = fewest(env, count)
    assert count <= few.num_envs <= max(32, count)
    stream = io.BytesIO()
    beside.send(stream, live.Likeness.of(env, task, count))
    stream.seek(0)
    likeness = beside.receive(stream)
    likeness.latest = first(few.views(), count)
    frame = Picture(likeness, task).frame()
    places = Picture(registry.make(task, num_envs=count, threads=1), task).places
    name = next(name for name in ("base_position", "position") if hasattr(frame, name))
    seen = env.views()[name][:count]
    np.testing.assert_array_equal(getattr(frame, name), seen + (places[:, None] if seen.ndim == 3 else places))


def test_frames_are_asked_for_one_at_a_time_and_the_last_stays():
    env = registry.make("quadruped-balance", num_envs=3, threads=1)
    env.init_state(0)
    likeness = live.Likeness.of(env, "quadruped-balance", 3)
    arrived = queue.SimpleQueue()
    asked = []

    def ask(wanted):
        asked.append((len(screen.frames), wanted))
        if len(asked) != 3:
            arrived.put((env.views(), {"time": float(len(asked))}))

    screen = Screen(most=6)
    live.show(screen, Picture(likeness, "quadruped-balance"), arrived, ask)
    assert [frame.time for frame in screen.frames] == [1, 2, 2, 2, 2, 2]
    assert asked == [(0, (2, False)), (1, (2, False)), (2, (2, False))]
    arrived.put(None)
    live.show(Screen(most=6), Picture(likeness, "quadruped-balance"), arrived, list)
    # a user who watches another one in detail, and one who pauses
    screen = Screen(5, {1: Requests(("next",)), 2: Requests(chosen=1), 3: Requests(("pause",))})
    screen.shown.add("rewards")
    asked[:] = [None] * 3
    live.show(screen, Picture(likeness, "quadruped-balance"), arrived, ask)
    assert asked[3:] == [(0, (2, True)), (1, (0, True)), (2, (1, True))]
    assert [frame.watched for frame in screen.frames[:3]] == [2, 0, 1]
    assert [frame.state for frame in screen.frames] == ["", "", "", "paused", "paused"]


def test_robots_whose_numbers_are_not_finite_are_shown_as_they_were():
    def frame(*_, **__):
        if not np.isfinite(picture.env.latest):
            raise RenderError("not finite")
        return picture.env.latest

    picture = SimpleNamespace(env=SimpleNamespace(), frame=frame)
    assert live.frame_of(picture, 1.0, {}, None) == 1.0
    assert live.frame_of(picture, np.nan, {}, 1.0) == 1.0
    with pytest.raises(RenderError):
        live.frame_of(picture, np.nan, {}, None)


def test_what_is_shown_are_the_robots_as_they_are(display):
    env = registry.make("quadruped-balance", num_envs=64, threads=1).split(2)[0]
    env.init_state(0)
    with Spectator(env, "quadruped-balance", RenderCfg(160, 90, 3), pytest.fail) as spectator:
        answers = spectator._answers
        shown = []
        spectator._answers = SimpleNamespace(put=lambda x: (shown.append(x), answers.put(x)), get=answers.get)
        spectator.wait()
        deadline = time.monotonic() + 100
        while len(shown) < 2 and time.monotonic() < deadline:
            env.step(np.zeros((32, 12), np.float32))
            before = len(shown)
            spectator.after_step()
            for views, _ in shown[before:]:
                np.testing.assert_array_equal(views["base_position"], env.views()["base_position"][:3])
            time.sleep(0.005)
        assert len(shown) == 2
    assert not children()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A training that nobody watches."""
    with pytest.MonkeyPatch.context() as patch:
        return trained(patch, tmp_path_factory.mktemp("plain"), "--iterations", "4", "--train.eval_every", "2")[0]


def same(one, other):
    """Return whether two runs came to the same, to the last bit."""
    parts = [checkpoint.load(folder / "latest.pt") for folder in (one, other)]
    digests = [[tree.digest(x) for x in (part.weights, part.trainer, part.run["engine"])] for part in parts]
    return digests[0] == digests[1]


def test_a_training_that_is_watched_is_the_same(plain, display, tmp_path, monkeypatch):
    counts = []
    after = Spectator.after_step
    monkeypatch.setattr(Spectator, "after_step", lambda self: (counts.append(self._asked), after(self)))
    options = "--iterations", "4", "--train.eval_every", "2", "--render", "--render.envs", "4"
    run, _ = trained(monkeypatch, tmp_path, *options)
    assert len(counts) == 1 + 4 * 16
    assert any(counts)
    assert same(plain, run)
    assert not children()


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_training_goes_on_when_its_window_is_gone(how, plain, display, tmp_path, monkeypatch):
    gone = []

    def after(self):
        if not gone:
            gone.append(self._process)
            self._process.kill() if how == "killed" else self._process.stdin.close()
            self._process.wait(20)
        original(self)

    original = Spectator.after_step
    monkeypatch.setattr(Spectator, "after_step", after)
    options = "--iterations", "4", "--train.eval_every", "2", "--render"
    run, err = trained(monkeypatch, tmp_path, *options)
    assert gone
    assert same(plain, run)
    assert not children()
    assert "window" not in err


def test_without_a_display_nothing_begins(tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = called(simulate.main, [*TINY, "--render", "--train.run_dir", str(tmp_path / "runs")], monkeypatch)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "no display to open a window on" in done.err
    assert not (tmp_path / "runs").exists()


def test_a_window_that_cannot_be_opened_is_told_before_training_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(watching.Screen, "ready", lambda screen: screen)
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = called(simulate.main, [*TINY, "--render", "--train.run_dir", str(tmp_path / "runs")], monkeypatch)
    assert done.code == 2
    assert "no window could be opened" in done.err.splitlines()[-1]
    assert not list((tmp_path / "runs").glob("*"))
    assert not children()


def images(folder):
    """Return the moving pictures that TensorBoard finds in a run, by step."""
    board = EventAccumulator(str(folder), size_guidance={IMAGES: 0})
    board.Reload()
    found = board.Images("clip") if "clip" in board.Tags()["images"] else []
    return {event.step: Image.open(io.BytesIO(event.encoded_image_string)) for event in found}


@pytest.fixture
def filmed(monkeypatch):
    """Iterations whose evaluations were filmed, with the number of pictures."""
    found = {}
    draw = clips.Clips.draw

    def counted(self, iteration, *more):
        found[iteration] = len(self._shots)
        draw(self, iteration, *more)

    monkeypatch.setattr(clips.Clips, "draw", counted)
    return found


def test_a_clip_is_left_in_the_folder_and_in_tensorboard(plain, filmed, tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "PATIENCE", 200.0)  # others may want the processor
    options = "--iterations", "4", "--train.eval_every", "2", "--train.clip_every", "2"
    run, err = trained(monkeypatch, tmp_path, *options)
    if "no clips: no display" in err:
        pytest.skip("neither Xvfb nor raylib's software build is installed here")
    assert "waiting for a clip" in err
    assert [path.name for path in (run / "clips").iterdir()] == ["iteration_00004.mp4"]
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(run / "clips" / "iteration_00004.mp4"))
    assert filmed == {4: frames}
    assert 10 < frames <= 26  # an episode of a second
    assert seconds == pytest.approx(frames / 25, abs=0.05)
    ((step, image),) = images(run).items()
    assert step == 4 * 16 * 64
    assert (image.format, image.size, image.n_frames) == ("GIF", (480, 270), -(-frames // 2))
    first_picture = np.asarray(image.convert("RGB"))
    image.seek(5)
    assert (first_picture != np.asarray(image.convert("RGB"))).any()
    assert same(plain, run)
    assert not children()


def test_a_run_that_goes_on_leaves_clips_too(filmed, tmp_path, monkeypatch):
    monkeypatch.setattr(beside, "start", lambda module: pytest.fail("nothing was filmed"))
    monkeypatch.setattr(clips.Clips, "draw", lambda self, iteration, *_: filmed.update({iteration: len(self._shots)}))
    options = "--train.eval_every", "2", "--train.clip_every", "1"
    run, _ = trained(monkeypatch, tmp_path, "--iterations", "2", *options)
    code = called(simulate.main, ["--resume", "--iterations", "3", "--checkpoint", str(run)], monkeypatch).code
    assert code == 0
    assert list(filmed) == [2, 4, 5]
    assert all(10 < count <= 26 for count in filmed.values())


def test_a_film_of_a_long_episode_is_of_its_first_seconds():
    env = registry.make("cartpole", num_envs=4, threads=1)
    film = clips.Clips("cartpole", pathlib.Path(), env.cfg.ctrl_dt, pytest.fail)
    state = env.init_state(0)
    for _ in range(round(6.0 / env.cfg.ctrl_dt)):
        film.film(env, state)
    times = [known["time"] for _, known in film._shots]
    assert times[0] == 0
    assert clips.SECONDS - 0.05 < times[-1] < clips.SECONDS
    assert len(times) == pytest.approx(clips.SECONDS * film._fps, abs=2)


def test_where_nothing_can_be_drawn_one_line_says_so(tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    (tmp_path / "without.py").write_text(
        "import pathlib\nfrom renderer import display\ndisplay.SOFTWARE_FOLDER = pathlib.Path('nowhere')\n"
        "from training.clip import main\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    start = beside.start
    monkeypatch.setattr(beside, "start", lambda module: start("without"))
    options = "--iterations", "6", "--train.eval_every", "1", "--train.clip_every", "1"
    run, err = trained(monkeypatch, tmp_path / "runs", *options)
    assert err.count("no clips: no display") == 1
    assert not list((run / "clips").iterdir())
    assert not children()


def started(folder, *options):
    """Start a training that would go on for long, whose clip is being drawn or whose window is open."""
    words = [sys.executable, str(ROOT / "simulate.py"), *TINY, "--train.run_dir", str(folder), "--iterations", "100000"]
    process = subprocess.Popen(
        [*words, *options], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    family = []
    while time.monotonic() < deadline and process.poll() is None:
        family = [p for p in psutil.Process(process.pid).children(recursive=True) if is_beside(p)]
        if family and any(folder.glob("*/metrics.csv")):
            break
        time.sleep(0.05)
    assert family, process.stderr.read() if process.poll() is not None else "nothing was started"
    return process, psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize(
    "options", [("--render",), ("--train.eval_every", "1", "--train.clip_every", "1")], ids=["window", "clip"]
)
def test_nothing_is_left_behind(number, options, display, tmp_path):
    process, family = started(tmp_path, *options)
    time.sleep(1.0)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    # who draws takes what others leave: beside tests that fill all cores, 0.3 % of one
    deadline = time.monotonic() + 120
    while any(map(lives, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(lives, family))
    assert not list(tmp_path.glob("*/clips/.*"))
    assert os.path.exists(next(tmp_path.glob("*/metrics.csv")))
