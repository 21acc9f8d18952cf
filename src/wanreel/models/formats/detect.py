"""identify: what a file of weights is, from its header alone; and whether a model can use it. Imports no torch.

Two things no header tells: whether a 14B text transformer is Wan 2.1's or one of Wan 2.2's experts, and which expert a file
is. Then every answer that fits is named, and the file's name decides where it says "high" or "low".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wanreel.core.catalog import Mode, ModelSpec
from wanreel.core.components import TRANSFORMERS, in_channels
from wanreel.core.errors import BrokenWeights
from wanreel.models.formats.gguf_header import MAGIC, read_gguf_header
from wanreel.models.formats.names import (
    text_encoder_name,
    transformer_name,
    vae_names,
    without_prefix,
)
from wanreel.models.safetensors_header import Header, foreign_kind, read_header

#: Files that can run code when read.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SUFFIXES = (".safetensors", ".gguf")
#: Names beside a weight that hold what it is to be multiplied with, or facts for other programs.
SCALES = (".scale_weight", ".weight_scale")
EXTRAS = (".scale_input", ".input_scale", ".comfy_quant")
MARKS = ("scaled_fp8", "spiece_model")
_FLOATS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}
#: Pieces of names that only other families have.
_OTHERS: Mapping[str, str] = {
    "vace_blocks.": "VACE (video editing)",
    "face_adapter.": "Animate (character animation)",
    "audio_injector.": "S2V (sound to video)",
    "control_adapter.": "Fun Control (camera and pose control)",
    "ref_conv.": "Fun Control (reference control)",
}
_LORA = re.compile(r"lora_(A|B|up|down)|\.lokr_|\.hada_|\.alpha$|\.diff(_b)?$")
_SIZES = {(size.dim, size.layers): name for name, size in TRANSFORMERS.items() if not name.startswith("2")}


@dataclass(frozen=True, slots=True)
class Found:
    """What a file is."""

    path: Path
    part: str  #: "transformer", "vae", "text_encoder", "image_encoder", "lora", "other"
    style: str  #: whose names: "authors'", "Diffusers'", "transformers'", or ""
    precision: str  #: "bf16", "fp8 scaled", "Q4_K", …
    title: str  #: for people: "Wan 2.2 I2V 14B transformer"
    releases: tuple[str, ...] = ()
    modes: tuple[Mode, ...] = ()
    size: str = ""  #: "1.3B", "5B", "14B"; empty for none of these
    expert: str = ""  #: "high" or "low", by the file's name
    in_channels: int = 0
    out_channels: int = 0  #: of a VAE: its latent channels
    clip: bool = False
    dim: int = 0

    def __str__(self) -> str:
        expert = f", {self.expert}-noise expert by its name" if self.expert else ""
        return f"{self.title}{expert}, {self.precision}" + (f", {self.style} names" if self.style else "")


def open_header(path: Path) -> Header:
    """The header of a safetensors or GGUF file, by its first bytes. Raises BrokenWeights, also for pickles."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as exc:
        raise BrokenWeights(f"{path} can't be read ({exc.strerror}).") from exc
    if start.startswith(MAGIC):
        return read_gguf_header(path)
    if path.suffix.lower() in PICKLES or "pickle" in (foreign_kind(start) or ""):
        raise BrokenWeights(f"{path.name} is a pickle, which can run code.", hint=replacement(path))
    return read_header(path)


def replacement(path: Path) -> str:
    """What to use instead of one of the authors' pickles."""
    name = path.name.lower()
    part = next((part for word, part in _PICKLED if word in name), None)
    if part is None:
        return "Only safetensors and GGUF are read."
    return f"`wanreel models pull MODEL --component {part}` brings the same in safetensors."


_PICKLED = (("t5", "text_encoder"), ("vae", "vae"), ("clip", "image_encoder"))


def identify(path: Path) -> Found:
    """What the file at `path` is. Raises BrokenWeights when its header can't be trusted."""
    return identify_header(open_header(path))


