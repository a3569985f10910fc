"""The batch driver, told as stories: on a service in memory and a clock that nobody waits for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from random import Random

import pytest

from bioforge.backends.batch import fill
from bioforge.backends.batch.collect import GROUP as PAGE
from bioforge.backends.batch.driver import BatchDriver, BatchOptions
from bioforge.backends.batch.service import BatchResult
from bioforge.core.events import (
    Attempt,
    BatchChanged,
    Event,
    Failed,
    LimitLearned,
    Notice,
    Started,
    Succeeded,
    UnmatchedLine,
    Unusable,
)
from bioforge.core.interfaces import Member, Outcome, RetryPolicy, Work
from bioforge.core.types import Batch, BatchProblem, BatchState, Failure, Paid, Request, Response, Usage

from .fake_service import (
    AT_ONCE,
    DROPPED,
    FORBIDDEN,
    GONE,
    KEY,
    LOST,
    NOW,
    OUTAGE,
    POLL,
    QUOTA,
    REFUSED,
    TOKENS,
    USAGE,
    Clock,
    Course,
    FakeInlineService,
    FakeService,
    Job,
    Trouble,
    World,
    requests,
)

SLOW = Course(looks=1000)
"""The course of a job that nobody sees the end of."""


class Crash(Exception):
    """A process dies."""


class TestSteps:
    def test_each_step_is_durable_before_the_next_call(self) -> None:
        world = World(requests(3))
        world.service.fates = {"a-1": ["refused"]}
        world.run()
        assert world.story == [
            "b1 preparing",
            "members of b1 × 3",
            "b1 prepared",
            "upload b1",
            "b1 uploaded",
            "create b1",
            "b1 submitted",
            "look at b1",
            "b1 completed",
            "download output of b1",
            "answers × 2",
            "download errors of b1",
            "failed",
            "b1 collected",
        ]
        assert world.stopped is None

    def test_members_are_recorded_in_groups_and_sealed_when_they_are_all_there(self) -> None:
        world = World(requests(fill.GROUP + 200))
        world.run()
        assert world.story[:5] == [
            "b1 preparing",
            f"members of b1 × {fill.GROUP - 1}",
            "members of b1 × 201",
            "b1 prepared",
            "upload b1",
        ]

    def test_answers_are_recorded_in_groups(self) -> None:
        world = World(requests(PAGE + 200)).run()
        download = world.story.index("download output of b1")
        assert world.story[download + 1 :] == [f"answers × {PAGE}", "answers × 200", "b1 collected"]

    def test_the_file_is_what_the_state_says_line_by_line(self) -> None:
        world = World(requests(250)).run()
        (file_id,) = {job.file_id for job in world.service.jobs}
        name, content = world.service.files[file_id]
        (batch,) = world.book.batches.values()
        assert name == f"{batch.key}.jsonl"
        assert [json.loads(line) for line in content.splitlines()] == [
            {"id": f"a-{number}.1", "body": {"artist": number}} for number in range(250)
        ]
        assert (batch.requests, batch.bytes, batch.input_tokens) == (250, len(content), 2500)
        assert batch.estimated_usd == pytest.approx(2.5)

    def test_nothing_to_ask_is_nothing_to_do(self) -> None:
        world = World().run()
        assert (world.story, world.events, world.waits) == ([], [], [])

    def test_files_on_their_way_are_removed(self, tmp_path: Path) -> None:
        folder = tmp_path / "batches"
        world = World(requests(3), folder=folder, max_requests=2)
        seen: list[list[str]] = []
        world.service.before = lambda call: seen.append(sorted(path.name for path in folder.iterdir()))
        world.run()
        keys = list(world.book.batches)
        assert seen == [[f"{keys[0]}.jsonl"], [], [f"{keys[1]}.jsonl"], *[[]] * 5]
        assert not folder.exists()

    def test_the_gauges_tell_what_is_open_and_when_it_is_looked_at(self) -> None:
        world = World(requests(3))
        world.service.usual = Course(looks=2)
        gauges = []

        def tick(moment: float) -> None:
            gauges.append(world.work.control.gauges)
            world.pass_time(moment)

        world.tick = tick
        world.run()
        assert [(one.in_flight, one.waiting, [batch.state for batch in one.batches]) for one in gauges] == [
            (3, "batches", [BatchState.SUBMITTED]),
            (3, "batches", [BatchState.IN_PROGRESS]),
        ]
        last = world.work.control.gauges
        assert (last.in_flight, last.waiting, last.batches, last.look_at) == (0, "", (), None)


class TestSplitting:
    def test_by_requests(self) -> None:
        world = World(requests(5), max_requests=2).run()
        assert world.sizes == [2, 2, 1]
        assert world.book.count() == {"answered": 5}

    def test_by_bytes_counted_as_they_are_sent(self) -> None:
        line = len(b'{"id":"a-0.1","body":{"artist":0}}\n')
        world = World(requests(5), max_bytes=2 * line).run()
        assert world.sizes == [2, 2, 1]
        assert {len(content) for name, content in world.service.files.values() if name != "results"} == {line, 2 * line}

    def test_a_line_that_is_too_long_for_any_batch_goes_alone(self) -> None:
        asked = requests(3)
        asked[1] = replace(asked[1], body=b'{"artist":"' + b"x" * 500 + b'"}')
        world = World(asked, max_bytes=200).run()
        assert world.sizes == [1, 1, 1]

    def test_by_model_and_endpoint(self) -> None:
        chat = requests(2, 4, endpoint="/v1/chat/completions")
        asked = [request for pair in zip(requests(2), requests(2, 2, "n"), chat, strict=True) for request in pair]
        world = World(asked).run()
        assert [(job.model, job.names) for job in world.service.jobs] == [
            ("m", ["a-0.1", "a-1.1"]),
            ("n", ["a-2.1", "a-3.1"]),
            ("m", ["a-4.1", "a-5.1"]),
        ]
        assert {batch.endpoint for batch in world.book.batches.values()} == {"/v1/responses", "/v1/chat/completions"}
        assert len(world.waits) == 1, "all of them are under way before any is looked at"

    def test_a_full_batch_leaves_before_more_requests_are_pulled(self) -> None:
        pulled: list[int] = []

        def source() -> Iterator[Request]:
            for request in requests(6):
                pulled.append(len(world.service.jobs))
                yield request

        world = World(source(), max_requests=2)
        world.run()
        assert pulled == [0, 0, 0, 1, 1, 2], "jobs there were when each request was pulled"


class TestTokenLimits:
    def test_what_is_beyond_the_configured_limit_waits_and_goes_later(self) -> None:
        world = World(requests(5), max_enqueued_tokens=20)
        waiting = []
        world.tick = lambda moment: (waiting.append(world.work.control.gauges.waiting), world.pass_time(moment))
        world.run()
        assert world.sizes == [2, 2, 1]
        assert world.story.index("b1 completed") < world.story.index("create b2")
        assert (waiting[0], waiting[-1]) == ("room for more batches", "batches")

    def test_room_that_a_collected_batch_leaves_is_used_at_once(self) -> None:
        world = World(requests(5), max_enqueued_tokens=20).run()
        assert world.waits == [POLL] * 3, "for each batch, and for nothing else"

    def test_it_is_one_limit_for_each_model(self) -> None:
        world = World([*requests(2), *requests(2, 2, "n")], max_enqueued_tokens=20).run()
        assert world.sizes == [2, 2]
        assert len(world.waits) == 1

    @pytest.mark.parametrize("refuses", ["create", "failed"])
    def test_a_refusal_teaches_the_limit(self, refuses: str) -> None:
        world = World(requests(5))
        world.service.limit, world.service.refuses = 30, refuses
        world.run()
        assert world.book.limits == {"m": 30}
        assert world.sizes == [3, 2] if refuses == "create" else [5, 3, 2]
        assert world.book.count() == {"answered": 5}
        given_back = world.of(Failed)
        assert {(event.failure.error_class, event.paid, event.final, event.counted) for event in given_back} == {
            ("enqueued_tokens", Paid.NO, False, False)
        }
        assert len(given_back) == 5
        assert [batch.state for batch in world.book.batches.values()] == ["released", "collected", "collected"]

    def test_a_refusal_without_a_number_halves_what_is_asked(self) -> None:
        world = World(requests(5))
        world.service.limit, world.service.names_limit = 30, False
        world.run()
        assert world.sizes[0] == 2
        assert world.book.count() == {"answered": 5}
        assert world.book.limits == {}, "nobody knows whether others had enqueued something"

    def test_a_limit_above_what_was_refused_shrinks_the_next_batch(self) -> None:
        """The provider counts more tokens than were estimated, or others have enqueued some."""
        world = World(requests(5))
        world.service.limit, world.service.others = 100, 70
        world.run()
        assert world.sizes == [3, 2]
        assert [event.tokens for event in world.of(LimitLearned)] == [100, 100]

    def test_a_refusal_beside_another_batch_waits_for_that_one(self) -> None:
        world = World(requests(5), max_requests=2)
        world.service.limit = 30
        world.run()
        assert [job.names for job in world.service.jobs] == [["a-0.1", "a-1.1"], ["a-4.1"], ["a-2.2", "a-3.2"]]
        assert world.story.index("b1 completed") < len(world.story) - 1 - world.story[::-1].index("create b4")

    def test_the_limit_of_an_earlier_run_is_kept_to(self) -> None:
        world = World(requests(4), learned={"m": 20, "n": 1})
        world.service.limit = 20
        world.run()
        assert world.sizes == [2, 2]
        assert world.of(LimitLearned) == []

    def test_of_two_limits_the_lower_counts(self) -> None:
        assert World(requests(4), learned={"m": 20}, max_enqueued_tokens=30).run().sizes == [2, 2]
        assert World(requests(4), learned={"m": 30}, max_enqueued_tokens=20).run().sizes == [2, 2]

    def test_a_request_that_is_too_large_for_the_limit_fails_in_the_end(self) -> None:
        world = World(requests(1), retry=RetryPolicy(first_delay=0.0, max_attempts=3))
        world.service.limit = 5
        world.run()
        assert [(event.failure.error_class, event.final) for event in world.failed("a-0")] == [
            ("enqueued_tokens", False),
            ("enqueued_tokens", False),
            ("enqueued_tokens", True),
        ]
        assert world.waits == [POLL, POLL]
        assert (world.stopped, world.sizes) == (None, [])

    def test_others_who_use_up_the_limit_are_waited_for(self) -> None:
        world = World(requests(1))
        world.service.limit, world.service.others = 30, 30

        def tick(moment: float) -> None:
            world.service.others -= 10
            world.pass_time(moment)

        world.tick = tick
        world.run()
        assert (world.sizes, world.waits) == ([1], [POLL, POLL])
        assert world.book.count() == {"answered": 1}

    def test_when_others_are_done_batches_are_large_again(self) -> None:
        """A request alone was refused while nothing of ours was enqueued: that says nothing about the limit."""
        world = World(requests(100))
        world.service.limit, world.service.others, world.service.names_limit = 1000, 1000, False

        def tick(moment: float) -> None:
            world.service.others = 0
            world.pass_time(moment)

        world.tick = tick
        world.run()
        assert world.book.count() == {"answered": 100}
        assert len(world.sizes) <= 10, f"one request in each batch, one batch at a time: {world.sizes[:5]} …"
        later = world.next(requests(100, 100)).run()
        assert len(later.service.jobs) - len(world.sizes) <= 2, "and so it stays in every later run"

    def test_requests_without_an_estimate_are_not_refused_for_ever(self) -> None:
        world = World(requests(4, input_tokens=0))
        world.service.limit = 20
        world.service.before = _at_most(50)
        world.run()
        assert world.book.count() == {"answered": 4}


def _at_most(most: int) -> Callable[[str], None]:
    """Breaks off what would go on for ever."""
    calls = count(1)

    def before(call: str) -> None:
        assert next(calls) <= most, "it goes on for ever"

    return before


class TestBudget:
    def test_what_a_batch_did_not_need_is_spent_on_the_next_until_it_is_used_up(self) -> None:
        world = World(requests(6), price=0.02, max_cost_usd=0.05)
        committed: list[float] = []
        world.look = lambda group: (
            committed.append(world.driver.committed_usd) if world.story[-1].endswith(" submitted") else None
        )
        world.run()
        assert world.sizes == [2, 1, 1]
        assert list(dict.fromkeys(committed)) == pytest.approx([0.04, 0.05])
        assert world.driver.committed_usd == pytest.approx(0.04)
        assert world.kind == "budget"
        assert world.stopped is not None
        assert "0.04" in world.stopped.message
        assert world.book.count() == {"answered": 4}

    def test_what_suffices_stops_nobody(self) -> None:
        world = World(requests(5), price=0.01, max_cost_usd=0.05).run()
        assert (world.sizes, world.stopped) == ([5], None)

    def test_what_costs_more_than_expected_is_expected_to_from_then_on(self) -> None:
        world = World(requests(9), price=0.01, max_cost_usd=0.11, max_requests=2, max_enqueued_tokens=20)
        world.service.cost_usd = 0.02
        world.run()
        assert world.sizes == [2, 2, 1]
        assert (world.kind, world.driver.committed_usd) == ("budget", pytest.approx(0.1))

    def test_what_was_not_answered_is_free_again(self) -> None:
        world = World(requests(4), price=0.01, max_cost_usd=0.02)
        world.service.fates = {"a-0": ["refused"], "a-1": ["refused"]}
        world.run()
        assert world.sizes == [2, 2]
        assert (world.stopped, world.book.count()) == (None, {"failed": 2, "answered": 2})

    def test_a_batch_that_never_came_to_be_costs_nothing(self) -> None:
        world = World(requests(5), price=0.01, max_cost_usd=0.05)
        world.service.limit = 30
        world.run()
        assert (world.sizes, world.stopped) == ([3, 2], None)

    def test_without_a_limit_nothing_is_reserved(self) -> None:
        world = World(requests(3), price=5.0)
        world.tick = lambda moment: (waiting.append(world.driver.committed_usd), world.pass_time(moment))
        waiting: list[float] = []
        world.run()
        assert waiting == [0.0]

    def test_not_even_the_first_request_can_be_paid_for(self) -> None:
        world = World(requests(3), price=0.5, max_cost_usd=0.1).run()
        assert (world.kind, world.story) == ("budget", ["stopped: budget"])

    def test_a_batch_of_an_earlier_run_is_not_waited_for_as_it_frees_no_money(self) -> None:
        first = World(requests(1))
        first.service.usual = SLOW
        first.run(wait=False)
        world = first.next(requests(2, 1), "somebody else's", price=0.02, max_cost_usd=0.01).run()
        assert (world.kind, world.waits) == ("budget", [])

    @pytest.mark.parametrize("awaited", [(), ("nobody's",)], ids=["awaited", "not awaited"])
    def test_without_money_for_more_what_was_paid_for_is_collected_all_the_same(self, awaited: tuple[str, ...]) -> None:
        first = World(requests(1)).run(wait=False)
        world = first.next(requests(2, 1), *awaited, price=0.02, max_cost_usd=0.01).run()
        assert (world.kind, world.book.count()) == ("budget", {"answered": 1})

    def test_without_money_for_more_what_is_awaited_is_awaited(self) -> None:
        first = World(requests(1))
        first.service.usual = Course(looks=3)
        first.run(wait=False)
        world = first.next(requests(2, 1), price=0.02, max_cost_usd=0.01).run()
        assert (world.kind, world.book.count()) == ("budget", {"answered": 1})

    def test_what_may_have_been_paid_counts_as_spent(self) -> None:
        world = World(requests(3), price=0.01, max_cost_usd=0.02, max_requests=2)
        world.service.fates = {"a-1": ["lost"]}
        world.run()
        assert (world.kind, world.sizes) == ("budget", [2])
        assert world.driver.committed_usd == pytest.approx(0.02)

    def test_who_stops_for_its_failures_leaves_the_others_open(self) -> None:
        """Failures are counted by who records them; the driver is told to stop, like by anybody else."""
        world = World(requests(6), max_requests=2)
        world.service.fates = {"a-0": ["refused"], "a-1": ["refused"]}
        world.work.control.stop.raise_level("failures")
        world.run()
        assert (world.kind, world.sizes) == ("failures", [])


class TestUnclearEnds:
    def test_an_upload_that_arrived_is_adopted(self) -> None:
        world = World(requests(3))
        world.service.trouble = {"upload": [LOST]}
        world.run()
        assert world.story[3:8] == ["upload b1", "find file of b1", "b1 uploaded", "create b1", "b1 submitted"]
        assert world.notes(BatchState.UPLOADED) == ["its file had arrived"]

    def test_an_upload_that_did_not_arrive_is_made_again(self) -> None:
        world = World(requests(3))
        world.service.trouble = {"upload": [DROPPED, LOST]}
        world.run()
        calls = world.service.calls("upload", "find file")
        assert calls == ["upload b1", "find file of b1", "upload b1", "find file of b1"]
        assert len([name for name, _ in world.service.files.values() if name != "results"]) == 1

    def test_a_creation_that_happened_is_adopted(self) -> None:
        world = World(requests(3))
        world.service.trouble = {"create": [LOST]}
        world.run()
        assert world.story[5:8] == ["create b1", "find b1", "b1 in progress"]
        assert len(world.service.jobs) == 1
        assert world.notices == [
            f"creating batch {world.service.jobs[0].key}: no answer came; looking whether it has happened"
        ]
        assert world.waits == [], "it may have ended long ago, so it is looked at without waiting"

    def test_a_creation_that_did_not_happen_is_made_again(self) -> None:
        world = World(requests(3))
        world.service.trouble = {"create": [DROPPED.after(200)]}
        world.run()
        assert world.story[5:11] == ["create b1", *["find b1"] * 3, "create b1", "b1 submitted"]
        assert len(world.service.jobs) == 1

    def test_a_young_job_may_be_missing_from_the_list_for_a_while(self) -> None:
        world = World(requests(3))
        world.service.trouble, world.service.hidden = {"create": [LOST]}, 2
        moments: list[float] = []
        world.service.before = lambda words: moments.append(world.clock.now) if words == "find b1" else None
        world.run()
        assert world.story[5:10] == ["create b1", "find b1", "find b1", "find b1", "b1 in progress"]
        assert len(world.service.jobs) == 1
        assert all(later - earlier >= POLL / 2 for earlier, later in pairwise(moments))

    def test_however_long_the_upload_took(self) -> None:
        """It is the creation that may have been a moment ago."""
        world = World(requests(3))
        world.service.trouble, world.service.hidden = {"create": [LOST.after(500)]}, 2
        world.run()
        assert len(world.service.jobs) == 1

    @pytest.mark.parametrize("refusal", ["limit", "bad request"])
    def test_a_refusal_after_an_unclear_creation_gives_nothing_back(self, refusal: str) -> None:
        """The first creation may be the very reason for the refusal of the second."""
        world = World(requests(3))
        world.service.hidden = 6
        world.service.trouble = {"create": [LOST, REFUSED]} if refusal == "bad request" else {"create": [LOST]}
        world.service.limit = 30 if refusal == "limit" else None
        world.run()
        assert (world.kind, world.book.count()) == ("outage", {"in batch": 3})
        later = world.next(requests(3)).run()
        assert (len(later.service.jobs), later.book.count()) == (1, {"answered": 3})

    def test_a_creation_that_was_refused_for_now_is_looked_for_too(self) -> None:
        """A gateway that answers 503 may have let the call through."""
        world = World(requests(3))
        world.service.trouble = {"create": [replace(OUTAGE, done=True, seconds=200)]}
        world.run()
        assert world.story[5:8] == ["create b1", "find b1", "b1 in progress"]
        assert len(world.service.jobs) == 1

    def test_a_list_that_cannot_be_seen_stops_the_run_rather_than_creating_again(self) -> None:
        world = World(requests(3))
        world.service.trouble = {"create": [LOST], "find": [GONE]}
        world.run()
        assert (world.kind, world.book.count()) == ("outage", {"in batch": 3})
        assert world.stopped is not None
        assert "cannot be looked at: there is no such thing" in world.stopped.message
        later = world.next(requests(3)).run()
        assert len(later.service.jobs) == 1
        assert later.book.count() == {"answered": 3}

    def test_a_list_is_asked_for_through_outages(self) -> None:
        world = World(requests(3))
        world.service.trouble = {"create": [LOST], "find": [OUTAGE, DROPPED]}
        world.run()
        assert world.service.calls("create", "find") == ["create b1", *["find b1"] * 3]
        assert len(world.service.jobs) == 1


KINDS = pytest.mark.parametrize("world_of", [World, World.inline], ids=["files", "no files"])
"""Both kinds of providers."""


class TestAdoption:
    @KINDS
    @pytest.mark.parametrize("story", ["usual", "refused", "crowded"])
    def test_a_process_that_dies_after_any_group_is_gone_on_with(
        self, story: str, world_of: Callable[..., World]
    ) -> None:
        for place in count():
            world, again = _die(place, None, story, world_of)
            if not again:
                break
            _assert_asked_once(world, again)
        assert place > 15, "fewer moments than there are steps"

    @KINDS
    @pytest.mark.parametrize("story", ["usual", "crowded"])
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_a_process_that_dies_in_any_call_is_gone_on_with(
        self, moment: str, story: str, world_of: Callable[..., World]
    ) -> None:
        for place in count():
            world, again = _die(place, moment, story, world_of)
            if not again:
                break
            _assert_asked_once(world, again)
        assert place > 10, "fewer moments than there are calls"

    def test_one_that_dies_while_many_are_given_back_leaves_none_of_them_in_two_places(self) -> None:
        size = fill.GROUP + 200
        first = World(requests(size))
        first.service.limit = 10 * TOKENS * size
        first.service.others = first.service.limit
        first = _died_at(first, f"given back × {fill.GROUP}")
        first.service.others = 0
        world = first.next(requests(size)).run()
        assert (world.sizes, world.book.count()) == ([size], {"answered": size})

    def test_what_was_sealed_is_looked_for_and_then_sent(self) -> None:
        world = _died_at(World(requests(3)), "b1 prepared").next().run()
        assert world.story[3:10] == [
            "find b1",
            "find file of b1",
            "upload b1",
            "b1 uploaded",
            "create b1",
            "b1 submitted",
            "look at b1",
        ]

    def test_a_file_that_was_uploaded_is_used(self) -> None:
        first = World(requests(3))
        first.service.after = _dies("upload b1")
        with pytest.raises(Crash):
            first.run()
        world = first.next(requests(3)).run()
        assert world.service.calls("upload", "create") == ["upload b1", "create b1"]
        assert world.notes(BatchState.UPLOADED) == ["its file had been uploaded"]

    def test_a_job_that_was_created_is_used_and_looked_at_at_once(self) -> None:
        first = World(requests(3))
        first.service.after = _dies("create b1")
        with pytest.raises(Crash):
            first.run()
        world = first.next(requests(3)).run()
        assert world.service.calls("upload", "create") == ["upload b1", "create b1"]
        assert world.notes(BatchState.IN_PROGRESS) == ["found at the provider: it had been created"]
        assert world.waits == []

    def test_a_file_that_has_gone_meanwhile_gives_the_members_back(self) -> None:
        first = _died_at(World(requests(3)), "b1 uploaded")
        first.clock.now += 40 * 86_400
        first.service.trouble = {"create": [GONE]}
        world = first.next(requests(3)).run()
        assert world.kind == "refused"
        later = world.next(requests(3)).run()
        assert later.book.count() == {"answered": 3}
        assert later.sizes == [3]

    def test_what_was_being_prepared_is_left_to_the_state(self) -> None:
        first = _died_at(World(requests(3)), "members of b1 × 2", groups=1)
        world = first.next(requests(3)).run()
        assert world.sizes == [3]
        assert world.service.calls("find", "find file") == []

    def test_a_batch_that_ended_meanwhile_is_collected_at_once(self) -> None:
        first = World(requests(3))
        first.run(wait=False)
        first.clock.now += 86_400
        world = first.next(requests(2, 3)).run()
        assert world.book.count() == {"answered": 5}
        assert world.story.index("b1 collected") < world.story.index("look at b2")


def _die(
    place: int, moment: str | None, story: str, world_of: Callable[..., World] = World
) -> tuple[World, World | None]:
    """A process that dies after its n-th group, or before or after its n-th call; and the next one at its end.

    Usual: some requests fail. Refused: there is room for two at a time. Crowded: for a while others use up all of it.
    """
    world = world_of(requests(5), max_requests=5 if story == "refused" else 2)
    world.service.usual = Course(looks=3)
    world.service.fates = {"a-1": ["busy"], "a-3": ["refused"], "a-4": ["twice"]}
    world.service.limit = None if story == "usual" else 20
    world.service.others = 20 if story == "crowded" else 0
    world.tick = lambda moment: (setattr(world.service, "others", 0), world.pass_time(moment))
    steps = count()

    def step(_: object) -> None:
        if next(steps) == place:
            raise Crash

    if moment is None:
        world.look = lambda group: step(group) if group else None
    else:
        setattr(world.service, moment, step)
    try:
        world.run()
    except Crash:
        world.service.before = world.service.after = lambda call: None
        world.service.others = 0
        return world, world.next(requests(5), max_requests=5).run()
    return world, None


def _assert_asked_once(world: World, again: World) -> None:
    assert again.stopped is None
    assert again.book.count()["answered"] == 4 + (again.asked("a-3") > 1), world.story
    for artist, most in {"a-0": 1, "a-1": 2, "a-2": 1, "a-3": 2, "a-4": 1}.items():
        assert 1 <= again.asked(artist) <= most, f"{artist} in {world.story}"
    assert again.book.open() == []
    kept = {name for name, state in again.book.ends.items() if state == "answered"}
    assert kept == again.service.delivered()


def _dies(call: str) -> Callable[[str], None]:
    def hook(words: str) -> None:
        if words == call:
            raise Crash

    return hook


def _died_at(world: World, word: str, groups: int | None = None) -> World:
    """A process that dies when this was durable, or after so many groups."""
    seen = count(1)

    def look(group: Sequence[Event]) -> None:
        if (group and next(seen) == groups) or (groups is None and world.story[-1:] == [word]):
            raise Crash

    world.look = look
    with pytest.raises(Crash):
        world.run()
    return world


class TestWithoutFiles:
    """A provider that takes the requests with the creation, and knows a batch by them only when it has ended."""

    def test_each_step_is_durable_before_the_next_call(self) -> None:
        world = World.inline(requests(3)).run()
        assert world.story == [
            "b1 preparing",
            "members of b1 × 3",
            "b1 prepared",
            "b1 creating",
            "create b1",
            "b1 submitted",
            "look at b1",
            "b1 completed",
            "download output of b1",
            "answers × 3",
            "b1 collected",
        ]

    def test_what_was_sealed_is_sent_without_looking_for_it(self) -> None:
        """That it is being created is durable before it is: a stranger's job must not hold up what nobody asked for."""
        first = _died_at(World.inline(requests(3)), "b1 prepared")
        first.service.stranger(3, SLOW)  # type: ignore[attr-defined]
        world = first.next(requests(3)).run()
        assert world.story[3:6] == ["b1 creating", "create b1", "b1 submitted"]
        assert (world.service.calls("find"), world.book.count()) == ([], {"answered": 3})

    def test_what_was_being_created_is_looked_for_before_anything_else_is_sent(self) -> None:
        sealed = _died_at(World.inline(requests(3)), "b1 prepared")
        killed = sealed.next(requests(3, 3), batches=())  # a run that goes on with none of the open ones
        killed.service.after = _dies("create b2")
        with pytest.raises(Crash):
            killed.run()
        assert [batch.state for batch in killed.book.open()] == [BatchState.PREPARED, BatchState.CREATING]
        world = killed.next().run()
        assert world.service.calls("create", "find")[:3] == ["create b2", "find b2", "create b1"]
        assert (world.sizes, world.book.count()) == ([3, 3], {"answered": 6})

    @pytest.mark.parametrize("refusal", [KEY, FORBIDDEN], ids=["key", "permission"])
    def test_when_the_account_is_refused_nothing_was_created_and_nothing_is_looked_for(self, refusal: Trouble) -> None:
        world = World.inline(requests(3))
        world.service.trouble = {"create": [refusal]}
        world.run()
        assert (world.kind, world.book.count()) == ("key", {"in batch": 3})
        assert world.story[-4:] == ["b1 creating", "create b1", "b1 prepared", "stopped: key"]
        assert world.notes(BatchState.PREPARED) == ["", "it was not created"]
        later = world.next(requests(3)).run()
        assert later.service.calls("create", "find") == ["create b1"] * 2
        assert later.book.count() == {"answered": 3}

    @pytest.mark.parametrize("first", [LOST, DROPPED], ids=["lost", "dropped"])
    def test_when_the_account_is_refused_after_an_unclear_end_it_is_looked_for(self, first: Trouble) -> None:
        world = World.inline(requests(3))
        world.service.courses, world.service.trouble = [Course(looks=9)], {"create": [first, KEY], "find": [KEY]}
        world.run()
        assert world.kind == "key"
        assert [batch.state for batch in world.book.open()] == [BatchState.CREATING]
        later = world.next(requests(3))
        later.service.trouble = {}
        later.run()
        assert (later.sizes, later.book.count()) == ([3], {"answered": 3})

    def test_an_account_that_may_have_been_charged_before_it_was_refused_is_not_trusted(self) -> None:
        world = World.inline(requests(3))
        unclear = Outcome(failure=Failure("quota", "no money left"), paid=Paid.MAYBE, stops_run=True)
        world.service.trouble = {"create": [Trouble(unclear, done=True)]}
        world.run()
        assert [batch.state for batch in world.book.open()] == [BatchState.CREATING]
        later = world.next(requests(3)).run()
        assert (later.sizes, later.book.count()) == ([3], {"answered": 3})

    def test_a_job_of_which_no_state_is_told_is_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World.inline(requests(3))
        create = FakeInlineService.create_from

        def wordless(self: FakeInlineService, batch: Batch, project: str, path: Path) -> Batch:
            return replace(create(self, batch, project, path), state=batch.state)

        monkeypatch.setattr(FakeInlineService, "create_from", wordless)
        world.run()
        assert "b1 submitted" in world.story
        assert world.book.count() == {"answered": 3}

    def test_the_file_goes_with_the_creation_and_is_removed(self, tmp_path: Path) -> None:
        folder = tmp_path / "batches"
        world = World.inline(requests(3), folder=folder)
        world.service.trouble = {"create": [DROPPED]}
        seen: dict[str, list[str]] = {}
        world.service.before = lambda call: seen.update({call: [path.name for path in folder.iterdir()]})
        world.run()
        (key,) = world.book.batches
        assert (seen["create b1"], seen["look at b1"]) == ([f"{key}.jsonl"], [])
        (content,) = (content for name, content in world.service.files.values() if name == f"{key}.jsonl")
        assert world.service.names_in(content) == ["a-0.1.b1", "a-1.1.b1", "a-2.1.b1"]
        assert world.book.batches[key].bytes == len(content)

    def test_a_creation_that_did_not_happen_is_made_again_after_several_looks(self) -> None:
        world = World.inline(requests(3))
        world.service.trouble = {"create": [DROPPED]}
        world.run()
        assert world.service.calls("create", "find") == ["create b1", *["find b1"] * 3, "create b1"]
        assert world.book.count() == {"answered": 3}

    def test_a_creation_that_happened_is_waited_for_and_adopted(self) -> None:
        world = World.inline(requests(3))
        world.service.courses, world.service.trouble = [Course(looks=4)], {"create": [LOST]}
        world.run()
        assert world.service.calls("create", "find") == ["create b1", *["find b1"] * 4]
        assert (world.sizes, world.book.count(), world.stopped) == ([3], {"answered": 3}, None)
        assert len([words for words in world.notices if "it is not known yet whether batch" in words]) == 1
        assert world.waits[0] == POLL

    @pytest.mark.parametrize("ends", [2, 9], ids=["before it", "after it"])
    def test_a_job_of_a_stranger_is_waited_for_and_not_taken(self, ends: int) -> None:
        world = World.inline(requests(3))
        world.service.courses, world.service.trouble = [Course(looks=5)], {"create": [LOST]}
        world.service.stranger(3, Course(looks=ends))
        world.run()
        assert world.service.calls("create") == ["create b1"]
        assert (world.book.count(), world.stopped) == ({"answered": 3}, None)

    def test_when_every_job_is_excluded_it_is_created_again(self) -> None:
        world = World.inline(requests(3))
        world.service.trouble = {"create": [DROPPED]}
        world.service.stranger(3, Course(looks=4))
        world.run()
        assert world.service.calls("create") == ["create b1"] * 2
        assert world.service.calls("find")[:4] == ["find b1"] * 4
        assert world.book.count() == {"answered": 3}

    def test_one_s_own_batches_and_those_of_another_size_are_no_candidates(self) -> None:
        world = World.inline(requests(5), max_requests=2)
        world.service.courses, world.service.trouble = [SLOW, Course()], {"create": [None, DROPPED]}
        world.service.stranger(3, SLOW)
        world.run(wait=False)
        assert world.service.calls("create") == ["create b1", "create b2", "create b2", "create b3"]

    @pytest.mark.parametrize("crash", [False, True], ids=["lost", "killed"])
    def test_who_does_not_wait_is_told_and_nothing_is_created_again(self, crash: bool) -> None:
        world = World.inline(requests(3))
        world.service.courses = [Course(looks=4)]
        if crash:
            world.service.after = _dies("create b1")
            with pytest.raises(Crash):
                world.run()
        else:
            world.service.trouble = {"create": [LOST]}
            world.run(wait=False)
        for _ in range(2):
            world = world.next(requests(3)).run(wait=False)
            assert world.kind == "waiting"
            assert world.stopped is not None
            assert "it is not known yet whether batch bf-" in world.stopped.message
            assert "bioforge batch abandon bf-" in world.stopped.hint
            assert world.sizes == [3]
        world = world.next(requests(3)).run()
        assert (world.sizes, world.book.count()) == ([3], {"answered": 3})

    def test_others_go_on_meanwhile(self) -> None:
        world = World.inline(requests(5), max_requests=2)
        world.service.courses, world.service.trouble = [Course(looks=9)], {"create": [LOST]}
        world.run()
        assert world.story.index("b3 collected") < world.story.index("b1 collected")
        assert (world.sizes, world.book.count()) == ([2, 2, 1], {"answered": 5})

    def test_when_waiting_does_not_help_it_is_not_waited_for(self) -> None:
        world = World.inline(requests(5), max_requests=4)
        assert isinstance(world.service, FakeInlineService)
        world.service.courses, world.service.trouble = [SLOW], {"create": [LOST]}
        world.service.patience = None
        world.run()
        assert world.kind == "waiting"
        assert world.book.count() == {"in batch": 4, "answered": 1}

    def test_it_is_waited_for_no_longer_than_it_can_take(self) -> None:
        world = World.inline(requests(3))
        assert isinstance(world.service, FakeInlineService)
        world.service.courses, world.service.trouble = [SLOW], {"create": [LOST]}
        end = NOW + 3_600

        def passes(moment: float) -> None:
            world.clock.now = moment
            world.service.patience = end - moment  # type: ignore[attr-defined]

        world.tick = passes
        world.run()
        assert world.kind == "waiting"
        assert 3_600 < world.clock.now - NOW < 3_600 + 2 * 20 * POLL

    def test_a_batch_that_nobody_waits_for_ends_no_run(self) -> None:
        first = World.inline(requests(3))
        first.service.courses, first.service.trouble = [SLOW], {"create": [LOST]}
        first.run(wait=False)
        world = first.next(requests(2, 3), "none of them").run()
        assert world.stopped is None
        assert world.book.count() == {"in batch": 3, "answered": 2}

    def test_asked_to_stop_it_stays_as_it_is(self) -> None:
        world = World.inline(requests(3))
        world.service.courses, world.service.trouble = [Course(looks=9)], {"create": [LOST]}
        world.tick = lambda moment: world.stop.raise_level()
        world.run()
        assert world.kind == "interrupted"
        assert world.stopped is not None
        assert world.stopped.message == "interrupted: 1 batch may have been created"
        assert world.book.count() == {"in batch": 3}
        later = world.next(requests(3)).run()
        assert (later.sizes, later.book.count()) == ([3], {"answered": 3})

    def test_a_refusal_gives_the_members_back(self) -> None:
        world = World.inline(requests(3))
        world.service.trouble = {"create": [REFUSED]}
        world.run()
        assert (world.kind, world.book.count()) == ("refused", {"waiting": 3})


