"""Motors and joints: a torque command or a PD law, what a motor makes of it, and what a joint does by itself."""

import numpy as np

from physics import constants as C
from physics import layout as L
from physics.jit import LANES, inline, kernel, real
from physics.layout import vary


@inline
def motor_torque(target, feedforward, q, qd, kp, kd, low, high):
    """Return the torque of a motor [N m]: kp (target - q) - kd qd + feedforward, within low and high."""
    torque = kp * (target - q) - kd * qd + feedforward
    return min(max(torque, low), high)


@inline
def speed_limit(limit, qd, no_load_speed, per_span):
    """Return the lowest and highest torque of a motor at a speed [N m].

    In the direction of motion the limit falls in a line from its whole, at the rated speed, to 0 at
    the no-load speed [rad/s], as in a DC motor at its voltage; against it, it stays whole. per_span:
    one over the difference of these speeds [s/rad].
    """
    zero = real(0.0)
    one = real(1.0)
    back = min(max((no_load_speed + qd) * per_span, zero), one)
    ahead = min(max((no_load_speed - qd) * per_span, zero), one)
    return -limit * back, limit * ahead


@inline
def joint_resistance(qd, damping, friction, friction_speed):
    """Return the coefficient c of the torque -c qd that damping and dry friction exert [N m s/rad].

    Dry friction is friction * qd / sqrt(qd^2 + vs^2): Coulomb's law, rounded off below the speed vs.
    """
    return damping + friction / np.sqrt(qd * qd + friction_speed * friction_speed)


@inline
def limit_torque(q, qd, low, high, stiffness, damping, dt):
    """Return the torque of a joint's end stop and its implicit coefficient [N m], [N m s/rad].

    A spring of the given stiffness [N m/rad] with a damper [N m s/rad] outside of [low, high]
    [rad]; the coefficient d + k dt makes it linearly implicit, as the contact is.
    """
    beyond = min(q - low, real(0.0)) + max(q - high, real(0.0))
    c = damping + stiffness * dt if beyond != real(0.0) else real(0.0)
    return -stiffness * beyond - c * qd, c


@inline
def drive_constants(world, motors):
    """Return what joint_torque() needs of the world and the motors, as scalars."""
    stops = world[C.FRICTION_SPEED], world[C.LIMIT_STIFFNESS], world[C.LIMIT_DAMPING], world[C.TIMESTEP]
    if motors is None:
        zero = real(0.0)
        return stops, (zero, zero, zero, zero, zero, zero, zero)
    speeds = motors[C.NO_LOAD_SPEED], motors[C.PER_SPAN]
    return (
        stops,
        (motors[C.LAG], motors[C.DELAY], *speeds, motors[C.DRAIN], motors[C.STAMINA], motors[C.TIRED_STRENGTH]),
    )


@inline
def own_gains(varied, work, lane, kp, kd):
    """Return the gains of a robot's PD law, its own where robots differ."""
    one = real(1.0)
    return kp * vary(varied, work, L.VARIED_BASE + L.V_KP, lane, one), kd * vary(
        varied, work, L.VARIED_BASE + L.V_KD, lane, one
    )


@inline
def joint_torque(
    motor_blocks, varied, joints_differ, work, rows, lane, joint, q, qd, drive, gains, limits, damping, friction
):
    """Return the torque on a joint [N m], its implicit coefficient [N m s/rad] and what its motor needs [kg m^2].

    The last is the inertia at which the motor's PD law is at the limit of stability: kd dt / 2 + kp dt^2 / 4.

    drive: drive_constants(); gains: kp [N m/rad], kd [N m s/rad]; limits: torque [N m], lowest, highest angle [rad].
    """
    (friction_speed, limit_stiffness, limit_damping, dt), _ = drive
    limit, low, high = limits
    kp, kd = own_gains(varied, work, lane, gains[0], gains[1])
    limit = vary(varied, rows, L.VARIED_LEG + L.V_TORQUE_LIMIT + joint, lane, limit)
    measured = q + vary(varied, rows, L.VARIED_LEG + L.V_OFFSET + joint, lane, real(0.0))
    torque, obeys = driven(motor_blocks, varied, work, rows, lane, joint, measured, qd, kp, kd, limit, drive)
    stop, stop_c = limit_torque(q, qd, low, high, limit_stiffness, limit_damping, dt)
    damping = vary(joints_differ, rows, L.VARIED_LEG + L.V_DAMPING + joint, lane, damping)
    friction = vary(joints_differ, rows, L.VARIED_LEG + L.V_FRICTION + joint, lane, friction)
    c = joint_resistance(qd, damping, friction, friction_speed)
    return torque - c * qd + stop, c + stop_c, obeys * dt * (real(0.5) * kd + real(0.25) * dt * kp)


