"""Measures the memory and time of every stage under given plans, with random weights of the real shapes.

Each case is a model, a size, a number of frames, a placement and a cap on the process's GPU memory; the parts of a request
run as the product runs them: the text encoder, the VAE over the picture, one forward of each expert, the decoder over the
first latent frames. One JSON record a stage; memory_table.py prints them beside the predictions.

    PYTHONPATH=src PYTORCH_ALLOC_CONF=expandable_segments:True python scripts/bench_memory.py --cases calibrate --json out.json
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import gc
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.components import CLIP_DIM, CLIP_TOKENS, known
from wanreel.core.machines import Machine, machine_of
from wanreel.core.memory import plan_memory
from wanreel.core.placement import Placement, Tile
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.wishes import Wishes
from wanreel.core.workload import Workload
from wanreel.generation.conditioning import Conditioning, latent_shape
from wanreel.generation.decode import decode
from wanreel.generation.denoise import denoise
from wanreel.generation.encode import Pictures, encode
from wanreel.models.attention import attention_facts
from wanreel.models.components import CLIP_IMAGE_PROCESSOR, full_modules
from wanreel.models.load import Dtypes, home_of, make_expert, scheme_of
from wanreel.models.quantize import StoredLinear, store_in
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel

T = TypeVar("T")
GIB = 2**30
CONTEXT = 0.5  # GiB of a card that the CUDA context takes, out of the allocator's reach
DECODED = 4  # latent frames decoded where not all are: the peak is there with the third


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


@dataclass(frozen=True)
class Record:
    """What one stage of one case took."""

    model: str
    width: int
    height: int
    frames: int
    placement: dict[str, Any]
    cap_gib: float | None
    mode: str
    stage: str
    seconds: float | None = None
    allocated: int | None = None  #: peak bytes
    reserved: int | None = None
    failed: str = ""
    values: dict[str, float] = field(default_factory=dict[str, float])


class Bench:
    """Runs cases and keeps the model of the last one as long as the next can use it."""

    def __init__(self, device: torch.device, path: Path | None, deadline: float = math.inf) -> None:
        self.device, self.path, self.deadline = device, path, deadline
        self.records: list[Record] = []
        self._began = time.monotonic()
        self._held: tuple[tuple[str, Placement], WanModel] | None = None

    def run(self, cases: list[Case]) -> None:
        for case in cases:
            if time.monotonic() - self._began > self.deadline:
                self._add(Record(**_facts(case), stage="all", failed="not run: out of time"))
                continue
            self._run(case)
        self.drop()

    def drop(self) -> None:
        """Free the model."""
        if self._held is not None:
            self._held[1].unload()
        self._held = None
        self._tidy()

    def model(self, case: Case) -> WanModel:
        key = (case.model, case.placement.loading)
        if self._held is None or self._held[0] != key:
            self.drop()
            self._cap(None)
            began = time.monotonic()
            model = build(Catalog().get(case.model), self.device, case.placement.loading)
            print(
                f"[{self._now():6.1f}] built {case.model} {case.placement.loading} in {time.monotonic() - began:.1f} s"
            )
            self._held = (key, model)
        model = self._held[1]
        model.run_with(case.placement)
        return model

    def _run(self, case: Case) -> None:
        model = self.model(case)
        model.vacate()
        self._cap(case.cap)
        request = request_of(model.spec, case)
        for stage in case.stages:
            self._tidy()
            work: Callable[[], dict[str, float]] = {
                "encode": lambda: run_encode(model, request if case.whole else _short(request)),
                "text": lambda: run_encode(model, replace(request, mode="text")),
                "denoise": lambda: run_denoise(model, request, again=case.whole),
                "decode": lambda: run_decode(model, request, None if case.whole else DECODED),
            }[stage]
            try:
                values, seconds, allocated, reserved = self._measured(work)
                record = Record(
                    **_facts(case), stage=stage, seconds=seconds, allocated=allocated, reserved=reserved, values=values
                )
            except torch.OutOfMemoryError as error:
                record = Record(**_facts(case), stage=stage, failed=str(error).splitlines()[0][:160])
            model.vacate()
            self._add(record)

    def _measured(self, work: Callable[[], T]) -> tuple[T, float, int | None, int | None]:
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.monotonic()
        result = work()
        if not cuda:
            return result, time.monotonic() - began, None, None
        torch.cuda.synchronize()
        seconds = time.monotonic() - began
        return result, seconds, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()

    def _tidy(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _cap(self, gib: float | None) -> None:
        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(1.0 if gib is None else gib * GIB / total)

    def _add(self, record: Record) -> None:
        self.records.append(record)
        peak = (
            f"{record.allocated / GIB:6.2f} ({record.reserved / GIB:6.2f}) GiB"
            if record.allocated and record.reserved
            else ""
        )
        what = f"{record.model} {record.width}x{record.height}x{record.frames}"
        given: dict[str, Any] = record.placement | {"tile": None}
        plan = Placement(**given)
        tile = record.placement.get("tile") or {}
        values = " ".join(f"{name}={value:.3f}" for name, value in record.values.items())
        said = record.failed or f"{record.seconds or 0:7.2f} s {peak} {values}"
        print(
            f"[{self._now():6.1f}] {what} {plan} tile={tile.get('width')} cap={record.cap_gib} {record.stage}: {said}",
            flush=True,
        )
        if self.path is not None:
            facts = attention_facts(self.device).to_dict()
            self.path.write_text(json.dumps({"facts": facts, "records": [asdict(it) for it in self.records]}, indent=1))

    def note(self, case: Case, stage: str, values: dict[str, float]) -> None:
        """A record of something other than memory."""
        self._add(Record(**_facts(case), stage=stage, seconds=values.get("seconds"), values=values))

    def _now(self) -> float:
        return time.monotonic() - self._began


def _short(request: ResolvedRequest) -> ResolvedRequest:
    """Few frames: the VAE's peak is there with the third latent frame."""
    return replace(request, num_frames=min(request.num_frames, 17))


