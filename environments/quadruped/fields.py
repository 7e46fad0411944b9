"""Every number that terms may read: declared once, with size, unit, frame and meaning; where it lies follows from that.

A field is kept from step to step (KEPT), measured anew in every step (MEASURED), or belongs to the physics (BODY,
LEGS). What the configuration sets is a field too, by its section and name: ``push_speed`` is ``--push.speed``,
``fall_tilt`` is ``--env.fall_tilt``. derived() adds what others give. World frame, unless a frame is given.
"""

import math
from collections import namedtuple
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from environments.quadruped.source import Function, compiled


class Field(NamedTuple):
    """A number, or several, of a robot or of one of its legs."""

    name: str
    size: int
    unit: str
    meaning: str
    reset: float | None = None  # what an episode begins with; None: what it was
    row: str = ""  # where the physics has it, as an expression of the rows' array and the first row
    load: str = ""  # how a lane's value is read, where that is no row
    of_leg: bool = False  # whether each leg has its own, all FL FR RL RR
    of_point: bool = False  # whether each point of the scan of the ground has its own

    def numbers(self, points: int = 0) -> int:
        """Return how many numbers it is of a robot; points: of the scan."""
        return self.size * (4 if self.of_leg else points if self.of_point else 1)


KEPT = (
    Field("age", 1, "control steps", "since the episode began"),
    Field("over", 1, "1", "1 to end the episode with the next step as if its time was up", 0.0),
    Field("action", 12, "1", "latest action, FL FR RL RR, each hip, thigh, calf", 0.0),
    Field("last_action", 12, "1", "the one before it", 0.0),
    Field("older_action", 12, "1", "the one before that", 0.0),
    Field("goal", 3, "m", "where the centre of mass should be: x, y from the robot's cell, z above the ground"),
    Field("com", 3, "m", "centre of mass, as goal"),
    Field("command", 3, "m/s, rad/s", "forward and sideways velocity asked for, heading frame, and yaw rate"),
    Field("push_in", 1, "s", "time to the next push", 0.0),
    Field("goal_in", 1, "s", "time to the next goal", 0.0),
    Field("command_in", 1, "s", "time to the next command", 0.0),
    Field("push", 3, "m/s", "velocity that the latest push added", 0.0),
    Field("push_age", 1, "s", "time since then", 1e3),
    Field("goals", 1, "1", "goals reached in this episode", 0.0),
    Field("arrived", 1, "1", "1 if one was reached at this instant"),
    Field("episode_return", 1, "1", "sum of the rewards of this episode", 0.0),
    Field("spawn", 2, "m", "x, y where episodes start"),
    Field("spin_bias", 3, "rad/s", "of the observed angular velocity, of this episode, base frame"),
    Field("gravity_bias", 3, "1", "of the observed direction of gravity, of this episode, base frame"),
    Field("air_time", 4, "s", "how long each foot has been in the air, 0 on the ground", 0.0),
    Field("landed", 4, "s", "how long each foot that touched down at this instant was, else 0", 0.0),
    Field("next_push", 3, "m/s", "velocity that the next push will add"),
    Field("next_kick", 3, "rad/s", "angular velocity that it will add, base frame"),
    Field("heading", 2, "1", "where the robot should face at its goal, a horizontal unit vector"),
    Field("heading_error", 1, "rad", "angle from the heading to that"),
    Field("at_goal", 1, "1", "1 while near the goal and facing as it should"),
    Field("met", 1, "1", "1 once that was so"),
    Field("clearance", 1, "m", "of the lowest of feet and trunk above the ground, with which an episode begins", 0.0),
)

# What a task keeps beside KEPT that follows a motion (reference.py): frames of what the robot should be doing
SHEET = (
    Field("reference_joint", 3, "rad", "angles of hip, thigh, calf, at this instant", of_leg=True),
    Field("reference_joint_speed", 3, "rad/s", "their velocities", of_leg=True),
    Field("next_joint", 3, "rad", "angles of hip, thigh, calf a control step later", of_leg=True),
    Field("next_joint_speed", 3, "rad/s", "their velocities", of_leg=True),
    Field("later_joint", 3, "rad", "angles of hip, thigh, calf 0.1 s from now", of_leg=True),
    Field("reference_rise", 1, "m", "of the base above where it is when the lowest foot touches the ground"),
    Field("reference_up", 3, "1", "the vertical, base frame"),
    Field("reference_velocity", 3, "m/s", "of the base, heading frame, forward, to the left, up"),
    Field("reference_spin", 3, "rad/s", "angular velocity, base frame"),
    Field("reference_phase", 2, "1", "cosine and sine of how far through the motion it is, in turns; 0 0 if endless"),
)
REFERENCE = (
    *SHEET,
    Field("reference_foot", 3, "m", "centre of the foot, base frame", of_leg=True),
    Field("reference_height", 1, "m", "of the base above the ground"),
)

