"""Writes the stages of a task's control step: modules that load the fields and call the terms, in loops over lanes.

A module is named by its text and by the sources of its terms and lies beside Numba's cache, which keeps what is
compiled of it. Terms that read the same field load it again, from the first-level cache.
"""

import itertools
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from environments.quadruped.fields import BODY, DERIVED, KEPT, LEGS, MEASURED, SHARED, VARIED, VARIED_LEGS, K, M
from environments.quadruped.source import Function, module, reason
from environments.quadruped.terms import (
    Event,
    Observation,
    Randomisation,
    Term,
    Termination,
    Terms,
    Update,
)
from physics.jit import real
from settings import ConfigError, suggest

MOTION = "base_velocity", "base_spin"  # what events may set
EACH = {True: "leg", False: "point"}  # what a term is evaluated for again and again, by whether it is of a leg
DRAW_NOISE = 1024  # first draw of a robot's key that an observation's noise takes


# What each composed stage is called with beside (task, work, extra, settings, model)
STAGES = {
    "events": ("seed", "clock", "number"),
    "terminate": ("ends", "count"),
    "begin": ("seed", "clock", "number"),
    "renew": ("seed", "clock", "number"),
    "observe": ("out", "seed", "clock", "number"),
    "reward": ("terms", "sums", "count"),
    "metrics": ("out", "first", "count"),
}


HEAD = """import numpy as np

from environments.quadruped.source import certain
from environments.quadruped.fields import K
from environments.quadruped.step import foot_forces, foot_place, friction_ratio, joint_reading, trunk_mass_ratio
from physics import constants as C
from physics import layout as L
from physics.jit import LANES, real, stage
from physics.leg import constant3
from physics.random import errors3, mix, robot_key
"""


@dataclass
class Composed:
    """A task's compiled stages, and where its numbers are.

    settings: index of each number that it is set by; rows: first row and size of each field that the task keeps.
    """

    blame: Callable[[str, Exception], ConfigError]  # of a stage that does not compile: what is wrong with which term
    stages: dict[str, Any]
    settings: dict[str, int]
    rows: dict[str, tuple[int, int]]
    terms_row: int  # of the rewards' terms, among the task's rows
    reference_row: int  # of the motion that is followed, if any, among them
    task_rows: int
    sums_row: int  # in the work buffer, after the physics' rows: sums of the rewards' terms since they were last read
    ends_row: int  # the same of counts of how episodes ended
    out_row: int  # observation and privileged observation
    work_rows: int


