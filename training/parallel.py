"""Threads side by side, each with robots of its own.

No two of them wait for one another within a rollout or an update.
"""

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from host import Pool

Item = TypeVar("Item", bound=Any)
Result = TypeVar("Result", bound=Any)

_pool: Pool | None = None
_size = 0
_in_vain = threading.Event()  # what is computed: a thread has failed, or was asked to end
# PyTorch has MKL compute these, which finds out how at a function's first call. A second thread that calls it meanwhile
# gets numbers with errors up to 1e-4, once (https://github.com/pytorch/pytorch/issues/188792): the policy's standard
# deviation was another in one half of the first rollout of 8 of 20 trainings with two threads and 64 robots.
_VECTOR_FUNCTIONS = (
    "acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "expm1", "log", "log10", "log1p", "log2", "sin",
    "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip


def in_vain() -> bool:
    """Return whether what side_by_side() computes is not wanted any more: those who work for long ask now and then."""
    return _in_vain.is_set()


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return function(item) of every item, each computed in a thread of its own, the first in this one.

    Raises what one of them raises, once all have ended.
    """
    global _pool, _size
    if len(items) > _size + 1:
        if _pool is None:
            for name in _VECTOR_FUNCTIONS:
                for dtype in (torch.float32, torch.float64):
                    getattr(torch, name)(torch.full((1,), 0.5, dtype=dtype))
        _size = len(items) - 1
        _pool = Pool(_size, "worker", torch.set_num_threads, (1,))
    futures = [_pool.submit(function, item) for item in items[1:]]
    try:
        first = function(items[0])
    except BaseException:
        _in_vain.set()
        raise
    finally:
        concurrent.futures.wait(futures)
        _in_vain.clear()
    return [first, *(future.result() for future in futures)]
