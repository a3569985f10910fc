"""Scores by the user's function, and by a recipe that judges another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from bioforge.core.errors import UsageError
from bioforge.evaluation.scoring import ByFunction, ByJudge, as_score, check_judge, imported, score_in
from bioforge.recipes.variants import expand
from bioforge.store.variants import Judgement, MeasuredState, Measurement


def answered(artist: int, *variants: str) -> list[Measurement]:
    return [Measurement(artist, f"id-{artist}", variant, MeasuredState.ANSWERED) for variant in variants]


# ----------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("value", "score"),
    [(0.5, 0.5), (7, 7.0), (True, 1.0), (False, 0.0), (None, None), (Decimal("0.25"), 0.25)],
)
def test_numbers_booleans_and_none_are_scores(value: object, score: float | None) -> None:
    assert as_score(value) == score


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("7", "expected a number, true, false or nothing, found str '7'"),
        ([1], r"expected a number, true, false or nothing, found list \[1\]"),
        (float("nan"), "expected a finite number, found nan"),
        (10**400, "expected a finite number, found inf"),
    ],
)
def test_anything_else_is_refused(value: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        as_score(value)


@pytest.mark.parametrize(
    ("text", "parsed", "score"),
    [
        ("", '{"score": 0.75, "why": "brief"}', 0.75),
        ("", '{"score": true}', 1.0),
        ("", '{"score": null}', None),
        ("", "3", 3.0),
        (" 8.5\n", None, 8.5),
        ("-1", None, -1.0),
    ],
)
def test_a_judging_answer_has_a_field_score_or_is_a_number(text: str, parsed: str | None, score: float | None) -> None:
    assert score_in(Judgement("", text, parsed)) == score


@pytest.mark.parametrize(
    ("text", "parsed", "complaint"),
    [
        ("Rather good.", None, "the judging answer is not a number: 'Rather good.'"),
        (None, None, "the judging answer is not a number: ''"),
        ("nan", None, "expected a finite number, found nan"),
        ("", '{"grade": 3}', "the judging answer has no field 'score'"),
        ("", '{"score": "high"}', "expected a number, true, false or nothing, found str 'high'"),
    ],
)
def test_a_judging_answer_without_a_number_is_an_error(text: str | None, parsed: str | None, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        score_in(Judgement("", text, parsed))


# --------------------------------------------------------------------------------------------------------- function


def by_function(function: Callable[[Mapping[str, object]], object], *records: dict[str, object]) -> ByFunction:
    return ByFunction(function, records, Path(__file__).parent)


def test_each_answer_is_scored_by_its_own_record() -> None:
    scorer = by_function(
        lambda record: len(str(record["response_text"])),
        {"artist_id": "id-1", "response_text": "abc"},
        {"artist_id": "id-1", "variant": "model=b", "response_text": "abcd"},
        {"artist_id": "id-2", "variant": "model=b", "response_text": "older", "error": {"class": "refusal"}},
        {"artist_id": "id-3", "response_text": "abcdef"},
    )
    assert scorer.scores(answered(1, "", "model=b")) == {"": 3.0, "model=b": 4.0}
    assert scorer.scores([Measurement(2, "id-2", "model=b", MeasuredState.FAILED)]) == {}
    assert scorer.scores(answered(3, "")) == {"": 6.0}


def test_an_exception_loses_one_score_and_names_its_line() -> None:
    def strict(record: Mapping[str, object]) -> float:
        if record.get("variant") == "model=b":
            raise KeyError("parsed")
        return 1.0

    scorer = by_function(
        strict,
        {"artist_id": "id-1"},
        {"artist_id": "id-1", "variant": "model=b"},
        {"artist_id": "id-2", "variant": "model=b"},
    )
    assert scorer.scores(answered(1, "", "model=b")) == {"": 1.0}
    assert scorer.scores(answered(2, "model=b")) == {}
    assert scorer.problems == 2
    line = strict.__code__.co_firstlineno + 2
    assert scorer.first_problem == f"artist id-1, model=b: test_scoring.py, line {line}: KeyError: 'parsed'"


def test_a_function_without_a_number_is_a_problem() -> None:
    scorer = by_function(lambda record: "high", {"artist_id": "id-1"})
    assert scorer.scores(answered(1, "")) == {}
    assert scorer.first_problem == "artist id-1: expected a number, true, false or nothing, found str 'high'"


def test_a_function_may_return_none() -> None:
    scorer = by_function(lambda record: None, {"artist_id": "id-1"})
    assert scorer.scores(answered(1, "")) == {}
    assert (scorer.problems, scorer.first_problem) == (0, "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Create a project folder with a module that imports others only when it is called."""
    (tmp_path / "metrics.py").write_text(
        "from math import sqrt\n"
        "LIMIT = 3\n"
        "def words(record):\n"
        "    from word_lists import split\n"
        "    return len(split(record['response_text']))\n"
        "async def later(record):\n"
        "    return 1\n"
    )
    (tmp_path / "word_lists.py").write_text("split = str.split\n")
    return tmp_path


