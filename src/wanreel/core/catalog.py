"""ModelSpec and the catalogue: what is true of each set of Wan weights, as rows of data.

Knows nothing of files, downloads or devices. Every recipe value is the model authors'; `sources` says where it was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from wanreel.core.edit_models import EDIT_MODELS, EditSpec, tiny_edit
from wanreel.core.errors import Problem, UnknownModel
from wanreel.core.picture_models import PICTURE_MODELS, PictureSpec
from wanreel.core.picture_models import tiny as tiny_picture_model
from wanreel.core.request import ResolutionName, Solver

Mode = Literal["text", "picture", "first_last"]
Conditioning = Literal["none", "channels", "first_frame"]
STANDARD_SOLVERS: tuple[Solver, ...] = ("unipc", "dpm++", "euler")


@dataclass(frozen=True, slots=True)
class Size:
    """What one resolution name means for one model."""

    width: int
    height: int
    flow_shift: float
    trained: bool = True  #: False: allowed, with a note


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Facts of one weight set."""

    name: str
    title: str
    hub_id: str | None  #: repository in Diffusers layout; None when the weights ship with Wanreel or are made up
    release: str  #: of Wan: "2.1" or "2.2"
    modes: tuple[Mode, ...]
    sizes: Mapping[ResolutionName, Size]
    steps: int  #: official number of denoise steps
    guidance_high: float
    guidance_low: float
    negative_prompt: str
    sources: tuple[str, ...]
    #: How a picture enters: not, as mask + latents in extra channels, as a clean first frame.
    conditioning: Conditioning = "none"
    default_resolution: ResolutionName = "720P"
    num_frames: int = 81  #: official length
    max_frames: int = 81  #: longest it was trained for; `hard_max_frames` is what it refuses
    fps: float = 16.0  #: the rate it was trained at
    parameters: str = ""  #: for people: "14B", "2 × 14B"
    licence: str = "Apache-2.0"
    clip: bool = False  #: pictures enter as CLIP embeddings too
    experts: int = 1
    boundary_ratio: float | None = None  #: t ≥ boundary · 1000 is the high-noise expert's
    latent_channels: int = 16
    temporal_stride: int = 4
    spatial_stride: int = 8
    size_multiple: int = 16
    solver: Solver = "unipc"
    solvers: tuple[Solver, ...] = STANDARD_SOLVERS
    few_step_timesteps: tuple[int, ...] = ()  #: fixed timesteps of a distilled model
    prompt_tokens: int = 512
    hard_max_frames: int | None = None  #: None: anything up to the knob's bound, with a note
    hard_max_side: int | None = None  #: px
    picture_resolution: ResolutionName | None = None  #: default with a picture, where that is another
    picture_guidance: float | None = None  #: the same for the guidance
    fast_steps: int | None = None  #: steps of preset "fast"; None: the model has no fast mode by itself
    builtin: bool = False  #: ships with Wanreel
    qualified: bool = False  #: a report of `wanreel models qualify` on the real weights lies in docs/qualified

    @property
    def two_experts(self) -> bool:
        return self.experts == 2

    @property
    def few_step(self) -> bool:
        return bool(self.few_step_timesteps)

    def default_size_name(self, *, picture: bool) -> ResolutionName:
        """The resolution of a request that names none."""
        return (self.picture_resolution if picture else None) or self.default_resolution

    def default_guidance(self, *, picture: bool) -> tuple[float, float]:
        """Guidance (high, low) of a request that names none."""
        if picture and self.picture_guidance is not None:
            return self.picture_guidance, self.picture_guidance
        return self.guidance_high, self.guidance_low

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames of `num_frames` = 4n+1 frames."""
        return (num_frames - 1) // self.temporal_stride + 1


# The texts below are the authors' data: Wan-Video/Wan2.2 wan/configs/shared_config.py (sample_neg_prompt). Wan 2.1's
# image-to-video configs put a prefix before it (Wan-Video/Wan2.1 generate.py).
NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)
NEGATIVE_I2V_21 = "镜头晃动，" + NEGATIVE
NEGATIVE_FLF2V_21 = "镜头切换，" + NEGATIVE

_W21 = "Wan-Video/Wan2.1: README.md, generate.py, wan/configs"
_W22 = "Wan-Video/Wan2.2: generate.py, wan/configs"


def _wan_sizes(
    shift_480: float, shift_720: float, *, trained_480: bool = True, trained_720: bool = True
) -> dict[ResolutionName, Size]:
    """The three offered areas. 1080P was trained by nobody and runs at 720P's shift."""
    return {
        "480P": Size(832, 480, shift_480, trained_480),
        "720P": Size(1280, 720, shift_720, trained_720),
        "1080P": Size(1920, 1080, shift_720, trained=False),
    }


