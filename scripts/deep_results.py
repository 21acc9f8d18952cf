"""Turn pytest's JUnit file into a table: each test, how it ended, how long it took, and what it measured.

A test adds a figure to its line with pytest's `record_property(name, value)`.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from xml.etree import ElementTree

ENDINGS = ("failure", "error", "skipped")


def main(source: Path, target: Path) -> None:
    # Written by the pytest that ran just before: not foreign.
    cases = list(ElementTree.parse(source).iter("testcase"))  # noqa: S314
    lines = [
        "# Results of the long test variants",
        "",
        f"{len(cases)} tests on {platform.system()} {platform.machine()}, Python {platform.python_version()}.",
        "",
        "| test | result | seconds | measured |",
        "| --- | --- | --- | --- |",
        *(_line(case) for case in cases),
    ]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"Results: {target}")


def _line(case: ElementTree.Element) -> str:
    ending = next((name for name in ENDINGS if case.find(name) is not None), "passed")
    measured = ", ".join(f"{item.get('name')} = {item.get('value')}" for item in case.iter("property"))
    cells = [f"{case.get('classname')}::{case.get('name')}", ending, f"{float(case.get('time', '0')):.1f}", measured]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
