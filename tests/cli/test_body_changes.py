"""What a backend's own way of writing bodies may do to a state: a plugin's new version, another backend that speaks the
same dialect, options that change a body, and a plugin that writes another body each time."""

from __future__ import annotations

import csv
from io import StringIO

import pytest
import test_plugins_at_work as at_work
from projects import ProjectFolder
from test_plugins_at_work import ECHO, Install, ask_echo

install = at_work.install

EXECUTE = "    def execute(self, work):"
STREAM = "    def body(self, rendered):\n        return {**super().body(rendered), 'stream': False}\n\n"
"""What a new version writes beside what the old one did."""

LONG = (
    "    def body(self, rendered):\n        made = super().body(rendered)\n"
    "        return {**made, 'long': True} if 'singer' in (rendered.input or '') else made\n\n"
)
"""Written otherwise for some texts only: 'Icelandic singer' is in one artist's row."""

TIMES = (
    "    def body(self, rendered):\n        Echo.calls += 1\n"
    "        return {**super().body(rendered), 'n': Echo.calls}\n\n    calls = 0\n\n"
)


def with_body(code: str, base: str = ECHO) -> str:
    return base.replace(EXECUTE, code + EXECUTE)


def two_backends() -> str:
    """`echo` as it is, and `stream`, which writes more into its bodies; both of one dialect."""
    return ECHO.replace(
        "@hookimpl\ndef bioforge_backends", f"class Stream(Echo):\n{STREAM}\n@hookimpl\ndef bioforge_backends"
    ).replace('{"echo": Echo}', '{"echo": Echo, "stream": Stream}')


def attempts(project: ProjectFolder) -> int:
    return int(project.rows("SELECT count(*) FROM attempts")[0][0])


def bodies(project: ProjectFolder) -> list[str]:
    return [row[0] for row in project.rows("SELECT body FROM requests")]


class TestANewVersion:
    @pytest.fixture(autouse=True)
    def half_done(self, project: ProjectFolder, install: Install) -> None:
        """Two of four artists were asked for by version 1.2; version 1.3 writes another body."""
        install("bioforge-echo", ECHO)
        ask_echo(project)
        project.run("run", "--limit", "2").ok()
        install("bioforge-echo", with_body(STREAM), version="1.3")

    def test_what_was_bought_is_kept_and_the_rest_is_asked_in_the_new_way(self, project: ProjectFolder) -> None:
        assert "2 answers kept" in project.run("plan").ok().out
        ran = project.run("run").ok()
        assert "renders differently" not in ran.err
        assert attempts(project) == 4
        assert sum('"stream":false' in body for body in bodies(project)) == 2
        again = project.run("run").ok()
        assert attempts(project) == 4
        assert "answers kept" not in again.out + again.err, "it is said once"

    def test_what_a_plan_says_is_what_is_sent(self, project: ProjectFolder) -> None:
        project.run("plan", "--out", "plan.json").ok()
        project.run("run", "--plan", "plan.json").ok()
        assert attempts(project) == 4

    def test_everything_can_be_asked_for_anew(self, project: ProjectFolder) -> None:
        project.run("run", "-B").ok()
        assert attempts(project) == 2 + 4
        assert sum('"stream":false' in body for body in bodies(project)) == 4

    def test_a_kept_answer_stays_kept_when_a_column_changes_that_nobody_reads(self, project: ProjectFolder) -> None:
        project.run("run").ok()
        rows = list(csv.reader(StringIO(project.read("artists.csv"))))
        widened = StringIO()
        csv.writer(widened).writerows([[*rows[0], "unused"], *([*row, "x"] for row in rows[1:])])
        project.write("artists.csv", widened.getvalue())
        project.run("run").ok()
        assert attempts(project) == 4

    def test_a_changed_row_is_asked_for_once(self, project: ProjectFolder) -> None:
        project.run("run").ok()
        project.edit("artists.csv", "Icelandic singer", "Icelandic singer and producer")
        assert "column artist_data" in project.run("plan").ok().out
        project.run("run").ok()
        project.run("run").ok()
        assert attempts(project) == 5

    def test_back_to_the_old_version_nothing_is_bought_again(self, project: ProjectFolder, install: Install) -> None:
        project.run("run").ok()
        install("bioforge-echo", ECHO)
        project.run("run").ok()
        assert attempts(project) == 4

    def test_what_was_forgotten_is_asked_for_again(self, project: ProjectFolder) -> None:
        project.run("run").ok()
        project.run("forget", "*", "--yes").ok()
        project.run("run").ok()
        assert attempts(project) == 8

    def test_what_failed_for_good_is_still_not_asked_again(self, project: ProjectFolder, install: Install) -> None:
        answer = 'Succeeded(attempt, Response(request.body, f"{self.word}: {request.artist_id}", Usage(1, 1)), 0.0)'
        refusal = 'Unusable(attempt, Response(request.body, None, problem=Failure("refusal", "no")), 0.0)'
        refusing = ECHO.replace(answer, refusal)
        assert "Unusable" in refusing
        install("bioforge-echo", refusing, version="1.3")
        assert project.run("run").code == 1
        assert attempts(project) == 4
        install("bioforge-echo", with_body(STREAM, refusing), version="1.4")
        assert project.run("run").code == 1
        assert attempts(project) == 4, "it was paid for, and is held"


