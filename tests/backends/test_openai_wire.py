"""The API's shapes: bodies, answers, refusals, headers; and that no bytes can make reading them raise."""

from __future__ import annotations

import json
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioforge.backends.openai.client import endpoint_url
from bioforge.backends.openai.errors import read_failure
from bioforge.backends.openai.headers import parse_duration, read_rate_limits, read_retry_after
from bioforge.backends.openai.outcomes import interpret
from bioforge.backends.openai.wire import CHAT, RESPONSES, body, read_answer
from bioforge.core.errors import ConfigError
from bioforge.core.types import Paid, Rendered, Request, Usage


def rendered(**changes: Any) -> Rendered:
    values: dict[str, Any] = {
        "endpoint": RESPONSES,
        "model": "gpt-6-luna",
        "instructions": "Be brief.",
        "input": "Absalon",
        "prompt": None,
        "parameters": {"max_output_tokens": 40},
    }
    return Rendered(**{**values, **changes})


def response(*output: dict[str, Any], **changes: Any) -> bytes:
    usage = {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 19,
    }
    body = {
        "id": "resp_1",
        "model": "gpt-6-luna-2026-05-01",
        "status": "completed",
        "output": list(output),
        "usage": usage,
        "service_tier": "default",
    }
    return json.dumps({**body, **changes}).encode()


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


def text(words: str) -> dict[str, Any]:
    return {"type": "output_text", "text": words, "annotations": []}


def chat(**choice: Any) -> bytes:
    choice = {"finish_reason": "stop", "message": {"content": "A life."}, **choice}
    usage = {
        "prompt_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens": 7,
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    return json.dumps({"id": "chatcmpl-1", "model": "m", "choices": [choice], "usage": usage}).encode()


class TestBodies:
    def test_responses_has_parameters_beside_the_texts(self) -> None:
        assert body(rendered()) == {
            "model": "gpt-6-luna",
            "instructions": "Be brief.",
            "input": "Absalon",
            "max_output_tokens": 40,
        }

    def test_a_prompt_goes_as_it_is(self) -> None:
        prompt = {"id": "pmpt_1", "variables": {"artist_name": "Absalon"}}
        made = body(rendered(prompt=prompt, model=None, instructions=None, input=None, parameters={}))
        assert made == {"prompt": prompt}

    def test_chat_has_messages_and_its_own_name_for_the_limit(self) -> None:
        assert body(rendered(endpoint=CHAT)) == {
            "model": "gpt-6-luna",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Absalon"},
            ],
            "max_completion_tokens": 40,
        }

    def test_chat_without_instructions_has_one_message(self) -> None:
        made = body(rendered(endpoint=CHAT, instructions=None))
        assert made["messages"] == [{"role": "user", "content": "Absalon"}]

    def test_chat_cannot_have_a_prompt(self) -> None:
        with pytest.raises(ConfigError, match="reusable prompt") as caught:
            body(rendered(endpoint=CHAT, prompt={"id": "pmpt_1"}))
        assert "/v1/responses" in caught.value.hint

    @pytest.mark.parametrize(
        ("base", "url"),
        [
            ("https://api.openai.com/v1", "https://api.openai.com/v1/responses"),
            ("http://localhost:8000/v1/", "http://localhost:8000/v1/responses"),
            ("https://me.openai.azure.com/openai/v1", "https://me.openai.azure.com/openai/v1/responses"),
            ("http://proxy/llm", "http://proxy/llm/responses"),
        ],
    )
    def test_an_endpoint_is_found_under_any_base_url(self, base: str, url: str) -> None:
        assert endpoint_url(base, RESPONSES) == url


