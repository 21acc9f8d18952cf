"""The shelf: names, copies, files used where they lie, and what must never be on it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from wanreel import demo
from wanreel.core.errors import BrokenWeights, InsufficientStorage, InvalidRequest
from wanreel.models.lora import shelf as module
from wanreel.models.lora.shelf import LoraShelf, name_for
from wanreel.storage.digests import Digests

GOLD = demo.lora_paths()["gold"]


@pytest.fixture
def shelf(tmp_path: Path) -> LoraShelf:
    return LoraShelf(tmp_path / "loras", Digests(tmp_path / "digests.json"))


def names(shelf: LoraShelf) -> list[str]:
    return [lora.name for lora in shelf.list()]


def test_what_ships_is_there(shelf: LoraShelf) -> None:
    assert names(shelf) == ["gold"]
    gold = shelf.get("gold")
    assert gold.builtin and gold.path == GOLD
    with pytest.raises(InvalidRequest, match="ships"):
        shelf.remove("gold")


def test_a_copy_and_a_file_where_it_lies(shelf: LoraShelf, tmp_path: Path) -> None:
    mine = tmp_path / "My style (v2).safetensors"
    mine.write_bytes(GOLD.read_bytes())
    copied, kept = shelf.add(mine), shelf.add(mine, "kept", keep=True)
    assert copied.name == "My-style-v2" and not copied.elsewhere
    assert kept.elsewhere and kept.path == mine
    assert names(shelf) == ["gold", "kept", "My-style-v2"]
    assert shelf.sha256(copied) == shelf.sha256(kept) == shelf.sha256(shelf.get("gold"))
    assert shelf.add(mine, "kept", keep=True) == kept
    mine.unlink()
    shelf.read("My-style-v2")
    with pytest.raises(BrokenWeights, match="can't be read"):
        shelf.read("kept")
    shelf.remove("kept")
    shelf.remove("My-style-v2")
    assert names(shelf) == ["gold"] and not list(shelf.root.iterdir())


def test_removing_a_kept_file_leaves_it(shelf: LoraShelf, tmp_path: Path) -> None:
    mine = tmp_path / "x.safetensors"
    mine.write_bytes(GOLD.read_bytes())
    shelf.add(mine, keep=True)
    shelf.remove("x")
    assert mine.exists()


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/x", "a b", "-x", ".x", "x" * 65, "x\n", "ä"])
def test_names_never_leave_the_folder(shelf: LoraShelf, tmp_path: Path, name: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(GOLD.read_bytes())
    for use in (shelf.get, shelf.remove, lambda it: shelf.add(GOLD, it), lambda it: shelf.take(io.BytesIO(), it)):
        with pytest.raises(InvalidRequest):
            use(name) if name else use("..")
    assert names(shelf) == ["gold"]


def test_links_folders_and_odd_names_are_not_on_it(shelf: LoraShelf, tmp_path: Path) -> None:
    shelf.root.mkdir()
    (tmp_path / "secret.safetensors").write_bytes(GOLD.read_bytes())
    (shelf.root / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (shelf.root / "folder.safetensors").mkdir()
    (shelf.root / ".hidden.safetensors").write_bytes(GOLD.read_bytes())
    (shelf.root / "a b.safetensors").write_bytes(GOLD.read_bytes())
    (shelf.root / "pickle.pt").write_bytes(b"\x80\x04")
    (shelf.root / "relative.json").write_text(json.dumps({"path": "x.safetensors"}))
    (shelf.root / "nonsense.json").write_text("[1]")
    assert names(shelf) == ["gold"]
    for name in ("link", "folder", "relative", "nonsense"):
        with pytest.raises(InvalidRequest):
            shelf.get(name)


def test_a_near_name_is_suggested(shelf: LoraShelf) -> None:
    with pytest.raises(InvalidRequest) as caught:
        shelf.get("gould")
    assert "gold" in caught.value.problems[0].hint


def test_pairs_find_each_other(shelf: LoraShelf) -> None:
    for name in ("style_high_noise", "style_low_noise", "other_high_noise", "lonely-HIGH"):
        shelf.add(GOLD, name)
    partners = {lora.name: it.name if (it := shelf.partner(lora)) else None for lora in shelf.list()}
    assert partners == {
        "gold": None,
        "lonely-HIGH": None,
        "other_high_noise": None,
        "style_high_noise": "style_low_noise",
        "style_low_noise": "style_high_noise",
    }


def test_too_much_is_stopped_while_it_comes(shelf: LoraShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(BrokenWeights, match="more than"):
        shelf.take(io.BytesIO(GOLD.read_bytes()), "x")
    assert not list(shelf.root.iterdir())


def test_a_disk_that_refuses(shelf: LoraShelf, tmp_path: Path) -> None:
    shelf.root.write_text("in the way")
    with pytest.raises(InsufficientStorage):
        shelf.add(GOLD, "x")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.safetensors", "a"),
        ("ä ö.safetensors", "lora"),
        ("_x.safetensors", "x"),
        ("é/b c.x", "b-c.x"),
        ("x" * 99, "x" * 64),
    ],
)
def test_names_from_files(file: str, name: str) -> None:
    assert name_for(file) == name
