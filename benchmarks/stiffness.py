"""The largest time step that each contact stiffness tolerates, for every robot.

    python -m benchmarks.stiffness [--robot go1] [--json] [--quick]

Hard landings: 64 robots of any attitude and random joint angles meet the ground at 2 m/s down, about
1 m/s across, spinning, joints at some rad/s, motors off; feet alone, and knees and trunk too. Over
1 s no robot may break, and energy, springs included, may not rise by more than 2 % of a landing's.
Stand: robots hold the home pose by a PD law; after 2 s the base's velocity, less its mean over 0.2 s,
must stay below 1 mm/s, or below 1.5 times that at 0.5 ms where a soft spring without damper still
swings. A limit is the largest time step up to which every smaller one passes.
"""

import functools
import warnings
from collections.abc import Callable

import numpy as np

from benchmarks import machine
from benchmarks.agreement import put, tumbling
from benchmarks.trot import GAINS
from config import PhysicsCfg
from physics import PhysicsEngine, Robot, load_robot
from physics.contact import largest_timestep
from physics.mjcf import to_mjcf
from physics.robot import LEGS

mj = machine.required("mujoco")

STIFFNESSES = (1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)  # [N/m]
DAMPINGS = (100.0, 0.0)  # [N s/m]
TIMESTEPS = (5e-4, 7e-4, 1e-3, 1.4e-3, 2e-3, 2.5e-3, 3e-3, 4e-3, 5e-3, 6e-3, 8e-3, 1e-2, 1.4e-2, 2e-2)  # [s]
ROBOTS = 64
# of a landing [m/s], of energy that is too much [1]
SPEED = 2.0
GAIN = 0.02
JITTER = 1e-3  # [m/s]


class Meter:
    """Measures energy and height of robots by MuJoCo's equations."""

    def __init__(self, robot: Robot, body: bool) -> None:
        self.model = mj.MjModel.from_xml_string(to_mjcf(robot, body_contact=True))
        self.model.opt.disableflags |= mj.mjtDisableBit.mjDSBL_CONTACT
        self.data = mj.MjData(self.model)
        self.spheres = [
            self.model.geom(f"{leg}{part}").id for part in (("", "_knee") if body else ("",)) for leg in LEGS
        ]
        self.corners = (
            np.stack(np.meshgrid(*[[-1, 1]] * 3), -1).reshape(8, 3) * robot.trunk_half_extents + robot.trunk_centre
            if body
            else np.zeros((0, 3))
        )

    def gaps(self) -> np.ndarray:
        """Return how far what touches the ground is above it [m]."""
        spheres = self.data.geom_xpos[self.spheres, 2] - self.model.geom_size[self.spheres, 0]
        return np.concatenate([spheres, (self.data.qpos[:3] + self.corners @ self.data.xmat[1].reshape(3, 3).T)[:, 2]])

    def lowest(self, start: dict[str, np.ndarray]) -> np.ndarray:
        """Return each robot's least gap (N) [m]; start: arguments of set_state."""
        least = []
        for i in range(len(start["base_position"])):
            put(self.model, self.data, start, i)
            mj.mj_kinematics(self.model, self.data)
            least.append(self.gaps().min())
        return np.array(least)

    def energy(self, start: dict[str, np.ndarray], stiffness: float) -> np.ndarray:
        """Return each robot's kinetic and potential energy and that of its contacts' springs (N) [J]."""
        out = []
        for i in range(len(start["base_position"])):
            put(self.model, self.data, start, i)
            mj.mj_fwdPosition(self.model, self.data)
            mj.mj_energyPos(self.model, self.data)
            mj.mj_fwdVelocity(self.model, self.data)
            mj.mj_energyVel(self.model, self.data)
            out.append(self.data.energy.sum() + 0.5 * stiffness * (np.minimum(self.gaps(), 0.0) ** 2).sum())
        return np.array(out)


@functools.cache
def falling(name: str) -> dict[str, np.ndarray]:
    """Return the start of landings: everything 1 cm or more above the ground."""
    robot = load_robot(name)
    start = tumbling(robot, ROBOTS)
    start["base_quaternion"] /= np.linalg.norm(start["base_quaternion"], axis=1, keepdims=True)
    start["base_linear_velocity"][:, 2] = -SPEED
    start["base_position"][:, 2] += 0.01 - Meter(robot, True).lowest(start)
    return start


