"""Batch files and objects: what we write, what may come back, and that no line can make reading it raise."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioforge.backends.openai.batch_lines import custom_id, enqueued_limit, hash_of, line, read_batch, read_line
from bioforge.backends.openai.wire import CHAT, RESPONSES
from bioforge.core.events import Attempt
from bioforge.core.hashing import canonical, request_hash
from bioforge.core.types import Batch, BatchProblem, BatchState, Paid, Request, Usage

BATCH = Batch(key="b-1", endpoint=RESPONSES, model="gpt-6-luna", state=BatchState.IN_PROGRESS, batch_id="batch_1")
ANSWER = {
    "id": "resp_1",
    "model": "gpt-6-luna-2026-05-01",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Björk sings."}]}],
    "usage": {"input_tokens": 12, "output_tokens": 7},
    "service_tier": "default",
    "metadata": {"a": "b"},
}
REFUSED = {"error": {"message": "max_tokens is too large", "type": "invalid_request_error", "code": "too_large"}}


def price(model: str, usage: Usage, tier: str | None) -> float | None:
    assert tier == "batch"
    return usage.input_tokens * 1.0 + usage.output_tokens * 10.0


def result(custom_id: Any = "r-1", status: Any = 200, body: Any = ANSWER, **changes: Any) -> bytes:
    """A result line; a change to None leaves the key out."""
    entry = {
        "id": "batch_req_1",
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": "req_1", "body": body},
        "error": None,
    }
    return dump({**entry, **changes})


def dump(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"


def without(line: bytes, *names: str) -> bytes:
    return dump({name: value for name, value in json.loads(line).items() if name not in names})


# ------------------------------------------------------------------------------------------------------- what we send


def test_a_line_has_the_body_byte_for_byte() -> None:
    body = canonical({"model": "gpt-6-luna", "input": 'Björk "guðmundsdóttir"\n'})
    request = Request(request_hash(RESPONSES, body), RESPONSES, "gpt-6-luna", body, "1", "bio")
    sent = line(Attempt(request, 1, "B01", "t7-1-abc", 0.0, batch="b-1"))
    assert sent == b'{"custom_id":"t7-1-abc","method":"POST","url":"/v1/responses","body":' + body + b"}\n"
    assert json.loads(sent)["body"] == json.loads(body)


def test_a_custom_id_leads_back_to_its_request() -> None:
    digest = request_hash(RESPONSES, b"{}")
    name = custom_id(1_000_000, 12, digest)
    assert name == f"t1000000-12-{digest[3:43]}"
    assert len(name) <= 64
    assert hash_of(name) == digest[:43]
    assert len(custom_id(2**63 - 1, 99, digest)) <= 64


@pytest.mark.parametrize("foreign", ["", "r-1", "t1-1-", "t1-1-" + "g" * 40, "t1-1-" + "a" * 41, "xt1-1-" + "a" * 40])
def test_other_custom_ids_lead_nowhere(foreign: str) -> None:
    assert hash_of(foreign) is None


# ---------------------------------------------------------------------------------------------------- lines of results


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_an_answer(separators: tuple[str, str]) -> None:
    entry = json.loads(result())
    row = read_line(BATCH, json.dumps(entry, separators=separators).encode(), price)
    assert row.success
    assert row.custom_id == "r-1"
    assert row.text == "Björk sings."
    assert row.paid is Paid.YES
    assert row.request_id == "req_1"
    assert row.data == ANSWER
    assert row.metadata == {"a": "b"}
    assert row.error is None
    assert row.answer is not None
    assert row.answer.cost_usd == 12 + 70
    assert row.answer.model == "gpt-6-luna-2026-05-01"


def test_the_body_of_an_answer_is_kept_as_it_came() -> None:
    body = json.dumps(ANSWER, indent=1).replace("\n", " ").replace('"Bj', '"\\u0042j').encode()
    received = b'{"id":"x","custom_id":"r-1","response":{"status_code":200,"request_id":"q","body":%b},"error":null}'
    row = read_line(BATCH, received % body, price)
    assert row.answer is not None
    assert row.answer.body == body
    assert row.text == "Björk sings."


@pytest.mark.parametrize(
    "line",
    [
        without(result(), "id"),
        without(result(), "error"),
        without(result(), "id", "error"),
        dump(dict(reversed(json.loads(result()).items()))),
        result(body=json.dumps(ANSWER)),
        result(status="200"),
        dump({"custom_id": "r-1", "response": {"body": ANSWER}}),
        dump({"custom_id": "r-1", "response": {"body": ANSWER, "status_code": 200, "request_id": "req_1"}, "more": 1}),
        result(error={"code": None, "message": "all is well"}),
    ],
    ids=["no id", "no error", "neither", "reversed", "text", "status as text", "no status", "order", "error beside it"],
)
def test_the_shapes_of_an_answer(line: bytes) -> None:
    row = read_line(BATCH, line, price)
    assert row.success
    assert row.text == "Björk sings."
    assert row.custom_id == "r-1"
    assert row.paid is Paid.YES
    assert row.answer is not None
    assert row.answer.cost_usd == 82


def test_a_body_inside_of_a_text_is_not_taken_for_the_answer() -> None:
    inner = json.dumps({"body": {"output": []}, "error": None})
    answer = {**ANSWER, "output": [{"type": "message", "content": [{"type": "output_text", "text": inner}]}]}
    assert read_line(BATCH, result(body=answer)).text == inner
    trap = {"custom_id": "r-1", "note": {"body": ANSWER}, "response": {"status_code": 200, "body": None}}
    assert read_line(BATCH, dump(trap)).answer is None
    assert read_line(BATCH, result(custom_id='"body": {')).text == "Björk sings."


def test_answers_that_cannot_be_used_are_paid_for() -> None:
    cut = {**ANSWER, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    row = read_line(BATCH, result(body=cut), price)
    assert row.answer is not None
    assert not row.success
    assert row.paid is Paid.YES
    assert row.error is not None
    assert row.error.error_class == "truncated"


def test_chat_completions() -> None:
    body = {
        "id": "chatcmpl-1",
        "model": "gpt-6-luna",
        "choices": [{"finish_reason": "stop", "message": {"content": "A singer."}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    row = read_line(replace(BATCH, endpoint=CHAT), result(body=body), price)
    assert row.text == "A singer."
    assert row.answer is not None
    assert row.answer.cost_usd == 23


@pytest.mark.parametrize(
    "body", [None, [], {}, "", "not JSON", '"text"', 7, {"output": "no list"}, {"error": {"message": "no"}}]
)
def test_a_malformed_200_is_maybe_paid(body: Any) -> None:
    row = read_line(BATCH, result(body=body), price)
    assert row.custom_id == "r-1"
    assert row.failure is not None
    assert row.failure.error_class == "malformed"
    assert row.paid is Paid.MAYBE
    assert row.retryable
    assert row.text is row.data is None
    assert row.metadata == {}


@pytest.mark.parametrize(
    ("status", "body", "error_class", "transient", "stops"),
    [
        (400, REFUSED, "bad_request", False, False),
        (400, json.dumps(REFUSED), "bad_request", False, False),
        (404, {}, "not_found", False, False),
        (401, REFUSED, "authentication", False, True),
        (429, {"error": {"code": "insufficient_quota"}}, "quota", False, True),
        (429, {"error": {"code": "rate_limit_exceeded"}}, "rate_limit", True, False),
        (500, None, "server_error", True, False),
        (503, "gone", "overloaded", True, False),
    ],
)
def test_refusals(status: int, body: Any, error_class: str, transient: bool, stops: bool) -> None:
    row = read_line(BATCH, result(status=status, body=body), price)
    assert row.custom_id == "r-1"
    assert row.error is not None
    assert row.error.error_class == error_class
    assert row.error.http_status == status
    assert row.paid is Paid.NO
    assert (row.retryable, row.stops_run) == (transient, stops)
    assert row.request_id == "req_1"


@pytest.mark.parametrize(
    ("status", "body", "error_class", "paid", "then"),
    [
        (200, {"error": {"code": 402, "message": "Insufficient credits"}}, "quota", Paid.NO, "stops"),
        (200, {"error": {"code": 429, "message": "Slower"}}, "rate_limit", Paid.NO, "again"),
        (200, {"status": "failed", "output": [], "error": {"code": "server_error", "message": "Sorry"}},
         "server_error", Paid.NO, "again"),
        (200, "<html><title>Log in</title></html>", "malformed", Paid.MAYBE, "again"),
        (400, {"error": {"code": "content_filter", "message": "Filtered"}}, "content_filter", Paid.MAYBE, "held"),
        (403, {"error": {"message": "Flagged", "metadata": {"reasons": ["x"]}}}, "content_filter", Paid.NO, "held"),
        (504, None, "timeout", Paid.MAYBE, "again"),
        (400, {"detail": "Invalid API key"}, "authentication", Paid.NO, "stops"),
    ],
)  # fmt: skip
def test_lines_are_read_by_the_table_of_outcomes(
    status: int, body: Any, error_class: str, paid: Paid, then: str
) -> None:
    row = read_line(BATCH, result(status=status, body=body), price)
    assert row.custom_id == "r-1"
    assert row.failure is not None
    assert (row.failure.error_class, row.paid) == (error_class, paid)
    assert (row.retryable, row.stops_run) == (then == "again", then == "stops")


def test_an_error_without_a_response_is_read_by_its_code() -> None:
    for code, error_class, stops in [
        ("insufficient_quota", "quota", True),
        ("rate_limit_exceeded", "rate_limit", False),
    ]:
        row = read_line(BATCH, dump({"custom_id": "r-3", "error": {"code": code, "message": "No."}}))
        assert row.failure is not None
        assert (row.failure.error_class, row.failure.message, row.stops_run) == (error_class, "No.", stops)


def test_the_words_of_a_refusal() -> None:
    row = read_line(BATCH, result(status=400, body=REFUSED))
    assert row.failure is not None
    assert (row.failure.message, row.failure.code) == ("max_tokens is too large", "too_large")
    assert json.loads(row.body or b"") == REFUSED


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        ("batch_expired", "expired"),
        ("batch_cancelled", "cancelled"),
        ("request_timeout", "timeout"),
        ("something_new", "batch_error"),
        (None, "batch_error"),
    ],
)
@pytest.mark.parametrize("response", [{"response": None}, {}])
def test_rows_that_were_never_answered(code: str | None, error_class: str, response: dict[str, Any]) -> None:
    entry = {"id": "x", "custom_id": "r-3", **response, "error": {"code": code, "message": "This was not done."}}
    row = read_line(BATCH, dump(entry))
    assert row.custom_id == "r-3"
    assert row.failure is not None
    assert (row.failure.error_class, row.failure.code) == (error_class, code)
    assert row.failure.message == "This was not done."
    assert row.paid is Paid.NO
    assert row.retryable
    assert not row.stops_run


def test_a_row_that_is_refused_for_good_is_not_sent_again() -> None:
    for code in ("unsupported_endpoint", "invalid_request", "model_mismatch"):
        row = read_line(BATCH, dump({"custom_id": "r-3", "response": None, "error": {"code": code, "message": "No."}}))
        assert row.failure is not None
        assert (row.failure.error_class, row.paid, row.retryable) == ("bad_request", Paid.NO, False)
        (problem,) = read_batch(BATCH, {"errors": {"data": [{"code": code, "message": "No."}]}}).problems
        assert problem.final


def test_a_row_without_answer_and_error() -> None:
    for entry in ({"custom_id": "r-1"}, {"custom_id": "r-1", "response": None, "error": None}):
        row = read_line(BATCH, dump(entry))
        assert row.failure is not None
        assert row.failure.error_class == "batch_error"
        assert row.paid is Paid.MAYBE


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b"null",
        b'{"custom_id": 7}',
        without(result(), "custom_id"),
        result(custom_id=None),
        result(custom_id=""),
        result()[:-20],
        b"[" * 100_000,
        b'{"custom_id":"r-1","response":' + b'{"body":' * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_junk_belongs_to_nobody(line: bytes) -> None:
    row = read_line(BATCH, line)
    assert row.custom_id is None
    assert row.failure is not None
    assert row.failure.error_class == "unreadable"


def test_half_a_surrogate_pair_is_no_reason_to_lose_an_answer() -> None:
    raw = b'{"custom_id":"r-\\ud83d","response":{"status_code":200,"body":{"output":[{"type":"message","content":'
    raw += b'[{"type":"output_text","text":"half \\ud83d"}]}]},"request_id":"q"},"error":null}'
    row = read_line(BATCH, raw)
    assert row.custom_id is not None
    row.custom_id.encode()
    assert (row.text or "").encode().startswith(b"half ")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["custom_id", "response", "error", "body", "status_code", "code", "output", "message"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values | st.fixed_dictionaries({"custom_id": st.text(), "response": json_values, "error": json_values}))
@settings(max_examples=300, deadline=None)
def test_reading_never_raises(entry: Any) -> None:
    row = read_line(BATCH, json.dumps(entry).encode(), price)
    assert (row.answer is None) != (row.failure is None)


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_reading_bytes_never_raises(line: bytes) -> None:
    assert read_line(BATCH, line).answer is None


# ------------------------------------------------------------------------------------------------- the object of the API

OBJECT: dict[str, Any] = {
    "id": "batch_abc",
    "object": "batch",
    "endpoint": "/v1/responses",
    "model": "gpt-6-luna",
    "errors": None,
    "input_file_id": "file-a",
    "completion_window": "24h",
    "status": "completed",
    "output_file_id": "file-o",
    "error_file_id": None,
    "created_at": 1,
    "in_progress_at": 2,
    "expires_at": 86401,
    "finalizing_at": 3,
    "completed_at": 4,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 100, "completed": 95, "failed": 5},
    "usage": {"input_tokens": 1500, "input_tokens_details": {"cached_tokens": 1024}, "output_tokens": 500},
    "metadata": {"run": "x"},
}


def test_a_completed_batch() -> None:
    batch = read_batch(Batch("b-1", RESPONSES, "gpt-6-luna", BatchState.UPLOADED, requests=101), OBJECT)
    assert batch == Batch(
        key="b-1",
        endpoint=RESPONSES,
        model="gpt-6-luna",
        state=BatchState.COMPLETED,
        requests=101,
        file_id="file-a",
        batch_id="batch_abc",
        status="completed",
        output_file_id="file-o",
        completed=95,
        failed=5,
        submitted_at=1.0,
        expires_at=86401.0,
        ended_at=4.0,
        usage=Usage(1500, 500, 1024),
    )


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("validating", BatchState.SUBMITTED),
        ("in_progress", BatchState.IN_PROGRESS),
        ("finalizing", BatchState.IN_PROGRESS),
        ("cancelling", BatchState.IN_PROGRESS),
        ("completed", BatchState.COMPLETED),
        ("failed", BatchState.FAILED),
        ("expired", BatchState.EXPIRED),
        ("cancelled", BatchState.CANCELLED),
        ("thinking_about_it", BatchState.IN_PROGRESS),
    ],
)
def test_states(status: str, state: BatchState) -> None:
    times = {"completed_at": None, "cancelling_at": 9, f"{status}_at": 12}
    batch = read_batch(BATCH, {**OBJECT, **times, "status": status})
    assert (batch.state, batch.status) == (state, status)
    assert batch.ended_at == (12.0 if batch.ended else None)


def test_an_ending_is_known_by_any_of_its_times() -> None:
    assert read_batch(BATCH, {"status": "expired", "cancelled_at": 8}).ended_at == 8.0


def test_missing_and_senseless_keys_leave_what_is_known() -> None:
    known = read_batch(BATCH, OBJECT)
    assert read_batch(known, {}) == known
    assert read_batch(known, dict.fromkeys(OBJECT)) == known
    assert read_batch(known, dict.fromkeys(OBJECT, 10**400)).output_file_id == "file-o"
    assert read_batch(known, {key: [] for key in OBJECT}) == known
    assert read_batch(known, {"errors": [{}, None]}).problems == (BatchProblem("unknown", "refused without words"),)


def test_what_is_known_here_is_not_taken_from_there() -> None:
    foreign = {**OBJECT, "endpoint": "/v1/embeddings", "model": "other", "request_counts": {"total": 1}}
    batch = read_batch(replace(BATCH, requests=7), foreign)
    assert (batch.endpoint, batch.model, batch.requests) == (RESPONSES, "gpt-6-luna", 7)
    adopted = read_batch(Batch("", "", ""), OBJECT)
    assert (adopted.endpoint, adopted.model, adopted.requests) == (RESPONSES, "gpt-6-luna", 100)


def test_why_a_batch_was_refused() -> None:
    errors = {
        "object": "list",
        "data": [
            {"code": "duplicate_custom_id", "line": 7, "message": "again", "param": "custom_id"},
            {"code": "empty_file", "line": None, "message": "empty"},
        ],
    }
    batch = read_batch(BATCH, {"status": "failed", "failed_at": 5, "errors": errors})
    assert batch.problems == (BatchProblem("duplicate_custom_id", "again", 7), BatchProblem("empty_file", "empty"))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (
            "Enqueued token limit reached for gpt-4o-mini in organization org-1. Limit: 1,350,000 enqueued tokens."
            " Please try again once some in_progress batches have been completed.",
            1_350_000,
        ),
        ("Enqueued token limit reached. Limit: 90000 enqueued tokens.", 90_000),
        ("Enqueued token limit reached. Limit: 90_000.", 90_000),
        ("Enqueued token limit reached. Limit: 2.000.000 enqueued tokens", 2_000_000),
        ("enqueued-token limit of 500 reached", 500),
        ("token_limit_exceeded: the limit is 200000", 200_000),
        ("You may have 40,000 enqueued tokens at a time", 40_000),
        ("Enqueued token limit reached for gpt-6-luna.", 0),
        ("Enqueued token limit reached. Limit: 2.5M tokens.", 0),
        ("token_limit_exceeded", 0),
        ("Limit: 1,350,000 tokens per minute", None),
        ("Rate limit reached", None),
        ("", None),
    ],
)
def test_the_limit_of_enqueued_tokens(text: str, tokens: int | None) -> None:
    assert enqueued_limit(text) == tokens
