"""Run Message Batches: paid, expired, cancelled, collected later, and found after an unclear creation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest
from server import AnthropicServer
from world import REQUESTS, World

MakeWorld = Callable[..., World]


def test_a_run_buys_each_request_once_at_half_the_price(make_world: MakeWorld) -> None:
    world = make_world()
    world.run("run").ok()
    world.assert_undisturbed()
    assert world.tiers() == {"batch": REQUESTS}
    tokens = [(charge.input_tokens, charge.output_tokens) for charge in world.server.charges]
    full = sum(given * 1.0 + made * 5.0 for given, made in tokens) / 1e6
    assert world.value("SELECT sum(cost_usd) FROM responses") == pytest.approx(full / 2)
    assert world.run("run").ok().err.count("up to date") or world.charged() == REQUESTS


def test_names_of_requests_tell_batch_target_attempt_and_request(make_world: MakeWorld) -> None:
    world = make_world({"max_requests": 10})
    world.run("run").ok()
    (key,) = (row[0] for row in world.rows("SELECT key FROM batches"))
    rows = world.rows("SELECT client_request_id, request_hash FROM attempts ORDER BY id")
    (job,) = world.server.batches.by_id.values()
    assert [entry["custom_id"] for entry in job.requests] == [row[0] for row in rows]
    for name, digest in rows:
        mark, target, number, start = name.split("-")
        assert (mark, number, start) == (key[-16:], "1", digest.removeprefix("v1:")[:20])
        assert target.startswith("t")


def test_left_on_purpose_and_collected_later(make_world: MakeWorld) -> None:
    world = make_world(batch_seconds=3600)
    ran = world.run("run", "--no-wait").failed(75)
    assert "2 batches go on at the provider with 3 requests" in ran.err
    assert world.charged() == 0
    for job in world.server.batches.by_id.values():
        job.ends = 0
    world.run("run").ok()
    world.assert_undisturbed()


def test_realtime_leaves_alone_what_is_in_a_batch_and_collects_it(make_world: MakeWorld) -> None:
    world = make_world(batch_seconds=3600)
    world.run("run", "--no-wait", "--limit", "2").failed(75)
    world.run("run", "--backend", "anthropic").failed(75)
    assert world.tiers() == {"standard": 1}
    assert world.reasons() == {"in batch": 3}, "two artists, and the twin of one of them"
    for job in world.server.batches.by_id.values():
        job.ends = 0
    world.run("run", "--backend", "anthropic").ok()
    assert world.tiers() == {"standard": 1, "batch": 2}
    world.assert_undisturbed()


@pytest.mark.parametrize("backends", [("anthropic", "anthropic-batch"), ("anthropic-batch", "anthropic")])
def test_what_one_backend_bought_the_other_does_not_buy(make_world: MakeWorld, backends: tuple[str, str]) -> None:
    world = make_world()
    for name in backends:
        world.run("run", "--backend", name).ok()
    assert world.charged() == REQUESTS
    world.assert_undisturbed()


def test_the_requests_of_an_expired_batch_go_into_the_next_one(make_world: MakeWorld) -> None:
    world = make_world({"max_requests": 100}, batch_script=["expired=0.5"])
    world.of_many(10)
    world.run("run").ok()
    world.assert_undisturbed()
    assert [len(job.requests) for job in world.server.batches.by_id.values()] == [10, 5]
    assert world.rows("SELECT DISTINCT paid FROM attempts WHERE error_class = 'expired'") == [("no",)]


def test_of_a_cancelled_batch_what_was_answered_is_kept(make_world: MakeWorld) -> None:
    world = make_world({"max_requests": 100}, batch_seconds=3600)
    world.of_many(10)
    world.run("run", "--no-wait").failed(75)
    (job,) = world.server.batches.by_id.values()
    job.fate["canceled"] = 0.4
    world.server.batches.cancel(job)
    world.server.settings.batch_seconds = 0
    world.run("run").ok()
    counts = [json.loads(text) for (text,) in world.rows("SELECT counts FROM batches ORDER BY prepared_at")]
    assert counts == [{"answered": 6, "cancelled": 4}, {"answered": 4}]
    world.assert_undisturbed()


def test_requests_that_are_refused_fail_alone_and_busy_ones_are_tried_again(make_world: MakeWorld) -> None:
    world = make_world({"max_requests": 100}, batch_script=["errored=0.2+busy=0.3"])
    world.of_many(10)
    world.run("run").failed(1)
    assert Counter(world.rows("SELECT state FROM results")) == {("fresh",): 8, ("failed",): 2}
    assert world.rows(
        "SELECT error_class, paid, count(*) FROM attempts WHERE error_class IS NOT NULL GROUP BY 1, 2"
    ) == [
        ("bad_request", "no", 2),
        ("overloaded", "no", 3),
    ]
    world.assert_bought_once()
    world.assert_books_agree()
    world.assert_nothing_orphaned()


def test_a_line_that_is_missing_may_have_been_paid_for(make_world: MakeWorld) -> None:
    world = make_world({"max_requests": 100}, batch_script=["lines_missing=1+lines_twice=1"])
    world.of_many(5)
    world.run("run").failed(1)
    assert json.loads(world.value("SELECT counts FROM batches")) == {"answered": 4, "duplicated": 1, "missing": 1}
    world.assert_books_agree()
    assert world.audit()["maybe_paid"] == 1


def test_results_that_break_off_are_fetched_again(make_world: MakeWorld) -> None:
    world = make_world(batch_script=["download_cut", "download_cut"])
    world.run("run").ok()
    world.assert_undisturbed()


def test_no_credit_stops_the_run_and_nothing_is_lost(make_world: MakeWorld) -> None:
    world = make_world(quota_after=0)
    ran = world.run("run").failed(75)
    assert "Your credit balance is too low" in ran.err
    world.server.settings.quota_after = None
    world.run("resume").ok()
    world.assert_undisturbed()


def test_a_batch_that_is_refused_is_given_back(make_world: MakeWorld) -> None:
    world = make_world(batch_script=["refused"])
    ran = world.run("run").failed(2)
    assert "the provider refuses the batch: batches are not for this model" in ran.err
    world.run("run").ok()
    world.assert_undisturbed()


# ---------------------------------------------------------------------------------------------- an unclear creation


def test_a_creation_that_never_arrived_is_made_again(make_world: MakeWorld) -> None:
    world = make_world(batch_script=["unsent"])
    world.run("run").ok()
    world.assert_undisturbed()
    assert len(world.server.batches.by_id) == 2


def test_a_creation_whose_answer_is_lost_is_waited_for_and_found(make_world: MakeWorld) -> None:
    world = make_world(batch_script=["lost"], batch_seconds=0.3)
    ran = world.run("run").ok()
    assert "msgbatch_000001 has as many requests, and tells its requests' names only when it has ended" in ran.err
    world.assert_undisturbed()
    assert len(world.server.batches.by_id) == 2


def test_who_does_not_wait_is_told_and_nothing_is_created_again(make_world: MakeWorld) -> None:
    world = make_world({"max_requests": 100}, batch_script=["lost"], batch_seconds=3600)
    key = ""
    for command in ("run", "resume", "run"):
        ran = world.run(command, "--no-wait") if command == "run" else world.run(command, "--deadline", "0.2s")
        assert ran.code == 75, ran.err
        (key,) = (row[0] for row in world.rows("SELECT key FROM batches"))
        assert "it is not known yet whether batch" in ran.err
        assert key in ran.err
    assert f"bioforge batch abandon {key}" in world.run("run", "--no-wait").failed(75).err
    assert len(world.server.batches.by_id) == 1
    world.run("run", "--backend", "anthropic").failed(75)
    assert world.charged() == 0, "what may be in a batch is not asked in another way"
    for job in world.server.batches.by_id.values():
        job.ends = 0
    world.run("run").ok()
    world.assert_undisturbed()


def test_a_batch_of_somebody_else_with_as_many_requests_is_waited_for_and_not_taken(make_world: MakeWorld) -> None:
    world = make_world({"max_requests": 100}, batch_script=["unsent"], batch_seconds=3600)
    elsewhere = strangers(world.server, REQUESTS)
    ran = world.run("run", "--no-wait").failed(75)
    assert f"{elsewhere} has as many requests" in ran.err
    assert len(world.server.batches.by_id) == 1
    world.server.batches.by_id[elsewhere].ends = 0
    world.server.settings.batch_seconds = 0
    world.run("run").ok()
    assert len(world.server.batches.by_id) == 2
    world.assert_all_fresh()
    assert world.value("SELECT count(*) FROM attempts WHERE paid = 'maybe'") == 0


def test_a_batch_of_somebody_else_with_more_requests_is_in_nobody_s_way(make_world: MakeWorld) -> None:
    world = make_world({"max_requests": 100}, batch_script=["unsent"], batch_seconds=0)
    stranger = strangers(world.server, REQUESTS + 1)
    world.server.batches.by_id[stranger].ends = float("inf")
    world.run("run").ok()
    world.assert_all_fresh()


@pytest.mark.parametrize("orphan_ends_first", [True, False])
def test_an_orphan_among_strangers_is_found_in_either_order(make_world: MakeWorld, orphan_ends_first: bool) -> None:
    world = make_world({"max_requests": 100}, batch_script=["lost"], batch_seconds=3600)
    before = strangers(world.server, REQUESTS)
    world.run("run", "--no-wait").failed(75)
    after = strangers(world.server, REQUESTS)
    orphan = next(name for name in world.server.batches.by_id if name not in (before, after))
    first, second = ([orphan], [before, after]) if orphan_ends_first else ([before, after], [orphan])
    for name in first:
        world.server.batches.by_id[name].ends = 0
    ran = world.run("run", "--no-wait")
    if orphan_ends_first:
        ran.ok()
    else:
        ran.failed(75)
        for name in second:
            world.server.batches.by_id[name].ends = 0
        world.run("run").ok()
    assert world.value("SELECT batch_id FROM batches") == orphan
    assert len(world.server.batches.by_id) == 3, "something was created again"
    world.assert_all_fresh()
    ours = [charge for charge in world.server.charges if charge.batch_id == orphan]
    world.assert_ledger_equals_state([charge.name for charge in ours])


def test_a_batch_that_is_missing_from_the_first_lists_is_found(make_world: MakeWorld) -> None:
    world = make_world(batch_script=["lost", "lost"], list_lag=2)
    world.run("run").ok()
    world.assert_undisturbed()


def test_results_that_are_archived_leave_the_question_open(make_world: MakeWorld) -> None:
    world = make_world({"max_requests": 100}, batch_script=["lost"], batch_seconds=3600)
    world.run("run", "--no-wait").failed(75)
    (job,) = world.server.batches.by_id.values()
    job.ends, job.archived = 0, True
    ran = world.run("run").failed(75)
    assert "it is not known yet whether batch" in ran.err
    assert len(world.server.batches.by_id) == 1
    key = world.value("SELECT key FROM batches")
    assert world.run("batch", "abandon", key, "--yes").code in (0, 1)


def strangers(server: AnthropicServer, number: int) -> str:
    """Create a batch of another program on the same account."""
    params = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
    entries = [{"custom_id": f"their-{place}", "params": params} for place in range(number)]
    return server.batches.create(entries, {}).id
