"""The error edge: what went wrong, and what to do, in two lines and an exit code."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import ParamSpec

import typer

from bioforge.errors import EXIT_FAILED, EXIT_INTERRUPTED, BioforgeError

Parameters = ParamSpec("Parameters")

DEBUG = "BIOFORGE_DEBUG"
"""Set to anything, it lets errors through with their traceback."""


def say(text: str) -> None:
    """A line for people, on stderr; a closed stderr is no reason to fail."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def show_error(error: BioforgeError) -> None:
    say(f"error: {error.message}")
    if error.hint:
        say(f"hint: {error.hint}")


def command(function: Callable[Parameters, int | None]) -> Callable[Parameters, None]:
    """A command: returns its exit code, and raises only `BioforgeError` for what people can mend."""

    @functools.wraps(function)
    def edged(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
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
            say("stopped; nothing is lost")
            code = EXIT_INTERRUPTED
        except OSError as error:
            if os.environ.get(DEBUG):
                raise
            where = f"{error.filename}: " if error.filename else ""
            show_error(BioforgeError(f"{where}{error.strerror or error}", "the state is intact; run again afterwards"))
            code = EXIT_FAILED
        finally:
            signal.signal(signal.SIGTERM, before)
        raise typer.Exit(code)

    return edged


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
