"""The edge of the command line: errors become two lines (`error:`, `hint:`) and an exit code."""

from __future__ import annotations

import errno
import functools
import io
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from typing import IO, TYPE_CHECKING, Any, ParamSpec, cast

import typer
from typer.core import TyperGroup

from bioforge.cli.signals import handling, interrupt
from bioforge.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED, BioforgeError, UsageError

if TYPE_CHECKING:
    from bioforge.report.console import Screen

Parameters = ParamSpec("Parameters")

DEBUG = "BIOFORGE_DEBUG"
"""Environment variable; if it is set, errors keep their traceback."""


_json_lines = ContextVar("json_lines", default=False)
"""True with `--log-format json`: stderr is read by a program, and every line on it is a JSON object."""


def echo(text: str, *, breaks: bool = False) -> None:
    """Print a line for people on stderr, with `breaks` several. A closed stderr is not an error."""
    if not _json_lines.get():
        for line in stderr_screen().message(text, breaks=breaks):
            _print(line)
        return
    level, _, rest = text.partition(": ")
    if level in ("warning", "error"):
        log(rest, level)
    else:
        log(" ".join(text.split()))


def json_logs() -> bool:
    """Return True with `--log-format json`: plans and results are then logged by `log`, as fields."""
    return _json_lines.get()


def log(event: str, level: str = "info", **fields: Any) -> None:
    """Print an event with typed fields as a JSON line on stderr."""
    from datetime import UTC, datetime

    from bioforge.report.logs import as_json, mask

    _print(as_json(datetime.now(UTC), level, event, mask(fields)))


def show(lines: Iterable[str]) -> None:
    """Print lines for people on stdout, printable and wrapped to the screen."""
    from bioforge.report.console import wrap

    width = stdout_screen().width
    for line in lines:
        for piece in wrap(line, width):
            print(piece)


def stdout_bytes() -> IO[bytes]:
    """Return stdout for content: unchanged in files and pipes, printable on a terminal. Raises `UsageError` if closed."""
    from bioforge.report.console import TerminalBytes
    from bioforge.report.logs import is_terminal

    check_stdout()
    return cast("IO[bytes]", TerminalBytes(sys.stdout)) if is_terminal(sys.stdout) else sys.stdout.buffer


def check_stdout() -> None:
    """Raise `UsageError` if stdout was closed when the program started, and its output would be lost."""
    if isinstance(sys.stdout, _ClosedStdout):
        sys.stdout.write("")


class _ClosedStdout(io.StringIO):
    """A stdout that was closed when the program started."""

    def write(self, text: str) -> int:
        raise UsageError("stdout is closed", "redirect it to a file or a pipe, or to /dev/null")


def open_streams() -> None:
    """Replace closed standard streams, whose descriptors the state or an output would get otherwise.

    Writing to a closed stdout remains an error; texts for a closed stderr are dropped.
    """
    while (spare := os.open(os.devnull, os.O_RDONLY)) < 3:
        pass
    os.close(spare)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 - open to the end
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = _ClosedStdout()


def stderr_screen() -> Screen:
    """Return the screen that `echo` writes to; plain for JSON lines."""
    from bioforge.report.console import PLAIN, Screen

    return PLAIN if _json_lines.get() else Screen.of(sys.stderr)


def stdout_screen() -> Screen:
    """Return the screen that `show` writes to."""
    from bioforge.report.console import Screen

    return Screen.of(sys.stdout)


def show_error(error: BioforgeError) -> None:
    """Print an error with its hint on stderr."""
    if _json_lines.get():
        log(error.message, "error", **({"hint": error.hint} if error.hint else {}))
        return
    echo(f"error: {error.message}", breaks=True)
    if error.hint:
        echo(f"hint: {error.hint}", breaks=True)


def _print(line: str) -> None:
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


class Commands(TyperGroup):
    """A group of commands that shows usage errors in the form of all other errors."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except typer.Abort:
            echo("stopped; nothing is lost")
            code = EXIT_INTERRUPTED
        except BioforgeError as error:  # help for a closed stdout
            if os.environ.get(DEBUG):
                raise
            show_error(error)
            code = error.exit_code
        except Exception as error:
            if not hasattr(error, "format_message"):  # its base class has no public name
                raise
            code = _show_usage(error)
        sys.exit(code if isinstance(code, int) else 0)


def _show_usage(error: Any) -> int:
    message = str(error.format_message())
    if message.startswith("Usage:"):  # no command was given: this is the help
        _print(message)
        return UsageError.exit_code
    message, _, near = message.removesuffix(".").partition(". Did you mean ")
    context = getattr(error, "ctx", None)
    hint = f"did you mean {near}" if near else f"see `{context.command_path} --help`" if context else ""
    show_error(UsageError(message[:1].lower() + message[1:], hint))
    return UsageError.exit_code


def command(function: Callable[Parameters, int | None]) -> Callable[Parameters, None]:
    """Wrap a command that returns its exit code: turn exceptions into messages and exit codes."""

    @functools.wraps(function)
    def run_command(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        token = _json_lines.set(kwargs.get("log_format") == "json")
        try:
            with handling(interrupt):  # a run with requests in flight installs its own handlers
                code = function(*args, **kwargs) or 0
                sys.stdout.flush()
        except BioforgeError as error:
            if os.environ.get(DEBUG):
                raise
            show_error(error)
            code = error.exit_code
        except BrokenPipeError:
            # the reader of stdout has gone (`| head`); keep the interpreter from reporting it again
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
            _json_lines.reset(token)
        raise typer.Exit(code)

    return run_command
