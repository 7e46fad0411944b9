"""How far Foal is from MuJoCo C, by time step: accelerations, flight, drop, slide, stand and trot.

    python -m benchmarks.agreement [--robot go1] [--json] [--quick]

MuJoCo is the oracle: Newton with 100 iterations, Euler, the elliptic cone where friction matters.
Both engines take the same robot, initial state, joint targets and PD law, and the same time step.
Where the integrator itself has an error, each engine is also compared with its own solution at
0.1 ms, so that the two kinds of difference are seen apart.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks import machine, trot
from benchmarks.trot import CONVERGED, GAINS, Settings, pd_model
from config import PhysicsCfg
from physics import PhysicsEngine, Robot, Terrain, load_robot, terrain
from physics.robot import LEGS

mj = machine.required("mujoco")

TIMESTEPS = (1e-3, 2e-3, 2.5e-3, 4e-3, 5e-3)  # [s]
SAMPLE = 0.02  # between rows of a Run [s]
ELLIPTIC = Settings(cone="elliptic")
FRICTION = 0.2  # of the slope: robots topple on steeper ones
GRAVITY = 9.81  # [m/s^2]


class Run(NamedTuple):
    """What robots did, every SAMPLE seconds: (T, N, ...) arrays."""

    position: np.ndarray  # (T, N, 3) of the base origin, world frame [m]
    quaternion: np.ndarray  # (T, N, 4) of the base
    joints: np.ndarray  # (T, N, 12) [rad]
    force: np.ndarray  # (T, N, 3) of all feet, world frame [N]


def run_foal(
    robot: Robot,
    start: dict,
    timestep: float,
    seconds: float,
    gains: tuple = (0.0, 0.0),
    cfg: PhysicsCfg | None = None,
    ground: Terrain | None = None,
) -> Run:
    """Return what robots do in Foal that hold the home pose by a PD law.

    start: arguments of set_state; gains: kp [N m/rad], kd [N m s/rad].
    """
    n = len(start["base_position"])
    engine = PhysicsEngine(robot, n, timestep, 1, cfg, ground)
    engine.set_state(**start)
    engine.set_joint_targets(np.tile(robot.home_joints.ravel(), (n, 1)), *gains)
    rows = []
    for _ in range(round(seconds / SAMPLE)):
        engine.step(round(SAMPLE / timestep))
        s = engine.get_state()
        rows.append((s.base_position, s.base_quaternion, s.joint_position, s.foot_contact_force.sum(1)))
    return Run(*(np.array(column, float) for column in zip(*rows, strict=True)))


def run_mujoco(
    robot: Robot,
    start: dict,
    timestep: float,
    seconds: float,
    gains: tuple = (0.0, 0.0),
    settings: Settings = ELLIPTIC,
    **options: object,
) -> Run:
    """Return what run_foal() does, of MuJoCo; options: of to_mjcf()."""
    model = pd_model(robot, timestep, settings, gains, **options)
    data = mj.MjData(model)
    n = len(start["base_position"])
    t = round(seconds / SAMPLE)
    run = Run(*(np.zeros((t, n, size)) for size in (3, 4, 12, 3)))
    for i in range(n):
        put(model, data, start, i)
        data.ctrl[:] = robot.home_joints.ravel()
        for k in range(t):
            mj.mj_step(model, data, round(SAMPLE / timestep))
            run.position[k, i] = data.qpos[:3]
            run.quaternion[k, i] = data.qpos[3:7]
            run.joints[k, i] = data.qpos[7:]
            run.force[k, i] = contact_force(model, data)
    return run


def put(model: mj.MjModel, data: mj.MjData, start: dict, i: int) -> None:
    """Set MuJoCo to robot i of arguments of set_state; what is not named is 0, the attitude level."""
    mj.mj_resetData(model, data)
    data.qpos[:3] = start["base_position"][i]
    data.qpos[7:] = start["joint_position"][i]
    if "base_quaternion" in start:
        data.qpos[3:7] = start["base_quaternion"][i]
    for name, first, last in (
        ("base_linear_velocity", 0, 3),
        ("base_angular_velocity", 3, 6),
        ("joint_velocity", 6, 18),
    ):
        if name in start:
            data.qvel[first:last] = start[name][i]


def contact_force(model: mj.MjModel, data: mj.MjData) -> np.ndarray:
    """Return the force of the ground on all feet (3), world frame [N]."""
    total = np.zeros(3)
    force = np.zeros(6)
    for k in range(data.ncon):
        mj.mj_contactForce(model, data, k, force)
        total += data.contact[k].frame.reshape(3, 3).T @ force[:3]
    return total


def feet(robot: Robot, run: Run) -> np.ndarray:
    """Return the centres of the feet (T, N, 4, 3), world frame [m]."""
    model = pd_model(robot, 0.001, ELLIPTIC, (0.0, 0.0))
    data = mj.MjData(model)
    ids = [model.geom(leg).id for leg in LEGS]
    out = np.zeros((*run.position.shape[:2], 4, 3))
    for k, i in np.ndindex(out.shape[:2]):
        data.qpos[:] = *run.position[k, i], *run.quaternion[k, i], *run.joints[k, i]
        mj.mj_kinematics(model, data)
        out[k, i] = data.geom_xpos[ids]
    return out


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the angles between attitudes (..., 4) [rad]."""
    a, b = (q / np.linalg.norm(q, axis=-1, keepdims=True) for q in (a, b))
    chord = np.minimum(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))
    return 4 * np.arcsin(chord / 2)


