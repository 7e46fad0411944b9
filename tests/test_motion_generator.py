"""The motion generator: compiled code against PyTorch, both modes, commands, resets and what is refused."""

import pathlib
import re

import numpy as np
import pytest
import torch

from motion import kinematics
from motion.command import FRAMES
from motion.compiled import Compiled
from motion.generator import MODES, MotionGenerator, Plain
from motion.network import MotionNetwork, NetworkCfg
from physics.robot import load_robot
from settings import ConfigError

ROOT = pathlib.Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("seeded", "threads_as_before")


def network(joints=12, hidden=48, layers=3, experts=4, robot="go1"):
    """Return a network of random weights whose motion is lively."""
    net = MotionNetwork(joints, NetworkCfg(experts, layers, hidden), robot)
    with torch.no_grad():
        for weight in net.weights:
            weight[:, -1].uniform_(-0.3, 0.3)
        net.weights[-1] *= 2.0
        net.mean.uniform_(-1, 1)
        net.std.uniform_(0.5, 2.0)
        net.low.copy_(torch.tensor([-1.5, -0.8, -0.8]))
        net.high.copy_(torch.tensor([3.0, 0.8, 0.8]))
        net.examples.copy_(net.restore(torch.randn_like(net.examples)))
    return net


def frames(generator, count):
    return np.stack([torch.cat(generator.get_motion(), dim=1).numpy() for _ in range(count)])


def with_filler(net, robots, filler, mode="realtime", **options):
    made = MotionGenerator(robots, mode, network=net, **options)
    made.filler = filler
    made.reset()
    return made


@pytest.mark.parametrize(
    ("joints", "hidden", "layers", "experts", "dtype", "mode"),
    [
        (12, 48, 3, 4, torch.float32, "realtime"),
        (12, 48, 3, 4, torch.bfloat16, "pregenerated"),
        (29, 64, 2, 1, torch.float32, "pregenerated"),
        (3, 20, 4, 3, torch.bfloat16, "realtime"),
    ],
)
def test_compiled_code_does_what_pytorch_does(joints, hidden, layers, experts, dtype, mode):
    tolerance = 1e-4 if dtype == torch.float32 else 0.3
    net = network(joints, hidden, layers, experts)
    one = with_filler(net, 150, Compiled(net, 2, dtype), mode)
    other = with_filler(net, 150, Plain(net, CPU), mode)
    random = np.random.default_rng(0)
    for _ in range(3):
        for made in (one, other):
            made.random = np.random.default_rng(1)
        ids = random.permutation(150)[:70]
        commands = random.uniform(-1, 1, (70, 3))
        for made in (one, other):
            made.update_commands(commands, ids)
        a = frames(one, 12)
        b = frames(other, 12)
        assert b[1:].std() > 0.1
        assert (np.abs(a - b) / (net.std.numpy() + np.abs(b))).max() < tolerance


def test_both_modes_show_the_same():
    net = network()
    made = [MotionGenerator(70, mode, network=net, seed=3) for mode in MODES]
    commands = np.random.default_rng(0).uniform(-0.8, 0.8, (70, 3))
    for generator in made:
        generator.reset(commands=commands)
        frames(generator, 5)
        generator.update_commands(-commands)
    first, second = (frames(generator, 40) for generator in made)
    np.testing.assert_allclose(first, second, atol=0.05)  # rounded at other places
    assert made[0].frames > 70 * 900 and made[1].frames < 70 * 100


def test_robots_do_not_heed_one_another():
    net = network()
    start = net.examples[torch.arange(130) % 64].numpy()
    commands = np.random.default_rng(0).uniform(-0.8, 0.8, (130, 3))
    together = MotionGenerator(130, network=net)
    together.reset(init_motion=start, commands=commands)
    alone = MotionGenerator(1, network=net)
    alone.reset(init_motion=start[97:98], commands=commands[97:98])
    np.testing.assert_array_equal(frames(together, 30)[:, 97], frames(alone, 30)[:, 0])


