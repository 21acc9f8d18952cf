"""One tiny model in every layout that people have. Its heads are as wide as real ones, so that shapes tell all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.models.components import in_channels
from wanreel.models.formats.assembly import Assembly
from wanreel.models.formats.names import text_encoder_name, transformer_name, vae_names
from wanreel.models.tiny import save_tiny

PARTS = (
    "transformer",
    "transformer_2",
    "vae",
    "text_encoder",
    "image_encoder",
    "image_processor",
    "tokenizer",
    "scheduler",
)
Tensors = dict[str, Tensor]


def wide_model(name: str, folder: Path) -> tuple[ModelSpec, Path]:
    """A tiny model in Diffusers layout with one head of 128."""
    spec = Catalog().get(f"tiny:{name}")
    save_tiny(spec, folder)
    for number, part in enumerate(("transformer", "transformer_2")[: spec.experts]):
        clip: dict[str, Any] = {"image_dim": 32, "added_kv_proj_dim": 128} if spec.clip else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            model: Any = WanTransformer3DModel(
                num_attention_heads=1,
                attention_head_dim=128,
                in_channels=in_channels(spec),
                out_channels=spec.latent_channels,
                text_dim=32,
                freq_dim=32,
                ffn_dim=256,
                num_layers=2,
                **clip,
            )
        shutil.rmtree(folder / part)
        model.save_pretrained(folder / part)
    return spec, folder


def stored(folder: Path) -> Tensors:
    """Every tensor of a part's folder."""
    return {key: tensor for file in sorted(folder.glob("*.safetensors")) for key, tensor in load_file(file).items()}


def _reversed(ours: Mapping[str, Tensor], rename: Callable[[str], str | None], candidates: list[str]) -> Tensors:
    back = {other: name for name in candidates if (other := rename(name)) is not None}
    return {back[key]: tensor for key, tensor in ours.items()}


def authors_transformer(ours: Mapping[str, Tensor]) -> Tensors:
    """In the authors' names."""
    ends = ["patch_embedding", "time_embedding.0", "time_embedding.2", "text_embedding.0", "text_embedding.2"]
    ends += ["time_projection.1", "head.head", *(f"img_emb.proj.{number}" for number in (0, 1, 3, 4))]
    attention = ("q", "k", "v", "o", "norm_q", "norm_k", "k_img", "v_img", "norm_k_img")
    inner = [f"{side}_attn.{name}" for side in ("self", "cross") for name in attention] + ["ffn.0", "ffn.2", "norm3"]
    names = ["head.modulation", "img_emb.emb_pos", *(f"blocks.{number}.modulation" for number in range(2))]
    owners = ends + [f"blocks.{number}.{name}" for number in range(2) for name in inner]
    names += [f"{owner}.{leaf}" for owner in owners for leaf in ("weight", "bias")]
    return _reversed(ours, transformer_name, names)


def authors_text_encoder(ours: Mapping[str, Tensor]) -> Tensors:
    inner = ["norm1", "norm2", "attn.q", "attn.k", "attn.v", "attn.o", "pos_embedding.embedding"]
    inner += ["ffn.gate.0", "ffn.fc1", "ffn.fc2"]
    names = ["token_embedding.weight", "norm.weight"]
    names += [f"blocks.{number}.{name}.weight" for number in range(2) for name in inner]
    return _reversed({key: it for key, it in ours.items() if "embed_tokens" not in key}, text_encoder_name, names)


def authors_vae(ours: Mapping[str, Tensor], *, nested: bool) -> Tensors:
    leaves = ("weight", "bias", "gamma")
    residual = ["residual.0", "residual.2", "residual.3", "residual.6", "shortcut"]
    inner = residual + ["resample.1", "time_conv"]
    homes: list[str] = []
    for side, many in (("encoder.downsamples", 12), ("decoder.upsamples", 12)):
        short = side.partition(".")[2]
        places = [f"{side}.{i}.{short}.{j}" for i in range(4) for j in range(4)] if nested else []
        homes += places or [f"{side}.{number}" for number in range(many)]
    names = [f"{home}.{name}" for home in homes for name in inner]
    names += [f"{side}.{name}" for side in ("encoder", "decoder") for name in ("conv1", "head.0", "head.2")]
    for side in ("encoder", "decoder"):
        names += [f"{side}.middle.{place}.{name}" for place in (0, 2) for name in residual]
        names += [f"{side}.middle.1.{name}" for name in ("norm", "to_qkv", "proj")]
    names += ["conv1", "conv2"]
    full = [f"{name}.{leaf}" for name in names for leaf in leaves]
    # Only names that exist: the flat form is read by where its upsamplers stand.
    known = set(ours)
    chosen = [name for name in full if name.partition(".")[0] != "decoder" or nested or _stands(name, ours)]
    back = {other: name for name, other in vae_names(chosen).items() if other in known}
    return {back[key]: tensor for key, tensor in ours.items()}


def _stands(name: str, ours: Mapping[str, Tensor]) -> bool:
    """Whether the decoder's flat step is of that kind: with one residual block a stage, steps 2, 5, 8 are samplers."""
    if not name.startswith("decoder.upsamples."):
        return True
    sampler = int(name.split(".")[2]) % 3 == 2
    return sampler == any(piece in name for piece in ("resample", "time_conv"))


def scaled_fp8(tensors: Mapping[str, Tensor]) -> Tensors:
    """As ComfyUI's scaled fp8 files: matrices of blocks in e4m3 with one scale each, the rest as it is."""
    out: Tensors = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    for key, tensor in tensors.items():
        if key.endswith(".weight") and tensor.ndim == 2 and "block" in key and "norm" not in key:
            scale = tensor.abs().max() / 448.0
            out[key] = (tensor / scale).to(torch.float8_e4m3fn)
            out[f"{key.removesuffix('.weight')}.scale_weight"] = scale.reshape(1)
        else:
            out[key] = tensor
    return out


def write_gguf(path: Path, tensors: Mapping[str, Tensor], kind: gguf.GGMLQuantizationType) -> Path:
    """As the field's converters: matrices of blocks in `kind`, vectors in F32, five dimensions made flat."""
    writer = gguf.GGUFWriter(path, "wan")
    for key, tensor in tensors.items():
        array = tensor.float().numpy()
        if array.ndim > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{key}", list(array.shape))
            array = array.reshape(array.shape[0], -1)
        small = array.ndim < 2 or "block" not in key or array.shape[-1] % 32 or "modulation" in key
        if small or kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(key, array.astype(np.float32))
        else:
            writer.add_tensor(key, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def save(path: Path, tensors: Mapping[str, Tensor], prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({prefix + key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def assembled(spec: ModelSpec, folder: Path, source: Path, **parts: Path) -> Path:
    """An assembly of `parts`, the rest from the Diffusers folder `source`."""
    rest = {name: source / name for name in PARTS if (source / name).is_dir()}
    Assembly(spec.name.removeprefix("tiny:"), rest | parts).save(folder)
    return folder
