"""Physics steps per second of Foal and of MuJoCo: the same robots, states, torques and time step.

    python -m benchmarks.physics [--json] [--quick]

Go1 robots stand on four feet and hold torques that nearly carry them, for 0.2 s from the same
initial states in both engines: MuJoCo C through mujoco.rollout, Foal through PhysicsEngine.step.
Nothing is allocated and no state is set or read within the time taken.

MuJoCo runs at its fastest settings (Euler, Newton with 1 iteration and 4 line-search steps,
pyramidal cone); the ratios are to these. They do not solve this task: after one iteration the
solver's accelerations are good but its contact forces are not, and implicit joint damping steps
from the forces, so that the robots hop. With explicit damping (eulerdamp="disable") MuJoCo stands
as it does with its default of 100 iterations; that is shown beside, as "standing".

With everything on, the robots stand on rough ground, a field of heights; knees and the trunk's
corners touch it too; mass, friction and strength differ from robot to robot (MuJoCo takes one of
DIFFERENT models for each); Foal has motors with lag, delay and torque-speed curve beside.

In simulated seconds per second, every engine runs a trot (benchmarks/trot.py) at the largest time
step at which it stays within 1 % of its own converged solution, MuJoCo at whichever settings make it fastest so.
"""

import copy
import time
from collections.abc import Callable

import numpy as np

from benchmarks import machine, trot
from config import MotorCfg, PhysicsCfg, VaryCfg
from physics import PhysicsEngine, Terrain, load_robot, terrain
from physics.mjcf import to_mjcf

mujoco = machine.required("mujoco")
rollout = machine.required("mujoco.rollout")

ROBOT = "go1"
TIMESTEP = 0.002  # [s]
STEPS = 100  # before the robots are set back
ROBOTS = 2048
SIZES = (16, 64, 256, 1024, 4096, 16384, 65536)  # robots of the table
CHECKED = 128  # robots whose contacts are counted
CONTACT_THRESHOLD = 1.0  # [N]
DIFFERENT = 64  # models of MuJoCo's robots that differ
# rough ground: +-height, side [m]
AMPLITUDE = 0.05
FIELD = 32.0


