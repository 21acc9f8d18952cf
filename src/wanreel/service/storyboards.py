"""Storyboards in the queue: scenes as jobs that wait for one another, and what has to be made again when one changes.

A scene's job is kept as long as what it was made from is as it was: the scene's own words and knobs, and the job that it
goes on from. So a change costs the scenes that depend on it and no others; a change of order or of a transition between
scenes that do not hang together costs none. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from wanreel.core.chain import LAST_FRAME, PlannedScene, Seam, colour_detail, plan_scenes, seam_of
from wanreel.core.errors import InvalidRequest
from wanreel.core.group import After, Group, NewGroup
from wanreel.core.job import Job, JobStatus, NewJob
from wanreel.core.knobs import MAX_SEED
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.storyboard import Scene, Storyboard, parse_storyboard
from wanreel.jobs.groups import new_id
from wanreel.service.bell import ring
from wanreel.service.grouped import OVER, Grouped
from wanreel.service.service import Terms
from wanreel.service.stored import json_text, request_of

KIND = "storyboard"
COLOUR = "colour"


@dataclass(frozen=True, slots=True)
class StoryboardView:
    """A storyboard as it stands."""

    group: Group
    board: Storyboard
    jobs: tuple[Job, ...]  #: of the scenes, in order

    @property
    def status(self) -> str:
        """As a job's: completed only when the film of all scenes is there."""
        states = {job.status for job in self.jobs}
        if self.missing:
            return "failed"
        if JobStatus.IN_PROGRESS in states or (JobStatus.QUEUED in states and JobStatus.COMPLETED in states):
            return "in_progress"
        if JobStatus.QUEUED in states:
            return "queued"
        for state, word in OVER.items():
            if state in states:
                return word
        if self.group.error is not None and self.group.resting:
            return "failed"
        return "completed" if self.film is not None and self.whole else "in_progress"

    @property
    def missing(self) -> tuple[int, ...]:
        """Scenes, from 0, whose clip was deleted: `redo` or `revise` makes them again."""
        there = {job.cell for job in self.jobs}
        return tuple(place for place in range(len(self.board.scenes)) if place not in there)

    @property
    def whole(self) -> bool:
        """Whether the film is of all scenes as they are now."""
        return not self.missing and self.group.made_of == tuple(job.id for job in self.jobs)

    @property
    def film(self) -> Mapping[str, Any] | None:
        """What was joined last: its file and its clips; None before the first time."""
        return cast("dict[str, Any]", json.loads(self.group.result)) if self.group.result else None


