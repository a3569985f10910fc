"""Options of plugins: a table of the project file, as an instance of the plugin's own model."""

# ruff: noqa: RUF012 - pydantic copies defaults

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AliasChoices, Field, RootModel, field_validator, model_validator

import bioforge
from bioforge.config.plugin_options import PluginOptions
from bioforge.core.errors import ConfigError, PluginError
from bioforge.plugin import Options, ReaderOptions, SecretEnv, folder_writer, path_reader, path_writer, with_options


class Sheet(ReaderOptions):
    sheet: str = Field(description="the name of a sheet")
    rows: int = Field(10, ge=1, description="a whole number from 1")
    ratio: float = 0.5
    secret: SecretEnv | None = Field(None, description="the name of an environment variable")

    @field_validator("sheet")
    @classmethod
    def _has_a_name(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a sheet has a name")
        return value


@with_options(Sheet)
def reader(stream: Any, source: str, options: Sheet) -> list[Any]:
    return []


def read(owner: object = reader, **table: object) -> Any:
    variables = {"TOKEN": "s3cret"}
    return PluginOptions("bioforge.toml", variables.get).read(owner, table, "input")


def test_a_table_becomes_an_instance() -> None:
    options = read(sheet="Artists", columns={"artist_id": "id"})
    assert (options.sheet, options.rows, options.columns) == ("Artists", 10, {"artist_id": "id"})


def test_without_a_model_it_stays_a_table() -> None:
    assert read(print, sheet=3) == {"sheet": 3}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "input.sheet: missing, expected the name of a sheet"),
        ({"sheet": 3}, "input.sheet: expected the name of a sheet, found 3"),
        ({"sheet": " "}, "input.sheet: a sheet has a name"),
        ({"sheet": "A", "rows": "12"}, "input.rows: expected a whole number from 1, found '12'"),
        ({"sheet": "A", "row": 1}, "input.row: unknown key; did you mean 'rows'?"),
        ({"sheet": "A", "ratio": "x"}, "input.ratio: input should be a valid number, found 'x'"),
        ({"sheet": "A", "ratio": float("inf")}, "input.ratio: input should be a finite number, found inf"),
        ({"sheet": "A", "columns": {"artist_id": 3}}, "input.columns.artist_id: expected a table of names and column"),
        (
            {"sheet": "A", "secret": "TOKEM"},
            "input.secret: TOKEM is not set; put it into the environment, or into .env beside the project file",
        ),
        (
            {"sheet": "A", "secret": "sk-0123456789abc"},
            "input.secret: expected the name of an environment variable, never the secret itself",
        ),
    ],
)
def test_a_mistake_is_told_as_of_every_other_table(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**table)
    assert caught.value.message.startswith(f"bioforge.toml: {message}")
    assert "sk-0" not in caught.value.message


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match="2 mistakes") as caught:
        read(rows=0)
    assert "\n  input.sheet: missing" in caught.value.message
    assert "\n  input.rows: expected" in caught.value.message


def test_a_secret_is_looked_up_and_never_shown() -> None:
    options = read(sheet="A", secret="TOKEN")
    assert options.secret.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(options)


def test_a_mistake_of_the_table_as_a_whole() -> None:
    class Either(Options):
        query: str | None = None
        table: str | None = None

        @model_validator(mode="after")
        def _one(self) -> Either:
            if (self.query is None) == (self.table is None):
                raise ValueError("one of query and table says what is read")
            return self

    @with_options(Either)
    def write() -> None: ...

    with pytest.raises(ConfigError, match=r"^bioforge\.toml: input: one of query and table says what is read$"):
        read(write)


def test_a_check_that_fails_itself_is_the_plugins_mistake() -> None:
    class Broken(Options):
        @model_validator(mode="before")
        @classmethod
        def _check(cls, values: Any) -> Any:
            return {}["nothing"]

    @with_options(Broken)
    def write() -> None: ...

    with pytest.raises(PluginError, match="input: the plugin's own check failed: KeyError: 'nothing'"):
        read(write)


def test_options_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read(sheet="A").rows = 3


# ----------------------------------------------------------------------------------------------------- nested tables


class Depth(Options):
    depth: int = Field(1, description="a whole number")
    name: str = ""


class Range(Options):
    min: int = Field(ge=1, description="a whole number from 1")
    max: int = Field(ge=1, description="a whole number from 1")
    steps: list[Depth] = []

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}")
        return self


class Lines(RootModel[list[Depth]]):
    pass


class Cat(Options):
    kind: Literal["cat"]
    lives: int = Field(9, description="a number of lives")


class Dog(Options):
    kind: Literal["dog"]
    bark: str = Field("wuff", description="a sound")