def test_pregenerated_motion_goes_on_beyond_its_end():
    net = network()
    short = MotionGenerator(3, "pregenerated", network=net)
    ring = short.ring
    shown = frames(short, 1203)
    assert np.isfinite(shown).all() and (ring.at == 1203).all()
    data = short.get_full_motion_data()
    np.testing.assert_array_equal(data["joint_position"][0], torch.cat(short.get_motion(), 1)[:, :12].numpy())


def test_a_reset_begins_with_the_frame_that_is_given():
    net = network()
    made = MotionGenerator(9, network=net)
    frames(made, 7)
    start = np.random.default_rng(0).normal(size=(2, 24)).astype(np.float32)
    before = torch.cat(made.peek(0), 1).numpy().copy()
    made.reset(np.array([2, 5]), start, np.array([1.0, 0.2, -0.3]))
    shown = frames(made, 1)[0]
    np.testing.assert_array_equal(shown[[2, 5]], start)
    others = [0, 1, 3, 4, 6, 7, 8]
    np.testing.assert_array_equal(shown[others], before[others])
    np.testing.assert_allclose(made.ring.command(np.array([2]), made.ring.at[[2]]), [[1.0, 0.2, -0.3]])


def test_commands_change_in_a_straight_line_and_arrive_exactly():
    made = MotionGenerator(2, network=network(), ahead=2)
    made.reset(commands=np.array([[0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]))
    frames(made, 4)
    target = np.array([[1.7, -0.3, 0.6]], np.float32)
    made.update_commands(target, np.array([1]))
    told = []
    for _ in range(FRAMES + 3):
        told.append(made.ring.command(slice(None), made.ring.at))
        made.get_motion()
    told = np.array(told)
    assert (told[:, 0] == np.float32([0.5, 0.0, 0.0])).all()
    np.testing.assert_allclose(told[10, 1], 0.6 * np.array([0.5, 0, 0]) + 0.4 * target[0], atol=1e-6)
    assert (told[FRAMES:, 1] == target[0]).all() and (told[FRAMES - 1, 1] != target[0]).any()


def test_frequent_changes_cost_few_frames():
    made = MotionGenerator(64, network=network(), ahead=1)
    frames(made, 50)
    before = made.frames
    for _ in range(20):
        made.update_commands(np.zeros(3))
        made.get_motion()
    assert made.frames - before <= 20 * 64 * 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ahead", [0, 1, 10])
def test_frames_ahead_are_those_that_are_shown_later(mode, ahead):
    net = network()
    made = with_filler(net, 5, Compiled(net, 1, torch.float32), mode, ahead=ahead)
    frames(made, 3)
    made.update_commands(np.array([3.0, 0.8, -0.8]))
    told = [torch.cat(made.peek(i), dim=1).numpy().copy() for i in range(ahead, -1, -1)]  # the farthest one first
    np.testing.assert_allclose(frames(made, ahead + 1), told[::-1], atol=1e-4)


def test_the_root_follows_commands_and_the_lowest_foot_stands():
    robot = load_robot("go1")
    made = MotionGenerator(4, network=network())
    home = np.tile(np.concatenate([robot.home_joints.ravel(), np.zeros(12)]), (4, 1)).astype(np.float32)
    commands = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.5, 0.0, 0.8], [0.0, 0.0, 0.0]])
    made.reset(init_motion=home, commands=commands)
    first = made.get_motion_with_body_transforms()
    feet = kinematics.feet(robot, robot.home_joints.ravel())
    height = robot.foot_radius[0] - feet[:, 2].min()
    np.testing.assert_allclose(first.foot_position[0], feet + [0, 0, height], atol=1e-6)
    np.testing.assert_allclose(first.body_position[:, 0, 2], height, atol=1e-6)
    np.testing.assert_allclose(first.root_linear_velocity, [[1, 0, 0], [0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]], atol=1e-7)
    for _ in range(99):
        last = made.get_motion_with_body_transforms()
    seconds = 99 / 50
    turn = 0.8 * seconds
    circle = [0.5 / 0.8 * np.sin(turn), 0.5 / 0.8 * (1 - np.cos(turn))]
    expected = [[seconds, 0], [0, 0.5 * seconds], circle, [0, 0]]
    np.testing.assert_allclose(last.body_position[:, 0, :2], expected, atol=1e-4)
    np.testing.assert_allclose(last.body_quaternion[2, 0], [np.cos(turn / 2), 0, 0, np.sin(turn / 2)], atol=1e-6)
    np.testing.assert_allclose((last.foot_position[..., 2] - robot.foot_radius).min(axis=1), 0, atol=1e-9)
    # a calf's far end is its foot
    calf = kinematics.turned(last.body_quaternion[:, 3], robot.foot_offset[0]) + last.body_position[:, 3]
    np.testing.assert_allclose(calf, last.foot_position[:, 0], atol=1e-9)


