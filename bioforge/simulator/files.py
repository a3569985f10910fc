"""Stored files: uploads and batch results, with their expiry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from bioforge.simulator.errors import ApiError
from bioforge.simulator.folder import Folder

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
"""Purposes of uploads."""

OUTPUT = "batch_output"

MAX_FILE = 512 * 1024 * 1024
MAX_BATCH_FILE = 209_715_200
"""Maximum sizes of a file and of a batch file, in bytes."""

DEFAULT_KEEP_SECONDS = 30 * 86_400
"""Default expiry of batch files."""

SHORTEST, LONGEST = 3600, 2_592_000
"""Bounds of `expires_after`, in seconds."""


@dataclass(slots=True)
class File:
    """The stored description of a file. Times are Unix times in seconds."""

    id: str
    number: int
    """Its position among all files, from 1; the order of lists."""
    purpose: str
    filename: str
    bytes: int
    created: float
    expires: float | None
    digest: str
    """SHA-256 of the content, in hexadecimal; empty for results."""
    cut_downloads: int = 0
    """Number of downloads that still end halfway."""

    def view(self) -> dict[str, Any]:
        """Return the API's file object."""
        return {
            "object": "file",
            "id": self.id,
            "purpose": self.purpose,
            "filename": self.filename,
            "bytes": self.bytes,
            "created_at": int(self.created),
            "expires_at": None if self.expires is None else int(self.expires),
            "status": "processed",
            "status_details": None,
        }


class Files:
    """The files of a folder, with their descriptions in memory."""

    def __init__(self, folder: Folder, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        found = (File(**description) for description in folder.descriptions("files"))
        self._files = {file.id: file for file in sorted(found, key=lambda file: file.number)}
        self._number = max((file.number for file in self._files.values()), default=0)

    def add(
        self,
        content: Path,
        purpose: str,
        filename: str,
        *,
        file_id: str | None = None,
        keep: float | None = None,
        digest: str = "",
        cut_downloads: int = 0,
    ) -> File:
        """Move the file at `content` into the folder; replace an existing `file_id`. `keep` is in seconds."""
        now = self._clock()
        if keep is None and purpose in ("batch", OUTPUT):
            keep = DEFAULT_KEEP_SECONDS
        self._number += 1
        file = File(
            id=file_id or f"file-{token_hex(12)}",
            number=self._number,
            purpose=purpose,
            filename=filename,
            bytes=content.stat().st_size,
            created=now,
            expires=None if keep is None else now + keep,
            digest=digest,
            cut_downloads=cut_downloads,
        )
        content.replace(self._folder.content(file.id))
        self.save(file)
        return file

    def save(self, file: File) -> None:
        self._folder.describe("files", file.id, asdict(file))
        self._files[file.id] = file

    def find(self, file_id: str) -> File | None:
        self._expire()
        return self._files.get(file_id)

    def get(self, file_id: str) -> File:
        """Return a file; raise `ApiError` 404 for unknown, deleted and expired files."""
        if (file := self.find(file_id)) is None:
            raise ApiError(404, f"No such File object: {file_id}", param="id")
        return file

    def all(self) -> list[File]:
        """Return all files, oldest first."""
        self._expire()
        return list(self._files.values())

    def delete(self, file_id: str) -> None:
        """Delete the description, then the content, so that every described file has its content."""
        self._folder.forget("files", file_id)
        del self._files[file_id]
        self._folder.content(file_id).unlink(missing_ok=True)

    def path(self, file: File) -> Path:
        return self._folder.content(file.id)

    def _expire(self) -> None:
        now = self._clock()
        expired = [file.id for file in self._files.values() if file.expires is not None and file.expires <= now]
        for file_id in expired:
            self.delete(file_id)
