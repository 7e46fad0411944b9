"""Terms of tasks that follow a motion (reference.py): how near the robot is to what it should be doing.

A reward is 1 for no error and falls off as exp(-(error / width)^2); those of legs are means over the four.
"""

import math

from environments.contracts import Mirror
from environments.quadruped.fields import Field
from environments.quadruped.observations import HEIGHT_SCALE, SPEED_SCALE, SPIN_SCALE
from environments.quadruped.terms import event, metric, observation, randomisation, renewal, reward, termination

FEET_PAIRS = Mirror((2, 3, 0, 1, 6, 7, 4, 5), (1.0,) * 8)  # two numbers of each foot
STRIDE = 12.0  # angular frequency of a usual stride [rad/s]


def squared(a, b):
    """Return the squared distance of two vectors (3)."""
    x, y, z = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return x * x + y * y + z * z


def mapped(turn, v):
    """Return a horizontal vector (2) turned by an angle whose cosine and sine are given."""
    return turn[0] * v[0] - turn[1] * v[1], turn[1] * v[0] + turn[0] * v[1]


# what the robot does, and begins with


@event(sets="joint_target")
def residual(leg_action, next_joint, joint_low, joint_high, action_scale):
    """Actions count from the pose that the motion has at the end of the step, not from home."""
    x = min(max(next_joint[0] + action_scale * leg_action[0], joint_low[0]), joint_high[0])
    y = min(max(next_joint[1] + action_scale * leg_action[1], joint_low[1]), joint_high[1])
    z = min(max(next_joint[2] + action_scale * leg_action[2], joint_low[2]), joint_high[2])
    return x, y, z


@randomisation(sets=("joint_position", "joint_velocity", "joint_target"))
def legs_in_motion(
    joint_position, joint_velocity, joint_home, reference_joint, reference_joint_speed, joint_low, joint_high
):
    """Joints of an episode's start as the motion has them, disturbed as they would be at home."""
    x = min(max(joint_position[0] - joint_home[0] + reference_joint[0], joint_low[0]), joint_high[0])
    y = min(max(joint_position[1] - joint_home[1] + reference_joint[1], joint_low[1]), joint_high[1])
    z = min(max(joint_position[2] - joint_home[2] + reference_joint[2], joint_low[2]), joint_high[2])
    speed = (
        joint_velocity[0] + reference_joint_speed[0],
        joint_velocity[1] + reference_joint_speed[1],
        joint_velocity[2] + reference_joint_speed[2],
    )
    return (x, y, z), speed, reference_joint


@randomisation(sets=("quaternion", "base_velocity", "base_spin", "clearance"))
def base_in_motion(
    quaternion, base_velocity, base_spin, reference_up, reference_velocity, reference_spin, reference_rise
):
    """The base of an episode's start as the motion has it, heading anywhere, disturbed as it would be at home."""
    w, x, y, z = quaternion
    # the shortest turn that brings the motion's vertical to the world's: about u x e_z
    ux, uy = reference_up[0], reference_up[1]
    share = 1.0 / math.sqrt(2.0 * (1.0 + max(reference_up[2], -0.999)))
    a, b, c = (1.0 + max(reference_up[2], -0.999)) * share, uy * share, -ux * share
    turned = w * a - x * b - y * c, w * b + x * a - z * c, w * c + y * a + z * b, x * c - y * b + z * a
    ahead, aside = 1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z)
    size = 1.0 / math.sqrt(ahead * ahead + aside * aside + 1e-12)
    vx, vy = mapped((size * ahead, size * aside), reference_velocity)
    velocity = base_velocity[0] + vx, base_velocity[1] + vy, base_velocity[2] + reference_velocity[2]
    spin = base_spin[0] + reference_spin[0], base_spin[1] + reference_spin[1], base_spin[2] + reference_spin[2]
    return turned, velocity, spin, reference_rise


