"""Robots as others describe them: axes and frames turned, further joints, numbers left out."""

import numpy as np
import pytest
from robot_files import CALF_FOOT, edited, to_urdf
from test_mjcf import assert_same

from physics import RobotError, load_robot, save_robot
from physics.robot import LEGS, ImportOptions

ARM = (
    '<body name="shoulder" pos="0.1 0 0.1"><inertial pos="0 0 0.1" mass="1" diaginertia="0.01 0.01 0.001"/>'
    '<joint name="pan" axis="0 0 1" range="-1 1"/><body name="elbow" pos="0 0 0.2">'
    '<inertial pos="0.1 0 0" mass="0.5" diaginertia="0.001 0.004 0.004"/>'
    '<joint name="lift" axis="0 1 0" pos="0 0 0.05" range="0.3 1.5"/></body></body>'
)


def without_keyframe(text):
    """Return a model that stands as the import chooses."""
    return text[: text.index("<keyframe>")] + text[text.index("</keyframe>") + len("</keyframe>") :]


def test_joints_that_turn_the_other_way_are_told_apart(written, go1):
    edits = []
    home = []
    for leg in LEGS:
        edits.append((f'name="{leg}_calf" type="hinge" axis="0 1 0"', f'name="{leg}_calf" type="hinge" axis="0 -1 0"'))
        home.append(("0 0.9 -1.8", "0 0.9 1.8 "))
    start = go1.index('name="FL_calf" type="hinge"')
    given = go1[start:].split('range="')[1].split('"')[0]
    low, high = given.split()
    text = edited(go1, *edits, *home).replace(f'range="{given}"', f'range="{-float(high)} {-float(low)}"')
    robot = load_robot(written(text))
    assert_same(load_robot(written(go1)), robot, besides=("joint_signs",))
    np.testing.assert_array_equal(robot.joint_signs, np.tile([1.0, 1.0, -1.0], (4, 1)))
    assert robot.joint_names[1] == ("FR_hip", "FR_thigh", "FR_calf")
    (note,) = robot.notes
    assert note.startswith("turn the other way in the file: 'FL_calf'")


@pytest.mark.parametrize(
    ("quaternion", "words", "named"),
    [
        ("0.70710678 0.70710678 0 0", "up its 0 -1 0", True),
        ("0.70710678 0.70710678 0 0", "up its 0 -1 0", False),
        ("0.70710678 0 0 0.70710678", "forward is the file's 0 1 0", True),  # without names, what lies along x is ahead
        ("0.5 0.5 0.5 0.5", "forward is the file's 0 1 0, up its 1 0 0", True),
    ],
)
def test_a_base_frame_that_is_turned_is_turned_back(written, go1, quaternion, words, named):
    inner = '<freejoint/><inertial pos="0 0 0" mass="1e-9" diaginertia="1e-9 1e-9 1e-9"/>'
    frame = "<freejoint/>", f'{inner}<body name="frame" quat="{quaternion}">'
    text = without_keyframe(edited(go1, frame, ("</worldbody>", "</body></worldbody>")))
    if not named:
        for i, leg in enumerate(LEGS):
            text = text.replace(f'"{leg}', f'"leg{i}')
    robot = load_robot(written(text))
    expected = load_robot(written(without_keyframe(go1)))
    assert_same(expected, robot)
    assert words in robot.notes[0]


def test_further_joints_are_locked_and_keep_their_mass(written, go1):
    robot = load_robot("go1")
    text = without_keyframe(edited(go1, ("<freejoint/>", f"<freejoint/>{ARM}")))
    straight = load_robot(written(text))
    assert "locked, its mass kept: pan at 0, lift at 0.3" in straight.notes
    assert straight.base.mass == pytest.approx(robot.base.mass + 1.5, rel=1e-6)
    turned = load_robot(written(text), ImportOptions(lock=(("pan", np.pi / 2), ("lift", 1.0))))

    def centre(pan, lift):
        # the elbow's mass about its joint, 0.05 above its frame, then about the shoulder's
        arm = np.array([0.1, 0, -0.05])
        c, s = np.cos(lift), np.sin(lift)
        elbow = np.array([c * arm[0] + s * arm[2], 0, -s * arm[0] + c * arm[2] + 0.05 + 0.2])
        c, s = np.cos(pan), np.sin(pan)
        elbow = np.array([c * elbow[0], s * elbow[0], elbow[2]]) + [0.1, 0, 0.1]
        shoulder = np.array([0.1, 0, 0.2])
        return (robot.base.mass * robot.base.com + shoulder + 0.5 * elbow) / (robot.base.mass + 1.5)

    np.testing.assert_allclose(straight.base.com, centre(0.0, 0.3), atol=1e-6)
    np.testing.assert_allclose(turned.base.com, centre(np.pi / 2, 1.0), atol=1e-6)
    with pytest.raises(
        RobotError, match=r"robot.lock: joint 'neck': expected a joint that is no leg's; there are lift, pan"
    ):
        load_robot(written(text), ImportOptions(lock=(("neck", 0.0),)))


