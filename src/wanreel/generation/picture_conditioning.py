"""Words and a picture as what steers a still picture, with the numbers of Diffusers' SDXL pipelines.

Knows nothing of files or steps. Formulas: diffusers 0.42.1, pipelines/stable_diffusion_xl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.picture_request import ResolvedPicture
from wanreel.media.pictures import cover_and_crop
from wanreel.models.picture_model import PictureModel

#: What the refiner is told of the picture wanted and of the one to avoid (defaults of Diffusers' call).
AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE = 6.0, 2.5


@dataclass(frozen=True, slots=True)
class PictureConditioning:
    """Everything that steers the U-Net, with guidance two rows each: what to avoid, then what is wanted."""

    text: Tensor  #: [rows, 77, width of all text encoders]
    pooled: Tensor  #: [rows, width of the last one's projection]
    sizes: Tensor  #: [rows, 6], or [rows, 5] with an aesthetic score in the place of the target size
    notes: tuple[str, ...] = ()

    @property
    def guided(self) -> bool:
        return self.text.shape[0] == 2


@torch.no_grad()
def condition(model: PictureModel, request: ResolvedPicture, cancel: CancelToken) -> PictureConditioning:
    """The prompt as the model's text encoders read it. Raises Cancelled between them."""
    guided = request.guidance_scale > 1.0
    zero = guided and request.negative_prompt is None and model.empty_is_zero
    prompts = [request.prompt, request.negative_prompt or ""][: 2 if guided and not zero else 1]
    rows: list[list[Tensor]] = [[] for _ in prompts]
    pooled: list[Tensor] = []
    notes: list[str] = []
    for part, tokenizer in model.encoders:
        with model.resident(part) as encoder:
            pooled = []
            for place, prompt in enumerate(prompts):
                cancel.check()
                output = encoder(_tokens(model, tokenizer, prompt, notes), output_hidden_states=True)
                rows[place].append(output.hidden_states[-2])
                pooled.append(output[0])  # of the last encoder, which has a projection: the embedding of the whole text
    text = [torch.cat(parts, dim=-1) for parts in rows]
    if zero:
        text, pooled = [*text, torch.zeros_like(text[0])], [*pooled, torch.zeros_like(pooled[0])]
    wanted, avoided = _sizes(model, request)
    sizes = [avoided, wanted] if guided else [wanted]
    return PictureConditioning(
        text=torch.cat(text[::-1]).to(model.dtype),
        pooled=torch.cat(pooled[::-1]).to(model.dtype),
        sizes=torch.tensor(sizes, dtype=model.dtype, device=model.device),
        notes=tuple(dict.fromkeys(notes)),
    )


def _tokens(model: PictureModel, tokenizer: Any, prompt: str, notes: list[str]) -> Tensor:
    """[1, 77]. Adds a note where the prompt is cut."""
    limit = model.spec.prompt_tokens
    length = len(tokenizer(prompt, verbose=False).input_ids)
    if length > limit:
        notes.append(f"The prompt was cut: {length} tokens, and {model.spec.name} reads {limit}.")
    found = tokenizer(prompt, padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
    return found.input_ids.to(model.device)


def _sizes(model: PictureModel, request: ResolvedPicture) -> tuple[list[float], list[float]]:
    """(wanted, to avoid): height and width, no crop, and the target size again or a score."""
    size = [float(request.height), float(request.width)]
    if model.spec.aesthetic:
        return [*size, 0.0, 0.0, AESTHETIC_SCORE], [*size, 0.0, 0.0, NEGATIVE_AESTHETIC_SCORE]
    return [*size, 0.0, 0.0, *size], [*size, 0.0, 0.0, *size]


def pixels(picture: Image.Image, width: int, height: int) -> Tensor:
    """[1, 3, height, width] from -1 to 1; the picture covers that size and what sticks out is cropped evenly."""
    array = np.asarray(cover_and_crop(picture, width, height), dtype=np.float32)[None] / 255.0
    # In memory as Diffusers has it: kernels choose by that, and the last bit follows.
    return torch.from_numpy(array).permute(0, 3, 1, 2) * 2.0 - 1.0


@torch.no_grad()
def picture_latents(model: PictureModel, picture: Tensor, generator: torch.Generator) -> Tensor:
    """Latents of `picture` [1, 3, h, w], a sample of what the VAE finds, on the model's device."""
    with model.resident("vae") as vae:
        found = vae.encode(picture.to(model.device)).latent_dist.sample(generator)
    return found.to(model.dtype) * vae.config.scaling_factor


@torch.no_grad()
def decoded(model: PictureModel, latents: Tensor) -> NDArray[np.uint8]:
    """Latents [1, 4, h/8, w/8] as a picture [h, w, 3]."""
    with model.resident("vae") as vae:
        found = vae.decode(latents.to(model.device, torch.float32) / vae.config.scaling_factor, return_dict=False)[0]
    scaled = (found[0].float().cpu() * 0.5 + 0.5).clamp(0.0, 1.0).permute(1, 2, 0)
    return (scaled.numpy() * 255).round().astype(np.uint8)
