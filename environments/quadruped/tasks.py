"""The tasks of legged robots: what each is made of, and what it is trained with.

task() makes a new one of an old one: a name, what differs, and its terms.
"""

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any

import config
from config import PushCfg, QuadrupedCfg
from environments import registry
from environments.mujoco import MujocoEnv
from environments.quadruped import getup, levels, scan, tracking
from environments.quadruped.commands import gait
from environments.quadruped.commands.stay import stay
from environments.quadruped.env import QuadrupedEnv
from environments.quadruped.events import draw_push, pushes, sensor_biases
from environments.quadruped.observations import PRIVILEGED, SENSED, contacts, latest_action
from environments.quadruped.rewards import LIBRARY
from environments.quadruped.terminations import FALLS
from environments.quadruped.terms import (
    COMMANDS,
    Command,
    Event,
    Metric,
    Observation,
    Randomisation,
    Renewal,
    Reward,
    Term,
    Termination,
    Terms,
    mirror,
)
from environments.quadruped.values import fitted
from settings import ConfigError, override, with_knobs


@dataclasses.dataclass(frozen=True)
class Task:
    """A task: its configuration, its terms and the fields of config.Config that its training changes."""

    cfg: QuadrupedCfg
    terms: Terms
    training: dict[str, Any]


TASKS: dict[str, Task] = {}

BALANCE = {
    "goal": 1.0, "velocity": 1.0, "yaw_rate": 0.5, "vertical_velocity": -1.0, "tumble": -0.05, "orientation": -0.5,
    "torque": -1e-4, "action_rate": -0.03, "pose": -0.05, "joint_speed": -5e-4, "feet": 0.1, "alive": 2.0,
    "fall": -20.0,
}  # fmt: skip
WALK = {
    "velocity": 4.0, "yaw_rate": 2.0, "vertical_velocity": -1.0, "tumble": -0.02, "orientation": -1.0, "height": -20.0,
    "torque": -1e-4, "action_rate": -0.01, "pose": -0.1, "stand_pose": -0.3, "joint_speed": -2e-4, "trot": 2.0,
    "alive": 0.2, "air_time": 0.01, "fall": -1.0, "sharp": 12.0, "wide": 3.0,
}  # fmt: skip
TRAIN_WALK: dict[str, Any] = {
    "ppo.gamma": 0.97, "ppo.learning_rate": 1e-3, "ppo.max_learning_rate": 2e-3, "network.initial_std": 0.8,
    "train.iterations": 600, "train.eval_every": 20,
    "curriculum.push": (1.0, 1.0), "curriculum.command": (0.3, 1.0), "curriculum.growth": 0.01,
}  # fmt: skip
TRAIN_TRACKING: dict[str, Any] = {
    "network.initial_std": 0.5, "train.iterations": 400, "curriculum.command": (1.0, 1.0),
}  # fmt: skip


def _checked(terms: Iterable[Any], kind: type, what: str) -> tuple:
    """Return terms as a tuple; raise ConfigError unless each is of a kind."""
    terms = (terms,) if isinstance(terms, Term) else tuple(terms)
    for term in terms:
        if not isinstance(term, kind):
            got = term.where if isinstance(term, Term) else getattr(term, "__name__", repr(term))
            raise ConfigError(f"{what}: expected functions under @{kind.__name__.lower()}, got {got}")
    return terms


def _section(section: Any, terms: Iterable[Term], weights: bool = False) -> Any:
    """Return a section of the configuration with the options of terms, and if asked their weights, as knobs."""
    known = {f.name for f in dataclasses.fields(section)}
    more = {}
    owners = {}
    terms = tuple(terms)
    taken = {f.name for f in dataclasses.fields(getattr(config, type(section).__name__))} | (
        {term.name for term in terms} if weights else set()
    )
    for term in terms:
        if weights and term.name not in known:
            more[term.name] = (0.0, term.function.meaning, "")
        for name, default in term.function.options.items():
            pair = isinstance(default, tuple) and len(default) == 2
            if not all(isinstance(x, (bool, int, float)) for x in (default if pair else (default,))):
                raise ConfigError(
                    f"{term.where}: option {name}: expected a number, a pair of numbers or a truth value, "
                    f"got {default!r}"
                )
            other, given = owners.setdefault(name, (term, default))
            if name in taken or given != default:
                whose = (
                    f"there is one of {other.where}, with {given!r}"
                    if name not in taken
                    else f"there is {term.section}.{name}"
                )
                raise ConfigError(f"{term.where}: option {name}: expected a name of its own; {whose}")
            meaning, _, unit = term.function.of_option.get(name, f"of {term.name}").partition(" [")
            if name not in known:
                more.setdefault(name, (default, meaning, unit.rstrip("]")))
    if not more:
        return section
    made = with_knobs(type(section), tuple((name, *x) for name, x in more.items()))
    return made(**{f.name: getattr(section, f.name) for f in dataclasses.fields(section)})


