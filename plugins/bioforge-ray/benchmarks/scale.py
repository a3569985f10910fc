"""Ten million rows on 1, 4 and 16 workers: `python benchmarks/scale.py [--rows N] [--engine R] [--worker-ms MS] …`.

A simulation of discrete events, seeded: nothing is sent. The model is the run as it is built: one engine that admits
requests and records answers one after the other, parcels to the emptiest worker, a bound for all calls in flight, workers
whose Python takes a while for each call, servers that answer after a log-normal time with so many calls at once each.
What the engine and the workers take is measured on a machine by `benchmarks/ratio.py`; the defaults are of a small one.

A run is simulated until its rate is steady, and the rest is multiplied: it does not depend on what was before.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Model:
    """Times in seconds. `engine`: of one row, admitted, recorded and handed over, on the driver. `worker`: of a worker's
    CPU for one call. `hop`: of a parcel on its way. `slots`: calls that all servers together answer at once."""

    workers: int
    in_flight: int
    engine: float
    worker: float
    median: float
    sigma: float
    slots: int
    chunk: int = 64
    hop: float = 0.001
    death: float | None = None
    """When a worker dies, in seconds from the beginning."""
    new_worker: float = 10.0


@dataclass
class Result:
    rate: float
    engine_busy: float
    worker_busy: float
    lost: int
    most_done: float
    """Seconds until 95 of 100 rows have their answer; the last ones are a matter of chance."""


class Run:
    """Events are (when, order, kind, value). A row goes: engine - hop - worker - server - worker - hop - engine."""

    def __init__(self, model: Model, rows: int, seed: int) -> None:
        self.model = model
        self.random = random.Random(seed)
        self.rows = rows
        self.now = 0.0
        self.events: list[tuple[float, int, str, tuple[int, int]]] = []
        self.order = 0
        self.to_ask = rows
        self.flying = 0
        self.finished = 0
        self.returned: deque[tuple[int, int]] = deque()
        self.engine_free = 0.0
        self.loads = [0] * model.workers
        self.lives = [0] * model.workers
        self.alive = [True] * model.workers
        self.worker_free = [0.0] * model.workers
        self.at_server = 0
        self.queue: deque[tuple[int, int]] = deque()
        self.lost = 0
        self.times: list[float] = []

    def at(self, when: float, kind: str, value: tuple[int, int] = (0, 0)) -> None:
        self.order += 1
        heapq.heappush(self.events, (when, self.order, kind, value))

    def run(self) -> Result:
        self.at(0.0, "engine")
        if self.model.death is not None:
            self.at(self.model.death, "death")
        while self.finished < self.rows and self.events:
            when, _, kind, value = heapq.heappop(self.events)
            self.now = when
            getattr(self, f"on_{kind}")(*value)
        return self.result()

    def on_engine(self, *_: int) -> None:
        """One turn of the one loop: records all that came back by now, admits as many as there is room, hands over."""
        model = self.model
        back = len(self.returned)
        self.finished += back
        self.flying -= back
        self.returned.clear()
        room = min(self.to_ask, model.in_flight - self.flying)
        living = [number for number in range(model.workers) if self.alive[number]]
        if not living:
            room = 0
        took = model.engine * max(back, room)
        self.times.extend([self.now + took] * back)
        self.to_ask -= room
        self.flying += room
        done = self.now + took
        self.engine_free = done
        self._spread(room, living, done)
        if self.to_ask or self.flying:
            # With nothing to do it sleeps until something comes back (`_wake`); a turn takes half a millisecond at least.
            self.at(done + 0.0005, "engine") if back or room else self._sleep()

    def _sleep(self) -> None:
        self.engine_free = math.inf

    def _wake(self) -> None:
        if self.engine_free == math.inf:
            self.engine_free = self.now
            self.at(self.now, "engine")

    def _spread(self, number: int, living: list[int], when: float) -> None:
        heap = [(self.loads[worker], worker) for worker in living]
        heapq.heapify(heap)
        level = -(-(number + sum(load for load, _ in heap)) // len(heap)) if heap else 0
        while number:
            load, worker = heap[0]
            size = max(1, min(number, self.model.chunk, level - load))
            number -= size
            self.loads[worker] += size
            heapq.heapreplace(heap, (self.loads[worker], worker))
            self.at(when + self.model.hop, "parcel", (worker, size))

    def on_parcel(self, worker: int, size: int) -> None:
        if not self.alive[worker]:
            return
        for _ in range(size):
            self.at(self._cpu(worker), "arrived", (worker, self.lives[worker]))

    def _cpu(self, worker: int) -> float:
        """A worker's Python is one thread: half of a call's time before it, half after it."""
        begin = max(self.now, self.worker_free[worker])
        self.worker_free[worker] = begin + self.model.worker / 2
        return self.worker_free[worker]

    def on_arrived(self, worker: int, life: int) -> None:
        if self.at_server < self.model.slots:
            self._answer(worker, life)
        else:
            self.queue.append((worker, life))

    def _answer(self, worker: int, life: int) -> None:
        self.at_server += 1
        seconds = self.random.lognormvariate(math.log(self.model.median), self.model.sigma)
        self.at(self.now + seconds, "answered", (worker, life))

    def on_answered(self, worker: int, life: int) -> None:
        self.at_server -= 1
        if self.queue:
            self._answer(*self.queue.popleft())
        if self.lives[worker] == life:
            self.at(self._cpu(worker) + self.model.hop, "back", (worker, life))

    def on_back(self, worker: int, life: int) -> None:
        if self.lives[worker] != life:
            return
        self.loads[worker] -= 1
        self.returned.append((worker, life))
        self._wake()

    def on_death(self, *_: int) -> None:
        """The first worker: what it had in flight is asked again, and may be paid for twice."""
        self.lost = self.loads[0]
        self.flying -= self.lost
        self.to_ask += self.lost
        self.loads[0] = 0
        self.lives[0] += 1
        self.alive[0] = False
        self.at(self.now + self.model.new_worker, "begun")
        self._wake()

    def on_begun(self, *_: int) -> None:
        self.alive[0] = True
        self.worker_free[0] = self.now
        self._wake()

    def result(self) -> Result:
        """Rates of the middle of it: the beginning is empty, and the end waits for the slowest answer."""
        low, high = int(0.2 * len(self.times)), int(0.8 * len(self.times))
        rate = (high - low) / (self.times[high] - self.times[low])
        model = self.model
        return Result(
            rate,
            rate * model.engine,
            rate * model.worker / model.workers,
            self.lost,
            self.times[int(0.95 * len(self.times))],
        )


def limit(model: Model) -> str:
    """What a faster run would have to have more of: the tightest of the four bounds on rows a second."""
    mean = model.median * math.exp(model.sigma**2 / 2)
    bounds = {
        "engine": 1 / model.engine,
        "workers": model.workers / model.worker,
        "servers": model.slots / mean,
        "calls in flight": model.in_flight / mean,
    }
    return min(bounds, key=lambda name: bounds[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--engine", type=float, default=ENGINE, help="rows a second of the engine, driving ray")
    parser.add_argument("--worker-ms", type=float, default=WORKER_MS, help="CPU of a worker for one call")
    parser.add_argument("--simulated", type=int, default=50_000, help="rows that are simulated for each line")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"{given.rows:,} rows, engine {given.engine:,.0f} rows/s, {given.worker_ms:.2f} ms of a worker for a call\n")
    head = (
        "workers",
        "in flight",
        "latency",
        "servers",
        "rows/s",
        "hours",
        "engine",
        "worker",
        "limited by",
        "a death costs",
    )
    print("{:>7} {:>9} {:>8} {:>8} {:>7} {:>6} {:>6} {:>6}  {:<15} {}".format(*head))
    for median, slots, in_flight in CASES:
        for workers in (1, 4, 16):
            model = Model(workers, in_flight, 1 / given.engine, given.worker_ms / 1000, median, SIGMA, slots)
            rows = max(given.simulated, 6 * in_flight)
            plain = Run(model, rows, given.seed).run()
            killed = Run(replace(model, death=0.5 * rows / plain.rate), rows, given.seed).run()
            cost = f"{killed.lost:,} calls maybe paid twice, {max(0.0, killed.most_done - plain.most_done):.0f} s"
            print(
                f"{workers:>7} {in_flight:>9,} {median:>7g}s {slots:>8,} {plain.rate:>7,.0f} "
                f"{given.rows / plain.rate / 3600:>6.1f} {plain.engine_busy:>6.0%} {plain.worker_busy:>6.0%}  "
                f"{limit(model):<15} {cost}",
                flush=True,
            )


SIGMA = 0.7
ENGINE = 3_500.0
WORKER_MS = 0.4
CASES = [
    # median latency, calls that the servers answer at once, calls in flight
    (1.0, 100_000, 4_096),  # short answers of a provider that takes everything
    (5.0, 100_000, 4_096),
    (5.0, 100_000, 16_384),  # more than a project file allows today
    (5.0, 1_024, 4_096),  # four servers of one's own with 256 calls at once each
    (20.0, 100_000, 4_096),  # long answers
    (20.0, 100_000, 16_384),
]


if __name__ == "__main__":
    main()
