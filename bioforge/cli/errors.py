"""The error edge: what went wrong, and what to do, in two lines and an exit code."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any, ParamSpec

import typer
from typer.core import TyperGroup

from bioforge.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED, BioforgeError, UsageError

Parameters = ParamSpec("Parameters")

DEBUG = "BIOFORGE_DEBUG"
"""Set to anything, it lets errors through with their traceback."""


_json_lines = ContextVar("json_lines", default=False)
"""Whether stderr is read by a program (`--log-format json`): then everything on it is a JSON object a line."""


def echo(text: str) -> None:
    """A line for people, on stderr; a closed stderr is no reason to fail."""
    level, _, rest = text.partition(": ")
    if _json_lines.get() and level in ("warning", "error"):
        _write(rest, level)
    else:
        _write(" ".join(text.split()) if _json_lines.get() else text)


def show_error(error: BioforgeError) -> None:
    if _json_lines.get():
        _write(error.message, "error", hint=error.hint)
        return
    echo(f"error: {error.message}")
    if error.hint:
        echo(f"hint: {error.hint}")


def _write(text: str, level: str = "info", **fields: str) -> None:
    if _json_lines.get():
        from datetime import UTC, datetime

        from bioforge.report.logs import as_json

        text = as_json(datetime.now(UTC), level, text, {name: value for name, value in fields.items() if value})
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


class Commands(TyperGroup):
    """The application as typer knows it, with its own complaints about a command line in the form of all others."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except typer.Abort:
            echo("stopped; nothing is lost")
            code = EXIT_INTERRUPTED
        except Exception as error:
            if not hasattr(error, "format_message"):  # its base class has no public name
                raise
            code = _show_usage(error)
        sys.exit(code if isinstance(code, int) else 0)


def _show_usage(error: Any) -> int:
    message = str(error.format_message())
    if message.startswith("Usage:"):  # no command at all: this is the help
        echo(message)
        return UsageError.exit_code
    message, _, near = message.removesuffix(".").partition(". Did you mean ")
    context = getattr(error, "ctx", None)
    hint = f"did you mean {near}" if near else f"see `{context.command_path} --help`" if context else ""
    show_error(UsageError(message[:1].lower() + message[1:], hint))
    return UsageError.exit_code


def command(function: Callable[Parameters, int | None]) -> Callable[Parameters, None]:
    """A command: returns its exit code, and raises only `BioforgeError` for what people can mend."""

    @functools.wraps(function)
    def edged(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        as_json = _json_lines.set(kwargs.get("log_format") == "json")
        # SIGTERM is Ctrl-C sent by a machine; while requests are in flight a run handles both itself
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            code = function(*args, **kwargs) or 0
            sys.stdout.flush()
        except BioforgeError as error:
            if os.environ.get(DEBUG):
                raise
            show_error(error)
            code = error.exit_code
        except BrokenPipeError:
            # the reader of stdout went away (`| head`); keep the interpreter from saying so once more
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = EXIT_FAILED
        except KeyboardInterrupt:
            echo("stopped; nothing is lost")
            code = EXIT_INTERRUPTED
        except OSError as error:
            if os.environ.get(DEBUG):
                raise
            where = f"{error.filename}: " if error.filename else ""
            show_error(BioforgeError(f"{where}{error.strerror or error}", "the state is intact; run again afterwards"))
            code = EXIT_STOPPED if error.errno in (errno.ENOSPC, errno.EDQUOT) else EXIT_FAILED
        finally:
            signal.signal(signal.SIGTERM, before)
            _json_lines.reset(as_json)
        raise typer.Exit(code)

    return edged


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
