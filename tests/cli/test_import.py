"""Answers that were bought elsewhere come home: nothing is bought again, and nothing passes for what it is not."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from processes import Ran
from projects import ProjectFolder

from bioforge.backends.openai import batch_lines
from bioforge.cli.options import open_project
from bioforge.engine.import_answers import AnswerImporter
from bioforge.engine.import_files import AnswerFiles, Line
from bioforge.simulator import Simulator, SimulatorOptions
from bioforge.store import Selection, Store, runs

POLLING = "[backend.batch]\npoll_seconds = 0.01\npoll_max_seconds = 0.05\n"
PATIENT = "[backend.batch]\npoll_seconds = 60.0\npoll_max_seconds = 60.0\n"
HAIKU = (
    '[recipe.haiku]\nmodel = "gpt-6-luna"\ninstructions = "A haiku."\ninput = "{{ artist_name }}: {{ artist_data }}"\n'
)

Copy = Callable[[str], ProjectFolder]


@pytest.fixture
def options() -> dict[str, Any]:
    return {}


@pytest.fixture
def server(tmp_path: Path, options: dict[str, Any]) -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(batch_seconds=0, data=tmp_path / "provider", **options)) as running:
        yield running


@pytest.fixture
def copy(tmp_path: Path, server: Simulator) -> Copy:
    """Fresh copies of one project, without a state."""

    def make(name: str) -> ProjectFolder:
        (tmp_path / name).mkdir()
        made = ProjectFolder(tmp_path / name, server)
        made.configure(more=POLLING)
        return made

    return make


@pytest.fixture
def project(copy: Copy) -> ProjectFolder:
    return copy("here")


@dataclass(frozen=True, slots=True)
class Files:
    """A batch's files as the provider has them; empty where there is none."""

    input: bytes
    output: bytes
    errors: bytes

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines()]


def files(server: Simulator, batch_id: str) -> Files:
    """Of a batch, once it has ended."""
    with OpenAI(base_url=server.base_url, api_key="any") as client:
        deadline = time.monotonic() + 60
        while (batch := client.batches.retrieve(batch_id)).status in ("validating", "in_progress", "finalizing"):
            assert time.monotonic() < deadline
        ids = (batch.input_file_id, batch.output_file_id, batch.error_file_id)
        return Files(*(client.files.content(file_id).content if file_id else b"" for file_id in ids))


def buy(project: ProjectFolder, *arguments: str) -> Files:
    """The files of a batch that a project bought."""
    project.run("run", "--backend", "batch", *arguments)
    return files(project.server, project.value("SELECT batch_id FROM batches ORDER BY prepared_at DESC"))


def leave(project: ProjectFolder) -> Files:
    """The files of a batch that is open in the state, and has ended."""
    project.edit("bioforge.toml", POLLING, PATIENT)
    assert project.run("run", "--backend", "batch", "--no-wait").code == 75
    project.edit("bioforge.toml", PATIENT, POLLING)
    return files(project.server, project.value("SELECT batch_id FROM batches"))


def by_hand(project: ProjectFolder, recipe: str = "bio") -> Files:
    """The files of a batch that was made and created by hand, whose custom_ids are ids of artists."""
    project.run("batch", "jsonl", recipe, "-o", "by-hand.jsonl").ok()
    created = project.run("batch", "create", "--again", "--in", "by-hand.jsonl").ok()
    return files(project.server, created.out.split()[-1])


def jsonl(*entries: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in entries)


def imported(project: ProjectFolder, *arguments: str) -> dict[str, Any]:
    ran = project.run("import", "--format", "json", *arguments)
    assert ran.out, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def text(project: ProjectFolder, artist: str, recipe: str = "bio") -> str:
    return str(project.value("SELECT text FROM results WHERE artist_id = ? AND recipe = ?", artist, recipe))


