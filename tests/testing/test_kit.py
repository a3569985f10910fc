"""What the kit gives to authors: its names, its fixtures, projects that are killed and resumed, and sums that are checked."""

from __future__ import annotations

import ast
import os
import signal
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

import bioforge
from bioforge import testing
from bioforge.testing import KILLED, ProjectFolder, charged_by, project_file, wait_until

NAMES = [
    "ARTISTS",
    "BackendBench",
    "BackendContract",
    "Book",
    "KILLED",
    "MakeProject",
    "MakeSimulator",
    "ProjectFolder",
    "Ran",
    "ReaderContract",
    "Recorded",
    "Running",
    "Server",
    "SimulatorServer",
    "TABLES",
    "WriterContract",
    "charged_by",
    "make_project",
    "make_simulator",
    "project",
    "project_file",
    "pytest_configure",
    "record",
    "simulator",
    "wait_until",
]
PACKAGE = Path(bioforge.__file__).parent


@pytest.fixture
def project(make_project) -> ProjectFolder:
    """The kit's own, not that of our tests."""
    return make_project()


# ------------------------------------------------------------------------------------------------------------ names


def test_the_public_names_stay() -> None:
    assert sorted(testing.__all__) == NAMES
    for name in NAMES:
        assert hasattr(testing, name)


def test_every_public_class_and_function_says_what_it_is_for() -> None:
    for name in NAMES:
        found = getattr(testing, name)
        if callable(found) and not name.startswith("Make"):
            assert (found.__doc__ or "").strip(), name
    for contract in (testing.ReaderContract, testing.WriterContract, testing.BackendContract):
        for name in dir(contract):
            story = getattr(contract, name)
            if name.startswith("test_"):
                assert story.__doc__, f"{contract.__name__}.{name} does not say why"


def test_nothing_else_imports_the_kit_or_pytest() -> None:
    """Commands must work where pytest is not installed."""
    for path in PACKAGE.rglob("*.py"):
        if PACKAGE / "testing" in path.parents or "templates" in path.parts:
            continue
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if "pytest" in text or "testing" in text else ():
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{one.name}" for one in node.names)]
            wrong = [name for name in names if name.split(".")[0] == "pytest" or name.startswith("bioforge.testing")]
            assert not wrong, f"{path} imports {wrong}"


def test_without_pytest_it_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['pytest'] = None; import bioforge.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last == (
        "ModuleNotFoundError: bioforge.testing needs pytest, which is not installed: pip install 'bioforge-llm[test]'"
    )


# --------------------------------------------------------------------------------------------------------- projects


def test_a_project_runs_commands_in_this_process(project: ProjectFolder) -> None:
    before = dict(os.environ)
    assert project.reasons() == {"new": 4}
    project.run("run").ok()
    assert project.reasons() == {}
    assert project.charged() == 4
    assert {record["artist_id"] for record in project.records()} == {"0", "1", "2", "3"}
    assert project.value("SELECT count(*) FROM responses") == 4
    project.assert_ledger_equals_state()
    project.assert_nothing_paid_twice()
    assert dict(os.environ) == before


def test_a_command_that_fails_is_told_with_what_it_said(project: ProjectFolder) -> None:
    ran = project.run("rnu").failed(2)
    assert "run" in ran.err
    with pytest.raises(AssertionError, match="exit code 2, expected 0") as caught:
        ran.ok()
    assert "did you mean 'run'?" in str(caught.value)


