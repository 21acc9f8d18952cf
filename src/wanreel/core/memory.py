"""plan_memory: the fastest way to run a request in the memory there is, and what it will take. Pure arithmetic.

Knows neither torch nor how to ask a machine for its memory. Every combination of placement, precision, rows and tiles is
priced; those that do not fit are put aside with the stage that forbids them; the first of the rest in the order of the
memory mode is the plan. Without leave to quantise, no plan computes with other weights than the model's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from wanreel.core.components import (
    IMAGE_ENCODER,
    TEXT_BLOCK,
    TEXT_ENCODER,
    TEXT_LAYERS,
    TRANSFORMERS,
    VAES,
    known,
    transformer_block,
    transformer_ends,
)
from wanreel.core.compute import EXACT_END, FP8_SINCE, TURBO_SHARE, Compute, effective, pays_back, rates_of
from wanreel.core.machines import Machine
from wanreel.core.memory_plan import STAGES, Learned, MemoryPlan, Stage, StageMemory, gib
from wanreel.core.placement import PLANS, Placement, Precision, Tile
from wanreel.core.wishes import Wishes
from wanreel.core.workload import IMAGE_ACTIVATIONS, TEXT_ACTIVATIONS, Workload

#: What "balanced" leaves of the memory to other programs.
BALANCED_SHARE = 0.6
ROWS, FEED_FORWARD_ROWS = 8192, 16384
SMALL_ROWS = 256  #: where memory is that of a CPU, or the model small
OVERLAP = 128  #: px that tiles share
MAX_RUNGS = 4
#: Elementwise passes by rows are launched more often; measured: docs/benchmarks.md.
ROWS_COST = 1.015
#: Copies slow computing down a little; measured likewise.
STREAM_COST = 1.01
#: Bytes of one weight of a matrix, its scales included. fp8 and int8 have a scale a row, int4 two for 64 weights.
ITEMSIZE: Mapping[Precision, float] = {"native": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + 8 / 64}


def plan_memory(
    work: Workload, machine: Machine, wishes: Wishes | None = None, learned: Learned | None = None
) -> MemoryPlan:
    """The plan for `work`. Where nothing fits, the smallest plan there is, with `fits` False."""
    return ladder(work, machine, wishes, learned)[0]


def ladder(
    work: Workload, machine: Machine, wishes: Wishes | None = None, learned: Learned | None = None
) -> tuple[MemoryPlan, ...]:
    """The plan, and the further ones in the order in which they are tried should memory run out."""
    wishes, learned = wishes or Wishes(), learned or Learned()
    if not machine.computes_on_gpu or not known(work.spec):
        return tuple(_unpriced(work, machine, wishes, learned))
    pricing = _Pricing(work, machine, learned)
    priced = [pricing.plan(placement) for placement in _candidates(work, machine, wishes)]
    allowed = [plan for plan in priced if str(plan.placement) not in learned.refused] or priced
    share = BALANCED_SHARE * machine.gpu_free
    fitting = sorted((plan for plan in allowed if plan.fits), key=lambda plan: order(plan, work, wishes, share))
    if not fitting:
        smallest = min(allowed, key=lambda plan: (plan.gpu_bytes, plan.host_bytes))
        return (replace(smallest, reasons=tuple(_shortfall(smallest, work, machine, wishes))),)
    chosen = replace(fitting[0], reasons=tuple(_reasons(fitting[0], priced, work, machine, learned)))
    return (chosen, *fitting[1:])


def price(work: Workload, machine: Machine, placement: Placement) -> MemoryPlan:
    """What `placement` takes by the formulas, uncorrected. `work` must be of a model whose size is known."""
    return _Pricing(work, machine, Learned()).plan(placement)


def eight(placement: Placement, machine: Machine) -> bool:
    """Whether matrices and attention compute in fp8."""
    return placement.precision == "fp8" and placement.compute != "exact" and machine.capability >= FP8_SINCE


def keeps_keys(placement: Placement, machine: Machine) -> bool:
    """Whether the step's own path computes, and keeps what is the same in every step (models/step/path.py)."""
    if placement.streamed or placement.rows or machine.capability == (0, 0):
        return False
    return placement.compiled or (placement.compute != "exact" and machine.capability >= FP8_SINCE)


