"""Robots from MJCF and URDF files: the same again after a round trip, and MuJoCo's dynamics."""

import dataclasses
import json
import math

import mujoco
import numpy as np
import pytest
from oracle import ROBOTS, ROOT
from robot_files import CALF_FOOT, HIP, LIMIT, MOTOR, REVOLUTE, edited, to_urdf

from physics import load_robot, save_robot
from physics.mjcf import to_mjcf
from physics.robot import JOINTS, LEGS

KEY = '<keyframe><key name="home"'


WORDS = "name", "base", "links", "joint_names", "joint_order", "notes"


def flat(robot):
    """Return a robot's numbers by name, its links' included."""
    values = {name: np.asarray(value) for name, value in vars(robot).items() if name not in WORDS and value is not None}
    for name, link in [("base", robot.base)] + [
        (f"{leg}.{joint}", robot.links[i][j]) for i, leg in enumerate(LEGS) for j, joint in enumerate(JOINTS)
    ]:
        values |= {f"{name}.mass": link.mass, f"{name}.com": link.com, f"{name}.inertia": link.inertia}
    return values


def assert_same(robot, other, besides=()):
    a = flat(robot)
    b = flat(other)
    assert a.keys() == b.keys()
    for name in a.keys() - set(besides):
        np.testing.assert_allclose(a[name], b[name], atol=1e-6, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ROBOTS)
def test_mjcf_round_trip(written, name):
    robot = dataclasses.replace(load_robot(name), motors_damp=False)  # what only Foal's files say
    file = written(to_mjcf(robot), f"{name}.xml")
    for path in (file, str(file)):
        again = load_robot(path)
        assert again.name == name
        assert_same(robot, again)


@pytest.mark.parametrize("name", ROBOTS)
def test_urdf_round_trip(written, name):
    robot = dataclasses.replace(load_robot(name), motors_damp=False)  # what only Foal's files say
    again = load_robot(written(to_urdf(robot), f"{name}.urdf"))
    assert_same(dataclasses.replace(robot, armature=np.zeros((4, 3))), again, besides=("home_joints", "home_height"))
    assert_stands(again)


def assert_stands(robot, reach=0.8):
    """Check by MuJoCo's kinematics that the feet stand below the thigh joints, the lowest on the ground."""
    model = mujoco.MjModel.from_xml_string(to_mjcf(robot))
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_kinematics(model, data)
    feet = np.array([data.geom(leg).xpos for leg in LEGS])
    thighs = np.array([data.joint(f"{leg}_thigh").xanchor for leg in LEGS])
    lengths = np.hypot(robot.offset[:, 2, 0], robot.offset[:, 2, 2]) + np.hypot(
        robot.foot_offset[:, 0], robot.foot_offset[:, 2]
    )
    np.testing.assert_allclose(feet[:, 0], thighs[:, 0], atol=1e-6)
    np.testing.assert_allclose(thighs[:, 2] - feet[:, 2], reach * lengths, rtol=1e-6)
    assert (feet[:, 2] - robot.foot_radius).min() == pytest.approx(0, abs=1e-6)
    assert (robot.joint_range[..., 0] <= robot.home_joints).all()
    assert (robot.home_joints <= robot.joint_range[..., 1]).all()


