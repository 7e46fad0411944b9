"""Processes that train together do what threads do, agree on everything, and end together."""

import copy
import os
import pathlib
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from fuzz import BODY
from rich.console import Console
from test_resume import SMALL as TINY
from test_resume import WORLD

from entity import Creature
from environments import registry
from observation import Moments
from settings import override
from simulate import run
from training import checkpoint as checkpoints
from training import distributed
from training.engine import TrainingEngine
from training.presets import preset

ROOT = pathlib.Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
ROBOTS = 64


class Together:
    """Processes as threads of this one: what they tell each other goes through a list."""

    def __init__(self, count, monkeypatch):
        self.count = count
        self.local = threading.local()
        self.barrier = threading.Barrier(count, timeout=60)
        self.said = [None] * count
        for name in ("size", "rank", "all_gather", "all_reduce", "from_rank_0", "broadcast"):
            monkeypatch.setattr(distributed, name, getattr(self, name))

    def size(self):
        return self.count

    def rank(self):
        return self.local.rank

    def all_gather(self, mine):
        self.said[self.rank()] = mine
        self.barrier.wait()
        found = list(self.said)
        self.barrier.wait()
        return found

    def all_reduce(self, vector, numbers):
        found = self.all_gather((vector.clone(), dict(numbers)))
        assert len({tuple(more) for _, more in found}) == 1
        return sum(v for v, _ in found), {name: sum(more[name] for _, more in found) for name in numbers}

    def from_rank_0(self, find):
        return self.all_gather(find() if self.rank() == 0 else None)[0]

    def broadcast(self, tensors):
        for x, first in zip(tensors, self.all_gather([x.clone() for x in tensors])[0], strict=True):
            x.copy_(first)

    def run(self, function, *items):
        """Return function(item) of every rank's item; raise what one of them raises."""
        results = [None] * self.count

        def one(rank):
            self.local.rank = rank
            try:
                results[rank] = function(items[rank])
            except BaseException as error:
                results[rank] = error
                self.barrier.abort()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, threading.BrokenBarrierError):
                raise result
        return results


def configuration(changes):
    cfg = preset("quadruped-balance", changes.get("world_model.role", "off"))
    return override(cfg, {"env.max_episode_seconds": 1.0, "ppo.rollout": 8, "train.num_envs": ROBOTS} | changes)


def parts_of(cfg, count):
    """Return environment and creature of each of some processes."""
    envs = registry.make(cfg.task, num_envs=ROBOTS, cfg=cfg.env, threads=1).split(count)
    made = []
    for env in envs:
        torch.manual_seed(0)
        made.append((env, Creature(env, cfg.network, cfg.world_model)))
    return made


def trained(part, cfg, threads, iterations=3):
    """Train; return the gradients that steps were taken along, the metrics of each iteration, and the engine."""
    engine = TrainingEngine(*part, cfg, CPU, threads)
    gradients = []
    engine.descent = None
    step = engine.step
    engine.step = lambda gradient: gradients.append(gradient.clone()) or step(gradient)
    return gradients, [engine.iterate() for _ in range(iterations)], engine


@pytest.mark.usefixtures("threads_as_before")
def test_two_processes_take_the_gradients_of_two_threads(monkeypatch):
    cfg = configuration({})
    alone, metrics, engine = trained(parts_of(cfg, 1)[0], cfg, 2)
    both = Together(2, monkeypatch)
    (one, mine, first), (other, theirs, second) = both.run(lambda part: trained(part, cfg, 1), *parts_of(cfg, 2))
    assert len(one) == len(alone) == 3 * cfg.ppo.minibatches
    for expected, a, b in zip(alone, one, other, strict=True):
        torch.testing.assert_close(a, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))
        assert torch.equal(a, b)
    aside = {"collect_seconds", "update_seconds"}
    for expected, a, b in zip(metrics, mine, theirs, strict=True):
        assert {k: v for k, v in a.items() if k not in aside} == {k: v for k, v in b.items() if k not in aside}
        assert set(expected) == set(a)
        np.testing.assert_allclose(
            [a[k] for k in sorted(a) if k not in aside], [expected[k] for k in sorted(a) if k not in aside],
            rtol=1e-3, atol=1e-5,
        )  # fmt: skip
    assert first.env_steps == engine.env_steps == 3 * 8 * ROBOTS
    assert first.learning_rate == second.learning_rate
    assert first.levels == second.levels