def test_a_project_function_can_import_project_modules(root: Path) -> None:
    with imported("metrics:words", root, "--score") as function:
        assert function({"response_text": "one two three"}) == 3


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("metric:words", "--score: metric:words: no such module 'metric'", "did you mean 'metrics'?"),
        ("metrics:word", "--score: metrics:word: metrics has no 'word'", "did you mean 'words'?"),
        ("metrics:LIMIT", "--score: metrics:LIMIT: found a value of type int, expected a function", ""),
        (
            "metrics:later",
            "--score: metrics:later: an async function, expected a plain one",
            "write `def`, not `async def`",
        ),
    ],
)
def test_a_missing_function_is_named(root: Path, source: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused, imported(source, root, "--score"):
        pass
    assert (refused.value.message, refused.value.hint) == (message, hint)


# ------------------------------------------------------------------------------------------------------------ judge


def judgement(variant: str, score: float) -> Judgement:
    return Judgement(variant, str(score), None)


def test_a_judge_has_one_variant_for_each_judged_variant() -> None:
    """A judge's variants have every matrix key of the judged recipe."""
    facts = expand({"temperature": [0, 1]}, samples=2)
    bios = expand({"model": ["a", "b"]}, samples=3, needs={"facts": facts})
    judges = expand({"model": ["strict", "kind"]}, samples=2, needs={"bio": bios})
    scorer = ByJudge("bio", [bio.name for bio in bios], [])
    found = {judge.name: scorer.judged(judge.name) for judge in judges}
    assert found == {judge.name: judge.upstream["bio"] for judge in judges}
    assert len(set(found.values())) == len(bios) == 24


def test_a_judge_of_removed_variants_is_ignored() -> None:
    scorer = ByJudge("bio", ["model=a", "model=b"], [])
    assert scorer.judged("bio.model=old") is None


def test_several_scores_of_one_answer_are_averaged() -> None:
    judged = [judgement("", 1), judgement("sample=2", 2), judgement("bio.sample=2", 9)]
    scorer = ByJudge("bio", ["", "sample=2"], [(1, judged)])
    assert scorer.scores(answered(1, "", "sample=2")) == {"": 1.5, "sample=2": 9.0}


def test_unjudged_artists_have_no_score() -> None:
    scorer = ByJudge("bio", [""], [(2, [judgement("", 5)]), (4, [judgement("", 7)]), (9, [judgement("", 1)])])
    assert [scorer.scores(answered(artist, "")) for artist in (1, 2, 3, 4, 5)] == [{}, {"": 5.0}, {}, {"": 7.0}, {}]


def test_judged_artists_outside_the_comparison_are_skipped() -> None:
    scorer = ByJudge("bio", [""], [(number, [judgement("", number)]) for number in range(1, 10)])
    assert [scorer.scores(answered(artist, "")) for artist in (3, 8)] == [{"": 3.0}, {"": 8.0}]


def test_a_score_of_a_stale_answer_does_not_count() -> None:
    unreadable = Judgement("", "about the older text", None)
    scorer = ByJudge("bio", [""], [(1, [unreadable])])
    assert scorer.scores([Measurement(1, "id-1", "", MeasuredState.STALE)]) == {}
    assert scorer.problems == 0


def test_a_judging_answer_without_a_number_is_counted_and_shown() -> None:
    bad, worse = Judgement("bio.model=b", "Good!", None), Judgement("bio.model=b", "", None)
    scorer = ByJudge("bio", ["", "model=b"], [(1, [judgement("", 5), bad]), (2, [worse])])
    assert scorer.scores(answered(1, "", "model=b")) == {"": 5.0}
    assert scorer.scores(answered(2, "", "model=b")) == {}
    assert scorer.problems == 2
    assert scorer.first_problem == "artist id-1, model=b: the judging answer is not a number: 'Good!'"


def test_only_a_recipe_that_needs_another_one_judges_it() -> None:
    needs = {"bio": [], "quality": ["bio"], "facts": []}
    check_judge("quality", "bio", needs, "--score")
    with pytest.raises(UsageError, match="--score: there is no recipe 'qualty'") as mistyped:
        check_judge("qualty", "bio", needs, "--score")
    assert mistyped.value.hint == "did you mean 'quality'?"
    with pytest.raises(UsageError, match="recipe 'facts' does not judge 'bio'") as unneeding:
        check_judge("facts", "bio", needs, "--score")
    assert unneeding.value.hint == 'write needs = ["bio"] under [recipe.facts]'
