"""The quadruped's tasks as tests make them, and a second time in plain NumPy: what tests compare with."""

import dataclasses
import itertools

import numpy as np
from oracle import centre_of_mass, foot_positions, rotation

from config import NoiseCfg, VaryCfg
from environments import registry
from environments.quadruped import torque_ratio
from physics import layout as L

STAY = "quadruped-balance"
FLAT = "quadruped-walk-flat"
ROBUST = "quadruped-walk-robust"
GOAL = "quadruped-goal"
ALIKE = {f"vary.{field.name}": field.default for field in dataclasses.fields(VaryCfg)} | {
    f"noise.{field.name}": 0.0 for field in dataclasses.fields(NoiseCfg)
}
NEVER_FALL = {"fall_tilt": 3.0, "fall_height": 0.0}
ONE_COMMAND = {"command.interval": (1e5, 1e6)}
FIELDS = (
    "base_position", "base_quaternion", "joint_position",
    "base_linear_velocity", "base_angular_velocity", "joint_velocity",
)  # fmt: skip


def make(task, n, *changes, threads=1):
    """Return an environment of robots that do not differ and are observed without error."""
    return registry.make(
        task,
        num_envs=n,
        env_cfg_override={key: value for change in (ALIKE, *changes) for key, value in change.items()},
        threads=threads,
    )


