"""The pages in docs/ and the README say what is so: commands, keys, tables, queries and code are checked and run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from projects import ProjectFolder

from bioforge import plan
from bioforge.cli.app import EXAMPLES, app
from bioforge.config import tables
from bioforge.simulator import FAULTS, Simulator, SimulatorOptions
from bioforge.writers import CSV_COLUMNS

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SHELL_WORDS = ("|", "||", "&&", ">", "2>")


def read(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one of the same level."""
    level = heading.split(" ")[0]
    _, found, rest = page.partition(f"\n{heading}\n")
    assert found, f"no section {heading!r}"
    return re.split(rf"\n{level} ", rest)[0]


def options_of(command: Any) -> list[str]:
    return [name for parameter in command.params for name in parameter.opts if name.startswith("-")]


# ------------------------------------------------------------------------------------------------- generated parts


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_parts_are_what_they_are_made_from(path: Path) -> None:
    generate, page = generator(), path.read_text("utf-8")
    if "generated: help" in page and generate.made_with() not in page:
        pytest.skip("help looks different with another typer; the tests below hold with any")
    assert generate.generated(page) == page, "run: python docs/generate.py"


def test_every_command_and_option_is_documented() -> None:
    page = read("commands.md")
    for name, command in COMMANDS.items():
        text = section(page, f"## {name}")
        assert f"bioforge {name} " in text, name
        for option in options_of(command):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"{name} {option}"
    assert set(re.findall(r"^<!-- generated: help (\w+) -->$", page, re.MULTILINE)) == set(COMMANDS)


def test_every_table_is_documented() -> None:
    page = read("state.md")
    assert set(re.findall(r"^<!-- generated: schema (\w+) -->$", page, re.MULTILINE)) == set(generator().schema())
    assert section(page, "## Tables for people").count("<!-- generated: schema") == 7


# ------------------------------------------------------------------------------------------------------- consoles


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of every `bioforge …` in a line of shell, each up to the next shell word."""
    words = shlex.split(text, comments=True)
    while "bioforge" in words:
        words = words[words.index("bioforge") + 1 :]
        end = next((number for number, word in enumerate(words) if word in SHELL_WORDS), len(words))
        yield words[:end]
        words = words[end:]


def check_command(words: list[str]) -> None:
    name, *arguments = words
    assert name in COMMANDS, f"no command {name!r}"
    COMMANDS[name].make_context(name, arguments)


def consoles() -> Iterator[tuple[str, str]]:
    for path in (*PAGES, ROOT / "README.md"):
        for block in blocks(path.read_text("utf-8"), "console"):
            for line in block.splitlines():
                if line.startswith("$ "):
                    yield path.name, line.removeprefix("$ ")


@pytest.mark.parametrize(("page", "line"), list(consoles()))
def test_commands_in_consoles_exist_with_their_flags(page: str, line: str) -> None:
    for words in commands_in(line):
        check_command(words)


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_commands_in_help_exist_with_their_flags(line: str) -> None:
    found = list(commands_in(line))
    assert found
    for words in found:
        check_command(words)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("bioforge rnu", "no command 'rnu'"),
        ("bioforge run --nope", "No such option: --nope"),
        ("bioforge plan -q || bioforge run -j many", "valid integer"),
    ],
)
def test_a_wrong_command_would_be_noticed(line: str, complaint: str) -> None:
    *_, words = commands_in(line)
    with pytest.raises(Exception, match=complaint):
        check_command(words)


def test_flags_named_in_the_text_exist() -> None:
    known = {option for command in COMMANDS.values() for option in options_of(command)}
    known |= {"--help", "--version", "--install-completion", "--show-completion", "-h"}
    for path in (*PAGES, ROOT / "README.md"):
        text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        for code in re.findall(r"`([^`\n]+)`", text):
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]*|(?<!\S)-[A-Za-z](?=\s|$)", code):
                assert option in known or "pip " in code, f"{path.name}: {code}"


# ------------------------------------------------------------------------------------------------ the project file


@pytest.fixture(scope="module")
def example() -> str:
    return blocks(section(read("project-file.md"), "## A complete example"), "toml")[0]


MODELS = {
    "## [project]": tables.Project,
    "## [provider]": tables.Provider,
    "## [input]": tables.Input,
    "## [recipe.NAME]": tables.Recipe,
    "## [backend]": tables.Backend,
    "## [limits]": tables.Limit,
    "## [retry]": tables.Retry,
    "## [[output]]": tables.Output,
}
UNWRITTEN = {("## [backend]", "options"), ("## [project]", "name")}
"""Not a key of its own; and a default that is no constant."""


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a section's Markdown tables by their first cell, a key."""
    found = {}
    for line in text.splitlines():
        if key := re.match(r"\| `(\w+)` \|", line):
            found[key[1]] = [cell.strip() for cell in line.strip("|").split(" | ")][1:]
    return found


