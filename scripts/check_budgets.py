"""Hold the code to the budgets that ruff can't count. Prints each excess; exit status 1 if there is one.

Ruff counts arguments, nesting, complexity, statements, prints and `global`; its settings are in pyproject.toml.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES = 600  # most that a file may have
FILE_LINES_AIM = 400  # more is only mentioned
FUNCTION_LINES = 80
BROAD_EXCEPTS = 5  # in all of src
BANNED_NAMES = ("utils", "helpers", "common", "misc")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> int:
    source = sorted((ROOT / "src").rglob("*.py"))
    others = [path for folder in ("tests", "scripts", "training") for path in sorted((ROOT / folder).rglob("*.py"))]
    lengths: list[int] = []
    broad: list[str] = []
    excesses: list[str] = []
    for path in source + others:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        excesses += _file_excesses(path, len(text.splitlines()))
        excesses += _function_excesses(path, tree)
        if path in source:
            lengths += [_length(function) for function in _functions(tree)]
            broad += [f"{_place(path, handler)}" for handler in _broad_excepts(tree)]
    if len(broad) > BROAD_EXCEPTS:
        excesses.append(f"{len(broad)} broad excepts, {BROAD_EXCEPTS} allowed: {', '.join(broad)}")
    excesses += _test_excess(source)
    print(
        f"{len(source)} source files, {len(lengths)} functions, median {statistics.median(lengths):.0f} lines, "
        f"longest {max(lengths)}; {len(broad)} broad excepts"
    )
    print("\n".join(excesses) if excesses else "All budgets are kept.")
    return 1 if excesses else 0


def _file_excesses(path: Path, lines: int) -> Iterator[str]:
    name = path.relative_to(ROOT)
    if path.stem.strip("_") in BANNED_NAMES:
        yield f"{name}: a module is named after what it holds"
    if lines > FILE_LINES:
        yield f"{name}: {lines} lines, {FILE_LINES} allowed"
    elif lines > FILE_LINES_AIM:
        print(f"note: {name} has {lines} lines; {FILE_LINES_AIM} are aimed at")


def _function_excesses(path: Path, tree: ast.Module) -> Iterator[str]:
    for function in _functions(tree):
        if _length(function) > FUNCTION_LINES:
            yield f"{_place(path, function)}: {function.name} has {_length(function)} lines, {FUNCTION_LINES} allowed"


def _test_excess(source: list[Path]) -> Iterator[str]:
    code = sum(_lines(path) for path in source)
    tests = sum(_lines(path) for path in (ROOT / "tests").rglob("*.py"))
    print(f"{code} lines of source, {tests} lines of tests")
    if tests < code:
        print("note: the tests are shorter than the source")
    yield from ()


def _functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _broad_excepts(tree: ast.Module) -> Iterator[ast.ExceptHandler]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _raises_again(node):
            yield node


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether it only cleans up and lets the error go on, which hides nothing (ruff's BLE001 sees it so too)."""
    return any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))


def _is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(item) for item in caught.elts)
    return caught is None or (isinstance(caught, ast.Name) and caught.id in ("Exception", "BaseException"))


def _place(path: Path, node: Function | ast.ExceptHandler) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    sys.exit(main())
