"""Lanes of coroutines: one event loop for any number of attempts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from bioforge.backends.driver import Executor, broken
from bioforge.backends.gil import wait_whatever_comes
from bioforge.core.events import Attempt
from bioforge.core.interfaces import AsyncSender, Step

GRACE = 5.0
"""Seconds that the loop gets to end its calls when it is left."""

LOOKS = 8
"""Turns of the loop in which what has arrived by now becomes outcomes."""

AWAY = 0.02
"""Seconds that the loop may stand still before what has come meanwhile is looked at by the time of then."""


class AsyncExecutor(Executor):
    """The loop turns on the thread that waits for outcomes, and while a group is stored, which another thread does then.

    Two threads that both run Python hand the interpreter to each other at every call of the system: that cost more than
    the calls. Only where another loop runs on that thread already, as in a notebook, the loop has one of its own.

    `open_sender` is called on the loop's thread: clients belong to the loop they were made on.
    """

    def __init__(self, open_sender: Callable[[], AsyncSender]) -> None:
        super().__init__()
        self._open_sender = open_sender
        self._sender: AsyncSender | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._apart = threading.Thread(target=self._run, name="bioforge-calls", daemon=True) if _loop_runs() else None
        self._waiting: asyncio.Future[None] | None = None
        self._woken = False
        self._stood_since = self._loop.time()
        self._storing: ThreadPoolExecutor | None = None
        self._started = False
        self._leaving = False
        self._closed = False

    def submit(self, attempts: Sequence[Attempt]) -> None:
        if self._apart is None:
            self._catch_up()
            # connections that the other side has closed are not used again
            self._turn(asyncio.sleep(0))
            self._start(attempts)
            return
        if not self._started:
            self._apart.start()
        self._started = True
        # One wake-up of the loop for all of them.
        self._loop.call_soon_threadsafe(self._start, attempts)

    def wake(self) -> None:
        if self._apart is not None:
            super().wake()
        else:
            with suppress(RuntimeError):  # closed, perhaps just now
                self._loop.call_soon_threadsafe(self._ring)

    def commit(self, step: Step) -> None:
        if self._apart is not None or self._closed or not self._tasks:
            step()
            return
        self._catch_up()
        if self._storing is None:
            self._storing = ThreadPoolExecutor(1, "bioforge-storing")
        stored = self._storing.submit(step)
        try:
            self._turn(asyncio.wrap_future(stored, loop=self._loop))
        finally:
            wait_whatever_comes(stored)

    def close(self, abandon: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if self._storing is not None:
            self._storing.shutdown()
        if self._started and self._apart is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._apart.join(GRACE if abandon else None)
        elif _loop_runs():
            closing = threading.Thread(target=self._shut, name="bioforge-calls", daemon=True)
            closing.start()
            closing.join(GRACE if abandon else None)
        else:
            self._shut()

    # ---------------------------------------------------------------------------------------------- turning the loop

    def _listen(self, number: int, timeout: float) -> None:
        if self._apart is not None:
            super()._listen(number, timeout)
            return
        self._catch_up()
        if timeout <= 0.0:
            self._turn(_look())
        elif len(self._finished) < number and not self._woken:
            self._ring_at = number
            self._waiting = self._loop.create_future()
            timer = self._loop.call_later(timeout, self._ring)
            try:
                self._turn(self._waiting)
            finally:
                timer.cancel()
                self._waiting = None
        self._woken = False

    def _turn(self, until: Awaitable[None]) -> None:
        try:
            self._loop.run_until_complete(until)
        finally:
            self._stood_since = self._loop.time()

    def _catch_up(self) -> None:
        """What came while the loop stood still came in time: no timeout falls due before it has been looked at."""
        since = self._stood_since
        if self._loop.time() - since < AWAY:
            return
        self._loop.time = lambda: since  # type: ignore[method-assign]
        try:
            self._loop.run_until_complete(_look())
        finally:
            del self._loop.time
            self._stood_since = self._loop.time()

    def _ring(self) -> None:
        """Ends the waiting, or the next one where nobody waits; on the loop's thread."""
        if self._waiting is None:
            self._woken = True
        elif not self._waiting.done():
            self._waiting.set_result(None)

    def _run(self) -> None:
        """The life of a thread of the loop's own."""
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
            # The loop itself holds tasks only weakly.
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, attempt: Attempt) -> None:
        try:
            if self._sender is None:
                self._sender = self._open_sender()
            outcome = await self._sender.send(attempt.request, attempt.client_request_id)
        except GeneratorExit:
            raise
        except BaseException as error:  # a SystemExit would end the loop, and with it everybody's calls
            if self._leaving and isinstance(error, asyncio.CancelledError):
                raise
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # a person's: it may come wherever the main thread is
            outcome = broken(error)
        self.put(attempt, outcome)

    async def _leave(self) -> None:
        """Cancels what is still in flight, then closes the client."""
        self._leaving = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE)
        if self._sender is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._sender.close(), GRACE)


def _loop_runs() -> bool:
    """Whether this thread is in an event loop already, in which no other one can turn."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _look() -> None:
    for _ in range(LOOKS):
        await asyncio.sleep(0)
