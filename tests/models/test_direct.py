"""Tensors that are read into memory of their own are those of the file, whatever their size and kind."""

from __future__ import annotations

import threading
from pathlib import Path

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
    order = [name for name, _ in read_direct(file, load_file(file))]
    assert [name for name, _ in read_direct(file, ("count", "matrix"))] == [
        it for it in order if it in ("count", "matrix")
    ]


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
