"""Every fault of batches as a client meets it, how they are written, and that the same ones come again."""

from __future__ import annotations

import json
import re
from collections import Counter

import httpx2
import openai
import pytest
import requests

from bioforge.simulator import BATCH_FAULTS, Simulator, SimulatorOptions
from bioforge.simulator.batch_faults import faults_at, hits, parse_batch_faults

from .batching import ENDPOINT, body, chat, ids, lines, results, run, submit, watch

NAMES = ", ".join((*BATCH_FAULTS, "ok"))


@pytest.fixture
def meet(start, connect):
    """`meet("stuck", …)`: server and client whose 1st, 2nd … batch meets these faults."""

    def open_both(*script, **options):
        server = start(**{"batch_seconds": 0, "batch_script": script, **options})
        return server, connect(server)

    return open_both


def described(server):
    (told,) = requests.get(f"{server.url}/simulator/batches").json()
    return told["lines"]


def charged(server):
    return [charge.custom_id for charge in server.ledger.entries()]


ALL = [f"r-{number}" for number in range(100)]


# ----------------------------------------------------------------------------------------------------- calls that fail


def test_a_lost_creation_has_made_a_batch(meet):
    server, client = meet("create_lost")
    with pytest.raises(openai.APIConnectionError):
        submit(client, 3, metadata={"intent": "i-1"})
    (batch,) = client.batches.list().data
    assert batch.metadata == {"intent": "i-1"}
    assert watch(client, batch).request_counts.completed == 3
    assert server.ledger.counts.faults == {"create_lost": 1}
    assert server.ledger.batches.created == 1


def test_a_refused_creation_has_made_none_and_takes_its_place_in_the_script(meet):
    server, client = meet("create_refused")
    with pytest.raises(openai.InternalServerError):
        submit(client, 3)
    assert client.batches.list().data == []
    assert run(client, 3).status == "completed"
    assert server.ledger.batches.created == 1


def test_a_lost_upload_has_made_a_file(meet):
    server, client = meet("ok", "upload_lost")
    first = client.files.create(file=("a.jsonl", lines(1)), purpose="batch")
    client.files.create(file=("notes.txt", b"not counted"), purpose="user_data")
    with pytest.raises(openai.APIConnectionError):
        client.files.create(file=("b.jsonl", lines(2)), purpose="batch")
    (lost, found) = client.files.list(purpose="batch").data
    assert (lost.filename, found.id) == ("b.jsonl", first.id)
    assert server.ledger.batches.uploads == 3
    batch = client.batches.create(input_file_id=lost.id, endpoint=ENDPOINT, completion_window="24h")
    assert watch(client, batch).request_counts.completed == 2


@pytest.mark.parametrize(("fault", "times"), [("download_truncated", 1), ("download_truncated=2", 2)])
def test_a_truncated_download_announces_more_than_it_sends(meet, tmp_path, fault, times):
    server, client = meet(f"{fault}+row_errors=0.5")
    batch = run(client, 100)
    for file_id in (batch.output_file_id, batch.error_file_id):
        size = client.files.retrieve(file_id).bytes
        for _ in range(times):
            with client.files.with_streaming_response.content(file_id) as response:
                assert int(response.headers["content-length"]) == size
                with pytest.raises(httpx2.RemoteProtocolError):
                    response.stream_to_file(tmp_path / "cut")
            assert (tmp_path / "cut").stat().st_size <= size // 2
        assert len(client.files.content(file_id).read()) == size
    assert server.ledger.counts.faults["download_truncated"] == 2 * times


def test_a_token_limit_refuses_a_file_once(meet):
    _, client = meet(batch_faults="token_limit")
    content = lines([body("x" * 4000)])
    (error,) = run(client, content).errors.data
    assert (error.code, error.line) == ("token_limit_exceeded", None)
    assert error.message == (
        "Enqueued token limit reached for gpt-6-luna in organization org-simulator. "
        "Limit: 500 enqueued tokens. Please try again once some in_progress batches have been completed."
    )
    assert run(client, content).status == "completed"


def test_a_token_limit_remembers_what_it_refused(connect, tmp_path):
    options = SimulatorOptions(data=tmp_path, batch_seconds=0, batch_faults="token_limit")
    for status in ("failed", "completed"):
        with Simulator(options) as server:
            assert run(connect(server), 3).status == status


