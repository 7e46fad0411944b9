"""A policy for a robot or another program: ONNX, TorchScript and what a deployment must know beside it.

Joints are in the order of the robot's own file and turn as they do there, so that nothing has to be mapped but by name.
"""

import importlib.metadata
import json
import os
import pathlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from entity import Creature
from environments import ABEnv
from environments.quadruped import QuadrupedEnv, gains, torque_ratio
from settings import ConfigError
from training.checkpoint import Checkpoint
from training.display import silence
from training.files import require_file, require_new, require_writable, written_whole

SHORT = {"hidden": "h", "cell": "c"}  # of what a policy remembers, as rsl_rl calls it
UNITREE = ("FR", "FL", "RR", "RL")  # the order of legs in Unitree's own interface
TERMS = {
    "joint_angles": "joint_pos_rel", "joint_speeds": "joint_vel_rel", "gravity_direction": "projected_gravity",
    "angular_velocity": "base_ang_vel", "latest_action": "last_action", "velocity_asked": "velocity_commands",
}  # fmt: skip  # names of observations in Unitree's tools
COMMANDS = {
    "velocity": ("lin_vel_x", "lin_vel_y", "ang_vel_z"), "heading": ("lin_vel_x", "lin_vel_y", "ang_vel_z"),
    "gait": ("lin_vel_x", "lin_vel_y", "ang_vel_z"), "goal": ("goal_x", "goal_y", "goal_z"),
    "stay": ("goal_x", "goal_y", "goal_z"), "pose": ("goal_x", "goal_y", "heading"),
}  # fmt: skip


class Exported(nn.Module):
    """The policy of one control step as plain tensors in and out, joints as in the robot's file.

    names: of what it remembers; start: that, at the start of an episode, (1, size) each.
    """

    def __init__(self, creature: Creature, env: ABEnv) -> None:
        super().__init__()
        creature.use_precision("float32")
        for part in (creature.belief, creature.world_model):
            if part is not None:
                part.use_fused = False
        self.creature = creature
        memory = creature.initial_state(1)
        names = creature.belief.state_names or [f"state_{i}" for i in range(len(memory.belief))]
        self.names = [*names, *(("latent", "last_action", "begun") if creature.reads else ())]
        self.shapes = [tuple(x.shape) for x in memory.tensors()[: len(self.names)]]  # what follows is empty
        self.start = [x.reshape(1, -1) for x in memory.tensors()[: len(self.names)]]
        columns = torch.arange(env.num_obs)
        signs = torch.ones(env.num_obs)
        actions = torch.arange(env.num_actions)
        turns = torch.ones(env.num_actions)
        if isinstance(env, QuadrupedEnv):
            order, ways = _as_in_file(env)
            at = 0
            for term in env.terms.columns:
                if term.mirror == "joints":
                    # column k of Foal's is where the file has that joint, and turned as it turns there
                    columns[at + torch.from_numpy(order)] = at + torch.arange(12)
                    signs[at : at + 12] = torch.from_numpy(env.robot.joint_signs.ravel()).float()
                at += term.columns
            actions = torch.from_numpy(order)
            turns = torch.from_numpy(ways).float()
        for name, x in (("columns", columns), ("signs", signs), ("actions", actions), ("turns", turns)):
            self.register_buffer(name, x)

    def forward(self, obs: Tensor, *remembered: Tensor) -> tuple[Tensor, ...]:
        """Return actions (1, A) and what is remembered, of observations (1, O) and what was."""
        memory = self.creature.initial_state(1)
        count = len(self.names)
        given = [x.reshape(shape) for x, shape in zip(remembered, self.shapes, strict=True)]
        seen = obs[:, self.columns] * self.signs
        action, _, after = self.creature.act(seen, memory.like([*given, *memory.tensors()[count:]]))
        action = action[:, self.actions] * self.turns
        return action, *(x.reshape(1, -1) for x in after.tensors()[:count])


