"""Stories about early stops: a person, the budget, the key, a server that is down."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import parse_headers

import pytest

from bioforge.core.errors import UsageError
from bioforge.core.events import Started
from bioforge.core.interfaces import Limits, RunControl, Stop, Work
from bioforge.core.types import Paid, Request, Usage
from bioforge.testing.bench import BackendBench, assert_no_more_threads
from bioforge.testing.recorder import Recorded


class StoppingStories(BackendBench):
    """Part of `BackendContract`."""

    def slow_server(self, latency: float) -> None:
        if not self.latency:
            pytest.skip("the server answers at once")
        self.serve(latency=latency)

    def test_the_first_stop_awaits_what_is_in_flight(self) -> None:
        """After the first Ctrl-C nothing more is sent, and paid answers are not thrown away."""
        self.only_calls()
        stop = Stop()

        def look(recorded: Recorded, work: Work) -> None:
            if len(recorded.succeeded) >= 10 and not stop.level:
                stop.raise_level()

        self.slow_server(0.01)
        recorded = self.run(self.requests(200), stop=stop, look=look)
        assert 10 <= len(recorded.succeeded) < 40
        assert recorded.stopped is not None
        assert recorded.stopped.kind == "interrupted"
        recorded.check(self.server.charged())
        assert all(event.paid is Paid.NO for event in recorded.failed)

    def test_the_second_stop_leaves_at_once(self) -> None:
        """After the second Ctrl-C calls in flight are maybe paid, which the recorded starts show."""
        self.only_calls()
        stop = Stop()

        def look(recorded: Recorded, work: Work) -> None:
            threading.Timer(0.1, lambda: (stop.raise_level(), stop.raise_level())).start()

        self.slow_server(30.0)
        started = time.monotonic()
        recorded = self.run(self.requests(20), stop=stop, look=look)
        assert time.monotonic() - started < 5.0
        assert 1 <= len(recorded.of(Started)) <= 8
        assert recorded.stopped is not None
        assert recorded.stopped.kind == "interrupted"
        assert not [event for event in recorded.failed if event.paid is Paid.NO], "nobody knows that it cost nothing"

    def test_a_stop_while_the_starts_are_stored_sends_nothing(self) -> None:
        """Announced requests that were not sent are released without using up an attempt."""
        stop = Stop()
        self.serve()
        recorded = self.run(self.requests(20), stop=stop, look=lambda recorded, work: stop.level or stop.raise_level())
        assert not self.server.charged()
        announced = len(recorded.of(Started))
        assert announced >= 1
        given_back = [(event.paid, event.final, event.counted) for event in recorded.failed]
        assert given_back == [(Paid.NO, False, False)] * announced

    def test_a_consumer_that_leaves_early_leaves_nothing_running(self) -> None:
        """When a full disk ends the command, its threads must not keep the process alive."""
        self.only_calls()
        self.slow_server(30.0)
        before = threading.active_count()
        groups = self.backend().execute(Work(self.requests(20), Limits(8)))
        next(iter(groups))
        groups.close()  # type: ignore[attr-defined]
        assert_no_more_threads(before)
        groups = self.backend().execute(Work(self.requests(20), Limits(8), control=RunControl(stop := Stop())))
        next(iter(groups))
        threading.Timer(0.1, lambda: (stop.raise_level(), stop.raise_level())).start()
        list(groups)
        assert_no_more_threads(before)

    def test_who_leaves_at_once_leaves_no_call_behind(self) -> None:
        """The server accepts a call and never answers it."""
        self.only_calls()
        if not self.sends_to_base_url:
            pytest.skip("it does not open connections itself")
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
            recorded = self.run(self.requests(1), stop=stop, base_url=url)
            thread.join()
            assert recorded.stopped is not None
            try:
                assert_no_more_threads(before)
            finally:
                for connection in taken:
                    connection.close()

    def test_an_error_of_the_source_is_raised_when_all_is_settled(self) -> None:
        """A template fails at the fourth artist: the three before it were paid for."""
        self.only_calls()

        def source() -> Iterator[Request]:
            yield from self.requests(3)
            raise UsageError("the template names what is not there")

        if self.latency:
            self.serve(latency=0.05)
        recorded = Recorded()
        with pytest.raises(UsageError, match="template"):
            recorded.groups.extend(self.backend().execute(Work(source(), Limits(8))))
        assert len(recorded.succeeded) == 3
        recorded.check(self.server.charged())

    def test_no_money_left_stops_the_run_and_blames_nobody(self) -> None:
        """Every further request would be refused too, so none of them uses up an attempt."""
        if not self.quota:
            pytest.skip("the server has no quota")
        self.serve(quota_after=10)
        recorded = self.run(self.requests(50))
        assert recorded.stopped is not None
        assert (recorded.stopped.kind, len(recorded.succeeded)) == ("quota", 10)
        assert recorded.stopped.hint
        assert not any(event.final or event.counted for event in recorded.failed)
        recorded.check(self.server.charged())

    def test_a_wrong_key_stops_the_run(self) -> None:
        """No request fails for it: with the right key they are as new."""
        if self.invalid_key is None:
            pytest.skip("the server refuses no key")
        recorded = self.run(self.requests(50), key=self.invalid_key)
        assert recorded.stopped is not None
        assert recorded.stopped.kind == "key"
        assert recorded.stopped.hint
        assert not recorded.lost
        assert not self.server.charged()

    def test_the_budget_holds_to_the_cent(self) -> None:
        """Calls in flight count with their highest price, so the last answer does not exceed the budget either."""
        self.serve()
        most = self.backend().price(self.model, Usage(10, 120))
        if most is None:
            pytest.skip("its prices are unknown, and a budget has no meaning")
        budget = 20 * most
        recorded = self.run(self.requests(300, max_output_tokens=120), max_cost_usd=budget)
        assert recorded.stopped is not None
        assert recorded.stopped.kind == "budget"
        spent = sum(event.answer.cost_usd or 0.0 for event in recorded.succeeded)
        assert 0.5 * budget < spent <= budget
        assert len(recorded.succeeded) == len(self.server.charged()) < 300

    def test_an_outage_of_the_server_costs_nobody_an_answer(self) -> None:
        """A minute of 503 must not make three thousand failed artists."""
        self.only_calls()
        if not self.outages:
            pytest.skip("the server is never down")
        self.serve(outage=(0, 24))
        recorded = self.run(self.requests(60), concurrency=24)
        assert len(recorded.succeeded) == 60
        recorded.check(self.server.charged())
