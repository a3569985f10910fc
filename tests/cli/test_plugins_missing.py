"""A project whose plugin is gone, or does not work any more: answers that were paid for can be had all the same, and what
cannot be done without the plugin says so before it does anything."""

from __future__ import annotations

import json
from collections.abc import Callable

import plugin_maker
import pytest
from plugin_maker import HEAD, Install
from projects import ProjectFolder
from test_plugins_at_work import DIARY, DIARY_OUTPUT, ECHO, NAMES, ask_echo

from bioforge.api import Project
from bioforge.core.errors import PluginError

install = plugin_maker.install

ADVICE = "earlier runs used it: install or fix its plugin"

Loses = Callable[[Install], None]

LOSSES: dict[str, tuple[Loses, str]] = {
    "uninstalled": (lambda install: install.remove("bioforge-echo"), "no backend 'echo'"),
    "cannot be imported": (
        lambda install: install("bioforge-echo", "import nothing_like_this"),
        "no backend 'echo'",
    ),
    "its hook fails": (
        lambda install: install("bioforge-echo", HEAD + "@hookimpl\ndef bioforge_backends():\n    return 1 / 0\n"),
        "no backend 'echo'",
    ),
    "its factory fails": (
        lambda install: install("bioforge-echo", ECHO.replace("self.word = context.options.word", "1 / 0")),
        "backend 'echo' of plugin 'bioforge-echo' cannot be made: ZeroDivisionError: division by zero",
    ),
    "it makes no backend": (
        lambda install: install("bioforge-echo", ECHO.replace('"echo": Echo}', '"echo": lambda context: None}')),
        "plugin 'bioforge-echo': backend 'echo' made NoneType, expected a Backend",
    ),
}
"""Ways to lose a plugin, and what commands that cannot do without it say then."""

lost = pytest.mark.parametrize(("lose", "message"), LOSSES.values(), ids=LOSSES.keys())


def built(project: ProjectFolder, install: Install, *arguments: str) -> None:
    install("bioforge-echo", ECHO)
    ask_echo(project)
    project.run("run", *arguments).ok()


def texts(project: ProjectFolder, *arguments: str) -> list[str]:
    exported = project.run("export", *arguments).ok().out
    return [json.loads(line)["response_text"] for line in exported.splitlines()]