def audit(project: ProjectFolder) -> dict[str, Any]:
    """The ledger, in which nothing is ever paid twice or lost."""
    ran = project.run("audit", "--format", "json").ok()
    assert project.run("audit").ok().out.splitlines()[-1].startswith("rows paid twice: 0, paid answers lost: 0")
    found: dict[str, Any] = json.loads(ran.out)
    return found


def assert_every_charge_is_kept(project: ProjectFolder) -> None:
    charged = sorted(entry.custom_id or entry.client_request_id or "" for entry in project.server.ledger.entries())
    paid = project.rows("SELECT client_request_id FROM attempts WHERE paid = 'yes' ORDER BY client_request_id")
    assert charged == [row[0] for row in paid]


def told(ran: Ran) -> str:
    assert ran.out == "", "words go to stderr"
    return ran.err


TABLES = ("artists", "targets", "requests", "attempts", "responses", "batches", "runs", "facts")


def contents(project: ProjectFolder) -> list[list[tuple[Any, ...]]]:
    return [project.rows(f"SELECT * FROM {table}") for table in TABLES]


# ------------------------------------------------------------------------------------------------- into a fresh project


def test_a_lost_state_is_bought_back_for_nothing(copy: Copy) -> None:
    first = copy("first")
    bought = buy(first)
    charged = first.charged()
    second = copy("second")
    second.write("output.jsonl", bought.output)
    ran = second.run("import", "output.jsonl", env={"OPENAI_API_KEY": ""}).ok()
    assert told(ran).splitlines() == [
        "input: 4 artists (4 new)",
        "1 file with 4 lines",
        f"adopted: 4 answers worth ${first.value('SELECT sum(cost_usd) FROM responses'):.6f}",
        "4 targets became fresh",
    ]
    assert [text(second, artist) for artist in "1230"] == [text(first, artist) for artist in "1230"]
    assert second.run("plan", "-q").code == 0
    second.run("run").ok()
    assert second.charged() == charged
    found = audit(second)
    assert (found["paid"], found["cost_usd"], found["imported"]) == (0, 0, 4)
    assert found["imported_cost_usd"] == pytest.approx(audit(first)["cost_usd"])


