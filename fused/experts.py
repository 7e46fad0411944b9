"""Experts that a gate blends, motion/network.py, in compiled code: frames of many robots into a ring (motion/ring.py).

Columns are robots, BLOCK of them at a time, from the first frame to the last one without leaving the core's cache:

    z        (frame, command), normalised
    alpha    the gate's shares, a softmax
    h        z, then in every layer ELU(sum_k alpha_k (W_k h + b_k)), ROUND features at a time of all experts
    z        z + sum_k alpha_k (W_k h + b_k), into the ring, with the next frame's command

On a core of Sapphire Rapids with four experts of three layers of 128 features a robot's frame takes 288 ns, of which
products in tiles are 136; PyTorch takes 194 for the products alone.
"""

import functools
from typing import Any

import numpy as np

from fused.blocks import load_rows, store_pairs, store_scattered
from fused.memory import view
from fused.product import REGISTERS, block_product, tile_product
from fused.registers import WIDTH
from fused.tiles import HAS_TILES, begin_tiles, end_tiles
from fused.vectors import choose_positive, elu, exponential, fma, load, store, zeros
from physics.jit import inline, kernel, real

BLOCK = REGISTERS * WIDTH
ROUND = 32  # features, to which sizes are rounded up: what tiles hold
GATE = ROUND  # features of the gate's layer


@inline
def ask(z, place, frame, robot, start, target, since, low, scale, frames):
    """Put a frame's command, as numbers between -1 and 1, to a place of z; as motion.command.between()."""
    share = min(real(max(frame - since[robot], 0)) / real(frames), real(1.0))
    for d in range(3):
        a, b = start[3 * robot + d], target[3 * robot + d]
        command = a + share * (b - a) if share < real(1.0) else b
        z[place + d * BLOCK] = (command - low[d]) * scale[d] - real(1.0)