def test_a_token_limit_can_refuse_the_creation(meet):
    server, client = meet("token_limit", batch_token_refusal="create")
    with pytest.raises(openai.BadRequestError, match="Limit: 500 enqueued tokens"):
        submit(client, lines([body("x" * 4000)]))
    assert server.ledger.batches.created == 0
    assert run(client, lines([body("x" * 4000)])).status == "completed"


# ---------------------------------------------------------------------------------------------------- ends of a batch


def test_an_input_can_fail_for_no_reason(meet):
    server, client = meet("failed_validation=2", "failed_validation=9")
    for line in (2, 3):
        (error,) = run(client, 3).errors.data
        assert (error.code, error.line) == ("invalid_json_line", line)
    assert len(server.ledger) == 0


def test_an_expired_batch_returns_and_charges_what_was_finished(meet):
    server, client = meet("expired=0.3")
    batch = run(client, 100)
    assert batch.status == "expired"
    assert batch.expires_at <= batch.expired_at
    assert ids(results(client, batch.output_file_id)) == charged(server) == ALL[:30]
    rest = results(client, batch.error_file_id)
    assert ids(rest) == ALL[30:]
    assert {(line["response"], line["error"]["code"]) for line in rest} == {(None, "batch_expired")}


def test_a_batch_can_be_cancelled_by_somebody_else(meet):
    server, client = meet("cancelled=0.3")
    batch = run(client, 100)
    assert batch.status == "cancelled"
    assert batch.cancelling_at <= batch.cancelled_at
    assert ids(results(client, batch.output_file_id)) == charged(server) == ALL[:30]
    assert {line["error"]["code"] for line in results(client, batch.error_file_id)} == {"batch_cancelled"}


def test_a_stuck_batch_waits_to_be_cancelled(meet):
    _, client = meet("stuck")
    batch = submit(client, 100)
    while batch.request_counts.completed < 50:
        batch = client.batches.retrieve(batch.id)
    assert client.batches.retrieve(batch.id).status == "in_progress"
    client.batches.cancel(batch.id)
    batch = watch(client, batch)
    assert batch.status == "cancelled"
    assert len(results(client, batch.output_file_id)) == 50


def test_a_stuck_batch_waits_for_its_window_to_end(meet):
    _, client = meet("stuck", batch_window_seconds=0.3)
    assert run(client, 10).status == "expired"


# -------------------------------------------------------------------------------------------------- what lines become


def test_missing_lines_are_in_neither_file_and_cost_nothing(meet):
    server, client = meet("lines_missing=0.3")
    batch = run(client, 100)
    answered = ids(results(client, batch.output_file_id))
    assert charged(server) == answered
    assert 50 < len(answered) < 90
    assert batch.error_file_id is None
    assert described(server)["missing"] == 100 - len(answered)
    assert batch.request_counts.model_dump() == {"total": 100, "completed": len(answered), "failed": 0}


def test_lost_lines_are_in_neither_file_and_cost_something(meet):
    server, client = meet("lines_lost=0.3")
    batch = run(client, 100)
    answered = ids(results(client, batch.output_file_id))
    assert charged(server) == ALL
    assert 50 < len(answered) < 90
    assert described(server)["lost"] == 100 - len(answered)
    assert batch.usage.input_tokens == server.ledger.totals().input_tokens


def test_all_lines_can_be_gone(meet):
    _, client = meet("lines_missing=1", "lines_lost=1")
    for _ in range(2):
        batch = run(client, 5)
        assert (batch.status, batch.output_file_id, batch.error_file_id) == ("completed", None, None)


def test_duplicated_lines_are_charged_once(meet):
    server, client = meet("lines_duplicated=0.3+row_errors=0.5")
    batch = run(client, 100)
    answers, errors = results(client, batch.output_file_id), results(client, batch.error_file_id)
    twice = {name for name, times in Counter(ids(answers) + ids(errors)).items() if times == 2}
    assert 10 < len(twice) < 50
    assert twice & set(ids(answers))
    assert twice & set(ids(errors))
    assert described(server)["duplicated"] == len(twice)
    assert sorted(charged(server)) == sorted(set(ids(answers)))


