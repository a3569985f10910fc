"""Rendering: names, sandbox, and used columns."""

from __future__ import annotations

import pytest

from bioforge.core.errors import TemplateError
from bioforge.core.types import Artist
from bioforge.recipes.template import Definition, RecipeVariant, RenderError, estimate_tokens

DVORAK = Artist("7", "Antonín Dvořák", "composer", {"born": "1841", "place of birth": "Nelahozeves"})


def variant(**changes: object) -> RecipeVariant:
    values: dict[str, object] = {
        "recipe": "bio",
        "endpoint": "/v1/responses",
        "model": "m",
        "instructions": None,
        "input": "{{ artist_name }}",
        "prompt": None,
        "parameters": {},
    }
    return RecipeVariant(Definition(**{**values, **changes}))  # type: ignore[arg-type]


def test_a_template_reads_the_artist_and_every_column() -> None:
    made = variant(
        instructions="Id {{ artist_id }}", input="{{ artist_name }}, {{ born }}, {{ columns['place of birth'] }}"
    )
    rendered = made.render(DVORAK)
    assert rendered.instructions == "Id 7"
    assert rendered.input == "Antonín Dvořák, 1841, Nelahozeves"


def test_text_is_not_escaped_as_html() -> None:
    assert variant(input="{{ artist_data }}").render(Artist("1", "X", "<b> & 'q'")).input == "<b> & 'q'"


def test_an_unknown_name_is_an_error_with_the_nearest_column() -> None:
    with pytest.raises(TemplateError) as error:
        variant(input="{{ artist_nam }}").check_names(["born"])
    assert "'artist_nam'" in error.value.message
    assert error.value.hint == "did you mean 'artist_name'?"


def test_a_missing_key_fails_only_the_rows_without_it() -> None:
    made = variant(input="{{ born }}")
    assert made.render(DVORAK).input == "1841"
    with pytest.raises(RenderError, match="input: 'born' is undefined"):
        made.render(Artist("8", "Absalon"))


def test_a_default_is_used_for_rows_without_the_key() -> None:
    assert variant(input="{{ born | default('?') }}").render(Artist("8", "Absalon")).input == "?"


@pytest.mark.parametrize(
    "text",
    ["{{ ''.__class__.__mro__ }}", "{{ columns.update({}) }}", "{{ columns.__init__.__globals__ }}"],
)
def test_the_sandbox_blocks_unsafe_access(text: str) -> None:
    with pytest.raises(RenderError):
        variant(input=text).render(DVORAK)


def test_a_syntax_error_names_file_and_line() -> None:
    with pytest.raises(TemplateError) as error:
        variant(instructions="one\n{% if %}", sources={"instructions": "prompts/bio.md"})
    assert error.value.message.startswith("prompts/bio.md, line 2: ")


def test_includes_are_refused() -> None:
    with pytest.raises(TemplateError, match="cannot include"):
        variant(input="{% include 'other.md' %}")


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("{{ artist_name }} {{ born }}", {"artist_name", "born"}),
        ("{{ columns['place of birth'] }}", {"place of birth"}),
        ("{{ columns.born }}", {"born"}),
        ("{% for name in columns %}{{ name }}{% endfor %}", None),
        ("{% set born = 1 %}{{ born }}", set()),
    ],
)
def test_used_columns_are_derived_from_the_template(text: str, used: set[str] | None) -> None:
    assert variant(input=text).used_columns == used


def test_a_reusable_prompt_gets_artist_data_only_if_it_is_not_empty() -> None:
    made = variant(input=None, prompt={"id": "pmpt_1", "version": "3"})
    assert made.render(DVORAK).prompt == {
        "id": "pmpt_1",
        "version": "3",
        "variables": {"artist_name": "Antonín Dvořák", "artist_data": "composer"},
    }
    assert made.render(Artist("8", "Absalon")).prompt == {
        "id": "pmpt_1",
        "version": "3",
        "variables": {"artist_name": "Absalon"},
    }


def test_variables_of_a_reusable_prompt_are_templates() -> None:
    made = variant(input=None, prompt={"id": "p", "variables": {"who": "{{ artist_name | upper }}"}})
    rendered = made.render(Artist("8", "Absalon")).prompt
    assert rendered == {"id": "p", "variables": {"who": "ABSALON"}}
    assert made.used_columns == {"artist_name"}


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("abc", 1), ("a" * 300, 100), ("久石譲", 3)])
def test_estimates_follow_characters_and_bytes(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{{ 'a'|center(10**9) }}",
        "{{ 'a'|center(1000000000) }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 'a'.ljust(1000000000) }}",
    ],
)
def test_a_text_without_end_is_an_error_that_names_the_template(text: str) -> None:
    for limited in (variant(input=text), variant(input=text + "{{ artist_name }}")):
        with pytest.raises(RenderError, match=r"input: .*1,000,000"):
            limited.render(DVORAK)
