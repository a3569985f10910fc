"""Lanes of workers: attempts are handed over in parcels, outcomes come back as they end.

And a worker that is gone is told of as what it is for money: calls that may have been paid for.

All of it lives on one event loop, in a thread of its own; each worker is one coroutine there. A worker is never handed
more than it may have in flight, so whatever still waits here was certainly not sent.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bioforge.plugin import Attempt, Executor, Failure, Notice, Outcome, Paid, Stop, UsageError, internal_failure
from bioforge_ray.cluster import Cluster, WorkerHandle
from bioforge_ray.options import Range, RayOptions
from bioforge_ray.scaling import Scaling, rest
from bioforge_ray.worker import PARCEL_BYTES, Ended, Hello, Settings

TICK = 0.25
"""Seconds between two looks at whether there are as many workers as there should be."""

GRACE = 5.0
"""Seconds that the loop gets to end its coroutines when it is left."""


@dataclass(slots=True, eq=False)
class _Seat:
    """One worker, from when it is asked for to its end. `place` is the lowest number that was free."""

    place: int
    deaths: int = 0
    ready: bool = False
    leaving: bool = False
    useful: bool = False
    handle: WorkerHandle | None = None
    hello: Hello | None = None
    in_flight: dict[str, Attempt] = field(default_factory=dict)


class RayLanes(Executor):
    """`settings` gives what the worker of a number is told; `concurrency` bounds all calls in flight."""

    def __init__(self, options: RayOptions, settings: Callable[[int], Settings], concurrency: int, stop: Stop) -> None:
        super().__init__()
        self._options = options
        self._settings = settings
        self._stop = stop
        self._room = options.room(concurrency)
        workers = options.workers
        grow, shrink = (workers.grow_seconds, workers.shrink_seconds) if isinstance(workers, Range) else (5.0, 60.0)
        self._scaling = Scaling(options.least, options.most, self._room, grow, shrink)
        self._waiting: deque[Attempt] = deque()
        self._seats: list[_Seat] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._notices: deque[Notice] = deque()
        self._problem: Hello | None = None
        self._bare_since = 0.0
        """Since when there has been nobody who could take anything."""
        self._begun = threading.Event()
        self._cluster: Cluster | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="bioforge-ray", daemon=True)
        self._closed = False

    # ------------------------------------------------------------------------------------------ the driver's thread

    def open(self) -> None:
        """Joins the cluster and waits for the first worker. UsageError when there is none: nothing has been sent."""
        self._cluster = Cluster(self._options)
        self._bare_since = time.monotonic()
        self._thread.start()
        # Signals are only handled between two waits on some systems.
        while not self._begun.wait(TICK) and not self._stop.level:
            if time.monotonic() - self._bare_since > self._options.start_seconds:
                raise UsageError(self._nobody(), _NOBODY_HINT)
        if self._problem is not None and not any(seat.ready for seat in self._seats):
            raise UsageError(f"backend.ray: {self._problem.problem}", self._problem.hint)

    def submit(self, attempts: Sequence[Attempt]) -> None:
        self._loop.call_soon_threadsafe(self._take, attempts)

    def notices(self) -> list[Notice]:
        """What happened to workers since this was asked last."""
        found = []
        while self._notices:
            found.append(self._notices.popleft())
        return found

    def close(self, abandon: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if self._thread.ident is None:
            self._loop.close()
        else:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(GRACE if abandon else None)
        if self._cluster is not None:
            self._cluster.leave()

    # ------------------------------------------------------------------------------------------- the loop's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        watch = self._loop.create_task(self._watch())
        try:
            self._loop.run_forever()
        finally:
            watch.cancel()
            self._loop.run_until_complete(self._leave(watch))
            self._loop.close()

    async def _leave(self, watch: asyncio.Task[None]) -> None:
        for seat in self._seats:
            seat.leaving = True
            if seat.handle is not None:
                seat.handle.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(watch, *self._tasks, return_exceptions=True)

    def _take(self, attempts: Sequence[Attempt]) -> None:
        self._waiting.extend(attempts)
        self._hand_over()

    def _hand_over(self) -> None:
        """Fills the emptiest workers up to where all would be equally full."""
        seats = [seat for seat in self._seats if seat.ready and not seat.leaving]
        if not seats or not self._waiting:
            return
        total = len(self._waiting) + sum(len(seat.in_flight) for seat in seats)
        level = min(self._room, -(-total // len(seats)))
        for seat in sorted(seats, key=lambda seat: len(seat.in_flight)):
            while self._waiting and len(seat.in_flight) < level:
                self._send(seat, level - len(seat.in_flight))

    def _send(self, seat: _Seat, most: int) -> None:
        """One parcel: bounded in number and, as long as one body allows it, in bytes."""
        parcel: list[Attempt] = []
        size = 0
        while self._waiting and len(parcel) < min(most, self._options.chunk):
            size += len(self._waiting[0].request.body)
            if parcel and size > PARCEL_BYTES:
                break
            parcel.append(self._waiting.popleft())
        seat.in_flight |= {attempt.client_request_id: attempt for attempt in parcel}
        assert seat.handle is not None
        try:
            seat.handle.send([(attempt.request, attempt.client_request_id) for attempt in parcel])
        except Exception:
            # It is settled where this worker's outcomes are awaited: they do not come any more.
            seat.handle.kill()

    # ------------------------------------------------------------------------------------------------ one worker

    def _ask_for_worker(self, deaths: int = 0) -> None:
        taken = {seat.place for seat in self._seats}
        place = next(number for number in range(len(taken) + 1) if number not in taken)
        seat = _Seat(place, deaths)
        self._seats.append(seat)
        task = self._loop.create_task(self._live(seat))
        # The loop itself holds tasks only weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, seat: _Seat) -> None:
        reason = ""
        try:
            await asyncio.sleep(rest(seat.deaths))
            reason = "" if seat.leaving else await self._serve(seat)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Whatever it is that a worker cannot be talked to any more for, it is taken for gone, and made sure of.
            reason = _words(error)
        self._ended(seat, reason)

    async def _serve(self, seat: _Seat) -> str:
        """Works until the worker is gone (an exception) or not wanted any more. Returns why it was not fit to begin."""
        assert self._cluster is not None
        seat.handle = self._cluster.start(seat.place)
        seat.hello = await seat.handle.hello(self._settings(seat.place))
        if seat.hello.problem:
            self._problem = seat.hello
            return seat.hello.problem
        seat.ready = True
        self._begun.set()
        self._hand_over()
        while True:
            parcel: list[Ended] = pickle.loads(await seat.handle.collect())
            seat.useful = True
            for name, outcome in parcel:
                attempt = seat.in_flight.pop(name, None)
                if attempt is not None:
                    self.put(attempt, outcome)
            if seat.leaving and not seat.in_flight:
                return ""
            self._hand_over()

    def _ended(self, seat: _Seat, reason: str) -> None:
        """Settles what was in flight and makes room for another one."""
        self._seats.remove(seat)
        if seat.handle is not None:
            seat.handle.kill()
        where = f"on {seat.hello.node}" if seat.hello else "that was asked for"
        lost, seat.in_flight = list(seat.in_flight.values()), {}
        for attempt in lost:
            message = f"the worker {where} was lost before the answer had come back: {reason}"
            self.put(attempt, Outcome(failure=Failure("worker_lost", message), paid=Paid.MAYBE, retryable=True))
        bare = not any(other.ready for other in self._seats)
        if bare and seat.ready:
            self._bare_since = time.monotonic()
        if not reason or (seat.leaving and not lost):
            self._notice("worker", f"a worker {where} was not needed any more: {len(self._seats)} are left")
            return
        self._notice(
            "worker",
            f"a worker {where} was lost with {len(lost)} calls in flight, which may have been paid for: {reason}",
            lost=len(lost),
        )
        if seat.hello is None or seat.hello.problem:
            # It could not begin. Where nobody can, not even the next one, that is for the user to mend.
            self._problem = self._problem or Hello("", 0, f"a worker could not begin: {reason}", _BEGIN_HINT)
            if bare and seat.deaths:
                self._begun.set()
        self._ask_for_worker(1 if seat.useful else seat.deaths + 1)

    # ------------------------------------------------------------------------------------------------ all workers

    async def _watch(self) -> None:
        while True:
            try:
                self._look()
            except Exception as error:
                # A mistake in here must not leave attempts waiting for ever.
                for attempt in self._waiting:
                    self.put(attempt, internal_failure(error))
                self._waiting.clear()
            await asyncio.sleep(TICK)

    def _look(self) -> None:
        now = time.monotonic()
        staying = [seat for seat in self._seats if not seat.leaving]
        starting = sum(not seat.ready for seat in staying)
        in_flight = sum(len(seat.in_flight) for seat in staying)
        wanted = self._scaling.wanted(len(staying), starting, len(self._waiting), in_flight, now)
        if 0 < len(staying) < wanted:
            self._notice("worker", f"calls wait for a place: workers {len(staying)} -> {wanted}", workers=wanted)
        for _ in range(wanted - len(staying)):
            self._ask_for_worker()
        emptiest = sorted(staying, key=lambda seat: (seat.ready, len(seat.in_flight)))
        for seat in emptiest[: max(0, len(staying) - wanted)]:
            self._dismiss(seat)
        if not self._waiting or any(seat.ready for seat in self._seats):
            return
        if self._stop.level:
            self._give_back(Outcome(failure=Failure("interrupted", "stopped before it was sent"), retryable=True))
        elif now - self._bare_since > self._options.start_seconds:
            failure = Failure("no_worker", self._nobody())
            self._give_back(Outcome(failure=failure, retryable=True, stops_run=True, hint=_NOBODY_HINT))

    def _dismiss(self, seat: _Seat) -> None:
        """Nothing is handed to it any more; it ends when what it has in flight has come back."""
        seat.leaving = True
        if not seat.in_flight and seat.handle is not None:
            seat.handle.kill()

    def _give_back(self, outcome: Outcome) -> None:
        """For attempts that certainly were not sent."""
        while self._waiting:
            self.put(self._waiting.popleft(), outcome)

    def _nobody(self) -> str:
        assert self._cluster is not None
        options = self._options
        asked = ", ".join([f"{options.cpus_per_worker:g} CPU", *(f"{n:g} {k}" for k, n in options.resources.items())])
        return (
            f"no worker could be placed within {options.start_seconds:g} s: each asks for {asked}, "
            f"{options.least} at least, {options.placement}; the cluster has {self._cluster.describe()}"
        )

    def _notice(self, kind: str, message: str, **fields: object) -> None:
        self._notices.append(Notice(kind, message, fields))


_NOBODY_HINT = "`ray status` says what is pending; see cpus_per_worker, resources, placement under [backend.ray]"

_BEGIN_HINT = "every node needs bioforge and bioforge-ray in the Python that `ray start` was called with"


def _words(error: Exception) -> str:
    """Why a worker is gone, in one line; Ray's own messages have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line or "cause" in line or "died" in line]
    return f"{type(error).__name__}: {(told or lines or [''])[-1].partition(' Some common causes')[0]}"[:300]
