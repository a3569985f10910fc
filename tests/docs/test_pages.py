"""The pages in docs/ and the README say what is so: commands, keys, tables, queries and code are checked and run."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from processes import Child, script
from projects import ProjectFolder, command_line

from bioforge.backends import strategy
from bioforge.backends.batch import collect, service
from bioforge.backends.batch.options import BatchOptions
from bioforge.backends.strategy import TIERS, ChoiceOptions
from bioforge.cli.app import EXAMPLES
from bioforge.cli.batch import commands as batch_commands
from bioforge.config import tables
from bioforge.core import reasons
from bioforge.core.types import BatchState
from bioforge.report.batches import CLASSES
from bioforge.simulator import BATCH_FAULTS, FAULTS, Simulator, SimulatorOptions
from bioforge.simulator import batch_faults as faults_of_batches
from bioforge.writers.csv import CSV_COLUMNS

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
SHELL_WORDS = ("|", "||", "&&", ">", "2>", "2>>")


def every_command() -> Iterator[tuple[str, Any]]:
    """Each command by its words, and those of a group after it."""
    for name, command in command_line().commands.items():
        yield name, command
        for word, one in getattr(command, "commands", {}).items():
            yield f"{name} {word}", one


COMMANDS: dict[str, Any] = dict(every_command())


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
    """The text below a heading, up to the next one of the same level or a higher one."""
    level = len(heading.split(" ")[0])
    _, found, rest = page.partition(f"\n{heading}\n")
    assert found, f"no section {heading!r}"
    return re.split(rf"\n#{{1,{level}}} ", rest)[0]


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
        text = section(page, f"{'##' if len(name.split()) == 1 else '###'} {name}")
        assert f"bioforge {name} " in text, name
        for option in options_of(command):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"{name} {option}"
    assert set(re.findall(r"^<!-- generated: help ([\w ]+) -->$", page, re.MULTILINE)) == set(COMMANDS)


def test_the_readme_names_every_command() -> None:
    text = section((ROOT / "README.md").read_text("utf-8"), "## Commands")
    assert set(re.findall(r"`(\w+)`", text)) == {name.split()[0] for name in COMMANDS}
    for name in re.findall(r"\]\(docs/([\w-]+\.md)\)", text):
        assert DOCS / name in PAGES
    assert all(f"](docs/{path.name})" in text for path in PAGES)


def test_every_table_is_documented() -> None:
    page = read("state.md")
    assert set(re.findall(r"^<!-- generated: schema (\w+) -->$", page, re.MULTILINE)) == set(generator().schema())
    assert section(page, "## Tables for people").count("<!-- generated: schema") == 8


# ------------------------------------------------------------------------------------------------------- consoles


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of every `bioforge …` in a line of shell, each up to the next shell word."""
    words = shlex.split(re.sub(r"\w+=\$\((.*?)\)", r"\1", text), comments=True)
    while "bioforge" in words:
        words = words[words.index("bioforge") + 1 :]
        end = next((number for number, word in enumerate(words) if word in SHELL_WORDS), len(words))
        yield words[:end]
        words = words[end:]


def check_command(words: list[str]) -> None:
    name, *arguments = words
    assert name in COMMANDS, f"no command {name!r}"
    if hasattr(COMMANDS[name], "commands"):
        name, arguments = f"{name} {arguments[0]}", arguments[1:]
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


def examples() -> list[str]:
    """The lines of all examples; one that ends with a backslash goes on in the next."""
    given = [line for lines in (*EXAMPLES.values(), *batch_commands.EXAMPLES.values()) for line in lines]
    return "\n".join(given).replace("\\\n", "").splitlines()


@pytest.mark.parametrize("line", examples())
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
        ("ID=$(bioforge batch crate --in x.jsonl)", "no command 'batch crate'"),
        ("bioforge batch create", "Missing parameter: source"),
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


MODELS: dict[str, type[Any]] = {
    "## [project]": tables.ProjectTable,
    "## [provider]": tables.ProviderTable,
    "## [input]": tables.InputTable,
    "## [recipe.NAME]": tables.RecipeTable,
    "## [backend]": tables.BackendTable,
    "## [backend.batch]": BatchOptions,
    "## [backend.auto]": ChoiceOptions,
    "## [limits]": tables.LimitsTable,
    "## [retry]": tables.RetryTable,
    "## [[output]]": tables.OutputTable,
}
OF_BACKENDS = ("## [backend.batch]", "## [backend.auto]")
UNWRITTEN = {("## [backend]", "options"), ("## [project]", "name")}
"""Not a key of its own; and a default that is no constant."""


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a section's Markdown tables by their first cell, a key."""
    found = {}
    for line in text.splitlines():
        if key := re.match(r"\| `(\w+)` \|", line):
            found[key[1]] = [cell.strip() for cell in line.strip("|").split(" | ")][1:]
    return found


