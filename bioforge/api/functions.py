"""The functions that need no client: they share one for each configuration and state, and end it for you.

Without a state it lives until the process ends. With one, it is closed with the last call that uses it, since it holds
the state's lock: many calls in a row open and close it each time, which a `Client` of your own does not.
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
Place = str | os.PathLike[str] | None


@dataclass(eq=False, slots=True)
class _Shared:
    config: Config
    state: Path | None
    client: Client
    users: int = 0


class _Clients:
    """Those in use, by configuration and state. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[_Shared] = []

    def take(self, config: Config | None, state: Place) -> _Shared:
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

    def put_back(self, shared: _Shared) -> bool:
        """Whether the client is to be closed now."""
        with self._lock:
            shared.users -= 1
            if shared.users or shared.state is None:
                return False
            self._known.remove(shared)
            # before anybody else can ask for this state: whoever does waits for it
            shared.client.close_soon()
            return True


_clients = _Clients()
if hasattr(os, "register_at_fork"):
    # a forked process has none of their threads: it opens its own
    os.register_at_fork(after_in_child=_clients.__init__)  # type: ignore[misc]


@contextmanager
def _borrowed(config: Config | None, state: Place) -> Iterator[Client]:
    shared = _clients.take(config, state)
    try:
        yield shared.client
    finally:
        if _clients.put_back(shared):
            shared.client.close()


@asynccontextmanager
async def _borrowed_on_loop(config: Config | None, state: Place) -> AsyncIterator[Client]:
    shared = _clients.take(config, state)
    try:
        yield shared.client
    finally:
        if _clients.put_back(shared):
            await shared.client.aclose()


@overload
async def generate(
    prompt: str,
    *,
    schema: type[Model],
    config: Config | None = None,
    state: Place = None,
    **options: Unpack[RequestOptions],
) -> Answer[Model]: ...
@overload
async def generate(
    prompt: str,
    *,
    schema: None = None,
    config: Config | None = None,
    state: Place = None,
    **options: Unpack[RequestOptions],
) -> Answer[str]: ...
@overload
async def generate(
    prompt: str,
    *,
    schema: Schema | Mapping[str, Any] | str | Path,
    config: Config | None = None,
    state: Place = None,
    **options: Unpack[RequestOptions],
) -> Answer[Any]: ...
async def generate(
    prompt: str,
    *,
    schema: Any = None,
    config: Config | None = None,
    state: Place = None,
    **options: Unpack[RequestOptions],
) -> Answer[Any]:
    """`Client.generate`, by a shared client."""
    async with _borrowed_on_loop(config, state) as client:
        answer: Answer[Any] = await client.generate(prompt, schema=schema, **options)
        return answer


@overload
def generate_sync(
    prompt: str,
    *,
    schema: type[Model],
    config: Config | None = None,
    state: Place = None,
    **options: Unpack[RequestOptions],
) -> Answer[Model]: ...
@overload
def generate_sync(
    prompt: str,
    *,
    schema: None = None,
    config: Config | None = None,
    state: Place = None,
    **options: Unpack[RequestOptions],
) -> Answer[str]: ...
@overload
def generate_sync(
    prompt: str,
    *,
    schema: Schema | Mapping[str, Any] | str | Path,
    config: Config | None = None,
    state: Place = None,
    **options: Unpack[RequestOptions],
) -> Answer[Any]: ...
def generate_sync(
    prompt: str,
    *,
    schema: Any = None,
    config: Config | None = None,
    state: Place = None,
    **options: Unpack[RequestOptions],
) -> Answer[Any]:
    """`Client.generate_sync`, by a shared client."""
    with _borrowed(config, state) as client:
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
    state: Place = None,
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
    state: Place = None,
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
    state: Place = None,
    **options: Unpack[RequestOptions],
) -> AsyncGenerator[ItemResult[Any], None]:
    """`Client.generate_many`, by a shared client."""
    async with _borrowed_on_loop(config, state) as client:
        outcomes = client.generate_many(
            items, schema=schema, order=order, concurrency=concurrency, progress=progress, **options
        )
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome


@overload
def generate_many_sync(
    items: Iterable[Item | str],
    *,
    schema: type[Model],
    order: Order = "input",
    concurrency: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    config: Config | None = None,
    state: Place = None,
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
    state: Place = None,
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
    state: Place = None,
    **options: Unpack[RequestOptions],
) -> Generator[ItemResult[Any], None, None]:
    """`Client.generate_many_sync`, by a shared client."""
    with _borrowed(config, state) as client:
        outcomes = client.generate_many_sync(
            items, schema=schema, order=order, concurrency=concurrency, progress=progress, **options
        )
        with closing(outcomes):
            yield from outcomes
