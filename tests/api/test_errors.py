"""Every error has a class to catch, a message, and the facts that a program decides by."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest
from odd_server import OddServer

from bioforge.api import (
    BadArgument,
    BioforgeError,
    Client,
    Config,
    GenerationError,
    Item,
    RefusedError,
    RetryConfig,
    SchemaValidationError,
    TransportError,
    TruncatedError,
    UnusableError,
)
from bioforge.core import errors
from bioforge.simulator import Simulator, SimulatorOptions

from .clients import Never, configured


def error_of(fault: str, retry: RetryConfig | None = None, **options: Any) -> GenerationError:
    """Return the error of a call whose every attempt meets a fault."""
    retry = retry or RetryConfig(first_delay=0.0, max_delay=0.0, max_attempts=2)
    with (
        Simulator(SimulatorOptions(script=lambda body, number: fault, retry_after=0.01, **options)) as server,
        Client(configured(server, retry=retry)) as client,
        pytest.raises(GenerationError) as caught,
    ):
        client.generate_sync("x")
    return caught.value


class TestTransport:
    @pytest.mark.parametrize(
        ("fault", "status", "error_class", "attempts", "maybe_paid"),
        [
            ("bad_request", 400, "bad_request", 1, False),
            ("rate_limit_bare", 429, "rate_limit", 2, False),
            ("server_error", 500, "server_error", 2, False),
            ("drop_before", None, "connection", 2, True),
            ("drop_after", None, "connection", 2, True),
            ("truncated", 200, "truncated_body", 2, True),
            ("malformed", 200, "malformed", 2, True),
        ],
    )
    def test_no_answer(self, fault: str, status: int | None, error_class: str, attempts: int, maybe_paid: bool) -> None:
        error = error_of(fault)
        assert type(error) is TransportError
        assert (error.status_code, error.error_class, error.maybe_paid) == (status, error_class, maybe_paid)
        assert error.attempts == attempts
        assert error.request_hash.startswith("v1:")
        assert ("HTTP" in str(error)) == (status is not None)
        assert error.exit_code == 1

    def test_retry_after_is_reported(self) -> None:
        error = error_of("rate_limit")
        assert isinstance(error, TransportError)
        assert error.retry_after == pytest.approx(0.01)
        assert error.code == "rate_limit_exceeded"
        assert error.request_id is not None

    def test_an_unreachable_server(self) -> None:
        with Client(configured("http://127.0.0.1:9/v1")) as client, pytest.raises(TransportError) as caught:
            client.generate_sync("x", max_attempts=1)
        assert (caught.value.status_code, caught.value.maybe_paid) == (None, False)
        assert caught.value.error_class == "connection"


class TestUnusable:
    @pytest.mark.parametrize(
        ("fault", "kind", "error_class"),
        [
            ("incomplete", TruncatedError, "truncated"),
            ("refusal", RefusedError, "refusal"),
            ("content_filter", RefusedError, "content_filter"),
        ],
    )
    def test_an_answer_that_cannot_be_used(self, fault: str, kind: type[UnusableError], error_class: str) -> None:
        error = error_of(fault)
        assert type(error) is kind
        assert isinstance(error, UnusableError)
        assert error.error_class == error_class
        assert error.cost_usd is not None
        assert error.cost_usd > 0
        assert (error.raw_output == "") == (fault == "refusal")
        assert error.attempts == 1

    def test_an_answer_that_does_not_fit(self, server: Simulator) -> None:
        with Client(configured(server)) as client, pytest.raises(SchemaValidationError) as caught:
            client.generate_sync("x", schema=Never)
        error = caught.value
        assert error.schema_name == "Never"
        assert [(fault.path, fault.message) for fault in error.errors] == [("summary", "never good enough")]
        assert error.raw_output.startswith('{"summary"')
        assert str(error) == "the answer does not fit Never: summary: never good enough"
        assert "repair=True" in error.hint
        assert not error.repaired
        assert error.error_class == "schema"

    def test_an_answer_without_text_is_unusable(self) -> None:
        empty = b'{"id": "resp_1", "status": "completed", "model": "m", "output": []}'
        with (
            OddServer((200, {}, empty)) as server,
            Client(configured(server.base_url)) as client,
            pytest.raises(UnusableError, match="no text") as caught,
        ):
            client.generate_sync("x")
        assert type(caught.value) is UnusableError
        assert caught.value.cost_usd is None


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"prompt": ""}, "prompt: it is empty"),
            ({"prompt": " \n"}, "prompt: expected text, found only white space"),
            ({"prompt": 7}, "prompt: expected text, found 7"),
            ({"prompt": ["x"]}, "prompt: expected text, found list"),
            ({"model": ""}, "model: expected the name of a model, found ''"),
            ({"model": 5}, "model: expected the name of a model, found 5"),
            ({"instructions": b"x"}, "instructions: expected text, found bytes"),
            ({"endpoint": "/v1/embeddings"}, "endpoint: expected '/v1/responses' or '/v1/chat/completions'"),
            ({"temperature": -0.1}, "temperature: expected a number from 0, found -0.1"),
            ({"temperature": True}, "temperature: expected a number from 0, found True"),
            ({"temperature": float("nan")}, "temperature: expected a number from 0, found nan"),
            ({"max_output_tokens": 0}, "max_output_tokens: expected a whole number from 1, found 0"),
            ({"max_output_tokens": 1.5}, "max_output_tokens: expected a whole number from 1, found 1.5"),
            ({"max_attempts": 0}, "max_attempts: expected a whole number from 1, found 0"),
            ({"max_attempts": "3"}, "max_attempts: expected a whole number from 1, found '3'"),
            ({"schema": int}, "schema: expected a pydantic model, a JSON Schema or its path, found a int class"),
            ({"schema": ""}, "schema: expected a pydantic model"),
            ({"parameters": ["top_p"]}, "parameters: expected a mapping of names, found list"),
            ({"parameters": {"stream": True}}, "parameters: 'stream' is not allowed here: answers are stored whole"),
            ({"parameters": {"messages": []}}, "parameters: 'messages' is not allowed here: use the prompt"),
            ({"parameters": {"temprature": 1}}, "parameters: unknown 'temprature'; did you mean 'temperature'?"),
            ({"temperature": 1, "parameters": {"temperature": 2}}, "temperature: given twice"),
            ({"parameters": {"top_p": {1, 2}}}, "parameters: cannot be sent as JSON"),
            ({"parameters": {"top_p": float("inf")}}, "parameters: cannot be sent as JSON"),
        ],
    )
    def test_a_bad_argument_is_a_value_error_that_names_it(self, options: Any, message: str) -> None:
        with Client(Config(model="gpt-6-luna")) as client:
            with pytest.raises(ValueError, match=re.escape(message)) as caught:
                client.generate_sync(**{"prompt": "x", **options})
            assert not client._worker.running, "nothing was begun for it"
        assert isinstance(caught.value, BadArgument)

    def test_a_missing_model_has_a_hint(self) -> None:
        with Client() as client, pytest.raises(ValueError, match="found nothing") as caught:
            client.generate_sync("x")
        assert "OPENAI_MODEL" in caught.value.hint  # type: ignore[attr-defined]

    def test_an_unknown_option_is_a_type_error(self) -> None:
        with Client(Config(model="gpt-6-luna")) as client, pytest.raises(TypeError, match="temprature"):
            client.generate_sync("x", temprature=0.2)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="temprature"):
            Item("x", temprature=0.2)  # type: ignore[call-arg]


def every_error() -> list[type[BioforgeError]]:
    return [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BioforgeError)]


def test_the_documented_error_tree_is_complete() -> None:
    drawn: list[tuple[int, str]] = [
        (len(found[1]) // 2, found[2])
        for found in re.finditer(r"^( *)([A-Z]\w+)(?= |$)", errors.__doc__ or "", re.MULTILINE)
        if hasattr(errors, found[2])
    ]
    parents: list[str] = []
    seen = {}
    for depth, name in drawn:
        parents[depth:] = [name]
        seen[name] = parents[depth - 1] if depth else "Exception"
    assert seen == {kind.__name__: kind.__mro__[1].__name__ for kind in every_error()}


@pytest.mark.parametrize("kind", every_error())
def test_every_error_can_be_copied_and_pickled(kind: type[BioforgeError]) -> None:
    error = kind("what was found", "what to do")
    error.__dict__["attempts"] = 3
    for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(same) is kind
        assert str(same) == "what was found"
        assert vars(same) == vars(error)
