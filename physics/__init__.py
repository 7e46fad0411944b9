"""Rigid-body physics of quadrupeds, in compiled code; knows neither learning nor drawing.

Conventions, everywhere: SI units; quaternions w, x, y, z; base frame (B) x forward, y left, z up;
world frame (W) z up; R_WB turns base into world coordinates; legs in the order FL, FR, RL, RR, each
hip, thigh, calf; spatial quantities angular before linear; a suffix names the frame.
"""

from physics.engine import PhysicsEngine, State
from physics.robot import ImportOptions, Robot, RobotError, load_robot, save_robot
from physics.terrain import Terrain

__all__ = ["ImportOptions", "PhysicsEngine", "Robot", "RobotError", "State", "Terrain", "load_robot", "save_robot"]
