"""Compiled calls in a row: repeated as one without Python's lock, and walked backwards for their gradients.

Between two layers Python and PyTorch's book-keeping take as long as a small layer, and hold a lock that other threads
wait for: a third of a gradient of 128 robots and 16 steps on each of two threads.
"""

import functools
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np
import torch
from numba import types
from numba.extending import intrinsic
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fused.memory import owner, view
from fused.registers import WIDTH
from fused.vectors import load, store
from physics.jit import address, aligned, inline, kernel

MOST = 48  # arguments of a call

_own = threading.local()  # program: that is being recorded in this thread; tape: what layers are noted on
_ALLOCATIONS = {
    "empty", "empty_like", "empty_strided", "full", "lift_fresh", "new_empty", "new_zeros", "zeros", "zeros_like",
}  # fmt: skip


@intrinsic
def _call(typing, function, arguments, count):
    """Call a compiled function at an address with so many numbers, which lie at another."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        callee, place, number = values
        word = context.get_value_type(types.intp)
        place = builder.inttoptr(place, word.as_pointer())
        end = builder.append_basic_block("end")
        choice = builder.switch(number, end)
        for n in range(1, MOST + 1):
            block = builder.append_basic_block(f"of_{n}")
            choice.add_case(word(n), block)
            builder.position_at_end(block)
            kinds = (types.intp,) * n
            numbers = [builder.load(builder.gep(place, [word(i)])) for i in range(n)]
            pointer = builder.inttoptr(callee, context.call_conv.get_function_type(types.none, kinds).as_pointer())
            context.call_conv.call_function(builder, pointer, types.none, kinds, numbers)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.none(types.intp, types.intp, types.intp), generate


@inline
def replay(calls, table):
    """Make calls of a table: of each the function's address, how many arguments it has, and these."""
    numbers = view(table, np.int64)
    place = 0
    for _ in range(calls):
        count = numbers[place + 1]
        _call(numbers[place], table + 8 * (place + 2), count)
        place += 2 + count


@kernel
def _replay(calls, table):
    replay(calls, table)


