"""Run attempts on Ray workers: send them in chunks and receive outcomes as calls end.

Calls in flight on a lost worker are reported as maybe paid. Everything runs on one event loop in its own thread, with one
coroutine per worker. A worker never gets more than it may have in flight, so waiting attempts were certainly not sent.
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
from bioforge_ray.scaling import Scaling, restart_delay
from bioforge_ray.worker import CHUNK_BYTES, Ended, Hello, Settings

TICK = 0.25
"""Seconds between two checks of the number of workers."""

GRACE = 5.0
"""Seconds for the loop to end its coroutines on close."""


@dataclass(slots=True, eq=False)
class _WorkerSlot:
    """One worker from its request to its end. `place` is the lowest free index."""

    place: int
    deaths: int = 0
    ready: bool = False
    leaving: bool = False
    useful: bool = False
    handle: WorkerHandle | None = None
    hello: Hello | None = None
    in_flight: dict[str, Attempt] = field(default_factory=dict)


class RayExecutor(Executor):
    """An executor on Ray workers. `settings` returns the settings of a worker by its index; `concurrency` limits all workers."""

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
        self._slots: list[_WorkerSlot] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._notices: deque[Notice] = deque()
        self._problem: Hello | None = None
        self._no_worker_since = 0.0
        """Time since which no worker is ready."""
        self._started = threading.Event()
        self._cluster: Cluster | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="bioforge-ray", daemon=True)
        self._closed = False

    # ------------------------------------------------------------------------------------------ the driver's thread

    def open(self) -> None:
        """Join the cluster and wait for the first worker. Raises UsageError if there is none; nothing has been sent."""
        self._cluster = Cluster(self._options)
        self._no_worker_since = time.monotonic()
        self._thread.start()
        # some systems handle signals only between waits
        while not self._started.wait(TICK) and not self._stop.level:
            if time.monotonic() - self._no_worker_since > self._options.start_seconds:
                raise UsageError(self._no_worker_message(), _NO_WORKER_HINT)
        if self._problem is not None and not any(slot.ready for slot in self._slots):
            raise UsageError(f"backend.ray: {self._problem.problem}", self._problem.hint)

    def submit(self, attempts: Sequence[Attempt]) -> None:
        self._loop.call_soon_threadsafe(self._enqueue, attempts)

    def notices(self) -> list[Notice]:
        """Return and clear the notices about workers."""
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
            self._loop.run_until_complete(self._shut_down(watch))
            self._loop.close()

    async def _shut_down(self, watch: asyncio.Task[None]) -> None:
        for slot in self._slots:
            slot.leaving = True
            if slot.handle is not None:
                slot.handle.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(watch, *self._tasks, return_exceptions=True)

    def _enqueue(self, attempts: Sequence[Attempt]) -> None:
        self._waiting.extend(attempts)
        self._dispatch()

    def _dispatch(self) -> None:
        """Send waiting attempts to the workers with the fewest in flight, to an equal level."""
        worker_slots = [slot for slot in self._slots if slot.ready and not slot.leaving]
        if not worker_slots or not self._waiting:
            return
        total = len(self._waiting) + sum(len(slot.in_flight) for slot in worker_slots)
        level = min(self._room, -(-total // len(worker_slots)))
        for slot in sorted(worker_slots, key=lambda slot: len(slot.in_flight)):
            while self._waiting and len(slot.in_flight) < level:
                self._send(slot, level - len(slot.in_flight))

    def _send(self, slot: _WorkerSlot, most: int) -> None:
        """Send one chunk, limited in number and bytes (a larger body goes alone)."""
        chunk: list[Attempt] = []
        size = 0
        while self._waiting and len(chunk) < min(most, self._options.chunk):
            size += len(self._waiting[0].request.body)
            if chunk and size > CHUNK_BYTES:
                break
            chunk.append(self._waiting.popleft())
        slot.in_flight |= {attempt.client_request_id: attempt for attempt in chunk}
        assert slot.handle is not None
        try:
            slot.handle.send([(attempt.request, attempt.client_request_id) for attempt in chunk])
        except Exception:
            # `_serve` then raises, and the calls in flight become maybe paid.
            slot.handle.kill()

    # ------------------------------------------------------------------------------------------------ one worker

    def _start_worker(self, deaths: int = 0) -> None:
        taken = {slot.place for slot in self._slots}
        place = next(number for number in range(len(taken) + 1) if number not in taken)
        slot = _WorkerSlot(place, deaths)
        self._slots.append(slot)
        task = self._loop.create_task(self._run_worker(slot))
        # the loop holds only weak references to tasks
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_worker(self, slot: _WorkerSlot) -> None:
        reason = ""
        try:
            await asyncio.sleep(restart_delay(slot.deaths))
            reason = "" if slot.leaving else await self._serve(slot)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # any communication error counts as a lost worker, which is then killed
            reason = _short_reason(error)
        self._ended(slot, reason)

    async def _serve(self, slot: _WorkerSlot) -> str:
        """Serve a worker until it is lost (raises) or retired. Returns the reason if it cannot start, else empty text."""
        assert self._cluster is not None
        slot.handle = self._cluster.start(slot.place)
        slot.hello = await slot.handle.hello(self._settings(slot.place))
        if slot.hello.problem:
            self._problem = slot.hello
            return slot.hello.problem
        slot.ready = True
        self._started.set()
        self._dispatch()
        while True:
            chunk: list[Ended] = pickle.loads(await slot.handle.collect())
            slot.useful = True
            for name, outcome in chunk:
                attempt = slot.in_flight.pop(name, None)
                if attempt is not None:
                    self.put(attempt, outcome)
            if slot.leaving and not slot.in_flight:
                return ""
            self._dispatch()

    def _ended(self, slot: _WorkerSlot, reason: str) -> None:
        """Report calls in flight as maybe paid and replace the worker if needed."""
        self._slots.remove(slot)
        if slot.handle is not None:
            slot.handle.kill()
        where = f"on {slot.hello.node}" if slot.hello else "that was starting"
        lost, slot.in_flight = list(slot.in_flight.values()), {}
        for attempt in lost:
            message = f"the worker {where} was lost before the answer arrived: {reason}"
            self.put(attempt, Outcome(failure=Failure("worker_lost", message), paid=Paid.MAYBE, retryable=True))
        none_ready = not any(other.ready for other in self._slots)
        if none_ready and slot.ready:
            self._no_worker_since = time.monotonic()
        if not reason or (slot.leaving and not lost):
            self._notice("worker", f"a worker {where} was not needed and ended; {len(self._slots)} are left")
            return
        self._notice(
            "worker",
            f"a worker {where} was lost with {len(lost)} calls in flight, which may have been charged: {reason}",
            lost=len(lost),
        )
        if slot.hello is None or slot.hello.problem:
            # If the replacement cannot start either, report it to the user.
            self._problem = self._problem or Hello("", 0, f"a worker could not start: {reason}", _START_HINT)
            if none_ready and slot.deaths:
                self._started.set()
        self._start_worker(1 if slot.useful else slot.deaths + 1)

    # ------------------------------------------------------------------------------------------------ all workers

    async def _watch(self) -> None:
        while True:
            try:
                self._adjust()
            except Exception as error:
                # an internal error must not leave attempts waiting forever
                for attempt in self._waiting:
                    self.put(attempt, internal_failure(error))
                self._waiting.clear()
            await asyncio.sleep(TICK)

    def _adjust(self) -> None:
        now = time.monotonic()
        staying = [slot for slot in self._slots if not slot.leaving]
        starting = sum(not slot.ready for slot in staying)
        in_flight = sum(len(slot.in_flight) for slot in staying)
        wanted = self._scaling.wanted(len(staying), starting, len(self._waiting), in_flight, now)
        if 0 < len(staying) < wanted:
            self._notice("worker", f"calls are waiting: workers {len(staying)} -> {wanted}", workers=wanted)
        for _ in range(wanted - len(staying)):
            self._start_worker()
        emptiest = sorted(staying, key=lambda slot: (slot.ready, len(slot.in_flight)))
        for slot in emptiest[: max(0, len(staying) - wanted)]:
            self._retire(slot)
        if not self._waiting or any(slot.ready for slot in self._slots):
            return
        if self._stop.level:
            self._fail_waiting(Outcome(failure=Failure("interrupted", "stopped before it was sent"), retryable=True))
        elif now - self._no_worker_since > self._options.start_seconds:
            failure = Failure("no_worker", self._no_worker_message())
            self._fail_waiting(Outcome(failure=failure, retryable=True, stops_run=True, hint=_NO_WORKER_HINT))

    def _retire(self, slot: _WorkerSlot) -> None:
        """Send it nothing more; it ends after its calls in flight."""
        slot.leaving = True
        if not slot.in_flight and slot.handle is not None:
            slot.handle.kill()

    def _fail_waiting(self, outcome: Outcome) -> None:
        """Give all waiting attempts, which were not sent, this outcome."""
        while self._waiting:
            self.put(self._waiting.popleft(), outcome)

    def _no_worker_message(self) -> str:
        assert self._cluster is not None
        options = self._options
        needs = ", ".join([f"{options.cpus_per_worker:g} CPU", *(f"{n:g} {k}" for k, n in options.resources.items())])
        return (
            f"no worker started within {options.start_seconds:g} s: each needs {needs}, "
            f"at least {options.least}, {options.placement}; the cluster has {self._cluster.describe()}"
        )

    def _notice(self, kind: str, message: str, **fields: object) -> None:
        self._notices.append(Notice(kind, message, fields))


_NO_WORKER_HINT = (
    "check `ray status` for pending demands, and cpus_per_worker, resources, placement under [backend.ray]"
)

_START_HINT = "install bioforge and bioforge-ray on every node in the Python that runs `ray start`"


def _short_reason(error: Exception) -> str:
    """Shorten Ray's multi-line error to one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "rror" in line or "cause" in line or "died" in line]
    return f"{type(error).__name__}: {(causes or lines or [''])[-1].partition(' Some common causes')[0]}"[:300]