def worth_compiling(work: Workload, machine: Machine, wishes: Wishes) -> bool:
    """Whether compiling the blocks pays back over the steps of `work`."""
    fp8 = effective(work.compute, machine.capability) != "exact" and machine.capability >= FP8_SINCE
    before, after = (work.forward_seconds(machine, rates_of(eight=fp8, compiled=it)) for it in (False, True))
    return pays_back(wishes.compile, saved=work.steps * work.passes * (before - after))


def next_rung(plans: tuple[MemoryPlan, ...], current: MemoryPlan, stage: Stage) -> MemoryPlan | None:
    """The plan after `current` that takes at least a tenth less in `stage`, where memory ran out."""
    before = current.stage(stage)
    names = [str(plan.placement) for plan in plans]
    start = names.index(str(current.placement)) + 1 if str(current.placement) in names else 0
    for plan in plans[start:]:
        after = plan.stage(stage)
        if before is None or after is None or after.needed <= 0.9 * before.needed:
            return plan
    return None


@dataclass(frozen=True, slots=True)
class _Pricing:
    """What placements of one request on one machine take."""

    work: Workload
    machine: Machine
    learned: Learned

    def plan(self, placement: Placement) -> MemoryPlan:
        work, machine = self.work, self.machine
        weights = _Weights(work, placement)
        stages = tuple(self._stages(weights, placement))
        host = weights.at_home + work.canvas(placement.tile)
        pinned = min(weights.experts, machine.pinnable) if placement.streamed else 0
        missing = max(0, host - machine.host_free)
        # Weights in their files' own dtype stay mapped: what does not fit is read again. Others have no file. The
        # encoders' are the first to go, as they are read once a request.
        encoders = min(missing, weights.encoders_at_home)
        from_disk = missing - encoders if placement.precision == "native" else 0
        fits = all(stage.needed <= machine.gpu_free for stage in stages) and missing == encoders + from_disk
        share = pinned / weights.experts if weights.experts else 0.0
        copying = (
            weights.experts / work.spec.experts * (share / machine.pinned_rate + (1 - share) / machine.pageable_rate)
        )
        rates = rates_of(eight=eight(placement, machine), compiled=placement.compiled)
        computing = work.forward_seconds(machine, rates) * self.learned.step * (ROWS_COST if placement.rows else 1.0)
        forward = max(STREAM_COST * computing, copying) if placement.streamed else computing
        overhead = _overhead(work, placement.tile)
        return MemoryPlan(
            placement=placement,
            stages=stages,
            host_bytes=host - encoders - from_disk,
            pinned_bytes=pinned,
            disk_bytes=from_disk,
            load_seconds=weights.total / machine.disk_rate,
            encode_seconds=work.encode_seconds(machine, overhead)
            + weights.visits_before / machine.pageable_rate
            + encoders / machine.disk_rate
            + 0.1,
            step_seconds=work.passes
            * (forward + from_disk / work.spec.experts / machine.disk_rate)
            * (TURBO_SHARE if placement.compute == "turbo" else 1.0),
            decode_seconds=work.decode_seconds(machine, overhead) + weights.visits_after / machine.pageable_rate,
            visit_seconds=(weights.visits_before + weights.visits_after) / machine.pageable_rate
            + encoders / machine.disk_rate,
            fits=fits,
        )

    def _stages(self, weights: _Weights, placement: Placement) -> Iterator[StageMemory]:
        work, stays = self.work, weights.staying
        yield StageMemory("text", stays + weights.text_on_gpu, TEXT_ACTIVATIONS)
        if work.spec.clip and work.pictures:
            clip = 0 if placement.keeps_everything else weights.image
            yield StageMemory("picture", stays + clip, IMAGE_ACTIVATIONS)
        vae = 0 if placement.keeps_experts else weights.vae
        if work.pictures:
            yield self._stage("condition", stays + vae, work.encode_activations(placement.tile))
        forward = work.forward_activations(
            placement.rows, placement.feed_forward_rows, fp8=placement.precision == "fp8"
        )
        if keeps_keys(placement, self.machine):
            forward += work.kept_keys
        yield self._stage("denoise", stays + weights.expert_on_gpu, forward)
        yield self._stage("decode", stays + vae, work.decode_activations(placement.tile))

    def _stage(self, stage: Stage, weights: int, activations: int) -> StageMemory:
        return StageMemory(stage, weights, int(activations * self.learned.activations.get(stage, 1.0)))


