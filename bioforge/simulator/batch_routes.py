"""HTTP routes of `/v1/batches`: create, retrieve, list and cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from secrets import token_hex
from typing import Any

from aiohttp import web

from bioforge.simulator import errors
from bioforge.simulator.answers import ENDPOINTS
from bioforge.simulator.batch_faults import faults_at
from bioforge.simulator.batch_lifecycle import TOKEN_LIMIT, BatchContext, JobLifecycle
from bioforge.simulator.batch_state import JobState
from bioforge.simulator.batch_worker import BatchWorker
from bioforge.simulator.counters import Counters
from bioforge.simulator.errors import ApiError, missing, wrong_type, wrong_value
from bioforge.simulator.files import File
from bioforge.simulator.http_exchange import HttpExchange
from bioforge.simulator.pagination import limit_of, listed, page
from bioforge.simulator.request_bodies import parse
from bioforge.simulator.uploads import keep_seconds

PATH = "/v1/batches"
WINDOW = "24h"
BATCH_ENDPOINTS = (
    *ENDPOINTS,
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)


class BatchRoutes:
    """Answers all paths under `/v1/batches`."""

    def __init__(self, context: BatchContext, worker: BatchWorker, counters: Counters) -> None:
        self._context = context
        self._worker = worker
        self._counters = counters

    async def handle(self, exchange: HttpExchange, path: str) -> web.StreamResponse:
        """Answer a request; raise `ApiError` to refuse it."""
        method = exchange.request.method
        name, _, rest = path.removeprefix(PATH).removeprefix("/").partition("/")
        match name, rest, method:
            case "", "", "POST":
                exchange.require("POST")
                return await self._create(exchange)
            case "", "", "GET":
                exchange.require("GET")
                return await self._list(exchange)
            case "", "", _:
                raise errors.wrong_method(method, path, "GET, POST")
            case _, "", _:
                exchange.require("GET")
                batch = self._find(name)
                await self._worker.catch_up()
                return exchange.send_json(batch.view())
            case _, "cancel", _:
                exchange.require("POST")
                return await self._cancel(exchange, self._find(name))
        raise errors.no_such_path(method, path)

    async def describe(self) -> list[dict[str, Any]]:
        """Return all batches, oldest first, as API objects with the real counts of their lines."""
        await self._worker.catch_up()
        return [
            {**batch.view(), "faults": batch.faults_text, "lines": {"total": batch.total, **asdict(batch.tally)}}
            for batch in self._context.batches
        ]

    def _find(self, name: str) -> JobState:
        if (batch := self._context.batches.find(name)) is None:
            raise ApiError(404, f"No batch found with id '{name}'.", param="id")
        return batch

    async def _create(self, exchange: HttpExchange) -> web.StreamResponse:
        context, options = self._context, self._context.options
        fields = parse(await exchange.request.read())
        file = self._check(fields)
        if refused := context.quota.refusal():
            return exchange.refuse(refused, "quota")
        now = context.clock()
        if context.batches.created_since(now - 3600) >= options.batch_creations_per_hour:
            return exchange.refuse(_too_many(options.batch_creations_per_hour), "limit")
        faults = faults_at(self._counters.creation(), options.batch_script, options.batch_faults)
        batch = JobState(
            id=f"batch_{token_hex(12)}",
            number=len(context.batches) + 1,
            endpoint=fields["endpoint"],
            input_file_id=file.id,
            input_digest=file.digest,
            completion_window=WINDOW,
            metadata=fields.get("metadata"),
            keep_results=_keep_results(fields),
            faults_text=faults,
            created=now,
            expires=now + options.batch_window_seconds,
        )
        if "create_refused" in batch.faults:
            message = "The server had an error while processing your request. (simulated fault: create_refused)"
            return exchange.refuse(ApiError(500, message, type="server_error", code="server_error"), "create_refused")
        context.folder.keep_input(file.id, batch.id)
        lifecycle = JobLifecycle(batch, context)
        view = batch.view()
        if options.batch_token_refusal == "create":
            await self._validate(lifecycle)
            # another batch may have been created while this input was read
            batch.number = len(context.batches) + 1
        context.batches.save(batch)
        self._worker.begin(lifecycle)
        exchange.ledger.count_batch()
        return exchange.drop("create_lost") if "create_lost" in batch.faults else exchange.send_json(view)

    async def _validate(self, lifecycle: JobLifecycle) -> None:
        """Check the input now. Raise `ApiError` and delete it if it exceeds the token limit."""
        for _ in lifecycle.validate():
            await asyncio.sleep(0)
            self._context.pace.begin()
        for error in lifecycle.batch.errors:
            if error["code"] == TOKEN_LIMIT:
                self._context.folder.input(lifecycle.batch.id).unlink()
                raise ApiError(400, error["message"], code=TOKEN_LIMIT)

    def _check(self, fields: Mapping[str, Any]) -> File:
        """Return the input file of a creation request. Raise `ApiError` for a request that the API refuses."""
        for name in ("input_file_id", "endpoint", "completion_window"):
            if fields.get(name) is None:
                raise missing(name)
            if not isinstance(fields[name], str):
                raise wrong_type(name, "a string", fields[name])
        if fields["endpoint"] not in BATCH_ENDPOINTS:
            choices = ", ".join(f"'{choice}'" for choice in BATCH_ENDPOINTS)
            raise wrong_value("endpoint", f"value '{fields['endpoint']}' is not one of {choices}.")
        if fields["endpoint"] not in ENDPOINTS:
            message = f"The simulator does not answer '{fields['endpoint']}'."
            raise ApiError(400, message, param="endpoint", code="unsupported_value")
        if fields["completion_window"] != WINDOW:
            raise wrong_value("completion_window", f"value '{fields['completion_window']}' is not '{WINDOW}'.")
        _check_metadata(fields.get("metadata"))
        _keep_results(fields)
        file = self._context.files.find(fields["input_file_id"])
        if file is None:
            raise ApiError(404, f"No such File object: {fields['input_file_id']}", param="input_file_id")
        if file.purpose != "batch":
            message = f"Invalid file purpose '{file.purpose}' for a batch: upload the input with the purpose 'batch'."
            raise ApiError(400, message, param="input_file_id", code="invalid_value")
        return file

    async def _list(self, exchange: HttpExchange) -> web.Response:
        await self._worker.catch_up()
        query = exchange.request.query
        chosen, more = page(self._context.batches.newest_first(), query, limit_of(query, 20, 100))
        found = [self._find(name).view() for name in chosen]
        return exchange.send_json(listed(found, more))

    async def _cancel(self, exchange: HttpExchange, batch: JobState) -> web.Response:
        await self._worker.catch_up()
        if batch.status == "cancelling":
            return exchange.send_json(batch.view())
        if batch.over or batch.status == "finalizing" or batch.errors:
            status = "failed" if batch.errors else batch.status
            raise ApiError(409, f"Cannot cancel a batch with status '{status}'.")
        batch.enter("cancelling", self._context.clock())
        self._context.batches.save(batch)
        self._worker.wake(batch)
        return exchange.send_json(batch.view())


def _keep_results(fields: Mapping[str, Any]) -> float | None:
    policy = fields.get("output_expires_after")
    if policy is None:
        return None
    if not isinstance(policy, dict):
        raise wrong_type("output_expires_after", "an object", policy)
    return keep_seconds("output_expires_after", policy)


def _check_metadata(metadata: object) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise wrong_type("metadata", "an object", metadata)
    if len(metadata) > 16:
        message = f"too many properties. Expected at most 16, but got {len(metadata)} instead."
        raise wrong_value("metadata", message, "object_above_max_properties")
    for key, text in metadata.items():
        if len(key) > 64:
            raise wrong_value("metadata", f"a key of {len(key)} characters, at most 64.", "string_above_max_length")
        if not isinstance(text, str):
            raise wrong_type(f"metadata.{key}", "a string", text)
        if len(text) > 512:
            message = f"a text of {len(text)} characters, at most 512."
            raise wrong_value(f"metadata.{key}", message, "string_above_max_length")


def _too_many(limit: int) -> ApiError:
    message = f"Rate limit reached for batch creations per hour: Limit {limit}. Please try again later."
    return ApiError(429, message, type="requests", code="rate_limit_exceeded")
