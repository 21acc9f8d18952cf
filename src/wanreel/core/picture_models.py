"""PictureSpec and its rows: what is true of each set of weights that makes still pictures. Knows no files or devices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PictureSolver = Literal["euler", "euler-a", "ddim", "pndm", "lms", "dpm++", "dpm++-single"]
#: What a picture is made from: words, a picture and words, a picture and an instruction to change it.
PictureMode = Literal["text", "picture", "edit"]
SOLVERS: tuple[PictureSolver, ...] = ("euler", "euler-a", "ddim", "pndm", "lms", "dpm++", "dpm++-single")


@dataclass(frozen=True, slots=True)
class PictureSpec:
    """Facts of one weight set of Stable Diffusion XL's architecture."""

    name: str
    title: str
    hub_id: str | None  #: repository in Diffusers layout; None for what is made up on the spot
    modes: tuple[PictureMode, ...]
    width: int  #: px it was trained at
    height: int
    steps: int
    guidance: float
    strength: float  #: how much of a picture given is made anew
    sources: tuple[str, ...]
    text_encoders: int  #: 2: CLIP ViT-L and OpenCLIP bigG; 1: the latter alone
    unet_channels: tuple[int, ...]  #: of its levels
    unet_parameters: int  #: 0: in no table, as it is small
    unet_bytes: int  #: of tensors alive at the U-Net's highest point, for each latent pixel, with guidance; counted
    cross_attention: int  #: width of the text embeddings
    aesthetic: bool = False  #: conditioned on an aesthetic score in the place of a target size
    parameters: str = ""  #: for people: "2.6B"
    licence: str = "CreativeML Open RAIL++-M"
    variant: str | None = None  #: of the repository's files: "fp16" halves the download
    refiner: str | None = None  #: the row that may finish what this one begins
    solver: PictureSolver = "euler"
    solvers: tuple[PictureSolver, ...] = SOLVERS
    latent_channels: int = 4
    spatial_stride: int = 8
    size_multiple: int = 8  #: px
    area_multiple: int = 8  #: px, where the size follows the picture given
    max_side: int = 2048  #: px; more is refused
    prompt_tokens: int = 77
    builtin: bool = False
    qualified: bool = False  #: compared with Diffusers on the published weights

    @property
    def components(self) -> tuple[str, ...]:
        """The folders of its repository that are used."""
        text = ("tokenizer", "text_encoder") if self.text_encoders == 2 else ()
        return ("scheduler", *text, "tokenizer_2", "text_encoder_2", "vae", "unet")


_SDXL = "diffusers 0.42.1, pipelines/stable_diffusion_xl (defaults of the calls)"

PICTURE_MODELS: tuple[PictureSpec, ...] = (
    PictureSpec(
        name="sdxl-base",
        title="Stable Diffusion XL 1.0",
        hub_id="stabilityai/stable-diffusion-xl-base-1.0",
        modes=("text", "picture"),
        width=1024,
        height=1024,
        steps=50,
        guidance=5.0,
        strength=0.3,
        sources=(_SDXL,),
        text_encoders=2,
        unet_channels=(320, 640, 1280),
        unet_parameters=2_567_463_684,
        unet_bytes=20_270,
        cross_attention=2048,
        parameters="2.6B",
        variant="fp16",
        refiner="sdxl-refiner",
    ),
    PictureSpec(
        name="sdxl-refiner",
        title="Stable Diffusion XL 1.0 refiner",
        hub_id="stabilityai/stable-diffusion-xl-refiner-1.0",
        modes=("picture",),
        width=1024,
        height=1024,
        steps=50,
        guidance=5.0,
        strength=0.3,
        sources=(_SDXL,),
        text_encoders=1,
        unet_channels=(384, 768, 1536, 1536),
        unet_parameters=2_259_526_660,
        unet_bytes=24_260,
        cross_attention=1280,
        aesthetic=True,
        parameters="2.3B",
        variant="fp16",
    ),
)

DEFAULT = "sdxl-base"  #: of requests that name none
TINY_SIDE = 64  #: px


def tiny(spec: PictureSpec, name: str) -> PictureSpec:
    """The same architecture and recipe at sizes that a CPU runs in a second."""
    return replace(
        spec,
        name=name,
        title=f"{spec.title}, random and tiny",
        hub_id=None,
        variant=None,
        parameters="random",
        width=TINY_SIDE,
        height=TINY_SIDE,
        steps=4,
        unet_channels=(8, 16),
        unet_parameters=0,
        unet_bytes=0,
        cross_attention=32 * spec.text_encoders,
        refiner=f"tiny:{spec.refiner}" if spec.refiner else None,
        max_side=256,
        builtin=True,
    )