class _Weights:
    """Bytes of each part under a placement."""

    def __init__(self, work: Workload, placement: Placement) -> None:
        spec, plan = work.spec, placement.plan
        plain = transformer_block(spec).nbytes(2, 2) + work.lora_block
        block = transformer_block(spec).nbytes(ITEMSIZE[placement.precision], 2) + work.lora_block
        ends = transformer_ends(spec).nbytes(2)
        layers = TRANSFORMERS[spec.parameters].layers
        expert = ends + layers * block + (EXACT_END * (plain - block) if placement.exact_end else 0)
        self.text = TEXT_ENCODER.nbytes(2)
        self.image = IMAGE_ENCODER.nbytes(4) if spec.clip else 0
        self.vae = VAES[spec.latent_channels].nbytes(4)
        self.experts = expert * spec.experts
        self.total = self.text + self.image + self.vae + self.experts
        #: On the GPU through every stage.
        self.staying = {"resident": self.total, "encoders": self.experts + self.vae}.get(plan, 0)
        streamed_text = self.text - (TEXT_LAYERS - 2) * TEXT_BLOCK.nbytes(2)
        self.text_on_gpu = 0 if plan == "resident" else (streamed_text if placement.text_streamed else self.text)
        self.expert_on_gpu = {"exclusive": expert, "streamed": ends + 2 * block}.get(plan, 0)
        #: In host memory between their turns.
        self.at_home = self.total - self.staying
        self.encoders_at_home = 0 if plan == "resident" else self.text + self.image
        encoders = 0 if plan == "resident" else work.passes * self.text if placement.text_streamed else self.text
        picture = self.image + self.vae if plan in ("exclusive", "streamed") and work.pictures else 0
        #: Copied to the GPU before the first step, and after the last one.
        self.visits_before = encoders + picture + (self.experts if plan == "exclusive" else 0)
        self.visits_after = self.vae if plan in ("exclusive", "streamed") else 0


def _candidates(work: Workload, machine: Machine, wishes: Wishes) -> Iterator[Placement]:
    """Every placement the wishes allow."""
    pin = machine.pinnable // work.spec.experts
    compute, compiles = effective(work.compute, machine.capability), worth_compiling(work, machine, wishes)
    plans = PLANS if wishes.offload == "auto" else (wishes.offload,)
    rows = ((0, 0), (ROWS, 0), (ROWS, FEED_FORWARD_ROWS))
    choices = itertools.product(
        _precisions(machine, wishes, compute), plans, (False, True), rows, tuple(_tiles(work, wishes))
    )
    for precision, plan, text_streamed, (elementwise, feed_forward), tile in choices:
        if plan == "resident" and text_streamed:
            continue
        yield Placement(
            plan,
            pinned=plan == "streamed" and pin > 0,
            pin_limit=pin if plan == "streamed" else None,
            precision=precision,
            text_streamed=text_streamed,
            rows=elementwise,
            feed_forward_rows=feed_forward,
            tile=tile,
            compute=compute,
            compiled=compiles and not elementwise,
        )


