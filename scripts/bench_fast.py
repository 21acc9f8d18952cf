r"""Measures what the fast class is made of: sums of fp8 matrix units, passes between matrices, and each option's gain.

    PYTHONPATH=src TORCHINDUCTOR_CACHE_DIR=… PYTORCH_ALLOC_CONF=expandable_segments:True \
    python scripts/bench_fast.py --parts sums,passes,blocks --json fast.json

Parts: sums (attention's error by kernel, tokens and the mean of values, taken off and not; and of long matrix products),
passes (each of our own kernels against torch's operators compiled, in ms and bytes), launches (ours by rows and warps of a
program), blocks (a few blocks by every option at 480p and 720p), profile (the same at 480p, by kernel), tuned (with
inductor's search for block sizes), 480p, 720p, outliers (the whole step by every option, and the error of one forward; the
last with outlying channels, at 480p).
--tiny tries all of it in small, on a CPU too.
"""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

from __future__ import annotations

import argparse
import itertools
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from bench_step import Bench, profiled, timed, work_of

from wanreel.core.compute import EXACT_END
from wanreel.core.placement import Placement
from wanreel.core.workload import Workload
from wanreel.models import step_bench
from wanreel.models.eight import by_rows, centred, product, sampled, whole, wide
from wanreel.models.step.kernels import Eighths, attend_of, emulated_eight, torch_attend
from wanreel.models.step.own import has_own, own
from wanreel.models.step.path import Manner
from wanreel.models.step.turning import Turn, paired, turned
from wanreel.models.step_bench import Variant, bench_step, error_of

BANDWIDTH = 4.8e12  #: bytes a second, of an H200
BLOCKS = 4  #: of a shortened model
TINY = {"num_attention_heads": 2, "attention_head_dim": 128, "ffn_dim": 512, "num_layers": 2}


def sums(bench: Bench) -> None:
    """Hopper's fp8 units keep some 14 bits of a sum and cut the rest off: what that does, and what taking means off does."""
    kernels = [(name, attend_of(name)) for name in bench.rounded if name != "sage2"] or [
        ("emulated", Eighths(emulated_eight))
    ]
    for tokens, mean in itertools.product((256,) if bench.chosen.tiny else (4_096, 32_760, 75_600), (0.0, 0.3, 1.0)):
        draw = torch.Generator(bench.device).manual_seed(tokens)
        query, key, value = (
            torch.randn(1, count, 4, 128, device=bench.device, generator=draw) for count in (tokens, tokens, tokens)
        )
        value = value + mean * torch.randn(1, 1, 4, 128, device=bench.device, generator=draw)
        query, key, value = (it.bfloat16() for it in (1.5 * query, 1.5 * key, value))
        wanted = torch_attend(query[:, :256].float(), key.float(), value.float())
        for name, attend in kernels:
            assert isinstance(attend, Eighths)
            plain = attend.scaled(whole(query, sampled(query)), centred(key)[0], whole(value, sampled(value)))
            for form, found in (("plain", plain), ("mean off", attend(query, key, value))):
                off = wide(found, torch.float32)[:, :256]
                shrunk = 1 - float((off * wanted).sum() / wanted.square().sum())
                bench.add(
                    "sums", kernel=name, tokens=tokens, mean=mean, form=form, error=error_of(off, wanted), shrunk=shrunk
                )
    for inputs in (64,) if bench.chosen.tiny else (5_120, 13_824):
        x, weight = (torch.randn(rows, inputs, device=bench.device).bfloat16() for rows in (512, 1024))
        given, stored = by_rows(x), by_rows(weight)
        found = product(given, stored.numbers, stored.scale, None, torch.bfloat16).float()
        exact = wide(given, torch.float32) @ wide(stored, torch.float32).t()
        shrunk = 1 - float((found * exact).sum() / exact.square().sum())
        bench.add("sums", matrix=inputs, error_of_summing=error_of(found, exact), shrunk=shrunk)


def passes(bench: Bench) -> None:
    """Milliseconds of each pass, of torch's operators compiled and of ours, and of its fewest bytes."""
    for name, least, theirs, ours in pairs(bench):
        for form, call in (("torch", torch.compile(theirs)), ("own", ours)):
            if bench.device.type == "cuda" and (form == "torch" or has_own()):
                bench.add("passes", name=name, form=form, ms=timed(call), least_ms=least)
            elif form == "torch":
                bench.add("passes", name=name, made=type(theirs()).__name__, least_ms=least)


