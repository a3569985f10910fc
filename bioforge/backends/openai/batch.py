"""OpenAI's Batch API as a `BatchService`: the real SDK, each call once, every ending an `Outcome`.

Batches are few and files are large: here the SDK's comfort costs nothing. Its retries stay off, since a creation that
is sent twice is paid twice, and bodies are read as bytes, since its parsing raises after the fact.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bioforge.backends.batch.service import BatchResult, CallError
from bioforge.backends.connection import client_options
from bioforge.backends.openai import batch_lines
from bioforge.backends.openai.batch_lines import read_batch
from bioforge.backends.openai.client import check_context
from bioforge.backends.openai.error_body import embedded_error
from bioforge.backends.openai.errors import read_error_object
from bioforge.backends.openai.outcomes import FAILURES
from bioforge.backends.openai.wire import Price
from bioforge.backends.transport import (
    PLACEHOLDER_KEY,
    client_timeout,
    lower_headers,
    read_json_object,
    remove_key,
    require_id,
    total_timeout,
)
from bioforge.core.errors import OutputError
from bioforge.core.events import Attempt
from bioforge.core.files import atomic_write
from bioforge.core.interfaces import BackendContext, Outcome
from bioforge.core.types import Batch, Failure, Paid, Request

if TYPE_CHECKING:
    import httpx2
    from openai import OpenAI

CALL_SECONDS = 120.0
"""Longest time for a call that looks something up or asks for an end."""

TRANSFER_SECONDS = 600.0
"""Longest time without progress of an upload, a download or a creation."""

FILE_TRANSFER_SECONDS = 4 * 3600.0
"""Longest time of a whole upload or download."""

FILE_SECONDS = 30 * 86_400
"""How long an uploaded file is kept: the longest the API allows."""

WINDOW = "24h"
"""The only time in which the API does a batch."""

PIECE = 1 << 16
"""Bytes of a download that are written at once."""

PROCESSING = frozenset({"pending", "processing", "running"})
"""Statuses of a file from which no batch can be created yet; older Azure servers have them."""

PAGE = 100
"""Entries of a list in one page."""

BEFORE = 86_400.0
"""Seconds before its preparation in which a batch is still looked for: clocks differ, and a list need not be in order."""

LONGEST_METADATA = 512
"""Characters of a value in a job's metadata."""


Observe = Callable[[str, Mapping[str, str], float, CallError | None], None]
"""Receives each finished call: the operation, ids by name, seconds, and the error."""