def task(
    name: str,
    base: str = "quadruped-balance",
    description: str = "",
    *,
    rewards: dict[Reward | str, float] | None = None,
    observations: Iterable[Observation] = (),
    privileged: Iterable[Observation] = (),
    terminations: Iterable[Termination] = (),
    events: Iterable[Event] = (),
    randomisations: Iterable[Randomisation] = (),
    renewals: Iterable[Renewal] = (),
    metrics: Iterable[Metric] = (),
    without: Iterable[str] = (),
    command: Command | str | None = None,
    changes: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> Task:
    """Make a task of another one known, with more terms; return it.

    name: by which --task finds it; base: the task that it differs from;
    rewards: weights, by term or by the name of one of rewards.py;
    observations, privileged: columns after the base's; what is observed is privileged no more; without: names of
    the base's observations and terminations that it does not have; command: in place of the base's;
    changes: of the environment's configuration, as {"push.speed": (1.0, 2.0)};
    training: of everything else, as {"ppo.gamma": 0.97}.

    Raises ConfigError, naming the term and its file, for what cannot be.
    """
    if base not in TASKS:
        raise ConfigError(f"task {name}: unknown base {base!r}; known: {', '.join(TASKS)}")
    if registry.is_taken(name):
        raise ConfigError(f"task {name}: expected a new name; there is a task of that name")
    old = TASKS[base]
    if not isinstance(rewards or {}, dict):
        raise ConfigError(
            f"task {name}: rewards: expected a weight for each term, as {{term: weight}}, got {rewards!r}"
        )
    known = {term.name: term for term in old.terms.rewards}
    given: dict[str, float] = {}
    for term, weight in (rewards or {}).items():
        if isinstance(term, str):
            options = {o for x in known.values() for o in x.function.options} | {"floor"}
            if term not in known and term not in options:
                raise ConfigError(f"task {name}: rewards: unknown term {term!r}; known: {', '.join(known)}")
            given[term] = weight
            continue
        (term,) = _checked([term], Reward, f"task {name}: rewards")
        if not isinstance(weight, (int, float)):
            raise ConfigError(f"task {name}: {term.where}: expected a number as its weight, got {weight!r}")
        if known.get(term.name, term) != term:
            raise ConfigError(
                f"task {name}: {term.where}: expected a name of its own; there is {known[term.name].where}"
            )
        known[term.name] = term
        given[term.name] = float(weight)
    of = f"task {name}: "
    without = set(without)
    may = [term.name for term in (*old.terms.observations, *old.terms.more, *old.terms.terminations)]
    if unknown := sorted(without - set(may)):
        raise ConfigError(f"{of}without: unknown observation or termination {unknown[0]!r}; known: {', '.join(may)}")
    observed = _checked(observations, Observation, of + "observations")
    hidden = _checked(privileged, Observation, of + "privileged")
    terms = dataclasses.replace(
        old.terms,
        rewards=tuple(known.values()),
        observations=tuple(term for term in old.terms.observations if term.name not in without),
        more=(*(term for term in old.terms.more if term.name not in without), *observed),
        privileged=(*(term for term in old.terms.privileged if term not in observed), *hidden),
        terminations=(
            *(term for term in old.terms.terminations if term.name not in without),
            *_checked(terminations, Termination, of + "terminations"),
        ),
        events=(*old.terms.events, *_checked(events, Event, of + "events")),
        randomisations=(*old.terms.randomisations, *_checked(randomisations, Randomisation, of + "randomisations")),
        renewals=(*old.terms.renewals, *_checked(renewals, Renewal, of + "renewals")),
        metrics=(*old.terms.metrics, *_checked(metrics, Metric, of + "metrics")),
    )
    for kind in ("observations", "privileged", "terminations", "events", "randomisations", "renewals", "metrics"):
        first: dict[str, Term] = {}
        for term in terms.columns if kind == "observations" else getattr(terms, kind):
            if first.setdefault(term.name, term) is not term:
                raise ConfigError(
                    f"task {name}: {term.where}: expected a name of its own; there is {first[term.name].where}"
                )
    cfg = old.cfg
    if command is not None:
        kind = command.name if isinstance(command, Command) else command
        cfg = dataclasses.replace(cfg, command=dataclasses.replace(cfg.command, kind=kind))
        if kind not in COMMANDS:
            raise ConfigError(f"task {name}: command: expected one of {', '.join(COMMANDS)}, got {kind!r}")
        terms = dataclasses.replace(terms, command=COMMANDS[kind])
        if isinstance(command, Command):
            cfg = dataclasses.replace(cfg, command=_section(cfg.command, command.updates))
    mirror(terms.columns)
    mirror(terms.privileged)
    cfg = dataclasses.replace(
        cfg,
        reward=dataclasses.replace(_section(cfg.reward, terms.rewards, weights=True), **given),
        observation=_section(cfg.observation, (*terms.columns, *terms.privileged)),
        termination=_section(cfg.termination, terms.terminations),
        event=_section(cfg.event, terms.events),
        randomisation=_section(cfg.randomisation, terms.randomisations),
    )
    changes = changes or {}
    cfg = override(fitted(cfg, override(cfg, changes, "env")), changes, "env")
    made = Task(cfg, terms, old.training | (training or {}))
    registry.envcfg(name, description, fitted)(lambda: made.cfg)
    registry.env(name, "numba")(partial(QuadrupedEnv, terms))
    registry.env(name, "mujoco")(partial(MujocoEnv, terms))
    registry.rlcfg(name)(lambda: made.training)
    TASKS[name] = made
    return made


_NONE = Terms(tuple(LIBRARY.values()), SENSED, PRIVILEGED, FALLS, (pushes,), (sensor_biases,), stay, (draw_push,))
TASKS[""] = Task(QuadrupedCfg(), _NONE, {})
task("quadruped-balance", "", "hold the centre of mass at a goal while being pushed", rewards=BALANCE)
del TASKS[""]
# other engines' contacts bounce less and grip more slowly: known to a policy, they cost it little velocity error there
_OTHER_ENGINES = {"vary.stiffness": (0.25, 1.5), "vary.restitution": (0.0, 1.0), "vary.grip_time": (0.0, 0.03)}
task(
    "quadruped-walk-flat", "quadruped-balance", "move at commanded velocities on flat ground", command="velocity",
    rewards=dict.fromkeys(BALANCE, 0.0) | WALK, changes={"push.speed": (0.0, 0.0), "push.spin": 0.0, **_OTHER_ENGINES},
    training=TRAIN_WALK,
)  # fmt: skip
# Told to stand, robots trot on the spot, half of their feet in the air, unless standing is rewarded. Who was never
# pushed falls more easily standing than trotting: shoved by 1 m/s, 84 % of walkers on flat ground survived that stood.
task(
    "quadruped-walk-robust", "quadruped-walk-flat", "move at commanded velocities while being pushed",
    rewards={"stance": 2.0}, changes={"push.speed": (0.5, 1.0), "push.spin": PushCfg().spin},
    training={"curriculum.push": (1.0, 1.2)},
)  # fmt: skip
# On hard ground knees, calves and trunk touch it, and commands keep a heading: who walks in circles sees little of it
_GROUNDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "rough": (
        "on rough ground and slopes",
        {"terrain.kinds": "rough slope_up slope_down"},
        {"terrain.slope": (0.02, 0.52)},
    ),
    "stairs": ("up and down stairs", {"terrain.kinds": "stairs_up stairs_down"}, {"terrain.step_height": (0.02, 0.22)}),
}
# On the way up it is the trunk's front that meets an edge. Of 512 robots on seen steps of 18 cm, each trained 4.9 M
# env steps more, 86.7 % survived with a walk's rewards, 90.4 % with a clearance at -100, 93.0 % with falls at -5. Who
# climbs must pitch and rise, and is slow where it pays as much to stand: 0.24 m/s off with a walk's weights, 0.21 so.
_CAREFUL = {
    "velocity": 8.0, "stance": 4.0, "vertical_velocity": -0.2, "orientation": -0.2, "fall": -10.0,
    "trunk_clearance": -200.0,
}  # fmt: skip
# Who sees steps may hurry up them, if what is far off is still rewarded for coming nearer (wide): of 512 robots on
# steps of 18 cm, after 36 M env steps with velocity at 8 and falls at -15 96.9 % survived, 0.21 m/s off; after 39 M
# with these weights 97.1 %, 0.19 m/s
_HASTE = {"velocity": 14.0, "wide": 1.5, "yaw_rate": 3.0, "stance": 6.0, "fall": -20.0}
_SEEING = {"scan.noise": 0.02, "scan.drift": 0.03, "scan.delay": 0.06, "scan.dropped": 0.05}
for _name, (_where, _ground, _harder) in _GROUNDS.items():
    task(
        f"quadruped-walk-{_name}", "quadruped-walk-flat", f"move at commanded velocities {_where}, unseen",
        command="heading", rewards=_CAREFUL, privileged=(scan.height_scan, scan.foot_scans),
        randomisations=(levels.change_level,), renewals=(levels.count_way,),
        changes={**_ground, "physics.body_contact": True}, training={"train.iterations": 900},
    )  # fmt: skip
    task(
        f"quadruped-walk-{_name}-seen", f"quadruped-walk-{_name}", f"move at commanded velocities {_where}, seen",
        observations=(scan.height_scan,), randomisations=(scan.scan_errors,), changes={**_SEEING, **_harder},
        rewards=_HASTE if _name == "stairs" else {},
        training={"train.iterations": 3400} if _name == "stairs" else {},
    )  # fmt: skip
