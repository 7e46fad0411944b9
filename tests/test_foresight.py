"""What a world model foresees beside what comes: looks, and the ghost's pose."""

import numpy as np
import pytest
import torch

from entity import Creature
from environments import registry
from renderer.kinematics import rotation
from settings import ConfigError, override
from training.foresight import Foresight
from training.presets import preset

CPU = torch.device("cpu")
SMALL = {
    "world_model.role": "belief", "world_model.deter": 16, "world_model.groups": 4, "world_model.classes": 8,
    "world_model.hidden": 24, "env.max_episode_seconds": 1.0,
}  # fmt: skip


def following(ahead=5, **changes):
    """Return a foresight of one robot, the environment, and its first state."""
    cfg = override(preset("quadruped-balance"), SMALL | changes)
    env = registry.make("quadruped-balance", num_envs=1, cfg=cfg.env)
    torch.manual_seed(0)
    foresight = Foresight(Creature(env, cfg.network, cfg.world_model), env, CPU, ahead)
    state = env.init_state(3)
    foresight.begin(state)
    return foresight, env, state


def act(foresight, env, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        action = 0.3 * torch.randn(1, 12, generator=generator)
        foresight.step(env.step(action.numpy()), action)


def test_it_looks_every_so_often_and_knows_only_actions_in_between():
    one, env, _ = following()
    act(one, env, 12)
    assert [looked for _, _, looked in one.history] == [t % 5 == 0 for t in range(13)]
    # what comes between two looks is of no influence
    other, env, _ = following()
    act(other, env, 6)
    fake = env.init_state(99)
    generator = torch.Generator().manual_seed(1)
    actions = [0.3 * torch.randn(1, 12, generator=generator) for _ in range(3)]
    foreseen = []
    for change in (0.0, 1.0):
        again, env, _ = following()
        act(again, env, 6)
        for action in actions:
            fake.obs += change
            again.step(fake, action)
        foreseen.append([step[1] for step in again.history[7:]])
    assert all(np.array_equal(a, b) for a, b in zip(*foreseen, strict=True))


def test_a_ghost_that_foresees_what_comes_is_where_the_robot_is():
    noises = "noise.joint_position", "noise.gravity", "noise.spin", "noise.spin_bias", "noise.gravity_bias"
    exact = dict.fromkeys((*noises, "vary.joint_offset"), 0.0)
    ghost, env, state = following(ahead=1000, **exact, **{"push.interval": (100.0, 100.0)})
    truth = []
    ghost.model.decode_all = lambda latents: torch.from_numpy(
        np.concatenate((state.obs, state.info["privileged"]), axis=-1)
    )
    ghost.history.clear()
    ghost.begin(state)
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        action = 0.3 * torch.randn(1, 12, generator=generator)
        state = env.step(action.numpy())
        ghost.step(state, action)
        view = env.view()
        truth.append(view["base_position"])
        np.testing.assert_allclose(ghost.joints, view["joint_position"], atol=1e-4)
        assert (
            np.arccos(
                np.clip((np.trace(rotation(ghost.quaternion).T @ rotation(view["base_quaternion"])) - 1) / 2, -1, 1)
            )
            < 0.05
        )
    path = np.linalg.norm(np.diff(np.array(truth), axis=0), axis=1).sum()
    assert path > 0.02
    np.testing.assert_allclose(ghost.place, truth[-1], atol=0.02)


def test_a_plot_shows_the_latest_episode(tmp_path):
    foresight, env, _ = following()
    act(foresight, env, 30)
    foresight.plot(tmp_path / "new" / "dream.png")
    assert (tmp_path / "new" / "dream.png").stat().st_size > 20000
    foresight.begin(env.init_state(4))
    assert len(foresight.history) == 1


def test_a_creature_without_a_world_model_foresees_nothing():
    with pytest.raises(ConfigError, match="--dream: expected a checkpoint with a world model"):
        following(**{"world_model.role": "off"})