class TestWithoutItsBackend:
    @lost
    def test_whatever_is_in_the_state_can_be_had(
        self, project: ProjectFolder, install: Install, lose: Loses, message: str
    ) -> None:
        built(project, install)
        lose(install)
        assert texts(project) == ["Echo: 1", "Echo: 2", "Echo: 3", "Echo: 0"]
        assert texts(project, "--select", "2", "--recipe", "bio") == ["Echo: 2"]
        assert project.run("export", "-o", "out.csv").ok().err.count("error") == 0
        assert project.read("out.csv").count("Echo: ") == 4
        why = project.run("why", "1").ok()
        assert "bio: fresh" in why.out
        assert (why.err, why.out.count("succeeded")) == ("", 1)
        assert json.loads(project.run("why", "1", "--format", "json").ok().out)["artist_id"] == "1"
        assert "bio         4  -" in project.run("status").ok().out
        assert "rows paid twice: 0, paid answers lost: 0" in project.run("audit").ok().out
        assert "4/4" in project.run("compare", "bio").ok().out

    @lost
    def test_what_needs_it_says_what_to_do_and_changes_nothing(
        self, project: ProjectFolder, install: Install, lose: Loses, message: str
    ) -> None:
        built(project, install, "--limit", "2")
        project.write("answers.jsonl", project.run("export").ok().out)
        lose(install)
        before = project.rows("SELECT * FROM runs"), project.rows("SELECT * FROM targets")
        assert "nothing to resume" in project.run("resume").ok().err
        for command in ("plan", "plan --graph", "run", "run --dry-run", "gc --yes", "import answers.jsonl"):
            ran = project.run(*command.split())
            error, hint = ran.err.splitlines()[-2:]
            assert (ran.code, error) == (2, f"error: {message}"), command
            assert ADVICE in hint
            assert "`bioforge export`, `status`, `why`, `compare` and `audit` work without it" in hint
        assert (project.rows("SELECT * FROM runs"), project.rows("SELECT * FROM targets")) == before
        install("bioforge-echo", ECHO)
        assert project.reasons() == {"new": 2}
        project.run("run").ok()
        assert texts(project) == ["Echo: 1", "Echo: 2", "Echo: 3", "Echo: 0"]
        assert project.value("SELECT count(*) FROM attempts") == 4

    def test_another_backend_goes_on(self, project: ProjectFolder, install: Install) -> None:
        """With its own answers: those of one that speaks otherwise are no answers to it, and stay."""
        built(project, install, "--limit", "2")
        install.remove("bioforge-echo")
        project.configure()
        assert project.run("export").ok().out.count("Echo: ") == 2
        project.run("run").ok()
        assert project.charged() == 4

    def test_a_name_that_nothing_was_built_with_is_only_unknown(self, project: ProjectFolder, install: Install) -> None:
        built(project, install)
        ran = project.run("run", "--backend", "ecko")
        assert ran.code == 2
        assert "error: no backend 'ecko'" in ran.err
        assert ADVICE not in ran.err

    def test_without_a_state_there_is_nothing_to_advise(self, project: ProjectFolder, install: Install) -> None:
        ask_echo(project)
        ran = project.run("run")
        assert (ran.code, ran.err.splitlines()[0]) == (2, "error: no backend 'echo'")
        assert ADVICE not in ran.err
        assert "there is no state yet" in project.run("export").err

    def test_variants_are_known_by_the_file_alone(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", ECHO)
        ask_echo(project, '[recipe.title]\nneeds = ["bio"]\nmodel = "m"\ninput = "{{ bio.text }}"')
        project.edit(
            "bioforge.toml", '\ninstructions = "Write a biography."', '\nmatrix = { instructions = ["one", "two"] }'
        )
        project.run("run").ok()
        install.remove("bioforge-echo")
        assert len(texts(project)) == 8
        assert len(texts(project, "--all")) == 16
        assert len(texts(project, "--recipe", "title", "--select", "variant:instructions=two")) == 4
        compared = json.loads(project.run("compare", "bio", "--format", "json").ok().out)
        assert [row["variant"] for row in compared["variants"]] == ["instructions=one", "instructions=two"]
        ran = project.run("export", "--select", "variant:instructions=three")
        assert (ran.code, "no such variant" in ran.err) == (2, True)
        assert "error: no recipe 'boi' in bioforge.toml" in project.run("export", "--recipe", "boi").err

    def test_why_shows_what_changed_until_then(self, project: ProjectFolder, install: Install) -> None:
        built(project, install)
        project.edit("artists.csv", "Icelandic singer", "Icelandic singer and producer")
        project.edit("bioforge.toml", "Write a biography.", "Write a short biography.")
        project.run("plan").ok()
        install.remove("bioforge-echo")
        shown = project.run("why", "1").ok().out
        assert "bio: changed" in shown
        assert "    instructions\n      old: Write a biography.\n      new: Write a short biography.\n" in shown
        assert "      old: Icelandic singer\n      new: Icelandic singer and producer\n" in shown

    def test_answers_can_be_forgotten(self, project: ProjectFolder, install: Install) -> None:
        built(project, install)
        install.remove("bioforge-echo")
        assert project.run("forget", "2", "--yes").ok().err.startswith("1 answer forgotten")
        assert texts(project, "--select", "1") == ["Echo: 1"]
        install("bioforge-echo", ECHO)
        assert project.reasons() == {"forgotten": 1}

    def test_answers_can_be_accepted_as_they_were_planned_last(self, project: ProjectFolder, install: Install) -> None:
        built(project, install)
        project.edit("bioforge.toml", "Write a biography.", "Write a short biography.")
        assert project.reasons() == {"changed": 4}
        install.remove("bioforge-echo")
        ran = project.run("accept", "1", "2", "--yes").ok()
        assert ran.err.splitlines() == [
            "note: no backend 'echo': stale targets are those of the last plan or run",
            "2 targets accepted (recorded in the table `accepted`)",
        ]
        install("bioforge-echo", ECHO)
        assert project.reasons() == {"changed": 2}
        assert project.value("SELECT count(*) FROM attempts") == 4

    def test_the_library_reads_results(self, project: ProjectFolder, install: Install) -> None:
        built(project, install)
        install.remove("bioforge-echo")
        loaded = Project.load(project.root)
        assert (loaded.recipes, loaded.config.backend.name) == (["bio"], "echo")
        assert [record["response_text"] for record in loaded.results("bio", select=["1", "3"])] == [
            "Echo: 1",
            "Echo: 3",
        ]
        for method in (loaded.plan, loaded.run):
            with pytest.raises(PluginError, match="no backend 'echo'") as raised:
                method()
            assert ADVICE in raised.value.hint
        install("bioforge-echo", ECHO)
        assert loaded.plan().requests == 0


class TestWithoutItsReader:
    def test_only_what_reads_the_input_stops(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-names", NAMES)
        project.write("artists.names", "Björk\nAbsalon\n")
        project.edit(
            "bioforge.toml", 'path = "artists.csv"', 'path = "artists.names"\ncolumns = { artist_name = "name" }'
        )
        project.edit("bioforge.toml", ": {{ artist_data }}", "")
        project.run("run").ok()
        exported = project.run("export").ok().out
        project.write("answers.jsonl", exported)
        first, second = (json.loads(line)["artist_id"] for line in exported.splitlines())
        install.remove("bioforge-names")
        for command in ("plan", "run", "accept", "gc --yes", "import answers.jsonl"):
            ran = project.run(*command.split())
            assert (ran.code, ran.err.splitlines()[-2]) == (2, "error: no reader 'names'"), command
        assert len(texts(project)) == 2
        assert "bio: fresh" in project.run("why", first).ok().out
        assert "2/2" in project.run("compare", "bio").ok().out
        for command in ("status", "audit", f"forget {second} --yes"):
            project.run(*command.split()).ok()
        install("bioforge-names", NAMES)
        assert project.reasons() == {"forgotten": 1}
        project.run("run").ok()
        assert project.charged() == 3


class TestWithoutItsWriter:
    def test_only_what_writes_the_output_stops(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-diary", DIARY)
        project.configure(DIARY_OUTPUT)
        project.run("run", "--limit", "2").ok()
        project.write("answers.jsonl", project.run("export").ok().out)
        install.remove("bioforge-diary")
        assert project.run("plan").ok().out.startswith("warning: a run would be refused: no writer 'diary'\n")
        for command in ("run", "export -F diary -o out/diary.txt"):
            ran = project.run(*command.split())
            assert (ran.code, ran.err.splitlines()[0]) == (2, "error: no writer 'diary'"), command
        assert project.charged() == 2
        assert len(texts(project)) == 2
        assert "bio: fresh" in project.run("why", "1").ok().out
        for command in ("status", "audit", "compare bio", "accept --yes", "gc --yes", "import answers.jsonl"):
            project.run(*command.split()).ok()
        project.run("forget", "1", "--yes").ok()
        project.configure()
        project.run("run").ok()
        assert project.charged() == 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[backend.echo]\nword = 3", "backend.echo.word"),
        ("[backend.batch]\nmax_request = 3", "backend.batch.max_request"),
    ],
)
def test_a_wrong_table_keeps_nobody_from_answers(
    project: ProjectFolder, install: Install, more: str, message: str
) -> None:
    built(project, install)
    ask_echo(project, more)
    for command in ("export", "why 1", "status", "audit", "compare bio", "forget 1 --yes"):
        project.run(*command.split()).ok()
    for command in ("plan", "run", "gc --yes", "accept --yes"):
        ran = project.run(*command.split())
        assert (ran.code, message in ran.err) == (2, True), command


def test_a_template_or_schema_that_is_broken_now_keeps_nobody_from_answers(
    project: ProjectFolder, install: Install
) -> None:
    built(project, install)
    for wrong in ('input = "{{ artist_name "', 'input = "x"\nschema = "nowhere.py:Nothing"'):
        ask_echo(project)
        project.edit("bioforge.toml", 'input = "{{ artist_name }}: {{ artist_data }}"', wrong)
        assert project.run("plan").code == 2
        assert len(texts(project)) == 4
        project.run("why", "1").ok()
        project.run("compare", "bio").ok()