def test_wheels_toes_and_a_second_joint_of_a_leg_are_locked(written, go1):
    loose = '<inertial pos="0 0 0" mass="0.1" diaginertia="1e-4 1e-4 1e-4"/>'
    text = go1.replace(
        CALF_FOOT, f'{CALF_FOOT}<body name="wheel" pos="0 0 -0.213"><joint name="roll" axis="0 1 0"/>{loose}</body>', 1
    )
    text = text[: text.index("<keyframe>")] + text[text.index("</keyframe>") + len("</keyframe>") :]
    robot = load_robot(written(text))
    assert "locked, its mass kept: roll at 0" in robot.notes
    assert robot.links[0][2].mass == pytest.approx(load_robot("go1").links[0][2].mass + 0.1)


def test_what_holds_a_free_base_is_dropped_and_one_without_is_freed(written, go1):
    expected = load_robot(written(go1))
    held = load_robot(
        written(edited(go1, ("<freejoint/>", '<joint name="root" type="free" damping="1" armature="0.1"/>')))
    )
    assert_same(expected, held)
    assert held.notes == ("joint 'root' is free: its damping and armature was dropped",)
    fixed = load_robot(written(edited(go1, ("<freejoint/>", ""), ("0 0 0.2878 1 0 0 0 ", ""))))
    assert fixed.notes == ("body 'base' has no free joint: it was given one",)
    assert_same(expected, fixed, besides=("home_joints", "home_height"))


def test_a_keyframe_that_is_no_stance_is_left(written, go1):
    crouched = load_robot(written(go1.replace("0 0.9 -1.8", "0 1.4 -2.7")))
    assert "below its base: it stands in the neutral stance" in crouched.notes[0]
    uneven = load_robot(written(edited(go1, ("0 0.9 -1.8", "0 0.2 -0.9"))))
    assert "m apart in height: it stands in the neutral stance" in uneven.notes[0]
    for robot in (crouched, uneven):
        assert robot.home_height == pytest.approx(0.36, abs=0.03)
    near = load_robot(written(go1.replace("-2.818 -0.888", "-2.818 -1.85")))
    assert near.notes == ("home angles up to 0.05 rad beyond their range were brought back into it",)
    np.testing.assert_allclose(near.home_joints[:, 2], -1.85)


def fixed(link, body=""):
    """Return a link without geometry, fixed to the base."""
    joint = f'<joint name="{link}" type="fixed"><parent link="base"/><child link="{link}"/></joint>'
    return f'<link name="{link}">{body}</link>{joint}</robot>'


FLOATS = '<joint name="w" type="floating"><parent link="world"/><child link="base"/></joint>'
NEXT_TO_NOTHING = (
    '<inertial><mass value="4e-15"/><inertia ixx="1e-27" ixy="0" ixz="0" iyy="1e-27" iyz="0" izz="1e-27"/></inertial>'
)
URDF_EDITS = {
    "a material twice": ("</visual>", '<material name="a"/><material name="b"/></visual>'),
    "a sensor's frame": ("</robot>", fixed("imu")),
    "a prefix that nobody declares": ("</robot>", "<xacro:thing/><gazebo><x:y/></gazebo></robot>"),
    "a world": ('<link name="base">', f'<link name="world"/>{FLOATS}<link name="base">'),
    "an inertia of next to nothing": ("</robot>", fixed("dot", NEXT_TO_NOTHING)),
}


@pytest.mark.parametrize("edit", URDF_EDITS)
def test_what_changes_nothing_of_a_urdf(written, edit):
    plain = to_urdf(load_robot("go1"))
    assert_same(load_robot(written(plain, "a.urdf")), load_robot(written(edited(plain, URDF_EDITS[edit]), "b.urdf")))


def test_a_massless_root_bears_the_robot(written):
    root = '<link name="root"/><joint name="fix" type="fixed"><parent link="root"/><child link="base"/></joint>'
    plain = to_urdf(load_robot("go1"))
    assert_same(load_robot(written(plain, "a.urdf")), load_robot(written(to_urdf(load_robot("go1"), root), "b.urdf")))


def test_feet_that_are_only_frames_or_meshes(written):
    robot = load_robot("go1")
    plain = to_urdf(robot)
    sphere = f'<sphere radius="{robot.foot_radius[0]:.9g}"/>'
    meshes = written(plain.replace(sphere, '<mesh filename="package://robot/foot.stl"/>'), "mesh.urdf")
    found = load_robot(meshes)
    np.testing.assert_allclose(found.foot_offset, robot.foot_offset, atol=1e-9)
    np.testing.assert_allclose(found.foot_radius, 0.1 * 0.213, atol=1e-6)
    (note,) = found.notes
    assert note.startswith("no shape that is read, feet of radius 0.021 m") and "'FL_foot', body 'FR_foot'" in note
    given = load_robot(meshes, ImportOptions(foot_radius=0.03))
    np.testing.assert_allclose(given.foot_radius, 0.03)
    # what the calf itself is of is not mistaken for a foot
    shank = '<collision><origin xyz="0 0 -0.1"/><geometry><box size="0.02 0.02 0.18"/></geometry></collision>'
    with_shank = meshes.read_text().replace('<link name="FL_calf">', f'<link name="FL_calf">{shank}')
    np.testing.assert_allclose(load_robot(written(with_shank, "shank.urdf")).foot_offset, robot.foot_offset, atol=1e-9)
    # and a sphere that is given is put where the file's was lowest
    smaller = load_robot(written(plain, "plain.urdf"), ImportOptions(foot_radius=0.01))
    reach = [np.linalg.norm(x.foot_offset[0]) + x.foot_radius[0] for x in (robot, smaller)]
    assert reach[0] == pytest.approx(reach[1], abs=4e-3)


