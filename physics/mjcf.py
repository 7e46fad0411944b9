"""The same robot for MuJoCo: an MJCF model of trunk, legs and feet on a plane."""

from collections.abc import Iterable

from physics.robot import AXES, JOINTS, LEGS, Link, Robot


def _numbers(values: Iterable) -> str:
    return " ".join(f"{v:.9g}" for v in values)


def _inertial(link: Link) -> str:
    i = link.inertia
    full = (i[0, 0], i[1, 1], i[2, 2], i[0, 1], i[0, 2], i[1, 2])
    return f'<inertial mass="{link.mass:.9g}" pos="{_numbers(link.com)}" fullinertia="{_numbers(full)}"/>'


def to_mjcf(robot: Robot, timestep: float = 0.002, friction: float = 0.8, option: str = 'iterations="1" ls_iterations="4"', joint_friction: bool = True) -> str:
    """Return an MJCF model of a robot on a flat floor, its joints free of end stops.

    Bodies, joints, inertias and feet are the robot's; motors take torques [N m] in the order of the
    joints and are cut at the torque limit. Only the feet touch the floor. Joint ranges, trunk and the
    home pose, a keyframe, are written down and move nothing.

    timestep: [s]; friction: of a foot; option: attributes of MuJoCo's <option>; joint_friction:
    whether dry friction of the joints is kept.
    """
    legs, motors = [], []
    for i, leg in enumerate(LEGS):
        open_tags = []
        for j, (joint, axis) in enumerate(zip(JOINTS, AXES, strict=True)):
            name = f"{leg}_{joint}"
            dry = robot.friction[i, j] if joint_friction else 0.0
            open_tags.append(
                f'<body name="{name}" pos="{_numbers(robot.offset[i, j])}">{_inertial(robot.links[i][j])}'
                f'<joint name="{name}" type="hinge" axis="{"1 0 0" if axis == "x" else "0 1 0"}" limited="false" range="{_numbers(robot.joint_range[i, j])}"'
                f' damping="{robot.damping[i, j]:.9g}" armature="{robot.armature[i, j]:.9g}" frictionloss="{dry:.9g}"/>'
            )
            limit = robot.torque_limit[i, j]
            motors.append(f'<motor name="{name}" joint="{name}" ctrllimited="true" ctrlrange="{-limit:.9g} {limit:.9g}"/>')
        foot = f'<geom name="{leg}" type="sphere" size="{robot.foot_radius[i]:.9g}" pos="{_numbers(robot.foot_offset[i])}" contype="0" conaffinity="1"/>'
        legs.append("".join(open_tags) + foot + "</body>" * 3)
    # conaffinity 2 makes the trunk a collision geometry, and nothing has a contype that meets it
    trunk = f'<geom name="trunk" type="box" size="{_numbers(robot.trunk_half_extents)}" contype="0" conaffinity="2"/>'
    home = _numbers([0, 0, robot.home_height, 1, 0, 0, 0, *robot.home_joints.ravel()])
    return f"""<mujoco model="{robot.name}">
<compiler angle="radian" inertiafromgeom="false"/>
<option timestep="{timestep:.9g}" integrator="Euler" solver="Newton" cone="pyramidal" {option}/>
<default><geom friction="{friction:.9g} 0 0" condim="3" mass="0"/></default>
<worldbody>
<geom name="floor" type="plane" size="0 0 1" contype="1" conaffinity="0"/>
<body name="base" pos="0 0 {robot.home_height:.9g}"><freejoint/>{_inertial(robot.base)}{trunk}{"".join(legs)}</body>
</worldbody>
<actuator>{"".join(motors)}</actuator>
<keyframe><key name="home" qpos="{home}"/></keyframe>
</mujoco>"""
