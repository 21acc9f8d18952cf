"""A hub on this machine, and a registry that may ask it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from models.hub_server import HubServer, hub_server
from models.registry.place import FILES, REPO, registry_of
from wanreel.models.registry import Registry


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def hub() -> Generator[HubServer]:
    with hub_server(**{REPO: dict(FILES)}) as server:
        yield server


@pytest.fixture
def registry(hub: HubServer, tmp_path: Path) -> Registry:
    return registry_of(hub, tmp_path / "models")
