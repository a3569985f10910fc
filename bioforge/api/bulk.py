"""Many items through one client: pulled as there is room, returned in input order or as they complete.

`Flow` decides and never waits; `in_thread` and `on_loop` wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Literal

from bioforge.api.deduplicate import HEARTBEAT
from bioforge.api.types import Answer, Item, ItemResult, Progress
from bioforge.core.errors import BioforgeError, GenerationError, HaltedError

Order = Literal["input", "completed"]
ORDERS = ("input", "completed")

AHEAD = 4
"""Limit of items that are pulled and not returned yet, as a multiple of those that wait for answers: in input order,
others complete before a slow one."""

YIELD_EVERY = 256
"""Results after which an event loop gets a turn although no wait is needed."""

OnEnd = Callable[[int, "Future[Answer[Any]]"], None]


class Flow:
    """The items that were pulled, those that wait for answers, and the result to return next."""

    def __init__(self, order: Order, limit: int | None, total: int | None) -> None:
        """`limit`: items that may wait for answers at once; None: all."""
        self.exhausted = False
        """No more items are pulled."""
        self.error: BaseException | None = None
        """Raised after the results of all pulled items."""
        self._ordered = order == "input"
        self._limit = limit
        self._total = total
        self._pulled = 0
        self._returned = 0
        self._waiting: dict[int, Item] = {}
        self._done: dict[int, ItemResult[Any]] = {}
        self._queue: deque[int] = deque()
        self._failures: Counter[str] = Counter()
        self._cached = 0
        self._tokens = [0, 0]
        self._cost = 0.0
        self._since = time.monotonic()

    @property
    def wants_more(self) -> bool:
        if self.exhausted:
            return False
        if self._limit is None:
            return True
        return len(self._waiting) < self._limit and self._pulled - self._returned < AHEAD * self._limit

    @property
    def finished(self) -> bool:
        return self.exhausted and not self._waiting and not self._done

    def add(self, item: Item) -> int:
        """Add an item that was pulled. Return its index."""
        index, self._pulled = self._pulled, self._pulled + 1
        self._waiting[index] = item
        return index

    def stop(self, error: BaseException) -> None:
        """Pull no more items, and raise this error at the end."""
        self.error = self.error or error
        self.exhausted = True

    def refuse(self, index: int, error: BioforgeError) -> None:
        """End an item that cannot be sent."""
        self._end(ItemResult(self._waiting.pop(index), index, error=error))

    def complete(self, index: int, future: Future[Answer[Any]]) -> None:
        """End an item with the result of its future."""
        item, error = self._waiting.pop(index), future.exception()
        if error is None:
            self._end(ItemResult(item, index, future.result()))
            return
        if not isinstance(error, BioforgeError):
            raise error
        if isinstance(error, HaltedError) or not isinstance(error, GenerationError):
            self.stop(error)  # every other item would fail with it
        self._end(ItemResult(item, index, error=error))

    def next(self) -> ItemResult[Any] | None:
        """Return the next result, or None if it has to be waited for."""
        if self._ordered:
            result = self._done.pop(self._returned, None)
        else:
            result = self._done.pop(self._queue.popleft()) if self._queue else None
        if result is not None:
            self._returned += 1
            self._count(result)
        return result

    def progress(self) -> Progress:
        return Progress(
            done=self._returned,
            failed=sum(self._failures.values()),
            cached=self._cached,
            total=self._total,
            in_flight=len(self._waiting),
            input_tokens=self._tokens[0],
            output_tokens=self._tokens[1],
            cost_usd=self._cost,
            seconds=time.monotonic() - self._since,
            failures=dict(self._failures),
        )

    def _end(self, result: ItemResult[Any]) -> None:
        self._done[result.index] = result
        if not self._ordered:
            self._queue.append(result.index)

    def _count(self, result: ItemResult[Any]) -> None:
        answer, error = result.answer, result.error
        if answer is not None:
            self._cached += answer.cached
            self._cost += answer.cost_usd or 0.0
            if not answer.cached:
                self._tokens[0] += answer.usage.input_tokens
                self._tokens[1] += answer.usage.output_tokens
        if error is not None:
            self._failures[error_class_of(error)] += 1
            self._cost += getattr(error, "cost_usd", None) or 0.0


def error_class_of(error: BaseException) -> str:
    """Return the short name that failures are grouped by."""
    return error.error_class if isinstance(error, GenerationError) else type(error).__name__


@dataclass(frozen=True, slots=True)
class BulkRequests:
    """The client's side of many items.

    `submit` raises `BioforgeError` for an item that cannot be sent; requests submitted inside `hold` are sent together.
    """

    submit: Callable[[Item], Future[Answer[Any]]]
    hold: Callable[[], AbstractContextManager[None]]
    progress: Callable[[Progress], object] | None = None


def _pull(
    flow: Flow, given: object, bulk: BulkRequests, on_end: OnEnd, futures: dict[int, Future[Answer[Any]]]
) -> None:
    item = given if isinstance(given, Item) else Item(given)  # type: ignore[arg-type]  # `submit` refuses what is no text
    index = flow.add(item)
    try:
        future = bulk.submit(item)
    except BioforgeError as error:
        if isinstance(error, HaltedError):
            flow.stop(error)
        flow.refuse(index, error)
        return
    futures[index] = future
    future.add_done_callback(partial(on_end, index))


def in_thread(items: Iterable[Item | str], flow: Flow, bulk: BulkRequests) -> Generator[ItemResult[Any], None, None]:
    """Yield every result. Leaving early takes back unsent requests."""
    source = _Source(items)
    arrived: SimpleQueue[int] = SimpleQueue()
    futures: dict[int, Future[Answer[Any]]] = {}

    def pull(given: object) -> None:
        _pull(flow, given, bulk, on_end, futures)

    def on_end(index: int, future: Future[Answer[Any]]) -> None:
        arrived.put(index)

    def harvest(timeout: float) -> None:
        with suppress(Empty):
            index = arrived.get(timeout=timeout) if timeout else arrived.get_nowait()
            while True:
                flow.complete(index, futures.pop(index))
                index = arrived.get_nowait()

    held = ExitStack()
    held.enter_context(bulk.hold())
    try:
        while not flow.finished:
            while flow.wants_more and source.pull(flow, pull):
                pass
            if flow.exhausted:
                held.close()
            harvest(0.0)
            if (result := flow.next()) is not None:
                if bulk.progress is not None:
                    bulk.progress(flow.progress())
                yield result
            elif not flow.finished:
                harvest(HEARTBEAT)
    finally:
        held.close()
        for future in futures.values():
            future.cancel()
    if flow.error is not None:
        raise flow.error


async def on_loop(
    items: Iterable[Item | str] | AsyncIterable[Item | str], flow: Flow, bulk: BulkRequests
) -> AsyncGenerator[ItemResult[Any], None]:
    """Yield every result on an event loop. An asynchronous source is pulled while answers are awaited."""
    arrivals = _Arrivals(flow, bulk)
    source = _AsyncSource(items, arrivals.wakeup) if isinstance(items, AsyncIterable) else _Source(items)
    since_yield = 0
    held = ExitStack()
    held.enter_context(bulk.hold())
    try:
        while not flow.finished:
            while flow.wants_more and source.pull(flow, arrivals.pull):
                pass
            if flow.exhausted:
                held.close()
            arrivals.harvest()
            if (result := flow.next()) is not None:
                if bulk.progress is not None:
                    bulk.progress(flow.progress())
                yield result
                since_yield += 1
                if since_yield % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            elif not flow.finished:
                await arrivals.wait()
    finally:
        held.close()
        source.close()
        arrivals.cancel()
    if flow.error is not None:
        raise flow.error


class _Arrivals:
    """Answers from the worker's thread; the loop is woken once for all that arrived since it last looked."""

    def __init__(self, flow: Flow, bulk: BulkRequests) -> None:
        self.wakeup = asyncio.Event()
        self._flow = flow
        self._bulk = bulk
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[int] = deque()
        self._woken = False
        self._futures: dict[int, Future[Answer[Any]]] = {}

    def pull(self, given: object) -> None:
        _pull(self._flow, given, self._bulk, self._on_end, self._futures)

    def harvest(self) -> None:
        while self._arrived:
            index = self._arrived.popleft()
            self._flow.complete(index, self._futures.pop(index))

    async def wait(self) -> None:
        """Wait until an answer or an item may have arrived."""
        if not self._arrived:
            await self.wakeup.wait()
        self.wakeup.clear()
        self._woken = False

    def cancel(self) -> None:
        for future in self._futures.values():
            future.cancel()

    def _on_end(self, index: int, future: Future[Answer[Any]]) -> None:
        self._arrived.append(index)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.wakeup.set)