def test_implausible_usage_in_a_result_file_counts_as_unknown(copy: Copy) -> None:
    bought = buy(copy("first"))
    second = copy("second")
    lines = [json.loads(line) for line in bought.output.splitlines()]
    lines[0]["response"]["body"]["usage"]["input_tokens"] = 2**53
    second.write("output.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    second.run("import", "output.jsonl").ok()
    found = second.rows("SELECT input_tokens IS NULL, cost_usd IS NULL, cost_usd < 1 FROM responses ORDER BY 1")
    assert found == [(0, 0, 1)] * 3 + [(1, 1, None)]


def test_what_was_adopted_is_kept_as_it_was_received(copy: Copy) -> None:
    bought = buy(copy("first"))
    second = copy("second")
    second.write("output.jsonl", bought.output)
    second.run("import", "output.jsonl").ok()
    (attempt,) = second.rows(
        "SELECT outcome, paid, backend, reason, number, seconds, client_request_id FROM attempts"
        " WHERE target = (SELECT t.id FROM targets t JOIN artists a ON a.id = t.artist WHERE a.artist_id = '1')"
    )
    (line,) = [line for line in bought.lines if line["custom_id"] == attempt[-1]]
    assert attempt[:-1] == ("imported", "no", "import", "imported", 1, None)
    (response,) = second.rows(
        "SELECT r.body, r.response_id, r.model, r.usable, r.imported, r.output_tokens, r.created_at FROM responses r"
        " JOIN attempts x ON x.id = r.attempt WHERE x.client_request_id = ?",
        line["custom_id"],
    )
    body = line["response"]["body"]
    assert json.loads(response[0]) == body
    assert response[1:6] == (body["id"], body["model"], 1, 1, body["usage"]["output_tokens"])
    assert response[6] == body["created_at"]
    assert second.rows("SELECT DISTINCT state, attempts FROM requests") == [("answered", 1)]
    (run,) = json.loads(second.run("status", "--format", "json").ok().out)["runs"]
    assert (run["command"], run["state"], run["succeeded"], run["cost_usd"]) == (
        "import output.jsonl", "finished", 4, None
    )  # fmt: skip
    assert "imported" in second.run("why", "1").ok().out


def test_an_export_brings_its_answers_along(copy: Copy) -> None:
    first = copy("first")
    first.run("run").ok()
    exported = first.run("export").ok().out
    second = copy("second")
    found = json.loads(second.run("import", "-", "--format", "json", stdin=exported).ok().out)
    assert (found["adopted"]["answers"], found["fresh"], found["files"]) == (4, 4, ["standard input"])
    assert second.run("export").ok().out == exported
    assert json.loads(second.value("SELECT body FROM responses ORDER BY id")) == json.loads(exported.splitlines()[0])
    second.run("run").ok()
    assert second.charged() == 4
    assert audit(second)["imported_cost_usd"] == pytest.approx(audit(first)["cost_usd"])


def test_files_by_hand_are_told_by_their_input_file(copy: Copy) -> None:
    bought = by_hand(copy("first"))
    second = copy("second")
    second.write("output.jsonl", bought.output)
    ran = second.run("import", "output.jsonl")
    assert ran.code == 1
    assert "without a request of this project: 4 answers" in told(ran)
    assert "these are ids of artists, not of requests: also name the batch's input file" in ran.err
    second.write("input.jsonl", bought.input)
    assert imported(second, "output.jsonl", "input.jsonl")["fresh"] == 4
    assert second.run("plan", "-q").code == 0


def test_answers_to_another_template_wait_for_its_return(copy: Copy) -> None:
    bought = buy(copy("first"))
    second = copy("second")
    second.edit("bioforge.toml", "Write a biography.", "Write a poem.")
    second.write("output.jsonl", bought.output)
    second.write("input.jsonl", bought.input)
    ran = second.run("import", "output.jsonl")
    assert ran.code == 1
    assert "hint: the project's requests differ" in told(ran)
    ran = second.run("import", "input.jsonl", "output.jsonl").ok()
    assert "(4 that no target needs now, kept)\n0 targets became fresh\n" in told(ran)
    second.edit("bioforge.toml", "Write a poem.", "Write a biography.")
    assert second.run("plan", "-q").code == 0
    second.run("run").ok()
    assert second.charged() == 4


def test_an_export_of_another_template_is_no_answer(copy: Copy) -> None:
    first = copy("first")
    first.run("run").ok()
    second = copy("second")
    second.write("export.jsonl", first.run("export").ok().out)
    second.edit("bioforge.toml", "Write a biography.", "Write a poem.")
    ran = second.run("import", "export.jsonl")
    assert ran.code == 1
    assert "  4: 1, 2, 3, 0\n  hint: the project's requests differ" in told(ran)
    assert second.value("SELECT count(*) FROM responses") == 0


def test_artists_with_the_same_request_become_fresh_together(copy: Copy) -> None:
    first = copy("first")
    first.edit("bioforge.toml", "{{ artist_name }}: {{ artist_data }}", "Tell me a story.")
    bought = buy(first)
    assert len(bought.lines) == 1
    second = copy("second")
    second.edit("bioforge.toml", "{{ artist_name }}: {{ artist_data }}", "Tell me a story.")
    second.write("output.jsonl", bought.output)
    found = imported(second, "output.jsonl")
    assert (found["adopted"]["answers"], found["fresh"]) == (1, 4)


def test_a_removed_artist_stays_removed(copy: Copy) -> None:
    bought = buy(copy("first"))
    second = copy("second")
    second.run("plan").ok()
    second.edit("artists.csv", "3,Absalon,,1964\n", "")
    second.write("output.jsonl", bought.output)
    found = imported(second, "output.jsonl")
    assert (found["adopted"]["answers"], found["fresh"]) == (4, 3)
    assert second.rows("SELECT artist_id FROM results WHERE state = 'removed'") == [("3",)]
    second.write("artists.csv", copy("third").read("artists.csv"))
    assert second.run("plan", "-q").code == 0, "its answer was there when it came back"


# ------------------------------------------------------------------------------------------ into a state with open batches


def test_an_open_batch_is_settled_as_if_it_had_been_collected(project: ProjectFolder) -> None:
    bought = leave(project)
    assert project.reasons() == {"in batch": 4}
    project.write("output.jsonl", bought.output)
    ran = project.run("import", "output.jsonl").ok()
    assert "adopted: 0 answers\nmatched to open batches: 4 requests (4 answered), $0.0" in told(ran)
    assert ran.err.endswith("4 targets became fresh\n")
    assert project.rows("SELECT DISTINCT outcome, paid, backend FROM attempts") == [("succeeded", "yes", "batch")]
    assert project.value("SELECT state FROM batches") not in ("collected", "released"), "the next run closes it"
    found = audit(project)
    assert (found["paid"], found["imported"], found["in_batches"]) == (4, 0, 0)
    project.run("run", "--backend", "batch").ok()
    assert project.value("SELECT state FROM batches") == "collected"
    assert (audit(project)["paid"], project.charged()) == (4, 4)
    assert project.value("SELECT count(*) FROM responses") == 4
    assert_every_charge_is_kept(project)


def test_a_settled_batch_is_known_already(project: ProjectFolder) -> None:
    bought = buy(project)
    project.write("output.jsonl", bought.output)
    before = contents(project)
    found = imported(project, "output.jsonl")
    assert (found["known"], found["adopted"]["answers"], found["settled"]) == (4, 0, {"cost_usd": 0.0})
    assert contents(project) == before


def test_answers_for_requests_in_another_open_batch_are_left_to_it(copy: Copy) -> None:
    bought = by_hand(copy("first"))
    second = copy("second")
    leave(second)
    second.write("output.jsonl", bought.output)
    second.write("input.jsonl", bought.input)
    ran = second.run("import", "output.jsonl", "input.jsonl").ok()
    assert "in open batches: 4 answers, which stay there; `bioforge run` collects them" in told(ran)
    assert second.value("SELECT count(*) FROM responses") == 0
    second.run("run", "--backend", "batch").ok()
    assert audit(second)["paid"] == 4


class TestABatchWithFailures:
    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"script": {"Absalon": ["bad_request"] * 9, "Björk": ["refusal"], "Abbey": ["server_error", "ok"]}}

    def test_its_open_members_are_settled_each_in_its_way(self, project: ProjectFolder) -> None:
        bought = leave(project)
        project.write("both.jsonl", bought.errors + bought.output)
        found = imported(project, "both.jsonl")
        assert found["settled"].keys() == {"answered", "unusable", "failed", "cost_usd"}
        assert (found["settled"]["unusable"], found["settled"]["failed"], found["fresh"]) == (1, 2, 1)
        assert project.reasons() == {"failed": 2, "interrupted": 1}
        assert project.run("run", "--backend", "batch").code == 1
        assert project.reasons() == {"failed": 2}, "what could be tried again was"
        assert_every_charge_is_kept(project)

    def test_failed_lines_bring_nothing_into_a_fresh_project(self, copy: Copy) -> None:
        first = copy("first")
        bought = leave(first)
        second = copy("second")
        second.write("errors.jsonl", bought.errors)
        ran = second.run("import", "errors.jsonl").ok()
        assert "failed, nothing to adopt: 2 lines (1 bad_request, 1 server_error)" in told(ran)
        assert second.value("SELECT count(*) FROM attempts") == 0
        assert second.reasons() == {"new": 4}

    def test_an_answer_that_cannot_be_used_is_held_and_never_passes_for_one(self, copy: Copy) -> None:
        first = copy("first")
        bought = leave(first)
        second = copy("second")
        second.write("output.jsonl", bought.output)
        ran = second.run("import", "output.jsonl").ok()
        assert "(1 paid, not usable, held back)\n1 target became fresh\n" in told(ran)
        second.run("run", "--select", "1")
        held = second.rows("SELECT reason, held FROM targets WHERE reason = 'failed'")
        assert held == [("failed", 1)]
        assert second.charged() == 2, "what was refused is not asked again by itself"
        assert imported(second, "output.jsonl")["known"] == 2

    def test_a_later_usable_answer_takes_the_place_of_a_refusal(self, copy: Copy) -> None:
        refused, answered = by_hand(copy("first")), by_hand(copy("again"))
        second = copy("second")
        second.write("input.jsonl", refused.input)
        second.write("first.jsonl", refused.output)
        second.write("again.jsonl", answered.output)
        found = imported(second, "first.jsonl", "again.jsonl", "input.jsonl")
        assert (found["adopted"]["unusable"], found["fresh"]) == (1, 3)
        assert text(second, "1").startswith("Simulated answer")
        assert second.rows("SELECT number FROM attempts WHERE target = 1 ORDER BY id") == [(1,), (2,)]

    def test_the_export_of_failures_is_taken_for_failures(self, copy: Copy) -> None:
        first = copy("first")
        first.run("run", "--backend", "batch")
        second = copy("second")
        second.write("failed.jsonl", first.run("export", "--failed").ok().out)
        found = imported(second, "failed.jsonl")
        assert (found["adopted"]["answers"], found["adopted"]["unusable"], found["fresh"]) == (1, 1, 0)
        assert found["failed"] == {"bad_request": 1}
        assert second.reasons() == {"failed": 1, "new": 3}


