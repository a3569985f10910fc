"""Test the parts that need no cluster: options, scaling, choice of servers."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from bioforge_ray.options import RayOptions
from bioforge_ray.scaling import Scaling, restart_delay
from bioforge_ray.servers import Servers
from pydantic import ValidationError


class TestOptions:
    def test_everything_has_a_default(self) -> None:
        options = RayOptions.model_validate({})
        assert (options.address, options.least, options.most, options.room(64)) == ("local", 2, 2, 32)

    def test_a_range_gives_each_worker_its_part_of_the_most(self) -> None:
        options = RayOptions.model_validate({"workers": {"min": 2, "max": 16}})
        assert (options.least, options.most, options.room(4096)) == (2, 16, 256)
        assert RayOptions.model_validate({"workers": 3}).room(64) == 22

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ({"address": "ray://head:10001"}, "Ray Client"),
            ({"workers": {"min": 3, "max": 2}}, "expected min to be at most max"),
            ({"workers": {"min": 1, "max": 2}, "placement": "PACK"}, "needs a fixed number of workers"),
            ({"resources": {"CPU": 1.0}}, "in cpus_per_worker"),
            ({"resources": {"egress": 0.0}}, "amounts above 0"),
            ({"base_urls": ["server:8000"]}, "expected http"),
            ({"cpus_per_worker": 1.5}, "or a whole number"),
        ],
    )
    def test_mistakes_are_reported(self, table: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            RayOptions.model_validate(table)


def test_ray_has_the_private_option_against_printing() -> None:
    """The option is private, and there is no public one (see `cluster.py`)."""
    worker = importlib.import_module("ray._private.worker")
    assert worker._worker_logs_enabled in (True, False)


class TestScaling:
    def scaling(self) -> Scaling:
        return Scaling(least=1, most=4, room=10, grow_seconds=5.0, shrink_seconds=60.0)

    def test_it_begins_with_the_least(self) -> None:
        assert self.scaling().wanted(0, 0, 0, 0, now=0.0) == 1

    def test_it_grows_when_launches_have_waited_all_the_time(self) -> None:
        scaling = self.scaling()
        assert scaling.wanted(1, 0, 15, 10, now=0.0) == 1
        assert scaling.wanted(1, 0, 15, 10, now=4.0) == 1
        assert scaling.wanted(1, 0, 15, 10, now=5.0) == 3

    def test_a_moment_without_anybody_waiting_begins_it_anew(self) -> None:
        scaling = self.scaling()
        scaling.wanted(1, 0, 15, 10, now=0.0)
        scaling.wanted(1, 0, 0, 10, now=3.0)
        assert scaling.wanted(1, 0, 15, 10, now=5.0) == 1

    def test_those_that_are_on_their_way_are_not_asked_for_again(self) -> None:
        scaling = self.scaling()
        for second in range(100):
            assert scaling.wanted(3, 2, 15, 10, now=float(second)) == 3

    def test_it_shrinks_to_the_most_that_was_needed_for_a_while(self) -> None:
        scaling = self.scaling()
        scaling.wanted(4, 0, 0, 35, now=0.0)
        scaling.wanted(4, 0, 0, 12, now=1.0)
        assert scaling.wanted(4, 0, 0, 3, now=59.0) == 4
        assert scaling.wanted(4, 0, 0, 3, now=60.5) == 2
        assert scaling.wanted(2, 0, 0, 3, now=90.0) == 1

    def test_it_never_leaves_its_bounds(self) -> None:
        scaling = self.scaling()
        scaling.wanted(4, 0, 500, 40, now=0.0)
        assert scaling.wanted(4, 0, 500, 40, now=9.0) == 4
        scaling = self.scaling()
        scaling.wanted(1, 0, 0, 0, now=0.0)
        assert scaling.wanted(1, 0, 0, 0, now=100.0) == 1

    def test_who_dies_again_and_again_is_replaced_ever_later(self) -> None:
        assert [restart_delay(deaths) for deaths in (0, 1, 2, 3, 9)] == [0.0, 0.0, 2.0, 4.0, 30.0]


class TestServers:
    def test_the_emptiest_is_next_and_workers_begin_apart(self) -> None:
        servers = Servers(3, offset=1)
        assert [servers.choose(0.0) for _ in range(4)] == [1, 2, 0, 1]
        servers.ended(2, False, 0.0)
        assert servers.choose(0.0) == 2

    def test_one_that_is_away_rests_ever_longer(self) -> None:
        servers = Servers(2)
        servers.ended(servers.choose(0.0), True, 0.0)
        assert [servers.choose(0.5) for _ in range(3)] == [1, 1, 1]
        assert servers.choose(1.0) == 0
        servers.ended(0, True, 1.0)
        assert servers.choose(2.5) == 1
        assert servers.choose(3.0) == 0
        servers.ended(0, False, 3.0)
        servers.ended(servers.choose(3.0), True, 3.0)
        assert servers.choose(4.0) == 0, "an answer in between makes the rests short again"

    def test_calls_that_fail_together_are_one_outage(self) -> None:
        servers = Servers(2)
        for index in [servers.choose(0.0) for _ in range(8)]:
            if index == 0:
                servers.ended(index, True, 0.0)
        assert servers.choose(1.0) == 0

    def test_when_all_are_away_the_one_that_is_back_first_is_asked(self) -> None:
        servers = Servers(2)
        servers.ended(servers.choose(0.0), True, 0.0)
        servers.ended(servers.choose(0.5), True, 0.5)
        assert servers.choose(0.6) == 0
