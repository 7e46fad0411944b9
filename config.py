"""Every knob of Foal: nested frozen dataclasses, each field with its meaning, unit and range.

A field is set on the command line as ``--section.field VALUE``; in Python with
``dataclasses.replace``. Whatever is out of range raises ConfigError, which names the field.
"""

import math
from dataclasses import dataclass

from settings import ConfigError, Pair, Section, knob


@dataclass(frozen=True)
class MotorCfg(Section):
    """What motors and their drivers add to the torque they are asked for."""

    enabled: bool = knob(False, "lag, delay, torque-speed curve and energy of motors")
    lag: float = knob(0.01, "time constant of the torque", "s", low=0.0, high=1.0)
    delay: float = knob(0.0, "time until a command arrives, shorter than that between commands", "s", low=0.0, high=1.0)
    rated_speed: float = knob(20.0, "joint speed up to which the whole torque is there", "rad/s", low=0.0, high=1e4)
    no_load_speed: float = knob(30.0, "joint speed at which none is left", "rad/s", low=0.01, high=1e4)
    efficiency: float = knob(0.8, "mechanical over electrical power", "1", low=0.01, high=1.0)
    stamina: float = knob(
        0.0, "electrical energy that a rested robot can draw before it tires, 0 for no end", "J", low=0.0, high=1e9
    )
    recovery: float = knob(20.0, "power at which stamina comes back", "W", low=0.0, high=1e6)
    tired_strength: float = knob(0.3, "torque limit of a tired robot's motors, times", "1", low=0.0, high=1.0)

    def validate(self, name: str = "motor") -> None:
        """Raise ConfigError also unless the torque falls off somewhere; see Section."""
        super().validate(name)
        if not self.rated_speed < self.no_load_speed:
            raise ConfigError(
                f"motor.rated_speed: expected less than motor.no_load_speed = {self.no_load_speed:g} rad/s, "
                f"got {self.rated_speed:g}"
            )


@dataclass(frozen=True)
class PhysicsCfg(Section):
    """The simulated world: gravity, contact, joints."""

    gravity: float = knob(9.81, "acceleration of gravity", "m/s^2", low=0.0, high=100.0)
    contact_stiffness: float = knob(2e4, "spring of a contact", "N/m", low=100.0, high=1e6)
    contact_damping: float = knob(100.0, "damper of a contact", "N s/m", low=0.0, high=1e5)
    restitution: float = knob(
        1.0, "share of the normal speed that the spring gives back in a bounce", "1", low=0.0, high=1.0
    )
    friction_model: str = knob(
        "simple",
        "simple: kinetic friction alone; coulomb: static friction too",
        choices=("simple", "coulomb", "coulomb+viscous"),
    )
    foot_friction: float = knob(0.8, "kinetic friction of a foot", "1", low=0.0, high=10.0)
    static_friction: float = knob(0.9, "static friction of a foot (coulomb)", "1", low=0.0, high=10.0)
    stribeck_speed: float = knob(
        0.1, "speed at which half of what static friction adds is gone (coulomb)", "m/s", low=1e-3, high=10.0
    )
    viscous_friction: float = knob(
        0.05, "friction in proportion to speed (coulomb+viscous)", "N s/m", low=0.0, high=1e4
    )
    slip_speed: float = knob(0.02, "speed at which friction reaches 70 % of its limit", "m/s", low=1e-4, high=1.0)
    grip_time: float = knob(
        0.0, "time in which friction stops a foot that slips, 0 for at once", "s", low=0.0, high=0.1
    )
    payload: float = knob(
        0.0, "mass carried on the trunk, of which gains and torques know nothing", "kg", low=0.0, high=200.0
    )
    body_contact: bool = knob(False, "knees, calves and the trunk's corners touch the ground too")
    friction_speed: float = knob(
        0.05, "speed at which dry joint friction reaches 70 % of its limit", "rad/s", low=1e-4, high=10.0
    )
    limit_stiffness: float = knob(0.0, "spring of a joint's end stop, 0 for none", "N m/rad", low=0.0, high=1e5)
    limit_damping: float = knob(0.0, "damper of a joint's end stop", "N m s/rad", low=0.0, high=1e4)
    motor: MotorCfg = MotorCfg()

    def validate(self, name: str = "physics") -> None:
        """Raise ConfigError also unless static friction is at least kinetic friction; see Section."""
        super().validate(name)
        if self.friction_model != "simple" and self.static_friction < self.foot_friction:
            raise ConfigError(
                f"physics.static_friction: expected at least physics.foot_friction = {self.foot_friction:g}, "
                f"got {self.static_friction:g}"
            )


