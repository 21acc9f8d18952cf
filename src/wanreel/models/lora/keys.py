"""Names of tensors in LoRA files, as the trainers write them, and the layer of the transformer that each is for.

Sources of the names: kohya-ss/musubi-tuner (networks/lora_wan.py, convert_lora.py), huggingface/diffusers
(loaders/lora_conversion_utils.py), ModelTC/LightX2V, Wan-Video/Wan2.1 (wan/modules/model.py). Knows nothing of shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: down, up: the two matrices. alpha: a number. weight, bias: what is added to the layer's own, of any rank.
Role = Literal["down", "up", "alpha", "weight", "bias"]
Format = Literal["kohya", "Diffusers", "PEFT", "Wan"]

_ROLES: Mapping[str, Role] = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
    ".diff": "weight",
    ".diff_b": "bias",
}
#: Parts of names that belong to methods which are not LoRA, or change what a LoRA means.
_OTHER_METHODS: Mapping[str, str] = {
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "dora_scale": "DoRA",
    "magnitude_vector": "DoRA",
    "oft_": "OFT",
    "boft_": "BOFT",
    "lora_mid": "LoCon with a middle matrix",
}
_KOHYA = ("lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_")
_DOTTED = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer_2.",
    "transformer.",
    "model.",
)
_SECOND = "transformer_2."  # Diffusers' name of the low-noise expert

#: Layers of a block, the authors' names to Diffusers'.
_BLOCK: Mapping[str, str] = {
    "self_attn.q": "attn1.to_q",
    "self_attn.k": "attn1.to_k",
    "self_attn.v": "attn1.to_v",
    "self_attn.o": "attn1.to_out.0",
    "self_attn.norm_q": "attn1.norm_q",
    "self_attn.norm_k": "attn1.norm_k",
    "cross_attn.q": "attn2.to_q",
    "cross_attn.k": "attn2.to_k",
    "cross_attn.v": "attn2.to_v",
    "cross_attn.o": "attn2.to_out.0",
    "cross_attn.norm_q": "attn2.norm_q",
    "cross_attn.norm_k": "attn2.norm_k",
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "cross_attn.norm_k_img": "attn2.norm_added_k",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "norm3": "norm2",
}
#: The other layers.
_REST: Mapping[str, str] = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.head": "proj_out",
}


def _with_own_names(table: Mapping[str, str]) -> dict[str, str]:
    """The table, and Diffusers' own names as themselves. "norm2" is Diffusers' alone, so there is no clash."""
    return {**{name: name for name in table.values()}, **table}


_BLOCK_NAMES = _with_own_names(_BLOCK)
_REST_NAMES = _with_own_names(_REST)
_FLAT_BLOCK = {name.replace(".", "_"): layer for name, layer in _BLOCK_NAMES.items()}
_FLAT_REST = {name.replace(".", "_"): layer for name, layer in _REST_NAMES.items()}
_IN_BLOCK = re.compile(r"blocks\.(\d{1,4})\.(.+)")
_IN_FLAT_BLOCK = re.compile(r"blocks_(\d{1,4})_(.+)")


@dataclass(frozen=True, slots=True)
class Key:
    """What one tensor's name says."""

    layer: str  #: in Diffusers' names: "blocks.0.attn1.to_q"
    role: Role
    second: bool  #: named for Diffusers' second transformer, the low-noise expert
    format: Format


def read_key(name: str) -> Key | None:
    """What `name` means; None for a name that means nothing here."""
    for ending, role in _ROLES.items():
        if name.endswith(ending):
            return _key(name.removesuffix(ending), role, ending)
    return None


def other_method(name: str) -> str | None:
    """The method that a tensor of this name belongs to, where that is none we apply."""
    return next((method for part, method in _OTHER_METHODS.items() if part in name), None)


def _key(path: str, role: Role, ending: str) -> Key | None:
    for prefix in _KOHYA:
        if path.startswith(prefix):
            layer = _flat_layer(path.removeprefix(prefix))
            return None if layer is None else Key(layer, role, False, "kohya")
    bare, second = path, False
    for prefix in _DOTTED:
        if bare.startswith(prefix):
            bare, second = bare.removeprefix(prefix), second or prefix == _SECOND
    layer = _layer(bare)
    if layer is None:
        return None
    if path.startswith("base_model.") or ".default." in ending:
        return Key(layer, role, second, "PEFT")
    return Key(layer, role, second, "Diffusers" if layer == bare else "Wan")


def _layer(path: str) -> str | None:
    match = _IN_BLOCK.fullmatch(path)
    if match is None:
        return _REST_NAMES.get(path)
    inner = _BLOCK_NAMES.get(match[2])
    return None if inner is None else f"blocks.{int(match[1])}.{inner}"


def _flat_layer(path: str) -> str | None:
    match = _IN_FLAT_BLOCK.fullmatch(path)
    if match is None:
        return _FLAT_REST.get(path)
    inner = _FLAT_BLOCK.get(match[2])
    return None if inner is None else f"blocks.{int(match[1])}.{inner}"
