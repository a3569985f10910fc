"""Batches never pay twice, whatever dies when: a run is killed at every moment it has, and another one goes on."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from batch_world import REQUESTS, BatchWorld, provider, walk, world
from killing_proxy import KillingProxy, Moment
from processes import KILLED, Child, Ran, wait_until

from bioforge.backends.batch.fill import GROUP

Facts = list[tuple[Any, ...]]

BAD_DAY = ("token_limit", "upload_lost+create_lost", "expired=0", "row_errors=1", "download_truncated+lines_missing=1")
"""What happens to the first five batches; all that it takes from a run is time."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What a run comes to when nothing happens to it."""
    with world(tmp_path_factory.mktemp("undisturbed")) as calm:
        calm.run("run").ok()
        assert len(calm.jobs()) == 2
        assert len(calm.charges()) == REQUESTS
        facts = calm.facts()
        calm.assert_undisturbed(facts)
        return facts


def every(few: int, all_of_them: int = 1) -> pytest.MarkDecorator:
    """How many moments a walk goes on by: few are tried by default, and all by `-m slow`. An odd number goes on in both ways
    in turn."""
    return pytest.mark.parametrize("stride", [few, pytest.param(all_of_them, marks=pytest.mark.slow)])


def going_on(place: int) -> str:
    """Both ways of going on, in turn."""
    return ("resume", "run")[place % 2]


@contextmanager
def proxied(folder: Path, **settings: Any) -> Iterator[tuple[BatchWorld, KillingProxy]]:
    """A world, and what stands between it and its server."""
    with provider(folder) as server, KillingProxy() as proxy:
        proxy.aim(server.url)
        yield BatchWorld(folder / "project", server, proxy.base_url, **settings), proxy


def struck(project: BatchWorld, proxy: KillingProxy, call: int, moment: Moment, strike: Callable[[Child], None]) -> Ran:
    """A run of which somebody strikes the process at this call to the provider, before or after it is processed."""
    begun: list[Child] = []

    def at_last() -> None:
        wait_until(lambda: bool(begun), "the process whose call this is")
        strike(begun[0])

    proxy.aim(project.server.url, call, moment, at_last)
    begun.append(project.begin("run"))
    ran = begun[0].end()
    proxy.aim(project.server.url)
    return ran


# ------------------------------------------------------------------------------------------------- killed, at any moment


@every(3)
def test_killed_after_any_group_of_events_it_goes_on(tmp_path: Path, undisturbed: Facts, stride: int) -> None:
    def step(group: int) -> bool:
        with world(tmp_path / str(group)) as project:
            ran = project.until(group)
            if ran.code == KILLED:
                project.to_the_end(going_on(group), "run")
                project.assert_undisturbed(undisturbed)
                return True
            ran.ok()
            return False

    assert walk(step, start=0, stride=stride) > 12, "fewer moments than there are steps"


@every(3)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_call_to_the_provider_it_goes_on(
    tmp_path: Path, undisturbed: Facts, moment: Moment, stride: int
) -> None:
    def step(call: int) -> bool:
        with proxied(tmp_path / str(call)) as (project, proxy):
            ran = struck(project, proxy, call, moment, Child.kill)
            if ran.code == KILLED:
                project.to_the_end(going_on(call + (moment == "after")), "run")
                project.assert_undisturbed(undisturbed)
                return True
            ran.ok()
            return False

    assert walk(step, stride=stride) > 8, "fewer calls than an upload, a creation, a look and a download for each batch"


@pytest.mark.parametrize("seed", range(4))
def test_killed_twice_in_a_row_it_goes_on(tmp_path: Path, undisturbed: Facts, seed: int) -> None:
    draw = random.Random(seed)
    with proxied(tmp_path) as (project, proxy):
        for _ in range(2):
            if draw.random() < 0.5:
                project.until(draw.randint(1, 8))
            else:
                struck(project, proxy, draw.randint(1, 5), draw.choice(["before", "after"]), Child.kill)
        project.to_the_end(going_on(seed), "run")
        project.assert_undisturbed(undisturbed)


