"""Random LoRAs in every format people have, and what they come to as merged weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wanreel.models.lora.keys import _BLOCK, _REST

#: Diffusers' names to the authors'.
AUTHORS: Mapping[str, str] = {ours: theirs for theirs, ours in (*_BLOCK.items(), *_REST.items())}


def authors_name(layer: str) -> str:
    """ "blocks.0.attn1.to_q" as "blocks.0.self_attn.q"."""
    if layer.startswith("blocks."):
        _, number, inner = layer.split(".", 2)
        return f"blocks.{number}.{AUTHORS[inner]}"
    return AUTHORS[layer]


def _plain(layer: str) -> str:
    return layer


#: By format: a layer's name in it, the endings of the two matrices, and whether an alpha stands beside them.
FORMATS: Mapping[str, tuple[Callable[[str], str], str, str, bool]] = {
    "kohya": (lambda it: "lora_unet_" + authors_name(it).replace(".", "_"), ".lora_down.weight", ".lora_up.weight", True),
    "kohya double": (
        lambda it: "lora_unet__" + authors_name(it).replace(".", "_"),
        ".lora_down.weight",
        ".lora_up.weight",
        True,
    ),
    "kohya of Diffusers": (
        lambda it: "lycoris_" + it.replace(".", "_"), ".lora_down.weight", ".lora_up.weight", True),
    "Diffusers": (lambda it: f"transformer.{it}", ".lora_A.weight", ".lora_B.weight", False),
    "Diffusers with alpha": (lambda it: f"transformer.{it}", ".lora_A.weight", ".lora_B.weight", True),
    "PEFT": (lambda it: f"base_model.model.{it}", ".lora_A.weight", ".lora_B.weight", False),
    "PEFT default": (_plain, ".lora_A.default.weight", ".lora_B.default.weight", False),
    "authors": (lambda it: f"diffusion_model.{authors_name(it)}", ".lora_down.weight", ".lora_up.weight", False),
    "authors A B": (lambda it: f"diffusion_model.{authors_name(it)}", ".lora_A.weight", ".lora_B.weight", True),
    "authors bare": (authors_name, ".lora_down.weight", ".lora_up.weight", True),
}  # fmt: skip


@dataclass
class RandomLora:
    """A LoRA drawn from a seed: what it changes, and how it is written."""

    rank: int = 4
    alpha: float = 2.0
    weights: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict[str, tuple[Tensor, Tensor]])  #: down, up
    differences: dict[str, Tensor] = field(default_factory=dict[str, Tensor])  #: "LAYER.weight" or "LAYER.bias"

    @classmethod
    def of(cls, transformer: Any, *, seed: int = 0, rank: int = 4, alpha: float = 2.0, every: int = 1) -> RandomLora:
        """For every linear layer, or each `every`-th."""
        made, generator = cls(rank, alpha), torch.Generator().manual_seed(seed)
        linears = [(name, module) for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
        for name, module in linears[::every]:
            down = torch.randn(rank, module.in_features, generator=generator) * 0.2
            up = torch.randn(module.out_features, rank, generator=generator) * 0.2
            made.weights[name] = (down, up)
        return made

    def with_differences(self, transformer: Any, *, seed: int = 1) -> RandomLora:
        """Differences of norms and biases too, as LightX2V's files have them, and of one whole matrix."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in transformer.named_parameters():
            layer, _, kind = name.rpartition(".")
            module = transformer.get_submodule(layer)
            norm = isinstance(module, (nn.RMSNorm, nn.LayerNorm))
            linear = isinstance(module, nn.Linear) and (layer == "proj_out" or (kind == "bias" and "to_q" in layer))
            if norm or linear:
                self.differences[name] = torch.randn(parameter.shape, generator=generator) * 0.1
        self.weights.pop("proj_out", None)
        return self

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def tensors(self, format: str = "Diffusers with alpha") -> dict[str, Tensor]:
        """As a file of that format holds it. Without alphas the scale is written into the matrix."""
        named, down_end, up_end, has_alpha = FORMATS[format]
        found: dict[str, Tensor] = {}
        for layer, (down, up) in self.weights.items():
            found[named(layer) + down_end] = down.clone()
            found[named(layer) + up_end] = up.clone() if has_alpha else up * self.scale
            if has_alpha:
                found[named(layer) + ".alpha"] = torch.tensor(self.alpha)
        for name, difference in self.differences.items():
            layer, _, kind = name.rpartition(".")
            found[named(layer) + (".diff" if kind == "weight" else ".diff_b")] = difference
        return found

    def save(self, path: Path, format: str = "Diffusers with alpha", dtype: torch.dtype = torch.float32) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.to(dtype).contiguous() for name, tensor in self.tensors(format).items()}
        save_file(tensors, path, metadata={"format": "pt"})
        return path

    @torch.no_grad()
    def merge(self, transformer: Any, strength: float = 1.0) -> None:
        """Add it to the weights themselves."""
        for layer, (down, up) in self.weights.items():
            module = transformer.get_submodule(layer)
            module.weight += strength * self.scale * (up @ down)
        for name, difference in self.differences.items():
            layer, _, kind = name.rpartition(".")
            getattr(transformer.get_submodule(layer), kind).add_(strength * difference)
