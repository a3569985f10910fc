"""The main job: ask once, ask again for nothing, change one thing and ask for that one thing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from projects import ARTISTS, ProjectFolder


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_the_first_run_asks_for_everything_and_the_second_for_nothing(project: ProjectFolder, backend: str) -> None:
    ran = project.run("run", "--backend", backend).ok()
    assert project.charged() == 4
    assert "done    4 of 4" in ran.err
    project.assert_ledger_equals_state()

    again = project.run("run", "--backend", backend).ok()
    assert project.charged() == 4
    assert "up to date" in again.err
    assert project.run("plan", "-q").code == 0


def test_both_backends_share_answers(project: ProjectFolder) -> None:
    project.run("run", "--backend", "threads").ok()
    project.run("run", "--backend", "async").ok()
    assert project.charged() == 4


def test_one_changed_row_is_one_request_with_its_reason(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.edit("artists.csv", "Icelandic singer", "Icelandic singer and producer")
    assert project.plan()["groups"][0]["detail"] == "column artist_data"
    project.run("run").ok()
    assert project.charged() == 5
    why = project.run("why", "1").ok().out
    assert "fresh" in why
    assert why.count("succeeded") == 2


def test_a_changed_column_that_no_template_reads_costs_nothing(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.edit("artists.csv", "1965", "1966")
    assert project.run("plan", "-q").code == 0
    project.run("run").ok()
    assert project.charged() == 4


def test_a_changed_prompt_is_priced_and_reverting_it_costs_nothing(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.edit("bioforge.toml", "Write a biography.", "Write a long biography.")
    planned = project.plan()
    assert planned["requests"] == 4
    assert planned["cost_usd"] > 0
    assert planned["groups"][0]["reason"] == "changed"
    assert planned["groups"][0]["detail"] == "instructions Write a biography. → Write a long biography."

    project.edit("bioforge.toml", "Write a long biography.", "Write a biography.")
    assert project.plan()["fresh"]
    project.run("run").ok()
    assert project.charged() == 4


@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        ('"gpt-6-luna"', '"gpt-6.1-terra"', "model gpt-6-luna → gpt-6.1-terra"),
        ("max_output_tokens = 400", "max_output_tokens = 500", "parameter max_output_tokens 400 → 500"),
        ("max_output_tokens = 400", "temperature = 0.5", "parameter max_output_tokens 400 → nothing, "
         "parameter temperature nothing → 0.5"),
        ("{{ artist_name }}: ", "{{ artist_name }} – ", "input {{ artist_name }}: {{ artist_data }} → "
         "{{ artist_name }} – {{ artist_data }}"),
    ],
)  # fmt: skip
def test_every_part_of_a_definition_is_named_when_it_changes(
    project: ProjectFolder, old: str, new: str, detail: str
) -> None:
    project.run("run").ok()
    project.edit("bioforge.toml", old, new)
    (group,) = project.plan()["groups"]
    assert (group["reason"], group["targets"]) == ("changed", 4)
    assert group["detail"] == detail


def test_why_shows_old_and_new_side_by_side(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.edit("artists.csv", "Icelandic singer", "Icelandic composer")
    project.edit("bioforge.toml", "Write a biography.", "Write a poem.")
    project.run("plan").ok()
    why = project.run("why", "1").ok().out
    for line in ("old: Icelandic singer", "new: Icelandic composer", "old: Write a biography.", "new: Write a poem."):
        assert line in why


def test_a_new_artist_is_one_request(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.write("artists.csv", ARTISTS + "5,Édith Piaf,French singer,1915\n")
    assert project.reasons() == {"new": 1}
    project.run("run").ok()
    assert project.charged() == 5


def test_a_removed_artist_leaves_the_outputs_and_keeps_its_answer(project: ProjectFolder) -> None:
    project.configure(more="[[output]]\npath = 'out.jsonl'")
    project.run("run").ok()
    project.write("artists.csv", ARTISTS.replace("3,Absalon,,1964\n", ""))
    ran = project.run("run").ok()
    assert "1 removed" in ran.err
    assert "Absalon" not in project.read("out.jsonl")
    assert project.value("SELECT count(*) FROM responses") == 4
    assert "1 removed" in project.run("status").ok().out
    assert "removed from the input" in project.run("why", "3").ok().out

    project.write("artists.csv", ARTISTS)
    project.run("run").ok()
    assert "Absalon" in project.read("out.jsonl")
    assert project.charged() == 4, "an artist that comes back is served by its old answer"


def test_identical_requests_are_sent_once(project: ProjectFolder) -> None:
    project.write("artists.csv", "artist_id,artist_name\n1,Same\n2,Same\n3,Other\n")
    assert project.plan()["requests"] == 2
    project.run("run").ok()
    assert project.charged() == 2
    texts = dict(project.rows("SELECT artist_id, text FROM results"))
    assert texts["1"] == texts["2"] != texts["3"]


def test_an_untouched_input_is_not_read_again(project: ProjectFolder) -> None:
    project.run("run").ok()
    generation = project.value("SELECT value FROM facts WHERE name = 'generation'")
    project.run("run").ok()
    assert project.value("SELECT value FROM facts WHERE name = 'generation'") == generation
    project.write("artists.csv", ARTISTS + "\n")
    project.run("run").ok()
    assert project.value("SELECT value FROM facts WHERE name = 'generation'") == generation + 1


def test_untouched_outputs_are_not_written_again(project: ProjectFolder) -> None:
    project.configure(more="[[output]]\npath = 'out.jsonl'")
    project.run("run").ok()
    before = (project.root / "out.jsonl").stat().st_mtime_ns
    project.run("run").ok()
    assert (project.root / "out.jsonl").stat().st_mtime_ns == before
    (project.root / "out.jsonl").unlink()
    project.run("run").ok()
    assert len(project.read("out.jsonl").splitlines()) == 4


def test_always_make_asks_again_for_what_is_fresh(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.run("run", "-B", "--select", "1").ok()
    assert project.charged() == 5
    audit = json.loads(project.run("audit", "--format", "json").ok().out)
    assert (audit["paid_twice"], audit["forced_again"]) == (0, 1)
    assert project.run("plan", "-q").code == 0


def test_select_and_limit_restrict_a_run(project: ProjectFolder) -> None:
    project.run("run", "--select", "1", "--select", "0").ok()
    assert project.charged() == 2
    project.run("run", "--limit", "1").ok()
    assert project.charged() == 3
    assert project.reasons() == {"new": 1}
    project.run("run", "--select", "reason:new").ok()
    assert project.charged() == 4


def test_dry_run_shows_bodies_and_sends_nothing(project: ProjectFolder) -> None:
    ran = project.run("run", "-n").ok()
    assert project.charged() == 0
    assert ran.out.count('"url": "/v1/responses"') == 4
    assert '"input": "Abakanowicz, Magdalena: Polish sculptor"' in ran.out
    assert "4 requests will be sent" in ran.err


def test_what_if_a_column_changed(project: ProjectFolder) -> None:
    project.run("run").ok()
    assert " 4 " in project.run("plan", "-W", "artist_data").ok().out
    assert "does not read this column" in project.run("plan", "-W", "born").ok().out
    wrong = project.run("plan", "-W", "artist_dat")
    assert wrong.code == 2
    assert "did you mean 'artist_data'" in wrong.err


def test_a_plan_file_is_done_exactly_or_refused(project: ProjectFolder) -> None:
    project.run("run", "--select", "1").ok()
    project.run("plan", "--out", "today.plan", "--select", "[23]").ok()
    project.run("run", "--plan", "today.plan").ok()
    assert project.charged() == 3
    late = project.run("run", "--plan", "today.plan")
    assert late.code == 2
    assert "has an answer now" in late.err

    project.run("plan", "--out", "next.plan").ok()
    project.edit("artists.csv", "painter", "sculptor")
    changed = project.run("run", "--plan", "next.plan")
    assert changed.code == 2
    assert "has another request now" in changed.err
    assert project.charged() == 3


def test_accept_declares_answers_current(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.edit("bioforge.toml", "Write a biography.", "Write a  biography.")
    assert project.reasons() == {"changed": 4}
    project.run("accept", "1", "--yes").ok()
    assert project.reasons() == {"changed": 3}
    project.run("accept", "--yes").ok()
    project.run("run").ok()
    assert project.charged() == 4
    assert "accepted by hand" in project.run("why", "1").ok().out
    project.edit("bioforge.toml", "Write a  biography.", "Write a new biography.")
    assert project.reasons() == {"changed": 4}


def test_forget_says_the_cost_and_the_next_run_asks_again(project: ProjectFolder) -> None:
    project.run("run").ok()
    forgot = project.run("forget", "1", "--yes").ok()
    assert "1 answer forgotten (cost: $" in forgot.err
    assert project.reasons() == {"forgotten": 1}
    project.run("run").ok()
    assert project.charged() == 5
    audit = json.loads(project.run("audit", "--format", "json").ok().out)
    assert (audit["paid_twice"], audit["lost"], audit["forgotten"], audit["forced_again"]) == (0, 0, 1, 1)


def test_gc_drops_only_what_nothing_uses(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.edit("artists.csv", "Icelandic singer", "Icelandic composer")
    project.run("run").ok()
    project.write("artists.csv", project.read("artists.csv").replace("3,Absalon,,1964\n", ""))
    project.run("gc", "--yes").ok()
    assert project.value("SELECT count(*) FROM responses") == 3
    assert project.run("plan", "-q").code == 0
    project.run("audit").ok()


def test_without_a_terminal_nothing_is_dropped_unasked(project: ProjectFolder) -> None:
    project.run("run").ok()
    assert project.run("forget", "1").code == 2
    assert project.value("SELECT count(*) FROM responses") == 4


def test_two_recipes_are_planned_and_selected_by_name(project: ProjectFolder) -> None:
    project.configure(more='[recipe.haiku]\nmodel = "gpt-6-luna"\nendpoint = "/v1/chat/completions"\n'
                           'input = "A haiku about {{ artist_name }}"')  # fmt: skip
    project.run("run", "haiku").ok()
    assert project.charged() == 4
    assert {entry.endpoint for entry in project.server.ledger.entries()} == {"/v1/chat/completions"}
    project.run("run").ok()
    assert project.charged() == 8
    wrong = project.run("run", "haikus")
    assert wrong.code == 2
    assert "did you mean 'haiku'" in wrong.err


def test_stdin_is_read_each_time(project: ProjectFolder) -> None:
    project.edit("bioforge.toml", 'path = "artists.csv"', 'path = "-"')
    project.run("run", stdin=ARTISTS).ok()
    project.run("run", stdin=ARTISTS.replace("singer", "composer")).ok()
    assert project.charged() == 5


def test_the_state_of_a_newer_bioforge_is_left_alone(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.rows("SELECT 1")
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(project.root / "bioforge.db")) as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('bioforge', '9999', '')"
        )
        connection.commit()
    refused = project.run("run")
    assert refused.code == 2
    assert "newer bioforge" in refused.err


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b""])
def test_a_state_file_that_is_none_is_left_as_it_is(project: ProjectFolder, content: bytes) -> None:
    path: Path = project.write("bioforge.db", content)
    assert project.run("run").code == 2
    assert path.read_bytes() == content


def test_what_if_a_column_changed_that_the_input_table_makes_another_of(project: ProjectFolder) -> None:
    project.write("artists.csv", "id,name,bio,notes\n1,One,a painter,x\n2,Two,a sculptor,y\n")
    columns = 'columns = { artist_id = "id", artist_name = "name", artist_data = "{{ bio }} ({{ artist_name }})" }'
    project.edit("bioforge.toml", 'path = "artists.csv"', f'path = "artists.csv"\n{columns}')
    assert " 2 " in project.run("plan", "-W", "bio").ok().out
    assert " 2 " in project.run("plan", "-W", "name").ok().out, "its own name is known, though templates have another"
    assert "does not read this column" in project.run("plan", "-W", "notes").ok().out
