"""What every backend must do (`bioforge.testing.BackendContract`), proved for each of ours against a real server and its
ledger; and what is ours alone: the words of OpenAI's answers, errors and ids.

What the contract tells of calls alone has no meaning for batches, or another one, which `test_batch_driver.py` tells:

- how many requests are pulled at once (a batch is as large as it may be), and what is in flight when somebody leaves (it
  goes on at the provider);
- an answer that breaks off or hangs: the provider alone has it until it is whole;
- a server that cannot be reached, or is no server: that ends the run, and fails no request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from bioforge.backends.openai.plugin import AsyncBackend, AutoBackend, BatchBackend, OpenAIBackend, ThreadsBackend
from bioforge.core.errors import UsageError
from bioforge.core.events import Failed, Started, Unusable
from bioforge.core.interfaces import BackendContext, BackendFactory, Limits, PurchaseDecision, RetryPolicy, Stop, Work
from bioforge.core.types import Paid, Request
from bioforge.simulator import Charge
from bioforge.testing import BackendContract, SimulatorServer

from .bench import QUICK, requests

ONCE = RetryPolicy(max_attempts=1)
POLLING: Mapping[str, object] = {"poll_seconds": 0.002, "poll_max_seconds": 0.01}
"""A simulator is done with a batch at once."""


class OpenAIContract(BackendContract):
    """The contract, and what OpenAI's own words add to it."""

    kind: type[OpenAIBackend]
    needs_key = True

    def factory(self) -> BackendFactory:
        return self.kind

    def charges(self) -> dict[str | None, Charge]:
        """By what an attempt is called on the server: in a batch the name of its line."""
        assert isinstance(self.server, SimulatorServer)
        return {one.custom_id or one.client_request_id: one for one in self.server.simulator.ledger.entries()}

    @pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/chat/completions"])
    def test_answers_are_told_in_full(self, endpoint: str) -> None:
        recorded = self.run(requests(30, endpoint))
        assert len(recorded.succeeded) == 30
        assert len(self.server.charged()) == 30
        recorded.check(self.server.charged())
        event = recorded.succeeded[0]
        assert (event.answer.text or "").startswith("Simulated answer")
        assert event.answer.usage is not None
        assert event.answer.cost_usd is not None
        assert event.answer.model == "gpt-6-luna-2026-05-01"
        assert event.seconds > 0 or event.attempt.batch is not None, "the clock of batches has whole seconds"
        assert (event.request_id or "").startswith("req_")

    def test_bodies_go_out_byte_for_byte_and_attempts_are_named(self) -> None:
        sent = list(requests(["Absalon", "Łempicka – ünïcode"]))
        recorded = self.run(iter(sent))
        charges = self.charges()
        for event in recorded.succeeded:
            charge = charges[event.attempt.client_request_id]
            assert f"Simulated answer {charge.body_sha256[:8]}" in (event.answer.text or "")
        assert len(recorded.succeeded) == 2

    def test_what_cannot_be_used_has_a_price(self) -> None:
        self.serve(script={"Absalon": ["refusal"]})
        (event,) = self.run(requests(["Absalon"])).of(Unusable)
        assert event.answer.cost_usd is not None

    def test_a_refused_request_keeps_the_code_it_was_refused_with(self) -> None:
        self.serve(script={"Absalon": ["bad_request"]})
        (failed,) = self.run(requests(["Absalon", "Abakanowicz"])).lost
        assert (failed.failure.error_class, failed.failure.code) == ("bad_request", "invalid_prompt")

    def test_half_a_body_is_kept(self) -> None:
        self.only_calls()
        self.serve(script={"Absalon": ["truncated"]})
        (failed,) = self.run(requests(["Absalon"]), retry=ONCE).lost
        assert (failed.body or b"").startswith(b'{"id":"resp_')

    def test_no_money_left_and_a_wrong_key_say_what_to_do(self) -> None:
        self.serve(quota_after=10)
        stopped = self.run(requests(50)).stopped
        assert stopped is not None
        assert "credit" in stopped.hint
        self.serve()
        stopped = self.run(requests(["Absalon"]), key="sk-invalid-1").stopped
        assert stopped is not None
        assert "api_key_env" in stopped.hint

    def test_as_many_are_begun_as_may_be_in_flight(self) -> None:
        stop = Stop()
        recorded = self.run(requests(20), stop=stop, look=lambda recorded, work: stop.level or stop.raise_level())
        assert len(recorded.of(Started)) >= 8
        assert not self.server.charged()

    def test_who_leaves_at_once_says_nothing_of_what_is_in_flight(self) -> None:
        """Its start is recorded, and that it may have been paid for."""
        self.only_calls()
        stop = Stop()

        def look(recorded: Any, work: Work) -> None:
            threading.Timer(0.1, lambda: (stop.raise_level(), stop.raise_level())).start()

        self.serve(latency=30.0)
        recorded = self.run(requests(20), stop=stop, look=look)
        assert len(recorded.of(Started)) == 8
        assert not recorded.failed

    def test_an_outage_of_the_server_costs_nobody_an_answer(self) -> None:
        super().test_an_outage_of_the_server_costs_nobody_an_answer()
        assert self.recorded.notices("breaker")

    def test_a_missing_key_is_said_with_what_to_do(self) -> None:
        context = BackendContext("https://api.openai.com/v1", None, "MY_KEY")
        with pytest.raises(UsageError, match="MY_KEY is not set") as caught:
            self.kind(context).check()
        assert "export MY_KEY" in caught.value.hint

    def test_a_server_on_this_machine_needs_none(self) -> None:
        self.backend(key=None).check()
        assert len(self.run(requests(2), key=None).succeeded) == 2


