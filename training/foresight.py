"""What a world model foresees, beside what comes: a ghost, and a plot of it.

The ghost knows the robot's actions but does not look.
"""

import pathlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entity import Creature
from environments import ABEnv
from settings import ConfigError

AHEAD = 45  # control steps between two looks


class Foresight:
    """Follows one robot, and every so often goes on without looking: by the actions taken and the likeliest latents.

    Raises ConfigError if the creature has no world model.
    """

    def __init__(self, creature: Creature, env: ABEnv, device: torch.device, ahead: int = AHEAD) -> None:
        if creature.world_model is None:
            raise ConfigError(
                "--dream: expected a checkpoint with a world model, as of --world_model.role belief,"
                " got one of role off"
            )
        self.model = creature.world_model
        self.env = env
        self.device = device
        self.ahead = ahead
        # of this episode: what came, what was foreseen, whether it looked
        self.history: list[tuple[np.ndarray, np.ndarray, bool]] = []

    def begin(self, state: Any) -> None:
        """Begin with the first observation of an episode."""
        self.history = []
        self.latent = self.model.initial_latent(1)
        self._look(state, torch.zeros(1, self.model.num_actions, device=self.device), 0.0)

    @torch.no_grad()
    def _look(self, state: Any, action: Tensor, keep: float) -> None:
        """Take a step with the observation after an action; without it, too, where it is not time for a look."""
        model = self.model
        came = torch.from_numpy(np.concatenate((state.obs, state.info["privileged"]), axis=-1)).to(self.device)
        kept = torch.full((1, 1), keep, device=self.device)
        self.latent = model.sequence(self.latent, action, kept, None, model.see(came)).last
        looks = not keep or len(self.history) % self.ahead == 0
        self.unseen = self.latent if looks else model.sequence(self.unseen, action, kept, None).last
        self.history.append((came[0].cpu().numpy().copy(), model.decode_all(self.unseen)[0].cpu().numpy(), looks))
        self._move(looks)

    def step(self, state: Any, action: Tensor) -> None:
        """Go on to the observation after an action (1, A) of the same episode."""
        self._look(state, action, 1.0)

    def _move(self, looks: bool) -> None:
        """Move the ghost as is foreseen.

        Where the robot is and heads to is no part of an observation: the ghost takes that over with every look.
        """
        m = self.env.motion(self.history[-1][1][None])
        dt = self.env.cfg.ctrl_dt
        up = -m["gravity"][0] / max(float(np.linalg.norm(m["gravity"][0])), 1e-6)
        roll = np.arctan2(up[1], up[2])
        pitch = np.arctan2(-up[0], np.hypot(up[1], up[2]))
        if looks:
            view = self.env.view()
            w, x, y, z = view["base_quaternion"]
            self.yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
            self.place = np.array(view["base_position"], float)
        else:
            self.yaw += dt * m["spin"][0, 2]
        c = np.cos([roll / 2, pitch / 2, self.yaw / 2])
        s = np.sin([roll / 2, pitch / 2, self.yaw / 2])
        self.quaternion = np.array([
            c[0] * c[1] * c[2] + s[0] * s[1] * s[2], s[0] * c[1] * c[2] - c[0] * s[1] * s[2],
            c[0] * s[1] * c[2] + s[0] * c[1] * s[2], c[0] * c[1] * s[2] - s[0] * s[1] * c[2],
        ])  # fmt: skip
        if not looks:
            v = m["velocity"][0]
            # in the heading frame, small rolls neglected
            ahead = np.array([np.cos(pitch) * v[0] + np.sin(pitch) * v[2], v[1]])
            cos = np.cos(self.yaw)
            sin = np.sin(self.yaw)
            self.place[:2] += dt * np.array([cos * ahead[0] - sin * ahead[1], sin * ahead[0] + cos * ahead[1]])
            ground = float(self.env.terrain.height(*self.place[:2])) if self.env.terrain else 0.0
            self.place[2] = ground + m["height"][0]
        self.joints = m["joint_position"][0]

    def plot(self, path: pathlib.Path) -> None:
        """Draw what came and what was foreseen in the latest episode."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        came, foreseen = (self.env.motion(np.stack([step[i] for step in self.history])) for i in (0, 1))
        times = self.env.cfg.ctrl_dt * np.arange(len(self.history))
        looks = times[[step[2] for step in self.history]]
        shown = (
            ("forward velocity [m/s]", lambda m: m["velocity"][:, 0]), ("yaw rate [rad/s]", lambda m: m["spin"][:, 2]),
            ("pitch [rad]", lambda m: np.arcsin(np.clip(m["gravity"][:, 0], -1, 1))),
            ("front left thigh [rad]", lambda m: m["joint_position"][:, 1]),
            ("front left calf [rad]", lambda m: m["joint_position"][:, 2]),
        )  # fmt: skip
        figure, axes = plt.subplots(len(shown), sharex=True, figsize=(11, 9), layout="constrained")
        for axis, (label, of) in zip(axes, shown, strict=True):
            axis.plot(times, of(came), color="0.55", linewidth=1.2, label="what came")
            for first, last in zip([*looks], [*looks[1:], np.inf], strict=True):
                now = (times >= first) & (times < last)
                axis.plot(
                    times[now],
                    of(foreseen)[now],
                    color="tab:blue",
                    linewidth=1.4,
                    label="foreseen since the last look" if first == looks[0] else None,
                )
            for look in looks:
                axis.axvline(look, color="0.85", linewidth=0.8, zorder=0)
            axis.set_ylabel(label)
        axes[0].legend(frameon=False, ncols=2, loc="upper right")
        axes[-1].set(xlabel="time [s]", xlim=(0.0, min(max(float(times[-1]), self.env.cfg.ctrl_dt), 10.0)))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        plt.close(figure)
