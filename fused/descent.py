"""Steps along gradients in compiled code: their weighted sum, and Adam's step, cut and checked on the way."""

import itertools
import platform
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from fused.memory import view
from fused.program import Program, replay
from fused.registers import WIDTH
from fused.vectors import fma, load, over_samples, total, zeros
from physics.jit import address, inline, kernel, real

CHUNK = 64 * WIDTH  # numbers whose squares are summed in float32, and the sums in double precision
LINE = 8  # counts in a cache line: threads that write into the same one wait for each other
LOOKS = 1000  # at a count of another thread, 50 us or so, before this one lets somebody else have its core
NAP = 2e-5  # s, for as long as that
PHASES = 3  # of a round: gradients, their sum, Adam's step


@kernel
def _weighted_sum(count, vectors, addresses, weights, sums):
    addresses, weights, sums = view(addresses, np.int64), view(weights, np.float32), view(sums, np.float32)
    for i in range(vectors):
        w, x = weights[i], view(addresses[i], np.float32)
        if i == 0:
            for j in range(count):
                sums[j] = w * x[j]
        else:
            for j in range(count):
                sums[j] += w * x[j]


def weighted_sum(vectors: Sequence[Tensor], weights: Sequence[float], sums: Tensor) -> Tensor:
    """Return the sum of vectors (L), float32, each times its weight, in sums (L)."""
    for x in (*vectors, sums):
        _require_like(sums, x)
    addresses = np.array([x.data_ptr() for x in vectors])
    factors = np.array(weights, np.float32)
    _weighted_sum(len(sums), len(vectors), addresses.ctypes.data, factors.ctypes.data, sums.data_ptr())
    return sums


def _require_like(vector: Tensor, x: Tensor) -> None:
    if x.shape != vector.shape or x.dtype != torch.float32 or not x.is_contiguous():
        raise ValueError(f"expected a contiguous float32 vector of {len(vector)}, got {tuple(x.shape)} of {x.dtype}")


@inline
def _squares(x, begin, end):
    """Return the sum of the squares of x[begin:end], in double precision."""
    square = 0.0
    whole = end - (end - begin) % (4 * WIDTH)
    for chunk in range(begin, whole, CHUNK):
        lanes = zeros(4)
        for i in range(chunk, min(chunk + CHUNK, whole), 4 * WIDTH):
            y = load(x, i, 4)
            lanes = fma(y, y, lanes)
        square += over_samples(total(lanes))
    for i in range(whole, end):
        square += x[i] * x[i]
    return square


@inline
def _adam(begin, end, vector, gradient, first, second, norm, limit, taken, rate, beta1, beta2, epsilon):
    """Take Adam's step of numbers from begin to end, as the step of that number; norm: of the whole gradient."""
    cut = real(limit / norm if norm > limit else 1.0)
    step = real(rate / (1.0 - beta1**taken))
    per_root = real(1.0 / np.sqrt(1.0 - beta2**taken))
    new1, new2, keep2, least = real(1.0 - beta1), real(1.0 - beta2), real(beta2), real(epsilon)
    for i in range(begin, end):
        x = cut * gradient[i]
        m = first[i] + new1 * (x - first[i])
        v = keep2 * second[i] + new2 * x * x
        first[i], second[i] = m, v
        vector[i] -= step * m / (np.sqrt(v) * per_root + least)


@kernel
def _adam_steps(groups, table, numbers, wrong):
    """Take the step of groups, of a table with the length, 0 to take none, and addresses; say in wrong if none was."""
    table, numbers, wrong = view(table, np.int64), view(numbers, np.float64), view(wrong, np.int64)
    limit = numbers[0]
    for g in range(groups):
        numbers[1 + 4 * groups + g] = np.sqrt(_squares(view(table[6 * g + 2], np.float32), 0, table[6 * g]))
        wrong[0] |= not np.isfinite(numbers[1 + 4 * groups + g])
    if wrong[0]:
        return
    for g in range(groups):
        if table[6 * g] == 0:
            continue
        taken, norm = view(table[6 * g + 5], np.float32), numbers[1 + 4 * groups + g]
        taken[0] += real(1.0)
        _adam(
            0,
            table[6 * g],
            view(table[6 * g + 1], np.float32),
            view(table[6 * g + 2], np.float32),
            view(table[6 * g + 3], np.float32),
            view(table[6 * g + 4], np.float32),
            norm,
            limit,
            taken[0],
            numbers[1 + 4 * g],
            numbers[2 + 4 * g],
            numbers[3 + 4 * g],
            numbers[4 + 4 * g],
        )


