"""Store a backend's events as a run does: checked like those of every plugin, in a real state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from bioforge.core.budget import Budget
from bioforge.core.errors import BioforgeError
from bioforge.core.events import Event, Notice, Succeeded, Unusable
from bioforge.core.interfaces import RunControl, Work
from bioforge.core.types import Batch, Request, Response
from bioforge.plugins.validate import guarded
from bioforge.store import Selection, Store, batches, runs
from bioforge.store.recorder import Recorder
from bioforge.store.recovery import recover


class RecordedRun:
    """A state on disk that continues from run to run of a story."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(
        self, groups: Sequence[Sequence[Event]], done: Work, requests: Sequence[Request], open_batches: Sequence[Batch]
    ) -> None:
        """Store the events of a finished run with these requests and open batches.

        Fails where bioforge would correct, refuse or lose an event, or read something else from its state.
        """
        with Store.open(self._path) as store:
            recover(store)
            good = {one.attempt.client_request_id for group in groups for one in group if isinstance(one, Succeeded)}
            run = runs.begin(store, "run", "tested", Selection())
            members = batches.StoredMembers(store)
            control = RunControl(done.control.stop, Budget(done.limits.max_cost_usd))
            work = Work(iter(requests), done.limits, control=control, batches=list(open_batches), members=members)
            with closing(Recorder(store, run, "tested")) as recorder:
                try:
                    for events in guarded(_again(groups), work, "tested", "tested"):
                        for event in events:
                            if isinstance(event, Unusable) and event.attempt.client_request_id in good:
                                raise AssertionError(
                                    f"it was said to have succeeded, and bioforge takes it for unusable: {event}"
                                )
                        mended = [event.message for event in events if isinstance(event, Notice) and _is_slip(event)]
                        assert not mended, f"bioforge had to mend what was reported: {'; '.join(mended)}"
                        recorder.record(events)
                except BioforgeError as error:
                    raise AssertionError(f"bioforge would have stopped the run: {error.message}") from error
            for group in groups:
                for event in group:
                    if isinstance(event, Succeeded | Unusable):
                        self._compare(store, event.attempt.request.request_hash, event.answer)

    def _compare(self, store: Store, digest: str, answer: Response) -> None:
        found = store.row(
            "SELECT r.text, r.parsed, r.cost_usd FROM responses r JOIN requests q ON q.response = r.id"
            " WHERE q.request_hash = ?",
            (digest,),
        )
        assert found is not None, f"no answer is in the state for {digest}"
        # half of a surrogate pair cannot be kept
        text = None if answer.text is None else answer.text.encode("utf-8", "replace").decode()
        wanted = (text, answer.parsed, answer.cost_usd)
        assert tuple(found) == wanted, f"the state has another answer than was given: {found}, not {wanted}"


def _again(groups: Sequence[Sequence[Event]]) -> Callable[[Work], Iterator[Sequence[Event]]]:
    """Return a backend that pulls all requests and repeats the events of another one."""

    def execute(work: Work) -> Iterator[Sequence[Event]]:
        for _ in work.requests:
            pass
        yield from groups

    return execute


def _is_slip(event: Notice) -> bool:
    return event.kind == "plugin"