# What a task keeps beside KEPT that sees the ground (scan.py)
SCANNED = (
    Field("scanned", 1, "m", "ground above where it is under a robot that stands, as last seen", of_point=True),
    Field("foot_ground", 4, "m", "ground before, behind, left and right of the foot, above its centre", of_leg=True),
    Field("scan_age", 1, "s", "since the ground was last looked at", 0.0),
    Field("scan_hold", 1, "s", "after which it is looked at again", 0.0),
    Field("scan_shift", 3, "m", "by which what is seen is off, heading frame", 0.0),
)

MEASURED = (
    Field("feet", 2, "m", "middle of the feet from the base origin, x, y"),
    Field("foot_offset", 12, "m", "centre of each foot from the base origin, world frame"),
    Field("lowest_foot", 1, "m", "lowest point of the feet above the ground"),
    Field("foot_height", 4, "m", "of each foot's lowest point above the ground"),
    Field("on_ground", 4, "1", "1 where a foot is in contact, else 0"),
    Field("torque_squared", 1, "N^2 m^2", "motor torques squared, summed over the joints"),
    Field("joint_speed_squared", 1, "rad^2/s^2", "joint velocities squared, summed"),
    Field("pose_squared", 1, "rad^2", "joint angles less home angles, squared, summed"),
    Field(
        "knee_squared", 1, "rad^2", "how far thighs and calves are in the outer tenths of their ranges, squared, summed"
    ),
    Field("feet_share", 1, "1", "share of feet on the ground"),
    Field("slip_squared", 1, "m^2/s^2", "horizontal velocity of the feet on the ground, squared, summed"),
    Field("action_rate_squared", 1, "1", "latest action less the one before, squared, summed"),
    Field("action_bend_squared", 1, "1", "second difference of actions, squared, summed"),
    Field("first_moment", 3, "kg m", "of mass, about the base origin, base frame"),
    Field("ground", 1, "m", "height of the ground below the base"),
    Field("footing", 1, "m", "mean height of the ground below the trunk's lower corners"),
    Field("trunk_gap", 1, "m", "of the trunk's lowest corner above the ground below it"),
    Field("per_weight", 1, "1/N", "one over the robot's weight"),
    Field("finite", 1, "1", "1 while the state is finite, else 0"),
    Field("total", 1, "1", "reward of this step"),
    Field(
        "ended", 1, "1", "0 while the episode goes on, 1 when its time is up, 2, 3, ... by which termination it ended"
    ),
)

BODY = (
    Field("position", 3, "m", "base origin, x, y from the robot's cell", row="work, L.POSITION"),
    Field("cell", 2, "m", "x, y from which positions count", row="work, L.ORIGIN"),
    Field("quaternion", 4, "1", "R_WB as w x y z", row="work, L.QUATERNION"),
    Field("base_velocity", 3, "m/s", "of the base origin", row="work, L.VELOCITY"),
    Field("base_velocity_B", 3, "m/s", "the same, base frame", row="work, L.VELOCITY_B"),
    Field("base_spin", 3, "rad/s", "angular velocity, base frame", row="work, L.SPIN"),
    Field("rotation", 9, "1", "R_WB, row by row", row="work, L.ROTATION"),
    Field("up", 3, "1", "the vertical, base frame", row="work, L.ROTATION + 6"),
    Field("forward", 1, "1", "x of the base's x axis", row="work, L.ROTATION"),
    Field("home_height", 1, "m", "of the base in the home pose", load="model.base[C.HOME_HEIGHT]"),
    Field("trunk_size", 3, "m", "half extents of the trunk", load="constant3(model.base, C.TRUNK_SIZE)"),
    Field("trunk_centre", 3, "m", "middle of the trunk, base frame", load="constant3(model.base, C.TRUNK_CENTRE)"),
    Field("foot_force", 4, "N", "vertical contact force on each foot", load="foot_forces(work, lane)"),
    Field(
        "friction_ratio",
        1,
        "1",
        "foot friction, times the model's",
        load="friction_ratio(model.varied_blocks, work, model.world, lane)",
    ),
    Field(
        "trunk_mass_ratio",
        1,
        "1",
        "trunk mass, times the model's",
        load="trunk_mass_ratio(model.varied_blocks, work, model.base, lane)",
    ),
    Field("key", 1, "1", "what random numbers are drawn by: uniform(key, 0, low, high)", load="key"),
)

