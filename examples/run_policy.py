"""An exported policy on a robot, with NumPy and onnxruntime alone: everything else is in the file's metadata.

    python -m examples.run_policy policy.onnx                          sensors of a robot that stands, 1 s of targets
    python -m examples.run_policy policy.onnx --model robot.xml        the robot's own MJCF in MuJoCo, joints by name

On a robot, make a Controller and give it sensors every ctrl_dt; what it returns are the targets of the motors' own PD
law, whose gains are in metadata: joint_stiffness, joint_damping. Joints are in the order of joint_names, and turn as
the robot's own file says.
"""

import argparse
import json
import sys
import time

import numpy as np


class Controller:
    """What moves a robot: sensors in, joint targets out.

    path: of policy.onnx; facts: its metadata.
    """

    def __init__(self, path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)
        self.facts = {}
        for name, value in self.session.get_modelmeta().custom_metadata_map.items():
            try:
                self.facts[name] = json.loads(value)
            except ValueError:
                self.facts[name] = value
        unknown = set(self.facts.get("observation_names", ["none"])) - set(OBSERVATIONS)
        if unknown or self.facts.get("control") != "pd":
            seen = ", ".join(sorted(unknown)) or "a policy of torques"
            raise ValueError(f"{path}: expected a walking policy with joint targets, got {seen}")
        self.home = np.array(self.facts["default_joint_pos"])
        self.bounds = np.array(self.facts["joint_lower"]), np.array(self.facts["joint_upper"])
        self.reset()

    def reset(self) -> None:
        """Forget what has happened."""
        self.memory = {x.name: np.zeros(x.shape, np.float32) for x in self.session.get_inputs()[1:]}
        self.action = np.zeros(len(self.home), np.float32)

    def step(self, sensors: dict[str, np.ndarray]) -> np.ndarray:
        """Return joint targets (12) [rad].

        sensors: joint_position (12) [rad], joint_velocity (12) [rad/s], contact (4) 1 where a foot touches, front left,
        front right, rear left, rear right; gravity (3) its direction and spin (3) [rad/s], both in the base frame;
        command (3) forward and sideways velocity [m/s] and yaw rate [rad/s].
        """
        parts = []
        seen = sensors | {"latest_action": self.action}
        for name, scales in zip(self.facts["observation_names"], self.facts["observation_scales"], strict=True):
            parts.append(np.array(scales) * OBSERVATIONS[name](seen, self.home))
        obs = np.concatenate(parts).astype(np.float32)[None]
        (action,), *after = self.session.run(None, {"obs": obs} | self.memory)
        self.memory = dict(zip(self.memory, after, strict=True))
        self.action = action
        return np.clip(self.home + np.array(self.facts["action_scale"]) * action, *self.bounds)


OBSERVATIONS = {
    "joint_angles": lambda s, home: s["joint_position"] - home,
    "joint_speeds": lambda s, home: s["joint_velocity"],
    "contacts": lambda s, home: s["contact"],
    "gravity_direction": lambda s, home: s["gravity"],
    "angular_velocity": lambda s, home: s["spin"],
    "latest_action": lambda s, home: s["latest_action"],
    "velocity_asked": lambda s, home: s["command"],
}


