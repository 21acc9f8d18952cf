"""One fork server for all tests here, and farms for each."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.farm import Farm, ForkServer
from jobs.postgres_server import Server, serving


@pytest.fixture(scope="session")
def server() -> Generator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def new_farm(server: ForkServer, tmp_path: Path) -> Generator[Callable[[str], Farm]]:
    """Makes farms by name, and closes them."""
    made: list[Farm] = []

    def make(name: str) -> Farm:
        made.append(Farm(tmp_path / name, server))
        return made[-1]

    yield make
    for farm in made:
        farm.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A running PostgreSQL server."""
    with serving() as server:
        yield server


@pytest.fixture
def picture() -> bytes:
    """A small PNG with something to see."""
    image = Image.new("RGB", (64, 64), (40, 90, 200))
    image.paste((220, 30, 30), (16, 20, 40, 44))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()
