"""The quadruped's environment: N robots of a task that terms make up."""

import copy
import dataclasses
import itertools
import math
from functools import cached_property, partial
from typing import Any

import numpy as np
from numba.core.errors import NumbaError

from config import NoiseCfg, QuadrupedCfg, VaryCfg
from environments.contracts import EnvState
from environments.quadruped import scan
from environments.quadruped import step as S
from environments.quadruped.compose import Composed, Composer
from environments.quadruped.measure import measure
from environments.quadruped.observations import HEIGHT_SCALE, SPIN_SCALE
from environments.quadruped.reference import reference
from environments.quadruped.terms import COMMANDS, Terms, body
from environments.quadruped.values import GO1_HEIGHT, chosen_robot, gains, make_terrain, number, targets, values
from environments.quadruped.watching import WatchedEnv
from physics import PhysicsEngine, simulation_step, vary
from physics import layout as L
from physics.jit import LANES, address, real, typeof, types
from settings import ConfigError, knobs, sections

# The stages, as control_step() takes them
STAGES = (
    "advance", "act", "events", "measure", "follow", "terminate", "reward", "restart", "begin", "renew", "observe",
    "scan", "scan_feet",
)  # fmt: skip
# All that a step needs, in an order that two processes compile from either end
COMPILED = (
    "advance", "control_step", "measure", "restart", "draw", "act", "events", "terminate", "renew", "begin", "observe",
    "reward", "follow", "scan", "scan_feet",
)  # fmt: skip