class TestRefusals:
    @pytest.mark.parametrize("call", ["upload", "create"])
    def test_a_refusal_for_good_gives_the_members_back_and_ends_the_run(self, call: str) -> None:
        world = World(requests(6), max_requests=3)
        world.service.trouble = {call: [None, REFUSED]}
        world.run()
        assert world.kind == "refused"
        assert world.stopped is not None
        assert world.stopped.message == "the provider refuses the batch: the model has no batches"
        assert world.book.count() == {"in batch": 3, "waiting": 3}
        assert {(event.paid, event.final, event.counted) for event in world.of(Failed)} == {(Paid.NO, False, False)}
        assert world.failed("a-3")[0].failure.message == "its batch was refused: the model has no batches"
        assert [batch.state for batch in world.book.batches.values()] == ["submitted", "released"]

    @pytest.mark.parametrize(("trouble", "kind"), [(KEY, "key"), (FORBIDDEN, "key"), (QUOTA, "quota")])
    @pytest.mark.parametrize("call", ["upload", "create", "look at", "download output of"])
    def test_trouble_with_the_account_ends_the_run_and_releases_nothing(
        self, call: str, trouble: Trouble, kind: str
    ) -> None:
        world = World(requests(3))
        world.service.trouble = {call: [trouble]}
        world.run()
        assert world.stopped is not None
        assert (world.kind, world.stopped.hint) == (kind, trouble.outcome.hint)
        assert (world.of(Failed), world.book.count()) == ([], {"in batch": 3})
        later = world.next(requests(3)).run()
        assert (later.sizes, later.book.count()) == ([3], {"answered": 3})

    @pytest.mark.parametrize("call", ["find", "find file of"])
    def test_trouble_with_the_account_while_looking_for_what_was_sent(self, call: str) -> None:
        first = _died_at(World(requests(3)), "b1 prepared")
        first.service.trouble = {call: [KEY]}
        world = first.next(requests(3)).run()
        assert (world.kind, world.book.count()) == ("key", {"in batch": 3})

    def test_a_result_file_that_cannot_be_had_keeps_its_batch_open(self) -> None:
        world = World(requests(3))
        world.service.trouble = {"download output of": [GONE]}
        world.run()
        assert (world.kind, world.counts, world.book.count()) == ("outage", [], {"in batch": 3})
        later = world.next(requests(3)).run()
        assert (later.counts[-1], later.sizes) == ({"answered": 3}, [3])

    def test_after_a_month_a_result_file_is_gone(self) -> None:
        world = World(requests(3), retry=RetryPolicy(first_delay=0.0, maybe_paid=False))
        world.service.trouble = {"download output of": [GONE.after(31 * 86_400)]}
        world.run()
        assert (world.counts, world.book.count()) == ([{"missing": 3}], {"unclear": 3})

    def test_a_row_that_says_there_is_no_money_ends_the_run_after_its_batch(self) -> None:
        world = World(requests(6), max_requests=3)
        world.service.fates = {"a-1": ["quota"], "a-2": ["quota"]}
        world.run()
        assert (world.kind, world.book.count()) == ("quota", {"answered": 1, "waiting": 2, "in batch": 3})
        assert [(event.final, event.counted, event.paid) for event in world.of(Failed)] == [(False, False, Paid.NO)] * 2

    @pytest.mark.parametrize(("fate", "words"), [("refused", "were refused"), ("unclear", "unreadable answers")])
    def test_a_batch_without_an_answer_and_with_equal_failures_is_the_last(self, fate: str, words: str) -> None:
        world = World(requests(40), proven=False, max_requests=20, max_enqueued_tokens=200)
        world.service.fates = {f"a-{number}": [fate] * 9 for number in range(40)}
        world.run()
        assert world.sizes == [20]
        assert world.kind == "refused"
        assert world.stopped is not None
        assert words in world.stopped.message

    @pytest.mark.parametrize("fate", ["refused", "answered"])
    def test_batches_under_way_are_collected_after_equal_refusals(self, fate: str) -> None:
        """Answers among them show that the setup is right, and the rest is sent."""
        world = World(requests(60), proven=False, max_requests=20, max_enqueued_tokens=400)
        world.service.fates = {f"a-{number}": [fate if number >= 20 else "refused"] * 9 for number in range(60)}
        world.service.courses = [Course(), Course(looks=3)]
        world.run()
        assert world.sizes == ([20, 20] if fate == "refused" else [20, 20, 20])
        assert world.kind == ("refused" if fate == "refused" else None)
        assert not world.driver.open

    def test_one_answer_in_a_batch_lets_the_next_follow(self) -> None:
        world = World(requests(40), proven=False, max_requests=20, max_enqueued_tokens=200)
        world.service.fates = {f"a-{number}": ["refused"] * 9 for number in range(40) if number % 20 != 19}
        world.run()
        assert world.sizes == [20, 20]
        assert world.stopped is None

    def test_a_forbidden_row_is_its_own_among_answers_and_the_key_s_alone(self) -> None:
        world = World(requests(6))
        world.service.fates = {"a-1": ["forbidden"] * 9}
        world.run()
        assert (world.stopped, world.sizes) == (None, [6])
        assert [event.final for event in world.failed("a-1")] == [True]
        world = World(requests(3))
        world.service.fates = {f"a-{number}": ["forbidden"] for number in range(3)}
        world.run()
        assert world.kind == "key"


