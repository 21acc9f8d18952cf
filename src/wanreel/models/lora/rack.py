"""Rack: the LoRAs that one expert wears. Knows nothing of requests or files; a new set takes the place of the old one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from wanreel.core.lora import bucket_of
from wanreel.models.lora.branch import Branched, Form, Share, branched

if TYPE_CHECKING:
    from wanreel.models.expert import Expert


@dataclass(frozen=True, slots=True)
class Garment:
    """One LoRA, ready to be worn by one expert."""

    sha256: str
    number: int  #: which of the request's LoRAs
    shares: Mapping[str, Share]  #: by layer


class Rack:
    """Puts branches beside an expert's layers and takes them off again."""

    def __init__(self, expert: Expert) -> None:
        self._expert = expert
        self._worn: tuple[tuple[str, int], ...] = ()
        self._branches: dict[str, Branched] = {}
        self._strengths: tuple[float, ...] = ()
        #: Goes up with every change of what the expert computes: for caches of what its weights made of something.
        self.version = 0

    @property
    def worn(self) -> tuple[str, ...]:
        """SHA-256 of the LoRAs on the expert."""
        return tuple(sha256 for sha256, _ in self._worn)

    @property
    def strengths(self) -> tuple[float, ...]:
        """As they were last set, by the LoRAs' numbers in the request."""
        return self._strengths

    def wears(self, marks: Sequence[tuple[str, int]]) -> bool:
        """Whether the expert has exactly these on: (SHA-256, number in the request)."""
        return self._worn == tuple(marks)

    def wear(self, garments: Sequence[Garment]) -> None:
        """Put these on in place of whatever was on; none of them has a strength yet.

        LoRAs that need the same branches are copied into those that are there: nothing is built or compiled again.
        """
        marks = tuple((garment.sha256, garment.number) for garment in garments)
        if self._worn != marks:
            self._change(garments)
            self._worn = marks
        self._strengths = ()
        self.strengthen(())

    def strengthen(self, strengths: Sequence[float]) -> None:
        """Set the strength of each of the request's LoRAs, by number; an empty sequence turns all of them off."""
        wanted = tuple(strengths)
        if not self._branches or (wanted and wanted == self._strengths):
            return
        if self._expert.device.type == "cuda":
            torch.cuda.synchronize(self._expert.device)  # a copy of what is about to change may be under way
        last = max((number for _, number in self._worn), default=-1)
        given = wanted or (0.0,) * (last + 1)
        with torch.inference_mode(False), torch.no_grad():
            for branch in self._branches.values():
                branch.strengthen(given)
        self._strengths = wanted
        self.version += 1

    def _change(self, garments: Sequence[Garment]) -> None:
        shares: dict[str, list[Share]] = {}
        for garment in garments:
            for layer, share in garment.shares.items():
                shares.setdefault(layer, []).append(share)
        forms = _forms(shares)
        self._expert.bring_home()
        self._worn = ()  # whatever happens from here on, nothing is worn that was not put on whole
        if forms != {layer: branch.form for layer, branch in self._branches.items()}:
            self._build(forms)
        with torch.inference_mode(False), torch.no_grad():
            for layer, branch in self._branches.items():
                branch.fill(shares[layer])
        self.version += 1

    def _build(self, forms: Mapping[str, Form]) -> None:
        transformer: nn.Module = self._expert.transformer
        for layer, branch in self._branches.items():
            transformer.set_submodule(layer, branch.base)
        self._branches = {}
        for layer, form in forms.items():
            branch = branched(transformer.get_submodule(layer), form, self._expert.dtype)
            transformer.set_submodule(layer, branch)
            self._branches[layer] = branch
        self._expert.tensors_changed()
        for branch in self._branches.values():
            branch.settle()


def _forms(shares: Mapping[str, Sequence[Share]]) -> dict[str, Form]:
    """One bucket for all, so that the blocks are alike."""
    largest = max((sum(share.rank for share in each) for each in shares.values()), default=0)
    return {
        layer: Form(
            bucket_of(largest) if any(share.rank for share in each) else 0,
            any(share.weight is not None for share in each),
            any(share.bias is not None for share in each),
        )
        for layer, each in shares.items()
    }
