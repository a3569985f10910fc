"""A client: typed answers to prompts, one by one or by the million, from asynchronous and from plain code.

The plain twins (`_sync`) wait in their thread for the same future; there is nothing else to them.
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
from bioforge.api.worker import Engine
from bioforge.core.errors import BadArgument, ConfigError, nearest

if TYPE_CHECKING:
    from bioforge.recipes.schema import Schema

Model = TypeVar("Model", bound=BaseModel)


class Client:
    """Safe to share among threads and event loops: all calls go through one scheduler, with one budget.

    ```python
    async with Client(Config(model="gpt-6-luna"), state="answers.db") as client:
        answer = await client.generate("Who was Björk's first teacher?", schema=Teacher)
    ```
    With `state`, a SQLite file, answers are kept and never paid for twice: an identical call gets the kept one, in this
    process or the next. The file is the client's own while it is open. Without, nothing is kept.

    Raises `ConfigError` for a configuration that cannot work. `StateError` and whatever has to do with the provider is
    raised by the calls. Nothing is opened before the first one.
    """

    def __init__(self, config: Config | None = None, *, state: str | os.PathLike[str] | None = None) -> None:
        if config is not None and not isinstance(config, Config):
            raise BadArgument(f"config: expected a Config, found {type(config).__name__}")
        self.config = config or Config()
        self.state = None if state is None else Path(state)
        setting = ConfigSource(self.config)
        self._backends = ClientBackend(setting, self.state)
        self._asker = RequestBuilder(self._backends.asking, self._backends.dialect, setting.model, self.config.endpoint)
        self._engine = Engine(self._backends, self._asker, self.state)

    # ---------------------------------------------------------------------------------------------------- one by one

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
        """The answer to one prompt; `RequestOptions` says how to ask. It is tried `max_attempts` times at most (as the client's
        `RetryConfig` says, if the call does not). Cancelling takes it back unless it was sent by then.

        Raises `GenerationError` where there is none (`TransportError`, `SchemaValidationError`, `BudgetError` …),
        `StateError`, `ConfigError`, and `BadArgument`, which is a `ValueError`.
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
        """`generate` for code without an event loop; from any thread."""
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
        """An `ItemResult` for every item, prompts or `Item`s, with its answer or its error: in the order of the items, or
        as they are `completed`. Items are pulled as there is room, also from an asynchronous iterable.

        `concurrency` is how many of these items may be in flight at once, if that is to be less than the client's. The
        options are for items that say nothing else. `progress` is called before each outcome.
        Without a `max_attempts` of their own, items are patient: attempts that say nothing about an item (an outage, a
        storm of refusals, a long Retry-After) do not count, and `RetryConfig.outage_seconds` is how long that may take.

        What stops everybody (`HaltedError`, `StateError`, `ConfigError`), and an error of the iterable itself, ends the
        pulling, and is raised when the outcomes of all items that were pulled have been handed out. Leaving early takes
        back what was not sent. Raises `BadArgument` and `ConfigError` at once for what is wrong for all items.
        """
        flow, asking = self._many(items, schema, order, concurrency, progress, options)
        return on_loop(items, flow, asking)

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
        """`generate_many` for code without an event loop."""
        if not isinstance(items, Iterable):
            raise BadArgument(f"items: expected an iterable, found {type(items).__name__}", "generate_many takes both")
        flow, asking = self._many(items, schema, order, concurrency, progress, options)
        return in_thread(items, flow, asking)

    # ------------------------------------------------------------------------------------------------------ closing

    def close(self) -> None:
        """Sends nothing more, and returns when what is in flight was answered (and kept); what waits to be sent ends
        with `ClosedError`. Where nobody waits for an answer and no state keeps it, it is not awaited. Ctrl-C leaves at
        once. Closing twice is closing once."""
        self._engine.close()

    def close_soon(self) -> None:
        """Begin to close, without waiting for its end: another client of the same process that wants this state does."""
        self._engine.ask_to_close()

    async def aclose(self) -> None:
        """`close` without holding up the event loop; cancelling it leaves at once."""
        over = self._engine.ask_to_close()
        try:
            await asyncio.shield(asyncio.wrap_future(over))
        except BaseException:
            self._engine.leave()
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
        engine: Engine | None = getattr(self, "_engine", None)
        if engine is not None and engine.running and engine.desk.open:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            engine.ask_to_close()

    def __repr__(self) -> str:
        where = "" if self.state is None else f", state={str(self.state)!r}"
        return f"<Client of {self._backends.setting.base_url}{where}>"

    # ------------------------------------------------------------------------------------------------------- inside

    def _one(self, item: Item) -> Future[Answer[Any]]:
        """Somebody waits for this very answer: every attempt counts, where many items sit an outage out."""
        if item.max_attempts is None:
            item = replace(item, max_attempts=self.config.retry.max_attempts)
        return self._ask(item)

    def _ask(self, item: Item) -> Future[Answer[Any]]:
        question = self._asker.question(item)
        if self.config.limits.max_cost_usd is not None:
            self._asker.price(question.request)  # what nobody knows the price of is refused before anything is begun
        return self._engine.submit(question)

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
            raise ConfigError("concurrency: batches have none; leave it out")
        defaults = Item("", schema=None if schema is None else self._asker.schema(schema), **options)
        self._asker.check(defaults)

        def ask(item: Item) -> Future[Answer[Any]]:
            return self._ask(with_defaults(item, defaults))

        limit = self.config.limits.concurrency
        # where the client's own limit is the narrower one, as many again wait beside those in flight: a slot that gets
        # free is taken at once
        at_once = concurrency if concurrency is not None and concurrency < limit else 2 * limit
        collecting = self._engine.collecting if batches else _not_collecting
        total = len(items) if isinstance(items, Sized) else None
        return Flow(order, None if batches else at_once, total), BulkRequests(ask, collecting, progress)


def _not_collecting() -> AbstractContextManager[None]:
    return nullcontext()
