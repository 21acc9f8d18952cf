"""StepPath: one expert's forward by compiled blocks, with what is the same in every step computed once.

Knows nothing of requests or of who chose its kernels. Where compiling fails it goes on without, and says so.
"""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# (torch._dynamo has no public name for what is used of it)

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from wanreel.models.offload import Pace
from wanreel.models.ranks.mesh import Mesh
from wanreel.models.ranks.split import Split, split_of
from wanreel.models.step.block import Keys, Way, keys_of, step_block
from wanreel.models.step.kernels import attend_of
from wanreel.models.step.own import own
from wanreel.models.step.turning import Turn, paired, turn_of

if TYPE_CHECKING:
    from wanreel.models.expert import Expert

_log = logging.getLogger(__name__)

Run = Callable[[Any, Tensor, Keys, Tensor, Turn, Way], Tensor]
Backend = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Manner:
    """How an expert's blocks are computed."""

    attention: str  #: the kernel of the blocks
    end_attention: str  #: and of the last ones
    end: int = 0  #: how many those are
    eight: bool = False  #: matrices stored in fp8 are multiplied in fp8
    middles: bool = False  #: their inputs go without their middle, which takes its own way in fp32
    own: bool = False  #: what stands between fp8 matrices goes by our own kernels, where Triton is
    compiled: bool = True

    def kernel(self, index: int, blocks: int) -> str:
        """Of block `index` of `blocks`."""
        return self.end_attention if index >= blocks - self.end else self.attention


@dataclass
class Compiler:
    """Compiles the block function for one model, and counts. Its cache is its own: models don't use up each other's."""

    backend: Backend | str = "inductor"
    compilations: int = 0  #: graphs that dynamo handed over; those found in the cache on disk as well
    failure: str = ""  #: why it gave up
    _run: Run | None = field(default=None, repr=False)

    @property
    def run(self) -> Run:
        if self._run is None:
            # Dynamo keeps what it has compiled with the code object.
            own = FunctionType(step_block.__code__.replace(), step_block.__globals__, "step_block")
            self._run = torch.compile(own, fullgraph=True, backend=cast("Any", self._counted))
        return self._run

    def _counted(self, graph: Any, inputs: Any) -> Any:
        self.compilations += 1
        if isinstance(self.backend, str):
            return torch._dynamo.lookup_backend(self.backend)(graph, inputs)
        return self.backend(graph, inputs)