REQUIRED = object()


def defaults_of(model: type[Any]) -> dict[str, object]:
    """The keys of a table with their defaults."""
    if dataclasses.is_dataclass(model):
        return {field.name: field.default for field in dataclasses.fields(model)}
    fields = model.model_fields.items()
    return {field.alias or name: REQUIRED if field.is_required() else field.default for name, field in fields}


@pytest.mark.parametrize("heading", MODELS)
def test_every_key_is_documented_with_its_default(heading: str) -> None:
    found = rows(section(read("project-file.md"), heading))
    for name, value in defaults_of(MODELS[heading]).items():
        if (heading, name) == ("## [backend]", "options"):
            continue
        assert name in found, f"{heading} {name}"
        if (heading, name) in UNWRITTEN:
            continue
        default = found[name][1]
        if value is REQUIRED:
            assert default == "required"
        elif value is None:
            assert default == "none" or default.startswith(("by ", "all", "the ", "required without")), name
        else:
            written = tomllib.loads(f"value = {default.strip('`')}")["value"]
            assert written == value, name


def test_no_key_is_documented_that_the_backends_do_not_know() -> None:
    page = read("project-file.md")
    for heading in OF_BACKENDS:
        assert set(rows(section(page, heading))) == set(defaults_of(MODELS[heading]))


def test_every_backend_is_documented() -> None:
    from bioforge.plugins.manager import build_manager

    text = rows(section(read("project-file.md"), "## [backend]"))["name"][2]
    assert set(re.findall(r"`(\w+)`", text)) == set(build_manager("").backends())


def test_every_key_of_a_prompt_and_of_the_simulator_is_documented() -> None:
    page = read("project-file.md")
    assert set(tables.PromptTable.model_fields) <= set(rows(section(page, "## [recipe.NAME]")))
    for name in tables.SimulatorTable.model_fields:
        assert f"`{name}`" in section(page, "## [simulator]")


def test_the_columns_of_csv_are_documented() -> None:
    text = section(read("project-file.md"), "## [[output]]").partition("\nColumns: ")[2]
    assert re.findall(r"`(\w+)`", text)[: len(CSV_COLUMNS)] == list(CSV_COLUMNS)


def test_the_complete_example_has_every_key(example: str) -> None:
    written = tomllib.loads(example)
    tables_of = {
        "project": (tables.ProjectTable, [written["project"]]),
        "provider": (tables.ProviderTable, [written["provider"]]),
        "input": (tables.InputTable, [written["input"]]),
        "recipe": (tables.RecipeTable, list(written["recipe"].values())),
        "backend": (tables.BackendTable, [written["backend"]]),
        "limits": (tables.LimitsTable, [written["limits"]]),
        "retry": (tables.RetryTable, [written["retry"]]),
        "output": (tables.OutputTable, written["output"]),
        "simulator": (tables.SimulatorTable, [written["simulator"]]),
    }
    assert set(tables_of) == set(written)
    for table, (model, given) in tables_of.items():
        names = {name for one in given for name in one}
        known = {field.alias or name for name, field in model.model_fields.items()}
        assert known - {"options"} <= names, table
    assert set(tables.PromptTable.model_fields) == set(written["recipe"]["motto"]["prompt"])
    batch, auto = written["backend"]["batch"], written["backend"]["auto"]
    assert set(batch) == set(defaults_of(BatchOptions))
    assert BatchOptions.from_options({**batch, "max_enqueued_tokens": 1}) == BatchOptions(max_enqueued_tokens=1)
    assert set(auto) == set(defaults_of(ChoiceOptions))
    assert ChoiceOptions.from_options(auto) == ChoiceOptions()


