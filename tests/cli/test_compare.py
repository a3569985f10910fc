"""`compare`: the variants of a recipe side by side, with a score from a function or from a recipe that judges them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from filled_state import FilledState
from projects import ProjectFolder

from bioforge.store import Store

MATRIX = 'matrix = { model = ["gpt-6-luna"], temperature = [0.2, 0.9] }\nsamples = 2\n'
SCORED = MATRIX + 'score = "metrics:words"\n'
JUDGED = MATRIX + 'score = "quality"\n'
JUDGE = """
[recipe.quality]
model = "gpt-6.1-terra"
needs = ["bio"]
input = "How good is this text? {{ bio.text }}"
schema = "score.json"
"""
SCHEMA = """{"type": "object", "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}},
"required": ["score"], "additionalProperties": false}"""
METRICS = """
def words(record):
    print("looking at", record["artist_id"])
    return len(record["response_text"].split())

def strict(record):
    return 1 / (len(record["response_text"].split()) - 3)
"""
COLD, HOT = "model=gpt-6-luna,temperature=0.2", "model=gpt-6-luna,temperature=0.9"


def with_recipe(project: ProjectFolder, more: str, further: str = "") -> None:
    """The recipe `bio` with further keys, and further recipes."""
    project.configure(more=further, **{'model = "gpt-6-luna"\n': f'model = "gpt-6-luna"\n{more}'})


@pytest.fixture
def project(project: ProjectFolder) -> ProjectFolder:
    with_recipe(project, SCORED)
    project.write("metrics.py", METRICS)
    project.write("score.json", SCHEMA)
    return project


def answer(state: FilledState, artist: int, variant: str, words: int, seconds: float = 1.0, **columns: object) -> None:
    """An up-to-date answer of so many words of four characters, at a dollar for a thousand."""
    digest = f"v1:{artist}{variant}"
    numbers: dict[str, Any] = {"output_tokens": words, "input_tokens": 10, "cost_usd": words / 1000, "model": "luna"}
    response, _ = state.response(
        digest, state.attempt(digest, seconds=seconds), text="word " * words, **{**numbers, **columns}
    )
    state.target(artist, variant, request_hash=digest, built_response=response)


@pytest.fixture
def compared(project: ProjectFolder) -> ProjectFolder:
    """Two artists; of the second one an answer has failed, another one is out of date."""
    with Store.open(project.root / "bioforge.db") as store:
        state = FilledState(store)
        first, second = state.artist("1"), state.artist("2")
        answer(state, first, COLD, 1, seconds=1)
        answer(state, first, f"{COLD},sample=2", 3, seconds=3)
        answer(state, second, COLD, 4, seconds=2)
        state.target(second, f"{COLD},sample=2", reason="failed", detail="refusal: no", held=1)
        answer(state, first, HOT, 8)
        answer(state, first, f"{HOT},sample=2", 8)
        answer(state, second, HOT, 12)
        state.target(second, f"{HOT},sample=2", reason="changed", request_hash="v1:newer")
    return project


def found(project: ProjectFolder, *arguments: str) -> dict[str, Any]:
    printed: dict[str, Any] = json.loads(project.run("compare", "--format", "json", *arguments).ok().out)
    return printed


# ------------------------------------------------------------------------------------------------------------- text


def test_variants_side_by_side(compared: ProjectFolder) -> None:
    shown = compared.run("compare", "bio").ok()
    assert shown.out == (
        "bio: 2 artists, 2 variants, 2 samples of each; all with model=gpt-6-luna\n"
        "variant          answers         success  chars  tokens out     cost   in all  latency    p50    p95"
        "    score        Δ\n"
        "temperature=0.2      3/4    75% (30–96%)     13           3  $0.0027  $0.0080    2.0 s  2.0 s  3.0 s"
        "   3 ± 13   -\n"
        "temperature=0.9      3/4  100% (43–100%)     47           9  $0.0093   $0.028    1.0 s  1.0 s  1.0 s"
        "  10 ± 25  +7 ± 13\n"
        "score by metrics:words, over 2 artists with their samples averaged; ± and ranges are 95% intervals\n"
        "Δ: score above that of temperature=0.2, artist by artist, over 2 artists\n"
        "left out: 1 target without a current answer (`bioforge plan` shows why)\n"
    )


def test_without_a_scorer_there_is_no_score(compared: ProjectFolder) -> None:
    with_recipe(compared, MATRIX)
    lines = compared.run("compare").ok().out.splitlines()
    assert lines[1].split()[-1] == "p95"
    assert lines[-2] == "success: share of answered among answered and failed, with its 95% interval"


def test_before_anything_is_planned(project: ProjectFolder) -> None:
    nothing = project.run("compare")
    assert nothing.code == 2
    assert "there is no state yet" in nothing.err
    Store.open(project.root / "bioforge.db").close()
    shown = project.run("compare").ok().out
    assert shown.count(" 0/0 ") == 2
    assert shown.endswith("no targets yet: `bioforge run bio` builds them\n")


def test_what_the_numbers_do_not_cover_is_said(project: ProjectFolder) -> None:
    with Store.open(project.root / "bioforge.db") as store:
        state = FilledState(store)
        first, second = state.artist("1"), state.artist("2")
        answer(state, first, COLD, 1, cost_usd=None)
        answer(state, second, COLD, 1, model="terra")
        state.answered(first, "model=gpt-6-luna,temperature=0.5", text="of a variant the file no longer has")
        state.answered(second, HOT, text="adopted", cost_usd=1.0)
    shown = project.run("compare").ok().out
    assert "left out of cost: 1 answer of unknown price\n" in shown
    assert "left out of latency: 1 answer from batches or elsewhere\n" in shown
    assert "left out: 1 variant that the project file no longer has\n" in shown
    assert "several models answered for temperature=0.2: luna 1, terra 1\n" in shown
    assert "temperature=0.5" not in shown


# ------------------------------------------------------------------------------------------------------------- JSON


def test_the_same_as_json(compared: ProjectFolder) -> None:
    printed = found(compared, "bio")
    assert {key: value for key, value in printed.items() if key != "variants"} == {
        "project": "test",
        "recipe": "bio",
        "simulated": False,
        "artists": 2,
        "confidence": 0.95,
        "score": "metrics:words",
        "problems": 0,
        "first_problem": None,
        "first": COLD,
    }
    cold, hot = printed["variants"]
    assert (cold["variant"], cold["settings"]) == (COLD, {"model": "gpt-6-luna", "temperature": "0.2"})
    assert [cold[key] for key in ("samples", "targets", "answers", "failed", "held", "stale")] == [2, 4, 3, 1, 1, 0]
    assert [hot[key] for key in ("samples", "targets", "answers", "failed", "held", "stale")] == [2, 4, 3, 0, 0, 1]
    assert cold["score"] == {"mean": 3.0, "half_width": pytest.approx(12.706, rel=1e-4), "artists": 2}
    assert cold["difference"] is None
    assert hot["difference"] == {"mean": 7.0, "half_width": pytest.approx(12.706, rel=1e-4), "artists": 2}
    assert hot["spent_usd"] == pytest.approx(0.028)
    assert cold["latency"]["answers"] == 3
    assert cold["models"] == {"luna": 3}


# ------------------------------------------------------------------------------------------------- order, selection


@pytest.mark.parametrize(("by", "first"), [("score", HOT), ("cost", COLD), ("latency", HOT), ("success", HOT)])
def test_sorted_the_best_comes_first_and_differences_stay_to_the_same(
    compared: ProjectFolder, by: str, first: str
) -> None:
    printed = found(compared, "--sort", by)
    assert printed["variants"][0]["variant"] == first
    assert printed["first"] == COLD


def test_an_order_that_cannot_be(compared: ProjectFolder) -> None:
    refused = compared.run("compare", "--sort", "prize")
    assert (refused.code, refused.err) == (2, "error: --sort prize: no such order\nhint: orders are: score, success,"
            " cost, latency, length, tokens\n")  # fmt: skip
    with_recipe(compared, MATRIX)
    refused = compared.run("compare", "--sort", "score")
    assert (refused.code, refused.err) == (
        2,
        "error: --sort score: recipe 'bio' has no score\nhint: name a scorer with --score\n",
    )


def test_only_selected_artists(compared: ProjectFolder) -> None:
    printed = found(compared, "--select", "2")
    assert [variant["targets"] for variant in printed["variants"]] == [2, 2]
    assert [variant["score"]["mean"] for variant in printed["variants"]] == [4.0, 12.0]
    assert printed["variants"][0]["score"]["half_width"] is None, "one artist cannot tell"
    mistyped = compared.run("compare", "--select", "x*").ok()
    assert mistyped.err == "warning: no artist of the input matches --select x*\n"


def test_only_selected_variants(compared: ProjectFolder) -> None:
    printed = found(compared, "--select", "variant:temperature=0.9")
    assert [variant["variant"] for variant in printed["variants"]] == [HOT]
    assert (printed["first"], printed["variants"][0]["targets"]) == (HOT, 4)


# ------------------------------------------------------------------------------------------------------ which recipe


MOTTO = '[recipe.motto]\nmodel = "gpt-6.1-terra"\ninput = "{{ artist_name }}"\n'


def test_without_a_name_it_is_the_only_recipe_with_variants(compared: ProjectFolder) -> None:
    with_recipe(compared, SCORED, MOTTO)
    assert found(compared)["recipe"] == "bio"


def test_a_recipe_that_judges_is_not_what_is_compared(compared: ProjectFolder) -> None:
    with_recipe(compared, JUDGED, JUDGE)
    assert found(compared)["recipe"] == "bio"
    with_recipe(compared, MATRIX, JUDGE)
    assert found(compared, "--score", "quality")["recipe"] == "bio"


def test_several_recipes_with_variants_are_named(compared: ProjectFolder) -> None:
    with_recipe(compared, SCORED, MOTTO + "samples = 2\n")
    refused = compared.run("compare")
    assert (refused.code, refused.err) == (
        2,
        "error: several recipes have variants: bio, motto\nhint: name one: bioforge compare bio\n",
    )
    assert found(compared, "motto")["variants"][0]["samples"] == 2


def test_where_nothing_varies_a_recipe_has_to_be_named(compared: ProjectFolder) -> None:
    compared.configure()
    refused = compared.run("compare")
    assert refused.code == 2
    assert refused.err.startswith("error: no recipe has variants to compare\nhint: ")
    assert [variant["variant"] for variant in found(compared, "bio")["variants"]] == [""]
    assert compared.run("compare", "bioo").err.startswith("error: no recipe 'bioo' in bioforge.toml")


# ---------------------------------------------------------------------------------------------------------- scorers


def test_what_a_scorer_prints_is_no_data(compared: ProjectFolder) -> None:
    shown = compared.run("compare", "--format", "json").ok()
    assert json.loads(shown.out)["problems"] == 0
    assert shown.err.count("looking at") == 6


def test_a_scorer_that_fails_costs_that_answer_its_score(compared: ProjectFolder) -> None:
    shown = compared.run("compare", "--score", "metrics:strict").ok()
    assert "left out of score: 1 answer without one\n" in shown.out
    assert shown.err == (
        f"warning: 1 score failed; the first: artist 1, {COLD},sample=2: metrics.py, line 7:"
        " ZeroDivisionError: division by zero\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ((), "bioforge.toml: recipe.bio.score: metrics:word: metrics has no 'word'", "did you mean 'words'?"),
        (("--score", "metric:words"), "--score: metric:words: no such module 'metric'", "did you mean 'metrics'?"),
        (("--score", "bioo"), "--score: there is no recipe 'bioo'", "did you mean 'bio'?"),
        (
            ("--score", "motto"),
            "--score: recipe 'motto' does not judge 'bio'",
            'write needs = ["bio"] under [recipe.motto]',
        ),
    ],
)
def test_a_scorer_that_cannot_be_had(
    compared: ProjectFolder, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    with_recipe(compared, SCORED.replace("words", "word"), MOTTO)
    refused = compared.run("compare", *arguments)
    assert (refused.code, refused.out, refused.err) == (2, "", f"error: {message}\nhint: {hint}\n")


# ------------------------------------------------------------------------------------------------------------- runs


def test_a_matrix_is_run_and_compared(project: ProjectFolder) -> None:
    project.run("run").ok()
    assert project.charged() == 4 * 2 * 2
    printed = found(project)
    exported: dict[str, list[int]] = {COLD: [], HOT: []}
    for line in project.run("export", "--all").ok().out.splitlines():
        record = json.loads(line)
        exported[record["variant"].removesuffix(",sample=2")].append(len(record["response_text"]))
    for variant in printed["variants"]:
        assert (variant["targets"], variant["answers"], variant["samples"]) == (8, 8, 2)
        assert variant["characters"] == pytest.approx(sum(exported[variant["variant"]]) / 8)
        assert variant["score"]["artists"] == 4
    spent = sum(variant["spent_usd"] for variant in printed["variants"])
    assert spent == pytest.approx(project.value("SELECT sum(cost_usd) FROM responses"))


def test_what_changes_leaves_the_comparison_until_it_is_asked_again(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.edit("artists.csv", "Polish sculptor", "Polish artist")
    project.run("plan").ok()
    assert [(variant["answers"], variant["stale"]) for variant in found(project)["variants"]] == [(6, 2), (6, 2)]
    project.run("run").ok()
    assert [(variant["answers"], variant["stale"]) for variant in found(project)["variants"]] == [(8, 0), (8, 0)]


def test_a_variant_that_was_taken_out_is_compared_no_more(project: ProjectFolder) -> None:
    project.run("run").ok()
    project.edit("bioforge.toml", "[0.2, 0.9]", "[0.9, 1.0]")
    project.run("plan").ok()
    printed = found(project)
    assert [(variant["settings"]["temperature"], variant["answers"]) for variant in printed["variants"]] == [
        ("0.9", 8),
        ("1.0", 0),
    ]
    assert printed["first"] == HOT


def test_a_recipe_judges_every_variant_of_another(project: ProjectFolder) -> None:
    with_recipe(project, JUDGED, JUDGE)
    project.run("run").ok()
    printed = found(project)
    assert (printed["recipe"], printed["score"], printed["problems"]) == ("bio", "quality", 0)
    for variant in printed["variants"]:
        of_artists = project.rows(
            "SELECT avg(parsed ->> 'score') FROM results WHERE recipe = 'quality' AND variant LIKE ? GROUP BY artist_id",
            f"%bio.temperature={variant['settings']['temperature']}%",
        )
        assert variant["score"]["artists"] == len(of_artists) == 4
        assert variant["score"]["mean"] == pytest.approx(sum(score for (score,) in of_artists) / 4)
        assert variant["unscored"] == 0
    (hot,) = found(project, "--select", "variant:temperature=0.9")["variants"]
    assert hot["score"] == printed["variants"][1]["score"], "what judges the variants that were selected counts"


def test_variants_of_what_is_needed_are_variants_too(project: ProjectFolder) -> None:
    style = '[recipe.style]\nmodel = "gpt-6.1-terra"\ninput = "{{ bio.text }}"\nneeds = ["bio"]\nsamples = 3\n'
    with_recipe(project, SCORED, style)
    project.run("run", "style").ok()
    shown = project.run("compare", "style", "--score", "metrics:words").ok().out.splitlines()
    assert shown[0] == "style: 4 artists, 2 variants, 6 samples of each; all with bio.model=gpt-6-luna"
    assert [line.split()[:2] for line in shown[2:4]] == [
        ["bio.temperature=0.2", "24/24"],
        ["bio.temperature=0.9", "24/24"],
    ]
    refused = project.run("compare", "style", "--select", "variant:model=*")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("error: --select variant:model=*: no such variant\nhint: variants are: bio.model=")


def test_texts_about_all_artists_together_are_compared_like_others(project: ProjectFolder) -> None:
    book = '[recipe.book]\nmodel = "gpt-6.1-terra"\nfor = "all"\ninput = "{{ artists | length }}"\nsamples = 3\n'
    with_recipe(project, MATRIX, book)
    project.run("run", "book").ok()
    shown = project.run("compare", "book").ok().out.splitlines()
    assert shown[0] == "book: all artists together, 1 variant, 3 samples of each"
    assert shown[2].split()[:2] == ["book", "3/3"]


def test_it_reads_while_somebody_writes(compared: ProjectFolder) -> None:
    before = found(compared)
    with Store.open(compared.root / "bioforge.db") as store, store.transaction() as connection:
        connection.execute("UPDATE targets SET reason = 'forced'")
        assert found(compared) == before, "what is not finished is not seen"
