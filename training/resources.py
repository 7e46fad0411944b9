"""What this machine has, and what a run makes of it."""

import dataclasses
import math
import sys
import time
from typing import Any

import psutil
import torch

import fused
from config import Config
from entity import dense
from physics.engine import available_cores
from training.monitor import gputil

BYTES_PER_EPISODE = 8 * 1024  # state of a robot and what is seen of it, while it is evaluated
BYTES_PER_ROBOT = 64 * 1024  # state, a rollout of 16 steps and an update's activations, measured at 1024 robots


@dataclasses.dataclass(frozen=True)
class Resources:
    """Cores and memory this process may use, the GPU if there is one, and the choices made."""

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
        found = f"{self.cores} cores, {self.memory / 2**30:.0f} GB free, {self.gpu or 'no GPU'}"
        used = f"{self.num_envs} robots, {self.threads} threads, networks on {where} in {self.precision}"
        return f"found {found}; using {used}"


def bytes_per_robot(cfg: Config) -> float:
    """Return about how much memory training takes for each robot [bytes]."""
    replay = cfg.world_model.capacity * 400 if cfg.world_model.role != "off" else 0  # 100 numbers a step
    return BYTES_PER_ROBOT * max(cfg.ppo.rollout / 16, 1.0) + replay * cfg.ppo.rollout


def detect(cfg: Config) -> Resources:
    """Look at the machine and choose what the configuration leaves open."""
    cores = available_cores()
    memory = psutil.virtual_memory().available
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda and cfg.train.device != "cpu" else "cpu")
    threads = cfg.train.threads or cores
    # a rollout of 1024 robots is what two cores learn from fastest; more only where more hands wait for it
    wanted = 4096 if device.type == "cuda" else min(max(512 * threads, 1024), 4096)
    while wanted > 64 and wanted * BYTES_PER_ROBOT > memory // 2:
        wanted //= 2
    precision = cfg.train.precision if cfg.train.precision != "auto" else fastest_precision(device)
    wanted = max(wanted - wanted % cfg.ppo.minibatches, cfg.ppo.minibatches)
    return Resources(
        cores, memory, _gpu_name() if cuda else "", device, precision, threads, cfg.train.num_envs or wanted
    )


def fastest_precision(device: torch.device) -> str:
    """Return "bfloat16" where a layer of the update's size is at least a fifth faster in it, else "float32"."""
    cpu = device.type == "cpu"
    if cpu and not fused.HAS_PAIRS:
        return "float32"  # compiled code would have to take the pairs apart
    layer = fused.Dense.apply if cpu else dense
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
