"""Blobs and the names of results."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wanreel.core.errors import InsufficientStorage, InvalidRequest
from wanreel.storage.digests import Digests
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
    for damaged in (b"bytez", b"byt", b""):
        path.write_bytes(damaged)
        store.put(b"bytes")
        assert store.open(name) == b"bytes", "giving it again heals it"
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
        ("नमस्ते दुनिया", "नमस्ते-दुनिया"),
        ("กำลังเดิน", "กําลังเดิน"),
        ("un café", "un-café"),
        ("I ❤️ you, a\ufe0fb", "i-you-a-b"),
        ("a\ud800b", "a-b"),
        ("file.MP4...", "file-mp4"),
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
    assert all(unicodedata.category(character)[0] in "LNM" or character == "-" for character in made)
    made.encode()
    assert not set(made) & set('/\\:*?"<>|\x00\n\r\t .')
    assert not made.startswith("-") and not made.endswith("-")


def test_names_are_told_apart(tmp_path: Path) -> None:
    names = [reserve(tmp_path / "out", NOW, "A cat", ".mp4").path.name for _ in range(3)]
    assert names == ["20261121-071500_a-cat.mp4", "20261121-071500_a-cat-2.mp4", "20261121-071500_a-cat-3.mp4"]
    assert reserve(tmp_path, NOW, "🎬", ".gif").path.name == "20261121-071500.gif"


@pytest.mark.parametrize("taken", [".mp4", ".last.png", ".poster.jpg"])
def test_nothing_that_is_there_is_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / f"20261121-071500_a-cat{taken}").write_bytes(b"mine")
    (tmp_path / f"20261121-071500_a-cat-2{taken}").symlink_to("nowhere")
    assert reserve(tmp_path, NOW, "a cat", ".mp4").path.name == "20261121-071500_a-cat-3.mp4"
    assert len([path for path in tmp_path.iterdir() if ".part" in path.name]) == 1, "names not taken are given up"


def test_a_held_name_does_not_look_like_a_result(tmp_path: Path) -> None:
    reservation = reserve(tmp_path, NOW, "a cat", ".mp4")
    assert [path.name for path in tmp_path.iterdir()] == [reservation.partial.name]
    assert reservation.partial.name.startswith(".")


def _take(directory: Path) -> list[str]:
    names: list[str] = []
    for _ in range(20):
        reservation = reserve(directory, NOW, "a cat", ".mp4")
        names.append(reservation.path.name)
        reservation.partial.replace(reservation.path)  # as a finished video does, so that holding and using mix
    return names


def test_nothing_is_overwritten_by_many_threads_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        names = [name for names in threads.map(_take, [tmp_path] * 4) for name in names]
    assert len(set(names)) == 80
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


_TAKE = """
import sys
from datetime import datetime
from pathlib import Path
from wanreel.storage.outputs import reserve
sys.stdin.readline()
for _ in range(20):
    made = reserve(Path(sys.argv[1]), datetime(2026, 11, 21, 7, 15, 0), "a cat", ".mp4")
    made.partial.replace(made.path)
    print(made.path.name)
"""


def test_nothing_is_overwritten_by_many_processes_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _TAKE, str(tmp_path)]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    names = [name for process in started for name in process.communicate()[0].split()]
    assert len(names) == len(set(names)) == 80
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_name_given_up_leaves_nothing(tmp_path: Path) -> None:
    reservation = reserve(tmp_path, NOW, "a cat", ".mp4")
    reservation.last_frame.write_bytes(b"x")
    reservation.release()
    assert list(tmp_path.iterdir()) == []


def test_the_same_picture_from_many_threads_at_once(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    data = bytes(range(256)) * 2000
    with ThreadPoolExecutor(8) as threads:
        names = set(threads.map(store.put, [data] * 40))
    assert len(names) == 1
    assert store.open(names.pop()) == data
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_put_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_temporary: Path, _final: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("wanreel.storage.disk.replace_durably", full)
    with pytest.raises(InsufficientStorage, match="No space left"):
        BlobStore(tmp_path).put(b"x")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_digests_that_can_not_be_remembered_are_told_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"bytes")
    assert Digests(tmp_path / "gone" / "digests.json").of(file) == hashlib.sha256(b"bytes").hexdigest()


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InsufficientStorage, match="file"):
        reserve(tmp_path / "file" / "out", NOW, "a cat", ".mp4")
    with pytest.raises(InsufficientStorage, match="file"):
        reserve(tmp_path / "file", NOW, "a cat", ".mp4")
    with pytest.raises(InsufficientStorage, match="file"):
        BlobStore(tmp_path / "file").put(b"x")
