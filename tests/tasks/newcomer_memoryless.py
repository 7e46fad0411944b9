"""Walking by a policy without memory."""

from environments.quadruped import task

task("walk-memoryless", "quadruped-walk-flat", "walk without memory", training={"network.recurrent": False})
