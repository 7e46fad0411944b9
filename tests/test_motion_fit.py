"""The generator's network, its data, and its fit."""

import dataclasses

import numpy as np
import pytest
import torch

from motion import dataset, fit, gait, record
from motion.clip import command_of
from motion.dataset import Dataset
from motion.fit import Fit, FitCfg, rollout
from motion.network import MotionNetwork, NetworkCfg, blended, blended_by_robot
from physics import load_robot
from settings import ConfigError
from training import runs

pytestmark = pytest.mark.usefixtures("seeded", "threads_as_before")
BOUNDS = np.array([[0.2, 0.8], [-0.2, 0.2], [-0.4, 0.4]])
SMALL = FitCfg(window=6, batch=32, steps=15, epochs=4, learning_rate=1e-2)


@pytest.fixture(scope="module")
def data():
    robot = load_robot("go1")
    return Dataset.of(robot, dataset.by_formula(robot, ["trot"], 12, 120, BOUNDS))


def test_blending_is_that_of_weights_without_a_matrix_for_each_robot():
    h, alpha, weight = torch.randn(9, 5), torch.rand(9, 4).softmax(-1), torch.randn(4, 6, 7)
    by_hand = torch.stack([
        sum(alpha[n, k] * (h[n] @ weight[k, :5] + weight[k, 5]) for k in range(4)) for n in range(9)
    ])  # fmt: skip
    torch.testing.assert_close(blended(h, alpha, weight), by_hand)
    torch.testing.assert_close(blended_by_robot(h, alpha, weight), by_hand)


@pytest.mark.parametrize("joints", [12, 29])
def test_a_network_gives_a_frame_for_a_frame(joints):
    net = MotionNetwork(joints, NetworkCfg(hidden=16))
    frame, command = torch.randn(5, 2 * joints), torch.rand(5, 3)
    assert net(frame, command).shape == (5, 2 * joints)
    course = net.run(frame, command.expand(7, 5, 3))
    torch.testing.assert_close(course[0], net(frame, command))
    torch.testing.assert_close(course[2], net(course[1], command))
    # robots do not know of one another
    torch.testing.assert_close(net(frame[:2], command[:2]), net(frame, command)[:2])


def test_commands_and_frames_are_scaled(data):
    made = Fit(data, NetworkCfg(hidden=8), SMALL)
    torch.testing.assert_close(made.frame.mean(0), torch.zeros(24), atol=1e-3, rtol=0)
    torch.testing.assert_close(made.frame.std(0), torch.ones(24), atol=1e-2, rtol=0)
    assert made.command.min() >= -1 - 1e-5 and made.command.max() <= 1 + 1e-5
    torch.testing.assert_close(made.net.restore(made.frame), torch.from_numpy(data.frame), atol=1e-4, rtol=1e-4)


def test_scheduled_sampling_goes_on_from_the_truth_or_from_itself():
    net = MotionNetwork(12, NetworkCfg(hidden=8))
    frame, command = torch.randn(5, 3, 24), torch.rand(4, 3, 3)
    random = torch.Generator().manual_seed(0)
    by_truth = torch.stack([net(frame[t], command[t]) for t in range(4)])
    torch.testing.assert_close(rollout(net, frame, command, 1.0, 0.0, random), by_truth)
    torch.testing.assert_close(rollout(net, frame, command, 0.0, 0.0, random), net.run(frame[0], command))


def test_data_are_there_mirrored_and_windows_lie_within_clips(data):
    assert len(data.starts) == 24
    assert data.frame.shape == (24 * 120, 24)
    fitted, held = data.windows(30), data.windows(30, held_out=True)
    assert len(fitted) == 22 * 90 and len(held) == 2 * 90
    clips = np.searchsorted(data.starts, fitted, side="right")
    assert (clips == np.searchsorted(data.starts, fitted + 30, side="right")).all()
    assert not set(fitted) & set(held)
    # as much to the left as to the right
    assert abs(data.mean[0] + data.mean[3]) < 1e-5
    np.testing.assert_allclose(data.low[1:], -data.high[1:], atol=1e-6)


def test_data_are_read_as_they_were_written(data, tmp_path):
    dataset.save(tmp_path / "d.npz", data)
    again = dataset.load(tmp_path / "d.npz")
    for field in dataclasses.fields(Dataset):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(data, field.name))
    for change, told in (
        ({"mean": np.zeros(3)}, r"mean: expected finite numbers of shape \(24,\)"),
        ({"std": np.zeros(24)}, "deviations above 0"),
        ({"frame": np.full((2880, 24), np.nan)}, "expected finite frames"),
        ({"frame": np.zeros((0, 24))}, "command: expected finite numbers"),
    ):
        dataset.save(tmp_path / "w.npz", dataclasses.replace(data, **change))
        with pytest.raises(ConfigError, match=told):
            dataset.load(tmp_path / "w.npz")
    (tmp_path / "x.npz").write_text("x")
    with pytest.raises(ConfigError, match="expected a dataset of motion"):
        dataset.load(tmp_path / "x.npz")


