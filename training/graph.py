"""CUDA graphs: many small kernels launched as one."""

from collections.abc import Callable

import torch


def record(compute: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Return a graph that repeats what a function does with tensors that stay where they are.

    Not to be called while another thread uses the GPU.
    """
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
