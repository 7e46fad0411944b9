"""The same robot for MuJoCo: an MJCF model of trunk, legs and feet on a plane or a terrain."""

from collections.abc import Iterable

import numpy as np

from physics.robot import AXES, EDGED, JOINTS, LEGS, Link, Robot
from physics.terrain import Terrain

BASE_THICKNESS = 1.0  # of a height field, below its lowest point [m]
# How far a height field goes on as its border is [m]. A terrain's does for ever; a walker of 1 m/s gets so far in 30 s,
# and would fall off the edge: 5 of 12 falls of 96 robots on stairs in MuJoCo were that
BEYOND = 30.0


def _numbers(values: Iterable) -> str:
    return " ".join(f"{v:.9g}" for v in values)


def _inertial(link: Link) -> str:
    i = link.inertia
    full = (i[0, 0], i[1, 1], i[2, 2], i[0, 1], i[0, 2], i[1, 2])
    return f'<inertial mass="{link.mass:.9g}" pos="{_numbers(link.com)}" fullinertia="{_numbers(full)}"/>'


def _sphere(name: str, radius: float, at: Iterable) -> str:
    return f'<geom name="{name}" type="sphere" size="{radius:.9g}" pos="{_numbers(at)}" contype="0" conaffinity="1"/>'


def _ground(terrain: Terrain | None) -> tuple[str, str]:
    """Return the asset and the shape attributes of the floor: a plane where the ground is one, else a height field."""
    if terrain is None:
        return "", 'type="plane" size="0 0 1"'
    plane = terrain.plane()
    if plane is not None:
        return "", f'type="plane" size="0 0 1" pos="{_numbers(plane[0])}" zaxis="{_numbers(plane[1])}"'
    beyond = round(BEYOND / terrain.cell)
    heights = np.pad(terrain.heights, beyond, mode="edge")
    ny, nx = heights.shape
    low = float(heights.min())
    high = float(heights.max())
    half_x = terrain.cell * (nx - 1) / 2
    half_y = terrain.cell * (ny - 1) / 2
    # MuJoCo takes the row of the largest y first, and scales the lowest height to 0, the highest to size[2].
    size = _numbers((half_x, half_y, high - low, BASE_THICKNESS))
    asset = f'<asset><hfield name="floor" nrow="{ny}" ncol="{nx}" size="{size}"'
    asset += f' elevation="{_numbers(heights[::-1].ravel().tolist())}"/></asset>\n'
    corner = terrain.origin - beyond * terrain.cell
    return asset, f'type="hfield" hfield="floor" pos="{_numbers((corner[0] + half_x, corner[1] + half_y, low))}"'


def to_mjcf(
    robot: Robot,
    timestep: float = 0.002,
    friction: float = 0.8,
    option: str = 'iterations="1" ls_iterations="4"',
    joint_friction: bool = True,
    terrain: Terrain | None = None,
    body_contact: bool = False,
) -> str:
    """Return an MJCF model of a robot on the ground, its joints free of end stops.

    Bodies, joints, inertias and feet are the robot's; motors take torques [N m] in the order of the
    joints and are cut at the torque limit. Only the feet touch the floor, and with body_contact
    knees and trunk, and on a terrain two points of each calf. Joint ranges and the home pose, a
    keyframe, are written down and move nothing.

    timestep: [s]; friction: of a foot; option: attributes of MuJoCo's <option>; joint_friction:
    whether dry friction of the joints is kept; terrain: None for a flat floor. A terrain's cells
    are two triangles each in MuJoCo, and its field ends at its border, unless it is a plane, which
    goes on. The robot is put above the first spawn.
    """
    asset, floor = _ground(terrain)
    x, y, z = (0.0, 0.0, 0.0) if terrain is None else terrain.spawns[0, 0]
    legs = []
    motors = []
    for i, leg in enumerate(LEGS):
        open_tags = []
        for j, (joint, axis) in enumerate(zip(JOINTS, AXES, strict=True)):
            name = f"{leg}_{joint}"
            dry = robot.friction[i, j] if joint_friction else 0.0
            open_tags.append(
                f'<body name="{name}" pos="{_numbers(robot.offset[i, j])}">{_inertial(robot.links[i][j])}'
                f'<joint name="{name}" type="hinge" axis="{"1 0 0" if axis == "x" else "0 1 0"}" limited="false"'
                f' range="{_numbers(robot.joint_range[i, j])}"'
                f' damping="{robot.damping[i, j]:.9g}" armature="{robot.armature[i, j]:.9g}" frictionloss="{dry:.9g}"/>'
            )
            limit = robot.torque_limit[i, j]
            motors.append(
                f'<motor name="{name}" joint="{name}" ctrllimited="true" ctrlrange="{-limit:.9g} {limit:.9g}"/>'
            )
        if body_contact:
            open_tags[1] += _sphere(f"{leg}_knee", robot.foot_radius[i], robot.offset[i, 2])
            for k, share in enumerate(EDGED if terrain else ()):
                open_tags[2] += _sphere(f"{leg}_calf_{k}", robot.foot_radius[i], share * robot.foot_offset[i])
        foot = _sphere(leg, robot.foot_radius[i], robot.foot_offset[i])
        legs.append("".join(open_tags) + foot + "</body>" * 3)
    # conaffinity 2 makes the trunk a collision geometry, and nothing has a contype that meets it
    box = f'size="{_numbers(robot.trunk_half_extents)}" pos="{_numbers(robot.trunk_centre)}"'
    trunk = f'<geom name="trunk" type="box" {box} contype="0" conaffinity="{1 if body_contact else 2}"/>'
    place = _numbers((x, y, z + robot.home_height))
    home = _numbers([x, y, z + robot.home_height, 1, 0, 0, 0, *robot.home_joints.ravel()])
    return f"""<mujoco model="{robot.name}">
<compiler angle="radian" inertiafromgeom="false"/>
<option timestep="{timestep:.9g}" integrator="Euler" solver="Newton" cone="pyramidal" {option}/>
<default><geom friction="{friction:.9g} 0 0" condim="3" mass="0"/></default>
{asset}<worldbody>
<geom name="floor" {floor} contype="1" conaffinity="0"/>
<body name="base" pos="{place}"><freejoint/>{_inertial(robot.base)}{trunk}{"".join(legs)}</body>
</worldbody>
<actuator>{"".join(motors)}</actuator>
<keyframe><key name="home" qpos="{home}"/></keyframe>
</mujoco>"""
