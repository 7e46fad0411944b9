"""A policy trained in Foal, untouched, on the same robot in MuJoCo.

    python -m benchmarks.transfer --checkpoint PATH [--episodes N] [--cone elliptic] [--json] [--quick]

Runs whole episodes of the checkpoint's task with mean actions in both engines and prints survival
and the task's errors side by side; robots do not differ and are observed without error. Tasks on
terrain, of poses and with motors that are not ideal are refused.

MuJoCo keeps its default solver (100 iterations): what counts here is that it is right, not that it
is fast. Its default friction cone, a pyramid of four sides, lets a foot slip along a diagonal at
1 / sqrt(2) of the friction; Foal's is round, as is MuJoCo's "elliptic" one. Under the task's own
pushes that moves the goal's distance by some millimetres; under pushes that half of the robots do
not survive it decides over many of them.
"""

import concurrent.futures
import dataclasses
import itertools
import math

# before torch, which reads how its threads should wait when it is imported
from environments import registry  # isort: skip
import numpy as np
import torch

from benchmarks import machine
from config import NoiseCfg, QuadrupedCfg, VaryCfg
from entity import Creature
from environments import ABEnv, EnvState
from environments.quadruped import torque_ratio
from environments.quadruped.commands.velocity import COMMAND_SCALE
from environments.quadruped.fields import CONTACT_THRESHOLD
from environments.quadruped.observations import GOAL_SCALE, GOAL_SPAN, SENSED
from environments.quadruped.terms import COMMANDS
from physics import load_robot
from physics.engine import available_cores
from physics.mjcf import to_mjcf
from settings import ConfigError
from training import checkpoint
from training.evaluation import evaluate

mujoco = machine.required("mujoco")

CONES = {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC}


def require_the_same_in_mujoco(cfg: object) -> None:
    """Raise ConfigError, naming the field, where a task asks for what MujocoQuadrupeds does not do.

    Its figures would be of another task.
    """
    if not isinstance(cfg, QuadrupedCfg):
        raise ConfigError("task: expected one of a quadruped, which MuJoCo's robots can do")
    asked = (
        ("command.kind", cfg.command.kind, ("stay", "velocity", "goal"), "which MuJoCo's robots follow"),
        ("terrain.kinds", cfg.terrain.kinds, ("flat",), "which is where MuJoCo's robots are"),
        ("motor.enabled", cfg.physics.motor.enabled, (False,), "MuJoCo's motors are ideal"),
    )
    for name, value, known, why in asked:
        if value not in known:
            raise ConfigError(f"{name}: expected {' or '.join(map(str, known))}, {why}, got {value}")