def standing_states(model: mujoco.MjModel, robots: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions (N, 19), velocities (N, 18) and motor torques (N, 12) of robots that stand at home.

    Feet are as deep in the ground as Foal's contact gives way under the robot's weight. Velocities
    are random: base +-0.1 m/s and +-0.2 rad/s, joints +-0.5 rad/s. Torques are those that carry the
    robot at rest, each +-0.5 N m, so that the robots neither collapse nor take off.
    """
    random = np.random.default_rng(seed)
    robot = load_robot(ROBOT)
    d = mujoco.MjData(model)
    d.qpos[:] = 0, 0, robot.home_height, 1, 0, 0, 0, *robot.home_joints.ravel()
    mujoco.mj_forward(model, d)
    feet = [model.geom(leg).id for leg in ("FL", "FR", "RL", "RR")]
    d.qpos[2] -= (d.geom_xpos[feet, 2] - robot.foot_radius).min() + 0.0015
    mujoco.mj_forward(model, d)
    jacobian = np.zeros((4, 3, model.nv))
    for k, foot in enumerate(feet):
        mujoco.mj_jac(
            model, d, jacobian[k], None, d.geom_xpos[foot] - [0, 0, robot.foot_radius[k]], model.geom_bodyid[foot]
        )
    # vertical forces of the feet that hold the base, then the torques that hold the joints against them
    lift = jacobian[:, 2].T  # (18, 4)
    force = np.linalg.lstsq(lift[:6], d.qfrc_bias[:6], rcond=None)[0]
    holding = (d.qfrc_bias - lift @ force)[6:]
    spread = np.array([0.1] * 3 + [0.2] * 3 + [0.5] * 12)
    velocity = random.uniform(-spread, spread, (robots, 18))
    torque = holding + random.uniform(-0.5, 0.5, (robots, 12))
    return np.tile(d.qpos, (robots, 1)), velocity, torque


def set_foal(engine: PhysicsEngine, position: np.ndarray, velocity: np.ndarray, torque: np.ndarray) -> None:
    """Set the robots to the first of the states, in MuJoCo's coordinates, and their torques."""
    q = position[: engine.num_envs]
    v = velocity[: engine.num_envs]
    t = torque[: engine.num_envs]
    engine.set_state(
        base_position=q[:, :3], base_quaternion=q[:, 3:7], joint_position=q[:, 7:],
        base_linear_velocity=v[:, :3], base_angular_velocity=v[:, 3:6], joint_velocity=v[:, 6:],
    )  # fmt: skip
    engine.apply_motor_torques(t)


def stepping(engine: PhysicsEngine, states: tuple, rounds: int) -> Callable[[], float]:
    """Return a measurement of an engine: physics steps per second over some rounds, each from the initial states."""

    def run() -> float:
        seconds = 0.0
        for _ in range(rounds):
            set_foal(engine, *states)
            start = time.perf_counter()
            engine.step(STEPS)
            seconds += time.perf_counter() - start
        if engine.broken.any():
            raise RuntimeError(f"{engine.broken.sum()} robots broke")
        return rounds * engine.num_envs * STEPS / seconds

    return run


def foal(states: tuple, threads: int, robots: int = ROBOTS, rounds: int = 20) -> Callable[[], float]:
    """Return a measurement of Foal: physics steps per second over some rounds, each from the initial states."""
    engine = PhysicsEngine(load_robot(ROBOT), num_envs=robots, timestep=TIMESTEP, threads=threads)
    return stepping(engine, states, rounds)


def mujoco_states(states: tuple) -> np.ndarray:
    """Return states as mujoco.rollout takes them, (N, 38): time, position, velocity."""
    position, velocity, _ = states
    return np.ascontiguousarray(np.concatenate((np.zeros((len(position), 1)), position, velocity), axis=1))


def mujoco_c(model: mujoco.MjModel | list, states: tuple, threads: int, robots: int = ROBOTS) -> Callable[[], float]:
    """Return a measurement of MuJoCo: physics steps per second of one rollout, entirely in C.

    model: of all robots, or one for each. It neither checks its inputs nor writes trajectories out.
    """
    initial = mujoco_states(states)[:robots].copy()
    control = np.repeat(states[2][:robots, None], STEPS, axis=1)
    models = model if isinstance(model, list) else [model] * robots
    datas = [mujoco.MjData(models[0]) for _ in range(threads)]
    pool = rollout.Rollout(nthread=threads if threads > 1 else 0)

    def run() -> float:
        start = time.perf_counter()
        pool.rollout(models, datas, initial, control, skip_checks=True, nstep=STEPS)
        return robots * STEPS / (time.perf_counter() - start)

    return run


def settled(ground: Terrain, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return states, as standing_states(), of robots that came to rest all over a terrain, and torques that hold them.

    Each torque is off by up to 0.5 N m.
    """
    random = np.random.default_rng(seed)
    robot = load_robot(ROBOT)
    engine = PhysicsEngine(robot, ROBOTS, TIMESTEP, cfg=PhysicsCfg(body_contact=True), terrain=ground)
    place = random.uniform(-0.4 * FIELD, 0.4 * FIELD, (ROBOTS, 2))
    home = np.tile(robot.home_joints.ravel(), (ROBOTS, 1))
    engine.set_state(
        base_position=np.column_stack((place, ground.height(*place.T) + robot.home_height + AMPLITUDE)),
        joint_position=home,
    )
    for _ in range(500):
        state = engine.get_state()
        torque = 60.0 * (home - state.joint_position) - 2.0 * state.joint_velocity
        engine.apply_motor_torques(torque)
        engine.step()
    state = engine.get_state()
    position = np.concatenate((state.base_position, state.base_quaternion, state.joint_position), axis=1)
    velocity = np.concatenate((state.base_linear_velocity, state.base_angular_velocity, state.joint_velocity), axis=1)
    return position.astype(float), velocity.astype(float), torque + random.uniform(-0.5, 0.5, torque.shape)


def foal_everything(states: tuple, ground: Terrain, rounds: int = 10) -> Callable[[], float]:
    """Return a measurement of Foal with everything on: physics steps per second on one thread."""
    cfg = PhysicsCfg(
        body_contact=True, friction_model="coulomb+viscous", restitution=0.9, motor=MotorCfg(enabled=True, delay=0.005)
    )
    engine = PhysicsEngine(load_robot(ROBOT), len(states[0]), TIMESTEP, 1, cfg, ground, differ=True)
    engine.vary(
        VaryCfg(
            friction=(0.6, 1.4),
            trunk_mass=(0.9, 1.1),
            trunk_shift=0.02,
            link_mass=(0.9, 1.1),
            strength=(0.9, 1.1),
            delay=(0.0, 0.005),
        )
    )
    return stepping(engine, states, rounds)


def mujoco_everything(states: tuple, ground: Terrain, robots: int = 512) -> Callable[[], float]:
    """Return the same of MuJoCo."""
    random = np.random.default_rng(1)
    model = mujoco.MjModel.from_xml_string(to_mjcf(load_robot(ROBOT), TIMESTEP, terrain=ground, body_contact=True))
    models = []
    for _ in range(DIFFERENT):
        models.append(copy.copy(model))
        models[-1].geom_friction[:, 0] = 0.8 * random.uniform(0.6, 1.4)
        mass = random.uniform(0.9, 1.1)
        models[-1].body_mass[1] *= mass
        models[-1].body_inertia[1] *= mass
        models[-1].body_ipos[1] += random.uniform(-0.02, 0.02, 3)
        models[-1].actuator_ctrlrange[:] *= random.uniform(0.9, 1.1)
    return mujoco_c((models * (robots // DIFFERENT)), states, 1, robots)


def foal_trot(timestep: float, robots: int = ROBOTS) -> Callable[[], float]:
    """Return a measurement of Foal: simulated seconds per second of trotting robots, on one thread."""
    robot = load_robot(ROBOT)
    engine = PhysicsEngine(robot, robots, timestep, 1)
    start = trot.initial(robot)
    copies = robots // trot.ROBOTS
    start = {name: np.tile(value, (copies, 1)) for name, value in start.items()}
    goals = [
        np.tile(trot.targets(robot, k * trot.CONTROL), (copies, 1)) for k in range(round(trot.DURATION / trot.CONTROL))
    ]

    def run() -> float:
        engine.set_state(
            **start, base_quaternion=np.tile([1.0, 0, 0, 0], (robots, 1)), base_angular_velocity=np.zeros((robots, 3))
        )
        engine.set_state(joint_velocity=np.zeros((robots, 12)))
        seconds = 0.0
        for goal in goals:
            engine.set_joint_targets(goal, *trot.GAINS[ROBOT])
            begin = time.perf_counter()
            engine.step(round(trot.CONTROL / timestep))
            seconds += time.perf_counter() - begin
        return robots * trot.DURATION / seconds

    return run


def mujoco_trot(timestep: float, settings: trot.Settings, robots: int = 2 * trot.ROBOTS) -> Callable[[], float]:
    """Return the same of MuJoCo: one rollout, entirely in C."""
    robot = load_robot(ROBOT)
    model = trot.pd_model(robot, timestep, settings, trot.GAINS[ROBOT])
    start = trot.initial(robot)
    copies = robots // trot.ROBOTS
    held = round(trot.CONTROL / timestep)
    upright = np.tile([1.0, 0, 0, 0], (trot.ROBOTS, 1))
    state = np.zeros((robots, 1 + model.nq + model.nv))
    state[:, 1 : 1 + model.nq] = np.tile(
        np.concatenate((start["base_position"], upright, start["joint_position"]), axis=1), (copies, 1)
    )
    state[:, 1 + model.nq : 4 + model.nq] = np.tile(start["base_linear_velocity"], (copies, 1))
    goals = [
        np.tile(trot.targets(robot, k * trot.CONTROL), (copies, 1)) for k in range(round(trot.DURATION / trot.CONTROL))
    ]
    control = np.repeat(np.stack(goals, 1), held, axis=1)
    data = [mujoco.MjData(model)]
    pool = rollout.Rollout(nthread=0)

    def run() -> float:
        begin = time.perf_counter()
        pool.rollout([model] * robots, data, state, control, skip_checks=True, nstep=control.shape[1])
        return robots * trot.DURATION / (time.perf_counter() - begin)

    return run


def realtime(repetitions: int) -> tuple[dict[str, float], list[tuple]]:
    """Return simulated seconds per second of both engines, and a table.

    Each takes its largest time step within 1 % of the converged trot.
    """
    mujoco.set_mju_user_warning(lambda text: None)  # of robots that one iteration lets fly apart: their errors say so
    solved = trot.mujoco(trot.CONVERGED)
    largest = {"Foal": trot.largest_timestep(trot.foal)[0]}
    runs = {"Foal": foal_trot(largest["Foal"])}
    for settings in trot.SETTINGS:
        timestep = trot.largest_timestep(lambda dt, s=settings: trot.mujoco(dt, s), reference=solved)[0]
        if timestep:
            largest[str(settings)] = timestep
            runs[str(settings)] = mujoco_trot(timestep, settings)
    rates = machine.interleaved(runs, repetitions)
    best = max((name for name in rates if name != "Foal"), key=rates.get)
    rows = [("1 thread", "largest time step", "simulated s per s", "ratio")]
    for name, rate in rates.items():
        label = name if name == "Foal" else f"MuJoCo, {name}"
        rows.append((label, f"{largest[name] * 1e3:g} ms", f"{rate:,.0f}", f"{rates['Foal'] / rate:.0f}"))
    result = {
        "realtime_ratio": rates["Foal"] / rates[best],
        "foal_largest_timestep": largest["Foal"],
        "mujoco_largest_timestep": largest[best],
    }
    return result | {
        "foal_realtime": rates["Foal"],
        "mujoco_realtime": rates[best],
        "mujoco_realtime_settings": best,
    }, rows


def contact_in_foal(states: tuple) -> tuple[float, float]:
    """Return the share of feet that bear more than 1 N, over every step, and the base's mean height in the end [m]."""
    engine = PhysicsEngine(load_robot(ROBOT), num_envs=CHECKED, timestep=TIMESTEP, threads=1)
    set_foal(engine, *states)
    bearing = 0
    for _ in range(STEPS):
        engine.step()
        bearing += (np.linalg.norm(engine.get_state().foot_contact_force, axis=-1) > CONTACT_THRESHOLD).sum()
    return float(bearing / (CHECKED * STEPS * 4)), float(engine.get_state().base_position[:, 2].mean())


def contact_in_mujoco(model: mujoco.MjModel, states: tuple) -> tuple[float, float]:
    """Return what contact_in_foal returns, of MuJoCo."""
    bearing = 0
    height = 0.0
    d = mujoco.MjData(model)
    force = np.zeros(6)
    for start, torque in zip(mujoco_states(states)[:CHECKED], states[2], strict=False):
        mujoco.mj_resetData(model, d)
        mujoco.mj_setState(model, d, start, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        d.ctrl[:] = torque
        for _ in range(STEPS):
            mujoco.mj_step(model, d)
            for k in range(d.ncon):
                mujoco.mj_contactForce(model, d, k, force)
                bearing += force[:3] @ force[:3] > CONTACT_THRESHOLD**2
        height += d.qpos[2] / CHECKED
    return float(bearing / (CHECKED * STEPS * 4)), float(height)


def main() -> None:
    """Measure, print the tables and, with --json, the result."""
    args = machine.parser(__doc__.splitlines()[0]).parse_args()
    about = machine.describe("mujoco", "numba", "numpy")
    threads = about["cores"]
    model = mujoco.MjModel.from_xml_string(to_mjcf(load_robot(ROBOT), TIMESTEP))
    standing = copy.copy(model)
    standing.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP
    states = standing_states(model, max(SIZES))
    ground = terrain.rough(AMPLITUDE, 0.4, size=FIELD)
    rough = settled(ground)
    contact = {
        "foal": contact_in_foal(states),
        "mujoco": contact_in_mujoco(model, states),
        "mujoco_standing": contact_in_mujoco(standing, states),
    }
    result = machine.interleaved(
        {
            "mujoco_steps_per_second_1": mujoco_c(model, states, 1),
            "foal_steps_per_second_1": foal(states, 1),
            "mujoco_standing_steps_per_second_1": mujoco_c(standing, states, 1),
            "mujoco_steps_per_second_all": mujoco_c(model, states, threads),
            "foal_steps_per_second_all": foal(states, threads),
            "mujoco_standing_steps_per_second_all": mujoco_c(standing, states, threads),
            "mujoco_steps_per_second_full": mujoco_everything(rough, ground),
            "foal_steps_per_second_full": foal_everything(rough, ground),
        },
        3 if args.quick else 7,
    )
    for n in ("1", "all"):
        for name in ("mujoco", "mujoco_standing"):
            result[f"{name}_ratio_{n}"] = result[f"foal_steps_per_second_{n}"] / result[f"{name}_steps_per_second_{n}"]
    result["mujoco_ratio_full"] = result["foal_steps_per_second_full"] / result["mujoco_steps_per_second_full"]
    result["thread_scaling_2"] = machine.paired_ratio(foal(states, 2, rounds=5), foal(states, 1, rounds=5), 15)
    for name, (share, height) in contact.items():
        result |= {f"{name}_feet_in_contact": share, f"{name}_final_height": height}
    real_time, trot_rows = realtime(3 if args.quick else 5)
    result |= real_time
    sizes = []
    for robots in SIZES:
        # as many steps for every size, so that the smallest is not lost in the clock's grain
        rounds = max(1, 16384 // robots)
        rates = machine.interleaved(
            {str(n): foal(states, n, robots, rounds) for n in dict.fromkeys((1, threads))}, 1 if args.quick else 3
        )
        sizes.append({"robots": robots, "steps_per_second_1": rates["1"], "steps_per_second_all": rates[str(threads)]})

    rows = [("", "1 thread", "ratio", f"{threads} threads", "ratio", "feet in contact", "height after 0.2 s")]
    for label, name in (("MuJoCo, fastest", "mujoco"), ("MuJoCo, standing", "mujoco_standing"), ("Foal", "foal")):
        rates = [
            x
            for n in ("1", "all")
            for x in (f"{result[f'{name}_steps_per_second_{n}']:,.0f}", f"{result.get(f'{name}_ratio_{n}', 1):.1f}")
        ]
        rows.append((label, *rates, f"{contact[name][0]:.1%}", f"{contact[name][1]:.4f} m"))
    machine.table(
        f"Physics steps per second: {ROBOTS} {ROBOT}, {TIMESTEP * 1e3:g} ms, {STEPS} steps from the same states; "
        "ratio: Foal's over it",
        rows,
        about,
    )
    print(f"Foal on 2 threads over 1: {result['thread_scaling_2']:.2f}\n")
    rows = [
        ("", "1 thread", "ratio"),
        ("MuJoCo", f"{result['mujoco_steps_per_second_full']:,.0f}", f"{result['mujoco_ratio_full']:.1f}"),
    ]
    rows.append(("Foal", f"{result['foal_steps_per_second_full']:,.0f}", "1.0"))
    machine.table(
        f"Everything on: knees, trunk, ground rough by {AMPLITUDE:g} m, robots that differ, motors", rows, about
    )
    machine.table(
        "A trot of 2 s, every engine at its largest time step within 1 % of its own converged solution",
        trot_rows,
        about,
    )
    rows = [(s["robots"], f"{s['steps_per_second_1']:,.0f}", f"{s['steps_per_second_all']:,.0f}") for s in sizes]
    machine.table("Foal by number of robots", [("robots", "1 thread", f"{threads} threads"), *rows], about)
    if args.json:
        machine.print_json(result | {"robots": ROBOTS, "steps": STEPS, "timestep": TIMESTEP, "sizes": sizes} | about)


if __name__ == "__main__":
    main()
