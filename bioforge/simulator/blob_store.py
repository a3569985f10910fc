"""The files and batches of a server: storage, worker and routes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web

from bioforge.simulator import batch_routes, file_routes
from bioforge.simulator.batch_lifecycle import BatchContext
from bioforge.simulator.batch_routes import BatchRoutes
from bioforge.simulator.batch_state import JobStates
from bioforge.simulator.batch_worker import BatchWorker
from bioforge.simulator.counters import Counters
from bioforge.simulator.file_routes import FileRoutes
from bioforge.simulator.files import Files
from bioforge.simulator.folder import Folder
from bioforge.simulator.http_exchange import HttpExchange
from bioforge.simulator.ledger import Ledger
from bioforge.simulator.limits import Quota
from bioforge.simulator.options import SimulatorOptions


class BlobStore:
    """Files and batches in one folder. `seen` counts the attempts at each body. Raises OSError if the folder is in use."""

    def __init__(self, options: SimulatorOptions, ledger: Ledger, quota: Quota, seen: dict[bytes, int]) -> None:
        self._folder = Folder(options.data)
        files, counters = Files(self._folder, time.time), Counters(self._folder)
        context = BatchContext(options, self._folder, files, JobStates(self._folder), ledger, quota, seen)
        self._worker = BatchWorker(context)
        self._files = FileRoutes(options, self._folder, files, counters)
        self._batches = BatchRoutes(context, self._worker, counters)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start working on batches, those of an earlier server first."""
        self._task = asyncio.create_task(self._worker.work())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._folder.close()

    async def handle(self, exchange: HttpExchange, path: str) -> web.StreamResponse | None:
        """Return the answer, or None for other paths. Raise `ApiError` to refuse a request."""
        if _below(file_routes.PATH, path):
            return await self._files.handle(exchange, path)
        if _below(batch_routes.PATH, path):
            return await self._batches.handle(exchange, path)
        return None

    async def describe(self) -> list[dict[str, Any]]:
        """Return all batches, oldest first, as API objects with the real counts of their lines."""
        return await self._batches.describe()


def _below(root: str, path: str) -> bool:
    return path == root or path.startswith(f"{root}/")