_T2V_1_3B = ModelSpec(
    name="t2v-1.3b",
    title="Wan2.1 T2V 1.3B",
    hub_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    release="2.1",
    parameters="1.3B",
    modes=("text",),
    sizes=_wan_sizes(8.0, 8.0, trained_720=False),
    default_resolution="480P",
    steps=50,
    guidance_high=6.0,
    guidance_low=6.0,
    negative_prompt=NEGATIVE,
    sources=(_W21, "README of Wan2.1: shift 8-12 and guidance 6 for 1.3B"),
)
_I2V_480P = ModelSpec(
    name="i2v-14b-480p",
    title="Wan2.1 I2V 14B 480P",
    hub_id="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    release="2.1",
    parameters="14B",
    modes=("picture",),
    conditioning="channels",
    clip=True,
    sizes=_wan_sizes(3.0, 5.0, trained_720=False),
    default_resolution="480P",
    steps=40,
    guidance_high=5.0,
    guidance_low=5.0,
    negative_prompt=NEGATIVE_I2V_21,
    sources=(_W21,),
)
_T2V_A14B = ModelSpec(
    name="t2v-a14b",
    title="Wan2.2 T2V A14B",
    hub_id="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    release="2.2",
    parameters="2 × 14B",
    modes=("text",),
    experts=2,
    boundary_ratio=0.875,
    sizes=_wan_sizes(12.0, 12.0),
    steps=40,
    guidance_high=4.0,
    guidance_low=3.0,
    negative_prompt=NEGATIVE,
    sources=(_W22 + "/wan_t2v_A14B.py",),
)
_TI2V_5B = ModelSpec(
    name="ti2v-5b",
    title="Wan2.2 TI2V 5B",
    hub_id="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    release="2.2",
    parameters="5B",
    modes=("text", "picture"),
    conditioning="first_frame",
    latent_channels=48,
    spatial_stride=16,
    size_multiple=32,
    sizes={  # it knows 1280x704 alone
        "480P": Size(832, 480, 5.0, trained=False),
        "720P": Size(1280, 704, 5.0),
        "1080P": Size(1920, 1080, 5.0, trained=False),
    },
    num_frames=121,
    max_frames=121,
    fps=24.0,
    steps=50,
    guidance_high=5.0,
    guidance_low=5.0,
    negative_prompt=NEGATIVE,
    sources=(_W22 + "/wan_ti2v_5B.py",),
)
#: What FastVideo's distillation makes of a model.
_THREE_STEPS: Mapping[str, Any] = {
    "steps": 3,
    "fast_steps": 3,
    "few_step_timesteps": (1000, 757, 522),
    "guidance_high": 1.0,
    "guidance_low": 1.0,
    "solver": "dmd",
    "solvers": ("dmd",),
    "sources": ("hao-ai-lab/FastVideo: fastvideo/configs/pipelines/wan.py, fastvideo/registry.py",),
}

MODELS: tuple[ModelSpec, ...] = (
    _T2V_1_3B,
    replace(
        _T2V_1_3B,
        name="t2v-14b",
        title="Wan2.1 T2V 14B",
        hub_id="Wan-AI/Wan2.1-T2V-14B-Diffusers",
        parameters="14B",
        sizes=_wan_sizes(5.0, 5.0),
        default_resolution="720P",
        guidance_high=5.0,
        guidance_low=5.0,
        sources=(_W21,),
    ),
    _I2V_480P,
    replace(
        _I2V_480P,
        name="i2v-14b-720p",
        title="Wan2.1 I2V 14B 720P",
        hub_id="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        sizes=_wan_sizes(3.0, 5.0, trained_480=False),
        default_resolution="720P",
    ),
    replace(
        _I2V_480P,
        name="flf2v-14b-720p",
        title="Wan2.1 first-last-frame 14B 720P",
        hub_id="Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers",
        modes=("first_last",),
        sizes=_wan_sizes(16.0, 16.0, trained_480=False),
        default_resolution="720P",
        steps=50,
        negative_prompt=NEGATIVE_FLF2V_21,
        sources=(_W21, "huggingface/diffusers: scripts/convert_wan_to_diffusers.py (shift 16)"),
    ),
    _T2V_A14B,
    replace(
        _T2V_A14B,
        name="i2v-a14b",
        title="Wan2.2 I2V A14B",
        hub_id="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        modes=("picture",),
        conditioning="channels",
        boundary_ratio=0.900,
        sizes=_wan_sizes(3.0, 5.0),
        guidance_high=3.5,
        guidance_low=3.5,
        sources=(_W22 + "/wan_i2v_A14B.py", "wan/image2video.py (docstring: shift 3 at 480p)"),
    ),
    _TI2V_5B,
    replace(
        _T2V_1_3B,
        name="fastwan2.1-t2v-1.3b",
        title="FastWan2.1 T2V 1.3B (3 steps)",
        hub_id="FastVideo/FastWan2.1-T2V-1.3B-Diffusers",
        **_THREE_STEPS,
    ),
    replace(
        _TI2V_5B,
        name="fastwan2.2-ti2v-5b",
        title="FastWan2.2 TI2V 5B (3 steps)",
        hub_id="FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers",
        **_THREE_STEPS,
    ),
    ModelSpec(
        name="demo",
        title="Built-in demo (tiny, runs without a GPU)",
        hub_id=None,
        release="2.2",
        parameters="7M",
        modes=("text", "picture"),
        conditioning="first_frame",
        latent_channels=24,
        builtin=True,
        sizes={"480P": Size(128, 128, 3.0), "720P": Size(160, 96, 3.0), "1080P": Size(192, 192, 3.0)},
        default_resolution="480P",
        # A photo gets the largest size. Without guidance its clip is nearer to the exact move and takes half the time;
        # longer ones than the default blur towards their end (docs/demo_model.md).
        picture_resolution="1080P",
        picture_guidance=1.0,
        num_frames=17,
        max_frames=33,
        hard_max_frames=33,
        hard_max_side=192,
        fps=8.0,
        steps=12,
        fast_steps=8,
        guidance_high=3.0,
        guidance_low=3.0,
        negative_prompt="",
        sources=("docs/demo_model.md",),
    ),
)

