"""The world model: how well it foresees, what it makes of experience.

    python -m benchmarks.world_model [--part open-loop imagination] [--seeds 3] [--checkpoint PATH] [--json] [--quick] [--csv FILE] [--plot FILE]

open-loop: a trained policy walks; the world model and a one-step model learn from the same of its
rollouts, as many samples each. On robots of another seed both are shown the past, then only the
actions of the next 45 control steps, and asked what is observed after them. The error is the root
mean square over what is observed, each divided by its standard deviation: 1 is as good as the mean.

imagination: env steps until 95 % of 256 fresh episodes of quadruped-balance are survived in two
evaluations in a row, by PPO alone and with imagined rollouts.
"""

import argparse
import csv
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import physics  # noqa: F401  sets what PyTorch reads when imported  # isort: skip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import machine
from benchmarks.judge import Judge, reached
from benchmarks.training import Rows, train_foal
from config import Config, ConfigError, override
from entity import Creature
from environments import registry
from physics.engine import available_cores
from training import checkpoint as checkpoints
from training.parallel import side_by_side
from training.replay import Replay, Sequences
from training.share import Share
from training.world_model import WorldModelTrainer
from world_model import Course, WorldModel

CPU = torch.device("cpu")
WALK = Path(__file__).resolve().parent.parent / "checkpoints" / "quadruped-walk-flat.pt"
AHEAD = 45  # control steps without a look
PAST = 48  # control steps before them
SAMPLES = 8  # futures drawn, of which the mean is the prediction
GROUPS = {
    "joint angles": (0, 12), "joint velocities": (12, 24), "foot contacts": (24, 28), "direction of gravity": (28, 31), "angular velocity": (31, 34),
    "command": (34, 37),
}  # fmt: skip
OPEN_LOOP = {
    "world_model.role": "imagination", "world_model.privileged": False, "world_model.batch": 32, "world_model.sequence": 4, "world_model.overshoot": 8,
    "world_model.capacity": 32,
}  # fmt: skip
NAMES = {"ppo": "PPO alone, 1024 robots", "ppo-128": "PPO alone, 128 robots", "ppo-32": "PPO alone, 32 robots", "imagination": "with imagination, 32 robots"}
# overrides of the configuration, env steps between evaluations, and env steps at most
CONTESTANTS: dict[str, tuple[dict[str, Any], int, int]] = {
    "ppo": ({"train.num_envs": 1024}, 16384, 1_600_000),
    "ppo-128": ({"train.num_envs": 128}, 2048, 400_000),
    "ppo-32": ({"train.num_envs": 32}, 1024, 200_000),
    "imagination": ({"world_model.role": "imagination"}, 1024, 50_000),
}


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a perceptron of two hidden layers, normalised by their root mean square."""
    sizes = itertools.pairwise((inputs, hidden, hidden))
    inner = [module for a, b in sizes for module in (nn.Linear(a, b, bias=False), nn.RMSNorm(b, eps=1e-4), nn.SiLU())]
    return nn.Sequential(*inner, nn.Linear(hidden, outputs))


class OneStep(nn.Module):
    """A latent of an observation, the next one from it and an action, by perceptrons, with no memory: what the world model replaced."""

    def __init__(self, num_obs: int, num_actions: int, latent: int = 128, hidden: int = 256) -> None:
        super().__init__()
        self.encoder, self.decoder, self.dynamics = (
            perceptron(inputs, hidden, outputs) for inputs, outputs in ((num_obs, latent), (latent, num_obs), (latent + num_actions, latent))
        )

    def predict(self, latent: Tensor, action: Tensor) -> Tensor:
        """Return the next latent (B, latent)."""
        return (latent + self.dynamics(torch.cat((latent, action), dim=-1))).tanh()

    def loss(self, obs: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Return the loss of reconstructing and predicting observations (B, O) and latents."""
        latent = self.encoder(obs).tanh()
        after = self.predict(latent, action)
        consistency = F.mse_loss(after, self.encoder(following).tanh().detach())
        return F.mse_loss(self.decoder(latent), obs) + F.mse_loss(self.decoder(after), following) + consistency