@dataclass
class StepPath:
    """Runs in an expert's place; see `Expert.forward`."""

    expert: Expert
    manner: Manner
    compiler: Compiler = field(default_factory=Compiler)
    _prompts: dict[int, _Prompt] = field(default_factory=dict[int, "_Prompt"], repr=False)
    _turn: tuple[torch.Size, Turn] | None = field(default=None, repr=False)
    _time: tuple[Tensor, Tensor, Tensor] | None = field(default=None, repr=False)

    def forget(self) -> None:
        """Let go of what was kept of prompts and steps."""
        self._prompts.clear()
        self._turn, self._time = None, None

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        image: Tensor | None,
        go: Callable[[], None],
        mesh: Mesh | None = None,
    ) -> Tensor:
        """As `Expert.forward`, the weights on the device."""
        model, device = self.expert.transformer, self.expert.device
        latents = latents.to(device, self.expert.dtype)
        turn = self._turned(latents)
        hidden = model.patch_embedding(latents).flatten(2).transpose(1, 2).contiguous()
        split = split_of(mesh, hidden.shape[1])
        if split is not None:
            hidden, turn = split.own(hidden), Turn(split.own(turn.cosine), split.own(turn.sine))
            timestep = split.own(timestep) if timestep.ndim == 2 else timestep
        temb, modulation = self._timed(timestep)
        prompt = self._prompt(text, image)
        if self.manner.compiled and not self.compiler.failure:
            marked(hidden, modulation, turn)
        pace = Pace(device)
        for index, block in enumerate(self._blocks()):
            go()
            keys = prompt.keys(index, block)
            hidden = self._run(block, hidden, keys, modulation, turn, self._way(index, split))
            pace.launched()
        rows = projected(model, hidden, temb)
        return unpatched(model, rows if split is None else split.whole(rows), latents.shape)

    def _run(self, block: Any, hidden: Tensor, keys: Keys, modulation: Tensor, turn: Turn, way: Way) -> Tensor:
        compiler = self.compiler
        if self.manner.compiled and not compiler.failure:
            try:
                return compiler.run(block, hidden, keys, modulation, turn, way)
            except _compile_faults() as error:
                said = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
                compiler.failure = said[:200] or type(error).__name__
                _log.warning("blocks run without being compiled: %s", compiler.failure, exc_info=error)
        return step_block(block, hidden, keys, modulation, turn, way)

    def _way(self, index: int, split: Split | None) -> Way:
        kernel = attend_of(self.manner.kernel(index, len(self.expert.transformer.blocks)))
        way = Way(kernel, self.manner.eight, self.manner.middles)
        if split is not None:
            return way._replace(split=split)
        return way._replace(own=own()) if self.manner.own else way

    def _blocks(self) -> Iterator[Any]:
        stream = self.expert.stream
        yield from self.expert.transformer.blocks if stream is None else stream.walk()

    def _turned(self, latents: Tensor) -> Turn:
        """Tables of position, the same for all steps of a shape."""
        if self._turn is None or self._turn[0] != latents.shape:
            turn = turn_of(self.expert.transformer.rope(latents))
            self._turn = (latents.shape, paired(turn) if self.manner.own else turn)
        return self._turn[1]

    def _timed(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Time embedding and the blocks' modulation, the same for both prompts of a step."""
        if self._time is None or self._time[0] is not timestep:
            self._time = (timestep, *time_of(self.expert, timestep))
        return self._time[1], self._time[2]

    def _prompt(self, text: Tensor, image: Tensor | None) -> _Prompt:
        kept, version = self._prompts.get(id(text)), self.expert.loras.version
        if kept is None or kept.text is not text or kept.image is not image or kept.version != version:
            kept = _Prompt(self.expert, text, image, version)
            self._prompts = {
                key: it for key, it in self._prompts.items() if it.version == version and it.image is image
            }
            while len(self._prompts) > 1:
                del self._prompts[next(iter(self._prompts))]
            self._prompts[id(text)] = kept
        return kept


class _Prompt:
    """Keys and values of one prompt and picture, for every block; for as long as the expert's LoRAs stay as they are."""

    def __init__(self, expert: Expert, text: Tensor, image: Tensor | None, version: int) -> None:
        self.text, self.image, self.version = text, image, version
        self._keeps = expert.stream is None  # else memory is short, and the block is here only for its turn
        self._kept: list[Keys] = []
        embedder: Any = expert.transformer.condition_embedder
        context: Tensor = embedder.text_embedder(text.to(expert.device, expert.dtype))
        if image is not None:
            picture = embedder.image_embedder(image.to(expert.device, expert.dtype))
            context = torch.cat([picture, context], dim=1)
        self._context = context

    def keys(self, index: int, block: Any) -> Keys:
        if index < len(self._kept):
            return self._kept[index]
        keys = keys_of(block, self._context, self._context.shape[1] - self.text.shape[1])
        if self._keeps and index == len(self._kept):
            self._kept.append(keys)
        return keys


def _compile_faults() -> tuple[type[Exception], ...]:
    """Imported when one has happened: with them comes all of the compiler."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    return TorchDynamoException, InductorError


def time_of(expert: Expert, timestep: Tensor) -> tuple[Tensor, Tensor]:
    """Time embedding [b, dim] or [b, tokens or 1, dim] and its six-fold projection, as Diffusers' condition embedder."""
    embedder: Any = expert.transformer.condition_embedder
    given, each = timestep.to(expert.device), timestep.ndim == 2
    if each and torch.equal(given, given[:, :1].expand_as(given)):
        given = given[:, :1]  # text-to-video: all tokens are at the same time
    waves: Tensor = embedder.timesteps_proj(given.flatten())
    if each:
        waves = waves.unflatten(0, given.shape)
    waves = waves.to(next(iter(embedder.time_embedder.parameters())).dtype)
    temb: Tensor = embedder.time_embedder(waves).to(expert.dtype)
    modulation: Tensor = embedder.time_proj(embedder.act_fn(temb))
    return temb, modulation.unflatten(2 if each else 1, (6, -1))


def projected(model: Any, hidden: Tensor, temb: Tensor) -> Tensor:
    """Output norm and projection: [b, tokens, numbers of a patch]."""
    rows = temb if temb.ndim == 3 else temb.unsqueeze(1)
    shift, scale = (model.scale_shift_table.unsqueeze(0) + rows.unsqueeze(2)).unbind(2)
    return model.proj_out((model.norm_out(hidden.float()) * (1 + scale) + shift).type_as(hidden))


def unpatched(model: Any, rows: Tensor, shape: torch.Size) -> Tensor:
    """Tokens back to [b, c, f, h, w]."""
    batch, _, frames, height, width = shape
    p_t, p_h, p_w = model.config.patch_size
    rows = rows.reshape(batch, frames // p_t, height // p_h, width // p_w, p_t, p_h, p_w, -1)
    return rows.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def marked(hidden: Tensor, modulation: Tensor, turn: Turn) -> None:
    """The number of tokens is what changes from video to video, so it is a symbol to the compiler from the start."""
    mark: Any = torch._dynamo.mark_dynamic
    for tensor in (hidden, turn.cosine, turn.sine):
        mark(tensor, 1)
    for tensor in turn.pairs or ():
        mark(tensor, 0)
    if modulation.ndim == 4 and modulation.shape[1] > 1:
        mark(modulation, 1)