@renewal(
    sets=("lag", "turn_lag"),
    keeps=(
        Field("lag", 2, "m", "from where the motion would be to where the robot is, since the episode began", 0.0),
        Field("turn_lag", 1, "rad", "the same of the heading", 0.0),
    ),
)
def fall_behind(lag, turn_lag, base_velocity, base_spin, ahead, reference_velocity, reference_spin, ctrl_dt):
    """How far the robot has come from where the motion is, from the velocities of both."""
    turn = turn_lag + ctrl_dt * (base_spin[2] - reference_spin[2])
    vx, vy = mapped(ahead, mapped((math.cos(turn), -math.sin(turn)), reference_velocity))
    return (lag[0] + ctrl_dt * (base_velocity[0] - vx), lag[1] + ctrl_dt * (base_velocity[1] - vy)), turn


# what it sees


@observation(columns=12, mirror="joints", node="legs")
def next_pose(next_joint, joint_home):
    """Joint angles that the motion has a step later, less home angles [rad]."""
    return next_joint[0] - joint_home[0], next_joint[1] - joint_home[1], next_joint[2] - joint_home[2]


@observation(columns=12, scale=SPEED_SCALE, mirror="joints", node="legs")
def next_speeds(next_joint_speed):
    """Their velocities [rad/s]."""
    return next_joint_speed


@observation(columns=12, mirror="joints", node="legs")
def later_pose(later_joint, joint_home):
    """Joint angles that the motion has 0.1 s later, less home angles [rad]."""
    return later_joint[0] - joint_home[0], later_joint[1] - joint_home[1], later_joint[2] - joint_home[2]


@observation(columns=8, mirror=FEET_PAIRS, node="legs")
def leg_phase(next_joint, next_joint_speed, joint_home):
    """Where in its stride the motion's leg is: cosine and sine of the phase of its thigh; shorter where it rests."""
    x, y = next_joint[1] - joint_home[1], next_joint_speed[1] / STRIDE
    size = 1.0 / math.sqrt(x * x + y * y + 0.01)
    return size * x, size * y


@observation(columns=3, mirror="vector")
def motion_velocity(reference_velocity):
    """Velocity that the motion has, heading frame [m/s]."""
    return reference_velocity


@observation(columns=3, scale=SPIN_SCALE, mirror="turn")
def motion_spin(reference_spin):
    """Angular velocity that it has, base frame [rad/s]."""
    return reference_spin


@observation(columns=3, mirror="vector")
def motion_gravity(reference_up):
    """Direction of gravity in it, base frame."""
    return -reference_up[0], -reference_up[1], -reference_up[2]


@observation(columns=3, mirror="number")
def motion_progress(reference_height, home_height, reference_phase):
    """Height above the ground that it has less home height [m] x 10; cosine and sine of how far through it is."""
    return HEIGHT_SCALE * (reference_height - home_height), reference_phase[0], reference_phase[1]


@observation(columns=3, mirror=Mirror((0, 1, 2), (1.0, -1.0, -1.0)))
def behind(lag, turn_lag, ahead):
    """How far the robot has come from the motion: place, heading frame [m], and heading [rad]."""
    return ahead[0] * lag[0] + ahead[1] * lag[1], ahead[0] * lag[1] - ahead[1] * lag[0], turn_lag


# what it is rewarded for


@reward
def joint_tracking(joint_position, reference_joint, joint_width=0.3):
    """Joint angles as the motion has them.

    joint_width: error of a leg's joints at which it is 1/e [rad]
    """
    return 0.25 * math.exp(-squared(joint_position, reference_joint) / (joint_width * joint_width))


@reward
def joint_speed_tracking(joint_velocity, reference_joint_speed, joint_speed_width=8.0):
    """Joint velocities as the motion has them.

    joint_speed_width: error of a leg's joints at which it is 1/e [rad/s]
    """
    return 0.25 * math.exp(-squared(joint_velocity, reference_joint_speed) / (joint_speed_width * joint_speed_width))


