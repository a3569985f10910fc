"""A schema in a request of either endpoint, and the words that ask once more."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from typing import Any

import pytest
import requests

import bioforge.recipes.schema
from bioforge.backends.openai.wire import read_answer
from bioforge.core.hashing import canonical
from bioforge.recipes.schema import (
    SchemaError,
    Valid,
    from_document,
    in_written_order,
    repair_instructions,
    response_format,
)
from bioforge.recipes.schema.request import PARAMETERS
from bioforge.simulator import Simulator

BIO = from_document(
    {
        "type": "object",
        "properties": {
            "works": {"type": "array", "items": {"$ref": "#/$defs/work"}},
            "name": {"type": "string"},
            "properties": {"anyOf": [{"type": "object", "properties": {"z": {"type": "null"}, "a": {"type": "null"}}}]},
            "required": {"type": "string"},
        },
        "required": ["works", "name", "required"],
        "$defs": {"work": {"type": "object", "properties": {"year": {"type": "integer"}, "title": {"type": "string"}}}},
    },
    "schemas/bio.json",
)


def test_the_parameter_has_the_shape_of_its_endpoint() -> None:
    assert response_format(BIO, "/v1/responses") == {
        "format": {"type": "json_schema", "name": "bio", "schema": BIO.generation, "strict": True}
    }
    assert response_format(BIO, "/v1/chat/completions") == {
        "type": "json_schema",
        "json_schema": {"name": "bio", "schema": BIO.generation, "strict": True},
    }


def test_the_endpoints_of_other_vendors_are_given_what_responses_takes() -> None:
    assert response_format(BIO, "/v1/messages") == response_format(BIO, "/v1/responses")


@pytest.mark.parametrize("endpoint", PARAMETERS)
def test_a_canonical_body_gets_the_order_of_its_properties_back(endpoint: str) -> None:
    body = {"model": "m", "input": "x", PARAMETERS[endpoint]: response_format(BIO, endpoint)}
    stored: dict[str, Any] = json.loads(canonical(body))
    assert json.dumps(stored) != json.dumps(body)
    restored = in_written_order(stored)
    assert restored == body

    def orders(value: Any) -> list[list[str]]:
        if isinstance(value, list):
            return [order for item in value for order in orders(item)]
        if not isinstance(value, dict):
            return []
        own = [list(value["properties"])] if isinstance(value.get("required"), list) else []
        return own + [order for name in sorted(value) for order in orders(value[name])]

    assert orders(restored) == orders(body)
    assert ["works", "name", "properties", "required"] in orders(restored)


def test_a_body_without_a_schema_stays_as_it_is() -> None:
    body = {
        "model": "m",
        "text": {"verbosity": "low"},
        "metadata": {"properties": {"b": 1, "a": 2}, "required": ["a", "b"]},
    }
    assert json.dumps(in_written_order(body)) == json.dumps(body)


def test_a_repair_names_what_was_wrong_and_where() -> None:
    errors = [SchemaError("works[2].year", 'expected integer, found "1900s"'), SchemaError("", "nobody is no artist")]
    assert repair_instructions(errors) == (
        "Your previous answer did not fit the required JSON schema:\n"
        '- works[2].year: expected integer, found "1900s"\n'
        "- nobody is no artist\n"
        "Answer the same request again with the complete, corrected JSON, and with nothing before or after it."
    )


@pytest.mark.parametrize("endpoint", PARAMETERS)
def test_the_embedded_server_takes_it_and_answers_by_it(server: Simulator, endpoint: str) -> None:
    asked = {"input": "Klee"} if endpoint == "/v1/responses" else {"messages": [{"role": "user", "content": "Klee"}]}
    body = {"model": "m", **asked, PARAMETERS[endpoint]: response_format(BIO, endpoint)}
    response = requests.post(
        server.base_url.removesuffix("/v1") + endpoint, json=body, headers={"Authorization": "Bearer any"}, timeout=10
    )
    assert response.status_code == 200, response.text
    answer = read_answer(endpoint, response.content)
    assert answer.text is not None
    verdict = BIO.validate(answer.text)
    assert isinstance(verdict, Valid), verdict
    assert [name for name in verdict.parsed if name != "properties"] == ["works", "name", "required"]


def test_every_public_name_is_there() -> None:
    assert sorted(bioforge.recipes.schema.__all__) == [
        "Invalid",
        "PARAMETERS",
        "Schema",
        "SchemaError",
        "Valid",
        "from_document",
        "from_model",
        "in_written_order",
        "load_schema",
        "parameter",
        "repair_instructions",
        "response_format",
    ]
    assert all(
        hasattr(importlib.import_module("bioforge.recipes.schema"), name) for name in bioforge.recipes.schema.__all__
    )


def test_importing_it_loads_neither_pydantic_nor_jsonschema() -> None:
    heavy = "{'pydantic', 'jsonschema', 'jsonschema_rs', 'referencing'}"
    code = f"import sys, bioforge.recipes.schema; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
