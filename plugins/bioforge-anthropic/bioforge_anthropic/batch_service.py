"""Implement `InlineBatchService` for Message Batches with the SDK.

The SDK's retries are off, since a repeated creation is paid twice. Bodies are read as bytes, since the SDK's parsing can
raise after a call was paid.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bioforge.plugin import (
    PLACEHOLDER_KEY,
    Attempt,
    BackendContext,
    Batch,
    BatchResult,
    CallError,
    Outcome,
    OutputError,
    Request,
    Undecided,
    atomic_write,
    client_options,
    client_timeout,
    lower_headers,
    read_json_object,
    remove_key,
    require_id,
    total_timeout,
)
from bioforge_anthropic import batch_lines
from bioforge_anthropic.batch_lines import read_batch
from bioforge_anthropic.client import call_headers, sdk_url
from bioforge_anthropic.failures import read_failure, read_moment
from bioforge_anthropic.outcomes import FAILURES

if TYPE_CHECKING:
    import httpx2
    from anthropic import Anthropic

BATCHES = "/v1/messages/batches"

CALL_SECONDS = 120.0
"""Longest time for a call that looks something up or asks for an end."""

TRANSFER_SECONDS = 600.0
"""Longest time without progress of a creation or a download."""

FILE_TRANSFER_SECONDS = 4 * 3600.0
"""Longest time of a whole creation or download."""

PIECE = 1 << 16
"""Bytes of a download that are written at once."""

PAGE = 1_000
"""Entries of a list in one page: the most the API gives."""

BEFORE = 3_600.0
"""Seconds before its preparation in which a batch is still looked for, beyond what this machine's clock is known to be
fast."""


class AnthropicBatches:
    """The service, with one client for all threads. Raises `CallError` for failed calls, `OutputError` for disk errors."""

    def __init__(self, context: BackendContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._sdk: Anthropic | None = None
        self._http: httpx2.Client | None = None
        self._marks: dict[str, str] = {}
        """What the names of the requests begin with, in batches that were looked into."""

    def close(self) -> None:
        with self._lock:
            client, self._sdk, self._http = self._sdk, None, None
        if client is not None:
            client.close()

    # ------------------------------------------------------------------------------------------------- pure

    def custom_id_in(self, request: Request, number: int, key: str) -> str:
        return batch_lines.custom_id(key, request.target, number, request.request_hash)

    def line(self, attempt: Attempt) -> bytes:
        return batch_lines.line(attempt)

    def read(self, batch: Batch, line: bytes) -> BatchResult:
        return batch_lines.read_line(batch, remove_key([line], self._context))

    def enqueued_limit(self, text: str) -> int | None:
        """Return no limit: the API limits waiting requests by a 429, which is retried."""
        return None

    # ------------------------------------------------------------------------------------------------ creation

    def create_from(self, batch: Batch, project: str, path: Path) -> Batch:
        import httpx2

        try:
            stream = path.open("rb")
            size = path.stat().st_size
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
        with stream, closing(batch_lines.creation(stream)) as content:
            job = self._call(
                lambda client: client.post(
                    BATCHES,
                    cast_to=httpx2.Response,
                    content=content,
                    options={
                        "headers": {"Content-Length": str(batch_lines.length_of_creation(size))},
                        "timeout": client_timeout(TRANSFER_SECONDS, FILE_TRANSFER_SECONDS),
                    },
                )
            )
        require_id(job, "batch")
        return read_batch(batch, job)

    def search(self, batch: Batch, known: Collection[str]) -> Batch | Undecided | None:
        """Search by `custom_id`, the only identification in a batch, which can be read when the batch has ended.

        Until then every recent batch with the same number of requests is a candidate.
        """
        mark, unclear = batch_lines.mark_of(batch.key), list[Mapping[str, Any]]()
        for job in self._young(batch):
            if job.get("id") in known or batch_lines.requests_in(job) not in (0, batch.requests):
                continue
            found = self._mark(job)
            if found == mark:
                return read_batch(batch, job)
            if found is None:
                unclear.append(job)
        return batch_lines.undecided(unclear) if unclear else None

    def _mark(self, job: Mapping[str, Any]) -> str | None:
        """Return the `custom_id` prefix in a batch's first result; None without results."""
        batch_id = str(job.get("id"))
        if batch_id in self._marks:
            return self._marks[batch_id]
        if job.get("processing_status") != "ended" or not job.get("results_url"):
            return None
        try:
            with self._results(batch_id) as response:
                first = next((line for line in response.iter_lines() if line.strip()), "")
        except CallError as error:
            if error.failure.http_status in (404, 410):  # results expire
                return None
            raise
        name = batch_lines.name_in(first.encode())
        if name is not None:
            self._marks[batch_id] = batch_lines.mark_in(name)
        return self._marks.get(batch_id)

    def _young(self, batch: Batch) -> Iterator[Mapping[str, Any]]:
        """Return the workspace's batches that may have been created since this one was prepared, newest first."""
        after, since = "", float("inf")
        while True:
            page: dict[str, Any] = {"limit": PAGE, "timeout": self._short()} | ({"after_id": after} if after else {})
            asked = time.time()
            answer = self._answer(partial(_page, page))
            body = read_json_object(remove_key([answer.content], self._context))
            # clocks differ: by the API's clock it may have been created before it was prepared
            since = min(since, batch.prepared_at + min(0.0, _date(answer, asked) - asked) - BEFORE)
            data = body.get("data")
            entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
            for entry in entries:
                created = read_moment(entry.get("created_at"))
                if created is not None and created < since:
                    return
                yield entry
            last = entries[-1].get("id") if entries else None
            # a server that ignores `after_id` would return the same page forever
            if not body.get("has_more") or not isinstance(last, str) or last == after:
                return
            after = last

    # ------------------------------------------------------------------------------------------------ afterwards

    def look(self, batch: Batch) -> Batch:
        batch_id = batch.batch_id or ""
        return read_batch(
            batch,
            self._call(
                lambda client: client.messages.batches.with_raw_response.retrieve(batch_id, timeout=self._short())
            ),
        )

    def cancel(self, batch: Batch) -> Batch:
        batch_id = batch.batch_id or ""
        return read_batch(
            batch,
            self._call(
                lambda client: client.messages.batches.with_raw_response.cancel(batch_id, timeout=self._short())
            ),
        )

    def download(self, file_id: str, path: Path) -> int:
        """Download the results of the batch with this id."""
        size = 0
        try:
            with self._results(file_id) as response, atomic_write(path) as stream:
                for piece in response.iter_bytes(PIECE):
                    stream.write(piece)
                    size += len(piece)
        except OutputError as error:
            raise OutputError(error.message, "nothing is lost: the API keeps the results for 29 days") from error
        return size

    @contextmanager
    def _results(self, batch_id: str) -> Generator[httpx2.Response]:
        """Stream the results of a batch; errors until the end of the block become `CallError`.

        The URL is built from the base URL instead of the batch's `results_url`, so that the key goes to no other host.
        The block may only read the results and raise `OutputError`.
        """
        started = time.perf_counter()
        answer: httpx2.Response | None = None
        url = f"{sdk_url(self._context.base_url)}{BATCHES}/{batch_id}/results"
        try:
            self._client()
            assert self._http is not None
            with self._http.stream(
                "GET",
                url,
                headers=call_headers(self._context),
                timeout=client_timeout(TRANSFER_SECONDS, FILE_TRANSFER_SECONDS),
            ) as answer:
                if not answer.is_success:
                    content = remove_key([answer.read()], self._context)
                    raise CallError(read_failure(answer.status_code, lower_headers(answer.headers), content))
                yield answer
        except (CallError, OutputError):
            raise
        except Exception as error:
            raise CallError(self._outcome(error, time.perf_counter() - started, answer)) from error

    # ------------------------------------------------------------------------------------------------ calls

    def _call(self, ask: Callable[[Anthropic], Any]) -> dict[str, Any]:
        """Return the JSON object in a call's response."""
        return read_json_object(remove_key([self._answer(ask).content], self._context))

    def _answer(self, ask: Callable[[Anthropic], Any]) -> httpx2.Response:
        started = time.perf_counter()
        try:
            answer = ask(self._client())
        except Exception as error:
            raise CallError(self._outcome(error, time.perf_counter() - started, None)) from error
        return cast("httpx2.Response", getattr(answer, "http_response", answer))

    def _outcome(self, error: Exception, seconds: float, answer: httpx2.Response | None) -> Outcome:
        import anthropic

        if isinstance(error, anthropic.APIStatusError):
            return FAILURES.from_refusal(error.response, seconds, self._context)
        return FAILURES.from_sdk_error(error, anthropic.APIConnectionError, seconds, answer, self._context)

    def _client(self) -> Anthropic:
        import httpx2
        from anthropic import Anthropic

        with self._lock:
            if self._sdk is None:
                self._http = httpx2.Client(**client_options(self._context.base_url), event_hooks=total_timeout())
                self._sdk = Anthropic(
                    api_key=self._context.api_key or PLACEHOLDER_KEY,
                    base_url=sdk_url(self._context.base_url),
                    max_retries=0,
                    timeout=self._short(),
                    http_client=self._http,
                )
            return self._sdk

    def _short(self) -> httpx2.Timeout:
        return client_timeout(min(CALL_SECONDS, self._context.timeout))


def _page(page: dict[str, Any], client: Anthropic) -> Any:
    return client.messages.batches.with_raw_response.list(**page)


def _date(answer: httpx2.Response, otherwise: float) -> float:
    """Return the API's time in seconds since 1970."""
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return otherwise
