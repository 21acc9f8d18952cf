"""encode: prompt and pictures to Conditioning, with the numbers of Diffusers' Wan pipelines.

Knows nothing of files, noise or steps. Formulas: diffusers 0.42.1,
pipelines/wan/pipeline_wan.py and pipeline_wan_i2v.py.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ftfy
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.placement import Tile
from wanreel.core.resolved import ResolvedRequest
from wanreel.generation.conditioning import Conditioning, latent_shape
from wanreel.generation.tiles import blend, windows
from wanreel.media.pictures import cover_and_crop
from wanreel.models.vae.lean import LeanVae
from wanreel.models.vae.steady import Steady, encoder_stages, lean_stages, moments
from wanreel.models.wan_model import WanModel


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of one clip, RGB, at any size."""

    first: Image.Image | None = None
    last: Image.Image | None = None

    def fitted(self, width: int, height: int) -> tuple[Image.Image, ...]:
        """Those given, covering width x height px; what sticks out is cropped evenly, nothing is stretched."""
        given = [picture for picture in (self.first, self.last) if picture is not None]
        return tuple(cover_and_crop(picture, width, height) for picture in given)


@torch.no_grad()
def encode(model: WanModel, request: ResolvedRequest, pictures: Pictures, cancel: CancelToken) -> Conditioning:
    """Everything that steers the generation, on the model's device. Raises Cancelled between its parts."""
    shape = latent_shape(model.spec, request)
    text, negative, notes = encode_prompts(model, request, cancel)
    fitted = pictures.fitted(request.width, request.height)
    if not fitted:
        return Conditioning(shape, text, negative, notes=notes)
    seen = _Seen(model, fitted)
    clip = seen.encoded("clip", lambda: _encode_clip(model, fitted, cancel)) if model.spec.clip else None
    frames = [_pixels(picture) for picture in fitted]
    if model.spec.conditioning == "first_frame":
        first = seen.encoded("first", lambda: _picture_latents(model, frames[0].unsqueeze(2), cancel))
        return Conditioning(shape, text, negative, first_frame=first, clip=clip, notes=notes)
    channels = _encode_channels(model, frames, request.num_frames, seen, cancel)
    return Conditioning(shape, text, negative, channels=channels, clip=clip, notes=notes)


class _Seen:
    """What the encoders made of these pictures before, to the bit, so that they need not look again."""

    def __init__(self, model: WanModel, fitted: Sequence[Image.Image]) -> None:
        self._model = model
        self._content = b"".join(picture.tobytes() for picture in fitted)
        sizes = " ".join(f"{picture.mode}{picture.size}" for picture in fitted)
        # Tiles and halved numbers change bits; where weights lie and how steps are computed do not.
        self._facts = f"{model.spec.name} {sizes} tile {model.placement.tile} lean {is_lean(model)}"

    def encoded(self, what: str, encode: Callable[[], Tensor]) -> Tensor:
        """From the memory, else by `encode`, and kept."""
        memory, facts = self._model.sights, f"{what} {self._facts}"
        known = memory.get(facts, self._content) if memory is not None else None
        if known is not None:
            return known.to(self._model.device)
        made = encode()
        if memory is not None:
            memory.put(facts, self._content, made)
        return made


def is_guided(request: ResolvedRequest) -> bool:
    """Whether any expert needs the second pass with the negative prompt."""
    return request.guidance_high > 1.0 or request.guidance_low > 1.0 or request.guided_steps > 0


def clean_prompt(text: str) -> str:
    """Broken Unicode mended, HTML entities resolved, whitespace collapsed, as in the authors' training."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text.strip()).strip()


def encode_prompts(
    model: WanModel, request: ResolvedRequest, cancel: CancelToken
) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    notes: list[str] = []
    prompts = [_tokens(model, request.prompt, "prompt", notes)]
    if is_guided(request):
        prompts.append(_tokens(model, request.negative_prompt, "negative prompt", notes))
    cancel.check()
    rows = [model.prompts.get(tokens) if model.prompts is not None else None for tokens in prompts]
    if any(found is None for found in rows):
        with model.resident("text_encoder") as encoder:
            for place in [place for place, found in enumerate(rows) if found is None]:
                cancel.check()
                rows[place] = _encoded(model, encoder, prompts[place])
    cancel.check()
    text, *negative = [_padded(model, found) for found in rows if found is not None]
    return text, negative[0] if negative else None, tuple(notes)


def _tokens(model: WanModel, prompt: str, name: str, notes: list[str]) -> list[int]:
    """The prompt's tokens, as many as the model reads. Adds a note where it is cut."""
    limit, text = model.spec.prompt_tokens, clean_prompt(prompt)
    length = len(model.tokenizer(text, verbose=False).input_ids)
    if length > limit:
        notes.append(f"The {name} was cut: {length} tokens, and {model.spec.name} reads {limit}.")
    return list(model.tokenizer(text, max_length=limit, truncation=True).input_ids)


def _encoded(model: WanModel, encoder: Any, tokens: Sequence[int]) -> Tensor:
    """[tokens, text_dim], kept for the next time. The encoder reads them padded to its full length, as in training."""
    limit, used = model.spec.prompt_tokens, len(tokens)
    ids = torch.full((1, limit), model.tokenizer.pad_token_id, device=model.device)
    ids[0, :used] = torch.tensor(tokens, device=model.device)
    mask = (torch.arange(limit, device=model.device) < used).long().unsqueeze(0)
    rows = encoder(ids, mask).last_hidden_state[0, :used]
    if model.prompts is not None:
        model.prompts.put(tokens, rows)
    return rows


