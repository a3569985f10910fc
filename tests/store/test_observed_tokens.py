"""What answers have shown about tokens corrects the prices of what is asked next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from bioforge.core.events import Attempt, Started, Succeeded, Unusable
from bioforge.core.reasons import Decision, Reason
from bioforge.core.types import Artist, Failure, Request, Response, Usage
from bioforge.planner.estimate import Estimator
from bioforge.recipes.template import Definition
from bioforge.recipes.tokens import ESTIMATED, Counting, Precision
from bioforge.store import Selection, Store, runs, targets
from bioforge.store import artists as artists_store
from bioforge.store.ledger import average_cost
from bioforge.store.recorder import Recorder
from bioforge.store.stale_counts import StaleGroup
from bioforge.store.statistics import (
    FEWEST,
    HIGHEST,
    LOOK_BACK,
    LOWEST,
    NEWEST,
    Answers,
    Observed,
    counted_by,
    note_counting,
)
from bioforge.store.targets import Planned

ESTIMATE = 100
"""Tokens that are counted here for each request."""


class World:
    """A state with as many artists as are needed, in which answers come at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.recorder = Recorder(store, runs.begin(store, "run", "async", Selection()), "async")
        self._numbers = count(1)
        self._definition = targets.definition_id(store, "any", "", {})

    def answer(
        self,
        *usages: Usage | None,
        model: str = "gpt-6-luna",
        recipe: str = "bio",
        variant: str = "",
        estimate: int = ESTIMATE,
    ) -> list[int]:
        """An artist for each of these, asked about and answered; their numbers."""
        artists = [next(self._numbers) for _ in usages]
        self._plan(artists, recipe, variant, "v1", estimate)
        groups: tuple[list[Started], list[Succeeded]] = ([], [])
        for artist, usage in zip(artists, usages, strict=True):
            attempt = Attempt(self._request(artist, recipe, variant, model), 1, "W01", f"{artist}-{recipe}", 1000.0)
            groups[0].append(Started(attempt))
            groups[1].append(Succeeded(attempt, Response(b"{}", "text", usage), 1.0))
        for group in groups:
            self.recorder.record(group)
        return artists

    def _request(self, artist: int, recipe: str, variant: str, model: str) -> Request:
        target = self.store.value(
            "SELECT id FROM targets WHERE artist = ? AND recipe = ? AND variant = ?", (artist, recipe, variant)
        )
        digest = f"v1 {artist} {recipe} {variant}"
        return Request(digest, "/v1/responses", model, b"{}", str(artist), recipe, variant, target)

    def change_the_prompt(self, artists: list[int], estimate: int) -> None:
        """Another text for the same artists, of which nothing was asked yet."""
        self._plan(artists, "bio", "", "v2", estimate)

    def _plan(self, artists: list[int], recipe: str, variant: str, version: str, estimate: int) -> None:
        targets.save(
            self.store,
            recipe,
            variant,
            self._definition,
            [
                Planned(artist, f"{version} {artist} {recipe} {variant}", "row", estimate, Decision("new"))
                for artist in artists
            ],
        )

    def observed(self, recipe: str = "bio", variant: str = "", model: str | None = "gpt-6-luna") -> Observed | None:
        return Answers(self.store, model).observed(recipe, variant)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Store.open(tmp_path / "state.db") as store:
        artists_store.read_into(store, [Artist("1", "Björk")])
        yield World(store)


def used(input_tokens: int, output_tokens: int = 50) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)


# ------------------------------------------------------------------------------------------------- what was observed


def test_nothing_is_known_before_the_first_answer(world: World) -> None:
    assert world.observed() is None


def test_a_few_answers_tell_how_long_answers_are_and_correct_nothing(world: World) -> None:
    world.answer(*[used(60, 20)] * (FEWEST - 1))
    assert world.observed() == Observed(1.0, 20.0, 0)
    world.answer(used(60, 30))
    assert world.observed() == Observed(0.6, 22.0, FEWEST)


def test_a_single_wrong_answer_moves_estimates_little(world: World) -> None:
    world.answer(*[used(100, 50)] * 19, used(10_000_000, 1_000_000))
    observed = world.observed()
    assert observed is not None
    assert (observed.input_ratio, observed.output_tokens) == (pytest.approx(1.45), pytest.approx(72.5))


def test_a_single_wrong_price_moves_the_average_little(world: World) -> None:
    world.answer(*[used(100)] * 20)
    assert average_cost(world.store) is None
    world.store.rows("UPDATE responses SET cost_usd = CASE id WHEN 7 THEN 8556839292.0 ELSE 0.01 END")
    assert average_cost(world.store) == pytest.approx(0.0145)