class MujocoQuadrupeds(ABEnv):
    """The tasks of QuadrupedEnv in MuJoCo: N robots that live one episode each, on flat ground.

    What QuadrupedEnv does in its kernel is done here a second time, in NumPy, from its documentation:
    observation, PD law, pushes, goals, commands, start and end of an episode. Draws come from
    the same distributions by another generator. Rewards are not computed. A robot whose episode
    ended stays as it is.

    num_envs: robots N; cfg: the task; threads: 0 for every core this process may use;
    cone: of MuJoCo's foot friction, "pyramidal" or "elliptic"; joint_friction: whether the joints
    keep their dry friction.

    Raises ConfigError, naming the field, for what only QuadrupedEnv does.
    """

    num_actions = 12

    def __init__(
        self, num_envs: int, cfg: QuadrupedCfg, threads: int = 0, cone: str = "pyramidal", joint_friction: bool = True
    ) -> None:
        self.num_envs = num_envs
        self.cfg = cfg
        self.num_obs = sum(term.columns for term in (*SENSED, COMMANDS[cfg.command.kind].observation))
        require_the_same_in_mujoco(cfg)
        self.robot = load_robot(cfg.model)
        self.home = self.robot.home_joints.ravel()
        self.joint_low, self.joint_high = self.robot.joint_range.reshape(12, 2).T
        # no option: MuJoCo's default number of solver iterations
        self.model = mujoco.MjModel.from_xml_string(
            to_mjcf(self.robot, cfg.sim_dt, cfg.physics.foot_friction, "", joint_friction)
        )
        self.model.opt.cone = CONES[cone]
        self.model.opt.gravity[2] = -cfg.physics.gravity
        self.datas = [mujoco.MjData(self.model) for _ in range(num_envs)]
        self.feet = np.array([self.model.geom(leg).id for leg in ("FL", "FR", "RL", "RR")])
        torque = cfg.control == "torque"
        ratio = torque_ratio(self.robot)
        self.kp = 0.0 if torque else ratio * cfg.kp
        self.kd = ratio * (cfg.torque_kd if torque else cfg.kd)
        self.action_scale = 0.0 if torque else cfg.action_scale
        self.torque_scale = ratio * cfg.torque_scale if torque else 0.0
        self.threads = min(threads or available_cores(), num_envs)
        self.pool = concurrent.futures.ThreadPoolExecutor(self.threads)
        # what MuJoCo's data do not hold
        self.goal = np.zeros((num_envs, 3))  # world frame [m]
        self.command = np.zeros((num_envs, 3))  # forward, sideways, heading frame [m/s], yaw rate [rad/s]
        # time to the next [s]
        self.goal_in = np.zeros(num_envs)
        self.push_in = np.zeros(num_envs)
        self.command_in = np.zeros(num_envs)
        self.arrived = np.zeros(num_envs, bool)  # at a far goal, at this instant
        self.age = np.zeros(num_envs, int)  # control steps
        self.contact = np.zeros((num_envs, 4))  # 1 where a foot bears more than the threshold
        self.alive = np.ones(num_envs, bool)

    def init_state(self, seed: int = 0, staggered: bool = False) -> EnvState:
        """Start an episode of every robot: the home pose, disturbed, the lowest foot on the ground.

        Raises ValueError if staggered: robots that live once have no other ages.
        """
        if staggered:
            raise ValueError("staggered: expected False of robots that live one episode each")
        self.random = np.random.default_rng(seed)
        n = self.num_envs
        spread = self.cfg.reset
        yaw = self._uniform(math.pi, n)
        pitch = self._uniform(spread.tilt, n)
        roll = self._uniform(spread.tilt, n)
        for i, d in enumerate(self.datas):
            mujoco.mj_resetData(self.model, d)
            quaternion = np.zeros(4)
            mujoco.mju_euler2Quat(quaternion, np.array([yaw[i], pitch[i], roll[i]]), "zyx")
            d.qpos[:] = (
                0,
                0,
                self.robot.home_height,
                *quaternion,
                *(self.home + self._uniform(spread.joint_position, 12)),
            )
            d.qvel[:] = (
                *self._uniform(spread.velocity, 2),
                0,
                *self._uniform(spread.spin, 3),
                *self._uniform(spread.joint_velocity, 12),
            )
            mujoco.mj_kinematics(self.model, d)
            d.qpos[2] -= (d.geom_xpos[self.feet, 2] - self.robot.foot_radius).min()
            mujoco.mj_kinematics(self.model, d)
            mujoco.mj_comPos(self.model, d)
        self.push_in[:] = self.random.uniform(*self.cfg.push.interval, n)
        self.goal_in[:] = 0
        self.command_in[:] = 0
        self.age[:] = 0
        self.contact[:] = 0
        self.alive[:] = True
        self._new_goals()
        self._new_commands()
        state = self.new_state()
        state.obs[:] = self._observe()
        return state

    def step(self, actions: np.ndarray, out: EnvState | None = None) -> EnvState:
        """Advance one control step; actions (N, 12) as QuadrupedEnv takes them; see ABEnv."""
        actions = self.checked(actions)
        state = out or self.new_state()
        actions = np.where(np.abs(actions) < 100, actions, 0)
        targets = np.clip(self.home + self.action_scale * actions, self.joint_low, self.joint_high)
        self._push()
        living = np.flatnonzero(self.alive)
        parts = [part for part in np.array_split(living, self.threads) if len(part)]
        list(self.pool.map(self._move, parts, itertools.repeat(targets), itertools.repeat(self.torque_scale * actions)))
        self.age += self.alive
        state.terminated[:] = self.alive & self._fallen()
        state.truncated[:] = self.alive & ~state.terminated & (self.age >= self.cfg.max_episode_steps)
        self._new_goals()
        self._new_commands()
        state.obs[:] = self._observe()
        state.info["episode_steps"][:] = self.age
        self.alive &= ~state.done
        return state

    def split(self, parts: int, threads: int = 1) -> "list[MujocoQuadrupeds]":
        """Return this environment alone, which has threads of its own."""
        return [self]

    def errors(self) -> dict[str, np.ndarray]:
        """Return what QuadrupedEnv.errors returns."""
        kind = self.cfg.command.kind
        qd = np.array([d.qvel for d in self.datas])
        errors = {}
        if kind == "velocity":
            forward, left = self._to_heading(qd[:, :2]).T
            errors["velocity_error"] = np.hypot(forward - self.command[:, 0], left - self.command[:, 1])
            errors["yaw_rate_error"] = np.abs(qd[:, 5] - self.command[:, 2])
        else:
            errors["goal_distance"] = np.linalg.norm(self.goal - self._com(), axis=1)
        if kind == "goal":
            errors["goals_per_minute"] = self.arrived * 60.0 / self.cfg.ctrl_dt
        return errors | {"speed": np.linalg.norm(qd[:, :2], axis=1)}

    def _to_heading(self, v: np.ndarray) -> np.ndarray:
        """Return horizontal vectors (N, 2) in the heading frame."""
        r = np.array([d.xmat[1] for d in self.datas])  # R_WB, row by row
        heading = np.arctan2(r[:, 3], r[:, 0])
        c = np.cos(heading)
        s = np.sin(heading)
        return np.stack((c * v[:, 0] + s * v[:, 1], c * v[:, 1] - s * v[:, 0]), axis=1)

    def _uniform(self, span: float, size: int) -> np.ndarray:
        return self.random.uniform(-span, span, size)

    def _com(self) -> np.ndarray:
        """Return the centres of mass, (N, 3), world frame [m]."""
        return np.array([d.subtree_com[1] for d in self.datas])

    def _move(self, robots: np.ndarray, targets: np.ndarray, feedforward: np.ndarray) -> None:
        """Take robots through the physics steps of a control step; MuJoCo's motors cut the torque."""
        force = np.zeros(6)
        for i in robots:
            d = self.datas[i]
            target = targets[i]
            more = feedforward[i]
            q = d.qpos[7:]
            qd = d.qvel[6:]
            for _ in range(self.cfg.sim_substeps):
                d.ctrl[:] = self.kp * (target - q) - self.kd * qd + more
                mujoco.mj_step(self.model, d)
            self.contact[i] = 0
            for k in range(d.ncon):
                mujoco.mj_contactForce(self.model, d, k, force)
                foot = self.feet.tolist().index(max(d.contact.geom[k]))  # the floor is geom 0
                self.contact[i, foot] = force[:3] @ force[:3] > CONTACT_THRESHOLD**2
            # positions of the end of the step; mj_step leaves those of its beginning
            mujoco.mj_kinematics(self.model, d)
            mujoco.mj_comPos(self.model, d)

    def _push(self) -> None:
        """Kick the robots whose time has come."""
        cfg = self.cfg.push
        self.push_in -= self.cfg.ctrl_dt
        for i in np.flatnonzero((self.push_in <= 0) & self.alive):
            angle = self.random.uniform(0, 2 * math.pi)
            speed = self.random.uniform(*cfg.speed)
            self.datas[i].qvel[:2] += speed * math.cos(angle), speed * math.sin(angle)
            self.datas[i].qvel[3:6] += self._uniform(cfg.spin, 3)
            self.push_in[i] = self.random.uniform(*cfg.interval)

    def _new_goals(self) -> None:
        """Give robots whose time has come, or that reached a far goal, a new one about the middle of their feet."""
        far = self.cfg.command
        cfg = self.cfg.goal
        near = np.linalg.norm((self.goal - self._com())[:, :2], axis=1) < far.reached
        self.goal_in -= self.cfg.ctrl_dt
        self.arrived = near & (self.goal_in > 0) & (far.kind == "goal")
        for i in np.flatnonzero((self.goal_in <= 0) | self.arrived):
            d = self.datas[i]
            angle = self.random.uniform(0, 2 * math.pi)
            share = math.sqrt(self.random.uniform())
            low, high = far.distance if far.kind == "goal" else (0.0, cfg.radius)
            height = 0.0 if far.kind == "goal" else cfg.height
            distance = low + (high - low) * share
            self.goal[i, :2] = d.geom_xpos[self.feet, :2].mean(0) + (
                distance * math.cos(angle),
                distance * math.sin(angle),
            )
            self.goal[i, 2] = (
                self.robot.home_height + d.subtree_com[1, 2] - d.qpos[2] + self.random.uniform(-height, height)
            )
            self.goal_in[i] = math.inf if far.kind == "goal" else self.random.uniform(*cfg.interval)

    def _new_commands(self) -> None:
        """Give the robots whose time has come a new velocity, or lead them all to their goals."""
        cfg = self.cfg.command
        if cfg.kind == "velocity":
            self.command_in -= self.cfg.ctrl_dt
            for i in np.flatnonzero(self.command_in <= 0):
                share = self.random.uniform()
                forward, left, turn = (self.random.uniform(*span) for span in (cfg.forward, cfg.sideways, cfg.turn))
                moves = share >= cfg.standing + cfg.turning and math.hypot(forward, left) >= cfg.least
                turns = share >= cfg.standing and abs(turn) >= cfg.least
                self.command[i] = forward * moves, left * moves, turn * turns
                self.command_in[i] = self.random.uniform(*cfg.interval)
        elif cfg.kind == "goal":
            offset = self._to_heading((self.goal - self._com())[:, :2])
            distance = np.linalg.norm(offset, axis=1) + 1e-6
            self.command[:, :2] = offset * (np.minimum(cfg.cruise, cfg.gain * distance) / distance)[:, None]
            self.command[:, 2] = np.clip(cfg.gain * np.arctan2(offset[:, 1], offset[:, 0]), *cfg.turn)

    def _fallen(self) -> np.ndarray:
        """Return whose trunk is tilted, low or on the ground, (N) bool; one that is not finite too."""
        up = np.array([d.xmat[1, 6:] for d in self.datas])  # the vertical in the base frame
        z = np.array([d.qpos[2] for d in self.datas])
        corner = z - np.abs(up) @ self.robot.trunk_half_extents
        return ~(
            (up[:, 2] > math.cos(self.cfg.fall_tilt))
            & (z > self.cfg.fall_height * self.robot.home_height)
            & (corner > 0)
        )

    def _observe(self) -> np.ndarray:
        """Return observations (N, 37), columns as QuadrupedEnv documents them."""
        q = np.array([d.qpos for d in self.datas])
        qd = np.array([d.qvel for d in self.datas])
        r = np.array([d.xmat[1] for d in self.datas])  # R_WB, row by row
        sensed = {
            "joint_angles": q[:, 7:] - self.home,
            "joint_speeds": qd[:, 6:],
            "contacts": self.contact,
            "gravity_direction": -r[:, 6:],
            "angular_velocity": qd[:, 3:6],
        }
        obs = np.concatenate([*(term.scale * sensed[term.name] for term in SENSED), self._asked()], axis=1)
        return np.where(np.abs(obs) < 1e3, obs, 0).astype(np.float32)

    def _asked(self) -> np.ndarray:
        """Return what the observation says of the command (N, 3)."""
        kind = self.cfg.command.kind
        reach = self.cfg.goal.reach
        if kind == "velocity":
            return self.command * (COMMAND_SCALE, COMMAND_SCALE, 1)
        offset = self.goal - self._com()
        flat = self._to_heading(offset[:, :2])
        flat = flat * np.minimum(1, reach / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6))
        return np.column_stack(
            ((GOAL_SPAN / reach if kind == "goal" else GOAL_SCALE) * flat, GOAL_SCALE * offset[:, 2])
        )


