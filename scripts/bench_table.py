"""Writes the tables of docs/benchmarks.md that come from reports of `wanreel bench` in docs/measured/bench-*.json.

    python scripts/bench_table.py [--write]

Without --write it says whether the document is up to date.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from wanreel.core.bench import Figure, table

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT, MEASURED = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "measured"
BEGIN, END = "<!-- scripts/bench_table.py --write -->", "<!-- end of scripts/bench_table.py -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = (
        before
        + BEGIN
        + "\n\n"
        + "\n\n".join(map(section, sorted(MEASURED.glob("bench-*.json"))))
        + "\n\n"
        + END
        + after
    )
    if write:
        DOCUMENT.write_text(made, encoding="utf-8")
    elif made != text:
        print("docs/benchmarks.md is not what docs/measured says: run scripts/bench_table.py --write")
        return 1
    return 0


def section(path: Path) -> str:
    """One report: a line of what was run, and its table."""
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    ceiling = report["ceiling_tflops"]
    title = _title(report) + f" ([figures](measured/{path.name}))"
    head, *lines = table([Figure(**figure) for figure in report["figures"]], ceiling)
    rows = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines)]
    return title + "\n\n" + "\n".join(rows)


def _title(report: dict[str, Any]) -> str:
    machine, subject, part = report["machine"], report["subject"], report.get("part", "request")
    where = f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}"
    shape = f"{subject['width']}×{subject['height']}×{subject['num_frames']}, {subject['steps']} steps of {subject['passes']} "
    if part == "overhead":
        return f"**A warm job beside its model**: {subject['model']}, stand-in, {shape}forwards; {where}"
    if part == "start":
        return f"**A worker's start**: {subject['model']}; {where}"
    if part == "load":
        return f"**Reading weights**: blocks of {subject['model']}; {where}"
    return (
        f"**{subject['model']}**, {subject['weights']} weights, {subject['compute']}, {shape}forwards, {subject['plan']}; "
        f"{machine['device']}, torch {machine['torch']}, attention {machine['attention']}, matrix products at "
        f"{report['ceiling_tflops']:.3g} TFLOP/s"
    )


if __name__ == "__main__":
    raise SystemExit(main())