class QuadrupedEnv(WatchedEnv):
    """N quadrupeds that do what their command asks, whatever befalls them.

    What a robot observes, is rewarded for and ends by are the task's terms (terms.py), which ``terms`` holds in order.

    Action (12): with control "pd" joint targets, home + action_scale * action [rad], kept within the
    joint ranges, turned into torques kp (target - q) - kd qd at every physics step; with "torque"
    motor torques hold + torque_scale * action - torque_kd qd [N m], hold being what bears the home
    pose (Robot.hold_torques). Both are cut at the torque limits. kp, kd, torque_scale and torque_kd are a Go1's;
    a heavier or taller robot's are torque_ratio() times those, or gains() of its file.

    The robot looks alike from left and right, nearly: ``body`` holds the mirrors of observations and actions.
    """

    num_actions = 12
    kernel = "control_step"

    def __init__(self, terms: Terms, cfg: QuadrupedCfg, num_envs: int = 1, threads: int = 0) -> None:
        if cfg.command.kind not in COMMANDS:
            raise ConfigError(f"command.kind: expected one of {', '.join(COMMANDS)}, got {cfg.command.kind!r}")
        if missing := [term.name for term in terms.rewards if not hasattr(cfg.reward, term.name)]:
            raise ConfigError(
                f"reward: expected a task's own configuration, with weights of {', '.join(missing)}; "
                "registry.default_cfg() returns it"
            )
        active = tuple(term for term in terms.rewards if getattr(cfg.reward, term.name))
        noise = cfg.noise != NoiseCfg()
        differ = cfg.vary != VaryCfg()
        terms = dataclasses.replace(terms, rewards=active, command=COMMANDS[cfg.command.kind])
        self.terms = terms = terms.on_grid(cfg.scan.length, cfg.scan.width)
        self.cfg = cfg
        self.num_envs = num_envs
        self.body = body(terms)
        self.num_obs, self.num_privileged = (
            sum(o.columns for o in group) for group in (terms.columns, terms.privileged)
        )
        self.robot = chosen_robot(cfg)
        self.targets = targets(self.terms.command, self.robot)
        self.points = scan.places(cfg.scan, self.robot.home_height / GO1_HEIGHT)
        self.terrain = make_terrain(cfg.terrain)
        if terms.scans and self.terrain and self.terrain.heights.size > scan.MOST_NODES:
            raise ConfigError(
                f"terrain.cell: expected at most {scan.MOST_NODES} heights of ground that is scanned, "
                f"got {self.terrain.heights.size}"
            )
        options = {
            name: {k.name: getattr(section, k.name) for k in knobs(section)}
            for name, section in sections(cfg, "env").items()
        }
        given = values(cfg, self.robot, self.terrain)
        composer = Composer(terms, given, options, noise)
        varied = composer.varied
        differ = differ or bool(varied)
        resist = (cfg.vary.joint_friction, cfg.vary.joint_damping) != ((1.0, 1.0), (1.0, 1.0)) or not varied.isdisjoint(
            ("joint_friction", "joint_damping")
        )
        self.composed: Composed = composer.compose()
        self.settings = np.array([number(name, given, options) for name in self.composed.settings], real)
        self.engine = PhysicsEngine(
            self.robot,
            num_envs,
            cfg.sim_dt,
            threads,
            cfg.physics,
            self.terrain,
            differ,
            resist,
            False,
            self.composed.task_rows,
            self.composed.work_rows,
        )
        if differ:
            self.engine.warn_of_stiffness(cfg.physics.contact_stiffness * cfg.vary.stiffness[1])
        self.engine.set_gains(*gains(cfg, self.robot))
        self._ranges = vary.pack(cfg.vary) if differ else None
        if self.terrain:
            self._spread()
        self.reference = reference(cfg, self.robot, num_envs, threads, terms.follows)
        self.seed = 0
        self.clock = 0
        self.started = False
        self._state = self.new_state()

    @cached_property
    def _types(self) -> dict[str, Any]:
        """The types of what stages are called with, by name."""
        array = typeof(self.engine.work[0])
        arrays = dict.fromkeys(("task", "work", "extra", "terms", "sums", "ends"), array)
        whole = dict.fromkeys(
            (
                "seed", "clock", "number", "count", "first", "substeps", "after_physics", "at_draw", "at_reference",
                "at_scan", "ended_only",
            ),
            types.int64,
        )  # fmt: skip
        more = {
            "settings": typeof(self.settings),
            "model": typeof(self.engine.model),
            "ranges": typeof(self._ranges),
            "staggered": types.boolean,
            "sheet": typeof(self.reference.sheet),
            "frames": typeof(self.reference.rows),
            "points": typeof(self.points),
        }
        return arrays | whole | more | {"out": array, "actions": typeof(self._state.obs)}

    def stage_address(self, stage: Any, **kinds: Any) -> int:
        """Return the address of a stage compiled for this environment; kinds: types of arguments that differ."""
        return address(
            stage,
            *(
                (self._types | kinds)[name]
                for name in stage.py_func.__code__.co_varnames[: stage.py_func.__code__.co_argcount]
            ),
        )

    @cached_property
    def stage_functions(self) -> dict[str, Any]:
        """The stages of a control step, by name, in the order of STAGES."""
        shared = {
            "advance": simulation_step.advance, "act": S.act, "measure": measure, "follow": S.follow,
            "restart": S.restart, "scan": scan.scan, "scan_feet": scan.scan_feet,
        }  # fmt: skip
        return {name: shared.get(name) or self.composed.stages[name] for name in STAGES}

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        """Where the compiled stages are, in the order of STAGES; 0 for one that the task does without."""
        return tuple(self.address_of(name, function) for name, function in self.stage_functions.items())

    def compile(self, backwards: bool = False) -> None:
        """Have everything compiled that a step needs, or loaded if it is; see ABEnv.

        The longest come first and the shortest in the middle, where two processes meet.
        """
        functions = self.stage_functions

        def control_step() -> None:
            arguments = self._arguments((0,) * len(STAGES), 0, np.zeros((1, self.num_actions), real), self._state)
            self.engine.compile(S.control_step, *arguments)

        work = {name: partial(self.address_of, name, function) for name, function in functions.items()}
        work |= {"control_step": control_step, "draw": lambda: self.engine.draw_address}
        for name in reversed(COMPILED) if backwards else COMPILED:
            work[name]()
        self.init_state()

    def address_of(self, name: str, function: Any, **kinds: Any) -> int:
        """Return the address of a stage of this name, 0 for one that the task does without.

        Raises ConfigError, naming function and file, for a term that does not compile.
        """
        needed = {"follow": self.terms.follows, "scan": self.terms.scans, "scan_feet": self.terms.scans_feet}
        if not needed.get(name, True):
            return 0
        try:
            return self.stage_address(function, **kinds)
        except NumbaError as error:
            if name not in self.composed.stages:
                raise
            raise self.composed.blame(name, error) from None

    @cached_property
    def _rows(self) -> tuple[int, ...]:
        """Where terms, sums, counts of ends and columns are."""
        made = self.composed
        at_scan = made.rows["scanned"][0] if self.terms.scans else 0
        return made.terms_row, made.reference_row, at_scan, made.sums_row, made.ends_row, made.out_row

    def init_state(self, seed: int = 0, staggered: bool = False) -> EnvState:
        """Start every episode; see ABEnv."""
        self.seed = seed
        self.clock = 0
        self.started = True
        s = self._state
        self.reference.begin(seed, self.engine.first_robot)
        self._run(np.zeros((self.num_envs, self.num_actions), real), s, 0, staggered)
        s.reward[:] = 0
        s.terminated[:] = False
        s.truncated[:] = False
        self._settle(s)
        return s

    def step(self, actions: np.ndarray, out: EnvState | None = None) -> EnvState:
        """Advance one control step; see ABEnv.

        Raises ValueError before init_state(), and if actions are not (N, 12) or not finite.
        """
        if not self.started:
            raise ValueError("step: expected init_state() before the first step")
        actions = self.checked(actions)
        self.clock += 1
        self.reference.advance()
        s = self._run(actions, out or self._state, self.cfg.sim_substeps, False)
        self._settle(s)
        return s

    def _settle(self, s: EnvState) -> None:
        """Tell what is followed what became of the robots."""
        if self.terms.follows:
            self.reference.settle(self.field("command"), s.terminated, s.truncated, self.clock)

    def _arguments(
        self,
        addresses: tuple[int, ...],
        at_draw: int,
        actions: np.ndarray,
        s: EnvState,
        substeps: int = 0,
        staggered: bool = False,
        half: int = 0,
    ) -> tuple:
        """Return what control_step() takes beside what the engine gives it."""
        info = s.info
        return (
            addresses, at_draw, self._rows, self.settings, self._ranges, self.seed, self.clock, self.engine.first_robot,
            substeps, staggered, half, self.reference.sheet, self.reference.rows, self.reference.starts, self.points,
            actions, s.obs,
            info["privileged"], info["final_obs"], info["final_privileged"], s.reward, s.terminated, s.truncated,
            info["episode_return"], info["episode_steps"],
        )  # fmt: skip

    def _run(self, actions: np.ndarray, s: EnvState, substeps: int, staggered: bool, half: int = 0) -> EnvState:
        """Take a control step, or the half of one that control_step() tells of."""
        made = self.addresses, self.engine.draw_address
        self.engine.run(S.control_step, *self._arguments(*made, actions, s, substeps, staggered, half))
        s.data = self.engine
        return s

    def split(self, parts: int, threads: int = 1) -> "list[QuadrupedEnv]":
        """Return the robots as at most so many environments of whole blocks, in order; see ABEnv.

        Each has a clock and a seed of its own, from this one's on; levels are common to all.

        Raises ValueError if parts is below 1.
        """
        if parts < 1:
            raise ValueError(f"parts: expected a whole number of at least 1, got {parts!r}")
        blocks = self.engine.num_blocks
        bounds = np.linspace(0, blocks, min(parts, blocks) + 1).astype(int).tolist()
        result = []
        for first, last in itertools.pairwise(bounds):
            part = copy.copy(self)
            part.engine = self.engine.part(first, last, threads)
            part.num_envs = part.engine.num_envs
            at = part.engine.first_robot - self.engine.first_robot
            part.reference = self.reference.part(at, at + part.num_envs)
            part._state = part.new_state()
            result.append(part)
        return result

    def snapshot(self) -> dict[str, Any]:
        """Return what stepping on from this instant needs; see ABEnv."""
        return {"seed": self.seed, "clock": self.clock} | self._arrays()

    def _arrays(self) -> dict[str, np.ndarray]:
        return self.engine.arrays() | {f"reference_{name}": x for name, x in self.reference.arrays().items()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to the instant of a snapshot; see ABEnv."""
        self.seed = snapshot["seed"]
        self.clock = snapshot["clock"]
        self.started = True
        for name, array in self._arrays().items():
            array[:] = snapshot[name]

    def set_level(
        self,
        push: float = 1.0,
        command: float = 1.0,
        push_rate: float = 1.0,
        command_rate: float = 1.0,
        episode_rate: float = 1.0,
    ) -> None:
        """Scale pushes, and commands drawn from now on, or towards goals; see ABEnv.

        Raises ValueError for a level that is not finite or below 0, or a rate that is not finite or 0.
        """
        rates = {"push_rate": push_rate, "command_rate": command_rate, "episode_rate": episode_rate}
        for name, rate in rates.items():
            if not 0 < rate < math.inf:
                raise ValueError(f"{name}: expected a finite number above 0, got {rate}")
        for name, level in (("push", push), ("command", command)):
            if not 0 <= level < math.inf:
                raise ValueError(f"{name}: expected a finite number of at least 0, got {level}")
        steps = max(1, round(self.cfg.max_episode_steps / episode_rate))
        found = rates | {"push_level": push, "command_level": command, "max_episode_steps": steps}
        for name, value in found.items():
            if name in self.composed.settings:
                self.settings[self.composed.settings[name]] = value
        self.reference.adapt()

    def _spread(self) -> None:
        """Let episodes start on tiles of every kind and level, evenly."""
        levels, kinds, _ = self.terrain.spawns.shape
        level, kind = np.divmod(np.arange(self.num_envs) % (levels * kinds), kinds)
        self.set_spawns(self.terrain.spawns[level, kind, :2])
        if "level" in self.composed.rows:
            self.set_field("level", level[:, None])

    def climb(self) -> None:
        """Let robots go to harder tiles as they succeed, from all of them on; see ABEnv."""
        if "level" in self.composed.rows and self.terrain:
            self.settings[self.composed.settings["climbs"]] = 1.0

    def set_spawns(self, places: np.ndarray) -> None:
        """Let episodes start over places of their own from the next one on, as a curriculum does.

        places: (N, 2) x, y in the world [m].
        """
        self.set_field("spawn", places)

    def field(self, name: str) -> np.ndarray:
        """Return (N, size), a copy of a field that the task keeps; raise KeyError for another."""
        start, size = self.composed.rows[name]
        return self.engine.rows(L.STATE_ROWS + start, size)

    def set_field(self, name: str, value: Any) -> None:
        """Set a field that the task keeps; value: (N, size), or what can be broadcast to it."""
        start, size = self.composed.rows[name]
        rows = np.zeros((self.engine.num_blocks * LANES, size), real)
        rows[: self.num_envs] = value
        self._task_view()[:, start : start + size] = rows.reshape(-1, LANES, size).transpose(0, 2, 1)

    def _task_view(self) -> np.ndarray:
        return self.engine.blocks.reshape(self.engine.num_blocks, -1, LANES)[:, L.STATE_ROWS :]

    def compute_reward_parallel(self) -> np.ndarray:
        """Return the reward (N) of the state as it is, as if nobody fell; for changed weights or states set by hand."""
        return self.engine.compute_reward_parallel(S.reward_step, self.addresses, self._rows, self.settings)

    @cached_property
    def command_columns(self) -> slice:
        """Where the observation shows a command under which rewards can be told: one that a single field holds.

        None where rewards depend on what else is drawn or moves on with it, such as a gait's phases.
        """
        asked = self.terms.command.observation
        renewed = {name for update in self.terms.command.updates for name in update.sets}
        read = {name for term in self.terms.rewards for name in term.function.parameters}
        told = asked.function.parameters == ("command",) and not (renewed - {"command"}) & read and not asked.noise
        return self.columns(asked.name) if told and "command" in renewed else slice(0, 0)

    def command(self) -> np.ndarray:
        """Return what robots are asked for now, (N, 3): see ABEnv."""
        return self.field("command") if self.command_columns.stop else super().command()

    def rewards_under(self, commands: np.ndarray) -> np.ndarray:
        """Return rewards (K, N), had robots been asked for something else; see ABEnv."""
        if not self.command_columns.stop:
            return super().rewards_under(commands)
        own = self.field("command")
        found = np.empty(commands.shape[:2], real)
        for rewards, command in zip(found, commands, strict=True):
            self.set_field("command", command)
            rewards[:] = self.compute_reward_parallel()
        self.set_field("command", own)
        return found

    def reward_terms(self) -> dict[str, np.ndarray]:
        """Return the latest reward, weighted, by term, (N) each."""
        terms = self.engine.rows(L.STATE_ROWS + self.composed.terms_row, len(self.terms.rewards))
        return {term.name: terms[:, i] for i, term in enumerate(self.terms.rewards)}

    def statistics(self) -> dict[str, float]:
        """Return sums over all robots since the last call: of reward terms, and counts of how episodes ended.

        And, where robots climb, of those that are on each level of the terrain now.
        """
        start = L.WORK_ROWS + self.composed.sums_row
        count = len(self.terms.rewards) + 1 + len(self.terms.terminations)
        sums = np.zeros(count)
        for work in self.engine.work:
            rows = work.reshape(-1, LANES)[start : start + count]
            sums += rows.sum(1, dtype=np.float64)
            rows[:] = 0.0
        names = [
            *(f"reward_{term.name}" for term in self.terms.rewards),
            "end_time",
            *(f"end_{term.name}" for term in self.terms.terminations),
        ]
        return dict(zip(names, sums.tolist(), strict=True)) | self._levels()

    def _levels(self) -> dict[str, float]:
        """Return how many robots are on each level of a terrain, where they climb."""
        if "level" not in self.composed.rows or not self.settings[self.composed.settings["climbs"]]:
            return {}
        counts = np.bincount(self.field("level")[:, 0].astype(int), minlength=self.cfg.terrain.levels)
        return {f"level_{level}": float(count) for level, count in enumerate(counts)}

    def errors(self) -> dict[str, np.ndarray]:
        """Return the task's metrics of this instant, (N) each, by name."""
        metrics = self.terms.all_metrics
        out = np.zeros((self.num_envs, len(metrics)), real)
        self.engine.run(
            S.metrics_step,
            self.addresses,
            self.address_of("metrics", self.composed.stages["metrics"], out=typeof(out)),
            self.settings,
            out,
        )
        return {term.name: out[:, k] for k, term in enumerate(metrics)}

    def columns(self, name: str, privileged: bool = False) -> slice:
        """Return where an observation's columns are; raise KeyError for one that the task has not."""
        at = 0
        for term in self.terms.privileged if privileged else self.terms.columns:
            if term.name == name:
                return slice(at, at + term.columns)
            at += term.columns
        raise KeyError(name)

    def motion(self, everything: np.ndarray) -> dict[str, np.ndarray]:
        """Return what observations and privileged ones, side by side (N, O + P), seen or expected, say of bodies.

        joint_position: (N, 12) [rad]; gravity: (N, 3) its direction, spin: (N, 3) [rad/s] and velocity: (N, 3) [m/s],
        base frame; height: (N) of the base above the ground [m].
        """
        x = np.asarray(everything, float)
        obs = x[:, : self.num_obs]
        privileged = x[:, self.num_obs :]
        return {
            "joint_position": obs[:, self.columns("joint_angles")] + self.robot.home_joints.ravel(),
            "gravity": obs[:, self.columns("gravity_direction")],
            "spin": obs[:, self.columns("angular_velocity")] / SPIN_SCALE,
            "velocity": privileged[:, self.columns("true_velocity", True)],
            "height": privileged[:, self.columns("true_height", True)][:, 0] / HEIGHT_SCALE + self.robot.home_height,
        }
