"""Plans of memory for edits by instruction: what the parts of Qwen-Image-Edit take. Pure arithmetic.

Counted from the modules at real shapes on a device that holds no memory (a test compares).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from wanreel.core.edit_models import EditSpec
from wanreel.core.memory_plan import MemoryPlan, Stage, StageMemory
from wanreel.core.picture_memory import HALF, PictureLoad
from wanreel.core.picture_models import PictureSpec
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.placement import Placement

READER, VAE = 8_292_166_656, 126_892_531  #: parameters: of Qwen2.5-VL, of the VAE
#: Bytes alive at the transformer's highest point for each token of the result, of the picture given, of the instruction.
TOKEN_BYTES = 93_312
#: Bytes alive for each pixel, or of a window, at the VAE's highest point.
DECODE_BYTES, ENCODE_BYTES = 3_460, 1_935
READ_BYTES = 2**30  #: allowed for while the instruction is read
INSTRUCTION = 1024  #: tokens at most that are counted on


@dataclass(frozen=True, slots=True)
class EditLoad(PictureLoad):
    """What one edit asks of a machine."""

    @property
    def weights(self) -> Mapping[str, int]:
        parts = {"text_encoder": READER, "vae": VAE, "transformer": self.spec.unet_parameters}
        return {name: count * HALF for name, count in parts.items()}

    def price(self, placement: Placement) -> MemoryPlan:
        """What a placement takes."""
        spec = cast("EditSpec", self.spec)
        weights, everything = self.weights, sum(self.weights.values())
        stays = placement.keeps_everything

        def stage(name: Stage, part: str, activations: int) -> StageMemory:
            return StageMemory(name, everything if stays else weights[part], activations)

        given, made = spec.reference_side**2, self.width * self.height
        tokens = (given + made) // (2 * spec.spatial_stride) ** 2 + INSTRUCTION
        tile = placement.tile

        def window(pixels: int) -> int:
            return pixels if tile is None else min(pixels, tile.width * tile.height)

        stages = (
            stage("text", "text_encoder", READ_BYTES),
            stage("condition", "vae", ENCODE_BYTES * window(given)),
            stage("denoise", "transformer", TOKEN_BYTES * tokens),
            stage("decode", "vae", DECODE_BYTES * window(made)),
        )
        return MemoryPlan(placement, stages, host_bytes=0 if stays else everything)


def load_of(spec: PictureSpec, request: ResolvedPicture) -> PictureLoad:
    """What a request asks of a machine, whatever it does with pictures."""
    kind = EditLoad if isinstance(spec, EditSpec) else PictureLoad
    return kind.of(spec, request)


def usual_load(spec: PictureSpec) -> PictureLoad:
    """That of a request which asks for nothing in particular."""
    edits = isinstance(spec, EditSpec)
    return (EditLoad if edits else PictureLoad)(spec, spec.width, spec.height, from_picture=edits)