class TestPendingFiles:
    def test_a_batch_is_created_when_its_file_is_processed(self) -> None:
        world = World(requests(3))
        world.service.pending = 3
        world.run()
        assert world.service.calls("upload", "create") == ["upload b1", "create b1"]
        assert world.book.count() == {"answered": 3}
        assert [event.message for event in world.of(Notice)] == [
            f"the provider is still processing the file of batch {next(iter(world.book.batches))} (file-1); waiting for it"
        ]

    def test_a_later_run_goes_on_with_a_file_that_is_not_processed_in_time(self) -> None:
        world = World(requests(3))
        world.service.pending = 10_000
        world.run()
        assert (world.kind, world.book.count()) == ("waiting", {"in batch": 3})
        world.service.pending = 1
        later = world.next(requests(3)).run()
        assert later.book.count() == {"answered": 3}
        assert world.service.calls("upload", "create") == ["upload b1", "create b1"]


class TestOutages:
    def test_a_wait_of_hours_ends_the_run(self) -> None:
        asked = replace(OUTAGE.outcome, retry_after=7200.0)
        for call in ("upload", "create", "look at"):
            world = World(requests(3))
            world.service.trouble = {call: [replace(OUTAGE, outcome=asked)]}
            world.run()
            assert world.kind == "outage"
            assert world.stopped is not None
            assert "asks to wait 2 h, until " in world.stopped.message

    @pytest.mark.parametrize("call", ["upload", "create", "look at", "download output of"])
    def test_nothing_but_outages_for_too_long_ends_the_run(self, call: str) -> None:
        world = World(requests(3))
        world.service.trouble = {call: [OUTAGE.after(130)] * 9}
        world.run()
        assert world.kind == "outage"
        assert world.stopped is not None
        assert world.stopped.message == "the provider has been down for 300 s; last error: come back later"
        assert len(world.service.trouble[call]) >= 6
        assert world.book.count() == {"in batch": 3}
        world.service.trouble = {}
        later = world.next(requests(3)).run()
        assert (later.sizes, later.book.count()) == ([3], {"answered": 3})

    @pytest.mark.parametrize("call", ["upload", "create", "look at", "download output of"])
    @pytest.mark.parametrize("trouble", [OUTAGE, DROPPED], ids=["refused", "broken off"])
    def test_a_shorter_one_is_survived(self, call: str, trouble: Trouble) -> None:
        world = World(requests(3))
        world.service.trouble = {call: [trouble.after(60)] * 2}
        world.run()
        assert (world.stopped, world.sizes, world.book.count()) == (None, [3], {"answered": 3})

    def test_it_is_said_once_a_minute(self) -> None:
        world = World(requests(3))
        world.service.trouble = {"look at": [OUTAGE.after(20)] * 9}
        world.run()
        (job,) = world.service.jobs
        assert set(world.notices) == {f"looking at batch {job.id}: come back later; trying again"}
        assert 1 < len(world.notices) <= 3

    def test_the_provider_says_how_long_to_wait(self) -> None:
        asked = replace(OUTAGE.outcome, retry_after=7.0)
        world = World(requests(3))
        world.service.trouble = {"look at": [replace(OUTAGE, outcome=asked)]}
        world.clock.step = 10.0
        world.run()
        (notice,) = world.of(Notice)
        assert notice.fields == {"seconds": 7.0}

    def test_the_first_delay_is_a_share_of_what_the_project_says(self) -> None:
        world = World(requests(3), retry=RetryPolicy(first_delay=4.0))
        world.service.trouble = {"look at": [OUTAGE]}
        world.clock.step = 10.0
        world.run()
        assert [notice.fields for notice in world.of(Notice)] == [{"seconds": 2.0}], "half of it, by the jitter"


