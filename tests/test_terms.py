"""Terms of one's own: from the documentation's files, composed into the step, at the numbers that NumPy gives."""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracle import rotation
from own_terms import BALANCE, FLAT, says, unique

from environments import registry
from environments.quadruped import TASKS, Field, fields, observation, randomisation, renewal, reward, task, termination
from environments.quadruped.source import compiled
from physics import layout as L
from physics.random import uniform

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "terms.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT + (ROOT / "README.md").read_text(), re.DOTALL)
pytestmark = pytest.mark.usefixtures("no_trace")


@pytest.fixture(scope="module")
def documented(tmp_path_factory, no_trace):
    """Return the modules of the documentation's code, each a file outside the repository, by the task that it makes."""
    folder = tmp_path_factory.mktemp("documented")
    sys.path.insert(0, str(folder))
    modules = {}
    for number, block in enumerate(BLOCKS):
        name = f"documented_{number}"
        (folder / f"{name}.py").write_text(block)
        for made in re.findall(r'^task\("([^"]+)"', block, re.MULTILINE):
            modules[made] = name
    yield modules
    sys.path.remove(str(folder))


def run(name, n=64, steps=40, scale=0.3, **changes):
    """Return an environment after some steps, and its last state."""
    env = registry.make(name, num_envs=n, threads=1, env_cfg_override=changes)
    env.init_state(seed=1)
    random = np.random.default_rng(0)
    for _ in range(steps):
        state = env.step(scale * random.normal(size=(n, 12)))
    return env, state


def test_the_documentation_shows_every_kind_of_term(documented):
    assert set(documented) == {
        "high-steps",
        "higher-steps",
        "walk-seeing-feet",
        "walk-upright",
        "walk-worn",
        "walk-in-wind",
        "hop",
    }
    text = "".join(BLOCKS)
    assert all(
        f"@{kind}" in text for kind in ("reward", "observation", "termination", "randomisation", "renewal", "metric")
    )


def test_the_table_of_fields_is_the_one_in_the_documentation():
    assert fields.table() in DOCUMENT


def test_a_reward_term(documented):
    env, state = run(f"{documented['high-steps']}:high-steps")
    feet = env.engine.get_state().base_position  # where an episode ended, the robot is elsewhere already
    assert feet.shape == (64, 3)
    height, ground = env_feet(env)
    expected = ((1.0 - ground) * np.maximum(0.05 - height, 0.0) ** 2).sum(1)
    running = ~state.done
    np.testing.assert_allclose(
        env.reward_terms()["foot_clearance"][running], (-100.0 * 0.02 * expected)[running], rtol=1e-3, atol=1e-6
    )
    assert np.ptp(expected[running]) > 0
    shorter, _ = run(f"{documented['higher-steps']}:higher-steps")  # the README's
    np.testing.assert_array_equal(shorter.reward_terms()["foot_clearance"], env.reward_terms()["foot_clearance"])
    changed, _ = run(
        f"{documented['high-steps']}:high-steps", **{"reward.clearance": 0.1, "reward.foot_clearance": -7.0}
    )
    further = ((1.0 - ground) * np.maximum(0.1 - height, 0.0) ** 2).sum(1)
    np.testing.assert_allclose(
        changed.reward_terms()["foot_clearance"][running], (-7.0 * 0.02 * further)[running], rtol=1e-3, atol=1e-6
    )
    help_text = {f.name: f.metadata for f in type(env.cfg.reward).__dataclass_fields__.values()}
    assert help_text["foot_clearance"]["meaning"] == "Feet in the air below a height: how far, squared [m^2]"
    assert (help_text["clearance"]["meaning"], help_text["clearance"]["unit"]) == ("height that is asked for", "m")


def env_feet(env):
    """Return heights of the feet's lowest points (N, 4) and contacts (N, 4), by the privileged observation."""
    state = env._state
    return state.info["privileged"][:, env.columns("foot_heights", True)] / 10.0, state.obs[:, env.columns("contacts")]


def test_observations(documented):
    env, state = run(f"{documented['walk-seeing-feet']}:walk-seeing-feet")
    assert env.num_obs == 45
    np.testing.assert_array_equal(
        state.obs[:, env.columns("heights")], state.info["privileged"][:, env.columns("foot_heights", True)]
    )
    np.testing.assert_array_equal(state.obs[:, env.columns("flights")], env.field("air_time"))
    legs = [node for node in env.body.nodes if node.kind == "leg"]
    assert [len(node.columns) for node in legs] == [9, 9]
    assert legs[1].columns[-2:] == (37 + 2, 41 + 2)
    assert env.body.obs.columns[37:] == (38, 37, 40, 39, 42, 41, 44, 43)
    plain, _ = run(FLAT)
    np.testing.assert_array_equal(plain._state.obs, state.obs[:, :37])  # the others are as they were


