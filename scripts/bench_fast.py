r"""Measures what the fast class is made of: sums of fp8 matrix units, passes between matrices, and each option's gain.

    PYTHONPATH=src TORCHINDUCTOR_CACHE_DIR=… PYTORCH_ALLOC_CONF=expandable_segments:True \
    python scripts/bench_fast.py --parts sums,passes,blocks --json fast.json

Parts: sums (attention's error by kernel, tokens and the mean of values, taken off and not; and of long matrix products),
passes (each of our own kernels against torch's operators compiled, in ms and bytes), blocks (a few blocks by every option
at 480p and 720p), tuned (the same with inductor's search for block sizes), 480p, 720p, outliers (the whole step by every
option, and the error of one forward; the last with outlying channels, at 480p).
--tiny tries all of it in small, on a CPU too.
"""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

from __future__ import annotations

import argparse
import itertools
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from bench_step import Bench, timed, work_of

from wanreel.core.compute import EDGES
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
    """Milliseconds of each pass, and of its fewest bytes."""
    tokens, heads, wider = (48, 2, 512) if bench.chosen.tiny else (32_760, 40, 13_824)
    dim, kind = heads * 128, torch.bfloat16
    x, update = (torch.randn(1, tokens, dim, device=bench.device, dtype=kind) for _ in range(2))
    inner = torch.randn(1, tokens, wider, device=bench.device, dtype=kind)
    factor, offset, gate, mean = (torch.randn(1, 1, dim, device=bench.device) for _ in range(4))
    norm = torch.nn.RMSNorm(dim, eps=1e-6, device=bench.device, dtype=kind).requires_grad_(False)
    angles = torch.randn(1, tokens, 1, 128, device=bench.device)
    turn, scale = paired(Turn(angles.cos(), angles.sin())), torch.ones(1, device=bench.device)
    assert turn.pairs is not None
    pairs = turn.pairs

    def entered() -> Any:
        hidden = (x.float() + update.float() * gate).to(kind)
        return hidden, *by_rows((F.layer_norm(hidden.float(), (dim,), eps=1e-6) * factor + offset).to(kind), mean)

    def queries() -> Any:
        return whole(found := turned(x, norm, heads, turn), sampled(found))

    mine: Any = own() if has_own() and bench.device.type == "cuda" else None
    forms: list[tuple[str, int, Callable[[], Any], Callable[[], Any]]] = [
        (
            "add, norm, modulate, round",
            7 * dim,
            entered,
            lambda: mine.add_enter(x, update, gate, factor, offset, mean, 1e-6),
        ),
        ("gelu, round", 3 * wider, lambda: by_rows(F.gelu(inner, approximate="tanh")), lambda: mine.gelu(inner, None)),
        ("queries", 3 * dim, queries, lambda: mine.turn(x, norm.weight, *pairs, mean, scale, 1, 1e-6)),
    ]
    for name, columns, theirs, ours in forms:
        least = tokens * columns / BANDWIDTH * 1e3
        for form, call in (("torch", torch.compile(theirs)), ("own", ours)):
            if bench.device.type == "cuda" and (form == "torch" or mine is not None):
                bench.add("passes", name=name, form=form, ms=timed(call), least_ms=least)
            elif form == "torch":
                bench.add("passes", name=name, made=type(theirs()).__name__, least_ms=least)


def options(bench: Bench) -> Iterator[Variant]:
    """The reference, exact, then fast by every kernel with one option changed at a time."""
    compiled, edge = bench.device.type == "cuda", bench.exact[-1]
    yield Variant("diffusers", None)
    yield Variant("exact", Manner(edge, edge, compiled=compiled))
    for name in [it for it in bench.rounded if it not in ("triton-fp8", "sage2")] or [edge]:
        fast = Manner(name, edge, edges=EDGES, eight=True, middles=True, compiled=compiled)
        yield Variant(f"{name}", fast, eight=True)
        yield Variant(f"{name}, middles rounded", replace(fast, middles=False), eight=True)
        if has_own() and compiled:
            yield Variant(f"{name}, own passes", replace(fast, own=True), eight=True)
            yield Variant(f"{name}, own passes, middles rounded", replace(fast, own=True, middles=False), eight=True)


def works(bench: Bench) -> Iterator[tuple[str, Workload]]:
    for size, work in (("480p", work_of("i2v-14b-480p", 832, 480)), ("720p", work_of("i2v-a14b", 1280, 720))):
        yield size, replace(work, width=96, height=64, frames=5) if bench.chosen.tiny else work


def blocks(bench: Bench) -> None:
    """Of a shortened model: what one block takes. Edges are left out, so that all blocks are alike."""
    sizes: Any = step_bench.TRANSFORMER_SIZES
    for size, work in works(bench):
        whole_size = sizes[work.spec.parameters]
        step_bench.TRANSFORMER_SIZES = {**sizes, work.spec.parameters: {**whole_size, "num_layers": BLOCKS}}
        if bench.chosen.tiny:
            step_bench.TRANSFORMER_SIZES = {work.spec.parameters: TINY}
        wanted = [it if it.manner is None else replace(it, manner=replace(it.manner, edges=0)) for it in options(bench)]
        for row in bench_step(work, bench.device, wanted[1:], timed=2):
            bench.add("blocks", size=size, name=row.name, ms_of_a_block=1e3 * row.seconds / work.passes / BLOCKS,
                      compilations=row.compilations, note=row.note)  # fmt: skip
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
    "sums": sums, "passes": passes, "blocks": blocks, "tuned": tuned, "480p": lambda bench: whole_steps(bench, "480p"),
    "720p": lambda bench: whole_steps(bench, "720p"), "outliers": lambda bench: whole_steps(bench, "480p", realistic=True),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="sums,passes,blocks,480p")
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
