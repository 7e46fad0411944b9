"""A policy as an ONNX file, for a robot or another program."""

import contextlib
import io
import os
import pathlib

import torch
from torch import Tensor, nn

from config import ConfigError
from entity import BeliefState, EntityBelief


class _Policy(nn.Module):
    """The policy of one control step as plain tensors in and out."""

    def __init__(self, belief: EntityBelief) -> None:
        super().__init__()
        self.belief = belief

    def forward(self, observation: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sides = self.belief.sides
        mean, state = self.belief(observation[None], BeliefState(hidden.view(sides, -1, 1), cell.view(sides, -1, 1)))
        return mean[0], state.hidden.view(1, -1), state.cell.view(1, -1)


def export_onnx(belief: EntityBelief, num_obs: int, path: str) -> None:
    """Write the policy for one robot, in float32.

    Inputs observation (1, num_obs), hidden and cell (1, lstm), zero at the start of an episode;
    outputs action (1, A), the mean, and next_hidden, next_cell to feed back.

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
    belief.use_fused, belief.dtype = False, torch.float32
    lstm = torch.zeros(1, belief.cfg.lstm)
    partial = target.with_suffix(".partial")
    with contextlib.redirect_stdout(io.StringIO()):  # the exporter reports its progress
        torch.onnx.export(
            _Policy(belief).cpu().eval(), (torch.zeros(1, num_obs), lstm, lstm.clone()), str(partial), dynamo=True, external_data=False, verbose=False,
            input_names=["observation", "hidden", "cell"], output_names=["action", "next_hidden", "next_cell"],
        )  # fmt: skip
    os.replace(partial, target)
