"""The machine and the model as a report of `bench` names them. Nothing of it names a person, a place or a file."""

from __future__ import annotations

import platform

import diffusers
import torch

from wanreel.core.bench import BenchMachine
from wanreel.host import processor_name, total_memory, usable_cores
from wanreel.models.clock import GIB


def machine_of(device: torch.device, attention: str = "") -> BenchMachine:
    """Where it was measured, and with which kernel."""
    cuda = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if cuda else total_memory()
    return BenchMachine(
        device=torch.cuda.get_device_name(device) if cuda else processor_name(),
        memory_gib=round(memory / GIB, 1),
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        diffusers=diffusers.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version() if cuda else None,
        attention=attention,
    )
