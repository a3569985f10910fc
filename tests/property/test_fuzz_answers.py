"""Any response: it becomes an outcome that can be stored and shown, and nothing that came back is lost."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import event, example, given
from hypothesis import strategies as st
from odd_server import OddServer
from projects import invoke

from bioforge.backends.batch.collect import Account
from bioforge.backends.batch.service import BatchResult
from bioforge.backends.openai import batch_lines
from bioforge.backends.openai.outcomes import interpret
from bioforge.backends.openai.prices import price
from bioforge.core.events import Attempt, BatchChanged, Event, Failed, Started, Succeeded, UnmatchedLine, Unusable
from bioforge.core.interfaces import Outcome
from bioforge.core.reasons import Decision
from bioforge.core.types import Artist, Batch, BatchState, Paid, Request, Response
from bioforge.recipes.schema import from_document
from bioforge.recipes.validate import checked
from bioforge.store import Selection, Store, artists, batches, runs, targets
from bioforge.store.export import records
from bioforge.store.recorder import Recorder
from bioforge.store.targets import Planned

from .effort import examples
from .oddities import NOT_FINITE, mutated, nested, put, trees

TOKENS = {
    "input_tokens": 10, "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 1}, "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 30,
}  # fmt: skip
RESPONSE: dict[str, Any] = {
    "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "gpt-6-luna-2026", "error": None,
    "incomplete_details": {"reason": None}, "service_tier": "default", "usage": TOKENS,
    "output": [
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "{\"born\": 1965", "annotations": []}, {"type": "output_text", "text": "}"},
            {"type": "refusal", "refusal": ""}]},
    ],
}  # fmt: skip
CHAT: dict[str, Any] = {
    "id": "chat_1", "object": "chat.completion", "created": 1, "model": "gpt-6-luna", "service_tier": "flex",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "{\"born\": 1965}", "refusal": None}}
    ],
    "usage": {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens": 20,
              "completion_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 30},
}  # fmt: skip
ERROR: dict[str, Any] = {
    "error": {"message": "no", "type": "invalid_request_error", "param": "input", "code": "rate_limit_exceeded"}
}
BODIES = {"/v1/responses": RESPONSE, "/v1/chat/completions": CHAT}

_values = trees(None, *NOT_FINITE, nested(50), nested(400), "\ud800", "a\udfffb", 10**400, -(10**30))
REFUSALS = (100, 301, 400, 401, 403, 404, 408, 409, 413, 422, 425, 429, 451, 500, 502, 503, 529, 599, 999)

_endpoints = st.sampled_from(sorted(BODIES))

HEADERS = {
    "retry-after": "7", "retry-after-ms": "70", "x-should-retry": "true", "x-request-id": "req_1",
    "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "900", "x-ratelimit-reset-tokens": "6m0s",
}  # fmt: skip
_header = st.sampled_from(
    ["", "0", "-1", "1e400", "nan", "inf", "9" * 400, "1h1h1h", "6m0", "٣s", "Wed, 21 Oct 2015 07:28:00 GMT", "Thu, 99 Foo",
     "Fri, 31 Dec 99999 23:59:59 GMT", "Wed, 21 Oct 2015 07:28:00 +99999999999", "true", "FALSE", "é\udcff", "1s 2s",
     ".s", "0x10"]
) | st.text(max_size=8)  # fmt: skip
_headers = st.dictionaries(st.sampled_from(sorted(HEADERS)), _header, max_size=4).map(lambda more: {**HEADERS, **more})


@st.composite
def bodies(draw: st.DrawFn, valid: Any) -> bytes:
    """A body with something wrong in any of its places; or cut off, or not JSON at all."""
    content = json.dumps(draw(mutated(valid, _values)), ensure_ascii=draw(st.booleans())).encode(
        "utf-8", "surrogatepass"
    )
    match draw(st.sampled_from(["whole", "whole", "whole", "cut", "junk"])):
        case "cut":
            return content[: draw(st.integers(0, len(content)))]
        case "junk":
            return draw(
                st.binary(max_size=40)
                | st.sampled_from([b"", b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b"\xff\xfe{}"])
            )
        case _:
            return content


def request(endpoint: str) -> Request:
    return Request("v1:a", endpoint, "gpt-6-luna", b"{}", "1", "bio", target=1, input_tokens=10, output_tokens=10)


def assert_sound(outcome: Outcome, content: bytes) -> None:
    """Fit to be scheduled, stored and shown."""
    assert (outcome.answer is None) != (outcome.failure is None)
    assert outcome.retry_after is None or 0 <= outcome.retry_after <= 86_400
    if outcome.answer is None:
        assert outcome.body == content, "what was received is lost"
    else:
        assert outcome.paid is Paid.YES
        assert_answer(outcome.answer, content)
    for failure in (outcome.failure, outcome.answer and outcome.answer.problem):
        if failure is not None:
            assert failure.error_class
            f"{failure.error_class} {failure.message} {failure.code}".encode()


def assert_answer(answer: Response, content: bytes) -> None:
    assert answer.body == content, "what was paid for is lost"
    for text in (answer.text, answer.model, answer.response_id, answer.service_tier):
        assert text is None or (text and text.encode())
    if answer.usage is not None:
        counts = (
            answer.usage.input_tokens,
            answer.usage.output_tokens,
            answer.usage.cached_tokens,
            answer.usage.reasoning_tokens,
        )
        assert all(0 <= number < 2**63 for number in counts)
    assert answer.cost_usd is None or (math.isfinite(answer.cost_usd) and answer.cost_usd >= 0)
    assert answer.problem is not None or (answer.text or "").strip()


@examples(100)
@given(_endpoints.flatmap(lambda name: st.tuples(st.just(name), bodies(BODIES[name]))), _headers)
@example(("/v1/responses", json.dumps(put(RESPONSE, ("usage", "output_tokens"), 10**30)).encode()), HEADERS)
@example(("/v1/chat/completions", json.dumps(put(CHAT, ("id",), "\ud800")).encode()), HEADERS)
def test_a_good_status_with_any_body_is_an_answer_or_perhaps_paid_for(
    asked: tuple[str, bytes], headers: dict[str, str]
) -> None:
    endpoint, content = asked
    outcome = interpret(request(endpoint), 200, headers, content, 1.0, price)
    assert_sound(outcome, content)
    # only an error with a known code, and without text and usage, is not paid
    told = outcome.failure is not None and outcome.failure.error_class != "malformed" and b"error" in content
    assert outcome.paid in (Paid.YES, Paid.MAYBE) or told, "money that is not accounted for"
    event("answer" if outcome.answer else "no answer")


@examples(60)
@given(st.sampled_from(REFUSALS), bodies(ERROR), _headers)
def test_a_bad_status_with_any_body_is_a_failure_and_costs_at_most_what_a_gateway_may_hide(
    status: int, content: bytes, headers: dict[str, str]
) -> None:
    outcome = interpret(request("/v1/responses"), status, headers, content, 1.0, price)
    assert_sound(outcome, content)
    assert outcome.answer is None
    gateway = status in (408, 499, 502, 504, 520, 522, 524, 598)
    assert outcome.failure is not None
    assert outcome.paid is (Paid.MAYBE if gateway else Paid.NO) or outcome.failure.error_class == "content_filter"


@examples(20)
@given(
    _endpoints.flatmap(lambda name: st.tuples(st.just(name), st.lists(bodies(BODIES[name]), min_size=1, max_size=4)))
)
def test_whatever_was_received_can_be_stored_and_exported(asked: tuple[str, list[bytes]]) -> None:
    endpoint, contents = asked
    schema = from_document(
        {"type": "object", "properties": {"born": {"type": "integer"}}, "required": ["born"]}, "bio.json"
    )
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "state.db") as store:
        recorder = stocked(store)
        for number, content in enumerate(contents, start=1):
            attempt = Attempt(request(endpoint), number, "W01", f"a-{number}", 1000.0)
            outcome = interpret(attempt.request, 200, {}, content, 1.0, price)
            recorder.record([Started(attempt)])
            recorder.record([ended(attempt, outcome, schema)])
            kept = store.value(
                "SELECT coalesce(r.body, x.body) FROM attempts x LEFT JOIN responses r ON r.attempt = x.id ORDER BY x.id DESC"
            )
            assert (kept.encode() if isinstance(kept, str) else kept or b"") == content
        for failed_only in (False, True):
            for record in records(store, Selection(), failed_only=failed_only):
                json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
        assert store.value("PRAGMA integrity_check") == "ok"


def stocked(store: Store) -> Recorder:
    artists.read_into(store, [Artist("1", "Björk")])
    definition = targets.definition_id(store, "bio", "", {"model": "m"})
    targets.save(store, "bio", "", definition, [Planned(1, "v1:a", "row", 5, Decision("new"))])
    return Recorder(store, runs.begin(store, "run", "async", Selection()), "async")


def ended(attempt: Attempt, outcome: Outcome, schema: Any) -> Event:
    if outcome.answer is None:
        assert outcome.failure is not None
        return Failed(attempt, outcome.failure, outcome.paid, 1.0, final=True, body=outcome.body)
    answer = checked(outcome.answer, schema)
    return (Succeeded if answer.problem is None else Unusable)(attempt, answer, 1.0, outcome.request_id)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "born": {"type": "integer", "minimum": 1900}, "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
        "more": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tag"}]},
    },
    "required": ["born"],
    "$defs": {"tag": {"type": "string", "pattern": "^[a-z]+$"}},
}  # fmt: skip


@examples(60)
@given(bodies({"born": 1965, "tags": ["a", "b"], "more": None}))
def test_any_text_is_valid_or_told_what_is_wrong_with_it(content: bytes) -> None:
    answer = Response(content, content.decode("utf-8", "replace"))
    verdict = checked(answer, from_document(SCHEMA, "bio.json"))
    assert (verdict.problem is None) == (verdict.parsed is not None)
    if verdict.problem is not None:
        assert len(verdict.problem.message) < 5000
        verdict.problem.message.encode()
    assert verdict.body == content


# ---------------------------------------------------------------------------------------------------------------- batches

LINE: dict[str, Any] = {
    "id": "batch_req_1", "custom_id": "", "response": {"status_code": 200, "request_id": "req_1", "body": RESPONSE}, "error": None
}  # fmt: skip
BATCH: dict[str, Any] = {
    "id": "batch_1", "object": "batch", "endpoint": "/v1/responses", "status": "completed", "input_file_id": "file-a",
    "output_file_id": "file-o", "error_file_id": None, "created_at": 1, "completed_at": 4, "expires_at": 9,
    "errors": {"data": [{"code": "x", "message": "y", "line": 1, "param": None}]}, "metadata": {"bioforge": "bf-1"},
    "request_counts": {"total": 3, "completed": 3, "failed": 0}, "usage": TOKENS,
}  # fmt: skip


class Reading:
    """As much of a batch service as an account needs."""

    def read(self, batch: Batch, line: bytes) -> BatchResult:
        return batch_lines.read_line(batch, line, price)


@st.composite
def result_files(draw: st.DrawFn) -> list[bytes]:
    """Lines of the real form for any members, whole or mutated or damaged, and lines of nobody."""
    lines = []
    for member in draw(st.lists(st.integers(0, 5), max_size=8)):
        line = {**LINE, "custom_id": f"t{member}-1-{'0' * 40}"}
        match draw(st.sampled_from(["whole", "mutated", "mutated", "cut", "glued"])):
            case "whole":
                content = json.dumps(line).encode()
            case "mutated":
                content = json.dumps(draw(mutated(line, _values)), ensure_ascii=False).encode("utf-8", "surrogatepass")
            case "cut":
                content = json.dumps(line).encode()[: draw(st.integers(0, 600))]
            case _:
                content = json.dumps(line).encode() * 2
        lines.append(content.replace(b"\n", b" "))
    return draw(st.permutations(lines))


@examples(30)
@given(
    result_files(),
    st.sets(st.integers(0, 3)),
    st.sampled_from([BatchState.COMPLETED, BatchState.EXPIRED, BatchState.CANCELLED]),
)
def test_any_result_file_accounts_for_every_member_once(lines: list[bytes], done: set[int], end: BatchState) -> None:
    """Four members, of which some have their outcome from a collection that was cut off."""
    names = [f"t{number}-1-{'0' * 40}" for number in range(4)]
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "state.db") as store:
        recorder, path = stocked(store), Path(folder) / "output.jsonl"
        batch = Batch("bf-1", "/v1/responses", "gpt-6-luna", prepared_at=1.0, requests=4)
        started = [Started(Attempt(_member(number), 1, "b", name, 1.0, "bf-1")) for number, name in enumerate(names)]
        recorder.record([BatchChanged(batch), *started])
        known = batches.StoredMembers(store)

        def collect(wanted: list[bytes], *, whole: bool) -> list[Event]:
            path.write_bytes(b"".join(line + b"\n" for line in wanted))
            closed = replace(batch, state=end, ended_at=9.0)
            account = Account(closed, Reading(), known, lambda attempt, row: True, 9.0)  # type: ignore[arg-type]
            found: list[Event] = []
            for groups in (account.read(path), account.absent() if whole else ()):
                for group in groups:
                    recorder.record(group)
                    found += group
            strays = sum(account.counts[kind] for kind in ("duplicated", "unknown", "unreadable"))
            assert not whole or account.counts.total() - strays == 4, f"not everybody is counted once: {account.counts}"
            assert strays == sum(isinstance(event, UnmatchedLine) for event in found)
            return found

        events = collect([line for line in lines if any(names[one].encode() in line for one in done)], whole=False)
        events += collect(lines, whole=True)
        ends = [one.attempt.client_request_id for one in events if isinstance(one, Succeeded | Unusable | Failed)]
        assert sorted(ends) == sorted(names)
        assert store.value("SELECT count(*) FROM attempts WHERE outcome = 'started'") == 0
        kept = {row[0] for row in store.rows("SELECT line FROM stray_lines")}
        assert {one.line for one in events if isinstance(one, UnmatchedLine)} == kept, "an unmatched line was lost"


def _member(number: int) -> Request:
    return Request(f"v1:{number}", "/v1/responses", "gpt-6-luna", b"{}", str(number), "bio", target=number + 1)


@examples(25)
@given(mutated(BATCH, _values))
@example(put(BATCH, ("request_counts", "completed"), 10**30))
def test_any_object_of_a_batch_is_read(body: Any) -> None:
    if not isinstance(body, dict):
        return
    batch = batch_lines.read_batch(Batch("bf-1", "/v1/responses", "m", prepared_at=1.0), body)
    for number in (batch.requests, batch.completed, batch.failed):
        assert 0 <= number < 2**63
    for moment in (batch.submitted_at, batch.expires_at, batch.ended_at):
        assert moment is None or math.isfinite(moment)
    f"{batch.batch_id} {batch.file_id} {batch.status} {batch.output_file_id} {batch.problems}".encode()
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "state.db") as store:
        stocked(store).record([BatchChanged(batch)])
        assert batches.by_key(store, "bf-1") is not None
    batch_lines.key_of(body)


# --------------------------------------------------------------------------------------------------------- from end to end

PROJECT = """
[provider]
base_url = "{base_url}"
[input]
path = "artists.csv"
[recipe.bio]
endpoint = "{endpoint}"
model = "gpt-6-luna"
input = "{{{{ artist_name }}}}"
[retry]
first_delay = 0.0
max_delay = 0.01
max_attempts = 2
outage_seconds = 0.0
[backend]
name = "{backend}"
[[output]]
path = "out.jsonl"
[[output]]
path = "out.csv"
"""
_answers = _endpoints.flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.lists(st.tuples(st.sampled_from([200, 200, 400, 429, 500]), bodies(BODIES[name])), min_size=1, max_size=4),
    )
)


@examples(3)
@given(_answers, st.sampled_from(["async", "threads"]))
def test_a_person_is_told_about_any_response_in_words(asked: tuple[str, list[tuple[int, bytes]]], backend: str) -> None:
    endpoint, answers = asked
    odd = OddServer(*((status, {}, content) for status, content in answers))
    with tempfile.TemporaryDirectory() as folder, odd as server:
        root = Path(folder)
        (root / "artists.csv").write_text("artist_id,artist_name\n1,Abbey\n2,Absalon\n3,Abramovic\n")
        (root / "bioforge.toml").write_text(
            PROJECT.format(base_url=server.base_url, endpoint=endpoint, backend=backend)
        )
        for command in (("run",), ("status",), ("why", "1"), ("audit",), ("export", "-F", "jsonl", "--failed")):
            ran = invoke(*command, "-f", str(root / "bioforge.toml"))
            assert ran.code in (0, 1, 75), ran.err
            assert "Traceback" not in ran.err
            event(f"{command[0]} ended with {ran.code}")
        with Store.read(root / "bioforge.db") as store:
            assert store.value("SELECT count(*) FROM attempts") == len(server.asked)
            assert store.value("SELECT count(*) FROM attempts WHERE outcome = 'started'") == 0
