"""What the kernel knows of the world and of a robot: arrays of numbers, packed here, and the Model that holds them.

The equations of motion of a leg hold in any frames whose axes are those of its joints, and for any
masses that move alike. Both freedoms are used up here, once, so that most numbers are zero in the
kernel, for every robot:

Frames. The hip's origin slides along its axis to where the thigh's axis crosses it or passes it
vertically; the thigh's and calf's origins slide along theirs into the same vertical plane; the
thigh's and calf's frames turn about y until the calf's origin and the foot lie straight below
theirs. What is left of five vectors is the hip's place, RISE, THIGH_LENGTH, FOOT_SIDE and
CALF_LENGTH, and constants THIGH_TURN and CALF_TURN to add to joint angles.

Masses. Mass on a joint's axis moves with either of its links. As much as there is of a link, its
mass, its first moment along the axis and its second moment along the axis, is moved to the parent:
the base parameters of Gautier and Khalil (1990). A link keeps two of its three first moments and
five of its six second moments, and the trunk carries all mass; motion is the same to the last digit.
"""

from typing import Any, NamedTuple

import numpy as np

from config import MotorCfg, PhysicsCfg
from physics.jit import real
from physics.robot import Robot

# World: world_constants()
TIMESTEP = 0  # [s]
GRAVITY = 1  # [m/s^2]
# contact [N/m], [N s/m], [1]
STIFFNESS = 2
CONTACT_DAMPING = 3
RESTITUTION = 4
# friction [1], what static adds [1], [m/s], [N s/m], [m/s]
KINETIC = 5
STATIC = 6
STRIBECK_SPEED = 7
VISCOUS = 8
SLIP_SPEED = 9
GRIP_TIME = 10  # in which friction stops what slips [s]
FRICTION_SPEED = 11  # dry friction of a joint [rad/s]
# end stop of a joint [N m/rad], [N m s/rad]
LIMIT_STIFFNESS = 12
LIMIT_DAMPING = 13
WORLD_CONSTANTS = 14

# Motors: motor_constants()
LAG = 0  # share of the way to the commanded torque that a time step covers [1]
DELAY = 1  # [s]
# [rad/s], and one over how much less the rated speed is [s/rad]
NO_LOAD_SPEED = 2
PER_SPAN = 3
DRAIN = 4  # electrical energy per mechanical work [1]
# [J], [W], [1]
STAMINA = 5
RECOVERY = 6
TIRED_STRENGTH = 7
MOTOR_CONSTANTS = 8

# Trunk: base_constants()
BASE_MASS = 0  # of the whole robot [kg]
BASE_FIRST = 1  # first moment of mass about the base origin (3) [kg m]
BASE_SECOND = 4  # second moment, integral of p p^T dm, xx xy xz yy yz zz (6) [kg m^2]
TRUNK = 10  # mass (1), first (3) and second moment (6) of the trunk alone
TRUNK_SIZE = 20  # half extents (3) [m]
HOME_HEIGHT = 23  # [m]
TRUNK_CENTRE = 24  # of the box, base frame (3) [m]
BASE_CONSTANTS = 27

# Leg: a row of leg_constants()
HIP = 0  # hip origin in the base frame (3) [m]
RISE = 3  # of the thigh's origin above the hip's axis [m]
# [m]
THIGH_LENGTH = 4
CALF_LENGTH = 5
FOOT_SIDE = 6  # of the foot along y from the plane of hip and knee [m]
# added to the angles of thigh and thigh + calf [rad]
THIGH_TURN = 7
CALF_TURN = 8
FOOT_RADIUS = 9  # [m]
# of the knee as FOOT_SIDE [m]; of the sphere about it [m]
KNEE_SIDE = 10
KNEE_RADIUS = 11
HIP_LINK = 12  # first moment y z, second moment xy xz yy yz zz (7)
# first moment x z, second moment xx xy xz yz zz (7)
THIGH_LINK = 19
CALF_LINK = 26
# per joint (3) [N m s/rad], [kg m^2], [N m], [N m]
DAMPING = 33
ARMATURE = 36
FRICTION = 39
TORQUE_LIMIT = 42
# per joint (3) [rad]
LOW = 45
HIGH = 48
HOME = 51
HOLD = 54  # motor torques that hold the home pose (3) [N m]
# PD law, per joint (3) [N m/rad], [N m s/rad]
KP = 57
KD = 60
LEG_CONSTANTS = 63


