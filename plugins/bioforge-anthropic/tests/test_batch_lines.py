"""Test requests of a batch, lines of its results and the batch object."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bioforge_anthropic.batch_lines import custom_id, line, mark_in, mark_of, name_in, read_batch, read_line
from server_rules import CUSTOM_ID
from test_wire import message

from bioforge.plugin import Attempt, Batch, BatchState, Paid, Request

KEY = "bf-20231114-0123456789abcdef"
BATCH = Batch(KEY, "/v1/messages", "claude-haiku-4-5", requests=4)
HASH = "v1:" + "ab" * 32


def result(kind: str, **values: Any) -> bytes:
    return json.dumps({"custom_id": "x-t1-1-ab", "result": {"type": kind, **values}}).encode() + b"\n"


def errored(kind: str, message: str = "No.") -> bytes:
    return result(
        "errored", error={"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_9"}
    )


class TestNames:
    def test_a_name_tells_batch_target_attempt_and_request(self) -> None:
        name = custom_id(KEY, 7, 2, HASH)
        assert name == "0123456789abcdef-t7-2-abababababababababab"
        assert mark_in(name) == mark_of(KEY) == "0123456789abcdef"

    @pytest.mark.parametrize("target", [0, 1, 2**63 - 1])
    def test_it_is_of_the_form_the_api_takes(self, target: int) -> None:
        assert CUSTOM_ID.fullmatch(custom_id(KEY, target, 9_999, HASH))

    @pytest.mark.parametrize("name", ["", "their-1", "t1-1-ab", "my-request-7", "0123456789abcdef0-t1"])
    def test_names_of_others_have_another_mark(self, name: str) -> None:
        assert mark_in(name) != mark_of(KEY)

    def test_a_line_is_an_element_of_the_requests(self) -> None:
        request = Request(
            HASH, "/v1/messages", "m", '{"model":"m","messages":[{"content":"Björk"}]}'.encode(), "a", "bio"
        )
        made = line(Attempt(request, 1, "batch", "n-t1-1-ab", 0.0, KEY))
        assert made.endswith(b"\n")
        assert made.count(b"\n") == 1
        assert json.loads(made) == {"custom_id": "n-t1-1-ab", "params": json.loads(request.body)}
        assert request.body in made


class TestLines:
    def test_an_answer_is_kept_byte_for_byte_at_half_the_price(self) -> None:
        body = message()
        row = read_line(BATCH, b'{"custom_id": "n", "result": {"type": "succeeded", "message": ' + body + b"}}\n")
        assert row.success
        assert row.answer is not None
        assert (row.custom_id, row.paid, row.answer.body, row.text) == ("n", Paid.YES, body, "A life.")
        assert row.answer.cost_usd == pytest.approx((100 * 1.0 + 50 * 5.0) / 2 / 1e6)

    def test_whatever_the_order_of_its_members(self) -> None:
        body = message()
        row = read_line(BATCH, b'{"result": {"message": ' + body + b', "type": "succeeded"}, "custom_id": "n"}')
        assert (row.custom_id, row.text, row.paid) == ("n", "A life.", Paid.YES)

    def test_an_answer_with_a_problem_was_paid_for(self) -> None:
        row = read_line(BATCH, result("succeeded", message=json.loads(message(stop_reason="max_tokens"))))
        assert row.error is not None
        assert (row.error.error_class, row.paid) == ("truncated", Paid.YES)

    @pytest.mark.parametrize(
        ("kind", "error_class", "transient", "stops"),
        [
            ("invalid_request_error", "bad_request", False, False),
            ("not_found_error", "not_found", False, False),
            ("request_too_large", "too_large", False, False),
            ("api_error", "server_error", True, False),
            ("overloaded_error", "overloaded", True, False),
            ("rate_limit_error", "rate_limit", True, False),
            ("timeout_error", "timeout", True, False),
            ("billing_error", "quota", False, True),
            ("authentication_error", "authentication", False, True),
            ("permission_error", "permission", False, True),
            ("something_new", "bad_request", False, False),
        ],
    )
    def test_a_refused_request_was_not_paid_for(
        self, kind: str, error_class: str, transient: bool, stops: bool
    ) -> None:
        row = read_line(BATCH, errored(kind))
        assert row.failure is not None
        assert (row.failure.error_class, row.retryable, row.stops_run) == (error_class, transient, stops)
        assert (row.paid, row.request_id, row.failure.code) == (Paid.NO, "req_9", kind)
        assert row.body

    def test_no_credit_is_known_by_its_words_here_too(self) -> None:
        row = read_line(BATCH, errored("invalid_request_error", "Your credit balance is too low."))
        assert row.stops_run

    @pytest.mark.parametrize(("kind", "error_class"), [("canceled", "cancelled"), ("expired", "expired")])
    def test_what_was_not_begun_was_not_paid_for(self, kind: str, error_class: str) -> None:
        row = read_line(BATCH, result(kind))
        assert row.failure is not None
        assert (row.failure.error_class, row.paid, row.retryable) == (error_class, Paid.NO, True)

    @pytest.mark.parametrize(
        "line", [result("succeeded", message={"x": 1}), result("succeeded"), result("new"), result("")]
    )
    def test_what_cannot_be_understood_may_have_been_paid_for(self, line: bytes) -> None:
        row = read_line(BATCH, line)
        assert (row.custom_id, row.paid, row.answer) == ("x-t1-1-ab", Paid.MAYBE, None)

    @pytest.mark.parametrize("line", [b"<html>", b"[]", b"{}", b'{"custom_id": 7}', b"\xff", b"[" * 100_000])
    def test_a_line_without_a_name_is_kept_as_it_is(self, line: bytes) -> None:
        row = read_line(BATCH, line)
        assert (row.custom_id, row.body, row.paid) == (None, line, Paid.MAYBE)
        assert name_in(line) is None


def job(**values: Any) -> dict[str, Any]:
    counts = {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    return {
        "id": "msgbatch_1",
        "processing_status": "ended",
        "created_at": "2023-11-14T22:13:20Z",
        "expires_at": "2023-11-15T22:13:20Z",
        "ended_at": "2023-11-14T22:14:20Z",
        "results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_1/results",
        **values,
        "request_counts": {**counts, **values.get("request_counts", {})},
    }


class TestBatches:
    def test_one_at_work(self) -> None:
        seen = read_batch(BATCH, job(processing_status="in_progress", ended_at=None, results_url=None))
        assert (seen.state, seen.status, seen.batch_id) == (BatchState.IN_PROGRESS, "in_progress", "msgbatch_1")
        assert (seen.submitted_at, seen.expires_at, seen.ended_at) == (1_700_000_000.0, 1_700_086_400.0, None)
        assert seen.output_file_id is None

    @pytest.mark.parametrize(
        ("counts", "values", "state"),
        [
            ({"succeeded": 3, "errored": 1}, {}, BatchState.COMPLETED),
            ({"succeeded": 3, "expired": 1}, {}, BatchState.EXPIRED),
            ({"succeeded": 3, "canceled": 1}, {"cancel_initiated_at": "2023-11-14T22:13:30Z"}, BatchState.CANCELLED),
            ({"succeeded": 4}, {"cancel_initiated_at": "2023-11-14T22:13:30Z"}, BatchState.COMPLETED),
        ],
    )
    def test_how_one_ended_is_told_by_its_requests(
        self, counts: dict[str, int], values: dict[str, Any], state: BatchState
    ) -> None:
        seen = read_batch(BATCH, job(request_counts=counts, **values))
        assert (seen.state, seen.ended_at, seen.output_file_id) == (state, 1_700_000_060.0, "msgbatch_1")
        assert (seen.completed, seen.completed + seen.failed) == (counts["succeeded"], 4)

    def test_what_is_not_told_stays_as_it_is(self) -> None:
        assert read_batch(BATCH, {}) == BATCH
        assert read_batch(BATCH, {"request_counts": 7, "created_at": 7, "id": None}) == BATCH
