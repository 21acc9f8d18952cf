"""Lets the tests of the store import what they share, as `jobs.places`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
