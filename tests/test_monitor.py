"""The GPU's load beside training: what is read, what is told of it, and that it disturbs nothing."""

import csv
import io
import math
import sys
import threading
import time
import types

import pytest
import torch
from rich.console import Console

from entity import Creature
from environments import registry
from settings import override
from training import monitor
from training.engine import TrainingEngine
from training.logger import Logger
from training.monitor import Monitor
from training.presets import preset
from training.run import Run

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
SAMPLES = [
    dict(zip(monitor.UNITS, values, strict=True))
    for values in ((10.0, 1000.0, 40.0), (90.0, 4000.0, 70.0), (20.0, 4000.0, 43.0))
]
DESCRIBED = (
    "GPU: load 40 % mean, 90 max, 20 median; memory 3000 MB mean, 4000 max, 4000 median; "
    "temperature 51 deg C mean, 70 max, 43 median"
)


def gpu(uuid, load=0.5, memory=100.0, heat=30.0):
    return types.SimpleNamespace(uuid=f"GPU-{uuid}", load=load, memoryUsed=memory, temperature=heat)


@pytest.fixture
def shown(monkeypatch):
    """What nvidia-smi shows."""
    gpus = []
    monkeypatch.setitem(sys.modules, "GPUtil", types.SimpleNamespace(getGPUs=lambda: list(gpus)))
    return gpus


def watch(samples):
    """Return a closed monitor that has seen samples, raising those that are exceptions."""
    left = list(samples)

    def sample():
        value = left.pop(0)
        if not left:
            watching._end.set()
        if isinstance(value, Exception):
            raise value
        return value

    watching = Monitor(sample, period=1e-3)
    watching.start()
    watching._thread.join(5)
    watching.close()
    assert watching.count == len(samples) and not watching._thread.is_alive()
    return watching


def test_the_gpu_that_pytorch_uses_is_read(shown, monkeypatch):
    assert monitor.reader(CPU) is None
    asked = []
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: asked.append(device) or types.SimpleNamespace(uuid="b2")
    )
    read = monitor.reader(CUDA)
    shown += [gpu("a1"), gpu("b2", 0.43, 5120.0, 61.0), gpu("c3")]
    assert asked == [CUDA] and read() == {
        "gpu_load": pytest.approx(43.0),
        "gpu_memory": 5120.0,
        "gpu_temperature": 61.0,
    }
    del shown[1]
    with pytest.raises(LookupError, match="expected GPU b2 among 2 that nvidia-smi shows"):
        read()
    del shown[1]
    assert read()["gpu_memory"] == 100.0, "of one GPU there is no doubt"
    shown[0].temperature = math.nan
    assert set(read()) == {"gpu_load", "gpu_memory"}
    shown.clear()
    with pytest.raises(LookupError):
        read()


def test_gputil_itself_can_be_imported():
    assert callable(monitor.gputil().getGPUs)


def test_mean_max_and_median_of_what_was_sampled():
    watching = watch(SAMPLES)
    assert watching.describe() == DESCRIBED and watching.latest() == SAMPLES[-1] and watching.failures == 0


def test_a_sample_that_fails_is_counted_and_leaves_no_old_values():
    watching = watch([OSError("no nvidia-smi"), *SAMPLES, {}])
    assert watching.describe() == DESCRIBED + "; 2 of 5 samples failed" and watching.latest() == {}
    assert watch([LookupError("none")]).describe() == "GPU: 1 of 1 samples failed"
    assert watch([{"gpu_memory": 7.0}]).describe() == "GPU: memory 7 MB mean, 7 max, 7 median"
    assert Monitor(None).describe() == ""


def test_closing_does_not_wait_for_a_sample_that_hangs():
    hang = threading.Event()
    watching = Monitor(lambda: hang.wait(30) and {})
    watching.start()
    start = time.perf_counter()
    watching.close()
    assert (
        time.perf_counter() - start < 5
        and watching._thread.daemon
        and watching.latest() == {}
        and watching.describe() == ""
    )
    hang.set()
    watching._thread.join(5)
    assert not watching._thread.is_alive()


def test_closing_ends_the_thread_without_waiting_for_the_next_sample():
    watching = Monitor(lambda: SAMPLES[0], period=60.0)
    watching.start()
    start = time.perf_counter()
    while not watching.latest():
        time.sleep(1e-3)
    watching.close()
    assert not watching._thread.is_alive() and time.perf_counter() - start < 5 and watching.count == 1