def test_a_termination(documented):
    env, _ = run(f"{documented['walk-upright']}:walk-upright", n=256, steps=1, fall_tilt=3.0, fall_height=0.0)
    state = env.engine.get_state()
    roll = np.linspace(-0.9, 0.9, 256)
    env.engine.set_state(
        base_quaternion=np.stack([np.cos(roll / 2), np.sin(roll / 2), 0 * roll, 0 * roll], 1),
        base_position=state.base_position + [0, 0, 1.0],
        base_angular_velocity=0 * state.base_angular_velocity,
    )
    env.statistics()
    done = env.step(np.zeros((256, 12))).terminated
    away = np.abs(np.abs(roll) - 0.5) > 0.05  # a step turns it a little
    np.testing.assert_array_equal(done[away], (np.abs(roll) > 0.5)[away])
    counted = env.statistics()
    assert counted["end_rolled"] == done.sum() > 0
    assert sum(counted[name] for name in counted if name.startswith("end_")) == done.sum()
    assert env.statistics()["end_rolled"] == 0


def test_a_randomisation_acts_in_the_physics_and_is_the_same_for_any_threads(documented):
    name = f"{documented['walk-worn']}:walk-worn"
    env, _ = run(name, n=96, steps=1)
    rows = env.engine.model.varied_blocks.reshape(env.engine.num_blocks, -1, 32)
    first = L.VARIED_BASE_ROWS + L.V_FRICTION
    friction = np.concatenate(
        [rows[:, first + leg * L.VARIED_LEG_ROWS + j] for leg in range(4) for j in range(3)]
    ).reshape(12, -1)[:, :96]
    ratio = friction / env.robot.friction.reshape(12, 1)
    assert 0.5 <= ratio.min() < 0.6 and 2.9 < ratio.max() <= 3.0 * (1 + 1e-6)
    assert np.abs(np.corrcoef(ratio) - np.eye(12)).max() < 0.5  # each joint has its own
    several = registry.make(name, num_envs=96, threads=3)
    several.init_state(seed=1)
    several.step(0.3 * np.random.default_rng(0).normal(size=(96, 12)))
    np.testing.assert_array_equal(several.engine.blocks, env.engine.blocks)
    np.testing.assert_array_equal(several.engine.model.varied_blocks, env.engine.model.varied_blocks)


def test_joints_that_grip_harder_turn_less():
    @randomisation(sets="joint_friction")
    def jammed(nominal_joint_friction):
        """So much that nothing turns."""
        return 400.0, 400.0, 400.0

    @randomisation(sets="joint_friction")
    def smooth(nominal_joint_friction):
        """None."""
        return 0.0, 0.0, 0.0

    turned = []
    for term in (jammed, smooth):
        name = unique()
        task(name, BALANCE, randomisations=[term], changes={"reset.joint_velocity": 0.0, "push.speed": (0.0, 0.0)})
        env = registry.make(name, num_envs=32, threads=1)
        env.init_state(seed=0)
        before = env.engine.get_state().joint_position
        env.step(np.full((32, 12), 1.0))
        turned.append(np.abs(env.engine.get_state().joint_position - before).max())
    assert turned[0] < 0.1 * turned[1]


def test_a_command(documented):
    env, state = run(f"{documented['hop']}:hop", n=128, steps=150, scale=0.05)
    assert env.num_obs == 34 + 1
    height = env.engine.get_state().base_position[:, 2]
    asked = env.field("hop")[:, 0]
    assert env.robot.home_height <= asked.min() < asked.max() <= env.robot.home_height + 0.15
    assert (env.field("hop_in") > 0).all() and env.field("hop_in").max() <= 3.0
    np.testing.assert_allclose(state.obs[:, env.columns("hop_asked")][:, 0], 5.0 * (asked - height), atol=1e-4)
    np.testing.assert_allclose(env.errors()["hop_error"], np.abs(asked - height), atol=1e-5)
    assert env.targets == {"hop_error": (0.0, 0.03)}
    before = asked.copy()
    for _ in range(50):
        env.step(np.zeros((128, 12)))
    assert (env.field("hop")[:, 0] != before).mean() > 0.3
    calm, _ = run(f"{documented['hop']}:hop", **{"command.height": (0.05, 0.05)})
    np.testing.assert_allclose(calm.field("hop")[:, 0], env.robot.home_height + 0.05, rtol=1e-6)


