"""The processes among which one worker shares a video: on which devices, and what they are told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wanreel.core.errors import SettingsError, WanreelError
from wanreel.core.parallel import parse_gpus, parse_parallel, rank_devices
from wanreel.core.settings import Settings
from wanreel.host import nvidia_gpus

if TYPE_CHECKING:
    import torch

    from wanreel.models.parallel.crew import Crew

#: Settings that other ranks need as rank 0 has them; the rest is of queue and front doors.
_TOLD = ("data_dir", "models_dir", "loras_dir", "memory_gb", "threads", "models")


def devices_of(settings: Settings) -> tuple[str, ...]:
    """A device for each rank of this process's group, its own first; one where videos are not shared.

    Raises SettingsError for a group that this machine can't have.
    """
    if not settings.multi_gpu:
        return (settings.device,)
    return rank_devices(settings.device, settings.gpus, parse_parallel(settings.parallel), len(nvidia_gpus()))


def ranks_wanted(settings: Settings) -> int:
    """How many ranks the settings mean, wherever the workers are: on this machine, or on another with such GPUs."""
    try:
        return len(devices_of(settings))
    except SettingsError:
        return max(1, len(parse_gpus(settings.gpus)))


def build_crew(
    settings: Settings, devices: Sequence[str], device: torch.device, last_words: Callable[[WanreelError], object]
) -> Crew:
    """The further ranks of a group, not yet started; `device` is rank 0's. `last_words` as of Losses."""
    from wanreel.models.parallel.crew import Crew, Losses

    commands = [rank_command(name) for name in devices[1:]]
    return Crew(commands, device, {"settings": told(settings)}, Losses(last_words=last_words))


def rank_command(device: str) -> list[str]:
    """What starts a rank."""
    return [sys.executable, "-m", "wanreel", "rank", "--device", device]


def told(settings: Settings) -> dict[str, Any]:
    """What a rank is told of the settings, as JSON values."""
    values = settings.model_dump(mode="json", include=set(_TOLD))
    return {name: value for name, value in values.items() if value is not None}