def standing(controller: Controller, command: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a robot feels that stands still in its home pose."""
    return {
        "joint_position": controller.home, "joint_velocity": np.zeros(12), "contact": np.ones(4),
        "gravity": np.array([0.0, 0.0, -1.0]), "spin": np.zeros(3), "command": command,
    }  # fmt: skip


def dry_run(controller: Controller, command: np.ndarray, seconds: float) -> None:
    """Print a line a tenth of a second, and how long a step takes."""
    dt = controller.facts["ctrl_dt"]
    spent = []
    for k in range(round(seconds / dt)):
        start = time.perf_counter()
        targets = controller.step(standing(controller, command))
        spent.append(time.perf_counter() - start)
        if k % max(1, round(0.1 / dt)) == 0:
            print(f"{k * dt:5.2f} s  targets [rad] " + " ".join(f"{x:+.2f}" for x in targets))
    print(f"a step takes {1e3 * float(np.median(spent)):.2f} ms, of {1e3 * dt:.0f}")


def in_mujoco(controller: Controller, path: str, command: np.ndarray, seconds: float) -> dict[str, float]:
    """Run the robot of an MJCF file; return how fast it went (forward, sideways [m/s], turn [rad/s]) and its height."""
    import mujoco

    model = mujoco.MjModel.from_xml_path(path)
    data = mujoco.MjData(model)
    joints = [model.joint(name).id for name in controller.facts["joint_names"]]
    q = model.jnt_qposadr[joints]
    v = model.jnt_dofadr[joints]
    (free,) = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
    base = int(model.jnt_bodyid[free])
    if model.nkey:
        mujoco.mj_resetDataKeyframe(model, data, 0)
    data.qpos[q] = controller.home
    mujoco.mj_forward(model, data)
    # feet, front left first: the ends of the third joints' chains, by where they are
    calves = [int(model.jnt_bodyid[joints[k]]) for k in (2, 5, 8, 11)]
    places = np.array([data.xpos[body] - data.xpos[base] for body in calves])
    order = sorted(range(4), key=lambda i: (places[i, 0] < 0, places[i, 1] < 0))
    leg_of = {body: leg for leg, i in enumerate(order) for body in range(model.nbody) if _bears(model, calves[i], body)}
    gains = np.array(controller.facts["joint_stiffness"]), np.array(controller.facts["joint_damping"])
    limit = np.array(controller.facts["torque_limit"])
    dt = controller.facts["ctrl_dt"]
    substeps = max(1, round(dt / model.opt.timestep))
    speeds = []
    for k in range(round(seconds / dt)):
        R = data.xmat[base].reshape(3, 3)
        contact = np.zeros(4)
        for pair in data.contact[: data.ncon]:
            for geom in pair.geom:
                leg = leg_of.get(int(model.geom_bodyid[geom]))
                if leg is not None:
                    contact[leg] = 1.0
        at = int(model.jnt_dofadr[free])
        spin = data.qvel[at + 3 : at + 6]
        sensors = {
            "joint_position": data.qpos[q], "joint_velocity": data.qvel[v], "contact": contact, "gravity": -R[2],
            "spin": spin, "command": command,
        }  # fmt: skip
        targets = controller.step(sensors)
        for _ in range(substeps):
            torque = gains[0] * (targets - data.qpos[q]) - gains[1] * data.qvel[v]
            data.qfrc_applied[v] = np.clip(torque, -limit, limit)
            mujoco.mj_step(model, data)
        if k * dt >= seconds / 2:
            ahead = R[:2, 0] / np.linalg.norm(R[:2, 0])
            x, y = data.qvel[at : at + 2]
            speeds.append((ahead[0] * x + ahead[1] * y, ahead[0] * y - ahead[1] * x, spin[2]))
    forward, sideways, turn = np.mean(speeds, axis=0)
    return {"forward": forward, "sideways": sideways, "turn": turn, "height": float(data.xpos[base][2])}


def _bears(model: object, top: int, body: int) -> bool:
    """Return whether a body is top or hangs on it."""
    while body > 0 and body != top:
        body = int(model.body_parentid[body])
    return body == top


def main(arguments: list[str] | None = None) -> int:
    """Run a policy; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="run_policy", allow_abbrev=False)
    parser.add_argument("policy", help="an exported .onnx")
    parser.add_argument("--model", default="", metavar="FILE", help="the robot's MJCF, to be moved by MuJoCo")
    parser.add_argument("--command", nargs=3, type=float, default=[0.5, 0.0, 0.0], metavar=("X", "Y", "TURN"))
    parser.add_argument("--seconds", type=float, default=0.0, help="1, or with --model 6, if not given")
    args = parser.parse_args(arguments)
    try:
        controller = Controller(args.policy)
        command = np.array(args.command)
        if not args.model:
            dry_run(controller, command, args.seconds or 1.0)
            return 0
        found = in_mujoco(controller, args.model, command, args.seconds or 6.0)
    except (ImportError, ValueError, KeyError, RuntimeError) as error:
        print(f"run_policy: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Exception as error:  # onnxruntime's own, of a file that is none
        print(f"run_policy: {args.policy}: {' '.join(str(error).split())[:200]}", file=sys.stderr)
        return 2
    print("asked for {:+.2f} {:+.2f} m/s {:+.2f} rad/s".format(*command))
    print("went      {forward:+.2f} {sideways:+.2f} m/s {turn:+.2f} rad/s, base {height:.2f} m high".format(**found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