def test_terms_of_a_leg_add_up_and_follow_one_another():
    @reward
    def turning(joint_velocity):
        """Joint velocities squared."""
        return joint_velocity[0] ** 2 + joint_velocity[1] ** 2 + joint_velocity[2] ** 2

    @observation(columns=8, node="legs", mirror="feet")
    def pairs(joint_position):
        """Thigh and calf [rad]."""
        return joint_position[1], joint_position[2]

    says("expected a mirror of 8 columns", task, unique(), FLAT, observations=[pairs])
    from environments import Mirror

    @observation(columns=8, node="legs", mirror=Mirror((2, 3, 0, 1, 6, 7, 4, 5), (1.0,) * 8))
    def thighs_and_calves(joint_position):
        """Thigh and calf [rad]."""
        return joint_position[1], joint_position[2]

    name = unique()
    task(name, FLAT, rewards={turning: -1e-3}, observations=[thighs_and_calves])
    env, state = run(name)
    running = ~state.done
    found = env.engine.get_state()
    np.testing.assert_allclose(
        env.reward_terms()["turning"][running], -2e-5 * (found.joint_velocity**2).sum(1)[running], rtol=1e-4, atol=1e-8
    )
    expected = found.joint_position.reshape(-1, 4, 3)[..., 1:].reshape(-1, 8)
    np.testing.assert_array_equal(state.obs[:, env.columns("thighs_and_calves")], expected)


def test_the_rewards_floor_is_an_option():
    results = {}
    for floor in (True, False):
        env = registry.make(
            BALANCE, num_envs=32, threads=1, env_cfg_override={"reward.alive": -3.0, "reward.floor": floor}
        )
        env.init_state(seed=0)
        results[floor] = env.step(np.zeros((32, 12))).reward.copy()
    assert (results[True] == 0).any() and (results[True] >= 0).all()
    assert (results[False] < 0).any()
    np.testing.assert_array_equal(results[True], np.maximum(results[False], 0))


def test_sums_of_terms_are_counted_over_the_robots_that_there_are():
    env = registry.make(BALANCE, num_envs=37, threads=2)
    env.init_state(seed=0)
    env.statistics()
    total = {}
    for _ in range(12):
        env.step(np.random.default_rng(0).normal(size=(37, 12)))
        for name, values in env.reward_terms().items():
            total[name] = total.get(name, 0.0) + values.sum(dtype=float)
    found = env.statistics()
    names = [name for name in found if name.startswith("reward_")]
    assert names == [f"reward_{name}" for name in total]
    for name in names:
        assert found[name] == pytest.approx(total[name.removeprefix("reward_")], rel=1e-4, abs=1e-6)


def test_plain_functions_compile_to_real_numbers_alone():
    factor = 0.3

    def helper(x):
        return 2 * x if x > 0 else 1 / 4

    def term(base_height, home_height):
        total = 0
        for _ in range(3):
            total += helper(base_height) * factor + min(home_height, 1)
        return total**2 - 1

    made = compiled(term)
    from physics.jit import real

    assert made(0.5, 0.25) == pytest.approx((3 * (1.0 * 0.3 + 0.25)) ** 2 - 1, rel=1e-6)
    assert type(made(0.5, 0.25)) in (float, real)
    (signature,) = made.inline.signatures
    assert [str(kind) for kind in signature] == [str(np.dtype(real))] * 2
    assert str(made.inline.overloads[signature].signature.return_type) == str(np.dtype(real))


def test_a_renewals_own_field_begins_as_it_says_and_counts_down():
    @renewal(
        sets=("count", "wait"),
        keeps=(Field("count", 1, "1", "how often", 0.0), Field("wait", 1, "s", "until then", 0.1)),
        due="wait",
    )
    def tick(count):
        """Count the tenths of a second."""
        return count + 1.0, 0.1

    @termination
    def late(count, last=1e9):
        """After so many."""
        return count >= last

    name = unique()
    task(name, BALANCE, renewals=[tick], terminations=[late], changes={"push.speed": (0.0, 0.0)})
    env = registry.make(name, num_envs=32, threads=1)
    env.init_state(seed=0)
    counts = [int(env.step(np.zeros((32, 12))) and env.field("count")[0, 0]) for _ in range(30)]
    assert counts[-1] in (5, 6) and counts == sorted(counts) and set(np.diff(counts)) == {0, 1}
    short = registry.make(name, num_envs=32, threads=1, env_cfg_override={"termination.last": 2.0})
    short.init_state(seed=0)
    ends = [short.step(np.zeros((32, 12))).terminated.all() for _ in range(30)]
    assert any(ends)
    assert short.field("count").max() <= 2


