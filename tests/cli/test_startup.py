"""The command line itself: help that helps, a start that loads little, completion in the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from processes import ENVIRONMENT
from projects import ProjectFolder, command_line, invoke

from bioforge.cli.app import EXAMPLES

HEAVY = (
    "aiohttp", "asyncio", "filelock", "genai_prices", "httpx2", "jinja2", "openai", "requests", "rich", "sqlite3",
    "sqlite_utils", "structlog", "tenacity",
)  # fmt: skip
COMMANDS = list(EXAMPLES)
AS_INSTALLED = "import sys; sys.argv[0] = 'bioforge'; from bioforge.cli import main; main()"


def imported(*commands: list[str]) -> set[str]:
    """Which of `HEAVY` a fresh interpreter has loaded after these commands."""
    script = (
        "import json, sys\n"
        "from bioforge.cli import main\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    sys.argv[1:] = arguments\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, (arguments, end.code)\n"
        "print(json.dumps([name for name in json.loads(sys.stdin.read()) if name in sys.modules]), file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)],
        input=json.dumps(HEAVY),
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stderr))


def test_help_and_version_load_nothing_heavy() -> None:
    assert imported(["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)) == set()


def test_the_measure_itself_sees_what_is_loaded(project: ProjectFolder) -> None:
    assert {"jinja2", "sqlite3"} <= imported(["plan", "-f", str(project.root)])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_and_shows_examples(name: str) -> None:
    help_text = invoke(name, "--help").ok().out
    assert help_text.startswith(f"Usage: bioforge {name} ")
    _, _, examples = help_text.partition("\n  Examples:\n")
    shown = [line.strip() for line in examples.splitlines() if line.strip()]
    assert shown == list(EXAMPLES[name])
    assert any(f"bioforge {name}" in line for line in shown)
    assert all(len(line) <= 80 or "bioforge" in line for line in help_text.splitlines())


def test_every_command_has_examples() -> None:
    assert sorted(command_line().commands) == sorted(EXAMPLES)


def test_without_a_command_it_is_the_help() -> None:
    bare, asked = invoke(), invoke("--help")
    assert bare.code == 2
    assert bare.err.strip() == asked.out.strip()


def complete(project: ProjectFolder, words: str, place: int) -> list[str]:
    """What a shell is given for the word at this place."""
    asked = {"_BIOFORGE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    ran = project.run(env=asked)
    assert ran.err == ""
    return ran.out.split()


def test_the_completion_script_for_bash(project: ProjectFolder) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", AS_INSTALLED],
        env={**os.environ, **ENVIRONMENT, "_BIOFORGE_COMPLETE": "source_bash"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0
    assert "complete -o default -F _bioforge_completion bioforge" in ran.stdout
    checked = subprocess.run(["bash", "-n"], input=ran.stdout, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_recipe_names_complete(project: ProjectFolder) -> None:
    project.configure(more='[recipe.bibliography]\nmodel = "gpt-6-luna"\ninput = "{{ artist_name }}"')
    assert complete(project, "bioforge run ", 2) == ["bio", "bibliography"]
    assert complete(project, "bioforge run bib", 2) == ["bibliography"]
    assert complete(project, "bioforge export --recipe bib", 3) == ["bibliography"]
    (project.root / "bioforge.toml").unlink()
    assert complete(project, "bioforge run ", 2) == [], "silent without a project"
