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

#: Modules whose tests share what takes long to start: one process has all of them, so that it starts once.
TOGETHER = (
    "frontends/http/test_real.py",
    "frontends/http/test_storyboards.py",
    "frontends/ray/test_cluster.py",
    "frontends/ui/test_create.py",
    "frontends/ui/test_improve.py",
    "frontends/ui/test_shelves.py",
    "frontends/ui/test_timeline.py",
    "generation/test_edit.py",
    "generation/test_keyframe.py",
    "models/test_ranks.py",
    "worker/test_batch.py",
    "worker/test_finishing.py",
    "worker/test_sweeps.py",
)

settings.register_profile("wanreel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wanreel")


@pytest.fixture(scope="session")
def s3() -> Iterator[Seaweed]:
    """An S3 server. Tests that use it are of xdist's group "s3", so that one is enough."""
    sys.path.insert(0, str(Path(__file__).parent))
    from storage.seaweed import seaweed

    with seaweed() as server:
        yield server


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        name = item.path.relative_to(here).as_posix()
        if name in TOGETHER and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(name))