class TestSight:
    def test_a_batch_that_cannot_be_looked_at_holds_nobody_up(self) -> None:
        world = World(requests(4), max_requests=2)
        world.service.usual = Course(looks=8)
        unseen = _unseen(world, "b1")
        world.run()
        assert world.book.count() == {"in batch": 2, "answered": 2}
        assert world.kind == "outage"
        assert world.stopped is not None
        assert world.stopped.message == f"batch {world.service.jobs[0].id} cannot be looked at: there is no such thing"
        assert len(unseen) > 1
        assert len([notice for notice in world.notices if "cannot be looked at" in notice]) == 1

    def test_one_that_comes_into_sight_again_is_collected(self) -> None:
        world = World(requests(4), max_requests=2)
        world.service.courses = [Course(), SLOW]
        world.service.trouble = {"look at": [GONE]}
        world.tick = lambda moment: (
            world.service.finish(world.service.jobs[1]) if world.book.count().get("answered") else None,
            world.pass_time(moment),
        )
        world.run()
        assert (world.stopped, world.book.count()) == (None, {"answered": 4})

    def test_one_that_nobody_waits_for_ends_no_run(self) -> None:
        first = World(requests(2))
        first.run(wait=False)
        first.clock.now += 60.0
        first.service.trouble = {"look at": [GONE]}
        world = first.next(requests(2, 2), "nobody's").run()
        assert (world.stopped, world.book.count()) == (None, {"in batch": 2, "answered": 2})


