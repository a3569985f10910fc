"""Whose thread turns the event loop: the one that waits, also while a group is stored; one of its own inside of another loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from bioforge.backends import gil
from bioforge.backends.asyncio import AsyncExecutor
from bioforge.backends.driver import Executor, drive
from bioforge.backends.openai.client import OpenAIAsyncSender
from bioforge.backends.scheduler.scheduler import Scheduler
from bioforge.core.events import Attempt, Event, Started, Stopped, Succeeded
from bioforge.core.interfaces import BackendContext, Limits, Outcome, RetryPolicy, Work, run_inline
from bioforge.core.types import Request, Response

Send = Callable[[Request], Awaitable[Any]]


class Sender:
    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, request: Request, client_request_id: str) -> Outcome:
        await self._send(request)
        return Outcome(answer=Response(b"{}", "ok"))

    async def close(self) -> None:
        pass


def work(number: int, at_a_time: int) -> Work:
    asked = (Request(f"v1:{n}", "/e", "m", b"{}", str(n), "bio") for n in range(number))
    return Work(asked, Limits(concurrency=at_a_time), RetryPolicy(max_attempts=1))


def groups(work: Work, send: Send) -> Iterator[Sequence[Event]]:
    window = Scheduler(work.limits, work.retry, lambda _: None, time.monotonic())
    return drive(work, window, AsyncExecutor(lambda: Sender(send)))


def answered(events: Sequence[Event]) -> list[str]:
    return [event.attempt.request.artist_id for event in events if isinstance(event, Succeeded)]


async def nothing(request: Request) -> None:
    await asyncio.sleep(0)


def test_inside_of_a_running_loop_it_has_a_thread_of_its_own() -> None:
    threads = set()

    async def send(request: Request) -> None:
        threads.add(threading.current_thread())

    async def notebook() -> list[str]:
        return [name for group in groups(work(20, 4), send) for name in answered(group)]

    assert sorted(asyncio.run(notebook())) == sorted(map(str, range(20)))
    assert threads
    assert threading.current_thread() not in threads


def test_elsewhere_it_turns_on_the_thread_that_waits() -> None:
    threads = set()

    async def send(request: Request) -> None:
        threads.add(threading.current_thread())

    assert sum(len(answered(group)) for group in groups(work(20, 4), send)) == 20
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("within", [False, True], ids=["on its own", "inside of a loop"])
def test_calls_go_on_while_a_group_is_stored(within: bool) -> None:
    """The one that was answered first is stored while the other one is on its way, and only its answer ends that."""
    second = threading.Event()
    stored: list[bool] = []

    async def send(request: Request) -> None:
        if request.artist_id == "1":
            while not stored:
                await asyncio.sleep(0.001)
            second.set()

    def consume() -> list[str]:
        found: list[str] = []
        given = work(2, 2)
        for group in groups(given, send):

            def step(first: bool = "0" in answered(group)) -> None:
                if first:
                    stored.append(True)
                    assert second.wait(30), "the other call stood still"

            given.control.commit(step)
            found += answered(group)
        return found

    async def inside() -> list[str]:
        return consume()

    assert (asyncio.run(inside()) if within else consume()) == ["0", "1"]


def test_what_storing_raises_is_raised_and_the_calls_are_left() -> None:
    given = work(5, 2)

    def full() -> None:
        raise OSError("the disk is full")

    running = groups(given, nothing)
    next(running)
    next(running)
    with pytest.raises(OSError, match="disk is full"):
        given.control.commit(full)
    running.close()
    assert given.control.commit is run_inline


def test_an_interrupt_while_a_group_is_stored_waits_for_the_storing() -> None:
    """Nobody else may use the state before that."""
    given, finished = work(2, 2), threading.Event()
    begun = threading.Event()

    async def send(request: Request) -> None:
        if request.artist_id == "1":
            while not begun.is_set():
                await asyncio.sleep(0.001)
            raise KeyboardInterrupt  # as if it came now, on this thread

    def step() -> None:
        begun.set()
        finished.wait(0.05)
        finished.set()

    running = groups(given, send)
    next(running)  # announced
    next(running)  # the first is answered, the second on its way
    with pytest.raises(KeyboardInterrupt):
        given.control.commit(step)
    assert finished.is_set()
    running.close()


def test_a_signal_ends_the_waiting() -> None:
    given = work(3, 1)
    hanging = threading.Event()

    async def send(request: Request) -> None:
        hanging.set()
        await asyncio.Event().wait()  # for ever

    def stop() -> None:
        hanging.wait(30)
        given.control.stop.raise_level()
        given.control.stop.raise_level()

    threading.Thread(target=stop, daemon=True).start()
    last = list(groups(given, send))[-1][-1]
    assert isinstance(last, Stopped)
    assert last.kind == "interrupted"


# ------------------------------------------------------------------------------------- the thread has been elsewhere


class Answering:
    """A server that answers each connection's first request and closes it then, without having said so."""

    BODY = (
        b'{"status": "completed", "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}]}'
    )

    def __init__(self) -> None:
        self.served = 0
        self.closed = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            received = b""
            while b"{}" not in received:
                received += connection.recv(65536)
            self.served += 1
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(self.BODY)}\r\n\r\n"
            connection.sendall(head.encode() + self.BODY)
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
            self.closed.release()


