"""Counters of batches and uploads, which give each its position in the script of faults."""

from __future__ import annotations

from bioforge.simulator.folder import Folder


class Counters:
    """Stored in the folder, so that a restarted server continues the script."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._counts = {"creations": 0, "uploads": 0}
        for counts in folder.descriptions("."):
            self._counts = counts

    def creation(self) -> int:
        """Count a batch, also if a fault refuses it, and return its position from 1."""
        return self._next("creations")

    def upload(self) -> int:
        """Count an upload of a batch file and return its position from 1."""
        return self._next("uploads")

    def _next(self, name: str) -> int:
        self._counts[name] += 1
        self._folder.describe(".", "counters", self._counts)
        return self._counts[name]
