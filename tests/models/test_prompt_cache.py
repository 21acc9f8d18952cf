"""Prompts that were seen before need no text encoder and give the same bits; damage and other encoders are noticed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.generation.encode import Pictures, encode
from wanreel.models.load import Memory, load_model
from wanreel.models.prompt_cache import PromptCache, PromptMemory
from wanreel.models.shared import SharedParts
from wanreel.models.tiny import save_tiny
from wanreel.models.wan_model import Later, WanModel

SPEC = Catalog().get("tiny:t2v-1.3b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(SPEC, tmp_path_factory.mktemp("tiny"))


def memory_in(root: Path) -> Memory:
    return Memory(SharedParts(lambda file: None), PromptCache(root, 10**7))


def embeds(model: WanModel, prompt: str) -> tuple[Tensor, Tensor | None]:
    wanted = VideoRequest(prompt=prompt, model=SPEC.name, seed=1)
    request = resolve(wanted, Catalog(), Defaults({}, frozenset({SPEC.name}))).request
    conditioning = encode(model, request, Pictures(), CancelToken())
    return conditioning.text, conditioning.negative


def test_equal_bits_with_and_without(folder: Path, tmp_path: Path) -> None:
    plain, plain_negative = embeds(load_model(SPEC, folder), "a red kite")
    for _ in range(2):
        model = load_model(SPEC, folder, memory=memory_in(tmp_path))
        text, negative = embeds(model, "a red kite")
        assert torch.equal(text, plain)
        assert negative is not None and plain_negative is not None and torch.equal(negative, plain_negative)


def test_a_known_prompt_never_loads_the_encoder(folder: Path, tmp_path: Path) -> None:
    first = load_model(SPEC, folder, memory=memory_in(tmp_path))
    assert isinstance(first.text_encoder, Later)
    embeds(first, "a red kite")
    assert not isinstance(first.text_encoder, Later)

    second = load_model(SPEC, folder, memory=memory_in(tmp_path))
    embeds(second, " a  red kite ")  # the same tokens
    assert isinstance(second.text_encoder, Later)
    embeds(second, "a blue kite")
    assert not isinstance(second.text_encoder, Later)


def test_loading_late_leaves_the_random_state_alone(folder: Path, tmp_path: Path) -> None:
    model = load_model(SPEC, folder, memory=memory_in(tmp_path))
    before = torch.random.get_rng_state()
    embeds(model, "a red kite")
    assert torch.equal(torch.random.get_rng_state(), before)


def only_entry(root: Path) -> Path:
    (path,) = root.glob("*.safetensors")
    return path


@pytest.mark.parametrize("place", [0, 40, -1, -30])
def test_a_flipped_byte_is_never_used(tmp_path: Path, place: int) -> None:
    cache = PromptCache(tmp_path, 10**6)
    rows = torch.randn(5, 32)
    cache.put("key", rows)
    path = only_entry(tmp_path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert cache.get("key") is None
    assert not path.exists()
    cache.put("key", rows)
    found = cache.get("key")
    assert found is not None and torch.equal(found, rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    cache = PromptCache(tmp_path, 10**6)
    rows = torch.randn(3, 8).to(dtype)
    cache.put("k", rows)
    found = cache.get("k")
    assert found is not None and found.dtype == dtype and torch.equal(found, rows)


def test_the_oldest_go_first(tmp_path: Path) -> None:
    rows = torch.zeros(10, 100)  # 4,000 bytes and a header
    cache = PromptCache(tmp_path, 13_000)
    for number, name in enumerate("abc"):
        cache.put(name, rows)
        os.utime(tmp_path / f"{name}.safetensors", (number, number))
    assert cache.get("a") is not None  # and is the newest now
    cache.put("d", rows)
    assert cache.get("b") is None
    assert all(cache.get(name) is not None for name in "acd")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 13_000


def test_too_large_for_the_cache_is_not_kept(tmp_path: Path) -> None:
    PromptCache(tmp_path, 1000).put("a", torch.zeros(1000))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = PromptCache(blocked, 10**6)
    cache.put("a", torch.zeros(3))
    assert cache.get("a") is None


def test_what_tells_entries_apart(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path, 10**6)
    one = PromptMemory(cache, "encoder", "cpu float32")
    one.put([1, 2], torch.ones(2))
    assert one.get([1, 2]) is not None
    assert one.get([1, 2, 0]) is None
    assert replace(one, encoder="other").get([1, 2]) is None
    assert replace(one, computes="cuda bfloat16").get([1, 2]) is None


# Parts in common


def opened(folder: Path, memory: Memory, spec: ModelSpec = SPEC) -> WanModel:
    model = load_model(spec, folder, memory=memory)
    with model.resident("text_encoder"):
        return model


def test_equal_files_are_in_memory_once(folder: Path, tmp_path: Path) -> None:
    import hashlib
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    memory = Memory(SharedParts(lambda file: hashlib.sha256(file.read_bytes()).hexdigest()))
    one, other = opened(folder, memory), opened(copy, memory)
    assert one.text_encoder is other.text_encoder and one.vae is other.vae
    assert one.experts[0].transformer is not other.experts[0].transformer

    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    third = opened(copy, memory)
    assert third.vae is not one.vae and third.text_encoder is one.text_encoder


def test_without_hashes_the_same_file_is_shared_and_a_copy_is_not(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    memory = Memory(SharedParts(lambda file: None))
    one = opened(folder, memory)
    assert opened(folder, memory).vae is one.vae
    assert opened(copy, memory).vae is not one.vae


def test_a_part_goes_with_its_last_model(folder: Path) -> None:
    import gc

    shared = SharedParts(lambda file: None)
    one, other = opened(folder, Memory(shared)), opened(folder, Memory(shared))
    del one
    gc.collect()
    assert len(shared._parts) == 2 and other.vae is not None
    del other
    gc.collect()
    assert len(shared._parts) == 0
