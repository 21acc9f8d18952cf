"""Attention kernels as rows of data: what each rounds, whether it runs here, and how it is called. Chooses none.

A kernel is a function of the model that uses it; nothing of the process is switched, so two models in one process keep
theirs. Every call goes through an operator of our own, which torch.compile takes as one piece.
"""
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wanreel.models.eight import FP8, Mixed, Scaled, centred, sampled, whole

#: Queries, keys and values [b, tokens, heads, d] to the result: the same, or with what all tokens have in common apart.
Attend = Callable[[Tensor, Tensor, Tensor], "Tensor | Mixed"]
#: exact: bf16 in and out, fp32 sums. rounded: queries, keys, values or probabilities have fewer bits.
Numbers = Literal["exact", "rounded"]

ADA, HOPPER, BLACKWELL = (8, 9), (9, 0), (10, 0)
_FAULTS = (RuntimeError, TypeError, ValueError, AttributeError, ImportError, NotImplementedError)
DEFAULT = "torch"


@dataclass(frozen=True, slots=True)
class Eighths:
    """Attention over e4m3 numbers. Called with others, it rounds them first.

    The same row off all keys changes a query's logits by one number, which the softmax takes out again. The same row off
    all values is the same row off every result, as probabilities sum to one. So both are exact, and what is left is
    rounded less: by e4m3, and by the fp8 matrix units of Hopper, whose sums keep 14 bits and cut off what is below, so that
    a sum of tens of thousands of values that share a sign comes out too small (docs/speed.md).
    """

    scaled: Callable[[Scaled, Scaled, Scaled], Tensor | Scaled]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Mixed:
        return self.rounded(whole(query, sampled(query)), centred(key)[0], value)

    def rounded(self, query: Scaled, key: Scaled, value: Tensor) -> Mixed:
        """Of queries and keys that are rounded already."""
        values, middle = centred(value)
        return Mixed(self.scaled(query, key, values), middle)


def emulated_eight(query: Scaled, key: Scaled, value: Scaled) -> Scaled:
    """What cuDNN's fp8 attention rounds but the probabilities, computed in fp32 on any device: for measuring errors."""
    given = [it.numbers.float() * it.scale for it in (query, key, value)]
    return Scaled((torch_attend(*given) / value.scale).to(FP8), value.scale)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One way to compute attention."""

    name: str
    title: str
    numbers: Numbers
    build: Callable[[], Attend]
    #: Compute capabilities: from, and (exclusive) up to; None: any device, no upper end.
    since: tuple[int, int] | None = None
    until: tuple[int, int] | None = None
    modules: tuple[str, ...] = ()  #: of which one must be installed
    package: str = ""  #: what its version is read from
    install: str = ""  #: how a user gets it
    unmeasured: bool = False  #: nobody has timed it on the cards it is for

    def missing(self, device: torch.device) -> str:
        """Why it can't be used on `device`; empty when it can."""
        if self.since is None:
            return ""
        if device.type != "cuda":
            return "it needs an NVIDIA GPU"
        has = torch.cuda.get_device_capability(device)
        if has < self.since or (self.until is not None and has >= self.until):
            return f"not for compute capability {has[0]}.{has[1]}"
        if self.modules and not any(_installed(name) for name in self.modules):
            return f"not installed: {self.install}"
        if self.name == "sage2" and (self.version or "0").split(".")[0] < "2":
            return f"SageAttention {self.version or 'of unknown version'} is too old: {self.install}"
        return ""

    @property
    def version(self) -> str:
        """Of the package it comes from; empty for torch's own."""
        try:
            return version(self.package) if self.package else ""
        except PackageNotFoundError:
            return ""


def _installed(module: str) -> bool:
    owner, _, inner = module.rpartition(".")
    return (not owner or _installed(owner)) and find_spec(module if owner else inner) is not None


def kernel_faults() -> tuple[type[Exception], ...]:
    """Faults of a kernel that is installed and does not work here. It is left out, and named."""
    if not _installed("triton"):
        return _FAULTS
    from triton.errors import TritonError  # of no other family: a kernel that does not compile raises it

    return (*_FAULTS, TritonError)


def torch_attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """torch's own choice among its kernels; on views, so that nothing is copied."""
    query, key, value = (it.transpose(1, 2) for it in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)


def _operator(name: str, call: Callable[..., Tensor], arguments: int, out: torch.dtype | None) -> Any:
    """`call`(tensors) as the operator wanreel::`name`; its result is like the first tensor, of dtype `out` if given."""
    schema = f"({', '.join(f'Tensor a{number}' for number in range(arguments))}) -> Tensor"
    operator: Any = torch.library.custom_op(f"wanreel::{name}", call, mutates_args=(), schema=schema)

    def fake(*tensors: Tensor) -> Tensor:
        first = tensors[0]
        return torch.empty(first.shape, dtype=out or first.dtype, device=first.device)

    operator.register_fake(fake)
    return operator