@dataclass(frozen=True)
class VaryCfg(Section):
    """How robots differ, drawn for each when an episode starts, uniform between two numbers (domain randomisation)."""

    friction: Pair = knob((1.0, 1.0), "foot friction, times", "1", low=0.0, high=10.0)
    restitution: Pair = knob((1.0, 1.0), "restitution, times", "1", low=0.0, high=1.0)
    stiffness: Pair = knob((1.0, 1.0), "contact stiffness, times", "1", low=0.01, high=100.0)
    grip_time: Pair = knob((0.0, 0.0), "added to physics.grip_time", "s", low=0.0, high=0.1)
    trunk_mass: Pair = knob((1.0, 1.0), "mass and inertia of the trunk, times", "1", low=0.1, high=10.0)
    trunk_shift: float = knob(0.0, "centre of mass of the trunk, +- on each axis", "m", low=0.0, high=1.0)
    link_mass: Pair = knob((1.0, 1.0), "mass and inertia of the legs' links, times", "1", low=0.1, high=10.0)
    strength: Pair = knob((1.0, 1.0), "torque limit of each motor, times", "1", low=0.0, high=10.0)
    kp: Pair = knob((1.0, 1.0), "stiffness of the PD law, times", "1", low=0.0, high=10.0)
    kd: Pair = knob((1.0, 1.0), "damping of the PD law, times", "1", low=0.0, high=10.0)
    joint_friction: Pair = knob((1.0, 1.0), "dry friction of each joint, times", "1", low=0.0, high=100.0)
    joint_damping: Pair = knob((1.0, 1.0), "damping of each joint, times", "1", low=0.0, high=100.0)
    joint_offset: float = knob(0.0, "error of each joint's measured angle, +-", "rad", low=0.0, high=1.0)
    delay: Pair = knob((0.0, 0.0), "added to the motors' delay; needs motor.enabled", "s", low=0.0, high=1.0)
    gravity: Pair = knob((1.0, 1.0), "gravity, times", "1", low=0.0, high=10.0)


@dataclass(frozen=True)
class ResetCfg(Section):
    """The state in which an episode starts: the home pose, disturbed by this much (uniform, +-)."""

    joint_position: float = knob(0.1, "joint angles", "rad", low=0.0, high=1.0)
    joint_velocity: float = knob(0.5, "joint velocities", "rad/s", low=0.0, high=20.0)
    tilt: float = knob(0.1, "roll and pitch", "rad", low=0.0, high=1.0)
    velocity: float = knob(0.3, "linear velocity, each axis", "m/s", low=0.0, high=5.0)
    spin: float = knob(0.3, "angular velocity, each axis", "rad/s", low=0.0, high=10.0)


@dataclass(frozen=True)
class PushCfg(Section):
    """Sudden changes of the base's velocity, as from a shove."""

    speed: Pair = knob((0.5, 1.5), "horizontal kick, uniform between, any direction", "m/s", low=0.0, high=10.0)
    spin: float = knob(1.0, "angular kick, uniform +- on each axis", "rad/s", low=0.0, high=20.0)
    interval: Pair = knob((2.0, 4.0), "time between pushes, uniform between", "s", low=0.02, high=1e6)


@dataclass(frozen=True)
class GoalCfg(Section):
    """Where the centre of mass should be."""

    radius: float = knob(
        0.1, "horizontal distance of a new goal from the feet's middle, uniform up to", "m", low=0.0, high=2.0
    )
    height: float = knob(0.02, "goal height about the home height, uniform +-", "m", low=0.0, high=0.2)
    interval: Pair = knob((4.0, 8.0), "time between new goals, uniform between", "s", low=0.02, high=1e6)
    reach: float = knob(0.3, "largest horizontal distance that the observation shows", "m", low=0.01, high=10.0)


