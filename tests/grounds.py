"""Fields of terrain that tests share, and points in them."""

import numpy as np

from physics import terrain

HAND = np.array([[0.0, 1.0, 3.0], [2.0, 5.0, 4.0]])  # two rows along x, one above the other in y


def hand():
    return terrain.from_array(HAND, 0.5, (1.0, -2.0))


def bumpy(**changes):
    return terrain.rough(**{"amplitude": 0.2, "spacing": 0.3, "seed": 3, "size": 4.0, **changes})


def inside(ground, count, seed=0, margin=0.0):
    """Return random points within a field, (count) each, at least a margin of cells from its border."""
    ny, nx = ground.heights.shape
    draw = np.random.default_rng(seed)
    return tuple(
        o + ground.cell * draw.uniform(margin, n - 1 - margin, count)
        for o, n in zip(ground.origin, (nx, ny), strict=True)
    )