def wander(env, steps, scale=0.5, seed=0):
    """Take random actions; return the last state."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        state = env.step(rng.normal(0, scale, (env.num_envs, 12)).astype(np.float32))
    return state


def goal(env):
    """Return (N, 3), world frame."""
    return env.field("goal") + np.pad(env.engine.rows(L.ORIGIN, 2), ((0, 0), (0, 1)))


def to_heading(quaternion, v):
    """Return horizontal vectors (N, 2) in the heading frame."""
    ahead = rotation(quaternion)[:, :2, 0]
    c, s = (ahead / np.linalg.norm(ahead, axis=1, keepdims=True)).T
    return np.stack([c * v[:, 0] + s * v[:, 1], c * v[:, 1] - s * v[:, 0]], axis=1)


def mirror_image(mirror, x):
    """Return what vectors (..., columns) look like in a mirror."""
    return x[..., list(mirror.columns)] * np.array(mirror.signs)


def contact_velocity(env, state):
    """Return (N, 4, 3) the velocity of the feet's lowest points, world frame [m/s].

    By differences of the feet's positions, and the calves' turning.
    """
    h = 1e-5
    q = state.base_quaternion.astype(float)
    w = state.base_angular_velocity.astype(float)
    rate = 0.5 * np.stack([
        -q[:, 1] * w[:, 0] - q[:, 2] * w[:, 1] - q[:, 3] * w[:, 2],
        q[:, 0] * w[:, 0] + q[:, 2] * w[:, 2] - q[:, 3] * w[:, 1],
        q[:, 0] * w[:, 1] + q[:, 3] * w[:, 0] - q[:, 1] * w[:, 2],
        q[:, 0] * w[:, 2] + q[:, 1] * w[:, 1] - q[:, 2] * w[:, 0],
    ], axis=1)  # fmt: skip

    def feet(t):
        moved = dataclasses.replace(
            state, base_position=state.base_position + t * state.base_linear_velocity, base_quaternion=q + t * rate,
            joint_position=state.joint_position.astype(float) + t * state.joint_velocity,
        )  # fmt: skip
        return foot_positions(env.robot, moved)

    centres = (feet(h) - feet(-h)) / (2 * h)
    # the calf's angular velocity: the base's, the hip's about x, thigh's and calf's about the hip link's y
    angles, speeds = (x.reshape(-1, 4, 3).astype(float) for x in (state.joint_position, state.joint_velocity))
    turn = speeds[..., 1] + speeds[..., 2]
    spin_B = w[:, None] + np.stack(
        [speeds[..., 0], turn * np.cos(angles[..., 0]), turn * np.sin(angles[..., 0])], axis=-1
    )
    spin = np.einsum("nij,nlj->nli", rotation(q), spin_B)
    return centres + np.cross(spin, env.robot.foot_radius[:, None] * np.array([0.0, 0.0, -1.0]))


def reward_terms(env, actions):
    """Return the reward's terms of this instant, unweighted, by name: (N) each.

    actions: the latest (N, 12), the one before, and the one before that.
    """
    cfg = env.cfg
    robot = env.robot
    state = env.engine.get_state()
    R = rotation(state.base_quaternion)
    v = state.base_linear_velocity.astype(np.float64)
    w = state.base_angular_velocity.astype(np.float64)
    home = robot.home_joints.ravel()
    low, high = robot.joint_range.reshape(12, 2).T
    target = np.clip(home + cfg.action_scale * actions[0], low, high)
    ratio = torque_ratio(robot)
    limit = robot.torque_limit.ravel()
    torque = np.clip(ratio * (cfg.kp * (target - state.joint_position) - cfg.kd * state.joint_velocity), -limit, limit)
    offset2 = ((goal(env) - centre_of_mass(robot, state)) ** 2).sum(1)
    command = env.field("command").astype(float)
    moving = command.any(axis=1)
    missed = to_heading(state.base_quaternion, v[:, :2]) - command[:, :2]
    contact = np.linalg.norm(state.foot_contact_force, axis=2) > 1.0
    slip2 = (contact_velocity(env, state)[..., :2] ** 2).sum(2)
    pose2 = ((state.joint_position - home) ** 2).sum(1)
    beyond = np.maximum(
        np.maximum(low + 0.1 * (high - low) - state.joint_position, state.joint_position - high + 0.1 * (high - low)), 0
    )
    fl, fr, rl, rr = contact.T
    agree = ((fl == rr).astype(float) + (fr == rl)) / 2
    flight = env.field("landed")
    corners = robot.trunk_centre + robot.trunk_half_extents * list(itertools.product((-1, 1), repeat=3))
    gap = (state.base_position[:, 2:] + np.einsum("nj,kj->nk", R[:, 2], corners)).min(1)

    def near(error2):
        return (np.exp(-cfg.reward.sharp * error2) + np.exp(-cfg.reward.wide * error2)) / 2

    return {
        "goal": np.exp(-44.4 * offset2),
        "velocity": near((missed**2).sum(1)),
        "yaw_rate": near((w[:, 2] - command[:, 2]) ** 2),
        "vertical_velocity": v[:, 2] ** 2,
        "tumble": w[:, 0] ** 2 + w[:, 1] ** 2,
        "orientation": R[:, 2, 0] ** 2 + R[:, 2, 1] ** 2,
        "height": (state.base_position[:, 2] - robot.home_height) ** 2,
        "trunk_clearance": np.maximum(0.4 * robot.home_height - gap, 0) ** 2,
        "torque": (torque**2).sum(1) / ratio**2,
        "action_rate": ((actions[0] - actions[1]) ** 2).sum(1),
        "smoothness": ((actions[0] - 2 * actions[1] + actions[2]) ** 2).sum(1),
        "pose": pose2,
        "stand_pose": pose2 * ~moving,
        "knee": (beyond.reshape(-1, 4, 3)[..., 1:] ** 2).sum((1, 2)),
        "joint_speed": (state.joint_velocity.astype(np.float64) ** 2).sum(1),
        "feet": contact.mean(1),
        "stance": contact.mean(1) * ~moving,
        "slip": (slip2 * contact).sum(1),
        "trot": moving * agree * np.abs(fl.astype(float) + rr - fr - rl) / 2,
        "alive": np.ones(env.num_envs),
        "air_time": moving * np.where(flight > 0, np.minimum(flight, 0.4) - 0.2, 0).sum(1),
        "arrival": np.zeros(env.num_envs),
        "stopping": np.zeros(env.num_envs),
    }