def test_nothing_comes_from_outside(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_MODEL", "another")
    monkeypatch.setenv("BIOFORGE_LOAD_PLUGINS", "no-such-plugin")
    monkeypatch.setenv("FORCE_COLOR", "1")
    ran = project.run("run").ok()
    assert "\x1b" not in ran.out + ran.err
    assert project.charged() == 4
    assert "no-such-plugin" in project.run("plan", env={"BIOFORGE_LOAD_PLUGINS": "no-such-plugin"}).failed(2).err
    project.process("plan").ok()


def test_files_and_tables_are_the_authors(make_project) -> None:
    project = make_project(
        {"people.csv": "name\nBjörk\n", "notes/a.txt": b"\xff"},
        toml={"input": {"path": "people.csv", "columns": {"artist_name": "name"}}, "output": [{"path": "out.jsonl"}]},
    )
    project.run("run").ok()
    assert '"artist_name": "Björk"' in project.read("out.jsonl")
    project.edit("people.csv", "Björk", "Absalon")
    assert project.reasons() == {"new": 1}
    other = make_project(toml='[provider]\nbase_url = "{base_url}"\n[input]\npath = "artists.csv"\n')
    assert other.root != project.root
    assert project.simulator is other.simulator
    assert f'base_url = "{project.simulator.base_url}"' in other.read("bioforge.toml")


def test_another_server_can_stand_in_the_simulators_place(make_project, simulator) -> None:
    class Vendor:
        base_url = simulator.base_url

        def charged(self) -> list[str | None]:
            return charged_by(simulator)

    project = make_project(simulator=Vendor())
    project.run("run").ok()
    assert project.charged() == 4
    project.assert_ledger_equals_state()


def test_tables_become_the_text_of_a_project_file() -> None:
    tables = {
        "input": {"path": 'a "b"\n\\\x7f', "columns": {"artist_id": "nr", "der Name": "x"}, "strict": True},
        "backend": {"name": "ray", "ray": {"workers": 2, "share": 0.5, "tags": ["a", {"b": 1}]}},
        "output": [{"path": "a"}, {"path": "b", "more": {"c": 1}}],
        "none": {},
    }
    assert tomllib.loads(project_file(tables)) == tables
    with pytest.raises(TypeError, match="cannot hold None"):
        project_file({"input": {"path": None}})


# -------------------------------------------------------------------------------------------------------- processes


def test_a_run_is_killed_and_resumed_and_nothing_is_lost(make_project, make_simulator) -> None:
    simulator = make_simulator(latency=0.05)
    rows = "".join(f"{number},Artist {number}\n" for number in range(30))
    project = make_project({"artists.csv": f"artist_id,artist_name\n{rows}"}, simulator=simulator)
    running = project.start("run")
    wait_until(lambda: project.charged() >= 8 or running.gone(), "eight answers")
    running.kill()
    assert running.gone()
    assert running.end().code == KILLED
    assert 0 < project.value("SELECT count(*) FROM responses") < 30
    project.process("resume").ok()
    assert project.value("SELECT count(*) FROM responses WHERE usable") == 30
    project.assert_ledger_equals_state()


def test_ctrl_c_stops_a_run(make_project, make_simulator) -> None:
    project = make_project(simulator=make_simulator(latency=0.3), toml=None)
    rows = "".join(f"{number},Artist {number}\n" for number in range(200))
    project.write("artists.csv", f"artist_id,artist_name\n{rows}")
    with project.start("run") as running:
        wait_until(lambda: project.charged() >= 4 or running.gone(), "four answers")
        running.interrupt()
        ran = running.end()
    assert ran.code == 130, ran.err
    assert running.said() == ran.err
    project.assert_ledger_equals_state()


def test_what_still_runs_is_killed_when_the_test_ends(make_simulator, tmp_path: Path) -> None:
    project = ProjectFolder(tmp_path, make_simulator(latency=30.0))
    running = project.start("run")
    wait_until(lambda: (tmp_path / "bioforge.db").exists(), "a state")
    assert not running.gone()
    project.close()
    assert running.gone()
    assert running.end().code == -signal.SIGKILL


# ------------------------------------------------------------------------------------------------------------ money


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("UPDATE attempts SET paid = 'no' WHERE id = 1", "charged, and the state does not know"),
        ("DELETE FROM attempts WHERE id = 1", "charged, and the state does not know"),
        ("UPDATE attempts SET client_request_id = 'x' WHERE id = 1", "says paid for what was never charged"),
        ("DELETE FROM responses WHERE attempt = 1", "the answer is not kept"),
    ],
)
def test_a_state_that_disagrees_with_the_ledger_is_found(project: ProjectFolder, sql: str, message: str) -> None:
    project.run("run").ok()
    with closing(sqlite3.connect(project.root / "bioforge.db")) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(sql)
    with pytest.raises(AssertionError, match=message):
        project.assert_ledger_equals_state()


def test_a_charge_that_came_twice_is_found(project: ProjectFolder) -> None:
    project.run("run").ok()
    charges = charged_by(project.simulator)
    with pytest.raises(AssertionError, match="more than once"):
        project.assert_ledger_equals_state([*charges, charges[0]])
    with pytest.raises(AssertionError, match="the state does not know"):
        project.assert_ledger_equals_state([*charges, "another"])


def test_what_was_bought_twice_is_found(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.assert_nothing_paid_twice()
    with closing(sqlite3.connect(project.root / "bioforge.db")) as connection, connection:
        digest = connection.execute("SELECT request_hash FROM attempts WHERE id = 1").fetchone()[0]
        connection.execute("UPDATE attempts SET request_hash = ? WHERE id = 2", (digest,))
    with pytest.raises(AssertionError, match="paid for more than once"):
        project.assert_nothing_paid_twice()


# ----------------------------------------------------------------------------------------------------------- asserts


def test_assertions_of_the_kit_say_what_they_found(project: ProjectFolder) -> None:
    """They are rewritten by pytest, also where a conftest.py imports the kit before it names it as a plugin."""
    for module in (
        "readers",
        "writers",
        "backends",
        "stops",
        "bench",
        "recorder",
        "state",
        "folders",
        "processes",
        "reader_format",
    ):
        assert "@pytest_ar" in vars(sys.modules[f"bioforge.testing.{module}"]), module