TINY_PREFIX = "tiny:"

#: Families people ask for that Wanreel does not run, so that the error can say so instead of "unknown".
UNSUPPORTED: Mapping[str, str] = {
    "vace": "VACE (video editing and reference control)",
    "animate": "Animate (character animation)",
    "s2v": "S2V (speech to video)",
}


AnyRow = TypeVar("AnyRow", ModelSpec, PictureSpec)


@dataclass(frozen=True)
class Catalog:
    """Which models can be named: the shipped rows, then the user's own; iterating gives those that make videos."""

    models: tuple[ModelSpec, ...] = MODELS
    pictures: tuple[PictureSpec, ...] = (*PICTURE_MODELS, *EDIT_MODELS)  #: those that make still pictures

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.models)

    def __contains__(self, name: object) -> bool:
        return any(spec.name == name for spec in self.models)

    def get(self, name: str) -> ModelSpec:
        """The row called `name` (case and the hub's own id are forgiven). Raises UnknownModel with the nearest names.

        `tiny:NAME` is the same row with random modules of a few kilobytes, for trying a pipeline without weights.
        """
        wanted = name.strip().lower()
        if wanted.startswith(TINY_PREFIX):
            return tiny(self.get(wanted.removeprefix(TINY_PREFIX)))
        if (spec := _called(wanted, self.models)) is not None:
            return spec
        raise UnknownModel(self._unknown(name, wanted))

    def picture(self, name: str) -> PictureSpec:
        """The same for models that make pictures."""
        wanted = name.strip().lower()
        if wanted.startswith(TINY_PREFIX):
            spec = self.picture(wanted.removeprefix(TINY_PREFIX))
            small = TINY_PREFIX + spec.name
            return tiny_edit(spec, small) if isinstance(spec, EditSpec) else tiny_picture_model(spec, small)
        if (found := _called(wanted, self.pictures)) is not None:
            return found
        hint = f"Pictures are made by {' or '.join(spec.name for spec in self.pictures)}."
        raise UnknownModel.of("model", "unknown_model", f"there is no model {name!r} that makes pictures.", hint)

    def weights(self, name: str) -> ModelSpec | PictureSpec:
        """The row called `name`, whatever it makes. Raises UnknownModel."""
        try:
            return self.picture(name)
        except UnknownModel:
            return self.get(name)

    def _unknown(self, name: str, wanted: str) -> Problem:
        if any(wanted.removeprefix(TINY_PREFIX) == spec.name for spec in self.pictures):
            return Problem("model", "makes_pictures", f"{name} makes pictures, no videos.", "See `wanreel picture`.")
        for family, title in UNSUPPORTED.items():
            if family in wanted:
                return Problem(
                    "model", "unsupported_model", f"{name!r}: {title} is not supported.", "See `wanreel models`."
                )
        near = get_close_matches(wanted, [spec.name for spec in self.models], n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else "See `wanreel models`."
        return Problem("model", "unknown_model", f"there is no model {name!r}.", hint)


def _called(wanted: str, rows: Iterable[AnyRow]) -> AnyRow | None:
    return next((spec for spec in rows if wanted in (spec.name.lower(), (spec.hub_id or "").lower())), None)


def tiny(spec: ModelSpec) -> ModelSpec:
    """The same architecture and recipe at sizes that a CPU runs in a second."""
    side = 2 * spec.size_multiple if spec.size_multiple >= 32 else 4 * spec.size_multiple
    sizes: dict[ResolutionName, Size] = {
        name: Size(side * (2 if name == "720P" else 1), side, size.flow_shift) for name, size in spec.sizes.items()
    }
    return replace(
        spec,
        name=TINY_PREFIX + spec.name,
        title=f"{spec.title}, random and tiny",
        hub_id=None,
        parameters="random",
        sizes=sizes,
        default_resolution="480P",
        picture_resolution=None,
        picture_guidance=None,
        num_frames=9,
        max_frames=33,
        hard_max_frames=33,
        hard_max_side=256,
        builtin=True,
    )