@every(15, 5)
def test_killed_on_a_day_when_everything_goes_wrong_it_goes_on(tmp_path: Path, undisturbed: Facts, stride: int) -> None:
    def step(group: int) -> bool:
        with world(tmp_path / str(group), batch_script=BAD_DAY, batch_token_refusal="create") as project:
            ran = project.until(group)
            if ran.code != KILLED:
                ran.ok()
                return False
            project.to_the_end(going_on(group), "run")
            assert project.facts() == undisturbed
            project.assert_all_fresh()
            project.assert_bought_once()
            project.assert_books_agree()
            project.assert_nothing_orphaned()
            project.assert_clean_audit()
            return True

    assert walk(step, start=3, stride=stride) > 30, "fewer moments than such a day has"


@pytest.mark.parametrize("artists", [1, GROUP + 1])
def test_killed_while_a_refused_batch_is_given_back_its_file_is_not_asked_again(tmp_path: Path, artists: int) -> None:
    """A batch that was refused is given back, half of it is durable, and by the next run there is room for it."""
    options: dict[str, Any] = {"batch_script": ["token_limit"], "batch_token_refusal": "create"}
    with world(tmp_path, {"max_requests": GROUP + 1}, **options) as project:
        project.of_many(artists)
        assert project.until(1, of="Failed").code == KILLED
        assert project.value("SELECT count(*) FROM attempts WHERE outcome = 'failed'") == min(artists, GROUP)
        if artists > 500:
            assert project.value("SELECT state FROM batches") == "releasing"
        project.to_the_end("resume", "run")
        project.assert_bought_once()
        project.assert_books_agree()
        project.assert_nothing_orphaned()
        project.assert_clean_audit()


def test_killed_while_results_are_counted_every_member_is_in_the_counts(tmp_path: Path) -> None:
    with world(tmp_path, batch_script=["lines_missing=1"]) as project:
        assert project.until(1, of="Failed").code == KILLED
        project.to_the_end("resume", "run")
        assert project.counts()[0] == {"missing": 2}
        project.assert_books_agree()


@pytest.mark.parametrize("group", [0, 3, 9])
def test_killed_while_everything_is_made_again_it_is_made_again_once(tmp_path: Path, group: int) -> None:
    with world(tmp_path) as project:
        project.run("run").ok()
        assert project.until(group, always_make=True).code == KILLED
        project.to_the_end("resume")
        project.assert_all_fresh()
        assert set(Counter(charge.body_sha256 for charge in project.charges()).values()) == {2}
        project.assert_books_agree()
        project.assert_nothing_orphaned()
        audit = project.run("audit").ok().out
        assert f"paid again on purpose: {REQUESTS} answers" in audit
        assert "rows paid twice: 0, paid answers lost: 0" in audit


# ------------------------------------------------------------------------------------------- interrupted, at any moment


@every(3)
def test_ctrl_c_at_any_call_leaves_in_order_and_it_goes_on(tmp_path: Path, undisturbed: Facts, stride: int) -> None:
    """The call during which it comes has no answer either."""

    def step(call: int) -> bool:
        with proxied(tmp_path / str(call)) as (project, proxy):
            ran = struck(project, proxy, call, "after", lambda child: _interrupt(child, "stopping"))
            if not proxy.strikes:
                ran.ok()
                return False
            assert ran.code in (130, 0), ran.err
            assert ran.code == 0 or "bioforge resume" in ran.err
            project.to_the_end("resume", "run")
            project.assert_undisturbed(undisturbed)
            return True

    assert walk(step, stride=stride) > 8


@pytest.mark.parametrize("call", [1, 2, 6])
def test_leaving_at_once_in_the_middle_of_a_call_loses_nothing(tmp_path: Path, undisturbed: Facts, call: int) -> None:
    """The second Ctrl-C does not even wait for an upload, a creation or a download."""

    def twice(child: Child) -> None:
        _interrupt(child, "stopping")
        _interrupt(child, "leaving now")
        wait_until(child.gone, "the end of a process that was to leave at once")

    with proxied(tmp_path) as (project, proxy):
        assert struck(project, proxy, call, "after", twice).code == 130
        project.to_the_end("resume", "run")
        project.assert_undisturbed(undisturbed)


