"""The embedded server as a process of its own, so that it lives through whatever happens to the tools.

Run as a script it is that process: `python serving.py '{"latency": 0.1}'` says its port on stdout and serves until SIGTERM,
or until its stdin is closed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

PATIENCE = 30.0
KEY = "sk-simulated"


class ServerProcess:
    """The simulator with its files and its ledger in one folder; begun again there, it goes on where it was."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.folder = folder
        self.options = options
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {**self.options, "ledger": str(self.folder / "ledger.jsonl"), "data": str(self.folder / "data")}
        command = [sys.executable, __file__, json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError("the server did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=PATIENCE)
            self._process = None

    def restart(self, **changes: Any) -> None:
        """The same server with other options: credit was added, an outage is over."""
        self.stop()
        self.options = {**self.options, **changes}
        self.start()

    def charges(self) -> list[dict[str, Any]]:
        """Every answer that was paid for, over all lives of the server, oldest first."""
        path = self.folder / "ledger.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def get(self, path: str) -> bytes:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            content: bytes = answer.read()
        return content

    def batches(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.get("/simulator/batches"))
        return found

    def post(self, path: str) -> None:
        """Something that is done to the account by somebody else, as a cancellation in the dashboard."""
        request = urllib.request.Request(self.url + path, b"", {"Authorization": f"Bearer {KEY}"}, method="POST")
        urllib.request.urlopen(request, timeout=PATIENCE).close()


def _main() -> None:
    from bioforge.simulator import Simulator, SimulatorOptions

    given = json.loads(sys.argv[1])
    with_tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    simulator = Simulator(SimulatorOptions(**with_tuples))

    def until_alone() -> None:
        os.read(0, 1)
        with suppress(RuntimeError):  # it has ended by itself
            simulator.stop()

    # Nobody ends a server whose harness was killed: it ends when what it reads ends.
    threading.Thread(target=until_alone, daemon=True).start()
    simulator.run(lambda server: print(server.url, flush=True))


if __name__ == "__main__":
    _main()
