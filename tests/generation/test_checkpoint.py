"""Checkpoints come back to the bit, are refused when they are not what they should be, and are never half there."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from generation.factory import Case, make_case
from wanreel.core.errors import CheckpointError, InsufficientStorage
from wanreel.generation import checkpoint as module
from wanreel.generation.checkpoint import (
    FORMAT,
    CheckpointStore,
    Identity,
    latents_digest,
    request_fingerprint,
)
from wanreel.generation.denoise import denoise, planned_solver
from wanreel.generation.environment import environment_of
from wanreel.generation.state import DenoiseState

ME = Identity("job", 0, "request", (1.0, 0.5, 0.0), "conditioning", {"torch": "2.13"})


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints" / "job")


@pytest.fixture(scope="module")
def states() -> list[DenoiseState]:
    case = make_case("t2v-a14b")
    return list(denoise(case.model(), case.encode(), case.request))


def identity_of(case: Case) -> Identity:
    model = case.model()
    solver = planned_solver(model, case.request, torch.Generator())
    return Identity(
        job="job",
        clip=0,
        request=request_fingerprint(case.request),
        sigmas=solver.sigmas,
        conditioning=case.encode().fingerprint(),
        environment=environment_of(model),
    )


def equal(one: DenoiseState, other: DenoiseState) -> bool:
    ours, theirs = one.solver, other.solver
    return (
        (one.step, one.total_steps, dict(ours.scalars)) == (other.step, other.total_steps, dict(theirs.scalars))
        and torch.equal(one.latents, other.latents)
        and torch.equal(one.rng, other.rng)
        and ours.tensors.keys() == theirs.tensors.keys()
        and all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in ours.tensors)
    )


@pytest.mark.parametrize(
    ("name", "solver"),
    [("t2v-a14b", "unipc"), ("t2v-a14b", "dpm++"), ("t2v-a14b", "euler"), ("fastwan2.1-t2v-1.3b", "dmd")],
)
def test_a_run_goes_on_from_disk_to_the_same_bits(store: CheckpointStore, name: str, solver: str) -> None:
    case = make_case(name, solver=solver)
    me, conditioning = identity_of(case), case.encode()
    assert identity_of(case) == me, "whoever comes later is the same"
    whole = list(denoise(case.model(), conditioning, case.request))
    for state in whole:
        store.save(me, state)
        restored = store.latest(me)
        assert restored.inexact == restored.refused == ()
        assert restored.state is not None
        assert equal(restored.state, state)
        *_, last = [restored.state, *denoise(case.fresh_model(), conditioning, case.request, start=restored.state)]
        assert torch.equal(last.latents, whole[-1].latents)


def test_nothing_saved_is_nothing_restored(store: CheckpointStore) -> None:
    assert store.latest(ME).state is None
    assert store.load_latents(ME) is None
    store.remove()


def test_the_two_newest_are_kept(store: CheckpointStore, states: list[DenoiseState]) -> None:
    for state in states:
        store.save(ME, state)
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "clip000-step00005.safetensors",
        "clip000-step00006.safetensors",
    ]


def test_clips_do_not_disturb_each_other(store: CheckpointStore, states: list[DenoiseState]) -> None:
    second = replace(ME, clip=1)
    for state in states[:3]:
        store.save(ME, state)
    store.save(second, states[0])
    assert [store.latest(who).state.step for who in (ME, second)] == [3, 1]  # type: ignore[union-attr]


def damage_nothing(path: Path) -> None:
    """The control: an untouched file is used."""


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def truncate_to_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut_in_table(path: Path) -> None:
    os.truncate(path, 40)


def flip_bit_of_tensor(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)


def flip_bit_of_table(path: Path) -> None:
    raw = path.read_bytes()
    assert b'"step\\": 2' in raw
    path.write_bytes(raw.replace(b'"step\\": 2', b'"step\\": 3'))


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 8)


def zeros(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def other_kind_of_file(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 not a checkpoint at all, but long enough to have a table")


def huge_table(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


def plain_safetensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"latents": torch.zeros(1)}, path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def json_list(path: Path) -> None:
    text = json.dumps([1, 2]).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


@pytest.mark.parametrize(
    "damage",
    [
        truncate, truncate_to_half, empty, cut_in_table, flip_bit_of_tensor, flip_bit_of_table, append, zeros,
        other_kind_of_file, huge_table, plain_safetensors, json_list, a_folder, damage_nothing,
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_refused_and_the_one_before_used(
    store: CheckpointStore, states: list[DenoiseState], damage: Callable[[Path], None]
) -> None:
    store.save(ME, states[0])
    newest = store.save(ME, states[1])
    damage(newest)
    restored = store.latest(ME)
    assert restored.state is not None
    if damage is damage_nothing:
        assert restored.refused == ()
        assert equal(restored.state, states[1])
    else:
        assert equal(restored.state, states[0])
        (refusal,) = restored.refused
        assert refusal.startswith("clip000-step00002.safetensors: it")


def test_every_byte_counts(store: CheckpointStore, states: list[DenoiseState]) -> None:
    path = store.save(ME, states[0])
    raw = path.read_bytes()
    for place in range(0, len(raw), len(raw) // 97):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x10]) + raw[place + 1 :])
        assert store.latest(ME).state is None, f"byte {place}"
    path.write_bytes(raw)
    assert store.latest(ME).state is not None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"job": "another"}, "job"),
        ({"request": "another"}, "request"),
        ({"sigmas": (1.0, 0.6, 0.0)}, "sigmas"),
        ({"conditioning": "another"}, "conditioning"),
    ],
)
def test_a_foreign_checkpoint_is_refused(
    store: CheckpointStore, states: list[DenoiseState], changed: dict[str, object], said: str
) -> None:
    store.save(replace(ME, **changed), states[0])  # type: ignore[arg-type]
    restored = store.latest(ME)
    assert restored.state is None
    assert restored.refused == (f"clip000-step00001.safetensors: it belongs to other work: its {said} is another.",)


def test_final_latents_are_no_state(store: CheckpointStore, states: list[DenoiseState]) -> None:
    path = store.save_latents(ME, states[-1].latents)
    path.rename(store.folder / "clip000-step00009.safetensors")
    assert store.latest(ME).state is None


def test_a_newer_format_is_refused(
    store: CheckpointStore, states: list[DenoiseState], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(ME, states[0])
    monkeypatch.setattr(module, "FORMAT", FORMAT + 1)
    store.save(ME, states[1])
    monkeypatch.undo()
    restored = store.latest(ME)
    assert restored.state is not None
    assert restored.state.step == 1
    assert "newer Wanreel" in restored.refused[0]


def test_another_environment_is_used_and_named(store: CheckpointStore, states: list[DenoiseState]) -> None:
    store.save(replace(ME, conditioning="rounded otherwise", environment={"torch": "2.11", "device": "cpu"}), states[0])
    restored = store.latest(ME)
    assert restored.state is not None
    assert restored.inexact == ("device: cpu → None", "torch: 2.11 → 2.13")


def test_latents_are_kept_apart_from_states(store: CheckpointStore, states: list[DenoiseState]) -> None:
    latents = states[-1].latents
    for state in states:
        store.save(ME, state)
    path = store.save_latents(ME, latents)
    store.remove(keep_latents=True)
    assert list(store.folder.iterdir()) == [path]
    loaded = store.load_latents(ME)
    assert loaded is not None
    assert torch.equal(loaded, latents)
    assert latents_digest(loaded) == latents_digest(latents) != latents_digest(states[0].latents)
    flip_bit_of_tensor(path)
    with pytest.raises(CheckpointError):
        store.load_latents(ME)
    store.remove()
    assert not store.folder.exists()


def test_remove_leaves_other_peoples_files(store: CheckpointStore, states: list[DenoiseState]) -> None:
    store.save(ME, states[0])
    (store.folder / "notes.txt").write_text("mine")
    store.remove()
    assert [path.name for path in store.folder.iterdir()] == ["notes.txt"]


def test_playing_and_exporting_otherwise_is_the_same_work() -> None:
    request = make_case("t2v-1.3b").request
    played = replace(request, fps=30.0, output_format="webm", quality="low", export_width=8, metadata=False)
    assert request_fingerprint(played) == request_fingerprint(request)
    for other in (replace(request, seed=4), replace(request, prompt="x"), replace(request, guidance_low=9.0)):
        assert request_fingerprint(other) != request_fingerprint(request)


@pytest.mark.parametrize(
    ("number", "raised"),
    [(errno.ENOSPC, InsufficientStorage), (errno.EIO, CheckpointError), (errno.EROFS, CheckpointError)],
)
def test_a_disk_that_refuses_leaves_the_older_checkpoint(
    store: CheckpointStore,
    states: list[DenoiseState],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    raised: type[Exception],
) -> None:
    store.save(ME, states[0])

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "replace_durably", refuse)
    with pytest.raises(raised):
        store.save(ME, states[1])
    assert [path.name for path in store.folder.iterdir()] == ["clip000-step00001.safetensors"]
    monkeypatch.undo()
    restored = store.latest(ME)
    assert restored.state is not None
    assert restored.state.step == 1


def test_a_file_being_written_is_never_taken_for_a_checkpoint(
    store: CheckpointStore, states: list[DenoiseState]
) -> None:
    path = store.save(ME, states[0])
    partial = path.with_name("clip000-step00002.safetensors.partial")
    partial.write_bytes(path.read_bytes()[:500])
    assert store.latest(ME).refused == ()
    store.remove()
    assert not store.folder.exists()
