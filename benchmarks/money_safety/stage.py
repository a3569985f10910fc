"""A stage: one tool in one folder, the server behind the gate, and the means to disturb what goes on between them."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from adapters import Adapter
from counting import Counts, Evidence, Row, count, unanswered
from gate import Gate, Moment, Strike
from serving import KEY, ServerProcess

HERE = Path(__file__).parent
ROWS = 30
RERUNS = 2
"""So often the same command is given again until all rows are answered."""
PATIENCE = 60.0
"""Seconds for one run of a tool; then it hangs."""
PROMPT = "Write a short biography of this artist, using only what is given."
CALLS = r"^/v1/(files|batches)"


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    err: str
    seconds: float


@dataclass(slots=True)
class Stage:
    adapter: Adapter
    folder: Path
    server: ServerProcess
    gate: Gate
    draw: random.Random
    repeat: int
    rows: list[Row] = field(default_factory=lambda: made_rows(ROWS))
    prompt: str = PROMPT
    ran: list[Ran] = field(default_factory=list)
    deaths: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    hopeless: int = 0
    """Rows that nothing can answer."""
    own_disk: bool = False
    """Whether the folder is a file system of its own, which can be filled."""
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # ------------------------------------------------------------------------------------------------------- the tool

    def begin(self, *confined: str, env: Mapping[str, str] | None = None, adapter: Adapter | None = None) -> Any:
        """The tool's command as a process of its own, in a session of its own."""
        command = (adapter or self.adapter).command(self.folder)
        argv = list(command.argv)
        if confined:
            argv = [sys.executable, str(HERE / "confine.py"), *confined, "--", *argv]
        given = {**command.env, **(env or {})}
        paths = [env["PYTHONPATH"] for env in (env or {}, command.env, os.environ) if env.get("PYTHONPATH")]
        environment = {
            **os.environ,
            "OPENAI_API_KEY": KEY,
            "HOME": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            **given,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        }
        with (self.folder.parent / f"err-{len(self._children)}.txt").open("wb") as err:
            child = subprocess.Popen(
                argv, cwd=self.folder, env=environment, stdout=err, stderr=err, start_new_session=True
            )
        with self._lock:
            self._children.append(child)
        return child

    def run(self, *confined: str, env: Mapping[str, str] | None = None, adapter: Adapter | None = None) -> Ran:
        """One run of the tool to its end, whatever that is."""
        self.gate.run = len(self.starts)
        self.starts.append(time.time())
        return self.end(self.begin(*confined, env=env, adapter=adapter))

    def end(self, child: subprocess.Popen[bytes]) -> Ran:
        before = time.time()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.notes["hung"] = self.notes.get("hung", 0) + 1
            self._kill(child)
            child.wait()
        self.gate.wait_until_quiet()
        path = self.folder.parent / f"err-{self._children.index(child)}.txt"
        said = path.read_text("utf-8", "replace")[-2000:].replace(str(self.folder), "…")
        self.ran.append(Ran(child.returncode, said, round(time.time() - before, 2)))
        return self.ran[-1]

    def kill(self) -> None:
        """kill -9 for the newest process and all it started."""
        with self._lock:
            child = self._children[-1]
        self._kill(child)

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        if child.poll() is None:
            self.deaths.append(time.time())
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def run_killed(self, at: int, moment: Moment, **strike: Any) -> Ran:
        """A run that is killed at its n-th request of a kind, if it makes so many."""
        aimed = self.gate.aim(Strike(at, moment, self.kill, **strike))
        ran = self.run()
        self.gate.strike = None
        self.notes.setdefault("killed", []).append(aimed.struck)
        return ran

    def finish(self) -> None:
        """The same command again until all rows are answered, at most so often; and once more when they are."""
        for _ in range(RERUNS):
            if self.complete():
                break
            self.run()
        if self.complete():
            self.run()

    def complete(self) -> bool:
        counts = self.counts()
        return counts.answered >= counts.rows - self.hopeless

    # ---------------------------------------------------------------------------------------------------- the job

    def prepare(self) -> None:
        self.adapter.prepare(self.folder, self.rows, self.prompt, self.gate.base_url)

    def change_rows(self) -> None:
        """One row says something else, and there is one more."""
        changed = self.rows[20]
        self.rows[20] = Row(changed.id, changed.name, "sculptor, active 1999")
        self.rows.append(made_row(len(self.rows)))
        self.prepare()

    def change_prompt(self, prompt: str) -> None:
        self.prompt = prompt
        self.prepare()

    def at_request(self, at: int, action: Callable[[], object], **strike: Any) -> None:
        """Do something when so many requests were answered, while the tool goes on."""
        self.gate.aim(Strike(at, "delivered", action, **strike))

    # ------------------------------------------------------------------------------------------------- the evidence

    def counts(self) -> Counts:
        return count(self._evidence(), self.rows, self.prompt, self._results(), self.adapter.kept(self.folder))

    def _results(self) -> dict[str, str]:
        try:
            return self.adapter.results(self.folder)
        except (ValueError, KeyError) as error:
            # An output that cannot be read is what a person would find, too.
            self.notes["unreadable"] = repr(error)
            return {}

    def _evidence(self) -> Evidence:
        fetchable: dict[tuple[str, str], Mapping[str, Any]] = {}
        for batch in self.server.batches():
            if batch.get("output_file_id"):
                content = self.server.get(f"/v1/files/{batch['output_file_id']}/content")
                for line in map(json.loads, content.splitlines()):
                    body = line["response"]["body"]
                    body = json.loads(body) if isinstance(body, str) else body
                    fetchable[batch["id"], line["custom_id"]] = body
        seen, bodies = list(self.gate.seen), dict(self.gate.bodies)
        return Evidence(self.server.charges(), seen, bodies, self.deaths, fetchable, self.starts)

    def report(self) -> dict[str, Any]:
        """The cell: counts, and how it came to them."""
        counts = self.counts()
        charges = {charge["request_id"]: charge for charge in self.server.charges()}
        found: dict[str, Any] = {
            name: getattr(counts, name)
            for name in (
                "rows",
                "answered",
                "charges",
                "twice",
                "in_flight",
                "just",
                "lost",
                "wrong",
                "unfit",
                "needless",
            )
        }
        found |= {"finished": counts.answered >= counts.rows - self.hopeless}
        found |= {"unknown": len(counts.unknown), "runs": len(self.starts), **self.notes}
        found["codes"] = [ran.code for ran in self.ran]
        said = {name: _nowhere(value) for name, value in self.adapter.said(self.folder).items()}
        if said:
            named = set(said.pop("named", ()))
            names = (charges[name]["client_request_id"] or charges[name]["custom_id"] for name in counts.unknown)
            found |= {"unnamed": sum(name not in named for name in names), **said}
            found["unanswered"] = unanswered(self.gate.seen, self.deaths)
        if not found["finished"] and self.ran:
            found["last_words"] = _nowhere(self.ran[-1].err[-300:])
        return found


