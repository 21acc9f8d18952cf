"""Helpers of these tests are found as `frontends.…`. One `wanreel serve` with a worker for all who need one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from frontends.http.started import Served, serve


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """For tests of the group "http_server". Its worker takes seconds to import torch, so it is started once."""
    with serve(tmp_path_factory.mktemp("served")) as running:
        yield running
