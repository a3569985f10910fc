"""Servers that refuse or misunderstand everything: few requests are sent, and the run says what to change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from odd_server import Answer, OddServer

from bioforge.testing import ProjectFolder

PAGE = (200, {"content-type": "text/html"}, b"<html><head><title>Log in to the Wi-Fi</title></head></html>")
STREAM = (200, {"content-type": "text/event-stream"}, b'data: {"choices": []}\n\ndata: [DONE]\n\n')
EMPTY = (200, {}, b"")
ANSWER = (
    200,
    {},
    json.dumps(
        {
            "id": "resp_1",
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "A life."}]}],
            "usage": {"input_tokens": 10, "output_tokens": 5},
        }
    ).encode(),
)


def error(status: int, message: str, **more: object) -> Answer:
    return status, {}, json.dumps({"error": {"message": message, **more}}).encode()


def project(root: Path, server: OddServer, endpoint: str = "/v1/responses", rows: int = 100) -> ProjectFolder:
    limit = "max_output_tokens" if endpoint == "/v1/responses" else "max_completion_tokens"
    lines = "".join(f"{number},Artist {number},painter\n" for number in range(rows))
    tables = {
        "project": {"name": "test"},
        "provider": {"base_url": server.base_url},
        "input": {"path": "artists.csv"},
        "recipe": {"bio": {"model": "m", "endpoint": endpoint, "input": "{{ artist_name }}", limit: 400}},
        "retry": {"first_delay": 0.001},
        "backend": {"concurrency": 32},
    }
    files = {"artists.csv": "artist_id,artist_name,artist_data\n" + lines}
    return ProjectFolder(root, server, files, tables)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["async", "threads"])
@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [(PAGE, ["text/html", "Log in to the Wi-Fi"]), (STREAM, ["text/event-stream", "data: {"]), (EMPTY, ["empty"])],
    ids=["page", "stream", "empty"],
)
def test_unreadable_answers_stop_the_run(
    tmp_path: Path, answer: Answer, words: list[str], endpoint: str, backend: str
) -> None:
    with OddServer(answer) as server:
        folder = project(tmp_path, server, endpoint)
        ran = folder.run("run", "--backend", backend)
        assert ran.code == 75, ran.err
        assert 15 <= len(server.asked) <= 15 + 31
        assert "unreadable answers in a row: " in ran.err
        assert all(word in ran.err for word in words), ran.err
        assert "login page" in ran.err
        assert folder.value("SELECT max(attempts) FROM requests") <= 2


@pytest.mark.parametrize("backend", ["async", "threads"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (error(404, "The model 'gpt-6-lunar' does not exist", code="model_not_found"), ["gpt-6-lunar", "check model"]),
        ((405, {}, b""), ["HTTP 405", "base_url"]),
        ((301, {"location": "https://api.example.org/v1/responses"}, b""), ["https://api.example.org/v1/responses"]),
        ((308, {"location": "/v2/responses"}, b""), ["redirected to /v2/responses", "set base_url"]),
        (error(400, "Unsupported parameter: 'max_output_tokens'"), ["Unsupported parameter"]),
    ],
)
def test_equal_refusals_stop_the_run(tmp_path: Path, answer: Answer, words: list[str], backend: str) -> None:
    with OddServer(answer) as server:
        ran = project(tmp_path, server).run("run", "--backend", backend)
        assert ran.code == 2, ran.err
        assert 10 <= len(server.asked) <= 10 + 31
        assert all(word in ran.err for word in words), ran.err
        assert "10 requests of recipe 'bio' were refused" in ran.err


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_a_forbidden_row_stops_nothing_after_an_answer(tmp_path: Path, backend: str) -> None:
    forbidden = error(403, "Forbidden")
    with OddServer(ANSWER, forbidden, ANSWER) as server:
        folder = project(tmp_path, server, rows=30)
        ran = folder.run("run", "--backend", backend)
        assert ran.code == 1, ran.err
        assert len(server.asked) == 30
        assert folder.value("SELECT count(*) FROM responses WHERE usable") == 29
        folder.run("run", "--backend", backend)
        assert len(server.asked) == 30, "the row is held back"
        assert folder.value("SELECT detail FROM targets WHERE held") == "row_refused: Forbidden"
        assert folder.run("run", "--backend", backend).code == 1
        assert len(server.asked) == 30
    with OddServer(forbidden) as server:
        folder = project(tmp_path / "other", server, rows=30)
        assert folder.run("run", "--backend", backend).code == 2
        assert len(server.asked) <= 2


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_a_limit_of_a_day_ends_the_run_with_the_time(tmp_path: Path, backend: str) -> None:
    headers = {
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "23h59m0s",
    }
    with OddServer((200, headers, ANSWER[2])) as server:
        ran = project(tmp_path, server).run("run", "--backend", backend)
        assert ran.code == 75, ran.err
        assert len(server.asked) == 1
        assert "the provider asks to wait 23 h 5" in ran.err
    with OddServer((429, {"retry-after": "999999999"}, b"{}")) as server:
        ran = project(tmp_path / "other", server).run("run", "--backend", backend)
        assert ran.code == 75, ran.err
        assert "the provider asks to wait 24 h" in ran.err


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_rate_limits_of_zero_slow_nothing_down(tmp_path: Path, backend: str) -> None:
    zeros = {f"x-ratelimit-{part}-{kind}": "0" for part in ("limit", "remaining") for kind in ("requests", "tokens")}
    with OddServer((200, zeros, ANSWER[2])) as server:
        ran = project(tmp_path, server, rows=20).run("run", "--backend", backend)
        assert ran.code == 0, ran.err
        assert "nothing is sent" not in ran.err