@pytest.mark.parametrize("heading", MODELS)
def test_every_key_is_documented_with_its_default(heading: str) -> None:
    found = rows(section(read("project-file.md"), heading))
    for name, field in MODELS[heading].model_fields.items():
        if (heading, name) == ("## [backend]", "options"):
            continue
        assert name in found, f"{heading} {name}"
        if (heading, name) in UNWRITTEN:
            continue
        default = found[name][1]
        if field.is_required():
            assert default == "required"
        elif field.default is None:
            assert default == "none" or default.startswith(("by ", "all", "the ", "required without")), name
        else:
            written = tomllib.loads(f"value = {default.strip('`')}")["value"]
            assert written == field.default, name


def test_every_key_of_a_prompt_and_of_the_simulator_is_documented() -> None:
    page = read("project-file.md")
    assert set(tables.Prompt.model_fields) <= set(rows(section(page, "## [recipe.NAME]")))
    for name in tables.Simulator.model_fields:
        assert f"`{name}`" in section(page, "## [simulator]")


def test_the_columns_of_csv_are_documented() -> None:
    text = section(read("project-file.md"), "## [[output]]").partition("\nColumns: ")[2]
    assert re.findall(r"`(\w+)`", text)[: len(CSV_COLUMNS)] == list(CSV_COLUMNS)


def test_the_complete_example_has_every_key(example: str) -> None:
    written = tomllib.loads(example)
    tables_of = {
        "project": (tables.Project, [written["project"]]),
        "provider": (tables.Provider, [written["provider"]]),
        "input": (tables.Input, [written["input"]]),
        "recipe": (tables.Recipe, list(written["recipe"].values())),
        "backend": (tables.Backend, [written["backend"]]),
        "limits": (tables.Limit, [written["limits"]]),
        "retry": (tables.Retry, [written["retry"]]),
        "output": (tables.Output, written["output"]),
        "simulator": (tables.Simulator, [written["simulator"]]),
    }
    assert set(tables_of) == set(written)
    for table, (model, given) in tables_of.items():
        names = {name for one in given for name in one}
        assert set(model.model_fields) - {"options"} <= names, table
    assert set(tables.Prompt.model_fields) == set(written["recipe"]["motto"]["prompt"])


def test_the_complete_example_is_a_project(project: ProjectFolder, example: str) -> None:
    from bioforge.config import load
    from bioforge.outputs import check_outputs
    from bioforge.plugins import build_manager

    project.write("bioforge.toml", example)
    project.write("prompts/bio.md", "Write a biography of {{ artist_name }}.")
    project.write("artists.csv", "id,name,dates,country\n1,Björk,1965–,Iceland\n# nobody\n2,Absalon,1964–1993,\n")
    config = load(project.root / "bioforge.toml", {})
    plugins = build_manager("")
    check_outputs(config, plugins)
    plugins.reader("csv")(BytesIO(b""), "artists.csv", config.input.options)

    planned = project.plan()
    assert {(group["recipe"], group["targets"]) for group in planned["groups"]} == {("bio", 2), ("motto", 2)}
    shown = project.run("run", "-n", "bio").ok().out
    assert '"input": "Björk\\n1965– Iceland"' in shown
    assert '"reasoning": {' in shown


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_every_piece_of_a_project_file_loads(project: ProjectFolder, path: Path) -> None:
    project.write("prompts/bio.md", "Write.")
    for block in blocks(path.read_text("utf-8"), "toml"):
        written = tomllib.loads(block)
        missing = "" if "input" in written else '\n[input]\npath = "artists.csv"\n'
        if "recipe" not in written:
            missing += '\n[recipe.other]\nmodel = "gpt-6-luna"\ninput = "{{ artist_name }}"\n'
        project.write("bioforge.toml", block + missing)
        from bioforge.config import load

        load(project.root / "bioforge.toml", {})


