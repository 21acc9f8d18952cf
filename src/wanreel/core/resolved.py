"""ResolvedRequest: exactly what will run, nothing left open; and how it differs from what was asked.

Values alone: how one comes about is resolve.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from wanreel.core.adjustment import Adjustment
from wanreel.core.catalog import Mode, ModelSpec
from wanreel.core.compute import Compute
from wanreel.core.finishing import Finishing, Shape
from wanreel.core.lora import ResolvedLora
from wanreel.core.picture import PictureRef
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.placement import Plan, Precision
from wanreel.core.request import OutputFormat, Quality, Solver, VideoRequest
from wanreel.core.wishes import MemoryChoices, MemoryMode, OnOom

__all__ = ["Adjustment", "Resolution", "ResolvedRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRequest:
    """A request with nothing left open. Equal values on equal software and hardware give equal bytes."""

    prompt: str
    negative_prompt: str
    model: str
    mode: Mode
    image: PictureRef | None
    last_image: PictureRef | None
    width: int  #: px generated
    height: int
    export_width: int  #: px in the file; smaller than generated where the centre is cropped out
    export_height: int
    num_frames: int
    fps: float  #: of playback
    num_inference_steps: int
    guidance_high: float
    guidance_low: float  #: equal to guidance_high for one-expert models
    flow_shift: float
    solver: Solver
    seed: int  #: 0 or more
    loras: tuple[ResolvedLora, ...]
    output_format: OutputFormat
    quality: Quality
    metadata: bool
    guided_steps: int = 0  #: first steps at the model's own guidance
    boundary_ratio: float | None = None  #: t ≥ boundary · 1000 is the high-noise expert's; None with one expert
    memory_mode: MemoryMode | None = None  #: this and the next four: None as the settings of the machine say
    precision: Precision | None = None
    offload: Plan | None = None
    vae_tile: int | None = None
    quantize: bool | None = None
    on_oom: OnOom = "fail"
    finishing: Finishing = Finishing()
    original_prompt: str = ""  #: as it was written, where help or wildcards made the prompt of it
    keyframe: ResolvedPicture | None = None  #: the edit of `image` that the video begins with (see core/keyframe.py)
    compute: Compute = "exact"  #: how faithfully steps are computed; less where the machine can't

    @property
    def memory(self) -> MemoryChoices:
        """What it asks of the plan of memory."""
        return MemoryChoices(self.memory_mode, self.precision, self.offload, self.vae_tile, self.quantize)

    @property
    def given(self) -> PictureRef | None:
        """The picture that came with the request; with a keyframe that is drawn, not the one it begins with."""
        drawn_of = self.keyframe.image if self.keyframe is not None else None
        return drawn_of or self.image

    @property
    def finished(self) -> Shape:
        """What the file holds."""
        return self.finishing.shape(self.num_frames, self.fps, self.export_width, self.export_height)

    @property
    def seconds(self) -> float:
        """Playing time."""
        return self.finished.seconds

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values. Without finishing where none is asked for, as older records are."""
        values = cast("dict[str, object]", asdict(self) | {"loras": [asdict(lora) for lora in self.loras]})
        finishing = self.finishing.to_dict()
        del values["finishing"]
        for name in ("keyframe", "original_prompt"):
            if not values[name]:
                del values[name]
        return values | ({"finishing": finishing} if finishing else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> ResolvedRequest:
        """The inverse of `to_dict`. Raises KeyError or TypeError on foreign data."""
        values = dict(cast("Mapping[str, Any]", data))
        for name in ("image", "last_image"):
            values[name] = PictureRef.from_dict(values[name]) if values[name] else None
        values["loras"] = tuple(ResolvedLora(**lora) for lora in values["loras"])
        values["finishing"] = Finishing.from_dict(values.get("finishing", {}))
        if (keyframe := values.get("keyframe")) is not None:
            values["keyframe"] = ResolvedPicture.from_dict(keyframe)
        return cls(**values)

    def as_request(self) -> VideoRequest:
        """The request that resolves to this one again."""
        return VideoRequest(
            prompt=self.prompt,
            original_prompt=self.original_prompt or None,
            wildcards=False,
            negative_prompt=self.negative_prompt,
            model=self.model,
            image=self.given,
            last_image=self.last_image,
            edit_prompt=self.keyframe.prompt if self.keyframe else None,
            edit_model=self.keyframe.model if self.keyframe else None,
            width=self.export_width,
            height=self.export_height,
            num_frames=self.num_frames,
            fps=self.fps,
            num_inference_steps=self.num_inference_steps,
            guidance_high=self.guidance_high,
            guidance_low=self.guidance_low,
            flow_shift=self.flow_shift,
            solver=self.solver,
            seed=self.seed,
            loras=tuple(lora.as_ref() for lora in self.loras),
            guided_steps=self.guided_steps,
            boundary_ratio=self.boundary_ratio,
            output_format=self.output_format,
            quality=self.quality,
            metadata=self.metadata,
            memory_mode=self.memory_mode,
            precision=self.precision,
            offload=self.offload,
            vae_tile=self.vae_tile,
            quantize=self.quantize,
            on_oom=self.on_oom,
            compute=self.compute,
            **self.finishing.asked(),
        )


@dataclass(frozen=True, slots=True)
class Resolution:
    """What will run, and how it differs from what was asked."""

    request: ResolvedRequest
    spec: ModelSpec
    adjustments: tuple[Adjustment, ...]
    storage: str = ""  #: the profile that the result is copied to; empty where it stays here
