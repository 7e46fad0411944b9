"""The quadruped's environment: it keeps its balance, moves as commanded or goes from goal to goal, and is pushed."""

import copy
import dataclasses
import itertools
import math
from functools import cached_property

import numpy as np

from config import ConfigError, NoiseCfg, QuadrupedCfg, TerrainCfg, VaryCfg
from environments import quadruped_rows as Q
from environments import quadruped_step
from environments.contracts import ABEnv, Body, EnvState, Mirror, Node
from physics import PhysicsEngine, Robot, load_robot, vary
from physics import constants as C
from physics import layout as L
from physics.jit import LANES, real
from physics.terrain import Terrain, curriculum

PLATFORM = 2.0  # least side of the level middle of a tile, but at most a quarter of the tile [m]
BORDER = 4.0  # least width of the level ground around the tiles [m]
PUSH_SHOWN = 0.4  # how long view() gives a push [s]


GO1 = 12.743448 * 0.2878  # weight and height of the robot that gains and torques are given for [kg m]
WALKING = {"velocity_error": (-math.inf, 0.15), "yaw_rate_error": (-math.inf, 0.15)}  # what counts as learnt [m/s], [rad/s]
ARRIVING = {"at_goal": (0.5, math.inf)}  # share of time
ANYWHERE = 1e9  # a bound beyond every place [m], and a time that does not come [s]


def torque_ratio(robot: Robot) -> float:
    """Return how much greater the torques are that bear a robot than the Go1's, by weight and height, to 1 %."""
    return round(robot.total_mass * robot.home_height / GO1, 2)


