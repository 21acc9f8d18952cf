"""Names of tensors in the authors' files, as Diffusers and transformers call them. Knows nothing of files or shapes.

Sources: Wan-Video/Wan2.1 and Wan2.2 (wan/modules/model.py, vae.py, vae2_1.py, vae2_2.py, t5.py); Diffusers' and
transformers' modules of the same parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

#: What repackagers put before every name.
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.")

_ENDS: Mapping[str, str] = {
    "patch_embedding": "patch_embedding",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
}
_BARE: Mapping[str, str] = {
    "head.modulation": "scale_shift_table",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
}
_ATTENTION: Mapping[str, str] = {
    "q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k",
    "k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k",
}  # fmt: skip
_BLOCK: Mapping[str, str] = {
    **{f"self_attn.{theirs}": f"attn1.{ours}" for theirs, ours in _ATTENTION.items()},
    **{f"cross_attn.{theirs}": f"attn2.{ours}" for theirs, ours in _ATTENTION.items()},
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "norm3": "norm2",  # the authors number norms as they are made, Diffusers as they are used
    "norm2": "norm3",
    "norm1": "norm1",
}
_T5_BLOCK: Mapping[str, str] = {
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
_RESIDUAL: Mapping[str, str] = {
    "residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}  # fmt: skip
_VAE_ENDS: Mapping[str, str] = {
    "conv1": "quant_conv", "conv2": "post_quant_conv",
    **{f"{side}.{theirs}": f"{side}.{ours}" for side in ("encoder", "decoder") for theirs, ours in (
        ("conv1", "conv_in"), ("head.0", "norm_out"), ("head.2", "conv_out"),
        ("middle.0", "mid_block.resnets.0"), ("middle.1", "mid_block.attentions.0"),
        ("middle.2", "mid_block.resnets.1"),
    )},
}  # fmt: skip
_NESTED = re.compile(r"(encoder\.downsamples|decoder\.upsamples)\.(\d+)\.(?:down|up)samples\.(\d+)\.(.+)")
_FLAT = re.compile(r"(encoder\.downsamples|decoder\.upsamples)\.(\d+)\.(.+)")
_BLOCK_NAME = re.compile(r"blocks\.(\d+)\.(.+)")


def without_prefix(names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The prefix that names of a model have in common, and each name without it by the name as it is.

    Names without the prefix (other parts in one file) are left out.
    """
    all_names = list(names)
    prefix = next((it for it in PREFIXES if sum(name.startswith(it) for name in all_names) * 2 > len(all_names)), "")
    return prefix, {name: name.removeprefix(prefix) for name in all_names if name.startswith(prefix)}


def transformer_name(name: str) -> str | None:
    """Diffusers' name of one of the authors' transformer tensors; None for one that is none."""
    if name in _BARE:
        return _BARE[name]
    owner, _, leaf = name.rpartition(".")
    if owner in _ENDS:
        return f"{_ENDS[owner]}.{leaf}"
    block = _BLOCK_NAME.fullmatch(name)
    if block is None:
        return None
    number, rest = block.groups()
    if rest == "modulation":
        return f"blocks.{number}.scale_shift_table"
    inner, _, leaf = rest.rpartition(".")
    return f"blocks.{number}.{_BLOCK[inner]}.{leaf}" if inner in _BLOCK else None


def text_encoder_name(name: str) -> str | None:
    """transformers' name of one of the authors' UMT5 tensors."""
    if name == "token_embedding.weight":
        return "shared.weight"
    if name == "norm.weight":
        return "encoder.final_layer_norm.weight"
    block = _BLOCK_NAME.fullmatch(name)
    if block is None:
        return None
    inner, _, leaf = block[2].rpartition(".")
    return f"encoder.block.{block[1]}.{_T5_BLOCK[inner]}.{leaf}" if inner in _T5_BLOCK else None


def vae_names(names: Iterable[str]) -> dict[str, str]:
    """Diffusers' names of the authors' VAE tensors, by name; those unknown are left out."""
    all_names = list(names)
    flat = [match for name in all_names if (match := _FLAT.fullmatch(name)) and not _NESTED.fullmatch(name)]
    # In the flat form (Wan 2.1) a stage of the decoder is its residual blocks and one upsampler; the last has none.
    steps = sorted({int(it[2]) for it in flat if it[1].startswith("decoder") and it[3].startswith("resample")})
    stage = steps[0] + 1 if steps else 1
    found = {name: _vae_name(name, stage) for name in all_names}
    return {name: other for name, other in found.items() if other is not None}


def _vae_name(name: str, stage: int) -> str | None:
    nested = _NESTED.fullmatch(name)
    if nested is not None:
        side, number, inner, rest = nested.groups()
        down = side.startswith("encoder")
        home = f"{'encoder.down_blocks' if down else 'decoder.up_blocks'}.{number}"
        if _is_sampler(rest):
            return f"{home}.{'downsampler' if down else 'upsampler'}.{rest}"
        return _residual(f"{home}.resnets.{inner}", rest)
    flat = _FLAT.fullmatch(name)
    if flat is not None:
        side, number, rest = flat.groups()
        if side.startswith("encoder"):
            home = f"encoder.down_blocks.{number}"
            return f"{home}.{rest}" if _is_sampler(rest) else _residual(home, rest)
        home, place = f"decoder.up_blocks.{int(number) // stage}", int(number) % stage
        return f"{home}.upsamplers.0.{rest}" if _is_sampler(rest) else _residual(f"{home}.resnets.{place}", rest)
    owner, _, leaf = name.rpartition(".")
    if owner in _VAE_ENDS:
        return f"{_VAE_ENDS[owner]}.{leaf}"
    for theirs, ours in _VAE_ENDS.items():
        if ".middle." in theirs and name.startswith(f"{theirs}."):
            rest = name.removeprefix(f"{theirs}.")
            return f"{ours}.{rest}" if "attentions" in ours else _residual(ours, rest)
    return None


def _is_sampler(rest: str) -> bool:
    return rest.startswith(("resample.", "time_conv."))


def _residual(home: str, rest: str) -> str | None:
    inner, _, leaf = rest.rpartition(".")
    return f"{home}.{_RESIDUAL[inner]}.{leaf}" if inner in _RESIDUAL else None
