"""Whether it learns: a short training run against the untrained policy, on episodes that neither has seen."""

import numpy as np
import pytest
import torch

from entity import Creature
from environments import registry
from training.engine import TrainingEngine
from training.evaluation import evaluate
from training.presets import preset

CPU = torch.device("cpu")
ITERATIONS = 40  # seeds 0, 1 and 2 survive 99 %, 72 % and 63 % of their episodes then; untrained ones 6 %
PARTS = 2  # on any machine: every part of the robots has noise of its own


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_short_training_learns_to_stand_against_pushes(precision):
    torch.manual_seed(0)
    cfg = preset("quadruped-balance")
    env, trial = (registry.make(cfg.task, num_envs=n, threads=PARTS) for n in (256, 128))
    creature = Creature(env, cfg.network, cfg.world_model)
    creature.use_precision(precision)
    untrained = evaluate(creature, trial, 1000, CPU, PARTS)
    engine = TrainingEngine(env, creature, cfg, CPU, PARTS)
    rewards = [engine.iterate()["reward"] for _ in range(ITERATIONS)]
    trained = evaluate(creature, trial, 1000, CPU, PARTS)
    assert untrained["survival"] < 0.2
    assert trained["survival"] > 0.6
    assert trained["mean_return"] > 1.5 * untrained["mean_return"]
    assert trained["episode_seconds"] > untrained["episode_seconds"] + 5
    assert np.mean(rewards[-5:]) > 0.04  # one iteration's depends on who is pushed just then
    assert trained["episodes"] == 128
