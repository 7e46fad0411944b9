"""Puts the repository on the path; physics comes before torch, for it sets how torch's threads wait."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import physics  # noqa: F401
