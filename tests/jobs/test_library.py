"""The library of the store: search, overview, favourites, and the migration that brought them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.places import new_database, open_place, posix_only
from wanreel.core.errors import JobNotFound
from wanreel.core.failpoints import Failpoints
from wanreel.core.job import Job, JobStatus, NewJob, Search, folded
from wanreel.jobs import JobStore
from wanreel.jobs.database import Database
from wanreel.jobs.migrate import MIGRATIONS, revision_of

PROMPTS = (
    "A red CIRCLE moves right",
    "a blue star under 50% rain",
    "Ein großer Roter Kreis",
    "红色的圆 向右移动",
    "a_b",
)


@pytest.fixture
def store(place: str) -> Iterator[JobStore]:
    ticks = iter(range(1000, 100_000, 10))
    store = JobStore(open_place(place), clock=lambda: float(next(ticks)))
    yield store
    store.close()


def put(store: JobStore, prompt: str, *, model: str = "demo", owner: str = "", mode: str = "text") -> Job:
    request = json.dumps({"prompt": prompt, "mode": mode})
    return store.enqueue(NewJob(request, model, owner=owner, mode=mode, prompt=prompt))


def test_every_word_must_occur_in_any_case_and_order(store: JobStore) -> None:
    for prompt in PROMPTS:
        put(store, prompt)

    def found(text: str) -> list[str]:
        return [json.loads(job.request)["prompt"] for job in store.search(Search(text=text), newest_first=False)]

    assert found("circle RED") == [PROMPTS[0]]
    assert found("KREIS grosser") == [PROMPTS[2]], "ß is ss when case does not matter"
    assert found("圆") == [PROMPTS[3]]
    assert found("50%") == [PROMPTS[1]], "a per cent sign is no wildcard"
    assert found("a_b") == [PROMPTS[4]], "nor is an underscore"
    assert found("ＲＥＤ") == [PROMPTS[0]], "nor does the width of letters matter"
    assert found("circle star") == []
    assert found("   ") == list(PROMPTS)


def test_filters_narrow_together(store: JobStore) -> None:
    jobs = [put(store, "a cat", model="demo"), put(store, "a cat", model="other"), put(store, "a cat", mode="picture")]
    bobs = put(store, "a cat", owner="bob")
    store.set_favourite(jobs[1].id, True)
    store.cancel(jobs[2].id)

    def ids(**wanted: object) -> list[str]:
        return [job.id for job in store.search(Search(owner="", **wanted), newest_first=False)]  # type: ignore[arg-type]

    assert ids() == [job.id for job in jobs]
    assert ids(model="other") == ids(favourite=True) == [jobs[1].id]
    assert ids(favourite=False) == [jobs[0].id, jobs[2].id]
    assert ids(mode="picture") == ids(status=JobStatus.CANCELLED) == [jobs[2].id]
    assert ids(since=jobs[1].created_at) == [jobs[1].id, jobs[2].id]
    assert ids(until=jobs[1].created_at) == [jobs[0].id]
    assert ids(text="cat", model="demo", mode="text") == [jobs[0].id]
    assert [job.id for job in store.search(Search(owner="bob"))] == [bobs.id]


def test_an_edited_job_is_found_by_its_new_words(store: JobStore) -> None:
    job = put(store, "a cat")
    store.edit(job.id, "{}", "demo", mode="picture", prompt="a dog")
    assert [one.id for one in store.search(Search(text="dog", mode="picture"))] == [job.id]
    assert store.search(Search(text="cat")) == ()


def test_favourites_are_kept_and_undone(store: JobStore) -> None:
    job = put(store, "a cat")
    assert not job.favourite
    assert store.set_favourite(job.id, True).favourite
    assert store.get(job.id).favourite
    assert not store.set_favourite(job.id, False).favourite
    with pytest.raises(JobNotFound):
        store.set_favourite("0" * 32, True)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize(("jobs", "size"), [(0, 3), (1, 3), (3, 3), (4, 3), (9, 3), (10, 3), (5, 1)])
def test_the_cursors_of_the_overview_lead_to_every_page(
    store: JobStore, jobs: int, size: int, newest_first: bool
) -> None:
    made = [put(store, "a cat").id for _ in range(jobs)]
    overview = store.overview(Search(), page=size, newest_first=newest_first)
    assert overview.total == jobs
    pages = [
        store.search(Search(), after=cursor, limit=size, newest_first=newest_first)
        for cursor in (None, *overview.cursors)
    ]
    assert [job.id for page in pages for job in page] == (made[::-1] if newest_first else made)
    assert all(len(page) == size for page in pages[:-1])
    assert jobs == 0 or pages[-1]


def test_the_overview_counts_models_beside_the_one_chosen(store: JobStore) -> None:
    for model in ("demo", "demo", "other"):
        put(store, "a cat", model=model)
    put(store, "a dog", model="third")
    marked = put(store, "a cat", model="demo")
    store.set_favourite(marked.id, True)
    overview = store.overview(Search(text="cat", model="demo"), page=10)
    assert (overview.total, overview.favourites) == (3, 1)
    assert overview.models == {"demo": 3, "other": 1}


def test_counting_reads_no_requests(tmp_path: Path) -> None:
    """The plan stays on the index, so that it takes milliseconds however long the requests are."""
    store = JobStore(Database(new_database(tmp_path)))
    put(store, "a cat")
    statement = "SELECT id, favourite FROM jobs WHERE status = 'completed' AND owner = '' ORDER BY seq DESC"
    plan = store._database.read(  # pyright: ignore[reportPrivateUsage]
        lambda c: [row[3] for row in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
    )
    assert plan == ["SEARCH jobs USING COVERING INDEX ix_jobs_library (status=? AND owner=?)"] or plan == [
        "SEARCH jobs USING COVERING INDEX ix_jobs_library (status=?)"
    ]
    store.close()


# The migration


@pytest.fixture
def before_library(tmp_path: Path) -> Path:
    """The migrations as they were before the library."""
    folder = tmp_path / "before"
    shutil.copytree(MIGRATIONS, folder)
    for later in (folder / "versions").glob("0*.py"):
        if later.name[:4] >= "0003":
            later.unlink()
    return folder


def old_database(folder: Path, migrations: Path) -> Path:
    """A database of that time with three jobs, one of which nobody can read."""
    path = folder / "wanreel.db"
    Database(path, migrations=migrations).close()
    connection = sqlite3.connect(path)
    requests = [json.dumps({"prompt": f"{prompt}  ", "mode": "text"}) for prompt in PROMPTS[:2]]
    with connection:
        for number, request in enumerate([*requests, "no JSON"]):
            connection.execute(
                "INSERT INTO jobs (id, status, request, request_sha256, model, owner, priority, turn, place, created_at,"
                " attempt, attempts_charged, saved_step, stage, step, total_steps, cancel_requested, notes, last_event)"
                " VALUES (?, 'queued', ?, '', 'demo', '', 0, 0, 0, 0, 0, 0, 0, '', 0, 0, 0, '[]', 0)",
                (f"job{number}", request),
            )
    connection.close()
    return path


def found_in(path: Path) -> list[tuple[str, str, str, int]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT id, mode, words, favourite FROM jobs ORDER BY seq").fetchall()
    finally:
        connection.close()


MIGRATED = [
    ("job0", "text", folded(PROMPTS[0]), 0),
    ("job1", "text", folded(PROMPTS[1]), 0),
    ("job2", "", "", 0),
]


def test_jobs_of_before_are_found_by_their_words(tmp_path: Path, before_library: Path) -> None:
    path = old_database(tmp_path, before_library)
    assert revision_of(path) == "0002"
    JobStore.open(path).close()
    assert found_in(path) == MIGRATED


@posix_only
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside xdist's threads
@pytest.mark.deep
def test_the_migration_killed_at_each_statement(tmp_path: Path, before_library: Path) -> None:
    number = 0
    for number in range(1, 100):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = old_database(folder, before_library)
        pid = os.fork()
        if pid == 0:
            try:
                Database(path, failpoints=Failpoints(f"migrate.statement:kill@{number}")).close()
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(pid, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert revision_of(path) == "0002", "a half upgrade is visible"
        JobStore.open(path).close()
        assert found_in(path) == MIGRATED
    assert number > 6, "the failpoint is not passed at each statement"
