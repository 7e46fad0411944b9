"""Matrix products in compiled code: of a layer, and of its weights' gradient.

Columns are samples, a whole number of WIDTH; rows are features, a whole number of ROWS. Numbers are
float32, or bfloat16 multiplied in pairs, where the processor can by one instruction, or in tiles by Intel's matrix
unit (fused/tiles.py); sums are float32. On a core of Zen 4, whose limit is 221 GFLOP/s, 256 x 64 times 64 x 48 takes
7.8 us, 201 GFLOP/s; PyTorch takes 26 us for 64 columns. On one of Sapphire Rapids a dense layer of two sides of 64
features takes 317 us for 2048 samples in float32, 428 in pairs and 158 in tiles; an update of the walker with two
threads, the median of twelve, 139, and 118 ms in tiles.
"""

from typing import Any

from numba import types
from numba.extending import overload

from fused.blocks import load_pairs, load_rows, multiply_all, multiply_up, pairs_in, pairs_of, store_block, store_sums
from fused.registers import WIDTH
from fused.tiles import (
    HAS_TILES,
    begin_tiles,
    end_tiles,
    tile_load,
    tile_load_transposed,
    tile_multiply,
    tile_store,
    tile_zero,
)
from fused.vectors import load, put, store, zeros
from physics.jit import INLINE, inline

ROWS = 4  # computed at once, of REGISTERS * WIDTH samples
# Totals at once, half of AVX-512's 32 registers, half of AVX2's 16. With AVX-512's in AVX2, most of them in memory, a
# walker on stairs trained on an EPYC at 41 us an env step instead of 26, medians of pairs: its LSTM took 18.6, not 6.7.
BLOCK = WIDTH
REGISTERS = BLOCK // ROWS
TILE = 16  # rows, and pairs of numbers within one


def filled(inner: int) -> int:
    """Return how many features a layer's input has best, filled up with zeros: whole tiles, where there are some."""
    multiple = 2 * TILE if HAS_TILES else ROWS
    return inner + -inner % multiple


def panel_size(inner: int) -> int:
    """Return how many float32 numbers of scratch product() needs."""
    return (inner + 2 * TILE) * REGISTERS * WIDTH + 4 * TILE * WIDTH


def make_block_product(registers: int) -> Any:
    """Return the product of a panel in registers, so many times WIDTH columns at once, of rows from first to last."""
    block = ROWS * registers

    @inline
    def run(first, last, inner, weight, panel, row, y, place, y_stride):
        steps = inner // pairs_in(weight)
        for c in range(0, row, registers * WIDTH):
            for r in range(first, last, ROWS):
                totals = zeros(block)
                for k in range(steps):
                    totals = multiply_up(totals, weight, r * steps + k, steps, load(panel, k * row + c, registers))
                store_block(y, r * y_stride + place + c, y_stride, totals, registers)

    return run


block_product, _two, _one = (make_block_product(n) for n in (REGISTERS, 2, 1))


