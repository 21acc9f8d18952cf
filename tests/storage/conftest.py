"""Parts of the tests of storage."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from storage.fault_proxy import FaultProxy, fault_proxy

if TYPE_CHECKING:
    from storage.seaweed import Seaweed


@pytest.fixture
def proxy(s3: Seaweed) -> Iterator[FaultProxy]:
    """In front of the S3 server, behaving until it is told otherwise."""
    with fault_proxy(s3.url) as made:
        yield made
