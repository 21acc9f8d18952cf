"""Training lies beside the package: these tests need the repository's root on the path, and the development extras."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
pytest.importorskip("skimage", reason="the evaluation's photographs come with scikit-image")
