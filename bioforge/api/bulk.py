"""Many items through one client: pulled as there is room, handed out in their order or as they are done.

`Flow` decides without any waiting; two drivers wait for it, one on an event loop and one in a thread.
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
from typing import Any, Literal, Protocol

from bioforge.api.deduplicate import HEARTBEAT
from bioforge.api.types import Answer, Item, ItemResult, Progress
from bioforge.core.errors import BioforgeError, GenerationError, HaltedError

Order = Literal["input", "completed"]
ORDERS = ("input", "completed")

AHEAD = 4
"""Items that may be pulled and not handed out yet, as a multiple of those that may wait for their answers at once: in
the order of the input, others are done before a slow one."""

BREATH = 256
"""Items after which an event loop gets a turn while nothing has to be waited for."""

Ended = Callable[[int, "Future[Answer[Any]]"], None]


class SubmitItem(Protocol):
    """Puts one item's question. Raises `BioforgeError` for one that cannot be asked."""

    def __call__(self, item: Item) -> Future[Answer[Any]]: ...


class Flow:
    """What has been pulled, what waits, and what may be handed out next."""

    def __init__(self, order: Order, at_once: int | None, total: int | None) -> None:
        """`at_once`: items that wait for their answers; None: all of them."""
        self.exhausted = False
        """Whether there are no more items, or none are to be pulled any more."""
        self.error: BaseException | None = None
        """What is raised when everything that was pulled has been handed out."""
        self._ordered = order == "input"
        self._at_once = at_once
        self._total = total
        self._pulled = 0
        self._handed_out = 0
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
        if self._at_once is None:
            return True
        return len(self._waiting) < self._at_once and self._pulled - self._handed_out < AHEAD * self._at_once

    @property
    def finished(self) -> bool:
        return self.exhausted and not self._waiting and not self._done

    def pulled(self, item: Item) -> int:
        """Its index."""
        index, self._pulled = self._pulled, self._pulled + 1
        self._waiting[index] = item
        return index

    def broken(self, error: BaseException) -> None:
        """The items themselves have ended with an error."""
        self.error = self.error or error
        self.exhausted = True

    def refused(self, index: int, error: BioforgeError) -> None:
        """This item cannot be asked."""
        self._end(ItemResult(self._waiting.pop(index), index, error=error))

    def ended(self, index: int, future: Future[Answer[Any]]) -> None:
        item, error = self._waiting.pop(index), future.exception()
        if error is None:
            self._end(ItemResult(item, index, future.result()))
            return
        if not isinstance(error, BioforgeError):
            raise error
        if isinstance(error, HaltedError) or not isinstance(error, GenerationError):
            # it would be the same with all others
            self.broken(error)
        self._end(ItemResult(item, index, error=error))

    def next(self) -> ItemResult[Any] | None:
        """The next outcome to hand out, if there is one by now."""
        if self._ordered:
            outcome = self._done.pop(self._handed_out, None)
        else:
            outcome = self._done.pop(self._queue.popleft()) if self._queue else None
        if outcome is not None:
            self._handed_out += 1
            self._count(outcome)
        return outcome

    def progress(self) -> Progress:
        return Progress(
            done=self._handed_out,
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

    def _end(self, outcome: ItemResult[Any]) -> None:
        self._done[outcome.index] = outcome
        if not self._ordered:
            self._queue.append(outcome.index)

    def _count(self, outcome: ItemResult[Any]) -> None:
        answer, error = outcome.answer, outcome.error
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
    """The short word that failures are grouped by."""
    return error.error_class if isinstance(error, GenerationError) else type(error).__name__


@dataclass(frozen=True, slots=True)
class BulkRequests:
    """How items are asked. `collecting`: what is asked within it is sent together, for backends that want it so."""

    ask: SubmitItem
    collecting: Callable[[], AbstractContextManager[None]]
    progress: Callable[[Progress], object] | None = None


def _as_item(given: object) -> Item:
    return given if isinstance(given, Item) else Item(given)  # type: ignore[arg-type]  # whatever it is, asking says


def _pull(
    flow: Flow, given: object, asking: BulkRequests, ended: Ended, futures: dict[int, Future[Answer[Any]]]
) -> None:
    item = _as_item(given)
    index = flow.pulled(item)
    try:
        future = asking.ask(item)
    except BioforgeError as error:
        if isinstance(error, HaltedError):
            flow.broken(error)
        flow.refused(index, error)
        return
    futures[index] = future
    future.add_done_callback(partial(ended, index))


def in_thread(items: Iterable[Item | str], flow: Flow, asking: BulkRequests) -> Generator[ItemResult[Any], None, None]:
    """Hands out every outcome; leaving early takes back what was not sent."""
    source = _Plain(items)
    arrived: SimpleQueue[int] = SimpleQueue()
    futures: dict[int, Future[Answer[Any]]] = {}

    def pull(given: object) -> None:
        _pull(flow, given, asking, ended, futures)

    def ended(index: int, future: Future[Answer[Any]]) -> None:
        arrived.put(index)

    def harvest(timeout: float) -> None:
        with suppress(Empty):
            index = arrived.get(timeout=timeout) if timeout else arrived.get_nowait()
            while True:
                flow.ended(index, futures.pop(index))
                index = arrived.get_nowait()

    together = ExitStack()
    together.enter_context(asking.collecting())
    try:
        while not flow.finished:
            while flow.wants_more and source.pull(flow, pull):
                pass
            if flow.exhausted:
                together.close()
            harvest(0.0)
            if (outcome := flow.next()) is not None:
                if asking.progress is not None:
                    asking.progress(flow.progress())
                yield outcome
            elif not flow.finished:
                harvest(HEARTBEAT)
    finally:
        together.close()
        for future in futures.values():
            future.cancel()
    if flow.error is not None:
        raise flow.error


async def on_loop(
    items: Iterable[Item | str] | AsyncIterable[Item | str], flow: Flow, asking: BulkRequests
) -> AsyncGenerator[ItemResult[Any], None]:
    """The same on an event loop. An asynchronous source is pulled while answers are awaited."""
    waiter = _Waiter(flow, asking)
    source = _Asynchronous(items, waiter.bell) if isinstance(items, AsyncIterable) else _Plain(items)
    since_breath = 0
    together = ExitStack()
    together.enter_context(asking.collecting())
    try:
        while not flow.finished:
            while flow.wants_more and source.pull(flow, waiter.pull):
                pass
            if flow.exhausted:
                together.close()
            waiter.harvest()
            if (outcome := flow.next()) is not None:
                if asking.progress is not None:
                    asking.progress(flow.progress())
                yield outcome
                since_breath += 1
                if since_breath % BREATH == 0:
                    await asyncio.sleep(0)
            elif not flow.finished:
                await waiter.wait()
    finally:
        together.close()
        source.close()
        waiter.cancel()
    if flow.error is not None:
        raise flow.error


class _Waiter:
    """Answers arrive on the engine's thread; the loop is woken once for all that arrived since it last looked."""

    def __init__(self, flow: Flow, asking: BulkRequests) -> None:
        self.bell = asyncio.Event()
        self._flow = flow
        self._asking = asking
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[int] = deque()
        self._rung = False
        self._futures: dict[int, Future[Answer[Any]]] = {}

    def pull(self, given: object) -> None:
        _pull(self._flow, given, self._asking, self._ended, self._futures)

    def harvest(self) -> None:
        while self._arrived:
            index = self._arrived.popleft()
            self._flow.ended(index, self._futures.pop(index))

    async def wait(self) -> None:
        """Until something may have arrived."""
        if not self._arrived:
            await self.bell.wait()
        self.bell.clear()
        self._rung = False

    def cancel(self) -> None:
        for future in self._futures.values():
            future.cancel()

    def _ended(self, index: int, future: Future[Answer[Any]]) -> None:
        self._arrived.append(index)
        if not self._rung:
            self._rung = True
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(self.bell.set)


class _Plain:
    """A source that is pulled by calling it."""

    def __init__(self, items: Iterable[Item | str]) -> None:
        self._source = iter(items)

    def pull(self, flow: Flow, take: Callable[[object], None]) -> bool:
        """Whether one was taken."""
        try:
            given = next(self._source)
        except StopIteration:
            flow.exhausted = True
        except Exception as error:
            flow.broken(error)
        else:
            take(given)
            return True
        return False

    def close(self) -> None:
        """Whoever made the items ends them."""


class _Asynchronous:
    """A source that is awaited, by a task beside the answers."""

    def __init__(self, items: AsyncIterable[Item | str], bell: asyncio.Event) -> None:
        self._source = aiter(items)
        self._bell = bell
        self._task: asyncio.Task[Item | str] | None = None

    def pull(self, flow: Flow, take: Callable[[object], None]) -> bool:
        if self._task is None:
            self._task = asyncio.ensure_future(_next(self._source))
            self._task.add_done_callback(lambda _: self._bell.set())
        if not self._task.done():
            return False
        task, self._task = self._task, None
        try:
            given = task.result()
        except StopAsyncIteration:
            flow.exhausted = True
        except Exception as error:
            flow.broken(error)
        else:
            take(given)
            return True
        return False

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def _next(source: AsyncIterator[Item | str]) -> Item | str:
    return await anext(source)
