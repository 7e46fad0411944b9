"""Files that are no robot: every refusal names the file, the element and what was expected."""

import json
import math
import re
import sys

import pytest
from commands import ROOT
from robot_files import CALF_FOOT, HIP, LIMIT, MOTOR, REVOLUTE, edited, to_urdf

from physics import RobotError, load_robot, save_robot
from physics.robot import LEGS

BODY = '<body name="FL_hip" pos="0.1881 0.04675 0">'
LOOP = '<equality><connect name="loop" body1="FL_calf" body2="FR_calf" anchor="0 0 0"/></equality>'
LOOSE = '<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'


@pytest.mark.parametrize(
    ("edits", "element", "reason"),
    [
        ([(HIP, '<joint name="FL_hip" type="slide"')], "joint 'FL_hip'", "slide"),
        ([(HIP + ' axis="1 0 0"', '<joint name="FL_hip" type="ball"')], "joint 'FL_hip'", "ball"),
        ([(HIP + ' axis="1 0 0"', HIP + ' axis="0 1 0"')], "joint 'FL_hip'", "0 1 0"),
        ([(HIP + ' axis="1 0 0"', HIP + ' axis="1 0.01 0"')], "joint 'FL_hip'", "about x"),
        ([(f'name="{leg}_{joint}" type="hinge" axis="{old}"', f'name="{leg}_{joint}" type="hinge" axis="{new}"')
          for leg in LEGS for joint, old, new in (("hip", "1 0 0", "0 1 0"), ("thigh", "0 1 0", "1 0 0"))],
         "joint 'FL_hip'", "about one axis at the hip"),
        ([("<freejoint/>", '<joint name="rail" type="slide"/>'), ("0 0 0.2878 1 0 0 0 ", "0 ")],
         "body 'base'", "free joint"),
        ([(CALF_FOOT, f'{CALF_FOOT}<joint name="twist"/>')], "body 'FL_hip'", "joint 'twist'"),
        ([(BODY, '<body name="FL_hip" pos="0.1881 -0.05 0">')], "body 'base'", "corners"),
        ([("<worldbody>", f'<worldbody><body name="ball"><freejoint/>{LOOSE}</body>')],
         "body ", "another body with a joint"),
        ([("<worldbody>", f'<worldbody><body name="door"><joint/>{LOOSE}</body>')],
         "body 'door'", "another body with a joint"),
        ([("<actuator>", f"{LOOP}<actuator>")], "equality constraint 'loop'", "tree"),
        ([("<actuator>", '<equality><joint joint1="FL_calf" joint2="FR_calf"/></equality><actuator>')],
         "equality constraint 'FL_calf and FR_calf'", "tree"),
        ([("<actuator>", '<tendon><fixed name="wire"><joint joint="FL_hip" coef="1"/></fixed></tendon><actuator>')],
         "tendon 'wire'", "tree"),
        ([(HIP, HIP + ' stiffness="3"')], "joint 'FL_hip'", "spring"),
        ([(BODY, BODY.replace(">", ' gravcomp="1">'))], "body 'FL_hip'", "gravity"),
        ([(CALF_FOOT, "")], "body 'FL_calf'", "foot"),
        ([(CALF_FOOT, CALF_FOOT.replace('conaffinity="1"', 'conaffinity="0"'))], "body 'FL_calf'", "foot"),
        ([(MOTOR, "")], "joint 'FL_hip'", "torque limit"),
        ([(MOTOR, MOTOR.replace('ctrllimited="true"', 'ctrllimited="false"'))], "joint 'FL_hip'", "torque limit"),
        ([(MOTOR, MOTOR.replace("-23.7 23.7", "-20 23.7"))], "joint 'FL_hip'", "[-20, 23.7]"),
        ([(MOTOR, MOTOR.replace("/>", ' gear="0"/>'))], "joint 'FL_hip'", "torque limit"),
        ([(MOTOR, MOTOR + '<adhesion name="glue" body="FL_calf" ctrlrange="0 1"/>')], "actuator 'glue'", "leg's joint"),
        ([('mass="0.68"', 'mass="0"')], "FL_hip", "mass"),
        ([('mass="0.68"', 'mass="-1"')], "FL_hip", "mass"),
        ([('mass="0.68"', 'mass="nan"')], "body 'FL_hip'", "inertial mass"),
        ([('mass="0.68"', 'mass="1e999"')], "body 'FL_hip'", "inertial mass"),
        ([('mass="0.68"', 'mass="heavy"')], "inertial", "bad format"),
        ([(HIP, HIP + ' margin="inf"')], "joint 'FL_hip'", "joint margin"),
        ([('damping="0.5"', 'damping="-0.5"')], "joint 'FL_hip'", "damping of at least 0"),
        ([('frictionloss="0.3"', 'frictionloss="-0.3"')], "joint 'FL_hip'", "frictionloss of at least 0"),
        ([("-0.863 0.863", "-0.863 nan")], "joint 'FL_hip'", "joint range"),
        ([('fullinertia="0.0003993798', 'fullinertia="0.03')], "body 'FL_hip'", "triangle"),
        ([("0 0.9 -1.8", "0 0.9 -0.5")] * 4, "joint 'FL_calf'", "home angle"),
        ([("0 0.9 -1.8", "0 0.9 inf")], "key 'home'", "finite"),
        ([("</worldbody>", "</world>")], "", "expected XML"),
        ([("<worldbody>", "<worldbody><bogus/>")], "bogus", "Schema"),
        ([("<worldbody>", '<include file="nowhere.xml"/><worldbody>')], "include", "nowhere.xml"),
    ],
)  # fmt: skip
def test_mjcf_refusals(written, go1, edits, element, reason):
    file = written(edited(go1, *edits))
    with pytest.raises(RobotError) as error:
        load_robot(file)
    assert_refused(str(error.value), file, element, reason)


