"""docs/configuration.md is what the schema says."""

import configuration_reference

from config import Config
from settings import knobs, sections


def test_the_reference_is_that_of_the_schema():
    assert configuration_reference.PATH.read_text() == configuration_reference.reference(), (
        "run: python tests/configuration_reference.py"
    )


def test_every_field_says_what_it_means():
    for name, section in sections(Config()).items():
        assert section.__doc__, name
        for field in knobs(section):
            assert field.metadata["meaning"], f"{name}.{field.name}"
