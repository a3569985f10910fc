"""Batches over the socket: created, refused, validated, executed, cancelled, charged, and found again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import openai
import pytest
import requests

from bioforge.simulator import Simulator, SimulatorOptions
from bioforge.simulator.batch_input import MAX_ERRORS, MAX_LINES

from .batching import ENDPOINT, body, chat, ids, lines, results, run, submit, watch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(start):
    """A simulator whose batches are completed as soon as they can be."""
    return start(batch_seconds=0)


def described(server):
    return requests.get(f"{server.url}/simulator/batches").json()


# ---------------------------------------------------------------------------------------------------------- the life


def test_a_batch_answers_every_line_and_charges_it_once(server, client):
    batch = run(client, 100)
    assert (batch.status, batch.model, batch.error_file_id) == ("completed", "gpt-6-luna", None)
    answers = results(client, batch.output_file_id)
    assert ids(answers) == [f"r-{number}" for number in range(100)]
    charges = server.ledger.entries()
    assert [charge.custom_id for charge in charges] == ids(answers)
    assert {charge.service_tier for charge in charges} == {"batch"}
    assert {charge.batch_id for charge in charges} == {batch.id}
    assert {charge.client_request_id for charge in charges} == {None}
    assert [charge.request_id for charge in charges] == [line["response"]["request_id"] for line in answers]
    assert [charge.response_id for charge in charges] == [line["response"]["body"]["id"] for line in answers]


def test_a_result_has_the_shape_of_the_api(client):
    batch = run(client, lines([body("Kobro"), body("Absalon", temperature=9)]))
    (answer,) = results(client, batch.output_file_id)
    assert list(answer) == ["id", "custom_id", "response", "error"]
    assert list(answer["response"]) == ["status_code", "request_id", "body"]
    assert answer["response"]["status_code"] == 200
    assert answer["error"] is None
    assert answer["response"]["body"]["object"] == "response"
    (failure,) = results(client, batch.error_file_id)
    assert failure["custom_id"] == "r-1"
    assert failure["response"]["status_code"] == 400
    assert failure["response"]["body"]["error"]["param"] == "temperature"
    assert failure["error"] is None
    assert answer["id"] != failure["id"]


def test_the_answers_are_those_of_the_endpoint(client):
    batch = run(client, lines([body("Kobro")]))
    (answer,) = results(client, batch.output_file_id)
    realtime = client.responses.create(**body("Kobro"))
    words = "".join(
        part["text"]
        for item in answer["response"]["body"]["output"]
        if item["type"] == "message"
        for part in item["content"]
    )
    assert words == realtime.output_text


def test_chat_completions_are_answered_too(server, client):
    endpoint = "/v1/chat/completions"
    batch = run(client, lines([chat("Kobro"), chat("Absalon")], endpoint), endpoint=endpoint)
    answers = results(client, batch.output_file_id)
    assert [line["response"]["body"]["object"] for line in answers] == ["chat.completion"] * 2
    assert {charge.endpoint for charge in server.ledger.entries()} == {endpoint}


def test_usage_is_the_sum_of_the_answers(server, client):
    batch = run(client, 50)
    used = [line["response"]["body"]["usage"] for line in results(client, batch.output_file_id)]
    assert batch.usage.input_tokens == sum(usage["input_tokens"] for usage in used)
    assert batch.usage.output_tokens == sum(usage["output_tokens"] for usage in used)
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens
    assert batch.usage.output_tokens_details.reasoning_tokens == sum(
        usage["output_tokens_details"]["reasoning_tokens"] for usage in used
    )
    assert batch.usage.input_tokens_details.cached_tokens == 0
    totals = server.ledger.totals()
    assert (totals.input_tokens, totals.output_tokens) == (batch.usage.input_tokens, batch.usage.output_tokens)


def test_a_new_batch_is_validating_and_knows_its_order(server, client):
    batch = submit(client, 3, metadata={"intent": "i-1"})
    assert (batch.object, batch.status, batch.endpoint) == ("batch", "validating", ENDPOINT)
    assert (batch.completion_window, batch.metadata) == ("24h", {"intent": "i-1"})
    assert batch.expires_at - batch.created_at == 86_400
    assert batch.request_counts.model_dump() == {"total": 0, "completed": 0, "failed": 0}
    unset = ("model", "errors", "output_file_id", "error_file_id", "in_progress_at", "completed_at", "usage")
    assert [getattr(batch, name) for name in unset] == [None] * len(unset)
    assert server.ledger.batches.created == 1


def test_a_completed_batch_tells_when_what_happened(client):
    batch = run(client, 3)
    moments = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]
    assert moments == sorted(moments)
    assert (batch.failed_at, batch.expired_at, batch.cancelling_at, batch.cancelled_at) == (None,) * 4
    assert batch.request_counts.model_dump() == {"total": 3, "completed": 3, "failed": 0}


def test_lines_come_one_after_the_other(start, connect):
    client = connect(start(batch_seconds=0.5))
    batch = submit(client, 40)
    seen = [(batch.status, 0)]
    while batch.status != "completed":
        batch = client.batches.retrieve(batch.id)
        seen.append((batch.status, batch.request_counts.completed))
    order = ["validating", "in_progress", "finalizing", "completed"]
    assert seen == sorted(seen, key=lambda look: (order.index(look[0]), look[1]))
    assert len({count for _, count in seen}) > 3


def test_all_lines_failed_is_completed_without_an_output_file(client):
    batch = run(client, lines([body("a", temperature=9), body("b", temperature=9)]))
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert batch.request_counts.model_dump() == {"total": 2, "completed": 0, "failed": 2}
    assert len(results(client, batch.error_file_id)) == 2


def test_result_files_are_files_like_others(client):
    expiry = {"anchor": "created_at", "seconds": 7200}
    batch = run(client, lines([body("a"), body("b", temperature=9)]), output_expires_after=expiry)
    for file_id, name in ((batch.output_file_id, "output"), (batch.error_file_id, "error")):
        file = client.files.retrieve(file_id)
        assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_{name}.jsonl")
        assert file.expires_at - file.created_at == 7200
    assert len(client.files.list(purpose="batch_output").data) == 2
    client.files.delete(batch.output_file_id)
    assert client.batches.retrieve(batch.id).output_file_id == batch.output_file_id


def test_an_input_file_deleted_early_is_not_missed(start, connect):
    client = connect(start(batch_seconds=0.2))
    batch = submit(client, 5)
    client.files.delete(batch.input_file_id)
    batch = watch(client, batch)
    assert len(results(client, batch.output_file_id)) == 5


def test_faults_of_requests_meet_lines_too(start, connect):
    script = {
        "Absalon": ["rate_limit"],
        "Kobro": ["server_error"],
        "Malevich": ["drop_before"],
        "Popova": ["truncated"],
        "Rodchenko": ["refusal"],
        "Stepanova": ["incomplete"],
    }
    server = start(batch_seconds=0, script=script)
    client = connect(server)
    batch = run(client, lines([body(name) for name in script]))
    failed = {line["custom_id"]: line for line in results(client, batch.error_file_id)}
    assert [failed[name]["response"] and failed[name]["response"]["status_code"] for name in failed] == [429, 500, None]
    assert failed["r-2"]["error"]["code"] == "request_timeout"
    assert ids(results(client, batch.output_file_id)) == ["r-3", "r-4", "r-5"]
    assert [charge.delivered for charge in server.ledger.entries()] == ["yes"] * 3
    again = run(client, lines([body(name) for name in script]))
    assert again.request_counts.completed == 6, "the second try of a body draws anew"


def test_a_script_that_breaks_breaks_its_line_only(start, connect):
    def script(asked, occurrence):
        if asked["input"] == "Kobro":
            raise LookupError("no such artist")

    client = connect(start(batch_seconds=0, script=script))
    batch = run(client, lines([body("Absalon"), body("Kobro")]))
    (failure,) = results(client, batch.error_file_id)
    assert "no such artist" in failure["response"]["body"]["error"]["message"]
    assert batch.request_counts.completed == 1


def test_a_quota_ends_in_the_middle_of_a_batch(start, connect):
    server = start(batch_seconds=0, quota_after=7)
    client = connect(server)
    batch = run(client, 10)
    assert batch.request_counts.model_dump() == {"total": 10, "completed": 7, "failed": 3}
    assert {line["response"]["body"]["error"]["code"] for line in results(client, batch.error_file_id)} == {
        "insufficient_quota"
    }
    with pytest.raises(openai.RateLimitError) as caught:
        submit(client, 1)
    assert caught.value.code == "insufficient_quota"
    assert len(server.ledger) == 7


def test_several_batches_are_worked_on_at_once(server, client):
    made = [submit(client, 300) for _ in range(5)]
    for batch in made:
        assert watch(client, batch).request_counts.completed == 300
    assert len(server.ledger) == 1500
    assert Counter(charge.batch_id for charge in server.ledger.stream()) == {batch.id: 300 for batch in made}


def test_requests_are_answered_while_lines_are(server, client):
    batch = submit(client, lines([body("a sculptor " * 50)] * 5000))
    answered = 0
    while client.batches.retrieve(batch.id).status != "completed":
        client.responses.create(**body(f"Artist {answered}"))
        answered += 1
    assert answered > 1


# ------------------------------------------------------------------------------------------------------------- lists


def test_batches_are_listed_newest_first_in_pages(client):
    made = [submit(client, 1, metadata={"n": str(number)}).id for number in range(5)]
    page = client.batches.list(limit=2)
    assert [batch.id for batch in page.data] == [made[4], made[3]]
    assert page.has_more
    assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1], "the SDK turns the pages itself"
    last = client.batches.list(limit=100, after=made[1])
    assert ([batch.id for batch in last.data], last.has_more) == ([made[0]], False)
    assert last.data[0].metadata == {"n": "0"}


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x"])
def test_pages_have_one_to_a_hundred_entries(raw, query):
    status, _, found = raw("GET", f"/v1/batches?{query}")
    assert (status, found["error"]["param"]) == (400, "limit")


def test_the_simulator_tells_all_batches_with_their_lines(server, client):
    batch = run(client, lines([body("a"), body("b", temperature=9)]))
    (told,) = described(server)
    assert told["id"] == batch.id
    assert told["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert {name: told["lines"][name] for name in ("total", "entries", "completed", "failed", "missing")} == {
        "total": 2,
        "entries": 2,
        "completed": 1,
        "failed": 1,
        "missing": 0,
    }
    assert requests.get(f"{server.url}/simulator/ledger").json()["batches"] == {"created": 1, "uploads": 1}


def test_without_batches_there_is_an_empty_list(server):
    assert described(server) == []


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("order", "status", "param"),
    [
        ({"input_file_id": None}, 400, "input_file_id"),
        ({"input_file_id": 7}, 400, "input_file_id"),
        ({"input_file_id": "file-0"}, 404, "input_file_id"),
        ({"endpoint": None}, 400, "endpoint"),
        ({"endpoint": "/v1/models"}, 400, "endpoint"),
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"completion_window": None}, 400, "completion_window"),
        ({"completion_window": "48h"}, 400, "completion_window"),
        ({"metadata": []}, 400, "metadata"),
        ({"metadata": {str(number): "" for number in range(17)}}, 400, "metadata"),
        ({"metadata": {"k" * 65: ""}}, 400, "metadata"),
        ({"metadata": {"k": "v" * 513}}, 400, "metadata.k"),
        ({"metadata": {"k": 1}}, 400, "metadata.k"),
        ({"output_expires_after": "soon"}, 400, "output_expires_after"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 10}}, 400, "output_expires_after.seconds"),
    ],
)
def test_an_order_that_cannot_be_meant_is_refused(server, client, raw, order, status, param):
    file = client.files.create(file=("a.jsonl", lines(1)), purpose="batch")
    good = {"input_file_id": file.id, "endpoint": ENDPOINT, "completion_window": "24h"}
    found, _, answer = raw("POST", "/v1/batches", {**good, **order})
    assert (found, answer["error"]["param"]) == (status, param)
    assert (described(server), server.ledger.batches.created) == ([], 0)


def test_the_largest_metadata_is_kept(client):
    metadata = {f"{number:064}": "v" * 512 for number in range(16)}
    assert submit(client, 1, metadata=metadata).metadata == metadata


def test_a_file_for_something_else_is_refused(client):
    file = client.files.create(file=("a.jsonl", lines(1)), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="purpose 'user_data'"):
        client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")


def test_only_so_many_batches_are_created_in_an_hour(start, connect):
    server = start(batch_creations_per_hour=2)
    client = connect(server)
    submit(client, 1)
    submit(client, 1)
    with pytest.raises(openai.RateLimitError, match="Limit 2") as caught:
        submit(client, 1)
    assert caught.value.code == "rate_limit_exceeded"
    assert server.ledger.counts.faults == {"limit": 1}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/batches/batch_0", 404),
        ("POST", "/v1/batches/batch_0/cancel", 404),
        ("GET", "/v1/batches/batch_0/cancel", 405),
        ("POST", "/v1/batches/batch_0", 405),
        ("DELETE", "/v1/batches", 405),
        ("GET", "/v1/batches/batch_0/lines", 404),
    ],
)
def test_other_methods_and_paths_are_refused(raw, method, path, status):
    assert raw(method, path)[0] == status


# -------------------------------------------------------------------------------------------------------- validation


def task(place=0, **changes):
    made = {"custom_id": f"r-{place}", "method": "POST", "url": ENDPOINT, "body": body("Kobro"), **changes}
    return json.dumps({name: value for name, value in made.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("second", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b"", "invalid_json_line", None),
        (b'{"n": NaN}', "invalid_json_line", None),
        (b"\xff", "invalid_json_line", None),
        (task(0), "duplicate_custom_id", "custom_id"),
        (task(1, custom_id=...), "missing_required_parameter", "custom_id"),
        (task(1, custom_id=""), "missing_required_parameter", "custom_id"),
        (task(1, custom_id=5), "missing_required_parameter", "custom_id"),
        (task(1, custom_id="x" * 65), "string_above_max_length", "custom_id"),
        (task(1, method="GET"), "invalid_method", "method"),
        (task(1, url="/v1/chat/completions"), "url_mismatch", "url"),
        (task(1, url=...), "url_mismatch", "url"),
        (task(1, body=...), "missing_required_parameter", "body"),
        (task(1, body=body("Kobro", "gpt-6.1-terra")), "model_mismatch", "body.model"),
        (task(1, body=body("Kobro", stream=True)), "unsupported_parameter", "body.stream"),
    ],
)
def test_a_wrong_line_fails_the_batch_and_is_named(server, client, second, code, param):
    batch = run(client, task(0) + b"\n" + second + b"\n")
    assert batch.status == "failed"
    assert batch.errors.object == "list"
    (error,) = batch.errors.data
    assert (error.code, error.line, error.param) == (code, 2, param)
    assert error.message
    assert (batch.output_file_id, batch.error_file_id, batch.failed_at is None) == (None, None, False)
    assert len(server.ledger) == 0


def test_every_wrong_line_is_named(client):
    batch = run(client, b"{\n" + task(1) + b"\n" + task(1, method="PUT") + b"\n")
    assert [(error.code, error.line) for error in batch.errors.data] == [
        ("invalid_json_line", 1),
        ("duplicate_custom_id", 3),
        ("invalid_method", 3),
    ]


def test_not_more_errors_are_told_than_anybody_reads(client):
    assert len(run(client, b"{\n" * 1000).errors.data) == MAX_ERRORS


def test_an_empty_file_fails(client):
    (error,) = run(client, b"").errors.data
    assert (error.code, error.line) == ("empty_file", None)


def test_the_last_line_needs_no_end(client):
    assert run(client, lines(2).rstrip()).request_counts.completed == 2


def test_a_batch_has_at_most_fifty_thousand_lines(client):
    short = [{"model": "m", "input": "a"}] * (MAX_LINES + 1)
    (error,) = run(client, lines(short)).errors.data
    assert (error.code, error.line) == ("too_many_tasks", None)


# ------------------------------------------------------------------------------------------------------ token limits

LIMITED = (
    "Enqueued token limit reached for gpt-6-luna in organization org-simulator. "
    "Limit: 1,000 enqueued tokens. Please try again once some in_progress batches have been completed."
)
HALF = lines([body("x" * 2400)])
"""600 tokens."""


def test_tokens_are_limited_over_all_batches_of_a_model(start, connect):
    server = start(batch_enqueued_tokens=1000, batch_script=["stuck"], batch_seconds=0)
    client = connect(server)
    first = submit(client, HALF)
    refused = run(client, HALF)
    (error,) = refused.errors.data
    assert (refused.status, error.code, error.line, error.message) == ("failed", "token_limit_exceeded", None, LIMITED)
    other = run(client, lines([body("x" * 2400, "gpt-6.1-terra")]))
    assert other.status == "completed"
    client.batches.cancel(first.id)
    assert watch(client, first).status == "cancelled"
    assert run(client, HALF).status == "completed"


def test_the_refusal_can_come_at_once(start, connect, tmp_path):
    options = {"batch_enqueued_tokens": 1000, "batch_script": ["stuck"], "batch_token_refusal": "create"}
    server = start(data=tmp_path, **options)
    client = connect(server)
    submit(client, HALF)
    with pytest.raises(openai.BadRequestError) as caught:
        submit(client, HALF)
    assert (caught.value.code, caught.value.body["message"]) == ("token_limit_exceeded", LIMITED)
    assert len(described(server)) == server.ledger.batches.created == 1
    assert len(list((tmp_path / "batches").glob("*.input"))) == 1


def test_another_mistake_is_still_found_later(start, connect):
    client = connect(start(batch_enqueued_tokens=1000, batch_token_refusal="create", batch_seconds=0))
    assert run(client, b"{\n").errors.data[0].code == "invalid_json_line"


# ---------------------------------------------------------------------------------------------------------- cancelling


def test_a_cancelled_batch_returns_what_was_finished(start, connect):
    server = start(batch_seconds=1)
    client = connect(server)
    batch = submit(client, 200)
    while batch.request_counts.completed < 20:
        batch = client.batches.retrieve(batch.id)
    cancelled = client.batches.cancel(batch.id)
    assert cancelled.status == "cancelling"
    assert cancelled.cancelling_at is not None
    batch = watch(client, batch)
    assert (batch.status, batch.completed_at) == ("cancelled", None)
    assert batch.cancelled_at >= batch.cancelling_at
    answers, rest = results(client, batch.output_file_id), results(client, batch.error_file_id)
    assert sorted(ids(answers) + ids(rest)) == sorted(f"r-{number}" for number in range(200))
    assert len(answers) >= 20
    assert rest[0]["response"] is None
    assert {line["error"]["code"] for line in rest} == {"batch_cancelled"}
    assert [charge.custom_id for charge in server.ledger.entries()] == ids(answers)


def test_cancelling_can_take_its_time(start, connect):
    client = connect(start(batch_seconds=100, batch_cancel_seconds=0.2))
    batch = submit(client, 3)
    client.batches.cancel(batch.id)
    assert client.batches.retrieve(batch.id).status == "cancelling"
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = watch(client, batch)
    assert batch.status == "cancelled"
    assert len(results(client, batch.error_file_id)) == 3


def test_what_is_over_cannot_be_cancelled(client):
    batch = run(client, 1)
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        client.batches.cancel(batch.id)
    failing = submit(client, b"{\n")
    with pytest.raises(openai.ConflictError, match="status 'failed'"):
        client.batches.cancel(failing.id)


def test_a_window_that_ends_leaves_the_rest(start, connect):
    server = start(batch_seconds=1, batch_window_seconds=0.51)
    client = connect(server)
    batch = run(client, 40)
    assert batch.status == "expired"
    assert batch.expired_at is not None
    answers, rest = results(client, batch.output_file_id), results(client, batch.error_file_id)
    assert len(answers) == 20
    assert {line["error"]["code"] for line in rest} == {"batch_expired"}
    assert ids(answers) + ids(rest) == [f"r-{number}" for number in range(40)]
    assert len(server.ledger) == 20


# --------------------------------------------------------------------------------------------------------- starting again


def test_a_batch_goes_on_where_its_server_left_it(connect, tmp_path):
    with Simulator(SimulatorOptions(data=tmp_path, batch_seconds=2, ledger=tmp_path / "ledger")) as first:
        client = connect(first)
        batch = submit(client, 400, metadata={"intent": "i-1"})
        while batch.request_counts.completed < 40:
            batch = client.batches.retrieve(batch.id)
    before = len(first.ledger)
    assert 40 <= before < 400
    with Simulator(SimulatorOptions(data=tmp_path, batch_seconds=0, ledger=tmp_path / "ledger")) as second:
        client = connect(second)
        (found,) = client.batches.list().data
        assert (found.id, found.metadata, found.created_at) == (batch.id, {"intent": "i-1"}, batch.created_at)
        batch = watch(client, found)
        assert batch.request_counts.model_dump() == {"total": 400, "completed": 400, "failed": 0}
        answers = results(client, batch.output_file_id)
        assert ids(answers) == [f"r-{number}" for number in range(400)]
        assert len({line["response"]["request_id"] for line in answers}) == 400
        assert before + len(second.ledger) == 400
    charged = [json.loads(line)["custom_id"] for line in (tmp_path / "ledger").read_text().splitlines()]
    assert charged == ids(answers)
    assert sorted(path.name for path in (tmp_path / "batches").iterdir()) == [f"{batch.id}.json"]


def test_what_was_over_is_found_unchanged(connect, tmp_path):
    options = SimulatorOptions(data=tmp_path, batch_seconds=0)
    with Simulator(options) as first:
        client = connect(first)
        finished, failed = run(client, 5), run(client, b"")
        answers = results(client, finished.output_file_id)
    with Simulator(options) as second:
        client = connect(second)
        assert client.batches.list().data == [failed, finished]
        assert results(client, finished.output_file_id) == answers
        assert len(second.ledger) == 0


def test_a_script_goes_on_where_it_was(connect, tmp_path):
    options = SimulatorOptions(data=tmp_path, batch_seconds=0, batch_script=["ok", "errors_only", "ok"])
    with Simulator(options) as first:
        assert run(connect(first), 1).output_file_id is not None
    with Simulator(options) as second:
        assert run(connect(second), 1).output_file_id is None
        assert run(connect(second), 1).output_file_id is not None


SERVE = """
import sys
from bioforge.simulator import SimulatorOptions, serve
options = SimulatorOptions(data=sys.argv[1], ledger=sys.argv[2], batch_seconds=float(sys.argv[3]))
serve(options, port=0, ready=lambda server: print(server.base_url, flush=True))
"""


@pytest.mark.parametrize(
    "least", [pytest.param(1, marks=pytest.mark.slow), 700, pytest.param(1400, marks=pytest.mark.slow)]
)
def test_a_killed_server_executes_no_line_twice(connect, tmp_path, least):
    data, ledger = tmp_path / "data", tmp_path / "ledger"
    command = [sys.executable, "-c", SERVE, str(data), str(ledger), "1.5"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        base_url = process.stdout.readline().strip()
        with openai.OpenAI(base_url=base_url, api_key="key", max_retries=0) as client:
            batch = submit(client, 2000)
            while batch.request_counts.completed < least:
                batch = client.batches.retrieve(batch.id)
        process.send_signal(signal.SIGKILL)
    before = [json.loads(line) for line in ledger.read_text().splitlines()]
    with Simulator(SimulatorOptions(data=data, ledger=ledger, batch_seconds=0)) as server:
        batch = watch(connect(server), batch)
        answers = results(connect(server), batch.output_file_id)
        after = [charge.custom_id for charge in server.ledger.stream()]
    charged = [charge["custom_id"] for charge in before] + after
    assert ids(answers) == [f"r-{number}" for number in range(2000)]
    assert len(charged) == len(set(charged)), "a line is never charged twice"
    # A crash between the results of a step and its charges may forget these.
    assert len(charged) > 1000
    assert len(after) < 2000 - least + 1


def test_the_command_line_serves_batches(tmp_path):
    flags = {
        "--batch-seconds": "0",
        "--batch-window": "3600",
        "--batch-tokens": "1000",
        "--batch-faults": "no_usage",
        "--data": str(tmp_path / "data"),
    }
    script = ["--batch-script", "errors_only", "--batch-script", "stuck"]
    command = [sys.executable, "-m", "bioforge", "simulate", "--port", "0", *script, *sum(flags.items(), ())]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        base_url = process.stderr.readline().split()[1]
        with openai.OpenAI(base_url=base_url, api_key="key", max_retries=0) as client:
            first = run(client, HALF)
            assert (first.output_file_id, first.expires_at - first.created_at) == (None, 3600)
            submit(client, HALF)
            assert run(client, HALF).errors.data[0].code == "token_limit_exceeded"
            assert run(client, 1).usage is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == 0
    assert len(list((tmp_path / "data" / "batches").glob("*.json"))) == 4


def test_an_entry_that_a_crash_cut_off_is_written_anew(connect, tmp_path):
    with Simulator(SimulatorOptions(data=tmp_path, batch_script=["stuck"], batch_seconds=0)) as first:
        client = connect(first)
        batch = submit(client, 10)
        while batch.request_counts.completed < 5:
            batch = client.batches.retrieve(batch.id)
    journal = tmp_path / "batches" / f"{batch.id}.journal"
    with journal.open("ab") as file:
        file.write(b'output 1 3 60 0\t{"id":"batch_req')
    with Simulator(SimulatorOptions(data=tmp_path, batch_seconds=0)) as second:
        client = connect(second)
        assert client.batches.retrieve(batch.id).request_counts.completed == 5
        client.batches.cancel(batch.id)
        batch = watch(client, batch)
        found = results(client, batch.output_file_id) + results(client, batch.error_file_id)
    assert ids(found) == [f"r-{number}" for number in range(10)]


@pytest.mark.slow
def test_fifty_thousand_lines_are_answered(server, client):
    batch = run(client, lines([{"model": "m", "input": f"Artist {number}"} for number in range(MAX_LINES)]))
    assert batch.request_counts.completed == MAX_LINES
    with client.files.with_streaming_response.content(batch.output_file_id) as response:
        assert sum(piece.count(b"\n") for piece in response.iter_bytes()) == MAX_LINES
    assert len(server.ledger) == MAX_LINES