def test_some_lines_fail_with_500(meet):
    server, client = meet("row_errors=0.3")
    batch = run(client, 100)
    errors = results(client, batch.error_file_id)
    assert 10 < len(errors) < 50
    assert {(line["response"]["status_code"], line["error"]) for line in errors} == {(500, None)}
    assert batch.request_counts.failed == len(errors)
    assert len(server.ledger) == 100 - len(errors)


def test_every_line_can_fail(meet):
    server, client = meet("errors_only")
    batch = run(client, 5)
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert [line["response"]["status_code"] for line in results(client, batch.error_file_id)] == [400] * 5
    assert len(server.ledger) == 0


# ------------------------------------------------------------------------------------------------ what files look like


def test_shuffled_lines_are_all_there(meet):
    _, client = meet("lines_shuffled+lines_duplicated=0.1")
    found = ids(results(client, run(client, 100).output_file_id))
    assert found != sorted(found, key=ALL.index)
    assert set(found) == set(ALL)
    assert len(found) > 100


def test_unknown_lines_answer_what_nobody_asked(meet):
    server, client = meet("unknown_lines=3", "unknown_lines=1+errors_only")
    found = results(client, run(client, 5).output_file_id)
    assert len(found) == 8
    unknown = [line for line in found if line["custom_id"] not in ALL]
    assert len({line["custom_id"] for line in unknown}) == 3
    assert {line["response"]["status_code"] for line in unknown} == {200}
    assert len(server.ledger) == 5
    assert len(results(client, run(client, 5).output_file_id)) == 1


def test_unknown_lines_of_chat_are_chat(meet):
    _, client = meet("unknown_lines=1")
    endpoint = "/v1/chat/completions"
    batch = run(client, lines([chat("Kobro")], endpoint), endpoint=endpoint)
    found = results(client, batch.output_file_id)
    assert {line["response"]["body"]["object"] for line in found} == {"chat.completion"}


def test_bodies_can_be_strings(meet):
    _, client = meet("string_bodies")
    (line,) = results(client, run(client, 1).output_file_id)
    assert json.loads(line["response"]["body"])["object"] == "response"


def test_keys_can_be_missing(meet):
    _, client = meet("keys_missing+row_errors=0.5")
    batch = run(client, 20)
    for file_id in (batch.output_file_id, batch.error_file_id):
        assert {tuple(line) for line in results(client, file_id)} == {("custom_id", "response")}


def test_answers_can_have_several_items_and_parts(meet):
    _, client = meet("several_items", several_parts=False)
    for line in results(client, run(client, 5).output_file_id):
        output = line["response"]["body"]["output"]
        assert [item["type"] for item in output] == ["reasoning", "message"]
        assert len(output[1]["content"]) == 2


@pytest.mark.parametrize("faults", ["empty_error_file", "empty_error_file+row_errors=0.5"])
def test_an_error_file_can_be_empty(meet, faults):
    _, client = meet(faults)
    batch = run(client, 20)
    assert client.files.retrieve(batch.error_file_id).bytes == 0
    assert client.files.content(batch.error_file_id).read() == b""


# ------------------------------------------------------------------------------------------------- what is said about it


def test_counts_can_be_wrong(meet):
    server, client = meet("wrong_counts")
    assert run(client, 5).request_counts.model_dump() == {"total": 0, "completed": 0, "failed": 0}
    assert described(server)["completed"] == 5


def test_usage_can_be_absent(meet):
    server, client = meet("no_usage")
    assert run(client, 5).usage is None
    assert len(server.ledger) == 5


# ------------------------------------------------------------------------------------------------------ how they are told


def test_a_script_is_followed_by_what_meets_all(meet):
    _, client = meet("ok", "errors_only", batch_faults="no_usage")
    ends = [run(client, 1) for _ in range(4)]
    assert [batch.output_file_id is None for batch in ends] == [False, True, False, False]
    assert [batch.usage is None for batch in ends] == [False, False, True, True]
    assert [faults_at(place, ("ok", "stuck"), "no_usage") for place in (1, 2, 3)] == ["ok", "stuck", "no_usage"]


def test_the_same_seed_hits_the_same_lines(meet):
    faults = "lines_missing=0.2+lines_lost=0.2+lines_duplicated=0.2+row_errors=0.2+lines_shuffled"
    found = []
    for seed in (1, 1, 2):
        _, client = meet(faults, seed=seed)
        batch = run(client, 100)
        found.append([ids(results(client, file_id)) for file_id in (batch.output_file_id, batch.error_file_id)])
    assert found[0] == found[1] != found[2]


