"""Lanes of coroutines: one event loop, in a thread of its own, for any number of attempts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from bioforge.backends.driver import Lanes, broken
from bioforge.events import Launch
from bioforge.interfaces import AsyncSender

GRACE = 5.0
"""Seconds that the loop gets to end its calls when it is left."""


class AsyncLanes(Lanes):
    """`open_sender` is called on the loop's thread: clients belong to the loop they were made on."""

    def __init__(self, open_sender: Callable[[], AsyncSender]) -> None:
        super().__init__()
        self._open_sender = open_sender
        self._sender: AsyncSender | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="bioforge-calls", daemon=True)
        self._started = False
        self._leaving = False
        self._closed = False

    def submit(self, launches: Sequence[Launch]) -> None:
        if not self._started:
            self._started = True
            self._thread.start()
        # One wake-up of the loop for all of them.
        self._loop.call_soon_threadsafe(self._start, launches)

    def close(self, abandon: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._started:
            self._loop.close()
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GRACE if abandon else None)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._leave())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _start(self, launches: Sequence[Launch]) -> None:
        for launch in launches:
            task = self._loop.create_task(self._send(launch))
            # The loop itself holds tasks only weakly.
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, launch: Launch) -> None:
        try:
            if self._sender is None:
                self._sender = self._open_sender()
            outcome = await self._sender.send(launch.request, launch.client_request_id)
        except GeneratorExit:
            raise
        except BaseException as error:  # a SystemExit would end the loop, and with it everybody's calls
            if self._leaving and isinstance(error, asyncio.CancelledError):
                raise
            outcome = broken(error)
        self.put(launch, outcome)

    async def _leave(self) -> None:
        """Cancels what is still in flight, then closes the client."""
        self._leaving = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._sender is not None:
            await self._sender.close()
