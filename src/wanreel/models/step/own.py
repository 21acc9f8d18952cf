"""Our own kernels of what stands between fp8 matrices (passes.py) as operators that torch.compile takes as one piece.

Knows what they give, not how; without Triton there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from wanreel.models.eight import FP8

_ENTER = "(Tensor x, Tensor factor, Tensor offset, Tensor? mean, float eps) -> (Tensor, Tensor)"
_ADD = (
    "(Tensor x, Tensor update, Tensor? gate, Tensor factor, Tensor offset, Tensor? mean, float eps)"
    " -> (Tensor, Tensor, Tensor)"
)
_GELU = "(Tensor x, Tensor? mean) -> (Tensor, Tensor)"
_TURN = (
    "(Tensor x, Tensor weight, Tensor cosine, Tensor sine, Tensor? mean, Tensor? scale, int step, float eps) -> Tensor"
)


@dataclass(frozen=True, slots=True)
class Own:
    """Operators with the signatures of passes.py."""

    enter: Callable[..., tuple[Tensor, Tensor]]
    add_enter: Callable[..., tuple[Tensor, Tensor, Tensor]]
    gelu: Callable[..., tuple[Tensor, Tensor]]
    turn: Callable[..., Tensor]


def has_own() -> bool:
    return find_spec("triton") is not None


@cache
def own() -> Own:
    """Made once a process. Raises ImportError without Triton."""
    from wanreel.models.step import passes

    return Own(
        _operator("enter_eight", passes.enter, _ENTER, _eight_like),
        _operator("add_enter_eight", passes.add_enter, _ADD, _sum_like),
        _operator("gelu_eight", passes.gelu, _GELU, _eight_like),
        _operator("turn", passes.turn, _TURN, _turned_like),
    )


def _operator(name: str, call: Callable[..., Any], schema: str, fake: Callable[..., Any]) -> Any:
    operator: Any = torch.library.custom_op(f"wanreel::{name}", call, mutates_args=(), schema=schema)
    operator.register_fake(fake)
    return operator


def _sum_like(x: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(x), *_eight_like(x)


def _eight_like(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    rows = x.shape[0] * x.shape[1]
    return x.new_empty(rows, x.shape[2], dtype=FP8), x.new_empty(rows, 1, dtype=torch.float32)


def _turned_like(x: Tensor, *others: Any) -> Tensor:
    scale, step = others[4], others[5]
    rows = (x.shape[1] + step - 1) // step
    return x.new_empty(x.shape[0], rows, x.shape[2], dtype=x.dtype if scale is None else FP8)
