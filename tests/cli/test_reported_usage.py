"""Implausible usage of a provider ruins no price and no estimate, and the documented queries work on any body."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from odd_server import Answer, OddServer
from projects import ProjectFolder
from test_wrong_setups import project

from bioforge.api import Client, Config, ProviderConfig
from bioforge.simulator import Simulator, SimulatorOptions, answers

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
MUCH = 2**53


def answer(endpoint: str, taken: int, given: int, more: str = "") -> Answer:
    if endpoint == CHAT:
        body: dict[str, object] = {"choices": [{"finish_reason": "stop", "message": {"content": "A life."}}]}
        usage = {"prompt_tokens": taken, "completion_tokens": given, "prompt_tokens_details": {"cached_tokens": 99}}
    else:
        part = {"type": "output_text", "text": "A life."}
        body = {"status": "completed", "output": [{"type": "message", "content": [part]}]}
        usage = {"input_tokens": taken, "output_tokens": given, "input_tokens_details": {"cached_tokens": 99}}
    text = json.dumps({"id": "r1", "model": "gpt-6-luna", **body, "usage": usage})
    return 200, {}, (text[:-1] + more + "}").encode()


@pytest.mark.parametrize("backend", ["async", "threads"])
@pytest.mark.parametrize("endpoint", [RESPONSES, CHAT])
@pytest.mark.parametrize(("taken", "given"), [(MUCH, 5), (10, MUCH), (10, 50_000)])
def test_implausible_usage_counts_as_unknown(
    tmp_path: Path, taken: int, given: int, endpoint: str, backend: str
) -> None:
    with OddServer(answer(endpoint, taken, given), answer(endpoint, 10, 5)) as server:
        folder = project(tmp_path, server, endpoint, rows=8)
        ran = folder.run("run", "--backend", backend)
        assert ran.code == 0, ran.err
        assert f"an answer reports {taken:,} input and {given:,} output tokens" in ran.err
        unknown = folder.rows("SELECT body FROM responses WHERE input_tokens IS NULL AND cost_usd IS NULL")
        assert [str(given if taken == 10 else taken) in body for (body,) in unknown] == [True]
        known = "SELECT DISTINCT input_tokens, output_tokens, cached_tokens, cost_usd < 0.001 FROM responses"
        assert folder.rows(f"{known} WHERE input_tokens IS NOT NULL") == [(10, 5, 10, 1)]
        assert folder.value("SELECT sum(cost_usd) FROM responses") < 0.01


def test_implausible_usage_in_a_batch_counts_as_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "output_limit", lambda body: None)
    monkeypatch.setattr(answers, "count_tokens", lambda text: 500_000)
    with Simulator(SimulatorOptions(batch_seconds=0)) as server:
        folder = ProjectFolder(tmp_path, server)
        folder.configure("[backend.batch]\npoll_seconds = 0.01")
        ran = folder.run("run", "--backend", "batch")
        assert ran.code == 0, ran.err
        assert ran.err.count("output tokens, which its request and size cannot have") == 1
        counted = "count(*) > 0, count(input_tokens), count(output_tokens), count(cost_usd)"
        assert folder.rows(f"SELECT {counted} FROM responses") == [(1, 0, 0, 0)]


def test_the_library_prices_by_plausible_usage_only() -> None:
    with OddServer(answer(RESPONSES, MUCH, MUCH)) as server:
        config = Config(provider=ProviderConfig(base_url=server.base_url, api_key="sk-test"), model="gpt-6-luna")
        with Client(config) as client:
            got = client.generate_sync("Björk")
    assert (got.text, got.cost_usd, got.usage.output_tokens) == ("A life.", None, 0)


def test_documented_queries_work_beside_bodies_that_are_no_json(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "state.md").read_text("utf-8")
    queries = [text for text in re.findall(r"```sql\n(.*?)```", page, re.DOTALL) if "json_extract" in text]
    bodies = [answer(RESPONSES, 10, 5, f', "temperature": {value}') for value in ("NaN", "-Infinity")]
    with OddServer(*bodies, answer(RESPONSES, 10, 5)) as server:
        folder = project(tmp_path, server, rows=6)
        folder.run("run", "--backend", "threads").ok()
        for query in queries:
            assert len(folder.rows(query)) == 4
        raw = [body.encode() for (body,) in folder.rows("SELECT body FROM responses ORDER BY json_valid(body)")]
    assert sorted(raw[:2]) == sorted(content for _, _, content in bodies), "as received"