@functools.cache
def make_kernel(experts: int, half: bool) -> Any:
    """Return the compiled generator; half: whether products are of bfloat16 numbers. Arrays are addresses.

    ids, counts: (n) robots and how many frames of each, falling. sizes: (layers + 1) rows that go into a layer and come
    out of the last, whole numbers of ROUND; net: the gate's weights and biases of both layers, sizes, and weights
    (experts, size, inner) and biases (experts, size) of all layers behind one another; work: z, hidden, alpha, two
    panels, and what experts say of ROUND features.
    """
    per_row = 2 if half else 1  # numbers of a panel's row
    kind = np.int32 if half else np.float32
    tiles = half and HAS_TILES

    @inline
    def put(panel, row, place, a, b):
        """Put rows row and row + 1 of WIDTH samples from a place on into a panel."""
        if half:
            store_pairs(panel, row // 2 * BLOCK + place, a, b)
        else:
            store(panel, row * BLOCK + place, a)
            store(panel, (row + 1) * BLOCK + place, b)

    @inline
    def multiply(inner, weight, panel, y):
        """Set y (ROUND, BLOCK) = weight (ROUND, inner) times a panel."""
        if tiles:
            tile_product(ROUND, inner // 2, weight, panel, BLOCK, y, 0, BLOCK)
        else:
            block_product(0, ROUND, inner, weight, panel, BLOCK, y, 0, BLOCK)

    @inline
    def open_gate(inner, gate, gate_bias, last, last_bias, panel, hidden, alpha):
        """Find the gate's shares, alpha (experts, BLOCK)."""
        multiply(inner, gate, panel, hidden)
        for s in range(0, BLOCK, WIDTH):
            for j in range(GATE):
                store(hidden, j * BLOCK + s, elu(load(hidden, j * BLOCK + s, 1) + gate_bias[j]))
            for k in range(experts):
                logit = zeros(1) + last_bias[k]
                for j in range(GATE):
                    logit = fma(load(hidden, j * BLOCK + s, 1), last[k * GATE + j], logit)
                store(alpha, k * BLOCK + s, logit)
            most = load(alpha, s, 1)
            for k in range(1, experts):
                other = load(alpha, k * BLOCK + s, 1)
                most = choose_positive(most - other, most, other)
            total = zeros(1)
            for k in range(experts):
                share = exponential(load(alpha, k * BLOCK + s, 1) - most)
                store(alpha, k * BLOCK + s, share)
                total = total + share
            for k in range(experts):
                store(alpha, k * BLOCK + s, load(alpha, k * BLOCK + s, 1) / total)

    @inline
    def blended(size, bias, alpha, said, r, i, s):
        """Return sum_k alpha_k (y_k + b_k) of feature r + i of WIDTH samples from s on."""
        h = zeros(1)
        for k in range(experts):
            y = load(said, (k * ROUND + i) * BLOCK + s, 1) + bias[k * size + r + i]
            h = fma(load(alpha, k * BLOCK + s, 1), y, h)
        return h

    @kernel
    def run(n, size, robots, capacity, ids, counts, end, motion, mean, std, about, frames, layers, net, work):
        ids, counts, end = view(ids, np.int64), view(counts, np.int64), view(end, np.int64)
        where = motion
        motion, mean, std = view(motion, np.float32), view(mean, np.float32), view(std, np.float32)
        start, target, since = view(about[0], np.float32), view(about[1], np.float32), view(about[2], np.int64)
        low, scale = view(about[3], np.float32), view(about[4], np.float32)
        gate, gate_bias = view(net[0], kind), view(net[1], np.float32)
        last, last_bias = view(net[2], np.float32), view(net[3], np.float32)
        sizes, weights, biases = view(net[4], np.int64), view(net[5], kind), view(net[6], np.float32)
        z, hidden, alpha = view(work[0], np.float32), view(work[1], np.float32), view(work[2], np.float32)
        panels, said = view(work[3], np.float32), view(work[4], np.float32)
        shown, places = view(work[5], np.float32), view(work[6], np.int64)
        half_way = work[7]
        nowhere = (work[8] - where) // 4  # for what is computed and not asked for
        width = sizes[0]
        if tiles:
            begin_tiles()
        for first in range(0, n, BLOCK):
            block = min(BLOCK, n - first)
            for c in range(BLOCK):
                robot = ids[first + min(c, block - 1)]
                frame = end[robot]
                place = ((frame - 1) % capacity * robots + robot) * size
                for f in range(size):
                    z[f * BLOCK + c] = (motion[place + f] - mean[f]) / std[f]
                for f in range(size, width):
                    z[f * BLOCK + c] = real(0.0)
                ask(z, size * BLOCK + c, frame, robot, start, target, since, low, scale, frames)
            for step in range(counts[first]):
                panel = panels
                other = panels[half_way:]
                for f in range(0, width, 2):
                    for s in range(0, BLOCK, WIDTH):
                        put(panel, f, s, load(z, f * BLOCK + s, 1), load(z, (f + 1) * BLOCK + s, 1))
                open_gate(width, gate, gate_bias, last, last_bias, panel, hidden, alpha)
                weight = weights
                bias = biases
                for layer in range(layers):
                    inner, rows = sizes[layer], sizes[layer + 1]
                    for r in range(0, rows, ROUND):
                        for k in range(experts):
                            multiply(
                                inner, weight[(k * rows + r) * (inner // per_row) :], panel, said[k * ROUND * BLOCK :]
                            )
                        if layer < layers - 1:
                            for i in range(0, ROUND, 2):
                                for s in range(0, BLOCK, WIDTH):
                                    a = elu(blended(rows, bias, alpha, said, r, i, s))
                                    b = elu(blended(rows, bias, alpha, said, r, i + 1, s))
                                    put(other, r + i, s, a, b)
                        else:
                            for i in range(min(ROUND, size - r)):
                                for s in range(0, BLOCK, WIDTH):
                                    f = (r + i) * BLOCK + s
                                    value = load(z, f, 1) + blended(rows, bias, alpha, said, r, i, s)
                                    store(z, f, value)
                                    store(shown, f, value * std[r + i] + mean[r + i])
                    weight = weight[experts * rows * (inner // per_row) :]
                    bias = bias[experts * rows :]
                    panel, other = other, panel
                for c in range(BLOCK):
                    robot = ids[first + min(c, block - 1)]
                    frame = end[robot] + step
                    shows = c < block and step < counts[first + c]
                    places[c] = (frame % capacity * robots + robot) * size if shows else nowhere
                    if frame + 1 - since[robot] <= frames:  # afterwards it stays
                        ask(z, size * BLOCK + c, frame + 1, robot, start, target, since, low, scale, frames)
                if size < WIDTH:
                    for c in range(BLOCK):
                        for f in range(size if places[c] != nowhere else 0):
                            motion[places[c] + f] = shown[f * BLOCK + c]
                else:
                    for s in range(0, BLOCK, WIDTH):
                        for f in range(0, size, WIDTH):
                            f = min(f, size - WIDTH)  # the last ones overlap
                            store_scattered(motion, places, s, f, load_rows(shown, f * BLOCK + s, BLOCK, WIDTH))
        if tiles:
            end_tiles()

    return run


@kernel
def show(robots, size, capacity, ahead, halves, seconds, frames, motion, out, at, end, got, root, due, about):
    """Copy every robot's frame at into out, go on by a frame, and lead the root where the command says.

    root: (robots, 4) float64, x, y [m], cosine and sine of the heading; seconds: of a frame; due: where the numbers of
    robots go that have fewer frames left than ahead, or with halves than half of got. Returns how many these are, and
    how many robots' frames are not finite.
    """
    motion, out, due = view(motion, np.float32), view(out, np.float32), view(due, np.int64)
    at, end, got, root = view(at, np.int64), view(end, np.int64), view(got, np.int64), view(root, np.float64)
    start, target, since = view(about[0], np.float32), view(about[1], np.float32), view(about[2], np.int64)
    count = 0
    broken = 0
    for robot in range(robots):
        frame = at[robot]
        place = (frame % capacity * robots + robot) * size
        wrong = real(0.0)
        for f in range(size):
            x = motion[place + f]
            out[robot * size + f] = x
            wrong += x - x
        broken += 0 if wrong == real(0.0) else 1
        share = min(real(max(frame - since[robot], 0)) / real(frames), real(1.0))
        a, b, c = start[3 * robot], start[3 * robot + 1], start[3 * robot + 2]
        vx = seconds * (a + share * (target[3 * robot] - a))
        vy = seconds * (b + share * (target[3 * robot + 1] - b))
        half = 0.5 * seconds * (c + share * (target[3 * robot + 2] - c))
        square = half * half
        # of half the turn, by series: a frame turns little
        sine = half * (1.0 - square * (1.0 / 6.0 - square / 120.0))
        cosine = 1.0 - square * (0.5 - square / 24.0)
        c0, s0 = root[4 * robot + 2], root[4 * robot + 3]
        cm, sm = c0 * cosine - s0 * sine, s0 * cosine + c0 * sine
        root[4 * robot] += cm * vx - sm * vy
        root[4 * robot + 1] += sm * vx + cm * vy
        c1, s1 = cm * cosine - sm * sine, sm * cosine + cm * sine
        length = 1.5 - 0.5 * (c1 * c1 + s1 * s1)
        root[4 * robot + 2], root[4 * robot + 3] = length * c1, length * s1
        at[robot] = frame + 1
        least = max(ahead, got[robot] // 2) if halves else ahead
        if end[robot] - frame - 2 < least:
            due[count] = robot
            count += 1
    return count, broken
