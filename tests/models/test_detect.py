"""What a file is, from crafted headers: right ones of every kind, and hostile ones. No weights anywhere."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wanreel.core.catalog import Catalog
from wanreel.core.errors import BrokenWeights
from wanreel.models.formats.detect import Found, identify, misfits
from wanreel.models.formats.gguf_header import read_gguf_header
from wanreel.models.safetensors_header import read_header

Shapes = dict[str, tuple[int, ...]]
BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "U8": 1, "I64": 8}


def sparse(path: Path, shapes: Shapes, dtype: str = "BF16", dtypes: dict[str, str] | None = None) -> Path:
    """A safetensors file with that header and a hole for the data: gigabytes that take no disk."""
    rows: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        kind = (dtypes or {}).get(name, dtype)
        size = BYTES[kind]
        for side in shape:
            size *= side
        rows[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    head = json.dumps(rows).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + place)
    return path


def transformer(
    dim: int, layers: int, into: int, out: int, *, clip: bool = False, both: bool = False, prefix: str = ""
) -> Shapes:
    """The authors' names of the tensors that tell anything."""
    shapes: Shapes = {
        "patch_embedding.weight": (dim, into, 1, 2, 2),
        "text_embedding.0.weight": (dim, 4096),
        "time_embedding.0.weight": (dim, 256),
        "head.head.weight": (out * 4, dim),
        "head.modulation": (1, 2, dim),
    }
    for number in range(layers):
        shapes[f"blocks.{number}.self_attn.q.weight"] = (dim, dim)
        shapes[f"blocks.{number}.modulation"] = (1, 6, dim)
        if clip:
            shapes[f"blocks.{number}.cross_attn.k_img.weight"] = (dim, dim)
    if both:
        shapes["img_emb.emb_pos"] = (1, 514, 1280)
    return {prefix + name: shape for name, shape in shapes.items()}


T2V_14B = transformer(5120, 40, 16, 16)
I2V_14B = transformer(5120, 40, 36, 16, clip=True)
FLF2V = transformer(5120, 40, 36, 16, clip=True, both=True)
I2V_A14B = transformer(5120, 40, 36, 16)
T2V_1B = transformer(1536, 30, 16, 16)
TI2V_5B = transformer(3072, 30, 48, 48)
COMFY = transformer(5120, 40, 16, 16, prefix="model.diffusion_model.")
DIFFUSERS: Shapes = {
    "patch_embedding.weight": (1536, 16, 1, 2, 2),
    "condition_embedder.time_embedder.linear_1.weight": (1536, 256),
    "proj_out.weight": (64, 1536),
    **{f"blocks.{number}.attn1.to_q.weight": (1536, 1536) for number in range(30)},
}
VAE_21: Shapes = {
    "encoder.conv1.weight": (96, 3, 3, 3, 3),
    "decoder.conv1.weight": (384, 16, 3, 3, 3),
    "conv2.weight": (16, 16, 1, 1, 1),
}
VAE_22: Shapes = {
    "encoder.conv1.weight": (160, 12, 3, 3, 3),
    "decoder.conv1.weight": (1024, 48, 3, 3, 3),
    "conv2.weight": (48, 48, 1, 1, 1),
}
VAE_DIFFUSERS: Shapes = {
    "encoder.conv_in.weight": (96, 3, 3, 3, 3),
    "decoder.conv_in.weight": (384, 16, 3, 3, 3),
    "decoder.mid_block.resnets.0.conv1.weight": (384, 384, 3, 3, 3),
    "post_quant_conv.weight": (16, 16, 1, 1, 1),
}
UMT5: Shapes = {"shared.weight": (256384, 4096)}
for _number in range(24):
    UMT5[f"encoder.block.{_number}.layer.0.SelfAttention.q.weight"] = (4096, 4096)
    UMT5[f"encoder.block.{_number}.layer.0.SelfAttention.relative_attention_bias.weight"] = (32, 64)
