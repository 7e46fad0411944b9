"""Land a rocket on a pad, softly and upright: its engine only pushes along its axis, its thrusters only turn it."""

from dataclasses import dataclass

import numpy as np

from environments import ArrayEnv, EnvCfg, Solid, registry
from settings import knob


@registry.envcfg("lander", "land a rocket softly on a pad")
@dataclass(frozen=True)
class LanderCfg(EnvCfg):
    """The planet and the pad."""

    ctrl_dt: float = 0.04  # s
    render_spacing: float = 5.5  # m
    gravity: float = knob(3.7, "of the planet; the engine gives up to 9", "m/s^2", low=0.0, high=8.0)
    pad: float = knob(1.2, "radius of the pad", "m", low=0.1, high=5.0)


@registry.rlcfg("lander")
def training():
    """Return the fields of config.py that this task wants otherwise."""
    quick = {
        "train.iterations": 300,
        "network.recurrent": False,
        "network.min_observation_std": 0.1,
        "ppo.reward_scale": 0.3,
    }
    return quick | {"ppo.learning_rate": 1e-3, "ppo.max_learning_rate": 2e-3, "ppo.gamma": 0.99, "ppo.rollout": 32}


@registry.env("lander")
class Lander(ArrayEnv):
    """N rockets. State: x, z [m], tilt [rad], rates. Push: m/s^2, rad/s^2. Phase: 0 flying, 1 landed, 2 crashed."""

    num_obs = 7
    num_actions = 2
    action_limit = 1.0
    tallies = ("landed",)
    targets = {"landed": (0.95, np.inf)}

    def create(self, n):
        return {"state": np.zeros((n, 6), np.float32), "push": np.zeros((n, 2), np.float32), "phase": np.zeros(n, int)}

    def reset(self, who, random):
        self.data["state"][who] = random.uniform(-1.0, 1.0, 6) * [4.0, 1.0, 0.6, 1.5, 1.5, 0.5] + [0, 7, 0, 0, 0, 0]
        self.data["push"][who] = 0.0
        self.data["phase"][who] = 0

    def act(self, actions):
        push = (np.clip(actions, -1.0, 1.0) + [1.0, 0.0]) * [4.5, 4.0]
        self.data["push"][:] = push * (self.data["phase"] == 0)[:, None]

    def advance(self):
        (x, z, tilt, vx, vz, _), (thrust, turn), phase = (self.data[name].T for name in ("state", "push", "phase"))
        rates = np.stack([thrust * np.sin(tilt), thrust * np.cos(tilt) - self.cfg.gravity, turn], axis=1)
        self.data["state"][:, 3:] += self.cfg.ctrl_dt * rates
        self.data["state"][:, :3] += self.cfg.ctrl_dt * self.data["state"][:, 3:]
        soft = (np.abs(x) < self.cfg.pad) & (np.abs(tilt) < 0.2) & (np.hypot(vx, vz) < 0.8)  # m, rad, m/s
        phase[:] = np.select([phase > 0, (z < 0.0) & soft, (z < 0.0) | (z > 10.0) | (np.abs(x) > 8.0)], [phase, 1, 2])
        self.data["state"][phase == 1] *= [1.0, 0.0, 0.8, 0.0, 0.0, 0.0]  # it comes to rest

    def observe(self):
        return np.column_stack([self.data["state"] * [0.25, 0.25, 1.0, 0.5, 0.5, 0.5], self.data["phase"] == 1])

    def reward(self):
        missed = (
            self.data["state"][:, 3:5] + self.data["state"][:, :2] * [0.6, 0.5] + [0.0, 0.3]
        )  # m/s: slower when near
        return self.cfg.ctrl_dt * np.choose(self.data["phase"], [0.5 / (1.0 + (missed**2).sum(axis=1)), 1.0, -10.0])

    def fallen(self):
        return self.data["phase"] == 2

    def tally(self):
        return {"landed": self.data["phase"] == 1}

    def solids(self):
        leg = Solid("rod", (0.07, 0.5), "#4A5560")
        flame = Solid("rod", (0.18, 0.35), "#F28C28")
        hull = Solid("box", (0.42, 0.42, 0.5), "#D8DCE0")
        pad = Solid("disc", (self.cfg.pad, 0.03), "#5E9E5A")
        return hull, Solid("ball", (0.42,), "#2F6DB5"), leg, leg, flame, pad

    def view(self, robot=0):
        (x, z, tilt) = self.data["state"][robot, :3]
        thrust = self.data["push"][robot, 0]
        parts = np.array([0.0, 0.5, -0.56 - 0.56j, -0.56 + 0.56j, -0.15 - 0.1 * thrust])  # m: up + 1j * right
        spots = np.append(z + 1.05 + 1j * x + parts * np.exp(1j * tilt), 0.0)
        half = 0.5 * np.array([tilt, tilt, tilt + 0.4, tilt - 0.4, tilt, 0.0])
        none = np.zeros(6)
        places = [spots.imag, none, spots.real]
        turns = [np.cos(half), none, np.sin(half), none]
        return {"position": np.stack(places, 1), "quaternion": np.stack(turns, 1), "target": np.array([0.0, 0.0, 4.5])}
