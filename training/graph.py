"""Graphs: many small kernels launched as one, on a GPU by CUDA, on the CPU by a program of compiled calls."""

from collections.abc import Callable
from typing import Protocol

import torch

import fused


class Graph(Protocol):
    """What repeats a function on tensors that stay where they are."""

    def replay(self) -> None:
        """Do what the function did."""


def record(compute: Callable[[], None], device: torch.device) -> Graph:
    """Return a graph that repeats what a function does with tensors that stay where they are.

    On a GPU the function has run then, and not to be recorded while another thread uses it; on the CPU it has not, and
    is made of compiled calls alone.
    """
    if device.type == "cpu":
        return fused.record(compute)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries allocate what they need in their first runs, which a graph must not
        for _ in range(3):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        compute()
    return graph
