"""Reference motion for many robots: against one queue per robot, and against its matrix products alone.

    python -m benchmarks.motion [--mode MODE] [--network FILE] [--plot FILE] [--json] [--quick]

quick: pace of both modes at 4096 robots, the two ratios, commands that change at every frame. full: that, and whether
what runs freely for 500 frames stays a gait. scaling: 512 to 8192 robots. preload: whole trajectories in one batch,
their time and memory. buffer: rings of several sizes.
"""

import copy
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import physics  # noqa: F401  sets what PyTorch reads when imported  # isort: skip
import numpy as np
import torch

from benchmarks import machine
from host import available_cores
from motion import gait, kinematics
from motion.command import CommandSampler
from motion.generator import MODES, Mode, MotionGenerator
from motion.network import MotionNetwork, blended, blended_by_robot
from physics.robot import Robot, load_robot
from training.parallel import side_by_side

ROBOTS = 4096
SIZES = (512, 1024, 2048, 4096, 8192)
BUFFERS = ((8, 4), (16, 8), (32, 16), (64, 32), (100, 50))  # frames kept, and made at once
FRAMES = 200  # shown, of which the mean counts
DEQUE_FRAMES = 100  # shown of a queue per robot, with two refills
HOLD = 100  # frames between a robot's commands
PRODUCT_FRAMES = 100
REPETITIONS = 5
FREE = 500  # frames of running freely
COMMANDS = 1000
CHUNKS = (512, 1024, 2048)  # rows of a product, of which the fastest counts


class DequeGenerator:
    """The same network with a queue of frames for each robot, refilled by 50 for the robots whose queue is half empty.

    Robots that are due, or whose command changed, are computed together, in the faster precision, and each one's frames
    go into its queue as a whole. Commands change at once, without smoothing.
    """

    def __init__(self, net: MotionNetwork, robots: int, commands: np.ndarray, dtype: torch.dtype) -> None:
        self.net = net
        self.dtype = dtype
        self.command = net.scale_command(torch.from_numpy(commands))
        self.shown = net.examples[torch.arange(robots) % len(net.examples)].numpy()
        self.frame = net.normalise(torch.from_numpy(self.shown))
        self.queues: list[deque] = [deque(maxlen=100) for _ in range(robots)]
        self.refill(list(range(robots)))

    @torch.no_grad()
    def refill(self, due: list[int]) -> None:
        """Give 50 frames to some robots."""
        if not due:
            return
        ids = torch.tensor(due)
        frame, command = self.frame[ids], self.command[ids]
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            found = self.net.run(frame, command[None].expand(50, -1, -1)).float()
        self.frame[ids] = found[-1]
        frames = self.net.restore(found).transpose(0, 1).numpy()
        for i, own in zip(due, frames, strict=True):
            self.queues[i].extend(own)

    def update_commands(self, commands: np.ndarray, env_ids: np.ndarray) -> None:
        """Let commands of some robots be others from the next frame on."""
        ids = torch.from_numpy(env_ids)
        self.command[ids] = self.net.scale_command(torch.from_numpy(commands))
        self.frame[ids] = self.net.normalise(torch.from_numpy(self.shown[env_ids]))
        for i in env_ids:
            self.queues[i].clear()

    def get_motion(self) -> np.ndarray:
        """Return the next frame of every robot."""
        self.refill([i for i, queue in enumerate(self.queues) if len(queue) <= 50])
        self.shown = np.stack([queue.popleft() for queue in self.queues])
        return self.shown


def commands_of(generator: MotionGenerator, count: int, seed: int = 0) -> np.ndarray:
    """Return commands (count, 3) all over the range of a generator."""
    return CommandSampler(bounds=generator.bounds, seed=seed).draw(count).astype(np.float32)


def seconds_of(run: Callable[[], object], times: int) -> float:
    """Return how long a call takes, the mean of some."""
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times


def show_pace(net: MotionNetwork, mode: str, robots: int) -> float:
    """Return how long a frame of all robots takes to show, refills included, commands staying [s]."""
    made = MotionGenerator(robots, mode, network=net)
    made.reset(commands=commands_of(made, robots))
    return seconds_of(made.get_motion, FRAMES)