def test_large_requests_count_for_more_than_small_ones(world: World) -> None:
    """It is their sum that is paid."""
    world.answer(*[used(10)] * 5, estimate=20)
    world.answer(*[used(2_000)] * 5, estimate=2_000)
    assert world.observed() == Observed(pytest.approx(10_050 / 10_100), 50.0, 10)


def test_answers_to_the_same_variant_tell_more_than_others(world: World) -> None:
    world.answer(*[used(50, 10)] * 5, recipe="bio", variant="tone=dry")
    world.answer(*[used(80, 40)] * 5, recipe="bio", variant="tone=warm")
    world.answer(*[used(200, 100)] * 10, recipe="facts")
    assert world.observed("bio", "tone=dry") == Observed(0.5, 10.0, 5)
    assert world.observed("bio", "tone=loud") == Observed(0.65, 25.0, 10), "of the recipe's other variants"
    assert world.observed("haiku") == Observed(1.325, 62.5, 20), "of the model's other recipes"


def test_other_models_tell_nothing(world: World) -> None:
    world.answer(*[used(500)] * 5, model="gpt-6.1-terra")
    assert world.observed() is None
    assert world.observed(model="gpt-6.1-terra") == Observed(5.0, 50.0, 5)


def test_a_prompt_that_brings_its_own_model_is_a_model_without_a_name(world: World) -> None:
    world.answer(*[used(500)] * 5, model="")
    assert world.observed(model=None) == Observed(5.0, 50.0, 5)


def test_answers_to_an_older_prompt_tell_lengths_only(world: World) -> None:
    """What had been counted for it is no longer known; what is counted for the new one cannot be compared."""
    artists = world.answer(*[used(60)] * 8)
    world.change_the_prompt(artists[:6], estimate=900)
    assert world.observed() == Observed(1.0, 50.0, 0)
    world.answer(*[used(60)] * 3)
    assert world.observed() == Observed(0.6, 50.0, 5)


def test_answers_without_numbers_are_left_out(world: World) -> None:
    """Not every server says what was used, and some say 0."""
    world.answer(None, None, used(0, 30), *[used(60, 30)] * 5)
    assert world.observed() == Observed(0.6, 30.0, 5)


def test_servers_that_never_say_tell_nothing(world: World) -> None:
    world.answer(*[None] * 10)
    assert world.observed() is None


@pytest.mark.parametrize(("billed", "ratio"), [(1, LOWEST), (1_000_000, HIGHEST)])
def test_what_cannot_be_is_bounded(world: World, billed: int, ratio: float) -> None:
    world.answer(*[used(billed)] * 5)
    assert world.observed() == Observed(ratio, 50.0, 5)


def test_the_newest_thousand_answers_count(world: World) -> None:
    world.answer(*[used(500)] * 5)
    world.answer(*[used(60)] * NEWEST)
    assert world.observed() == Observed(0.6, 50.0, NEWEST)


def test_unusable_answers_were_billed_too(world: World) -> None:
    world.answer(*[used(60)] * 4)
    attempt = Attempt(Request("v1 9", "/v1/responses", "gpt-6-luna", b"{}", "9", "bio"), 1, "W01", "9", 1000.0)
    world.recorder.record([Started(attempt)])
    cut = Response(b"{}", None, used(60, 400), problem=Failure("truncated", "cut off"))
    world.recorder.record([Unusable(attempt, cut, 1.0)])
    assert world.observed() == Observed(1.0, 120.0, 0)


def test_a_state_with_a_million_answers_is_not_read_through(world: World) -> None:
    world.answer(*[used(60)] * 5)
    statements: list[str] = []
    world.store.connection.set_trace_callback(statements.append)
    world.observed()
    world.store.connection.set_trace_callback(None)
    (question,) = [statement for statement in statements if "FROM responses" in statement]
    steps = [row[3] for row in world.store.rows(f"EXPLAIN QUERY PLAN {question}")]
    assert {step.split(" USING ")[0] for step in steps} >= {"SEARCH r", "SEARCH q", "SEARCH x", "SEARCH t"}
    assert f"r.id >= {5 + 1 - LOOK_BACK}" in question
    assert f"LIMIT {NEWEST}" in question


# ------------------------------------------------------------------------------------------------- how was counted


def test_how_a_recipe_was_counted_is_known_once_all_of_it_was(world: World) -> None:
    near = Counting("o200k_base", Precision.NEAR).as_text()
    assert counted_by(world.store, "bio", "") is None
    note_counting(world.store, "bio", "", near, whole=False)
    assert counted_by(world.store, "bio", "") is None, "others were counted before"
    note_counting(world.store, "bio", "", near, whole=True)
    assert counted_by(world.store, "bio", "") == near
    note_counting(world.store, "bio", "", near, whole=False)
    assert counted_by(world.store, "bio", "") == near
    assert counted_by(world.store, "bio", "tone=dry") is None
    note_counting(world.store, "bio", "", ESTIMATED.as_text(), whole=False)
    assert counted_by(world.store, "bio", "") is None, "some one way, some another"