@reward
def foot_tracking(foot_place, reference_foot, home_height, foot_width=0.25):
    """Feet where the motion has them, seen from the base.

    foot_width: error at which it is 1/e, times the base's height at home [1]
    """
    width = foot_width * home_height
    return 0.25 * math.exp(-squared(foot_place, reference_foot) / (width * width))


@reward
def root_tracking(base_height, reference_height, home_height, up, reference_up, height_width=0.2, tilt_width=0.3):
    """Height and tilt of the base as the motion has them.

    height_width: error of the height at which it is 1/e, times that at home [1]
    tilt_width: error of the tilt at which it is 1/e [rad]
    """
    error = (base_height - reference_height) / (height_width * home_height)
    return math.exp(-error * error - squared(up, reference_up) / (tilt_width * tilt_width))


@reward
def velocity_tracking(heading_velocity, base_velocity, reference_velocity, velocity_width=0.3):
    """Velocity of the base as the motion has it.

    velocity_width: error at which it is 1/e [m/s]
    """
    error = squared((heading_velocity[0], heading_velocity[1], base_velocity[2]), reference_velocity)
    return math.exp(-error / (velocity_width * velocity_width))


@reward
def spin_tracking(base_spin, reference_spin, turn_width=0.4, tumble_width=2.0):
    """Angular velocity of the base as the motion has it.

    turn_width: error of the yaw rate at which it is 1/e [rad/s]
    tumble_width: error of roll and pitch rate at which it is 1/e [rad/s]
    """
    x, y, z = base_spin[0] - reference_spin[0], base_spin[1] - reference_spin[1], base_spin[2] - reference_spin[2]
    return math.exp(-(x * x + y * y) / (tumble_width * tumble_width) - z * z / (turn_width * turn_width))


@reward
def place_tracking(lag, turn_lag, place_width=0.4, heading_width=0.4):
    """Place and heading where the motion would be.

    place_width: error of the place at which it is 1/e [m]
    heading_width: error of the heading at which it is 1/e [rad]
    """
    way = (lag[0] * lag[0] + lag[1] * lag[1]) / (place_width * place_width)
    return math.exp(-way - turn_lag * turn_lag / (heading_width * heading_width))


# when it ends


@termination
def strayed_root(base_height, reference_height, home_height, up, reference_up, stray_height=0.4, stray_tilt=0.8):
    """The base is higher, lower or tilted otherwise than in the motion.

    stray_height: by how much, times its height at home [1]
    stray_tilt: by what angle [rad]
    """
    apart = abs(base_height - reference_height) > stray_height * home_height
    along = up[0] * reference_up[0] + up[1] * reference_up[1] + up[2] * reference_up[2]
    return apart | (along < math.cos(stray_tilt))


@termination
def strayed_foot(foot_place, reference_foot, home_height, stray_foot=0.8):
    """A foot is elsewhere than in the motion, seen from the base.

    stray_foot: how far, times the base's height at home [1]
    """
    far = stray_foot * home_height
    return squared(foot_place, reference_foot) > far * far


# how well it does


@metric
def joint_error(joint_position, reference_joint):
    """Joint angles less those of the motion, in the mean over the joints [rad]."""
    x, y, z = (
        joint_position[0] - reference_joint[0],
        joint_position[1] - reference_joint[1],
        joint_position[2] - reference_joint[2],
    )
    return (abs(x) + abs(y) + abs(z)) / 12.0


@metric
def foot_error(foot_place, reference_foot):
    """Of feet from where the motion has them, seen from the base, in the mean over the feet [m]."""
    return 0.25 * math.sqrt(squared(foot_place, reference_foot))


@metric
def place_error(lag):
    """Of the robot from where the motion would be [m]."""
    return math.sqrt(lag[0] * lag[0] + lag[1] * lag[1])


@metric
def motion_velocity_error(heading_velocity, reference_velocity):
    """Horizontal velocity less that of the motion [m/s]."""
    x, y = heading_velocity[0] - reference_velocity[0], heading_velocity[1] - reference_velocity[1]
    return math.sqrt(x * x + y * y)