T5 = {name: shape for name, shape in UMT5.items() if "bias" not in name or "block.0." in name}
UMT5_AUTHORS: Shapes = {
    "token_embedding.weight": (256384, 4096),
    "blocks.0.attn.q.weight": (4096, 4096),
    "blocks.0.pos_embedding.embedding.weight": (32, 64),
    "blocks.1.attn.q.weight": (4096, 4096),
    "blocks.1.pos_embedding.embedding.weight": (32, 64),
}
CLIP: Shapes = {
    "vision_model.embeddings.position_embedding.weight": (257, 1280),
    "vision_model.encoder.layers.0.self_attn.q_proj.weight": (1280, 1280),
}
LORA: Shapes = {f"diffusion_model.blocks.0.self_attn.{n}.lora_{s}.weight": (16, 16) for n in "qkv" for s in "AB"}

#: name of the file, its shapes, dtype, and what must be said of it
RIGHT: list[tuple[str, Shapes, str, str]] = [
    ("t2v.safetensors", T2V_14B, "BF16", "Wan 2.1 or 2.2 T2V 14B transformer, bf16, authors' names"),
    ("t2v.safetensors", T2V_14B, "F16", "Wan 2.1 or 2.2 T2V 14B transformer, fp16, authors' names"),
    ("wan2.2_t2v_high_noise_14B.safetensors", T2V_14B, "BF16", "Wan 2.1 or 2.2 T2V 14B transformer, high-noise"),
    ("Wan2_2-T2V-A14B-LOW.safetensors", T2V_14B, "BF16", "Wan 2.1 or 2.2 T2V 14B transformer, low-noise"),
    ("highlow.safetensors", T2V_14B, "BF16", "T2V 14B transformer, bf16"),
    ("flow.safetensors", T2V_14B, "BF16", "T2V 14B transformer, bf16"),
    ("i2v.safetensors", I2V_14B, "BF16", "Wan 2.1 I2V 14B transformer, bf16"),
    ("flf.safetensors", FLF2V, "BF16", "Wan 2.1 FLF2V 14B transformer, bf16"),
    ("i2v22_high_noise.safetensors", I2V_A14B, "BF16", "Wan 2.2 I2V 14B transformer, high-noise expert by its name"),
    ("small.safetensors", T2V_1B, "F32", "Wan 2.1 T2V 1.3B transformer, fp32"),
    ("ti2v.safetensors", TI2V_5B, "BF16", "Wan 2.2 TI2V 5B transformer, bf16"),
    ("comfy.safetensors", COMFY, "BF16", "Wan 2.1 or 2.2 T2V 14B transformer, bf16, authors' names"),
    ("fp8.safetensors", T2V_14B, "F8_E4M3", "T2V 14B transformer, fp8, authors'"),
    ("fp8.safetensors", T2V_14B, "F8_E5M2", "T2V 14B transformer, fp8, authors'"),
    ("diffusers.safetensors", DIFFUSERS, "BF16", "Wan 2.1 T2V 1.3B transformer, bf16, Diffusers' names"),
    ("odd.safetensors", transformer(640, 3, 16, 16), "BF16", "Wan 2.1 T2V 3×640 transformer"),
    ("fun.safetensors", transformer(5120, 40, 48, 16), "BF16", "48-channel 14B transformer"),
    ("vae.safetensors", VAE_21, "F32", "Wan 2.1 VAE, fp32, authors' names"),
    ("vae22.safetensors", VAE_22, "BF16", "Wan 2.2 VAE, bf16, authors' names"),
    ("vaed.safetensors", VAE_DIFFUSERS, "F32", "Wan 2.1 VAE, fp32, Diffusers' names"),
    ("umt5.safetensors", UMT5, "BF16", "UMT5-XXL text encoder, bf16, transformers' names"),
    ("umt5a.safetensors", UMT5_AUTHORS, "BF16", "UMT5-XXL text encoder, bf16, authors' names"),
    ("t5.safetensors", T5, "BF16", "a T5 encoder; Wan needs UMT5"),
    ("clip.safetensors", CLIP, "F16", "CLIP ViT-H image encoder, fp16"),
    ("lora.safetensors", LORA, "F16", "a LoRA"),
    ("vace.safetensors", T2V_14B | {"vace_blocks.0.q.weight": (2, 2)}, "BF16", "VACE (video editing), which"),
    ("animate.safetensors", T2V_14B | {"face_adapter.q": (2, 2)}, "BF16", "Animate (character animation), which"),
    ("flux.safetensors", {"double_blocks.0.img_attn.qkv.weight": (9, 3)}, "BF16", "nothing that belongs to a Wan"),
    ("empty.safetensors", {}, "BF16", "nothing that belongs to a Wan"),
]