class TestAProjectThatAskedInVain:
    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"script": {"Absalon": ["bad_request", "ok"]}}

    def test_its_requests_are_known_though_nobody_wants_them_now(self, project: ProjectFolder, copy: Copy) -> None:
        assert project.run("run", "--select", "3").code == 1
        bought = buy(copy("elsewhere"), "--select", "3")
        project.edit("bioforge.toml", "Write a biography.", "Write a poem.")
        project.write("output.jsonl", bought.output)
        found = imported(project, "output.jsonl")
        assert (found["adopted"]["answers"], found["adopted"]["unwanted"], found["fresh"]) == (1, 1, 0)
        project.edit("bioforge.toml", "Write a poem.", "Write a biography.")
        assert project.reasons() == {"new": 3}
        assert project.rows("SELECT number, outcome FROM attempts ORDER BY id") == [(1, "failed"), (2, "imported")]
        assert audit(project)["imported"] == 1


class TestABatchThatLostItsResults:
    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"batch_script": ["lines_lost=1"]}

    def test_answers_that_turn_up_later_are_adopted(self, project: ProjectFolder) -> None:
        project.configure(more=POLLING + "[retry]\nmaybe_paid = false\n", **{"[retry]\nfirst_delay = 0.001\n": ""})
        assert project.run("run", "--backend", "batch").code == 1
        assert project.reasons() == {"maybe paid": 4}
        names = [row[0] for row in project.rows("SELECT client_request_id FROM attempts ORDER BY id")]
        bodies = [json.loads(row[0]) for row in project.rows("SELECT body FROM requests ORDER BY rowid")]
        with OpenAI(base_url=project.server.base_url, api_key="any") as client:
            answers = [client.responses.create(**body).to_dict() for body in bodies]
        lines = [
            {"custom_id": name, "response": {"status_code": 200, "body": answer}, "error": None}
            for name, answer in zip(names, answers, strict=True)
        ]
        project.write("found.jsonl", jsonl(*lines))
        found = imported(project, "found.jsonl")
        assert (found["adopted"]["answers"], found["fresh"]) == (4, 4)
        assert (audit(project)["imported"], audit(project)["maybe_paid"]) == (4, 4)