def _unseen(world: World, name: str) -> list[str]:
    """Every look at this batch fails."""
    found: list[str] = []

    def before(words: str) -> None:
        if words.startswith("look at "):
            world.service.trouble["look at"] = [GONE] if words.endswith(name) else []
            found.extend([words] if words.endswith(name) else [])

    world.service.before = before
    return found


class TestStopping:
    @pytest.mark.parametrize("word", ["b1 preparing", f"members of b1 × {fill.GROUP - 1}"])
    def test_before_it_is_sealed_everything_is_given_back(self, word: str) -> None:
        world = _stopped_at(World(requests(fill.GROUP + 1)), word)
        assert world.kind == "interrupted"
        assert world.service.calls("upload", "create", "find") == []
        assert world.book.count() == {"waiting": len(world.book.attempts)}
        assert [batch.state for batch in world.book.batches.values()] == ["released"]
        assert {(event.paid, event.final, event.counted) for event in world.of(Failed)} == {(Paid.NO, False, False)}

    def test_when_it_is_sealed_and_nothing_was_sent_everything_is_given_back(self) -> None:
        world = _stopped_at(World(requests(3)), "b1 prepared")
        assert world.story[-3:] == ["given back × 3", "b1 released", "stopped: interrupted"]
        assert world.service.calls("upload", "create") == []
        assert world.stopped is not None
        assert world.stopped.message == "interrupted: no batch is open"

    def test_what_was_sealed_beside_it_is_given_back_too(self) -> None:
        world = _stopped_at(World([*requests(2), *requests(2, 2, "n")]), "b1 prepared")
        assert world.book.count() == {"waiting": 4}
        assert [batch.state for batch in world.book.batches.values()] == ["released", "released"]

    def test_what_was_uploaded_is_created_and_left(self) -> None:
        world = _stopped_at(World(requests(5), max_requests=3), "b1 uploaded")
        assert world.service.calls("upload", "create") == ["upload b1", "create b1"]
        assert world.book.count() == {"in batch": 3}
        assert world.stopped is not None
        assert world.stopped.message.startswith("interrupted: 1 batch goes on at the provider with 3 requests")
        assert "collects them" in world.stopped.hint

    @pytest.mark.parametrize("word", ["b2 preparing", "members of b2 × 3", "b2 prepared"])
    def test_the_batches_before_go_on(self, word: str) -> None:
        world = _stopped_at(World(requests(6), max_requests=3), word)
        assert world.book.count() == {"in batch": 3, "waiting": len(world.book.attempts) - 3}
        later = world.next(requests(6)).run()
        assert (later.book.count(), later.sizes) == ({"answered": 6}, [3, 3])

    def test_while_it_waits_it_leaves_at_once(self) -> None:
        world = World(requests(3))
        world.tick = lambda moment: world.stop.raise_level()
        world.run()
        assert (world.kind, world.book.count(), world.service.calls("look at")) == ("interrupted", {"in batch": 3}, [])

    def test_a_batch_that_is_being_collected_is_collected_whole(self) -> None:
        size = PAGE + 10
        world = _stopped_at(World(requests(size + 1), max_requests=size), f"answers × {PAGE}")
        assert world.book.count() == {"answered": size, "in batch": 1}
        assert world.story[-2:] == ["b1 collected", "stopped: interrupted"]

    @pytest.mark.parametrize("call", ["upload", "create", "look at"])
    def test_a_call_in_flight_is_awaited_and_not_repeated(self, call: str) -> None:
        world = World(requests(3))
        world.service.trouble = {call: [OUTAGE.after(1)] * 3}
        world.service.before = lambda words: world.stop.raise_level() if words == f"{call} b1" else None
        world.run()
        assert (world.kind, world.book.count()) == ("interrupted", {"in batch": 3})
        assert world.service.calls(call) == [f"{call} b1"]
        later = world.next(requests(3))
        later.service.trouble = {}
        later.service.before = lambda words: None
        assert (later.run().book.count(), later.sizes) == ({"answered": 3}, [3])

    def test_asked_twice_a_call_in_flight_is_left_to_itself(self) -> None:
        world = World(requests(3))
        told, done = threading.Event(), threading.Event()

        def before(words: str) -> None:
            if words == "create b1":
                world.stop.raise_level()
                world.stop.raise_level()
                told.wait(10)

        world.service.before = before
        world.service.after = lambda words: done.set() if words == "create b1" else None
        world.look = lambda group: told.set() if world.story[-1:] == ["stopped: interrupted"] else None
        world.run()
        assert done.wait(10)
        (batch,) = world.book.batches.values()
        assert (batch.state, len(world.service.jobs)) == (BatchState.UPLOADED, 1)
        later = world.next(requests(3))
        later.service.before = lambda words: None
        assert (later.run().book.count(), later.sizes) == ({"answered": 3}, [3])

    def test_asked_twice_not_even_a_file_is_read_to_its_end(self) -> None:
        size = PAGE + 200
        world = World(requests(size))
        world.look = lambda group: (
            [world.stop.raise_level(), world.stop.raise_level()] if world.story[-1] == f"answers × {PAGE}" else None
        )
        world.run()
        assert world.book.count() == {"answered": PAGE, "in batch": 200}
        later = world.next(requests(size)).run()
        assert (later.book.count(), later.counts) == ({"answered": size}, [{"answered": size}])
        assert len(later.of(Succeeded)) == 200

    def test_files_are_left_where_they_are_only_in_a_hurry(self, tmp_path: Path) -> None:
        folder = tmp_path / "batches"
        world = World(requests(3), folder=folder)
        world.service.before = lambda words: world.stop.raise_level() if words == "create b1" else None
        world.run()
        assert not folder.exists()

    def test_a_deadline_says_so(self) -> None:
        world = World(requests(3))
        world.tick = lambda moment: world.stop.raise_level("deadline")
        world.run()
        assert world.stopped is not None
        assert (world.kind, world.stopped.message) == (
            "deadline",
            "the deadline has passed: 1 batch goes on at the provider with 3 requests",
        )

    def test_who_is_stopped_before_anything_does_nothing(self) -> None:
        world = World(requests(3))
        world.stop.raise_level()
        world.run()
        assert world.story == ["stopped: interrupted"]

    def test_what_an_earlier_process_sealed_is_never_given_back_unseen(self) -> None:
        first = _died_at(World(requests(3)), "b1 prepared")
        world = first.next(requests(3))
        world.stop.raise_level()
        world.run()
        assert world.book.count() == {"in batch": 3}
        assert world.service.calls("upload", "create", "find", "find file") == []