class OpenAIBatches:
    """One client for all threads. Raises `CallError` for whatever comes of a call, `OutputError` for a local disk."""

    def __init__(self, context: BackendContext, price: Price, observe: Observe | None = None) -> None:
        self._context = context
        self._price = price
        self._observe = observe
        self._lock = threading.Lock()
        self._clients: dict[bool, OpenAI] = {}
        self._processed: set[str] = set()
        """Uploaded files from which a batch can be created."""

    def check(self) -> None:
        """Raises `UsageError` when a key is needed and there is none."""
        check_context(self._context, socks=True)

    def close(self) -> None:
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    # ------------------------------------------------------------------------------------------------- pure

    def custom_id(self, request: Request, number: int) -> str:
        return batch_lines.custom_id(request.target, number, request.request_hash)

    def line(self, attempt: Attempt) -> bytes:
        return batch_lines.line(attempt)

    def read(self, batch: Batch, line: bytes) -> BatchResult:
        return batch_lines.read_line(batch, remove_key([line], self._context), self._price)

    def enqueued_limit(self, text: str) -> int | None:
        return batch_lines.enqueued_limit(text)

    def seen(self, job: Mapping[str, Any]) -> Batch:
        """A job as the API's object, of which nothing is known from elsewhere; `key` is empty for one that is not ours."""
        return read_batch(Batch(batch_lines.key_of(job), "", ""), job)

    def cost(self, batch: Batch) -> float | None:
        """US dollars for what the API says was used; None where either is unknown."""
        return None if batch.usage is None else self._price(batch.model, batch.usage, batch_lines.TIER)

    # ------------------------------------------------------------------------------------------------ files

    def upload(self, batch: Batch, path: Path) -> str:
        try:
            stream = path.open("rb")
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
        with stream:
            uploaded = self._call(
                "upload",
                lambda client: client.files.with_raw_response.create(
                    file=(f"{batch.key}.jsonl", stream, "application/jsonl"),
                    purpose="batch",
                    expires_after={"anchor": "created_at", "seconds": FILE_SECONDS},
                    timeout=client_timeout(TRANSFER_SECONDS, FILE_TRANSFER_SECONDS),
                ),
                key=batch.key,
            )
        return self._note_file(uploaded)

    def find_file(self, batch: Batch) -> str | None:
        name = f"{batch.key}.jsonl"
        for entry in _young(self._files(), batch):
            if entry.get("filename") == name and batch.bytes in (0, entry.get("bytes")):
                return self._note_file(entry)
        return None

    def _note_file(self, entry: Mapping[str, Any]) -> str:
        """Return the id of a file, and note whether it is processed."""
        file_id = require_id(entry, "file")
        if entry.get("status") not in PROCESSING:
            self._processed.add(file_id)
        return file_id

    def file_pending(self, file_id: str) -> bool:
        """Return True while the provider processes a file. Asks only for files whose last status was another."""
        if file_id not in self._processed:
            try:
                self._note_file({**self._describe_file(file_id), "id": file_id})
            except CallError as error:
                if error.outcome.retryable or error.outcome.stops_run:
                    raise
                return False  # no status to wait for: the creation shows the state of the file
        return file_id not in self._processed

    def file_bytes(self, file_id: str) -> int | None:
        """Return the size of a file; None if unknown."""
        size = self._describe_file(file_id).get("bytes")
        return size if isinstance(size, int) else None

    def _describe_file(self, file_id: str) -> dict[str, Any]:
        return self._call(
            "describe file",
            lambda client: client.files.with_raw_response.retrieve(file_id, timeout=self._short()),
            file_id=file_id,
        )

    def delete_file(self, file_id: str) -> None:
        """A file that is gone already is as good as deleted."""
        try:
            self._call(
                "delete file",
                lambda client: client.files.with_raw_response.delete(file_id, timeout=self._short()),
                file_id=file_id,
            )
        except CallError as error:
            if error.failure.http_status != 404:
                raise

    def download(self, file_id: str, path: Path) -> int:
        size = 0
        try:
            with closing(self._pieces(file_id)) as pieces, atomic_write(path) as stream:
                for piece in pieces:
                    stream.write(piece)
                    size += len(piece)
        except OutputError as error:
            raise OutputError(error.message, "nothing is lost: the provider keeps the file for 30 days") from error
        return size

    def _pieces(self, file_id: str) -> Generator[bytes]:
        """The content of a file, as it arrives; it ends without an exception only when it is whole."""
        started = time.perf_counter()
        answer: httpx2.Response | None = None
        try:
            # Some servers keep their files elsewhere and answer with a redirect; the key does not go there.
            content = self._client(redirects=True).files.with_streaming_response.content
            with content(file_id, timeout=client_timeout(TRANSFER_SECONDS, FILE_TRANSFER_SECONDS)) as response:
                answer = response.http_response
                yield from response.iter_bytes(PIECE)
            _check_whole(answer)
        except Exception as error:
            raise self._ended("download", started, {"file_id": file_id}, answer, error) from error
        self._ended("download", started, {"file_id": file_id}, answer)

    # ------------------------------------------------------------------------------------------------- jobs

    def create(self, batch: Batch, project: str) -> Batch:
        metadata = {"bioforge": batch.key, "project": project[:LONGEST_METADATA]}
        return self.create_job(batch, {name: value for name, value in metadata.items() if value})

    def create_job(self, batch: Batch, metadata: Mapping[str, str], window: str = WINDOW) -> Batch:
        """As `create`, with metadata and completion window of one's own. Once it may have arrived, `find` knows more."""
        endpoint: Any = batch.endpoint
        asked: Any = window
        body = self._call(
            "create",
            lambda client: client.batches.with_raw_response.create(
                input_file_id=batch.file_id or "",
                endpoint=endpoint,
                completion_window=asked,
                metadata=dict(metadata),
                timeout=client_timeout(TRANSFER_SECONDS),
            ),
            key=batch.key,
            file_id=batch.file_id or "",
        )
        require_id(body, "batch")
        return read_batch(batch, body)

    def find(self, batch: Batch) -> Batch | None:
        for job in _young(self.jobs(), batch):
            if _is(job, batch):
                return read_batch(batch, job)
        return None

    def jobs(self) -> Iterator[Mapping[str, Any]]:
        """Every job of the account's project as the API's object, newest first, fetched in pages as they are read."""
        return self._entries("list", lambda page, client: client.batches.with_raw_response.list(**page))

    def job(self, batch_id: str) -> Mapping[str, Any]:
        """A job as the API's object."""
        return self._call(
            "retrieve",
            lambda client: client.batches.with_raw_response.retrieve(batch_id, timeout=self._short()),
            batch_id=batch_id,
        )

    def look(self, batch: Batch) -> Batch:
        return read_batch(batch, self.job(batch.batch_id or ""))

    def cancel(self, batch: Batch) -> Batch:
        batch_id = batch.batch_id or ""
        body = self._call(
            "cancel",
            lambda client: client.batches.with_raw_response.cancel(batch_id, timeout=self._short()),
            batch_id=batch_id,
        )
        return read_batch(batch, body)

    # ------------------------------------------------------------------------------------------------ calls

    def _files(self) -> Iterator[Mapping[str, Any]]:
        return self._entries(
            "list files",
            lambda page, client: client.files.with_raw_response.list(purpose="batch", order="desc", **page),
        )

    def _entries(self, operation: str, ask: Callable[[dict[str, Any], OpenAI], Any]) -> Iterator[Mapping[str, Any]]:
        """The entries of a list, page by page."""
        after = ""
        while True:
            page: dict[str, Any] = {"limit": PAGE, "timeout": self._short()} | ({"after": after} if after else {})
            body = self._call(operation, partial(ask, page), after=after)
            data = body.get("data")
            entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
            yield from entries
            last = entries[-1].get("id") if entries else None
            # A server that pays no heed to `after` would give the same page for ever.
            if not body.get("has_more") or not isinstance(last, str) or last == after:
                return
            after = last

    def _call(self, operation: str, ask: Callable[[OpenAI], Any], **ids: str) -> dict[str, Any]:
        """The object that a call answers with."""
        started = time.perf_counter()
        answer: httpx2.Response | None = None
        try:
            answer = ask(self._client()).http_response
            assert answer is not None
            body = read_json_object(remove_key([answer.content], self._context))
            error = None if "id" in body or "data" in body else embedded_error(body, None)
            if error and (refused := read_error_object(error, lower_headers(answer.headers), answer.content)):
                raise CallError(refused)
        except Exception as error:
            raise self._ended(operation, started, ids, answer, error) from error
        found = body.get("id")
        if operation in ("upload", "create") and isinstance(found, str):
            ids["file_id" if operation == "upload" else "batch_id"] = found
        self._ended(operation, started, ids, answer)
        return body

    def _ended(
        self,
        operation: str,
        started: float,
        ids: Mapping[str, str],
        answer: httpx2.Response | None,
        error: Exception | None = None,
    ) -> CallError:
        """Report the end of a call to the observer; return the error to raise, if any."""
        seconds = time.perf_counter() - started
        if isinstance(error, CallError):
            failed = error
        else:
            failed = CallError(Outcome() if error is None else self._outcome(error, seconds, answer))
        if self._observe is not None:
            request_id = failed.outcome.request_id or (answer.headers.get("x-request-id") if answer else None)
            shown = remove_key([(request_id or "").encode("utf-8", "replace")], self._context)
            known = {**ids, "request_id": shown.decode("utf-8", "replace")}
            told = {name: value for name, value in known.items() if value}
            self._observe(operation, told, seconds, None if error is None else failed)
        return failed

    def _outcome(self, error: Exception, seconds: float, answer: httpx2.Response | None) -> Outcome:
        import openai

        if isinstance(error, openai.APIStatusError):
            return FAILURES.from_refusal(error.response, seconds, self._context)
        return FAILURES.from_sdk_error(error, openai.APIConnectionError, seconds, answer, self._context)

    def _client(self, redirects: bool = False) -> OpenAI:
        import httpx2
        from openai import OpenAI

        with self._lock:
            found = self._clients.get(redirects)
            if found is None:
                found = self._clients[redirects] = OpenAI(
                    api_key=self._context.api_key or PLACEHOLDER_KEY,
                    base_url=self._context.base_url,
                    max_retries=0,
                    timeout=self._short(),
                    # a file may be kept elsewhere, where everything is encrypted
                    http_client=httpx2.Client(
                        **client_options(self._context.base_url, redirects=redirects), event_hooks=total_timeout()
                    ),
                )
            return found

    def _short(self) -> httpx2.Timeout:
        return client_timeout(min(CALL_SECONDS, self._context.timeout))


