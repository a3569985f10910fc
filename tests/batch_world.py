"""A small project that buys in batches, in processes that are really killed; and what must be true of it afterwards.

Its processes are forked by a server, so that a walk through all moments of a run takes seconds. Each is a process of its
own: the real commands, the real SDK, real sockets and a real state file.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

from processes import ENVIRONMENT, PATIENCE, Child, Ran
from projects import ProjectFolder, command_line

from bioforge.simulator import Simulator, SimulatorOptions
from bioforge.simulator.ledger import Charge
from bioforge.simulator.request_bodies import canonical, digest_of
from bioforge.store import Store
from bioforge.store.ledger import ledger

ARTISTS = """artist_id,artist_name,artist_data
1,Björk,Icelandic singer
2,Absalon,
3,"Abbey, Edwin Austin","American
painter"
4,Absalon,
"""
"""Three different requests for four artists: batches of two and of one."""

REQUESTS = 3

SETTINGS = """name = "batch"
[backend.batch]
poll_seconds = {poll_seconds}
poll_max_seconds = {poll_max_seconds}
max_requests = {max_requests}
[[output]]
path = "out.jsonl"
"""

CLEAN = "rows paid twice: 0, paid answers lost: 0"
"""How `audit` ends when nothing went wrong and nothing is unclear."""


# ------------------------------------------------------------------------------------------------ the folder of a project


class BatchWorld(ProjectFolder):
    """A project with the backend `batch`, and what the server and the state know of it."""

    def __init__(self, root: Path, server: Simulator, base_url: str | None = None, **settings: Any) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.base_url = base_url or server.base_url
        super().__init__(root, server)
        self.write("artists.csv", ARTISTS)
        self.settle(**settings)

    def settle(self, more: str = "", replaced: dict[str, str] | None = None, **settings: Any) -> None:
        """Write the project file anew, with these settings of `[backend.batch]`."""
        chosen = {"poll_seconds": 0.01, "poll_max_seconds": 0.05, "max_requests": 2, **settings}
        texts = {f'base_url = "{self.server.base_url}"': f'base_url = "{self.base_url}"', **(replaced or {})}
        self.configure(SETTINGS.format(**chosen) + more, **texts)

    def of_many(self, number: int) -> None:
        """As many artists as wanted instead of the four."""
        rows = "".join(f"{place},Artist {place},painter\n" for place in range(number))
        self.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)

    def run(self, *arguments: str, **options: Any) -> Ran:
        """A command in this process, or in one of its own where this is a walk's thread: a command handles signals."""
        if options:
            return super().run(*arguments, **options)
        if threading.current_thread() is not threading.main_thread():
            return self.command(*arguments)
        out, err, code = StringIO(), StringIO(), 0
        before = {name: os.environ.get(name) for name in ENVIRONMENT}
        os.environ.update(ENVIRONMENT)
        try:
            with chdir(self.root), redirect_stdout(out), redirect_stderr(err):
                command_line()(arguments, "bioforge")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        return Ran(code, out.getvalue(), err.getvalue())

    # ----------------------------------------------------------------------------------------- processes of its own

    def until(self, group: int, of: str = "", **order: Any) -> Ran:
        """A run that kills its own process when so many groups of events are durable, unless it ends before.

        `of` counts only groups that have such an event: the name of its class, or the state that a batch came to.
        """
        return Child(self.root, _run_until, (group, of, order)).end()

    def to_the_end(self, *commands: str, most: int = 3) -> list[Ran]:
        """Commands in new processes, one after another and the last one again, until one exits with 0."""
        ran = [self.command(commands[0])]
        while ran[-1].code != 0:
            assert len(ran) < most, f"after {most} runs still exit code {ran[-1].code}\n{ran[-1].err}"
            ran.append(self.command(commands[min(len(ran), len(commands) - 1)]))
        return ran

    # ------------------------------------------------------------------------------------------- what the server knows

    def ask(self, path: str) -> Any:
        """What the server answers, without the SDK and beside whatever stands between it and the project."""
        request = urllib.request.Request(self.server.url + path, headers={"Authorization": "Bearer test"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            content = answer.read()
        return json.loads(content) if answer.headers["content-type"] == "application/json" else content.decode()

    def jobs(self) -> list[dict[str, Any]]:
        """Every batch on the server, oldest first."""
        found: list[dict[str, Any]] = self.ask("/simulator/batches")
        return found

    def files(self) -> list[dict[str, Any]]:
        listed = self.ask("/v1/files")
        assert not listed["has_more"]
        found: list[dict[str, Any]] = listed["data"]
        return found

    def members(self, job: dict[str, Any]) -> list[str]:
        """The bodies that a batch on the server asks for, by digest."""
        lines = self.ask(f"/v1/files/{job['input_file_id']}/content").splitlines()
        return [_digest(json.loads(line)["body"]) for line in lines]

    def charges(self) -> list[Charge]:
        return self.server.ledger.entries()

    def counts(self) -> list[dict[str, int]]:
        """What became of the members of each collected batch, by class; oldest first."""
        rows = self.rows("SELECT counts FROM batches WHERE state = 'collected' ORDER BY prepared_at, key")
        return [json.loads(text) for (text,) in rows]

    # ------------------------------------------------------------------------------------------------- what must be true

    def facts(self) -> list[tuple[Any, ...]]:
        """What became of each artist, without ids and times."""
        return self.rows(
            "SELECT a.artist_id, t.recipe, t.variant, t.reason, t.detail, t.reason_before, t.held, t.accepted_hash,"
            " t.built_definition, t.built_row = a.row_hash, r.request_hash = t.request_hash, r.text, r.usable, r.model,"
            " r.input_tokens, r.output_tokens, r.cost_usd, q.state, q.batch, q.error_class"
            " FROM artists a JOIN targets t ON t.artist = a.id LEFT JOIN responses r ON r.id = t.built_response"
            " LEFT JOIN requests q ON q.request_hash = t.request_hash ORDER BY a.artist_id, t.recipe, t.variant"
        )

    def texts(self) -> dict[str, str | None]:
        return dict(self.rows("SELECT artist_id, text FROM results"))

    def assert_all_fresh(self) -> None:
        """Every target is up to date with a text, and the output says the same as the state."""
        rows = self.rows("SELECT artist_id, state, text FROM results")
        artists = {row["artist_id"] for row in csv.DictReader(StringIO(self.read("artists.csv")))}
        assert {row[0] for row in rows} == artists
        assert {row[1] for row in rows} == {"fresh"}, f"not all are fresh: {rows}"
        assert all(row[2] for row in rows)
        written = [json.loads(line) for line in self.read("out.jsonl").splitlines()]
        assert {record["artist_id"]: record["response_text"] for record in written} == self.texts()

    def assert_bought_once(self, *tiers: str) -> None:
        """Each request that was ever made was charged for exactly once, at one of these tiers."""
        known = {
            _digest(json.loads(body)): json.loads(body).get("input", "?")
            for (body,) in self.rows("SELECT body FROM requests")
        }
        bought = Counter(charge.body_sha256 for charge in self.charges())
        wrong = {
            known.get(body, body): bought[body] for body in {*known, *bought} if bought[body] != 1 or body not in known
        }
        assert not wrong, f"times these were charged for: {wrong}"
        found = {charge.service_tier for charge in self.charges()}
        assert found <= set(tiers or ("batch",)), f"bought as {found}"

    def assert_books_agree(self, hidden: bool = False) -> None:
        """Each charge is an answer that is kept, and nothing else is; `hidden`: or an attempt said to be unclear."""
        charged = Counter(charge.custom_id or charge.client_request_id for charge in self.charges())
        assert not charged or max(charged.values()) == 1, "one attempt was charged twice"
        paid, maybe = (
            {row[0] for row in self.rows("SELECT client_request_id FROM attempts WHERE paid = ?", word)}
            for word in ("yes", "maybe")
        )
        assert paid <= charged.keys(), "the state says paid for what was never charged"
        assert charged.keys() - paid <= (maybe if hidden else set()), "charged, and the state does not know"
        answers = self.rows(
            "SELECT x.client_request_id, count(r.id) FROM attempts x LEFT JOIN responses r ON r.attempt = x.id"
            " WHERE x.paid = 'yes' GROUP BY x.id"
        )
        assert {count for _, count in answers} <= {1}, "a paid answer is not kept exactly once"
        requests = self.rows("SELECT requests FROM batches WHERE state = 'collected' ORDER BY prepared_at, key")
        for (number,), counted in zip(requests, self.counts(), strict=True):
            strays = sum(counted.get(kind, 0) for kind in ("duplicated", "unknown", "unreadable"))
            assert sum(counted.values()) - strays == number, f"the counts {counted} are not those of {number} members"
        assert self.value("PRAGMA integrity_check") == "ok"

    def assert_nothing_orphaned(self) -> None:
        """Every batch and every file on the server is known to the state, and nothing in the state is left open."""
        known = self.rows("SELECT key, batch_id, file_id, output_file_id, error_file_id, state FROM batches")
        by_id = {row[1]: row[0] for row in known if row[1]}
        for job in self.jobs():
            assert by_id.get(job["id"]) == job["metadata"]["bioforge"], f"an orphaned batch: {job}"
        files = {name for row in known for name in row[2:5] if name}
        assert {file["id"] for file in self.files()} <= files, "an orphaned file"
        assert {row[5] for row in known} <= {"collected", "released"}, f"left open: {known}"
        assert self.value("SELECT count(*) FROM attempts WHERE outcome = 'started'") == 0, "an attempt was left open"
        assert not list(self.root.glob("bioforge.db.batches/*")), "files of batches were left behind"

    def assert_no_member_in_two_batches(self) -> None:
        members = Counter(body for job in self.jobs() for body in self.members(job))
        assert set(members.values()) <= {1}, "a request is in two batches on the server"

    def assert_clean_audit(self) -> None:
        with Store.read(self.root / "bioforge.db") as store:
            found = ledger(store)
        assert (found.paid_twice, found.lost, found.maybe_paid, found.in_flight, found.in_batches) == (0, 0, 0, 0, 0)
        if threading.current_thread() is threading.main_thread():
            assert self.run("audit").ok().out.splitlines()[-1] == CLEAN

    def assert_undisturbed(self, facts: list[tuple[Any, ...]]) -> None:
        """As after a run to which nothing happened, whose `facts` these are."""
        assert self.facts() == facts, f"it came to something else: {self.facts()}"
        self.assert_all_fresh()
        self.assert_bought_once()
        self.assert_books_agree()
        self.assert_no_member_in_two_batches()
        self.assert_nothing_orphaned()
        self.assert_clean_audit()


def _digest(body: object) -> str:
    return digest_of(canonical(body)).hex()


@contextmanager
def world(folder: Path, settings: dict[str, Any] | None = None, **options: Any) -> Iterator[BatchWorld]:
    """A world with a server of its own, which has these options."""
    with provider(folder, **options) as server:
        yield BatchWorld(folder / "project", server, **(settings or {}))


def provider(folder: Path, port: int = 0, **options: Any) -> Simulator:
    """A server whose files and batches outlive it, so that a later one goes on where it was."""
    chosen = {"batch_seconds": 0, "data": folder / "provider", **options}
    return Simulator(SimulatorOptions(**chosen), port=port)


def walk(step: Callable[[int], bool], *, start: int = 1, stride: int = 1, abreast: int = 2) -> int:
    """Take all steps of a walk, some of them at once, until one finds nothing to disturb any more; which one that was."""
    with ThreadPoolExecutor(abreast) as pool:
        for place in count(start, stride * abreast):
            disturbed = list(pool.map(step, range(place, place + stride * abreast, stride)))
            if not all(disturbed):
                return place + stride * disturbed.index(False)
    raise AssertionError("a walk without an end")


# ------------------------------------------------------------------------------------------------ processes of a project


def _run_until(group: int, of: str, order: dict[str, Any]) -> int:
    from bioforge.cli.options import open_project
    from bioforge.core.interfaces import Stop
    from bioforge.engine.types import RunOptions

    project = open_project(None)
    return project.run(RunOptions(selection=project.selection((), ()), **order), _Mortal(group, of), Stop()).exit_code


class _Mortal:
    """A watcher that kills its own process as soon as the n-th group of events is durable; 0: before there is any."""

    def __init__(self, groups: int, of: str) -> None:
        self._left = groups
        self._of = of

    def recovered(self, *_: object) -> None: ...
    def planned(self, *_: object) -> None: ...
    def grown(self, *_: object) -> None: ...
    def finish(self) -> None: ...

    def start(self, *_: object) -> None:
        self._die_in_time()

    def show(self, events: Sequence[object], gauges: object) -> None:
        if any(self._of in ("", *_names(event)) for event in events):
            self._left -= 1
            self._die_in_time()

    def _die_in_time(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _names(event: object) -> tuple[str, ...]:
    from bioforge.core.events import BatchChanged

    return (type(event).__name__, *([str(event.batch.state)] if isinstance(event, BatchChanged) else []))