class TestAnswers:
    def test_every_text_of_every_message_is_the_answer(self) -> None:
        content = response(
            {"type": "reasoning", "summary": []},
            message(text("A "), text("life")),
            {"type": "function_call", "name": "f"},
            message(text(".")),
        )
        answer = read_answer(RESPONSES, content)
        assert answer.text == "A life."
        assert answer.problem is None
        assert answer.body == content
        assert answer.usage == Usage(12, 7, cached_tokens=4, cache_write_tokens=2, reasoning_tokens=3)
        assert (answer.model, answer.response_id, answer.service_tier) == (
            "gpt-6-luna-2026-05-01",
            "resp_1",
            "default",
        )

    def test_chat_answers_are_read_in_their_own_words(self) -> None:
        answer = read_answer(CHAT, chat())
        assert (answer.text, answer.problem) == ("A life.", None)
        assert answer.usage == Usage(12, 7, cached_tokens=4, reasoning_tokens=3)

    @pytest.mark.parametrize(
        ("content", "error_class"),
        [
            (response(message({"type": "refusal", "refusal": "No."})), "refusal"),
            (
                response(
                    message(text("Half a")),
                    status="incomplete",
                    incomplete_details={"reason": "max_output_tokens"},
                ),
                "truncated",
            ),
            (
                response(
                    message(text("Half a")),
                    status="incomplete",
                    incomplete_details={"reason": "content_filter"},
                ),
                "content_filter",
            ),
            (response(status="incomplete", incomplete_details=None), "incomplete"),
            (response(status="failed", error={"code": "server_error", "message": "Sorry."}), "failed"),
            (response(status="cancelled"), "cancelled"),
            (response(status="queued", output=None), "queued"),
            (response(status="in_progress"), "in_progress"),
            (response(), "empty"),
            (response(message(text(" \n"))), "empty"),
            (response(output=None), None),
        ],
    )
    def test_paid_answers_that_cannot_be_used_say_why(self, content: bytes, error_class: str | None) -> None:
        answer = read_answer(RESPONSES, content)
        assert answer.problem is not None
        assert answer.problem.error_class == (error_class or "empty")
        assert answer.usage is not None

    @pytest.mark.parametrize(
        ("choice", "error_class"),
        [
            ({"finish_reason": "length"}, "truncated"),
            ({"finish_reason": "content_filter"}, "content_filter"),
            ({"message": {"content": None, "refusal": "No."}}, "refusal"),
            ({"message": {"content": ""}}, "empty"),
            ({"message": None}, "empty"),
        ],
    )
    def test_chat_answers_that_cannot_be_used_say_why(self, choice: dict[str, Any], error_class: str) -> None:
        problem = read_answer(CHAT, chat(**choice)).problem
        assert problem is not None
        assert problem.error_class == error_class

    def test_a_truncated_text_is_kept(self) -> None:
        cut = response(message(text("Half a")), status="incomplete", incomplete_details={"reason": "max_output_tokens"})
        assert read_answer(RESPONSES, cut).text == "Half a"

    @pytest.mark.parametrize(
        "content",
        [b"", b"<html>", b"[]", b'"text"', b"null", b'{"output": null}', b'{"a": 1}', b"\xff\xfe", b"[" * 100_000],
    )
    @pytest.mark.parametrize("endpoint", [RESPONSES, CHAT])
    def test_what_is_no_answer_is_malformed(self, endpoint: str, content: bytes) -> None:
        answer = read_answer(endpoint, content)
        assert answer.problem is not None
        assert answer.problem.error_class == "malformed"
        assert answer.body == content

    def test_a_malformed_200_may_have_been_paid_for_and_is_kept(self) -> None:
        outcome = interpret(REQUEST, 200, {"x-request-id": "req_1"}, b"[]", 0.5, lambda *_: None)
        assert outcome.answer is None
        assert outcome.failure is not None
        assert (outcome.paid, outcome.retryable, outcome.body) == (Paid.MAYBE, True, b"[]")

    def test_the_cost_is_that_of_the_model_that_answered(self) -> None:
        prices = {"gpt-6-luna-2026-05-01": 2.0, "gpt-6-luna": 1.0}
        content = response(message(text("A")))
        outcome = interpret(REQUEST, 200, {}, content, 0.5, lambda model, *_: prices.get(model))
        assert outcome.answer is not None
        assert outcome.answer.cost_usd == 2.0
        del prices["gpt-6-luna-2026-05-01"]
        outcome = interpret(REQUEST, 200, {}, content, 0.5, lambda model, *_: prices.get(model))
        assert outcome.answer is not None
        assert outcome.answer.cost_usd == 1.0

    def test_texts_can_be_stored_whatever_json_carried(self) -> None:
        answer = read_answer(RESPONSES, response(message(text("x"))).replace(b'"x"', b'"\\ud800x"'))
        assert (answer.text or "").encode()

    @settings(max_examples=300, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(
                        ["output", "choices", "message", "content", "type", "text", "usage", "status", "error"]
                    )
                    | st.sampled_from(["refusal", "finish_reason", "input_tokens", "incomplete_details", "code"]),
                    inner,
                    max_size=6,
                )
            ),
            max_leaves=20,
        )
    )
    def test_no_json_makes_reading_raise(self, value: Any) -> None:
        content = json.dumps(value).encode()
        for endpoint in (RESPONSES, CHAT):
            read_answer(endpoint, content)
        assert read_failure(400, {}, content).failure is not None

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=200))
    def test_no_bytes_make_reading_raise(self, content: bytes) -> None:
        for endpoint in (RESPONSES, CHAT):
            assert read_answer(endpoint, content).body == content
        assert read_failure(500, {}, content).failure is not None


REQUEST = Request("h" * 64, RESPONSES, "gpt-6-luna", b"{}", "a-1", "bio")


