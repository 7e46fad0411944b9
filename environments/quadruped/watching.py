"""What people see of legged robots, and do to them, while they watch."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from config import QuadrupedCfg
from environments.contracts import ABEnv
from physics import PhysicsEngine
from physics import constants as C
from physics import layout as L
from physics.jit import LANES

PUSH_SHOWN = 0.4  # how long view() gives a push [s]
HUD_TERMS = 3  # of the reward that a picture tells, the largest
FRONT = 1.0  # how far before a terrain [m]
MOVING = "velocity", "heading", "gait", "goal", "pose"  # kinds of command that ask for a velocity
HELD = 1e9  # a time that does not come [s]
GOAL_HELD = 10.0  # how long a goal that was set stays, at least [s]


class WatchedEnv(ABEnv):
    """The part of the quadruped's environment that a viewer needs; QuadrupedEnv has the rest."""

    cfg: QuadrupedCfg
    engine: PhysicsEngine
    points: np.ndarray  # where the ground is seen, (points, 2), heading frame [m]

    def heading_velocity(self) -> np.ndarray:
        """Return forward and sideways velocity, heading frame [m/s], and yaw rate [rad/s], (N, 3), as commands do."""
        w, x, y, z = self.engine.rows(L.QUATERNION, 4).T
        ahead = 1 - 2 * (y * y + z * z)
        aside = 2 * (x * y + w * z)
        length = np.sqrt(ahead * ahead + aside * aside + 1e-12)
        c = ahead / length
        s = aside / length
        vx, vy = self.engine.rows(L.VELOCITY, 2).T
        return np.stack([c * vx + s * vy, c * vy - s * vx, self.engine.rows(L.SPIN + 2, 1)[:, 0]], axis=1)

    def push(self, velocity: np.ndarray, robot: int | None = None) -> None:
        """Kick a robot, or every one at once; velocity (3) [m/s], world frame."""
        some = slice(None) if robot is None else [robot]
        speed = self.engine.get_state().base_linear_velocity
        speed[some] += velocity
        self.engine.set_state(base_linear_velocity=speed)
        self._change("push", some, velocity)
        self._change("push_age", some, 0.0)

    def _change(self, name: str, robots: Any, value: Any) -> None:
        """Set a field of some robots."""
        rows = self.field(name)
        rows[robots] = value
        self.set_field(name, rows)

    def steer(self, robot: int, shares: Sequence[float] | None) -> bool:
        """Hold a robot's command; return whether it has one; see ABEnv."""
        if self.cfg.command.kind not in ("velocity", "heading", "gait"):
            return False
        if shares is None:
            self._change("command_in", [robot], 0.0)
            return True
        cfg = self.cfg.command
        ranges = cfg.forward, cfg.sideways, cfg.turn
        command = [x * high if x > 0 else -x * low + 0.0 for x, (low, high) in zip(shares, ranges, strict=True)]
        self._change("command", [robot], command)
        if self.cfg.command.kind == "heading":
            self._change("faces", [robot], 0.0)
        self._change("age", [robot], 0.0)  # no time runs out
        self._change("command_in", [robot], HELD)
        return True

    def set_goal(self, robot: int, point: np.ndarray) -> bool:
        """Move a robot's goal; return whether it has one; see ABEnv."""
        if self.cfg.command.kind not in ("stay", "goal", "pose"):
            return False
        goal = self.field("goal")[robot]
        goal[:2] = point[:2] - self.engine.rows(L.ORIGIN, 2)[robot]
        self._change("goal", [robot], goal)
        self._change("met", [robot], 0.0)
        self._change("goal_in", [robot], max(float(self.field("goal_in")[robot, 0]), GOAL_HELD))
        return True

    def start_in_front(self, robot: int) -> None:
        """Let a robot's episodes begin before the terrain, facing its easiest tiles; see ABEnv."""
        if self.terrain is None or self.terrain.spawns.size == 3:
            return
        spawns = self.field("spawn")
        x = self.terrain.spawns[..., 0].min() - self.cfg.terrain.tile / 2 - FRONT
        x = max(x, self.terrain.origin[0] + FRONT)  # a picture has no border
        self._change("spawn", [robot], [x, spawns[robot, 1]])

    def go_on_from(self, other: ABEnv) -> None:
        """Take over the instant of another environment of the same task, in another world; see ABEnv."""
        self.init_state(other.seed)
        self.clock = other.clock
        before = other._arrays()
        after = self._arrays()
        for name in before.keys() & after.keys():
            after[name][:] = before[name]
        if "varied_blocks" in before and "varied_blocks" in after:
            self._follow_model(other.engine.model)
        if self.terrain or other.terrain:  # which may be another now: robots keep their height above it
            place = self.engine.get_state().base_position
            new, old = (env.terrain.height(*place[:, :2].T) if env.terrain else 0.0 for env in (self, other))
            place[:, 2] += new - old
            self.engine.set_state(base_position=place)

    def _follow_model(self, before: C.Model) -> None:
        """Change what each robot has of its own by what the model differs from another, friction and mass."""
        now = self.engine.model
        rows = now.varied_blocks.reshape(self.engine.num_blocks, -1, LANES)
        for row, constant in ((L.V_KINETIC, C.KINETIC), (L.V_STATIC, C.STATIC)):
            rows[:, row] *= now.world[constant] / before.world[constant] if before.world[constant] else 1.0
        for row, constant, size in (
            (L.V_MASS, C.BASE_MASS, 1), (L.V_FIRST, C.BASE_FIRST, 3), (L.V_SECOND, C.BASE_SECOND, 6),
        ):  # fmt: skip
            more = now.base[constant : constant + size] - before.base[constant : constant + size]
            rows[:, row : row + size] += more[:, None]

    def detail(self, robot: int = 0) -> dict[str, Any]:
        """Return what overlays show of a robot; see ABEnv."""
        com = self.field("com")[robot].astype(float)
        com[:2] += self.engine.rows(L.ORIGIN, 2)[robot]
        place = self.engine.get("base_position")[robot, :2] + self.engine.rows(L.ORIGIN, 2)[robot]
        com[2] += float(self.terrain.height(*place)) if self.terrain else 0.0
        torque, limit = self.engine.motor_torques()
        return {
            "com": com,
            "command": self.field("command")[robot] if self.cfg.command.kind in MOVING else None,
            "velocity": self.heading_velocity()[robot],
            "torque": (torque / np.maximum(limit, 1e-9))[robot],
            "rewards": {name: float(term[robot]) / self.cfg.ctrl_dt for name, term in self.reward_terms().items()},
            "scan": self._seen(robot) if self.terms.scans else None,
        }

    def _seen(self, robot: int) -> np.ndarray:
        """Return the points (points, 3) of the ground that a robot sees, where it believes them to be [m, world]."""
        state = self.engine.get_state()
        w, x, y, z = state.base_quaternion[robot].astype(float)
        heading = math.atan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))
        c, s = math.cos(heading), math.sin(heading)
        base = state.base_position[robot]
        places = base[:2] + self.points @ np.array([[c, s], [-s, c]])
        return np.column_stack([places, self.field("scanned")[robot] + (base[2] - self.robot.home_height)])

    def hud(self, robot: int = 0) -> tuple[tuple[str, str], ...]:
        """Return what a picture tells of a robot; see ABEnv."""
        kind = self.cfg.command.kind
        view = self.view(robot)
        errors = {name: float(error[robot]) for name, error in self.errors().items()}
        moves = {
            name: "{:+.2f} {:+.2f} m/s {:+.2f} rad/s".format(*view[name])
            for name in ("command", "velocity")
            if view[name] is not None
        }
        if kind == "stay":
            rows = {"goal distance": f"{100 * errors['goal_distance']:.1f} cm", "speed": f"{errors['speed']:.2f} m/s"}
        elif kind in ("velocity", "heading", "gait"):
            rows = moves | {"velocity error": f"{errors['velocity_error']:.2f} m/s"}
        elif kind in ("goal", "pose"):
            rows = {"goal distance": f"{errors['goal_distance']:.2f} m", "goals reached": str(view["goals"])} | moves
        else:
            rows = {name.replace("_", " "): f"{error:.3g}" for name, error in errors.items()}
        if kind == "pose":
            rows |= {"heading error": f"{math.degrees(errors['heading_error']):.0f} deg"}
        terms = {name: float(x[robot]) / self.cfg.ctrl_dt for name, x in self.reward_terms().items()}
        largest = sorted(terms, key=lambda name: -abs(terms[name]))[:HUD_TERMS]
        rows |= {f"term {name.replace('_', ' ')}": f"{terms[name]:+.2f} /s" for name in largest}
        return (*rows.items(), ("last push", f"{float(np.linalg.norm(view['last_push'])):.2f} m/s"))

    def view(self, robot: int = 0) -> dict[str, Any]:
        """Return what there is to draw of a robot, as views() has it of all."""
        view = self.views()
        ghost = view.pop("ghost")
        one = {name: None if x is None else x[robot] for name, x in view.items()}
        return one | {"ghost": ghost and {name: x[robot] for name, x in ghost.items()}}

    def views(self) -> dict[str, Any]:
        """Return what there is to draw of all robots.

        Their states; goal (N, 3) [m], or None; push (N, 3) [m/s], zeros unless recent, last_push (N, 3); command and
        velocity (N, 3), forward, sideways [m/s] and yaw rate [rad/s], command None where none is asked for; goals (N),
        how many each has reached; ghost, base position and quaternion and joint position of the motion that is
        followed, or None.
        """
        state = self.engine.get_state()
        arrays = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
        kind = self.cfg.command.kind
        goal = self.field("goal").astype(np.float64)
        goal[:, :2] += self.engine.rows(L.ORIGIN, 2)
        below = goal[:, :2] if kind in ("goal", "pose") else state.base_position[:, :2]
        goal[:, 2] += self.terrain.height(*below.T) if self.terrain else 0.0
        push = self.field("push")
        return arrays | {
            "goal": goal if kind in ("stay", "goal", "pose") else None,
            "push": np.where(self.field("push_age") < PUSH_SHOWN, push, 0.0),
            "last_push": push,
            "command": self.field("command") if kind in MOVING else None,
            "velocity": self.heading_velocity(),
            "goals": self.field("goals")[:, 0].astype(int),
            "ghost": self._followed() if self.terms.follows else None,
        }

    def _followed(self) -> dict[str, np.ndarray]:
        """Return the poses that the motion has at this instant, where the robots are and heading as they do."""
        state = self.engine.get_state()
        x, y, _ = state.base_position.T
        w, i, j, k = state.base_quaternion.astype(float).T
        heading = np.arctan2(2 * (i * j + w * k), 1 - 2 * (j * j + k * k))
        up = self.field("reference_up").astype(float).T
        ground = self.terrain.height(x, y) if self.terrain else 0.0
        height = self.field("reference_height")[:, 0]
        c = np.cos(heading / 2)
        s = np.sin(heading / 2)
        a, b, d = np.array([1.0 + up[2], up[1], -up[0]]) / np.sqrt(2.0 * np.maximum(1.0 + up[2], 1e-6))
        return {
            "base_position": np.stack([x, y, ground + height], 1),
            "base_quaternion": np.stack([c * a, c * b - s * d, c * d + s * b, s * a], 1),
            "joint_position": self.field("reference_joint"),
        }