def test_the_complete_example_is_a_project(project: ProjectFolder, example: str) -> None:
    from bioforge.config.loader import load
    from bioforge.engine.outputs import check_outputs
    from bioforge.plugins.manager import build_manager

    project.write("bioforge.toml", example)
    project.write("prompts/bio.md", "Write a biography of {{ artist_name }}.")
    project.write("schemas/bio.json", '{"type": "object", "properties": {"text": {"type": "string"}}}')
    project.write("artists.csv", "id,name,dates,country\n1,Björk,1965–,Iceland\n# nobody\n2,Absalon,1964–1993,\n")
    config = load(project.root / "bioforge.toml", {})
    plugins = build_manager("")
    check_outputs(config, plugins)
    plugins.reader("csv")(BytesIO(b""), "artists.csv", config.input.options)

    planned = project.plan()
    found = Counter[str]()
    for group in planned["groups"]:
        found[group["recipe"]] += group["targets"]
    assert found == {"bio": 2 * 2 * 2, "translation": 2 * 2 * 2, "motto": 2}
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
        from bioforge.config.loader import load

        load(project.root / "bioforge.toml", {})


# ------------------------------------------------------------------------------------------------------- the state


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> ProjectFolder:
    """A state in which everything has happened: answers, failures, lost answers, changes, batches of all kinds."""
    script = {"Absalon": ["drop_after"], "Björk": ["bad_request"], "Abbey": ["incomplete"]}
    of_batches = ("token_limit", "lines_duplicated=1", "stuck")
    options = SimulatorOptions(script=script, batch_seconds=0.0, batch_script=of_batches, batch_token_refusal="create")
    with Simulator(options) as server:
        project = ProjectFolder(tmp_path_factory.mktemp("eventful"), server)
        project.configure("[backend.batch]\npoll_seconds = 0.01")
        project.run("run", "--backend", "batch", "--select", "2").ok()
        assert project.run("run").code == 1
        project.edit("artists.csv", "Polish sculptor", "Polish artist")
        project.write("artists.csv", project.read("artists.csv") + "4,El Anatsui,,1944\n")
        assert project.run("run", "--backend", "batch", "--no-wait", "--select", "4").code == 75
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
        assert copy.execute("SELECT count(*) FROM artists").fetchone() == (5,)


# ---------------------------------------------------------------------------------------------- reasons, simulator


def test_every_reason_is_documented() -> None:
    found = re.findall(r"^\| `([\w ]+)` \|", section(read("reasons.md"), "## The reasons"), re.MULTILINE)
    assert found == list(reasons.Reason)


def test_every_class_of_failure_is_documented() -> None:
    from bioforge.backends.openai.errors import TABLE
    from bioforge.core.reasons import ROW_REFUSED

    page = section(read("reasons.md"), "## Failures")
    classes = {rule.error_class for rules in TABLE.values() for rule in rules if rule.error_class.isidentifier()}
    classes.add(ROW_REFUSED)
    classes |= classes_of_batches()
    for name in classes - {"unreadable", "internal"}:  # that is no request's class, but a line's
        assert f"`{name}`" in page, name


def classes_of_batches() -> set[str]:
    """What the code that deals with batches calls failures."""
    from bioforge.backends.batch import collect

    classes = {collect._MISSING[0], *(name for name, _ in collect._ABSENT.values())}
    places = (ROOT / "bioforge/backends/batch", ROOT / "bioforge/backends/openai", ROOT / "bioforge/store")
    for path in (path for place in places for path in place.glob("*batch*.py" if place.name != "batch" else "*.py")):
        text = path.read_text("utf-8")
        classes.update(re.findall(r"""Failure\(\s*"(\w+)",""", text))
        classes.update(re.findall(r"error_class = '(\w+)'", text))
    assert {"batch_rejected", "enqueued_tokens", "abandoned", "interrupted", "batch_error"} <= classes
    return classes


def test_exit_codes_are_documented() -> None:
    from bioforge.core import errors

    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    found = {int(code) for code in re.findall(r"^\| (\d+) \|", read("commands.md"), re.MULTILINE)}
    assert found == codes


def test_every_fault_and_option_of_the_simulator_is_documented() -> None:
    page = read("simulator.md")
    assert re.findall(r"^\| `(\w+)` \|", section(page, "## Faults"), re.MULTILINE) == list(FAULTS)
    values = {"none": "", "share": "share", "count": "number", "count or none": "number, or none for 1"}
    found = re.findall(r"^\| `(\w+)` \| ([^|]*?) ?\|", section(page, "## Faults of batches"), re.MULTILINE)
    assert found == [(name, values[faults_of_batches._VALUES[name]]) for name in BATCH_FAULTS]
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
    assert Child(tmp_path, script, (code,)).end().ok().out.startswith("Simulated answer")


