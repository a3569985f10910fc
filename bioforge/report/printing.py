"""Answers on stdout as they arrive (`--print`)."""

from __future__ import annotations

import os
import re
from typing import IO

from bioforge.core.types import Request
from bioforge.report.logs import is_terminal
from bioforge.report.tally import printable_id

_TERMINAL_CODES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Printer:
    """Prints texts in UTF-8, whatever the locale; on a terminal under a line that says whose they are.

    A reader that closes the pipe ends the printing, not the run: every answer is in the state before it is printed.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._terminal = is_terminal(stream)
        self._first = True
        self._closed = False
        self._reason = ""

    def print(self, request: Request, text: str) -> None:
        if self._closed:
            return
        if self._terminal:
            whose = " · ".join(filter(None, (printable_id(request.artist_id), request.recipe, request.variant)))
            gap = "" if self._first else "\n"
            # An answer must not move the cursor or retitle the window.
            text = f"{gap}── {whose}\n{_TERMINAL_CODES.sub('', text)}"
        self._first = False
        self._write(text if text.endswith("\n") else text + "\n")

    def problem(self) -> str:
        """What ended the printing before its time, once, if it was not simply that nobody reads any more."""
        problem, self._reason = self._reason, ""
        return problem

    def _write(self, text: str) -> None:
        try:
            raw = getattr(self._stream, "buffer", None)
            if raw is None:
                self._stream.write(text)
            else:
                self._stream.flush()
                raw.write(text.encode("utf-8", errors="replace"))
                raw.flush()
            self._stream.flush()
        except BrokenPipeError:
            self._close()
        except (OSError, ValueError) as problem:
            self._reason = getattr(problem, "strerror", None) or str(problem)
            self._close()

    def _close(self) -> None:
        self._closed = True
        try:
            # What is still buffered goes nowhere; else Python complains about the pipe when it exits.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):
            return  # not a real file, so there is nothing to complain about at exit
