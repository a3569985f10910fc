"""docs/plugins.md: every hook by its exact signature, every name in it real, and what it shows is what commands say."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path

import pytest

from bioforge import plugin, testing
from bioforge.core import interfaces
from bioforge.plugins import hookspecs
from bioforge.plugins.contract import API_VERSION, HOOKS

from .environments import Environment, wheel_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text("utf-8")
DISCOGS = ROOT / "examples" / "plugins" / "bioforge-discogs"


def consoles() -> list[str]:
    """What stands on consoles, without the words of pip."""
    return re.findall(r"^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def shown(command: str) -> str:
    """What the page shows below a command, up to the next one."""
    for console in consoles():
        for words, _, text in (part.partition("\n") for part in console.removeprefix("$ ").split("\n$ ")):
            if words == command:
                return text.rstrip("\n") + "\n"
    raise AssertionError(f"the page does not show {command}")


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_by_its_exact_signature(hook: str) -> None:
    signature = str(inspect.signature(getattr(hookspecs, hook))).replace("'", "")
    assert f"\n{hook}{signature}\n" in PAGE
    assert re.search(rf"^\| `{hook}` \|", PAGE, re.MULTILINE)


def test_there_are_no_other_hooks() -> None:
    declared = {name for name in vars(hookspecs) if name.startswith("bioforge_")}
    assert declared == set(HOOKS) == set(re.findall(r"^\| `(bioforge_\w+)` \|", PAGE, re.MULTILINE))


@pytest.mark.parametrize("name", ["Reader", "PathReader", "Writer", "FolderWriter", "PathWriter"])
def test_every_kind_of_reader_and_writer_is_documented(name: str) -> None:
    signature = str(inspect.signature(getattr(interfaces, name).__call__)).replace("self, ", "").replace("'", "")
    assert f"\n{name}{signature}\n" in PAGE
    assert re.search(rf"^\| `{name}`", PAGE, re.MULTILINE)


def test_what_a_backend_can_say_is_documented() -> None:
    said = [
        name for name in vars(interfaces.Backend) if not name.startswith("_") and name not in ("execute", "Options")
    ]
    rows = re.findall(r"^\| `(\w+)(?:\(.*?\))?` \|", PAGE.partition("| attribute or method |")[2], re.MULTILINE)
    assert sorted(rows[: len(said)]) == sorted(said)


def test_names_of_the_contract_are_real() -> None:
    known = {*vars(plugin), *vars(testing)}
    for name in re.findall(r"`([A-Z][A-Za-z]+[a-z][A-Za-z]+)`", PAGE):
        assert name in known or name in ("ValueError", "SecretStr", "False", "True", "None", "Options"), name
    assert f"It is {API_VERSION}." in PAGE
    for name in re.findall(
        r"^\| `(\w+)(?:\([^|]*?\))?` \|", PAGE.partition("| fixture |")[2].partition("\n\n")[0], re.MULTILINE
    ):
        assert callable(getattr(testing, name)), name


def test_a_newcomer_sees_what_the_page_shows(environment: Environment, tmp_path: Path) -> None:
    """From nothing to an installed reader, used, left out and uninstalled: each command says what stands there."""
    ran = environment.bioforge("init", "--plugin", "discogs", cwd=tmp_path).ok()
    assert ran.out + ran.err == shown("bioforge init --plugin discogs")

    shutil.copytree(DISCOGS, tmp_path / "bioforge-discogs", dirs_exist_ok=True)
    wheel = wheel_of(tmp_path / "bioforge-discogs", tmp_path)
    ran = environment.bioforge("install", "-q", str(wheel)).ok()
    assert ran.out == shown("bioforge install ./bioforge-discogs")
    only = {"BIOFORGE_LOAD_PLUGINS": "discogs"}  # whatever else is installed where the tests run
    assert environment.bioforge("plugins", env=only).ok().out == shown("bioforge plugins")

    project = tmp_path / "bioforge-discogs" / "example"
    assert environment.bioforge("plan", cwd=project).ok().out.startswith(shown("bioforge plan"))
    ran = environment.bioforge("plan", cwd=project, env={"BIOFORGE_LOAD_PLUGINS": ""})
    assert ran.err == shown("BIOFORGE_LOAD_PLUGINS= bioforge plan")

    ran = environment.bioforge("uninstall", "bioforge-discogs", "--yes").ok()
    assert ran.out == shown("bioforge uninstall bioforge-discogs --yes")
