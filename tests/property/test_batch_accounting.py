"""Whatever stands in the result files of batches, and wherever a process died meanwhile: every member has one outcome."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from unittest.mock import patch

from backends.fake_service import (
    BILLED,
    DROPPED,
    LOST,
    OUTAGE,
    USAGE,
    Clock,
    Course,
    FakeService,
    Job,
    Trouble,
    World,
    requests,
)
from hypothesis import given
from hypothesis import strategies as st

from bioforge.backends.batch import collect, fill
from bioforge.backends.batch.service import BatchResult
from bioforge.core.events import Event, Failed, Started, Succeeded, Unusable
from bioforge.core.types import Batch, BatchState, Usage

from .effort import examples


class Crash(Exception):
    """A process dies."""


@dataclass(frozen=True)
class Line:
    """A line of a result file: what is said of a member (by its place in the batch), or something that is nobody's."""

    member: int | None
    fate: str = "answered"
    text: bytes = b""

    def written(self, names: Sequence[str]) -> bytes:
        if self.member is None:
            return self.text
        return json.dumps({"id": names[self.member % len(names)], "fate": self.fate}).encode()

    def answered(self, names: Sequence[str]) -> str | None:
        """The member whose answer this is."""
        return names[self.member % len(names)] if self.member is not None and self.fate in ANSWERS else None


ANSWERS = ("answered", "unusable")
FATES = (*ANSWERS, "answered", "refused", "busy", "unclear", "expired", "cancelled", "wordless")

_garbage = st.binary(max_size=30).map(lambda text: text.replace(b"\n", b" ")) | st.sampled_from(
    [b"", b"   ", b"{}", b"[]", b"null", b'{"id":"nobody.1","fate":"answered"}', b'{"id":7,"fate":"answered"}', b"\xff\xfe",
     b'{"id":"a-0.1","fate":', b"\x00"]
)  # fmt: skip
_line = st.one_of(
    st.builds(Line, st.integers(0, 7), st.sampled_from(FATES)),
    st.builds(Line, st.integers(0, 7), st.sampled_from(FATES)),
    st.builds(Line, st.none(), text=_garbage),
)
_file = st.lists(_line, max_size=12)


@dataclass(frozen=True)
class Files:
    """The two files of a job, how it ended, and whether it tells what it billed, and that rightly."""

    output: list[Line]
    errors: list[Line]
    end: BatchState
    billed: bool
    counts: int
    """What it claims to have answered more, or less, than it did."""


_files = st.builds(
    Files,
    _file,
    _file,
    st.sampled_from([BatchState.COMPLETED, BatchState.COMPLETED, BatchState.EXPIRED, BatchState.CANCELLED]),
    st.booleans(),
    st.sampled_from([0, 0, -3, 5]),
)


