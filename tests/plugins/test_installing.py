"""`install` and `uninstall`: a plugin comes, is used, and goes; and what is told when it is none, or broken."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest

from bioforge.core.errors import UsageError
from bioforge.plugins.install import InstalledPlugin, find_plugins

from .environments import READER, Environment, plugin, wheel

ROOT = Path(__file__).parents[2]
PLUGINS = (
    "pyproject.toml",
    "plugins/*/pyproject.toml",
    "examples/plugins/*/pyproject.toml",
    "bioforge/cli/templates/plugin/*.toml.tmpl",
)

PROJECT = """
[project]
name = "names"
[provider]
base_url = "simulator"
[input]
path = "painters.names"
[recipe.bio]
model = "gpt-6-luna"
input = "{{ artist_name }}"
[[output]]
path = "bios.jsonl"
"""


def test_a_plugin_is_installed_used_and_uninstalled(environment: Environment, tmp_path: Path) -> None:
    ran = environment.bioforge("install", str(plugin(tmp_path, "bioforge-names"))).ok()
    assert ran.out == "installed bioforge-names 0.1.0: readers names\n"
    assert "Successfully installed bioforge-names-0.1.0" in ran.err

    listed = json.loads(environment.bioforge("plugins", "--format", "json").ok().out)
    mine = listed["plugins"][-1]
    assert (mine["name"], mine["version"], mine["source"]) == ("bioforge-names", "0.1.0", "bioforge_names")
    assert mine["provides"]["bioforge_readers"] == ["names"]

    project = tmp_path / "project"
    project.mkdir()
    (project / "bioforge.toml").write_text(PROJECT)
    (project / "painters.names").write_text("Hilma af Klint\nEl Anatsui\n")
    environment.bioforge("run", cwd=project).ok()
    records = [json.loads(line) for line in (project / "bios.jsonl").read_text("utf-8").splitlines()]
    assert [record["artist_name"] for record in records] == ["Hilma af Klint", "El Anatsui"]

    ran = environment.bioforge("uninstall", "Bioforge_Names", "-y").ok()
    assert ran.out == "uninstalled bioforge-names 0.1.0; gone: readers names\n"
    ran = environment.bioforge("plan", cwd=project)
    assert ran.code == 2
    assert "no reader 'names'" in ran.err


def test_what_is_installed_already_is_said_with_what_it_brings(environment: Environment, tmp_path: Path) -> None:
    environment.add(plugin(tmp_path, "bioforge-names"))
    ran = environment.bioforge("install", "bioforge-names").ok()
    assert ran.out == "bioforge-names 0.1.0 is installed already: readers names\n"
    ran = environment.bioforge("install", "-U", str(plugin(tmp_path, "bioforge-names", version="0.2.0"))).ok()
    assert ran.out == "installed bioforge-names 0.2.0 (was 0.1.0): readers names\n"


@pytest.mark.slow
def test_what_the_environment_leaves_out_is_installed_and_noted(environment: Environment, tmp_path: Path) -> None:
    ran = environment.bioforge("install", str(plugin(tmp_path, "bioforge-names")), env={"BIOFORGE_LOAD_PLUGINS": ""})
    assert ran.ok().out == "installed bioforge-names 0.1.0: readers names\n"
    assert "note: BIOFORGE_LOAD_PLUGINS is '', which leaves bioforge-names out" in ran.err


@pytest.mark.slow
def test_names_come_from_an_index_and_options_go_to_pip(environment: Environment, tmp_path: Path) -> None:
    plugin(tmp_path / "index", "bioforge-names")
    ran = environment.bioforge("install", "-q", "bioforge-names", "--", "--find-links", str(tmp_path / "index")).ok()
    assert ran.out == "installed bioforge-names 0.1.0: readers names\n"
    assert "Successfully" not in ran.err


def test_a_plugin_that_does_not_load_is_told_with_the_way_out(environment: Environment, tmp_path: Path) -> None:
    ran = environment.bioforge("install", str(plugin(tmp_path, "bioforge-broken", "import nothing_like_this")))
    assert (ran.code, ran.out) == (1, "")
    assert "error: bioforge-broken 0.1.0 is installed, but does not work: cannot be imported: " in ran.err
    assert "No module named 'nothing_like_this'" in ran.err
    assert ran.err.endswith("hint: `bioforge uninstall bioforge-broken` removes it\n")
    ran = environment.bioforge("uninstall", "bioforge-broken", "-y").ok()
    assert ran.out == "uninstalled bioforge-broken 0.1.0\n"
    assert environment.bioforge("plugins").ok().err == ""


@pytest.mark.slow
def test_a_plugin_without_anything_in_it_is_an_error(environment: Environment, tmp_path: Path) -> None:
    ran = environment.bioforge("install", str(plugin(tmp_path, "bioforge-empty", "BIOFORGE_API = 1")))
    assert (ran.code, ran.out) == (1, "")
    assert "error: bioforge-empty 0.1.0 is installed, but does not work: none of its hooks returns a name" in ran.err


def test_what_is_no_plugin_is_told_with_the_way_out(environment: Environment, tmp_path: Path) -> None:
    wheel(tmp_path, "painters", {"painters.py": ""})
    ran = environment.bioforge("install", "painters", "--", "--find-links", str(tmp_path))
    assert (ran.code, ran.out) == (1, "")
    assert "error: painters is installed, but is not a plugin: it has no entry point in the group 'bioforge'" in ran.err
    assert "-m pip uninstall painters` removes it" in ran.err
    assert "`bioforge install bioforge-painters`" in ran.err
    ran = environment.bioforge("uninstall", "painters", "-y")
    assert ran.code == 2
    assert ran.err.startswith("error: no plugin 'painters' is installed; nothing was uninstalled\n")
    assert environment.run("pip", "show", "painters").code == 0


def test_a_plugin_that_breaks_another_is_told(environment: Environment, tmp_path: Path) -> None:
    environment.add(
        plugin(tmp_path, "bioforge-names", READER.replace("from bioforge", "import helper\n    from bioforge", 1))
    )
    environment.add(wheel(tmp_path, "helper", {"helper.py": ""}))
    broken = wheel(tmp_path, "helper", {"helper.py": "raise ImportError('too new')"}, version="2.0")
    ran = environment.bioforge("install", str(broken))
    assert ran.code == 1
    assert "error: plugin 'bioforge-names': cannot be imported: " in ran.err
    assert "too new" in ran.err
    assert ran.err.endswith("hint: it worked before this installation\n")


def test_an_installation_that_breaks_bioforge_itself_is_told(environment: Environment, tmp_path: Path) -> None:
    shadow = wheel(tmp_path, "bioforge-typer", {"typer/__init__.py": ""})
    ran = environment.bioforge("install", str(shadow))
    assert ran.code == 1
    assert "error: bioforge no longer starts in this environment: " in ran.err
    assert "typer" in ran.err
    assert "-m pip check` may name the cause" in ran.err


def test_another_project_of_the_same_name_is_named(environment: Environment, tmp_path: Path) -> None:
    """As from the index, which a plugin that requires `bioforge` pulls in."""
    wheel(tmp_path, "bioforge", {"bioforge_aligner.py": ""}, version="10.0.0")
    made = wheel(tmp_path, "bioforge-old", {"bioforge_old.py": READER}, entry="old = bioforge_old", requires="bioforge")
    ran = environment.bioforge("install", str(made), "--", "--find-links", str(tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert "error: the distribution 'bioforge' 10.0.0 is installed here: it is another project" in ran.err
    assert f"hint: `{environment.python} -m pip uninstall bioforge`, then" in ran.err
    listed = environment.bioforge("plugins")
    assert (listed.code, listed.err.count("error: the distribution 'bioforge' 10.0.0")) == (1, 1)
    (tmp_path / "bioforge.toml").write_text(PROJECT)
    (tmp_path / "painters.names").write_text("Hilma af Klint\n")
    ran = environment.bioforge("plan", cwd=tmp_path)
    assert "warning: the distribution 'bioforge' 10.0.0 is installed here" in ran.err
    environment.run("pip", "uninstall", "-y", "bioforge")
    assert "another project" not in environment.bioforge("plugins").ok().err


@pytest.mark.parametrize(
    "path",
    [path.relative_to(ROOT) for place in PLUGINS for path in sorted(ROOT.glob(place))],
    ids=str,
)
def test_no_distribution_requires_the_other_project(path: Path) -> None:
    about = tomllib.loads((ROOT / path).read_text("utf-8").replace("$", ""))["project"]
    required = {*about["dependencies"], *(name for extra in about["optional-dependencies"].values() for name in extra)}
    ours = {name for name in required if re.match(r"bioforge(?!-(?!llm))", name)}
    assert ours
    assert all(name.startswith("bioforge-llm") for name in ours)


def test_an_installation_under_the_former_name_is_no_clash(environment: Environment, tmp_path: Path) -> None:
    old = wheel(tmp_path, "bioforge", {}, script="bioforge = bioforge.cli:main")
    environment.add(old)
    assert environment.bioforge("plugins").ok().err == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tables"], 1, "hint: most plugins are called bioforge-NAME: `bioforge install bioforge-tables`\n"),
        pytest.param(["tables>=2"], 1, "ERROR: No matching distribution found for tables>=2\n", marks=pytest.mark.slow),
        (["bioforge-tables"], 1, "error: nothing was installed: pip ended with exit code 1; see above\n"),
        (["a-folder"], 1, "hint: for the folder of that name: `bioforge install ./a-folder`\n"),
        pytest.param(["./a-folder"], 1, "Neither 'setup.py' nor 'pyproject.toml' found.", marks=pytest.mark.slow),
        (["./nothing"], 2, "error: ./nothing does not exist\n"),
        (["-e", "nothing"], 2, "error: nothing does not exist\n"),
        (["bioforge"], 2, "hint: this program is called 'bioforge-llm' there: `bioforge install -U bioforge-llm`\n"),
        (["-U", "Bioforge>=1"], 2, "error: the distribution 'bioforge' of the package index is another project;"),
        ([], 2, "error: no package to install is named\n"),
        (["--", "--pre"], 2, "error: no package to install is named\n"),
    ],
    ids=str,
)
def test_what_cannot_be_installed(environment: Environment, words: list[str], code: int, said: str) -> None:
    (environment.folder / "a-folder").mkdir()
    ran = environment.bioforge("install", *words)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err


NEAR = "no plugin 'names' is installed; nothing was uninstalled", "did you mean 'bioforge-names'?"


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("bioforge", "bioforge does not uninstall itself; nothing was uninstalled", "-m pip uninstall bioforge-llm`"),
        ("names", *NEAR),
        ("bioforge-name", "no plugin 'bioforge-name' is installed; nothing was uninstalled", NEAR[1]),
        ("xyz", "no plugin 'xyz' is installed; nothing was uninstalled", "installed plugins: bioforge-names"),
    ],
)
def test_what_is_no_plugin_is_not_uninstalled(name: str, said: str, hint: str) -> None:
    installed = {"bioforge-names": InstalledPlugin("bioforge-names", "0.1.0", "readers names", ())}
    for names in ([name], ["Bioforge.Names", name]):
        with pytest.raises(UsageError) as refused:
            find_plugins(names, installed)
        assert refused.value.message == said
        assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bioforge-names", "names", "-y"], f"error: {NEAR[0]}\nhint: {NEAR[1]}\n"),
        (["bioforge-names"], "error: Uninstall bioforge-names 0.1.0 (readers names)? There is no terminal to ask on\n"),
    ],
    ids=str,
)
def test_what_is_not_uninstalled(environment: Environment, tmp_path: Path, words: list[str], said: str) -> None:
    environment.add(plugin(tmp_path, "bioforge-names"))
    ran = environment.bioforge("uninstall", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert (environment.site / "bioforge_names.py").exists()


def test_the_words_of_pip_reach_people(environment: Environment, tmp_path: Path) -> None:
    """As where a Linux distribution manages Python and refuses: the message is pip's."""
    pip = environment.site / "pip"
    pip.mkdir()
    (pip / "__init__.py").touch()
    (pip / "__main__.py").write_text("import sys\nsys.exit('error: externally-managed-environment')\n")
    # The environment's own site-packages come before the outer ones only when they are asked to.
    ran = environment.bioforge("install", "bioforge-names", env={"PYTHONPATH": str(environment.site)})
    assert ran.code == 1
    assert ran.err.startswith("error: externally-managed-environment\n")


