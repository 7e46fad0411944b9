"""Terms: what a robot sees, is rewarded for, ends by, is disturbed by and is asked for, one plain function each.

A term's parameters name what it reads: fields (fields.py), what the configuration sets (``push_speed``), and, with a
default, options of its own, which become options of the command line. A term that reads a field of one leg is
evaluated for each leg: rewards and metrics add up, observations follow one another, updates set each leg's own.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from environments.contracts import Body, Mirror, Node
from environments.quadruped.fields import LEGS, REFERENCE, SCANNED, VARIED_LEGS, Field
from environments.quadruped.source import Function, compiled
from settings import ConfigError

_OF_A_LEG = {f.name for f in (*LEGS, *VARIED_LEGS)} | {f.name for f in (*REFERENCE, *SCANNED) if f.of_leg}
_OF_A_POINT = {f.name for f in SCANNED if f.of_point}
_OF_A_MOTION = {f.name for f in REFERENCE}
_OF_A_SCAN = {f.name for f in SCANNED}
SIDES = (1, 0, 3, 2)  # a leg's image in the mirror
MIRRORS: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {
    "joints": (tuple(3 * leg + j for leg in SIDES for j in range(3)), (-1.0, 1.0, 1.0) * 4),
    "feet": (SIDES, (1.0,) * 4),
    "number": ((0,), (1.0,)),
    "vector": ((0, 1, 2), (1.0, -1.0, 1.0)),
    "turn": ((0, 1, 2), (-1.0, 1.0, -1.0)),
    "command": ((0, 1, 2), (1.0, -1.0, -1.0)),
}
ACTIONS = Mirror(*MIRRORS["joints"])


@dataclass(frozen=True)
class Term:
    """What all have in common."""

    function: Function
    section: ClassVar[str] = ""  # of the configuration, which holds its options

    @property
    def name(self) -> str:
        """Its name: the function's."""
        return self.function.name

    @property
    def where(self) -> str:
        """Kind, name, file and line, for people."""
        return f"{type(self).__name__.lower()} {self.name} ({self.function.where})"

    @property
    def of_a_leg(self) -> bool:
        """Whether it is evaluated for each leg."""
        return any(name in _OF_A_LEG for name in self.function.parameters)

    @property
    def of_a_point(self) -> bool:
        """Whether it is evaluated for each point of the scan of the ground."""
        return any(name in _OF_A_POINT for name in self.function.parameters)

    def __call__(self, *values: Any) -> Any:
        """Return what it gives for one robot's fields, in the order of its parameters, options last."""
        return self.function(*values)


@dataclass(frozen=True)
class Reward(Term):
    """A reward, or with a negative weight a cost.

    once: its weight is of an event, not per second; floored: it counts in the sum that reward.floor keeps from
    falling below 0.
    """

    once: bool = False
    floored: bool = True
    section: ClassVar[str] = "reward"


