"""Blobs and the names of results."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wanreel.core.errors import InsufficientStorage, InvalidRequest
from wanreel.storage.disk import Blobs, BlobStore, MemoryBlobs
from wanreel.storage.outputs import MAX_SLUG_BYTES, reserve, slug

NOW = datetime(2026, 11, 21, 7, 15, 0)


@pytest.fixture(params=["disk", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return BlobStore(tmp_path / "blobs") if request.param == "disk" else MemoryBlobs()


def test_what_is_put_is_there(blobs: Blobs) -> None:
    name = blobs.put(b"bytes")
    assert name == hashlib.sha256(b"bytes").hexdigest()
    assert blobs.put(b"bytes") == name
    assert blobs.has(name) and blobs.open(name) == b"bytes"
    assert not blobs.has("0" * 64)
    with pytest.raises(InvalidRequest, match="no longer here"):
        blobs.open("0" * 64)


def test_damage_is_noticed_and_half_files_are_none(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    name = store.put(b"bytes")
    path = next(path for path in tmp_path.rglob(name))
    path.write_bytes(b"bytez")
    with pytest.raises(InvalidRequest, match="damaged"):
        store.open(name)
    path.write_bytes(b"byt")
    store.put(b"bytes")
    assert store.open(name) == b"bytes", "a file of the wrong length is written again"
    store.delete(name)
    assert not store.has(name)


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "a" * 63, "A" * 64, "/etc/passwd", "0" * 64 + "/x", "0" * 64 + "\n"]
)
def test_only_digests_name_blobs(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        BlobStore(tmp_path).open(name)
    with pytest.raises(InvalidRequest):
        BlobStore(tmp_path).has(name)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("the camera slowly pushes in", "the-camera-slowly-pushes-in"),
        ("  A Red CIRCLE!!  ", "a-red-circle"),
        ("../../etc/passwd", "etc-passwd"),
        ("con", "con"),
        ("猫が歩く", "猫が歩く"),
        ("🎬🎥", ""),
        ("", ""),
        ('a/b\\c:d*e?f"g<h>i|j', "a-b-c-d-e-f-g-h-i-j"),
        ("line\nbreak\x00nul\u202eright", "line-break-nul-right"),
    ],
)
def test_slugs(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected


@given(st.text(max_size=300))
@example("x" * 500)
@example("猫" * 500)
def test_any_prompt_gives_a_safe_name(prompt: str) -> None:
    made = slug(prompt)
    assert len(made.encode()) <= MAX_SLUG_BYTES
    assert all(character.isalnum() or character == "-" or not character.isascii() for character in made)
    assert not set(made) & set('/\\:*?"<>|\x00\n\r\t .')
    assert not made.startswith("-") and not made.endswith("-")


def test_names_are_told_apart(tmp_path: Path) -> None:
    names = [reserve(tmp_path / "out", NOW, "A cat", ".mp4").path.name for _ in range(3)]
    assert names == ["20261121-071500_a-cat.mp4", "20261121-071500_a-cat-2.mp4", "20261121-071500_a-cat-3.mp4"]
    assert reserve(tmp_path, NOW, "🎬", ".gif").path.name == "20261121-071500.gif"


def test_nothing_is_overwritten_by_many_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        paths = [
            future.result().path
            for future in [threads.submit(reserve, tmp_path, NOW, "a cat", ".mp4") for _ in range(40)]
        ]
    assert len(set(paths)) == 40


def test_a_name_given_up_leaves_nothing(tmp_path: Path) -> None:
    reservation = reserve(tmp_path, NOW, "a cat", ".mp4")
    reservation.last_frame.write_bytes(b"x")
    reservation.release()
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InsufficientStorage, match="file"):
        reserve(tmp_path / "file" / "out", NOW, "a cat", ".mp4")
    with pytest.raises(InsufficientStorage, match="file"):
        BlobStore(tmp_path / "file").put(b"x")
