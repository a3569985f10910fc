"""What people get wrong, and what the machine does: one sentence, a hint, an exit code; no traceback, nothing sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import Child, program_on_a_small_disk
from projects import ARTISTS, ProjectFolder

Prepare = Callable[[ProjectFolder], object]


@dataclass(frozen=True, slots=True)
class Case:
    """`{root}` in the error stands for the project's folder; `…` at the end of a hint for a list that may grow."""

    name: str
    command: str
    error: str
    hint: str = ""
    prepare: Prepare = lambda project: None
    code: int = 2

    def __str__(self) -> str:
        return self.name


def edit(old: str, new: str, name: str = "bioforge.toml") -> Prepare:
    return lambda project: project.edit(name, old, new)


def add(more: str) -> Prepare:
    return lambda project: project.configure(more=more)


def write(name: str, text: str | bytes) -> Prepare:
    return lambda project: project.write(name, text)


def folder(name: str) -> Prepare:
    return lambda project: (project.root / name).mkdir()


KNOWN = "known: …"

CASES = [
    # the project file
    Case("no project file", "run", "no bioforge.toml in {root}",
         "`bioforge init` writes one that runs as it is; -f names one elsewhere",
         lambda project: (project.root / "bioforge.toml").unlink()),
    Case("no such project file", "run -f other.toml", "no such project file: other.toml",
         "`bioforge init` writes one that runs as it is"),
    Case("unknown key", "run", "bioforge.toml: retry.frist_delay: unknown key; did you mean 'first_delay'?", "",
         edit("first_delay", "frist_delay")),
    Case("unknown table", "run", "bioforge.toml: limit: unknown table; did you mean 'limits'?", "",
         add("[limit]\nmax_cost_usd = 1")),
    Case("wrong type", "run", "bioforge.toml: backend.concurrency: expected a whole number from 1 to 16384, found 'four'",
         "", edit("concurrency = 4", 'concurrency = "four"')),
    Case("key in the file", "run",
         "bioforge.toml: provider.api_key: a key does not belong in this file: put it into the environment or .env, under"
         " provider.api_key_env", "", edit("[provider]", '[provider]\napi_key = "sk-secret-0123456789"')),
    Case("endpoint that the backend does not have", "run",
         "bioforge.toml: recipe.bio.endpoint: expected '/v1/responses' or '/v1/chat/completions' for backend 'async',"
         " found '/v1/response'; did you mean '/v1/responses'?", "",
         lambda project: project.edit("bioforge.toml", "[recipe.bio]", '[recipe.bio]\nendpoint = "/v1/response"')),
    Case("bad TOML", "run", "bioforge.toml, line 3, column 8: invalid value; found 'name = test'",
         'TOML: text stands in quotes, as in key = "text"', edit('name = "test"', "name = test")),
    Case("no model", "run",
         "bioforge.toml: recipe.bio.model: missing (is 'modell' meant?), expected the name of a model, here or as"
         " OPENAI_MODEL in the environment", "", edit("model =", "modell =")),
    # templates
    Case("template with an unknown column", "run",
         "recipe.bio: the template uses 'artist_date', which is not a column of the input", "did you mean 'artist_data'?",
         edit("artist_data }}", "artist_date }}")),
    Case("template syntax", "run", "recipe.bio.input, line 1: unexpected '}'",
         "see the Jinja2 template syntax, for example {{ artist_name }}", edit("artist_data }}", "artist_data }")),
    Case("template syntax in a file", "run", "prompts/bio.md, line 2: Encountered unknown tag 'iff'.",
         "see the Jinja2 template syntax, for example {{ artist_name }}",
         lambda project: (project.write("prompts/bio.md", "Write.\n{% iff x %}\n"),
                          project.edit("bioforge.toml", '"Write a biography."', '"prompts/bio.md"'))),
    Case("template file that is missing", "run",
         "bioforge.toml: recipe.bio.instructions: no such file 'prompts/boi.md'; did you mean 'prompts/bio.md'?"
         " (text with a space or a line break is taken as it is)", "",
         lambda project: (project.write("prompts/bio.md", "Write."),
                          project.edit("bioforge.toml", '"Write a biography."', '"prompts/boi.md"'))),
    # the input
    Case("missing input", "run", "input 'artists.csv' does not exist in {root}", "did you mean 'artist.csv'?",
         lambda project: (project.root / "artists.csv").rename(project.root / "artist.csv")),
    Case("empty input", "run", "input 'artists.csv' is empty",
         "it needs at least a header row: was it written completely?", write("artists.csv", "")),
    Case("input of a header", "run", "the input has no artists", "a header alone is no input; add rows",
         write("artists.csv", "artist_id,artist_name\n")),
    Case("input is a folder", "run", "input 'rows' is a folder, not a file",
         'for all CSV files in it: path = "rows/*.csv"',
         lambda project: (folder("rows")(project), project.edit("bioforge.toml", '"artists.csv"', '"rows"'))),
    Case("bad rows, strictly", "run --strict",
         "3 bad rows in the input, and strict mode allows none:\n  artists.csv:7: found 1 field, expected 4\n"
         "  artists.csv:8: no artist_name\n  artists.csv:9: artist_id '1' is already taken",
         "fix the rows, or run without --strict (and `strict = false`) to leave them out; nothing was sent",
         write("artists.csv", ARTISTS + "5\n6,,x,y\n1,Again,,\n")),
    Case("bad rows, strict by the file", "plan",
         "1 bad row in the input, and strict mode allows none:\n  artists.csv:7: found 1 field, expected 4",
         "fix the rows, or run without --strict (and `strict = false`) to leave them out; nothing was sent",
         lambda project: (project.write("artists.csv", ARTISTS + "5\n"),
                          project.edit("bioforge.toml", '"artists.csv"', '"artists.csv"\nstrict = true'))),
    # names
    Case("unknown backend", "run --backend asink", "no backend 'asink'; did you mean 'async'?", KNOWN),
    Case("unknown writer", "run", "no writer 'jsonn'; did you mean 'jsonl'?", KNOWN,
         add("[[output]]\npath = 'out.txt'\nwriter = 'jsonn'")),
    Case("suffix without a writer", "run", "no writer 'docx'", KNOWN, add("[[output]]\npath = 'out.docx'")),
    Case("unknown reader", "run", "no reader 'cvs'; did you mean 'csv'?", KNOWN,
         edit('"artists.csv"', '"artists.csv"\nreader = "cvs"')),
    Case("unknown recipe", "run boi", "no recipe 'boi' in bioforge.toml", "did you mean 'bio'?"),
    Case("unknown recipe to export", "export --recipe boi", "no recipe 'boi' in bioforge.toml", "did you mean 'bio'?"),
    Case("unknown format", "status --format jsn", "--format jsn: no such format", "did you mean 'json'?"),
    Case("unknown log format", "run --log-format xml", "--log-format xml: no such format",
         "formats are: console, json"),
    Case("unknown export format", "export --format jsonn", "no writer 'jsonn'; did you mean 'jsonl'?", KNOWN,
         lambda project: project.run("plan")),
    Case("unknown reason", "run --select reason:chnged", "--select reason:chnged: no such reason",
         "did you mean 'changed'?"),
    Case("unknown column", "plan -W brn", "-W brn: the input has no such column", "did you mean 'born'?"),
    Case("unknown artist", "why 77", "no artist with the id '77'",
         "ids are in the first column of `bioforge export -F csv`", lambda project: project.run("plan")),
    Case("a name for an id", "why Björk", "no artist with the id 'Björk'", "did you mean 1 (Björk)?",
         lambda project: project.run("plan")),
    Case("unknown option of a writer", "run", "[[output]] colums: this writer has no such option",
         "did you mean 'columns'?", add("[[output]]\npath = 'out.csv'\ncolums = ['artist_id']")),
    Case("unknown option of a folder writer", "run", "[[output]] bom: this writer has no such option",
         "it has no options", add("[[output]]\npath = 'out/'\nbom = true")),
    # flags
    Case("unknown command", "rnu", "no such command 'rnu'", "did you mean 'run'?"),
    Case("unknown flag", "run --nope", "no such option: --nope", "see `bioforge run --help`"),
    Case("missing argument", "why", "missing argument 'ID'", "see `bioforge why --help`"),
    Case("no concurrency", "run -j 0", "--concurrency: expected a whole number from 1 to 16384, found 0"),
    Case("negative budget", "run --max-cost=-1", "--max-cost: expected US dollars, above 0, found -1.0"),
    Case("budget that is none", "run --max-cost nan", "--max-cost: expected US dollars, above 0, found nan"),
    Case("a plan and more", "run --plan today.plan bio", "--plan excludes recipes, --select, --limit and -B",
         "a plan already has its selection"),
    Case("a plan and a dry run", "run --plan today.plan -n", "--plan and --dry-run exclude each other",
         "the plan file lists the requests"),
    Case("missing plan", "run --plan today.plan", "{root}/today.plan: cannot be read: No such file or directory",
         "`bioforge plan --out FILE` writes a plan"),
    Case("no plan at all", "run --plan artists.csv", "{root}/artists.csv, line 1: not a line of a plan",
         "`bioforge plan --out FILE` writes one"),
    Case("log file under a file", "run --log-file artists.csv/log",
         "cannot write the log file artists.csv/log: Not a directory"),
    Case("plan file under a file", "plan --out artists.csv/plan", "cannot write artists.csv/plan: Not a directory",
         "name another file with --out", code=1),
    Case("forgetting unasked", "forget 1", "Forget 1 answer (cost: $0.000056)? The next run pays again. There"
         " is no terminal to ask on",
         "add --yes; nothing was changed", lambda project: project.run("run")),
    Case("init on a file", "init artists.csv", "artists.csv is a file, not a folder",
         "`bioforge init DIR` creates the folder"),
    Case("unknown fault", "simulate --fault rate_limit=x",
         "--fault rate_limit=x: expected NAME=SHARE with a share from 0 to 1", "like rate_limit=0.05"),
    Case("ledger that is a folder", "simulate --port 0 --ledger {root}", "{root}: Is a directory"),
    # the state
    Case("no state yet", "status", "{root}/bioforge.db: there is no state yet",
         "`bioforge run` or `bioforge plan` creates it"),
    Case("state is a folder", "run", "{root}/bioforge.db: is a folder, not a state file",
         "name a file as `state` in [project]", folder("bioforge.db")),
    Case("state under a file", "run", "{root}/artists.csv/x.db: cannot be read: Not a directory",
         "a part of the path is a file: name another path as `state` in [project]",
         edit('name = "test"', 'name = "test"\nstate = "artists.csv/x.db"')),
    Case("state that is no SQLite", "run", "{root}/bioforge.db: file is not a database",
         "the file is no SQLite database or is damaged; it was left as it is", write("bioforge.db", b"no database" * 100)),
    Case("reading a state that is no SQLite", "status", "{root}/bioforge.db: file is not a database",
         "the file is no SQLite database or is damaged; it was left as it is", write("bioforge.db", b"no database" * 100)),
    # exports
    Case("export to a folder", "export -o out", "cannot write out: Is a directory",
         "the state is intact: name a file, then `bioforge export` writes it again",
         lambda project: (project.run("plan"), folder("out")(project)), code=1),
    Case("a folder to stdout", "export -F markdown-folder", "--format markdown-folder writes a folder of files, not to stdout",
         "name the path with -o", lambda project: project.run("plan")),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_mistake_is_one_error_and_a_hint(project: ProjectFolder, case: Case) -> None:
    case.prepare(project)
    before = project.server.ledger.counts.requests
    ran = project.run(*case.command.replace("{root}", str(project.root)).split())
    shown = _errors(ran.err)
    expected = f"error: {case.error}\n" + (f"hint: {case.hint}\n" if case.hint else "")
    if case.hint.endswith("…"):
        start = expected.removesuffix("…\n").replace("{root}", str(project.root))
        assert shown.startswith(start)
        assert shown.count("\n") == expected.count("\n")
    else:
        assert shown == expected.replace("{root}", str(project.root))
    assert ran.code == case.code
    assert ran.out == ""
    assert project.server.ledger.counts.requests == before, "something was sent"
    assert "sk-secret" not in ran.err


def _errors(err: str) -> str:
    """From the first `error:` on: a run may have shown what it read and planned before."""
    return err if err.startswith("error: ") else err[err.index("\nerror: ") + 1 :]


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("export -F jsonl -o bioforge.db", "the state"),
        ("export -F jsonl -o x/../bioforge.db-wal", "the state"),
        ("export -F jsonl -o link.jsonl", "the state"),
        ("export -o artists.csv", "the input"),
        ("plan --out bioforge.db", "the state"),
        ("plan --out bioforge.toml", "the project file"),
        ("run -B --log-file bioforge.db", "the state"),
    ],
)
def test_no_flag_writes_over_the_project_itself(project: ProjectFolder, command: str, what: str) -> None:
    project.run("run").ok()
    (project.root / "link.jsonl").symlink_to("bioforge.db")
    (project.root / "x").mkdir()
    before = {name: project.read(name) for name in ("bioforge.toml", "artists.csv")}
    refused = project.run(*command.split())
    assert refused.code == 2
    assert (
        refused.err
        == f"error: {' '.join(command.split()[-2:])}: this is {what}\nhint: name another file; nothing was written\n"
    )
    assert {name: project.read(name) for name in before} == before
    assert project.value("SELECT count(*) FROM responses") == 4
    assert project.charged() == 4


