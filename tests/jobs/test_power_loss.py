"""T2: no power loss loses an acknowledged job or harms the database; with weaker settings it does, and we see it."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path

import pytest

from jobs.places import fast_folder, needs
from jobs.power_loss import images, trace, verdict
from wanreel.jobs.sqlite import SqlitePolicy

PRODUCT = SqlitePolicy.for_library()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In memory where possible: the power fails in a model, so nothing here has to reach a disk."""
    import tempfile

    return Path(tempfile.mkdtemp(dir=fast_folder()))


def verdicts(
    folder: Path, policy: SqlitePolicy, jobs: int, *, subsets: int, shard: int = 0, shards: int = 1, until: str = ""
) -> Counter[str]:
    """How many distinct images had which fate. Stops at the first whose fate is `until`."""
    needs("strace")
    operations = trace(folder, jobs, policy.journal_mode, policy.synchronous)
    workshop = folder / "image"
    workshop.mkdir()
    fates, seen = Counter[str](), set[bytes]()
    for files, acks in images(operations, random.Random(7), subsets, shard, shards):
        digest = hashlib.sha256(str(len(acks)).encode())
        for name, data in sorted(files.items()):
            digest.update(name.encode() + data)
        if digest.digest() in seen:
            continue
        seen.add(digest.digest())
        fate = verdict(workshop, files, acks).split(":")[0]
        fates[fate] += 1
        if fate and fate == until:
            break
    return fates


def test_nothing_acknowledged_is_lost(folder: Path) -> None:
    """Every twelfth of 10,000 images, spread over the whole run; all of them, and more, are in the long form."""
    fates = verdicts(folder, PRODUCT, jobs=9, subsets=6, shards=12)
    assert set(fates) == {""}
    assert fates[""] >= 800


@pytest.mark.deep
def test_nothing_acknowledged_is_lost_at_length(folder: Path) -> None:
    fates = verdicts(folder, PRODUCT, jobs=60, subsets=12)
    assert set(fates) == {""}
    assert fates[""] >= 100_000


@pytest.mark.deep
def test_the_settings_for_newer_libraries_hold_too(folder: Path) -> None:
    fates = verdicts(folder, SqlitePolicy.for_library((3, 51, 3)), jobs=9, subsets=6)
    assert set(fates) == {""}


@pytest.mark.parametrize(
    ("journal_mode", "synchronous", "fate"),
    [
        ("delete", "OFF", "corrupt"),
        ("wal", "NORMAL", "lost"),
        ("delete", "NORMAL", "lost"),
        # FULL does not sync the directory from which the journal was deleted, so the commit itself can vanish.
        ("delete", "FULL", "lost"),
    ],
)
def test_weaker_settings_are_found_out(folder: Path, journal_mode: str, synchronous: str, fate: str) -> None:
    fates = verdicts(folder, SqlitePolicy(journal_mode, synchronous), jobs=6, subsets=2, until=fate)
    assert fates[fate] == 1
