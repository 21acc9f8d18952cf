"""Digests are remembered for as long as a file looks untouched."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from wanreel.storage.digests import Digests


def test_taken_once_and_again_after_a_change(tmp_path: Path) -> None:
    file, digests = tmp_path / "weights", Digests(tmp_path / "digests.json")
    file.write_bytes(b"one")
    assert digests.known(file) is None
    assert digests.of(file) == hashlib.sha256(b"one").hexdigest() == digests.known(file)
    before = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert digests.known(file) is None
    assert digests.of(file) == hashlib.sha256(b"two").hexdigest()


def test_a_broken_memory_is_only_slow(tmp_path: Path) -> None:
    file, memory = tmp_path / "weights", tmp_path / "digests.json"
    file.write_bytes(b"one")
    for text in ("", "[]", '{"other": []}', "half a fi"):
        memory.write_text(text)
        assert Digests(memory).of(file) == hashlib.sha256(b"one").hexdigest()


def test_two_files_and_one_that_is_gone(tmp_path: Path) -> None:
    digests = Digests(tmp_path / "digests.json")
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        digests.of(tmp_path / name)
    (tmp_path / "a").unlink()
    assert digests.known(tmp_path / "a") is None
    assert digests.known(tmp_path / "b") is not None
