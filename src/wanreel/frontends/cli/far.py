"""How far work elsewhere is, as a live line. Knows nothing of who does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from wanreel.frontends.cli.output import Output


class Far(Protocol):
    """Work as it stands."""

    @property
    def stage(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def progress(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def total_steps(self) -> int: ...


def show_far(states: Iterable[Far], output: Output, cancel: Callable[[], object]) -> None:
    """Shows how far it is until the states end. Ctrl-C cancels it there."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[step]}"), TimeElapsedColumn())
    with Progress(*columns, console=output.console, disable=output.json, transient=True) as bar:
        row = bar.add_task("queued", total=100, step="")
        try:
            for now in states:
                step = f"step {now.step} of {now.total_steps}" if now.total_steps else ""
                bar.update(row, description=now.stage or now.status, completed=now.progress, step=step)
        except KeyboardInterrupt:
            cancel()
            raise