def steered_pace(made: MotionGenerator | DequeGenerator, commands: np.ndarray, frames: int) -> float:
    """Return how long a frame takes where every robot's command is held for two seconds, each from a time of its own.

    As many frames go before as it takes until robots are out of step.
    """
    robots = len(commands)
    random = np.random.default_rng(0)
    order = random.permutation(robots)
    turn = iter(range(1 << 30))

    def step() -> None:
        t = next(turn) % HOLD
        ids = np.sort(order[robots * t // HOLD : robots * (t + 1) // HOLD])
        if len(ids):
            made.update_commands(commands[random.integers(robots, size=len(ids))], ids)
        made.get_motion()

    seconds_of(step, min(frames, HOLD))
    return seconds_of(step, frames)


def changing_pace(net: MotionNetwork, robots: int) -> float:
    """Return how long a frame takes where every robot's command changes before it [s]."""
    made = MotionGenerator(robots, "realtime", network=net)
    courses = [commands_of(made, robots, seed) for seed in range(4)]
    turn = iter(range(1 << 30))

    def step() -> None:
        made.update_commands(courses[next(turn) % 4])
        made.get_motion()

    seconds_of(step, 10)
    return seconds_of(step, FRAMES)


def products(net: MotionNetwork, dtype: torch.dtype, chunk: int, robots: int) -> Callable[[], float]:
    """Return what measures the seconds of a frame's products alone: PyTorch's, all experts' in one, a thread each."""
    threads = available_cores()
    experts = net.cfg.experts
    spaces = []
    for _ in range(threads):
        factors = []
        for weight in net.weights:
            inner, size = experts * (weight.shape[1] - 1), weight.shape[2]
            inner, size = (-(-x // 32) * 32 for x in (inner, size))
            x, w = torch.randn(chunk, inner), torch.randn(inner, size)
            factors.append((x.to(dtype), w.to(dtype), torch.empty(chunk, size, dtype=dtype)))
        spaces.append(factors)
    turns = max(1, robots // (threads * chunk)) * PRODUCT_FRAMES

    def work(factors: list[tuple[torch.Tensor, ...]]) -> None:
        for _ in range(turns):
            for x, w, y in factors:
                torch.mm(x, w, out=y)

    def run() -> float:
        threads_before = torch.get_num_threads()
        torch.set_num_threads(1)
        start = time.perf_counter()
        side_by_side(work, spaces)
        seconds = time.perf_counter() - start
        torch.set_num_threads(threads_before)
        return seconds / (turns * chunk * threads) * robots

    return run


def ratios(net: MotionNetwork, repetitions: int) -> dict[str, Any]:
    """Return paces in turn, and what they are of one another."""
    robots = ROBOTS
    made = MotionGenerator(robots, "pregenerated", network=net)
    commands = commands_of(made, robots)

    def pregenerate() -> float:
        before = made.seconds, made.frames
        made.reset(commands=commands)
        return (made.seconds - before[0]) / (made.frames - before[1]) * robots

    kinds = [(dtype, chunk) for dtype in (torch.float32, torch.bfloat16) for chunk in CHUNKS if chunk <= robots]
    alone = {kind: products(net, *kind, robots) for kind in kinds}
    fastest = min(alone, key=lambda kind: min(alone[kind]() for _ in range(2)))
    kinds = (torch.float32, torch.bfloat16)
    queues = {dtype: DequeGenerator(net, robots, commands, dtype) for dtype in kinds}
    paces = {dtype: seconds_of(queue.get_motion, DEQUE_FRAMES) for dtype, queue in queues.items()}
    faster = min(paces, key=paces.__getitem__)
    paces = {dtype: steered_pace(queue, commands, DEQUE_FRAMES) for dtype, queue in queues.items()}
    steered = min(paces, key=paces.__getitem__)
    realtime = MotionGenerator(robots, "realtime", network=net)
    realtime.reset(commands=commands)
    found = machine.interleaved(
        {
            "pregenerate": pregenerate,
            "products": alone[fastest],
            "pregenerated": lambda: show_pace(net, "pregenerated", robots),
            "realtime": lambda: show_pace(net, "realtime", robots),
            "queue": lambda: seconds_of(DequeGenerator(net, robots, commands, faster).get_motion, DEQUE_FRAMES),
            "realtime_steered": lambda: steered_pace(realtime, commands, FRAMES),
            "queue_steered": lambda: steered_pace(queues[steered], commands, DEQUE_FRAMES),
            "changing": lambda: changing_pace(net, robots),
        },
        repetitions,
    )
    stats = made.get_performance_stats()
    return {
        "robots": robots,
        "precision": str(made.filler.dtype).removeprefix("torch."),
        "products_precision": str(fastest[0]).removeprefix("torch."),
        "queue_precision": str(faster).removeprefix("torch."),
        "steered_queue_precision": str(steered).removeprefix("torch."),
        "frame_seconds": found,
        "deque_ratio": found["queue_steered"] / found["realtime_steered"],
        "deque_ratio_in_step": found["queue"] / found["realtime"],
        "matmul_ratio": found["pregenerate"] / found["products"],
        "memory_share": (stats["stored_bytes"] + stats["work_bytes"]) / stats["stored_bytes"],
        "stored_bytes": stats["stored_bytes"],
        "initialisation_seconds": found["pregenerate"] * (MODES["pregenerated"].capacity - 1),
    }


def slip(robot: Robot, q: np.ndarray, commands: np.ndarray, fps: float) -> float:
    """Return how fast feet that stand slip on the ground under a root that goes as commanded, their mean [m/s].

    q: (T, N, 12); commands: (N, 3). Feet stand that are within a centimetre of the lowest one, before and after.
    """
    feet = kinematics.feet(robot, q.astype(float))
    level = feet[..., 2]
    low = level < level.min(axis=2, keepdims=True) + 0.01
    stands = low[1:] & low[:-1]
    c = commands[None, :, None].astype(float)
    middle = (feet[1:] + feet[:-1]) / 2
    # seen from the root, the ground goes with -v - w x p
    ground = -np.stack([c[..., 0] - c[..., 2] * middle[..., 1], c[..., 1] + c[..., 2] * middle[..., 0]], axis=-1)
    speed = np.linalg.norm(np.diff(feet[..., :2], axis=0) * fps - ground, axis=-1)
    return float((speed * stands).sum() / stands.sum())


def free_run(net: MotionNetwork) -> dict[str, float]:
    """Run freely under commands of the whole range; return whether it stays a gait.

    frozen, exploding: shares of robots whose joints move less than a half, or more than twice as fast as the trot by
    formula under the same command, in the last 100 frames; drifting: whose mean pose of these is more than 0.1 rad
    (root-mean-square over joints) from that of the trot; pose_error: the mean of that [rad]; joint_speed: over the
    trot's; slip: of feet that stand in the last 100 frames, and of the trot's [m/s].
    """
    robot = load_robot(net.robot)
    made = MotionGenerator(COMMANDS, network=net)
    commands = commands_of(made, COMMANDS)
    made.update_commands(commands)
    shown = [torch.cat(made.get_motion(), dim=1).numpy() for _ in range(FREE)]
    q, dq = np.split(np.stack(shown[-100:]), 2, axis=-1)
    trots = [gait.clip(robot, "trot", np.tile(command, (100, 1)), net.fps) for command in commands.astype(float)]
    true_q, true_dq = (np.stack([getattr(x, f"joint_{name}") for x in trots], 1) for name in ("position", "velocity"))
    speed, true = (np.sqrt(np.square(x).mean(axis=(0, 2))) for x in (dq, true_dq))
    apart = np.sqrt(np.square(q.mean(axis=0) - true_q.mean(axis=0)).mean(axis=1))
    return {
        "frozen": float((speed < 0.5 * true).mean()),
        "exploding": float((~(speed < 2.0 * true)).mean()),
        "drifting": float((~(apart < 0.1)).mean()),
        "pose_error": float(apart.mean()),
        "joint_speed": float((speed / true).mean()),
        "slip": slip(robot, q, commands, net.fps),
        "slip_by_formula": slip(robot, true_q, commands, net.fps),
    }


def blends(net: MotionNetwork) -> dict[str, float]:
    """Return how long a frame takes by each way to blend experts, in bfloat16, the best of some [s]."""
    half = copy.deepcopy(net).to(torch.bfloat16)
    frame = half.normalise(half.examples[torch.arange(ROBOTS) % len(half.examples)])
    command = torch.zeros(ROBOTS, 3, dtype=torch.bfloat16)
    made = MotionGenerator(ROBOTS, "pregenerated", network=net)

    def compiled() -> float:
        before = made.seconds, made.frames
        made.reset()
        return (made.seconds - before[0]) / (made.frames - before[1]) * ROBOTS

    @torch.no_grad()
    def plain(blend: Callable) -> float:
        start = time.perf_counter()
        half(frame, command, blend)
        return time.perf_counter() - start

    return {
        "compiled": min(compiled() for _ in range(3)),
        "stacked": min(plain(blended) for _ in range(5)),
        "by_robot": min(plain(blended_by_robot) for _ in range(3)),
    }


def sizes(net: MotionNetwork) -> list[dict[str, float]]:
    """Return paces for several numbers of robots."""
    found = []
    for robots in SIZES:
        made = MotionGenerator(robots, "pregenerated", network=net)
        before = made.seconds
        made.reset(commands=commands_of(made, robots))
        found.append(
            {
                "robots": robots,
                "initialisation_seconds": made.seconds - before,
                "pregenerated": seconds_of(made.get_motion, FRAMES),
                "realtime": show_pace(net, "realtime", robots),
            }
        )
    return found


def buffers(net: MotionNetwork) -> list[dict[str, float]]:
    """Return mean and slowest frame, and memory, of rings of several sizes."""
    found = []
    usual = MODES["realtime"]
    for capacity, refill in BUFFERS:
        MODES["realtime"] = Mode(capacity, refill)
        made = MotionGenerator(ROBOTS, "realtime", network=net)
        made.reset(commands=commands_of(made, ROBOTS))
        seconds_of(made.get_motion, FRAMES)
        stats = made.get_performance_stats()
        found.append(
            {"capacity": capacity, "refill": refill, "mean": stats["mean_frame_seconds"],
             "slowest": stats["slowest_frame_seconds"], "stored_bytes": stats["stored_bytes"]}
        )  # fmt: skip
    MODES["realtime"] = usual
    return found


def report(result: dict[str, Any], about: dict[str, object]) -> None:
    """Print tables of what was measured."""
    if "frame_seconds" in result:
        names = {
            "pregenerate": f"pregenerating, {result['precision']}",
            "products": f"its products alone, PyTorch, {result['products_precision']}",
            "pregenerated": "showing, pregenerated",
            "realtime": "showing, real time",
            "queue": f"a queue per robot, {result['queue_precision']}",
            "realtime_steered": "showing, real time, a command of two seconds",
            "queue_steered": f"a queue per robot, the same, {result['steered_queue_precision']}",
            "changing": "showing, real time, a command of one frame",
        }
        rows = [("", "ms a frame", "frames/s")]
        rows += [
            (
                text,
                f"{1e3 * result['frame_seconds'][name]:.3f}",
                f"{result['robots'] / result['frame_seconds'][name]:,.0f}",
            )
            for name, text in names.items()
        ]
        rows += [
            ("real time over a queue per robot", f"{result['deque_ratio_in_step']:.1f}x", ""),
            ("the same, commands of two seconds", f"{result['deque_ratio']:.1f}x", ""),
            ("pregenerating over its products", f"{result['matmul_ratio']:.2f}x", ""),
            (
                "memory over stored trajectories",
                f"{result['memory_share']:.2f}x",
                f"{result['stored_bytes'] / 1e6:.0f} MB",
            ),
            ("initialisation", f"{1e3 * result['initialisation_seconds']:.0f} ms", ""),
        ]
        machine.table(f"{result['robots']} robots", rows, about)
    if rows := result.get("free_run"):
        machine.table(
            f"Running freely, {FREE} frames, {COMMANDS} commands",
            [("", ""), *((k, f"{x:.3f}") for k, x in rows.items())],
            about,
        )
    if rows := result.get("blends"):
        cells = [(name.replace("_", " "), f"{1e3 * x:.2f}") for name, x in rows.items()]
        machine.table(f"Experts blended for {ROBOTS} robots, bfloat16", [("", "ms a frame"), *cells], about)
    if rows := result.get("sizes"):
        heading = "robots", "initialisation [ms]", "pregenerated [ms]", "real time [ms]"
        names = "initialisation_seconds", "pregenerated", "realtime"
        cells = [(f"{row['robots']:,}", *(f"{1e3 * row[name]:.3f}" for name in names)) for row in rows]
        machine.table("A frame of all robots", [heading, *cells], about)
    if rows := result.get("buffers"):
        heading = "frames kept", "made at once", "mean [ms]", "slowest [ms]", "memory [MB]"
        cells = [
            (row["capacity"], row["refill"], f"{1e3 * row['mean']:.3f}", f"{1e3 * row['slowest']:.2f}",
             f"{row['stored_bytes'] / 1e6:.1f}")
            for row in rows
        ]  # fmt: skip
        machine.table(f"Real time, {ROBOTS} robots", [heading, *cells], about)


def draw(rows: list[dict[str, float]], path: str, about: dict[str, object]) -> None:
    """Draw paces over numbers of robots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for name, label in (("pregenerated", "pregenerated"), ("realtime", "real time")):
        axes.plot([row["robots"] for row in rows], [1e3 * row[name] for row in rows], "o-", label=label)
    axes.set(xlabel="robots", ylabel="ms a frame", title=about["cpu"], xlim=0, ylim=0)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    """Measure, print and, with --json, print the result as one line."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--mode", default="quick", choices=("quick", "full", "scaling", "preload", "buffer"))
    options.add_argument("--network", default="", metavar="FILE", help="a fitted one, else what comes with Foal")
    options.add_argument("--plot", metavar="FILE", help="draw the table of scaling")
    args = options.parse_args()
    about = machine.describe("torch", "numba")
    net = MotionGenerator(1, network=args.network).net
    result: dict[str, Any] = {}
    if args.mode in ("quick", "full", "preload"):
        result |= ratios(net, 1 if args.quick else REPETITIONS)
    if args.mode == "full":
        result["free_run"] = free_run(net)
        result["blends"] = blends(net)
    if args.mode in ("full", "scaling") or args.plot:
        result["sizes"] = sizes(net)
    if args.mode in ("full", "buffer"):
        result["buffers"] = buffers(net)
    report(result, about)
    if args.plot:
        draw(result["sizes"], args.plot, about)
    if args.json:
        machine.print_json(result | about)


if __name__ == "__main__":
    main()