def _precisions(machine: Machine, wishes: Wishes, compute: Compute) -> Iterable[Precision]:
    """A GPU without bf16 computes in fp16; one that multiplies fp8 does so where computing need not be exact."""
    if wishes.precision == "auto" and compute != "exact" and machine.capability >= FP8_SINCE:
        return ("fp8",)
    if wishes.precision != "auto":
        return (wishes.precision,)
    first: Precision = "native" if machine.bf16 else "fp16"
    lower: tuple[Precision, ...] = ("fp8", "int8", "int4")
    return (first, *lower) if wishes.quantize and wishes.mode != "custom" else (first,)


def _tiles(work: Workload, wishes: Wishes) -> Iterator[Tile | None]:
    """Whole frames, then grids of more and more windows."""
    if wishes.tile:
        yield _square(wishes.tile)
        return
    yield None
    if wishes.tile == 0 or wishes.mode == "custom":
        return
    seen: set[tuple[int, int]] = set()
    for rows, columns in ((1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 5), (5, 6), (6, 8)):
        if work.width < work.height:
            rows, columns = columns, rows
        size = (_window(work.height, rows, work), _window(work.width, columns, work))
        if size not in seen and min(size) >= 2 * OVERLAP:
            seen.add(size)
            yield Tile(*size, OVERLAP)