def _cudnn() -> Attend:
    def call(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        turned = [it.transpose(1, 2) for it in (query, key, value)]
        attention: Any = torch.ops.aten._scaled_dot_product_cudnn_attention
        return attention(*turned, None, False)[0].transpose(1, 2).contiguous()

    return _operator("attend_cudnn", call, 3, None)


def _flash3_function() -> Any:
    if _installed("flash_attn_interface"):
        from flash_attn_interface import flash_attn_func
    else:
        from fa3_fwd_interface import flash_attn_func
    return flash_attn_func


def _first(result: Any) -> Tensor:
    """Some releases give sums beside the result."""
    return result[0] if isinstance(result, tuple) else result


def _flash3() -> Attend:
    function = _flash3_function()

    def call(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _first(function(query.detach(), key.detach(), value.detach()))

    return _operator("attend_flash3", call, 3, None)


def _flash4() -> Attend:
    from flash_attn.cute import flash_attn_func

    def call(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _first(flash_attn_func(query.detach(), key.detach(), value.detach()))

    return _operator("attend_flash4", call, 3, None)


def _sage2() -> Attend:
    from sageattention import sageattn

    def call(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _first(sageattn(query, key, value, tensor_layout="NHD", is_causal=False))

    return _operator("attend_sage2", call, 3, None)


def _flash3_eight() -> Attend:
    function = _flash3_function()

    def call(query: Tensor, key: Tensor, value: Tensor, scales: Tensor) -> Tensor:
        heads = [scale.expand(query.shape[0], query.shape[2]).contiguous() for scale in scales.unbind()]
        given = (query.detach(), key.detach(), value.detach())
        return _first(function(*given, q_descale=heads[0], k_descale=heads[1], v_descale=heads[2]))

    operator = _operator("attend_flash3_fp8", call, 4, torch.bfloat16)

    def scaled(q: Scaled, k: Scaled, v: Scaled) -> Tensor:
        return operator(q.numbers, k.numbers, v.numbers, torch.stack([q.scale, k.scale, v.scale]))

    return Eighths(scaled)


def _cudnn_eight() -> Attend:
    from wanreel.models.step.cudnn_eight import CudnnEight

    @cache
    def on(device: torch.device) -> CudnnEight:
        return CudnnEight(device)

    def call(query: Tensor, key: Tensor, value: Tensor, scales: Tensor) -> Tensor:
        return on(query.device).attend(query.contiguous(), key.contiguous(), value.contiguous(), scales)

    operator = _operator("attend_cudnn_fp8", call, 4, FP8)

    def scaled(q: Scaled, k: Scaled, v: Scaled) -> Scaled:
        scales = torch.stack([q.scale, k.scale, v.scale, 1 / v.scale])
        return Scaled(operator(q.numbers, k.numbers, v.numbers, scales), v.scale)

    return Eighths(scaled)


def _triton_eight() -> Attend:
    from wanreel.models.step import triton_eight

    operator = _operator("attend_triton_fp8", triton_eight.attend, 4, torch.bfloat16)

    def scaled(q: Scaled, k: Scaled, v: Scaled) -> Tensor:
        return operator(q.numbers, k.numbers, triton_eight.turned(v.numbers), torch.stack([q.scale * k.scale, v.scale]))

    return Eighths(scaled)


#: The first of those that are equally fast is taken. `torch` runs everywhere.
KERNELS: tuple[Kernel, ...] = (
    Kernel(DEFAULT, "torch's own choice (SDPA)", "exact", lambda: torch_attend),
    Kernel("cudnn", "cuDNN, bf16", "exact", _cudnn, since=(8, 0)),
    Kernel(
        "flash3",
        "FlashAttention 3, bf16",
        "exact",
        _flash3,
        since=HOPPER,
        until=BLACKWELL,
        modules=("flash_attn_interface", "fa3_fwd_interface"),
        package="fa3-fwd",
        install="pip install fa3-fwd",
    ),
    Kernel(
        "flash4",
        "FlashAttention 4, bf16",
        "exact",
        _flash4,
        since=HOPPER,
        modules=("flash_attn.cute",),
        package="flash-attn-4",
        install="pip install flash-attn-4",
    ),
    Kernel(
        "flash3-fp8",
        "FlashAttention 3, e4m3",
        "rounded",
        _flash3_eight,
        since=HOPPER,
        until=BLACKWELL,
        modules=("flash_attn_interface", "fa3_fwd_interface"),
        package="fa3-fwd",
        install="pip install fa3-fwd",
    ),
    Kernel(
        "cudnn-fp8",
        "cuDNN, e4m3",
        "rounded",
        _cudnn_eight,
        since=HOPPER,
        modules=("cudnn",),
        package="nvidia-cudnn-frontend",
        install="pip install nvidia-cudnn-frontend==1.24.1",
    ),
    Kernel(
        "sage2",
        "SageAttention 2: int8 and fp8",
        "rounded",
        _sage2,
        since=ADA,
        modules=("sageattention",),
        package="sageattention",
        install="build SageAttention 2 (github.com/thu-ml/SageAttention)",
        unmeasured=True,
    ),
    Kernel(
        "triton-fp8",
        "Wanreel's own in Triton, e4m3",
        "rounded",
        _triton_eight,
        since=HOPPER,
        modules=("triton",),
        package="triton",
        install="pip install triton",
    ),
)


def kernel_named(name: str) -> Kernel:
    """Raises KeyError."""
    return {it.name: it for it in KERNELS}[name]


@cache
def attend_of(name: str) -> Attend:
    """The kernel `name`, ready to be called. Operators are made once a process, and hold nothing of a model."""
    return kernel_named(name).build()


def usable(device: torch.device, numbers: Numbers, kernels: Sequence[Kernel] = KERNELS) -> tuple[Kernel, ...]:
    """Those of `numbers` that run on `device`."""
    return tuple(it for it in kernels if it.numbers == numbers and not it.missing(device))
