"""Whether a LoRA file fits a model, from the file's header and the model's numbers. Imports no torch; loads nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from wanreel.core.catalog import ModelSpec
from wanreel.core.components import CLIP_DIM, PATCH, TEXT_DIM, TIME_FREQUENCIES, TRANSFORMERS
from wanreel.models.lora.file import LayerChange, LoraFile
from wanreel.models.shelf import is_tiny

_EMBEDDER = "condition_embedder"


@dataclass(frozen=True, slots=True)
class Numbers:
    """What fixes the shapes of a Wan transformer's layers."""

    heads: int
    head_dim: int
    ffn_dim: int
    layers: int
    out_channels: int
    text_dim: int = TEXT_DIM
    time_dim: int = TIME_FREQUENCIES
    image_dim: int | None = None  #: None: no CLIP

    @property
    def dim(self) -> int:
        return self.heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer that a LoRA can change. A norm has as many inputs as outputs, and no matrix."""

    inputs: int
    outputs: int
    norm: bool = False
    has_bias: bool = True


@dataclass(frozen=True, slots=True)
class Fit:
    """What of a file a model can take."""

    model: str
    matched: tuple[LayerChange, ...] = ()
    unmatched: tuple[str, ...] = ()  #: tensors that are not applied: unknown names, or layers that the model lacks
    fault: str = ""  #: why it is no LoRA for this model; empty when it fits

    @property
    def ok(self) -> bool:
        return not self.fault


def numbers_of(spec: ModelSpec, folder: Path | None) -> Numbers | None:
    """From the tables, or for a model that is in none of them from its folder; None where neither tells."""
    clip = CLIP_DIM if spec.clip else None
    if is_tiny(spec):
        return Numbers(2, 12, 64, 2, spec.latent_channels, 32, 32, 32 if spec.clip else None)
    size = TRANSFORMERS.get(spec.parameters)
    if size is not None:
        return Numbers(size.heads, size.head_dim, size.ffn_dim, size.layers, spec.latent_channels, image_dim=clip)
    return None if folder is None else _read_numbers(folder / "transformer" / "config.json")


def fit(file: LoraFile, spec: ModelSpec, numbers: Numbers) -> Fit:
    """Sorts the file's layers. Any layer of another shape means another model; no layer at all means no use."""
    layers = layout(numbers)
    matched: list[LayerChange] = []
    unmatched = list(file.strays)
    wrong: list[str] = []
    for change in file.layers:
        layer = layers.get(change.layer)
        if layer is None or (change.second and not spec.two_experts):
            unmatched.extend(change.tensors)
        elif fault := _misfit(change, layer):
            wrong.append(f"{change.layer} {fault}")
        else:
            matched.append(change)
    fault = _fault(file, spec, numbers, matched, wrong)
    return Fit(spec.name, () if fault else tuple(matched), tuple(unmatched), fault)


def base_of(file: LoraFile) -> str:
    """For people, which models it was made for: "14B (width 5120)", "width 160"."""
    width = _width(file)
    names = {size.dim: f"{name} (width {size.dim})" for name, size in TRANSFORMERS.items() if "×" not in name}
    base = names.get(width, f"width {width}" if width else "unknown size")
    pictures = any("add_k_proj" in change.layer or "image_embedder" in change.layer for change in file.layers)
    return base + (", with pictures (Wan 2.1)" if pictures else "")


@lru_cache(maxsize=16)
def layout(numbers: Numbers) -> Mapping[str, Layer]:
    """Every layer by its name in Diffusers."""
    dim, found = numbers.dim, dict[str, Layer]()
    square, norm = Layer(dim, dim), Layer(dim, dim, norm=True, has_bias=False)
    for number in range(numbers.layers):
        block = f"blocks.{number}"
        for attention in ("attn1", "attn2"):
            for name in ("to_q", "to_k", "to_v", "to_out.0"):
                found[f"{block}.{attention}.{name}"] = square
            found[f"{block}.{attention}.norm_q"] = found[f"{block}.{attention}.norm_k"] = norm
        if numbers.image_dim is not None:
            found[f"{block}.attn2.add_k_proj"] = found[f"{block}.attn2.add_v_proj"] = square
            found[f"{block}.attn2.norm_added_k"] = norm
        found[f"{block}.norm2"] = Layer(dim, dim, norm=True)
        found[f"{block}.ffn.net.0.proj"] = Layer(dim, numbers.ffn_dim)
        found[f"{block}.ffn.net.2"] = Layer(numbers.ffn_dim, dim)
    found["proj_out"] = Layer(dim, numbers.out_channels * PATCH**2)
    for name, inputs in (("text_embedder", numbers.text_dim), ("time_embedder", numbers.time_dim)):
        found[f"{_EMBEDDER}.{name}.linear_1"] = Layer(inputs, dim)
        found[f"{_EMBEDDER}.{name}.linear_2"] = square
    found[f"{_EMBEDDER}.time_proj"] = Layer(dim, 6 * dim)
    if numbers.image_dim is not None:
        image, clip = f"{_EMBEDDER}.image_embedder", numbers.image_dim
        found[f"{image}.norm1"] = Layer(clip, clip, norm=True)
        found[f"{image}.ff.net.0.proj"] = Layer(clip, clip)
        found[f"{image}.ff.net.2"] = Layer(clip, dim)
        found[f"{image}.norm2"] = Layer(dim, dim, norm=True)
    return found


def _read_numbers(path: Path) -> Numbers | None:
    try:
        config = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        return Numbers(
            heads=int(config["num_attention_heads"]),
            head_dim=int(config["attention_head_dim"]),
            ffn_dim=int(config["ffn_dim"]),
            layers=int(config["num_layers"]),
            out_channels=int(config["out_channels"]),
            text_dim=int(config["text_dim"]),
            time_dim=int(config["freq_dim"]),
            image_dim=config.get("image_dim"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _misfit(change: LayerChange, layer: Layer) -> str:
    """How the change's shapes differ from the layer's; empty when they agree."""
    if change.down and layer.norm:
        return "is a norm, which has no matrices"
    if change.down and (change.inputs, change.outputs) != (layer.inputs, layer.outputs):
        return f"is {change.inputs} → {change.outputs}, the model has {layer.inputs} → {layer.outputs}"
    weight = (layer.outputs,) if layer.norm else (layer.outputs, layer.inputs)
    if change.weight and change.weight_shape != weight:
        return f"has a difference of shape {change.weight_shape}, the model has {weight}"
    if change.bias and (not layer.has_bias or change.bias_shape != (layer.outputs,)):
        return (
            f"has a bias of shape {change.bias_shape}, the model has {(layer.outputs,) if layer.has_bias else 'none'}"
        )
    return ""


def _fault(file: LoraFile, spec: ModelSpec, numbers: Numbers, matched: list[LayerChange], wrong: list[str]) -> str:
    width = _width(file)
    if width and width != numbers.dim:
        return f"it is for models of {base_of(file)}, {spec.name} has width {numbers.dim}"
    if wrong:
        return f"it is for another model: {wrong[0]}" + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
    if not matched:
        return f"nothing in it is for {spec.name}"
    return ""


def _width(file: LoraFile) -> int:
    """Of the residual stream, from a layer that is square in every Wan model; 0 where it holds none."""
    for change in file.layers:
        if change.down and change.layer.startswith("blocks.") and "ffn" not in change.layer:
            return change.inputs
    for change in file.layers:
        if change.down and change.layer.endswith("ffn.net.0.proj"):
            return change.inputs
    return 0
