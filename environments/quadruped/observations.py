"""What the policy sees, all measurable on a robot, and what the critic sees beside it: functions, in order."""

import math

from environments.quadruped.fields import CONTACT_THRESHOLD
from environments.quadruped.terms import observation
from physics.spatial import unrotate

SPEED_SCALE = 0.05  # of joint velocities
SPIN_SCALE = 0.25  # of angular velocity
HEIGHT_SCALE = 10.0  # of base and feet
GOAL_SCALE = 5.0  # of a goal that is near
GOAL_SPAN = 1.5  # how a far goal's largest horizontal distance appears


def clipped(offset, ahead, reach):
    """Return an offset (3) in the heading frame, horizontally at most reach long."""
    x, y = ahead[0] * offset[0] + ahead[1] * offset[1], ahead[0] * offset[1] - ahead[1] * offset[0]
    shrink = min(1.0, reach / math.sqrt(x * x + y * y + 1e-12))
    return shrink * x, shrink * y, offset[2]


@observation(columns=12, noise="noise_joint_position", mirror="joints", node="legs")
def joint_angles(joint_reading, joint_home):
    """Joint angle less home angle [rad]."""
    return joint_reading[0] - joint_home[0], joint_reading[1] - joint_home[1], joint_reading[2] - joint_home[2]


@observation(columns=12, scale=SPEED_SCALE, noise="noise_joint_velocity", mirror="joints", node="legs")
def joint_speeds(joint_velocity):
    """Joint velocity [rad/s]."""
    return joint_velocity


@observation(columns=4, mirror="feet", node="legs")
def contacts(contact_force):
    """Foot in contact: 1 above 1 N, else 0."""
    x, y, z = contact_force
    return 1.0 if x * x + y * y + z * z > CONTACT_THRESHOLD**2 else 0.0


@observation(columns=3, noise="noise_gravity", mirror="vector")
def gravity_direction(up, gravity_bias):
    """Direction of gravity, base frame."""
    return gravity_bias[0] - up[0], gravity_bias[1] - up[1], gravity_bias[2] - up[2]


@observation(columns=3, scale=SPIN_SCALE, noise="noise_spin", mirror="turn")
def angular_velocity(base_spin, spin_bias):
    """Angular velocity, base frame [rad/s]."""
    return base_spin[0] + spin_bias[0], base_spin[1] + spin_bias[1], base_spin[2] + spin_bias[2]


@observation(columns=3, mirror="vector")
def true_velocity(base_velocity_B):
    """Base velocity, base frame [m/s]."""
    return base_velocity_B


@observation(columns=1, scale=HEIGHT_SCALE, mirror="number")
def true_height(base_height, home_height):
    """Height above the ground less home height [m]."""
    return base_height - home_height


@observation(columns=12, mirror="joints", node="legs")
def latest_action(action):
    """Latest action."""
    return action


@observation(columns=2, mirror="number")
def friction_and_mass(friction_ratio, trunk_mass_ratio):
    """Foot friction and trunk mass, times the model's; 1 where robots do not differ."""
    return friction_ratio, trunk_mass_ratio


@observation(columns=4, scale=HEIGHT_SCALE, mirror="feet")
def foot_heights(foot_height):
    """Height of each foot's lowest point above the ground [m]."""
    return foot_height


@observation(columns=4, mirror="feet")
def air_times(air_time):
    """Time that each foot has been in the air [s]."""
    return air_time


@observation(columns=4, mirror="feet")
def foot_loads(foot_force, per_weight):
    """Vertical contact force on each foot over the robot's weight."""
    return (
        per_weight * foot_force[0],
        per_weight * foot_force[1],
        per_weight * foot_force[2],
        per_weight * foot_force[3],
    )


@observation(columns=3, mirror="vector")
def next_push_velocity(next_push, rotation, push_level):
    """Velocity that the next push will add, base frame [m/s]."""
    return unrotate(rotation, (push_level * next_push[0], push_level * next_push[1], push_level * next_push[2]))


@observation(columns=3, mirror="turn")
def next_push_spin(next_kick, push_level):
    """Angular velocity that it will add, base frame [rad/s]."""
    return push_level * next_kick[0], push_level * next_kick[1], push_level * next_kick[2]


@observation(columns=1, mirror="number")
def next_push_time(push_in):
    """Time until then [s]."""
    return push_in


SENSED = joint_angles, joint_speeds, contacts, gravity_direction, angular_velocity
PRIVILEGED = (
    true_velocity, true_height, latest_action, friction_and_mass, foot_heights, air_times, foot_loads,
    next_push_velocity, next_push_spin, next_push_time,
)  # fmt: skip