@dataclass(frozen=True)
class CommandCfg(Section):
    """What a robot is asked to do: stay where it is told to, move at commanded velocities, or go from goal to goal."""

    kind: str = knob(
        "stay",
        "stay: at env.goal; velocity: at drawn velocities; heading: likewise, keeping a heading; gait: likewise, "
        "in a gait; goal: from place to place; "
        "pose: to a place, to stand there facing as asked; motion: what a clip shows",
    )
    forward: Pair = knob(
        (-1.0, 1.0), "forward velocity, uniform between (velocity, heading, gait)", "m/s", low=-10.0, high=10.0
    )
    sideways: Pair = knob(
        (-0.6, 0.6), "velocity to the left, uniform between (velocity, heading, gait)", "m/s", low=-10.0, high=10.0
    )
    turn: Pair = knob(
        (-1.0, 1.0),
        "yaw rate, uniform between (velocity), kept between (heading, goal, pose)",
        "rad/s",
        low=-10.0,
        high=10.0,
    )
    interval: Pair = knob(
        (5.0, 10.0), "time between new commands, uniform between (velocity, heading, gait)", "s", low=0.02, high=1e6
    )
    standing: float = knob(0.15, "share of commands to stand (velocity, heading, gait)", "1", low=0.0, high=1.0)
    turning: float = knob(
        0.1, "share of commands to turn on the spot (velocity, heading, gait)", "1", low=0.0, high=1.0
    )
    heading: float = knob(0.7, "share of commands that keep a heading drawn with them (heading)", low=0.0, high=1.0)
    frequency: Pair = knob((2.0, 3.5), "of steps, uniform between (gait)", "Hz", low=0.5, high=10.0)
    lift: Pair = knob((0.04, 0.1), "height of steps, uniform between (gait)", "m", low=0.0, high=1.0)
    rise: Pair = knob((-0.06, 0.03), "of the base above home, uniform between (gait)", "m", low=-1.0, high=1.0)
    pitch: Pair = knob((-0.2, 0.2), "of the base, nose down, uniform between (gait)", "rad", low=-1.0, high=1.0)
    least: float = knob(
        0.1,
        "a speed or yaw rate below this becomes 0: nearly standing is not asked for (velocity, heading, gait)",
        "m/s, rad/s",
        low=0.0,
        high=1.0,
    )
    cruise: float = knob(0.8, "speed towards a far goal (goal, pose)", "m/s", low=0.0, high=10.0)
    gain: float = knob(
        1.0,
        "speed over distance left, yaw rate over bearing (goal) or heading error (heading, pose)",
        "1/s",
        low=0.01,
        high=100.0,
    )
    distance: Pair = knob((1.0, 5.0), "horizontal distance of a new goal, between (goal, pose)", "m", low=0.1, high=1e3)
    reached: float = knob(
        0.3,
        "horizontal distance at which the next goal follows (goal), or that is near enough (pose)",
        "m",
        low=0.01,
        high=10.0,
    )
    facing: float = knob(0.26, "heading error that is small enough (pose)", "rad", low=0.01, high=3.2)
    still: float = knob(0.14, "heading error below which no turn is asked for (pose)", "rad", low=0.0, high=3.2)

    def validate(self, name: str = "command") -> None:
        """Raise ConfigError also for goals reached at once, and shares of more than all commands; see Section."""
        super().validate(name)
        if self.distance[0] <= self.reached:
            raise ConfigError(
                f"command.distance: expected more than command.reached = {self.reached:g} m, got {self.distance[0]:g}"
            )
        if self.standing + self.turning > 1.0:
            raise ConfigError(
                f"command.turning: expected, with command.standing, at most 1, got {self.standing + self.turning:g}"
            )


@dataclass(frozen=True)
class RobotCfg(Section):
    """What a robot's file leaves open, or has otherwise."""

    lock: str = knob("", "joints that are no leg's and where they are locked: NAME ANGLE NAME ANGLE ...", "rad")
    torque_limit: float = knob(0.0, "of every joint, 0 for the file's", "N m", low=0.0, high=1e5)
    foot_radius: float = knob(0.0, "of every foot, 0 for the file's", "m", low=0.0, high=1.0)


@dataclass(frozen=True)
class MotionCfg(Section):
    """The motion that robots follow, in tasks that do."""

    source: str = knob("", "module:class of where it comes from")
    clip: str = knob("", "an .npz of a clip, or the name of one that is made by a formula")
    network: str = knob("", "file of a generator's network; empty: the one that comes with Foal")
    uniform: float = knob(
        0.25, "share of episodes that begin anywhere, not where robots have failed", "1", low=0.01, high=1.0
    )
    memory: float = knob(0.99, "how much of what is known of failures an iteration keeps", "1", low=0.0, high=1.0)


@dataclass(frozen=True)
class TerrainCfg(Section):
    """The ground: a grid of square tiles, harder along x, a kind to a row along y."""

    kinds: str = knob(
        "flat",
        "flat, or kinds of tiles: rough slope_up slope_down stairs_up stairs_down stones gaps rails waves boxes, "
        "or the file of a picture, white is high, or of an array, .npy",
        "names",
    )
    levels: int = knob(10, "tiles along x", low=1, high=100)
    difficulty: Pair = knob((0.0, 1.0), "of the first and the last level", "1", low=0.0, high=1.0)
    step_height: Pair = knob((0.01, 0.18), "of stairs at difficulty 0 and 1", "m", low=0.0, high=1.0)
    tread: Pair = knob((0.3, 0.3), "of stairs, from riser to riser, at difficulty 1 and 0", "m", low=0.05, high=5.0)
    slope: Pair = knob((0.02, 0.45), "angle of slopes at difficulty 0 and 1", "rad", low=0.0, high=1.2)
    friction: Pair = knob(
        (1.0, 1.0), "friction of patches of the ground, times, uniform between", "1", low=0.0, high=10.0
    )
    patch: float = knob(1.0, "side of a patch of one friction", "m", low=0.01, high=100.0)
    relief: float = knob(
        1.0, "height of white, of a picture's ground, or of 1, of an array's", "m", low=-100.0, high=100.0
    )
    tile: float = knob(8.0, "side of a tile", "m", low=2.0, high=100.0)
    cell: float = knob(0.1, "distance between heights, a whole share of 16 m", "m", low=0.01, high=1.0)
    seed: int = knob(0, "of what is random in it", low=0, high=2**31 - 1)


