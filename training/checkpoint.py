"""Checkpoints: weights with the configuration they were trained under, and all that going on from there needs."""

import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Collection
from typing import Any, BinaryIO

import torch

from config import Config, NetworkCfg
from entity import Creature
from environments import ABEnv, registry
from settings import ConfigError, flat, knobs, override, sections
from training import tree
from training.files import written_whole
from training.runs import LATEST, is_run

FORMAT = "foal-checkpoint-4"
PARTS = "config", "weights", "progress", "trainer", "run"
CHOSEN = {"train.num_envs", "train.threads", "train.precision"}
# A policy means nothing to another robot, nor where its observations or actions mean something else
LEARNT_FOR = "env.model", "env.control", "command.kind"
# What a world model is made of
WORLD_MODEL = (
    "role", "kind", "size", "privileged", "deter", "groups", "classes", "hidden", "members", "bins", "reward_scale",
)  # fmt: skip
PROGRESS = {"iteration": int, "env_steps": int, "train_seconds": float}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint, its contents those that were saved, to the last bit.

    progress: iteration, env_steps, train_seconds, survival, ... as saved; trainer: of the optimisers, to train on; run:
    of everything else, to go on as if nothing had happened, empty in a checkpoint of a policy alone.
    """

    path: str
    config: Config
    weights: dict[str, Any]
    progress: dict[str, Any]
    trainer: dict[str, Any]
    run: dict[str, Any]

    @property
    def folder(self) -> pathlib.Path | None:
        """The folder of the run whose latest state this is, None for anything else."""
        path = pathlib.Path(self.path)
        return path.parent if path.name == LATEST and is_run(path.parent) else None

    @property
    def chosen(self) -> dict[str, Any]:
        """What the machine chose for the run, by field of the configuration; raise ConfigError for other fields."""
        chosen = self.progress.get("chosen", {})
        if not isinstance(chosen, dict) or not set(chosen) <= CHOSEN:
            raise ConfigError(f"checkpoint: {self.path}: progress.chosen: expected {', '.join(sorted(CHOSEN))}")
        return dict(chosen)

    @property
    def last(self) -> int:
        """The iteration that the run was to end with, 0 where it does not say."""
        last = self.progress.get("last", 0)
        return last if isinstance(last, int) and not isinstance(last, bool) else 0

    @property
    def processes(self) -> int:
        """How many processes' states the run has, 0 for none."""
        states = self.run.get("engine")
        return len(states) if isinstance(states, list) else 0

    def require_fitting(self, cfg: Config) -> None:
        """Raise ConfigError, naming the field, where a configuration asks for networks other than those there are.

        Likewise where it asks them to do what they were not trained for.
        """
        networks = (f"network.{field.name}" for field in knobs(cfg.network))
        self.require_same(cfg, (*LEARNT_FOR, *networks, *(f"world_model.{name}" for name in WORLD_MODEL)))

    def require_same(self, cfg: Config, keys: Collection[str]) -> None:
        """Raise ConfigError, naming the field, where a configuration has another value than was trained with.

        keys: "section.field", of which those count that the task has.
        """
        asked, trained = sections(cfg), sections(self.config)
        for key in keys:
            name, field = key.split(".")
            value, kept = (getattr(x.get(name), field, None) for x in (asked, trained))
            if value != kept:
                raise ConfigError(f"{key}: expected {kept}, which {self.path} was trained with, got {value}")

    def creature(self, env: ABEnv) -> Creature:
        """Return the creature for an environment; raise ConfigError, saying what differs, if the weights do not fit."""
        creature = Creature(env, self.config.network, self.config.world_model)
        expected = creature.state_dict()
        if {name: x.shape for name, x in expected.items()} != {
            name: getattr(x, "shape", None) for name, x in self.weights.items()
        }:
            raise ConfigError(f"checkpoint: {self.path}: {_difference(expected, self.weights)}")
        tree.require_like(dict(expected), {name: self.weights[name] for name in expected}, f"checkpoint: {self.path}")
        creature.load_state_dict(self.weights)
        return creature