@pytest.mark.parametrize(
    ("role", "kind"),
    [("belief", "recurrent"), ("imagination", "recurrent"), ("imagination", "ensemble"), ("exploration", "ensemble")],
)
@pytest.mark.usefixtures("threads_as_before")
def test_networks_stay_the_same_with_a_world_model(role, kind, monkeypatch):
    cfg = configuration({"world_model.role": role, "world_model.kind": kind, **WORLD})
    both = Together(2, monkeypatch)
    (_, mine, one), (_, theirs, other) = both.run(lambda part: trained(part, cfg, 1, 4), *parts_of(cfg, 2))
    for name, x in one.creature.state_dict().items():
        assert torch.equal(x, other.creature.state_dict()[name]), name
    times = {"collect_seconds", "update_seconds"}
    assert {k: v for k, v in mine[-1].items() if k not in times} == {
        k: v for k, v in theirs[-1].items() if k not in times
    }
    assert any(name.startswith("world") for name in mine[-1])
    # each has robots and noise of its own
    assert not torch.equal(one.workers[0].rollout.action, other.workers[0].rollout.action)
    assert not torch.equal(one.replay.obs, other.replay.obs)


@pytest.mark.usefixtures("threads_as_before")
def test_networks_stay_the_same_with_soft_actor_critic(monkeypatch):
    few = {"sac.updates": 4, "sac.batch": 8, "sac.patience": 2, "sac.capacity": 4, "sac.others": 2, "sac.hidden": 64}
    cfg = override(preset("quadruped-walk-flat", learner="sac"), few | {"train.num_envs": ROBOTS})
    both = Together(2, monkeypatch)
    (_, mine, one), (_, theirs, other) = both.run(lambda part: trained(part, cfg, 2, 4), *parts_of(cfg, 2))
    for x, y in zip(
        (one.sac.policy, *one.sac.networks(), *one.belief.buffers()),
        (other.sac.policy, *other.sac.networks(), *other.belief.buffers()),
        strict=True,
    ):
        assert torch.equal(x, y)
    assert mine[-1]["value_loss"] == theirs[-1]["value_loss"] > 0.0
    assert not torch.equal(one.sac.replay.obs, other.sac.replay.obs)
    assert not torch.equal(one.sac.replay.action, other.sac.replay.action)


def test_numbers_that_not_all_have_are_summed_by_name(monkeypatch):
    both = Together(2, monkeypatch)
    found = both.run(distributed.sum_by_name, {"a": 1.0, "b": 2.0}, {"b": 3.0, "c": 4.0})
    assert found[0] == found[1] == {"a": 1.0, "b": 5.0, "c": 4.0}


def test_workers_of_all_processes_have_noise_of_their_own(monkeypatch):
    cfg = configuration({})
    both = Together(3, monkeypatch)
    envs = registry.make(cfg.task, num_envs=160, cfg=cfg.env, threads=1).split(3)
    torch.manual_seed(0)
    creature = Creature(envs[0], cfg.network, cfg.world_model)
    engines = both.run(lambda env: TrainingEngine(env, copy.deepcopy(creature), cfg, CPU, 2), *envs)
    seeds = [worker.generator.initial_seed() for engine in engines for worker in engine.workers]
    assert sorted(len(engine.workers) for engine in engines) == [1, 2, 2]
    assert len(set(seeds)) == 5


