"""Writes of many requests in one transaction, so that fifty raters wait for one disk write and not for fifty.

Whoever comes while a transaction is under way queues; when it is on disk, one of those who wait runs all that has
queued in the next one, each under a savepoint of its own. Nobody is answered before their write is on disk.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from sqlalchemy import text

from keel.core.errors import KeelError
from keel.store.store import Store, Transaction

AT_ONCE = 32
"""Requests in one transaction: it lasts some dozen milliseconds, and other processes may write between two."""
T = TypeVar("T")
SAVEPOINT, RELEASE, ROLLBACK = text("SAVEPOINT job"), text("RELEASE SAVEPOINT job"), text("ROLLBACK TO SAVEPOINT job")


class _Job(Generic[T]):
    def __init__(self, project_id: int, work: Callable[[Transaction], T]) -> None:
        self.project_id, self.work = project_id, work
        self.finished = False
        self.value: T | None = None
        self.error: Exception | None = None


class Writer:
    """Runs functions of a transaction, several callers' in one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: list[_Job] = []
        self._queueing, self._leading = threading.Lock(), threading.Lock()

    def run(self, project_id: int, work: Callable[[Transaction], T]) -> T:
        """What `work` returns, once what it wrote is on disk; what it raises, with nothing of it written.

        `work` may be called twice, the first time in vain: it has no effects but those on the project.
        """
        job = _Job(project_id, work)
        with self._queueing:
            self._queue.append(job)
        with self._leading:
            while not job.finished:
                self._lead()
        if job.error is not None:
            raise job.error
        return cast(T, job.value)

    def _lead(self) -> None:
        with self._queueing:
            jobs, self._queue = self._queue[:AT_ONCE], self._queue[AT_ONCE:]
        try:
            alone = jobs if len(jobs) == 1 else self._together(jobs)
            for job in alone:
                self._alone(job)
        finally:
            for job in jobs:
                job.finished = True

    def _together(self, jobs: list[_Job]) -> list[_Job]:
        """Run the jobs in one transaction; those that failed in a way that only the store can explain come back."""
        unclear: list[_Job] = []
        try:
            with self._store.writing() as tx:
                for project_id in sorted({job.project_id for job in jobs}):
                    tx.lock(project_id)  # before the savepoints: rolling back to one gives later locks up
                for job in jobs:
                    tx.run(SAVEPOINT)
                    try:
                        job.value = job.work(tx)
                    except KeelError as error:
                        job.error = error
                        tx.run(ROLLBACK)
                    except Exception:  # whatever it is, it comes again where the job is alone
                        unclear.append(job)
                        tx.run(ROLLBACK)
                    tx.run(RELEASE)
        except KeelError as error:  # the database as a whole: locked, full, gone
            for job in jobs:
                job.error = error
            return []
        return unclear

    def _alone(self, job: _Job) -> None:
        try:
            with self._store.writing() as tx:
                job.value = job.work(tx)
        except Exception as error:  # raised again by whoever asked
            job.error = error
