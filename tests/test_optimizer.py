"""Adam over flat vectors."""

import copy
import subprocess
import sys

import torch

from training.optimizer import Adam, flatten


def test_it_steps_as_pytorch_does_and_takes_its_state():
    random = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(5, 3)
    mine = flatten(list(layer.parameters()))
    theirs = mine.detach().clone().requires_grad_()
    made = Adam(mine, learning_rate=1e-2)
    oracle = torch.optim.Adam([theirs], lr=1e-2, eps=1e-5, fused=True)
    for i in range(6):
        if i == 3:
            made.load_state_dict(copy.deepcopy(oracle.state_dict()))
        gradient = torch.randn(len(mine), generator=random)
        mine.grad = gradient.clone()
        theirs.grad = gradient.clone()
        made.step()
        oracle.step()
    assert torch.equal(mine, theirs)
    assert torch.equal(layer.bias, theirs[-3:])  # the parameters are views of the vector


def test_no_compiler_is_imported_for_it():
    code = """
import sys, torch
from training.optimizer import Adam
vector = torch.zeros(3, requires_grad=True)
made = Adam(vector)
vector.grad = torch.ones(3)
made.step()
made.load_state_dict(made.state_dict())
print("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
