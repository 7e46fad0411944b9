"""Processes that train together, on one machine or several, as ``torchrun simulate.py`` starts them.

Each has robots, cores and, where there are any, a GPU of its own, and takes the same steps with the same networks. What
they must agree on goes through here: sums of tensors, and lists of what each of them has, in the order of their ranks.
A process that is alone is told what it says. Only the main thread calls these.
"""

import contextlib
import datetime
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from observation import Moments
from settings import ConfigError

Anything = TypeVar("Anything")

PATIENCE = datetime.timedelta(minutes=10)  # with a process that says nothing, while it compiles perhaps
VARIABLES = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"
_store: Any = None
_parted = False  # from the others, in the middle of something


class LostProcessError(Exception):
    """Another process of the run has ended."""


def start() -> None:
    """Find the others, if torchrun started several processes, and take a share of this machine's cores.

    Raises ConfigError if what torchrun says is incomplete or the others cannot be reached.
    """
    global _store
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE") == "1":
        return
    if missing := [name for name in VARIABLES if name not in os.environ]:
        raise ConfigError(f"{missing[0]}: expected all that torchrun sets beside RANK")
    try:
        _take_cores(*(int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE")))
        _store, number, count = next(dist.rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(store=_store, rank=number, world_size=count, timeout=PATIENCE)
    except (OSError, RuntimeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"torchrun: the other processes cannot be reached ({error!s:.200})") from None


def _take_cores(rank: int, processes: int) -> None:
    """Keep to a share of the cores; all of them where there are fewer than processes, or the system has no such way."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        mine = cores[len(cores) * rank // processes : len(cores) * (rank + 1) // processes]
        os.sched_setaffinity(0, mine or cores)


def leave(code: int) -> int:
    """Return an exit code; of several processes end at once with it, once all have come so far.

    torchrun ends the others as soon as one has left with another code than 0.
    """
    if size() > 1:
        if not _parted:
            with contextlib.suppress(LostProcessError):
                all_gather(None)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def part() -> None:
    """Do nothing more together: the others may be somewhere else."""
    global _parted
    _parted = size() > 1


def is_parted() -> bool:
    """Return whether nothing more is done together."""
    return _parted


def size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if _store else 1


def rank() -> int:
    """Return this process's number; the first, 0, is the one that writes files and speaks."""
    return dist.get_rank() if _store else 0


def local_rank() -> int:
    """Return this process's number among those of this machine."""
    return int(os.environ["LOCAL_RANK"]) if _store else 0


def local_size() -> int:
    """Return how many processes this machine has."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if _store else 1


def is_first_to_fail() -> bool:
    """Return whether no process has failed before, so that this one is to say why all of them end."""
    try:
        return _store is None or _store.add("failed", 1) == 1
    except RuntimeError:  # the one that kept count is gone
        return True


@contextlib.contextmanager
def _missed() -> Iterator[None]:
    """Raise LostProcessError where PyTorch finds that a process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(str(error).partition("\n")[0]) from None


def all_gather(mine: Anything) -> list[Anything]:
    """Return what every process has, in the order of their ranks."""
    if size() == 1:
        return [mine]
    found: list[Any] = [None] * size()
    with _missed():
        dist.all_gather_object(found, mine)
    return found


def all_gather_moments(mine: list[Moments]) -> list[Moments]:
    """Return the moments that every process has, in the order of their ranks, on this one's device."""
    if size() == 1:
        return mine
    device = mine[0].mean.device
    return [moments.to(device) for found in all_gather([m.to("cpu") for m in mine]) for moments in found]


def gather(mine: Anything) -> list[Anything] | None:
    """Return what every process has to the first of them, None to the others."""
    if size() == 1:
        return [mine]
    found: list[Any] | None = [None] * size() if rank() == 0 else None
    with _missed():
        dist.gather_object(mine, found)
    return found


def from_rank_0(find: Callable[[], Anything]) -> Anything:
    """Return what the first process finds, to all of them."""
    found = [find() if rank() == 0 else None]
    if size() > 1:
        with _missed():
            dist.broadcast_object_list(found)
    return found[0]


def all_reduce(vector: Tensor, numbers: dict[str, float]) -> tuple[Tensor, dict[str, float]]:
    """Return the sums of all processes' vectors and numbers, which travel in one message; all have the same names."""
    if size() == 1:
        return vector, numbers
    both = torch.cat((vector, vector.new_tensor(list(numbers.values()))))
    with _missed():
        dist.all_reduce(both)
    total, rest = both.split((len(vector), len(numbers)))
    return total, dict(zip(numbers, rest.tolist(), strict=True))


def sum_by_name(numbers: dict[str, float]) -> dict[str, float]:
    """Return the sums of all processes' numbers, by name, in double precision; not all need have the same names."""
    found: dict[str, float] = {}
    for each in all_gather(numbers):
        for name, x in each.items():
            found[name] = found.get(name, 0.0) + x
    return found


def broadcast(tensors: list[Tensor]) -> None:
    """Give every process the first one's tensors, in place."""
    if size() > 1:
        with _missed():
            for x in tensors:
                dist.broadcast(x, 0)


@contextlib.contextmanager
def first_here() -> Iterator[None]:
    """Let the first process of each machine go ahead, and the others follow: what it compiled is in the cache."""
    if local_rank() > 0:
        all_gather(None)
    yield
    if local_rank() == 0:
        all_gather(None)
