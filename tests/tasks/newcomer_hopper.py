"""Hop: reach a height that is asked for now and then."""

from environments.quadruped import Field, command, metric, observation, renewal, reward, task
from physics.random import uniform

OWN = Field("hop_goal", 1, "m", "height asked for above home", 0.0), Field("hop_in", 1, "s", "time to the next", 0.0)


@renewal(sets=("hop_goal", "hop_in"), keeps=OWN, due="hop_in")
def next_hop(key, hop=(0.0, 0.12), pause=(1.0, 3.0)):
    """A height to reach, anew now and then; a third of them to stand.

    hop: above home [m]
    pause: time between new ones [s]
    """
    if uniform(key, 2, 0.0, 1.0) < 0.33:
        wanted = 0.0
    else:
        wanted = uniform(key, 0, hop[0], hop[1])
    return wanted, uniform(key, 1, pause[0], pause[1])


@observation(columns=1, scale=5.0, mirror="number")
def hop_asked(hop_goal):
    """Height asked for, above home [m]."""
    return hop_goal


@metric
def hop_error(hop_goal, home_height, base_height):
    """Distance from the height asked for [m]."""
    return abs(base_height - home_height - hop_goal)


@reward
def hopping(hop_goal, home_height, base_height, hop_width=0.05):
    """Being at the height asked for.

    hop_width: error at which it is half [m]
    """
    miss = (base_height - home_height - hop_goal) / hop_width
    return 1.0 / (1.0 + miss * miss)


hops = command("hop", [next_hop], hop_asked, [hop_error], targets={"hop_error": (0.0, 0.03)})
task(
    "hopper", "quadruped-balance", "reach heights as asked", command=hops, rewards={hopping: 5.0, "goal": 0.0},
    changes={"push.speed": (0, 0), "push.spin": 0.0},
)  # fmt: skip
