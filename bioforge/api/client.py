"""A client: typed answers to prompts, one or many, from asynchronous and synchronous code.

The `_sync` methods wait for the same future in the caller's thread.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Mapping, Sized
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from pydantic import BaseModel

from bioforge.api.backend import ClientBackend
from bioforge.api.bulk import ORDERS, BulkRequests, Flow, Order, in_thread, on_loop
from bioforge.api.config import Config, ConfigSource
from bioforge.api.deduplicate import result_of
from bioforge.api.request import RequestBuilder, with_defaults
from bioforge.api.types import Answer, Item, ItemResult, Progress, RequestOptions
from bioforge.api.worker import Worker
from bioforge.core.errors import BadArgument, ConfigError, nearest

if TYPE_CHECKING:
    from bioforge.recipes.schema import Schema

Model = TypeVar("Model", bound=BaseModel)


class Client:
    """Generates answers through one scheduler with one budget. Safe to share among threads and event loops.

    ```python
    async with Client(Config(model="gpt-6-luna"), state="answers.db") as client:
        answer = await client.generate("Who was Björk's first teacher?", schema=Teacher)
    ```
    With `state`, a SQLite file, answers are stored and never paid for twice: an identical call gets the stored one, in
    this process or a later one. An open client locks the file. Without `state`, nothing is stored.

    Raises `ConfigError` for an invalid configuration. The calls raise `StateError` and all errors of the provider;
    nothing is opened before the first call.
    """

    def __init__(self, config: Config | None = None, *, state: str | os.PathLike[str] | None = None) -> None:
        if config is not None and not isinstance(config, Config):
            raise BadArgument(f"config: expected a Config, found {type(config).__name__}")
        self.config = config or Config()
        self.state = None if state is None else Path(state)
        setting = ConfigSource(self.config)
        self._backends = ClientBackend(setting, self.state)
        self._builder = RequestBuilder(
            self._backends.offline, self._backends.dialect, setting.model, self.config.endpoint
        )
        self._worker = Worker(self._backends, self._builder, self.state)

    # ------------------------------------------------------------------------------------------------------- one

    @overload
    async def generate(
        self, prompt: str, *, schema: type[Model], **options: Unpack[RequestOptions]
    ) -> Answer[Model]: ...
    @overload
    async def generate(self, prompt: str, *, schema: None = None, **options: Unpack[RequestOptions]) -> Answer[str]: ...
    @overload
    async def generate(
        self, prompt: str, *, schema: Schema | Mapping[str, Any] | str | Path, **options: Unpack[RequestOptions]
    ) -> Answer[Any]: ...
    async def generate(self, prompt: str, *, schema: Any = None, **options: Unpack[RequestOptions]) -> Answer[Any]:
        """Return the answer to one prompt, with the options of `RequestOptions`.

        At most `max_attempts` attempts are made; the default is that of the client's `RetryConfig`. Cancelling takes
        back a request that was not sent yet. Raises `GenerationError` if there is no answer (`TransportError`,
        `SchemaValidationError`, `BudgetError` …), `StateError`, `ConfigError`, and `BadArgument`, a `ValueError`.
        """
        return await asyncio.wrap_future(self._one(Item(prompt, schema=schema, **options)))

    @overload
    def generate_sync(
        self, prompt: str, *, schema: type[Model], **options: Unpack[RequestOptions]
    ) -> Answer[Model]: ...
    @overload
    def generate_sync(self, prompt: str, *, schema: None = None, **options: Unpack[RequestOptions]) -> Answer[str]: ...
    @overload
    def generate_sync(
        self, prompt: str, *, schema: Schema | Mapping[str, Any] | str | Path, **options: Unpack[RequestOptions]
    ) -> Answer[Any]: ...
    def generate_sync(self, prompt: str, *, schema: Any = None, **options: Unpack[RequestOptions]) -> Answer[Any]:
        """Return the answer to one prompt, as `generate` does, without an event loop. Safe from any thread."""
        future = self._one(Item(prompt, schema=schema, **options))
        try:
            return result_of(future)
        except BaseException:
            future.cancel()
            raise

    # ------------------------------------------------------------------------------------------------------ many

    @overload
    def generate_many(
        self,
        items: Iterable[Item | str] | AsyncIterable[Item | str],
        *,
        schema: type[Model],
        order: Order = "input",
        concurrency: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncGenerator[ItemResult[Model], None]: ...
    @overload
    def generate_many(
        self,
        items: Iterable[Item | str] | AsyncIterable[Item | str],
        *,
        schema: Schema | Mapping[str, Any] | str | Path | None = None,
        order: Order = "input",
        concurrency: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncGenerator[ItemResult[Any], None]: ...
    def generate_many(
        self,
        items: Iterable[Item | str] | AsyncIterable[Item | str],
        *,
        schema: Any = None,
        order: Order = "input",
        concurrency: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncGenerator[ItemResult[Any], None]:
        """Yield an `ItemResult` with the answer or the error of every item, in input order or as they are `completed`.

        Items are prompts or `Item`s, pulled as there is room, also from an asynchronous iterable. `concurrency` limits
        these items in flight, below the client's own limit. The options are defaults for all items. `progress` is called
        before each result. Without `max_attempts`, attempts that say nothing about an item (outages, rate limits of an
        overloaded provider, a long Retry-After) do not count; an outage may last `RetryConfig.outage_seconds`.

        An error that ends every call (`HaltedError`, `StateError`, `ConfigError`) or an error of the iterable is raised
        after the results of all items that were pulled. Leaving early takes back unsent requests. Raises `BadArgument`
        and `ConfigError` at once for options that no item can have.
        """
        flow, bulk = self._many(items, schema, order, concurrency, progress, options)
        return on_loop(items, flow, bulk)

    @overload
    def generate_many_sync(
        self,
        items: Iterable[Item | str],
        *,
        schema: type[Model],
        order: Order = "input",
        concurrency: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        **options: Unpack[RequestOptions],
    ) -> Generator[ItemResult[Model], None, None]: ...
    @overload
    def generate_many_sync(
        self,
        items: Iterable[Item | str],
        *,
        schema: Schema | Mapping[str, Any] | str | Path | None = None,
        order: Order = "input",
        concurrency: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        **options: Unpack[RequestOptions],
    ) -> Generator[ItemResult[Any], None, None]: ...
    def generate_many_sync(
        self,
        items: Iterable[Item | str],
        *,
        schema: Any = None,
        order: Order = "input",
        concurrency: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        **options: Unpack[RequestOptions],
    ) -> Generator[ItemResult[Any], None, None]:
        """Yield a result for every item, as `generate_many` does, without an event loop."""
        if not isinstance(items, Iterable):
            raise BadArgument(
                f"items: expected an iterable, found {type(items).__name__}",
                "generate_many takes asynchronous iterables too",
            )
        flow, bulk = self._many(items, schema, order, concurrency, progress, options)
        return in_thread(items, flow, bulk)

    # ------------------------------------------------------------------------------------------------------ closing

    def close(self) -> None:
        """Send nothing more, and return when the requests in flight are answered and stored.

        Calls that were not sent end with `ClosedError`. Answers that no call waits for and no state keeps are not
        awaited. Ctrl-C leaves at once. A second call does nothing.
        """
        self._worker.close()

    def close_soon(self) -> None:
        """Begin to close without waiting. The next client of this process with the same state waits for the end."""
        self._worker.begin_close()

    async def aclose(self) -> None:
        """Close without blocking the event loop. Cancelling it leaves at once."""
        ended = self._worker.begin_close()
        try:
            await asyncio.shield(asyncio.wrap_future(ended))
        except BaseException:
            self._worker.leave()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        worker: Worker | None = getattr(self, "_worker", None)
        if worker is not None and worker.running and worker.calls.open:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            worker.begin_close()

    def __repr__(self) -> str:
        where = "" if self.state is None else f", state={str(self.state)!r}"
        return f"<Client of {self._backends.setting.base_url}{where}>"

    # ------------------------------------------------------------------------------------------------------- inside

    def _one(self, item: Item) -> Future[Answer[Any]]:
        """Submit a single call: every attempt counts, while many items wait for the end of an outage."""
        if item.max_attempts is None:
            item = replace(item, max_attempts=self.config.retry.max_attempts)
        return self._submit(item)

    def _submit(self, item: Item) -> Future[Answer[Any]]:
        prepared = self._builder.prepare(item)
        if self.config.limits.max_cost_usd is not None:
            self._builder.price(prepared.request)  # an unknown price is refused before the thread starts
        return self._worker.submit(prepared)

    def _many(
        self,
        items: object,
        schema: Any,
        order: Order,
        concurrency: int | None,
        progress: Callable[[Progress], object] | None,
        options: RequestOptions,
    ) -> tuple[Flow, BulkRequests]:
        if order not in ORDERS:
            raise BadArgument(f"order: expected 'input' or 'completed', found {order!r}", nearest(str(order), ORDERS))
        if isinstance(items, str | bytes | Mapping | Item) or not isinstance(items, Iterable | AsyncIterable):
            raise BadArgument(f"items: expected an iterable of prompts or Items, found {type(items).__name__}")
        if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
            raise BadArgument(f"concurrency: expected a whole number from 1, found {concurrency!r}")
        batches = self._backends.batches
        if batches and concurrency is not None:
            raise ConfigError("concurrency: not used by batches; leave it out")
        defaults = Item("", schema=None if schema is None else self._builder.schema(schema), **options)
        self._builder.check(defaults)

        def submit(item: Item) -> Future[Answer[Any]]:
            return self._submit(with_defaults(item, defaults))

        limit = self.config.limits.concurrency
        # up to the client's limit in flight and as many waiting, so that a free slot is taken at once
        waiting = concurrency if concurrency is not None and concurrency < limit else 2 * limit
        hold: Callable[[], AbstractContextManager[None]] = self._worker.hold if batches else nullcontext
        total = len(items) if isinstance(items, Sized) else None
        return Flow(order, None if batches else waiting, total), BulkRequests(submit, hold, progress)
