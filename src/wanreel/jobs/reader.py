"""JobReader: all that can be asked of the store. Changes nothing, and knows nothing of what a request says."""

from __future__ import annotations

from contextlib import AbstractContextManager

from sqlalchemy import Connection, select

from wanreel.core.job import (
    ArtifactRef,
    Attempt,
    Job,
    JobEvent,
    JobStatus,
    LineMark,
    Overview,
    QueueState,
    Search,
    Standing,
)
from wanreel.core.measures import Measures
from wanreel.core.sample import WorkerRecord
from wanreel.jobs import history, library, line, log, records
from wanreel.jobs.rows import job_of, worker_of
from wanreel.jobs.tables import jobs, workers
from wanreel.jobs.transactions import Calls, Transactions


class JobReader:
    """Questions to one database, each answered from one state of it."""

    def __init__(self, database: Transactions, capacity: int) -> None:
        self._database = database
        self.capacity = capacity  #: queued jobs accepted before QueueFull; may be changed

    @property
    def shared(self) -> bool:
        """Whether workers of several machines may use it."""
        return self._database.shared

    def listening(self, calls: Calls) -> AbstractContextManager[object]:
        """While it is open, calls what stands beside each topic of `signals` that is announced; never on SQLite."""
        return self._database.listening(calls)

    def close(self) -> None:
        """Close the database. The store can't be used afterwards."""
        self._database.close()

    # Jobs

    def get(self, job_id: str) -> Job:
        """The job. Raises JobNotFound."""
        return self._database.read(lambda c: records.reread(c, job_id))

    def list(
        self,
        *,
        owner: str | None = None,
        status: JobStatus | None = None,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = True,
    ) -> tuple[Job, ...]:
        """Jobs by order of acceptance; `after` is the last id of the page before. Raises JobNotFound for that id."""

        return self.search(Search(owner=owner, status=status), after=after, limit=limit, newest_first=newest_first)

    def search(
        self, wanted: Search, *, after: str | None = None, limit: int = 20, newest_first: bool = True
    ) -> tuple[Job, ...]:
        """The jobs wanted, a page at a time, as `list` gives them."""
        return self._database.read(lambda c: library.page(c, wanted, after, limit, newest_first=newest_first))

    def overview(self, wanted: Search, *, page: int, newest_first: bool = True) -> Overview:
        """How many jobs are wanted, and where each page of `page` jobs begins."""
        return self._database.read(lambda c: library.overview(c, wanted, page, newest_first=newest_first))

    def has_request_with(self, owner: str, text: str) -> bool:
        """Whether this owner has a job whose request holds `text`."""
        return self._database.read(lambda c: library.has_request_with(c, owner, text))

    def find_completed(self, request: str) -> Job | None:
        """The newest completed job with this very request text, whose result could be used again."""
        same = select(jobs).where(
            jobs.c.request_sha256 == records.digest(request), jobs.c.status == JobStatus.COMPLETED
        )
        newest = same.order_by(jobs.c.ended_number.desc()).limit(1)
        row = self._database.read(lambda c: c.execute(newest).first())
        return None if row is None else job_of(row)

    def artifacts(self, job_id: str) -> tuple[ArtifactRef, ...]:
        """The job's files. Empty for a job that is not completed or unknown."""
        return self._database.read(lambda c: records.artifacts_of(c, job_id))

    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        """The job's attempts, oldest first."""
        return self._database.read(lambda c: records.attempts_of(c, job_id))

    def workers(self) -> tuple[tuple[str, str], ...]:
        """Name and description of the workers that announced themselves and were not yet found dead."""
        rows = self._database.read(lambda c: c.execute(select(workers).order_by(workers.c.name)).all())
        return tuple((row.name, row.description) for row in rows)

    def worker_records(self) -> tuple[WorkerRecord, ...]:
        """The same workers with what they last wrote of their machines."""
        rows = self._database.read(lambda c: c.execute(select(workers).order_by(workers.c.name)).all())
        return tuple(worker_of(row) for row in rows)

    def run_seconds(self) -> float:
        """Seconds that workers spent on the jobs that are kept."""
        return self._database.read(history.run_seconds)

    def measured(self, model: str, limit: int = 100) -> tuple[tuple[str, Measures], ...]:
        """Requests and measures of the attempts that made videos with this model, newest first."""
        return self._database.read(lambda c: history.measured(c, model, limit))

    # Events

    def events(self, job_id: str, *, after: int = 0, limit: int = 1000) -> tuple[JobEvent, ...]:
        """The job's events with a seq above `after`, oldest first. Raises JobNotFound."""

        def body(c: Connection) -> tuple[JobEvent, ...]:
            records.find(c, job_id)
            return log.of_job(c, job_id, after, limit)

        return self._database.read(body)

    def tail(self, *, after: int, limit: int = 1000) -> tuple[JobEvent, ...]:
        """Events of all jobs with a number above `after`, oldest first, for one tailer that serves many watchers."""
        settled = self._database.read(log.settled)
        return self._database.read(lambda c: log.of_all(c, after, settled, limit)) if settled > after else ()

    def last_event_number(self) -> int:
        """Where a tailer that wants only what is new starts."""
        return self._database.read(log.settled)

    # The line

    def queue(self) -> QueueState:
        """The state of the line."""
        return self._database.read(self._state)

    def queued(self, limit: int = 1000) -> tuple[Job, ...]:
        """The queued jobs, next one first."""
        return tuple(job_of(row) for row in self._database.read(lambda c: line.in_line(c, limit)))

    def standing(self, job_id: str) -> Standing | None:
        """The job's place in line and predicted start; None when it is not queued. Raises JobNotFound."""

        def body(c: Connection) -> Standing | None:
            row = records.find(c, job_id)
            if row.status != JobStatus.QUEUED:
                return None
            return line.standing(c, row, paused=records.queue_row(c).paused)

        return self._database.read(body)

    def line_mark(self) -> LineMark:
        """How the line stands; differs whenever it, or what is known of running jobs and workers, has changed."""
        return self._database.read(line.mark)

    def place(self, job_id: str) -> tuple[int | None, LineMark]:
        """The job's place in line, 1 is next and None for one that is not queued, and `line_mark`. Raises JobNotFound."""

        def body(c: Connection) -> tuple[int | None, LineMark]:
            row = records.find(c, job_id)
            position = line.position(c, row) if row.status == JobStatus.QUEUED else None
            return position, line.mark(c)

        return self._database.read(body)

    def requests_in_line(self, limit: int) -> tuple[tuple[str, str], ...]:
        """Id and request of the queued jobs, next one first."""
        return self._database.read(lambda c: line.requests(c, limit))

    def _state(self, c: Connection) -> QueueState:
        row = records.queue_row(c)
        queued, running = line.count(c, JobStatus.QUEUED), line.count(c, JobStatus.IN_PROGRESS)
        return QueueState(row.paused, row.reason, row.automatic, queued, running, self.capacity)