def _interrupt(child: Child, answer: str) -> None:
    child.signal(signal.SIGINT)
    wait_until(lambda: answer in child.said() or child.gone(), f"{answer!r} on stderr")


# ----------------------------------------------------------------------------------------------- the network, at any moment


def test_any_call_may_stay_without_an_answer(tmp_path: Path, undisturbed: Facts) -> None:
    def step(call: int) -> bool:
        with proxied(tmp_path / str(call), max_requests=10) as (project, proxy):
            proxy.aim(project.server.url, call, "after")
            project.run("run").ok()
            project.assert_undisturbed(undisturbed)
            return proxy.strikes > 0

    assert walk(step) > 4


@pytest.mark.parametrize("killed", [False, True])
def test_a_creation_without_an_answer_is_looked_for_in_lists_that_are_behind(
    tmp_path: Path, undisturbed: Facts, killed: bool
) -> None:
    with proxied(tmp_path) as (project, proxy):
        proxy.blind = 2
        if killed:
            assert struck(project, proxy, 2, "after", Child.kill).code == KILLED
        else:
            proxy.aim(project.server.url, 2, "after")
        project.run("run").ok()
        assert proxy.blind == 0
        project.assert_undisturbed(undisturbed)


def test_from_any_call_on_the_provider_may_be_gone_until_the_next_run(tmp_path: Path, undisturbed: Facts) -> None:
    patience = {"first_delay = 0.001": "first_delay = 0.001\nmax_delay = 0.01\noutage_seconds = 0.05"}

    def step(call: int) -> bool:
        with proxied(tmp_path / str(call), replaced=patience, max_requests=10) as (project, proxy):
            proxy.aim(project.server.url, call, "after", proxy.go_down)
            ran = project.run("run")
            if not proxy.strikes:
                ran.ok()
                return False
            assert ran.code == 75, ran.err
            assert "the provider has been down" in ran.err
            proxy.aim(project.server.url)
            project.run("resume").ok()
            project.assert_undisturbed(undisturbed)
            return True

    assert walk(step) > 4


# ------------------------------------------------------------------------------------------------------ another machine


@pytest.mark.parametrize("ended", ["left on purpose", "killed"])
def test_a_state_that_was_copied_elsewhere_collects_everything(tmp_path: Path, undisturbed: Facts, ended: str) -> None:
    with world(tmp_path, {"poll_seconds": 30.0}) as project:
        project.run("plan").ok()
        with closing(sqlite3.connect(project.root / "bioforge.db")) as browser:  # the log is not folded into the state
            browser.execute("SELECT * FROM artists").fetchall()
            if ended == "killed":
                assert project.until(2, of="submitted").code == KILLED
            else:
                assert project.command("run", "--no-wait").code == 75
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            for path in (
                *project.root.glob("bioforge.db*"),
                project.root / "bioforge.toml",
                project.root / "artists.csv",
            ):
                if path.is_file():
                    shutil.copy(path, elsewhere)
        assert (elsewhere / "bioforge.db-wal").stat().st_size > 0
        sent = project.server.ledger.batches
        shutil.rmtree(project.root)
        elsewhere.rename(project.root)
        project.settle()
        project.command("resume").ok()
        assert project.server.ledger.batches == sent, "something was sent again"
        project.assert_undisturbed(undisturbed)


@pytest.mark.parametrize(("place", "state"), [(1, "uploaded"), (2, "submitted"), (1, "completed")])
def test_the_embedded_server_dies_with_a_run_and_comes_back_with_the_next(
    tmp_path: Path, undisturbed: Facts, place: int, state: str
) -> None:
    with world(tmp_path) as project:
        project.base_url = "simulator"
        project.settle("[simulator]\nbatch_seconds = 0\nledger = 'ledger.jsonl'\n")
        assert project.until(place, of=state).code == KILLED
        project.to_the_end("resume", "run")
        project.assert_all_fresh()
        assert [row[11] for row in project.facts()] == [row[11] for row in undisturbed], "another text"
        charged = Counter(json.loads(line)["body_sha256"] for line in project.read("ledger.jsonl").splitlines())
        assert set(charged.values()) == {1}
        project.assert_clean_audit()