def leg_in_turned_frames(name, x, y):
    """Return a leg whose frames are turned against the base.

    The hip's by 90 degrees about z, the thigh's by 30 about y, the calf's by 180 about x.
    """
    side = math.copysign(1, y)
    return f"""
    <body name="{name}1" pos="{x + 0.01} {y} -0.02" euler="0 0 90">
      <inertial pos="0.02 0.01 0.02" mass="0.7" diaginertia="0.001 0.0008 0.0009"/>
      <joint name="{name}a" pos="0 0.01 0.02" axis="0 -1 0" range="-40 50"/>
      <body name="{name}2" pos="{0.08 * side} 0.01 0.02" euler="30 0 -90">
        <inertial pos="0.025 0 -0.04330127" euler="0 -30 0" mass="0.5" diaginertia="0.004 0.0044 0.0006"/>
        <joint name="{name}b" axis="0 1 0" range="-60 200"/>
        <body name="{name}rotor" pos="0.01732051 0 0.01" euler="10 20 30">
          <inertial pos="0 0 0" mass="0.1" diaginertia="1e-5 1e-5 1e-5"/></body>
        <body name="{name}3" pos="0.1 0 -0.17320508" euler="180 30 0">
          <inertial pos="0 0 0.1" mass="0.3" diaginertia="0.001 0.00105 0.0001"/>
          <joint name="{name}c" axis="0 -1 0" range="-160 -40"/>
          <body name="{name}foot" pos="0 0 0.2"><geom type="sphere" size="0.02" mass="0"/>
            <inertial pos="0 0 0" mass="0.1" diaginertia="1e-5 1e-5 1e-5"/></body>
        </body>
      </body>
    </body>"""


NAMES = [f"{place} {joint}" for place in ("front left", "front right", "rear left", "rear right") for joint in "abc"]
TURNED = f"""<mujoco>
  <default><joint damping="0.3" armature="0.01" frictionloss="0.1"/><geom contype="1"/></default>
  <worldbody><geom type="plane" size="1 1 1"/>
    <body name="trunk" pos="1 2 3" euler="10 20 30"><freejoint name="root"/>
      <inertial pos="0.02 0 0.01" mass="5" diaginertia="0.02 0.06 0.07"/>
      <geom type="box" size="0.2 0.05 0.06" pos="0.1 0 0"/>
      <geom type="capsule" size="0.03 0.1" euler="0 90 0" pos="-0.1 0 0.09"/>
      <body name="head" pos="0.3 0 0.1" euler="0 0 90">
        <inertial pos="0 -0.01 0" mass="1" diaginertia="0.001 0.002 0.003"/><camera/></body>
      {leg_in_turned_frames("rear left ", -0.2, 0.05)}{leg_in_turned_frames("front right ", 0.2, -0.05)}
      {leg_in_turned_frames("front left ", 0.2, 0.05)}{leg_in_turned_frames("rear right ", -0.2, -0.05)}
    </body></worldbody>
  <actuator>{"".join(f'<position joint="{name}" kp="50" forcerange="-20 20"/>' for name in NAMES)}</actuator>
</mujoco>"""


def test_turned_frames_and_fixed_bodies_by_hand(written):
    robot = load_robot(written(TURNED))
    for i, (x, y) in enumerate([(1, 1), (1, -1), (-1, 1), (-1, -1)]):
        hip, thigh, calf = robot.links[i]
        np.testing.assert_allclose(robot.offset[i], [[0.2 * x, 0.05 * y, 0], [0, 0.08 * y, 0], [0, 0, -0.2]], atol=1e-8)
        np.testing.assert_allclose(robot.foot_offset[i], [0, 0, -0.2], atol=1e-8)
        # the hip's frame has x along y of the base and y along -x; its joint lies at (0, 0.01, 0.02) there
        assert hip.mass == pytest.approx(0.7)
        np.testing.assert_allclose(hip.com, [0, 0.02, 0], atol=1e-8)
        np.testing.assert_allclose(hip.inertia, np.diag([0.0008, 0.001, 0.0009]), atol=1e-8)
        # 0.5 kg at (0, 0, -0.05), 0.1 kg at (0.02, 0, 0)
        assert thigh.mass == pytest.approx(0.6)
        np.testing.assert_allclose(thigh.com, [0.1 * 0.02 / 0.6, 0, -0.5 * 0.05 / 0.6], atol=1e-8)
        # two points turn about their centre of mass like one of the reduced mass about the other
        reduced = 0.5 * 0.1 / 0.6
        hand = np.diag([0.00401, 0.00441, 0.00061]) + reduced * (
            0.0029 * np.eye(3) - np.outer([0.02, 0, 0.05], [0.02, 0, 0.05])
        )
        np.testing.assert_allclose(thigh.inertia, hand, atol=1e-8)
        # 0.3 kg at -0.1, 0.1 kg at -0.2
        assert calf.mass == pytest.approx(0.4)
        np.testing.assert_allclose(calf.com, [0, 0, -0.125], atol=1e-8)
        np.testing.assert_allclose(calf.inertia, np.diag([0.00101 + 0.00075, 0.00106 + 0.00075, 0.00011]), atol=1e-8)
    assert robot.base.mass == pytest.approx(6)
    np.testing.assert_allclose(robot.base.com, [(5 * 0.02 + 1 * 0.31) / 6, 0, (5 * 0.01 + 1 * 0.1) / 6], atol=1e-8)
    np.testing.assert_allclose(robot.joint_range, np.radians([[[-40, 50], [-60, 200], [-160, -40]]] * 4))
    np.testing.assert_allclose(robot.torque_limit, 20)
    # the box reaches from -0.1 to 0.3 and -0.06 to 0.06, the capsule from -0.23 to 0.03 and 0.06 to 0.12
    np.testing.assert_allclose(robot.trunk_half_extents, [0.53 / 2, 0.05, 0.18 / 2], atol=1e-8)
    assert_stands(robot)


