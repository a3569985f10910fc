"""Kill the process at any moment: paid answers are kept, nothing is paid twice, unclear attempts are reported."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from world import World

from bioforge.testing import KILLED, wait_until

MakeWorld = Callable[..., World]


def killed_when(world: World, met: Callable[[], bool], *arguments: str) -> int:
    """Kill a run as soon as a condition holds, unless it has ended; return its exit code."""
    running = world.start("run", *arguments)
    wait_until(lambda: met() or running.gone(), "the moment to kill")
    if not running.gone():
        running.kill()
    return running.end().code


def _reached(count: Callable[[], int], enough: int) -> bool:
    return count() >= enough


class TestMessages:
    ROWS = 120

    def test_killed_at_random_moments_and_resumed(self, make_world: MakeWorld) -> None:
        world = make_world(latency=0.03)
        world.of_many(self.ROWS)
        draw, kills = random.Random(3), 0
        for _ in range(4):
            enough = world.charged() + draw.randrange(1, 25)
            kills += killed_when(world, partial(_reached, world.charged, enough), "--backend", "anthropic") == KILLED
        world.to_the_end("--backend", "anthropic")
        world.assert_all_fresh()
        world.assert_books_agree()
        world.assert_nothing_paid_twice()
        bought = Counter(charge.body_sha256 for charge in world.server.charges)
        assert len(bought) == self.ROWS
        twice = bought.total() - len(bought)
        assert twice <= world.audit()["maybe_paid"] <= kills * 4

    def test_what_is_unclear_is_not_asked_again_when_the_project_says_so(self, make_world: MakeWorld) -> None:
        world = make_world(latency=0.03)
        world.of_many(self.ROWS)
        world.edit("bioforge.toml", "[retry]\n", "[retry]\nmaybe_paid = false\n")
        killed_when(world, lambda: world.charged() >= 20, "--backend", "anthropic")
        resumed = world.process("resume", "--backend", "anthropic")
        unclear = world.value("SELECT count(*) FROM results WHERE state = 'maybe paid'")
        assert resumed.code == (1 if unclear else 0), resumed.err
        world.assert_bought_once()
        world.assert_books_agree()


class TestBatches:
    @pytest.mark.parametrize("call", range(1, 8))
    def test_killed_at_any_call_it_goes_on(self, make_world: MakeWorld, call: int) -> None:
        """Kill the process after a call arrived, before or after its answer."""
        world = make_world(batch_seconds=0.4 * (call % 2))
        killed_when(world, lambda: len(world.server.arrived) >= call)
        world.to_the_end()
        world.assert_undisturbed()
        assert len(world.server.batches.by_id) == 2

    @pytest.mark.parametrize("seconds", [0.0, 0.4])
    def test_killed_between_a_creation_and_its_record(self, make_world: MakeWorld, seconds: float) -> None:
        """Hold the answer back until the process is dead."""
        world = make_world({"max_requests": 100}, batch_seconds=seconds, create_latency=60.0)
        assert killed_when(world, lambda: len(world.server.batches.by_id) == 1) == KILLED
        assert world.rows("SELECT state, batch_id FROM batches") == [("creating", None)]
        (line,) = (line for line in world.run("status").ok().out.splitlines() if line.startswith("bf-"))
        assert line.split()[1] == "creating"
        world.to_the_end()
        world.assert_undisturbed()
        assert len(world.server.batches.by_id) == 1, "it was created again"

    def test_killed_in_a_creation_and_asked_at_another_address(self, make_world: MakeWorld) -> None:
        """Another server cannot know if the batch was created: it stays open and is not sent again."""
        world = make_world({"max_requests": 100}, batch_seconds=0.0, create_latency=60.0)
        address = world.server.base_url
        assert killed_when(world, lambda: len(world.server.batches.by_id) == 1) == KILLED
        world.edit("bioforge.toml", f'"{address}"', f'"{address}/v1"')
        ran = world.process("run")
        assert (ran.code, "warning: 1 open batch" in ran.err) == (75, True), ran.err
        assert world.rows("SELECT state, provider FROM batches") == [("creating", address)]
        assert {row[0] for row in world.rows("SELECT state FROM results")} == {"in batch"}
        world.edit("bioforge.toml", f'"{address}/v1"', f'"{address}"')
        world.to_the_end()
        world.assert_undisturbed()
        assert len(world.server.batches.by_id) == 1, "it was created again"

    def test_a_key_that_is_refused_leaves_nothing_to_look_for(self, make_world: MakeWorld) -> None:
        world = make_world({"max_requests": 100}, batch_seconds=0.0)
        ran = world.process("run", env={"ANTHROPIC_API_KEY": "sk-ant-invalid"})
        assert ran.code == 2, ran.err
        assert world.rows("SELECT state, batch_id FROM batches") == [("prepared", None)]
        before = len(world.server.arrived)
        world.to_the_end()
        assert world.server.arrived[before].startswith("POST "), "it was looked for"
        world.assert_undisturbed()

    def test_killed_twice_around_a_creation(self, make_world: MakeWorld) -> None:
        world = make_world({"max_requests": 100}, batch_seconds=3600, create_latency=60.0)
        assert killed_when(world, lambda: len(world.server.batches.by_id) == 1) == KILLED
        lists = len(world.server.arrived)
        assert killed_when(world, lambda: len(world.server.arrived) >= lists + 3) == KILLED
        for job in world.server.batches.by_id.values():
            job.ends = 0
        world.to_the_end()
        world.assert_undisturbed()
        assert len(world.server.batches.by_id) == 1

    @pytest.mark.parametrize("seed", range(2))
    def test_killed_at_random_moments_on_a_bad_day(self, make_world: MakeWorld, seed: int) -> None:
        draw = random.Random(seed)
        script = ["lost", "expired=0.5", "lost+busy=0.3", "unsent", "download_cut+canceled=0.2", "overloaded", "lost"]
        world = make_world({"max_requests": 7}, batch_seconds=0.05, batch_script=script)
        world.of_many(40)
        for _ in range(4):
            calls = len(world.server.arrived) + draw.randrange(1, 12)
            killed_when(world, partial(_reached, world.server.arrived.__len__, calls))
        world.to_the_end(most=6)
        world.assert_undisturbed()
