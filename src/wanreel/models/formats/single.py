"""single_part: one component from a single file, or from the authors' folder, in whatever names and precision.

What the config would say is read from the shapes. Knows nothing of loading or of devices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import BrokenWeights
from wanreel.models.formats.detect import EXTRAS, MARKS, PICKLES, SCALES, Found, identify_header, misfits, open_header
from wanreel.models.formats.names import text_encoder_name, transformer_name, vae_names, without_prefix
from wanreel.models.parts import Part, TensorInfo
from wanreel.models.safetensors_header import Header

HEAD = 128  #: width of one head of every published Wan transformer
#: Source: Wan-Video/Wan2.2 wan/modules/vae2_2.py (Wan2_2_VAE); the 16-channel ones are Diffusers' defaults.
LATENTS_MEAN_48 = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
LATENTS_STD_48 = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip
_NUMBERS = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_CLIP_HEAD = 80  # width of one head of CLIP ViT-H
Shapes = Mapping[str, tuple[int, ...]]


def single_part(spec: ModelSpec, name: str, place: Path) -> Part:
    """`name` of `spec` from the file or folder `place`. Raises BrokenWeights naming what was found and what was needed."""
    headers = [open_header(file) for file in _files(place)]
    found = _identify(headers)
    reason = misfits(found, spec, name)
    if reason:
        raise BrokenWeights(f"{reason}.")
    tensors: dict[str, TensorInfo] = {}
    for header in headers:
        tensors |= _tensors(found, header)
    shapes = {key: info.shape for key, info in tensors.items()}
    try:
        config = _config(found, shapes, _authors_config(place))
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise BrokenWeights(f"{place.name} is incomplete: it has no {error}.") from error
    return Part(name, place, config, tensors, hugging=False, origin=str(found))


def _files(place: Path) -> list[Path]:
    """The file, or the authors' shards in a folder."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise BrokenWeights(f"{place} is gone.")
    shards = sorted(place.glob("diffusion_pytorch_model*.safetensors"))
    if shards:
        _check_complete(place, shards)
        return shards
    pickles = sorted(file.name for file in place.iterdir() if file.suffix in PICKLES)
    what = f"only {pickles[0]}; pickles can run code, safetensors are needed" if pickles else "no weights"
    raise BrokenWeights(f"{place} holds {what}.")


def _check_complete(place: Path, shards: list[Path]) -> None:
    index = place / "diffusion_pytorch_model.safetensors.index.json"
    if index.is_file():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenWeights(f"{index} can't be read ({error}).") from error
        missing = sorted(named - {shard.name for shard in shards})
        if missing:
            raise BrokenWeights(f"{place} lacks {len(missing)} of {len(named)} files ({missing[0]}, …).")


def _identify(headers: list[Header]) -> Found:
    """Of all files together."""
    entries = {name: entry for header in headers for name, entry in header.entries.items()}
    return identify_header(Header(headers[0].path, entries, headers[0].metadata))


