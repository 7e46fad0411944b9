"""Navigation: a point creature runs and jumps from goal to goal in a walled world, and tires."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from environments.array_env import ArrayEnv, Data, Draws
from environments.contracts import EnvCfg, Solid
from environments.registry import env, envcfg, rlcfg
from settings import knob

RADIUS = 0.5  # of the creature [m]
AIR_CONTROL = 0.3  # share of the horizontal acceleration that is left off the ground
TIRED = 0.25  # share of everything that is left without stamina


@envcfg("navigation", "a point creature runs from goal to goal between walls")
@dataclass(frozen=True)
class NavigationCfg(EnvCfg):
    """The world, what moves and stops the creature, what tires it, and what it is rewarded for."""

    sim_dt: float = knob(0.05, "length of a physics step, a whole share of ctrl_dt", "s", low=1e-3, high=0.2)
    ctrl_dt: float = knob(0.05, "time between two actions", "s", low=1e-3, high=1.0)
    max_episode_seconds: float = knob(30.0, "length of an episode", "s", low=0.1, high=1e5)
    render_spacing: float = knob(10.0, "half the size of what a picture shows", "m", low=0.01, high=1e3)
    width: float = knob(64.0, "of the world, along x and y", "m", low=4.0, high=1e4)
    height: float = knob(16.0, "of the world", "m", low=2.0, high=1e4)
    thrust: float = knob(24.0, "horizontal acceleration of action 1", "m/s^2", low=0.0, high=1e3)
    jump: float = knob(6.0, "upward speed that action 1 gives on the ground", "m/s", low=0.0, high=100.0)
    gravity: float = knob(9.81, "acceleration of gravity", "m/s^2", low=0.0, high=100.0)
    terminal: float = knob(20.0, "largest speed of a fall", "m/s", low=0.1, high=1e3)
    ground_friction: float = knob(2.5, "rate at which momentum is lost on the ground", "1/s", low=0.0, high=100.0)
    air_friction: float = knob(0.3, "rate at which it is lost in the air", "1/s", low=0.0, high=100.0)
    drag: float = knob(0.02, "deceleration over speed squared, everywhere", "1/m", low=0.0, high=10.0)
    stamina: float = knob(200.0, "of a rested creature", low=1.0, high=1e6)
    effort: float = knob(6.0, "stamina that action 1 takes, horizontally", "1/s", low=0.0, high=1e6)
    jump_effort: float = knob(4.0, "stamina that a jump of action 1 takes", low=0.0, high=1e6)
    recovery: float = knob(20.0, "stamina that comes back at rest", "1/s", low=0.0, high=1e6)
    reached: float = knob(1.5, "distance at which the next goal follows", "m", low=0.1, high=100.0)
    goal_height: float = knob(2.0, "goals lie up to so high", "m", low=0.0, high=1e3)
    near: float = knob(6.0, "distance within which being near is rewarded", "m", low=0.1, high=1e3)
    progress_reward: float = knob(0.3, "reward of coming nearer, or penalty of the opposite", "1/m", low=0.0, high=1e3)
    near_reward: float = knob(
        0.05, "reward of a step at the goal, falling to 0 in proportion to the distance", low=0.0, high=1e3
    )
    goal_reward: float = knob(10.0, "reward of reaching a goal", low=0.0, high=1e3)
    wall_penalty: float = knob(0.1, "penalty of a step against a wall", low=0.0, high=1e3)
    tired_penalty: float = knob(0.02, "penalty of a step, times the share of stamina that is gone", low=0.0, high=1e3)
    rest_reward: float = knob(0.01, "reward of a step at rest, times that share", low=0.0, high=1e3)


@rlcfg("navigation")
def training() -> dict[str, Any]:
    """Return what it is trained with."""
    quick = {"ppo.learning_rate": 1e-3, "ppo.max_learning_rate": 2e-3, "train.iterations": 320, "train.eval_every": 20}
    return quick | {"ppo.gamma": 0.97, "network.min_observation_std": 0.1}


@env("navigation", "numpy")
class NavigationEnv(ArrayEnv):
    """N point creatures, each in a world of its own.

    Observation (7), within +-1: goal less position over the world's width, width and height; position
    over their halves, from the middle; stamina. Velocity is not observed: a policy has to remember.
    Action (3), cut at +-1: accelerations along x and y, and upwards: a jump, on the ground alone.
    """

    cfg: NavigationCfg
    num_obs = 7
    num_actions = 3
    action_limit = 1.0
    camera = (-52.0, 42.0)
    tallies = ("goals",)
    targets: ClassVar = {"goals": (5.0, np.inf)}

    def create(self, n: int) -> Data:
        """Return data of n creatures, by name.

        position, velocity, goal, action: (n, 3) [m], [m/s], [m], [1]; stamina, wall, rest, progress, arrived, goals:
        (n).
        """
        data = {name: np.zeros((n, 3), np.float32) for name in ("position", "velocity", "goal", "action")}
        return data | {
            name: np.zeros(n, np.float32) for name in ("stamina", "wall", "rest", "progress", "arrived", "goals")
        }

    def reset(self, who: np.ndarray, random: Draws) -> None:
        """Rest somewhere on the ground, a goal somewhere."""
        d = self.data
        edge = self.cfg.width - RADIUS
        d["position"][who] = np.column_stack([random.uniform(RADIUS, edge, 2), np.full(len(who), RADIUS, np.float32)])
        d["velocity"][who] = 0.0
        d["stamina"][who] = self.cfg.stamina
        d["goals"][who] = 0.0
        self._new_goal(who, random)

    def _new_goal(self, who: np.ndarray, random: Draws) -> None:
        edge = self.cfg.width - RADIUS
        self.data["goal"][who] = np.column_stack(
            [random.uniform(RADIUS, edge, 2), random.uniform(RADIUS, RADIUS + self.cfg.goal_height)]
        )

    def distance(self) -> np.ndarray:
        """Return the distance from the goal, (N) [m]."""
        return np.linalg.norm(self.data["goal"] - self.data["position"], axis=1)

    def act(self, actions: np.ndarray) -> None:
        """Take the actions over; jumps happen at once."""
        d = self.data
        c = self.cfg
        d["action"][:] = np.clip(actions, -1.0, 1.0)
        d["progress"][:] = self.distance()
        d["wall"][:] = 0.0
        fresh = np.where(d["stamina"] > 0.0, 1.0, TIRED)
        on_ground = d["position"][:, 2] <= RADIUS + 1e-4
        jump = np.where(on_ground, np.maximum(d["action"][:, 2], 0.0), 0.0)
        d["velocity"][:, 2] += c.jump * fresh * jump
        push = np.linalg.norm(d["action"][:, :2], axis=1)
        d["rest"][:] = on_ground & (push < 0.1) & (jump < 0.1)
        spent = c.effort * push * c.ctrl_dt + c.jump_effort * jump - c.recovery * c.ctrl_dt * d["rest"]
        d["stamina"][:] = np.clip(d["stamina"] - spent, 0.0, c.stamina)
        d["action"][:, :2] *= fresh[:, None]

    def physics(self) -> None:
        """Advance by a semi-implicit Euler step; what slows down is implicit."""
        d = self.data
        c = self.cfg
        dt = self.cfg.sim_dt
        p = d["position"]
        v = d["velocity"]
        on_ground = (p[:, 2] <= RADIUS + 1e-4) & (v[:, 2] <= 0.0)
        v[:, :2] += (dt * c.thrust * np.where(on_ground, 1.0, AIR_CONTROL))[:, None] * d["action"][:, :2]
        v[:, 2] -= dt * c.gravity
        slowing = np.where(on_ground, c.ground_friction, c.air_friction) + c.drag * np.linalg.norm(v, axis=1)
        v /= 1.0 + dt * slowing[:, None]
        np.maximum(v[:, 2], -c.terminal, out=v[:, 2])
        p += dt * v
        low = np.float32(RADIUS)
        high = np.array([c.width, c.width, c.height], np.float32) - np.float32(RADIUS)
        out = (p < low) | (p > high)
        np.clip(p, low, high, out=p)
        v[out] = 0.0
        np.maximum(d["wall"], out[:, :2].any(1), out=d["wall"])

    def reward(self) -> np.ndarray:
        """Return the reward, and have those who reached their goal find a new one."""
        d = self.data
        c = self.cfg
        distance = self.distance()
        d["arrived"][:] = distance < c.reached
        gone = 1.0 - d["stamina"] / c.stamina
        reward = c.progress_reward * (d["progress"] - distance) + c.near_reward * np.maximum(
            1.0 - distance / c.near, 0.0
        )
        reward += (
            c.goal_reward * d["arrived"]
            - c.wall_penalty * d["wall"]
            + gone * (c.rest_reward * d["rest"] - c.tired_penalty)
        )
        who = np.flatnonzero(d["arrived"])
        if len(who):
            d["goals"][who] += 1.0
            self._new_goal(who, self.draws(who, purpose=2))
        return reward

    def observe(self) -> np.ndarray:
        """Return goal, position and stamina, scaled."""
        d = self.data
        size = np.array([self.cfg.width, self.cfg.width, self.cfg.height], np.float32)
        return np.column_stack(
            [
                (d["goal"] - d["position"]) / size,
                2.0 * d["position"] / size - 1.0,
                2.0 * d["stamina"] / self.cfg.stamina - 1.0,
            ]
        )

    def tally(self) -> dict[str, np.ndarray]:
        """Return the goals reached in this episode."""
        return {"goals": self.data["goals"]}

    def errors(self) -> dict[str, np.ndarray]:
        """Return distance from the goal [m], speed [m/s] and the share of stamina left."""
        d = self.data
        return {
            "goal_distance": self.distance(),
            "speed": np.linalg.norm(d["velocity"], axis=1),
            "stamina": d["stamina"] / self.cfg.stamina,
        }

    def solids(self) -> tuple[Solid, ...]:
        """Return the creature and four walls."""
        half = 0.5 * self.cfg.width
        high = 0.5
        wall = "#A9B4BF"
        return (
            Solid("ball", (RADIUS,), "#E0762F"),
            Solid("box", (0.2, half, high), wall),
            Solid("box", (0.2, half, high), wall),
            Solid("box", (half, 0.2, high), wall),
            Solid("box", (half, 0.2, high), wall),
        )

    def view(self, robot: int = 0) -> dict[str, Any]:
        """Return how they lie, the world's middle being the picture's origin."""
        half = 0.5 * self.cfg.width
        high = 0.5
        middle = np.array([half, half, 0.0])
        walls = [[-half, 0.0, high], [half, 0.0, high], [0.0, -half, high], [0.0, half, high]]
        position = np.array([self.data["position"][robot] - middle, *walls])
        goal = self.data["goal"][robot] - middle
        return {
            "position": position,
            "quaternion": np.tile([1.0, 0.0, 0.0, 0.0], (5, 1)),
            "goal": goal,
            "target": position[0],
        }