def assert_refused(message, file, element, reason):
    assert message.startswith(f"{file}: {element}")
    assert "expected" in message
    assert reason in message
    assert "\n" not in message


def test_an_inertia_from_a_mesh_that_is_not_read_is_refused(written, go1):
    start = go1.index('<inertial mass="0.68"')
    bare = go1[:start] + go1[go1.index("/>", start) + 2 :]
    shell = edited(
        bare,
        (BODY, f'{BODY}<geom type="mesh" mesh="m" mass="1"/>'),
        ("<worldbody>", '<asset><mesh name="m" file="no.stl"/></asset><worldbody>'),
    )
    for choice in ("auto", "true"):
        file = written(shell.replace('inertiafromgeom="false"', f'inertiafromgeom="{choice}"'))
        with pytest.raises(RobotError) as error:
            load_robot(file)
        assert_refused(str(error.value), file, "body 'FL_hip'", "mesh")


TURN = f"0 0 {math.pi / 2}"
TURNED = f'rpy="{TURN}"/><mass value="0.68"/>'
BLOCK = '<inertial><mass value="1"/><inertia ixx="1" ixy="0" ixz="0" iyy="1" iyz="0" izz="1"/></inertial>'


@pytest.mark.parametrize(
    ("old", "new", "element", "reason"),
    [
        (REVOLUTE, '<joint name="FL_hip" type="prismatic">', "joint 'FL_hip'", "slide"),
        (REVOLUTE, '<joint name="FL_hip" type="planar">', "joint 'FL_hip_TX'", "slide"),
        (REVOLUTE, '<joint name="FL_hip" type="floating">', "FL_hip", "free joint"),
        (REVOLUTE, '<joint name="FL_hip" type="bent">', "joint", "type"),
        (REVOLUTE, REVOLUTE + '<mimic joint="FR_hip"/>', "joint 'FL_hip'", "mimic of 'FR_hip'"),
        (LIMIT, "", "joint 'FL_hip'", "torque limit"),
        (LIMIT, LIMIT.replace("23.7", "0"), "joint 'FL_hip'", "torque limit"),
        ('<mass value="0.68"/>', '<mass value="0"/>', "FL_hip", "mass"),
        ('<mass value="0.68"/>', '<mass value="nan"/>', "link 'FL_hip'", "mass value"),
        (TURNED, TURNED.replace(TURN, "0 0"), "link 'FL_hip'", "three numbers as origin rpy"),
        (TURNED, TURNED.replace(TURN, ""), "link 'FL_hip'", "three numbers as origin rpy"),
        ('<link name="base">', '<link name="crate"/><link name="base">', "body ", "another body with a joint"),
        ('<link name="base">',
         f'<link name="crate">{BLOCK}</link><link name="base">', "body 'base'", "another body with a joint"),
        ('<child link="FL_hip"/>', '<child link="nothing"/>', "joint", "missing"),
        ("</robot>", "", "", "expected XML"),
    ],
)  # fmt: skip
def test_urdf_refusals(written, old, new, element, reason):
    file = written(edited(to_urdf(load_robot("go1")), (old, new)), "robot.urdf")
    with pytest.raises(RobotError) as error:
        load_robot(file)
    assert_refused(str(error.value), file, element, reason)