def test_several_mistakes_of_a_file_are_shown_at_once(project: ProjectFolder) -> None:
    project.edit("bioforge.toml", "concurrency = 4", "concurency = 4")
    project.edit("bioforge.toml", 'name = "test"', "name = 3")
    refused = project.run("run")
    assert refused.code == 2
    assert refused.err == (
        "error: bioforge.toml: 2 mistakes\n"
        "  project.name: expected the project's name, found 3\n"
        "  backend.concurency: unknown key; did you mean 'concurrency'?\n"
    )


def test_a_port_that_is_taken(project: ProjectFolder) -> None:
    port = project.server.port
    refused = project.run("simulate", "--port", str(port))
    assert refused.code == 2
    assert refused.err == (f"error: port {port} on 127.0.0.1 is already in use: choose another, or 0 for a free one\n")


def test_a_text_that_cannot_be_rendered_fails_its_artist_alone(project: ProjectFolder) -> None:
    project.edit("bioforge.toml", "{{ artist_data }}", "{{ 100 // (born | int - 1965) }}")
    ran = project.run("run")
    assert ran.code == 1
    assert "cannot be rendered: 1 target of bio; `bioforge why" in ran.err
    assert project.charged() == 3
    assert project.reasons() == {"failed": 1}
    assert "integer division or modulo by zero" in project.run("why", "1").ok().out
    again = project.run("run")
    assert again.code == 1
    assert "nothing was sent, 1 target cannot be built" in again.err
    assert project.charged() == 3


