"""What a wrong request gets: OpenAI's error shape, with the status, code and parameter a client acts on."""

from __future__ import annotations

import openai
import pytest

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"
ASK = {"model": "m", "input": "Kobro"}
TALK = {"model": "m", "messages": [{"role": "user", "content": "Kobro"}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code"),
    [
        (RESPONSES, {"input": "x"}, 400, "model", "missing_required_parameter"),
        (RESPONSES, {"model": "m"}, 400, "input", "missing_required_parameter"),
        (RESPONSES, {"model": "m", "input": None}, 400, "input", "missing_required_parameter"),
        (CHAT, {"model": "m"}, 400, "messages", "missing_required_parameter"),
        (CHAT, {"messages": TALK["messages"]}, 400, "model", "missing_required_parameter"),
        (RESPONSES, {**ASK, "model": 7}, 400, "model", "invalid_type"),
        (RESPONSES, {**ASK, "model": "missing-1"}, 404, None, "model_not_found"),
        (RESPONSES, {**ASK, "input": 7}, 400, "input", "invalid_type"),
        (RESPONSES, {**ASK, "input": ["x"]}, 400, "input[0]", "invalid_type"),
        (RESPONSES, {**ASK, "temperature": "hot"}, 400, "temperature", "invalid_type"),
        (RESPONSES, {**ASK, "temperature": 3}, 400, "temperature", "decimal_above_max_value"),
        (RESPONSES, {**ASK, "top_p": -1}, 400, "top_p", "decimal_below_min_value"),
        (RESPONSES, {**ASK, "max_output_tokens": 1.5}, 400, "max_output_tokens", "invalid_type"),
        (RESPONSES, {**ASK, "max_output_tokens": True}, 400, "max_output_tokens", "invalid_type"),
        (RESPONSES, {**ASK, "max_output_tokens": 15}, 400, "max_output_tokens", "integer_below_min_value"),
        (RESPONSES, {**ASK, "max_tokens": 15}, 400, "max_tokens", "unsupported_parameter"),
        (RESPONSES, {**ASK, "metadata": {"a": 1}}, 400, "metadata.a", "invalid_type"),
        (RESPONSES, {**ASK, "stream": True}, 400, "stream", "unsupported_value"),
        (RESPONSES, {**ASK, "background": True}, 400, "background", "unsupported_value"),
        (RESPONSES, {**ASK, "service_tier": "best"}, 400, "service_tier", "invalid_value"),
        (RESPONSES, {**ASK, "prompt": "p"}, 400, "prompt", "invalid_type"),
        (RESPONSES, {"model": "m", "prompt": {}}, 400, "prompt.id", "missing_required_parameter"),
        (RESPONSES, {"prompt": {"id": "pmpt_missing"}}, 404, "prompt", "prompt_not_found"),
        (RESPONSES, {"prompt": {"id": "p", "variables": []}}, 400, "prompt.variables", "invalid_type"),
        (RESPONSES, {**ASK, "text": {"format": "json"}}, 400, "text.format", "invalid_type"),
        (RESPONSES, {**ASK, "text": {"format": {"type": "xml"}}}, 400, "text.format.type", "invalid_value"),
        (CHAT, {**TALK, "messages": []}, 400, "messages", "empty_array"),
        (CHAT, {**TALK, "messages": "x"}, 400, "messages", "invalid_type"),
        (CHAT, {**TALK, "messages": [{}]}, 400, "messages[0].role", "missing_required_parameter"),
        (CHAT, {**TALK, "messages": [{"role": "me"}]}, 400, "messages[0].role", "invalid_value"),
        (CHAT, {**TALK, "max_tokens": 0}, 400, "max_tokens", "integer_below_min_value"),
        (CHAT, {**TALK, "stream": True}, 400, "stream", "unsupported_value"),
        (CHAT, {**TALK, "response_format": {}}, 400, "response_format.type", "missing_required_parameter"),
    ],
)
def test_a_wrong_body_is_refused_by_name(raw, server, path, body, status, param, code):
    found, headers, answer = raw("POST", path, body)
    assert found == status
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert (answer["error"]["param"], answer["error"]["code"]) == (param, code)
    assert answer["error"]["type"] == "invalid_request_error"
    assert headers["x-request-id"].startswith("req_")
    assert len(server.ledger) == 0


@pytest.mark.parametrize("payload", [b"", b"{", b"[1]", b'"x"', b'{"a": NaN}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(raw, payload):
    status, _, answer = raw("POST", RESPONSES, payload)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"


def test_streaming_is_refused_in_words(raw):
    _, _, answer = raw("POST", RESPONSES, {**ASK, "stream": True})
    assert answer["error"]["message"] == "The simulator does not stream."


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "array"}, 'type: "object"\''),
        ({"type": "object", "properties": {}}, "'additionalProperties' is required"),
        (
            {"type": "object", "properties": {"a": {}}, "required": [], "additionalProperties": False},
            "Missing 'a'",
        ),
        ({"type": "object", "additionalProperties": False, "allOf": []}, "'allOf' is not permitted"),
        ({"type": "object", "additionalProperties": False, "properties": 7}, "not a JSON Schema"),
    ],
)
def test_a_strict_schema_must_be_strict(raw, schema, problem):
    wanted = {"type": "json_schema", "name": "bio", "schema": schema, "strict": True}
    status, _, answer = raw("POST", RESPONSES, {**ASK, "text": {"format": wanted}})
    assert status == 400
    assert answer["error"]["code"] == "invalid_json_schema"
    assert answer["error"]["param"] == "text.format.schema"
    assert problem in answer["error"]["message"]


def test_a_schema_without_a_value_is_refused(raw):
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "bio", "schema": endless}}
    status, _, answer = raw("POST", CHAT, {**TALK, "response_format": wanted})
    assert status == 400
    assert answer["error"]["param"] == "response_format.json_schema.schema"
    assert "no finite value" in answer["error"]["message"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic abc"}])
def test_a_key_is_needed(raw, headers):
    for method, path in (("POST", RESPONSES), ("GET", "/v1/models")):
        status, _, answer = raw(method, path, None, headers)
        assert status == 401
        assert answer["error"]["code"] == "invalid_api_key"


def test_a_key_can_be_wrong(server, connect):
    with pytest.raises(openai.AuthenticationError) as caught:
        connect(server, api_key="sk-invalid-123").responses.create(**ASK)
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/response", "/v1/responses/", "/v1/images", "/simulator/x"])
def test_an_unknown_path_is_not_found(raw, path):
    status, _, answer = raw("GET", path)
    assert status == 404
    assert answer["error"]["message"] == f"Invalid URL (GET {path})"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", RESPONSES, "POST"),
        ("PUT", CHAT, "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/responses/resp_1", "GET"),
        ("POST", "/simulator/ledger", "GET"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(raw, method, path, allowed):
    status, headers, answer = raw(method, path)
    assert status == 405
    assert headers["allow"] == allowed
    assert answer["error"]["type"] == "invalid_request_error"


def test_ten_megabytes_are_enough(raw, server):
    large = {"model": "m", "input": "x" * (10 * 1024 * 1024 - 100)}
    assert raw("POST", RESPONSES, large)[0] == 200
    large["input"] += "x" * 100
    status, _, answer = raw("POST", RESPONSES, large)
    assert status == 413
    assert answer["error"]["code"] == "request_too_large"
    assert len(server.ledger) == 1
