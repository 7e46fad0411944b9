"""Adam over flat vectors."""

import copy
import math
import subprocess
import sys

import pytest
import torch

from training.optimizer import Adam, flatten, weighted_sum


def test_it_steps_as_pytorch_does_and_takes_its_state():
    random = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(50, 30)
    mine = flatten(list(layer.parameters()))
    theirs = mine.detach().clone().requires_grad_()
    made = Adam(mine, learning_rate=1e-2)
    oracle = torch.optim.Adam([theirs], lr=1e-2, eps=1e-5, fused=True)
    for i in range(6):
        if i == 3:
            made.load_moments(copy.deepcopy([oracle.state[theirs]]))
        gradient = torch.randn(len(mine), generator=random)
        theirs.grad = gradient.clone()
        assert made.step(gradient)
        oracle.step()
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    assert float(made.moments()[0]["step"]) == 6.0
    assert torch.equal(layer.bias, mine[-30:])  # the parameters are views of the vector


@pytest.mark.parametrize("size", [5, 64, 5000])
def test_gradients_of_several_vectors_are_cut_apart_and_may_be_missing(size):
    random = torch.Generator().manual_seed(0)
    vectors = [torch.randn(size, generator=random, requires_grad=True) for _ in range(3)]
    copies = [x.detach().clone().requires_grad_() for x in vectors]
    made = Adam(*vectors)
    oracle = torch.optim.Adam(copies, lr=1e-3, eps=1e-5)
    for _ in range(3):
        gradients = [scale * torch.randn(size, generator=random) for scale in (1e-4, 5.0)]
        assert made.step(gradients[0], None, gradients[1], limit=0.5)
        for x, g in zip((copies[0], copies[2]), gradients, strict=True):
            x.grad = g
            torch.nn.utils.clip_grad_norm_(x, 0.5)
        oracle.step()
    for x, y in zip(vectors, copies, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-7)
    before = [x.detach().clone() for x in (*vectors, made.moments()[0]["exp_avg"])]
    gradients[1][size - 1] = math.nan
    assert not made.step(gradients[0], None, gradients[1])
    for x, y in zip((*vectors, made.moments()[0]["exp_avg"]), before, strict=True):
        assert torch.equal(x, y)


def test_what_does_not_fit_is_refused():
    vector = torch.zeros(8, requires_grad=True)
    for wrong in (torch.zeros(7), torch.zeros(8, dtype=torch.float64), torch.zeros(16)[::2]):
        with pytest.raises(ValueError, match="expected a contiguous float32 vector of 8"):
            Adam(vector).step(wrong)
        with pytest.raises(ValueError, match="expected a contiguous float32 vector of 8"):
            weighted_sum([torch.zeros(8), wrong], [1.0, 1.0])


def test_weighted_sums():
    vectors = list(torch.randn(3, 100).unbind())
    torch.testing.assert_close(weighted_sum(vectors, [0.5, -1.0, 2.0]), 0.5 * vectors[0] - vectors[1] + 2 * vectors[2])
    out = torch.zeros(100)
    assert weighted_sum(vectors[:1], [0.5], out) is out
    assert torch.equal(out, 0.5 * vectors[0])


def test_no_compiler_is_imported_for_it():
    code = """
import sys, torch
from training.optimizer import Adam
vector = torch.zeros(3, requires_grad=True)
made = Adam(vector)
made.step(torch.ones(3))
made.load_moments(made.moments())
print("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