# ---------------------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    ("path", "prepare", "reason"),
    [
        ("out.jsonl", folder("out.jsonl"), "{root}/out.jsonl: Is a directory"),
        ("artists.csv/out.jsonl", folder("x"), "{root}/artists.csv/out.jsonl: Not a directory"),
        ("pages/", write("pages", "a file"), "{root}/pages/bjork_1.md: Not a directory"),
        ("/dev/full", folder("x"), "/dev/full: No space left on device"),
    ],
)
def test_an_output_that_cannot_be_written_costs_no_answer(
    project: ProjectFolder, path: str, prepare: Prepare, reason: str
) -> None:
    if path == "/dev/full" and not Path(path).exists():
        pytest.skip("this system has no /dev/full")
    writer = "\nwriter = 'jsonl'" if path == "/dev/full" else ""
    project.configure(more=f"[[output]]\npath = '{path}'{writer}\n[[output]]\npath = 'good.csv'")
    prepare(project)
    ran = project.run("run")
    assert ran.code == 1
    assert f"error: cannot write {reason.format(root=project.root)} (the state is intact: " in ran.err
    assert "wrote good.csv (4 records)" in ran.err, "one bad output does not keep the others from being written"
    assert project.value("SELECT count(*) FROM responses") == 4

    project.configure(more="[[output]]\npath = 'mended.jsonl'")
    project.run("run").ok()
    assert len(project.read("mended.jsonl").splitlines()) == 4
    assert project.charged() == 4


