"""The same tasks in MuJoCo: every term is Foal's own, only the bodies are moved by another engine.

A control step's first half, in compiled code, sets joint targets and torques and lets pushes act; MuJoCo moves each
robot; the second half measures, rewards and observes what it finds. What a half changes of a state, as the start of an
episode does, MuJoCo takes over.
"""

import concurrent.futures
import dataclasses
from typing import Any

import numpy as np

from config import QuadrupedCfg, VaryCfg
from environments.contracts import EnvState
from environments.quadruped.env import QuadrupedEnv
from environments.quadruped.terms import Terms
from physics import constants as C
from physics.engine import available_cores
from physics.mjcf import to_mjcf
from settings import ConfigError

CONES = "pyramidal", "elliptic"
STATE = "base_position", "base_quaternion", "joint_position"  # of qpos, in order
SPEEDS = "base_linear_velocity", "base_angular_velocity", "joint_velocity"  # of qvel


class MujocoEnv(QuadrupedEnv):
    """N quadrupeds of a task, each in a world of its own in MuJoCo.

    Robots do not differ, whatever cfg.vary says; joints are free of end stops. MuJoCo has its default solver, with 100
    iterations: what counts here is that it is right, not that it is fast.

    Raises ConfigError, naming the field, for what only QuadrupedEnv does, and where the package is missing.
    """

    def __init__(self, terms: Terms, cfg: QuadrupedCfg, num_envs: int = 1, threads: int = 0) -> None:
        try:
            import mujoco
        except ModuleNotFoundError:
            raise ConfigError("mujoco: expected the package of this engine: pip install 'mujoco>=3.4'") from None
        if cfg.physics.motor.enabled:
            raise ConfigError("motor.enabled: expected False, MuJoCo's motors are ideal, got True")
        super().__init__(terms, dataclasses.replace(cfg, vary=VaryCfg()), num_envs, threads)
        if self.engine.model.varied_blocks is not None:
            raise ConfigError("randomisation: expected none that lets robots differ, MuJoCo's are all alike")
        self.mujoco = mujoco
        # no option: MuJoCo's default number of solver iterations
        xml = to_mjcf(self.robot, cfg.sim_dt, cfg.physics.foot_friction, "", terrain=self.terrain)
        self.simulated = model = mujoco.MjModel.from_xml_string(xml)
        model.opt.gravity[2] = -cfg.physics.gravity
        # motors that hold a joint by the PD law themselves: ctrl is the target, and with torques added over kp
        kp, kd = (float(x) for x in self.engine.model.world[[C.KP, C.KD]])
        self.kp = kp
        model.actuator_forcelimited[:] = 1
        model.actuator_forcerange[:] = model.actuator_ctrlrange
        model.actuator_ctrllimited[:] = 0
        model.actuator_gainprm[:, 0] = kp or 1.0
        model.actuator_biastype[:] = mujoco.mjtBias.mjBIAS_AFFINE
        model.actuator_biasprm[:, 1:3] = -kp, -kd
        self.feet = {model.geom(leg).id: i for i, leg in enumerate(("FL", "FR", "RL", "RR"))}
        self.datas = [mujoco.MjData(model) for _ in range(num_envs)]
        self.told: dict[str, Any] = {}  # what MuJoCo last said of the robots, as the blocks hold it
        self.pool = concurrent.futures.ThreadPoolExecutor(min(threads or available_cores(), num_envs))

    def use_cone(self, cone: str) -> None:
        """Take another cone of the feet's friction, one of CONES.

        MuJoCo's default, a pyramid of four sides, lets a foot slip along a diagonal at 1 / sqrt(2) of the friction;
        Foal's is round, as the "elliptic" one is.
        """
        self.simulated.opt.cone = CONES.index(cone)

    def _run(self, actions: np.ndarray, s: EnvState, substeps: int, staggered: bool, half: int = 0) -> EnvState:
        if substeps == 0:
            return super()._run(actions, s, 0, staggered)
        super()._run(actions, s, substeps, staggered, half=1)
        engine = self.engine
        state = engine.get_state()
        now = {name: getattr(state, name) for name in (*STATE, *SPEEDS)}
        differs = np.zeros(self.num_envs, bool)
        for name, x in now.items():
            differs |= (x != self.told[name]).any(axis=1) if self.told else True
        for i in np.flatnonzero(differs):
            self.datas[i].qpos[:] = np.concatenate([now[name][i] for name in STATE])
            self.datas[i].qvel[:] = np.concatenate([now[name][i] for name in SPEEDS])
            self.datas[i].qacc_warmstart[:] = 0.0
        controls = engine.get("torque").astype(float)
        controls = engine.get("target") + controls / self.kp if self.kp else controls
        forces = np.zeros((self.num_envs, 4, 3))
        threads = self.pool._max_workers
        shares = [range(i, self.num_envs, threads) for i in range(threads)]
        list(self.pool.map(lambda robots: self._move(robots, controls, forces, substeps), shares))
        position = np.array([d.qpos for d in self.datas])
        speed = np.array([d.qvel for d in self.datas])
        position[:, :2] -= engine.get("origin")
        for name, x in (
            ("base_position", position[:, :3]),
            ("base_quaternion", position[:, 3:7]),
            ("joint_position", position[:, 7:]),
            ("base_linear_velocity", speed[:, :3]),
            ("base_angular_velocity", speed[:, 3:6]),
            ("joint_velocity", speed[:, 6:]),
            ("force", forces.reshape(-1, 12)),
        ):
            engine.put(name, x)
        told = engine.get_state()
        self.told = {name: getattr(told, name) for name in (*STATE, *SPEEDS)}
        return super()._run(actions, s, substeps, staggered, half=2)

    def _move(self, robots: range, controls: np.ndarray, forces: np.ndarray, substeps: int) -> None:
        """Take robots through physics steps; forces (N, 4, 3) of the ground on feet, world frame, are set."""
        mujoco = self.mujoco
        force = np.zeros(6)
        for i in robots:
            d = self.datas[i]
            d.ctrl[:] = controls[i]
            mujoco.mj_step(self.simulated, d, substeps)
            for k in range(d.ncon):
                mujoco.mj_contactForce(self.simulated, d, k, force)
                contact = d.contact[k]
                foot = self.feet.get(max(contact.geom))  # the floor is geom 0
                if foot is not None:
                    forces[i, foot] += force[:3] @ contact.frame.reshape(3, 3)

    def split(self, parts: int, threads: int = 1) -> "list[QuadrupedEnv]":
        """Return this environment alone, which has threads of its own."""
        return [self]
