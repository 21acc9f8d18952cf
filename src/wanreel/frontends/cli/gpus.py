"""The options that say which GPUs are used and how they share videos; the same for every command that makes some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from wanreel.core.settings import Settings
from wanreel.worker.arrangement import GpuChoice

Command = TypeVar("Command", bound=Callable[..., Any])

NAMES = ("multi_gpu", "gpus", "parallel")


def gpu_options(command: Command) -> Command:
    """--multi-gpu, --gpus and --parallel; None where they are not given."""
    for option in reversed(
        (
            click.option(
                "--multi-gpu/--no-multi-gpu",
                "--use_multi_gpu",
                "multi_gpu",
                default=None,
                help="One video on several GPUs; see docs/multi-gpu.md.",
            ),
            click.option("--gpus", metavar="0,1", help="The GPUs that may be used; all by default."),
            click.option(
                "--parallel",
                metavar="PLAN",
                help="How GPUs share videos: auto, together, each, or parts as cfg=2,ulysses=2,fsdp.",
            ),
        )
    ):
        command = option(command)
    return command


def gpu_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given. Naming a plan of parts means --multi-gpu."""
    found = {name: given[name] for name in NAMES if given.get(name) is not None}
    if "parallel" in found and "multi_gpu" not in found and "=" in found["parallel"]:
        found["multi_gpu"] = True
    return found


def choice_of(settings: Settings) -> GpuChoice:
    """What workers are started for."""
    return GpuChoice(gpus=settings.gpus, multi_gpu=settings.multi_gpu, parallel=settings.parallel)
