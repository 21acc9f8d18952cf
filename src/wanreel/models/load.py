"""Loading a Wan model from a folder in Diffusers layout. Never goes online, never runs code from the folder.

Knows nothing of downloads or of which models are installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import BrokenWeights
from wanreel.core.placement import Placement
from wanreel.models.components import CLIP_IMAGE_PROCESSOR, MODULES
from wanreel.models.expert import Expert
from wanreel.models.folder import meta_encoder, meta_module, open_folder
from wanreel.models.machine import describe_device
from wanreel.models.offload import BlockStream
from wanreel.models.parts import Part, read_tensors
from wanreel.models.pretrained import read_module, read_tokenizer
from wanreel.models.prompt_cache import PromptCache, PromptMemory, SightMemory
from wanreel.models.quantize import Scheme, StoredLinear, store_in, stored_of
from wanreel.models.shared import SharedParts
from wanreel.models.wan_model import Later, WanModel


@dataclass(frozen=True, slots=True)
class Dtypes:
    """The dtype each part computes in."""

    transformer: torch.dtype
    text_encoder: torch.dtype
    vae: torch.dtype = torch.float32  #: diffusers docs, api/pipelines/wan.md: better quality; so is the next
    image_encoder: torch.dtype = torch.float32

    @classmethod
    def of(cls, device: torch.device, placement: Placement | None = None) -> Dtypes:
        """bf16 on CUDA for transformer and text encoder, as the authors run them; fp32 where bf16 is slow.

        A placement may ask for fp16 in the transformers.
        """
        fast = torch.bfloat16 if device.type == "cuda" else torch.float32
        halved = placement is not None and placement.precision == "fp16"
        return cls(transformer=torch.float16 if halved else fast, text_encoder=fast)

    def for_part(self, name: str) -> torch.dtype:
        return getattr(self, "transformer" if name.startswith("transformer") else name)


@dataclass(frozen=True, slots=True)
class Memory:
    """What models of one process have in common."""

    shared: SharedParts
    prompts: PromptCache | None = None

    def prompts_of(self, encoder: Part, device: torch.device, dtype: torch.dtype) -> PromptMemory | None:
        """The prompts that this encoder has encoded in just this way."""
        if self.prompts is None:
            return None
        return PromptMemory(self.prompts, self.shared.identity(encoder), f"{describe_device(device)} {dtype}")

    def sights_of(self, parts: Mapping[str, Part], device: torch.device, dtype: torch.dtype) -> SightMemory | None:
        """The pictures that these encoders have encoded in just this way."""
        if self.prompts is None:
            return None
        used = [self.shared.identity(parts[name]) for name in ("vae", "image_encoder") if name in parts]
        return SightMemory(self.prompts, "\n".join(used), f"{describe_device(device)} {dtype}")


_LAST = "text_encoder"  # the part that may never be needed


def load_model(
    spec: ModelSpec,
    folder: Path,
    device: torch.device | str = "cpu",
    dtypes: Dtypes | None = None,
    placement: Placement | None = None,
    memory: Memory | None = None,
) -> WanModel:
    """The model in `folder`, ready to run on `device`.

    With `memory`, parts that are in memory already are used again, and the text encoder is loaded when a prompt comes
    that was never encoded. Without `placement` everything stays on the device (`core/memory.py` finds one that fits).
    Raises BrokenWeights when the folder is incomplete, damaged or of another model, before a weight is read where that
    can be seen.
    """
    device, placement = torch.device(device), placement or Placement()
    dtypes = dtypes or Dtypes.of(device, placement)
    opened = open_folder(spec, folder)
    loader = _Loader(device, dtypes, placement, memory.shared if memory is not None else None)
    # Ranks that share the text encoder out load it at the same time.
    later = memory is not None and not placement.parallel.fsdp
    with torch.random.fork_rng(devices=[]):  # modules draw their first weights even when those are thrown away
        modules = {name: loader.load(part) for name, part in opened.parts.items() if not later or name != _LAST}
    transformers = [modules[name] for name in ("transformer", "transformer_2") if name in modules]
    return WanModel(
        spec=spec,
        tokenizer=read_tokenizer(opened.tokenizer, "tokenizer"),
        text_encoder=modules.get(_LAST) or Later(lambda: loader.load_later(opened.parts[_LAST])),
        image_encoder=modules.get("image_encoder"),
        image_processor=_load_image_processor(opened.image_processor) if "image_encoder" in modules else None,
        vae=modules["vae"],
        experts=tuple(make_expert(transformer, device, placement) for transformer in transformers),
        device=device,
        dtype=dtypes.transformer,
        scheduler_config=opened.scheduler_config,
        placement=placement,
        notes=opened.notes,
        prompts=memory.prompts_of(opened.parts[_LAST], device, dtypes.text_encoder) if memory is not None else None,
        sights=memory.sights_of(opened.parts, device, dtypes.vae) if memory is not None else None,
    )


def load_part(part: Part, device: torch.device, dtypes: Dtypes, placement: Placement | None = None) -> Any:
    """One component alone, where `placement` keeps it. Raises BrokenWeights."""
    return _Loader(device, dtypes, placement or Placement()).load(part)


def make_expert(transformer: Any, device: torch.device, placement: Placement) -> Expert:
    """An Expert over `transformer`, its blocks streamed when the placement says so."""
    stream = None
    if placement.streamed:
        stream = BlockStream(transformer.blocks, device, pinned=placement.pinned, pin_limit=placement.pin_limit)
    return Expert(transformer, stream, device)


def home_of(part: str, device: torch.device, placement: Placement) -> torch.device:
    """Where a part's weights lie between its turns."""
    encoder = part in ("text_encoder", "image_encoder")
    stays = placement.keeps_everything or (placement.keeps_experts and not encoder)
    shared = placement.parallel.fsdp and (part == "text_encoder" or part.startswith("transformer"))
    return device if stays and not shared else torch.device("cpu")


