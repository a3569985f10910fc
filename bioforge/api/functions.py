"""Functions that need no client: they share one for each configuration and state.

A shared client without a state lives until the process ends. One with a state is closed with the last call that uses it,
since it holds the state's lock; for many calls in a row, a `Client` of your own is faster.
"""

from __future__ import annotations

import os
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from pydantic import BaseModel

from bioforge.api.bulk import Order
from bioforge.api.client import Client
from bioforge.api.config import Config
from bioforge.api.types import Answer, Item, ItemResult, Progress, RequestOptions

if TYPE_CHECKING:
    from bioforge.recipes.schema import Schema

Model = TypeVar("Model", bound=BaseModel)
StatePath = str | os.PathLike[str] | None


@dataclass(eq=False, slots=True)
class _Shared:
    config: Config
    state: Path | None
    client: Client
    users: int = 0


class _Clients:
    """The shared clients, by configuration and state. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[_Shared] = []

    def take(self, config: Config | None, state: StatePath) -> _Shared:
        config = config or Config()
        path = None if state is None else Path(state).resolve()
        with self._lock:
            for known in self._known:
                if known.state == path and known.config == config:
                    break
            else:
                known = _Shared(config, path, Client(config, state=path))
                self._known.append(known)
            known.users += 1
            return known

    def release(self, shared: _Shared) -> bool:
        """Return whether the caller must close the client."""
        with self._lock:
            shared.users -= 1
            if shared.users or shared.state is None:
                return False
            self._known.remove(shared)
            # before the lock is released: a new client of this state waits for the end of this one
            shared.client.close_soon()
            return True


_clients = _Clients()
if hasattr(os, "register_at_fork"):
    # their threads do not exist in a forked process
    os.register_at_fork(after_in_child=_clients.__init__)  # type: ignore[misc]


@contextmanager
def _borrow(config: Config | None, state: StatePath) -> Iterator[Client]:
    shared = _clients.take(config, state)
    try:
        yield shared.client
    finally:
        if _clients.release(shared):
            shared.client.close()


@asynccontextmanager
async def _aborrow(config: Config | None, state: StatePath) -> AsyncIterator[Client]:
    shared = _clients.take(config, state)
    try:
        yield shared.client
    finally:
        if _clients.release(shared):
            await shared.client.aclose()


@overload
async def generate(
    prompt: str,
    *,
    schema: type[Model],
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> Answer[Model]: ...
@overload
async def generate(
    prompt: str,
    *,
    schema: None = None,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> Answer[str]: ...
@overload
async def generate(
    prompt: str,
    *,
    schema: Schema | Mapping[str, Any] | str | Path,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> Answer[Any]: ...
async def generate(
    prompt: str,
    *,
    schema: Any = None,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> Answer[Any]:
    """Return the answer to one prompt; see `Client.generate`."""
    async with _aborrow(config, state) as client:
        answer: Answer[Any] = await client.generate(prompt, schema=schema, **options)
        return answer


@overload
def generate_sync(
    prompt: str,
    *,
    schema: type[Model],
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> Answer[Model]: ...
@overload
def generate_sync(
    prompt: str,
    *,
    schema: None = None,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> Answer[str]: ...
@overload
def generate_sync(
    prompt: str,
    *,
    schema: Schema | Mapping[str, Any] | str | Path,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> Answer[Any]: ...
def generate_sync(
    prompt: str,
    *,
    schema: Any = None,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> Answer[Any]:
    """Return the answer to one prompt; see `Client.generate_sync`."""
    with _borrow(config, state) as client:
        answer: Answer[Any] = client.generate_sync(prompt, schema=schema, **options)
        return answer


@overload
def generate_many(
    items: Iterable[Item | str] | AsyncIterable[Item | str],
    *,
    schema: type[Model],
    order: Order = "input",
    concurrency: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> AsyncGenerator[ItemResult[Model], None]: ...
@overload
def generate_many(
    items: Iterable[Item | str] | AsyncIterable[Item | str],
    *,
    schema: Schema | Mapping[str, Any] | str | Path | None = None,
    order: Order = "input",
    concurrency: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> AsyncGenerator[ItemResult[Any], None]: ...
async def generate_many(
    items: Iterable[Item | str] | AsyncIterable[Item | str],
    *,
    schema: Any = None,
    order: Order = "input",
    concurrency: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> AsyncGenerator[ItemResult[Any], None]:
    """Yield a result for every item; see `Client.generate_many`."""
    async with _aborrow(config, state) as client:
        results = client.generate_many(
            items, schema=schema, order=order, concurrency=concurrency, progress=progress, **options
        )
        async with aclosing(results):
            async for result in results:
                yield result


@overload
def generate_many_sync(
    items: Iterable[Item | str],
    *,
    schema: type[Model],
    order: Order = "input",
    concurrency: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> Generator[ItemResult[Model], None, None]: ...
@overload
def generate_many_sync(
    items: Iterable[Item | str],
    *,
    schema: Schema | Mapping[str, Any] | str | Path | None = None,
    order: Order = "input",
    concurrency: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> Generator[ItemResult[Any], None, None]: ...
def generate_many_sync(
    items: Iterable[Item | str],
    *,
    schema: Any = None,
    order: Order = "input",
    concurrency: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    config: Config | None = None,
    state: StatePath = None,
    **options: Unpack[RequestOptions],
) -> Generator[ItemResult[Any], None, None]:
    """Yield a result for every item; see `Client.generate_many_sync`."""
    with _borrow(config, state) as client:
        results = client.generate_many_sync(
            items, schema=schema, order=order, concurrency=concurrency, progress=progress, **options
        )
        with closing(results):
            yield from results
