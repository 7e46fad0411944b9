"""What an environment is: ABEnv, its configuration EnvCfg and what a step returns, EnvState."""

import abc
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from config import EnvCfg
from settings import ConfigError

__all__ = ["ABEnv", "Body", "Box", "EnvCfg", "EnvState", "Mirror", "Node", "Solid"]


@dataclass(frozen=True)
class Mirror:
    """How a vector looks in a mirror that swaps left and right: x becomes signs * x[columns]."""

    columns: tuple[int, ...]
    signs: tuple[float, ...]


@dataclass(frozen=True)
class Node:
    """A part of a body: parts of one kind share weights; columns: of the observation."""

    kind: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Body:
    """The graph of a body, every part a neighbour of every other.

    A body with mirrors looks alike from left and right: nodes are the parts of its left half, and
    the same nodes read from the mirror image of the observation are those of its right half, a part
    in the middle being seen from both sides. Without mirrors nodes are all parts.

    obs, privileged, actions: mirrors of observation, privileged observation and actions, or None; ground: columns of
    the observation that no part reads, of the ground about the body, which an encoder of its own does.
    """

    nodes: tuple[Node, ...]
    obs: Mirror | None = None
    privileged: Mirror | None = None
    actions: Mirror | None = None
    ground: tuple[int, ...] = ()


@dataclass(frozen=True)
class Box:
    """A space of vectors (size), each number between low and high."""

    size: int
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Solid:
    """A thing that a picture shows.

    kind, size: "box", half extents (3); "ball", radius (1); "rod" with round ends and "disc", radius
    and half the length along its z axis (2) [m]; colour: "#RRGGBB".
    """

    kind: str
    size: tuple[float, ...]
    colour: str