def launches(bench: Bench) -> None:
    """Our own by how many rows a program takes, and by how many warps. What is measured later takes the best."""
    from wanreel.models.step import passes as module

    settings: Any = module
    found: dict[str, dict[Any, float]] = {}
    for name, least, _, ours in pairs(bench):
        if "rounded" in name:
            continue
        setting = {"turn": "TURN", "gelu": "GELU"}.get(name, "NORM")
        for rows, warps in itertools.product((1, 4, 16) if setting != "TURN" else (1,), (4, 8, 16)):
            launch = module.Launch(rows, warps)
            setattr(settings, setting, launch)
            taken = timed(ours)
            sums = found.setdefault(setting, {})
            sums[launch] = sums.get(launch, 0.0) + taken
            bench.add("launches", name=name, rows=rows, warps=warps, ms=taken, least_ms=least)
    for setting, sums in found.items():
        setattr(settings, setting, min(sums, key=sums.__getitem__))
        bench.add("launches", taken=f"{setting}: {getattr(settings, setting)}")


Pass = tuple[str, float, Callable[[], Any], Callable[[], Any]]


def pairs(bench: Bench) -> Iterator[Pass]:
    """Name, milliseconds of its fewest bytes, torch's operators and ours."""
    tokens, heads, wider = (48, 2, 512) if bench.chosen.tiny else (32_760, 40, 13_824)
    dim, kind = heads * 128, torch.bfloat16
    x, update = (torch.randn(1, tokens, dim, device=bench.device, dtype=kind) for _ in range(2))
    inner = torch.randn(1, tokens, wider, device=bench.device, dtype=kind)
    factor, offset, gate, mean = (torch.randn(1, 1, dim, device=bench.device) for _ in range(4))
    broad = torch.randn(1, 1, wider, device=bench.device)
    norm = torch.nn.RMSNorm(dim, eps=1e-6, device=bench.device, dtype=kind).requires_grad_(False)
    angles = torch.randn(1, tokens, 1, 128, device=bench.device)
    turn, scale = paired(Turn(angles.cos(), angles.sin())), torch.ones(1, device=bench.device)
    assert turn.pairs is not None
    tables = turn.pairs

    def normed(hidden: Any, off: Any) -> Any:
        return by_rows((F.layer_norm(hidden.float(), (dim,), eps=1e-6) * factor + offset).to(kind), off)

    def added(off: Any) -> Any:
        hidden = (x.float() + update.float() * gate).to(kind)
        return hidden, *normed(hidden, off)

    def activated(off: Any) -> Any:
        return by_rows(F.gelu(inner, approximate="tanh"), off)

    def queries() -> Any:
        return whole(found := turned(x, norm, heads, turn), sampled(found))

    mine: Any = own() if has_own() and bench.device.type == "cuda" else None

    def least(columns: int) -> float:
        return tokens * columns / BANDWIDTH * 1e3

    def ours(off: Any) -> Any:
        return mine.add_enter(x, update, gate, factor, offset, off, 1e-6)

    yield "enter", least(3 * dim), lambda: normed(x, mean), lambda: mine.enter(x, factor, offset, mean, 1e-6)
    yield "add, enter", least(7 * dim), lambda: added(mean), lambda: ours(mean)
    yield "add, enter, middle rounded", least(7 * dim), lambda: added(None), lambda: ours(None)
    yield "gelu", least(3 * wider), lambda: activated(broad), lambda: mine.gelu(inner, broad)
    yield "gelu, middle rounded", least(3 * wider), lambda: activated(None), lambda: mine.gelu(inner, None)
    yield "turn", least(3 * dim), queries, lambda: mine.turn(x, norm.weight, *tables, mean, scale, 1, 1e-6)


def options(bench: Bench) -> Iterator[Variant]:
    """What --manners names; by itself the reference, exact, then fast by every kernel with one option changed at a time."""
    fastest = [it for it in bench.rounded if it not in ("triton-fp8", "sage2")] or [bench.exact[-1]]
    changed = ("", " rounded", *((" own", " own rounded") if has_own() and bench.device.type == "cuda" else ()))
    usual = ["diffusers", "exact", *(name + change for name in fastest for change in changed)]
    for words in bench.chosen.manners.split(",") if bench.chosen.manners else usual:
        yield variant(bench, words)


