"""EditSpec and its rows: weights that change a picture as an instruction says. Knows no files or devices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wanreel.core.picture_models import TINY_SIDE, PictureSpec

DEFAULT_EDIT = "qwen-image-edit-2509"  #: of requests that name none


@dataclass(frozen=True, slots=True)
class EditSpec(PictureSpec):
    """Facts of one weight set of Qwen-Image-Edit's architecture: Qwen2.5-VL reads, a transformer paints.

    `cross_attention` is the width of its text embeddings; `unet_parameters` are the transformer's.
    """

    numbered: bool = True  #: the instruction names the picture "Picture 1", as QwenImageEditPlusPipeline has it
    reference_side: int = 1024  #: px; the picture is painted from at this side squared
    read_side: int = 384  #: px; it is read with the instruction at this side squared
    layers: int = 60
    heads: int = 24
    head_width: int = 128
    packed_channels: int = 64  #: of four latent pixels side by side

    @property
    def components(self) -> tuple[str, ...]:
        return ("scheduler", "tokenizer", "processor", "text_encoder", "vae", "transformer")


def _row(name: str, title: str, hub_id: str, *, steps: int, numbered: bool = True, read_side: int = 384) -> EditSpec:
    return EditSpec(
        name=name,
        title=title,
        hub_id=hub_id,
        modes=("edit",),
        width=1024,
        height=1024,
        steps=steps,
        guidance=4.0,
        strength=1.0,
        sources=("diffusers 0.42.1, pipelines/qwenimage", f"{hub_id}: model card"),
        text_encoders=1,
        unet_channels=(),
        unet_parameters=20_430_401_088,
        unet_bytes=0,
        cross_attention=3584,
        parameters="20.4B",
        licence="Apache-2.0",
        solvers=("euler",),
        latent_channels=16,
        size_multiple=16,
        area_multiple=32,
        prompt_tokens=1024,
        numbered=numbered,
        read_side=read_side,
    )


EDIT_MODELS: tuple[EditSpec, ...] = (
    _row("qwen-image-edit-2511", "Qwen-Image-Edit, November 2025", "Qwen/Qwen-Image-Edit-2511", steps=40),
    _row("qwen-image-edit-2509", "Qwen-Image-Edit, September 2025", "Qwen/Qwen-Image-Edit-2509", steps=40),
    _row(
        "qwen-image-edit",
        "Qwen-Image-Edit, August 2025",
        "Qwen/Qwen-Image-Edit",
        steps=50,
        numbered=False,
        read_side=1024,
    ),
)


def tiny_edit(spec: EditSpec, name: str) -> EditSpec:
    """The same architecture and recipe at sizes that a CPU runs in a second."""
    return replace(
        spec,
        name=name,
        title=f"{spec.title}, random and tiny",
        hub_id=None,
        parameters="random",
        width=TINY_SIDE,
        height=TINY_SIDE,
        steps=4,
        unet_parameters=0,
        cross_attention=32,
        max_side=256,
        builtin=True,
        latent_channels=4,
        reference_side=TINY_SIDE,
        read_side=TINY_SIDE,
        layers=2,
        heads=2,
        head_width=16,
        packed_channels=16,
    )
