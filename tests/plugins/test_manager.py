"""Plugins: whoever brings a name is known, and whoever brings trouble is named."""

from __future__ import annotations

import importlib
import sys
from textwrap import dedent

import pytest

from bioforge import __version__
from bioforge.core.errors import PluginError
from bioforge.plugins.manager import BUILT_IN, PluginInfo, Plugins, build_manager

GOOD = """
    from bioforge.plugin import hookimpl

    BIOFORGE_API = 1

    def read(stream, source, options):
        return iter(())

    @hookimpl
    def bioforge_readers():
        return {"parquet": read}
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`install("bioforge-demo", code)`: a distribution with an entry point, found as pip's are."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)

    def add(name, code, version="1.2", entry=None):
        module = name.replace("-", "_") + "_plugin"
        (tmp_path / f"{module}.py").write_text(dedent(code))
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        entry = entry or name.removeprefix("bioforge-")
        (info / "entry_points.txt").write_text(f"[bioforge]\n{entry} = {module}\n")
        importlib.invalidate_caches()

    yield add
    for module in set(sys.modules) - modules:
        if module.endswith("_plugin"):
            del sys.modules[module]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """`module("name", code)`: an importable module, for the place of a built-in one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written = []

    def add(name, code):
        (tmp_path / f"{name}.py").write_text(dedent(code))
        importlib.invalidate_caches()
        written.append(name)
        return name

    yield add
    for name in written:
        sys.modules.pop(name, None)


class TestInstalled:
    def test_a_plugin_is_found_and_described(self, install):
        install("bioforge-parquet", GOOD)
        plugins = build_manager(None, built_in=())
        assert list(plugins.readers()) == ["parquet"]
        assert plugins.reader("parquet") is sys.modules["bioforge_parquet_plugin"].read
        assert plugins.describe() == [
            PluginInfo(
                "bioforge-parquet",
                "1.2",
                "bioforge_parquet_plugin",
                {"bioforge_readers": ("parquet",), "bioforge_backends": (), "bioforge_writers": ()},
                1,
            )
        ]
        assert plugins.problems == []

    @pytest.mark.parametrize("load", ["", " ", "other"])
    def test_none_or_others(self, install, load):
        install("bioforge-parquet", "raise RuntimeError('imported')")
        install("bioforge-other", GOOD)
        plugins = build_manager(load, built_in=())
        assert [info.name for info in plugins.describe()] == (["bioforge-other"] if load.strip() else [])
        assert plugins.problems == []

    @pytest.mark.parametrize("load", ["parquet", "bioforge-parquet", "Bioforge_Parquet", "parquet, other"])
    def test_named_by_entry_point_or_distribution(self, install, load):
        install("bioforge-parquet", GOOD)
        install("bioforge-other", "raise RuntimeError('imported')" if "other" not in load else "BIOFORGE_API = 1")
        assert list(build_manager(load, built_in=()).readers()) == ["parquet"]

    def test_named_and_not_installed(self, install):
        install("bioforge-parquet", GOOD)
        with pytest.raises(PluginError) as caught:
            build_manager("bioforge-parket", built_in=())
        assert caught.value.message == (
            "BIOFORGE_LOAD_PLUGINS names 'bioforge-parket', which is not installed; did you mean 'bioforge-parquet'?"
        )

    def test_one_that_cannot_be_imported_does_not_break_the_others(self, install):
        install("bioforge-broken", "import nothing_like_this")
        install("bioforge-parquet", GOOD)
        plugins = build_manager(None, built_in=())
        assert list(plugins.readers()) == ["parquet"]
        problem = (
            "plugin 'bioforge-broken' 1.2: cannot be imported: ModuleNotFoundError: No module named 'nothing_like_this';"
            " it is left out"
        )
        assert plugins.problems == [problem]
        with pytest.raises(PluginError) as caught:
            plugins.backend("broken")
        assert caught.value.message == "no backend 'broken'"
        assert caught.value.hint == f"known: none; {problem}"

    def test_one_that_leaves_while_it_is_imported(self, install):
        install("bioforge-rude", "raise SystemExit(3)")
        assert build_manager(None, built_in=()).problems == [
            "plugin 'bioforge-rude' 1.2: cannot be imported: SystemExit: 3; it is left out"
        ]

    @pytest.mark.parametrize(
        ("declared", "problem"),
        [
            ("", "declares no plugin API version: add BIOFORGE_API = 1 to the module"),
            (
                "BIOFORGE_API = 2",
                "needs plugin API version 2; this bioforge has version 1: install a newer bioforge",
            ),
            (
                "BIOFORGE_API = 0",
                "needs plugin API version 0; this bioforge has version 1: install a newer version of the plugin",
            ),
            ("BIOFORGE_API = '1'", "BIOFORGE_API is '1', expected a whole number like 1"),
            ("BIOFORGE_API = True", "BIOFORGE_API is True, expected a whole number like 1"),
        ],
    )
    def test_one_made_for_another_contract_is_left_out(self, install, declared, problem):
        install("bioforge-parquet", GOOD.replace("BIOFORGE_API = 1", declared))
        told = []
        plugins = build_manager(None, built_in=(), warn=told.append)
        assert plugins.readers() == {}
        assert told == plugins.problems == [f"plugin 'bioforge-parquet' 1.2: {problem}; it is left out"]
        (info,) = plugins.describe()
        assert info.problems == (f"{problem}; it is left out",)