def identify_header(header: Header) -> Found:
    """The same from a header that was read. Looks at names, shapes and the file's own name."""
    path, names = header.path, list(header.entries)
    precision = _precision(header)
    if sum(bool(_LORA.search(name)) for name in names) * 2 > len(names):
        return Found(path, "lora", "", precision, "a LoRA")
    other = next((title for piece, title in _OTHERS.items() if any(piece in name for name in names)), None)
    if other is not None:
        return Found(path, "other", "", precision, f"{other}, which Wanreel does not run")
    _, plain = without_prefix(names)
    shapes = {short: header.entries[name].shape for name, short in plain.items()}
    return (
        _transformer(path, shapes, precision)
        or _vae(path, shapes, precision)
        or _text_encoder(path, shapes, precision)
        or _image_encoder(path, shapes, precision)
        or Found(path, "other", "", precision, "nothing that belongs to a Wan model")
    )


Shapes = Mapping[str, tuple[int, ...]]


def _transformer(path: Path, shapes: Shapes, precision: str) -> Found | None:
    """In the authors' names or in Diffusers'."""
    ours = "condition_embedder.time_embedder.linear_1.weight" in shapes
    theirs = {name: other for name in shapes if (other := transformer_name(name))}
    named = dict(shapes) if ours else {other: shapes[name] for name, other in theirs.items()}
    patch, out = named.get("patch_embedding.weight"), named.get("proj_out.weight")
    if not patch or not out or "blocks.0.attn1.to_q.weight" not in named or len(patch) not in (2, 5):
        return None
    dim, layers = patch[0], 1 + max(int(name.split(".")[1]) for name in named if name.startswith("blocks."))
    into = patch[1] if len(patch) == 5 else patch[1] // 4
    clip = any("add_k_proj" in name for name in named)
    both = "condition_embedder.image_embedder.pos_embed" in named
    size = _SIZES.get((dim, layers), "")
    releases, modes = _kind(into, out[0] // 4, clip=clip, both=both, size=size)
    makes = {"text": "T2V", "picture": "I2V", "first_last": "FLF2V"}
    kind = "TI2V" if len(modes) == 2 else makes[modes[0]] if modes else f"{into}-channel"
    title = f"Wan {' or '.join(releases) or 'of unknown release'} {kind} {size or f'{layers}×{dim}'} transformer"
    style = "Diffusers'" if ours else "authors'"
    expert = _expert(path.name)
    return Found(
        path, "transformer", style, precision, title, releases, modes, size, expert, into, out[0] // 4, clip, dim
    )


def _kind(into: int, out: int, *, clip: bool, both: bool, size: str) -> tuple[tuple[str, ...], tuple[Mode, ...]]:
    """Releases and modes that have such channels."""
    if clip:
        return ("2.1",), ("first_last",) if both else ("picture",)
    if into == out:
        if out == 48:
            return ("2.2",), ("text", "picture")
        return ("2.1", "2.2") if size == "14B" else ("2.1",), ("text",)
    return ("2.2",), ("picture",) if into == 2 * out + 4 else ()


def _expert(name: str) -> str:
    words = re.split(r"[^a-z]+", name.lower())
    found = [word for word in ("high", "low") if word in words or f"{word}noise" in words]
    return found[0] if len(found) == 1 else ""


def _vae(path: Path, shapes: Shapes, precision: str) -> Found | None:
    ours = "decoder.mid_block.resnets.0.conv1.weight" in shapes
    named = dict(shapes) if ours else {other: shapes[name] for name, other in vae_names(shapes).items()}
    latent = named.get("post_quant_conv.weight")
    if not latent or "encoder.conv_in.weight" not in named or "decoder.conv_in.weight" not in named:
        return None
    release = {16: "2.1", 48: "2.2"}.get(latent[0], "")
    title = f"Wan {release} VAE" if release else f"VAE of {latent[0]} latent channels"
    return Found(
        path,
        "vae",
        "Diffusers'" if ours else "authors'",
        precision,
        title,
        releases=(release,) if release else (),
        out_channels=latent[0],
    )


def _text_encoder(path: Path, shapes: Shapes, precision: str) -> Found | None:
    ours = "encoder.block.0.layer.0.SelfAttention.q.weight" in shapes
    named = dict(shapes) if ours else {other: shapes[it] for it in shapes if (other := text_encoder_name(it))}
    table, bias = named.get("shared.weight"), "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"
    if not table or bias.format(0) not in named:
        return None
    # UMT5 learns positions in every block; T5 only in the first.
    if "encoder.block.1.layer.0.SelfAttention.q.weight" in named and bias.format(1) not in named:
        return Found(path, "other", "", precision, "a T5 encoder; Wan needs UMT5")
    title = "UMT5-XXL text encoder" if table[-1] == 4096 else f"UMT5 encoder of width {table[-1]}"
    style = "transformers'" if ours else "authors'"
    return Found(path, "text_encoder", style, precision, title, dim=table[-1])


def _image_encoder(path: Path, shapes: Shapes, precision: str) -> Found | None:
    plain = {name.removeprefix("vision_model."): shape for name, shape in shapes.items()}
    table = plain.get("embeddings.position_embedding.weight")
    if not table or "encoder.layers.0.self_attn.q_proj.weight" not in plain:
        return None
    title = "CLIP ViT-H image encoder" if table[-1] == 1280 else f"CLIP image encoder of width {table[-1]}"
    return Found(path, "image_encoder", "transformers'", precision, title, dim=table[-1])


def _precision(header: Header) -> str:
    """Of most weights; the rest (norms, biases) is often kept finer."""
    counts: Counter[str] = Counter()
    for entry in header.entries.values():
        counts[entry.dtype] += entry.elements
    most = counts.most_common(1)[0][0] if counts else ""
    scaled = any(name.endswith(SCALES) for name in header.entries)
    return _FLOATS.get(most, most) + (" scaled" if scaled else "")


# Whether it fits


def misfits(found: Found, spec: ModelSpec, slot: str) -> str:
    """Why `found` can't be `slot` ("transformer", "vae", …) of `spec`, in words; empty when it can."""
    needed = "transformer" if slot.startswith("transformer") else slot
    if found.part != needed:
        return f"{found.path.name} is {_with_article(found.title)}, and {spec.name} needs its {slot} there"
    if needed == "vae" and found.out_channels != spec.latent_channels:
        return (
            f"{found.path.name} is the {found.title}; {spec.name} needs one of {spec.latent_channels} latent channels"
        )
    if needed == "transformer":
        return _transformer_misfit(found, spec, slot)
    return ""


def _transformer_misfit(found: Found, spec: ModelSpec, slot: str) -> str:
    wanted = _wanted(spec)
    size = TRANSFORMERS.get(spec.parameters)
    same_size = size is None or found.dim == size.dim
    channels = (found.in_channels, found.out_channels) == (in_channels(spec), spec.latent_channels)
    both = ("first_last" in found.modes) == ("first_last" in spec.modes) or not spec.clip
    if not (same_size and channels and found.clip == spec.clip and both):
        return f"{found.path.name} is {_with_article(str(found))}; {spec.name} needs {_with_article(wanted)}"
    expert = "" if not spec.two_experts else "low" if slot.endswith("_2") else "high"
    if expert and found.expert and found.expert != expert:
        return f"{found.path.name} is the {found.expert}-noise expert by its name, and {slot} is the {expert}-noise one"
    return ""


def _wanted(spec: ModelSpec) -> str:
    makes = {"text": "T2V", "picture": "I2V", "first_last": "FLF2V"}
    kind = "TI2V" if len(spec.modes) == 2 else makes[spec.modes[0]]
    size = spec.parameters.removeprefix("2 × ")
    return f"Wan {spec.release} {kind} {size} transformer ({in_channels(spec)} input channels)"


def _with_article(text: str) -> str:
    return text if text.startswith(("a ", "an ", "nothing")) else f"{'an' if text[:1] in 'AEIOU' else 'a'} {text}"