class Nested(Options):
    rows: int = Field(1, alias="max-rows", description="a whole number")
    other: int = Field(1, validation_alias=AliasChoices("oth", "other-rows"), description="a whole number")
    inner: Depth = Depth()
    many: list[Depth] = []
    by_name: dict[str, Depth] = {}
    pair: tuple[int, Depth] | None = None
    either: int | Depth = 1
    workers: Annotated[int, Field(ge=1)] | Range = Field(2, description="a whole number from 1, or { min, max }")
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    lines: Lines | None = None
    some: list[int | Depth] | Literal["all"] = []
    mode: Literal["fast", "slow"] = "fast"
    anything: dict[str, Any] = {}


@with_options(Nested)
def nested() -> None: ...


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rows": 3}, "input.rows: unknown key; did you mean 'max-rows'?"),
        ({"max-row": 3}, "input.max-row: unknown key; did you mean 'max-rows'?"),
        ({"max-rows": "x"}, "input.max-rows: expected a whole number, found 'x'"),
        ({"other-row": 3}, "input.other-row: unknown key; did you mean 'other-rows'?"),
        ({"other-rows": "x"}, "input.other-rows: expected a whole number, found 'x'"),
        ({"inner": {"deph": 3}}, "input.inner.deph: unknown key; did you mean 'depth'?"),
        ({"inner": {"depth": "x"}}, "input.inner.depth: expected a whole number, found 'x'"),
        ({"inner": {"name": 3}}, "input.inner.name: input should be a valid string, found 3"),
        ({"inner": 3}, "input.inner: input should be a table like Depth, found 3"),
        ({"many": [{}, {"nme": "x"}]}, "input.many[1].nme: unknown key; did you mean 'name'?"),
        ({"many": 3}, "input.many: input should be a list, found 3"),
        ({"by_name": {"a": {"depth": 0.5}}}, "input.by_name.a.depth: expected a whole number, found 0.5"),
        ({"pair": [1, {"dpth": 1}]}, "input.pair[1].dpth: unknown key; did you mean 'depth'?"),
        ({"either": {"dept": 1}}, "input.either.dept: unknown key; did you mean 'depth'?"),
        ({"either": "x"}, "input.either: input should be a valid integer or a table like Depth, found 'x'"),
        ({"workers": 0}, "input.workers: expected a whole number from 1, or { min, max }, found 0"),
        ({"workers": "many"}, "input.workers: expected a whole number from 1, or { min, max }, found 'many'"),
        ({"workers": {"min": 1}}, "input.workers.max: missing, expected a whole number from 1"),
        ({"workers": {"min": 1, "maxi": 2}}, "2 mistakes"),
        ({"workers": {"min": 2, "max": 1}}, "input.workers: min is 2 and max is 1"),
        (
            {"workers": {"min": 1, "max": 2, "steps": [{"depht": 1}]}},
            "input.workers.steps[0].depht: unknown key; did you mean 'depth'?",
        ),
        ({"pet": {"kind": "dog", "brk": "x"}}, "input.pet.brk: unknown key; did you mean 'bark'?"),
        ({"pet": {"kind": "cat", "lives": "x"}}, "input.pet.lives: expected a number of lives, found 'x'"),
        ({"lines": [{"deph": 1}]}, "input.lines[0].deph: unknown key; did you mean 'depth'?"),
        ({"some": [{"deph": 1}]}, "input.some[0].deph: unknown key; did you mean 'depth'?"),
        ({"some": "al"}, "input.some: input should be a list or 'all', found 'al'"),
        ({"mode": "slwo"}, "input.mode: expected 'fast' or 'slow', found 'slwo'; did you mean 'slow'?"),
    ],
)
def test_a_mistake_stands_where_it_is_in_the_file(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(nested, **table)
    assert caught.value.message.startswith(f"bioforge.toml: {message}")
    assert "2 mistakes" in message or "\n" not in caught.value.message


# ------------------------------------------------------------------------------------------------- what TOML has not


class Kind(StrEnum):
    PLAIN = "plain"
    FANCY = "fancy"


class Rich(Options):
    folder: Path | None = Field(None, description="the path of a folder")
    plain: Path | None = None
    paths: list[Path] = []
    names: set[str] = set()
    sizes: dict[str, tuple[int, int]] = {}
    kind: Kind = Kind.PLAIN
    day: date | None = Field(None, description="a day, like 2026-11-21")
    wait: timedelta | None = None
    price: Decimal | None = None
    text: str = ""
    inside: Rich | None = None

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: Any) -> Any:
        return values

    @field_validator("folder", mode="before")
    @classmethod
    def _expanded(cls, value: Any) -> Any:
        return Path(value).expanduser() if isinstance(value, str) else value


@with_options(Rich)
def rich() -> None: ...