def variant(bench: Bench, words: str) -> Variant:
    """diffusers | exact [KERNEL] | KERNEL [own] [rounded] [end=N] [exact=KERNEL]: rounded leaves the middles in."""
    name, *changes = words.split()
    compiled, edge = bench.device.type == "cuda", bench.exact[-1]
    if name == "diffusers":
        return Variant(words, None)
    if name == "exact":
        kernel = changes[0] if changes else edge
        return Variant(words, Manner(kernel, kernel, compiled=compiled))
    given = dict(it.split("=") for it in changes if "=" in it)
    manner = Manner(
        name,
        given.get("exact", edge),
        end=int(given.get("end", EXACT_END)),
        eight=True,
        middles="rounded" not in changes,
        own="own" in changes,
        compiled=compiled,
    )
    return Variant(words, manner, eight=True)


def works(bench: Bench) -> Iterator[tuple[str, Workload]]:
    for size, work in (("480p", work_of("i2v-14b-480p", 832, 480)), ("720p", work_of("i2v-a14b", 1280, 720))):
        yield size, replace(work, width=96, height=64, frames=5) if bench.chosen.tiny else work


def blocks(bench: Bench) -> None:
    """Of a shortened model: what one block takes."""
    for size, work in works(bench):
        with shortened(bench, work):
            wanted = [it for it in alike(bench) if it.manner is not None]
            for row in bench_step(work, bench.device, wanted, timed=2, stored_as=Placement(precision="fp8")):
                bench.add("blocks", size=size, name=row.name, ms_of_a_block=1e3 * row.seconds / work.passes / BLOCKS,
                          first_seconds=row.first_seconds, compilations=row.compilations, note=row.note)  # fmt: skip


def profile(bench: Bench) -> None:
    """By kernel, at 480p: milliseconds of one block."""
    _, work = next(works(bench))
    with shortened(bench, work):
        profiled(bench, [it for it in alike(bench) if "rounded" not in it.name])


def alike(bench: Bench) -> list[Variant]:
    """The options without an exact end, so that all blocks are alike."""
    return [it if it.manner is None else replace(it, manner=replace(it.manner, end=0)) for it in options(bench)]


@contextmanager
def shortened(bench: Bench, work: Workload) -> Generator[None]:
    """Models of `work` have few blocks."""
    sizes: Any = step_bench.TRANSFORMER_SIZES
    few: dict[str, Any] = {**sizes[work.spec.parameters], "num_layers": BLOCKS}
    step_bench.TRANSFORMER_SIZES = {**sizes, work.spec.parameters: TINY if bench.chosen.tiny else few}
    yield
    step_bench.TRANSFORMER_SIZES = sizes


def whole_steps(bench: Bench, wanted: str, *, realistic: bool = False) -> None:
    sizes: Any = step_bench.TRANSFORMER_SIZES
    for size, work in works(bench):
        if size != wanted:
            continue
        if bench.chosen.tiny:
            step_bench.TRANSFORMER_SIZES = {work.spec.parameters: TINY}
        once = size == "720p" or realistic
        for row in bench_step(work, bench.device, tuple(options(bench)), realistic=realistic, timed=1 if once else 2):
            bench.add("steps", size=size, outliers=realistic, **row.to_dict())
            if not bench.left(60):
                break
        step_bench.TRANSFORMER_SIZES = sizes


def tuned(bench: Bench) -> None:
    """What inductor's own search for block sizes gains."""
    import torch._inductor.config as inductor

    edited: Any = inductor
    edited.coordinate_descent_tuning = True
    blocks(bench)
    edited.coordinate_descent_tuning = False


PARTS: dict[str, Callable[[Bench], None]] = {
    "sums": sums,
    "passes": passes,
    "launches": launches,
    "blocks": blocks,
    "profile": profile,
    "tuned": tuned,
    "480p": lambda bench: whole_steps(bench, "480p"),
    "720p": lambda bench: whole_steps(bench, "720p"),
    "outliers": lambda bench: whole_steps(bench, "480p", realistic=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="sums,passes,blocks,480p")
    parser.add_argument(
        "--manners", default="", help="what to measure, with commas between: exact,flash3-fp8 own,cudnn-fp8 end=0"
    )
    parser.add_argument("--json", default="")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds after which no part is begun")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script")
    bench = Bench(parser.parse_args())
    torch.set_grad_enabled(False)
    for part in bench.chosen.parts.split(","):
        if not bench.left(20):
            bench.add(part, left_out="no time left")
            continue
        try:
            PARTS[part](bench)
        except Exception as error:  # noqa: BLE001 - a part that fails costs no other
            traceback.print_exc()
            bench.add(part, failed=f"{type(error).__name__}: {error}"[:400])
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