def _stopped_at(world: World, word: str) -> World:
    """A run that is asked to stop as soon as this is durable."""

    def look(group: Sequence[Event]) -> None:
        if word in world.story and not world.stop.level:
            world.stop.raise_level()

    world.look = look
    return world.run()


class TestMoreToCome:
    """Requests that are announced: the run goes on although nothing is there to send."""

    def test_they_are_waited_for_and_sent(self) -> None:
        world, announced = World(requests(2)), [3, 2, 1]
        late = world.book.source(requests(2, 2))

        first = world.work.requests
        object.__setattr__(world.work, "requests", _Either(lambda: first if announced else late))
        world.work.control.more = lambda: bool(announced and (announced.pop(), world.stop.nudge()))
        world.run()
        assert world.book.count() == {"answered": 4}
        assert (world.sizes, world.stopped) == ([2, 2], None)

    def test_who_stops_meanwhile_leaves(self) -> None:
        world = World(requests(2))
        world.work.control.more = lambda: bool(world.stop.raise_level())
        world.run()
        assert (world.kind, world.book.count()) == ("interrupted", {"answered": 2})


class _Either(Iterator[Request]):
    """The next request of whatever iterator it is told of."""

    def __init__(self, which: Callable[[], Iterator[Request]]) -> None:
        self._which = which

    def __next__(self) -> Request:
        return next(self._which())


class TestNotWaiting:
    def test_what_was_submitted_is_left(self) -> None:
        world = World(requests(5), max_requests=3).run(wait=False)
        assert (world.kind, world.waits, world.book.count()) == ("waiting", [], {"in batch": 5})
        assert world.stopped is not None
        assert world.stopped.message == "left on purpose: 2 batches go on at the provider with 5 requests"

    def test_what_has_ended_is_collected(self) -> None:
        first = World(requests(3)).run(wait=False)
        world = first.next().run(wait=False)
        assert (world.stopped, world.book.count()) == (None, {"answered": 3})

    def test_what_has_not_ended_is_looked_at_once(self) -> None:
        first = World(requests(3))
        first.service.usual = SLOW
        first.run(wait=False)
        world = first.next().run(wait=False)
        assert (world.kind, world.service.calls("look at")) == ("waiting", ["look at b1"])

    def test_what_there_is_no_room_for_is_said(self) -> None:
        world = World(requests(5), max_enqueued_tokens=20).run(wait=False)
        assert world.stopped is not None
        assert world.stopped.message == (
            "left on purpose: 1 batch goes on at the provider with 2 requests, and more wait until there is room for them"
        )

    def test_what_there_is_room_for_after_a_collection_is_submitted(self) -> None:
        first = World(requests(5), max_enqueued_tokens=20).run(wait=False)
        world = first.next(requests(5), max_enqueued_tokens=20).run(wait=False)
        assert (world.sizes, world.book.count()) == ([2, 2], {"answered": 2, "in batch": 2})

    def test_what_failed_in_a_batch_that_was_ready_goes_into_the_next(self) -> None:
        first = World(requests(3))
        first.service.fates = {"a-1": ["busy"]}
        first.run(wait=False)
        world = first.next().run(wait=False)
        assert (world.kind, world.sizes) == ("waiting", [3, 1])


class TestBatchesOfOthers:
    def test_they_are_collected_when_they_are_ready(self) -> None:
        first = World(requests(3)).run(wait=False)
        world = first.next((), "nobody's").run()
        assert (world.stopped, world.waits, world.book.count()) == (None, [], {"answered": 3})

    def test_they_are_not_waited_for(self) -> None:
        first = World(requests(3))
        first.service.usual = SLOW
        first.run(wait=False)
        world = first.next((), "nobody's").run()
        assert (world.stopped, world.waits, world.book.count()) == (None, [], {"in batch": 3})
        assert world.service.calls("look at") == ["look at b1"]

    def test_they_are_looked_at_while_one_s_own_are_waited_for(self) -> None:
        first = World(requests(3))
        first.service.courses = [Course(looks=2), Course(looks=3)]
        first.run(wait=False)
        world = first.next(requests(2, 3), "nobody's").run()
        assert (world.stopped, world.book.count()) == (None, {"answered": 5})
        assert world.story.index("b1 collected") < world.story.index("b2 collected")


class TestPolling:
    def test_intervals_grow_up_to_a_limit(self) -> None:
        world = World(requests(1), poll_max_seconds=60.0)
        world.service.usual = Course(looks=8)
        world.run()
        assert world.waits == pytest.approx([15, 15, 22.5, 33.75, 50.625, 60, 60, 60])

    @pytest.mark.parametrize(("random", "factor"), [(0.0, 0.9), (1.0, 1.1)])
    def test_they_are_spread(self, random: float, factor: float) -> None:
        world = World(requests(1), random=random)
        world.service.usual = Course(looks=3)
        world.run()
        assert world.waits == pytest.approx([15, 15 * factor, 22.5 * factor])

    def test_a_machine_that_slept_looks_at_once(self) -> None:
        world = World(requests(4), max_requests=2)
        world.service.usual = Course(looks=3)
        woken: list[float] = []

        def tick(moment: float) -> None:
            world.pass_time(moment if len(world.waits) != 2 else moment + 8 * 3600)
            woken.append(world.clock.now)

        world.tick = tick
        world.run()
        assert {moment for _, moment in world.service.looked} == set(woken)
        assert woken[1] - woken[0] > 8 * 3600
        assert (world.stopped, world.book.count()) == (None, {"answered": 4})

    def test_a_clock_that_is_set_back_makes_nobody_wait_longer(self) -> None:
        clock = _Jumping()
        world = World(requests(1), clock=clock)
        world.service.usual = Course(looks=3)

        def tick(moment: float) -> None:
            if len(world.waits) == 2:
                # in the middle of the wait, as the driver looks at the clock for the third time
                clock.ahead = [clock.now, clock.now, clock.now - 86_400]
            else:
                world.pass_time(moment)

        world.tick = tick
        world.run()
        assert world.book.count() == {"answered": 1}
        assert max(world.waits) <= world.options.poll_max_seconds * 1.1, f"seconds that it waits: {world.waits}"


class _Jumping(Clock):
    """A clock that says certain moments before it goes on from the last of them."""

    ahead: Sequence[float] = ()

    def __call__(self) -> float:
        if self.ahead:
            self.now, *self.ahead = self.ahead
        return super().__call__()