def launched(number: int) -> Attempt:
    request = Request(f"v1:{number}", "/v1/responses", "m", b"{}", str(number), "bio")
    return Attempt(request, 1, "W01", str(number), time.time())


def test_a_connection_that_was_closed_meanwhile_is_not_used_again() -> None:
    server = Answering()
    context = BackendContext(base_url=server.url, api_key=None)
    lanes = AsyncExecutor(lambda: OpenAIAsyncSender(context, lambda *_: None))
    for number in range(3):
        lanes.submit([launched(number)])
        ((_, outcome),) = lanes.wait(30)
        assert outcome.answer is not None, outcome.failure
        assert server.closed.acquire(timeout=30)
    lanes.close(False)
    assert server.served == 3


def test_an_answer_that_came_in_time_is_no_timeout_however_late_it_is_looked_at() -> None:
    near, far = socket.socketpair()
    near.setblocking(False)

    async def send(request: Request) -> None:
        await asyncio.wait_for(asyncio.get_running_loop().sock_recv(near, 1), 0.1)

    lanes = AsyncExecutor(lambda: Sender(send))
    with near, far:
        lanes.submit([launched(1)])
        assert lanes.wait(0.0) == [], "on its way"
        far.send(b"x")
        until = time.monotonic() + 0.2
        while time.monotonic() < until:  # busy elsewhere, until after the timeout
            pass
        ((_, outcome),) = lanes.wait(30)
    lanes.close(False)
    assert outcome.answer is not None, outcome.failure


def test_nobody_goes_on_beside_a_step_however_often_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    step: Future[None] = Future()
    interrupts = iter([True, True, False])

    def waiting(steps: list[Future[None]]) -> None:
        if next(interrupts):
            raise KeyboardInterrupt
        step.set_result(None)

    monkeypatch.setattr(gil, "wait_for", waiting)
    with pytest.raises(KeyboardInterrupt):
        gil.wait_to_end(step)
    assert step.done()


def test_lanes_that_are_closed_can_still_be_woken_and_stored_beside() -> None:
    lanes = AsyncExecutor(lambda: Sender(nothing))
    lanes.submit([launched(1)])
    lanes.close(True)
    lanes.wake()
    stored: list[bool] = []
    lanes.commit(lambda: stored.append(True))
    assert stored == [True]


class ByHand(Executor):
    """Attempts end when the test says so."""

    def submit(self, attempts: Sequence[Attempt]) -> None: ...

    def close(self, abandon: bool) -> None: ...


def test_no_more_than_enough_is_taken_at_once_and_the_rest_is_next() -> None:
    lanes, outcome = ByHand(), Outcome(answer=Response(b"{}", "ok"))
    attempts = [Attempt(Request("v1:x", "/e", "m", b"{}", "1", "bio"), 1, "W01", str(n), 0.0) for n in range(5)]
    for attempt in attempts:
        lanes.put(attempt, outcome)
    assert [attempt.client_request_id for attempt, _ in lanes.wait(30, enough=3, linger=30)] == ["0", "1", "2"]
    assert [attempt.client_request_id for attempt, _ in lanes.wait(30)] == ["3", "4"]
    lanes.wake()
    assert lanes.wait(30) == [], "woken for something else"


def test_a_group_is_half_of_what_is_in_flight_so_that_the_other_half_is_on_its_way() -> None:
    together: list[int] = []
    for group in groups(work(64, 8), nothing):
        together.append(sum(not isinstance(event, Started) for event in group))
    assert max(together) <= 4
    assert sum(together) == 64
