"""The contract of backends, as tests to derive from."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing

import pytest

from bioforge.core.errors import UsageError
from bioforge.core.events import Started, Unusable
from bioforge.core.hashing import canonical
from bioforge.core.interfaces import RetryPolicy, Stop, Work
from bioforge.core.types import Paid, Rendered, Request, Usage
from bioforge.testing.bench import BackendBench
from bioforge.testing.recorder import Book, Recorded
from bioforge.testing.stops import StoppingStories

ONCE = RetryPolicy(max_attempts=1)
GIVES_UP = RetryPolicy(max_attempts=1, outage_seconds=0.0)

_TABLES = {"refusal": "refusals", "broken_answer": "broken", "unusable_answer": "unusable"}
"""Stories that run for each entry of a table, by the name of their argument."""


class BackendContract(StoppingStories, BackendBench):
    """Derive a test class from it, say which backend, and pytest runs every story against a real server.

    ```python
    class TestRay(BackendContract):              # it speaks to OpenAI-compatible servers: the simulator is the server
        options = {"actors": 2}

        def factory(self):
            return RayBackend


    class TestMyVendor(BackendContract):         # its vendor has a form of its own, and so has its server
        model = "my-model-1"
        refusals = {"rate_limit": "rate_limit", "overloaded": "overloaded"}
        broken = {}

        def factory(self):
            return MyBackend

        def start_server(self, stack, **options):
            return stack.enter_context(MyServer(**options))   # has .base_url and .charged()
    ```
    The attributes (`BackendBench`) say what the server can do; without them it is taken for the simulator.
    """

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        for argument, table in _TABLES.items():
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, list(getattr(self, table).items()), ids=list(getattr(self, table)))

    # -------------------------------------------------------------------------------------------------------- answers

    def test_every_request_is_answered_once(self) -> None:
        """Each request has one answer, paid for once, at each endpoint."""
        self.serve()
        charges = 0
        for endpoint in self.backend().endpoints:
            recorded = self.run(self.requests(30, endpoint))
            assert recorded.stopped is None
            assert len(recorded.succeeded) == 30
            assert len({event.attempt.request.artist_id for event in recorded.succeeded}) == 30
            assert len(self.server.charged()) == charges + 30
            recorded.check(self.server.charged()[charges:])
            charges += 30

    def test_each_answer_is_of_its_own_request(self) -> None:
        """An answer under another artist's name looks right, so it would never be noticed."""
        self.serve()
        wanted = list(self.requests(24))
        marks = {one.request_hash: self.mark(one) for one in wanted}
        known = None not in marks.values()
        if not known:
            wanted = wanted[:6]
            marks = {one.request_hash: self.text_alone(one) for one in wanted}
            assert len(set(marks.values())) == 6, (
                "every answer has the same text: have the server say something of its own to each request, or give `mark`"
            )
            self.book = Book()  # they are asked once more
        answered = self.run(iter(wanted)).succeeded
        assert len(answered) == len(wanted)
        for event in answered:
            mark = marks[event.attempt.request.request_hash]
            assert mark is not None
            right = mark in (event.answer.text or "") if known else mark == event.answer.text
            assert right, f"the answer of another request: {event.answer.text!r}, expected {mark!r}"

    def text_alone(self, request: Request) -> str | None:
        """Return the server's answer to a request that is sent alone."""
        (event,) = self.run(iter([request])).succeeded
        return event.answer.text

    def test_answers_have_what_is_kept_of_them(self) -> None:
        """The body is stored as received; text, tokens and price are shown."""
        for event in self.run(self.requests(3)).succeeded:
            assert event.answer.body
            assert event.answer.text
            assert event.answer.usage is not None
            assert event.answer.usage.output_tokens > 0
            assert event.answer.cost_usd is None or event.answer.cost_usd >= 0
            assert event.answer.problem is None
            assert event.seconds > 0 or event.attempt.batch is not None, "the clock of batches has whole seconds"

    def test_nothing_is_sent_before_its_start_was_recorded(self) -> None:
        """A crash loses an unrecorded request, which may have been charged."""
        known: set[str | None] = set()
        self.serve()

        def look(recorded: Recorded, work: Work) -> None:
            arrived = set(self.server.charged())
            assert arrived <= known, "it was sent before `Started` was durable: yield it first, then send"
            known.update(event.attempt.client_request_id for event in recorded.groups[-1] if isinstance(event, Started))

        self.run(self.requests(40), concurrency=5, look=look)
        assert len(known) == 40

    def test_requests_are_pulled_as_they_can_be_sent(self) -> None:
        """Requests are read from the state in pages; pulling them all at once holds a million of them in memory."""
        self.only_calls()
        pulled: list[Request] = []

        def source() -> Iterator[Request]:
            for request in self.requests(20):
                pulled.append(request)
                yield request

        def look(recorded: Recorded, work: Work) -> None:
            assert len(pulled) <= len(recorded.succeeded) + 4, "more was pulled than can be in flight"

        self.run(source(), concurrency=4, look=look)
        assert len(pulled) == 20

    def test_work_without_requests_ends(self) -> None:
        """The run of an up-to-date project."""
        recorded = self.run(iter(()))
        assert not recorded.of(Started)
        assert recorded.stopped is None

    def test_what_an_answer_brings_about_is_sent_too(self) -> None:
        """Exhausted `requests` are pulled again after each group of events.

        A recipe that needs another one has no request before that one is answered.
        """
        wanted = list(self.requests(6))
        queue = deque(wanted[:3])

        def look(recorded: Recorded, work: Work) -> None:
            if len(recorded.succeeded) == 3 and len(wanted) == 6:
                queue.extend(wanted[3:])
                wanted.clear()

        recorded = self.run(_Queue(queue), look=look)
        assert len(recorded.succeeded) == 6

    def test_what_comes_while_more_is_announced_is_sent_too(self) -> None:
        """While `more()` is true, a run has not ended although nothing is there to send; a nudge announces requests."""
        wanted = list(self.requests(4))
        queue, announced = deque(wanted[:2]), [True]
        answered, stop = threading.Event(), Stop()

        def bring() -> None:
            answered.wait(20.0)
            queue.extend(wanted[2:])
            announced.clear()
            stop.nudge()

        def look(recorded: Recorded, work: Work) -> None:
            if len(recorded.succeeded) >= 2:
                answered.set()

        thread = threading.Thread(target=bring)
        thread.start()
        recorded = self.run(_Queue(queue), stop=stop, more=lambda: bool(announced), look=look)
        answered.set()
        thread.join()
        assert len(recorded.succeeded) == 4

    # ------------------------------------------------------------------------------------------------ bodies, prices

    def test_endpoints_and_dialect_are_texts(self) -> None:
        """They identify a request: with another first endpoint or dialect every answer is stale."""
        backend = self.backend()
        endpoints, dialect = backend.endpoints, backend.dialect
        assert isinstance(endpoints, tuple), f"endpoints: expected a tuple of texts, found {endpoints!r}"
        assert endpoints, "endpoints: expected one at least, which recipes have that name none"
        for one in endpoints:
            assert isinstance(one, str), f"endpoints: expected texts, found {one!r}"
            assert one.startswith("/"), f"endpoints: expected paths like '/v1/responses', found {one!r}"
        assert len(set(endpoints)) == len(endpoints), f"endpoints: one stands there twice: {endpoints!r}"
        assert isinstance(dialect, str), f"dialect: expected a text, found {dialect!r}"
        assert dialect.strip(), "dialect: expected a name for the form of the bodies"

    def test_the_same_texts_give_the_same_body(self) -> None:
        """A request is identified by its body: one that differs each day is paid for each day."""
        self.serve()
        first, second = self.backend(), self.backend()
        for endpoint in first.endpoints:
            texts = [
                Rendered(endpoint, self.model, "Be brief.", name, None, self.parameters)
                for name in ("Björk", "Absalon")
            ]
            body = canonical(first.body(texts[0]))
            assert body == canonical(first.body(texts[0])) == canonical(second.body(texts[0]))
            assert body != canonical(first.body(texts[1])), "the input is not in the body"

    def test_a_price_is_known_or_not(self) -> None:
        """None if it is unknown: a price of 0 would make a budget worthless."""
        backend = self.backend()
        for usage in (Usage(), Usage(1000, 1000), Usage(1000, 1000, cached_tokens=500, reasoning_tokens=100)):
            price = backend.price(self.model, usage)
            assert isinstance(price, float | int | None), f"expected a number or None, found {price!r}"
            assert price is None or price >= 0
        assert backend.price("no-such-model-anywhere", Usage(1000, 1000)) is None

    # --------------------------------------------------------------------------------------------------------- faults

    def survives(self, fault: str, error_class: str, paid: Paid) -> None:
        """Send one request that meets a fault and is answered by the second attempt."""
        self.serve(script={"Absalon": [fault, "ok"]}, retry_after=0.02)
        recorded = self.run(self.requests(["Absalon"]))
        (failed,) = recorded.failed
        assert (failed.failure.error_class, failed.paid, failed.final) == (error_class, paid, False)
        assert len(recorded.succeeded) == 1
        assert bool(failed.body) == (fault not in self.nothing_received), "what was received is kept"
        recorded.check(self.server.charged())

    def test_a_refusal_is_named_and_survived(self, refusal: tuple[str, str]) -> None:
        """It costs nothing and is retried; failures are counted by class."""
        self.survives(*refusal, Paid.NO)

    def test_a_broken_answer_is_named_and_survived(self, broken_answer: tuple[str, str]) -> None:
        """It may have been charged, so it is maybe paid and never reported as free."""
        self.only_calls()
        self.survives(*broken_answer, Paid.MAYBE)

    def test_an_answer_that_cannot_be_used_is_kept_and_final(self, unusable_answer: tuple[str, str]) -> None:
        """It was paid for, so it is an answer with a problem, not a failure that is retried."""
        fault, error_class = unusable_answer
        self.serve(script={"Absalon": [fault]})
        recorded = self.run(self.requests(["Absalon"]))
        (event,) = recorded.of(Unusable)
        assert event.answer.problem is not None
        assert event.answer.problem.error_class == error_class
        assert event.answer.body
        recorded.check(self.server.charged())

    def test_a_refused_request_fails_alone(self) -> None:
        """The same request is refused each time: it is final at once and does not stop the others."""
        if self.bad_request is None:
            pytest.skip("the server refuses no request for what it says")
        fault, error_class = self.bad_request
        self.serve(script={"Absalon": [fault]})
        recorded = self.run(self.requests(["Absalon", "Abakanowicz"]))
        (failed,) = recorded.lost
        assert (failed.failure.error_class, failed.paid) == (error_class, Paid.NO)
        assert failed.failure.message
        assert len(recorded.succeeded) == 1
        recorded.check(self.server.charged())

    def test_a_hanging_answer_is_given_up_and_may_have_been_paid(self) -> None:
        """`BackendContext.timeout` limits each call. A maybe paid request is not sent again if the project says so."""
        self.only_calls()
        if self.hangs is None:
            pytest.skip("the server answers every request")
        self.serve(script={"Absalon": [self.hangs]})
        recorded = self.run(self.requests(["Absalon"]), timeout=0.3, retry=RetryPolicy(maybe_paid=False))
        (failed,) = recorded.lost
        assert (failed.failure.error_class, failed.paid) == ("timeout", Paid.MAYBE)
        recorded.check(self.server.charged())

    def test_nobody_listening_is_an_outage_that_cost_nothing(self) -> None:
        """Nothing was sent, so nothing was paid; and the run ends at some time."""
        self.only_calls()
        if not self.sends_to_base_url:
            pytest.skip("it does not open connections itself")
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        recorded = self.run(self.requests(3), base_url=f"http://127.0.0.1:{port}/v1", retry=GIVES_UP)
        assert {(event.failure.error_class, event.paid) for event in recorded.failed} == {("connection", Paid.NO)}
        assert recorded.stopped is not None

    def test_a_server_that_speaks_something_else_is_survived(self) -> None:
        """For example after a wrong port in the project file."""
        self.only_calls()
        if not self.sends_to_base_url:
            pytest.skip("it does not open connections itself")
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:

            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

            thread = threading.Thread(target=serve)
            thread.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            recorded = self.run(self.requests(1), base_url=url, retry=ONCE)
            thread.join()
        (failed,) = recorded.lost
        assert (failed.failure.error_class, failed.paid) == ("connection", Paid.MAYBE)

    def test_three_hundred_requests_through_every_fault(self) -> None:
        """All faults at once: no answer is lost, and no charge is unknown."""
        if not self.random_faults:
            pytest.skip("the server has no faults by chance")
        self.serve(faults=self.random_faults, retry_after=0.05, hang_seconds=2.0)
        recorded = self.run(self.requests(300), concurrency=32, timeout=0.5)
        recorded.check(self.server.charged())
        finished = {event.attempt.request.artist_id for event in recorded.succeeded}
        finished |= {event.attempt.request.artist_id for event in recorded.of(Unusable)}
        finished |= {event.attempt.request.artist_id for event in recorded.lost}
        assert len(finished) == 300
        assert recorded.stopped is None
        lost = {event.failure.error_class for event in recorded.lost}
        # an unreadable answer is retried only once
        assert lost <= ({self.bad_request[1], "malformed"} if self.bad_request else {"malformed"})

    # ----------------------------------------------------------------------------------------------------------- keys

    def test_a_missing_key_is_said_before_anything_is_sent(self) -> None:
        """`check()` names the variable, before a run of a million refusals."""
        if not self.needs_key:
            pytest.skip("it needs no key")
        with pytest.raises(UsageError, match="MY_KEY") as caught:
            self.backend("https://api.example.com/v1", key=None).check()
        assert caught.value.hint

    def test_with_a_key_there_is_nothing_to_complain_about(self) -> None:
        """`check()` runs at the start of every run."""
        self.backend().check()


class _Queue(Iterator[Request]):
    """A request iterator that continues after it was exhausted."""

    def __init__(self, queue: deque[Request]) -> None:
        self._queue = queue

    def __next__(self) -> Request:
        if not self._queue:
            raise StopIteration
        return self._queue.popleft()