class Scribe(FakeService):
    """A provider whose first jobs come to the files that a story tells, and later ones to answers."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.told: list[Files] = []

    def read(self, batch: Batch, line: bytes) -> BatchResult:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if isinstance(found, dict) and isinstance(found.get("id"), str):
            return super().read(batch, line)
        return super().read(batch, b"no JSON object")

    def finish(self, job: Job) -> None:
        if job.ended or not self.told:
            super().finish(job)
            return
        files = self.told.pop(0)
        job.ended = True
        job.course = Course(end=files.end, billed=files.billed)
        written = [[line.written(job.names) for line in lines] for lines in (files.output, files.errors)]
        answered = {name for line in (*files.output, *files.errors) if (name := line.answered(job.names))}
        job.usage = Usage(len(answered) * USAGE.input_tokens, len(answered) * USAGE.output_tokens)
        job.completed = max(0, len(answered) + files.counts)
        job.failed = max(0, len(job.names) - job.completed)
        job.output, job.errors = map(self._file, written)
        if job.output is None and job.errors is None:
            job.completed = job.failed = 0


_trouble: st.SearchStrategy[dict[str, list[Trouble | None]]] = st.dictionaries(
    st.sampled_from(
        ["upload", "create", "find", "find file of", "look at", "download output of", "download errors of"]
    ),
    st.lists(st.sampled_from([None, None, LOST, DROPPED, OUTAGE]), max_size=5),
    max_size=4,
)


@dataclass(frozen=True)
class Process:
    """One process: what it meets, after which group (of all, or of those in which members end) it dies, or is stopped, and
    whether it waits."""

    trouble: dict[str, list[Trouble | None]]
    dies: int | None
    dies_collecting: int | None
    stopped: int | None
    waits: bool


_processes = st.lists(
    st.builds(
        Process,
        _trouble,
        st.none() | st.integers(0, 25),
        st.none() | st.integers(0, 3),
        st.none() | st.integers(0, 25),
        st.booleans(),
    ),
    max_size=4,
)


def play(world: World, process: Process) -> None:
    """A process, as far as it comes."""
    world.service.trouble = {call: list(trouble) for call, trouble in process.trouble.items()}
    groups = ends = 0

    def look(group: Sequence[Event]) -> None:
        nonlocal groups, ends
        ended = any(isinstance(event, Succeeded | Unusable | Failed) for event in group)
        if groups == process.stopped:
            world.stop.raise_level()
        if groups == process.dies or (ended and ends == process.dies_collecting):
            raise Crash
        groups += 1
        ends += ended

    world.look = look
    with suppress(Crash):
        world.run(wait=process.waits)


@examples(60)
@given(st.integers(1, 9), st.sampled_from([2, 3, 50]), st.lists(_files, max_size=4), _processes)
def test_every_member_has_one_outcome_and_every_answer_is_kept(
    number: int, most: int, told: list[Files], processes: list[Process]
) -> None:
    asked = requests(number)
    clock = Clock()
    service = Scribe(clock)
    service.told = list(told)
    clock.step = 8.0
    # pages of two lines, so that a process can die in the middle of a file
    with patch.object(collect, "GROUP", 2), patch.object(fill, "GROUP", 3):
        world = World(asked, clock=clock, service=service, max_requests=most)
        events: list[Event] = []
        for process in processes:
            play(world, process)
            events += world.events
            world = world.next(asked, max_requests=most)
        for _ in range(12):
            service.trouble = {}
            world.run()
            events += world.events
            if world.stopped is None and not world.book.open():
                break
            world = world.next(asked, max_requests=most)
    assert (world.stopped, world.book.open()) == (None, [])
    assert_accounted(world, events)


def assert_accounted(world: World, events: Sequence[Event]) -> None:
    """The book has asserted of each event that its member was open, and of each collection that everybody was counted."""
    book, service = world.book, world.service
    keys = [job.key for job in service.jobs]
    assert len(set(keys)) == len(keys), "a batch was created twice"
    for job in service.jobs:
        texts = [service.files[file_id][1] for file_id in (job.output, job.errors) if file_id is not None]
        first: dict[str, str] = {}
        strays = 0
        for line in b"".join(texts).split(b"\n"):
            if not line.strip():
                continue
            row = service.read(book.batches[job.key], line)
            if row.custom_id in job.names and row.custom_id not in first:
                first[row.custom_id] = json.loads(line)["fate"]
            else:
                strays += 1
        for name in job.names:
            became, said = book.ends[job.key, name], first.get(name)
            if said in BILLED:
                wanted = {"unusable": "unusable"}.get(said, "answered")
                assert became == wanted, f"{name} of {job.key}: {said}, and it became {became}"
            else:
                assert became not in ("answered", "unusable"), f"{name} of {job.key}: {said}, and it became {became}"
        counts = book.collected[job.key].counts
        kept = [stray for stray in book.strays if stray.batch == job.key]
        # two lines that say the same are kept once
        assert len({(stray.kind, stray.line) for stray in kept}) == len(kept) <= strays
        assert strays == sum(counts.get(kind, 0) for kind in ("duplicated", "unknown", "unreadable"))
    started = Counter(event.attempt.client_request_id for event in events if isinstance(event, Started))
    ended = Counter(
        event.attempt.client_request_id for event in events if isinstance(event, Succeeded | Unusable | Failed)
    )
    assert set(started.values()) <= {1}
    # what a process was preparing when it died is given back by the state, without an event
    assert not ended - started
