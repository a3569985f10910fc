"""The numbers of a run, and how they are written."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from bioforge.core.events import (
    Attempt,
    BatchChanged,
    BatchCollected,
    Failed,
    Notice,
    Started,
    Stopped,
    Succeeded,
    Unusable,
)
from bioforge.core.text import compact, duration, money
from bioforge.core.types import Batch, BatchState, Failure, Paid, Request, Response, Usage
from bioforge.report.tally import Closing, Tally, by_class, summary


def attempt(artist="1", batch=None):
    request = Request("hash", "/v1/responses", "m", b"{}", artist, "bio")
    return Attempt(request, 1, "W01", "c", 0.0, batch)


def good(cost=0.5, artist="1", batch=None):
    return Succeeded(attempt(artist, batch), Response(b"", "text", Usage(100, 20), cost_usd=cost), 1.0)


def bad(error_class, *, final=True, paid=Paid.NO, artist="1", batch=None):
    return Failed(attempt(artist, batch), Failure(error_class, "a sentence"), paid, 1.0, final)


def unusable(error_class, cost=0.5, artist="1"):
    answer = Response(b"", None, Usage(100, 20), cost_usd=cost, problem=Failure(error_class, "a sentence"))
    return Unusable(attempt(artist), answer, 1.0)


class TestCounting:
    def test_a_run(self):
        tally = Tally(total=5)
        tally.add([Started(attempt()) for _ in range(4)], 1.0)
        tally.add([good(), good(None), Notice("pause", "waiting")], 2.0)
        tally.add([bad("timeout", final=False, paid=Paid.MAYBE), bad("rate_limit", final=False)], 3.0)
        tally.add([Started(attempt()) for _ in range(2)], 3.0)
        tally.add([bad("invalid", artist="7"), unusable("truncated", artist="8")], 4.0)
        tally.add([Stopped("budget", "the budget is used up")], 4.0)
        assert tally.sent == 6
        assert (tally.succeeded, tally.done, tally.left, tally.finished) == (2, 4, 1, 6)
        assert (tally.failed, tally.unusable, tally.failures) == (Counter(invalid=1), Counter(truncated=1), 2)
        assert (tally.retries, tally.maybe_paid, tally.paid_for_nothing) == (2, 1, 1)
        assert (tally.input_tokens, tally.output_tokens) == (300, 60)
        assert (tally.cost_usd, tally.priced, tally.unpriced) == (1.0, 2, 1)
        assert tally.first_failed == "7"
        assert tally.stopped is not None

    def test_a_paid_attempt_without_an_answer_has_a_cost_nobody_knows(self):
        tally = Tally()
        tally.add([bad("malformed", paid=Paid.YES)], 0)
        assert (tally.paid_for_nothing, tally.unpriced) == (1, 1)

    def test_an_unusable_answer_without_a_reason(self):
        tally = Tally()
        tally.add([Unusable(attempt(), Response(b""), 1.0)], 0)
        assert tally.unusable == {"unusable": 1}


class TestRate:
    def test_over_the_last_half_minute(self):
        tally = Tally(total=10_000, started=100.0)
        for second in range(100, 160):
            tally.add([good()] * (10 if second < 130 else 50), second + 0.5)
        assert tally.calls_per_second(160.0) == pytest.approx(50, rel=0.05)
        assert tally.seconds_left(160.0) == pytest.approx((10_000 - 1_800) / 50, rel=0.05)

    def test_at_the_beginning_the_time_is_what_has_passed(self):
        tally = Tally(total=100, started=10.0)
        tally.add([good()] * 10, 12.0)
        assert tally.calls_per_second(12.0) == 5
        assert tally.seconds_left(12.0) == 18

    def test_calls_and_answers_are_two_rates(self):
        tally = Tally(total=10, started=0.0)
        tally.add([bad("rate_limit", final=False)] * 8 + [good()] * 2, 2.0)
        assert tally.calls_per_second(2.0) == 5
        assert tally.seconds_left(2.0) == 8

    def test_in_a_long_pause_the_whole_run_tells(self):
        tally = Tally(total=20, started=0.0)
        tally.add([good()] * 10, 10.0)
        assert tally.calls_per_second(100.0) == 0
        assert tally.seconds_left(100.0) == 100

    def test_what_cannot_be_known(self):
        assert Tally(total=10).seconds_left(5.0) is None
        assert Tally(total=None).seconds_left(5.0) is None
        assert Tally(total=0).seconds_left(0.0) == 0

    def test_memory_does_not_grow_with_time(self):
        tally = Tally()
        for second in range(1000):
            tally.add([good()], second)
        assert len(tally._seconds) == 30


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (None, "unknown price"),
        (0, "$0.00"),
        (12.3, "$12.30"),
        (1234567.891, "$1,234,567.89"),
        (0.42, "$0.42"),
        (0.0996, "$0.10"),
        (0.0996001, "$0.10"),
        (0.042, "$0.042"),
        (0.0042, "$0.0042"),
        (0.00000123, "$0.0000012"),
    ],
)
def test_money(usd, text):
    assert money(usd) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (123, "2 min 3 s"),
        (3720, "1 h 2 min"),
        (7200, "2 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (12_345, "12.3k"), (999_960, "1.0M"), (1_250_000, "1.2M"), (3e9, "3.0G")],
)
def test_compact(number, text):
    assert compact(number) == text


def test_cost():
    tally = Tally()
    assert tally.cost() == "$0.00"
    tally.add([good(None)], 0)
    assert tally.cost() == "unknown price"
    tally.add([good(1.25)], 0)
    assert tally.cost() == "$1.25 and 1 answer of unknown price"


def test_classes_are_ranked_and_few():
    assert by_class(Counter(b=2, a=2, c=30)) == "30 c, 2 a, 2 b"
    assert by_class(Counter({str(n): 1 for n in range(8)}), most=6).endswith("1 5, 2 of other kinds")


class TestSummary:
    def test_all_went_well(self):
        tally = Tally(total=2, started=10.0)
        tally.add([Started(attempt()), Started(attempt()), good(), good()], 11.0)
        assert summary(tally, Closing(fresh=1000, cached=3, saved_usd=110.2, simulated=True), 12.0) == [
            "done     2 of 2 in 2.0 s (1.0 calls/s)",
            "skipped  1,000 up to date, 3 answered from stored answers",
            "tokens   200 in, 40 out",
            "cost     $1.00 (simulated: nothing was charged)",
            "saved    about $110.20: 1,003 answers not bought again, at the average price",
        ]

    def test_nothing_to_do(self):
        assert summary(Tally(total=0), Closing(fresh=5), 0.0) == [
            "done     0 of 0 in 0.0 s",
            "skipped  5 up to date",
            "cost     $0.00",
        ]

    def test_things_went_wrong(self):
        tally = Tally(total=10)
        tally.add([good(None), bad("timeout", paid=Paid.MAYBE, artist="a b"), unusable("truncated", None)], 60)
        tally.add(
            [
                bad("rate_limit", final=False),
                Started(attempt()),
                Stopped("quota", "the quota is used up", "top up, then resume"),
            ],
            60,
        )
        assert summary(tally, Closing(), 120.0) == [
            "done        1 of 10 in 2 min (0.0 calls/s)",
            "failed      2: 1 timeout, 1 truncated",
            "left        7 not sent or not finished",
            "retries     1",
            "tokens      200 in, 40 out",
            "cost        unknown price",
            "unusable    1 answer paid for without a usable text; kept in the state",
            "maybe paid  1 call may have been charged (no answer arrived)",
            "stopped     the quota is used up",
            "→ `bioforge export --failed` lists the failures, `bioforge why 'a b'` shows what went wrong;"
            " `bioforge run` sends failed requests again",
            "→ `bioforge audit` counts the calls that may have been charged",
            "→ top up, then resume",
        ]

    def test_unusable_answers_are_not_promised_another_try(self):
        tally = Tally()
        tally.add([unusable("refusal", artist="8")], 1.0)
        assert summary(tally, Closing(), 1.0)[-1] == "→ `bioforge why 8` shows what went wrong"

    def test_interrupted(self):
        tally = Tally(total=3)
        tally.add([good()], 1.0)
        assert summary(tally, Closing(), 1.0)[-1] == "→ `bioforge resume` continues this run"

    def test_an_id_that_a_terminal_would_obey(self):
        tally = Tally()
        tally.add([bad("timeout", artist="\x1b[2J")], 1.0)
        assert "\x1b" not in "".join(summary(tally, Closing(), 1.0))


def job(key="b", requests=0, state=BatchState.IN_PROGRESS, **changes):
    return Batch(key, "/v1/responses", "m", state, requests, **changes)


def closed(key="b", requests=0, **counts):
    return BatchCollected(job(key, requests), counts, Usage())


class TestBatches:
    """Answers that come thousands at a time, and some of them to questions of an earlier run."""

    def test_members_count_like_all_others_and_make_no_rate(self):
        tally = Tally(total=10_000)
        tally.add([BatchChanged(job(state=BatchState.PREPARING))], 0.0)
        tally.add([Started(attempt(batch="b"))] * 10_000, 1.0)
        tally.add([BatchChanged(job(requests=10_000))], 2.0)
        assert (tally.sent, tally.left, tally.batches.waiting, tally.seconds_left(2.0)) == (
            10_000,
            10_000,
            10_000,
            None,
        )
        tally.add([good(0.001, batch="b")] * 9_000, 5000.0)
        assert (tally.done, tally.left, tally.batches.waiting) == (9_000, 1_000, 1_000)
        assert (tally.calls_per_second(5000.0), tally.seconds_left(5000.0)) == (0, None)
        tally.add([bad("invalid", batch="b")] * 1_000 + [closed(answered=9_000, failed=1_000)], 5001.0)
        assert (tally.succeeded, tally.failures, tally.left, tally.seconds_left(5001.0)) == (9_000, 1_000, 0, 0)
        assert (tally.finished, tally.calls, tally.cost()) == (10_000, 0, "$9.00")

    def test_calls_after_the_batches_have_a_rate_of_their_own(self):
        tally = Tally(total=1_100)
        tally.add([Started(attempt(batch="b"))] * 1_000, 0.0)
        tally.add([good(batch="b")] * 1_000 + [closed()], 1000.0)
        tally.add([good()] * 30, 1010.0)
        assert tally.calls_per_second(1010.0) == 1
        assert tally.seconds_left(1010.0) == 70

    def test_while_one_is_open_nobody_knows_how_long_it_takes(self):
        tally = Tally(total=100)
        tally.add([Started(attempt(batch="b")), *[good()] * 50], 10.0)
        assert (tally.calls_per_second(10.0), tally.seconds_left(10.0)) == (5, None)

    def test_what_an_earlier_run_sent_was_sent(self):
        tally = Tally(total=25)
        tally.add([good(batch="old")] * 20, 1.0)
        assert (tally.sent, tally.done, tally.expected, tally.left) == (20, 20, 25, 5)

    def test_a_batch_of_an_earlier_run_is_waited_for(self):
        tally = Tally(total=105)
        tally.add([], 0.0, [job("old", 100)])
        assert (tally.expected, tally.left, tally.batches.waiting) == (105, 105, 100)
        tally.add([good(batch="old")] * 60, 1.0, [job("old", 100)])
        assert (tally.expected, tally.left, tally.batches.waiting) == (105, 45, 40)

    def test_what_another_run_had_collected_of_it_is_known_at_the_end(self):
        tally = Tally(total=105)
        tally.add([BatchChanged(job("old", 100))], 0.0)
        tally.add([good(batch="old")] * 60, 1.0)
        # gauges may still show what is closed
        tally.add([closed("old", 100, answered=100)], 2.0, [job("old", 100)])
        assert (tally.expected, tally.left, tally.batches.waiting, tally.batches.open) == (65, 5, 0, 0)

    def test_one_that_is_first_heard_of_by_its_answers(self):
        tally = Tally(total=100)
        tally.add([good(batch="old")] * 60, 1.0)
        assert (tally.expected, tally.left) == (100, 40)
        tally.add([closed("old", 100, answered=100)], 2.0)
        assert (tally.expected, tally.left) == (60, 0)

    def test_one_that_nobody_waits_for_counts_as_far_as_it_is_collected(self):
        tally = Tally(total=5)
        tally.add([], 0.0, [job("other", 100, awaited=False)])
        assert (tally.expected, tally.left, tally.batches.open) == (5, 5, 1)
        tally.add([good(batch="other")] * 100 + [closed("other")], 1.0)
        assert (tally.expected, tally.left, tally.done) == (105, 5, 100)

    def test_more_than_was_expected_is_never_less_than_nothing(self):
        tally = Tally(total=0)
        tally.add([good(batch="unheard of")], 0.0)
        assert (tally.sent, tally.done, tally.expected, tally.left) == (1, 1, 1, 0)

    def test_what_expired_in_a_batch_of_an_earlier_run_is_still_to_do(self):
        tally = Tally(total=3)
        tally.add([BatchChanged(job("old", 3))], 0.0)
        expired = [bad("expired", final=False, batch="old")] * 2
        tally.add([good(batch="old"), *expired, closed("old", 3, answered=1, expired=2)], 1.0)
        assert (tally.sent, tally.done, tally.left, tally.retries) == (3, 1, 2, 0)
        tally.add([Started(attempt(batch="new"))] * 2, 2.0)
        tally.add([BatchChanged(job("new", 2)), *[good(batch="new")] * 2, closed("new")], 3.0)
        assert (tally.sent, tally.done, tally.expected, tally.left, tally.retries) == (5, 3, 3, 0, 2)

    def test_the_order_in_a_group_does_not_matter(self):
        tally = Tally(total=2)
        prepared = BatchChanged(job(requests=2, state=BatchState.PREPARED))
        tally.add([prepared, Started(attempt(batch="b")), Started(attempt(batch="b"))], 0.0)
        assert (tally.expected, tally.left, tally.batches.waiting) == (2, 2, 2)
        tally.add([closed(), good(batch="b"), good(batch="b")], 1.0)
        assert (tally.expected, tally.left, tally.batches.waiting) == (2, 0, 0)

    def test_members_that_are_given_back_wait_in_no_batch(self):
        tally = Tally(total=2)
        tally.add([Started(attempt(batch="b"))] * 2, 0.0)
        tally.add([BatchChanged(job(state=BatchState.RELEASED))], 1.0)
        assert (tally.left, tally.batches.waiting, str(tally.batches)) == (2, 0, "1 released")

    def test_a_total_that_is_not_known(self):
        tally = Tally()
        tally.add([good(batch="old")], 0.0, [job("old", 100)])
        assert (tally.expected, tally.left, tally.seconds_left(1.0)) == (None, None, None)
        assert any(line.startswith("left     99 in open batches") for line in summary(tally, Closing(), 1.0))

    def test_a_run_that_was_left_on_purpose(self):
        tally = Tally(total=30, started=10.0)
        for key in ("a", "b", "c"):
            tally.add([Started(attempt(batch=key))] * 10, 11.0)
        tally.add([good(0.01, batch="a")] * 10 + [BatchChanged(job("b", 10)), closed("a")], 12.0)
        tally.add([Stopped("waiting", "2 batches are in progress", "`bioforge resume` collects them")], 12.0)
        assert summary(tally, Closing(), 12.0) == [
            "done     10 of 30 in 2.0 s",
            "left     20 in open batches",
            "batches  1 collected, 2 open",
            "tokens   1,000 in, 200 out",
            "cost     $0.10",
            "waiting  2 batches are in progress",
            "→ `bioforge resume` collects them",
        ]

    def test_what_is_left_beside_the_batches(self):
        tally = Tally(total=3_000)
        tally.add([Started(attempt(batch="b"))] * 1_000, 1.0)
        tally.add([Stopped("budget", "the budget is used up")], 1.0)
        lines = summary(tally, Closing(), 1.0)
        assert "left     1,000 in open batches, 2,000 not sent or not finished" in lines
        assert "stopped  the budget is used up" in lines

    def test_answers_that_never_came_back_are_counted(self):
        tally = Tally(total=4)
        tally.add([Started(attempt(batch="b"))] * 4, 1.0)
        lost = [bad("missing", paid=Paid.MAYBE, batch="b")] * 2
        tally.add([*[good(batch="b")] * 2, *lost, closed(answered=2, missing=2)], 2.0)
        assert str(tally.batches) == "1 collected, 2 answers missing"
        assert str(replace(tally.batches, missing=1)) == "1 collected, 1 answer missing"

    def test_in_logs(self):
        tally = Tally(total=4)
        tally.add([Started(attempt(batch="b"))] * 3, 1.0)
        tally.add([good(batch="a"), BatchCollected(job("a", 1, awaited=False), {"missing": 1}, Usage())], 2.0)
        fields = tally.fields(2.0)
        assert (fields["total"], fields["sent"], fields["calls_per_second"], fields["seconds_left"]) == (5, 4, 0, None)
        names = ("in_batches", "batches_open", "batches_collected", "missing")
        assert [fields[name] for name in names] == [3, 1, 1, 1]


def test_fields_for_logs():
    tally = Tally(total=4)
    tally.add([Started(attempt()), good(0.1)], 2.0)
    assert tally.fields(2.0) == {
        "done": 1,
        "total": 4,
        "succeeded": 1,
        "failed": 0,
        "sent": 1,
        "retries": 0,
        "maybe_paid": 0,
        "calls_per_second": 0.5,
        "input_tokens": 100,
        "output_tokens": 20,
        "cost_usd": 0.1,
        "unknown_price": 0,
        "seconds": 2.0,
        "seconds_left": 6,
    }


def test_whole_hours_stay_hours_for_three_days():
    assert [duration(hours * 3600) for hours in (24, 36, 72, 73, 96)] == ["24 h", "36 h", "72 h", "3 d 1 h", "4 d"]
