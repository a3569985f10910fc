"""What fits into a batch, and what a provider's refusals teach about how much may wait in batches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioforge.backends.batch.options import BatchOptions
from bioforge.backends.batch.packing import BatchBuilder, EnqueuedLimit, enqueued
from bioforge.core.errors import ConfigError
from bioforge.core.types import ENDED, Batch, BatchState, Request

OPTIONS = BatchOptions(max_requests=3, max_bytes=100)


def request(tokens: int = 10) -> Request:
    return Request("v1:a", "/v1/responses", "m", b"{}", "a", "bio", input_tokens=tokens)


def parcel(*sizes: int) -> BatchBuilder:
    filled = BatchBuilder(Batch("k", "/v1/responses", "m", estimated_usd=0.0))
    for size in sizes:
        filled.add(request(), size, 0.5)
    return filled


def batch(tokens: int, model: str = "m", state: BatchState = BatchState.SUBMITTED) -> Batch:
    return Batch("k", "/v1/responses", model, state, input_tokens=tokens)


class TestParcel:
    def test_it_sums_up_what_is_in_it(self) -> None:
        sealed = parcel(40, 30).sealed()
        assert (sealed.requests, sealed.bytes, sealed.input_tokens, sealed.estimated_usd) == (2, 70, 20, 1.0)
        assert sealed.state is BatchState.PREPARED

    def test_it_is_full_at_so_many_bytes(self) -> None:
        assert parcel(40, 30).fits(30, OPTIONS)
        assert not parcel(40, 30).fits(31, OPTIONS)

    def test_it_is_full_at_so_many_requests(self) -> None:
        assert parcel(1, 1).fits(1, OPTIONS)
        assert not parcel(1, 1, 1).fits(1, OPTIONS)

    def test_the_first_line_may_be_longer_than_any_file(self) -> None:
        assert parcel().fits(10_000, OPTIONS)
        assert not parcel(10_000).fits(1, OPTIONS)

    def test_of_an_unknown_price_no_sum_is_known(self) -> None:
        filled = parcel(1)
        filled.add(request(), 1, None)
        filled.add(request(), 1, 0.5)
        assert filled.sealed().estimated_usd is None

    def test_a_request_without_an_estimate_counts_for_something(self) -> None:
        filled = parcel()
        filled.add(request(tokens=0), 1, None)
        assert filled.sealed().input_tokens == 1


class TestEnqueued:
    def test_what_has_ended_waits_no_longer(self) -> None:
        found = [batch(10, state=state) for state in BatchState if state in ENDED]
        assert enqueued(found, "m") == 0
        assert enqueued([*found, batch(7), batch(5, state=BatchState.PREPARED)], "m") == 12

    def test_each_model_waits_for_itself(self) -> None:
        assert enqueued([batch(7), batch(5, "n")], "n") == 5


class TestLimits:
    def test_without_a_limit_there_is_always_room(self) -> None:
        queue = EnqueuedLimit(None, {})
        assert queue.limit("m") is None
        assert queue.has_room("m", 10**9, 10**9)

    def test_room_up_to_the_limit(self) -> None:
        queue = EnqueuedLimit(100, {})
        assert queue.has_room("m", 40, 60)
        assert not queue.has_room("m", 41, 60)

    def test_one_alone_is_always_tried(self) -> None:
        assert EnqueuedLimit(100, {}).has_room("m", 1000, 0)

    def test_the_lower_of_what_is_configured_and_what_was_learned(self) -> None:
        queue = EnqueuedLimit(100, {"m": 50, "n": 500})
        assert (queue.limit("m"), queue.limit("n"), queue.limit("other")) == (50, 100, 100)
        assert EnqueuedLimit(None, {"m": 50}).limit("m") == 50

    def test_a_refusal_that_names_a_limit_below_what_was_tried(self) -> None:
        queue = EnqueuedLimit(None, {})
        queue.refused("m", 30, 1000)
        assert queue.limit("m") == 30
        assert queue.limit("n") is None

    def test_a_refusal_that_names_a_limit_above_it(self) -> None:
        """More tokens are counted than were estimated, or others have some enqueued."""
        queue = EnqueuedLimit(None, {})
        queue.refused("m", 1000, 100)
        assert queue.limit("m") == 80

    def test_a_refusal_without_a_number(self) -> None:
        queue = EnqueuedLimit(None, {})
        queue.refused("m", 0, 100)
        assert queue.limit("m") == 50

    @given(st.integers(0, 10**7), st.integers(0, 10**7))
    def test_a_refused_amount_is_never_tried_again_and_something_always_is(self, named: int, attempted: int) -> None:
        queue = EnqueuedLimit(None, {})
        queue.refused("m", named, attempted)
        limit = queue.limit("m")
        assert limit is not None
        assert limit >= 1
        assert limit < max(2, attempted)

    def test_refusals_one_after_another_come_to_an_end(self) -> None:
        queue, tried = EnqueuedLimit(None, {}), [1_000_000]
        while tried[-1] > 1:
            queue.refused("m", 2_000_000, tried[-1])
            tried.append(queue.limit("m") or 0)
        assert len(tried) < 60

    def test_what_is_accepted_again_may_grow_up_to_what_was_told(self) -> None:
        queue = EnqueuedLimit(None, {})
        queue.refused("m", 1000, 100)
        queue.accepted("m", 80)
        assert queue.limit("m") == 160
        queue.accepted("m", 900)
        assert queue.limit("m") == 1000

    def test_what_is_accepted_never_lowers_a_limit(self) -> None:
        queue = EnqueuedLimit(None, {"m": 500})
        queue.accepted("m", 10)
        queue.accepted("n", 10)
        assert (queue.limit("m"), queue.limit("n")) == (500, None)

    def test_where_nothing_was_told_it_grows_as_long_as_it_is_accepted(self) -> None:
        queue = EnqueuedLimit(None, {})
        queue.refused("m", 0, 100)
        for tokens in (50, 100, 200):
            queue.accepted("m", tokens)
        assert queue.limit("m") == 400


class TestOptions:
    def test_what_is_not_set_is_as_large_as_may_be(self) -> None:
        assert BatchOptions.from_options({}) == BatchOptions(50_000, 200_000_000, None, 15.0, 300.0)

    def test_what_is_set(self) -> None:
        options = {"max_requests": 10, "max_bytes": 209_715_200, "max_enqueued_tokens": 5, "poll_seconds": 0.5}
        assert BatchOptions.from_options(options) == BatchOptions(10, 209_715_200, 5, 0.5, 300.0)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"max_request": 10}, "backend.batch.max_request: unknown key"),
            ({"max_requests": 0}, "expected a whole number above 0, found 0"),
            ({"max_requests": 10.5}, "expected a whole number above 0, found 10.5"),
            ({"max_requests": True}, "expected a whole number above 0, found True"),
            ({"max_requests": 50_001}, "at most 50,000 are allowed, found 50,001"),
            ({"max_bytes": 209_715_201}, "at most 209,715,200 are allowed"),
            ({"max_bytes": "200 MB"}, "expected a whole number above 0, found '200 MB'"),
            ({"max_enqueued_tokens": -1}, "expected a whole number above 0, found -1"),
            ({"poll_seconds": 0}, "expected a number above 0, found 0"),
            ({"poll_max_seconds": float("nan")}, "expected a number above 0, found nan"),
            ({"poll_max_seconds": None}, "expected a number above 0, found None"),
        ],
    )
    def test_what_cannot_be_meant(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError) as caught:
            BatchOptions.from_options(options)
        assert words in caught.value.message

    @pytest.mark.parametrize("name", ["poll_seconds", "poll_max_seconds"])
    def test_nobody_can_wait_for_ever(self, name: str) -> None:
        with pytest.raises(ConfigError):
            BatchOptions.from_options({name: float("inf")})

    def test_the_nearest_key_is_named(self) -> None:
        with pytest.raises(ConfigError) as caught:
            BatchOptions.from_options({"poll_second": 1})
        assert caught.value.hint == "did you mean 'poll_seconds'?"