def _tensors(found: Found, header: Header) -> dict[str, TensorInfo]:
    """By Diffusers' or transformers' names. Raises BrokenWeights for what can't be read as numbers."""
    _, plain = without_prefix(header.entries)
    renamed = _renamed(found, plain)
    scales = {key.removesuffix(ending) + ".weight": key for key in plain for ending in SCALES if key.endswith(ending)}
    gguf = header.path.suffix == ".gguf" or any(it.dtype.startswith(("Q", "IQ")) for it in header.entries.values())
    tensors: dict[str, TensorInfo] = {}
    for key, short in plain.items():
        if key.endswith((*SCALES, *EXTRAS)) or short in MARKS:
            continue
        entry, ours = header.entries[key], renamed.get(short)
        if ours is None:
            raise BrokenWeights(f"{header.path.name} holds {ascii(key[:80])}, which no {found.part} has.")
        if not gguf and entry.dtype not in _NUMBERS:
            raise BrokenWeights(f"{header.path.name} holds {ascii(key[:80])} in {entry.dtype}, which is not supported.")
        shape = entry.shape
        if ours == "patch_embedding.weight" and len(shape) == 2:  # repackaged flat, as GGUF has four dimensions at most
            shape = (shape[0], shape[1] // 4, 1, 2, 2)
        start = header.data_start + entry.start if gguf else -1
        tensors[ours] = TensorInfo(
            header.path, shape, entry.dtype, key, scales.get(key, ""), start, entry.stop - entry.start
        )
    return tensors


def _renamed(found: Found, plain: Mapping[str, str]) -> dict[str, str]:
    """Our name of each."""
    shorts = plain.values()
    if found.part == "image_encoder":
        return {short: short.removeprefix("vision_model.") for short in shorts if "projection" not in short}
    if found.style != "authors'":
        return {short: short for short in shorts}
    if found.part == "vae":
        return vae_names(shorts)
    rename = transformer_name if found.part == "transformer" else text_encoder_name
    return {short: ours for short in shorts if (ours := rename(short)) is not None}


def _authors_config(place: Path) -> Mapping[str, Any]:
    """The authors' own config beside their weights; empty without one."""
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("Mapping[str, Any]", config) if isinstance(config, dict) else {}


def _config(found: Found, shapes: Shapes, authors: Mapping[str, Any]) -> dict[str, Any]:
    """What Diffusers' or transformers' config of this part would say. Raises KeyError for a tensor that is missing."""
    if found.part == "transformer":
        return _transformer_config(shapes, authors)
    if found.part == "vae":
        return _vae_config(shapes)
    return _text_config(shapes) if found.part == "text_encoder" else _image_config(shapes)


def _transformer_config(shapes: Shapes, authors: Mapping[str, Any]) -> dict[str, Any]:
    patch, embedder = shapes["patch_embedding.weight"], "condition_embedder"
    dim = patch[0]
    heads = int(authors.get("num_heads", dim // HEAD))
    if heads < 1 or dim % heads:
        raise BrokenWeights(f"A width of {dim} can't be divided into heads of {HEAD}.")
    config: dict[str, Any] = {
        "num_attention_heads": heads,
        "attention_head_dim": dim // heads,
        "in_channels": patch[1],
        "out_channels": shapes["proj_out.weight"][0] // 4,
        "text_dim": shapes[f"{embedder}.text_embedder.linear_1.weight"][1],
        "freq_dim": shapes[f"{embedder}.time_embedder.linear_1.weight"][1],
        "ffn_dim": shapes["blocks.0.ffn.net.0.proj.weight"][0],
        "num_layers": _count(shapes, "blocks."),
    }
    image = f"{embedder}.image_embedder"
    if f"{image}.norm1.weight" in shapes:
        config |= {"image_dim": shapes[f"{image}.norm1.weight"][0], "added_kv_proj_dim": dim}
    if f"{image}.pos_embed" in shapes:
        config["pos_embed_seq_len"] = shapes[f"{image}.pos_embed"][1]
    return config


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered things there are."""
    place = prefix.count(".")
    return 1 + max(int(key.split(".")[place]) for key in shapes if key.startswith(prefix))


def _vae_config(shapes: Shapes) -> dict[str, Any]:
    latent = shapes["post_quant_conv.weight"][0]
    base, into = shapes["encoder.conv_in.weight"][0], shapes["encoder.conv_in.weight"][1]
    residual = any(key.startswith("encoder.down_blocks.0.resnets.") for key in shapes)
    stages = _count(shapes, "decoder.up_blocks.")
    blocks = _count(shapes, "decoder.up_blocks.0.resnets.") - 1
    patch = round((into / 3) ** 0.5)
    top = shapes["decoder.conv_in.weight"][0]
    widths = _stage_widths(shapes, stages, blocks, residual=residual)
    config: dict[str, Any] = {
        "base_dim": base,
        "z_dim": latent,
        "dim_mult": [width // base for width in widths],
        "num_res_blocks": blocks,
        "temperal_downsample": _downsample(shapes, stages, blocks, residual=residual),
        "scale_factor_spatial": 2 ** (stages - 1) * patch,
    }
    if residual or patch > 1:
        config |= {
            "is_residual": residual,
            "in_channels": into,
            "out_channels": into,
            "patch_size": patch if patch > 1 else None,
            "decoder_base_dim": top // (widths[-1] // base),
        }
    if latent == len(LATENTS_MEAN_48):
        config |= {"latents_mean": list(LATENTS_MEAN_48), "latents_std": list(LATENTS_STD_48)}
    elif latent != 16:
        raise BrokenWeights(f"A VAE of {latent} latent channels has statistics that its file does not hold.")
    return config


def _stage_widths(shapes: Shapes, stages: int, blocks: int, *, residual: bool) -> list[int]:
    """Width of each stage of the encoder: of its last residual block."""
    if residual:
        return [shapes[f"encoder.down_blocks.{stage}.resnets.{blocks - 1}.conv2.weight"][0] for stage in range(stages)]
    step = blocks + 1
    return [shapes[f"encoder.down_blocks.{stage * step + blocks - 1}.conv2.weight"][0] for stage in range(stages)]


def _downsample(shapes: Shapes, stages: int, blocks: int, *, residual: bool) -> list[bool]:
    """Whether each stage but the last halves time too."""
    step = blocks + 1
    names = [
        f"encoder.down_blocks.{stage}.downsampler" if residual else f"encoder.down_blocks.{stage * step + blocks}"
        for stage in range(stages - 1)
    ]
    return [f"{name}.time_conv.weight" in shapes for name in names]


def _text_config(shapes: Shapes) -> dict[str, Any]:
    table = shapes["shared.weight"]
    bias = shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    return {
        "vocab_size": table[0],
        "d_model": table[1],
        "num_heads": bias[1],
        "d_kv": shapes["encoder.block.0.layer.0.SelfAttention.q.weight"][0] // bias[1],
        "d_ff": shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"][0],
        "num_layers": _count(shapes, "encoder.block."),
        "relative_attention_num_buckets": bias[0],
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }


def _image_config(shapes: Shapes) -> dict[str, Any]:
    patch = shapes["embeddings.patch_embedding.weight"]
    width, side = patch[0], round((shapes["embeddings.position_embedding.weight"][0] - 1) ** 0.5)
    return {
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, "encoder.layers."),
        "num_attention_heads": max(1, width // _CLIP_HEAD),
        "patch_size": patch[-1],
        "image_size": side * patch[-1],
        "hidden_act": "gelu",  # of ViT-H; the smaller CLIPs have another
    }