class _Flat(nn.Module):
    """The same with all that is remembered in one tensor (1, S), as tracing wants it."""

    def __init__(self, policy: Exported) -> None:
        super().__init__()
        self.policy = policy
        self.sizes = [x.shape[1] for x in policy.start]

    def forward(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        action, *after = self.policy(obs, *torch.split(state, self.sizes, dim=1)) if self.sizes else self.policy(obs)
        return action, torch.cat(after, dim=1) if after else state


class _WithMemory(nn.Module):
    """A traced policy that remembers by itself; reset() at the start of an episode."""

    def __init__(self, traced: torch.jit.ScriptModule, start: Tensor) -> None:
        super().__init__()
        self.policy = traced
        self.register_buffer("state", start.clone())
        self.register_buffer("start", start.clone())

    def forward(self, obs: Tensor) -> Tensor:
        action, after = self.policy(obs, self.state)
        self.state.copy_(after)
        return action

    @torch.jit.export
    def reset(self) -> None:
        self.state.copy_(self.start)


def _as_in_file(env: QuadrupedEnv) -> tuple[np.ndarray, np.ndarray]:
    """Return which of Foal's joints each of the file's is, in its order (12), and how it turns there (12)."""
    order = np.array(env.robot.joint_order)
    return order, env.robot.joint_signs.ravel()[order]


def facts(env: ABEnv, loaded: Checkpoint) -> dict[str, Any]:
    """Return what a deployment must know, in full precision, joints as in the robot's file."""
    found: dict[str, Any] = {
        "task": loaded.config.task, "checkpoint": str(loaded.path), "version": importlib.metadata.version("foal")
        if _installed() else "source", "ctrl_dt": loaded.config.env.ctrl_dt,
    }  # fmt: skip
    if not isinstance(env, QuadrupedEnv):
        return found
    cfg = env.cfg
    robot = env.robot
    order, signs = _as_in_file(env)
    ratio = torque_ratio(robot)
    kp, kd = gains(cfg, robot)
    low, high = (robot.joint_range.reshape(12, 2)[order] * signs[:, None]).T
    torque = cfg.control == "torque"
    return found | {
        "robot": robot.name,
        "joint_names": [robot.joint_names[k // 3][k % 3] for k in order.tolist()],
        "default_joint_pos": (signs * robot.home_joints.ravel()[order]).tolist(),
        "joint_lower": np.minimum(low, high).tolist(),
        "joint_upper": np.maximum(low, high).tolist(),
        "joint_stiffness": kp.ravel()[order].tolist(),
        "joint_damping": kd.ravel()[order].tolist(),
        "torque_limit": robot.torque_limit.ravel()[order].tolist(),
        "control": cfg.control,
        **({"torque_offset": (signs * robot.hold_torques().ravel()[order]).tolist()} if torque else {}),
        "action_scale": [ratio * cfg.torque_scale if torque else cfg.action_scale] * 12,
        "observation_names": [term.name for term in env.terms.columns],
        "observation_sizes": [term.columns for term in env.terms.columns],
        "observation_scales": [list(term.scales()) for term in env.terms.columns],
        "observation_history": 1,
        "command_names": list(COMMANDS.get(cfg.command.kind, ())),
        "follows_motion": env.terms.follows,
    }


def _installed() -> bool:
    try:
        importlib.metadata.version("foal")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def deploy_yaml(env: QuadrupedEnv, known: dict[str, Any]) -> str:
    """Return the deploy.yaml that Unitree's tools read: lines of a name and its value in JSON, which YAML includes."""
    cfg = env.cfg
    legs = [name[:2].upper() for name in known["joint_names"]]
    motors = [
        3 * UNITREE.index(leg) + sum(other == leg for other in legs[:k]) if leg in UNITREE else k
        for k, leg in enumerate(legs)
    ]
    ranges = {"lin_vel_x": cfg.command.forward, "lin_vel_y": cfg.command.sideways, "ang_vel_z": cfg.command.turn}
    one = {"params": {}, "clip": None, "history_length": 1}
    columns = zip(known["observation_names"], known["observation_scales"], strict=True)
    action = {
        "clip": None, "joint_names": known["joint_names"], "scale": known["action_scale"],
        "offset": known["default_joint_pos"], "joint_ids": None,
    }  # fmt: skip
    whole = {
        "joint_ids_map": motors,
        "step_dt": known["ctrl_dt"],
        "stiffness": known["joint_stiffness"],
        "damping": known["joint_damping"],
        "default_joint_pos": known["default_joint_pos"],
        "commands": {"base_velocity": {"ranges": {name: list(x) for name, x in ranges.items()}}},
        "actions": {"JointPositionAction": action},
        "observations": {TERMS.get(name, name): one | {"scale": scales} for name, scales in columns},
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in whole.items())


def export(env: ABEnv, loaded: Checkpoint, path: str, opset: int) -> None:
    """Write the policy for one robot, in float32: as a .onnx, or into a folder with TorchScript and deploy.yaml too.

    policy.onnx: inputs obs (1, O) and what the policy remembers, zero at the start of an episode, h_in and c_in of
    EntityBelief; outputs actions (1, A), the mean, and h_out, c_out to feed back; one that reads a world model also
    remembers latent, last_action and begun. Its metadata are facts(), in JSON. policy.pt: the same, obs to actions,
    what is remembered kept inside until reset().

    Raises ConfigError if the path cannot be written, or a package is missing.
    """
    target = pathlib.Path(path)
    alone = target.suffix == ".onnx"
    if alone and target.parent.is_dir():
        require_file(target, "--export")
    elif path and not target.suffix and (target.is_dir() or target.parent.is_dir()) and not target.is_file():
        require_writable(target, "--export")
    else:
        raise ConfigError(
            f"--export: expected a folder, or a file name ending in .onnx in a folder that exists, got {path!r:.80}"
        )
    files = [target] if alone else [target / name for name in ("policy.onnx", "policy.pt", "deploy.yaml", "facts.json")]
    if not alone:
        for file in files:
            require_new(file, "--export")
    policy = Exported(loaded.creature(env), env).cpu().eval()
    known = facts(env, loaded)
    write_onnx(policy, env.num_obs, known, files[0], opset)
    if alone:
        return
    with written_whole(files[1]) as file, silence():
        torch.jit.save(with_memory(policy, env.num_obs), file)
    if known.get("control") == "pd":
        files[2].write_text(deploy_yaml(env, known))
    files[3].write_text(json.dumps(known, indent=1) + "\n")


def with_memory(policy: Exported, num_obs: int) -> torch.jit.ScriptModule:
    """Return a policy in TorchScript, obs (1, O) to actions, that remembers by itself until reset()."""
    start = torch.cat(policy.start, dim=1) if policy.start else torch.zeros(1, 0)
    with torch.no_grad(), silence():
        traced = torch.jit.trace(_Flat(policy), (torch.zeros(1, num_obs), start), check_trace=False)
        return torch.jit.script(_WithMemory(traced, start))


def write_onnx(policy: Exported, num_obs: int, known: dict[str, Any], target: pathlib.Path, opset: int) -> None:
    """Write a policy as ONNX with what is known of it as metadata."""
    try:
        import onnx
        import onnxscript  # noqa: F401  (what PyTorch's exporter needs)
    except ImportError:
        raise ConfigError("--export: needs the packages onnx and onnxscript: pip install onnx onnxscript") from None
    partial = target.with_suffix(".partial")
    names = [SHORT.get(name, name) for name in policy.names]
    with silence():  # it tells its progress, and which packages it does without
        torch.onnx.export(
            policy, (torch.zeros(1, num_obs), *policy.start), str(partial), dynamo=True, external_data=False,
            verbose=False, opset_version=opset, input_names=["obs", *(f"{name}_in" for name in names)],
            output_names=["actions", *(f"{name}_out" for name in names)],
        )  # fmt: skip
    model = onnx.load(partial)
    for name, value in known.items():
        model.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
    onnx.save(model, partial)
    os.replace(partial, target)