@dataclass
class EnvState:
    """What N robots see and get after a step; every array is written anew by the next step.

    info: "privileged" (N, P), what else the simulator knows; and of the episodes that ended with
    this step "final_obs" (N, O) and "final_privileged" (N, P), their last instant's, "episode_return"
    and "episode_steps" (N), and what the task itself tallies; rows of other robots mean nothing.
    """

    obs: np.ndarray  # (N, O) float32; of a new episode where done
    reward: np.ndarray  # (N) float32
    terminated: np.ndarray  # (N) bool, the episode ended by what happened: a fall
    truncated: np.ndarray  # (N) bool, the episode ended by time
    info: dict[str, np.ndarray] = field(default_factory=dict)
    data: Any = None  # what the simulation itself keeps

    @property
    def done(self) -> np.ndarray:
        """(N) bool, the episode ended; obs is already the next one's first."""
        return self.terminated | self.truncated

    def replace(self, **changes: Any) -> "EnvState":
        """Return a state that differs in some fields."""
        return dataclasses.replace(self, **changes)

    def validate(self) -> None:
        """Raise ValueError, naming the field, unless every robot has what it should, in finite numbers."""
        n = len(self.obs)
        kinds = {
            "obs": (2, np.float32),
            "reward": (1, np.float32),
            "terminated": (1, np.bool_),
            "truncated": (1, np.bool_),
        }
        arrays = {name: np.asarray(getattr(self, name)) for name in kinds}
        for name, (dimensions, kind) in kinds.items():
            array = arrays[name]
            shape = "(N, O)" if dimensions == 2 else f"({n})"
            if array.ndim != dimensions or len(array) != n or array.dtype != kind:
                raise ValueError(
                    f"{name}: expected {np.dtype(kind).name} of shape {shape}, got {array.dtype} of shape {array.shape}"
                )
        for name, array in (arrays | self.info).items():
            if len(array) != n:
                raise ValueError(f"{name}: expected a row for each of {n} robots, got {len(array)}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                robot = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise ValueError(f"{name}: expected finite numbers, got {array[robot].tolist()} of robot {robot}")
        if (self.terminated & self.truncated).any():
            raise ValueError(
                "truncated: expected False where terminated, "
                f"got both for robot {int(np.argmax(self.terminated & self.truncated))}"
            )


class ABEnv(abc.ABC):
    """Many copies of a task stepped together; an episode that ended starts anew by itself.

    A step applies the actions, moves the physics, finds reward and end, counts, cuts an episode that
    lasts too long, and starts anew those that ended: their last observation is in info["final_obs"].
    """

    cfg: EnvCfg
    num_envs: int
    num_obs: int
    num_actions: int
    num_privileged: int = 0
    action_limit: float = math.inf  # an action beyond +- this does what this does
    kernel: str = ""  # name of the compiled function that takes a step, for those who wonder whether it is compiled yet
    camera: tuple[float, float] = (-52.0, 17.0)  # azimuth and elevation that a picture shows it from [deg]
    command_columns: slice = slice(0, 0)  # of the observation that show the command(), and nothing else does; else none
    tallies: tuple[str, ...] = ()  # what evaluations tell of whole episodes: info["episode_NAME"]
    complaint: str = ""  # what was seen of the first robot whose numbers were not finite
    targets: ClassVar[
        dict[str, tuple[float, float]]
    ] = {}  # of what evaluations tell: least and most for the task to count as learnt

    @property
    def observation_space(self) -> Box:
        """The space of one robot's observations."""
        return Box(self.num_obs)

    @property
    def action_space(self) -> Box:
        """The space of one robot's actions."""
        return Box(self.num_actions, -self.action_limit, self.action_limit)

    @cached_property
    def body(self) -> Body:
        """What the policy's graph attention runs over: one part that sees everything, unless a task says better."""
        return Body((Node("body", tuple(range(self.num_obs))),))

    @abc.abstractmethod
    def init_state(self, seed: int = 0, staggered: bool = False) -> EnvState:
        """Start every episode and return the first observations.

        staggered: start at random ages, so that episodes do not end all at once.
        """

    @abc.abstractmethod
    def step(self, actions: np.ndarray, out: EnvState | None = None) -> EnvState:
        """Advance one control step; actions (N, num_actions).

        out: where to write, for callers that keep several steps; else the environment's own arrays.

        Raises ValueError before init_state(), and for actions of another shape or not finite.
        """

    @abc.abstractmethod
    def split(self, parts: int, threads: int = 1) -> "list[ABEnv]":
        """Return this environment's robots as several environments, which different threads may step at the same time.

        Stepped alike, they do what the whole would, to the last bit. They share its robots, and so
        are used instead of it: a step of a part is not one of the whole, whose clock stands still.

        parts: at most how many; threads: of each.
        """

    def compile(self, backwards: bool = False) -> None:
        """Have everything compiled that a step needs.

        backwards: in the other order, so that two processes may begin at either end.
        """
        self.init_state()

    def new_state(self) -> EnvState:
        """Return an EnvState of arrays that step() can write."""
        n = self.num_envs
        wide = {"privileged": self.num_privileged, "final_obs": self.num_obs, "final_privileged": self.num_privileged}
        info = {name: np.zeros((n, size), np.float32) for name, size in wide.items()}
        info |= {
            name: np.zeros(n, np.float32)
            for name in ("episode_return", "episode_steps", *(f"episode_{name}" for name in self.tallies))
        }
        return EnvState(
            np.zeros((n, self.num_obs), np.float32), np.zeros(n, np.float32), np.zeros(n, bool), np.zeros(n, bool), info
        )

    def checked(self, actions: np.ndarray) -> np.ndarray:
        """Return actions (N, num_actions) as float32; raise ValueError for another shape or what is not finite."""
        actions = np.ascontiguousarray(actions, dtype=np.float32)
        if actions.shape != (self.num_envs, self.num_actions):
            raise ValueError(f"actions: expected shape ({self.num_envs}, {self.num_actions}), got {actions.shape}")
        if not np.isfinite(actions).all():
            robot, column = np.argwhere(~np.isfinite(actions))[0].tolist()
            raise ValueError(
                f"actions: expected finite numbers, got {actions[robot, column]} in column {column} of robot {robot}"
            )
        return actions

    def require_sizes(self) -> None:
        """Raise ConfigError, naming it, unless there are observations and actions."""
        for size in ("num_obs", "num_actions"):
            count = getattr(self, size, None)
            if not isinstance(count, int) or count < 1:
                raise ConfigError(
                    f"{size}: expected a whole number of at least 1 in {type(self).__name__}, got {count}"
                )

    def snapshot(self) -> dict[str, Any] | None:
        """Return all that stepping on from this instant needs: arrays, not copied, and numbers, by name.

        None for a task that cannot tell: a run that goes on begins its episodes anew.
        """
        return None

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to the instant of a snapshot, of an environment that was made alike."""
        raise NotImplementedError(f"{type(self).__name__}: expected restore() beside snapshot()")

    def statistics(self) -> dict[str, float]:
        """Return what happened since the last call, over all robots, by name.

        reward_NAME: the sum of a reward's term; end_NAME: how many episodes ended so; level_NUMBER: how many robots
        are at that level of the terrain, where they climb().
        """
        return {}

    def errors(self) -> dict[str, np.ndarray]:
        """Return what evaluations tell of the task beside survival and return, as it is now, (N) each, by name."""
        return {}

    def command(self) -> np.ndarray:
        """Return what robots are asked for now, (N, C); without numbers where rewards_under() knows nothing of it."""
        return np.zeros((self.num_envs, 0), np.float32)

    def rewards_under(self, commands: np.ndarray) -> np.ndarray:
        """Return the rewards (K, N) of the latest step, had robots been asked for something else.

        They are those of robots whose episodes go on; rows of others mean nothing.

        commands: (K, N, C), as of command().
        """
        raise NotImplementedError(f"{type(self).__name__}: expected rewards_under() beside command()")

    def set_level(  # noqa: B027  most tasks have no levels
        self,
        push: float = 1.0,
        command: float = 1.0,
        push_rate: float = 1.0,
        command_rate: float = 1.0,
        episode_rate: float = 1.0,
    ) -> None:
        """Set how hard the task is, from now on, as a curriculum does, for every part of a split environment at once.

        push: times the configured strength of pushes; command: times the configured commands; push_rate, command_rate:
        times as many of either, as each is followed by the next; episode_rate: times as many episodes, each so much
        shorter. A task without any of them ignores it.
        """

    def climb(self) -> None:  # noqa: B027  most tasks have no levels
        """Let robots go to harder ground as they succeed, and back as they fail, from now on, as trainings do."""

    def hud(self, robot: int = 0) -> tuple[tuple[str, str], ...]:
        """Return what a picture tells of a robot in words: label and value."""
        return tuple((name.replace("_", " "), f"{float(values[robot]):.3g}") for name, values in self.errors().items())

    def detail(self, robot: int = 0) -> dict[str, Any]:
        """Return what overlays show of a robot, by name, as far as the task knows it.

        com: (3) centre of mass [m, world]; command, velocity: (3) forward, to the left [m/s] and yaw rate [rad/s], in
        the frame of its heading; torque: (12) of the joints, in shares of their limits; rewards: terms by name [1/s];
        scan: (points, 3) of the ground, where the robot believes them to be [m, world].
        """
        return {}

    def steer(self, robot: int, shares: Sequence[float] | None) -> bool:
        """Hold a robot's command, until it is another or None, the task's own again; return whether it has one.

        shares: (3) of the largest forward, to the left and turning to the left, from -1 to 1.
        """
        return False

    def set_goal(self, robot: int, point: np.ndarray) -> bool:
        """Move a robot's goal to a place (3) [m, world]; return whether it has one."""
        return False

    def push(self, velocity: np.ndarray, robot: int | None = None) -> None:  # noqa: B027  not all can be shoved
        """Kick a robot, or every one at once; velocity (3) [m/s], world frame."""

    def start_in_front(self, robot: int) -> None:  # noqa: B027  most tasks have no terrain
        """Let a robot's episodes begin before the terrain, so that it can be seen to come to it."""

    def go_on_from(self, other: "ABEnv") -> None:
        """Take over the instant of another environment of the same task, as far as that can be: here, begin anew."""
        self.init_state()

    def solids(self) -> tuple[Solid, ...]:
        """Return what there is to draw of a robot, where it is not a legged one."""
        return ()

    def view(self, robot: int = 0) -> dict[str, Any]:
        """Return how the solids lie, by name.

        position (K, 3) [m]; quaternion (K, 4) w x y z; goal (3) [m] or None; target (3) [m], the picture's middle.
        """
        return {}

    def views(self) -> dict[str, Any]:
        """Return view() of all robots, every array with a first axis of N; None where it is None of the first."""
        found = [self.view(robot) for robot in range(self.num_envs)]
        return {
            name: None if value is None else np.stack([view[name] for view in found])
            for name, value in found[0].items()
        }