# A box is a step with nothing after it; who meets it must pitch, and lose the rhythm and height of a walk
task(
    "quadruped-jump", "quadruped-walk-stairs-seen", "get onto boxes and off them, as high as it stands and more, seen",
    rewards={
        **_CAREFUL, "velocity": 6.0, "wide": 3.0, "yaw_rate": 2.0, "trot": 0.0, "height": -5.0,
        "vertical_velocity": 0.0, "orientation": -0.1, "pose": -0.05, "trunk_clearance": -20.0,
    },
    changes={
        "terrain.step_height": (0.05, 0.45), "terrain.tread": (2.5, 2.5), "fall_tilt": 1.4,
        "command.forward": (0.5, 1.2), "command.sideways": (0.0, 0.0), "command.standing": 0.05,
        "command.turning": 0.05,
    },
    training={"train.iterations": 900},
)  # fmt: skip
# The 45 numbers that most trainers' policies see: no contacts, which few robots feel, but the action before
for _walk in ("flat", "robust", "rough", "stairs"):
    task(
        f"quadruped-walk-{_walk}-deploy", f"quadruped-walk-{_walk}",
        f"the same as quadruped-walk-{_walk} from 45 numbers that every robot measures, foot contacts aside",
        observations=(latest_action,), without=("contacts",),
        privileged=(contacts,) if _walk in _GROUNDS else (),  # which a teacher sees
    )  # fmt: skip
