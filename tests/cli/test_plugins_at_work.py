"""Projects with plugins: what they read, write and send with, and what happens when a plugin is not what it should be."""

from __future__ import annotations

import json

import plugin_maker
import pytest
from plugin_maker import HEAD, Install
from projects import ProjectFolder

install = plugin_maker.install

DIARY = (
    HEAD
    + """
class DiaryOptions(Options):
    fails: int = 0
    word: str = "kept"

class Diary:
    writes_path = True
    Options = DiaryOptions
    def __call__(self, records, path, options):
        known = set(path.read_text().split()) if path.exists() else set()
        new = [record["artist_id"] for record in records if record["artist_id"] not in known]
        kept = new[: len(new) - options.fails]
        with path.open("a") as stream:
            stream.writelines(f"{name}\\n" for name in kept)
        if len(kept) < len(new):
            raise OutputError(f"{path.name}: {len(kept)} of {len(new)} were {options.word}")
        return f"{len(kept)} {options.word}"

@hookimpl
def bioforge_writers():
    return {"diary": Diary()}
"""
)

NAMES = (
    HEAD
    + """
@with_options(ReaderOptions)
def names(stream, source, options):
    lines = (line.decode().strip() for line in stream)
    yield from artists(((number, {"name": line}) for number, line in enumerate(lines, 1)), source, options.columns)

@hookimpl
def bioforge_readers():
    return {"names": names}
"""
)

ECHO = (
    HEAD
    + """
from time import time

class EchoOptions(Options):
    word: str = "Echo"

class Echo(Backend):
    dialect = "echo"
    endpoints = ("/echo",)
    base_url = "https://echo.example"
    Options = EchoOptions

    def __init__(self, context):
        self.word = context.options.word

    def execute(self, work):
        for number, request in enumerate(work.requests):
            attempt = Attempt(request, request.attempts + 1, "W01", f"{request.request_hash}-{number}", time())
            yield [Started(attempt)]
            yield [Succeeded(attempt, Response(request.body, f"{self.word}: {request.artist_id}", Usage(1, 1)), 0.0)]

@hookimpl
def bioforge_backends():
    return {"echo": Echo}
"""
)

DIARY_OUTPUT = '[[output]]\npath = "out/diary.txt"\nwriter = "diary"\n'


