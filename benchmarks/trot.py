"""A trot under a PD law in Foal and in MuJoCo, and how far each is from its own converged solution.

    python -m benchmarks.trot [--robot go1] [--json] [--quick]

Robots start near the home pose and trot for 2 s, each with a gait of its own, drawn once and the same
in both engines: how large a time step may be depends on the gait as much as on the engine. Joint
targets change every 20 ms, the PD law acts at every step. A trajectory is that of the base origin.
Its error is its distance from another one, RMS over time, over the RMS displacement of that other
one; the median over the robots.

Converged is a time step of 0.1 ms, in MuJoCo with 100 iterations. The largest time step within
TOLERANCE of it is that up to which every candidate is; a setting of MuJoCo is as good as the
solution that its iterations and its integrator leave of that.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks import machine
from config import PhysicsCfg
from physics import PhysicsEngine, Robot, load_robot
from physics.mjcf import to_mjcf

mj = machine.required("mujoco")

GAINS = {
    "go1": (40.0, 1.0),
    "go2": (40.0, 1.0),
    "anymal_c": (100.0, 2.0),
    "spot": (400.0, 8.0),
}  # kp [N m/rad], kd [N m s/rad]
ROBOTS = 32
# [s]
DURATION = 2.0
CONTROL = 0.02
CONVERGED = 1e-4  # time step [s]
TOLERANCE = 0.01  # error of a trajectory that is converged well enough
TIMESTEPS = (5e-4, 1e-3, 1.25e-3, 2e-3, 2.5e-3, 4e-3, 5e-3)  # whole shares of CONTROL [s]
GAIT = (
    (1.5, 2.5),
    (0.25, 0.45),
    (0.15, 0.3),
    (-0.05, 0.05),
)  # strides [1/s]; thigh lifted, aft and fore, mean [rad]; uniform between
PHASE = np.array([0.0, np.pi, np.pi, 0.0])  # of the legs


@dataclasses.dataclass(frozen=True)
class Settings:
    """How MuJoCo solves.

    eulerdamp: Euler's joint damping is implicit; iterations: of Newton's method; cone: of friction; solref: contacts'
    time constant [s].
    """

    integrator: str = "Euler"
    iterations: int = 100
    eulerdamp: bool = True
    cone: str = "pyramidal"
    solref: float = 0.02

    def __str__(self) -> str:
        damping = "" if self.eulerdamp or self.integrator != "Euler" else ", eulerdamp off"
        return f"{self.integrator}, {self.iterations} iteration{'s' * (self.iterations > 1)}{damping}"


SETTINGS = tuple(
    Settings(integrator, n, damped)
    for integrator, damped in (("Euler", True), ("Euler", False), ("implicitfast", True))
    for n in (1, 3, 5, 100)
)


def gaits(seed: int = 1) -> np.ndarray:
    """Return what GAIT names for every robot (ROBOTS, 4)."""
    low, high = np.transpose(GAIT)
    return np.random.default_rng(seed).uniform(low, high, (ROBOTS, 4))


def targets(robot: Robot, t: float) -> np.ndarray:
    """Return the joint targets of trots at a time (ROBOTS, 12) [rad].

    Diagonal legs move together, backwards, the stride growing over 0.2 s.
    """
    frequency, fold, swing, lean = gaits().T[..., None]  # (ROBOTS, 1) each
    angle = 2 * np.pi * frequency * t + PHASE
    lift = fold * np.maximum(0.0, np.sin(angle))
    grown = min(t / 0.2, 1.0)
    bend = np.sign(robot.home_joints[:, 2])  # of knees to the rear -1
    target = np.tile(robot.home_joints, (ROBOTS, 1, 1))
    target[..., 1] += grown * (-bend * lift - swing * np.cos(angle) + lean)
    target[..., 2] += grown * 2 * bend * lift
    return target.reshape(ROBOTS, 12)


def initial(robot: Robot, seed: int = 0) -> dict[str, np.ndarray]:
    """Return arguments of set_state: the home pose, joints +-0.05 rad, base +-0.1 m/s."""
    rng = np.random.default_rng(seed)
    return {
        "joint_position": robot.home_joints.ravel() + rng.uniform(-0.05, 0.05, (ROBOTS, 12)),
        "base_linear_velocity": rng.uniform(-0.1, 0.1, (ROBOTS, 3)),
        "base_position": np.tile([0.0, 0.0, robot.home_height], (ROBOTS, 1)),
    }


def foal(timestep: float, robot: str = "go1", cfg: PhysicsCfg | None = None) -> np.ndarray:
    """Return the trajectories of the base in Foal, (DURATION / CONTROL, ROBOTS, 3) [m]; timestep: [s]."""
    facts = load_robot(robot)
    engine = PhysicsEngine(facts, ROBOTS, timestep, 1, cfg)
    engine.set_state(**initial(facts))
    out = np.empty((round(DURATION / CONTROL), ROBOTS, 3))
    for k in range(len(out)):
        engine.set_joint_targets(targets(facts, k * CONTROL), *GAINS[robot])
        engine.step(round(CONTROL / timestep))
        out[k] = engine.get_state().base_position
    return out


def pd_model(
    robot: Robot, timestep: float, settings: Settings, gains: tuple[float, float], **options: object
) -> mj.MjModel:
    """Return a robot in MuJoCo whose controls are joint targets [rad].

    timestep: [s]; gains: kp [N m/rad] and kd [N m s/rad] of the PD law, whose torque is cut at the
    motors' limits; options: of to_mjcf().
    """
    iterations = f'iterations="{settings.iterations}" ls_iterations="{50 if settings.iterations > 3 else 4}"'
    model = mj.MjModel.from_xml_string(to_mjcf(robot, timestep, option=iterations, **options))
    model.opt.integrator = {"Euler": mj.mjtIntegrator.mjINT_EULER, "implicitfast": mj.mjtIntegrator.mjINT_IMPLICITFAST}[
        settings.integrator
    ]
    model.opt.cone = {"pyramidal": mj.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mj.mjtCone.mjCONE_ELLIPTIC}[settings.cone]
    model.geom_solref[:, 0] = settings.solref
    if not settings.eulerdamp:
        model.opt.disableflags |= mj.mjtDisableBit.mjDSBL_EULERDAMP
    kp, kd = gains
    model.actuator_gainprm[:, 0] = kp
    model.actuator_biastype[:] = mj.mjtBias.mjBIAS_AFFINE
    model.actuator_biasprm[:, 1] = -kp
    model.actuator_biasprm[:, 2] = -kd
    model.actuator_forcerange[:] = model.actuator_ctrlrange
    model.actuator_forcelimited[:] = True
    model.actuator_ctrllimited[:] = False
    return model


def mujoco(timestep: float, settings: Settings | None = None, robot: str = "go1") -> np.ndarray:
    """Return the trajectories of the base in MuJoCo, as foal() does."""
    facts = load_robot(robot)
    model = pd_model(facts, timestep, settings or Settings(), GAINS[robot])
    start = initial(facts)
    out = np.empty((round(DURATION / CONTROL), ROBOTS, 3))
    controls = [targets(facts, k * CONTROL) for k in range(len(out))]
    data = mj.MjData(model)
    for i in range(ROBOTS):
        mj.mj_resetData(model, data)
        data.qpos[:] = *start["base_position"][i], 1, 0, 0, 0, *start["joint_position"][i]
        data.qvel[:3] = start["base_linear_velocity"][i]
        for k, control in enumerate(controls):
            data.ctrl[:] = control[i]
            mj.mj_step(model, data, round(CONTROL / timestep))
            out[k, i] = data.qpos[:3]
    return out


def error(trajectory: np.ndarray, reference: np.ndarray) -> float:
    """Return RMS distance from a reference over its RMS displacement, both over time, median over robots [1].

    Both are (T, N, 3); the displacement is that from the reference's first row.
    """
    apart = np.sqrt(((trajectory - reference) ** 2).sum(2).mean(0))
    moved = np.sqrt(((reference - reference[0]) ** 2).sum(2).mean(0))
    return float(np.median(apart / moved))


def largest_timestep(
    run: Callable[[float], np.ndarray],
    candidates: Iterable[float] = TIMESTEPS,
    reference: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[float, dict[float, float]]:
    """Return the largest time step up to which all candidates are within the tolerance [s], and each one's error.

    The time step is 0 if not even the smallest is within it.

    run: of a time step, returns a trajectory; reference: the converged one, by default run(CONVERGED).
    """
    reference = run(CONVERGED) if reference is None else reference
    errors = {dt: error(run(dt), reference) for dt in sorted(candidates)}
    largest = 0.0
    for dt, wrong in errors.items():
        if not wrong <= tolerance:
            break
        largest = dt
    return largest, errors


def main() -> None:
    """Measure, print the table and, with --json, the result."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--robot", default="go1", choices=GAINS, help="the robot (default go1)")
    args = options.parse_args()
    about = machine.describe("mujoco", "numba", "numpy")
    mj.set_mju_user_warning(lambda text: None)  # of robots that one iteration lets fly apart: their errors say so
    timesteps = (1e-3, 2.5e-3, 5e-3) if args.quick else TIMESTEPS
    solved = mujoco(CONVERGED, Settings(), args.robot)
    found = {"Foal": largest_timestep(lambda dt: foal(dt, args.robot), timesteps)}
    for settings in SETTINGS:
        found[f"MuJoCo, {settings}"] = largest_timestep(
            lambda dt, s=settings: mujoco(dt, s, args.robot), timesteps, solved
        )
    rows = [("error of the base's trajectory at", *(f"{dt * 1e3:g} ms" for dt in timesteps), "largest within 1 %")]
    rows += [
        (name, *(f"{x:.2%}" for x in errors.values()), f"{largest * 1e3:g} ms" if largest else "none")
        for name, (largest, errors) in found.items()
    ]
    machine.table(
        f"A trot of {DURATION:g} s of {args.robot}, against each engine's own solution at {CONVERGED * 1e3:g} ms",
        rows,
        about,
    )
    if args.json:
        machine.print_json(
            {
                name: {"largest_timestep": largest, "errors": list(errors.items())}
                for name, (largest, errors) in found.items()
            }
            | about
        )


if __name__ == "__main__":
    main()
