"""What tests of terms of one's own have in common."""

import itertools

import pytest

from settings import ConfigError

FLAT = "quadruped-walk-flat"
BALANCE = "quadruped-balance"
_names = itertools.count()


def unique():
    """Return a name that no task has."""
    return f"test-terms-{next(_names)}"


def says(pattern, function, *arguments, **named):
    with pytest.raises(ConfigError, match=pattern) as caught:
        function(*arguments, **named)
    assert "\n" not in str(caught.value)