class _Memory:
    """Memory for tensors of what is recorded; that of one that nobody holds any more serves others.

    A gradient is written where an activation was, then, which the cache holds already, instead of into new memory.
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._free: list[np.ndarray] = []
        self._addresses: set[int] = set()

    def like(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape and kind of a contiguous one."""
        size = x.numel() * x.element_size()
        fitting = [block for block in self._free if size <= block.nbytes <= 2 * size]
        if fitting:
            block = min(reversed(fitting), key=lambda block: block.nbytes)
            self._free = [other for other in self._free if other is not block]
        else:
            block = aligned(-(-max(size, 1) // 4)).view(np.uint8)
            self._blocks.append(block)
            self._addresses.add(block.ctypes.data)
        piece = block[:size]
        weakref.finalize(piece, lambda: self._free.append(block)).atexit = False  # once the last view of it is gone
        return torch.from_numpy(piece).view(x.dtype).view(x.shape)

    def owns(self, x: Any) -> bool:
        """Return whether a tensor lies in this memory."""
        return isinstance(x, Tensor) and x.untyped_storage().data_ptr() in self._addresses


class Program:
    """Compiled calls, with the memory that they read and write: what a CUDA graph is on a GPU."""

    def __init__(self) -> None:
        self.calls = 0
        self._numbers: list[int] = []
        self._kept: list[Any] = []
        self.scratch: dict[str, Any] = {}  # see memory.scratch
        self.memory = _Memory()
        self._table = np.zeros(0, np.int64)

    def add(self, function: Any, numbers: list[int], memory: Iterable[Any]) -> None:
        """Add a call, and keep the memory that its arguments point to, where that is not the program's own."""
        if len(numbers) > MOST:
            raise ValueError(f"{function}: expected at most {MOST} arguments, got {len(numbers)}")
        self._numbers += [address(function, *[types.intp] * len(numbers)), len(numbers), *map(int, numbers)]
        self._kept += [x for x in memory if not self.memory.owns(x)]
        self.calls += 1
        self._table = None

    def table(self) -> int:
        """Return the address of what replay() reads, which stays where it is while no call is added."""
        if self._table is None:
            self._table = np.array(self._numbers, np.int64)
        return self._table.ctypes.data

    def replay(self) -> None:
        """Make all calls in this thread, none of them waiting for Python."""
        _replay(self.calls, self.table())


class _Watched(TorchDispatchMode):
    """Refuses what would compute in PyTorch, and so be missing when a program is repeated."""


def _refuse(self: Any, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
    if not func.is_view and func.overloadpacket.__name__ not in _ALLOCATIONS:
        raise RuntimeError(f"a program is recorded of compiled calls alone: expected views, got {func}")
    found = func(*args, **(kwargs or {}))
    if "empty" in func.overloadpacket.__name__ and found.device.type == "cpu" and found.is_contiguous():
        return _own.program.memory.like(found)
    return found


_Watched.__torch_dispatch__ = _refuse  # one in the class's body imports PyTorch's compiler: 1.2 s of every start


def record(compute: Callable[[], None]) -> Program:
    """Return the compiled calls that a function makes, which are not made yet, on tensors that stay where they are.

    Between them it may look at tensors from other sides and allocate some, zeros of which are only set now.
    """
    program = Program()
    _own.program = program
    try:
        with torch.no_grad(), _Watched(), owner(program.scratch):
            compute()
    finally:
        _own.program = None
    return program


def launch(function: Any, *arguments: Tensor | float) -> None:
    """Call a compiled function of numbers and addresses, those of tensors, or add the call to what is recorded."""
    numbers = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    program = getattr(_own, "program", None)
    if program is None:
        function(*numbers)
    else:
        program.add(function, numbers, arguments)


def run(layer: Any) -> Callable:
    """Return what runs a layer: with autograd only where that is on, which costs 15 us a layer.

    layer: an autograd function of this package.
    """
    return layer.apply if torch.is_grad_enabled() else functools.partial(_pass, layer)


def _pass(layer: Any, *inputs: Any) -> Any:
    tape = getattr(_own, "tape", None)
    return Passes(layer)(*inputs) if tape is None else tape.note(Passes(layer), inputs)


class Passes:
    """A layer's passes without autograd: what its context would keep for the way back is kept here."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, *inputs: Any) -> Any:
        """Return what the layer makes of its inputs."""
        return self.layer.forward(self, *inputs)

    def back(self, *gradients: Tensor | None) -> tuple:
        """Return the gradients of its inputs, None of those that have none."""
        found = self.layer.backward(self, *gradients)
        return found if isinstance(found, tuple) else (found,)

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors for the way back."""
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Do nothing: nobody asks for gradients of these."""


@functools.cache
def make_adding_kernel(half: bool) -> Any:
    """Return what adds count numbers to others; of bfloat16 numbers a whole number of WIDTH."""

    @kernel
    def run(count, x, y):
        if half:
            a, b = view(x, np.uint16), view(y, np.uint16)
            for i in range(0, count, WIDTH):
                store(b, i, load(b, i, 1) + load(a, i, 1))
        else:
            c, d = view(x, np.float32), view(y, np.float32)
            for i in range(count):
                d[i] += c[i]

    return run


@kernel
def copy(count, x, y):
    """Copy count bytes."""
    a, b = view(x, np.uint8), view(y, np.uint8)
    for i in range(count):
        b[i] = a[i]


def assign(y: Tensor, x: Tensor) -> None:
    """Set y to x, of its shape; where a program is recorded that is a part of it, of numbers side by side."""
    if getattr(_own, "program", None) is None:
        y.copy_(x)
    elif x.dtype == y.dtype and x.is_contiguous() and y.is_contiguous():
        launch(copy, y.numel() * y.element_size(), x, y)
    else:
        raise ValueError("assign: expected contiguous tensors of one kind in what is recorded")


class Tape:
    """Notes which layers run, by run() without autograd in this thread while it is entered, and finds gradients.

    A tensor is known by where it begins: between layers it may be looked at in another shape, but whole. Gradients of
    one that several layers read add up.
    """

    def __init__(self) -> None:
        self._passes: list[tuple[Passes, tuple, tuple]] = []  # with inputs and outputs
        self._made: set[int] = set()  # addresses of what they made

    def __enter__(self) -> Self:
        _own.tape = self
        return self

    def __exit__(self, *_: object) -> None:
        _own.tape = None

    def note(self, passes: Passes, inputs: tuple) -> Any:
        """Return what a layer makes of its inputs, and note it."""
        passes.needs_input_grad = [
            isinstance(x, Tensor) and (x.requires_grad or x.data_ptr() in self._made) for x in inputs
        ]
        made = passes(*inputs)
        outputs = made if isinstance(made, tuple) else (made,)
        self._passes.append((passes, inputs, outputs))
        self._made |= {x.data_ptr() for x in outputs}
        return made

    def gradients(self, losses: Iterable[tuple[Tensor, Tensor]]) -> dict[int, Tensor]:
        """Return gradients of parameters by their addresses, contiguous, of a sum of losses.

        losses: each a number that a layer made, with its share of the sum.
        """
        found = {loss.data_ptr(): share for loss, share in losses}
        while self._passes:
            passes, inputs, outputs = self._passes.pop()
            of_outputs = [found.pop(x.data_ptr(), None) for x in outputs]
            if all(gradient is None for gradient in of_outputs):
                continue
            for x, wanted, gradient in zip(inputs, passes.needs_input_grad, passes.back(*of_outputs), strict=True):
                if not wanted or gradient is None:
                    continue
                earlier = found.setdefault(x.data_ptr(), gradient)
                if earlier is not gradient:
                    half = gradient.dtype == torch.bfloat16
                    launch(make_adding_kernel(half), gradient.numel(), gradient, earlier)
        return found
