"""The blob store: files and batches of a server put together, from their folder to their paths."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web

from bioforge.simulator import batch_routes, file_routes
from bioforge.simulator.batch_lifecycle import BatchContext
from bioforge.simulator.batch_routes import BatchRoutes
from bioforge.simulator.batch_state import JobStates
from bioforge.simulator.batch_worker import Worker
from bioforge.simulator.counters import Counters
from bioforge.simulator.file_routes import FileRoutes
from bioforge.simulator.files import Files
from bioforge.simulator.folder import Folder
from bioforge.simulator.http_exchange import HttpExchange
from bioforge.simulator.ledger import Ledger
from bioforge.simulator.limits import Quota
from bioforge.simulator.options import SimulatorOptions


class BlobStore:
    """`seen` counts the tries of each body by digest. OSError where the folder cannot be had."""

    def __init__(self, options: SimulatorOptions, ledger: Ledger, quota: Quota, seen: dict[bytes, int]) -> None:
        self._folder = Folder(options.data)
        files, counters = Files(self._folder, time.time), Counters(self._folder)
        context = BatchContext(options, self._folder, files, JobStates(self._folder), ledger, quota, seen)
        self._worker = Worker(context)
        self._files = FileRoutes(options, self._folder, files, counters)
        self._batches = BatchRoutes(context, self._worker, counters)
        self._working: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work on batches, on those of an earlier server first."""
        self._working = asyncio.create_task(self._worker.work())

    async def stop(self) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
        self._folder.close()

    async def handle(self, exchange: HttpExchange, path: str) -> web.StreamResponse | None:
        """The answer, or None where the path is about something else. ApiError for what is refused."""
        if _below(file_routes.PATH, path):
            return await self._files.handle(exchange, path)
        if _below(batch_routes.PATH, path):
            return await self._batches.handle(exchange, path)
        return None

    async def describe(self) -> list[dict[str, Any]]:
        """All batches, oldest first, each as the API shows it and with what became of its lines."""
        return await self._batches.describe()


def _below(root: str, path: str) -> bool:
    return path == root or path.startswith(f"{root}/")