# Of one leg: a term that reads one of these is evaluated for each leg
LEGS = (
    Field("joint_position", 3, "rad", "of hip, thigh, calf", row="rows, L.JOINT"),
    Field("joint_velocity", 3, "rad/s", "the same", row="rows, L.JOINT_SPEED"),
    Field(
        "joint_reading",
        3,
        "rad",
        "joint_position as this robot measures it",
        load="joint_reading(model.varied_blocks, rows, lane)",
    ),
    Field("joint_target", 3, "rad", "of the PD law", row="rows, L.TARGET"),
    Field("contact_force", 3, "N", "on the foot", row="rows, L.FORCE"),
    Field("leg_action", 3, "1", "latest action, of hip, thigh, calf", row="task, K.action + 3 * leg"),
    Field("foot_place", 3, "m", "centre of the foot, base frame", load="foot_place(rows, leg_constants, lane)"),
    Field("joint_home", 3, "rad", "in the home pose", load="constant3(leg_constants, C.HOME)"),
    Field("joint_low", 3, "rad", "lowest angle", load="constant3(leg_constants, C.LOW)"),
    Field("joint_high", 3, "rad", "highest angle", load="constant3(leg_constants, C.HIGH)"),
    Field(
        "nominal_torque_limit", 3, "N m", "of the motors, by the model", load="constant3(leg_constants, C.TORQUE_LIMIT)"
    ),
    Field(
        "nominal_joint_friction", 3, "N m", "dry friction, by the model", load="constant3(leg_constants, C.FRICTION)"
    ),
    Field("nominal_joint_damping", 3, "N m s/rad", "by the model", load="constant3(leg_constants, C.DAMPING)"),
)

# What a randomisation may set beside fields of its own, of a robot or of one of its legs; the physics reads them
# where robots differ
VARIED = (
    Field("gravity", 1, "m/s^2", "", row="work, L.VARIED_BASE + L.V_GRAVITY"),
    Field("contact_stiffness", 1, "N/m", "", row="work, L.VARIED_BASE + L.V_STIFFNESS"),
    Field("restitution", 1, "1", "", row="work, L.VARIED_BASE + L.V_RESTITUTION"),
    Field("foot_friction", 1, "1", "kinetic", row="work, L.VARIED_BASE + L.V_KINETIC"),
    Field("motor_delay", 1, "s", "", row="work, L.VARIED_BASE + L.V_DELAY"),
    Field("kp_factor", 1, "1", "of the PD law's stiffness", row="work, L.VARIED_BASE + L.V_KP"),
    Field("kd_factor", 1, "1", "of its damping", row="work, L.VARIED_BASE + L.V_KD"),
    Field("grip_time", 1, "s", "in which friction stops a foot that slips", row="work, L.VARIED_BASE + L.V_GRIP_TIME"),
)
VARIED_LEGS = (
    Field("torque_limit", 3, "N m", "of the motors", row="rows, L.VARIED_LEG + L.V_TORQUE_LIMIT"),
    Field("joint_offset", 3, "rad", "measured less true angle", row="rows, L.VARIED_LEG + L.V_OFFSET"),
    Field("joint_friction", 3, "N m", "dry friction", row="rows, L.VARIED_LEG + L.V_FRICTION"),
    Field("joint_damping", 3, "N m s/rad", "", row="rows, L.VARIED_LEG + L.V_DAMPING"),
)


def rows(fields: Iterable[Field], name: str) -> Any:
    """Return the first row of every field, by its name, and the number of rows as ``size``.

    It is a tuple that compiled code takes for constants.
    """
    names = []
    starts = []
    at = 0
    for field in fields:
        names.append(field.name)
        starts.append(at)
        at += field.numbers()
    return namedtuple(name, [*names, "size"])(*starts, at)