# -------------------------------------------------------------------------------------------------------------- twice


def test_importing_twice_changes_nothing(copy: Copy) -> None:
    bought = buy(copy("first"))
    second = copy("second")
    second.write("output.jsonl", bought.output)
    second.run("import", "output.jsonl").ok()
    before = contents(second)
    ran = second.run("import", "output.jsonl").ok()
    assert "adopted: 0 answers\nknown already: 4 answers\n0 targets became fresh\n" in told(ran)
    assert contents(second) == before


def test_a_dry_run_tells_the_same_and_changes_nothing(copy: Copy) -> None:
    bought = buy(copy("first"))
    second = copy("second")
    second.run("plan").ok()
    second.write("output.jsonl", bought.output + bought.output)
    before = contents(second)
    told_before = imported(second, "-n", "output.jsonl")
    assert contents(second) == before
    ran = second.run("import", "-n", "output.jsonl").ok()
    assert "would be adopted: 4 answers" in told(ran)
    assert ran.err.endswith("4 targets would become fresh; nothing was changed\n")
    told_then = imported(second, "output.jsonl")
    assert told_before == told_then | {"dry_run": True}


def test_a_dry_run_settles_no_batch(project: ProjectFolder) -> None:
    bought = leave(project)
    project.write("output.jsonl", bought.output)
    before = contents(project)
    assert imported(project, "-n", "output.jsonl")["settled"]["answered"] == 4
    assert contents(project) == before