# ------------------------------------------------------------------------------------------------------- the state


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> ProjectFolder:
    """A state in which everything has happened: answers, failures, lost answers, changes."""
    script = {"Absalon": ["drop_after"], "Björk": ["bad_request"], "Abbey": ["incomplete"]}
    with Simulator(SimulatorOptions(script=script)) as server:
        project = ProjectFolder(tmp_path_factory.mktemp("eventful"), server)
        assert project.run("run").code == 1
        project.edit("artists.csv", "Polish sculptor", "Polish artist")
        project.run("plan").ok()
    return project


@pytest.mark.parametrize("query", blocks(read("state.md"), "sql") if (DOCS / "state.md").exists() else [])
def test_queries_run_and_find_something(eventful: ProjectFolder, query: str) -> None:
    assert eventful.rows(query)


def test_the_state_can_be_copied_as_the_page_says(eventful: ProjectFolder, tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    with (
        closing(sqlite3.connect(eventful.root / "bioforge.db")) as source,
        closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
    ):
        source.backup(copy)
        assert copy.execute("SELECT count(*) FROM artists").fetchone() == (4,)


# ---------------------------------------------------------------------------------------------- reasons, simulator


def test_every_reason_is_documented() -> None:
    found = re.findall(r"^\| `([\w ]+)` \|", section(read("reasons.md"), "## The reasons"), re.MULTILINE)
    assert found == [*plan.REASONS, plan.REMOVED]


def test_every_class_of_failure_is_documented() -> None:
    from bioforge.openai import failures, outcomes, wire

    page = section(read("reasons.md"), "## Failures")
    classes = {*failures._CLASSES.values(), *failures._HINTS, *wire._ENDED_EARLY.values(), "slow_down", "server_error"}
    classes |= {meaning.error_class for meaning in outcomes.MEANINGS.values()}
    for name in classes:
        assert f"`{name}`" in page, name


def test_exit_codes_are_documented() -> None:
    from bioforge import errors

    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    found = {int(code) for code in re.findall(r"^\| (\d+) \|", read("commands.md"), re.MULTILINE)}
    assert found == codes


def test_every_fault_and_option_of_the_simulator_is_documented() -> None:
    page = read("simulator.md")
    assert re.findall(r"^\| `(\w+)` \|", section(page, "## Faults"), re.MULTILINE) == list(FAULTS)
    options = section(page, "## Options")
    for name in (*SimulatorOptions.__dataclass_fields__, *options_of(COMMANDS["simulate"])):
        assert f"`{name}" in options or name in ("-h", "--help"), name


def test_charged_faults_are_charged_as_the_page_says() -> None:
    import httpx2

    rows_of = re.findall(r"^\| `(\w+)` \|.*\| (yes|no) \|$", section(read("simulator.md"), "## Faults"), re.MULTILINE)
    for fault, charged in rows_of:
        options = SimulatorOptions(script=lambda body, number, fault=fault: fault, hang_seconds=0.0)  # type: ignore[misc]
        with Simulator(options) as server:
            try:
                httpx2.post(
                    f"{server.base_url}/responses",
                    json={"model": "gpt-6-luna", "input": "x"},
                    headers={"Authorization": "Bearer any"},
                )
            except httpx2.HTTPError:
                assert fault in ("drop_before", "drop_after", "truncated")
            assert len(server.ledger) == (charged == "yes"), fault


def test_the_program_with_another_client_runs(tmp_path: Path) -> None:
    (code,) = blocks(read("simulator.md"), "python")
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("Simulated answer")


# ------------------------------------------------------------------------------------------------------------ links


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        found = path if not name else path.parent / name
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target
