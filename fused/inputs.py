"""What layers read, in compiled code: observations, weights that read them from both sides, several inputs as one."""

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fused.blocks import load_square
from fused.layers import keep_sides
from fused.memory import scratch, view
from fused.program import copy, launch
from fused.registers import WIDTH
from fused.vectors import choose_positive, load, logarithm, magnitude, store, zeros
from physics.jit import inline, kernel, real


@inline
def turn(x, apart, size, first, out):
    """Set out (size, WIDTH) to the beginnings of WIDTH rows of x, from row first on, which lie apart."""
    begin = first * apart
    if size < WIDTH:
        for i in range(size):
            for lane in range(WIDTH):
                out[i * WIDTH + lane] = x[begin + lane * apart + i]
        return
    for i in range(0, size, WIDTH):
        place = min(i, size - WIDTH)
        store(out, place * WIDTH, load_square(x, begin + place, apart))


@functools.cache
def make_standardising_kernel(half: bool) -> Any:
    """Return the compiled pass of standardised(); half: whether it makes bfloat16 numbers."""
    kind = np.uint16 if half else np.float32

    @kernel
    def run(samples, width, size, more, x, columns, mean, scale, out, work):
        x, columns, mean, scale = (
            view(x, np.float32),
            view(columns, np.int64),
            view(mean, np.float32),
            view(scale, np.float32),
        )
        out, work = view(out, kind), view(work, np.float32)
        for first in range(0, samples, WIDTH):
            turn(x, width, width, first, work)
            for i in range(size):
                column = columns[i]
                store(out, i * samples + first, (load(work, column * WIDTH, 1) - mean[column]) * scale[column])
            for i in range(size, size + more):
                store(out, i * samples + first, zeros(1))

    return run


def standardised(x: Tensor, columns: Tensor, mean: Tensor, scale: Tensor, more: int, dtype: torch.dtype) -> Tensor:
    """Return (K + more, S), of columns (K), int64, of x (S, ...) each less its mean, times its scale; then zeros.

    S: a whole number of WIDTH.
    """
    x = x.contiguous()
    out = torch.empty(len(columns) + more, len(x), dtype=dtype)
    run = make_standardising_kernel(dtype == torch.bfloat16)
    work = scratch("rows", x.shape[1] * WIDTH)
    launch(run, len(x), x.shape[1], len(columns), more, x, columns, mean, scale, out, work)
    return out


@inline
def symlog(x):
    """Return sign(x) log(1 + |x|)."""
    y = logarithm(magnitude(x) + real(1.0))
    return choose_positive(x, y, zeros(1) - y)


@functools.cache
def make_sides_kernel(sides: int, half: bool, summed: bool) -> Any:
    """Return the compiled pass of of_sides(); half: whether it makes bfloat16 numbers."""
    kind = np.uint16 if half else np.float32

    @kernel
    def run(samples, apart, size, rows, x, columns, signs, mean, scale, standard, out, work):
        x, columns, signs = view(x, np.float32), view(columns, np.int64), view(signs, np.float32)
        mean, scale, out, work = (
            view(mean, np.float32),
            view(scale, np.float32),
            view(out, kind),
            view(work, np.float32),
        )
        for first in range(0, samples, WIDTH):
            turn(x, apart, size, first, work)
            if standard:
                for i in range(size):
                    store(work, i * WIDTH, symlog((load(work, i * WIDTH, 1) - mean[i]) * scale[i]))
            for i in range(size):
                a, b = load(work, i * WIDTH, 1), signs[i] * load(work, columns[i] * WIDTH, 1)
                if sides == 1:
                    store(out, i * samples + first, a)
                elif summed:
                    keep_sides(sides, out, i * samples + first, rows * samples, a, b)
                else:
                    store(out, i * samples + first, a)
                    store(out, (rows + i) * samples + first, b)
            for side in range(sides):
                for i in range(size, rows):
                    store(out, (side * rows + i) * samples + first, zeros(1))

    return run