@dataclass(frozen=True)
class Storyboards(Grouped[StoryboardView]):
    """Over one service. `retry` goes on from where `cancel` stopped."""

    kind = KIND

    def create(self, board: Storyboard, terms: Terms | None = None, *, body: str | None = None) -> StoryboardView:
        """Accept a storyboard: all its scenes or none. Raises InvalidRequest by scene, ModelError, QueueFull."""
        terms = terms or Terms()
        digest = hashlib.sha256((body or json_text(board.to_dict())).encode()).hexdigest()
        board = pinned(board)
        group_id = new_id()
        planned = plan_scenes(board, self.service.resolve)
        jobs, cells = self._jobs(board, planned, group_id, terms, {})
        new = NewGroup(
            group_id,
            KIND,
            _spec(board, cells, terms),
            owner=terms.owner,
            title=board.title or board.scenes[0].prompt[:200],
            gathering="leading",
            webhook=self.told(terms),
            storage=_storage(planned) or "",
        )
        store = self.service.store
        group = store.groups.create(new, jobs, key=terms.idempotency_key, digest=digest)
        ring(self.service.data.workers)
        return self.view(group)

    def check(self, board: Storyboard) -> None:
        """Raises what `create` would raise of the storyboard itself. Queues nothing."""
        plan_scenes(pinned(board), self.service.resolve)

    def view(self, group: Group) -> StoryboardView:
        board = parse_storyboard(json.loads(group.spec)["board"])
        return StoryboardView(group, board, self.service.store.groups.jobs(group.id))

    def paths(self, view: StoryboardView) -> tuple[Path, ...]:
        path = self.path(view)
        return () if path is None else (path,)

    def path(self, view: StoryboardView) -> Path | None:
        """Where the film lies, as far as it goes."""
        return self.there(view.film)

    def redo(self, group_id: str, place: int, changes: Mapping[str, object] | None = None) -> StoryboardView:
        """Make one scene again, and those that depend on it: with `changes`, else with another seed.

        `place` counts from 0. Raises InvalidRequest, GroupNotFound, QueueFull.
        """
        view = self.get(group_id)
        scenes = list(view.board.scenes)
        if not 0 <= place < len(scenes):
            text = f"there is no scene {place + 1}; the storyboard has {len(scenes)}."
            raise InvalidRequest.of("scene", "out_of_range", text)
        scenes[place] = changed(view.board, place, changes or {"seed": secrets.randbelow(2**31)})
        return self.revise(group_id, replace(view.board, scenes=tuple(scenes)), again=frozenset({place}))

    def revise(self, group_id: str, board: Storyboard, again: frozenset[int] = frozenset()) -> StoryboardView:
        """Take another storyboard in the place of this one. Only what is not as it was is made again, and `again`.

        Scenes are known by their content, so they may be reordered, replaced, added and left out.
        """
        view, board = self.get(group_id), pinned(board)
        terms = _terms(view.group)
        keep = self._kept(view, board, again)
        requests = {place: request_of(job) for place, job in keep.items()}
        planned = plan_scenes(board, self.service.resolve, requests)
        jobs, cells = self._jobs(board, planned, group_id, terms, keep)
        kept = {job.id for job in keep.values()}
        self.service.store.groups.change(
            group_id,
            spec=_spec(board, cells, terms),
            drop=[job.id for job in view.jobs if job.id not in kept],
            add=jobs,
            cells={job.id: place for place, job in keep.items()},
            storage=_storage(planned),
        )
        ring(self.service.data.workers)
        return self.get(group_id)

    def replace(self, group_id: str, board: Storyboard) -> StoryboardView:
        """As `revise`; scenes that say no seed and are else as one was have that one's."""
        return self.revise(group_id, _with_seeds(board, self.get(group_id).board))

    # Jobs

    def _jobs(
        self,
        board: Storyboard,
        planned: Sequence[PlannedScene | None],
        group_id: str,
        terms: Terms,
        keep: Mapping[int, Job],
    ) -> tuple[list[NewJob], list[dict[str, str]]]:
        """Jobs for the scenes that have none yet, and what each scene is known by."""
        ids = [keep[place].id if place in keep else new_id() for place in range(len(board.scenes))]
        jobs: list[NewJob] = []
        for place, scene in enumerate(planned):
            if scene is None:
                continue
            jobs.append(self._job(scene, ids[place], group_id, place, terms, self._after(board, place, ids)))
        cells = [{"job": ids[place], "key": _key(board, place, ids)} for place in range(len(board.scenes))]
        return jobs, cells

    def _job(
        self, scene: PlannedScene, job_id: str, group_id: str, place: int, terms: Terms, after: tuple[After, ...]
    ) -> NewJob:
        new = self.service.job_of(scene.resolution, terms)
        return replace(new, id=job_id, group_id=group_id, cell=place, after=after)

    def _after(self, board: Storyboard, place: int, ids: Sequence[str]) -> tuple[After, ...]:
        """What a scene waits for."""
        if board.start(place) != "previous":
            return ()
        return waits_for(ids[place - 1], seam_of(board, place), ids[_root(board, place)], board.colour_match)

    def _kept(self, view: StoryboardView, board: Storyboard, again: frozenset[int]) -> dict[int, Job]:
        """The jobs whose scenes are as they were, by their new places."""
        there = {job.id: job for job in view.jobs if job.status not in OVER}
        known: dict[str, list[str]] = {}
        for cell in json.loads(view.group.spec)["cells"]:
            known.setdefault(cell["key"], []).append(cell["job"])
        ids: list[str] = []
        keep: dict[int, Job] = {}
        for place in range(len(board.scenes)):
            candidates = known.get(_key(board, place, ids), [])
            found = next((job_id for job_id in candidates if job_id in there), None)
            if found is None or place in again:
                ids.append(f"new {place}")
                continue
            candidates.remove(found)
            keep[place] = there[found]
            ids.append(found)
        first = keep.get(0)
        if first is not None or not keep:
            return keep
        # The first scene decides the size of all: where it is made again in another, none of the others fits.
        sizes = {_shape(request_of(job)) for job in keep.values()}
        planned = plan_scenes(replace(board, scenes=board.scenes[:1]), self.service.resolve)[0]
        assert planned is not None, "it is not among those kept"
        return keep if sizes == {_shape(planned.request)} else {}


