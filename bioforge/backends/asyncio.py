"""Send attempts as coroutines of one event loop."""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic

from bioforge.backends.driver import Executor
from bioforge.backends.gil import wait_to_end
from bioforge.core.events import Attempt
from bioforge.core.interfaces import AsyncSender, Step
from bioforge.plugins.validate import internal_failure

GRACE = 5.0
"""Seconds in which calls may end after they are cancelled."""

POLL_ITERATIONS = 8
"""Iterations of the loop in which data that has arrived becomes outcomes."""

IDLE_SECONDS = 0.02
"""Seconds without the loop running after which it first reads what has arrived, with its clock stopped."""


if sys.platform == "win32":
    from asyncio import ProactorEventLoop as _SystemLoop
else:
    from asyncio import SelectorEventLoop as _SystemLoop


class _Selector(selectors.DefaultSelector):
    """A selector that counts the connections with something to read or to write."""

    ready = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(timeout)
        self.ready = max(self.ready, len(found))
        return found


class _Loop(_SystemLoop):
    """An event loop whose clock can be stopped while it reads what arrived when it was not running."""

    stopped_at: float | None = None

    def __init__(self) -> None:
        self.counter = _Selector()
        super().__init__(self.counter) if sys.platform != "win32" else super().__init__()

    def time(self) -> float:
        return monotonic() if self.stopped_at is None else self.stopped_at


class AsyncExecutor(Executor):
    """Runs the loop on the thread that waits for outcomes, also while another thread stores a group.

    Two threads that both run Python pass the interpreter to each other at every system call, which costs more than the
    calls. The loop gets its own thread only if another loop is running on this one, as in a notebook.

    `open_sender` is called on the loop's thread, since clients belong to the loop they were created on.
    """

    def __init__(self, open_sender: Callable[[], AsyncSender]) -> None:
        super().__init__()
        self._open_sender = open_sender
        self._sender: AsyncSender | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._run, name="bioforge-calls", daemon=True) if _loop_runs() else None
        self._waiting: asyncio.Future[None] | None = None
        self._woken = False
        self._idle_since = self._loop.time()
        self._storing: ThreadPoolExecutor | None = None
        self._started = False
        self._leaving = False
        self._closed = False

    def submit(self, attempts: Sequence[Attempt]) -> None:
        if self._thread is None:
            self._catch_up()
            # notice connections that the other side has closed, before they are used again
            self._run_until(asyncio.sleep(0))
            self._start(attempts)
            return
        if not self._started:
            self._thread.start()
        self._started = True
        # one wakeup of the loop for all of them
        self._loop.call_soon_threadsafe(self._start, attempts)

    def wake(self) -> None:
        if self._thread is not None:
            super().wake()
        else:
            with suppress(RuntimeError):  # closed, perhaps just now
                self._loop.call_soon_threadsafe(self._wake_loop)

    def backlog(self) -> int:
        ready, self._loop.counter.ready = self._loop.counter.ready, 0
        return len(self._finished) + ready

    def commit(self, step: Step) -> None:
        if self._thread is not None or self._closed or not self._tasks:
            step()
            return
        self._catch_up()
        if self._storing is None:
            self._storing = ThreadPoolExecutor(1, "bioforge-storing")
        stored = self._storing.submit(step)
        try:
            self._run_until(asyncio.wrap_future(stored, loop=self._loop))
        finally:
            wait_to_end(stored)

    def close(self, abandon: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if self._storing is not None:
            self._storing.shutdown()
        if self._started and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(GRACE if abandon else None)
        elif _loop_runs():
            closing = threading.Thread(target=self._shut, name="bioforge-calls", daemon=True)
            closing.start()
            closing.join(GRACE if abandon else None)
        else:
            self._shut()

    # ---------------------------------------------------------------------------------------------- running the loop

    def _wait_for(self, number: int, timeout: float) -> None:
        if self._thread is not None:
            super()._wait_for(number, timeout)
            return
        self._catch_up()
        if timeout <= 0.0:
            self._run_until(_poll())
        elif len(self._finished) < number and not self._woken:
            self._wake_at = number
            self._waiting = self._loop.create_future()
            timer = self._loop.call_later(timeout, self._wake_loop)
            try:
                self._run_until(self._waiting)
            finally:
                timer.cancel()
                self._waiting = None
        self._woken = False

    def _run_until(self, until: Awaitable[None]) -> None:
        try:
            self._loop.run_until_complete(until)
        finally:
            self._idle_since = self._loop.time()

    def _catch_up(self) -> None:
        """Read what arrived while the loop was not running, before any timeout is judged."""
        if self._loop.time() - self._idle_since < IDLE_SECONDS:
            return
        self._loop.stopped_at = self._idle_since
        try:
            self._loop.run_until_complete(_poll())
        finally:
            self._loop.stopped_at = None
            self._idle_since = self._loop.time()

    def _wake_loop(self) -> None:
        """End the current wait, or the next one. Runs on the loop's thread."""
        if self._waiting is None:
            self._woken = True
        elif not self._waiting.done():
            self._waiting.set_result(None)

    def _run(self) -> None:
        """Run the loop on its own thread."""
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._shut()

    def _shut(self) -> None:
        self._loop.run_until_complete(self._leave())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    # -------------------------------------------------------------------------------------------------- on the loop

    def _start(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            task = self._loop.create_task(self._send(attempt))
            # the loop holds tasks only weakly
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, attempt: Attempt) -> None:
        try:
            if self._sender is None:
                self._sender = self._open_sender()
            outcome = await self._sender.send(attempt.request, attempt.client_request_id)
        except GeneratorExit:
            raise
        except BaseException as error:  # a SystemExit would end the loop and all other calls
            if self._leaving and isinstance(error, asyncio.CancelledError):
                raise
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # Ctrl-C reaches whatever the main thread runs
            outcome = internal_failure(error)
        self.put(attempt, outcome)

    async def _leave(self) -> None:
        """Cancel the calls in flight, then close the client."""
        self._leaving = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE)
        if self._sender is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._sender.close(), GRACE)


def _loop_runs() -> bool:
    """Return True if an event loop is running on this thread; another one cannot run there."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _poll() -> None:
    for _ in range(POLL_ITERATIONS):
        await asyncio.sleep(0)