def test_every_path_of_the_simulator_is_documented() -> None:
    from bioforge.simulator import app as edge

    page = read("simulator.md")
    for path in (*edge._PAGES, *edge.ENDPOINTS, "/v1/files", "/v1/batches"):
        assert f" {path}`" in page, path


# --------------------------------------------------------------------------------------------------------- batches


def table_in(heading: str) -> list[str]:
    """The first cells of the first table in a section of batches.md."""
    return re.findall(r"^\| `([\w ]+)` \|", section(read("batches.md"), heading), re.MULTILINE)


def test_every_state_of_a_batch_is_documented() -> None:
    assert table_in("## The life of a batch") == [str(state) for state in BatchState]


def test_every_class_of_a_row_is_documented(tmp_path: Path) -> None:
    documented = table_in("## What becomes of each request")
    assert sorted(documented) == sorted([*CLASSES, "given back"])
    script = (
        "lines_missing=0.2+lines_duplicated=0.3+row_errors=0.2+unknown_lines=1",
        "failed_validation=2",
        "expired=0.5",
        "cancelled=0.5",
    )
    options = SimulatorOptions(
        batch_seconds=0.0, batch_script=script, seed=1, faults={"incomplete": 0.2, "bad_request": 0.1}
    )
    with Simulator(options) as server:
        project = ProjectFolder(tmp_path, server)
        project.write("artists.csv", "artist_id,artist_name\n" + "".join(f"{n},Artist {n}\n" for n in range(40)))
        project.configure("[backend.batch]\npoll_seconds = 0.01")
        project.run("run", "--backend", "batch")
    counted = [json.loads(counts) for (counts,) in project.rows("SELECT counts FROM batches WHERE counts IS NOT NULL")]
    assert {kind for counts in counted for kind in counts} == set(documented) - {"unreadable"}


def test_every_way_of_auto_is_documented() -> None:
    assert table_in("## auto") == list(TIERS)
    for name in defaults_of(ChoiceOptions):
        assert f"`{name}`" in section(read("batches.md"), "## auto")


def test_the_numbers_of_batches_are_those_of_the_code() -> None:
    from bioforge.cli.batch.check import MOST_BYTES, MOST_LINES

    page, options = " ".join(read("batches.md").split()), BatchOptions()
    assert f"| {options.max_requests:,} requests, {options.max_bytes // 1_000_000} MB |" in page
    assert (MOST_LINES, MOST_BYTES) == (50_000, 209_715_200)
    assert f"after {options.poll_seconds:g} seconds, then in growing intervals up to" in page
    assert f"up to {options.poll_max_seconds / 60:g} minutes" in page
    assert f"groups of {collect.GROUP:,} lines" in page
    assert (
        f"{strategy.STANDARD_CALL_SECONDS:g} seconds for a call, {strategy.FLEX_CALL_SECONDS:g} for a flex call" in page
    )


def test_every_command_by_hand_is_documented() -> None:
    assert table_in("## By hand") == [name for name in COMMANDS if name.startswith("batch ")]


def test_the_words_for_programs_are_those_of_the_code() -> None:
    text = section(read("batches.md"), "## For programs")
    words = dict.fromkeys(service.STATUSES.values())
    assert re.findall(r"`(\w+)`", text.partition("five words: ")[2])[: len(words)] == list(words)
    described = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)))
    known = {*dir(service.BatchResult)}
    assert set(described) <= known
    assert {"text", "data", "metadata", "error", "success", "retryable", "retry_after"} <= set(described)


def test_the_program_without_a_project_runs(tmp_path: Path) -> None:
    (code,) = blocks(read("batches.md"), "python")
    lines = sorted(Child(tmp_path, script, (code,)).end().ok().out.splitlines())
    assert lines[0].startswith("Björk Simulated answer")
    assert lines[1].endswith("server_error again")
    assert len(lines) == 2
    assert [path.suffix for path in (tmp_path / "batches").iterdir()] == [".jsonl"]


def test_what_batches_leave_in_a_folder_is_ignored_by_git() -> None:
    from bioforge.cli import scaffold

    assert {"batch_input*.jsonl", "results_*.jsonl", "logs/"} <= set(scaffold.IGNORED.splitlines())


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
