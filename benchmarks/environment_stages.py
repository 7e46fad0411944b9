# ruff: noqa: ANN001, ANN002, ANN201 (compiled functions: scalars and tuples, whose types Numba infers)
"""The quadruped's control step in stages that can be timed: the same functions, but the step can begin and stop anywhere.

stages() is control_step() without physics, which physics() is; between them a block goes back to
the state, which costs one copying more than in one piece. In a leg's equations motors, contacts and
dynamics are one straight line, which no clock can divide; so physics() is compiled from the same source in
four ways, functions that a part consists of being replaced by what returns zeros: the compiler
drops what is then computed for nobody. Of it remain the last products with these zeros, since a
product with 0 need not be 0. They count as dynamics.
"""

import types
from collections.abc import Callable

from environments.quadruped_commands import new_commands, new_goals, push
from environments.quadruped_rewards import feel_ground, reward
from environments.quadruped_rows import AGE, ENDED, RETURN, TOTAL
from environments.quadruped_senses import emit, measure, observe
from environments.quadruped_step import command, end, restart, stand_on_ground, stay_in_cell
from physics import layout as L
from physics.jit import LANES, inline, kernel, real
from physics.simulation_step import leg_inward, substep

COMMAND, MEASURE, REWARD, RESET, GOALS, OBSERVE = 0, 1, 2, 3, 4, 5  # stages, in order; physics comes after the first
WHOLE, IDLE, AIRBORNE, DYNAMICS = 0, 1, 2, 3  # physics with all its parts, without actuators, without contacts, without either


def replaced(function: Callable, **others: Callable) -> Callable:
    """Return a compiled function from the same source as another, but calling others in place of those of their names.

    Raises ValueError if it does not call one of them.
    """
    source = function.py_func
    if unknown := others.keys() - set(source.__code__.co_names):
        raise ValueError(f"{source.__name__}: expected names of functions that it calls, got {', '.join(sorted(unknown))}")
    return inline(types.FunctionType(source.__code__, source.__globals__ | others, source.__name__))


@inline
def nothing(*_):
    """Do nothing."""


@inline
def no_torque(*_):
    """Return no torque and no coefficient."""
    return real(0.0), real(0.0)


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
_FEET = {
    "contact_force": no_force, "implicit_force": no_vector, "add_contact": nothing,
    "store_normal": nothing, "lowered": unchanged, "push_column": unchanged,
}  # fmt: skip
_GROUND = {"leg_ground": nothing, "trunk_contact": nothing}
idle = replaced(substep, leg_inward=replaced(leg_inward, **_MOTORS), rest_motors=nothing)
airborne = replaced(substep, leg_inward=replaced(leg_inward, **_FEET), **_GROUND)
dynamics = replaced(substep, leg_inward=replaced(leg_inward, **_MOTORS, **_FEET), rest_motors=nothing, **_GROUND)


@kernel
def physics(blocks, start, stop, work, model, parts, substeps):
    """Advance the robots of blocks[start:stop] by time steps with some of the parts of physics; with 0 of them, copy only."""
    for b in range(start, stop):
        L.enter(blocks, model, b, work)
        for s in range(substeps):
            if parts == WHOLE:
                substep(work, model, s == substeps - 1)
            elif parts == IDLE:
                idle(work, model, s == substeps - 1)
            elif parts == AIRBORNE:
                airborne(work, model, False)
            else:
                dynamics(work, model, False)
        L.leave(work, blocks, model, b)


@kernel
def stages(
    blocks, start, stop, work, model, begin, until, leave, constants, ranges, noise, seed, clock, first_robot, substeps, staggered, actions,
    obs, privileged, final_obs, final_privileged, rewards_out, terminated, truncated, episode_return, episode_steps,
):  # fmt: skip
    """Take the robots of blocks[start:stop] through the stages from begin to before until; leave: write the state back; else as control_step()."""
    extra = work[L.WORK_ROWS * LANES :]
    for b in range(start, stop):
        task = blocks[b][L.STATE_ROWS * LANES :]
        first = b * LANES
        number = first_robot + first
        count = min(LANES, len(actions) - first)
        any_ended = False
        L.enter(blocks, model, b, work)
        if begin <= COMMAND < until:
            command(task, work, constants, model, actions, first, count)
            push(task, work, constants, seed, clock, number)
        if begin <= MEASURE < until:
            stay_in_cell(task, work)
            feel_ground(task, work, constants)
            measure(task, work, extra, model)
        if begin <= REWARD < until:
            reward(task, work, extra, constants, model.base)
            end(task, work, extra, constants, model.base)
            for lane in range(count):
                ended = extra[ENDED * LANES + lane]
                any_ended |= ended > real(0.0)
                rewards_out[first + lane] = extra[TOTAL * LANES + lane]
                terminated[first + lane] = ended == real(1.0)
                truncated[first + lane] = ended == real(2.0)
                episode_return[first + lane] = task[RETURN * LANES + lane]
                episode_steps[first + lane] = task[AGE * LANES + lane]
        if (begin <= RESET < until) & any_ended:
            observe(task, work, extra, constants, model, noise, seed, clock, number)
            for lane in range(count):
                if extra[ENDED * LANES + lane] > real(0.0):
                    emit(extra, first + lane, lane, final_obs, final_privileged)
            restart(task, work, extra, constants, model, ranges, noise, seed, clock, number, staggered)
            measure(task, work, extra, model)
            stand_on_ground(task, work, extra)
        if begin <= GOALS < until:
            new_goals(task, work, extra, constants, model.base, seed, clock, number)
            new_commands(task, work, constants, seed, clock, number)
        if begin <= OBSERVE < until:
            observe(task, work, extra, constants, model, noise, seed, clock, number)
            for lane in range(count):
                emit(extra, first + lane, lane, obs, privileged)
        if leave:
            L.leave(work, blocks, model, b)
            if any_ended:
                L.varied_out(work, model.varied_blocks, b)