class TestAccounting:
    @pytest.mark.parametrize(
        ("fate", "error_class", "paid", "final", "counted", "count"),
        [
            ("refused", "bad_request", Paid.NO, True, True, "failed"),
            ("busy", "server_error", Paid.NO, False, True, "failed"),
            ("unclear", "malformed", Paid.MAYBE, False, True, "failed"),
            ("expired", "expired", Paid.NO, False, False, "expired"),
            ("cancelled", "cancelled", Paid.NO, True, True, "cancelled"),
            ("wordless", "batch_error", Paid.NO, True, True, "failed"),
            ("missing", "missing", Paid.NO, False, True, "missing"),
            ("lost", "missing", Paid.MAYBE, True, True, "missing"),
        ],
    )
    def test_every_kind_of_failure(
        self, fate: str, error_class: str, paid: Paid, final: bool, counted: bool, count: str
    ) -> None:
        world = World(requests(3))
        world.service.fates = {"a-1": [fate]}
        world.run()
        (event,) = world.failed("a-1")
        assert (event.failure.error_class, event.paid, event.final, event.counted) == (
            error_class,
            paid,
            final,
            counted,
        )
        assert world.counts[0] == {"answered": 2, count: 1}
        assert world.sizes == ([3] if final else [3, 1])
        ended = "unclear" if paid is Paid.MAYBE else "failed"
        assert world.book.count() == ({"answered": 2, ended: 1} if final else {"answered": 3})

    def test_answers_are_kept_with_all_that_is_known_of_them(self) -> None:
        world = World(requests(3))
        world.service.fates = {"a-1": ["unusable"], "a-2": ["busy"]}
        world.run()
        first, second, third = sorted(
            world.of(Succeeded, Unusable), key=lambda event: str(event.attempt.request.artist_id)
        )
        assert (first.answer.text, first.request_id, first.seconds) == ("About a-0.", "req-a-0.1", POLL)
        assert isinstance(second, Unusable)
        assert second.answer.problem is not None
        assert third.attempt.number == 2
        (failed,) = world.of(Failed)
        assert (failed.body, failed.seconds) == (b"{}", POLL)
        assert world.counts == [{"answered": 1, "unusable": 1, "failed": 1}, {"answered": 1}]
        assert [event.usage for event in world.book.collected.values()] == [Usage(20, 40), USAGE]
        assert world.notes(BatchState.COLLECTED) == ["1 answered, 1 unusable, 1 failed", "1 answered"]

    @pytest.mark.parametrize(("fate", "attempts"), [("busy", 3), ("missing", 3), ("unclear", 2)])
    def test_what_fails_again_and_again_has_failed_in_the_end(self, fate: str, attempts: int) -> None:
        world = World(requests(2), retry=RetryPolicy(first_delay=0.0, max_attempts=3))
        world.service.fates = {"a-1": [fate] * 9}
        world.run()
        assert [event.final for event in world.failed("a-1")] == [False, False, True][-attempts:]
        assert world.sizes == [2, 1, 1][:attempts]
        assert world.stopped is None

    def test_having_expired_uses_no_attempt_up(self) -> None:
        world = World(requests(1), retry=RetryPolicy(first_delay=0.0, max_attempts=2))
        world.service.fates = {"a-0": ["expired"] * 5}
        world.run()
        assert (world.sizes, world.book.count()) == ([1] * 6, {"answered": 1})

    def test_batches_that_expire_again_and_again_end_the_run(self) -> None:
        world = World(requests(2))
        world.service.usual = Course(end=BatchState.EXPIRED)
        world.run()
        assert (world.kind, world.sizes, world.book.count()) == ("outage", [2, 2, 2], {"waiting": 2})

    def test_one_answer_among_them_is_enough_to_go_on(self) -> None:
        world = World(requests(2))
        world.service.courses = [Course(end=BatchState.EXPIRED)] * 5
        world.service.fates = {"a-0": ["expired", "expired", "answered"]}
        world.run()
        assert (world.stopped, world.book.count()) == (None, {"answered": 2})

    def test_files_that_are_named_after_the_end_are_waited_for(self) -> None:
        world = World(requests(3))
        world.service.courses = [Course(late=2)]
        world.run()
        assert world.service.calls("look at") == ["look at b1"] * 3
        assert (world.counts, world.book.count()) == ([{"answered": 3}], {"answered": 3})

    def test_files_that_are_never_named_leave_it_unclear_what_was_paid(self) -> None:
        world = World(requests(3))
        world.service.courses = [Course(late=99)]
        world.run()
        assert (world.counts, world.book.count(), world.sizes) == ([{"missing": 3}], {"unclear": 3}, [3])

    @pytest.mark.parametrize("fate", ["unclear", "lost"])
    def test_what_may_have_been_paid_is_not_asked_again_where_that_is_not_wanted(self, fate: str) -> None:
        world = World(requests(2), retry=RetryPolicy(first_delay=0.0, maybe_paid=False))
        world.service.fates = {"a-1": [fate]}
        world.run()
        assert (world.sizes, world.book.count()) == ([2], {"answered": 1, "unclear": 1})

    def test_what_is_missing_and_was_not_billed_is_asked_again_even_so(self) -> None:
        world = World(requests(2), retry=RetryPolicy(first_delay=0.0, maybe_paid=False))
        world.service.fates = {"a-1": ["missing"]}
        world.run()
        assert (world.sizes, world.book.count()) == ([2, 1], {"answered": 2})

    def test_without_a_bill_nobody_knows_what_the_missing_cost(self) -> None:
        world = World(requests(2))
        world.service.courses, world.service.fates = [Course(billed=False)], {"a-1": ["missing"]}
        world.run()
        assert [event.paid for event in world.failed("a-1")] == [Paid.MAYBE]

    @pytest.mark.parametrize(
        ("end", "final"), [(BatchState.EXPIRED, False), (BatchState.CANCELLED, True)], ids=["expired", "cancelled"]
    )
    def test_a_batch_that_was_broken_off_keeps_what_it_answered(self, end: BatchState, final: bool) -> None:
        world = World(requests(4))
        world.service.courses, world.service.fates = [Course(end=end)], {"a-0": ["answered"], "a-1": ["missing"]}
        world.run()
        assert world.counts[0] == {"answered": 1, str(end): 3}
        assert {(event.failure.error_class, event.final, event.paid) for event in world.of(Failed)} == {
            (str(end), final, Paid.NO)
        }
        assert world.sizes == ([4] if final else [4, 3])

    def test_a_batch_that_is_refused_for_good_is_not_sent_again(self) -> None:
        problem = BatchProblem("unsupported_endpoint", "not in a batch", final=True)
        world = World(requests(2))
        world.service.courses = [Course(end=BatchState.FAILED, problems=(problem,))]
        world.run()
        assert world.counts == [{"failed": 2}]
        assert {(event.paid, event.final) for event in world.of(Failed)} == {(Paid.NO, True)}

    def test_a_batch_that_failed_altogether_is_tried_again(self) -> None:
        problem = BatchProblem("server_error", "the machine room is on fire")
        world = World(requests(2))
        world.service.courses = [Course(end=BatchState.FAILED, problems=(problem,))]
        world.run()
        assert world.counts == [{"failed": 2}, {"answered": 2}]
        assert {event.paid for event in world.of(Failed)} == {Paid.NO}
        assert world.book.count() == {"answered": 2}

    def test_why_a_batch_failed_altogether_is_told_with_its_members(self) -> None:
        problem = BatchProblem("model_not_found", "the model does not exist")
        world = World(requests(1), retry=RetryPolicy(first_delay=0.0, max_attempts=1))
        world.service.courses = [Course(end=BatchState.FAILED, problems=(problem,))]
        world.run()
        (failed,) = world.of(Failed)
        assert "the model does not exist" in failed.failure.message

    def test_rejected_lines_are_known_by_their_numbers_and_the_others_go_again(self) -> None:
        problems = (BatchProblem("invalid_json_line", "no JSON", 2), BatchProblem("too_large", "too long", 4))
        world = World(requests(5))
        world.service.courses = [Course(end=BatchState.FAILED, problems=problems)]
        world.run()
        assert world.counts == [{"rejected": 2, "given back": 3}, {"answered": 3}]
        (second,), (fourth,) = world.failed("a-1"), world.failed("a-3")
        assert (second.failure.message, second.failure.code) == ("line 2 of the batch: no JSON", "invalid_json_line")
        assert fourth.failure.message == "line 4 of the batch: too long"
        assert (second.final, second.paid) == (True, Paid.NO)
        (first,) = world.failed("a-0")
        assert (first.failure.error_class, first.final, first.counted) == ("batch_rejected", False, False)
        assert [job.names for job in world.service.jobs][1:] == [["a-0.2", "a-2.2", "a-4.2"]]

    def test_lines_that_are_nobody_s_are_kept(self) -> None:
        world = World(requests(2))
        unknown, unreadable = b'{"id": "z-9.1", "fate": "answered"}', b"<html>"
        world.service.courses = [Course(more=(unknown, unreadable, b"", b"  "))]
        world.service.fates = {"a-1": ["twice"]}
        world.run()
        assert [(event.kind, event.custom_id, event.line.strip()) for event in world.of(UnmatchedLine)] == [
            ("unknown", "z-9.1", unknown),
            ("unreadable", None, unreadable),
            ("duplicated", "a-1.1", b'{"id": "a-1.1", "fate": "twice"}'),
        ]
        assert world.counts == [{"answered": 2, "unknown": 1, "unreadable": 1, "duplicated": 1}]
        assert world.book.count() == {"answered": 2}

    def test_of_an_answer_and_an_error_for_one_request_the_first_counts(self) -> None:
        world = World(requests(1))
        world.service.courses = [Course(more=(b'{"id": "a-0.1", "fate": "answered"}',))]
        world.service.fates = {"a-0": ["refused"]}
        world.run()
        assert (world.book.count(), world.counts) == ({"answered": 1}, [{"answered": 1, "duplicated": 1}])

    @pytest.mark.parametrize("after", [1, 2])
    def test_a_collection_that_was_cut_off_begins_again_and_records_nothing_twice(self, after: int) -> None:
        size = PAGE + 200
        world = World(requests(size))
        world.service.fates = {"a-3": ["refused"], "a-5": ["missing"], "a-7": ["busy"]}
        world.service.courses = [Course(more=(b"<html>",))]
        seen = count(1)

        def look(group: Sequence[Event]) -> None:
            if any(isinstance(event, Succeeded) for event in group) and next(seen) == after:
                raise Crash

        world.look = look
        with pytest.raises(Crash):
            world.run()
        later = world.next().run()
        assert later.counts[0] == {"answered": size - 3, "failed": 2, "missing": 1, "unreadable": 1}
        assert len(world.of(Succeeded)) + len(later.of(Succeeded)) == size - 1
        assert later.book.collected[world.service.jobs[0].key].usage == Usage(10 * (size - 3), 20 * (size - 3))
        assert len(later.book.strays) == 1

    def test_those_without_a_line_are_counted_too_when_a_collection_begins_again(self) -> None:
        world = World(requests(PAGE + 200))
        world.service.courses = [Course(end=BatchState.EXPIRED)]
        world.look = lambda group: (_ for _ in ()).throw(Crash) if any(isinstance(e, Failed) for e in group) else None
        world.service.fates = {f"a-{number}": ["missing"] for number in range(PAGE + 200)}
        with pytest.raises(Crash):
            world.run()
        world.book.record = _without_sums(world)  # type: ignore[method-assign]
        later = world.next().run()
        assert later.counts[0] == {"expired": PAGE + 200}


