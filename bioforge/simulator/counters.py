"""Counters: how many batches and uploads there were, which is each one's place in the script of faults."""

from __future__ import annotations

from bioforge.simulator.folder import Folder


class Counters:
    """Kept in the folder, so that a server started again does not begin the script anew."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._counts = {"creations": 0, "uploads": 0}
        for counts in folder.descriptions("."):
            self._counts = counts

    def creation(self) -> int:
        """The place of one more batch, from 1; those that are refused by a fault have one too."""
        return self._next("creations")

    def upload(self) -> int:
        """The place of one more upload of a file for batches, from 1."""
        return self._next("uploads")

    def _next(self, name: str) -> int:
        self._counts[name] += 1
        self._folder.describe(".", "counters", self._counts)
        return self._counts[name]
