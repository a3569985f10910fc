"""`compress_bodies`: whatever is kept takes less space, and nothing else is different."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from projects import ProjectFolder

from bioforge.core.events import Attempt, Failed, Started
from bioforge.core.types import Failure, Paid, Request
from bioforge.store import Selection, Store, compression, runs
from bioforge.store import recorder as recorder_store

ON = {'name = "test"': 'name = "test"\ncompress_bodies = true'}
POLLING = "[backend.batch]\npoll_seconds = 0.01\npoll_max_seconds = 0.05\n"


def _is_compressed(value: object) -> bool:
    return isinstance(value, bytes) and value.startswith(compression.MAGIC)


def kinds(project: ProjectFolder, table: str) -> set[str]:
    """How the bodies of a table are kept, but for the first ones, which have no dictionary yet."""
    found = project.rows(f"SELECT body FROM {table} WHERE body IS NOT NULL ORDER BY rowid")
    return {"packed" if _is_compressed(body) else type(body).__name__ for (body,) in found[1:]}


def exported(project: ProjectFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in project.run("export").ok().out.splitlines()]


def texts(project: ProjectFolder) -> list[tuple[str, object]]:
    return [(found["response_text"], found["request"]) for found in exported(project)]


@pytest.mark.parametrize("backend", ["async", "threads", "batch"])
def test_new_bodies_are_packed_whoever_asks(project: ProjectFolder, backend: str) -> None:
    project.configure(POLLING)
    project.run("run").ok()
    before, charged = texts(project), project.charged()
    (project.root / "bioforge.db").unlink()
    project.configure(POLLING, **ON)
    project.run("run", "--backend", backend).ok()
    assert (kinds(project, "requests"), kinds(project, "responses")) == ({"packed"}, {"packed"})
    assert texts(project) == before
    assert project.charged() == 2 * charged
    project.run("why", "1").ok()
    assert project.run("audit").ok().out.splitlines()[-1].startswith("rows paid twice: 0, paid answers lost: 0")


def test_switching_it_sends_nothing_and_changes_nothing(project: ProjectFolder) -> None:
    project.run("run").ok()
    before, charged = texts(project), project.charged()
    for replaced in (ON, {}, ON):
        project.configure(**replaced)
        assert project.run("plan", "-q").code == 0, "nothing is stale"
        project.run("run").ok()
        assert (texts(project), project.charged()) == (before, charged)
    project.write("artists.csv", project.read("artists.csv") + "8,A,,\n9,B,,\n")
    project.run("run").ok()
    project.configure()
    project.write("artists.csv", project.read("artists.csv") + "10,C,,\n")
    project.run("run").ok()
    assert kinds(project, "responses") == {"str", "packed"}
    assert len(exported(project)) == 7
    assert project.charged() == charged + 3


def test_what_failed_attempts_bring_is_packed_too(tmp_path: Path) -> None:
    with Store.open(tmp_path / "state.db") as store:
        compression.save_setting(store, on=True)
        recorder = recorder_store.Recorder(store, runs.begin(store, "run", "async", Selection()), "async")
        request = Request("v1:one", "/v1/responses", "m", b'{"model":"m"}', "1", "bio", target=1)
        bodies = [json.dumps({"error": {"message": "slow down " * 20, "try": number}}).encode() for number in range(5)]
        for number, body in enumerate([*bodies, compression.MAGIC + b"1 is no body of ours"]):
            attempt = Attempt(request, number, "W01", f"one-{number}", 1000.0)
            failure = Failure("server_error", "no")
            recorder.record([Started(attempt)])
            recorder.record([Failed(attempt, failure, Paid.NO, 1.0, final=False, retry_in=1.0, body=body)])
        kept = [row[0] for row in store.rows("SELECT body FROM attempts ORDER BY id")]
        assert all(map(_is_compressed, kept))
        assert [compression.Decompressor(store).raw(body, "here") for body in kept[:5]] == bodies
        assert compression.Decompressor(store).raw(kept[5], "here") == compression.MAGIC + b"1 is no body of ours"


def test_members_of_a_batch_are_sent_as_they_were_rendered(project: ProjectFolder) -> None:
    """The lines of a batch's file are made from what the state keeps of its requests."""
    project.configure(POLLING, **ON)
    project.run("run").ok()
    project.run("run", "-B", "--backend", "batch").ok()
    assert project.charged() == 8
    assert project.value("SELECT count(*) FROM responses") == 8, "each request had the hash of its body"


def test_imported_answers_are_packed(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.write("bought.jsonl", project.run("export").ok().out)
    (project.root / "bioforge.db").unlink()
    project.configure(**ON)
    project.run("import", "bought.jsonl").ok()
    assert "packed" in kinds(project, "responses")
    assert project.run("plan", "-q").code == 0


def test_the_recorder_packs_by_one_function() -> None:
    assert not hasattr(recorder_store, "text_or_bytes"), (
        "a body that begins with the magic would be taken for a packed one"
    )