def test_another_mode_goes_on_from_the_frame_that_is_shown():
    net = network()
    made, kept = (MotionGenerator(20, "realtime", network=net, seed=1) for _ in range(2))
    for generator in (made, kept):
        frames(generator, 11)
        generator.update_commands(np.array([0.7, 0.1, 0.2]))
        frames(generator, 6)  # in the middle of the change
    made.switch_mode("pregenerated")
    np.testing.assert_allclose(frames(made, 60), frames(kept, 60), atol=0.05)


def test_a_robot_whose_frame_is_not_finite_begins_anew():
    made = MotionGenerator(8, network=network())
    made.ring.motion[made.ring.at[3] % made.ring.capacity, 3] = float("nan")
    assert np.isfinite(frames(made, 30)).all()
    assert made.get_performance_stats()["broken_robots"] == 1


def test_memory_is_what_is_stored_and_a_quarter_at_most():
    made = MotionGenerator(1024, "pregenerated", network=network(hidden=128))
    stats = made.get_performance_stats()
    assert stats["stored_bytes"] == 500 * 1024 * 24 * 4
    assert stats["work_bytes"] < 0.25 * stats["stored_bytes"]
    assert stats["frames_generated"] == 499 * 1024 and stats["frames_per_second"] > 0


def test_commands_out_of_range_are_clamped_and_counted():
    made = MotionGenerator(3, network=network())
    made.update_commands(np.array([[9.0, 0, 0], [0, 0, np.nan], [0.1, 0, 0]]))
    assert made.get_performance_stats()["clamped_commands"] == 2
    np.testing.assert_allclose(made.ring.target, [[3.0, 0, 0], [0, 0, 0], [0.1, 0, 0]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g.reset(np.array([1]), np.zeros((1, 20))), r"init_motion: expected \(1, 24\)"),
        (lambda g: g.reset(np.array([1]), np.full((1, 24), np.inf)), "init_motion: expected finite"),
        (lambda g: g.reset(np.array([7])), "env_ids: expected robots 0 to 3"),
        (lambda g: g.reset(np.array([0.5])), "env_ids: expected robots 0 to 3"),
        (lambda g: g.update_commands(np.zeros((3, 3))), r"commands: expected \(4, 3\)"),
        (lambda g: g.peek(2), "ahead: expected at most 1"),
        (lambda g: g.switch_mode("realtme"), "mode: unknown 'realtme'; did you mean realtime"),
        (lambda g: MotionGenerator(0, network=g.net), "num_envs: expected at least 1"),
        (lambda g: MotionGenerator(1, network=g.net, robot="go2"), "expected a generator of go2, got one of go1"),
        (lambda g: MotionGenerator(1, network="nowhere.pt"), "nowhere.pt: there is no such file"),
        (lambda g: MotionGenerator(1, network=g.net, ahead=99), "ahead: expected frames between 0 and 10"),
    ],
)
def test_what_does_not_fit_is_told_and_changes_nothing(change, said):
    made = MotionGenerator(4, network=network())
    kept = MotionGenerator(4, network=made.net)
    with pytest.raises(ConfigError, match=said):
        change(made)
    np.testing.assert_array_equal(frames(made, 3), frames(kept, 3))


def test_what_the_documents_show_works(monkeypatch):
    (code, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "motion.md").read_text(), re.S)
    shown = {}
    exec(code.replace("4096", "64"), shown)
    assert shown["frame"].joint_position.shape == (64, 12)
    assert shown["whole"].body_position.shape == (64, 13, 3)
