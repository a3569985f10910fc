"""Each way a plugin can be wrong: it is named with what is wrong, and whatever does not need it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .environments import READER, Environment, plugin, wheel

MakeProject = Callable[..., Path]

HOOK = "\n    @hookimpl\n    def bioforge_{kind}s():\n        return {{{values}}}\n"
START = "\n    from bioforge.plugin import *\n    BIOFORGE_API = 1\n"

LEFT_OUT = {
    "no import": (
        "import nothing_like_this",
        "cannot be imported: ModuleNotFoundError: No module named 'nothing_like_this'",
    ),
    "no syntax": ("def broken(:", "cannot be imported: SyntaxError: "),
    "exit": ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    "unknown hook": (
        READER.replace("bioforge_readers", "bioforge_raeders"),
        "implements an unknown hook 'bioforge_raeders'; did you mean 'bioforge_readers'?",
    ),
    "no mark": (
        READER.replace("@hookimpl", ""),
        "has a function 'bioforge_readers' without @hookimpl, so it is never called",
    ),
    "arguments": (READER.replace("bioforge_readers()", "bioforge_readers(config)"), "cannot be used: "),
    "no version": (
        READER.replace("BIOFORGE_API = 1", ""),
        "declares no plugin API version: add BIOFORGE_API = 1 to the module",
    ),
    "newer": (
        READER.replace("BIOFORGE_API = 1", "BIOFORGE_API = 2"),
        "needs plugin API version 2; this bioforge has version 1: install a newer bioforge",
    ),
    "older": (
        READER.replace("BIOFORGE_API = 1", "BIOFORGE_API = 0"),
        "needs plugin API version 0; this bioforge has version 1: install a newer version of the plugin",
    ),
    "odd version": (
        READER.replace("BIOFORGE_API = 1", "BIOFORGE_API = '1'"),
        "BIOFORGE_API is '1', expected a whole number like 1",
    ),
}
"""Plugins that cannot be loaded, and what is said of them."""

NOT_USED = {
    "list": (
        READER.replace('{"names": names}', '["names"]'),
        "bioforge_readers: expected a mapping of names, found list",
    ),
    "nothing": (
        READER.replace('return {"names": names}', "pass"),
        "bioforge_readers: expected a mapping of names, found NoneType",
    ),
    "number": (READER.replace('{"names": names}', "{1: names}"), "bioforge_readers: expected a name as text, found 1"),
    "text": (
        READER.replace('{"names": names}', '{"names": "names"}'),
        "bioforge_readers: 'names' should be a callable, found str",
    ),
    "failing": (
        READER.replace('{"names": names}', "1 / 0"),
        "bioforge_readers fails: ZeroDivisionError: division by zero",
    ),
    "options": (
        READER + "\n    names.Options = dict\n",
        "bioforge_readers: 'names' has Options that are not a pydantic model: <class 'dict'>",
    ),
}
"""Plugins that load, with a hook that cannot be used."""


@pytest.fixture
def make_folder(tmp_path: Path, environment: Environment) -> MakeProject:
    """`make_folder(**{"bioforge.toml": [(old, new)]})`: the project of `init`, with texts exchanged in its project file."""

    def make(*changes: tuple[str, str]) -> Path:
        folder = tmp_path / "project"
        environment.bioforge("init", str(folder)).ok()
        path = folder / "bioforge.toml"
        text = path.read_text("utf-8")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path.write_text(text, "utf-8")
        return folder

    return make


@pytest.mark.parametrize(("code", "said"), [*LEFT_OUT.values(), *NOT_USED.values()], ids=[*LEFT_OUT, *NOT_USED])
def test_it_is_named_and_the_rest_works(
    environment: Environment, tmp_path: Path, make_folder: MakeProject, code: str, said: str
) -> None:
    environment.add(plugin(tmp_path, "bioforge-names", code))
    environment.add(plugin(tmp_path, "bioforge-other", READER.replace('"names"', '"other"')))

    ran = environment.bioforge("plugins")
    assert ran.code == 1
    error = f"error: plugin 'bioforge-names' 0.1.0: {said}"
    assert ran.err.startswith(error), ran.err
    assert ran.err.count("error: ") == 1
    assert "readers other" in ran.out

    folder = make_folder()
    ran = environment.bioforge("plan", cwd=folder).ok()
    assert "5 requests will be sent" in ran.out
    assert "error" not in ran.err

    ran = environment.bioforge("plan", cwd=make_names(folder))
    assert ran.code == 2
    assert f"warning: plugin 'bioforge-names' 0.1.0: {said}" in ran.err
    assert "error: no reader 'names'" in ran.err


def make_names(folder: Path) -> Path:
    path = folder / "bioforge.toml"
    path.write_text(path.read_text("utf-8").replace('path = "artists.csv"', 'path = "artists.names"'), "utf-8")
    (folder / "artists.names").write_text("Hilma af Klint\nEl Anatsui\n", "utf-8")
    return folder


def test_an_entry_point_without_its_module(environment: Environment, tmp_path: Path) -> None:
    environment.add(wheel(tmp_path, "bioforge-names", {"names.py": ""}, entry="names = bioforge_names"))
    ran = environment.bioforge("plugins")
    assert ran.code == 1
    assert "No module named 'bioforge_names'; it is left out" in ran.err


def test_a_name_that_two_claim_is_nobodys_and_an_error_where_it_is_used(
    environment: Environment, tmp_path: Path, make_folder: MakeProject
) -> None:
    for name in ("bioforge-names", "bioforge-other"):
        environment.add(plugin(tmp_path, name))
    ran = environment.bioforge("plugins")
    claimed = "'names' is claimed by 2 plugins, 'bioforge-names' and 'bioforge-other' (bioforge_readers)"
    assert (ran.code, ran.err) == (1, f"error: {claimed}\n")
    folder = make_folder()
    assert environment.bioforge("plan", cwd=folder).ok().err.count("claimed") == 0
    ran = environment.bioforge("plan", cwd=make_names(folder))
    assert (ran.code, ran.err) == (
        2,
        f"error: {claimed}\nhint: uninstall one, or leave it out with BIOFORGE_LOAD_PLUGINS\n",
    )
    one = {"BIOFORGE_LOAD_PLUGINS": "other"}
    assert "2 requests will be sent" in environment.bioforge("plan", cwd=folder, env=one).ok().out


@pytest.mark.slow
def test_installing_a_second_of_a_name_is_told(environment: Environment, tmp_path: Path) -> None:
    environment.add(plugin(tmp_path, "bioforge-names"))
    ran = environment.bioforge("install", str(plugin(tmp_path, "bioforge-other")))
    assert ran.code == 1
    assert "error: bioforge-other 0.1.0 is installed, but does not work: 'names' is claimed by 2 plugins" in ran.err
    assert "hint: `bioforge uninstall bioforge-other` removes it\n" in ran.err


def test_a_choice_of_what_is_not_installed(environment: Environment, tmp_path: Path) -> None:
    environment.add(plugin(tmp_path, "bioforge-names"))
    ran = environment.bioforge("plugins", env={"BIOFORGE_LOAD_PLUGINS": "naems"})
    assert ran.code == 2
    assert ran.err.startswith("error: BIOFORGE_LOAD_PLUGINS names 'naems', which is not installed")


BROKEN_BACKEND = """class Broken(Backend):
        def __init__(self, context):
            pass

        def price(self, *of):
            return 0.0

        def execute(self, work):
            raise KeyError('x')
            yield
    """

AT_WORK = {
    "a reader that gives something else": (
        "reader",
        "def names(stream, source, options):\n        yield 'Hilma'\n",
        '"names": names',
        2,
        "error: artists.names: the reader of plugin 'bioforge-names' gave str, expected an Artist or a BadRow",
    ),
    "a reader that fails": (
        "reader",
        "def names(stream, source, options):\n        raise KeyError('x')\n        yield\n",
        '"names": names',
        2,
        "error: artists.names: the reader of plugin 'bioforge-names' failed: KeyError: 'x'",
    ),
    "a writer that fails": (
        "writer",
        "def write(records, stream, options):\n        raise KeyError('x')\n",
        '"names": write',
        1,
        "error: out/bios.names: writer 'names' of plugin 'bioforge-names' failed: KeyError: 'x'",
    ),
    "a backend that is none": (
        "backend",
        "def make(context):\n        return None\n",
        '"names": make',
        2,
        "'names'",
    ),
    "a backend that fails": (
        "backend",
        BROKEN_BACKEND,
        '"names": Broken',
        1,
        "error: backend 'names' of plugin 'bioforge-names' failed: KeyError: 'x'",
    ),
}
"""Plugins that load, and fail when they are used: their kind, their code, their value, the exit code, what is said."""


@pytest.mark.parametrize(("kind", "code", "values", "exit_code", "said"), AT_WORK.values(), ids=list(AT_WORK))
def test_what_fails_at_work_is_an_error_with_its_name(
    environment: Environment,
    tmp_path: Path,
    make_folder: MakeProject,
    kind: str,
    code: str,
    values: str,
    exit_code: int,
    said: str,
) -> None:
    whole = START + f"\n    {code}" + HOOK.format(kind=kind, values=values)
    environment.add(plugin(tmp_path, "bioforge-names", whole))
    folder = make_folder(('path = "out/bios.csv"', f'path = "out/bios.{"names" if kind == "writer" else "csv"}"'))
    words = ["--backend", "names"] if kind == "backend" else []
    if kind == "reader":
        make_names(folder)
    ran = environment.bioforge("run", *words, cwd=folder)
    assert (ran.code, said in ran.err) == (exit_code, True), ran.err


def test_options_are_told_by_their_description(
    environment: Environment, tmp_path: Path, make_folder: MakeProject
) -> None:
    options = """
    class Skip(Options):
        skip: int = Field(0, ge=0, description="a whole number of lines to leave out")

    names = with_options(Skip)(names)
    """
    code = READER.replace("import Artist, hookimpl", "import *\n    from pydantic import Field")
    environment.add(plugin(tmp_path, "bioforge-names", code.replace("    @hookimpl", f"{options}\n    @hookimpl")))
    for written, said in (
        ('skip = "3"', "error: bioforge.toml: input.skip: expected a whole number of lines to leave out, found '3'\n"),
        ("skip = -1", "error: bioforge.toml: input.skip: expected a whole number of lines to leave out, found -1\n"),
        ("skpi = 3", "error: bioforge.toml: input.skpi: unknown key; did you mean 'skip'?\n"),
    ):
        folder = make_folder(('path = "artists.csv"', f'path = "artists.csv"\nreader = "names"\n{written}'))
        ran = environment.bioforge("run", cwd=folder)
        assert (ran.code, ran.err) == (2, said)
        for path in folder.iterdir():
            path.rename(tmp_path / f"{written}-{path.name}")
