"""The depot: files and batches of a server put together, from their folder to their paths."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web

from bioforge.simulator import batch_paths, file_paths
from bioforge.simulator.batch_life import Workshop
from bioforge.simulator.batch_paths import BatchPaths
from bioforge.simulator.batch_worker import Worker
from bioforge.simulator.batches import JobStates
from bioforge.simulator.counters import Counters
from bioforge.simulator.exchange import Exchange
from bioforge.simulator.file_paths import FilePaths
from bioforge.simulator.files import Files
from bioforge.simulator.folder import Folder
from bioforge.simulator.ledger import Ledger
from bioforge.simulator.limits import Quota
from bioforge.simulator.options import SimulatorOptions


class BlobStore:
    """`seen` counts the tries of each body by digest. OSError where the folder cannot be had."""

    def __init__(self, options: SimulatorOptions, ledger: Ledger, quota: Quota, seen: dict[bytes, int]) -> None:
        self._folder = Folder(options.data)
        files, counters = Files(self._folder, time.time), Counters(self._folder)
        shop = Workshop(options, self._folder, files, JobStates(self._folder), ledger, quota, seen)
        self._worker = Worker(shop)
        self._files = FilePaths(options, self._folder, files, counters)
        self._batches = BatchPaths(shop, self._worker, counters)
        self._working: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work on batches, on those of an earlier server first."""
        self._working = asyncio.create_task(self._worker.work())

    async def stop(self) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
        self._folder.close()

    async def handle(self, exchange: Exchange, path: str) -> web.StreamResponse | None:
        """The answer, or None where the path is about something else. Problem for what is refused."""
        if _below(file_paths.PATH, path):
            return await self._files.handle(exchange, path)
        if _below(batch_paths.PATH, path):
            return await self._batches.handle(exchange, path)
        return None

    async def describe(self) -> list[dict[str, Any]]:
        """All batches, oldest first, each as the API shows it and with what became of its lines."""
        return await self._batches.describe()


def _below(root: str, path: str) -> bool:
    return path == root or path.startswith(f"{root}/")
