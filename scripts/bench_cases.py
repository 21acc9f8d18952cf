"""Cases: what bench_memory.py measures, and memory_table.py compares with what the planner predicts. Needs no GPU."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.machines import GIB, Machine, machine_of
from wanreel.core.memory import plan_memory
from wanreel.core.parallel import Parallel
from wanreel.core.placement import Placement, Tile
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.wishes import Wishes
from wanreel.core.workload import Workload


@dataclass(frozen=True)
class Case:
    """One combination."""

    model: str
    width: int
    height: int
    frames: int
    placement: Placement = field(default_factory=Placement)
    cap: float | None = None  #: GiB that the process may hold
    mode: str = ""  #: of the request; the model's first by default
    whole: bool = False  #: decode every frame, and time the second forward too
    stages: tuple[str, ...] = ("encode", "denoise", "decode")


def request_of(spec: ModelSpec, case: Case) -> ResolvedRequest:
    """The row's recipe at the case's size."""
    return ResolvedRequest(
        prompt="A cat walks on the grass, realistic style.",
        negative_prompt="blurry",
        model=spec.name,
        mode=case.mode or spec.modes[0],  # type: ignore[arg-type]
        image=None,
        last_image=None,
        width=case.width,
        height=case.height,
        export_width=case.width,
        export_height=case.height,
        num_frames=case.frames,
        fps=spec.fps,
        num_inference_steps=2,
        guidance_high=spec.guidance_high,
        guidance_low=spec.guidance_low,
        flow_shift=5.0,
        solver=spec.solver,
        seed=0,
        loras=(),
        output_format="mp4",
        quality="high",
        metadata=False,
    )


LEAN: dict[str, Any] = {"rows": 8192}
CHUNKED: dict[str, Any] = {"rows": 8192, "feed_forward_rows": 16384}
HOST: dict[str, Any] = {"plan": "streamed", "pinned": True, "text_streamed": True}


def cases(name: str) -> list[Case]:
    """What is measured under that name."""
    return {"calibrate": _calibrate, "matrix": _matrix, "tiny": _tiny}[name]()


def _matrix() -> list[Case]:
    """The planner's own plans for many models, sizes, lengths and cards, to compare with what they take."""
    small, large = [(832, 480, 49), (832, 480, 81), (832, 480, 161), (1280, 720, 81)], [(1280, 720, 81)]
    picture = [(1280, 704, 121), (832, 480, 81)]
    rows: list[tuple[str, list[tuple[int, int, int]], list[float | None], dict[str, Any]]] = [
        ("ti2v-5b", [(1280, 704, 121)], [None, 7], {"whole": True}),
        ("ti2v-5b", [(1280, 704, 121)], [47, 23, 15, 11], {}),
        ("ti2v-5b", picture, [31, 7], {"mode": "picture"}),
        ("i2v-a14b", large, [None, 79], {}),
        ("i2v-a14b", [(832, 480, 81)], [79], {}),
        ("i2v-a14b", large, [15, 7], {"precision": "fp8", "host": 32}),
        ("i2v-a14b", large, [31, 15], {}),
        ("i2v-a14b", [(832, 480, 81)], [15], {}),
        ("i2v-a14b", [(1920, 1072, 81)], [15], {}),
        ("t2v-1.3b", small, [None, 23, 15, 11, 7], {}),
        ("i2v-14b-480p", [(832, 480, 81)], [None, 47, 23, 15, 11, 7], {}),
        ("i2v-14b-480p", [(832, 480, 49)], [23, 7], {}),
        ("i2v-14b-480p", [(832, 480, 81)], [31], {"precision": "fp8"}),
        ("i2v-14b-480p", [(832, 480, 81)], [23], {"precision": "int8"}),
        ("i2v-14b-480p", [(832, 480, 81)], [19], {"precision": "int4"}),
    ]
    made = [_planned(model, *size, cap, **more) for model, sizes, caps, more in rows for size in sizes for cap in caps]
    order = list(dict.fromkeys((case.model, case.placement.loading) for case in made))
    return sorted(made, key=lambda case: order.index((case.model, case.placement.loading)))


