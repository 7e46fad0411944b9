"""Policies of one's own: the protocol, and the examples that keep to it."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import policy
from config import Config, NetworkCfg
from entity import Creature
from environments import registry
from settings import ConfigError, override
from training import checkpoint
from training.engine import TrainingEngine
from training.export import SHORT, Exported, write_onnx

ROOT = Path(__file__).parent.parent
EXAMPLES = ("examples.mlp:MLP", "examples.transformer:Transformer")
GOOD = re.search(r"```python\n(# my_policy.py.*?)```", (ROOT / "docs" / "your_own_policy.md").read_text(), re.S)[1]
pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture(scope="module")
def env():
    return registry.make("quadruped-balance", num_envs=64, threads=1)


def creature(name, env, bound=0.0):
    return Creature(env, NetworkCfg(policy=name, bound=bound), Config().world_model)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_sequence_gives_what_its_steps_give(name, env):
    made = creature(name, env).belief
    steps = 21  # longer than the transformer's window
    n = 5
    obs = torch.randn(steps, n, env.num_obs)
    starts = (torch.rand(steps, n) < 0.1).float()
    made.observe(3 * torch.randn(500, env.num_obs), torch.randn(500, env.num_privileged))
    for p in made.parameters():
        p.data += 0.1 * torch.randn_like(p)
    mean, last = made.evaluate(obs, made.initial_state(n), starts)
    state = made.initial_state(n)
    for t in range(steps):
        _, found, state = made.act(obs[t], state, starts[t])
        torch.testing.assert_close(found, mean[t], rtol=1e-4, atol=1e-4)
    for a, b in zip(state, last, strict=True):
        torch.testing.assert_close(a, b)
    assert mean.std() > 0.01


def test_the_transformer_sees_its_window_alone_and_no_earlier_episode(env):
    made = creature(EXAMPLES[1], env).belief
    for p in made.parameters():
        p.data += 0.1 * torch.randn_like(p)
    obs = torch.randn(12, 2, env.num_obs)
    other = obs.clone()
    other[3] += 1.0
    starts = torch.zeros(12, 2)
    starts[5, 1] = 1.0
    a, b = (made.evaluate(x, made.initial_state(2), starts)[0] for x in (obs, other))
    changed = (a - b).abs().amax(-1) > 1e-5
    assert changed[:, 0].tolist() == [False] * 3 + [True] * 8 + [False]
    assert changed[:, 1].tolist() == [False] * 3 + [True] * 2 + [False] * 7


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_learns_and_resumes(name, env, tmp_path):
    changes = {"network.policy": name, "train.num_envs": 64, "ppo.rollout": 8, "ppo.minibatches": 2}
    cfg = override(Config(env=registry.default_cfg("quadruped-balance")), changes)
    made = creature(name, env)
    engine = TrainingEngine(env, made, cfg, torch.device("cpu"))
    before = [p.detach().clone() for p in made.parameters()]
    for _ in range(2):
        metrics = engine.iterate()
    assert not metrics["skipped_gradients"] and np.isfinite(metrics["value_loss"])
    assert not any(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
    checkpoint.save(tmp_path / "c.pt", made, cfg, {}, engine.trainer_state())
    loaded = checkpoint.load(tmp_path / "c.pt", modules=[name])
    again = loaded.creature(env)
    other = TrainingEngine(env, again, cfg, torch.device("cpu"))
    other.load_trainer_state(loaded.trainer, "c.pt")
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True))
    for a, b in zip(engine.optimizer.moments(), other.optimizer.moments(), strict=True):
        assert torch.equal(a["exp_avg"], b["exp_avg"])
    other.iterate()


@pytest.mark.parametrize(("name", "bound"), [(EXAMPLES[0], 0.0), (EXAMPLES[1], 0.0), (EXAMPLES[0], 0.01)])
def test_a_policy_exported_acts_as_it_does(name, bound, env, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    made = creature(name, env, bound)
    write_onnx(Exported(made, env).eval(), env.num_obs, {}, tmp_path / "p.onnx", 18)
    session = onnxruntime.InferenceSession(str(tmp_path / "p.onnx"))
    names = [x.name for x in session.get_inputs()]
    assert names == ["obs", *(f"{SHORT.get(name, name)}_in" for name in made.belief.state_names)]
    remembered = [np.zeros(x.shape, np.float32) for x in session.get_inputs()[1:]]
    memory = made.initial_state(1)
    for obs in torch.randn(12, 1, env.num_obs):
        action, _, memory = made.act(obs, memory)
        exported, *remembered = session.run(None, dict(zip(names, [obs.numpy(), *remembered], strict=True)))
        np.testing.assert_allclose(exported, action.numpy(), atol=1e-4 if not bound else 1e-5)
        assert not bound or 0.5 * bound < action.abs().max() <= bound


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def value_of", "def values_of", "network.policy: NAME:Plain: expected a method value_of()"),
        ("self.log_std =", "self.log_sigma =", "Plain: expected log_std, a parameter (12), or a method std()"),
        (
            "return self.actor(self.standardise(obs)), state",
            "return self.actor(self.standardise(obs)).transpose(0, 1), state",
            "Plain.evaluate(obs, state, starts): expected shape (3, 2, 12), got (2, 3, 12)",
        ),
        (
            "return self.actor(self.standardise(obs)), state",
            "return self.actor(self.standardise(obs)).cumsum(0), state",
            "Plain.evaluate(): expected of 3 steps at once the actions of one after another",
        ),
        ("[:, 0]", "", "Plain.value_of(features): expected shape (3, 2), got (3, 2, 1)"),
        (
            "self.log_std =",
            "self.idle = nn.Parameter(torch.zeros(1))\n        self.log_std =",
            "Plain: idle: expected a parameter that actions or values depend on",
        ),
        ("self.critic", "self.other", "expected parameters of a critic, whose names begin with value or critic"),
        (
            "    def evaluate",
            "    def initial_state(self, n):\n        return (torch.ones(3, n),)\n\n    def evaluate",
            "Plain.initial_state(N): expected zeros, as of robots that have seen nothing",
        ),
        (
            "    def evaluate",
            "    def initial_state(self, n):\n        return torch.zeros(3, n)\n\n    def evaluate",
            "Plain.initial_state(N): expected a tuple of tensors (..., N), robots last",
        ),
        (
            "    def evaluate",
            '    state_names = ("a", "b")\n\n    def evaluate',
            "Plain.state_names: expected 0 names, got 2",
        ),
    ],
)
def test_what_does_not_keep_to_the_protocol_is_said_in_a_line(old, new, message, env, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"own_policy_{zlib.crc32((old + new).encode())}"
    (tmp_path / f"{name}.py").write_text(GOOD)
    assert old in GOOD
    (tmp_path / f"{name}.py").write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(message.replace("NAME", name))):
        creature(f"{name}:Plain", env)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MLP", "network.policy: expected module:Class, such as examples.mlp:MLP, got 'MLP'"),
        ("examples.mpl:MLP", "expected a module that can be imported"),
        ("examples.mlp:MPL", "expected a class of policy.Policy in examples.mlp, did you mean MLP?"),
        ("examples.mlp:layers", "expected a class of policy.Policy in examples.mlp"),
    ],
)
def test_a_class_that_there_is_not_is_named(name, message, env):
    with pytest.raises(ConfigError, match=re.escape(message)):
        creature(name, env)


def test_a_policy_that_reads_no_world_model_is_not_given_one(env):
    cfg = override(Config(env=env.cfg), {"world_model.role": "belief"})
    with pytest.raises(ConfigError, match=r"examples.mlp:MLP does not read a world model"):
        Creature(env, NetworkCfg(policy=EXAMPLES[0]), cfg.world_model)


def test_a_policy_of_ones_own_may_read_a_world_model(env, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_reader.py").write_text(
        "from entity import EntityBelief\n\n\nclass Reader(EntityBelief):\n    pass\n"
    )
    world = override(Config(env=env.cfg), {"world_model.role": "belief", "world_model.deter": 32}).world_model
    made = Creature(env, NetworkCfg(policy="own_reader:Reader"), world)
    torch.nn.init.normal_(made.belief.encoder)
    torch.nn.init.normal_(made.belief.policy)
    policy.check(made.belief, env, (made.world_model.sides, made.world_model.deter))
    memory = made.initial_state(4)
    assert memory.latent.shape[-1] == 4
    action, _, after = made.act(torch.randn(4, env.num_obs), memory)
    assert action.shape == (4, 12) and after.latent.any()


def test_the_belief_keeps_to_the_protocol(env):
    for changes in ({}, {"recurrent": False}, {"attention": False, "symmetric": False}):
        policy.check(creature("entity:EntityBelief", env).belief, env)
        policy.check(Creature(env, NetworkCfg(**changes), Config().world_model).belief, env)
