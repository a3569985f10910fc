"""Export records: shortcuts for a million of them give what is given without them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filled_state import FilledState

from bioforge.core.hashing import canonical
from bioforge.store import Selection, Store, export

PLAIN = {"instructions": 'Say "x" \\ and more.', "max_output_tokens": 400, "model": "m"}
BODIES: list[dict[str, Any]] = [
    {"input": "one", **PLAIN},
    {"input": "two", **PLAIN},
    {"input": 'with "quotes" in it', **PLAIN},
    {"input": "three", **PLAIN},
    {"input": "ends with a backslash \\", **PLAIN},
    {"input": "", **PLAIN},
    {"input": "Björk \u2028 \n", **PLAIN},
    {"input": "four", **PLAIN, "max_output_tokens": 500},
    {"input": "five", **PLAIN, "model": "other"},
    {"input": 'six","instructions":"y","max_output_tokens":1,"model":"z', **PLAIN},
    {"input": "seven", **PLAIN, "reasoning": {"effort": "low"}},
    {"input": "eight", **PLAIN, "reasoning": {"effort": "high"}},
    {"input": [{"role": "user", "content": "nine"}], **PLAIN},
    {"background": True, "input": "ten", **PLAIN},
    {"messages": [{"content": "eleven", "role": "user"}], "model": "m"},
    {"model": "m", "prompt": {"id": "p", "version": "1", "variables": {"input": "twelve"}}},
    {"input": "thirteen", "model": "m", "prompt": {"id": "p", "variables": {"input": "thirteen"}}},
    {"input": "fourteen", **PLAIN},
]


def expected(digest: str, body: dict[str, Any]) -> dict[str, Any]:
    prompt = body.get("prompt") or {}
    found = {"hash": digest, "endpoint": "/v1/responses", "model": body.get("model"), "prompt_id": prompt.get("id")}
    found |= {"version": prompt.get("version"), "variables": prompt.get("variables")}
    found |= {key: value for key, value in body.items() if key not in ("instructions", "input", "messages", "prompt")}
    return {key: value for key, value in found.items() if value is not None}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[FilledState]:
    with Store.open(tmp_path / "state.db") as store:
        yield FilledState(store)


def ask(state: FilledState, number: int, body: dict[str, Any]) -> dict[str, Any]:
    """An answered target for an artist of its own; returns what its record has to say of the request."""
    digest = f"v1:{number:04}"
    text = canonical(body).decode()
    state.insert(
        "requests",
        request_hash=digest,
        endpoint="/v1/responses",
        body=text,
        state="answered",
        attempts=1,
        created_at=1.0,
    )
    state.answered(state.artist(str(number)), request_hash=digest, text=f"text {number}")
    return expected(digest, body)


@pytest.mark.parametrize("times", [1, 3])
def test_what_was_asked_is_told_of_every_body(state: FilledState, times: int) -> None:
    asked = [ask(state, number, body) for number, body in enumerate(BODIES * times)]
    found = [record["request"] for record in export.records(state.store, Selection())]
    assert found == asked
    assert [list(one) for one in found] == [list(one) for one in asked]  # type: ignore[call-overload]


@pytest.mark.parametrize("order", ["as they are exported", "backwards", "far apart"])
def test_requests_are_found_in_whichever_order_they_were_written(
    state: FilledState, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setattr(export, "_PAGE", 7)
    monkeypatch.setattr(export, "_NEAR", 2)
    numbers = list(range(60))
    numbers = {"backwards": numbers[::-1], "far apart": [n * 37 % 60 for n in numbers]}.get(order, numbers)
    with state.store.transaction() as connection:
        connection.executemany(
            "INSERT INTO requests (request_hash, endpoint, body, state, created_at)"
            " VALUES (?, '/v1/responses', ?, 'answered', 1)",
            [(f"v1:{n:04}", json.dumps({"model": f"m{n}"})) for n in numbers],
        )
    for n in range(60):
        state.answered(state.artist(f"{n:04}"), request_hash=f"v1:{n:04}")
    found = [record["request"] for record in export.records(state.store, Selection())]
    assert [one["model"] for one in found] == [f"m{n}" for n in range(60)]  # type: ignore[index]


def test_of_what_was_never_sent_nothing_is_told(state: FilledState) -> None:
    state.target(state.artist("1"), reason="failed", detail="template: 'x' is undefined")
    state.answered(state.artist("2"))
    first, second = export.records(state.store, Selection())
    assert first["error"] == {"class": "template", "code": None, "message": "'x' is undefined"}
    assert "request" not in first
    assert "request" not in second


def test_times_are_told_to_the_second(state: FilledState) -> None:
    for number, created in enumerate((0.0, 1.999, 1.9999999, 1_700_000_000.5)):
        state.answered(state.artist(str(number)), created_at=created)
    assert [record["created"] for record in export.records(state.store, Selection())] == [
        "1970-01-01T00:00:00+00:00", "1970-01-01T00:00:01+00:00", "1970-01-01T00:00:02+00:00", "2023-11-14T22:13:20+00:00",
    ]  # fmt: skip