@dataclass(frozen=True)
class ScanCfg(Section):
    """What a robot that sees the ground sees of it: heights on a grid around it, which turns with its heading."""

    length: int = knob(11, "points from behind to before", low=1, high=64)
    width: int = knob(7, "points from right to left", low=1, high=64)
    spacing: float = knob(0.1, "between points, of a Go1; of another robot by its height", "m", low=0.01, high=1.0)
    noise: float = knob(0.0, "error of each height, +-, anew whenever it is seen", "m", low=0.0, high=1.0)
    drift: float = knob(
        0.0, "by which the whole grid is off on each axis, +-, anew for every episode", "m", low=0.0, high=1.0
    )
    delay: float = knob(0.0, "up to how old what is seen may be, drawn for every episode", "s", low=0.0, high=1.0)
    dropped: float = knob(0.0, "share of points that are not seen anew, and stay what they were", low=0.0, high=1.0)


@dataclass(frozen=True)
class NoiseCfg(Section):
    """Errors of the observation, uniform +-, anew at every step; a bias anew for every episode."""

    joint_position: float = knob(0.0, "joint angles", "rad", low=0.0, high=1.0)
    joint_velocity: float = knob(0.0, "joint velocities", "rad/s", low=0.0, high=20.0)
    spin: float = knob(0.0, "angular velocity", "rad/s", low=0.0, high=10.0)
    gravity: float = knob(0.0, "direction of gravity", "1", low=0.0, high=1.0)
    spin_bias: float = knob(0.0, "bias of the angular velocity", "rad/s", low=0.0, high=10.0)
    gravity_bias: float = knob(0.0, "bias of the direction of gravity", "1", low=0.0, high=1.0)


@dataclass(frozen=True)
class RewardCfg(Section):
    """Weights of reward terms, by name, and their options; environments/quadruped/rewards.py has Foal's own."""

    floor: bool = knob(True, "the sum of the terms, but for that of a fall, does not fall below 0")


@dataclass(frozen=True)
class ObservationCfg(Section):
    """Options of observations."""


@dataclass(frozen=True)
class TerminationCfg(Section):
    """Options of terminations."""


@dataclass(frozen=True)
class EventCfg(Section):
    """Options of events."""


@dataclass(frozen=True)
class RandomisationCfg(Section):
    """Options of randomisations."""


@dataclass(frozen=True)
class EnvCfg(Section):
    """What every task has: a model, time, and how much room it takes up in a picture."""

    model: str = knob("", "what is simulated, where a task knows several")
    sim_dt: float = knob(0.01, "length of a physics step, a whole share of ctrl_dt", "s", low=1e-5, high=1.0)
    ctrl_dt: float = knob(0.01, "time between two actions", "s", low=1e-4, high=1.0)
    max_episode_seconds: float = knob(10.0, "length of an episode", "s", low=0.01, high=1e5)
    render_spacing: float = knob(
        1.0,
        "half the size of what a picture shows, robots have their own, and half the distance between several",
        "m",
        low=0.01,
        high=1e3,
    )

    @property
    def sim_substeps(self) -> int:
        """Physics steps in a control step."""
        return round(self.ctrl_dt / self.sim_dt)

    @property
    def max_episode_steps(self) -> int:
        """Control steps in an episode."""
        return round(self.max_episode_seconds / self.ctrl_dt)

    def validate(self, name: str = "env") -> None:
        """Raise ConfigError also unless physics steps make up a control step and these an episode; see Section."""
        super().validate(name)
        step = f"env.ctrl_dt = {self.ctrl_dt:g} s"
        if self.sim_dt > self.ctrl_dt * (1 + 1e-6):
            raise ConfigError(f"env.sim_dt: expected at most {step}, got {self.sim_dt:g}")
        if not math.isclose(self.sim_substeps * self.sim_dt, self.ctrl_dt, rel_tol=1e-6):
            raise ConfigError(f"env.sim_dt: expected a whole share of {step}, got {self.sim_dt:g}")
        if self.max_episode_steps < 1:
            raise ConfigError(f"env.max_episode_seconds: expected at least {step}, got {self.max_episode_seconds:g}")