def make_panel_product() -> Any:
    """Return what sets y = weight x of row columns that are in panel as product() puts them there.

    row: 1, 2 or REGISTERS times WIDTH. Numbers are bfloat16 where weight is int32, and those of y where it is uint16.
    Only the ways that there are for weight's kind are compiled: all of them take a first start 3 s longer.
    """

    def multiply(rows, inner, weight, panel, row, y, place, y_stride):
        raise NotImplementedError("expected to be compiled")

    def in_tiles(rows, inner, weight, panel, row, y, place, y_stride):
        first = rows - rows % (2 * TILE) if row > WIDTH else 0
        if first:
            for i in range(inner // 2 * row, (inner // 2 + -(inner // 2) % TILE) * row, WIDTH):
                store(panel, i, zeros(1))  # times what follows a row of weights
            begin_tiles()
            tile_product(first, inner // 2, weight, panel, row, y, place, y_stride)
            end_tiles()
        _one(first, rows, inner, weight, panel, row, y, place, y_stride)  # few

    def in_registers(rows, inner, weight, panel, row, y, place, y_stride):
        if row == REGISTERS * WIDTH:
            block_product(0, rows, inner, weight, panel, row, y, place, y_stride)
        elif row == 2 * WIDTH:
            _two(0, rows, inner, weight, panel, row, y, place, y_stride)
        else:
            _one(0, rows, inner, weight, panel, row, y, place, y_stride)

    @overload(multiply, jit_options=INLINE)
    def choose(rows, inner, weight, panel, row, y, place, y_stride):
        return in_tiles if HAS_TILES and weight.dtype == types.int32 else in_registers

    return multiply


panel_product = make_panel_product()


@inline
def tile_product(rows, steps, weight, panel, row, y, place, y_stride):
    """Multiply a panel in the matrix unit, two tiles by two, after begin_tiles().

    rows: a whole number of 2 TILE. Where steps is none of TILE, panel goes on with zeros, and of weights what follows a
    row is read, too: numbers, see pack(). Totals on their way to bfloat16 lie behind the panel's end.
    """
    behind = (steps + -steps % TILE) * row
    for r in range(0, rows, 2 * TILE):
        for c in range(0, row, 2 * WIDTH):
            tile_zero(0)
            tile_zero(1)
            tile_zero(2)
            tile_zero(3)
            for k in range(0, steps, TILE):
                tile_load(4, weight, r * steps + k, 4 * steps)
                tile_load(6, panel, k * row + c, 4 * row)
                tile_load(7, panel, k * row + c + WIDTH, 4 * row)
                tile_multiply(0, 4, 6)
                tile_multiply(1, 4, 7)
                tile_load(5, weight, (r + TILE) * steps + k, 4 * steps)
                tile_multiply(2, 5, 6)
                tile_multiply(3, 5, 7)
            if pairs_of(y) == 1:
                first = r * y_stride + place + c
                tile_store(0, y, first, 4 * y_stride)
                tile_store(1, y, first + WIDTH, 4 * y_stride)
                tile_store(2, y, first + TILE * y_stride, 4 * y_stride)
                tile_store(3, y, first + TILE * y_stride + WIDTH, 4 * y_stride)
            else:
                tile_store(0, panel, behind, 8 * WIDTH)
                tile_store(1, panel, behind + WIDTH, 8 * WIDTH)
                tile_store(2, panel, behind + 2 * TILE * WIDTH, 8 * WIDTH)
                tile_store(3, panel, behind + 2 * TILE * WIDTH + WIDTH, 8 * WIDTH)
                for i in range(2 * TILE):
                    store(y, (r + i) * y_stride + place + c, load(panel, behind + 2 * i * WIDTH, 2))


@inline
def product(rows, inner, weight, x, x_stride, y, y_stride, columns, panel):
    """Set y = weight x, of some columns: y[r y_stride + s] = sum_k weight[r inner + k] x[k x_stride + s].

    weight: float32, or uint16 as x, seen as 32-bit pairs, by pack() or pack_transposed(); panel: scratch for
    panel_size(inner) float32.
    """
    pairs = pairs_of(x)
    s = 0
    while s < columns:
        left = (columns - s) // WIDTH
        count = REGISTERS if left >= REGISTERS else 2 if left >= 2 else 1
        for k in range(inner // pairs):
            row = k * pairs * x_stride + s
            for c in range(count):
                store(panel, (k * count + c) * WIDTH, load_pairs(x, row + c * WIDTH, row + x_stride + c * WIDTH))
        panel_product(rows, inner, weight, panel, count * WIDTH, y, s, y_stride)
        s += count * WIDTH


@inline
def tile_weight_gradient(rows, end, inner, dy, y_stride, x, x_stride, columns, dweight):
    """Do what weight_gradient() does in the matrix unit, after begin_tiles(): a tile of x with four of dy, or two.

    Of rows and of inner features to end: whole numbers of 2 TILE and TILE.
    """
    step = 2 * WIDTH
    whole = rows - rows % (4 * TILE)
    for k in range(0, end, TILE):
        for r in range(0, whole, 4 * TILE):
            tile_zero(0)
            tile_zero(1)
            tile_zero(2)
            tile_zero(3)
            for s in range(0, columns, step):
                place = r * y_stride + s
                tile_load_transposed(7, x, k * x_stride + s, 2 * x_stride)
                tile_load(4, dy, place, 2 * y_stride)
                tile_multiply(0, 4, 7)
                tile_load(5, dy, place + TILE * y_stride, 2 * y_stride)
                tile_multiply(1, 5, 7)
                tile_load(4, dy, place + 2 * TILE * y_stride, 2 * y_stride)
                tile_multiply(2, 4, 7)
                tile_load(5, dy, place + 3 * TILE * y_stride, 2 * y_stride)
                tile_multiply(3, 5, 7)
            tile_store(0, dweight, r * inner + k, 4 * inner)
            tile_store(1, dweight, (r + TILE) * inner + k, 4 * inner)
            tile_store(2, dweight, (r + 2 * TILE) * inner + k, 4 * inner)
            tile_store(3, dweight, (r + 3 * TILE) * inner + k, 4 * inner)
        for r in range(whole, rows, 2 * TILE):
            tile_zero(0)
            tile_zero(1)
            for s in range(0, columns, step):
                tile_load_transposed(7, x, k * x_stride + s, 2 * x_stride)
                tile_load(4, dy, r * y_stride + s, 2 * y_stride)
                tile_multiply(0, 4, 7)
                tile_load(5, dy, (r + TILE) * y_stride + s, 2 * y_stride)
                tile_multiply(1, 5, 7)
            tile_store(0, dweight, r * inner + k, 4 * inner)
            tile_store(1, dweight, (r + TILE) * inner + k, 4 * inner)


@inline
def _weight_gradient(first, rows, begin, end, inner, dy, y_stride, x, x_stride, columns, dweight):
    """Do what weight_gradient() does in registers, of rows from first on and inner features from begin to end."""
    step = pairs_of(x) * WIDTH
    for r in range(first, rows, ROWS):
        for k in range(begin, end, REGISTERS):
            totals = zeros(BLOCK)
            for s in range(0, columns, step):
                a = load_rows(dy, r * y_stride + s, y_stride, ROWS)
                totals = multiply_all(dy, totals, a, load_rows(x, k * x_stride + s, x_stride, REGISTERS))
            store_sums(dweight, r * inner + k, inner, totals, REGISTERS)


@inline
def weight_gradient(rows, inner, dy, y_stride, x, x_stride, columns, dweight):
    """Set dweight[r inner + k] = sum_s dy[r y_stride + s] x[k x_stride + s].

    columns: a whole number of 2 WIDTH; inner: a whole number of REGISTERS.
    """
    above, left = 0, 0  # what tiles cover
    if HAS_TILES and rows >= 2 * TILE and inner >= TILE and pairs_of(x) == 2:
        above, left = rows - rows % (2 * TILE), inner - inner % TILE
        begin_tiles()
        tile_weight_gradient(above, left, inner, dy, y_stride, x, x_stride, columns, dweight)
        end_tiles()
    for part in range(2):  # below the tiles, and beside them
        first, end, begin = (above, rows, 0) if part == 0 else (0, above, left)
        _weight_gradient(first, end, begin, inner, inner, dy, y_stride, x, x_stride, columns, dweight)


@inline
def pack(weight, count, out):
    """Copy count weights, a whole number of WIDTH, rounded where out holds bfloat16; zeros follow these."""
    for i in range(0, count, WIDTH):
        store(out, i, load(weight, i, 1))
    _end(out, count)


@inline
def pack_transposed(weight, rows, inner, out):
    """Set out (inner, rows) to weight (rows, inner) transposed, rounded where out holds bfloat16; zeros follow."""
    for k in range(inner):
        for r in range(rows):
            put(out, k * rows + r, weight[r * inner + k])
    _end(out, rows * inner)


@inline
def _end(out, count):
    """Let numbers follow packed bfloat16 weights, which tiles read where a row is no whole number of them."""
    if pairs_of(out) == 2:
        for i in range(count, count + 2 * TILE, WIDTH):
            store(out, i, zeros(1))
