"""Tasks: what a robot sees, does, is rewarded for, and when an episode ends."""

from environments import registry
from environments.contracts import ABEnv, Body, EnvCfg, EnvState, Mirror, Node

__all__ = ["ABEnv", "Body", "EnvCfg", "EnvState", "Mirror", "Node", "registry"]