K = rows(KEPT, "Kept")  # rows that the task keeps of a robot, after the physics' state
M = rows(MEASURED, "Measured")  # rows of the work buffer, after the physics'
R = rows(REFERENCE, "Reference")  # rows that a task keeps that follows a motion, and columns of its frames
WIDTH = R.reference_foot  # of a frame
G = rows(SCANNED, "Scanned")  # rows that a task keeps that sees the ground, after those of the points

# What the stages that every task shares read of the settings, which are the first of them
SHARED = (
    "ctrl_dt", "max_episode_steps", "action_scale", "torque_scale", "hold_share",
    "reset_joint_position", "reset_joint_velocity", "reset_tilt", "reset_velocity", "reset_spin",
    "scan_noise", "scan_dropped",
)  # fmt: skip
S = rows([Field(name, 1, "", "") for name in SHARED], "Settings")

CONTACT_THRESHOLD = 1.0  # force above which a foot is in contact [N]


class Derived(NamedTuple):
    """A field that other fields give."""

    function: Function
    size: int
    unit: str
    meaning: str


DERIVED: dict[str, Derived] = {}


def derived(size: int, unit: str) -> Callable[[Callable], Callable]:
    """Make a function of fields a field of its own name; its docstring says what it means."""

    def register(function: Callable) -> Callable:
        made = compiled(function)
        DERIVED[made.name] = Derived(made, size, unit, made.meaning)
        return made

    return register


@derived(2, "1")
def ahead(rotation):
    """Where the base faces, a horizontal unit vector."""
    h = 1.0 / math.sqrt(rotation[0] * rotation[0] + rotation[3] * rotation[3] + 1e-12)
    return h * rotation[0], h * rotation[3]


@derived(3, "m")
def goal_offset(goal, com):
    """From the centre of mass to its goal."""
    return goal[0] - com[0], goal[1] - com[1], goal[2] - com[2]


@derived(1, "m")
def base_height(position, footing):
    """Of the base origin above the ground, its mean below the trunk's lower corners."""
    return position[2] - footing


@derived(1, "m")
def com_rise(com, position, ground):
    """Of the centre of mass above the base origin."""
    return com[2] - (position[2] - ground)


@derived(2, "m/s")
def desired_velocity(command, ahead):
    """Horizontal velocity that the command asks for."""
    return ahead[0] * command[0] - ahead[1] * command[1], ahead[1] * command[0] + ahead[0] * command[1]


@derived(3, "m/s, rad/s")
def heading_velocity(base_velocity, base_spin, ahead):
    """Forward and sideways velocity, heading frame, and yaw rate, as a command asks for them."""
    x, y = base_velocity[0], base_velocity[1]
    return ahead[0] * x + ahead[1] * y, ahead[0] * y - ahead[1] * x, base_spin[2]


@derived(1, "1")
def moving(command):
    """1 while something is commanded, else 0."""
    return 1.0 if command[0] * command[0] + command[1] * command[1] + command[2] * command[2] > 0.0 else 0.0


@derived(1, "1")
def fallen(ended):
    """1 at the instant at which the episode ended by a termination, else 0."""
    return 1.0 if ended > 1.5 else 0.0


TABLE: dict[str, tuple[Field, ...]] = {
    "kept from step to step": KEPT,
    "measured in every step": MEASURED,
    "of the physics": BODY,
    "of one leg": LEGS,
    "of the motion that a task follows": REFERENCE,
    "of the ground that a task sees": SCANNED,
    "what randomisations may set": VARIED,
    "what randomisations may set, of one leg": VARIED_LEGS,
}


def _row(f: Field) -> str:
    """Return a line of the table."""
    where = ", of one leg" if f.of_leg else ", of one point" if f.of_point else ""
    return f"| `{f.name}` | {f.size} | {f.unit} | {f.meaning}{where} |"


def table() -> str:
    """Return the fields as a table for people, in Markdown."""
    lines = ["| field | numbers | unit | meaning |", "|---|---|---|---|"]
    for title, fields in TABLE.items():
        lines += [f"| **{title}** | | | |", *(_row(f) for f in fields)]
    lines += [
        "| **derived** | | | |",
        *(f"| `{name}` | {d.size} | {d.unit} | {d.meaning} |" for name, d in DERIVED.items()),
    ]
    return "\n".join(lines)
