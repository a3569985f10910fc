"""A validation that does not end: every answer is kept, the run ends by itself, and no later run sends again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Child, program, wait_until
from projects import ProjectFolder

from bioforge.recipes.schema import from_document, time_limit
from bioforge.simulator import Simulator, SimulatorOptions

ROWS = 20
MODELS = """
import re
from pathlib import Path
from threading import Event

from pydantic import BaseModel, field_validator

def wait(folder):
    with open(folder / "log", "a") as log:
        log.write(".")
    while (folder / "hang").exists():
        (folder / "hangs").touch()
        Event().wait(0.01)

class Bio(BaseModel):
    note: str

    @field_validator("note")
    @classmethod
    def check(cls, note: str) -> str:
        {code}
        return note
"""
WAITS = "wait(Path(__file__).parent)"
BACKTRACKS = "re.match('^(a+)+$', 'a' * 45 + '!')"
CATCHES = "try: re.match('^(a+)+$', 'a' * 45 + '!')\n        except Exception: pass"
BACK_REFERENCE = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "^(?P<x>a)((?P=x)+)+$"}},
    "required": ["a"],
    "additionalProperties": False,
}


def _limited(seconds: float, *arguments: str) -> None:
    """Run the program with another time limit."""
    time_limit.SECONDS = seconds
    program(*arguments)


def _by_pattern(seconds: float) -> None:
    """Print the verdict of a pattern that only Python can read, and the handler and timer that it leaves."""
    time_limit.SECONDS = seconds
    handler = signal.getsignal(signal.SIGALRM)
    print(from_document(BACK_REFERENCE, "s.json").validate('{"a": "' + "a" * 45 + '!"}'))
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ProjectFolder]:
    with Simulator(SimulatorOptions(latency=0.01, seed=7, batch_seconds=0)) as server:
        folder = ProjectFolder(tmp_path, server)
        rows = "".join(f"{number},Artist {number},\n" for number in range(ROWS))
        folder.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
        folder.configure(
            "[backend.batch]\npoll_seconds = 0.01\n", **{"[recipe.bio]": "[recipe.bio]\nschema = 'models:Bio'"}
        )
        yield folder


@pytest.mark.parametrize("backend", ["async", "threads", "batch", "auto"])
@pytest.mark.parametrize("code", [BACKTRACKS, CATCHES], ids=["backtracks", "catches"])
def test_answers_whose_validation_takes_too_long_are_held_back(project: ProjectFolder, backend: str, code: str) -> None:
    project.write("models.py", MODELS.format(code=code))
    ran = Child(project.root, _limited, (0.05, "run", "--backend", backend)).end()
    assert ran.code == 1, ran.err
    assert "its validation took more than 0.05 s: simplify" in ran.err + ran.out
    held = "state = 'unusable' AND error_class = 'schema'"
    assert project.value(f"SELECT count(*) FROM requests WHERE {held}") == ROWS
    assert project.value("SELECT count(*) FROM responses WHERE text IS NOT NULL") == project.charged() == ROWS
    again = Child(project.root, _limited, (0.05, "run", "--backend", backend)).end()
    assert project.charged() == ROWS, again.err
    project.write("models.py", MODELS.format(code="pass"))
    project.command("run", "--backend", backend)
    assert project.charged() == ROWS
    assert project.value("SELECT count(*) FROM responses WHERE usable") == ROWS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGALRM])
def test_a_signal_during_a_validation_drains(project: ProjectFolder, number: signal.Signals) -> None:
    project.write("models.py", MODELS.format(code=WAITS))
    project.write("hang", "")
    process = Child(project.root, _limited, (1000.0, "run"))
    wait_until(lambda: (project.root / "hangs").exists() or process.gone(), "a validation that hangs")
    process.signal(number)
    wait_until(lambda: process.gone() or "waiting for those in flight" in process.said(), "the drain")
    (project.root / "hang").unlink()
    ran = process.end()
    assert ran.code == 130, ran.err
    assert project.value("SELECT count(*) FROM responses WHERE usable") == project.charged() < ROWS


@pytest.mark.parametrize("backend", ["async", "threads", "batch"])
def test_a_second_signal_leaves_further_answers_to_the_next_plan(project: ProjectFolder, backend: str) -> None:
    project.write("models.py", MODELS.format(code=WAITS))
    project.write("hang", "")
    process = Child(project.root, _limited, (1000.0, "run", "--backend", backend))
    wait_until(lambda: (project.root / "hangs").exists() or process.gone(), "a validation that hangs")
    process.signal(signal.SIGTERM)
    wait_until(lambda: process.gone() or "Ctrl-C again leaves now" in process.said(), "the drain")
    process.signal(signal.SIGTERM)
    wait_until(lambda: process.gone() or "leaving now" in process.said(), "the end")
    (project.root / "hang").unlink()
    ran = process.end()
    assert ran.code == 130, ran.err
    assert (project.root / "log").read_text() == ".", "one validation, which was under way"
    stored = project.value("SELECT count(*) FROM responses")
    assert project.command("plan").code in (0, 1)
    assert project.value("SELECT count(*) FROM responses WHERE usable AND parsed IS NOT NULL") == stored >= 1


def test_a_plan_stops_before_valid_answers_are_bought_again(project: ProjectFolder) -> None:
    project.write("models.py", MODELS.format(code="pass"))
    assert project.command("run").code == 0
    project.write("models.py", MODELS.format(code=BACKTRACKS))
    ran = Child(project.root, _limited, (0.05, "run")).end()
    assert ran.code == 2, ran.err
    assert "its validation took more than 0.05 s" in ran.err
    assert project.value("SELECT count(*) FROM responses WHERE usable") == project.charged() == ROWS


def test_a_pattern_of_python_has_a_time_limit(tmp_path: Path) -> None:
    ran = Child(tmp_path, _by_pattern, (0.05,)).end()
    assert ran.code == 0, ran.err
    assert "its validation took more than 0.05 s" in ran.out