class Walkers:
    """Robots that walk as a checkpoint's policy makes them, followed by a world model.

    num: of robots; seed: of their episodes; model: None to record only.
    """

    def __init__(self, loaded: checkpoints.Checkpoint, cfg: Config, num: int, seed: int, model: WorldModel | None) -> None:
        env = registry.make(cfg.task, num, cfg=cfg.env, threads=available_cores())
        creature = Creature(env, cfg.network, Config().world_model)
        creature.load_state_dict(loaded.weights)
        creature.world_model = model
        cfg = override(cfg, {"seed": seed})
        self.shares = [Share(part, creature, cfg, CPU, i) for i, part in enumerate(env.split(available_cores()))]
        self.model, world = model, cfg.world_model
        if model:
            self.replay = Replay(env, model, world.capacity, cfg.ppo.rollout, world.sequence, CPU)
            self.latent = model.initial_latent(num)

    @torch.no_grad()
    def walk(self) -> None:
        """Live through a rollout."""
        side_by_side(Share.collect, self.shares)
        if self.model:
            lived = self.replay.add([share.rollout for share in self.shares], self.latent)
            if self.replay.count <= self.replay.capacity:
                self.model.normaliser.update(lived.obs.flatten(0, 1))
            self.latent = follow(self.model, self.latent, lived).last

    def record(self, steps: int) -> Sequences:
        """Return what happens in some steps to robots whose episodes do not end meanwhile."""
        parts = []
        while sum(len(part[0]) for part in parts) < steps:
            self.walk()
            rollouts = [share.rollout for share in self.shares]
            obs = torch.cat([torch.cat((r.obs[1:], r.privileged[1:]), dim=-1) for r in rollouts], dim=1)
            parts.append([torch.cat(x, dim=1) for x in zip(*((r.action, r.reward, r.done()) for r in rollouts), strict=True)] + [obs])
        action, reward, done, obs = (torch.cat(x)[:steps] for x in zip(*parts, strict=True))
        whole = done.sum(0) == 0
        action, reward, obs = action[:, whole], reward[:, whole], obs[:, whole]
        return Sequences(torch.zeros(0), action, obs, reward, torch.zeros_like(reward), torch.ones_like(reward))


def follow(model: WorldModel, latent: Tensor, s: Sequences) -> Course:
    """Return what the model takes sequences for, from latents (sides, D + Z, B) before them on."""
    return model.run(latent, s.action.flatten(0, 1), s.keep, model.noise(s.reward.numel()), model.encode_seen(model.standardise(s.obs.flatten(0, 1))))


def normalised_error(predicted: Tensor, truth: Tensor, spread: Tensor) -> float:
    """Return the root mean square of the error over the spread; predicted, truth: (B, K); spread: (K)."""
    return float(((predicted - truth) / spread).square().mean().sqrt())


def foresee(model: WorldModel, s: Sequences) -> tuple[Tensor, Tensor]:
    """Return what the model expects after the last steps of sequences, unseen, and what it makes of the last step seen, (B, O + P) each."""
    robots = s.obs.shape[1]
    past = Sequences(*(x if name == "latent" else x[:PAST] for name, x in zip(Sequences._fields, s, strict=True)))
    seen = follow(model, model.initial_latent(robots), past).last
    actions = s.action[PAST:].repeat(1, SAMPLES, 1)
    keep = torch.ones(actions.shape[:2])
    unseen = model.run(seen.repeat(1, 1, SAMPLES), actions.flatten(0, 1), keep, model.noise(keep.numel())).last
    return model.decode_all(unseen).unflatten(0, (SAMPLES, robots)).mean(0), model.decode_all(seen)


def examine(model: WorldModel, one_step: OneStep, s: Sequences, num_obs: int) -> tuple[dict[str, dict[str, float]], float]:
    """Return errors after unseen steps by predictor and group of observations, and the error of the base velocity seen now [m/s]."""
    expected, now = foresee(model, s)
    latent = one_step.encoder(model.standardise(s.obs[PAST - 1, :, :num_obs])).tanh()
    for action in s.action[PAST:]:
        latent = one_step.predict(latent, action)
    raw = torch.cat((one_step.decoder(latent), torch.zeros_like(s.obs[0, :, num_obs:])), dim=-1)
    truth, spread = s.obs[-1], s.obs.flatten(0, 1).std(0).clamp(min=1e-6)
    predicted = {"world model": expected, "one-step model": model.raw(raw), "the last observation": s.obs[PAST - 1]}
    errors = {
        name: {group: normalised_error(x[:, a:b], truth[:, a:b], spread[a:b]) for group, (a, b) in (GROUPS | {"all": (0, num_obs)}).items()}
        for name, x in predicted.items()
    }
    velocity = slice(num_obs, num_obs + 3)  # what only the simulator knows begins with the base's
    return errors, float((now - s.obs[PAST - 1])[:, velocity].square().sum(-1).mean().sqrt())


