"""Arms with a paddle, and the same in MuJoCo."""

import dataclasses

import mujoco
import numpy as np

from physics import arm as A
from physics import arm_model as M
from physics.bounce import arm_step
from physics.jit import LANES, aligned

ARM = M.Arm()
GRAVITY = 9.81


def with_links(arm, **fields):
    return dataclasses.replace(arm, links=tuple(dataclasses.replace(link, **fields) for link in arm.links))


LIMP = dataclasses.replace(
    with_links(ARM, kp=0.0, kd=0.0, damping=0.0), compensation=0.0, limit_stiffness=0.0, limit_damping=0.0
)


class Arms:
    """A number of arms and what they are stepped by."""

    def __init__(self, arm, n=1, timestep=0.0025, gravity=GRAVITY, drop=0.3):
        self.arm = arm
        self.n = n
        self.blocks = A.home_blocks(arm, n, drop)
        self.work = aligned(A.WORK_ROWS * LANES)
        self.constants = M.arm_constants(arm, timestep, gravity)

    def step(self, substeps=1):
        arm_step(self.blocks, 0, len(self.blocks), self.work, self.constants, substeps)

    def get(self, row, count=1):
        """Return consecutive rows (n, count) in double precision."""
        view = self.blocks.reshape(len(self.blocks), -1, LANES)[:, row : row + count]
        return view.transpose(0, 2, 1).reshape(-1, count)[: self.n].astype(np.float64)

    def put(self, row, values):
        """Set consecutive rows from (n, count), or (count) for all."""
        values = np.broadcast_to(values, (self.n, np.shape(values)[-1]))
        for i, value in enumerate(values):
            self.blocks.reshape(len(self.blocks), -1, LANES)[i // LANES, row : row + len(value), i % LANES] = value


def scattered(arm, n, timestep=0.002, seed=0, spread=1.0, **options):
    """Return arms anywhere in a share of their joint ranges, in any motion, targets near and balls out of reach."""
    arms = Arms(arm, n, timestep, drop=50.0, **options)
    rng = np.random.default_rng(seed)
    low, high = of_links(arm, "joint_range").T
    q = (low + high) / 2 + spread * rng.uniform(low - high, high - low, (n, 6)) / 2
    arms.put(A.JOINT, q)
    arms.put(A.JOINT_SPEED, rng.normal(size=(n, 6)) * 2)
    arms.put(A.TARGET, q + rng.uniform(-0.02, 0.02, (n, 6)))
    return arms


def of_links(arm, name):
    return np.array([getattr(link, name) for link in arm.links])


def twin(arm, timestep=0.002, **options):
    model = mujoco.MjModel.from_xml_string(M.to_mjcf(arm, timestep, **options))
    return model, mujoco.MjData(model)


def mass_matrix(model, data):
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, full)
    return full[:6, :6]