def run_encode(model: WanModel, request: ResolvedRequest) -> dict[str, float]:
    size = (request.width, request.height)
    first = Image.new("RGB", size, "teal") if request.mode != "text" else None
    last = Image.new("RGB", size, "navy") if request.mode == "first_last" else None
    encode(model, request, Pictures(first, last), CancelToken())
    return {}


def run_denoise(model: WanModel, request: ResolvedRequest, *, again: bool) -> dict[str, float]:
    """One forward of the first expert, or two of each with `again`, as `generation/denoise.py` feeds it."""
    conditioning = drawn_conditioning(model, request)
    latents = torch.randn(conditioning.shape, device=model.device)
    values: dict[str, float] = {}
    for number, expert in enumerate(model.experts if again else model.experts[:1]):
        for turn in range(2 if again else 1):
            began = time.monotonic()
            step = 900.0 if number == 0 else 300.0
            times = torch.tensor([step], device=model.device)
            if model.expand_timesteps:
                times = conditioning.token_timesteps(step, model.device)
            given = conditioning.apply(latents).to(expert.dtype)
            out = expert.predict(given, times, conditioning.text, conditioning.clip, CancelToken()).float()
            finite = bool(torch.isfinite(out).all())
            del out, given
            values[f"forward_{number}_{turn}"] = time.monotonic() - began
            if not finite:
                raise RuntimeError("not finite")
    return values


def run_decode(model: WanModel, request: ResolvedRequest, latent_frames: int | None) -> dict[str, float]:
    latents = torch.randn(latent_shape(model.spec, request), device=model.device)
    if latent_frames is not None:
        latents = latents[:, :, :latent_frames]
    began = time.monotonic()
    frames = sum(len(chunk) for chunk in decode(model, latents))
    return {"frames": frames, "seconds_per_frame": (time.monotonic() - began) / frames}


