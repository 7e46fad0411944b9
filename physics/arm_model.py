"""An arm that holds a paddle, and a ball: their facts, the constants that kernels read, and the same for MuJoCo."""

import dataclasses
import math

import numpy as np

from physics.jit import real

AXES = "xyz"

# Constants: arm_constants()
TIMESTEP = 0  # [s]
GRAVITY = 1  # [m/s^2]
COMPENSATION = 2  # share of the gravity torques that the motors add to the PD law [1]
# end stop of a joint [N m/rad], [N m s/rad]
LIMIT_STIFFNESS = 3
LIMIT_DAMPING = 4
# of ball on paddle [1], [1]; slower than that it comes to rest [m/s]
RESTITUTION = 5
FRICTION = 6
REST_SPEED = 7
# [kg], [kg m^2], [m]
BALL_MASS = 8
BALL_INERTIA = 9
BALL_RADIUS = 10
# [m]
PADDLE_RADIUS = 11
HALF_THICKNESS = 12
PADDLE_OFFSET = 13  # (3) its centre in the last link's frame [m]
LINKS = 16

# Link: LINK_CONSTANTS of them at LINKS, link by link
AXIS = 0  # 0 x, 1 y, 2 z
OFFSET = 1  # (3) its joint in the parent's frame [m]
# [kg]; (3) [m]; (6) second moment about the com, integral of p p^T dm, xx xy xz yy yz zz [kg m^2]
MASS = 4
COM = 5
SECOND = 8
# [N m s/rad], [kg m^2], [N m]
DAMPING = 14
ARMATURE = 15
TORQUE_LIMIT = 16
# [N m/rad], [N m s/rad]
KP = 17
KD = 18
# [rad]
LOW = 19
HIGH = 20
HOME = 21
LINK_CONSTANTS = 22

CONSTANTS = LINKS + 6 * LINK_CONSTANTS


def cylinder(mass: float, radius: float, length: float, axis: str) -> tuple[float, ...]:
    """Return the inertia xx xy xz yy yz zz of a solid cylinder along x, y or z about its middle [kg m^2]."""
    along = mass * radius**2 / 2
    across = mass * (3 * radius**2 + length**2) / 12
    xx, yy, zz = (along if name == axis else across for name in AXES)
    return xx, 0.0, 0.0, yy, 0.0, zz


@dataclasses.dataclass(frozen=True)
class ArmLink:
    """A link and the joint that moves it; at zero angles all links' frames are parallel to the world's."""

    name: str
    axis: str  # of the joint: x, y or z
    offset: tuple[float, float, float]  # the joint, this frame's origin, in the parent's frame [m]
    mass: float  # [kg]
    com: tuple[float, float, float]  # [m]
    inertia: tuple[float, ...]  # about the com, xx xy xz yy yz zz [kg m^2]
    joint_range: tuple[float, float]  # [rad]
    home: float  # [rad]
    damping: float  # [N m s/rad]
    armature: float  # [kg m^2]
    torque_limit: float  # [N m]
    kp: float  # [N m/rad]
    kd: float  # [N m s/rad]


@dataclasses.dataclass(frozen=True)
class Paddle:
    """A disc fixed to the last link, its normal that frame's z axis."""

    radius: float = 0.13  # [m]
    half_thickness: float = 0.004  # [m]
    mass: float = 0.15  # [kg]
    offset: tuple[float, float, float] = (0.18, 0.0, 0.0)  # its centre in the last link's frame [m]


@dataclasses.dataclass(frozen=True)
class Ball:
    """A hollow sphere, by default a table tennis ball."""

    radius: float = 0.02  # [m]
    mass: float = 0.0027  # [kg]

    @property
    def inertia(self) -> float:
        """2/3 m r^2, all the mass being at the radius [kg m^2]."""
        return 2 / 3 * self.mass * self.radius**2


