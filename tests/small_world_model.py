"""World models so small that tests can afford them."""

import dataclasses

import torch

from config import WorldModelCfg
from entity import WORLD_MODELS
from environments import registry

CPU = torch.device("cpu")
SMALL = WorldModelCfg(
    role="imagination", deter=16, groups=4, classes=8, hidden=24, updates=2, batch=8, sequence=2, capacity=4, passes=1,
    imagined=64, horizon=5, patience=1,
)  # fmt: skip
ENSEMBLE = dataclasses.replace(SMALL, kind="ensemble", falls=0.25, weight_decay=0.5)
QUADRUPED = registry.make("quadruped-balance", num_envs=1)


def model(cfg=SMALL, obs=5, actions=3, privileged=2, body=None):
    torch.manual_seed(0)
    return WORLD_MODELS[cfg.kind](obs, actions, cfg, privileged, body)


def of_quadruped(cfg=SMALL):
    """Return a world model of a body with a mirror image, whose normaliser knows something."""
    m = model(cfg, 37, 12, QUADRUPED.num_privileged, QUADRUPED.body)
    m.normaliser.update(torch.randn(200, m.num_all) * torch.linspace(0.5, 2, m.num_all) + 0.3)
    return m
