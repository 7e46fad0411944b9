"""What befalls a quadruped from outside: pushes, goals and the velocities that it is asked for."""

import numpy as np

from environments.quadruped_rows import (
    ARRIVED,
    AT_GOAL,
    COM,
    COMMAND,
    COMMAND_FORWARD,
    COMMAND_IN,
    COMMAND_INTERVAL,
    COMMAND_LEAST,
    COMMAND_LEVEL,
    COMMAND_SIDEWAYS,
    COMMAND_STANDING,
    COMMAND_TURN,
    COMMAND_TURNING,
    CONTROL_DT,
    CRUISE,
    DRAW_COMMAND,
    DRAW_GOAL,
    DRAW_PUSH,
    FEET,
    GAIN,
    GOAL,
    GOAL_DISTANCE,
    GOAL_FACING,
    GOAL_HEIGHT,
    GOAL_HIGH,
    GOAL_IN,
    GOAL_INTERVAL,
    GOAL_LOW,
    GOAL_REACHED,
    GOALS,
    GROUND,
    HEADING,
    HEADING_ERROR,
    MET,
    NEXT_PUSH,
    PURSUIT,
    PUSH,
    PUSH_AGE,
    PUSH_IN,
    PUSH_INTERVAL,
    PUSH_LEVEL,
    PUSH_SPEED,
    PUSH_SPIN,
    STILL_HEADING,
)
from environments.quadruped_senses import to_heading
from physics import constants as C
from physics import layout as L
from physics.jit import LANES, inline, real
from physics.layout import choose3, load3, store3
from physics.random import robot_key, uniform
from physics.spatial import add, atan2, scale, sincos


@inline
def push(task, work, constants, seed, clock, number):
    """Kick the robots whose time has come; number: of the block's first robot."""
    dt, level = constants[CONTROL_DT], constants[PUSH_LEVEL]
    for lane in range(LANES):
        left = task[PUSH_IN * LANES + lane] - dt
        now = real(1.0) if left <= real(0.0) else real(0.0)
        v, w = scale(now * level, load3(task, NEXT_PUSH, lane)), scale(now * level, load3(task, NEXT_PUSH + 3, lane))
        store3(work, L.VELOCITY, lane, add(load3(work, L.VELOCITY, lane), v))
        store3(work, L.SPIN, lane, add(load3(work, L.SPIN, lane), w))
        task[PUSH_IN * LANES + lane] = left
        store3(task, PUSH, lane, add(scale(real(1.0) - now, load3(task, PUSH, lane)), v))
        task[PUSH_AGE * LANES + lane] = (real(1.0) - now) * (task[PUSH_AGE * LANES + lane] + dt)
        draw_push(task, constants, robot_key(seed, clock, number + lane), lane, left <= real(0.0))


@inline
def draw_push(task, constants, key, lane, now):
    """Decide on a robot's next push, and when, if now: ahead of time, so that the critic can know of it."""
    slow, fast, kick = constants[PUSH_SPEED], constants[PUSH_SPEED + 1], constants[PUSH_SPIN]
    soon, late = constants[PUSH_INTERVAL], constants[PUSH_INTERVAL + 1]
    s, c = sincos(uniform(key, DRAW_PUSH, real(0.0), real(6.2831853)))
    speed = uniform(key, DRAW_PUSH + 1, slow, fast)
    w = uniform(key, DRAW_PUSH + 2, -kick, kick), uniform(key, DRAW_PUSH + 3, -kick, kick), uniform(key, DRAW_PUSH + 4, -kick, kick)
    choose3(task, NEXT_PUSH, lane, now, (speed * c, speed * s, real(0.0)))
    choose3(task, NEXT_PUSH + 3, lane, now, w)
    i = PUSH_IN * LANES + lane
    task[i] = uniform(key, DRAW_PUSH + 5, soon, late) if now else task[i]


@inline
def within(start, move, low, high):
    """Return start + move if that lies between low and high, else what is farthest of it and start - move, both kept between them."""
    there = start + move
    kept, other = min(max(there, low), high), min(max(start - move, low), high)
    return kept if (kept == there) | (abs(kept - start) >= abs(other - start)) else other


@inline
def angle_to(work, lane, x, y):
    """Return the angle from the heading to a horizontal vector [rad]."""
    ahead, aside = to_heading(work, lane, x, y)
    return atan2(aside, ahead)