@dataclass(frozen=True)
class QuadrupedCfg(EnvCfg):
    """A task of a legged robot: time, control, how an episode starts, is disturbed, is rewarded and ends."""

    model: str = knob("go1", "robot: name of a file in robots/ or path to a JSON, MJCF or URDF file")
    sim_dt: float = knob(0.004, "length of a physics step, a whole share of ctrl_dt", "s", low=1e-5, high=0.02)
    ctrl_dt: float = knob(0.02, "time between two actions", "s", low=0.001, high=1.0)
    max_episode_seconds: float = knob(20.0, "length of an episode", "s", low=0.1, high=1e5)
    control: str = knob("pd", "meaning of an action", choices=("pd", "torque"))
    action_scale: float = knob(0.4, "joint angle of action 1 (pd)", "rad", low=0.01, high=3.0)
    kp: float = knob(
        40.0,
        "stiffness of the PD law of a Go1; another robot's is its file's, or by weight and height, scaled alike",
        "N m/rad",
        low=0.0,
        high=1000.0,
    )
    kd: float = knob(1.0, "damping of the PD law, likewise", "N m s/rad", low=0.0, high=100.0)
    torque_scale: float = knob(8.0, "torque of action 1 (torque)", "N m", low=0.1, high=1000.0)
    torque_kd: float = knob(2.0, "damping at the motor (torque)", "N m s/rad", low=0.0, high=100.0)
    fall_tilt: float = knob(1.0, "tilt that ends an episode", "rad", low=0.1, high=3.0)
    fall_height: float = knob(
        0.5, "height of the base that ends an episode, as a share of the home height", "1", low=0.0, high=1.0
    )
    robot: RobotCfg = RobotCfg()
    physics: PhysicsCfg = PhysicsCfg(limit_stiffness=300.0, limit_damping=3.0)
    reset: ResetCfg = ResetCfg()
    push: PushCfg = PushCfg()
    goal: GoalCfg = GoalCfg()
    command: CommandCfg = CommandCfg()
    terrain: TerrainCfg = TerrainCfg()
    scan: ScanCfg = ScanCfg()
    motion: MotionCfg = MotionCfg()
    vary: VaryCfg = VaryCfg(
        friction=(0.7, 1.3), stiffness=(0.5, 1.5), trunk_mass=(0.9, 1.15), trunk_shift=0.02, link_mass=(0.95, 1.05),
        strength=(0.9, 1.1), kp=(0.9, 1.1), kd=(0.9, 1.1), joint_offset=0.02, gravity=(0.98, 1.02),
    )  # fmt: skip
    noise: NoiseCfg = NoiseCfg(
        joint_position=0.01, joint_velocity=0.5, spin=0.1, gravity=0.02, spin_bias=0.02, gravity_bias=0.01
    )
    reward: RewardCfg = RewardCfg()
    observation: ObservationCfg = ObservationCfg()
    termination: TerminationCfg = TerminationCfg()
    event: EventCfg = EventCfg()
    randomisation: RandomisationCfg = RandomisationCfg()

    def validate(self, name: str = "env") -> None:
        """Raise ConfigError also for commands that would arrive after the next; see Section."""
        super().validate(name)
        longest = self.physics.motor.delay + self.vary.delay[1]
        if self.physics.motor.enabled and longest >= self.ctrl_dt:
            raise ConfigError(
                f"motor.delay: expected, with vary.delay, less than env.ctrl_dt = {self.ctrl_dt:g} s, got {longest:g}"
            )
        if self.vary.delay[1] > 0 and not self.physics.motor.enabled:
            raise ConfigError("vary.delay: expected motor.enabled true, or 0 0")


@dataclass(frozen=True)
class NetworkCfg(Section):
    """The policy; the sizes are EntityBelief's: encoder, graph attention, LSTM, heads."""

    policy: str = knob(
        "entity:EntityBelief", "the policy, as module:Class; docs/your_own_policy.md says how to write one"
    )
    attention: bool = knob(
        True, "graph attention among the parts of the body, else one layer on the observation as it comes"
    )
    recurrent: bool = knob(True, "an LSTM, else a layer without memory")
    symmetric: bool = knob(True, "what it does in the mirror image of a situation is the mirror image of what it does")
    heads: int = knob(4, "attention heads", low=1, high=64)
    head_size: int = knob(16, "features of an attention head", low=1, high=512)
    ground: int = knob(64, "features of the encoded scan of the ground, where there is one", low=1, high=4096)
    encoder: int = knob(64, "features of the encoded body", low=1, high=4096)
    lstm: int = knob(128, "features of the recurrent state", low=1, high=4096)
    critic: int = knob(128, "features of each layer of the value head", low=1, high=4096)
    min_observation_std: float = knob(
        0.5, "observations are divided by their standard deviation, at least by this", low=1e-6, high=1e6
    )
    bound: float = knob(
        0.0, "actions stay between +- this, by tanh, 0 for anywhere; with sac", "1", low=0.0, high=100.0
    )
    initial_std: float = knob(0.5, "initial standard deviation of an action", "1", low=0.01, high=5.0)
    min_std: float = knob(0.05, "smallest standard deviation of an action", "1", low=1e-4, high=5.0)


