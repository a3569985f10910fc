"""What every backend must do, proved for each against a real server and its ledger.

`bench` is any backend, `calls` one whose requests are calls of their own. What is told of calls alone has no meaning for
batches, or another one, which `test_batch_driver.py` tells:

- how many requests are pulled at once (a batch is as large as it may be), and what is in flight when somebody leaves (it
  goes on at the provider);
- an answer that breaks off or hangs: the provider alone has it until it is whole;
- a server that cannot be reached, or is no server: that ends the run, and fails no request.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import parse_headers

import pytest

from bioforge.errors import UsageError
from bioforge.events import Failed, Started, Unusable
from bioforge.interfaces import BackendContext, Choice, Limits, RetryPolicy, Stop, Work
from bioforge.model import Paid, Request
from bioforge.openai.plugin import (
    AsyncBackend,
    AutoBackend,
    BatchBackend,
    OpenAIBackend,
    ThreadsBackend,
    bioforge_backends,
)
from bioforge.simulator import FAULTS, Charge, Outage

from .bench import QUICK, Bench, Recorded, requests
from .fake_service import BatchBench

ONCE = RetryPolicy(max_attempts=1)
GIVES_UP = RetryPolicy(max_attempts=1, outage_seconds=0.0)

AUTO = {
    "auto by calls": Choice("standard", "", ()),
    "auto by batch": Choice("batch", "", (), tier="batch", then="standard"),
}
CALLS = ["threads", "async", "auto by calls"]


@pytest.fixture(params=[*CALLS, "batch", "auto by batch"])
def bench(request: pytest.FixtureRequest, stack: ExitStack) -> Bench:
    return bench_of(request.param, stack)


@pytest.fixture(params=CALLS)
def calls(request: pytest.FixtureRequest, stack: ExitStack) -> Bench:
    return bench_of(request.param, stack)


def bench_of(name: str, stack: ExitStack) -> Bench:
    if name in AUTO:
        return BatchBench(AutoBackend, stack, AUTO[name])
    return BatchBench(BatchBackend, stack) if name == "batch" else Bench(bioforge_backends()[name], stack)


def name_of(charge: Charge) -> str | None:
    """What an attempt is called on the server: in a batch by the name of its line."""
    return charge.custom_id or charge.client_request_id


class TestAnswers:
    @pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/chat/completions"])
    def test_every_request_is_answered_once(self, bench: Bench, endpoint: str) -> None:
        recorded = bench().run(requests(30, endpoint))
        assert len(recorded.succeeded) == 30
        assert bench.server.ledger.totals().charges == 30
        recorded.check(bench.server.ledger)
        event = recorded.succeeded[0]
        assert (event.answer.text or "").startswith("Simulated answer")
        assert event.answer.usage is not None
        assert event.answer.cost_usd is not None
        assert event.answer.model == "gpt-6-luna-2026-05-01"
        assert event.seconds > 0 or event.launch.batch is not None, "the clock of batches has whole seconds"
        assert (event.request_id or "").startswith("req_")

    def test_bodies_go_out_byte_for_byte_and_attempts_are_named(self, bench: Bench) -> None:
        sent = list(requests(["Absalon", "Łempicka – ünïcode"]))
        recorded = bench().run(iter(sent))
        charges = {name_of(charge): charge for charge in bench.server.ledger.entries()}
        for event in recorded.succeeded:
            charge = charges[event.launch.client_request_id]
            assert f"Simulated answer {charge.body_sha256[:8]}" in (event.answer.text or "")

    def test_nothing_is_sent_before_its_start_was_recorded(self, bench: Bench) -> None:
        known: set[str] = set()

        def look(recorded: Recorded, work: Work) -> None:
            arrived = {name_of(charge) for charge in bench.server.ledger.entries()}
            assert arrived <= known
            known.update(event.launch.client_request_id for event in recorded.groups[-1] if isinstance(event, Started))

        bench().run(requests(40), concurrency=5, look=look)
        assert len(known) == 40

    def test_requests_are_pulled_as_they_can_be_sent(self, calls: Bench) -> None:
        pulled: list[Request] = []

        def source() -> Iterator[Request]:
            for request in requests(20):
                pulled.append(request)
                yield request

        def look(recorded: Recorded, work: Work) -> None:
            ended = len(recorded.succeeded)
            assert len(pulled) <= ended + 4

        calls().run(source(), concurrency=4, look=look)
        assert len(pulled) == 20


def survives(bench: Bench, fault: str, error_class: str, paid: Paid) -> None:
    recorded = bench(script={"Absalon": [fault, "ok"]}, retry_after=0.02).run(requests(["Absalon"]))
    (failed,) = recorded.failed
    assert (failed.failure.error_class, failed.paid, failed.final) == (error_class, paid, False)
    assert len(recorded.succeeded) == 1
    assert bool(failed.body) == (fault not in ("drop_before", "drop_after"))
    recorded.check(bench.server.ledger)


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "error_class", "paid"),
        [
            ("rate_limit", "rate_limit", Paid.NO),
            ("rate_limit_bare", "rate_limit", Paid.NO),
            ("slow_down", "slow_down", Paid.NO),
            ("server_error", "server_error", Paid.NO),
            ("unavailable", "overloaded", Paid.NO),
        ],
    )
    def test_a_refusal_is_named_and_survived(self, bench: Bench, fault: str, error_class: str, paid: Paid) -> None:
        survives(bench, fault, error_class, paid)

    @pytest.mark.parametrize(
        ("fault", "error_class", "paid"),
        [
            ("drop_before", "connection", Paid.MAYBE),
            ("drop_after", "connection", Paid.MAYBE),
            ("truncated", "truncated_body", Paid.MAYBE),
            ("malformed", "malformed", Paid.MAYBE),
        ],
    )
    def test_a_broken_call_is_named_and_survived(self, calls: Bench, fault: str, error_class: str, paid: Paid) -> None:
        survives(calls, fault, error_class, paid)

    @pytest.mark.parametrize(
        ("fault", "error_class"),
        [("incomplete", "truncated"), ("content_filter", "content_filter"), ("refusal", "refusal")],
    )
    def test_an_answer_that_cannot_be_used_is_kept_and_final(self, bench: Bench, fault: str, error_class: str) -> None:
        recorded = bench(script={"Absalon": [fault]}).run(requests(["Absalon"]))
        (event,) = recorded.of(Unusable)
        assert event.answer.problem is not None
        assert event.answer.problem.error_class == error_class
        assert event.answer.cost_usd is not None
        recorded.check(bench.server.ledger)

    def test_a_refused_request_fails_alone(self, bench: Bench) -> None:
        recorded = bench(script={"Absalon": ["bad_request"]}).run(requests(["Absalon", "Abakanowicz"]))
        (failed,) = recorded.lost
        assert (failed.failure.error_class, failed.failure.code) == ("bad_request", "invalid_prompt")
        assert len(recorded.succeeded) == 1

    def test_a_hanging_answer_is_given_up_and_may_have_been_paid(self, calls: Bench) -> None:
        recorded = calls(script={"Absalon": ["hang"]}).run(
            requests(["Absalon"]), timeout=0.3, retry=RetryPolicy(maybe_paid=False)
        )
        (failed,) = recorded.lost
        assert (failed.failure.error_class, failed.paid) == ("timeout", Paid.MAYBE)
        recorded.check(calls.server.ledger)

    def test_half_a_body_is_kept(self, calls: Bench) -> None:
        recorded = calls(script={"Absalon": ["truncated"]}).run(requests(["Absalon"]), retry=ONCE)
        (failed,) = recorded.lost
        assert (failed.body or b"").startswith(b'{"id":"resp_')

    def test_nobody_listening_is_an_outage_that_cost_nothing(self, calls: Bench) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        recorded = calls.run(requests(3), base_url=f"http://127.0.0.1:{port}/v1", retry=GIVES_UP)
        assert {(event.failure.error_class, event.paid) for event in recorded.failed} == {("connection", Paid.NO)}
        assert recorded.stopped is not None

    def test_a_server_that_speaks_something_else_is_survived(self, calls: Bench) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:

            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

            thread = threading.Thread(target=serve)
            thread.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            recorded = calls.run(requests(1), base_url=url, retry=ONCE)
            thread.join()
        (failed,) = recorded.lost
        assert (failed.failure.error_class, failed.paid) == ("connection", Paid.MAYBE)

    def test_three_hundred_requests_through_every_fault(self, bench: Bench) -> None:
        bench(faults=dict.fromkeys(FAULTS, 0.2 / len(FAULTS)), retry_after=0.05, hang_seconds=2.0)
        recorded = bench.run(requests(300), concurrency=32, timeout=0.5)
        recorded.check(bench.server.ledger)
        finished = {event.launch.request.artist_id for event in recorded.succeeded}
        finished |= {event.launch.request.artist_id for event in recorded.of(Unusable)}
        finished |= {event.launch.request.artist_id for event in recorded.lost}
        assert len(finished) == 300
        assert recorded.stopped is None
        assert {event.failure.error_class for event in recorded.lost} <= {"bad_request"}


class TestStopping:
    def test_the_first_stop_awaits_what_is_in_flight(self, calls: Bench) -> None:
        stop = Stop()

        def look(recorded: Recorded, work: Work) -> None:
            if len(recorded.succeeded) >= 10 and not stop.level:
                stop.raise_level()

        recorded = calls(latency=0.01).run(requests(200), stop=stop, look=look)
        assert 10 <= len(recorded.succeeded) < 40
        assert recorded.stopped is not None
        assert recorded.stopped.kind == "interrupted"
        recorded.check(calls.server.ledger)
        assert all(event.paid is Paid.NO for event in recorded.failed)

    def test_the_second_stop_leaves_at_once(self, calls: Bench) -> None:
        stop = Stop()

        def look(recorded: Recorded, work: Work) -> None:
            threading.Timer(0.1, lambda: (stop.raise_level(), stop.raise_level())).start()

        started = time.monotonic()
        recorded = calls(latency=30.0).run(requests(20), stop=stop, look=look)
        assert time.monotonic() - started < 5.0
        assert len(recorded.of(Started)) == 8
        assert recorded.stopped is not None
        assert recorded.stopped.kind == "interrupted"
        assert not recorded.failed

    def test_a_stop_while_the_starts_are_stored_sends_nothing(self, bench: Bench) -> None:
        stop = Stop()
        recorded = bench().run(requests(20), stop=stop, look=lambda recorded, work: stop.level or stop.raise_level())
        assert len(bench.server.ledger) == 0
        announced = len(recorded.of(Started))
        assert announced >= 8
        given_back = [(event.paid, event.final, event.counted) for event in recorded.failed]
        assert given_back == [(Paid.NO, False, False)] * announced

    def test_a_consumer_that_leaves_early_leaves_nothing_running(self, calls: Bench) -> None:
        calls(latency=30.0)
        before = threading.active_count()
        groups = calls.backend().execute(Work(requests(20), Limits(8)))
        next(iter(groups))
        groups.close()  # type: ignore[attr-defined]
        groups = calls.backend().execute(Work(requests(20), Limits(8), stop=(stop := Stop())))
        next(iter(groups))
        threading.Timer(0.1, lambda: (stop.raise_level(), stop.raise_level())).start()
        list(groups)
        deadline = time.monotonic() + 5.0
        while threading.active_count() > before and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        assert threading.active_count() <= before

    def test_an_error_of_the_source_is_raised_when_all_is_settled(self, calls: Bench) -> None:
        def source() -> Iterator[Request]:
            yield from requests(3)
            raise UsageError("the template names what is not there")

        recorded = Recorded()
        with pytest.raises(UsageError, match="template"):
            recorded.groups.extend(calls(latency=0.05).backend().execute(Work(source(), Limits(8))))
        assert len(recorded.succeeded) == 3
        recorded.check(calls.server.ledger)

    def test_no_money_left_stops_the_run_and_blames_nobody(self, bench: Bench) -> None:
        recorded = bench(quota_after=10).run(requests(50))
        assert recorded.stopped is not None
        assert (recorded.stopped.kind, len(recorded.succeeded)) == ("quota", 10)
        assert "credit" in recorded.stopped.hint
        assert not any(event.final or event.counted for event in recorded.failed)
        recorded.check(bench.server.ledger)

    def test_a_wrong_key_stops_the_run(self, bench: Bench) -> None:
        recorded = bench().run(requests(50), key="sk-invalid-1")
        assert recorded.stopped is not None
        assert recorded.stopped.kind == "key"
        assert "api_key_env" in recorded.stopped.hint
        assert not recorded.lost

    def test_the_budget_holds_to_the_cent(self, bench: Bench) -> None:
        bench()
        budget = 0.0005
        recorded = bench.run(requests(300, max_output_tokens=120), max_cost_usd=budget)
        assert recorded.stopped is not None
        assert recorded.stopped.kind == "budget"
        spent = sum(event.answer.cost_usd or 0.0 for event in recorded.succeeded)
        assert 0.5 * budget < spent <= budget
        assert len(recorded.succeeded) == len(bench.server.ledger) < 300

    def test_an_outage_of_the_server_costs_nobody_an_answer(self, calls: Bench) -> None:
        recorded = calls(outage=Outage(0, 24)).run(requests(60), concurrency=24)
        assert len(recorded.succeeded) == 60
        assert recorded.notices("breaker")
        recorded.check(calls.server.ledger)

    # a call about a batch goes on in its thread until it times out; the command ends its process in that case
    @pytest.mark.parametrize("name", ["threads", "async", "auto by calls"])
    def test_who_leaves_at_once_leaves_no_call_behind(self, stack: ExitStack, name: str) -> None:
        """A server that takes a call and never answers it."""
        stop, before = Stop(), threading.active_count()
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            taken: list[socket.socket] = []

            def serve() -> None:
                taken.append(listener.accept()[0])
                with taken[0].makefile("rb") as stream:
                    assert stream.readline().startswith(b"POST ")
                    headers = parse_headers(stream)
                    stream.read(int(headers["content-length"]))
                stop.raise_level()
                stop.raise_level()

            thread = threading.Thread(target=serve)
            thread.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            recorded = bench_of(name, stack).run(requests(1), stop=stop, base_url=url)
            thread.join()
            assert recorded.stopped is not None
            deadline = time.monotonic() + 5.0
            while threading.active_count() > before and time.monotonic() < deadline:
                threading.Event().wait(0.01)
            left = [one.name for one in threading.enumerate()][before:]
            for connection in taken:
                connection.close()
            assert left == []


class TestKeys:
    @pytest.mark.parametrize("kind", [ThreadsBackend, AsyncBackend, BatchBackend, AutoBackend])
    def test_a_missing_key_is_said_before_anything_is_sent(self, kind: type[OpenAIBackend]) -> None:
        context = BackendContext("https://api.openai.com/v1", None, "MY_KEY")
        with pytest.raises(UsageError, match="MY_KEY is not set") as caught:
            kind(context).check()
        assert "export MY_KEY" in caught.value.hint

    def test_a_server_on_this_machine_needs_none(self, bench: Bench) -> None:
        bench().backend(key=None).check()
        assert len(bench.run(requests(2), key=None).succeeded) == 2


def test_what_a_sender_should_not_raise_fails_one_attempt_and_not_the_run() -> None:
    from bioforge.backends.asynchronous import AsyncLanes
    from bioforge.backends.driver import drive
    from bioforge.backends.threads import ThreadLanes
    from bioforge.interfaces import Outcome
    from bioforge.window import Window

    class Broken:
        def send(self, request: Request, client_request_id: str) -> Outcome:
            raise KeyError("gone")

        def close(self) -> None:
            pass

    class BrokenAsync:
        async def send(self, request: Request, client_request_id: str) -> Outcome:
            raise KeyError("gone")

        async def close(self) -> None:
            pass

    for lanes in (ThreadLanes(Broken(), 2), AsyncLanes(BrokenAsync)):
        work = Work(requests(3), Limits(2), QUICK)
        window = Window(work.limits, work.retry, lambda _: None, time.monotonic())
        events = [event for group in drive(work, window, lanes) for event in group]
        failed = [event for event in events if isinstance(event, Failed)]
        assert [(event.failure.error_class, event.paid) for event in failed] == [("internal", Paid.MAYBE)] * 3


def test_drivers_side_by_side_leave_the_interpreter_as_it_was() -> None:
    """The second one begins when turns are short already: what is put back is not what it found."""
    import sys

    from bioforge.backends.driver import drive
    from bioforge.backends.threads import ThreadLanes
    from bioforge.interfaces import Outcome
    from bioforge.window import Window

    class Never:
        def send(self, request: Request, client_request_id: str) -> Outcome:
            raise AssertionError("nothing is sent before its intent was taken")

        def close(self) -> None:
            pass

    before = sys.getswitchinterval()
    works = [Work(requests(1), Limits(1), QUICK) for _ in range(2)]
    runs = [
        drive(work, Window(work.limits, work.retry, lambda _: None, 0.0), ThreadLanes(Never(), 1)) for work in works
    ]
    for run in runs:
        next(run)
    assert sys.getswitchinterval() < before
    for run in runs:
        run.close()  # type: ignore[attr-defined]
    assert sys.getswitchinterval() == before
