"""Bounce ball: a six-joint arm keeps a ball bouncing on the paddle that it holds."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from environments.array_env import ArrayEnv, Data, Draws
from environments.contracts import EnvCfg, Solid
from environments.registry import env, envcfg, rlcfg
from physics import arm as A
from physics.arm_model import Arm, arm_constants
from physics.bounce import arm_step
from physics.jit import LANES, aligned
from settings import Pair, knob

# Rows that the task keeps, after the physics'
SEEN = A.STATE_ROWS  # hits before this step
COUNT = SEEN + 1  # bounces in a row so far
BEST = SEEN + 2  # most of them in this episode
STRUCK = SEEN + 3  # 1 where the ball was hit in this step
ROWS = SEEN + 4


@envcfg("bounce-ball", "an arm keeps a ball bouncing on a paddle")
@dataclass(frozen=True)
class BounceBallCfg(EnvCfg):
    """The paddle and the ball, how an episode starts, what is rewarded, and where it ends."""

    sim_dt: float = knob(0.0025, "length of a physics step, a whole share of ctrl_dt", "s", low=1e-5, high=0.01)
    max_episode_seconds: float = knob(20.0, "length of an episode", "s", low=0.1, high=1e5)
    render_spacing: float = knob(0.5, "half the size of what a picture shows", "m", low=0.01, high=1e3)
    action_scale: float = knob(
        8e-4, "what action 1 adds to a joint's target at every step; actions are cut at +-10", "rad", low=1e-6, high=1.0
    )
    restitution: float = knob(0.9, "speed of the ball off the paddle over that of its approach", "1", low=0.0, high=1.0)
    friction: float = knob(0.3, "of the ball on the paddle", "1", low=0.0, high=10.0)
    gravity: float = knob(9.81, "acceleration of gravity", "m/s^2", low=0.1, high=100.0)
    drop: Pair = knob(
        (0.25, 0.35), "height above the paddle that the ball is dropped from, uniform between", "m", low=0.0, high=2.0
    )
    reset_place: float = knob(
        0.03, "horizontal place of the ball at first, about the paddle's middle, uniform +-", "m", low=0.0, high=0.1
    )
    reset_speed: float = knob(0.05, "horizontal velocity of the ball at first, uniform +-", "m/s", low=0.0, high=1.0)
    reset_joint: float = knob(0.02, "joint angles at first, about home, uniform +-", "rad", low=0.0, high=0.2)
    height: float = knob(0.8, "how high the ball should rise", "m", low=0.1, high=1.7)
    least_speed: float = knob(
        1.5,
        "upward speed off the paddle below which a hit is no bounce, and the count begins anew",
        "m/s",
        low=0.0,
        high=10.0,
    )
    centre_reward: float = knob(
        2.0, "of the ball over the paddle's place at home, 1/e^0.5 at 5 cm", "1/s", low=0.0, high=1e3
    )
    rise_reward: float = knob(
        1.0, "of a bounce that will rise as high as it should, 1/e^0.5 at 10 cm", low=0.0, high=1e3
    )
    speed_reward: float = knob(
        0.2,
        "of a bounce, times its upward speed up to what reaches the height, and 1.5 if centred",
        "s/m",
        low=0.0,
        high=1e3,
    )
    row_reward: float = knob(
        0.1,
        "of a bounce, times the logarithm of one more than how many there were in a row, from three on",
        low=0.0,
        high=1e3,
    )
    pose_penalty: float = knob(0.5, "of joint angles away from home, squared", "1/s", low=0.0, high=1e3)
    fall_penalty: float = knob(2.0, "of losing the ball, once", low=0.0, high=1e3)


@rlcfg("bounce-ball")
def training() -> dict[str, Any]:
    """Return what it is trained with."""
    return {
        "ppo.gamma": 0.99, "ppo.rollout": 32, "ppo.epochs": 2, "ppo.learning_rate": 1e-3, "ppo.max_learning_rate": 1e-3,
        "network.initial_std": 1.0, "network.min_observation_std": 0.02, "train.iterations": 300,
        "train.eval_every": 20,
    }  # fmt: skip


@env("bounce-ball", "numba")
class BounceBallEnv(ArrayEnv):
    """N arms, each with a ball.

    Observation (25): joint angles less home [rad] (6), ball [m] (3) and its orientation w x y z (4),
    joint velocities [rad/s] x 0.2 (6), the ball's velocity [m/s] x 0.2 (3) and spin [rad/s] x 0.02 (3),
    world frame. Action (6): joint targets move by cfg.action_scale times it.
    Privileged observation (13): joint targets less angles [rad] x 10 (6), the paddle's place [m] and
    normal (6), and log(1 + bounces in a row).
    """

    cfg: BounceBallCfg
    num_obs = 25
    num_actions = 6
    num_privileged = 13
    action_limit = 10.0
    granule = LANES
    tallies = ("bounces",)
    kernel = "arm_step"
    targets: ClassVar = {"bounces": (10.0, np.inf)}

    def create(self, n: int) -> Data:
        """Return data: blocks of physics.arm, with rows of the task after the state's."""
        self.arm = dataclasses.replace(Arm(), restitution=self.cfg.restitution, friction=self.cfg.friction)
        self.constants = arm_constants(self.arm, self.cfg.sim_dt, self.cfg.gravity)
        self.home = self.arm.home.astype(np.float32)
        self.middle = self.arm.frames(self.arm.home)[0][6].astype(np.float32)
        self._work = aligned(A.WORK_ROWS * LANES)
        self.low, self.high = np.array([link.joint_range for link in self.arm.links], np.float32).T
        return {"blocks": A.home_blocks(self.arm, n, rows=ROWS)}

    def _part(self, first: int, last: int) -> "BounceBallEnv":
        part = super()._part(first, last)
        part._work = aligned(A.WORK_ROWS * LANES)
        return part

    def rows(self, start: int, count: int) -> np.ndarray:
        """Return a copy of consecutive rows, (N, count)."""
        blocks = self.data["blocks"].reshape(-1, ROWS, LANES)
        # of a single block a reshape alone would be a view
        return np.array(blocks[:, start : start + count].transpose(0, 2, 1), order="C").reshape(-1, count)[
            : self.num_envs
        ]

    def row(self, number: int) -> np.ndarray:
        """Return a copy of a row, (N)."""
        return self.rows(number, 1)[:, 0]

    def put(self, start: int, values: np.ndarray, who: np.ndarray | None = None) -> None:
        """Set consecutive rows of some robots, or all; values: (K, count)."""
        who = np.arange(self.num_envs) if who is None else who
        count = values.shape[1]
        self.data["blocks"].reshape(-1, ROWS, LANES)[
            who[:, None] // LANES, np.arange(start, start + count), who[:, None] % LANES
        ] = values

    def reset(self, who: np.ndarray, random: Draws) -> None:
        """Hold the paddle nearly level, the ball above it."""
        c = self.cfg
        start = np.zeros((len(who), ROWS), np.float32)
        start[:, A.JOINT : A.JOINT + 6] = start[:, A.TARGET : A.TARGET + 6] = self.home + random.uniform(
            -c.reset_joint, c.reset_joint, 6
        )
        start[:, A.BALL : A.BALL + 3] = self.middle
        start[:, A.BALL : A.BALL + 2] += random.uniform(-c.reset_place, c.reset_place, 2)
        start[:, A.BALL + 2] += random.uniform(*c.drop) + self.arm.ball.radius + self.arm.paddle.half_thickness
        start[:, A.BALL_QUATERNION] = 1.0
        start[:, A.BALL_VELOCITY : A.BALL_VELOCITY + 2] = random.uniform(-c.reset_speed, c.reset_speed, 2)
        start[:, A.PADDLE : A.PADDLE + 3] = self.middle
        start[:, A.PADDLE_NORMAL + 2] = 1.0
        self.put(0, start, who)
        arm_step(self.data["blocks"], 0, 0, self._work, self.constants, 0)  # compiled before the first step

    def act(self, actions: np.ndarray) -> None:
        """Move the joint targets."""
        target = self.rows(A.TARGET, 6) + self.cfg.action_scale * np.clip(
            actions, -self.action_limit, self.action_limit
        )
        self.put(A.TARGET, np.clip(target, self.low, self.high))
        self.put(SEEN, self.rows(A.HITS, 1))

    def advance(self) -> None:
        """Advance arms and balls, and count bounces."""
        blocks = self.data["blocks"]
        arm_step(blocks, 0, len(blocks), self._work, self.constants, self.cfg.sim_substeps)
        struck = self.row(A.HITS) > self.row(SEEN)
        count = np.where(
            struck, np.where(self.row(A.HIT_SPEED) >= self.cfg.least_speed, self.row(COUNT) + 1.0, 0.0), self.row(COUNT)
        )
        self.put(COUNT, np.stack([count, np.maximum(self.row(BEST), count), struck], axis=1))

    def offset(self) -> np.ndarray:
        """Return the ball's horizontal distance from the paddle's place at home, (N) [m]."""
        return np.linalg.norm(self.rows(A.BALL, 2) - self.middle[:2], axis=1)

    def reward(self) -> np.ndarray:
        """Return the reward: of a centred ball always, of good bounces when they happen."""
        c = self.cfg
        dt = self.cfg.ctrl_dt
        off = self.offset()
        ball = self.rows(A.BALL, 3)[:, 2]
        speed = self.row(A.HIT_SPEED)
        count = self.row(COUNT)
        enough = np.sqrt(2.0 * c.gravity * np.maximum(c.height - ball, 0.01))
        rise = np.exp(-0.5 * ((ball + 0.5 * speed**2 / c.gravity - c.height) / 0.1) ** 2)
        hit = c.rise_reward * rise + c.speed_reward * np.clip(speed, 0.0, enough) * np.where(off < 0.05, 1.5, 1.0)
        hit += c.row_reward * np.log1p(count) * (count >= 3.0)
        bent = ((self.rows(A.JOINT, 6) - self.home) ** 2).sum(1)
        reward = dt * (c.centre_reward * np.exp(-0.5 * (off / 0.05) ** 2) - c.pose_penalty * bent)
        return reward + hit * self.row(STRUCK) * (count > 0.0) - c.fall_penalty * self.fallen()

    def fallen(self) -> np.ndarray:
        """Return whether the ball is lost."""
        x, y, z = self.rows(A.BALL, 3).T
        return ~((z > 0.05) & (z < 1.8) & (np.abs(x) < 1.5) & (np.abs(y) < 1.5))

    def observe(self) -> np.ndarray:
        """Return positions and velocities of joints and ball."""
        quick = 0.2 * self.rows(A.BALL_VELOCITY, 3), 0.02 * self.rows(A.BALL_SPIN, 3)
        return np.hstack(
            [self.rows(A.JOINT, 6) - self.home, self.rows(A.BALL, 7), 0.2 * self.rows(A.JOINT_SPEED, 6), *quick]
        )

    def privileged(self) -> np.ndarray:
        """Return targets, paddle and the count of bounces."""
        return np.hstack(
            [
                10.0 * (self.rows(A.TARGET, 6) - self.rows(A.JOINT, 6)),
                self.rows(A.PADDLE, 6),
                np.log1p(self.rows(COUNT, 1)),
            ]
        )

    def tally(self) -> dict[str, np.ndarray]:
        """Return the most bounces in a row of this episode."""
        return {"bounces": self.row(BEST)}

    def errors(self) -> dict[str, np.ndarray]:
        """Return how far the ball is off the middle and how high it is [m]."""
        return {"offset": self.offset(), "height": self.rows(A.BALL, 3)[:, 2]}

    def hud(self, robot: int = 0) -> tuple[tuple[str, str], ...]:
        """Return what a picture tells of a robot; see ABEnv."""
        return (*super().hud(robot), ("bounces in a row", f"{self.row(COUNT)[robot]:.0f}"))

    def solids(self) -> tuple[Solid, ...]:
        """Return a foot, six joints and the limbs between them, the paddle and the ball."""
        ends = np.vstack([np.zeros(3), self.arm.frames(self.arm.home)[0]])
        limbs = 0.5 * np.linalg.norm(np.diff(ends, axis=0), axis=1)
        widths = 0.06, 0.05, 0.045, 0.04, 0.03, 0.025, 0.015
        paddle = self.arm.paddle
        ball = self.arm.ball
        rods = tuple(
            Solid("rod", (width, float(half)), "#8A949E" if i % 2 else "#5B6670")
            for i, (width, half) in enumerate(zip(widths, limbs, strict=True))
        )
        return (
            *rods,
            Solid("disc", (paddle.radius, paddle.half_thickness), "#2F6DB5"),
            Solid("ball", (ball.radius,), "#E0762F"),
        )

    def view(self, robot: int = 0) -> dict[str, Any]:
        """Return how they lie."""
        origins, turns = self.arm.frames(self.rows(A.JOINT, 6)[robot].astype(float))
        ends = np.vstack([np.zeros(3), origins])
        ball = self.rows(A.BALL, 7)[robot].astype(float)
        position = np.vstack([0.5 * (ends[:-1] + ends[1:]), origins[6], ball[:3]])
        along = [_turn_to(way) for way in np.diff(ends, axis=0)]
        quaternion = np.vstack([*along, _turn_to(turns[6][:, 2]), ball[3:]])
        return {"position": position, "quaternion": quaternion, "goal": None, "target": np.array([0.3, 0.0, 0.4])}


def _turn_to(way: np.ndarray) -> np.ndarray:
    """Return a rotation (4), w x y z, that turns the z axis to a direction (3)."""
    x, y, z = way / max(float(np.linalg.norm(way)), 1e-9)
    if z < -0.999999:
        return np.array([0.0, 1.0, 0.0, 0.0])
    q = np.array([1.0 + z, -y, x, 0.0])
    return q / np.linalg.norm(q)