@pytest.mark.parametrize("seed", range(3))
def test_dynamics_of_the_file_and_of_the_robot_agree(written, seed):
    rng = np.random.default_rng(seed)
    robot = load_robot(written(TURNED))
    theirs = mujoco.MjModel.from_xml_string(TURNED)
    ours = mujoco.MjModel.from_xml_string(to_mjcf(robot))
    hinges = [theirs.joint(name).id for name in NAMES]
    dofs = np.concatenate([np.arange(6), theirs.jnt_dofadr[hinges]])
    base = rng.normal(size=7)
    speeds = rng.normal(size=18)
    angles = rng.uniform(-3, 3, 12)
    base[3:] /= np.linalg.norm(base[3:])
    found = []
    for model, order, places in ((theirs, dofs, theirs.jnt_qposadr[hinges]), (ours, np.arange(18), np.arange(7, 19))):
        data = mujoco.MjData(model)
        data.qpos[:7] = base
        data.qpos[places] = angles
        data.qvel[order] = speeds
        mujoco.mj_forward(model, data)
        # M's columns by inverse dynamics: M a + bias, less the bias
        columns = []
        for unit in np.eye(18):
            product = np.zeros(18)
            mujoco.mj_mulM(model, data, product, unit[np.argsort(order)])
            columns.append(product[order])
        found.append((np.array(columns), data.qfrc_bias[order]))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_angles_count_from_the_joint_s_zero_not_from_its_drawn_position(written, go1):
    """A joint drawn at 0.5 rad (ref) in a body turned by 0.5 rad is the same joint."""
    calf = 'type="hinge" axis="0 1 0" limited="false" range="-2.818 -0.888"'
    half = f"{math.cos(0.25)} 0 {math.sin(0.25)} 0"
    inertial = 'pos="0 0 -0.213" '
    turned = edited(
        go1,
        (f'<body name="FL_calf" {inertial[:-1]}', f'<body name="FL_calf" {inertial}quat="{half}"'),
        (calf, calf + ' ref="0.5"'),
    )
    assert_same(load_robot("go1"), load_robot(written(turned)))


# at home the calf of go1 leans by -0.9 rad; down is (-S, 0, -C) in its frame
S = math.sin(0.9)
C = math.cos(0.9)


