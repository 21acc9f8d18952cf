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

#: Modules whose tests share what takes long to start, or take long themselves: the longest first, so that no process
#: is left with one of them when the others have nothing to do. Of each, one process has all tests ("!") or any (" ").
FIRST = (
    "! frontends/ui/test_create.py",
    "! frontends/ray/test_cluster.py",
    "  jobs/test_kills.py",
    "  faults/test_kills.py",
    "! frontends/ui/test_shelves.py",
    "! frontends/http/test_real.py",
    "! frontends/http/test_storyboards.py",
    "! models/test_ranks.py",
    "! frontends/test_runpod.py",
    "! worker/test_finishing.py",
    "! worker/test_sweeps.py",
    "! frontends/ui/test_improve.py",
    "! frontends/ui/test_screens.py",
    "! frontends/ui/test_studio.py",
    "! frontends/ui/test_sweep.py",
    "! frontends/ui/test_timeline.py",
    "! frontends/ui/test_apart.py",
    "! generation/test_keyframe.py",
    "! generation/test_edit.py",
    "! worker/test_batch.py",
    "  jobs/test_migrate.py",
    "  jobs/test_power_loss.py",
    "  service/test_uploader.py",
    "  models/test_pool.py",
    "  generation/test_ladder.py",
    "! frontends/http/test_images.py",
    "! frontends/http/test_models.py",
    "! frontends/test_client.py",
    "! frontends/test_prompt_help.py",
    "! frontends/test_runpod_handler.py",
    "! generation/test_draw.py",
    "! media/test_last_frame.py",
    "! models/test_layouts.py",
    "! test_end_to_end.py",
    "! training/test_evaluation.py",
    "! training/test_world.py",
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
    places = {line[2:]: (at, line[0] == "!") for at, line in enumerate(FIRST)}
    modules = {item.path: item.path.relative_to(here).as_posix() for item in items}
    for item in items:
        _, together = places.get(modules[item.path], (0, False))
        if together and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(modules[item.path]))
    items.sort(key=lambda item: places.get(modules[item.path], (len(FIRST), False))[0])