def _without_sums(world: World) -> Callable[[Sequence[Event]], None]:
    """Records without the book's own check of the counts, so that the test can say what is wrong with them."""
    record = type(world.book).record
    return lambda events: record(world.book, [e for e in events if type(e).__name__ != "BatchCollected"])


class TestRetries:
    def test_what_is_tried_again_goes_into_the_next_batch_under_a_new_name(self) -> None:
        world = World(requests(5), max_requests=2)
        world.service.fates = {"a-1": ["busy"], "a-4": ["busy", "busy"]}
        world.run()
        assert [job.names for job in world.service.jobs] == [
            ["a-0.1", "a-1.1"],
            ["a-2.1", "a-3.1"],
            ["a-4.1"],
            ["a-1.2", "a-4.2"],
            ["a-4.3"],
        ]
        assert [event.attempt.number for event in world.of(Started) if event.attempt.request.artist_id == "a-4"] == [
            1,
            2,
            3,
        ]

    def test_they_are_left_to_others_where_that_is_wanted(self) -> None:
        world = World(requests(3), requeue=False)
        world.service.fates = {"a-1": ["busy"], "a-2": ["expired"]}
        world.run()
        assert (world.sizes, len(world.driver.left_over), world.stopped) == ([3], 2, None)
        assert world.book.count() == {"answered": 1, "waiting": 2}

    def test_while_there_is_no_room_they_wait_their_turn(self) -> None:
        world = World(requests(5), max_enqueued_tokens=20)
        world.service.fates = {"a-0": ["busy"]}
        world.run()
        assert [job.names for job in world.service.jobs] == [["a-0.1", "a-1.1"], ["a-2.1", "a-3.1"], ["a-4.1", "a-0.2"]]

    def test_what_an_earlier_batch_gives_back_is_asked_once(self) -> None:
        """It is given back in this run, and among those that this run was to ask for anyway."""
        first = _died_at(World(requests(2)), "b1 uploaded")
        first.service.limit = 10
        world = first.next(requests(2)).run()
        assert world.book.count() == {"answered": 2}
        assert (world.asked("a-0"), world.asked("a-1")) == (1, 1)

    def test_what_an_earlier_batch_gives_back_while_others_are_held_is_asked_once(self) -> None:
        first = World(requests(2, 4))
        first.service.fates = {"a-4": ["expired"], "a-5": ["busy"]}
        first.run(wait=False)
        world = first.next(requests(6), max_enqueued_tokens=40).run()
        assert world.book.count() == {"answered": 6}
        assert (world.asked("a-4"), world.asked("a-5")) == (2, 2)


class TestEverythingAtOnce:
    @KINDS
    @pytest.mark.parametrize("seed", range(30))
    def test_whatever_goes_wrong_a_request_is_in_one_batch_at_a_time_and_no_answer_is_lost(
        self, seed: int, world_of: Callable[..., World]
    ) -> None:
        random = Random(seed)
        asked = [*requests(random.randint(1, 9)), *requests(random.randint(0, 4), 9, "n")]
        world = world_of(asked, max_requests=random.choice([2, 5, 50]))
        _arm(world, random)
        for _ in range(4):
            _annoy(world, random)
            with suppress(Crash):
                world.run(wait=random.random() < 0.8)
            world = world.next(asked, max_requests=5, max_cost_usd=random.choice([None, 0.02]))
        world.service.trouble, world.service.others, world.service.usual = {}, 0, Course()
        for _ in range(9):
            world = world.next(asked).run()
            if world.stopped is None:
                break
        assert (world.stopped, world.book.open()) == (None, [])
        assert set(world.book.states) == {request.request_hash for request in asked}
        assert not set(world.book.count()) - {"answered", "unusable", "failed", "unclear"}
        keys = [job.key for job in world.service.jobs]
        assert len(set(keys)) == len(keys), "a batch was created twice"
        kept = {name for name, state in world.book.ends.items() if state in ("answered", "unusable")}
        assert kept == world.service.delivered()


def _arm(world: World, random: Random) -> None:
    """What becomes of the requests and the jobs."""
    kinds = ["busy", "unclear", "missing", "lost", "expired", "twice", "answered", "unusable", "refused"]
    ends = [BatchState.COMPLETED, BatchState.COMPLETED, BatchState.EXPIRED, BatchState.FAILED]
    service = world.service
    service.fates = {f"a-{number}": random.choices(kinds, k=random.randint(0, 3)) for number in range(13)}
    service.courses = [
        Course(random.randint(1, 3), random.choice(ends), billed=random.random() < 0.8) for _ in range(9)
    ]
    service.limit, service.others = random.choice([(None, 0), (None, 0), (60, 0), (30, 0), (30, 25)])
    service.refuses = random.choice(["create", "failed"])
    world.clock.step = POLL / 2 + 0.5


def _annoy(world: World, random: Random) -> None:
    """Calls that end in every way, and a process that dies, or is stopped, after some groups."""
    troubles: list[Trouble | None] = [None, None, LOST, DROPPED, OUTAGE]
    for call in ("upload", "create", "find", "find file of", "look at", "download output of"):
        world.service.trouble[call] = random.choices(troubles, k=6)
    groups, end, dies = count(), random.randint(3, 60), random.random() < 0.7

    def look(group: Sequence[Event]) -> None:
        if next(groups) == end:
            if dies:
                raise Crash
            world.stop.raise_level()

    world.look = look


class TestMemory:
    def test_forty_thousand_requests_are_never_held_at_once(self) -> None:
        total, members = 40_000, _Bytes()
        work = Work(map(_Counted.of, range(total)), members=members, retry=AT_ONCE)
        clock = Clock()
        service = _Light(clock)
        options = BatchOptions(max_requests=20_000, poll_seconds=POLL)
        answered = 0
        with closing(BatchDriver(work, service, options, lambda _: 0.01, wall=clock)) as driver:
            for group in driver.run(wait=True):
                members.record(group)
                answered += sum(isinstance(event, Succeeded) for event in group)
                clock.now = max(clock.now, work.control.gauges.look_at or 0.0)
        assert (answered, [len(job.names) for job in service.jobs]) == (total, [20_000] * 2)
        del group
        assert _Counted.live <= 1
        assert 0 < _Counted.most <= 4 * max(fill.GROUP, PAGE)


class _Counted(Request):
    """A request that knows how many of its kind there are."""

    live = most = 0

    def __new__(cls, *_: object, **__: object) -> _Counted:
        _Counted.live += 1
        _Counted.most = max(_Counted.most, _Counted.live)
        return super().__new__(cls)

    def __del__(self) -> None:
        _Counted.live -= 1

    @classmethod
    def of(cls, number: int) -> Request:
        return cls(f"v1:{number}", "/v1/responses", "m", b"{}", f"a-{number}", "bio", input_tokens=TOKENS)


class _Light(FakeService):
    """A service that answers everything, with nothing but names in its files."""

    def line(self, attempt: Attempt) -> bytes:
        return f"{attempt.client_request_id}\n".encode()

    def names_in(self, content: bytes) -> list[str]:
        return content.decode().splitlines()

    def finish(self, job: Job) -> None:
        job.ended, job.output = True, f"results of {job.id}"
        self.files[job.output] = ("results", "\n".join(job.names).encode())

    def read(self, batch: Batch, line: bytes) -> BatchResult:
        return BatchResult(_ANSWER, custom_id=line.decode().strip(), paid=Paid.YES)


_ANSWER = Response(b"{}", "A life.", USAGE, cost_usd=0.01)


class _Bytes:
    """Members of batches, kept in a byte for each."""

    def __init__(self) -> None:
        self._open = bytearray()
        self._numbers: dict[str, list[int]] = {}

    def record(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Started(attempt):
                    first_and_last = self._numbers.setdefault(attempt.batch or "", [len(self._open), 0])
                    self._open.append(1)
                    first_and_last[1] = len(self._open)
                case Succeeded(attempt):
                    self._open[attempt.row - 1] = 0

    def attempts_of(self, batch: str, *, open_only: bool = False) -> Iterator[Attempt]:
        for number in range(*self._numbers[batch]):
            if self._open[number] or not open_only:
                yield self._new_attempt(batch, number)

    def find(self, batch: str, custom_ids: Sequence[str]) -> Mapping[str, Member]:
        numbers = {name: int(name.removeprefix("a-").partition(".")[0]) for name in custom_ids}
        return {name: Member(self._new_attempt(batch, n), bool(self._open[n])) for name, n in numbers.items()}

    def _new_attempt(self, batch: str, number: int) -> Attempt:
        return Attempt(_Counted.of(number), 1, "batch", f"a-{number}.1", NOW, batch, number + 1)


def test_the_names_of_batches_are_their_own() -> None:
    world = World(requests(20), max_requests=1).run()
    keys = list(world.book.batches)
    assert len(set(keys)) == 20
    assert all(key.startswith("bf-20231114-") for key in keys)
    changed = [event.batch for event in world.of(BatchChanged) if event.batch.state is BatchState.COLLECTED]
    assert {batch.name for batch in changed} == {job.id for job in world.service.jobs}
