"""Foal as pip installs it, in an environment and a folder of its own: whole, and beside others."""

import os
import pathlib
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter of an environment with Foal in it; what Foal needs is that of the tests' own."""
    folder = tmp_path_factory.mktemp("installed")
    environment = folder / "environment"
    done = {"check": True, "capture_output": True, "text": True}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], **done)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT], **done)
    (wheel,) = folder.glob("foal-*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-compile", wheel], **done)
    paths = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = pathlib.Path(subprocess.run([python, "-c", paths], **done).stdout.strip())
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture
def ran(python, tmp_path):
    """Runs a command of the environment in an empty folder; returns what it printed."""

    def run(*command, fails=False):
        command = [str(python.with_name(command[0])), *command[1:]]
        quiet = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NUMBA_CACHE_DIR")}
        done = subprocess.run(
            command, cwd=tmp_path, env=quiet | {"HOME": str(tmp_path)}, capture_output=True, text=True
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def test_the_command_evaluates_what_comes_with_it(ran, tmp_path):
    assert "robots: anymal_c, go1, go2, spot" in ran("foal", "--list")
    told = ran("foal", "--eval", "--json", "--task", "cartpole", "--episodes", "2", "--env.max_episode_seconds", "0.2")
    assert '"survival": 1.0' in told
    assert ran("foal", "--ppo.gamma", "7", fails=True) == (
        "foal: ppo.gamma: expected a number between 0 and 1, got 7.0\n"
    )
    assert not list(tmp_path.glob("*.pt"))
    assert next((tmp_path / ".cache" / "foal").iterdir()).name.startswith("numba-")


def test_python_finds_its_modules_and_no_others(ran):
    assert ran("python", "-c", "import foal; from physics import load_robot; print(load_robot('go1').name)") == "go1\n"
    assert "config" in ran("python", "-c", "import config", fails=True)
    assert ran("python", "-c", "from foal.physics import PhysicsEngine as a; from physics import PhysicsEngine as b\n"
        "print(a is b)") == "True\n"  # fmt: skip


def test_a_name_that_is_taken_is_told(ran, tmp_path):
    (tmp_path / "config.py").write_text("")
    told = ran("python", "-c", "import config, foal", fails=True).splitlines()[-1]
    assert told == f"ImportError: foal: expected no other module of the name config, got {tmp_path / 'config.py'}"


def test_modules_are_run_by_their_names_in_the_package(ran):
    assert ran("python", "-m", "foal.examples.all_tasks", "--help").startswith("usage: all_tasks.py")
    assert ran("python", "-m", "foal", "--help", "ppo").startswith("ppo: ")
