"""Compiler options of every compiled function, in one place.

Three decorators. ``@inline`` is for the scalar functions that hold one physical idea each; LLVM
inlines them without asking. ``@kernel`` is for the functions that Python calls: they loop over
blocks of robots, run without the GIL and are kept in Numba's disk cache. ``@stage`` is for the parts of a
kernel that are compiled and cached on their own: call() calls one by its address, so that a change in another part
leaves it as it is.

Robots lie in blocks of ``LANES``, one row of a block holding one number of each of its robots, so
that the loop over the lanes of a block is vector instructions throughout. For the compiler
to see that, a loop body must be one straight line on a flat array, ``block[row * LANES + lane]``
with ``lane`` from ``range(LANES)``, and everything else must be a scalar loaded before the loop.
"""

import contextlib
import ctypes
import gc
import hashlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
INSTALLED = not (ROOT / "pyproject.toml").exists()  # by pip, as opposed to a clone


def _cache_directory() -> pathlib.Path:
    """Return a cache folder named by the compiled sources.

    Numba notices an edit of the file that holds a kernel, not of the files it inlines from.
    """
    sources = hashlib.sha256(f"{os.environ.get('FOAL_REAL', 'float32')} {HAS_TILES}".encode())
    for folder in ("physics", "environments", "fused"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            sources.update(path.read_bytes())
    name = f"numba-{sources.hexdigest()[:12]}"
    bases = [ROOT / ".cache", pathlib.Path("~/.cache/foal")]
    for base in reversed(bases) if INSTALLED else bases:  # pip takes away nothing but what it brought
        try:
            base = base.expanduser()
            (base / name).mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError):  # a read-only checkout, a user without a home
            continue
        if os.access(base / name, os.W_OK):
            return base / name
    return pathlib.Path(tempfile.mkdtemp(prefix="foal-"))


# PyTorch's OpenMP threads wait by spinning, for milliseconds, on cores that these kernels want: the
# update of a policy on two cores took 18.7 us per sample with the default and 14.8 with this. It is
# read when PyTorch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import llvmlite.binding  # noqa: E402
import numba  # noqa: E402  (after the thread settings)
from numba import typeof, types  # noqa: E402, F401
from numba.core import cgutils  # noqa: E402
from numba.core.caching import FunctionCache  # noqa: E402
from numba.core.codegen import get_host_cpu_features  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

# LLVM prefers half of AVX-512's width on Intel's processors, whose clocks once fell where all of it was in use. On an
# Emerald Rapids a step of robots on flat ground takes 732 ns with all of it and 880 with half, on stairs 1790 and 2082.
_HOST = get_host_cpu_features()
if numba.config.CPU_FEATURES is None and numba.config.CPU_NAME is None and "+avx512f" in _HOST:
    numba.config.CPU_FEATURES = f"{_HOST},-prefer-256-bit"

# Before a vector loop runs, it is checked that its arrays do not overlap, range by range. LLVM gives up joining
# neighbouring ranges after 100 attempts; all of them joined, there are 2 checks in place of 30: 4 % of a step.
llvmlite.binding.set_option("foal", "-memory-check-merge-threshold=100000")


def _allow_tiles() -> bool:
    """Ask Linux for the use of Intel's matrix unit; return whether there is one and this process may."""
    chosen = numba.config.CPU_FEATURES  # None: the processor's own
    features = llvmlite.binding.get_host_cpu_features().flatten() if chosen is None else chosen
    if "+amx-bf16" not in features or "+avx512bf16" not in features or not sys.platform.startswith("linux"):
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0


HAS_TILES = _allow_tiles()

if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(_cache_directory())

_load_overload = FunctionCache.load_overload


def _load_whole(cache: FunctionCache, *arguments: Any) -> Any:
    """Load a compiled function, or nothing, so that it is compiled anew, where its file is damaged."""
    try:
        return _load_overload(cache, *arguments)
    except Exception:  # whatever unpickling a damaged file may raise
        cache.flush()
        return None


FunctionCache.load_overload = _load_whole

# float64 is the same source built for tests of accuracy.
real = np.float64 if os.environ.get("FOAL_REAL") == "float64" else np.float32

# Two AVX-512 registers of float32, four of AVX2. A loop over one register's worth runs a single pass, in which
# chains of dependent instructions (sines, the solves of L D L^T) wait for themselves: 12.3 M steps/s with 16
# lanes, 14.1 with 32, 14.6 with 64.
LANES = 32

# Never "nnan" or "ninf": the reset of a robot whose state is not finite must survive optimisation.
# Not "reassoc" either: it merges the parts of pi in a range reduction, and a sum taken in another order
# in the last lanes of a loop has other bits.
_FLOATS = {"contract", "nsz", "arcp", "afn"}


class _Disjoint(numba.core.compiler.Compiler):
    """Compiles functions that write to none of their arrays what they read from another."""

    def __init__(
        self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any, locals: Any
    ) -> None:
        flags.noalias = True
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)


# Without wrappers, Python cannot call an inline function; that saves a quarter of the compile time.
INLINE = {
    "forceinline": True, "error_model": "numpy", "fastmath": _FLOATS, "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}  # fmt: skip
inline = numba.njit(**INLINE)
kernel = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FLOATS, no_cfunc_wrapper=True)
stage = numba.njit(
    nogil=True,
    cache=True,
    error_model="numpy",
    fastmath=_FLOATS,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    pipeline_class=_Disjoint,
)


@intrinsic
def call(typing: Any, address: Any, *arguments: Any) -> tuple[Any, Callable]:
    """Call a stage by its address(), with arguments whose types are exactly those that it was compiled for."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer, packed = values
        kinds = tuple(arguments)
        function = builder.inttoptr(pointer, context.call_conv.get_function_type(types.none, kinds).as_pointer())
        status, _ = context.call_conv.call_function(
            builder, function, types.none, kinds, cgutils.unpack_tuple(builder, packed)
        )
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.none(address, types.StarArgTuple(arguments)), generate


def callable_from_python(function: Any) -> Callable:
    """Return what calls an inlined function with a tuple of its arguments from Python, to try it out."""

    @numba.njit(error_model="numpy")
    def call(values: Any) -> Any:
        return function(*values)

    return call


def address(function: Any, *kinds: Any) -> int:
    """Return the address of a stage compiled for arguments of these types, from the cache if it is there."""
    if kinds not in function.overloads:
        function.compile(kinds)
    compiled = function.overloads[kinds]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def aligned(*shape: int) -> np.ndarray:
    """Return zeros that start at a cache line: across two, a register loads at half the rate (5 % of a step)."""
    size = int(np.prod(shape))
    line = 64 // np.dtype(real).itemsize
    raw = np.zeros(size + line, dtype=real)
    start = -raw.ctypes.data % 64 // raw.itemsize
    return raw[start : start + size].reshape(shape)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Leave Python's garbage alone while much is compiled: Numba makes many objects, and collecting takes 12 %."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def is_compiled(kernel_name: str) -> bool:
    """Return whether the disk cache holds a kernel of these sources, whichever for an empty name."""
    return any(pathlib.Path(numba.config.CACHE_DIR).rglob(f"*{kernel_name}*.nbi" if kernel_name else "*.nbi"))