class AdamSteps:
    """Steps of Adam (Kingma and Ba, 2015) of vectors that stay where they are, all in one call.

    Looking up and checking what does not change at every step took longer than a step of 25 k parameters.

    groups: each a vector (L), its first and second moments (L) and the number of steps taken (), float32; settings:
    both decays, and epsilon.
    """

    def __init__(self, groups: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], *settings: float) -> None:
        self._kept = groups
        for vector, *moments, taken in groups:
            for x in (vector, *moments):
                _require_like(vector, x)
            if taken.dtype != torch.float32:
                raise ValueError(f"expected the steps taken in float32, got {taken.dtype}")
        self._table = np.array([[len(v), v.data_ptr(), 0, *(x.data_ptr() for x in more)] for v, *more in groups])
        self._numbers = np.zeros(1 + 5 * len(groups))
        self._settings = self._numbers[1 : 1 + 4 * len(groups)].reshape(-1, 4)
        self._settings[:, 1:] = settings
        self._wrong = np.zeros(1, np.int64)
        self._addresses = [x.ctypes.data for x in (self._table, self._numbers, self._wrong)]

    def __call__(self, gradients: Sequence[Tensor | None], rates: Sequence[float], limit: float) -> bool:
        """Take a step and return whether all gradients are finite; none is taken otherwise.

        gradients: of each vector, None for one that stays what it is; rates: of learning; limit: norm that each
        gradient is cut to.
        """
        for (vector, *_), gradient, row in zip(self._kept, gradients, self._table, strict=True):
            if gradient is not None:
                _require_like(vector, gradient)
                row[2] = gradient.data_ptr()
            row[0] = 0 if gradient is None else len(vector)
        self._numbers[0] = limit
        self._settings[:, 0] = rates
        self._wrong[0] = 0
        _adam_steps(len(self._table), *self._addresses)
        return not self._wrong[0]

    def described(self, rates: Sequence[float], limit: float) -> tuple[np.ndarray, np.ndarray]:
        """Return what compiled steps of all vectors read: a table (G, 6), and numbers (1 + 4 G); see _adam_steps."""
        table, numbers = self._table.copy(), self._numbers[: 1 + 4 * len(self._table)].copy()
        table[:, 0] = [len(vector) for vector, *_ in self._kept]
        numbers[0] = limit
        numbers[1::4] = rates
        return table, numbers

    def count(self, steps: int) -> None:
        """Count steps that somebody else took of all vectors."""
        for *_, taken in self._kept:
            taken += steps


@intrinsic
def _look(typing, place):
    """Return the count at an address as it is now, and see what was written before it was."""

    def generate(context: object, builder: object, signature: object, values: tuple) -> object:
        word = context.get_value_type(types.int64).as_pointer()
        return builder.load_atomic(builder.inttoptr(values[0], word), "acquire", 8)

    return types.int64(types.intp), generate


@intrinsic
def _show(typing, place, count):
    """Set the count at an address, for others to see after all that was written before."""

    def generate(context: object, builder: object, signature: object, values: tuple) -> object:
        word = context.get_value_type(types.int64).as_pointer()
        builder.store_atomic(values[1], builder.inttoptr(values[0], word), "release", 8)
        return context.get_dummy_value()

    return types.none(types.intp, types.int64), generate


@intrinsic
def _pause(typing):
    """Wait for some cycles, where the processor can, in which another thread of the same core may compute."""

    def generate(context: object, builder: object, signature: object, values: tuple) -> object:
        machine = platform.machine().lower()
        word = ir.IntType(32)
        name, arguments = {
            "x86_64": ("llvm.x86.sse2.pause", []), "amd64": ("llvm.x86.sse2.pause", []),
            "arm64": ("llvm.aarch64.hint", [word(1)]), "aarch64": ("llvm.aarch64.hint", [word(1)]),
        }.get(machine, ("", []))  # fmt: skip
        if name:
            kind = ir.FunctionType(ir.VoidType(), [word] * len(arguments))
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
        return context.get_dummy_value()

    return types.none(), generate