@pytest.mark.parametrize(("name", "shapes", "dtype", "said"), RIGHT, ids=lambda it: it if isinstance(it, str) else "")
def test_right_headers(tmp_path: Path, name: str, shapes: Shapes, dtype: str, said: str) -> None:
    assert said in str(identify(sparse(tmp_path / name, shapes, dtype)))


def test_scaled_fp8(tmp_path: Path) -> None:
    extra = {"scaled_fp8": (0,), "blocks.0.self_attn.q.scale_weight": (1,)}
    dtypes = {"blocks.0.self_attn.q.scale_weight": "F32"}
    found = identify(sparse(tmp_path / "s.safetensors", T2V_14B | extra, "F8_E4M3", dtypes))
    assert found.precision == "fp8 scaled" and found.size == "14B"


# GGUF


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_bytes(rows: list[tuple[str, tuple[int, ...], int, int]], *, pairs: bytes = b"", count: int = 0) -> bytes:
    """A header; rows: name, dimensions as GGUF has them (fastest first), kind, offset."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(rows), count) + pairs
    for name, sides, kind, offset in rows:
        head += text(name) + struct.pack("<I", len(sides)) + struct.pack(f"<{len(sides)}Q", *sides)
        head += struct.pack("<IQ", kind, offset)
    return head + b"\0" * (-len(head) % 32)


def sparse_gguf(path: Path, kind: int, block: int, size: int) -> Path:
    rows: list[tuple[str, tuple[int, ...], int, int]] = []
    place = 0
    for name, shape in T2V_14B.items():
        flat = (shape[0], shape[1] * 4) if len(shape) == 5 else shape
        elements = 1
        for side in flat:
            elements *= side
        small = elements % block or flat[-1] % block
        rows.append((name, tuple(reversed(flat)), 0 if small else kind, place))
        place += elements * 4 if small else elements // block * size
        place += -place % 32
    head = gguf_bytes(rows)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + place)
    return path


@pytest.mark.parametrize(
    ("kind", "block", "size", "said"),
    [(2, 32, 18, "Q4_0"), (12, 256, 144, "Q4_K"), (13, 256, 176, "Q5_K"), (14, 256, 210, "Q6_K"), (8, 32, 34, "Q8_0"),
     (1, 1, 2, "fp16"), (30, 1, 2, "bf16")],
)  # fmt: skip
def test_gguf(tmp_path: Path, kind: int, block: int, size: int, said: str) -> None:
    found = identify(sparse_gguf(tmp_path / "wan-high.gguf", kind, block, size))
    assert (found.precision, found.size, found.expert, found.in_channels) == (said, "14B", "high", 16)


PAIR = text("general.alignment") + struct.pack("<II", 4, 0)
HOSTILE_GGUF: list[tuple[bytes, str]] = [
    (b"GGUF", "no GGUF file"),
    (b"GGUF" + struct.pack("<IQQ", 9, 0, 0) + b"\0" * 32, "version 9"),
    (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0) + b"\0" * 32, "damaged header"),
    (b"GGUF" + struct.pack("<IQQ", 3, 5, 0), "cut short"),
    (b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 2**62), "damaged header"),
    (gguf_bytes([("a", (32,), 99, 0)]), "unknown kind 99"),
    (gguf_bytes([("a", (2**50, 32), 0, 0)]), "can't have its shape"),
    (gguf_bytes([("a", (31,), 8, 0)]), "can't have its shape"),
    (gguf_bytes([("a", (8,), 0, 0)]), "32 bytes are missing"),
    (gguf_bytes([("a", (8,), 0, 0), ("b", (8,), 0, 16)]) + b"\0" * 64, "overlaps"),
    (gguf_bytes([("a", (8,), 0, 0), ("a", (8,), 0, 32)]) + b"\0" * 64, "twice"),
    (gguf_bytes([("a", (1, 1, 1, 1, 1), 0, 0)]) + b"\0" * 64, "5 dimensions"),
    (gguf_bytes([], pairs=PAIR, count=1), "alignment"),
    (gguf_bytes([], pairs=text("x") + struct.pack("<IIQ", 9, 9, 1), count=1), "unknown type"),
    (gguf_bytes([], pairs=text("x") + struct.pack("<IIQ", 9, 4, 2**40), count=1), "an array of"),
]


@pytest.mark.parametrize(("data", "said"), HOSTILE_GGUF, ids=lambda it: it if isinstance(it, str) else "")
def test_hostile_gguf(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(BrokenWeights, match=said):
        read_gguf_header(path)


# Hostile safetensors


def raw(head: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(head) if length is None else length) + head + data


def row(name: str, start: int, stop: int, shape: str = "[4]", dtype: str = "U8") -> str:
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{stop}]}}'


def head(*rows: str) -> bytes:
    return ("{" + ",".join(rows) + "}").encode()


HOSTILE: list[tuple[bytes, str]] = [
    (b"", "too short"),
    (b"PK\x03\x04" + b"\0" * 30, "pickle of PyTorch"),
    (b"\x80\x02}q\x00." + b"\0" * 30, "a pickle"),
    (b"\x80\x04\x95" + b"\0" * 30, "a pickle"),
    (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    (b"<!DOCTYPE html><html></html>", "web page"),
    (raw(b"{}", length=2**40), "its header would have"),
    (raw(b"{}", length=101 * 2**20), "its header would have"),
    (raw(b"{}", length=1), "its header would have"),
    (raw(b"{}", length=4096), "cut short"),
    (raw(b"[]"), "no JSON object"),
    (raw(b"{not json}"), "damaged header"),
    (raw(b"\xff\xfe{}"), "no JSON object"),
    (raw(b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}"), "damaged header"),
    (raw(head(row("a", 0, 4), row("a", 4, 8)), b"\0" * 8), "twice"),
    (raw(head(row("a", 0, 4), row("b", 2, 6)), b"\0" * 6), "overlaps"),
    (raw(head(row("a", 0, 4), row("b", 8, 12)), b"\0" * 12), "belong to no tensor"),
    (raw(head(row("a", 0, 4)), b"\0" * 3), "cut short: 1 bytes"),
    (raw(head(row("a", 0, 4)), b"\0" * 9), "5 bytes that belong to no tensor"),
    (raw(head(row("a", 4, 0)), b"\0" * 4), "another number of bytes"),
    (raw(head(row("a", -4, 0)), b"\0" * 4), "not described as a tensor"),
    (raw(head(row("a", 0, 4, "[2]")), b"\0" * 4), "another number of bytes"),
    (raw(head(row("a", 0, 4, "[4.0]")), b"\0" * 4), "not described as a tensor"),
    (raw(head(row("a", 0, 4, "[true]")), b"\0" * 4), "not described as a tensor"),
    (raw(head(row("a", 0, 4, "[NaN]")), b"\0" * 4), "NaN stands in it"),
    (raw(head(row("a", 0, 4, "[1e999]")), b"\0" * 4), "not described as a tensor"),
    (raw(head(row("a", 0, 4, f"[{2**50},0]")), b"\0" * 4), "not described as a tensor"),
    (raw(head(row("a", 0, 4, dtype="OBJECT")), b"\0" * 4), "unknown dtype"),
    (raw(b'{"a":{"dtype":"U8","shape":[4]}}', b"\0" * 4), "not described as a tensor"),
    (raw(b'{"a":7}'), "not described as a tensor"),
    (raw(b'{"__metadata__":[]}'), "metadata is no object"),
    (raw(b'{"__metadata__":{"a":{}}}'), "metadata is not text"),
]


@pytest.mark.parametrize(("data", "said"), HOSTILE, ids=lambda it: it if isinstance(it, str) else "")
def test_hostile_safetensors(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(BrokenWeights, match=said):
        read_header(path)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("models_t5_umt5-xxl-enc-bf16.pth", "text_encoder"),
        ("Wan2.1_VAE.pth", "vae"),
        ("models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth", "image_encoder"),
    ],
)
def test_the_authors_pickles_are_refused_with_what_replaces_them(tmp_path: Path, name: str, part: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(BrokenWeights, match=f"--component {part}"):
        identify(path)


def test_a_pickle_renamed(tmp_path: Path) -> None:
    path = tmp_path / "wan_vae.safetensors"
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(BrokenWeights, match="is a pickle, which can run code"):
        identify(path)


# What fits

FITS: list[tuple[str, Shapes, str, str, str]] = [
    ("a.safetensors", T2V_14B, "t2v-14b", "transformer", ""),
    ("a_high.safetensors", T2V_14B, "t2v-a14b", "transformer", ""),
    ("a_high.safetensors", T2V_14B, "t2v-a14b", "transformer_2", "is the high-noise expert by its name, and"),
    ("a_low.safetensors", T2V_14B, "t2v-a14b", "transformer", "is the low-noise expert by its name, and"),
    ("a.safetensors", I2V_14B, "i2v-a14b", "transformer", "Wan 2.1 I2V 14B .* needs a Wan 2.2 I2V 14B"),
    ("a.safetensors", I2V_A14B, "i2v-14b-480p", "transformer", "Wan 2.2 I2V 14B .* needs a Wan 2.1 I2V 14B"),
    ("a.safetensors", FLF2V, "i2v-14b-720p", "transformer", "FLF2V .* needs a Wan 2.1 I2V"),
    ("a.safetensors", I2V_14B, "flf2v-14b-720p", "transformer", "I2V .* needs a Wan 2.1 FLF2V"),
    ("a.safetensors", T2V_1B, "t2v-14b", "transformer", r"T2V 1.3B .* needs a Wan 2.1 T2V 14B .*16 input channels"),
    ("a.safetensors", TI2V_5B, "ti2v-5b", "transformer", ""),
    ("a.safetensors", TI2V_5B, "t2v-1.3b", "transformer", "TI2V 5B .* needs a Wan 2.1 T2V 1.3B"),
    ("a.safetensors", VAE_21, "t2v-14b", "vae", ""),
    ("a.safetensors", VAE_21, "ti2v-5b", "vae", "48 latent channels"),
    ("a.safetensors", VAE_22, "t2v-14b", "vae", "16 latent channels"),
    ("a.safetensors", UMT5, "t2v-14b", "text_encoder", ""),
    ("a.safetensors", UMT5, "t2v-14b", "vae", "UMT5-XXL text encoder, and t2v-14b needs its vae"),
    ("a.safetensors", CLIP, "i2v-14b-480p", "image_encoder", ""),
    ("a.safetensors", LORA, "t2v-14b", "transformer", "is a LoRA, and"),
]


@pytest.mark.parametrize(("name", "shapes", "model", "slot", "said"), FITS)
def test_what_fits(
    tmp_path: Path, name: str, shapes: Shapes, model: str, slot: str, said: str, rematch: Callable[[str, str], bool]
) -> None:
    found: Found = identify(sparse(tmp_path / name, shapes))
    told = misfits(found, Catalog().get(model), slot)
    assert (told == "") == (said == ""), told
    assert rematch(said, told), told


@pytest.fixture
def rematch() -> Callable[[str, str], bool]:
    import re

    return lambda pattern, text: re.search(pattern, text) is not None
