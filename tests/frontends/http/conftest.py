"""Places for the tests of the API; see `places`."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from wanreel.core.settings import load_settings
from wanreel.wiring import build_runtime, build_service

sys.path.insert(0, str(Path(__file__).parents[2]))

from frontends.http.places import Open, Place, places


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job database without jobs, made once: making one takes longer than most tests."""
    runtime = build_runtime(load_settings(data_dir=tmp_path_factory.mktemp("empty")))
    build_service(runtime).close()
    return runtime.settings.data.database


@pytest.fixture
def open_place(tmp_path: Path, empty_database: Path) -> Iterator[Open]:
    """Makes Places, and closes them at the end."""
    with places(tmp_path, empty_database) as make:
        yield make


@pytest.fixture
def place(open_place: Open) -> Place:
    """One without keys, as on a laptop."""
    return open_place()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Place]:
    """The same for all tests of a module: for those that leave nothing behind."""
    with places(tmp_path_factory.mktemp("shared"), empty_database) as make:
        yield make()


@pytest.fixture
def picture() -> bytes:
    """A small PNG."""
    data = io.BytesIO()
    Image.new("RGB", (96, 64), (200, 30, 30)).save(data, "PNG")
    return data.getvalue()