@pytest.mark.parametrize(
    ("geoms", "centre", "radius"),
    [
        ('type="capsule" size="0.02" fromto="0 0 0 0 0 -0.2"', [0, 0, -0.2], 0.02),
        ('type="cylinder" size="0.02 0.015" pos="0 0 -0.2" euler="1.5707963 0 0"', [0, 0, -0.2], 0.02),
        ('type="cylinder" size="0.02 0.1" pos="0 0 -0.1"', [-0.02 + 0.02 * S, 0, -0.2 + 0.02 * C], 0.02),
        ('type="box" size="0.01 0.015 0.1" pos="0 0 -0.1"', [-0.01 + 0.01 * S, 0, -0.2 + 0.01 * C], 0.01),
        # a sphere comes before what reaches a little lower, but not at the knee
        ('type="sphere" size="0.02" pos="0 0 -0.2"/><geom type="capsule" size="0.015" fromto="0 0 0 0 0 -0.21"',
         [0, 0, -0.2], 0.02),
        ('type="sphere" size="0.03"/><geom type="capsule" size="0.015" fromto="0 0 0 0 0 -0.21"', [0, 0, -0.21], 0.015),
        ('type="sphere" size="0.03" pos="0 0 -0.1"/><geom type="sphere" size="0.02" pos="0 0 -0.2"',
         [0, 0, -0.2], 0.02),
        # what does not collide is no foot
        ('type="sphere" size="0.02" pos="0 0 -0.2"/>'
         '<geom type="sphere" size="0.02" pos="0 0 -0.3" contype="0" conaffinity="0"',
         [0, 0, -0.2], 0.02),
    ],
)  # fmt: skip
def test_feet(written, go1, geoms, centre, radius):
    robot = load_robot(written(edited(go1, (CALF_FOOT, f"<geom {geoms}/>"))))
    np.testing.assert_allclose(robot.foot_offset[0], centre, atol=1e-7)
    assert robot.foot_radius[0] == pytest.approx(radius)
    np.testing.assert_allclose(robot.foot_offset[1], [0, 0, -0.213], atol=1e-7)


def test_a_foot_may_collide_by_a_pair(written, go1):
    lonely = CALF_FOOT.replace('conaffinity="1"', 'conaffinity="0"')
    pair = '<contact><pair geom1="FL" geom2="floor"/></contact>'
    assert_same(
        load_robot("go1"), load_robot(written(edited(go1, (CALF_FOOT, lonely), ("<actuator>", pair + "<actuator>"))))
    )


@pytest.mark.parametrize(
    ("calf", "knee", "reach"),
    [
        ("-2.818 -0.888", -1, 0.8),
        ("0.888 2.818", 1, 0.8),
        ("-3 3", -1, 0.8),
        ("0 0", -1, 0.8),  # no range
        ("-2.818 -1.5", -1, math.cos(0.75)),  # as far as the range lets
        ("4.9 5.2", -1, 0.8),  # a turn further: -1.287 + 2 pi
    ],
)
def test_neutral_stance(written, go1, calf, knee, reach):
    bare = edited(
        go1.replace('range="-2.818 -0.888"', f'range="{calf}"'), (go1[go1.index(KEY) : go1.index("</mujoco>")], "")
    )
    robot = load_robot(written(bare))
    assert_stands(robot, reach)
    np.testing.assert_allclose(np.sign(np.sin(robot.home_joints[:, 2])), knee)
    if calf == "0 0":
        np.testing.assert_allclose(robot.joint_range[:, 2], [[-math.pi, math.pi]] * 4)


def test_neutral_stance_on_the_edge_of_a_box(written, go1):
    """The edge that is lowest follows from the pose, and the pose from the edge."""
    bare = edited(go1, (go1[go1.index(KEY) : go1.index("</mujoco>")], ""))
    for leg in LEGS:
        foot = CALF_FOOT.replace("FL", leg)
        bare = edited(bare, (foot, '<geom type="box" size="0.03 0.015 0.1" pos="0.01 0 -0.1"/>'))
    robot = load_robot(written(bare))
    assert_stands(robot)
    lean = -robot.home_joints[0, 1] - robot.home_joints[0, 2]  # of the calf, forwards
    edge = np.array([-0.02, 0, -0.2]) + 0.015 * np.array([math.sin(lean), 0, math.cos(lean)])
    np.testing.assert_allclose(robot.foot_offset, [edge] * 4, atol=1e-6)


