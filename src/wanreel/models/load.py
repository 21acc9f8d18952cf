"""Loading a Wan model from a folder in Diffusers layout. Never goes online, never runs code from the folder.

Knows nothing of downloads or of which models are installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoTokenizer

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import BrokenWeights
from wanreel.models.components import CLIP_IMAGE_PROCESSOR, MODULES, quiet
from wanreel.models.expert import Expert
from wanreel.models.folder import Part, WeightFolder, meta_module, open_folder
from wanreel.models.offload import BlockStream
from wanreel.models.placement import Placement, choose_placement
from wanreel.models.wan_model import WanModel


@dataclass(frozen=True, slots=True)
class Dtypes:
    """The dtype each part computes in."""

    transformer: torch.dtype
    text_encoder: torch.dtype
    vae: torch.dtype = torch.float32  #: diffusers docs, api/pipelines/wan.md: better quality; so is the next
    image_encoder: torch.dtype = torch.float32

    @classmethod
    def of(cls, device: torch.device) -> Dtypes:
        """bf16 on CUDA for transformer and text encoder, as the authors run them; fp32 where bf16 is slow."""
        fast = torch.bfloat16 if device.type == "cuda" else torch.float32
        return cls(transformer=fast, text_encoder=fast)

    def for_part(self, name: str) -> torch.dtype:
        return getattr(self, "transformer" if name.startswith("transformer") else name)


def load_model(
    spec: ModelSpec,
    folder: Path,
    device: torch.device | str = "cpu",
    dtypes: Dtypes | None = None,
    placement: Placement | None = None,
) -> WanModel:
    """The model in `folder`, ready to run on `device`.

    Without `placement` the first plan that fits the free memory is taken. Raises BrokenWeights when the folder is
    incomplete, damaged or of another model, before a weight is read where that can be seen.
    """
    device = torch.device(device)
    dtypes = dtypes or Dtypes.of(device)
    opened = open_folder(spec, folder)
    placement = placement or fitting_placement(part_bytes(opened, dtypes), device)
    home = device if placement.keeps_everything else torch.device("cpu")
    private = device.type == "cpu"
    with torch.random.fork_rng(devices=[]):  # modules draw their first weights even when those are thrown away
        modules = {name: _load_part(part, home, dtypes.for_part(name), private) for name, part in opened.parts.items()}
    transformers = [modules[name] for name in ("transformer", "transformer_2") if name in modules]
    return WanModel(
        spec=spec,
        tokenizer=_load_tokenizer(folder),
        text_encoder=modules["text_encoder"],
        image_encoder=modules.get("image_encoder"),
        image_processor=_load_image_processor(folder) if "image_encoder" in modules else None,
        vae=modules["vae"],
        experts=tuple(make_expert(transformer, device, placement) for transformer in transformers),
        device=device,
        dtype=dtypes.transformer,
        scheduler_config=opened.scheduler_config,
        placement=placement,
        notes=opened.notes,
    )


def make_expert(transformer: Any, device: torch.device, placement: Placement) -> Expert:
    """An Expert over `transformer`, its blocks streamed when the placement says so."""
    stream = BlockStream(transformer.blocks, device, pinned=placement.pinned) if placement.streamed else None
    return Expert(transformer, stream, device)


def part_bytes(folder: WeightFolder, dtypes: Dtypes) -> dict[str, int]:
    """Bytes of weights by part, in the dtype it will run in."""
    return {name: part.elements * dtypes.for_part(name).itemsize for name, part in folder.parts.items()}


def fitting_placement(sizes: Mapping[str, int], device: torch.device) -> Placement:
    """The plan that fits what is free on this machine now."""
    if device.type != "cuda":
        return Placement()
    index = torch.cuda.current_device() if str(device) == "cuda" else device.index
    free, total = torch.cuda.mem_get_info(index)
    allowed = torch.cuda.get_per_process_memory_fraction(index) * total  # what the operator lets us have
    free = min(free, int(allowed) - torch.cuda.memory_reserved(index))
    return choose_placement(sizes, free, psutil.virtual_memory().available)


def _load_part(part: Part, device: torch.device, dtype: torch.dtype, private: bool) -> Any:
    if part.name in ("text_encoder", "image_encoder"):
        return _load_transformers_module(part, dtype).to(device)
    module = meta_module(part)
    _assign(module, part, device, dtype, private)
    return module.requires_grad_(False)


def _assign(module: Any, part: Part, device: torch.device, dtype: torch.dtype, private: bool) -> None:
    """Fill a meta module file by file: one tensor at a time is in memory twice.

    Casts as Diffusers' `from_pretrained` does, with its list of modules that stay in fp32. Without `private`, tensors
    that need no cast stay in the mapped file, so that weights on their way to a GPU cost page cache only; a CPU
    computes with copies, because mapped tensors start at odd addresses, where its kernels round otherwise.
    """
    kept: list[str] = module._keep_in_fp32_modules or []
    expected = module.state_dict().keys()
    for key, stored in _stored(part.files):
        if key not in expected:
            continue
        target = torch.float32 if any(name in key.split(".") for name in kept) else dtype
        owner, _, leaf = key.rpartition(".")
        parameter = nn.Parameter(stored.to(device, target, copy=private), requires_grad=False)
        module.get_submodule(owner).register_parameter(leaf, parameter)
    module.to(device)  # the buffers


def _stored(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of the files, still mapped."""
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a dict
                yield key, opened.get_tensor(key)


def _load_transformers_module(part: Part, dtype: torch.dtype) -> Any:
    """A text or image encoder. transformers loads in the stored dtype unless told otherwise."""
    try:
        with quiet():
            module, info = MODULES[part.name].from_pretrained(
                part.folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BrokenWeights(f"{part.name}/ can't be loaded ({error}).") from error
    wrong = sorted(str(key) for name in ("missing_keys", "mismatched_keys") for key in info[name])
    if wrong:
        raise BrokenWeights(f"{part.name}/ lacks {len(wrong)} tensors, or they have another shape ({wrong[0]}, …).")
    return module.eval().requires_grad_(False)


def _load_tokenizer(folder: Path) -> Any:
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenWeights(f"tokenizer/ can't be loaded ({error}).") from error


def _load_image_processor(folder: Path) -> Any:
    try:
        return CLIP_IMAGE_PROCESSOR.from_pretrained(folder / "image_processor", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenWeights(f"image_processor/ can't be loaded ({error}).") from error