class TestTwoBackendsOfOneDialect:
    def test_each_serves_what_the_other_has_bought(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", two_backends())
        ask_echo(project)
        project.run("run", "--limit", "2").ok()
        project.run("run", "--backend", "stream").ok()
        assert attempts(project) == 4
        project.run("run").ok()
        project.run("run", "--backend", "stream").ok()
        assert attempts(project) == 4

    def test_what_is_in_a_batch_of_one_is_not_asked_for_by_the_other(
        self, project: ProjectFolder, install: Install
    ) -> None:
        batching = """
class Batching(Echo):
    batches = True
    def execute(self, work):
        attempts = [
            Attempt(r, r.attempts + 1, "W01", f"{r.artist_id}-{r.attempts}", time(), batch="k1") for r in work.requests
        ]
        if attempts:
            batch = Batch("k1", "/echo", "m", BatchState.SUBMITTED, requests=len(attempts), prepared_at=time(), batch_id="up")
            yield [BatchChanged(batch), *[Started(one) for one in attempts]]
        yield [Stopped("waiting", "left")]
"""
        install(
            "bioforge-echo",
            two_backends()
            .replace("@hookimpl\ndef bioforge_backends", f"{batching}\n@hookimpl\ndef bioforge_backends")
            .replace('"stream": Stream', '"stream": Stream, "batching": Batching'),
        )
        ask_echo(project)
        assert project.run("run", "--limit", "2", "--backend", "batching").code == 75
        project.run("run", "--backend", "stream")
        assert attempts(project) == 4
        assert project.rows("SELECT reason, count(*) FROM targets GROUP BY reason ORDER BY reason") == [
            (None, 2),
            ("in batch", 2),
        ]

    def test_backends_that_write_alike_have_nothing_planned_anew(self, project: ProjectFolder) -> None:
        project.run("run", "--backend", "threads").ok()
        changes = project.rows("SELECT value FROM facts WHERE name = 'results_version'")
        project.run("run", "--backend", "async").ok()
        assert project.rows("SELECT value FROM facts WHERE name = 'results_version'") == changes
        assert project.charged() == 4


class TestWhatShowsOnlyWhenItIsSent:
    def test_a_text_that_is_written_otherwise_is_planned_anew_and_sent(
        self, project: ProjectFolder, install: Install
    ) -> None:
        install("bioforge-echo", ECHO)
        ask_echo(project)
        project.run("plan").ok()
        install("bioforge-echo", with_body(LONG), version="1.3")
        project.run("run").ok()
        assert attempts(project) == 4
        assert sum('"long":true' in body for body in bodies(project)) == 1
        project.run("run").ok()
        assert attempts(project) == 4

    def test_two_that_ask_the_same_are_both_served_by_it(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", ECHO)
        ask_echo(project)
        rows = project.read("artists.csv")
        twin = next(line for line in rows.splitlines() if "singer" in line)
        project.write("artists.csv", rows + "99," + twin.partition(",")[2] + "\n")
        project.run("plan").ok()
        install("bioforge-echo", with_body(LONG), version="1.3")
        project.run("run").ok()
        assert attempts(project) == 4
        assert project.rows("SELECT count(*) FROM targets WHERE reason IS NOT NULL") == [(0,)]

    def test_what_was_to_be_asked_anew_is(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", ECHO)
        ask_echo(project)
        project.run("run").ok()
        install("bioforge-echo", with_body(LONG), version="1.3")
        project.run("run", "-B").ok()
        assert attempts(project) == 8

    def test_what_needs_another_recipe_is_sent_as_well(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", ECHO)
        ask_echo(project, '[recipe.song]\nmodel = "m"\nneeds = ["bio"]\ninput = "{{ bio.text }} {{ artist_data }}"')
        project.run("run", "bio").ok()
        project.run("plan").ok()
        install("bioforge-echo", with_body(LONG), version="1.3")
        project.run("run").ok()
        assert attempts(project) == 8

    def test_another_body_each_time_is_the_plugins_mistake(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", with_body(TIMES), version="1.3")
        ask_echo(project)
        ran = project.run("run")
        assert ran.code != 0
        assert "plugin 'bioforge-echo' 1.3 returns another body() each time" in ran.err
        assert attempts(project) == 0
