"""An instruction and a picture as what steers an edit, with the numbers of Diffusers' QwenImageEdit pipelines.

Knows nothing of files or steps. Formulas: diffusers 0.42.1, pipelines/qwenimage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.picture_request import ResolvedPicture
from wanreel.models.edit_model import EditModel
from wanreel.models.edit_processor import IMAGE

#: What stands around every instruction; the tokens of its beginning are not handed on.
_TEMPLATE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
_DROPPED = 64  # tokens
_SEEN = f"<|vision_start|>{IMAGE}<|vision_end|>"
_NOTHING = " "  #: what the models' cards avoid where nothing is to be avoided
_UNIT = 32  # px that the sides of the picture given are rounded to


@dataclass(frozen=True, slots=True)
class Sides:
    """px of a picture."""

    width: int
    height: int

    @classmethod
    def of_area(cls, side: int, picture: Image.Image) -> Sides:
        """Those of an area of `side` squared in the picture's shape."""
        ratio = picture.width / picture.height
        width = (side * side * ratio) ** 0.5
        return cls(*(round(length / _UNIT) * _UNIT for length in (width, width / ratio)))


@dataclass(frozen=True, slots=True)
class EditConditioning:
    """Everything that steers the transformer."""

    wanted: Tensor  #: [1, tokens, width]
    avoided: Tensor | None  #: the same; None without guidance
    picture: Tensor  #: packed latents of the picture given [1, tokens, channels]
    shapes: tuple[tuple[int, int, int], ...]  #: frames, rows and columns of tokens: of the result, of the picture
    notes: tuple[str, ...] = ()


def edit_conditioning(
    model: EditModel, request: ResolvedPicture, picture: Image.Image, cancel: CancelToken
) -> EditConditioning:
    """Instruction and picture as the model reads and sees them. Raises Cancelled between its parts."""
    spec = model.spec
    notes: list[str] = []
    reading = _resized(picture, Sides.of_area(spec.read_side, picture))
    guided = request.guidance_scale > 1.0
    with model.resident("text_encoder") as encoder:
        cancel.check()
        wanted = _read(model, encoder, request.prompt, reading, notes)
        cancel.check()
        avoid = request.negative_prompt or _NOTHING
        avoided = _read(model, encoder, avoid, reading, notes) if guided else None
    cancel.check()
    sides = Sides.of_area(spec.reference_side, picture)
    shapes = tuple(_grid(it, spec.spatial_stride) for it in (Sides(request.width, request.height), sides))
    found = _picture_latents(model, _resized(picture, sides))
    return EditConditioning(wanted, avoided, found, shapes, tuple(dict.fromkeys(notes)))


@torch.no_grad()
def _read(model: EditModel, encoder: Any, text: str, picture: Image.Image, notes: list[str]) -> Tensor:
    """[1, tokens, width] of the encoder's last layer."""
    plain = text.replace("<|", "< |")  # marks that only the template may use
    if plain != text:
        notes.append("The instruction holds marks of the model's own, which were made plain text.")
    numbered = f"Picture 1: {_SEEN}" if model.spec.numbered else _SEEN
    read: Any = model.processor(text=[_TEMPLATE.format(numbered + plain)], images=[picture]).to(model.device)
    output = encoder(**read, output_hidden_states=True)
    return output.hidden_states[-1][:, _DROPPED:].to(model.dtype)


def _resized(picture: Image.Image, sides: Sides) -> Image.Image:
    return picture.resize((sides.width, sides.height), Image.Resampling.LANCZOS)


def _grid(sides: Sides, stride: int) -> tuple[int, int, int]:
    return 1, sides.height // stride // 2, sides.width // stride // 2


@torch.no_grad()
def _picture_latents(model: EditModel, picture: Image.Image) -> Tensor:
    """Packed latents of the picture, the likeliest that the VAE finds."""
    array = np.asarray(picture, dtype=np.float32)[None] / 255.0
    pixels = torch.from_numpy(array).permute(0, 3, 1, 2) * 2.0 - 1.0
    with model.resident("vae") as vae:
        found = vae.encode(pixels.unsqueeze(2).to(model.device, model.dtype)).latent_dist.mode()
        mean, spread = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(found.device, found.dtype)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
    return packed((found - mean) / spread)


def packed_noise(model: EditModel, sides: Sides, generator: torch.Generator) -> Tensor:
    """Drawn on the CPU so that a seed means the same on any device."""
    stride = model.spec.spatial_stride
    shape = (1, 1, model.spec.latent_channels, sides.height // stride, sides.width // stride)
    return packed(torch.randn(shape, generator=generator).transpose(1, 2)).to(model.device, model.dtype)


def packed(latents: Tensor) -> Tensor:
    """[1, channels, 1, h, w] as a token of four pixels each: [1, h/2 · w/2, 4 · channels]."""
    _, channels, _, height, width = latents.shape
    squares = latents.reshape(1, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(1, height // 2 * (width // 2), channels * 4)


def unpacked(latents: Tensor, sides: Sides, stride: int) -> Tensor:
    """The inverse of `packed`."""
    channels = latents.shape[2] // 4
    rows, columns = sides.height // stride // 2, sides.width // stride // 2
    squares = latents.view(1, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(1, channels, 1, 2 * rows, 2 * columns)