def _links() -> tuple[ArmLink, ...]:
    """Return a small collaborative arm, stretched along x at zero angles.

    Its shoulder is 0.22 m up, and 0.89 m from there to the paddle's centre.
    """
    big = 0.055
    small = 0.045
    thin = 0.035
    # name, axis, offset, mass, com, inertia;
    # joint range, home, damping, armature, torque limit, kp, kd
    table = (
        (
            "shoulder", "z", (0, 0, 0.14), 3.2, (0, 0.04, 0.06), cylinder(3.2, 0.06, 0.14, "z"),
            (-3.1, 3.1), 0.0, 2.0, 0.4, 120.0, 2500.0, 120.0,
        ),
        (
            "upper_arm", "y", (0, 0.1, 0.08), 3.8, (0.15, 0, 0), cylinder(3.8, big, 0.4, "x"),
            (-2.8, 0.6), -1.4, 2.0, 0.4, 120.0, 2500.0, 120.0,
        ),
        (
            "forearm", "y", (0.33, -0.07, 0), 2.2, (0.13, 0, 0), cylinder(2.2, small, 0.32, "x"),
            (-0.2, 2.8), 1.85, 1.5, 0.2, 80.0, 1500.0, 60.0,
        ),
        (
            "wrist_pitch", "y", (0.28, -0.03, 0), 1.1, (0.02, 0, 0), cylinder(1.1, thin, 0.09, "y"),
            (-2.5, 2.0), -0.45, 0.5, 0.05, 30.0, 400.0, 12.0,
        ),
        (
            "wrist_yaw", "z", (0.05, 0, 0), 1.0, (0.01, 0, 0), cylinder(1.0, thin, 0.09, "z"),
            (-2.0, 2.0), 0.0, 0.5, 0.05, 30.0, 400.0, 12.0,
        ),
        (
            "wrist_roll", "x", (0.05, 0, 0), 0.5, (0.02, 0, 0), cylinder(0.5, thin, 0.06, "x"),
            (-3.1, 3.1), 0.0, 0.3, 0.02, 15.0, 200.0, 5.0,
        ),
    )  # fmt: skip
    return tuple(ArmLink(*row) for row in table)


