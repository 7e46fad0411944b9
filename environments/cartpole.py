"""Cart-pole: keep a pole upright on a cart that a force pushes along a rail."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from environments.array_env import ArrayEnv, Data, Draws
from environments.contracts import EnvCfg, Solid
from environments.registry import env, envcfg, rlcfg
from settings import knob


@envcfg("cartpole", "keep a pole upright on a cart")
@dataclass(frozen=True)
class CartPoleCfg(EnvCfg):
    """The cart, its pole, and where an episode ends."""

    sim_dt: float = knob(0.005, "length of a physics step, a whole share of ctrl_dt", "s", low=1e-5, high=0.1)
    render_spacing: float = knob(0.75, "half the size of what a picture shows", "m", low=0.01, high=1e3)
    force: float = knob(100.0, "force of action 1; actions are cut at +-3", "N", low=0.0, high=1e5)
    cart_mass: float = knob(10.0, "of the cart", "kg", low=0.01, high=1e4)
    pole_mass: float = knob(5.0, "of the pole", "kg", low=0.01, high=1e4)
    pole_length: float = knob(0.6, "of the pole, a thin rod", "m", low=0.01, high=100.0)
    gravity: float = knob(9.81, "acceleration of gravity", "m/s^2", low=0.0, high=100.0)
    rail_damping: float = knob(1.0, "of the cart's motion", "N s/m", low=0.0, high=1e3)
    hinge_damping: float = knob(1.0, "of the pole's", "N m s/rad", low=0.0, high=1e3)
    reset: float = knob(
        0.01, "position, angle and velocities at first, uniform +-", "m, rad, m/s, rad/s", low=0.0, high=1.0
    )
    max_angle: float = knob(0.2, "angle beyond which an episode ends", "rad", low=0.01, high=3.1)
    max_position: float = knob(0.8, "distance from the middle beyond which one ends", "m", low=0.01, high=100.0)


@rlcfg("cartpole")
def training() -> dict[str, Any]:
    """Return what it is trained with."""
    return {
        "ppo.gamma": 0.99, "ppo.reward_scale": 0.05, "ppo.learning_rate": 1e-3, "ppo.max_learning_rate": 2e-3,
        "network.min_observation_std": 0.02, "train.iterations": 60, "train.eval_every": 5,
        "train.target_survival": 0.99,
    }  # fmt: skip


@env("cartpole", "numpy")
class CartPoleEnv(ArrayEnv):
    """N cart-poles.

    Observation (4): position [m], angle from upright [rad], velocity [m/s], angular velocity [rad/s].
    Action (1): force over cfg.force, cut at +-3. Reward: 1 a step.
    """

    cfg: CartPoleCfg
    num_obs = 4
    num_actions = 1
    action_limit = 3.0
    camera = (-75.0, 12.0)

    def create(self, n: int) -> Data:
        """Return data: state (n, 4) as observed, force (n) [N]."""
        return {"state": np.zeros((n, 4), np.float32), "force": np.zeros(n, np.float32)}

    def reset(self, who: np.ndarray, random: Draws) -> None:
        """Stand nearly upright in the middle."""
        self.data["state"][who] = random.uniform(-self.cfg.reset, self.cfg.reset, 4)

    def act(self, actions: np.ndarray) -> None:
        """Push."""
        self.data["force"][:] = self.cfg.force * np.clip(actions[:, 0], -self.action_limit, self.action_limit)

    def physics(self) -> None:
        """Advance by a semi-implicit Euler step."""
        # (M + m) x'' + m l cos(a) a'' = F + m l sin(a) a'^2 - d x'
        # m l cos(a) x'' + (4/3) m l^2 a'' = m g l sin(a) - e a'
        # for the cart's position x and the pole's angle a, l being half of its length
        c = self.cfg
        s = self.data["state"].T
        lever = c.pole_mass * 0.5 * c.pole_length
        sin = np.sin(s[1])
        cos = np.cos(s[1])
        a = c.cart_mass + c.pole_mass
        b = lever * cos
        d = lever * (2.0 / 3.0) * c.pole_length
        f = self.data["force"] + lever * sin * s[3] ** 2 - c.rail_damping * s[2]
        g = lever * c.gravity * sin - c.hinge_damping * s[3]
        over = c.sim_dt / (a * d - b * b)
        s[2] += over * (d * f - b * g)
        s[3] += over * (a * g - b * f)
        s[:2] += c.sim_dt * s[2:]

    def observe(self) -> np.ndarray:
        """Return the state."""
        return self.data["state"]

    def reward(self) -> np.ndarray:
        """Return 1 for every step."""
        return np.ones(self.num_envs, np.float32)

    def fallen(self) -> np.ndarray:
        """Return whether pole or cart have gone too far, or what is no number."""
        position, angle = np.abs(self.data["state"][:, :2]).T
        return ~((angle <= self.cfg.max_angle) & (position <= self.cfg.max_position))

    def errors(self) -> dict[str, np.ndarray]:
        """Return the distance from the middle [m] and the angle [rad]."""
        position, angle = np.abs(self.data["state"][:, :2]).T
        return {"distance": position, "angle": angle}

    def solids(self) -> tuple[Solid, ...]:
        """Return rail, cart, pole and its tip."""
        half = 0.5 * self.cfg.pole_length
        return (
            Solid("box", (self.cfg.max_position + 0.15, 0.02, 0.02), "#8A949E"),
            Solid("box", (0.12, 0.08, 0.05), "#2F6DB5"),
            Solid("rod", (0.02, half), "#E0962F"),
            Solid("ball", (0.035,), "#C0392B"),
        )

    def view(self, robot: int = 0) -> dict[str, Any]:
        """Return how they lie."""
        x, angle = self.data["state"][robot, :2].astype(float)
        height = 0.3
        way = np.array([np.sin(angle), 0.0, np.cos(angle)])
        hinge = np.array([x, 0.0, height])
        position = [
            [0.0, 0.0, height - 0.08],
            hinge,
            hinge + 0.5 * self.cfg.pole_length * way,
            hinge + self.cfg.pole_length * way,
        ]
        level = [1.0, 0.0, 0.0, 0.0]
        leant = [np.cos(angle / 2), 0.0, np.sin(angle / 2), 0.0]
        return {
            "position": np.array(position),
            "quaternion": np.array([level, level, leant, level]),
            "goal": None,
            "target": np.array([0.0, 0.0, 0.5]),
        }