def _planned(model: str, width: int, height: int, frames: int, cap: float | None, **more: Any) -> Case:
    """What the planner does with a request under `cap` GiB."""
    spec = Catalog().get(model)
    case = Case(model, width, height, frames, cap=cap, mode=more.get("mode", ""), whole=more.get("whole", False))
    wishes = Wishes(precision=more.get("precision", "auto"))
    plan = plan_memory(Workload.of(spec, request_of(spec, case)), h200(cap, more.get("host", 110)), wishes)
    return replace(case, placement=plan.placement)


def h200(cap: float | None, host_gib: float = 110) -> Machine:
    """The machine that the figures were measured on."""
    free = int((cap or 138) * GIB)
    return machine_of("NVIDIA H200", 141 * GIB, free, (9, 0), host_free=int(host_gib * GIB))


def _calibrate() -> list[Case]:
    """Peaks of every stage, plain and in portions, then A14B whole: resident, and streamed under caps."""
    sized = {"480": (832, 480), "720": (1280, 720), "704": (1280, 704)}
    made: list[Case] = []

    def add(model: str, size: str, frames: int, *placements: dict[str, Any], **more: Any) -> None:
        made.extend(Case(model, *sized[size], frames, Placement(**given), **more) for given in placements)

    tile = {"tile": Tile(704, 480), **LEAN}
    small = {"tile": Tile(480, 416), **LEAN}
    add("t2v-1.3b", "480", 81, {}, LEAN, CHUNKED)
    add("t2v-1.3b", "720", 81, {}, LEAN)
    add("t2v-1.3b", "480", 161, {}, stages=("denoise",))
    add("ti2v-5b", "704", 121, {}, LEAN, CHUNKED, tile, small)
    add("ti2v-5b", "704", 121, {}, LEAN, mode="picture", stages=("denoise",))
    add("ti2v-5b", "480", 49, {}, LEAN, mode="picture")
    add("i2v-14b-480p", "480", 81, {}, LEAN)
    add("i2v-a14b", "480", 81, {}, whole=True)
    add("i2v-a14b", "480", 81, LEAN, whole=True, stages=("denoise",))
    add("i2v-a14b", "720", 81, {})
    add("i2v-a14b", "720", 81, LEAN, stages=("denoise",), whole=True)
    add("i2v-a14b", "720", 81, tile, small, stages=("encode", "decode"))
    add("i2v-a14b", "480", 81, HOST | LEAN | {"tile": Tile(480, 480)}, cap=7.0, whole=True)
    add("i2v-a14b", "720", 81, HOST | LEAN | {"tile": Tile(704, 480)}, cap=11.0)
    add("i2v-a14b", "720", 81, HOST | LEAN | {"tile": Tile(480, 480)}, cap=7.0, whole=True)
    return made


def _tiny() -> list[Case]:
    """For trying this script without a GPU."""
    plans: list[dict[str, Any]] = [
        {},
        LEAN | {"rows": 5},
        HOST | {"rows": 5, "feed_forward_rows": 7, "tile": Tile(64, 64, 16)},
    ]
    models = ("tiny:i2v-a14b", "tiny:ti2v-5b", "tiny:flf2v-14b-720p")
    return [Case(model, 128, 128, 9, Placement(**plan), whole=True) for model in models for plan in plans]


def read_cases(path: Path) -> list[Case]:
    """Cases written by `json.dumps(asdict(case))`."""
    made: list[Case] = []
    for given in json.loads(path.read_text()):
        placement = placement_of(given.pop("placement"))
        stages = tuple(given.pop("stages", Case.stages))
        made.append(Case(placement=placement, stages=stages, **given))
    return made


def placement_of(values: Mapping[str, Any]) -> Placement:
    """The inverse of `asdict`."""
    tile, parallel = values.get("tile"), values.get("parallel") or {}
    fields: dict[str, Any] = {**values, "tile": Tile(**tile) if tile else None, "parallel": Parallel(**parallel)}
    return Placement(**fields)
