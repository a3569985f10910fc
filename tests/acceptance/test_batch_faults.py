"""Whatever a provider's batches do, a run ends with every artist answered or classed, and nothing is charged twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from batch_world import CLEAN, BatchWorld, provider, world

ARTISTS = 20
SIZE = 10
"""Requests in a batch: there are two of them, and more where something is asked again."""


def runs(project: BatchWorld, *codes: int) -> None:
    """Runs, one after another, that end with these exit codes."""
    found = []
    for code in codes:
        ran = project.run("run")
        found.append(ran.code)
        assert ran.code == code, f"exit codes {found}\n{ran.err}"


def until_done(project: BatchWorld) -> None:
    """One run, or two: what may have been charged for is for the next one to ask again."""
    if project.run("run").code != 0:
        project.run("run").ok()


def assert_answered(project: BatchWorld) -> None:
    """Every artist has an answer, each of which was charged for once, and all of it is known."""
    project.assert_all_fresh()
    project.assert_bought_once()
    project.assert_books_agree()
    project.assert_nothing_orphaned()
    assert project.run("audit").ok().out.splitlines()[-1].startswith(CLEAN)


def lost(project: BatchWorld) -> int:
    """Lines that the server answered and charged for, and that stand in no file."""
    return sum(job["lines"]["lost"] for job in project.jobs())


@pytest.mark.parametrize(
    "fault",
    [
        "create_lost",
        "upload_lost",
        "create_refused",
        "expired=0.6",
        "row_errors=0.5",
        "row_errors=1",
        "row_errors=0.5+empty_error_file",
        "lines_missing=0.3",
        "download_truncated",
        "download_truncated=3+row_errors=0.5",
        "lines_duplicated=1",
        "lines_shuffled",
        "unknown_lines=3",
        "string_bodies",
        "keys_missing",
        "several_items",
        "wrong_counts",
        "no_usage",
        "token_limit",
        "lines_duplicated=0.5+lines_shuffled+unknown_lines=2+string_bodies+keys_missing+wrong_counts+no_usage",
        "expired=0.7+row_errors=0.3+lines_missing=0.2+lines_duplicated=0.5+lines_shuffled+download_truncated",
    ],
)
def test_a_fault_of_the_first_batches_costs_one_run_nothing_but_time(tmp_path: Path, fault: str) -> None:
    with world(tmp_path, {"max_requests": SIZE}, batch_script=[fault, fault]) as project:
        project.of_many(ARTISTS)
        runs(project, 0)
        assert_answered(project)


@pytest.mark.parametrize("fault", ["errors_only", "cancelled=0.5", "cancelled=0", "failed_validation=3"])
def test_what_a_fault_leaves_failed_is_asked_by_the_next_run(tmp_path: Path, fault: str) -> None:
    """A validation fails only by a fault: no line that a project can ask for has anything wrong with it."""
    with world(tmp_path, {"max_requests": SIZE}, batch_script=[fault, fault]) as project:
        project.of_many(ARTISTS)
        runs(project, 2 if fault == "errors_only" else 1)  # nothing but refusals stops the run
        states = dict(project.rows("SELECT state, count(*) FROM results GROUP BY state"))
        assert states["failed"] == {"errors_only": 20, "cancelled=0.5": 10, "cancelled=0": 20}.get(fault, 2)
        assert project.value("SELECT count(*) FROM results WHERE state = 'failed' AND coalesce(error, '') = ''") == 0
        assert len(project.charges()) == states.get("fresh", 0)
        runs(project, 0)
        assert_answered(project)


@pytest.mark.parametrize("usage", ["", "+no_usage"])
def test_two_percent_of_the_lines_come_to_nothing(tmp_path: Path, usage: str) -> None:
    """Where the provider says what it billed, and that adds up, nobody calls them maybe paid."""
    with world(tmp_path, {"max_requests": 100}, batch_script=[f"lines_missing=0.02{usage}"] * 2) as project:
        project.of_many(200)
        until_done(project)
        assert_answered(project)
        missing = sum(job["lines"]["missing"] for job in project.jobs())
        assert missing > 0
        unclear = project.value("SELECT count(*) FROM attempts WHERE paid = 'maybe'")
        assert unclear == (missing if usage else 0)


@pytest.mark.parametrize("usage", ["", "+no_usage"])
def test_two_percent_of_the_lines_are_charged_and_nowhere(tmp_path: Path, usage: str) -> None:
    """Only the bill knows of them. They are called maybe paid, and asked again, as the project says by default."""
    with world(tmp_path, {"max_requests": 100}, batch_script=[f"lines_lost=0.02{usage}"] * 2) as project:
        project.of_many(200)
        until_done(project)
        project.assert_all_fresh()
        project.assert_books_agree(hidden=True)
        project.assert_nothing_orphaned()
        hidden = lost(project)
        assert hidden > 0
        assert project.value("SELECT count(*) FROM attempts WHERE paid = 'maybe'") == hidden
        assert len(project.charges()) == 200 + hidden
        assert project.run("audit").ok().out.splitlines()[-1].startswith(f"{CLEAN}, maybe paid: {hidden} attempt")


def test_what_may_have_been_charged_is_not_asked_again_where_the_project_says_so(tmp_path: Path) -> None:
    careful = {"first_delay = 0.001": "first_delay = 0.001\nmaybe_paid = false"}
    settings: dict[str, Any] = {"max_requests": SIZE, "replaced": careful}
    with world(tmp_path, settings, batch_script=["lines_lost=0.3+lines_missing=0.1"] * 2) as project:
        project.of_many(ARTISTS)
        runs(project, 1, 1)
        assert lost(project) > 0
        assert len(project.charges()) == ARTISTS - sum(job["lines"]["missing"] for job in project.jobs())
        assert len(project.jobs()) == 2, "something was asked again"
        unclear = project.value("SELECT count(*) FROM results WHERE state = 'maybe paid'")
        assert unclear == ARTISTS - project.value("SELECT count(*) FROM results WHERE state = 'fresh'")
        project.assert_books_agree(hidden=True)


def test_strange_lines_are_kept_and_change_nothing(tmp_path: Path) -> None:
    fault = "lines_duplicated=1+unknown_lines=3+lines_shuffled"
    with world(tmp_path, {"max_requests": SIZE}, batch_script=[fault] * 2) as project:
        project.of_many(ARTISTS)
        runs(project, 0)
        assert_answered(project)
        kept = dict(project.rows("SELECT kind, count(*) FROM stray_lines GROUP BY kind"))
        assert kept == {"duplicated": ARTISTS, "unknown": 6}


# --------------------------------------------------------------------------------------------------- the end of a window


def test_a_batch_that_is_stuck_until_its_window_ends_is_paid_for_as_far_as_it_came(tmp_path: Path) -> None:
    with world(tmp_path, {"max_requests": SIZE}, batch_script=["stuck"] * 2, batch_window_seconds=0.3) as project:
        project.of_many(ARTISTS)
        runs(project, 0)
        assert_answered(project)
        assert [job["status"] for job in project.jobs()][:2] == ["expired", "expired"]
        assert project.counts()[:2] == [{"answered": 5, "expired": 5}] * 2


# ------------------------------------------------------------------------------------------- too much waits already


@pytest.mark.parametrize("refusal", ["create", "failed"])
@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_more_than_may_be_enqueued_goes_in_smaller_pieces(tmp_path: Path, refusal: str, seconds: float) -> None:
    limits: dict[str, Any] = {"batch_enqueued_tokens": 60, "batch_token_refusal": refusal, "batch_seconds": seconds}
    with world(tmp_path, {"max_requests": SIZE}, **limits) as project:
        project.of_many(ARTISTS)
        runs(project, 0)
        assert_answered(project)
        assert len(project.jobs()) > 2
        assert project.value("SELECT count(*) FROM enqueued_tokens") == 1


@pytest.mark.parametrize("refusal", ["create", "failed"])
def test_a_request_for_which_there_is_never_room_fails_and_costs_nothing(tmp_path: Path, refusal: str) -> None:
    with world(tmp_path, batch_enqueued_tokens=1, batch_token_refusal=refusal) as project:
        runs(project, 1)
        assert project.rows("SELECT DISTINCT state, substr(error, 1, 15) FROM results") == [
            ("failed", "enqueued_tokens")
        ]
        assert project.charges() == []
        project.assert_clean_audit()


def test_what_is_held_back_for_lack_of_room_is_not_asked_twice(tmp_path: Path) -> None:
    """While one request waits for room, another one fails and is to be tried again: both are pulled in one go."""
    script = ["token_limit", "ok", "expired=0", "row_errors=1"]
    with world(tmp_path, batch_script=script, batch_token_refusal="create") as project:
        runs(project, 0)
        assert_answered(project)


# --------------------------------------------------------------------------------------------- refused by the provider


def test_requests_that_the_provider_refuses_one_by_one_fail_and_cost_nothing(tmp_path: Path) -> None:
    """All rows stand in the error file; there is no output file."""
    with world(tmp_path) as project:
        project.settle(replaced={"max_output_tokens = 400": "max_output_tokens = 400\ntemperature = 9"})
        runs(project, 1, 1)
        assert {row[0] for row in project.rows("SELECT substr(error, 1, 11) FROM results")} == {"bad_request"}
        assert {job["output_file_id"] for job in project.jobs()} == {None}
        assert project.charges() == []
        project.assert_clean_audit()


def test_a_quota_that_runs_out_in_the_middle_stops_the_run_and_costs_nobody_an_answer(tmp_path: Path) -> None:
    with provider(tmp_path, quota_after=12) as poor:
        project = BatchWorld(tmp_path / "project", poor, max_requests=SIZE)
        project.of_many(ARTISTS)
        runs(project, 75, 75)
        assert len(project.charges()) == 12
        assert project.value("SELECT count(*) FROM results WHERE state = 'fresh'") == 12
        bought = Counter(charge.body_sha256 for charge in project.charges())
    with provider(tmp_path, port=poor.port) as rich:
        project.server = rich
        project.run("resume").ok()
        project.assert_all_fresh()
        bought += Counter(charge.body_sha256 for charge in project.charges())
        assert set(bought.values()) == {1}
        assert bought.total() == ARTISTS
        project.assert_nothing_orphaned()
        project.assert_clean_audit()
