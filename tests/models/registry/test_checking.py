"""What was pulled is checked, healed and removed."""

from __future__ import annotations

import os

import pytest

from models.registry.place import (
    FILES,
    SPEC,
    WANTED,
    WEIGHTS,
    assert_whole,
    flip,
    run,
)
from wanreel.core.cancel import CancelToken
from wanreel.core.errors import (
    BrokenWeights,
    ModelNotInstalled,
)
from wanreel.models.registry import Registry
from wanreel.storage.digests import Digests


@pytest.mark.parametrize("name", sorted(WANTED))
def test_any_flipped_byte_is_named_before_the_first_use(registry: Registry, name: str) -> None:
    run(registry)
    size = len(FILES[name])
    flip(registry.folder(SPEC) / name, size - 1 if size < 9 else size // 3)
    with pytest.raises(BrokenWeights, match=f"{SPEC.name}/{name} has changed"):
        registry.check(SPEC)


def test_verify_reads_what_looks_untouched(registry: Registry) -> None:
    run(registry)
    path = registry.folder(SPEC) / WEIGHTS
    before = path.stat()
    with path.open("r+b") as file:  # a disk that rots changes no date
        file.seek(77)
        file.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    registry.check(SPEC)
    faults = registry.faults(SPEC, CancelToken())

    assert [str(fault) for fault in faults] == [f"{SPEC.name}/{WEIGHTS} has changed since it was received"]


def test_a_pull_heals_what_verify_found(registry: Registry) -> None:
    run(registry)
    flip(registry.folder(SPEC) / WEIGHTS, 3)
    (registry.folder(SPEC) / "vae/config.json").unlink()
    assert len(registry.faults(SPEC, CancelToken())) == 2
    run(registry)
    assert_whole(registry)


def test_the_check_at_a_warm_start_reads_no_weights(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    run(registry)

    def no(*_: object) -> str:
        raise AssertionError("a file was read")

    monkeypatch.setattr(Digests, "fresh", no)
    registry.check(SPEC)


def test_a_damaged_lock_is_not_guessed_at(registry: Registry) -> None:
    run(registry)
    registry.pins.path.write_text("{")
    with pytest.raises(BrokenWeights, match=r"models\.lock"):
        registry.check(SPEC)


# Removing, pausing, stopping, sharing


def test_remove(registry: Registry) -> None:
    run(registry)
    freed = registry.remove(SPEC)
    assert freed == sum(len(FILES[name]) for name in WANTED)
    assert not registry.folder(SPEC).exists()
    assert registry.progress(SPEC) is None
    assert registry.pins.of(SPEC.name) is None
    with pytest.raises(ModelNotInstalled):
        registry.remove(SPEC)