def a_run(folder, iterations=3):
    """Return a run and what it says."""
    changes = {
        "train.iterations": iterations,
        "train.num_envs": 16,
        "train.eval_every": 2,
        "env.max_episode_seconds": 0.5,
    }
    cfg = override(preset("cartpole"), changes)
    env = registry.make("cartpole", num_envs=16, cfg=cfg.env)
    engine = TrainingEngine(env, Creature(env, cfg.network, cfg.world_model), cfg, CPU)
    said = io.StringIO()
    return Run(
        cfg, engine, registry.make("cartpole", num_envs=8, cfg=cfg.env), folder, Console(file=said, width=500)
    ), said


def watchers():
    return [thread for thread in threading.enumerate() if thread.name == "gpu-monitor"]


def rows_of(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_logs_the_latest_sample_and_says_one_line_at_the_end(tmp_path, shown, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="b2"))
    shown += [gpu("a1"), gpu("b2", 0.9, 4000.0, 70.0)]
    asked = []
    monkeypatch.setattr(
        "training.run.reader", lambda device: asked.append(device) or monitor.reader(CUDA)
    )  # as if the networks were there
    run, said = a_run(tmp_path / "run")
    iterate = run.engine.iterate
    seen = []

    def iterate_watched():
        while not run.monitor.latest():
            time.sleep(1e-3)
        seen.append(len(watchers()))
        return iterate()

    run.engine.iterate = iterate_watched
    assert not run.go() and seen == [1, 1, 1] and asked == [CPU] and not watchers()
    run.finish(tmp_path / "c.pt")
    rows = rows_of(tmp_path / "run")
    assert len(rows) == 3 and all({name: float(row[name]) for name in SAMPLES[1]} == SAMPLES[1] for row in rows)
    (line,) = [line for line in said.getvalue().splitlines() if line.startswith("GPU:")]
    assert line == (
        "GPU: load 90 % mean, 90 max, 90 median; memory 4000 MB mean, 4000 max, 4000 median; "
        "temperature 70 deg C mean, 70 max, 70 median"
    )


def test_a_sampler_that_raises_disturbs_no_training(tmp_path, monkeypatch):
    monkeypatch.setattr("training.run.reader", lambda device: lambda: 1 / 0)
    run, said = a_run(tmp_path / "run")
    assert not run.go() and not watchers()
    run.finish(tmp_path / "c.pt")
    rows = rows_of(tmp_path / "run")
    failed = run.monitor.failures
    assert len(rows) == 3 and not any(name.startswith("gpu_") for name in rows[0]) and failed == run.monitor.count >= 1
    assert said.getvalue().count("GPU:") == 1 and f"GPU: {failed} of {failed} samples failed\n" in said.getvalue()


def test_the_thread_ends_with_a_run_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("training.run.reader", lambda device: lambda: SAMPLES[0])
    run, _ = a_run(tmp_path / "run")

    def fail():
        assert watchers()
        raise RuntimeError("broken")

    run.engine.iterate = fail
    with pytest.raises(RuntimeError, match="broken"):
        run.go()
    assert not watchers()


def test_on_a_cpu_there_is_nothing(tmp_path, shown):
    shown.append(gpu("a1"))
    run, said = a_run(tmp_path / "run", iterations=1)
    seen = []
    iterate = run.engine.iterate
    run.engine.iterate = lambda: seen.append(len(watchers())) or iterate()
    run.go()
    run.finish(tmp_path / "c.pt")
    assert seen == [0] and "GPU" not in said.getvalue() and "gpu" not in (tmp_path / "run" / "metrics.csv").read_text()


def test_metrics_that_only_some_rows_have_stay_in_their_columns(tmp_path):
    logger = Logger(tmp_path / "run", preset("cartpole"))
    base = [{"iteration": i, "env_steps": 10 * i, "reward": 0.5 * i} for i in range(1, 6)]
    given = [
        base[0],
        base[1] | SAMPLES[0],
        base[2],
        base[3] | {"eval_survival": 0.25} | SAMPLES[1],
        base[4] | {"gpu_load": 3.0},
    ]
    for row in given:
        logger.log(row)
    logger._board.close()
    rows = rows_of(tmp_path / "run")
    assert [{name: float(value) for name, value in row.items() if value} for row in rows] == given
    assert list(rows[0]) == ["iteration", "env_steps", "reward", *SAMPLES[0], "eval_survival"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("gpu_load")] == [(20, 10.0), (40, 90.0), (50, 3.0)]
