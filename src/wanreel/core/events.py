"""The typed events that a generation yields, in the order they happen. Knows nothing of who listens.

Downloading* → ModelLoaded → StepsChosen? → LorasApplied? → Encoded? → Resumed? → (Saved?, StepCompleted, Preview?)* → Denoised →
Decoded* → Exported → Completed. Downloading comes where the weights are not here yet; Encoded is missing where finished
latents were found. Where one part of the model is on the device at a time, a Turn comes before each further one: before
the first step, where the other expert takes over, before Decoded. A generation that fails or is cancelled raises a typed
error instead of a last event; a job's own log then says "failed" or "cancelled". PlanChanged may come anywhere before
Exported; ModelLoaded comes after it once more. Still pictures come the same way and end with Drawn; with a refiner, from
ModelLoaded to the steps twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wanreel.core.drawing import Drawing
from wanreel.core.lora import LoraApplied
from wanreel.core.video import Video


@dataclass(frozen=True, slots=True)
class Downloading:
    """The model's weights come from the hub first."""

    model: str
    received_bytes: int
    total_bytes: int  #: 0 while unknown


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    model: str
    device: str  #: "cpu", "cuda:0 NVIDIA H200", …
    seconds: float  #: 0.0 when it was loaded already
    notes: tuple[str, ...] = ()
    plan: str = ""  #: how it is held and run, as `str(Placement)`


@dataclass(frozen=True, slots=True)
class PlanChanged:
    """Memory ran out, and the same request goes on under another plan, from where it stood."""

    rung: int  #: 1 for the first change
    stage: str  #: in which memory ran out: text, picture, condition, denoise, decode
    step: int  #: denoise steps done, which are not done again
    before: str  #: plans, as `str(Placement)`
    after: str
    same_bits: bool  #: whether the new plan computes what the old one did, to the bit
    reason: str  #: what the allocator said

    def __str__(self) -> str:
        change = "the same result" if self.same_bits else "a slightly other result"
        return f"out of memory ({self.stage}, step {self.step}): {self.before} → {self.after}, {change}"


@dataclass(frozen=True, slots=True)
class StepsChosen:
    """How steps are computed from here on. Comes before the first one, and again where compiling has failed."""

    compute: str  #: exact, fast, turbo
    attention: str  #: the kernel that was the fastest here
    blocks: str  #: "Diffusers", "compiled", or "not compiled"
    notes: tuple[str, ...] = ()  #: why it is not what was planned

    def __str__(self) -> str:
        return "; ".join((f"{self.compute}: attention by {self.attention}, blocks {self.blocks}", *self.notes))


@dataclass(frozen=True, slots=True)
class LorasApplied:
    """The request's LoRAs are on the model."""

    applied: tuple[LoraApplied, ...]  #: one for each LoRA and expert


@dataclass(frozen=True, slots=True)
class Encoded:
    """Prompt and picture are conditioning now."""

    seconds: float
    notes: tuple[str, ...] = ()  #: "the prompt was cut at 512 tokens"


@dataclass(frozen=True, slots=True)
class Resumed:
    """An earlier attempt's checkpoint was found, and this one goes on from it."""

    step: int  #: steps done already; all of them when only decode and export are left
    notes: tuple[str, ...] = ()  #: "resumed_inexact: …", and checkpoints that were refused


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint is on disk."""

    step: int  #: steps done in it


@dataclass(frozen=True, slots=True)
class StepCompleted:
    step: int  #: steps done, 1-based
    total_steps: int
    seconds: float  #: of this step
    eta_seconds: float  #: until the last step is done, from the speed so far
    expert: str = ""  #: "high" or "low" for two-expert models


#: Parts of a model in the order in which a run needs them, after the encoders. "denoise": a transformer without another.
Part = Literal["high", "denoise", "low", "decode"]
PARTS: tuple[Part, ...] = ("high", "denoise", "low", "decode")


@dataclass(frozen=True, slots=True)
class Turn:
    """The run needs another part of the model on the device now, and holds nothing there while this is being looked at.

    Whoever has several runs may let the others go first, so that a part comes in once for all of them (worker/batch.py).
    """

    part: Part
    share: float | None = None  #: of the run's predicted time that bringing parts in takes; None where it is unknown


@dataclass(frozen=True, slots=True)
class KeyframeStep:
    """The picture that a video begins with is being edited. Comes before all that the video's own model says."""

    step: int  #: steps done; 0 while its model is made ready
    total_steps: int
    eta_seconds: float
    model: str = ""  #: where it has just been made ready
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyframeDrawn:
    """It is there, and the video begins."""

    width: int
    height: int
    seconds: float
    kept: bool = False  #: an earlier attempt drew it


@dataclass(frozen=True, slots=True)
class Preview:
    """A small animated picture of what the video is becoming."""

    step: int
    data: bytes
    media_type: str = "image/webp"
    seconds: float = 0.0  #: that it held up the steps; what was done beside them is not among it


@dataclass(frozen=True, slots=True)
class Denoised:
    """The latents are done, and these are the facts of how, for the manifest."""

    latents_sha256: str  #: of their bytes as fp32
    sigmas: tuple[float, ...]  #: the noise levels denoised through, the last one 0
    environment: Mapping[str, str]  #: what equal bits depend on beside request and weights, by name
    foretold: int = 0  #: steps that turbo left out


@dataclass(frozen=True, slots=True)
class Decoded:
    frames: int  #: decoded so far
    total_frames: int


@dataclass(frozen=True, slots=True)
class Exported:
    video: Video | Drawing
    seconds: float  #: decode and export together
    decode_seconds: float = 0.0  #: of these, until the frames were there
    notes: tuple[str, ...] = ()  #: what the user should know of how they were decoded


@dataclass(frozen=True, slots=True)
class Completed:
    video: Video
    seconds: float  #: since the request began


@dataclass(frozen=True, slots=True)
class Drawn:
    """The end of a request for pictures."""

    drawing: Drawing
    seconds: float  #: since the request began


Event = (
    Downloading
    | ModelLoaded
    | PlanChanged
    | LorasApplied
    | StepsChosen
    | Encoded
    | Resumed
    | Saved
    | StepCompleted
    | Turn
    | KeyframeStep
    | KeyframeDrawn
    | Preview
    | Denoised
    | Decoded
    | Exported
    | Completed
    | Drawn
)