@pytest.mark.parametrize(
    ("name", "value", "made"),
    [
        ("folder", "out", Path("out")),
        ("paths", ["a", "b"], [Path("a"), Path("b")]),
        ("names", ["a", "b", "a"], {"a", "b"}),
        ("sizes", {"small": [1, 2]}, {"small": (1, 2)}),
        ("kind", "fancy", Kind.FANCY),
        ("day", date(2026, 11, 21), date(2026, 11, 21)),
        ("day", "2026-11-21", date(2026, 11, 21)),
        ("wait", "PT90S", timedelta(seconds=90)),
        ("price", "0.10", Decimal("0.10")),
        ("inside", {"kind": "fancy"}, Rich(kind=Kind.FANCY)),
    ],
)
def test_what_toml_has_no_type_for_is_made_of_what_it_has(name: str, value: object, made: object) -> None:
    assert getattr(read(rich, **{name: value}), name) == made


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"folder": 3}, "input.folder: expected the path of a folder, found 3"),
        ({"plain": 3}, "input.plain: input should be a path, found 3"),
        ({"names": "abc"}, "input.names: input should be a list, found 'abc'"),
        ({"names": [1]}, "input.names[0]: input should be a valid string, found 1"),
        ({"sizes": {"small": [1, "2"]}}, "input.sizes.small[1]: input should be a valid integer, found '2'"),
        ({"kind": "fncy"}, "input.kind: expected 'plain' or 'fancy', found 'fncy'; did you mean 'fancy'?"),
        ({"day": 86400}, "input.day: expected a day, like 2026-11-21, found 86400"),
        ({"wait": 90}, "input.wait: input should be a day, a time or a duration, not a number, found 90"),
        ({"text": date(2026, 11, 21)}, "input.text: input should be a valid string, found 2026-11-21"),
        ({"inside": {"day": 1}}, "input.inside.day: expected a day, like 2026-11-21, found 1"),
    ],
)
def test_nothing_else_is_converted(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(rich, **table)
    assert caught.value.message == f"bioforge.toml: {message}"


# ---------------------------------------------------------------------------------------------- kinds of plugins, typed


def test_a_function_is_made_a_reader_or_writer_of_its_kind() -> None:
    @path_reader
    @with_options(Sheet)
    def read_path(path: Path, source: str, options: Sheet) -> list[Any]:
        return [path]

    @with_options(Sheet)
    @path_writer
    def write_path(records: Any, path: Path, options: Sheet) -> str:
        return f"{len(list(records))} rows"

    @folder_writer
    def write_folder(records: Any, options: Any) -> Iterator[tuple[str, bytes]]:
        yield "a", b""

    assert (read_path.reads_path, read_path.Options) == (True, Sheet)  # type: ignore[attr-defined]
    assert (write_path.writes_path, write_path([1], Path(), None)) == (True, "1 rows")
    assert (write_folder.writes_folder, list(write_folder([], None))) == (True, [("a", b"")])


PLUGIN = """
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from bioforge.plugin import (
    AnyReader, AnyWriter, Artist, BadRow, Options, ReaderOptions, Record, artists, hookimpl, with_options,
    folder_writer, path_reader, path_writer,
)

class Out(Options):
    folder: Path = Path()

@with_options(ReaderOptions)
def read(stream: IO[bytes], source: str, options: ReaderOptions) -> Iterator[Artist | BadRow]:
    yield from artists([(1, {"artist_name": "Björk"})], source, options.columns)

@path_reader
@with_options(ReaderOptions)
def read_path(path: Path, source: str, options: ReaderOptions) -> Iterator[Artist | BadRow]:
    yield from artists([(1, {"artist_name": "Björk"})], source, options.columns)

@path_writer
@with_options(Out)
def write_path(records: Iterable[Record], path: Path, options: Out) -> str:
    return str(options.folder)

@with_options(Out)
@folder_writer
def write_folder(records: Iterable[Record], options: Out) -> Iterator[tuple[str, bytes]]:
    yield "a", b""

@hookimpl
def bioforge_readers() -> Mapping[str, AnyReader]:
    return {"a": read, "b": read_path}

@hookimpl
def bioforge_writers() -> Mapping[str, AnyWriter]:
    return {"a": write_path, "b": write_folder}
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_a_plugin_with_each_kind_is_typed(tmp_path: Path) -> None:
    wrong = PLUGIN.replace("tuple[str, bytes]", "tuple[str, str]").replace('b""', '""')
    (tmp_path / "right.py").write_text(PLUGIN, "utf-8")
    (tmp_path / "wrong.py").write_text(wrong, "utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            str(tmp_path / "cache"),
            "--follow-imports=silent",
            "right.py",
            "wrong.py",
        ],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(Path(bioforge.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "right.py" not in done.stdout, done.stdout
    assert 'wrong.py:29: error: Argument 1 to "folder_writer"' in done.stdout, done.stdout + done.stderr


def test_a_model_without_fields_knows_no_key() -> None:
    class Nothing(Options):
        pass

    @with_options(Nothing)
    def write() -> None: ...

    assert isinstance(read(write), Nothing)
    with pytest.raises(ConfigError, match=r"^bioforge\.toml: input\.speed: unknown key$"):
        read(write, speed=1)
