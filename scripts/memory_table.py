"""Prints the peaks that bench_memory.py measured beside those that the planner predicts, a row a case. Needs no GPU.

PYTHONPATH=src python scripts/memory_table.py docs/measured/memory-matrix.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench_cases import GIB, Case, h200, placement_of, request_of

from wanreel.core.catalog import Catalog
from wanreel.core.memory import price
from wanreel.core.workload import Workload


def compare(path: Path) -> list[str]:
    """A table of predicted and measured peaks, a row a case, and how far off the predictions are."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for record in json.loads(path.read_text())["records"]:
        case = _case_of(record)
        key = json.dumps(asdict(replace(case, whole=False, stages=())), sort_keys=True, default=str)
        found.setdefault(key, {})[record["stage"]] = record
    heads = ("model", "size", "cap", "plan", "predicted", "measured", "error", "step predicted", "step measured")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    errors: list[float] = []
    steps: list[float] = []
    for stages in found.values():
        any_record = next(iter(stages.values()))
        case = _case_of(any_record)
        spec = Catalog().get(case.model)
        work = Workload.of(spec, replace(request_of(spec, case), guidance_high=1.0, guidance_low=1.0))
        plan = price(work, h200(case.cap), case.placement)
        measured = {name: it["allocated"] for name, it in stages.items() if it["allocated"]}
        failed = [name for name, it in stages.items() if it["failed"]]
        predicted = {
            "encode": max(it.peak for it in plan.stages if it.stage in ("text", "picture", "condition")),
            **{it.stage: it.peak for it in plan.stages},
        }
        if failed or not measured:
            lines.append(
                f"| {case.model} | {case.width}×{case.height}×{case.frames} | {case.cap} | {case.placement} | | {failed} | | | |"
            )
            continue
        high = max(measured.values())
        expected = max(predicted[name] for name in measured)
        errors.append(expected / high - 1)
        values = stages.get("denoise", {}).get("values", {})
        took = values.get("forward_0_1", values.get("forward_0_0"))
        if took is not None:
            steps.append(plan.step_seconds / took - 1)
        lines.append(
            f"| {case.model} {case.mode} | {case.width}×{case.height}×{case.frames} | {case.cap or ''} | {case.placement} | "
            f"{expected / GIB:.2f} | {high / GIB:.2f} | {errors[-1]:+.1%} | {plan.step_seconds:.2f} | "
            f"{'' if took is None else f'{took:.2f}'} |"
        )
    lines.append(f"{len(errors)} cases; errors of peaks from {min(errors):+.1%} to {max(errors):+.1%}")
    within = sum(abs(it) <= 0.15 for it in steps)
    lines.append(f"steps from {min(steps):+.1%} to {max(steps):+.1%}, {within} of {len(steps)} within 15 %")
    return lines


def _case_of(record: dict[str, Any]) -> Case:
    return Case(
        record["model"],
        record["width"],
        record["height"],
        record["frames"],
        placement_of(record["placement"]),
        record["cap_gib"],
        record["mode"],
    )


if __name__ == "__main__":
    print(*compare(Path(sys.argv[1])), sep="\n")
