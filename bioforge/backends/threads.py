"""Lanes of threads: one synchronous call each."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bioforge.backends.driver import Executor, broken
from bioforge.core.events import Attempt
from bioforge.core.interfaces import Sender


class ThreadExecutor(Executor):
    """As many threads as attempts may be in flight, all on one sender."""

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
        # Closing the sender ends the calls that are still waiting, so that their threads end, and the process can.
        if abandon:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._sender.close()
        else:
            self._executor.shutdown()
            self._sender.close()

    def _send(self, attempt: Attempt) -> None:
        try:
            outcome = self._sender.send(attempt.request, attempt.client_request_id)
        except BaseException as error:  # a SystemExit would end nothing but this attempt's chance to be told
            outcome = broken(error)
        self.put(attempt, outcome)
