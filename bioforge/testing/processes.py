"""Run commands of a project: in this process, or in another one that may be killed or signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PATIENCE = 60.0
"""Seconds after which a wait fails."""

MOMENT = 0.001
"""Seconds until a look at something that cannot wake anybody is repeated; nothing depends on how many they are."""

KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else -9
"""The exit code of a process that was killed."""

ENVIRONMENT: Mapping[str, str] = dict.fromkeys(
    ("OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_PROMPT_ID", "PROMPT_ID", "PROMPT_VERSION"), ""
) | {"OPENAI_API_KEY": "test-key", "NO_COLOR": "1", "TIKTOKEN_CACHE_DIR": ""}
"""What every command finds: nothing of the person's own settings and keys, no colour, and no vocabularies that happen to
be on this machine."""

_FROM_OUTSIDE = ("OPENAI_", "BIOFORGE_")
_COLOURS = ("FORCE_COLOR", "CLICOLOR_FORCE")


def isolated(env: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """What to change in this process's environment for a command: `ENVIRONMENT`, then `env`.

    None is a variable that has to go.
    """
    outside = {name: None for name in os.environ if name.startswith(_FROM_OUTSIDE) or name in _COLOURS}
    return {**outside, **ENVIRONMENT, **(env or {})}


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended: its exit code, and what it wrote to stdout and stderr.

    ```python
    assert "2 targets" in project.run("plan").ok().out
    assert "no reader" in project.run("plan").failed(2).err
    ```
    """

    code: int
    out: str
    err: str

    def ok(self) -> Ran:
        """Return self after asserting that the command succeeded."""
        return self.failed(0)

    def failed(self, code: int) -> Ran:
        """Return self after asserting this exit code.

        1 a failure, 2 a mistake of the user, 75 stopped, 130 interrupted.
        """
        assert self.code == code, f"exit code {self.code}, expected {code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err, self.err
        return self


_unmet = threading.Event()


def wait_until(met: Callable[[], bool], what: str) -> None:
    """Look again and again until something is so, where there is nothing to be woken by.

    `what` is named when it never comes.

    ```python
    wait_until(lambda: len(simulator.ledger) >= 10 or running.gone(), "ten answers")
    ```
    """
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline, f"never came: {what}"
        _unmet.wait(MOMENT)


@cache
def command_line() -> Any:
    """The program as its entry point makes it, which takes as long as many a command."""
    import typer.main

    from bioforge.cli.app import app

    return typer.main.get_command(app)


def invoke(*arguments: str, env: Mapping[str, str] | None = None, stdin: str | None = None) -> Ran:
    """A command in this process, in its working folder, with texts for streams."""
    from typer.testing import CliRunner

    code = 0
    with CliRunner().isolation(input=stdin, env=isolated(env)) as streams:
        try:
            command_line().main(args=list(arguments), prog_name="bioforge")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        out, err = (stream.getvalue().decode().replace("\r\n", "\n") for stream in streams[:2])
    return Ran(code, out, err)


class Running:
    """A command at work in a process of its own, with an interpreter of its own, as a shell begins it.

    ```python
    running = project.start("run")
    wait_until(lambda: len(simulator.ledger) >= 10, "ten answers")
    running.kill()                       # or running.interrupt(), which is Ctrl-C
    assert running.end().code == KILLED
    project.process("resume").ok()
    ```
    Used with `with`, it is killed where the block is left before its end.
    """

    def __init__(self, root: Path, arguments: tuple[str, ...], env: Mapping[str, str] | None = None) -> None:
        environment = {**os.environ, **isolated(env)}
        # Files, not pipes: nobody reads while it runs, and a full pipe would stop it.
        self._streams = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - closed in `end`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bioforge", *arguments],
            cwd=root,
            env={name: value for name, value in environment.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=self._streams[0],
            stderr=self._streams[1],
        )
        self.pid = self._process.pid
        self._ran: Ran | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        self._process.send_signal(number)

    def interrupt(self) -> None:
        """Send Ctrl-C."""
        self.signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill with -9 and wait for the end."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def gone(self) -> bool:
        """Return True if the process has ended."""
        return self._process.poll() is not None

    def said(self) -> str:
        """Return its stderr so far."""
        return _text(self._streams[1].fileno()) if self._ran is None else self._ran.err

    def end(self) -> Ran:
        """Wait for the end and return the result."""
        if self._ran is not None:
            return self._ran
        try:
            self._process.wait(PATIENCE)
            in_time = True
        except subprocess.TimeoutExpired:
            in_time = False
            self.kill()
        self._ran = Ran(self._process.returncode, *(_text(stream.fileno()) for stream in self._streams))
        for stream in self._streams:
            stream.close()
        assert in_time, f"it did not end:\n{self._ran.err}"
        return self._ran

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.gone():
            self.kill()
        self.end()


def _text(descriptor: int) -> str:
    """Return the content of a file so far, without moving the position of its writer."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    return content.decode("utf-8", "replace").replace("\r\n", "\n")
