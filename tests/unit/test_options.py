"""Options of plugins: a table of the project file, as an instance of the plugin's own model."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, field_validator, model_validator

from bioforge.config.options import OptionsOf
from bioforge.errors import ConfigError, PluginError
from bioforge.plugin import Options, ReaderOptions, SecretEnv, with_options


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
    return OptionsOf("bioforge.toml", variables.get).read(owner, table, "input")


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
