"""The same tasks in MuJoCo: every term is Foal's own, only the bodies are moved by another engine.

A control step's first half, in compiled code, sets joint targets and torques and lets pushes act; MuJoCo moves each
robot; the second half measures, rewards and observes what it finds. What a half changes of a state, as the start of an
episode does, MuJoCo takes over.
"""

import copy
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from config import QuadrupedCfg, VaryCfg
from environments.contracts import EnvState
from environments.quadruped.env import QuadrupedEnv
from environments.quadruped.terms import Terms
from environments.quadruped.values import gains, import_options
from host import Pool, available_cores
from physics.mjcf import to_mjcf
from physics.model_file import ModelFile
from physics.robot import LEGS
from settings import ConfigError

FINER = 4  # steps of MuJoCo's for one of Foal's, where joints have little inertia for the PD law
# Time in which contact on terrain rights itself [s]: in MuJoCo's own 0.02 s feet sink by up to 3 cm and trip on what
# they sank into: 41 % of the shipped walkers survive rough ground then, 99 % with this, as in Foal; a floor is even
FIRM = 0.005
CONES = "pyramidal", "elliptic"
STATE = "base_position", "base_quaternion", "joint_position"  # of qpos, in order
SPEEDS = "base_linear_velocity", "base_angular_velocity", "joint_velocity"  # of qvel