def _padded(model: WanModel, rows: Tensor) -> Tensor:
    """[1, prompt_tokens, text_dim]; zero rows after the prompt's last token."""
    rows = rows.to(model.device)
    missing = model.spec.prompt_tokens - rows.shape[0]
    return torch.cat([rows, rows.new_zeros(missing, rows.shape[1])]).unsqueeze(0)


def _encode_clip(model: WanModel, pictures: Sequence[Image.Image], cancel: CancelToken) -> Tensor:
    """[pictures, tokens, image_dim] of CLIP's last layer but one."""
    processor: Any = model.image_processor
    with model.resident("image_encoder") as encoder:
        cancel.check()
        pixels = processor(images=list(pictures), return_tensors="pt").to(model.device)
        return encoder(**pixels, output_hidden_states=True).hidden_states[-2]


def _encode_channels(
    model: WanModel, frames: Sequence[Tensor], num_frames: int, seen: _Seen, cancel: CancelToken
) -> Tensor:
    """[1, 4 + c, f, h, w]: a mask that is 1 where a frame is given, then the latents of given and grey frames."""
    known = [0] if len(frames) == 1 else [0, num_frames - 1]

    def encode() -> Tensor:
        video = frames[0].new_zeros(1, 3, num_frames, *frames[0].shape[-2:])
        for place, frame in zip(known, frames, strict=True):
            video[:, :, place] = frame
        return _picture_latents(model, video, cancel)

    latents = seen.encoded(f"channels {num_frames}", encode)
    return torch.cat([_frame_mask(latents, known, num_frames, model.spec.temporal_stride), latents], dim=1)


def _frame_mask(latents: Tensor, known: Sequence[int], num_frames: int, stride: int) -> Tensor:
    """[1, stride, f, h, w]: channel k of latent frame j stands for video frame stride * (j - 1) + 1 + k; frame 0 fills
    all channels of latent frame 0."""
    given = torch.zeros(num_frames)
    given[list(known)] = 1.0
    rows = torch.cat([given[:1].repeat(stride), given[1:]]).view(-1, stride).T
    return rows[None, :, :, None, None].expand(1, -1, -1, *latents.shape[-2:]).to(latents)


def _pixels(picture: Image.Image) -> Tensor:
    """[1, 3, h, w] fp32 in -1 to 1."""
    array = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0
    return 2.0 * torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0) - 1.0


def _picture_latents(model: WanModel, video: Tensor, cancel: CancelToken) -> Tensor:
    """[1, c, f, h, w] fp32 normalised latents of [1, 3, n, h, w] pixels."""
    with model.resident("vae") as vae:
        latents = _encode_video(vae, video, model.placement.tile, cancel, lean=is_lean(model)).float()
        mean, inverse_std = latent_statistics(vae, latents)
        return (latents - mean) * inverse_std


def latent_statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and 1/std of the VAE's latents, [1, c, 1, 1, 1] each, in the dtype and on the device of `like`.

    The inverse is taken first, as in the pipelines: dividing by it differs in the last bits from multiplying by std.
    """
    shape = (1, vae.config.z_dim, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(shape).to(like)
    return mean, 1.0 / torch.tensor(vae.config.latents_std).view(shape).to(like)


def is_lean(model: WanModel) -> bool:
    """Whether the VAE computes in fp16: on a GPU, for requests that are not to be exact."""
    return model.device.type == "cuda" and model.placement.compute != "exact"


def _encode_video(vae: Any, video: Tensor, tile: Tile | None, cancel: CancelToken, *, lean: bool) -> Tensor:
    """The mode of vae.encode(video), on the VAE's device. The video stays where it is but for the frames at work."""
    if tile is None:
        return _encode_streamed(vae, video, cancel, lean=lean)
    space, (height, width) = vae.config.scale_factor_spatial, video.shape[-2:]
    frames = 1 + (video.shape[2] - 1) // vae.config.scale_factor_temporal
    canvas = torch.zeros(1, vae.config.z_dim, frames, height // space, width // space, device=vae.device)
    for window in windows(tile, height, width, space):
        part = _encode_streamed(vae, window.cut(video), cancel, lean=lean)
        blend(canvas, part, window.scaled(1, space))
    return canvas


def _encode_streamed(vae: Any, video: Tensor, cancel: CancelToken, *, lean: bool) -> Tensor:
    """A latent frame at a time, so that it can be stopped. `lean` is fp16, unless a number gets too large for it."""
    if lean and not vae.config.is_residual:
        found = _moments(vae, Steady(lean_stages(LeanVae(vae, torch.float16))), video.to(torch.float16), cancel)
        if bool(torch.isfinite(found).all()):
            return found.to(vae.dtype).chunk(2, dim=1)[0]
    found = _moments(vae, Steady(encoder_stages(vae)), video.to(vae.dtype), cancel)
    return vae.quant_conv(found).chunk(2, dim=1)[0]


def _moments(vae: Any, encoder: Steady, video: Tensor, cancel: CancelToken) -> Tensor:
    cuts, parts = [0, *range(1, video.shape[2] + 1, vae.config.scale_factor_temporal)], list[Tensor]()
    for start, end in itertools.pairwise(cuts):
        cancel.check()
        parts.append(moments(vae, encoder, video[:, :, start:end].to(vae.device)))
    return torch.cat(parts, dim=2)