def _is(job: Mapping[str, Any], batch: Batch) -> bool:
    same_key = bool(batch.key) and batch_lines.key_of(job) == batch.key
    return same_key or (bool(batch.file_id) and job.get("input_file_id") == batch.file_id)


def _young(entries: Iterator[Mapping[str, Any]], batch: Batch) -> Iterator[Mapping[str, Any]]:
    """The entries of a list up to a whole page of those that are older than the batch.

    All of them where the list is not sorted with the newest first, as that of another server may be.
    """
    old, last, sorted_ = 0, float("inf"), True
    for entry in entries:
        yield entry
        created = entry.get("created_at")
        if not isinstance(created, int | float) or created <= 0:
            continue
        sorted_, last = sorted_ and created <= last, created
        old = old + 1 if created < batch.prepared_at - BEFORE else 0
        if sorted_ and old >= PAGE:
            return


def _check_whole(answer: httpx2.Response) -> None:
    """The transport notices a body that is too short; this also notices one that another program cut for it."""
    expected, arrived = answer.headers.get("content-length", ""), answer.num_bytes_downloaded
    if expected.isdecimal() and int(expected) != arrived:
        words = f"the file was cut off: {arrived:,} of {int(expected):,} bytes arrived"
        raise CallError(Outcome(failure=Failure("truncated_body", words), paid=Paid.MAYBE, retryable=True))
