"""The same robots in MuJoCo, and what the tests ask of it."""

import dataclasses
import os
import pathlib

import mujoco
import numpy as np

from physics import Robot, State
from physics.mjcf import to_mjcf

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROBOTS = ("go1", "go2", "anymal_c", "spot")


def fresh_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a process that imports Foal anew, its kernels in a folder of its own choice."""
    return {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"} | variables


def without_losses(robot: Robot, friction: bool = False, damping: bool = False) -> Robot:
    """Return a robot whose joints lose no energy, but for what is asked to stay."""
    return dataclasses.replace(robot, friction=robot.friction * friction, damping=robot.damping * damping)


def twin(robot: Robot, timestep: float, exact: bool = True, **options) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """Return a robot's MuJoCo model and data."""
    option = 'iterations="100" ls_iterations="50" tolerance="1e-12"' if exact else 'iterations="1" ls_iterations="4"'
    model = mujoco.MjModel.from_xml_string(to_mjcf(robot, timestep, option=option, **options))
    return model, mujoco.MjData(model)


def put(data: mujoco.MjData, state: State, i: int) -> None:
    """Give MuJoCo robot i's state."""
    data.qpos[:] = np.concatenate([state.base_position[i], state.base_quaternion[i], state.joint_position[i]])
    data.qvel[:] = velocity(state)[i]


def velocity(state: State) -> np.ndarray:
    """Return (N, 18): linear and angular velocity of the base, joint velocities, as MuJoCo orders them."""
    return np.concatenate(
        [state.base_linear_velocity, state.base_angular_velocity, state.joint_velocity], axis=1
    ).astype(np.float64)


def centre_of_mass(robot: Robot, state: State) -> np.ndarray:
    """Return (N, 3), world frame [m]."""
    return invariants(robot, state)[0]


def invariants(
    robot: Robot, state: State, gravity: float = 9.81
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (N, 3) centre of mass, (N, 3) its velocity, (N, 3) angular momentum about it and (N) energy [J]."""
    model, data = twin(robot, 0.001)
    model.opt.gravity[:] = 0.0, 0.0, -gravity
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
    rows = []
    for i in range(len(state.base_position)):
        put(data, state, i)
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        rows.append(
            (
                data.subtree_com[1].copy(),
                data.subtree_linvel[1].copy(),
                data.subtree_angmom[1].copy(),
                data.energy.sum(),
            )
        )
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """Return (N, 3, 3) R_WB of quaternions (N, 4) w x y z."""
    w, x, y, z = np.asarray(quaternion, np.float64).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


def foot_positions(robot: Robot, state: State) -> np.ndarray:
    """Return (N, 4, 3) centres of the feet, world frame [m]."""
    model, data = twin(robot, 0.001)
    feet = [mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, leg) for leg in ("FL", "FR", "RL", "RR")]
    rows = []
    for i in range(len(state.base_position)):
        put(data, state, i)
        mujoco.mj_kinematics(model, data)
        rows.append(data.geom_xpos[feet].copy())
    return np.array(rows)


def random_state(robot: Robot, n: int, seed: int, height: float = 2.0, speed: float = 1.0) -> dict[str, np.ndarray]:
    """Return arguments of set_state: any attitude and velocities, joints within their ranges (at most a turn)."""
    rng = np.random.default_rng(seed)
    low, high = np.clip(robot.joint_range.reshape(12, 2), -np.pi, np.pi).T
    q = rng.normal(size=(n, 4))
    return {
        "base_position": rng.uniform(-1, 1, (n, 3)) + [0, 0, height],
        "base_quaternion": q / np.linalg.norm(q, axis=1, keepdims=True),
        "joint_position": rng.uniform(low, high, (n, 12)),
        "base_linear_velocity": speed * rng.normal(size=(n, 3)),
        "base_angular_velocity": speed * 2 * rng.normal(size=(n, 3)),
        "joint_velocity": speed * 4 * rng.normal(size=(n, 12)),
    }


def velocity_after(
    model: mujoco.MjModel, data: mujoco.MjData, state: State, torques: np.ndarray, seconds: float
) -> np.ndarray:
    """Return (N, 3): linear velocity of the base in MuJoCo after some time under torques (N, 12) from a state [m/s]."""
    rows = []
    for i in range(len(torques)):
        mujoco.mj_resetData(model, data)
        put(data, state, i)
        data.ctrl[:] = torques[i]
        mujoco.mj_step(model, data, round(seconds / model.opt.timestep))
        rows.append(data.qvel[:3].copy())
    return np.array(rows)