def evaluate_in_mujoco(
    creature: Creature, cfg: QuadrupedCfg, episodes: int, seed: int, cone: str = "pyramidal"
) -> dict[str, float]:
    """Return what evaluation.evaluate returns, without the return, for episodes in MuJoCo; creature on the CPU."""
    result = evaluate(creature, MujocoQuadrupeds(episodes, cfg, cone=cone), seed, torch.device("cpu"))
    del result["mean_return"]
    return result


def compare(
    creature: Creature, task: str, cfg: QuadrupedCfg, episodes: int, seed: int = 0, cone: str = "pyramidal"
) -> dict[str, float]:
    """Return the results of both engines, each key with _foal or _mujoco behind it, and episodes.

    creature: on the CPU; task: name; episodes: in each engine; cone: of MuJoCo's foot friction.
    """
    cfg = dataclasses.replace(cfg, vary=VaryCfg(), noise=NoiseCfg())
    env = registry.make(task, num_envs=episodes, cfg=cfg)
    ours = evaluate(creature, env, seed, torch.device("cpu"))
    theirs = evaluate_in_mujoco(creature, cfg, episodes, seed, cone)
    result = {"episodes": theirs.pop("episodes")}
    for name, value in theirs.items():
        result |= {f"{name}_foal": float(ours[name]), f"{name}_mujoco": float(value)}
    return result


