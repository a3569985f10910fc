"""Simulate ten million rows on 1, 4 and 16 workers: `python benchmarks/scale.py [--rows N] [--engine R] [--worker-ms MS] …`.

A seeded discrete-event simulation; nothing is sent. The model: one engine that admits requests and records answers one
by one, chunks to the worker with the fewest calls, a limit of calls in flight, workers with CPU time per call, and servers
with log-normal latency and limited concurrency. `benchmarks/ratio.py` measures the times of engine and workers; the
defaults are of a small machine.

A run is simulated until its rate is steady, and then extrapolated.
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
    """Parameters in seconds. `engine`: driver time per row. `worker`: worker CPU per call. `hop`: transfer of a chunk.
    `slots`: concurrent calls of all servers together."""

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
    """Time of a worker's death in seconds from the start."""
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
    """A simulated run. Events are (time, order, kind, value). Path of a row: engine, worker, server, worker, engine."""

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
        """Run one turn of the loop: record arrived answers, admit rows, dispatch them."""
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
            # An idle engine sleeps until an answer arrives (`_wake`); a turn takes at least half a millisecond.
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
            self.at(when + self.model.hop, "chunk", (worker, size))

    def on_chunk(self, worker: int, size: int) -> None:
        if not self.alive[worker]:
            return
        for _ in range(size):
            self.at(self._cpu(worker), "arrived", (worker, self.lives[worker]))

    def _cpu(self, worker: int) -> float:
        """Use the worker's single thread: half of a call's time before it, half after it."""
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
        """Lose the first worker; its calls in flight are sent again and may be paid twice."""
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
        """Return the rates of the middle part, without start and end."""
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
    """Return the tightest of the four limits on rows per second."""
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
    # median latency, concurrent calls of the servers, calls in flight
    (1.0, 100_000, 4_096),  # short answers, no limit at the provider
    (5.0, 100_000, 4_096),
    (5.0, 100_000, 16_384),  # more than a project file allows today
    (5.0, 1_024, 4_096),  # four own servers with 256 concurrent calls each
    (20.0, 100_000, 4_096),  # long answers
    (20.0, 100_000, 16_384),
]


if __name__ == "__main__":
    main()