# ----------------------------------------------------------------------------------------------------------- prices


@dataclass
class Shop:
    """A backend of which only the prices are asked: a dollar for a token in, ten for one out."""

    def price(self, model: str, usage: Usage, tier: str | None = None) -> float | None:
        return None if model == "unknown" else usage.input_tokens + 10.0 * usage.output_tokens


def definition(**changed: object) -> Definition:
    known: dict[str, object] = {
        "recipe": "bio",
        "endpoint": "/v1/responses",
        "model": "gpt-6-luna",
        "instructions": None,
        "input": "{{ artist_name }}",
        "prompt": None,
        "parameters": {"max_output_tokens": 400},
    }
    return Definition(**{**known, **changed})  # type: ignore[arg-type]


def estimator(world: World, *definitions: Definition) -> Estimator:
    return Estimator(world.store, Shop(), definitions or (definition(),))  # type: ignore[arg-type]


def group(requests: int = 2, recipe: str = "bio") -> StaleGroup:
    return StaleGroup(recipe, "new", None, requests, requests, ESTIMATE * requests, 0, 0, "1")


def exactly(world: World, recipe: str = "bio") -> None:
    note_counting(world.store, recipe, "", Counting("o200k_base", Precision.EXACT).as_text(), whole=True)


def test_without_answers_a_price_is_what_was_counted_and_the_longest_answer(world: World) -> None:
    (priced,) = estimator(world).price([group()])
    assert (priced.input_tokens, priced.output_tokens, priced.cost_usd) == (200, 800, 8_200.0)
    assert (priced.counting, priced.corrected) == (ESTIMATED, None)


def test_answers_correct_both(world: World) -> None:
    world.answer(*[used(60)] * 5)
    asked = estimator(world)
    (priced,) = asked.price([group()])
    assert (priced.input_tokens, priced.output_tokens, priced.cost_usd) == (120, 100, 1_120.0)
    assert priced.corrected == Observed(0.6, 50.0, 5)
    assert asked.input_tokens("bio", "", 1_000) == 600.0
    assert asked.output_tokens("bio") == 50


def test_an_exact_count_needs_no_correction(world: World) -> None:
    world.answer(*[used(60)] * 5)
    exactly(world)
    (priced,) = estimator(world).price([group()])
    assert (priced.input_tokens, priced.output_tokens) == (200, 100)
    assert (priced.counting.exact, priced.corrected) == (True, None)


def test_a_near_count_is_corrected(world: World) -> None:
    world.answer(*[used(95)] * 5)
    note_counting(world.store, "bio", "", Counting("o200k_base", Precision.NEAR).as_text(), whole=True)
    (priced,) = estimator(world).price([group()])
    assert priced.input_tokens == 190
    assert priced.counting.name == "o200k_base"


@pytest.mark.parametrize("parameters", [{"text": {"format": {"type": "json_schema"}}}, {"tools": [{"type": "x"}]}])
def test_what_a_provider_adds_to_exact_texts_is_corrected(world: World, parameters: dict[str, object]) -> None:
    """A schema or a tool is billed too, in words that only the provider knows."""
    world.answer(*[used(300)] * 5)
    exactly(world)
    (priced,) = estimator(world, definition(parameters=parameters)).price([group()])
    assert priced.input_tokens == 600
    assert priced.counting.exact


def test_what_a_provider_keeps_cannot_be_counted(world: World) -> None:
    """Of a reusable prompt only its variables are known here."""
    world.answer(*[used(3_000)] * 5)
    exactly(world)
    (priced,) = estimator(world, definition(prompt={"id": "pmpt_1"})).price([group()])
    assert (priced.input_tokens, priced.counting) == (6_000, ESTIMATED)


def test_what_waits_for_another_answer_is_an_estimate(world: World) -> None:
    exactly(world)
    (priced,) = estimator(world).price([replace(group(), reason=Reason.UPSTREAM, detail="facts")])
    assert priced.counting == ESTIMATED


def test_variants_have_their_own_prices(world: World) -> None:
    """As they have their own models."""
    dear, unknown = definition(variant="model=a", model="a"), definition(variant="model=b", model="unknown")
    world.answer(*[used(60, 10)] * 5, model="a", variant="model=a")
    asked = estimator(world, dear, unknown)
    assert (asked.model("bio", "model=a"), asked.model("bio", "model=b")) == ("a", "unknown")
    assert (asked.output_tokens("bio", "model=a"), asked.output_tokens("bio", "model=b")) == (10, 400)
    assert asked.unknown_price(["bio"]) == "unknown"
    assert asked.unknown_price(["haiku"]) is None
    assert estimator(world, dear).unknown_price(["bio"]) is None