def refusal(code: str | None = None, kind: str | None = None, words: str = "No.") -> bytes:
    return json.dumps({"error": {"message": words, "type": kind, "param": None, "code": code}}).encode()


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "content", "error_class", "traits"),
        [
            (400, refusal("invalid_prompt"), "bad_request", ""),
            (401, refusal("invalid_api_key"), "authentication", "stops"),
            (403, refusal(), "permission", "stops"),
            (404, refusal("model_not_found"), "not_found", ""),
            (408, refusal(), "timeout", "retry maybe"),
            (409, refusal(), "conflict", "retry"),
            (413, refusal(), "too_large", ""),
            (418, refusal(), "bad_request", ""),
            (422, refusal(), "unprocessable", ""),
            (429, refusal("rate_limit_exceeded"), "rate_limit", "retry overloaded"),
            (429, refusal("slow_down"), "slow_down", "retry overloaded"),
            (429, refusal(words="Resource unavailable, try later"), "overloaded", "retry overloaded"),
            (429, refusal("insufficient_quota"), "quota", "stops"),
            (429, refusal(None, "insufficient_quota"), "quota", "stops"),
            (429, refusal("credit_balance_exhausted"), "quota", "stops"),
            (400, refusal("project_spend_limit_exceeded"), "quota", "stops"),
            (500, refusal(), "server_error", "retry outage"),
            (502, b"<html><h1>Bad gateway</h1>", "server_error", "retry outage maybe"),
            (503, refusal("server_is_overloaded"), "overloaded", "retry outage overloaded"),
            (504, b"", "timeout", "retry outage maybe"),
            (520, b"", "server_error", "retry outage maybe"),
            (524, b"", "timeout", "retry outage maybe"),
            (499, b"", "timeout", "retry maybe"),
            (521, b"", "server_error", "retry outage"),
            (424, b"", "server_error", "retry"),
            (425, b"", "conflict", "retry"),
            (498, b"", "overloaded", "retry overloaded"),
            (529, b"", "overloaded", "retry outage overloaded"),
            (402, refusal(words="Insufficient Balance"), "quota", "stops"),
            (400, refusal(None, "budget_exceeded", "Budget has been exceeded! Current cost: 1.2"), "quota", "stops"),
            (307, b"", "redirect", ""),
        ],
    )
    def test_each_status_has_its_meaning(self, status: int, content: bytes, error_class: str, traits: str) -> None:
        outcome = read_failure(status, {"x-request-id": "req_1"}, content)
        assert outcome.failure is not None
        assert (outcome.failure.error_class, outcome.failure.http_status) == (error_class, status)
        found = {
            "stops": outcome.stops_run,
            "retry": outcome.retryable,
            "outage": outcome.outage,
            "overloaded": outcome.overloaded,
            "maybe": outcome.paid is Paid.MAYBE,
        }
        assert {name for name, is_so in found.items() if is_so} == set(traits.split())
        assert (outcome.body, outcome.request_id) == (content, "req_1")
        assert bool(outcome.hint) == outcome.stops_run

    def test_the_server_may_overrule_the_status(self) -> None:
        assert not read_failure(429, {"x-should-retry": "false"}, refusal()).retryable
        assert not read_failure(429, {"x-should-retry": "false"}, refusal()).overloaded
        assert read_failure(400, {"x-should-retry": "true"}, refusal()).retryable
        assert not read_failure(401, {"x-should-retry": "true"}, refusal()).retryable

    def test_the_words_of_a_proxy_are_better_than_none(self) -> None:
        failure = read_failure(502, {}, b"<html>\n<h1>Bad gateway</h1>").failure
        assert failure is not None
        assert failure.message == "<html> <h1>Bad gateway</h1>"

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry-after": "7"}, 7.0),
            ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
            ({"retry-after": formatdate(1_000_060, usegmt=True)}, 60.0),
            ({"retry-after": formatdate(999_000, usegmt=True)}, 0.0),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "-3"}, None),
            ({"retry-after": "inf"}, None),
            ({"retry-after": "nan"}, None),
            ({"retry-after-ms": "nan"}, None),
            ({"retry-after-ms": "-250"}, None),
            ({"retry-after": "99999999"}, 86_400.0),
            ({}, None),
        ],
    )
    def test_retry_after_is_read_in_all_its_forms(self, headers: dict[str, str], seconds: float | None) -> None:
        assert read_retry_after(headers, lambda: 1_000_000.0) == seconds

    @pytest.mark.parametrize(
        ("written", "seconds"),
        [
            ("6m0s", 360.0),
            ("41ms", 0.041),
            ("1m2.5s", 62.5),
            ("1h0m3s", 3603.0),
            ("1s", 1.0),
            ("0s", 0.0),
            ("12", 12.0),
            ("", None),
            ("soon", None),
            ("1s later", None),
            (None, None),
        ],
    )
    def test_durations(self, written: str | None, seconds: float | None) -> None:
        found = parse_duration(written)
        assert found == (None if seconds is None else pytest.approx(seconds))

    def test_rate_limits_are_read_as_far_as_they_are_told(self) -> None:
        assert read_rate_limits({}) is None
        limits = read_rate_limits(
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "many",
            }
        )
        assert limits is not None
        assert (limits.limit_requests, limits.remaining_requests, limits.reset_requests) == (60, 59, 1.0)
        assert limits.remaining_tokens is None
