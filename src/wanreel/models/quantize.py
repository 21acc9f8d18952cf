"""Linear layers whose weights are stored in fewer bits. Knows nothing of transformers, files or where weights live.

Every tensor is a plain buffer, so a layer streams with its block like any other, and side branches (LoRA) can be added
to it. torchao's tensor subclasses hold the same numbers but can't be moved by address.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanreel.core.compute import EXACT_END
from wanreel.core.placement import Placement
from wanreel.models.eight import FP8, FP8_MAX, by_rows, product

Scheme = Literal["fp8", "int8", "int4"]

GROUP = 64  #: weights of a row that share a scale and an offset in int4
#: Compute capability from which matrices multiply in fp8 (Ada, Hopper, Blackwell); below, fp8 is storage alone.
FP8_MATRICES = (8, 9)


class StoredLinear(nn.Module):
    """y = x·Wᵀ + b, W in `scheme`.

    fp8: e4m3, one scale a row of W; on GPUs that multiply fp8 the input's rows get a scale each as they come ("dynamic
    row-wise"). int8: one scale a row. int4: a scale and an offset for each 64 weights of a row. Where the matrices do
    not multiply in the stored form, W is unpacked to the input's dtype for the length of the call.
    """

    def __init__(self, in_features: int, out_features: int, scheme: Scheme, *, bias: bool = True) -> None:
        super().__init__()
        if scheme == "int4" and in_features % GROUP:
            raise ValueError(f"int4 needs inputs in groups of {GROUP}, not {in_features}")
        self.in_features, self.out_features = in_features, out_features
        self.scheme: Scheme = scheme
        packed = {"fp8": FP8, "int8": torch.int8, "int4": torch.uint8}[scheme]
        columns = in_features // 2 if scheme == "int4" else in_features
        scales = in_features // GROUP if scheme == "int4" else 1
        meta = torch.device("meta")
        self.register_buffer("packed", torch.empty(out_features, columns, dtype=packed, device=meta))
        self.register_buffer("scale", torch.empty(out_features, scales, dtype=torch.float32, device=meta))
        offset = torch.empty(out_features, scales, device=meta) if scheme == "int4" else None
        self.register_buffer("offset", offset)
        empty = torch.empty(out_features, device=meta)
        self.bias = nn.Parameter(empty, requires_grad=False) if bias else None

    packed: Tensor
    scale: Tensor
    offset: Tensor | None

    @torch.no_grad()
    def store(self, weight: Tensor, device: torch.device | str) -> None:
        """Take over `weight` [out, in], rounded; the result lies on `device`. Computed where `weight` is, in fp32."""
        packed, scale, offset = pack(weight.float(), self.scheme)
        self.packed, self.scale = packed.to(device), scale.to(device)
        self.offset = None if offset is None else offset.to(device)

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """W [out, in] in `dtype`."""
        return unpack(self.packed, self.scale, self.offset, dtype)

    def forward(self, given: Tensor) -> Tensor:
        if self.scheme == "fp8" and multiplies_fp8(given.device):
            return self._multiplied(given)
        return F.linear(given, self.unpacked(given.dtype), self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.scheme}"

    def _multiplied(self, given: Tensor) -> Tensor:
        out = product(by_rows(given), self.packed, self.scale, self.bias, given.dtype)
        return out.unflatten(0, given.shape[:-1])


def pack(weight: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor, Tensor | None]:
    """Packed numbers, scales and offsets of fp32 `weight` [out, in]."""
    if scheme == "int4":
        groups = weight.unflatten(1, (-1, GROUP))
        low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
        scale = ((high - low) / 15).clamp(min=1e-12)
        numbers = ((groups - low) / scale).round().clamp(0, 15).to(torch.uint8).flatten(1)
        return numbers[:, 0::2] | (numbers[:, 1::2] << 4), scale.squeeze(2), low.squeeze(2)
    largest = FP8_MAX if scheme == "fp8" else 127.0
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / largest
    numbers = weight / scale
    packed = numbers.to(FP8) if scheme == "fp8" else numbers.round().clamp(-127, 127).to(torch.int8)
    return packed, scale, None


def unpack(packed: Tensor, scale: Tensor, offset: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The inverse of `pack`, rounded to `dtype`."""
    if offset is None:
        return packed.to(dtype) * scale.to(dtype)
    numbers = torch.stack([packed & 15, packed >> 4], dim=2).flatten(1).to(dtype)
    groups = numbers.unflatten(1, (-1, GROUP))
    return (groups * scale.to(dtype).unsqueeze(2) + offset.to(dtype).unsqueeze(2)).flatten(1)


def multiplies_fp8(device: torch.device) -> bool:
    """Whether matrices multiply in fp8 there."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= FP8_MATRICES


def store_in(blocks: nn.ModuleList, scheme: Scheme) -> dict[str, StoredLinear]:
    """Put an empty StoredLinear in the place of every linear layer of `blocks`. Returns them by name within `blocks`.

    Layers whose inputs do not fit int4's groups are left as they are; real models have none.
    """
    made: dict[str, StoredLinear] = {}
    for name, linear in list(_linears(blocks)):
        if scheme == "int4" and linear.in_features % GROUP:
            continue
        stored = StoredLinear(
            linear.in_features, linear.out_features, scheme, bias=cast("nn.Parameter | None", linear.bias) is not None
        )
        stored.bias = linear.bias
        owner, _, leaf = name.rpartition(".")
        setattr(blocks.get_submodule(owner), leaf, stored)
        made[name] = stored
    return made


def quantize(blocks: nn.ModuleList, scheme: Scheme, device: torch.device | str | None = None) -> None:
    """Store the weights of every linear layer of loaded `blocks` in `scheme`, on `device` or where each one is."""
    weights = {name: linear.weight.data for name, linear in _linears(blocks)}
    for name, stored in store_in(blocks, scheme).items():
        stored.store(weights[name], device or weights[name].device)


def stored_of(blocks: nn.ModuleList, placement: Placement) -> nn.ModuleList:
    """Those of `blocks` whose matrices are stored as `placement` says; of few blocks one at least."""
    return blocks[: max(1, len(blocks) - EXACT_END)] if placement.exact_end else blocks


def _linears(blocks: nn.ModuleList) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in blocks.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module