class Composer:
    """Writes the text."""

    def __init__(self, terms: Terms, values: dict[str, Any], options: dict[str, dict[str, Any]], noise: bool) -> None:
        """values: what configuration and robot set, by name, numbers and pairs; options: of terms, by section."""
        self.terms = terms
        self.values = values
        self.options = options
        self.noise = noise
        self.settings: dict[str, int] = {}
        for name in (*SHARED, *values):  # all there are, so that a term more moves none
            self.setting(name, values[name])
        self.imports: dict[str, Function] = {}
        self.stage_terms: dict[str, list[Term]] = {}
        self.rows = {f.name: (getattr(K, f.name), f.size) for f in KEPT}
        self.terms_row = K.size
        for f in terms.kept:
            if f.name in self.rows:
                raise ConfigError(f"keeps: expected a new name of a field, got {f.name!r}, which there is")
            self.rows[f.name] = self.terms_row, f.numbers(values["scan_points"])
            self.terms_row += self.rows[f.name][1]
        self.task_rows = self.terms_row + len(terms.rewards)
        self.sums_row = M.size
        self.ends_row = self.sums_row + len(terms.rewards)
        self.out_row = self.ends_row + len(terms.terminations) + 1
        self.work_rows = self.out_row + sum(o.columns for o in (*terms.columns, *terms.privileged))
        self.fields = {f.name: ("extra", getattr(M, f.name), f.size) for f in MEASURED} | {
            name: ("task", *x) for name, x in self.rows.items()
        }
        for f in terms.kept:
            if f.of_leg or f.of_point:
                self.fields[f.name] = "task", f"{self.rows[f.name][0]} + {f.size} * {EACH[f.of_leg]}", f.size
        self.physics = {f.name: f for group in (BODY, VARIED) for f in group}
        self.legs = {f.name: f for group in (LEGS, VARIED_LEGS) for f in group}

    @property
    def varied(self) -> set[str]:
        """What randomisations set of that in which the physics lets robots differ."""
        return {f.name for f in (*VARIED, *VARIED_LEGS)} & {
            name for term in self.terms.randomisations for name in term.sets
        }

    # loading

    def setting(self, name: str, value: Any) -> str:
        """Return how a setting is read: a number, or a tuple of several."""
        count = len(value) if isinstance(value, (tuple, list)) else 1
        names = [name] if count == 1 else [f"{name}.{i}" for i in range(count)]
        for each in names:
            self.settings.setdefault(each, len(self.settings))
        reads = ", ".join(f"settings[{self.settings[each]}]" for each in names)
        return reads if count == 1 else f"({reads})"

    def rows_of(self, array: str, row: str | int, size: int) -> str:
        """Return how consecutive rows of a lane are read."""
        if size == 1:
            return f"{array}[({row}) * LANES + lane]"
        return "(" + ", ".join(f"{array}[({row} + {k}) * LANES + lane]" for k in range(size)) + ")"

    def load(self, name: str, term: Term) -> str:
        """Return how a parameter of a term is read; raise ConfigError for one that names nothing."""
        if name in term.function.options:
            value = self.options[term.section].get(name, term.function.options[name])
            return self.setting(f"{term.section}_{name}", value)
        if name in DERIVED:
            made = DERIVED[name].function
            return f"{self.imported(made, 'derived')}({', '.join(self.load(p, term) for p in made.parameters)})"
        if name in self.fields:
            return self.rows_of(*self.fields[name])
        if name in self.physics or name in self.legs:
            f = self.physics.get(name) or self.legs[name]
            if f.load:
                return f.load
            array, row = f.row.split(", ")
            return self.rows_of(array, row, f.size)
        if name in self.values:
            return self.setting(name, self.values[name])
        known = [*self.fields, *self.physics, *self.legs, *DERIVED, *self.values]
        raise ConfigError(
            f"{term.where}: unknown parameter {name!r}; {suggest(name, known, 'docs/terms.md lists the fields')}"
        )

    def imported(self, function: Function, kind: str) -> str:
        """Return the name that a function has in the module."""
        name = f"{kind}_{function.name}"
        while self.imports.get(name, function) is not function:
            name += "_"
        self.imports[name] = function
        return name

    def called(self, term: Term) -> str:
        """Return the call of a term with what it reads."""
        parameters = (*term.function.parameters, *term.function.options)
        loads = ", ".join(self.load(p, term) for p in parameters)
        return f"certain({self.imported(term.function, type(term).__name__.lower())}({loads}))"

    # writing

    def loops(self, bodies: Iterable[tuple[Term, list[str]]]) -> list[str]:
        """Return loops over the lanes, and over the legs where terms read what is of one; bodies: of terms, in order.

        Neighbours share a loop: LLVM unrolls a short one before it could vectorise it (rewards took 21 ns of an env
        step apart, 12 together).
        """
        lines = []
        for (of_a_leg, of_a_point), group in itertools.groupby(bodies, lambda x: (x[0].of_a_leg, x[0].of_a_point)):
            loop = ["for lane in range(LANES):"]
            for term, body in group:
                loop.append(f"    # {term.name}")
                if "key" in term.function.parameters:
                    salt = zlib.crc32(f"{type(term).__name__} {term.name}".encode())
                    more = f" + np.uint32({EACH[of_a_leg]})" if of_a_leg or of_a_point else ""
                    loop.append(f"    key = mix(robot_key(seed, clock, number + lane) + np.uint32({salt}){more})")
                loop += ["    " + line for line in body]
            if of_a_leg:
                loop = [
                    "for leg in range(4):",
                    "    rows, leg_constants = L.leg_rows(work, leg), model.legs[leg]",
                    *("    " + line for line in loop),
                ]
            if of_a_point:
                loop = [f"for point in range({self.values['scan_points']}):", *("    " + line for line in loop)]
            lines += loop
        return lines

    def store(self, name: str, value: str, term: Update, where: str = "") -> list[str]:
        """Return how a field is set; where: a condition that a lane must meet."""
        if name in self.rows:
            array = "task"
            row = str(self.rows[name][0])
            size = self.rows[name][1]
        elif name in (may := self.settable(term)):
            f = self.physics.get(name) or self.legs[name]
            (array, row) = f.row.split(", ")
            size = f.size
        else:
            near = suggest(name, [*self.rows, *may], "fields of one's own are named by keeps=Field(...)")
            raise ConfigError(f"{term.where}: cannot set {name!r}; {near}")
        parts = [f"{value}_{k}" for k in range(size)] if size > 1 else [value]
        lines = [f"{', '.join(parts)} = {value}"] if size > 1 else []  # which another number of them would not fit
        for k, part in enumerate(parts):
            target = f"{array}[({row} + {k}) * LANES + lane]"
            lines.append(f"{target} = real({part}) if {where} else {target}" if where else f"{target} = real({part})")
        return lines

    def settable(self, term: Update) -> set[str]:
        """Return what of the physics an update may set."""
        if isinstance(term, Randomisation):
            pose = {"joint_position", "joint_velocity", "joint_target"} if term.of_a_leg else {"quaternion", *MOTION}
            return pose | {f.name for f in (*VARIED, *VARIED_LEGS)}
        return ({"joint_target"} if term.of_a_leg else {*MOTION}) if isinstance(term, Event) else set()

    def update(self, term: Update, where: str = "") -> tuple[Term, list[str]]:
        """Return the body of an update."""
        values = [f"value{i}" for i in range(len(term.sets))]
        body = [f"{', '.join(values)} = {self.called(term)}"]
        for name, value in zip(term.sets, values, strict=True):
            body += self.store(name, value, term, where)
        return term, body

    def updates(self, terms: Iterable[Update], where: str = "") -> list[str]:
        """Return the loops of updates; where: a condition that a lane must meet.

        What is drawn now and then is drawn in few of the blocks: goals and pushes took 35 ns of an env step when drawn
        for all.
        """
        lines = []
        for due, group in itertools.groupby(terms, lambda term: term.due):
            group = [*group]
            if not due:
                lines += self.loops(self.update(term, where) for term in group)
                continue
            if self.rows.get(due, (0, 0))[1] != 1:
                raise ConfigError(
                    f"{group[0].where}: expected as due a field of one number that is kept, "
                    f"as keeps=Field(...) names them, got {due!r}"
                )
            timer = f"task[{self.rows[due][0]} * LANES + lane]"
            lines += [
                "due = 0",
                "for lane in range(LANES):",
                f"    due += 1 if {timer} <= real(0.0) else 0",
                "if due > 0:",
            ]
            for term in group:
                term, body = self.update(term, "now")
                lines += ["    " + line for line in self.loops([(term, [f"now = {timer} <= real(0.0)", *body])])]
        return lines

    def observe(self, terms: Iterable[Observation]) -> list[str]:
        """Return the loops of observations, one after another."""
        bodies = []
        row = 0
        draw = DRAW_NOISE
        for term in terms:
            times = 4 if term.of_a_leg else self.values["scan_points"] if term.of_a_point else 1
            count = term.columns // times
            if term.of_a_leg and term.columns % 4:
                raise ConfigError(f"{term.where}: expected columns of four legs, a multiple of 4, got {term.columns}")
            if term.noise and term.noise not in self.values:
                known = [name for name in self.values if name.startswith("noise_")]
                raise ConfigError(
                    f"{term.where}: unknown noise {term.noise!r}; "
                    f"{suggest(term.noise, known, 'known: ' + ', '.join(known))}"
                )
            noisy = self.noise and term.noise
            parts = [f"value{k}" for k in range(count)]
            scales = term.scales()
            body = [f"{', '.join(parts)} = {self.called(term)}"]
            first = str(row) if times == 1 else f"{row} + {count} * {EACH[term.of_a_leg]}"
            for k in range(count):
                if noisy and k % 3 == 0:
                    number = f"{draw + k // 3}" + ("" if times == 1 else f" + {-(-count // 3)} * {EACH[term.of_a_leg]}")
                    size = self.setting(term.noise, self.values[term.noise])
                    body.append(f"error = errors3(robot_key(seed, clock, number + lane), {number}, {size})")
                x = f"value{k}"
                x = f"({x} + error[{k % 3}])" if noisy else x
                scale = "" if scales[k] == 1.0 else f"real({float(scales[k])!r}) * "
                body.append(f"out[({first} + {k}) * LANES + lane] = real({scale}{x})")
            bodies.append((term, body))
            row += term.columns
            draw += times * -(-count // 3)
        return self.loops(bodies)

    def rewards(self) -> list[str]:
        """Return the loops of the rewards' terms, weighted."""
        weights = []
        zeros = []
        bodies = []
        for k, term in enumerate(self.terms.rewards):
            weight = self.setting(f"reward_{term.name}", 0.0)
            weights.append(f"weight{k} = {weight}" + ("" if term.once else f" * settings[{self.settings['ctrl_dt']}]"))
            target = f"terms[{k} * LANES + lane]"
            zeros += [f"    {target} = real(0.0)"] if term.of_a_leg else []
            bodies.append((term, [f"{target} {'+=' if term.of_a_leg else '='} real(weight{k} * {self.called(term)})"]))
        zeros = ["for lane in range(LANES):", *zeros] if zeros else []
        return [*weights, *zeros, *self.loops(bodies)]

    def events(self) -> list[str]:
        """Return the loops of what happens before the physics; first what counts down does so."""
        timers = dict.fromkeys(term.due for term in self.terms.every() if isinstance(term, Update) and term.due)
        lines = [
            f"    task[{self.rows[name][0]} * LANES + lane] -= settings[{self.settings['ctrl_dt']}]"
            for name in timers
            if name in self.rows
        ]
        return [*(["for lane in range(LANES):", *lines] if lines else []), *self.updates(self.terms.events)]

    def total(self) -> list[str]:
        """Return the loop that adds the terms up, 0 where a state is not finite; sums are of robots that there are."""
        floor = self.setting("reward_floor", 0.0)
        lines = ["for lane in range(LANES):", "    total = real(0.0)", "    more = real(0.0)"]
        lines += [
            f"    finite = extra[{M.finite} * LANES + lane] > real(0.0)",
            "    counts = real(1.0) if lane < count else real(0.0)",
        ]
        for k, term in enumerate(self.terms.rewards):
            target, x = ("total", "x if finite else real(0.0)") if term.floored else ("more", "x")
            lines += [f"    x = terms[{k} * LANES + lane]", f"    x = {x}", f"    terms[{k} * LANES + lane] = x"]
            lines += [f"    sums[{k} * LANES + lane] += counts * x", f"    {target} += x"]
        return [
            *lines,
            f"    extra[{M.total} * LANES + lane] = (max(total, real(0.0)) if {floor} > real(0.0) else total) + more",
        ]

    def terminate(self) -> list[str]:
        """Return the loops that find which episodes ended, and count how."""
        oldest = f"settings[{self.settings['max_episode_steps']}]"
        lines = [
            "for lane in range(LANES):",
            f"    age = task[{K.age} * LANES + lane] + real(1.0)",
            f"    task[{K.age} * LANES + lane] = age",
            f"    over = (age >= {oldest}) | (task[{K.over} * LANES + lane] > real(0.0))",
            f"    extra[{M.ended} * LANES + lane] = real(1.0) if over else real(0.0)",
        ]
        target = f"extra[{M.ended} * LANES + lane]"
        bodies = []
        for k, term in reversed([*enumerate(self.terms.terminations)]):  # the first that holds has the last word
            bodies.append((term, [f"{target} = real({k + 2}.0) if ({self.called(term)}) & True else {target}"]))
        loops: list[str] = []
        for of_a_leg, group in itertools.groupby(bodies, lambda body: body[0].of_a_leg):
            # one of a leg holds where it does for any: a loop of its own keeps their order
            loops += self.loops(group) if not of_a_leg else [line for body in [*group] for line in self.loops([body])]
        lines += [
            *loops,
            "for lane in range(LANES):",
            f"    ended = {target} if lane < count else real(0.0)",
        ]
        counts = range(len(self.terms.terminations) + 1)
        return [
            *lines,
            *(f"    ends[{k} * LANES + lane] += real(1.0) if ended == real({k + 1}.0) else real(0.0)" for k in counts),
        ]

    def begin(self) -> list[str]:
        """Return the loops that give episodes what they begin with."""
        now = f"extra[{M.ended} * LANES + lane] > real(0.0)"
        lines = ["for lane in range(LANES):", f"    now = {now}"]
        for f in (*KEPT, *self.terms.kept):
            for k in range(f.size if f.reset is not None else 0):
                x = f"task[{self.rows[f.name][0] + k} * LANES + lane]"
                lines.append(f"    {x} = real({f.reset!r}) if now else {x}")
        return [*lines, *self.updates(self.terms.randomisations, now)]

    def metrics(self) -> list[str]:
        """Return the loops of the metrics."""
        metrics = self.terms.all_metrics
        lines = [
            "for lane in range(count):",
            f"    for k in range({len(metrics)}):",
            "        out[first + lane, k] = real(0.0)",
        ]
        return lines + self.loops(
            (t, [f"if lane < count: out[first + lane, {k}] += real({self.called(t)})"]) for k, t in enumerate(metrics)
        )

    def compose(self) -> Composed:
        """Write the stages' modules, as far as they are new, and import them."""
        t = self.terms
        write = {
            "events": self.events,
            "terminate": self.terminate,
            "begin": self.begin,
            "renew": lambda: self.updates(t.all_renewals),
            "observe": lambda: self.observe((*t.columns, *t.privileged)),
            "reward": lambda: [*self.rewards(), *self.total()],
            "metrics": self.metrics,
        }
        stages = {}
        for name, more in STAGES.items():
            self.imports = {}
            lines = write[name]() or ["pass"]
            signature = ", ".join(("task", "work", "extra", "settings", "model", *more))
            text = "\n".join([f"@stage\ndef {name}({signature}):", *("    " + line for line in lines), ""])
            stages[name] = getattr(module(name, f"{HEAD}\n{text}", self.imports), name)
            self.stage_terms[name] = [
                term for term in t.every() if any(f is term.function for f in self.imports.values())
            ]
        return Composed(
            self.blame,
            stages,
            dict(self.settings),
            self.rows,
            self.terms_row,
            K.size,
            self.task_rows,
            self.sums_row,
            self.ends_row,
            self.out_row,
            self.work_rows,
        )

    def size(self, name: str, term: Term) -> int:
        """Return how many numbers a parameter of a term is."""
        if name in term.function.options:
            value = self.options[term.section].get(name, term.function.options[name])
        elif name in DERIVED:
            return DERIVED[name].size
        elif name in self.fields:
            return self.fields[name][2]
        elif field := self.physics.get(name) or self.legs.get(name):
            return field.size
        else:
            value = self.values[name]
        return len(value) if isinstance(value, (tuple, list)) else 1

    def blame(self, stage: str, error: Exception) -> ConfigError:
        """Return what is wrong with the first term of a stage that does not compile, or returns a wrong shape."""
        number = numba.from_dtype(np.dtype(real))
        for term in self.stage_terms[stage]:
            kinds = []
            for name in (*term.function.parameters, *term.function.options):
                count = self.size(name, term)
                kinds.append(
                    numba.uint32 if name == "key" else number if count == 1 else numba.types.UniTuple(number, count)
                )
            try:
                term.function.inline.compile(tuple(kinds))
                given = term.function.inline.overloads[tuple(kinds)].signature.return_type
            except numba.core.errors.NumbaError as wrong:
                return ConfigError(f"{term.where}: {reason(wrong)}")
            if given == numba.types.none:
                return ConfigError(f"{term.where}: returns nothing")
            if isinstance(given, numba.types.Optional):
                return ConfigError(f"{term.where}: returns nothing in some cases")
            if isinstance(term, Termination):
                if given != numba.types.boolean:
                    return ConfigError(f"{term.where}: expected a truth value, such as angle > 0.5, got {given}")
                continue
            expected = [
                self.rows[name][1] if name in self.rows else (self.physics | self.legs)[name].size
                for name in getattr(term, "sets", ())
            ]
            each = 4 if term.of_a_leg else self.values["scan_points"] if term.of_a_point else 1
            count = term.columns // each if isinstance(term, Observation) else 1
            whole = len(expected) > 1 and isinstance(given, numba.types.BaseTuple) and len(given) == len(expected)
            for part, size in zip(given if whole else [given], expected or [count], strict=False):
                got = len(part) if isinstance(part, numba.types.BaseTuple) else 1
                wanted = size if whole or len(expected) < 2 else len(expected)
                if got != wanted:
                    what = f"number{'s' * (wanted > 1)}{' of each leg' * term.of_a_leg}"
                    return ConfigError(f"{term.where}: expected {wanted} {what}, got {got}")
        return ConfigError(f"{stage}: {reason(error)}")
