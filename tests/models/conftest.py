"""Makes `models.architectures` importable for these tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from models.wardrobe import Wardrobe

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture
def wardrobe(tmp_path: Path) -> Wardrobe:
    """An empty one. Imported here, as most tests of models wear nothing."""
    from models.wardrobe import Wardrobe
    from wanreel.models.lora.shelf import LoraShelf
    from wanreel.storage.digests import Digests

    return Wardrobe(LoraShelf(tmp_path / "loras", Digests(tmp_path / "digests.json")))
