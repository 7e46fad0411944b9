"""The quadruped's environment: keeps its balance on flat ground while it is pushed."""

import dataclasses
import math

import numpy as np

from config import ConfigError, EnvCfg, NoiseCfg, TerrainCfg, VaryCfg
from environments import quadruped_rows as Q
from environments import quadruped_step
from environments.contracts import ABEnv, Body, EnvState, Mirror, Node
from physics import PhysicsEngine, load_robot, vary
from physics import constants as C
from physics import layout as L
from physics.jit import LANES, real
from physics.terrain import Terrain, curriculum

PLATFORM = 2.0  # least side of the level middle of a tile, but at most a quarter of the tile [m]
BORDER = 4.0  # least width of the level ground around the tiles [m]
PUSH_SHOWN = 0.4  # how long view() gives a push [s]


def task_constants(cfg: EnvCfg, home_height: float) -> np.ndarray:
    """Return the task's numbers in the order of quadruped_rows, (TASK_CONSTANTS)."""
    torque = cfg.control == "torque"
    values = [
        cfg.control_dt, cfg.episode_steps, 0.0 if torque else cfg.action_scale, cfg.torque_scale if torque else 0.0, float(torque),
        math.cos(cfg.fall_tilt), cfg.fall_height * home_height,
        cfg.reset.joint_position, cfg.reset.joint_velocity, cfg.reset.tilt, cfg.reset.velocity, cfg.reset.spin,
        *cfg.push.speed, cfg.push.spin, *cfg.push.interval,
        cfg.goal.radius, cfg.goal.height, *cfg.goal.interval, cfg.goal.reach,
        *dataclasses.astuple(cfg.reward),
    ]  # fmt: skip
    return np.array(values, dtype=real)


def _terrain(cfg: TerrainCfg) -> Terrain | None:
    """Return the ground, or None if it is flat; raise ConfigError, naming the field, for what is no terrain."""
    kinds = cfg.kinds.replace(",", " ").split()
    if kinds == ["flat"]:
        return None
    try:
        border = cfg.cell * math.ceil(BORDER / cfg.cell - 1e-6)
        return curriculum(cfg.levels, kinds, cfg.tile, cfg.cell, cfg.seed, cfg.difficulty, min(PLATFORM, cfg.tile / 4), border)
    except ValueError as error:
        raise ConfigError(f"terrain.{error}") from None


def _swap(first: int, per_leg: int, signs: tuple[float, ...]) -> tuple[list[int], list[float]]:
    """Return columns and signs of the mirror image of what lies from a column on, per_leg numbers of each leg."""
    columns = [first + per_leg * (leg ^ 1) + k for leg in range(4) for k in range(per_leg)]
    return columns, list(signs) * 4


def _mirror(*parts: tuple[list[int], list[float]]) -> Mirror:
    return Mirror(tuple(c for part in parts for c in part[0]), tuple(s for part in parts for s in part[1]))