@inline
def adapted_rate(rate, kl, target, least, most):
    """Return the learning rate, within bounds, that keeps an update's divergence near its target, if there is one."""
    if target > 0.0:
        if kl > 2.0 * target:
            rate /= 1.5
        elif kl < 0.5 * target:
            rate *= 1.5
        rate = min(max(rate, least), most)
    return rate


@kernel
def _descend(
    thread, threads, rounds, vectors, groups, metrics, heeded, of_kl, counts, jobs, shares, weights, table, numbers,
    total, squares, progress, sums,
):  # fmt: skip
    """Go on with a thread's part of a descent; return whether it is over, as opposed to waiting for long.

    A round is three phases, after each of which every thread waits for all others: gradients; a part of their weighted
    sum, and of its squares; a part of Adam's step. The first thread keeps the books. A row of jobs: its thread, its
    source, the program's calls and table, where to put which step, and addresses of its gradient and metrics; the
    learning rate heeds one metric of one source.
    """
    jobs, table, shares = view(jobs, np.int64), view(table, np.int64), view(shares, np.float64)
    weights, numbers, total = view(weights, np.float32), view(numbers, np.float64), view(total, np.float32)
    squares, progress, sums = view(squares, np.float64), view(progress, np.float64), view(sums, np.float64)
    width = 7 + metrics
    length = 0
    for g in range(groups):
        length += table[6 * g]
    begin = length // WIDTH * thread // threads * WIDTH
    end = length if thread == threads - 1 else length // WIDTH * (thread + 1) // threads * WIDTH
    mine = counts + 8 * LINE * thread
    while True:
        done = _look(mine)
        for other in range(threads):
            looks = 0
            while _look(counts + 8 * LINE * other) < done:
                if looks == LOOKS:
                    return False
                looks += 1
                _pause()
        if done == PHASES * rounds:
            return True
        now, phase = done // PHASES, done % PHASES
        of_round = now * vectors * width
        if phase == 0:
            for v in range(vectors):
                row = jobs[of_round + v * width :]
                if row[0] == thread:
                    view(row[4], np.int64)[0] = row[5]
                    replay(row[2], row[3])
        elif phase == 1:
            for i in range(begin, end):
                total[i] = real(0.0)
            for v in range(vectors):
                w, x = weights[v], view(jobs[of_round + v * width + 6], np.float32)
                for i in range(begin, end):
                    total[i] += w * x[i]
            first = 0
            for g in range(groups):
                last = first + table[6 * g]
                here = max(begin, first)
                squares[thread * groups + g] = _squares(total, here, max(min(end, last), here))
                first = last
        else:
            wrong = False
            for g in range(groups):
                square = 0.0
                for t in range(threads):
                    square += squares[t * groups + g]
                wrong |= not np.isfinite(np.sqrt(square))
            first = 0
            for g in range(groups):
                square = 0.0
                for t in range(threads):
                    square += squares[t * groups + g]
                last = first + table[6 * g]
                here, there = max(begin, first), min(end, last)
                if here < there and not wrong:
                    taken = view(table[6 * g + 5], np.float32)[0] + real(progress[2 * now + 1] + 1.0)
                    _adam(
                        here - first,
                        there - first,
                        view(table[6 * g + 1], np.float32),
                        total[first:],
                        view(table[6 * g + 3], np.float32),
                        view(table[6 * g + 4], np.float32),
                        np.sqrt(square),
                        numbers[0],
                        taken,
                        progress[2 * now] * numbers[1 + 4 * g],
                        numbers[2 + 4 * g],
                        numbers[3 + 4 * g],
                        numbers[4 + 4 * g],
                    )
                first = last
            if thread == 0:
                kl = 0.0
                for v in range(vectors):
                    row = jobs[of_round + v * width :]
                    for m in range(metrics):
                        x = shares[v] * view(row[7 + m], np.float32)[0]
                        sums[row[1] * metrics + m] += x
                        if row[1] == heeded and m == of_kl:
                            kl += x
                progress[2 * now + 2] = adapted_rate(
                    progress[2 * now], kl, numbers[1 + 4 * groups], numbers[2 + 4 * groups], numbers[3 + 4 * groups]
                )
                progress[2 * now + 3] = progress[2 * now + 1] + (0.0 if wrong else 1.0)
        _show(mine, done + 1)


