"""The machine that this process runs on: its cores, its memory, its processor, threads that outlive a fork."""

import concurrent.futures
import math
import os
import pathlib
import platform
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import ClassVar

SLOWER = 0.7  # a core of less than this share of the fastest one's capacity is not one to wait for
ROOT = pathlib.Path("/")  # where the system's files are


def available_cores() -> int:
    """Return how many cores this process should keep busy.

    Those it may use, by its affinity, less what a container's quota of processor time does not pay for, rounded up;
    where some are built to save power, as in many laptops, the others alone: work is shared out evenly, and all would
    wait for those.
    """
    if hasattr(os, "sched_getaffinity"):
        mine = os.sched_getaffinity(0)
        return max(1, math.ceil(min(len(_fast(mine)), _quota())))
    return _fast_of_apple() or os.cpu_count() or 1


def available_memory() -> int:
    """Return how much memory is free for this process [bytes]: the machine's, or less where a container has a limit."""
    import psutil

    free = psutil.virtual_memory().available
    for folder in _groups("memory"):
        # version 2 of the kernel's control groups, or 1; what files are cached in is given back on demand
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        held = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if math.isfinite(limit) and math.isfinite(held):
            cached = _statistics(folder / "memory.stat")
            free = min(free, max(int(limit - held) + cached, 0))
    return free


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = (ROOT / "proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _read(file: pathlib.Path) -> str:
    """Return what a file of the system says, or nothing if there is none."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _number(*files: pathlib.Path) -> float:
    """Return the number that the first of these files begins with that there is: infinity for "max", or without one."""
    text = next(filter(None, map(_read, files)), "").split()
    return float(text[0]) if text and text[0].lstrip("-").isdigit() else math.inf


def _statistics(file: pathlib.Path) -> int:
    """Return how many bytes of cached files a control group holds that nobody used lately."""
    rows = dict(line.split()[:2] for line in _read(file).splitlines() if len(line.split()) >= 2)
    return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))


def _groups(controller: str) -> Iterator[pathlib.Path]:
    """Yield the folders of the control groups, of Linux, that hold this process: its own, and those around it.

    In a container the names are often those outside it, and its own group is the root that it sees.
    """
    for line in _read(ROOT / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = ROOT / "sys/fs/cgroup" / (controller if controllers else "")
        inside = pathlib.PurePosixPath(path.lstrip("/"))
        yield from (top / group for group in dict.fromkeys((inside, *inside.parents)) if ".." not in group.parts)


def _quota() -> float:
    """Return how many cores' worth of time this process may take, infinity without a limit."""
    least = math.inf
    for folder in _groups("cpu"):
        quota, *period = _read(folder / "cpu.max").split() or [_read(folder / "cpu.cfs_quota_us")]
        each = _number(folder / "cpu.cfs_period_us") if not period else float(period[0])
        if quota.isdigit() and 0 < each < math.inf:  # not "max", and not -1, which is no limit in version 1
            least = min(least, int(quota) / each)
    return least


def _fast(cores: set[int]) -> set[int]:
    """Return those cores that are not built to save power; all, where they are alike or the system does not tell."""
    named = _read(ROOT / "sys/devices/cpu_core/cpus")  # Intel's performance cores, such as 0-7,16
    if named:
        ranges = [part.partition("-") for part in named.split(",")]
        fast = {core for first, _, last in ranges for core in range(int(first), int(last or first) + 1)}
        return cores & fast or cores
    capacity = {core: _number(ROOT / f"sys/devices/system/cpu/cpu{core}/cpu_capacity") for core in cores}
    if not all(map(math.isfinite, capacity.values())):
        return cores
    return {core for core in cores if capacity[core] >= SLOWER * max(capacity.values())}


def _fast_of_apple() -> int:
    """Return how many performance cores a Mac has, 0 where there are no others or it is none."""
    if sys.platform != "darwin":
        return 0
    told = subprocess.run(["sysctl", "-n", "hw.perflevel0.logicalcpu"], capture_output=True, text=True, check=False)
    return int(told.stdout) if told.stdout.strip().isdigit() else 0


class Pool:
    """Threads for a function at a time, started when they are first asked for, and anew in a forked child.

    A fork takes no threads along: of a ThreadPoolExecutor that has any a child waits for ever.
    """

    _pools: ClassVar["weakref.WeakSet[Pool]"] = weakref.WeakSet()

    def __init__(self, threads: int, name: str = "", initializer: Callable | None = None, initargs: tuple = ()) -> None:
        self._how = threads, name, initializer, initargs
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None
        Pool._pools.add(self)

    def submit(self, function: Callable, *arguments: object) -> concurrent.futures.Future:
        """Have a thread call function(*arguments)."""
        if self._executor is None:
            self._executor = concurrent.futures.ThreadPoolExecutor(*self._how)
        return self._executor.submit(function, *arguments)

    def close(self) -> None:
        """End the threads."""
        if self._executor:
            self._executor.shutdown()

    @classmethod
    def _forget(cls) -> None:
        for pool in cls._pools:
            pool._executor = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Pool._forget)