def _body() -> Body:
    """Return trunk and left legs with their mirror images: legs swap, abduction changes sign."""
    trunk = Node("trunk", tuple(range(Q.OBS_GRAVITY, Q.NUM_OBS)))
    legs = []
    for leg in (0, 2):
        columns = [Q.OBS_JOINT + 3 * leg + j for j in range(3)] + [Q.OBS_SPEED + 3 * leg + j for j in range(3)] + [Q.OBS_CONTACT + leg]
        legs.append(Node("leg", tuple(columns)))
    side = (-1.0, 1.0, 1.0)
    vectors = ([28, 29, 30, 31, 32, 33, 34, 35, 36], [1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    obs = _mirror(_swap(Q.OBS_JOINT, 3, side), _swap(Q.OBS_SPEED, 3, side), _swap(Q.OBS_CONTACT, 1, (1.0,)), vectors)
    privileged = _mirror(([0, 1, 2, 3], [1.0, -1.0, 1.0, 1.0]), _swap(4, 3, side))
    return Body((trunk, *legs), obs, privileged, _mirror(_swap(0, 3, side)))


class QuadrupedEnv(ABEnv):
    """N quadrupeds that should hold their centre of mass at a goal, level, whatever shoves them.

    Observation (37), float32, all of it measurable on a robot:
      0-11   joint angle less home angle [rad], FL FR RL RR, each hip, thigh, calf
      12-23  joint velocity [rad/s] x 0.05
      24-27  foot contact: 1 if more than 1 N, else 0
      28-30  direction of gravity, base frame
      31-33  angular velocity [rad/s], base frame, x 0.25
      34-36  goal less centre of mass [m], heading frame, x 5; horizontally shortened to goal.reach
    Action (12): with control "pd" joint targets, home + action_scale * action [rad], kept within the
    joint ranges, turned into torques kp (target - q) - kd qd at every physics step; with "torque"
    motor torques hold + torque_scale * action - torque_kd qd [N m], hold being what bears the home
    pose (Robot.hold_torques). Both are cut at the torque limits.
    Privileged observation (16), info["privileged"], for the critic: base velocity, base frame [m/s]
    (3), height less home height [m] x 10 (1), latest action (12).
    """

    num_obs, num_actions, num_privileged = Q.NUM_OBS, 12, Q.NUM_PRIVILEGED
    body = _body()

    def __init__(self, num_envs: int, cfg: EnvCfg, threads: int = 0) -> None:
        self.cfg, self.num_envs = cfg, num_envs
        self.robot = load_robot(cfg.physics.robot)
        self.terrain = _terrain(cfg.terrain)
        differ = cfg.vary != VaryCfg()
        self.engine = PhysicsEngine(
            self.robot, num_envs, cfg.physics.timestep, threads, cfg.physics, self.terrain, differ, Q.TASK_ROWS, Q.TASK_WORK_ROWS
        )
        if differ:
            self.engine.warn_of_stiffness(cfg.physics.contact_stiffness * cfg.vary.stiffness[1])
        torque = cfg.control == "torque"
        self.engine.model.world[C.KP], self.engine.model.world[C.KD] = (0.0, cfg.torque_kd) if torque else (cfg.kp, cfg.kd)
        self.constants = task_constants(cfg, self.robot.home_height)
        self._ranges = vary.pack(cfg.vary) if differ else None
        self._noise = np.array(dataclasses.astuple(cfg.noise), real) if cfg.noise != NoiseCfg() else None
        if self.terrain:
            spawns = self.terrain.spawns.reshape(-1, 3)
            self.set_spawns(spawns[np.arange(num_envs) % len(spawns), :2])
        self.seed, self.clock = 0, 0
        self._state = self.new_state()

    def new_state(self) -> EnvState:
        """Return an EnvState of arrays that step() can write.

        info: "privileged"; of the episodes that ended: "final_obs", "final_privileged" (rows of
        other robots are stale), "episode_return", "episode_steps".
        """
        n = self.num_envs
        info = {
            "privileged": np.zeros((n, self.num_privileged), real),
            "final_obs": np.zeros((n, self.num_obs), real),
            "final_privileged": np.zeros((n, self.num_privileged), real),
            "episode_return": np.zeros(n, real),
            "episode_steps": np.zeros(n, real),
        }
        return EnvState(np.zeros((n, self.num_obs), real), np.zeros(n, real), np.zeros(n, bool), np.zeros(n, bool), info)

    def init_state(self, seed: int = 0, staggered: bool = False) -> EnvState:
        """Start every episode; see ABEnv."""
        self.seed, self.clock = seed, 0
        s = self._state
        self._run(np.zeros((self.num_envs, self.num_actions), real), s, 0, staggered)
        s.reward[:], s.terminated[:], s.truncated[:] = 0, False, False
        return s

    def step(self, actions: np.ndarray, out: EnvState | None = None) -> EnvState:
        """Advance one control step; see ABEnv.

        Raises ValueError if actions are not (N, 12) or not finite.
        """
        actions = np.ascontiguousarray(actions, dtype=real)
        if actions.shape != (self.num_envs, self.num_actions):
            raise ValueError(f"actions: expected shape ({self.num_envs}, {self.num_actions}), got {actions.shape}")
        if not np.isfinite(actions).all():
            raise ValueError("actions: expected finite numbers")
        self.clock += 1
        return self._run(actions, out or self._state, self.cfg.substeps, False)

    def _run(self, actions: np.ndarray, s: EnvState, substeps: int, staggered: bool) -> EnvState:
        self.engine.run(
            quadruped_step.control_step, self.constants, self._ranges, self._noise, self.seed, self.clock, substeps, staggered, actions,
            s.obs, s.info["privileged"], s.info["final_obs"], s.info["final_privileged"], s.reward, s.terminated, s.truncated,
            s.info["episode_return"], s.info["episode_steps"],
        )  # fmt: skip
        return s

    def set_spawns(self, places: np.ndarray) -> None:
        """Let episodes start over places of their own from the next one on, as a curriculum does; places: (N, 2) x, y in the world [m]."""
        rows = np.zeros((self.engine.num_blocks * LANES, 2), real)
        rows[: self.num_envs] = places
        self._task_view()[:, Q.SPAWN : Q.SPAWN + 2] = rows.reshape(-1, LANES, 2).transpose(0, 2, 1)

    def _task_view(self) -> np.ndarray:
        return self.engine.blocks.reshape(self.engine.num_blocks, -1, LANES)[:, L.STATE_ROWS :]

    def compute_reward_parallel(self) -> np.ndarray:
        """Return the reward of the state as it is, (N), without the fall's term; for changed weights or states set by hand."""
        return self.engine.compute_reward_parallel(quadruped_step.reward_step, self.constants)

    def reward_terms(self) -> dict[str, np.ndarray]:
        """Return the latest reward, weighted, by term, (N) each."""
        terms = self.task_rows(Q.TERMS, Q.NUM_TERMS)
        return {field.name: terms[:, i] for i, field in enumerate(dataclasses.fields(self.cfg.reward))}

    def task_rows(self, start: int, count: int) -> np.ndarray:
        """Return (N, count), a copy of rows that the task keeps."""
        return self.engine.rows(L.STATE_ROWS + start, count)

    def errors(self) -> dict[str, np.ndarray]:
        """Return goal_distance [m], the centre of mass from its goal, and speed [m/s], horizontal."""
        offset = self.task_rows(Q.GOAL, 3) - self.task_rows(Q.COM, 3)
        speed = self.engine.rows(L.VELOCITY, 2)
        return {"goal_distance": np.linalg.norm(offset, axis=1), "speed": np.linalg.norm(speed, axis=1)}

    def push(self, velocity: np.ndarray) -> None:
        """Kick every robot at once; velocity (3) [m/s], world frame."""
        state = self.engine.get_state()
        self.engine.set_state(base_linear_velocity=state.base_linear_velocity + velocity)
        task = self._task_view()
        task[:, Q.PUSH : Q.PUSH + 3] = np.asarray(velocity, real)[:, None]
        task[:, Q.PUSH_AGE] = 0.0

    def view(self, robot: int = 0) -> dict[str, np.ndarray | None]:
        """Return what there is to draw of a robot: its state, goal (3) [m], push (3) [m/s] while recent, last_push (3)."""
        state = self.engine.get_state()
        goal = self.task_rows(Q.GOAL, 3)[robot].astype(np.float64)
        goal[:2] += self.engine.rows(L.ORIGIN, 2)[robot]
        goal[2] += self.terrain.height(*state.base_position[robot, :2]) if self.terrain else 0.0
        push = self.task_rows(Q.PUSH, 3)[robot]
        recent = self.task_rows(Q.PUSH_AGE, 1)[robot, 0] < PUSH_SHOWN
        arrays = {field.name: getattr(state, field.name)[robot] for field in dataclasses.fields(state)}
        return arrays | {"goal": goal, "push": push if recent else None, "last_push": push}
