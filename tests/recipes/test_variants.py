"""Variants: expansion of matrix, samples and upstream recipes; names; selection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioforge.recipes.variants import Variant, as_needed, expand, matches, parse, without_samples

MATRIX = {"temperature": [0.2, 0.9], "model": ["luna", "terra"]}


def names(variants: list[Variant]) -> list[str]:
    return [variant.name for variant in variants]


# ----------------------------------------------------------------------------------------------------------- expanding


def test_a_recipe_without_matrix_has_one_unnamed_variant() -> None:
    assert expand({}) == [Variant()]
    assert names(expand({})) == [""]


def test_combinations_are_in_file_order_with_samples_last() -> None:
    found = expand(MATRIX, 2)
    assert names(found) == [
        "temperature=0.2,model=luna",
        "temperature=0.2,model=luna,sample=2",
        "temperature=0.2,model=terra",
        "temperature=0.2,model=terra,sample=2",
        "temperature=0.9,model=luna",
        "temperature=0.9,model=luna,sample=2",
        "temperature=0.9,model=terra",
        "temperature=0.9,model=terra,sample=2",
    ]
    assert [variant.sample for variant in found] == [1, 2] * 4
    assert found[3].values == {"temperature": 0.2, "model": "terra"}


def test_more_samples_and_values_keep_existing_names() -> None:
    small = names(expand(MATRIX, 1))
    assert set(small) < set(names(expand(MATRIX, 3)))
    assert set(small) < set(names(expand({**MATRIX, "temperature": [0.2, 0.9, 1.5]})))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("gpt-6.1-terra", "gpt-6.1-terra"),
        ("prompts/long bio.md", "long-bio"),
        ("bio.j2", "bio"),
        ("gpt-6.1", "gpt-6.1"),
        ("two\nlines.md", "two-lines.md"),
        ("Write, please = {{ artist_name }}!", "Write-please-artist_name"),
        ("word " * 20, "word-word-word-word-word-word-word-word-"),
        ("?!", "empty"),
        ("Écrivez", "Écrivez"),
        (0.2, "0.2"),
        (1.0, "1.0"),
        (True, "true"),
        (None, "null"),
        ({"effort": "low"}, "effort-:-low"),
    ],
)
def test_a_value_is_short_and_has_no_separators(value: object, shown: str) -> None:
    (variant,) = expand({"x": [value]})
    assert variant.name == f"x={shown}"
    assert variant.values == {"x": value}


def test_similar_values_get_different_names() -> None:
    assert names(expand({"input": ["a b", "a,b", "a=b"]})) == ["input=a-b", "input=a-b~2", "input=a-b~3"]


_values = st.lists(st.one_of(st.text(), st.floats(allow_nan=False), st.booleans()), min_size=1, max_size=4)


@given(st.dictionaries(st.sampled_from(["model", "temperature", "top_p"]), _values), st.integers(1, 3))
def test_names_are_unique_for_any_values(matrix: dict[str, list[object]], samples: int) -> None:
    found = expand(matrix, samples)
    assert len(set(names(found))) == len(found)
    for variant in found:
        first = {"sample": "1"} if samples > 1 and variant.sample == 1 else {}
        assert {**parse(variant.name), **first} == variant.settings, "a name says less than it stands for"


# ------------------------------------------------------------------------------------------- what needed recipes bring


def test_a_recipe_has_a_variant_for_each_upstream_variant() -> None:
    found = expand({}, needs={"facts": expand({"temperature": [0.2, 0.9]}, 2)})
    assert {variant.name: variant.upstream["facts"] for variant in found} == {
        "facts.temperature=0.2": "temperature=0.2",
        "facts.temperature=0.2,facts.sample=2": "temperature=0.2,sample=2",
        "facts.temperature=0.9": "temperature=0.9",
        "facts.temperature=0.9,facts.sample=2": "temperature=0.9,sample=2",
    }
    assert {variant.sample for variant in found} == {1}, "samples of what is needed are no samples of its own"


def test_inherited_settings_come_first() -> None:
    found = expand({"model": ["luna", "terra"]}, 2, {"facts": expand({"model": ["sol"]})})
    assert names(found) == [
        "facts.model=sol,model=luna",
        "facts.model=sol,model=luna,sample=2",
        "facts.model=sol,model=terra",
        "facts.model=sol,model=terra,sample=2",
    ]


def test_a_setting_keeps_its_recipes_name_along_a_chain() -> None:
    bio = expand({"top_p": [1]}, needs={"facts": expand({"model": ["luna", "terra"]})})
    found = expand({}, needs={"bio": bio})
    assert names(found) == ["facts.model=luna,bio.top_p=1", "facts.model=terra,bio.top_p=1"]
    assert found[1].upstream == {"bio": "facts.model=terra,top_p=1"}


def test_both_sides_of_a_diamond_share_the_same_source() -> None:
    facts = expand(MATRIX, 2)
    left, right = (expand({}, needs={"facts": facts}) for _ in range(2))
    found = expand({}, needs={"left": left, "right": right})
    assert len(found) == len(facts), "combinations that were built on different facts"
    assert all(variant.upstream["left"] == variant.upstream["right"] for variant in found)


def test_the_sides_of_a_diamond_may_differ_in_their_own_settings() -> None:
    facts = expand({"model": ["luna", "terra"]})
    left = expand({"model": ["sol"]}, needs={"facts": facts})
    right = expand({"top_p": [0.5, 1]}, needs={"facts": facts})
    assert names(expand({}, needs={"left": left, "right": right})) == [
        "facts.model=luna,left.model=sol,right.top_p=0.5",
        "facts.model=luna,left.model=sol,right.top_p=1",
        "facts.model=terra,left.model=sol,right.top_p=0.5",
        "facts.model=terra,left.model=sol,right.top_p=1",
    ]


def test_a_recipe_may_need_a_recipe_and_its_upstream() -> None:
    facts = expand({"model": ["luna", "terra"]})
    bio = expand({}, needs={"facts": facts})
    found = expand({}, needs={"facts": facts, "bio": bio})
    assert [dict(variant.upstream) for variant in found] == [
        {"facts": "model=luna", "bio": "facts.model=luna"},
        {"facts": "model=terra", "bio": "facts.model=terra"},
    ]


def test_recipes_without_a_variant_in_common_have_none() -> None:
    one, other = [Variant({"x.model": "luna"})], [Variant({"x.model": "terra"})]
    assert expand({}, needs={"one": one, "other": other}) == []


# ----------------------------------------------------------------------------------------------------- names as they are


def test_all_samples_share_a_name_without_sample() -> None:
    assert without_samples("facts.sample=2,model=luna,sample=3") == "model=luna"
    assert without_samples("sample=2") == ""


def test_a_variants_name_in_dependent_recipes() -> None:
    assert as_needed("bio", "facts.model=luna,temperature=0.2,sample=2") == (
        "facts.model=luna,bio.temperature=0.2,bio.sample=2"
    )
    assert as_needed("bio", "") == ""


NAME = "facts.model=luna,temperature=0.2,sample=2"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("temperature=0.2", True),
        ("temperature=0.9", False),
        ("sample=2,temperature=0.2", True),
        ("sample=2,temperature=0.9", False),
        ("facts.model=luna", True),
        ("model=luna", True),
        ("facts.temperature=0.2", False),
        ("acts.model=luna", False),
        ("sample=1", False),
        ("*luna*", True),
        ("facts.model=*", True),
        ("model=*", False),
        ("temperature", False),
        ("", False),
        (NAME, True),
    ],
)
def test_a_text_selects_variants(text: str, meant: bool) -> None:
    assert matches(NAME, text) is meant


def test_the_first_sample_can_be_selected_although_it_is_not_named() -> None:
    assert matches("temperature=0.2", "sample=1")
    assert matches("temperature=0.2", "temperature=0.2,sample=1")
    assert not matches("temperature=0.2,sample=2", "sample=1")
