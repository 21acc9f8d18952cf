"""Makes `generation.factory` importable for these tests, and names the one foreign warning that is no fault of ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))


def pytest_configure(config: pytest.Config) -> None:
    # Diffusers' DPM-Solver hands a tensor to np.array, which numpy 2 wants done otherwise.
    config.addinivalue_line(
        "filterwarnings", "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
    )