@dataclass(frozen=True)
class Observation(Term):
    """Columns of an observation, or of a privileged one, for the critic alone.

    columns: how many, of all legs together; scale: what its numbers are multiplied by, one for all or one for each (of
    a leg, if it is of one); noise: name of what bounds its error, drawn anew in every step; mirror: how it looks in a
    mirror that swaps left and right: one of MIRRORS, or a Mirror, or of a scan "points"; node: what reads it, a part of
    the body, "trunk" or "legs", or an encoder of the "ground"; grid: points of the scan from behind to before and from
    right to left, where the columns are of such.
    """

    columns: int = 1
    scale: float | tuple[float, ...] = 1.0
    noise: str = ""
    mirror: str | Mirror = ""
    node: str = "trunk"
    grid: tuple[int, int] = (1, 1)
    section: ClassVar[str] = "observation"

    def scales(self) -> tuple[float, ...]:
        """Return what each column is multiplied by; raise ConfigError if there are too few or too many numbers."""
        given = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if not given or self.columns % len(given):
            raise ConfigError(
                f"{self.where}: expected one scale, or one for each of {self.columns} columns, got {given}"
            )
        return given * (self.columns // len(given))

    def on_grid(self, length: int, width: int) -> "Observation":
        """Return the same of a scan of so many points, if it is of a scan at all."""
        return replace(self, columns=length * width, grid=(length, width)) if self.of_a_point else self

    def image(self) -> Mirror:
        """Return its mirror image; raise ConfigError if it is not given, or of another number of columns."""
        known = ", ".join(MIRRORS)
        if isinstance(self.mirror, Mirror):
            image = self.mirror
        elif self.mirror == "points":
            length, width = self.grid
            columns = tuple(width * i + width - 1 - j for i in range(length) for j in range(width))
            image = Mirror(columns, (1.0,) * len(columns))
        elif self.mirror in MIRRORS:
            columns, signs = MIRRORS[self.mirror]
            times = self.columns if self.mirror == "number" else 1
            image = Mirror(tuple(range(self.columns)) if self.mirror == "number" else columns, signs * times)
        else:
            raise ConfigError(
                f"{self.where}: expected mirror, how it looks when left and right are swapped: "
                f"{known}, points or a Mirror; got {self.mirror!r}"
            )
        if sorted(image.columns) != list(range(self.columns)) or len(image.signs) != self.columns:
            raise ConfigError(
                f"{self.where}: expected a mirror of {self.columns} columns, "
                f"got {self.mirror!r} of {len(image.columns)}"
            )
        if self.node == "legs":
            size = self.columns // 4
            if [image.columns[leg * size] // size for leg in range(4)] != list(SIDES):
                raise ConfigError(
                    f"{self.where}: node legs: expected a mirror that exchanges left and right legs, such as feet or "
                    f"joints, got {self.mirror!r}"
                )
        return image


@dataclass(frozen=True)
class Termination(Term):
    """A rule by which an episode ends as a fall: true where it does."""

    section: ClassVar[str] = "termination"


@dataclass(frozen=True)
class Update(Term):
    """A function that sets fields: what it returns, in the order of sets.

    keeps: fields of its own, kept from step to step; due: one of these, or another, that counts down from step to
    step [s]: the function is asked for those robots alone for which it has come to 0, and sets it anew.
    """

    sets: tuple[str, ...] = ()
    keeps: tuple[Field, ...] = ()
    due: str = ""


@dataclass(frozen=True)
class Event(Update):
    """What happens before the physics of a step; it may set the base's velocity."""

    section: ClassVar[str] = "event"


@dataclass(frozen=True)
class Randomisation(Update):
    """What is drawn when an episode begins; it may set what the physics lets robots differ in."""

    section: ClassVar[str] = "randomisation"


@dataclass(frozen=True)
class Renewal(Update):
    """What is brought up to date when a step ends, before it is observed: goals, commands, when the next push comes."""

    section: ClassVar[str] = "command"


@dataclass(frozen=True)
class Metric(Term):
    """What evaluations tell of an instant, as a mean over time and episodes."""

    section: ClassVar[str] = ""


@dataclass(frozen=True)
class Command:
    """What a robot is asked for: how it is renewed, how the policy sees it, how well it is done.

    updates, metrics: in order; observation: its columns; targets: least and most of metrics that count as learnt.
    """

    name: str
    updates: tuple[Renewal, ...]
    observation: Observation
    metrics: tuple[Metric, ...] = ()
    targets: dict[str, tuple[float, float]] = field(default_factory=dict)


COMMANDS: dict[str, Command] = {}


def command(
    name: str,
    updates: Iterable[Renewal],
    observation: Observation,
    metrics: Iterable[Metric] = (),
    targets: dict | None = None,
) -> Command:
    """Make a command known by its name; see Command.

    Raises ConfigError if the name is taken.
    """
    if name in COMMANDS:
        raise ConfigError(f"command {name}: expected a new name; known: {', '.join(COMMANDS)}")
    updates, metrics = ((given,) if isinstance(given, Term) else tuple(given) for given in (updates, metrics))
    for what, given, kind in (
        ("renewals", updates, Renewal),
        ("observation", (observation,), Observation),
        ("metrics", metrics, Metric),
    ):
        if wrong := next((term for term in given if not isinstance(term, kind)), None):
            raise ConfigError(
                f"command {name}: {what}: expected functions under @{kind.__name__.lower()}, "
                f"got {getattr(wrong, 'where', wrong)}"
            )
    for metric_name, bounds in (targets or {}).items():
        if metric_name not in {term.name for term in metrics}:
            raise ConfigError(
                f"command {name}: targets: unknown metric {metric_name!r}; "
                f"known: {', '.join(term.name for term in metrics)}"
            )
        if not (isinstance(bounds, tuple) and len(bounds) == 2):
            raise ConfigError(
                f"command {name}: targets: expected the least and the most of {metric_name}, as (0.0, 0.1), "
                f"got {bounds!r}"
            )
    COMMANDS[name] = Command(name, updates, observation, metrics, targets or {})
    return COMMANDS[name]


def _decorator(kind: type[Term]) -> Callable:
    """Return a decorator that makes a term of a function, with or without arguments."""

    def decorate(function: Callable | None = None, **how: Any) -> Any:
        if function is None:
            return lambda function: decorate(function, **how)
        how = {
            name: (value,) if name in ("sets", "keeps") and isinstance(value, (str, Field)) else value
            for name, value in how.items()
        }
        made = kind(compiled(function), **how)
        if isinstance(made, Update) and not made.sets:
            raise ConfigError(f"{made.where}: expected sets, the names of what it sets")
        return made

    return decorate


reward, observation, termination, event, randomisation, renewal, metric = map(
    _decorator, (Reward, Observation, Termination, Event, Randomisation, Renewal, Metric)
)


@dataclass(frozen=True)
class Terms:
    """What a task is made of.

    Orders matter: of observations their columns, of terminations which is counted, of updates what they read.
    """

    rewards: tuple[Reward, ...]
    observations: tuple[Observation, ...]  # the command's come last but for those added to a task
    privileged: tuple[Observation, ...]
    terminations: tuple[Termination, ...]
    events: tuple[Event, ...]
    randomisations: tuple[Randomisation, ...]
    command: Command
    renewals: tuple[Renewal, ...] = ()  # beside the command's
    metrics: tuple[Metric, ...] = ()  # beside the command's
    more: tuple[Observation, ...] = ()  # columns after the command's

    @cached_property
    def columns(self) -> tuple[Observation, ...]:
        """The observation's terms, in order."""
        return (*self.observations, self.command.observation, *self.more)

    @cached_property
    def all_metrics(self) -> tuple[Metric, ...]:
        """The metrics, in order."""
        return (*self.command.metrics, *self.metrics)

    @cached_property
    def all_renewals(self) -> tuple[Renewal, ...]:
        """What is renewed, in order."""
        return (*self.command.updates, *self.renewals)

    def every(self) -> Iterable[Term]:
        """Return every term."""
        return (
            *self.rewards, *self.columns, *self.privileged, *self.terminations, *self.events, *self.randomisations,
            *self.all_renewals, *self.all_metrics,
        )  # fmt: skip

    @cached_property
    def follows(self) -> bool:
        """Whether any term reads what the motion is at that a robot follows."""
        return any(name in _OF_A_MOTION for term in self.every() for name in term.function.parameters)

    @cached_property
    def scans(self) -> bool:
        """Whether any term reads what is seen of the ground."""
        return any(name in _OF_A_SCAN for term in self.every() for name in term.function.parameters)

    @cached_property
    def scans_feet(self) -> bool:
        """Whether any term reads what the ground about the feet is."""
        return any("foot_ground" in term.function.parameters for term in self.every())

    def on_grid(self, length: int, width: int) -> "Terms":
        """Return the same of a scan of so many points, from behind to before and from right to left."""
        groups = {name: getattr(self, name) for name in ("observations", "privileged", "more")}
        return replace(
            self, **{name: tuple(term.on_grid(length, width) for term in group) for name, group in groups.items()}
        )

    @cached_property
    def kept(self) -> tuple[Field, ...]:
        """The fields that are kept, beside KEPT: of the motion that is followed, of the ground, then those of terms."""
        found = {f.name: f for f in REFERENCE} if self.follows else {}
        found |= {f.name: f for f in SCANNED} if self.scans else {}
        found |= {f.name: f for term in self.every() if isinstance(term, Update) for f in term.keeps}
        return tuple(found.values())


def mirror(terms: tuple[Observation, ...]) -> Mirror:
    """Return the mirror image of the columns of several terms."""
    columns = []
    signs = []
    for term in terms:
        image = term.image()
        first = len(columns)
        columns += [first + column for column in image.columns]
        signs += image.signs
    return Mirror(tuple(columns), tuple(map(float, signs)))


def body(terms: Terms) -> Body:
    """Return trunk and left legs, and how the robot looks in a mirror."""
    trunk = []
    ground = []
    legs = {0: [], 2: []}
    at = 0
    for term in terms.columns:
        if term.node == "legs":
            if term.columns % 4:
                raise ConfigError(f"{term.where}: expected columns of four legs, a multiple of 4, got {term.columns}")
            size = term.columns // 4
            for leg, columns in legs.items():
                columns += range(at + size * leg, at + size * leg + size)
        elif term.node in ("trunk", "ground"):
            (trunk if term.node == "trunk" else ground).extend(range(at, at + term.columns))
        else:
            raise ConfigError(f"{term.where}: expected node trunk, legs or ground, got {term.node!r}")
        at += term.columns
    nodes = Node("trunk", tuple(trunk)), *(Node("leg", tuple(columns)) for columns in legs.values())
    return Body(nodes, mirror(terms.columns), mirror(terms.privileged), ACTIONS, tuple(ground))