def drawn_conditioning(model: WanModel, request: ResolvedRequest) -> Conditioning:
    """Random tensors in the place of what the encoders give."""
    spec, device = model.spec, model.device
    shape = latent_shape(spec, request)
    picture = request.mode != "text"
    width = model.text_encoder.config.d_model
    text = torch.randn(1, spec.prompt_tokens, width, device=device, dtype=model.dtype)
    channels = first = clip = None
    if picture and spec.conditioning == "channels":
        channels = torch.randn(1, 4 + spec.latent_channels, *shape[2:], device=device)
    if picture and spec.conditioning == "first_frame":
        first = torch.randn(1, spec.latent_channels, 1, *shape[3:], device=device)
    if spec.clip:
        pictures = 2 if request.mode == "first_last" else 1
        real = known(spec)
        tokens, dim = (CLIP_TOKENS, CLIP_DIM) if real else (17, 32)
        clip = torch.randn(pictures, tokens, dim, device=device)
    return Conditioning(shape, text, None, channels=channels, first_frame=first, clip=clip)


def build(spec: ModelSpec, device: torch.device, placement: Placement) -> WanModel:
    """`spec` with random weights, in its real size where the catalogue has one."""
    if not known(spec):
        return build_tiny(spec, device=device, placement=placement)
    dtypes = Dtypes.of(device, placement)
    with torch.device("meta"):
        parts = full_modules(spec)
    ropes = {name: build_rope(part) for name, part in parts.items() if name.startswith("transformer")}
    parts["text_encoder"].encoder.embed_tokens = parts["text_encoder"].shared  # one table, as in loaded weights
    for name, part in parts.items():
        home = home_of(name, device, placement)
        scheme = scheme_of(placement)
        stored = store_in(part.blocks, scheme) if scheme and name.startswith("transformer") else {}
        fill(part, dtypes.for_part(name), device, home, list(stored.values()))
        if name in ropes:
            part.rope = ropes[name].to(home)
    tiny = build_tiny(spec)
    return replace(
        tiny,
        text_encoder=parts["text_encoder"],
        image_encoder=parts.get("image_encoder"),
        image_processor=CLIP_IMAGE_PROCESSOR(size={"shortest_edge": 224}, crop_size=224) if spec.clip else None,
        vae=parts["vae"],
        experts=tuple(
            make_expert(part, device, placement) for name, part in parts.items() if name.startswith("transformer")
        ),
        device=device,
        dtype=dtypes.transformer,
        placement=placement,
        _guests={},
    )


def build_rope(transformer: Any) -> Any:
    """Its tables are computed, not learnt, so they must be real."""
    config = transformer.config
    return type(transformer.rope)(config.attention_head_dim, config.patch_size, config.rope_max_seq_len)


@torch.no_grad()
def fill(
    module: nn.Module, dtype: torch.dtype, device: torch.device, home: torch.device, stored: list[StoredLinear]
) -> None:
    """Random weights made on the GPU and left at `home`: small enough that activations stay finite."""
    # transformers keeps its own list in fp32 for fp16 alone, Diffusers for every dtype.
    kept: list[str] = (
        [] if isinstance(module, PreTrainedModel) else getattr(module, "_keep_in_fp32_modules", None) or []
    )
    generator = torch.Generator(device).manual_seed(0)
    made: dict[int, nn.Parameter] = {}
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        if id(parameter) not in made:
            fp32 = any(part in name.split(".") for part in kept)
            value = torch.empty(parameter.shape, dtype=torch.float32 if fp32 else dtype, device=device)
            if parameter.ndim > 1:
                value.normal_(0, 0.02, generator=generator)
            else:
                value.fill_(0.0 if name.endswith("bias") else 1.0)
            made[id(parameter)] = nn.Parameter(value.to(home), requires_grad=False)
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner).register_parameter(leaf, made[id(parameter)])
    for layer in stored:
        weight = torch.empty(layer.out_features, layer.in_features, dtype=dtype, device=device)
        layer.store(weight.normal_(0, 0.02, generator=generator), home)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            if leaf in ("packed", "scale", "offset") or owner.endswith("rope"):
                continue
            value = torch.arange(buffer.numel()).view(buffer.shape).to(home)  # position ids
            module.get_submodule(owner).register_buffer(leaf, value, persistent=False)


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