def _window(length: int, count: int, work: Workload) -> int:
    """Pixels of each of `count` windows that share OVERLAP and cover `length`."""
    unit = work.spec.spatial_stride
    total, overlap = length // unit, OVERLAP // unit
    return unit * -(-(total + (count - 1) * overlap) // count)


def _overhead(work: Workload, tile: Tile | None) -> float:
    """Pixels worked on over pixels shown."""
    if tile is None:
        return 1.0
    unit, area = work.spec.spatial_stride, 1
    for length, size in ((work.height, tile.height), (work.width, tile.width)):
        area *= tile.count(length, size, unit) * tile.window(length, size, unit)
    return max(1.0, area / (work.height * work.width))


def order(plan: MemoryPlan, work: Workload, wishes: Wishes, share: float) -> tuple[float, ...]:
    """Smaller goes first. `share`: bytes of GPU memory that "balanced" takes if it can."""
    seconds, placement = plan.seconds(work.steps), plan.placement
    portions = bool(placement.rows) + bool(placement.feed_forward_rows) + placement.text_streamed
    if wishes.mode == "fastest":
        return (round(seconds, 1), placement.arithmetic, portions)
    if wishes.mode == "smallest":
        return (placement.precision != "native" and not wishes.quantize, plan.gpu_bytes, seconds)
    if wishes.mode == "balanced":
        return (placement.arithmetic > 2, plan.gpu_bytes > share, placement.arithmetic, round(seconds, 1), portions)
    return (placement.arithmetic, round(seconds, 1), portions, plan.gpu_bytes)


def _reasons(
    chosen: MemoryPlan, priced: list[MemoryPlan], work: Workload, machine: Machine, learned: Learned
) -> Iterator[str]:
    yield f"{work}: {work.tokens:,} tokens; {gib(machine.gpu_free)} may be used of {machine.gpu}."
    place = PLANS.index(chosen.placement.plan)
    for plan in PLANS[:place]:
        tried = [
            it for it in priced if it.placement.plan == plan and it.placement.precision == chosen.placement.precision
        ]
        if tried:
            yield _too_much(min(tried, key=_worst), machine)
    if chosen.placement.tile is not None:
        whole = work.decode_activations(None)
        yield f"Decoding whole frames takes {gib(whole)} beside the weights; tiles of {chosen.placement.tile} take less."
    if chosen.placement.rows:
        yield f"Blocks work on {chosen.placement.rows} tokens at a time, to the same bits."
    yield from _of_computing(chosen.placement, work, machine)
    if chosen.placement.precision not in ("native", "fp16"):
        yield f"Weights are stored as {chosen.placement.precision}, which changes the numbers."
    if chosen.disk_bytes:
        yield (
            f"Host memory lacks {gib(chosen.disk_bytes)}, which are read from disk again and again. "
            "The setting `precision` = fp8, int8 or int4 makes the weights smaller."
        )
    for name in sorted(learned.refused):
        yield f"Ran out of memory before at this size, so not taken: {name}."


def _of_computing(placement: Placement, work: Workload, machine: Machine) -> Iterator[str]:
    if work.compute != placement.compute or (work.compute == "turbo" and machine.capability < FP8_SINCE):
        yield f"{machine.gpu} does not multiply fp8, so matrices and attention stay exact."
    elif placement.compute != "exact":
        yield f"{placement.compute}: matrices and attention compute in fp8, which changes the numbers (docs/speed.md)."
    if placement.compute == "turbo":
        yield "turbo: steps whose result the steps before foretell are left out; how many depends on the video."
    if placement.compiled:
        yield "Blocks are compiled: that pays back over all steps, and the first run here takes longer."


def _too_much(plan: MemoryPlan, machine: Machine) -> str:
    worst = max(plan.stages, key=lambda stage: stage.needed)
    if worst.needed <= machine.gpu_free:
        return f"{plan.placement.plan} would fit, but not in host memory or not as fast."
    return f"{plan.placement.plan} needs {gib(worst.needed)} to {STAGES[worst.stage]}."


def _worst(plan: MemoryPlan) -> int:
    return max(stage.needed for stage in plan.stages)


def _shortfall(plan: MemoryPlan, work: Workload, machine: Machine, wishes: Wishes) -> Iterator[str]:
    yield f"{work} does not fit: {gib(machine.gpu_free)} may be used of {machine.gpu}."
    yield _too_much(plan, machine)
    if plan.host_bytes > machine.host_free:
        yield f"Host memory: {gib(plan.host_bytes)} needed, {gib(machine.host_free)} free."
    if not wishes.quantize and wishes.precision == "auto":
        yield "The setting `quantize` would let weights be stored in fewer bits."


def _unpriced(work: Workload, machine: Machine, wishes: Wishes, learned: Learned) -> Iterator[MemoryPlan]:
    """On a CPU, and for models whose size is in no table, which are small: everything stays, and less at a time of what
    is worked on should memory run out."""
    where = f"{work.spec.name} is small" if machine.computes_on_gpu else "It computes on the CPU"
    reasons = (f"{where}: all of the model stays in memory.",)
    if wishes.precision not in ("auto", "native") or wishes.offload not in ("auto", "resident"):
        reasons += ("Precision and offload are of large models on a GPU; here they change nothing.",)
    precision: Precision = "native" if wishes.precision == "auto" else wishes.precision
    if precision not in ("native", "fp16"):
        reasons = (*reasons, f"Weights are stored as {precision}, which changes the numbers.")
    compute: Compute = "turbo" if work.compute == "turbo" else "exact"
    if work.compute != compute:
        reasons = (*reasons, f"{work.compute} is of large models on a GPU; here it changes nothing.")
    if compute == "turbo":
        reasons = (*reasons, "turbo: steps whose result the steps before foretell are left out.")
    first = Placement(precision=precision, tile=_square(wishes.tile) if wishes.tile else None, compute=compute)
    lean = replace(first, rows=SMALL_ROWS)
    tiled = (first.tile or _square(256), _square(128)) if wishes.tile != 0 else ()
    plans = tuple(dict.fromkeys((first, lean, *(replace(lean, tile=tile) for tile in tiled))))
    skipped = {"balanced": 1, "smallest": len(plans) - 1}.get(wishes.mode, 0)
    found = [MemoryPlan(placement, reasons=reasons) for placement in plans[skipped:]]
    yield from [plan for plan in found if str(plan.placement) not in learned.refused] or found[-1:]


def _square(side: int) -> Tile:
    return Tile(side, side, min(OVERLAP, side // 2))