@pytest.mark.parametrize("ending", ["xml", "mjcf", "urdf"])
def test_files_that_are_none(written, tmp_path, ending):
    (tmp_path / f"folder.{ending}").mkdir()
    (tmp_path / f"binary.{ending}").write_bytes(b"\xff\xfe\x00\x01")
    written("", f"empty.{ending}")
    written("nonsense", f"text.{ending}")
    written("<svg/>", f"picture.{ending}")
    written("<mujoco/>", f"void.{ending}")
    written("<robot/>", f"nobody.{ending}")
    written('<?xml version="1.0" encoding="shift_jis"?><robot/>', f"foreign.{ending}")
    for stem in ("foreign", "missing", "folder", "binary", "empty", "text", "picture", "void", "nobody"):
        file = tmp_path / f"{stem}.{ending}"
        with pytest.raises(RobotError) as error:
            load_robot(file)
        assert_refused(str(error.value), file, "", "expected")


def test_without_mujoco_the_refusal_says_what_to_install(written, go1, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    assert load_robot("go1").name == "go1"
    with pytest.raises(RobotError, match=r"robot\.xml: .*pip install 'mujoco>=3.4'"):
        load_robot(written(go1))


def test_json_is_not_written_over_other_files(written, tmp_path, go1):
    file = written(go1)
    with pytest.raises(RobotError, match=r"robot\.xml: expected .*\.json"):
        save_robot(load_robot(file), file)
    assert file.read_text() == go1
    with pytest.raises(RobotError, match=r"nowhere.*written"):
        save_robot(load_robot("go1"), tmp_path / "nowhere" / "go1.json")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("base.mass", 1e30, "mass: expected numbers between 0.0001 and 10000 kg, got 1e+30"),
        ("legs.FR.links.1.mass", 1e-9, "mass: expected numbers between"),
        ("trunk_half_extents.0", -0.1, "trunk_half_extents: expected numbers between 0.0001 and 10 m, got -0.1"),
        ("legs.RL.links.2.joint_range.1", 1e300, "a finite number"),
        ("legs.RL.links.2.joint_range.1", 1e10, "joint_range: expected numbers between -50 and 50 rad, got 1e+10"),
        (
            "legs.RR.links.2.offset",
            [0, 0, 0],
            "length of thigh and calf: expected numbers between 0.001 and 10 m, got 0",
        ),
        ("legs.RR.foot.offset", [0, 0, 0], "length of thigh and calf: expected numbers between 0.001 and 10 m, got 0"),
        ("base.com.0", 1e9, "com: expected numbers between -10 and 10 m, got 1e+09"),
        ("home.height", 10**400, "a finite number"),
    ],
)
def test_a_robot_beyond_what_there_is_is_refused_by_field(tmp_path, place, value, words):
    robot = json.loads((ROOT / "robots" / "go1.json").read_text())
    node = robot
    *parents, last = place.split(".")
    for key in parents:
        node = node[int(key) if isinstance(node, list) else key]
    node[int(last) if isinstance(node, list) else last] = value
    (tmp_path / "r.json").write_text(json.dumps(robot))
    with pytest.raises(RobotError, match=re.escape(words)) as error:
        load_robot(tmp_path / "r.json")
    assert str(error.value).startswith(str(tmp_path / "r.json"))
