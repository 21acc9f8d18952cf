"""Expert: one Wan transformer, run block by block so that it can be stopped. Knows nothing of solvers or guidance.

The arithmetic is that of Diffusers' `WanTransformer3DModel.forward` (diffusers 0.42.1,
models/transformers/transformer_wan.py), over the same submodules and equal to the bit; only the loop is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.models.lean import Rows, lean_block
from wanreel.models.lora.rack import Rack
from wanreel.models.offload import (
    Blocks,
    Guest,
    GuestRoom,
    ModuleGuest,
    Pace,
    Together,
)
from wanreel.models.ranks.attention import SplitAttention
from wanreel.models.ranks.mesh import Mesh
from wanreel.models.ranks.split import Split, split_of
from wanreel.models.step.path import StepPath

Block = Callable[[Tensor, Tensor, Tensor, Any], Tensor]
#: What predicts in an expert's place: latents, timestep, texts, image embeddings, token; one velocity for each text.
Lead = Callable[[Tensor, Tensor, Sequence[Tensor], Tensor | None, CancelToken], list[Tensor]]


class Expert:
    """One transformer. Wan 2.2 14B models have two: high noise (early steps), low noise (late steps)."""

    def __init__(
        self,
        transformer: WanTransformer3DModel,
        stream: Blocks | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.transformer: Any = transformer
        self.stream = stream
        self.device = device or torch.device(self.transformer.patch_embedding.weight.device)
        self._room: GuestRoom | None = None
        self._guest: Guest | None = None
        self._compiled: dict[int, Block] = {}
        self._attention: SplitAttention | None = None
        self.loras = Rack(self)
        #: Set: blocks go over so many tokens at a time, in less memory and to the bit the same (models/lean.py).
        self.rows: Rows | None = None
        #: Set: blocks are computed by our own path, compiled or in fp8 (models/step).
        self.step: StepPath | None = None
        #: Set: several ranks predict together (models/parallel).
        self.lead: Lead | None = None

    @property
    def dtype(self) -> torch.dtype:
        """What latents and embeddings are cast to; single layers may be kept in fp32."""
        return self.transformer.patch_embedding.weight.dtype

    @property
    def guest(self) -> Guest:
        """The transformer as a guest of the device, with its blocks streamed if there is a stream."""
        if self._guest is None:
            if self.stream is None:
                self._guest = ModuleGuest(self.transformer, self.device)
            else:
                rest = ModuleGuest(self.transformer, self.device, skip=self.stream.blocks)
                self._guest = Together(rest, self.stream)
        return self._guest

    def share(self, room: GuestRoom) -> None:
        """From now on `predict` takes its turn in `room` instead of staying on the device."""
        self._room = room

    def bring_home(self) -> None:
        """Take every weight back from its visit to the device, so that tensors can be written or exchanged."""
        if self._room is not None:
            self._room.clear()

    def tensors_changed(self) -> None:
        """To be called, at home, when layers have got or lost tensors."""
        self._guest = None
        if self.stream is not None:
            self.stream.renew()

    def compile_blocks(self, **options: Any) -> None:
        """Compile each block on its first use with torch.compile(**options). Sizes may change from call to call."""
        self._compiled = {id(block): torch.compile(block, **options) for block in self.transformer.blocks}

    def unload(self) -> None:
        """Free the weights' memory, host memory included. The expert can't be used afterwards."""
        if self.stream is not None:
            self.stream.close()
        self.stream, self._guest = None, None
        self._compiled.clear()
        self.step = None
        self.transformer.to("meta")

    @torch.no_grad()
    def predict(
        self,
        latents: Tensor,
        timestep: Tensor,
        text_embeds: Tensor,
        image_embeds: Tensor | None,
        cancel: CancelToken,
    ) -> Tensor:
        """The velocity that the transformer predicts.

        latents: [b, in_channels, f, h, w]; timestep: [b], or [b, tokens] where each token has its own (TI2V);
        text_embeds: [b, 512, text_dim]; image_embeds: CLIP's [pictures, tokens, image_dim] for Wan 2.1 picture models.
        Returns [b, out_channels, f, h, w] in the transformer's dtype. Raises Cancelled between two blocks.
        """
        if self.lead is not None:
            return self.lead(latents, timestep, (text_embeds,), image_embeds, cancel)[0]
        cancel.check()
        return self.forward(latents, timestep, text_embeds, image_embeds, cancel.check)

    def predict_each(
        self,
        latents: Tensor,
        timestep: Tensor,
        texts: Sequence[Tensor],
        image_embeds: Tensor | None,
        cancel: CancelToken,
    ) -> list[Tensor]:
        """`predict` for each of `texts`; at once where several ranks predict together."""
        if self.lead is not None:
            return self.lead(latents, timestep, texts, image_embeds, cancel)
        return [self.predict(latents, timestep, text, image_embeds, cancel) for text in texts]

    @torch.no_grad()
    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text_embeds: Tensor,
        image_embeds: Tensor | None,
        go: Callable[[], None],
        mesh: Mesh | None = None,
    ) -> Tensor:
        """As `predict`, here; `go` is called before each block and may raise. With `mesh` the other ranks of its
        sequence compute other tokens, and all of them get the result."""
        if self._room is not None:
            self._room.admit(self.guest)
        if self.step is not None:
            return self.step.forward(latents, timestep, text_embeds, image_embeds, go, mesh)
        model = self.transformer
        latents = latents.to(self.device, self.dtype)
        rotary = model.rope(latents)
        hidden = model.patch_embedding(latents).flatten(2).transpose(1, 2).contiguous()
        split = split_of(mesh, hidden.shape[1])
        if split is not None:
            hidden, rotary = split.own(hidden), tuple(split.own(table) for table in rotary)
            timestep = split.own(timestep) if timestep.ndim == 2 else timestep
        temb, modulation, context = self._embed(timestep, text_embeds, image_embeds)
        pace = Pace(self.device)
        with self._in_parts(split):
            for block in self._blocks():
                go()
                hidden = self._run(block, hidden, context, modulation, rotary)
                pace.launched()
        hidden = self._project(hidden, temb)
        return self._unpatched(hidden if split is None else split.whole(hidden), latents.shape)

    @contextmanager
    def _in_parts(self, split: Split | None) -> Generator[None]:
        """While self-attention goes over the tokens of all ranks of `split`."""
        if split is None:
            yield
            return
        if self._attention is None:
            self._attention = SplitAttention()
            for block in self.transformer.blocks:
                block.attn1.set_processor(self._attention)
        self._attention.split = split
        try:
            yield
        finally:
            self._attention.split = None

    def _run(self, block: Block, hidden: Tensor, context: Tensor, modulation: Tensor, rotary: Any) -> Tensor:
        if self.rows is None or self._compiled:
            return block(hidden, context, modulation, rotary)
        return lean_block(block, hidden, context, modulation, rotary, self.rows)

    def _blocks(self) -> Iterator[Block]:
        modules = self.transformer.blocks if self.stream is None else self.stream.walk()
        for module in modules:
            yield self._compiled.get(id(module), module)

    def _embed(
        self, timestep: Tensor, text_embeds: Tensor, image_embeds: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Time embedding [b, dim] or [b, tokens, dim], its six-fold projection, and the context for cross-attention."""
        per_token = timestep.ndim == 2
        temb, modulation, context, image = self.transformer.condition_embedder(
            timestep.to(self.device).flatten(),
            text_embeds.to(self.device, self.dtype),
            None if image_embeds is None else image_embeds.to(self.device, self.dtype),
            timestep_seq_len=timestep.shape[1] if per_token else None,
        )
        if per_token and torch.equal(timestep, timestep[:, :1].expand_as(timestep)):
            temb, modulation = _collapsed(temb), _collapsed(modulation)
        modulation = modulation.unflatten(2 if per_token else 1, (6, -1))
        if image is not None:
            context = torch.concat([image, context], dim=1)
        return temb, modulation, context

    def _project(self, hidden: Tensor, temb: Tensor) -> Tensor:
        """Output norm and projection: [b, tokens, numbers of a patch]."""
        model = self.transformer
        if temb.ndim == 3:
            shift, scale = (model.scale_shift_table.unsqueeze(0) + temb.unsqueeze(2)).chunk(2, dim=2)
            shift, scale = shift.squeeze(2), scale.squeeze(2)
        else:
            shift, scale = (model.scale_shift_table + temb.unsqueeze(1)).chunk(2, dim=1)
        tokens = hidden.shape[1]
        for cut in self.rows.cuts(tokens) if self.rows else (slice(0, tokens),):
            own = slice(None) if scale.shape[1] == 1 else cut
            part = model.norm_out(hidden[:, cut].float()) * (1 + scale[:, own]) + shift[:, own]
            hidden[:, cut] = part.type_as(hidden)
        return model.proj_out(hidden)

    def _unpatched(self, hidden: Tensor, shape: torch.Size) -> Tensor:
        """Tokens back to [b, c, f, h, w]."""
        batch, _, frames, height, width = shape
        p_t, p_h, p_w = self.transformer.config.patch_size
        hidden = hidden.reshape(batch, frames // p_t, height // p_h, width // p_w, p_t, p_h, p_w, -1)
        return hidden.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _collapsed(rows: Tensor) -> Tensor:
    """[b, tokens, d] as [b, 1, d] when all tokens have the same row, which is what text-to-video with TI2V gives.

    Every block would otherwise make two fp32 tensors of [tokens, 6, dim], 2 GB each at 720p. Broadcasting one row gives
    the same bits; computing one row alone would not, because matrix products round differently for other shapes.
    """
    first = rows[:, :1]
    # Cloned, so that the rows themselves can go: they are seven times as large as an activation.
    return first.clone() if torch.equal(rows, first.expand_as(rows)) else rows