@dataclasses.dataclass(frozen=True)
class Arm:
    """An arm whose base is at the world's origin, its paddle, and a ball."""

    links: tuple[ArmLink, ...] = dataclasses.field(default_factory=_links)  # (6), each the next one's parent
    paddle: Paddle = Paddle()
    ball: Ball = Ball()
    restitution: float = 0.9  # speed of the ball off the paddle per speed of its approach [1]
    friction: float = 0.3  # of the ball on the paddle [1]
    rest_speed: float = 0.05  # approach below which the ball does not bounce [m/s]
    compensation: float = 1.0  # share of the gravity torques that the motors add to the PD law [1]
    limit_stiffness: float = 2000.0  # end stops of the joints [N m/rad]
    limit_damping: float = 20.0  # [N m s/rad]

    @property
    def home(self) -> np.ndarray:
        """(6) joint angles at which the paddle is level [rad]."""
        return np.array([link.home for link in self.links])

    def frames(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where links and paddle are: origins (7, 3) [m] and rotations to the world (7, 3, 3), the paddle last.

        joints: (6) [rad].
        """
        origin = np.zeros(3)
        turn = np.eye(3)
        frames = []
        for link, angle in zip(self.links, joints, strict=True):
            origin = origin + turn @ link.offset
            k = AXES.index(link.axis)
            s = math.sin(angle)
            c = math.cos(angle)
            u = (k + 1) % 3
            v = (k + 2) % 3
            turn = turn.copy()
            turn[:, u], turn[:, v] = c * turn[:, u] + s * turn[:, v], c * turn[:, v] - s * turn[:, u]
            frames.append((origin, turn))
        frames.append((origin + turn @ self.paddle.offset, turn))
        return np.array([o for o, _ in frames]), np.array([r for _, r in frames])


def _with_paddle(arm: Arm) -> tuple[float, np.ndarray, np.ndarray]:
    """Return mass, com (3) and inertia about it (3, 3) of the last link and the paddle together."""
    link = arm.links[-1]
    paddle = arm.paddle
    disc = _full(cylinder(paddle.mass, paddle.radius, 2 * paddle.half_thickness, "z"))
    mass = link.mass + paddle.mass
    com = (link.mass * np.array(link.com) + paddle.mass * np.array(paddle.offset)) / mass
    inertia = _full(link.inertia) + disc
    for m, at in ((link.mass, link.com), (paddle.mass, paddle.offset)):
        r = np.array(at) - com
        inertia += m * (r @ r * np.eye(3) - np.outer(r, r))
    return mass, com, inertia


def _full(inertia: tuple[float, ...]) -> np.ndarray:
    xx, xy, xz, yy, yz, zz = inertia
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def arm_constants(arm: Arm, timestep: float, gravity: float = 9.81) -> np.ndarray:
    """Return the constants of an arm, (CONSTANTS).

    timestep: [s]; gravity: [m/s^2].
    """
    ball = arm.ball
    paddle = arm.paddle
    numbers = [
        timestep, gravity, arm.compensation, arm.limit_stiffness, arm.limit_damping,
        arm.restitution, arm.friction, arm.rest_speed,
        ball.mass, ball.inertia, ball.radius, paddle.radius, paddle.half_thickness, *paddle.offset,
    ]  # fmt: skip
    for link in arm.links:
        mass, com, inertia = _with_paddle(arm) if link is arm.links[-1] else (link.mass, link.com, _full(link.inertia))
        # the inertia tensor is tr(S) 1 - S of the second moment S
        second = (0.5 * np.trace(inertia) * np.eye(3) - inertia)[np.triu_indices(3)]
        numbers += [
            AXES.index(link.axis),
            *link.offset,
            mass,
            *com,
            *second,
            link.damping,
            link.armature,
            link.torque_limit,
        ]
        numbers += [link.kp, link.kd, *link.joint_range, link.home]
    return np.array(numbers, dtype=real)


def to_mjcf(arm: Arm, timestep: float = 0.002, gravity: float = 9.81, option: str = 'integrator="implicitfast"') -> str:
    """Return an MJCF model of the arm, the paddle and the ball, the ball 0.3 m above the paddle at home.

    Motors obey the PD law on their joint's target with the gravity torques added, within the torque
    limit; targets are cut at the joint range, of which the joints are free. MuJoCo's contacts are
    springs: the ball's returns the share e of the speed, its damping ratio z being
    e = exp(-pi z / sqrt(1 - z^2)), over a contact of 5 ms.

    timestep: [s]; gravity: [m/s^2]; option: attributes of MuJoCo's <option>.
    """
    bodies = ""
    motors = ""
    for link in arm.links:
        limit = f"{-link.torque_limit:.9g} {link.torque_limit:.9g}"
        bodies += (
            f'<body name="{link.name}" pos="{_numbers(link.offset)}" gravcomp="{arm.compensation:.9g}">'
            f"{_inertial(link.mass, link.com, link.inertia)}"
            f'<joint name="{link.name}" axis="{" ".join(str(int(name == link.axis)) for name in AXES)}"'
            f' range="{_numbers(link.joint_range)}" limited="false"'
            f' damping="{link.damping:.9g}" armature="{link.armature:.9g}"'
            f' actuatorfrcrange="{limit}" actuatorgravcomp="true"/>\n'
        )
        motors += (
            f'<position name="{link.name}" joint="{link.name}" kp="{link.kp:.9g}" kv="{link.kd:.9g}"'
            f' ctrlrange="{_numbers(link.joint_range)}"/>\n'
        )
    paddle = arm.paddle
    ball = arm.ball
    disc = cylinder(paddle.mass, paddle.radius, 2 * paddle.half_thickness, "z")
    bodies += (
        f'<body name="paddle" pos="{_numbers(paddle.offset)}" gravcomp="{arm.compensation:.9g}">'
        f"{_inertial(paddle.mass, (0, 0, 0), disc)}"
        f'<geom name="paddle" type="cylinder" size="{paddle.radius:.9g} {paddle.half_thickness:.9g}"/>'
    )
    drop = arm.frames(arm.home)[0][6] + [0, 0, paddle.half_thickness + ball.radius + 0.3]
    stiffness = (math.pi / 0.005) ** 2
    log = math.log(max(arm.restitution, 1e-3))
    damping = 2 * math.sqrt(stiffness) * -log / math.hypot(math.pi, log)
    shell = (ball.inertia, 0, 0, ball.inertia, 0, ball.inertia)
    contact = f'solref="{-stiffness:.9g} {-damping:.9g}" solimp="1 1 0.001"'
    return f"""<mujoco model="arm">
<compiler angle="radian" inertiafromgeom="false"/>
<option timestep="{timestep:.9g}" gravity="0 0 {-gravity:.9g}" cone="elliptic" {option}/>
<default><geom friction="{arm.friction:.9g} 0 0" condim="3" mass="0" {contact}/></default>
<worldbody>
{bodies}{"</body>" * 7}
<body name="ball" pos="{_numbers(drop)}"><freejoint name="ball"/>{_inertial(ball.mass, (0, 0, 0), shell)}
<geom name="ball" type="sphere" size="{ball.radius:.9g}"/></body>
</worldbody>
<actuator>
{motors}</actuator>
<keyframe><key name="home" qpos="{_numbers((*arm.home, *drop, 1, 0, 0, 0))}" ctrl="{_numbers(arm.home)}"/></keyframe>
</mujoco>"""


def _numbers(values: object) -> str:
    return " ".join(f"{v:.9g}" for v in values)


def _inertial(mass: float, com: tuple[float, ...], inertia: tuple[float, ...]) -> str:
    xx, xy, xz, yy, yz, zz = inertia
    return f'<inertial mass="{mass:.9g}" pos="{_numbers(com)}" fullinertia="{_numbers((xx, yy, zz, xy, xz, yz))}"/>'