def open_loop(path: Path, quick: bool) -> dict[str, Any]:
    """Train both models on a checkpoint's rollouts; return errors by predictor and group, velocity_rms, samples and seconds."""
    loaded = checkpoints.load(path)
    cfg = override(loaded.config, OPEN_LOOP)
    torch.manual_seed(0)
    env = registry.make(cfg.task, 1, cfg=cfg.env)
    model = WorldModel(env.num_obs, env.num_actions, cfg.world_model, env.num_privileged, env.body)
    one_step = OneStep(env.num_obs, env.num_actions)
    optimizer = torch.optim.Adam(one_step.parameters(), lr=cfg.world_model.learning_rate, eps=1e-5)
    walkers = Walkers(loaded, cfg, 512, 0, model)
    trainer = WorldModelTrainer(model, walkers.replay, cfg.seed, available_cores())
    generator = torch.Generator().manual_seed(1)
    updates, samples, start = 400 if quick else 1000, 0, time.perf_counter()
    for update in range(updates):
        while walkers.replay.count < 8 + update // 8:
            walkers.walk()
        rate = cfg.world_model.learning_rate * min(1.0, 2.0 * (1.0 - update / updates))  # slower and slower in the second half
        for group in (*trainer.optimizer.param_groups, *optimizer.param_groups):
            group["lr"] = rate
        trainer.step()
        s = walkers.replay.read(walkers.replay.draw(cfg.world_model.batch, generator))
        x, together, samples = model.standardise(s.obs[..., : env.num_obs]), s.keep[1:] > 0, samples + s.keep.numel()
        optimizer.zero_grad()
        one_step.loss(x[:-1][together], s.action[1:][together], x[1:][together]).backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    others = Walkers(loaded, cfg, 512, 1_000_003, None)
    for _ in range(40):  # until commands have changed and episodes have ended
        others.walk()
    with torch.no_grad():
        errors, velocity = examine(model, one_step, others.record(PAST + AHEAD), env.num_obs)
    return {"errors": errors, "velocity_rms": velocity, "samples": samples, "seconds": seconds}


def arrival(rows: Rows) -> dict[str, float] | None:
    """Return the first of two evaluations in a row that reach the target, None if there are none."""
    return next((a for a, b in itertools.pairwise(rows) if reached(a) and reached(b)), None)


def imagination(seeds: int) -> dict[str, list[Rows]]:
    """Train balance with and without imagined rollouts; return the evaluations of every contestant and seed."""
    results: dict[str, list[Rows]] = {name: [] for name in CONTESTANTS}
    for seed, (name, (changes, every, most)) in itertools.product(range(seeds), CONTESTANTS.items()):
        print(f"seed {seed}: {NAMES[name]}", file=sys.stderr)
        judge = ArrivalJudge("quadruped-balance", seed, 3600.0, most, (), every=every)
        results[name].append(train_foal("quadruped-balance", seed, judge, changes))
    return results


class ArrivalJudge(Judge):
    """Ends a training some evaluations after it has arrived."""

    def done(self, env_steps: int, policy: Any) -> bool:
        """Hear that an iteration has ended; return whether to stop."""
        found = arrival(self.rows)
        enough = found is not None and len(self.rows) >= self.rows.index(found) + 8
        return super().done(env_steps, policy) or enough


def summary(trainings: Sequence[Rows]) -> dict[str, Any]:
    """Return env_steps and seconds until each seed arrived, None for those that did not, and the median of steps."""
    arrivals = [arrival(rows) for rows in trainings]
    steps = [found["env_steps"] if found else None for found in arrivals]
    middle = statistics.median(float("inf") if x is None else x for x in steps)
    return {"env_steps": steps, "seconds": [found["seconds"] if found else None for found in arrivals], "median": middle}