class Model(NamedTuple):
    """What a kernel steps robots by; what is None is compiled out.

    world, base, legs: the constants; terrain: Terrain.pack(); body: None, or anything else if knees
    and trunk touch the ground; motors: motor_constants(); motor_blocks, varied_blocks: (blocks,
    rows * LANES), the rows of physics/layout.py that motors keep, and of what robots differ in; joints_differ: None, or
    anything else if that holds for friction and damping of the joints too.
    """

    world: Any
    base: Any
    legs: Any
    terrain: Any = None
    body: Any = None
    motors: Any = None
    motor_blocks: Any = None
    varied_blocks: Any = None
    joints_differ: Any = None


class _Moments:
    """Mass, first moment (3) and second moment (3, 3) of a link about its origin."""

    def __init__(self, mass: float, com: np.ndarray, inertia: np.ndarray) -> None:
        self.mass = mass
        self.first = mass * com
        # inertia about the com is tr(S) 1 - S for the second moment S
        self.second = 0.5 * np.trace(inertia) * np.eye(3) - inertia + mass * np.outer(com, com)

    def moved(self, r: np.ndarray) -> "_Moments":
        """Return the same mass about an origin from which this one lies at r."""
        moved = _Moments(0.0, np.zeros(3), np.zeros((3, 3)))
        moved.mass = self.mass
        moved.first = self.first + self.mass * r
        moved.second = self.second + np.outer(r, self.first) + np.outer(self.first, r) + self.mass * np.outer(r, r)
        return moved

    def turned(self, turn: np.ndarray) -> "_Moments":
        """Return the same mass in a frame in which this one's axes are the columns of turn."""
        turned = _Moments(0.0, np.zeros(3), np.zeros((3, 3)))
        turned.mass = self.mass
        turned.first = turn @ self.first
        turned.second = turn @ self.second @ turn.T
        return turned

    def split(self, axis: int) -> "_Moments":
        """Take off, and return, what lies on an axis through the origin."""
        on_axis = _Moments(self.mass, np.zeros(3), np.zeros((3, 3)))
        on_axis.first[axis] = self.first[axis]
        on_axis.second[axis, axis] = self.second[axis, axis]
        self.mass = 0.0
        self.first[axis] = 0.0
        self.second[axis, axis] = 0.0
        return on_axis

    def pack(self) -> list[float]:
        """Return mass, first moment, second moment xx xy xz yy yz zz."""
        s = self.second
        return [self.mass, *self.first, s[0, 0], s[0, 1], s[0, 2], s[1, 1], s[1, 2], s[2, 2]]

    def add(self, other: "_Moments") -> None:
        self.mass = self.mass + other.mass
        self.first = self.first + other.first
        self.second = self.second + other.second


