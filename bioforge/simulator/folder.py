"""The data folder: where files and batches live, described by JSON that is replaced and never half written.

```
lock                one server at a time
counters.json       creations and uploads so far: the places in the script of batch faults
files/ID.json ID    a file's description and its content
batches/ID.json     a batch's description
batches/ID.input    what it was asked, kept though the file be deleted
batches/ID.journal  what was answered so far
incoming/           uploads and results that are still being written
```
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filelock import FileLock


class Folder:
    """`path` None: a temporary folder, made when it is first needed and removed by `close`.

    OSError where the folder cannot be had, or is in use by another server.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._kept = path is not None
        self._root: Path | None = None
        self._lock: FileLock | None = None
        if path is not None:
            self._root = Path(path)
            self._open(self._root)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if self._root is not None and not self._kept:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    @property
    def root(self) -> Path:
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="bioforge-simulator-"))
            self._open(self._root)
        return self._root

    def incoming(self) -> Path:
        """A new path for something to be written and then moved to its place."""
        return self.root / "incoming" / token_hex(12)

    def content(self, file_id: str) -> Path:
        return self.root / "files" / file_id

    def input(self, batch_id: str) -> Path:
        return self.root / "batches" / f"{batch_id}.input"

    def journal(self, batch_id: str) -> Path:
        return self.root / "batches" / f"{batch_id}.journal"

    def describe(self, kind: str, name: str, description: Any) -> None:
        """Writes `kind/name.json`, wholly or not at all."""
        written = self.incoming()
        written.write_text(json.dumps(description), encoding="utf-8")
        written.replace(self.root / kind / f"{name}.json")

    def descriptions(self, kind: str) -> Iterator[Any]:
        """What was described; nothing in a temporary folder that is not needed yet."""
        if self._root is not None:
            for path in sorted((self._root / kind).glob("*.json")):
                yield json.loads(path.read_text(encoding="utf-8"))

    def forget(self, kind: str, name: str) -> None:
        with suppress(FileNotFoundError):
            (self.root / kind / f"{name}.json").unlink()

    def keep_input(self, file_id: str, batch_id: str) -> None:
        """A second name for the content, so that a batch does not miss a file deleted under it."""
        kept = self.input(batch_id)
        kept.unlink(missing_ok=True)
        try:
            os.link(self.content(file_id), kept)
        except OSError:
            # Not every file system has links.
            shutil.copyfile(self.content(file_id), kept)

    def clear(self, batch_id: str) -> None:
        """Removes what a batch needed only until it was over."""
        self.input(batch_id).unlink(missing_ok=True)
        self.journal(batch_id).unlink(missing_ok=True)

    def _open(self, root: Path) -> None:
        # Imported here: a server that is asked for no batch does not need it.
        from filelock import FileLock, Timeout

        for name in ("files", "batches", "incoming"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(root / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OSError(f"another simulator uses the folder {root}") from None
        for left in (root / "incoming").iterdir():
            # Of an upload or a download that a crash cut off.
            left.unlink()