class _Source:
    """Items of an iterable."""

    def __init__(self, items: Iterable[Item | str]) -> None:
        self._source = iter(items)

    def pull(self, flow: Flow, take: Callable[[object], None]) -> bool:
        """Take the next item. Return False if there is none now."""
        try:
            given = next(self._source)
        except StopIteration:
            flow.exhausted = True
        except Exception as error:
            flow.stop(error)
        else:
            take(given)
            return True
        return False

    def close(self) -> None:
        """Do nothing: the caller owns the iterable."""


class _AsyncSource:
    """Items of an asynchronous iterable, awaited by a task."""

    def __init__(self, items: AsyncIterable[Item | str], wakeup: asyncio.Event) -> None:
        self._source = aiter(items)
        self._wakeup = wakeup
        self._task: asyncio.Task[Item | str] | None = None

    def pull(self, flow: Flow, take: Callable[[object], None]) -> bool:
        """Take the next item. Return False if there is none now."""
        if self._task is None:
            self._task = asyncio.ensure_future(_next(self._source))
            self._task.add_done_callback(lambda _: self._wakeup.set())
        if not self._task.done():
            return False
        task, self._task = self._task, None
        try:
            given = task.result()
        except StopAsyncIteration:
            flow.exhausted = True
        except Exception as error:
            flow.stop(error)
        else:
            take(given)
            return True
        return False

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def _next(source: AsyncIterator[Item | str]) -> Item | str:
    return await anext(source)
