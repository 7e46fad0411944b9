"""Checkpoints: weights with the configuration they were trained under."""

import dataclasses
import math
import os
import pathlib
from typing import Any

import torch

from config import Config
from entity import Creature
from environments import ABEnv, registry
from settings import ConfigError, flat, override

FORMAT = "foal-checkpoint-3"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    progress: iteration, env_steps, train_seconds, survival, ... as saved; trainer: state of the
    optimiser and its learning rate, to resume.
    """

    path: str
    config: Config
    weights: dict[str, Any]
    progress: dict[str, Any]
    trainer: dict[str, Any]

    def creature(self, env: ABEnv) -> Creature:
        """Return the creature for an environment; raise ConfigError, saying what differs, if the weights do not fit."""
        creature = Creature(env, self.config.network, self.config.world_model)
        try:
            creature.load_state_dict(self.weights)
        except RuntimeError:
            raise ConfigError(f"checkpoint: {self.path}: {_difference(creature.state_dict(), self.weights)}") from None
        return creature


def save(
    path: str | os.PathLike,
    creature: Creature,
    config: Config,
    progress: dict[str, Any],
    trainer: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint in one move, so that an interruption leaves the old one or the new one, whole."""
    path = pathlib.Path(path)
    partial = path.with_suffix(".partial")
    data = {
        "format": FORMAT,
        "config": dataclasses.asdict(config),
        "weights": creature.state_dict(),
        "progress": progress,
        "trainer": trainer or {},
    }
    torch.save(data, partial)
    os.replace(partial, path)


def load(path: str | os.PathLike, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint.

    Raises ConfigError, naming the file, if it is missing, damaged or not Foal's.
    """
    try:
        data = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"checkpoint: {path}: no such file; train first with: python simulate.py") from None
    except Exception as error:  # whatever unpickling a foreign file may raise
        raise ConfigError(f"checkpoint: {path}: expected a checkpoint of Foal ({type(error).__name__})") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = f", got {data['format']}" if isinstance(data, dict) and "format" in data else ""
        raise ConfigError(f"checkpoint: {path}: expected a checkpoint of Foal, format {FORMAT}{found}")
    try:
        task = data["config"].get("task", Config().task)
        config = override(
            dataclasses.replace(Config(), task=task, env=registry.default_cfg(task)), flat(data["config"])
        )
        folders = {
            name: getattr(Config().train, name) for name in ("run_dir", "checkpoint_dir")
        }  # of whoever trained it, elsewhere
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, **folders))
    except ConfigError as error:
        raise ConfigError(f"checkpoint: {path}: {error}") from None
    return Checkpoint(str(path), config, data["weights"], data["progress"], data["trainer"])


def _difference(expected: dict[str, Any], got: dict[str, Any]) -> str:
    """Return in words where weights are not those expected: the robot's numbers, else the first shape that differs."""
    shapes, found = ({name: tuple(x.shape) for name, x in weights.items()} for weights in (expected, got))
    for what, name, axes in (
        ("actions", "belief.policy", slice(2)),
        ("observations, privileged ones included", "belief.normaliser.mean", slice(1)),
    ):
        sizes = [math.prod(s.get(name, ())[axes]) for s in (shapes, found)]
        if name in found and sizes[0] != sizes[1]:
            return f"expected {sizes[0]} {what}, got {sizes[1]}"
    name = next(name for name in shapes | found if shapes.get(name) != found.get(name))
    return f"expected {name} of shape {shapes.get(name, 'none')}, got {found.get(name, 'none')}"