@dataclass(frozen=True)
class PPOCfg(Section):
    """Proximal policy optimisation."""

    rollout: int = knob(16, "control steps between updates", low=2, high=1024)
    epochs: int = knob(1, "passes over a rollout", low=1, high=100)
    minibatches: int = knob(8, "minibatches of a pass, split over robots", low=1, high=1024)
    learning_rate: float = knob(5e-4, "initial learning rate", low=1e-8, high=1.0)
    min_learning_rate: float = knob(1e-5, "smallest learning rate", low=0.0, high=1.0)
    max_learning_rate: float = knob(5e-4, "largest learning rate", low=0.0, high=1.0)
    target_kl: float = knob(
        0.02, "divergence per update that the learning rate aims at, 0 for a fixed rate", "nat", low=0.0, high=10.0
    )
    reward_scale: float = knob(
        1.0,
        "rewards are learnt times this: best where what is expected of the future is about 1",
        "1",
        low=1e-9,
        high=1e9,
    )
    gamma: float = knob(0.995, "discount", low=0.0, high=1.0)
    gae_lambda: float = knob(0.95, "decay of generalised advantage estimation", low=0.0, high=1.0)
    advantage_rate: float = knob(
        1.0,
        "rate at which the scale of advantages follows that of real rollouts, 1: each rollout has its own",
        "1",
        low=1e-4,
        high=1.0,
    )
    clip: float = knob(0.2, "clipping of the probability ratio", low=0.001, high=10.0)
    critic_rate: float = knob(3.0, "learning rate of the critic, times the policy's", low=0.0, high=1e3)
    entropy_coefficient: float = knob(0.001, "weight of the entropy bonus", low=0.0, high=10.0)
    max_gradient_norm: float = knob(1.0, "clipping of the gradient", low=1e-6, high=1e6)
    scale_until: int = knob(
        0, "control steps of all robots over which the scale of observations is learnt, 0: all", low=0, high=10**12
    )
    average: int = knob(
        1,
        "iterations over which the policy that is evaluated and kept is averaged, exponentially, 1 for the latest",
        low=1,
        high=10**6,
    )


@dataclass(frozen=True)
class SACCfg(Section):
    """Soft actor-critic, which learns over and over from all experience of few robots."""

    updates: int = knob(512, "batches per rollout", low=1, high=10**6)
    batch: int = knob(32, "rollouts in a batch, each of one robot", low=1, high=1 << 20)
    capacity: int = knob(512, "rollouts in the replay buffer", low=1, high=1 << 20)
    patience: int = knob(4, "rollouts before the first that is learnt from", low=1, high=10**9)
    others: int = knob(
        16, "other commands that rewards are asked about, for each robot and rollout, 0 for none", low=0, high=1024
    )
    relabelled: float = knob(0.8, "share of a batch that is told of another command", "1", low=0.0, high=1.0)
    learning_rate: float = knob(6e-4, "learning rate", low=1e-8, high=1.0)
    gamma: float = knob(0.985, "discount", low=0.0, high=1.0)
    reward_scale: float = knob(10.0, "rewards are learnt times this", "1", low=1e-9, high=1e9)
    critics: int = knob(2, "perceptrons that say what actions are worth", low=1, high=64)
    hidden: int = knob(512, "features of their layers", low=8, high=8192)
    bins: int = knob(101, "bins of the histogram that each answers with", low=2, high=10**4)
    values: Pair = knob((-20.0, 120.0), "range of the histogram", "1", low=-1e9, high=1e9)
    target_rate: float = knob(
        0.005, "rate at which those that are learnt from follow those that learn", "1", low=1e-6, high=1.0
    )
    delay: int = knob(2, "batches for each that the policy learns from", low=1, high=1000)
    temperature: float = knob(0.01, "initial weight of the entropy", "1", low=1e-9, high=100.0)
    entropy: float = knob(-1.1, "entropy aimed at, of each action", "nat", low=-20.0, high=20.0)

    def validate(self, name: str = "sac") -> None:
        """Raise ConfigError also for an empty range of values; see Section."""
        super().validate(name)
        if not self.values[0] < self.values[1]:
            raise ConfigError(f"sac.values: expected more in the end than {self.values[0]:g}, got {self.values[1]:g}")


@dataclass(frozen=True)
class TeacherCfg(Section):
    """A trained policy that sees more, which is imitated before rewards take over."""

    policy: str = knob("", "who teaches: a checkpoint, the folder of a run, or the task of one that comes with Foal")
    fade: int = knob(200, "iterations in which imitating gives way to the reward", low=1, high=10**9)
    least: float = knob(0.0, "share of the policy's loss that it keeps", "1", low=0.0, high=1.0)