def plot(path: str, results: dict[str, list[Rows]]) -> None:
    """Draw survival over env steps, a line per seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for (name, trainings), colour, dashes in zip(results.items(), ("0.7", "0.4", "tab:blue", "tab:red"), (":", ":", "--", "-"), strict=True):
        for seed, rows in enumerate(trainings):
            label = NAMES[name] if seed == 0 else None
            axes.plot([r["env_steps"] for r in rows], [r["survival"] for r in rows], dashes, color=colour, label=label, linewidth=1.8)
    axes.axhline(0.95, color="0.6", linewidth=0.8, zorder=0)
    axes.set(xscale="log", xlabel="real env steps (50 are a second of a robot's life)", ylabel="survival", title="quadruped-balance")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_csv(path: str, results: dict[str, list[Rows]]) -> None:
    """Write every evaluation as a line."""
    lines = [{"contestant": name, "seed": seed} | row for name, trainings in results.items() for seed, rows in enumerate(trainings) for row in rows]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def report_open_loop(found: dict[str, Any], about: dict[str, object]) -> dict[str, Any]:
    """Print the table of errors; return what --json prints of it."""
    errors = found["errors"]
    rows = [("", *errors["world model"])] + [(name, *(f"{x:.3f}" for x in groups.values())) for name, groups in errors.items()]
    machine.table(f"Error after {AHEAD} control steps unseen; {found['samples'] / 1e6:.1f} M samples, {found['seconds']:.0f} s", rows, about)
    print(f"base velocity from what is seen now: {found['velocity_rms']:.3f} m/s RMS")
    return {"open_loop_error_ratio": errors["world model"]["all"] / errors["one-step model"]["all"], "velocity_rms": found["velocity_rms"], "errors": errors}


def report_imagination(results: dict[str, list[Rows]], about: dict[str, object]) -> dict[str, Any]:
    """Print the table of arrivals; return what --json prints of it."""
    found = {name: summary(trainings) for name, trainings in results.items()}
    rows = [("", "env steps, by seed", "median", "seconds of training")]
    for name, x in found.items():
        steps, seconds = (", ".join("never" if y is None else f"{y:,.0f}" for y in x[key]) for key in ("env_steps", "seconds"))
        rows.append((NAMES[name], steps, f"{x['median']:,.0f}", seconds))
    machine.table("quadruped-balance: env steps to 95 % survival", rows, about)
    # over whichever of PPO's numbers of robots needs the fewest
    alone = min(x["median"] for name, x in found.items() if name != "imagination")
    return {"imagination_step_ratio": found["imagination"]["median"] / alone, "imagination": found}


def read_options() -> argparse.Namespace:
    """Return the command line, checked; leave with exit code 2 and one line where it is wrong."""
    options = machine.parser(__doc__.splitlines()[0])
    options.add_argument("--part", nargs="+", choices=("open-loop", "imagination"), default=["open-loop", "imagination"], metavar="NAME", help="of both")
    options.add_argument("--seeds", type=int, metavar="N", help="trainings of every contestant; 3, or 1 with --quick, if not given")
    options.add_argument("--checkpoint", type=Path, default=WALK, metavar="PATH", help=f"whose policy walks (default {WALK.name})")
    options.add_argument("--csv", metavar="FILE", help="write every evaluation to a file")
    options.add_argument("--plot", metavar="FILE", help="draw survival over env steps, as .png, .pdf or .svg")
    args = options.parse_args()
    args.seeds = (1 if args.quick else 3) if args.seeds is None else args.seeds
    if args.seeds < 1:
        options.error(f"--seeds: expected at least 1, got {args.seeds}")
    return args


def main() -> None:
    """Measure, print the tables and, with --json, the result."""
    args = read_options()
    about, result = machine.describe("torch", "numba", "numpy"), {}
    torch.set_num_threads(1)  # threads have robots of their own
    try:
        if "open-loop" in args.part:
            result |= report_open_loop(open_loop(args.checkpoint, args.quick), about)
    except ConfigError as error:
        print(f"benchmarks.world_model: {error}", file=sys.stderr)
        sys.exit(2)
    if "imagination" in args.part:
        results = imagination(args.seeds)
        result |= report_imagination(results, about)
        if args.csv:
            write_csv(args.csv, results)
        if args.plot:
            plot(args.plot, results)
    if args.json:
        machine.print_json(result | about)


if __name__ == "__main__":
    main()