class Interrupted(AnswerFiles):
    """Ctrl-C while the third line is being read the second time."""

    passes = 0

    def groups(self) -> Iterator[list[Line]]:
        self.passes += 1
        (group,) = super().groups()
        yield group[:2]
        if self.passes == 2:
            raise KeyboardInterrupt
        yield group[2:]


def test_an_import_that_is_interrupted_goes_on_where_it_was(copy: Copy) -> None:
    bought = buy(copy("first"))
    second = copy("second")
    path = second.write("output.jsonl", bought.output)
    second.run("plan").ok()
    project = open_project(second.root)
    with Store.open(second.root / "bioforge.db") as store, Interrupted([str(path)]) as files:
        run = runs.begin(store, "import", None, Selection())
        importer = AnswerImporter(store, run, project.recipe_variants, project.backend, batch_lines)
        with pytest.raises(KeyboardInterrupt):
            importer.run(files)
    assert second.reasons() == {"new": 2}
    found = imported(second, "output.jsonl")
    assert (found["known"], found["adopted"]["answers"], found["fresh"]) == (2, 2, 2)
    assert second.rows("SELECT state, succeeded FROM runs") == [("crashed", 0), ("finished", 2)]


def test_an_adopted_answer_that_is_forced_is_not_paid_twice(copy: Copy) -> None:
    bought = buy(copy("first"))
    second = copy("second")
    second.write("output.jsonl", bought.output)
    second.run("import", "output.jsonl").ok()
    second.run("run", "-B", "--select", "1").ok()
    found = audit(second)
    assert (found["paid"], found["forced_again"], found["imported"]) == (1, 0, 4)
    second.run("run", "-B", "--select", "1").ok()
    assert audit(second)["forced_again"] == 1


def test_a_forgotten_answer_can_be_brought_back(project: ProjectFolder) -> None:
    bought = buy(project)
    project.run("forget", "1", "--yes").ok()
    project.write("output.jsonl", bought.output)
    found = imported(project, "output.jsonl")
    assert (found["adopted"]["answers"], found["known"], found["fresh"]) == (1, 3, 1)
    assert audit(project)["imported"] == 1


# ---------------------------------------------------------------------------------------------------- what could mislead


def test_one_custom_id_for_two_requests_is_not_guessed(copy: Copy) -> None:
    first = copy("first")
    first.configure(more=POLLING + HAIKU)
    bios, haikus = by_hand(first, "bio"), by_hand(first, "haiku")
    second = copy("second")
    second.configure(more=POLLING + HAIKU)
    for name, content in (("bio", bios), ("haiku", haikus)):
        second.write(f"{name}.in.jsonl", content.input)
        second.write(f"{name}.out.jsonl", content.output)
    ran = second.run("import", "bio.in.jsonl", "bio.out.jsonl", "haiku.in.jsonl", "haiku.out.jsonl")
    assert ran.code == 1
    assert "import each batch with its own input file only" in told(ran)
    ran = second.run("import", "bio.in.jsonl", "haiku.out.jsonl")
    assert ran.code == 1
    assert "these answers have other instructions than the input file" in told(ran)
    for name in ("bio", "haiku"):
        assert imported(second, f"{name}.in.jsonl", f"{name}.out.jsonl")["fresh"] == 4
    assert text(second, "1", "haiku") != text(second, "1")
    assert second.run("plan", "-q").code == 0