def quiet_engine(robot: Robot, n: int, timestep: float, **cfg: object) -> PhysicsEngine:
    """Return an engine that does not warn of what is being measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PhysicsEngine(robot, n, timestep, 1, PhysicsCfg(**cfg))


def lands(name: str, timestep: float, body: bool, **cfg: float) -> bool:
    """Return whether no robot breaks or gains energy in a landing."""
    robot = load_robot(name)
    start = falling(name)
    engine = quiet_engine(robot, ROBOTS, timestep, body_contact=body, **cfg)
    meter = Meter(robot, body)
    engine.set_state(**start)
    allowed = GAIN * 0.5 * robot.total_mass * SPEED**2
    least = meter.energy(start, cfg["contact_stiffness"])
    for _ in range(16):
        engine.step(max(1, round(0.06 / timestep)))
        if engine.broken.any():
            return False
        state = engine.get_state()
        energy = meter.energy({field: getattr(state, field) for field in start}, cfg["contact_stiffness"])
        if (energy > least + allowed).any():
            return False
        least = np.minimum(least, energy)
    return True


def jitter(name: str, timestep: float, **cfg: float) -> float:
    """Return the base's velocity, RMS, less its mean, of robots that stand [m/s]."""
    robot = load_robot(name)
    n = 4
    engine = quiet_engine(robot, n, timestep, **cfg)
    engine.set_state(joint_position=robot.home_joints.ravel() + np.random.default_rng(0).uniform(-0.05, 0.05, (n, 12)))
    engine.set_joint_targets(np.tile(robot.home_joints.ravel(), (n, 1)), *GAINS[name])
    engine.step(round(2.0 / timestep))
    velocity = []
    for _ in range(round(0.2 / timestep)):
        engine.step()
        velocity.append(engine.get_state().base_linear_velocity)
    velocity = np.array(velocity, float)
    return float(np.sqrt(((velocity - velocity.mean(0)) ** 2).sum(2).mean())) if not engine.broken.any() else np.inf


def limit(passes: Callable[[float], bool]) -> float:
    """Return the largest of TIMESTEPS up to which all pass [s], 0 if none does."""
    largest = 0.0
    for timestep in TIMESTEPS:
        if not passes(timestep):
            break
        largest = timestep
    return largest


def main() -> None:
    """Measure, print the tables and, with --json, the result."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--robot", choices=GAINS, help="the robot (default: all)")
    args = options.parse_args()
    about = machine.describe("mujoco", "numba", "numpy")
    result = {}
    for name in [args.robot] if args.robot else GAINS:
        mass = load_robot(name).foot_mass()
        rows = []
        for stiffness in STIFFNESSES[::3] if args.quick else STIFFNESSES:
            row: dict[str, float] = {}
            for damping in DAMPINGS:
                cfg = {"contact_stiffness": stiffness, "contact_damping": damping}
                for label, body in (("feet", False), ("body", True)):
                    row[f"{label}, {damping:g}"] = limit(
                        lambda dt, name=name, body=body, cfg=cfg: lands(name, dt, body, **cfg)
                    )
                allowed = max(JITTER, 1.5 * jitter(name, TIMESTEPS[0], **cfg))
                row[f"stand, {damping:g}"] = limit(
                    lambda dt, name=name, cfg=cfg, allowed=allowed: jitter(name, dt, **cfg) < allowed
                )
            rows.append({"stiffness": stiffness} | row | {"formula": largest_timestep(stiffness, mass)})
        result[name] = rows
        heading = [key.replace(", ", ", d = ") for key in rows[0]]
        cells = [
            (f"{row['stiffness']:g}", *(f"{1e3 * x:.3g}" for key, x in row.items() if key != "stiffness"))
            for row in rows
        ]
        machine.table(
            f"Largest time step [ms] by contact stiffness [N/m] and damping d [N s/m]: {name}, foot mass {mass:.3f} kg",
            [heading, *cells],
            about,
        )
    if args.json:
        machine.print_json(result | about)


if __name__ == "__main__":
    main()