def test_moments_are_joined():
    x = torch.randn(40, 3) * torch.tensor([1.0, 5.0, 0.1]) + 2
    joined = Moments.of(x[:7]).join(Moments.of(x[7:8])).join(Moments.of(x[8:]))
    assert joined.count == 40
    torch.testing.assert_close(joined.mean, x.mean(0))
    torch.testing.assert_close(joined.variance, x.var(0, correction=0))


def test_alone_a_process_is_told_what_it_says():
    assert (distributed.size(), distributed.rank(), distributed.local_size()) == (1, 0, 1)
    assert distributed.all_gather("x") == ["x"]
    assert distributed.sum_by_name({"a": 2.0}) == {"a": 2.0}
    assert distributed.from_rank_0(lambda: 3) == 3


def torchrun(folder, *arguments):
    """Run simulate.py as two processes; return exit code and standard error."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, ROOT / "simulate.py", *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stderr


def two_processes(folder, *arguments):
    """Run simulate.py as two processes without torchrun's care; return exit codes, and what both said."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(
            [sys.executable, ROOT / "simulate.py", *arguments], cwd=folder, stderr=subprocess.PIPE, text=True,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    told = [process.communicate(timeout=120)[1] for process in running]
    return [process.returncode for process in running], "".join(told)


def options(iterations):
    changes = TINY | {"env.max_episode_seconds": 1.0, "ppo.rollout": 8, "train.precision": "float32"}
    changes |= {"train.eval_every": 2, "train.eval_episodes": 32, "train.iterations": iterations}
    return [word for name, value in changes.items() for word in (f"--{name}", str(value))]


@pytest.mark.usefixtures("threads_as_before")
def test_torchrun_trains_as_two_threads_do_across_a_stop(tmp_path, monkeypatch):
    together = tmp_path / "together"
    together.mkdir()
    code, told = torchrun(together, *options(4))
    assert code == 0, told
    assert told.count("iteration 4/4") == 1
    code, told = torchrun(together, "--resume", "--iterations", "2")
    assert code == 0, told
    assert "iteration 4 of 6" in told and "anew" not in told
    monkeypatch.chdir(tmp_path)
    assert run([*options(6), "--train.threads", "2"], Console(quiet=True)) == 0
    (alone,) = tmp_path.glob("runs/*/latest.pt")
    (both,) = together.glob("runs/*/latest.pt")
    expected, got = (checkpoints.load(path) for path in (alone, both))
    assert got.progress["env_steps"] == expected.progress["env_steps"]
    assert len(got.run["engine"]) == 2
    for name, x in expected.weights.items():
        torch.testing.assert_close(got.weights[name], x, rtol=1e-3, atol=1e-5, msg=name)
    counted = [len((path.parent / "metrics.csv").read_text().splitlines()) for path in (alone, both)]
    assert counted == [7, 7]


@pytest.mark.parametrize(
    "how, told",
    [
        (
            "raise RuntimeError('a leg broke')",
            "simulate.py: rank 1: {folder}/own.py:27: act(): RuntimeError: a leg broke",
        ),
        ("os.kill(os.getpid(), 9)", "simulate.py: rank 0: another process has ended without a word"),
    ],
)
def test_a_process_that_dies_ends_all_with_its_reason(how, told, tmp_path):
    dies = f"    def act(self, actions):\n        if self.first_robot > 0 and self.clock == 70:\n            {how}\n"
    (tmp_path / "own.py").write_text("import os\n" + BODY.replace("    def act(self, actions):\n", dies))
    codes, error = two_processes(tmp_path, "--task", "own:mine", "--train.num_envs", "64", "--train.eval_every", "0")
    assert all(codes)
    mine = [line for line in error.splitlines() if line.startswith("simulate.py: ")]
    assert len(mine) == 1
    assert mine[0].startswith(told.format(folder=os.path.realpath(tmp_path)))
