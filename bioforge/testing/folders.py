"""A project folder to run commands in, with access to its state and its charges."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import chdir, closing
from pathlib import Path
from typing import Any, Protocol

from bioforge.simulator import Simulator
from bioforge.testing.processes import Ran, Running, invoke

ARTISTS = """artist_id,artist_name,artist_data,born
1,Björk,Icelandic singer,1965
2,"Abakanowicz, Magdalena",Polish sculptor,1930
3,Absalon,,1964
0,"Abbey, Edwin Austin","American
painter",1852
"""
"""The default input: four rows, one without data, one with the id 0 and a line break."""

Tables = Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]]
"""Tables of a project file by name; a list is an array of tables, as `output` is one."""

TABLES: Tables = {
    "project": {"name": "test"},
    "provider": {"base_url": "{base_url}"},
    "input": {"path": "artists.csv"},
    "recipe": {
        "bio": {
            "model": "gpt-6-luna",
            "instructions": "Write a biography.",
            "input": "{{ artist_name }}: {{ artist_data }}",
            "max_output_tokens": 400,
        }
    },
    "retry": {"first_delay": 0.001},
    "backend": {"concurrency": 4},
}
"""The default project file. `{base_url}` is the simulator's address."""


class Server(Protocol):
    """A server that a backend sends to, with its charges."""

    @property
    def base_url(self) -> str:
        """Return its address for `[provider] base_url`."""

    def charged(self) -> Sequence[str | None]:
        """Return the ids of charged attempts, each as often as it was charged: the client's request id.

        Or in a batch the `custom_id` of the line. Safe from any thread.
        """