def of_sides(
    x: Tensor,
    columns: Tensor,
    signs: Tensor,
    sides: int,
    rows: int,
    dtype: torch.dtype,
    summed: bool,
    standard: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return what x (S, K) is and its mirror image, signs times columns (K), or their sums and differences.

    (sides, rows, S) in dtype, rows beyond K of zeros. summed: whether to return sums and differences; standard: mean
    and scale (at least K each) by which x is to be normalised first, and its symlog taken. S: a whole number of WIDTH.
    """
    x = x if x.stride(-1) == 1 else x.contiguous()
    samples, size = x.shape
    out = torch.empty(sides, rows, samples, dtype=dtype)
    run = make_sides_kernel(sides, dtype == torch.bfloat16, summed)
    work = scratch("rows", size * WIDTH)
    mean, scale = standard or (0, 0)
    numbers = samples, x.stride(0), size, rows
    launch(run, *numbers, x, columns, signs, mean, scale, int(standard is not None), out, work)
    return out


@functools.cache
def make_mask_kernel(half: bool) -> Any:
    """Return the compiled pass of Masked, forwards and backwards the same."""
    kind = np.uint16 if half else np.float32

    @kernel
    def run(rows, samples, x, keep, y):
        x, keep, y = view(x, kind), view(keep, np.float32), view(y, kind)
        for r in range(rows):
            for s in range(0, samples, WIDTH):
                store(y, r * samples + s, load(keep, s, 1) * load(x, r * samples + s, 1))

    return run


def _masked(x: Tensor, keep: Tensor) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    launch(make_mask_kernel(x.dtype == torch.bfloat16), x.numel() // len(keep), len(keep), x, keep, y)
    return y


class Masked(torch.autograd.Function):
    """x (sides, F, S) times keep (S), float32; S: a whole number of WIDTH."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor) -> Tensor:
        """Return the product in x's dtype."""
        keep = keep.contiguous()
        ctx.save_for_backward(keep)
        return _masked(x, keep)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        """Return the gradient of x."""
        return _masked(dy, *ctx.saved_tensors), None


@kernel
def _at_least(count, x, least, y):
    x, least, y = view(x, np.float32), view(least, np.float32)[0], view(y, np.float32)
    for i in range(count):
        y[i] = real(1.0) if x[i] >= least else real(0.0)


def at_least(x: Tensor, least: float) -> Tensor:
    """Return 1 where x is at least so much, 0 elsewhere, float32."""
    y = torch.empty_like(x)
    launch(_at_least, x.numel(), x, torch.full((1,), least), y)
    return y


@kernel
def _without(count, x, gone, y):
    x, gone, y = view(x, np.float32), view(gone, np.float32), view(y, np.float32)
    for i in range(count):
        y[i] = x[i] * (real(1.0) - gone[i])


def without(x: Tensor, gone: Tensor) -> Tensor:
    """Return x times 1 - gone, (N) each, float32."""
    x, gone = x.contiguous(), gone.contiguous()
    y = torch.empty_like(x)
    launch(_without, x.numel(), x, gone, y)
    return y


@functools.cache
def make_mirror_kernel(sides: int) -> Any:
    """Return the compiled pass of Mirrored, forwards and backwards the same.

    outputs: rows of a side; size: columns that have mirror images, at the beginning of so many of x and of y, zeros
    behind them in y; behind: columns after these, which stay what they are.
    """

    @kernel
    def run(outputs, size, of_x, of_y, behind, columns, signs, x, y):
        columns, signs = view(columns, np.int64), view(signs, np.float32)
        x, y = view(x, np.float32), view(y, np.float32)
        for side in range(sides):
            for r in range(side * outputs, (side + 1) * outputs):
                row, out = x[r * (of_x + behind) :], y[r * (of_y + behind) :]
                for i in range(size):
                    if sides == 1:
                        out[i] = row[i]
                    else:
                        image = signs[i] * row[columns[i]]
                        out[i] = real(0.5**0.5) * (row[i] + image if side == 0 else row[i] - image)
                for i in range(size, of_y):
                    out[i] = real(0.0)
                for i in range(behind):
                    out[of_y + i] = row[of_x + i]

    return run


class Mirrored(torch.autograd.Function):
    """observation.Features.weights: weights (sides, F, filled + behind) of what is observed.

    weight: (sides, F, rows + behind), the first size of rows of sums and differences of what is observed and its mirror
    image: signs (size) times columns (size), int64. A mirror image's is what it is of, so that this is its own
    transpose.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, columns: Tensor, signs: Tensor, rows: int, filled: int) -> Tensor:
        """Return the weights."""
        sides, outputs, width = weight.shape
        weight = weight.contiguous()
        made = torch.empty(sides, outputs, filled + width - rows)
        ctx.numbers = outputs, len(columns), filled, rows, width - rows
        launch(
            make_mirror_kernel(sides), outputs, len(columns), rows, filled, width - rows, columns, signs, weight, made
        )
        ctx.save_for_backward(columns, signs)
        return made

    @staticmethod
    def backward(ctx: Any, dmade: Tensor) -> tuple:
        """Return the gradient of weight."""
        *_, rows, behind = ctx.numbers
        dweight = torch.empty(*dmade.shape[:2], rows + behind)
        launch(make_mirror_kernel(len(dmade)), *ctx.numbers, *ctx.saved_tensors, dmade.contiguous(), dweight)
        return dweight, None, None, None, None


LOOPS = 3  # over blocks of a tensor that lie apart


@kernel
def _gather(tensors, table, step):
    """Copy blocks of bytes of every tensor: how many, from where and whither, and of each loop the count and stride.

    After these, the bytes that a step moves both by; step: the address of how many are taken.
    """
    numbers, steps = view(table, np.int64), view(step, np.int64)[0]
    for i in range(tensors):
        row = numbers[(5 + 2 * LOOPS) * i :]
        count, x, y = row[0], row[1] + steps * row[3 + 2 * LOOPS], row[2] + steps * row[4 + 2 * LOOPS]
        for a in range(row[3]):
            for b in range(row[5]):
                for c in range(row[7]):
                    block = view(x + a * row[4] + b * row[6] + c * row[8], np.uint8)
                    out = view(y, np.uint8)
                    for j in range(count):
                        out[j] = block[j]
                    y += count


class Gather:
    """Copies of so many tensors in one call, a part of a program where one is recorded: between() says of which.

    In a program they cost no waiting for Python's lock, as copies before it would.
    """

    def __init__(self, tensors: int) -> None:
        self._table = torch.zeros(tensors, 5 + 2 * LOOPS, dtype=torch.int64)
        self.taken = torch.zeros(1, dtype=torch.int64)  # steps

    def between(
        self, sources: Iterable[Tensor], copies: Iterable[Tensor], apart: Iterable[int] = (), onward: Iterable[int] = ()
    ) -> None:
        """Let sources be copied from now on, contiguous in the last axes and apart in LOOPS others at most.

        copies: of the same shapes, contiguous; apart, onward: bytes that step(1) moves the sources and the copies by.
        """
        rows = self._table.numpy()
        rows[:, :-2] = [_blocks(x, y) for x, y in zip(sources, copies, strict=True)]
        rows[:, -2] = list(apart) or 0
        rows[:, -1] = list(onward) or 0
        self.step(0)

    def step(self, steps: int) -> None:
        """Let what lies so many steps further on in memory be copied from now on."""
        self.taken.numpy()[0] = steps

    def __call__(self) -> None:
        """Copy, or add that to what is recorded."""
        launch(_gather, len(self._table), self._table, self.taken)


def _blocks(x: Tensor, y: Tensor) -> list[int]:
    if x.shape != y.shape or x.dtype != y.dtype or not y.is_contiguous():
        raise ValueError(f"expected a contiguous tensor like {tuple(x.shape)} of {x.dtype}, got {tuple(y.shape)}")
    size = x.element_size()
    if x.is_contiguous():
        return [size * x.numel(), x.data_ptr(), y.data_ptr(), *(1, 0) * LOOPS]
    count = size
    loops: list[tuple[int, int]] = []  # the inmost first
    for n, stride in zip(reversed(x.shape), reversed(x.stride()), strict=True):
        if not loops and stride * size == count:
            count *= n
        elif loops and stride * size == loops[-1][0] * loops[-1][1]:
            loops[-1] = loops[-1][0] * n, loops[-1][1]
        elif n > 1:
            loops.append((n, stride * size))
    if len(loops) > LOOPS:
        raise ValueError(f"expected at most {LOOPS} axes apart, got strides {x.stride()}")
    loops += [(1, 0)] * (LOOPS - len(loops))
    return [count, x.data_ptr(), y.data_ptr(), *(number for loop in reversed(loops) for number in loop)]


def _resized(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    x = x.contiguous()
    y = torch.zeros(shape, dtype=x.dtype)
    launch(copy, min(x.numel(), y.numel()) * x.element_size(), x, y)
    return y


class Resized(torch.autograd.Function):
    """The first numbers of x in another shape: fewer of them, or all with zeros behind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return them, a copy."""
        ctx.shape = x.shape
        return _resized(x, shape)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple:
        """Return the gradient of x."""
        return _resized(dy, ctx.shape), None


@functools.cache
def make_copy_kernel(from_half: bool, to_half: bool) -> Any:
    """Return what copies blocks of numbers, a whole number of WIDTH each, that lie so far apart."""
    kinds = [np.uint16 if half else np.float32 for half in (from_half, to_half)]
    (of_x, of_y) = kinds

    @kernel
    def run(blocks, count, x, x_apart, x_first, y, y_apart, y_first):
        x, y = view(x, of_x), view(y, of_y)
        for block in range(blocks):
            for i in range(0, count, WIDTH):
                store(y, block * y_apart + y_first + i, load(x, block * x_apart + x_first + i, 1))

    return run


class Join(torch.autograd.Function):
    """Features (sides, ..., S) of several parts behind one another, in dtype; S: a whole number of WIDTH."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *parts: Tensor) -> Tensor:
        """Return (sides, all features, S)."""
        sides, samples = len(parts[0]), parts[0].shape[-1]
        ctx.sizes = [part.shape[1] for part in parts]
        whole = torch.empty(sides, sum(ctx.sizes), samples, dtype=dtype)
        ctx.kinds = [part.dtype for part in parts]
        first = 0
        for part, size in zip(parts, ctx.sizes, strict=True):
            copy = make_copy_kernel(part.dtype == torch.bfloat16, dtype == torch.bfloat16)
            count = size * samples
            part = part if part[0].is_contiguous() else part.contiguous()  # sides may share one
            launch(copy, sides, count, part, part.stride(0), 0, whole, whole.stride(0), first)
            first += count
        return whole

    @staticmethod
    def backward(ctx: Any, dwhole: Tensor) -> tuple:
        """Return the gradients of the parts that need one."""
        dwhole = dwhole.contiguous()
        sides, _, samples = dwhole.shape
        found: list[Tensor | None] = []
        first = 0
        for size, kind, wanted in zip(ctx.sizes, ctx.kinds, ctx.needs_input_grad[1:], strict=True):
            count = size * samples
            found.append(torch.empty(sides, size, samples, dtype=kind) if wanted else None)
            if wanted:
                copy = make_copy_kernel(dwhole.dtype == torch.bfloat16, kind == torch.bfloat16)
                launch(copy, sides, count, dwhole, dwhole.stride(0), first, found[-1], count, 0)
            first += count
        return None, *found