def test_home_keyframes(written, go1):
    start = go1.index(KEY) + len("<keyframe>")
    end = go1.index("</keyframe>")
    home = go1[start:end]
    other = home.replace('"home"', '"other"').replace("0.9 -1.8", "1 -2")
    crouched = 2 * 0.213 * math.cos(1) + 0.023
    cases = {
        home: (0.9, 0.2878),  # the file's number, 6e-6 off
        home.replace("0.2878", "0.27"): (0.9, 0.426 * math.cos(0.9) + 0.023),  # one that puts the feet into the ground
        other + home: (0.9, 0.2878),
        other: (1, crouched),
        other + other.replace('"other"', '"another"'): (math.acos(0.8), 0.8 * 0.426 + 0.023),  # neither is home
    }
    for keys, (thigh, height) in cases.items():
        robot = load_robot(written(go1[:start] + keys + go1[end:]))
        np.testing.assert_allclose(robot.home_joints[:, 1], thigh, atol=1e-7)
        assert robot.home_height == pytest.approx(height, abs=1e-7)


@pytest.mark.parametrize(
    ("actuator", "joint", "limit"),
    [
        ('<motor joint="FL_hip" ctrllimited="true" ctrlrange="-1 1" gear="7"/>', "", 7),
        ('<motor joint="FL_hip" ctrllimited="true" ctrlrange="-9 9" '
         'forcelimited="true" forcerange="-5 5" gear="-2"/>',
         "", 10),
        ('<general joint="FL_hip" gainprm="3" ctrllimited="true" ctrlrange="-2 2"/>', "", 6),
        ('<position joint="FL_hip" kp="40" ctrllimited="true" ctrlrange="-1 1" '
         'forcelimited="true" forcerange="-18 18"/>',
         "", 18),
        ('<position joint="FL_hip" kp="40"/>', 'actuatorfrclimited="true" actuatorfrcrange="-30 30"', 30),
        (MOTOR, 'actuatorfrclimited="true" actuatorfrcrange="-20 20"', 20),
        (MOTOR, 'actuatorfrclimited="true" actuatorfrcrange="-30 30"', 23.7),
        (MOTOR + MOTOR.replace('name="FL_hip"', ""), "", 47.4),
        ("", 'actuatorfrclimited="true" actuatorfrcrange="-30 30"', 30),
    ],
)  # fmt: skip
def test_torque_limits(written, go1, actuator, joint, limit):
    robot = load_robot(written(edited(go1, (MOTOR, actuator), (HIP, f"{HIP} {joint}"))))
    assert robot.torque_limit[0, 0] == pytest.approx(limit)
    assert robot.torque_limit[1, 0] == pytest.approx(23.7)


def test_a_trunk_without_geometry_is_as_large_as_the_hips_lie(written, go1):
    start = go1.index('<geom name="trunk"')
    robot = load_robot(written(go1[:start] + go1[go1.index("/>", start) + 2 :]))
    np.testing.assert_allclose(robot.trunk_half_extents, [0.1881, 0.04675, 0.04675])


def test_meshes_and_pictures_need_not_be_there(written, go1):
    assets = (
        '<asset><mesh name="m" file="no.stl"/><texture name="t" type="2d" file="no.png"/>'
        '<material name="p" texture="t"/><hfield name="h" file="no.png" size="1 1 1 1"/></asset>'
        '<worldbody><geom type="hfield" hfield="h"/><light texture="t"/>'
    )
    geoms = (
        '<geom name="shell" type="mesh" mesh="m" material="p" mass="1"/><site name="s" material="p"/>'
        + CALF_FOOT.replace("/>", ' material="p"/>')
    )
    references = (
        '<contact><exclude body1="base" body2="FL_hip"/><pair geom1="shell" geom2="floor"/></contact>'
        '<sensor><distance geom1="shell" geom2="floor"/></sensor><actuator>'
    )
    text = edited(go1, ("<worldbody>", assets), (CALF_FOOT, geoms), ("<actuator>", references))
    assert_same(load_robot("go1"), load_robot(written(text)))


