"""What befalls a robot: pushes, and the biases of its sensors."""

from environments.quadruped.terms import event, randomisation, renewal
from physics.random import uniform
from physics.spatial import sincos


@event(sets=("base_velocity", "base_spin", "push", "push_age"))
def pushes(base_velocity, base_spin, push_in, push, push_age, next_push, next_kick, push_level, ctrl_dt):
    """A sudden change of the base's velocity, as from a shove, when its time has come."""
    now = push_in <= 0.0
    times, keep = push_level if now else 0.0, 0.0 if now else 1.0
    vx, vy, vz = times * next_push[0], times * next_push[1], times * next_push[2]
    velocity = base_velocity[0] + vx, base_velocity[1] + vy, base_velocity[2] + vz
    spin = base_spin[0] + times * next_kick[0], base_spin[1] + times * next_kick[1], base_spin[2] + times * next_kick[2]
    return velocity, spin, (keep * push[0] + vx, keep * push[1] + vy, keep * push[2] + vz), keep * (push_age + ctrl_dt)


@renewal(sets=("next_push", "next_kick", "push_in"), due="push_in")
def draw_push(key, push_speed, push_spin, push_interval, push_rate):
    """Decide on the next push once the last is over: ahead of time, so that the critic can know of it."""
    s, c = sincos(uniform(key, 0, 0.0, 6.2831853))
    speed = uniform(key, 1, push_speed[0], push_speed[1])
    kick = (
        uniform(key, 2, -push_spin, push_spin),
        uniform(key, 3, -push_spin, push_spin),
        uniform(key, 4, -push_spin, push_spin),
    )
    return (speed * c, speed * s, 0.0), kick, uniform(key, 5, push_interval[0], push_interval[1]) / push_rate


@randomisation(sets=("spin_bias", "gravity_bias"))
def sensor_biases(key, noise_spin_bias, noise_gravity_bias):
    """Biases of the sensors of angular velocity and of gravity's direction, of an episode."""
    s, g = noise_spin_bias, noise_gravity_bias
    spin = uniform(key, 0, -s, s), uniform(key, 1, -s, s), uniform(key, 2, -s, s)
    return spin, (uniform(key, 3, -g, g), uniform(key, 4, -g, g), uniform(key, 5, -g, g))