def task_constants(cfg: QuadrupedCfg, robot: Robot, terrain: Terrain | None = None) -> np.ndarray:
    """Return the task's numbers in the order of quadruped_rows, (TASK_CONSTANTS)."""
    home_height, ratio = robot.home_height, torque_ratio(robot)
    weights = cfg.reward.weights | {"torque": cfg.reward.torque / ratio**2}
    torque, kind, ask = cfg.control == "torque", cfg.command.kind, cfg.command
    none = (0.0, 0.0)
    low, high = np.full(2, -ANYWHERE), np.full(2, ANYWHERE)
    if kind in ("goal", "pose"):
        often = (ANYWHERE, ANYWHERE) if kind == "goal" else cfg.goal.interval
        goals = *ask.distance, 0.0, *often, cfg.goal.reach, ask.reached
        if terrain:
            middles = terrain.spawns[..., :2].reshape(-1, 2)
            low, high = middles.min(0) - cfg.terrain.tile / 2, middles.max(0) + cfg.terrain.tile / 2
    else:
        goals = 0.0, cfg.goal.radius, cfg.goal.height, *cfg.goal.interval, cfg.goal.reach, 0.0
    senses = {
        "stay": (Q.GOAL_SCALE, Q.GOAL_SCALE, 0.0, 0.0, 0.0),
        "velocity": (0.0, 0.0, Q.COMMAND_SCALE, Q.TURN_SCALE, 0.0),
        "goal": (Q.GOAL_SPAN / cfg.goal.reach, Q.GOAL_SCALE, 0.0, 0.0, 0.0),
        "pose": (Q.GOAL_SPAN / cfg.goal.reach, 0.0, 0.0, 0.0, 1.0),
    }
    values = [
        cfg.ctrl_dt, cfg.max_episode_steps, 0.0 if torque else cfg.action_scale, ratio * cfg.torque_scale if torque else 0.0, float(torque),
        math.cos(cfg.fall_tilt), cfg.fall_height * home_height,
        cfg.reset.joint_position, cfg.reset.joint_velocity, cfg.reset.tilt, cfg.reset.velocity, cfg.reset.spin,
        *cfg.push.speed, cfg.push.spin, *cfg.push.interval,
        *goals, *low, *high,
        *(ask.forward if kind == "velocity" else none), *(ask.sideways if kind == "velocity" else none), *(none if kind == "stay" else ask.turn),
        *ask.interval, ask.standing, ask.turning, ask.least, {"goal": 1.0, "pose": 2.0}.get(kind, 0.0), ask.cruise, ask.gain,
        *senses[kind], ask.facing, ask.still,
        1.0, 1.0,
        cfg.reward.sharp, cfg.reward.wide, *weights.values(),
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


def _mirror(*parts: tuple[str, int]) -> Mirror:
    """Return the mirror of a vector that is made up of parts, each of a kind and a first column.

    Kinds: joints (12), feet (4), vector (3), turn (3) about each axis, command (3) forward, sideways, about z, number (1).
    """
    sides = [1, 0, 3, 2]
    joints = [3 * leg + j for leg in sides for j in range(3)]
    images = {
        "joints": (joints, [-1, 1, 1] * 4), "feet": (sides, [1] * 4), "number": ([0], [1]),
        "vector": ([0, 1, 2], [1, -1, 1]), "turn": ([0, 1, 2], [-1, 1, -1]), "command": ([0, 1, 2], [1, -1, -1]),
    }  # fmt: skip
    columns, signs = [], []
    for kind, first in parts:
        columns += [first + column for column in images[kind][0]]
        signs += map(float, images[kind][1])
    return Mirror(tuple(columns), tuple(signs))


def _body(kind: str) -> Body:
    """Return trunk and left legs, and how the robot looks in a mirror; kind: of command."""
    trunk = Node("trunk", tuple(range(Q.OBS_GRAVITY, Q.NUM_OBS)))
    legs = []
    for leg in (0, 2):
        columns = [Q.OBS_JOINT + 3 * leg + j for j in range(3)] + [Q.OBS_SPEED + 3 * leg + j for j in range(3)] + [Q.OBS_CONTACT + leg]
        legs.append(Node("leg", tuple(columns)))
    obs = _mirror(
        ("joints", Q.OBS_JOINT), ("joints", Q.OBS_SPEED), ("feet", Q.OBS_CONTACT), ("vector", Q.OBS_GRAVITY), ("turn", Q.OBS_SPIN),
        ("command" if kind in ("velocity", "pose") else "vector", Q.OBS_GOAL),
    )  # fmt: skip
    privileged = _mirror(
        ("vector", Q.PRIV_VELOCITY), ("number", Q.PRIV_HEIGHT), ("joints", Q.PRIV_ACTION), ("number", Q.PRIV_FRICTION), ("number", Q.PRIV_TRUNK_MASS),
        ("feet", Q.PRIV_FOOT_HEIGHT), ("feet", Q.PRIV_AIR_TIME), ("feet", Q.PRIV_FORCE),
        ("vector", Q.PRIV_PUSH), ("turn", Q.PRIV_KICK), ("number", Q.PRIV_PUSH_IN),
    )  # fmt: skip
    return Body((trunk, *legs), obs, privileged, _mirror(("joints", 0)))


class QuadrupedEnv(ABEnv):
    """N quadrupeds that do what cfg.command.kind says, whatever shoves them.

    "stay": hold the centre of mass at a goal near the feet. "velocity": move at commanded velocities,
    which are drawn anew now and then. "goal": go to places metres away, each followed by the next
    when the centre of mass comes near. "pose": go to such a place and stand there, facing as asked,
    until the next follows after a while.

    Observation (37), float32, all of it measurable on a robot:
      0-11   joint angle less home angle [rad], FL FR RL RR, each hip, thigh, calf
      12-23  joint velocity [rad/s] x 0.05
      24-27  foot contact: 1 if more than 1 N, else 0
      28-30  direction of gravity, base frame
      31-33  angular velocity [rad/s], base frame, x 0.25
      34-36  what is asked, in the heading frame (x axis that of the base, projected on the ground):
             "stay"      goal less centre of mass [m] x 5, horizontally shortened to goal.reach
             "goal"      the same, horizontally x 1.5 / goal.reach
             "velocity"  commanded velocity, forward and to the left [m/s] x 2, and yaw rate [rad/s]
             "pose"      goal less centre of mass, horizontally, as "goal"; angle to the heading asked for [rad]
    Action (12): with control "pd" joint targets, home + action_scale * action [rad], kept within the
    joint ranges, turned into torques kp (target - q) - kd qd at every physics step; with "torque"
    motor torques hold + torque_scale * action - torque_kd qd [N m], hold being what bears the home
    pose (Robot.hold_torques). Both are cut at the torque limits. kp, kd, torque_scale and torque_kd are a Go1's;
    a heavier or taller robot's are torque_ratio() times those.
    Privileged observation (37), info["privileged"], for the critic:
      0-2    base velocity, base frame [m/s]
      3      height above the ground less home height [m] x 10
      4-15   latest action
      16-17  foot friction and trunk mass, times the model's; 1 where robots do not differ
      18-21  height of each foot's lowest point above the ground [m] x 10
      22-25  time that each foot has been in the air [s]
      26-29  vertical contact force on each foot over the robot's weight
      30-36  velocity, base frame [m/s], and angular velocity [rad/s] that the next push will add, and the time until then [s]

    The robot looks alike from left and right, nearly: ``body`` holds the mirrors of all three.
    Commands of "goal" lead straight to the goal, at min(cruise, gain * distance), with a yaw rate of
    gain * bearing within command.turn, those of "pose" the same way, turning to the heading asked for
    on the way and standing at the goal; they serve the reward and are not observed.
    """

    num_obs, num_actions, num_privileged, kernel = Q.NUM_OBS, 12, Q.NUM_PRIVILEGED, "control_step"

    @property
    def targets(self) -> dict[str, tuple[float, float]]:
        """What walking counts as learnt by."""
        return {"velocity": WALKING, "pose": ARRIVING}.get(self.cfg.command.kind, {})

    def __init__(self, cfg: QuadrupedCfg, num_envs: int = 1, threads: int = 0) -> None:
        self.cfg, self.num_envs = cfg, num_envs
        self.robot = load_robot(cfg.model)
        self.terrain = _terrain(cfg.terrain)
        differ = cfg.vary != VaryCfg()
        self.engine = PhysicsEngine(self.robot, num_envs, cfg.sim_dt, threads, cfg.physics, self.terrain, differ, Q.TASK_ROWS, Q.TASK_WORK_ROWS)
        if differ:
            self.engine.warn_of_stiffness(cfg.physics.contact_stiffness * cfg.vary.stiffness[1])
        torque = cfg.control == "torque"
        gains = (0.0, cfg.torque_kd) if torque else (cfg.kp, cfg.kd)
        self.engine.model.world[[C.KP, C.KD]] = torque_ratio(self.robot) * np.array(gains)
        self.constants = task_constants(cfg, self.robot, self.terrain)
        self._ranges = vary.pack(cfg.vary) if differ else None
        self._noise = np.array(dataclasses.astuple(cfg.noise), real) if cfg.noise != NoiseCfg() else None
        if self.terrain:
            spawns = self.terrain.spawns.reshape(-1, 3)
            self.set_spawns(spawns[np.arange(num_envs) % len(spawns), :2])
        self.seed, self.clock, self.started = 0, 0, False
        self._state = self.new_state()

    @cached_property
    def body(self) -> Body:
        """Trunk and legs, and how the robot looks in a mirror."""
        return _body(self.cfg.command.kind)

    def init_state(self, seed: int = 0, staggered: bool = False) -> EnvState:
        """Start every episode; see ABEnv."""
        self.seed, self.clock, self.started = seed, 0, True
        s = self._state
        self._run(np.zeros((self.num_envs, self.num_actions), real), s, 0, staggered)
        s.reward[:], s.terminated[:], s.truncated[:] = 0, False, False
        return s

    def step(self, actions: np.ndarray, out: EnvState | None = None) -> EnvState:
        """Advance one control step; see ABEnv.

        Raises ValueError before init_state(), and if actions are not (N, 12) or not finite.
        """
        if not self.started:
            raise ValueError("step: expected init_state() before the first step")
        actions = self.checked(actions)
        self.clock += 1
        return self._run(actions, out or self._state, self.cfg.sim_substeps, False)

    def _run(self, actions: np.ndarray, s: EnvState, substeps: int, staggered: bool) -> EnvState:
        self.engine.run(
            quadruped_step.control_step, self.constants, self._ranges, self._noise, self.seed, self.clock, self.engine.first_robot,
            substeps, staggered, actions,
            s.obs, s.info["privileged"], s.info["final_obs"], s.info["final_privileged"], s.reward, s.terminated, s.truncated,
            s.info["episode_return"], s.info["episode_steps"],
        )  # fmt: skip
        s.data = self.engine
        return s

    def split(self, parts: int, threads: int = 1) -> "list[QuadrupedEnv]":
        """Return the robots as at most so many environments of whole blocks, in order; see ABEnv.

        Each has a clock and a seed of its own, from this one's on; levels are common to all.

        Raises ValueError if parts is below 1.
        """
        if parts < 1:
            raise ValueError(f"parts: expected a whole number of at least 1, got {parts!r}")
        blocks = self.engine.num_blocks
        bounds = np.linspace(0, blocks, min(parts, blocks) + 1).astype(int).tolist()
        result = []
        for first, last in itertools.pairwise(bounds):
            part = copy.copy(self)
            part.engine = self.engine.part(first, last, threads)
            part.num_envs = part.engine.num_envs
            part._state = part.new_state()
            result.append(part)
        return result

    def set_level(self, push: float = 1.0, command: float = 1.0) -> None:
        """Scale pushes, and commands drawn from now on, or towards goals; see ABEnv.

        Raises ValueError for a level that is not finite or below 0.
        """
        for name, level in (("push", push), ("command", command)):
            if not 0 <= level < math.inf:
                raise ValueError(f"{name}: expected a finite number of at least 0, got {level}")
        self.constants[[Q.PUSH_LEVEL, Q.COMMAND_LEVEL]] = push, command

    def set_spawns(self, places: np.ndarray) -> None:
        """Let episodes start over places of their own from the next one on, as a curriculum does; places: (N, 2) x, y in the world [m]."""
        rows = np.zeros((self.engine.num_blocks * LANES, 2), real)
        rows[: self.num_envs] = places
        self._task_view()[:, Q.SPAWN : Q.SPAWN + 2] = rows.reshape(-1, LANES, 2).transpose(0, 2, 1)

    def _task_view(self) -> np.ndarray:
        return self.engine.blocks.reshape(self.engine.num_blocks, -1, LANES)[:, L.STATE_ROWS :]

    def add_reward(self, state: EnvState, more: np.ndarray) -> None:
        """Add to the reward (N) of the step just taken, for tasks of one's own; not where it ended an episode, whose robot is elsewhere already."""
        more = np.where(state.done, 0.0, more).astype(real)
        state.reward += more
        returns = np.zeros(self.engine.num_blocks * LANES, real)
        returns[: self.num_envs] = more
        self._task_view()[:, Q.RETURN] += returns.reshape(-1, LANES)

    def compute_reward_parallel(self) -> np.ndarray:
        """Return the reward of the state as it is, (N), without the fall's term; for changed weights or states set by hand."""
        return self.engine.compute_reward_parallel(quadruped_step.reward_step, self.constants)

    def reward_terms(self) -> dict[str, np.ndarray]:
        """Return the latest reward, weighted, by term, (N) each."""
        terms = self.task_rows(Q.TERMS, Q.NUM_TERMS)
        return {name: terms[:, i] for i, name in enumerate(self.cfg.reward.weights)}

    def task_rows(self, start: int, count: int) -> np.ndarray:
        """Return (N, count), a copy of rows that the task keeps."""
        return self.engine.rows(L.STATE_ROWS + start, count)

    def errors(self) -> dict[str, np.ndarray]:
        """Return the task's errors of this instant, (N) each.

        speed: horizontal [m/s]. "velocity": velocity_error, horizontal [m/s], and yaw_rate_error [rad/s]. Others: goal_distance,
        the centre of mass from its goal [m]. "goal" and "pose": goals_per_minute, what one reached at this instant makes of it,
        so that its mean over time is the rate [1/min]. "pose": heading_error [rad], and at_goal, 1 where it is near and faces as asked.
        """
        kind = self.cfg.command.kind
        errors = {}
        if kind == "velocity":
            missed = self.heading_velocity() - self.task_rows(Q.COMMAND, 3)
            errors = {"velocity_error": np.linalg.norm(missed[:, :2], axis=1), "yaw_rate_error": np.abs(missed[:, 2])}
        else:
            errors["goal_distance"] = np.linalg.norm(self.task_rows(Q.GOAL, 3) - self.task_rows(Q.COM, 3), axis=1)
        if kind == "pose":
            errors["heading_error"], errors["at_goal"] = np.abs(self.task_rows(Q.HEADING_ERROR, 1)[:, 0]), self.task_rows(Q.AT_GOAL, 1)[:, 0]
        if kind in ("goal", "pose"):
            errors["goals_per_minute"] = self.task_rows(Q.ARRIVED, 1)[:, 0] * (60.0 / self.cfg.ctrl_dt)
        return errors | {"speed": np.linalg.norm(self.engine.rows(L.VELOCITY, 2), axis=1)}

    def heading_velocity(self) -> np.ndarray:
        """Return (N, 3): forward and sideways velocity of the base, heading frame [m/s], and yaw rate [rad/s], as a command asks for them."""
        w, x, y, z = self.engine.rows(L.QUATERNION, 4).T
        ahead, aside = 1 - 2 * (y * y + z * z), 2 * (x * y + w * z)
        length = np.sqrt(ahead * ahead + aside * aside + 1e-12)
        c, s = ahead / length, aside / length
        vx, vy = self.engine.rows(L.VELOCITY, 2).T
        return np.stack([c * vx + s * vy, c * vy - s * vx, self.engine.rows(L.SPIN + 2, 1)[:, 0]], axis=1)

    def push(self, velocity: np.ndarray) -> None:
        """Kick every robot at once; velocity (3) [m/s], world frame."""
        state = self.engine.get_state()
        self.engine.set_state(base_linear_velocity=state.base_linear_velocity + velocity)
        task = self._task_view()
        task[:, Q.PUSH : Q.PUSH + 3] = np.asarray(velocity, real)[:, None]
        task[:, Q.PUSH_AGE] = 0.0

    def motion(self, everything: np.ndarray) -> dict[str, np.ndarray]:
        """Return what observations and privileged ones (N, 74), seen or expected, say of bodies.

        joint_position: (N, 12) [rad]; gravity: (N, 3) its direction, spin: (N, 3) [rad/s] and velocity: (N, 3) [m/s], base
        frame; height: (N) of the base above the ground [m].
        """
        x, p = np.asarray(everything, float), Q.NUM_OBS
        return {
            "joint_position": x[:, Q.OBS_JOINT : Q.OBS_JOINT + 12] + self.robot.home_joints.ravel(), "gravity": x[:, Q.OBS_GRAVITY : Q.OBS_GRAVITY + 3],
            "spin": x[:, Q.OBS_SPIN : Q.OBS_SPIN + 3] / Q.SPIN_SCALE, "velocity": x[:, p + Q.PRIV_VELOCITY : p + Q.PRIV_VELOCITY + 3],
            "height": x[:, p + Q.PRIV_HEIGHT] / Q.HEIGHT_SCALE + self.robot.home_height,
        }  # fmt: skip

    def hud(self, robot: int = 0) -> tuple[tuple[str, str], ...]:
        """Return what a picture tells of a robot; see ABEnv."""
        kind, view, errors = self.cfg.command.kind, self.view(robot), {name: float(error[robot]) for name, error in self.errors().items()}
        moves = {name: "{:+.2f} {:+.2f} m/s {:+.2f} rad/s".format(*view[name]) for name in ("command", "velocity") if view[name] is not None}
        if kind == "stay":
            rows = {"goal distance": f"{100 * errors['goal_distance']:.1f} cm", "speed": f"{errors['speed']:.2f} m/s"}
        elif kind == "velocity":
            rows = moves | {"velocity error": f"{errors['velocity_error']:.2f} m/s"}
        else:
            rows = {"goal distance": f"{errors['goal_distance']:.2f} m", "goals reached": str(view["goals"])} | moves
        if kind == "pose":
            rows |= {"heading error": f"{math.degrees(errors['heading_error']):.0f} deg"}
        return (*rows.items(), ("last push", f"{float(np.linalg.norm(view['last_push'])):.2f} m/s"))

    def view(self, robot: int = 0) -> dict[str, np.ndarray | None]:
        """Return what there is to draw of a robot.

        Its state; goal (3) [m], or None; push (3) [m/s] while recent, last_push (3); command and
        velocity (3), forward, sideways [m/s] and yaw rate [rad/s], command None for "stay"; goals,
        how many it has reached.
        """
        state, kind = self.engine.get_state(), self.cfg.command.kind
        goal = self.task_rows(Q.GOAL, 3)[robot].astype(np.float64)
        goal[:2] += self.engine.rows(L.ORIGIN, 2)[robot]
        below = goal[:2] if kind in ("goal", "pose") else state.base_position[robot, :2]
        goal[2] += self.terrain.height(*below) if self.terrain else 0.0
        push = self.task_rows(Q.PUSH, 3)[robot]
        recent = self.task_rows(Q.PUSH_AGE, 1)[robot, 0] < PUSH_SHOWN and push.any()
        arrays = {field.name: getattr(state, field.name)[robot] for field in dataclasses.fields(state)}
        return arrays | {
            "goal": None if kind == "velocity" else goal, "push": push if recent else None, "last_push": push,
            "command": None if kind == "stay" else self.task_rows(Q.COMMAND, 3)[robot], "velocity": self.heading_velocity()[robot],
            "goals": int(self.task_rows(Q.GOALS, 1)[robot, 0]),
        }  # fmt: skip
