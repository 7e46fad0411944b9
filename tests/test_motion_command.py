"""Commands are drawn in their range and reach their targets exactly."""

import numpy as np
import pytest

from motion.command import PRESETS, RANGE, CommandSampler, CommandSmoother, clamped, sequences
from settings import ConfigError


def test_a_command_goes_in_a_straight_line_and_arrives_exactly():
    smoother = CommandSmoother(3)
    smoother.reset(slice(None), np.array([[0.1, 0.0, 0.0], [1.0, 0.2, 0.3], [0.0, 0.0, 0.0]]))
    target = np.array([[0.7, -0.3, 0.77]], np.float32)
    smoother.set_target(np.array([1]), target)
    course = np.array([smoother.step().copy() for _ in range(30)])
    assert (course[24:, 1] == target).all()
    assert (course[23, 1] != target).all()
    expected = np.array([1.0, 0.2, 0.3]) + np.arange(1, 26)[:, None] / 25 * (target - [1.0, 0.2, 0.3])
    np.testing.assert_allclose(course[:25, 1], expected, atol=1e-5)
    assert (course[:, [0, 2]] == course[0, [0, 2]]).all()


def test_a_change_on_the_way_goes_on_from_where_it_is():
    smoother = CommandSmoother(1)
    smoother.set_target(slice(None), np.array([[1.0, 0.0, 0.0]]))
    for _ in range(10):
        smoother.step()
    smoother.set_target(slice(None), np.array([[0.0, 0.5, 0.0]]))
    course = np.array([smoother.step().copy() for _ in range(25)])
    assert np.abs(np.diff(course[:, 0, 0])).max() < 0.02
    assert (course[-1] == np.array([[0.0, 0.5, 0.0]], np.float32)).all()


@pytest.mark.parametrize("kind", ["uniform", "normal", "presets", "sequence", "curriculum"])
def test_commands_lie_in_their_range(kind):
    sampler = CommandSampler(kind, seed=1)
    sampler.set_level(1.0)
    drawn = sampler.draw(5000)
    assert drawn.shape == (5000, 3)
    assert (drawn >= RANGE[:, 0]).all() and (drawn <= RANGE[:, 1]).all()
    if kind in ("uniform", "curriculum"):
        np.testing.assert_allclose(drawn.min(0), RANGE[:, 0], atol=0.02)
        np.testing.assert_allclose(drawn.max(0), RANGE[:, 1], atol=0.02)
    if kind == "normal":
        np.testing.assert_allclose(drawn.mean(0), RANGE.mean(1), atol=0.05)
    if kind in ("presets", "sequence"):
        assert {tuple(row) for row in drawn} == set(PRESETS.values())


def test_a_sequence_takes_presets_in_turn_and_a_curriculum_grows():
    sampler = CommandSampler("sequence", presets=("stand", "walk"))
    assert [tuple(row) for row in sampler.draw(3)] == [PRESETS["stand"], PRESETS["walk"], PRESETS["stand"]]
    assert [tuple(row) for row in sampler.draw(2)] == [PRESETS["walk"], PRESETS["stand"]]
    growing = CommandSampler("curriculum")
    assert not growing.draw(100).any()
    growing.set_level(0.5)
    assert 0.7 < growing.draw(5000).max() / RANGE.max() * 2 <= 1.0
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        growing.set_level(2.0)


def test_commands_beyond_the_range_are_brought_back_and_counted():
    given = np.array([[9.0, 0.0, 0.0], [0.1, 0.1, 0.1], [np.nan, 0.0, -np.inf]])
    within, count = clamped(given)
    assert count == 2
    np.testing.assert_allclose(within, [[3.0, 0, 0], [0.1, 0.1, 0.1], [0.0, 0.0, -1.2]], atol=1e-6)


def test_sequences_change_without_a_jerk():
    course = sequences(CommandSampler(seed=3), 20, 400)
    step = np.abs(np.diff(course, axis=0)).max(axis=(0, 1))
    assert (step <= np.ptp(RANGE, axis=1) / 25 + 1e-6).all()
    assert len(np.unique(course[:, 0, 0])) > 50


@pytest.mark.parametrize(
    "arguments, told",
    [
        ({"kind": "uniforn"}, "did you mean uniform"),
        ({"presets": ["wolk"]}, "did you mean walk"),
        ({"presets": []}, "presets: expected at least one"),
        ({"bounds": [[1, 0], [0, 1], [0, 1]]}, "bounds: expected lowest and highest"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(arguments, told):
    with pytest.raises(ConfigError, match=told):
        CommandSampler(**arguments)
