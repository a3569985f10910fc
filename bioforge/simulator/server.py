"""The server of the simulator: listening, running in a thread or in the foreground, stopping."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from bioforge.simulator.ledger import Ledger
from bioforge.simulator.options import SimulatorOptions

if TYPE_CHECKING:
    import asyncio

BACKLOG = 1024
GRACE = 0.25
"""Seconds that answers in progress have when the server stops; waiting requests are cancelled."""

ACCEPTING = 3
"""Loop iterations in which an accepted socket becomes a connection known to its protocol."""


class Simulator:
    """An OpenAI-compatible server on this machine, running in a thread during the `with` block.

    ```python
    with Simulator(SimulatorOptions(latency=0.1)) as server:
        client = OpenAI(base_url=server.base_url, api_key="any")
    ```
    It answers when the block begins. The ledger stays readable afterwards. Raises OSError if the port is not available.
    """

    def __init__(self, options: SimulatorOptions | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.options = options or SimulatorOptions()
        self.host = host
        self.port = port
        """The port; 0 before the start if any free port may be used."""
        self.ledger = Ledger(self.options.ledger)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """Return the URL without a path: `http://127.0.0.1:41233`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """Return the base URL for clients: `http://127.0.0.1:41233/v1`."""
        return f"{self.url}/v1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the thread and return when the server answers."""
        if self._thread is not None:
            raise RuntimeError("the simulator is running already")
        listener = self._listen()
        ready = threading.Event()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                self._run(listener, ready.set)
            except BaseException as error:
                failures.append(error)
            finally:
                ready.set()

        # a daemon, so that a program can end without stopping its server
        self._thread = threading.Thread(target=work, name="bioforge-simulator", daemon=True)
        self._thread.start()
        ready.wait()
        if failures:
            self._thread.join()
            self._thread = None
            raise failures[0]

    def stop(self) -> None:
        """End all requests and the thread within a second. Do nothing if it is not running."""
        self._request_stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def run(self, ready: Callable[[Simulator], None] | None = None) -> None:
        """Serve in this thread until SIGINT, SIGTERM or a call of `stop`."""
        listener = self._listen()
        self._run(listener, lambda: ready(self) if ready else None, signals=True)

    def _listen(self) -> socket.socket:
        """Return the listening socket; bound here, so that the caller gets the error for a port in use."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            listener = socket.create_server((self.host, self.port), family=found[0][0], backlog=BACKLOG)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                text = f"port {self.port} on {self.host} is already in use: choose another, or 0 for a free one"
            else:
                text = f"cannot listen on {self.host}:{self.port}: {error.strerror or error}"
            raise OSError(error.errno, text) from error
        self.port = listener.getsockname()[1]
        return listener

    def _run(self, listener: socket.socket, ready: Callable[[], object], *, signals: bool = False) -> None:
        import asyncio

        try:
            self.ledger.open()
            asyncio.run(self._serve(listener, ready, signals))
        finally:
            listener.close()
            self.ledger.close()
            self._loop = self._stopping = None

    async def _serve(self, listener: socket.socket, ready: Callable[[], object], signals: bool) -> None:
        # imported here to keep the import of the simulator fast
        import asyncio

        from aiohttp import web

        from bioforge.simulator.app import App

        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        app = App(self.options, self.ledger, self.host.lower())
        protocols = web.Server(app.handle, request_factory=app.request, access_log=None)
        server = await self._loop.create_server(protocols, sock=listener, backlog=BACKLOG)
        if signals:
            self._stop_on_signals()
        try:
            app.start()
            ready()
            await self._stopping.wait()
        finally:
            await self._stop_accepting(listener)
            server.close()
            transports = [connection.transport for connection in protocols.connections]
            app.cancel_pauses()
            protocols.pre_shutdown()
            await protocols.shutdown(GRACE)
            for transport in transports:
                # a client that does not read would keep its connection open
                if isinstance(transport, asyncio.Transport):
                    transport.abort()
            await app.stop()

    async def _stop_accepting(self, listener: socket.socket) -> None:
        """Stop accepting, and wait until all accepted sockets are connections.

        asyncio never closes sockets that are not connections yet when its server closes.
        """
        import asyncio

        assert self._loop is not None
        with suppress(NotImplementedError):  # not available on Windows
            self._loop.remove_reader(listener)
        for _ in range(ACCEPTING):
            await asyncio.sleep(0)

    def _stop_on_signals(self) -> None:
        assert self._loop is not None
        # only in the main thread; on Windows Ctrl-C raises KeyboardInterrupt
        if os.name == "posix" and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._loop.add_signal_handler(number, self._request_stop)

    def _request_stop(self) -> None:
        """Request the stop; safe from any thread and signal handler."""
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            loop.call_soon_threadsafe(stopping.set)


def serve(
    options: SimulatorOptions | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    ready: Callable[[Simulator], None] | None = None,
) -> Ledger:
    """Serve until SIGINT or SIGTERM and return the ledger; call `ready` when the server answers.

    Raise OSError if the port is not available.
    """
    simulator = Simulator(options, host=host, port=port)
    simulator.run(ready)
    return simulator.ledger
