"""Send attempts from threads, one synchronous call each."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bioforge.backends.driver import Executor
from bioforge.core.events import Attempt
from bioforge.core.interfaces import Sender
from bioforge.plugins.validate import internal_failure


class ThreadExecutor(Executor):
    """A thread for each attempt in flight, all with one sender."""

    def __init__(self, sender: Sender, concurrency: int) -> None:
        super().__init__()
        self._sender = sender
        self._executor = ThreadPoolExecutor(max(1, concurrency), thread_name_prefix="bioforge-call")
        self._closed = False

    def submit(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            self._executor.submit(self._send, attempt)

    def close(self, abandon: bool) -> None:
        if self._closed:
            return
        self._closed = True
        # closing the sender ends its waiting calls, so that their threads and the process can end
        if abandon:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._sender.close()
        else:
            self._executor.shutdown()
            self._sender.close()

    def _send(self, attempt: Attempt) -> None:
        try:
            outcome = self._sender.send(attempt.request, attempt.client_request_id)
        except BaseException as error:  # a SystemExit would only lose this attempt's outcome
            outcome = internal_failure(error)
        self.put(attempt, outcome)
