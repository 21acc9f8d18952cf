"""Which kernel is the fastest is measured once, kept, and read again."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from wanreel.models.step.choice import Choices, Chosen, Shape
from wanreel.models.step.kernels import DEFAULT, Kernel, torch_attend

CPU = torch.device("cpu")
SHAPE = Shape(40, 128, 32_760)


def row(name: str) -> Kernel:
    return Kernel(name, name, "exact", lambda: torch_attend)


class Timer:
    """Says what it is told, and counts."""

    def __init__(self, **times: float) -> None:
        self.times, self.asked = times, list[str]()

    def __call__(self, kernel: Kernel, shape: Shape, device: torch.device) -> float:
        self.asked.append(kernel.name)
        if kernel.name not in self.times:
            raise RuntimeError("no image for this device")
        return self.times[kernel.name]


def choices(folder: Path | None, timer: Timer, *names: str) -> Choices:
    return Choices(folder, tuple(row(name) for name in names), timer)


def test_the_fastest_is_chosen_once_and_kept(tmp_path: Path) -> None:
    timer = Timer(one=3.0, two=2.0)
    first = choices(tmp_path, timer, "one", "two")
    wanted = Chosen("two", {"one": 3.0, "two": 2.0})
    assert [first.choose(CPU, SHAPE, "exact") for _ in range(2)] == [wanted, wanted]
    assert timer.asked == ["one", "two"]
    later = Timer(one=1.0, two=2.0)
    assert choices(tmp_path, later, "one", "two").choose(CPU, SHAPE, "exact") == wanted  # as it was then
    assert later.asked == []
    assert choices(tmp_path, later, "one", "two").choose(CPU, Shape(40, 128, 75_600), "exact") == Chosen(
        "one", later.times
    )
    assert choices(tmp_path, later, "two").choose(CPU, SHAPE, "exact") == Chosen("two", {"two": 2.0})  # others are here


def test_a_kernel_that_fails_is_left_out_and_named(tmp_path: Path) -> None:
    found = choices(tmp_path, Timer(one=3.0), "one", "two").choose(CPU, SHAPE, "exact")
    assert found == Chosen("one", {"one": 3.0}, {"two": "RuntimeError: no image for this device"})
    assert choices(tmp_path, Timer(), "three").choose(CPU, SHAPE, "exact") is None
    assert choices(tmp_path, Timer(), "three").choose(CPU, SHAPE, "rounded") is None


def test_a_kernel_that_does_not_compile_is_left_out_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's own errors are of no family that others are of."""
    fault = type("TritonError", (Exception,), {})
    triton, errors = ModuleType("triton"), ModuleType("triton.errors")
    triton.__spec__ = ModuleSpec("triton", None)
    vars(errors)["TritonError"] = fault
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.errors", errors)

    def timer(kernel: Kernel, shape: Shape, device: torch.device) -> float:
        raise type("CompilationError", (fault,), {})("at 12:15")

    assert Choices(tmp_path, (row("one"), row("two")), timer).choose(CPU, SHAPE, "exact") is None


@pytest.mark.parametrize("text", ["", "{", '{"key": "another"}', "[]"])
def test_a_damaged_record_is_measured_again(tmp_path: Path, text: str) -> None:
    choices(tmp_path, Timer(one=3.0), "one").choose(CPU, SHAPE, "exact")
    (path,) = tmp_path.glob("*.json")
    path.write_text(text)
    timer = Timer(one=2.0)
    assert choices(tmp_path, timer, "one").choose(CPU, SHAPE, "exact") == Chosen("one", {"one": 2.0})
    assert timer.asked == ["one"]


def test_nothing_is_measured_where_there_is_no_choice() -> None:
    assert Choices().choose(CPU, SHAPE, "exact") == Chosen(DEFAULT)


@pytest.mark.parametrize(
    ("tokens", "name"),
    [(32_760, "40x128x32768"), (75_600, "40x128x65536"), (100, "40x128x2048"), (10**6, "40x128x131072")],
)
def test_classes_of_shapes(tokens: int, name: str) -> None:
    assert Shape(40, 128, tokens).name == name
