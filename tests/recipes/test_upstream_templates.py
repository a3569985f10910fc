"""Templates that read upstream answers or all artists."""

from __future__ import annotations

import pytest

from bioforge.core.errors import TemplateError
from bioforge.core.types import Artist
from bioforge.recipes.template import (
    Definition,
    Fields,
    RecipeVariant,
    RenderError,
    UpstreamAnswer,
    artist_context,
    upstream_answer,
)

DVORAK = Artist("7", "Antonín Dvořák", "composer", {"born": "1841"})
FACTS = upstream_answer("some text", '{"born": 1841, "works": ["Rusalka", "Armida"], "place": {"name": "Nelahozeves"}}')


def variant(text: str, **changes: object) -> RecipeVariant:
    values: dict[str, object] = {
        "recipe": "bio",
        "endpoint": "/v1/responses",
        "model": "m",
        "instructions": None,
        "input": text,
        "prompt": None,
        "parameters": {},
        "upstream": {"facts": ""},
        "needs_parsed": frozenset({"facts"}),
    }
    return RecipeVariant(Definition(**{**values, **changes}))  # type: ignore[arg-type]


def rendered(text: str, **answers: UpstreamAnswer) -> str | None:
    return variant(text).render(DVORAK, {"facts": FACTS, **answers}).input


# ------------------------------------------------------------------------------------------------------ what they give


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("{{ facts.text }}", "some text"),
        ("{{ facts.parsed.born + 1 }}", "1842"),
        ("{{ facts.parsed.works | join(' and ') }}", "Rusalka and Armida"),
        ("{{ facts.parsed.place.name }}", "Nelahozeves"),
        ("{{ facts['parsed']['born'] }}", "1841"),
        ("{{ needs['facts'].text }}", "some text"),
        ("{{ needs.facts.parsed.born }}", "1841"),
        ("{{ artist_name }}: {{ born }}, {{ facts.parsed.born }}", "Antonín Dvořák: 1841, 1841"),
        ("{{ facts.parsed.died | default('?') }}", "?"),
        ("{% for name in facts.parsed %}{{ name }} {% endfor %}", "born works place "),
        ("{% for name, value in facts.parsed.place.items() %}{{ name }}={{ value }}{% endfor %}", "name=Nelahozeves"),
    ],
)
def test_a_template_reads_text_and_fields_of_an_answer(text: str, given: str) -> None:
    assert rendered(text) == given


def test_needs_gives_access_to_recipes_whose_name_is_not_an_identifier() -> None:
    made = variant("{{ needs['my-facts'].text }}", upstream={"my-facts": ""}, needs_parsed=frozenset())
    assert made.render(DVORAK, {"my-facts": UpstreamAnswer("here")}).input == "here"


def test_fields_take_precedence_over_methods_of_dict() -> None:
    answer = upstream_answer("", '{"items": [1, 2], "keys": "k", "get": {"values": "v"}, "update": null}')
    assert rendered("{{ facts.parsed.items | sum }}{{ facts.parsed.keys }}", facts=answer) == "3k"
    assert rendered("{{ facts.parsed.get.values }}", facts=answer) == "v"
    assert rendered("{{ facts.parsed.update is none }}", facts=answer) == "True"


def test_fields_behave_like_a_dict_otherwise() -> None:
    fields = Fields({"items": 1, "__class__": 2})
    assert fields == {"items": 1, "__class__": 2}
    assert fields.items == 1  # type: ignore[comparison-overlap]
    assert fields.__class__ is Fields, "what is not a name of the answer's stays out of its reach"
    assert list(fields.keys()) == ["items", "__class__"]


def test_an_answer_without_a_schema_has_no_data() -> None:
    assert upstream_answer("text", None) == UpstreamAnswer("text", None)
    assert upstream_answer(None, None).text == ""


def test_a_missing_field_fails_only_the_answers_without_it() -> None:
    with pytest.raises(RenderError, match=r"input: .*'died'"):
        rendered("{{ facts.parsed.died }}")


