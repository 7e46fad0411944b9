r"""PhysicsEngine: many robots in blocks, stepped by compiled code on a pool of threads.

     robots 0..31   32..63   64..95  96..127 128..159
    +-----------+--------+--------+--------+--------+
    |  block 0  |   1    |   2    |   3    |   4    |   blocks (B, rows * LANES), one array
    +-----------+--------+--------+--------+--------+
     \______ thread 0 ______/ \_____ thread 1 _____/    each enters compiled code once per call,
                                                        without the GIL, with a work buffer of its own

A block is computed by the same instructions whichever thread has it: results have the same bits
for any number of threads.
"""

import copy
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from config import PhysicsCfg, VaryCfg
from host import Pool, available_cores
from physics import constants
from physics import layout as L
from physics import simulation_step as S
from physics.actuator import command_step
from physics.contact import largest_timestep
from physics.jit import LANES, address, aligned, real, typeof, types
from physics.robot import Robot
from physics.terrain import Terrain
from physics.vary import draw_varied, pack, vary_step

TIMESTEP = 0.004  # [s]


@dataclass(frozen=True)
class State:
    """The robots' state, arrays over N robots."""

    base_position: np.ndarray  # (N, 3) base origin, world frame, float64 [m]
    base_quaternion: np.ndarray  # (N, 4) R_WB as w x y z
    joint_position: np.ndarray  # (N, 12) [rad]
    base_linear_velocity: np.ndarray  # (N, 3) of the base origin, world frame [m/s]
    base_angular_velocity: np.ndarray  # (N, 3) base frame [rad/s]
    joint_velocity: np.ndarray  # (N, 12) [rad/s]
    foot_contact_force: np.ndarray  # (N, 4, 3) on the foot, world frame [N]


MOST_LACKING = 14.0  # of lacks_inertia(), beyond which joints were seen to shake


# Rows of every state: first row, count, and whether it is kept once per leg; base_position counts from origin.
_FIELDS = {
    "base_position": (L.POSITION, 3, False), "base_quaternion": (L.QUATERNION, 4, False),
    "origin": (L.ORIGIN, 2, False),
    "base_linear_velocity": (L.VELOCITY, 3, False), "base_angular_velocity": (L.SPIN, 3, False),
    "joint_position": (L.JOINT, 3, True), "joint_velocity": (L.JOINT_SPEED, 3, True),
    "torque": (L.TORQUE, 3, True), "target": (L.TARGET, 3, True), "force": (L.FORCE, 3, True),
}  # fmt: skip


