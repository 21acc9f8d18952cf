"""Plans of memory for the picture stage: where the parts of a model wait, and how large the VAE's windows are.

Pure arithmetic. The numbers are counted from the modules at real shapes (a test compares); what kernels take beside
their tensors is allowed for by `FRAGMENTS` and `RESERVE` as for videos.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wanreel.core.machines import Machine
from wanreel.core.memory_plan import MemoryPlan, Stage, StageMemory, gib
from wanreel.core.picture_models import PictureSpec
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.placement import Placement, Tile
from wanreel.core.wishes import Wishes

HALF, FULL = 2, 4  #: bytes of a number
CLIP_L, CLIP_G, VAE = 123_060_480, 694_659_840, 83_653_863  #: parameters
#: fp32 numbers alive for each pixel of the picture, or of a window, at the VAE's highest point.
DECODE_FLOATS, ENCODE_FLOATS = 769, 643
TEXT_ACTIVATIONS = 64 * 2**20
WINDOWS = (512, 256)  #: px
_OVERLAP = 4  #: the VAE's windows share a quarter of their side, as Diffusers has it


@dataclass(frozen=True, slots=True)
class PictureLoad:
    """What one request asks of a machine."""

    spec: PictureSpec
    width: int
    height: int
    from_picture: bool

    @classmethod
    def of(cls, spec: PictureSpec, request: ResolvedPicture) -> PictureLoad:
        return cls(spec, request.width, request.height, request.image is not None)

    @property
    def size(self) -> str:
        """ "1024x1024": what plans that failed are remembered by."""
        return f"{self.width}x{self.height}"

    @property
    def weights(self) -> Mapping[str, int]:
        """Bytes of each part on a GPU."""
        first = {"text_encoder": CLIP_L * HALF} if self.spec.text_encoders == 2 else {}
        others = {"text_encoder_2": CLIP_G * HALF, "vae": VAE * FULL, "unet": self.spec.unet_parameters * HALF}
        return {**first, **others}

    def price(self, placement: Placement) -> MemoryPlan:
        """What a placement takes."""
        weights, everything = self.weights, sum(self.weights.values())
        stays = placement.keeps_everything

        def stage(name: Stage, part: str, activations: int) -> StageMemory:
            return StageMemory(name, everything if stays else weights[part], activations)

        latents = (self.width // self.spec.spatial_stride) * (self.height // self.spec.spatial_stride)
        window = self.width * self.height
        if placement.tile is not None:
            window = min(self.width, placement.tile.width) * min(self.height, placement.tile.height)
        stages = [stage("text", "text_encoder_2", TEXT_ACTIVATIONS)]
        if self.from_picture:
            stages.append(stage("condition", "vae", ENCODE_FLOATS * FULL * window))
        stages.append(stage("denoise", "unet", self.spec.unet_bytes * latents))
        stages.append(stage("decode", "vae", DECODE_FLOATS * FULL * window))
        return MemoryPlan(placement, tuple(stages), host_bytes=0 if stays else everything)


def picture_plans(
    load: PictureLoad, machine: Machine, wishes: Wishes, refused: frozenset[str] = frozenset()
) -> tuple[MemoryPlan, ...]:
    """The plan and those to try after it, the fastest that fits first; where none fits, the smallest alone."""
    if not machine.computes_on_gpu or not load.spec.unet_parameters:
        return tuple(_unpriced(load, machine, refused))
    plans = [load.price(placement) for placement in _placements(load, wishes)]
    fitting = [
        plan
        for plan in plans
        if str(plan.placement) not in refused and max(it.needed for it in plan.stages) <= machine.gpu_free
    ]
    return tuple(fitting) or (_too_large(plans[-1], machine),)


def _placements(load: PictureLoad, wishes: Wishes) -> Iterator[Placement]:
    """Fastest first. Windows change the last bits, so that weights leave the GPU before the VAE gets any."""
    kept = [Placement(), Placement(plan="exclusive")]
    wanted = [it for it in kept if wishes.offload in ("auto", it.plan)] or kept[1:]
    if wishes.mode == "smallest":
        wanted = wanted[-1:]
    tiles: list[Tile | None] = [None, *(_window(side) for side in WINDOWS if side < max(load.width, load.height))]
    if wishes.tile is not None:
        tiles = [_window(wishes.tile) if wishes.tile else None]
    for tile in tiles:
        for placement in wanted:
            yield Placement(plan=placement.plan, tile=tile)


def _window(side: int) -> Tile:
    return Tile(side, side, side // _OVERLAP)


def _unpriced(load: PictureLoad, machine: Machine, refused: frozenset[str]) -> Iterator[MemoryPlan]:
    """On a CPU, and for models that are small: everything stays, and the VAE gets windows should memory run out."""
    reason = f"{load.spec.name} is small" if machine.computes_on_gpu else "It computes on the CPU"
    plans = [
        MemoryPlan(Placement(tile=tile), reasons=(f"{reason}: all of the model stays in memory.",))
        for tile in (None, *map(_window, WINDOWS))
    ]
    yield from [plan for plan in plans if str(plan.placement) not in refused] or plans[-1:]


def _too_large(plan: MemoryPlan, machine: Machine) -> MemoryPlan:
    worst = max(plan.stages, key=lambda it: it.needed)
    reason = f"It does not fit: {gib(worst.needed)} to {worst.stage}, and {gib(machine.gpu_free)} may be used."
    return MemoryPlan(plan.placement, plan.stages, plan.host_bytes, fits=False, reasons=(reason,))
