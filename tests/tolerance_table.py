"""What dm_control's tolerance() returns, as a table for tests that do without dm_control.

    pip install dm_control && python tests/tolerance_table.py     # writes tests/data/tolerance.csv anew

dm_control needs labmaze, which comes compiled for some versions of Python only, so the tests read the
table. Its columns: the arguments, then a value for each x in the heading, or "refused" where
dm_control raises ValueError.
"""

import csv
import itertools
import math
import pathlib

import numpy as np

PATH = pathlib.Path(__file__).resolve().parent / "data" / "tolerance.csv"
ARGUMENTS = "low", "high", "margin", "sigmoid", "value_at_margin"
DEFAULTS = {"bounds": (0.0, 0.0), "margin": 0.0, "sigmoid": "gaussian", "value_at_margin": 0.1}
ENDING = "cosine", "linear", "quadratic"  # may be 0 at the margin
SIGMOIDS = "gaussian", "hyperbolic", "long_tail", "reciprocal", "tanh_squared", *ENDING
BOUNDS = (0.0, 0.0), (-0.5, 0.75), (1.0, 3.0), (0.25, math.inf), (-math.inf, -0.25), (-math.inf, math.inf)
MARGINS = 0.0, 0.5, 1.0, 4.0
VALUES = 0.01, 0.1, 0.5, 0.95
# numbers that float32 has too: drawn, the bounds, between the bounds and a margin, far away, not finite
DRAWN = np.random.default_rng(1).uniform(-6, 6, 20).astype(np.float32).astype(float).tolist()
X = *DRAWN, -0.5, 0.75, 0.0, 1.0, 0.25, 1.25, -2.0, 1e6, -1e6, math.inf, -math.inf, math.nan
# arguments left out or by name
SPELT = (
    {}, {"bounds": (-0.5, 0.75)}, {"bounds": (0.25, math.inf), "margin": 2.0}, {"margin": 2.0, "sigmoid": "hyperbolic"},
    {"margin": 1.5, "sigmoid": "cosine", "value_at_margin": 0.0},
    {"value_at_margin": 0.3, "margin": 4.0, "sigmoid": "reciprocal", "bounds": (-1.0, 0.0)}, {"value_at_margin": 7.0},
)  # fmt: skip
WRONG = (
    {"bounds": (1.0, 0.5)}, {"bounds": (math.inf, -math.inf)}, {"margin": -0.1}, {"margin": 1.0, "sigmoid": "bell"},
    *({"margin": 1.0, "sigmoid": s, "value_at_margin": v} for s in SIGMOIDS for v in (-0.1, 1.0, 1.5)),
    *({"margin": 1.0, "sigmoid": s, "value_at_margin": 0.0} for s in SIGMOIDS if s not in ENDING),
)  # fmt: skip


def key(bounds, margin, sigmoid, value_at_margin):
    """Return the arguments of a row."""
    return *bounds, margin, sigmoid, value_at_margin


def cases():
    """Return what is asked, by name: every sigmoid with all bounds and margins, values in turn; SPELT; WRONG."""
    asked = []
    for sigmoid in SIGMOIDS:
        values = (*VALUES, 0.0) if sigmoid in ENDING else VALUES
        for (i, bounds), (k, margin) in itertools.product(enumerate(BOUNDS), enumerate(MARGINS)):
            value = values[(i + k) % len(values)]
            asked.append({"bounds": bounds, "margin": margin, "sigmoid": sigmoid, "value_at_margin": value})
    return [*asked, *SPELT, *WRONG]


def read():
    """Return the table: values (len(X)) by key, None where they are refused, and the heading's numbers."""
    with open(PATH, newline="") as file:
        heading, *rows = csv.reader(file)
    count = len(ARGUMENTS)
    table = {}
    for low, high, margin, sigmoid, value, *values in rows:
        row = None if values == ["refused"] else np.array(values, float)
        table[float(low), float(high), float(margin), sigmoid, float(value)] = row
    return table, np.array(heading[count:], float)


def main():
    """Ask dm_control and write the table."""
    from dm_control.utils.rewards import tolerance

    rows = [[*ARGUMENTS, *X]]
    for given in cases():
        try:
            with np.errstate(all="ignore"):
                values = [f"{round(value, 14):.14g}" for value in tolerance(np.array(X), **given)]
        except ValueError:
            values = ["refused"]
        row = [*key(**(DEFAULTS | given)), *values]
        if row not in rows:  # what is spelt may be asked already
            rows.append(row)
    with open(PATH, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
