"""LoRA files are read by their header and judged before anything else opens them; hostile ones are refused by name."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from models.architectures import TINY, by_name
from models.lora_files import FORMATS, RandomLora
from wanreel import demo
from wanreel.core.catalog import MODELS, Catalog, ModelSpec
from wanreel.core.errors import BrokenWeights
from wanreel.models.components import MODULES, architecture
from wanreel.models.lora.file import MAX_BYTES, check_values, read_lora
from wanreel.models.lora.fit import base_of, fit, layout, numbers_of
from wanreel.models.lora.keys import read_key
from wanreel.models.tiny import build_tiny

GOLD = demo.lora_paths()["gold"]


def written(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    """A file with that header, whatever it says."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(*shape: int, start: int = 0, dtype: str = "F32") -> dict[str, Any]:
    size = int(np.prod(shape)) * (4 if dtype == "F32" else 2)
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + size]}


PAIR = {"transformer.blocks.0.attn1.to_q.lora_A.weight": entry(2, 4),
        "transformer.blocks.0.attn1.to_q.lora_B.weight": entry(4, 2, start=32)}  # fmt: skip
Q = "transformer.blocks.0.attn1.to_q"
SAME = "diffusion_model.blocks.0.self_attn.q.lora_A.weight"
NAN = struct.pack("<f", float("nan"))