def test_without_pip_uv_does_it(environment: Environment, tmp_path: Path) -> None:
    """What uv is told, and what it did: a stand-in unpacks the wheel."""
    environment.without("pip")
    nobody = environment.run("bioforge", "install", "bioforge-names", env={"PATH": "/nowhere"})
    assert nobody.code == 2
    assert "error: this environment has no pip, and uv is not on the path\n" in nobody.err

    made = plugin(tmp_path, "bioforge-names")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text(
        f"#!{environment.python}\nimport sys, zipfile\n"
        f"print(*sys.argv[1:], file=open({str(tmp_path / 'said')!r}, 'a'))\n"
        f"if sys.argv[2] == 'install':\n    zipfile.ZipFile({str(made)!r}).extractall({str(environment.site)!r})\n"
    )
    (tools / "uv").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    ran = environment.run("bioforge", "install", "-U", str(made), env={"PATH": path}).ok()
    assert ran.out == "installed bioforge-names 0.1.0: readers names\n"
    ran = environment.run("bioforge", "uninstall", "bioforge-names", "-y", env={"PATH": path})
    assert (ran.code, ran.err.splitlines()[0]) == (1, "error: bioforge-names 0.1.0 is still installed")
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [
        f"pip install --python {environment.python} --upgrade {made}",
        f"pip uninstall --python {environment.python} bioforge-names",
    ]