@pytest.mark.parametrize(
    "edit",
    [
        (
            "<actuator>",
            '<equality><connect body1="FL_calf" body2="FR_calf" anchor="0 0 0" active="false"/></equality><actuator>',
        ),
        (
            "<worldbody>",
            '<asset><mesh name="m" file="no.stl"/></asset><worldbody><geom type="mesh" mesh="m" mass="1"/>',
        ),
    ],
)
def test_what_does_not_make_another_robot(written, go1, edit):
    assert_same(
        load_robot("go1"), load_robot(written(edited(go1, ('inertiafromgeom="false"', 'inertiafromgeom="auto"'), edit)))
    )


@pytest.mark.parametrize("name", ["robot.xml", "robot.mjcf"])
def test_included_files(written, go1, name):
    written("<mujoco>" + go1[go1.index("<actuator>") : go1.index("</actuator>")] + "</actuator></mujoco>", "motors.xml")
    text = go1[: go1.index("<actuator>")] + '<include file="motors.xml"/>' + go1[go1.index("<keyframe>") :]
    assert_same(load_robot("go1"), load_robot(written(text, name)))


DUMMY = (
    '<inertial><mass value="1e-6"/>'
    '<inertia ixx="1e-6" ixy="1e-6" ixz="1e-6" iyy="1e-6" iyz="1e-6" izz="1e-6"/></inertial>'
)


@pytest.mark.parametrize(
    ("root", "type_"),
    [
        ("", ""),
        ('<link name="footprint"/>', "fixed"),
        (f'<link name="footprint">{DUMMY}</link>', "fixed"),  # an inertia that no body has
        ('<link name="world"/>', "floating"),
    ],
)
def test_urdf_roots(written, root, type_):
    robot = load_robot("go1")
    joint = (
        f'<joint name="root" type="{type_}"><parent link="{root[12:].split(chr(34))[0]}"/><child link="base"/></joint>'
        if root
        else ""
    )
    again = load_robot(written(to_urdf(robot, root, joint), "go1.urdf"))
    assert_same(
        dataclasses.replace(robot, armature=np.zeros((4, 3))),
        again,
        besides=("home_joints", "home_height", "base.mass", "base.com", "base.inertia"),
    )
    extra = 1e-6 if DUMMY in root else 0.0
    assert again.base.mass == pytest.approx(robot.base.mass + extra, abs=1e-9)
    np.testing.assert_allclose(again.base.inertia, robot.base.inertia + extra, atol=1e-8)


def test_continuous_joints_go_all_the_way_round(written):
    text = edited(
        to_urdf(load_robot("go1")),
        (REVOLUTE, REVOLUTE.replace("revolute", "continuous")),
        (LIMIT, '<limit effort="23.7" velocity="20"/>'),
    )
    robot = load_robot(written(text, "robot.urdf"))
    np.testing.assert_allclose(robot.joint_range[0, 0], [-math.pi, math.pi])
    assert robot.torque_limit[0, 0] == pytest.approx(23.7)


@pytest.mark.parametrize("name", ROBOTS)
def test_json_round_trip(tmp_path, name):
    robot = load_robot(name)
    save_robot(robot, tmp_path / f"{name}.json")
    assert_same(robot, load_robot(tmp_path / f"{name}.json"))
    ours, theirs = (json.loads((place / f"{name}.json").read_text()) for place in (tmp_path, ROOT / "robots"))
    del theirs["source"]
    assert ours.keys() == theirs.keys()
    assert ours["legs"]["FL"].keys() == theirs["legs"]["FL"].keys()
    assert ours["legs"]["FL"]["links"][0].keys() == theirs["legs"]["FL"]["links"][0].keys()


def test_a_converted_file_is_the_same_robot(written, tmp_path):
    robot = load_robot(written(TURNED))
    save_robot(robot, str(tmp_path / "turned.json"))
    assert_same(robot, load_robot(str(tmp_path / "turned.json")))
