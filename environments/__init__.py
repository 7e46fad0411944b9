"""Tasks: what a robot sees, does, is rewarded for, and when an episode ends."""

from environments import registry
from environments.array_env import ArrayEnv, Draws
from environments.contracts import ABEnv, Body, Box, EnvCfg, EnvState, Mirror, Node, Solid

# each makes its tasks known
from environments import quadruped, cartpole, navigation, bounce_ball  # noqa: F401  # isort: skip

__all__ = ["ABEnv", "ArrayEnv", "Body", "Box", "Draws", "EnvCfg", "EnvState", "Mirror", "Node", "Solid", "registry"]
