"""Robot files: what is read and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
from oracle import ROBOTS, ROOT

from physics import RobotError, load_robot, save_robot


@pytest.fixture
def edited(tmp_path):
    """Return a function that writes go1 with one field changed (or removed) and returns the file."""

    def write(path, value):
        data = json.loads((ROOT / "robots" / "go1.json").read_text())
        *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
        node = data
        for key in parents:
            node = node[key]
        if value is ...:
            del node[last]
        else:
            node[last] = value
        file = tmp_path / "edited.json"
        file.write_text(json.dumps(data))
        return file

    return write


@pytest.mark.parametrize("name", ROBOTS)
def test_masses_add_up_to_the_stated_one(name):
    stated = json.loads((ROOT / "robots" / f"{name}.json").read_text())["total_mass"]
    robot = load_robot(name)
    assert robot.name == name
    assert robot.total_mass == pytest.approx(stated, rel=1e-5)


@pytest.mark.parametrize("name", ROBOTS)
def test_right_legs_mirror_left_legs(name):
    robot = load_robot(name)
    for left, right in ((0, 1), (2, 3)):
        np.testing.assert_allclose(robot.offset[left] * [1, -1, 1], robot.offset[right], atol=2e-3)
        np.testing.assert_allclose(robot.torque_limit[left], robot.torque_limit[right])
        for a, b in zip(robot.links[left], robot.links[right], strict=True):
            assert a.mass == pytest.approx(b.mass, rel=1e-3)
            np.testing.assert_allclose(a.com * [1, -1, 1], b.com, atol=5e-3)


@pytest.mark.parametrize("name", ROBOTS)
def test_home_pose_is_within_the_joint_ranges(name):
    robot = load_robot(name)
    assert (robot.home_joints >= robot.joint_range[..., 0]).all()
    assert (robot.home_joints <= robot.joint_range[..., 1]).all()


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("base.mass", -1.0, "base.mass"),
        ("base.mass", 0, "base.mass"),
        ("legs.RR.links.2.mass", float("nan"), "legs.RR.links.2.mass"),
        ("legs.FR.links.1.mass", "heavy", "legs.FR.links.1.mass"),
        ("legs.FR.links.1.mass", ..., "legs.FR.links.1.mass"),
        ("home", ..., "home.height"),
        ("legs.RL", ..., "legs.RL"),
        ("base.inertia", [1, 0, 0, 1, 0, 2.1], "base.inertia"),  # breaks the triangle inequality
        ("base.inertia", [1, 2, 0, 1, 0, 1], "base.inertia"),  # not positive definite
        ("base.inertia", [0, 0, 0, 0, 0, 0], "base.inertia"),
        ("base.inertia", [1, 0, 0, 1, 0], "base.inertia"),
        ("base.com", [0, 0, None], "base.com.2"),
        ("legs.FL.links.0.axis", "y", "legs.FL.links.0.axis"),
        ("legs.FL.links.1.name", "knee", "legs.FL.links.1.name"),
        ("legs.FL.links.1.joint_range", [1.0, -1.0], "legs.FL.links.1.joint_range"),
        ("legs.RR.links.0.damping", -0.1, "legs.RR.links.0.damping"),
        ("legs.RR.links.0.torque_limit", 0.0, "legs.RR.links.0.torque_limit"),
        ("legs.RR.foot.radius", True, "legs.RR.foot.radius"),
        ("home.joints.FR", [0, 0], "home.joints.FR"),
        ("motors_damp", 1, "motors_damp: expected true or false, got 1"),
    ],
)
def test_unusable_fields_are_named(edited, field, value, named):
    file = edited(field, value)
    with pytest.raises(RobotError) as error:
        load_robot(str(file))
    assert str(file) in str(error.value)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "nonsense", '"text"', "null"])
def test_malformed_files_are_named(tmp_path, text):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(RobotError, match=r"broken\.json"):
        load_robot(str(file))


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"\x00" * 10])
def test_binary_files_are_named(tmp_path, content):
    file = tmp_path / "binary.json"
    file.write_bytes(content)
    with pytest.raises(RobotError, match=r"binary\.json"):
        load_robot(str(file))


def test_missing_files_are_named_with_the_known_robots(tmp_path):
    with pytest.raises(RobotError, match=r"robots/go3\.json.*anymal_c, go1, go2, spot"):
        load_robot("go3")
    with pytest.raises(RobotError, match=r"nowhere\.json"):
        load_robot(str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize("name", ["go1", "go2", "anymal_c", "spot"])
def test_hold_torques_are_what_mujoco_needs_to_hold_the_home_pose(name):
    mujoco = pytest.importorskip("mujoco")
    from physics.mjcf import to_mjcf

    robot = load_robot(name)
    model = mujoco.MjModel.from_xml_string(to_mjcf(robot, joint_friction=False))
    data = mujoco.MjData(model)
    data.qpos[:] = [0, 0, robot.home_height, 1, 0, 0, 0, *robot.home_joints.ravel()]
    mujoco.mj_forward(model, data)
    # gravity's generalised force, and the weight borne by the feet, left and right alike, with no moment about y
    bias = data.qfrc_bias.copy()
    jacobians = []
    for leg in ("FL", "FR", "RL", "RR"):
        j = np.zeros((3, model.nv))
        mujoco.mj_jac(model, data, j, None, data.geom(leg).xpos, data.body(f"{leg}_calf").id)
        jacobians.append(j[2])
    jacobians = np.array(jacobians)
    front = np.linalg.lstsq(
        np.stack([jacobians[:2].sum(0)[[2, 4]], jacobians[2:].sum(0)[[2, 4]]]).T, bias[[2, 4]], rcond=None
    )[0]
    torques = bias[6:] - np.repeat(front, 2) @ jacobians[:, 6:]
    np.testing.assert_allclose(robot.hold_torques().ravel(), torques, atol=0.02 * np.abs(torques).max())


def test_gains_of_a_robot_s_file_are_its_own(tmp_path):
    robot = load_robot("go2")
    assert robot.kp is None and robot.kd is None
    kp = np.linspace(20.0, 42.0, 12).reshape(4, 3)
    path = tmp_path / "mine.json"
    save_robot(dataclasses.replace(robot, kp=kp, kd=kp / 50), path)
    again = load_robot(path)
    np.testing.assert_allclose(again.kp, kp)
    np.testing.assert_allclose(again.kd, kp / 50)
    data = json.loads(path.read_text())
    del data["legs"]["RR"]["links"][2]["kd"]
    path.write_text(json.dumps(data))
    with pytest.raises(RobotError, match=r"legs\.RR\.links\.2\.kd: expected a field that is missing"):
        load_robot(path)