class Job(NamedTuple):
    """What finds a gradient."""

    program: Program
    taken: Tensor  # (1), int64, of which the program copies what it is of; see Gather
    step: int  # to be put there
    vector: Tensor  # (L), the gradient, once the program has run
    metrics: dict[str, Tensor]  # (), float32, likewise


class Descent:
    """Rounds of gradients, found side by side, and Adam's steps along their weighted sums, with no Python in between.

    A thread that sleeps till another wakes it, or hands it Python's lock, is 50 to 100 us late, four times a round: on
    two threads of an Intel Xeon with AMX a round of 128 robots and 16 steps took 1150 us, 690 of these its gradient.

    steps: whose vectors, one behind another, gradients are of; total: memory for a gradient; in_vain: says, to threads
    that wait for long, whether to go on waiting is.
    """

    def __init__(self, steps: AdamSteps, total: Tensor, in_vain: Callable[[], bool]) -> None:
        self.steps = steps
        self.total = total
        self.in_vain = in_vain

    def begin(
        self,
        jobs: Sequence[Sequence[Sequence[Job]]],
        parts: Sequence[Sequence[tuple[int, float, float]]],
        rate: float,
        rates: Sequence[float],
        limit: float,
        of_kl: int,
        bounds: tuple[float, float, float],
    ) -> None:
        """Prepare rounds, of which each thread is to play() its part.

        jobs: of rounds, those of threads; parts: of each job of a thread, which of S sources it is of, its share of the
        metrics of that, and the weight of its gradient; rate: of learning; rates: of the vectors, times that; limit:
        norm that the gradient of each vector is cut to; of_kl: which metric of the last source the learning rate
        follows; bounds: the target of that, and the least and the largest learning rate.
        """
        flat = [part for of_thread in parts for part in of_thread]
        source, shares, weights = (np.array(x) for x in zip(*flat, strict=True))
        threads = [i for i, of_thread in enumerate(parts) for _ in of_thread]
        table = np.array(
            [
                [
                    thread, of, job.program.calls, job.program.table(), job.taken.data_ptr(), job.step,
                    job.vector.data_ptr(), *(x.data_ptr() for x in job.metrics.values()),
                ]
                for of_round in jobs
                for thread, of, job in zip(threads, source, itertools.chain(*of_round), strict=True)
            ]
        )  # fmt: skip
        last = int(source.max())
        metrics = len(jobs[0][0][0].metrics)
        described, numbers = self.steps.described(rates, limit)
        groups = len(described)
        self._progress = np.zeros((len(jobs) + 1, 2))  # learning rate, and the steps taken so far
        self._progress[0, 0] = rate
        self._sums = np.zeros((last + 1, metrics))
        arrays = (
            np.zeros((len(parts), LINE), np.int64), table, shares, weights.astype(np.float32), described,
            np.concatenate((numbers, bounds)), self.total, np.zeros((len(parts), groups)), self._progress, self._sums,
        )  # fmt: skip
        self._kept = jobs, arrays
        self._arguments = (
            len(parts), len(jobs), len(flat), groups, metrics, last, of_kl,
            *(x.data_ptr() if isinstance(x, Tensor) else x.ctypes.data for x in arrays),
        )  # fmt: skip
        self._failed = threading.Event()

    @staticmethod
    def compile() -> None:
        """Have the rounds compiled."""
        address(_descend, *[types.intp] * _descend.py_func.__code__.co_argcount)

    def play(self, thread: int) -> None:
        """Do a thread's part, while the others do theirs."""
        try:
            while not _descend(thread, *self._arguments):
                if self._failed.is_set() or self.in_vain():
                    return
                time.sleep(NAP)
        except BaseException:
            self._failed.set()
            raise

    def end(self) -> tuple[np.ndarray, float, int]:
        """Return the sums over rounds of metrics (S, M), the learning rate, and how many steps were taken.

        None is taken along a gradient that is not finite.
        """
        rate, taken = self._progress[-1]
        self.steps.count(int(taken))
        self._kept = None
        return self._sums, float(rate), int(taken)