task(
    "anymal-navigation",
    "quadruped-walk-flat",
    "go to a place up to 5 m away, any way round, and stand there facing as asked",
    command="pose",
    rewards={"arrival": 1.0, "stopping": 2.0},
    changes={
        "model": "anymal_c",
        "max_episode_seconds": 15.0,
        "command.distance": (0.5, 5.0),
        "command.cruise": 1.0,
        "goal.reach": 5.0,
        "goal.interval": (15.0, 20.0),
    },
)
task(
    "quadruped-goal",
    "quadruped-walk-flat",
    "go from goal to goal, 1 to 5 m apart",
    command="goal",
    changes={"goal.reach": 3.0},
)
# Legs must reach far to roll the trunk over. With an action scale of 0.6 rad and a standard deviation of 0.8 at first
# robots learn to lie on their sides: 32 % stand after 3.3 M env steps, with 1 rad and 1 99 %.
task(
    "quadruped-getup", "quadruped-walk-flat", "stand up from any pose within 4 s, and stay up",
    rewards=dict.fromkeys(WALK, 0.0) | {
        getup.level: 2.0, getup.risen: 2.0, getup.at_home: 2.0, getup.at_rest: 2.0, "feet": 0.5, "torque": -1e-4,
        "action_rate": -0.01, "joint_speed": -2e-4, "fall": -1.0,
    },
    without=("tilted", "sunk", "touched"), terminations=(getup.lying,),
    randomisations=(getup.any_attitude, getup.any_joints), metrics=(getup.standing,),
    changes={
        "physics.body_contact": True, "max_episode_seconds": 8.0, "action_scale": 1.0,
        "command.forward": (0.0, 0.0), "command.sideways": (0.0, 0.0), "command.turn": (0.0, 0.0),
    },
    training={
        "train.iterations": 900, "ppo.gamma": 0.99, "network.initial_std": 1.0, "curriculum.command": (1.0, 1.0),
    },
)  # fmt: skip
task(
    "quadruped-gaits", "quadruped-walk-flat", "move at commanded velocities in a commanded gait and posture",
    command="gait",
    rewards={
        "trot": 0.0, "height": 0.0, "orientation": 0.0, "air_time": 0.0, "pose": -0.05,
        gait.schedule: 10.0, gait.lift: -20.0, gait.posture: -20.0, gait.pitch: -2.0, "stance": 3.0, "fall": -5.0,
    },
    observations=(gait.phase_sines, gait.phase_cosines, gait.gait_asked),
    training={"train.iterations": 900},
)  # fmt: skip
_STARTS = tracking.base_in_motion, tracking.legs_in_motion
_NEXT = tracking.next_pose, tracking.next_speeds, tracking.later_pose
task(
    "quadruped-track", "quadruped-walk-flat", "move at commanded velocities as a generator of motion shows it",
    rewards=dict.fromkeys(WALK, 0.0) | {
        tracking.joint_tracking: 1.0, tracking.joint_speed_tracking: 0.5, tracking.foot_tracking: 1.0,
        tracking.root_tracking: 1.0, tracking.velocity_tracking: 3.0, tracking.spin_tracking: 2.0,
        "action_rate": -0.01, "torque": -1e-4, "fall": -1.0,
    },
    observations=(*_NEXT, tracking.leg_phase, tracking.motion_velocity, tracking.motion_spin),
    privileged=(tracking.behind,),
    terminations=(tracking.strayed_root, tracking.strayed_foot), events=(tracking.residual,),
    randomisations=_STARTS, renewals=(tracking.fall_behind,),
    metrics=(tracking.joint_error, tracking.foot_error, tracking.motion_velocity_error),
    changes={"motion.source": "motion.follow:Steered", "action_scale": 0.25}, training=TRAIN_TRACKING,
)  # fmt: skip
task(
    "quadruped-mimic", "quadruped-walk-flat", "do what a clip of motion shows, such as a pronk or a spin",
    command="motion",
    rewards=dict.fromkeys(WALK, 0.0) | {
        tracking.joint_tracking: 1.0, tracking.joint_speed_tracking: 0.5, tracking.foot_tracking: 1.0,
        tracking.root_tracking: 1.0, tracking.velocity_tracking: 1.0, tracking.spin_tracking: 1.0,
        tracking.place_tracking: 0.5, "action_rate": -0.01, "torque": -1e-4, "fall": -1.0,
    },
    observations=(*_NEXT, tracking.motion_velocity, tracking.motion_spin, tracking.motion_gravity),
    privileged=(tracking.behind,),
    terminations=(tracking.strayed_root, tracking.strayed_foot), events=(tracking.residual,),
    randomisations=_STARTS,
    changes={"motion.source": "motion.follow:Recorded", "motion.clip": "pronk"},
    training=TRAIN_TRACKING | {"train.iterations": 200},
)  # fmt: skip