class TestThreads(OpenAIContract):
    kind = ThreadsBackend


class TestAsync(OpenAIContract):
    kind = AsyncBackend


class TestBatch(OpenAIContract):
    kind = BatchBackend
    batch = True
    options = POLLING


class TestAutoByCalls(OpenAIContract):
    kind = AutoBackend
    siblings: Mapping[str, Mapping[str, object]] = {"batch": POLLING}
    choice = PurchaseDecision("standard", "", ())


class TestAutoByBatch(OpenAIContract):
    kind = AutoBackend
    batch = True
    siblings: Mapping[str, Mapping[str, object]] = {"batch": POLLING}
    choice = PurchaseDecision("batch", "", (), tier="batch", then="standard")


# ------------------------------------------------------------------------------------------------------- the driver


def test_what_a_sender_should_not_raise_fails_one_attempt_and_not_the_run() -> None:
    from bioforge.backends.asyncio import AsyncExecutor
    from bioforge.backends.driver import drive
    from bioforge.backends.scheduler.scheduler import Scheduler
    from bioforge.backends.threads import ThreadExecutor
    from bioforge.core.interfaces import Outcome

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

    for lanes in (ThreadExecutor(Broken(), 2), AsyncExecutor(BrokenAsync)):
        work = Work(requests(3), Limits(2), QUICK)
        window = Scheduler(work.limits, work.retry, lambda _: None, time.monotonic())
        events = [event for group in drive(work, window, lanes) for event in group]
        failed = [event for event in events if isinstance(event, Failed)]
        assert [(event.failure.error_class, event.paid) for event in failed] == [("internal", Paid.MAYBE)] * 3


def test_drivers_side_by_side_leave_the_interpreter_as_it_was() -> None:
    """The second one begins when turns are short already: what is put back is not what it found."""
    import sys

    from bioforge.backends.driver import drive
    from bioforge.backends.scheduler.scheduler import Scheduler
    from bioforge.backends.threads import ThreadExecutor
    from bioforge.core.interfaces import Outcome

    class Never:
        def send(self, request: Request, client_request_id: str) -> Outcome:
            raise AssertionError("nothing is sent before its intent was taken")

        def close(self) -> None:
            pass

    before = sys.getswitchinterval()
    works = [Work(requests(1), Limits(1), QUICK) for _ in range(2)]
    runs = [
        drive(work, Scheduler(work.limits, work.retry, lambda _: None, 0.0), ThreadExecutor(Never(), 1))
        for work in works
    ]
    for run in runs:
        next(run)
    assert sys.getswitchinterval() < before
    for run in runs:
        run.close()  # type: ignore[attr-defined]
    assert sys.getswitchinterval() == before
