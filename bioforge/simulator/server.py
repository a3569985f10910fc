"""The life of a simulator: listening on a port, running in a thread or in front, stopping quickly."""

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
"""Seconds that requests being answered get when the server stops; waiting ones are ended at once."""

ACCEPTING = 3
"""Turns of the loop in which something accepted becomes a connection: a task begins, makes it, and tells its protocol."""


class Simulator:
    """An OpenAI-compatible server on this machine, in a thread of its own while the `with` block lasts.

    ```python
    with Simulator(SimulatorOptions(latency=0.1)) as server:
        client = OpenAI(base_url=server.base_url, api_key="any")
    ```
    It answers when the block begins. The ledger stays readable after it. OSError if the port cannot be had.
    """

    def __init__(self, options: SimulatorOptions | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.options = options or SimulatorOptions()
        self.host = host
        self.port = port
        """The port it listens on; 0 until it started, if any free one was asked for."""
        self.ledger = Ledger(self.options.ledger)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """Where the server is, without a path: `http://127.0.0.1:41233`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What clients call their base URL: `http://127.0.0.1:41233/v1`."""
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
        """Starts the thread and returns when the server answers."""
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

        # A daemon: a program that ends without stopping its server must still end.
        self._thread = threading.Thread(target=work, name="bioforge-simulator", daemon=True)
        self._thread.start()
        ready.wait()
        if failures:
            self._thread.join()
            self._thread = None
            raise failures[0]

    def stop(self) -> None:
        """Ends every request and the thread, within a second. Does nothing if it is not running."""
        self._ask_to_stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def run(self, ready: Callable[[Simulator], None] | None = None) -> None:
        """Serves in this thread until SIGINT or SIGTERM, or until `stop` is called from anywhere."""
        listener = self._listen()
        self._run(listener, lambda: ready(self) if ready else None, signals=True)

    def _listen(self) -> socket.socket:
        """The listening socket; bound here, so that a port in use is an error of the caller."""
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
        # Imported here: a program that only offers the simulator does not pay for a web server.
        import asyncio

        from aiohttp import web

        from bioforge.simulator.app import App

        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        app = App(self.options, self.ledger)
        protocols = web.Server(app.handle, request_factory=app.request, access_log=None)
        server = await self._loop.create_server(protocols, sock=listener, backlog=BACKLOG)
        if signals:
            self._stop_on_signals()
        try:
            app.start()
            ready()
            await self._stopping.wait()
        finally:
            await self._accept_no_more(listener)
            server.close()
            transports = [connection.transport for connection in protocols.connections]
            app.cancel_pauses()
            protocols.pre_shutdown()
            await protocols.shutdown(GRACE)
            for transport in transports:
                # A client that does not read would keep its connection, and a warning about it, alive.
                if isinstance(transport, asyncio.Transport):
                    transport.abort()
            await app.stop()

    async def _accept_no_more(self, listener: socket.socket) -> None:
        """Returns when everything that was accepted is a connection, to be closed like all others.

        What is none yet when a server of asyncio closes is never closed by anybody.
        """
        import asyncio

        assert self._loop is not None
        with suppress(NotImplementedError):  # the loop of Windows accepts in another way
            self._loop.remove_reader(listener)
        for _ in range(ACCEPTING):
            await asyncio.sleep(0)

    def _stop_on_signals(self) -> None:
        assert self._loop is not None
        # Only the main thread may; on Windows no loop can, and Ctrl-C raises KeyboardInterrupt there.
        if os.name == "posix" and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._loop.add_signal_handler(number, self._ask_to_stop)

    def _ask_to_stop(self) -> None:
        """Safe from any thread and from a signal handler of the loop."""
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            loop.call_soon_threadsafe(stopping.set)


def serve(
    options: SimulatorOptions | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    ready: Callable[[Simulator], None] | None = None,
) -> Ledger:
    """Serves until SIGINT or SIGTERM and returns the ledger; `ready` is called when the server answers.

    OSError if the port cannot be had.
    """
    simulator = Simulator(options, host=host, port=port)
    simulator.run(ready)
    return simulator.ledger