def scheme_of(placement: Placement) -> Scheme | None:
    """How the transformers' matrices are stored, when not in the dtype they compute in."""
    precision = placement.precision
    return None if precision in ("native", "fp16") else precision


@dataclass(frozen=True, slots=True)
class _Loader:
    """Loads the parts of one folder to where they belong."""

    device: torch.device
    dtypes: Dtypes
    placement: Placement
    shared: SharedParts | None = None

    def load(self, part: Part) -> Any:
        streamed = part.name == _LAST and self.placement.text_streamed
        taken_apart = streamed or (self.placement.parallel.fsdp and part.name != "vae")
        if self.shared is None or taken_apart:
            return self._load(part)
        home, dtype = home_of(part.name, self.device, self.placement), self.dtypes.for_part(part.name)
        return self.shared.get(part, home, dtype, lambda: self._load(part))

    def load_later(self, part: Part) -> Any:
        """The same in the middle of a generation, whose random numbers it leaves alone."""
        with torch.random.fork_rng(devices=[]):
            return self.load(part)

    def _load(self, part: Part) -> Any:
        home, dtype = home_of(part.name, self.device, self.placement), self.dtypes.for_part(part.name)
        if part.name in ("text_encoder", "image_encoder"):
            return (_load_transformers_module if part.hugging else _load_encoder)(part, dtype).to(home)
        module = meta_module(part)
        scheme = scheme_of(self.placement) if part.name.startswith("transformer") else None
        made = store_in(stored_of(module.blocks, self.placement), scheme) if scheme else {}
        stored = {f"blocks.{name}": layer for name, layer in made.items()}
        _assign(module, part, home, dtype, stored, compute=self.device)
        return module.requires_grad_(False)


def _assign(
    module: Any,
    part: Part,
    home: torch.device,
    dtype: torch.dtype,
    stored: Mapping[str, StoredLinear],
    compute: torch.device,
) -> None:
    """Fill a meta module file by file: a few tensors at a time are in memory twice.

    Casts as Diffusers' `from_pretrained` does, with its list of modules that stay in fp32; the weights of the layers in
    `stored` are rounded on the device `compute`. Weights that wait on the host for a GPU stay in the mapped file where they
    need no cast, and cost page cache only; a CPU computes with memory of its own, because mapped tensors start at odd
    addresses, where its kernels round otherwise.
    """
    # transformers' list is for fp16 alone.
    kept: list[str] = (getattr(module, "_keep_in_fp32_modules", None) or []) if part.diffusers else []
    expected = module.state_dict().keys()
    mapped = compute.type != "cpu" and home.type == "cpu" and not stored
    for key, tensor in read_tensors(part, mapped=mapped):
        owner, _, leaf = key.rpartition(".")
        if leaf == "weight" and owner in stored:
            stored[owner].store(tensor.to(compute, dtype), home)
        if key not in expected:
            continue
        target = torch.float32 if any(name in key.split(".") for name in kept) else dtype
        parameter = nn.Parameter(tensor.to(home, target), requires_grad=False)
        module.get_submodule(owner).register_parameter(leaf, parameter)
    module.to(home)  # the buffers


def _load_encoder(part: Part, dtype: torch.dtype) -> Any:
    """A text or image encoder from a file in another layout than transformers'."""
    module = meta_encoder(part)
    if part.name == "text_encoder":
        module.set_input_embeddings(module.shared)  # one table under two names
    state = module.state_dict().keys()
    unknown = sorted(part.tensors.keys() - state)
    if unknown:
        raise BrokenWeights(f"{part.name} has {len(unknown)} tensors of another architecture ({unknown[0]}, …).")
    missing = sorted(state - part.tensors.keys() - {"encoder.embed_tokens.weight"})
    if missing:
        raise BrokenWeights(f"{part.name} lacks {len(missing)} tensors ({missing[0]}, …).")
    _assign(module, part, torch.device("cpu"), dtype, {}, compute=torch.device("cpu"))
    return module.requires_grad_(False)


def _load_transformers_module(part: Part, dtype: torch.dtype) -> Any:
    """A text or image encoder. transformers loads in the stored dtype unless told otherwise."""
    return read_module(MODULES[part.name], part.folder, part.name, dtype=dtype, trust_remote_code=False)


def _load_image_processor(folder: Path | None) -> Any:
    if folder is None:
        return CLIP_IMAGE_PROCESSOR()  # of CLIP itself, which Wan uses
    try:
        return CLIP_IMAGE_PROCESSOR.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenWeights(f"image_processor/ can't be loaded ({error}).") from error
