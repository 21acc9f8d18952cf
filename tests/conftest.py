"""Shared by all tests: hypothesis must not fail because the machine is busy, and no test may reach a model hub."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from storage.seaweed import Seaweed

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("wanreel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wanreel")


@pytest.fixture(scope="session")
def s3() -> Iterator[Seaweed]:
    """An S3 server. Tests that use it are of xdist's group "s3", so that one is enough."""
    sys.path.insert(0, str(Path(__file__).parent))
    from storage.seaweed import seaweed

    with seaweed() as server:
        yield server