def test_every_built_in_task_composes_and_its_mirror_images_are_whole():
    for name, made in TASKS.items():
        if not name.startswith(("quadruped-", "anymal-")):
            continue
        env = registry.make(name, num_envs=1, threads=1)
        assert sorted(env.body.obs.columns) == list(range(env.num_obs)), name
        assert sorted(env.body.privileged.columns) == list(range(env.num_privileged)), name
        assert made.terms.command.targets == env.targets


def test_random_numbers_of_two_terms_differ_and_the_turned_base_does_not_matter():
    @renewal(sets="left", keeps=Field("left", 1, "1", "a draw", 0.0))
    def left_draw(key):
        """A draw."""
        return uniform(key, 0, 0.0, 1.0)

    @renewal(sets="right", keeps=Field("right", 1, "1", "another", 0.0))
    def right_draw(key):
        """Another."""
        return uniform(key, 0, 0.0, 1.0)

    name = unique()
    task(name, BALANCE, renewals=[left_draw, right_draw])
    env, _ = run(name, n=2048, steps=2)
    left = env.field("left")[:, 0]
    right = env.field("right")[:, 0]
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.1
    assert 0.45 < left.mean() < 0.55 and 0.27 < left.std() < 0.31
    heading = env.heading_velocity()
    state = env.engine.get_state()
    R = rotation(state.base_quaternion)
    ahead = R[:, :2, 0] / np.linalg.norm(R[:, :2, 0], axis=1, keepdims=True)
    np.testing.assert_allclose(heading[:, 0], (ahead * state.base_linear_velocity[:, :2]).sum(1), atol=1e-5)


@pytest.mark.parametrize("walk", ["flat", "robust", "rough", "stairs"])
def test_what_other_trainers_policies_see_is_45_numbers(walk):
    env = registry.make(f"quadruped-walk-{walk}-deploy")
    seen = {term.name: term.columns for term in env.terms.columns}
    assert seen == {
        "joint_angles": 12, "joint_speeds": 12, "gravity_direction": 3, "angular_velocity": 3, "velocity_asked": 3,
        "latest_action": 12,
    }  # fmt: skip
    assert env.num_obs == 45
    # the action before is hidden no more; on hard ground contacts are, for a teacher
    hidden = 4 * (walk in ("rough", "stairs")) - 12
    assert env.num_privileged == registry.make(f"quadruped-walk-{walk}").num_privileged + hidden
    (trunk, *legs) = env.body.nodes
    assert [len(node.columns) for node in (trunk, *legs)] == [9, 9, 9, 9, 9][: 1 + len(legs)]


HELPED = """
from environments.quadruped import reward, task
from helped_by import FACTOR, shape


@reward
def helped(base_height):
    return FACTOR * shape(base_height)


task("helped", "quadruped-walk-flat", "walk", rewards={helped: 1.0})
"""


def test_what_a_term_calls_in_other_files_is_compiled_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "helped_terms.py").write_text(HELPED)
    found = set()
    for power, factor in ((1, 1.0), (2, 1.0), (2, 3.0)):
        text = f"FACTOR = {factor}\n\n\ndef shape(x):\n    return x**{power}\n"
        (tmp_path / "helped_by.py").write_text(text)
        for name in ("helped_by", "helped_terms"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        helped = importlib.import_module("helped_terms").helped
        assert helped(0.5) == pytest.approx(factor * 0.5**power)
        found.add(helped.function.identity)
        assert helped.function.identity == compiled(helped.function.plain).identity
        TASKS.pop("helped")
        registry._TASKS.pop("helped")
    assert len(found) == 3


def test_columns_have_scales_and_bounds():
    @observation(columns=2, scale=(2.0, 1e9), mirror="number")
    def two(base_height):
        return base_height, base_height

    name = unique()
    task(name, FLAT, "walk", observations=[two])
    env, state = run(name, n=4, steps=1)
    columns = state.obs[:, env.columns("two")]
    np.testing.assert_allclose(columns[:, 1], 1000.0)  # the most
    assert 0.3 < columns[0, 0] < 0.8
    assert two.scales() == (2.0, 1e9)
    says("expected one scale, or one for each of 3 columns", replace(two, columns=3, scale=(1.0, 2.0)).scales)