def lone(path: Path, dtype: str, shape: Any, offsets: list[int]) -> Path:
    """A file of one tensor that is described so."""
    header = {f"{Q}.lora_A.weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}
    return written(path, header, bytes(max(0, *offsets)))


def pair_and(path: Path, size: int, **more: Any) -> Path:
    """A good pair of 64 bytes and more tensors of the same layer, by the end of their name."""
    names = {name.replace("__", "."): value for name, value in more.items()}
    return written(path, PAIR | {f"{Q}.{name}": value for name, value in names.items()}, bytes(size))


def pickled() -> bytes:
    return pickle.dumps({"a": 1}, protocol=4)


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", pickled())
    return data.getvalue()


#: Files that must be refused: how each is made, and a word of what is said.
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "too short"),
    "seven bytes": (lambda p: p.write_bytes(b"1234567"), "too short"),
    "pickle renamed": (lambda p: p.write_bytes(pickled()), "pickle"),
    "zip pickle renamed": (lambda p: p.write_bytes(zipped()), "zip"),
    "gguf renamed": (lambda p: p.write_bytes(b"GGUF" + bytes(100)), "GGUF"),
    "web page": (lambda p: p.write_bytes(b"<!DOCTYPE html><html>"), "web page"),
    "lfs pointer": (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "huge header": (lambda p: written(p, PAIR, bytes(64), length=2**40), "header"),
    "header past the end": (lambda p: written(p, PAIR, length=5000), "cut short"),
    "no json": (lambda p: written(p, b"{nonsense" + bytes(20)), "damaged header"),
    "json list": (lambda p: written(p, [1, 2]), "no JSON object"),
    "deep json": (lambda p: written(p, b'{"a":' * 100_000), "damaged header"),
    "same name twice": (lambda p: written(p, b'{"a":{},"a":{}}'), "twice"),
    "nan in header": (lambda p: written(p, b'{"a":NaN}'), "NaN"),
    "overlapping": (lambda p: written(p, PAIR | {f"{Q}.lora_B.weight": entry(4, 2, start=16)}, bytes(48)), "overlaps"),
    "gap": (lambda p: written(p, PAIR | {f"{Q}.lora_B.weight": entry(4, 2, start=40)}, bytes(72)), "no tensor"),
    "cut data": (lambda p: written(p, PAIR, bytes(60)), "cut short"),
    "more data": (lambda p: written(p, PAIR, bytes(65)), "belong to no tensor"),
    "negative offset": (lambda p: lone(p, "F32", [2], [-8, 0]), "not described"),
    "offsets backwards": (lambda p: lone(p, "F32", [2], [8, 0]), "bytes"),
    "enormous shape": (lambda p: lone(p, "F32", [2**39, 2**39], [0, 8]), "bytes"),
    "shape is text": (lambda p: lone(p, "F32", "4", [0, 8]), "not described"),
    "true as a side": (lambda p: lone(p, "F32", [True], [0, 4]), "not described"),
    "unknown dtype": (lambda p: lone(p, "C64", [1], [0, 8]), "unknown dtype"),
    "integers": (lambda p: lone(p, "I32", [2], [0, 8]), "no float"),
    "wrong size for its dtype": (lambda p: lone(p, "F16", [4], [0, 16]), "bytes"),
    "metadata is a number": (lambda p: written(p, {"__metadata__": 3, **PAIR}, bytes(64)), "metadata"),
    "no tensor": (lambda p: written(p, {}), "holds nothing"),
    "nothing of Wan": (lambda p: written(p, {"text_model.encoder.lora_A.weight": entry(2, 4)}, bytes(32)), "holds nothing"),
    "half a pair": (lambda p: written(p, {f"{Q}.lora_A.weight": entry(2, 4)}, bytes(32)), "one matrix"),
    "matrices that do not meet": (lambda p: written(p, PAIR | {f"{Q}.lora_B.weight": entry(4, 3, start=32)}, bytes(80)), "shapes"),
    "convolution": (lambda p: written(p, PAIR | {f"{Q}.lora_B.weight": entry(4, 2, 1, 1, start=32)}, bytes(64)), "shapes"),
    "rank 2000": (lambda p: pair_and(p, 16000, lora_A__weight=entry(2000, 1), lora_B__weight=entry(1, 2000, start=8000)), "rank 2000"),
    "rank 0": (lambda p: pair_and(p, 0, lora_A__weight=entry(0, 4), lora_B__weight=entry(4, 0)), "shapes"),
    "alpha is a row": (lambda p: written(p, PAIR | {f"{Q}.alpha": entry(2, start=64)}, bytes(72)), "not one number"),
    "alpha is NaN": (lambda p: written(p, PAIR | {f"{Q}.alpha": entry(start=64)}, bytes(64) + NAN), "no finite number"),
    "one layer under two names": (lambda p: written(p, PAIR | {SAME: entry(2, 4, start=64)}, bytes(96)), "twice"),
    "LoHa": (lambda p: written(p, {"lora_unet_blocks_0_self_attn_q.hada_w1_a": entry(2, 4)}, bytes(32)), "LoHa"),
    "LoKr": (lambda p: written(p, {"lora_unet_blocks_0_self_attn_q.lokr_w1": entry(2, 4)}, bytes(32)), "LoKr"),
    "DoRA": (lambda p: written(p, PAIR | {f"{Q}.dora_scale": entry(2, start=64)}, bytes(72)), "DoRA"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    make, word = HOSTILE[case]
    path = tmp_path / "x.safetensors"
    make(path)
    with pytest.raises(BrokenWeights, match=word) as caught:
        read_lora(path)
    assert str(tmp_path) not in caught.value.message  # it goes to clients


def test_there_are_enough_hostile_files() -> None:
    assert len(HOSTILE) >= 20


@pytest.mark.parametrize("name", ["x.bin", "x.pt", "x.pth", "x.ckpt", "x.pkl", "X.PT", "x.gguf", "x"])
def test_other_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(GOLD.read_bytes())
    with pytest.raises(BrokenWeights, match=r"pickle|no \.safetensors"):
        read_lora(path)


def test_more_than_4_gib_are_refused_by_size(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    written(path, PAIR)
    with path.open("r+b") as file:
        file.truncate(MAX_BYTES + 1)  # sparse
    with pytest.raises(BrokenWeights, match="at most 4"):
        read_lora(path)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_no_bytes_give_another_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(BrokenWeights):
        read_lora(path)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_flipped_header_byte_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    whole = bytearray(GOLD.read_bytes()[: 8 + int.from_bytes(GOLD.read_bytes()[:8], "little")])
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("flip") / "x.safetensors"
    path.write_bytes(bytes(whole) + GOLD.read_bytes()[len(whole) :])
    with contextlib.suppress(BrokenWeights):
        assert read_lora(path).layers


def test_gold_is_read(tmp_path: Path) -> None:
    gold = read_lora(GOLD)
    assert (gold.format, gold.ranks, len(gold.layers), gold.dtypes) == ("Diffusers", (8, 8), 64, ("F16",))
    assert gold.about["style"] == "everything turns to gold"
    assert not gold.strays and not gold.two_experts
    check_values(GOLD)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_names_the_same_layers(tmp_path: Path, format: str) -> None:
    transformer = build_tiny(by_name("i2v-14b-480p")).experts[0].transformer
    lora = RandomLora.of(transformer).with_differences(transformer)
    file = read_lora(lora.save(tmp_path / "x.safetensors", format))
    wanted = {*lora.weights, *(name.rpartition(".")[0] for name in lora.differences)}
    assert {layer.layer for layer in file.layers} == wanted
    assert not file.strays
    scale = 0.5 if FORMATS[format][3] else 1.0
    assert {layer.scale for layer in file.layers if layer.rank} == {scale}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_alphas_are_read_in_every_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    transformer = build_tiny(by_name("t2v-14b")).experts[0].transformer
    file = read_lora(RandomLora.of(transformer, rank=8, alpha=6.0).save(tmp_path / "x.safetensors", dtype=dtype))
    assert {layer.scale for layer in file.layers} == {0.75}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_nan_and_infinity_are_found(tmp_path: Path, dtype: torch.dtype, bad: float) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {
        f"{Q}.lora_A.weight": torch.ones(2, 5000).to(dtype),
        f"{Q}.lora_B.weight": torch.full((4, 2), -300.0).to(dtype),
    }
    save_file(tensors, path)
    check_values(path)
    if dtype == torch.float8_e4m3fn:
        bad = float("nan")  # it has no infinity
    tensors[f"{Q}.lora_A.weight"].view(-1)[-1] = bad
    save_file(tensors, path)
    with pytest.raises(BrokenWeights, match=r"NaN.*lora_A"):
        check_values(path)


def test_names_that_mean_nothing_are_kept_as_strays(tmp_path: Path) -> None:
    tensors = {name: torch.zeros(2, 2) for name in (f"{Q}.lora_A.weight", f"{Q}.lora_B.weight")}
    strays = {
        "diffusion_model.blocks.0.diff_m",
        "lora_te1_layers_0.lora_down.weight",
        "diffusion_model.patch_embedding.diff",
    }
    save_file(tensors | {name: torch.zeros(2) for name in strays}, tmp_path / "x.safetensors")
    assert set(read_lora(tmp_path / "x.safetensors").strays) == strays


@pytest.mark.parametrize(
    "name", ["", "blocks", "blocks.x.attn1.to_q.alpha", "lora_unet_.alpha", "blocks.0.norm1.diff", ".diff"]
)
def test_odd_names_mean_nothing(name: str) -> None:
    assert read_key(name) is None


# Whether it fits


@pytest.mark.parametrize("spec", TINY, ids=lambda spec: spec.name)
def test_the_layout_is_that_of_the_module(spec: ModelSpec) -> None:
    transformer = build_tiny(spec).experts[0].transformer
    numbers = numbers_of(spec, None)
    assert numbers is not None
    check_layout(transformer, numbers)


@pytest.mark.parametrize("name", ["t2v-1.3b", "i2v-14b-480p", "i2v-a14b", "ti2v-5b"])
def test_the_layout_is_that_of_the_real_size(name: str) -> None:
    spec = Catalog().get(name)
    fixed = architecture(spec).fixed["transformer"]
    clip = {"image_dim": 1280, "added_kv_proj_dim": fixed["num_attention_heads"] * 128} if spec.clip else {}
    with torch.device("meta"):
        transformer = MODULES["transformer"](**fixed, **clip)
    numbers = numbers_of(spec, None)
    assert numbers is not None
    check_layout(transformer, numbers)


def check_layout(transformer: Any, numbers: Any) -> None:
    found: dict[str, tuple[int, int, bool, bool]] = {}
    modules: list[tuple[str, Any]] = list(transformer.named_modules())
    for name, module in modules:
        if type(module) is torch.nn.Linear:
            found[name] = (module.in_features, module.out_features, False, getattr(module, "bias", None) is not None)
        elif isinstance(module, (torch.nn.RMSNorm, torch.nn.LayerNorm)) and getattr(module, "weight", None) is not None:
            size = int(module.weight.shape[0])
            found[name] = (size, size, True, getattr(module, "bias", None) is not None)
    wanted = {
        name: (layer.inputs, layer.outputs, layer.norm, layer.has_bias) for name, layer in layout(numbers).items()
    }
    assert wanted == found


def test_gold_fits_the_demo_alone() -> None:
    gold, folder = read_lora(GOLD), demo.weights_path()
    for spec in MODELS:
        numbers = numbers_of(spec, folder if spec.builtin else None)
        assert numbers is not None
        found = fit(gold, spec, numbers)
        assert found.ok == (spec.name == "demo")
        if not found.ok:
            assert "width 160" in found.fault and f"width {numbers.dim}" in found.fault
    assert base_of(gold) == "width 160"


def of_size(path: Path, dim: int, ffn: int, *, blocks: int = 1, pictures: bool = False) -> Path:
    """A file with the shapes of a real model."""
    names = ["self_attn.q", "ffn.0", *(["cross_attn.k_img"] if pictures else [])]
    tensors: dict[str, torch.Tensor] = {}
    for block in range(blocks):
        for name in names:
            layer = f"diffusion_model.blocks.{block}.{name}"
            tensors[f"{layer}.lora_down.weight"] = torch.zeros(1, dim)
            tensors[f"{layer}.lora_up.weight"] = torch.zeros(ffn if name == "ffn.0" else dim, 1)
    save_file(tensors, path)
    return path


OF_14B = {"t2v-14b", "i2v-14b-480p", "i2v-14b-720p", "flf2v-14b-720p", "t2v-a14b", "i2v-a14b"}


@pytest.mark.parametrize(
    ("dim", "ffn", "pictures", "base", "fits"),
    [
        (1536, 8960, False, "1.3B (width 1536)", {"t2v-1.3b", "fastwan2.1-t2v-1.3b"}),
        (3072, 14336, False, "5B (width 3072)", {"ti2v-5b", "fastwan2.2-ti2v-5b"}),
        (5120, 13824, False, "14B (width 5120)", OF_14B),
        (5120, 13824, True, "14B (width 5120), with pictures (Wan 2.1)", OF_14B),
        (5120, 8960, False, "14B (width 5120)", set[str]()),
        (1024, 4096, False, "width 1024", set[str]()),
    ],
)  # fmt: skip
def test_base_and_fit_come_from_the_shapes(
    tmp_path: Path, dim: int, ffn: int, pictures: bool, base: str, fits: set[str]
) -> None:
    file = read_lora(of_size(tmp_path / "x.safetensors", dim, ffn, pictures=pictures))
    assert base_of(file) == base
    found = {spec.name: fit(file, spec, numbers) for spec in MODELS if (numbers := numbers_of(spec, None)) is not None}
    assert {name for name, each in found.items() if each.ok} == fits
    if pictures:
        assert len(found["t2v-14b"].unmatched) == 2 and not found["i2v-14b-480p"].unmatched


def test_blocks_that_the_model_lacks_are_unmatched(tmp_path: Path) -> None:
    file = read_lora(of_size(tmp_path / "x.safetensors", 1536, 8960, blocks=32))
    spec = Catalog().get("t2v-1.3b")
    numbers = numbers_of(spec, None)
    assert numbers is not None
    found = fit(file, spec, numbers)
    assert (len(found.matched), len(found.unmatched)) == (60, 8)


def test_nothing_that_fits_is_an_error(tmp_path: Path) -> None:
    layer = "transformer.blocks.35.norm2"
    save_file({f"{layer}.diff": torch.zeros(1536)}, tmp_path / "x.safetensors")
    spec = Catalog().get("t2v-1.3b")
    numbers = numbers_of(spec, None)
    assert numbers is not None
    assert "nothing in it" in fit(read_lora(tmp_path / "x.safetensors"), spec, numbers).fault


def test_an_unknown_size_is_said(tmp_path: Path) -> None:
    assert numbers_of(Catalog().get("demo"), tmp_path) is None
