"""The pictures of the documents: each is made by the gallery, or says by which measurement."""

import importlib
import json
import re
import shlex

import numpy as np
import pytest
from commands import DOCUMENTS, ROOT, called
from PIL import Image

from benchmarks import tasks, training, world_model
from examples import gallery
from settings import ConfigError

NAMED = {name for path in DOCUMENTS for name in re.findall(r"!\[[^]]*\]\((?:docs/)?([^)]+)\)", path.read_text())}


def test_every_picture_of_the_documents_is_made_or_measured():
    assert len(NAMED) > 8
    assert sorted([*gallery.PICTURES, *gallery.MEASURED]) == sorted(NAMED)
    there = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".png", ".gif", ".webp", ".mp4")}
    assert there == NAMED


@pytest.mark.parametrize("name", gallery.MEASURED)
def test_a_measured_picture_says_its_command(name, monkeypatch):
    python, dash, module, *options = shlex.split(gallery.MEASURED[name])
    assert (python, dash) == ("python", "-m")
    known = called(importlib.import_module(module).main, ["--help"], monkeypatch).out
    assert {option for option in options if option.startswith("--")} <= set(re.findall(r"--[\w-]+", known))
    assert options[-1] == f"docs/{name}"


@pytest.mark.parametrize(
    ("name", "size", "mode"),
    [
        ("bounce.png", (990, 285), "RGB"),
        ("dream.png", (1210, 990), "RGBA"),
        ("tasks.png", (1320, 1023), "RGBA"),
        ("few_robots.png", (1320, 432), "RGBA"),
    ],
)
def test_a_picture_is_made_anew(name, size, mode, tmp_path, monkeypatch, threads_as_before):
    done = called(gallery.main, [name, "--out", str(tmp_path)], monkeypatch)
    if "no display to record on" in done.err:
        pytest.skip("neither Xvfb nor raylib's software build is installed here")
    assert done.code == 0, done.err
    assert re.fullmatch(rf"{tmp_path / name}: \d+ kB in [\d.]+ s\n", done.out)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    picture = Image.open(tmp_path / name)
    assert (picture.size, picture.mode) == (size, mode)
    assert Image.open(ROOT / "docs" / name).size == size
    assert np.asarray(picture.convert("RGB")).std() > 10


def test_pictures_of_a_film_have_the_same_colours():
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (200, 3), np.uint8)
    pictures = [Image.fromarray(colours[random.integers(0, 200, (20, 30))]) for _ in range(11)]
    found = gallery.indexed(pictures)
    assert len({json.dumps(picture.getpalette()) for picture in found}) == 1
    for picture, few in zip(pictures, found, strict=True):
        assert np.abs(np.asarray(few.convert("RGB")) - np.asarray(picture).astype(int)).mean() < 3


def test_measurements_are_read_as_they_were_written(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "DOCS", tmp_path)
    rows = [{"seconds": 0.5 + i, "env_steps": 10.0 * i, "survival": 0.1 * i} for i in range(3)]
    trainings = [rows, rows[:2]]
    training.write_csv(tmp_path / "a.csv", {"t": {"foal": trainings}, "u": {"foal": trainings[:1]}})
    assert gallery.evaluations("a.csv", "task", "contestant") == {("t", "foal"): trainings, ("u", "foal"): [rows]}
    world_model.write_csv(tmp_path / "b.csv", {"ppo": trainings, "imagination": trainings[:1]})
    assert gallery.evaluations("b.csv", "contestant") == {("ppo",): trainings, ("imagination",): [rows]}
    seen = {"train_seconds": 1.0, "env_steps": 2, "eval_survival": 0.5}
    tasks.write_csv(tmp_path / "c.csv", {("cartpole", ""): [{"rows": [seen]}]})
    assert gallery.evaluations("c.csv", "task", "robot") == {
        ("cartpole", ""): [[{"train_seconds": 1.0, "env_steps": 2.0, "survival": 0.5}]]
    }


def test_what_is_wrong_is_told_in_a_line(tmp_path, monkeypatch):
    for arguments, text in (
        (["wlk.gif"], "wlk.gif: expected one of PICTURES, did you mean walk.gif?"),
        (["motion.png"], f"motion.png: made by {gallery.MEASURED['motion.png']}"),
        (["tasks.png", "--out", str(tmp_path / "none")], "--out: expected a file that can be written"),
    ):
        done = called(gallery.main, arguments, monkeypatch)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"examples.gallery: {text}")
        assert len(done.err.splitlines()) == 1
    older = tmp_path / "tasks.png"
    older.write_bytes(b"older")
    monkeypatch.setattr(gallery, "DOCS", tmp_path)
    with pytest.raises(ConfigError, match=r"tasks\.csv: No such file"):
        gallery.make(older)
    assert older.read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.png"]
