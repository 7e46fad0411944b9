"""Cores and memory that a process may use, and threads after a fork."""

import subprocess
import sys
import types

import numba
import psutil
import pytest
import torch
from conftest import ROOT

import host
from training import resources

CPU = "sys/devices/system/cpu"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that makes a machine of eight cores, 16 GB free, of files by their names."""

    def make(**files):
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        monkeypatch.setattr(host, "ROOT", tmp_path)
        monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=16 << 30))

    return make


@pytest.mark.parametrize(
    "files, cores",
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
        # a limit of a group around its own, part of a core rounded up
        ({"proc/self/cgroup": "0::/jobs/one\n", "sys/fs/cgroup/jobs/cpu.max": "250000 100000",
          "sys/fs/cgroup/jobs/one/cpu.max": "max 100000"}, 3),
        # names of the host's, in a container
        ({"proc/self/cgroup": "4:cpu,cpuacct:/docker/0a1b\n0::/x\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n"}, 3),
        ({"proc/self/cgroup": "0::/../../job\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "4:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"sys/devices/cpu_core/cpus": "0-2,5\n"}, 4),
        ({"sys/devices/cpu_core/cpus": "8-15\n"}, 8),  # none of which it may use
        ({f"{CPU}/cpu{i}/cpu_capacity": "1024" if i == 7 else "800" if i > 3 else "300" for i in range(8)}, 4),
        ({f"{CPU}/cpu{i}/cpu_capacity": "1024" for i in range(8)}, 8),
    ],
)  # fmt: skip
def test_cores_are_those_that_may_be_kept_busy(machine, files, cores):
    machine(**files)
    assert host.available_cores() == cores


@pytest.mark.parametrize("told, cores", [("6\n", 6), ("", 8)])
def test_a_mac_counts_its_performance_cores(monkeypatch, told, cores):
    monkeypatch.delattr(host.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(host.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(host.sys, "platform", "darwin")
    monkeypatch.setattr(host.subprocess, "run", lambda *a, **k: types.SimpleNamespace(stdout=told))
    assert host.available_cores() == cores


@pytest.mark.parametrize(
    "files, free",
    [
        ({}, 16 << 30),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 16 << 30),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": str(4 << 30),
          "sys/fs/cgroup/a/memory.current": str(3 << 30),
          "sys/fs/cgroup/a/memory.stat": f"anon 1\ninactive_file {1 << 29}\n"}, (1 << 30) + (1 << 29)),
        ({"proc/self/cgroup": "5:memory:/gone\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 << 30),
          "sys/fs/cgroup/memory/memory.usage_in_bytes": str(1 << 30)}, 1 << 30),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "200"}, 0),
    ],
)  # fmt: skip
def test_memory_is_what_a_container_leaves(machine, files, free):
    machine(**files)
    assert host.available_memory() == free


FORKING = """
import multiprocessing
import os
import sys

import numpy as np


def walked(env=None, seed=0):
    from environments import registry

    env = env or registry.make("quadruped-walk-flat", num_envs=1024, threads=2)
    state = env.init_state(seed)
    for _ in range(3):
        state = env.step(np.full((1024, 12), 0.1, np.float32))
    return float(np.abs(state.obs).sum())


def child(pipe, env=None):
    pipe.send(walked(env))


if __name__ == "__main__":
    from environments import registry

    env = registry.make("quadruped-walk-flat", num_envs=1024, threads=2)
    here = walked(env)
    for method in ("fork", "forkserver", "spawn"):
        context = multiprocessing.get_context(method)
        mine, theirs = context.Pipe()
        process = context.Process(target=child, args=(theirs, env) if method == "fork" else (theirs,))
        process.start()
        print(method, mine.poll(120) and mine.recv() == here, flush=True)
        process.kill()
        process.join()
    print("parent", walked(env) == here)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a fork is of Unix")
def test_a_child_steps_an_environment_however_it_was_made(tmp_path):
    script = tmp_path / "forking.py"
    script.write_text(FORKING)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=550,
        env={**host.os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.split() == ["fork", "True", "forkserver", "True", "spawn", "True", "parent", "True"], done.stderr


def test_a_precision_once_measured_is_kept(monkeypatch, tmp_path):
    measured = iter(("bfloat16", "float32", "float32"))
    monkeypatch.setattr(resources, "_measure_precision", lambda device: next(measured))
    monkeypatch.setattr(resources.fused, "HAS_PAIRS", True)
    monkeypatch.setattr(resources.fused, "HAS_TILES", False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    cpu = torch.device("cpu")
    assert [resources.fastest_precision(cpu) for _ in range(3)] == ["bfloat16"] * 3
    monkeypatch.setattr(resources, "processor", lambda: "another one")
    assert [resources.fastest_precision(cpu) for _ in range(2)] == ["float32"] * 2
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "no such folder"))
    assert resources.fastest_precision(cpu) == "float32"
    assert next(measured, None) is None
    monkeypatch.setattr(resources.fused, "HAS_TILES", True)  # which needs no measurement
    assert resources.fastest_precision(cpu) == "bfloat16"
