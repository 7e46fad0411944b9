"""Threads side by side, each with robots of its own.

No two of them wait for one another within a rollout or an update.
"""

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

Item = TypeVar("Item", bound=Any)
Result = TypeVar("Result", bound=Any)

_pool: concurrent.futures.ThreadPoolExecutor | None = None
_size = 0


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return function(item) of every item, each computed in a thread of its own, the first in this one.

    Raises what one of them raises, once all have ended.
    """
    global _pool, _size
    if len(items) > _size + 1:
        _size = len(items) - 1
        _pool = concurrent.futures.ThreadPoolExecutor(_size, "worker", torch.set_num_threads, (1,))
    futures = [_pool.submit(function, item) for item in items[1:]]
    try:
        first = function(items[0])
    finally:
        concurrent.futures.wait(futures)
    return [first, *(future.result() for future in futures)]
