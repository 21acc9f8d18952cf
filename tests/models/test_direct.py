"""Tensors that are read into memory of their own are those of the file, whatever their size and kind."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from wanreel.core.errors import BrokenWeights
from wanreel.models import direct
from wanreel.models.direct import read_direct


@pytest.fixture
def file(tmp_path: Path) -> Path:
    drawn = torch.Generator().manual_seed(0)
    tensors = {
        "matrix": torch.randn(37, 53, generator=drawn),
        "half": torch.randn(19, 7, generator=drawn).bfloat16(),
        "eight": torch.randn(11, 5, generator=drawn).to(torch.float8_e4m3fn),
        "count": torch.arange(7),
        "scalar": torch.tensor(3.5, dtype=torch.float16),
        "none": torch.empty(0, 4),
    }
    path = tmp_path / "weights.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(("chunk", "ahead"), [(2**24, 2**28), (100, 1), (1, 10**6)])
def test_every_tensor_is_the_files(file: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, ahead: int) -> None:
    monkeypatch.setattr(direct, "_CHUNK", chunk)
    monkeypatch.setattr(direct, "_AHEAD", ahead)
    wanted = load_file(file)
    found = dict(read_direct(file, wanted))
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8))
        assert found[name].data_ptr() % 16 == 0


def test_only_what_is_asked_for_is_read_in_the_order_of_the_file(file: Path) -> None:
    entries = direct.read_header(file).entries
    order = sorted(entries.keys() - {"none"}, key=lambda name: entries[name].start)
    assert order != sorted(order), "an order of its own"
    assert [name for name, _ in read_direct(file, sorted(order))] == order
    assert [name for name, _ in read_direct(file, ("matrix", "count"))] == ["count", "matrix"]


def test_a_read_that_ends_early_goes_on(file: Path) -> None:
    """As some network file systems answer."""

    class Sparing(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:7]) or 0

    class Somewhere(type(file)):
        def open(self, *given: Any, **more: Any) -> Any:
            return Sparing(str(self))

    wanted = load_file(file)
    for name, tensor in read_direct(Somewhere(file), wanted):
        assert torch.equal(tensor.view(-1).view(torch.uint8), wanted[name].view(-1).view(torch.uint8))


def test_no_more_is_read_ahead_than_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, begun, begin = tmp_path / "even.safetensors", list[str](), direct._begun
    save_file({f"t{number}": torch.full((4,), float(number)) for number in range(6)}, path)

    def noted(readers: Any, path: Path, name: str, *where: Any) -> Any:
        begun.append(name)
        return begin(readers, path, name, *where)

    monkeypatch.setattr(direct, "_begun", noted)
    monkeypatch.setattr(direct, "_AHEAD", 32)  # bytes, which are two tensors beside the one at hand
    assert [len(begun) for _ in read_direct(path, load_file(path))] == [3, 4, 5, 6, 6, 6]


def test_whoever_leaves_early_waits_for_what_is_being_read(file: Path) -> None:
    tensors = read_direct(file, load_file(file))
    next(tensors)
    tensors.close()
    assert not [it for it in threading.enumerate() if it.name.startswith("weights")]


def test_a_file_that_is_cut_short_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(BrokenWeights, match="cut short"):
        list(read_direct(file, ("matrix",)))


def test_a_file_that_shrinks_meanwhile_is_no_weights(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = direct.read_header(file)
    monkeypatch.setattr(direct, "read_header", lambda path: header)
    file.write_bytes(file.read_bytes()[: header.data_start + 8])
    with pytest.raises(ValueError, match="shorter"):
        list(read_direct(file, ("matrix",)))