class ProjectFolder:
    """A project in a folder of its own, with a simulator beside it whose ledger outlives every run.

    ```python
    def test_sheets_are_read(make_project):
        project = make_project({"artists.xlsx": sheet()}, toml={"input": {"path": "artists.xlsx", "sheet": "People"}})
        assert project.run("plan").ok()
        project.run("run").ok()
        project.assert_ledger_equals_state()
    ```
    `toml` is the text of bioforge.toml, or its tables: those that are left out are the default's (`TABLES`). In both,
    `{base_url}` stands for the address of the simulator, in whose place any other `Server` can be. `files` are texts or
    bytes by name; `artists.csv` is written where they do not have it.
    """

    def __init__(
        self,
        root: Path,
        simulator: Simulator | Server,
        files: Mapping[str, str | bytes] | None = None,
        toml: str | Tables | None = None,
    ) -> None:
        self.root = root
        self.simulator = simulator
        self.running: list[Running] = []
        for name, content in {"artists.csv": ARTISTS, **(files or {})}.items():
            self.write(name, content)
        text = toml if isinstance(toml, str) else project_file({**TABLES, **(toml or {})})
        self.write("bioforge.toml", text.replace("{base_url}", simulator.base_url))

    # -------------------------------------------------------------------------------------------------------- files

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file of the folder, which the next command sees as changed. Return its path."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        self.age(name)
        return path

    def age(self, name: str) -> None:
        """Make a file look older, since a file as young as its reading does not count as untouched.

        For files not written by `write`.
        """
        path = self.root / name
        found = path.stat()
        old = found.st_mtime_ns - 10_000_000_000 + found.st_size
        os.utime(path, ns=(old, old))

    def read(self, name: str) -> str:
        """Return the text of a file in the folder."""
        return (self.root / name).read_text("utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file, which must contain it."""
        text = self.read(name)
        assert old in text, f"{old!r} is not in {name}"
        self.write(name, text.replace(old, new))

    # ----------------------------------------------------------------------------------------------------- commands

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str | None = None) -> Ran:
        """Run a command in this process, with this folder as working folder: `project.run("plan").ok()`."""
        with chdir(self.root):
            return invoke(*arguments, env=env, stdin=stdin)

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> Running:
        """Start a command in another process, which can be killed, interrupted and resumed.

        The fixtures kill processes that are left when the test ends.
        """
        running = Running(self.root, arguments, env)
        self.running.append(running)
        return running

    def process(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ran:
        """Run a command in another process to its end."""
        return self.start(*arguments, env=env).end()

    def close(self) -> None:
        """Kill running processes."""
        for running in self.running:
            with running:
                pass
        self.running.clear()

    # -------------------------------------------------------------------------------------------------- what it says

    def plan(self, *arguments: str) -> dict[str, Any]:
        """Return the output of `plan --format json`."""
        found: dict[str, Any] = json.loads(self.run("plan", "--format", "json", *arguments).ok().out)
        return found

    def reasons(self) -> dict[str, int]:
        """Return the number of stale targets by reason; empty when everything is up to date."""
        found: dict[str, int] = {}
        for group in self.plan()["groups"]:
            found[group["reason"]] = found.get(group["reason"], 0) + group["targets"]
        return found

    def records(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the records of `export`, as a writer receives them."""
        return [json.loads(line) for line in self.run("export", "-F", "jsonl", *arguments).ok().out.splitlines()]

    # ---------------------------------------------------------------------------------------------------- the state

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return rows of the state: `project.rows("SELECT artist_id FROM artists")`. Its tables are in docs/state.md."""
        with closing(sqlite3.connect(self.root / "bioforge.db")) as connection:
            return connection.execute(sql, values).fetchall()

    def value(self, sql: str, *values: object) -> Any:
        """Return the first value of the first row."""
        return self.rows(sql, *values)[0][0]

    def charged(self) -> int:
        """Return the number of answers that the simulator has charged for."""
        return len(charged_by(self.simulator))

    def assert_ledger_equals_state(self, charges: Iterable[str | None] | None = None) -> None:
        """Assert that every charge is a stored answer or a maybe paid attempt, and nothing else.

        `charges` are ids that a provider has charged for: the client's request id, or the `custom_id` of a
        line in a batch. None: those of the simulator or another server in its place.
        """
        ids = charged_by(self.simulator) if charges is None else list(charges)
        twice = [name for name, times in Counter(ids).items() if times > 1]
        assert not twice, f"one attempt was charged for more than once: {twice}"
        charged = set(ids)
        paid = {row[0] for row in self.rows("SELECT client_request_id FROM attempts WHERE paid = 'yes'")}
        maybe = {row[0] for row in self.rows("SELECT client_request_id FROM attempts WHERE paid = 'maybe'")}
        assert paid <= charged, f"the state says paid for what was never charged: {sorted(paid - charged)}"
        unknown = charged - paid - maybe
        assert not unknown, f"charged, and the state does not know: {sorted(map(str, unknown))}"
        lost = self.rows(
            "SELECT client_request_id FROM attempts x WHERE paid = 'yes' AND NOT EXISTS"
            " (SELECT 1 FROM responses r WHERE r.attempt = x.id)"
        )
        assert not lost, f"paid for, and the answer is not kept: {lost}"
        assert self.value("PRAGMA integrity_check") == "ok"

    def assert_nothing_paid_twice(self) -> None:
        """Assert that no request has two paid answers. Not for a story that resends on purpose."""
        twice = self.rows(
            "SELECT request_hash, count(*) FROM attempts WHERE paid = 'yes' GROUP BY request_hash HAVING count(*) > 1"
        )
        assert not twice, f"paid for more than once: {twice}"


def charged_by(server: Simulator | Server) -> list[str | None]:
    """Return the ids that a server has charged for: in a batch the names of its lines."""
    if isinstance(server, Simulator):
        return [charge.custom_id or charge.client_request_id for charge in server.ledger.entries()]
    return list(server.charged())


# ------------------------------------------------------------------------------------------------------ project file


def project_file(tables: Tables) -> str:
    """Return the text of a project file with these tables.

    ```python
    project_file({"input": {"path": "a.xml"}, "output": [{"path": "out.csv"}, {"path": "out.md"}]})
    ```
    """
    lines: list[str] = []
    for name, table in tables.items():
        if isinstance(table, Mapping):
            _table(lines, f"[{_key(name)}]", _key(name), table)
        else:
            for one in table:
                _table(lines, f"[[{_key(name)}]]", _key(name), one)
    return "\n".join(lines) + "\n"


def _table(lines: list[str], head: str, path: str, table: Mapping[str, Any]) -> None:
    inner = {name: value for name, value in table.items() if isinstance(value, Mapping)}
    lines.append(head)
    lines += [f"{_key(name)} = {_value(value)}" for name, value in table.items() if name not in inner]
    for name, value in inner.items():
        below = f"{path}.{_key(name)}"
        _table(lines, f"[{below}]", below, value)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_value(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str | bool | int | float):
        # A text of JSON is one of TOML, but for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    raise TypeError(f"a project file cannot hold {value!r}")


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _value(name)
