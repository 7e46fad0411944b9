"""Six first-day changes, written by who had read the README and docs/terms.md alone: they train, and act as they say.

Minutes that each took, training and looking at it included: clearance 1.2, columns 0.5, upright 0.5, friction 1.8,
hopper 2.8, memoryless 0.4.
"""

import csv
import re
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from simulate import run

pytestmark = pytest.mark.usefixtures("no_trace")
FOLDER = Path(__file__).parent / "tasks"
SMALL = [
    "--iterations", "2", "--train.num_envs", "32", "--train.eval_every", "2", "--train.eval_episodes", "8",
    "--env.max_episode_seconds", "0.5",
]  # fmt: skip
# What a run's metrics have, and an option of one's own
SHOWS = {
    "clearance": ("reward_swing_height", ["--reward.swing", "0.1"]),
    "columns": ("reward_velocity", ["--observation.gain", "2"]),
    "upright": ("end_rolled", ["--termination.roll", "0.02"]),
    "friction": ("reward_velocity", ["--randomisation.stickiness", "1", "4"]),
    "hopper": ("eval_hop_error", ["--command.hop", "0", "0.02"]),
    "memoryless": ("reward_velocity", ["--network.encoder", "32"]),
}


@pytest.mark.parametrize("name", SHOWS)
def test_a_change_of_the_first_day_trains(name, tmp_path, monkeypatch):
    column, option = SHOWS[name]
    shutil.copy(FOLDER / f"newcomer_{name}.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (task,) = re.findall(r'^task\(\s*"([^"]+)"', (tmp_path / f"newcomer_{name}.py").read_text(), re.MULTILINE)
    arguments = ["--task", f"newcomer_{name}:{task}", *SMALL, *option]
    assert run(arguments, Console(stderr=True)) == 0
    (metrics,) = tmp_path.glob("runs/*/metrics.csv")
    rows = list(csv.DictReader(metrics.open()))
    assert len(rows) == 2 and all(row[column] for row in rows[1:])
    assert float(rows[-1]["skipped_gradients"]) == 0
    if name == "upright":
        assert float(rows[-1][column]) > 0.9
    assert run(["--task", f"newcomer_{name}:{task}", "--eval", "--episodes", "4"], Console(stderr=True)) == 0
    sys.modules.pop(f"newcomer_{name}")
