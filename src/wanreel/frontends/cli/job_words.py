"""What is said to `wanreel edit` and `wanreel move`, at home and with `--server`. Knows nothing of where jobs are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import click

from wanreel.frontends.cli.knobs import asked_values, knob_options

P = ParamSpec("P")


def edit_options(command: Callable[P, int]) -> Callable[P, int]:
    """A job, and knobs to be changed."""
    prompt = click.option("--prompt", help="What happens in the video.")
    return click.argument("job")(prompt(knob_options(command)))


def asked_changes(prompt: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs that were named. Raises UsageError where none was."""
    changes = asked_values(dict(options)) | ({"prompt": prompt} if prompt is not None else {})
    if not changes:
        raise click.UsageError("Say what to change, for example --steps 20.")
    return changes


def move_options(command: Callable[P, int]) -> Callable[P, int]:
    """A job, and where it is to go."""
    before = click.option("--before", metavar="JOB", help="Go right before this queued job; it takes its priority too.")
    last = click.option("--last", is_flag=True, help="Go to the end of the line.")
    priority = click.option("--priority", type=int, help="Take this priority; higher goes first.")
    return click.argument("job")(before(last(priority(command))))


def check_place(before: str | None, last: bool, priority: int | None) -> None:
    """Raises UsageError where it is not one place."""
    if sum((before is not None, last, priority is not None)) != 1:
        raise click.UsageError("Give one of --before JOB, --last and --priority N.")