class PhysicsEngine:
    """Simulates robots of one kind side by side.

    robot: from load_robot(); num_envs: robots N; timestep: [s];
    threads: 0 for every core this process may use; cfg: the world; terrain: the ground, over whose
    spawns robots start in turn, None for a flat floor; differ: whether robots may differ (domain
    randomisation), in what vary() draws; joints_differ: in friction and damping of joints too; draw: at
    once, as the model is, else whoever restarts them draws; extra_rows and extra_work_rows: rows that a task keeps per
    robot beside the state, and beside the work buffer.

    Raises ValueError if an argument is out of range, and TypeError if terrain is no Terrain; warns of a
    time step too large for the contacts' stiffness (contact.largest_timestep).
    """

    def __init__(
        self,
        robot: Robot,
        num_envs: int = 1,
        timestep: float = TIMESTEP,
        threads: int = 0,
        cfg: PhysicsCfg | None = None,
        terrain: Terrain | None = None,
        differ: bool = False,
        joints_differ: bool = False,
        draw: bool = True,
        extra_rows: int = 0,
        extra_work_rows: int = 0,
    ) -> None:
        cfg = cfg or PhysicsCfg()
        if num_envs < 1:
            raise ValueError(f"num_envs: expected at least 1, got {num_envs}")
        if not 0 < timestep <= 0.05:
            raise ValueError(f"timestep: expected a number of seconds in (0, 0.05], got {timestep}")
        if threads < 0:
            raise ValueError(f"threads: expected at least 0, got {threads}")
        if terrain is not None and not isinstance(terrain, Terrain):
            raise TypeError(
                f"terrain: expected a Terrain, as those of physics.terrain, or None, got {type(terrain).__name__}"
            )
        self.robot = robot
        carried = robot.carrying(cfg.payload)
        self.num_envs = num_envs
        self.timestep = timestep
        self.cfg = cfg
        self.warn_of_stiffness(cfg.contact_stiffness)
        self.num_blocks = -(-num_envs // LANES)
        self.first_robot = 0  # its number in the whole of which this engine is a part
        self.blocks = aligned(self.num_blocks, (L.STATE_ROWS + extra_rows) * LANES)
        self.terrain = terrain
        motors = constants.motor_constants(cfg.motor, timestep) if cfg.motor.enabled else None
        self.model = constants.Model(
            constants.world_constants(cfg, timestep), constants.base_constants(carried),
            constants.leg_constants(robot),
            terrain.pack() if terrain else None, True if cfg.body_contact else None, motors,
            aligned(self.num_blocks, L.MOTOR_ROWS * LANES) if cfg.motor.enabled else None,
            aligned(self.num_blocks, L.VARIED_ROWS * LANES) if differ else None, True if joints_differ else None,
        )  # fmt: skip
        self._start_threads(threads, L.WORK_ROWS + extra_work_rows)
        n = self.num_blocks * LANES
        home = np.tile(robot.home_joints.ravel(), (n, 1))
        spawns = np.zeros((1, 3)) if terrain is None else terrain.spawns.reshape(-1, 3)
        self._place(spawns[np.arange(n) % len(spawns)] + [0.0, 0.0, robot.home_height])
        self.put("base_quaternion", np.tile([1.0, 0.0, 0.0, 0.0], (n, 1)))
        self.put("joint_position", home)
        self.put("target", home)
        if self.model.motor_blocks is not None:  # what there is of a command has long arrived
            self.model.motor_blocks.reshape(self.num_blocks, -1, LANES)[:, L.COMMAND_AGE] = 1e3
        if differ and draw:
            self.vary(VaryCfg())

    @cached_property
    def advance_address(self) -> int:
        """Where the compiled equations of motion are: simulation_step.advance."""
        return address(S.advance, typeof(self.work[0]), typeof(self.model), types.int64)

    @cached_property
    def draw_address(self) -> int:
        """Where compiled vary.draw_varied() is; 0 where robots do not differ."""
        if self.model.varied_blocks is None:
            return 0
        array = typeof(self.work[0])
        whole = types.int64
        return address(draw_varied, array, typeof(self.model), typeof(pack(VaryCfg())), whole, whole, whole, array)

    def _start_threads(self, threads: int, work_rows: int) -> None:
        """Set up threads, 0 for every core, and their work buffers."""
        self.threads = max(1, min(threads or available_cores(), self.num_blocks))
        self.work = [aligned(work_rows * LANES) for _ in range(self.threads)]
        self._lead = 0  # blocks that the calling thread takes beyond an even share
        # the calling thread takes a share too
        self._pool = Pool(self.threads - 1, "physics") if self.threads > 1 else None

    def part(self, first: int, last: int, threads: int = 1) -> "PhysicsEngine":
        """Return an engine of the robots of blocks first to last - 1 alone, with threads of its own.

        Its state is the same, not a copy. Parts without a block in common may be used at the same time; robots draw
        what they would draw in the whole.

        threads: 0 for every core this process may use.

        Raises ValueError if there are no such blocks.
        """
        if not 0 <= first < last <= self.num_blocks:
            raise ValueError(f"part: expected blocks within 0 and {self.num_blocks}, got {first} to {last}")
        part = copy.copy(self)
        part.num_blocks = last - first
        part.first_robot = self.first_robot + first * LANES
        part.num_envs = min(self.num_envs - first * LANES, part.num_blocks * LANES)
        part.blocks = self.blocks[first:last]
        own = {
            name: blocks[first:last]
            for name in ("motor_blocks", "varied_blocks")
            if (blocks := getattr(self.model, name)) is not None
        }
        part.model = self.model._replace(**own)
        part._start_threads(threads, len(self.work[0]) // LANES)
        return part

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that hold every robot's state, not copied, by name."""
        found = {"blocks": self.blocks} | {
            name: getattr(self.model, name) for name in ("motor_blocks", "varied_blocks")
        }
        return {name: array for name, array in found.items() if array is not None}

    def run(self, kernel: Callable, *arguments: object) -> None:
        """Call kernel(blocks, start, stop, work, model, *arguments) for every share of the blocks, in parallel.

        The calling thread begins some 0.1 ms before the others have woken up; its share grows by a
        block whenever it had to wait for them, and shrinks whenever it had not. On two threads 4096
        environments of the balance task step in 1.27 ms by this, in 1.42 ms with even shares.
        """
        shares = [
            (self.blocks, *share, work, self.model, *arguments)
            for share, work in zip(self._shares(), self.work, strict=True)
        ]
        futures = [self._pool.submit(kernel, *share) for share in shares[1:]] if self._pool else []
        kernel(*shares[0])
        late = not all(future.done() for future in futures)
        for future in futures:
            future.result()
        most = self.num_blocks - self.num_blocks // self.threads - (self.threads - 1)
        self._lead = min(max(self._lead + (1 if late else -1), 0), max(most, 0))

    def compile(self, kernel: Callable, *arguments: object) -> None:
        """Have a kernel compiled for what run() would call it with."""
        first = self.blocks, 0, self.num_blocks, self.work[0], self.model
        kernel.compile(tuple(typeof(x) for x in (*first, *arguments)))

    def _shares(self) -> list[tuple[int, int]]:
        """Return first block and end of every thread's share."""
        blocks = self.num_blocks
        others = self.threads - 1
        if not others:
            return [(0, blocks)]
        first = blocks // self.threads + self._lead
        bounds = [0, *(first + (blocks - first) * i // others for i in range(others)), blocks]
        return list(itertools.pairwise(bounds))

    def compute_reward_parallel(self, kernel: Callable, *arguments: object) -> np.ndarray:
        """Return the reward (N) of every robot's state as it is.

        kernel: a task's, called as run() calls it, with an array (N) to write as its last argument.
        """
        out = np.zeros(self.num_envs, real)
        self.run(kernel, *arguments, out)
        return out

    def vary(self, cfg: VaryCfg, seed: int = 0) -> None:
        """Draw what robots differ in anew, for every robot; the same for the same seed and robot.

        Raises ValueError if the engine was made with robots that may not differ.
        """
        if self.model.varied_blocks is None:
            raise ValueError("vary: expected an engine made with differ=True")
        if cfg.stiffness[1] > 1:
            self.warn_of_stiffness(cfg.stiffness[1] * self.cfg.contact_stiffness)
        self.run(vary_step, self.draw_address, pack(cfg), int(seed), self.first_robot)

    def step(self, substeps: int = 1) -> None:
        """Advance every robot by a number of time steps under the held motor torques.

        Raises ValueError if substeps is not a whole number of at least 1.
        """
        if not isinstance(substeps, (int, np.integer)) or substeps < 1:
            raise ValueError(f"substeps: expected a whole number of at least 1, got {substeps!r}")
        self.run(S.simulation_step, self.advance_address, int(substeps))

    def apply_motor_torques(self, torques: np.ndarray) -> None:
        """Hold motor torques until changed; beyond a motor's limit they are cut.

        torques: (N, 12) [N m]. They arrive after the motors' delay, unless others follow sooner: those take their
        place.

        Raises ValueError for another shape or a value that is not finite.
        """
        checked = self._checked("torques", torques, 12)
        if self.model.motor_blocks is not None:
            self.run(command_step)
        self.put("torque", checked)

    def set_joint_targets(self, targets: np.ndarray, kp: float | np.ndarray, kd: float | np.ndarray) -> None:
        """Hold joint targets until changed: motors add kp (target - q) - kd qd to their torques at every step.

        targets: (N, 12) [rad]; kp, kd: see set_gains().

        Raises ValueError for another shape, a value that is not finite or a gain below 0.
        """
        checked = self._checked("targets", targets, 12)
        gains = self._checked_gains(kp, kd)
        if self.model.motor_blocks is not None:
            self.run(command_step)
        self.set_gains(*gains)
        self.put("target", checked)

    def set_gains(self, kp: float | np.ndarray, kd: float | np.ndarray) -> None:
        """Set the PD law's gains, times each robot's own factors where robots differ.

        kp: [N m/rad]; kd: [N m s/rad], of all joints, or each joint's, (4, 3) or (12).

        Raises ValueError for another shape, or a gain that is not finite or below 0; warns where joints may shake.
        """
        kp, kd = self._checked_gains(kp, kd)
        self.model.legs[:, constants.KP : constants.KP + 3] = kp
        self.model.legs[:, constants.KD : constants.KD + 3] = kd
        self._warn_of_gains(kp, kd)

    def _checked_gains(self, kp: float | np.ndarray, kd: float | np.ndarray) -> list[np.ndarray]:
        """Return gains as (4, 3) each."""
        checked = []
        for name, gain in (("kp", kp), ("kd", kd)):
            gain = np.asarray(gain, float)
            if gain.shape not in ((), (12,), (4, 3)):
                raise ValueError(f"{name}: expected a number, or 12, got shape {gain.shape}")
            if wrong := [x for x in gain.flat if not 0 <= x < np.inf]:
                raise ValueError(f"{name}: expected a finite number of at least 0, got {wrong[0]}")
            checked.append(np.broadcast_to(gain.reshape(4, 3) if gain.shape == (12,) else gain, (4, 3)))
        return checked

    def set_state(self, **state: np.ndarray) -> None:
        """Set the state of every robot; what is not named stays.

        base_position: (N, 3) world frame [m]; base_quaternion: (N, 4) w x y z, normalised here;
        joint_position: (N, 12) [rad]; base_linear_velocity: (N, 3) of the base origin, world frame
        [m/s]; base_angular_velocity: (N, 3) base frame [rad/s]; joint_velocity: (N, 12) [rad/s].

        Raises ValueError, naming the argument, for another shape or a value that is not finite,
        and TypeError for an unknown name. Nothing is set then.
        """
        sizes = {
            "base_position": 3,
            "base_quaternion": 4,
            "joint_position": 12,
            "base_linear_velocity": 3,
            "base_angular_velocity": 3,
            "joint_velocity": 12,
        }
        for name in state:
            if name not in sizes:
                raise TypeError(f"set_state: unknown argument {name!r}; expected {', '.join(sizes)}")
        checked = {name: self._checked(name, value, sizes[name]) for name, value in state.items()}
        if "base_quaternion" in checked:
            norm = np.linalg.norm(checked["base_quaternion"], axis=1, keepdims=True)
            if (norm < 1e-6).any():
                raise ValueError("base_quaternion: expected quaternions of a length above 0")
            checked["base_quaternion"] = checked["base_quaternion"] / norm
        if "base_position" in checked:
            self._place(checked.pop("base_position"))
        for name, value in checked.items():
            self.put(name, value)

    def get_state(self) -> State:
        """Return a copy of every robot's state."""
        position = self.get("base_position").astype(np.float64)
        position[:, :2] += self.get("origin")
        names = ("base_quaternion", "joint_position", "base_linear_velocity", "base_angular_velocity", "joint_velocity")
        return State(position, *(self.get(name) for name in names), self.get("force").reshape(-1, 4, 3))

    @property
    def broken(self) -> np.ndarray:
        """(N) how often each robot's state was not finite, or absurd, and it was put back at home."""
        return self.rows(L.BROKEN, 1)[:, 0].astype(int)

    @property
    def energy(self) -> np.ndarray:
        """(N) electrical energy that each robot's motors drew since it was put at home [J].

        Raises ValueError without motors in the configuration.
        """
        if self.model.motor_blocks is None:
            raise ValueError("energy: expected an engine with cfg.motor.enabled")
        return self._lanes(self.model.motor_blocks, L.ENERGY, 1)[:, 0]

    @property
    def stamina(self) -> np.ndarray:
        """(N) share of its stamina that each robot has left, 1 rested, 0 tired.

        Raises ValueError without motors with stamina in the configuration.
        """
        if self.model.motor_blocks is None or not self.cfg.motor.stamina:
            raise ValueError("stamina: expected an engine with cfg.motor.enabled and cfg.motor.stamina above 0")
        return 1.0 - self._lanes(self.model.motor_blocks, L.FATIGUE, 1)[:, 0] / self.cfg.motor.stamina

    def motor_torques(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the torques that motors are asked for, within their limits, and the limits, (N, 12) each [N m].

        A motor that lags or tires gives other torques than it is asked for.
        """
        legs = self.model.legs
        kp, kd, limit = (legs[:, at : at + 3].ravel() for at in (constants.KP, constants.KD, constants.TORQUE_LIMIT))
        q, qd = self.get("joint_position"), self.get("joint_velocity")
        varied = self.model.varied_blocks
        if varied is not None:
            kp = kp * self._lanes(varied, L.V_KP, 1)
            kd = kd * self._lanes(varied, L.V_KD, 1)
            starts = [L.VARIED_BASE_ROWS + leg * L.VARIED_LEG_ROWS for leg in range(4)]
            limit, offset = (
                np.concatenate([self._lanes(varied, start + row, 3) for start in starts], axis=1)
                for row in (L.V_TORQUE_LIMIT, L.V_OFFSET)
            )
            q = q + offset
        limit = np.broadcast_to(limit, q.shape)
        return np.clip(kp * (self.get("target") - q) - kd * qd + self.get("torque"), -limit, limit), limit

    def cost_of_transport(self, distance: np.ndarray) -> np.ndarray:
        """Return energy per weight and distance (N), E / (m g d), of robots that went so far; distance: (N) [m]."""
        varied = self.model.varied_blocks
        mass = self.robot.total_mass
        gravity = self.cfg.gravity
        if varied is not None:
            mass, gravity = (self._lanes(varied, row, 1)[:, 0] for row in (L.V_MASS, L.V_GRAVITY))
        return self.energy / (mass * gravity * np.maximum(distance, 1e-9))

    def close(self) -> None:
        """End the threads."""
        if self._pool:
            self._pool.close()

    def warn_of_stiffness(self, stiffness: float) -> None:
        """Warn if the time step is too large for contacts of a stiffness [N/m]."""
        limit = largest_timestep(stiffness, self.robot.foot_mass())
        if self.timestep > limit:
            warnings.warn(
                f"timestep {1e3 * self.timestep:g} ms: contacts of {stiffness:g} N/m may gain energy or jitter beyond "
                f"{1e3 * limit:.2g} ms",
                stacklevel=3,
            )

    def lacks_inertia(self, kp: np.ndarray, kd: np.ndarray) -> np.ndarray:
        """Return what a PD law needs of each joint's inertia to be stable over what is left to it explicit, (4, 3).

        kp: (4, 3) [N m/rad]; kd: (4, 3) [N m s/rad]. Above 1 the law is partly implicit (simulation_step.steady).
        """
        inertia = np.array([np.diag(self.robot.leg_inertia(leg)) for leg in range(4)])
        return self.timestep * (kd / 2 + kp * self.timestep / 4) / (S.EXPLICIT * inertia)

    def _warn_of_gains(self, kp: np.ndarray, kd: np.ndarray) -> None:
        """Warn if the time step is too large for joints of the robot's inertia under a PD law of these gains."""
        lacks = self.lacks_inertia(kp, kd)
        worst = np.unravel_index(lacks.argmax(), lacks.shape)
        lack = float(lacks[worst])
        if lack > MOST_LACKING:
            warnings.warn(
                f"kp {kp[worst]:.3g} N m/rad and kd {kd[worst]:.3g} N m s/rad: joints may shake at a timestep of "
                f"more than {1e3 * self.timestep * MOST_LACKING / lack:.2g} ms, and move as if heavier now",
                stacklevel=3,
            )

    def rows(self, start: int, count: int) -> np.ndarray:
        """Return (N, count), a copy of consecutive rows of the blocks."""
        return self._lanes(self.blocks, start, count)

    def _lanes(self, blocks: np.ndarray, start: int, count: int) -> np.ndarray:
        view = blocks.reshape(self.num_blocks, -1, LANES)[:, start : start + count]
        return view.transpose(0, 2, 1).reshape(-1, count)[: self.num_envs].copy()  # of one block, the rest is a view

    def get(self, name: str) -> np.ndarray:
        """Return (N, size), a copy of what is kept under a name of _FIELDS, as it is kept."""
        start, count, per_leg = _FIELDS[name]
        if not per_leg:
            return self.rows(start, count)
        return np.concatenate([self.rows(L.BASE_ROWS + leg * L.LEG_ROWS + start, count) for leg in range(4)], axis=1)

    def _place(self, position: np.ndarray) -> None:
        """Set where bases are, (N, 3) world frame, each in the cell that it is in."""
        origin = np.zeros_like(position)
        origin[:, :2] = L.CELL * np.floor(position[:, :2] / L.CELL + 0.5)
        self.put("origin", origin[:, :2])
        self.put("base_position", position - origin)

    def put(self, name: str, value: np.ndarray) -> None:
        """Set what is kept under a name of _FIELDS, as it is kept: (N, size), unchecked."""
        start, count, per_leg = _FIELDS[name]
        view = self.blocks.reshape(self.num_blocks, -1, LANES)
        padded = np.concatenate([value, np.tile(value[-1:], (self.num_blocks * LANES - len(value), 1))])
        padded = padded.reshape(self.num_blocks, LANES, -1).transpose(0, 2, 1)
        if not per_leg:
            view[:, start : start + count] = padded
        else:
            for leg in range(4):
                first = L.BASE_ROWS + leg * L.LEG_ROWS + start
                view[:, first : first + count] = padded[:, 3 * leg : 3 * leg + 3]

    def _checked(self, name: str, value: np.ndarray, size: int) -> np.ndarray:
        value = np.asarray(value, dtype=np.float64)
        if value.shape != (self.num_envs, size):
            raise ValueError(f"{name}: expected shape ({self.num_envs}, {size}), got {value.shape}")
        if not (finite := np.isfinite(value)).all():
            robot = np.argwhere(~finite)[0][0]
            raise ValueError(f"{name}: expected finite numbers, got {value[~finite][0]} for robot {robot}")
        return value