def main() -> None:
    """Compare a checkpoint in both engines and print the table."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--checkpoint", required=True, help="file that training wrote")
    options.add_argument(
        "--episodes", type=int, default=0, help="in each engine; 256, or 64 with --quick, if not given"
    )
    options.add_argument("--seed", type=int, default=0, help="of starts, pushes and goals")
    options.add_argument("--cone", choices=CONES, default="pyramidal", help="MuJoCo's friction cone")
    args = options.parse_args()
    if args.episodes < 0:
        options.error(f"--episodes: expected a whole number of at least 1, got {args.episodes}")
    torch.set_num_threads(1)
    try:
        saved = checkpoint.load(args.checkpoint)
        require_the_same_in_mujoco(saved.config.env)
        creature = saved.creature(registry.make(saved.config.task, num_envs=1, cfg=saved.config.env))
    except ConfigError as error:
        options.error(str(error))
    result = compare(
        creature,
        saved.config.task,
        saved.config.env,
        args.episodes or (64 if args.quick else 256),
        args.seed,
        args.cone,
    )
    about = machine.describe("mujoco", "torch", "numba", "numpy")
    names = [name.removesuffix("_foal") for name in result if name.endswith("_foal")]
    rows = [
        ("", "Foal", "MuJoCo"),
        *((name, f"{result[f'{name}_foal']:.3f}", f"{result[f'{name}_mujoco']:.3f}") for name in names),
    ]
    machine.table(f"{saved.config.task}, {result['episodes']} episodes in each engine", rows, about)
    if args.json:
        machine.print_json(
            result | {"task": saved.config.task, "cone": args.cone, "checkpoint": str(args.checkpoint)} | about
        )


if __name__ == "__main__":
    main()