@inline
def new_goals(task, work, extra, constants, base, seed, clock, number):
    """Give the robots that have reached their goal, or whose time has come, a new one about the middle of their feet.

    Where they are to stand at their goals, facing as asked, only time brings a new one.
    """
    dt, near, far, span = constants[CONTROL_DT], constants[GOAL_DISTANCE], constants[GOAL_DISTANCE + 1], constants[GOAL_HEIGHT]
    soon, late, reached = constants[GOAL_INTERVAL], constants[GOAL_INTERVAL + 1], constants[GOAL_REACHED]
    passing, facing = constants[PURSUIT] < real(2.0), constants[GOAL_FACING]
    low_x, low_y, high_x, high_y = constants[GOAL_LOW], constants[GOAL_LOW + 1], constants[GOAL_HIGH], constants[GOAL_HIGH + 1]
    for lane in range(LANES):
        key = robot_key(seed, clock, number + lane)
        p, com, old = load3(work, L.POSITION, lane), load3(task, COM, lane), load3(task, GOAL, lane)
        left = task[GOAL_IN * LANES + lane] - dt
        ahead, aside = old[0] - com[0], old[1] - com[1]
        # the goal of an episode that has just begun is the last one's, and its time is up
        there = (ahead * ahead + aside * aside < reached * reached) & (left > real(0.0))
        face_x, face_y = task[HEADING * LANES + lane], task[(HEADING + 1) * LANES + lane]
        there = there & ((abs(angle_to(work, lane, face_x, face_y)) < facing) | passing)
        met = task[MET * LANES + lane] > real(0.0)
        arrived = there & (passing | (not met))
        now = (left <= real(0.0)) | (arrived & passing)
        s, c = sincos(uniform(key, DRAW_GOAL, real(0.0), real(6.2831853)))
        distance = near + (far - near) * np.sqrt(uniform(key, DRAW_GOAL + 1, real(0.0), real(1.0)))
        from_x, from_y = work[L.ORIGIN * LANES + lane], work[(L.ORIGIN + 1) * LANES + lane]
        x = within(p[0] + extra[FEET * LANES + lane], distance * c, low_x - from_x, high_x - from_x)
        y = within(p[1] + extra[(FEET + 1) * LANES + lane], distance * s, low_y - from_y, high_y - from_y)
        # the centre of mass of the home pose lies as much below the base origin as it does now, nearly
        height = p[2] - extra[GROUND * LANES + lane]
        z = base[C.HOME_HEIGHT] + com[2] - height + uniform(key, DRAW_GOAL + 2, -span, span)
        store3(task, GOAL, lane, (x if now else old[0], y if now else old[1], z if now else old[2]))
        face_s, face_c = sincos(uniform(key, DRAW_GOAL + 4, real(-3.1415927), real(3.1415927)))
        face_x, face_y = face_c if now else face_x, face_s if now else face_y
        task[HEADING * LANES + lane] = face_x
        task[(HEADING + 1) * LANES + lane] = face_y
        task[HEADING_ERROR * LANES + lane] = angle_to(work, lane, face_x, face_y)
        task[AT_GOAL * LANES + lane] = real(1.0) if there & (not now) else real(0.0)
        task[MET * LANES + lane] = real(1.0) if (met | arrived) & (not now) else real(0.0)
        task[GOAL_IN * LANES + lane] = uniform(key, DRAW_GOAL + 3, soon, late) if now else left
        task[ARRIVED * LANES + lane] = real(1.0) if arrived else real(0.0)
        task[GOALS * LANES + lane] += real(1.0) if arrived else real(0.0)


@inline
def new_commands(task, work, constants, seed, clock, number):
    """Give the robots whose time has come a new velocity, or, where commands lead to goals, every robot one towards its own."""
    dt, level, least = constants[CONTROL_DT], constants[COMMAND_LEVEL], constants[COMMAND_LEAST]
    back, forth, right, left = constants[COMMAND_FORWARD], constants[COMMAND_FORWARD + 1], constants[COMMAND_SIDEWAYS], constants[COMMAND_SIDEWAYS + 1]
    clockwise, counter = constants[COMMAND_TURN], constants[COMMAND_TURN + 1]
    soon, late = constants[COMMAND_INTERVAL], constants[COMMAND_INTERVAL + 1]
    standing, turning = constants[COMMAND_STANDING], constants[COMMAND_STANDING] + constants[COMMAND_TURNING]
    facing, reached, still = constants[PURSUIT] == real(2.0), constants[GOAL_REACHED], constants[STILL_HEADING]
    pursuit, cruise, gain = constants[PURSUIT] > real(0.0), constants[COMMAND_LEVEL] * constants[CRUISE], constants[GAIN]
    zero = real(0.0)
    for lane in range(LANES):
        key = robot_key(seed, clock, number + lane)
        wait, old = task[COMMAND_IN * LANES + lane] - dt, load3(task, COMMAND, lane)
        now = wait <= zero
        kind = uniform(key, DRAW_COMMAND, zero, real(1.0))
        vx, vy = level * uniform(key, DRAW_COMMAND + 1, back, forth), level * uniform(key, DRAW_COMMAND + 2, right, left)
        turn = level * uniform(key, DRAW_COMMAND + 3, clockwise, counter)
        moves, turns = (kind >= turning) & (vx * vx + vy * vy >= least * least), (kind >= standing) & (abs(turn) >= least)
        drawn = vx if moves else zero, vy if moves else zero, turn if turns else zero
        # towards the goal, facing it
        goal, com = load3(task, GOAL, lane), load3(task, COM, lane)
        ahead, aside = to_heading(work, lane, goal[0] - com[0], goal[1] - com[1])
        distance = np.sqrt(ahead * ahead + aside * aside + real(1e-12))
        pace = min(cruise, gain * distance) / distance
        bearing = atan2(aside, ahead)
        if facing:  # a robot that has arrived is to stand
            pace = pace if distance > real(0.5) * reached else zero
            error = task[HEADING_ERROR * LANES + lane]
            bearing = error if abs(error) > still else zero
        spin = min(max(gain * bearing, level * clockwise), level * counter)
        x, y, w = drawn[0] if now else old[0], drawn[1] if now else old[1], drawn[2] if now else old[2]
        store3(task, COMMAND, lane, (pace * ahead if pursuit else x, pace * aside if pursuit else y, spin if pursuit else w))
        task[COMMAND_IN * LANES + lane] = uniform(key, DRAW_COMMAND + 4, soon, late) if now else wait