def test_what_is_no_data_is_refused():
    robot = load_robot("go1")
    with pytest.raises(ConfigError, match="dataset: expected at least one clip"):
        Dataset.of(robot, [])
    clips = [gait.clip(robot, "trot", np.zeros((40, 3)), fps) for fps in (50.0, 60.0)]
    with pytest.raises(ConfigError, match="fps: expected 50, as the other clips have, got 60"):
        Dataset.of(robot, clips)
    with pytest.raises(ConfigError, match="expected clips of more than 50 frames"):
        Dataset.of(robot, clips[:1]).windows(50)


def test_a_fit_learns_and_goes_on_as_if_it_had_not_stopped(data, tmp_path):
    whole = Fit(data, NetworkCfg(hidden=16), SMALL, threads=2)
    told = list(whole.epochs())
    assert told[-1]["loss"] < 0.6 * told[0]["loss"]
    assert [x["teacher"] for x in told] == pytest.approx([0.995**i for i in range(4)])
    first = Fit(data, NetworkCfg(hidden=16), SMALL, threads=2)
    first.take_epoch()
    first.take_epoch()
    fit.save(tmp_path / "m.pt", first)
    second = Fit(data, NetworkCfg(hidden=16), SMALL, threads=2)
    second.load_state(fit.read(tmp_path / "m.pt"), "m.pt")
    assert list(second.epochs()) == told[2:]
    for name, x in whole.net.state_dict().items():
        assert torch.equal(x, second.net.state_dict()[name])
    fit.save(tmp_path / "m.pt", second)
    net = fit.load(tmp_path / "m.pt", "go1")
    assert (net.robot, net.fps) == ("go1", 50.0)
    with pytest.raises(ConfigError, match="expected a generator of go2, got one of go1"):
        fit.load(tmp_path / "m.pt", "go2")
    other = Fit(data, NetworkCfg(hidden=8), SMALL, threads=2)
    with pytest.raises(ConfigError, match=r"m\.pt: network: expected"):
        other.load_state(fit.read(tmp_path / "m.pt"), "m.pt")


def test_a_damaged_generator_is_refused(data, tmp_path):
    path = tmp_path / "m.pt"
    fit.save(path, Fit(data, NetworkCfg(hidden=8), SMALL))
    state = torch.load(path, weights_only=True)
    for change in ({"network": {"hidden": 0}}, {"network": {"x": 1}}, {"weights": {}}, {"joints": 13}, {"format": "x"}):
        torch.save(state | change, path)
        with pytest.raises(ConfigError, match=r"m\.pt: expected"):
            fit.load(path)
    path.write_bytes(b"no")
    with pytest.raises(ConfigError, match="expected a generator of motion, whole"):
        fit.load(path)


def test_the_command_fits_goes_on_and_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--each", "10", "--frames", "60", "--hidden", "8", "--batch", "8", "--steps", "1", "--epochs", "2"]
    assert fit.main(small) == 0
    assert "epoch 2 of 2: loss" in capsys.readouterr().out
    assert fit.main(small) == 2
    assert "--out: expected a new file, motion.pt is there already" in capsys.readouterr().err
    assert fit.main([*small, "--resume"]) == 0
    for wrong, told in (
        (["--gaits", "trott"], "unknown gait 'trott'; did you mean trot"),
        (["--gaits"], "dataset: expected at least one clip"),
        (["--robot", "cow"], "cow"),
        (["--clips", "nowhere.npz"], "nowhere.npz: expected an .npz of a clip"),
        (["--hidden", "0"], "network.hidden: expected"),
        (["--out", "no/where.pt"], "--out: expected a file that can be written"),
    ):
        assert fit.main([*small, "--out", "other.pt", *wrong]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line
    assert not (tmp_path / "other.pt").exists()


def test_a_policy_is_recorded_as_it_walks():
    robot = load_robot("go1")
    clips, fell = record.record(runs.policy("quadruped-walk-flat"), 12, 150)
    assert len(clips) + fell == 12 and fell <= 1
    data = Dataset.of(robot, clips)
    assert data.fps == 50 and len(data.frame) == 2 * 150 * len(clips)
    asked = np.stack([clip.command for clip in clips])
    assert np.ptp(asked, axis=(0, 1)).min() > 0.5
    done = np.stack([command_of(clip.arrays()) for clip in clips])
    steady = (asked[:, 100:125] == asked[:, 60:61]).all(axis=(1, 2))
    assert np.abs(done - asked)[steady, 100:125].mean() < 0.2


def test_only_policies_that_walk_as_commanded_are_recorded():
    with pytest.raises(
        ConfigError, match=r"quadruped-balance.pt: expected a policy of a task that asks for velocities"
    ):
        record.record(runs.policy("quadruped-balance"), 2, 10)