def test_simulated_answers_do_not_pass_for_real_ones(copy: Copy) -> None:
    first = copy("first")
    real = first.server.base_url
    first.configure(more=f"{POLLING}[simulator]\nbatch_seconds = 0\n", **{real: "simulator"})
    first.run("run", "--backend", "batch").ok()
    data = first.root / "bioforge.db.simulator" / "files"
    parts = [path.read_bytes() for path in data.iterdir() if path.suffix != ".json"]
    second = copy("second")
    second.write("everything.jsonl", b"".join(parts))
    ran = second.run("import", "everything.jsonl")
    assert ran.code == 1
    assert "is one of them simulated?" in told(ran)
    assert second.reasons() == {"new": 4}


def test_two_answers_under_one_custom_id_are_counted_and_the_first_is_kept(copy: Copy) -> None:
    bought = buy(copy("first"))
    second = copy("second")
    second.write("output.jsonl", bought.output + bought.output)
    ran = second.run("import", "output.jsonl").ok()
    name = bought.lines[0]["custom_id"]
    assert f"4 answers with a custom_id that already has one:\n  output.jsonl:5: {name}\n" in told(ran)
    assert second.value("SELECT count(*) FROM responses") == 4


def test_lines_that_are_none_are_counted_and_shown(copy: Copy) -> None:
    bought = buy(copy("first"))
    second = copy("second")
    odd = [
        b'{"half": ',
        b"[1, 2]",
        b'{"artist_id": "\xff"}',
        b'{"custom_id": "1"}',
        b'{"custom_id": "1", "url": "/v1/responses", "body": "[]"}',
        *[b'{"artist_id": "1"}'] * 6,
    ]
    second.write("odd.jsonl", b"\n".join([*odd, bought.output]))
    ran = second.run("import", "odd.jsonl").ok()
    shape = "neither a line of a batch nor a record of an export"
    assert told(ran).splitlines()[-12:] == [
        "3 unreadable lines:",
        "  odd.jsonl:5: body: not an object",
        "  odd.jsonl:1: not JSON: Expecting value at column 9",
        "  odd.jsonl:3: not UTF-8",
        "8 lines of an unknown form:",
        *(f"  odd.jsonl:{number}: {shape}" for number in (2, 4, 6, 7, 8)),
        "  … and 3 more",
        "4 targets became fresh",
    ]


def test_a_file_without_line_ends_is_not_read_into_memory(project: ProjectFolder) -> None:
    with (project.root / "zeros.jsonl").open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    ran = project.run("import", "zeros.jsonl")
    assert ran.code == 2
    assert "zeros.jsonl:1: longer than 64 MB" in ran.err


def test_marks_and_line_ends_of_other_systems_do_no_harm(copy: Copy) -> None:
    bought = by_hand(copy("first"))
    second = copy("second")
    mark = b"\xef\xbb\xbf"
    second.write("input.jsonl", mark + bought.input.replace(b"\n", b"\r\n"))
    second.write("output.jsonl", mark + b"\r\n" + mark + bought.output.replace(b"\n", b"\r\n") + b"\r\n")
    assert imported(second, "output.jsonl", "input.jsonl")["fresh"] == 4


