"""Which attention kernel torch will take, for `doctor` and the manifest. Changes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

HOPPER = (9, 0)
#: From this release on scaled_dot_product_attention takes cuDNN on Hopper: 6.5 instead of 8.4 s a step (I2V-14B, 480p).
CUDNN_SINCE = (2, 11)


@dataclass(frozen=True, slots=True)
class AttentionFacts:
    """What decides speed and bits of attention on this machine."""

    torch: str
    cuda: str | None
    cudnn: int | None
    device: str  #: "cpu" or the GPU's name
    capability: tuple[int, int] | None
    backends: tuple[str, ...]  #: allowed by torch's switches, in no order of preference
    expected: str  #: the kernel torch is expected to take for bf16
    warning: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def attention_facts(device: torch.device | str = "cuda") -> AttentionFacts:
    """Read from torch and the device; runs no kernel. Falls back to the CPU's facts without CUDA."""
    device = torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        return AttentionFacts(torch.__version__, torch.version.cuda, None, "cpu", None, ("cpu",), "cpu")
    capability = torch.cuda.get_device_capability(device)
    backends = _enabled_backends()
    old = torch_release() < CUDNN_SINCE
    hopper = capability == HOPPER
    expected = "cudnn" if hopper and not old and "cudnn" in backends else "flash"
    return AttentionFacts(
        torch.__version__,
        torch.version.cuda,
        torch.backends.cudnn.version(),
        torch.cuda.get_device_name(device),
        capability,
        backends,
        expected,
        hopper_warning(capability, torch_release()),
    )


def hopper_warning(capability: tuple[int, int], release: tuple[int, int]) -> str:
    """What `doctor` says about an old torch on a Hopper GPU; empty when all is well."""
    if capability != HOPPER or release >= CUDNN_SINCE:
        return ""
    return "This GPU is faster with torch 2.11 or later, whose attention uses cuDNN (about 1.3 times a step at 480p)."


def torch_release() -> tuple[int, int]:
    """(2, 11) of "2.11.0+cu130"."""
    major, minor, *_ = torch.__version__.split(".")
    return int(major), int(minor)


def _enabled_backends() -> tuple[str, ...]:
    switches = {
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
    }
    return tuple(name for name, enabled in switches.items() if enabled)