def save(
    path: str | os.PathLike,
    creature: Creature,
    config: Config,
    progress: dict[str, Any],
    trainer: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint whole: an interruption leaves the old one or the new one; raise OSError if it fails."""
    data = {
        "config": dataclasses.asdict(config),
        "weights": dict(creature.state_dict()),
        "progress": progress,
        "trainer": trainer or {},
        "run": run or {},
    }
    written = io.BytesIO()  # written to a file, PyTorch would say RuntimeError where the disk is full
    torch.save({"format": FORMAT, "digest": tree.digest(data)} | data, written)
    with written_whole(path) as file:
        file.write(written.getbuffer())


def load(
    path: str | os.PathLike,
    device: str | torch.device = "cpu",
    modules: Collection[str] = (),
    contents: BinaryIO | None = None,
) -> Checkpoint:
    """Read a checkpoint; nothing in it is run.

    modules: tasks and policies of one's own, "module:name", that may be imported for it; contents: of the file, where
    it is another machine's.

    Raises ConfigError, naming the file, if it is missing, damaged, not Foal's, or would import another module.
    """
    try:
        data = torch.load(contents or path, map_location="cpu", weights_only=True, mmap=contents is None)
    except FileNotFoundError:
        raise ConfigError(f"checkpoint: {path}: there is no such file or folder") from None
    except IsADirectoryError:
        raise ConfigError(f"checkpoint: {path}: expected a file, or the folder of a run") from None
    except Exception as error:  # whatever unpickling a foreign file may raise
        raise ConfigError(
            f"checkpoint: {path!s:.120}: expected a checkpoint of Foal, whole ({type(error).__name__})"
        ) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = f", got {data['format']!r:.40}" if isinstance(data, dict) and "format" in data else ""
        raise ConfigError(f"checkpoint: {path}: expected a checkpoint of Foal, format {FORMAT}{found}")
    try:
        kept = {name: data.get(name) for name in PARTS}
        if tree.digest(kept) != data.get("digest"):
            raise ConfigError("expected the contents that were saved, the file is damaged")
        if wrong := [name for name, part in kept.items() if not isinstance(part, dict)]:
            raise ConfigError(f"{wrong[0]}: expected a dict")
        config = config_of(kept["config"], modules)
        for name, kind in PROGRESS.items():
            value = kept["progress"].get(name, kind())
            if type(value) is not kind or not 0 <= value < math.inf:
                raise ConfigError(f"progress.{name}: expected a {kind.__name__} of at least 0, got {value!r:.40}")
    except (ConfigError, RecursionError) as error:
        raise ConfigError(f"checkpoint: {path}: {error}") from None
    del kept["config"]
    return Checkpoint(str(path), config, **tree.to(kept, torch.device(device)))


def config_of(saved: dict[str, Any], modules: Collection[str]) -> Config:
    """Return the configuration that a checkpoint has; raise ConfigError if it is none, or would import a module."""
    task = saved.get("task", Config().task)
    if not isinstance(task, str):
        raise ConfigError(f"task: expected a text, got {task!r:.80}")
    network = saved.get("network")
    policy = network.get("policy", "") if isinstance(network, dict) else ""
    for option, name in (("--task", task), ("--network.policy", policy)):
        if ":" in str(name) and name != NetworkCfg().policy and name not in modules:
            raise ConfigError(
                f"expected {option} {name!s:.80}, which it was trained with: only the command line makes Foal import "
                "a module"
            )
    config = override(dataclasses.replace(Config(), task=task, env=registry.default_cfg(task)), flat(saved))
    return dataclasses.replace(  # runs are where whoever uses it keeps them
        config, train=dataclasses.replace(config.train, run_dir=Config().train.run_dir)
    )


def _difference(expected: dict[str, Any], got: dict[str, Any]) -> str:
    """Return in words where weights are not those expected: the robot's numbers, else the first shape that differs."""
    shapes, found = (
        {name: tuple(getattr(x, "shape", ())) for name, x in weights.items()} for weights in (expected, got)
    )
    for what, name, axes in (
        ("actions", "belief.policy", slice(2)),
        ("observations, privileged ones included", "belief.normaliser.mean", slice(1)),
    ):
        sizes = [math.prod(s.get(name, ())[axes]) for s in (shapes, found)]
        if name in found and sizes[0] != sizes[1]:
            return f"expected {sizes[0]} {what}, got {sizes[1]}"
    name = next((name for name in shapes | found if shapes.get(name) != found.get(name)), "weights")
    return f"expected {name} of shape {shapes.get(name, 'none')}, got {found.get(name, 'none')}"