def _about_y(angle: float) -> np.ndarray:
    s = np.sin(angle)
    c = np.cos(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _leg(robot: Robot, i: int) -> tuple[np.ndarray, _Moments]:
    """Return the geometry and links of a leg, (HIP to CALF_LINK + 7), and the mass that it hands to the trunk."""
    hip_at, thigh_at, calf_at = robot.offset[i]
    foot_at = robot.foot_offset[i]
    hip, thigh, calf = (_Moments(link.mass, link.com, link.inertia) for link in robot.links[i])
    x = np.array([1.0, 0.0, 0.0])
    y = np.array([0.0, 1.0, 0.0])
    # origins slide along their axes
    slide = thigh_at[0] * x
    hip_at = hip_at + slide
    thigh_at = thigh_at - slide
    hip = hip.moved(-slide)
    slide = -thigh_at[1] * y
    thigh_at = thigh_at + slide
    calf_at = calf_at - slide
    thigh = thigh.moved(-slide)
    slide = -calf_at[1] * y
    calf_at = calf_at + slide
    foot_at = foot_at - slide
    calf = calf.moved(-slide)
    knee_side = -slide[1]
    # frames turn about y until the next one lies straight below
    thigh_turn = np.arctan2(-calf_at[0], -calf_at[2])
    calf_turn = np.arctan2(-foot_at[0], -foot_at[2])
    thigh = thigh.turned(_about_y(-thigh_turn))
    calf = calf.turned(_about_y(-calf_turn))
    thigh_length = np.hypot(calf_at[0], calf_at[2])
    calf_length = np.hypot(foot_at[0], foot_at[2])
    # mass on an axis goes to the parent
    thigh.add(calf.split(1).moved(np.array([0.0, 0.0, -thigh_length])))
    hip.add(thigh.split(1).moved(np.array([0.0, 0.0, thigh_at[2]])))
    trunk = hip.split(0).moved(hip_at)
    f = hip.first
    s = hip.second
    numbers = [
        *hip_at,
        thigh_at[2],
        thigh_length,
        calf_length,
        foot_at[1],
        thigh_turn,
        calf_turn,
        robot.foot_radius[i],
        knee_side,
        robot.foot_radius[i],
    ]
    numbers += [f[1], f[2], s[0, 1], s[0, 2], s[1, 1], s[1, 2], s[2, 2]]
    for link in (thigh, calf):
        f = link.first
        s = link.second
        numbers += [f[0], f[2], s[0, 0], s[0, 1], s[0, 2], s[1, 2], s[2, 2]]
    return np.array(numbers), trunk


def leg_constants(robot: Robot) -> np.ndarray:
    """Return the constants of the legs, (4, LEG_CONSTANTS), contiguous, without a PD law."""
    hold = robot.hold_torques()
    rows = [
        np.concatenate([
            _leg(robot, i)[0], robot.damping[i], robot.armature[i], robot.friction[i], robot.torque_limit[i],
            robot.joint_range[i, :, 0], robot.joint_range[i, :, 1], robot.home_joints[i], hold[i], np.zeros(6),
        ])
        for i in range(4)
    ]  # fmt: skip
    return np.array(rows, dtype=real)


def base_constants(robot: Robot) -> np.ndarray:
    """Return the constants of the trunk, (BASE_CONSTANTS)."""
    trunk = _Moments(robot.base.mass, robot.base.com, robot.base.inertia)
    whole = _Moments(robot.base.mass, robot.base.com, robot.base.inertia)
    for i in range(4):
        whole.add(_leg(robot, i)[1])
    box = *robot.trunk_half_extents, robot.home_height, *robot.trunk_centre
    return np.array([*whole.pack(), *trunk.pack(), *box], dtype=real)


def world_constants(cfg: PhysicsCfg, timestep: float) -> np.ndarray:
    """Return the constants of the world, (WORLD_CONSTANTS)."""
    static = 0.0 if cfg.friction_model == "simple" else cfg.static_friction - cfg.foot_friction
    viscous = cfg.viscous_friction if cfg.friction_model == "coulomb+viscous" else 0.0
    world = np.zeros(WORLD_CONSTANTS, dtype=real)
    world[:] = (
        timestep, cfg.gravity, cfg.contact_stiffness, cfg.contact_damping, cfg.restitution,
        cfg.foot_friction, static, cfg.stribeck_speed, viscous, cfg.slip_speed, cfg.grip_time,
        cfg.friction_speed, cfg.limit_stiffness, cfg.limit_damping,
    )  # fmt: skip
    return world


def motor_constants(cfg: MotorCfg, timestep: float) -> np.ndarray:
    """Return the constants of the motors, (MOTOR_CONSTANTS)."""
    lag = 1.0 - np.exp(-timestep / cfg.lag) if cfg.lag > 0 else 1.0
    speeds = cfg.no_load_speed, 1.0 / (cfg.no_load_speed - cfg.rated_speed)
    return np.array(
        [lag, cfg.delay, *speeds, 1.0 / cfg.efficiency, cfg.stamina or 1e30, cfg.recovery, cfg.tired_strength],
        dtype=real,
    )
