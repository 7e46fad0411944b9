"""Joint by joint, what a policy follows and what its robot does: python -m motion.plot --checkpoint PATH."""

import argparse
import pathlib
import sys

# before torch, which reads how its threads should wait when it is imported
from environments import registry  # isort: skip
import numpy as np
import torch

from environments.quadruped import QuadrupedEnv
from settings import ConfigError
from training import checkpoint, runs
from training.files import reason, require_file

JOINTS = "hip", "thigh", "calf"
LEGS = "front left", "front right", "rear left", "rear right"


def follow(path: pathlib.Path, seconds: float, seed: int, simulator: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times (T) [s] and joint angles (T, 12) [rad] of the motion and of the robot that follows it.

    Raises ConfigError, naming the file, for a policy that follows none.
    """
    loaded = checkpoint.load(path)
    env = registry.make(loaded.config.task, simulator, cfg=loaded.config.env)
    if not isinstance(env, QuadrupedEnv) or not env.terms.follows:
        raise ConfigError(f"{path}: expected a policy of a task that follows a motion, got {loaded.config.task}")
    creature = loaded.creature(env).eval()
    state = env.init_state(seed)
    memory = creature.initial_state(1)
    shown = []
    for _ in range(round(seconds / env.cfg.ctrl_dt)):
        with torch.no_grad():
            action, _, memory = creature.act(torch.from_numpy(state.obs), memory)
        state = env.step(action.numpy())
        if state.done[0]:
            memory = creature.initial_state(1)
        shown.append((env.field("reference_joint")[0], env.engine.get_state().joint_position[0]))
    reference, robot = (np.array(x) for x in zip(*shown, strict=True))
    return env.cfg.ctrl_dt * np.arange(1, len(shown) + 1), reference, robot


def draw(path: pathlib.Path, times: np.ndarray, reference: np.ndarray, robot: np.ndarray) -> None:
    """Write a picture of twelve plots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(4, 3, sharex=True, sharey="col", figsize=(12, 9), layout="constrained")
    for number, axis in enumerate(axes.flat):
        leg, joint = divmod(number, 3)
        axis.plot(times, reference[:, number], color="tab:blue", linewidth=3.0, alpha=0.4, label="motion")
        axis.plot(times, robot[:, number], color="0.15", linewidth=1.0, label="robot")
        error = float(np.abs(robot[:, number] - reference[:, number]).mean())
        axis.set_title(f"{LEGS[leg]} {JOINTS[joint]}, {error:.3f} rad off", fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel("angle [rad]")
    for axis in axes[-1]:
        axis.set(xlabel="time [s]", xlim=(0.0, times[-1]))
    axes[0, 0].legend(frameon=False, ncols=2, loc="upper right", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Run, draw and say how near it came; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, prog="motion.plot", allow_abbrev=False)
    parser.add_argument("--checkpoint", default="quadruped-track", metavar="PATH", help="file, run, or task")
    parser.add_argument("--out", default="joints.png", metavar="FILE", help="picture to write")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long to follow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--simulator", default="numba", choices=("numba", "mujoco"), help="what moves the robot")
    args = parser.parse_args(arguments)
    path = pathlib.Path(args.out)
    torch.set_num_threads(1)
    try:
        if not 0.1 <= args.seconds <= 3600:
            raise ConfigError(f"--seconds: expected between 0.1 and 3600, got {args.seconds:g}")
        require_file(path, "--out")
        times, reference, robot = follow(runs.policy(args.checkpoint), args.seconds, args.seed, args.simulator)
        draw(path, times, reference, robot)
    except ConfigError as error:
        print(f"motion.plot: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"motion.plot: {path}: {reason(error)}", file=sys.stderr)
        return 2
    print(f"{float(np.abs(robot - reference).mean()):.4f} rad off in the mean over joints and time; {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
