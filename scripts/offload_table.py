"""Prints what bench_offload.py measured, as Markdown. Needs no GPU.

python scripts/offload_table.py docs/measured/offload.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GIB = 2**30


def lines(path: Path) -> Iterator[str]:
    """One row a run; the last forward counts, and ratios are of the resident one of the same size."""
    yield "| run | size | cap | s a forward (first, last) | of resident | allocated | reserved | bits |"
    yield "|---|---|---|---|---|---|---|---|"
    resident: dict[str, float] = {}
    for record in json.loads(path.read_text())["records"]:
        seconds: list[float] = record.get("seconds") or [] if isinstance(record.get("seconds"), list) else []
        if "size" not in record:
            continue
        if record["what"] in ("resident", "ours, resident") and seconds:
            resident[record["size"]] = seconds[-1]
        yield f"| {' | '.join(_cells(record, seconds, resident.get(record['size'])))} |"


def _cells(record: dict[str, Any], seconds: list[float], resident: float | None) -> Iterator[str]:
    yield f"{record['model']}, {record['what']}"
    yield record["size"].replace("x", "×")
    yield f"{record['cap_gib']:g} GiB" if record.get("cap_gib") else ""
    if record.get("failed"):
        yield from ("out of memory" if "OutOfMemory" in record["failed"] else record["failed"], "", "", "", "")
        return
    yield f"{seconds[0]:.2f}, {seconds[-1]:.2f}" if len(seconds) > 1 else f"{seconds[0]:.2f}"
    yield f"{seconds[-1] / resident:.3f} ×" if resident and "equal" in record else ""
    yield f"{record['allocated'] / GIB:.1f} GiB"
    yield f"{record['reserved'] / GIB:.1f} GiB"
    yield {True: "equal", False: f"off by {record.get('error', 0):.3f}", None: ""}[record.get("equal")]


if __name__ == "__main__":
    print(*lines(Path(sys.argv[1])), sep="\n")
