"""Writing beside training: one thread, one job at work and one waiting, no error lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

__all__ = ["BackgroundWriter"]

Job = Callable[[], None]


class BackgroundWriter:
    """Does jobs in their order in a thread of its own.

    It holds at most one job at work and one waiting: who brings a third waits. What a job raises is raised by the next
    call of :meth:`check`, :meth:`flush` or :meth:`close` in the caller's thread, once; jobs after it are done all the
    same. In a forked child (a data loader's worker) nothing happens: the jobs are the parent's.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self._changed = threading.Condition()
        self._waiting: Job | None = None
        self._busy = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def forked(self) -> bool:
        """Whether this is a copy in a child process, without the thread."""
        return os.getpid() != self.process

    def submit(self, job: Job) -> None:
        """Have a job done; waits while another one waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None)
            if self._thread is None:
                # A daemon, for a thread that waits must not keep the interpreter from ending; who makes the writer
                # flushes it at exit.
                self._thread = threading.Thread(target=self._work, name="landscape-lab writer", daemon=True)
                self._thread.start()
            self._waiting = job
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all jobs are done.

        Raises:
            OSError: one of them could not write.
        """
        # The garbage collector may close the writer from its own thread, which cannot wait for itself.
        if self.forked or self._thread is threading.current_thread():
            return
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None and not self._busy)
            self._raise()

    def check(self) -> None:
        """Raise what an earlier job raised, without waiting for the others."""
        if not self.forked:
            with self._changed:
                self._raise()

    def close(self) -> None:
        """Wait until all jobs are done, and end the thread.

        Raises:
            OSError: one of them could not write.
        """
        if self.forked:
            return
        try:
            self.flush()
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join()
                self._thread = None

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                if self._waiting is None:
                    return
                job, self._waiting, self._busy = self._waiting, None, True
                self._changed.notify_all()
            failure: BaseException | None = None
            try:
                job()
            except BaseException as error:
                failure = error
            finally:
                del job
            with self._changed:
                self._busy = False
                self._error = self._error or failure
                self._changed.notify_all()
