"""Nonsense for every door, 200 cases of tests/fuzz.py, and what it must see."""

import pytest

from tests import fuzz


def test_two_hundred_cases_end_in_good_order(capsys):
    assert fuzz.main(["--cases", "200", "--seed", "7"]) == 0, capsys.readouterr().out


def test_a_case_is_the_same_again(tmp_path):
    for number in range(2 * len(fuzz.KINDS)):
        kind = fuzz.KINDS[number % len(fuzz.KINDS)]
        cases = []
        for again in "ab":
            folder = tmp_path / f"{number}{again}"
            folder.mkdir()
            words = kind(fuzz.random.Random(f"0-{number}"), folder)
            cases.append((words, {path.rpartition("/")[2]: x for path, x in fuzz.contents(folder).items()}))
        assert cases[0] == cases[1]


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (lambda: 1, "exit code"),
        (lambda: 2, "0 lines"),
        (lambda: fuzz.pathlib.Path("file").write_text("changed") and 0, "a file was changed"),
        (lambda: fuzz.pathlib.Path("ran").touch(), "a file was run"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_is_wrong_is_seen(main, words, monkeypatch):
    monkeypatch.setattr(fuzz.simulate, "main", main)
    assert words in fuzz.run(0, 0)[2]