@pytest.mark.parametrize("effort", ["0", "", "1000"])
def test_torque_limits_that_no_file_or_no_motor_has(written, effort):
    robot = load_robot("go1")
    text = to_urdf(robot)
    for limit in set(robot.torque_limit.ravel()):
        text = text.replace(f'effort="{limit:.9g}"', f'effort="{effort}"' if effort else "")
    path = written(text, "robot.urdf")
    found = load_robot(path)
    if effort == "1000":
        assert "torque limit of 1000 N m" in found.notes[0] and "--robot.torque_limit" in found.notes[0]
    else:
        np.testing.assert_allclose(found.torque_limit, 21.0, atol=1.0)
        assert f"no joint has a torque limit: {found.torque_limit[0, 0]:g} N m assumed" in found.notes[0]
    np.testing.assert_array_equal(load_robot(path, ImportOptions(torque_limit=30.0)).torque_limit, 30.0)


def test_links_with_mass_and_no_inertia(written):
    text = to_urdf(load_robot("go1"))
    start = text.index("<inertia ", text.index('<link name="FL_thigh">'))
    zero = '<inertia ixx="0" ixy="0" ixz="0" iyy="0" iyz="0" izz="0"/>'
    robot = load_robot(written(text[:start] + zero + text[text.index("/>", start) + 2 :], "robot.urdf"))
    assert robot.notes == ("no inertia, that of a box or rod of their size assumed: body 'FL_thigh'",)
    mass = robot.links[0][1].mass
    np.testing.assert_allclose(np.diag(robot.links[0][1].inertia)[:2], mass * 0.213**2 / 12, rtol=0.1)


def test_a_xacro_is_expanded_or_refused_in_a_line(written, monkeypatch):
    robot = load_robot("go1")
    text = to_urdf(robot).replace("<robot ", '<robot xmlns:xacro="http://www.ros.org/wiki/xacro" ', 1)
    text = text.replace('effort="23.7"', 'effort="${limit}"').replace(
        "<link", '<xacro:property name="limit" value="23.7"/><link', 1
    )
    path = written(text, "robot.xacro")
    monkeypatch.setitem(__import__("sys").modules, "xacro", None)
    with pytest.raises(RobotError, match=r"robot\.xacro: xacro: expected the package .* pip install xacro"):
        load_robot(path)
    monkeypatch.undo()
    pytest.importorskip("xacro")
    assert_same(load_robot(written(to_urdf(robot), "robot.urdf")), load_robot(path))
    broken = written(text.replace("${limit}", "${nothing}"), "broken.xacro")
    with pytest.raises(RobotError, match=r"broken\.xacro: xacro: expected what xacro can expand, got: .*nothing"):
        load_robot(broken)


def test_names_and_signs_stay_with_a_robot(written, tmp_path, go1):
    edit = 'name="FL_hip" type="hinge" axis="1 0 0"', 'name="LF_HAA" type="hinge" axis="-1 0 0"'
    robot = load_robot(written(edited(go1, edit, ('joint="FL_hip"', 'joint="LF_HAA"'))))
    assert robot.joint_names[0][0] == "LF_HAA" and robot.joint_signs[0, 0] == -1.0
    save_robot(robot, tmp_path / "mine.json")
    again = load_robot(tmp_path / "mine.json")
    assert again.joint_names == robot.joint_names
    np.testing.assert_array_equal(again.joint_signs, robot.joint_signs)


def mutations(text, random):
    """Return a text with something changed: bytes lost, numbers or words exchanged."""
    kind = random.integers(4)
    at = sorted(random.integers(len(text), size=2))
    if kind == 0:
        return text[: at[0]] + text[at[0] + random.integers(1, 80) :]
    if kind == 1:
        return text[: at[1]]
    words = text.split('"')
    odd = 2 * random.integers(len(words) // 2) + 1
    words[odd] = (
        ("nan", "-1", "", "1e30", "0 0", "FL_hip", "x" * 50, "0 0 0")[random.integers(8)]
        if kind == 2
        else words[2 * random.integers(len(words) // 2) + 1]
    )
    return '"'.join(words)


@pytest.mark.parametrize("kind", ["xml", "urdf"])
def test_mutated_files_load_or_are_refused_in_a_line(written, go1, kind):
    text = go1 if kind == "xml" else to_urdf(load_robot("go1"))
    random = np.random.default_rng(7)
    refused = 0
    for number in range(50):
        path = written(mutations(text, random), f"m{number}.{kind}")
        try:
            load_robot(path).require_physical("again")
        except RobotError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).startswith(str(path)), str(error)
    assert refused > 10
