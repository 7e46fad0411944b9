"""Robots as URDF, and how tests change robots' files."""

import math

import numpy as np

from physics.robot import AXES, JOINTS, LEGS


def numbers(values):
    return " ".join(f"{v:.9g}" for v in values)


def edited(text, *edits):
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def to_urdf(robot, root="", other=""):
    """Return a robot as URDF: feet on links of their own, meshes that are not there, no home pose."""

    def inertial(link):
        # given in a frame turned by a quarter about z: x' = y, y' = -x
        quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
        xx, xy, xz, yy, yz, zz = (quarter.T @ link.inertia @ quarter)[np.triu_indices(3)]
        return (
            f'<inertial><origin xyz="{numbers(link.com)}" rpy="0 0 {math.pi / 2}"/><mass value="{link.mass:.9g}"/>'
            f'<inertia ixx="{xx:.9g}" ixy="{xy:.9g}" ixz="{xz:.9g}" iyy="{yy:.9g}" iyz="{yz:.9g}" izz="{zz:.9g}"/>'
            "</inertial>"
        )

    mesh = '<visual><geometry><mesh filename="package://robot/link.dae"/></geometry></visual>'
    trunk = f'<collision><geometry><box size="{numbers(2 * robot.trunk_half_extents)}"/></geometry></collision>'
    parts = [f'<link name="base">{inertial(robot.base)}{mesh}{trunk}</link>']
    for i, leg in enumerate(LEGS):
        parent = "base"
        for j, joint in enumerate(JOINTS):
            name = f"{leg}_{joint}"
            low, high = robot.joint_range[i, j]
            parts.append(
                f'<link name="{name}">{inertial(robot.links[i][j])}{mesh}</link>'
                f'<joint name="{name}" type="revolute"><origin xyz="{numbers(robot.offset[i, j])}"/>'
                f'<parent link="{parent}"/><child link="{name}"/>'
                f'<axis xyz="{"1 0 0" if AXES[j] == "x" else "0 1 0"}"/>'
                f'<limit lower="{low:.9g}" upper="{high:.9g}" effort="{robot.torque_limit[i, j]:.9g}" velocity="20"/>'
                f'<dynamics damping="{robot.damping[i, j]:.9g}" friction="{robot.friction[i, j]:.9g}"/></joint>'
            )
            parent = name
        parts.append(
            f'<link name="{leg}_foot">{mesh}<collision><geometry>'
            f'<sphere radius="{robot.foot_radius[i]:.9g}"/></geometry></collision></link>'
            f'<joint name="{leg}_foot" type="fixed"><origin xyz="{numbers(robot.foot_offset[i])}"/>'
            f'<parent link="{parent}"/><child link="{leg}_foot"/></joint>'
        )
    return f'<?xml version="1.0"?>\n<robot name="{robot.name}">{root}{"".join(parts)}{other}</robot>'


CALF_FOOT = '<geom name="FL" type="sphere" size="0.023" pos="0 0 -0.213" contype="0" conaffinity="1"/>'


MOTOR = '<motor name="FL_hip" joint="FL_hip" ctrllimited="true" ctrlrange="-23.7 23.7"/>'
HIP = '<joint name="FL_hip" type="hinge"'
REVOLUTE = '<joint name="FL_hip" type="revolute">'
LIMIT = '<limit lower="-0.863" upper="0.863" effort="23.7" velocity="20"/>'