@dataclass(frozen=True)
class CurriculumCfg(Section):
    """How hard pushes and commands get while training, times the task's own, which evaluations have."""

    push: Pair = knob((1.0, 1.2), "strength of pushes, at first and in the end", "1", low=0.0, high=10.0)
    push_rate: float = knob(1.0, "number of pushes, throughout", "1", low=0.01, high=100.0)
    command_rate: float = knob(1.0, "number of commands, throughout", "1", low=0.01, high=100.0)
    episode_rate: float = knob(1.0, "number of episodes, throughout, each so much shorter", "1", low=0.01, high=100.0)
    command: Pair = knob((1.0, 1.0), "velocities of commands, at first and in the end", "1", low=0.0, high=10.0)
    growth: float = knob(0.005, "what an iteration adds to either level", "1", low=0.0, high=1.0)
    falls: float = knob(1.2, "falls per 1000 control steps above which neither grows", "1", low=0.0, high=1000.0)
    climb: bool = knob(True, "robots go to harder tiles of a terrain as they succeed, and back as they fail")


@dataclass(frozen=True)
class WorldModelCfg(Section):
    """The world model: what it is for, of what kind and how large it is, how it learns."""

    role: str = knob(
        "off",
        "off: there is none; belief: the policy reads what it remembers; "
        "imagination: policy and critic also learn from what it imagines; "
        "exploration: there is a reward for what its members disagree about",
        choices=("off", "belief", "imagination", "exploration"),
    )
    kind: str = knob(
        "recurrent",
        "recurrent: a state-space model, which remembers, for belief and imagination; "
        "ensemble: networks that know one step, for imagination and exploration",
        choices=("recurrent", "ensemble"),
    )
    size: str = knob(
        "small",
        "deter, groups, classes and hidden, where they are not given: small suits a CPU",
        choices=("small", "medium", "large"),
    )
    privileged: bool = knob(False, "it also sees what only the simulator knows; else it only predicts that")
    deter: int = knob(128, "features of the deterministic state", low=1, high=8192)
    groups: int = knob(16, "categorical variables of the stochastic state", low=1, high=32)
    classes: int = knob(16, "values of each", low=2, high=32)
    hidden: int = knob(128, "features of hidden layers", low=1, high=8192)
    members: int = knob(2, "networks of an ensemble", low=1, high=64)
    bins: int = knob(41, "bins of the distribution over rewards", low=3, high=255)
    reward_scale: float = knob(50.0, "rewards are predicted times this", "1", low=1e-6, high=1e6)
    learning_rate: float = knob(1e-3, "learning rate", low=1e-8, high=1.0)
    weight_decay: float = knob(
        0.0, "share of the weights taken off per unit of learning rate", "1", low=0.0, high=100.0
    )
    average: int = knob(
        1, "batches over which its weights are averaged, exponentially, 1 for the latest", low=1, high=10**6
    )
    updates: int = knob(10, "batches per rollout", low=1, high=10**6)
    batch: int = knob(64, "sequences in a batch; of an ensemble, steps of each member's", low=1, high=1 << 20)
    sequence: int = knob(1, "rollouts in a sequence", low=1, high=1024)
    capacity: int = knob(128, "rollouts in the replay buffer", low=1, high=1 << 20)
    decode: float = knob(1.0, "weight of the observations' reconstruction", "1", low=0.0, high=1e3)
    dynamics: float = knob(1.0, "weight of the divergence that teaches the prior", "1", low=0.0, high=100.0)
    representation: float = knob(
        0.1, "weight of the divergence that makes the posterior predictable", "1", low=0.0, high=100.0
    )
    free_nats: float = knob(1.0, "divergence below which neither teaches", "nat", low=0.0, high=1e3)
    overshoot: int = knob(0, "steps predicted on end without looking, 0 for none", low=0, high=1024)
    overshoot_decay: float = knob(0.9, "weight of a step over that of the one before it", "1", low=0.0, high=1.0)
    mask: float = knob(0.1, "share of observations withheld", "1", low=0.0, high=1.0)
    horizon: int = knob(5, "steps of an imagined rollout", low=1, high=1024)
    patience: int = knob(8, "rollouts before the first that is imagined", low=1, high=10**9)
    passes: int = knob(3, "updates per rollout, each with what is imagined anew", low=1, high=1024)
    imagined: int = knob(3072, "imagined rollouts per update", low=1, high=1 << 20)
    curiosity: float = knob(
        0.1,
        "reward of a step, in role exploration, about whose outcome members differ twice as much as usual",
        "1",
        low=0.0,
        high=1e6,
    )
    falls: float = knob(
        0.0,
        "share of what is imagined, and of what an ensemble learns from, that comes soon before a fall",
        "1",
        low=0.0,
        high=1.0,
    )
    weight: float = knob(
        0.75, "weight of what is imagined in an update, of 1 for all experience", "1", low=0.0, high=1.0
    )

    def validate(self, name: str = "world_model") -> None:
        """Raise ConfigError also for a kind that does not suit the role, or a belief that would need a simulator."""
        super().validate(name)
        for role, kind, why in (
            ("belief", "recurrent", "whose policy reads what is remembered"),
            ("exploration", "ensemble", "which is rewarded for disagreement"),
        ):
            if self.role == role and self.kind != kind:
                raise ConfigError(f"world_model.kind: expected {kind} in role {role}, {why}, got {self.kind}")
        if self.role == "exploration" and self.members < 2:
            raise ConfigError("world_model.members: expected at least 2 in role exploration, got 1")
        if self.role == "belief" and self.privileged:
            raise ConfigError(
                "world_model.privileged: expected false in role belief, "
                "whose policy must do without a simulator, got true"
            )