class TestAServerWithHabits:
    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"batch_faults": "string_bodies+keys_missing+lines_shuffled+unknown_lines=2"}

    def test_bodies_may_be_texts_and_keys_may_be_missing(self, copy: Copy) -> None:
        first = copy("first")
        bought = by_hand(first)
        asked = [json.loads(line) for line in bought.input.splitlines()]
        second = copy("second")
        second.write("input.jsonl", jsonl(*(line | {"body": json.dumps(line["body"])} for line in asked)))
        second.write("output.jsonl", bought.output)
        found = imported(second, "output.jsonl", "input.jsonl")
        assert (found["adopted"]["answers"], found["fresh"], found["without_request"]["answers"]) == (4, 4, 2)


def test_chat_completions_are_read_as_such(copy: Copy) -> None:
    chat = '"gpt-6-luna"\nendpoint = "/v1/chat/completions"'
    first, second = copy("first"), copy("second")
    for made in (first, second):
        made.configure(more=POLLING, **{'"gpt-6-luna"': chat})
    bought = by_hand(first)
    second.write("output.jsonl", bought.output)
    second.write("input.jsonl", bought.input)
    assert second.run("import", "output.jsonl").code == 1
    assert imported(second, "output.jsonl", "input.jsonl")["fresh"] == 4
    assert text(second, "1").startswith("Simulated answer")


# -------------------------------------------------------------------------------------------------------- asked wrongly


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("nothing.jsonl",), "error: nothing.jsonl does not exist"),
        (("artists.csv", "."), "error: . is a folder, not a file"),
        (("artists.csv",), "error: artists.csv: no line of a batch file or an export:"),
        (("empty.jsonl",), "error: empty.jsonl: empty"),
        (("artists.csv", "--format", "xml"), "error: --format xml: no such format"),
        ((), "error: missing argument"),
    ],
)
def test_what_cannot_be_meant_is_refused(project: ProjectFolder, arguments: tuple[str, ...], error: str) -> None:
    project.write("empty.jsonl", "")
    ran = project.run("import", *arguments)
    assert ran.code == 2
    assert error in ran.err
    assert "\nhint: " in ran.err


def test_a_file_without_answers_is_no_mistake(copy: Copy) -> None:
    project = copy("first")
    project.run("batch", "jsonl").ok()
    ran = project.run("import", "batch_input.jsonl").ok()
    assert "1 file with 4 lines, 4 requests among them\nadopted: 0 answers\n0 targets became fresh\n" in told(ran)
    assert project.value("SELECT count(*) FROM runs") == 0, "a run is an invocation that did work"


def test_a_file_that_is_named_twice_and_a_pipe(copy: Copy, tmp_path: Path) -> None:
    bought = by_hand(copy("first"))
    second = copy("second")
    second.write("output.jsonl", bought.output)
    second.write("input.jsonl", bought.input)
    (second.root / "link.jsonl").symlink_to("output.jsonl")
    ran = second.run("import", "output.jsonl", "./output.jsonl", "link.jsonl", "-", stdin=bought.input.decode()).ok()
    assert "2 files with 8 lines, 4 requests among them\nadopted: 4 answers" in told(ran)


def test_the_lock_is_taken(project: ProjectFolder) -> None:
    project.write("output.jsonl", b"{}")
    with Store.open(project.root / "bioforge.db"):
        ran = project.run("import", "output.jsonl")
    assert ran.code == 2
    assert "in use by" in ran.err


def test_ids_from_outside_do_not_reach_the_terminal_as_they_are(project: ProjectFolder) -> None:
    line = {"custom_id": "\x1b[2J", "response": {"status_code": 200, "body": {"status": "completed", "output": []}}}
    project.write("output.jsonl", jsonl(line))
    ran = project.run("import", "output.jsonl")
    assert ran.code == 1
    assert "\x1b" not in ran.err
    assert "also name the batch's input file: only it has the requests of these ids" in ran.err


def test_a_pipe_can_be_read_only_once(project: ProjectFolder) -> None:
    bought = buy(project)
    other = ProjectFolder(project.root.parent / "other", project.server)
    with other.start("import", "/dev/stdin", stdin=subprocess.PIPE) as process:
        out, err = process.communicate(bought.output.decode(), timeout=60)
    assert (process.returncode, out) == (0, "")
    assert err.endswith("4 targets became fresh\n")
