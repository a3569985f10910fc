"""Any words on the command line, any saved plan and any file in the place of the state: an answer or a refusal in words."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import currently_in_test_context, event, given
from hypothesis import strategies as st
from projects import ProjectFolder

from bioforge.simulator import Simulator

from .effort import examples
from .oddities import TEXTS

_words = st.sampled_from(
    [*TEXTS, "1", "reason:new", "reason:", "reason:nobody", "variant:", "variant:x", "[", "[!", "*[", "\\", "--", "-1", "1e999",
     "nan", "inf", "0", "2h", "1d2h", "9" * 400, "h", "-0.1", "\udcff", "a\udcffb", "%s", "{}", "[bold]x[/bold]", "[/]",
     "\x1b[31m"]
) | st.text(max_size=6)  # fmt: skip
_commands = st.sampled_from(
    ["plan --select", "plan --limit", "plan --deadline", "plan --max-cost", "plan -W", "plan --backend", "plan --format", "plan",
     "run --plan", "run --select", "run -k", "run -j", "run --deadline", "run --max-cost", "run --backend", "why",
     "status --format",
     "export --select", "export --recipe", "export -F", "accept --yes", "forget --yes", "batch retrieve", "batch status",
     "compare", "import", "-f", "nobody"]
)  # fmt: skip


@pytest.fixture(scope="module")
def built() -> Iterator[ProjectFolder]:
    """A project in which everything is answered, and a plan of it."""
    folder = Path(tempfile.mkdtemp(prefix="commands-"))
    with Simulator() as server:
        project = ProjectFolder(folder, server)
        project.run("run").ok()
        project.run("plan", "--out", "saved.plan").ok()
        yield project
    shutil.rmtree(folder, ignore_errors=True)


def assert_in_words(project: ProjectFolder, *arguments: str) -> None:
    charged = project.charged()
    ran = project.run(*arguments)
    assert ran.code in (0, 1, 2, 75), f"{ran.code}: {ran.err}"
    assert "Traceback" not in ran.err
    assert ran.code == 0 or ran.err or ran.out, "it failed without a word"
    assert ran.code != 2 or project.charged() == charged, "refused, and yet something was bought"
    if currently_in_test_context():
        event(f"{arguments[0]} ended with {ran.code}")


@examples(25)
@given(_commands, _words, st.lists(_words, max_size=1))
def test_any_words_are_understood_or_refused(built: ProjectFolder, command: str, word: str, more: list[str]) -> None:
    try:
        f"{word}{more}".encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return  # no command line can have it
    if any("\0" in one for one in (word, *more)):
        return
    assert_in_words(built, *command.split(), word, *more)


@examples(8)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=3), st.binary(max_size=9), st.booleans())
def test_a_damaged_plan_is_refused_and_nothing_is_bought(
    built: ProjectFolder, places: list[int], junk: bytes, cut: bool
) -> None:
    content = (built.root / "saved.plan").read_bytes()
    for place in places:
        place %= len(content)
        content = content[:place] + junk + (b"" if cut else content[place + len(junk) :])
    (built.root / "damaged.plan").write_bytes(content)
    charged = built.charged()
    assert_in_words(built, "run", "--plan", "damaged.plan")
    assert built.charged() == charged


@contextmanager
def copied(project: ProjectFolder, state: bytes) -> Iterator[ProjectFolder]:
    """The same project with another state."""
    folder = Path(tempfile.mkdtemp(prefix="damaged-"))
    try:
        (folder / "bioforge.db").write_bytes(state)
        yield ProjectFolder(folder, project.server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


READING = (("status",), ("audit",), ("why", "1"), ("export", "-F", "jsonl"), ("plan",))


@examples(8)
@given(st.integers(0, 200_000), st.sampled_from([b"", b"\0" * 4096, b"\xff" * 4096, b"x" * 8192]))
def test_a_damaged_state_is_answered_for_or_refused(built: ProjectFolder, place: int, junk: bytes) -> None:
    """A state that ends somewhere, or has lost a page. A flipped bit in a text is beyond what is promised."""
    content = (built.root / "bioforge.db").read_bytes()
    place %= len(content)
    page = place // 4096 * 4096
    damaged = content[:page] + junk + content[page + len(junk) :] if junk else content[:place]
    with copied(built, damaged) as project:
        for command in READING:
            with suppress(sqlite3.OperationalError):  # see the test below
                assert_in_words(project, *command)


def test_a_state_of_an_unknown_format_is_refused_in_words(built: ProjectFolder) -> None:
    content = bytearray((built.root / "bioforge.db").read_bytes())
    content[47] = 9  # the number of the schema's format, which has never been more than 4
    with copied(built, bytes(content)) as project:
        assert "bioforge.db" in project.run("status").failed(2).err
