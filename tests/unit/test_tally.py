"""The numbers of a run, and how they are written."""

from __future__ import annotations

from collections import Counter

import pytest

from bioforge.events import Failed, Launch, Noticed, Started, Stopped, Succeeded, Unusable
from bioforge.model import Answer, Failure, Paid, Request, Usage
from bioforge.report.tally import Closing, Tally, by_class, compact, duration, money, summary


def launch(artist="1"):
    request = Request("hash", "/v1/responses", "m", b"{}", artist, "bio")
    return Launch(request, 1, "W01", "c", 0.0)


def good(cost=0.5, artist="1"):
    return Succeeded(launch(artist), Answer(b"", "text", Usage(100, 20), cost_usd=cost), 1.0)


def bad(error_class, *, final=True, paid=Paid.NO, artist="1"):
    return Failed(launch(artist), Failure(error_class, "a sentence"), paid, 1.0, final)


def unusable(error_class, cost=0.5, artist="1"):
    answer = Answer(b"", None, Usage(100, 20), cost_usd=cost, problem=Failure(error_class, "a sentence"))
    return Unusable(launch(artist), answer, 1.0)


class TestCounting:
    def test_a_run(self):
        tally = Tally(total=5)
        tally.add([Started(launch()) for _ in range(6)], 1.0)
        tally.add([good(), good(None), Noticed("pause", "waiting")], 2.0)
        tally.add([bad("timeout", final=False, paid=Paid.MAYBE), bad("rate_limit", final=False)], 3.0)
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
        tally.add([Unusable(launch(), Answer(b""), 1.0)], 0)
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
        tally.add([Started(launch()), Started(launch()), good(), good()], 11.0)
        assert summary(tally, Closing(fresh=1000, cached=3, saved_usd=110.2, simulated=True), 12.0) == [
            "done     2 of 2 in 2.0 s (1.0 calls/s)",
            "skipped  1,000 up to date, 3 answered from what was bought before",
            "tokens   200 in, 40 out",
            "cost     $1.00 (simulated: nothing was charged), saved $110.20",
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
        tally.add([bad("rate_limit", final=False), Stopped("quota", "the quota is used up", "top up, then resume")], 60)
        assert summary(tally, Closing(), 120.0) == [
            "done        1 of 10 in 2 min (0.0 calls/s)",
            "failed      2: 1 timeout, 1 truncated",
            "left        7 not sent or not finished",
            "retries     1",
            "tokens      200 in, 40 out",
            "cost        unknown price",
            "unusable    1 answer paid for without a usable text, kept",
            "maybe paid  1 call: sent, and whether charged nobody can know",
            "stopped     the quota is used up",
            "→ `bioforge why 'a b'` shows what went wrong; `bioforge run` tries again what failed",
            "→ `bioforge audit` lists the calls that may have been paid for",
            "→ top up, then resume",
        ]

    def test_unusable_answers_are_not_promised_another_try(self):
        tally = Tally()
        tally.add([unusable("refusal", artist="8")], 1.0)
        assert summary(tally, Closing(), 1.0)[-1] == "→ `bioforge why 8` shows what went wrong"

    def test_interrupted(self):
        tally = Tally(total=3)
        tally.add([good()], 1.0)
        assert summary(tally, Closing(), 1.0)[-1] == "→ `bioforge resume` goes on where this stopped"

    def test_an_id_that_a_terminal_would_obey(self):
        tally = Tally()
        tally.add([bad("timeout", artist="\x1b[2J")], 1.0)
        assert "\x1b" not in "".join(summary(tally, Closing(), 1.0))


def test_fields_for_logs():
    tally = Tally(total=4)
    tally.add([Started(launch()), good(0.1)], 2.0)
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
