"""The data folder of files and batches, with JSON descriptions that are replaced atomically.

```
lock                one server at a time
counters.json       number of creations and uploads: positions in the script of batch faults
files/ID.json ID    a file's description and its content
batches/ID.json     a batch's description
batches/ID.input    its input, kept if the file is deleted
batches/ID.journal  its executed lines
incoming/           uploads and results being written
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
    """A folder locked by this server. Without `path`, a temporary one: created on first use and removed by `close`.

    Raises OSError if the folder cannot be created or another server uses it.
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
        """Return a new path to write to before moving the file to its place."""
        return self.root / "incoming" / token_hex(12)

    def content(self, file_id: str) -> Path:
        return self.root / "files" / file_id

    def input(self, batch_id: str) -> Path:
        return self.root / "batches" / f"{batch_id}.input"

    def journal(self, batch_id: str) -> Path:
        return self.root / "batches" / f"{batch_id}.journal"

    def describe(self, kind: str, name: str, description: Any) -> None:
        """Write `kind/name.json` atomically."""
        written = self.incoming()
        written.write_text(json.dumps(description), encoding="utf-8")
        written.replace(self.root / kind / f"{name}.json")

    def descriptions(self, kind: str) -> Iterator[Any]:
        """Yield the descriptions of a kind; none in a temporary folder that does not exist yet."""
        if self._root is not None:
            for path in sorted((self._root / kind).glob("*.json")):
                yield json.loads(path.read_text(encoding="utf-8"))

    def forget(self, kind: str, name: str) -> None:
        with suppress(FileNotFoundError):
            (self.root / kind / f"{name}.json").unlink()

    def keep_input(self, file_id: str, batch_id: str) -> None:
        """Link the content of a file as a batch's input, so that the file can be deleted."""
        kept = self.input(batch_id)
        kept.unlink(missing_ok=True)
        try:
            os.link(self.content(file_id), kept)
        except OSError:
            # some file systems have no links
            shutil.copyfile(self.content(file_id), kept)

    def clear(self, batch_id: str) -> None:
        """Remove input and journal of a finished batch."""
        self.input(batch_id).unlink(missing_ok=True)
        self.journal(batch_id).unlink(missing_ok=True)

    def _open(self, root: Path) -> None:
        # imported here: not needed without batches
        from filelock import FileLock, Timeout

        for name in ("files", "batches", "incoming"):
            (root / name).mkdir(0o700, parents=True, exist_ok=True)
        self._lock = FileLock(root / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OSError(f"the folder {root} is in use by another simulator") from None
        for path in (root / "incoming").iterdir():
            # of an upload that a crash interrupted
            path.unlink()