class Staging:
    """Everything a cell needs, begun and ended: `with Staging(adapter, options, repeat) as stage`."""

    def __init__(
        self, adapter: Adapter, options: Mapping[str, Any], repeat: int, name: str = "", disk: int = 0
    ) -> None:
        """`disk`: bytes of a file system of its own for the tool's folder, where one can be had."""
        self._adapter, self._options, self._repeat, self._disk = adapter, dict(options), repeat, disk
        self._mounted = False
        self._seed = f"{adapter.name}:{name}:{repeat}"
        self._temporary = tempfile.TemporaryDirectory(prefix="money-", ignore_cleanup_errors=True)
        self._server: ServerProcess | None = None
        self._gate = Gate()
        self._stage: Stage | None = None

    def __enter__(self) -> Stage:
        root = Path(self._temporary.name)
        folder = root / "job"
        folder.mkdir()
        if self._disk:
            self._mounted = mounted(folder, self._disk)
        # Many fine draws from few repeats: neither the rows' faults nor the moments are the same twice.
        options = {"latency": 0.1, "latency_sigma": 0.3, "batch_seconds": 1.0, "seed": self._repeat, **self._options}
        self._server = ServerProcess(root / "server", options)
        self._server.start()
        self._gate.__enter__()
        self._gate.upstream = self._server.url
        stage = Stage(self._adapter, folder, self._server, self._gate, random.Random(self._seed), self._repeat)
        stage.own_disk = self._mounted
        stage.prepare()
        self._stage = stage
        return stage

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._stage is not None
        for child in self._stage._children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        self._gate.__exit__()
        self._server.stop()
        make_writable(self._stage.folder)
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self._stage.folder)], check=True)
        self._temporary.cleanup()

    def __call__(self) -> Self:
        return self


def _nowhere(value: Any) -> Any:
    """Without the paths of this machine."""
    return re.sub(r"(?:/[\w.+-]+)+/", "…/", value) if isinstance(value, str) else value


def made_rows(number: int) -> list[Row]:
    return [made_row(place) for place in range(number)]


def made_row(place: int) -> Row:
    return Row(f"r{place:04}", f"Artist r{place:04}", f"painter, active {1850 + place}")


def mounted(folder: Path, size: int) -> bool:
    """A file system of so many bytes in a folder; only root can have one. Says whether it is there."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return os.geteuid() == 0 and not subprocess.run(mount, capture_output=True, check=False).returncode


def used(folder: Path) -> int:
    """Bytes that are taken of the file system a folder is in."""
    disk = os.statvfs(folder)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def biggest(folder: Path) -> int:
    """Bytes of the largest file below a folder."""
    return max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)


def make_read_only(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        path.chmod(path.stat().st_mode & ~0o222)


def make_writable(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200)
