"""Plans for the GPUs of a group: each placement of memory.py on every one of them, tokens, passes and weights shared out.

Pure arithmetic; knows neither torch nor processes. Ranks are alike, so the figures of one are those of all; rank 0 has the
encoders beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from wanreel.core.components import (
    TEXT_BLOCK,
    TEXT_LAYERS,
    TRANSFORMERS,
    known,
    transformer_block,
)
from wanreel.core.errors import SettingsError
from wanreel.core.machines import Machine
from wanreel.core.memory import BALANCED_SHARE, ITEMSIZE, keeps_keys, ladder, order, price
from wanreel.core.memory_plan import Learned, MemoryPlan, StageMemory, gib
from wanreel.core.parallel import Parallel
from wanreel.core.parallel_plans import parallels, step_seconds
from wanreel.core.placement import Placement
from wanreel.core.wishes import Wishes
from wanreel.core.workload import Workload

#: Parallel plans that are combined with every placement, the fastest ones.
_TRIED = 3
#: Of each further GPU, what decoding in bands gains; and what a band holds over its share. Measured: docs/benchmarks.md.
_BAND_SHARE = 0.65
_BAND_REST = 1.1
#: Of the time that gathering blocks takes, what it costs though it goes on beside computing. Measured likewise.
FSDP_COST = 0.25
_NO_LIMIT = 2**60  # bytes


def group_ladder(
    work: Workload, machine: Machine, wishes: Wishes | None = None, learned: Learned | None = None
) -> tuple[MemoryPlan, ...]:
    """As `memory.ladder`; on machines whose GPUs share a video, the plans of the group.

    Raises SettingsError where the wished parts can't make so many ranks.
    """
    wishes, learned = wishes or Wishes(), learned or Learned()
    if machine.gpus == 1:
        return ladder(work, machine, wishes, learned)
    ways = parallels(work, machine, machine.gpus, wishes.parallel)
    if not ways:
        raise SettingsError(f"parallel: no plan for {machine.gpus} GPUs is made of the parts that are named.")
    if not machine.computes_on_gpu or not known(work.spec):
        fsdp = bool(wishes.parallel.fsdp)
        alone = ladder(work, machine, wishes, learned)
        return tuple(_unpriced(plan, replace(ways[0], fsdp=fsdp)) for plan in alone)
    sharing = _Sharing(work, machine)
    alone = ladder(work, machine.with_free(_NO_LIMIT), wishes, learned)
    plans = [sharing.plan(plan, way) for plan in alone for way in _ways(ways, wishes, plan.placement)]
    allowed = [plan for plan in plans if str(plan.placement) not in learned.refused] or plans
    share = BALANCED_SHARE * machine.gpu_free
    fitting = sorted((it for it in allowed if it.fits), key=lambda it: order(it, work, wishes, share))
    if not fitting:
        smallest = min(allowed, key=lambda it: (it.gpu_bytes, it.host_bytes))
        short = f"{work} does not fit: {gib(machine.gpu_free)} may be used of each of {machine.gpus} {machine.gpu}."
        return (replace(smallest, reasons=(short,)),)
    return (replace(fitting[0], reasons=tuple(sharing.reasons(fitting[0], plans))), *fitting[1:])


def group_price(work: Workload, machine: Machine, placement: Placement) -> MemoryPlan:
    """As `memory.price`, for placements of several ranks too."""
    if placement.parallel.alone:
        return price(work, machine, placement)
    alone = price(work, machine, replace(placement, parallel=Parallel()))
    return _Sharing(work, machine).plan(alone, placement.parallel)


def _ways(ways: tuple[Parallel, ...], wishes: Wishes, placement: Placement) -> Iterator[Parallel]:
    """Each of them with weights on every GPU and, where they would all stay there, with a share of them."""
    for way in ways[:_TRIED]:
        if not wishes.parallel.fsdp:
            yield way
        if placement.keeps_everything and wishes.parallel.fsdp is not False:
            yield replace(way, fsdp=True)


def _unpriced(plan: MemoryPlan, parallel: Parallel) -> MemoryPlan:
    placement = replace(plan.placement, parallel=parallel)
    return replace(plan, placement=placement, reasons=(*plan.reasons, f"{parallel} share each video."))


@dataclass(frozen=True, slots=True)
class _Sharing:
    """What plans of one GPU take when several share the work."""

    work: Workload
    machine: Machine  #: one of the GPUs, and how many there are

    def plan(self, alone: MemoryPlan, parallel: Parallel) -> MemoryPlan:
        machine, placement = self.machine, replace(alone.placement, parallel=parallel)
        stages = tuple(self._stage(stage, placement) for stage in alone.stages)
        # Mapped files are in memory once for all ranks, copies of them are not.
        copies = parallel.ranks if placement.pinned or placement.precision not in ("native", "fp16") else 1
        host = alone.host_bytes * copies
        fits = host <= machine.host_free and all(stage.needed <= machine.gpu_free for stage in stages)
        return replace(
            alone,
            placement=placement,
            stages=stages,
            host_bytes=host,
            pinned_bytes=min(alone.pinned_bytes * copies, machine.pinnable),
            step_seconds=self._step(alone, parallel),
            decode_seconds=alone.decode_seconds / (1 + _BAND_SHARE * (parallel.ranks - 1)),
            fits=fits and alone.fits,
        )

    def reasons(self, chosen: MemoryPlan, plans: list[MemoryPlan]) -> Iterator[str]:
        parallel, machine = chosen.placement.parallel, self.machine
        yield f"{self.work}: {gib(machine.gpu_free)} may be used of each of {machine.gpus} {machine.gpu}."
        before = step_seconds(self.work, machine, Parallel())
        yield (
            f"{parallel}: a step is predicted to be {before / step_seconds(self.work, machine, parallel):.1f} times as "
            "fast as on one GPU."
        )
        whole = [it for it in plans if it.placement.keeps_everything and not it.placement.parallel.fsdp]
        if parallel.fsdp and whole:
            yield f"All weights on each GPU would take {gib(min(it.gpu_bytes for it in whole))}; each holds its share."

    def _step(self, alone: MemoryPlan, parallel: Parallel) -> float:
        """In the proportion that computing has, but no faster than blocks come together from the other GPUs."""
        faster = step_seconds(self.work, self.machine, parallel) / step_seconds(self.work, self.machine, Parallel())
        if not parallel.fsdp:
            return alone.step_seconds * faster
        gathered = self._blocks(alone.placement)["experts"] / self.work.spec.experts * (1 - 1 / parallel.ranks)
        passes = -(-self.work.passes // parallel.cfg)
        gathering = passes * gathered / self.machine.link_rate
        return max(alone.step_seconds * faster + FSDP_COST * gathering, gathering)

    def _stage(self, stage: StageMemory, placement: Placement) -> StageMemory:
        parallel, weights, activations = placement.parallel, stage.weights, stage.activations
        if stage.stage == "denoise" and parallel.sequence > 1:
            kept = self.work.kept_keys if keeps_keys(placement, self.machine) else 0
            carried = min(self.work.carried() + kept, activations)
            activations = carried + (activations - carried) // parallel.sequence
        if stage.stage == "decode":
            activations = int(activations * min(1.0, _BAND_REST / parallel.ranks))
        if parallel.fsdp:
            blocks = self._blocks(placement)
            whole = blocks["experts"] + blocks["text"]
            weights += whole // parallel.ranks - whole + 2 * blocks["block"] * self.work.spec.experts
            weights += 2 * TEXT_BLOCK.nbytes(2)
        return StageMemory(stage.stage, weights, activations)

    def _blocks(self, placement: Placement) -> Mapping[str, int]:
        """Bytes of what is shared out: the blocks of the experts and of the text encoder."""
        block = transformer_block(self.work.spec).nbytes(ITEMSIZE[placement.precision], 2) + self.work.lora_block
        layers = TRANSFORMERS[self.work.spec.parameters].layers
        return {
            "block": block,
            "experts": layers * block * self.work.spec.experts,
            "text": TEXT_LAYERS * TEXT_BLOCK.nbytes(2),
        }