@inline
def driven(motor_blocks, varied, work, rows, lane, joint, q, qd, kp, kd, limit, drive):
    """Return the torque of a motor [N m] and which share of the PD law it obeys, and keep state and account of it."""
    target, command = rows[(L.TARGET + joint) * LANES + lane], rows[(L.TORQUE + joint) * LANES + lane]
    if motor_blocks is None:
        torque = motor_torque(target, command, q, qd, kp, kd, -limit, limit)
        return torque, real(1.0) if abs(torque) < limit else real(0.0)
    (_, _, _, dt), (lag, delay, no_load_speed, per_span, drain, stamina, tired_strength) = drive
    arrived = command_arrived(varied, work, lane, delay)
    last_target, last_command = (
        rows[(L.MOTORS_LEG + L.LAST_TARGET + joint) * LANES + lane],
        rows[(L.MOTORS_LEG + L.LAST_TORQUE + joint) * LANES + lane],
    )
    target, command = target if arrived else last_target, command if arrived else last_command
    limit = limit * tired_strength if work[(L.MOTORS_BASE + L.FATIGUE) * LANES + lane] >= stamina else limit
    low, high = speed_limit(limit, qd, no_load_speed, per_span)
    wanted = motor_torque(target, command, q, qd, kp, kd, low, high)
    i = (L.MOTORS_LEG + L.MOTOR + joint) * LANES + lane
    torque = rows[i] + lag * (wanted - rows[i])
    rows[i] = torque
    work[L.DRAWN * LANES + lane] += dt * drain * abs(torque * qd)
    return torque, lag if (wanted > low) & (wanted < high) else real(0.0)


@inline
def command_arrived(varied, work, lane, delay):
    """Return whether the latest command has reached the motors."""
    delay = vary(varied, work, L.VARIED_BASE + L.V_DELAY, lane, delay)
    # a thousandth of a step's grace for the rounding of a sum of steps
    return work[(L.MOTORS_BASE + L.COMMAND_AGE) * LANES + lane] >= delay - real(1e-6)


@inline
def rest_motors(motors, work, dt):
    """End a time step: the latest command ages, what was drawn is booked, stamina comes back."""
    if motors is not None:
        stamina, recovered = motors[C.STAMINA], motors[C.RECOVERY] * dt
        for lane in range(LANES):
            work[(L.MOTORS_BASE + L.COMMAND_AGE) * LANES + lane] += dt
            i = (L.MOTORS_BASE + L.FATIGUE) * LANES + lane
            drawn = work[L.DRAWN * LANES + lane]
            work[(L.MOTORS_BASE + L.ENERGY) * LANES + lane] += drawn
            # here, not motor by motor: all legs tire at once
            work[i] = min(max(real(0.0), work[i] + drawn - recovered), stamina)
            work[L.DRAWN * LANES + lane] = real(0.0)


@inline
def keep_command(motor_blocks, varied, work, delay):
    """Make the command that motors obey now the one before the latest, which is about to be set."""
    if motor_blocks is not None:
        for leg in range(4):
            rows = L.leg_rows(work, leg)
            for lane in range(LANES):
                arrived = command_arrived(varied, work, lane, delay)
                for joint in range(3):
                    i, j = (
                        (L.MOTORS_LEG + L.LAST_TORQUE + joint) * LANES + lane,
                        (L.MOTORS_LEG + L.LAST_TARGET + joint) * LANES + lane,
                    )
                    torque, target = rows[(L.TORQUE + joint) * LANES + lane], rows[(L.TARGET + joint) * LANES + lane]
                    last_torque, last_target = rows[i], rows[j]
                    rows[i], rows[j] = torque if arrived else last_torque, target if arrived else last_target
        for lane in range(LANES):
            work[(L.MOTORS_BASE + L.COMMAND_AGE) * LANES + lane] = real(0.0)


@kernel
def command_step(blocks, start, stop, work, model):
    """Let the motors of blocks[start:stop] go on with what they obey until a command about to be set arrives."""
    for b in range(start, stop):
        L.enter(blocks, model, b, work)
        keep_command(model.motor_blocks, model.varied_blocks, work, model.motors[C.DELAY])
        L.motors_out(work, model.motor_blocks, b)
