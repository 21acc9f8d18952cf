"""What all ranks do of one prediction: take the inputs, compute a pass or a part of one, exchange results.

Knows nothing of who gave the order or of when to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from wanreel.models.expert import Expert
from wanreel.models.ranks.mesh import Circle, Mesh, gather_into

#: [dtype, shape] of a tensor, as a message says it; None where there is none.
Form = Sequence[Any] | None


@dataclass(frozen=True, slots=True)
class Inputs:
    """As `Expert.predict` takes them; one text for each pass."""

    latents: Tensor
    timestep: Tensor
    texts: tuple[Tensor, ...]
    image: Tensor | None

    def forms(self) -> list[Form]:
        tensors = (self.latents, self.timestep, self.image, *self.texts)
        return [None if it is None else [str(it.dtype).removeprefix("torch."), list(it.shape)] for it in tensors]

    def send(self, circle: Circle, *, kept: bool) -> None:
        """To every other rank, from rank 0; `kept`: they have texts and picture."""
        tensors = (self.latents, self.timestep) if kept else (self.latents, self.timestep, self.image, *self.texts)
        for tensor in tensors:
            if tensor is not None:
                dist.broadcast(tensor.contiguous(), 0, group=circle.group)


def receive(forms: Sequence[Form], circle: Circle, device: torch.device, kept: Inputs | None) -> Inputs:
    """What rank 0 sends, of these forms; with texts and picture of `kept` where it has sent them before."""
    found: list[Tensor | None] = []
    for form in forms[:2] if kept is not None else forms:
        if form is None:
            found.append(None)
            continue
        tensor = torch.empty(form[1], dtype=getattr(torch, form[0]), device=device)
        dist.broadcast(tensor, 0, group=circle.group)
        found.append(tensor)
    latents, timestep, *rest = found
    if latents is None or timestep is None:
        raise ValueError("there is nothing to predict from")
    if kept is not None:
        return Inputs(latents, timestep, kept.texts, kept.image)
    image, *texts = rest
    return Inputs(latents, timestep, tuple(text for text in texts if text is not None), image)


@torch.no_grad()
def predict_part(expert: Expert, mesh: Mesh, inputs: Inputs, go: Callable[[], None]) -> list[Tensor]:
    """This rank's part of a prediction; on rank 0 all of it, one tensor for each text."""
    alone = mesh.parallel.cfg == 1
    texts = inputs.texts if alone else (inputs.texts[mesh.number],)
    made = [expert.forward(inputs.latents, inputs.timestep, text, inputs.image, go, mesh) for text in texts]
    if alone or mesh.passes.ranks[0] != 0:
        return made
    own = made[0].contiguous()
    both = own.new_empty(mesh.passes.size, *own.shape)
    gather_into(both, own, mesh.passes.group)
    return list(both.unbind(0))