# -------------------------------------------------------------------------------------------------------- full disk


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_a_full_disk_keeps_what_was_committed_and_a_later_run_finishes(project: ProjectFolder, backend: str) -> None:
    rows = "".join(f"{row},Artist {row},{'painter ' * 40}\n" for row in range(200))
    project.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
    project.run("plan").ok()
    room = max(path.stat().st_size for path in project.root.iterdir()) + 60_000

    full = Child(project.root, program_on_a_small_disk, (room, "run", "--backend", backend)).end()
    assert "error: " in full.err
    assert "hint: " in full.err
    assert full.code == 75, "run again, and it goes on"
    assert project.value("PRAGMA integrity_check") == "ok"
    kept = dict(project.rows("SELECT request_hash, text FROM responses"))
    assert len(kept) < 200, "the disk was not full"

    project.run("run").ok()
    project.assert_ledger_equals_state()
    now = dict(project.rows("SELECT request_hash, text FROM responses"))
    assert now.items() >= kept.items()
    assert project.value("SELECT count(*) FROM results WHERE state = 'fresh'") == 200
    audit = json.loads(project.run("audit", "--format", "json").ok().out)
    assert (audit["paid_twice"], audit["lost"], audit["in_flight"]) == (0, 0, 0)


# -------------------------------------------------------------------------------------------------------- as process


def test_the_process_shows_no_traceback(project: ProjectFolder) -> None:
    for ran in (project.process("run", "boi"), project.command("rnu"), project.command("status")):
        assert ran.code == 2
        assert ran.err.startswith("error: ")
        assert "Traceback" not in ran.err
        assert ran.out == ""


def test_developers_can_have_the_traceback(project: ProjectFolder) -> None:
    from bioforge.core.errors import UsageError

    with pytest.raises(UsageError, match="no recipe 'boi'"):
        project.run("run", "boi", env={"BIOFORGE_DEBUG": "1"})
