"""A group of results is recorded while the lines of the next one are read: what is beside what, and whatever goes wrong."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from bioforge.backends.batch import collect
from bioforge.backends.batch.collect import Account
from bioforge.backends.batch.service import BatchResult
from bioforge.backends.gil import SWITCH_SECONDS, CommitThread
from bioforge.core.events import Attempt, Event, Succeeded, UnmatchedLine
from bioforge.core.interfaces import Member, run_inline
from bioforge.core.types import Batch, Request, Response

from .fake_service import Clock, FakeService, World, requests

SOON = 60.0
"""Seconds that no test takes."""


class TestBeside:
    def test_the_step_is_done_on_another_thread_while_this_one_goes_on(self) -> None:
        begun, went_on = threading.Event(), threading.Event()
        threads: list[threading.Thread] = []

        def step() -> None:
            threads.append(threading.current_thread())
            begun.set()
            assert went_on.wait(SOON)
            threads.append(threading.current_thread())

        def ahead() -> None:
            assert begun.wait(SOON)
            threads.append(threading.current_thread())
            went_on.set()

        with closing(CommitThread(ahead, lambda: True)) as beside:
            beside(step)
        first, second, third = threads
        assert first is third is not second is threading.current_thread()

    def test_with_nothing_to_go_on_with_it_is_done_at_once(self) -> None:
        threads: list[threading.Thread] = []
        with closing(CommitThread(lambda: pytest.fail("there is no more"), lambda: False)) as beside:
            beside(lambda: threads.append(threading.current_thread()))
        assert threads == [threading.current_thread()]

    def test_what_the_step_raises_is_raised_when_both_are_done(self) -> None:
        done: list[str] = []

        def step() -> None:
            raise OSError("disk full")

        with (
            closing(CommitThread(lambda: done.append("ahead"), lambda: True)) as beside,
            pytest.raises(OSError, match="full"),
        ):
            beside(step)
        assert done == ["ahead"]

    def test_an_interrupt_leaves_no_step_behind(self) -> None:
        interrupted, done = threading.Event(), list[str]()

        def step() -> None:
            assert interrupted.wait(SOON)
            done.append("step")

        def ahead() -> None:
            interrupted.set()
            raise KeyboardInterrupt

        with closing(CommitThread(ahead, lambda: True)) as beside, pytest.raises(KeyboardInterrupt):
            beside(step)
        assert done == ["step"]

    def test_turns_are_short_only_meanwhile(self) -> None:
        before, turns = sys.getswitchinterval(), list[float]()
        with closing(CommitThread(lambda: turns.append(sys.getswitchinterval()), lambda: True)) as beside:
            beside(lambda: None)
        assert turns == [pytest.approx(SWITCH_SECONDS)]
        assert sys.getswitchinterval() == before


class Lines(FakeService):
    """Notes the lines that were read, and stumbles over one of them."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.seen: list[str] = []
        self.stumbles = ""

    def read(self, batch: Batch, line: bytes) -> BatchResult:
        name = json.loads(line)
        self.seen.append(name)
        if name == self.stumbles:
            raise ValueError(f"cannot read {name}")
        return BatchResult(Response(line), custom_id=name)


class Everybody:
    """Members of whatever name, but for `nobody`. Notes when they are looked up."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def attempts_of(self, batch: str, *, open_only: bool = False) -> Iterator[Attempt]:
        return iter(())

    def find(self, batch: str, custom_ids: Sequence[str]) -> dict[str, Member]:
        self._seen.append("find")
        asked = Request("v1:x", "/v1/responses", "m", b"{}", "a", "bio")
        return {
            name: Member(Attempt(asked, 1, "batch", name, 0.0, batch), True) for name in custom_ids if name != "nobody"
        }


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setattr(collect, "GROUP", 2)
    service = Lines()
    batch = Batch("b", "/v1/responses", "m", requests=5)
    return Account(batch, service, Everybody(service.seen), lambda attempt, row: True, 0.0)


def written(path: Path, *names: str) -> Path:
    path.write_bytes(b"".join(json.dumps(name).encode() + b"\n" for name in names))
    return path


def seen_by(account: Account) -> list[str]:
    service: Lines = account._service  # type: ignore[assignment]
    return service.seen


class TestLookingAhead:
    def test_lines_are_read_before_and_members_looked_up_after(self, account: Account, tmp_path: Path) -> None:
        groups = account.read(written(tmp_path / "out", "1", "2", "3", "4", "5"))
        next(groups)
        assert account.more
        account.look_ahead()
        assert not account.more
        account.look_ahead()
        assert seen_by(account) == ["1", "2", "find", "3", "4"]
        next(groups)
        assert seen_by(account)[5:] == ["find"]
        assert [len(group) for group in groups] == [1]
        assert not account.more, "there is nothing to read any more"

    @pytest.mark.parametrize("look", [Account.look_ahead, lambda account: None])
    def test_it_comes_to_the_same(self, look: Callable[[Account], None], account: Account, tmp_path: Path) -> None:
        told = []
        for group in account.read(written(tmp_path / "out", "1", "nobody", "2", "1", "3")):
            told += group
            look(account)
        assert [event.attempt.client_request_id for event in told if isinstance(event, Succeeded)] == ["1", "2", "3"]
        assert [(event.kind, event.line) for event in told if isinstance(event, UnmatchedLine)] == [
            ("unknown", b'"nobody"\n'),
            ("duplicated", b'"1"\n'),
        ]
        assert account.counts == {"answered": 3, "unknown": 1, "duplicated": 1}

    def test_a_line_that_cannot_be_read_is_told_when_its_group_is_asked_for(
        self, account: Account, tmp_path: Path
    ) -> None:
        account._service.stumbles = "3"  # type: ignore[attr-defined]
        groups = account.read(written(tmp_path / "out", "1", "2", "3"))
        next(groups)
        account.look_ahead()
        with pytest.raises(ValueError, match="cannot read 3"):
            next(groups)

    def test_a_second_file_begins_anew(self, account: Account, tmp_path: Path) -> None:
        for name, lines in (("out", ("1", "2", "3")), ("errors", ("4", "5"))):
            for _ in account.read(written(tmp_path / name, *lines)):
                account.look_ahead()
        assert account.counts == {"answered": 5}


def test_only_results_are_recorded_beside_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "GROUP", 2)
    world = World(requests(5))
    ways: dict[str, bool] = {}

    def look(group: Sequence[Event]) -> None:
        for event in group:
            ways[type(event).__name__] = world.work.control.commit is not run_inline

    world.look = look
    world.run()
    assert ways == {"Started": False, "BatchChanged": False, "Succeeded": True, "BatchCollected": False}
    assert world.counts[0] == {"answered": 5}
    assert world.work.control.commit is run_inline


def test_who_leaves_in_the_middle_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "GROUP", 2)
    world = World(requests(5))
    world.look = lambda group: [world.stop.raise_level() for event in group if isinstance(event, Succeeded)]
    world.run()
    assert len(world.of(Succeeded)) == 2
    assert world.work.control.commit is run_inline
