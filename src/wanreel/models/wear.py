"""wear: from a request's LoRAs to branches on a model's experts. Knows nothing of steps but which LoRA is ever used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wanreel.core.errors import BrokenWeights, InvalidRequest
from wanreel.core.lora import LoraApplied, ResolvedLora
from wanreel.models.lora.branch import Share
from wanreel.models.lora.file import LayerChange, read_lora
from wanreel.models.lora.fit import Fit, Numbers, fit
from wanreel.models.lora.rack import Garment
from wanreel.models.lora.shelf import LoraShelf, Shelved
from wanreel.models.wan_model import WanModel

_EXPERTS = ("high", "low")


@dataclass(frozen=True, slots=True)
class _Chosen:
    """One LoRA of a request, its file found and judged."""

    number: int
    lora: ResolvedLora
    shelved: Shelved
    fit: Fit

    def layers(self, expert: int) -> tuple[LayerChange, ...]:
        """What it does to one expert. A file with a part for the second transformer has its other part for the first."""
        parted = any(change.second for change in self.fit.matched)
        return tuple(change for change in self.fit.matched if not parted or change.second == (expert == 1))


def wear(
    model: WanModel, loras: Sequence[ResolvedLora], steps: int, shelf: LoraShelf | None
) -> tuple[LoraApplied, ...]:
    """Put the LoRAs of a run of `steps` steps on the model's experts, and take off whatever else was on.

    What is on already is not read again. Raises BrokenWeights for a file that is gone, has changed or does not fit; the
    model then wears nothing.
    """
    try:
        model.worn = ()
        chosen = [_choose(model, number, lora, shelf) for number, lora in enumerate(loras)]
        applied = [it for index in range(len(model.experts)) for it in _dress(model, index, chosen, steps)]
        if model.lead is not None:
            model.lead.wear(loras, steps)
    except BaseException:
        for expert in model.experts:
            expert.loras.wear(())
        raise
    model.worn = tuple(loras)
    return tuple(applied)


def _choose(model: WanModel, number: int, lora: ResolvedLora, shelf: LoraShelf | None) -> _Chosen:
    if shelf is None:
        raise BrokenWeights(f"LoRA {lora.name} can't be used: there is no shelf of LoRAs here.")
    try:
        shelved = shelf.get(lora.name)
    except InvalidRequest as error:
        raise BrokenWeights(f"LoRA {lora.name} is no longer here.", hint="Add it again, or leave it out.") from error
    if shelf.sha256(shelved) != lora.sha256:
        raise BrokenWeights(
            f"LoRA {lora.name} is another file than the one asked for.",
            hint="Give the old one back its name, or ask again for the new one.",
        )
    found = fit(read_lora(shelved.path), model.spec, _numbers(model))
    if not found.ok:
        raise BrokenWeights(f"LoRA {lora.name} does not fit {model.spec.name}: {found.fault}.")
    return _Chosen(number, lora, shelved, found)


def _dress(model: WanModel, index: int, chosen: Sequence[_Chosen], steps: int) -> list[LoraApplied]:
    rack = model.experts[index].loras
    used = [one for one in chosen if one.lora.used_on(index, steps) and one.layers(index)]
    if rack.wears([(one.lora.sha256, one.number) for one in used]):
        rack.strengthen(())
    else:
        rack.wear([Garment(one.lora.sha256, one.number, _shares(one, index)) for one in used])
    return [_applied(model, index, one) for one in used]


def _applied(model: WanModel, index: int, one: _Chosen) -> LoraApplied:
    layers = one.layers(index)
    strength = (one.lora.strength_high, one.lora.strength_low)[index]
    scales = [layer.scale * strength for layer in layers]
    return LoraApplied(
        name=one.lora.name,
        sha256=one.lora.sha256,
        expert=_EXPERTS[index] if model.spec.two_experts else "",
        rank=max(layer.rank for layer in layers),
        matched=len(layers),
        unmatched=len(one.fit.unmatched),
        smallest_scale=min(scales),
        largest_scale=max(scales),
    )


def _shares(one: _Chosen, index: int) -> dict[str, Share]:
    """Reads the tensors. Raises BrokenWeights for a file that holds NaN or infinity."""
    shares: dict[str, Share] = {}
    try:
        with safe_open(one.shelved.path, framework="pt") as opened:
            for change in one.layers(index):
                tensors = {role: _tensor(opened, getattr(change, role)) for role in ("down", "up", "weight", "bias")}
                shares[change.layer] = Share(one.number, change.scale, **tensors)
    except (SafetensorError, OSError) as error:
        raise BrokenWeights(f"LoRA {one.lora.name} can't be read ({error}).") from error
    return shares


def _tensor(opened: Any, name: str) -> Tensor | None:
    if not name:
        return None
    tensor: Tensor = opened.get_tensor(name)
    if not bool(torch.isfinite(tensor.float()).all()):
        raise BrokenWeights(f"A LoRA holds NaN or infinity in {ascii(name[:80])}.")
    return tensor


def _numbers(model: WanModel) -> Numbers:
    config: Any = model.experts[0].transformer.config
    return Numbers(
        heads=config.num_attention_heads,
        head_dim=config.attention_head_dim,
        ffn_dim=config.ffn_dim,
        layers=config.num_layers,
        out_channels=config.out_channels,
        text_dim=config.text_dim,
        time_dim=config.freq_dim,
        image_dim=config.image_dim,
    )
