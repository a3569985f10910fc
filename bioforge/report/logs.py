"""Logs: events with fields on stderr, as text or JSON lines, and as JSON in a file; never a secret."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bioforge.core.errors import UsageError
from bioforge.core.files import private
from bioforge.core.text import printable, printable_json

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Write = Callable[[str], None]

MASK = "…"
_SECRET_TEXT = re.compile(r"\bsk-[\w*.-]{4,}|\b(?i:bearer)\s+[\w.~+/=*-]{4,}")
_SECRET_NAME = re.compile(r"(^|[_-])(api[_-]?key|authorization|password|secret)$", re.IGNORECASE)
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}


@dataclass(slots=True)
class Logs:
    """The configured logger. `every_attempt`: log each attempt as a debug event."""

    logger: FilteringBoundLogger
    format: str
    every_attempt: bool
    _screen: _Screen
    _file: _File | None = None

    def redirect(self, write: Write | None) -> None:
        """Send the lines for stderr to `write` while a live display is shown; None sends them to stderr again."""
        self._screen.write = write or _to_stderr

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def configure(
    format: str = "console", verbose: bool = False, log_file: Path | None = None, secrets: Iterable[str | None] = ()
) -> Logs:
    """Set up structlog for this package and every plugin that calls `structlog.get_logger()`.

    `format` is `console` or `json`. stderr gets level info and above; everything with `verbose` or as JSON.
    `log_file` gets everything as JSON and is appended to. `secrets` are masked everywhere. Raises `UsageError` if
    the file cannot be written.
    """
    import structlog

    screen = _Screen(format, logging.DEBUG if verbose or format == "json" else logging.INFO)
    file = _File(log_file) if log_file is not None else None
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _Mask(secrets),
            _Emit(screen, file),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(screen.level, logging.DEBUG if file else screen.level)),
        logger_factory=_NullLogger,
        cache_logger_on_first_use=False,
    )
    return Logs(structlog.get_logger(), format, screen.level == logging.DEBUG or file is not None, screen, file)


def colourful(stream: IO[str], environ: Mapping[str, str] | None = None) -> bool:
    """Return True if `stream` is a terminal with colours: not with NO_COLOR, not a dumb one."""
    environ = os.environ if environ is None else environ
    return is_terminal(stream) and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def mask(value: Any, secrets: tuple[str, ...] = ()) -> Any:
    """Return `value` with everything that looks like a key replaced, at any depth."""
    match value:
        case str():
            for secret in secrets:
                value = value.replace(secret, MASK)
            return _SECRET_TEXT.sub(MASK, value)
        case Mapping():
            return {name: _field(name, item, secrets) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [mask(item, secrets) for item in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return mask(str(value), secrets)


def _field(name: object, value: Any, secrets: tuple[str, ...]) -> Any:
    return MASK if value is not None and _SECRET_NAME.search(str(name)) else mask(value, secrets)


class _Mask:
    def __init__(self, secrets: Iterable[str | None]) -> None:
        # shorter keys, for local servers, may be ordinary words ("x", "none")
        self._secrets = tuple(secret for secret in secrets if secret and len(secret) >= 8)

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        return {key: _field(key, value, self._secrets) for key, value in event.items()}


class _Emit:
    """The last processor: writes a line to the screen and one to the file."""

    def __init__(self, screen: _Screen, file: _File | None) -> None:
        self._screen = screen
        self._file = file

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> str:
        now = datetime.now(UTC)
        fields = dict(event)
        level, text = str(fields.pop("level", name)), str(fields.pop("event", ""))
        if self._file is not None:
            self._file.write(as_json(now, level, text, fields))
        if logging.getLevelNamesMapping().get(level.upper(), logging.INFO) >= self._screen.level:
            self._screen.show(now, level, text, fields)
        return ""


class _NullLogger:
    """The logger below structlog, without output, since `_Emit` has written everything."""

    def __init__(self, *names: object) -> None:
        pass

    def msg(self, message: str) -> None:
        pass

    debug = info = warning = error = critical = fatal = exception = log = msg


class _Screen:
    def __init__(self, format: str, level: int) -> None:
        self.level = level
        self.write: Write = _to_stderr
        self._json = format == "json"
        self._colours = colourful(sys.stderr)

    def show(self, now: datetime, level: str, text: str, fields: Mapping[str, Any]) -> None:
        self.write(
            as_json(now, level, text, fields) if self._json else as_line(now, level, text, fields, self._colours)
        )


class _File:
    """Appends lines. If a write fails, the log ends with a message on stderr; the run continues."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._stream: IO[str] | None = open(  # noqa: SIM115 - closed by `close`
                path, "a", 1, encoding="utf-8", errors="backslashreplace", opener=private
            )
        except OSError as problem:
            raise UsageError(f"cannot write the log file {path}: {problem.strerror}") from None

    def write(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(line + "\n")
        except OSError as problem:
            self.close()
            _to_stderr(f"the log file {self._path} ends here: {problem.strerror}")

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError:
                return  # reported by `write`


def as_json(now: datetime, level: str, text: str, fields: Mapping[str, Any]) -> str:
    """Return one JSON object: `timestamp` (ISO 8601, UTC), `level`, `event`, then the fields."""
    stamp = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    found = {"timestamp": stamp, "level": level, "event": text, **fields}
    return printable_json(json.dumps(found, ensure_ascii=False, default=str))


def as_line(now: datetime, level: str, text: str, fields: Mapping[str, Any], colours: bool = False) -> str:
    """Return `12:03:04 info    event  key=value key='two words'`, in local time.

    A traceback follows on new lines.
    """
    fields = dict(fields)
    traceback = fields.pop("exception", None)
    clock = now.astimezone().strftime("%H:%M:%S")
    pairs = " ".join(f"{printable(name)}={_value(value)}" for name, value in fields.items())
    text = printable(text)
    if colours:
        clock, pairs = f"\x1b[2m{clock}\x1b[0m", pairs and f"\x1b[36m{pairs}\x1b[0m"
        shown = f"\x1b[{_COLOURS.get(level, '0')}m{level:<7}\x1b[0m"
    else:
        shown = f"{level:<7}"
    line = f"{clock} {shown} {text}" + (f"  {pairs}" if pairs else "")
    return line if traceback is None else "\n".join([line, *map(printable, str(traceback).splitlines())])


def _value(value: object) -> str:
    if isinstance(value, str):
        text = printable(value)
        return text if text and not re.search(r"[\s='\"]", text) else repr(text).replace("\\\\", "\\")
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(json.dumps(value, ensure_ascii=False, default=str))


def _to_stderr(line: str) -> None:
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # stderr is closed; the run continues
