"""A policy as an ONNX file, for a robot or another program."""

import contextlib
import io
import os
import pathlib

import torch
from torch import Tensor, nn

from entity import Creature
from settings import ConfigError
from training.files import require_file


class _Policy(nn.Module):
    """The policy of one control step as plain tensors in and out, what is remembered as rows."""

    def __init__(self, creature: Creature) -> None:
        super().__init__()
        self.creature = creature
        memory = creature.initial_state(1)
        names = creature.belief.state_names or [f"state_{i}" for i in range(len(memory.belief))]
        self.names = [*names, *(("latent", "last_action", "begun") if creature.reads else ())]
        self.start = memory.tensors()[: len(self.names)]  # what follows is empty

    def forward(self, observation: Tensor, *remembered: Tensor) -> tuple[Tensor, ...]:
        memory = self.creature.initial_state(1)
        count = len(self.names)
        given = (x.view(start.shape) for x, start in zip(remembered, self.start, strict=True))
        action, _, after = self.creature.act(observation, memory.like([*given, *memory.tensors()[count:]]))
        return action, *(x.reshape(1, -1) for x in after.tensors()[:count])


def export_onnx(creature: Creature, num_obs: int, path: str) -> None:
    """Write the policy for one robot, in float32.

    Inputs observation (1, num_obs), and what the policy remembers, zero at the start of an episode: hidden and
    cell (1, lstm) of EntityBelief; outputs action (1, A), the mean, and next_hidden, next_cell to feed back. One that
    reads a world model also remembers latent, last_action and begun, fed back and zero at the start likewise.

    Raises ConfigError if the path does not end in .onnx or cannot be written, or a package is missing.
    """
    target = pathlib.Path(path)
    if target.suffix != ".onnx" or not target.parent.is_dir():
        raise ConfigError(f"--export: expected a file name ending in .onnx in a folder that exists, got {path}")
    try:
        import onnx  # noqa: F401  (what PyTorch's exporter needs)
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError("--export: needs the packages onnx and onnxscript: pip install onnx onnxscript") from None
    require_file(target, "--export")
    creature.use_precision("float32")
    for part in (creature.belief, creature.world_model):
        if part is not None:
            part.use_fused = False
    policy = _Policy(creature).cpu().eval()
    remembered = [x.reshape(1, -1) for x in policy.start]
    partial = target.with_suffix(".partial")
    with contextlib.redirect_stdout(io.StringIO()):  # the exporter reports its progress
        torch.onnx.export(
            policy, (torch.zeros(1, num_obs), *remembered), str(partial), dynamo=True, external_data=False,
            verbose=False, input_names=["observation", *policy.names],
            output_names=["action", *(f"next_{name}" for name in policy.names)],
        )  # fmt: skip
    os.replace(partial, target)
