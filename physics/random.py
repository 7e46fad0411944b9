"""Random numbers without a state: a hash of seed, clock, robot and draw.

Every robot's numbers are its own, whatever thread computes it and however many robots there are.
"""

import numpy as np

from physics.jit import inline, real


@inline
def mix(x):
    """Return a 32-bit hash (lowbias32 by C. Wellons, found by search for lowest bias)."""
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@inline
def robot_key(seed, clock, robot):
    """Return the key of a robot at a time: all three whole numbers."""
    key = mix(np.uint32(np.uint32(seed) + np.uint32(0x9E3779B9)))
    key = mix(np.uint32(key + np.uint32(clock)))
    return mix(np.uint32(key + np.uint32(np.uint32(robot) * np.uint32(0x9E3779B9))))


@inline
def uniform(key, draw, low, high):
    """Return a number between low and high, the same for the same key and draw (a whole number)."""
    bits = mix(np.uint32(key + np.uint32(np.uint32(draw) * np.uint32(0x85EBCA6B)))) >> np.uint32(8)
    return low + (high - low) * (real(np.int32(bits)) * real(5.9604644775390625e-08))


@inline
def errors3(key, draw, size):
    """Return three numbers between -size and size, of 1024 values each, from one hash."""
    bits = mix(np.uint32(key + np.uint32(np.uint32(draw) * np.uint32(0x85EBCA6B))))
    step = size * real(2.0 / 1023.0)
    mask = np.uint32(1023)
    a, b, c = np.int32(bits & mask), np.int32((bits >> np.uint32(10)) & mask), np.int32((bits >> np.uint32(20)) & mask)
    return step * real(a) - size, step * real(b) - size, step * real(c) - size
