"""Verdicts on stored answers: which were not checked by today's schema, and what becomes of their requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from filled_state import FilledState

from bioforge.store import Store, dependencies, validations
from bioforge.store.targets import known_requests
from bioforge.store.validations import Unchecked, Validation

TODAY, BEFORE = "v1:today", "v1:before"


class Answers(FilledState):
    def request(
        self, digest: str, state: str = "answered", *, validation: str | None = BEFORE, **columns: object
    ) -> int:
        """A request with an answer, which was checked by a schema of before; its number."""
        response, _ = self.response(digest, validation=validation, text=f"text of {digest}")
        values = {"endpoint": "/v1/responses", "body": "{}", "created_at": 1.0, "response": response, **columns}
        self.insert("requests", request_hash=digest, state=state, **values)
        return response

    def unchecked(self, *hashes: str) -> dict[str, Unchecked]:
        return {item.request_hash: item for item in validations.unchecked(self.store, hashes, TODAY)}

    def judge(self, digest: str, parsed: str | None, message: str | None = None) -> None:
        (found,) = validations.unchecked(self.store, [digest], TODAY)
        validations.save(self.store, [Validation(found, parsed, message)], TODAY)

    def of(self, digest: str) -> tuple[object, ...]:
        """The request's state and error, and what is thought of its answer."""
        row: tuple[object, ...] = self.store.row(
            "SELECT q.state, q.error_class, r.usable, r.parsed, r.error_message FROM requests q"
            " JOIN responses r ON r.id = q.response WHERE q.request_hash = ?",
            (digest,),
        )
        return row


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    with Store.open(tmp_path / "state.db") as store:
        yield Answers(store)


# ----------------------------------------------------------------------------------------------------------- which ones


@pytest.mark.parametrize("validation", [BEFORE, None])
@pytest.mark.parametrize("state", ["answered", "invalid"])
def test_an_answer_that_was_checked_by_another_schema_or_by_none(
    answers: Answers, state: str, validation: str | None
) -> None:
    response = answers.request("v1:a", state, validation=validation)
    assert answers.unchecked("v1:a", "v1:b") == {"v1:a": Unchecked("v1:a", response, "text of v1:a", state)}


def test_an_answer_that_was_checked_by_this_one_is_not_checked_again(answers: Answers) -> None:
    answers.request("v1:a", validation=TODAY)
    answers.request("v1:b", "unusable", validation=TODAY, error_class="schema")
    assert answers.unchecked("v1:a", "v1:b") == {}


def test_a_misfit_is_checked_again_and_other_unusable_answers_are_not(answers: Answers) -> None:
    answers.request("v1:misfit", "unusable", error_class="schema")
    answers.request("v1:refusal", "unusable", error_class="refusal")
    answers.request("v1:truncated", "unusable", error_class="truncated", validation=None)
    assert answers.unchecked("v1:misfit", "v1:refusal", "v1:truncated").keys() == {"v1:misfit"}


@pytest.mark.parametrize(
    "state", ["started", "waiting", "in batch", "failed", "maybe paid", "forgotten", "interrupted"]
)
def test_what_is_being_asked_again_is_left_alone(answers: Answers, state: str) -> None:
    answers.request("v1:a", state)
    assert answers.unchecked("v1:a") == {}


# ---------------------------------------------------------------------------------------------- what becomes of requests


def test_a_good_answer_that_no_longer_fits_is_to_be_asked_for_again(answers: Answers) -> None:
    answers.request("v1:a")
    answers.judge("v1:a", None, "facts.json: born: missing")
    assert answers.of("v1:a") == ("invalid", "schema", 0, None, "facts.json: born: missing")
    known = known_requests(answers.store, ["v1:a"])["v1:a"]
    assert (known.misfit, known.detail, known.validation) == (True, "schema: facts.json: born: missing", TODAY)


def test_the_data_of_an_answer_that_fits_no_longer_stays_for_whoever_accepts_it(answers: Answers) -> None:
    answers.request("v1:a")
    answers.judge("v1:a", '{"born": 1965}')
    with answers.store.transaction() as connection:
        connection.execute("UPDATE responses SET validation = 'v1:yesterday'")
    answers.judge("v1:a", None, "facts.json: died: missing")
    assert answers.of("v1:a") == ("invalid", "schema", 0, '{"born": 1965}', "facts.json: died: missing")


def test_an_answer_that_never_fitted_stays_held(answers: Answers) -> None:
    answers.request("v1:a", "unusable", error_class="schema")
    answers.judge("v1:a", None, "facts.json: died: missing")
    assert answers.of("v1:a") == ("unusable", "schema", 0, None, "facts.json: died: missing")


@pytest.mark.parametrize("state", ["answered", "invalid", "unusable"])
def test_an_answer_that_fits_is_good_whatever_was_thought_of_it(answers: Answers, state: str) -> None:
    answers.request("v1:a", state, error_class=None if state == "answered" else "schema")
    answers.judge("v1:a", '{"born": 1965}')
    assert answers.of("v1:a") == ("answered", None, 1, '{"born": 1965}', None)
    assert answers.unchecked("v1:a") == {}


def test_the_answer_itself_stays_as_it_was_received(answers: Answers) -> None:
    response = answers.request("v1:a")
    before = answers.store.row("SELECT id, text, body, created_at, request_hash FROM responses")
    answers.judge("v1:a", None, "no")
    assert answers.store.row("SELECT id, text, body, created_at, request_hash FROM responses") == before
    assert validations.text_of(answers.store, response) == "text of v1:a"
    assert validations.text_of(answers.store, 99) == ""


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ('{"a": 1}', '{"a": 2}', [1, 2]),
        ('{"a": 1}', '{"a": 1}', []),
        (None, '{"a": 1}', [1, 2]),
        ('{"a": 1}', None, []),
    ],
)
def test_who_needs_the_data_is_told_when_it_is_another(
    answers: Answers, before: str | None, now: str | None, told: list[int]
) -> None:
    response = answers.request("v1:a")
    for number in "123":
        answers.artist(number)
    answers.target(1, recipe="facts", request_hash="v1:a", built_response=response)
    answers.target(2, recipe="facts", request_hash="v1:a", built_response=response)
    answers.target(3, recipe="facts", request_hash="v1:a", built_response=response + 1)
    answers.target(3, recipe="bio", request_hash="v1:a", built_response=response)
    with answers.store.transaction() as connection:
        connection.execute("UPDATE responses SET parsed = ?", (before,))
    dependencies.set_needed(answers.store, [("facts", "")])
    answers.judge("v1:a", now, None if now else "no")
    assert [number for page in dependencies.changed_artists(answers.store, [("facts", "")]) for number in page] == told


def test_outputs_are_written_again_after_verdicts(answers: Answers) -> None:
    answers.request("v1:a")
    version = answers.store.fact("results_version")
    answers.judge("v1:a", "{}")
    assert answers.store.fact("results_version") > version