def rms(x: np.ndarray) -> float:
    """Return the root of the mean square of all numbers."""
    return float(np.sqrt(np.mean(np.square(x))))


def tumbling(robot: Robot, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random states in the air: any attitude, joints within their ranges, 1 m/s, 2 and 4 rad/s per axis."""
    rng = np.random.default_rng(seed)
    low, high = np.clip(robot.joint_range.reshape(12, 2), -np.pi, np.pi).T
    return {
        "base_position": np.tile([0.0, 0.0, 12.0], (n, 1)),
        "base_quaternion": rng.normal(size=(n, 4)),
        "joint_position": rng.uniform(low, high, (n, 12)),
        "base_linear_velocity": rng.normal(size=(n, 3)),
        "base_angular_velocity": 2 * rng.normal(size=(n, 3)),
        "joint_velocity": 4 * rng.normal(size=(n, 12)),
    }


def smooth(robot: Robot) -> Robot:
    """Return a robot without dry joint friction, which MuJoCo models as a constraint."""
    return dataclasses.replace(robot, friction=0 * robot.friction)


def accelerations(robot: Robot, timestep: float, n: int = 64) -> dict[str, float]:
    """Return the relative error of accelerations in the air over one step under random torques."""
    start = tumbling(robot, n)
    robot = smooth(robot)
    engine = PhysicsEngine(robot, n, timestep, 1)
    model = pd_model(robot, timestep, Settings(), (0.0, 0.0))
    engine.set_state(**start)
    data = mj.MjData(model)
    errors = []
    before = engine.get_state()  # as float32 has it
    torques = np.random.default_rng(1).uniform(-1, 1, (n, 12)) * robot.torque_limit.ravel()
    engine.apply_motor_torques(torques)
    engine.step()
    after = engine.get_state()
    for i in range(n):
        put(model, data, {name: getattr(before, name) for name in start}, i)
        data.qfrc_applied[6:] = torques[i]
        first = data.qvel.copy()
        mj.mj_step(model, data)
        theirs = data.qvel - first
        ours = (
            np.concatenate([after.base_linear_velocity[i], after.base_angular_velocity[i], after.joint_velocity[i]])
            - first
        )
        errors.append(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    return {"relative error, median": float(np.median(errors)), "relative error, largest": float(max(errors))}


def flight(robot: Robot, n: int) -> Callable[[float], dict[str, float]]:
    """Return the test of 1 s of tumbling without joint friction, with joint damping."""
    start = tumbling(robot, n)
    robot = smooth(robot)
    runs = (run_foal, run_mujoco)
    exact = [run(robot, start, CONVERGED, 1.0) for run in runs]

    def apart(a: Run, b: Run) -> tuple[float, float, float]:
        base = np.linalg.norm(a.position[-1] - b.position[-1], axis=1)
        return 1e3 * rms(base), rms(angle(a.quaternion[-1], b.quaternion[-1])), rms(a.joints[-1] - b.joints[-1])

    def measure(timestep: float) -> dict[str, float]:
        ours, theirs = (run(robot, start, timestep, 1.0) for run in runs)
        found = {}
        for label, pair in (
            ("Foal - MuJoCo", (ours, theirs)),
            ("Foal - own 0.1 ms", (ours, exact[0])),
            ("MuJoCo - own 0.1 ms", (theirs, exact[1])),
        ):
            found |= {
                f"{label}, {what}": x
                for what, x in zip(("base [mm]", "attitude [rad]", "joints [rad]"), apart(*pair), strict=True)
            }
        return found

    return measure


def drop(robot: Robot, n: int) -> Callable[[float], dict[str, float]]:
    """Return the test of a drop by 0.05 to 0.1 m on the held home pose: base height over 1 s."""
    rng = np.random.default_rng(2)
    start = {
        "base_position": np.tile([0.0, 0.0, robot.home_height], (n, 1)),
        "joint_position": np.tile(robot.home_joints.ravel(), (n, 1)),
    }
    start["base_position"][:, 2] += rng.uniform(0.05, 0.1, n)
    gains = GAINS[robot.name]
    exact = [run(robot, start, CONVERGED, 1.0, gains).position[..., 2] for run in (run_foal, run_mujoco)]

    def measure(timestep: float) -> dict[str, float]:
        ours, theirs = (run(robot, start, timestep, 1.0, gains).position[..., 2] for run in (run_foal, run_mujoco))
        return {
            "height, RMS [mm]": 1e3 * rms(ours - theirs),
            "height, final [mm]": 1e3 * float(np.mean(ours[-1] - theirs[-1])),
            "Foal - own 0.1 ms, RMS [mm]": 1e3 * rms(ours - exact[0]),
            "MuJoCo - own 0.1 ms, RMS [mm]": 1e3 * rms(theirs - exact[1]),
        }

    return measure


def slide(robot: Robot) -> Callable[[float], dict[str, float]]:
    """Return the test of a slope whose tangent is 0.8, 1 and 1.2 times the friction: how far the feet slide in 1 s.

    Robots of eight headings settle on a level floor without friction, so that no foot pushes
    another, and are set on the slope so. Coulomb: what a block would slide, 0 below and at the angle.
    """
    gains = GAINS[robot.name]
    n = 8
    half = np.pi * np.arange(n) / n
    yaw = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=1)
    level = {
        "base_position": np.tile([0.0, 0.0, robot.home_height], (n, 1)),
        "joint_position": np.tile(robot.home_joints.ravel(), (n, 1)),
    }
    rough = PhysicsCfg(foot_friction=FRICTION)
    foals = {"Foal": rough, "Foal, slip speed 2 mm/s": dataclasses.replace(rough, slip_speed=0.002)}

    def measure(timestep: float) -> dict[str, float]:
        found = {}
        settled = {"Foal": run_foal(robot, level, timestep, 2.0, gains, PhysicsCfg(foot_friction=0.0))}
        settled["MuJoCo"] = run_mujoco(robot, level, timestep, 2.0, gains, friction=0.0)
        for factor in (0.8, 1.0, 1.2):
            tilt = math.atan(factor * FRICTION)
            ground = terrain.slope(tilt)
            starts = {label: tilted(run, tilt, yaw) for label, run in settled.items()}
            runs = {
                label: run_foal(robot, starts["Foal"], timestep, 1.0, gains, cfg, ground)
                for label, cfg in foals.items()
            }
            runs["MuJoCo"] = run_mujoco(
                robot, starts["MuJoCo"], timestep, 1.0, gains, friction=FRICTION, terrain=ground
            )
            for label, run in runs.items():
                start = starts["MuJoCo" if label == "MuJoCo" else "Foal"]
                first = Run(
                    *(start[name][None] for name in ("base_position", "base_quaternion", "joint_position")),
                    run.force[:1],
                )
                moved = (feet(robot, Run(*(rows[-1:] for rows in run))) - feet(robot, first))[0]
                found[f"{factor:g} x friction, {label} [m]"] = float(
                    (moved @ [-math.cos(tilt), 0.0, -math.sin(tilt)]).mean()
                )
            found[f"{factor:g} x friction, Coulomb [m]"] = (
                0.5 * GRAVITY * max(0.0, math.sin(tilt) - FRICTION * math.cos(tilt))
            )
        return found

    return measure


def tilted(run: Run, tilt: float, yaw: np.ndarray) -> dict[str, np.ndarray]:
    """Return the end of a run on the level floor, turned and set on a slope, as arguments of set_state.

    yaw: the turn (N, 4); tilt: by which the slope rises along x [rad].
    """
    lean = np.array([math.cos(tilt / 2), 0.0, -math.sin(tilt / 2), 0.0])
    quaternion = np.zeros_like(yaw)
    for out, turn, own in zip(quaternion, yaw, run.quaternion[-1], strict=True):
        mj.mju_mulQuat(out, turn, own)
        mj.mju_mulQuat(out, lean, out.copy())
    up = np.array([-math.sin(tilt), 0.0, math.cos(tilt)])
    return {
        "base_position": run.position[-1, :, 2:] * up,
        "base_quaternion": quaternion,
        "joint_position": run.joints[-1],
    }


def stand(robot: Robot, seconds: float, n: int = 4) -> Callable[[float], dict[str, float]]:
    """Return the test of a stand on the held home pose: drift, height and force over weight.

    Drift is over all but the first 2 s; height and force over weight are those in the end.
    """
    rng = np.random.default_rng(3)
    start = {
        "base_position": np.tile([0.0, 0.0, robot.home_height], (n, 1)),
        "joint_position": robot.home_joints.ravel() + rng.uniform(-0.05, 0.05, (n, 12)),
    }
    gains = GAINS[robot.name]
    weight = robot.total_mass * GRAVITY
    settled = round(2.0 / SAMPLE)

    def measure(timestep: float) -> dict[str, float]:
        found = {}
        heights = []
        for label, run in (("Foal", run_foal), ("MuJoCo", run_mujoco)):
            r = run(robot, start, timestep, seconds, gains)
            found[f"{label}, drift [mm/s]"] = (
                1e3 * rms(np.linalg.norm((r.position[-1] - r.position[settled])[:, :2], axis=1)) / (seconds - 2.0)
            )
            found[f"{label}, force / weight - 1"] = float(r.force[-1, :, 2].mean() / weight - 1)
            heights.append(r.position[-1, :, 2].mean())
        return found | {"height, Foal - MuJoCo [mm]": 1e3 * float(heights[0] - heights[1])}

    return measure


def trots(robot: Robot, timestep: float) -> dict[str, float]:
    """Return how far trots of Foal and MuJoCo, with either cone, are from each other; see benchmarks/trot.py."""
    ours = trot.foal(timestep, robot.name)
    sharp, springy = (
        trot.foal(timestep, robot.name, cfg) for cfg in (PhysicsCfg(slip_speed=0.002), PhysicsCfg(contact_damping=0.0))
    )
    pyramid, ellipse, hard = (
        trot.mujoco(timestep, settings, robot.name)
        for settings in (Settings(), ELLIPTIC, dataclasses.replace(ELLIPTIC, solref=0.004))
    )
    return {
        "Foal - MuJoCo pyramidal": trot.error(ours, pyramid),
        "Foal - MuJoCo elliptic": trot.error(ours, ellipse),
        "Foal - MuJoCo elliptic, solref 4 ms": trot.error(ours, hard),
        "Foal, slip speed 2 mm/s - MuJoCo elliptic": trot.error(sharp, ellipse),
        "Foal, no contact damping - MuJoCo elliptic": trot.error(springy, ellipse),
        "MuJoCo pyramidal - elliptic": trot.error(pyramid, ellipse),
        "MuJoCo elliptic, solref 4 ms - 20 ms": trot.error(hard, ellipse),
    }


def main() -> None:
    """Measure, print the tables and, with --json, the result."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--robot", default="go1", choices=GAINS, help="the robot (default go1)")
    args = options.parse_args()
    about = machine.describe("mujoco", "numba", "numpy")
    robot = load_robot(args.robot)
    n = 8 if args.quick else 32
    timesteps = (1e-3, 2.5e-3, 5e-3) if args.quick else TIMESTEPS
    tests = {
        "Accelerations in the air, one step": lambda dt: accelerations(robot, dt),
        "Free flight, at 1 s, RMS over robots": flight(robot, n),
        "Drop by 0.05 to 0.1 m on a held pose": drop(robot, n),
        f"Slide of the feet in 1 s, friction {FRICTION:g}, slope as a multiple of it": slide(robot),
        "Stand": stand(robot, 4.0 if args.quick else 10.0),
        "Trot of 2 s: distance, RMS over time, over displacement": lambda dt: trots(robot, dt),
    }
    result = {}
    for title, measure in tests.items():
        result[title] = {dt: measure(dt) for dt in timesteps}
        rows = [("", *(f"{dt * 1e3:g} ms" for dt in timesteps))]
        rows += [
            (name, *(f"{result[title][dt][name]:.3g}" for dt in timesteps)) for name in result[title][timesteps[0]]
        ]
        machine.table(f"{title}: {args.robot}", rows, about)
    if args.json:
        machine.print_json(
            {title: {f"{dt:g}": values for dt, values in rows.items()} for title, rows in result.items()} | about
        )


if __name__ == "__main__":
    main()
