"""Fees of web searches: read from answers of both endpoints, priced, and reserved before a request is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bioforge.backends.base import largest_usage
from bioforge.backends.openai.prices import price
from bioforge.backends.openai.wire import CHAT, RESPONSES, read_answer
from bioforge.core.types import Usage
from bioforge.recipes.tokens import web_searches

from .bench import requests

MODEL = "gpt-6-luna"
SEARCH = {"type": "web_search_call", "action": {"type": "search"}}
OPENED = {"type": "web_search_call", "action": {"type": "open_page"}}
FEE = (price(MODEL, Usage(web_searches=1)) or 0.0) - (price(MODEL, Usage()) or 0.0)


def responses(*items: dict[str, Any]) -> dict[str, Any]:
    message = {"type": "message", "content": [{"type": "output_text", "text": "Found."}]}
    usage = {"input_tokens": 100, "output_tokens": 20}
    return {"status": "completed", "model": MODEL, "output": [*items, message], "usage": usage}


def chat(**changes: Any) -> dict[str, Any]:
    message = {"content": "Found.", "annotations": [{"type": "url_citation"}, {"type": "url_citation"}]}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, **changes}
    return {"model": MODEL, "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


@pytest.mark.parametrize(
    ("endpoint", "body", "searches"),
    [
        (RESPONSES, responses(), 0),
        (RESPONSES, responses(SEARCH, OPENED, SEARCH, {"type": "web_search_call"}), 3),
        (CHAT, chat(), 1),
        (CHAT, chat(server_tool_use={"web_search_requests": 4}), 4),
    ],
)
def test_searches_of_an_answer_are_priced(endpoint: str, body: dict[str, Any], searches: int) -> None:
    answer = read_answer(endpoint, json.dumps(body).encode(), MODEL, price)
    assert answer.usage == Usage(100, 20, web_searches=searches)
    assert FEE > 0
    assert answer.cost_usd == pytest.approx((price(MODEL, Usage(100, 20)) or 0.0) + searches * FEE)


@pytest.mark.parametrize(
    ("parameters", "searches", "limited"),
    [
        ({}, 0, True),
        ({"tools": [{"type": "function"}]}, 0, True),
        ({"tools": [{"type": "web_search"}]}, 1, False),
        ({"tools": [{"type": "web_search"}], "max_tool_calls": 4}, 4, True),
        ({"tools": [{"type": "web_search_20250305", "max_uses": 2}]}, 2, True),
        ({"web_search_options": {}}, 1, True),
        ({"tools": "odd"}, 0, True),
    ],
)
def test_searches_of_a_request_are_reserved(parameters: dict[str, Any], searches: int, limited: bool) -> None:
    assert web_searches(parameters) == (searches, limited)
    (request,) = requests(1, **parameters)
    assert largest_usage(request).web_searches == searches