class TestBuiltIn:
    def test_they_use_the_same_hooks_and_come_first(self, module, install):
        name = module("own_readers", GOOD.replace("parquet", "csv"))
        install("bioforge-parquet", GOOD)
        plugins = build_manager(None, built_in=[name])
        assert list(plugins.readers()) == ["csv", "parquet"]
        info = plugins.describe()[0]
        assert (info.name, info.version, info.source) == ("own_readers", __version__, "built in")

    def test_an_unknown_name_gets_the_nearest_and_all(self, module):
        plugins = build_manager("", built_in=[module("own_readers", GOOD)])
        with pytest.raises(PluginError, match=r"^no reader 'parket'; did you mean 'parquet'\?$") as caught:
            plugins.reader("parket")
        assert caught.value.hint == "known: parquet"

    def test_the_real_ones(self):
        plugins = build_manager("")
        found = {info.name: info for info in plugins.describe()}
        assert plugins.problems == []
        assert tuple(found) == tuple(module.rpartition(".")[0] for module in BUILT_IN)
        assert callable(plugins.reader("csv"))
        assert callable(plugins.writer("jsonl"))
        assert callable(plugins.backend("async"))


class TestConflicts:
    """Whoever brings trouble is named, once; everything that has nothing to do with it works."""

    def plugins(self, module, *codes):
        self.told = []
        names = [module(f"fake_{number}", code) for number, code in enumerate(codes)]
        return build_manager("", built_in=names, warn=self.told.append)

    def problem(self, plugins):
        """The one thing that is wrong, told once however often it is asked about."""
        for _ in range(2):
            plugins.readers(), plugins.writers(), plugins.backends(), plugins.describe()
        (problem,) = plugins.problems
        assert self.told == [problem]
        return problem.replace(f" {__version__}:", ":")

    def test_a_name_claimed_twice_is_nobodys(self, module):
        plugins = self.plugins(module, GOOD, GOOD, GOOD.replace("parquet", "arrow"))
        assert list(plugins.readers()) == ["arrow"]
        with pytest.raises(PluginError) as caught:
            plugins.reader("parquet")
        assert caught.value.message == "'parquet' is claimed by 2 plugins, 'fake_0' and 'fake_1' (bioforge_readers)"
        assert "BIOFORGE_LOAD_PLUGINS" in caught.value.hint
        assert plugins.writers() == {}
        assert self.problem(plugins) == caught.value.message

    def test_an_unknown_hook(self, module):
        plugins = self.plugins(module, GOOD.replace("bioforge_readers", "bioforge_raeders"), GOOD)
        assert list(plugins.readers()) == ["parquet"]
        assert self.problem(plugins) == (
            "plugin 'fake_0': implements an unknown hook 'bioforge_raeders'; did you mean 'bioforge_readers'?;"
            " it is left out"
        )

    def test_a_hook_for_other_versions_may_be_optional(self, module):
        code = GOOD + "\n    @hookimpl(optionalhook=True)\n    def bioforge_later():\n        return {}\n"
        assert list(self.plugins(module, code).readers()) == ["parquet"]

    def test_a_forgotten_mark(self, module):
        assert self.problem(self.plugins(module, GOOD.replace("@hookimpl", ""))) == (
            "plugin 'fake_0': has a function 'bioforge_readers' without @hookimpl, so it is never called; it is left out"
        )

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("[]", "bioforge_readers: expected a mapping of names, found list"),
            ("{1: read}", "bioforge_readers: expected a name as text, found 1"),
            ("{'x': 'read'}", "bioforge_readers: 'x' should be a callable, found str"),
            ("1 / 0", "bioforge_readers fails: ZeroDivisionError: division by zero"),
        ],
    )
    def test_a_wrong_value(self, module, value, message):
        plugins = self.plugins(module, GOOD.replace('{"parquet": read}', value), GOOD)
        assert list(plugins.readers()) == ["parquet"]
        assert self.problem(plugins) == f"plugin 'fake_0': {message}"

    def test_options_that_are_no_model(self, module):
        plugins = self.plugins(module, GOOD + "\n    read.Options = dict\n")
        assert self.problem(plugins) == (
            "plugin 'fake_0': bioforge_readers: 'parquet' has Options that are not a pydantic model: <class 'dict'>"
        )

    def test_arguments_that_the_hook_does_not_have(self, module):
        plugins = self.plugins(module, GOOD.replace("bioforge_readers()", "bioforge_readers(config)"))
        assert plugins.readers() == {}
        assert self.problem(plugins).startswith("plugin 'fake_0': cannot be used: ")


def test_an_object_can_be_a_plugin():
    from bioforge.plugins.hookspecs import hookimpl

    class Demo:
        @hookimpl
        def bioforge_backends(self):
            return {"echo": dict}

    plugins = Plugins()
    plugins.register(Demo(), "demo", "0.1", "a test")
    assert plugins.backend("echo") is dict
    with pytest.raises(PluginError, match="cannot be used: "):
        plugins.register(Demo(), "demo")