@pytest.mark.parametrize("text", ["{{ facts.parsed.update({}) }}", "{{ facts.parsed.__init__.__globals__ }}"])
def test_the_sandbox_blocks_unsafe_access_through_answers(text: str) -> None:
    with pytest.raises(RenderError):
        rendered(text)


def test_an_upstream_recipe_takes_precedence_over_a_column_of_its_name() -> None:
    made = variant("{{ born.text }}", upstream={"born": ""})
    assert made.render(DVORAK, {"born": UpstreamAnswer("answered")}).input == "answered"


# ---------------------------------------------------------------------------------------- errors before anything is sent


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "{{ facts.txt }}",
            "the template uses facts.txt, but an answer has only facts.text and facts.parsed",
            "did you mean {{ facts.parsed.txt }}?",
        ),
        (
            "{{ facts['born'] }}",
            "the template uses facts.born, but an answer has only facts.text and facts.parsed",
            "did you mean {{ facts.parsed.born }}?",
        ),
        (
            "{% if needs.facts.born %}x{% endif %}",
            "the template uses facts.born, but an answer has only facts.text and facts.parsed",
            "did you mean {{ facts.parsed.born }}?",
        ),
        (
            "{{ needs['facst'].text }}",
            "the template uses needs['facst'], but the recipe does not need it",
            "did you mean 'facts'?",
        ),
        ("{{ needs.style.text }}", "the template uses needs['style'], but the recipe does not need it", "needs = [\"facts\"]"),
    ],
)  # fmt: skip
def test_unknown_parts_of_an_answer_are_template_errors(text: str, message: str, hint: str) -> None:
    with pytest.raises(TemplateError) as caught:
        variant(text)
    assert caught.value.message == f"recipe.bio: {message}"
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "text", ["{{ facts.parsed.born }}", "{{ needs['facts'].parsed.born }}", "{{ facts['parsed'] }}"]
)
def test_parsed_without_a_schema_is_a_template_error(text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        variant(text, needs_parsed=frozenset())
    assert caught.value.message == "recipe.bio: the template uses facts.parsed, but recipe 'facts' has no schema"
    assert caught.value.hint == "give recipe.facts a schema, or use facts.text"


@pytest.mark.parametrize("text", ["{{ facts.text }}", "{{ needs['facts'].text }}"])
def test_other_recipes_are_unknown_names(text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        variant(text, upstream={}).check_names(["born"])
    name = text.split()[1].split(".")[0].split("[")[0]
    assert caught.value.message == f"recipe.bio: the template uses {name!r}, which is not a column of the input"


def test_upstream_recipes_are_not_columns() -> None:
    made = variant("{{ artist_name }} {{ facts.text }} {{ needs['facts'].text }} {{ born }}")
    made.check_names(["born"])
    assert made.used_columns == {"artist_name", "born"}


# ------------------------------------------------------------------------------------------------ one text about everybody


def over_all(text: str, **changes: object) -> RecipeVariant:
    return variant(text, for_all=True, **changes)


def test_a_recipe_over_all_artists_iterates_over_them() -> None:
    made = over_all(
        "{{ artists | length }}:{% for artist in artists %} {{ artist.artist_name }} {{ artist.born }}{% endfor %}"
    )
    artists = [artist_context(DVORAK), artist_context(Artist("8", "Absalon", "", {"born": "1964"}))]
    assert made.render(Artist("*", "all artists"), {}, artists).input == "2: Antonín Dvořák 1841 Absalon 1964"
    assert made.used_columns is None, "any column may count"


@pytest.mark.parametrize("name", ["artist_name", "born", "columns"])
def test_a_recipe_over_all_artists_has_no_columns(name: str) -> None:
    with pytest.raises(TemplateError) as caught:
        over_all(f"{{{{ {name} }}}}").check_names(["born"])
    assert f"the template uses {name!r}, but it is one text about all artists" in caught.value.message
    assert f"{{{{ artist.{name} }}}}" in str(caught.value.hint)


def test_artists_is_defined_only_in_recipes_over_all_artists() -> None:
    with pytest.raises(TemplateError, match="'artists', which is not a column"):
        variant("{{ artists | length }}").check_names([])
