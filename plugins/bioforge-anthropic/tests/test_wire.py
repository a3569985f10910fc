"""Test sent bodies and received answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bioforge_anthropic.prices import price
from bioforge_anthropic.wire import body, read_answer, sent

from bioforge.plugin import ConfigError, Rendered, Request, Turn, Usage, canonical

MODEL = "claude-haiku-4-5"


def rendered(parameters: dict[str, Any] | None = None, **values: Any) -> Rendered:
    given = {"max_output_tokens": 400} if parameters is None else parameters
    parts = {"model": MODEL, "instructions": None, "input": "Björk", "prompt": None, **values}
    return Rendered("/v1/messages", parameters=given, **parts)


SCHEMA = {
    "type": "object",
    "properties": {"born": {"type": "integer"}, "art": {"type": "string"}},
    "required": ["born", "art"],
    "additionalProperties": False,
}
TEXT = {"format": {"type": "json_schema", "name": "life", "schema": SCHEMA, "strict": True}}


class TestBodies:
    def test_texts_become_system_and_messages(self) -> None:
        assert body(rendered(instructions="Be brief.")) == {
            "model": MODEL,
            "max_tokens": 400,
            "system": "Be brief.",
            "messages": [{"role": "user", "content": "Björk"}],
        }

    def test_further_turns_follow_the_input(self) -> None:
        made = body(rendered(turns=(Turn("assistant", "{}"), Turn("user", "Once more."))))
        assert [(one["role"], one["content"]) for one in made["messages"]] == [  # type: ignore[attr-defined]
            ("user", "Björk"),
            ("assistant", "{}"),
            ("user", "Once more."),
        ]

    def test_parameters_pass_through_by_anthropic_s_names(self) -> None:
        given = {
            "max_tokens": 9,
            "temperature": 0.2,
            "top_k": 5,
            "thinking": {"type": "disabled"},
            "service_tier": "auto",
        }
        made = body(rendered(given))
        assert {name: made[name] for name in given} == given

    def test_a_schema_becomes_the_format_of_the_output(self) -> None:
        made = body(rendered({"max_output_tokens": 400, "text": TEXT, "output_config": {"effort": "low"}}))
        assert made["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}
        assert "text" not in made

    def test_an_effort_is_translated(self) -> None:
        made = body(rendered({"max_output_tokens": 400, "reasoning": {"effort": "high"}}))
        assert made["output_config"] == {"effort": "high"}
        assert "reasoning" not in made

    @pytest.mark.parametrize(
        ("parameters", "values", "words"),
        [
            ({}, {}, "needs max_output_tokens"),
            ({"max_output_tokens": 0}, {}, "expected a whole number from 1, found 0"),
            ({"max_output_tokens": True}, {}, "expected a whole number from 1, found True"),
            ({"max_output_tokens": 1, "max_tokens": 1}, {}, "the same here"),
            (None, {"input": None}, "needs an input"),
            (None, {"model": None}, "needs a model"),
            (None, {"prompt": {"id": "pmpt_1"}}, "reusable prompt"),
            ({"max_tokens": 1, "stream": True}, {}, "stream"),
            (
                {"max_tokens": 1, "service_tier": "flex"},
                {},
                "expected 'auto' or 'standard_only' for Anthropic, found 'flex'",
            ),
            ({"max_tokens": 1, "reasoning": {"effort": "minimal"}}, {}, "low, medium, high, xhigh, max"),
            ({"max_tokens": 1, "reasoning": {"effort": "low", "summary": "auto"}}, {}, "reasoning: expected"),
            (
                {"max_tokens": 1, "reasoning": {"effort": "low"}, "output_config": {"effort": "high"}},
                {},
                "reasoning.effort and output_config.effort differ",
            ),
            ({"max_tokens": 1, "text": {"verbosity": "low"}}, {}, "only text.format"),
            ({"max_tokens": 1, "text": {"format": {"type": "json_object"}}}, {}, "a JSON schema or plain text"),
            ({"max_tokens": 1, "text": TEXT, "output_config": {"format": {}}}, {}, "output_config.format"),
        ],
    )
    def test_what_anthropic_cannot_be_asked_is_said_before_anything_is_sent(
        self, parameters: dict[str, Any] | None, values: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ConfigError, match=words):
            body(rendered(parameters, **values))

    def test_a_body_goes_out_byte_for_byte(self) -> None:
        content = canonical(body(rendered(input="Łempicka – ünïcode")))
        assert sent(_request(content)) == content

    def test_the_properties_of_a_schema_go_out_as_they_were_written(self) -> None:
        content = canonical(body(rendered({"max_output_tokens": 400, "text": TEXT})))
        assert content.index(b'"art":') < content.index(b'"born":')
        out = sent(_request(content))
        assert out.index(b'"born":') < out.index(b'"art":')
        assert json.loads(out) == json.loads(content)


def _request(content: bytes) -> Request:
    return Request("v1:0", "/v1/messages", MODEL, content, "a", "bio")


def message(**values: Any) -> bytes:
    return json.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-haiku-4-5-20251001",
            "content": [
                {"type": "thinking", "thinking": "Hm."},
                {"type": "text", "text": "A "},
                {"type": "text", "text": "life."},
            ],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 100, "output_tokens": 50, "service_tier": "standard"},
            **values,
        }
    ).encode()


class TestAnswers:
    def test_all_that_is_known_of_an_answer(self) -> None:
        content = message()
        answer = read_answer(content)
        assert (answer.text, answer.model, answer.response_id) == ("A life.", "claude-haiku-4-5-20251001", "msg_1")
        assert (answer.body, answer.usage, answer.service_tier) == (content, Usage(100, 50), "standard")
        assert answer.problem is None
        assert answer.cost_usd == pytest.approx((100 * 1.0 + 50 * 5.0) / 1e6)

    def test_what_was_cached_is_part_of_the_input(self) -> None:
        usage = {
            "input_tokens": 10,
            "cache_read_input_tokens": 1000,
            "cache_creation_input_tokens": 200,
            "output_tokens": 50,
            "output_tokens_details": {"thinking_tokens": 30},
        }
        answer = read_answer(message(usage=usage))
        assert answer.usage == Usage(1210, 50, cached_tokens=1000, cache_write_tokens=200, reasoning_tokens=30)
        assert answer.cost_usd == pytest.approx((10 * 1.0 + 1000 * 0.1 + 200 * 1.25 + 50 * 5.0) / 1e6)

    def test_what_is_cached_for_an_hour_costs_more(self) -> None:
        usage = {
            "input_tokens": 0,
            "cache_creation_input_tokens": 200,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 100},
            "output_tokens": 0,
        }
        assert read_answer(message(usage=usage)).cost_usd == pytest.approx((100 * 1.25 + 100 * 2.0) / 1e6)

    @pytest.mark.parametrize(
        ("reason", "error_class"),
        [
            ("max_tokens", "truncated"),
            ("model_context_window_exceeded", "truncated"),
            ("refusal", "refusal"),
            ("pause_turn", "incomplete"),
            ("tool_use", "incomplete"),
            ("something_new", "incomplete"),
            (None, "incomplete"),
        ],
    )
    def test_an_answer_that_ended_otherwise_has_a_problem_and_a_price(
        self, reason: str | None, error_class: str
    ) -> None:
        answer = read_answer(message(stop_reason=reason))
        assert answer.problem is not None
        assert answer.problem.error_class == error_class
        assert answer.text == "A life."
        assert answer.cost_usd

    def test_a_refusal_says_why(self) -> None:
        details = {"type": "refusal", "category": "bio", "explanation": "Not this."}
        answer = read_answer(message(stop_reason="refusal", content=[], stop_details=details))
        assert answer.problem is not None
        assert answer.problem.message == "Not this. (bio)"

    def test_a_stop_sequence_ends_an_answer_well(self) -> None:
        assert read_answer(message(stop_reason="stop_sequence")).problem is None

    @pytest.mark.parametrize("content", [[], [{"type": "text", "text": "  \n"}], [{"type": "tool_use"}]])
    def test_an_answer_without_a_text_is_empty(self, content: list[dict[str, str]]) -> None:
        answer = read_answer(message(content=content))
        assert answer.problem is not None
        assert answer.problem.error_class == "empty"

    @pytest.mark.parametrize(
        "content",
        [b"", b"<html>", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"type":"error"}', b'{"type":"message"}'],
    )
    def test_what_is_no_message_is_malformed(self, content: bytes) -> None:
        answer = read_answer(content)
        assert answer.problem is not None
        assert answer.problem.error_class == "malformed"
        assert answer.body == content

    @pytest.mark.parametrize(
        "usage", [None, 7, {}, {"input_tokens": "7", "output_tokens": True}, {"input_tokens": 10**30}]
    )
    def test_tokens_that_are_none_are_not_told(self, usage: object) -> None:
        assert read_answer(message(usage=usage)).usage is None

    def test_half_a_surrogate_pair_can_be_stored(self) -> None:
        answer = read_answer(message(content=[{"type": "text", "text": "\ud83d"}]))
        assert answer.text == "?"


class TestPrices:
    def test_a_batch_costs_half(self) -> None:
        usage = Usage(1_000, 200, cached_tokens=500, cache_write_tokens=100)
        usual = price(MODEL, usage)
        assert usual == pytest.approx((400 * 1.0 + 500 * 0.1 + 100 * 1.25 + 200 * 5.0) / 1e6)
        assert price(MODEL, usage, "batch") == pytest.approx(usual / 2)
        assert price(MODEL, usage, "priority") == usual

    def test_long_contexts_have_prices_of_their_own(self) -> None:
        assert price("claude-sonnet-4-5", Usage(300_000)) == pytest.approx(300_000 * 6.0 / 1e6)

    def test_an_unknown_model_has_no_price(self) -> None:
        assert price("claude-nobody", Usage(1)) is None

    def test_an_answer_of_an_unknown_model_costs_what_was_asked_for(self) -> None:
        assert read_answer(message(model="claude-nobody"), MODEL).cost_usd == read_answer(message()).cost_usd
        assert read_answer(message(model="claude-nobody")).cost_usd is None

    def test_a_usage_that_contradicts_itself_costs_its_input(self) -> None:
        assert price(MODEL, Usage(100, 0, cached_tokens=300)) == pytest.approx(100 * 0.1 / 1e6)


@pytest.mark.parametrize(("tier", "share"), [(None, 1.0), ("batch", 0.5)])
def test_searches_are_priced_in_calls_and_batches_alike(tier: str | None, share: float) -> None:
    plain = price("claude-haiku-4-5", Usage(100, 20))
    one = price("claude-haiku-4-5", Usage(web_searches=1))
    body = {
        "type": "message",
        "model": "claude-haiku-4-5",
        "content": [{"type": "text", "text": "Found."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 100, "output_tokens": 20, "server_tool_use": {"web_search_requests": 4}},
    }
    answer = read_answer(json.dumps(body).encode(), tier=tier)
    assert plain is not None
    assert one is not None
    assert one > 0
    assert answer.cost_usd == pytest.approx(plain * share + 4 * one)
