"""How hard the GPU works: sampled beside training by a thread of its own."""

import importlib
import math
import statistics
import threading
import types
from collections.abc import Callable
from functools import partial

import torch

UNITS = {"gpu_load": "%", "gpu_memory": "MB", "gpu_temperature": "deg C"}  # of a run's metrics


def gputil() -> types.ModuleType:
    """Return GPUtil, which asks nvidia-smi; raise ImportError where there is none."""
    importlib.import_module("setuptools")  # brings back distutils, which GPUtil imports and Python 3.12 dropped
    return importlib.import_module("GPUtil")


def reader(device: torch.device) -> Callable[[], dict[str, float]] | None:
    """Return what reads the GPU that a device stands for, None where that is no GPU."""
    if device.type != "cuda":
        return None
    # nvidia-smi counts all GPUs, PyTorch those that CUDA_VISIBLE_DEVICES leaves, in its order
    return partial(read, str(getattr(torch.cuda.get_device_properties(device), "uuid", "")))


def read(uuid: str) -> dict[str, float]:
    """Return gpu_load [%], gpu_memory in use [MB] and gpu_temperature [deg C], as far as they can be told.

    uuid: of the GPU, as PyTorch has it, and of no account where there is but one.

    Raises LookupError if nvidia-smi does not show that GPU, and whatever GPUtil does where nvidia-smi fails.
    """
    gpus = gputil().getGPUs()
    found = [gpu for gpu in gpus if uuid and gpu.uuid.endswith(uuid)] or (gpus if len(gpus) == 1 else [])
    if not found:
        raise LookupError(f"expected GPU {uuid} among {len(gpus)} that nvidia-smi shows")
    values = dict(zip(UNITS, (100.0 * found[0].load, found[0].memoryUsed, found[0].temperature), strict=True))
    return {
        name: float(value) for name, value in values.items() if math.isfinite(value)
    }  # what a GPU does not tell is nan


class Monitor:
    """Samples until closed; a sample that fails is counted and disturbs nothing.

    read: see read(), None for nothing to sample; period: between samples [s].
    """

    def __init__(self, read: Callable[[], dict[str, float]] | None, period: float = 1.0) -> None:
        self.read = read
        self.period = period
        self.samples: dict[str, list[float]] = {name: [] for name in UNITS}
        self.count = 0
        self.failures = 0
        self._latest: dict[str, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpu-monitor", daemon=True)

    def start(self) -> None:
        """Begin to sample, the first time at once."""
        if self.read:
            self._thread.start()

    def latest(self) -> dict[str, float]:
        """Return the latest sample, nothing if it failed or there is none yet."""
        return self._latest

    def close(self) -> None:
        """End the thread, without waiting longer than a second for a sample under way."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def describe(self) -> str:
        """Return one line for people, empty if nothing was sampled."""
        parts = []
        for name, values in self.samples.items():
            if values:
                mean = statistics.fmean(values)
                most = max(values)
                median = statistics.median(values)
                parts.append(
                    f"{name.removeprefix('gpu_')} {mean:.0f} {UNITS[name]} mean, {most:.0f} max, {median:.0f} median"
                )
        if self.failures:
            parts.append(f"{self.failures} of {self.count} samples failed")
        return "GPU: " + "; ".join(parts) if parts else ""

    def _watch(self) -> None:
        while not self._end.is_set():
            try:
                sample = self.read()
            except Exception:  # a GPU is trained on no worse for being unwatched
                sample = {}
            for name, value in sample.items():
                self.samples[name].append(value)
            self.count = self.count + 1
            self.failures = self.failures + (not sample)
            self._latest = sample
            self._end.wait(self.period)
