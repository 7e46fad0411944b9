"""Parts of the quadruped's control step that can be left out, to see what they cost.

A control step calls its stages by their addresses: those of stages that do nothing leave them out. In a leg's
equations motors, contacts and dynamics are one straight line, which no clock can divide; so the physics is compiled
from the same source in four ways, functions that a part consists of being replaced by what returns zeros: the
compiler drops what is then computed for nobody. Of it remain the last products with these zeros, since a product with
0 need not be 0. They count as dynamics.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

from environments import ABEnv
from environments.quadruped.env import STAGES
from environments.quadruped.fields import M
from physics.jit import LANES, inline, real, stage
from physics.simulation_step import add_to_leg, calf_contact, leg_inward, substep


def replaced(function: Callable, **others: Callable) -> Callable:
    """Return a compiled function from the same source as another, but calling others in place of those of their names.

    Raises ValueError if it does not call one of them.
    """
    source = function.py_func
    if unknown := others.keys() - set(source.__code__.co_names):
        raise ValueError(
            f"{source.__name__}: expected names of functions that it calls, got {', '.join(sorted(unknown))}"
        )
    return inline(types.FunctionType(source.__code__, source.__globals__ | others, source.__name__))


@inline
def nothing(*_):
    """Do nothing."""


@inline
def no_torque(*_):
    """Return no torque, no coefficient and nothing needed."""
    return real(0.0), real(0.0), real(0.0)


@inline
def no_vector(*_):
    """Return the zero vector (3)."""
    return real(0.0), real(0.0), real(0.0)


@inline
def no_force(*_):
    """Return no force (3) and no matrix."""
    return (real(0.0), real(0.0), real(0.0)), real(0.0), real(0.0)


@inline
def unchanged(first, *_):
    """Return the first argument."""
    return first


_MOTORS = {"joint_torque": no_torque}
_TOUCH = {"contact_force": no_force, "implicit_force": no_vector, "lowered": unchanged}
_FEEL = {"push_column": unchanged}
_FEET = {
    **_TOUCH, **_FEEL, "add_contact": nothing, "store_normal": nothing,
    "calf_contact": replaced(calf_contact, **_TOUCH), "add_to_leg": replaced(add_to_leg, **_FEEL),
}  # fmt: skip
_GROUND = {"leg_ground": nothing, "trunk_contact": nothing}
idle = replaced(substep, leg_inward=replaced(leg_inward, **_MOTORS), rest_motors=nothing)
airborne = replaced(substep, leg_inward=replaced(leg_inward, **_FEET), **_GROUND)
dynamics = replaced(substep, leg_inward=replaced(leg_inward, **_MOTORS, **_FEET), rest_motors=nothing, **_GROUND)


@stage
def idle_advance(work, model, substeps):
    """Advance without actuators."""
    for s in range(substeps):
        idle(work, model, s == substeps - 1)


@stage
def airborne_advance(work, model, substeps):
    """Advance without contacts."""
    for _ in range(substeps):
        airborne(work, model, False)


@stage
def dynamics_advance(work, model, substeps):
    """Advance without either."""
    for _ in range(substeps):
        dynamics(work, model, False)


@stage
def go_on(task, work, extra, settings, model, ends, count):
    """Let no episode end."""
    for lane in range(LANES):
        extra[M.ended * LANES + lane] = real(0.0)


PHYSICS = {"idle": idle_advance, "airborne": airborne_advance, "dynamics": dynamics_advance}


@functools.cache
def skipped(function: Any) -> Any:
    """Return a stage that is called as another one is, and does nothing."""
    code = function.py_func.__code__
    space: dict[str, Any] = {}
    exec(f"def skip({', '.join(code.co_varnames[: code.co_argcount])}): pass", space)
    return inline(space["skip"])


def variants(env: ABEnv) -> dict[str, dict[str, int]]:
    """Return addresses of what may stand in for each stage of an environment, by stage: "none" of what does nothing."""
    made = {name: {"none": env.stage_address(skipped(function))} for name, function in env.stage_functions.items()}
    made["terminate"]["none"] = env.stage_address(go_on)
    made["advance"] |= {name: env.stage_address(function) for name, function in PHYSICS.items()}
    return made


def only(env: ABEnv, made: dict[str, dict[str, int]], *names: str, physics: str = "") -> tuple[int, ...]:
    """Return addresses for a control step of some stages alone; physics: one of PHYSICS in place of the whole."""
    addresses = dict(zip(STAGES, env.addresses, strict=True))
    kept = {name: addresses[name] if name in names else made[name]["none"] for name in STAGES}
    return tuple((kept | {"advance": made["advance"][physics]} if physics else kept).values())