class TestWritersOfPaths:
    def test_what_it_says_is_shown_and_it_is_asked_again_only_when_something_changed(
        self, project: ProjectFolder, install: Install
    ) -> None:
        install("bioforge-diary", DIARY)
        project.configure(DIARY_OUTPUT)
        assert "wrote out/diary.txt (4 kept)" in project.run("run").ok().err
        assert "out/diary.txt" not in project.run("run").ok().err
        project.edit("artists.csv", "Icelandic singer", "Icelandic singer and producer")
        assert "wrote out/diary.txt (0 kept)" in project.run("run").ok().err

    def test_what_could_not_be_done_is_done_by_the_next_run_and_nothing_is_bought_for_it(
        self, project: ProjectFolder, install: Install
    ) -> None:
        install("bioforge-diary", DIARY)
        project.configure(DIARY_OUTPUT + "fails = 1")
        ran = project.run("run")
        assert (ran.code, project.charged()) == (1, 4)
        assert "error: diary.txt: 3 of 4 were kept" in ran.err
        project.configure(DIARY_OUTPUT)
        assert "wrote out/diary.txt (1 kept)" in project.run("run").ok().err
        assert project.charged() == 4

    def test_its_options_are_checked_before_anything_is_sent(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-diary", DIARY)
        project.configure(DIARY_OUTPUT + 'wrod = "x"')
        wrong = "bioforge.toml: output.wrod: unknown key; did you mean 'word'?"
        assert f"a run would be refused: {wrong}" in project.run("plan").ok().out
        ran = project.run("run")
        assert (ran.code, project.charged()) == (2, 0)
        assert ran.err.endswith(f"error: {wrong}\n")

    def test_an_export_to_the_same_place_has_the_same_options(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-diary", DIARY)
        project.configure(DIARY_OUTPUT + 'word = "noted"')
        project.run("run").ok()
        assert project.run("export", "-F", "diary", "-o", "out/diary.txt").ok().err == "0 noted\n"
        assert project.run("export", "-F", "diary", "-o", "other.txt").ok().err == "4 kept\n"
        ran = project.run("export", "-F", "diary")
        assert (ran.code, ran.err) == (
            2,
            "error: --format diary writes to a path, not to stdout\nhint: name the path with -o\n",
        )


HALF = (
    HEAD
    + """
def half(records, stream, options):
    for record in records:
        stream.write(record["artist_id"].encode())
        BREAK

@hookimpl
def bioforge_writers():
    return {"half": half}
"""
)


class TestWriters:
    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("raise RuntimeError('not this one')", "failed: RuntimeError: not this one (the state is intact"),
            ("raise SystemExit(0)", "failed: SystemExit: 0 (the state is intact"),
            ("break", "did not take all records; some are missing"),
        ],
    )
    def test_one_that_breaks_is_named_and_leaves_what_was_there(
        self, project: ProjectFolder, install: Install, code: str, message: str
    ) -> None:
        install("bioforge-half", HALF.replace("BREAK", "pass"))
        project.configure('[[output]]\npath = "out/a.half"\n[[output]]\npath = "out/bios.csv"\n')
        project.run("run").ok()
        assert project.read("out/a.half") == "1230"
        project.edit("artists.csv", "Polish sculptor", "Polish artist")
        install("bioforge-half", HALF.replace("BREAK", code))
        ran = project.run("run")
        assert (ran.code, project.charged()) == (1, 5)
        assert f"error: out/a.half: writer 'half' of plugin 'bioforge-half' {message}" in ran.err
        assert "wrote out/bios.csv (4 records)" in ran.err
        assert project.read("out/a.half") == "1230"
        ran = project.run("export", "-F", "half", "-o", "out/a.half")
        assert ran.code == 1
        assert f"error: writer 'half' of plugin 'bioforge-half' {message.partition(' (')[0]}" in ran.err
        install("bioforge-half", HALF.replace("BREAK", "pass"))
        assert "wrote out/a.half (4 records)" in project.run("run").ok().err

    def test_one_that_is_a_generator_is_refused_before_anything_is_paid_for(
        self, project: ProjectFolder, install: Install
    ) -> None:
        install("bioforge-half", HALF.replace("BREAK", "yield"))
        project.configure('[[output]]\npath = "out/a.half"\n')
        ran = project.run("run")
        assert (ran.code, project.charged()) == (2, 0)
        assert (
            "error: out/a.half: writer 'half' of plugin 'bioforge-half' returned generator, expected nothing" in ran.err
        )

    def test_another_version_writes_anew(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-half", HALF.replace("BREAK", "pass"))
        project.configure('[[output]]\npath = "out/a.half"\n')
        project.run("run").ok()
        assert "wrote" not in project.run("run").ok().err
        install("bioforge-half", HALF.replace("BREAK", "stream.write(b' ')"), version="1.3")
        project.run("run").ok()
        assert project.read("out/a.half") == "1 2 3 0 "

    def test_options_are_never_kept_in_clear_and_may_be_dates(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-half", HALF.replace("BREAK", "pass"))
        project.configure('[[output]]\npath = "out/a.half"\ntoken = "t0p-s3cret"\nsince = 2026-01-01\n')
        project.run("run").ok()
        assert "wrote" not in project.run("run").ok().err
        assert b"t0p-s3cret" not in b"".join(
            path.read_bytes() for path in project.root.glob("bioforge.db*") if path.is_file()
        )


class TestReaders:
    def test_a_reader_reads_and_is_asked_anew_when_it_is_another_version(
        self, project: ProjectFolder, install: Install
    ) -> None:
        install("bioforge-names", NAMES)
        project.write("artists.names", "Björk\nAbsalon\n")
        project.edit(
            "bioforge.toml", 'path = "artists.csv"', 'path = "artists.names"\ncolumns = { artist_name = "name" }'
        )
        project.edit("bioforge.toml", ": {{ artist_data }}", "")
        assert "2 artists (2 new)" in project.run("run").ok().err
        assert project.run("plan").ok().out == "test: everything is up to date (2 artists); nothing to send\n"
        install("bioforge-names", NAMES.replace(".strip()", ".strip().upper()"), version="1.3")
        assert "(2 new, 2 removed)" in project.run("plan").ok().out

    def test_options_may_be_dates(self, project: ProjectFolder, install: Install) -> None:
        install(
            "bioforge-names",
            NAMES.replace("@with_options(ReaderOptions)\n", "").replace(
                ", options.columns", ", {'artist_name': 'name'}"
            ),
        )
        project.write("artists.names", "Björk\n")
        project.edit("bioforge.toml", 'path = "artists.csv"', 'path = "artists.names"\nsince = 2026-01-01')
        project.edit("bioforge.toml", ": {{ artist_data }}", "")
        assert "1 artist" in project.run("run").ok().err
        assert project.run("plan").ok().out == "test: everything is up to date (1 artist); nothing to send\n"

    def test_one_that_reads_nonsense_stops_everything_before_it_is_paid_for(
        self, project: ProjectFolder, install: Install
    ) -> None:
        install("bioforge-names", NAMES.replace("yield from artists", "yield 3\n    yield from artists"))
        project.write("artists.names", "Björk\n")
        project.edit("bioforge.toml", 'path = "artists.csv"', 'path = "artists.names"')
        ran = project.run("run")
        assert (ran.code, project.charged()) == (2, 0)
        assert "error: artists.names: the reader of plugin 'bioforge-names' gave int, expected" in ran.err


def ask_echo(project: ProjectFolder, more: str = "") -> None:
    project.configure(more)
    project.edit("bioforge.toml", "concurrency = 4", 'name = "echo"')
    project.edit("bioforge.toml", project.server.base_url, "https://echo.example")


class TestBackends:
    def test_a_few_lines_are_a_backend(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", ECHO)
        ask_echo(project, '[backend.echo]\nword = "Hear"')
        project.run("run").ok()
        texts = [json.loads(line)["response_text"] for line in project.run("export").ok().out.splitlines()]
        assert texts == ["Hear: 1", "Hear: 2", "Hear: 3", "Hear: 0"]
        assert project.rows("SELECT DISTINCT endpoint, backend FROM requests JOIN attempts USING (request_hash)") == [
            ("/echo", "echo")
        ]
        assert project.plan()["fresh"]
        assert "paid twice: 0" in project.run("audit").ok().out

    def test_the_embedded_server_does_not_speak_for_others(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", ECHO)
        project.configure()
        project.edit("bioforge.toml", project.server.base_url, "simulator")
        ran = project.run("run", "--backend", "echo")
        assert ran.code == 2
        assert "backend 'echo' cannot use the embedded server, which speaks like OpenAI's API" in ran.err
        assert 'hint: write base_url = "https://echo.example" under [provider]' in ran.err

    def test_an_endpoint_is_one_of_the_backends(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", ECHO)
        ask_echo(project)
        project.edit("bioforge.toml", "[recipe.bio]", '[recipe.bio]\nendpoint = "/v1/responses"')
        ran = project.run("plan")
        assert ran.code == 2
        assert "recipe.bio.endpoint: expected '/echo' for backend 'echo', found '/v1/responses'" in ran.err

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (
                "[backend.echo]\nword = 3",
                "error: bioforge.toml: backend.echo.word: input should be a valid string, found 3",
            ),
            ("[backend.batch]\nmax_request = 3", "error: bioforge.toml: backend.batch.max_request: unknown key"),
        ],
    )
    def test_tables_are_checked_also_of_backends_that_are_not_in_use(
        self, project: ProjectFolder, install: Install, more: str, message: str
    ) -> None:
        install("bioforge-echo", ECHO)
        project.configure(more)
        ran = project.run("plan")
        assert (ran.code, ran.err.splitlines()[0].startswith(message)) == (2, True), ran.err

    def test_a_table_of_nobody_may_be_a_slip(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", ECHO)
        project.configure("[backend.ecko]\nword = 3\n[backend.ray]\nworkers = 3")
        ran = project.run("plan").ok()
        assert "note: backend.ecko: no backend of that name is installed; did you mean 'echo'?" in ran.err
        assert "ray" not in ran.err

    def test_what_a_broken_one_has_delivered_is_kept(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", ECHO.replace("yield [Started(attempt)]", "if number == 2: raise KeyError(number)"))
        ask_echo(project)
        ran = project.run("run")
        assert ran.code == 1
        assert "answered attempt" in ran.err
        assert "which it had not announced" in ran.err
        assert project.value("SELECT count(*) FROM responses") == 1
        install(
            "bioforge-echo",
            ECHO.replace("yield [Started(attempt)]", "yield [Started(attempt)]\n            1 / (number - 1)"),
        )
        ran = project.run("resume")
        assert ran.code == 1
        assert "error: backend 'echo' of plugin 'bioforge-echo' failed: ZeroDivisionError: division by zero" in ran.err
        assert project.value("SELECT count(*) FROM responses") == 2
        install("bioforge-echo", ECHO)
        project.run("resume").ok()
        assert project.value("SELECT count(*) FROM responses") == 4
        audit = project.run("audit").ok().out
        assert "paid twice: 0" in audit
        assert "maybe paid: 1 attempt" in audit

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (('dialect = "echo"', 'dialect = ""'), "has dialect '', expected text"),
            (('endpoints = ("/echo",)', 'endpoints = "/echo"'), "has endpoints '/echo', expected a tuple of paths"),
            (('endpoints = ("/echo",)', "endpoints = ()"), "has endpoints (), expected a tuple of paths"),
            (("self.word = context.options.word", "context.nothing"), "cannot be made: AttributeError: "),
            (("self.word = context.options.word", "raise SystemExit(0)"), "cannot be made: SystemExit: 0"),
            (
                ("    def execute", "    def body(self, rendered):\n        return {}['x']\n    def execute"),
                "body() failed: KeyError: 'x'",
            ),
            (
                ("    def execute", "    def check(self):\n        return 1 / 0\n    def execute"),
                "check() failed: ZeroDivisionError",
            ),
            (
                ("    def execute", "    def price(self, model):\n        return 1\n    def execute"),
                "price() failed: TypeError: ",
            ),
            (
                ("    def execute", "    def price(self, *_):\n        return '1'\n    def execute"),
                "price() gave '1', expected US dollars",
            ),
        ],
    )
    def test_what_a_backend_says_of_itself_is_checked_before_anything_is_sent(
        self, project: ProjectFolder, install: Install, change: tuple[str, str], message: str
    ) -> None:
        assert change[0] in ECHO
        install("bioforge-echo", ECHO.replace(*change))
        ask_echo(project)
        ran = project.run("run")
        assert ran.code == 2, ran.err
        assert "error: backend 'echo' of plugin 'bioforge-echo'" in ran.err
        assert message in ran.err
        assert not (project.root / "bioforge.db").exists() or project.rows("SELECT * FROM attempts") == []

    def test_a_factory_that_makes_no_backend(self, project: ProjectFolder, install: Install) -> None:
        install("bioforge-echo", ECHO.replace('"echo": Echo}', '"echo": lambda context: None}'))
        ask_echo(project)
        ran = project.run("plan")
        assert ran.code == 2
        assert "plugin 'bioforge-echo': backend 'echo' made NoneType, expected a Backend" in ran.err


def test_a_broken_plugin_is_left_out_with_a_warning_and_everything_else_works(
    project: ProjectFolder, install: Install
) -> None:
    install("bioforge-broken", "import nothing_like_this")
    ran = project.run("run").ok()
    assert "warning: plugin 'bioforge-broken' 1.2: cannot be imported: ModuleNotFoundError" in ran.err
    assert project.charged() == 4
    assert "warning" not in project.run("plan", env={"BIOFORGE_LOAD_PLUGINS": " "}).ok().err


def test_a_name_that_two_claim_is_refused_only_where_it_is_used(project: ProjectFolder, install: Install) -> None:
    install("bioforge-other", NAMES.replace('"names"', '"csv"'))
    ran = project.run("run")
    assert (ran.code, project.charged()) == (2, 0)
    assert "error: 'csv' is claimed by 2 plugins, 'bioforge.readers' and 'bioforge-other' (bioforge_readers)" in ran.err
    project.write("artists.tsv", project.read("artists.csv").replace(",", "\t").replace('"', ""))
    install("bioforge-other", NAMES.replace('"names"', '"csv"'))
    project.edit("bioforge.toml", "artists.csv", "a.jsonl")
    project.write("a.jsonl", '{"artist_id": "1", "artist_name": "Björk", "artist_data": ""}')
    project.run("run").ok()


def test_what_a_plugin_may_import_is_pinned() -> None:
    """A name that is gone breaks plugins: that needs another `API_VERSION`."""
    import bioforge.plugin

    for name in bioforge.plugin.__all__:
        assert hasattr(bioforge.plugin, name)
    assert bioforge.plugin.API_VERSION == 1
    assert bioforge.plugin.__all__ == CONTRACT.split()


CONTRACT = """
API_VERSION EMBEDDED KEEP_ALIVE_SECONDS PLACEHOLDER_KEY AnyReader AnyWriter Artist AsyncBackend AsyncCallsBackend
AsyncSender Attempt Backend BackendContext BackendFactory BadRow Batch BatchBackend BatchChanged BatchCollected
BatchOptions BatchResult BatchService BatchState BatchesBackend BioforgeError BodyPieces CallError CallsBackend
ConfigError Event Executor Failed Failure FailureReader FileBatchService FolderWriter Gauges InlineBatchService
InputError LimitLearned Limits Load Notice OpenAIBackend Options Outcome OutputError Paid PathReader PathWriter
PurchaseDecision PurchaseJob PurchaseOption RateLimits Reader ReaderOptions Record Rendered Request Response
RetryPolicy RowError RunControl SecretEnv Sender Started Stop Stopped Succeeded ThreadCallsBackend ThreadsBackend Turn
Undecided UnmatchedLine Unusable Usage UsageError VendorBackend Work Writer __version__ artists atomic_write canonical
check_connection client_options client_timeout embedded_error folder_writer hookimpl internal_failure is_loopback
json_value lower_headers mask_key nearest path_reader path_writer proxy read_error_object read_failure
read_json_object remove_key request_hash require_id sdk_headers tls_verification total_timeout with_options
without_answer
"""
