"""What this machine has, and what a run makes of it."""

import contextlib
import dataclasses
import hashlib
import math
import pathlib
import sys
import time
from typing import Any

import numba
import psutil
import torch

import fused
from config import Config
from entity import dense
from host import available_cores, available_memory, processor
from settings import ConfigError
from training import distributed
from training.monitor import gputil

BYTES_PER_EPISODE = 8 * 1024  # state of a robot and what is seen of it, while it is evaluated
BYTES_PER_ROBOT = 64 * 1024  # state, a rollout of 16 steps and an update's activations, measured at 1024 robots


@dataclasses.dataclass(frozen=True)
class Resources:
    """Cores and memory this process may use, the GPU if there is one, and the choices made.

    threads: of each process; num_envs: robots of all of them.
    """

    cores: int
    memory: int  # free [bytes]
    gpu: str  # name and memory, or empty
    device: torch.device
    precision: str
    threads: int
    num_envs: int

    def chosen(self) -> dict[str, Any]:
        """Return the choices, by field of the configuration."""
        return {"train.num_envs": self.num_envs, "train.threads": self.threads, "train.precision": self.precision}

    def describe(self) -> str:
        """Return one line for people."""
        where = self.gpu if self.device.type == "cuda" else "CPU"
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        found = f"{cores}, {self.memory / 2**30:.0f} GB free, {self.gpu or 'no GPU'}"
        processes = distributed.size()
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        hands = f"{processes} processes of {threads}" if processes > 1 else threads
        return f"found {found}; using {self.num_envs} robots, {hands}, networks on {where} in {self.precision}"


def bytes_per_robot(cfg: Config) -> float:
    """Return about how much memory training takes for each robot [bytes]."""
    replay = cfg.world_model.capacity * 400 if cfg.world_model.role != "off" else 0  # 100 numbers a step
    if cfg.train.learner == "sac":
        replay = cfg.sac.capacity * (400 + 4 * cfg.sac.others)
    return BYTES_PER_ROBOT * max(cfg.ppo.rollout / 16, 1.0) + replay * cfg.ppo.rollout


def detect(cfg: Config) -> Resources:
    """Look at the machine and choose what the configuration leaves open, the same in every process.

    Raises ConfigError where there are more processes than GPUs for them.
    """
    cores = available_cores()
    memory = available_memory()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda and cfg.train.device != "cpu" else "cpu")
    if device.type == "cuda" and distributed.size() > 1:
        device = _gpu_of_this_process()
    precision = cfg.train.precision
    if precision == "auto":
        with distributed.first_here():
            precision = fastest_precision(device)
    found = distributed.all_gather((cfg.train.threads or cores, memory / distributed.local_size(), precision))
    threads, share = (min(each[i] for each in found) for i in (0, 1))
    precision = min((each[2] for each in found), key=("float32", "bfloat16").index)
    # a rollout of 1024 robots is what two cores learn from fastest; more only where more hands wait for it
    processes = len(found)
    machines = processes // distributed.local_size()
    wanted = 4096 * processes if device.type == "cuda" else min(max(512 * threads * processes, 1024), 4096 * machines)
    while wanted > 64 * processes and wanted / processes * BYTES_PER_ROBOT > share / 2:
        wanted //= 2
    together = cfg.ppo.minibatches * processes
    wanted = max(wanted - wanted % together, together)
    return Resources(
        cores, memory, _gpu_name() if cuda else "", device, precision, threads, cfg.train.num_envs or wanted
    )


def _gpu_of_this_process() -> torch.device:
    """Return a GPU that no other process of this machine has; raise ConfigError if there are too few."""
    if torch.cuda.device_count() < distributed.local_size():
        raise ConfigError(
            f"torchrun: expected at most {torch.cuda.device_count()} processes on this machine, one for each GPU, got "
            f"{distributed.local_size()}; --train.device cpu trains without"
        )
    torch.cuda.set_device(distributed.local_rank())
    return torch.device("cuda", distributed.local_rank())


def fastest_precision(device: torch.device) -> str:
    """Return "bfloat16" where a layer of the update's size is at least a fifth faster in it, else "float32".

    Intel's matrix unit, which float32 cannot use, needs no measurement.

    What was found is kept beside the compiled code, for each processor and GPU: where others use the machine, too, a
    measurement now and then comes out the other way, and the same seed has to give the same run.
    """
    cpu = device.type == "cpu"
    if cpu and not fused.HAS_PAIRS:
        return "float32"  # compiled code would have to take the pairs apart
    if cpu and fused.HAS_TILES:
        return "bfloat16"  # in half of the time, and to compile the other for a measurement takes 1.8 s
    where = f"{processor()} {fused.WIDTH}" if cpu else torch.cuda.get_device_name(device)
    kept = pathlib.Path(numba.config.CACHE_DIR) / f"precision-{hashlib.sha256(where.encode()).hexdigest()[:12]}"
    if known := _read(kept):
        return known
    found = _measure_precision(device)
    with contextlib.suppress(OSError), open(kept, "x") as file:  # of two at once, the first counts for both
        file.write(found)
    return _read(kept) or found


def _read(kept: pathlib.Path) -> str | None:
    """Return the precision that a file names; None if there is none."""
    try:
        precision = kept.read_text()
    except (OSError, ValueError):
        return None
    return precision if precision in ("float32", "bfloat16") else None


def _measure_precision(device: torch.device) -> str:
    layer = fused.Dense.apply if device.type == "cpu" else dense
    weight = torch.ones(2, 64, 64, device=device)
    bias = torch.ones(64, device=device)
    inputs = {dtype: torch.ones(2, 64, 2048, dtype=dtype, device=device) for dtype in (torch.float32, torch.bfloat16)}
    seconds = dict.fromkeys(inputs, math.inf)
    for _ in range(10):  # in turn and the best of ten, as other work on the machine slows some of them
        for dtype, x in inputs.items():
            start = time.perf_counter()
            layer(x, weight, bias)[0, 0, 0].item()
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return "bfloat16" if seconds[torch.bfloat16] * 1.2 < seconds[torch.float32] else "float32"


def _gpu_name() -> str:
    """Return name and memory of the GPU, by GPUtil where it works, else by PyTorch."""
    try:
        gpu = gputil().getGPUs()[0]
        return f"{gpu.name}, {gpu.memoryTotal / 1024:.0f} GB"
    except (ImportError, IndexError, OSError, ValueError):
        found = torch.cuda.get_device_properties(0)
        return f"{found.name}, {found.total_memory / 2**30:.0f} GB"


def peak_memory() -> int:
    """Return the most memory this process has held [bytes]."""
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().peak_wset
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