def _facts(case: Case) -> dict[str, Any]:
    return {
        "model": case.model,
        "width": case.width,
        "height": case.height,
        "frames": case.frames,
        "placement": asdict(case.placement),
        "cap_gib": case.cap,
        "mode": case.mode,
    }


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


def quality(bench: Bench, case: Case, steps: int) -> None:
    """How far each way of storing weights takes one forward, and the latents after `steps` steps, from the plain run."""
    model = bench.model(case)
    blocks = model.experts[0].transformer.blocks
    request = replace(request_of(model.spec, case), num_inference_steps=steps, guidance_high=1.0, guidance_low=1.0)
    torch.manual_seed(0)
    conditioning = drawn_conditioning(model, request)

    def tried() -> tuple[Tensor, Tensor | None, float]:
        """One forward, final latents, seconds of the forward (the second one)."""
        latents = torch.randn(conditioning.shape, generator=torch.Generator().manual_seed(1)).to(model.device)
        times = torch.tensor([900.0], device=model.device)
        if model.expand_timesteps:
            times = conditioning.token_timesteps(900.0, model.device)
        given = conditioning.apply(latents).to(model.experts[0].dtype)
        seconds = math.inf
        out = given
        for _ in range(2):
            began = time.monotonic()
            out = (
                model.experts[0]
                .predict(given, times, conditioning.text, conditioning.clip, CancelToken())
                .float()
                .cpu()
            )
            seconds = min(seconds, time.monotonic() - began)
        final = None
        if steps:
            final = list(denoise(model, conditioning, request))[-1].latents.cpu()
        return out, final, seconds

    plain, final, seconds = tried()
    bench.note(case, "plain", {"seconds": seconds})
    for name, placement in (("rows", LEAN), ("feed_forward_rows", CHUNKED)):
        model.run_with(replace(case.placement, **placement))
        out, _, took = tried()
        bench.note(case, name, {"error": error(out, plain), "equal": float(torch.equal(out, plain)), "seconds": took})
    model.run_with(case.placement)
    for scheme in ("fp8", "int8", "int4"):
        originals = {name: part for name, part in blocks.named_modules() if isinstance(part, nn.Linear)}
        for name, stored in store_in(blocks, scheme).items():
            stored.store(originals[name].weight, model.device)
        out, latents, took = tried()
        values = {"error": error(out, plain), "seconds": took}
        if latents is not None and final is not None:
            values["error_of_latents"] = error(latents, final)
        bench.note(case, scheme, values)
        for name, linear in originals.items():
            owner, _, leaf = name.rpartition(".")
            setattr(blocks.get_submodule(owner), leaf, linear)


def error(out: Tensor, reference: Tensor) -> float:
    """‖out − reference‖ / ‖reference‖."""
    return float((out.double() - reference.double()).norm() / reference.double().norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="", help="calibrate, matrix, tiny, or a JSON file with a list of cases")
    parser.add_argument("--quality", default="", help="model:WIDTHxHEIGHTxFRAMES:STEPS, with commas between")
    parser.add_argument("--deadline", type=float, default=math.inf, help="start no case after this many seconds")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bench = Bench(torch.device(options.device), options.json, options.deadline)
    for wanted in filter(None, options.quality.split(",")):
        name, size, steps = wanted.rsplit(":", 2)
        width, height, frames = map(int, size.split("x"))
        quality(bench, Case(name, width, height, frames), int(steps))
    if options.cases:
        named = options.cases in ("calibrate", "matrix", "tiny")
        bench.run(cases(options.cases) if named else read_cases(Path(options.cases)))
    bench.drop()


def read_cases(path: Path) -> list[Case]:
    """Cases written by `json.dumps(asdict(case))`."""
    made: list[Case] = []
    for given in json.loads(path.read_text()):
        placement = dict(given.pop("placement"))
        tile = placement.pop("tile", None)
        placement["tile"] = Tile(**tile) if tile else None
        stages = tuple(given.pop("stages", Case.stages))
        made.append(Case(placement=Placement(**placement), stages=stages, **given))
    return made


if __name__ == "__main__":
    main()