def waits_for(job_id: str, seam: Seam, root: str, colour: float) -> tuple[After, ...]:
    """What a clip that continues another takes of it, and of the first one of its run."""
    picture = After(job_id, "image", seam.file)
    if not colour or root == job_id:
        return (picture,)
    return (picture, After(root, COLOUR, LAST_FRAME, json_text(dict(colour_detail(colour)))))


def changed(board: Storyboard, place: int, changes: Mapping[str, object]) -> Scene:
    """A scene with other fields or knobs; None takes one away. Raises InvalidRequest."""
    scene = board.scenes[place].to_dict()
    values = {name: value for name, value in (scene | dict(changes)).items() if value is not None}
    others = [other.to_dict() for other in board.scenes]
    others[place] = values
    return parse_storyboard(board.to_dict() | {"scenes": others}).scenes[place]


def pinned(board: Storyboard) -> Storyboard:
    """The same with a seed for each scene, so that one that is resolved again is the same."""
    scenes = tuple(_with_seed(board, place) for place in range(len(board.scenes)))
    return replace(board, scenes=scenes)


def _with_seed(board: Storyboard, place: int) -> Scene:
    scene = board.scenes[place]
    seed = board.values(place).get("seed")
    if isinstance(seed, int) and 0 <= seed <= MAX_SEED:
        return scene
    return replace(scene, knobs={**scene.knobs, "seed": secrets.randbelow(2**31)})


def _with_seeds(board: Storyboard, before: Storyboard) -> Storyboard:
    known = {_without_seed(scene): scene for scene in before.scenes}
    scenes = (known.get(_without_seed(it), it) if "seed" not in it.knobs else it for it in board.scenes)
    return replace(board, scenes=tuple(scenes))


def _without_seed(scene: Scene) -> str:
    return json_text({name: value for name, value in scene.to_dict().items() if name != "seed"})


def _storage(planned: Sequence[PlannedScene | None]) -> str | None:
    """The profile that scenes go to, which is one for all; None where none of them is made again."""
    return next((scene.resolution.storage for scene in planned if scene is not None), None)


def _spec(board: Storyboard, cells: Sequence[Mapping[str, str]], terms: Terms) -> str:
    kept = {"priority": terms.priority, "time_limit": terms.time_limit}
    return json_text({"board": board.to_dict(), "cells": list(cells), "terms": kept})


def _terms(group: Group) -> Terms:
    kept = json.loads(group.spec)["terms"]
    return Terms(owner=group.owner, priority=kept["priority"], time_limit=kept["time_limit"])


def _key(board: Storyboard, place: int, ids: Sequence[str]) -> str:
    """SHA-256 of all that a scene's clip depends on."""
    scene, seam, start = board.scenes[place], seam_of(board, place), board.start(place)
    pictures = [scene.keyframe, scene.end_keyframe, board.scenes[0].keyframe if start == "anchor" else None]
    facts: dict[str, object] = {
        "values": board.values(place),
        "start": start,
        "pictures": [it.sha256 if it is not None else None for it in pictures],
    }
    if start == "previous":
        root = _root(board, place)
        facts["from"] = [ids[place - 1], seam.file]
        facts["colour"] = [ids[root], board.colour_match] if board.colour_match and root != place - 1 else None
    return hashlib.sha256(json_text(facts).encode()).hexdigest()


def _root(board: Storyboard, place: int) -> int:
    """The scene to whose colours this one is brought: for one whose picture is edited, that it is edited of."""
    return place - 1 if board.edited(place) else board.root(place)


def _shape(request: ResolvedRequest) -> tuple[object, ...]:
    return (request.export_width, request.export_height, request.fps, request.output_format)
