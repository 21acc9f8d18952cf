"""What `wanreel storyboard` and `wanreel sweeps` do alike: list, show, follow, stop and forget groups of jobs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click

from wanreel.frontends.cli.answer import json_option, say
from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.session import open_service
from wanreel.service import Service
from wanreel.service.grouped import Grouped, View
from wanreel.wiring import Runtime, build_worker

_LOOK = 0.5  # seconds between looks at one that is watched
_FAILED = 5  # exit code of one that failed
_ENDED = ("completed", "failed", "cancelled")

Kind = TypeVar("Kind", bound=Grouped[Any])

HERE = click.option("--here", is_flag=True, help="Make it in this process, without a worker beside.")
WATCH = click.option("--watch", is_flag=True, help="Follow it until it has ended.")


@dataclass(frozen=True)
class GroupCommands(Generic[Kind, View]):
    """The commands of one kind of group."""

    noun: str
    members: str  #: what its jobs are called
    over: Callable[[Service], Kind]
    labels: Callable[[View], Iterable[str]]  #: of the jobs, in order, as they are followed
    row: Callable[[Kind, View], Mapping[str, Any]]  #: for programs
    lines: Callable[[Kind, View], Iterable[str]]  #: for people

    @contextmanager
    def open(self) -> Generator[tuple[Runtime, Kind, Callable[[bool], Output]]]:
        with open_service() as (runtime, service):
            yield runtime, self.over(service), functools.cache(Output.open)

    def full(self, groups: Kind, given: str) -> str:
        """The id that begins so, if only one does."""
        if len(given) >= 32:
            return given
        found = [view.group.id for view in groups.list(owner=None, limit=1000) if view.group.id.startswith(given)]
        return found[0] if len(found) == 1 else given

    def found(self, groups: Kind, given: str) -> View:
        """Raises GroupNotFound."""
        return groups.get(self.full(groups, given))

    def follow(
        self, runtime: Runtime, groups: Kind, view: View, output: Output, *, watch: bool = True, here: bool = False
    ) -> int:
        """The exit code, once it has ended or, where nobody waits, at once."""
        output.say(f"[green]✓[/green] {self.noun} [bold]{view.group.id}[/bold], {len(view.jobs)} {self.members}")
        if here:
            build_worker(runtime).run(once=True)
        elif watch:
            self._watch(groups, view, output)
        elif not groups.service.store.workers():
            output.say("  [dim]• no worker runs yet: start one with `wanreel worker`[/dim]")
        view = groups.get(view.group.id)
        self._tell(groups, view, output)
        return _FAILED if view.status in ("failed", "cancelled") and (here or watch) else 0

    def add_to(self, group: click.Group, texts: Mapping[str, str]) -> None:
        """The commands `list`, `show`, `cancel`, `retry` and `delete`, with what is said of each."""
        group.command("list", help=texts["list"])(json_option(self._list))
        for name in ("cancel", "retry", "delete"):
            self._add(group, name, texts[name], lambda groups, group_id, name=name: getattr(groups, name)(group_id))
        self._add(group, "show", texts["show"], lambda groups, group_id: groups.get(group_id))

    def _list(self, json_: bool) -> int:
        with self.open() as (_, groups, output):
            for view in groups.list(owner=None, limit=100):
                if json_:
                    say(dict(self.row(groups, view)))
                else:
                    done = sum(job.status == "completed" for job in view.jobs)
                    output(json_).say(f"{view.group.id}  {view.status:<11} {done}/{len(view.jobs)}  {view.group.title}")
        return 0

    def _add(self, group: click.Group, name: str, text: str, act: Callable[[Kind, str], View | None]) -> None:
        @json_option
        def command(group_id: str, json_: bool) -> int:
            with self.open() as (_, groups, output):
                view = act(groups, self.full(groups, group_id))
                if view is not None:
                    self._tell(groups, view, output(json_))
            return 0

        id_ = click.argument("group_id", metavar=f"{self.noun.upper()}_ID")
        group.command(name, help=text)(id_(command))

    def _watch(self, groups: Kind, view: View, output: Output) -> None:
        told: dict[str, str] = {}
        while view.status not in _ENDED:
            for label, job in zip(self.labels(view), view.jobs):
                if told.get(job.id) != job.status:
                    told[job.id] = job.status
                    output.say(f"  {label}: {job.status.replace('_', ' ')}")
            time.sleep(_LOOK)
            view = groups.get(view.group.id)

    def _tell(self, groups: Kind, view: View, output: Output) -> None:
        output.result(dict(self.row(groups, view)))
        for line in self.lines(groups, view):
            output.say(line)
        if view.group.error is not None:
            output.say(f"[red]{view.group.error[1]}[/red]")
