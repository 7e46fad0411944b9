"""Every benchmark and every example, run whole at a tiny size by its main()."""

import commands
import pytest
from small import BENCHMARKS, EXAMPLES, run_benchmark, run_example


def test_every_benchmark_and_example_is_run():
    assert sorted(BENCHMARKS) == commands.programs("benchmarks"), "say in small.py how to run it at a tiny size"
    assert sorted(EXAMPLES) == commands.programs("examples"), "say in small.py how to run it at a tiny size"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_whole(name, workplace, monkeypatch):
    run_benchmark(name, (), monkeypatch)
    for written in ("t.csv", "t.png"):
        assert (workplace / written).exists() == (written in BENCHMARKS[name].options)
    assert (workplace / "kept" / "cartpole.pt").exists() == (name == "tasks")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_whole(name, workplace, monkeypatch):
    run_example(name, (), monkeypatch)


def test_benchmarks_are_run_with_constants_that_they_have(monkeypatch):
    trot = commands.imported_anew(monkeypatch, "benchmarks.trot", {"ROBOTS": "ROBOTS // 2", "DURATION": "0.5"})
    assert (trot.ROBOTS, trot.DURATION, trot.CONTROL) == (16, 0.5, 0.02)
    assert trot.gaits().shape == (16, 4)
    with pytest.raises(AssertionError, match=r"benchmarks\.trot has no constants LEGS"):
        commands.imported_anew(monkeypatch, "benchmarks.trot", {"ROBOTS": "3", "LEGS": "5"})
