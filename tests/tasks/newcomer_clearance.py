"""Lift the feet while walking."""

from environments.quadruped import reward, task


@reward
def swing_height(foot_height, on_ground, moving, swing=0.06):
    """Feet in the air at the height asked for, while something is commanded.

    swing: height that is asked for [m]
    """
    total = 0.0
    for leg in range(4):
        if on_ground[leg] < 0.5:
            total += min(foot_height[leg] / swing, 1.0)
    return moving * total


task("walk-lifted", "quadruped-walk-flat", "walk with lifted feet", rewards={swing_height: 0.5})
