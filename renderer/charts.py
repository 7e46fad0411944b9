"""Numbers of the robot that is watched as bars, for whatever shows text beside the picture."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from physics.robot import JOINTS, LEGS
from renderer.snapshot import Detail

SINKING = 0.98  # of the largest term of a reward, per picture, so that bars do not jump
AT_LIMIT = 0.98  # share of a motor's limit


class Bar(NamedTuple):
    """A bar: a name, its length to the right or, below 0, to the left in shares of the longest, and a number.

    alarms: whether it is at a limit
    """

    name: str
    share: float
    number: str
    alarms: bool = False


class Charts:
    """The charts of a robot; they remember how large the terms of its reward were lately."""

    def __init__(self) -> None:
        self._largest = 0.0  # [1/s]

    def of(self, detail: Detail, shown: Collection[str]) -> list[tuple[str, list[Bar]]]:
        """Return titles and bars of what is known and shown; shown: names of controls.OVERLAYS."""
        found = []
        if "rewards" in shown and detail.rewards:
            terms = {name.replace("_", " "): float(value) for name, value in detail.rewards.items()}
            self._largest = max(SINKING * self._largest, *map(abs, terms.values()), 1e-3)
            found.append(("reward [1/s]", [Bar(name, x / self._largest, f"{x:+.2f}") for name, x in terms.items()]))
        if "torques" in shown and detail.torque is not None:
            names = [f"{leg} {joint}" for leg in LEGS for joint in JOINTS]
            shares = np.asarray(detail.torque, float).tolist()
            bars = [Bar(n, x, f"{100 * x:+.0f} %", abs(x) > AT_LIMIT) for n, x in zip(names, shares, strict=True)]
            found.append(("torque / limit", bars))
        return found
