"""`init --plugin`: what is written works as it is, its tests pass, and they notice when it does not work any more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bioforge.cli.scaffold import KINDS, Skeleton

from .environments import Environment, wheel_of

NAME = {"reader": "field-notes", "writer": "page", "backend": "own-server"}

MUTANTS = {
    "reader": ('yield number - len(lines), lines', 'yield number, lines'),
    "writer": ("escape(str(record.get('response_text') or ''))", "str(record.get('response_text') or '')"),
    "backend": ("Paid.MAYBE", "Paid.NO"),
}  # fmt: skip
"""For each kind a mistake in the plugin that its own tests have to find."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_written_installed_and_its_tests_pass(environment: Environment, kind: str) -> None:
    name = NAME[kind]
    ran = environment.bioforge("init", "--plugin", name, "--kind", kind, "plugins").ok()
    folder = environment.folder / "plugins" / f"bioforge-{name}"
    package = folder.name.replace("-", "_")
    assert ran.out.splitlines() == [
        f"plugins/{folder.name}/{path}"
        for path in (
            "pyproject.toml",
            "README.md",
            ".gitignore",
            f"{package}/__init__.py",
            f"{package}/py.typed",
            "tests/conftest.py",
            f"tests/test_{name.replace('-', '_')}.py",
        )
    ]
    assert ran.err == f"next: cd plugins/{folder.name} && bioforge install -e '.[test]' && pytest\n"

    ran = environment.bioforge("install", str(wheel_of(folder, environment.folder))).ok()
    assert ran.out == f"installed {folder.name} 0.1.0: {kind}s {name}\n"
    ran = environment.pytest(folder)
    assert ran.code == 0, ran.out
    assert " passed" in ran.out
    assert "failed" not in ran.out

    right, wrong = MUTANTS[kind]
    for module in (environment.site / package / "__init__.py", folder / package / "__init__.py"):
        text = module.read_text("utf-8")
        assert right in text
        module.write_text(text.replace(right, wrong), "utf-8")
    ran = environment.pytest(folder)
    assert ran.code == 1, ran.out
    assert " failed" in ran.out


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_formatted_and_nothing_is_left_open(kind: str) -> None:
    files = Skeleton.of("field-notes", kind).files()
    for path, text in files.items():
        assert not re.search(r"\$\{?[A-Za-z]", text), path
        assert max(map(len, text.splitlines()), default=0) <= 120, path
        if path.endswith(".py"):
            compile(text, path, "exec")
    assert 'field-notes = "bioforge_field_notes"' in files["pyproject.toml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--plugin", "Foo"],
            "error: --plugin Foo: expected at most 40 lower-case letters, digits and '-', the first a letter",
        ),
        (["--plugin", "foo_bar"], "error: --plugin foo_bar: expected at most 40 lower-case letters"),
        (["--plugin", "../foo"], "error: --plugin ../foo: expected at most 40 lower-case letters"),
        (["--plugin", ""], "error: --plugin : expected at most 40 lower-case letters"),
        (["--plugin", "x" * 41], "expected at most 40"),
        (["--plugin", "csv"], "error: --plugin csv: bioforge already has a reader of this name\n"),
        (["--plugin", "foo", "--kind", "raeder"], "error: --kind raeder: no such kind\nhint: did you mean 'reader'?\n"),
        (["--kind", "reader"], "error: --kind is for plugins\nhint: `bioforge init --plugin NAME --kind reader`\n"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(project, words: list[str], said: str) -> None:  # type: ignore[no-untyped-def]
    before = sorted(project.root.iterdir())
    ran = project.run("init", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert sorted(project.root.iterdir()) == before


def test_nothing_is_overwritten(project, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    project.write("bioforge-foo/README.md", "mine")
    ran = project.run("init", "--plugin", "bioforge-foo")
    assert ran.code == 2
    assert ran.err.startswith("error: . already has bioforge-foo/README.md; nothing was written\n")
    assert [path.name for path in (tmp_path / "bioforge-foo").iterdir()] == ["README.md"]
    assert project.read("bioforge-foo/README.md") == "mine"
