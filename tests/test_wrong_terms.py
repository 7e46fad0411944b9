"""What is wrong with terms of one's own is named, in a line."""

import pytest
from own_terms import FLAT, says, unique

from environments import registry
from environments.quadruped import command, observation, randomisation, renewal, reward, task, termination

pytestmark = pytest.mark.usefixtures("no_trace")


def test_what_is_wrong_with_a_term_is_named():
    @reward
    def misread(foot_hight):
        """A field that there is not."""
        return foot_hight[0]

    name = unique()
    task(name, FLAT, rewards={misread: 1.0})
    says(
        r"reward misread \(.*test_wrong_terms.py:\d+\): unknown parameter 'foot_hight'; did you mean foot_height",
        registry.make,
        name,
    )

    @observation(columns=3)
    def unmirrored(base_velocity):
        """No mirror."""
        return base_velocity

    says(
        r"observation unmirrored \(.*test_wrong_terms.py:\d+\): expected mirror",
        task,
        unique(),
        FLAT,
        observations=[unmirrored],
    )

    @observation(columns=4, mirror="number")
    def too_many(base_velocity):
        """Three numbers for four columns."""
        return base_velocity

    name = unique()
    task(name, FLAT, observations=[too_many])
    says(
        r"observation too_many \(.*test_wrong_terms.py:\d+\): expected 4 numbers, got 3",
        lambda: registry.make(name).init_state(),
    )

    @reward
    def broken(base_velocity):
        """An error of types."""
        return base_velocity + "m/s"

    name = unique()
    task(name, FLAT, rewards={broken: 1.0})
    says(r"reward broken \(.*test_wrong_terms.py:\d+\): ", lambda: registry.make(name).init_state())

    @renewal(sets="nowhere")
    def lost(ctrl_dt):
        """Sets what there is not."""
        return ctrl_dt

    name = unique()
    task(name, FLAT, renewals=[lost])
    says(r"renewal lost \(.*test_wrong_terms.py:\d+\): cannot set 'nowhere'", registry.make, name)


def test_weights_and_terms_belong_together():
    @reward
    def good(base_height):
        """Fine."""
        return base_height

    def bare(base_height):
        return base_height

    says(r"rewards: expected a weight for each term", task, unique(), FLAT, rewards=[good])
    says(r"rewards: unknown term 'goood'", task, unique(), FLAT, rewards={"goood": 1.0})
    says(r"expected functions under @reward, got bare", task, unique(), FLAT, rewards={bare: 1.0})
    says(r"expected functions under @termination, got reward good", task, unique(), FLAT, terminations=[good])
    says(r"reward good .*: expected a number as its weight, got '1'", task, unique(), FLAT, rewards={good: "1"})
    says(r"unknown base 'walk'", task, unique(), "walk")
    says(
        r"without: unknown observation or termination 'wings'; known: joint_angles",
        task,
        unique(),
        FLAT,
        without=["wings"],
    )
    says(r"expected a new name", task, FLAT, FLAT)

    @reward
    def goal(base_height):
        """A name that there is."""
        return base_height

    says(r"reward goal .*: expected a name of its own", task, unique(), FLAT, rewards={goal: 1.0})


def test_names_that_would_stand_for_two_things_are_refused():
    @reward
    def low(base_height, height=0.1):
        """The name of a weight as an option."""
        return base_height - height

    says(
        r"reward low .*: option height: expected a name of its own; there is reward.height",
        task,
        unique(),
        FLAT,
        rewards={low: 1.0},
    )

    @reward
    def near(base_height, swing=0.1):
        """An option."""
        return base_height - swing

    @reward
    def far(base_height, swing=0.2):
        """The same, with another default."""
        return base_height - swing

    says(
        r"reward far .*: option swing: expected a name of its own; there is one of reward near",
        task,
        unique(),
        FLAT,
        rewards={near: 1.0, far: 1.0},
    )

    @termination
    def tilted(up):
        """A name that there is."""
        return up[2] < 0.0

    says(
        r"termination tilted .*: expected a name of its own; there is termination tilted",
        task,
        unique(),
        FLAT,
        terminations=[tilted],
    )

    @reward
    def worded(base_height, swing="a"):
        """A text as default."""
        return base_height

    says(
        r"reward worded .*: option swing: expected a number, a pair of numbers or a truth value, got 'a'",
        task,
        unique(),
        FLAT,
        rewards={worded: 1.0},
    )


def test_what_a_term_gives_is_checked():
    @termination
    def angle(up):
        """An angle, not whether it is too large."""
        return up[2]

    name = unique()
    task(name, FLAT, terminations=angle)
    says(r"termination angle .*: expected a truth value, such as angle > 0.5", lambda: registry.make(name).init_state())

    @reward
    def forgetful(base_height):
        """No return."""
        base_height + 1.0

    name = unique()
    task(name, FLAT, rewards={forgetful: 1.0})
    says(r"reward forgetful .*: returns nothing$", lambda: registry.make(name).init_state())

    @termination
    def sometimes(base_velocity):
        """No return in one of two cases."""
        if base_velocity[0] > 1.0:
            return True

    name = unique()
    task(name, FLAT, terminations=sometimes)
    says(r"termination sometimes .*: returns nothing in some cases", lambda: registry.make(name).init_state())

    @reward
    def averaged(foot_height):
        """What tuples cannot do."""
        return foot_height.mean()

    name = unique()
    task(name, FLAT, rewards={averaged: 1.0})
    line = averaged.function.plain.__code__.co_firstlineno + 3
    says(rf"reward averaged .*: cannot be compiled: .*mean.* \(line {line}\)", lambda: registry.make(name).init_state())

    @observation(columns=4, node="legs", mirror="number")
    def heights(foot_height):
        """Left feet seen as right ones in no mirror."""
        return foot_height

    exchanges = r"observation heights .*: node legs: expected a mirror that exchanges left and right legs"
    says(exchanges, task, unique(), FLAT, observations=[heights])

    @randomisation(sets="up")
    def turned(up):
        """What belongs to the physics."""
        return up

    name = unique()
    task(name, FLAT, randomisations=[turned])
    says(r"randomisation turned .*: cannot set 'up'", registry.make, name)

    @observation(mirror="number", noise="noise_foot_height")
    def noisy(base_height):
        """Noise that there is not."""
        return base_height

    name = unique()
    task(name, FLAT, observations=[noisy])
    says(r"observation noisy .*: unknown noise 'noise_foot_height'", registry.make, name)
    says(r"expected sets, the names of what it sets", randomisation, lambda key: key)
    says(r"command .*: targets: unknown metric 'hop_eror'", command, unique(), [], noisy, [], {"hop_eror": (0.0, 1.0)})


def test_files_of_ones_own_that_cannot_be_imported_are_named_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "divided.py").write_text("x = 1\ny = 1 / 0\n")
    says(
        r"task: divided cannot be imported: ZeroDivisionError: division by zero \(.*divided.py:2\)",
        registry.default_cfg,
        "divided:x",
    )
    (tmp_path / "observation.py").write_text("")
    says(r"task: observation.py: expected another name", registry.default_cfg, "observation:x")
