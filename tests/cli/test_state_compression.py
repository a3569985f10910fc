"""`gc --compress`: a state takes less space, and everything that reads it shows what it showed before."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from projects import ProjectFolder

from bioforge.store import compression

ROWS = "SELECT request_hash, body FROM requests ORDER BY request_hash"
POLLING = "[backend.batch]\npoll_seconds = 0.01\npoll_max_seconds = 0.05\n"


def shown(project: ProjectFolder) -> list[str]:
    """What people see of a state, without what its times are counted from."""
    commands = (("export",), ("export", "--format", "csv"), ("audit",), ("plan", "--format", "json"))
    return [project.run(*command).out for command in commands]


def test_a_packed_state_shows_what_it_showed(project: ProjectFolder) -> None:
    project.run("run").ok()
    before, charged = shown(project), project.charged()
    assert '"request": {"hash"' in before[0]
    kept, answers = project.rows(ROWS), project.rows("SELECT body FROM responses ORDER BY id")
    done = project.run("gc", "--compress").ok()
    assert "7 bodies compressed: 0.0 MB → 0.0 MB; the state: 0." in done.err, "the first request has no dictionary"
    assert "note: new bodies are stored as they are: `compress_bodies` is not set in [project]" in done.err
    assert shown(project) == before
    assert "1 body compressed" in project.run("gc", "--compress").ok().err
    assert {type(body) for _, body in project.rows(ROWS)} == {bytes}
    assert shown(project) == before
    project.run("why", "1").ok()
    project.run("run").ok()
    assert project.charged() == charged, "nothing has become stale by it"
    assert "0 bodies compressed" in project.run("gc", "--compress").ok().err
    back = project.run("gc", "--decompress").ok()
    assert "8 bodies decompressed" in back.err
    assert "note" not in back.err
    assert (project.rows(ROWS), project.rows("SELECT body FROM responses ORDER BY id")) == (kept, answers)


def test_states_are_mixed(project: ProjectFolder) -> None:
    """A state that was packed goes on, and the requests of its batches are read whichever way they are kept."""
    project.configure(more=POLLING)
    project.run("run").ok()
    project.run("gc", "--compress").ok()
    project.write("artists.csv", project.read("artists.csv") + "9,Hilma af Klint,Swedish painter,1862\n")
    project.run("run", "--backend", "batch").ok()
    assert {type(body) for _, body in project.rows(ROWS)} == {bytes, str}
    assert len(project.run("export").ok().out.splitlines()) == 5
    project.run("run", "-B", "--backend", "batch").ok()
    assert project.charged() == 10
    assert project.value("SELECT count(*) FROM responses") == 10
    project.run("gc", "--compress").ok()
    project.run("forget", "1", "--yes").ok()
    project.run("gc", "--yes").ok()
    project.run("run").ok()
    assert project.charged() == 11
    project.run("audit").ok()


def test_it_needs_neither_the_input_nor_a_terminal(project: ProjectFolder) -> None:
    project.run("run").ok()
    (project.root / "artists.csv").unlink()
    project.run("gc", "--compress").ok()
    assert project.value("SELECT command FROM runs ORDER BY id DESC LIMIT 1") == "gc --compress"


def test_one_that_was_stopped_is_shown_as_what_it_was(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: object) -> None:
        raise KeyboardInterrupt

    project.run("run").ok()
    with monkeypatch.context() as patched:
        patched.setattr(compression, "repack", stopped)
        interrupted = project.run("gc", "--compress")
    assert (interrupted.code, "nothing is lost" in interrupted.err) == (130, True)
    newest = "SELECT state, exit_code FROM runs ORDER BY id DESC LIMIT 1"
    assert project.rows(newest) == [("interrupted", 130)]
    project.run("gc", "--compress").ok()
    assert project.rows(newest) == [("finished", 0)]


def test_one_way_at_a_time(project: ProjectFolder) -> None:
    project.run("run").ok()
    refused = project.run("gc", "--compress", "--decompress")
    assert (refused.code, "--compress and --decompress" in refused.err) == (2, True)


def test_a_damaged_body_is_named_and_nothing_else_is_lost(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.run("gc", "--compress").ok()
    digest = project.value("SELECT request_hash FROM requests WHERE typeof(body) = 'blob' LIMIT 1")
    with closing(sqlite3.connect(project.root / "bioforge.db")) as connection, connection:
        connection.execute(
            "UPDATE requests SET body = substr(body, 1, length(body) - 2) WHERE request_hash = ?", (digest,)
        )
    failed = project.run("export")
    assert failed.code == 2
    assert f"the body in requests, {digest} cannot be decompressed" in failed.err
    assert "backup" in failed.err
    assert "Traceback" not in failed.err
    project.run("status").ok()


def test_a_raw_answer_is_read_as_the_page_says(project: ProjectFolder) -> None:
    """By a program that knows nothing but SQLite, Zstandard and zlib."""
    project.run("run").ok()
    raw = "SELECT {} FROM responses ORDER BY id"
    before = [json.loads(row[0]) for row in project.rows(raw.format("body"))]
    project.run("gc", "--compress").ok()
    page = (Path(__file__).parents[2] / "docs" / "state.md").read_text("utf-8")
    code = page.split("### Packed bodies")[1].split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(code, names)
    with closing(sqlite3.connect(project.root / "bioforge.db")) as connection:
        names["prepare_connection"](connection)  # type: ignore[operator]
        found = connection.execute(raw.format("json_extract(unpacked(body), '$.id')")).fetchall()
        assert [row[0] for row in found] == [answer["id"] for answer in before]
        assert [json.loads(row[0]) for row in connection.execute(raw.format("unpacked(body)"))] == before
