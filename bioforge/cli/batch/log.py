"""The log of `bioforge batch …`: a JSON line for each API call, without secrets and bodies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bioforge.cli.errors import echo
from bioforge.core.files import private

if TYPE_CHECKING:
    from bioforge.backends.batch.service import CallError

FOLDER = "logs"


def default_path() -> Path:
    """Return `logs/batch-YYYYMMDD.jsonl` in the working folder, by the local date."""
    return Path(FOLDER, f"batch-{datetime.now():%Y%m%d}.jsonl")


class OperationsLog:
    """A log file, created with its folder after the first call. If it cannot be written, one warning is printed."""

    def __init__(self, path: Path | None, command: str, secrets: Iterable[str | None] = ()) -> None:
        self._path = path or default_path()
        self._command = command
        self._secrets = tuple(secret for secret in secrets if secret and len(secret) >= 8)
        self._broken = False

    def __call__(self, operation: str, ids: Mapping[str, str], seconds: float, error: CallError | None) -> None:
        """Append a finished call."""
        from bioforge.core.types import Paid

        line: dict[str, object] = {
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "command": self._command,
            "operation": operation,
            **ids,
            "outcome": "ok",
            "seconds": round(seconds, 3),
        }
        if error is not None:
            failure = error.failure
            line["outcome"] = "unclear" if error.outcome.paid is Paid.MAYBE else "failed"
            line["error_class"] = failure.error_class
            more = {"http_status": failure.http_status, "code": failure.code}
            line |= {name: value for name, value in more.items() if value is not None}
        self._append(line)

    def _append(self, line: Mapping[str, object]) -> None:
        from bioforge.report.logs import mask

        if self._broken:
            return
        text = json.dumps(mask(line, self._secrets), ensure_ascii=False)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8", errors="backslashreplace", opener=private) as stream:
                stream.write(text + "\n")
        except OSError as problem:
            self._broken = True
            echo(f"warning: the log {self._path} cannot be written: {problem.strerror or problem}")