class MujocoEnv(QuadrupedEnv):
    """N quadrupeds of a task, each in a world of its own in MuJoCo.

    Robots do not differ, whatever cfg.vary says; joints are free of end stops. MuJoCo has its default solver, with 100
    iterations: what counts here is that it is right, not that it is fast.

    Raises ConfigError, naming the field, for what only QuadrupedEnv does, and where the package is missing.
    """

    told: dict[str, Any]  # what MuJoCo last said of the robots, as the blocks hold it

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
        carried = self.robot.carrying(cfg.physics.payload)
        xml = to_mjcf(
            carried,
            cfg.sim_dt,
            cfg.physics.foot_friction,
            "",
            terrain=self.terrain,
            body_contact=cfg.physics.body_contact,
        )
        self._take(mujoco.MjSpec.from_string(xml), np.arange(12), np.ones((4, 3)))
        self.threads = min(threads or available_cores(), num_envs)
        self.pool = Pool(self.threads)

    def use_model(self, path: str) -> None:
        """Let the robot be that of a file of its maker's: bodies, joints, collision shapes and contact are its.

        Legs are found and what is no leg's is locked as an import does. Its actuators are left behind for the task's PD
        law within the robot's torque limits, and a floor is laid where it has none.

        Raises ConfigError or RobotError, naming the file and what is wrong with it.
        """
        if self.terrain:
            raise ConfigError("--model: expected a task on flat ground")
        if self.cfg.physics.payload:
            raise ConfigError("physics.payload: expected 0 with --model, whose masses are the file's")
        file = ModelFile(pathlib.Path(path), import_options(self.cfg))
        if file.turned:
            raise ConfigError(f"--model: {path}: expected a base whose x is forward and z up")
        spec = file.spec
        for actuator in list(spec.actuators):
            spec.delete(actuator)
        for name, tensor in file.tensors.items():  # which MuJoCo would not take, of parts of links
            spec.body(name).inertia = np.full(3, max(float(np.trace(tensor)) / 3.0, 1e-8))
        floor = self.mujoco.mjtGeom.mjGEOM_PLANE
        if not any(geom.type == floor for geom in spec.worldbody.geoms):
            for geom in spec.geoms:  # a URDF's shapes overlap where links meet: they touch the floor alone
                geom.contype, geom.conaffinity = 0, geom.contype | geom.conaffinity
            spec.worldbody.add_geom(name="floor", type=floor, size=[0.0, 0.0, 1.0], contype=255, conaffinity=0)
        limit = self.robot.torque_limit
        for (leg, joint), found in np.ndenumerate(file.joints):
            name = file.model.joint(found).name
            most = float(limit[leg, joint])
            spec.add_actuator(name=name, target=name, trntype=self.mujoco.mjtTrn.mjTRN_JOINT, ctrlrange=[-most, most])
        self._take(spec, np.argsort(file.joints.ravel()), file.sign, file)

    def _take(self, spec: Any, order: Any, signs: np.ndarray, file: ModelFile | None = None) -> None:
        """Compile a model, and make a world of each robot of it.

        order: which of Foal's joints each of its is; signs: (4, 3) how they turn there; file: that it is of, or None.
        """
        mujoco = self.mujoco
        self.simulated = model = spec.compile()
        model.opt.gravity[2] = -self.cfg.physics.gravity
        # motors that hold a joint by the PD law themselves: ctrl is the target, and with torques added over kp
        kp, kd = gains(self.cfg, self.robot)
        self.kp = kp.ravel()
        model.actuator_forcelimited[:] = 1
        model.actuator_forcerange[:] = model.actuator_ctrlrange
        model.actuator_ctrllimited[:] = 0
        model.actuator_biastype[:] = mujoco.mjtBias.mjBIAS_AFFINE
        # where Foal makes the law partly implicit, which MuJoCo's does not, steps are shorter, and for firm contact
        self.steps = FINER if self.terrain or self.engine.lacks_inertia(kp, kd).max() > 1.0 else 1
        if file:  # no longer than its maker takes
            self.steps = max(self.steps, math.ceil(self.cfg.sim_dt / model.opt.timestep - 1e-6))
        if self.terrain:
            model.geom_solref[:, 0] = FIRM
        model.opt.timestep = self.cfg.sim_dt / self.steps
        self.order = np.asarray(order)
        self.signs = np.asarray(signs).ravel()[self.order]
        calves = [model.body(f"{leg}_calf").id for leg in LEGS] if file is None else file.bodies[:, 2].tolist()
        legs = {calf: leg for leg, calf in enumerate(calves)}
        self.leg_of = [legs.get(int(model.body_weldid[body]), -1) for body in model.geom_bodyid]  # by geom
        hinges = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE)
        self.actuators = np.array([model.actuator(model.joint(j).name).id for j in hinges])
        model.actuator_gainprm[self.actuators, 0] = np.where(self.kp > 0, self.kp, 1.0)[self.order]
        model.actuator_biasprm[self.actuators, 1] = -self.kp[self.order]
        model.actuator_biasprm[self.actuators, 2] = -kd.ravel()[self.order]
        self.datas = [mujoco.MjData(model) for _ in range(self.num_envs)]
        self.told = {}
        self.patchy = self.terrain is not None and self.terrain.grip is not None
        self.friction = model.geom_friction[:, 0].copy()
        if self.patchy:  # of two geometries that touch the greater coefficient counts: the robot's, by where it is
            model.geom_friction[model.geom_bodyid == 0, 0] = 0.0

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
        for name in ("joint_position", "joint_velocity"):
            now[name] = now[name][:, self.order] * self.signs
        for i in np.flatnonzero(differs):
            self.datas[i].qpos[:] = np.concatenate([now[name][i] for name in STATE])
            self.datas[i].qvel[:] = np.concatenate([now[name][i] for name in SPEEDS])
            self.datas[i].qacc_warmstart[:] = 0.0
        stiff = self.kp > 0
        controls = engine.get("target") * stiff + engine.get("torque") / np.where(stiff, self.kp, 1.0)
        controls = controls[:, self.order] * self.signs
        forces = np.zeros((self.num_envs, 4, 3))
        shares = [range(i, self.num_envs, self.threads) for i in range(self.threads)]
        moves = [self.pool.submit(self._move, robots, controls, forces, substeps) for robots in shares]
        for move in moves:
            move.result()
        position = np.array([d.qpos for d in self.datas])
        speed = np.array([d.qvel for d in self.datas])
        position[:, :2] -= engine.get("origin")
        for name, x in (
            ("base_position", position[:, :3]),
            ("base_quaternion", position[:, 3:7]),
            ("joint_position", self._as_ours(position[:, 7:])),
            ("base_linear_velocity", speed[:, :3]),
            ("base_angular_velocity", speed[:, 3:6]),
            ("joint_velocity", self._as_ours(speed[:, 6:])),
            ("force", forces.reshape(-1, 12)),
        ):
            engine.put(name, x)
        told = engine.get_state()
        self.told = {name: getattr(told, name) for name in (*STATE, *SPEEDS)}
        return super()._run(actions, s, substeps, staggered, half=2)

    def _as_ours(self, joints: np.ndarray) -> np.ndarray:
        """Return the model's joints (N, 12) as Foal has them."""
        found = np.empty_like(joints)
        found[:, self.order] = joints * self.signs
        return found

    def _move(self, robots: range, controls: np.ndarray, forces: np.ndarray, substeps: int) -> None:
        """Take robots through physics steps; forces (N, 4, 3) of the ground on feet, world frame, are set."""
        mujoco = self.mujoco
        force = np.zeros(6)
        model = copy.copy(self.simulated) if self.patchy else self.simulated  # in which friction changes
        moved = model.geom_bodyid > 0
        for i in robots:
            d = self.datas[i]
            d.ctrl[self.actuators] = controls[i]
            if self.patchy:
                grip = self.terrain.grip_at(d.geom_xpos[moved, 0], d.geom_xpos[moved, 1])
                model.geom_friction[moved, 0] = self.friction[moved] * grip
            mujoco.mj_step(model, d, self.steps * substeps)
            for k in range(d.ncon):
                mujoco.mj_contactForce(model, d, k, force)
                contact = d.contact[k]
                first, second = (self.leg_of[geom] for geom in contact.geom)
                push = force[:3] @ contact.frame.reshape(3, 3)  # of the first on the second
                if second >= 0:
                    forces[i, second] += push
                if first >= 0:
                    forces[i, first] -= push

    def split(self, parts: int, threads: int = 1) -> "list[QuadrupedEnv]":
        """Return this environment alone, which has threads of its own."""
        return [self]