def test_a_line_that_was_hit_is_not_hit_for_ever(meet):
    _, client = meet(batch_faults="lines_missing=0.5+lines_lost=0.3")
    left, rounds = set(range(20)), 0
    while left:
        asked = sorted(left)
        batch = run(client, lines([body(f"Artist {number}") for number in asked]))
        left -= {asked[int(name[2:])] for name in ids(results(client, batch.output_file_id))}
        rounds += 1
        assert rounds < 40


def test_shares_are_kept_and_independent_of_each_other():
    faults = {"lines_lost": 0.3, "row_errors": 0.3}
    digests = [number.to_bytes(32, "big") for number in range(5000)]
    drawn = {name: [hits(name, faults, 3, digest, 1) for digest in digests] for name in faults}
    for name in faults:
        assert sum(drawn[name]) == pytest.approx(1500, rel=0.1)
    both = sum(map(all, zip(*drawn.values(), strict=True)))
    assert both == pytest.approx(450, rel=0.2)
    assert not any(hits("lines_missing", faults, 3, digest, 1) for digest in digests)


def test_faults_are_written_with_plus_and_equals():
    assert parse_batch_faults("lines_lost=0.25 + stuck+unknown_lines=3") == {
        "lines_lost": 0.25,
        "stuck": 1,
        "unknown_lines": 3,
    }
    assert parse_batch_faults("ok") == parse_batch_faults("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lines_lots=0.1", f"unknown batch fault 'lines_lots', did you mean 'lines_lost'? (batch faults: {NAMES})"),
        ("xyz", f"unknown batch fault 'xyz' (batch faults: {NAMES})"),
        ("stuck+", f"unknown batch fault '' (batch faults: {NAMES})"),
        ("lines_lost", "batch fault 'lines_lost' needs a share from 0 to 1, like lines_lost=0.5, not None"),
        ("lines_lost=5%", "batch fault 'lines_lost' needs a share from 0 to 1, like lines_lost=0.5, not '5%'"),
        ("expired=1.5", "batch fault 'expired' needs a share from 0 to 1, like expired=0.5, not '1.5'"),
        ("expired=nan", "batch fault 'expired' needs a share from 0 to 1, like expired=0.5, not 'nan'"),
        ("unknown_lines=0", "batch fault 'unknown_lines' needs a whole number from 1, like unknown_lines=2, not '0'"),
        (
            "download_truncated=1.5",
            "batch fault 'download_truncated' needs a whole number from 1, like download_truncated=2, not '1.5'",
        ),
        (
            "unknown_lines=inf",
            "batch fault 'unknown_lines' needs a whole number from 1, like unknown_lines=2, not 'inf'",
        ),
        ("stuck=1", "batch fault 'stuck' takes no value, found '1'"),
        ("stuck+stuck", "batch fault 'stuck' appears twice in 'stuck+stuck'"),
    ],
)
def test_faults_that_cannot_be_meant_are_named(text, message):
    for options in ({"batch_faults": text}, {"batch_script": ["ok", text]}):
        with pytest.raises(ValueError, match=re.escape(message) + "$"):
            SimulatorOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_script": "stuck"}, "batch_script must be a list of texts, not the text 'stuck'"),
        ({"batch_script": [None]}, "faults of a batch must be a text like 'lines_lost=0.1+stuck', not None"),
        ({"batch_seconds": -1}, "batch_seconds must be at least 0, not -1"),
        ({"batch_window_seconds": float("nan")}, "batch_window_seconds must be at least 0, not nan"),
        ({"batch_cancel_seconds": -1}, "batch_cancel_seconds must be at least 0, not -1"),
        ({"batch_creations_per_hour": -1}, "batch_creations_per_hour must be at least 0, not -1"),
        ({"batch_enqueued_tokens": 0}, "batch_enqueued_tokens must be at least 1, not 0"),
        ({"batch_token_refusal": "no"}, "batch_token_refusal must be 'failed' or 'create', not 'no'"),
    ],
)
def test_options_of_batches_that_cannot_be_meant_are_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        SimulatorOptions(**options)