@dataclass(frozen=True)
class TrainCfg(Section):
    """A training run."""

    learner: str = knob(
        "ppo",
        "ppo: proximal policy optimisation, for many robots; sac: soft actor-critic, for few",
        choices=("ppo", "sac"),
    )
    num_envs: int = knob(0, "robots, of all processes together, 0 to choose by memory and cores", low=0, high=1 << 24)
    iterations: int = knob(200, "rollouts with an update each", low=1, high=10**9)
    eval_every: int = knob(10, "iterations between evaluations, 0 for none", low=0, high=10**9)
    eval_episodes: int = knob(256, "episodes of an evaluation", low=1, high=1 << 20)
    clip_every: int = knob(0, "evaluations between clips of what they see, 0 for none", low=0, high=10**9)
    target_survival: float = knob(
        0.95, "share of survived evaluation episodes whose time of arrival is reported", low=0.0, high=1.0
    )
    device: str = knob("auto", "where the networks run", choices=("auto", "cpu", "cuda"))
    precision: str = knob("auto", "arithmetic of the networks' products", choices=("auto", "float32", "bfloat16"))
    threads: int = knob(0, "threads of a process, for physics and networks, 0 for all its cores", low=0, high=4096)
    save_every: float = knob(30.0, "time between saving all that going on needs", "s", low=0.0, high=1e6)
    keep: int = knob(3, "evaluated policies that are kept beside the best, the last ones", low=0, high=10**6)
    run_dir: str = knob("runs", "folder of the folders of runs")
    tracker: str = knob("", "package that shows the run beside TensorBoard, if any", choices=("", "wandb", "trackio"))


@dataclass(frozen=True)
class RenderCfg(Section):
    """The window and recordings."""

    width: int = knob(960, "picture width, even", "pixel", low=64, high=7680)
    height: int = knob(540, "picture height, even", "pixel", low=64, high=4320)
    envs: int = knob(1, "robots side by side, or on one terrain as they stand", low=1, high=4096)
    overlays: str = knob(
        "forces ghosts numbers",
        "shown at first: forces, balance, speed, torques, rewards, ground, ghosts, trails, numbers",
    )


@dataclass(frozen=True)
class ExportCfg(Section):
    """Exported policies."""

    opset: int = knob(18, "of ONNX", low=17, high=23)


@dataclass(frozen=True)
class Config(Section):
    """Everything."""

    task: str = knob("quadruped-balance", "task")
    seed: int = knob(0, "seed of everything random", low=0, high=2**31 - 1)
    env: EnvCfg = QuadrupedCfg()
    network: NetworkCfg = NetworkCfg()
    ppo: PPOCfg = PPOCfg()
    sac: SACCfg = SACCfg()
    teacher: TeacherCfg = TeacherCfg()
    curriculum: CurriculumCfg = CurriculumCfg()
    world_model: WorldModelCfg = WorldModelCfg()
    train: TrainCfg = TrainCfg()
    render: RenderCfg = RenderCfg()
    export: ExportCfg = ExportCfg()

    def validate(self, name: str = "") -> None:
        """Raise ConfigError also unless robots make up whole minibatches, and for what SAC does not do; see Section."""
        super().validate(name)
        if self.train.learner == "sac" and (self.world_model.role != "off" or self.teacher.policy):
            what = f"world_model.role {self.world_model.role}" if self.world_model.role != "off" else "teacher.policy"
            raise ConfigError(f"train.learner: expected ppo with {what}, got sac")
        if self.train.learner == "ppo" and self.network.bound:
            raise ConfigError(f"network.bound: expected 0 with ppo, got {self.network.bound:g}")
        if self.train.learner == "ppo" and self.train.num_envs % self.ppo.minibatches:
            raise ConfigError(
                f"train.num_envs: expected a multiple of ppo.minibatches = {self.ppo.minibatches}, "
                f"got {self.train.num_envs}"
            )
